//! The servers of a document as backends: addresses read, names replaced by what they resolved to, weights and
//! duplicates checked.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderValue;

use super::address::ServerAddress;
use super::backend::Seat;
use super::config::{Config, Host, Server};
use super::limits::OfServer;
use super::peer::PeerTemplate;
use super::resolve::{Answer, LastGood, Resolved};
use crate::diag::Scope;

/// The backends to be of one upstream.
pub(super) struct Servers {
    /// The spares come last.
    pub(super) seats: Vec<Seat>,
    /// What keeps the last good answers of the names from being forgotten.
    pub(super) last_good: Vec<Arc<LastGood>>,
}

/// Finds the seats, or reports why not.
pub(super) fn build(config: &Config, resolved: &Resolved, at: &Scope<'_>) -> Option<Servers> {
    let addresses = config.at_servers(at, |at| addresses(config, at))?;
    let mut seats = Seats { config, regular: Vec::new(), spare: Vec::new(), last_good: Vec::new() };
    let mut all_found = true;
    for (index, (server, address)) in config.settings.servers.iter().zip(&addresses).enumerate() {
        let seated =
            config.at_servers(at, |at| config.at_address(at, index, |at| seats.add(server, address, resolved, at)));
        all_found &= seated.is_some();
    }
    all_found.then(|| seats.finish())
}

/// The addresses of the servers, if nothing is wrong with any of them.
fn addresses(config: &Config, at: &Scope<'_>) -> Option<Vec<ServerAddress>> {
    let servers = &config.settings.servers;
    if servers.is_empty() {
        at.error_hint("the upstream has no servers", "list at least one, as in `servers: [10.0.0.1:8080]`");
        return None;
    }
    let mut addresses = Vec::with_capacity(servers.len());
    let mut first_at = HashMap::new();
    for (index, server) in servers.iter().enumerate() {
        config.at_address(at, index, |at| match server.settings.address.parse::<ServerAddress>() {
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
    if servers.iter().all(|server| server.settings.weight == 0) {
        at.error_hint(
            "a weight of 0 everywhere: no server would take a request",
            "give at least one server a `weight` of 1 or more",
        );
        return None;
    }
    (addresses.len() == servers.len()).then_some(addresses)
}

struct Seats<'a> {
    config: &'a Config,
    regular: Vec<Seat>,
    spare: Vec<Seat>,
    last_good: Vec<Arc<LastGood>>,
}

impl Seats<'_> {
    fn add(&mut self, server: &Server, address: &ServerAddress, resolved: &Resolved, at: &Scope<'_>) -> Option<()> {
        let settings = &self.config.settings;
        let authority = HeaderValue::try_from(address.authority()).expect("an address has no byte that a field lacks");
        match address {
            ServerAddress::Socket(socket) => self.add_tcp(server, *socket, authority, false),
            ServerAddress::Unix(path) => {
                let template = PeerTemplate::unix(path, settings.timeouts, settings.keepalive)
                    .expect("the path was checked when the address was read");
                self.regular.push(self.seat(server, address.to_string(), authority, template));
            }
            ServerAddress::Name(name, port) => {
                let answer = resolved.get(name);
                let addresses = answer.map_or(&[][..], |answer| &answer.addresses);
                report(name, answer, at);
                let first = addresses.first()?;
                for ip in addresses {
                    // IPv4 comes first: see `Answer::addresses`.
                    let spare = ip.is_ipv4() != first.is_ipv4();
                    self.add_tcp(server, SocketAddr::new(*ip, *port), authority.clone(), spare);
                }
                self.last_good.extend(answer.map(|answer| answer.last_good.clone()));
            }
        }
        Some(())
    }

    fn add_tcp(&mut self, server: &Server, address: SocketAddr, authority: HeaderValue, spare: bool) {
        let settings = &self.config.settings;
        // A spare of a server that takes no requests takes none either.
        if spare && server.settings.weight == 0 {
            return;
        }
        let template = PeerTemplate::tcp(address, settings.timeouts, settings.keepalive);
        let mut new = self.seat(server, address.to_string(), authority, template);
        if spare {
            (new.spare, new.weight) = (true, 0);
        }
        let seats = if spare { &mut self.spare } else { &mut self.regular };
        // Two names for one server make one backend with both weights, unless it is to be told which name was meant.
        let same = |seat: &&mut Seat| {
            seat.label == new.label && (settings.host != Host::Backend || seat.authority == new.authority)
        };
        match seats.iter_mut().find(same) {
            Some(seat) => seat.weight = seat.weight.saturating_add(new.weight),
            None => seats.push(new),
        }
    }

    /// The seat of a server at one address.
    fn seat(&self, server: &Server, label: String, authority: HeaderValue, template: PeerTemplate) -> Seat {
        let settings = &server.settings;
        Seat {
            label,
            weight: settings.weight,
            tier: settings.tier(),
            zone: settings.zone.as_deref().map(Arc::from),
            drains: settings.drain,
            spare: false,
            authority,
            template,
            limits: OfServer::of(&self.config.settings.limits, settings.limits()),
        }
    }

    fn finish(mut self) -> Servers {
        self.spare.retain(|spare| {
            self.regular.iter().all(|seat| (&seat.label, &seat.authority) != (&spare.label, &spare.authority))
        });
        self.regular.append(&mut self.spare);
        Servers { seats: self.regular, last_good: self.last_good }
    }
}

/// Says what a failed lookup means.
fn report(name: &str, answer: Option<&Answer>, at: &Scope<'_>) {
    let reason = match answer {
        Some(Answer { fault: None, .. }) => return,
        Some(Answer { fault: Some(reason), .. }) => reason,
        None => "nobody looked it up",
    };
    if answer.is_some_and(|answer| !answer.addresses.is_empty()) {
        at.warn(
            format!("`{name}` cannot be resolved now ({reason})"),
            "the addresses it had before stay in use; reload when the name can be resolved again",
        );
    } else {
        at.error_hint(
            format!("no host is known by the name `{name}` ({reason})"),
            "check the name and this machine's DNS, or write an IP address",
        );
    }
}
