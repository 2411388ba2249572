//! `circuit`: an upstream that fails too often is left alone for a while, then asked by one request at a time.
//!
//! Closed, every request goes on, and the share of failures in a sliding window decides whether it opens. Open, every
//! request is refused at once. After the time is up one request is let through: if it goes well the circuit closes, else
//! it opens anew; and if it takes as long as that again, its client may be to blame, and another one goes. A closed circuit costs a request one read and one write of a counter.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diag::Scope;
use crate::observe::CircuitStats;
use crate::units::{HumanDuration, Percent};
use crate::upstream::clock::{self, Micros};
use crate::upstream::refusal::Refusal;

/// When an upstream that fails is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Circuit")]
pub struct Config {
    /// The share of failed requests from which on it opens. A request has failed when no server could be reached, the
    /// connection broke, the server was silent for too long, or the answer was 502, 503 or 504, after all tries.
    /// Default: `50%`.
    pub errors: Percent,
    /// The span of time whose requests are counted. Default: `10s`.
    pub within: HumanDuration,
    /// With fewer requests than this in that span it does not open. Default: 20.
    pub min_requests: u32,
    /// How long every request is refused (503) before one is let through to see whether all is well again. Default: `5s`.
    pub open: HumanDuration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            errors: Percent::new(50),
            within: HumanDuration::secs(10),
            min_requests: 20,
            open: HumanDuration::secs(5),
        }
    }
}

impl Config {
    /// Reports what cannot work.
    pub fn check(&self, at: &Scope<'_>) {
        if self.errors.is_zero() {
            at.key("errors")
                .error_hint("a share of 0% would open it without any failure", "write what is too much, as in `50%`");
        }
        if self.min_requests == 0 {
            at.key("min_requests").error_hint(
                "of 0 requests no share can have failed",
                "write how many make a share that means something, as in `20`",
            );
        }
        for (key, span) in [("within", self.within), ("open", self.open)] {
            if span.0.is_zero() {
                at.key(key).error_hint("a circuit needs a span of time above 0", "write one, as in `10s`");
            }
        }
    }

    /// The rules at work.
    pub fn rules(&self) -> Rules {
        Rules {
            errors: self.errors,
            tick: (clock::micros(self.within.0) / SLOTS as u64).max(1),
            min_requests: self.min_requests.into(),
            open: clock::micros(self.open.0),
        }
    }
}

/// What the circuit of an upstream goes by. The document's, while its state outlives reloads.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    errors: Percent,
    /// How long one slot of the window counts.
    tick: Micros,
    min_requests: u64,
    open: Micros,
}

/// What an outcome changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Requests are refused from now on.
    Opened,
    /// All is well again.
    Closed,
}

const CLOSED: u64 = 0;
/// Any value from here on: open until this moment.
const OPEN: u64 = 1;
/// With this bit: a request sees whether all is well again, and the next one may do so from this moment on.
const PROBING: u64 = 1 << 63;

/// The circuit of one upstream. Kept over reloads.
#[derive(Debug, Default)]
pub struct Circuit {
    state: AtomicU64,
    window: Window,
    stats: Arc<CircuitStats>,
}

impl Circuit {
    /// A closed circuit that tells its state to `stats`.
    pub fn new(stats: Arc<CircuitStats>) -> Self {
        Self { stats, ..Self::default() }
    }

    /// Lets a request go on, or refuses it. The one that goes to see whether all is well again gets a [`Probe`].
    pub fn admit(self: &Arc<Self>, rules: &Rules, now: Micros) -> Result<Option<Probe>, Refusal> {
        let state = self.state.load(Relaxed);
        if state == CLOSED {
            return Ok(None);
        }
        let probing = PROBING | now.saturating_add(rules.open);
        let until = state & !PROBING;
        if until > now || self.state.compare_exchange(state, probing, Relaxed, Relaxed).is_err() {
            return Err(Refusal::CircuitOpen);
        }
        self.stats.state.set(CircuitStats::HALF_OPEN);
        Ok(Some(Probe { circuit: Arc::clone(self), state: probing, settled: false }))
    }

    /// How long it stays open at least; 0 when it is not.
    pub fn opens_in(&self, now: Micros) -> Micros {
        match self.state.load(Relaxed) {
            probing if probing & PROBING != 0 => 0,
            until => until.saturating_sub(now),
        }
    }

    /// Notes how a request went in the end.
    pub fn record(&self, probe: Option<Probe>, good: bool, rules: &Rules, now: Micros) -> Option<Change> {
        if let Some(mut probe) = probe {
            probe.settled = true;
            return if good { self.close() } else { self.open(probe.state, rules, now) };
        }
        // What began before it opened says nothing new.
        if self.state.load(Relaxed) != CLOSED {
            return None;
        }
        self.window.add(good, now / rules.tick);
        if good || !self.window.is_bad(rules, now / rules.tick) {
            return None;
        }
        self.open(CLOSED, rules, now)
    }

    fn open(&self, from: u64, rules: &Rules, now: Micros) -> Option<Change> {
        let until = now.saturating_add(rules.open).max(OPEN);
        self.state.compare_exchange(from, until, Relaxed, Relaxed).ok()?;
        self.stats.opened.inc();
        self.stats.state.set(CircuitStats::OPEN);
        Some(Change::Opened)
    }

    fn close(&self) -> Option<Change> {
        if self.state.load(Relaxed) == CLOSED {
            return None;
        }
        self.window.clear();
        self.state.store(CLOSED, Relaxed);
        self.stats.state.set(CircuitStats::CLOSED);
        Some(Change::Closed)
    }
}

/// The right to ask an upstream whether all is well again. Dropped without an outcome, as when the client leaves, it
/// passes on to the next request.
#[derive(Debug)]
pub struct Probe {
    circuit: Arc<Circuit>,
    /// The circuit's state as long as no other probe has followed.
    state: u64,
    settled: bool,
}

impl Drop for Probe {
    fn drop(&mut self) {
        if !self.settled && self.circuit.state.compare_exchange(self.state, OPEN, Relaxed, Relaxed).is_ok() {
            self.circuit.stats.state.set(CircuitStats::OPEN);
        }
    }
}

/// The window slides in steps of this many.
const SLOTS: usize = 10;

/// Counts of the last [`SLOTS`] ticks, without a lock.
#[derive(Debug, Default)]
struct Window([AtomicU64; SLOTS]);

/// One slot's counts, packed: 24 bits of the tick, 20 of all requests, 20 of the failed ones.
#[derive(Clone, Copy)]
struct Slot {
    tick: u64,
    all: u64,
    failed: u64,
}

impl Slot {
    const COUNT_BITS: u32 = 20;
    const MOST: u64 = (1 << Self::COUNT_BITS) - 1;
    const TICKS: u64 = (1 << 24) - 1;

    fn unpack(packed: u64) -> Self {
        Self {
            tick: packed >> (2 * Self::COUNT_BITS),
            all: (packed >> Self::COUNT_BITS) & Self::MOST,
            failed: packed & Self::MOST,
        }
    }

    fn pack(self) -> u64 {
        self.tick << (2 * Self::COUNT_BITS) | self.all << Self::COUNT_BITS | self.failed
    }
}

impl Window {
    fn add(&self, good: bool, tick: u64) {
        let slot = &self.0[tick as usize % SLOTS];
        let tick = tick & Slot::TICKS;
        let next = |packed| {
            let mut slot = Slot::unpack(packed);
            if slot.tick != tick {
                slot = Slot { tick, all: 0, failed: 0 };
            }
            // A million in one slot are sample enough.
            if slot.all < Slot::MOST {
                slot.all += 1;
                slot.failed += u64::from(!good);
            }
            Some(slot.pack())
        };
        // It never gives up, so it never fails.
        let _ = slot.fetch_update(Relaxed, Relaxed, next);
    }

    fn is_bad(&self, rules: &Rules, tick: u64) -> bool {
        let (mut all, mut failed) = (0, 0);
        for slot in &self.0 {
            let slot = Slot::unpack(slot.load(Relaxed));
            if (tick.wrapping_sub(slot.tick) & Slot::TICKS) < SLOTS as u64 {
                all += slot.all;
                failed += slot.failed;
            }
        }
        all >= rules.min_requests && !rules.errors.exceeds(failed, all)
    }

    fn clear(&self) {
        for slot in &self.0 {
            slot.store(0, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Issues;

    const SECOND: Micros = 1_000_000;

    fn rules() -> Rules {
        Config { min_requests: 4, ..Config::default() }.rules()
    }

    fn open_at(now: Micros) -> Arc<Circuit> {
        let circuit = Arc::new(Circuit::default());
        for _ in 0..4 {
            circuit.record(None, false, &rules(), now);
        }
        circuit
    }

    #[test]
    fn it_opens_once_the_share_of_failures_is_reached_and_not_before_enough_requests() {
        for (outcomes, opens_at) in [
            ("....", None),
            ("xxx", None),
            ("xxxx", Some(3)),
            ("xx..xx", Some(4)),
            ("...x..x..x.", None),
            ("....xxxx", Some(7)),
        ] {
            let circuit = Circuit::default();
            let opened = outcomes.chars().position(|outcome| {
                circuit.record(None, outcome == '.', &rules(), 100 * SECOND) == Some(Change::Opened)
            });
            assert_eq!(opened, opens_at, "{outcomes}");
        }
    }

    #[test]
    fn only_what_happened_within_the_window_counts() {
        let circuit = Circuit::default();
        for second in [100, 101, 102] {
            assert_eq!(circuit.record(None, false, &rules(), second * SECOND), None);
        }
        // The first has left the window by now, so these are three.
        assert_eq!(circuit.record(None, false, &rules(), 110 * SECOND), None);
        assert_eq!(circuit.record(None, false, &rules(), 110 * SECOND), Some(Change::Opened));
    }

    #[test]
    fn open_it_refuses_until_its_time_then_lets_one_through() {
        let circuit = open_at(100 * SECOND);
        assert_eq!(circuit.admit(&rules(), 102 * SECOND).unwrap_err(), Refusal::CircuitOpen);
        assert_eq!(circuit.opens_in(102 * SECOND), 3 * SECOND);
        let probe = circuit.admit(&rules(), 105 * SECOND).unwrap();
        assert!(probe.is_some());
        assert_eq!((circuit.admit(&rules(), 106 * SECOND).is_err(), circuit.opens_in(106 * SECOND)), (true, 0));
        assert_eq!(circuit.record(probe, true, &rules(), 107 * SECOND), Some(Change::Closed));
        assert!(circuit.admit(&rules(), 107 * SECOND).unwrap().is_none());
        // And the failures of before are forgotten.
        assert_eq!(circuit.record(None, false, &rules(), 107 * SECOND), None);
    }

    #[test]
    fn a_probe_that_fails_opens_it_anew() {
        let circuit = open_at(100 * SECOND);
        let probe = circuit.admit(&rules(), 105 * SECOND).unwrap();
        assert_eq!(circuit.record(probe, false, &rules(), 106 * SECOND), Some(Change::Opened));
        assert_eq!((circuit.admit(&rules(), 110 * SECOND).is_err(), circuit.opens_in(110 * SECOND)), (true, SECOND));
        assert!(circuit.admit(&rules(), 111 * SECOND).unwrap().is_some());
        assert_eq!(circuit.stats.opened.get(), 2);
    }

    #[test]
    fn a_probe_whose_client_leaves_passes_on_to_the_next_request() {
        let circuit = open_at(100 * SECOND);
        drop(circuit.admit(&rules(), 105 * SECOND).unwrap());
        assert_eq!(circuit.stats.state.get(), CircuitStats::OPEN);
        let probe = circuit.admit(&rules(), 105 * SECOND).unwrap();
        assert_eq!(circuit.stats.state.get(), CircuitStats::HALF_OPEN);
        circuit.record(probe, true, &rules(), 105 * SECOND);
        assert_eq!(circuit.stats.state.get(), CircuitStats::CLOSED);
    }

    #[test]
    fn a_probe_that_takes_too_long_is_followed_by_another() {
        for (slow_is_good, quick_is_good, closes) in [(true, false, true), (false, true, true), (false, false, false)] {
            let circuit = open_at(100 * SECOND);
            let slow = circuit.admit(&rules(), 105 * SECOND).unwrap();
            assert!(circuit.admit(&rules(), 109 * SECOND).is_err());
            let quick = circuit.admit(&rules(), 110 * SECOND).unwrap();
            assert!(quick.is_some() && circuit.admit(&rules(), 111 * SECOND).is_err());
            circuit.record(quick, quick_is_good, &rules(), 111 * SECOND);
            circuit.record(slow, slow_is_good, &rules(), 112 * SECOND);
            assert_eq!(circuit.admit(&rules(), 113 * SECOND).is_ok(), closes, "{slow_is_good} {quick_is_good}");
        }
    }

    #[test]
    fn what_began_before_it_opened_changes_nothing() {
        let circuit = open_at(100 * SECOND);
        assert_eq!(circuit.record(None, false, &rules(), 101 * SECOND), None);
        assert_eq!(circuit.record(None, true, &rules(), 101 * SECOND), None);
        assert_eq!(
            (circuit.admit(&rules(), 101 * SECOND).is_err(), circuit.opens_in(101 * SECOND)),
            (true, 4 * SECOND)
        );
    }

    #[test]
    fn many_threads_open_it_once_and_get_one_probe() {
        let circuit = Arc::new(Circuit::default());
        let count = |act: &(dyn Fn() -> bool + Sync)| {
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| (0..1000).filter(|_| act()).count())).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
            })
        };
        assert_eq!(count(&|| circuit.record(None, false, &rules(), 100 * SECOND).is_some()), 1);
        let probes = std::sync::Mutex::new(Vec::new());
        let asks = || circuit.admit(&rules(), 105 * SECOND).map(|probe| probes.lock().unwrap().push(probe)).is_ok();
        assert_eq!(count(&asks), 1);
    }

    #[test]
    fn a_full_slot_counts_no_further() {
        let packed = Slot { tick: 7, all: Slot::MOST, failed: Slot::MOST }.pack();
        let window = Window::default();
        window.0[7].store(packed, Relaxed);
        window.add(false, 7);
        assert_eq!(window.0[7].load(Relaxed), packed);
    }

    #[test]
    fn what_could_never_work_is_an_error_at_its_place() {
        let config: Config = serde_yaml::from_str("{ errors: 0%, within: 0, min_requests: 0, open: 0 }").unwrap();
        let issues = Issues::default();
        config.check(&issues.root());
        Config::default().check(&issues.root());
        let paths: Vec<_> = issues.into_vec().iter().map(|issue| issue.path.to_string()).collect();
        assert_eq!(paths, ["errors", "min_requests", "within", "open"]);
    }
}
