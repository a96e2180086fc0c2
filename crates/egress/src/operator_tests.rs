use std::io::{BufReader, Write as _};
use std::net::TcpListener;

use http::HeaderValue;
use http::header::{AUTHORIZATION, LOCATION, SET_COOKIE};

use super::*;
use crate::test_server::{Received, TestServer, ok};

fn get(url: Url) -> OperatorRequest {
    OperatorRequest {
        method: Method::GET,
        url,
        headers: HeaderMap::new(),
        body: None,
        timeout: Duration::from_secs(5),
        max_body: 100,
    }
}

async fn send(request: OperatorRequest) -> Result<OperatorResponse, OperatorError> {
    OperatorClient::new().unwrap().send(request).await
}

#[tokio::test]
async fn sends_what_it_is_given_and_reads_the_answer() {
    let server = TestServer::start(|_, stream| {
        let mut stream = BufReader::new(stream);
        let request = Received::read(&mut stream).unwrap();
        assert_eq!(request.head[0], "PUT /cp/workspaces?x=1 HTTP/1.1");
        assert!(request.head.contains(&"authorization: Bearer token".to_owned()));
        let body = String::from_utf8(request.body).unwrap();
        stream.get_mut().write_all(ok(&body).as_bytes()).unwrap();
    });
    let response = send(OperatorRequest {
        method: Method::PUT,
        headers: HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static("Bearer token"))]),
        body: Some(Bytes::from_static(b"{}")),
        ..get(server.url().join("/cp/workspaces?x=1").unwrap())
    })
    .await
    .unwrap();
    assert_eq!((response.status, response.body), (StatusCode::OK, Bytes::from_static(b"{}")));
}

#[tokio::test]
async fn redirects_and_failures_of_the_service_are_answers() {
    // 4.R45
    let target = TestServer::answering(ok("secret"));
    let location = target.url();
    let answer = format!("HTTP/1.1 307 Moved\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
    let response = send(get(TestServer::answering(answer).url())).await.unwrap();
    assert_eq!(response.status, 307);
    assert_eq!(response.headers[LOCATION], location.as_str());
    assert_eq!(target.connections(), 0);

    let server = TestServer::answering("HTTP/1.1 503 Down\r\ncontent-length: 4\r\n\r\ndown");
    let response = send(get(server.url())).await.unwrap();
    assert_eq!((response.status.as_u16(), response.body), (503, Bytes::from_static(b"down")));
}

#[tokio::test]
async fn bodies_are_bounded() {
    let chunked =
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n5\r\nfghij\r\n0\r\n\r\n";
    for answer in [ok("abcdefghij"), chunked.to_owned()] {
        let server = TestServer::answering(answer);
        let response = send(OperatorRequest { max_body: 10, ..get(server.url()) }).await.unwrap();
        assert_eq!(response.body, "abcdefghij");
        let error = send(OperatorRequest { max_body: 9, ..get(server.url()) }).await.unwrap_err();
        assert_eq!(error, OperatorError::TooLarge);
    }
}

#[tokio::test]
async fn failures_are_told_apart() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = send(get(format!("http://{closed}/").parse().unwrap())).await.unwrap_err();
    assert_eq!(error, OperatorError::Unreachable);

    // Accepted by the kernel, answered by nobody.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url: Url = format!("http://{}/", silent.local_addr().unwrap()).parse().unwrap();
    let hasty = OperatorRequest { timeout: Duration::from_millis(100), ..get(url) };
    assert_eq!(send(hasty).await.unwrap_err(), OperatorError::Timeout);

    for cut in ["", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabcde"] {
        let server = TestServer::start(move |_, stream| {
            let mut stream = BufReader::new(stream);
            Received::read(&mut stream).unwrap();
            stream.get_mut().write_all(cut.as_bytes()).unwrap();
        });
        assert_eq!(send(get(server.url())).await.unwrap_err(), OperatorError::Interrupted);
    }

    let error = send(get("ftp://127.0.0.1/".parse().unwrap())).await.unwrap_err();
    assert_eq!(error, OperatorError::InvalidRequest);

    // A peer that does not speak TLS.
    let plain = TestServer::answering(ok("plain"));
    let url: Url = format!("https://{}/", plain.address).parse().unwrap();
    assert_eq!(send(get(url)).await.unwrap_err(), OperatorError::Unreachable);
}

#[tokio::test]
async fn debug_shows_no_secret() {
    let mut request = get("http://user:planted@127.0.0.1/bot-planted/x?key=planted".parse().unwrap());
    request.headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer planted"));
    request.body = Some(Bytes::from_static(b"planted"));
    let shown = format!("{request:?}");
    assert!(shown.contains("authorization") && !shown.contains("planted"), "{shown}");

    let response = OperatorResponse {
        status: StatusCode::OK,
        headers: HeaderMap::from_iter([(SET_COOKIE, HeaderValue::from_static("planted"))]),
        body: Bytes::from_static(b"planted"),
    };
    let shown = format!("{response:?}");
    assert!(shown.contains("set-cookie") && !shown.contains("planted"), "{shown}");
}
