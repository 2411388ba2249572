//! A backend as Pingora's `HttpPeer`: prepared once, copied for each try.
//!
//! Pingora bounds nothing by itself; here every wait has a limit. The time that is left of the whole request shortens
//! all of them, for Pingora knows no total either.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pingora::protocols::TcpKeepalive;
use pingora::upstreams::peer::{HttpPeer, Tracer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::limits::connections::{Connections, Door};
use crate::diag::Scope;
use crate::units::HumanDuration;

/// How long each step of a request to a server may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "UpstreamTimeouts")]
pub struct Timeouts {
    /// How long one TCP connection to a server may take to be made. Default: `3s`.
    pub connect: HumanDuration,
    /// How long all of connecting to a server may take. Default: `10s`.
    pub total_connect: HumanDuration,
    /// How long a server may stay silent: before its response begins, and between two pieces of it. Default: `60s`.
    pub read: HumanDuration,
    /// How long a server may take to accept a piece of the request. Default: `60s`.
    pub write: HumanDuration,
    /// How long a request may take in all, tries on further servers included; it is then broken off. Does not bind
    /// connections that were upgraded (WebSocket). Default: `1h`.
    pub total: HumanDuration,
    /// How long a connection that was upgraded (RFC 9110, 7.8; WebSocket) may be silent; takes the place of `read` and
    /// `write` for requests that ask for an upgrade. Default: `1h`.
    pub tunnel: HumanDuration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: HumanDuration::secs(3),
            total_connect: HumanDuration::secs(10),
            read: HumanDuration::secs(60),
            write: HumanDuration::secs(60),
            total: HumanDuration::secs(3600),
            tunnel: HumanDuration::secs(3600),
        }
    }
}

impl Timeouts {
    /// Reports what cannot work, and what surely is not meant.
    pub fn check(&self, at: &Scope<'_>) {
        let all = [
            ("connect", self.connect),
            ("total_connect", self.total_connect),
            ("read", self.read),
            ("write", self.write),
            ("total", self.total),
            ("tunnel", self.tunnel),
        ];
        for (key, span) in all {
            if span.0.is_zero() {
                at.key(key).error_hint(
                    "a timeout of 0 would fail every request",
                    "every wait has a limit here; write a long one, as in `30d`",
                );
            }
        }
        let unwritten = Self::default();
        for (key, span, default, limit_key, limit) in [
            ("connect", self.connect, unwritten.connect, "total_connect", self.total_connect),
            ("read", self.read, unwritten.read, "total", self.total),
            ("write", self.write, unwritten.write, "total", self.total),
        ] {
            // A default that a shorter limit cuts off is no mistake of anybody's.
            if span > limit && span != default && !limit.0.is_zero() {
                at.key(key).warn(
                    format!("`{limit_key}` ends the wait after {limit}, long before {span}"),
                    format!("raise `{limit_key}` too, or lower `{key}`"),
                );
            }
        }
    }
}

/// Which connections to servers are kept for further requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "UpstreamKeepalive")]
pub struct Keepalive {
    /// How long an unused connection is kept open; choose it shorter than the server's own limit. `0`: each request
    /// gets a connection of its own. Default: `60s`.
    pub idle: HumanDuration,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { idle: HumanDuration::secs(60) }
    }
}

/// TCP's own probes find a server that vanished without a word: after 60 s of silence, 3 of them, 10 s apart.
const TCP_KEEPALIVE: TcpKeepalive = TcpKeepalive {
    idle: Duration::from_secs(60),
    interval: Duration::from_secs(10),
    count: 3,
    #[cfg(target_os = "linux")]
    user_timeout: Duration::ZERO,
};

/// A peer that lacks only what depends on the request.
#[derive(Clone, Debug)]
pub struct PeerTemplate {
    peer: HttpPeer,
    timeouts: Timeouts,
    reuse: bool,
}

impl PeerTemplate {
    /// For a server at an IP address. There is no name to look up, which Pingora would do blocking.
    pub fn tcp(address: SocketAddr, timeouts: Timeouts, keepalive: Keepalive) -> Self {
        Self::new(HttpPeer::new(address, false, String::new()), timeouts, keepalive)
    }

    /// For a server at a Unix socket; `None` when the path cannot be that of one.
    pub fn unix(path: &Path, timeouts: Timeouts, keepalive: Keepalive) -> Option<Self> {
        let peer = HttpPeer::new_uds(path.to_str()?, false, String::new()).ok()?;
        Some(Self::new(peer, timeouts, keepalive))
    }

    fn new(mut peer: HttpPeer, timeouts: Timeouts, keepalive: Keepalive) -> Self {
        let options = &mut peer.options;
        options.connection_timeout = Some(timeouts.connect.0);
        options.total_connection_timeout = Some(timeouts.total_connect.0);
        options.read_timeout = Some(timeouts.read.0);
        options.write_timeout = Some(timeouts.write.0);
        options.idle_timeout = Some(keepalive.idle.0);
        options.tcp_keepalive = Some(TCP_KEEPALIVE);
        peer.group_key = group_key(keepalive);
        Self { peer, timeouts, reuse: !keepalive.idle.0.is_zero() }
    }

    /// Lets at most `most` connections be open to the backend that is kept under `key`. None of them is shared with another
    /// upstream or other backends then; but those that were kept before a reload are used on, whatever it changed.
    pub fn limit(&mut self, connections: Arc<Connections>, most: u32, key: &str) {
        let door = Door::new(connections, most, self.timeouts.connect.0);
        self.peer.options.tracer = Some(Tracer(Box::new(door.clone())));
        self.peer.options.custom_l4 = Some(Arc::new(door));
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        self.peer.group_key = hasher.finish();
    }

    /// The peer for one try of a request that has `remaining` time left (`None`: no limit), at which the backend may be
    /// silent for `per_try` at most; `upgrade`: the request asks to become a tunnel, which the total does not bind.
    pub fn peer(&self, remaining: Option<Duration>, per_try: Option<Duration>, upgrade: bool) -> Box<HttpPeer> {
        let mut peer = Box::new(self.peer.clone());
        let options = &mut peer.options;
        if let Some(remaining) = remaining {
            let shorten = |span: HumanDuration| Some(span.0.min(remaining));
            options.connection_timeout = shorten(self.timeouts.connect);
            options.total_connection_timeout = shorten(self.timeouts.total_connect);
            options.read_timeout = shorten(self.timeouts.read);
            options.write_timeout = shorten(self.timeouts.write);
        }
        if let Some(per_try) = per_try {
            options.read_timeout = options.read_timeout.map(|span| span.min(per_try));
        }
        if upgrade {
            options.read_timeout = Some(self.timeouts.tunnel.0);
            options.write_timeout = Some(self.timeouts.tunnel.0);
        }
        if !self.reuse {
            set_apart(&mut peer);
        }
        peer
    }
}

/// Gives the peer a connection of its own, which is neither one of those kept nor kept afterwards.
pub fn set_apart(peer: &mut HttpPeer) {
    // The pool keeps nothing for zero seconds, but a request may come in between: nobody else has this key.
    peer.group_key = fastrand::u64(..);
    peer.options.idle_timeout = Some(Duration::ZERO);
}

/// What tells connections apart besides what Pingora's own key holds (address, TLS names and certificates): how long
/// they may have been idle. So no connection that another upstream, or the document before a reload, kept for longer
/// is reused here. What is set on a connection when it is made, and may differ, belongs in here too.
fn group_key(keepalive: Keepalive) -> u64 {
    let mut hasher = DefaultHasher::new();
    keepalive.idle.0.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use pingora::upstreams::peer::Peer;

    use super::*;
    use crate::diag::Issues;

    fn template(idle: u64) -> PeerTemplate {
        let keepalive = Keepalive { idle: HumanDuration::secs(idle) };
        PeerTemplate::tcp("10.0.0.1:80".parse().unwrap(), Timeouts::default(), keepalive)
    }

    #[test]
    fn the_time_left_shortens_every_wait_but_those_of_a_tunnel() {
        let seconds = |span: Option<Duration>| span.map(|span| span.as_secs());
        for (remaining, per_try, upgrade, [connect, total_connect, read, write]) in [
            (None, None, false, [3, 10, 60, 60]),
            (Some(5), None, false, [3, 5, 5, 5]),
            (Some(1), None, false, [1, 1, 1, 1]),
            (Some(500), None, false, [3, 10, 60, 60]),
            (None, Some(7), false, [3, 10, 7, 60]),
            (Some(5), Some(7), false, [3, 5, 5, 5]),
            (None, None, true, [3, 10, 3600, 3600]),
            (Some(5), Some(7), true, [3, 5, 3600, 3600]),
        ] {
            let peer = template(60).peer(remaining.map(Duration::from_secs), per_try.map(Duration::from_secs), upgrade);
            let options = &peer.options;
            assert_eq!(
                [
                    options.connection_timeout,
                    options.total_connection_timeout,
                    options.read_timeout,
                    options.write_timeout
                ]
                .map(seconds),
                [connect, total_connect, read, write].map(Some),
                "{remaining:?} {upgrade}"
            );
            assert_eq!(seconds(options.idle_timeout), Some(60));
        }
    }

    #[test]
    fn connections_are_shared_by_those_who_keep_them_equally_long() {
        let key = |template: &PeerTemplate| template.peer(None, None, false).reuse_hash();
        assert_eq!(key(&template(60)), key(&template(60)));
        assert_eq!(template(60).peer(None, None, true).reuse_hash(), key(&template(60)));
        assert_ne!(key(&template(60)), key(&template(5)));
        let never = template(0);
        assert_ne!(key(&never), key(&never));
    }

    #[test]
    fn limited_connections_are_shared_with_nobody_but_over_a_reload() {
        let limited = |idle, key| {
            let mut template = template(idle);
            template.limit(Arc::default(), 4, key);
            template.peer(None, None, false).reuse_hash()
        };
        assert_ne!(limited(60, "api"), template(60).peer(None, None, false).reuse_hash());
        assert_ne!(limited(60, "api"), limited(60, "web"));
        assert_eq!(limited(60, "api"), limited(5, "api"));
    }

    #[test]
    fn a_wait_without_an_end_is_an_error_and_one_that_never_ends_first_a_warning() {
        let issues = Issues::default();
        let timeouts =
            Timeouts { read: HumanDuration::secs(0), connect: HumanDuration::secs(20), ..Timeouts::default() };
        timeouts.check(&issues.root());
        Timeouts::default().check(&issues.root());
        assert_eq!(issues.errors(), 1);
        let paths: Vec<_> = issues.into_vec().iter().map(|issue| issue.path.to_string()).collect();
        assert_eq!(paths, ["read", "connect"]);
    }
}
