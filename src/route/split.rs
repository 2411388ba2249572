//! `split`: several upstreams, each with its share of the requests; a client may stay with the one it had first.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::branches::Branches;
use super::context::Context;
use super::target::Target;
use crate::diag::Scope;
use crate::upstream::sticky::{self, Sticky};
use crate::upstream::{self, looks_like_address};

/// `split`: several upstreams, each with its share of the requests.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SplitConfig {
    /// The names of the upstreams (or addresses), each with its weight: `{ api: 95, api-canary: 5 }`.
    pub to: BTreeMap<String, u32>,
    /// Whether a client stays with the upstream that it had first, by a cookie: `true`, `cookie`, or a mapping. It does
    /// until that upstream has a weight of 0. Default: each request is drawn anew.
    #[serde(default)]
    pub sticky: sticky::Config,
}

impl SplitConfig {
    /// The upstreams that are written in place, as addresses.
    pub fn in_place(&self) -> impl Iterator<Item = upstream::Config> {
        self.to.keys().filter(|name| looks_like_address(name)).map(|name| upstream::Config::address(name))
    }

    pub(super) fn build(&self, context: &mut Context<'_>, at: &Scope<'_>) -> Option<Target> {
        let to = at.key("to");
        let branches = match self.sticky.settings() {
            Some(settings) => Some(self.branches(settings, context, &at.key("sticky"))?),
            None => None,
        };
        let shares: Vec<_> = self
            .to
            .iter()
            .filter_map(|(name, weight)| {
                let place = to.key(name);
                let upstream = if looks_like_address(name) {
                    (context.in_place)(name, &upstream::Config::address(name), &place)
                } else {
                    context.upstream(name, &place)
                };
                Some((*weight, upstream?))
            })
            .collect();
        let total = self.to.values().try_fold(0_u32, |sum, weight| sum.checked_add(*weight));
        match total {
            None => to.error("the weights add up to more than 4294967295"),
            Some(0) if self.to.is_empty() => {
                to.error_hint("no upstream is named", "name at least one, as in `{ api: 95, canary: 5 }`")
            }
            Some(0) => to.error_hint("a weight of 0 everywhere", "give at least one upstream a weight above 0"),
            Some(total) if shares.len() == self.to.len() => return Some(Target::of(shares, total, branches)),
            Some(_) => {}
        }
        None
    }

    /// The cookies of the upstreams, in their order. Routes that split among the same upstreams share them.
    fn branches(&self, settings: &sticky::Settings, context: &Context<'_>, at: &Scope<'_>) -> Option<Branches> {
        let names: Vec<&str> = self.to.keys().map(String::as_str).collect();
        let sticky = Sticky::build(settings, &format!("split {}", names.join(",")), context.keep, context.folder, at)?;
        Some(Branches::new(sticky, &names))
    }
}
