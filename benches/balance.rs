//! What choosing a backend costs: our round robin, next to that of `pingora::lb`, alone and from four threads at once.
//!
//! With several threads the time is that of one pick on the clock: all picks together take as long as their sum.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use edgeway::diag::Issues;
use edgeway::exchange::{Exchange, Facts};
use edgeway::keep::Keep;
use edgeway::upstream::{Config, Resolved, Tried, Upstream};
use pingora::http::RequestHeader;
use pingora::lb::LoadBalancer;
use pingora::lb::selection::RoundRobin;

fn addresses(backends: usize) -> Vec<String> {
    (0..backends).map(|number| format!("10.0.{}.{}:8080", number / 250, number % 250 + 1)).collect()
}

fn upstream(backends: usize) -> Upstream {
    let issues = Issues::default();
    let config: Config = serde_yaml::from_str(&format!("{:?}", addresses(backends))).expect("a list of addresses");
    Upstream::build("bench", &config, &Resolved::default(), &std::sync::Arc::new(Keep::default()), &issues.root())
        .expect("no faults")
}

/// How long `picks` calls of `pick` take when this many threads share them.
fn timed(threads: usize, picks: u64, pick: &(impl Fn() + Sync)) -> Duration {
    let each = picks.div_ceil(threads as u64);
    let run = || (0..each).for_each(|_| pick());
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

/// Facts of a request that is like any other.
fn with_facts<T>(act: impl FnOnce(&Facts<'_>) -> T) -> T {
    let request = RequestHeader::build("GET", b"/", None).expect("a request");
    let exchange = Exchange::new();
    act(&Facts { request: &request, exchange: &exchange, response: None, route: "", upstream: "", backend: "" })
}

fn pick(criterion: &mut Criterion, facts: &Facts<'_>) {
    let mut group = criterion.benchmark_group("pick");
    for backends in [2, 16, 256] {
        let ours = upstream(backends);
        let theirs = LoadBalancer::<RoundRobin>::try_from_iter(addresses(backends)).expect("addresses");
        let mut tried = Tried::new();
        tried.insert(&ours.backends()[0]);
        let now = Instant::now();
        for threads in [1, 4] {
            let case = format!("{backends} backends, {threads} threads");
            group.bench_function(BenchmarkId::new("edgeway", &case), |bencher| {
                let pick = || _ = black_box(ours.pick(black_box(facts), &Tried::new(), now));
                bencher.iter_custom(|picks| timed(threads, picks, &pick));
            });
            group.bench_function(BenchmarkId::new("edgeway, second try", &case), |bencher| {
                let pick = || _ = black_box(ours.pick(black_box(facts), &tried, now));
                bencher.iter_custom(|picks| timed(threads, picks, &pick));
            });
            group.bench_function(BenchmarkId::new("pingora", &case), |bencher| {
                let pick = || _ = black_box(theirs.select(b"", 256));
                bencher.iter_custom(|picks| timed(threads, picks, &pick));
            });
        }
    }
    group.finish();
}

/// A whole try: pick, lease, and the peer that Pingora gets.
fn one_try(criterion: &mut Criterion, facts: &Facts<'_>) {
    let upstream = upstream(16);
    criterion.bench_function("pick, lease and peer", |bencher| {
        bencher.iter(|| {
            let lease = upstream.pick(facts, &Tried::new(), Instant::now()).expect("a backend");
            let peer = lease.backend().peer(Some(Duration::from_secs(10)), None, false);
            (lease, peer)
        });
    });
}

/// Laying out the turns of weights that have nothing in common: the longest period there is.
fn build(criterion: &mut Criterion) {
    let servers: Vec<_> = addresses(256)
        .iter()
        .enumerate()
        .map(|(number, address)| format!("{{address: \"{address}\", weight: {}}}", 1009 * (number + 1) + 1))
        .collect();
    let config: Config = serde_yaml::from_str(&format!("[{}]", servers.join(", "))).expect("a list of servers");
    criterion.bench_function("build 256 backends with odd weights", |bencher| {
        bencher.iter(|| {
            let issues = Issues::default();
            Upstream::build(
                "bench",
                &config,
                &Resolved::default(),
                &std::sync::Arc::new(Keep::default()),
                &issues.root(),
            )
        });
    });
}

fn with_request(criterion: &mut Criterion) {
    with_facts(|facts| {
        pick(criterion, facts);
        one_try(criterion, facts);
    });
}

criterion_group!(benches, with_request, build);
criterion_main!(benches);
