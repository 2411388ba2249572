//! `srv`: the servers are the places of a service (SRV records, RFC 2782), with their ports, weights and priorities.
//!
//! The targets are names; who follows the list keeps their addresses fresh.

use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::timeout;

use super::ask::{Asker, PATIENCE, Place};
use super::asking::{Asking, NameServer};
use super::form::{Form, Short};
use super::list;
use super::source::{Fault, Given, Source, Told, growing_pause};
use crate::diag::Scope;
use crate::units::{HumanDuration, OneOrMany};
use crate::upstream::server::Server;

/// A service whose places are the servers.
pub type Config = Form<Settings>;

/// A service whose places are the servers.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "DiscoverSrv")]
pub struct Settings {
    /// The name of the service, as in `_http._tcp.app.internal`. Each of its SRV records is a server: target and port are
    /// its address, the weight its weight (0 counts as 1), the priority its `priority`.
    pub name: String,
    /// The name servers to ask, in place of the system's, as in `10.0.0.53` or `10.0.0.53:5353`. The hosts file is not
    /// looked at then.
    #[serde(default)]
    pub resolver: OneOrMany<NameServer>,
    /// The shortest time for which an answer is used; a shorter time to live counts as this. Default: `1s`.
    #[serde(default = "Asking::least")]
    pub min_ttl: HumanDuration,
    /// The longest time for which an answer is used; a longer time to live counts as this. Default: `5m`.
    #[serde(default = "Asking::most")]
    pub max_ttl: HumanDuration,
}

impl Short for Settings {
    const WHAT: &'static str = "the name of a service";
    const EXAMPLE: &'static str = "_http._tcp.app.internal";

    fn from_text(text: &str) -> Result<Self, String> {
        let (min_ttl, max_ttl) = (Asking::least(), Asking::most());
        Ok(Self { name: text.to_owned(), resolver: OneOrMany::default(), min_ttl, max_ttl })
    }
}

impl Config {
    /// What is asked.
    pub fn what(&self) -> &str {
        &self.settings.name
    }

    /// Reports what cannot work.
    pub fn check(&self, at: &Scope<'_>) {
        let name = &self.settings.name;
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        let relative = name.strip_suffix('.').unwrap_or(name);
        if relative.len() > 253 || !relative.split('.').all(label) {
            let hint = match name.contains(':') {
                true => "leave the port out: the records tell it",
                false => "write it as in `_http._tcp.app.internal`",
            };
            self.at(at, "name", |at| at.error_hint(format!("`{name}` cannot be the name of a service"), hint));
        }
        self.asking().check(at);
    }

    /// Whom to ask, and how often.
    pub fn asking(&self) -> Asking {
        let Settings { resolver, min_ttl, max_ttl, .. } = &self.settings;
        Asking::new(resolver, *min_ttl, *max_ttl)
    }

    /// The service at work.
    pub fn build(&self, _: &Given<'_>) -> impl Source + use<> {
        let asking = self.asking();
        Service { name: self.settings.name.to_ascii_lowercase(), asker: Asker::new(&asking.servers), asking }
    }
}

struct Service {
    name: String,
    asker: Asker,
    asking: Asking,
}

#[async_trait]
impl Source for Service {
    async fn ask(&mut self) -> Result<Told, Fault> {
        let failed = |reason| Fault::Failed(format!("`{}`: {reason}", self.name));
        let late = || Err(format!("no answer within {} s", PATIENCE.as_secs()));
        let answer =
            timeout(PATIENCE, self.asker.places(&self.name)).await.unwrap_or_else(|_| late()).map_err(failed)?;
        let servers = servers(answer.found);
        if servers.is_empty() {
            // RFC 2782: the target `.` says so.
            return Err(failed("the service is not offered".to_owned()));
        }
        list::check(&servers).map_err(|fault| Fault::Refused(format!("`{}`: {fault}", self.name)))?;
        Ok(Told { servers: Some(servers), again: self.asking.clamp(answer.ttl) })
    }

    fn pause(&self, failures: u32) -> Duration {
        growing_pause(self.asking.min_ttl, failures)
    }
}

/// The places as servers, in an order of their own, so that an answer in another order changes nothing.
fn servers(mut places: Vec<Place>) -> Vec<Server> {
    places.retain(|place| place.target != ".");
    places.sort_by(|a, b| (&a.target, a.port, a.priority).cmp(&(&b.target, b.port, b.priority)));
    // One place twice is one server, where it is wanted first.
    places.dedup_by(|again, first| (&again.target, again.port) == (&first.target, first.port));
    let server = |place: Place| {
        // With its dot at the end: the search list is for names that people write.
        let mut server = Server::at(format!("{}:{}", place.target, place.port));
        // 0 means "hardly ever" among others, and "all the same" where it stands alone.
        server.settings.weight = u32::from(place.weight).max(1);
        server.settings.priority = place.priority.into();
        server
    };
    places.into_iter().map(server).collect()
}
