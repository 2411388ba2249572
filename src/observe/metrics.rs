//! Every metric, named and described in one table, and the scrape that reads them.
//!
//! Nothing is registered: the counters lie in `Keep`, and a scrape walks those that some snapshot still uses. What keeps
//! a scrape of 10,000 quiet routes small: a histogram appears with its first observation, and the zero counters of
//! quiet routes (and backends) are printed only while there are at most [`ZERO_SERIES`] of them.

use std::sync::Arc;

use prometheus::TextEncoder;
use prometheus::proto::{self, LabelPair, MetricFamily, MetricType};

use super::counters::{
    BOUNDS, BackendStats, ByClass, CircuitStats, ConcurrencyStats, Counter, DiscoveryStats, FilterStats, Finding,
    Gauge, Histogram, MirrorStats, OpenConnections, ProcessStats, QueueStats, RouteCacheStats, RouteStats, Scale,
    TierStats, UpstreamStats, Waiting, ZoneStats,
};
use super::process_usage::ProcessUsage;
use crate::keep::Keep;

/// Up to so many routes, and so many backends and upstreams, zero counters are printed from the start, so that the first
/// request counts as an increase. With more of them, each appears with its first request.
pub const ZERO_SERIES: usize = 256;

/// The media type of [`render`]'s text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the gateway says of itself.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The version of edgeway.
    pub version: &'a str,
    /// The version of Pingora.
    pub pingora: &'a str,
    /// When the process started, in seconds since 1970.
    pub started_at: f64,
}

/// One row of the table: a metric and where its numbers come from.
struct Row {
    name: &'static str,
    kind: MetricType,
    labels: &'static [&'static str],
    help: &'static str,
    source: Source,
}

enum Source {
    Process(fn(&Scrape<'_>, &mut Series)),
    Route(fn(&RouteStats, &mut Series)),
    Backend(fn(&BackendStats, &mut Series)),
    Filter(fn(&FilterStats, &mut Series)),
    Mirror(fn(&MirrorStats, &mut Series)),
    Upstream(fn(&UpstreamStats, &mut Series)),
    Queue(fn(&QueueStats, &mut Series)),
    Circuit(fn(&CircuitStats, &mut Series)),
    Concurrency(fn(&ConcurrencyStats, &mut Series)),
    Connections(fn(&OpenConnections, &mut Series)),
    Discovery(fn(&DiscoveryStats, &mut Series)),
    RouteCache(fn(&RouteCacheStats, &mut Series)),
    Zone(fn(&ZoneStats, &mut Series)),
}

/// Writes the table: `kind name {labels} "help" = source |what, series| …;`
macro_rules! metrics {
    ($($kind:ident $name:literal {$($label:literal),*} $help:literal = $source:ident |$what:ident, $series:ident| $read:expr;)+) => {
        const TABLE: &[Row] = &[$(Row {
            name: $name,
            kind: MetricType::$kind,
            labels: &[$($label),*],
            help: $help,
            source: Source::$source(|$what, $series| $read),
        },)+];
    };
}

metrics! {
    COUNTER "edgeway_requests_total" {"site", "route", "class"} "Finished requests, by class of the status; `none`: the client left before any response."
        = Route |route, series| series.classes(&route.requests);
    HISTOGRAM "edgeway_request_duration_seconds" {"site", "route"} "From the request's head to the end of the response."
        = Route |route, series| series.histogram(&route.duration);
    COUNTER "edgeway_request_bytes_total" {"site", "route"} "Bytes of request bodies."
        = Route |route, series| series.counter(&[], &route.received);
    COUNTER "edgeway_response_bytes_total" {"site", "route"} "Bytes of response bodies."
        = Route |route, series| series.counter(&[], &route.sent);
    COUNTER "edgeway_unrouted_requests_total" {"class"} "Requests that no route took, or that were refused before routing."
        = Process |scrape, series| series.classes(&scrape.process.unrouted);

    COUNTER "edgeway_filter_decisions_total" {"site", "route", "filter", "decision"} "What filters decided on requests: `continued`, or `replied`. Those of a whole site have no route."
        = Filter |filter, series| {
            series.counter(&["continued"], &filter.continued);
            series.counter(&["replied"], &filter.replied);
        };

    COUNTER "edgeway_mirrored_requests_total" {"site", "route", "result"} "Copies of requests: the mirror answered (`answered`), it did not (`failed`), too many were under way (`dropped`), or the body was too large (`too_large`); the last two were not made."
        = Mirror |mirror, series| {
            series.counter(&["answered"], &mirror.answered);
            series.counter(&["failed"], &mirror.failed);
            series.counter(&["dropped"], &mirror.dropped);
            series.counter(&["too_large"], &mirror.too_large);
        };

    COUNTER "edgeway_upstream_requests_total" {"upstream", "backend", "class"} "Responses of a backend, by class of the status; `none`: it gave none."
        = Backend |backend, series| series.classes(&backend.requests);
    HISTOGRAM "edgeway_upstream_connect_seconds" {"upstream", "backend"} "Connecting to a backend; reused connections are not counted."
        = Backend |backend, series| series.histogram(&backend.connect);
    HISTOGRAM "edgeway_upstream_first_byte_seconds" {"upstream", "backend"} "From the request to the head of the backend's response."
        = Backend |backend, series| series.histogram(&backend.first_byte);
    COUNTER "edgeway_upstream_connect_errors_total" {"upstream", "backend"} "Failed attempts to connect to a backend."
        = Backend |backend, series| series.counter(&[], &backend.connect_errors);
    COUNTER "edgeway_upstream_retries_total" {"upstream", "backend"} "Further tries of requests after one at this backend failed, those included that found a kept connection closed."
        = Backend |backend, series| series.counter(&[], &backend.retries);
    GAUGE "edgeway_upstream_active_requests" {"upstream", "backend"} "Requests under way at a backend."
        = Backend |backend, series| series.value(&[], backend.active.get() as f64);

    GAUGE "edgeway_upstream_backend_up" {"upstream", "backend"} "Whether a backend takes requests: 1 or 0."
        = Backend |backend, series| series.value(&[], f64::from(u8::from(backend.state.get() == 0)));
    GAUGE "edgeway_upstream_backend_state" {"upstream", "backend", "state"} "1 for the state of a backend: `up`, `checking` (not checked yet), `down` (checks fail), `ejected` (requests failed), `draining` (it finishes what it has); 0 for the others."
        = Backend |backend, series| {
            for (index, state) in (0..).zip(BackendStats::STATES) {
                series.value(&[state], f64::from(u8::from(backend.state.get() == index)));
            }
        };
    COUNTER "edgeway_upstream_health_checks_total" {"upstream", "backend", "result"} "Active health checks: `passed` or `failed`."
        = Backend |backend, series| {
            series.counter(&["passed"], &backend.checks_passed);
            series.counter(&["failed"], &backend.checks_failed);
        };
    COUNTER "edgeway_upstream_ejections_total" {"upstream", "backend"} "How often a backend was left out because requests failed there."
        = Backend |backend, series| series.counter(&[], &backend.ejections);

    COUNTER "edgeway_upstream_refused_total" {"upstream", "reason"} "Requests that no backend took: there is none (`no_backend`), none is well (`no_healthy_backend`), all were tried (`all_tried`), a limit is reached (`limit`), the queue is full (`queue_full`), the wait in it was too long (`queue_timeout`), or the circuit is open (`circuit_open`)."
        = Upstream |upstream, series| {
            for (reason, count) in UpstreamStats::REASONS.iter().zip(&upstream.refused) {
                series.counter(&[reason], count);
            }
        };
    COUNTER "edgeway_upstream_retry_budget_exhausted_total" {"upstream"} "Retries that were not made, for too many others were under way."
        = Upstream |upstream, series| series.counter(&[], &upstream.retries_refused);
    GAUGE "edgeway_upstream_queue_length" {"upstream"} "Requests that wait for a place at an upstream that has limits."
        = Queue |queue, series| series.value(&[], queue.length.get() as f64);
    GAUGE "edgeway_upstream_circuit_state" {"upstream"} "The circuit of an upstream that has one: 0: closed, requests go on; 1: open, they are refused until one is let through; 2: one was let through to see whether all is well."
        = Circuit |circuit, series| series.value(&[], circuit.state.get() as f64);
    COUNTER "edgeway_upstream_circuit_open_total" {"upstream"} "How often the circuit opened."
        = Circuit |circuit, series| series.counter(&[], &circuit.opened);
    GAUGE "edgeway_upstream_concurrency_limit" {"upstream"} "How many requests an upstream with an adaptive limit may have under way now."
        = Concurrency |concurrency, series| series.value(&[], concurrency.limit.get() as f64);
    GAUGE "edgeway_upstream_open_connections" {"upstream", "backend"} "Connections open to a backend whose connections are limited, idle ones among them."
        = Connections |connections, series| series.value(&[], connections.0.get() as f64);
    GAUGE "edgeway_upstream_backends" {"upstream"} "How many backends an upstream has whose servers may change."
        = Discovery |discovery, series| series.value(&[], discovery.backends.get() as f64);
    COUNTER "edgeway_upstream_discovery_updates_total" {"upstream", "result"} "Answers of who tells an upstream's servers, DNS for their names among them: the servers changed (`updated`), they did not (`unchanged`), there was no answer (`failed`), or a wrong one (`refused`); with the last two the old ones stay."
        = Discovery |discovery, series| {
            series.counter(&["updated"], &discovery.updated);
            series.counter(&["unchanged"], &discovery.unchanged);
            series.counter(&["failed"], &discovery.failed);
            series.counter(&["refused"], &discovery.refused);
        };
    GAUGE "edgeway_upstream_discovery_good_timestamp_seconds" {"upstream"} "When all that an upstream asks for its servers was last known to be good, in seconds since 1970."
        = Discovery |discovery, series| series.known(Some(discovery.good_at.get() as f64).filter(|at| *at > 0.0));

    COUNTER "edgeway_cache_responses_total" {"site", "route", "result"} "How a route with a cache answered: with what was stored (`hit`), and `stale`, or `revalidated` by the upstream; with what another request had asked for (`collapsed`); from the upstream, as nothing was stored (`miss`) or it was not looked for (`bypass`)."
        = RouteCache |cache, series| series.answers(cache);
    COUNTER "edgeway_cache_zone_responses_total" {"zone", "result"} "The same, of all routes of a zone."
        = Zone |zone, series| series.answers(&zone.answers);
    COUNTER "edgeway_cache_fills_total" {"zone", "result"} "Responses that were asked for because they were not stored: `stored`, `uncacheable`, or `failed` while they were being stored."
        = Zone |zone, series| {
            series.counter(&["stored"], &zone.stored);
            series.counter(&["uncacheable"], &zone.uncacheable);
            series.counter(&["failed"], &zone.fill_errors);
        };
    COUNTER "edgeway_cache_purges_total" {"zone"} "Purges that this process was told."
        = Zone |zone, series| series.counter(&[], &zone.purges);
    HISTOGRAM "edgeway_cache_lookup_seconds" {"zone"} "Looking for a stored response, in memory and on disk."
        = Zone |zone, series| series.histogram(&zone.lookup);
    GAUGE "edgeway_cache_bytes" {"zone", "tier"} "What the stored responses take in `memory` and on `disk`."
        = Zone |zone, series| series.tiers(zone, |tier| &tier.bytes);
    GAUGE "edgeway_cache_limit_bytes" {"zone", "tier"} "What they may take."
        = Zone |zone, series| series.tiers(zone, |tier| &tier.limit);
    GAUGE "edgeway_cache_objects" {"zone", "tier"} "How many responses are stored."
        = Zone |zone, series| series.tiers(zone, |tier| &tier.objects);
    COUNTER "edgeway_cache_evictions_total" {"zone", "tier"} "Stored responses that had to go for others."
        = Zone |zone, series| series.tiers(zone, |tier| &tier.evictions);

    COUNTER "edgeway_connections_total" {} "Connections accepted from clients."
        = Process |scrape, series| series.counter(&[], &scrape.process.connections.accepted);
    GAUGE "edgeway_connections_open" {} "Connections of clients open now."
        = Process |scrape, series| series.value(&[], scrape.process.connections.open.get() as f64);
    GAUGE "edgeway_connections_idle" {} "Of these, waiting for a request."
        = Process |scrape, series| series.value(&[], scrape.process.connections.idle.get() as f64);
    COUNTER "edgeway_connections_refused_total" {"reason"} "Connections closed at once: `limit`: too many in all; `client_limit`: too many from this client."
        = Process |scrape, series| {
            series.counter(&["limit"], &scrape.process.connections.over_limit);
            series.counter(&["client_limit"], &scrape.process.connections.over_client_limit);
        };
    COUNTER "edgeway_requests_refused_total" {"reason"} "Requests refused before routing: `malformed` (400), `head_timeout` (408), `head_too_large` (431)."
        = Process |scrape, series| {
            series.counter(&["malformed"], &scrape.process.connections.malformed);
            series.counter(&["head_timeout"], &scrape.process.connections.head_timeout);
            series.counter(&["head_too_large"], &scrape.process.connections.head_too_large);
        };
    COUNTER "edgeway_idle_timeouts_total" {} "Kept-alive connections closed because no further request came in time."
        = Process |scrape, series| series.counter(&[], &scrape.process.connections.idle_timeout);
    COUNTER "edgeway_accept_errors_total" {} "Failures to accept a connection, as when file descriptors run out."
        = Process |scrape, series| series.counter(&[], &scrape.process.connections.accept_errors);

    COUNTER "edgeway_reloads_total" {"result"} "Reloads of the configuration: `ok`: put in force; `failed`: refused, the old one stays."
        = Process |scrape, series| {
            series.counter(&["ok"], &scrape.process.reloads);
            series.counter(&["failed"], &scrape.process.reload_failures);
        };
    GAUGE "edgeway_config_reloaded_timestamp_seconds" {} "When the configuration in force was taken, in seconds since 1970."
        = Process |scrape, series| series.value(&[], scrape.process.reloaded_at.get() as f64);
    COUNTER "edgeway_access_log_dropped_total" {} "Lines of access log dropped because the writer could not keep up."
        = Process |scrape, series| series.counter(&[], &scrape.process.log_lines_dropped);
    COUNTER "edgeway_access_log_write_errors_total" {} "Lines of access log lost because they could not be written."
        = Process |scrape, series| series.counter(&[], &scrape.process.log_write_errors);
    GAUGE "edgeway_build_info" {"version", "pingora"} "Always 1; the labels tell the versions."
        = Process |scrape, series| series.value(&[scrape.about.version, scrape.about.pingora], 1.0);

    GAUGE "process_start_time_seconds" {} "When the process started, in seconds since 1970."
        = Process |scrape, series| series.value(&[], scrape.about.started_at);
    GAUGE "process_resident_memory_bytes" {} "Memory of the process that lies in RAM."
        = Process |scrape, series| series.known(scrape.usage.resident_bytes);
    GAUGE "process_open_fds" {} "Open file descriptors."
        = Process |scrape, series| series.known(scrape.usage.open_fds);
    COUNTER "process_cpu_seconds_total" {} "CPU time used, by the program and by the kernel on its behalf."
        = Process |scrape, series| series.known(scrape.usage.cpu_seconds);
}

/// What one scrape reads.
struct Scrape<'a> {
    process: &'a ProcessStats,
    about: About<'a>,
    usage: ProcessUsage,
}

/// All metrics in Prometheus' text format 0.0.4. It takes about 14 µs for each route and backend in use (140 ms for 10,000
/// of them), so call it where it may take its time.
pub fn render(process: &ProcessStats, keep: &Keep, about: About<'_>) -> String {
    let scrape = Scrape { process, about, usage: ProcessUsage::read() };
    let routes = shown(keep.all::<RouteStats>(), |route| route.requests.read() != [0; 6]);
    let backends = shown(keep.all::<BackendStats>(), is_touched);
    let filters = shown(keep.all::<FilterStats>(), |filter| filter.continued.get() + filter.replied.get() != 0);
    let upstreams = shown(keep.all::<UpstreamStats>(), |upstream| {
        upstream.retries_refused.get() + upstream.refused.iter().map(Counter::get).sum::<u64>() != 0
    });
    let caches = shown(keep.all::<RouteCacheStats>(), |cache| answers(cache).iter().any(|(_, count)| count.get() > 0));
    let mut text = String::with_capacity(16 * 1024);
    for row in TABLE {
        let mut series = Series { labels: row.labels, base: Vec::new(), metrics: Vec::new() };
        match row.source {
            Source::Process(read) => read(&scrape, &mut series),
            Source::Route(read) => series.each(&routes, read),
            Source::Backend(read) => series.each(&backends, read),
            Source::Filter(read) => series.each(&filters, read),
            Source::Mirror(read) => series.each(&keep.all(), read),
            Source::Upstream(read) => series.each(&upstreams, read),
            Source::Queue(read) => series.each(&keep.all(), read),
            Source::Circuit(read) => series.each(&keep.all(), read),
            Source::Concurrency(read) => series.each(&keep.all(), read),
            Source::Connections(read) => series.each(&keep.all(), read),
            Source::Discovery(read) => series.each(&keep.all(), read),
            Source::RouteCache(read) => series.each(&caches, read),
            Source::Zone(read) => series.each(&keep.all(), read),
        }
        // The encoder takes a family without series for a mistake.
        if !series.metrics.is_empty() {
            let mut family = MetricFamily::default();
            family.set_name(row.name.to_owned());
            family.set_help(row.help.to_owned());
            family.set_field_type(row.kind);
            family.set_metric(series.metrics);
            // One family at a time: with thousands of routes, all of them at once would be much memory for a moment.
            let encoded = TextEncoder::new().encode_utf8(&[family], &mut text);
            debug_assert!(encoded.is_ok(), "a named family with series goes into a String: {encoded:?}");
        }
    }
    text
}

/// The table as the body of `docs/metrics.md`.
pub fn markdown() -> String {
    let mut text = String::from("| Metric | Kind | Labels | What it says |\n| --- | --- | --- | --- |\n");
    for row in TABLE {
        let kind = match row.kind {
            MetricType::COUNTER => "counter",
            MetricType::HISTOGRAM => "histogram",
            _ => "gauge",
        };
        let labels: Vec<_> = row.labels.iter().map(|label| format!("`{label}`")).collect();
        text += &format!("| `{}` | {kind} | {} | {} |\n", row.name, labels.join(", "), row.help);
    }
    let bounds = |bounds: [u64; BOUNDS]| bounds.map(|bound| seconds(bound).to_string()).join(", ");
    text += &format!(
        "\nA class is the first digit of the status: {}.\nThe buckets of the histograms end at {} seconds and infinity; \
         those of `edgeway_cache_lookup_seconds` at {} seconds and infinity.\n\
         \nA histogram appears with its first observation. Routes, backends and upstreams that have not been used yet show \
         zero counters while there are at most {ZERO_SERIES} of them; with more, each appears with its first request, so \
         that ten thousand quiet routes do not weigh on every scrape. A used route makes about 27 lines.\n\
         What a document no longer names is no longer shown.\n",
        ByClass::CLASSES.map(|class| format!("`{class}`")).join(", "),
        bounds(Waiting::BOUNDS_NS),
        bounds(Finding::BOUNDS_NS),
    );
    text
}

/// The things to print: all of them while they are few, else those that were used.
fn shown<T>(mut all: Vec<(String, Arc<T>)>, touched: impl Fn(&T) -> bool) -> Vec<(String, Arc<T>)> {
    if all.len() > ZERO_SERIES {
        all.retain(|(_, stats)| touched(stats));
    }
    all
}

fn is_touched(backend: &BackendStats) -> bool {
    backend.requests.read() != [0; 6]
        || backend.active.get() != 0
        || backend.connect_errors.get() + backend.retries.get() + backend.ejections.get() != 0
        || backend.state.get() != 0
}

/// How responses of a cache came about, by label.
fn answers(cache: &RouteCacheStats) -> [(&'static str, &Counter); 6] {
    let RouteCacheStats { hit, miss, stale, revalidated, bypass, collapsed } = cache;
    [
        ("hit", hit),
        ("miss", miss),
        ("stale", stale),
        ("revalidated", revalidated),
        ("bypass", bypass),
        ("collapsed", collapsed),
    ]
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// The series of one metric.
struct Series {
    labels: &'static [&'static str],
    base: Vec<LabelPair>,
    metrics: Vec<proto::Metric>,
}

impl Series {
    /// The series of every thing, where a key holds the values of the first labels, a line each.
    fn each<T>(&mut self, things: &[(String, Arc<T>)], read: fn(&T, &mut Self)) {
        for (key, thing) in things {
            self.base = key.split('\n').zip(self.labels).map(|(value, name)| pair(name, value)).collect();
            read(thing, self);
        }
    }

    fn metric(&mut self, values: &[&str]) -> &mut proto::Metric {
        let mut labels = Vec::with_capacity(self.labels.len());
        labels.extend_from_slice(&self.base);
        let rest = &self.labels[labels.len()..];
        debug_assert_eq!(rest.len(), values.len(), "{:?}", self.labels);
        labels.extend(rest.iter().zip(values).map(|(name, value)| pair(name, value)));
        self.metrics.push(proto::Metric::from_label(labels));
        self.metrics.last_mut().expect("one was pushed just now")
    }

    /// One sample; a family's kind says whether the encoder reads it as a counter or as a gauge.
    fn value(&mut self, values: &[&str], value: f64) {
        let metric = self.metric(values);
        let (mut counter, mut gauge) = (proto::Counter::default(), proto::Gauge::default());
        counter.set_value(value);
        gauge.set_value(value);
        metric.set_counter(counter);
        metric.set_gauge(gauge);
    }

    fn counter(&mut self, values: &[&str], counter: &Counter) {
        self.value(values, counter.get() as f64);
    }

    fn known(&mut self, value: Option<f64>) {
        if let Some(value) = value {
            self.value(&[], value);
        }
    }

    fn classes(&mut self, classes: &ByClass) {
        for (class, count) in ByClass::CLASSES.iter().zip(classes.read()) {
            self.value(&[class], count as f64);
        }
    }

    fn answers(&mut self, cache: &RouteCacheStats) {
        for (result, count) in answers(cache) {
            self.counter(&[result], count);
        }
    }

    /// One number of each tier that there is.
    fn tiers(&mut self, zone: &ZoneStats, number: fn(&TierStats) -> &Gauge) {
        for (name, tier) in [("memory", &zone.memory), ("disk", &zone.disk)] {
            if tier.limit.get() > 0 {
                self.value(&[name], number(tier).get() as f64);
            }
        }
    }

    fn histogram<S: Scale>(&mut self, histogram: &Histogram<S>) {
        let (counts, sum_ns) = histogram.read();
        let total = counts.iter().sum();
        if total == 0 {
            return;
        }
        let mut cumulative = 0;
        let buckets = S::BOUNDS_NS.iter().zip(counts).map(|(bound, count)| {
            cumulative += count;
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(seconds(*bound));
            bucket.set_cumulative_count(cumulative);
            bucket
        });
        let mut read = proto::Histogram::default();
        read.set_bucket(buckets.collect());
        read.set_sample_count(total);
        read.set_sample_sum(seconds(sum_ns));
        self.metric(&[]).set_histogram(read);
    }
}

fn pair(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::{Duration, Instant};

    const ABOUT: About<'_> = About { version: "1.2.3", pingora: "0.9.1", started_at: 1_700_000_000.5 };

    /// Reads the text format; panics where it is broken. Samples by name and labels.
    fn parsed(text: &str) -> BTreeMap<String, f64> {
        let mut samples = BTreeMap::new();
        let mut families: BTreeMap<&str, &str> = BTreeMap::new();
        let mut family = "";
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                family = help.split_once(' ').expect("a help text").0;
                continue;
            }
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert_eq!(name, family, "help and type stand together");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(families.insert(name, kind).is_none(), "{name} comes twice");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
                continue;
            }
            let (series, value) = line.rsplit_once(' ').expect("a sample");
            let name = series.split('{').next().unwrap();
            let plain = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            let stem = if families[family] == "histogram" { plain } else { name };
            assert_eq!(stem, family, "{line}");
            labels(&series[name.len()..]);
            let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
            assert!(samples.insert(series.to_owned(), value).is_none(), "{series} comes twice");
        }
        samples
    }

    /// Checks `{name="value",…}`, where only `\\`, `\"` and `\n` are escapes.
    fn labels(text: &str) {
        if text.is_empty() {
            return;
        }
        let mut rest = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).expect(text);
        while !rest.is_empty() {
            let (name, after) = rest.split_once("=\"").expect(text);
            assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{text}");
            let mut escaped = false;
            let end = after
                .find(|c| {
                    let ends = c == '"' && !escaped;
                    assert!(!escaped || matches!(c, '\\' | '"' | 'n'), "{text}");
                    escaped = c == '\\' && !escaped;
                    ends
                })
                .expect(text);
            rest = after[end + 1..].trim_start_matches(',');
        }
    }

    #[test]
    fn a_scrape_holds_what_was_counted() {
        let (process, keep) = (ProcessStats::default(), Keep::default());
        let route = keep.get_or(&RouteStats::key("example.com", "a\"b\\c"), RouteStats::default);
        let backend = keep.get_or(&BackendStats::key("api", "10.0.0.1:80"), BackendStats::default);
        route.requests.count(200);
        route.requests.count(502);
        route.sent.add(10_000_000_000);
        route.duration.observe(Duration::from_millis(3));
        route.duration.observe(Duration::from_secs(100));
        backend.connect_errors.inc();
        backend.active.inc();
        process.connections.over_client_limit.inc();
        process.reloaded_at.set(1_750_000_000);
        let samples = parsed(&render(&process, &keep, ABOUT));
        let at = r#"site="example.com",route="a\"b\\c""#;
        for (series, value) in [
            (format!("edgeway_requests_total{{{at},class=\"2xx\"}}"), 1.0),
            (format!("edgeway_requests_total{{{at},class=\"5xx\"}}"), 1.0),
            (format!("edgeway_requests_total{{{at},class=\"none\"}}"), 0.0),
            (format!("edgeway_response_bytes_total{{{at}}}"), 1e10),
            (format!("edgeway_request_duration_seconds_bucket{{{at},le=\"0.0025\"}}"), 0.0),
            (format!("edgeway_request_duration_seconds_bucket{{{at},le=\"0.005\"}}"), 1.0),
            (format!("edgeway_request_duration_seconds_bucket{{{at},le=\"60\"}}"), 1.0),
            (format!("edgeway_request_duration_seconds_bucket{{{at},le=\"+Inf\"}}"), 2.0),
            (format!("edgeway_request_duration_seconds_sum{{{at}}}"), 100.003),
            (format!("edgeway_request_duration_seconds_count{{{at}}}"), 2.0),
            (r#"edgeway_upstream_connect_errors_total{upstream="api",backend="10.0.0.1:80"}"#.into(), 1.0),
            (r#"edgeway_upstream_active_requests{upstream="api",backend="10.0.0.1:80"}"#.into(), 1.0),
            (r#"edgeway_connections_refused_total{reason="client_limit"}"#.into(), 1.0),
            (r#"edgeway_requests_refused_total{reason="malformed"}"#.into(), 0.0),
            (r#"edgeway_reloads_total{result="ok"}"#.into(), 0.0),
            ("edgeway_config_reloaded_timestamp_seconds".into(), 1.75e9),
            (r#"edgeway_build_info{version="1.2.3",pingora="0.9.1"}"#.into(), 1.0),
            ("process_start_time_seconds".into(), 1_700_000_000.5),
        ] {
            assert_eq!(samples.get(&series), Some(&value), "{series}");
        }
        assert!(samples["process_resident_memory_bytes"] > 1e6);
        assert!(samples["process_open_fds"] >= 3.0);
    }

    #[test]
    fn a_scrape_tells_of_the_caches() {
        let (process, keep) = (ProcessStats::default(), Keep::default());
        let route = keep.get_or(&RouteStats::key("example.com", "a"), RouteCacheStats::default);
        let zone = keep.get_or("main", ZoneStats::default);
        route.hit.inc();
        zone.answers.collapsed.inc();
        zone.memory.set(1_000, 2_000, 3, 4);
        zone.lookup.observe(Duration::from_nanos(300));
        let samples = parsed(&render(&process, &keep, ABOUT));
        for (series, value) in [
            (r#"edgeway_cache_responses_total{site="example.com",route="a",result="hit"}"#, Some(1.0)),
            (r#"edgeway_cache_responses_total{site="example.com",route="a",result="miss"}"#, Some(0.0)),
            (r#"edgeway_cache_zone_responses_total{zone="main",result="collapsed"}"#, Some(1.0)),
            (r#"edgeway_cache_bytes{zone="main",tier="memory"}"#, Some(1_000.0)),
            (r#"edgeway_cache_evictions_total{zone="main",tier="memory"}"#, Some(4.0)),
            (r#"edgeway_cache_bytes{zone="main",tier="disk"}"#, None),
            (r#"edgeway_cache_lookup_seconds_bucket{zone="main",le="0.00000025"}"#, Some(0.0)),
            (r#"edgeway_cache_lookup_seconds_bucket{zone="main",le="0.0000005"}"#, Some(1.0)),
            (r#"edgeway_cache_lookup_seconds_sum{zone="main"}"#, Some(3e-7)),
        ] {
            assert_eq!(samples.get(series), value.as_ref(), "{series}");
        }
    }

    #[test]
    fn quiet_routes_show_zeros_while_they_are_few() {
        for (count, quiet_shown) in [(ZERO_SERIES, true), (10_000, false)] {
            let (process, keep) = (ProcessStats::default(), Keep::default());
            let routes: Vec<_> = (0..count)
                .map(|n| keep.get_or(&RouteStats::key("example.com", &format!("r{n}")), RouteStats::default))
                .collect();
            routes[7].requests.count(200);
            let began = Instant::now();
            let text = render(&process, &keep, ABOUT);
            println!("{count} routes, one used: {} bytes in {:?}", text.len(), began.elapsed());
            let samples = parsed(&text);
            let series =
                |route| format!("edgeway_requests_total{{site=\"example.com\",route=\"{route}\",class=\"2xx\"}}");
            assert_eq!(samples[&series("r7")], 1.0);
            assert_eq!(samples.contains_key(&series("r8")), quiet_shown);
            assert!(text.len() < 256 * 1024, "{}", text.len());
        }
    }

    #[test]
    fn every_metric_is_named_once_and_documented() {
        let names: BTreeSet<_> = TABLE.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), TABLE.len());
        let text = markdown();
        for row in TABLE {
            assert!(text.contains(&format!("| `{}` |", row.name)), "{}", row.name);
            assert!(!row.help.contains('|') && !row.help.is_empty(), "{}", row.name);
        }
    }
}
