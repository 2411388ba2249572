//! Policies on the wire: the same key to the same server, the busy one spared, and what `explain` tells of a choice.

use std::collections::BTreeMap;
use std::thread;

use crate::harness::{Gateway, Origin, Request, eventually, get};

fn document(balance: &str) -> String {
    format!(
        "upstreams: {{ api: {{ servers: [\"@a\", \"@b\", \"@c\"], balance: {balance} }} }}\nsites:\n  - proxy: api\n"
    )
}

/// How many of these requests each origin got.
fn shares(gateway: &Gateway, requests: impl IntoIterator<Item = Request>) -> BTreeMap<String, usize> {
    let (mut shares, mut connection) = (BTreeMap::new(), gateway.connect());
    for request in requests {
        *shares.entry(connection.request(&request).echo().origin).or_default() += 1;
    }
    shares
}

#[test]
fn requests_without_a_key_are_shared_by_every_policy() {
    let origins = ["a", "b", "c"].map(Origin::named);
    let [a, b, c] = &origins;
    for balance in
        ["round_robin", "least_connections", "power_of_two", "random", "consistent_hash: { key: '${request.path}' }"]
    {
        let balance = if balance.contains(':') { format!("{{ {balance} }}") } else { balance.to_owned() };
        let gateway = Gateway::before(&[a, b, c], &document(&balance));
        let shares = shares(&gateway, (0..150).map(|number| get(&format!("/{number}"))));
        assert!(shares.len() == 3 && shares.values().all(|share| *share > 20), "{balance}: {shares:?}");
    }
}

#[test]
fn a_key_has_its_server_on_every_gateway() {
    let origins = ["a", "b", "c"].map(Origin::named);
    let [a, b, c] = &origins;
    // A bound that one request still being counted does not reach.
    let ring = "{ consistent_hash: { key: '${request.headers.x-user}', algorithm: ring, bounded_load: 10 } }";
    for balance in ["{ consistent_hash: { key: '${request.headers.x-user}' } }", ring] {
        let gateways = [0, 1].map(|_| Gateway::before(&[a, b, c], &document(balance)));
        let of_user = |gateway: &Gateway, user: &str| gateway.request(&get("/").header("X-User", user)).echo().origin;
        let mut seen = BTreeMap::<String, usize>::new();
        for user in 0..30 {
            let user = format!("user {user}");
            let origin = of_user(&gateways[0], &user);
            assert_eq!(
                [of_user(&gateways[0], &user), of_user(&gateways[1], &user)],
                [&*origin; 2],
                "{balance}: {user}"
            );
            *seen.entry(origin).or_default() += 1;
        }
        assert_eq!(seen.len(), 3, "{balance}: {seen:?}");
        // Those without a user are no user of their own.
        assert_eq!(shares(&gateways[0], (0..50).map(|_| get("/"))).len(), 3, "{balance}");
    }
}

#[test]
fn a_client_has_its_server() {
    let origins = ["a", "b", "c"].map(Origin::named);
    let [a, b, c] = &origins;
    for balance in ["ip_hash", "consistent_hash"] {
        let trusting = format!("runtime: {{ trusted_proxies: [127.0.0.0/8] }}\n{}", document(balance));
        let gateway = Gateway::before(&[a, b, c], &trusting);
        let from = |client: usize| get("/").header("X-Forwarded-For", &format!("192.0.2.{client}"));
        assert_eq!(shares(&gateway, (0..20).map(|_| from(7))).len(), 1, "{balance}");
        assert_eq!(shares(&gateway, (0..50).map(from)).len(), 3, "{balance}");
    }
}

#[test]
fn a_server_that_is_busy_is_spared() {
    for balance in ["least_connections", "power_of_two", "peak_ewma"] {
        let (busy, idle) = (Origin::holding("a"), Origin::holding("b"));
        let servers = "servers: [\"@a\", \"@b\"]";
        let document = format!("upstreams: {{ api: {{ {servers}, balance: {balance} }} }}\nsites:\n  - proxy: api\n");
        let gateway = Gateway::before(&[&busy, &idle], &document);
        thread::scope(|scope| {
            let clients: Vec<_> = (0..8).map(|_| scope.spawn(|| gateway.get("/held"))).collect();
            eventually("all requests have come", || busy.requests() + idle.requests() == clients.len());
            let (held, ended) = (busy.requests(), idle.requests());
            assert!(held > 1 && ended > 1, "{balance}: {held} and {ended}");
            idle.release();
            eventually("one server has nothing to do any more", || {
                clients.iter().filter(|client| client.is_finished()).count() == ended
            });
            for _ in 0..20 {
                assert_eq!(gateway.get("/").echo().origin, "b", "{balance}");
            }
            busy.release();
            clients.into_iter().for_each(|client| assert_eq!(client.join().unwrap().status, 200));
        });
    }
}

#[test]
fn explain_tells_the_server_and_why() {
    const DOCUMENT: &str = "
upstreams:
  keyed: { servers: [10.0.0.1:80, 10.0.0.2:80], balance: { consistent_hash: { key: '${request.query.user}' } } }
  drained: { servers: [10.0.0.1:80, { address: 10.0.0.2:80, drain: true }] }
  backed: { servers: [10.0.0.1:80, 10.0.0.2:80, { address: 10.0.0.3:80, backup: true }], balance: least_connections }
  single: [10.0.0.1:80]
sites:
  - routes:
      - { match: /keyed, proxy: keyed }
      - { match: /drained, proxy: drained }
      - { match: /backed, proxy: backed }
      - { match: /single, proxy: single }
";
    for (target, told) in [
        ("/keyed?user=joe", "backend   10.0.0.1:80 (one of 2: the key `joe` belongs to it)\n"),
        ("/keyed", "(one of 2: drawn at random by weight, for the request has no key)\n"),
        ("/drained", "backend   10.0.0.1:80 (the only one of 2 that takes requests)\n"),
        ("/backed", "(one of 2 that take requests, of 3: the least busy for its weight of all (0 under way))\n"),
        ("/single", "backend   10.0.0.1:80\n"),
    ] {
        let url = format!("http://x.test{target}");
        let output = Gateway::command(DOCUMENT, &["explain", "edgeway.yaml", "GET", &url]);
        assert!(output.stdout.contains(told), "{target}: {}", output.stdout);
    }
}
