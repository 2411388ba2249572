//! Percent-encoding of what templates rendered (RFC 3986 2): the result is plain visible ASCII, whatever a client sent.

/// Appends the bytes as a piece of a URI: what no URI may hold is encoded, and so is a `%` that begins no triplet.
pub(super) fn uri(bytes: &[u8], out: &mut String) {
    encode(bytes, out, |byte| is_path(byte) || matches!(byte, b'?' | b'#' | b'[' | b']'));
}

/// The bytes as an absolute path: encoded, without dot segments, beginning with one `/`, and without empty segments.
///
/// Thus a piece from the client can neither climb out of the directory that the template names, nor make a `//host`.
pub(super) fn path(bytes: &[u8]) -> String {
    let mut encoded = String::with_capacity(bytes.len() + 1);
    encode(bytes, &mut encoded, is_path);
    let sound =
        encoded.starts_with('/') && !encoded.contains("//") && !encoded.split('/').any(|segment| dots(segment) > 0);
    if sound {
        return encoded;
    }
    let mut out = String::with_capacity(encoded.len() + 1);
    // Whether the path ends in `/`: after an empty last segment, or a dot segment there.
    let mut open = true;
    for segment in encoded.split('/') {
        open = true;
        match dots(segment) {
            2 => out.truncate(out.rfind('/').unwrap_or(0)),
            1 => {}
            _ if segment.is_empty() => {}
            _ => {
                out.push('/');
                out.push_str(segment);
                open = false;
            }
        }
    }
    if open {
        out.push('/');
    }
    out
}

/// The number of dots when the segment is `.` or `..`, encoded or not; else 0.
fn dots(segment: &str) -> usize {
    let mut rest = segment;
    let mut count = 0;
    while !rest.is_empty() {
        let encoded = rest.get(..3).filter(|triplet| triplet.eq_ignore_ascii_case("%2e")).map(|_| &rest[3..]);
        match rest.strip_prefix('.').or(encoded) {
            Some(after) if count < 2 => (rest, count) = (after, count + 1),
            _ => return 0,
        }
    }
    count
}

/// What a path may hold as it is (RFC 3986 3.3), and `%`.
const fn is_path(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*')
        || matches!(byte, b'+' | b',' | b';' | b'=' | b':' | b'@' | b'/' | b'%')
}

fn encode(bytes: &[u8], out: &mut String, plain: impl Fn(u8) -> bool) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for (index, &byte) in bytes.iter().enumerate() {
        let lone_percent = || !bytes.get(index + 1..index + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        if plain(byte) && !(byte == b'%' && lone_percent()) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_uri_holds_visible_ascii_only() {
        for (text, encoded) in [
            ("https://a/b?c=d#e", "https://a/b?c=d#e"),
            ("/a b\r\n", "/a%20b%0D%0A"),
            ("/%41%zz%4", "/%41%25zz%254"),
            ("/é\\\"<>", "/%C3%A9%5C%22%3C%3E"),
        ] {
            let mut out = String::new();
            uri(text.as_bytes(), &mut out);
            assert_eq!(out, encoded, "{text}");
        }
    }

    #[test]
    fn a_path_begins_with_one_slash_and_climbs_nowhere() {
        for (text, clean) in [
            ("", "/"),
            ("/", "/"),
            ("a", "/a"),
            ("/a/b/", "/a/b/"),
            ("//evil/x", "/evil/x"),
            ("/a//b", "/a/b"),
            ("/a//", "/a/"),
            ("/a/../b", "/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/a/%2e%2E/b", "/b"),
            ("/../../x", "/x"),
            ("/.../..a/a..", "/.../..a/a.."),
            ("/a?b#c", "/a%3Fb%23c"),
        ] {
            assert_eq!(path(text.as_bytes()), clean, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_an_unsafe_path(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'/'), Just(b'.')], 0..40)) {
            let clean = path(&bytes);
            prop_assert!(clean.starts_with('/') && !clean.starts_with("//"));
            prop_assert!(clean.bytes().all(|byte| byte.is_ascii_graphic()));
            prop_assert!(!clean.split('/').any(|segment| dots(segment) > 0));
            prop_assert_eq!(path(clean.as_bytes()), clean);
        }
    }
}
