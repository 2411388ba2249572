//! Who the client really is, and what the backend is told of it: `X-Forwarded-*`, `Forwarded`, `Via`, `X-Request-Id`.
//!
//! What a request says of its own origin is believed only when it comes from a trusted proxy. Then it is appended to;
//! from anybody else it is replaced, so that no client can pretend an address.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use http::Version;
use http::header::{FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, VIA};
use http::request::Parts;
use pingora::http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::exchange::{Exchange, RequestId, Scheme};
use crate::units::{Cidr, CidrSet};

/// `X-Forwarded-For`: the client and the proxies it came through.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
/// `X-Request-Id`: one id for a request on its whole way.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Which fields tell the backend about the client.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Writes `X-Forwarded-For`, `-Proto`, `-Host` and `-Port`. Default: true. When false, those of untrusted clients
    /// are still removed.
    pub x_forwarded: bool,
    /// Writes `Forwarded` (RFC 7239). Default: false. When false, that of an untrusted client is still removed.
    pub forwarded: bool,
    /// Appends `Via: 1.1 edgeway` to requests and responses (RFC 9110 7.6.3). Default: false.
    pub via: bool,
    /// Sends `X-Request-Id`, a trusted proxy's own or a new one. Default: true.
    pub request_id: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { x_forwarded: true, forwarded: false, via: false, request_id: true }
    }
}

/// Whom we believe, and what we tell.
#[derive(Debug, Default)]
pub struct Forwarded {
    trusted: CidrSet,
    config: Config,
}

impl Forwarded {
    /// Compiles the block, with the networks of the proxies whose word is believed.
    pub fn build(config: &Config, trusted: &[Cidr]) -> Self {
        Self { trusted: trusted.iter().collect(), config: config.clone() }
    }

    /// The networks of trusted proxies.
    pub fn trusted(&self) -> &CidrSet {
        &self.trusted
    }

    /// Whether responses get a `Via` field.
    pub fn via(&self) -> bool {
        self.config.via
    }

    /// Fills in who sent the request. `peer` is `None` on a Unix socket, whose users are trusted: the file's permissions
    /// say who may connect.
    pub fn identify(&self, head: &RequestHeader, peer: Option<SocketAddr>, exchange: &mut Exchange) {
        if let Some(peer) = peer {
            exchange.peer = peer.ip().to_canonical();
            exchange.client_port = peer.port();
        }
        exchange.client = exchange.peer;
        exchange.peer_trusted = peer.is_none() || self.trusted.contains(exchange.peer);
        if exchange.peer_trusted {
            self.believe(&head.headers, exchange);
        }
        if exchange.id.as_str().is_empty() {
            exchange.id = RequestId::random();
        }
    }

    fn believe(&self, headers: &HeaderMap, exchange: &mut Exchange) {
        let client = if headers.contains_key(X_FORWARDED_FOR) {
            self.walk(right_to_left(headers, &X_FORWARDED_FOR).map(|item| address(&item)))
        } else {
            self.walk(right_to_left(headers, &FORWARDED).map(|item| address(parameter(&item, "for")?)))
        };
        if let Some(client) = client {
            exchange.client = client;
            exchange.client_port = 0;
        }
        let proto = right_to_left(headers, &X_FORWARDED_PROTO).next().or_else(|| {
            right_to_left(headers, &FORWARDED)
                .next()
                .and_then(|item| Some(Cow::Owned(parameter(&item, "proto")?.to_owned())))
        });
        match proto.as_deref() {
            Some(proto) if proto.eq_ignore_ascii_case("https") => exchange.scheme = Scheme::Https,
            Some(proto) if proto.eq_ignore_ascii_case("http") => exchange.scheme = Scheme::Http,
            _ => {}
        }
        if let Some(id) = headers.get(X_REQUEST_ID).and_then(|id| RequestId::from_header(id.as_bytes())) {
            exchange.id = id;
        }
    }

    /// From our side outward: the first address that is no trusted proxy, or the outermost one there is.
    fn walk(&self, hops: impl Iterator<Item = Option<IpAddr>>) -> Option<IpAddr> {
        let mut client = None;
        for hop in hops {
            let Some(hop) = hop else { break };
            client = Some(hop);
            if !self.trusted.contains(hop) {
                break;
            }
        }
        client
    }

    /// Tells the backend about the client, in the head of the request that it gets. `peer_value` is the ready-made text
    /// of the peer's address (`None` on a Unix socket), `port` that of the port of ours that it connected to.
    pub fn write(&self, head: &mut Parts, exchange: &Exchange, peer_value: Option<&HeaderValue>, port: &HeaderValue) {
        // One growth instead of one for each field.
        head.headers.reserve(NEW_FIELDS);
        let host = host_value(head);
        let headers = &mut head.headers;
        if self.config.forwarded {
            let element = forwarded_element(host.as_ref(), exchange, peer_value.is_some());
            append_to_list(headers, FORWARDED, &element, exchange.peer_trusted);
        } else if !exchange.peer_trusted {
            headers.remove(FORWARDED);
        }
        if self.config.via {
            append_to_list(headers, VIA, via(head.version).as_bytes(), true);
        }
        if self.config.x_forwarded {
            write_x_forwarded(headers, exchange, peer_value, port, host);
        } else if !exchange.peer_trusted {
            for name in [X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST, X_FORWARDED_PORT] {
                headers.remove(name);
            }
        }
        if self.config.request_id
            && let Ok(id) = HeaderValue::from_str(exchange.id.as_str())
        {
            headers.insert(X_REQUEST_ID, id);
        }
    }
}

/// At most so many fields are added to a request.
const NEW_FIELDS: usize = 7;

fn write_x_forwarded(
    headers: &mut HeaderMap,
    exchange: &Exchange,
    peer_value: Option<&HeaderValue>,
    port: &HeaderValue,
    host: Option<HeaderValue>,
) {
    let trusted = exchange.peer_trusted;
    match peer_value {
        Some(peer) if trusted && headers.contains_key(X_FORWARDED_FOR) => {
            append_to_list(headers, X_FORWARDED_FOR, peer.as_bytes(), true);
        }
        Some(peer) if exchange.client != exchange.peer => {
            // The trusted proxy told of the client by `Forwarded` alone.
            let list = format!("{}, {}", exchange.client, exchange.peer);
            headers.insert(X_FORWARDED_FOR, HeaderValue::try_from(list).unwrap_or_else(|_| peer.clone()));
        }
        Some(peer) => drop(headers.insert(X_FORWARDED_FOR, peer.clone())),
        None => {}
    }
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(exchange.scheme.as_str()));
    if !(trusted && headers.contains_key(X_FORWARDED_HOST)) {
        match host {
            Some(host) => drop(headers.insert(X_FORWARDED_HOST, host)),
            None => drop(headers.remove(X_FORWARDED_HOST)),
        }
    }
    // A Unix socket has no port to tell.
    if peer_value.is_some() && !(trusted && headers.contains_key(X_FORWARDED_PORT)) {
        headers.insert(X_FORWARDED_PORT, port.clone());
    }
}

/// The `Via` element for a message that arrived by this version of HTTP.
pub fn via(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "2 edgeway",
        Version::HTTP_10 => "1.0 edgeway",
        _ => "1.1 edgeway",
    }
}

/// The host as the client wrote it: `Host`, or HTTP/2's `:authority`.
fn host_value(head: &Parts) -> Option<HeaderValue> {
    match head.headers.get(HOST) {
        Some(host) => Some(host.clone()),
        None => HeaderValue::from_str(head.uri.authority()?.as_str()).ok(),
    }
}

/// Adds an element to a list field, or sets the field to it alone.
fn append_to_list(headers: &mut HeaderMap, name: HeaderName, element: &[u8], append: bool) {
    let mut list = Vec::with_capacity(64);
    if append {
        for value in headers.get_all(&name) {
            list.extend_from_slice(value.as_bytes());
            list.extend_from_slice(b", ");
        }
    }
    list.extend_from_slice(element);
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(list)) {
        headers.insert(name, value);
    }
}

/// Our element of `Forwarded` (RFC 7239 4): who, by which host and scheme.
fn forwarded_element(host: Option<&HeaderValue>, exchange: &Exchange, known_peer: bool) -> Vec<u8> {
    use std::io::Write as _;
    let mut element = Vec::with_capacity(64);
    // Writing to a Vec cannot fail.
    let _ = match exchange.peer {
        _ if !known_peer => write!(element, "for=unknown"),
        IpAddr::V4(v4) => write!(element, "for={v4}"),
        IpAddr::V6(v6) => write!(element, "for=\"[{v6}]\""),
    };
    if let Some(host) = host {
        element.extend_from_slice(b";host=\"");
        element.extend(host.as_bytes().iter().filter(|byte| !matches!(byte, b'"' | b'\\')));
        element.push(b'"');
    }
    element.extend_from_slice(b";proto=");
    element.extend_from_slice(exchange.scheme.as_str().as_bytes());
    element
}

/// The items of a list field over all its lines, the last one first.
fn right_to_left<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = Cow<'a, str>> + use<'a> {
    // `get_all` cannot be walked backwards with a borrowed name; few lines are the rule.
    let lines: smallvec::SmallVec<[&'a HeaderValue; 2]> = headers.get_all(name).iter().collect();
    lines.into_iter().rev().flat_map(|line| {
        let line = String::from_utf8_lossy(line.as_bytes());
        let items: smallvec::SmallVec<[Cow<'a, str>; 4]> = match line {
            Cow::Borrowed(line) => pieces_from_the_end(line, b',').map(Cow::Borrowed).collect(),
            Cow::Owned(line) => pieces_from_the_end(&line, b',').map(|item| Cow::Owned(item.to_owned())).collect(),
        };
        items
    })
}

/// What stands between these marks, the last piece first. A mark in quotes is none: a client can bring some into the
/// element of a proxy, by its `Host`. Read from the end, what a client has left open spoils no element added behind it.
fn pieces_from_the_end(text: &str, mark: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let bytes = text.as_bytes();
        let mut quoted = false;
        for at in (0..bytes.len()).rev() {
            if bytes[at] == b'"' {
                let escapes = bytes[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
                quoted ^= escapes % 2 == 0;
            } else if bytes[at] == mark && !quoted {
                rest = Some(&text[..at]);
                return Some(text[at + 1..].trim());
            }
        }
        Some(text.trim())
    })
}

/// One parameter of an element of `Forwarded`, unquoted (RFC 7239 4).
fn parameter<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    pieces_from_the_end(element, b';').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"'))
    })
}

/// An address as proxies write it: bare, with a port, or in brackets. `None` for `unknown` and obfuscated names.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    if let Ok(with_port) = text.parse::<SocketAddr>() {
        return Some(with_port.ip().to_canonical());
    }
    text.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarded(config: &Config) -> Forwarded {
        let trusted: Vec<Cidr> = ["10.0.0.0/8", "fd00::/8"].iter().map(|net| net.parse().unwrap()).collect();
        Forwarded::build(config, &trusted)
    }

    fn request(fields: &[(&'static str, &str)]) -> RequestHeader {
        let mut head = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in fields {
            head.append_header(*name, *value).unwrap();
        }
        head
    }

    fn peer(address: &str) -> Option<SocketAddr> {
        Some(SocketAddr::new(address.parse().unwrap(), 4711))
    }

    #[test]
    fn the_client_is_the_first_untrusted_hop_from_our_side() {
        for (from, fields, client) in [
            ("8.8.8.8", vec![("x-forwarded-for", "1.1.1.1")], "8.8.8.8"),
            ("10.0.0.1", vec![], "10.0.0.1"),
            ("10.0.0.1", vec![("x-forwarded-for", "1.1.1.1")], "1.1.1.1"),
            ("10.0.0.1", vec![("x-forwarded-for", "6.6.6.6, 1.1.1.1, 10.2.0.1")], "1.1.1.1"),
            ("10.0.0.1", vec![("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "1.1.1.1")], "1.1.1.1"),
            ("10.0.0.1", vec![("x-forwarded-for", "10.3.0.1, 10.2.0.1")], "10.3.0.1"),
            ("10.0.0.1", vec![("x-forwarded-for", "1.1.1.1, junk")], "10.0.0.1"),
            ("10.0.0.1", vec![("x-forwarded-for", "1.1.1.1:8080")], "1.1.1.1"),
            ("10.0.0.1", vec![("x-forwarded-for", "[2001:db8::1]:80")], "2001:db8::1"),
            ("10.0.0.1", vec![("forwarded", "for=6.6.6.6, for=\"[2001:db8::1]:99\";proto=https")], "2001:db8::1"),
            ("10.0.0.1", vec![("forwarded", "for=unknown")], "10.0.0.1"),
            ("10.0.0.1", vec![("forwarded", "for=1.1.1.1;host=\"a,for=6.6.6.6\";proto=http")], "1.1.1.1"),
            ("10.0.0.1", vec![("forwarded", "host=\"a;for=6.6.6.6\";for=1.1.1.1")], "1.1.1.1"),
            ("10.0.0.1", vec![("forwarded", "for=1.1.1.1;host=\"a\\\",for=6.6.6.6\"")], "1.1.1.1"),
            ("10.0.0.1", vec![("forwarded", "for=\"6.6.6.6, for=1.1.1.1")], "1.1.1.1"),
            ("10.0.0.1", vec![("forwarded", "for=6.6.6.6\", for=\"1.1.1.1\"")], "1.1.1.1"),
            ("::ffff:10.0.0.1", vec![("x-forwarded-for", "1.1.1.1")], "1.1.1.1"),
        ] {
            let mut exchange = Exchange::new();
            forwarded(&Config::default()).identify(&request(&fields), peer(from), &mut exchange);
            assert_eq!(exchange.client, client.parse::<IpAddr>().unwrap(), "{from} {fields:?}");
        }
    }

    #[test]
    fn scheme_and_id_are_believed_from_trusted_proxies_only() {
        let fields = [("x-forwarded-proto", "https"), ("x-request-id", "abc")];
        for (from, scheme, id) in [("10.0.0.1", Scheme::Https, true), ("8.8.8.8", Scheme::Http, false)] {
            let mut exchange = Exchange::new();
            forwarded(&Config::default()).identify(&request(&fields), peer(from), &mut exchange);
            assert_eq!((exchange.scheme, exchange.id.as_str() == "abc"), (scheme, id), "{from}");
        }
    }

    fn told(config: &Config, from: &str, fields: &[(&'static str, &str)]) -> Parts {
        let forwarded = forwarded(config);
        let head = request(fields);
        let mut exchange = Exchange::new();
        forwarded.identify(&head, peer(from), &mut exchange);
        let mut head = Parts::from(head);
        let peer_value = HeaderValue::from_str(from).unwrap();
        forwarded.write(&mut head, &exchange, Some(&peer_value), &HeaderValue::from(8080));
        head
    }

    fn field<'a>(head: &'a Parts, name: &str) -> &'a str {
        head.headers.get(name).map_or("-", |value| value.to_str().unwrap())
    }

    #[test]
    fn what_untrusted_clients_say_is_replaced_and_what_trusted_ones_say_is_kept() {
        let fields = [
            ("host", "example.com"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-port", "443"),
            ("forwarded", "for=1.1.1.1"),
        ];
        for (from, list, proto, host, port, rfc7239) in [
            ("8.8.8.8", "8.8.8.8", "http", "example.com", "8080", "-"),
            ("10.0.0.1", "1.1.1.1, 10.0.0.1", "https", "evil.example", "443", "for=1.1.1.1"),
        ] {
            let head = told(&Config::default(), from, &fields);
            assert_eq!(field(&head, "x-forwarded-for"), list);
            assert_eq!(field(&head, "x-forwarded-proto"), proto);
            assert_eq!(field(&head, "x-forwarded-host"), host);
            assert_eq!(field(&head, "x-forwarded-port"), port);
            assert_eq!(field(&head, "forwarded"), rfc7239);
            assert_eq!(field(&head, "x-request-id").len(), 32);
        }
    }

    #[test]
    fn a_client_that_only_forwarded_tells_of_is_told_both_ways() {
        let head = told(&Config::default(), "10.0.0.1", &[("host", "a.b"), ("forwarded", "for=1.1.1.1")]);
        assert_eq!(field(&head, "x-forwarded-for"), "1.1.1.1, 10.0.0.1");
    }

    #[test]
    fn the_standard_fields_are_written_when_asked_for() {
        let config = Config { x_forwarded: false, forwarded: true, via: true, request_id: false };
        let fields = [("host", "a.b"), ("x-forwarded-for", "1.1.1.1"), ("forwarded", "for=1.1.1.1"), ("via", "1.0 x")];
        let head = told(&config, "8.8.8.8", &fields);
        assert_eq!(field(&head, "forwarded"), "for=8.8.8.8;host=\"a.b\";proto=http");
        assert_eq!(field(&head, "via"), "1.0 x, 1.1 edgeway");
        assert_eq!(field(&head, "x-forwarded-for"), "-");
        let head = told(&config, "fd00::1", &fields);
        assert_eq!(field(&head, "forwarded"), "for=1.1.1.1, for=\"[fd00::1]\";host=\"a.b\";proto=http");
        assert_eq!(field(&head, "x-forwarded-for"), "1.1.1.1");
    }
}
