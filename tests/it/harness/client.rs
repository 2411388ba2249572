//! Clients: HTTP/1.1 byte by byte, and HTTP/2 with prior knowledge.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::wait::DEADLINE;
use super::wire::{Framing, Headers, Stream, Wire, fault};

/// A request to be written as it stands: nothing is checked or mended.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// A GET of this target.
pub(crate) fn get(target: &str) -> Request {
    Request::new("GET", target)
}

impl Request {
    pub(crate) fn new(method: &str, target: &str) -> Self {
        Self { method: method.into(), target: target.into(), headers: Vec::new(), body: Vec::new() }
    }

    /// With one more field.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With this host instead of `edgeway.test`.
    pub(crate) fn host(self, host: &str) -> Self {
        self.header("Host", host)
    }

    /// With this body and its length.
    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        let length = self.body.len().to_string();
        self.header("Content-Length", &length)
    }

    /// How long its body is.
    pub(crate) fn body_len(&self) -> usize {
        self.body.len()
    }

    /// As it goes over the wire.
    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            text += "Host: edgeway.test\r\n";
        }
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        let mut bytes = (text + "\r\n").into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// A whole response.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Headers,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// What a named origin says that it was asked.
    #[track_caller]
    pub(crate) fn echo(&self) -> Echo {
        assert_eq!(self.status, 200, "no echo of an origin: {self:?} {}", self.text());
        let told = self.json();
        let text = |key: &str| told[key].as_str().unwrap_or_default().to_owned();
        let fields = told["headers"].as_array().expect("the fields that the origin saw").iter();
        let field = |pair: &Value| (pair[0].as_str().unwrap().to_owned(), pair[1].as_str().unwrap().to_owned());
        Echo {
            origin: text("origin"),
            method: text("method"),
            path: text("path"),
            headers: Headers(fields.map(field).collect()),
            body: text("body"),
        }
    }
}

/// A request as an origin saw it.
#[derive(Debug)]
pub(crate) struct Echo {
    pub(crate) origin: String,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Headers,
    pub(crate) body: String,
}

impl Echo {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }
}

/// One connection of an HTTP/1.1 client.
pub(crate) struct Connection {
    wire: Wire,
}

impl Connection {
    #[track_caller]
    pub(crate) fn open(address: &str) -> Self {
        Self::try_open(address).unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"))
    }

    pub(crate) fn try_open(address: &str) -> io::Result<Self> {
        Ok(Self { wire: Wire::new(Stream::connect(address)?) })
    }

    /// Connects from another loopback address, as another client.
    #[track_caller]
    pub(crate) fn open_from(source: &str, address: &str) -> Self {
        let source: IpAddr = source.parse().expect("an address");
        Self { wire: Wire::new(Stream::connect_from(source, address).expect("a connection")) }
    }

    /// Sends exactly these bytes.
    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the peer takes what we send");
    }

    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.wire.stream.write_all(bytes.as_ref())
    }

    /// Sends one byte each `every` until all are sent or the peer closes; tells how many went out.
    pub(crate) fn trickle(&mut self, bytes: &[u8], every: Duration) -> usize {
        self.wire.stream.read_within(every).expect("a timeout");
        for (count, byte) in bytes.iter().enumerate() {
            if self.wire.stream.write_all(&[*byte]).is_err() {
                return count;
            }
            // The pause is the slowness under test; a word or an end from the peer ends it.
            match self.wire.more() {
                Err(error) if timed_out(&error) => {}
                _ => return count + 1,
            }
        }
        self.wire.stream.read_within(DEADLINE).expect("a timeout");
        bytes.len()
    }

    /// Sends a request and reads its response.
    #[track_caller]
    pub(crate) fn request(&mut self, request: &Request) -> Response {
        self.try_request(request).unwrap_or_else(|error| panic!("{} {}: {error}", request.method, request.target))
    }

    pub(crate) fn try_request(&mut self, request: &Request) -> io::Result<Response> {
        self.try_send(request.bytes())?;
        self.try_read_response(&request.method)
    }

    /// Reads the response to a request by this method (a HEAD has no body).
    #[track_caller]
    pub(crate) fn read_response(&mut self, method: &str) -> Response {
        self.try_read_response(method).unwrap_or_else(|error| panic!("no whole response: {error}"))
    }

    pub(crate) fn try_read_response(&mut self, method: &str) -> io::Result<Response> {
        loop {
            let head = self.wire.head()?.ok_or_else(|| fault("closed before a response"))?;
            let status = head.line.split(' ').nth(1).and_then(|status| status.parse().ok());
            let status: u16 = status.ok_or_else(|| fault(&format!("`{}` is no status line", head.line)))?;
            if matches!(status, 100 | 102..=199) {
                continue;
            }
            let framing = match status {
                101 | 204 | 304 => Framing::None,
                _ if method == "HEAD" => Framing::None,
                _ => head.framing(Framing::UntilClose),
            };
            let body = self.wire.body(framing)?;
            return Ok(Response { status, headers: head.headers, body });
        }
    }

    /// Everything that comes until the peer closes; `None` when it does not within the deadline.
    pub(crate) fn until_closed(&mut self) -> Option<Vec<u8>> {
        let end = Instant::now() + DEADLINE;
        self.wire.stream.read_within(DEADLINE).expect("a timeout");
        while Instant::now() < end {
            match self.wire.more() {
                Ok(true) => {}
                Err(error) if timed_out(&error) => return None,
                // A reset is an end, too.
                Ok(false) | Err(_) => return Some(std::mem::take(&mut self.wire.ahead)),
            }
        }
        None
    }

    /// Fails unless the peer closes within the deadline; tells how long it took and what it said before.
    #[track_caller]
    pub(crate) fn expect_close(&mut self) -> (Duration, String) {
        let begun = Instant::now();
        let said = self.until_closed().unwrap_or_else(|| panic!("still open after {DEADLINE:?}"));
        (begun.elapsed(), String::from_utf8_lossy(&said).into_owned())
    }

    /// Reads a little: as much as there is at once.
    pub(crate) fn read_some(&mut self) -> io::Result<usize> {
        let mut some = [0; 4096];
        self.wire.stream.read(&mut some)
    }

    pub(crate) fn into_wire(self) -> Wire {
        self.wire
    }
}

fn timed_out(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// One connection of an HTTP/2 client with prior knowledge.
pub(crate) struct H2 {
    runtime: Runtime,
    send: h2::client::SendRequest<Bytes>,
    driver: JoinHandle<Result<(), h2::Error>>,
    begun: Vec<h2::client::ResponseFuture>,
}

impl H2 {
    #[track_caller]
    pub(crate) fn open(address: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (send, driver) = runtime.block_on(async {
            let tcp = tokio::net::TcpStream::connect(address).await.expect("a connection");
            let (send, connection) = h2::client::handshake(tcp).await.expect("an HTTP/2 handshake");
            (send, tokio::spawn(connection))
        });
        Self { runtime, send, driver, begun: Vec::new() }
    }

    /// Sends these requests and waits for no response.
    #[track_caller]
    pub(crate) fn begin(&mut self, requests: &[Request]) {
        let send = self.send.clone();
        let sent = self.runtime.block_on(async {
            let mut send = send.ready().await?;
            for request in requests {
                let head = http::Request::builder().method(&*request.method);
                let head = head.uri(format!("http://edgeway.test{}", request.target)).body(()).expect("a request");
                let (response, mut body) = send.send_request(head, request.body.is_empty())?;
                if !request.body.is_empty() {
                    body.send_data(request.body.clone().into(), true)?;
                }
                // Dropped, it would be taken back.
                self.begun.push(response);
                send = send.ready().await?;
            }
            // The connection's own task has to send them yet.
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok::<_, h2::Error>(())
        });
        sent.expect("the requests go out");
    }

    /// Sends these requests at the same time; their responses in the same order.
    pub(crate) fn try_requests(&mut self, requests: &[Request]) -> Result<Vec<Response>, String> {
        let send = self.send.clone();
        let all = async {
            let mut send = send.ready().await?;
            let mut pending = Vec::new();
            for request in requests {
                let mut builder = http::Request::builder().method(&*request.method);
                let mut host = "edgeway.test";
                for (name, value) in &request.headers {
                    match name.eq_ignore_ascii_case("host") {
                        true => host = value,
                        false => builder = builder.header(&**name, &**value),
                    }
                }
                let head = builder.uri(format!("http://{host}{}", request.target)).body(()).expect("a request");
                let (response, mut body) = send.send_request(head, request.body.is_empty())?;
                if !request.body.is_empty() {
                    body.send_data(request.body.clone().into(), true)?;
                }
                pending.push(response);
                send = send.ready().await?;
            }
            let mut responses = Vec::new();
            for response in pending {
                let (head, mut stream) = response.await?.into_parts();
                let mut body = Vec::new();
                while let Some(chunk) = stream.data().await {
                    let chunk = chunk?;
                    stream.flow_control().release_capacity(chunk.len())?;
                    body.extend_from_slice(&chunk);
                }
                let field = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
                    (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
                };
                let headers = Headers(head.headers.iter().map(field).collect());
                responses.push(Response { status: head.status.as_u16(), headers, body });
            }
            Ok(responses)
        };
        let bounded = async { tokio::time::timeout(DEADLINE, all).await };
        match self.runtime.block_on(bounded) {
            Ok(done) => done.map_err(|error: h2::Error| error.to_string()),
            Err(_) => Err(format!("no response within {DEADLINE:?}")),
        }
    }

    #[track_caller]
    pub(crate) fn requests(&mut self, requests: &[Request]) -> Vec<Response> {
        self.try_requests(requests).unwrap_or_else(|error| panic!("HTTP/2: {error}"))
    }

    #[track_caller]
    pub(crate) fn request(&mut self, request: &Request) -> Response {
        self.requests(std::slice::from_ref(request)).remove(0)
    }

    /// Waits until the peer has closed the connection; fails when it does not within the deadline.
    #[track_caller]
    pub(crate) fn expect_close(self) {
        let Self { runtime, send: _held, driver, .. } = self;
        let ended = runtime.block_on(async { tokio::time::timeout(DEADLINE, driver).await });
        assert!(ended.is_ok(), "the HTTP/2 connection is still open after {DEADLINE:?}");
    }
}
