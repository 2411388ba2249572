//! `Servers`: the servers of an upstream, listed in the document or told by somebody else, at first and from then on.
//!
//! What a document must say of them is checked when it is compiled; what is told later was checked by who asked for it.
//! Either becomes seats: names replaced by their addresses, and each address once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use http::HeaderValue;

use super::address::ServerAddress;
use super::backend::Seat;
use super::config::{Config, Host, Settings};
use super::discover::asking::Asking;
use super::discover::follow::{Addresses, Follower, LastList, Roster, follow};
use super::discover::source::Given;
use super::last_good::LastGood;
use super::limits::OfServer;
use super::peer::PeerTemplate;
use super::resolve::{Answer, Resolved};
use super::server::{self, Server};
use crate::diag::Scope;
use crate::http_client::HttpClient;
use crate::keep::Keep;
use crate::observe::DiscoveryStats;

/// The servers of one upstream.
pub(super) struct Servers {
    settings: Settings,
    folder: PathBuf,
    roster: Roster,
    /// Whether that is what the source says now.
    fresh: bool,
    /// `None`: all that there ever will be stands in the document.
    stats: Option<Arc<DiscoveryStats>>,
    // Held, not read: what keeps the last good answers from being forgotten.
    _last_good: Vec<Arc<LastGood>>,
    _last_list: Option<Arc<LastList>>,
}

impl Servers {
    /// Finds the servers, or reports why not.
    pub(super) fn build(name: &str, config: &Config, resolved: &Resolved, keep: &Keep, at: &Scope<'_>) -> Option<Self> {
        let settings = &config.settings;
        let (listed, last_good) = config.at_servers(at, |at| listed(config, resolved, at)).unzip();
        let mut roster = Roster { listed: listed.unwrap_or_default(), ..Roster::default() };
        let (mut last_list, mut fresh) = (None, true);
        if let Some(discover) = &settings.discover {
            let at = at.key("discover");
            discover.check(&at);
            if let Some(loaded) = resolved.told_by(discover) {
                (roster.servers, roster.addresses) = (loaded.servers.clone(), loaded.addresses.clone());
                last_list = Some(Arc::clone(&loaded.last));
                fresh = loaded.fault.is_none();
                if let Some(fault) = &loaded.fault {
                    warn_of(fault.reason(), !roster.servers.is_empty(), &at.key(discover.word()));
                }
            }
        }
        let changes = settings.discover.is_some() || !roster.listed.is_empty();
        let stats = changes.then(|| keep.get_or(name, DiscoveryStats::default));
        Some(Self {
            settings: settings.clone(),
            folder: resolved.folder().to_owned(),
            roster,
            fresh,
            stats,
            _last_good: last_good?,
            _last_list: last_list,
        })
    }

    /// The seats of the servers that there were when the document was loaded.
    pub(super) fn seats(&self) -> Vec<Seat> {
        seats(&self.settings, &self.roster)
    }

    /// Follows the servers for as long as the future is polled, and gives `take` the seats when they have changed. `None`:
    /// they never change.
    pub(super) fn follow<T: Fn(Vec<Seat>) + Send + Sync + 'static>(
        &self,
        name: &Arc<str>,
        keep: &Arc<Keep>,
        take: T,
    ) -> Option<impl Future<Output = ()> + Send + use<T>> {
        let stats = Arc::clone(self.stats.as_ref()?);
        let (roster, name, keep) = (self.roster.clone(), Arc::clone(name), Arc::clone(keep));
        let (settings, folder) = (self.settings.clone(), self.folder.clone());
        stats.backends.set(seats(&settings, &roster).len() as i64);
        if self.fresh {
            stats.note_good();
        }
        Some(async move {
            let listed = server::names(&settings.servers).collect();
            let given = Given { folder: &folder, client: &keep.get_or("", HttpClient::new) };
            let asked = settings.discover.as_ref().map(|discover| discover.asked(&given, &keep));
            let mut follower = Follower::new(listed, Asking::default(), asked, &keep);
            follower.resume();
            let take = |roster: &Roster| {
                let seats = seats(&settings, roster);
                stats.backends.set(seats.len() as i64);
                take(seats);
            };
            follow(follower, roster, name, &stats, take).await;
        })
    }
}

/// The addresses of the names among the servers that the document lists, and what holds them; `None` when something is
/// wrong with the list.
fn listed(config: &Config, resolved: &Resolved, at: &Scope<'_>) -> Option<(Addresses, Vec<Arc<LastGood>>)> {
    let (servers, in_place) = (&config.settings.servers, config.is_in_place());
    if servers.is_empty() && config.settings.discover.is_none() {
        at.error_hint(
            "the upstream has no servers",
            "list at least one, as in `servers: [10.0.0.1:8080]`, or let `discover` tell them",
        );
        return None;
    }
    let addresses = server::addresses(servers, in_place, at)?;
    let (mut known, mut last_good) = (BTreeMap::new(), Vec::new());
    for (index, (server, address)) in servers.iter().zip(&addresses).enumerate() {
        let Some(name) = address.name() else { continue };
        let answer = resolved.get(name);
        server::at_address(server, index, in_place, at, |at| report(name, answer, at));
        if let Some(answer) = answer.filter(|answer| !answer.addresses.is_empty()) {
            known.insert(name.to_owned(), answer.addresses.clone());
            last_good.push(Arc::clone(&answer.last_good));
        }
    }
    let all_known = addresses.iter().filter_map(ServerAddress::name).all(|name| known.contains_key(name));
    all_known.then_some((known, last_good))
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
            "the addresses it had before stay in use until it can be resolved again",
        );
    } else {
        at.error_hint(
            format!("no host is known by the name `{name}` ({reason})"),
            "check the name and this machine's DNS, or write an IP address",
        );
    }
}

/// Says what it means that a source told nothing.
fn warn_of(reason: &str, known: bool, at: &Scope<'_>) {
    let hint = match known {
        true => "the servers known before stay in use until it tells others",
        false => "it goes on being asked; until it tells servers, requests that need them get 503",
    };
    at.warn(format!("no servers are told now: {reason}"), hint);
}

/// The seats of all servers, spares last. Of those that are told there is nothing wrong.
fn seats(settings: &Settings, roster: &Roster) -> Vec<Seat> {
    let mut seats = Seats { settings, regular: Row::default(), spare: Row::default() };
    for server in &settings.servers {
        seats.add(server, &roster.listed);
    }
    for server in &roster.servers {
        seats.add(server, &roster.addresses);
    }
    seats.finish()
}

struct Seats<'a> {
    settings: &'a Settings,
    regular: Row,
    spare: Row,
}

/// Seats in the order in which they came, each once.
#[derive(Default)]
struct Row {
    seats: Vec<Seat>,
    positions: HashMap<(String, Option<HeaderValue>), usize>,
}

impl Row {
    fn add(&mut self, seat: Seat, by_authority: bool) {
        let key = (seat.label.clone(), by_authority.then(|| seat.authority.clone()));
        match self.positions.get(&key) {
            Some(position) => {
                let known = &mut self.seats[*position];
                known.weight = known.weight.saturating_add(seat.weight);
            }
            None => {
                self.positions.insert(key, self.seats.len());
                self.seats.push(seat);
            }
        }
    }
}

impl Seats<'_> {
    fn add(&mut self, server: &Server, known: &Addresses) {
        let Ok(address) = server.settings.address.parse::<ServerAddress>() else { return };
        let authority = HeaderValue::try_from(address.authority()).expect("an address has no byte that a field lacks");
        match &address {
            ServerAddress::Socket(socket) => self.add_tcp(server, *socket, authority, false),
            ServerAddress::Unix(path) => {
                let template = PeerTemplate::unix(path, self.settings.timeouts, self.settings.keepalive)
                    .expect("the path was checked when the address was read");
                let seat = self.seat(server, address.to_string(), authority, template);
                self.regular.add(seat, self.by_authority());
            }
            ServerAddress::Name(name, port) => {
                let addresses = known.get(&**name).map_or(&[][..], Vec::as_slice);
                for ip in addresses {
                    // IPv4 comes first: see `LastGood::get`.
                    let spare = ip.is_ipv6() && addresses.first().is_some_and(IpAddr::is_ipv4);
                    self.add_tcp(server, SocketAddr::new(*ip, *port), authority.clone(), spare);
                }
            }
        }
    }

    fn add_tcp(&mut self, server: &Server, address: SocketAddr, authority: HeaderValue, spare: bool) {
        let template = PeerTemplate::tcp(address, self.settings.timeouts, self.settings.keepalive);
        let mut seat = self.seat(server, address.to_string(), authority, template);
        let by_authority = self.by_authority();
        if !spare {
            return self.regular.add(seat, by_authority);
        }
        // A spare of a server that takes no requests takes none either.
        if seat.weight > 0 {
            (seat.spare, seat.weight) = (true, 0);
            self.spare.add(seat, by_authority);
        }
    }

    /// Two names for one server make one backend with both weights, unless it is to be told which name was meant.
    fn by_authority(&self) -> bool {
        self.settings.host == Host::Backend
    }

    fn finish(self) -> Vec<Seat> {
        let mut seats = self.regular.seats;
        let known: HashSet<_> = seats.iter().map(|seat| (seat.label.clone(), seat.authority.clone())).collect();
        let spares = self.spare.seats.into_iter();
        seats.extend(spares.filter(|spare| !known.contains(&(spare.label.clone(), spare.authority.clone()))));
        seats
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
            limits: OfServer::of(&self.settings.limits, settings.limits()),
        }
    }
}
