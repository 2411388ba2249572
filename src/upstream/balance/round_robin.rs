//! `round_robin`: in turn, each as often as its weight says, spread as evenly as can be; without a lock.
//!
//! One whole period of turns is laid out when the document is compiled; a pick is one step of an atomic position. Over
//! any stretch of turns, a backend's count is less than one away from its exact share. A request that is tried again
//! draws by weight among the backends not tried yet, and takes no turn: stepping on would always load the same
//! neighbour of a backend that is down.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::policy::{Ask, Members, Passed, Policy};
use crate::diag::Scope;

/// The most turns in a period, unless there are more backends. Weights that need more (after division by what they
/// have in common) are rounded to parts of this many, and a share below one part is raised to one.
const MAX_PERIOD: u64 = 65_536;

/// Options of round robin: none.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RoundRobin")]
pub struct Config {}

impl Config {
    /// Lays out the turns. The position is kept over reloads and whenever the members change; the first begins anywhere,
    /// so that a fleet of gateways does not begin with the same backend.
    pub fn build(self, members: &Members<'_>) -> RoundRobin {
        let weights: Box<[u32]> = members.members.iter().map(|member| member.weight).collect();
        let turns = turns(&parts(&weights));
        let position =
            members.keep.get_or(members.upstream, || Position(AtomicUsize::new(fastrand::usize(..turns.len().max(1)))));
        RoundRobin { turns, weights, position }
    }

    /// Checks the options.
    pub fn check(self, _: &Scope<'_>) {}

    /// How long a backend that comes back takes to get its full share.
    pub fn slow_start(self) -> Duration {
        Duration::ZERO
    }
}

/// Backends in turn.
pub struct RoundRobin {
    turns: Box<[u32]>,
    weights: Box<[u32]>,
    position: Arc<Position>,
}

/// Alone on its cache lines (processors fetch them in pairs), for every request writes it. One for all threads, so
/// that their turns together are even: two busy cores lose 3 to 6 ns a pick to it, which no position of their own repays.
#[repr(align(128))]
struct Position(AtomicUsize);

impl Policy for RoundRobin {
    fn pick(&self, ask: &Ask<'_>) -> Option<usize> {
        if !ask.passed.is_empty() {
            return self.draw(ask.passed);
        }
        let position = self.position.0.fetch_add(1, Relaxed).checked_rem(self.turns.len())?;
        Some(self.turns[position] as usize)
    }

    fn why(&self, _: usize, _: &Ask<'_>) -> String {
        "by turns".to_owned()
    }
}

impl RoundRobin {
    /// One of those not tried yet, by weight.
    fn draw(&self, tried: &Passed) -> Option<usize> {
        let left = || self.weights.iter().enumerate().filter(|(backend, _)| !tried.contains(*backend));
        let sum: u64 = left().map(|(_, &weight)| u64::from(weight)).sum();
        if sum == 0 {
            return None;
        }
        let mut rest = fastrand::u64(..sum);
        for (backend, &weight) in left() {
            match rest.checked_sub(u64::from(weight)) {
                None => return Some(backend),
                Some(less) => rest = less,
            }
        }
        None
    }
}

/// How many turns of a period each backend gets: its weight, divided by what all have in common, or scaled down until
/// the period is short enough.
fn parts(weights: &[u32]) -> Vec<u64> {
    let common = weights.iter().fold(0, |common, &weight| gcd(common, weight)).max(1);
    let reduced = weights.iter().map(|&weight| u64::from(weight / common));
    let sum: u64 = reduced.clone().sum();
    if sum <= MAX_PERIOD.max(weights.len() as u64) {
        return reduced.collect();
    }
    // At most 2^32 * 2^16, which leaves room for adding half of the sum.
    let scaled = |weight: u64| if weight == 0 { 0 } else { ((weight * MAX_PERIOD + sum / 2) / sum).max(1) };
    reduced.map(scaled).collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// One period of turns, as even as can be.
///
/// With `sum` turns in all, the `n`-th turn of a backend with `part` turns belongs into the window that begins at
/// `n * sum / part` and ends where its next window begins. At each turn, among those whose window has begun, the one
/// whose window ends first goes. Costs `sum * log(backends)`.
fn turns(parts: &[u64]) -> Box<[u32]> {
    let sum: u64 = parts.iter().sum();
    // A backend waits for its window to begin, by the turn at which it does, or is ready, by the window's exact end.
    let mut waiting = BinaryHeap::new();
    let mut ready = BinaryHeap::new();
    for (backend, &part) in parts.iter().enumerate().filter(|(_, part)| **part > 0) {
        waiting.push(Reverse((0, backend, Window { taken: 0, part })));
    }
    (0..sum)
        .filter_map(|turn| {
            while let Some(&Reverse((begin, backend, window))) = waiting.peek() {
                if begin > turn {
                    break;
                }
                waiting.pop();
                ready.push(Reverse((window, backend)));
            }
            // There always is one: the windows begun by now are more than the turns gone by.
            let Reverse((mut window, backend)) = ready.pop()?;
            window.taken += 1;
            if window.taken < window.part {
                waiting.push(Reverse(((window.taken * sum).div_ceil(window.part), backend, window)));
            }
            u32::try_from(backend).ok()
        })
        .collect()
}

/// The window of a backend's next turn, ordered by its end.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Window {
    taken: u64,
    part: u64,
}

impl Ord for Window {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // (taken + 1) / part, compared without a fraction.
        ((self.taken + 1) * other.part).cmp(&((other.taken + 1) * self.part))
    }
}

impl PartialOrd for Window {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn robin(weights: &[u32]) -> RoundRobin {
        RoundRobin {
            turns: turns(&parts(weights)),
            weights: weights.into(),
            position: Arc::new(Position(AtomicUsize::new(0))),
        }
    }

    fn pick(robin: &RoundRobin, passed: &Passed) -> Option<usize> {
        let request = pingora::http::RequestHeader::build("GET", b"/", None).unwrap();
        let exchange = crate::exchange::Exchange::new();
        let facts = crate::exchange::Facts {
            request: &request,
            exchange: &exchange,
            response: None,
            route: "",
            upstream: "",
            backend: "",
        };
        robin.pick(&Ask { facts: &facts, now: 0, passed })
    }

    fn letters(weights: &[u32]) -> String {
        turns(&parts(weights)).iter().map(|&backend| char::from(b'a' + backend as u8)).collect()
    }

    #[test]
    fn turns_are_spread_as_evenly_as_can_be() {
        for (weights, order) in [
            (&[1, 1, 1][..], "abc"),
            (&[5, 1, 1], "abaacaa"),
            (&[3, 1], "abaa"),
            (&[2, 1], "aba"),
            (&[30, 20, 10], "ababac"),
            (&[7], "a"),
            (&[0, 2, 2], "bc"),
            (&[0, 0], ""),
            (&[], ""),
        ] {
            assert_eq!(letters(weights), order, "{weights:?}");
        }
    }

    #[test]
    fn over_one_period_each_gets_exactly_its_weight_wherever_it_begins() {
        let robin = robin(&[5, 1, 1]);
        for begin in 0..7 {
            robin.position.0.store(begin, Relaxed);
            let mut counts = [0; 3];
            for _ in 0..7 {
                counts[pick(&robin, &Passed::new()).unwrap()] += 1;
            }
            assert_eq!(counts, [5, 1, 1]);
        }
    }

    proptest! {
        #[test]
        fn at_no_time_is_a_count_a_whole_turn_away_from_its_share(
            weights in prop::collection::vec(0_u32..40, 1..12)
        ) {
            let parts = parts(&weights);
            let sum: u64 = parts.iter().sum();
            let turns = turns(&parts);
            prop_assert_eq!(turns.len() as u64, sum);
            let mut counts = vec![0_u64; parts.len()];
            for (turn, &backend) in turns.iter().enumerate() {
                counts[backend as usize] += 1;
                for (&count, &part) in counts.iter().zip(&parts) {
                    let due = (turn as u64 + 1) * part;
                    prop_assert!((count * sum).abs_diff(due) < sum, "{:?} at turn {}", turns, turn);
                }
            }
            prop_assert_eq!(counts, parts);
        }
    }

    #[test]
    fn threads_together_keep_to_the_weights() {
        let weights = [7, 2, 1, 0, 10];
        let robin = robin(&weights);
        let mut counts = [0_u32; 5];
        std::thread::scope(|scope| {
            let picks = || {
                let mut counts = [0_u32; 5];
                for _ in 0..25_000 {
                    counts[pick(&robin, &Passed::new()).unwrap()] += 1;
                }
                counts
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(picks)).collect();
            for thread in threads {
                for (sum, count) in counts.iter_mut().zip(thread.join().unwrap()) {
                    *sum += count;
                }
            }
        });
        // Exact, and so within 2 %: 100,000 picks are a whole number of periods.
        assert_eq!(counts, weights.map(|weight| weight * 5000));
    }

    #[test]
    fn no_backend_is_tried_twice_while_another_is_left() {
        let robin = robin(&[5, 1, 0, 1]);
        for _ in 0..200 {
            let mut tried = Passed::new();
            while let Some(backend) = pick(&robin, &tried) {
                assert!(!tried.contains(backend) && backend != 2);
                tried.insert(backend);
            }
            assert_eq!(tried.len(), 3);
        }
    }

    #[test]
    fn the_load_of_a_backend_that_is_down_is_shared_by_weight() {
        fastrand::seed(7);
        let robin = robin(&[1, 1, 3, 1]);
        let mut tried = Passed::new();
        tried.insert(0);
        let mut counts = [0_u32; 4];
        for _ in 0..50_000 {
            counts[pick(&robin, &tried).unwrap()] += 1;
        }
        for (count, share) in counts.into_iter().zip([0, 10_000, 30_000, 10_000]) {
            assert!(count.abs_diff(share) <= share / 50, "{counts:?}");
        }
    }

    #[test]
    fn a_period_has_a_limit_and_nobody_is_rounded_away() {
        for (weights, expected) in [
            (&[1, 1_000_003][..], vec![1, 65_536]),
            (&[u32::MAX, u32::MAX - 1, 0], vec![32_768, 32_768, 0]),
            (&[3_000_000, 1_000_001], vec![49_152, 16_384]),
        ] {
            assert_eq!(parts(weights), expected, "{weights:?}");
        }
        let many = turns(&parts(&vec![1; 100_000]));
        assert_eq!(many.len(), 100_000);
        assert_eq!(turns(&parts(&[1, 1_000_003])).len(), 65_537);
    }
}
