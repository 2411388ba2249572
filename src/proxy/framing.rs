//! How a message is framed: its length said once or not let through, its cookies in one line.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, COOKIE, HeaderMap, HeaderValue, TRANSFER_ENCODING};

/// Whether a request is in chunks and nothing else, if it names a transfer coding at all. Pingora reads the chunks and
/// forgets the codings before them: a compressed body would go on as a plain one.
pub(super) fn knows_transfer_coding(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

/// The length of a message that tells it more than once, to tell it once (RFC 9110 8.6). That all of them agree was seen
/// when the head was read.
pub(super) fn repeated_length(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let first = lengths.next()?.as_bytes();
    if lengths.next().is_none() && !first.contains(&b',') {
        return None;
    }
    let one = first.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).find(|length| !length.is_empty())?;
    HeaderValue::from_bytes(one).ok()
}

/// Joins the cookies that HTTP/2 lets a client send in pieces (RFC 9113 8.2.3).
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let mut joined = Vec::with_capacity(256);
    for piece in headers.get_all(COOKIE) {
        if !joined.is_empty() {
            joined.extend_from_slice(b"; ");
        }
        joined.extend_from_slice(piece.as_bytes());
    }
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(joined)) {
        headers.insert(COOKIE, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &http::HeaderName, lines: &[&'static str]) -> HeaderMap {
        lines.iter().map(|line| (name.clone(), HeaderValue::from_static(line))).collect()
    }

    #[test]
    fn only_a_length_told_more_than_once_is_told_anew() {
        for (lines, one) in [
            (&[][..], None),
            (&["5"][..], None),
            (&["5", "5"], Some("5")),
            (&["5, 5"], Some("5")),
            (&[", 5 ,5"], Some("5")),
        ] {
            let told = repeated_length(&headers(&CONTENT_LENGTH, lines));
            assert_eq!(told.as_ref().map(|value| value.to_str().unwrap()), one, "{lines:?}");
        }
    }

    #[test]
    fn chunks_are_the_only_transfer_coding() {
        for (lines, known) in [
            (&[][..], true),
            (&["chunked"], true),
            (&["Chunked"], true),
            (&["gzip, chunked"], false),
            (&["gzip", "chunked"], false),
            (&["chunked", "chunked"], false),
        ] {
            assert_eq!(knows_transfer_coding(&headers(&TRANSFER_ENCODING, lines)), known, "{lines:?}");
        }
    }
}
