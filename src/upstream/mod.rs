//! Groups of backends: who is there, and who is next.
//!
//! [`Config`] is an upstream as written, [`Upstream`] one at work. Names are resolved by [`Resolver`] before
//! [`Upstream::build`]; while serving nothing is looked up. A request asks [`Upstream::pick`] for a backend, holds a
//! [`Lease`] while it is there, and, when connecting failed, notes it in [`Tried`] and picks again as long as its
//! [`retry::Retry`] allows.

pub mod address;
pub mod backend;
pub mod balance;
pub mod clock;
pub mod config;
pub mod limits;
pub mod peer;
pub mod refusal;
pub mod resolve;
pub mod retry;
mod servers;

pub use address::looks_like_address;
pub use backend::{Backend, Lease};
pub use balance::policy::Tried;
pub use config::Config;
pub use resolve::{Resolved, Resolver};

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::uri::Authority;

use crate::diag::Scope;
use crate::keep::Keep;
use balance::policy::{Members, Policy};
use config::Host;
use resolve::LastGood;
use retry::Retry;

/// A named group of backends that share requests.
pub struct Upstream {
    name: Arc<str>,
    backends: Box<[Backend]>,
    spares: Box<[usize]>,
    policy: Box<dyn Policy>,
    policy_name: &'static str,
    retry: Retry,
    host: HostField,
    keep_server_headers: bool,
    total: Duration,
    tunnel: Duration,
    // Held, not read: see `Answer::last_good`.
    _last_good: Box<[Arc<LastGood>]>,
}

enum HostField {
    Keep,
    Backend,
    Text(HeaderValue),
}

impl Upstream {
    /// Compiles an upstream. Reports what is wrong at `at`, the place of its block, and then gives `None`.
    pub fn build(name: &str, config: &Config, resolved: &Resolved, keep: &Keep, at: &Scope<'_>) -> Option<Self> {
        let settings = &config.settings;
        settings.timeouts.check(&at.key("timeouts"));
        let retry = settings.retry.build(&at.key("retry"));
        let host = host_field(&settings.host, &at.key("host"));
        let servers = servers::build(name, config, resolved, keep, at)?;
        let members = Members { upstream: name, backends: &servers.backends, keep };
        Some(Self {
            policy: settings.balance.build(&members),
            policy_name: settings.balance.name(),
            name: name.into(),
            backends: servers.backends.into(),
            spares: servers.spares.into(),
            retry: retry?,
            host: host?,
            keep_server_headers: settings.keep_server_headers,
            total: settings.timeouts.total.0,
            tunnel: settings.timeouts.tunnel.0,
            _last_good: servers.last_good.into(),
        })
    }

    /// Its name in the document, in metrics and logs.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Its backends; everything else speaks of them by position.
    pub fn backends(&self) -> &[Backend] {
        &self.backends
    }

    /// The name of its policy.
    pub fn policy_name(&self) -> &'static str {
        self.policy_name
    }

    /// How often a request may be tried, unless its route says otherwise.
    pub fn retry(&self) -> Retry {
        self.retry
    }

    /// How long a request may take in all.
    pub fn total(&self) -> Duration {
        self.total
    }

    /// How long both sides of an upgraded connection may be silent.
    pub fn tunnel(&self) -> Duration {
        self.tunnel
    }

    /// Whether clients get the `Server` and `X-Powered-By` of responses.
    pub fn keep_server_headers(&self) -> bool {
        self.keep_server_headers
    }

    /// The position of the backend that takes the next request; none that was tried. `None` when no other is left.
    ///
    /// A backend belongs into `tried` when connecting to it failed. When a kept connection turns out to be dead, it
    /// does not: the same backend may get a fresh one.
    pub fn pick(&self, tried: &Tried) -> Option<usize> {
        self.policy.pick(tried).or_else(|| self.spares.iter().copied().find(|&spare| !tried.contains(spare)))
    }

    /// The `Host` field for a request to the backend in this position; `None`: the client's own.
    pub fn host_field(&self, backend: usize) -> Option<&HeaderValue> {
        match &self.host {
            HostField::Keep => None,
            HostField::Backend => Some(self.backends.get(backend)?.authority()),
            HostField::Text(text) => Some(text),
        }
    }
}

fn host_field(host: &Host, at: &Scope<'_>) -> Option<HostField> {
    let text = match host {
        Host::Keep => return Some(HostField::Keep),
        Host::Backend => return Some(HostField::Backend),
        Host::Text(text) => text,
    };
    let authority = text.parse::<Authority>().is_ok() && !text.contains('@');
    match HeaderValue::try_from(text) {
        Ok(value) if authority => Some(HostField::Text(value)),
        _ => {
            at.error_hint(
                format!("`{text}` cannot be the host of a request"),
                "write `keep`, `backend`, or a host name, as in `app.internal`",
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::{Issue, Issues, Severity};

    /// Knows `app` (two addresses), `dual` and `localhost` (IPv4 and IPv6), `alias` (10.0.0.1) and no other.
    fn resolver() -> Resolver {
        Resolver::with(Duration::from_secs(5), |name| {
            let addresses: &[&str] = match name {
                "app" => &["10.0.0.2", "10.0.0.1"],
                "dual" => &["fd00::1", "10.0.0.9"],
                "localhost" => &["::1", "127.0.0.1"],
                "alias" => &["10.0.0.1"],
                _ => return Err(std::io::Error::other("unknown")),
            };
            Ok(addresses.iter().map(|text| text.parse().unwrap()).collect())
        })
    }

    fn build_with(config: &Config, keep: &Keep) -> (Option<Upstream>, Vec<Issue>) {
        let issues = Issues::default();
        let resolved = resolver().resolve(config.names(), keep);
        let built = Upstream::build("api", config, &resolved, keep, &issues.root().key("upstreams").key("api"));
        (built, issues.into_vec())
    }

    fn build(yaml: &str) -> (Option<Upstream>, Vec<Issue>) {
        build_with(&serde_yaml::from_str(yaml).unwrap(), &Keep::default())
    }

    fn good(yaml: &str) -> Upstream {
        let (built, issues) = build(yaml);
        assert_eq!(issues, [], "{yaml}");
        built.unwrap()
    }

    fn shares(upstream: &Upstream) -> Vec<(&str, u32)> {
        upstream.backends().iter().map(|backend| (&**backend.label(), backend.weight())).collect()
    }

    #[test]
    fn a_name_becomes_its_addresses_each_with_the_full_weight() {
        for (yaml, expected) in [
            ("[{ address: app:80, weight: 3 }]", &[("10.0.0.1:80", 3), ("10.0.0.2:80", 3)][..]),
            ("[dual:80]", &[("10.0.0.9:80", 1), ("[fd00::1]:80", 0)]),
            ("[localhost:1, localhost:2]", &[("127.0.0.1:1", 1), ("127.0.0.1:2", 1), ("[::1]:1", 0), ("[::1]:2", 0)]),
            ("[app:80, alias:80]", &[("10.0.0.1:80", 2), ("10.0.0.2:80", 1)]),
            ("[app:80, alias:81]", &[("10.0.0.1:80", 1), ("10.0.0.2:80", 1), ("10.0.0.1:81", 1)]),
            ("[unix:/run/a.sock, '[::1]:80']", &[("unix:/run/a.sock", 1), ("[::1]:80", 1)]),
            (
                "[{ address: dual:80, weight: 0 }, app:80]",
                &[("10.0.0.9:80", 0), ("10.0.0.1:80", 1), ("10.0.0.2:80", 1)],
            ),
            (
                "{ servers: [app:80, alias:80], host: backend }",
                &[("10.0.0.1:80", 1), ("10.0.0.2:80", 1), ("10.0.0.1:80", 1)],
            ),
        ] {
            assert_eq!(shares(&good(yaml)), expected, "{yaml}");
        }
    }

    #[test]
    fn the_ipv6_address_of_localhost_is_tried_last() {
        let upstream = good("[localhost:1, localhost:2]");
        let mut tried = Tried::new();
        for _ in 0..2 {
            tried.insert(upstream.pick(&tried).unwrap());
        }
        assert_eq!(upstream.pick(&tried), Some(2));
        tried.insert(2);
        assert_eq!(upstream.pick(&tried), Some(3));
        tried.insert(3);
        assert_eq!(upstream.pick(&tried), None);
    }

    #[test]
    fn the_host_field_is_kept_or_the_servers_or_a_text() {
        for (host, expected) in
            [("keep", None), ("backend", Some("app:8080")), ("a.example", Some("a.example")), ("a:81", Some("a:81"))]
        {
            let upstream = good(&format!("{{ servers: [app:8080], host: '{host}' }}"));
            assert_eq!(upstream.host_field(0).map(|value| value.to_str().unwrap()), expected, "{host}");
        }
    }

    #[test]
    fn a_fault_names_its_place_and_says_how_to_mend_it() {
        for (yaml, path, message, hint) in [
            ("[]", "upstreams.api", "no servers", "list at least one"),
            ("{ servers: [] }", "upstreams.api.servers", "no servers", "list at least one"),
            ("{ retry: {} }", "upstreams.api.servers", "no servers", "list at least one"),
            ("[{ address: a:1, weight: 0 }]", "upstreams.api", "a weight of 0 everywhere", "`weight` of 1"),
            ("[app:1, nope:1]", "upstreams.api[1]", "no host is known by the name `nope`", "check the name"),
            ("[app]", "upstreams.api[0]", "no port", "`app:80`"),
            ("{ servers: [app:0] }", "upstreams.api.servers[0]", "port 0", "port of the server"),
            ("[{ address: 'http://app' }]", "upstreams.api[0].address", "is a URL", "`app:80`"),
            ("[app:1, APP:1]", "upstreams.api[1]", "here twice: it is server 1", "`weight`"),
            ("{ servers: [app:1], host: 'http://x' }", "upstreams.api.host", "host of a request", "`keep`"),
            ("{ servers: [app:1], host: 'a b' }", "upstreams.api.host", "host of a request", "`keep`"),
            ("{ servers: [app:1], host: '' }", "upstreams.api.host", "host of a request", "`keep`"),
            ("{ servers: [app:1], retry: { attempts: 99 } }", "upstreams.api.retry.attempts", "too many", "at most 15"),
        ] {
            let (built, issues) = build(yaml);
            let issue = issues.first().expect(yaml);
            assert_eq!(issue.path.to_string(), path, "{yaml}");
            assert!(issue.message.contains(message), "{yaml}: {}", issue.message);
            assert!(issue.hint.as_ref().unwrap().contains(hint), "{yaml}: {:?}", issue.hint);
            assert!(built.is_none() && issues.len() == 1, "{yaml}");
        }
        let at_the_route = build_with(&Config::address("app:x"), &Keep::default()).1;
        assert_eq!(at_the_route[0].path.to_string(), "upstreams.api");
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let (_, issues) = build("{ servers: [app, a:0], host: '/', retry: { attempts: 20 } }");
        assert_eq!(issues.len(), 4);
    }

    #[test]
    fn a_reload_during_an_outage_of_dns_goes_through_with_a_warning() {
        let (keep, config) = (Keep::default(), serde_yaml::from_str("[app:80]").unwrap());
        let (running, _) = build_with(&config, &keep);
        let down = Resolver::with(Duration::from_secs(5), |_| Err(std::io::Error::other("try again")));
        let resolved = down.resolve(config.names(), &keep);
        let issues = Issues::default();
        let reloaded = Upstream::build("api", &config, &resolved, &keep, &issues.root()).unwrap();
        assert_eq!(shares(&reloaded), shares(&running.unwrap()));
        let issues = issues.into_vec();
        assert_eq!((issues.len(), issues[0].severity), (1, Severity::Warning));
    }

    #[test]
    fn a_reload_goes_on_where_the_turns_were() {
        let keep = Keep::default();
        let build = |yaml: &str| build_with(&serde_yaml::from_str(yaml).unwrap(), &keep).0.unwrap();
        let before = build("[10.0.0.1:1, 10.0.0.2:1, 10.0.0.3:1]");
        let after = build("{ servers: [10.0.0.1:1, 10.0.0.2:1, 10.0.0.3:1], retry: { attempts: 1 } }");
        let turn_by_turn = [&before, &after, &before].map(|upstream| upstream.pick(&Tried::new()).unwrap());
        assert_eq!((turn_by_turn[0] + 1) % 3, turn_by_turn[1]);
        assert_eq!((turn_by_turn[1] + 1) % 3, turn_by_turn[2]);
    }
}
