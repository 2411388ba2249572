//! `Server`: one server as a list has it, be that in the document, in a file or in an answer: its address, or a mapping.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use super::address::ServerAddress;
use super::limits::{self, OfServer};
use crate::diag::Scope;

/// One server of an upstream: its address, or a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The settings of this server.
    pub settings: ServerSettings,
    /// Whether it was written as its address alone: it decides the place of a fault.
    plain: bool,
}

/// One server of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ServerSettings")]
pub struct ServerSettings {
    /// Where it listens: an IP address and a port (`10.0.0.1:8080`, `[fd00::1]:8080`), a name and a port
    /// (`app.internal:8080`), or a Unix socket (`unix:/run/app.sock`).
    ///
    /// A name is resolved when the document is loaded, and again whenever its time to live (TTL) is over; when that
    /// fails, the addresses known before stay in use. A name with several addresses counts as several servers, each with
    /// the full weight. When some of them are IPv4 and some IPv6 (`localhost` is 127.0.0.1 and ::1), the IPv4 ones share
    /// the requests, and an IPv6 one is asked only when no other server is well, or all were tried, as far as `retry`
    /// allows.
    pub address: String,
    /// Its share of the requests, relative to the other servers' weights. `0`: it takes none. Default: 1.
    #[serde(default = "one")]
    pub weight: u32,
    /// Whether it takes requests only when none of the others is well: the same as `priority: 1`. Default: `false`.
    #[serde(default)]
    pub backup: bool,
    /// Its tier. Requests go to the servers of the lowest number of which one is well; `retry` goes on to the next tier
    /// when all of one were tried. With `backup: true` at least 1. Default: 0.
    #[serde(default)]
    pub priority: u32,
    /// Where it stands, as in `eu-1a`: see the upstream's `zone`.
    #[serde(default)]
    pub zone: Option<String>,
    /// Whether it finishes the requests it has (and serves the sessions that stick to it) and takes nothing new. The
    /// admin listener can do the same for the moment. Default: `false`.
    #[serde(default)]
    pub drain: bool,
    /// How many requests may be under way here. Default: the upstream's `server_requests`.
    #[serde(default)]
    pub max_requests: Option<u32>,
    /// How many connections may be open. Default: the upstream's `connections`.
    #[serde(default)]
    pub max_connections: Option<u32>,
}

impl ServerSettings {
    /// Its tier, however it was written.
    pub fn tier(&self) -> u32 {
        self.priority.max(u32::from(self.backup))
    }

    /// How much it takes at once, as far as it says so itself.
    pub fn limits(&self) -> OfServer {
        OfServer { requests: self.max_requests, connections: self.max_connections }
    }
}

fn one() -> u32 {
    1
}

impl Server {
    /// The server at this address, with all else as is usual.
    pub fn at(address: impl Into<String>) -> Self {
        let address = address.into();
        let settings = ServerSettings {
            address,
            weight: one(),
            backup: false,
            priority: 0,
            zone: None,
            drain: false,
            max_requests: None,
            max_connections: None,
        };
        Self { settings, plain: true }
    }
}

/// The host names among the addresses of these servers, in lower case. Wrong addresses have none.
pub fn names(servers: &[Server]) -> impl Iterator<Item = String> {
    let addresses = servers.iter().filter_map(|server| server.settings.address.parse().ok());
    addresses.filter_map(|address: ServerAddress| address.name().map(str::to_owned))
}

/// The addresses of a list of servers, if nothing is wrong with the list; else reports what is, below `at`, the place of
/// the list. `in_place`: the list is one address, and has no places of its own.
pub fn addresses(servers: &[Server], in_place: bool, at: &Scope<'_>) -> Option<Vec<ServerAddress>> {
    let mut addresses = Vec::with_capacity(servers.len());
    let mut first_at = HashMap::new();
    for (index, server) in servers.iter().enumerate() {
        let place = at.index(index);
        limits::check_limit(server.settings.max_requests, &place.key("max_requests"));
        limits::check_limit(server.settings.max_connections, &place.key("max_connections"));
        at_address(server, index, in_place, at, |at| match server.settings.address.parse::<ServerAddress>() {
            Ok(address) => {
                if let Some(first) = first_at.insert(address.clone(), index) {
                    at.error_hint(
                        format!("`{address}` is here twice: it is server {} already", first + 1),
                        "write it once; for a greater share of the requests give it a `weight`",
                    );
                } else {
                    addresses.push(address);
                }
            }
            Err(fault) => at.error_hint(fault.message, fault.hint),
        });
    }
    if !servers.is_empty() && servers.iter().all(|server| server.settings.weight == 0) {
        at.error_hint(
            "a weight of 0 everywhere: no server would take a request",
            "give at least one server a `weight` of 1 or more",
        );
        return None;
    }
    (addresses.len() == servers.len()).then_some(addresses)
}

/// Calls `act` with the place of a server's address, from the place of the list.
pub fn at_address<T>(
    server: &Server,
    index: usize,
    in_place: bool,
    list: &Scope<'_>,
    act: impl FnOnce(&Scope<'_>) -> T,
) -> T {
    match (in_place, server.plain) {
        (true, _) => act(list),
        (false, true) => act(&list.index(index)),
        (false, false) => act(&list.index(index).key("address")),
    }
}

impl<'de> Deserialize<'de> for Server {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms;
        impl<'de> Visitor<'de> for Forms {
            type Value = Server;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a server's address, as in `10.0.0.1:8080`, or a mapping with `address`")
            }
            fn visit_str<E: Error>(self, address: &str) -> Result<Server, E> {
                Ok(Server::at(address))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Server, A::Error> {
                let settings = Deserialize::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Server { settings, plain: false })
            }
        }
        deserializer.deserialize_any(Forms)
    }
}

impl JsonSchema for Server {
    fn schema_name() -> Cow<'static, str> {
        "Server".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let settings = generator.subschema_for::<ServerSettings>();
        json_schema!({
            "description": "One server: its address, or a mapping.",
            "anyOf": [{ "type": "string", "examples": ["10.0.0.1:8080"] }, settings],
        })
    }
}
