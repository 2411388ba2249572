//! Which stored responses a change makes obsolete (RFC 9111 4.4): those of the URL that was asked for, and those of the URLs
//! in `Location` and `Content-Location`, where these are of the same origin. No site can empty another's cache.

use std::borrow::Cow;

use http::header::{CONTENT_LOCATION, HeaderMap, LOCATION};
use http::{Method, StatusCode};
use smallvec::SmallVec;

use super::list::single;

/// The URL that was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Host, and port if it is not the scheme's own.
    pub authority: &'a str,
    /// Path and query, as in `/a?b`.
    pub path: &'a str,
}

/// The paths (with query), at the origin of the target, whose stored responses are obsolete after this answer. Each once.
pub fn obsolete<'a>(
    method: &Method,
    target: &Target<'a>,
    status: StatusCode,
    response: &'a HeaderMap,
) -> SmallVec<[Cow<'a, str>; 3]> {
    let mut paths = SmallVec::new();
    if is_safe(method) || !(status.is_success() || status.is_redirection()) {
        return paths;
    }
    paths.push(Cow::Borrowed(target.path));
    for name in [LOCATION, CONTENT_LOCATION] {
        let path = single(response, name).and_then(|text| resolve(std::str::from_utf8(text).ok()?, target));
        if let Some(path) = path.filter(|path| !paths.contains(path)) {
            paths.push(path);
        }
    }
    paths
}

/// Whether the response says that it is what a GET of the target gets (RFC 9110 8.7, 9.3.3).
pub fn is_at_content_location(target: &Target<'_>, response: &HeaderMap) -> bool {
    let text = single(response, CONTENT_LOCATION).and_then(|text| std::str::from_utf8(text).ok());
    text.and_then(|text| resolve(text, target)).is_some_and(|path| path == target.path)
}

/// Whether the method is known to change nothing (RFC 9110 9.2.1, and the registry of methods). An unknown one may.
pub fn is_safe(method: &Method) -> bool {
    let known = [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE].contains(method);
    known || matches!(method.as_str(), "PROPFIND" | "QUERY" | "REPORT" | "SEARCH")
}

/// The path and query that a reference leads to (RFC 3986 5.2), if it leads to the target's origin.
fn resolve<'a>(reference: &'a str, target: &Target<'_>) -> Option<Cow<'a, str>> {
    let reference = reference.split_once('#').map_or(reference, |(before, _)| before);
    let (rest, is_absolute) = match scheme_of(reference) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(target.scheme) => (rest, true),
        Some(_) => return None,
        None => (reference, false),
    };
    if let Some(rest) = rest.strip_prefix("//") {
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if !is_same_authority(authority, target) {
            return None;
        }
        return Some(match path.strip_prefix('/') {
            Some(_) => without_dots(Cow::Borrowed(path)),
            None => Cow::Owned(format!("/{path}")),
        });
    }
    // `http:a` says no authority: what it means, nobody agrees on.
    if is_absolute {
        return None;
    }
    let base = target.path.split_once('?').map_or(target.path, |(path, _)| path);
    Some(match rest.as_bytes() {
        [] => Cow::Owned(target.path.to_owned()),
        [b'/', ..] => without_dots(Cow::Borrowed(rest)),
        [b'?', ..] => Cow::Owned(format!("{base}{rest}")),
        _ => {
            let folder = base.rfind('/').map_or("/", |at| &base[..=at]);
            without_dots(Cow::Owned(format!("{folder}{rest}")))
        }
    })
}

/// The scheme of a reference, and what stands behind its colon.
fn scheme_of(reference: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = reference.split_once(':')?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    is_scheme.then_some((scheme, rest))
}

fn is_same_authority(authority: &str, target: &Target<'_>) -> bool {
    let default = if target.scheme.eq_ignore_ascii_case("https") { "443" } else { "80" };
    let own = |authority: &'_ str| {
        let (host, port) = split_port(authority);
        (host.to_ascii_lowercase(), if port.is_empty() { default.to_owned() } else { port.to_owned() })
    };
    own(authority) == own(target.authority)
}

/// Host and port; the port is empty when there is none.
fn split_port(authority: &str) -> (&str, &str) {
    match authority.rsplit_once(':') {
        // Not the colons of an IPv6 address.
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, port),
        _ => (authority, ""),
    }
}

/// Removes `.` and `..` from a path, not from its query (RFC 3986 5.2.4).
fn without_dots(path: Cow<'_, str>) -> Cow<'_, str> {
    let (path_only, query) = path.split_at(path.find('?').unwrap_or(path.len()));
    if !path_only.contains("/.") {
        return path;
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path_only.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    Cow::Owned(format!("/{}{query}", kept.join("/")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TARGET: Target<'_> = Target { scheme: "https", authority: "a.test", path: "/x/y?q" };

    fn paths(method: &str, status: u16, fields: &[(http::HeaderName, &str)]) -> Vec<String> {
        let headers = fields.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let paths = obsolete(&method, &TARGET, StatusCode::from_u16(status).unwrap(), &headers);
        paths.into_iter().map(Cow::into_owned).collect()
    }

    #[test]
    fn a_change_that_went_well_makes_its_url_obsolete() {
        // RFC 9111 4.4.
        for (method, status, count) in [
            ("POST", 200, 1),
            ("PUT", 204, 1),
            ("DELETE", 302, 1),
            ("PATCH", 304, 1),
            ("FOO", 200, 1),
            ("POST", 400, 0),
            ("POST", 500, 0),
            ("POST", 100, 0),
            ("GET", 200, 0),
            ("HEAD", 200, 0),
            ("OPTIONS", 200, 0),
            ("TRACE", 200, 0),
            ("SEARCH", 200, 0),
        ] {
            assert_eq!(paths(method, status, &[]).len(), count, "{method} {status}");
        }
        assert_eq!(paths("POST", 200, &[]), ["/x/y?q"]);
    }

    #[test]
    fn locations_of_the_same_origin_are_obsolete_too() {
        // RFC 9111 4.4; the references as in RFC 3986 5.2 and 5.4.
        for (location, path) in [
            ("/a", Some("/a")),
            ("/a?b=/../c", Some("/a?b=/../c")),
            ("/a#b", Some("/a")),
            ("z", Some("/x/z")),
            ("./z", Some("/x/z")),
            ("../z", Some("/z")),
            ("../../z/.", Some("/z/")),
            ("?r", Some("/x/y?r")),
            ("", None), // the target itself
            ("https://a.test/b/./c/..", Some("/b/")),
            ("HTTPS://A.Test:443/b", Some("/b")),
            ("https://a.test", Some("/")),
            ("https://a.test?c", Some("/?c")),
            ("//a.test/b", Some("/b")),
            ("http://a.test/b", None),
            ("https://b.test/b", None),
            ("//b.test/b", None),
            ("https://a.test:8443/b", None),
            ("https://u@a.test/b", None),
            ("https:/b", None),
            ("mailto:x", None),
        ] {
            for name in [LOCATION, CONTENT_LOCATION] {
                let found = paths("POST", 201, &[(name, location)]);
                assert_eq!(found.get(1).map(String::as_str), path, "{location}");
            }
        }
        let both = [(LOCATION, "/a"), (CONTENT_LOCATION, "/b")];
        assert_eq!(paths("POST", 201, &both), ["/x/y?q", "/a", "/b"]);
        let twice = [(LOCATION, "/a"), (CONTENT_LOCATION, "/a")];
        assert_eq!(paths("POST", 201, &twice), ["/x/y?q", "/a"]);
    }

    #[test]
    fn an_address_has_colons_of_its_own() {
        let target = Target { scheme: "http", authority: "[::1]:8080", path: "/" };
        assert_eq!(resolve("http://[::1]:8080/a", &target).as_deref(), Some("/a"));
        assert_eq!(resolve("http://[::1]/a", &target), None);
    }

    #[test]
    fn a_response_may_say_that_it_is_what_a_get_would_get() {
        // RFC 9110 9.3.3.
        for (location, wanted) in [("/x/y?q", true), ("https://a.test/x/y?q", true), ("?q", true), ("/x/y", false)] {
            let headers = HeaderMap::from_iter([(CONTENT_LOCATION, location.parse().unwrap())]);
            assert_eq!(is_at_content_location(&TARGET, &headers), wanted, "{location}");
        }
        assert!(!is_at_content_location(&TARGET, &HeaderMap::new()));
    }

    proptest! {
        #[test]
        fn what_a_reference_leads_to_is_a_path(reference in "[a./:?#%é-]{0,20}|\\PC{0,20}") {
            if let Some(path) = resolve(&reference, &TARGET) {
                prop_assert!(path.starts_with('/'));
                let path = path.split('?').next().unwrap().to_owned();
                prop_assert!(!path.split('/').any(|segment| segment == "." || segment == ".."));
            }
        }
    }
}
