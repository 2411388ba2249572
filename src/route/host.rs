//! Host names: how a request's is read, how a document's is written, and which site's comes first.
//!
//! The most exact wins: the name itself, then the wildcard with the longest suffix, then the default. The cost grows
//! with the labels of the name that is looked up, never with the number of sites.

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv6Addr;

use ahash::AHashMap;

use super::normalize::hex_digit;
use crate::diag::Scope;

/// The longest host that is looked up, in bytes; a DNS name has at most 253.
const MAX_HOST: usize = 255;

/// The host of a request in normal form: lower case, without port and without a final dot; an IPv6 address keeps its
/// brackets. `None` when it is no valid host (RFC 3986 3.2.2; the field: RFC 9110 7.2). Allocates only when it changes.
pub fn normalize_host(raw: &str) -> Option<Cow<'_, str>> {
    if let Some(literal) = raw.strip_prefix('[') {
        let close = literal.find(']')?;
        let (address, port) = (&literal[..close], &literal[close + 1..]);
        let valid = is_ip_literal(address) && (port.is_empty() || is_port(port.strip_prefix(':')?));
        return valid.then(|| lower_case(&raw[..close + 2]));
    }
    let name = match raw.split_once(':') {
        Some((name, port)) => is_port(port).then_some(name)?,
        None => raw,
    };
    let name = if name.contains('%') { Cow::Owned(unescape(name)?) } else { Cow::Borrowed(name) };
    match name {
        Cow::Borrowed(name) => Some(lower_case(valid_name(name)?)),
        Cow::Owned(name) => valid_name(&name).map(|valid| Cow::Owned(lower_case(valid).into_owned())),
    }
}

/// The name without its final dot, if it is one: no empty label, and only what RFC 3986 calls a reg-name.
fn valid_name(name: &str) -> Option<&str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() || name.len() > MAX_HOST || name.starts_with('.') || name.ends_with('.') {
        return None;
    }
    let mut before = b'.';
    for byte in name.bytes() {
        if !IN_NAME[usize::from(byte)] || (byte == b'.' && before == b'.') {
            return None;
        }
        before = byte;
    }
    Some(name)
}

/// The bytes of a reg-name: unreserved, sub-delims, and the `%` of escapes (RFC 3986 3.2.2).
const IN_NAME: [bool; 256] = {
    let mut allowed = [false; 256];
    let bytes = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;=%";
    let mut index = 0;
    while index < bytes.len() {
        allowed[bytes[index] as usize] = true;
        index += 1;
    }
    allowed
};

fn lower_case(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}

fn is_port(text: &str) -> bool {
    text.is_empty() || (text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok())
}

fn is_ip_literal(text: &str) -> bool {
    // IPvFuture, as the grammar has it: "v" 1*HEXDIG "." 1*( unreserved / sub-delims / ":" ).
    let future = |text: &str| {
        let (version, rest) = text.split_once('.')?;
        let versioned = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_hexdigit());
        (versioned
            && !rest.is_empty()
            && rest.bytes().all(|b| b.is_ascii_graphic() && !b"/?#[]@%\"<>\\^`{|}".contains(&b)))
        .then_some(())
    };
    match text.strip_prefix(['v', 'V']) {
        Some(rest) => text.len() <= MAX_HOST && future(rest).is_some(),
        None => text.parse::<Ipv6Addr>().is_ok(),
    }
}

/// Escapes of letters, digits, `-`, `.`, `_` and `~` undone, so that nobody gets around a site by spelling its name so;
/// `None` at a `%` without two hexadecimal digits.
fn unescape(name: &str) -> Option<String> {
    let mut out = String::with_capacity(name.len());
    let mut pieces = name.split('%');
    out.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let [high, low, ..] = *piece.as_bytes() else { return None };
        let byte = hex_digit(high)? << 4 | hex_digit(low)?;
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push_str(&piece[..2]);
        }
        out.push_str(&piece[2..]);
    }
    Some(out)
}

/// A host as a site names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// This name.
    Exact(Box<str>),
    /// Every name that ends in a dot and this, at any depth.
    Below(Box<str>),
    /// Every name that no other site takes.
    Default,
}

impl HostPattern {
    /// Reads one entry of `hosts`; reports at `at` what is wrong with it.
    pub fn parse(text: &str, at: &Scope<'_>) -> Option<Self> {
        match parse(text) {
            Ok(pattern) => Some(pattern),
            Err((message, hint)) => {
                at.error_hint(message, hint);
                None
            }
        }
    }

    /// Reads all of `hosts`, with `at` as the place of the list; an empty list is the default site.
    pub fn parse_all(hosts: &[String], at: &Scope<'_>) -> Vec<Self> {
        if hosts.is_empty() {
            return vec![Self::Default];
        }
        hosts.iter().enumerate().filter_map(|(index, text)| Self::parse(text, &at.index(index))).collect()
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(suffix) => write!(f, "*.{suffix}"),
            Self::Default => f.write_str("any other host"),
        }
    }
}

fn parse(text: &str) -> Result<HostPattern, (String, String)> {
    let fault = |what: &str, hint: &str| Err((format!("`{text}` {what}"), hint.to_owned()));
    if text.is_empty() {
        return Err(("a host is empty".into(), "leave `hosts` out for the site that takes every other host".into()));
    }
    if text.contains("://") {
        return fault("is a URL, not a host", "write the name alone, as in `example.com`");
    }
    if text.contains('/') {
        return fault("is a host with a path", "write the name alone, and the path in a route's `match`");
    }
    if text == "*" {
        return fault("is no host", "leave `hosts` out for the site that takes every other host");
    }
    if !text.is_ascii() {
        return fault(
            "has letters beyond ASCII",
            "write the name as it goes over the wire (punycode), as in `xn--bcher-kva.example`",
        );
    }
    let (wildcard, name) = text.strip_prefix("*.").map_or((false, text), |name| (true, name));
    if name.contains('*') {
        return fault(
            "has a `*` that is not the whole first label",
            "write `*.example.com`: it takes every name below",
        );
    }
    if name.starts_with('[') || name.parse::<Ipv6Addr>().is_ok() {
        return match normalize_host(name) {
            Some(literal) if literal.eq_ignore_ascii_case(name) && !wildcard => {
                Ok(HostPattern::Exact(literal.into_owned().into()))
            }
            _ => fault("is no host", "write an IPv6 address in brackets and without a port, as in `[::1]`"),
        };
    }
    if name.contains(':') {
        return fault("has a port", "write the name alone: the port belongs to a listener");
    }
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let label = |label: &str| {
        let plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        (1..=63).contains(&label.len()) && plain
    };
    if name.len() > 253 || !name.split('.').all(label) {
        return fault("is no host name", "labels of letters, digits, `-` and `_`, as in `www.example.com`");
    }
    Ok(if wildcard { HostPattern::Below(name.into()) } else { HostPattern::Exact(name.into()) })
}

/// Which site a host belongs to, by number.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    names: AHashMap<Box<str>, Named>,
    default: Option<u32>,
}

/// What is known of one name: the site of the name itself, and of all names below it.
#[derive(Clone, Copy, Debug, Default)]
struct Named {
    exact: Option<u32>,
    below: Option<u32>,
}

impl Hosts {
    /// Gives the hosts of `pattern` to `site`.
    pub fn insert(&mut self, pattern: &HostPattern, site: u32) {
        match pattern {
            HostPattern::Exact(name) => self.names.entry(name.clone()).or_default().exact = Some(site),
            HostPattern::Below(suffix) => self.names.entry(suffix.clone()).or_default().below = Some(site),
            HostPattern::Default => self.default = Some(site),
        }
    }

    /// The site of a host in normal form.
    pub fn find(&self, host: &str) -> Option<u32> {
        self.lookup(host).map(|(site, _)| site)
    }

    /// The pattern by which a host finds its site.
    pub fn chosen(&self, host: &str) -> Option<HostPattern> {
        self.lookup(host).map(|(_, how)| match how {
            How::Exact => HostPattern::Exact(host.into()),
            How::Below(suffix) => HostPattern::Below(suffix.into()),
            How::Default => HostPattern::Default,
        })
    }

    fn lookup<'a>(&self, host: &'a str) -> Option<(u32, How<'a>)> {
        if let Some(site) = self.names.get(host).and_then(|named| named.exact) {
            return Some((site, How::Exact));
        }
        let mut rest = host;
        while let Some((_, suffix)) = rest.split_once('.') {
            if let Some(site) = self.names.get(suffix).and_then(|named| named.below) {
                return Some((site, How::Below(suffix)));
            }
            rest = suffix;
        }
        self.default.map(|site| (site, How::Default))
    }
}

enum How<'a> {
    Exact,
    Below(&'a str),
    Default,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Issues;
    use proptest::prelude::*;

    #[test]
    fn a_host_has_one_normal_form() {
        for (raw, wanted) in [
            ("example.com", Some("example.com")),
            ("Example.COM", Some("example.com")),
            ("example.com:8080", Some("example.com")),
            ("example.com:", Some("example.com")),
            ("example.com.", Some("example.com")),
            ("example.com.:80", Some("example.com")),
            ("localhost", Some("localhost")),
            ("10.0.0.1:80", Some("10.0.0.1")),
            ("a_b.example", Some("a_b.example")),
            ("ex%61mple%2ecom", Some("example.com")),
            ("%C3%A9.example", Some("%c3%a9.example")),
            ("[::1]", Some("[::1]")),
            ("[::1]:80", Some("[::1]")),
            ("[FE80::A]", Some("[fe80::a]")),
            ("[v1.x:y]", Some("[v1.x:y]")),
            ("", None),
            (".", None),
            ("..", None),
            ("a..b", None),
            (".a", None),
            ("a..", None),
            ("user@example.com", None),
            ("user:pw@example.com", None),
            ("example.com:port", None),
            ("example.com:70000", None),
            ("example.com:+80", None),
            ("a b", None),
            ("a/b", None),
            ("a%zz", None),
            ("a%2", None),
            ("a%é", None),
            ("bücher.example", None),
            ("::1", None),
            ("[::1", None),
            ("[]", None),
            ("[::1]x", None),
            ("[::1%25eth0]", None),
            ("[1.2.3.4]", None),
            (&"a".repeat(256), None),
        ] {
            assert_eq!(normalize_host(raw).as_deref(), wanted, "{raw}");
        }
        assert!(matches!(normalize_host("example.com:80"), Some(Cow::Borrowed(_))));
    }

    proptest! {
        #[test]
        fn a_normal_host_stays(raw in "[a-zA-Z0-9.%:\\[\\]@_é -]{0,24}") {
            if let Some(host) = normalize_host(&raw) {
                let again = normalize_host(&host);
                prop_assert_eq!(again.as_deref(), Some(&*host));
            }
        }
    }

    #[test]
    fn hosts_in_a_document() {
        for (text, wanted) in [
            ("example.com", "example.com"),
            ("Example.COM", "example.com"),
            ("example.com.", "example.com"),
            ("*.example.com", "*.example.com"),
            ("*.Com", "*.com"),
            ("10.0.0.1", "10.0.0.1"),
            ("[::1]", "[::1]"),
            ("my_host", "my_host"),
        ] {
            let issues = Issues::default();
            let pattern = HostPattern::parse(text, &issues.root()).map(|pattern| pattern.to_string());
            assert_eq!(pattern.as_deref(), Some(wanted));
            assert!(!issues.has_errors());
        }
        for (text, told) in [
            ("", "leave `hosts` out"),
            ("*", "leave `hosts` out"),
            ("example.com:80", "the port belongs to a listener"),
            ("*.example.com:80", "the port belongs to a listener"),
            ("http://example.com", "write the name alone"),
            ("example.com/a", "the path in a route's `match`"),
            ("*.com.*", "write `*.example.com`"),
            ("a*.example.com", "write `*.example.com`"),
            ("*.*.com", "write `*.example.com`"),
            ("*.", "labels of letters"),
            ("a..b", "labels of letters"),
            ("a b", "labels of letters"),
            ("bücher.example", "punycode"),
            ("::1", "in brackets"),
            ("[::1]:80", "in brackets"),
            ("*.[::1]", "in brackets"),
        ] {
            let issues = Issues::default();
            assert_eq!(HostPattern::parse(text, &issues.root()), None, "{text}");
            let hint = issues.into_vec()[0].hint.clone().unwrap_or_default();
            assert!(hint.contains(told), "{text}: {hint}");
        }
    }

    #[test]
    fn the_most_exact_host_wins() {
        let issues = Issues::default();
        let root = issues.root();
        let patterns = ["example.com", "*.example.com", "*.a.example.com", "x.a.example.com", "*.net"];
        let mut hosts = Hosts::default();
        for (site, text) in patterns.iter().enumerate() {
            hosts.insert(&HostPattern::parse(text, &root).expect("a host"), site as u32);
        }
        for (host, site) in [
            ("example.com", Some(0)),
            ("www.example.com", Some(1)),
            ("deep.down.example.com", Some(1)),
            ("a.example.com", Some(1)),
            ("b.a.example.com", Some(2)),
            ("x.a.example.com", Some(3)),
            ("y.x.a.example.com", Some(2)),
            ("notexample.com", None),
            ("net", None),
            ("x.net", Some(4)),
            ("", None),
            (".", None),
        ] {
            assert_eq!(hosts.find(host), site, "{host}");
        }
        hosts.insert(&HostPattern::Default, 9);
        assert_eq!(hosts.find("notexample.com"), Some(9));
        assert_eq!(hosts.find(""), Some(9));
        assert_eq!(hosts.chosen("q.net").map(|pattern| pattern.to_string()).as_deref(), Some("*.net"));
    }
}
