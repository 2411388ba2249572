//! No backend holds a request for ever: each wait is bounded.

use std::time::{Duration, Instant};

use crate::harness::{Gateway, Origin, get, names};

/// Far above the bounds set here, and far below the defaults.
const SOON: Duration = Duration::from_secs(4);

fn status_and_time(gateway: &Gateway, path: &str) -> (u16, Duration) {
    let begun = Instant::now();
    (gateway.get(path).status, begun.elapsed())
}

#[test]
fn a_backend_that_accepts_and_says_nothing_is_a_gateway_timeout() {
    let silent = Origin::silent("silent");
    let gateway = Gateway::before(
        &[&silent],
        r#"
upstreams:
  read: { servers: ["@silent"], timeouts: { read: 300ms } }
  total: { servers: ["@silent"], timeouts: { total: 300ms } }
sites:
  - routes:
      - { match: /read, proxy: read }
      - { match: /total, proxy: total }
"#,
    );
    for path in ["/read", "/total"] {
        let (status, time) = status_and_time(&gateway, path);
        assert_eq!(status, 504, "{path}");
        assert!(time >= Duration::from_millis(250) && time < SOON, "{path}: {time:?}");
    }
    assert_eq!(silent.connections(), 2, "a request that a backend may have begun is not tried again");
}

#[test]
fn a_backend_that_cannot_be_reached_is_given_up() {
    let full = Origin::full("full");
    let gateway = Gateway::before(
        &[&full],
        r#"
upstreams:
  connect: { servers: ["@full"], timeouts: { connect: 200ms } }
  total_connect: { servers: ["@full"], timeouts: { total_connect: 200ms } }
sites:
  - routes:
      - { match: /connect, proxy: connect }
      - { match: /total, proxy: total_connect }
"#,
    );
    for path in ["/connect", "/total"] {
        let (status, time) = status_and_time(&gateway, path);
        assert_eq!(status, 504, "{path}");
        assert!(time < SOON, "{path}: {time:?}");
    }
}

#[test]
fn another_backend_is_tried_when_connecting_takes_too_long() {
    let (full, live) = (Origin::full("full"), Origin::named("live"));
    let gateway = Gateway::before(
        &[&full, &live],
        r#"
upstreams: { api: { servers: ["@full", "@live"], timeouts: { connect: 200ms } } }
sites:
  - proxy: api
"#,
    );
    for _ in 0..3 {
        assert_eq!(gateway.get("/").echo().origin, "live");
    }
}

#[test]
fn the_total_bounds_a_body_that_trickles_for_ever() {
    let trickling = Origin::trickling("trickling", Duration::from_millis(20));
    let gateway = Gateway::before(
        &[&trickling],
        r#"
upstreams: { api: { servers: ["@trickling"], timeouts: { total: 500ms } } }
sites:
  - proxy: api
"#,
    );
    let mut connection = gateway.connect();
    connection.send(get("/").bytes());
    let (time, said) = connection.expect_close();
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    assert!(time < SOON, "{time:?}");
}

#[test]
fn a_body_that_stops_half_way_is_broken_off() {
    let half = Origin::holding_half("half");
    let gateway = Gateway::before(
        &[&half],
        r#"
upstreams: { api: { servers: ["@half"], timeouts: { read: 300ms } } }
sites:
  - proxy: api
"#,
    );
    let mut connection = gateway.connect();
    connection.send(get("/").bytes());
    let (time, said) = connection.expect_close();
    assert!(said.ends_with("first "), "{said}");
    assert!(time < SOON, "{time:?}");
}

#[test]
fn a_request_within_its_bounds_is_left_alone() {
    let holding = Origin::holding("holding");
    let gateway = Gateway::before(
        &[&holding],
        r#"
upstreams: { api: { servers: ["@holding"], timeouts: { connect: 1s, read: 8s, total: 8s } } }
sites:
  - proxy: api
"#,
    );
    let mut connection = gateway.connect();
    connection.send(get("/").bytes());
    crate::harness::eventually("the origin has it", || holding.requests() == 1);
    holding.release();
    assert_eq!(connection.read_response("GET").echo().origin, "holding");
    gateway.expect_metric(names::FIRST_BYTE_COUNT, &[("upstream", "api")], 1.0);
}

#[test]
fn the_total_bounds_what_comes_piece_by_piece() {
    let every = Duration::from_millis(50);
    let (stalling, silent) = (Origin::stalling("stalling", every), Origin::silent("silent"));
    let gateway = Gateway::before(
        &[&stalling, &silent],
        r#"
upstreams:
  stalling: { servers: ["@stalling"], timeouts: { total: 500ms } }
  silent: { servers: ["@silent"], timeouts: { total: 500ms } }
sites:
  - routes: [{ match: /stalling, proxy: stalling }, { match: /silent, proxy: silent }]
"#,
    );
    // A backend that promises a response for ever.
    let begun = Instant::now();
    assert_eq!(gateway.get("/stalling").status, 504);
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    // A client that never comes to the end of its body.
    let begun = Instant::now();
    let mut connection = gateway.connect();
    connection.send("POST /silent HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n");
    let sent = connection.trickle(&[b'x'; 1000], every);
    assert!(sent < 1000 && begun.elapsed() < SOON, "{sent} bytes in {:?}", begun.elapsed());
    let (_, said) = connection.expect_close();
    assert!(said.starts_with("HTTP/1.1 504 "), "{said}");
}

#[test]
fn the_total_ends_a_head_that_trickles_in() {
    let trickling = Origin::trickling_head("trickling", Duration::from_millis(20));
    let gateway = Gateway::before(
        &[&trickling],
        r#"
upstreams: { api: { servers: ["@trickling"], timeouts: { total: 500ms } } }
sites:
  - proxy: api
"#,
    );
    let begun = Instant::now();
    assert_eq!(gateway.get("/").status, 504);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[test]
fn the_total_of_one_request_does_not_cut_off_the_next() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(
        &[&origin],
        r#"
upstreams: { api: { servers: ["@a"], timeouts: { total: 300ms } } }
sites:
  - proxy: api
"#,
    );
    let mut connection = gateway.connect();
    assert_eq!(connection.request(&get("/")).status, 200);
    // Longer than the total, within the idle time: what is tested.
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(connection.request(&get("/")).status, 200);
}
