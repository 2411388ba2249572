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

use super::draw::Draw;
use super::policy::{Ask, Members, Policy};
use crate::diag::Scope;
use crate::units::HumanDuration;

/// The most turns in a period, unless there are more backends. Weights that need more (after division by what they
/// have in common) are rounded to parts of this many, and a share below one part is raised to one.
const MAX_PERIOD: u64 = 65_536;

/// Options of round robin.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "RoundRobin")]
pub struct Config {
    /// How long the share of a server that came back grows until it is full. Default: `0`, full at once.
    pub slow_start: HumanDuration,
}

impl Config {
    /// Nothing can be wrong.
    pub fn check(self, _: &Scope<'_>) {}

    /// Lays out the turns. The position is kept whatever happens to members and weights, or every change of health would
    /// begin a new period; at first it is anywhere, so that a fleet of gateways does not begin with the same backend.
    pub fn build(self, members: &Members<'_>) -> RoundRobin {
        let weights: Vec<u32> = members.members.iter().map(|member| member.weight).collect();
        RoundRobin {
            turns: turns(&parts(&weights)),
            draw: Draw::new(weights),
            position: members.keep.get_or(members.upstream, || Position(AtomicUsize::new(fastrand::u32(..) as usize))),
        }
    }

    /// How long a backend that comes back takes to get its full share.
    pub fn slow_start(self) -> Duration {
        self.slow_start.0
    }
}

/// Backends in turn.
pub struct RoundRobin {
    turns: Box<[u32]>,
    draw: Draw,
    position: Arc<Position>,
}

/// Alone on its cache lines (processors fetch them in pairs), for every request writes it. One for all threads, so
/// that their turns together are even: two busy cores lose 3 to 6 ns a pick to it, which no position of their own repays.
#[repr(align(128))]
struct Position(AtomicUsize);

impl Policy for RoundRobin {
    fn pick(&self, ask: &Ask<'_>) -> Option<usize> {
        if !ask.passed.is_empty() {
            return self.draw.one(ask.passed);
        }
        let position = self.position.0.fetch_add(1, Relaxed).checked_rem(self.turns.len())?;
        Some(self.turns[position] as usize)
    }

    fn why(&self, picked: usize, ask: &Ask<'_>) -> String {
        let how = if ask.passed.is_empty() { "its turn" } else { "drawn among the others" };
        format!("{how}, with a weight of {} in {}", self.draw.weight(picked), self.draw.sum())
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

    use super::super::policy_tests::{Request, members};
    use super::*;
    use crate::keep::Keep;

    fn robin(weights: &[u32], keep: &Keep) -> RoundRobin {
        Config::default().build(&Members { upstream: "api", members: &members(weights), keep })
    }

    fn pick(robin: &RoundRobin) -> usize {
        Request::default().pick(robin).unwrap()
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
        let robin = robin(&[5, 1, 1], &Keep::default());
        for begin in 0..7 {
            robin.position.0.store(begin, Relaxed);
            let mut counts = [0; 3];
            for _ in 0..7 {
                counts[pick(&robin)] += 1;
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
        let weights = [7, 2, 1, 10];
        let robin = robin(&weights, &Keep::default());
        let mut counts = [0_u32; 4];
        std::thread::scope(|scope| {
            let picks = || {
                let mut counts = [0_u32; 4];
                for _ in 0..25_000 {
                    counts[pick(&robin)] += 1;
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
    fn the_turns_go_on_where_they_were_when_members_come_and_go() {
        let keep = Keep::default();
        let three = robin(&[1, 1, 1], &keep);
        three.position.0.store(7, Relaxed);
        assert_eq!(pick(&three), 1);
        let two = robin(&[1, 1], &keep);
        assert_eq!([pick(&two), pick(&three), pick(&two)], [0, 0, 0]);
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
