//! Proxied messages with their durable activity row, against the same load sent straight to the same agent.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use axum::Router;
use axum::routing::post;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use mws_egress::{AgentClient, AgentGuard, GuardMode, OperatorClient, OperatorRequest};
use mws_models::WorkspaceId;
use mws_runtime::shutdown::Shutdown;
use mws_runtime::tasks::Spawner;
use serde_json::json;
use tokio::net::TcpListener;
use url::Url;

use crate::load::{Measured, Target, run as load};
use crate::server::Server;
use crate::{Options, say};

/// Bytes of a message, about.
const MESSAGE: usize = 1024;
/// The rate at which the added latency is measured.
const CALM_RATE: u32 = 500;

/// Runs the benchmark and prints its figures.
///
/// # Errors
/// The server or the agent cannot be started or reached.
pub async fn run(options: &Options) -> anyhow::Result<()> {
    let shutdown = Shutdown::new();
    let spawner = Spawner::new(shutdown.clone());
    let data = tempfile::Builder::new().prefix("mws-bench-").tempdir_in("/var/tmp")?;
    make_traversable(data.path())?;
    let server = Server::start(&options.server, data.path()).await?;
    say(&format!(
        "start to first 200, with a new private Postgres: {:.0} ms",
        server.first_answer.as_secs_f64() * 1e3
    ));
    say(&format!("resident, idle: {:.1} MiB", server.resident_mib().unwrap_or_default()));

    let agent = start_agent(&spawner).await?;
    let id = WorkspaceId::random();
    register(&server.base, id, &agent).await?;

    let body = message();
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let direct = Target { url: agent, headers: headers.clone(), body: body.clone() };
    let proxied = Target { url: server.base.join(&format!("/workspaces/{id}/a2a"))?, headers, body };
    let client = AgentClient::new(AgentGuard::new(GuardMode { saas: false, development: true }, 1));

    let measure = async |target: &Target, rate: Option<u32>| -> Measured {
        load(&client, &spawner, target, options.connections, rate, options.duration / 5).await;
        load(&client, &spawner, target, options.connections, rate, options.duration).await
    };
    let ceiling = measure(&direct, None).await;
    say(&ceiling.line("agent alone"));
    let through = measure(&proxied, None).await;
    say(&through.line("through the server"));
    say(&format!("ratio: {:.3}", through.rate() / ceiling.rate()));

    let calm_direct = measure(&direct, Some(CALM_RATE)).await;
    say(&calm_direct.line("agent alone, 500/s"));
    let calm_through = measure(&proxied, Some(CALM_RATE)).await;
    say(&calm_through.line("through the server, 500/s"));
    say(&format!("added p50: {:.3} ms", calm_through.quantile(0.5) - calm_direct.quantile(0.5)));
    say(&format!("resident, after load: {:.1} MiB", server.resident_mib().unwrap_or_default()));
    shutdown.trigger();
    server.stop()
}

/// The private Postgres drops to a user that must be able to reach its folder.
fn make_traversable(path: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

fn message() -> Bytes {
    let text = "x".repeat(MESSAGE - 180);
    let message = json!({
        "jsonrpc": "2.0", "id": "1", "method": "message/send",
        "params": {"message": {
            "role": "user", "messageId": "00000000-0000-4000-8000-000000000000",
            "parts": [{"kind": "text", "text": text}],
        }},
    });
    Bytes::from(message.to_string())
}

/// An agent that answers every message with itself.
async fn start_agent(spawner: &Spawner) -> anyhow::Result<Url> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address: SocketAddr = listener.local_addr()?;
    let echo =
        |body: Bytes| async move { (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], body) };
    let app = Router::new().route("/", post(echo));
    let stopping = spawner.shutdown().clone();
    let serve = async move {
        let serving = axum::serve(listener, app);
        serving.with_graceful_shutdown(async move { stopping.cancelled().await }).await
    };
    spawner.spawn("bench-agent", serve).detach();
    Ok(Url::parse(&format!("http://{address}/"))?)
}

async fn register(base: &Url, id: WorkspaceId, agent: &Url) -> anyhow::Result<()> {
    let body = json!({
        "id": id, "url": agent.as_str(), "delivery_mode": "push", "agent_card": {"name": "bench"},
    });
    let request = OperatorRequest {
        method: Method::POST,
        url: base.join("/registry/register")?,
        headers: HeaderMap::new(),
        body: Some(Bytes::from(body.to_string())),
        timeout: std::time::Duration::from_secs(10),
        max_body: 64 * 1024,
    };
    let answer = OperatorClient::new()?.send(request).await.context("the agent was not registered")?;
    ensure!(answer.status.is_success(), "the agent was not registered: {}", answer.status);
    Ok(())
}
