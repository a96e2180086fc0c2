//! A server that records what the agent says, and the agent's process.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(20);

/// One call that the server received.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) bearer: Option<String>,
    pub(crate) workspace: Option<String>,
    pub(crate) body: Value,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn ok(body: Value) -> Self {
        Self { status: 200, body }
    }
}

type Script = dyn Fn(&Seen, &Path) -> Answer + Send + Sync;

pub(crate) struct Fixture {
    pub(crate) workspace_id: String,
    folder: PathBuf,
    address: SocketAddr,
    seen: watch::Receiver<Vec<Seen>>,
    _server: JoinSet<()>,
}

impl Fixture {
    /// A server that accepts everything.
    pub(crate) async fn quiet() -> Self {
        Self::new(|_, _| Answer::ok(json!({"status": "ok"}))).await
    }

    pub(crate) async fn new(script: impl Fn(&Seen, &Path) -> Answer + Send + Sync + 'static) -> Self {
        let folder = std::env::temp_dir().join(format!("sample-agent-{}", Uuid::new_v4()));
        std::fs::create_dir_all(folder.join("configs")).unwrap();
        std::fs::create_dir_all(folder.join("workspace")).unwrap();
        std::fs::write(folder.join("configs/config.yaml"), "name: Lead\n").unwrap();

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (record, seen) = watch::channel(Vec::new());
        let mut server = JoinSet::new();
        server.spawn(serve(listener, Arc::new(script), record, folder.join("configs")));
        Self { workspace_id: Uuid::new_v4().to_string(), folder, address, seen, _server: server }
    }

    pub(crate) fn configs(&self) -> PathBuf {
        self.folder.join("configs")
    }

    pub(crate) fn workspace(&self) -> PathBuf {
        self.folder.join("workspace")
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.borrow().clone()
    }

    pub(crate) async fn wait_for(&self, enough: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
        let mut seen = self.seen.clone();
        let outcome = tokio::time::timeout(PATIENCE, seen.wait_for(|seen| enough(seen))).await;
        match outcome {
            Ok(found) => found.unwrap().clone(),
            Err(_) => panic!("only this was seen: {:#?}", self.seen()),
        }
    }

    fn command(&self, port: u16, env: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sample-agent"));
        command
            .env_clear()
            .env("WORKSPACE_ID", &self.workspace_id)
            .env("HOSTNAME", "ws-test")
            .env("PLATFORM_URL", format!("http://{}", self.address))
            .env("WORKSPACE_CONFIG_PATH", self.configs())
            .env("SAMPLE_WORKSPACE", self.workspace())
            .env("SAMPLE_LISTEN", format!("127.0.0.1:{port}"))
            .env("SAMPLE_HEARTBEAT_SECONDS", "1")
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Waits until it listens.
    pub(crate) async fn start(&self, env: &[(&str, &str)]) -> Agent {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let agent = Agent { process: self.command(address.port(), env).spawn().unwrap(), address };
        let listens = async {
            while TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, listens).await.expect("the agent does not listen");
        agent
    }

    /// The exit code of an agent that is not expected to boot.
    pub(crate) async fn boot_fails(&self, env: &[(&str, &str)]) -> Option<i32> {
        let mut process = self.command(0, env).spawn().unwrap();
        let status = tokio::time::timeout(PATIENCE, process.wait()).await.expect("the agent booted");
        status.unwrap().code()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

async fn serve(
    listener: TcpListener,
    script: Arc<Script>,
    record: watch::Sender<Vec<Seen>>,
    configs: PathBuf,
) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (script, record, configs) = (Arc::clone(&script), record.clone(), configs.clone());
        connections.spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let (script, record, configs) = (Arc::clone(&script), record.clone(), configs.clone());
                async move {
                    let header =
                        |name| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
                    let bearer = header("authorization").map(|value| value.replacen("Bearer ", "", 1));
                    let (path, workspace) = (request.uri().path().to_owned(), header("x-workspace-id"));
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let body = serde_json::from_slice(&body).unwrap_or_default();
                    let call = Seen { path, bearer, workspace, body };
                    let answer = script(&call, &configs);
                    record.send_modify(|seen| seen.push(call));
                    let body = Full::new(Bytes::from(answer.body.to_string()));
                    Ok::<_, Infallible>(Response::builder().status(answer.status).body(body).unwrap())
                }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

pub(crate) struct Agent {
    process: Child,
    address: SocketAddr,
}

pub(crate) async fn exit_of(agent: &mut Agent) -> Option<i32> {
    tokio::time::timeout(PATIENCE, agent.process.wait()).await.expect("still running").unwrap().code()
}

pub(crate) fn message(text: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {"message": {
        "role": "user", "messageId": "m", "parts": [{"kind": "text", "text": text}],
    }}})
}

impl Agent {
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.process.id().unwrap()).unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.post_bytes(path, None, body.to_string().into_bytes()).await
    }

    /// For a call whose answer may not come.
    pub(crate) async fn try_post(&self, path: &str, body: &Value) {
        let _ = self.exchange(Method::POST, path, None, body.to_string().into_bytes()).await;
    }

    /// Bearer and content type may be given.
    pub(crate) async fn post_bytes(
        &self,
        path: &str,
        headers: Option<(&str, &str)>,
        body: Vec<u8>,
    ) -> (u16, Value) {
        let (status, body) = self.exchange(Method::POST, path, headers, body).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    pub(crate) async fn get(&self, path: &str, bearer: Option<&str>) -> (u16, Value) {
        let (status, body) = self.get_bytes(path, bearer).await;
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    pub(crate) async fn get_bytes(&self, path: &str, bearer: Option<&str>) -> (u16, Vec<u8>) {
        let headers = bearer.map(|bearer| (bearer, "text/plain"));
        self.exchange(Method::GET, path, headers, Vec::new()).await.unwrap()
    }

    /// Sends a call and waits for no answer. The call lasts as long as what is returned.
    pub(crate) async fn begin(&self, path: &str, body: &Value) -> TcpStream {
        use tokio::io::AsyncWriteExt;
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let body = body.to_string();
        let request =
            format!("POST {path} HTTP/1.1\r\nHost: agent\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        headers: Option<(&str, &str)>,
        body: Vec<u8>,
    ) -> Result<(u16, Vec<u8>), hyper::Error> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", "agent");
        if let Some((bearer, content_type)) = headers {
            request = request
                .header("authorization", format!("Bearer {bearer}"))
                .header("content-type", content_type);
        }
        let response = sender.send_request(request.body(Full::new(Bytes::from(body))).unwrap()).await?;
        let status = response.status().as_u16();
        Ok((status, response.into_body().collect().await?.to_bytes().to_vec()))
    }
}
