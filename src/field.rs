//! Header fields as operators write them: names that may be touched, and values that are literal or templates.
//!
//! What a client sent can reach a value through a template, so a rendered value is cleaned: control bytes (CR, LF, NUL
//! and the like) are dropped, and blanks at its ends too (RFC 9110 5.5, RFC 9113 8.2.1). It can never begin a new field.

use http::header::{HeaderName, HeaderValue};

use crate::diag::Scope;
use crate::exchange::Facts;
use crate::template::{Moment, Template};

/// The fields of one connection and of message framing (RFC 9110 7.6.1, RFC 9112 6): the gateway alone writes them.
const OWN: [&str; 8] =
    ["connection", "transfer-encoding", "content-length", "keep-alive", "upgrade", "te", "trailer", "proxy-connection"];

/// Whether the field belongs to the connection or to framing, and must not be touched by a rule.
pub fn is_own(name: &HeaderName) -> bool {
    OWN.contains(&name.as_str())
}

/// The field's name, if it is one and a rule may touch it; else what is wrong, and how to mend it.
pub fn name(text: &str) -> Result<HeaderName, (String, &'static str)> {
    let Ok(name) = HeaderName::from_bytes(text.as_bytes()) else {
        let mend = "a name has letters, digits and `-`, as in `X-Frame-Options`";
        return Err((format!("`{text}` is no header name"), mend));
    };
    if is_own(&name) {
        let mend = "the gateway frames messages and manages connections itself; leave this field out";
        return Err((format!("`{text}` belongs to the connection and cannot be changed"), mend));
    }
    Ok(name)
}

/// The name that stands as a key at `at`, if a rule may touch that field; else reports the fault of the key.
pub fn key(text: &str, at: &Scope<'_>) -> Option<HeaderName> {
    name(text).map_err(|(fault, mend)| at.error_key(fault, Some(mend.into()))).ok()
}

/// The text as a media type, `type/subtype` and parameters; else a fault at `at`.
pub fn media_type(text: &str, at: &Scope<'_>) -> Option<HeaderValue> {
    let value = HeaderValue::from_str(text.trim()).ok();
    let value = value.filter(|_| text.split_once('/').is_some_and(|(kind, rest)| !kind.is_empty() && !rest.is_empty()));
    if value.is_none() {
        at.error_hint(format!("`{text}` is no media type"), "write one as in `text/html; charset=utf-8`");
    }
    value
}

/// The value of a field, compiled.
#[derive(Clone, Debug)]
pub enum Value {
    /// Always the same: cloned by count.
    Literal(HeaderValue),
    /// Rendered for each message.
    Template(Template),
}

impl Value {
    /// Compiles a value; reports what is wrong with it at `at`.
    pub fn compile(text: &str, captures: &[Box<str>], moment: Moment, at: &Scope<'_>) -> Option<Self> {
        let text = text.trim();
        if text.bytes().any(|byte| !is_kept(byte)) {
            at.error_hint(
                "a header value cannot hold line breaks or other control characters",
                "write the value on one line, and further values under `add`",
            );
            return None;
        }
        let template = Template::compile(text, captures, moment, at)?;
        Some(match template.as_literal() {
            Some(literal) => Self::Literal(clean(literal.as_bytes())?),
            None => Self::Template(template),
        })
    }

    /// The value for these facts; `None` when a template has nothing to say. `scratch` is for reuse, and left in any state.
    pub fn render(&self, facts: &Facts<'_>, scratch: &mut Vec<u8>) -> Option<HeaderValue> {
        match self {
            Self::Literal(value) => Some(value.clone()),
            Self::Template(template) => {
                scratch.clear();
                template.render(facts, scratch);
                clean(scratch).filter(|value| !value.is_empty())
            }
        }
    }
}

/// Whether a value may hold the byte (RFC 9110 5.5: tab, visible characters, and bytes above 127).
const fn is_kept(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// A value of these bytes, without control bytes, and without blanks at its ends.
fn clean(bytes: &[u8]) -> Option<HeaderValue> {
    if let Ok(value) = HeaderValue::from_bytes(bytes.trim_ascii()) {
        return Some(value);
    }
    let kept: Vec<u8> = bytes.iter().copied().filter(|byte| is_kept(*byte)).collect();
    HeaderValue::from_bytes(kept.trim_ascii()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Issues;

    #[test]
    fn what_a_client_sent_never_begins_a_new_field() {
        for (bytes, value) in [
            ("plain", "plain"),
            ("a\r\nX-Evil: 1", "aX-Evil: 1"),
            ("\r\n a\0b\x7f \n", "ab"),
            ("tab\there", "tab\there"),
            ("\r\n", ""),
        ] {
            assert_eq!(clean(bytes.as_bytes()).unwrap(), value, "{bytes:?}");
        }
        assert_eq!(clean("é".as_bytes()).unwrap().as_bytes(), "é".as_bytes());
    }

    #[test]
    fn fields_of_the_connection_are_left_alone() {
        for (text, sound) in [
            ("X-A", true),
            ("Host", true),
            ("Connection", false),
            ("transfer-Encoding", false),
            ("Content-Length", false),
            ("TE", false),
            ("X A", false),
            (":path", false),
            ("", false),
        ] {
            assert_eq!(name(text).is_ok(), sound, "{text}");
        }
    }

    #[test]
    fn a_literal_is_ready_and_has_one_line() {
        let compile = |text: &str| {
            let issues = Issues::default();
            Value::compile(text, &[], Moment::Request, &issues.root())
        };
        assert!(matches!(compile(" a b \n"), Some(Value::Literal(value)) if value == "a b"));
        assert!(matches!(compile("$${x}"), Some(Value::Literal(value)) if value == "${x}"));
        assert!(matches!(compile("${client.ip}"), Some(Value::Template(_))));
        assert!(compile("a\nb").is_none());
        assert!(compile("${client.ip}\r\nX: y").is_none());
    }
}
