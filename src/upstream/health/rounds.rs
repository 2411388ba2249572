//! The rounds of the active checks: one task for an upstream asks each of its backends in its turn.
//!
//! A reload ends the task and begins another; the turns go on where they were, for a backend knows when it was checked last.
//! So reloads in close succession neither flood the backends nor count one outage several times.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::active::Checks;
use super::schedule::Schedule;
use super::state::{Change, Finding};
use crate::http_client::HttpClient;
use crate::upstream::backend::Backend;
use crate::upstream::clock::{self, Micros};

/// An upstream, as the rounds see it.
pub trait Watched: Send + Sync + 'static {
    /// Its backends at the moment.
    fn backends(&self) -> Arc<[Arc<Backend>]>;

    /// Hears that the health of a backend has changed, and why.
    fn hear(&self, backend: &Backend, change: Change, why: &str);
}

/// What the rounds need.
pub struct Rounds<W> {
    /// The upstream.
    pub upstream: Weak<W>,
    /// The checks.
    pub checks: Arc<Checks>,
    /// Asks.
    pub client: Arc<HttpClient>,
    /// Hears when its backends are others.
    pub news: watch::Receiver<()>,
}

impl<W: Watched> Rounds<W> {
    /// Makes the checks until the upstream is gone.
    pub async fn go(mut self) {
        let mut known: Option<Arc<[Arc<Backend>]>> = None;
        let mut schedule = Schedule::new();
        let mut under_way = JoinSet::new();
        let mut labels = HashMap::new();
        loop {
            self.news.mark_unchanged();
            let Some(backends) = self.upstream.upgrade().map(|upstream| upstream.backends()) else { return };
            if known.as_ref().is_none_or(|known| !Arc::ptr_eq(known, &backends)) {
                let members = backends.iter().map(|backend| (Arc::clone(backend.label()), Arc::clone(backend)));
                schedule.set(members, |backend| self.first_turn(backend, clock::now()));
                known = Some(backends);
            }
            while under_way.len() < self.checks.parallel
                && let Some((label, backend)) = schedule.take(clock::now())
            {
                let task = under_way.spawn(check(Arc::clone(&self.checks), Arc::clone(&self.client), backend));
                labels.insert(task.id(), label);
            }
            let turn = schedule.next().filter(|_| under_way.len() < self.checks.parallel);
            tokio::select! {
                Some(ended) = under_way.join_next_with_id() => {
                    let (id, began) = match ended {
                        Ok((id, (backend, finding))) => {
                            let began = finding.began;
                            self.learn(&backend, finding);
                            (id, began)
                        }
                        // It panicked, which was told; the backend has its next turn all the same.
                        Err(error) => (error.id(), clock::now()),
                    };
                    if let Some(label) = labels.remove(&id) {
                        schedule.done(&label, began.saturating_add(self.pause()));
                    }
                }
                () = sleep_until(turn) => {}
                heard = self.news.changed() => if heard.is_err() { return },
            }
        }
    }

    /// When a backend has its first turn: at once, unless it was checked shortly before, under the document before.
    fn first_turn(&self, backend: &Backend, now: Micros) -> Micros {
        let every = clock::micros(self.checks.every);
        backend.state().health.probed_at().map_or(now, |last| (last + every).clamp(now, now + every))
    }

    /// From the beginning of a check to that of the next.
    fn pause(&self) -> Micros {
        let jitter = self.checks.jitter.fraction() * (2.0 * fastrand::f64() - 1.0);
        clock::micros(self.checks.every.mul_f64(1.0 + jitter))
    }

    fn learn(&self, backend: &Backend, finding: Finding) {
        let stats = backend.stats();
        let count = if finding.fault.is_none() { &stats.checks_passed } else { &stats.checks_failed };
        count.inc();
        let found = finding.fault.clone().unwrap_or_else(|| "its checks succeed".to_owned());
        let change = backend.state().health.probe(finding, &self.checks.rules);
        if let (Some(change), Some(upstream)) = (change, self.upstream.upgrade()) {
            upstream.hear(backend, change, &found);
        }
    }
}

async fn check(checks: Arc<Checks>, client: Arc<HttpClient>, backend: Arc<Backend>) -> (Arc<Backend>, Finding) {
    let began = clock::now();
    let peer = backend.peer(None, None, false);
    let found = checks.probe.run(&client, *peer, backend.authority()).await;
    (backend, Finding { began, ended: clock::now(), fault: found.err() })
}

/// Until this moment; without one, for ever.
async fn sleep_until(moment: Option<Micros>) {
    match moment {
        Some(moment) => tokio::time::sleep(Duration::from_micros(moment.saturating_sub(clock::now()))).await,
        None => std::future::pending().await,
    }
}
