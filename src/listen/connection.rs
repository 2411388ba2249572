//! `Connection`: the facts of one downstream connection that requests may read.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use pingora::protocols::http::ServerSession;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::Config;
use super::closing::is_said;
use super::wire::Wire;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A client on the network. An IPv4 client of a dual-stack socket appears with its IPv4 address.
    Inet(SocketAddr),
    /// A process on this machine, through a Unix socket.
    Unix,
}

impl Peer {
    /// The peer of an accepted socket.
    pub(super) fn inet(address: SocketAddr) -> Self {
        Self::Inet(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }

    /// Its address, when it has one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Inet(address) => Some(address.ip()),
            Self::Unix => None,
        }
    }
}

/// The options of a listener as its connections use them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// For a whole request head.
    pub head: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// The longest pause within a request body.
    pub body: Duration,
    /// How long the client may take no byte of a response.
    pub write: Duration,
    /// Bytes per second at which the client must take a response.
    pub min_send_rate: Option<usize>,
    /// Whether HTTP/2 may begin without TLS.
    pub http2: bool,
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        let timeouts = config.timeouts;
        Self {
            head: timeouts.head.0,
            idle: timeouts.idle.0,
            body: timeouts.body.0,
            write: timeouts.write.0,
            min_send_rate: config.min_send_rate.bytes(),
            http2: config.http2,
        }
    }
}

/// One downstream connection. Requests find theirs with [`Connection::of`].
#[derive(Debug)]
pub struct Connection {
    /// Who is at the other end.
    pub peer: Peer,
    /// The port that it connected to; 0 for a Unix socket.
    pub local_port: u16,
    /// The options of its listener, as they were when it was accepted.
    pub settings: Arc<Settings>,
    pub(super) accepted: Instant,
    /// Says that the connection shall end; never marked as seen.
    pub(super) closing: watch::Receiver<bool>,
    peer_value: OnceLock<HeaderValue>,
    port_value: OnceLock<HeaderValue>,
    requests: AtomicU64,
    streams: AtomicU32,
    in_flight: AtomicU32,
    active_at: AtomicU64,
    /// Told when an HTTP/2 connection has had its share of requests.
    pub(super) spent: Notify,
    surviving: AtomicBool,
    /// Microseconds since [`START`]; 0: no end.
    ends_by: AtomicU64,
    left: Mutex<Option<(Wire, Bytes)>>,
    has_date: AtomicBool,
    date: Mutex<Option<HeaderValue>>,
}

impl Connection {
    pub(super) fn new(peer: Peer, local_port: u16, settings: Arc<Settings>, closing: watch::Receiver<bool>) -> Self {
        Self {
            peer,
            local_port,
            settings,
            accepted: Instant::now(),
            closing,
            peer_value: OnceLock::new(),
            port_value: OnceLock::new(),
            requests: AtomicU64::new(0),
            streams: AtomicU32::new(0),
            in_flight: AtomicU32::new(0),
            active_at: AtomicU64::new(0),
            spent: Notify::new(),
            surviving: AtomicBool::new(false),
            ends_by: AtomicU64::new(0),
            left: Mutex::default(),
            has_date: AtomicBool::new(false),
            date: Mutex::default(),
        }
    }

    /// The connection of a session, on whatever version of HTTP; `None` for sessions that came another way.
    pub fn of(session: &ServerSession) -> Option<&Arc<Self>> {
        session.digest()?.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref()
    }

    /// The client's address as a field value (`unknown` for a Unix socket, RFC 7239 6.2), made once per connection.
    pub fn peer_value(&self) -> &HeaderValue {
        self.peer_value.get_or_init(|| match self.peer.ip() {
            Some(ip) => HeaderValue::try_from(ip.to_string()).expect("an IP address is visible ASCII"),
            None => HeaderValue::from_static("unknown"),
        })
    }

    /// The port that it connected to as a field value, made once per connection.
    pub fn port_value(&self) -> &HeaderValue {
        self.port_value.get_or_init(|| HeaderValue::from(self.local_port))
    }

    /// To be called once for each request that reaches the application. A request for which it was not called counts
    /// as refused by Pingora: malformed. Tells the request's number on its connection, from 1.
    pub fn begin_request(&self) -> u64 {
        self.requests.fetch_add(1, Relaxed) + 1
    }

    /// The exchange failed, but the client has its whole response and sends nothing more: HTTP/1 may go on with the next
    /// request, though Pingora gives the connection up. Whatever speaks against it (unread or unsent bytes) still wins.
    pub fn survive(&self) {
        self.set_surviving(true);
    }

    pub(super) fn set_surviving(&self, surviving: bool) {
        self.surviving.store(surviving, Relaxed);
    }

    pub(super) fn is_surviving(&self) -> bool {
        self.surviving.load(Relaxed)
    }

    /// What a stream that is dropped leaves behind for a further request, with what was read of that already.
    pub(super) fn leave(&self, left: (Wire, Bytes)) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = Some(left);
    }

    /// Takes what the last stream left behind.
    pub(super) fn take_left(&self) -> Option<(Wire, Bytes)> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// By when the exchange under way must be over; `None`: it takes the time it takes. Then reading from the client fails
    /// (HTTP/1 only). To be taken back when the exchange is over.
    pub fn end_by(&self, deadline: Option<std::time::Instant>) {
        let since = |deadline: std::time::Instant| Instant::from_std(deadline).saturating_duration_since(*START);
        let micros =
            deadline.map_or(0, |deadline| u64::try_from(since(deadline).as_micros()).unwrap_or(u64::MAX).max(1));
        self.ends_by.store(micros, Relaxed);
    }

    pub(super) fn ends_by(&self) -> Option<Instant> {
        let micros = self.ends_by.load(Relaxed);
        (micros > 0).then(|| *START + Duration::from_micros(micros))
    }

    /// The `Date` of the response that is written next is this (RFC 9110 6.6.1), not the one that Pingora makes up
    /// (HTTP/1 only).
    pub fn keep_date(&self, date: &HeaderValue) {
        *self.date.lock().unwrap_or_else(PoisonError::into_inner) = Some(date.clone());
        self.has_date.store(true, Relaxed);
    }

    /// The `Date` that is to be written, if one was given.
    pub(super) fn date(&self) -> Option<HeaderValue> {
        if !self.has_date.load(Relaxed) {
            return None;
        }
        self.date.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It was written.
    pub(super) fn forget_date(&self) {
        self.has_date.store(false, Relaxed);
    }

    /// The requests begun so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Whether the connection ends after the requests under way: its listener was removed, or the process ends. A
    /// response head that is still to be written should then say `Connection: close`.
    pub fn is_closing(&self) -> bool {
        is_said(&self.closing)
    }

    /// How long the connection has been open.
    pub fn age(&self) -> Duration {
        self.accepted.elapsed()
    }

    /// Counts an HTTP/2 stream that begins: the number of streams so far, and the mark that it is under way.
    pub(super) fn begin_stream(self: &Arc<Self>) -> (u32, Stream) {
        self.in_flight.fetch_add(1, Relaxed);
        (self.streams.fetch_add(1, Relaxed) + 1, Stream(Arc::clone(self)))
    }

    /// HTTP/2 streams begun so far.
    pub(super) fn streams(&self) -> u32 {
        self.streams.load(Relaxed)
    }

    /// Since when no HTTP/2 stream is under way; `None` while one is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        if self.in_flight.load(Relaxed) > 0 {
            return None;
        }
        Some(*START + Duration::from_millis(self.active_at.load(Relaxed)))
    }
}

/// An HTTP/2 stream under way.
pub(super) struct Stream(Arc<Connection>);

impl Drop for Stream {
    fn drop(&mut self) {
        let millis = u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.active_at.store(millis, Relaxed);
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_of_a_dual_stack_socket_shows_its_ipv4_address() {
        for (address, value) in
            [("[::ffff:10.1.2.3]:80", "10.1.2.3"), ("10.1.2.3:80", "10.1.2.3"), ("[2001:db8::1]:80", "2001:db8::1")]
        {
            let (_, closing) = watch::channel(false);
            let settings = Arc::new(Settings::from(&Config::at(":80".parse().unwrap())));
            let connection = Connection::new(Peer::inet(address.parse().unwrap()), 80, settings, closing);
            assert_eq!(connection.peer_value(), value);
        }
    }
}
