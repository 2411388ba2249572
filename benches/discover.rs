//! What it costs to replace the servers of an upstream: the replacing, off the threads that serve, and the longest that a
//! request has to wait for its backend meanwhile.
#![expect(clippy::print_stdout, reason = "criterion has no word for the longest of many")]

use std::fs;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group};
use edgeway::diag::Issues;
use edgeway::exchange::{Exchange, Facts};
use edgeway::keep::Keep;
use edgeway::upstream::limits::OfServer;
use edgeway::upstream::peer::{Keepalive, PeerTemplate, Timeouts};
use edgeway::upstream::{Config, Resolved, Seat, Tried, Upstream};
use http::HeaderValue;
use pingora::http::RequestHeader;

/// This many servers, beginning with the number `from`.
fn seats(from: usize, count: usize) -> Vec<Seat> {
    let seat = |number: usize| {
        let label = format!("10.{}.{}.{}:8080", number / 62_500, number / 250 % 250, number % 250 + 1);
        let address = label.parse().expect("an address");
        Seat {
            authority: HeaderValue::try_from(&label).expect("a header value"),
            label,
            weight: 1,
            tier: 0,
            zone: None,
            drains: false,
            spare: false,
            template: PeerTemplate::tcp(address, Timeouts::default(), Keepalive::default()),
            limits: OfServer::default(),
        }
    };
    (from..from + count).map(seat).collect()
}

fn upstream(balance: &str) -> Upstream {
    let config = format!("{{ servers: ['10.9.9.9:80'], balance: {balance} }}");
    let config: Config = serde_yaml::from_str(&config).expect("an upstream");
    let keep = std::sync::Arc::new(Keep::default());
    Upstream::build("bench", &config, &Resolved::default(), &keep, &Issues::default().root()).expect("no faults")
}

fn update(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("update");
    for count in [100, 1000, 10_000] {
        let upstream = upstream("round_robin");
        // Half of them stay each time.
        let lists = [seats(0, count), seats(count / 2, count)];
        let mut turn = 0;
        group.bench_function(BenchmarkId::new("servers", count), |bencher| {
            bencher.iter(|| {
                turn += 1;
                upstream.update(black_box(lists[turn % 2].clone()));
            });
        });
    }
    group.finish();
}

/// How long picks took, in all and at worst.
#[derive(Default)]
struct Picks {
    count: u64,
    longest: Duration,
    /// The longest of those during which the thread did not wait for a processor.
    longest_alone: Duration,
    above_a_millisecond: u64,
    above_a_millisecond_alone: u64,
}

/// How long this thread has waited for a processor so far: the second number of its `schedstat`.
fn waited() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').nth(1).and_then(|nanos| nanos.parse().ok()).unwrap_or_default())
}

fn pick_until(over: &AtomicBool, upstream: &Upstream) -> Picks {
    let request = RequestHeader::build("GET", b"/", None).expect("a request");
    let exchange = Exchange::new();
    let facts = Facts { request: &request, exchange: &exchange, response: None, route: "", upstream: "", backend: "" };
    let (mut picks, mut waited_before) = (Picks::default(), waited());
    while !over.load(Relaxed) {
        let begun = Instant::now();
        let lease = upstream.pick(&facts, &Tried::new(), begun).expect("there is always a backend");
        drop(black_box(lease));
        let took = begun.elapsed();
        picks.count += 1;
        picks.longest = picks.longest.max(took);
        picks.above_a_millisecond += u64::from(took > Duration::from_millis(1));
        // Reading the file costs more than a pick: only what stands out is looked at.
        if took > Duration::from_micros(20) {
            let waited_now = waited();
            let alone = took.saturating_sub(waited_now - waited_before);
            picks.longest_alone = picks.longest_alone.max(alone);
            picks.above_a_millisecond_alone += u64::from(alone > Duration::from_millis(1));
            waited_before = waited_now;
        }
    }
    picks
}

/// Picks in one thread while another does `beside`.
fn stall(name: &str, mut beside: impl FnMut(&Upstream)) {
    let upstream = upstream("round_robin");
    upstream.update(seats(0, 1000));
    let over = AtomicBool::new(false);
    let mut times = 0_u32;
    let picks = std::thread::scope(|scope| {
        let picking = scope.spawn(|| pick_until(&over, &upstream));
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end {
            beside(&upstream);
            times += 1;
        }
        over.store(true, Relaxed);
        picking.join().expect("picking does not panic")
    });
    println!(
        "{name}: {} picks of 1,000 backends, {times} updates; the longest took {:?}, and {:?} without waiting for a processor; more \
         than 1 ms took {}, and {} without waiting",
        picks.count, picks.longest, picks.longest_alone, picks.above_a_millisecond, picks.above_a_millisecond_alone
    );
}

criterion_group!(benches, update);

fn main() {
    benches();
    Criterion::default().configure_from_args().final_summary();
    // `cargo test` runs each benchmark once, and measures nothing.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let lists = [seats(0, 1000), seats(500, 1000)];
    let mut turn = 0;
    let mut replace = |upstream: &Upstream| {
        turn += 1;
        upstream.update(lists[turn % 2].clone());
        std::thread::sleep(Duration::from_millis(5));
    };
    // What the machine does to any thread while another works as hard.
    let another = upstream("round_robin");
    stall("beside as many updates of another upstream", |_| replace(&another));
    stall("beside updates of this upstream", |upstream| replace(upstream));
}
