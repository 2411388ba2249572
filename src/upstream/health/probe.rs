//! `Probe`: one check of one server: by a connection, by HTTP, or by the gRPC health protocol.
//!
//! Each check makes a connection of its own: a server that takes no new ones is not well, however good those are that it
//! has. One time limit binds all of it, so a server that trickles is not well either.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, TE, USER_AGENT};
use http::{Method, StatusCode};
use pingora::http::RequestHeader;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::upstreams::peer::HttpPeer;
use regex::bytes::Regex;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::http_client::{AGENT, Answer, HttpClient, Limits};
use crate::units::{HumanDuration, StatusRange};
use crate::upstream::peer::set_apart;

/// The largest body of an answer.
const MAX_BODY: usize = 1024 * 1024;

/// One check, ready to be made of any server of an upstream.
#[derive(Debug)]
pub struct Probe {
    /// How it is made.
    pub kind: Kind,
    /// How long it may take.
    pub timeout: Duration,
    /// At which port, if not at the server's own.
    pub port: Option<u16>,
}

/// How a server is asked.
#[derive(Debug)]
pub enum Kind {
    /// It is connected to, no more.
    Tcp,
    /// By an HTTP/1.1 request.
    Http(Box<HttpProbe>),
    /// By the gRPC health protocol, for the service of this name.
    Grpc(Box<str>),
}

/// What is asked for by HTTP, and which answers are a success.
#[derive(Debug)]
pub struct HttpProbe {
    /// The request, without its `Host`.
    pub head: RequestHeader,
    /// The `Host`; `None`: the server's own.
    pub host: Option<HeaderValue>,
    /// Which statuses are a success.
    pub statuses: Box<[StatusRange]>,
    /// What must be found in the body.
    pub body: Option<Regex>,
}

impl Probe {
    /// Checks the server that `peer` leads to and whose own name is `authority`; else tells in one clause what is wrong.
    pub async fn run(&self, client: &HttpClient, mut peer: HttpPeer, authority: &HeaderValue) -> Result<(), String> {
        let moved = self.port.and_then(|port| at_port(&mut peer, authority, port));
        let authority = moved.as_ref().unwrap_or(authority);
        match &self.kind {
            Kind::Tcp => self.connect(&peer._address).await,
            Kind::Http(check) => {
                let mut head = check.head.clone();
                let host = check.host.as_ref().unwrap_or(authority);
                head.insert_header(HOST, host.clone()).map_err(|_| NO_REQUEST.to_owned())?;
                let sends_body = [Method::POST, Method::PUT, Method::PATCH].contains(&head.method);
                let answer = self.ask(client, peer, head, sends_body.then(Bytes::new)).await?;
                check.judge(&answer)
            }
            Kind::Grpc(service) => {
                peer.options.set_http_version(2, 2);
                let head = grpc_head(authority).map_err(|_| NO_REQUEST.to_owned())?;
                let answer = self.ask(client, peer, head, Some(grpc_question(service))).await?;
                grpc_judge(&answer)
            }
        }
    }

    async fn connect(&self, address: &SocketAddr) -> Result<(), String> {
        let connected = async {
            match address {
                SocketAddr::Inet(address) => TcpStream::connect(address).await.map(drop),
                SocketAddr::Unix(address) => match address.as_pathname() {
                    Some(path) => UnixStream::connect(path).await.map(drop),
                    None => Ok(()),
                },
            }
        };
        match timeout(self.timeout, connected).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => Err("connection refused".into()),
            Ok(Err(error)) => Err(format!("connecting failed: {}", plain(&error.to_string()))),
            Err(_) => Err(format!("connecting took longer than {}", HumanDuration(self.timeout))),
        }
    }

    async fn ask(
        &self,
        client: &HttpClient,
        mut peer: HttpPeer,
        head: RequestHeader,
        body: Option<Bytes>,
    ) -> Result<Answer, String> {
        let options = &mut peer.options;
        (options.connection_timeout, options.total_connection_timeout) = (None, None);
        (options.read_timeout, options.write_timeout) = (None, None);
        // Not one of those that the limit is for: it neither waits for a place nor takes one.
        (options.tracer, options.custom_l4) = (None, None);
        set_apart(&mut peer);
        let limits = Limits { total: self.timeout, max_body: MAX_BODY };
        client.send(&peer, head, body, limits).await.map_err(|fault| fault.to_string())
    }
}

const NO_REQUEST: &str = "no request can be made for it";

/// `Connection reset by peer (os error 104)` as a clause without its number.
fn plain(text: &str) -> String {
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// Leads the peer to another port of the same host; tells the name of that. A Unix socket has none.
fn at_port(peer: &mut HttpPeer, authority: &HeaderValue, port: u16) -> Option<HeaderValue> {
    let SocketAddr::Inet(address) = &mut peer._address else { return None };
    address.set_port(port);
    let text = authority.to_str().ok()?;
    let host = match text.rsplit_once(':') {
        Some((host, digits)) if digits.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => text,
    };
    HeaderValue::try_from(format!("{host}:{port}")).ok()
}

impl HttpProbe {
    fn judge(&self, answer: &Answer) -> Result<(), String> {
        let status = answer.head.status;
        if !self.statuses.iter().any(|range| range.contains(status)) {
            return Err(format!("the answer has status {}", status.as_u16()));
        }
        match &self.body {
            Some(body) if !body.is_match(&answer.body) => Err(format!("`{body}` is not found in the body")),
            _ => Ok(()),
        }
    }
}

fn grpc_head(authority: &HeaderValue) -> pingora::Result<RequestHeader> {
    let mut head = RequestHeader::build(Method::POST, b"/grpc.health.v1.Health/Check", Some(4))?;
    head.insert_header(HOST, authority.clone())?;
    head.insert_header(CONTENT_TYPE, "application/grpc")?;
    head.insert_header(TE, "trailers")?;
    head.insert_header(USER_AGENT, AGENT)?;
    Ok(head)
}

/// `HealthCheckRequest { string service = 1; }` as one message of gRPC: not compressed, its length, itself.
fn grpc_question(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(1 << 3 | LENGTH_DELIMITED);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(length as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0], &length.to_be_bytes()[..], &message].concat().into()
}

const VARINT: u8 = 0;
const FIXED_64: u8 = 1;
const LENGTH_DELIMITED: u8 = 2;
const FIXED_32: u8 = 5;

/// What a `HealthCheckResponse` can say of a service.
const SERVING_STATUS: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];

fn grpc_judge(answer: &Answer) -> Result<(), String> {
    if answer.head.status != StatusCode::OK {
        return Err(format!("the answer has status {}", answer.head.status.as_u16()));
    }
    // Without a message, the head is the trailers, too.
    let trailers = answer.trailers.as_ref().unwrap_or(&answer.head.headers);
    let field = |fields: &HeaderMap, name: &'static str| {
        fields.get(HeaderName::from_static(name)).and_then(|value| Some(value.to_str().ok()?.to_owned()))
    };
    match field(trailers, "grpc-status").as_deref() {
        Some("0") => {}
        None => return Err("the answer has no grpc-status".to_owned()),
        Some(code) => {
            let message = field(trailers, "grpc-message").filter(|message| !message.is_empty());
            return Err(match message {
                Some(message) => format!("the answer has grpc-status {code}: {message}"),
                None => format!("the answer has grpc-status {code}"),
            });
        }
    }
    let Some(status) = grpc_message(&answer.body).and_then(serving_status) else {
        return Err("the answer is no HealthCheckResponse".to_owned());
    };
    match usize::try_from(status).ok().and_then(|status| SERVING_STATUS.get(status)) {
        Some(&"SERVING") => Ok(()),
        Some(word) => Err(format!("the service says {word}")),
        None => Err(format!("the service says {status}")),
    }
}

/// The one message of a body, not compressed.
fn grpc_message(body: &[u8]) -> Option<&[u8]> {
    let (prefix, message) = body.split_at_checked(5)?;
    let length = u32::from_be_bytes(prefix[1..].try_into().ok()?);
    (prefix[0] == 0 && length as usize == message.len()).then_some(message)
}

/// `HealthCheckResponse { ServingStatus status = 1; }`: the last `status` counts, fields not known are passed over.
fn serving_status(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        match ((tag & 7) as u8, tag >> 3) {
            (VARINT, field) => {
                let value = varint(&mut message)?;
                if field == 1 {
                    status = value;
                }
            }
            (FIXED_64, _) => message = message.get(8..)?,
            (FIXED_32, _) => message = message.get(4..)?,
            (LENGTH_DELIMITED, _) => {
                let length = varint(&mut message)?;
                message = message.get(usize::try_from(length).ok()?..)?;
            }
            _ => return None,
        }
    }
    Some(status)
}

/// Takes a number of seven bits a byte, the lowest first.
fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = message.split_first()?;
        *message = rest;
        number |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use pingora::http::ResponseHeader;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, UnixListener};

    use super::*;
    use crate::diag::Issues;
    use crate::upstream::health::config::Config;

    fn probe(active: &str) -> Probe {
        let config: Config = serde_yaml::from_str(&format!("active: {active}")).unwrap();
        let issues = Issues::default();
        let checks = config.active.unwrap().build(false, &issues.root()).unwrap();
        assert_eq!(issues.into_vec(), []);
        checks.probe
    }

    async fn run(active: &str, peer: HttpPeer) -> Result<(), String> {
        // One for all tests: making it takes a while.
        static CLIENT: LazyLock<HttpClient> = LazyLock::new(HttpClient::new);
        probe(active).run(&CLIENT, peer, &HeaderValue::from_static("app.test:80")).await
    }

    /// A server that answers each connection's first bytes with these, then closes; with `{request}`, with what it read.
    async fn server(answer: &'static str) -> HttpPeer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 4096];
                let length = stream.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..length]).into_owned();
                let _ = stream.write_all(answer.replace("{request}", &request).as_bytes()).await;
            }
        });
        HttpPeer::new(address, false, String::new())
    }

    #[tokio::test]
    async fn an_answer_is_judged_by_its_status_and_body() {
        const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"status\":\"ok\"}";
        const BUSY: &str = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
        const EMPTY: &str = "HTTP/1.1 204 No Content\r\n\r\n";
        for (answer, active, expected) in [
            (OK, "/healthz", Ok(())),
            (OK, "{ http: /healthz }", Ok(())),
            (OK, "{ http: { path: /healthz, body: '\"ok\"' } }", Ok(())),
            (OK, "{ http: { body: '\"bad\"' } }", Err("`\"bad\"` is not found in the body")),
            (OK, "{ http: { status: 204 } }", Err("the answer has status 200")),
            (BUSY, "/healthz", Err("the answer has status 503")),
            (BUSY, "{ http: { status: [2xx, 503] } }", Ok(())),
            (EMPTY, "{ http: { method: HEAD } }", Ok(())),
            ("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", "/healthz", Ok(())),
            ("", "/healthz", Err("the connection was closed before the end of a response")),
            (OK, "{ tcp: true }", Ok(())),
            ("", "{ tcp: true }", Ok(())),
        ] {
            let done = run(active, server(answer).await).await;
            assert_eq!(done, expected.map_err(str::to_owned), "{active} of {answer}");
        }
    }

    #[tokio::test]
    async fn what_is_asked_for_is_what_was_written() {
        const ECHO: &str = "HTTP/1.1 200 OK\r\n\r\n{request}";
        for (active, found) in [
            ("{ http: { path: '/h?x=1', body: '^GET /h\\?x=1 HTTP/1.1\\r\\n' } }", Ok(())),
            ("{ http: { body: '(?i)\\r\\nhost: app.test:80\\r\\n' } }", Ok(())),
            ("{ http: { host: health.test, body: '(?i)\\r\\nhost: health.test\\r\\n' } }", Ok(())),
            ("{ http: { headers: { X-Probe: a }, body: '(?i)\\r\\nx-probe: a\\r\\n' } }", Ok(())),
            ("{ http: { headers: { User-Agent: me }, body: '(?i)\\r\\nuser-agent: me\\r\\n' } }", Ok(())),
            ("{ http: { body: '(?i)\\r\\nuser-agent: edgeway/' } }", Ok(())),
            ("{ http: { body: '(?i)\\r\\nconnection: close\\r\\n' } }", Ok(())),
            ("{ http: { method: POST, body: '(?i)\\r\\ncontent-length: 0\\r\\n' } }", Ok(())),
        ] {
            assert_eq!(run(active, server(ECHO).await).await, found, "{active}");
        }
    }

    #[tokio::test]
    async fn another_port_is_checked_and_named() {
        let peer = server("HTTP/1.1 200 OK\r\n\r\n{request}").await;
        let SocketAddr::Inet(address) = peer._address else { panic!("a TCP address") };
        let elsewhere = HttpPeer::new(("127.0.0.1", 1), false, String::new());
        let port = address.port();
        let active = format!("{{ http: {{ body: '(?i)host: app.test:{port}\\r\\n' }}, port: {port} }}");
        assert_eq!(run(&active, elsewhere.clone()).await, Ok(()));
        assert_eq!(run(&format!("{{ tcp: true, port: {port} }}"), elsewhere.clone()).await, Ok(()));
        let mut peer = elsewhere;
        for (authority, moved) in
            [("[::1]:80", "[::1]:7"), ("[::1]", "[::1]:7"), ("app", "app:7"), ("1.2.3.4:5", "1.2.3.4:7")]
        {
            assert_eq!(at_port(&mut peer, &HeaderValue::from_static(authority), 7).unwrap(), moved);
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_or_hangs_fails_with_a_reason() {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
        let refusing = HttpPeer::new(socket.local_addr().unwrap().as_socket().unwrap(), false, String::new());
        for active in ["{ tcp: true }", "/healthz", "{ grpc: '' }"] {
            let refused = run(active, refusing.clone()).await;
            assert_eq!(refused, Err("connection refused".to_owned()), "{active}");
        }
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = HttpPeer::new(silent.local_addr().unwrap(), false, String::new());
        for active in ["{ http: /healthz, timeout: 50ms }", "{ grpc: '', timeout: 50ms }"] {
            let hung = run(active, silent.clone()).await;
            assert!(hung.is_err(), "{active}: {hung:?}");
        }
    }

    #[tokio::test]
    async fn a_unix_socket_is_connected_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.sock");
        let peer = HttpPeer::new_uds(path.to_str().unwrap(), false, String::new()).unwrap();
        let missing = run("{ tcp: true }", peer.clone()).await.unwrap_err();
        assert_eq!(missing, "connecting failed: no such file or directory");
        let _listener = UnixListener::bind(&path).unwrap();
        assert_eq!(run("{ tcp: true }", peer).await, Ok(()));
    }

    fn grpc_answer(status: u16, body: &[u8], fields: &[(&'static str, &'static str)]) -> Answer {
        let trailers =
            fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let head = ResponseHeader::build(status, None).unwrap();
        Answer { head, body: Bytes::copy_from_slice(body), trailers: Some(trailers.collect()) }
    }

    #[test]
    fn a_grpc_answer_is_judged_by_its_status_and_message() {
        const DONE: &[(&str, &str)] = &[("grpc-status", "0")];
        for (answer, expected) in [
            (grpc_answer(200, &[0, 0, 0, 0, 2, 8, 1], DONE), Ok(())),
            (grpc_answer(200, &[0, 0, 0, 0, 2, 8, 2], DONE), Err("the service says NOT_SERVING")),
            (grpc_answer(200, &[0, 0, 0, 0, 2, 8, 3], DONE), Err("the service says SERVICE_UNKNOWN")),
            (grpc_answer(200, &[0, 0, 0, 0, 0], DONE), Err("the service says UNKNOWN")),
            (grpc_answer(200, &[0, 0, 0, 0, 2, 8, 9], DONE), Err("the service says 9")),
            (grpc_answer(200, &[0, 0, 0, 0, 2, 8], DONE), Err("the answer is no HealthCheckResponse")),
            (grpc_answer(200, &[1, 0, 0, 0, 2, 8, 1], DONE), Err("the answer is no HealthCheckResponse")),
            (grpc_answer(200, &[], DONE), Err("the answer is no HealthCheckResponse")),
            (grpc_answer(200, &[], &[]), Err("the answer has no grpc-status")),
            (grpc_answer(404, &[], DONE), Err("the answer has status 404")),
            (grpc_answer(200, &[], &[("grpc-status", "12")]), Err("the answer has grpc-status 12")),
            (
                grpc_answer(200, &[], &[("grpc-status", "5"), ("grpc-message", "unknown service")]),
                Err("the answer has grpc-status 5: unknown service"),
            ),
        ] {
            assert_eq!(grpc_judge(&answer), expected.map_err(str::to_owned), "{answer:?}");
        }
    }

    #[test]
    fn a_grpc_answer_of_a_head_alone_has_its_status_there() {
        let mut head = ResponseHeader::build(200, None).unwrap();
        head.insert_header("grpc-status", "12").unwrap();
        let answer = Answer { head, body: Bytes::new(), trailers: None };
        assert_eq!(grpc_judge(&answer), Err("the answer has grpc-status 12".to_owned()));
    }

    #[test]
    fn a_message_is_read_past_fields_that_are_not_known() {
        for (message, status) in [
            (&[][..], Some(0)),
            (&[8, 1], Some(1)),
            (&[8, 2, 8, 1], Some(1)),
            (&[0x12, 2, b'h', b'i', 8, 1], Some(1)),
            (&[0x19, 0, 0, 0, 0, 0, 0, 0, 0, 8, 1], Some(1)),
            (&[0x25, 0, 0, 0, 0, 8, 1], Some(1)),
            (&[8, 0x81, 0x80, 0x00], Some(1)),
            (&[0x12, 9, b'h'], None),
            (&[0x0b], None),
            (&[8], None),
            (&[8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], None),
        ] {
            assert_eq!(serving_status(message), status, "{message:?}");
        }
    }

    #[test]
    fn a_question_names_its_service() {
        assert_eq!(grpc_question("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(grpc_question("a.B")[..], [0, 0, 0, 0, 5, 0x0a, 3, b'a', b'.', b'B']);
        let long = grpc_question(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 0x2f, 0x0a, 0xac, 0x02]);
        assert_eq!(long.len(), 5 + 303);
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = grpc_judge(&grpc_answer(200, &body, &[("grpc-status", "0")]));
            let _ = serving_status(&body);
        }
    }
}
