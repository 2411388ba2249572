//! A 304 taken into the stored head that it is about (RFC 9111 3.2, 4.3.3, 4.3.4).

use http::header::{
    AGE, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, LAST_MODIFIED, VARY,
};

use super::conditional::{etag, is_weak, strong_equal, weak_equal};
use super::list::single;
use super::stored_head::is_hop_by_hop;
use super::vary::Vary;

/// What a 304 says of the body that is stored, and may not be said anew of it. `Vary` goes by [`adopt_vary`].
const KEPT: [HeaderName; 5] = [AGE, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, VARY];

/// Whether a 304 is about this stored response (RFC 9111 4.3.4).
///
/// One with a strong entity tag is about the response with the same one only; one with a weak tag or a `Last-Modified` about the one
/// with the same. One without any answers the condition that we sent, and that came from this response.
pub fn is_about(stored: &HeaderMap, fresh: &HeaderMap) -> bool {
    if fresh.contains_key(ETAG) {
        let Some((fresh, stored)) = etag(fresh).zip(etag(stored)) else { return false };
        return if is_weak(fresh) { weak_equal(fresh, stored) } else { strong_equal(fresh, stored) };
    }
    let modified = |headers| single(headers, LAST_MODIFIED);
    !fresh.contains_key(LAST_MODIFIED) || modified(fresh) == modified(stored)
}

/// Takes the fields of a 304 into a stored head: each replaces all lines of its name (RFC 9111 3.2).
///
/// Left out are those that are never stored, and those that tell of the body: `Content-Length`, `Content-Encoding`, `Content-Range`.
/// `Age` is not stored either; the age of the response is that of the 304 from now on.
pub fn merge(stored: &mut HeaderMap, fresh: &HeaderMap) {
    for name in fresh.keys().filter(|name| !KEPT.contains(name) && !is_hop_by_hop(name, fresh)) {
        replace(stored, fresh, name);
    }
}

/// Whether a 304 names other fields in its `Vary` than the stored response does. One that has no `Vary` changes nothing.
pub fn changes_vary(stored: &HeaderMap, fresh: &HeaderMap) -> bool {
    fresh.contains_key(VARY) && Vary::of(fresh) != Vary::of(stored)
}

/// Takes the `Vary` of a 304 over. The response has another secondary key from then on: it must be stored anew under that,
/// or forgotten.
pub fn adopt_vary(stored: &mut HeaderMap, fresh: &HeaderMap) {
    if fresh.contains_key(VARY) {
        replace(stored, fresh, &VARY);
    }
}

fn replace(stored: &mut HeaderMap, fresh: &HeaderMap, name: &HeaderName) {
    let mut lines = fresh.get_all(name).iter();
    if let Some(first) = lines.next() {
        stored.insert(name, first.clone());
    }
    for line in lines {
        stored.append(name, line.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(&str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        fields.iter().map(field).collect()
    }

    #[test]
    fn a_304_replaces_what_it_says_anew() {
        // RFC 9111 3.2.
        let mut stored = head(&[
            ("cache-control", "max-age=1"),
            ("x-list", "1"),
            ("x-list", "2"),
            ("x-kept", "old"),
            ("content-type", "text/plain"),
            ("content-length", "5"),
            ("content-encoding", "gzip"),
            ("content-range", "bytes 0-4/9"),
            ("vary", "accept-encoding"),
            ("date", "then"),
            ("set-cookie", "old"),
        ]);
        let fresh = head(&[
            ("cache-control", "max-age=2"),
            ("x-list", "3"),
            ("x-list", "4"),
            ("x-new", "1"),
            ("x-new", "2"),
            ("content-type", "text/html"),
            ("content-length", "0"),
            ("content-encoding", "br"),
            ("content-range", "bytes 0-1/2"),
            ("vary", "accept"),
            ("date", "now"),
            ("age", "7"),
            ("set-cookie", "new"),
            ("connection", "x-hop, close"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("keep-alive", "timeout=5"),
        ]);
        merge(&mut stored, &fresh);
        let wanted = head(&[
            ("cache-control", "max-age=2"),
            ("x-list", "3"),
            ("x-list", "4"),
            ("x-new", "1"),
            ("x-new", "2"),
            ("x-kept", "old"),
            ("content-type", "text/html"),
            ("content-length", "5"),
            ("content-encoding", "gzip"),
            ("content-range", "bytes 0-4/9"),
            ("vary", "accept-encoding"),
            ("date", "now"),
            ("set-cookie", "new"),
        ]);
        assert_eq!(stored, wanted);
    }

    #[test]
    fn a_304_is_about_what_has_its_validator() {
        // RFC 9111 4.3.4.
        let (strong, weak) = (("etag", "\"a\""), ("etag", "W/\"a\""));
        let (early, late) = (("last-modified", "early"), ("last-modified", "late"));
        for (stored, fresh, wanted) in [
            (&[strong][..], &[strong][..], true),
            (&[strong], &[weak], true),
            (&[weak], &[weak], true),
            (&[weak], &[strong], false),
            (&[strong], &[("etag", "\"b\"")], false),
            (&[], &[strong], false),
            (&[], &[("etag", "")], false),
            (&[early], &[early], true),
            (&[early], &[late], false),
            (&[], &[late], false),
            (&[strong, early], &[strong, late], true),
            (&[strong, early], &[], true),
            (&[], &[], true),
        ] {
            assert_eq!(is_about(&head(stored), &head(fresh)), wanted, "{stored:?} {fresh:?}");
        }
    }

    #[test]
    fn another_vary_is_noticed() {
        let vary = |text| ("vary", text);
        for (stored, fresh, changes) in [
            (&[vary("a, b")][..], &[][..], false),
            (&[vary("a, b")], &[vary("B"), vary("A")], false),
            (&[vary("a")], &[vary("a, b")], true),
            (&[], &[vary("a")], true),
            (&[vary("a")], &[vary("*")], true),
            (&[vary("a")], &[vary("")], true),
        ] {
            let (mut stored, fresh) = (head(stored), head(fresh));
            assert_eq!(changes_vary(&stored, &fresh), changes, "{stored:?} {fresh:?}");
            adopt_vary(&mut stored, &fresh);
            assert!(!changes_vary(&stored, &fresh));
        }
    }
}
