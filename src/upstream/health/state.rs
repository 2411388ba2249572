//! `Health`: what is known of a backend's health: probes, ejections, drains, and the one status that they add up to.
//!
//! The status is one byte, read on each pick. What changes it is rare and goes through a lock: the end of a probe, an
//! ejection, a word of an operator. A request that went well costs one look at whether failures were noted before.
//! Nothing here knows the time: each change is told the moment of it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use schemars::JsonSchema;
use serde::Deserialize;

use super::failures::{Row, Window};
use super::rules::{ActiveRules, PassiveRules};
use crate::upstream::clock::Micros;

/// What a server that was not checked yet counts as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "HealthStart")]
pub enum Start {
    /// As well, until `fall` checks in a row have failed.
    #[default]
    Up,
    /// As not usable; the first check that succeeds makes it well.
    Checking,
    /// As down, until `rise` checks in a row have succeeded.
    Down,
}

/// What all that is known of a backend adds up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// It takes requests.
    Up,
    /// It takes none until its first probe succeeds.
    Checking,
    /// Its probes fail.
    Down,
    /// Requests failed there; it takes none for a while.
    Ejected,
    /// It finishes what it has, as an operator says.
    Draining,
}

impl Status {
    /// Each of them.
    pub const ALL: [Self; 5] = [Self::Up, Self::Checking, Self::Down, Self::Ejected, Self::Draining];

    /// As one word for logs, metrics and the admin listener.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Checking => "checking",
            Self::Down => "down",
            Self::Ejected => "ejected",
            Self::Draining => "draining",
        }
    }

    fn of(byte: u8) -> Self {
        Self::ALL.get(usize::from(byte)).copied().unwrap_or(Self::Up)
    }
}

/// That the status is another now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// What it was.
    pub from: Status,
    /// What it is.
    pub to: Status,
}

impl Change {
    /// Tells operators, once for each change, and why.
    pub fn log(self, upstream: &str, backend: &str, why: &dyn fmt::Display) {
        match self.to {
            Status::Up => tracing::info!(upstream, backend, was = self.from.word(), %why, "a backend is up"),
            Status::Draining => tracing::info!(upstream, backend, %why, "a backend is draining"),
            Status::Checking => tracing::info!(upstream, backend, %why, "a backend is being checked"),
            Status::Down => tracing::warn!(upstream, backend, %why, "a backend is down"),
            Status::Ejected => tracing::warn!(upstream, backend, %why, "a backend is ejected"),
        }
    }
}

/// What one probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// When the probe began.
    pub began: Micros,
    /// When it ended.
    pub ended: Micros,
    /// Why it failed; `None`: it succeeded.
    pub fault: Option<String>,
}

/// What is known of a backend's health, for operators.
#[derive(Clone, Debug)]
pub struct Report {
    /// What it adds up to.
    pub status: Status,
    /// The last probe.
    pub probe: Option<Finding>,
    /// How many probes in a row ended like the last one.
    pub in_a_row: u32,
    /// When its ejection ends.
    pub ejected_until: Option<Micros>,
    /// How many of its ejections count towards the length of the next.
    pub ejections: u32,
}

/// What is known of a backend's health.
#[derive(Debug)]
pub struct Health {
    status: AtomicU8,
    /// Whether it is well apart from any drain.
    well: AtomicBool,
    failures: Row,
    /// 0: not ejected.
    ejected_until: AtomicU64,
    /// 0: never since it is known.
    well_since: AtomicU64,
    inner: Mutex<Inner>,
    window: Window,
}

/// What changes only when a probe ends, requests fail, or an operator says so.
#[derive(Debug)]
struct Inner {
    verdict: Verdict,
    probe: Option<Finding>,
    in_a_row: u32,
    drains: bool,
    ejection: Option<Ejection>,
    /// How many ejections count towards the length of the next: those that came one soon after the other, as far as
    /// each made the next longer.
    ejections: u32,
    /// How long the last one was to be.
    length: Micros,
    /// When the last one ended.
    returned: Micros,
}

/// What the probes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Up,
    Checking,
    Down,
}

#[derive(Clone, Copy, Debug)]
struct Ejection {
    began: Micros,
    until: Micros,
    /// Probes in a row that began since and succeeded.
    healed: u32,
}

impl Default for Health {
    fn default() -> Self {
        Self::new(Start::Up)
    }
}

impl Health {
    /// Of a backend that nothing is known of yet.
    pub fn new(start: Start) -> Self {
        let (verdict, status) = match start {
            Start::Up => (Verdict::Up, Status::Up),
            Start::Checking => (Verdict::Checking, Status::Checking),
            Start::Down => (Verdict::Down, Status::Down),
        };
        let inner = Inner {
            verdict,
            probe: None,
            in_a_row: 0,
            drains: false,
            ejection: None,
            ejections: 0,
            length: 0,
            returned: 0,
        };
        Self {
            status: AtomicU8::new(status as u8),
            well: AtomicBool::new(status == Status::Up),
            failures: Row::default(),
            ejected_until: AtomicU64::new(0),
            well_since: AtomicU64::new(0),
            inner: Mutex::new(inner),
            window: Window::default(),
        }
    }

    /// Says that the backend joined others at work at this moment, and so gets its share by and by.
    #[must_use]
    pub fn joined(self, now: Micros) -> Self {
        self.well_since.store(now.max(1), Relaxed);
        self
    }

    /// Whether it may take requests.
    #[inline]
    pub fn is_usable(&self) -> bool {
        self.status.load(Relaxed) == Status::Up as u8
    }

    /// Whether it is well, be it draining or not.
    pub fn is_well(&self) -> bool {
        self.well.load(Relaxed)
    }

    /// Whether an operator drains it.
    #[inline]
    pub fn is_draining(&self) -> bool {
        self.status.load(Relaxed) == Status::Draining as u8
    }

    /// What it adds up to.
    pub fn status(&self) -> Status {
        Status::of(self.status.load(Relaxed))
    }

    /// Since when it is well, or joined the others. `None`: it was here from the beginning.
    pub fn well_since(&self) -> Option<Micros> {
        Some(self.well_since.load(Relaxed)).filter(|since| *since != 0)
    }

    /// When its ejection ends.
    pub fn ejected_until(&self) -> Option<Micros> {
        Some(self.ejected_until.load(Relaxed)).filter(|until| *until != 0)
    }

    /// When its last probe began.
    pub fn probed_at(&self) -> Option<Micros> {
        self.lock().probe.as_ref().map(|probe| probe.began)
    }

    /// All that is known, for operators.
    pub fn report(&self) -> Report {
        let inner = self.lock();
        Report {
            status: self.status(),
            probe: inner.probe.clone(),
            in_a_row: inner.in_a_row,
            ejected_until: self.ejected_until(),
            ejections: inner.ejections,
        }
    }

    /// Learns what a probe found.
    pub fn probe(&self, finding: Finding, rules: &ActiveRules) -> Option<Change> {
        let mut inner = self.lock();
        let (sound, now) = (finding.fault.is_none(), finding.ended);
        let as_before = inner.probe.as_ref().is_some_and(|last| last.fault.is_none() == sound);
        inner.in_a_row = if as_before { inner.in_a_row.saturating_add(1) } else { 1 };
        inner.verdict = match (inner.verdict, sound) {
            (Verdict::Checking, true) => Verdict::Up,
            (Verdict::Down, true) if inner.in_a_row >= rules.rise => Verdict::Up,
            (Verdict::Up | Verdict::Checking, false) if inner.in_a_row >= rules.fall => Verdict::Down,
            (verdict, _) => verdict,
        };
        if let Some(ejection) = &mut inner.ejection {
            // A probe that began before the ejection says nothing of how the backend fares since.
            let since = finding.began >= ejection.began;
            ejection.healed = if sound && since { ejection.healed + 1 } else { 0 };
            if ejection.healed >= rules.rise {
                self.end_ejection(&mut inner, now);
            }
        }
        inner.probe = Some(finding);
        self.settle(&inner, now)
    }

    /// Forgets all probes: there are none any more.
    pub fn forget_probes(&self, now: Micros) -> Option<Change> {
        let mut inner = self.lock();
        (inner.verdict, inner.probe, inner.in_a_row) = (Verdict::Up, None, 0);
        self.settle(&inner, now)
    }

    /// Learns how a request went. True: it should be ejected.
    #[inline]
    pub fn outcome(&self, good: bool, rules: &PassiveRules, now: Micros) -> bool {
        if rules.error_rate.is_none() && good {
            self.failures.clear();
            return false;
        }
        self.outcome_in_full(good, rules, now)
    }

    fn outcome_in_full(&self, good: bool, rules: &PassiveRules, now: Micros) -> bool {
        // Requests that were under way when it was ejected end now, and tell nothing new.
        if self.ejected_until().is_some() {
            return false;
        }
        if rules.error_rate.is_some() {
            self.window.note(good, rules.within, now);
        }
        if good {
            self.failures.clear();
            return false;
        }
        let in_a_row = self.failures.note(rules.within, now) >= rules.errors;
        let too_many = rules.error_rate.is_some_and(|share| {
            let (all, bad) = self.window.read(rules.within, now);
            all >= rules.min_requests && !share.exceeds(u64::from(bad), u64::from(all))
        });
        if in_a_row || too_many {
            // Whether it is ejected or not (others may be already): only further failures ask again.
            self.failures.clear();
            self.window.clear();
        }
        in_a_row || too_many
    }

    /// Ejects it, for longer each time that it was ejected shortly before. `None`: it is ejected already.
    pub fn eject(&self, rules: &PassiveRules, now: Micros) -> Option<Change> {
        let mut inner = self.lock();
        if inner.ejection.is_some() {
            return None;
        }
        // For each time that it was well for as long as it had been out, the next ejection is one step shorter.
        let mut well = now.saturating_sub(inner.returned);
        while inner.ejections > 0 && well >= inner.length {
            well -= inner.length;
            inner.ejections -= 1;
            inner.length = rules.length(inner.ejections.saturating_sub(1));
        }
        inner.length = rules.length(inner.ejections);
        if inner.ejections == 0 || rules.length(inner.ejections - 1) < rules.max_eject {
            inner.ejections += 1;
        }
        let until = now.saturating_add(inner.length).max(1);
        inner.ejection = Some(Ejection { began: now, until, healed: 0 });
        self.ejected_until.store(until, Relaxed);
        self.settle(&inner, now)
    }

    /// Ends an ejection whose time is up.
    pub fn expire(&self, now: Micros) -> Option<Change> {
        if self.ejected_until().is_none_or(|until| until > now) {
            return None;
        }
        let mut inner = self.lock();
        if inner.ejection.is_some_and(|ejection| ejection.until <= now) {
            self.end_ejection(&mut inner, now);
        }
        self.settle(&inner, now)
    }

    /// Forgets all ejections: there are none any more.
    pub fn forget_ejections(&self, now: Micros) -> Option<Change> {
        let mut inner = self.lock();
        self.end_ejection(&mut inner, now);
        (inner.ejections, inner.length) = (0, 0);
        self.settle(&inner, now)
    }

    /// Lets it finish what it has and take nothing new, or ends that.
    pub fn set_drain(&self, drains: bool, now: Micros) -> Option<Change> {
        let mut inner = self.lock();
        inner.drains = drains;
        self.settle(&inner, now)
    }

    fn end_ejection(&self, inner: &mut Inner, now: Micros) {
        if inner.ejection.take().is_some() {
            inner.returned = now;
            self.failures.clear();
            self.window.clear();
            self.ejected_until.store(0, Relaxed);
        }
    }

    /// Publishes what it all adds up to.
    fn settle(&self, inner: &Inner, now: Micros) -> Option<Change> {
        let to = match (inner.drains, inner.verdict, &inner.ejection) {
            (true, _, _) => Status::Draining,
            (false, Verdict::Down, _) => Status::Down,
            (false, Verdict::Checking, _) => Status::Checking,
            (false, Verdict::Up, Some(_)) => Status::Ejected,
            (false, Verdict::Up, None) => Status::Up,
        };
        self.well.store(inner.verdict == Verdict::Up && inner.ejection.is_none(), Relaxed);
        let from = self.status();
        if from == to {
            return None;
        }
        if to == Status::Up {
            // Before the status: whoever sees it well shall see since when.
            self.well_since.store(now.max(1), Relaxed);
        }
        self.status.store(to as u8, std::sync::atomic::Ordering::Release);
        Some(Change { from, to })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::units::Percent;

    const SECOND: Micros = 1_000_000;
    const ACTIVE: ActiveRules = ActiveRules { rise: 2, fall: 3 };
    const PASSIVE: PassiveRules = PassiveRules {
        errors: 3,
        within: 10 * SECOND,
        counts_all_5xx: false,
        error_rate: None,
        min_requests: 20,
        eject: 10 * SECOND,
        max_eject: 60 * SECOND,
        max_ejected: Percent::new(50),
    };

    fn finding(sound: bool, at: Micros) -> Finding {
        Finding { began: at, ended: at, fault: (!sound).then(|| "connection refused".to_owned()) }
    }

    /// The status after each of these probes (`+` succeeds, `-` fails), by its first letter.
    fn after_probes(health: &Health, probes: &str) -> String {
        let each = probes.chars().enumerate().map(|(at, probe)| {
            health.probe(finding(probe == '+', at as Micros), &ACTIVE);
            health.status().word().chars().next().unwrap()
        });
        each.collect()
    }

    fn fail(health: &Health, times: u32, at: Micros) -> bool {
        (0..times).map(|_| health.outcome(false, &PASSIVE, at)).fold(false, |_, asks| asks)
    }

    #[test]
    fn metrics_have_the_same_words() {
        assert_eq!(Status::ALL.map(Status::word), crate::observe::BackendStats::STATES);
        assert_eq!(Status::ALL.map(|status| status as usize), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn probes_raise_and_fell_a_backend() {
        for (start, probes, statuses) in [
            (Start::Up, "---++-+", "uudduuu"),
            (Start::Up, "--+--+---", "uuuuuuuud"),
            (Start::Up, "---+-++", "uuddddu"),
            (Start::Checking, "+--", "uuu"),
            (Start::Checking, "--+", "ccu"),
            (Start::Checking, "---+++", "ccdduu"),
            (Start::Down, "+-++", "dddu"),
            (Start::Down, "++", "du"),
        ] {
            let health = Health::new(start);
            assert_eq!(after_probes(&health, probes), statuses, "{start:?} {probes}");
            assert_eq!(health.is_usable(), statuses.ends_with('u'), "{start:?} {probes}");
        }
    }

    #[test]
    fn a_change_is_told_once() {
        let health = Health::default();
        let told: Vec<_> = (0..6).map(|at| health.probe(finding(false, at), &ACTIVE)).collect();
        assert_eq!(told[2], Some(Change { from: Status::Up, to: Status::Down }));
        assert_eq!(told.iter().flatten().count(), 1);
    }

    #[test]
    fn who_is_well_again_is_known_since_when() {
        let health = Health::default();
        assert_eq!(health.well_since(), None);
        after_probes(&health, "---");
        health.probe(finding(true, 7 * SECOND), &ACTIVE);
        health.probe(finding(true, 8 * SECOND), &ACTIVE);
        assert_eq!(health.well_since(), Some(8 * SECOND));
        assert_eq!(Health::default().joined(5).well_since(), Some(5));
    }

    #[test]
    fn failures_in_a_row_ask_for_an_ejection() {
        let health = Health::default();
        assert!(!fail(&health, 2, 0) && fail(&health, 1, 0), "the third asks");
        assert!(!fail(&health, 2, 0) && fail(&health, 1, 0), "not ejected, it asks again after as many");
        assert!(!fail(&health, 2, 0));
        assert!(!health.outcome(true, &PASSIVE, 0));
        assert!(!fail(&health, 2, 0) && fail(&health, 1, 0), "a success clears the count");
        assert!(!fail(&health, 2, 0));
        assert!(!fail(&health, 2, 11 * SECOND) && fail(&health, 1, 11 * SECOND), "what is long ago does not count");
    }

    #[test]
    fn an_error_rate_asks_for_an_ejection_once_there_are_requests_enough() {
        let rules = PassiveRules { errors: 1000, error_rate: Some(Percent::new(50)), ..PASSIVE };
        let health = Health::default();
        // One in two fails.
        let asked: Vec<_> = (0..40).filter(|n| health.outcome(n % 2 == 0, &rules, *n)).collect();
        assert_eq!(asked, [19, 39], "the twentieth makes it 10 of 20, and the count begins anew");
        let health = Health::default();
        assert!((0..300).all(|n| !health.outcome(n % 3 != 0, &rules, n)), "a third is less than half");
        let health = Health::default();
        let slow = |n: u64| n * SECOND;
        assert!((0..300).all(|n| !health.outcome(false, &rules, slow(n))), "never 20 in 10 s");
    }

    #[test]
    fn each_ejection_is_longer_than_the_one_before_unless_it_was_well_for_long() {
        let health = Health::default();
        let mut now = SECOND;
        let mut eject_after = |well: Micros| {
            now += well;
            assert_eq!(health.eject(&PASSIVE, now), Some(Change { from: Status::Up, to: Status::Ejected }));
            assert_eq!(health.eject(&PASSIVE, now), None, "it is ejected already");
            let until = health.ejected_until().unwrap();
            assert_eq!(health.expire(until - 1), None);
            assert_eq!(health.expire(until), Some(Change { from: Status::Ejected, to: Status::Up }));
            assert_eq!((health.ejected_until(), health.well_since()), (None, Some(until)));
            let length = until - now;
            now = until;
            length / SECOND
        };
        let lengths: Vec<_> = [0, 1, 5, 10, 1, 60, 100].map(|well| eject_after(well * SECOND)).into();
        // 60 s well after 60 s out is one step back, and 100 s after 60 s out one (60) and one more (40).
        assert_eq!(lengths, [10, 20, 40, 60, 60, 60, 40]);
    }

    #[test]
    fn a_backend_that_was_well_for_long_begins_with_the_shortest_ejection() {
        let health = Health::default();
        health.eject(&PASSIVE, SECOND);
        health.expire(11 * SECOND);
        health.eject(&PASSIVE, 3600 * SECOND);
        assert_eq!(health.ejected_until(), Some(3610 * SECOND));
        assert_eq!(health.report().ejections, 1);
    }

    #[test]
    fn what_was_under_way_when_it_was_ejected_counts_for_nothing() {
        let health = Health::default();
        health.eject(&PASSIVE, SECOND);
        assert!(!fail(&health, 100, SECOND));
        health.expire(Micros::MAX);
        assert!(!fail(&health, 2, 99 * SECOND));
    }

    #[test]
    fn probes_end_an_ejection_only_when_they_began_after_it() {
        let health = Health::default();
        health.eject(&PASSIVE, 10);
        health.probe(Finding { began: 9, ended: 11, fault: None }, &ACTIVE);
        health.probe(finding(true, 12), &ACTIVE);
        assert_eq!(health.status(), Status::Ejected, "one of the two began before");
        health.probe(finding(false, 13), &ACTIVE);
        health.probe(finding(true, 14), &ACTIVE);
        assert_eq!(health.status(), Status::Ejected, "not two in a row");
        let change = health.probe(finding(true, 15), &ACTIVE);
        assert_eq!(change, Some(Change { from: Status::Ejected, to: Status::Up }));
        assert_eq!((health.ejected_until(), health.well_since()), (None, Some(15)));
    }

    #[test]
    fn a_drain_hides_what_goes_on_below_it() {
        let health = Health::default();
        assert_eq!(health.set_drain(true, 1), Some(Change { from: Status::Up, to: Status::Draining }));
        assert_eq!(health.set_drain(true, 2), None);
        assert!(health.is_draining() && !health.is_usable());
        assert!(health.is_well());
        assert_eq!(after_probes(&health, "---"), "ddd", "draining, not down");
        assert!(health.is_draining() && !health.is_well(), "but not well either");
        assert_eq!(health.set_drain(false, 3), Some(Change { from: Status::Draining, to: Status::Down }));
    }

    #[test]
    fn what_is_no_longer_watched_is_well() {
        let health = Health::default();
        after_probes(&health, "---");
        health.eject(&PASSIVE, SECOND);
        assert_eq!(health.forget_probes(SECOND), Some(Change { from: Status::Down, to: Status::Ejected }));
        assert_eq!(health.forget_ejections(SECOND), Some(Change { from: Status::Ejected, to: Status::Up }));
        let report = health.report();
        assert_eq!((report.probe, report.in_a_row, report.ejections), (None, 0, 0));
    }

    #[test]
    fn a_report_holds_the_last_probe() {
        let health = Health::default();
        after_probes(&health, "+--");
        let report = health.report();
        assert_eq!(report.probe.unwrap().fault.as_deref(), Some("connection refused"));
        assert_eq!((report.status, report.in_a_row), (Status::Up, 2));
    }

    /// Whatever may happen to a backend.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        Probe(bool),
        Outcome(bool),
        Drain(bool),
        Wait(Micros),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            any::<bool>().prop_map(Event::Probe),
            any::<bool>().prop_map(Event::Outcome),
            any::<bool>().prop_map(Event::Drain),
            (0..20 * SECOND).prop_map(Event::Wait),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_the_status_follows_from_it(
            start in prop_oneof![Just(Start::Up), Just(Start::Checking), Just(Start::Down)],
            events in proptest::collection::vec(event(), 0..200),
        ) {
            let health = Health::new(start);
            let mut now = SECOND;
            // The plain model: all probes so far, the ejection, the drain.
            let mut probes: Vec<bool> = Vec::new();
            let mut verdict = start;
            let mut ejected: Option<(Micros, usize)> = None;
            let mut drains = false;
            for event in events {
                let before = health.status();
                let told = match event {
                    Event::Probe(sound) => {
                        probes.push(sound);
                        let ended_so = |sound: bool, times: u32| {
                            probes.len() >= times as usize
                                && probes.iter().rev().take(times as usize).all(|probe| *probe == sound)
                        };
                        verdict = match verdict {
                            Start::Checking if sound => Start::Up,
                            Start::Down if ended_so(true, ACTIVE.rise) => Start::Up,
                            Start::Up | Start::Checking if ended_so(false, ACTIVE.fall) => Start::Down,
                            same => same,
                        };
                        let since = ejected.map_or(0, |(_, at)| probes.len() - at);
                        if since >= ACTIVE.rise as usize && ended_so(true, ACTIVE.rise) {
                            ejected = None;
                        }
                        health.probe(finding(sound, now), &ACTIVE)
                    }
                    Event::Outcome(good) => match health.outcome(good, &PASSIVE, now) {
                        true => {
                            prop_assert!(!good && ejected.is_none());
                            let change = health.eject(&PASSIVE, now);
                            ejected = health.ejected_until().map(|until| (until, probes.len()));
                            prop_assert!(ejected.is_some());
                            change
                        }
                        false => None,
                    },
                    Event::Drain(on) => {
                        drains = on;
                        health.set_drain(on, now)
                    }
                    Event::Wait(span) => {
                        now += span;
                        ejected = ejected.filter(|(until, _)| *until > now);
                        health.expire(now)
                    }
                };
                let expected = match (drains, verdict, ejected) {
                    (true, _, _) => Status::Draining,
                    (_, Start::Down, _) => Status::Down,
                    (_, Start::Checking, _) => Status::Checking,
                    (_, Start::Up, Some(_)) => Status::Ejected,
                    (_, Start::Up, None) => Status::Up,
                };
                prop_assert_eq!(health.status(), expected, "{:?}", event);
                prop_assert_eq!(health.is_usable(), expected == Status::Up);
                let change = (before != expected).then_some(Change { from: before, to: expected });
                prop_assert_eq!(told, change, "{:?}", event);
                if told.is_some_and(|change| change.to == Status::Up) {
                    prop_assert_eq!(health.well_since(), Some(now));
                }
                if let Some((until, _)) = ejected {
                    prop_assert!(until > now && until - now <= PASSIVE.max_eject);
                }
            }
        }
    }
}
