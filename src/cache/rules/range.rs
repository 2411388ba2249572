//! Parts of a representation: `Range` and `Content-Range` (RFC 9110 14).
//!
//! A `Range` that is malformed, not in bytes, or asks for too much is ignored, as the RFC lets us: the whole is sent.

use std::fmt::{self, Display, Formatter};
use std::ops::Range;

use http::header::{CONTENT_RANGE, HeaderMap, RANGE};
use smallvec::SmallVec;

use super::list::{self, digits};

/// What a request asks for of a representation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of it: 200.
    Whole,
    /// These parts, in the order asked for, each within the length and not empty: 206.
    Parts(SmallVec<[Range<u64>; 1]>),
    /// Only what lies behind its end: 416.
    Unsatisfiable,
}

/// What the `Range` of a GET asks for of a representation of this length; of more than `most` ranges, the whole.
///
/// Ranges that together are longer than the whole overlap, and are ignored: they only make us send more.
pub fn wanted(request: &HeaderMap, length: u64, most: usize) -> Wanted {
    let ranges = list::single(request, RANGE).and_then(|text| parse(text, most));
    let Some(ranges) = ranges else { return Wanted::Whole };
    let parts: SmallVec<[Range<u64>; 1]> = ranges.iter().filter_map(|asked| asked.within(length)).collect();
    let sum = parts.iter().fold(0_u64, |sum, part| sum.saturating_add(part.end - part.start));
    // The last bytes of nothing can be had (RFC 9110 14.1.2), but no Content-Range can say so.
    let is_end_of_nothing = |asked: &Asked| length == 0 && matches!(asked, Asked::Last(1..));
    match () {
        () if ranges.iter().any(is_end_of_nothing) => Wanted::Whole,
        () if parts.is_empty() => Wanted::Unsatisfiable,
        () if sum > length => Wanted::Whole,
        () => Wanted::Parts(parts),
    }
}

/// One range as asked for, before the length is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// From the first to the last byte, both included; to the end when there is no last.
    From(u64, Option<u64>),
    /// The last so many bytes.
    Last(u64),
}

impl Asked {
    /// Which bytes of this length that is; `None` when there are none.
    pub fn within(self, length: u64) -> Option<Range<u64>> {
        let range = match self {
            Self::From(first, last) => first..last.map_or(length, |last| last.saturating_add(1).min(length)),
            Self::Last(count) => length.saturating_sub(count)..length,
        };
        (!range.is_empty()).then_some(range)
    }
}

/// Reads `bytes=…`; `None` when it is to be ignored: malformed, in other units, or more than `most` ranges.
pub fn parse(text: &[u8], most: usize) -> Option<SmallVec<[Asked; 1]>> {
    let at = text.iter().position(|byte| *byte == b'=')?;
    if !text[..at].eq_ignore_ascii_case(b"bytes") {
        return None;
    }
    let mut ranges = SmallVec::new();
    for member in list::split(&text[at + 1..]).filter(|member| !member.is_empty()) {
        if ranges.len() == most {
            return None;
        }
        ranges.push(one(member)?);
    }
    (!ranges.is_empty()).then_some(ranges)
}

fn one(member: &[u8]) -> Option<Asked> {
    let at = member.iter().position(|byte| *byte == b'-')?;
    let (first, last) = (&member[..at], &member[at + 1..]);
    if first.is_empty() {
        return Some(Asked::Last(digits(last, u64::MAX)?));
    }
    let first = digits(first, u64::MAX)?;
    let last = if last.is_empty() { None } else { Some(digits(last, u64::MAX)?) };
    // RFC 9110 14.1.1: a last byte before the first is invalid.
    last.is_none_or(|last| first <= last).then_some(Asked::From(first, last))
}

/// `Content-Range`, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// The bytes that are there; `None` in a 416.
    pub range: Option<Range<u64>>,
    /// The length of the whole, if it is known.
    pub length: Option<u64>,
}

impl ContentRange {
    /// Reads the field; `None` when it is absent, in other units, or says what cannot be (RFC 9110 14.4).
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let text = list::single(headers, CONTENT_RANGE)?;
        let at = text.iter().position(|byte| *byte == b' ')?;
        if !text[..at].eq_ignore_ascii_case(b"bytes") {
            return None;
        }
        let text = &text[at + 1..];
        let slash = text.iter().position(|byte| *byte == b'/')?;
        let (range, length) = (&text[..slash], &text[slash + 1..]);
        let length = if length == b"*" { None } else { Some(digits(length, u64::MAX)?) };
        if range == b"*" {
            return length.is_some().then_some(Self { range: None, length });
        }
        let Some(Asked::From(first, Some(last))) = one(range) else { return None };
        let end = last.checked_add(1)?;
        length.is_none_or(|length| end <= length).then_some(Self { range: Some(first..end), length })
    }
}

impl Display for ContentRange {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.range {
            Some(range) => write!(f, "bytes {}-{}/", range.start, range.end.saturating_sub(1))?,
            None => f.write_str("bytes */")?,
        }
        match self.length {
            Some(length) => write!(f, "{length}"),
            None => f.write_str("*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn of_ten(text: &str) -> Wanted {
        wanted(&HeaderMap::from_iter([(RANGE, text.parse().unwrap())]), 10, 3)
    }

    #[test]
    fn ranges_are_read_as_the_rfc_says() {
        // RFC 9110 14.1.2, 14.2; of ten bytes, and three ranges at most.
        let parts = |parts: &[(u64, u64)]| Wanted::Parts(parts.iter().map(|(start, end)| *start..*end).collect());
        for (text, wanted) in [
            ("bytes=0-0", parts(&[(0, 1)])),
            ("bytes=2-4", parts(&[(2, 5)])),
            ("Bytes=2-4", parts(&[(2, 5)])),
            ("bytes=2-", parts(&[(2, 10)])),
            ("bytes=-3", parts(&[(7, 10)])),
            ("bytes=-30", parts(&[(0, 10)])),
            ("bytes=8-99999999999999999999999", parts(&[(8, 10)])),
            ("bytes=0-1, 5-6,, -1", parts(&[(0, 2), (5, 7), (9, 10)])),
            ("bytes=5-6,0-1", parts(&[(5, 7), (0, 2)])),
            ("bytes=0-1,20-30", parts(&[(0, 2)])),
            ("bytes=10-", Wanted::Unsatisfiable),
            ("bytes=10-20,30-", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=0-1,2-3,4-5,6-7", Wanted::Whole), // too many
            ("bytes=0-9,0-9", Wanted::Whole),         // more than there is
            ("bytes=0-,0-,0-", Wanted::Whole),
            ("bytes=4-2", Wanted::Whole),
            ("bytes=0-1,4-2", Wanted::Whole),
            ("bytes=", Wanted::Whole),
            ("bytes=,", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("bytes=1 - 2", Wanted::Whole),
            ("bytes=1", Wanted::Whole),
            ("bytes 1-2", Wanted::Whole),
            ("lines=1-2", Wanted::Whole),
        ] {
            assert_eq!(of_ten(text), wanted, "{text}");
        }
        assert_eq!(wanted(&HeaderMap::new(), 10, 3), Wanted::Whole);
        for (text, of_nothing) in
            [("bytes=0-", Wanted::Unsatisfiable), ("bytes=-0", Wanted::Unsatisfiable), ("bytes=-1", Wanted::Whole)]
        {
            let headers = HeaderMap::from_iter([(RANGE, text.parse().unwrap())]);
            assert_eq!(wanted(&headers, 0, 3), of_nothing, "{text}");
        }
    }

    #[test]
    fn content_range_is_read_and_written() {
        // RFC 9110 14.4.
        for (text, range, length) in
            [("bytes 0-4/10", Some(0..5), Some(10)), ("bytes 0-4/*", Some(0..5), None), ("bytes */10", None, Some(10))]
        {
            let headers = HeaderMap::from_iter([(CONTENT_RANGE, text.parse().unwrap())]);
            let read = ContentRange::of(&headers).unwrap();
            assert_eq!(read, ContentRange { range, length });
            assert_eq!(read.to_string(), text);
        }
        for text in [
            "bytes 0-10/10",
            "bytes 4-2/10",
            "bytes -2/10",
            "bytes 2-/10",
            "bytes */*",
            "bytes 0-4",
            "lines 0-4/10",
            "bytes 0-18446744073709551615/*",
            "0-4/10",
            "",
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_RANGE, text.parse().unwrap())]);
            assert_eq!(ContentRange::of(&headers), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            parse(&bytes, 5);
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                ContentRange::of(&HeaderMap::from_iter([(CONTENT_RANGE, value)]));
            }
        }

        #[test]
        fn what_is_wanted_lies_within_and_is_no_more_than_the_whole(text in "bytes=[0-9,-]{1,20}", length: u64) {
            let headers = HeaderMap::from_iter([(RANGE, text.parse().unwrap())]);
            if let Wanted::Parts(parts) = wanted(&headers, length, 5) {
                prop_assert!((1..=5).contains(&parts.len()));
                prop_assert!(parts.iter().all(|part| part.start < part.end && part.end <= length));
                prop_assert!(parts.iter().map(|part| u128::from(part.end - part.start)).sum::<u128>() <= length.into());
            }
        }
    }
}
