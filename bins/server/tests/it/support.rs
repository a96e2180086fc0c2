//! One server for one test.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use mws_app::App;
use mws_egress::{OperatorClient, OperatorRequest};
use mws_models::WorkspaceId;
use mws_provisioner::mock::MockProvisioner;
use mws_provisioner::{Backends, Provisioner, StartSpec};
use mws_runtime::config::{Config, Host};
use mws_runtime::shutdown::Shutdown;
use mws_runtime::tasks::Spawner;
use mws_testkit::{TestDatabase, wait_for};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::sync::Mutex;
use tokio::net::TcpListener;
use url::Url;

/// The admin bearer of every test server that has one.
pub(crate) const ADMIN: &str = "admin-token-of-the-tests";

/// How a test server is set up.
pub(crate) struct Setup {
    env: BTreeMap<String, String>,
    backend: bool,
    mock: MockProvisioner,
}

impl Default for Setup {
    /// `ADMIN_TOKEN` set, a backend in memory, development (so that agents may live on loopback) off.
    fn default() -> Self {
        let env = [("ADMIN_TOKEN", ADMIN), ("CONFIGS_DIR", TEMPLATES), ("WORKSPACE_MANIFEST_PATH", MANIFEST)];
        let env = env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { env, backend: true, mock: MockProvisioner::new() }
    }
}

const TEMPLATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../workspace-configs-templates");
const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../manifest.json");

impl Setup {
    /// Sets a variable.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Removes a variable.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.env.remove(name);
        self
    }

    /// Development, where agents may live on loopback.
    pub(crate) fn development(self) -> Self {
        self.env("MOLECULE_ENV", "development")
    }

    /// No backend at all.
    pub(crate) fn without_backend(mut self) -> Self {
        self.backend = false;
        self
    }

    pub(crate) async fn start(self) -> TestServer {
        let database = TestDatabase::create().await;
        self.start_on(Arc::new(database)).await
    }

    /// A further server on the same database.
    pub(crate) async fn start_on(self, database: Arc<TestDatabase>) -> TestServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut env = self.env;
        env.insert("PORT".into(), address.port().to_string());
        env.insert("DATABASE_URL".into(), database.url().to_owned());
        let host = Host { root: false, current_dir: "/".into(), data_home: None, home: Some("/tmp".into()) };
        let config = Config::load(env, &host).unwrap().config;

        let started: Arc<Mutex<Vec<Started>>> = Arc::default();
        let log = started.clone();
        let mock = self.mock.on_start(move |spec| {
            log.lock().unwrap().push(Started::of(spec));
            None
        });
        let mock = Arc::new(mock);
        let backends = if self.backend {
            Backends::fixed(mock.clone() as Arc<dyn Provisioner>)
        } else {
            Backends::none()
        };
        let shutdown = Shutdown::new();
        let app = mws_app::start_on(&config, Spawner::new(shutdown.clone()), backends).await.unwrap();
        let service = mws_http_api::router(mws_server::api(&app));
        let service = service.into_make_service_with_connect_info::<SocketAddr>();
        let stopping = shutdown.clone();
        let serve = async move {
            axum::serve(listener, service)
                .with_graceful_shutdown(async move { stopping.cancelled().await })
                .await
        };
        app.spawner.spawn("test-http", serve).detach();
        let base = Url::parse(&format!("http://{address}")).unwrap();
        TestServer { base, database, mock, started, app: Some(app), client: OperatorClient::new().unwrap() }
    }
}

/// What an agent was started with.
#[derive(Debug, Clone)]
pub(crate) struct Started {
    pub(crate) workspace: WorkspaceId,
    pub(crate) image: String,
    pub(crate) tier: i32,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) config_yaml: Option<String>,
    pub(crate) has_recovery: bool,
    /// The bearer that the agent finds in `/configs/.auth_token`.
    pub(crate) token: Option<String>,
}

impl Started {
    fn of(spec: &StartSpec) -> Self {
        let config = spec.config.files.iter().find(|file| file.path() == "config.yaml");
        Self {
            workspace: spec.workspace_id,
            image: spec.image.clone(),
            tier: spec.tier.number(),
            env: spec.env.clone(),
            config_yaml: config.map(|file| String::from_utf8(file.contents().to_vec()).unwrap()),
            has_recovery: !spec.config.recovery.is_empty(),
            token: spec.credentials.auth_token.as_ref().map(|token| token.expose_secret().to_owned()),
        }
    }
}

/// A running server. Its database goes with it.
pub(crate) struct TestServer {
    pub(crate) base: Url,
    pub(crate) database: Arc<TestDatabase>,
    pub(crate) mock: Arc<MockProvisioner>,
    started: Arc<Mutex<Vec<Started>>>,
    app: Option<App>,
    client: OperatorClient,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
}

impl Reply {
    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Asserts status and sentence.
    #[track_caller]
    pub(crate) fn is_error(&self, status: u16, error: &str) -> &Self {
        assert_eq!((self.status, self.json()["error"].as_str()), (status, Some(error)), "{self:?}");
        self
    }

    /// Asserts a 2xx and returns its body.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert!((200..300).contains(&self.status), "{self:?}");
        self.json()
    }
}

/// A request under construction.
pub(crate) struct Send<'a> {
    server: &'a TestServer,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Option<Bytes>,
}

impl Send<'_> {
    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        self.headers.append(name, HeaderValue::from_str(value).unwrap());
        self
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.body(body.to_string())
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Some(body.into());
        self
    }

    pub(crate) async fn send(self) -> Reply {
        let url = format!("{}{}", self.server.base.as_str().trim_end_matches('/'), self.path);
        let request = OperatorRequest {
            method: self.method,
            url: Url::parse(&url).unwrap(),
            headers: self.headers,
            body: self.body,
            timeout: Duration::from_secs(60),
            max_body: 64 << 20,
        };
        let answer = self.server.client.send(request).await.unwrap_or_else(|e| panic!("{url}: {e}"));
        Reply { status: answer.status.as_u16(), headers: answer.headers, bytes: answer.body }
    }
}

impl TestServer {
    /// A request without a credential.
    pub(crate) fn request(&self, method: Method, path: &str) -> Send<'_> {
        Send { server: self, method, path: path.to_owned(), headers: HeaderMap::new(), body: None }
    }

    /// `GET` as the admin.
    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.request(Method::GET, path).bearer(ADMIN).send().await
    }

    /// `POST` as the admin.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.request(Method::POST, path).bearer(ADMIN).json(body).send().await
    }

    /// `DELETE` as the admin.
    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.request(Method::DELETE, path).bearer(ADMIN).send().await
    }

    /// Creates a workspace with a model and returns its id.
    pub(crate) async fn create(&self, name: &str, parent: Option<WorkspaceId>) -> WorkspaceId {
        let body = json!({"name": name, "runtime": "sample", "model": "sample/echo", "tier": 2, "parent_id": parent});
        let created = self.post("/workspaces", &body).await.ok();
        created["id"].as_str().unwrap().parse().unwrap()
    }

    /// What a workspace's agent was last started with, as soon as it was.
    pub(crate) async fn started(&self, id: WorkspaceId) -> Started {
        let find = || self.started.lock().unwrap().iter().rev().find(|s| s.workspace == id).cloned();
        wait_for("the agent's start", async || find()).await
    }

    /// How often a workspace's agent was started.
    pub(crate) fn starts(&self, id: WorkspaceId) -> usize {
        self.started.lock().unwrap().iter().filter(|s| s.workspace == id).count()
    }

    /// Creates a workspace, waits for its start and registers its agent at `url`. Returns id and bearer.
    pub(crate) async fn online(
        &self,
        name: &str,
        parent: Option<WorkspaceId>,
        url: &str,
    ) -> (WorkspaceId, String) {
        let id = self.create(name, parent).await;
        let token = self.started(id).await.token.unwrap();
        let body = json!({"id": id, "url": url, "agent_card": {"name": name}});
        self.request(Method::POST, "/registry/register").bearer(&token).json(&body).send().await.ok();
        // The run stores the address it published over what was registered; a test's agent lives elsewhere.
        wait_for("the end of the start", async || self.job_free(id).await.then_some(())).await;
        let sql = format!("UPDATE workspaces SET url = '{url}', url_provisioned = true WHERE id = '{id}'");
        self.database.execute(&sql).await;
        (id, token)
    }

    async fn job_free(&self, id: WorkspaceId) -> bool {
        let sql = format!(
            "SELECT count(*) FROM workspace_jobs WHERE workspace_id = '{id}' AND state IN ('pending', 'running')"
        );
        self.database.value(&sql).await.as_deref() == Some("0")
    }

    /// The status of a workspace.
    pub(crate) async fn status(&self, id: WorkspaceId) -> String {
        let reply = self.request(Method::GET, &format!("/workspaces/{id}?include_removed=true")).send().await;
        reply.json()["status"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn wait_status(&self, id: WorkspaceId, status: &str) {
        mws_testkit::wait_until(status, async || self.status(id).await == status).await;
    }

    /// The recorded events of a workspace, oldest first: name and payload.
    pub(crate) async fn events(&self, id: WorkspaceId) -> Vec<(String, Value)> {
        let listed = self.get(&format!("/events/{id}?limit=500")).await.ok();
        let mut events: Vec<_> = listed
            .as_array()
            .unwrap()
            .iter()
            .map(|e| (e["event_type"].as_str().unwrap().to_owned(), e["payload"].clone()))
            .collect();
        events.reverse();
        events
    }

    /// Inserts a workspace by SQL, for states that no route makes: `assignments` are column and expression, such
    /// as `("status", "'paused'")`.
    pub(crate) async fn row(&self, assignments: &[(&str, &str)]) -> WorkspaceId {
        let id = WorkspaceId::random();
        let (mut columns, mut values) = (String::from("id"), format!("'{id}'"));
        if assignments.iter().all(|(column, _)| *column != "name") {
            columns.push_str(", name");
            values.push_str(&format!(", 'ws {id}'"));
        }
        for (column, value) in assignments {
            columns.push_str(&format!(", {column}"));
            values.push_str(&format!(", {value}"));
        }
        self.database.execute(&format!("INSERT INTO workspaces ({columns}) VALUES ({values})")).await;
        id
    }

    /// Issues a workspace a token by SQL.
    pub(crate) async fn token(&self, id: WorkspaceId) -> String {
        let token = format!("token-of-{id}-{}", WorkspaceId::random());
        let sql = format!(
            "INSERT INTO workspace_auth_tokens (workspace_id, token_hash, prefix)
             VALUES ('{id}', sha256('{token}'), left('{token}', 8))"
        );
        self.database.execute(&sql).await;
        token
    }

    /// An expression over a workspace's row, as Postgres prints it; `None` is NULL.
    pub(crate) async fn field(&self, id: WorkspaceId, expression: &str) -> Option<String> {
        self.database.value(&format!("SELECT ({expression})::text FROM workspaces WHERE id = '{id}'")).await
    }

    /// `POST /registry/register` or `/registry/heartbeat` by an agent.
    pub(crate) async fn agent_posts(&self, path: &str, bearer: Option<&str>, body: &Value) -> Reply {
        let request = self.request(Method::POST, path).json(body);
        match bearer {
            Some(token) => request.bearer(token).send().await,
            None => request.send().await,
        }
    }

    /// Runs statements in a transaction that keeps its row locks for a while; returns when it has them.
    pub(crate) async fn hold(&self, statements: &str, seconds: f32) -> tokio::task::JoinHandle<()> {
        let mark = format!("hold-{}", WorkspaceId::random());
        let sql = format!("BEGIN; {statements}; SELECT pg_sleep({seconds}) /* {mark} */; COMMIT");
        let database = self.database.clone();
        let held = tokio::spawn(async move {
            database.execute(&sql).await;
        });
        let asleep = format!(
            "SELECT count(*) FROM pg_stat_activity
             WHERE wait_event = 'PgSleep' AND query LIKE '%{mark}%' AND pid <> pg_backend_pid()"
        );
        wait_for("the locks", async || {
            (self.database.value(&asleep).await.as_deref() == Some("1")).then_some(())
        })
        .await;
        held
    }

    /// The running services, for what has no route.
    pub(crate) fn app(&self) -> &App {
        self.app.as_ref().unwrap()
    }

    /// Stops in good order.
    pub(crate) async fn stop(mut self) {
        if let Some(app) = self.app.take() {
            app.stop().await;
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Some(app) = &self.app {
            app.spawner.shutdown().trigger();
        }
    }
}

/// An empty folder for templates of a test's own.
pub(crate) fn templates(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let path = folder.path().to_owned();
    (folder, path)
}
