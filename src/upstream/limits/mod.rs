//! How much an upstream takes at once: requests under way, a queue for those above that, a circuit that opens when all
//! fails, a limit that learns, and a budget of retries.
//!
//! [`Limits`] is what an upstream has whose document sets any of this; one without touches nothing here. A request asks
//! [`Limits::enter`] before its first try, and may [`Limits::wait`]; it carries what it got in [`Held`], and says with
//! [`Limits::settle`] how it went.

pub mod adaptive;
pub mod budget;
pub mod circuit;
pub mod config;
pub mod connections;
pub mod queue;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use crate::keep::Keep;
use crate::upstream::clock::{self, Micros};
use crate::upstream::refusal::Refusal;
use adaptive::Adaptive;
use circuit::{Change, Circuit, Probe};
pub use config::{Config, OfServer, check_limit};
use queue::{Queue, Terms};

/// What an upstream takes at once.
pub struct Limits {
    name: Arc<str>,
    gate: Arc<Gate>,
    requests: Option<u32>,
    places: u32,
    patience: Duration,
    circuit: Option<(Arc<Circuit>, circuit::Rules)>,
    adaptive: Option<(Arc<Adaptive>, adaptive::Config)>,
    /// Whether another document is in force.
    outdated: AtomicBool,
}

/// Where requests enter an upstream. Kept over reloads by its name: those of before count, too. Alone on its cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Gate {
    in_flight: AtomicU32,
    queue: Queue,
}

impl Gate {
    /// A server of the upstream can take a request more.
    pub fn freed(&self) {
        self.queue.freed();
    }

    fn take_turn(self: &Arc<Self>, limit: u32) -> Option<Turn> {
        let next = |in_flight| (in_flight < limit).then_some(in_flight + 1);
        self.in_flight.fetch_update(Relaxed, Relaxed, next).ok()?;
        Some(Turn(Arc::clone(self)))
    }
}

impl Limits {
    /// The limits of the upstream `name`, checked already. `None`: it has none. `of_servers`: some server has one of its
    /// own.
    pub fn build(name: &Arc<str>, config: &Config, of_servers: bool, keep: &Keep) -> Option<Self> {
        if !(config.limits_anything() || of_servers || config.circuit.is_some()) {
            return None;
        }
        let queue = keep.get_or(name, Default::default);
        let circuit = config.circuit.as_ref().map(|config| {
            let stats = keep.get_or(name, Default::default);
            (keep.get_or(name, || Circuit::new(stats)), config.rules())
        });
        let adaptive = config.adaptive.map(|config| {
            let stats = keep.get_or(name, Default::default);
            (keep.get_or(name, || Adaptive::new(&config, stats)), config)
        });
        Some(Self {
            name: Arc::clone(name),
            gate: keep.get_or(name, || Gate { queue: Queue::new(queue), ..Gate::default() }),
            requests: config.requests,
            places: config.queue,
            patience: config.queue_timeout.0,
            circuit,
            adaptive,
            outdated: AtomicBool::new(false),
        })
    }

    /// Where its servers say that they can take a request more.
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Whether a request that finds everything full may wait.
    pub fn has_queue(&self) -> bool {
        self.places > 0
    }

    /// Lets a request in at the circuit, before its first try.
    pub fn admit(&self, held: &mut Held) -> Result<(), Refusal> {
        // Only a circuit looks at the clock.
        if self.circuit.is_some() { self.admit_at(held, clock::now()) } else { Ok(()) }
    }

    fn admit_at(&self, held: &mut Held, now: Micros) -> Result<(), Refusal> {
        if let Some((circuit, rules)) = &self.circuit
            && held.probe.is_none()
        {
            held.probe = circuit.admit(rules, now)?;
        }
        Ok(())
    }

    /// Takes a place at the upstream, and with `pick` one at a server, if both are free and nobody waits for them.
    pub fn enter<T>(&self, held: &mut Held, pick: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Refusal> {
        if self.has_queue() && !self.gate.queue.is_empty() {
            return Err(Refusal::Full);
        }
        self.take(held, pick)
    }

    /// Waits in the queue for both, at most until `end`. `choosy`: not every server will do.
    pub async fn wait<T>(
        &self,
        held: &mut Held,
        end: Option<Instant>,
        choosy: bool,
        mut pick: impl FnMut() -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let patient = Instant::now() + self.patience;
        let until = end.map_or(patient, |end| end.min(patient));
        let choosy = choosy || self.outdated.load(Relaxed);
        let terms = Terms { places: self.places, until, choosy };
        self.gate.queue.wait(terms, || self.take(held, &mut pick)).await
    }

    /// Another document is in force. Those who wait by this one stay in the line, but the places that they can take may not be
    /// those of the others: they keep nobody waiting.
    pub fn retire(&self) {
        self.outdated.store(true, Relaxed);
        self.gate.queue.part();
    }

    fn take<T>(&self, held: &mut Held, pick: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Refusal> {
        let limit = if held.turn.is_some() { None } else { self.limit() };
        if limit.is_some_and(|limit| self.gate.in_flight.load(Relaxed) >= limit) {
            return Err(Refusal::Full);
        }
        // The server first: who has to wait for one must not hold a place at the upstream meanwhile.
        let picked = pick()?;
        if let Some(limit) = limit {
            held.turn = Some(self.gate.take_turn(limit).ok_or(Refusal::Full)?);
        }
        Ok(picked)
    }

    /// How many requests may be under way at the upstream now.
    fn limit(&self) -> Option<u32> {
        let learned = self.adaptive.as_ref().map(|(adaptive, config)| adaptive.limit(config));
        match (learned, self.requests) {
            (Some(learned), Some(requests)) => Some(learned.min(requests)),
            (learned, requests) => learned.or(requests),
        }
    }

    /// Learns how long a try took to its answer, or to its failure.
    pub fn learn(&self, is_failure: bool, took: Duration) {
        let Some((adaptive, config)) = &self.adaptive else { return };
        let now = clock::now();
        let in_flight = self.gate.in_flight.load(Relaxed);
        let took = clock::micros(took);
        if is_failure {
            adaptive.observe_failure(took, in_flight, config, now);
        } else {
            adaptive.observe(took, in_flight, config, now);
        }
    }

    /// Notes how a request went in the end, when all tries were made.
    pub fn settle(&self, held: &mut Held, is_failure: bool) {
        self.settle_at(held, is_failure, clock::now);
    }

    fn settle_at(&self, held: &mut Held, is_failure: bool, now: impl FnOnce() -> Micros) {
        let Some((circuit, rules)) = &self.circuit else { return };
        let now = now();
        match circuit.record(held.probe.take(), !is_failure, rules, now) {
            None => {}
            Some(Change::Opened) => tracing::warn!(
                upstream = &*self.name,
                "too many requests fail: the circuit is open, requests are refused for a while"
            ),
            Some(Change::Closed) => tracing::info!(upstream = &*self.name, "the circuit is closed, requests go on"),
        }
    }

    /// In how many seconds a refused client had better ask again; `None`: there is no telling.
    pub fn retry_after(&self, refusal: Refusal, now: Micros) -> Option<u64> {
        let wait = match refusal {
            Refusal::NoBackend | Refusal::NoHealthyBackend | Refusal::AllTried => return None,
            // Whoever waits gets in, or gives up, within this.
            Refusal::Full | Refusal::QueueFull | Refusal::QueueTimeout if self.has_queue() => {
                clock::micros(self.patience)
            }
            Refusal::Full | Refusal::QueueFull | Refusal::QueueTimeout => 0,
            Refusal::CircuitOpen => self.circuit.as_ref().map_or(0, |(circuit, _)| circuit.opens_in(now)),
        };
        Some(wait.div_ceil(1_000_000).max(1))
    }
}

/// What a request holds of the limits of its upstream, from its first try to its end.
#[derive(Debug, Default)]
pub struct Held {
    turn: Option<Turn>,
    probe: Option<Probe>,
}

/// A request under way at an upstream, until it is dropped.
#[derive(Debug)]
struct Turn(Arc<Gate>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
        self.0.queue.freed();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const SECOND: Micros = 1_000_000;

    fn limits_with(yaml: &str, keep: &Keep) -> Limits {
        Limits::build(&"api".into(), &serde_yaml::from_str(yaml).unwrap(), false, keep).unwrap()
    }

    fn limits(yaml: &str) -> Limits {
        limits_with(yaml, &Keep::default())
    }

    /// A request that finds every server free.
    async fn enter(limits: &Limits) -> Result<Held, Refusal> {
        let mut held = Held::default();
        enter_by(limits, &mut held, None, || Ok(())).await.map(|()| held)
    }

    async fn enter_by<T>(
        limits: &Limits,
        held: &mut Held,
        end: Option<Instant>,
        mut pick: impl FnMut() -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        match limits.enter(held, &mut pick) {
            Err(Refusal::Full) if limits.has_queue() => limits.wait(held, end, false, pick).await,
            settled => settled,
        }
    }

    #[test]
    fn an_upstream_without_limits_has_none() {
        let build = |yaml, of_servers| {
            Limits::build(&"api".into(), &serde_yaml::from_str(yaml).unwrap(), of_servers, &Keep::default()).is_some()
        };
        for (yaml, of_servers, some) in [
            ("{}", false, false),
            ("{ queue: 5 }", false, false),
            ("{}", true, true),
            ("{ requests: 1 }", false, true),
            ("{ server_requests: 1 }", false, true),
            ("{ connections: 1 }", false, true),
            ("{ circuit: {} }", false, true),
            ("{ adaptive: {} }", false, true),
        ] {
            assert_eq!(build(yaml, of_servers), some, "{yaml}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_queue_the_next_is_refused_at_once() {
        let limits = limits("{ requests: 2 }");
        let held = [enter(&limits).await.unwrap(), enter(&limits).await.unwrap()];
        let began = Instant::now();
        assert_eq!(enter(&limits).await.unwrap_err(), Refusal::Full);
        assert_eq!(began.elapsed(), Duration::ZERO);
        drop(held);
        assert!(enter(&limits).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn with_a_queue_it_waits_its_time() {
        let limits = Arc::new(limits("{ requests: 1, queue: 1, queue_timeout: 3s }"));
        let held = enter(&limits).await.unwrap();
        let began = Instant::now();
        assert_eq!(enter(&limits).await.unwrap_err(), Refusal::QueueTimeout);
        assert_eq!(began.elapsed(), Duration::from_secs(3));
        let until = Instant::now() + Duration::from_secs(1);
        let late = enter_by(&limits, &mut Held::default(), Some(until), || Ok(())).await;
        assert_eq!((late, Instant::now()), (Err(Refusal::QueueTimeout), until));
        let waiting = tokio::spawn({
            let limits = Arc::clone(&limits);
            async move { enter(&limits).await.is_ok() }
        });
        tokio::task::yield_now().await;
        assert_eq!(enter(&limits).await.unwrap_err(), Refusal::QueueFull);
        drop(held);
        assert!(waiting.await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn it_waits_for_full_servers_too_and_hears_when_one_is_freed() {
        let limits = limits("{ server_requests: 1, queue: 1 }");
        let free = Cell::new(false);
        let mut held = Held::default();
        let pick = || if free.get() { Ok("a") } else { Err(Refusal::Full) };
        let waits = enter_by(&limits, &mut held, None, pick);
        let frees = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            free.set(true);
            limits.gate().freed();
        };
        let began = Instant::now();
        assert_eq!(tokio::join!(waits, frees).0, Ok("a"));
        assert_eq!(began.elapsed(), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_pushes_in() {
        let limits = Arc::new(limits("{ requests: 1, queue: 5 }"));
        let held = enter(&limits).await.unwrap();
        let first = tokio::spawn({
            let limits = Arc::clone(&limits);
            async move { enter(&limits).await.unwrap() }
        });
        tokio::task::yield_now().await;
        drop(held);
        // The place is free, and the first has not been woken yet.
        let second = tokio::spawn({
            let limits = Arc::clone(&limits);
            async move { enter(&limits).await.map(drop) }
        });
        let first = first.await.unwrap();
        assert!(!second.is_finished());
        drop(first);
        assert_eq!(second.await.unwrap(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_server_holds_no_place_at_the_upstream() {
        let limits = limits("{ requests: 1, queue: 5 }");
        let mut session = Held::default();
        let waits = limits.wait(&mut session, None, true, || Err::<(), _>(Refusal::Full));
        let other = async {
            tokio::task::yield_now().await;
            let mut held = Held::default();
            limits.wait(&mut held, None, false, || Ok(())).await
        };
        let (session, other) = tokio::join!(waits, other);
        assert_eq!((session, other), (Err(Refusal::QueueTimeout), Ok(())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_needs_no_further_place_at_the_upstream() {
        let limits = limits("{ requests: 1 }");
        let mut held = enter(&limits).await.unwrap();
        assert_eq!(limits.enter(&mut held, || Ok(())), Ok(()));
        assert_eq!(limits.gate.in_flight.load(Relaxed), 1);
        drop(held);
        assert_eq!(limits.gate.in_flight.load(Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_of_before_a_reload_count() {
        let keep = Keep::default();
        let before = limits_with("{ requests: 2, circuit: {} }", &keep);
        let held = [enter(&before).await.unwrap(), enter(&before).await.unwrap()];
        let after = limits_with("{ requests: 2, circuit: {}, queue: 1 }", &keep);
        assert_eq!(enter(&after).await.unwrap_err(), Refusal::QueueTimeout);
        drop((before, held));
        assert!(enter(&after).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_by_an_outdated_document_keeps_nobody_waiting() {
        let keep = Keep::default();
        let [before, after] =
            [1, 2].map(|requests| limits_with(&format!("{{ requests: {requests}, queue: 5 }}"), &keep));
        let _first = enter(&before).await.unwrap();
        let mut old = Held::default();
        let mut waits = std::pin::pin!(before.wait(&mut old, None, false, || Ok(())));
        tokio::select! {
            biased;
            _ = &mut waits => panic!("there is no room"),
            () = tokio::task::yield_now() => {}
        }
        before.retire();
        let entered = enter(&after);
        tokio::select! {
            biased;
            _ = waits => panic!("by its own document there is no room"),
            entered = entered => assert!(entered.is_ok()),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_lower_of_both_limits_counts() {
        for (yaml, most) in [
            ("{ adaptive: { min: 3, max: 3 } }", 3),
            ("{ adaptive: { min: 3, max: 3 }, requests: 2 }", 2),
            ("{ adaptive: { min: 3, max: 3 }, requests: 9 }", 3),
        ] {
            let limits = limits(yaml);
            let mut held = Vec::new();
            while let Ok(one) = enter(&limits).await {
                held.push(one);
            }
            assert_eq!(held.len(), most, "{yaml}");
        }
    }

    #[test]
    fn an_open_circuit_refuses_and_a_probe_that_goes_well_closes_it() {
        let limits = limits("{ circuit: { min_requests: 2, open: 5s } }");
        let admit = |now| {
            let mut held = Held::default();
            limits.admit_at(&mut held, now).map(|()| held)
        };
        for _ in 0..2 {
            limits.settle_at(&mut admit(100 * SECOND).unwrap(), true, || 100 * SECOND);
        }
        assert_eq!(admit(101 * SECOND).unwrap_err(), Refusal::CircuitOpen);
        assert_eq!(limits.retry_after(Refusal::CircuitOpen, 101 * SECOND), Some(4));
        let mut probe = admit(106 * SECOND).unwrap();
        limits.settle_at(&mut probe, false, || 106 * SECOND);
        assert!(admit(106 * SECOND).is_ok());
    }

    #[test]
    fn a_refused_client_is_told_when_to_ask_again() {
        for (yaml, refusal, seconds) in [
            ("{ requests: 1 }", Refusal::Full, Some(1)),
            ("{ requests: 1, queue: 1, queue_timeout: 1500ms }", Refusal::QueueFull, Some(2)),
            ("{ requests: 1, queue: 1, queue_timeout: 5s }", Refusal::QueueTimeout, Some(5)),
            ("{ circuit: {} }", Refusal::CircuitOpen, Some(1)),
            ("{ requests: 1 }", Refusal::NoHealthyBackend, None),
            ("{ requests: 1 }", Refusal::NoBackend, None),
        ] {
            assert_eq!(limits(yaml).retry_after(refusal, SECOND), seconds, "{yaml}");
        }
    }
}
