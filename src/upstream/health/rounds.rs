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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use http::HeaderValue;
    use tokio::net::TcpListener;
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::diag::Issues;
    use crate::keep::Keep;
    use crate::upstream::backend::Seat;
    use crate::upstream::health::active::Active;
    use crate::upstream::health::state::{Health, Status};
    use crate::upstream::peer::{Keepalive, PeerTemplate, Timeouts};

    /// Servers that hold each request a little and count how many they have at once, then close.
    #[derive(Default)]
    struct Servers {
        at_once: AtomicUsize,
        most: AtomicUsize,
        answered: AtomicUsize,
    }

    struct Fake {
        backends: Mutex<Arc<[Arc<Backend>]>>,
        heard: Mutex<Vec<(Change, String)>>,
    }

    impl Watched for Fake {
        fn backends(&self) -> Arc<[Arc<Backend>]> {
            Arc::clone(&self.backends.lock().unwrap())
        }

        fn hear(&self, _: &Backend, change: Change, why: &str) {
            self.heard.lock().unwrap().push((change, why.to_owned()));
        }
    }

    async fn backend(servers: &Arc<Servers>, keep: &Keep) -> Arc<Backend> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let servers = Arc::clone(servers);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let servers = Arc::clone(&servers);
                tokio::spawn(async move {
                    let now = servers.at_once.fetch_add(1, SeqCst) + 1;
                    servers.most.fetch_max(now, SeqCst);
                    // Long enough that others would come meanwhile.
                    sleep(Duration::from_millis(20)).await;
                    servers.at_once.fetch_sub(1, SeqCst);
                    servers.answered.fetch_add(1, SeqCst);
                    drop(stream);
                });
            }
        });
        let seat = Seat {
            label: address.to_string(),
            weight: 1,
            tier: 0,
            zone: None,
            drains: false,
            spare: false,
            authority: HeaderValue::from_static("a"),
            template: PeerTemplate::tcp(address, Timeouts::default(), Keepalive::default()),
            limits: Default::default(),
        };
        Arc::new(Backend::new("api", seat, Health::default, None, keep))
    }

    fn rounds(active: &str, upstream: &Arc<Fake>) -> (Rounds<Fake>, watch::Sender<()>) {
        let active: Active = serde_yaml::from_str(active).unwrap();
        let checks = Arc::new(active.build(false, &Issues::default().root()).unwrap());
        let (news, hears) = watch::channel(());
        let upstream = Arc::downgrade(upstream);
        (Rounds { upstream, checks, client: Arc::default(), news: hears }, news)
    }

    async fn eventually(what: &str, holds: impl Fn() -> bool) {
        let wait = async {
            while !holds() {
                // Only the pause between two looks.
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(Duration::from_secs(8), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    #[tokio::test]
    async fn no_more_than_so_many_are_checked_at_once_and_who_is_new_has_its_turn() {
        let (servers, keep) = (Arc::<Servers>::default(), Keep::default());
        let mut backends = Vec::new();
        for _ in 0..6 {
            backends.push(backend(&servers, &keep).await);
        }
        let upstream = Arc::new(Fake { backends: Mutex::new(backends.clone().into()), heard: Mutex::default() });
        // The servers close without an answer: each check fails, and the third takes a backend out.
        let (rounds, news) = rounds("{ http: /, every: 10ms, timeout: 8s, parallel: 2 }", &upstream);
        let going = tokio::spawn(rounds.go());
        eventually("all are down", || backends.iter().all(|backend| backend.status() == Status::Down)).await;
        assert_eq!(servers.most.load(SeqCst), 2);
        assert!(servers.answered.load(SeqCst) >= 18);
        let heard = upstream.heard.lock().unwrap().clone();
        assert_eq!(heard.len(), 6, "{heard:?}");
        assert!(heard.iter().all(|(change, why)| change.to == Status::Down && why.contains("connection")), "{heard:?}");
        assert!(backends.iter().all(|backend| backend.stats().checks_failed.get() >= 3));

        let new = backend(&servers, &keep).await;
        *upstream.backends.lock().unwrap() = [Arc::clone(&new)].into();
        news.send_replace(());
        eventually("the new one is checked", || new.state().health.probed_at().is_some()).await;
        let before = backends[0].stats().checks_failed.get();
        eventually("it is checked again", || new.stats().checks_failed.get() >= 10).await;
        assert!(backends[0].stats().checks_failed.get() <= before + 1, "who is gone is checked no more");

        drop(upstream);
        news.send_replace(());
        timeout(Duration::from_secs(8), going).await.expect("it ends with its upstream").unwrap();
    }

    #[tokio::test]
    async fn the_first_turn_is_at_once_or_where_it_was_before_a_reload() {
        let backend = backend(&Arc::default(), &Keep::default()).await;
        let upstream = Arc::new(Fake { backends: Mutex::new(Arc::new([])), heard: Mutex::default() });
        let (rounds, _news) = rounds("{ tcp: true, every: 5s }", &upstream);
        const SECOND: Micros = 1_000_000;
        let now = 100 * SECOND;
        assert_eq!(rounds.first_turn(&backend, now), now);
        for (checked_at, turn) in [(98, 103), (100, 105), (95, 100), (10, 100)] {
            let finding = Finding { began: checked_at * SECOND, ended: checked_at * SECOND, fault: None };
            backend.state().health.probe(finding, &rounds.checks.rules);
            assert_eq!(rounds.first_turn(&backend, now), turn * SECOND, "checked at {checked_at} s");
        }
    }

    #[tokio::test]
    async fn the_time_between_two_checks_differs_by_the_share() {
        let upstream = Arc::new(Fake { backends: Mutex::new(Arc::new([])), heard: Mutex::default() });
        let (rounds, _news) = rounds("{ tcp: true, every: 1s, jitter: 20% }", &upstream);
        let pauses: Vec<_> = (0..1000).map(|_| rounds.pause()).collect();
        let (least, most) = (pauses.iter().min().unwrap(), pauses.iter().max().unwrap());
        assert!(*least >= 800_000 && *most <= 1_200_000 && most - least > 300_000, "{least} to {most}");
    }
}
