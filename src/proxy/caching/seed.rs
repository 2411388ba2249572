//! The session of which Pingora makes subrequests: it wants one that has a request, and makes a new one out of its bytes.
//! Each errand puts a request of its own in that one's place.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use pingora::protocols::http::ServerSession;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OnceCell;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: errand\r\n\r\n";

static SESSION: OnceCell<Option<ServerSession>> = OnceCell::const_new();

/// The session.
pub(super) async fn session() -> Option<&'static ServerSession> {
    let make = || async {
        let mut session = ServerSession::new_http1(Box::new(Canned(REQUEST)));
        session.read_request().await.is_ok().then_some(session)
    };
    SESSION.get_or_init(make).await.as_ref()
}

/// A stream that holds some bytes and takes any.
#[derive(Debug)]
struct Canned(&'static [u8]);

impl AsyncRead for Canned {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (now, later) = self.0.split_at(self.0.len().min(buf.remaining()));
        buf.put_slice(now);
        self.0 = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Canned {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(data.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[async_trait]
impl Shutdown for Canned {
    async fn shutdown(&mut self) {}
}

impl UniqueID for Canned {
    fn id(&self) -> UniqueIDType {
        0
    }
}

impl Ssl for Canned {}
impl Peek for Canned {}

impl GetTimingDigest for Canned {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Canned {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Canned {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}
