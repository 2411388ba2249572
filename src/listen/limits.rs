//! `limits`: how many connections there may be, in all and per client, and how much one may ask.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::Notify;

use crate::diag::Scope;
use crate::observe::ProcessStats;
use crate::units::{ByteSize, CidrSet};

/// How much clients may ask of the whole process.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Limits")]
pub struct LimitsConfig {
    /// The most connections at one time; further ones are closed at once. 0: any number. Default: 50000.
    pub connections: usize,
    /// The most connections from one client address at one time (IPv6: from one /64 network); further ones are closed
    /// at once. Trusted proxies and Unix sockets are not limited. 0: any number. Default: 200.
    pub per_client: usize,
    /// After this many requests a connection is closed in good order. 0: any number. Default: 1000.
    pub requests_per_connection: u32,
    /// The largest request head of HTTP/1: request line and fields. A larger one is answered with 431. Default: 32KiB.
    pub header_size: ByteSize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self { connections: 50_000, per_client: 200, requests_per_connection: 1000, header_size: ByteSize(32 << 10) }
    }
}

/// Pingora reads no larger head (1 MiB); and below this no browser gets through.
const HEADER_SIZES: std::ops::RangeInclusive<u64> = 1024..=1_000_000;

impl LimitsConfig {
    /// Checks them; `exempt` are the networks whose connections are not counted per client.
    pub fn build(&self, exempt: CidrSet, scope: &Scope<'_>) -> Limits {
        if !HEADER_SIZES.contains(&self.header_size.0) {
            scope
                .key("header_size")
                .error_hint(format!("`{}` is out of range", self.header_size), "write a size from 1KiB to 1MB");
        }
        if self.connections != 0 && self.per_client > self.connections {
            scope.key("per_client").warn(
                format!("one client may open {} connections, but all together {}", self.per_client, self.connections),
                "give one client less than all",
            );
        }
        Limits { exempt, ..Limits::from(*self) }
    }
}

/// The limits in force.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The most connections.
    pub connections: usize,
    /// The most connections of one client.
    pub per_client: usize,
    /// The most requests on one connection.
    pub requests_per_connection: u32,
    /// The largest request head.
    pub header_size: usize,
    /// Whose connections are not counted per client.
    pub exempt: CidrSet,
}

impl From<LimitsConfig> for Limits {
    fn from(written: LimitsConfig) -> Self {
        Self {
            connections: if written.connections == 0 { usize::MAX } else { written.connections },
            per_client: if written.per_client == 0 { usize::MAX } else { written.per_client },
            requests_per_connection: match written.requests_per_connection {
                0 => u32::MAX,
                most => most,
            },
            header_size: written.header_size.as_usize(),
            exempt: CidrSet::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        LimitsConfig::default().into()
    }
}

const SHARDS: usize = 16;

/// Counts the connections of one [`Listeners`](super::Listeners), and admits new ones.
pub(super) struct Gate {
    pub(super) limits: ArcSwap<Limits>,
    pub(super) stats: Arc<ProcessStats>,
    open: AtomicUsize,
    clients: [Mutex<HashMap<u128, usize, ahash::RandomState>>; SHARDS],
    /// Told when the last connection has ended.
    pub(super) empty: Notify,
    /// Hears of each request that was refused before the application saw it.
    pub(super) refusals: OnceLock<Refusals>,
}

/// Hears who was refused (`None`: on a Unix socket), with which status, and why in one word.
pub type Refusals = Box<dyn Fn(Option<IpAddr>, u16, &'static str) + Send + Sync>;

/// An open connection, as it counts against the limits. Dropping it ends the counting.
pub(super) struct Admission {
    pub(super) gate: Arc<Gate>,
    client: Option<u128>,
}

impl Gate {
    pub(super) fn new(limits: Limits, stats: Arc<ProcessStats>) -> Arc<Self> {
        let clients = std::array::from_fn(|_| Mutex::default());
        let limits = ArcSwap::from_pointee(limits);
        Arc::new(Self {
            limits,
            stats,
            open: AtomicUsize::new(0),
            clients,
            empty: Notify::new(),
            refusals: OnceLock::new(),
        })
    }

    /// Tells of a request that was refused before the application saw it.
    pub(super) fn refused(&self, ip: Option<IpAddr>, status: u16, reason: &'static str) {
        if let Some(refusals) = self.refusals.get() {
            refusals(ip, status, reason);
        }
    }

    /// Lets a connection in, or keeps it out; `ip`: its client, `None` for a Unix socket.
    pub(super) fn admit(self: &Arc<Self>, ip: Option<IpAddr>) -> Option<Admission> {
        let limits = self.limits.load();
        let stats = &self.stats.connections;
        stats.accepted.inc();
        // From here on dropping the admission takes back what it counted.
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        stats.open.inc();
        let mut admission = Admission { gate: Arc::clone(self), client: None };
        if open > limits.connections {
            stats.over_limit.inc();
            return None;
        }
        if let Some(ip) = ip.filter(|ip| !limits.exempt.contains(*ip)) {
            let client = client_key(ip);
            let mut shard = self.shard(client);
            let count = shard.entry(client).or_default();
            if *count >= limits.per_client {
                stats.over_client_limit.inc();
                return None;
            }
            *count += 1;
            drop(shard);
            admission.client = Some(client);
        }
        Some(admission)
    }

    /// The connections open now.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    fn shard(&self, client: u128) -> std::sync::MutexGuard<'_, HashMap<u128, usize, ahash::RandomState>> {
        // The low bits of IPv4, and of an IPv6 network number.
        let number = (client ^ (client >> 64)) as usize;
        self.clients[number % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some(client) = self.client {
            let mut shard = self.gate.shard(client);
            if let Some(count) = shard.get_mut(&client) {
                *count -= 1;
                if *count == 0 {
                    shard.remove(&client);
                }
            }
        }
        self.gate.stats.connections.open.dec();
        if self.gate.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.gate.empty.notify_waiters();
        }
    }
}

/// What counts as one client: an IPv4 address, or the /64 network that an IPv6 site commonly gets as a whole.
fn client_key(ip: IpAddr) -> u128 {
    match ip.to_canonical() {
        IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => u128::from(v6) >> 64 << 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Cidr;

    fn gate(connections: usize, per_client: usize) -> Arc<Gate> {
        let trusted: Cidr = "10.0.0.0/8".parse().unwrap();
        let limits = Limits { connections, per_client, exempt: [&trusted].into_iter().collect(), ..Limits::default() };
        Gate::new(limits, Arc::default())
    }

    #[test]
    fn a_client_gets_its_share_and_no_more() {
        let gate = gate(100, 2);
        let admit = |ip: &str| gate.admit(Some(ip.parse().unwrap()));
        let first = admit("1.2.3.4").unwrap();
        let _second = admit("::ffff:1.2.3.4").unwrap();
        assert!(admit("1.2.3.4").is_none());
        assert_eq!(gate.stats.connections.over_client_limit.get(), 1);
        let _other = admit("1.2.3.5").unwrap();
        drop(first);
        let _again = admit("1.2.3.4").unwrap();
        assert_eq!(gate.open(), 3);
    }

    #[test]
    fn an_ipv6_client_is_its_network() {
        let gate = gate(100, 1);
        let admit = |ip: &str| gate.admit(Some(ip.parse().unwrap()));
        let _one = admit("2001:db8::1").unwrap();
        assert!(admit("2001:db8::2").is_none());
        assert!(admit("2001:db8:0:1::1").is_some());
    }

    #[test]
    fn trusted_proxies_and_unix_sockets_share_only_the_total() {
        let gate = gate(4, 1);
        let admit = |ip: &str| gate.admit(Some(ip.parse().unwrap()));
        let _held = [admit("10.0.0.1").unwrap(), admit("10.0.0.1").unwrap(), gate.admit(None).unwrap()];
        let _last = gate.admit(None).unwrap();
        assert!(admit("10.0.0.1").is_none());
        assert_eq!(gate.stats.connections.over_limit.get(), 1);
    }

    #[test]
    fn nothing_is_left_when_all_have_gone() {
        let gate = gate(3, 1);
        for _ in 0..5 {
            let held: Vec<_> = ["1.1.1.1", "1.1.1.1", "2.2.2.2", "3.3.3.3", "4.4.4.4"]
                .iter()
                .map(|ip| gate.admit(Some(ip.parse().unwrap())))
                .collect();
            assert_eq!(held.iter().flatten().count(), 3);
        }
        assert_eq!(gate.open(), 0);
        assert_eq!(gate.stats.connections.open.get(), 0);
        assert!(gate.clients.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }

    #[test]
    fn zero_means_any_number() {
        let limits = Limits::from(LimitsConfig {
            connections: 0,
            per_client: 0,
            requests_per_connection: 0,
            ..LimitsConfig::default()
        });
        assert_eq!((limits.connections, limits.requests_per_connection), (usize::MAX, u32::MAX));
    }
}
