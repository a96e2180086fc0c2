//! The frame that sweeps run in: election, ticks, failures, and what operators see of it (contract 3.10, 3.11).

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http::Method;
use mws_tasks::{Frame, Report, Sweep};
use mws_testkit::{wait_for, wait_until};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::support::{Setup, TestServer};

/// Counts its ticks, and fails or panics in the first ones if told so.
#[derive(Default)]
struct Counting {
    ticks: AtomicUsize,
    passed_over: AtomicUsize,
    fail_first: usize,
    panic_first: usize,
}

impl Counting {
    fn ticks(&self) -> usize {
        self.ticks.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Sweep for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }

    fn every(&self) -> Duration {
        Duration::from_millis(40)
    }

    fn at_start(&self) -> bool {
        true
    }

    async fn passed_over(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.passed_over.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn run_once(&self) -> Result<Report, Box<dyn Error + Send + Sync>> {
        let tick = self.ticks.fetch_add(1, Ordering::SeqCst);
        assert!(tick >= self.panic_first, "told to panic");
        if tick < self.fail_first { Err("password=hunter2".into()) } else { Ok(Report::default()) }
    }
}

fn start(server: &TestServer, holder: &str, sweep: Counting) -> Arc<Counting> {
    let sweep = Arc::new(sweep);
    Frame::new(server.app().db.clone(), holder, server.app().spawner.clone()).start(sweep.clone());
    sweep
}

/// A tick that lasts until it is told to end.
#[derive(Default)]
struct Long(Notify);

#[async_trait]
impl Sweep for Long {
    fn name(&self) -> &'static str {
        "long"
    }

    fn every(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn at_start(&self) -> bool {
        true
    }

    async fn run_once(&self) -> Result<Report, Box<dyn Error + Send + Sync>> {
        self.0.notified().await;
        Ok(Report::default())
    }
}

async fn holder(server: &TestServer) -> Option<String> {
    let rows = server.database.column("SELECT holder FROM background_tasks WHERE name = 'counting'").await;
    rows.into_iter().next().flatten()
}

async fn subsystem(server: &TestServer, name: &str) -> Value {
    server.get("/admin/liveness").await.ok()["subsystems"][name].clone()
}

async fn ticks_on(sweep: &Counting) {
    let before = sweep.ticks();
    wait_until("further ticks", async || sweep.ticks() > before + 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_at_a_time_ticks_and_another_takes_over() {
    // 3.R96
    let one = Setup::default().env("MWS_SWEEPS", "off").start().await;
    let two = Setup::default().env("MWS_SWEEPS", "off").start_on(one.database.clone()).await;
    let first = start(&one, "a", Counting::default());
    ticks_on(&first).await;
    // One that starts later takes nothing away.
    let second = start(&two, "b", Counting::default());
    wait_until("the second to stand by", async || second.passed_over.load(Ordering::SeqCst) > 3).await;
    ticks_on(&first).await;
    assert_eq!((second.ticks(), holder(&one).await.as_deref()), (0, Some("a")));

    // A clean shutdown hands over at once.
    one.stop().await;
    let stopped = first.ticks();
    two.app().db.release_tasks("a").await.unwrap();
    ticks_on(&second).await;
    assert_eq!((first.ticks(), holder(&two).await.as_deref()), (stopped, Some("b")));

    // One that crashed is replaced when its lease has ended.
    let end = "UPDATE background_tasks SET holder = 'crashed', lease_until = now() - interval '1 second'
               WHERE name = 'counting'";
    two.database.execute(end).await;
    wait_until("the takeover", async || holder(&two).await.as_deref() == Some("b")).await;
    // And its lease is two intervals, at least 30 s.
    let lease = "SELECT lease_until - now() BETWEEN interval '25 seconds' AND interval '31 seconds'
                 FROM background_tasks WHERE name = 'counting'";
    assert_eq!(two.database.value(lease).await.unwrap(), "t");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_server_gives_up_its_leases() {
    // 3.R96, 3.R104
    let one = Setup::default().start().await;
    let leased = "SELECT count(*) FROM background_tasks WHERE lease_until > now()";
    wait_until("a lease", async || one.database.value(leased).await.as_deref() != Some("0")).await;
    let database = one.database.clone();
    one.stop().await;
    assert_eq!(database.value(leased).await.unwrap(), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_tick_is_shown_in_safe_words_and_the_next_one_comes() {
    // 3.R60, 3.R66, 3.R110
    let server = Setup::default().env("MWS_SWEEPS", "off").start().await;
    let sweep = start(&server, "a", Counting { fail_first: usize::MAX, ..Counting::default() });
    ticks_on(&sweep).await;
    wait_until("the record", async || subsystem(&server, "counting").await["last_error"].is_string()).await;
    let shown = subsystem(&server, "counting").await;
    assert_eq!(shown["last_error"], "the tick failed; the log has the cause");
    assert_eq!(shown["restarts"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_restarts_the_task_and_nothing_else() {
    // 3.R60, 1.R158
    let server = Setup::default().env("MWS_SWEEPS", "off").start().await;
    let broken = start(&server, "a", Counting { panic_first: 1, ..Counting::default() });
    wait_until("the restart", async || broken.ticks() > 3).await;
    let shown = subsystem(&server, "counting").await;
    assert_eq!(shown["restarts"], 1);
    server.request(Method::GET, "/health").send().await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_every_task_from_its_start() {
    // 3.R66, 3.R58, 1.R158, 3.R59
    for setup in [Setup::default(), Setup::default().without_backend()] {
        let server = setup.start().await;
        let names = ["liveness-monitor", "provision-timeout-sweep", "teardown-reaper"];
        wait_until("the first ticks", async || {
            let shown = server.get("/admin/liveness").await.ok();
            names.iter().all(|name| shown["subsystems"][name].is_object())
        })
        .await;
        let shown = subsystem(&server, "provision-timeout-sweep").await;
        let keys: BTreeSet<_> = shown.as_object().unwrap().keys().map(String::as_str).collect();
        let expected = BTreeSet::from([
            "holder",
            "interval_seconds",
            "last_error",
            "last_tick_at",
            "restarts",
            "seconds_ago",
            "stale",
        ]);
        assert_eq!(keys, expected);
        assert!(shown["last_tick_at"].as_str().unwrap().ends_with('Z'));
        assert!(shown["seconds_ago"].as_i64().unwrap() <= 2);
        assert_eq!(shown["interval_seconds"], 30);
        assert_eq!((&shown["stale"], &shown["restarts"]), (&json!(false), &json!(0)));
        assert_eq!(shown["last_error"], Value::Null);
        assert!(shown["holder"].as_str().unwrap().contains(&format!(":{}:", std::process::id())));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_tick_shows_that_it_is_alive() {
    // 3.R66, 3.R61
    let server = Setup::default().env("MWS_SWEEPS", "off").start().await;
    let sweep = Arc::new(Long::default());
    Frame::new(server.app().db.clone(), "a", server.app().spawner.clone()).start(sweep.clone());
    let tick = async || {
        server
            .database
            .column("SELECT last_tick_at FROM background_tasks WHERE lease_until IS NOT NULL")
            .await
    };
    let begun = wait_for("the tick", async || tick().await.pop()).await;
    wait_until("a sign of life", async || tick().await.pop() > Some(begun.clone())).await;
    let ticks = "SELECT ticks FROM background_tasks WHERE name = 'long'";
    assert_eq!(server.database.value(ticks).await.unwrap(), "0");
    sweep.0.notify_one();
    wait_until("the end", async || server.database.value(ticks).await.as_deref() == Some("1")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_without_ticks_is_stale() {
    // 3.R66, 3.R93
    let server = Setup::default().env("MWS_SWEEPS", "off").start().await;
    server
        .database
        .execute(
            "INSERT INTO background_tasks (name, holder, interval_ms, last_tick_at, restarts, last_error) VALUES
             ('late', 'gone', 30000, now() - interval '61 seconds', 4, 'panicked'),
             ('punctual', 'there', 30000, now() - interval '58 seconds', 0, NULL)",
        )
        .await;
    let shown = server.get("/admin/liveness").await.ok()["subsystems"].clone();
    let late = &shown["late"];
    assert_eq!(
        (&late["stale"], &late["restarts"], &late["last_error"]),
        (&json!(true), &json!(4), &json!("panicked"))
    );
    assert_eq!((late["seconds_ago"].as_i64().unwrap() / 10, &late["holder"]), (6, &json!("gone")));
    assert_eq!(shown["punctual"]["stale"], false);
    assert_eq!(server.request(Method::GET, "/admin/liveness").send().await.status, 401);
}
