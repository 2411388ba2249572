//! The secondary key: what of a request chose this response among those of its URL (RFC 9111 4.1).
//!
//! Each field that `Vary` names goes in with its name and its value, both behind their length, so that no value can look
//! like another field, and none like an absent one. `Accept-Encoding` and `Accept-Language` go in by what they mean: in lower
//! case, ordered by weight. Of all others the lines are joined, and blanks about commas dropped.

use std::cmp::Reverse;

use http::header::{ACCEPT_ENCODING, ACCEPT_LANGUAGE, HeaderMap, HeaderName, VARY};
use smallvec::SmallVec;

use super::list;

/// The fields of requests that a response depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vary {
    /// On these, in the order of their names, each once; on none when it is empty.
    On(SmallVec<[HeaderName; 4]>),
    /// On something that no request can show to be the same: `*`, or what is no field name.
    Everything,
}

impl Vary {
    /// Reads all lines of `Vary`.
    pub fn of(response: &HeaderMap) -> Self {
        let mut names = SmallVec::<[HeaderName; 4]>::new();
        for member in list::members(response, VARY) {
            match HeaderName::from_bytes(member) {
                Ok(name) if name != "*" => names.push(name),
                _ => return Self::Everything,
            }
        }
        names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        Self::On(names)
    }
}

/// Appends the secondary key of this request to `key`: nothing when the response depends on no field.
pub fn write_key(names: &[HeaderName], request: &HeaderMap, key: &mut Vec<u8>) {
    for name in names {
        frame(key, |key| key.extend_from_slice(name.as_str().as_bytes()));
        if !request.contains_key(name) {
            key.push(0);
            continue;
        }
        key.push(1);
        frame(key, |key| {
            if *name == ACCEPT_ENCODING || *name == ACCEPT_LANGUAGE {
                write_by_weight(name, request, key);
            } else {
                write_joined(name, request, key);
            }
        });
    }
}

/// Writes what `write` does, with its length before it.
fn frame(key: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let begin = key.len();
    key.extend_from_slice(&[0; 4]);
    write(key);
    // No head of a request is 4 GiB.
    let length = u32::try_from(key.len() - begin - 4).unwrap_or(u32::MAX);
    key[begin..begin + 4].copy_from_slice(&length.to_be_bytes());
}

fn write_joined(name: &HeaderName, request: &HeaderMap, key: &mut Vec<u8>) {
    let pieces = request.get_all(name).iter().flat_map(|line| list::split(line.as_bytes()));
    for (index, piece) in pieces.enumerate() {
        if index > 0 {
            key.push(b',');
        }
        key.extend_from_slice(piece);
    }
}

/// A member of a list with weights: heaviest first, then by name, which RFC 9110 12.5.3 and 12.5.4 give no meaning.
type Weighed = (Reverse<u16>, SmallVec<[u8; 16]>);

fn write_by_weight(name: &HeaderName, request: &HeaderMap, key: &mut Vec<u8>) {
    let mut members = SmallVec::<[Weighed; 8]>::new();
    for member in list::members(request, name) {
        let Some((value, weight)) = weigh(member) else { return write_joined(name, request, key) };
        let mut value: SmallVec<[u8; 16]> = value.iter().map(u8::to_ascii_lowercase).collect();
        // RFC 9110 8.4.1.3: the same coding.
        if *name == ACCEPT_ENCODING && value[..] == b"x-gzip"[..] {
            value = SmallVec::from_slice(b"gzip");
        }
        members.push((Reverse(weight), value));
    }
    members.sort_unstable();
    members.dedup();
    for (index, (Reverse(weight), value)) in members.iter().enumerate() {
        if index > 0 {
            key.push(b',');
        }
        key.extend_from_slice(value);
        if *weight != 1_000 {
            key.push(b';');
            key.extend_from_slice(&weight.to_be_bytes());
        }
    }
}

/// A member and its weight in thousandths (RFC 9110 12.4.2); `None` when it has anything else behind a `;`.
fn weigh(member: &[u8]) -> Option<(&[u8], u16)> {
    let Some(at) = member.iter().position(|byte| *byte == b';') else { return Some((member, 1_000)) };
    let (value, weight) = (list::trim(&member[..at]), list::trim(&member[at + 1..]));
    let [b'q' | b'Q', b'=', whole @ (b'0' | b'1'), rest @ ..] = weight else { return None };
    let digits = match rest {
        [] => rest,
        [b'.', digits @ ..] if digits.len() <= 3 && digits.iter().all(u8::is_ascii_digit) => digits,
        _ => return None,
    };
    let part = [100, 10, 1].iter().zip(digits).map(|(worth, digit)| worth * u16::from(digit - b'0')).sum::<u16>();
    let weight = u16::from(whole - b'0') * 1_000 + part;
    (weight <= 1_000).then_some((value, weight))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn head(name: &HeaderName, lines: &[&str]) -> HeaderMap {
        lines.iter().map(|line| (name.clone(), line.parse().unwrap())).collect()
    }

    fn key(name: &HeaderName, lines: &[&str]) -> Vec<u8> {
        let mut key = Vec::new();
        write_key(std::slice::from_ref(name), &head(name, lines), &mut key);
        key
    }

    #[test]
    fn vary_names_fields_over_all_its_lines() {
        // RFC 9110 12.5.5.
        let on = |names: &[&'static str]| Vary::On(names.iter().map(|name| HeaderName::from_static(name)).collect());
        for (lines, vary) in [
            (&[][..], on(&[])),
            (&[""], on(&[])),
            (&["Foo, bar", "FOO"], on(&["bar", "foo"])),
            (&["foo, *"], Vary::Everything),
            (&["foo", "*"], Vary::Everything),
            (&["foo bar"], Vary::Everything),
        ] {
            assert_eq!(Vary::of(&head(&VARY, lines)), vary, "{lines:?}");
        }
    }

    #[test]
    fn what_means_the_same_has_the_same_key() {
        // RFC 9111 4.1.
        let foo = HeaderName::from_static("foo");
        for (name, one, other, same) in [
            (&foo, &["1"][..], &["1"][..], true),
            (&foo, &["1"], &["2"], false),
            (&foo, &[], &[], true),
            (&foo, &[], &[""], false), // absent is not empty
            (&foo, &["1, 2"], &["1,2"], true),
            (&foo, &["1, 2"], &["1", "2"], true),
            (&foo, &["1, 2"], &["2, 1"], false),
            (&foo, &["\"1, 2\""], &["\"1,2\""], false),
            (&foo, &["a"], &["A"], false),
            (&foo, &["1,,2"], &["1,2"], false),
            (&ACCEPT_ENCODING, &["gzip, br"], &["BR,GZip"], true),
            (&ACCEPT_ENCODING, &["gzip;q=1.0, br;q=0.50"], &["br; q=0.5", "gzip"], true),
            (&ACCEPT_ENCODING, &["gzip"], &["x-gzip"], true),
            (&ACCEPT_ENCODING, &["gzip"], &["gzip;q=0"], false),
            (&ACCEPT_ENCODING, &["gzip"], &["gzip, identity;q=0"], false),
            (&ACCEPT_ENCODING, &[], &[""], false),
            (&ACCEPT_ENCODING, &["gzip;q=2"], &["gzip"], false),
            (&ACCEPT_LANGUAGE, &["en-GB, de;q=0.8"], &["DE ; Q=0.800 , en-gb"], true),
            (&ACCEPT_LANGUAGE, &["en, de;q=0.8"], &["en;q=0.8, de"], false),
            (&ACCEPT_LANGUAGE, &["en;level=1"], &["en"], false),
        ] {
            assert_eq!(key(name, one) == key(name, other), same, "{name}: {one:?} {other:?}");
        }
    }

    #[test]
    fn a_response_that_depends_on_nothing_has_no_secondary_key() {
        let mut key = Vec::new();
        write_key(&[], &HeaderMap::new(), &mut key);
        assert!(key.is_empty());
    }

    /// Values of a, b and c; `None` is absent.
    fn three(values: &[Option<Vec<u8>>; 3]) -> (HeaderMap, Vec<u8>) {
        let names = ["a", "b", "c"].map(HeaderName::from_static);
        let mut headers = HeaderMap::new();
        for (name, value) in names.iter().zip(values) {
            if let Some(value) = value {
                headers.append(name, HeaderValue::from_bytes(value).unwrap());
            }
        }
        let mut key = Vec::new();
        write_key(&names, &headers, &mut key);
        (headers, key)
    }

    fn value() -> impl Strategy<Value = Option<Vec<u8>>> {
        // Without blanks, so that what differs also means something else.
        proptest::option::of(proptest::collection::vec(prop_oneof![b'a'..=b'c', Just(b','), Just(0xff)], 0..6))
    }

    proptest! {
        #[test]
        fn no_value_forges_another(one in [value(), value(), value()], other in [value(), value(), value()]) {
            let ((one, one_key), (other, other_key)) = (three(&one), three(&other));
            prop_assert_eq!(one == other, one_key == other_key);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                for name in [ACCEPT_ENCODING, ACCEPT_LANGUAGE, VARY] {
                    let headers = HeaderMap::from_iter([(name.clone(), value.clone())]);
                    write_key(&[name], &headers, &mut Vec::new());
                    Vary::of(&headers);
                }
            }
        }
    }
}
