//! `power_of_two`: two servers drawn at random, and of these the one with fewer requests under way.
//!
//! It costs the same for any number of servers, evens out what requests cost, and many gateways that do it do not all run
//! to the same server, as those would that look for the least of all.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::busy::Busy;
use super::policy::{Ask, Members, Policy};
use crate::diag::Scope;
use crate::units::HumanDuration;

/// Options of the better of two.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "PowerOfTwo")]
pub struct Config {
    /// How long the share of a server that came back grows until it is full. Default: `0`, full at once.
    pub slow_start: HumanDuration,
}

impl Config {
    /// Nothing can be wrong.
    pub fn check(self, _: &Scope<'_>) {}

    /// The policy for these members.
    pub fn build(self, members: &Members<'_>) -> PowerOfTwo {
        PowerOfTwo(Busy::new(members))
    }

    /// How long a backend that comes back takes to get its full share.
    pub fn slow_start(self) -> Duration {
        self.slow_start.0
    }
}

/// The less busy of two.
pub struct PowerOfTwo(Busy);

impl Policy for PowerOfTwo {
    fn pick(&self, ask: &Ask<'_>) -> Option<usize> {
        let (first, second) = self.0.draw.two(ask.passed)?;
        match second {
            Some(second) if self.0.share(second).is_less(self.0.share(first)) => Some(second),
            _ => Some(first),
        }
    }

    fn why(&self, picked: usize, _: &Ask<'_>) -> String {
        format!("the less busy of two drawn at random ({})", self.0.tell(picked))
    }
}
