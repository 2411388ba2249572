//! Tests of sessions in an upstream: which backend a cookie leads to, and when a client gets another.

use std::sync::Arc;
use std::time::Instant;

use pingora::http::RequestHeader;

use super::backend::{Backend, Lease, Tried};
use super::health::rules::ActiveRules;
use super::health::state::Finding;
use super::{Config, Refusal, Resolved, Upstream};
use crate::diag::Issues;
use crate::exchange::{Exchange, Facts};
use crate::keep::Keep;

fn build(settings: &str, keep: &Arc<Keep>) -> Upstream {
    let servers = "servers: [10.0.0.1:80, 10.0.0.2:80, 10.0.0.3:80]";
    let config: Config = serde_yaml::from_str(&format!("{{ {servers}, {settings} }}")).unwrap();
    let issues = Issues::default();
    let built = Upstream::build("api", &config, &Resolved::default(), keep, &issues.root());
    assert_eq!(issues.into_vec(), []);
    built.unwrap()
}

/// A client with the cookie that it was given.
#[derive(Default)]
struct Client {
    cookie: Option<String>,
}

impl Client {
    fn facts<T>(&self, act: impl FnOnce(&Facts<'_>) -> T) -> T {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        if let Some(cookie) = &self.cookie {
            request.append_header("cookie", cookie).unwrap();
        }
        let exchange = Exchange::new();
        act(&Facts { request: &request, exchange: &exchange, response: None, route: "", upstream: "", backend: "" })
    }

    fn pick(&self, upstream: &Upstream, tried: &Tried) -> Result<Lease, Refusal> {
        self.facts(|facts| upstream.pick(facts, tried, Instant::now()))
    }

    /// Takes a response of this backend; true: it set a cookie.
    fn hear(&mut self, upstream: &Upstream, backend: &Backend, tried: &Tried) -> bool {
        let field = self.facts(|facts| upstream.session_cookie(facts, backend, tried));
        if let Some(field) = &field {
            self.cookie = field.to_str().unwrap().split(';').next().map(str::to_owned);
        }
        field.is_some()
    }

    /// A request and its response: the label of the backend, and whether it set a cookie.
    fn ask(&mut self, upstream: &Upstream) -> (String, bool) {
        let lease = self.pick(upstream, &Tried::new()).unwrap();
        let label = lease.backend().label().to_string();
        (label, self.hear(upstream, lease.backend(), &Tried::new()))
    }
}

#[test]
fn a_client_gets_one_cookie_and_stays() {
    let upstream = build("sticky: true", &Arc::default());
    let mut client = Client::default();
    let (label, begun) = client.ask(&upstream);
    assert!(begun);
    for _ in 0..5 {
        assert_eq!(client.ask(&upstream), (label.clone(), false));
    }
    let without = build("balance: round_robin", &Arc::default());
    assert!(!Client::default().ask(&without).1);
}

#[test]
fn where_there_is_no_room_the_session_waits_or_another_serves_and_it_stays_where_it_is() {
    for (limits, waits) in [("{ server_requests: 1 }", false), ("{ server_requests: 1, queue: 10 }", true)] {
        let upstream = build(&format!("sticky: true, limits: {limits}"), &Arc::default());
        let mut client = Client::default();
        let (label, _) = client.ask(&upstream);
        let own = client.pick(&upstream, &Tried::new()).unwrap();
        assert_eq!(**own.backend().label(), *label);
        match client.pick(&upstream, &Tried::new()) {
            Err(refusal) => assert!(waits && refusal == Refusal::Full, "{limits}"),
            Ok(other) => {
                assert!(!waits && **other.backend().label() != *label, "{limits}");
                assert!(!client.hear(&upstream, other.backend(), &Tried::new()), "{limits}");
            }
        }
        drop(own);
        assert_eq!(client.ask(&upstream), (label, false), "{limits}");
    }
}

#[test]
fn a_backend_that_failed_loses_the_session() {
    let upstream = build("sticky: true", &Arc::default());
    let mut client = Client::default();
    let (label, _) = client.ask(&upstream);
    let mut tried = Tried::new();
    tried.insert(client.pick(&upstream, &tried).unwrap().backend());
    let next = client.pick(&upstream, &tried).unwrap();
    let other = next.backend().label().to_string();
    assert!(other != label && client.hear(&upstream, next.backend(), &tried));
    assert_eq!(client.ask(&upstream), (other, false));
}

#[test]
fn a_session_ends_where_the_backend_is_down_and_goes_on_where_it_drains() {
    let keep = Arc::default();
    let upstream = build("sticky: true", &keep);
    let mut client = Client::default();
    let (label, _) = client.ask(&upstream);
    assert!(upstream.drain(&label, true));
    upstream.refresh(0);
    assert_eq!(client.ask(&upstream), (label.clone(), false));
    assert_ne!(Client::default().ask(&upstream).0, label);
    assert!(upstream.drain(&label, false));
    // The same over a reload, for the secret is kept.
    let reloaded = build("sticky: true, retry: { attempts: 1 }", &keep);
    assert_eq!(client.ask(&reloaded), (label.clone(), false));
    let backends = reloaded.backends();
    let own = backends.iter().find(|backend| **backend.label() == *label).unwrap();
    let fault = Some("it fails".to_owned());
    own.state().health.probe(Finding { began: 0, ended: 0, fault }, &ActiveRules { rise: 1, fall: 1 });
    let (other, renewed) = client.ask(&reloaded);
    assert!(other != label && renewed);
}
