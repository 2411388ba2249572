//! `Template`: text with `${…}` in it, compiled once: header values, redirect targets, bodies, log lines.
//!
//! `${client.ip}` names a fact of the exchange, `${slug}` a piece of the matched path, `$${` stands for `${` itself.
//! (`${HOME}`, all capitals, is the environment's and was put in before the document was read.)

use std::io::Write as _;

use http::header::{COOKIE, HeaderName};

use crate::diag::{Scope, suggest};
use crate::exchange::Facts;

/// What is known when the template is rendered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// Only the request: `response.*` and `upstream.*` may not be named.
    Request,
    /// The response head too.
    Response,
    /// All of it: sizes and durations too.
    End,
}

/// A compiled text.
#[derive(Clone, Debug)]
pub struct Template {
    parts: Box<[Part]>,
}

#[derive(Clone, Debug)]
enum Part {
    Literal(Box<str>),
    Field(Field),
    RequestHeader(HeaderName),
    ResponseHeader(HeaderName),
    Cookie(Box<str>),
    Query(Box<str>),
    Capture(usize),
}

/// The plain fields, each with its name, the first moment at which it is known, and what it is.
macro_rules! fields {
    ($($(#[doc = $doc:literal])+ $field:ident = $name:literal at $moment:ident;)+) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Field { $($(#[doc = $doc])+ $field,)+ }

        const FIELDS: &[(&str, Field, Moment)] = &[$(($name, Field::$field, Moment::$moment),)+];

        /// Every plain field with its description, for the reference.
        pub const FIELD_DOCS: &[(&str, &str)] = &[$(($name, concat!($($doc),+)),)+];
    };
}

fields! {
    /// The client's address, as trusted proxies report it.
    ClientIp = "client.ip" at Request;
    /// The client's port; 0 when a proxy stands between.
    ClientPort = "client.port" at Request;
    /// The address at the other end of the connection.
    PeerIp = "client.peer" at Request;
    /// The request's id, as in `X-Request-Id`.
    RequestId = "request.id" at Request;
    /// The method.
    RequestMethod = "request.method" at Request;
    /// `http` or `https`, as the client reached the outermost trusted proxy.
    RequestScheme = "request.scheme" at Request;
    /// The host asked for, lower case, without port.
    RequestHost = "request.host" at Request;
    /// The normalised path.
    RequestPath = "request.path" at Request;
    /// Path and query as the client sent them.
    RequestUri = "request.uri" at Request;
    /// The query without `?`.
    RequestQuery = "request.query" at Request;
    /// `HTTP/1.1` or another version.
    RequestProtocol = "request.protocol" at Request;
    /// The port of ours that the request came in by.
    ServerPort = "server.port" at Request;
    /// The name of the route.
    RouteName = "route.name" at Request;
    /// The name of the upstream.
    UpstreamName = "upstream.name" at Response;
    /// The backend's address.
    UpstreamAddress = "upstream.address" at Response;
    /// How many backends were tried.
    UpstreamTries = "upstream.tries" at Response;
    /// Milliseconds that connecting to the backend took.
    UpstreamConnectMs = "upstream.connect_ms" at Response;
    /// Milliseconds from the request to the backend's response head.
    UpstreamFirstByteMs = "upstream.first_byte_ms" at Response;
    /// The status that the client gets.
    ResponseStatus = "response.status" at Response;
    /// Bytes of body sent to the client.
    ResponseSize = "response.size" at End;
    /// Bytes of body that the client sent.
    RequestSize = "request.size" at End;
    /// Milliseconds from the request's head to the end of the response.
    DurationMs = "duration_ms" at End;
    /// Why the gateway answered by itself or broke off; empty when it did not.
    Failure = "failure" at End;
    /// What the cache did: `hit`, `stale`, `revalidated`, `collapsed`, `miss` or `bypass`; empty when the route has none.
    CacheStatus = "cache.status" at End;
}

/// Name families that take a name of their own: `request.headers.user-agent`.
const FAMILIES: &[&str] = &["request.headers.", "request.cookies.", "request.query.", "response.headers."];

impl Template {
    /// Compiles `text`, where `captures` are the names that the route's path gives, and `moment` says what will be known.
    /// Reports what is wrong at `at` and answers `None` then.
    pub fn compile(text: &str, captures: &[Box<str>], moment: Moment, at: &Scope<'_>) -> Option<Self> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        let mut sound = true;
        while let Some(dollar) = rest.find("${") {
            if rest[..dollar].ends_with('$') {
                literal.push_str(&rest[..dollar - 1]);
                literal.push_str("${");
                rest = &rest[dollar + 2..];
                continue;
            }
            literal.push_str(&rest[..dollar]);
            let Some(end) = rest[dollar..].find('}') else {
                at.error_hint(
                    format!("`{}` has no closing brace", &rest[dollar..]),
                    "write `$${` for the characters `${` themselves",
                );
                return None;
            };
            let name = &rest[dollar + 2..dollar + end];
            rest = &rest[dollar + end + 1..];
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal).into()));
            }
            match part(name, captures, moment, at) {
                Some(part) => parts.push(part),
                None => sound = false,
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into()));
        }
        sound.then(|| Self { parts: parts.into() })
    }

    /// The whole text, when nothing in it varies.
    pub fn as_literal(&self) -> Option<&str> {
        match &*self.parts {
            [] => Some(""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// How many bytes of it never vary: a text that is no longer says nothing of its request.
    pub fn literal_len(&self) -> usize {
        let literal = |part: &Part| if let Part::Literal(text) = part { text.len() } else { 0 };
        self.parts.iter().map(literal).sum()
    }

    /// Appends the text for these facts.
    pub fn render(&self, facts: &Facts<'_>, out: &mut Vec<u8>) {
        for part in &*self.parts {
            part.render(facts, out);
        }
    }
}

fn part(name: &str, captures: &[Box<str>], moment: Moment, at: &Scope<'_>) -> Option<Part> {
    if let Some(position) = captures.iter().position(|capture| **capture == *name) {
        return Some(Part::Capture(position));
    }
    if let Some((_, field, known)) = FIELDS.iter().find(|(field, _, _)| *field == name) {
        if *known > moment {
            too_early(name, moment, at);
            return None;
        }
        return Some(Part::Field(*field));
    }
    let header = |text: &str| match HeaderName::from_bytes(text.as_bytes()) {
        Ok(name) => Some(name),
        Err(_) => {
            at.error(format!("`{text}` is no header name"));
            None
        }
    };
    if let Some(text) = name.strip_prefix("request.headers.") {
        return header(text).map(Part::RequestHeader);
    }
    if let Some(text) = name.strip_prefix("response.headers.") {
        if moment < Moment::Response {
            too_early(name, moment, at);
            return None;
        }
        return header(text).map(Part::ResponseHeader);
    }
    if let Some(text) = name.strip_prefix("request.cookies.") {
        return Some(Part::Cookie(text.into()));
    }
    if let Some(text) = name.strip_prefix("request.query.") {
        return Some(Part::Query(text.into()));
    }
    let known =
        FIELDS.iter().map(|(field, _, _)| *field).chain(FAMILIES.iter().copied()).chain(captures.iter().map(|c| &**c));
    let hint = suggest::did_you_mean(name, known).unwrap_or_else(|| {
        "write `$${` for the characters `${` themselves; capitals, as in `${HOME}`, name an environment variable"
            .to_owned()
    });
    at.error_hint(format!("nothing is named `${{{name}}}`"), hint);
    None
}

impl Part {
    fn render(&self, facts: &Facts<'_>, out: &mut Vec<u8>) {
        let exchange = facts.exchange;
        match self {
            Self::Literal(text) => out.extend_from_slice(text.as_bytes()),
            Self::Field(field) => field.render(facts, out),
            Self::Capture(position) => {
                out.extend_from_slice(exchange.capture(facts.request, *position).unwrap_or_default().as_bytes());
            }
            Self::RequestHeader(name) => {
                out.extend_from_slice(facts.request.headers.get(name).map_or(b"", |value| value.as_bytes()));
            }
            Self::ResponseHeader(name) => {
                let value = facts.response.and_then(|response| response.headers.get(name));
                out.extend_from_slice(value.map_or(b"", |value| value.as_bytes()));
            }
            Self::Cookie(name) => {
                let fields = facts.request.headers.get_all(COOKIE).iter();
                let value = fields.filter_map(|field| cookie(field.as_bytes(), name.as_bytes())).next();
                out.extend_from_slice(value.unwrap_or_default());
            }
            Self::Query(name) => {
                let query = facts.request.uri.query().unwrap_or_default();
                out.extend_from_slice(query_parameter(query, name).unwrap_or_default().as_bytes());
            }
        }
    }
}

/// The value of one cookie in a `Cookie` field (RFC 6265 4.2.1).
pub fn cookie<'a>(field: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    cookies(field, name).next()
}

/// The values of all cookies of this name in a `Cookie` field: a client may have one for each of several paths.
pub fn cookies<'a>(field: &'a [u8], name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
    field.split(|byte| *byte == b';').filter_map(move |pair| {
        let pair = pair.trim_ascii();
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        (pair[..equals].trim_ascii_end() == name).then(|| pair[equals + 1..].trim_ascii_start())
    })
}

/// The bytes that a query's name or value stands for: `%41` is `A`, `+` is a blank, a broken escape stays.
pub fn decoded(text: &[u8]) -> impl Iterator<Item = u8> {
    let mut left = text;
    std::iter::from_fn(move || {
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        let (byte, rest) = match *left {
            [] => return None,
            [b'%', high, low, ref rest @ ..] => match (digit(high), digit(low)) {
                (Some(high), Some(low)) => (high << 4 | low, rest),
                _ => (b'%', &left[1..]),
            },
            [b'+', ref rest @ ..] => (b' ', rest),
            [byte, ref rest @ ..] => (byte, rest),
        };
        left = rest;
        Some(byte)
    })
}

/// The first value of a query parameter, not decoded; empty when it stands without `=`.
pub fn query_parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

impl Field {
    fn render(self, facts: &Facts<'_>, out: &mut Vec<u8>) {
        let (request, exchange) = (facts.request, facts.exchange);
        let mut number = |number: u64| out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        match self {
            Self::ClientPort => return number(exchange.client_port.into()),
            Self::ServerPort => return number(exchange.local_port.into()),
            Self::UpstreamTries => return number(exchange.tries.into()),
            Self::ResponseSize => return number(exchange.bytes_sent),
            Self::RequestSize => return number(exchange.bytes_received),
            Self::ResponseStatus => {
                let status = facts.response.map_or(exchange.status, |response| response.status.as_u16());
                return number(status.into());
            }
            Self::UpstreamConnectMs => return number(exchange.connect_time.map_or(0, |time| time.as_millis() as u64)),
            Self::UpstreamFirstByteMs => return number(exchange.first_byte.map_or(0, |time| time.as_millis() as u64)),
            Self::DurationMs => return number(exchange.started.elapsed().as_millis() as u64),
            _ => {}
        }
        let text = match self {
            // Writing to a Vec cannot fail.
            Self::ClientIp => return drop(write!(out, "{}", exchange.client)),
            Self::PeerIp => return drop(write!(out, "{}", exchange.peer)),
            Self::RequestProtocol => return drop(write!(out, "{:?}", request.version)),
            Self::RequestId => exchange.id.as_str(),
            Self::RequestMethod => request.method.as_str(),
            Self::RequestScheme => exchange.scheme.as_str(),
            Self::RequestHost => &exchange.host,
            Self::RequestPath => exchange.path(request),
            Self::RequestUri => request.uri.path_and_query().map_or("", |target| target.as_str()),
            Self::RequestQuery => request.uri.query().unwrap_or_default(),
            Self::RouteName => facts.route,
            Self::UpstreamName => facts.upstream,
            Self::UpstreamAddress => facts.backend,
            Self::Failure => exchange.failure.unwrap_or_default(),
            Self::CacheStatus => exchange.cache,
            _ => "",
        };
        out.extend_from_slice(text.as_bytes());
    }
}

fn too_early(name: &str, moment: Moment, at: &Scope<'_>) {
    let hint = match moment {
        Moment::Request => {
            "before there is a response, only `${client.…}`, `${request.…}` and the pieces of the path are known"
        }
        Moment::Response | Moment::End => "it is known when the response has ended: name it in a log format",
    };
    at.error_hint(format!("`${{{name}}}` is not known yet here"), hint);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Issues;
    use crate::exchange::Exchange;
    use pingora::http::RequestHeader;

    fn rendered(text: &str) -> String {
        let issues = Issues::default();
        let template =
            Template::compile(text, &["slug".into()], Moment::Request, &issues.root()).expect("a sound template");
        let mut request = RequestHeader::build("GET", b"/blog/hello?page=2&q", None).unwrap();
        request.insert_header("user-agent", "curl").unwrap();
        request.insert_header("cookie", "a=1; beta=yes").unwrap();
        let mut exchange = Exchange::new();
        exchange.host = "example.com".into();
        exchange.captures.push((6, 11));
        let facts =
            Facts { request: &request, exchange: &exchange, response: None, route: "blog", upstream: "", backend: "" };
        let mut out = Vec::new();
        template.render(&facts, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_template_speaks_of_the_exchange() {
        for (text, said) in [
            ("plain", "plain"),
            ("", ""),
            ("${client.ip}", "127.0.0.1"),
            ("https://${request.host}/${slug}!", "https://example.com/hello!"),
            ("${request.method} ${request.uri}", "GET /blog/hello?page=2&q"),
            ("${request.headers.User-Agent}", "curl"),
            ("${request.headers.absent}", ""),
            ("${request.cookies.beta}", "yes"),
            ("${request.query.page}", "2"),
            ("$${request.id}", "${request.id}"),
            ("$5 and $", "$5 and $"),
            ("${route.name}", "blog"),
            ("${request.protocol}", "HTTP/1.1"),
        ] {
            assert_eq!(rendered(text), said, "{text}");
        }
    }

    #[test]
    fn a_wrong_name_is_told() {
        for (text, told) in [
            ("${client.ipp}", "did you mean `client.ip`?"),
            ("${response.status}", "only `${client.…}`, `${request.…}`"),
            ("${response.headers.etag}", "only `${client.…}`, `${request.…}`"),
            ("${duration_ms}", "only `${client.…}`, `${request.…}`"),
            ("${open", "write `$${`"),
        ] {
            let issues = Issues::default();
            assert!(Template::compile(text, &[], Moment::Request, &issues.root()).is_none(), "{text}");
            let hint = issues.into_vec()[0].hint.clone().unwrap_or_default();
            assert!(hint.contains(told), "{text}: {hint}");
        }
    }
}
