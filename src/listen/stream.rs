//! `EdgeStream`: the stream handed to Pingora. It has no read buffer, and a write buffer only while a response is under
//! way, so an idle connection holds neither.

use std::fmt;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use pingora::http::ResponseHeader;
use pingora::protocols::l4::socket::SocketAddr as PingoraAddr;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::connection::{Connection, Peer};

/// Up to this much of a response is gathered before it is sent: its head and a small body go out together.
const GATHER: usize = 4096;

/// The first size of the write buffer: a response head and a little more.
const FIRST_GATHER: usize = 1024;

/// How long, and how many bytes, of a request that nobody wants are read before its connection is dropped.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1 << 20;

/// What the bytes go through.
pub(super) enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// The stream of one downstream connection.
pub(super) struct EdgeStream {
    wire: Wire,
    /// Bytes that were read already, to be read again before the wire: HTTP/2's preface.
    replay: Bytes,
    /// What was written and not yet sent. Without capacity while nothing waits.
    unsent: Vec<u8>,
    http2: bool,
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
            unsent: Vec::new(),
            http2: false,
            proxy_digest: Arc::new(ProxyDigest::new(Box::new(response), Some(Box::new(connection)))),
            socket_digest: Arc::new(socket_digest),
        }
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
                return if wanted == 0 { Poll::Ready(Ok(0)) } else { self.wire.poll_write_vectored(cx, data) };
            }
            // One slice of ours before the caller's: bodies come as one, so more would be a rare gain.
            let first = data.first().map_or(&[][..], |part| part);
            let both = [IoSlice::new(&self.unsent), IoSlice::new(first)];
            let sent = ready!(self.wire.poll_write_vectored(cx, &both))?;
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
            self.unsent.reserve(FIRST_GATHER.max(data.len()));
        }
        self.unsent.extend_from_slice(data);
    }

    /// Whether `more` bytes are better gathered than sent. HTTP/2 gathers its frames itself.
    fn gathers(&self, more: usize) -> bool {
        !self.http2 && self.unsent.len() + more <= GATHER
    }

    /// Ends the sending side; then, when the client is still sending what nobody will read, reads a while: closing at
    /// once would reset the connection, and the client might lose the response that tells it why.
    pub(super) async fn close(&mut self) {
        if AsyncWriteExt::shutdown(self).await.is_err() {
            return;
        }
        let mut waste = [0; 512];
        if !matches!(self.wire.try_read(&mut waste), Ok(1..)) {
            return;
        }
        let drained = async {
            let mut waste = vec![0; 8192];
            let mut total = 0;
            while total < LINGER_BYTES {
                match self.wire.read(&mut waste).await {
                    Ok(0) | Err(_) => return,
                    Ok(read) => total += read,
                }
            }
        };
        // Either way the connection is dropped next.
        let _ = tokio::time::timeout(LINGER, drained).await;
    }
}

impl Drop for EdgeStream {
    fn drop(&mut self) {
        if !self.unsent.is_empty() {
            // The last bytes of a response whose session ended without a flush; the socket takes them or nobody does.
            let _ = self.wire.try_write(&self.unsent);
        }
    }
}

impl AsyncRead for EdgeStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.replay.has_remaining() {
            let count = self.replay.len().min(buf.remaining());
            buf.put_slice(&self.replay[..count]);
            self.replay.advance(count);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.wire).poll_read(cx, buf)
    }
}

impl AsyncWrite for EdgeStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
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
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.wire).poll_shutdown(cx)
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
        self.close().await;
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

impl Wire {
    fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.try_read(buf),
            Self::Unix(unix) => unix.try_read(buf),
        }
    }

    fn try_write(&self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.try_write(data),
            Self::Unix(unix) => unix.try_write(data),
        }
    }

    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, parts),
            Self::Unix(unix) => Pin::new(unix).poll_write_vectored(cx, parts),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Unix(unix) => Pin::new(unix).poll_read(cx, buf),
        }
    }
}

impl AsRawFd for Wire {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(tcp) => tcp.as_raw_fd(),
            Self::Unix(unix) => unix.as_raw_fd(),
        }
    }
}

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
