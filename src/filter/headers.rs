//! `headers`: sets, adds and removes header fields, both ways.
//!
//! The same block stands as a filter and as `headers:` of a site or route, so the compiled [`HeaderOps`] is on offer to
//! whoever holds such a block. All values are rendered before the first field changes: a value may speak of a field
//! that the same block removes.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::{HOST, HeaderName, HeaderValue};
use pingora::http::{RequestHeader, ResponseHeader};
use schemars::JsonSchema;
use serde::Deserialize;
use smallvec::SmallVec;

use super::contract::{BuildContext, Filter, Flow, Phase};
use crate::diag::Scope;
use crate::exchange::{Exchange, Facts};
use crate::field::{self, Value};
use crate::template::Moment;
use crate::units::OneOrMany;

/// Changes the header fields of requests, as the upstream gets them, and of responses, as the client gets them.
///
/// Fields of the connection and of framing (`Connection`, `Transfer-Encoding`, `Content-Length`, `Keep-Alive`, `Upgrade`,
/// `TE`, `Trailer`, `Proxy-Connection`) belong to the gateway and cannot be named (RFC 9110 7.6.1).
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "HeaderRules")]
pub struct Config {
    /// Changes to the request.
    #[serde(default)]
    pub request: Ops,
    /// Changes to the response. Values may name `${response.…}` and `${upstream.…}` too.
    #[serde(default)]
    pub response: Ops,
}

/// Changes to the fields of one head: first `remove`, then `set`, then `add`. Values may hold `${client.ip}` and the
/// like; all of them speak of the head as it was before any change. Control characters that reach a value from a client
/// are dropped.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "HeaderOps")]
pub struct Ops {
    /// Fields with their only value: replaces what is there. When `${…}` leaves the value empty, the field is removed
    /// (but `Host` is then kept as it is).
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// Fields with a further value, or a list of them: what is there stays. A value that `${…}` leaves empty is not added.
    #[serde(default)]
    pub add: BTreeMap<String, OneOrMany<String>>,
    /// Names of fields to take away. A `*` at the end stands for any rest, as in `X-Internal-*`; it spares `Host` and the
    /// fields of the connection.
    #[serde(default)]
    pub remove: Vec<String>,
}

impl Config {
    /// Compiles the filter; reports what is wrong below `at`.
    pub fn build(&self, context: &BuildContext<'_>, at: &Scope<'_>) -> Option<HeaderOps> {
        HeaderOps::build(self, context.captures, at)
    }
}

/// Changes to header fields, compiled: as a filter, or as the `headers` of a site or route.
#[derive(Clone, Debug, Default)]
pub struct HeaderOps {
    request: Changes,
    response: Changes,
}

impl HeaderOps {
    /// Compiles the block, where `captures` are the names that the route's path gives. Reports what is wrong below `at`.
    pub fn build(config: &Config, captures: &[Box<str>], at: &Scope<'_>) -> Option<Self> {
        let request = Changes::build(&config.request, captures, Moment::Request, &at.key("request"));
        let response = Changes::build(&config.response, captures, Moment::Response, &at.key("response"));
        Some(Self { request: request?, response: response? })
    }

    /// Whether nothing is done to requests.
    pub fn spares_requests(&self) -> bool {
        self.request.is_empty()
    }

    /// Whether nothing is done to responses.
    pub fn spares_responses(&self) -> bool {
        self.response.is_empty()
    }

    /// Changes a request's head, of which the values speak.
    pub fn apply_request(&self, head: &mut RequestHeader, exchange: &Exchange, route: &str) {
        let facts = Facts { request: head, exchange, response: None, route, upstream: "", backend: "" };
        let values = self.request.render(&facts);
        self.request.apply(head, values);
    }

    /// Changes the head of the request that a backend gets, where the values speak of the client's request, in `facts`.
    pub fn apply_upstream_request(&self, head: &mut RequestHeader, facts: &Facts<'_>) {
        self.request.apply(head, self.request.render(facts));
    }

    /// Changes a response's head, of which the values speak too (whatever `facts.response` is).
    pub fn apply_response(&self, head: &mut ResponseHeader, facts: &Facts<'_>) {
        let values = self.response.render(&Facts { response: Some(head), ..*facts });
        self.response.apply(head, values);
    }
}

impl Filter for HeaderOps {
    fn phases(&self) -> &'static [Phase] {
        match (self.spares_requests(), self.spares_responses()) {
            (false, false) => &[Phase::Request, Phase::Response],
            (false, true) => &[Phase::Request],
            (true, false) => &[Phase::Response],
            (true, true) => &[],
        }
    }

    fn request<'a>(&'a self, head: &'a mut RequestHeader, exchange: &'a mut Exchange, route: &'a str) -> Flow<'a> {
        self.apply_request(head, exchange, route);
        Flow::CONTINUE
    }

    fn response(&self, head: &mut ResponseHeader, facts: &Facts<'_>) {
        self.apply_response(head, facts);
    }
}

/// The changes to one head, compiled.
#[derive(Clone, Debug, Default)]
struct Changes {
    remove: Box<[Removal]>,
    set: Box<[Field]>,
    add: Box<[Field]>,
}

#[derive(Clone, Debug)]
enum Removal {
    Name(HeaderName),
    /// Names that begin so, in lower case.
    Prefix(Box<str>),
}

#[derive(Clone, Debug)]
struct Field {
    name: HeaderName,
    /// The name in the operator's case, which HTTP/1 shows.
    written: Bytes,
    value: Value,
}

/// The rendered values of templates, in the order `set`, `add`; literals are taken where they are.
type Rendered = SmallVec<[Option<HeaderValue>; 2]>;

impl Changes {
    fn build(ops: &Ops, captures: &[Box<str>], moment: Moment, at: &Scope<'_>) -> Option<Self> {
        let remove_at = at.key("remove");
        let remove = ops.remove.iter().enumerate().map(|(index, text)| removal(text, moment, &remove_at.index(index)));
        let remove: Vec<_> = remove.collect();

        let mut set: Vec<Option<Field>> = Vec::new();
        for (name, value) in &ops.set {
            let set_at = at.key("set");
            let field = Field::build(name, value, captures, moment, &set_at.key(name), None);
            let twice = |other: &Field| field.as_ref().is_some_and(|field| field.name == other.name);
            if set.iter().flatten().any(twice) {
                set_at.key(name).error_key(
                    format!("`{name}` is set twice"),
                    Some("names of header fields are the same in upper and lower case; keep one of the two".into()),
                );
            }
            set.push(field);
        }

        let mut add = Vec::new();
        for (name, values) in &ops.add {
            let add_at = at.key("add");
            let field_at = add_at.key(name);
            if name.eq_ignore_ascii_case(HOST.as_str()) {
                field_at.error_key("a request has one `Host`", Some("use `set` to replace it".into()));
                continue;
            }
            for (index, value) in values.iter().enumerate() {
                let place = (values.len() > 1).then_some(index);
                add.push(Field::build(name, value, captures, moment, &field_at, place));
            }
        }

        let all = |fields: Vec<Option<Field>>| fields.into_iter().collect::<Option<Box<[_]>>>();
        Some(Self { remove: remove.into_iter().collect::<Option<_>>()?, set: all(set)?, add: all(add)? })
    }

    fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    fn render(&self, facts: &Facts<'_>) -> Rendered {
        let mut rendered = Rendered::new();
        let mut scratch = Vec::new();
        for field in self.set.iter().chain(&self.add) {
            if matches!(field.value, Value::Template(_)) {
                rendered.push(field.value.render(facts, &mut scratch));
            }
        }
        rendered
    }

    fn apply(&self, head: &mut impl Head, rendered: Rendered) {
        for removal in &self.remove {
            match removal {
                Removal::Name(name) => head.remove(name),
                Removal::Prefix(prefix) => remove_below(head, prefix),
            }
        }
        let mut rendered = rendered.into_iter();
        let mut value_of = |field: &Field| match &field.value {
            Value::Literal(value) => Some(value.clone()),
            Value::Template(_) => rendered.next().flatten(),
        };
        for field in &self.set {
            match value_of(field) {
                Some(value) => head.insert(field.written.clone(), value),
                None if field.name == HOST => {}
                None => head.remove(&field.name),
            }
        }
        for field in &self.add {
            if let Some(value) = value_of(field) {
                head.append(field.written.clone(), value);
            }
        }
    }
}

impl Field {
    /// Compiles one field, whose key is at `at`, and whose value is there too, or item `index` of the list there.
    fn build(
        text: &str,
        value: &str,
        captures: &[Box<str>],
        moment: Moment,
        at: &Scope<'_>,
        index: Option<usize>,
    ) -> Option<Self> {
        let name = field::key(text, at).filter(|name| is_fit(name, moment, at));
        let value = match index {
            Some(index) => Value::compile(value, captures, moment, &at.index(index)),
            None => Value::compile(value, captures, moment, at),
        };
        Some(Self { name: name?, written: Bytes::copy_from_slice(text.as_bytes()), value: value? })
    }
}

/// `Host` is a field of requests.
fn is_fit(name: &HeaderName, moment: Moment, at: &Scope<'_>) -> bool {
    let fit = *name != HOST || moment == Moment::Request;
    if !fit {
        at.error_key("a response has no `Host`", Some("set it under `request`, or leave it out".into()));
    }
    fit
}

fn removal(text: &str, moment: Moment, at: &Scope<'_>) -> Option<Removal> {
    let Some(prefix) = text.strip_suffix('*') else {
        let name = field::name(text).map_err(|(fault, mend)| at.error_hint(fault, mend)).ok()?;
        if name == HOST && moment == Moment::Request {
            at.error_hint("a request needs its `Host`", "use `set` to replace it");
            return None;
        }
        return Some(Removal::Name(name));
    };
    if prefix.is_empty() {
        at.error_hint("`*` would remove every field", "write how the names begin, as in `X-Internal-*`");
        return None;
    }
    match HeaderName::from_bytes(prefix.as_bytes()) {
        // A name is in lower case, as the names in a head are.
        Ok(name) if !prefix.contains('*') => Some(Removal::Prefix(name.as_str().into())),
        _ => {
            at.error_hint(format!("no header name begins with `{prefix}`"), "write a name, or its begin and one `*`");
            None
        }
    }
}

/// Removes the fields whose names begin so, but for those that a message cannot do without.
fn remove_below(head: &mut impl Head, prefix: &str) {
    let doomed = |name: &&HeaderName| name.as_str().starts_with(prefix) && **name != HOST && !field::is_own(name);
    let names: SmallVec<[HeaderName; 4]> = head.fields().keys().filter(doomed).cloned().collect();
    for name in &names {
        head.remove(name);
    }
}

/// What the heads of requests and responses have in common.
trait Head {
    fn fields(&self) -> &http::HeaderMap;
    fn insert(&mut self, name: Bytes, value: HeaderValue);
    fn append(&mut self, name: Bytes, value: HeaderValue);
    fn remove(&mut self, name: &HeaderName);
}

macro_rules! head {
    ($($head:ty),+) => {$(
        impl Head for $head {
            fn fields(&self) -> &http::HeaderMap {
                &self.headers
            }
            fn insert(&mut self, name: Bytes, value: HeaderValue) {
                // It fails for names that are none, and those were refused by `build`.
                let _ = self.insert_header(name, value);
            }
            fn append(&mut self, name: Bytes, value: HeaderValue) {
                // It fails, too, for more than 32,768 fields: more than any head is let in with.
                let _ = self.append_header(name, value);
            }
            fn remove(&mut self, name: &HeaderName) {
                self.remove_header(name);
            }
        }
    )+};
}
head!(RequestHeader, ResponseHeader);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Issues;

    fn build(json: &str) -> (Option<HeaderOps>, Vec<String>) {
        let config: Config = serde_json::from_str(json).unwrap();
        let issues = Issues::default();
        let ops = HeaderOps::build(&config, &["slug".into()], &issues.root());
        (ops, issues.into_vec().iter().map(|issue| format!("{}: {}", issue.path, issue.message)).collect())
    }

    fn ops(json: &str) -> HeaderOps {
        let (ops, issues) = build(json);
        ops.unwrap_or_else(|| panic!("{json}: {issues:?}"))
    }

    /// The head as HTTP/1 shows it, line by line, sorted.
    fn lines(write: impl FnOnce(&mut Vec<u8>)) -> Vec<String> {
        let mut wire = Vec::new();
        write(&mut wire);
        let mut lines: Vec<_> = String::from_utf8(wire).unwrap().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    fn request_after(json: &str, fields: &[(&'static str, &str)]) -> Vec<String> {
        let mut head = RequestHeader::build("GET", b"/blog/hello?q=1", None).unwrap();
        for (name, value) in fields {
            head.append_header(*name, *value).unwrap();
        }
        let mut exchange = Exchange::new();
        exchange.captures.push((6, 11));
        ops(json).apply_request(&mut head, &exchange, "blog");
        lines(|wire| head.header_to_h1_wire(wire))
    }

    #[test]
    fn fields_are_removed_then_set_then_added() {
        for (json, before, after) in [
            (r#"{"set": {"X-A": "1"}}"#, &[("x-a", "0"), ("x-a", "2")][..], &["X-A: 1"][..]),
            (r#"{"add": {"X-A": ["1", "2"]}}"#, &[("x-a", "0")], &["X-A: 1", "X-A: 2", "x-a: 0"]),
            (r#"{"add": {"x-lOw": "1"}}"#, &[], &["x-lOw: 1"]),
            (r#"{"remove": ["X-A"], "add": {"X-A": "1"}}"#, &[("x-a", "0")], &["X-A: 1"]),
            (r#"{"set": {"X-A": "1"}, "add": {"x-a": "2"}}"#, &[("x-a", "0")], &["X-A: 1", "x-a: 2"]),
            (r#"{"remove": ["X-Internal-*"]}"#, &[("X-Internal-User", "u"), ("X-Inter", "i")], &["X-Inter: i"]),
            (
                r#"{"remove": ["co*", "H*"]}"#,
                &[("Content-Length", "1"), ("Cookie", "a"), ("Host", "h")],
                &["Content-Length: 1", "Host: h"],
            ),
            (r#"{"set": {"Host": "b"}}"#, &[("host", "a")], &["Host: b"]),
            (r#"{"set": {"X-Empty": ""}}"#, &[], &["X-Empty: "]),
        ] {
            assert_eq!(request_after(&format!("{{\"request\": {json}}}"), before), after, "{json}");
        }
    }

    #[test]
    fn values_speak_of_the_head_as_it_was() {
        for (json, before, after) in [
            (r#"{"set": {"X-Slug": "${slug} on ${route.name}"}}"#, &[][..], &["X-Slug: hello on blog"][..]),
            (r#"{"remove": ["A"], "set": {"B": "${request.headers.a}"}}"#, &[("a", "1")], &["B: 1"]),
            (
                r#"{"set": {"A": "${request.headers.b}", "B": "${request.headers.a}"}}"#,
                &[("A", "1"), ("B", "2")],
                &["A: 2", "B: 1"],
            ),
            (r#"{"set": {"A": "${request.headers.none}"}}"#, &[("a", "forged")], &[]),
            (r#"{"add": {"A": "${request.headers.none}"}}"#, &[("a", "0")], &["a: 0"]),
            (r#"{"set": {"Host": "${request.headers.none}"}}"#, &[("host", "a")], &["host: a"]),
            (
                r#"{"set": {"A": "lit", "B": "${request.method}"}, "add": {"C": ["x", "${slug}"]}}"#,
                &[],
                &["A: lit", "B: GET", "C: hello", "C: x"],
            ),
        ] {
            assert_eq!(request_after(&format!("{{\"request\": {json}}}"), before), after, "{json}");
        }
    }

    #[test]
    fn a_response_is_changed_by_what_it_says_itself() {
        let ops =
            ops(r#"{"response": {"set": {"X-Was": "${response.status} ${response.headers.server} ${upstream.name}"},
            "remove": ["Server"]}}"#);
        let request = RequestHeader::build("GET", b"/", None).unwrap();
        let exchange = Exchange::new();
        let mut head = ResponseHeader::build(404, None).unwrap();
        head.insert_header("server", "secret").unwrap();
        let facts =
            Facts { request: &request, exchange: &exchange, response: None, route: "", upstream: "api", backend: "" };
        assert_eq!(ops.phases(), [Phase::Response]);
        ops.response(&mut head, &facts);
        assert_eq!(lines(|wire| head.header_to_h1_wire(wire)), ["X-Was: 404 secret api"]);
    }

    #[test]
    fn an_upstream_request_is_changed_by_what_the_client_said() {
        let ops = ops(r#"{"request": {"set": {"X-Path": "${request.path}"}}}"#);
        let request = RequestHeader::build("GET", b"/as/sent", None).unwrap();
        let mut head = RequestHeader::build("GET", b"/rewritten", None).unwrap();
        let exchange = Exchange::new();
        let facts =
            Facts { request: &request, exchange: &exchange, response: None, route: "", upstream: "", backend: "" };
        ops.apply_upstream_request(&mut head, &facts);
        assert_eq!(head.headers["x-path"], "/as/sent");
    }

    #[test]
    fn a_head_without_cases_is_changed_too() {
        let ops = ops(r#"{"request": {"set": {"X-A": "1"}, "remove": ["X-B"]}}"#);
        let mut head = RequestHeader::build_no_case("GET", b"/", None).unwrap();
        head.insert_header("x-b", "2").unwrap();
        ops.apply_request(&mut head, &Exchange::new(), "");
        assert_eq!((head.headers.len(), &head.headers["x-a"]), (1, &HeaderValue::from_static("1")));
    }

    #[test]
    fn what_a_head_cannot_bear_is_a_fault() {
        for (json, faults) in [
            (
                r#"{"request": {"set": {"Connection": "close"}}}"#,
                &["request.set.Connection: `Connection` belongs to the connection and cannot be changed"][..],
            ),
            (
                r#"{"response": {"remove": ["X-A", "Content-Length"]}}"#,
                &["response.remove[1]: `Content-Length` belongs to the connection and cannot be changed"],
            ),
            (r#"{"request": {"set": {"X A": "1"}}}"#, &["request.set[\"X A\"]: `X A` is no header name"]),
            (r#"{"request": {"set": {"X-A": "1", "x-a": "2"}}}"#, &["request.set.x-a: `x-a` is set twice"]),
            (r#"{"request": {"remove": ["*"]}}"#, &["request.remove[0]: `*` would remove every field"]),
            (r#"{"request": {"remove": ["X-*-Y*"]}}"#, &["request.remove[0]: no header name begins with `X-*-Y`"]),
            (r#"{"request": {"remove": ["Host"]}}"#, &["request.remove[0]: a request needs its `Host`"]),
            (r#"{"request": {"add": {"host": "a"}}}"#, &["request.add.host: a request has one `Host`"]),
            (r#"{"response": {"set": {"Host": "a"}}}"#, &["response.set.Host: a response has no `Host`"]),
            (
                r#"{"request": {"add": {"X-A": ["1", "${response.status}"]}}}"#,
                &["request.add.X-A[1]: `${response.status}` is not known yet here"],
            ),
        ] {
            let (ops, told) = build(json);
            assert_eq!(told, faults, "{json}");
            let warned_only = json.contains("x-a") && ops.is_some();
            assert!(ops.is_none() || warned_only || json.contains("\"host\""), "{json}");
        }
    }
}
