//! How many requests failed: in a row ([`Row`]), and in a window of time ([`Window`]). Atomics only, for requests note
//! them as they end.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::upstream::clock::Micros;

/// Failures in a row: their number in the low bits, the millisecond of the first of them in the others.
#[derive(Debug, Default)]
pub(super) struct Row(AtomicU64);

const COUNT_BITS: u32 = 20;
/// More are not told apart.
pub(super) const MOST_IN_A_ROW: u32 = (1 << COUNT_BITS) - 1;

impl Row {
    /// A request went well. Costs one look when none failed before.
    #[inline]
    pub(super) fn clear(&self) {
        if self.0.load(Relaxed) != 0 {
            self.0.store(0, Relaxed);
        }
    }

    /// A request failed; tells how many did in a row. One that comes more than `within` after the first of a row begins
    /// a new one.
    pub(super) fn note(&self, within: Micros, now: Micros) -> u32 {
        let (now, within) = (now / 1000, within.div_ceil(1000));
        let next = |row: u64| {
            let (began, count) = (row >> COUNT_BITS, row & u64::from(MOST_IN_A_ROW));
            match count {
                1.. if now.saturating_sub(began) <= within => {
                    began << COUNT_BITS | (count + 1).min(u64::from(MOST_IN_A_ROW))
                }
                _ => now << COUNT_BITS | 1,
            }
        };
        let before = self.0.fetch_update(Relaxed, Relaxed, |row| Some(next(row))).unwrap_or_default();
        u32::try_from(next(before) & u64::from(MOST_IN_A_ROW)).unwrap_or(MOST_IN_A_ROW)
    }
}

/// In how many pieces a window slides on.
const SLOTS: u64 = 8;
const STAMP_BITS: u32 = 24;

/// Requests and failures among them in the last while. It slides in eighths, and lies on a cache line of its own, for
/// each request writes to it.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Window([AtomicU64; SLOTS as usize]);

/// The part of a window's while: its number, modulo 2^24, and what happened in it.
#[derive(Clone, Copy)]
struct Slot {
    stamp: u64,
    all: u64,
    bad: u64,
}

impl Slot {
    fn unpack(bits: u64) -> Self {
        let mask = u64::from(MOST_IN_A_ROW);
        Self { stamp: bits >> (2 * COUNT_BITS), all: bits >> COUNT_BITS & mask, bad: bits & mask }
    }

    fn pack(self) -> u64 {
        self.stamp << (2 * COUNT_BITS) | self.all << COUNT_BITS | self.bad
    }
}

/// The number of the slot at this moment.
fn number(within: Micros, now: Micros) -> u64 {
    now / (within / SLOTS).max(1)
}

fn stamp(number: u64) -> u64 {
    number & ((1 << STAMP_BITS) - 1)
}

impl Window {
    /// Counts a request.
    pub(super) fn note(&self, good: bool, within: Micros, now: Micros) {
        let number = number(within, now);
        let next = |bits: u64| {
            let slot = Slot::unpack(bits);
            // A slot from a while ago is used again; one of this while that is full keeps its share.
            let (all, bad) = if slot.stamp == stamp(number) { (slot.all, slot.bad) } else { (0, 0) };
            if all == u64::from(MOST_IN_A_ROW) {
                return None;
            }
            Some(Slot { stamp: stamp(number), all: all + 1, bad: bad + u64::from(!good) }.pack())
        };
        // Full: nothing changes.
        let _ = self.0[(number % SLOTS) as usize].fetch_update(Relaxed, Relaxed, next);
    }

    /// All requests of the last while, and those that failed.
    pub(super) fn read(&self, within: Micros, now: Micros) -> (u32, u32) {
        let newest = number(within, now);
        let (mut all, mut bad) = (0, 0);
        for number in newest.saturating_sub(SLOTS - 1)..=newest {
            let slot = Slot::unpack(self.0[(number % SLOTS) as usize].load(Relaxed));
            if slot.stamp == stamp(number) {
                (all, bad) = (all + slot.all, bad + slot.bad);
            }
        }
        // Eight times 2^20 at most.
        (all as u32, bad as u32)
    }

    /// Begins anew.
    pub(super) fn clear(&self) {
        self.0.iter().for_each(|slot| slot.store(0, Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Micros = 1_000_000;

    #[test]
    fn failures_count_in_a_row_within_their_time() {
        let row = Row::default();
        for (second, count) in [(0, 1), (1, 2), (10, 3), (11, 1), (12, 2), (21, 3), (22, 1)] {
            assert_eq!(row.note(10 * SECOND, second * SECOND), count, "second {second}");
        }
        row.clear();
        assert_eq!(row.note(10 * SECOND, 22 * SECOND), 1);
    }

    #[test]
    fn a_row_never_overflows_into_its_time() {
        let row = Row(AtomicU64::new(7 << COUNT_BITS | u64::from(MOST_IN_A_ROW)));
        assert_eq!(row.note(SECOND, 8000), MOST_IN_A_ROW);
        assert_eq!(row.0.load(Relaxed) >> COUNT_BITS, 7);
    }

    #[test]
    fn a_full_slot_keeps_its_share() {
        let window = Window::default();
        window.0[0].store(Slot { stamp: 0, all: u64::from(MOST_IN_A_ROW), bad: 3 }.pack(), Relaxed);
        window.note(false, 8 * SECOND, 5);
        assert_eq!(window.read(8 * SECOND, 5), (MOST_IN_A_ROW, 3));
    }

    proptest! {
        #[test]
        fn a_window_holds_the_last_while_to_an_eighth(
            steps in proptest::collection::vec((any::<bool>(), 0..3 * SECOND), 1..200),
        ) {
            let (window, within) = (Window::default(), 8 * SECOND);
            let mut noted: Vec<(Micros, bool)> = Vec::new();
            let mut now = 0;
            for (good, wait) in steps {
                now += wait;
                window.note(good, within, now);
                noted.push((now, good));
                let (all, bad) = window.read(within, now);
                let since = |age: Micros| noted.iter().filter(|(at, _)| now - at < age).count() as u32;
                let surely_bad = noted.iter().filter(|(at, good)| now - at < within - SECOND && !good).count() as u32;
                prop_assert!(all >= since(within - SECOND) && all <= since(within), "{all} at {now}");
                prop_assert!(bad >= surely_bad && bad <= all);
            }
            window.clear();
            prop_assert_eq!(window.read(within, now), (0, 0));
        }
    }
}
