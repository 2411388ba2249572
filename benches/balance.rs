//! What choosing a backend costs: each policy among 3, 100 and 1,000 backends that are busy, alone and from four threads
//! at once, next to what `pingora::lb` takes for the same; and what it costs to build one.
//!
//! With several threads the time is that of one pick on the clock: all picks together take as long as their sum.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use edgeway::diag::Issues;
use edgeway::exchange::{Exchange, Facts};
use edgeway::keep::Keep;
use edgeway::upstream::balance::Config;
use edgeway::upstream::balance::policy::{Ask, Member, Members, Passed, Policy};
use edgeway::upstream::{self, Resolved, Tried, Upstream};
use pingora::http::RequestHeader;
use pingora::lb::LoadBalancer;
use pingora::lb::selection::{BackendIter, BackendSelection, Consistent, Random, RoundRobin};

/// Every policy, with what is asked of it here.
const POLICIES: &[(&str, &str)] = &[
    ("round_robin", "round_robin"),
    ("least_connections", "least_connections"),
    ("power_of_two", "power_of_two"),
    ("peak_ewma", "peak_ewma"),
    ("random", "random"),
    ("ip_hash", "ip_hash"),
    ("maglev", "consistent_hash"),
    ("maglev by path", "consistent_hash: { key: '${request.path}' }"),
    ("maglev, bounded", "consistent_hash: { bounded_load: 1.25 }"),
    ("ring", "consistent_hash: { algorithm: ring }"),
    ("ring, bounded", "consistent_hash: { algorithm: ring, bounded_load: 1.25 }"),
];

fn label(number: usize) -> String {
    format!("10.0.{}.{}:8080", number / 250, number % 250 + 1)
}

/// Members with about eight requests under way each, and with a latency.
fn members(count: usize) -> Vec<Member> {
    let mut random = fastrand::Rng::with_seed(7);
    let member = |number| {
        let member = Member { label: label(number).into(), weight: 1, load: Arc::default() };
        (0..random.u32(4..12)).for_each(|_| _ = member.load.begin());
        member.load.observe(Duration::from_micros(random.u64(1000..20_000)), 0);
        member
    };
    (0..count).map(member).collect()
}

fn build(yaml: &str, members: &[Member], keep: &Keep) -> Box<dyn Policy> {
    let config: Config = serde_yaml::from_str(yaml).expect("a policy");
    config.build(&Members { upstream: "bench", members, keep })
}

/// How long `picks` calls of `pick` take when this many threads share them. It gets another number each time.
fn timed(threads: usize, picks: u64, pick: &(impl Fn(usize) + Sync)) -> Duration {
    let each = picks.div_ceil(threads as u64) as usize;
    let run = || (0..each).for_each(pick);
    if threads == 1 {
        let started = Instant::now();
        run();
        return started.elapsed();
    }
    let barrier = Barrier::new(threads + 1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    run();
                })
            })
            .collect();
        barrier.wait();
        let started = Instant::now();
        for thread in threads {
            thread.join().expect("picking does not panic");
        }
        started.elapsed()
    })
}

fn pick(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick");
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(30);
    let head = RequestHeader::build("GET", b"/assets/app.0f3c9.js", None).expect("a sound path");
    // From many clients: one would have its line of the table always at hand.
    let exchanges: Vec<Exchange> = (0..4096)
        .map(|_| {
            let mut exchange = Exchange::new();
            exchange.client = Ipv4Addr::from_bits(fastrand::u32(..)).into();
            exchange
        })
        .collect();
    for backends in [3, 100, 1000] {
        let (members, keep) = (members(backends), Keep::default());
        for (name, yaml) in POLICIES {
            let policy = build(yaml, &members, &keep);
            let pick = |passed: &Passed, number: usize| {
                let exchange = &exchanges[number % exchanges.len()];
                let facts = Facts { request: &head, exchange, response: None, route: "", upstream: "", backend: "" };
                black_box(policy.pick(black_box(&Ask { facts: &facts, now: 1000, passed })));
            };
            let (none, mut one) = (Passed::new(), Passed::new());
            one.insert(0);
            for threads in [1, 4].into_iter().filter(|threads| *threads == 1 || backends == 100) {
                group.bench_function(
                    BenchmarkId::new(*name, format!("{backends} backends, {threads} threads")),
                    |bencher| {
                        bencher.iter_custom(|picks| timed(threads, picks, &|number| pick(&none, number)));
                    },
                );
            }
            if backends == 100 {
                group.bench_function(BenchmarkId::new(*name, "100 backends, second try"), |bencher| {
                    bencher.iter_custom(|picks| timed(1, picks, &|number| pick(&one, number)));
                });
            }
        }
    }
    group.finish();
}

/// What Pingora's own choice of a backend takes.
fn pingora(criterion: &mut Criterion) {
    fn bench<S>(criterion: &mut Criterion, name: &str, backends: usize)
    where
        S: BackendSelection + Send + Sync + 'static,
        S::Iter: BackendIter,
    {
        let theirs = LoadBalancer::<S>::try_from_iter((0..backends).map(label)).expect("addresses");
        let keys: Vec<String> = (0..4096).map(|number| format!("192.0.{}.{}", number / 250, number % 250)).collect();
        let mut group = criterion.benchmark_group("pingora");
        group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(30);
        group.bench_function(BenchmarkId::new(name, format!("{backends} backends, 1 threads")), |bencher| {
            let pick = |number: usize| _ = black_box(theirs.select(keys[number % keys.len()].as_bytes(), 256));
            bencher.iter_custom(|picks| timed(1, picks, &pick));
        });
        group.finish();
    }
    for backends in [3, 100, 1000] {
        bench::<RoundRobin>(criterion, "round robin", backends);
        bench::<Random>(criterion, "random", backends);
        bench::<Consistent>(criterion, "ketama", backends);
    }
}

/// A whole try: the view, a pick, the lease, and the peer that Pingora gets.
fn one_try(criterion: &mut Criterion) {
    let addresses: Vec<String> = (0..100).map(label).collect();
    let config: upstream::Config = serde_yaml::from_str(&format!("{addresses:?}")).expect("a list of addresses");
    let (issues, keep) = (Issues::default(), Arc::default());
    let built = Upstream::build("bench", &config, &Resolved::default(), &keep, &issues.root()).expect("no faults");
    let head = RequestHeader::build("GET", b"/", None).expect("a sound path");
    let exchange = Exchange::new();
    let facts = Facts { request: &head, exchange: &exchange, response: None, route: "", upstream: "", backend: "" };
    criterion.bench_function("pick, lease and peer", |bencher| {
        bencher.iter(|| {
            let lease = built.pick(&facts, &Tried::new(), Instant::now()).expect("a backend");
            let peer = lease.backend().peer(Some(Duration::from_secs(10)), None, false);
            (lease, peer)
        });
    });
}

/// A policy is built anew whenever the health of a backend changes.
fn rebuild(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("build");
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(10);
    for backends in [100, 1000] {
        let (members, keep) = (members(backends), Keep::default());
        for (name, yaml) in POLICIES {
            group.bench_function(BenchmarkId::new(*name, format!("{backends} backends")), |bencher| {
                bencher.iter(|| build(yaml, &members, &keep));
            });
        }
    }
    // Weights that have nothing in common make the longest period of turns there is.
    let (mut odd, keep) = (members(256), Keep::default());
    (1..).zip(&mut odd).for_each(|(number, member)| member.weight = 1009 * number + 1);
    group.bench_function("round_robin/256 backends with odd weights", |bencher| {
        bencher.iter(|| build("round_robin", &odd, &keep));
    });
    group.finish();
}

criterion_group!(benches, pick, pingora, one_try, rebuild);
criterion_main!(benches);
