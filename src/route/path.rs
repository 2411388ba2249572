//! Path patterns: how they are written, what they match, and which of two is more exact.
//!
//! `/a/b` is that path; `/a/*` is `/a`, `/a/` and all below; `/adm*` is every path that begins so; `/users/{id}/*rest`
//! names a segment and the rest. A regular expression is searched in the path. All of them see the normal form only.

use std::cmp::Ordering;
use std::fmt;
use std::sync::{Arc, LazyLock};

use regex::Regex;

use super::normalize::normalize;
use crate::diag::Scope;
use crate::exchange::Captures;

/// More segments than anybody writes, so that matching may recurse.
pub(super) const MAX_SEGMENTS: usize = 128;

/// A path pattern, compiled.
#[derive(Clone, Debug)]
pub enum Pattern {
    /// This path alone.
    Exact(Box<str>),
    /// Every path in which the expression is found.
    Regex(Arc<PathRegex>),
    /// Every path whose segments match these, one by one.
    Segments(Arc<Segments>),
}

/// A pattern of segments, with the names that it gives.
#[derive(Debug)]
pub struct Segments {
    pub(super) segments: Box<[Segment]>,
    names: Box<[Box<str>]>,
    text: Box<str>,
}

/// One segment of a pattern. The order is that of precedence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    /// This text.
    Literal(Box<str>),
    /// Whatever begins so, slashes included; always the last.
    Partial(Box<str>),
    /// One segment that is not empty.
    Param,
    /// All that is left, also nothing; always the last.
    Rest,
}

/// A regular expression with what can be said of its matches beforehand.
#[derive(Debug)]
pub struct PathRegex {
    regex: Regex,
    prefix: Box<str>,
    takes_all: bool,
    names: Box<[Box<str>]>,
    groups: Box<[usize]>,
}

impl Pattern {
    /// The pattern of every path, `/*`.
    pub fn all() -> Self {
        // Thousands of sites have it, and share it.
        static ALL: LazyLock<Arc<Segments>> = LazyLock::new(|| {
            Arc::new(Segments { segments: [Segment::Rest].into(), names: [].into(), text: "/*".into() })
        });
        Self::Segments(ALL.clone())
    }

    /// Reads a pattern; reports at `at` what is wrong with it.
    pub fn parse(text: &str, at: &Scope<'_>) -> Option<Self> {
        match check_start(text).and_then(|()| parse(text)) {
            Ok(pattern) => Some(pattern),
            Err((message, hint)) => {
                at.error_hint(message, hint);
                None
            }
        }
    }

    /// Reads a regular expression; reports at `at` what is wrong with it.
    pub fn parse_regex(text: &str, at: &Scope<'_>) -> Option<Self> {
        if text.is_empty() {
            at.error_hint("an empty regular expression matches every path", "leave it out, or write `/*` under `path`");
            return None;
        }
        let regex = Regex::new(text).map_err(|fault| regex_fault(text, &fault, at)).ok()?;
        let mut names = Vec::new();
        let mut groups = Vec::new();
        for (group, name) in regex.capture_names().enumerate() {
            let Some(name) = name else { continue };
            if let Err((message, hint)) = check_name(name, &names) {
                at.error_hint(message, hint);
                return None;
            }
            names.push(name.into());
            groups.push(group);
        }
        let (prefix, left) = literal_prefix(text);
        let takes_all = matches!(left, "" | ".*" | ".*$");
        let (prefix, names, groups) = (prefix.into(), names.into(), groups.into());
        Some(Self::Regex(Arc::new(PathRegex { regex, prefix, takes_all, names, groups })))
    }

    /// The names of the pieces that it captures, in their order.
    pub fn names(&self) -> &[Box<str>] {
        match self {
            Self::Exact(_) => &[],
            Self::Regex(regex) => &regex.names,
            Self::Segments(pattern) => &pattern.names,
        }
    }

    /// Whether it matches this path, in normal form.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(text) => **text == *path,
            Self::Regex(regex) => regex.is_match(path),
            Self::Segments(pattern) => pattern.matches(path),
        }
    }

    /// Which of two is tried first: the exact path, then expressions (the longer text first), then patterns, compared
    /// segment by segment. Equal: the same paths, whatever the captures are called.
    pub fn precedence(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) => a.cmp(b),
            (Self::Regex(a), Self::Regex(b)) => longer_first(a.regex.as_str(), b.regex.as_str()),
            (Self::Segments(a), Self::Segments(b)) => a.precedence(b),
            _ => self.kind().cmp(&other.kind()),
        }
    }

    /// Its text without the names of captures: the same for patterns of the same precedence.
    pub(super) fn shape(&self) -> String {
        let Self::Segments(pattern) = self else { return self.to_string() };
        pattern.segments.iter().fold(String::new(), |text, segment| match segment {
            Segment::Literal(literal) => text + "/" + literal,
            Segment::Partial(prefix) => text + "/" + prefix + "*",
            Segment::Param => text + "/{}",
            Segment::Rest => text + "/*",
        })
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Exact(_) => 0,
            Self::Regex(_) => 1,
            Self::Segments(_) => 2,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => f.write_str(text),
            Self::Regex(regex) => f.write_str(regex.regex.as_str()),
            Self::Segments(pattern) => f.write_str(&pattern.text),
        }
    }
}

fn longer_first(a: &str, b: &str) -> Ordering {
    b.len().cmp(&a.len()).then_with(|| a.cmp(b))
}

impl Segments {
    fn matches(&self, path: &str) -> bool {
        let Some(mut left) = path.strip_prefix('/').map(Some).or_else(|| self.is_all().then_some(None)) else {
            return false;
        };
        for segment in &self.segments {
            if *segment == Segment::Rest {
                return true;
            }
            let Some(path) = left else { return false };
            let (head, tail) = path.split_once('/').map_or((path, None), |(head, tail)| (head, Some(tail)));
            let matched = match segment {
                Segment::Literal(text) => **text == *head,
                Segment::Param => !head.is_empty(),
                Segment::Partial(prefix) => return path.starts_with(&**prefix),
                Segment::Rest => true,
            };
            if !matched {
                return false;
            }
            left = tail;
        }
        left.is_none()
    }

    fn is_all(&self) -> bool {
        *self.segments == [Segment::Rest]
    }

    fn precedence(&self, other: &Self) -> Ordering {
        let by_segment = self.segments.iter().zip(&*other.segments).map(|(a, b)| a.precedence(b));
        by_segment.reduce(Ordering::then).unwrap_or(Ordering::Equal).then_with(|| {
            // One goes on where the other ends: only a `*` can meet the same path, and the end is more exact.
            self.segments.len().cmp(&other.segments.len())
        })
    }
}

impl Segment {
    fn precedence(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Literal(a), Self::Literal(b)) => a.cmp(b),
            (Self::Partial(a), Self::Partial(b)) => longer_first(a, b),
            _ => self.rank().cmp(&other.rank()),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Literal(_) => 0,
            Self::Partial(_) => 1,
            Self::Param => 2,
            Self::Rest => 3,
        }
    }
}

impl PathRegex {
    pub(super) fn text(&self) -> &str {
        self.regex.as_str()
    }

    /// The text that every path it matches begins with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether it matches every path that begins with its prefix.
    pub(super) fn takes_all(&self) -> bool {
        self.takes_all
    }

    fn is_match(&self, path: &str) -> bool {
        path.starts_with(&*self.prefix) && (self.takes_all || self.regex.is_match(path))
    }

    /// Whether it matches; if so, its named groups are added to `captures`.
    pub(super) fn find(&self, path: &str, captures: &mut Captures) -> bool {
        if self.groups.is_empty() {
            return self.is_match(path);
        }
        if !path.starts_with(&*self.prefix) {
            return false;
        }
        let Some(found) = self.regex.captures(path) else { return false };
        captures.extend(self.groups.iter().map(|group| {
            // A group that took no part is empty.
            found.get(*group).map_or((0, 0), |piece| (piece.start() as u32, piece.end() as u32))
        }));
        true
    }
}

type Fault = (String, String);

fn check_start(text: &str) -> Result<(), Fault> {
    let hint = match text {
        "" => return Err(("a path is empty".into(), "write `/*` for every path".into())),
        _ if text.starts_with('/') => return Ok(()),
        "*" => "write `/*` for every path".to_owned(),
        _ if text.contains("://") => "write the path alone; the host belongs in the site's `hosts`".to_owned(),
        _ if text.starts_with(['^', '(']) => "write a regular expression under `path_regex`".to_owned(),
        _ => format!("write `/{text}`"),
    };
    Err((format!("the path `{text}` does not begin with `/`"), hint))
}

fn parse(text: &str) -> Result<Pattern, Fault> {
    let fault = |what: &str, hint: &str| Err((format!("the path `{text}` {what}"), hint.to_owned()));
    if text.contains('?') {
        return fault("has a query", "write the path alone, and the query's parameters under `query`");
    }
    if text.contains('#') {
        return fault("has a fragment", "leave it out: clients never send it");
    }
    if text == "/*" {
        return Ok(Pattern::all());
    }
    let normal = normalize(text);
    let normal = normal.as_deref().unwrap_or(text);
    let count = normal.bytes().filter(|byte| *byte == b'/').count();
    if count > MAX_SEGMENTS {
        return fault("has more than 128 segments", "shorten it with `/*`");
    }
    let mut segments = Vec::new();
    let mut names: Vec<Box<str>> = Vec::new();
    for (index, piece) in normal.split('/').skip(1).enumerate() {
        let last = index + 1 == count;
        if piece.contains('*') && !piece.contains('{') {
            if piece.contains("**") {
                return fault("has a `**`", "write `/*`: it takes everything below");
            }
            if !last {
                return fault("has a `*` in the middle", "write `{name}` for one segment; `*` takes all that is left");
            }
        }
        segments.push(segment(text, piece, &mut names)?);
    }
    let plain = segments.iter().all(|segment| matches!(segment, Segment::Literal(_)));
    if plain {
        return Ok(Pattern::Exact(normal.into()));
    }
    let (segments, names) = (segments.into(), names.into());
    Ok(Pattern::Segments(Arc::new(Segments { segments, names, text: normal.into() })))
}

fn segment(text: &str, piece: &str, names: &mut Vec<Box<str>>) -> Result<Segment, Fault> {
    let fault = |what: &str, hint: &str| Err((format!("the path `{text}` {what}"), hint.to_owned()));
    if piece.contains(['{', '}']) {
        let Some(open) = piece.find('{') else {
            return fault("has a `}` without `{`", "write `%7D` for the character itself");
        };
        let Some(length) = piece[open..].find('}') else {
            return fault("has a `{` without `}`", "write `{name}` for one segment, `%7B` for the character itself");
        };
        let name = &piece[open + 1..open + length];
        if open > 0 || length + 1 < piece.len() {
            return fault("names a part of a segment", "`{name}` takes a whole segment; use `path_regex` for less");
        }
        if let Some(rest) = name.strip_prefix('*') {
            return fault("has a `*` in braces", &format!("write `*{rest}` for a named rest"));
        }
        if name.is_empty() {
            return fault("has a capture without a name", "write a name between the braces, as in `{id}`");
        }
        check_name(name, names)?;
        names.push(name.into());
        return Ok(Segment::Param);
    }
    let Some(star) = piece.find('*') else { return Ok(Segment::Literal(piece.into())) };
    match (&piece[..star], &piece[star + 1..]) {
        ("", "") => Ok(Segment::Rest),
        ("", name) => {
            check_name(name, names)?;
            names.push(name.into());
            Ok(Segment::Rest)
        }
        (prefix, "") => Ok(Segment::Partial(prefix.into())),
        _ => fault("goes on after its `*`", "a `*` takes all that is left; use `path_regex` for more"),
    }
}

/// Whether templates can speak of a capture by this name.
fn check_name(name: &str, names: &[Box<str>]) -> Result<(), Fault> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !plain || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err((format!("`{name}` is no name for a capture"), "use letters, digits and `_`, as in `{id}`".into()));
    }
    if !name.bytes().any(|byte| byte.is_ascii_lowercase()) {
        let hint = format!("write `{}`: `${{{name}}}` would be read as an environment variable", name.to_lowercase());
        return Err((format!("the capture `{name}` has no small letter"), hint));
    }
    if names.iter().any(|known| **known == *name) {
        return Err((format!("two captures are named `{name}`"), "give each its own name".into()));
    }
    Ok(())
}

/// Reports at `at` why `text` is no regular expression.
pub(super) fn regex_fault(text: &str, fault: &regex::Error, at: &Scope<'_>) {
    let fault = fault.to_string();
    // The last line has the reason; those before it draw a caret, and so will the report.
    let reason = fault.lines().last().unwrap_or_default().trim().trim_start_matches("error: ");
    at.error_hint(
        format!("`{text}` is no regular expression: {reason}"),
        "the syntax is that of Rust's regex crate: no look-around, no back references",
    );
}

/// The plain text that an expression anchored at the start begins with, and what is left of it. Rather too little than
/// too much: it only saves running the expression.
fn literal_prefix(text: &str) -> (String, &str) {
    let none = (String::new(), text);
    let Some(mut left) = text.strip_prefix('^') else { return none };
    if has_alternatives(text) {
        return none;
    }
    let mut prefix = String::new();
    loop {
        let mut chars = left.chars();
        let (literal, after) = match chars.next() {
            Some('\\') => match chars.next() {
                Some(c) if ".-/+*?()[]{}|^$~\\".contains(c) => (c, chars.as_str()),
                _ => break,
            },
            Some(c) if !".+*?()|[]{}^$".contains(c) => (c, chars.as_str()),
            _ => break,
        };
        if after.starts_with(['*', '+', '?', '{']) {
            break;
        }
        prefix.push(literal);
        left = after;
    }
    (prefix, left)
}

/// Whether the whole expression may be one of several alternatives.
fn has_alternatives(text: &str) -> bool {
    if !text.contains('|') {
        return false;
    }
    let mut depth = 0_usize;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            // Brackets would have to be read by their own rules.
            '[' => return true,
            '|' if depth == 0 => return true,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Issues;
    use proptest::prelude::*;

    fn pattern(text: &str) -> Pattern {
        let issues = Issues::default();
        let scope = issues.root();
        let parsed = if let Some(regex) = text.strip_prefix('~') {
            Pattern::parse_regex(regex, &scope)
        } else {
            Pattern::parse(text, &scope)
        };
        parsed.unwrap_or_else(|| panic!("{text}: {issues:?}"))
    }

    #[test]
    fn a_pattern_takes_these_paths_and_not_those() {
        for (text, takes, leaves) in [
            ("/", vec!["/"], vec!["/a", "*"]),
            ("/a/b", vec!["/a/b"], vec!["/a", "/a/b/", "/a/bc", "/A/b"]),
            ("/a/*", vec!["/a", "/a/", "/a/b", "/a/b/c/"], vec!["/", "/ab", "/b/a/"]),
            ("/a/*rest", vec!["/a", "/a/", "/a/b/c"], vec!["/ab"]),
            ("/adm*", vec!["/adm", "/admin", "/admin/x", "/adm/"], vec!["/ad", "/x/adm"]),
            ("/x/adm*", vec!["/x/adm/y"], vec!["/x", "/x/ad"]),
            ("/*", vec!["/", "/a", "/a/b/", "*"], vec![]),
            ("/*rest", vec!["/", "/a", "*"], vec![]),
            ("/users/{id}", vec!["/users/5", "/users/a%2Fb"], vec!["/users", "/users/", "/users/5/", "/users/5/6"]),
            ("/users/{id}/", vec!["/users/5/"], vec!["/users/5", "/users//"]),
            ("/users/{id}/*rest", vec!["/users/5", "/users/5/", "/users/5/6/7"], vec!["/users/", "/users"]),
            ("/{a}/x/{b}", vec!["/1/x/2"], vec!["/1/y/2", "/1/x/"]),
            ("/%61/./b//c/../*", vec!["/a/b", "/a/b/d"], vec!["/%61/b"]),
            ("/café/*", vec!["/caf%C3%A9"], vec!["/caf"]),
            ("/%2A", vec!["/%2A"], vec!["/a"]),
            (r"~\.php$", vec!["/a.php"], vec!["/a.php/"]),
            (r"~^/blog/(?<slug>[a-z-]+)$", vec!["/blog/a-b"], vec!["/blog/", "/blogs", "/x/blog/a"]),
            ("~^/a|/b$", vec!["/a/c", "/c/b"], vec!["/c/a"]),
            ("~^/a.*", vec!["/a", "/ab"], vec!["/b"]),
            ("~^/ab?c", vec!["/ac", "/abc"], vec!["/ab"]),
            (r"~^/a\.b", vec!["/a.b"], vec!["/axb"]),
        ] {
            let pattern = pattern(text);
            for path in takes {
                assert!(pattern.matches(path), "{text} takes {path}");
            }
            for path in leaves {
                assert!(!pattern.matches(path), "{text} leaves {path}");
            }
        }
    }

    #[test]
    fn what_is_more_exact_comes_first() {
        let order = [
            "/a/b",
            "~^/a/bcdef",
            "~^/a/b",
            "~^/b/b",
            "/a/bc*",
            "/a/b*",
            "/a/{x}",
            "/a/*",
            "/ab*",
            "/a*",
            "/{x}/b/*",
            "/{x}/bc*",
            "/{x}/{y}",
            "/{x}/*",
            "/*",
        ];
        for (index, first) in order.iter().enumerate() {
            for (later, second) in order.iter().enumerate() {
                let wanted = index.cmp(&later);
                assert_eq!(pattern(first).precedence(&pattern(second)), wanted, "{first} and {second}");
            }
        }
        assert_eq!(pattern("/u/{a}/*b").precedence(&pattern("/u/{c}/*")), Ordering::Equal);
        assert_eq!(pattern("/%61").precedence(&pattern("/a")), Ordering::Equal);
    }

    #[test]
    fn a_wrong_pattern_is_told() {
        for (text, told) in [
            ("", "`/*` for every path"),
            ("*", "`/*` for every path"),
            ("api/*", "write `/api/*`"),
            ("https://x/a", "`hosts`"),
            ("^/a$", "`path_regex`"),
            ("/a/**", "takes everything below"),
            ("/**/a", "takes everything below"),
            ("/a/*/b", "`{name}` for one segment"),
            ("/a*/b", "`{name}` for one segment"),
            ("/a/*b*", "letters, digits"),
            ("/a*b", "`path_regex` for more"),
            ("/a/{id", "has a `{` without `}`"),
            ("/a/id}", "without `{`"),
            ("/a/}{", "has a `{` without"),
            ("/a/{}", "without a name"),
            ("/a/{id}.json", "takes a whole segment"),
            ("/a/x{id}", "takes a whole segment"),
            ("/a/{*rest}", "write `*rest`"),
            ("/a/{i-d}", "letters, digits"),
            ("/a/{1}", "letters, digits"),
            ("/a/{ID}", "environment variable"),
            ("/{id}/{id}", "two captures are named `id`"),
            ("/{id}/*id", "two captures are named `id`"),
            ("/a?b=c", "under `query`"),
            ("/a#b", "fragment"),
            (&"/a".repeat(129), "shorten"),
            ("~", "matches every path"),
            ("~^/(", "unclosed group"),
            ("~(?=x)", "no look-around"),
            ("~^/(?<ID>x)", "environment variable"),
        ] {
            let issues = Issues::default();
            let scope = issues.root();
            let parsed = if let Some(regex) = text.strip_prefix('~') {
                Pattern::parse_regex(regex, &scope)
            } else {
                Pattern::parse(text, &scope)
            };
            assert!(parsed.is_none(), "{text}");
            let issue = &issues.into_vec()[0];
            let whole = format!("{} {}", issue.message, issue.hint.as_deref().unwrap_or_default());
            assert!(whole.contains(told), "{text}: {whole}");
        }
    }

    proptest! {
        #[test]
        fn a_prefix_test_never_changes_what_an_expression_matches(
            text in r"\^?[ab/|\[\]()\\.*+?{}$^~-]{0,10}",
            path in "/[ab/.~-]{0,8}",
        ) {
            let issues = Issues::default();
            if let Some(pattern) = Pattern::parse_regex(&text, &issues.root()) {
                let plain = Regex::new(&text).expect("it was compiled before");
                prop_assert_eq!(pattern.matches(&path), plain.is_match(&path), "{}", text);
            }
        }

        #[test]
        fn no_text_panics(text in "[/{}*a%~.?#é]{0,16}") {
            let issues = Issues::default();
            if let Some(pattern) = Pattern::parse(&text, &issues.root()) {
                pattern.matches(&text);
                // What it prints is the same pattern again.
                let again = Pattern::parse(&pattern.to_string(), &issues.root()).expect("a pattern");
                prop_assert_eq!(pattern.precedence(&again), Ordering::Equal);
            }
        }
    }
}
