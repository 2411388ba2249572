//! `Acceptor`: a Pingora service that takes connections off the listeners and serves them on its own threads.

use std::collections::HashSet;
use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::apps::HttpServerApp;
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::Service;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, error, warn};

use super::bind::SharedSocket;
use super::connection::{Connection, Peer};
use super::http1;
use super::limits::Gate;
use super::listeners::{Listener, Listeners};
use super::wire::Wire;

/// When file descriptors have run out, `accept` fails until some connection ends: no need to spin.
const BACK_OFF: Duration = Duration::from_millis(100);

/// A worker that got no handle to a listening socket, for the same reason, tries again after this time.
const SHARE_AGAIN: Duration = Duration::from_secs(1);

/// Takes connections off the listeners, all of them, and serves them.
///
/// Without work stealing there is one per thread, each with its own handle to the shared listening sockets: whichever
/// thread is free takes the next connection, and serves it to its end. With work stealing there is one, with all
/// threads.
pub struct Acceptor<P> {
    name: String,
    threads: usize,
    app: Arc<P>,
    listeners: Arc<Listeners>,
}

impl<P> Acceptor<P>
where
    P: HttpServerApp + Send + Sync + 'static,
{
    /// An acceptor that runs on this many threads.
    pub fn new(name: impl Into<String>, threads: usize, app: Arc<P>, listeners: Arc<Listeners>) -> Self {
        Self { name: name.into(), threads, app, listeners }
    }

    /// One acceptor for each thread: `edge-0`, `edge-1` …
    pub fn per_thread(threads: usize, app: &Arc<P>, listeners: &Arc<Listeners>) -> Vec<Self> {
        (0..threads).map(|n| Self::new(format!("edge-{n}"), 1, Arc::clone(app), Arc::clone(listeners))).collect()
    }

    /// The listeners that it accepts from.
    pub fn listeners(&self) -> &Arc<Listeners> {
        &self.listeners
    }

    /// Accepts until [`Listeners::drain`] is called and every loop has ended. Connections live on in tasks of their
    /// own, on the runtime that runs this.
    pub async fn run(&self) {
        let mut set = self.listeners.watch();
        let mut drain = self.listeners.watch_drain();
        let mut running = HashSet::new();
        let mut loops = JoinSet::new();
        loop {
            let now = Arc::clone(&set.borrow_and_update());
            running.retain(|id| now.iter().any(|listener| listener.id == *id));
            for listener in now.iter().filter(|listener| running.insert(listener.id)) {
                let gate = Arc::clone(&self.listeners.gate);
                loops.spawn(accept_loop(Arc::clone(&self.app), Arc::clone(listener), gate));
            }
            drop(now);
            tokio::select! {
                biased;
                _ = drain.wait_for(|drained| *drained) => break,
                // Ended loops are only swept away here.
                Some(_) = loops.join_next(), if !loops.is_empty() => {}
                changed = set.changed() => if changed.is_err() { break },
            }
        }
        while loops.join_next().await.is_some() {}
    }
}

#[async_trait]
impl<P> Service for Acceptor<P>
where
    P: HttpServerApp + Send + Sync + 'static,
{
    async fn start_service(&mut self, _fds: Option<ListenFds>, mut shutdown: ShutdownWatch, _listeners_per_fd: usize) {
        let run = self.run();
        tokio::pin!(run);
        tokio::select! {
            () = &mut run => return,
            // An error means that the server is gone, which says the same.
            _ = shutdown.changed() => self.listeners.drain(),
        }
        run.await;
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn threads(&self) -> Option<usize> {
        Some(self.threads)
    }
}

/// Accepts from one listener until it stops.
async fn accept_loop<P>(app: Arc<P>, listener: Arc<Listener>, gate: Arc<Gate>)
where
    P: HttpServerApp + Send + Sync + 'static,
{
    let mut stop = listener.stop.subscribe();
    let socket = loop {
        match listener.socket.share() {
            Ok(socket) => break socket,
            Err(fault) => error!(address = %listener.address, %fault, "this thread cannot accept yet"),
        }
        if tokio::time::timeout(SHARE_AGAIN, stop.wait_for(|stop| *stop)).await.is_ok() {
            return;
        }
    };
    // The word to end goes to the connections through a channel of this loop's own: asking it, as they do for each
    // request, then touches no memory that other threads write to.
    let (say, closing) = watch::channel(false);
    let desk = Desk { app, listener: &listener, gate: &gate, closing };
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = poll_fn(|cx| socket.poll_accept(cx)) => accepted,
        };
        match accepted {
            Ok((wire, peer)) => {
                desk.open(wire, peer);
                // Others get their turn: this thread's connections, and with them the other threads' accept loops.
                tokio::task::yield_now().await;
            }
            Err(fault) if desk.is_passing(&fault) => {}
            Err(_) => tokio::time::sleep(BACK_OFF).await,
        }
    }
    // Whoever is connected already gets an answer.
    while let Some((wire, peer)) = poll_fn(|cx| Poll::Ready(socket.accepted_now(cx))).await {
        desk.open(wire, peer);
    }
    say.send_replace(true);
}

/// Where accepted connections are admitted and given to a task.
struct Desk<'a, P> {
    app: Arc<P>,
    listener: &'a Listener,
    gate: &'a Arc<Gate>,
    closing: watch::Receiver<bool>,
}

impl<P> Desk<'_, P>
where
    P: HttpServerApp + Send + Sync + 'static,
{
    fn open(&self, wire: Wire, peer: Peer) {
        let Some(admission) = self.gate.admit(peer.ip()) else {
            debug!(?peer, address = %self.listener.address, "closed: over the limit of connections");
            return;
        };
        let settings = self.listener.settings.load_full();
        let connection = Connection::new(peer, self.listener.local_port, settings, self.closing.clone());
        tokio::spawn(http1::serve(Arc::clone(&self.app), wire, Arc::new(connection), admission));
    }

    /// Counts a failed `accept`, and tells whether only the one connection was at fault.
    fn is_passing(&self, fault: &io::Error) -> bool {
        /// When a failure was last logged, in seconds since the first.
        static LOGGED: AtomicU64 = AtomicU64::new(0);
        static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);

        self.gate.stats.connections.accept_errors.inc();
        let second = BEGUN.elapsed().as_secs() + 1;
        if LOGGED.swap(second, Ordering::Relaxed) != second {
            warn!(address = %self.listener.address, %fault, "cannot accept connections");
        }
        use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
        matches!(fault.kind(), ConnectionAborted | ConnectionReset | Interrupted)
    }
}

impl SharedSocket {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Wire, Peer)>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_accept(cx).map_ok(|(tcp, peer)| (Wire::Tcp(tcp), Peer::inet(peer))),
            Self::Unix(unix) => unix.poll_accept(cx).map_ok(|(unix, _)| (Wire::Unix(unix), Peer::Unix)),
        }
    }

    /// A connection that waits, if there is one.
    fn accepted_now(&self, cx: &mut Context<'_>) -> Option<(Wire, Peer)> {
        match self.poll_accept(cx) {
            Poll::Ready(Ok(accepted)) => Some(accepted),
            Poll::Ready(Err(_)) | Poll::Pending => None,
        }
    }
}
