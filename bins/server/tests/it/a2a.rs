//! `POST /workspaces/:id/a2a` (contract 4 §1).

use std::time::Duration;

use http::Method;
use mws_models::{Event, WorkspaceId};
use mws_provisioner::mock::LivenessAnswer;
use mws_testkit::{Answer, FakeAgent, wait_until};
use serde_json::{Value, json};

use crate::support::{ADMIN, Reply, Setup, TestServer};

/// An agent that answers every message with its text.
fn echo() -> FakeAgent {
    FakeAgent::start(|request| {
        let sent = request.json();
        let text = sent.pointer("/params/message/parts/0/text").cloned().unwrap_or_default();
        let result = json!({"kind": "message", "role": "agent", "parts": [{"kind": "text", "text": text}]});
        Answer::json(200, &json!({"jsonrpc": "2.0", "id": sent["id"], "result": result}))
    })
}

fn message(text: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": "m1", "method": "message/send", "params": {"message": {
        "role": "user", "messageId": "id-1", "parts": [{"kind": "text", "text": text}]}}})
}

fn path(id: WorkspaceId) -> String {
    format!("/workspaces/{id}/a2a")
}

/// As the canvas: no credential.
async fn send(server: &TestServer, id: WorkspaceId, body: &Value) -> Reply {
    server.request(Method::POST, &path(id)).json(body).send().await
}

/// The one `a2a_receive` row of a workspace, as JSON.
async fn row(server: &TestServer, id: WorkspaceId) -> Value {
    let sql = format!("SELECT row_to_json(a)::text FROM activity_logs a WHERE workspace_id = '{id}'");
    serde_json::from_str(&server.database.value(&sql).await.unwrap()).unwrap()
}

async fn count(server: &TestServer, id: WorkspaceId) -> String {
    server
        .database
        .value(&format!("SELECT count(*)::text FROM activity_logs WHERE workspace_id = '{id}'"))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_reaches_the_agent_and_its_answer_the_caller() {
    // 4.R13, 4.R16, 4.R46, 4.R52, 4.R66, 4.R70, 1.R32
    let (server, agent) = (Setup::default().start().await, echo());
    let (lead, lead_token) = server.online("Lead", None, &agent.url()).await;
    let (writer, _) = server.online("Writer", Some(lead), &agent.url()).await;
    let body = message("hi");
    let reply = server
        .request(Method::POST, &path(writer))
        .bearer(&lead_token)
        .header("traceparent", "00-abc-01")
        .header("a2a-extensions", "x")
        .header("cookie", "secret=1")
        .header("x-forwarded-for", "10.0.0.1")
        .json(&body)
        .send()
        .await;
    assert_eq!(reply.ok().pointer("/result/parts/0/text").unwrap(), "hi");
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let received = agent.wait_received(1).await.remove(0);
    assert_eq!((received.method.as_str(), received.uri.path()), ("POST", "/"));
    assert_eq!(received.body, body.to_string(), "byte for byte");
    assert_eq!(received.header("x-workspace-id"), Some(lead.to_string().as_str()));
    assert_eq!(
        (received.header("traceparent"), received.header("a2a-extensions")),
        (Some("00-abc-01"), Some("x"))
    );
    for never in ["authorization", "cookie", "x-forwarded-for"] {
        assert_eq!(received.header(never), None, "{never}");
    }
    let row = row(&server, writer).await;
    assert_eq!(
        (&row["activity_type"], &row["method"], &row["status"]),
        (&json!("a2a_receive"), &json!("message/send"), &json!("ok"))
    );
    assert_eq!((&row["source_id"], &row["target_id"]), (&json!(lead), &json!(writer)));
    assert_eq!(row["summary"], "message/send → Writer");
    assert_eq!((&row["request_body"], &row["response_body"]["id"]), (&body, &json!("m1")));
    assert!(row["duration_ms"].is_i64() && row["error_detail"].is_null());
    wait_until("the caller's stamp", async || server.field(lead, "last_outbound_at").await.is_some()).await;
    assert_eq!(server.field(writer, "last_outbound_at").await, None);
    // An agent that wakes itself is recorded as itself.
    let own = server.request(Method::POST, &path(lead)).header("x-workspace-id", &lead.to_string());
    own.json(&body).send().await.ok();
    let source = format!("SELECT source_id::text FROM activity_logs WHERE workspace_id = '{lead}'");
    assert_eq!(server.database.value(&source).await, Some(lead.to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_caller_is_who_can_prove_it() {
    // 4.R11, 4.R12, 4.R14, 4.R15, 4.R17, 5.R59, 5.R60, 5.R68, 5.R221
    let (server, agent) = (Setup::default().start().await, echo());
    let (lead, lead_token) = server.online("Lead", None, &agent.url()).await;
    let (writer, writer_token) = server.online("Writer", Some(lead), &agent.url()).await;
    let ask = async |claim: Option<String>, bearer: Option<&str>| {
        let mut request = server.request(Method::POST, &path(writer)).json(&message("x"));
        if let Some(claim) = claim {
            request = request.header("x-workspace-id", &claim);
        }
        if let Some(bearer) = bearer {
            request = request.bearer(bearer);
        }
        request.send().await
    };
    for forged in ["system:restart-context", "webhook:x", "test:", "channel:slack", "nonsense"] {
        for bearer in [None, Some(ADMIN)] {
            ask(Some(forged.into()), bearer).await.is_error(403, "invalid caller ID");
        }
    }
    let claim = || Some(lead.to_string());
    ask(claim(), None).await.is_error(401, "missing caller auth token");
    for wrong in ["unknown", writer_token.as_str()] {
        ask(claim(), Some(wrong)).await.is_error(401, "invalid caller auth token");
    }
    for right in [lead_token.as_str(), ADMIN] {
        ask(claim(), Some(right)).await.ok();
    }
    // Without a claim nothing is refused: a token names its workspace, everything else is the canvas.
    for bearer in [None, Some("unknown"), Some(ADMIN), Some(lead_token.as_str())] {
        ask(None, bearer).await.ok();
    }
    let sources = format!(
        "SELECT DISTINCT COALESCE(source_id::text, 'canvas') FROM activity_logs WHERE workspace_id = '{writer}' ORDER BY 1"
    );
    let mut expected = vec![Some("canvas".to_owned()), Some(lead.to_string())];
    expected.sort();
    let mut actual = server.database.column(&sources).await;
    actual.sort();
    assert_eq!(actual, expected);
    let strict = Setup::default().env("A2A_REQUIRE_CALLER_AUTH", "true").start().await;
    let target = strict.row(&[("status", "'online'")]).await;
    send(&strict, target, &message("x")).await.is_error(401, "missing workspace auth token");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_check_comes_before_the_next() {
    // 4.R2, 4.R10, 4.R19, 4.R20, 4.R24, 4.R31, 4.R38
    let server = Setup::default().start().await;
    let stranger = server.row(&[("status", "'online'")]).await;
    let parent = server.row(&[("status", "'online'")]).await;
    let spent = server
        .row(&[("status", "'online'"), ("parent_id", &format!("'{parent}'")), ("budget_limit", "0")])
        .await;
    let child_of_stranger = server.row(&[("parent_id", &format!("'{stranger}'"))]).await;
    let ask = async |target: &str, claim: Option<WorkspaceId>, body: &str| {
        let mut request =
            server.request(Method::POST, &format!("/workspaces/{target}/a2a")).body(body.to_owned());
        if let Some(claim) = claim {
            request = request.header("x-workspace-id", &claim.to_string());
        }
        request.send().await
    };
    let (spent, removed) = (spent.to_string(), server.row(&[("status", "'removed'")]).await.to_string());
    let nobody = WorkspaceId::random().to_string();
    let denied = "access denied: workspaces cannot communicate per hierarchy rules";
    ask("nonsense", Some(stranger), "{").await.is_error(400, "invalid workspace ID");
    ask(&spent, Some(child_of_stranger), "{").await.is_error(403, denied);
    ask(&nobody, Some(stranger), "{").await.is_error(403, denied);
    ask(&spent, None, "{").await.is_error(402, "workspace budget limit exceeded");
    ask(&nobody, None, "{").await.is_error(400, "invalid JSON");
    ask(&nobody, None, "{}").await.is_error(404, "workspace not found");
    ask(&removed, None, "{}").await.is_error(404, "workspace not found");
    let refused =
        ask(&stranger.to_string(), None, r#"{"id":7,"method":"message/send","params":{"message":{}}}"#).await;
    assert_eq!(refused.status, 400);
    assert_eq!(refused.json()["id"], 7);
    assert_eq!(refused.json().pointer("/error/code").unwrap(), -32602);
    assert_eq!(refused.json().pointer("/error/data/field").unwrap(), "params.message.parts");
    ask(&stranger.to_string(), None, "{}").await.is_error(503, "workspace has no URL");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_polling_agents_message_is_stored() {
    // 4.R35, 4.R36, 4.R37, 4.R39, 4.R70
    let server = Setup::default().start().await;
    let caller = server.row(&[("status", "'online'")]).await;
    let token = server.token(caller).await;
    let target = server
        .row(&[("status", "'paused'"), ("delivery_mode", "'poll'"), ("url", "'http://169.254.169.254'")])
        .await;
    let sent = json!({"method": "message/send", "params": {"message": {"content": "later"}}});
    let reply = server.request(Method::POST, &path(target)).bearer(&token).json(&sent).send().await;
    let answer = reply.ok();
    assert_eq!(
        (&answer["status"], &answer["delivery_mode"], &answer["method"]),
        (&json!("queued"), &json!("poll"), &json!("message/send"))
    );
    let row = row(&server, target).await;
    assert_eq!(
        (&row["id"], &row["status"], &row["source_id"]),
        (&answer["activity_id"], &json!("ok"), &json!(caller))
    );
    assert!(row["duration_ms"].is_null() && row["response_body"].is_null());
    assert_eq!(
        row["request_body"].pointer("/params/message/parts/0/text").unwrap(),
        "later",
        "stored normalised"
    );
    wait_until("the caller's stamp", async || server.field(caller, "last_outbound_at").await.is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_a_usable_address_is_not_dialled() {
    // 4.R42, 4.R43, 5.R168, 5.R169, 5.R238, section 1.6
    let (server, agent) = (Setup::default().start().await, echo());
    let url = format!("'{}'", agent.url());
    for (columns, status, error) in [
        (vec![("status", "'paused'"), ("url", url.as_str())], 503, "workspace has no URL"),
        (vec![("status", "'provisioning'")], 503, "workspace has no URL"),
        (vec![("status", "'online'"), ("url", url.as_str())], 502, "workspace URL is not publicly routable"),
        (
            vec![("status", "'online'"), ("url", "'http://169.254.169.254/'")],
            502,
            "workspace URL is not publicly routable",
        ),
        (
            vec![("status", "'online'"), ("url", "'file:///etc/passwd'"), ("url_provisioned", "true")],
            502,
            "workspace URL is not publicly routable",
        ),
    ] {
        let id = server.row(&columns).await;
        let reply = send(&server, id, &message("x")).await;
        reply.is_error(status, error);
        if columns[0].1 == "'provisioning'" {
            assert_eq!(
                (reply.header("retry-after"), &reply.json()["status"]),
                (Some("15"), &json!("provisioning"))
            );
        }
    }
    assert!(agent.received().is_empty());
    // An address that the platform published is dialled, loopback or not, whatever the status.
    let id = server.row(&[("status", "'degraded'"), ("url", &url), ("url_provisioned", "true")]).await;
    send(&server, id, &message("x")).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agents_failure_is_passed_on_without_being_taken_for_death() {
    // 4.R45, 4.R53, 4.R54, 4.R55, 4.R66
    let (server, agent) = (Setup::default().start().await, echo());
    let (id, _) = server.online("W", None, &agent.url()).await;
    for (answer, status, error, upstream) in [
        (Answer::json(500, &json!({"error": "boom"})), 500, "boom", 500),
        (Answer::json(422, &json!({"error": {"message": "deep", "code": 3}})), 422, "deep", 422),
        (Answer::status(503), 503, "Service Unavailable", 503),
        (Answer::status(307).header("location", "http://169.254.169.254/"), 502, "Temporary Redirect", 307),
        (Answer::status(418).body("<html>"), 418, "I'm a teapot", 418),
    ] {
        agent.answer_with(move |_| answer.clone());
        let reply = send(&server, id, &message("x")).await;
        reply.is_error(status, error);
        assert_eq!(reply.json()["upstream_status"], upstream);
        assert_eq!(server.status(id).await, "online");
    }
    agent.answer_with(|_| {
        Answer::json(200, &json!({"jsonrpc": "2.0", "id": 1, "error": {"code": -1, "message": "no"}}))
    });
    let reply = send(&server, id, &message("x")).await;
    assert_eq!(reply.ok().pointer("/error/message").unwrap(), "no");
    let last = format!(
        "SELECT status || ' ' || error_detail FROM activity_logs WHERE workspace_id = '{id}' ORDER BY seq DESC LIMIT 1"
    );
    assert_eq!(server.database.value(&last).await.as_deref(), Some("error no"));
    assert_eq!(count(&server, id).await, "6");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_agent_is_checked_and_restarted_only_when_dead() {
    // 4.R58, 4.R59, 4.R63, 4.R64, 4.R67, 4.T13
    let server = Setup::default().start().await;
    let (id, _) = server.online("W", None, "http://127.0.0.1:9/").await;
    server.mock.set_liveness(id, Some(LivenessAnswer::Unknown));
    send(&server, id, &message("x")).await.is_error(502, "failed to reach workspace agent");
    assert_eq!(server.status(id).await, "online");
    let reason = format!(
        "SELECT error_detail FROM activity_logs WHERE workspace_id = '{id}' ORDER BY seq DESC LIMIT 1"
    );
    assert!(server.database.value(&reason).await.unwrap().contains("offline"));
    server.mock.set_liveness(id, None);
    server.mock.crash(id);
    let reply = send(&server, id, &message("x")).await;
    reply.is_error(503, "workspace agent unreachable — container restart triggered");
    assert_eq!((&reply.json()["restarting"], reply.header("retry-after")), (&json!(true), Some("15")));
    wait_until("the restart", async || server.starts(id) == 2).await;
    let events = server.events(id).await;
    let offline: Vec<_> = events.iter().filter(|event| event.0 == "WORKSPACE_OFFLINE").collect();
    assert_eq!(offline.len(), 1);
    assert_eq!(offline[0].1, json!({"reason": "unreachable"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_agent_is_said_to_be_busy() {
    // 4.R48, 4.R49, 4.R50, 4.R59, 4.R60, 4.R62, 4.R67
    let quick = [("A2A_IDLE_TIMEOUT_SECONDS", "1"), ("A2A_RESPONSE_HEADER_TIMEOUT_SECONDS", "1")];
    let setup = quick.iter().fold(Setup::default(), |setup, (name, value)| setup.env(name, value));
    let server = setup.start().await;
    let agent = FakeAgent::start(|_| Answer::hang());
    let (id, _) = server.online("W", None, &agent.url()).await;
    let reply = send(&server, id, &message("x")).await;
    assert_eq!(
        (reply.status, &reply.json()["busy"], reply.header("retry-after")),
        (503, &json!(true), Some("30"))
    );
    assert!(reply.json().get("native_session").is_none());
    agent.answer_with(|_| Answer::close());
    assert_eq!(send(&server, id, &message("x")).await.json()["busy"], true);
    let reasons = format!("SELECT error_detail FROM activity_logs WHERE workspace_id = '{id}' ORDER BY seq");
    let reasons = server.database.column(&reasons).await;
    assert!(
        reasons[0].as_ref().unwrap().contains("timeout")
            && reasons[1].as_ref().unwrap().contains("connection reset"),
        "{reasons:?}"
    );
    server.database.execute(&format!("UPDATE workspaces SET runtime_metadata = '{{\"capabilities\": {{\"session\": true}}}}' WHERE id = '{id}'")).await;
    assert_eq!(send(&server, id, &message("x")).await.json()["native_session"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn signs_of_life_keep_a_quiet_dispatch_alive() {
    // 4.R49, 4.R50, 3.R34, 4.T9
    let server = Setup::default()
        .env("A2A_IDLE_TIMEOUT_SECONDS", "1")
        .env("A2A_RESPONSE_HEADER_TIMEOUT_SECONDS", "1")
        .start()
        .await;
    let agent = FakeAgent::start(|_| {
        Answer::json(200, &json!({"result": "slow"})).after(Duration::from_millis(2500))
    });
    let (id, _) = server.online("W", None, &agent.url()).await;
    let hub = server.app().hub.clone();
    let beats = async {
        loop {
            hub.broadcast(Event::heartbeat(id, 1, 1));
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    let body = message("x");
    tokio::select! {
        reply = send(&server, id, &body) => assert_eq!(reply.ok()["result"], "slow"),
        () = beats => unreachable!(),
    }
    // A wedged agent's beats are no sign of life.
    let wedged = async {
        loop {
            hub.broadcast_wedged(Event::heartbeat(id, 1, 1));
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    tokio::select! {
        reply = send(&server, id, &body) => assert_eq!(reply.json()["busy"], true),
        () = wedged => unreachable!(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_own_deadline_ends_the_wait_and_nothing_else() {
    // 4 §1.1, 4.R59
    let server = Setup::default().start().await;
    let agent = FakeAgent::start(|_| Answer::hang());
    let (id, _) = server.online("W", None, &agent.url()).await;
    let reply =
        server.request(Method::POST, &path(id)).header("x-timeout", "1").json(&message("x")).send().await;
    let body = reply.json();
    assert_eq!((reply.status, &body["timed_out"], &body["busy"]), (503, &json!(true), &json!(true)));
    assert_eq!((&body["retry_after"], reply.header("retry-after")), (&json!(30), Some("30")));
    assert_eq!(server.status(id).await, "online");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_whole_or_an_error() {
    // 4.R52, 4.R56
    let server = Setup::default().start().await;
    let agent = FakeAgent::start(|_| Answer::status(200).body("plain").header("content-type", "text/plain"));
    let (id, _) = server.online("W", None, &agent.url()).await;
    let reply = send(&server, id, &message("x")).await;
    assert_eq!(
        (reply.bytes.as_ref(), reply.header("content-type")),
        (b"plain".as_slice(), Some("text/plain"))
    );
    assert_eq!(row(&server, id).await["response_body"], json!({"raw": "plain"}));
    agent.answer_with(|_| Answer::status(200).body(vec![b'x'; 10_485_761]));
    let reply = send(&server, id, &message("x")).await;
    reply.is_error(502, "agent response too large");
    assert_eq!(reply.json()["delivery_confirmed"], true);
    for (status, confirmed) in [(200, true), (500, false)] {
        agent.answer_with(move |_| Answer::status(status).body("0123456789").cut_after(5));
        let reply = send(&server, id, &message("x")).await;
        reply.is_error(502, "failed to read agent response");
        assert_eq!(reply.json()["delivery_confirmed"], confirmed);
    }
    let states = format!("SELECT status FROM activity_logs WHERE workspace_id = '{id}' ORDER BY seq");
    let states: Vec<_> = server.database.column(&states).await.into_iter().flatten().collect();
    assert_eq!(states, ["ok", "ok", "ok", "error"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_passed_on_and_logged_at_its_end() {
    // 4.R57
    let server = Setup::default().start().await;
    let events = "data: {\"n\":1}\n\ndata: {\"n\":2}\n\n";
    let agent = FakeAgent::start(move |_| {
        Answer::status(200).header("content-type", "text/event-stream").body(events)
    });
    let (id, _) = server.online("W", None, &agent.url()).await;
    let reply = send(&server, id, &message("x")).await;
    assert_eq!(
        (reply.bytes.as_ref(), reply.header("content-type")),
        (events.as_bytes(), Some("text/event-stream"))
    );
    assert_eq!(
        (reply.header("cache-control"), reply.header("x-accel-buffering")),
        (Some("no-cache"), Some("no"))
    );
    wait_until("the row", async || count(&server, id).await == "1").await;
    assert_eq!(row(&server, id).await["response_body"], json!({"n": 2}));
    agent.answer_with(move |_| {
        Answer::status(200).header("content-type", "text/event-stream").body(events).cut_after(16)
    });
    let broken = send(&server, id, &message("x")).await;
    let text = String::from_utf8_lossy(&broken.bytes).into_owned();
    assert!(text.starts_with("data: {\"n\":1}\n\n"), "{text}");
    assert!(text.contains("event: error\ndata: {\"jsonrpc\":\"2.0\",\"id\":\"m1\",\"error\":"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_canvas_hears_the_answer_before_the_caller() {
    // 4.R69, 4.R116
    let (server, agent) = (Setup::default().start().await, echo());
    let (id, token) = server.online("W", None, &agent.url()).await;
    let mut events = server.app().hub.subscribe();
    send(&server, id, &message("hi")).await.ok();
    let mut heard = Vec::new();
    while heard.len() < 2 {
        let event = events.next().await.unwrap();
        heard.push(serde_json::from_slice::<Value>(event.text()).unwrap());
    }
    assert_eq!((&heard[0]["event"], &heard[1]["event"]), (&json!("ACTIVITY_LOGGED"), &json!("A2A_RESPONSE")));
    assert_eq!(heard[0]["payload"]["request_body"], message("hi"));
    assert_eq!(heard[1]["payload"]["response_body"].pointer("/result/parts/0/text").unwrap(), "hi");
    assert_eq!(heard[1]["payload"]["method"], "message/send");
    // An agent's own call is not the canvas's business.
    server.request(Method::POST, &path(id)).bearer(&token).json(&message("x")).send().await.ok();
    let event = events.next().await.unwrap();
    assert_eq!(event.kind().name(), "ACTIVITY_LOGGED");
    server.app().hub.broadcast(Event::task_updated(id, "end", 0));
    assert_eq!(events.next().await.unwrap().kind().name(), "TASK_UPDATED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_hangs_up_cancels_nothing() {
    // 4.R9, 4.R47, 4.T32, 1.R25
    let server = Setup::default().start().await;
    let agent =
        FakeAgent::start(|_| Answer::json(200, &json!({"result": "late"})).after(Duration::from_millis(500)));
    let (id, _) = server.online("W", None, &agent.url()).await;
    let body = message("x");
    let impatient = tokio::time::timeout(Duration::from_secs(10), async {
        tokio::select! {
            _ = send(&server, id, &body) => unreachable!("the agent is slower"),
            _ = agent.wait_received(1) => {}
        }
    });
    impatient.await.unwrap();
    wait_until("the row", async || count(&server, id).await == "1").await;
    assert_eq!(row(&server, id).await["response_body"], json!({"result": "late"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_target_takes_sixty_four_dispatches_at_a_time() {
    // 4.R51
    let server = Setup::default().start().await;
    let agent =
        FakeAgent::start(|_| Answer::json(200, &json!({"result": "ok"})).after(Duration::from_millis(1500)));
    let (id, _) = server.online("W", None, &agent.url()).await;
    let body = message("x");
    let replies = futures_util::future::join_all((0..70).map(|_| send(&server, id, &body))).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 64);
    assert!(replies.iter().filter(|reply| reply.status != 200).all(|reply| reply.json()["busy"] == true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_generation_gets_its_version_header() {
    // 4.R22, 4.R23, 4.R46, 4.T30
    let (server, agent) = (Setup::default().start().await, echo());
    let (id, _) = server.online("W", None, &agent.url()).await;
    let v1 = json!({"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": {"role": "ROLE_USER", "messageId": "m", "parts": [{"text": "x"}]}}});
    send(&server, id, &v1).await.ok();
    send(&server, id, &message("x")).await.ok();
    let received = agent.wait_received(2).await;
    assert_eq!((received[0].header("a2a-version"), &received[0].json()), (Some("1.0"), &v1));
    assert_eq!(received[1].header("a2a-version"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_stored_is_repaired_for_the_row_alone() {
    // 4.R6, 4.R7, 4.T31
    let server = Setup::default().start().await;
    let agent = FakeAgent::start(|request| Answer::status(200).body(request.body.clone()));
    let (id, _) = server.online("W", None, &agent.url()).await;
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"t":"a\u0000b","big":1e999999}}"#;
    let reply = server.request(Method::POST, &path(id)).body(body).send().await;
    assert_eq!((reply.status, reply.bytes.as_ref()), (200, body.as_bytes()));
    assert_eq!(agent.wait_received(1).await[0].body, body);
    assert_eq!(count(&server, id).await, "1");
}
