//! `HttpClient`: the client for requests that the gateway makes of its own accord: health checks, discovery, copies.
//!
//! One deadline binds all of a request, from looking the name up to the last byte of the body, and one bound the size of
//! the answer: a server that trickles or pours can hold nobody. Pingora's connector below has neither. It follows no
//! redirects and keeps no cookies.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING, USER_AGENT};
use http::uri::{Authority, PathAndQuery};
use http::{Method, StatusCode, Uri};
use pingora::connectors::http::Connector;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use crate::units::{ByteSize, HumanDuration};

/// What the gateway calls itself where it asks of its own accord.
pub const AGENT: &str = concat!("edgeway/", env!("CARGO_PKG_VERSION"));

/// How long a connection is kept for a further request when its peer does not say.
const IDLE: Duration = Duration::from_secs(30);

/// Sends requests of the gateway's own. One for the process will do: it keeps connections.
#[derive(Default)]
pub struct HttpClient {
    /// Made with the first request: it reads the system's certificates, which most gateways never need a second time.
    connector: OnceCell<Connector>,
}

/// What bounds one request.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long all of it may take.
    pub total: Duration,
    /// The largest body of an answer that is taken, in bytes.
    pub max_body: usize,
}

/// A whole response.
#[derive(Debug)]
pub struct Answer {
    /// Its head.
    pub head: ResponseHeader,
    /// Its body.
    pub body: Bytes,
    /// The fields after its body, which only HTTP/2 tells.
    pub trailers: Option<HeaderMap>,
}

/// At which step a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The URL cannot be asked.
    Url,
    /// No address for the name.
    Lookup,
    /// No connection to the server.
    Connect,
    /// No whole answer.
    Exchange,
}

/// Why there is no answer: prints as one clause without a full stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// At which step.
    pub step: Step,
    text: String,
}

impl HttpClient {
    /// A client without a connection yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends one request to `peer`. The head has a `Host`; what it says of the body's length is set here. With an
    /// `idle_timeout` of zero among the peer's options, the connection is not kept.
    pub async fn send(
        &self,
        peer: &HttpPeer,
        head: RequestHeader,
        body: Option<Bytes>,
        limits: Limits,
    ) -> Result<Answer, Fault> {
        let connector = self.connector().await?;
        let request = Request::new(head, body, limits)?;
        request.exchange(connector, peer).await
    }

    /// Sends one request to `peer`, and reads the body of the answer only to forget it. One with more than the limits let be
    /// is left unread, and its connection closed.
    pub async fn deliver(
        &self,
        peer: &HttpPeer,
        head: RequestHeader,
        body: Option<Bytes>,
        limits: Limits,
    ) -> Result<ResponseHeader, Fault> {
        let connector = self.connector().await?;
        let request = Request { forgets: true, ..Request::new(head, body, limits)? };
        Ok(request.exchange(connector, peer).await?.head)
    }

    /// Asks for `url`, http or https. Looks the name up without blocking the thread, and tries one address after the
    /// other.
    pub async fn get(&self, url: &str, headers: &[(HeaderName, HeaderValue)], limits: Limits) -> Result<Answer, Fault> {
        let url: Url = url.parse().map_err(|text| Fault { step: Step::Url, text })?;
        let connector = self.connector().await?;
        let request = Request::new(url.head(headers)?, None, limits)?;
        let addresses = request.in_time(Step::Lookup, url.addresses()).await??;
        let mut failed = Fault::new(Step::Lookup, "the name has no address");
        for (index, address) in addresses.iter().enumerate() {
            let mut peer = HttpPeer::new(*address, url.tls, url.host().to_owned());
            // Each address gets its share of the time that is left, or the first silent one would have it all.
            let left = request.deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
            peer.options.connection_timeout = Some(share);
            peer.options.total_connection_timeout = Some(share);
            match request.exchange(connector, &peer).await {
                Err(fault) if fault.step == Step::Connect => failed = fault,
                done => return done,
            }
        }
        Err(failed)
    }

    /// The connections. Making them reads the system's certificates from files, which no request's time is spent on.
    async fn connector(&self) -> Result<&Connector, Fault> {
        let make = || async { spawn_blocking(|| Connector::new(None)).await };
        let made = self.connector.get_or_try_init(make).await;
        made.map_err(|_| Fault::new(Step::Connect, "the system's certificates cannot be read"))
    }
}

/// One request, ready to be sent, with its end in sight.
struct Request {
    head: RequestHeader,
    body: Option<Bytes>,
    limits: Limits,
    deadline: Instant,
    /// Whether nobody wants the body of the answer.
    forgets: bool,
}

impl Request {
    fn new(mut head: RequestHeader, body: Option<Bytes>, limits: Limits) -> Result<Self, Fault> {
        head.remove_header(&TRANSFER_ENCODING);
        head.remove_header(&CONTENT_LENGTH);
        if let Some(body) = &body {
            let length = head.insert_header(CONTENT_LENGTH, body.len());
            length.map_err(|_| Fault::new(Step::Url, "the request cannot be written"))?;
        }
        Ok(Self { head, body, limits, deadline: Instant::now() + limits.total, forgets: false })
    }

    /// Sends it to `peer`, on a kept connection where there is one.
    async fn exchange(&self, connector: &Connector, peer: &HttpPeer) -> Result<Answer, Fault> {
        loop {
            let connecting = connector.get_http_session(peer);
            let (mut session, reused) =
                self.in_time(Step::Connect, connecting).await?.map_err(|error| Fault::connecting(&error))?;
            match self.in_time(Step::Exchange, self.over(&mut session)).await? {
                Ok((answer, whole)) => {
                    let idle = peer.options.idle_timeout.unwrap_or(IDLE);
                    if whole && !idle.is_zero() {
                        // What cannot be kept is closed here, which may take as long as the server likes.
                        let _ =
                            timeout_at(self.deadline, connector.release_http_session(session, peer, Some(idle))).await;
                    }
                    return Ok(answer);
                }
                // A kept connection that the server had closed meanwhile: each turn takes one out of the pool.
                Err(_) if reused && self.may_repeat() && session.response_header().is_none() => {}
                Err(fault) => return Err(fault),
            }
        }
    }

    /// What this future gives, if it does before the deadline.
    async fn in_time<T>(&self, step: Step, future: impl Future<Output = T>) -> Result<T, Fault> {
        timeout_at(self.deadline, future).await.map_err(|_| {
            let total = HumanDuration(self.limits.total);
            let text = match step {
                Step::Lookup => format!("looking the name up took longer than {total}"),
                Step::Connect => format!("connecting took longer than {total}"),
                Step::Url | Step::Exchange => format!("no whole response within {total}"),
            };
            Fault { step, text }
        })
    }

    /// Whether sending it twice does what sending it once does (RFC 9110 9.2.2).
    fn may_repeat(&self) -> bool {
        self.head.method.is_idempotent()
    }

    /// The answer, and whether all of it was read.
    async fn over(&self, session: &mut HttpSession) -> Result<(Answer, bool), Fault> {
        self.write(session).await.map_err(|error| Fault::exchanging(&error))?;
        let head = read_head(session).await?;
        if self.forgets {
            let whole = self.forget_body(session).await?;
            return Ok((Answer { head, body: Bytes::new(), trailers: None }, whole));
        }
        let mut body = BytesMut::new();
        self.check_length(&head)?;
        while let Some(piece) = session.read_response_body().await.map_err(|error| Fault::exchanging(&error))? {
            if body.len() + piece.len() > self.limits.max_body {
                let most = ByteSize(self.limits.max_body as u64);
                return Err(Fault::new(Step::Exchange, format!("the response has more than {most}")));
            }
            body.extend_from_slice(&piece);
        }
        let trailers = match session {
            HttpSession::H2(http2) => http2.read_trailers().await.map_err(|error| Fault::exchanging(&error))?,
            HttpSession::H1(_) | HttpSession::Custom(()) => None,
        };
        Ok((Answer { head, body: body.freeze(), trailers }, true))
    }

    /// Reads a body that nobody wants, as far as it may go; true: to its end.
    async fn forget_body(&self, session: &mut HttpSession) -> Result<bool, Fault> {
        let mut left = self.limits.max_body;
        while let Some(piece) = session.read_response_body().await.map_err(|error| Fault::exchanging(&error))? {
            match left.checked_sub(piece.len()) {
                Some(less) => left = less,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    async fn write(&self, session: &mut HttpSession) -> pingora::Result<()> {
        session.write_request_header(Box::new(self.head.clone())).await?;
        if let Some(body) = &self.body {
            session.write_request_body(body.clone(), true).await?;
        }
        session.finish_request_body().await
    }

    /// Refuses a body before the first byte of it, when its length is told.
    fn check_length(&self, head: &ResponseHeader) -> Result<(), Fault> {
        if self.head.method == Method::HEAD || head.status == StatusCode::NOT_MODIFIED {
            return Ok(());
        }
        let told = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        match told {
            Some(length) if length > self.limits.max_body as u64 => {
                let (length, most) = (ByteSize(length), ByteSize(self.limits.max_body as u64));
                Err(Fault::new(Step::Exchange, format!("the response has {length}, more than {most}")))
            }
            _ => Ok(()),
        }
    }
}

/// Reads on until the head is the final one.
async fn read_head(session: &mut HttpSession) -> Result<ResponseHeader, Fault> {
    loop {
        session.read_response_header().await.map_err(|error| Fault::exchanging(&error))?;
        match session.response_header() {
            Some(head) if head.status == StatusCode::SWITCHING_PROTOCOLS => {
                return Err(Fault::new(Step::Exchange, "the server switches to a protocol that nobody asked for"));
            }
            Some(head) if !head.status.is_informational() => return Ok(head.clone()),
            Some(_) => {}
            None => return Err(Fault::new(Step::Exchange, "there is no response")),
        }
    }
}

impl Fault {
    fn new(step: Step, text: impl Into<String>) -> Self {
        Self { step, text: text.into() }
    }

    fn connecting(error: &Error) -> Self {
        let text = match error.etype() {
            ErrorType::ConnectRefused => "connection refused".to_owned(),
            ErrorType::ConnectTimedout => "connecting took too long".to_owned(),
            ErrorType::ConnectNoRoute => "no route to the server".to_owned(),
            ErrorType::TLSHandshakeTimedout => "the TLS handshake took too long".to_owned(),
            ErrorType::TLSHandshakeFailure | ErrorType::InvalidCert | ErrorType::TLSWantX509Lookup => {
                format!("the TLS handshake failed: {}", cause(error))
            }
            ErrorType::HandshakeError | ErrorType::H2Error => format!("no HTTP/2 is spoken there: {}", cause(error)),
            _ => format!("connecting failed: {}", cause(error)),
        };
        Self { step: Step::Connect, text }
    }

    fn exchanging(error: &Error) -> Self {
        let text = match error.etype() {
            ErrorType::ConnectionClosed | ErrorType::Custom("PrematureBodyEnd") => {
                "the connection was closed before the end of a response".to_owned()
            }
            ErrorType::InvalidHTTPHeader | ErrorType::H1Error | ErrorType::Custom("InvalidChunk") => {
                "the response cannot be read as HTTP".to_owned()
            }
            ErrorType::InvalidH2 | ErrorType::H2Error | ErrorType::H2Downgrade => {
                format!("the response cannot be read as HTTP/2: {}", cause(error))
            }
            _ => format!("the connection broke: {}", cause(error)),
        };
        Self { step: Step::Exchange, text }
    }
}

/// The words of whatever began it, as in `connection reset by peer`.
fn cause(error: &Error) -> String {
    let mut last: &(dyn std::error::Error + 'static) = error.root_cause();
    while let Some(deeper) = last.source() {
        last = deeper;
    }
    let text = match last.downcast_ref::<Error>() {
        Some(own) => {
            own.context.as_ref().map_or_else(|| own.etype().as_str().to_owned(), |why| why.as_str().to_owned())
        }
        None => last.to_string(),
    };
    // `Connection reset by peer (os error 104)`: the number tells nobody anything.
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Fault {}

/// A URL that [`HttpClient::get`] can ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    authority: Authority,
    path: PathAndQuery,
    tls: bool,
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = |why: &str| format!("`{text}` {why}");
        let parts = text.parse::<Uri>().map_err(|_| fault("is no URL"))?.into_parts();
        let tls = match parts.scheme.as_ref().map(http::uri::Scheme::as_str) {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(fault("begins neither with `http://` nor with `https://`")),
        };
        let authority = parts.authority.filter(|authority| !authority.host().is_empty());
        let authority = authority.ok_or_else(|| fault("names no host"))?;
        if authority.as_str().contains('@') {
            return Err(fault("holds a user name; send it in a header field"));
        }
        if authority.port_u16() == Some(0) || authority.as_str().ends_with(':') {
            return Err(fault("has no usable port"));
        }
        Ok(Self { authority, path: parts.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/")), tls })
    }
}

impl Url {
    /// The name or address of the server, IPv6 without brackets.
    fn host(&self) -> &str {
        self.authority.host().trim_start_matches('[').trim_end_matches(']')
    }

    fn head(&self, headers: &[(HeaderName, HeaderValue)]) -> Result<RequestHeader, Fault> {
        let build = || {
            let mut head = RequestHeader::build(Method::GET, self.path.as_str().as_bytes(), Some(headers.len() + 2))?;
            head.insert_header(HOST, self.authority.as_str())?;
            head.insert_header(USER_AGENT, AGENT)?;
            for (name, value) in headers {
                head.insert_header(name.clone(), value.clone())?;
            }
            Ok::<_, Box<Error>>(head)
        };
        build().map_err(|error| Fault::new(Step::Url, format!("no request can be made of it: {}", cause(&error))))
    }

    async fn addresses(&self) -> Result<Vec<SocketAddr>, Fault> {
        let port = self.authority.port_u16().unwrap_or(if self.tls { 443 } else { 80 });
        match tokio::net::lookup_host((self.host(), port)).await {
            Ok(found) => Ok(found.collect()),
            Err(error) => {
                let reason = error.to_string().to_lowercase();
                let reason = reason.strip_prefix("failed to lookup address information: ").unwrap_or(&reason);
                Err(Fault::new(Step::Lookup, format!("no host is known by the name `{}` ({reason})", self.host())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const PATIENT: Limits = Limits { total: Duration::from_secs(10), max_body: 64 * 1024 };

    /// A server of the test: answers each request on a connection with these bytes, then, with `close`, hangs up.
    struct Server {
        address: SocketAddr,
        connections: Arc<AtomicUsize>,
    }

    impl Server {
        async fn answering(bytes: &'static str, close: bool) -> Self {
            Self::with(move |stream| async move {
                let mut stream = BufStream::new(stream);
                while read_request(&mut stream).await.is_some() {
                    stream.write_all(bytes.as_bytes()).await.unwrap();
                    stream.flush().await.unwrap();
                    if close {
                        return;
                    }
                }
            })
            .await
        }

        async fn with<F>(handle: impl Fn(TcpStream) -> F + Send + 'static) -> Self
        where
            F: Future<Output = ()> + Send + 'static,
        {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let connections = Arc::<AtomicUsize>::default();
            let count = Arc::clone(&connections);
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    count.fetch_add(1, SeqCst);
                    tokio::spawn(handle(stream));
                }
            });
            Self { address, connections }
        }

        fn url(&self) -> String {
            format!("http://{}/healthz?x=1", self.address)
        }

        async fn get(&self, limits: Limits) -> Result<Answer, Fault> {
            HttpClient::new().get(&self.url(), &[], limits).await
        }
    }

    /// The head and the body (by its length) of a request; `None` at the end of the connection.
    async fn read_request(stream: &mut BufStream<TcpStream>) -> Option<String> {
        let mut text = String::new();
        while !text.ends_with("\r\n\r\n") {
            if stream.read_line(&mut text).await.ok()? == 0 {
                return None;
            }
        }
        let lower = text.to_lowercase();
        if let Some((_, rest)) = lower.split_once("content-length: ") {
            let mut body = vec![0; rest.split("\r\n").next()?.parse().ok()?];
            stream.read_exact(&mut body).await.ok()?;
            text += &String::from_utf8(body).ok()?;
        }
        Some(text)
    }

    fn head(method: Method) -> RequestHeader {
        let mut head = RequestHeader::build(method, b"/", None).unwrap();
        head.insert_header(HOST, "a.test").unwrap();
        head
    }

    #[tokio::test]
    async fn a_body_is_read_however_its_end_is_told() {
        for (bytes, close) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\n\r\nhello", true),
            ("HTTP/1.0 200 OK\r\n\r\nhello", true),
            ("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false),
        ] {
            let answer = Server::answering(bytes, close).await.get(PATIENT).await.expect(bytes);
            assert_eq!((answer.head.status.as_u16(), &answer.body[..]), (200, &b"hello"[..]), "{bytes}");
        }
    }

    #[tokio::test]
    async fn a_connection_is_kept_for_the_next_request_unless_told_otherwise() {
        const ANSWER: &str = "HTTP/1.1 204 No Content\r\n\r\n";
        let server = Server::answering(ANSWER, false).await;
        let client = HttpClient::new();
        for _ in 0..3 {
            assert_eq!(client.get(&server.url(), &[], PATIENT).await.unwrap().head.status, 204);
        }
        assert_eq!(server.connections.load(SeqCst), 1);
        let mut peer = HttpPeer::new(server.address, false, String::new());
        peer.options.idle_timeout = Some(Duration::ZERO);
        peer.group_key = 7;
        for _ in 0..3 {
            client.send(&peer, head(Method::GET), None, PATIENT).await.unwrap();
        }
        assert_eq!(server.connections.load(SeqCst), 4);
    }

    #[tokio::test]
    async fn a_kept_connection_that_died_is_replaced() {
        const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        let server = Server::answering(ANSWER, true).await;
        let client = HttpClient::new();
        for _ in 0..5 {
            client.get(&server.url(), &[], PATIENT).await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_is_sent_has_its_length_and_the_given_fields() {
        let server = Server::with(|stream| async move {
            let mut stream = BufStream::new(stream);
            while let Some(request) = read_request(&mut stream).await {
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{request}", request.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
            }
        })
        .await;
        let client = HttpClient::new();
        let tag = (http::header::IF_NONE_MATCH, HeaderValue::from_static("\"1\""));
        let echo = client.get(&server.url(), &[tag], PATIENT).await.unwrap().body;
        let echo = String::from_utf8_lossy(&echo).to_lowercase();
        let host = format!("host: {}", server.address);
        for part in ["get /healthz?x=1 http/1.1", "if-none-match: \"1\"", &host, &format!("user-agent: {AGENT}")] {
            assert!(echo.contains(part), "{part}: {echo}");
        }
        let peer = HttpPeer::new(server.address, false, String::new());
        let mut chunked = head(Method::POST);
        chunked.insert_header(TRANSFER_ENCODING, "chunked").unwrap();
        let echo = client.send(&peer, chunked, Some(Bytes::from_static(b"copy")), PATIENT).await.unwrap().body;
        let echo = String::from_utf8_lossy(&echo).to_lowercase();
        assert!(echo.contains("content-length: 4") && echo.ends_with("copy") && !echo.contains("chunked"), "{echo}");
    }

    #[tokio::test]
    async fn a_head_request_has_no_body_whatever_length_is_told() {
        let server = Server::answering("HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", false).await;
        let peer = HttpPeer::new(server.address, false, String::new());
        let answer = HttpClient::new().send(&peer, head(Method::HEAD), None, PATIENT).await.unwrap();
        assert_eq!((answer.head.status.as_u16(), answer.body.len()), (200, 0));
    }

    #[tokio::test]
    async fn the_total_cuts_a_server_that_trickles_or_is_silent() {
        for first in ["", "HTTP/1.1 200 OK\r\nX-Long: ", "HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n"] {
            let server = Server::with(move |mut stream| async move {
                stream.write_all(first.as_bytes()).await.unwrap();
                let mut pause = tokio::time::interval(Duration::from_millis(5));
                while first.is_empty() || stream.write_all(b"x").await.is_ok() {
                    pause.tick().await;
                }
            })
            .await;
            let began = Instant::now();
            let fault = server.get(Limits { total: Duration::from_millis(100), ..PATIENT }).await.unwrap_err();
            assert_eq!((fault.step, &*fault.to_string()), (Step::Exchange, "no whole response within 100ms"));
            assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        }
    }

    #[tokio::test]
    async fn each_fault_is_a_clause_of_its_own() {
        let small = Limits { max_body: 1024, ..PATIENT };
        for (bytes, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2048\r\n\r\n", "the response has 2KiB, more than 1KiB"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n401\r\n", "the response has more than 1KiB"),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
                "the connection was closed before the end of a response",
            ),
            ("HTTP/1.1 200 OK\r\nContent-Le", "the connection was closed before the end of a response"),
            ("SSH-2.0-OpenSSH_9.2\r\n", "the response cannot be read as HTTP"),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\n", "the server switches to a protocol that nobody asked for"),
            ("", "the connection was closed before the end of a response"),
        ] {
            let server = Server::with(move |stream| async move {
                let mut stream = BufStream::new(stream);
                read_request(&mut stream).await;
                stream.write_all(bytes.as_bytes()).await.unwrap();
                let long = [b'x'; 0x401];
                stream.write_all(if bytes.ends_with("401\r\n") { &long } else { b"" }).await.unwrap();
                stream.flush().await.unwrap();
            })
            .await;
            let fault = server.get(small).await.unwrap_err();
            assert_eq!((fault.step, &*fault.to_string()), (Step::Exchange, expected), "{bytes}");
        }
    }

    #[tokio::test]
    async fn a_refused_connection_is_told_as_such() {
        // Bound and never listened at: nobody else can take the port meanwhile.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        let port = socket.local_addr().unwrap().as_socket().unwrap().port();
        // `localhost` is looked up, and may have two addresses.
        for host in ["127.0.0.1", "localhost"] {
            let fault = HttpClient::new().get(&format!("http://{host}:{port}/"), &[], PATIENT).await.unwrap_err();
            assert_eq!((fault.step, &*fault.to_string()), (Step::Connect, "connection refused"), "{host}");
        }
    }

    #[tokio::test]
    async fn an_answer_over_http2_comes_with_its_trailers() {
        let server = Server::with(|stream| async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((mut request, mut respond))) = connection.accept().await {
                tokio::spawn(async move {
                    while request.body_mut().data().await.is_some() {}
                    let mut send = respond.send_response(http::Response::new(()), false).unwrap();
                    send.send_data(Bytes::from_static(b"hello"), false).unwrap();
                    let trailers = [(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))];
                    send.send_trailers(trailers.into_iter().collect()).unwrap();
                });
            }
        })
        .await;
        let mut peer = HttpPeer::new(server.address, false, String::new());
        peer.options.set_http_version(2, 2);
        let client = HttpClient::new();
        for body in [None, Some(Bytes::from_static(b"\0\0\0\0\0"))] {
            let answer = client.send(&peer, head(Method::POST), body, PATIENT).await.unwrap();
            assert_eq!((answer.head.status.as_u16(), &answer.body[..]), (200, &b"hello"[..]));
            assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");
        }
        assert_eq!(server.connections.load(SeqCst), 1);
    }

    #[test]
    fn only_whole_urls_are_asked() {
        for (text, fault) in [
            ("http://app:8080/x", None),
            ("https://app", None),
            ("http://[::1]:80/", None),
            ("ftp://app/", Some("neither with `http://`")),
            ("app:8080", Some("neither with `http://`")),
            ("/path", Some("neither with `http://`")),
            ("http://", Some("is no URL")),
            ("http://a b/", Some("is no URL")),
            ("http://me:secret@app/", Some("holds a user name")),
            ("http://app:0/", Some("no usable port")),
        ] {
            let read = text.parse::<Url>();
            match fault {
                None => assert!(read.is_ok(), "{text}: {read:?}"),
                Some(fault) => assert!(read.as_ref().is_err_and(|error| error.contains(fault)), "{text}: {read:?}"),
            }
        }
        assert_eq!("http://[::1]:80".parse::<Url>().unwrap().host(), "::1");
    }
}
