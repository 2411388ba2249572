//! `Cache-Status`: what the cache did with a request, told to the client (RFC 9211), as an item of a structured field.

use std::io::Write;

use http::{HeaderName, HeaderValue, StatusCode};

/// `Cache-Status`.
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Why a request went to the origin (RFC 9211 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// The cache was told not to handle the request.
    Bypass,
    /// The method asks for it.
    Method,
    /// Nothing is stored for the URL.
    UriMiss,
    /// What is stored for the URL is for other requests.
    VaryMiss,
    /// Nothing is stored, of the URL or for this request.
    Miss,
    /// What is stored is fresh, but the request asks for it.
    Request,
    /// What is stored is stale.
    Stale,
    /// What is stored is only a part of what was asked for.
    Partial,
}

impl Forward {
    /// The token for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Miss => "miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

/// Where the response came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// From the cache, without the origin (2.1).
    Hit,
    /// The request was forwarded.
    Forwarded {
        /// Why.
        why: Forward,
        /// What the origin answered, if that is not what the client gets (2.3).
        status: Option<StatusCode>,
        /// The response was stored (2.5).
        stored: bool,
        /// It waited for another request to be answered, and shares its response (2.6).
        collapsed: bool,
    },
}

/// One member of `Cache-Status`.
#[derive(Clone, Copy, Debug)]
pub struct Status<'a> {
    /// Where the response came from; `None` when the cache made it up itself.
    pub outcome: Option<Outcome>,
    /// How long it is still fresh, in seconds; less than 0: stale (2.4).
    pub ttl: Option<i64>,
    /// The key that it is stored under (2.7).
    pub key: Option<&'a str>,
    /// Anything else, in a word (2.8).
    pub detail: Option<&'a str>,
}

impl Status<'_> {
    /// The member of the list, which follows those of caches nearer to the origin. `name` is the cache's own.
    pub fn value(&self, name: &str) -> HeaderValue {
        let mut text = Vec::with_capacity(64);
        write_token(name, &mut text);
        match self.outcome {
            Some(Outcome::Hit) => text.extend_from_slice(b"; hit"),
            Some(Outcome::Forwarded { why, status, stored, collapsed }) => {
                text.extend_from_slice(b"; fwd=");
                text.extend_from_slice(why.as_str().as_bytes());
                if let Some(status) = status {
                    text.extend_from_slice(b"; fwd-status=");
                    text.extend_from_slice(status.as_str().as_bytes());
                }
                if stored {
                    text.extend_from_slice(b"; stored");
                }
                if collapsed {
                    text.extend_from_slice(b"; collapsed");
                }
            }
            None => {}
        }
        if let Some(ttl) = self.ttl {
            // An integer of a structured field has 15 digits at most (RFC 9651 3.3.1).
            let ttl = ttl.clamp(-999_999_999_999_999, 999_999_999_999_999);
            let _ = write!(text, "; ttl={ttl}");
        }
        if let Some(key) = self.key {
            text.extend_from_slice(b"; key=");
            write_string(key, &mut text);
        }
        if let Some(detail) = self.detail {
            text.extend_from_slice(b"; detail=");
            write_token(detail, &mut text);
        }
        HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).unwrap_or(HeaderValue::from_static("cache"))
    }
}

/// As a token where it is one, else as a string (2, 2.8).
fn write_token(text: &str, out: &mut Vec<u8>) {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte);
    if text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '*') && text.bytes().all(is_inner) {
        out.extend_from_slice(text.as_bytes());
    } else {
        write_string(text, out);
    }
}

/// A string of a structured field (RFC 9651 3.3.3). What it cannot hold is written as `%XX`.
fn write_string(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b' '..=b'~' => out.push(byte),
            _ => out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sfv::visitor::Ignored;

    use super::*;

    const NOTHING: Status<'_> = Status { outcome: None, ttl: None, key: None, detail: None };

    fn forwarded(why: Forward) -> Outcome {
        Outcome::Forwarded { why, status: None, stored: false, collapsed: false }
    }

    #[test]
    fn it_is_written_as_the_rfc_has_it() {
        // RFC 9211 2 and 4.
        let miss = |status, stored, collapsed| Outcome::Forwarded { why: Forward::UriMiss, status, stored, collapsed };
        for (status, text) in [
            (NOTHING, "edgeway"),
            (Status { outcome: Some(Outcome::Hit), ttl: Some(376), ..NOTHING }, "edgeway; hit; ttl=376"),
            (Status { outcome: Some(Outcome::Hit), ttl: Some(-412), ..NOTHING }, "edgeway; hit; ttl=-412"),
            (Status { outcome: Some(miss(None, false, false)), ..NOTHING }, "edgeway; fwd=uri-miss"),
            (
                Status { outcome: Some(miss(Some(StatusCode::NOT_MODIFIED), true, true)), ttl: Some(1), ..NOTHING },
                "edgeway; fwd=uri-miss; fwd-status=304; stored; collapsed; ttl=1",
            ),
            (
                Status { key: Some("GET|a\"b\\c é"), detail: Some("no-store"), ..NOTHING },
                "edgeway; key=\"GET|a\\\"b\\\\c %C3%A9\"; detail=no-store",
            ),
            (Status { detail: Some("two words"), ..NOTHING }, "edgeway; detail=\"two words\""),
            (Status { detail: Some("4xx"), ..NOTHING }, "edgeway; detail=\"4xx\""),
            (Status { ttl: Some(i64::MAX), ..NOTHING }, "edgeway; ttl=999999999999999"),
        ] {
            assert_eq!(status.value("edgeway"), text);
        }
        assert_eq!(NOTHING.value("my cache"), "\"my cache\"");
    }

    #[test]
    fn every_reason_has_its_token() {
        // RFC 9211 2.2.
        for (why, token) in [
            (Forward::Bypass, "bypass"),
            (Forward::Method, "method"),
            (Forward::UriMiss, "uri-miss"),
            (Forward::VaryMiss, "vary-miss"),
            (Forward::Miss, "miss"),
            (Forward::Request, "request"),
            (Forward::Stale, "stale"),
            (Forward::Partial, "partial"),
        ] {
            let status = Status { outcome: Some(forwarded(why)), ..NOTHING };
            assert_eq!(status.value("e"), format!("e; fwd={token}"));
        }
    }

    proptest! {
        #[test]
        fn whatever_is_told_it_is_a_structured_field(name: String, key: String, detail: String, ttl: i64) {
            let status = Status { ttl: Some(ttl), key: Some(&key), detail: Some(&detail), outcome: Some(Outcome::Hit) };
            let value = status.value(&name);
            prop_assert!(sfv::Parser::new(value.as_bytes()).parse_item_with_visitor(Ignored).is_ok(), "{:?}", value);
        }
    }
}
