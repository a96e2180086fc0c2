//! Registration (contract 3.1).

use http::Method;
use mws_models::WorkspaceId;
use serde_json::{Value, json};

use crate::support::{ADMIN, Setup, TestServer};

const REGISTER: &str = "/registry/register";
/// An address that passes the guard in every mode, without a lookup.
const PUBLIC: &str = "http://93.184.216.34:8000";
const MISSING: &str = "missing workspace auth token";
const INVALID: &str = "invalid workspace auth token";
/// Nobody talks to these rows but the test.
const EXTERNAL: (&str, &str) = ("runtime", "'external'");

fn body(id: WorkspaceId, url: &str) -> Value {
    json!({"id": id, "agent_card": {"name": "a"}, "url": url})
}

async fn quiet() -> TestServer {
    Setup::default().env("MWS_SWEEPS", "off").start().await
}

async fn event_names(server: &TestServer, id: WorkspaceId) -> Vec<String> {
    server.events(id).await.into_iter().map(|(name, _)| name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_bodies_are_refused_and_change_nothing() {
    // 3.R1, 3.R9, 1.R9
    let server = quiet().await;
    let id = server.row(&[EXTERNAL]).await;
    let card = "\"agent_card\":{}";
    let long = format!("http://a.example/{}", "x".repeat(2048));
    let big = format!("{{\"id\":\"{id}\",\"agent_card\":{{\"a\":\"{}\"}}}}", "x".repeat(256 * 1024));
    let bodies = [
        String::new(),
        "[]".into(),
        "{".into(),
        "{} {}".into(),
        "{}".into(),
        format!("{{\"id\":\"{id}\"}}"),
        format!("{{\"id\":\"{id}\",\"agent_card\":null}}"),
        format!("{{\"id\":\"{id}\",\"agent_card\":[]}}"),
        format!("{{\"id\":\"{id}\",\"agent_card\":\"{{}}\"}}"),
        format!("{{{card}}}"),
        format!("{{\"id\":null,{card}}}"),
        format!("{{\"id\":\"\",{card}}}"),
        format!("{{\"id\":5,{card}}}"),
        format!("{{\"id\":\"not-a-uuid\",{card}}}"),
        format!("{{\"id\":\"{}\",{card}}}", id.to_string().replace('-', "")),
        format!("{{\"id\":\"{id}\\u0000\",{card}}}"),
        format!("{{\"id\":\"{id}\",{card},\"url\":7}}"),
        format!("{{\"id\":\"{id}\",{card},\"url\":\"{long}\"}}"),
        format!("{{\"id\":\"{id}\",{card},\"delivery_mode\":1}}"),
        big,
    ];
    for sent in bodies {
        let reply = server.request(Method::POST, REGISTER).body(sent.clone()).send().await;
        reply.is_error(400, "invalid request body");
    }
    for mode in ["stream", "PUSH", " push"] {
        let mut sent = body(id, PUBLIC);
        sent["delivery_mode"] = mode.into();
        let reply = server.agent_posts(REGISTER, None, &sent).await;
        reply.is_error(400, "delivery_mode must be 'push' or 'poll'");
    }
    let reply = server.request(Method::POST, REGISTER).body(vec![b' '; (1 << 20) + 1]).send().await;
    reply.is_error(413, "request body too large");
    assert_eq!(reply.json()["code"], "BODY_TOO_LARGE");
    assert_eq!(server.field(id, "agent_card IS NULL AND last_heartbeat_at IS NULL").await.unwrap(), "true");
    assert_eq!(server.events(id).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn lenient_where_the_contract_is() {
    // 3.R1, 1.R7, 1.R10, 1.R11, 1.R15, 5.R4
    let server = quiet().await;
    let id = server.row(&[EXTERNAL]).await;
    let upper = id.to_string().to_uppercase();
    let sent = format!(
        r#"{{"id":"{upper}","agent_card":[],"agent_card":{{"v":2}},"url":null,"delivery_mode":null,"more":[{{}}]}}"#
    );
    let reply = server
        .request(Method::POST, REGISTER)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(sent)
        .send()
        .await
        .ok();
    assert_eq!(reply["status"], "registered");
    assert_eq!(server.field(id, "agent_card").await.unwrap(), r#"{"v": 2}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn halves_of_characters_are_repaired() {
    // 3.R2
    let server = quiet().await;
    let id = server.row(&[EXTERNAL]).await;
    let sent = format!(
        r#"{{"id":"{id}","agent_card":{{"cut":"a\ud83d","nul\u0000":["\u0000b","\udc00"],"whole":"\ud83d\ude00"}}}}"#
    );
    server.request(Method::POST, REGISTER).body(sent).send().await.ok();
    let stored: Value = serde_json::from_str(&server.field(id, "agent_card").await.unwrap()).unwrap();
    let expected =
        json!({"cut": "a\u{fffd}", "nul\u{fffd}": ["\u{fffd}b", "\u{fffd}"], "whole": "\u{1f600}"});
    assert_eq!(stored, expected);
    assert_eq!(server.events(id).await[0].1["agent_card"], expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gate_stands_before_everything_that_depends_on_the_row() {
    // 3.R7, 3.R8
    let server = quiet().await;
    let id = server.row(&[EXTERNAL]).await;
    let other = server.row(&[EXTERNAL]).await;
    let (own, others, revoked) = (server.token(id).await, server.token(other).await, server.token(id).await);
    let revoke =
        format!("UPDATE workspace_auth_tokens SET revoked_at = now() WHERE token_hash = sha256('{revoked}')");
    server.database.execute(&revoke).await;
    // What would be refused later, with another answer, or asked of a resolver.
    for url in ["ftp://x", "http://169.254.169.254/", "http://no-such-host.invalid/", ""] {
        let mut sent = body(id, url);
        sent["delivery_mode"] = "push".into();
        let reply = server.agent_posts(REGISTER, None, &sent).await;
        reply.is_error(401, MISSING);
        assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
        for wrong in ["junk", &others, &revoked, ADMIN] {
            server.agent_posts(REGISTER, Some(wrong), &sent).await.is_error(401, INVALID);
        }
    }
    assert_eq!(server.field(id, "agent_card IS NULL").await.unwrap(), "true");
    server.agent_posts(REGISTER, Some(&own), &body(id, PUBLIC)).await.ok();

    // 3.R7 2: removed, with a live token and without.
    let dead = server.row(&[EXTERNAL, ("status", "'removed'")]).await;
    let token = server.token(dead).await;
    let bare = server.row(&[EXTERNAL, ("status", "'removed'")]).await;
    for id in [dead, bare] {
        server.agent_posts(REGISTER, None, &body(id, PUBLIC)).await.is_error(401, MISSING);
        for bearer in [token.as_str(), &own, ADMIN] {
            server.agent_posts(REGISTER, Some(bearer), &body(id, PUBLIC)).await.is_error(401, INVALID);
        }
        // 3.R16
        assert_eq!(server.field(id, "agent_card IS NULL AND updated_at = created_at").await.unwrap(), "true");
        assert_eq!(server.events(id).await, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_live_token_anybody_passes_unproven() {
    // 3.R7 4, 3.R17, 3.R24
    let server = quiet().await;
    let id = server.row(&[EXTERNAL]).await;
    let first = server.agent_posts(REGISTER, Some("ignored"), &body(id, PUBLIC)).await;
    let token = first.ok()["auth_token"].as_str().unwrap().to_owned();
    assert_eq!(token.len(), 43);
    assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
    assert_eq!(first.header("cache-control"), Some("no-store"));
    let stored = format!(
        "SELECT token_hash = sha256('{token}') AND prefix = left('{token}', 8) AND issued_by = 'register'
         FROM workspace_auth_tokens WHERE workspace_id = '{id}'"
    );
    assert_eq!(server.database.value(&stored).await.unwrap(), "t");

    server.agent_posts(REGISTER, None, &body(id, PUBLIC)).await.is_error(401, MISSING);
    let again = server.agent_posts(REGISTER, Some(&token), &body(id, PUBLIC)).await;
    assert_eq!(again.ok().get("auth_token"), None);
    assert_eq!(again.header("cache-control"), Some("no-store"));
    assert_eq!(again.json()["platform_inbound_secret"], first.json()["platform_inbound_secret"]);
    assert_eq!(event_names(&server, id).await, ["WORKSPACE_ONLINE", "WORKSPACE_ONLINE"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_simultaneous_first_registrations_one_gets_a_token() {
    // 3.R18
    let server =
        Setup::default().env("MWS_SWEEPS", "off").env("MWS_ALLOW_SELF_REGISTRATION", "true").start().await;
    let known = server.row(&[EXTERNAL]).await;
    for id in [known, WorkspaceId::random()] {
        let sent = body(id, PUBLIC);
        let replies =
            futures_util::future::join_all((0..20).map(|_| server.agent_posts(REGISTER, None, &sent))).await;
        let (won, lost): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status == 200);
        assert_eq!((won.len(), lost.len()), (1, 19), "{replies:?}");
        assert!(won[0].json()["auth_token"].is_string());
        for reply in lost {
            reply.is_error(401, MISSING);
        }
        let count = format!("SELECT count(*) FROM workspace_auth_tokens WHERE workspace_id = '{id}'");
        assert_eq!(server.database.value(&count).await.unwrap(), "1");
        assert_eq!(event_names(&server, id).await, ["WORKSPACE_ONLINE"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_create_no_workspaces() {
    // 3.R19, 5.R82
    let id = WorkspaceId::random();
    let rows = "SELECT count(*) FROM workspaces";
    let closed = quiet().await;
    for bearer in [None, Some(ADMIN)] {
        closed.agent_posts(REGISTER, bearer, &body(id, PUBLIC)).await.is_error(404, "workspace not found");
    }
    assert_eq!(closed.database.value(rows).await.unwrap(), "0");
    // Development with an admin is no open tier.
    let guarded = Setup::default().development().start().await;
    guarded.agent_posts(REGISTER, None, &body(id, PUBLIC)).await.is_error(404, "workspace not found");

    let allowed = Setup::default().env("MWS_ALLOW_SELF_REGISTRATION", "true").start().await;
    let open = Setup::default().development().without("ADMIN_TOKEN").start().await;
    let far = open.request(Method::POST, REGISTER).header("host", "evil.example").json(&body(id, PUBLIC));
    far.send().await.is_error(404, "workspace not found");
    for server in [&allowed, &open] {
        let reply = server.agent_posts(REGISTER, None, &body(id, "")).await.ok();
        assert_eq!(reply["delivery_mode"], "poll");
        assert!(reply["auth_token"].is_string() && reply["platform_inbound_secret"].is_string());
        let row =
            server.field(id, "concat_ws(' ', name, runtime, status, delivery_mode, url)").await.unwrap();
        assert_eq!(row, format!("{id} external online poll "));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_inbound_secret_is_for_the_proven() {
    // 3.R20, 3.R21, 5.R32, 5.R124
    let key = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    let server = Setup::default().env("MWS_SWEEPS", "off").env("SECRETS_ENCRYPTION_KEY", key).start().await;
    let id = server.row(&[EXTERNAL]).await;
    let token = server.token(id).await;
    let healed = server.agent_posts(REGISTER, Some(&token), &body(id, PUBLIC)).await.ok();
    let secret = healed["platform_inbound_secret"].as_str().unwrap().to_owned();
    assert_eq!(secret.len(), 43);
    let stored = server.field(id, "platform_inbound_secret").await.unwrap();
    assert!(stored.starts_with("ec2:") && !stored.contains(&secret), "{stored}");

    // Empty counts as none, and a race has one winner.
    server
        .database
        .execute(&format!("UPDATE workspaces SET platform_inbound_secret = '' WHERE id = '{id}'"))
        .await;
    let sent = body(id, PUBLIC);
    let replies =
        futures_util::future::join_all((0..8).map(|_| server.agent_posts(REGISTER, Some(&token), &sent)))
            .await;
    let secrets: std::collections::BTreeSet<_> = replies
        .iter()
        .map(|reply| reply.ok()["platform_inbound_secret"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(secrets.len(), 1);
    assert!(!secrets.contains(&secret));

    // What does not open is left out, and left alone.
    let broken = format!("UPDATE workspaces SET platform_inbound_secret = 'ec2:AAAA' WHERE id = '{id}'");
    server.database.execute(&broken).await;
    let reply = server.agent_posts(REGISTER, Some(&token), &sent).await.ok();
    assert_eq!(reply.get("platform_inbound_secret"), None);
    assert_eq!(server.field(id, "platform_inbound_secret").await.unwrap(), "ec2:AAAA");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_row_says_what_the_agent_said() {
    // 3.R15, 3.R23
    let server = quiet().await;
    let card = json!({"name": "a", "skills": [1, {"deep": null}]});
    for status in ["provisioning", "online", "degraded", "offline", "failed", "awaiting_agent"] {
        let id = server
            .row(&[
                EXTERNAL,
                ("status", &format!("'{status}'")),
                ("degraded_reason", "'wedged'"),
                ("last_error_rate", "0.7"),
                ("last_sample_error", "'boom'"),
                ("updated_at", "now() - interval '1 hour'"),
            ])
            .await;
        let sent = json!({"id": id, "agent_card": card, "url": PUBLIC});
        let reply = server.agent_posts(REGISTER, None, &sent).await.ok();
        assert_eq!((&reply["status"], &reply["delivery_mode"]), (&json!("registered"), &json!("push")));
        let row = "concat_ws('|', status, delivery_mode, url, last_error_rate, last_sample_error,
                   degraded_reason IS NULL, now() - last_heartbeat_at < interval '1 minute',
                   now() - updated_at < interval '1 minute')";
        assert_eq!(
            server.field(id, row).await.unwrap(),
            format!("online|push|{PUBLIC}|0||t|t|t"),
            "{status}"
        );
        let online = json!({"url": PUBLIC, "agent_card": card, "delivery_mode": "push"});
        assert_eq!(server.events(id).await, [("WORKSPACE_ONLINE".to_owned(), online)], "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_platform_holds_stays_held() {
    // 3.R15, 3.R23, 1.R121
    let server = quiet().await;
    for status in ["paused", "hibernating", "hibernated"] {
        let id = server.row(&[EXTERNAL, ("status", &format!("'{status}'"))]).await;
        let reply = server.agent_posts(REGISTER, None, &body(id, PUBLIC)).await.ok();
        assert!(reply["auth_token"].is_string());
        let row =
            server.field(id, "concat_ws('|', status, url, agent_card, last_heartbeat_at IS NOT NULL)").await;
        assert_eq!(row.unwrap(), format!(r#"{status}|{PUBLIC}|{{"name": "a"}}|t"#));
        let card = json!({"agent_card": {"name": "a"}});
        assert_eq!(server.events(id).await, [("AGENT_CARD_UPDATED".to_owned(), card)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_that_wins_the_race_is_final() {
    // 3.R14, 3.R16, 3.20 1, 1.R123
    let server = quiet().await;
    let id = server.row(&[EXTERNAL, ("status", "'online'"), ("agent_card", "'{}'")]).await;
    let token = server.token(id).await;
    let remove = format!("UPDATE workspaces SET status = 'removed' WHERE id = '{id}'");
    let held = server.hold(&remove, 0.7).await;
    server.agent_posts(REGISTER, Some(&token), &body(id, PUBLIC)).await.is_error(401, INVALID);
    held.await.unwrap();
    let row = server.field(id, "concat_ws('|', status, agent_card, url, last_heartbeat_at)").await;
    assert_eq!(row.unwrap(), "removed|{}");
    assert_eq!(server.events(id).await, []);
}
