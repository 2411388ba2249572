//! When a request is tried again, where, and what the client gets when it is not.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crate::harness::{Gateway, H2, Origin, Request, eventually, get, names};

/// One of two backends answers 503; the other is well. Each request begins at the first, for the other is its backup.
const TWO: &str = r#"
runtime: { threads: 1 }
upstreams:
  api:
    servers: ["@busy", { address: "@well", backup: true }]
    retry: { causes: [connect, reset, 503] }
sites:
  - proxy: api
"#;

#[test]
fn a_status_that_asks_for_it_is_tried_on_another_backend() {
    let (busy, well) = (Origin::refusing_with("busy", 503), Origin::named("well"));
    let gateway = Gateway::before(&[&busy, &well], TWO);
    for request in [get("/"), Request::new("PUT", "/").body("x".repeat(1000))] {
        let echo = gateway.request(&request).echo();
        assert_eq!((echo.origin, echo.body.len()), ("well".to_owned(), request.body_len()), "{request:?}");
    }
    assert_eq!(H2::open(&gateway.address()).request(&get("/h2")).echo().origin, "well");
    assert!(busy.requests() >= 3);
    let line = gateway.log_line(names::log::PATH, "/h2");
    assert_eq!((&line["status"], &line["tries"], line.get("failure")), (&200.into(), &2.into(), None), "{line}");
    gateway.expect_metric(names::RETRIES, &[("backend", busy.address())], 3.0);
}

#[test]
fn what_may_not_be_repeated_gets_the_backends_own_answer() {
    let (busy, well) = (Origin::refusing_with("busy", 503), Origin::named("well"));
    let gateway = Gateway::before(&[&busy, &well], TWO);
    for request in [Request::new("POST", "/").body("once"), Request::new("PUT", "/").body("x".repeat(200_000))] {
        let response = gateway.request(&request);
        assert_eq!((response.status, response.text()), (503, "busy".to_owned()), "{}", request.bytes().len());
    }
    assert_eq!((busy.requests(), well.requests()), (2, 0));
}

#[test]
fn when_no_try_is_left_the_client_gets_the_last_backends_own_answer() {
    let origins = ["a", "b", "c", "d"].map(|name| Origin::refusing_with(name, 502));
    let gateway = Gateway::before(
        &origins.iter().collect::<Vec<_>>(),
        r#"
upstreams:
  api: { servers: ["@a", "@b", "@c", "@d"], retry: { attempts: 2, causes: [502] } }
sites:
  - proxy: api
"#,
    );
    let response = gateway.get("/");
    assert_eq!((response.status, response.text().len()), (502, 1), "{}", response.text());
    let counts = origins.each_ref().map(Origin::requests);
    assert_eq!((counts.iter().sum::<usize>(), counts.iter().max()), (3, Some(&1)), "{counts:?}");
}

#[test]
fn the_only_backend_gets_another_try_after_a_status() {
    let origin = Origin::in_turn("only", &[503, 503, 200]);
    let gateway = Gateway::before(
        &[&origin],
        "upstreams: { api: { servers: [\"@only\"], retry: { causes: [503] } } }\nsites: [{ proxy: api }]\n",
    );
    assert_eq!((gateway.get("/").status, origin.requests()), (200, 3));
}

#[test]
fn a_connection_that_breaks_before_the_response_is_no_error_for_what_may_be_repeated() {
    let (breaking, well) = (Origin::resetting("breaking"), Origin::named("well"));
    let gateway = Gateway::before(
        &[&breaking, &well],
        r#"
upstreams:
  api: { servers: ["@breaking", { address: "@well", backup: true }] }
  all:
    servers: ["@breaking", { address: "@well", backup: true }]
    retry: { non_idempotent: true }
sites:
  - routes:
      - { match: /all, proxy: all }
      - { match: /*, proxy: api }
"#,
    );
    assert_eq!(gateway.get("/").echo().origin, "well");
    assert_eq!(gateway.request(&Request::new("DELETE", "/")).echo().origin, "well");
    assert_eq!(gateway.request(&Request::new("POST", "/").body("once")).status, 502);
    assert_eq!(gateway.request(&Request::new("POST", "/all").body("again")).echo().body, "again");
}

#[test]
fn a_backend_that_hangs_is_given_up_after_its_try() {
    let (hanging, well) = (Origin::silent("hanging"), Origin::named("well"));
    let gateway = Gateway::before(
        &[&hanging, &well],
        r#"
upstreams:
  api:
    servers: ["@hanging", { address: "@well", backup: true }]
    retry: { per_try: 200ms }
sites:
  - routes:
      - { match: /first, proxy: api, retry: { attempts: 0, per_try: 200ms } }
      - { match: /*, proxy: api }
"#,
    );
    assert_eq!(gateway.get("/").echo().origin, "well");
    assert_eq!(gateway.get("/first").status, 504);
}

#[test]
fn however_many_kept_connections_are_dead_the_next_try_gets_a_new_one() {
    let origin = Origin::forgetting("forgetting");
    let gateway = Gateway::before(&[&origin], "upstreams: { api: [\"@forgetting\"] }\nsites: [{ proxy: api }]\n");
    std::thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| assert_eq!(gateway.get("/").status, 200));
        }
        eventually("all have a connection", || origin.connections() == 40);
        origin.release();
    });
    let tries = ["/1", "/2", "/3", "/4"].map(|path| {
        assert_eq!(gateway.get(path).status, 200);
        gateway.log_line(names::log::PATH, path)["tries"].as_u64().unwrap()
    });
    // Now and then Pingora's pool fails to hand out a kept connection, and a request gets a new one at once.
    assert!(tries.contains(&2) && tries.iter().all(|count| *count <= 2), "{tries:?}");
}

/// A backend of its own process, that can be killed: another gateway, which answers by itself.
fn backend(name: &str) -> Gateway {
    Gateway::start(&format!("sites:\n  - respond: {{ status: 200, body: {name} }}\n"))
}

#[test]
fn one_of_three_backends_killed_under_load_is_no_error_for_anybody() {
    let mut backends = ["a", "b", "c"].map(backend);
    let addresses = backends.each_ref().map(Gateway::address);
    for balance in ["round_robin", "power_of_two", "peak_ewma"] {
        let gateway = Gateway::start(&format!(
            "upstreams:\n  api: {{ servers: {addresses:?}, balance: {balance} }}\nsites:\n  - proxy: api\n"
        ));
        let (done, killed) = (AtomicUsize::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..16)
                .map(|_| {
                    scope.spawn(|| {
                        let mut connection = gateway.connect();
                        let mut after = 0;
                        while after < 200 {
                            after += usize::from(killed.load(Relaxed));
                            let response = connection.request(&get("/"));
                            assert_eq!(response.status, 200, "{}", response.text());
                            done.fetch_add(1, Relaxed);
                        }
                    })
                })
                .collect();
            eventually("the load runs", || done.load(Relaxed) > 500);
            backends[1].signal("KILL");
            assert!(backends[1].wait_exit(Duration::from_secs(5)).is_some());
            killed.store(true, Relaxed);
            for client in clients {
                client.join().expect("no client saw an error");
            }
        });
        assert_eq!(gateway.metrics().sum(names::REQUESTS, &[("class", "5xx")]), Some(0.0));
        backends[1] = backend("b");
    }
}

#[test]
fn a_try_that_the_total_would_end_is_not_begun() {
    let origin = Origin::refusing_with("only", 503);
    let gateway = Gateway::before(
        &[&origin],
        "upstreams: { api: { servers: [\"@only\"], timeouts: { total: 120ms, read: 100ms }, retry: { attempts: 6, causes: [503] } } }\n\
         sites: [{ proxy: api }]\n",
    );
    let response = gateway.get("/");
    assert_eq!((response.status, response.text()), (503, "only".to_owned()), "the server's own answer");
}
