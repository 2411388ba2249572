//! `peak_ewma`: two servers drawn at random, and of these the one that will answer sooner, by its latency of late and
//! what it has to do.
//!
//! Two and not all: a latency is known only when a response begins, and all that come before would run to the same server.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::busy::Busy;
use super::policy::{Ask, Members, Policy};
use crate::diag::Scope;
use crate::units::HumanDuration;

/// How much sooner the second must answer to be preferred to the first, which was drawn by weight: less is noise, and
/// would make of the weights what chance wants.
const CLEARLY: f32 = 0.875;

/// Options of the sooner of two.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "PeakEwma")]
pub struct Config {
    /// How long the share of a server that came back grows until it is full. Default: `0`, full at once.
    pub slow_start: HumanDuration,
}

impl Config {
    /// Nothing can be wrong.
    pub fn check(self, _: &Scope<'_>) {}

    /// The policy for these members.
    pub fn build(self, members: &Members<'_>) -> PeakEwma {
        let sum: f32 = members.members.iter().map(|member| member.weight as f32).sum();
        PeakEwma { busy: Busy::new(members), mean_weight: sum / members.members.len().max(1) as f32 }
    }

    /// How long a backend that comes back takes to get its full share.
    pub fn slow_start(self) -> Duration {
        self.slow_start.0
    }
}

/// Whoever answers sooner.
pub struct PeakEwma {
    busy: Busy,
    mean_weight: f32,
}

impl Policy for PeakEwma {
    fn pick(&self, ask: &Ask<'_>) -> Option<usize> {
        let (first, second) = self.busy.draw.two(ask.passed)?;
        let Some(second) = second else { return Some(first) };
        let latency = |member: usize| self.busy.load(member).latency_us(ask.now);
        let (mut one, mut other) = (latency(first), latency(second));
        // Of whom nothing is known, the same is thought as of the other.
        if one == 0.0 {
            one = if other == 0.0 { 1.0 } else { other };
        }
        if other == 0.0 {
            other = one;
        }
        let sooner = other * self.rounds(second) < one * self.rounds(first) * CLEARLY;
        Some(if sooner { second } else { first })
    }

    fn why(&self, picked: usize, ask: &Ask<'_>) -> String {
        let latency = self.busy.load(picked).latency_us(ask.now);
        let latency = match latency {
            0.0 => "latency not known yet".to_owned(),
            micros => format!("latency {:.1} ms", micros / 1000.0),
        };
        format!("the sooner of two drawn at random ({latency}, {})", self.busy.tell(picked))
    }
}

impl PeakEwma {
    /// How many latencies a request waits: its own, and those of the requests under way, of which a backend of twice
    /// the mean weight does twice as many at once.
    fn rounds(&self, member: usize) -> f32 {
        let inflight = self.busy.load(member).inflight() as f32;
        1.0 + inflight * self.mean_weight / self.busy.draw.weight(member) as f32
    }
}
