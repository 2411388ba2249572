//! Clients that are slow, silent, many or greedy are cut off.

use std::time::Duration;

use crate::harness::{Connection, DEADLINE, Gateway, Origin, Request, eventually, get, names};

/// Far above the bounds set here, and far below the defaults.
const SOON: Duration = Duration::from_secs(4);

const SHORT: &str = r#"
listeners:
  - { address: "@listen", timeouts: { head: 400ms, idle: 400ms, body: 400ms, write: 400ms } }
sites:
  - routes:
      - { match: "/*", respond: hello }
"#;

#[test]
fn a_connection_without_a_word_is_closed() {
    let gateway = Gateway::start(SHORT);
    let (time, said) = gateway.connect().expect_close();
    assert!(time < SOON, "{time:?}");
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{said}");
}

#[test]
fn a_head_that_trickles_is_cut_off() {
    let gateway = Gateway::start(SHORT);
    let mut connection = gateway.connect();
    let head = [b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: ".as_slice(), &[b'a'; 200]].concat();
    let begun = std::time::Instant::now();
    let sent = connection.trickle(&head, Duration::from_millis(50));
    assert!(sent < head.len(), "all of the head could be sent in {:?}", begun.elapsed());
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    let (_, said) = connection.expect_close();
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{said}");
}

#[test]
fn a_connection_is_closed_when_no_further_request_comes() {
    let gateway = Gateway::start(SHORT);
    let mut connection = gateway.connect();
    for _ in 0..2 {
        assert_eq!(connection.request(&get("/")).text(), "hello");
    }
    let (time, said) = connection.expect_close();
    assert!(time < SOON && said.is_empty(), "{time:?} {said}");
}

#[test]
fn a_second_head_that_trickles_is_cut_off_too() {
    let gateway = Gateway::start(SHORT);
    let mut connection = gateway.connect();
    connection.request(&get("/"));
    let head = [b"GET / HTTP/1.1\r\nX-Long: ".as_slice(), &[b'a'; 200]].concat();
    assert!(connection.trickle(&head, Duration::from_millis(50)) < head.len());
}

#[test]
fn an_http2_preface_and_then_silence_is_closed() {
    let gateway = Gateway::start(SHORT);
    let mut connection = gateway.connect();
    // The preface, and an empty SETTINGS frame.
    connection.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    let (time, _) = connection.expect_close();
    assert!(time < SOON, "{time:?}");
}

#[test]
fn half_an_http2_preface_is_closed() {
    let gateway = Gateway::start(SHORT);
    let mut connection = gateway.connect();
    connection.send(b"PRI * HT");
    let (time, _) = connection.expect_close();
    assert!(time < SOON, "{time:?}");
}

#[test]
fn a_body_that_stops_coming_is_cut_off() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(&[&origin], &SHORT.replace("respond: hello", "proxy: \"@a\""));
    let mut connection = gateway.connect();
    connection.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    let (time, said) = connection.expect_close();
    assert!(time < SOON, "{time:?}");
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{said}");
}

#[test]
fn a_client_that_does_not_read_is_cut_off() {
    let big = Origin::sending("big", 100 << 20);
    let gateway = Gateway::before(&[&big], &SHORT.replace("respond: hello", "proxy: \"@big\""));
    let mut connection = gateway.connect();
    connection.send(get("/").bytes());
    eventually("the request has come", || big.requests() == 1);
    // The admin's own connections are not counted among these.
    gateway.expect_metric(names::OPEN_CONNECTIONS, &[], 0.0);
}

#[test]
fn a_client_that_reads_too_slowly_is_cut_off() {
    let big = Origin::sending("big", 100 << 20);
    let gateway = Gateway::before(
        &[&big],
        r#"
listeners: [{ address: "@listen", min_send_rate: 10MiB/s }]
sites:
  - proxy: "@big"
"#,
    );
    let mut connection = gateway.connect();
    connection.send(get("/").bytes());
    let end = std::time::Instant::now() + DEADLINE;
    while gateway.metrics().sum(names::OPEN_CONNECTIONS, &[]) != Some(0.0) {
        assert!(std::time::Instant::now() < end, "a reader of some KiB/s is still served");
        // A little at a time: the slowness under test.
        let _ = connection.read_some();
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn no_more_connections_than_allowed_are_served() {
    let gateway = Gateway::start("runtime: { limits: { connections: 2 } }\nsites:\n  - respond: hello\n");
    let (mut one, mut two) = (gateway.connect(), gateway.connect());
    for connection in [&mut one, &mut two] {
        assert_eq!(connection.request(&get("/")).text(), "hello");
    }
    let (_, said) = gateway.connect().expect_close();
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 503"), "{said}");
    assert_eq!(one.request(&get("/")).text(), "hello", "the others go on");
    drop(two);
    eventually("a place is free again", || {
        gateway.connect().try_request(&get("/")).is_ok_and(|response| response.status == 200)
    });
}

#[test]
fn one_client_cannot_take_every_connection() {
    let gateway = Gateway::start("runtime: { limits: { per_client: 1 } }\nsites:\n  - respond: hello\n");
    let address = gateway.address();
    let mut greedy = Connection::open_from("127.0.0.2", &address);
    assert_eq!(greedy.request(&get("/")).text(), "hello");
    let (_, said) = Connection::open_from("127.0.0.2", &address).expect_close();
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 503"), "{said}");
    assert_eq!(Connection::open_from("127.0.0.3", &address).request(&get("/")).text(), "hello");
    drop(greedy);
    eventually("its place is free again", || {
        Connection::open_from("127.0.0.2", &address).try_request(&get("/")).is_ok_and(|response| response.status == 200)
    });
}

#[test]
fn a_connection_ends_after_so_many_requests() {
    let gateway = Gateway::start("runtime: { limits: { requests_per_connection: 2 } }\nsites:\n  - respond: hello\n");
    let mut connection = gateway.connect();
    assert_eq!(connection.request(&get("/")).header("connection").unwrap_or("keep-alive"), "keep-alive");
    assert_eq!(connection.request(&get("/")).header("connection"), Some("close"));
    connection.expect_close();
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let gateway = Gateway::start("runtime: { limits: { header_size: 8KiB } }\nsites:\n  - respond: hello\n");
    assert_eq!(gateway.request(&get("/").header("X-Fits", &"a".repeat(6000))).status, 200);
    let mut connection = gateway.connect();
    // The gateway may refuse and close before it has read everything.
    let _ = connection.try_send(get("/").header("X-Large", &"a".repeat(60_000)).bytes());
    let (_, said) = connection.expect_close();
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 431") || said.starts_with("HTTP/1.1 400"), "{said}");
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn what_is_not_http_is_refused() {
    let gateway = Gateway::start("sites:\n  - respond: hello\n");
    for nonsense in ["\0\x01\x02 nonsense\r\n\r\n", "GET / HTTP/1.1\r\nno colon\r\n\r\n", "GET /a b HTTP/1.1\r\n\r\n"] {
        let mut connection = gateway.connect();
        connection.send(nonsense);
        let (_, said) = connection.expect_close();
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 400"), "{nonsense:?}: {said}");
    }
}

#[test]
fn a_request_without_a_host_is_refused() {
    let gateway = Gateway::start("sites:\n  - respond: hello\n");
    for head in ["GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"] {
        let mut connection = gateway.connect();
        connection.send(head);
        assert_eq!(connection.read_response("GET").status, 400, "{head:?}");
    }
}

#[test]
fn clients_that_leave_early_do_no_harm() {
    let origin = Origin::sending("big", 20 << 20);
    let gateway = Gateway::before(&[&origin], "sites:\n  - proxy: \"@big\"\n");
    for _ in 0..10 {
        let mut connection = gateway.connect();
        connection.send(get("/").bytes());
        assert!(connection.read_some().unwrap() > 0);
    }
    for _ in 0..10 {
        let mut connection = gateway.connect();
        connection.send(&Request::new("POST", "/").body("x".repeat(1000)).bytes()[..200]);
    }
    gateway.expect_metric(names::OPEN_CONNECTIONS, &[], 0.0);
}
