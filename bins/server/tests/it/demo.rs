//! `workspace-server demo` and `down`, which `cargo xtask up` and `down` end in: real containers, real processes.

use std::fs::{self, File, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use mws_testkit::wait_until_within;
use tempfile::TempDir;
use uuid::Uuid;

use crate::black_box::{agent_image, docker};

/// A demo of its own on the shared engine.
struct Demo {
    data: TempDir,
    instance: String,
    port: u16,
    image: String,
}

impl Demo {
    fn new(image: String) -> Self {
        // As root, another account has to reach the private Postgres in it.
        let data = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
        let port = TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
        Self { data, instance: format!("t-{}", &Uuid::new_v4().simple().to_string()[..12]), port, image }
    }

    fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_workspace-server"));
        command
            .args([subcommand, "--instance", &self.instance])
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("PORT", self.port.to_string())
            .env("MWS_DATA_DIR", self.data.path())
            .stdin(Stdio::null());
        if subcommand == "demo" {
            let templates = concat!(env!("CARGO_MANIFEST_DIR"), "/../../workspace-configs-templates");
            command.args(["--image", &self.image, "--templates", templates]);
        }
        command
    }

    fn folder(&self) -> PathBuf {
        self.data.path().join("up")
    }

    /// Containers, volumes and networks of this demo.
    fn on_the_engine(&self) -> Vec<String> {
        let label = format!("label=molecule.platform.instance={}", self.instance);
        let mut found = Vec::new();
        for list in [&["ps", "--all"][..], &["volume", "ls"], &["network", "ls"]] {
            let ids = docker(&[list, &["--quiet", "--filter", &label]].concat()).unwrap();
            found.extend(ids.lines().map(str::to_owned));
        }
        found
    }

    fn assert_nothing_left(&self) {
        assert_eq!(self.on_the_engine(), [] as [String; 0]);
        assert!(!self.folder().join("server.pid").exists());
        assert!(!self.folder().join("postgres/postmaster.pid").exists());
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // A test that failed half-way leaves nothing either.
        if !self.on_the_engine().is_empty() || self.folder().join("server.pid").exists() {
            self.command("down").output().ok();
        }
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn once_shows_the_conversation_and_leaves_nothing() {
    let Some(image) = agent_image() else { return };
    let demo = Demo::new(image);
    let output = demo.command("demo").arg("--once").output().unwrap();
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("Writer says: echo: what is our plan?"), "{text}");
    demo.assert_nothing_left();
}

#[test]
fn a_step_that_fails_is_named_and_torn_down() {
    if agent_image().is_none() {
        return;
    }
    let demo = Demo::new("mws-no-such-image:test".to_owned());
    let output = demo.command("demo").arg("--once").output().unwrap();
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("did not start"), "{text}");
    demo.assert_nothing_left();
}

#[tokio::test]
async fn down_removes_what_a_killed_demo_left() {
    let Some(image) = agent_image() else { return };
    let demo = Demo::new(image);
    let shown = demo.data.path().join("shown");
    let mut running = demo.command("demo").stdout(File::create(&shown).unwrap()).spawn().unwrap();
    wait_until_within(Duration::from_secs(120), "the team's events", async || {
        fs::read_to_string(&shown).is_ok_and(|shown| shown.contains("Events, until Ctrl-C"))
    })
    .await;
    running.kill().unwrap();
    running.wait().unwrap();
    assert!(!demo.on_the_engine().is_empty());

    let refused = demo.command("demo").arg("--once").output().unwrap();
    assert!(!refused.status.success());
    assert!(text(&refused).contains("cargo xtask down"), "{}", text(&refused));

    for _ in 0..2 {
        let output = demo.command("down").output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        demo.assert_nothing_left();
    }
}
