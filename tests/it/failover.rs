//! Backends that die, hang, flap and fail under load, and who stands in for them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::harness::gateway_before as start;
use crate::harness::{Gateway, Mood, Patient, eventually, get, names, reserved_port};

/// Clients that ask without a pause while `act` goes on; fails when one of them sees an error. Tells how many requests.
fn under_load(gateway: &Gateway, clients: usize, act: impl FnOnce(&AtomicUsize)) -> usize {
    let (done, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..clients)
            .map(|_| {
                scope.spawn(|| {
                    let mut connection = gateway.connect();
                    while !over.load(Relaxed) {
                        let response = connection.request(&get("/"));
                        assert_eq!(response.status, 200, "{}", response.text());
                        done.fetch_add(1, Relaxed);
                    }
                })
            })
            .collect();
        act(&done);
        over.store(true, Relaxed);
        for client in clients {
            client.join().expect("no client saw an error");
        }
    });
    done.load(Relaxed)
}

/// Waits for so many more requests to be answered.
fn go_on(done: &AtomicUsize, more: usize) {
    let goal = done.load(Relaxed) + more;
    eventually("the load goes on", || done.load(Relaxed) >= goal);
}

#[test]
fn whatever_happens_to_one_of_three_is_no_error_for_what_may_be_repeated() {
    let (a, b, c) = (Patient::named("a"), Patient::named("b"), Patient::named("c"));
    let gateway = start(
        &[&a, &b, &c],
        r#"
upstreams:
  api:
    servers: ["@a", "@b", "@c"]
    health: { active: { http: /healthz, every: 100ms, timeout: 90ms, rise: 1, fall: 1 } }
    retry: { causes: [connect, reset, timeout, 500], per_try: 300ms }
sites:
  - proxy: api
"#,
    );
    under_load(&gateway, 8, |done| {
        for _ in 0..3 {
            go_on(done, 50);
            a.stop();
            go_on(done, 50);
            a.start();
        }
        for mood in [Mood::Silent, Mood::Status(500), Mood::Reset] {
            go_on(done, 50);
            b.request(mood.clone());
            b.check(mood);
            go_on(done, 50);
            for set in [Patient::request, Patient::check] {
                set(&b, Mood::Status(200));
            }
        }
        let before = (a.requests(), b.requests());
        eventually("both are back at work", || a.requests() > before.0 + 5 && b.requests() > before.1 + 5);
    });
    assert_eq!(gateway.metrics().sum(names::REQUESTS, &[("class", "5xx")]), Some(0.0));
}

#[test]
fn a_server_that_comes_back_is_at_work_within_one_check() {
    let (a, b) = (Patient::named("a"), Patient::named("b"));
    let gateway = start(
        &[&a, &b],
        r#"
upstreams:
  api:
    servers: ["@a", "@b"]
    health: { active: { http: /healthz, every: 1s, jitter: 0%, timeout: 500ms, rise: 1, fall: 1 } }
sites:
  - proxy: api
"#,
    );
    a.stop();
    eventually("its checks fail", || {
        gateway.metrics().sum(names::BACKEND_UP, &[("backend", &a.address())]) == Some(0.0)
    });
    a.start();
    let back = Instant::now();
    eventually("it gets a request", || {
        gateway.get("/");
        a.requests() > 0
    });
    // One interval, and what a busy machine needs to get there.
    assert!(back.elapsed() < Duration::from_millis(2500), "{:?}", back.elapsed());
}

#[test]
fn backups_stand_in_tier_by_tier() {
    let (a, b, c) = (Patient::named("a"), Patient::named("b"), Patient::named("c"));
    let gateway = start(
        &[&a, &b, &c],
        r#"
upstreams:
  api:
    servers: ["@a", { address: "@b", backup: true }, { address: "@c", priority: 2 }]
    health: { active: { tcp: true, every: 50ms, rise: 1, fall: 1 } }
sites:
  - proxy: api
"#,
    );
    let all_from = |name: &str| {
        eventually(&format!("all come from {name}"), || (0..5).all(|_| gateway.get("/").text() == name));
    };
    all_from("a");
    a.stop();
    all_from("b");
    b.stop();
    all_from("c");
    c.stop();
    eventually("nobody is left", || gateway.get("/").status == 503);
    assert_eq!(gateway.log_line(names::log::STATUS, 503)[names::log::FAILURE], "no_healthy_backend");
    a.start();
    all_from("a");
}

#[test]
fn the_near_zone_is_preferred_and_the_far_one_helps_out() {
    let (near, far) = (Patient::named("near"), Patient::named("far"));
    let gateway = start(
        &[&near, &far],
        r#"
upstreams:
  api:
    servers: [{ address: "@near", zone: eu-1a }, { address: "@far", zone: eu-1b }]
    zone: eu-1a
sites:
  - proxy: api
"#,
    );
    assert!((0..6).all(|_| gateway.get("/").text() == "near"));
    near.stop();
    assert!((0..6).all(|_| gateway.get("/").text() == "far"));
}

#[test]
fn a_server_that_the_document_drains_takes_nothing_new() {
    let (a, b) = (Patient::named("a"), Patient::named("b"));
    let yaml = |drain: bool| {
        format!(
            "upstreams: {{ api: [{{ address: \"{}\", drain: {drain} }}, \"{}\"] }}\nsites: [{{ proxy: api }}]\n",
            a.address(),
            b.address()
        )
    };
    let gateway = Gateway::start(&yaml(false));
    let from_a = || (0..4).filter(|_| gateway.get("/").text() == "a").count();
    assert_eq!(from_a(), 2);
    gateway.reload(&yaml(true));
    assert_eq!(from_a(), 0);
    gateway.reload(&yaml(false));
    assert_eq!(from_a(), 2);
}

#[test]
fn an_upstream_of_which_nobody_lives_answers_at_once() {
    let port = reserved_port();
    let gateway = Gateway::start(&format!("sites: [{{ proxy: [\"127.0.0.1:{port}\", \"127.0.0.2:{port}\"] }}]\n"));
    assert_eq!(gateway.get("/").status, 502);
    assert_eq!(gateway.log_line(names::log::STATUS, 502)[names::log::FAILURE], "connect_refused");
}
