//! `EdgeStream`: the stream handed to Pingora. It has no read buffer, and a write buffer only while a response is under
//! way, so an idle connection holds neither.

use std::fmt;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use pingora::http::ResponseHeader;
use pingora::protocols::l4::socket::SocketAddr as PingoraAddr;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Instant;

use super::alarm::Alarm;
use super::connection::{Connection, Peer};
use super::request::Request;
use super::wire::Wire;

/// Up to this much of a response is gathered before it is sent, so that its head and a small body go out together. What
/// is larger goes out with what was gathered before, in one system call and without a copy.
const GATHER: usize = 1024;

/// How much of further requests is read while one without a body is under way.
const AHEAD: usize = 16 << 10;

/// What Pingora says of itself when it answers a malformed request before the application sees it.
const SIGNATURE: &[u8] = b"Server: Pingora\r\n";

/// How long, and how many bytes, of a request that nobody wants are read before its connection is dropped.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1 << 20;

/// The stream of one downstream connection.
pub(super) struct EdgeStream {
    wire: Wire,
    /// Bytes that were read already, to be read again before the wire: HTTP/2's preface, or a further request.
    replay: Bytes,
    /// What was read of further requests while one is under way that has no body.
    ahead: BytesMut,
    /// What was written and not yet sent. Without capacity while nothing waits.
    unsent: Vec<u8>,
    http2: bool,
    /// Whether the client may be sending a body, so that closing has to take care.
    may_send: bool,
    /// Whether what follows the head of the request under way is a further request.
    bodiless: bool,
    /// Whether the session was given anything that is not of the request's head.
    read_more: bool,
    /// The requests that the application had seen before the one under way.
    seen_before: u64,
    patience: Duration,
    cutoff: Alarm,
    stall: Option<Box<Stall>>,
    linger: Option<Box<Linger>>,
    proxy_digest: Arc<ProxyDigest>,
    socket_digest: Arc<SocketDigest>,
}

impl EdgeStream {
    pub(super) fn new(wire: Wire, connection: Arc<Connection>) -> Self {
        let socket_digest = SocketDigest::from_raw_fd(wire.as_raw_fd());
        if let Peer::Inet(peer) = connection.peer {
            // Known already: saves a system call per connection. It fails only when set twice.
            let _ = socket_digest.peer_addr.set(Some(PingoraAddr::Inet(peer)));
        } else {
            let _ = socket_digest.peer_addr.set(None);
        }
        let response = ResponseHeader::build_no_case(200, Some(0)).expect("200 is a status");
        Self {
            wire,
            replay: Bytes::new(),
            ahead: BytesMut::new(),
            unsent: Vec::new(),
            http2: false,
            may_send: false,
            bodiless: false,
            read_more: false,
            seen_before: 0,
            patience: connection.settings.write,
            cutoff: Alarm::default(),
            stall: None,
            linger: None,
            proxy_digest: Arc::new(ProxyDigest::new(Box::new(response), Some(Box::new(connection)))),
            socket_digest: Arc::new(socket_digest),
        }
    }

    /// The stream goes on after its last session failed, with what that one left.
    pub(super) fn resume((wire, ahead): (Wire, Bytes), connection: Arc<Connection>) -> Self {
        let mut stream = Self::new(wire, connection);
        stream.replay = ahead;
        stream
    }

    /// A request begins; gives what a session may see of it now. Of a request without a body that is its head: clients
    /// may send the next one at once (RFC 9112 9.3.2), and it waits here until the first is answered. A session takes
    /// such bytes for a fault of the client, and breaks off.
    pub(super) fn begin_request(&mut self, request: Request) -> BytesMut {
        let Request { mut bytes, head, bodiless } = request;
        self.may_send = !(bytes.starts_with(b"GET ") || bytes.starts_with(b"HEAD "));
        self.bodiless = bodiless;
        self.read_more = bytes.len() > head && !bodiless;
        if bodiless && bytes.len() > head {
            self.ahead = bytes.split_off(head);
        }
        if bodiless && !self.replay.is_empty() {
            self.ahead.extend_from_slice(&std::mem::take(&mut self.replay));
        }
        self.seen_before = self.connection().requests();
        self.connection().set_surviving(false);
        bytes
    }

    /// The request under way is answered: what was read ahead is the begin of the next one.
    pub(super) fn end_request(&mut self) {
        self.bodiless = false;
        if !self.ahead.is_empty() {
            self.replay = std::mem::take(&mut self.ahead).freeze();
        }
    }

    /// No request is let in, and there is more to come, surely.
    pub(super) fn refuse_request(&mut self) {
        self.may_send = true;
    }

    fn connection(&self) -> &Connection {
        let user_data = self.proxy_digest.user_data.as_ref();
        user_data.and_then(|data| data.downcast_ref::<Arc<Connection>>()).expect("`new` put the connection there")
    }

    /// What is left of the stream for a further request, when its session failed, but not the connection. Nothing may
    /// be under way in either direction.
    fn salvage(&mut self) -> Option<(Wire, Bytes)> {
        let whole = self.unsent.is_empty() && !self.read_more && self.linger.is_none() && !self.http2;
        (whole && self.connection().is_surviving())
            .then(|| (std::mem::replace(&mut self.wire, Wire::Gone), std::mem::take(&mut self.ahead).freeze()))
    }

    /// Tells only of the end of the connection, and keeps what comes before that for the next request.
    fn poll_read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.ahead.len() < AHEAD {
            let mut room = [const { MaybeUninit::<u8>::uninit() }; 2048];
            let mut some = ReadBuf::uninit(&mut room);
            ready!(Pin::new(&mut self.wire).poll_read(cx, &mut some))?;
            if some.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.ahead.extend_from_slice(some.filled());
        }
        // Enough: more is read once this much was answered.
        Poll::Pending
    }

    /// Whether the client has ended its side: waits until there is anything to say, and reads nothing.
    pub(super) async fn has_ended(&self) -> bool {
        self.wire.readable().await.map_or(true, |ready| ready.is_read_closed())
    }

    /// From here on the connection speaks HTTP/2, and `preface` is read first.
    pub(super) fn begin_http2(&mut self, preface: Bytes) {
        self.http2 = true;
        self.replay = preface;
    }

    /// Sends what is gathered, then what of `data` the wire takes. Ready with the count of `data`'s bytes.
    fn poll_send(&mut self, data: &[IoSlice<'_>], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let wanted = data.iter().map(|part| part.len()).sum::<usize>();
        loop {
            if self.unsent.is_empty() {
                self.unsent = Vec::new();
                return if wanted == 0 {
                    Poll::Ready(Ok(0))
                } else {
                    poll_wire(&mut self.wire, &mut self.stall, self.patience, data, cx)
                };
            }
            // One slice of ours before the caller's: bodies come as one, so more would be a rare gain.
            let first = data.first().map_or(&[][..], |part| part);
            let both = [IoSlice::new(&self.unsent), IoSlice::new(first)];
            let parts = if first.is_empty() { &both[..1] } else { &both[..] };
            let sent = ready!(poll_wire(&mut self.wire, &mut self.stall, self.patience, parts, cx))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if sent < self.unsent.len() {
                self.unsent.drain(..sent);
                continue;
            }
            let of_data = sent - self.unsent.len();
            self.unsent = Vec::new();
            if of_data > 0 {
                return Poll::Ready(Ok(of_data));
            }
        }
    }

    fn gather(&mut self, data: &[u8]) {
        if self.unsent.capacity() == 0 {
            self.unsent.reserve(GATHER);
        }
        if self.connection().requests() == self.seen_before
            && let Some(begin) = memchr::memmem::find(data, SIGNATURE)
        {
            self.unsent.extend_from_slice(&data[..begin]);
            self.unsent.extend_from_slice(&data[begin + SIGNATURE.len()..]);
            return;
        }
        self.unsent.extend_from_slice(data);
    }

    /// Gathers the head of a response with the `Date` that its origin gave it, if one is to be written. Pingora writes a
    /// head as a whole.
    fn write_dated(&mut self, data: &[u8]) -> bool {
        let Some(date) = self.connection().date().filter(|_| !self.http2) else { return false };
        let Some(place) = dated(data) else { return false };
        self.connection().forget_date();
        self.unsent.reserve(data.len() + date.len());
        self.unsent.extend_from_slice(&data[..place.start]);
        self.unsent.extend_from_slice(date.as_bytes());
        self.unsent.extend_from_slice(&data[place.end..]);
        true
    }

    /// Whether `more` bytes are better gathered than sent. HTTP/2 gathers its frames itself.
    fn gathers(&self, more: usize) -> bool {
        !self.http2 && self.unsent.len() + more <= GATHER
    }

    /// Reads, and forgets, what the client is still sending, until it has seen that we have ended, or has had its
    /// time. Closing at once would reset the connection, and the client might lose the response that tells it why
    /// (RFC 9112 9.6).
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Linger { until, bytes, alarm } = &mut **self.linger.get_or_insert_default();
        while *bytes < LINGER_BYTES {
            let mut room = [const { MaybeUninit::<u8>::uninit() }; 8192];
            let mut waste = ReadBuf::uninit(&mut room);
            match Pin::new(&mut self.wire).poll_read(cx, &mut waste) {
                Poll::Ready(Ok(())) if !waste.filled().is_empty() => *bytes += waste.filled().len(),
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending if *bytes == 0 && !self.may_send => return Poll::Ready(()),
                Poll::Pending => return alarm.poll(*until, cx),
            }
        }
        Poll::Ready(())
    }
}

/// Where the value of `Date` stands in a head.
fn dated(head: &[u8]) -> Option<std::ops::Range<usize>> {
    let begin = memchr::memmem::find_iter(head, b"ate: ").find(|at| {
        let before = at.checked_sub(3).map(|begin| &head[begin..*at]);
        matches!(before, Some(b"\r\nD" | b"\r\nd"))
    })? + b"ate: ".len();
    let length = head[begin..].iter().position(|byte| *byte == b'\r')?;
    Some(begin..begin + length)
}

/// A client that takes no byte at the moment.
struct Stall {
    until: Instant,
    alarm: Alarm,
}

/// Writes to the wire. A client that takes nothing for as long as `patience` fails, whoever is writing: Pingora has no
/// deadline for the last bytes of a chunked response, nor for an HTTP/2 connection as a whole.
fn poll_wire(
    wire: &mut Wire,
    stall: &mut Option<Box<Stall>>,
    patience: Duration,
    parts: &[IoSlice<'_>],
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let written = wire.poll_write_vectored(cx, parts);
    if written.is_ready() {
        *stall = None;
        return written;
    }
    let stall =
        stall.get_or_insert_with(|| Box::new(Stall { until: Instant::now() + patience, alarm: Alarm::default() }));
    stall.alarm.poll(stall.until, cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
}

/// The end of a connection whose client may still be sending.
struct Linger {
    until: Instant,
    bytes: usize,
    alarm: Alarm,
}

impl Default for Linger {
    fn default() -> Self {
        Self { until: Instant::now() + LINGER, bytes: 0, alarm: Alarm::default() }
    }
}

impl Drop for EdgeStream {
    fn drop(&mut self) {
        if !self.unsent.is_empty() {
            // The last bytes of a response whose session ended without a flush; the socket takes them or nobody does.
            let _ = self.wire.try_write(&self.unsent);
        }
        if let Some(left) = self.salvage() {
            self.connection().leave(left);
        }
    }
}

impl AsyncRead for EdgeStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.unsent.is_empty() && !self.http2 {
            // Whoever listens to the client has nothing to say at the moment: what was gathered goes out. A fault of writing
            // is told to the next who writes.
            let _ = self.poll_send(&[], cx);
        }
        if self.replay.has_remaining() {
            let count = self.replay.len().min(buf.remaining());
            buf.put_slice(&self.replay[..count]);
            self.replay.advance(count);
            self.read_more = true;
            return Poll::Ready(Ok(()));
        }
        let polled = if self.bodiless {
            self.poll_read_ahead(cx)
        } else {
            let polled = Pin::new(&mut self.wire).poll_read(cx, buf);
            self.read_more |= polled.is_ready();
            polled
        };
        if polled.is_pending()
            && !self.http2
            && let Some(until) = self.connection().ends_by()
        {
            // Pingora reads on here while it waits for a backend, and has no deadline for a head that trickles in.
            return self.cutoff.poll(until, cx).map(|()| Err(io::ErrorKind::TimedOut.into()));
        }
        polled
    }
}

impl AsyncWrite for EdgeStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.write_dated(data) {
            return Poll::Ready(Ok(data.len()));
        }
        if self.gathers(data.len()) {
            self.gather(data);
            return Poll::Ready(Ok(data.len()));
        }
        self.poll_send(&[IoSlice::new(data)], cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let total = parts.iter().map(|part| part.len()).sum();
        if self.gathers(total) {
            parts.iter().for_each(|part| self.gather(part));
            return Poll::Ready(Ok(total));
        }
        self.poll_send(parts, cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A socket has nothing to flush.
        self.poll_send(&[], cx).map_ok(|_| ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(self.as_mut().poll_flush(cx))?;
            ready!(Pin::new(&mut self.wire).poll_shutdown(cx))?;
        }
        // HTTP/2 says GOAWAY before, and reads until its end.
        if self.http2 { Poll::Ready(Ok(())) } else { self.poll_linger(cx).map(Ok) }
    }
}

impl fmt::Debug for EdgeStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EdgeStream").field("fd", &self.wire.as_raw_fd()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Shutdown for EdgeStream {
    async fn shutdown(&mut self) {
        // Whatever came of it, the stream is dropped next.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for EdgeStream {
    fn id(&self) -> UniqueIDType {
        self.wire.as_raw_fd()
    }
}

impl Ssl for EdgeStream {
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.http2.then_some(ALPN::H2)
    }
}

impl GetTimingDigest for EdgeStream {
    /// Nothing: `Connection` knows its age, and each request would pay for the list.
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for EdgeStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(Arc::clone(&self.proxy_digest))
    }
}

impl GetSocketDigest for EdgeStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.socket_digest))
    }
}

/// Not supported, and not needed: the head was read before.
impl Peek for EdgeStream {}

/// Reads what is there, through the stack, and hands it to `take`; so that waiting needs no buffer. Ready with the
/// count of bytes, 0 at the end.
pub(super) fn poll_read_through(
    stream: &mut EdgeStream,
    cx: &mut Context<'_>,
    take: impl FnOnce(&[u8]),
) -> Poll<io::Result<usize>> {
    let mut room = [const { MaybeUninit::<u8>::uninit() }; 8192];
    let mut buf = ReadBuf::uninit(&mut room);
    ready!(Pin::new(stream).poll_read(cx, &mut buf))?;
    take(buf.filled());
    Poll::Ready(Ok(buf.filled().len()))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixStream;
    use tokio::sync::watch;

    use super::*;
    use crate::listen::{Config, Settings};

    fn pair() -> (EdgeStream, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        let settings = Arc::new(Settings::from(&Config::at(":80".parse().unwrap())));
        let connection = Connection::new(Peer::Unix, 0, settings, watch::channel(false).1);
        (EdgeStream::new(Wire::Unix(near), Arc::new(connection)), far)
    }

    #[tokio::test]
    async fn a_head_and_a_small_body_go_out_together_and_leave_no_buffer() {
        let (mut stream, mut far) = pair();
        stream.write_all(b"head ").await.unwrap();
        stream.write_all(b"body").await.unwrap();
        let mut got = [0; 64];
        assert_eq!(far.try_read(&mut got).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        stream.flush().await.unwrap();
        assert_eq!(stream.unsent.capacity(), 0);
        let count = far.read(&mut got).await.unwrap();
        assert_eq!(&got[..count], b"head body");
    }

    #[tokio::test]
    async fn a_large_body_takes_the_head_along() {
        let (mut stream, mut far) = pair();
        stream.write_all(b"head").await.unwrap();
        assert_eq!(stream.write(&[b'x'; 10_000]).await.unwrap(), 10_000);
        assert_eq!(stream.unsent.capacity(), 0);
        let mut got = vec![0; 10_004];
        far.read_exact(&mut got).await.unwrap();
        assert!(got.starts_with(b"headxx"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_given_up() {
        let (mut stream, _far) = pair();
        let begun = Instant::now();
        let fault = loop {
            if let Err(fault) = stream.write(&[b'x'; 50_000]).await {
                break fault;
            }
        };
        assert_eq!(fault.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed().as_secs(), 60);
    }

    #[tokio::test]
    async fn a_client_that_takes_little_has_its_time() {
        let (mut stream, mut far) = pair();
        stream.patience = Duration::from_millis(200);
        let begun = Instant::now();
        let writer = tokio::spawn(async move { stream.write_all(&[b'x'; 1_000_000]).await.is_ok() });
        let mut some = vec![0; 120_000];
        while !writer.is_finished() {
            tokio::time::sleep(Duration::from_millis(60)).await;
            far.read_exact(&mut some).await.unwrap();
        }
        assert!(writer.await.unwrap());
        assert!(begun.elapsed() > Duration::from_millis(300));
    }

    #[tokio::test]
    async fn what_was_not_flushed_goes_out_at_the_end() {
        let (mut stream, mut far) = pair();
        stream.write_all(b"bye").await.unwrap();
        drop(stream);
        let mut got = String::new();
        far.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "bye");
    }

    #[tokio::test]
    async fn every_byte_arrives_in_order_whatever_the_sizes() {
        let (mut stream, mut far) = pair();
        let mut random = fastrand::Rng::with_seed(7);
        let all: Vec<u8> = (0..2_000_000).map(|_| random.u8(..)).collect();
        let wanted = all.clone();
        let reader = tokio::spawn(async move {
            let mut got = Vec::new();
            let mut some = vec![0; 9_000];
            loop {
                match far.read(&mut some).await.unwrap() {
                    0 => return got == wanted,
                    count => got.extend_from_slice(&some[..count]),
                }
                tokio::task::yield_now().await;
            }
        });
        let mut rest = &all[..];
        while !rest.is_empty() {
            let most = if random.bool() { 600 } else { 60_000 };
            let size = random.usize(1..most).min(rest.len());
            let taken = match random.u8(..4) {
                0 => {
                    stream.write_vectored(&[IoSlice::new(&rest[..size / 2]), IoSlice::new(&rest[size / 2..size])]).await
                }
                _ => stream.write(&rest[..size]).await,
            };
            rest = &rest[taken.unwrap()..];
            if random.u8(..8) == 0 {
                stream.flush().await.unwrap();
            }
        }
        Shutdown::shutdown(&mut stream).await;
        assert!(reader.await.unwrap());
    }
}
