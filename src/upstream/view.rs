//! `View`: whom requests can be given to at the moment, in order of preference, and the policies that choose.
//!
//! Made anew whenever the backends change or the health of one does, while requests go on with the old one. Between such
//! a change and the next view, a pick looks at the one status of the backend it comes to, so the change counts at once.
//!
//! - **Tiers.** The first tier with a well backend takes the requests. With a `panic` share, a tier of which a smaller share
//!   is well is given up for the next; and when none has that share, health is ignored: the first tier's backends take
//!   the requests, well or not, rather than that a few break down under the load of all.
//! - **Zones.** In a tier, backends of the preferred zone take all requests while enough of them are well.
//! - **Slow start.** A backend that came back gets a growing part of its weight.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backend::{Backend, Lease, Tried};
use super::balance;
use super::balance::policy::{Ask, Member, Members, Passed, Policy};
use super::clock::{self, Micros};
use super::config::Zone;
use super::refusal::Refusal;
use crate::exchange::Facts;
use crate::keep::Keep;
use crate::units::Percent;

/// When more backends than these had to be passed over, whoever is free takes the request: asking the policy again and again
/// would take a time that grows with the square of their number.
const MANY: usize = 8;

/// In how many steps a backend that came back gets to its full weight.
const STEPS: u32 = 10;

/// What views are made by.
pub(super) struct Rules {
    /// The name of the upstream.
    pub(super) name: Arc<str>,
    /// Which policy chooses.
    pub(super) balance: balance::Config,
    /// Below this share of well backends in all tiers, health is ignored.
    pub(super) panic: Percent,
    /// Which zone is preferred.
    pub(super) zone: Option<Zone>,
}

/// Whom requests can be given to at the moment.
pub(super) struct View {
    groups: Box<[Group]>,
    /// When it will be out of date by itself: the end of an ejection, the next step of a slow start.
    pub(super) expires: Option<Micros>,
    /// Whether health is ignored.
    pub(super) panics: bool,
    /// How many backends there are.
    backends: usize,
}

/// Backends among which one policy chooses.
struct Group {
    backends: Box<[Arc<Backend>]>,
    policy: Box<dyn Policy>,
    /// Whether the status of a backend counts.
    trusts_health: bool,
    /// Whether it takes what the group before it is too full for: one of another tier does not.
    relieves: bool,
}

/// What `explain` tells of a pick.
#[derive(Debug)]
pub struct Explained {
    /// The backend.
    pub label: Arc<str>,
    /// Why this one.
    pub why: String,
    /// Among how many it was chosen; 0: it was not, for the client had it before.
    pub candidates: usize,
    /// How many there are, those included that take no request at the moment.
    pub backends: usize,
}

impl View {
    /// The view of these backends now.
    pub(super) fn make(backends: &[Arc<Backend>], rules: &Rules, keep: &Keep, now: Micros) -> Self {
        let mut maker = Maker { rules, keep, now, groups: Vec::new(), expires: None };
        let panics = maker.tiers(backends);
        let spares = backends.iter().filter(|backend| backend.is_spare() && backend.is_usable());
        maker.group(spares, true);
        for backend in backends {
            maker.expire_at(backend.state().health.ejected_until());
        }
        Self { groups: maker.groups.into(), expires: maker.expires, panics, backends: backends.len() }
    }

    /// A backend for a request, none of those tried, and the mark that it is under way there.
    pub(super) fn pick(&self, facts: &Facts<'_>, tried: &Tried, now: Instant) -> Result<Lease, Refusal> {
        let now = clock::at(now);
        let mut passed = Passed::new();
        let mut full = false;
        for group in &self.groups {
            if full && !group.relieves {
                break;
            }
            group.pass_over(tried, &mut passed);
            while let Some(index) = group.policy.pick(&Ask { facts, now, passed: &passed }) {
                let backend = &group.backends[index];
                if group.may_take(backend) {
                    if let Some(lease) = backend.lease() {
                        return Ok(lease);
                    }
                    full = true;
                }
                passed.insert(index);
                if passed.len() > MANY {
                    match group.left(tried).find_map(Backend::lease) {
                        Some(lease) => return Ok(lease),
                        None => {
                            full |= group.left(tried).next().is_some();
                            break;
                        }
                    }
                }
            }
        }
        Err(match (self.backends == 0, tried.is_empty()) {
            _ if full => Refusal::Full,
            (true, _) => Refusal::NoBackend,
            (false, true) => Refusal::NoHealthyBackend,
            (false, false) => Refusal::AllTried,
        })
    }

    /// Which backend a request would get, and why.
    pub(super) fn explain(&self, facts: &Facts<'_>, now: Micros) -> Option<Explained> {
        let group = self.groups.first()?;
        let ask = Ask { facts, now, passed: &Passed::new() };
        let index = group.policy.pick(&ask)?;
        let label = Arc::clone(group.backends[index].label());
        let why = group.policy.why(index, &ask);
        Some(Explained { label, why, candidates: group.backends.len(), backends: self.backends })
    }
}

impl Group {
    fn may_take(&self, backend: &Backend) -> bool {
        if self.trusts_health { backend.is_usable() } else { !backend.is_draining() }
    }

    /// Those that may take a request and were not tried, from anywhere on.
    fn left(&self, tried: &Tried) -> impl Iterator<Item = &Arc<Backend>> {
        let (before, after) = self.backends.split_at(fastrand::usize(..self.backends.len()));
        after.iter().chain(before).filter(|backend| self.may_take(backend) && !tried.contains(backend))
    }

    fn pass_over(&self, tried: &Tried, passed: &mut Passed) {
        passed.clear();
        if tried.is_empty() {
            return;
        }
        for (index, backend) in self.backends.iter().enumerate() {
            if tried.contains(backend) {
                passed.insert(index);
            }
        }
    }
}

/// What making a view adds up to.
struct Maker<'a> {
    rules: &'a Rules,
    keep: &'a Keep,
    now: Micros,
    groups: Vec<Group>,
    expires: Option<Micros>,
}

impl Maker<'_> {
    /// Makes the groups of all tiers, the one that takes the requests first. True: none is well enough.
    fn tiers(&mut self, backends: &[Arc<Backend>]) -> bool {
        let mut tiers = BTreeMap::<u32, Vec<&Arc<Backend>>>::new();
        for backend in backends.iter().filter(|backend| backend.weight() > 0 && !backend.is_spare()) {
            if !backend.is_draining() {
                tiers.entry(backend.tier()).or_default().push(backend);
            }
        }
        let well = |tier: &[&Arc<Backend>]| tier.iter().filter(|backend| backend.is_usable()).count();
        let enough = |tier: &[&Arc<Backend>]| {
            let well = well(tier);
            well > 0 && !self.rules.panic.exceeds(well as u64, tier.len() as u64)
        };
        let chosen = tiers.iter().find(|(_, tier)| enough(tier)).map(|(number, _)| *number);
        let panics = chosen.is_none() && !self.rules.panic.is_zero() && !tiers.is_empty();
        if panics && let Some((_, first)) = tiers.pop_first() {
            self.group(first.into_iter(), false);
        }
        if let Some(tier) = chosen.and_then(|number| tiers.remove(&number)) {
            self.tier(&tier);
        }
        // The others, for requests that were tried on all of those.
        for tier in tiers.values() {
            self.tier(tier);
        }
        panics
    }

    /// The groups of one tier: the preferred zone, if enough of it is well, and all others.
    fn tier(&mut self, tier: &[&Arc<Backend>]) {
        let well = || tier.iter().copied().filter(|backend| backend.is_usable());
        if let Some(zone) = &self.rules.zone {
            let is_near = |backend: &Backend| backend.zone().is_some_and(|name| **name == *zone.prefer);
            let near = tier.iter().filter(|backend| is_near(backend)).count();
            let near_and_well = well().filter(|backend| is_near(backend)).count();
            if near_and_well > 0 && !zone.at_least.exceeds(near_and_well as u64, near as u64) {
                self.group(well().filter(|backend| is_near(backend)), true);
                self.group(well().filter(|backend| !is_near(backend)), true);
                return;
            }
        }
        self.group(well(), true);
    }

    fn group<'b>(&mut self, backends: impl Iterator<Item = &'b Arc<Backend>>, trusts_health: bool) {
        let backends: Box<[Arc<Backend>]> = backends.cloned().collect();
        if backends.is_empty() {
            return;
        }
        let steps: Vec<u32> = backends.iter().map(|backend| self.step(backend)).collect();
        let grows = steps.iter().any(|step| *step < STEPS);
        let heavy = backends.iter().any(|backend| backend.weight() > u32::MAX / STEPS);
        let weight = |backend: &Backend, step: u32| match (grows, heavy) {
            (false, _) => backend.weight().max(1),
            (true, false) => backend.weight().max(1) * step,
            (true, true) => (backend.weight() / STEPS).max(1) * step,
        };
        let members: Vec<Member> = backends
            .iter()
            .zip(steps)
            .map(|(backend, step)| Member {
                label: Arc::clone(backend.label()),
                weight: weight(backend, step),
                load: Arc::clone(&backend.state().load),
            })
            .collect();
        let members = Members { upstream: &self.rules.name, members: &members, keep: self.keep };
        let (first, before) = (&backends[0], self.groups.last().map(|group| &group.backends[0]));
        let relieves = !first.is_spare() && before.is_some_and(|before| before.tier() == first.tier());
        self.groups.push(Group { policy: self.rules.balance.build(&members), backends, trusts_health, relieves });
    }

    /// How far a backend is on its way to full weight, of [`STEPS`].
    fn step(&mut self, backend: &Backend) -> u32 {
        let (step, until) = step(backend, self.rules, self.now);
        self.expire_at(until);
        step
    }

    fn expire_at(&mut self, moment: Option<Micros>) {
        if let Some(moment) = moment {
            self.expires = Some(self.expires.map_or(moment, |known| known.min(moment)));
        }
    }
}

/// How far a backend is on its way to full weight, of [`STEPS`], and when it gets further.
fn step(backend: &Backend, rules: &Rules, now: Micros) -> (u32, Option<Micros>) {
    let ramp = clock::micros(rules.balance.slow_start());
    let Some(since) = backend.state().health.well_since() else { return (STEPS, None) };
    let age = now.saturating_sub(since);
    if age >= ramp {
        return (STEPS, None);
    }
    let each = (ramp / u64::from(STEPS)).max(1);
    let done = age / each;
    (u32::try_from(done + 1).unwrap_or(STEPS).min(STEPS), Some(since + (done + 1) * each))
}

/// What share of its weight a usable backend has.
pub(super) fn share(backend: &Backend, rules: &Rules, now: Micros) -> f64 {
    f64::from(step(backend, rules, now).0) / f64::from(STEPS)
}

/// Until then, counted from now.
pub(super) fn until(moment: Micros, now: Micros) -> Duration {
    Duration::from_micros(moment.saturating_sub(now))
}
