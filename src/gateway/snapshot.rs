//! `Snapshot`: all that requests need, immutable, made from one document.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::runtime::Handle;

use crate::cache::Zone;
use crate::cache::config::ZoneConfig;
use crate::forwarded::Forwarded;
use crate::observe::AccessLog;
use crate::route::{Route, Routes};
use crate::upstream::Upstream;

/// One document, compiled. A request keeps the snapshot it began under, from its first callback to its last.
pub struct Snapshot {
    /// Which document of this process it is, from 1.
    pub generation: u64,
    /// The routes, and the table that chooses among them.
    pub routes: Routes,
    /// Who the client is, and what backends are told.
    pub forwarded: Forwarded,
    /// The `Server` field of responses.
    pub server: Option<HeaderValue>,
    /// Where requests are logged.
    pub access_log: AccessLog,
    /// The upstreams by name, those in place among them.
    pub upstreams: BTreeMap<String, Arc<Upstream>>,
    /// The caches by name.
    pub zones: BTreeMap<String, Arc<Zone>>,
    /// What the document says of them.
    pub zone_configs: BTreeMap<String, ZoneConfig>,
    /// How long requests under way may take to finish after SIGTERM.
    pub drain: Duration,
}

impl Snapshot {
    /// Begins what goes on beside the requests, on this runtime.
    pub fn start(&self, background: &Handle) {
        self.access_log.start();
        for upstream in self.upstreams.values() {
            upstream.start(background);
        }
        for (name, zone) in &self.zones {
            zone.start(&self.zone_configs.get(name).cloned().unwrap_or_default(), background);
        }
    }

    /// Ends it: another snapshot is in force. Requests under way go on with this one.
    pub fn stop(&self) {
        for upstream in self.upstreams.values() {
            upstream.stop();
        }
    }

    /// The route at this position of the table.
    pub fn route(&self, index: u32) -> Option<&Route> {
        self.routes.routes.get(index as usize)
    }
}
