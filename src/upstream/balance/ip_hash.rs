//! `ip_hash`: the same client to the same server.
//!
//! An IPv4 address counts as a whole, of an IPv6 address the first 64 bits: hosts change the others by the day.

use std::net::IpAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::circle::Circle;
use super::policy::{Ask, Members, Policy};
use crate::diag::Scope;

/// Options of the hash of addresses: none.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "IpHash")]
pub struct Config {}

impl Config {
    /// Nothing can be wrong.
    pub fn check(self, _: &Scope<'_>) {}

    /// The policy for these members.
    pub fn build(self, members: &Members<'_>) -> IpHash {
        IpHash { circle: Circle::maglev(members) }
    }

    /// A share that grows would move clients with each step.
    pub fn slow_start(self) -> Duration {
        Duration::ZERO
    }
}

/// The same client to the same member.
pub struct IpHash {
    circle: Circle,
}

impl Policy for IpHash {
    fn pick(&self, ask: &Ask<'_>) -> Option<usize> {
        match ask.facts.exchange.client.to_canonical() {
            IpAddr::V4(ip) => self.circle.pick(&ip.octets(), ask.passed),
            IpAddr::V6(ip) => self.circle.pick(&ip.octets()[..8], ask.passed),
        }
    }

    fn why(&self, _: usize, ask: &Ask<'_>) -> String {
        match ask.facts.exchange.client.to_canonical() {
            IpAddr::V4(ip) => format!("the address {ip} belongs to it"),
            IpAddr::V6(ip) => format!("the network of {ip} belongs to it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::policy_tests::{Request, members};
    use super::*;
    use crate::keep::Keep;

    #[test]
    fn the_addresses_of_one_host_go_to_one_server() {
        let (members, keep) = (members(&[1; 50]), Keep::default());
        let policy = Config {}.build(&Members { upstream: "api", members: &members, keep: &keep });
        let pick = |ip: &str| Request::from(ip).pick(&policy);
        assert_eq!(pick("2001:db8::1"), pick("2001:db8::ffff:1:2:3"));
        assert_ne!(pick("2001:db8::1"), pick("2001:db8:0:1::1"));
        assert_eq!(pick("::ffff:192.0.2.7"), pick("192.0.2.7"));
        assert_ne!(pick("192.0.2.7"), pick("192.0.2.8"));
    }
}
