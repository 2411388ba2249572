//! The servers of a document as backends: addresses read, names replaced by what they resolved to, weights and
//! duplicates checked.

use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderValue;

use super::address::ServerAddress;
use super::backend::Backend;
use super::config::{Config, Host};
use super::last_good::LastGood;
use super::peer::PeerTemplate;
use super::resolve::{Answer, Resolved};
use super::server::{self, Server};
use crate::diag::Scope;
use crate::keep::Keep;

/// The backends of one upstream.
pub(super) struct Servers {
    pub(super) backends: Vec<Backend>,
    /// The positions of those that are tried only after all others, in this order: the IPv6 addresses of names that
    /// have IPv4 ones too. Their weight is 0.
    pub(super) spares: Vec<usize>,
    /// What keeps the last good answers of the names from being forgotten.
    pub(super) last_good: Vec<Arc<LastGood>>,
}

/// One backend to be.
struct Seat {
    label: String,
    weight: u32,
    authority: HeaderValue,
    template: PeerTemplate,
}

/// Makes the backends, or reports why not.
pub(super) fn build(name: &str, config: &Config, resolved: &Resolved, keep: &Keep, at: &Scope<'_>) -> Option<Servers> {
    let servers = &config.settings.servers;
    let in_place = config.is_in_place();
    let addresses = config.at_servers(at, |at| {
        if servers.is_empty() {
            at.error_hint("the upstream has no servers", "list at least one, as in `servers: [10.0.0.1:8080]`");
            return None;
        }
        server::addresses(servers, in_place, at)
    })?;
    let mut seats = Seats { config, regular: Vec::new(), spare: Vec::new(), last_good: Vec::new() };
    let mut all_found = true;
    for (index, (server, address)) in servers.iter().zip(&addresses).enumerate() {
        let seated = config.at_servers(at, |at| {
            server::at_address(server, index, in_place, at, |at| seats.add(server, address, resolved, at))
        });
        all_found &= seated.is_some();
    }
    all_found.then(|| seats.finish(name, keep))
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
                let weight = server.settings.weight;
                self.regular.push(Seat { label: address.to_string(), weight, authority, template });
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
        let label = address.to_string();
        let weight = if spare { 0 } else { server.settings.weight };
        // A spare of a server that takes no requests takes none either.
        if spare && server.settings.weight == 0 {
            return;
        }
        let seats = if spare { &mut self.spare } else { &mut self.regular };
        // Two names for one server make one backend with both weights, unless it is to be told which name was meant.
        let same =
            |seat: &&mut Seat| seat.label == label && (settings.host != Host::Backend || seat.authority == authority);
        if let Some(seat) = seats.iter_mut().find(same) {
            seat.weight = seat.weight.saturating_add(weight);
            return;
        }
        let template = PeerTemplate::tcp(address, settings.timeouts, settings.keepalive);
        seats.push(Seat { label, weight, authority, template });
    }

    fn finish(mut self, name: &str, keep: &Keep) -> Servers {
        let regular = self.regular.len();
        self.spare.retain(|spare| {
            self.regular.iter().all(|seat| (&seat.label, &seat.authority) != (&spare.label, &spare.authority))
        });
        let seats = self.regular.into_iter().chain(self.spare);
        let backends: Vec<_> = seats
            .map(|seat| Backend::new(name, &seat.label, seat.weight, seat.authority, seat.template, keep))
            .collect();
        Servers { spares: (regular..backends.len()).collect(), backends, last_good: self.last_good }
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
