//! The server under test, a child process.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use http::Method;
use mws_egress::{OperatorClient, OperatorRequest};
use url::Url;

/// The admin bearer of the server under test; it listens for minutes, to this machine's own load.
pub(crate) const ADMIN_TOKEN: &str = "bench-admin-token-0000";

/// A running server; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) base: Url,
    /// From the start of the process to its first 200.
    pub(crate) first_answer: Duration,
}

impl Server {
    /// Starts `binary` on a free port with its data in `data`.
    pub(crate) async fn start(binary: &Path, data: &Path) -> anyhow::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let base = Url::parse(&format!("http://127.0.0.1:{port}"))?;
        let started = Instant::now();
        let child = Command::new(binary)
            .env_clear()
            .envs([
                ("PORT", port.to_string()),
                ("MWS_DATA_DIR", data.display().to_string()),
                ("ADMIN_TOKEN", ADMIN_TOKEN.to_owned()),
                ("MOLECULE_ENV", "development".to_owned()),
                ("MWS_ALLOW_SELF_REGISTRATION", "true".to_owned()),
                ("PROVISIONER_BACKEND", "none".to_owned()),
                ("RUST_LOG", "warn".to_owned()),
                ("PATH", "/usr/local/bin:/usr/bin:/bin".to_owned()),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("the server does not start")?;
        let mut server = Self { child, base, first_answer: Duration::ZERO };
        server.wait_until_healthy(started).await?;
        Ok(server)
    }

    async fn wait_until_healthy(&mut self, started: Instant) -> anyhow::Result<()> {
        let client = OperatorClient::new()?;
        let url = self.base.join("/health")?;
        while started.elapsed() < Duration::from_secs(30) {
            let probe = OperatorRequest {
                method: Method::GET,
                url: url.clone(),
                headers: http::HeaderMap::new(),
                body: None::<Bytes>,
                timeout: Duration::from_secs(1),
                max_body: 1024,
            };
            if client.send(probe).await.is_ok_and(|answer| answer.status.is_success()) {
                self.first_answer = started.elapsed();
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended: {status}");
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        bail!("the server does not answer")
    }

    /// Resident memory in MiB, as Linux tells it.
    pub(crate) fn resident_mib(&self) -> Option<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib / 1024.0)
    }

    /// Ends the server in good order, its private Postgres with it.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
