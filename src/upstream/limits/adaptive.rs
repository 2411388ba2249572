//! `adaptive`: how many requests an upstream takes at once, learned from how fast it answers.
//!
//! As long as answers come about as fast as the fastest lately, the limit grows by about its square root; as they get
//! slower than is tolerated, it shrinks in proportion. What counts is the time to the head of an answer, without the wait
//! in the queue. Samples are summed up without a lock; ten times a second at most, one request works out the new limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diag::Scope;
use crate::observe::ConcurrencyStats;
use crate::upstream::clock::Micros;

/// A limit of requests at once that follows how fast an upstream answers. It begins at 20.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Adaptive")]
pub struct Config {
    /// It never falls below this. Default: 4.
    pub min: u32,
    /// It never rises above this. Default: 1000.
    pub max: u32,
    /// How many times slower than the fastest lately answers may be before it falls, from 1 to 10. Default: 1.5.
    pub tolerance: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { min: 4, max: 1000, tolerance: 1.5 }
    }
}

impl Config {
    /// Reports what cannot work.
    pub fn check(&self, at: &Scope<'_>) {
        if self.min == 0 {
            at.key("min").error_hint("a limit of 0 lets no request through", "write 1 or more");
        }
        if self.max < self.min {
            at.key("max").error_hint(
                format!("`max` is {}, less than `min`, which is {}", self.max, self.min),
                "write a `max` that is above `min`",
            );
        }
        if !(1.0..=10.0).contains(&self.tolerance) {
            at.key("tolerance").error_hint(
                format!("a tolerance of {} is not from 1 to 10", self.tolerance),
                "write how many times slower answers may become, as in `1.5`",
            );
        }
    }
}

/// At most so often a new limit is worked out …
const PERIOD: Micros = 100_000;
/// … and from no fewer samples than these.
const SAMPLES: u32 = 10;
/// Where the limit begins, within its bounds.
const BEGIN: u32 = 20;
/// How far the limit moves towards what one period suggests.
const SMOOTHING: f64 = 0.2;
/// An upstream that has become slower for good is as fast as it can be after about this long.
const FORGET: f64 = 600_000_000.0;

/// The limit of one upstream, and what it is learned from. Kept over reloads. Alone on its cache lines.
#[derive(Debug)]
#[repr(align(128))]
pub struct Adaptive {
    limit: AtomicU32,
    samples: AtomicU32,
    sum_us: AtomicU64,
    /// The most requests at once in this period.
    most: AtomicU32,
    period_ends: AtomicU64,
    /// When the limit was worked out last.
    learned_at: AtomicU64,
    /// The bits of the two numbers of [`Learned`]. Only whoever ended the period writes them.
    exact: AtomicU64,
    fastest: AtomicU64,
    stats: Arc<ConcurrencyStats>,
}

/// What is learned: fractions of both count.
#[derive(Clone, Copy, Debug)]
struct Learned {
    limit: f64,
    /// How long the fastest answers take, in microseconds; 0: not known yet.
    fastest: f64,
}

impl Adaptive {
    /// A limit of which nothing is learned yet, and that tells itself to `stats`.
    pub fn new(config: &Config, stats: Arc<ConcurrencyStats>) -> Self {
        let begin = BEGIN.clamp(config.min, config.max.max(config.min));
        stats.limit.set(begin.into());
        Self {
            limit: AtomicU32::new(begin),
            samples: AtomicU32::new(0),
            sum_us: AtomicU64::new(0),
            most: AtomicU32::new(0),
            period_ends: AtomicU64::new(0),
            learned_at: AtomicU64::new(0),
            exact: AtomicU64::new(f64::from(begin).to_bits()),
            fastest: AtomicU64::new(0.0_f64.to_bits()),
            stats,
        }
    }

    /// How many requests may be under way at once.
    pub fn limit(&self, config: &Config) -> u32 {
        // The bounds may be those of a newer document than the limit.
        self.limit.load(Relaxed).clamp(config.min, config.max.max(config.min))
    }

    /// An answer came after `latency`, while `in_flight` requests were under way.
    pub fn observe(&self, latency: Micros, in_flight: u32, config: &Config, now: Micros) {
        self.sum_us.fetch_add(latency, Relaxed);
        self.most.fetch_max(in_flight, Relaxed);
        let samples = self.samples.fetch_add(1, Relaxed) + 1;
        let ends = self.period_ends.load(Relaxed);
        if samples < SAMPLES || now < ends {
            return;
        }
        // One of those who see the end works it out, the others go on.
        if self.period_ends.compare_exchange(ends, now + PERIOD, Relaxed, Relaxed).is_ok() {
            self.learn(config, now);
        }
    }

    /// A request failed after `elapsed`: that weighs as an answer much slower than tolerated, however fast it failed.
    pub fn observe_failure(&self, elapsed: Micros, in_flight: u32, config: &Config, now: Micros) {
        let fastest = f64::from_bits(self.fastest.load(Relaxed));
        let slow = (fastest * config.tolerance * 2.0) as Micros;
        self.observe(elapsed.max(slow), in_flight, config, now);
    }

    fn learn(&self, config: &Config, now: Micros) {
        // A sample that comes between the two belongs to either period: it moves their means by next to nothing.
        let samples = self.samples.swap(0, Relaxed);
        let sum = self.sum_us.swap(0, Relaxed);
        let most = self.most.swap(0, Relaxed);
        let before = self.learned_at.swap(now, Relaxed);
        if samples == 0 {
            return;
        }
        let learned = Learned {
            limit: f64::from_bits(self.exact.load(Relaxed)),
            fastest: f64::from_bits(self.fastest.load(Relaxed)),
        };
        let mean = sum as f64 / f64::from(samples);
        let learned = learned.then(mean, most, now.saturating_sub(before), config);
        self.exact.store(learned.limit.to_bits(), Relaxed);
        self.fastest.store(learned.fastest.to_bits(), Relaxed);
        let limit = learned.limit.round() as u32;
        self.limit.store(limit, Relaxed);
        self.stats.limit.set(limit.into());
    }
}

impl Learned {
    /// What is learned from a period of `span` with a mean latency of `mean` and at most `most` requests at once.
    fn then(self, mean: f64, most: u32, span: Micros, config: &Config) -> Self {
        let mean = mean.max(1.0);
        // Down quickly, up slowly: an upstream is as fast as it is when nothing makes it slow.
        let follow = if mean < self.fastest { SMOOTHING } else { (span.min(PERIOD * 10) as f64 / FORGET).min(1.0) };
        let fastest = if self.fastest == 0.0 { mean } else { self.fastest + (mean - self.fastest) * follow };
        let gradient = (config.tolerance * fastest / mean).clamp(0.5, 1.0);
        let mut wanted = self.limit * gradient + self.limit.sqrt();
        if f64::from(most) < self.limit / 2.0 {
            // A limit that nobody comes near is no longer a finding when it grows.
            wanted = wanted.min(self.limit);
        }
        let limit = self.limit + (wanted - self.limit) * SMOOTHING;
        Self { limit: limit.clamp(config.min.into(), config.max.max(config.min).into()), fastest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Issues;

    fn adaptive(config: &Config) -> Adaptive {
        Adaptive::new(config, Arc::default())
    }

    /// An upstream that does `capacity` requests at once in `fast` each; more than that wait for one another.
    fn latency(in_flight: u32, capacity: u32, fast: Micros) -> Micros {
        fast * Micros::from(in_flight.max(capacity)) / Micros::from(capacity)
    }

    /// Lets `seconds` go by with as many requests at once as the limit and `demand` let be.
    fn run(
        adaptive: &Adaptive,
        config: &Config,
        now: &mut Micros,
        seconds: u64,
        demand: u32,
        answer: impl Fn(u32) -> Micros,
    ) -> u32 {
        for _ in 0..seconds * 10 {
            *now += PERIOD;
            let in_flight = adaptive.limit(config).min(demand);
            for _ in 0..SAMPLES {
                adaptive.observe(answer(in_flight), in_flight, config, *now);
            }
        }
        adaptive.limit(config)
    }

    #[test]
    fn it_grows_while_answers_stay_fast_up_to_its_bound() {
        let (config, mut now) = (Config { max: 200, ..Config::default() }, 0);
        let adaptive = adaptive(&config);
        assert_eq!(adaptive.limit(&config), 20);
        assert_eq!(run(&adaptive, &config, &mut now, 60, 1000, |_| 5_000), 200);
        assert_eq!(adaptive.stats.limit.get(), 200);
    }

    #[test]
    fn it_settles_near_what_the_upstream_can_do_at_once() {
        let (config, mut now) = (Config::default(), 0);
        let adaptive = adaptive(&config);
        let limit = run(&adaptive, &config, &mut now, 120, 1000, |n| latency(n, 100, 5_000));
        assert!((120..=250).contains(&limit), "{limit}");
        // Half of it dies.
        let limit = run(&adaptive, &config, &mut now, 30, 1000, |n| latency(n, 50, 5_000));
        assert!((55..=130).contains(&limit), "{limit}");
        // And comes back.
        let limit = run(&adaptive, &config, &mut now, 60, 1000, |n| latency(n, 100, 5_000));
        assert!((120..=250).contains(&limit), "{limit}");
    }

    #[test]
    fn it_falls_within_seconds_when_the_upstream_becomes_slow() {
        let (config, mut now) = (Config::default(), 0);
        let adaptive = adaptive(&config);
        run(&adaptive, &config, &mut now, 60, 1000, |_| 5_000);
        let high = adaptive.limit(&config);
        let low = run(&adaptive, &config, &mut now, 5, 1000, |_| 100_000);
        assert!(high > 500 && low < 60, "{high} then {low}");
        assert!(low >= config.min);
    }

    #[test]
    fn failures_weigh_as_slow_answers_however_fast_they_come() {
        let (config, mut now) = (Config::default(), 0);
        let adaptive = adaptive(&config);
        run(&adaptive, &config, &mut now, 30, 1000, |_| 5_000);
        let high = adaptive.limit(&config);
        for _ in 0..50 {
            now += PERIOD;
            for _ in 0..SAMPLES {
                adaptive.observe_failure(10, high, &config, now);
            }
        }
        assert!(adaptive.limit(&config) < high / 4, "{high} then {}", adaptive.limit(&config));
    }

    #[test]
    fn what_nobody_uses_does_not_grow() {
        let (config, mut now) = (Config::default(), 0);
        let adaptive = adaptive(&config);
        assert_eq!(run(&adaptive, &config, &mut now, 60, 5, |_| 5_000), 20);
    }

    #[test]
    fn a_lasting_change_is_learned_in_the_end() {
        let (config, mut now) = (Config::default(), 0);
        let adaptive = adaptive(&config);
        run(&adaptive, &config, &mut now, 10, 1000, |_| 5_000);
        let throttled = run(&adaptive, &config, &mut now, 30, 1000, |_| 15_000);
        let learned = run(&adaptive, &config, &mut now, 1800, 1000, |_| 15_000);
        assert!(throttled < 20 && learned == 1000, "{throttled} then {learned}");
    }

    #[test]
    fn the_bounds_of_a_new_document_hold_at_once() {
        let adaptive = adaptive(&Config::default());
        assert_eq!(adaptive.limit(&Config { min: 50, ..Config::default() }), 50);
        assert_eq!(adaptive.limit(&Config { max: 10, ..Config::default() }), 10);
    }

    #[test]
    fn threads_that_observe_at_once_end_each_period_once() {
        let config = Config::default();
        let adaptive = adaptive(&config);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for step in 0..20_000 {
                        adaptive.observe(5_000, 1000, &config, step * 1_000);
                    }
                });
            }
        });
        let limit = adaptive.limit(&config);
        // 20 seconds of growth at the speed of one.
        let alone = Adaptive::new(&config, Arc::default());
        let expected = run(&alone, &config, &mut 0, 20, 1000, |_| 5_000);
        assert!(limit > 20 && limit <= expected + expected / 10, "{limit}, alone {expected}");
    }

    #[test]
    fn what_could_never_work_is_an_error_at_its_place() {
        let config: Config = serde_yaml::from_str("{ min: 0, max: 0, tolerance: 0.5 }").unwrap();
        let issues = Issues::default();
        config.check(&issues.root());
        Config { min: 5, max: 4, ..Config::default() }.check(&issues.root());
        Config { tolerance: f64::NAN, ..Config::default() }.check(&issues.root());
        Config::default().check(&issues.root());
        let paths: Vec<_> = issues.into_vec().iter().map(|issue| issue.path.to_string()).collect();
        assert_eq!(paths, ["min", "tolerance", "max", "tolerance"]);
    }
}
