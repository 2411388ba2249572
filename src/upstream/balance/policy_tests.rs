//! What is promised of every policy: shares by weight, none passed over, few keys moved, bounds kept, slow backends spared.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use pingora::http::RequestHeader;
use proptest::prelude::*;

use super::Config;
use super::policy::{Ask, Member, Members, Passed, Policy};
use crate::exchange::{Exchange, Facts};
use crate::keep::Keep;
use crate::upstream::clock::Micros;

/// Every policy, and each of its kinds.
const ALL: &[&str] = &[
    "round_robin",
    "least_connections",
    "power_of_two",
    "peak_ewma",
    "random",
    "ip_hash",
    "consistent_hash",
    "consistent_hash: { bounded_load: 1.25 }",
    "consistent_hash: { algorithm: ring }",
    "consistent_hash: { algorithm: ring, bounded_load: 1.25 }",
];

/// Those that ask what the request is.
const HASHES: &[&str] = ALL.split_at(5).1;

/// A request from somewhere.
pub(super) struct Request {
    head: RequestHeader,
    exchange: Exchange,
    passed: Passed,
}

impl Default for Request {
    fn default() -> Self {
        Self::from("192.0.2.1")
    }
}

impl Request {
    /// From this client.
    pub(super) fn from(client: &str) -> Self {
        Self::of(client.parse().unwrap(), "/")
    }

    fn of(client: IpAddr, target: &str) -> Self {
        let mut exchange = Exchange::new();
        exchange.client = client;
        let head = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
        Self { head, exchange, passed: Passed::new() }
    }

    /// From any client.
    fn random() -> Self {
        Self::of(Ipv4Addr::from_bits(fastrand::u32(..)).into(), "/")
    }

    /// With one more passed over.
    fn but(&mut self, member: usize) {
        self.passed.insert(member);
    }

    /// With this field in its head.
    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.head.append_header(name, value).unwrap();
        self
    }

    /// Whom a policy picks for it.
    pub(super) fn pick(&self, policy: &dyn Policy) -> Option<usize> {
        self.ask(0, |ask| policy.pick(ask))
    }

    fn ask<T>(&self, now: Micros, act: impl FnOnce(&Ask<'_>) -> T) -> T {
        let (request, exchange) = (&self.head, &self.exchange);
        let facts = Facts { request, exchange, response: None, route: "", upstream: "", backend: "" };
        act(&Ask { facts: &facts, now, passed: &self.passed })
    }
}

/// Members of these weights, at 10.0.0.1:80, 10.0.0.2:80 and so on.
pub(super) fn members(weights: &[u32]) -> Vec<Member> {
    let label = |number: u32| format!("{}:80", Ipv4Addr::from_bits(0x0a00_0001 + number));
    (0..)
        .zip(weights)
        .map(|(number, &weight)| Member { label: label(number).into(), weight, load: Arc::default() })
        .collect()
}

fn build(yaml: &str, members: &[Member]) -> Box<dyn Policy> {
    let config: Config = serde_yaml::from_str(yaml).unwrap();
    config.build(&Members { upstream: "api", members, keep: &Keep::default() })
}

/// Picks for so many requests from anywhere, each ended when `under_way` more have begun.
fn counts(yaml: &str, members: &[Member], picks: u32, under_way: usize) -> Vec<u32> {
    let policy = build(yaml, members);
    let mut counts = vec![0; members.len()];
    let (mut running, mut request) = (VecDeque::new(), Request::default());
    for pick in 0..picks {
        let now = u64::from(pick) * 1000;
        request.exchange.client = Ipv4Addr::from_bits(fastrand::u32(..)).into();
        let picked = request.ask(now, |ask| policy.pick(ask)).unwrap();
        counts[picked] += 1;
        members[picked].load.begin();
        running.push_back(picked);
        if running.len() > under_way {
            let load = &members[running.pop_front().unwrap()].load;
            load.observe(Duration::from_millis(5), now);
            load.end();
        }
    }
    counts
}

#[test]
fn of_100_000_requests_each_gets_its_share_within_2_percent() {
    for yaml in ALL {
        // The points of a ketama ring are where they are: see below.
        // As many as all weights divide, for there are no halves of requests.
        for under_way in [0, 510].into_iter().filter(|_| !yaml.contains("ring")) {
            for weights in [&[1, 1, 1][..], &[5, 3, 2], &[4, 4, 4, 3, 2]] {
                fastrand::seed(7);
                let counts = counts(yaml, &members(weights), 100_000, under_way);
                let sum: u32 = weights.iter().sum();
                for (count, weight) in counts.iter().zip(weights) {
                    let due = 100_000 * weight / sum;
                    let case = format!("{yaml}, {weights:?}, {under_way} under way: {counts:?}");
                    assert!(count.abs_diff(due) <= due / 50, "{case}");
                }
            }
        }
    }
}

#[test]
fn among_many_each_gets_its_share_within_2_percent_of_all() {
    for yaml in ALL {
        for weights in [&[1; 20][..], &[1; 200]] {
            fastrand::seed(7);
            for count in counts(yaml, &members(weights), 100_000, 10) {
                let due = 100_000 / weights.len() as u32;
                assert!(count.abs_diff(due) <= 2000, "{yaml}, {} members: {count} instead of {due}", weights.len());
            }
        }
    }
}

#[test]
fn the_points_of_a_ring_are_as_even_as_those_of_ketama() {
    fastrand::seed(7);
    for weights in [&[1, 1, 1][..], &[5, 3, 2], &[1; 10]] {
        let counts = counts("consistent_hash: { algorithm: ring }", &members(weights), 100_000, 0);
        let sum: u32 = weights.iter().sum();
        for (count, weight) in counts.iter().zip(weights) {
            let due = 100_000 * weight / sum;
            assert!(count.abs_diff(due) <= due / 5, "{weights:?}: {counts:?}");
        }
    }
}

proptest! {
    // Each case builds tables of 65,537 places.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn none_that_is_passed_over_is_picked_and_every_other_is_found(
        weights in prop::collection::vec(1_u32..50, 0..40),
        inflight in prop::collection::vec(0_usize..40, 0..40),
        out in prop::collection::vec(0_usize..40, 0..6),
    ) {
        let members = members(&weights);
        for member in inflight {
            members.get(member).inspect(|member| _ = member.load.begin());
        }
        for yaml in ALL {
            let policy = build(yaml, &members);
            let mut request = Request::random();
            out.iter().for_each(|&member| request.but(member));
            let mut left = (0..weights.len()).filter(|member| !out.contains(member)).count();
            while let Some(picked) = request.pick(&*policy) {
                prop_assert!(picked < weights.len() && !request.passed.contains(picked), "{}", yaml);
                prop_assert!(!request.ask(0, |ask| policy.why(picked, ask)).is_empty());
                request.but(picked);
                left -= 1;
            }
            prop_assert_eq!(left, 0, "{}", yaml);
        }
    }

    #[test]
    fn no_backend_ever_exceeds_its_bound(
        weights in prop::collection::vec(1_u32..10, 1..20),
        algorithm in prop::sample::select(&["maglev", "ring"]),
        bound in prop::sample::select(&[1.0, 1.1, 1.25, 2.0]),
        // Which key, from few so that some are hot, and how many of the requests under way end before.
        steps in prop::collection::vec((0_u32..4, 0_usize..3), 1..300),
    ) {
        let members = members(&weights);
        let policy = build(&format!("consistent_hash: {{ algorithm: {algorithm}, bounded_load: {bound} }}"), &members);
        let sum: u32 = weights.iter().sum();
        let mut running = VecDeque::new();
        for (key, ends) in steps {
            for ended in running.drain(..ends.min(running.len())) {
                let ended: &Member = &members[ended];
                ended.load.end();
            }
            let picked = Request::of(Ipv4Addr::from_bits(key).into(), "/").pick(&*policy).unwrap();
            running.push_back(picked);
            let inflight = members[picked].load.begin();
            let share = f64::from(weights[picked]) / f64::from(sum);
            let most = (bound * running.len() as f64 * share).ceil();
            prop_assert!(f64::from(inflight) <= most, "{} of {} under way: {} > {}", picked, running.len(), inflight, most);
        }
    }
}

#[test]
fn the_bound_heeds_those_alone_that_take_requests() {
    // The last hangs with a hundred requests, and is no member any more: what it has makes no room at the others.
    for last in [1, 3] {
        let (all, keep) = (members(&vec![1; 2 + last]), Keep::default());
        let config: Config = serde_yaml::from_str("consistent_hash: { bounded_load: 1.0 }").unwrap();
        let build = |members: &[Member]| config.build(&Members { upstream: "api", members, keep: &keep });
        build(&all);
        (0..100).for_each(|_| _ = all[2].load.begin());
        let policy = build(&all[..2]);
        for _ in 0..10 {
            let picked = Request::default().pick(&*policy).unwrap();
            all[picked].load.begin();
        }
        assert_eq!([all[0].load.inflight(), all[1].load.inflight()], [5, 5], "with {last} that left");
    }
}

#[test]
fn when_one_leaves_few_keys_move_but_its_own() {
    for yaml in HASHES {
        for weights in [&[1; 3][..], &[1; 10], &[1; 200], &[5, 3, 2], &[1, 2, 2, 2], &[9, 1, 1, 1]] {
            fastrand::seed(7);
            let all = members(weights);
            let clients: Vec<Request> = (0..20_000).map(|_| Request::random()).collect();
            let picks = |members: &[Member]| -> Vec<String> {
                let policy = build(yaml, members);
                clients.iter().map(|client| members[client.pick(&*policy).unwrap()].label.to_string()).collect()
            };
            let before = picks(&all);
            for leaves in [0, weights.len() - 1] {
                let gone = &*all[leaves].label;
                let mut left = all.clone();
                left.remove(leaves);
                let after = picks(&left);
                let its_own = before.iter().filter(|label| **label == gone).count();
                let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
                let case =
                    format!("{yaml}: {moved} of 20,000 keys moved, {its_own} its own, as one of {weights:?} left");
                assert!(moved <= its_own + 400, "{case}");
                if yaml.contains("ring") {
                    assert_eq!(moved, its_own, "{case}");
                }
            }
        }
    }
}

#[test]
fn a_key_goes_to_the_same_backend_in_whatever_order_they_are_listed() {
    fastrand::seed(7);
    let sorted = members(&[1, 2, 3, 1, 1, 2]);
    let mut shuffled = sorted.clone();
    fastrand::shuffle(&mut shuffled);
    for yaml in HASHES {
        let (one, other) = (build(yaml, &sorted), build(yaml, &shuffled));
        for _ in 0..1000 {
            let mut client = Request::random();
            let picked = client.pick(&*one).unwrap();
            let label = &sorted[picked].label;
            assert_eq!(*label, shuffled[client.pick(&*other).unwrap()].label, "{yaml}");
            // And so do its retries.
            client.but(picked);
            let second = &sorted[client.pick(&*one).unwrap()].label;
            client.passed.clear();
            client.but(shuffled.iter().position(|member| member.label == *label).unwrap());
            assert_eq!(*second, shuffled[client.pick(&*other).unwrap()].label, "{yaml}");
        }
    }
}

#[test]
fn a_key_goes_to_the_same_backend_in_every_version() {
    let members = members(&[1, 1, 1, 1, 2]);
    let key = "${request.path}";
    for (yaml, expected) in [
        ("ip_hash", "43033223"),
        ("consistent_hash", "43033223"),
        (&format!("consistent_hash: {{ key: '{key}' }}"), "02331143"),
        (&format!("consistent_hash: {{ key: '{key}', algorithm: ring }}"), "11400303"),
    ] {
        let policy = build(yaml, &members);
        let picks = (0..8).map(|number| {
            let request = Request::of(Ipv4Addr::new(192, 0, 2, number).into(), &format!("/item/{number}"));
            request.pick(&*policy).unwrap().to_string()
        });
        assert_eq!(picks.collect::<String>(), expected, "{yaml}");
    }
}

#[test]
fn any_fact_of_a_request_may_be_its_key_and_one_without_goes_anywhere() {
    fastrand::seed(7);
    let members = members(&[1; 50]);
    let same = |policy: &dyn Policy, request: &dyn Fn() -> Request| {
        let picks: Vec<_> = (0..20).map(|_| request().pick(policy)).collect();
        picks.iter().all(|pick| *pick == picks[0])
    };
    let request = |target: &'static str| move || Request::of(Ipv4Addr::from_bits(fastrand::u32(..)).into(), target);
    for (key, with, without) in [
        ("${request.path}", "/a?b=1", None),
        ("${request.query.user}", "/?user=7", Some("/?other=7")),
        ("${request.headers.x-user}", "/", None),
        ("user ${request.query.user}", "/?user=7", Some("/")),
        ("${request.query.a}/${request.query.b}", "/?b=7", Some("/?c=7")),
    ] {
        let policy = build(&format!("consistent_hash: {{ key: '{key}' }}"), &members);
        let with = move || request(with)().with("x-user", "joe");
        assert!(same(&*policy, &with), "{key}");
        if let Some(without) = without {
            assert!(!same(&*policy, &request(without)), "{key}");
            let why = request(without)().ask(0, |ask| policy.why(0, ask));
            assert!(why.contains("has no key"), "{why}");
        }
    }
    let policy = build("consistent_hash: { key: '${request.cookies.cart}' }", &members);
    assert!(same(&*policy, &|| request("/")().with("cookie", "a=1; cart=42")));
    assert!(!same(&*policy, &request("/")));
}

/// How many requests each of four got, when the last takes ten times as long as the others.
fn with_a_slow_one(yaml: &str) -> Vec<u32> {
    const MS: Micros = 1000;
    let members = members(&[1; 4]);
    let policy = build(yaml, &members);
    let mut counts = vec![0; 4];
    let mut running: Vec<(Micros, usize, Micros)> = Vec::new();
    for now in (0..20_000).map(|nth| nth * MS / 2) {
        running.retain(|&(ends, picked, took)| {
            if ends <= now {
                members[picked].load.observe(Duration::from_micros(took), ends);
                members[picked].load.end();
            }
            ends > now
        });
        let picked = Request::random().ask(now, |ask| policy.pick(ask)).unwrap();
        members[picked].load.begin();
        counts[picked] += 1;
        let took = if picked == 3 { 100 * MS } else { 10 * MS };
        running.push((now + took, picked, took));
    }
    counts
}

#[test]
fn a_slow_backend_gets_less_from_those_who_look() {
    for yaml in ["least_connections", "power_of_two", "peak_ewma"] {
        fastrand::seed(7);
        let counts = with_a_slow_one(yaml);
        assert!(counts[3] < 2500, "{yaml}: {counts:?}");
    }
    // And those who do not look are not spoken of in vain.
    let blind = with_a_slow_one("round_robin");
    assert_eq!(blind[3], 5000, "{blind:?}");
}

#[test]
fn a_reason_is_one_clause() {
    let members = members(&[1, 2]);
    members[1].load.begin();
    members[1].load.observe(Duration::from_millis(12), 0);
    for (yaml, picked, reason) in [
        ("round_robin", 1, "its turn, with a weight of 2 in 3"),
        ("least_connections", 1, "the least busy for its weight of all (1 under way at a weight of 2)"),
        ("power_of_two", 1, "the less busy of two drawn at random (1 under way at a weight of 2)"),
        ("peak_ewma", 1, "the soonest of all (latency 12.0 ms, 1 under way at a weight of 2)"),
        ("random", 1, "drawn at random, with a weight of 2 in 3"),
        ("ip_hash", 0, "the address 192.0.2.1 belongs to it"),
        ("consistent_hash: { key: '${request.path}' }", 1, "the next after the one that the key `/` belongs to"),
        ("consistent_hash: { key: '${client.ip}' }", 0, "the key `192.0.2.1` belongs to it"),
    ] {
        let policy = build(yaml, &members);
        assert_eq!(Request::default().ask(0, |ask| policy.why(picked, ask)), reason);
    }
}
