//! `dns`: the servers are the addresses of a name (A and AAAA), asked for again whenever their time to live is over.
//!
//! The list itself never changes: it is the one name. Who follows it keeps the addresses of names fresh in any list.

use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use super::asking::{Asking, NameServer};
use super::form::{Form, Short};
use super::source::{Fault, Given, Source, Told};
use crate::diag::Scope;
use crate::units::{HumanDuration, OneOrMany};
use crate::upstream::address::ServerAddress;
use crate::upstream::server::Server;

/// A name whose addresses are the servers.
pub type Config = Form<Settings>;

/// A name whose addresses are the servers.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "DiscoverDns")]
pub struct Settings {
    /// The name. Each of its addresses (A and AAAA records) is a server; with both kinds, those of IPv6 are tried last.
    pub name: String,
    /// The port at which they all listen.
    pub port: u16,
    /// The weight of each. Default: 1.
    #[serde(default = "one")]
    pub weight: u32,
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

fn one() -> u32 {
    1
}

impl Short for Settings {
    const WHAT: &'static str = "a name and a port";
    const EXAMPLE: &'static str = "app.internal:8080";

    fn from_text(text: &str) -> Result<Self, String> {
        let (name, port) = name_and_port(text).map_err(|(message, hint)| format!("{message}; {hint}"))?;
        let (min_ttl, max_ttl) = (Asking::least(), Asking::most());
        Ok(Self { name, port, weight: one(), resolver: OneOrMany::default(), min_ttl, max_ttl })
    }
}

fn name_and_port(text: &str) -> Result<(String, u16), (String, String)> {
    match text.parse() {
        Ok(ServerAddress::Name(name, port)) => Ok((name.into(), port)),
        Ok(_) => Err((
            format!("`{text}` has no name that DNS could know"),
            "list servers with known addresses under `servers`".to_owned(),
        )),
        Err(fault) => Err((fault.message, fault.hint)),
    }
}

impl Config {
    /// What is asked.
    pub fn what(&self) -> String {
        format!("{}:{}", self.settings.name, self.settings.port)
    }

    /// Reports what cannot work.
    pub fn check(&self, at: &Scope<'_>) {
        let settings = &self.settings;
        if settings.port == 0 {
            at.key("port").error_hint("port 0 can never be connected to", "write the port of the servers");
        } else if let Err((message, hint)) = name_and_port(&format!("{}:{}", settings.name, settings.port)) {
            at.key("name").error_hint(message, hint);
        }
        if settings.weight == 0 {
            at.key("weight")
                .error_hint("a weight of 0: no server would take a request", "write 1 or more, or leave it out");
        }
        self.asking().check(at);
    }

    /// Whom to ask, and how often.
    pub fn asking(&self) -> Asking {
        let Settings { resolver, min_ttl, max_ttl, .. } = &self.settings;
        Asking::new(resolver, *min_ttl, *max_ttl)
    }

    /// The list of the one name.
    pub fn build(&self, _: &Given<'_>) -> impl Source + use<> {
        let Settings { name, port, weight, .. } = &self.settings;
        let mut server = Server::at(format!("{}:{port}", name.to_ascii_lowercase()));
        server.settings.weight = *weight;
        OneName(server)
    }
}

struct OneName(Server);

/// What never changes need not be asked for again.
const A_DAY: Duration = Duration::from_secs(86_400);

#[async_trait]
impl Source for OneName {
    async fn ask(&mut self) -> Result<Told, Fault> {
        Ok(Told { servers: Some(vec![self.0.clone()]), again: A_DAY })
    }

    fn pause(&self, _: u32) -> Duration {
        A_DAY
    }
}
