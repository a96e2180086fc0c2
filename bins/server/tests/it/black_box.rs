//! The binary itself, as an operator runs it: real Postgres, real container engine, real agents, real signals.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use mws_egress::{OperatorClient, OperatorRequest};
use mws_models::WorkspaceId;
use mws_testkit::{TestDatabase, wait_for, wait_until, wait_until_within};
use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

use crate::support::ADMIN;

/// The agent's image, made by `cargo xtask test`; `None` when the tests of the engine are left out on purpose.
#[expect(clippy::disallowed_methods, reason = "how the test command tells what it has set up")]
pub(crate) fn agent_image() -> Option<String> {
    if std::env::var_os("MWS_TEST_NO_DOCKER").is_some() {
        println!("left out: this test needs a container engine");
        return None;
    }
    let image = std::env::var("MWS_TEST_AGENT_IMAGE").unwrap_or_else(|_| "mws-sample-agent:test".into());
    let known = docker(&["image", "inspect", "--format", "{{.Id}}", &image]);
    assert!(
        known.is_some(),
        "no image {image}: run `cargo xtask image --tag {image}`, or the tests with --no-docker"
    );
    Some(image)
}

/// Output of a docker command; `None` when it failed.
pub(crate) fn docker(arguments: &[&str]) -> Option<String> {
    let output = Command::new("docker").args(arguments).output().expect("the docker command");
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// An installation of its own on the shared engine, cleaned up at the end.
struct Installation {
    database: TestDatabase,
    image: String,
    instance: String,
    port: u16,
    client: OperatorClient,
    server: Option<Child>,
    /// What every run of the server logged.
    log: tempfile::NamedTempFile,
}

impl Installation {
    async fn new(image: String) -> Self {
        let instance = format!("t-{}", &Uuid::new_v4().simple().to_string()[..12]);
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let database = TestDatabase::create().await;
        Self {
            database,
            image,
            instance,
            port,
            client: OperatorClient::new().unwrap(),
            server: None,
            log: tempfile::NamedTempFile::new().unwrap(),
        }
    }

    /// Starts the binary and waits until it answers.
    async fn start(&mut self) {
        let templates = concat!(env!("CARGO_MANIFEST_DIR"), "/../../workspace-configs-templates");
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../manifest.json");
        let env = BTreeMap::from([
            ("PATH", "/usr/local/bin:/usr/bin:/bin".to_owned()),
            ("PORT", self.port.to_string()),
            ("DATABASE_URL", self.database.url().to_owned()),
            ("ADMIN_TOKEN", ADMIN.to_owned()),
            ("CONFIGS_DIR", templates.to_owned()),
            ("WORKSPACE_MANIFEST_PATH", manifest.to_owned()),
            ("MOLECULE_INSTANCE_ID", self.instance.clone()),
            ("MOLECULE_DOCKER_NETWORK", format!("{}-net", self.instance)),
            ("WORKSPACE_IMAGE_OVERRIDES", format!("sample={}", self.image)),
        ]);
        let server = Command::new(env!("CARGO_BIN_EXE_workspace-server"))
            .env_clear()
            .envs(env)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(self.log.as_file().try_clone().unwrap())
            .spawn()
            .unwrap();
        self.server = Some(server);
        wait_until("the server's first answer", async || {
            self.try_send(Method::GET, "/health", None).await.is_some_and(|(status, _)| status == 200)
        })
        .await;
    }

    /// `kill -9`.
    fn kill(&mut self) {
        let mut server = self.server.take().expect("a running server");
        server.kill().unwrap();
        server.wait().unwrap();
    }

    async fn try_send(&self, method: Method, path: &str, body: Option<Value>) -> Option<(u16, Value)> {
        let mut headers = HeaderMap::new();
        let bearer = HeaderValue::from_str(&format!("Bearer {ADMIN}")).unwrap();
        headers.insert(header::AUTHORIZATION, bearer);
        let request = OperatorRequest {
            method,
            url: Url::parse(&format!("http://127.0.0.1:{}{path}", self.port)).unwrap(),
            headers,
            body: body.map(|body| Bytes::from(body.to_string())),
            timeout: Duration::from_secs(60),
            max_body: 1 << 20,
        };
        let answer = self.client.send(request).await.ok()?;
        Some((answer.status.as_u16(), serde_json::from_slice(&answer.body).unwrap_or_default()))
    }

    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        self.try_send(method, path, body).await.expect("an answer")
    }

    async fn create(&self, name: &str, parent: Option<WorkspaceId>) -> WorkspaceId {
        let body = json!({"name": name, "template": "sample", "tier": 2, "parent_id": parent});
        let (status, created) = self.send(Method::POST, "/workspaces", Some(body)).await;
        assert_eq!(status, 201, "{created}");
        created["id"].as_str().unwrap().parse().unwrap()
    }

    async fn wait_online(&self, id: WorkspaceId, within: u64) {
        wait_until_within(Duration::from_secs(within), "the agent online", async || {
            let (_, workspace) = self.send(Method::GET, &format!("/workspaces/{id}"), None).await;
            workspace["status"] == "online"
        })
        .await;
    }

    /// Sends a text and returns the text of the answer.
    async fn ask(&self, id: WorkspaceId, text: &str) -> Result<String, (u16, Value)> {
        let message = json!({"method": "message/send", "params": {"message": {
            "role": "user", "parts": [{"kind": "text", "text": text}]}}});
        let (status, answer) = self.send(Method::POST, &format!("/workspaces/{id}/a2a"), Some(message)).await;
        match answer.pointer("/result/parts/0/text").and_then(Value::as_str) {
            Some(text) if status == 200 => Ok(text.to_owned()),
            _ => Err((status, answer)),
        }
    }

    async fn delete(&self, id: WorkspaceId) {
        let (status, body) = self.send(Method::DELETE, &format!("/workspaces/{id}?confirm=true"), None).await;
        assert_eq!(status, 200, "{body}");
    }

    fn label(&self) -> String {
        format!("label=molecule.platform.instance={}", self.instance)
    }

    fn containers(&self) -> Vec<String> {
        let listed = docker(&["ps", "-aq", "--filter", &self.label()]).unwrap();
        listed.lines().map(str::to_owned).collect()
    }

    fn volumes(&self) -> Vec<String> {
        let listed = docker(&["volume", "ls", "-q", "--filter", &self.label()]).unwrap();
        listed.lines().map(str::to_owned).collect()
    }

    async fn row(&self, id: WorkspaceId, column: &str) -> Option<String> {
        self.database.value(&format!("SELECT {column}::text FROM workspaces WHERE id = '{id}'")).await
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the server's log:\n{}", std::fs::read_to_string(self.log.path()).unwrap_or_default());
        }
        if let Some(mut server) = self.server.take() {
            server.kill().ok();
            server.wait().ok();
        }
        for container in self.containers() {
            docker(&["rm", "-fv", &container]);
        }
        for volume in self.volumes() {
            docker(&["volume", "rm", "-f", &volume]);
        }
        docker(&["network", "rm", &format!("{}-net", self.instance)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_team_boots_talks_and_leaves_nothing_behind() {
    // 2.R162 (without restart, pause and hibernate), 2.R28 to R30, 2.R38, 1.R111
    let Some(image) = agent_image() else { return };
    let mut installation = Installation::new(image).await;
    installation.start().await;
    let lead = installation.create("Lead", None).await;
    let writer = installation.create("Writer", Some(lead)).await;
    for id in [lead, writer] {
        installation.wait_online(id, 30).await;
        // The agent may register before its start has returned; the published address then takes over.
        wait_until("the published address", async || {
            installation.row(id, "url_provisioned").await.as_deref() == Some("true")
        })
        .await;
        let url = installation.row(id, "url").await.unwrap();
        assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    }
    assert_eq!(installation.ask(writer, "hello").await.unwrap(), "echo: hello");
    // The lead asks the writer through the server, with its own bearer.
    let answer = installation.ask(lead, "ask Writer: what is the plan?").await.unwrap();
    assert!(answer.contains("echo: what is the plan?"), "{answer}");
    let source = format!(
        "SELECT source_id::text FROM activity_logs WHERE workspace_id = '{writer}' AND source_id IS NOT NULL"
    );
    assert_eq!(installation.database.value(&source).await, Some(lead.to_string()));

    installation.delete(lead).await;
    assert_eq!(installation.containers(), Vec::<String>::new());
    assert_eq!(installation.volumes(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_after_the_commit_of_a_create_finishes_it() {
    // 1.R59, 3.R100, 3.R127, 2.R165
    let Some(image) = agent_image() else { return };
    let mut installation = Installation::new(image).await;
    installation.start().await;
    let body = json!({"name": "Lead", "template": "sample", "tier": 2});
    let create = installation.try_send(Method::POST, "/workspaces", Some(body));
    let committed = wait_for("the row", async || {
        installation.database.column("SELECT id::text FROM workspaces").await.into_iter().next().flatten()
    });
    // Whatever the request was told, the commit is what counts.
    let id = tokio::select! {
        biased;
        id = committed => id,
        answer = create => answer.unwrap().1["id"].as_str().unwrap().to_owned(),
    };
    installation.kill();
    let id: WorkspaceId = id.parse().unwrap();
    installation.start().await;
    installation.wait_online(id, 90).await;
    assert_eq!(installation.containers().len(), 1);
    assert_eq!(installation.ask(id, "still there?").await.unwrap(), "echo: still there?");
    installation.delete(id).await;
    assert_eq!((installation.containers(), installation.volumes()), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_after_the_containers_create_finishes_it() {
    // 2.R43, 2.R165, 3.R100: what the dead run left is replaced, nothing is orphaned.
    let Some(image) = agent_image() else { return };
    let mut installation = Installation::new(image).await;
    installation.start().await;
    let id = installation.create("Lead", None).await;
    let name = format!("name=ws-{}", id.short());
    wait_until("the container", async || {
        docker(&["ps", "-aq", "--filter", &name]).is_some_and(|listed| !listed.is_empty())
    })
    .await;
    installation.kill();
    installation.start().await;
    let (status, workspace) = installation.send(Method::GET, &format!("/workspaces/{id}"), None).await;
    assert_eq!(status, 200);
    assert!(["provisioning", "online"].contains(&workspace["status"].as_str().unwrap()), "{workspace}");
    // The dead process's lease of 30 s has to end first.
    installation.wait_online(id, 120).await;
    assert_eq!(installation.containers().len(), 1);
    wait_until("the agent's answer", async || installation.ask(id, "back").await.is_ok()).await;
    installation.delete(id).await;
    assert_eq!((installation.containers(), installation.volumes()), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_agent_is_restarted_with_a_new_bearer() {
    // 4.R63, 4.R64, 2.R118, 2.R105
    let Some(image) = agent_image() else { return };
    let mut installation = Installation::new(image).await;
    installation.start().await;
    let id = installation.create("Lead", None).await;
    installation.wait_online(id, 30).await;
    let token = "SELECT encode(token_hash, 'hex') FROM workspace_auth_tokens WHERE revoked_at IS NULL";
    let before = installation.database.column(token).await;
    // Behind the engine's back, so that no restart policy revives it.
    docker(&["rm", "-f", &format!("ws-{}", id.short())]).unwrap();
    let (status, body) = installation.ask(id, "anybody?").await.unwrap_err();
    assert_eq!((status, &body["restarting"]), (503, &Value::Bool(true)), "{body}");
    wait_until("the row says so", async || {
        installation.row(id, "status").await.is_some_and(|status| status != "online")
    })
    .await;
    installation.wait_online(id, 60).await;
    wait_until("the agent's answer", async || installation.ask(id, "back").await.is_ok()).await;
    let after = installation.database.column(token).await;
    assert_eq!(after.len(), 1);
    assert_ne!(before, after);
    installation.delete(id).await;
    assert_eq!((installation.containers(), installation.volumes()), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_image_is_a_clear_failure() {
    // 2.R24, 2.R86
    if agent_image().is_none() {
        return;
    }
    let mut installation = Installation::new("mws-no-such-image:never".into()).await;
    installation.start().await;
    let id = installation.create("Lead", None).await;
    wait_until("the failure", async || installation.row(id, "status").await.as_deref() == Some("failed"))
        .await;
    let error = installation.row(id, "last_sample_error").await.unwrap();
    assert_eq!(error, "container image for runtime \"sample\" is not available");
    installation.delete(id).await;
    assert_eq!((installation.containers(), installation.volumes()), (vec![], vec![]));
}
