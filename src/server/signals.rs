//! What the process is told from outside: SIGHUP reloads, SIGUSR1 reopens logs, SIGTERM and SIGQUIT drain, SIGINT stops.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::gateway::Gateway;

/// Listens to signals and to changed files, and tells Pingora when to stop.
pub(super) struct Signals {
    gateway: Arc<Gateway>,
    path: Option<PathBuf>,
}

impl Signals {
    pub(super) fn new(gateway: Arc<Gateway>, path: Option<PathBuf>) -> Self {
        Self { gateway, path }
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
        let mut hangup = listen(SignalKind::hangup());
        let mut reopen = listen(SignalKind::user_defined1());
        let mut terminate = listen(SignalKind::terminate());
        let mut quit = listen(SignalKind::quit());
        let mut interrupt = listen(SignalKind::interrupt());
        let mut files = Files::look(&self.gateway);
        loop {
            tokio::select! {
                () = next(&mut hangup) => {
                    self.reload("SIGHUP").await;
                    files = Files::look(&self.gateway);
                }
                () = next(&mut reopen) => self.gateway.snapshot().access_log.reopen(),
                () = files.changed(&self.gateway) => {
                    self.reload("a file has changed").await;
                    files = Files::look(&self.gateway);
                }
                () = next(&mut terminate) => break,
                () = next(&mut quit) => break,
                () = next(&mut interrupt) => return ShutdownSignal::FastShutdown,
            }
        }
        tokio::select! {
            () = self.drain() => {}
            () = next(&mut interrupt) => {}
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

/// The document's files as they were last seen. Looking is robust where notifications are not: editors that rename,
/// links that move, files that come back.
struct Files(BTreeMap<PathBuf, Option<(SystemTime, u64)>>);

impl Files {
    fn look(gateway: &Gateway) -> Self {
        let stamp = |path: &PathBuf| {
            let found = std::fs::metadata(path).ok()?;
            Some((found.modified().ok()?, found.len()))
        };
        Self(gateway.files().into_iter().map(|path| (path.clone(), stamp(&path))).collect())
    }

    /// Waits until a file has changed and then held still for one look; for ever where no watching is asked for.
    async fn changed(&mut self, gateway: &Gateway) {
        let mut pending = false;
        loop {
            let every = gateway.watch_interval();
            if every.is_zero() {
                // A reload may ask for watching: it makes this future anew.
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(every.max(Duration::from_millis(50))).await;
            let now = Self::look(gateway);
            let moved = now.0 != self.0;
            self.0 = now.0;
            if pending && !moved {
                return;
            }
            pending |= moved;
        }
    }
}
