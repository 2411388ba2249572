//! `Wire`: what the bytes of a connection go through.

use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready};
use tokio::net::{TcpStream, UnixStream};

/// What the bytes go through.
pub(super) enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// Taken back from its stream.
    Gone,
}

impl Wire {
    pub(super) fn try_write(&self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.try_write(data),
            Self::Unix(unix) => unix.try_write(data),
            Self::Gone => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Waits until there is something to read, or the end of it.
    pub(super) async fn readable(&self) -> io::Result<Ready> {
        match self {
            Self::Tcp(tcp) => tcp.ready(Interest::READABLE).await,
            Self::Unix(unix) => unix.ready(Interest::READABLE).await,
            Self::Gone => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    pub(super) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match (self, parts) {
            // One part is cheaper by itself.
            (Self::Tcp(tcp), [part]) => Pin::new(tcp).poll_write(cx, part),
            (Self::Unix(unix), [part]) => Pin::new(unix).poll_write(cx, part),
            (Self::Tcp(tcp), _) => Pin::new(tcp).poll_write_vectored(cx, parts),
            (Self::Unix(unix), _) => Pin::new(unix).poll_write_vectored(cx, parts),
            (Self::Gone, _) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    pub(super) fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Unix(unix) => Pin::new(unix).poll_read(cx, buf),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }
}

impl AsRawFd for Wire {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(tcp) => tcp.as_raw_fd(),
            Self::Unix(unix) => unix.as_raw_fd(),
            Self::Gone => -1,
        }
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wire({})", self.as_raw_fd())
    }
}
