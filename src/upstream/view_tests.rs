//! Tests of the view: tiers, zones, panic, draining and slow start, with a clock of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use http::HeaderValue;

use super::backend::{Backend, Lease, Seat, Tried};
use super::balance;
use super::clock::Micros;
use super::config::Zone;
use super::health::rules::{ActiveRules, PassiveRules};
use super::health::state::{Finding, Health, Start};
use super::limits::OfServer;
use super::peer::{Keepalive, PeerTemplate, Timeouts};
use super::refusal::Refusal;
use super::view::{Rules, View};
use crate::exchange::{Exchange, Facts};
use crate::keep::Keep;
use crate::units::Percent;

const SECOND: Micros = 1_000_000;

fn seat(name: &str, tier: u32, zone: &str, limits: OfServer) -> Seat {
    Seat {
        label: name.to_owned(),
        weight: 1,
        tier,
        zone: (!zone.is_empty()).then(|| Arc::from(zone)),
        drains: false,
        spare: false,
        authority: HeaderValue::from_static("a"),
        template: PeerTemplate::tcp("10.0.0.1:80".parse().unwrap(), Timeouts::default(), Keepalive::default()),
        limits,
    }
}

/// An upstream without sockets.
struct Group {
    backends: Vec<Arc<Backend>>,
    rules: Rules,
    keep: Keep,
}

impl Group {
    /// Backends by name, tier and zone.
    fn of(seats: &[(&str, u32, &str)]) -> Self {
        Self::limited(seats, OfServer::default())
    }

    /// The same, each with these limits.
    fn limited(seats: &[(&str, u32, &str)], limits: OfServer) -> Self {
        let keep = Keep::default();
        let fresh = || Health::new(Start::Up);
        let make = |(name, tier, zone): &(&str, u32, &str)| {
            Arc::new(Backend::new("api", seat(name, *tier, zone, limits), fresh, None, &keep))
        };
        let rules =
            Rules { name: "api".into(), balance: balance::Config::default(), panic: Percent::default(), zone: None };
        Self { backends: seats.iter().map(make).collect(), rules, keep }
    }

    /// Gives all this weight.
    fn weigh(&mut self, weight: u32) {
        let seat =
            |backend: &Arc<Backend>| Seat { weight, ..seat(backend.label(), backend.tier(), "", OfServer::default()) };
        let make = |backend| Arc::new(Backend::new("api", seat(backend), Health::default, None, &self.keep));
        self.backends = self.backends.iter().map(make).collect();
    }

    fn set(&self, name: &str, well: bool, now: Micros) {
        let backend = self.backends.iter().find(|backend| **backend.label() == *name).unwrap();
        let fault = (!well).then(|| "it fails".to_owned());
        backend.state().health.probe(Finding { began: now, ended: now, fault }, &ActiveRules { rise: 1, fall: 1 });
    }

    fn view(&self, now: Micros) -> View {
        View::make(&self.backends, &self.rules, &self.keep, now)
    }

    /// Who gets how many of 1,000 requests.
    fn shares(&self, now: Micros) -> BTreeMap<String, usize> {
        let view = self.view(now);
        let mut shares = BTreeMap::new();
        for _ in 0..1000 {
            if let Ok(label) = pick(&view, &Tried::new()) {
                *shares.entry(label).or_default() += 1;
            }
        }
        shares
    }

    /// Who gets any.
    fn takers(&self) -> String {
        self.shares(0).into_keys().collect::<Vec<_>>().join(" ")
    }

    /// Who is tried, one after the other.
    fn order(&self) -> Vec<String> {
        let (view, mut tried, mut order) = (self.view(0), Tried::new(), Vec::new());
        while let Ok(label) = pick(&view, &tried) {
            tried.insert(self.backends.iter().find(|backend| **backend.label() == *label).unwrap());
            order.push(label);
        }
        order
    }
}

fn pick(view: &View, tried: &Tried) -> Result<String, Refusal> {
    lease(view, tried).map(|lease| lease.backend().label().to_string())
}

fn lease(view: &View, tried: &Tried) -> Result<Lease, Refusal> {
    let request = pingora::http::RequestHeader::build("GET", b"/", None).unwrap();
    let exchange = Exchange::new();
    let facts = Facts { request: &request, exchange: &exchange, response: None, route: "", upstream: "", backend: "" };
    view.pick(&facts, tried, Instant::now())
}

#[test]
fn the_first_tier_with_a_well_backend_takes_the_requests() {
    let group = Group::of(&[("a", 0, ""), ("b", 0, ""), ("c", 1, ""), ("d", 7, "")]);
    for (down, takers) in [("", "a b"), ("a", "b"), ("b", "c"), ("c", "d"), ("d", "")] {
        if !down.is_empty() {
            group.set(down, false, 0);
        }
        assert_eq!(group.takers(), takers, "after {down} went down");
    }
    assert_eq!(pick(&group.view(0), &Tried::new()), Err(Refusal::NoHealthyBackend));
    group.set("b", true, 0);
    assert_eq!(group.takers(), "b");
}

#[test]
fn a_request_goes_on_to_the_next_tier_when_all_of_one_were_tried() {
    let group = Group::of(&[("spare", 1, ""), ("a", 0, ""), ("b", 0, "")]);
    let order = group.order();
    assert_eq!((order.len(), &*order[2]), (3, "spare"), "{order:?}");
}

#[test]
fn the_preferred_zone_takes_all_while_enough_of_it_is_well() {
    let mut group = Group::of(&[
        ("a", 0, "near"),
        ("b", 0, "near"),
        ("c", 0, "near"),
        ("d", 0, "far"),
        ("e", 0, ""),
        ("f", 1, "near"),
    ]);
    group.rules.zone = Some(Zone { prefer: "near".to_owned(), at_least: Percent::new(50) });
    assert_eq!(group.takers(), "a b c");
    assert_eq!(&group.order()[5], "f", "another tier comes after another zone");
    group.set("a", false, 0);
    assert_eq!(group.takers(), "b c");
    group.set("b", false, 0);
    assert_eq!(group.takers(), "c d e", "one of three is not half");
    group.set("c", false, 0);
    assert_eq!(group.takers(), "d e");
}

#[test]
fn in_a_panic_health_counts_for_nothing_but_a_drain_does() {
    let mut group = Group::of(&[("a", 0, ""), ("b", 0, ""), ("c", 0, ""), ("d", 0, "")]);
    group.rules.panic = Percent::new(50);
    for (down, takers, panics) in
        [("a", "b c d", false), ("b", "c d", false), ("c", "a b c d", true), ("d", "a b c d", true)]
    {
        group.set(down, false, 0);
        assert_eq!((&*group.takers(), group.view(0).panics), (takers, panics), "after {down} went down");
    }
    group.backends[0].state().health.set_drain(true, 0);
    assert_eq!(group.takers(), "b c d");
}

#[test]
fn a_tier_in_trouble_is_given_up_for_the_next_before_there_is_a_panic() {
    let mut group = Group::of(&[("a", 0, ""), ("b", 0, ""), ("c", 0, ""), ("d", 1, "")]);
    group.rules.panic = Percent::new(50);
    group.set("a", false, 0);
    group.set("b", false, 0);
    assert_eq!((&*group.takers(), group.view(0).panics), ("d", false));
    group.set("d", false, 0);
    assert_eq!((&*group.takers(), group.view(0).panics), ("a b c", true));
}

#[test]
fn a_drained_backend_takes_nothing_new() {
    let group = Group::of(&[("a", 0, ""), ("b", 0, "")]);
    let health = &group.backends[0].state().health;
    health.set_drain(true, 0);
    assert_eq!(group.takers(), "b");
    health.set_drain(false, 0);
    assert_eq!(group.takers(), "a b");
}

#[test]
fn a_status_counts_before_the_view_is_made_anew() {
    let group = Group::of(&[("a", 0, ""), ("b", 0, "")]);
    let view = group.view(0);
    group.set("a", false, 0);
    for _ in 0..10 {
        assert_eq!(pick(&view, &Tried::new()).unwrap(), "b");
    }
}

#[test]
fn who_comes_back_gets_its_share_step_by_step() {
    comes_back(Group::of(&[("a", 0, ""), ("b", 0, "")]));
    let mut heavy = Group::of(&[("a", 0, ""), ("b", 0, "")]);
    heavy.weigh(u32::MAX);
    comes_back(heavy);
}

fn comes_back(mut group: Group) {
    group.rules.balance = serde_yaml::from_str("{ round_robin: { slow_start: 10s } }").unwrap();
    group.set("a", false, 100 * SECOND);
    assert_eq!(group.shares(150 * SECOND).get("b"), Some(&1000));
    group.set("a", true, 200 * SECOND);
    let mut last = 0;
    for second in 0..10 {
        let now = (200 + second) * SECOND;
        let share = group.shares(now)["a"];
        // Step n of 10 weighs n against 10.
        let due = 1000 * (second as usize + 1) / (second as usize + 11);
        assert!(share.abs_diff(due) <= 20 && share > last, "after {second} s: {share}, not {due}");
        assert_eq!(group.view(now).expires, Some(now + SECOND));
        last = share;
    }
    assert_eq!((group.shares(210 * SECOND)["a"], group.view(210 * SECOND).expires), (500, None));
}

#[test]
fn an_ejection_ends_by_itself_and_the_view_knows_when() {
    let group = Group::of(&[("a", 0, ""), ("b", 0, "")]);
    let rules = PassiveRules {
        errors: 1,
        within: SECOND,
        counts_all_5xx: false,
        error_rate: None,
        min_requests: 1,
        eject: 10 * SECOND,
        max_eject: 10 * SECOND,
        max_ejected: Percent::new(50),
    };
    let health = &group.backends[0].state().health;
    health.eject(&rules, 5 * SECOND);
    assert_eq!((&*group.takers(), group.view(6 * SECOND).expires), ("b", Some(15 * SECOND)));
    assert!(health.expire(14 * SECOND).is_none() && health.expire(15 * SECOND).is_some());
    assert_eq!((&*group.takers(), group.view(16 * SECOND).expires), ("a b", None));
}

#[test]
fn full_backends_are_passed_over_until_all_of_the_tier_are_full() {
    let one = OfServer { requests: Some(1), connections: None };
    let names: Vec<_> = (0..20).map(|number| format!("b{number}")).collect();
    let mut seats: Vec<_> = names.iter().map(|name| (&**name, 0, "")).collect();
    seats.push(("backup", 1, ""));
    let group = Group::limited(&seats, one);
    let view = group.view(0);
    let leases: Vec<_> = (0..20).map(|_| lease(&view, &Tried::new()).unwrap()).collect();
    let taken: BTreeSet<_> = leases.iter().map(|lease| lease.backend().label().to_string()).collect();
    assert!(taken.len() == 20 && !taken.contains("backup"), "{taken:?}");
    // Full is not unwell: the backup takes nothing.
    assert_eq!(pick(&view, &Tried::new()), Err(Refusal::Full));
    drop(leases);
    assert!(pick(&view, &Tried::new()).is_ok());
}

#[test]
fn another_zone_of_the_tier_takes_what_the_preferred_one_is_too_full_for() {
    let one = OfServer { requests: Some(1), connections: None };
    let mut group = Group::limited(&[("near", 0, "here"), ("far", 0, "there"), ("backup", 1, "here")], one);
    group.rules.zone = Some(Zone { prefer: "here".to_owned(), at_least: Percent::new(50) });
    let view = group.view(0);
    let near = lease(&view, &Tried::new()).unwrap();
    let far = lease(&view, &Tried::new()).unwrap();
    assert_eq!([&near, &far].map(|lease| lease.backend().label().to_string()), ["near", "far"]);
    assert_eq!(pick(&view, &Tried::new()), Err(Refusal::Full));
}
