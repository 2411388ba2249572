//! `Connections`: how many connections to a backend are open, and that they are no more than may be.
//!
//! That no more requests are under way than connections may be open does most of it, for each takes a kept connection
//! where there is one. But a kept one may turn out to be closing just as it is taken, and the new one in its place would be
//! one too many for a moment: it waits for that moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use pingora::connectors::l4::Connect;
use pingora::protocols::l4::ext;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::upstreams::peer::Tracing;
use pingora::{Error, ErrorType, Result};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::observe::OpenConnections;

/// How long a new connection waits for another to close. More are open than may be only after a document has lowered the
/// limit, and then those that are kept may be open for long: better one more than a request that fails.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a connection takes at most to be closed once it is dropped.
const CLOSING: Duration = Duration::from_millis(1);

/// The open connections to one backend. Kept over reloads.
#[derive(Debug, Default)]
pub struct Connections {
    open: AtomicU32,
    closed: Notify,
    stats: Arc<OpenConnections>,
}

impl Connections {
    /// None yet; their number is told to `stats`.
    pub fn new(stats: Arc<OpenConnections>) -> Self {
        Self { stats, ..Self::default() }
    }

    /// Counts one more, once there are less than `most`.
    async fn open(self: &Arc<Self>, most: u32) -> Opening {
        let next = |open| (open < most).then_some(open + 1);
        let take = || self.open.fetch_update(Relaxed, Relaxed, next).is_ok();
        if !take() {
            let taken = timeout(PATIENCE, async {
                while !take() {
                    self.closed.notified().await;
                }
            });
            if taken.await.is_err() {
                self.open.fetch_add(1, Relaxed);
            }
        }
        self.stats.0.inc();
        Opening(Some(Arc::clone(self)))
    }

    fn close(&self) {
        self.open.fetch_sub(1, Relaxed);
        self.stats.0.dec();
        self.closed.notify_one();
    }
}

/// A connection that is being made: counted no longer when it fails.
struct Opening(Option<Arc<Connections>>);

impl Opening {
    /// It is made, and counts until it ends.
    fn made(mut self) {
        self.0 = None;
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if let Some(connections) = &self.0 {
            connections.close();
        }
    }
}

/// Makes connections to one backend, within its limit.
#[derive(Clone, Debug)]
pub struct Door {
    connections: Arc<Connections>,
    most: u32,
    patience: Duration,
}

impl Door {
    /// Lets `most` be open, and one take `patience` to be made.
    pub fn new(connections: Arc<Connections>, most: u32, patience: Duration) -> Self {
        Self { connections, most, patience }
    }
}

#[async_trait]
impl Connect for Door {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        let opening = self.connections.open(self.most).await;
        let connecting = async {
            match address {
                SocketAddr::Inet(inet) => Ok(ext::connect(inet, None).await?.into()),
                SocketAddr::Unix(unix) => match unix.as_pathname() {
                    Some(path) => Ok(ext::connect_uds(path).await?.into()),
                    None => Error::e_explain(ErrorType::ConnectError, "a Unix socket without a path"),
                },
            }
        };
        let late = |_| Error::explain(ErrorType::ConnectTimedout, "connecting took too long");
        let stream = timeout(self.patience, connecting).await.map_err(late)??;
        // From here on Pingora tells of its end: see `on_disconnected`.
        opening.made();
        Ok(stream)
    }
}

impl Tracing for Door {
    /// It was counted before it was made.
    fn on_connected(&self) {}

    fn on_disconnected(&self) {
        // This is said just before the socket is closed: another one now would be there before this one is gone.
        let connections = Arc::clone(&self.connections);
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move {
                sleep(CLOSING).await;
                connections.close();
            })),
            Err(_) => connections.close(),
        }
    }

    fn boxed_clone(&self) -> Box<dyn Tracing> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn door(most: u32) -> Door {
        Door::new(Arc::default(), most, Duration::from_secs(3))
    }

    #[tokio::test(start_paused = true)]
    async fn one_too_many_waits_until_another_has_closed() {
        let door = door(1);
        door.connections.open(1).await.made();
        let began = Instant::now();
        let closes = async {
            sleep(Duration::from_millis(10)).await;
            door.on_disconnected();
        };
        let (second, ()) = tokio::join!(door.connections.open(1), closes);
        assert_eq!((began.elapsed(), door.connections.stats.0.get()), (Duration::from_millis(11), 1));
        drop(second);
        assert_eq!((door.connections.open.load(Relaxed), door.connections.stats.0.get()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn it_does_not_wait_for_ever() {
        let door = door(1);
        door.connections.open(1).await.made();
        let began = Instant::now();
        door.connections.open(1).await.made();
        assert_eq!((began.elapsed(), door.connections.open.load(Relaxed)), (PATIENCE, 2));
    }

    #[tokio::test]
    async fn a_connection_counts_from_its_making_to_its_end() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = SocketAddr::Inet(listener.local_addr().unwrap());
        let door = door(1);
        let stream = door.connect(&address).await.unwrap();
        assert_eq!(door.connections.open.load(Relaxed), 1);
        drop(stream);
        door.on_disconnected();
        door.connections.closed.notified().await;
        drop(listener);
        let refused = door.connect(&address).await.unwrap_err();
        assert_eq!(refused.etype(), &ErrorType::ConnectRefused);
        assert_eq!(door.connections.open.load(Relaxed), 0);
    }
}
