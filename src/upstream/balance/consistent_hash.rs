//! `consistent_hash`: the same key to the same server, so that each server's cache holds a part of what there is.
//!
//! A request whose key is empty goes to any server, by weight: all those together shall not have one.

use std::cell::RefCell;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::circle::Circle;
use super::policy::{Ask, Members, Policy};
use crate::diag::{Issues, Scope};
use crate::exchange::Facts;
use crate::template::{Moment, Template};

/// The most that `bounded_load` may be: beyond, it bounds nothing.
const MAX_BOUND: f64 = 10.0;

/// What decides which requests belong together, and how servers are found for them.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "ConsistentHash")]
pub struct Config {
    /// The requests for which this text is the same go to the same server: `${client.ip}`, `${request.host}`,
    /// `${request.path}`, `${request.query.NAME}`, `${request.headers.NAME}`, `${request.cookies.NAME}`, or a text made of
    /// several. A request that has none of what is named goes to any server, by weight. Default: `${client.ip}`.
    pub key: String,
    /// How a key finds its server. Default: `maglev`.
    pub algorithm: Algorithm,
    /// No server gets more than this many times its share of the requests under way (rounded up to a whole request);
    /// what would exceed it goes to the next server, the same one for the same key. 1.0 to 10.0; 1.25 leaves a quarter
    /// of room. Default: no bound.
    pub bounded_load: Option<f64>,
}

/// How a key finds its server.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "HashAlgorithm")]
pub enum Algorithm {
    /// A table: shares are exact, and finding costs the same for any number of servers. When a server comes or goes, a
    /// percent or two of the other servers' keys may move as well.
    #[default]
    Maglev,
    /// A ketama ring, the same as `hash … consistent` of nginx: shares are mostly within a tenth of what is due, and no
    /// keys move but those of the server that comes or goes.
    Ring,
}

impl Default for Config {
    fn default() -> Self {
        Self { key: CLIENT.to_owned(), algorithm: Algorithm::default(), bounded_load: None }
    }
}

impl Config {
    /// Reports what cannot work.
    pub fn check(&self, at: &Scope<'_>) {
        let key = at.key("key");
        if let Some(template) = Template::compile(&self.key, &[], Moment::Request, &key)
            && template.as_literal().is_some()
        {
            key.error_hint(
                format!("`{}` is the same for all requests: one server would get them all", self.key),
                "name what tells them apart, as in `${client.ip}` or `${request.path}`",
            );
        }
        if let Some(bound) = self.bounded_load
            && !(1.0..=MAX_BOUND).contains(&bound)
        {
            at.key("bounded_load").error_hint(
                format!("a bound of {bound} times the share of each server"),
                "write a number from 1.0 to 10.0, as in `1.25`",
            );
        }
    }

    /// The policy for these members.
    pub fn build(&self, members: &Members<'_>) -> ConsistentHash {
        let circle = match self.algorithm {
            Algorithm::Maglev => Circle::maglev(members),
            Algorithm::Ring => Circle::ring(members),
        };
        let circle = match self.bounded_load {
            Some(factor) => circle.bounded(factor, members),
            None => circle,
        };
        ConsistentHash { circle, key: Key::of(&self.key, self.algorithm) }
    }

    /// A share that grows would move keys with each step.
    pub fn slow_start(&self) -> Duration {
        Duration::ZERO
    }
}

/// The same key to the same member.
pub struct ConsistentHash {
    circle: Circle,
    key: Key,
}

impl Policy for ConsistentHash {
    fn pick(&self, ask: &Ask<'_>) -> Option<usize> {
        self.key.with(ask.facts, |key| match key {
            Some(key) => self.circle.pick(key, ask.passed),
            None => self.circle.any(ask.passed),
        })
    }

    fn why(&self, picked: usize, ask: &Ask<'_>) -> String {
        self.key.with(ask.facts, |key| match key {
            None => "drawn at random by weight, for the request has no key".to_owned(),
            Some(key) => {
                let text = match self.key {
                    Key::Client => ask.facts.exchange.client.to_string().into(),
                    _ => String::from_utf8_lossy(key),
                };
                match self.circle.is_first_choice(picked, key) {
                    true => format!("the key `{text}` belongs to it"),
                    false => format!("the next after the one that the key `{text}` belongs to"),
                }
            }
        })
    }
}

/// How the commonest key is written.
const CLIENT: &str = "${client.ip}";

/// What is hashed.
enum Key {
    /// The bytes of the client's address.
    Client,
    /// Its text, as nginx hashes it.
    ClientText,
    /// Another text, and how much of it never varies.
    Text(Template, usize),
}

impl Key {
    fn of(text: &str, algorithm: Algorithm) -> Self {
        // What is wrong with it was reported by `Config::check`.
        match Template::compile(text, &[], Moment::Request, &Issues::default().root()) {
            Some(template) if text != CLIENT => Self::Text(template.clone(), template.literal_len()),
            _ if algorithm == Algorithm::Ring => Self::ClientText,
            _ => Self::Client,
        }
    }

    /// Calls `act` with the key of a request; with `None` when all that it is made of is missing.
    fn with<T>(&self, facts: &Facts<'_>, act: impl FnOnce(Option<&[u8]>) -> T) -> T {
        thread_local! {
            // Kept, so that no pick allocates.
            static TEXT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        match (self, facts.exchange.client) {
            (Self::Client, IpAddr::V4(ip)) => act(Some(&ip.octets())),
            (Self::Client, IpAddr::V6(ip)) => act(Some(&ip.octets())),
            (Self::ClientText, IpAddr::V4(ip)) => {
                let (text, len) = ipv4_text(ip);
                act(Some(&text[..len]))
            }
            (Self::ClientText, IpAddr::V6(ip)) => TEXT.with_borrow_mut(|text| {
                text.clear();
                // Writing to a Vec cannot fail.
                let _ = write!(text, "{ip}");
                act(Some(text))
            }),
            (Self::Text(template, fixed), _) => TEXT.with_borrow_mut(|text| {
                text.clear();
                template.render(facts, text);
                act((text.len() > *fixed).then_some(text))
            }),
        }
    }
}

/// What `Display` says of an address, for a tenth of the time; and how long it is.
fn ipv4_text(ip: Ipv4Addr) -> ([u8; 16], usize) {
    /// The digits of each octet with a dot behind, and how many bytes these are.
    static OCTETS: [([u8; 4], u8); 256] = {
        let mut octets = [([b'.'; 4], 0); 256];
        let mut octet = 0;
        while octet < 256 {
            let digits = [b'0' + (octet / 100) as u8, b'0' + (octet / 10 % 10) as u8, b'0' + (octet % 10) as u8];
            let first = if octet >= 100 {
                0
            } else if octet >= 10 {
                1
            } else {
                2
            };
            let mut digit = first;
            while digit < 3 {
                octets[octet].0[digit - first] = digits[digit];
                digit += 1;
            }
            octets[octet].1 = 4 - first as u8;
            octet += 1;
        }
        octets
    };
    let (mut text, mut len) = ([0; 16], 0);
    for octet in ip.octets() {
        let (digits, count) = &OCTETS[usize::from(octet)];
        // Three octets before take 12 bytes at most.
        text[len..len + 4].copy_from_slice(digits);
        len += usize::from(*count);
    }
    (text, len - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_it_is_displayed() {
        for ip in ["0.0.0.0", "1.22.133.255", "192.168.100.9", "255.255.255.255", "10.0.99.101"] {
            let (text, len) = ipv4_text(ip.parse().unwrap());
            assert_eq!(std::str::from_utf8(&text[..len]).unwrap(), ip);
        }
    }
}
