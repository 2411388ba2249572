//! Lists with commas, as header fields have them (RFC 9110 5.6.1): over all lines of a field, outside quoted strings.
//!
//! A quoted string that never ends is none: else a stray quote could hide the `no-store` behind it.

use http::header::{AsHeaderName, HeaderMap};

/// The members of a list, in order, trimmed; empty ones are left out.
pub fn members(headers: &HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = &[u8]> {
    headers.get_all(name).iter().flat_map(|line| split(line.as_bytes())).filter(|member| !member.is_empty())
}

/// The pieces between the commas of one line, trimmed; empty ones too.
pub const fn split(line: &[u8]) -> Split<'_> {
    Split { rest: Some(line) }
}

/// See [`split`].
#[derive(Clone, Debug)]
pub struct Split<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Iterator for Split<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        let mut at = 0;
        while at < rest.len() {
            match rest[at] {
                b',' => {
                    self.rest = Some(&rest[at + 1..]);
                    return Some(trim(&rest[..at]));
                }
                b'"' => at = end_of_string(rest, at).unwrap_or(at + 1),
                _ => at += 1,
            }
        }
        self.rest = None;
        Some(trim(rest))
    }
}

/// Where the quoted string that begins at `at` is over: the place after its closing quote.
fn end_of_string(text: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    while at < text.len() {
        match text[at] {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    None
}

/// Without blanks and tabs at its ends (OWS, RFC 9110 5.6.3).
pub fn trim(text: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| !matches!(byte, b' ' | b'\t');
    let Some(begin) = text.iter().position(is_text) else { return &[] };
    let end = text.iter().rposition(is_text).map_or(begin, |last| last + 1);
    &text[begin..end]
}

/// The only line of a field; `None` when there is none, or more than one that differ.
pub fn single(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&[u8]> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    lines.all(|line| line == first).then(|| trim(first.as_bytes()))
}

/// A number of digits only, at most `most`; what is larger counts as `most`.
pub fn digits(text: &[u8], most: u64) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |sum: u64, digit: &u8| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    Some(text.iter().fold(0, add).min(most))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn commas_part_members_but_not_inside_strings() {
        // RFC 9110 5.6.1.2: empty members count for nothing; 5.6.4: quoted strings.
        for (line, pieces) in [
            ("", &[""][..]),
            ("a", &["a"]),
            (" a ,\tb\t, c", &["a", "b", "c"]),
            ("a,,b,", &["a", "", "b", ""]),
            ("a=\"x,y\", b", &["a=\"x,y\"", "b"]),
            (r#"a="x\",y", b"#, &[r#"a="x\",y""#, "b"]),
            ("a=\"x, no-store", &["a=\"x", "no-store"]),
            ("a=\"x\\", &["a=\"x\\"]),
        ] {
            assert!(split(line.as_bytes()).eq(pieces.iter().map(|piece| piece.as_bytes())), "{line}");
        }
    }

    #[test]
    fn a_list_goes_on_over_lines() {
        let mut headers = HeaderMap::new();
        for line in ["a, b", "", "c"] {
            headers.append("x", line.parse().unwrap());
        }
        assert!(members(&headers, "x").eq([b"a", b"b", b"c"]));
        assert_eq!(single(&headers, "x"), None);
        headers.insert("x", " a ".parse().unwrap());
        assert_eq!(single(&headers, "x"), Some(&b"a"[..]));
    }

    #[test]
    fn numbers_are_digits_and_clamped() {
        for (text, number) in [
            ("0", Some(0)),
            ("007", Some(7)),
            ("99", Some(99)),
            ("101", Some(100)),
            ("99999999999999999999999999", Some(100)),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("1.0", None),
            ("1 ", None),
        ] {
            assert_eq!(digits(text.as_bytes(), 100), number, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_split_without_loss(line: Vec<u8>) {
            let pieces: Vec<_> = split(&line).collect();
            prop_assert!(!pieces.is_empty());
            prop_assert!(pieces.iter().map(|piece| piece.len()).sum::<usize>() <= line.len());
        }
    }
}
