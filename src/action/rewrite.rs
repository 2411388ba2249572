//! `rewrite`: changes the path that the upstream sees; the query stays.
//!
//! It works on the normalised path, and what it makes is normal again: percent-encoded, without dot segments or empty
//! segments, beginning with `/`.

use std::borrow::Cow;

use regex::Regex;
use schemars::JsonSchema;
use serde::Deserialize;

use super::encode;
use crate::diag::{Scope, suggest};
use crate::exchange::Facts;
use crate::template::{Moment, Template};

/// Changes the path that the upstream sees. The query stays as it is. Exactly one of these forms.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[schemars(rename = "Rewrite")]
pub enum Config {
    /// Takes this off the begin of the path: `/api` makes `/api/users` to `/users`, and `/api` to `/`. Whole segments
    /// only: `/apix` stays as it is.
    StripPrefix(String),
    /// Puts another begin in place of one, by whole segments.
    ReplacePrefix(ReplacePrefix),
    /// Replaces the first match of a regular expression.
    Regex(Pattern),
    /// The whole path anew; may hold `${…}`.
    Path(String),
}

/// Puts another begin in place of one.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ReplacePrefix")]
pub struct ReplacePrefix {
    /// The begin to replace, by whole segments; `/` puts `to` before every path.
    pub from: String,
    /// What stands there instead; may hold `${…}`.
    pub to: String,
}

/// Replaces the first match of a regular expression; what lies outside of the match stays.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RegexRewrite")]
pub struct Pattern {
    /// The regular expression, searched in the normalised path; `^` and `$` bind it to begin and end.
    pub pattern: String,
    /// What stands in place of the match: `${name}` and `${1}` are its groups, `${client.ip}` and the like work too.
    pub to: String,
}

/// A rewrite, compiled.
#[derive(Debug)]
pub struct Rewrite(Kind);

#[derive(Debug)]
enum Kind {
    /// Without a final `/`.
    Strip(Box<str>),
    Replace {
        from: Box<str>,
        to: Target,
    },
    Regex {
        pattern: Regex,
        to: Box<[Piece]>,
    },
    Path(Target),
}

#[derive(Debug)]
enum Target {
    Literal(String),
    Template(Template),
}

#[derive(Debug)]
enum Piece {
    Text(Template),
    Group(usize),
}

impl Rewrite {
    /// Compiles the rewrite, where `captures` are the names that the route's path gives; reports what is wrong below `at`.
    pub fn build(config: &Config, captures: &[Box<str>], at: &Scope<'_>) -> Option<Self> {
        Some(Self(match config {
            Config::StripPrefix(prefix) => {
                let at = at.key("strip_prefix");
                let prefix = prefix_of(prefix, &at)?;
                if prefix.is_empty() {
                    at.error_hint("`/` strips nothing", "write the begin to take off, as in `/api`");
                    return None;
                }
                Kind::Strip(prefix)
            }
            Config::ReplacePrefix(ReplacePrefix { from, to }) => {
                let at = at.key("replace_prefix");
                let (from, to) = (prefix_of(from, &at.key("from")), Target::build(to, captures, &at.key("to")));
                Kind::Replace { from: from?, to: to? }
            }
            Config::Regex(Pattern { pattern, to }) => {
                let at = at.key("regex");
                let pattern = regex(pattern, &at.key("pattern"))?;
                let to = pieces(to, &pattern, captures, &at.key("to"))?;
                Kind::Regex { pattern, to }
            }
            Config::Path(path) => Kind::Path(Target::build(path, captures, &at.key("path"))?),
        }))
    }

    /// The path that the upstream sees for this normalised path.
    pub fn apply<'a>(&'a self, path: &'a str, facts: &Facts<'_>) -> Cow<'a, str> {
        match &self.0 {
            Kind::Strip(prefix) => match below(path, prefix) {
                Some("") => Cow::Borrowed("/"),
                Some(rest) => Cow::Borrowed(rest),
                None => Cow::Borrowed(path),
            },
            Kind::Replace { from, to } => {
                let Some(rest) = below(path, from) else { return Cow::Borrowed(path) };
                let mut made = Vec::with_capacity(path.len() + 32);
                to.render(facts, &mut made);
                made.extend_from_slice(rest.as_bytes());
                Cow::Owned(encode::path(&made))
            }
            Kind::Regex { pattern, to } => {
                let Some(groups) = pattern.captures(path) else { return Cow::Borrowed(path) };
                let whole = groups.get_match();
                let mut made = Vec::with_capacity(path.len() + 32);
                made.extend_from_slice(&path.as_bytes()[..whole.start()]);
                for piece in to {
                    match piece {
                        Piece::Text(template) => template.render(facts, &mut made),
                        Piece::Group(group) => {
                            made.extend_from_slice(groups.get(*group).map_or("", |group| group.as_str()).as_bytes());
                        }
                    }
                }
                made.extend_from_slice(&path.as_bytes()[whole.end()..]);
                Cow::Owned(encode::path(&made))
            }
            Kind::Path(Target::Literal(path)) => Cow::Borrowed(path),
            Kind::Path(target) => {
                let mut made = Vec::new();
                target.render(facts, &mut made);
                Cow::Owned(encode::path(&made))
            }
        }
    }
}

/// What follows the prefix in the path, if the path lies below it: empty, or beginning with `/`.
fn below<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The prefix as it begins normalised paths, without a final `/`.
fn prefix_of(text: &str, at: &Scope<'_>) -> Option<Box<str>> {
    is_path(text, at).then(|| encode::path(text.as_bytes()).trim_end_matches('/').into())
}

/// Whether the text can be a path: reports it when it does not begin with `/`, or has a query.
fn is_path(text: &str, at: &Scope<'_>) -> bool {
    let sound = text.starts_with('/') || text.starts_with("${");
    if !sound {
        at.error_hint(format!("`{text}` is no path"), format!("begin it with `/`, as in `/{text}`"));
    }
    sound && has_no_query(text, at)
}

fn has_no_query(text: &str, at: &Scope<'_>) -> bool {
    let sound = !text.contains(['?', '#']);
    if !sound {
        at.error_hint(format!("`{text}` has more than a path"), "leave the query out: that of the request is kept");
    }
    sound
}

impl Target {
    fn build(text: &str, captures: &[Box<str>], at: &Scope<'_>) -> Option<Self> {
        let template = is_path(text, at).then(|| Template::compile(text, captures, Moment::Request, at))??;
        Some(match template.as_literal() {
            Some(literal) => Self::Literal(encode::path(literal.as_bytes())),
            None => Self::Template(template),
        })
    }

    fn render(&self, facts: &Facts<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Literal(text) => out.extend_from_slice(text.as_bytes()),
            Self::Template(template) => template.render(facts, out),
        }
    }
}

fn regex(pattern: &str, at: &Scope<'_>) -> Option<Regex> {
    Regex::new(pattern)
        .map_err(|error| {
            let told = error.to_string();
            let last = told.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            at.error_hint(
                format!("`{pattern}` is no regular expression: {last}"),
                "write a Rust regular expression in single quotes, as in '^/x/(?<id>\\d+)$'",
            );
        })
        .ok()
}

/// Splits the text at the groups of the pattern; what else stands in `${…}` is left to templates.
fn pieces(text: &str, pattern: &Regex, captures: &[Box<str>], at: &Scope<'_>) -> Option<Box<[Piece]>> {
    if !has_no_query(text, at) {
        return None;
    }
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    let mut sound = true;
    while let Some(dollar) = rest.find("${") {
        let end = rest[dollar..].find('}').map(|end| dollar + end);
        let escaped = rest[..dollar].ends_with('$');
        let name = end.filter(|_| !escaped).map(|end| &rest[dollar + 2..end]);
        match name.map(|name| (name, group(name, pattern))) {
            Some((_, Some(group))) => {
                plain.push_str(&rest[..dollar]);
                sound &= push_text(&mut pieces, &mut plain, captures, at);
                pieces.push(Piece::Group(group));
                rest = &rest[end.map_or(rest.len(), |end| end + 1)..];
            }
            Some((name, None)) if is_plain(name) && !captures.iter().any(|capture| **capture == *name) => {
                let known = pattern.capture_names().flatten().chain(captures.iter().map(|capture| &**capture));
                let hint = suggest::did_you_mean(name, known).unwrap_or_else(|| {
                    format!("name it in the pattern as `(?<{name}>…)`, or write `${{1}}` for the first group")
                });
                at.error_hint(format!("the pattern has no group `{name}`"), hint);
                return None;
            }
            _ => {
                plain.push_str(&rest[..dollar + 2]);
                rest = &rest[dollar + 2..];
            }
        }
    }
    plain.push_str(rest);
    sound &= push_text(&mut pieces, &mut plain, captures, at);
    sound.then(|| pieces.into())
}

/// Whether it is a name as groups have, not one of a template's facts (`client.ip`).
fn is_plain(name: &str) -> bool {
    !name.contains('.')
}

fn push_text(pieces: &mut Vec<Piece>, plain: &mut String, captures: &[Box<str>], at: &Scope<'_>) -> bool {
    if plain.is_empty() {
        return true;
    }
    let template = Template::compile(&std::mem::take(plain), captures, Moment::Request, at);
    template.map(|template| pieces.push(Piece::Text(template))).is_some()
}

/// The group of that name or number.
fn group(name: &str, pattern: &Regex) -> Option<usize> {
    let number = || name.parse().ok().filter(|number| *number < pattern.captures_len());
    pattern.capture_names().position(|group| group == Some(name)).or_else(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Issues;
    use crate::exchange::Exchange;
    use pingora::http::RequestHeader;
    use proptest::prelude::*;

    fn build(json: &str) -> (Option<Rewrite>, Vec<String>) {
        let config: Config = serde_json::from_str(json).unwrap();
        let issues = Issues::default();
        let rewrite = Rewrite::build(&config, &["slug".into()], &issues.root());
        (rewrite, issues.into_vec().iter().map(|issue| format!("{}: {}", issue.path, issue.message)).collect())
    }

    /// The rewritten path of a request whose capture `slug` is all behind the first `/`.
    fn rewritten(rewrite: &Rewrite, path: &str) -> String {
        let head = RequestHeader::build("GET", b"/sent?file=../../etc/x%20y&u=//evil", None).unwrap();
        let mut exchange = Exchange::new();
        exchange.normal_path = Some(path.to_owned());
        exchange.captures.push((1, path.len() as u32));
        let facts = Facts { request: &head, exchange: &exchange, response: None, route: "", upstream: "", backend: "" };
        rewrite.apply(path, &facts).into_owned()
    }

    #[test]
    fn a_path_is_rewritten() {
        for (json, path, becomes) in [
            (r#"{"strip_prefix": "/api"}"#, "/api/users", "/users"),
            (r#"{"strip_prefix": "/api"}"#, "/api", "/"),
            (r#"{"strip_prefix": "/api/"}"#, "/api/", "/"),
            (r#"{"strip_prefix": "/api"}"#, "/apix", "/apix"),
            (r#"{"strip_prefix": "/api"}"#, "/x/api", "/x/api"),
            (r#"{"strip_prefix": "/ü"}"#, "/%C3%BC/a", "/a"),
            (r#"{"replace_prefix": {"from": "/a", "to": "/b"}}"#, "/a/x", "/b/x"),
            (r#"{"replace_prefix": {"from": "/a", "to": "/b/"}}"#, "/a/x", "/b/x"),
            (r#"{"replace_prefix": {"from": "/a", "to": "/b"}}"#, "/a", "/b"),
            (r#"{"replace_prefix": {"from": "/a", "to": "/"}}"#, "/a/x", "/x"),
            (r#"{"replace_prefix": {"from": "/a", "to": "/b"}}"#, "/ax", "/ax"),
            (r#"{"replace_prefix": {"from": "/", "to": "/v1"}}"#, "/x", "/v1/x"),
            (r#"{"replace_prefix": {"from": "/", "to": "/v1"}}"#, "/", "/v1/"),
            (r#"{"replace_prefix": {"from": "/a", "to": "/${request.method}"}}"#, "/a/x", "/GET/x"),
            (r#"{"regex": {"pattern": "^/x/(?<id>\\d+)$", "to": "/y/${id}"}}"#, "/x/42", "/y/42"),
            (r#"{"regex": {"pattern": "^/x/(?<id>\\d+)$", "to": "/y/${id}"}}"#, "/x/z", "/x/z"),
            (r#"{"regex": {"pattern": "^/(a)(b)?", "to": "/${1}-${2}"}}"#, "/a/rest", "/a-/rest"),
            (r#"{"regex": {"pattern": "^/v1/", "to": "/"}}"#, "/v1/a/v1/", "/a/v1/"),
            (
                r#"{"regex": {"pattern": "/b(?<b>.)", "to": "/${b}${client.ip}$${b}${slug}"}}"#,
                "/a/bc",
                "/a/c127.0.0.1$%7Bb%7Da/bc",
            ),
            (r#"{"regex": {"pattern": "^/", "to": ""}}"#, "/a", "/a"),
            (r#"{"path": "/fixed"}"#, "/any", "/fixed"),
            (r#"{"path": "/fixed/${slug}"}"#, "/a%20b", "/fixed/a%20b"),
            (r#"{"path": "/files/${request.query.file}"}"#, "/", "/etc/x%20y"),
            (r#"{"path": "${request.query.u}"}"#, "/", "/evil"),
        ] {
            let (rewrite, told) = build(json);
            let rewrite = rewrite.unwrap_or_else(|| panic!("{json}: {told:?}"));
            assert_eq!(rewritten(&rewrite, path), becomes, "{json} {path}");
        }
    }

    #[test]
    fn a_rewrite_that_makes_no_path_is_a_fault() {
        for (json, fault) in [
            (r#"{"strip_prefix": "api"}"#, "strip_prefix: `api` is no path"),
            (r#"{"strip_prefix": "/"}"#, "strip_prefix: `/` strips nothing"),
            (r#"{"path": "/a?b=c"}"#, "path: `/a?b=c` has more than a path"),
            (r#"{"path": "/${slog}"}"#, "path: nothing is named `${slog}`"),
            (r#"{"replace_prefix": {"from": "/a", "to": "b"}}"#, "replace_prefix.to: `b` is no path"),
            (
                r#"{"regex": {"pattern": "(", "to": "/"}}"#,
                "regex.pattern: `(` is no regular expression: unclosed group",
            ),
            (r#"{"regex": {"pattern": "(?<id>a)", "to": "/${ib}"}}"#, "regex.to: the pattern has no group `ib`"),
            (r#"{"regex": {"pattern": "a", "to": "/${1}"}}"#, "regex.to: the pattern has no group `1`"),
            (r#"{"regex": {"pattern": "a", "to": "/${client.ipp}"}}"#, "regex.to: nothing is named `${client.ipp}`"),
        ] {
            let (rewrite, told) = build(json);
            assert!(rewrite.is_none(), "{json}");
            assert_eq!(told, [fault], "{json}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_path_the_upstream_sees_a_sound_one(tail in "[ -~\r\n\u{0}é/.]{0,30}") {
            // The path here need not even be normal: rewrites that build one make it sound themselves.
            let path = format!("/{tail}");
            for json in [
                r#"{"replace_prefix": {"from": "/", "to": "/b"}}"#,
                r#"{"regex": {"pattern": "^/(.*)$", "to": "${1}"}}"#,
                r#"{"regex": {"pattern": "a", "to": "//"}}"#,
                r#"{"path": "/${slug}"}"#,
            ] {
                let made = rewritten(&build(json).0.unwrap(), &path);
                prop_assert!(made.starts_with('/') && !made.starts_with("//") || made == path, "{}", made);
                prop_assert!(made.bytes().all(|byte| byte.is_ascii_graphic()) || made == path, "{}", made);
            }
        }
    }
}
