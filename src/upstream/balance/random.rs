//! `random`: any server, each as often as its weight says.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::draw::Draw;
use super::policy::{Ask, Members, Policy};
use crate::diag::Scope;
use crate::units::HumanDuration;

/// Options of drawing at random.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Random")]
pub struct Config {
    /// How long the share of a server that came back grows until it is full. Default: `0`, full at once.
    pub slow_start: HumanDuration,
}

impl Config {
    /// Nothing can be wrong.
    pub fn check(self, _: &Scope<'_>) {}

    /// The policy for these members.
    pub fn build(self, members: &Members<'_>) -> Random {
        Random(Draw::new(members.members.iter().map(|member| member.weight)))
    }

    /// How long a backend that comes back takes to get its full share.
    pub fn slow_start(self) -> Duration {
        self.slow_start.0
    }
}

/// Any member.
pub struct Random(Draw);

impl Policy for Random {
    fn pick(&self, ask: &Ask<'_>) -> Option<usize> {
        self.0.one(ask.passed)
    }

    fn why(&self, picked: usize, _: &Ask<'_>) -> String {
        format!("drawn at random, with a weight of {} in {}", self.0.weight(picked), self.0.sum())
    }
}
