//! What a real engine does too rarely to wait for: a small server plays one that fails where the test says.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use mws_models::WorkspaceId;
use mws_provisioner::{
    ConnectError, DockerBackend, DockerConfig, InstanceRef, Liveness, Provisioner, StartError, StartSpec,
    StopMode, internal_url,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::harness::{MockHarness, spec};

type Script = dyn Fn(&str, usize) -> Option<(u16, Value)> + Send + Sync;

struct FakeEngine {
    config: DockerConfig,
    calls: Arc<Mutex<Vec<String>>>,
    _server: JoinSet<()>,
}

impl FakeEngine {
    /// `script` sees each call as `METHOD /path` without the version, and how often it has seen that call before;
    /// `None` leaves the answer to an engine on which all goes well and nothing exists.
    async fn new(script: impl Fn(&str, usize) -> Option<(u16, Value)> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = DockerConfig {
            docker_host: Some(format!("tcp://{}", listener.local_addr().unwrap())),
            instance: Some("blue".into()),
            in_container: Some(false),
            ..DockerConfig::default()
        };
        let calls = Arc::new(Mutex::new(Vec::new()));
        let mut server = JoinSet::new();
        server.spawn(serve(listener, Arc::new(script), Arc::clone(&calls)));
        Self { config, calls, _server: server }
    }

    async fn backend(&self) -> DockerBackend {
        DockerBackend::connect(self.config.clone()).await.unwrap()
    }

    fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    fn count(&self, call: &str) -> usize {
        self.calls().iter().filter(|seen| *seen == call).count()
    }
}

async fn serve(listener: TcpListener, script: Arc<Script>, calls: Arc<Mutex<Vec<String>>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (script, calls) = (Arc::clone(&script), Arc::clone(&calls));
        connections.spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let (script, calls) = (Arc::clone(&script), Arc::clone(&calls));
                async move {
                    let path = request.uri().path();
                    let path = path.strip_prefix("/v1.41").or(path.strip_prefix("/v1.53")).unwrap_or(path);
                    let call = format!("{} {path}", request.method());
                    request.into_body().collect().await.unwrap();
                    let before = {
                        let mut calls = calls.lock().unwrap();
                        calls.push(call.clone());
                        calls.iter().filter(|seen| **seen == call).count() - 1
                    };
                    let (status, body) = script(&call, before).unwrap_or_else(|| all_well(&call));
                    let body = Full::new(Bytes::from(body.to_string()));
                    Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap())
                }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn all_well(call: &str) -> (u16, Value) {
    match call {
        "GET /version" => (200, json!({"ApiVersion": "1.41"})),
        "GET /info" => (200, json!({"NCPU": 2})),
        "GET /networks" | "GET /containers/json" => (200, json!([])),
        "POST /networks/create" => (201, json!({"Id": "net-1", "Warning": ""})),
        "POST /volumes/create" => (
            201,
            json!({"Name": "v", "Driver": "local", "Mountpoint": "/v", "Labels": {}, "Scope": "local", "Options": {}}),
        ),
        "POST /containers/create" => (201, json!({"Id": "c-1", "Warnings": []})),
        "GET /containers/c-1/json" => (200, running(&json!({}))),
        _ if call.starts_with("GET /containers/") => (404, json!({"message": "no such container"})),
        _ => (200, json!({})),
    }
}

fn running(labels: &Value) -> Value {
    json!({
        "Id": "c-1",
        "State": {"Running": true},
        "Config": {"Labels": labels},
        "NetworkSettings": {"Ports": {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "23456"}]}},
    })
}

fn any_spec() -> StartSpec {
    StartSpec { image: "agent:1".into(), ..spec(&MockHarness::new()) }
}

fn inspect_of(id: WorkspaceId) -> String {
    format!("GET /containers/ws-{}/json", id.short())
}

fn remove_of(id: WorkspaceId) -> String {
    format!("DELETE /containers/ws-{}", id.short())
}

#[tokio::test]
async fn a_name_in_use_is_freed_and_waited_for() {
    // 2.R44
    let spec = any_spec();
    let id = spec.workspace_id;
    let inspect = inspect_of(id);
    let engine = FakeEngine::new(move |call, before| {
        if call == "POST /containers/create" && before == 0 {
            return Some((409, json!({"message": "Conflict. The container name is already in use"})));
        }
        // Absent at step 3; then there; then, while it goes, there twice more.
        (call == inspect && (1..=3).contains(&before))
            .then(|| (200, running(&json!({"molecule.workspace.id": id.to_string()}))))
    })
    .await;
    let started = engine.backend().await.start(spec).await.unwrap();
    assert_eq!(started.host_url.as_deref(), Some("http://127.0.0.1:23456"));
    assert_eq!(engine.count(&remove_of(id)), 1);
    assert_eq!(engine.count("POST /containers/create"), 2);
    assert_eq!(engine.count(&inspect_of(id)), 5, "{:?}", engine.calls());
}

#[tokio::test]
async fn a_foreign_name_that_appears_meanwhile_stays() {
    // 2.R43 (3), 2.R44
    let spec = any_spec();
    let id = spec.workspace_id;
    let inspect = inspect_of(id);
    let engine = FakeEngine::new(move |call, before| match call {
        "POST /containers/create" => Some((409, json!({"message": "in use"}))),
        _ if call == inspect && before > 0 => Some((200, running(&json!({})))),
        _ => None,
    })
    .await;
    assert!(matches!(engine.backend().await.start(spec).await, Err(StartError::NameTaken)));
    assert_eq!(engine.count(&remove_of(id)), 0);
}

#[tokio::test]
async fn a_container_that_cannot_be_filled_is_removed_and_never_started() {
    // 2.R45
    let engine = FakeEngine::new(|call, _| {
        (call == "PUT /containers/c-1/archive").then(|| (500, json!({"message": "no space left"})))
    })
    .await;
    assert!(matches!(engine.backend().await.start(any_spec()).await, Err(StartError::Engine(_))));
    assert_eq!(engine.count("DELETE /containers/c-1"), 1);
    assert_eq!(engine.count("POST /containers/c-1/start"), 0);
}

#[tokio::test]
async fn the_order_of_a_start() {
    // 2.R43
    let spec = any_spec();
    let engine = FakeEngine::new(|_, _| None).await;
    let backend = engine.backend().await;
    let before = engine.calls().len();
    let inspect = inspect_of(spec.workspace_id);
    backend.start(spec).await.unwrap();
    let calls = engine.calls()[before..].to_vec();
    let order: Vec<_> = [
        "POST /networks/create",
        "POST /volumes/create",
        inspect.as_str(),
        "POST /containers/create",
        "PUT /containers/c-1/archive",
        "POST /containers/c-1/start",
        "GET /containers/c-1/json",
    ]
    .into_iter()
    .map(|step| calls.iter().position(|call| call == step).unwrap_or_else(|| panic!("{step}: {calls:?}")))
    .collect();
    assert!(order.is_sorted(), "{calls:?}");
}

#[tokio::test]
async fn an_engine_that_cannot_look_for_the_configuration_is_asked_twice() {
    // 2.R104: one retry after 500 ms, then go on
    let engine = FakeEngine::new(|call, _| {
        (call == "HEAD /containers/c-1/archive").then(|| (500, json!({"message": "busy"})))
    })
    .await;
    let mut spec = any_spec();
    spec.config.files.clear();
    let begun = Instant::now();
    engine.backend().await.start(spec).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(500));
    assert_eq!(engine.count("HEAD /containers/c-1/archive"), 2);
}

#[tokio::test]
async fn a_port_that_never_shows_leaves_the_internal_url() {
    // 2.R28
    let engine = FakeEngine::new(|call, _| {
        (call == "GET /containers/c-1/json").then(|| (200, json!({"Id": "c-1", "State": {"Running": true}})))
    })
    .await;
    let spec = any_spec();
    let id = spec.workspace_id;
    let started = engine.backend().await.start(spec).await.unwrap();
    assert_eq!(started.host_url, Some(internal_url(id)));
    assert_eq!(engine.count("GET /containers/c-1/json"), 3);
}

#[tokio::test]
async fn not_every_404_is_a_missing_image() {
    // 2.R24
    for image_exists in [true, false] {
        let engine = FakeEngine::new(move |call, _| match call {
            "POST /containers/create" => Some((404, json!({"message": "no such thing"}))),
            "GET /images/agent:1/json" if !image_exists => Some((404, json!({"message": "no such image"}))),
            _ => None,
        })
        .await;
        let outcome = engine.backend().await.start(any_spec()).await;
        match outcome {
            Err(StartError::ImageMissing { .. }) => assert!(!image_exists),
            Err(StartError::Engine(_)) => assert!(image_exists),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_failing_engine_is_no_news_about_agents() {
    // 2.R53, 2.R55, 2.R56: never "not running", never "no file", never an empty list
    let engine = FakeEngine::new(|call, _| {
        (call.starts_with("GET /containers/") || call.starts_with("HEAD "))
            .then(|| (500, json!({"message": "no such container"})))
    })
    .await;
    let backend = engine.backend().await;
    let instance = InstanceRef::from(WorkspaceId::random());
    assert!(matches!(backend.liveness(&instance).await, Liveness::Unknown(_)));
    assert!(backend.running_instance(&instance).await.is_err());
    assert!(backend.files().unwrap().has_file(&instance, "/configs/config.yaml").await.is_err());
    assert!(backend.list_managed().await.is_err());
    assert!(backend.list_by_name_prefix().await.is_err());
    assert!(backend.stop(&instance, StopMode::Force).await.is_err());
}

#[tokio::test]
async fn a_stop_succeeds_only_when_the_removal_did() {
    // 2.R51, 2.R52
    for (status, message, success) in [
        (204, "", true),
        (404, "no such container", true),
        (409, "removal of container ws-1 is already in progress", true),
        (409, "already in progress", false),
        (500, "device busy", false),
    ] {
        let instance = InstanceRef::from(WorkspaceId::random());
        let id = instance.workspace_id;
        let engine = FakeEngine::new(move |call, _| {
            if call == inspect_of(id) {
                Some((200, running(&json!({"molecule.platform.managed": "true"}))))
            } else if call == remove_of(id) {
                Some((status, json!({"message": message})))
            } else {
                // Neither step of the grace decides.
                call.starts_with("POST /containers/").then(|| (500, json!({"message": "no"})))
            }
        })
        .await;
        let outcome = engine.backend().await.stop(&instance, StopMode::Graceful).await;
        assert_eq!(outcome.is_ok(), success, "{status} {message}");
        let name = format!("ws-{}", id.short());
        let calls = engine.calls();
        let at = |call: String| calls.iter().position(|seen| *seen == call).unwrap();
        let update = at(format!("POST /containers/{name}/update"));
        let stop = at(format!("POST /containers/{name}/stop"));
        assert!(update < stop && stop < at(format!("DELETE /containers/{name}")), "{calls:?}");
    }
}

#[tokio::test]
async fn an_engine_that_is_too_old_is_told_apart() {
    // 2.R6
    let engine =
        FakeEngine::new(|call, _| (call == "GET /version").then(|| (200, json!({"ApiVersion": "1.40"}))))
            .await;
    assert!(matches!(
        DockerBackend::connect(engine.config.clone()).await,
        Err(ConnectError::TooOld { major: 1, minor: 40 })
    ));
    let engine =
        FakeEngine::new(|call, _| (call == "GET /version").then(|| (200, json!({"ApiVersion": "1.41"}))))
            .await;
    assert!(DockerBackend::connect(engine.config.clone()).await.is_ok());
}

#[tokio::test]
async fn a_twin_network_is_removed_again() {
    // 2.R27: another process made one at the same moment
    let engine = FakeEngine::new(|call, before| {
        let network = |id: &str| json!({"Name": "molecule-monorepo-net", "Id": id});
        let similar = json!({"Name": "molecule-monorepo-net-2", "Id": "a"});
        (call == "GET /networks").then(|| match before {
            0 => (200, json!([similar])),
            _ => (200, json!([similar, network("net-1"), network("net-0")])),
        })
    })
    .await;
    engine.backend().await.start(any_spec()).await.unwrap();
    assert_eq!(engine.count("DELETE /networks/net-1"), 1);
    assert_eq!(engine.count("DELETE /networks/net-0"), 0);
}
