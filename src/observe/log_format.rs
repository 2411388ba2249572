//! One line of access log: JSON, Apache's combined format, or a template.
//!
//! Whatever bytes a client sends, a line stays one line and its fields stay apart: JSON by its own escapes, the others
//! by `\xHH` for `"`, `\`, control characters and whatever is not ASCII, as nginx and Apache write them.

use std::io::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use http::header::{HeaderName, REFERER, USER_AGENT};
use pingora::http::RequestHeader;

use super::wall_clock;
use crate::diag::{Scope, suggest};
use crate::exchange::{Exchange, Facts};
use crate::template::{Moment, Template};

/// How a line is written.
#[derive(Clone, Debug)]
pub struct Format(Kind);

#[derive(Clone, Debug)]
enum Kind {
    /// One JSON object.
    Json,
    /// Apache's combined log format.
    Combined,
    /// A text of the operator's own.
    Template(Box<[Piece]>),
}

#[derive(Clone, Debug)]
enum Piece {
    /// Written as it stands in the document.
    Literal(Box<str>),
    /// Escaped, as what it says may come from a client.
    Filled(Template),
}

impl Format {
    /// Compiles the text of `format:`. Reports what is wrong at `at` and answers `None` then.
    pub fn build(text: &str, at: &Scope<'_>) -> Option<Self> {
        match text {
            "json" => Some(Self(Kind::Json)),
            "combined" => Some(Self(Kind::Combined)),
            _ if !text.contains("${") => {
                let hint = suggest::did_you_mean(text, ["json", "combined", "none"]);
                let other = || "write `json`, `combined`, or a text with fields in it, as in `${client.ip}`".into();
                at.error_hint(format!("`{text}` is no log format"), hint.unwrap_or_else(other));
                None
            }
            _ => pieces(text, at).map(|pieces| Self(Kind::Template(pieces))),
        }
    }

    /// Appends the line of one finished request, without its end.
    pub fn write(&self, facts: &Facts<'_>, out: &mut Vec<u8>) {
        match &self.0 {
            Kind::Json => json(facts, out),
            Kind::Combined => combined(facts, out),
            Kind::Template(pieces) => {
                for piece in pieces {
                    match piece {
                        Piece::Literal(text) => out.extend_from_slice(text.as_bytes()),
                        Piece::Filled(template) => {
                            let begin = out.len();
                            template.render(facts, out);
                            hex_escape_from(begin, out);
                        }
                    }
                }
            }
        }
    }

    /// Appends the line of a request that was refused before it could be read, without its end.
    pub fn write_refused(&self, client: IpAddr, status: u16, reason: &'static str, out: &mut Vec<u8>) {
        match &self.0 {
            Kind::Json => {
                out.extend_from_slice(b"{\"time\":\"");
                wall_clock::rfc3339(out);
                out.extend_from_slice(b"\",\"client\":\"");
                address(client, out);
                out.extend_from_slice(b"\",\"status\":");
                number(status.into(), out);
                json_text(b",\"failure\":", reason.as_bytes(), out);
                out.push(b'}');
            }
            Kind::Combined => {
                address(client, out);
                out.extend_from_slice(b" - - [");
                wall_clock::clf(out);
                out.extend_from_slice(b"] \"-\" ");
                number(status.into(), out);
                out.extend_from_slice(b" - \"-\" \"-\"");
            }
            Kind::Template(_) => {
                // Rare enough to build a stand-in for the head that could not be read.
                let Ok(request) = RequestHeader::build("-", b"*", None) else { return };
                let exchange = Exchange { client, peer: client, status, failure: Some(reason), ..Exchange::new() };
                let (request, exchange) = (&request, &exchange);
                self.write(&Facts { request, exchange, response: None, route: "", upstream: "", backend: "" }, out);
            }
        }
    }
}

/// Cuts a template at each character that values may not hold, so that the document's own quotes and tabs stay as they
/// are while the same characters in values are escaped.
fn pieces(text: &str, at: &Scope<'_>) -> Option<Box<[Piece]>> {
    // A block text of YAML ends in a line break that nobody means.
    let text = text.strip_suffix('\n').unwrap_or(text);
    if text.contains(['\n', '\r']) {
        at.error_hint("a log format cannot hold line breaks", "write it on one line");
        return None;
    }
    let special = |c: char| !c.is_ascii() || is_special(c as u8);
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let literal = special(first);
        let end = rest.find(|c| special(c) != literal).unwrap_or(rest.len());
        let (piece, after) = rest.split_at(end);
        rest = after;
        if literal {
            pieces.push(Piece::Literal(piece.into()));
            continue;
        }
        let template = Template::compile(piece, &[], Moment::End, at)?;
        let literal = template.as_literal().map(|text| Piece::Literal(text.into()));
        pieces.push(literal.unwrap_or(Piece::Filled(template)));
    }
    Some(pieces.into())
}

fn json(facts: &Facts<'_>, out: &mut Vec<u8>) {
    let (request, exchange) = (facts.request, facts.exchange);
    out.extend_from_slice(b"{\"time\":\"");
    wall_clock::rfc3339(out);
    out.push(b'"');
    json_text(b",\"id\":", exchange.id.as_str().as_bytes(), out);
    out.extend_from_slice(b",\"client\":\"");
    address(exchange.client, out);
    out.push(b'"');
    if exchange.client_port != 0 {
        json_number(b",\"client_port\":", exchange.client_port.into(), out);
    }
    json_text(b",\"method\":", request.method.as_str().as_bytes(), out);
    json_text(b",\"scheme\":", exchange.scheme.as_str().as_bytes(), out);
    json_text(b",\"host\":", exchange.host.as_bytes(), out);
    json_text(b",\"path\":", request.raw_path(), out);
    json_text(b",\"protocol\":", protocol(request), out);
    json_number(b",\"status\":", exchange.status.into(), out);
    json_number(b",\"bytes_sent\":", exchange.bytes_sent, out);
    json_number(b",\"bytes_received\":", exchange.bytes_received, out);
    json_millis(b",\"duration_ms\":", Some(exchange.started.elapsed()), out);
    json_text(b",\"route\":", facts.route.as_bytes(), out);
    json_text(b",\"upstream\":", facts.upstream.as_bytes(), out);
    json_text(b",\"backend\":", facts.backend.as_bytes(), out);
    if exchange.tries != 0 {
        json_number(b",\"tries\":", exchange.tries.into(), out);
    }
    json_millis(b",\"connect_ms\":", exchange.connect_time, out);
    json_millis(b",\"first_byte_ms\":", exchange.first_byte, out);
    json_text(b",\"user_agent\":", field(request, &USER_AGENT), out);
    json_text(b",\"referer\":", field(request, &REFERER), out);
    json_text(b",\"cache\":", exchange.cache.as_bytes(), out);
    json_text(b",\"failure\":", exchange.failure.unwrap_or_default().as_bytes(), out);
    out.push(b'}');
}

fn combined(facts: &Facts<'_>, out: &mut Vec<u8>) {
    let (request, exchange) = (facts.request, facts.exchange);
    address(exchange.client, out);
    out.extend_from_slice(b" - - [");
    wall_clock::clf(out);
    out.extend_from_slice(b"] \"");
    hex_escaped(request.method.as_str().as_bytes(), out);
    out.push(b' ');
    hex_escaped(request.raw_path(), out);
    out.push(b' ');
    out.extend_from_slice(protocol(request));
    out.extend_from_slice(b"\" ");
    number(exchange.status.into(), out);
    out.push(b' ');
    match exchange.bytes_sent {
        0 => out.push(b'-'),
        bytes => number(bytes, out),
    }
    for name in [&REFERER, &USER_AGENT] {
        out.extend_from_slice(b" \"");
        match field(request, name) {
            b"" => out.push(b'-'),
            value => hex_escaped(value, out),
        }
        out.push(b'"');
    }
}

fn field<'a>(request: &'a RequestHeader, name: &HeaderName) -> &'a [u8] {
    request.headers.get(name).map_or(b"", |value| value.as_bytes())
}

fn protocol(request: &RequestHeader) -> &'static [u8] {
    match request.version {
        http::Version::HTTP_11 => b"HTTP/1.1",
        http::Version::HTTP_2 => b"HTTP/2.0",
        http::Version::HTTP_3 => b"HTTP/3.0",
        http::Version::HTTP_10 => b"HTTP/1.0",
        _ => b"HTTP/0.9",
    }
}

fn number(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn address(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(address) => {
            let [first, rest @ ..] = address.octets();
            number(first.into(), out);
            for octet in rest {
                out.push(b'.');
                number(octet.into(), out);
            }
        }
        // Writing to a Vec cannot fail.
        IpAddr::V6(address) => drop(write!(out, "{address}")),
    }
}

fn json_number(key: &[u8], value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(key);
    number(value, out);
}

/// Milliseconds with three decimals; nothing when there is no span.
fn json_millis(key: &[u8], span: Option<Duration>, out: &mut Vec<u8>) {
    let Some(span) = span else { return };
    let micros = span.as_micros() as u64;
    json_number(key, micros / 1000, out);
    let fraction = (micros % 1000) as u16;
    let digit = |place: u16| b'0' + (fraction / place % 10) as u8;
    out.extend_from_slice(&[b'.', digit(100), digit(10), digit(1)]);
}

/// A member whose value is text; nothing when the text is empty.
fn json_text(key: &[u8], text: &[u8], out: &mut Vec<u8>) {
    if text.is_empty() {
        return;
    }
    out.extend_from_slice(key);
    out.push(b'"');
    if text.iter().fold(false, |any, byte| any | !byte.is_ascii() | is_special(*byte)) {
        json_escaped(text, out);
    } else {
        out.extend_from_slice(text);
    }
    out.push(b'"');
}

fn json_escaped(text: &[u8], out: &mut Vec<u8>) {
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '\t' => out.extend_from_slice(b"\\t"),
                // JSON itself asks for those below U+0020 only; the others steer terminals or break lines in some tools.
                c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                    // Writing to a Vec cannot fail.
                    drop(write!(out, "\\u{:04x}", c as u32));
                }
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// What ASCII has that would end a quoted text, or a line, or steer a terminal.
const fn is_special(byte: u8) -> bool {
    byte < b' ' || byte == b'"' || byte == b'\\' || byte == 0x7f
}

fn hex_escaped(text: &[u8], out: &mut Vec<u8>) {
    let begin = out.len();
    out.extend_from_slice(text);
    hex_escape_from(begin, out);
}

/// Escapes what was appended since `begin`. Most often there is nothing to do.
fn hex_escape_from(begin: usize, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    if !out[begin..].iter().fold(false, |any, byte| any | !byte.is_ascii() | is_special(*byte)) {
        return;
    }
    for byte in out.split_off(begin) {
        if byte.is_ascii() && !is_special(byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(&[b'\\', b'x', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Issues;
    use crate::exchange::RequestId;
    use http::HeaderValue;
    use proptest::prelude::*;
    use serde_json::Value;

    const JSON: Format = Format(Kind::Json);
    const COMBINED: Format = Format(Kind::Combined);

    fn request(path: &[u8], agent: &[u8]) -> RequestHeader {
        let mut request = RequestHeader::build("GET", path, None).unwrap();
        if !agent.is_empty() {
            request.insert_header(USER_AGENT, HeaderValue::from_bytes(agent).unwrap()).unwrap();
        }
        request
    }

    fn line(format: &Format, request: &RequestHeader, exchange: &Exchange) -> String {
        let mut out = Vec::new();
        let facts = Facts { request, exchange, response: None, route: "shop", upstream: "", backend: "" };
        format.write(&facts, &mut out);
        String::from_utf8(out).expect("a line is UTF-8")
    }

    fn template(text: &str) -> Format {
        let issues = Issues::default();
        Format::build(text, &issues.root()).unwrap_or_else(|| panic!("{:?}", issues.into_vec()))
    }

    #[test]
    fn a_json_line_has_its_fields_in_order_and_leaves_out_what_is_absent() {
        let mut exchange = Exchange::new();
        let bare = line(&JSON, &request(b"/a?b=1", b""), &exchange);
        let names = |line: &str| -> Vec<String> {
            let members = line.trim_matches(['{', '}']).split(",\"").map(|member| member.trim_start_matches('"'));
            members.map(|member| member.split('"').next().unwrap().to_owned()).collect()
        };
        assert_eq!(
            names(&bare).join(" "),
            "time client method scheme path protocol status bytes_sent bytes_received duration_ms route"
        );
        exchange.id = RequestId::from_header(b"7").unwrap();
        (exchange.client_port, exchange.host, exchange.status) = (4711, "shop.example".into(), 502);
        (exchange.tries, exchange.bytes_sent, exchange.failure) = (2, 12, Some("read_timeout"));
        exchange.connect_time = Some(Duration::from_micros(1_050));
        exchange.first_byte = Some(Duration::from_millis(12_034));
        let mut request = request(b"/a", b"curl");
        request.insert_header(REFERER, "https://a/").unwrap();
        let mut out = Vec::new();
        let facts = Facts {
            request: &request,
            exchange: &exchange,
            response: None,
            route: "r",
            upstream: "api",
            backend: "10.0.0.1:80",
        };
        JSON.write(&facts, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            names(&text).join(" "),
            "time id client client_port method scheme host path protocol status bytes_sent bytes_received duration_ms \
             route upstream backend tries connect_ms first_byte_ms user_agent referer failure"
        );
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&value["status"], &value["client"]), (&502.into(), &"127.0.0.1".into()));
        assert!(text.contains(",\"connect_ms\":1.050,\"first_byte_ms\":12034.000,"), "{text}");
    }

    #[test]
    fn json_text_is_escaped() {
        for (raw, written) in [
            (&b"plain /~"[..], "plain /~"),
            (b"a\"b\\c", r#"a\"b\\c"#),
            (b"\n\r\t\x00\x1b\x7f", r"\n\r\t\u0000\u001b\u007f"),
            ("Grüße".as_bytes(), "Grüße"),
            (b"\xff a \xc3", "\u{fffd} a \u{fffd}"),
            ("\u{2028}\u{85}".as_bytes(), r"\u2028\u0085"),
        ] {
            let mut out = Vec::new();
            json_text(b"", raw, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), format!("\"{written}\""));
        }
    }

    #[test]
    fn a_combined_line_is_as_apache_writes_it() {
        let mut exchange = Exchange::new();
        (exchange.status, exchange.bytes_sent) = (200, 2326);
        let before_and_after = |line: String| {
            let (before, rest) = line.split_once(" [").unwrap();
            format!("{before} {}", rest.split_once("] ").unwrap().1)
        };
        let text = line(&COMBINED, &request(b"/a?b=\xe9", b"x\"y\\z\t\xe9"), &exchange);
        assert_eq!(
            before_and_after(text),
            r#"127.0.0.1 - - "GET /a?b=\xE9 HTTP/1.1" 200 2326 "-" "x\x22y\x5Cz\x09\xE9""#
        );
        exchange.bytes_sent = 0;
        exchange.client = "2001:db8::1".parse().unwrap();
        let text = line(&COMBINED, &request(b"/", b""), &exchange);
        assert_eq!(before_and_after(text), r#"2001:db8::1 - - "GET / HTTP/1.1" 200 - "-" "-""#);
    }

    #[test]
    fn a_templates_own_quotes_stay_and_those_of_values_are_escaped() {
        for (text, agent, written) in [
            ("${client.ip}", "", "127.0.0.1"),
            ("\"${request.headers.user-agent}\"\t${route.name} → x\n", "a\"b\tc", "\"a\\x22b\\x09c\"\tshop → x"),
            ("${request.method} $${x} \\", "", "GET ${x} \\"),
        ] {
            assert_eq!(line(&template(text), &request(b"/", agent.as_bytes()), &Exchange::new()), written, "{text}");
        }
    }

    #[test]
    fn a_wrong_format_is_told() {
        for (text, told) in [
            ("jsn", "did you mean `json`?"),
            ("apache", "write `json`, `combined`"),
            ("${client.ip}\n${request.id}", "one line"),
            ("\"${client.ipp}\"", "client.ip"),
        ] {
            let issues = Issues::default();
            assert!(Format::build(text, &issues.root()).is_none(), "{text}");
            let hint = issues.into_vec()[0].hint.clone().unwrap_or_default();
            assert!(hint.contains(told), "{text}: {hint}");
        }
    }

    #[test]
    fn a_refused_request_leaves_a_short_line() {
        let client = "10.1.2.3".parse().unwrap();
        for (format, begins, ends) in [
            (JSON, "{\"time\":\"2", ",\"client\":\"10.1.2.3\",\"status\":400,\"failure\":\"malformed\"}"),
            (COMBINED, "10.1.2.3 - - [", "] \"-\" 400 - \"-\" \"-\""),
            (template("${client.ip} ${response.status} ${failure}"), "10.1.2.3 400", " malformed"),
        ] {
            let mut out = Vec::new();
            format.write_refused(client, 400, "malformed", &mut out);
            let text = String::from_utf8(out).unwrap();
            assert!(text.starts_with(begins) && text.ends_with(ends), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_client_sends_a_line_stays_one_line(
            path in prop::collection::vec(prop_oneof![0x21_u8..=0x7e, 0x80_u8..], 0..40),
            agent in prop::collection::vec(prop_oneof![Just(b'\t'), Just(b'"'), Just(b'\\'), 0x20_u8..0x7f, 0x80_u8..], 1..40),
            host in ".{0,20}",
            text in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let mut sent = vec![b'/'];
            sent.extend(path);
            let Ok(mut request) = RequestHeader::build("GET", &sent, None) else { return Ok(()) };
            request.insert_header(USER_AGENT, HeaderValue::from_bytes(&agent).unwrap()).unwrap();
            let mut exchange = Exchange::new();
            exchange.host = host.clone();
            let json = line(&JSON, &request, &exchange);
            prop_assert!(!json.chars().any(char::is_control), "{json}");
            let value: Value = serde_json::from_str(&json).expect(&json);
            prop_assert_eq!(value["host"].as_str().unwrap_or_default(), &host);
            prop_assert_eq!(value["user_agent"].as_str(), Some(&*String::from_utf8_lossy(&agent)));
            for format in [COMBINED, template("\"${request.headers.user-agent}\" ${request.host}")] {
                let text = line(&format, &request, &exchange);
                prop_assert!(text.is_ascii() && !text.bytes().any(|byte| byte < b' ' || byte == 0x7f), "{text}");
            }
            let mut out = Vec::new();
            json_text(b"", &text, &mut out);
            if !text.is_empty() {
                let back: String = serde_json::from_slice(&out).expect("a JSON text");
                prop_assert_eq!(back, String::from_utf8_lossy(&text));
            }
        }
    }
}
