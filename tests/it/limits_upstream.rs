//! Limits of an upstream and its servers: who waits, who is refused, and what a circuit and an adaptive limit do.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use crate::harness::names::{self, log};
use crate::harness::{Gateway, H2, Origin, Pace, Request, Response, WebSocket, Worker, eventually, get};

const API: &[(&str, &str)] = &[("upstream", "api")];

fn start(workers: &[&Worker], yaml: &str) -> Gateway {
    Gateway::start(&Worker::fill(yaml, workers))
}

/// GETs a path on a connection of its own, beside the test.
fn ask<'s>(scope: &'s Scope<'s, '_>, gateway: &'s Gateway, path: &str) -> ScopedJoinHandle<'s, Response> {
    let request = get(path);
    scope.spawn(move || gateway.request(&request))
}

fn await_queue(gateway: &Gateway, length: usize) {
    gateway.expect_metric(names::QUEUE_LENGTH, API, length as f64);
}

fn await_paths(worker: &Worker, count: usize) {
    eventually(&format!("{} gets {count} requests", worker.name()), || worker.paths().len() == count);
}

#[test]
fn who_waits_is_served_in_the_order_of_coming() {
    let a = Worker::new("a", Pace::Held);
    let gateway = start(
        &[&a],
        r#"
upstreams: { api: { servers: ["@a"], limits: { requests: 1, queue: 10, queue_timeout: 30s } } }
sites:
  - proxy: api
"#,
    );
    thread::scope(|scope| {
        let mut clients = vec![ask(scope, &gateway, "/0")];
        await_paths(&a, 1);
        for number in 1..=5 {
            clients.push(ask(scope, &gateway, &format!("/{number}")));
            await_queue(&gateway, number);
        }
        for answered in 1..=5 {
            a.let_go(1);
            await_paths(&a, answered + 1);
        }
        a.let_go(1);
        for client in clients {
            assert_eq!(client.join().unwrap().status, 200);
        }
    });
    assert_eq!(a.paths(), ["/0", "/1", "/2", "/3", "/4", "/5"]);
    assert_eq!(a.most_requests(), 1);
    await_queue(&gateway, 0);
}

#[test]
fn a_full_queue_refuses_at_once_and_a_long_wait_ends() {
    let a = Worker::new("a", Pace::Held);
    let gateway = start(
        &[&a],
        r#"
log: { access: json }
upstreams: { api: { servers: ["@a"], limits: { requests: 1, queue: 1, queue_timeout: 1500ms } } }
sites:
  - proxy: api
"#,
    );
    thread::scope(|scope| {
        let first = ask(scope, &gateway, "/first");
        await_paths(&a, 1);
        let began = Instant::now();
        let late = ask(scope, &gateway, "/late");
        await_queue(&gateway, 1);
        let full = gateway.get("/full");
        assert!(began.elapsed() < Duration::from_millis(1500), "it did not wait");
        assert_eq!((full.status, full.header("retry-after")), (503, Some("2")));
        let late = late.join().unwrap();
        assert!(began.elapsed() >= Duration::from_millis(1500), "it waited its time");
        assert_eq!((late.status, late.header("retry-after")), (503, Some("2")));
        a.let_go(1);
        assert_eq!(first.join().unwrap().status, 200);
    });
    for (path, failure) in [("/full", "queue_full"), ("/late", "queue_timeout")] {
        assert_eq!(gateway.log_line(log::PATH, path)[log::FAILURE], failure, "{path}");
        gateway.expect_metric(names::UPSTREAM_REFUSED, &[API[0], ("reason", failure)], 1.0);
    }
    assert_eq!(a.paths(), ["/first"]);
}

#[test]
fn without_a_queue_what_is_too_much_is_refused_at_once() {
    let a = Worker::new("a", Pace::Held);
    let gateway = start(
        &[&a],
        r#"
log: { access: json }
upstreams: { api: { servers: ["@a"], limits: { requests: 2 } } }
sites:
  - proxy: api
"#,
    );
    thread::scope(|scope| {
        let clients = [ask(scope, &gateway, "/1"), ask(scope, &gateway, "/2")];
        await_paths(&a, 2);
        let refused = gateway.get("/3");
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
        a.let_go(2);
        for client in clients {
            assert_eq!(client.join().unwrap().status, 200);
        }
    });
    a.set_pace(Pace::Free);
    assert_eq!(gateway.get("/4").status, 200);
    assert_eq!(gateway.log_line(log::PATH, "/3")[log::FAILURE], "limit");
    gateway.expect_metric(names::UPSTREAM_REFUSED, &[API[0], ("reason", "limit")], 1.0);
}

#[test]
fn a_full_server_is_passed_over_but_not_for_a_backup() {
    let (a, b, backup) = (Worker::new("a", Pace::Held), Worker::new("b", Pace::Held), Worker::new("spare", Pace::Free));
    let gateway = start(
        &[&a, &b, &backup],
        r#"
upstreams:
  api:
    servers:
      - { address: "@a", weight: 1000 }
      - { address: "@b", max_requests: 2 }
      - { address: "@spare", backup: true }
    limits: { server_requests: 1 }
sites:
  - proxy: api
"#,
    );
    thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|number| {
                let client = ask(scope, &gateway, "/");
                eventually("it arrives", || a.paths().len() + b.paths().len() == number + 1);
                client
            })
            .collect();
        assert_eq!((a.paths().len(), b.paths().len()), (1, 2));
        assert_eq!(gateway.get("/").status, 503);
        a.let_go(1);
        b.let_go(2);
        for client in clients {
            assert_eq!(client.join().unwrap().status, 200);
        }
    });
    assert_eq!(backup.paths().len(), 0, "they were full, but well");
}

#[test]
fn who_waits_for_a_server_gets_the_one_that_is_freed() {
    let (a, b) = (Worker::new("a", Pace::Held), Worker::new("b", Pace::Held));
    let gateway = start(
        &[&a, &b],
        r#"
upstreams: { api: { servers: ["@a", "@b"], limits: { server_requests: 1, queue: 5, queue_timeout: 30s } } }
sites:
  - proxy: api
"#,
    );
    thread::scope(|scope| {
        let clients = [ask(scope, &gateway, "/"), ask(scope, &gateway, "/")];
        await_paths(&a, 1);
        await_paths(&b, 1);
        let waiting = ask(scope, &gateway, "/waiting");
        await_queue(&gateway, 1);
        b.let_go(1);
        await_paths(&b, 2);
        b.let_go(1);
        assert_eq!(waiting.join().unwrap().header("x-origin"), Some("b"));
        a.let_go(1);
        for client in clients {
            assert_eq!(client.join().unwrap().status, 200);
        }
    });
}

#[test]
fn connections_never_are_more_than_may_be() {
    let a = Worker::new("a", Pace::Slow(Duration::from_millis(2)));
    let gateway = start(
        &[&a],
        r#"
runtime: { threads: 2 }
upstreams: { api: { servers: ["@a"], limits: { connections: 4, queue: 100, queue_timeout: 30s } } }
sites:
  - proxy: api
"#,
    );
    thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                let mut connection = gateway.connect();
                for _ in 0..20 {
                    assert_eq!(connection.request(&get("/")).status, 200);
                }
            });
        }
    });
    let (now, most) = a.connections();
    assert!(most <= 4, "{most} connections at once");
    gateway.expect_metric(names::UPSTREAM_CONNECTIONS, &[API[0], ("backend", a.address())], now as f64);
}

#[test]
fn checks_take_no_place_of_the_connections() {
    let a = Worker::new("a", Pace::Free);
    let gateway = start(
        &[&a],
        r#"
upstreams:
  api:
    servers: ["@a"]
    limits: { connections: 2 }
    health: { active: { http: /healthz, every: 20ms, timeout: 500ms, fall: 1 } }
    keepalive: { idle: 0 }
sites:
  - proxy: api
"#,
    );
    eventually("it is checked again and again", || a.paths().len() >= 6);
    let began = Instant::now();
    assert_eq!(gateway.get("/").status, 200);
    assert!(began.elapsed() < Duration::from_secs(1), "nobody waits for connections of checks");
    gateway.expect_metric(names::UPSTREAM_CONNECTIONS, &[API[0], ("backend", a.address())], 0.0);
    let state = &gateway.admin("/upstreams").json()["upstreams"][0]["backends"][0]["state"];
    assert_eq!(state, "up");
}

#[test]
fn a_client_that_leaves_frees_its_place_in_the_queue() {
    let a = Worker::new("a", Pace::Held);
    let gateway = start(
        &[&a],
        r#"
log: { access: json }
upstreams: { api: { servers: ["@a"], limits: { requests: 1, queue: 5, queue_timeout: 60s } } }
sites:
  - proxy: api
"#,
    );
    thread::scope(|scope| {
        let first = ask(scope, &gateway, "/first");
        await_paths(&a, 1);
        for request in [
            get("/bodiless"),
            Request::new("POST", "/body").body("all of it"),
            Request::new("POST", "/more").header("Content-Length", "100000"),
        ] {
            let mut leaving = gateway.connect();
            leaving.send(request.bytes());
            await_queue(&gateway, 1);
            drop(leaving);
            await_queue(&gateway, 0);
        }
        // One that sends a further request ahead has not left.
        let mut eager = gateway.connect();
        eager.send([get("/eager").bytes(), get("/ahead").bytes()].concat());
        await_queue(&gateway, 1);
        a.let_go(3);
        assert_eq!(eager.read_response("GET").status, 200);
        assert_eq!(eager.read_response("GET").status, 200);
        assert_eq!(first.join().unwrap().status, 200);
    });
    assert_eq!(a.paths(), ["/first", "/eager", "/ahead"]);
    assert_eq!(gateway.log_line(log::PATH, "/bodiless")[log::FAILURE], "client_closed");
}

#[test]
fn requests_by_http2_wait_and_leave_too() {
    let a = Worker::new("a", Pace::Held);
    let gateway = start(
        &[&a],
        r#"
upstreams: { api: { servers: ["@a"], limits: { requests: 1, queue: 5, queue_timeout: 60s } } }
sites:
  - proxy: api
"#,
    );
    thread::scope(|scope| {
        let first = ask(scope, &gateway, "/first");
        await_paths(&a, 1);
        let address = gateway.address();
        let waiting = scope.spawn(move || {
            let requests = [get("/1"), Request::new("POST", "/2").body("a body"), get("/3")];
            H2::open(&address).requests(&requests)
        });
        await_queue(&gateway, 3);
        a.let_go(4);
        assert_eq!(first.join().unwrap().status, 200);
        for response in waiting.join().unwrap() {
            assert_eq!(response.status, 200);
        }
        let again = ask(scope, &gateway, "/again");
        await_paths(&a, 5);
        let mut leaving = H2::open(&gateway.address());
        leaving.begin(&[get("/leaves"), Request::new("POST", "/leaves").body("a body")]);
        await_queue(&gateway, 2);
        drop(leaving);
        await_queue(&gateway, 0);
        a.let_go(1);
        assert_eq!(again.join().unwrap().status, 200);
    });
    assert_eq!(a.paths().len(), 5);
}

#[test]
fn a_circuit_opens_refuses_and_closes_again() {
    let a = Worker::new("a", Pace::Free);
    let gateway = start(
        &[&a],
        r#"
log: { access: json }
upstreams:
  api:
    servers: ["@a"]
    limits: { circuit: { errors: 50%, within: 60s, min_requests: 6, open: 1s } }
sites:
  - proxy: api
"#,
    );
    for _ in 0..3 {
        assert_eq!(gateway.get("/well").status, 200);
    }
    a.set_status(503);
    for _ in 0..3 {
        assert_eq!(gateway.get("/ill").header("x-origin"), Some("a"), "the origin's own answer");
    }
    let refused = gateway.get("/refused");
    assert_eq!((refused.status, refused.header("x-origin"), refused.header("retry-after")), (503, None, Some("1")));
    assert_eq!(a.paths().len(), 6);
    assert_eq!(gateway.log_line(log::PATH, "/refused")[log::FAILURE], "circuit_open");
    gateway.expect_metric(names::CIRCUIT_STATE, API, 1.0);
    // Let through after a while, one request finds it still ill.
    eventually("one is let through", || gateway.get("/").header("x-origin") == Some("a"));
    assert_eq!(gateway.get("/").header("x-origin"), None, "and it is open again");
    gateway.expect_metric(names::CIRCUIT_OPENED, API, 2.0);
    a.set_status(200);
    eventually("one is let through and goes well", || gateway.get("/").status == 200);
    assert_eq!(gateway.get("/").status, 200);
    gateway.expect_metric(names::CIRCUIT_STATE, API, 0.0);
    gateway.expect_metric(names::CIRCUIT_OPENED, API, 2.0);
}

#[test]
fn a_retry_that_helps_is_no_failure_to_the_circuit() {
    let (down, a) = (Origin::refusing("down"), Worker::new("a", Pace::Free));
    let yaml = r#"
upstreams: { api: { servers: ["@down", "@a"], limits: { circuit: { min_requests: 2, errors: 10% } } } }
sites:
  - proxy: api
"#;
    let gateway = Gateway::before(&[&down], &Worker::fill(yaml, &[&a]));
    for _ in 0..10 {
        assert_eq!(gateway.get("/").status, 200);
    }
    gateway.expect_metric(names::CIRCUIT_OPENED, API, 0.0);
}

#[test]
fn an_adaptive_limit_falls_when_the_origin_becomes_slow() {
    let a = Worker::new("a", Pace::Slow(Duration::from_millis(1)));
    let gateway = start(
        &[&a],
        r#"
upstreams:
  api:
    servers: ["@a"]
    limits: { adaptive: { min: 2, max: 30 }, queue: 100, queue_timeout: 60s }
sites:
  - proxy: api
"#,
    );
    let limit = || gateway.metrics().sum(names::CONCURRENCY_LIMIT, API).unwrap();
    assert_eq!(limit(), 20.0);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let mut connection = gateway.connect();
                while !done.load(Relaxed) {
                    assert_eq!(connection.request(&get("/")).status, 200);
                }
            });
        }
        eventually("it has learned how fast the origin is", || a.paths().len() > 500);
        a.set_pace(Pace::Slow(Duration::from_millis(200)));
        eventually("the limit falls", || limit() <= 10.0);
        done.store(true, Relaxed);
    });
}

#[test]
fn requests_under_way_count_over_a_reload() {
    let a = Worker::new("a", Pace::Held);
    let yaml = |queue| {
        let limits = format!("{{ requests: 1, queue: {queue}, queue_timeout: 60s }}");
        let yaml = format!("upstreams: {{ api: {{ servers: [\"@a\"], limits: {limits} }} }}\nsites:\n  - proxy: api\n");
        Worker::fill(&yaml, &[&a])
    };
    let gateway = Gateway::start(&yaml(5));
    thread::scope(|scope| {
        let first = ask(scope, &gateway, "/first");
        await_paths(&a, 1);
        let second = ask(scope, &gateway, "/second");
        await_queue(&gateway, 1);
        gateway.reload(&yaml(6));
        let third = ask(scope, &gateway, "/third");
        await_queue(&gateway, 2);
        a.let_go(3);
        for client in [first, second, third] {
            assert_eq!(client.join().unwrap().status, 200);
        }
    });
    assert_eq!((a.paths(), a.most_requests()), (vec!["/first".into(), "/second".into(), "/third".into()], 1));
}

#[test]
fn retries_are_made_only_as_far_as_the_budget_goes() {
    let (dying, backup) = (Worker::new("dying", Pace::Held), Worker::new("backup", Pace::Held));
    let gateway = start(
        &[&dying, &backup],
        r#"
upstreams:
  api:
    servers: ["@dying", { address: "@backup", backup: true }]
    retry: { attempts: 1, budget: 0% }
sites:
  - proxy: api
"#,
    );
    thread::scope(|scope| {
        let clients: Vec<_> = (0..30).map(|_| ask(scope, &gateway, "/")).collect();
        await_paths(&dying, 30);
        dying.set_status(0);
        dying.set_pace(Pace::Free);
        gateway.expect_metric(names::RETRIES_REFUSED, API, 20.0);
        await_paths(&backup, 10);
        backup.let_go(10);
        let statuses: Vec<_> = clients.into_iter().map(|client| client.join().unwrap().status).collect();
        let count = |wanted| statuses.iter().filter(|status| **status == wanted).count();
        assert_eq!((count(200), count(502)), (10, 20), "{statuses:?}");
    });
}

#[test]
fn a_retry_counts_until_it_is_answered_however_long_the_tunnel_behind_it() {
    let (dead, tunnel) = (Origin::refusing("dead"), Origin::websocket("tunnel"));
    let gateway = Gateway::before(
        &[&dead, &tunnel],
        r#"
upstreams:
  api:
    servers: ["@dead", { address: "@tunnel", backup: true }]
    retry: { attempts: 1, budget: 0% }
    health: { passive: false }
sites:
  - proxy: api
"#,
    );
    // Ten retries may be under way, whatever the share.
    let tunnels: Vec<_> = (0..15).map(|_| WebSocket::open(&gateway.address(), "/")).collect();
    gateway.expect_metric(names::RETRIES, &[("backend", dead.address())], 15.0);
    tunnels.into_iter().for_each(WebSocket::close);
}

#[test]
fn a_retry_waits_for_a_server_that_is_full() {
    let (a, b) = (Worker::new("a", Pace::Held), Worker::new("b", Pace::Held));
    let gateway = start(
        &[&a, &b],
        r#"
upstreams:
  api:
    servers: [{ address: "@a", weight: 1000 }, "@b"]
    limits: { server_requests: 1, queue: 5, queue_timeout: 30s }
sites:
  - proxy: api
"#,
    );
    thread::scope(|scope| {
        let fails = ask(scope, &gateway, "/fails");
        await_paths(&a, 1);
        let holds = ask(scope, &gateway, "/holds");
        await_paths(&b, 1);
        a.set_status(0);
        a.let_go(1);
        await_queue(&gateway, 1);
        b.let_go(1);
        await_paths(&b, 2);
        b.let_go(1);
        assert_eq!(holds.join().unwrap().status, 200);
        assert_eq!(fails.join().unwrap().header("x-origin"), Some("b"));
    });
    assert_eq!(b.paths(), ["/holds", "/fails"]);
}

#[test]
fn an_upgraded_connection_counts_until_it_ends() {
    let origin = Origin::websocket("ws");
    let gateway = Gateway::before(
        &[&origin],
        r#"
upstreams: { api: { servers: ["@ws"], limits: { requests: 1 } } }
sites:
  - proxy: api
"#,
    );
    let mut socket = WebSocket::open(&gateway.address(), "/");
    socket.send("hello");
    assert_eq!(socket.receive().unwrap(), "hello");
    assert_eq!(gateway.get("/").status, 503);
    socket.close();
    eventually("its place is free", || gateway.get("/").status != 503);
}

#[test]
fn a_session_that_waits_for_its_server_keeps_nobody_else_waiting() {
    let (a, b) = (Worker::new("a", Pace::Free), Worker::new("b", Pace::Free));
    let gateway = start(
        &[&a, &b],
        r#"
upstreams:
  api:
    servers: ["@a", "@b"]
    sticky: { cookie: server, secret: "0123456789abcdef0123456789abcdef" }
    limits: { server_requests: 1, queue: 5, queue_timeout: 60s }
sites:
  - proxy: api
"#,
    );
    let first = gateway.get("/");
    let (own, other) = if first.header("x-origin") == Some("a") { (&a, &b) } else { (&b, &a) };
    let cookie = first.header("set-cookie").and_then(|field| field.split(';').next()).unwrap().to_owned();
    let session = |path: &str| get(path).header("Cookie", &cookie);
    for worker in [own, other] {
        worker.set_pace(Pace::Held);
    }
    let (before, free) = (own.paths().len(), other.paths().len());
    thread::scope(|scope| {
        let gateway = &gateway;
        let ask = |request: Request| scope.spawn(move || gateway.request(&request));
        let mut clients = vec![ask(session("/holds"))];
        await_paths(own, before + 1);
        clients.push(ask(session("/waits")));
        await_queue(gateway, 1);
        clients.push(ask(get("/passes")));
        await_paths(other, free + 1);
        await_queue(gateway, 1);
        own.let_go(2);
        other.let_go(1);
        for client in clients {
            assert_eq!(client.join().unwrap().status, 200);
        }
    });
    assert_eq!(own.paths()[before..], ["/holds", "/waits"]);
}
