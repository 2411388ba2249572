//! `Context`: what routes need of the rest of the document to be compiled.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::cache::Zone;
use crate::diag::{Scope, suggest};
use crate::keep::Keep;
use crate::upstream::{self, Upstream};

/// Compiles an upstream that a route has in place, under a name.
pub type InPlace<'a> = dyn FnMut(&str, &upstream::Config, &Scope<'_>) -> Option<Arc<Upstream>> + 'a;

/// What routes need of the rest of the document to be compiled.
pub struct Context<'a> {
    /// The named upstreams; `None` for those with faults of their own, so that no further fault is told of them.
    pub upstreams: &'a BTreeMap<String, Option<Arc<Upstream>>>,
    /// Makes an upstream out of addresses in place.
    pub in_place: &'a mut InPlace<'a>,
    /// The upstreams that some route leads to.
    pub used: BTreeSet<String>,
    /// The caches by name, the built-in one among them; `None` for those with faults of their own.
    pub zones: &'a BTreeMap<String, Option<Arc<Zone>>>,
    /// The caches that some route stores in.
    pub used_zones: BTreeSet<String>,
    /// What outlives a reload.
    pub keep: &'a Keep,
    /// Where relative paths of files begin: the folder of the document.
    pub folder: &'a Path,
}

impl Context<'_> {
    /// The upstream of this name; reports it when there is none.
    pub(super) fn upstream(&mut self, name: &str, at: &Scope<'_>) -> Option<Arc<Upstream>> {
        match self.upstreams.get(name) {
            Some(upstream) => {
                self.used.insert(name.to_owned());
                upstream.clone()
            }
            None => {
                let hint =
                    suggest::did_you_mean(name, self.upstreams.keys().map(String::as_str)).unwrap_or_else(|| {
                        "name it under `upstreams`, or write an address with its port, as in `127.0.0.1:3000`".into()
                    });
                at.error_hint(format!("no upstream is named `{name}`"), hint);
                None
            }
        }
    }
}
