//! The scripted agent, asked over plain sockets.

use std::time::{Duration, Instant};

use mws_testkit::{Answer, FakeAgent, wait_until};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn send(agent: &FakeAgent, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(agent.address()).await.unwrap();
    let request = format!(
        "POST /a2a?x=1 HTTP/1.1\r\nhost: agent\r\nconnection: close\r\nx-probe: 7\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn ask(agent: &FakeAgent, body: &str) -> String {
    let mut reply = String::new();
    send(agent, body).await.read_to_string(&mut reply).await.unwrap();
    reply
}

#[tokio::test]
async fn it_answers_by_its_script_and_remembers() {
    let agent = FakeAgent::start(|request| {
        Answer::json(201, &json!({ "echo": request.json() })).header("x-a", "1").header("x-a", "2")
    });
    let reply = ask(&agent, "[1]").await;
    assert!(reply.starts_with("HTTP/1.1 201"), "{reply}");
    assert!(reply.contains("x-a: 1\r\nx-a: 2\r\n") && reply.ends_with(r#"{"echo":[1]}"#), "{reply}");

    agent.answer_with(|_| Answer::status(503).after(Duration::from_millis(50)));
    let asked = Instant::now();
    assert!(ask(&agent, "").await.starts_with("HTTP/1.1 503"));
    assert!(asked.elapsed() >= Duration::from_millis(50));

    let received = agent.wait_received(2).await;
    assert_eq!(received[0].method, "POST");
    assert_eq!(received[0].uri, "/a2a?x=1");
    assert_eq!(received[0].header("x-probe"), Some("7"));
    assert_eq!(received[0].json(), json!([1]));
    assert!(received[1].body.is_empty());
}

#[tokio::test]
async fn it_closes_hangs_cuts_and_stalls() {
    let agent = FakeAgent::start(|_| Answer::close());
    assert_eq!(ask(&agent, "").await, "");

    agent.answer_with(|_| Answer::status(200).body("0123456789").cut_after(4));
    let cut = ask(&agent, "").await;
    assert!(cut.contains("content-length: 10") && cut.ends_with("\r\n\r\n0123"), "{cut}");

    agent.answer_with(|_| Answer::status(200).body("0123456789").stall_after(4));
    let mut stalled = send(&agent, "").await;
    let mut reply = Vec::new();
    wait_until("the first bytes of a stalled body", async || {
        stalled.read_buf(&mut reply).await.unwrap();
        reply.ends_with(b"\r\n\r\n0123")
    })
    .await;

    agent.answer_with(|_| Answer::hang());
    let mut hanging = send(&agent, "").await;
    agent.wait_received(4).await;

    // Both connections are open until the agent ends, and it ends at once.
    drop(agent);
    assert_eq!(stalled.read(&mut [0; 16]).await.unwrap_or(0), 0);
    assert_eq!(hanging.read(&mut [0; 16]).await.unwrap_or(0), 0);
}

#[tokio::test]
#[should_panic(expected = "the fake agent's thread panicked")]
async fn an_assertion_in_a_script_fails_the_test() {
    let agent = FakeAgent::start(|request| {
        assert_eq!(request.uri, "/other");
        Answer::status(200)
    });
    assert_eq!(ask(&agent, "").await, "");
}
