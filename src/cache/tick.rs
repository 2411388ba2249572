//! `Tick`: moments in the order in which they were, also within one clock step and after a clock was set back.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment: about the nanoseconds since 1970. No two of one process are the same, and a later one is greater; those of
/// two processes on one machine can be compared as far as their clock goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub u64);

static LAST: AtomicU64 = AtomicU64::new(0);

impl Tick {
    /// This moment.
    pub fn now() -> Self {
        let now = nanos(SystemTime::now());
        // Only after a clock was set back, or within one of its steps, is it one more than the last.
        let last = LAST.fetch_update(Relaxed, Relaxed, |last| Some(now.max(last + 1))).unwrap_or_default();
        Self(now.max(last + 1))
    }

    /// The same as a time of the clock.
    pub fn time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.0)
    }

    /// Makes this process's moments come after `tick`, which another process wrote.
    pub fn after(tick: Self) {
        // A clock that was an hour wrong then shall not make this one wrong for an hour.
        if tick.0 < nanos(SystemTime::now()) + 60_000_000_000 {
            LAST.fetch_max(tick.0, Relaxed);
        }
    }
}

fn nanos(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_moment_is_greater() {
        let ticks: Vec<Tick> = (0..1_000).map(|_| Tick::now()).collect();
        assert!(ticks.is_sorted_by(|a, b| a < b));
    }
}
