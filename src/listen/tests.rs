//! Connections over real sockets, against a trivial application.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pingora::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::proxy::{ProxyHttp, Session};
use pingora::server::ShutdownWatch;
use pingora::services::Service;
use pingora::upstreams::peer::HttpPeer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::{Acceptor, Address, Config, Connection, Limits, Listeners};
use crate::observe::{ConnectionStats, ProcessStats};
use crate::units::HumanDuration;

/// Answers `/` with 200; `/slow` after 300 ms; `/big` with 300,000 bytes; `/peer` with the peer's address.
struct Hello;

#[async_trait]
impl HttpServerApp for Hello {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        match session.read_request().await {
            Ok(true) => {}
            Ok(false) => return None,
            Err(_) => {
                let _ = session.respond_error(400).await;
                session.shutdown().await;
                return None;
            }
        }
        let connection = Arc::clone(Connection::of(&session)?);
        connection.begin_request();
        let body = match session.req_header().uri.path() {
            "/slow" => {
                tokio::time::sleep(Duration::from_millis(300)).await;
                Bytes::from_static(b"slow")
            }
            "/big" => Bytes::from(vec![b'x'; 300_000]),
            "/peer" => Bytes::copy_from_slice(connection.peer_value().as_bytes()),
            _ => Bytes::from_static(b"hello"),
        };
        if *shutdown.borrow() || connection.is_closing() {
            session.set_keepalive(None);
        }
        let mut head = ResponseHeader::build(200, None).ok()?;
        head.insert_header("content-length", body.len()).ok()?;
        session.write_response_header(Box::new(head)).await.ok()?;
        session.write_response_body(body, true).await.ok()?;
        let persistent = HttpPersistentSettings::for_session(&session);
        let stream = session.finish().await.ok()??;
        Some(ReusedHttpStream::from_reusable_stream(stream, persistent))
    }
}

struct Edge {
    listeners: Arc<Listeners>,
    stats: Arc<ProcessStats>,
    run: tokio::task::JoinHandle<()>,
}

impl Edge {
    fn start(configs: &[Config], limits: Limits) -> Self {
        Self::serving(Arc::new(Hello), configs, limits)
    }

    fn serving<P: HttpServerApp + Send + Sync + 'static>(app: Arc<P>, configs: &[Config], limits: Limits) -> Self {
        let stats = Arc::new(ProcessStats::default());
        let listeners = Listeners::new(limits, Arc::clone(&stats));
        listeners.reconcile(configs).unwrap();
        let acceptor = Acceptor::new("edge-0", 1, app, Arc::clone(&listeners));
        let run = tokio::spawn(async move { acceptor.run().await });
        Self { listeners, stats, run }
    }

    fn quick() -> Self {
        Self::start(&[quick()], Limits::default())
    }

    fn port(&self, position: usize) -> SocketAddr {
        self.listeners.bound()[position].1.unwrap()
    }

    async fn connect(&self) -> Client<TcpStream> {
        Client(TcpStream::connect(self.port(0)).await.unwrap())
    }

    fn counts(&self) -> &ConnectionStats {
        &self.stats.connections
    }
}

/// A listener on a free port with short deadlines: head 300 ms, idle 600 ms.
fn quick() -> Config {
    let mut config = Config::at("127.0.0.1:0".parse().unwrap());
    config.timeouts.head = millis(300);
    config.timeouts.idle = millis(600);
    config
}

fn millis(millis: u64) -> HumanDuration {
    HumanDuration(Duration::from_millis(millis))
}

struct Client<S>(S);

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

impl<S: AsyncReadExt + AsyncWriteExt + Unpin> Client<S> {
    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads one response with a Content-Length: its head and its body.
    async fn response(&mut self) -> (String, Vec<u8>) {
        within(async {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(self.0.read_u8().await.expect("a response"));
            }
            let head = String::from_utf8(head).unwrap();
            let length =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            let mut body = vec![0; length.unwrap()];
            self.0.read_exact(&mut body).await.unwrap();
            (head, body)
        })
        .await
    }

    async fn get(&mut self, path: &str) -> (String, Vec<u8>) {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        self.response().await
    }

    /// What comes until the end.
    async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        match within(self.0.read_to_end(&mut rest)).await {
            Err(fault) if fault.kind() != io::ErrorKind::ConnectionReset => panic!("{fault}"),
            _ => String::from_utf8_lossy(&rest).into_owned(),
        }
    }
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(5), what).await.expect("in time")
}

async fn until(what: impl Fn() -> bool) {
    within(async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let edge = Edge::quick();
    let mut client = edge.connect().await;
    for _ in 0..3 {
        let (head, body) = client.get("/").await;
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("onnection: keep-alive"), "{head}");
        assert_eq!(body, b"hello");
    }
    assert_eq!(client.get("/big").await.1.len(), 300_000);
    assert_eq!(client.get("/peer").await.1, b"127.0.0.1");
    client.send("\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello").await;
    assert!(client.response().await.0.contains("onnection: close"));
    assert_eq!(client.rest().await, "");
    drop(client);
    until(|| edge.counts().open.get() == 0).await;
    assert_eq!((edge.counts().accepted.get(), edge.counts().malformed.get()), (1, 0));
    assert_eq!(edge.counts().idle.get(), 0);
}

#[tokio::test]
async fn a_silent_client_is_cut_off_without_a_word() {
    let edge = Edge::quick();
    let mut client = edge.connect().await;
    assert_eq!(client.rest().await, "");
    assert_eq!(edge.counts().head_timeout.get(), 1);
}

#[tokio::test]
async fn a_trickling_head_is_answered_with_408() {
    let edge = Edge::quick();
    let (mut read, mut write) = TcpStream::connect(edge.port(0)).await.unwrap().into_split();
    let trickle = tokio::spawn(async move {
        for byte in GET.bytes().cycle().filter(|b| *b != b'\n') {
            if write.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut reply = vec![0; 256];
    let count = within(read.read(&mut reply)).await.unwrap();
    assert!(reply[..count].starts_with(b"HTTP/1.1 408 "));
    assert_eq!(edge.counts().head_timeout.get(), 1);
    trickle.abort();
}

#[tokio::test]
async fn a_head_that_comes_in_pieces_is_read() {
    let edge = Edge::quick();
    let mut client = edge.connect().await;
    for piece in ["\r\nGET / HT", "TP/1.1\r\nHost: a\r", "\n\r", "\n"] {
        client.send(piece).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(client.response().await.1, b"hello");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_answered_with_431() {
    let edge = Edge::start(&[quick()], Limits { header_size: 2048, ..Limits::default() });
    let mut client = edge.connect().await;
    client.send(&format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(100_000))).await;
    assert!(client.rest().await.starts_with("HTTP/1.1 431 "));
    assert_eq!(edge.counts().head_too_large.get(), 1);
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let edge = Edge::quick();
    let mut client = edge.connect().await;
    client.get("/").await;
    until(|| edge.counts().idle.get() == 1).await;
    let begun = std::time::Instant::now();
    assert_eq!(client.rest().await, "");
    assert!(begun.elapsed() > Duration::from_millis(500));
    assert_eq!((edge.counts().idle_timeout.get(), edge.counts().idle.get()), (1, 0));
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_counted() {
    let edge = Edge::quick();
    for (text, told) in [
        ("\x16\x03\x01\x02\0", "HTTP/1.1 400 "),
        ("GET / HTTP/1.1\r\nA b\r\n\r\n", "HTTP/1.1 400 "),
        ("GET / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", "HTTP/1.1 400 "),
    ] {
        let before = edge.counts().malformed.get();
        let mut client = edge.connect().await;
        client.send(text).await;
        let reply = client.rest().await;
        assert!(reply.starts_with(told), "{text:?}: {reply}");
        until(|| edge.counts().malformed.get() == before + 1).await;
    }
}

#[tokio::test]
async fn further_requests_sent_ahead_have_their_turn() {
    let edge = Edge::quick();
    let mut client = edge.connect().await;
    client.send(&format!("{GET}{GET}{GET}")).await;
    for _ in 0..3 {
        assert_eq!(client.response().await.1, b"hello");
    }
}

#[tokio::test]
async fn a_connection_ends_after_its_share_of_requests() {
    let edge = Edge::start(&[quick()], Limits { requests_per_connection: 2, ..Limits::default() });
    let mut client = edge.connect().await;
    assert!(client.get("/").await.0.contains("keep-alive"));
    assert!(client.get("/").await.0.contains("onnection: close"));
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn connections_over_the_limit_are_closed_at_once() {
    let edge = Edge::start(&[quick()], Limits { per_client: 1, ..Limits::default() });
    let mut first = edge.connect().await;
    first.get("/").await;
    assert_eq!(edge.connect().await.rest().await, "");
    edge.listeners.set_limits(Limits { connections: 1, ..Limits::default() });
    assert_eq!(edge.connect().await.rest().await, "");
    assert_eq!((edge.counts().over_client_limit.get(), edge.counts().over_limit.get()), (1, 1));
    edge.listeners.set_limits(Limits::default());
    assert_eq!(edge.connect().await.get("/").await.1, b"hello");
    assert_eq!(first.get("/").await.1, b"hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_come_and_go_while_connections_on_others_live_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.sock");
    let unix = Config::at(Address::Unix(path.clone()));
    let stays = quick();
    let edge = Edge::start(&[stays.clone(), unix.clone()], Limits::default());
    let kept_port = edge.port(0);
    let mut stayer = edge.connect().await;
    stayer.get("/").await;
    let mut idle = Client(UnixStream::connect(&path).await.unwrap());
    assert_eq!(idle.get("/peer").await.1, b"unknown");
    let mut busy = Client(UnixStream::connect(&path).await.unwrap());
    busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    tokio::time::sleep(Duration::from_millis(50)).await;

    let comes = Config::at("127.0.0.1:0".parse().unwrap());
    edge.listeners.reconcile(&[stays.clone(), comes]).unwrap();
    assert_eq!(idle.rest().await, "");
    let (head, body) = busy.response().await;
    assert!(head.contains("onnection: close"), "{head}");
    assert_eq!(body, b"slow");
    assert_eq!(busy.rest().await, "");
    assert!(!path.exists());
    assert_eq!(edge.port(0), kept_port);
    assert_eq!(stayer.get("/").await.1, b"hello");
    let mut newcomer = Client(TcpStream::connect(edge.port(1)).await.unwrap());
    assert_eq!(newcomer.get("/").await.1, b"hello");

    // Away and back at once, with the very same port.
    let same = Config::at(Address::Inet(edge.port(1)));
    edge.listeners.reconcile(&[stays.clone(), same.clone()]).expect_err("the port is still in use");
    edge.listeners.reconcile(std::slice::from_ref(&stays)).unwrap();
    edge.listeners.reconcile(&[stays, same]).unwrap();
    assert_eq!(Client(TcpStream::connect(edge.port(1)).await.unwrap()).get("/").await.1, b"hello");
}

#[tokio::test]
async fn a_change_that_fails_changes_nothing() {
    let edge = Edge::quick();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new.sock");
    let mut wanted = quick();
    wanted.address.0.push(Address::Unix(path.clone()));
    wanted.address.0.push(Address::Inet(taken.local_addr().unwrap()));
    let Err(faults) = edge.listeners.prepare(&[wanted]) else { panic!("prepared") };
    assert_eq!((faults[0].listener, faults[0].address), (0, 2));
    assert!(faults[0].message.contains("another process listens there"), "{faults:?}");
    assert!(!path.exists());
    assert_eq!(edge.connect().await.get("/").await.1, b"hello");
}

#[tokio::test]
async fn a_drain_lets_requests_finish_and_closes_the_rest() {
    let edge = Edge::quick();
    let mut idle = edge.connect().await;
    idle.get("/").await;
    let mut busy = edge.connect().await;
    busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until(|| edge.listeners.open_connections() == 2 && edge.counts().idle.get() == 1).await;
    tokio::time::sleep(Duration::from_millis(20)).await;

    let port = edge.port(0);
    edge.listeners.drain();
    assert_eq!(idle.rest().await, "");
    assert_eq!(edge.listeners.drained(Duration::from_millis(10)).await, 1);
    let (head, _) = busy.response().await;
    assert!(head.contains("onnection: close"), "{head}");
    assert_eq!(edge.listeners.drained(Duration::from_secs(5)).await, 0);
    within(edge.run).await.unwrap();
    assert!(TcpStream::connect(port).await.is_err());
}

async fn http2(
    address: SocketAddr,
) -> (h2::client::SendRequest<Bytes>, tokio::task::JoinHandle<Result<(), h2::Error>>) {
    let tcp = TcpStream::connect(address).await.unwrap();
    let (send, connection) = h2::client::handshake(tcp).await.unwrap();
    (send, tokio::spawn(connection))
}

async fn http2_get(send: &mut h2::client::SendRequest<Bytes>, path: &str) -> Result<Vec<u8>, h2::Error> {
    let request = http::Request::get(format!("http://a{path}")).body(()).unwrap();
    let mut ready = within(send.clone().ready()).await?;
    let (response, _) = ready.send_request(request, true)?;
    let mut body = within(response).await?.into_body();
    let mut all = Vec::new();
    while let Some(chunk) = within(body.data()).await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

#[tokio::test]
async fn http2_is_spoken_without_tls() {
    let edge = Edge::quick();
    let (mut send, connection) = http2(edge.port(0)).await;
    assert_eq!(http2_get(&mut send, "/peer").await.unwrap(), b"127.0.0.1");
    assert_eq!(http2_get(&mut send, "/big").await.unwrap().len(), 300_000);
    // Longer than the head's deadline, which holds for the first request only; shorter than the idle deadline.
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(http2_get(&mut send, "/").await.unwrap(), b"hello");
    // Idle: GOAWAY, and the connection ends in good order.
    within(connection).await.unwrap().unwrap();
    assert_eq!(edge.counts().idle_timeout.get(), 1);
    until(|| edge.counts().open.get() == 0).await;
}

#[tokio::test]
async fn http2_without_a_request_is_cut_off() {
    let edge = Edge::quick();
    let mut client = edge.connect().await;
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    client.rest().await;
    assert_eq!(edge.counts().head_timeout.get(), 1);
    // Half a preface is a head that does not come.
    let mut client = edge.connect().await;
    client.send("PRI * HTTP/2.0\r\n\r\n").await;
    assert!(client.rest().await.starts_with("HTTP/1.1 408 "));
}

#[tokio::test]
async fn http2_ends_after_its_share_of_requests() {
    let edge = Edge::start(&[quick()], Limits { requests_per_connection: 2, ..Limits::default() });
    let (mut send, connection) = http2(edge.port(0)).await;
    http2_get(&mut send, "/").await.unwrap();
    http2_get(&mut send, "/").await.unwrap();
    within(connection).await.unwrap().unwrap();
    assert!(http2_get(&mut send, "/").await.is_err());
}

#[tokio::test]
async fn a_drain_ends_http2_after_its_streams() {
    let edge = Edge::quick();
    let (mut send, connection) = http2(edge.port(0)).await;
    let slow = tokio::spawn(async move { http2_get(&mut send, "/slow").await });
    until(|| edge.listeners.open_connections() == 1).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    edge.listeners.drain();
    assert_eq!(within(slow).await.unwrap().unwrap(), b"slow");
    within(connection).await.unwrap().unwrap();
    assert_eq!(edge.listeners.drained(Duration::from_secs(5)).await, 0);
}

#[tokio::test]
async fn http2_may_be_forbidden() {
    let mut config = quick();
    config.http2 = false;
    let edge = Edge::start(&[config], Limits::default());
    let mut client = edge.connect().await;
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(client.rest().await.starts_with("HTTP/1.1 400 "));
}

#[test]
fn workers_on_threads_of_their_own_share_the_listeners() {
    let stats = Arc::new(ProcessStats::default());
    let listeners = Listeners::new(Limits::default(), Arc::clone(&stats));
    listeners.reconcile(&[quick()]).unwrap();
    let (shutdown, told) = tokio::sync::watch::channel(false);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let workers: Vec<_> = Acceptor::per_thread(2, &Arc::new(Hello), &listeners)
        .into_iter()
        .map(|mut acceptor| {
            assert_eq!(acceptor.threads(), Some(1));
            let told = told.clone();
            std::thread::spawn(move || {
                runtime().block_on(async move {
                    acceptor.start_service(None, told, 1).await;
                    acceptor.listeners().drained(Duration::from_secs(5)).await
                })
            })
        })
        .collect();
    runtime().block_on(async {
        let address = listeners.bound()[0].1.unwrap();
        let mut clients = Vec::new();
        for _ in 0..50 {
            let mut client = Client(TcpStream::connect(address).await.unwrap());
            assert_eq!(client.get("/").await.1, b"hello");
            clients.push(client);
        }
        until(|| stats.connections.idle.get() == 50).await;
        shutdown.send_replace(true);
        for mut client in clients {
            assert_eq!(client.rest().await, "");
        }
    });
    for worker in workers {
        assert_eq!(worker.join().unwrap(), 0);
    }
}

#[tokio::test]
async fn a_response_that_comes_before_the_whole_request_is_not_lost() {
    let edge = Edge::quick();
    let mut client = edge.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n").await;
    // More than the buffers of both sides hold: while it is sent, the answer is on its way and the server closes.
    let (mut read, mut write) = client.0.into_split();
    let upload = tokio::spawn(async move {
        for _ in 0..300 {
            if write.write_all(&[b'x'; 3000]).await.is_err() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        true
    });
    let mut reply = Vec::new();
    within(read.read_to_end(&mut reply)).await.unwrap();
    assert!(reply.starts_with(b"HTTP/1.1 200 "));
    assert!(within(upload).await.unwrap(), "the connection was reset");
}

/// Passes everything on to one address.
struct Pass(SocketAddr);

#[async_trait]
impl ProxyHttp for Pass {
    type CTX = ();
    fn new_ctx(&self) {}
    async fn request_filter(&self, session: &mut Session, (): &mut ()) -> pingora::Result<bool> {
        Connection::of(session).expect("our connection").begin_request();
        Ok(false)
    }
    async fn upstream_peer(&self, _session: &mut Session, (): &mut ()) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.0, false, String::new())))
    }
}

#[tokio::test]
async fn pingoras_proxy_is_served_as_well() {
    let origin = Edge::quick();
    let proxy = pingora::proxy::http_proxy(&Arc::default(), Pass(origin.port(0)));
    let edge = Edge::serving(Arc::new(proxy), &[quick()], Limits::default());
    let mut client = edge.connect().await;
    for _ in 0..2 {
        assert_eq!(client.get("/").await.1, b"hello");
        assert_eq!(client.get("/big").await.1.len(), 300_000);
    }
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n").await;
    client.send(&"x".repeat(100_000)).await;
    assert_eq!(client.response().await.1, b"hello");
    assert_eq!(client.rest().await, "", "idle");
    assert_eq!(edge.counts().idle_timeout.get(), 1);

    let (mut send, _connection) = http2(edge.port(0)).await;
    assert_eq!(http2_get(&mut send, "/").await.unwrap(), b"hello");

    assert_eq!(edge.counts().malformed.get(), 0);
    let mut client = edge.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").await;
    assert!(client.rest().await.starts_with("HTTP/1.1 400 "));
    until(|| edge.counts().malformed.get() == 1).await;
}

#[test]
fn accepting_goes_on_after_file_descriptors_ran_out() {
    // In a process of its own, with few of them.
    let program = std::env::current_exe().unwrap();
    let test = "listen::tests::file_descriptors_run_out";
    let script = format!("ulimit -n 64; exec '{}' --exact {test} --ignored --nocapture", program.display());
    let done = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test]
#[ignore = "the inner half of accepting_goes_on_after_file_descriptors_ran_out"]
async fn file_descriptors_run_out() {
    let edge = Edge::quick();
    edge.connect().await.get("/").await;
    // It connects by the kernel's hand; the server gets no turn before all descriptors are taken.
    let waits = std::net::TcpStream::connect(edge.port(0)).unwrap();
    waits.set_nonblocking(true).unwrap();
    let mut files = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        files.push(file);
    }
    until(|| edge.counts().accept_errors.get() > 0).await;
    tokio::time::sleep(Duration::from_millis(350)).await;
    let errors = edge.counts().accept_errors.get();
    assert!((2..=6).contains(&errors), "{errors} tries in 350 ms");
    drop(files);
    let mut waits = Client(TcpStream::from_std(waits).unwrap());
    assert_eq!(waits.get("/").await.1, b"hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_listeners_change() {
    let stays = quick();
    let edge = Edge::start(std::slice::from_ref(&stays), Limits::default());
    let port = edge.port(0);
    let clients: Vec<_> = (0..4)
        .map(|n| {
            tokio::spawn(async move {
                let mut client = Client(TcpStream::connect(port).await.unwrap());
                for round in 0..200 {
                    if n % 2 == 0 && round % 10 == 0 {
                        client = Client(TcpStream::connect(port).await.unwrap());
                    }
                    assert_eq!(client.get("/").await.1, b"hello");
                }
            })
        })
        .collect();
    let listeners = Arc::clone(&edge.listeners);
    let dir = tempfile::tempdir().unwrap();
    let mut other = Config::at(Address::Unix(dir.path().join("edge.sock")));
    let changes = tokio::task::spawn_blocking(move || {
        for round in 0..20 {
            other.timeouts.head = millis(300 + round);
            listeners.reconcile(&[other.clone(), stays.clone()]).unwrap();
            listeners.reconcile(std::slice::from_ref(&stays)).unwrap();
        }
    });
    within(changes).await.unwrap();
    for client in clients {
        within(client).await.unwrap();
    }
}

/// Not a test of behaviour: says what an idle keep-alive connection costs. Needs `ulimit -n 8192`.
#[tokio::test]
#[ignore = "a measurement: cargo test --lib listen::tests::an_idle -- --ignored --nocapture"]
async fn an_idle_connection_costs_little() {
    fn resident_kib() -> i64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
    const CONNECTIONS: i64 = 2000;
    let mut config = quick();
    (config.timeouts.head, config.timeouts.idle) = (HumanDuration::secs(30), HumanDuration::secs(60));
    let edge = Edge::start(&[config], Limits { per_client: usize::MAX, ..Limits::default() });
    // What the first connections bring about (tables, thread-locals) is not theirs.
    let mut clients = Vec::with_capacity(4096);
    for _ in 0..200 {
        let mut client = edge.connect().await;
        client.get("/").await;
        // Blocking sockets cost nothing here; those of tokio would be counted too.
        clients.push(client.0.into_std().unwrap());
    }
    let before = resident_kib();
    for _ in 0..CONNECTIONS {
        let mut client = edge.connect().await;
        client.get("/").await;
        clients.push(client.0.into_std().unwrap());
    }
    until(|| edge.counts().idle.get() == clients.len() as i64).await;
    let each = (resident_kib() - before) as f64 / CONNECTIONS as f64;
    println!("{each:.2} KiB per idle connection");
    assert!(each < 20.0, "{each}");
}
