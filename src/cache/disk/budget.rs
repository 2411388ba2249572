//! `Budget`: the bytes in use, which never exceed the limit because they are taken before anything is written.
//!
//! While another process shares the directory, each may take only its part of what was free when they met. A file that
//! the other evicted first earns nothing either: its place may be taken by what the other wrote, which is not counted here.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::format::BLOCK;

/// All numbers are in blocks.
#[derive(Debug)]
pub(super) struct Budget {
    limit: AtomicU64,
    /// Up to here we may go now.
    cap: AtomicU64,
    /// Files, what fills have reserved, `unseen` and `debt`.
    used: AtomicU64,
    /// What lies in the directory by the last count, and was not met again since the start.
    unseen: AtomicU64,
    /// The places of files that another process evicted.
    debt: AtomicU64,
    shared: AtomicBool,
}

impl Budget {
    /// `usage`: bytes that are in use by the last count.
    pub(super) fn new(limit: u64, usage: u64) -> Self {
        let (limit, unseen) = (limit / BLOCK, usage.div_ceil(BLOCK));
        Self {
            limit: limit.into(),
            cap: limit.into(),
            used: unseen.into(),
            unseen: unseen.into(),
            debt: 0.into(),
            shared: false.into(),
        }
    }

    /// Takes so many blocks, if they are free.
    pub(super) fn take(&self, blocks: u64) -> bool {
        let cap = self.cap.load(Relaxed);
        self.used.fetch_update(Relaxed, Relaxed, |used| used.checked_add(blocks).filter(|after| *after <= cap)).is_ok()
    }

    /// Whether so many blocks could ever be taken.
    pub(super) fn can_hold(&self, blocks: u64) -> bool {
        blocks <= self.limit.load(Relaxed)
    }

    /// Gives blocks back.
    pub(super) fn give(&self, blocks: u64) {
        subtract(&self.used, blocks);
    }

    /// Counts a file that was met in the directory.
    pub(super) fn meet(&self, blocks: u64) {
        let expected = subtract(&self.unseen, blocks);
        self.used.fetch_add(blocks - expected, Relaxed);
    }

    /// Counts a file that somebody else has evicted.
    pub(super) fn lost(&self, blocks: u64) {
        if self.shared.load(Relaxed) {
            self.debt.fetch_add(blocks, Relaxed);
        } else {
            self.give(blocks);
        }
    }

    /// All that lies in the directory has been met.
    pub(super) fn counted(&self) {
        let unseen = self.unseen.swap(0, Relaxed);
        // What a living process wrote in place of what it evicted may be there still.
        let debt = if self.shared.load(Relaxed) { 0 } else { self.debt.swap(0, Relaxed) };
        self.give(unseen + debt);
    }

    /// Another limit, in bytes.
    pub(super) fn resize(&self, limit: u64) {
        self.limit.store(limit / BLOCK, Relaxed);
        if !self.shared.load(Relaxed) {
            self.cap.store(limit / BLOCK, Relaxed);
        } else {
            self.cap.fetch_min(limit / BLOCK, Relaxed);
        }
    }

    /// So many other processes share the directory now.
    pub(super) fn share(&self, others: u64) {
        let limit = self.limit.load(Relaxed);
        let was_shared = self.shared.swap(others > 0, Relaxed);
        if others == 0 {
            self.cap.store(limit, Relaxed);
        } else if !was_shared {
            let used = self.used.load(Relaxed).min(limit);
            self.cap.store(used + (limit - used) / (others + 1), Relaxed);
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.used.load(Relaxed) > self.cap.load(Relaxed)
    }

    /// The limit, in bytes.
    pub(super) fn limit(&self) -> u64 {
        self.limit.load(Relaxed) * BLOCK
    }

    /// Bytes in use.
    pub(super) fn bytes(&self) -> u64 {
        self.used.load(Relaxed) * BLOCK
    }
}

/// Subtracts as much as there is, and tells how much that was.
fn subtract(number: &AtomicU64, amount: u64) -> u64 {
    let before = number.fetch_update(Relaxed, Relaxed, |number| Some(number.saturating_sub(amount)));
    before.unwrap_or_default().min(amount)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(limit: u64, used: u64) -> Budget {
        Budget::new(limit * BLOCK, used * BLOCK)
    }

    #[test]
    fn no_more_is_taken_than_there_is() {
        let budget = of(10, 0);
        assert!(budget.take(6) && !budget.take(5) && budget.take(4) && !budget.take(1));
        budget.give(1);
        assert!(budget.take(1));
        assert!(budget.can_hold(10) && !budget.can_hold(11));
    }

    #[test]
    fn what_the_last_run_left_counts_until_all_is_met() {
        let budget = of(10, 8);
        assert!(!budget.take(3));
        budget.meet(5);
        assert_eq!(budget.bytes(), 8 * BLOCK, "it was among those expected");
        budget.counted();
        assert_eq!(budget.bytes(), 5 * BLOCK);
        budget.meet(1);
        assert_eq!(budget.bytes(), 6 * BLOCK);
    }

    #[test]
    fn two_that_share_take_no_more_than_is_free_together() {
        let (a, b) = (of(10, 4), of(10, 4));
        a.share(1);
        b.share(1);
        assert!(a.take(3) && !a.take(1) && b.take(3) && !b.take(1));
        a.lost(1);
        assert!(!a.take(1), "what the other evicted is not free");
        a.share(0);
        a.counted();
        assert!(a.take(1));
    }

    #[test]
    fn a_smaller_limit_is_over_at_once() {
        let budget = of(10, 6);
        assert!(!budget.is_over());
        budget.resize(4 * BLOCK);
        assert!(budget.is_over());
    }
}
