//! `least_connections`: the server with the fewest requests under way for its weight.
//!
//! Among a few servers it is the one that has the least of all. To look at each of many would cost more than it gains,
//! for every look at a counter that other threads write waits for memory: there it is the least of some drawn at random,
//! which is as good as the least of all to within a request.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::busy::Busy;
use super::policy::{Ask, Members, Policy};
use crate::diag::Scope;
use crate::units::HumanDuration;

/// Up to so many are looked at one by one.
const FEW: usize = 16;
/// So many are drawn of more than a few.
const DRAWN: usize = 5;

/// Options of the least busy.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "LeastConnections")]
pub struct Config {
    /// How long the share of a server that came back grows until it is full. Default: `0`, full at once.
    pub slow_start: HumanDuration,
}

impl Config {
    /// Nothing can be wrong.
    pub fn check(self, _: &Scope<'_>) {}

    /// The policy for these members.
    pub fn build(self, members: &Members<'_>) -> LeastConnections {
        LeastConnections(Busy::new(members))
    }

    /// How long a backend that comes back takes to get its full share.
    pub fn slow_start(self) -> Duration {
        self.slow_start.0
    }
}

/// The least busy.
pub struct LeastConnections(Busy);

impl Policy for LeastConnections {
    fn pick(&self, ask: &Ask<'_>) -> Option<usize> {
        // Of equals the one that was drawn first, by weight, is taken.
        let first = self.0.draw.one(ask.passed)?;
        let count = self.0.len();
        if count <= FEW {
            let others = (first + 1..count).chain(0..first).filter(|other| !ask.passed.contains(*other));
            return Some(self.least(first, others));
        }
        Some(self.least(first, (1..DRAWN).filter_map(|_| self.0.draw.one(ask.passed))))
    }

    fn why(&self, picked: usize, _: &Ask<'_>) -> String {
        let among = if self.0.len() <= FEW { "of all".to_owned() } else { format!("of {DRAWN} drawn at random") };
        format!("the least busy for its weight {among} ({})", self.0.tell(picked))
    }
}

impl LeastConnections {
    fn least(&self, first: usize, others: impl Iterator<Item = usize>) -> usize {
        let mut least = (first, self.0.share(first));
        for other in others {
            let share = self.0.share(other);
            if share.is_less(least.1) {
                least = (other, share);
            }
        }
        least.0
    }
}
