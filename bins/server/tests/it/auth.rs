//! Who may do what: every route, called with nothing and with each wrong kind of credential (contract 5 §5).

use http::Method;
use mws_http_api::{AuthClass, routes};
use mws_models::WorkspaceId;
use serde_json::json;

use crate::support::{ADMIN, Setup, TestServer};

/// The reviewed matrix: one line per route, one column per credential.
const MATRIX: &str = include_str!("auth-matrix.txt");

/// Inserts an organisation token.
async fn org_token(server: &TestServer, extra: &str) -> String {
    let token = format!("org-{}", WorkspaceId::random());
    server
        .database
        .execute(&format!(
            "INSERT INTO org_api_tokens (token_hash, prefix, expires_at, revoked_at)
         VALUES (sha256('{token}'), left('{token}', 8), {extra})"
        ))
        .await;
    token
}

async fn matrix(server: &TestServer) -> String {
    let own = server.row(&[("runtime", "'external'"), ("status", "'online'")]).await;
    let other = server.row(&[("runtime", "'external'"), ("status", "'online'")]).await;
    let revoked = server.token(own).await;
    server
        .database
        .execute(&format!("UPDATE workspace_auth_tokens SET revoked_at = now() WHERE workspace_id = '{own}'"))
        .await;
    let credentials = [
        ("nothing", None),
        ("unknown", Some("not-a-token-of-anybody".to_owned())),
        ("revoked", Some(revoked)),
        ("own", Some(server.token(own).await)),
        ("other", Some(server.token(other).await)),
        ("org", Some(org_token(server, "NULL, NULL").await)),
        ("expired", Some(org_token(server, "now() - interval '1 second', NULL").await)),
        ("admin", Some(ADMIN.to_owned())),
    ];
    let mut lines = vec![format!(
        "{:<6} {:<28} {}",
        "",
        "",
        credentials.iter().map(|(name, _)| format!("{name:<8}")).collect::<String>()
    )];
    for route in routes::table() {
        let path = route.path().replace(":workspaceId", &own.to_string()).replace(":id", &own.to_string());
        let mut line = format!("{:<6} {:<28} ", route.method().as_str(), route.path());
        for (_, credential) in &credentials {
            let mut request = server.request(route.method().clone(), &path);
            if let Some(token) = credential {
                request = request.bearer(token);
            }
            if route.class() == AuthClass::Registry {
                request = request.json(
                    &json!({"id": own, "workspace_id": own, "agent_card": {}, "delivery_mode": "poll"}),
                );
            } else if route.path() != "/workspaces/:id" && *route.method() == Method::POST {
                request = request.body("{");
            } else if *route.method() == Method::DELETE {
                // Nothing is to be deleted by the walk: an unknown id, after the same question.
                request = server.request(Method::DELETE, &format!("/workspaces/{}", WorkspaceId::random()));
                if let Some(token) = credential {
                    request = request.bearer(token);
                }
            }
            line.push_str(&format!("{:<8}", request.send().await.status));
        }
        lines.push(line.trim_end().to_owned());
    }
    lines[0] = lines[0].trim_end().to_owned();
    lines.join("\n") + "\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn the_matrix_is_the_reviewed_one() {
    // 5.R44, 5.R46, 5.R49, 5.R57, 5.R62, 5.R63, 5.R208, 5.R211, 5.R35
    let server = Setup::default().without_backend().start().await;
    let actual = matrix(&server).await;
    assert!(
        actual == MATRIX,
        "auth-matrix.txt differs. If every changed cell is right by contract 5 §5, it is now:\n{actual}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_401_says_how_to_authenticate() {
    // 1.R21, 5.R63, 5.R206
    let server = Setup::default().start().await;
    for path in ["/workspaces", "/admin/liveness", "/admin/jobs", "/events"] {
        let reply = server.request(Method::GET, path).send().await;
        reply.is_error(401, "admin auth required");
        assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
        server
            .request(Method::GET, path)
            .bearer("wrong")
            .send()
            .await
            .is_error(401, "invalid admin auth token");
    }
    // Whether a workspace exists cannot be told without a credential.
    let known = server.row(&[("status", "'online'")]).await;
    for id in [known, WorkspaceId::random()] {
        let reply = server.request(Method::GET, &format!("/workspaces/{id}/state")).send().await;
        reply.is_error(401, "missing workspace auth token");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_install_is_open_until_the_first_token() {
    // 5.R52, 5.R83, 5.R209, 5.R212, 1.R116
    let server = Setup::default().without("ADMIN_TOKEN").start().await;
    let get = async |token: Option<&str>| {
        let request = server.request(Method::GET, "/workspaces");
        match token {
            Some(token) => request.bearer(token).send().await.status,
            None => request.send().await.status,
        }
    };
    assert_eq!(get(None).await, 200);
    let id = server.row(&[("status", "'online'")]).await;
    let token = server.token(id).await;
    assert_eq!((get(None).await, get(Some(&token)).await), (401, 200));
    server.database.execute(&format!("UPDATE workspaces SET status = 'removed' WHERE id = '{id}'")).await;
    assert_eq!(get(Some(&token)).await, 401);
    server.database.execute("UPDATE workspace_auth_tokens SET revoked_at = now()").await;
    assert_eq!(get(None).await, 200);
    let production = Setup::default().without("ADMIN_TOKEN").env("MOLECULE_ENV", "production");
    let production =
        production.env("SECRETS_ENCRYPTION_KEY", "0123456789abcdef0123456789abcdef").start().await;
    let reply = production.request(Method::GET, "/workspaces").send().await;
    reply.is_error(401, "admin auth required");
}

#[tokio::test(flavor = "multi_thread")]
async fn open_tiers_are_for_local_names_only() {
    // 5.R82, 5.R214
    let server = Setup::default().without("ADMIN_TOKEN").development().start().await;
    let id = server.row(&[("status", "'online'")]).await;
    server.token(id).await;
    let get = |host: &str| server.request(Method::GET, "/workspaces").header("host", host);
    for local in ["localhost", "127.0.0.1:8080", "[::1]:8080", "server", "host.docker.internal"] {
        assert_eq!(get(local).send().await.status, 200, "{local}");
    }
    for foreign in ["evil.example", "localhost.evil.example:80"] {
        assert_eq!(get(foreign).send().await.status, 401, "{foreign}");
    }
    // A bearer that is presented has to be right all the same on workspace routes.
    let reply = server.request(Method::GET, &format!("/workspaces/{id}/state")).bearer("wrong").send().await;
    reply.is_error(401, "invalid workspace auth token");
    assert_eq!(server.request(Method::GET, &format!("/workspaces/{id}/state")).send().await.status, 200);
}
