//! Serving HTTP until a signal.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use axum::serve::ListenerExt;
use mws_app::App;
use mws_http_api::{Api, ApiParts};
use mws_runtime::config::Config;
use mws_runtime::shutdown::{Shutdown, Signals, on_signal};
use mws_runtime::tasks::Spawner;
use tokio::net::TcpListener;
use tokio::time::timeout;

/// Fixed at build time (1.R156).
const GIT_SHA: &str = match option_env!("GIT_SHA") {
    Some(sha) => sha,
    None => "dev",
};

/// How long requests may take to end at shutdown (3.R104).
const DRAIN: Duration = Duration::from_secs(30);

/// Serves HTTP until SIGINT or SIGTERM, then drains.
///
/// # Errors
/// The port is taken, or the installation does not start.
pub async fn serve(config: &Config) -> anyhow::Result<()> {
    let mut signals = Signals::install()?;
    let shutdown = Shutdown::new();
    let spawner = Spawner::new(shutdown.clone());
    // Taken before anything is started, so that a taken port costs nothing.
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, config.server.port));
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("port {} is taken", address.port()))?;
    let app = mws_app::start(config, spawner).await?;
    tracing::info!(port = address.port(), sha = GIT_SHA, "listening");

    let service = mws_http_api::router(api(&app)).into_make_service_with_connect_info::<SocketAddr>();
    let listener = listener.tap_io(|stream| {
        stream.set_nodelay(true).ok();
    });
    let (hub, stopping) = (app.hub.clone(), shutdown.clone());
    let serving = axum::serve(listener, service).with_graceful_shutdown(async move {
        stopping.cancelled().await;
        // Sockets end with it; without that they would hold up the drain.
        hub.shutdown();
    });
    let mut serving = std::pin::pin!(serving.into_future());
    let ended = tokio::select! {
        ended = &mut serving => Some(ended),
        _ = on_signal(&mut signals, &shutdown) => None,
    };
    shutdown.trigger();
    let outcome = match ended {
        Some(ended) => ended,
        None => timeout(DRAIN, serving).await.unwrap_or(Ok(())),
    };
    app.stop().await;
    tracing::info!("stopped");
    Ok(outcome?)
}

/// The HTTP API over a running installation.
#[must_use]
pub fn api(app: &App) -> Api {
    Api::new(ApiParts {
        db: app.db.clone(),
        lifecycle: app.lifecycle.clone(),
        registry: app.registry.clone(),
        proxy: app.proxy.clone(),
        hub: app.hub.clone(),
        parents: app.parents.clone(),
        auth: app.auth.clone(),
        spawner: app.spawner.clone(),
        git_sha: GIT_SHA,
    })
}
