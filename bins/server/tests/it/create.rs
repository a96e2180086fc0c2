//! `POST /workspaces` (contract 1 §2).

use futures_util::future::join_all;
use mws_models::WorkspaceId;
use serde_json::{Value, json};

use crate::support::{Setup, TestServer, templates};

fn id(created: &Value) -> WorkspaceId {
    created["id"].as_str().unwrap().parse().unwrap()
}

/// Sends a body on top of what makes a create valid.
async fn create(server: &TestServer, extra: Value) -> crate::support::Reply {
    let mut body = json!({"name": "W", "runtime": "sample", "model": "sample/echo"});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    server.post("/workspaces", &body).await
}

async fn rows(server: &TestServer) -> Option<String> {
    server.database.value("SELECT count(*)::text FROM workspaces").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_writes_everything_at_once() {
    // 1.R53, 1.R54, 1.R58, 1.R60, 2.R91, 2.R92, 2.R101, 5.R156
    let server = Setup::default().start().await;
    let sent = json!({"name": " Lead ", "template": "sample", "tier": 2, "role": "boss", "model": "openai/gpt",
                      "secrets": {"K": "v", "EMPTY": ""}, "canvas": {"x": 3, "y": -4.5}, "unknown": {"deep": 1}});
    let reply = server.post("/workspaces", &sent).await;
    assert_eq!(reply.status, 201);
    let created = reply.json();
    let lead = id(&created);
    assert_eq!(
        created,
        json!({"id": lead, "status": "provisioning", "workspace_access": "none", "name": "Lead",
               "runtime": "sample", "tier": 2})
    );
    let started = server.started(lead).await;
    assert_eq!((started.env["K"].as_str(), started.env["EMPTY"].as_str()), ("v", ""));
    assert_eq!(started.env["MODEL"], "openai/gpt");
    assert_eq!(started.env["LLM_PROVIDER"], "openrouter");
    let keys = format!("SELECT key FROM workspace_secrets WHERE workspace_id = '{lead}' ORDER BY key");
    let keys: Vec<String> = server.database.column(&keys).await.into_iter().flatten().collect();
    assert_eq!(keys, ["EMPTY", "K", "LLM_PROVIDER", "MODEL"]);
    assert_eq!(started.env["MOLECULE_AGENT_ROLE"], "boss");
    assert_eq!((started.tier, started.token.as_ref().map(String::len)), (2, Some(43)));
    assert!(started.config_yaml.unwrap().contains("runtime: sample"));
    let events = server.events(lead).await;
    assert_eq!(events[0].0, "WORKSPACE_PROVISIONING");
    assert_eq!(events[0].1, json!({"name": "Lead", "tier": 2, "runtime": "sample"}));
    let config = format!("SELECT data::text FROM workspace_config WHERE workspace_id = '{lead}'");
    let config: Value = serde_json::from_str(&server.database.value(&config).await.unwrap()).unwrap();
    assert_eq!(
        config,
        json!({"name": "Lead", "runtime": "sample", "tier": 2, "template": "sample", "model": "openai/gpt"})
    );
    let row = server.get("/workspaces").await.json()[0].clone();
    assert_eq!((&row["x"], &row["y"]), (&json!(3.0), &json!(-4.5)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_create_leaves_nothing_behind() {
    // 1.R34, 1.R35, 1.R36, 1.R41, 1.R42, 1.R44, 1.R45, 1.R46, 1.R47, 1.R12, 1.R13, 1.R14
    let server = Setup::default().start().await;
    let payload = "invalid workspace payload";
    for bad in ["", "[]", "null", "{", r#"{"name":"a"}x"#, r#"{"name":5}"#, r#"{"name":"a\u0000"}"#] {
        let reply = server.request(http::Method::POST, "/workspaces").bearer(crate::support::ADMIN);
        reply.body(bad.to_owned()).send().await.is_error(400, payload);
    }
    for bad in [
        json!({"name": null}),
        json!({"name": " \t"}),
        json!({"tier": "2"}),
        json!({"tier": 2.5}),
        json!({"external": "yes"}),
        json!({"secrets": []}),
        json!({"secrets": {"K": 5}}),
        json!({"canvas": {"x": "1"}}),
        json!({"budget_limit": 1.5}),
    ] {
        create(&server, bad).await.is_error(400, payload);
    }
    let fields = "invalid workspace fields";
    for bad in [
        json!({"name": "x".repeat(256)}),
        json!({"name": "a\n"}),
        json!({"name": "a{b"}),
        json!({"role": "x".repeat(1001)}),
        json!({"model": "m".repeat(101)}),
        json!({"runtime": "r\u{7f}"}),
        json!({"tier": 5}),
        json!({"tier": -1}),
        json!({"budget_limit": -1}),
        json!({"max_concurrent_tasks": 1001}),
        json!({"secrets": {"A B": "x"}}),
        json!({"secrets": {"A": "x".repeat(65_537)}}),
    ] {
        let reply = create(&server, bad).await;
        reply.is_error(400, fields);
        assert!(!reply.json()["detail"].as_str().unwrap().is_empty());
    }
    for template in ["/etc", "../x", "a/../../x", "sample/../../.."] {
        create(&server, json!({"template": template})).await.is_error(400, "invalid template");
    }
    for dir in ["relative", "/", "/etc/x", "/srv/../etc", "/root/.ssh"] {
        create(&server, json!({"workspace_dir": dir})).await.is_error(400, "invalid workspace directory");
    }
    for access in [json!({"workspace_access": "all"}), json!({"workspace_access": "read_only"})] {
        create(&server, access).await.is_error(400, "invalid workspace access");
    }
    create(&server, json!({"url": "http://169.254.169.254/"}))
        .await
        .is_error(400, "unsafe workspace URL: url targets a blocked address: link-local address");
    create(&server, json!({"delivery_mode": "PUSH"}))
        .await
        .is_error(400, "delivery_mode must be 'push' or 'poll'");
    for parent in [json!("nonsense"), json!(WorkspaceId::random())] {
        create(&server, json!({"parent_id": parent})).await.is_error(400, "invalid parent_id");
    }
    assert_eq!(rows(&server).await.as_deref(), Some("0"));
    assert_eq!(
        server.database.value("SELECT count(*)::text FROM structure_events").await.as_deref(),
        Some("0")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_include_their_limits() {
    // 1.R12, 1.R35, 1.R41, 1.R42, 1.R46, 1.R48, 5.R240
    let server = Setup::default().start().await;
    let good = json!({"name": "ü".repeat(255), "role": "r".repeat(1000), "model": "m".repeat(100), "tier": 4,
                      "budget_limit": 0, "max_concurrent_tasks": 1000, "workspace_dir": "/srv/project",
                      "workspace_access": "read_write", "parent_id": "", "delivery_mode": ""});
    let created = create(&server, good).await.ok();
    assert_eq!((&created["tier"], &created["workspace_access"]), (&json!(4), &json!("read_write")));
    // Blanks around a name are not stored, and so do not count.
    let padded = json!({"name": format!("  {}  ", "p".repeat(255))});
    assert_eq!(create(&server, padded).await.ok()["name"], "p".repeat(255));
    // `null` is absent everywhere, and the defaults are the contract's.
    let nulls = json!({"name": "N", "role": null, "template": null, "tier": null, "external": null, "url": null,
                       "workspace_dir": null, "workspace_access": null, "parent_id": null, "budget_limit": null,
                       "secrets": null, "max_concurrent_tasks": null, "delivery_mode": null, "compute": null,
                       "canvas": null, "initial_memories": null});
    let created = create(&server, nulls).await.ok();
    assert_eq!(created["tier"], 3);
    let sql = format!(
        "SELECT delivery_mode || ' ' || max_concurrent_tasks FROM workspaces WHERE id = '{}'",
        id(&created)
    );
    assert_eq!(server.database.value(&sql).await.as_deref(), Some("push 1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn runtime_and_model_come_from_the_request_then_the_template() {
    // 1.R37, 1.R38, 1.R39, 1.R40, 1.R54
    let (_folder, path) = templates(&[
        ("quoted/config.yaml", "runtime: \"sample\"  # fast\nruntime_config:\n  model: 'deep/model'\n"),
        ("bare/config.yaml", "name: nothing else\n"),
        ("broken/config.yaml", "runtime: [\n"),
        ("modelless/config.yaml", "runtime: sample\n"),
    ]);
    let server = Setup::default().env("CONFIGS_DIR", path.to_str().unwrap()).start().await;
    let post = async |body: Value| server.post("/workspaces", &body).await;
    let created = post(json!({"name": "A", "template": "quoted"})).await.ok();
    assert_eq!(created["runtime"], "sample");
    assert_eq!(server.started(id(&created)).await.env["MODEL"], "deep/model");
    let created = post(json!({"name": "B", "template": "quoted", "secrets": {"MODEL": "mine/x"}})).await.ok();
    assert_eq!(server.started(id(&created)).await.env["MODEL"], "mine/x");
    for template in ["bare", "broken", "missing"] {
        let reply = post(json!({"name": "C", "template": template, "model": "a/b"})).await;
        assert_eq!(reply.status, 422, "{reply:?}");
        assert_eq!(
            (&reply.json()["code"], &reply.json()["template"]),
            (&json!("RUNTIME_UNRESOLVED"), &json!(template))
        );
    }
    let reply = post(json!({"name": "D", "template": "modelless"})).await;
    assert_eq!(reply.status, 422);
    let body = reply.json();
    assert_eq!(body["code"], "MODEL_REQUIRED");
    assert_eq!((&body["runtime"], &body["template"]), (&json!("sample"), &json!("modelless")));
    let body = post(json!({"name": "E"})).await.json();
    assert_eq!(
        (&body["code"], &body["runtime"], &body["template"]),
        (&json!("MODEL_REQUIRED"), &json!("claude-code"), &json!(""))
    );
    assert_eq!(rows(&server).await.as_deref(), Some("2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_runtime_is_stored_with_a_warning() {
    // 1.R57, 2.R15, 2.R18
    let server = Setup::default().start().await;
    let created = create(&server, json!({"runtime": "my-own"})).await.ok();
    assert_eq!(created["runtime"], "my-own");
    assert_eq!(created["warnings"], json!(["runtime \"my-own\" is not known to this server"]));
    let started = server.started(id(&created)).await;
    assert!(started.image.contains("workspace-template-claude-code"), "{}", started.image);
    assert!(started.config_yaml.unwrap().contains("runtime: 'claude-code'"));
    assert!(create(&server, json!({"name": "known"})).await.ok().get("warnings").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_this_server_does_not_offer_changes_nothing() {
    let server = Setup::default().start().await;
    for asked in [
        json!({"external": true}),
        json!({"runtime": "kimi"}),
        json!({"compute": {"provider": "aws"}}),
        json!({"initial_memories": [{"content": "x", "scope": "LOCAL"}]}),
    ] {
        let reply = create(&server, asked).await;
        assert_eq!((reply.status, &reply.json()["code"]), (503, &json!("NOT_AVAILABLE")), "{reply:?}");
    }
    assert_eq!(rows(&server).await.as_deref(), Some("0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_names_get_suffixes_under_concurrency() {
    // 1.R49, 1.R50, 1.R51, 1.R52
    let server = Setup::default().start().await;
    let body = json!({"name": "Twin", "runtime": "sample", "model": "a/b"});
    let replies = join_all((0..50).map(|_| server.post("/workspaces", &body))).await;
    let mut names: Vec<_> = replies
        .iter()
        .filter(|reply| reply.status == 201)
        .map(|reply| reply.json()["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    let mut expected: Vec<_> = (2..=20).map(|n| format!("Twin ({n})")).chain(["Twin".to_owned()]).collect();
    expected.sort();
    assert_eq!(names, expected);
    for refused in replies.iter().filter(|reply| reply.status != 201) {
        assert_eq!((refused.status, &refused.json()["code"]), (409, &json!("NAME_EXHAUSTED")), "{refused:?}");
    }
    // Another parent is another name space, and a removed workspace's name is free at once.
    let first =
        server.database.value("SELECT id::text FROM workspaces WHERE name = 'Twin (7)'").await.unwrap();
    let child =
        json!({"name": "Twin", "runtime": "sample", "model": "a/b", "parent_id": first.to_uppercase()});
    assert_eq!(server.post("/workspaces", &child).await.ok()["name"], "Twin");
    server.delete(&format!("/workspaces/{first}?confirm=true")).await.ok();
    assert_eq!(server.post("/workspaces", &body).await.ok()["name"], "Twin (7)");
    server.post("/workspaces", &child).await.is_error(400, "invalid parent_id");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_backend_the_row_fails_within_a_second_and_the_answer_is_the_same() {
    // 1.R60, 2.R9, 2.R10, 2.R11, 2.R86
    let server = Setup::default().without_backend().start().await;
    let reply = create(&server, json!({})).await;
    assert_eq!((reply.status, &reply.json()["status"]), (201, &json!("provisioning")));
    let w = id(&reply.json());
    server.wait_status(w, "failed").await;
    let events = server.events(w).await;
    assert_eq!(events[1].0, "WORKSPACE_PROVISION_FAILED");
    assert_eq!(
        events[1].1,
        json!({"error": "no provisioning backend available", "code": "PROVISION_NO_BACKEND"})
    );
    assert_eq!(
        server.field(w, "last_sample_error").await.as_deref(),
        Some("no provisioning backend available")
    );
    let config = format!("SELECT count(*)::text FROM workspace_config WHERE workspace_id = '{w}'");
    assert_eq!(server.database.value(&config).await.as_deref(), Some("1"));
    assert_eq!(
        server.database.value("SELECT count(*)::text FROM workspace_jobs").await.as_deref(),
        Some("0")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_rest_sealed_and_bound_to_their_row() {
    // 5.R132, 5.R135, 5.R149, 1.R53
    let key = "0123456789abcdef0123456789abcdef";
    let server = Setup::default().env("SECRETS_ENCRYPTION_KEY", key).start().await;
    let created = create(&server, json!({"secrets": {"API_KEY": "planted-secret-value"}})).await;
    let started = server.started(id(&created.ok())).await;
    assert_eq!(started.env["API_KEY"], "planted-secret-value");
    let versions = "SELECT DISTINCT encryption_version::text FROM workspace_secrets";
    assert_eq!(server.database.column(versions).await, [Some("2".to_owned())]);
    let plain = "SELECT count(*)::text FROM workspace_secrets WHERE position('planted'::bytea IN encrypted_value) > 0";
    assert_eq!(server.database.value(plain).await.as_deref(), Some("0"));
    let inbound = server.field(started.workspace, "platform_inbound_secret").await.unwrap();
    assert!(inbound.starts_with("ec2:"));
}
