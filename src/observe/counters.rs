//! What is counted: plain atomics, grouped by what they count. A request holds its groups' handles since `build`.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// Adds `amount`.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds one, and tells the number after it.
    pub fn inc(&self) -> i64 {
        self.0.fetch_add(1, Relaxed) + 1
    }

    /// Takes one away.
    pub fn dec(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    /// Sets the number.
    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// How many bounds a [`Histogram`] has.
pub(super) const BOUNDS: usize = 14;

/// Which spans a [`Histogram`] tells apart.
pub trait Scale {
    /// The upper bounds of its buckets, in nanoseconds; one more bucket holds what is above all.
    const BOUNDS_NS: [u64; BOUNDS];
}

/// For what waits for a network: 500 µs to a minute.
#[derive(Debug, Default)]
pub struct Waiting;

impl Scale for Waiting {
    const BOUNDS_NS: [u64; BOUNDS] = scaled(
        1_000,
        [
            500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
            10_000_000, 60_000_000,
        ],
    );
}

/// For what is found in memory or on a disk: 250 ns to 100 ms.
#[derive(Debug, Default)]
pub struct Finding;

impl Scale for Finding {
    const BOUNDS_NS: [u64; BOUNDS] = scaled(
        10,
        [25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 500_000, 2_500_000, 10_000_000],
    );
}

const fn scaled(by: u64, mut bounds: [u64; BOUNDS]) -> [u64; BOUNDS] {
    let mut at = 0;
    while at < BOUNDS {
        bounds[at] *= by;
        at += 1;
    }
    bounds
}

/// How spans of time are spread.
#[derive(Debug, Default)]
pub struct Histogram<S = Waiting> {
    buckets: [AtomicU64; BOUNDS + 1],
    sum_ns: AtomicU64,
    scale: PhantomData<S>,
}

impl<S: Scale> Histogram<S> {
    /// Counts one span of time.
    pub fn observe(&self, span: Duration) {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let bucket = S::BOUNDS_NS.iter().position(|bound| nanos <= *bound).unwrap_or(BOUNDS);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_ns.fetch_add(nanos, Relaxed);
    }

    /// The count of each bucket (not cumulative), and the sum of all spans in nanoseconds.
    pub fn read(&self) -> ([u64; BOUNDS + 1], u64) {
        (std::array::from_fn(|bucket| self.buckets[bucket].load(Relaxed)), self.sum_ns.load(Relaxed))
    }
}

/// Responses by the first digit of their status.
#[derive(Debug, Default)]
pub struct ByClass([Counter; 6]);

impl ByClass {
    /// The label values, in the order of [`ByClass::read`]. `none`: the client left before any response.
    pub const CLASSES: [&'static str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

    /// Counts a response with this status; 0: no response.
    pub fn count(&self, status: u16) {
        let class = usize::from(status / 100);
        self.0[if class < 6 { class } else { 0 }].inc();
    }

    /// The counts, in the order of [`ByClass::CLASSES`].
    pub fn read(&self) -> [u64; 6] {
        std::array::from_fn(|class| self.0[class].get())
    }
}

/// What is counted of one route. Kept over reloads by [`RouteStats::key`].
#[derive(Debug, Default)]
pub struct RouteStats {
    /// Finished requests.
    pub requests: ByClass,
    /// From the request's head to the end of the response.
    pub duration: Histogram,
    /// Bytes of request bodies.
    pub received: Counter,
    /// Bytes of response bodies.
    pub sent: Counter,
}

impl RouteStats {
    /// The key under which `Keep` holds them: the site's first host and the route's name, both for labels.
    pub fn key(site: &str, route: &str) -> String {
        format!("{site}\n{route}")
    }
}

/// What the filters of one kind in one list decided on requests. Kept over reloads by [`FilterStats::key`].
#[derive(Debug, Default)]
pub struct FilterStats {
    /// Requests that went on.
    pub continued: Counter,
    /// Requests that the filter answered.
    pub replied: Counter,
}

impl FilterStats {
    /// The key under which `Keep` holds them: the key of the route ([`RouteStats::key`]) and the filter's name.
    pub fn key(owner: &str, filter: &str) -> String {
        format!("{owner}\n{filter}")
    }
}

/// What is counted of one backend of one upstream. Kept over reloads by [`BackendStats::key`].
#[derive(Debug, Default)]
pub struct BackendStats {
    /// Responses that it gave.
    pub requests: ByClass,
    /// Connecting to it; reused connections are not counted.
    pub connect: Histogram,
    /// From the request to its response head.
    pub first_byte: Histogram,
    /// Failed attempts to connect.
    pub connect_errors: Counter,
    /// Requests that were tried on another backend after this one failed.
    pub retries: Counter,
    /// Requests under way.
    pub active: Gauge,
    /// Active health checks that succeeded.
    pub checks_passed: Counter,
    /// Active health checks that failed.
    pub checks_failed: Counter,
    /// How often it was left out because requests failed there.
    pub ejections: Counter,
    /// What its health adds up to: a position in [`BackendStats::STATES`].
    pub state: Gauge,
}

impl BackendStats {
    /// What the health of a backend can add up to. Only the first takes requests.
    pub const STATES: [&'static str; 5] = ["up", "checking", "down", "ejected", "draining"];

    /// The key under which `Keep` holds them: the names of upstream and backend, both for labels.
    pub fn key(upstream: &str, backend: &str) -> String {
        format!("{upstream}\n{backend}")
    }
}

/// What is counted of an upstream whose servers may change. Kept over reloads by the upstream's name.
#[derive(Debug, Default)]
pub struct DiscoveryStats {
    /// How many backends there are.
    pub backends: Gauge,
    /// Questions whose answer changed the servers.
    pub updated: Counter,
    /// Questions whose answer changed nothing.
    pub unchanged: Counter,
    /// Questions without an answer.
    pub failed: Counter,
    /// Questions whose answer was wrong.
    pub refused: Counter,
    /// When all that is asked for was last known to be good, in seconds since 1970; 0: never.
    pub good_at: Gauge,
}

impl DiscoveryStats {
    /// All that is asked for is known to be good now.
    pub fn note_good(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.good_at.set(now.as_secs().cast_signed());
    }
}

/// What is counted of the copies of a route's requests. Kept over reloads by [`RouteStats::key`].
#[derive(Debug, Default)]
pub struct MirrorStats {
    /// Copies under way.
    pub under_way: Gauge,
    /// Copies that were answered, with whatever status.
    pub answered: Counter,
    /// Copies that no backend took, or that got no answer.
    pub failed: Counter,
    /// Copies not made: too many were under way.
    pub dropped: Counter,
    /// Copies not made: the body was too large.
    pub too_large: Counter,
}

/// What is counted of one upstream. Kept over reloads by its name, as all groups of an upstream are.
#[derive(Debug, Default)]
pub struct UpstreamStats {
    /// Requests that no backend took, in the order of [`UpstreamStats::REASONS`].
    pub refused: [Counter; Self::REASONS.len()],
    /// Retries that were not made, for too many others were under way.
    pub retries_refused: Counter,
}

impl UpstreamStats {
    /// Why no backend takes a request: label values, and words of the access log.
    pub const REASONS: [&'static str; 7] =
        ["no_backend", "no_healthy_backend", "all_tried", "limit", "queue_full", "queue_timeout", "circuit_open"];
}

/// What is counted of the queue of an upstream that has limits.
#[derive(Debug, Default)]
pub struct QueueStats {
    /// Requests that wait now.
    pub length: Gauge,
}

/// What is counted of the circuit of an upstream that has one.
#[derive(Debug, Default)]
pub struct CircuitStats {
    /// [`CircuitStats::CLOSED`], [`CircuitStats::OPEN`] or [`CircuitStats::HALF_OPEN`].
    pub state: Gauge,
    /// How often it opened.
    pub opened: Counter,
}

impl CircuitStats {
    /// Requests go on.
    pub const CLOSED: i64 = 0;
    /// Requests are refused.
    pub const OPEN: i64 = 1;
    /// One request was let through to see whether all is well.
    pub const HALF_OPEN: i64 = 2;
}

/// What is counted of the adaptive limit of an upstream that has one.
#[derive(Debug, Default)]
pub struct ConcurrencyStats {
    /// How many requests may be under way now.
    pub limit: Gauge,
}

/// What is counted of the responses of a route that has a cache. Kept over reloads by [`RouteStats::key`].
#[derive(Debug, Default)]
pub struct RouteCacheStats {
    /// Answered with what was stored, fresh.
    pub hit: Counter,
    /// Asked of the upstream, for nothing that fits was stored.
    pub miss: Counter,
    /// Answered with what was stored, stale.
    pub stale: Counter,
    /// Answered with what was stored, after the upstream confirmed it.
    pub revalidated: Counter,
    /// Asked of the upstream without a look at what is stored.
    pub bypass: Counter,
    /// Answered with what another request had asked for.
    pub collapsed: Counter,
}

/// What is counted of a place where responses are stored. Kept over reloads by its name.
#[derive(Debug, Default)]
pub struct ZoneStats {
    /// How its routes answered.
    pub answers: RouteCacheStats,
    /// Responses that were stored.
    pub stored: Counter,
    /// Responses that might not be stored, though it was looked for them here.
    pub uncacheable: Counter,
    /// Responses that were being stored when the upstream or the disk failed.
    pub fill_errors: Counter,
    /// Purges that were noted here.
    pub purges: Counter,
    /// Looking for an id, in memory and on disk.
    pub lookup: Histogram<Finding>,
    /// What lies in memory.
    pub memory: TierStats,
    /// What lies on disk.
    pub disk: TierStats,
}

/// What lies in one tier of a zone. Whoever reads these numbers lets the zone set them before.
#[derive(Debug, Default)]
pub struct TierStats {
    /// Bytes that it takes.
    pub bytes: Gauge,
    /// Bytes that it may take; 0: there is no such tier.
    pub limit: Gauge,
    /// How many objects there are.
    pub objects: Gauge,
    /// How many had to go for others, so far.
    pub evictions: Gauge,
}

impl TierStats {
    /// Sets them all.
    pub fn set(&self, bytes: u64, limit: u64, objects: usize, evictions: u64) {
        let gauges = [&self.bytes, &self.limit, &self.objects, &self.evictions];
        for (gauge, value) in gauges.iter().zip([bytes, limit, objects as u64, evictions]) {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }
}

/// The open connections to a backend whose connections are limited. Kept by [`BackendStats::key`].
#[derive(Debug, Default)]
pub struct OpenConnections(pub Gauge);

/// What is counted of the disk tier of one cache zone, by every process that has the zone for itself.
#[derive(Debug, Default)]
pub struct DiskStats {
    /// Bytes in use: files in whole blocks of 4 KiB, and what fills under way have reserved.
    pub bytes: Gauge,
    /// Objects that are known.
    pub objects: Gauge,
    /// Objects removed to make room.
    pub evictions: Counter,
    /// Fills that were refused because no room could be made.
    pub refused: Counter,
    /// Writing or removing a file failed.
    pub write_errors: Counter,
    /// Reading a file failed.
    pub read_errors: Counter,
    /// Objects found again after a start.
    pub recovered: Counter,
    /// Files deleted because they were damaged, or belonged to nothing.
    pub discarded: Counter,
}

/// What is counted of downstream connections, for the whole process.
#[derive(Debug, Default)]
pub struct ConnectionStats {
    /// Connections accepted.
    pub accepted: Counter,
    /// Connections open now.
    pub open: Gauge,
    /// Of these, waiting for a request.
    pub idle: Gauge,
    /// Closed at once: too many in all.
    pub over_limit: Counter,
    /// Closed at once: too many from this client.
    pub over_client_limit: Counter,
    /// Requests refused before any callback of ours: the head cannot be read as HTTP (400).
    pub malformed: Counter,
    /// The head was too large (431).
    pub head_too_large: Counter,
    /// The head did not arrive in time (408).
    pub head_timeout: Counter,
    /// Keep-alive connections closed because no further request came in time.
    pub idle_timeout: Counter,
    /// `accept` failed, as when file descriptors run out.
    pub accept_errors: Counter,
}

/// What is counted of the process as a whole.
#[derive(Debug, Default)]
pub struct ProcessStats {
    /// Downstream connections.
    pub connections: ConnectionStats,
    /// Documents put in force after the first.
    pub reloads: Counter,
    /// Documents refused.
    pub reload_failures: Counter,
    /// When the document in force was taken, in seconds since 1970.
    pub reloaded_at: Gauge,
    /// Lines of access log dropped because the writer could not keep up.
    pub log_lines_dropped: Counter,
    /// Lines of access log that could not be written.
    pub log_write_errors: Counter,
    /// Requests that no route took (404), or that were refused before routing.
    pub unrouted: ByClass,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_falls_into_the_bucket_that_ends_at_or_above_it() {
        let histogram = Histogram::<Waiting>::default();
        for micros in [1, 500, 501, 1_000_000, 99_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let (buckets, sum) = histogram.read();
        assert_eq!((buckets[0], buckets[1], buckets[10], buckets[14]), (2, 1, 1, 1));
        assert_eq!(sum, 100_001_002_000);
    }

    #[test]
    fn statuses_are_counted_by_class() {
        let classes = ByClass::default();
        for status in [200, 204, 404, 0, 999] {
            classes.count(status);
        }
        assert_eq!(classes.read(), [2, 0, 2, 0, 1, 0]);
    }
}
