//! `Budget`: how many retries may be under way at once, so that an upstream that is dying is not stormed.
//!
//! A retry of one request in ten is no burden; a retry of every request is twice the load on what is left of an upstream.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::units::Percent;

/// The retries under way at one upstream. Kept over reloads.
#[derive(Debug, Default)]
pub struct Budget {
    under_way: AtomicU32,
}

impl Budget {
    /// So many may always be under way, whatever the share: of few requests each may be tried again.
    pub const FLOOR: u32 = 10;

    /// The share when none is written.
    pub const SHARE: Percent = Percent::new(50);

    /// Leave for one more retry, if there are less than `share` of the `live` requests. Those are counted only when it
    /// comes to that.
    pub fn try_take(self: &Arc<Self>, share: Percent, live: impl FnOnce() -> u32) -> Option<RetryPermit> {
        let few = self.under_way.load(Relaxed) < Self::FLOOR;
        let most = if few { Self::FLOOR } else { share_of(share, live()).max(Self::FLOOR) };
        let next = |under_way| (under_way < most).then_some(under_way + 1);
        self.under_way.fetch_update(Relaxed, Relaxed, next).ok()?;
        Some(RetryPermit(Arc::clone(self)))
    }
}

fn share_of(share: Percent, live: u32) -> u32 {
    u32::try_from(share.of(live.into())).unwrap_or(u32::MAX)
}

/// Leave for one retry, given back when dropped.
#[derive(Debug)]
#[must_use]
pub struct RetryPermit(Arc<Budget>);

impl Drop for RetryPermit {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_the_live_requests_and_a_few_always() {
        for (percent, live, most) in [
            (50, 0, 10),
            (50, 19, 10),
            (50, 22, 11),
            (50, 1000, 500),
            (20, 1000, 200),
            (0, 1000, 10),
            (100, 1000, 1000),
        ] {
            let budget = Arc::new(Budget::default());
            let permits: Vec<_> =
                std::iter::from_fn(|| budget.try_take(Percent::new(percent), || live)).take(2000).collect();
            assert_eq!(permits.len(), most, "{percent}% of {live}");
        }
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let budget = Arc::new(Budget::default());
        let take = || budget.try_take(Budget::SHARE, || 0);
        let mut permits: Vec<_> = std::iter::from_fn(take).collect();
        assert!(take().is_none());
        permits.pop();
        let again = take();
        assert!(again.is_some() && take().is_none());
        drop((permits, again));
        assert_eq!(budget.under_way.load(Relaxed), 0);
    }
}
