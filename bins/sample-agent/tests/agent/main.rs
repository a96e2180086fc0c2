//! The agent's binary against a server in this process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail the test")]

mod fixture;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::fixture::{Answer, Fixture, Seen, exit_of, message};

fn mode_of(fixture: &Fixture, file: &str) -> u32 {
    std::fs::metadata(fixture.configs().join(file)).unwrap().permissions().mode() & 0o777
}

fn read(fixture: &Fixture, file: &str) -> String {
    std::fs::read_to_string(fixture.configs().join(file)).unwrap()
}

fn beats(seen: &[Seen]) -> Vec<&Seen> {
    seen.iter().filter(|call| call.path == "/registry/heartbeat").collect()
}

#[tokio::test]
async fn it_registers_then_beats_with_the_token_it_was_given() {
    // 13.2 steps 5 and 6
    let fixture = Fixture::new(|call, _| match call.path.as_str() {
        "/registry/register" => Answer::ok(json!({
            "status": "registered", "delivery_mode": "push",
            "auth_token": "minted", "platform_inbound_secret": "inbound",
        })),
        _ => Answer::ok(json!({"status": "ok"})),
    })
    .await;
    let _agent = fixture.start(&[]).await;
    let seen = fixture.wait_for(|seen| beats(seen).len() >= 2).await;

    assert_eq!(seen[0].path, "/registry/register");
    assert_eq!(seen[0].bearer, None);
    assert_eq!(seen[0].body["id"], fixture.workspace_id);
    assert_eq!(seen[0].body["agent_card"]["name"], "Lead");
    assert!(seen[0].body["url"].as_str().unwrap().starts_with("http://ws-test:"));

    let beat = beats(&seen)[0];
    assert_eq!(beat.bearer.as_deref(), Some("minted"));
    assert_eq!(beat.body["workspace_id"], fixture.workspace_id);
    assert_eq!(beat.body["runtime_metadata"], json!({"capabilities": {}}));
    assert_eq!(beat.body["active_tasks"], 0);
    assert!(beat.body["uptime_seconds"].as_u64().unwrap() > 0);

    for (file, secret) in [(".auth_token", "minted"), (".platform_inbound_secret", "inbound")] {
        assert_eq!((read(&fixture, file).as_str(), mode_of(&fixture, file)), (secret, 0o600));
    }
}

#[tokio::test]
async fn a_refused_registration_does_not_stop_the_beats() {
    // 13.2 step 5
    let fixture = Fixture::new(|call, _| match call.path.as_str() {
        "/registry/register" => Answer { status: 500, body: json!({"error": "registration failed"}) },
        _ => Answer::ok(json!({"status": "ok", "platform_inbound_secret": "healed"})),
    })
    .await;
    let _agent = fixture.start(&[]).await;
    fixture.wait_for(|seen| beats(seen).len() >= 2).await;
    assert_eq!(read(&fixture, ".platform_inbound_secret"), "healed");
}

#[tokio::test]
async fn a_401_makes_it_read_the_token_again() {
    // 13.2 step 6
    let fixture = Fixture::new(|call, configs| {
        if call.path == "/registry/heartbeat" && call.bearer.as_deref() == Some("old") {
            std::fs::write(configs.join(".auth_token"), "new").unwrap();
            return Answer { status: 401, body: json!({"error": "invalid token"}) };
        }
        Answer::ok(json!({"status": "ok"}))
    })
    .await;
    std::fs::write(fixture.configs().join(".auth_token"), "old").unwrap();
    let _agent = fixture.start(&[("SAMPLE_HEARTBEAT_SECONDS", "3600")]).await;
    // With an hour between the beats, the second one is the retry.
    let seen = fixture.wait_for(|seen| beats(seen).len() >= 2).await;
    let bearers: Vec<_> = beats(&seen).iter().map(|beat| beat.bearer.clone()).collect();
    assert_eq!(bearers, [Some("old".to_owned()), Some("new".to_owned())]);
}

#[tokio::test]
async fn it_asks_a_peer_through_the_server_and_reports_the_task() {
    // 13.2 step 6, 13.4
    let fixture = Fixture::new(|call, _| {
        if call.path.ends_with("/peers") {
            Answer::ok(json!([{"id": "other", "name": "Eve"}, {"id": "peer-1", "name": "Bob", "url": ""}]))
        } else if call.path == "/workspaces/peer-1/a2a" {
            let text = call.body.pointer("/params/message/parts/0/text").unwrap().as_str().unwrap();
            Answer::ok(json!({"jsonrpc": "2.0", "id": call.body["id"], "result": {
                "kind": "message", "parts": [{"kind": "text", "text": format!("echo: {text}")}],
            }}))
        } else {
            Answer::ok(json!({"status": "ok"}))
        }
    })
    .await;
    std::fs::write(fixture.configs().join(".auth_token"), "mine").unwrap();
    let agent = fixture.start(&[]).await;

    let (status, reply) = agent.post("/", &message("ask bob: how are you?")).await;
    assert_eq!(status, 200);
    let result = &reply["result"];
    assert_eq!(reply["id"], 1);
    assert_eq!((&result["kind"], &result["role"]), (&json!("message"), &json!("agent")));
    assert_eq!(result["parts"][0], json!({"kind": "text", "text": "Bob says: echo: how are you?"}));
    assert!(result["messageId"].is_string());

    let seen = fixture.wait_for(|seen| seen.iter().any(|call| call.path.ends_with("/a2a"))).await;
    for path in [format!("/registry/{}/peers", fixture.workspace_id), "/workspaces/peer-1/a2a".to_owned()] {
        let call = seen.iter().find(|call| call.path == path).unwrap();
        assert_eq!(call.bearer.as_deref(), Some("mine"));
        assert_eq!(call.workspace.as_deref(), Some(fixture.workspace_id.as_str()));
    }

    let (_, reply) = agent.post("/", &message("ask nobody: hello")).await;
    assert_eq!(reply["error"]["message"], "could not ask nobody");

    // 3.R27: a push carries nothing but the task
    let _open = agent.begin("/", &message("sleep 2")).await;
    let is_push = |active: u64, task: &'static str| {
        move |call: &Seen| {
            call.body.get("runtime_metadata").is_none()
                && call.body.get("uptime_seconds").is_none()
                && call.body["active_tasks"] == active
                && call.body["current_task"] == task
        }
    };
    fixture.wait_for(|seen| beats(seen).into_iter().any(is_push(1, "sleep 2"))).await;
    fixture
        .wait_for(|seen| beats(seen).into_iter().last().is_some_and(|beat| beat.body["active_tasks"] == 0))
        .await;
}

#[tokio::test]
async fn it_speaks_json_rpc() {
    // 13.3
    let fixture = Fixture::quiet().await;
    let mut agent = fixture.start(&[]).await;
    let (_, reply) = agent.post("/", &message("hello")).await;
    assert_eq!(reply["result"]["parts"][0]["text"], "echo: hello");
    let (status, reply) = agent.post("/", &json!({"jsonrpc": "2.0", "id": "a", "method": "tasks/get"})).await;
    assert_eq!((status, &reply["id"], &reply["error"]["code"]), (200, &json!("a"), &json!(-32601)));
    let (_, reply) = agent.post_bytes("/", None, b"{".to_vec()).await;
    assert_eq!(reply["error"]["code"], -32700);
    let (status, _) = agent.post_bytes("/", None, vec![b' '; 1024 * 1024 + 1]).await;
    assert_eq!(status, 413);
    let (status, reply) = agent.post("/", &message("fail")).await;
    assert_eq!((status, reply), (500, json!({"error": "asked to fail"})));
    for path in ["/.well-known/agent.json", "/.well-known/agent-card.json"] {
        assert_eq!(agent.get(path, None).await.1["name"], "Lead");
    }
    assert_eq!(agent.get("/nowhere", None).await.0, 404);

    agent.try_post("/", &message("crash")).await;
    assert_eq!(exit_of(&mut agent).await, Some(3));
}

#[tokio::test]
async fn guarded_routes_open_to_their_own_secret_only() {
    // 13.3
    let fixture = Fixture::quiet().await;
    let agent = fixture.start(&[]).await;
    let file = "/internal/file/read?path=/workspace/a%20b.txt";
    // No secret file: fail closed.
    for path in [file, "/transcript"] {
        assert_eq!(agent.get(path, Some("x")).await.0, 401);
    }
    std::fs::write(fixture.configs().join(".auth_token"), "token").unwrap();
    std::fs::write(fixture.configs().join(".platform_inbound_secret"), "inbound").unwrap();
    std::fs::write(fixture.workspace().join("a b.txt"), "content").unwrap();
    for (path, wrong, right) in [(file, "token", "inbound"), ("/transcript", "inbound", "token")] {
        assert_eq!(agent.get(path, None).await.0, 401);
        assert_eq!(agent.get(path, Some(wrong)).await.0, 401);
        assert_eq!(agent.get(path, Some(right)).await.0, 200);
    }
    assert_eq!(agent.get_bytes(file, Some("inbound")).await.1, b"content");
    assert_eq!(agent.get("/transcript", Some("token")).await.1, json!({"supported": false}));
    for (path, status) in [
        ("/internal/file/read", 400),
        ("/internal/file/read?path=/etc/passwd", 400),
        ("/internal/file/read?path=/workspace/../configs/config.yaml", 400),
        ("/internal/file/read?path=/configs/.auth_token", 404),
        ("/internal/file/read?path=/workspace/absent", 404),
    ] {
        assert_eq!(agent.get(path, Some("inbound")).await.0, status, "{path}");
    }
}

#[tokio::test]
async fn uploads_are_kept_in_the_workspace() {
    // 13.3
    let fixture = Fixture::quiet().await;
    std::fs::write(fixture.configs().join(".platform_inbound_secret"), "inbound").unwrap();
    let agent = fixture.start(&[]).await;
    let body = b"--B\r\nContent-Disposition: form-data; name=\"files\"; filename=\"n.txt\"\r\n\
        Content-Type: text/plain\r\n\r\nhello\r\n--B--\r\n";
    let multipart = ("inbound", "multipart/form-data; boundary=B");
    let (status, reply) =
        agent.post_bytes("/internal/chat/uploads/ingest", Some(multipart), body.to_vec()).await;
    assert_eq!(status, 200, "{reply}");
    let file = &reply["files"][0];
    assert_eq!(
        (&file["name"], &file["size"], &file["mimeType"]),
        (&json!("n.txt"), &json!(5), &json!("text/plain"))
    );
    let uri = file["uri"].as_str().unwrap();
    let stored = fixture.workspace().join(uri.strip_prefix("workspace:/workspace/").unwrap());
    assert_eq!(std::fs::read_to_string(stored).unwrap(), "hello");

    let wrong = ("x", "multipart/form-data; boundary=B");
    assert_eq!(agent.post_bytes("/internal/chat/uploads/ingest", Some(wrong), body.to_vec()).await.0, 401);
    let json = ("inbound", "application/json");
    assert_eq!(agent.post_bytes("/internal/chat/uploads/ingest", Some(json), b"{}".to_vec()).await.0, 400);
}

#[tokio::test]
async fn what_is_missing_at_boot_ends_it() {
    // 13.2 steps 1 and 2
    let fixture = Fixture::quiet().await;
    let config = fixture.configs().join("config.yaml");
    assert_ne!(fixture.boot_fails(&[("WORKSPACE_ID", "")]).await, Some(0));
    std::fs::write(&config, "name: Lead\nruntime_config: {required_env: [NOT_SET_HERE]}\n").unwrap();
    assert_ne!(fixture.boot_fails(&[]).await, Some(0));
    std::fs::remove_file(&config).unwrap();
    assert_ne!(fixture.boot_fails(&[]).await, Some(0));
}

#[tokio::test]
async fn sigterm_ends_it_with_its_state_saved() {
    // 13.2 step 8: within 10 s, also in the middle of a task
    let fixture = Fixture::quiet().await;
    let mut agent = fixture.start(&[]).await;
    let _open = agent.begin("/", &message("sleep 600")).await;
    fixture.wait_for(|seen| beats(seen).iter().any(|beat| beat.body["active_tasks"] == 1)).await;
    kill(Pid::from_raw(agent.pid()), Signal::SIGTERM).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(10), exit_of(&mut agent)).await;
    assert_eq!(ended.expect("still running"), Some(0));
    let snapshot: Value = serde_json::from_str(&read(&fixture, ".agent_snapshot.json")).unwrap();
    assert_eq!(snapshot["active_tasks"], 1);
}

#[tokio::test]
async fn the_initial_prompt_is_sent_once_in_a_life() {
    // 13.2 step 7
    let fixture = Fixture::new(|call, configs| {
        if call.path.ends_with("/a2a") {
            assert!(configs.join(".initial_prompt_done").exists(), "the marker comes first");
        }
        Answer::ok(json!({"result": {"parts": [{"text": "ok"}]}}))
    })
    .await;
    std::fs::write(fixture.configs().join("config.yaml"), "name: Lead\ninitial_prompt: begin\n").unwrap();
    let to_itself = format!("/workspaces/{}/a2a", fixture.workspace_id);
    let agent = fixture.start(&[]).await;
    let seen = fixture.wait_for(|seen| seen.iter().any(|call| call.path == to_itself)).await;
    let call = seen.iter().find(|call| call.path == to_itself).unwrap();
    assert_eq!(call.body.pointer("/params/message/parts/0/text").unwrap(), "begin");
    assert_eq!(call.workspace.as_deref(), Some(fixture.workspace_id.as_str()));
    drop(agent);

    let before = fixture.seen().len();
    let _again = fixture.start(&[]).await;
    let seen = fixture.wait_for(|seen| beats(&seen[before..]).len() >= 2).await;
    assert!(seen[before..].iter().all(|call| call.path != to_itself));
}
