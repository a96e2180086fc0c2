use std::io::{self, BufReader, Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use async_trait::async_trait;
use http::HeaderValue;
use http::header::{CONTENT_TYPE, LOCATION};
use proptest::prelude::*;
use socket2::{Domain, SockRef, Socket, Type};

use super::connect::Deadlines;
use super::*;
use crate::test_server::{Received, TestServer, ok};
use crate::{BlockedAddress, GuardMode, Refusal, Resolve};

const STRICT: GuardMode = GuardMode { saas: false, development: false };
const DEVELOPMENT: GuardMode = GuardMode { saas: false, development: true };

/// Gives its answers in turn, the last one for ever.
struct Script {
    answers: Mutex<Vec<Vec<IpAddr>>>,
    lookups: Arc<AtomicUsize>,
}

impl Script {
    fn new(answers: &[&[&str]]) -> (Self, Arc<AtomicUsize>) {
        let parse = |answer: &&[&str]| answer.iter().map(|address| address.parse().unwrap()).collect();
        let answers = Mutex::new(answers.iter().map(parse).collect());
        let lookups = Arc::<AtomicUsize>::default();
        (Self { answers, lookups: Arc::clone(&lookups) }, lookups)
    }
}

#[async_trait]
impl Resolve for Script {
    async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().unwrap();
        if answers.len() > 1 { Ok(answers.remove(0)) } else { Ok(answers[0].clone()) }
    }
}

fn client() -> AgentClient {
    AgentClient::new(AgentGuard::new(DEVELOPMENT, 1))
}

fn resolving(mode: GuardMode, answers: &[&[&str]]) -> (AgentClient, Arc<AtomicUsize>) {
    let (script, lookups) = Script::new(answers);
    (AgentClient::new(AgentGuard::with_resolver(mode, 1, script)), lookups)
}

fn request<'a>(url: &'a Url, body: &'static str) -> AgentRequest<'a> {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    AgentRequest { url, trust: Trust::Reported, headers, body: Bytes::from_static(body.as_bytes()) }
}

async fn text(client: &AgentClient, url: &Url) -> Result<String, DispatchError> {
    let response = client.post(request(url, "{}")).await?;
    let body = response.body.collect(1 << 20).await.map_err(|_| DispatchError::Other)?;
    Ok(String::from_utf8(body.to_vec()).unwrap())
}

async fn failure(client: &AgentClient, url: &Url) -> DispatchError {
    client.post(request(url, "{}")).await.err().unwrap()
}

/// A port on which nothing listens.
fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

#[tokio::test]
async fn posts_to_exactly_the_url_and_reuses_the_connection() {
    // 4.R46
    let (sender, received) = mpsc::channel();
    let sender = Mutex::new(sender);
    let server = TestServer::start(move |_, stream| {
        let mut stream = BufReader::new(stream);
        while let Some(request) = Received::read(&mut stream) {
            sender.lock().unwrap().send(request).unwrap();
            let answer = "HTTP/1.1 201 Created\r\nx-agent: yes\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
        }
    });
    let client = client();
    let url = server.url().join("/a2a/v1%20x?k=v|w#fragment").unwrap();
    for _ in 0..3 {
        let mut request = request(&url, r#"{"id":1}"#);
        request.headers.insert(HOST, HeaderValue::from_static("spoofed.example"));
        request.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("1"));
        request.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        let response = client.post(request).await.unwrap();
        assert_eq!(response.status, 201);
        assert_eq!(response.headers["x-agent"], "yes");
        assert_eq!(response.body.collect(5).await.unwrap(), "abcde");

        let received = received.recv().unwrap();
        assert_eq!(
            received.head,
            [
                "POST /a2a/v1%20x?k=v|w HTTP/1.1",
                "content-length: 8",
                "content-type: application/json",
                &format!("host: {}", server.address),
            ]
        );
        assert_eq!(received.body, br#"{"id":1}"#);
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn redirects_are_answers() {
    // 5.R166, 4.R45
    let target = TestServer::answering(ok("secret"));
    for status in [301, 302, 303, 307, 308] {
        let location = target.url();
        let answer = format!("HTTP/1.1 {status} Moved\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
        let server = TestServer::answering(answer);
        let response = client().post(request(&server.url(), "{}")).await.unwrap();
        assert_eq!(response.status, status);
        assert_eq!(response.headers[LOCATION], location.as_str());
    }
    assert_eq!(target.connections(), 0);
}

#[tokio::test]
async fn a_rebound_name_is_refused_while_connecting() {
    // 5.R165, 5.T25, 4.R44
    let server = TestServer::answering(ok("internal"));
    let (script, lookups) = Script::new(&[&["1.1.1.1"], &["127.0.0.1"]]);
    let guard = AgentGuard::with_resolver(STRICT, 1, script);
    let text = format!("http://agent.example:{}/", server.address.port());
    let (url, _) = guard.check_dispatch(&text, Trust::Reported).await.unwrap();

    let error = failure(&AgentClient::new(guard), &url).await;
    assert_eq!(error, DispatchError::Refused(Refusal::Blocked(BlockedAddress::Loopback)));
    assert_eq!(lookups.load(Ordering::SeqCst), 2);
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn literals_are_judged_on_every_request_and_trust_is_not_shared() {
    // 5.R168, 4.R42, 5.R238
    let server = TestServer::answering(ok("provisioned"));
    let client = AgentClient::new(AgentGuard::new(STRICT, 1));
    let url = server.url();
    for _ in 0..2 {
        let provisioned = AgentRequest { trust: Trust::PlatformProvisioned, ..request(&url, "{}") };
        let response = client.post(provisioned).await.unwrap();
        assert_eq!(response.body.collect(100).await.unwrap(), "provisioned");
        let error = failure(&client, &url).await;
        assert_eq!(error, DispatchError::Refused(Refusal::Blocked(BlockedAddress::Loopback)));
    }
    assert_eq!(client.inner.provisioned.idle(), 1);

    // Not even an open connection serves a refused address.
    let connection = client.inner.provisioned.checkout(&url[..Position::BeforePath]).await.unwrap();
    client.inner.reported.put(connection);
    let error = failure(&client, &url).await;
    assert_eq!(error, DispatchError::Refused(Refusal::Blocked(BlockedAddress::Loopback)));
    assert_eq!(client.inner.reported.idle(), 1);

    // A name of the same server: an idle connection of the other trust is not taken.
    let (client, _) = resolving(STRICT, &[&["127.0.0.1"]]);
    let named: Url = format!("http://ws-0123456789ab:{}/", server.address.port()).parse().unwrap();
    let provisioned = AgentRequest { trust: Trust::PlatformProvisioned, ..request(&named, "{}") };
    client.post(provisioned).await.unwrap().body.collect(100).await.unwrap();
    let error = failure(&client, &named).await;
    assert_eq!(error, DispatchError::Refused(Refusal::Blocked(BlockedAddress::Loopback)));

    for url in
        ["http://169.254.169.254/latest/meta-data/", "http://metadata.google.internal/", "ftp://1.1.1.1/"]
    {
        let url: Url = url.parse().unwrap();
        let provisioned = AgentRequest { trust: Trust::PlatformProvisioned, ..request(&url, "{}") };
        assert!(matches!(client.post(provisioned).await, Err(DispatchError::Refused(_))), "{url}");
    }
}

#[tokio::test]
async fn a_name_is_resolved_per_connection_and_stays_the_host() {
    // 5.R165
    let server = TestServer::start(|_, stream| {
        let mut stream = BufReader::new(stream);
        while let Some(request) = Received::read(&mut stream) {
            let host = request.head.iter().find(|line| line.starts_with("host: ")).unwrap();
            stream.get_mut().write_all(ok(host).as_bytes()).unwrap();
        }
    });
    // The first address refuses the connection: 127.0.0.2 has no listener.
    let (client, lookups) = resolving(DEVELOPMENT, &[&["127.0.0.2", "127.0.0.1"]]);
    let url: Url = format!("http://agent.example:{}/", server.address.port()).parse().unwrap();
    for _ in 0..3 {
        let host = format!("host: agent.example:{}", server.address.port());
        assert_eq!(text(&client, &url).await.unwrap(), host);
    }
    assert_eq!((lookups.load(Ordering::SeqCst), server.connections()), (1, 1));
}

#[tokio::test]
async fn causes_before_the_request_is_sent() {
    // 4.R59
    let refused: Url = format!("http://127.0.0.1:{}/", closed_port()).parse().unwrap();
    assert_eq!(failure(&client(), &refused).await, DispatchError::ConnectRefused);

    let (client, _) = resolving(DEVELOPMENT, &[&[]]);
    let unknown: Url = "http://agent.example/".parse().unwrap();
    assert_eq!(failure(&client, &unknown).await, DispatchError::Dns);
}

#[tokio::test]
async fn connecting_and_the_handshake_have_deadlines() {
    // 4.R48, 4.R59
    let deadlines = Deadlines { connect: Duration::from_millis(100), tls: Duration::from_millis(100) };
    let connector = Connector::new(AgentGuard::new(DEVELOPMENT, 1)).with_deadlines(deadlines);
    let client = AgentClient::on(connector);

    // A listener with a full backlog answers no SYN.
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let _first = TcpStream::connect(address).unwrap();
    let black_hole: Url = format!("http://{address}/").parse().unwrap();
    assert_eq!(failure(&client, &black_hole).await, DispatchError::ConnectTimeout);

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url: Url = format!("https://{}/", silent.local_addr().unwrap()).parse().unwrap();
    assert_eq!(failure(&client, &url).await, DispatchError::ConnectTimeout);

    assert_eq!(Deadlines::default().connect, Duration::from_secs(10));
    assert_eq!(Deadlines::default().tls, Duration::from_secs(10));
}

#[tokio::test]
async fn causes_after_the_request_is_sent() {
    // 4.R59
    for (answer, abort, cause) in [
        ("", false, DispatchError::Closed),
        ("HTTP/1.1 200 OK\r\ncontent-le", false, DispatchError::Closed),
        ("", true, DispatchError::Reset),
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n", false, DispatchError::Protocol),
    ] {
        let server = TestServer::start(move |_, stream| {
            let mut stream = BufReader::new(stream);
            Received::read(&mut stream).unwrap();
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
            if abort {
                reset(stream.into_inner());
            }
        });
        let error = failure(&client(), &server.url()).await;
        assert_eq!(error, cause, "{answer:?}");
        // A fresh connection is never tried twice.
        assert_eq!(server.connections(), 1);
        assert!(!error.to_string().contains("OpenSSH"));
    }
}

#[tokio::test]
async fn a_connection_closed_while_idle_is_replaced() {
    // 4.R51. The test blocks its only thread until the peer has closed, so that nothing but a look at the
    // socket itself can tell.
    for abort in [false, true] {
        let (hang_up, hung_up) = mpsc::channel::<()>();
        let (ended, end) = mpsc::channel();
        let signals = Mutex::new((hung_up, ended));
        let server = TestServer::start(move |number, stream| {
            let mut stream = BufReader::new(stream);
            Received::read(&mut stream).unwrap();
            stream.get_mut().write_all(ok(&number.to_string()).as_bytes()).unwrap();
            let (hung_up, ended) = &*signals.lock().unwrap();
            if hung_up.recv().is_ok() {
                if abort {
                    reset(stream.into_inner());
                } else {
                    drop(stream);
                }
                ended.send(()).unwrap();
            }
        });
        let client = client();
        for number in 0..5 {
            assert_eq!(text(&client, &server.url()).await.unwrap(), number.to_string());
            hang_up.send(()).unwrap();
            end.recv().unwrap();
        }
        assert_eq!(server.connections(), 5);
    }
}

#[tokio::test]
async fn a_request_that_was_sent_is_not_sent_again() {
    // 4.R51, 4.R59: the agent takes the second request off a kept connection and hangs up.
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&requests);
    let server = TestServer::start(move |_, stream| {
        let mut stream = BufReader::new(stream);
        while Received::read(&mut stream).is_some() {
            if counter.fetch_add(1, Ordering::SeqCst) == 1 {
                return;
            }
            stream.get_mut().write_all(ok("first").as_bytes()).unwrap();
        }
    });
    let client = client();
    assert_eq!(text(&client, &server.url()).await.unwrap(), "first");
    assert_eq!(failure(&client, &server.url()).await, DispatchError::Closed);
    assert_eq!((requests.load(Ordering::SeqCst), server.connections()), (2, 1));
}

#[tokio::test]
async fn an_answer_that_came_before_the_body_was_read_blocks_nobody() {
    let server = TestServer::start(|number, stream| {
        let mut stream = BufReader::new(stream);
        if number == 0 {
            stream.read_exact(&mut [0; 16]).unwrap();
            stream.get_mut().write_all(ok("too early").as_bytes()).unwrap();
            // Keeps the connection open and never reads the rest.
            loop {
                std::thread::park();
            }
        }
        Received::read(&mut stream).unwrap();
        stream.get_mut().write_all(ok("second").as_bytes()).unwrap();
    });
    let client = client();
    let url = server.url();
    let large = AgentRequest { body: Bytes::from(vec![b'x'; 16 << 20]), ..request(&url, "") };
    let response = client.post(large).await.unwrap();
    assert_eq!(response.body.collect(100).await.unwrap(), "too early");
    assert_eq!(text(&client, &server.url()).await.unwrap(), "second");
}

#[tokio::test]
async fn bodies_are_bounded_and_whole_or_an_error() {
    // 4.R52, 4.R56
    let chunked =
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n5\r\nfghij\r\n0\r\n\r\n";
    for answer in [ok("abcdefghij"), chunked.to_owned()] {
        let server = TestServer::answering(answer);
        for (limit, expected) in [
            (10, Ok(Bytes::from_static(b"abcdefghij"))),
            (9, Err(BodyError::TooLarge)),
            (0, Err(BodyError::TooLarge)),
        ] {
            let response = client().post(request(&server.url(), "{}")).await.unwrap();
            assert_eq!(response.body.collect(limit).await, expected);
        }
    }

    for cut in [&chunked[..chunked.len() - 3], "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabcde"] {
        let server = TestServer::start(move |_, stream| {
            let mut stream = BufReader::new(stream);
            Received::read(&mut stream).unwrap();
            stream.get_mut().write_all(cut.as_bytes()).unwrap();
        });
        let client = client();
        let response = client.post(request(&server.url(), "{}")).await.unwrap();
        assert_eq!(response.body.collect(100).await, Err(BodyError::Interrupted));

        let mut body = client.post(request(&server.url(), "{}")).await.unwrap().body;
        let mut chunks = Vec::new();
        while let Some(chunk) = body.next_chunk().await {
            chunks.push(chunk);
        }
        assert_eq!(chunks.last(), Some(&Err(DispatchError::Closed)));
        assert_eq!(client.inner.reported.idle(), 0);
    }
}

#[tokio::test]
async fn a_large_body_streams() {
    const CHUNK: usize = 64 * 1024;
    const CHUNKS: usize = 1024;
    let server = TestServer::start(|_, stream| {
        let mut stream = BufReader::new(stream);
        while Received::read(&mut stream).is_some() {
            let out = stream.get_mut();
            out.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
            let data = vec![b'x'; CHUNK];
            for _ in 0..CHUNKS {
                write!(out, "{CHUNK:x}\r\n").unwrap();
                out.write_all(&data).unwrap();
                out.write_all(b"\r\n").unwrap();
            }
            out.write_all(b"0\r\n\r\n").unwrap();
        }
    });
    let client = client();
    for _ in 0..2 {
        let mut body = client.post(request(&server.url(), "{}")).await.unwrap().body;
        let mut total = 0;
        while let Some(chunk) = body.next_chunk().await {
            total += chunk.unwrap().len();
        }
        assert_eq!(total, CHUNK * CHUNKS);
        assert!(body.next_chunk().await.is_none());
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_body_dropped_half_way_closes_its_connection() {
    let (sender, ended) = mpsc::channel();
    let sender = Mutex::new(sender);
    let server = TestServer::start(move |_, stream| {
        let mut stream = BufReader::new(stream);
        Received::read(&mut stream).unwrap();
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nabc").unwrap();
        sender.lock().unwrap().send(Received::read(&mut stream).is_none()).unwrap();
    });
    let client = client();
    let mut body = client.post(request(&server.url(), "{}")).await.unwrap().body;
    assert_eq!(body.next_chunk().await.unwrap().unwrap(), "abc");
    drop(body);
    assert_eq!(client.inner.reported.idle(), 0);
    assert!(tokio::task::spawn_blocking(move || ended.recv().unwrap()).await.unwrap());
}

#[tokio::test]
async fn idle_connections_are_bounded_and_do_not_wait_for_ever() {
    let server = TestServer::answering(ok("x"));
    let client = client();
    let url = server.url();
    let mut bodies = Vec::new();
    for _ in 0..70 {
        // The connection is on loan until its body has been read.
        bodies.push(client.post(request(&url, "{}")).await.unwrap().body);
    }
    assert_eq!(server.connections(), 70);
    for body in bodies {
        body.collect(10).await.unwrap();
    }
    assert_eq!(client.inner.reported.idle(), 64);

    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(50)).await;
    assert_eq!(client.inner.reported.idle(), 64);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(client.inner.reported.idle(), 0);
}

#[tokio::test]
async fn concurrent_requests_get_their_own_answers() {
    let server = TestServer::start(|_, stream| {
        let mut stream = BufReader::new(stream);
        while let Some(request) = Received::read(&mut stream) {
            let body = String::from_utf8(request.body).unwrap();
            stream.get_mut().write_all(ok(&body).as_bytes()).unwrap();
        }
    });
    let client = client();
    let url = server.url();
    let run = |worker: usize| {
        let (client, url) = (client.clone(), url.clone());
        async move {
            for number in 0..50 {
                let body = format!("{worker}/{number}");
                let request = AgentRequest { body: Bytes::from(body.clone()), ..request(&url, "") };
                let response = client.post(request).await.unwrap();
                assert_eq!(response.body.collect(100).await.unwrap(), body);
            }
        }
    };
    tokio::join!(run(0), run(1), run(2), run(3), run(4), run(5), run(6), run(7));
    assert!(server.connections() <= 8, "{}", server.connections());
}

mod tls {
    use std::sync::Arc;

    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ClientConfig, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

    use super::*;

    struct TlsServer {
        server: TestServer,
        client: ClientConfig,
        names: Arc<Mutex<Vec<Option<String>>>>,
        /// One message per connection that has been closed.
        closed: mpsc::Receiver<()>,
    }

    /// Speaks TLS as `agent.example` and answers each connection `answers` times before it closes.
    fn tls_server(answers: usize) -> TlsServer {
        crate::install_crypto();
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["agent.example".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let config = Arc::new(config);

        let names = Arc::<Mutex<Vec<Option<String>>>>::default();
        let seen = Arc::clone(&names);
        let (sender, closed) = mpsc::channel();
        let sender = Mutex::new(sender);
        let server = TestServer::start(move |_, stream| {
            let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = BufReader::new(StreamOwned::new(tls, stream));
            for _ in 0..answers {
                if Received::read(&mut stream).is_none() {
                    return;
                }
                seen.lock().unwrap().push(stream.get_ref().conn.server_name().map(str::to_owned));
                stream.get_mut().write_all(ok("over TLS").as_bytes()).unwrap();
            }
            stream.get_mut().conn.send_close_notify();
            let _ = stream.get_mut().flush();
            drop(stream);
            let _ = sender.lock().unwrap().send(());
        });

        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        TlsServer { server, client, names, closed }
    }

    fn tls_client(config: ClientConfig) -> AgentClient {
        let (script, _) = Script::new(&[&["127.0.0.1"]]);
        let guard = AgentGuard::with_resolver(DEVELOPMENT, 1, script);
        AgentClient::on(Connector::new(guard).with_tls(config))
    }

    #[tokio::test]
    async fn the_name_is_what_the_certificate_is_checked_against() {
        // 5.R165
        let TlsServer { server, client, names, .. } = tls_server(usize::MAX);
        let client = tls_client(client);
        let port = server.address.port();
        let url: Url = format!("https://agent.example:{port}/").parse().unwrap();
        for _ in 0..3 {
            assert_eq!(text(&client, &url).await.unwrap(), "over TLS");
        }
        assert_eq!(server.connections(), 1);
        assert_eq!(*names.lock().unwrap(), vec![Some("agent.example".to_owned()); 3]);

        let other: Url = format!("https://other.example:{port}/").parse().unwrap();
        assert_eq!(failure(&client, &other).await, DispatchError::Tls);
        let literal: Url = format!("https://127.0.0.1:{port}/").parse().unwrap();
        assert_eq!(failure(&client, &literal).await, DispatchError::Tls);
    }

    #[tokio::test]
    async fn a_failed_handshake_is_its_own_cause() {
        // 4.R59: an unknown authority, and a peer without TLS. Both on the system's trust store.
        let TlsServer { server, .. } = tls_server(1);
        let (client, _) = resolving(DEVELOPMENT, &[&["127.0.0.1"]]);
        let url: Url = format!("https://agent.example:{}/", server.address.port()).parse().unwrap();
        assert_eq!(failure(&client, &url).await, DispatchError::Tls);

        let plain = TestServer::start(|_, mut stream| {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        });
        let url: Url = format!("https://{}/", plain.address).parse().unwrap();
        assert_eq!(failure(&client, &url).await, DispatchError::Tls);
    }

    #[tokio::test]
    async fn a_connection_closed_while_idle_is_replaced() {
        // 4.R51
        let TlsServer { server, client, closed, .. } = tls_server(1);
        let client = tls_client(client);
        let url: Url = format!("https://agent.example:{}/", server.address.port()).parse().unwrap();
        for _ in 0..3 {
            assert_eq!(text(&client, &url).await.unwrap(), "over TLS");
            closed.recv().unwrap();
        }
        assert_eq!(server.connections(), 3);
    }
}

proptest! {
    #[test]
    fn every_url_that_passes_the_guard_can_be_sent(rest in r#"[ -~é\u{1F600}]{0,40}"#) {
        let guard = AgentGuard::new(STRICT, 1);
        if let Ok(url) = Url::parse(&format!("http://1.1.1.1{rest}"))
            && guard.check_literal(&url, Trust::Reported).is_ok()
        {
            let message = message(&url, HeaderMap::new(), Bytes::new());
            prop_assert!(message.is_ok(), "{}", url);
            prop_assert!(HeaderValue::from_str(&url[Position::BeforeHost..Position::AfterPort]).is_ok());
        }
    }
}
