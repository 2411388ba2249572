//! `peak_ewma`: the server that will answer soonest, by its latency of late and what it has to do.
//!
//! Among a few servers it is the soonest of all: in a simulation of queues with one server four times as slow as the
//! others, responses took a tenth to a third less than with two drawn at random. Among more, where to look at all would
//! cost more than that, it is the sooner of two.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::busy::Busy;
use super::policy::{Ask, Members, Policy};
use crate::diag::Scope;
use crate::units::HumanDuration;
use crate::upstream::clock::Micros;

/// Up to so many are looked at one by one.
const FEW: usize = 8;
/// How much sooner another must answer to be preferred to the first, which was drawn by weight: less is noise, and would
/// make of the weights what chance wants.
const CLEARLY: f32 = 0.875;

/// Options of the soonest.
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

/// Whoever answers soonest.
pub struct PeakEwma {
    busy: Busy,
    mean_weight: f32,
}

/// The best so far.
struct Soonest {
    member: usize,
    latency: f32,
    rounds: f32,
}

impl Policy for PeakEwma {
    fn pick(&self, ask: &Ask<'_>) -> Option<usize> {
        let count = self.busy.len();
        if count > FEW {
            let (first, second) = self.busy.draw.two(ask.passed)?;
            return Some(self.soonest(first, second.into_iter(), ask.now));
        }
        let first = self.busy.draw.one(ask.passed)?;
        let others = (first + 1..count).chain(0..first).filter(|other| !ask.passed.contains(*other));
        Some(self.soonest(first, others, ask.now))
    }

    fn why(&self, picked: usize, ask: &Ask<'_>) -> String {
        let latency = self.busy.load(picked).latency_us(ask.now);
        let latency = match latency {
            0.0 => "latency not known yet".to_owned(),
            micros => format!("latency {:.1} ms", micros / 1000.0),
        };
        let among = if self.busy.len() <= FEW { "soonest of all" } else { "sooner of two drawn at random" };
        format!("the {among} ({latency}, {})", self.busy.tell(picked))
    }
}

impl PeakEwma {
    fn soonest(&self, first: usize, others: impl Iterator<Item = usize>, now: Micros) -> usize {
        let mut soonest = Soonest { member: first, latency: self.latency(first, now), rounds: self.rounds(first) };
        for other in others {
            let (latency, rounds) = (self.latency(other, now), self.rounds(other));
            // Of whom nothing is known, the same is thought as of the other.
            let (one, two) = match (soonest.latency, latency) {
                (0.0, 0.0) => (1.0, 1.0),
                (0.0, known) | (known, 0.0) => (known, known),
                both => both,
            };
            if two * rounds < one * soonest.rounds * CLEARLY {
                soonest = Soonest { member: other, latency, rounds };
            }
        }
        soonest.member
    }

    fn latency(&self, member: usize, now: Micros) -> f32 {
        self.busy.load(member).latency_us(now)
    }

    /// How many latencies a request waits: its own, and those of the requests under way, of which a backend of twice
    /// the mean weight does twice as many at once.
    fn rounds(&self, member: usize) -> f32 {
        let inflight = self.busy.load(member).inflight() as f32;
        1.0 + inflight * self.mean_weight / self.busy.draw.weight(member) as f32
    }
}
