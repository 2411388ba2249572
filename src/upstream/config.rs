//! `Config`: an upstream as the document has it: a mapping, a plain list of servers, or one address where a route
//! names no upstream.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::balance;
use super::discover;
use super::health;
use super::limits::{self, OfServer};
use super::peer::{Keepalive, Timeouts};
use super::retry;
use super::server::{self, Server};
use super::sticky;
use crate::diag::Scope;
use crate::units::Percent;

/// An upstream, in whatever form it was written.
#[derive(Clone, Debug)]
pub struct Config {
    /// What was written, and the defaults.
    pub settings: Settings,
    form: Form,
}

/// How an upstream was written: it decides the place of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// `{ servers: […], … }`
    Mapping,
    /// `[10.0.0.1:8080, …]`
    List,
    /// `10.0.0.1:8080`
    Address,
}

/// A named group of servers that share requests.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "UpstreamSettings")]
pub struct Settings {
    /// The servers: each an address, or a mapping of `address` and what else is to be said of it. At least one, unless
    /// `discover` tells them.
    pub servers: Vec<Server>,
    /// Who tells the servers, beside those under `servers`.
    pub discover: Option<discover::Config>,
    /// How long each step of a request to a server may take.
    pub timeouts: Timeouts,
    /// Which connections to servers are kept for further requests.
    pub keepalive: Keepalive,
    /// Which server takes the next request. Default: `round_robin`.
    pub balance: balance::Config,
    /// Which servers are preferred for being near.
    pub zone: Option<Zone>,
    /// Whether the requests of one client go to the same server, by a cookie: `true`, or how. A session goes on while its
    /// server is well, and at one that drains; else the client gets another server, and its cookie is renewed. A response
    /// with a status of 500 or more begins none. Default: `false`.
    pub sticky: sticky::Config,
    /// How the gateway learns which servers are well.
    pub health: health::config::Config,
    /// When another server is tried. A route may have a `retry` of its own.
    pub retry: retry::Config,
    /// How much the upstream and its servers take at once, and what becomes of the requests above that.
    pub limits: limits::Config,
    /// The `Host` field (RFC 9110, 7.2) that servers get: `keep`, the client's own; `backend`, the server's address as
    /// written here (a Unix socket's is `localhost`); or a text to send as it is, as in `app.internal`. Default: `keep`.
    pub host: Host,
    /// Whether clients get the `Server` and `X-Powered-By` fields of the servers' responses, which tell what software
    /// runs there. Default: `false`.
    pub keep_server_headers: bool,
}

/// Which servers are preferred for being near: the name of a zone, or a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// The zone whose servers are preferred.
    pub prefer: String,
    /// The share of its servers that must be well.
    pub at_least: Percent,
}

/// Which servers are preferred for being near.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ZoneSettings")]
pub struct ZoneSettings {
    /// The zone whose servers take all requests while enough of them are well, as in `eu-1a` or `${ZONE}`.
    pub prefer: String,
    /// The share of its servers that must be well; with fewer, the servers of all zones share the requests.
    /// Default: `50%`.
    #[serde(default = "half")]
    pub at_least: Percent,
}

fn half() -> Percent {
    Percent::new(50)
}

/// What a server's `Host` field says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Host {
    /// What the client said.
    #[default]
    Keep,
    /// The server's own address.
    Backend,
    /// This.
    Text(String),
}

impl Config {
    /// An upstream of one server, from an address that stands in the place of an upstream's name.
    pub fn address(address: &str) -> Self {
        Self { settings: Settings { servers: vec![Server::at(address)], ..Settings::default() }, form: Form::Address }
    }

    /// The host names of the servers, in lower case, to be resolved before [`super::Upstream::build`].
    pub fn names(&self) -> Vec<String> {
        server::names(&self.settings.servers).collect()
    }

    /// Reports what is wrong with its limits. Whether some server has, or may come to have, limits of its own.
    pub(super) fn check_limits(&self, at: &Scope<'_>) -> bool {
        let settings = &self.settings;
        let told = settings.discover.as_ref().is_some_and(discover::Config::tells_limits);
        let listed = settings.servers.iter().any(|server| server.settings.limits() != OfServer::default());
        // Without a queue, a server minds its own limits by itself.
        let of_servers = listed || told && settings.limits.queue > 0;
        settings.limits.check(of_servers, &at.key("limits"));
        of_servers
    }

    /// Calls `act` with the place of the list of servers.
    pub(super) fn at_servers<T>(&self, at: &Scope<'_>, act: impl FnOnce(&Scope<'_>) -> T) -> T {
        match self.form {
            Form::Mapping => act(&at.key("servers")),
            Form::List | Form::Address => act(at),
        }
    }

    /// Whether it is one address in the place of an upstream's name.
    pub(super) fn is_in_place(&self) -> bool {
        self.form == Form::Address
    }
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms;
        impl<'de> Visitor<'de> for Forms {
            type Value = Config;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of servers, as in `[10.0.0.1:8080]`, or a mapping with `servers`")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Config, A::Error> {
                let servers = Deserialize::deserialize(SeqAccessDeserializer::new(items))?;
                Ok(Config { settings: Settings { servers, ..Settings::default() }, form: Form::List })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Config, A::Error> {
                let settings = Deserialize::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Config { settings, form: Form::Mapping })
            }
        }
        deserializer.deserialize_any(Forms)
    }
}

impl JsonSchema for Config {
    fn schema_name() -> Cow<'static, str> {
        "Upstream".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (servers, settings) = (generator.subschema_for::<Vec<Server>>(), generator.subschema_for::<Settings>());
        json_schema!({
            "description": "A named group of servers that share requests: a list of servers, or a mapping.",
            "anyOf": [servers, settings],
        })
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms;
        impl<'de> Visitor<'de> for Forms {
            type Value = Zone;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a zone, as in `eu-1a`, or a mapping with `prefer`")
            }
            fn visit_str<E: Error>(self, name: &str) -> Result<Zone, E> {
                Ok(Zone { prefer: name.to_owned(), at_least: half() })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Zone, A::Error> {
                let ZoneSettings { prefer, at_least } = Deserialize::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Zone { prefer, at_least })
            }
        }
        deserializer.deserialize_any(Forms)
    }
}

impl JsonSchema for Zone {
    fn schema_name() -> Cow<'static, str> {
        "Zone".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let settings = generator.subschema_for::<ZoneSettings>();
        json_schema!({
            "description": "The name of the zone whose servers are preferred, or a mapping.",
            "anyOf": [{ "type": "string" }, settings],
        })
    }
}

impl<'de> Deserialize<'de> for Host {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(match text.as_str() {
            "keep" => Self::Keep,
            "backend" => Self::Backend,
            _ => Self::Text(text),
        })
    }
}

impl JsonSchema for Host {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Host".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "examples": ["keep", "backend", "app.internal"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::HumanDuration;

    fn read(yaml: &str) -> Config {
        serde_yaml::from_str(yaml).unwrap()
    }

    #[test]
    fn a_plain_list_is_a_mapping_with_defaults() {
        for yaml in
            ["[10.0.0.1:80, { address: app:80, weight: 3 }]", "servers: [10.0.0.1:80, { address: app:80, weight: 3 }]"]
        {
            let config = read(yaml);
            let servers: Vec<_> = config
                .settings
                .servers
                .iter()
                .map(|Server { settings: s, .. }| (s.address.as_str(), s.weight))
                .collect();
            assert_eq!(servers, [("10.0.0.1:80", 1), ("app:80", 3)]);
            assert_eq!(config.settings.timeouts, Timeouts::default());
            assert_eq!(config.settings.host, Host::Keep);
            assert_eq!(config.names(), ["app"]);
        }
    }

    #[test]
    fn every_setting_is_read() {
        let config = read(
            "{ servers: [a:1], timeouts: { connect: 1s, total_connect: 2s, read: 3s, write: 4s, total: 5s, tunnel: 6s },
               keepalive: { idle: 7s }, balance: round_robin, retry: { attempts: 8 }, host: backend, keep_server_headers: true }",
        )
        .settings;
        let seconds = HumanDuration::secs;
        assert_eq!(
            config.timeouts,
            Timeouts {
                connect: seconds(1),
                total_connect: seconds(2),
                read: seconds(3),
                write: seconds(4),
                total: seconds(5),
                tunnel: seconds(6)
            }
        );
        assert_eq!((config.keepalive.idle, config.retry.attempts), (seconds(7), 8));
        assert_eq!((config.host, config.keep_server_headers), (Host::Backend, true));
        assert_eq!(read("{ servers: [a:1], host: a.example }").settings.host, Host::Text("a.example".to_owned()));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for (yaml, fault) in [
            ("server: [a:1]", "unknown field `server`"),
            ("[{ address: a:1, weigth: 2 }]", "unknown field `weigth`"),
            ("[{ weight: 2 }]", "missing field `address`"),
            ("[8080]", "a server's address"),
            ("a:1", "a list of servers"),
            ("{ timeouts: { first_byte: 1s } }", "unknown field `first_byte`"),
        ] {
            let error = serde_yaml::from_str::<Config>(yaml).unwrap_err().to_string();
            assert!(error.contains(fault), "{yaml}: {error}");
        }
    }

    #[test]
    fn the_schema_has_all_forms_and_the_defaults() {
        let schema = schemars::schema_for!(Config).to_value().to_string();
        for part in ["\"connect\":\"3s\"", "\"attempts\":2", "\"idle\":\"1m\"", "\"minimum\":0", "RFC 9110, 7.2"] {
            assert!(schema.contains(part), "{part} is not in {schema}");
        }
    }
}
