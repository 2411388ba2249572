//! The life of the process: how it starts, drains and stops.

use std::time::{Duration, Instant};

use crate::harness::{Connection, DEADLINE, Gateway, H2, Origin, edgeway, eventually, get};

#[test]
fn sigterm_lets_a_request_under_way_finish() {
    let holding = Origin::holding("holding");
    let mut gateway = Gateway::before(&[&holding], "runtime: { drain: 7s }\nsites:\n  - proxy: \"@holding\"\n");
    let address = gateway.address();
    let mut busy = gateway.connect();
    busy.send(get("/slow").bytes());
    eventually("the origin has the request", || holding.requests() == 1);
    gateway.signal("TERM");
    eventually("new connections are refused", || Connection::try_open(&address).is_err());
    assert!(gateway.wait_exit(Duration::from_millis(100)).is_none(), "it left a request behind");
    holding.release();
    assert_eq!(busy.read_response("GET").echo().path, "/slow");
    let status = gateway.wait_exit(DEADLINE).expect("it ends once all is done");
    assert_eq!(status.code(), Some(0));
}

#[test]
fn sigterm_closes_idle_connections_at_once() {
    let mut gateway = Gateway::start("runtime: { drain: 60s }\nsites:\n  - respond: hello\n");
    let mut idle = gateway.connect();
    idle.request(&get("/"));
    let mut idle_h2 = H2::open(&gateway.address());
    idle_h2.request(&get("/"));
    gateway.signal("TERM");
    idle.expect_close();
    idle_h2.expect_close();
    assert_eq!(gateway.wait_exit(DEADLINE).and_then(|status| status.code()), Some(0));
}

#[test]
fn a_drain_is_bounded() {
    let silent = Origin::silent("silent");
    let mut gateway = Gateway::before(&[&silent], "runtime: { drain: 500ms }\nsites:\n  - proxy: \"@silent\"\n");
    let mut stuck = gateway.connect();
    stuck.send(get("/").bytes());
    eventually("the origin has the request", || silent.connections() == 1);
    let begun = Instant::now();
    gateway.signal("TERM");
    let status = gateway.wait_exit(DEADLINE).expect("it ends although a request does not");
    assert_eq!(status.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    stuck.expect_close();
}

#[test]
fn sigint_stops_at_once() {
    let silent = Origin::silent("silent");
    let mut gateway = Gateway::before(&[&silent], "runtime: { drain: 60s }\nsites:\n  - proxy: \"@silent\"\n");
    let mut stuck = gateway.connect();
    stuck.send(get("/").bytes());
    eventually("the origin has the request", || silent.connections() == 1);
    let begun = Instant::now();
    gateway.signal("INT");
    assert!(gateway.wait_exit(DEADLINE).is_some(), "it does not stop");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[test]
fn an_address_that_is_taken_is_told() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let document = format!("admin: false\nlisteners: [\"{address}\"]\nsites:\n  - respond: hello\n");
    std::fs::write(dir.path().join("edgeway.yaml"), document).unwrap();
    let output = edgeway(dir.path(), &["run", "edgeway.yaml"], &[]);
    assert_ne!(output.code, Some(0));
    assert!(output.stderr.contains(&address) && output.stderr.contains("another process listens there"), "{output:?}");
    assert!(!output.all().contains("panicked"), "{output:?}");
}

#[test]
fn a_bad_document_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("edgeway.yaml"), "sites:\n  - respnd: hello\n").unwrap();
    let output = edgeway(dir.path(), &["run", "edgeway.yaml"], &[]);
    assert_eq!(output.code, Some(1));
    assert!(output.stderr.contains("edgeway.yaml:2:") && output.stderr.contains("respnd"), "{output:?}");
}
