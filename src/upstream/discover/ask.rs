//! `Asker`: asks DNS for the addresses of a name, or for the places of a service (SRV), and tells how long the answer holds.
//!
//! Names are looked up as the system does it: first in the hosts file, then in DNS, with the search list of
//! `resolv.conf`. Unlike the system's own function it tells the time to live, blocks no thread and can be called off.
//! Both files are read anew once they have changed. A name that neither knows is asked of the system, too, which may have
//! further ways (`nsswitch.conf`). With name servers of its own, an asker asks those and nobody else.

use std::fs;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::{Hosts, Resolver, TokioResolver, system_conf};

/// The files that say how names are looked up.
const SYSTEM_FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];
/// How long one question may take, the whole search list included.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long one name server may take to answer one packet. The system's usual 5 s would use up all the time there is.
const ONE_TRY: Duration = Duration::from_secs(2);
/// How long an answer holds that does not tell: from the hosts file, or from the system.
const UNTOLD: Duration = Duration::from_secs(30);

/// What was asked for, and how long it holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// What was asked for.
    pub found: T,
    /// The least time to live of all records.
    pub ttl: Duration,
}

/// Where one server of a service is (RFC 2782).
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    /// The lower comes first.
    pub priority: u16,
    /// Its share among those of the same priority.
    pub weight: u16,
    /// Its name, with a dot at its end.
    pub target: String,
    /// Its port.
    pub port: u16,
}

/// Asks DNS. Clones share what they know of the system.
#[derive(Clone)]
pub struct Asker {
    servers: Arc<[SocketAddr]>,
    made: Arc<Mutex<Option<Made>>>,
}

/// What tells that a file has changed.
type Stamp = [Option<(SystemTime, u64)>; SYSTEM_FILES.len()];

/// How names are looked up, and what the system's files looked like when that was found out.
type Made = (Stamp, Arc<Way>);

/// How names are looked up.
struct Way {
    resolver: TokioResolver,
    hosts: Hosts,
    search: Vec<Name>,
    dots: usize,
}

/// Why there is no answer.
#[derive(Debug)]
enum Nothing {
    /// There is surely nothing of that kind by this name.
    Unknown(String),
    /// It could not be found out.
    Failed(String),
}

impl Asker {
    /// Asks these name servers; with none, the system's.
    pub fn new(servers: &[SocketAddr]) -> Self {
        Self { servers: servers.into(), made: Arc::default() }
    }

    /// The addresses of a name. `known` are those it had: of a family that cannot be asked for just now, they are kept.
    pub async fn addresses(&self, name: &str, known: &[IpAddr]) -> Result<Answer<Vec<IpAddr>>, String> {
        let way = match self.way() {
            Ok(way) => way,
            Err(_) if self.servers.is_empty() => return ask_system(name).await,
            Err(reason) => return Err(reason),
        };
        match way.addresses(name, known).await {
            Ok(answer) => Ok(answer),
            Err(Nothing::Unknown(reason)) if self.servers.is_empty() => ask_system(name).await.map_err(|_| reason),
            Err(Nothing::Unknown(reason) | Nothing::Failed(reason)) => Err(reason),
        }
    }

    /// The places of a service, none of them twice.
    pub async fn places(&self, service: &str) -> Result<Answer<Vec<Place>>, String> {
        let found = self.way()?.search(service, RecordType::SRV).await;
        let (_, records) = found.map_err(|(Nothing::Unknown(reason) | Nothing::Failed(reason))| reason)?;
        let places = records.iter().filter_map(|record| match &record.data {
            RData::SRV(srv) => Some(Place {
                priority: srv.priority,
                weight: srv.weight,
                target: srv.target.to_ascii().to_ascii_lowercase(),
                port: srv.port,
            }),
            _ => None,
        });
        Ok(Answer { found: places.collect(), ttl: least_ttl(&records) })
    }

    /// How names are looked up now.
    fn way(&self) -> Result<Arc<Way>, String> {
        let stamp = if self.servers.is_empty() { SYSTEM_FILES.map(stamp) } else { Stamp::default() };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        match &*made {
            Some((then, way)) if *then == stamp => Ok(Arc::clone(way)),
            _ => {
                let way = if self.servers.is_empty() { Way::system() } else { Way::to(&self.servers) };
                let way = Arc::new(way.map_err(|error| plain_reason(&error))?);
                *made = Some((stamp, Arc::clone(&way)));
                Ok(way)
            }
        }
    }
}

fn stamp(path: &str) -> Option<(SystemTime, u64)> {
    let found = fs::metadata(path).ok()?;
    Some((found.modified().ok()?, found.len()))
}

impl Way {
    fn system() -> Result<Self, NetError> {
        let (config, options) = system_conf::read_system_conf()?;
        let (dots, search) = (options.ndots, config.search().to_vec());
        Self::build(config, options, Hosts::from_system().unwrap_or_default(), search, dots)
    }

    fn to(servers: &[SocketAddr]) -> Result<Self, NetError> {
        let server = |at: &SocketAddr| {
            let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
            (udp.port, tcp.port) = (at.port(), at.port());
            NameServerConfig::new(at.ip(), true, vec![udp, tcp])
        };
        let config = ResolverConfig::from_name_servers(servers.iter().map(server).collect());
        Self::build(config, ResolverOpts::default(), Hosts::default(), Vec::new(), 0)
    }

    fn build(
        config: ResolverConfig,
        mut options: ResolverOpts,
        hosts: Hosts,
        search: Vec<Name>,
        dots: usize,
    ) -> Result<Self, NetError> {
        options.timeout = options.timeout.min(ONE_TRY);
        // Whoever asks again wants to know how it is now.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        Ok(Self { resolver: builder.build()?, hosts, search, dots })
    }

    async fn addresses(&self, name: &str, known: &[IpAddr]) -> Result<Answer<Vec<IpAddr>>, Nothing> {
        if let Some(answer) = self.in_hosts_file(name) {
            return Ok(answer);
        }
        let known_v6 = || known.iter().copied().filter(IpAddr::is_ipv6);
        let (mut records, kept) = match self.search(name, RecordType::A).await {
            // The other family of the very name that was found, not of another in the search list.
            Ok((full, mut records)) => match self.records(&full, RecordType::AAAA).await {
                Ok(more) => {
                    records.extend(more);
                    (records, Vec::new())
                }
                Err(Nothing::Unknown(_)) => (records, Vec::new()),
                Err(Nothing::Failed(_)) => (records, known_v6().collect()),
            },
            Err(Nothing::Unknown(_)) => (self.search(name, RecordType::AAAA).await?.1, Vec::new()),
            Err(failed) => return Err(failed),
        };
        let ttl = least_ttl(&records);
        let mut found: Vec<IpAddr> = records.drain(..).filter_map(|record| record.data.ip_addr()).collect();
        found.extend(kept);
        Ok(Answer { found, ttl })
    }

    /// As the system has it, a name that stands in the hosts file is asked of nobody else.
    fn in_hosts_file(&self, name: &str) -> Option<Answer<Vec<IpAddr>>> {
        let name = full_name(name).ok()?;
        let look = |kind| self.hosts.lookup_static_host(&Query::query(name.clone(), kind));
        let answers = [look(RecordType::A), look(RecordType::AAAA)];
        let records = answers.iter().flatten().flat_map(|lookup| lookup.answers());
        let found: Vec<_> = records.filter_map(|record| record.data.ip_addr()).collect();
        (!found.is_empty()).then_some(Answer { found, ttl: UNTOLD })
    }

    /// The records of the first name in the search list that has such, and that name. A name server that does not
    /// answer for one of them ends the search: what a later one says may be meant for others.
    async fn search(&self, name: &str, kind: RecordType) -> Result<(Name, Vec<Record>), Nothing> {
        let mut nothing = Nothing::Unknown("it is no name".to_owned());
        for name in self.candidates(name) {
            match self.records(&name, kind).await {
                Ok(records) => return Ok((name, records)),
                Err(Nothing::Unknown(reason)) => nothing = Nothing::Unknown(reason),
                Err(failed) => return Err(failed),
            }
        }
        Err(nothing)
    }

    /// The full names that a name may stand for, the likeliest first (resolv.conf(5): `search`, `ndots`).
    fn candidates(&self, name: &str) -> Vec<Name> {
        let Ok(full) = full_name(name) else { return Vec::new() };
        if name.ends_with('.') {
            return vec![full];
        }
        let mut relative = full.clone();
        relative.set_fqdn(false);
        let mut candidates: Vec<_> =
            self.search.iter().filter_map(|domain| relative.clone().append_domain(domain).ok()).collect();
        let dots = name.bytes().filter(|byte| *byte == b'.').count();
        let position = if dots >= self.dots { 0 } else { candidates.len() };
        candidates.insert(position, full);
        candidates.iter_mut().for_each(|name| name.set_fqdn(true));
        candidates
    }

    /// The records of a full name, at least one.
    async fn records(&self, name: &Name, kind: RecordType) -> Result<Vec<Record>, Nothing> {
        match self.resolver.lookup(name.clone(), kind).await {
            Ok(lookup) if lookup.answers().iter().any(|record| record.record_type() == kind) => {
                Ok(lookup.answers().to_vec())
            }
            Ok(_) => Err(Nothing::Unknown(no_record(kind))),
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => match none.response_code {
                ResponseCode::NXDomain => Err(Nothing::Unknown("DNS knows no such name".to_owned())),
                ResponseCode::NoError => Err(Nothing::Unknown(no_record(kind))),
                code => Err(Nothing::Failed(refused(code))),
            },
            Err(error) => Err(Nothing::Failed(plain_reason(&error))),
        }
    }
}

/// A name as DNS has it, absolute.
fn full_name(name: &str) -> Result<Name, NetError> {
    let mut full = Name::from_ascii(name)?;
    full.set_fqdn(true);
    Ok(full)
}

fn least_ttl(records: &[Record]) -> Duration {
    let seconds = records.iter().map(|record| record.ttl).min();
    Duration::from_secs(seconds.unwrap_or_default().into())
}

fn no_record(kind: RecordType) -> String {
    match kind {
        RecordType::SRV => "DNS has no SRV record of it".to_owned(),
        _ => "it has no address".to_owned(),
    }
}

fn refused(code: ResponseCode) -> String {
    format!("the name server answered: {}", code.to_str().to_lowercase())
}

fn plain_reason(error: &NetError) -> String {
    match error {
        NetError::Timeout => "the name servers did not answer".to_owned(),
        NetError::NoConnections => "no name server can be reached".to_owned(),
        NetError::Dns(DnsError::ResponseCode(code)) => refused(*code),
        NetError::Io(error) => format!("no name server can be reached: {}", error.to_string().to_lowercase()),
        other => other.to_string(),
    }
}

/// What the system says of a name.
async fn ask_system(name: &str) -> Result<Answer<Vec<IpAddr>>, String> {
    let name = name.to_owned();
    let look = move || (&*name, 0).to_socket_addrs().map(|found| found.map(|at| at.ip()).collect::<Vec<_>>());
    match tokio::task::spawn_blocking(look).await {
        Ok(Ok(found)) if !found.is_empty() => Ok(Answer { found, ttl: UNTOLD }),
        Ok(Ok(_)) => Err(no_record(RecordType::A)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}
