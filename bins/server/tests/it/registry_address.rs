//! Which delivery mode and which address a registration ends up with (3.R10 to R13).

use mws_models::WorkspaceId;
use serde_json::{Value, json};

use crate::support::{Reply, Setup, TestServer};

const REGISTER: &str = "/registry/register";
const PUBLIC: &str = "http://93.184.216.34:8000";
const EXTERNAL: &str = "'external'";
const MANAGED: &str = "'claude-code'";

fn quiet() -> Setup {
    Setup::default().env("MWS_SWEEPS", "off")
}

async fn register(server: &TestServer, id: WorkspaceId, mode: Option<&str>, url: &str) -> Reply {
    let sent: Value = json!({"id": id, "agent_card": {"name": "a"}, "url": url, "delivery_mode": mode});
    server.agent_posts(REGISTER, None, &sent).await
}

async fn stored(server: &TestServer, id: WorkspaceId) -> String {
    server.field(id, "concat_ws(' ', delivery_mode, url)").await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_matching_rule_gives_the_mode() {
    // 3.R10, 3.R11, 3.R12
    let server = quiet().start().await;
    let (none, card) = ("NULL", "'{}'");
    // runtime, stored mode, card on file, requested mode, url, mode and stored url
    let accepted = [
        (MANAGED, "'push'", card, Some("poll"), "", "poll "),
        (EXTERNAL, "'poll'", card, Some("push"), PUBLIC, "push http://93.184.216.34:8000"),
        (EXTERNAL, "'poll'", none, None, PUBLIC, "poll http://93.184.216.34:8000"),
        (MANAGED, "'poll'", none, None, "", "poll "),
        (MANAGED, "'push'", none, None, PUBLIC, "push http://93.184.216.34:8000"),
        (EXTERNAL, "'push'", card, None, PUBLIC, "push http://93.184.216.34:8000"),
        // A push that was only ever a default.
        (EXTERNAL, "'push'", none, None, "", "poll "),
        (EXTERNAL, none, none, None, "", "poll "),
        ("'kimi'", none, none, None, "", "poll "),
        ("'kimi-cli'", none, card, None, "", "poll "),
        (EXTERNAL, none, card, None, PUBLIC, "push http://93.184.216.34:8000"),
        // Judged as it will be at dispatch, where `localhost` is loopback; as a registration it may be stored.
        (EXTERNAL, none, none, None, "http://localhost:9", "poll http://localhost:9"),
        (EXTERNAL, none, none, None, "http://127.0.0.1:9", "poll "),
        (EXTERNAL, none, none, None, "http://169.254.169.254", "poll "),
        (EXTERNAL, none, none, Some("poll"), "not a url", "poll "),
        (MANAGED, none, none, None, PUBLIC, "push http://93.184.216.34:8000"),
    ];
    for (runtime, mode, card, requested, url, expected) in accepted {
        let id = server.row(&[("runtime", runtime), ("delivery_mode", mode), ("agent_card", card)]).await;
        let reply = register(&server, id, requested, url).await.ok();
        let case = format!("{runtime} {mode} {card} {requested:?} {url}");
        assert_eq!(stored(&server, id).await, expected, "{case}");
        assert_eq!(reply["delivery_mode"].as_str(), expected.split(' ').next(), "{case}");
    }
    let refused = [
        (MANAGED, none, none, None),
        (MANAGED, "'push'", none, None),
        (EXTERNAL, "'push'", card, None),
        (EXTERNAL, none, none, Some("push")),
        (EXTERNAL, "'poll'", none, Some("push")),
    ];
    for (runtime, mode, card, requested) in refused {
        let id = server.row(&[("runtime", runtime), ("delivery_mode", mode), ("agent_card", card)]).await;
        register(&server, id, requested, "").await.is_error(400, "url is required");
        let untouched = server.field(id, "last_heartbeat_at IS NULL AND status = 'provisioning'").await;
        assert_eq!(untouched.unwrap(), "true");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_address_that_is_not_dialled_is_named_by_its_category() {
    // 3.R11, 3.R55, 3.R56, 5.R167
    let plain = quiet().start().await;
    let saas = quiet().env("MOLECULE_DEPLOY_MODE", "saas").start().await;
    let dev = quiet().development().start().await;
    let blocked = "url targets a blocked address";
    let own = format!("http://127.0.0.1:{}/", plain.base.port().unwrap());
    // url, then what self-hosted, saas and development say; empty means accepted
    let table = [
        ("ftp://93.184.216.34", ["url scheme must be http or https"; 3]),
        ("//93.184.216.34", ["url scheme must be http or https"; 3]),
        ("http://user:pass@93.184.216.34", ["url must not contain a user name or password"; 3]),
        ("http://no-such-host.invalid/", ["url host cannot be resolved"; 3]),
        ("http://127.0.0.1:9", [blocked, blocked, ""]),
        ("http://[::1]:9", [blocked, blocked, ""]),
        ("http://localhost:9", ["", "", ""]),
        ("http://10.1.2.3", [blocked, "", ""]),
        ("http://[fd00::1]", [blocked, "", ""]),
        ("http://[::ffff:10.1.2.3]", [blocked, "", ""]),
        ("http://2852039166/", [blocked, blocked, blocked]),
        ("http://169.254.169.254/latest", [blocked, blocked, blocked]),
        ("http://100.64.0.1", [blocked, blocked, blocked]),
        ("http://0.0.0.0", [blocked, blocked, blocked]),
        (PUBLIC, ["", "", ""]),
    ];
    for (url, answers) in table {
        for (server, expected) in [&plain, &saas, &dev].into_iter().zip(answers) {
            let id = server.row(&[("runtime", EXTERNAL)]).await;
            let reply = register(server, id, Some("push"), url).await;
            if expected.is_empty() {
                reply.ok();
                continue;
            }
            assert_eq!(reply.status, 400, "{url}: {reply:?}");
            let said = reply.json()["error"].as_str().unwrap().to_owned();
            assert!(said.starts_with(expected), "{url}: {said}");
            assert!(!said.contains("169.254") && !said.contains("10.1"), "{said}");
            assert_eq!(server.field(id, "agent_card IS NULL AND url IS NULL").await.unwrap(), "true");
            assert_eq!(server.events(id).await, []);
        }
    }
    let id = dev.row(&[("runtime", EXTERNAL)]).await;
    let own_of_dev = format!("http://localhost:{}/", dev.base.port().unwrap());
    for (server, id, url) in
        [(&dev, id, own_of_dev), (&plain, plain.row(&[("runtime", EXTERNAL)]).await, own)]
    {
        let reply = register(server, id, Some("push"), &url).await;
        assert_eq!(reply.status, 400, "{reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_provisioned_address_is_kept() {
    // 3.R13, 3.R15, 2.R30
    let server = quiet().start().await;
    let published = "http://127.0.0.1:32768";
    let provisioned = [
        ("runtime", MANAGED),
        ("url", "'http://127.0.0.1:32768'"),
        ("url_provisioned", "true"),
        ("delivery_mode", "'push'"),
    ];
    let row = "concat_ws(' ', status, url, url_provisioned)";
    let own = |id: WorkspaceId| format!("http://ws-{}:8000", &id.to_string()[..12]);
    for url in
        ["own", "http://no-such-host.invalid:8000", "http://10.0.0.7:8000", "http://127.0.0.1:9", PUBLIC]
    {
        let id = server.row(&provisioned).await;
        let url = if url == "own" { own(id) } else { url.to_owned() };
        register(&server, id, None, &url).await.ok();
        assert_eq!(server.field(id, row).await.unwrap(), format!("online {published} t"), "{url}");
        assert_eq!(server.events(id).await[0].1["url"], published);
    }
    for (url, says) in [
        ("http://169.254.169.254/", "url targets a blocked address"),
        ("gopher://10.0.0.7", "url scheme must be http or https"),
        ("", "url is required"),
    ] {
        let id = server.row(&provisioned).await;
        let reply = register(&server, id, None, url).await;
        assert_eq!(reply.status, 400, "{url}");
        assert!(reply.json()["error"].as_str().unwrap().starts_with(says), "{reply:?}");
        assert_eq!(server.field(id, row).await.unwrap(), format!("provisioning {published} t"));
    }
    // Without the mark, only its own container's name is taken unseen, and stored.
    let bare = server.row(&[("runtime", MANAGED)]).await;
    register(&server, bare, None, &own(WorkspaceId::random()))
        .await
        .is_error(400, "url host cannot be resolved");
    register(&server, bare, None, &own(bare)).await.ok();
    assert_eq!(stored(&server, bare).await, format!("push {}", own(bare)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_agent_comes_back_on_another_port() {
    // 3.R15
    let server = quiet().development().start().await;
    let id = server
        .row(&[("runtime", EXTERNAL), ("url", "'http://127.0.0.1:1'"), ("url_provisioned", "true")])
        .await;
    register(&server, id, None, "http://127.0.0.1:2").await.ok();
    assert_eq!(
        server.field(id, "concat_ws(' ', url, url_provisioned)").await.unwrap(),
        "http://127.0.0.1:2 f"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_published_during_the_registration_is_not_lost() {
    // 3.R15, 2.R30
    let server = quiet().start().await;
    let id = server.row(&[("runtime", MANAGED)]).await;
    let publish = format!(
        "UPDATE workspaces SET url = 'http://127.0.0.1:32768', url_provisioned = true WHERE id = '{id}'"
    );
    let held = server.hold(&publish, 0.7).await;
    register(&server, id, None, PUBLIC).await.ok();
    held.await.unwrap();
    let row = server.field(id, "concat_ws(' ', status, url, url_provisioned)").await.unwrap();
    assert_eq!(row, "online http://127.0.0.1:32768 t");
}
