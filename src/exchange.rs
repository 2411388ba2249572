//! `Exchange`: the facts of one request and its response that every feature may read.
//!
//! It names no feature's type. The request head lies beside it (`pingora_http::RequestHeader`), and [`Facts`] is the
//! two together with what is known of the response, as templates and logs read it.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use pingora::http::{RequestHeader, ResponseHeader};
use smallvec::SmallVec;

/// The scheme by which the client reached the first proxy we trust, or us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Plaintext.
    Http,
    /// TLS.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// The id of a request: the trusted client's own, or 32 random hexadecimal digits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestId(SmallVec<[u8; 40]>);

impl RequestId {
    /// The longest id that is kept from a trusted proxy, in bytes.
    pub const MAX: usize = 128;

    /// A new random id. Not secret: it tells requests apart, no more.
    pub fn random() -> Self {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let bits = fastrand::u128(..);
        let mut text = SmallVec::from_buf_and_len([0; 40], 32);
        for (index, digit) in text.iter_mut().enumerate() {
            *digit = HEX[(bits >> (index * 4)) as usize & 15];
        }
        Self(text)
    }

    /// The id that somebody else gave, if it is short and plain enough to be repeated in headers and logs.
    pub fn from_header(value: &[u8]) -> Option<Self> {
        let plain =
            |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'=' | b'+' | b'/' | b':');
        ((1..=Self::MAX).contains(&value.len()) && value.iter().all(plain)).then(|| Self(SmallVec::from_slice(value)))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// The pieces of the path that the route's pattern named: begin and end in the normalised path, in the order of the
/// pattern's names (templates know a name's position since the document was compiled).
pub type Captures = SmallVec<[(u32, u32); 4]>;

/// The facts of one request and its response.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// When its head had arrived.
    pub started: Instant,
    /// Its id.
    pub id: RequestId,
    /// The true client: the peer itself, or what trusted proxies say of it. Filters, hashing and logs use this.
    pub client: IpAddr,
    /// The client's port, when the client is the peer itself; else 0.
    pub client_port: u16,
    /// Whoever holds the other end of the connection; 127.0.0.1 for a Unix socket.
    pub peer: IpAddr,
    /// Whether the peer is a trusted proxy.
    pub peer_trusted: bool,
    /// The port of ours that it came in by; 0 for a Unix socket.
    pub local_port: u16,
    /// How the client spoke to the outermost trusted proxy.
    pub scheme: Scheme,
    /// The host asked for: lower case, without port, without a final dot; empty when there is none.
    pub host: String,
    /// The normalised path when it differs from the one sent. See [`Exchange::path`].
    pub normal_path: Option<String>,
    /// The pieces that the route's pattern named.
    pub captures: Captures,
    /// How often a backend was tried.
    pub tries: u32,
    /// How long connecting to the last backend took; zero for a reused connection, `None` before.
    pub connect_time: Option<Duration>,
    /// From the start of the request to the response head from the backend.
    pub first_byte: Option<Duration>,
    /// The status that the client got; 0 before any.
    pub status: u16,
    /// Bytes of body that the client sent.
    pub bytes_received: u64,
    /// Bytes of body that the client got.
    pub bytes_sent: u64,
    /// Why the gateway answered by itself or broke off, as one word for logs (`connect_refused`, `read_timeout` …).
    pub failure: Option<&'static str>,
    /// What the cache did, as one word for logs (`hit`, `miss` …); empty: it had nothing to do with the request.
    pub cache: &'static str,
}

impl Exchange {
    /// An exchange of which nothing is known yet.
    pub fn new() -> Self {
        let nobody = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self {
            started: Instant::now(),
            id: RequestId::default(),
            client: nobody,
            client_port: 0,
            peer: nobody,
            peer_trusted: false,
            local_port: 0,
            scheme: Scheme::Http,
            host: String::new(),
            normal_path: None,
            captures: Captures::new(),
            tries: 0,
            connect_time: None,
            first_byte: None,
            status: 0,
            bytes_received: 0,
            bytes_sent: 0,
            failure: None,
            cache: "",
        }
    }

    /// The path that routes, filters and rewrites see: normalised, and always that of this request's head.
    pub fn path<'a>(&'a self, head: &'a RequestHeader) -> &'a str {
        self.normal_path.as_deref().unwrap_or_else(|| head.uri.path())
    }

    /// The piece of the path that the pattern names in this position.
    pub fn capture<'a>(&'a self, head: &'a RequestHeader, position: usize) -> Option<&'a str> {
        let &(begin, end) = self.captures.get(position)?;
        self.path(head).get(begin as usize..end as usize)
    }
}

impl Default for Exchange {
    fn default() -> Self {
        Self::new()
    }
}

/// All that a template or a log line may speak of.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// The request head as the client sent it (after request filters).
    pub request: &'a RequestHeader,
    /// What else is known.
    pub exchange: &'a Exchange,
    /// The response head, once there is one.
    pub response: Option<&'a ResponseHeader>,
    /// The name of the route taken; empty: none.
    pub route: &'a str,
    /// The name of the upstream; empty: none.
    pub upstream: &'a str,
    /// The address of the backend; empty: none.
    pub backend: &'a str,
}

impl<'a> Facts<'a> {
    /// A header field of the request as text; empty when absent, lossy when not UTF-8.
    pub fn request_header(&self, name: &http::HeaderName) -> Cow<'a, str> {
        self.request.headers.get(name).map_or(Cow::Borrowed(""), |value| String::from_utf8_lossy(value.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_ids_are_kept() {
        for (given, kept) in [("abc-1", true), ("", false), ("a b", false), ("a\"b", false), (&"x".repeat(129), false)]
        {
            assert_eq!(RequestId::from_header(given.as_bytes()).is_some(), kept, "{given}");
        }
        assert_eq!(RequestId::random().as_str().len(), 32);
        assert_ne!(RequestId::random(), RequestId::random());
    }
}
