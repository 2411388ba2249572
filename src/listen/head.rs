//! Reads one whole request head before Pingora sees any of it, so that the deadlines and the size limit are ours.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::time::Instant;

use super::alarm::Alarm;
use super::closing::Closing;
use super::request::Request;
use super::stream::{EdgeStream, poll_read_through};
use crate::observe::Gauge;

/// How an HTTP/2 connection begins (RFC 9113 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection that was just accepted may hold a request that is still on its way: when its listener closes, it is
/// heard this long.
const FRESH: Duration = Duration::from_secs(1);

/// What a connection brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// A whole request head of HTTP/1, and perhaps more: a body, or a further request.
    Request(Request),
    /// The preface of HTTP/2, and perhaps more.
    Http2(BytesMut),
    /// The client has gone.
    Closed,
    /// The listener or the process ends, and the connection was idle.
    Ended,
    /// No further request came in time.
    IdleTimeout,
    /// A new connection brought no byte in time.
    Silent,
    /// The head came too slowly.
    HeadTimeout,
    /// The head is larger than it may be.
    TooLarge,
    /// This is no HTTP.
    NotHttp,
}

/// The rules for one head.
pub(super) struct Rules {
    /// When the connection was accepted, if this is its first request.
    pub(super) fresh: Option<Instant>,
    pub(super) head: Duration,
    pub(super) idle: Duration,
    pub(super) limit: usize,
    /// Whether an HTTP/2 preface is looked for.
    pub(super) http2: bool,
}

/// The parts of a connection that last from head to head.
pub(super) struct Waiter<'a> {
    pub(super) alarm: Alarm,
    pub(super) closing: Closing,
    /// Counts the connections that wait for a request.
    pub(super) idle: &'a Gauge,
}

impl Waiter<'_> {
    /// Waits for the next request and reads its head.
    pub(super) async fn next(&mut self, stream: &mut EdgeStream, rules: &Rules) -> Incoming {
        let mut head = Head::new(rules.http2 && rules.fresh.is_some());
        // Both are made only when there is something to wait for.
        let mut deadline = None;
        let mut mark = None;
        let mut waiting = true;
        poll_fn(|cx| {
            loop {
                match poll_read_through(stream, cx, |bytes| head.take(bytes)) {
                    Poll::Ready(Ok(1..)) => {
                        if let Some(incoming) = head.look(rules.limit) {
                            return Poll::Ready(incoming);
                        }
                        if waiting && !head.bytes.is_empty() {
                            // The first byte ends the idle time and begins the time for the head, once.
                            waiting = false;
                            deadline = None;
                            mark = None;
                        }
                    }
                    Poll::Ready(_) => return Poll::Ready(Incoming::Closed),
                    Poll::Pending => break,
                }
            }
            let mut until = *deadline.get_or_insert_with(|| match rules.fresh {
                Some(accepted) if waiting => accepted + rules.head,
                _ if waiting => Instant::now() + rules.idle,
                _ => Instant::now() + rules.head,
            });
            if waiting {
                mark.get_or_insert_with(|| Idle::new(self.idle));
                if self.closing.poll(cx) {
                    match rules.fresh {
                        Some(accepted) => until = until.min(accepted + FRESH),
                        None => return Poll::Ready(Incoming::Ended),
                    }
                }
            }
            self.alarm.poll(until, cx).map(|()| match rules.fresh {
                _ if !waiting => Incoming::HeadTimeout,
                Some(_) if self.closing.poll(cx) => Incoming::Ended,
                Some(_) => Incoming::Silent,
                None => Incoming::IdleTimeout,
            })
        })
        .await
    }
}

/// A connection that waits for a request, as it is counted.
struct Idle<'a>(&'a Gauge);

impl<'a> Idle<'a> {
    fn new(gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What has come of a head.
struct Head {
    bytes: BytesMut,
    /// Up to here no end of the head was found: the next look begins here.
    scanned: usize,
    /// Where the line that is looked at begins.
    line: usize,
    /// Whether a line so far tells of something that follows the head.
    followed: bool,
    /// Whether this may still be HTTP/2's preface.
    http2: bool,
}

impl Head {
    fn new(http2: bool) -> Self {
        Self { bytes: BytesMut::new(), scanned: 0, line: 0, followed: false, http2 }
    }

    /// Adds what came.
    fn take(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Empty lines before a request mean nothing (RFC 9112 2.2).
    fn skip_empty_lines(&mut self) {
        loop {
            match self.bytes[..] {
                [b'\n', ..] => self.bytes.advance(1),
                [b'\r', b'\n', ..] => self.bytes.advance(2),
                _ => return,
            }
        }
    }

    /// What it is, as soon as that is certain.
    fn look(&mut self, limit: usize) -> Option<Incoming> {
        if self.scanned == 0 {
            self.skip_empty_lines();
            match self.bytes[..] {
                [] | [b'\r'] => return None,
                [first, ..] if !is_token(first) => return Some(Incoming::NotHttp),
                _ => {}
            }
        }
        if self.http2 {
            let common = self.bytes.len().min(PREFACE.len());
            if self.bytes[..common] == PREFACE[..common] {
                return (common == PREFACE.len()).then(|| Incoming::Http2(std::mem::take(&mut self.bytes)));
            }
            self.http2 = false;
        }
        match self.end() {
            Some(end) if end <= limit => {
                let bytes = std::mem::take(&mut self.bytes);
                Some(Incoming::Request(Request { bytes, head: end, bodiless: !self.followed }))
            }
            None if self.bytes.len() <= limit => None,
            _ => Some(Incoming::TooLarge),
        }
    }

    /// Where the head ends: after an empty line. Lines end with CRLF or, as Pingora's parser has it, a bare LF.
    fn end(&mut self) -> Option<usize> {
        while let Some(found) = memchr::memchr(b'\n', &self.bytes[self.scanned..]) {
            let line_end = self.scanned + found;
            self.followed |= tells_of_more(&self.bytes[self.line..line_end]);
            match self.bytes.get(line_end + 1..) {
                Some([b'\n', ..]) => return Some(line_end + 2),
                Some([b'\r', b'\n', ..]) => return Some(line_end + 3),
                // Whether the next line is empty is not known yet: look at this line's end once more.
                Some([] | [b'\r']) | None => {
                    self.scanned = line_end;
                    return None;
                }
                Some(_) => {
                    self.scanned = line_end + 1;
                    self.line = self.scanned;
                }
            }
        }
        self.scanned = self.bytes.len();
        None
    }
}

/// Whether bytes that belong to the request may follow a head that has this line.
fn tells_of_more(line: &[u8]) -> bool {
    // Most lines are told apart by their first byte.
    let named = |name: &[u8]| line.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name));
    match line.first().map(u8::to_ascii_lowercase) {
        Some(b'c') => named(b"content-length") || named(b"connect "),
        Some(b't') => named(b"transfer-encoding"),
        Some(b'u') => named(b"upgrade"),
        _ => false,
    }
}

/// Whether a method can begin with it (RFC 9110 5.6.2). A TLS handshake does not, so it is told at once.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(chunks: &[&[u8]], limit: usize) -> Option<Incoming> {
        let mut head = Head::new(true);
        chunks.iter().find_map(|chunk| {
            head.take(chunk);
            head.look(limit)
        })
    }

    #[test]
    fn a_head_ends_with_an_empty_line() {
        for (text, whole) in [
            ("GET / HTTP/1.1\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\nbody", true),
            ("\r\n\r\nGET / HTTP/1.1\r\n\r\n", true),
            ("GET / HTTP/1.1\n\n", true),
            ("GET / HTTP/1.1\nA: b\n\r\n", true),
            ("GET / HTTP/1.1\r\nHost: a\r\n", false),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r", false),
            ("GET / HTTP/1.1\r\n\rA: b\r\n", false),
            ("\r\n\r\n", false),
            ("\r", false),
            ("\n\r\n\nGET / HTTP/1.1\r\n\r\n", true),
            ("PRI * HTTP/2.0\r\n\r\n", false),
            ("PRI * HTTP/2.0\r\n\r\nGET", true),
            ("PRO * HTTP/2.0\r\n\r\n", true),
        ] {
            let wanted = whole.then(|| text.trim_start().as_bytes().into());
            let got = read(&[text.as_bytes()], 1024).map(|incoming| match incoming {
                Incoming::Request(request) => request.bytes,
                other => panic!("{text:?}: {other:?}"),
            });
            assert_eq!(got, wanted, "{text:?}");
        }
    }

    #[test]
    fn it_is_known_where_a_request_ends_that_has_a_head_only() {
        for (text, rest, bodiless) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /b", 6, true),
            ("GET / HTTP/1.1\nHost: a\n\nGET /b", 6, true),
            ("GET / HTTP/1.1\r\nHost: a\r\n\nGET /b HTTP/1.1\r\n\r\n", 19, true),
            ("POST / HTTP/1.1\r\nHost: a\r\n\r\n", 0, true),
            ("POST / HTTP/1.1\r\ncontent-LENGTH: 4\r\n\r\nbody", 4, false),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nA: b\r\n\r\n0\r\n\r\n", 5, false),
            ("GET / HTTP/1.1\nA: b\nUpgrade: websocket\n\n", 0, false),
            ("CONNECT a:1 HTTP/1.1\r\n\r\nhello", 5, false),
            ("GET /content-length HTTP/1.1\r\nX-Content-Length: 5\r\n\r\n", 0, true),
        ] {
            for size in 1..=text.len() {
                let chunks: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
                let Some(Incoming::Request(request)) = read(&chunks, 1024) else { panic!("{text:?}") };
                assert_eq!(request.head, text.len() - rest, "{text:?} by {size}");
                assert_eq!(request.bodiless, bodiless, "{text:?} by {size}");
            }
        }
    }

    #[test]
    fn what_is_no_http_is_told_by_its_first_byte() {
        for bytes in [&b"\x16\x03\x01\x02\x00"[..], b"\0", b" GET", b"\x80\x2e", b"\rGET", b"\r\r\n"] {
            assert_eq!(read(&[bytes], 1024), Some(Incoming::NotHttp));
        }
    }

    #[test]
    fn the_preface_of_http2_is_known_as_soon_as_it_is_whole() {
        let all = [PREFACE, b"\0\0\0\x04"].concat();
        assert_eq!(read(&[&all], 1024), Some(Incoming::Http2(all[..].into())));
        assert_eq!(read(&[&all[..23]], 1024), None);
        assert_eq!(read(&[&all[..5], &all[5..24]], 1024), Some(Incoming::Http2(PREFACE.into())));
    }

    #[test]
    fn a_head_may_be_as_large_as_the_limit() {
        let head = b"GET / HTTP/1.1\r\nA: bcdefgh\r\n\r\n";
        assert!(matches!(read(&[head], head.len()), Some(Incoming::Request(_))));
        assert_eq!(read(&[head], head.len() - 1), Some(Incoming::TooLarge));
        assert_eq!(read(&[&head[..20]], 19), Some(Incoming::TooLarge));
        let with_body = [&head[..], &[b'x'; 500]].concat();
        assert!(matches!(read(&[&with_body], head.len()), Some(Incoming::Request(_))));
    }

    proptest! {
        #[test]
        fn the_end_is_found_however_the_bytes_come(
            lines in prop::collection::vec("[A-Za-z][ -~]{0,12}\r?", 1..8),
            bare in any::<bool>(),
            cuts in prop::collection::vec(1_usize..9, 1..60),
        ) {
            let newline = if bare { "\n" } else { "\r\n" };
            let mut text = lines.iter().map(|line| format!("{line}{newline}")).collect::<String>();
            text.push_str(newline);
            let head_len = text.len();
            text.push_str("body\r\n\r\n");
            let mut head = Head::new(false);
            let (mut rest, mut cuts) = (text.as_bytes(), cuts.iter().cycle());
            let found = loop {
                let (now, later) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                head.take(now);
                rest = later;
                if let Some(end) = head.end() {
                    break end;
                }
                prop_assert!(head.bytes.len() < head_len, "not found at the end");
            };
            prop_assert_eq!(found, head_len);
        }
    }
}
