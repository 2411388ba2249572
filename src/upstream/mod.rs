//! Groups of backends: who is there, who is well, and who is next.
//!
//! [`Config`] is an upstream as written, [`Upstream`] one at work. Names are resolved by [`Resolver`] and sources asked by
//! [`discover::load`] before [`Upstream::build`], and again in the background; no request looks anything up. A request
//! asks [`Upstream::pick`] for a backend, holds a [`Lease`] while it is there, notes those that failed in [`Tried`], tells with [`Upstream::learn`] how it went, and
//! picks again as long as its [`retry::Retry`] allows.
//!
//! The backends lie behind one atomic pointer with the view of whom requests can be given to. It is replaced when
//! they change ([`Upstream::update`]) and when the health of one does ([`Upstream::refresh`]), by a task beside the requests.

pub mod address;
pub mod backend;
pub mod balance;
pub mod clock;
pub mod config;
pub mod discover;
pub mod health;
pub mod last_good;
pub mod limits;
pub mod load;
pub mod outcome;
pub mod peer;
pub mod refusal;
pub mod resolve;
pub mod retry;
pub mod server;
mod servers;
pub mod sticky;
#[cfg(test)]
mod sticky_tests;
mod view;
#[cfg(test)]
mod view_tests;

pub use address::looks_like_address;
pub use backend::{Backend, Lease, Seat, Tried};
pub use config::Config;
pub use limits::{Held, Limits};
pub use outcome::Outcome;
pub use refusal::Refusal;
pub use resolve::{Resolved, Resolver};
pub use view::Explained;

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::HeaderValue;
use http::uri::Authority;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::diag::Scope;
use crate::exchange::{Facts, Scheme};
use crate::http_client::HttpClient;
use crate::keep::Keep;
use crate::observe::UpstreamStats;
use crate::units::Percent;
use clock::Micros;
use config::Host;
use health::active::Checks;
use health::passive::Ejector;
use health::rounds::{Rounds, Watched};
use health::state::{Change, Health, Start};
use limits::Gate;
use limits::budget::{Budget, RetryPermit};
use retry::Retry;
use servers::Servers;
use sticky::{Sessions, Sticky};
use view::{Rules, View};

/// A named group of backends that share requests.
pub struct Upstream {
    name: Arc<str>,
    rules: Rules,
    current: ArcSwap<Current>,
    /// Held while `current` is replaced: one at a time.
    writer: Mutex<()>,
    news: Arc<News>,
    keep: Arc<Keep>,
    retry: Retry,
    budget: Arc<Budget>,
    limits: Option<Limits>,
    stats: Arc<UpstreamStats>,
    host: HostField,
    sticky: Option<Arc<Sticky>>,
    keep_server_headers: bool,
    learns_latency: bool,
    /// What a backend that nothing is known of counts as.
    start_as: Start,
    /// Asks the backends how they are, of the gateway's own accord.
    checks: Option<(Arc<Checks>, Arc<HttpClient>)>,
    /// Leaves those out at which requests fail.
    ejector: Option<Ejector>,
    total: Duration,
    tunnel: Duration,
    tasks: Mutex<Vec<AbortHandle>>,
    servers: Servers,
}

/// The backends at the moment, and whom requests can be given to.
struct Current {
    backends: Arc<[Arc<Backend>]>,
    view: View,
    sessions: Option<Arc<Sessions>>,
}

/// Tells that the health of a backend has changed. Kept over reloads by the name of the upstream, for the backends are.
struct News(watch::Sender<()>);

enum HostField {
    Keep,
    Backend,
    Text(HeaderValue),
}

impl Upstream {
    /// Compiles an upstream. Reports what is wrong at `at`, the place of its block, and then gives `None`.
    pub fn build(name: &str, config: &Config, resolved: &Resolved, keep: &Arc<Keep>, at: &Scope<'_>) -> Option<Self> {
        let settings = &config.settings;
        settings.timeouts.check(&at.key("timeouts"));
        settings.balance.check(&at.key("balance"));
        let retry = settings.retry.build(&at.key("retry"));
        let host = host_field(&settings.host, &at.key("host"));
        let at_sticky = at.key("sticky");
        let sticky = settings.sticky.settings();
        let sticky = sticky.map(|sticky| Sticky::build(sticky, name, keep, resolved.folder(), &at_sticky));
        let health_at = at.key("health");
        let has_socket = settings.servers.iter().any(|server| server.settings.address.starts_with("unix:"));
        let checks = settings.health.active.as_ref().map(|active| active.build(has_socket, &health_at.key("active")));
        let ejection = settings.health.passive.build(&health_at.key("passive"));
        let of_servers = config.check_limits(at);
        let servers = Servers::build(name, config, resolved, keep, at)?;
        let name: Arc<str> = name.into();
        let rules = Rules {
            name: Arc::clone(&name),
            balance: settings.balance.clone(),
            panic: settings.health.panic,
            zone: settings.zone.clone(),
        };
        let start_as = settings.health.start();
        let limits = Limits::build(&name, &settings.limits, of_servers, keep);
        let backends = backends(&name, servers.seats(), start_as, limits.as_ref().map(Limits::gate), keep);
        let view = View::make(&backends, &rules, keep, clock::now());
        let sticky = match sticky {
            Some(sticky) => Some(Arc::new(sticky?)),
            None => None,
        };
        let sessions = sticky.as_ref().map(|sticky| Arc::new(Sessions::new(sticky, &backends)));
        Some(Self {
            learns_latency: rules.balance.learns_latency(),
            rules,
            current: ArcSwap::from_pointee(Current { backends, view, sessions }),
            writer: Mutex::new(()),
            news: keep.get_or(&name, || News(watch::Sender::new(()))),
            keep: Arc::clone(keep),
            retry: retry?,
            budget: keep.get_or(&name, Budget::default),
            limits,
            stats: keep.get_or(&name, UpstreamStats::default),
            host: host?,
            sticky,
            keep_server_headers: settings.keep_server_headers,
            start_as,
            checks: match checks {
                Some(checks) => Some((Arc::new(checks?), keep.get_or("", HttpClient::new))),
                None => None,
            },
            ejector: ejection.map(Ejector::new),
            total: settings.timeouts.total.0,
            tunnel: settings.timeouts.tunnel.0,
            tasks: Mutex::default(),
            name,
            servers,
        })
    }

    /// Its name in the document, in metrics and logs.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Its backends at the moment.
    pub fn backends(&self) -> Arc<[Arc<Backend>]> {
        Arc::clone(&self.current.load().backends)
    }

    /// The name of its policy.
    pub fn policy_name(&self) -> &'static str {
        self.rules.balance.name()
    }

    /// When a request is tried again, unless its route says otherwise.
    pub fn retry(&self) -> &Retry {
        &self.retry
    }

    /// Leave for one more retry, if not too many are under way: at most this share of all requests.
    pub fn take_retry(&self, share: Percent) -> Option<RetryPermit> {
        let live = || self.current.load().backends.iter().map(|backend| backend.state().inflight()).sum();
        let permit = self.budget.try_take(share, live);
        if permit.is_none() {
            self.stats.retries_refused.inc();
        }
        permit
    }

    /// How much it takes at once; `None`: any amount.
    pub fn limits(&self) -> Option<&Limits> {
        self.limits.as_ref()
    }

    /// What is counted of it, over reloads.
    pub fn stats(&self) -> &UpstreamStats {
        &self.stats
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

    /// A backend for a request, none of those tried, and the mark that the request is under way there.
    ///
    /// A backend belongs into `tried` when the request failed there. When a kept connection turns out to be dead, it does
    /// not: the same backend may get a fresh one.
    pub fn pick(&self, facts: &Facts<'_>, tried: &Tried, now: Instant) -> Result<Lease, Refusal> {
        let current = self.current.load();
        if let Some(backend) = current.session(facts).filter(|backend| !tried.contains(backend)) {
            match backend.lease() {
                Some(lease) => return Ok(lease),
                // A session waits for its backend, and holds up nobody. Where no one may wait, another backend serves the
                // request, and the session stays where it is.
                None if self.limits.as_ref().is_some_and(Limits::has_queue) => return Err(Refusal::Full),
                None => {}
            }
        }
        current.view.pick(facts, tried, now)
    }

    /// Whether clients stick to its backends.
    pub fn is_sticky(&self) -> bool {
        self.sticky.is_some()
    }

    /// Whether this request has a session that sticks to one of the backends.
    pub fn has_session(&self, facts: &Facts<'_>) -> bool {
        self.current.load().session(facts).is_some()
    }

    /// The `Set-Cookie` field that makes the client of this request stick to a backend that has answered, after those tried
    /// failed; `None`: it does already, or need not.
    pub fn session_cookie(&self, facts: &Facts<'_>, backend: &Backend, tried: &Tried) -> Option<HeaderValue> {
        self.sticky.as_ref()?;
        let current = self.current.load();
        if current.session(facts).is_some_and(|own| !tried.contains(own)) {
            // Its own backend has answered, or had no room this time.
            return None;
        }
        let https = facts.exchange.scheme == Scheme::Https;
        current.sessions.as_ref()?.cookie(backend, https).cloned()
    }

    /// Whether so few of its backends are well that health is ignored.
    pub fn panics(&self) -> bool {
        self.current.load().view.panics
    }

    /// Which backend a request would get, and why. `None`: none is left.
    pub fn explain(&self, facts: &Facts<'_>) -> Option<Explained> {
        let current = self.current.load();
        if let Some(backend) = current.session(facts) {
            let (label, why) = (Arc::clone(backend.label()), "the client has its cookie".to_owned());
            return Some(Explained { label, why, candidates: 0, backends: current.backends.len() });
        }
        current.view.explain(facts, clock::now())
    }

    /// Learns how a try went that began `took` ago. True: it counts against the backend. That it went well is believed
    /// only once all of it is over: see [`Upstream::went_well`].
    pub fn learn(&self, backend: &Backend, outcome: Outcome, took: Duration) -> bool {
        if self.learns_latency {
            let latency = if outcome.is_good() { took } else { took + outcome::PENALTY };
            backend.state().load.observe(latency, clock::now());
        }
        if let Some(limits) = &self.limits {
            limits.learn(outcome.is_gateway_failure(), took);
        }
        let Some(ejector) = self.ejector.as_ref().filter(|ejector| ejector.is_failure(outcome)) else { return false };
        if let Some(change) = ejector.fail(backend, &self.current.load().backends, clock::now()) {
            backend.stats().ejections.inc();
            self.tell(backend, change, &outcome);
        }
        true
    }

    /// Learns that a try went well from its beginning to its end.
    pub fn went_well(&self, backend: &Backend) {
        if let Some(ejector) = &self.ejector {
            ejector.succeed(backend, clock::now);
        }
    }

    /// Lets the backends of this name finish what they have and take nothing new, or ends that. False: there is none.
    pub fn drain(&self, label: &str, drains: bool) -> bool {
        let backends = self.backends();
        let Some(backend) = backends.iter().find(|backend| **backend.label() == *label) else { return false };
        if let Some(change) = backend.state().health.set_drain(drains, clock::now()) {
            self.tell(backend, change, &"an operator says so");
        }
        true
    }

    /// What share of its weight a backend has at the moment: nothing while it takes no requests, less than all after it came
    /// back.
    pub fn share(&self, backend: &Backend) -> f64 {
        if backend.is_usable() { view::share(backend, &self.rules, clock::now()) } else { 0.0 }
    }

    /// The `Host` field for a request to this backend; `None`: the client's own.
    pub fn host_field<'a>(&'a self, backend: &'a Backend) -> Option<&'a HeaderValue> {
        match &self.host {
            HostField::Keep => None,
            HostField::Backend => Some(backend.authority()),
            HostField::Text(text) => Some(text),
        }
    }

    /// Makes these its backends: all at once, and those that it had already keep their state. Requests under way stay
    /// where they are. For a thread that serves no requests.
    pub fn update(&self, seats: Vec<Seat>) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let gate = self.limits.as_ref().map(Limits::gate);
        self.publish(backends(&self.name, seats, self.start_as, gate, &self.keep), clock::now());
        drop(writer);
        // For the checks, and because the new view has another date.
        self.changed();
    }

    /// Looks at the health of its backends anew; tells when that must be done again at the latest. For a thread that serves
    /// no requests.
    pub fn refresh(&self, now: Micros) -> Option<Micros> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.publish(self.backends(), now)
    }

    fn publish(&self, backends: Arc<[Arc<Backend>]>, now: Micros) -> Option<Micros> {
        for backend in &*backends {
            self.tend(backend, now);
        }
        let view = View::make(&backends, &self.rules, &self.keep, now);
        let expires = view.expires;
        let known = self.current.load().sessions.clone();
        let sessions = match (known, &self.sticky) {
            (Some(sessions), Some(sticky)) if !sessions.are_of(&backends) => {
                Some(Arc::new(Sessions::new(sticky, &backends)))
            }
            (known, _) => known,
        };
        let_go(self.current.swap(Arc::new(Current { backends, view, sessions })));
        if let Some(limits) = &self.limits {
            // Who waits for a place may find one at a backend that is new, or well again.
            limits.gate().freed();
        }
        expires
    }

    /// Ends what is over of a backend's health.
    fn tend(&self, backend: &Backend, now: Micros) {
        let health = &backend.state().health;
        // What the document before had watched, nobody watches now.
        let forgotten = if self.checks.is_none() { health.forget_probes(now) } else { None };
        let over = match &self.ejector {
            Some(_) => health.expire(now),
            None => health.forget_ejections(now),
        };
        for change in [forgotten, over].into_iter().flatten() {
            change.log(&self.name, backend.label(), &"its time is over");
        }
        backend.stats().state.set(backend.status() as i64);
    }

    /// Tells of a change of a backend's health: operators, and the view, which is made anew soon.
    fn tell(&self, backend: &Backend, change: Change, why: &dyn std::fmt::Display) {
        change.log(&self.name, backend.label(), why);
        self.changed();
    }

    /// Says that the health of a backend has changed: the view is made anew soon.
    pub fn changed(&self) {
        self.news.0.send_replace(());
    }

    /// Begins what goes on beside the requests: the view is kept up to date, the backends are checked, and so is who they are.
    pub fn start(self: &Arc<Self>, runtime: &Handle) {
        let mut tasks = vec![runtime.spawn(keep_view(Arc::downgrade(self), self.news.0.subscribe()))];
        if let Some((checks, client)) = self.checks.clone() {
            let rounds = Rounds { upstream: Arc::downgrade(self), checks, client, news: self.news.0.subscribe() };
            tasks.push(runtime.spawn(rounds.go()));
        }
        let upstream = Arc::downgrade(self);
        let take = move |seats| {
            if let Some(upstream) = upstream.upgrade() {
                upstream.update(seats);
            }
        };
        tasks.extend(self.servers.follow(&self.name, &self.keep, take).map(|following| runtime.spawn(following)));
        let mut running = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        running.extend(tasks.iter().map(tokio::task::JoinHandle::abort_handle));
    }

    /// Ends what [`Upstream::start`] began: another document is in force. Requests may go on.
    pub fn stop(&self) {
        self.end_tasks();
        if let Some(limits) = &self.limits {
            limits.retire();
        }
    }

    fn end_tasks(&self) {
        for task in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }
}

impl Current {
    /// The backend that the client of this request had before, if it may go on there.
    fn session(&self, facts: &Facts<'_>) -> Option<&Arc<Backend>> {
        let backend = self.sessions.as_ref()?.find(facts.request)?;
        (backend.keeps_sessions() || self.view.panics).then_some(backend)
    }
}

impl Watched for Upstream {
    fn backends(&self) -> Arc<[Arc<Backend>]> {
        Self::backends(self)
    }

    fn hear(&self, backend: &Backend, change: Change, why: &str) {
        self.tell(backend, change, &why);
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // Not all that it is to stop: one that never was in force outdates nobody.
        self.end_tasks();
    }
}

fn backends(
    upstream: &str,
    seats: Vec<Seat>,
    start: Start,
    gate: Option<&Arc<Gate>>,
    keep: &Keep,
) -> Arc<[Arc<Backend>]> {
    let fresh = || Health::new(start).joined(clock::now());
    seats.into_iter().map(|seat| Arc::new(Backend::new(upstream, seat, fresh, gate, keep))).collect()
}

/// Waits until no request looks at it any more, which takes no longer than a pick: who is the last to let go of a thousand
/// backends must be a thread that serves no requests.
fn let_go(old: Arc<Current>) {
    for _ in 0..100 {
        if Arc::strong_count(&old) == 1 {
            break;
        }
        std::thread::sleep(Duration::from_micros(20));
    }
    drop(old);
}

/// Makes the view anew whenever something has changed, or time has made it out of date.
async fn keep_view(upstream: Weak<Upstream>, mut news: watch::Receiver<()>) {
    /// Many changes at once make one new view.
    const PAUSE: Duration = Duration::from_millis(2);
    loop {
        news.mark_unchanged();
        let Some(expires) = upstream.upgrade().map(|upstream| upstream.refresh(clock::now())) else { return };
        let expired = async {
            match expires {
                Some(moment) => tokio::time::sleep(view::until(moment, clock::now())).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = news.changed() => if changed.is_err() { return },
            () = expired => {}
        }
        tokio::time::sleep(PAUSE).await;
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

    fn build_with(config: &Config, keep: &Arc<Keep>) -> (Option<Upstream>, Vec<Issue>) {
        let issues = Issues::default();
        let resolved = resolver().resolve(config.names(), keep);
        let built = Upstream::build("api", config, &resolved, keep, &issues.root().key("upstreams").key("api"));
        (built, issues.into_vec())
    }

    fn build(yaml: &str) -> (Option<Upstream>, Vec<Issue>) {
        build_with(&serde_yaml::from_str(yaml).unwrap(), &Arc::default())
    }

    fn good(yaml: &str) -> Upstream {
        let (built, issues) = build(yaml);
        assert_eq!(issues, [], "{yaml}");
        built.unwrap()
    }

    fn shares(upstream: &Upstream) -> Vec<(String, u32)> {
        upstream.backends().iter().map(|backend| (backend.label().to_string(), backend.weight())).collect()
    }

    /// The label of the backend that a request gets, none of those tried.
    fn pick(upstream: &Upstream, tried: &Tried) -> Option<Lease> {
        let request = pingora::http::RequestHeader::build("GET", b"/", None).unwrap();
        let exchange = crate::exchange::Exchange::new();
        let facts =
            Facts { request: &request, exchange: &exchange, response: None, route: "", upstream: "", backend: "" };
        upstream.pick(&facts, tried, Instant::now()).ok()
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
            let expected: Vec<_> = expected.iter().map(|(label, weight)| (label.to_string(), *weight)).collect();
            assert_eq!(shares(&good(yaml)), expected, "{yaml}");
        }
    }

    #[test]
    fn the_ipv6_address_of_localhost_is_tried_last() {
        let upstream = good("[localhost:1, localhost:2]");
        let mut tried = Tried::new();
        let mut next = || {
            let lease = pick(&upstream, &tried)?;
            tried.insert(lease.backend());
            Some(lease.backend().label().contains("::1"))
        };
        assert_eq!([next(), next(), next(), next(), next()], [Some(false), Some(false), Some(true), Some(true), None]);
    }

    #[test]
    fn the_host_field_is_kept_or_the_servers_or_a_text() {
        for (host, expected) in
            [("keep", None), ("backend", Some("app:8080")), ("a.example", Some("a.example")), ("a:81", Some("a:81"))]
        {
            let upstream = good(&format!("{{ servers: [app:8080], host: '{host}' }}"));
            let backends = upstream.backends();
            assert_eq!(upstream.host_field(&backends[0]).map(|value| value.to_str().unwrap()), expected, "{host}");
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
            (
                "{ servers: [app:1], sticky: { secret: x } }",
                "upstreams.api.sticky.secret",
                "a secret of 1",
                "16 or more",
            ),
            ("{ servers: [app:1], retry: { attempts: 99 } }", "upstreams.api.retry.attempts", "too many", "at most 15"),
        ] {
            let (built, issues) = build(yaml);
            let issue = issues.first().expect(yaml);
            assert_eq!(issue.path.to_string(), path, "{yaml}");
            assert!(issue.message.contains(message), "{yaml}: {}", issue.message);
            assert!(issue.hint.as_ref().unwrap().contains(hint), "{yaml}: {:?}", issue.hint);
            assert!(built.is_none() && issues.len() == 1, "{yaml}");
        }
        let at_the_route = build_with(&Config::address("app:x"), &Arc::default()).1;
        assert_eq!(at_the_route[0].path.to_string(), "upstreams.api");
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let (_, issues) = build("{ servers: [app, a:0], host: '/', retry: { attempts: 20 } }");
        assert_eq!(issues.len(), 4);
    }

    #[test]
    fn a_reload_during_an_outage_of_dns_goes_through_with_a_warning() {
        let (keep, config) = (Arc::<Keep>::default(), serde_yaml::from_str("[app:80]").unwrap());
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
        let keep = Arc::<Keep>::default();
        let build = |yaml: &str| build_with(&serde_yaml::from_str(yaml).unwrap(), &keep).0.unwrap();
        let before = build("[10.0.0.1:1, 10.0.0.2:1, 10.0.0.3:1]");
        let after = build("{ servers: [10.0.0.1:1, 10.0.0.2:1, 10.0.0.3:1], retry: { attempts: 1 } }");
        let turns = [&before, &after, &before].map(|upstream| {
            let lease = pick(upstream, &Tried::new()).unwrap();
            lease.backend().label().as_bytes()[7] - b'1'
        });
        assert_eq!((turns[0] + 1) % 3, turns[1]);
        assert_eq!((turns[1] + 1) % 3, turns[2]);
    }

    #[test]
    fn a_thousand_backends_change_under_requests_and_those_that_stay_keep_their_state() {
        let list = |from: usize| {
            let addresses: Vec<_> =
                (from..from + 1000).map(|n| format!("10.0.{}.{}:80", n / 250, n % 250 + 1)).collect();
            good(&format!("{addresses:?}")).servers.seats()
        };
        let (one, other) = (list(0), list(500));
        let upstream = good("[10.9.9.9:80]");
        upstream.update(one.clone());
        let held: Vec<_> = (0..10).map(|_| pick(&upstream, &Tried::new()).unwrap()).collect();
        let before = upstream.backends();
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let picking = scope.spawn(|| {
                let mut picks = 0;
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    assert!(pick(&upstream, &Tried::new()).is_some());
                    picks += 1;
                }
                picks
            });
            for seats in [&other, &one, &other].repeat(3) {
                upstream.update(seats.clone());
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(picking.join().unwrap() > 0);
        });
        let after = upstream.backends();
        assert_eq!((before.len(), after.len()), (1000, 1000));
        for (old, new) in before[500..].iter().zip(&after[..500]) {
            assert_eq!(old.label(), new.label());
            assert!(Arc::ptr_eq(old.state(), new.state()), "{}", old.label());
        }
        // A request at a backend that left is still counted there, and ends there.
        let under_way = |backends: &[Arc<Backend>]| backends.iter().map(|b| b.state().inflight()).sum::<u32>();
        assert_eq!(under_way(&before), 10);
        drop(held);
        assert_eq!(under_way(&before), 0);
    }
}
