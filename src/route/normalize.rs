//! The normal form of a path, so that what a rule matched is what the backend gets (RFC 3986 6.2.2 and 5.2.4).
//!
//! `%41` becomes `A`, other escapes get upper-case digits (`%2f` stays an escape: `%2F`), dot segments and double slashes
//! go, and a path that climbs above the root stops there. Bytes that no path may carry as they are (spaces, controls,
//! anything beyond ASCII) become escapes, so that `/café` and `/caf%C3%A9` are one path.

/// The normal form of `path`; `None` when that is `path` itself, which costs one scan and no allocation.
pub fn normalize(path: &str) -> Option<String> {
    let path = path.as_bytes();
    (!is_normal(path)).then(|| rewrite(path))
}

/// The bytes that mean nothing by themselves.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        plain[byte] = byte != b'/' as usize && byte != b'%' as usize;
        byte += 1;
    }
    plain
};

fn is_normal(path: &[u8]) -> bool {
    if path.first() != Some(&b'/') {
        return path == b"*";
    }
    let mut index = 0;
    while let Some(&byte) = path.get(index) {
        if PLAIN[usize::from(byte)] {
            index += 1;
            continue;
        }
        match byte {
            b'/' if opens_badly(&path[index + 1..]) => return false,
            b'%' => match escape(&path[..index], &path[index..]) {
                Escape::Keep => index += 2,
                Escape::Stray => {}
                Escape::Plain(_) | Escape::Upper(_) => return false,
            },
            b'/' => {}
            _ => return false,
        }
        index += 1;
    }
    true
}

/// Whether what follows a slash is another slash or a dot segment.
fn opens_badly(rest: &[u8]) -> bool {
    match rest {
        [b'/', ..] | [b'.'] | [b'.', b'/', ..] | [b'.', b'.'] | [b'.', b'.', b'/', ..] => true,
        [..] => false,
    }
}

/// What becomes of a `%`.
enum Escape {
    /// No two hexadecimal digits follow: it stays as it is.
    Stray,
    /// It and its digits stay as they are.
    Keep,
    /// It stays an escape, with these digits.
    Upper([u8; 3]),
    /// It stands for a byte that needs no escape.
    Plain(u8),
}

/// Looks at the escape that `rest` begins with, after `before` (in normal form already).
fn escape(before: &[u8], rest: &[u8]) -> Escape {
    let [_, high, low, ..] = *rest else { return Escape::Stray };
    let (Some(above), Some(below)) = (hex_digit(high), hex_digit(low)) else { return Escape::Stray };
    let byte = above << 4 | below;
    let unreserved = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    // `%%341` must not become the new escape `%41`: one pass has to be all that anybody can get.
    if unreserved && !(byte.is_ascii_hexdigit() && escape_is_open(before)) {
        return Escape::Plain(byte);
    }
    match [b'%', high.to_ascii_uppercase(), low.to_ascii_uppercase()] {
        upper if upper[1] == high && upper[2] == low => Escape::Keep,
        upper => Escape::Upper(upper),
    }
}

/// Whether a hexadecimal digit after `before` could complete an escape. (A `%` in the last two places is always a stray
/// one: a whole escape takes three.)
fn escape_is_open(before: &[u8]) -> bool {
    match before {
        [.., b'%'] => true,
        [.., b'%', digit] => digit.is_ascii_hexdigit(),
        _ => false,
    }
}

/// The value of a hexadecimal digit.
pub(super) fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

fn rewrite(path: &[u8]) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = Vec::with_capacity(path.len() + 1);
    out.push(b'/');
    // Where the segment that is being written begins.
    let mut start = 1;
    let mut index = 0;
    while let Some(&byte) = path.get(index) {
        index += 1;
        match byte {
            b'/' => {
                start = close_segment(&mut out, start);
                if start < out.len() {
                    out.push(b'/');
                    start = out.len();
                }
            }
            b'%' => match escape(&out, &path[index - 1..]) {
                Escape::Stray => out.push(b'%'),
                Escape::Plain(byte) => {
                    out.push(byte);
                    index += 2;
                }
                Escape::Upper(text) => {
                    out.extend_from_slice(&text);
                    index += 2;
                }
                Escape::Keep => {
                    out.extend_from_slice(&path[index - 1..index + 2]);
                    index += 2;
                }
            },
            _ if PLAIN[usize::from(byte)] => out.push(byte),
            _ => {
                out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
    }
    close_segment(&mut out, start);
    String::from_utf8(out).expect("all bytes beyond ASCII were escaped")
}

/// Drops the segment that begins at `start` if it is a dot segment, and for `..` the one before it too. Answers where the
/// next text goes: the end of `out` after a dropped or empty segment, `start` after one that stays.
fn close_segment(out: &mut Vec<u8>, start: usize) -> usize {
    match &out[start..] {
        b"." => out.truncate(start),
        b".." => {
            let parent = out[..start - 1].iter().rposition(|byte| *byte == b'/').map_or(1, |slash| slash + 1);
            out.truncate(parent);
        }
        _ => return start,
    }
    out.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn normal(path: &str) -> String {
        normalize(path).unwrap_or_else(|| path.to_owned())
    }

    #[test]
    fn a_path_has_one_normal_form() {
        for (path, wanted) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("*", "*"),
            // Escapes.
            ("/%41%7e", "/A~"),
            ("/%61dmin", "/admin"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%2Fb", "/a%2Fb"),
            ("/%zz%4", "/%zz%4"),
            ("/%", "/%"),
            ("/100%", "/100%"),
            ("/%00%5c", "/%00%5C"),
            ("/%c3%a9", "/%C3%A9"),
            ("/é", "/%C3%A9"),
            ("/a b\t", "/a%20b%09"),
            // Never a new escape from the pieces of others.
            ("/%%341", "/%%341"),
            ("/%4%31", "/%4%31"),
            ("/%%32%65%%32%65/", "/%%32e%%32e/"),
            ("/%%2e", "/%."),
            ("/%25%34%31", "/%2541"),
            // Dot segments, written out or escaped.
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/.", "/"),
            ("/..", "/"),
            ("/../../etc/passwd", "/etc/passwd"),
            ("/a/../../b", "/b"),
            ("/a/%2e%2e/b", "/b"),
            ("/a/.%2E/b", "/b"),
            ("/a/%2e./%2E/b", "/b"),
            ("/.git/..a/a..", "/.git/..a/a.."),
            ("/...", "/..."),
            ("/..%2Fa", "/..%2Fa"),
            // Slashes.
            ("//", "/"),
            ("//a///b//", "/a/b/"),
            ("/a//../b", "/b"),
            ("///..//a", "/a"),
            // What is no path becomes one.
            ("", "/"),
            ("a", "/a"),
            ("*a", "/*a"),
            ("../a", "/a"),
        ] {
            assert_eq!(normal(path), wanted, "{path}");
            assert_eq!(normalize(path).is_none(), path == wanted, "{path} costs nothing only when it is normal");
        }
    }

    fn dirty() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "/", "//", ".", "..", "%", "%2", "%2e", "%2E", "%2f", "%41", "%34", "%31", "%32", "%65", "%25", "4", "1",
            "e", "a", "Z", "~", "%zz", "%c3", "é", " ", "\u{0}", "*", "{", "\\", "%5c",
        ]);
        prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn once_is_enough_and_nothing_dangerous_is_left(path in dirty()) {
            let once = normal(&path);
            prop_assert_eq!(normalize(&once), None, "{} -> {}", path, once);
            prop_assert!(once == "*" || once.starts_with('/'));
            prop_assert!(!once.contains("//"));
            prop_assert!(once.bytes().all(|byte| byte.is_ascii_graphic()));
            for segment in once.split('/') {
                let decoded = segment.to_ascii_lowercase().replace("%2e", ".");
                prop_assert!(decoded != "." && decoded != "..", "{} -> {}", path, once);
            }
        }

        #[test]
        fn any_text_will_do(path in ".*") {
            prop_assert_eq!(normalize(&normal(&path)), None);
        }
    }
}
