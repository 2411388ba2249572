//! Which requests to change the protocol (RFC 9110 7.8) reach the backend.
//!
//! Pingora itself lets only WebSocket through. Here any single protocol passes, but for those that would let a client
//! speak past the rules: HTTP/2 without TLS, another version of HTTP, and TLS inside the connection.

use http::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use http::{Method, Version};
use pingora::http::RequestHeader;

/// What becomes of a request's `Upgrade`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upgrade<'a> {
    /// There is none, or it goes no further.
    None,
    /// WebSocket (RFC 6455), which Pingora passes on when its handshake is whole.
    WebSocket,
    /// Another protocol, by this value of the field.
    Other(&'a HeaderValue),
}

impl<'a> Upgrade<'a> {
    /// What this request asks for.
    pub(super) fn of(head: &'a RequestHeader) -> Self {
        let mut values = head.headers.get_all(UPGRADE).iter();
        let (Some(value), None, Version::HTTP_11) = (values.next(), values.next(), head.version) else {
            return Self::None;
        };
        if !names_upgrade(&head.headers) {
            return Self::None;
        }
        let name = value.as_bytes().split(|byte| *byte == b'/').next().unwrap_or_default();
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("websocket") {
            return if head.method == Method::GET { Self::WebSocket } else { Self::None };
        }
        let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(byte);
        let plain = !name.is_empty() && value.as_bytes().iter().all(token);
        if plain && !["h2c", "h2", "http", "tls"].iter().any(|known| is(known)) {
            Self::Other(value)
        } else {
            Self::None
        }
    }

    /// Whether the connection becomes a tunnel when the backend agrees.
    pub(super) fn passes(self) -> bool {
        self != Self::None
    }

    /// Puts the request for another protocol, which Pingora has taken away, into the head that the backend gets.
    pub(super) fn write(self, headers: &mut HeaderMap) {
        if let Self::Other(protocol) = self {
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(UPGRADE, protocol.clone());
        }
    }
}

/// Whether `Connection` names `upgrade`, as a request that means it must.
fn names_upgrade(headers: &HeaderMap) -> bool {
    let mut tokens = headers.get_all(CONNECTION).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_named_protocol_passes_unless_it_is_http_itself() {
        for (upgrade, connection, passes) in [
            (Some("websocket"), Some("Upgrade"), true),
            (Some("SPDY/3.1"), Some("keep-alive, upgrade"), true),
            (Some("imap"), Some("upgrade"), true),
            (Some("imap"), Some("close"), false),
            (Some("imap"), None, false),
            (Some("h2c"), Some("upgrade, http2-settings"), false),
            (Some("HTTP/2.0"), Some("upgrade"), false),
            (Some("TLS/1.2"), Some("upgrade"), false),
            (Some("a, b"), Some("upgrade"), false),
            (Some("a b"), Some("upgrade"), false),
            (Some("/1"), Some("upgrade"), false),
            (None, Some("upgrade"), false),
        ] {
            let mut head = RequestHeader::build("GET", b"/", None).unwrap();
            for (name, value) in [("upgrade", upgrade), ("connection", connection)] {
                if let Some(value) = value {
                    head.insert_header(name, value).unwrap();
                }
            }
            assert_eq!(Upgrade::of(&head).passes(), passes, "{upgrade:?} {connection:?}");
        }
    }

    #[test]
    fn only_another_protocol_is_put_back() {
        let mut head = RequestHeader::build("GET", b"/", None).unwrap();
        head.insert_header("connection", "x-a, upgrade").unwrap();
        head.insert_header("upgrade", "imap").unwrap();
        let mut headers = HeaderMap::new();
        Upgrade::of(&head).write(&mut headers);
        assert_eq!(
            (&headers[CONNECTION], &headers[UPGRADE]),
            (&HeaderValue::from_static("Upgrade"), &HeaderValue::from_static("imap"))
        );
        head.insert_header("upgrade", "websocket").unwrap();
        let mut headers = HeaderMap::new();
        Upgrade::of(&head).write(&mut headers);
        assert!(headers.is_empty());
    }
}
