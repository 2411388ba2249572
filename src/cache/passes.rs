//! `Passes`: which responses were not stored when they were last seen, so that requests for them do not wait for one
//! another; and how often something was asked for before it is stored.

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use super::Id;

/// How many of each are told apart.
const PLACES: usize = 1 << 14;

/// For how many seconds it counts that something was not stored: then it is tried again.
const MEMORY: u64 = 10;

/// How many uses are counted before all counts are halved.
const HALF_LIFE: u32 = 1 << 17;

/// What was seen of responses that are not stored. What collides is forgotten, which costs a request its company or one
/// more use: never a wrong answer.
#[derive(Debug)]
pub struct Passes {
    /// The mark of what was passed, and when: in seconds since the first.
    passed: Box<[AtomicU64]>,
    began: Instant,
    uses: Box<[AtomicU16]>,
    counted: AtomicU32,
}

impl Default for Passes {
    fn default() -> Self {
        Self {
            passed: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            began: Instant::now(),
            uses: (0..PLACES * 4).map(|_| AtomicU16::new(0)).collect(),
            counted: AtomicU32::new(0),
        }
    }
}

/// Its place, and a mark that tells it from others in it, never 0.
fn place(id: &Id) -> (usize, u32) {
    let bits = id.bits();
    // Both are cut on purpose.
    (bits as usize % PLACES, (bits >> 32) as u32 | 1)
}

impl Passes {
    /// It was not stored.
    pub fn note(&self, id: &Id) {
        let (place, mark) = place(id);
        self.passed[place].store(u64::from(mark) << 32 | self.seconds(), Relaxed);
    }

    /// It can be stored now.
    pub fn forget(&self, id: &Id) {
        let (place, mark) = place(id);
        if self.passed[place].load(Relaxed) >> 32 == u64::from(mark) {
            self.passed[place].store(0, Relaxed);
        }
    }

    /// Whether it was not stored when it was last seen, not long ago.
    pub fn has(&self, id: &Id) -> bool {
        let (place, mark) = place(id);
        let passed = self.passed[place].load(Relaxed);
        passed >> 32 == u64::from(mark) && self.seconds() - (passed & u64::from(u32::MAX)) < MEMORY
    }

    fn seconds(&self) -> u64 {
        self.began.elapsed().as_secs() & u64::from(u32::MAX)
    }

    /// Counts a use of what is not stored, and tells how many there were: rather too many than too few, and fewer of what
    /// was used long ago.
    pub fn count_use(&self, id: &Id) -> u32 {
        if self.counted.fetch_add(1, Relaxed) == HALF_LIFE {
            self.counted.store(0, Relaxed);
            for uses in &self.uses {
                let _ = uses.fetch_update(Relaxed, Relaxed, |uses| Some(uses / 2));
            }
        }
        let bits = u128::from_le_bytes(*id.bytes());
        // Two places, of which the less used one counts.
        let places = [bits >> 20, bits >> 80].map(|bits| bits as usize % (PLACES * 4));
        let counts = places.map(|place| {
            let before = self.uses[place].fetch_update(Relaxed, Relaxed, |uses| Some(uses.saturating_add(1)));
            before.unwrap_or_default().saturating_add(1)
        });
        counts.into_iter().min().unwrap_or_default().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_passed_is_known_until_it_can_be_stored() {
        let passes = Passes::default();
        let (one, other) = (Id::of(b"1"), Id::of(b"2"));
        passes.note(&one);
        assert!(passes.has(&one) && !passes.has(&other));
        passes.forget(&other);
        assert!(passes.has(&one));
        passes.forget(&one);
        assert!(!passes.has(&one));
    }

    #[test]
    fn uses_are_counted() {
        let passes = Passes::default();
        for count in 1..=5 {
            assert_eq!(passes.count_use(&Id::of(b"1")), count);
        }
        assert_eq!(passes.count_use(&Id::of(b"2")), 1);
    }
}
