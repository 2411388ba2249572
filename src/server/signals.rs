//! What the process is told from outside: SIGHUP reloads, SIGUSR1 reopens logs, SIGTERM and SIGQUIT drain, SIGINT stops.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::gateway::Gateway;

/// The signals that are heard.
pub(super) struct Heard {
    hangup: Option<Signal>,
    reopen: Option<Signal>,
    terminate: Option<Signal>,
    quit: Option<Signal>,
    interrupt: Option<Signal>,
}

impl Heard {
    /// Begins to listen. The runtime's worker tells the signals on: it must live as long as they are waited for.
    pub(super) fn begin(runtime: &Runtime) -> Self {
        let _inside = runtime.enter();
        Self {
            hangup: listen(SignalKind::hangup()),
            reopen: listen(SignalKind::user_defined1()),
            terminate: listen(SignalKind::terminate()),
            quit: listen(SignalKind::quit()),
            interrupt: listen(SignalKind::interrupt()),
        }
    }
}

/// Acts on signals and on changed files, and tells Pingora when to stop.
pub(super) struct Signals {
    heard: Mutex<Option<Heard>>,
    gateway: Arc<Gateway>,
    path: Option<PathBuf>,
}

impl Signals {
    pub(super) fn new(heard: Heard, gateway: Arc<Gateway>, path: Option<PathBuf>) -> Self {
        Self { heard: Mutex::new(Some(heard)), gateway, path }
    }

    async fn reload(&self, cause: &str) {
        let Some(path) = self.path.clone() else {
            tracing::warn!("there is no file to reload");
            return;
        };
        let gateway = Arc::clone(&self.gateway);
        // Reading files and asking for names blocks.
        match tokio::task::spawn_blocking(move || gateway.apply(&path)).await {
            Ok(Ok(applied)) => {
                for waiting in &applied.waiting {
                    tracing::warn!("{waiting}");
                }
                if !applied.warnings.is_empty() {
                    tracing::warn!("the new document has warnings:\n{}", applied.warnings);
                }
                tracing::info!(target: "edgeway::reload", generation = applied.generation, cause, "reloaded");
            }
            Ok(Err(report)) => tracing::error!("the new document is refused, the old one stays in force:\n{report}"),
            Err(error) => tracing::error!(%error, "the reload broke off, the old document stays in force"),
        }
    }

    /// Lets requests under way finish, within the bound that the document gives.
    async fn drain(&self) {
        let bound = self.gateway.snapshot().drain;
        let open = self.gateway.listeners.open_connections();
        tracing::info!(open, ?bound, "draining");
        self.gateway.listeners.drain();
        let left = self.gateway.listeners.drained(bound).await;
        if left > 0 {
            tracing::warn!(open = left, "connections are cut off: the drain time is up");
        }
    }
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        // Asked a second time, which Pingora does not do, there is nothing more to hear.
        let Some(mut heard) = self.heard.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return std::future::pending().await;
        };
        loop {
            tokio::select! {
                () = next(&mut heard.hangup) => self.reload("SIGHUP").await,
                () = changed(&self.gateway) => self.reload("a file has changed").await,
                () = next(&mut heard.reopen) => self.gateway.snapshot().access_log.reopen(),
                () = next(&mut heard.terminate) => break,
                () = next(&mut heard.quit) => break,
                () = next(&mut heard.interrupt) => return ShutdownSignal::FastShutdown,
            }
        }
        tokio::select! {
            () = self.drain() => {}
            () = next(&mut heard.interrupt) => {}
        }
        // All that may be waited for has been waited for; Pingora's own grace period would be a fixed sleep.
        ShutdownSignal::FastShutdown
    }
}

fn listen(kind: SignalKind) -> Option<Signal> {
    signal(kind).inspect_err(|error| tracing::error!(%error, ?kind, "a signal cannot be heard")).ok()
}

async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Waits until a file of the document is not as it was read, and has then held still for one look; for ever where no
/// watching is asked for. A reload may ask for it: it makes this future anew.
async fn changed(gateway: &Gateway) {
    let mut seen = gateway.files();
    let mut pending = false;
    loop {
        let every = gateway.watch_interval();
        if every.is_zero() {
            return std::future::pending().await;
        }
        tokio::time::sleep(every.max(Duration::from_millis(50))).await;
        let now = seen.look_again();
        let moved = now != seen;
        seen = now;
        if pending && !moved {
            return;
        }
        pending |= moved;
    }
}
