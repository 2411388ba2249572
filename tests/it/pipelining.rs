//! Several requests sent at once on one connection (RFC 9112 9.3.2): each is answered, in order.

use crate::harness::{Gateway, Origin, eventually};

const SITES: &str = r#"
sites:
  - routes:
      - { match: /refused, proxy: "@refused" }
      - { match: /closing, proxy: "@closing" }
      - { match: /held, proxy: "@held" }
      - { match: "/{name}", respond: "${name}" }
"#;

#[test]
fn requests_sent_at_once_are_answered_in_order() {
    let (refused, closing, held) = (Origin::refusing("refused"), Origin::closing("closing"), Origin::holding("held"));
    let gateway = Gateway::before(&[&refused, &closing, &held], SITES);
    // Lines may end without CR, too: where a head ends must be known all the same, or the second request is lost and
    // its client takes the third response for the second.
    for newline in ["\r\n", "\n"] {
        let ask = |target: &str| format!("GET {target} HTTP/1.1{newline}Host: a{newline}{newline}");
        for (first, status) in [("/one", 200), ("/refused", 502), ("/closing", 502)] {
            let mut connection = gateway.connect();
            connection.send([ask(first), ask("/two"), ask("/three")].concat());
            assert_eq!(connection.read_response("GET").status, status, "{first}");
            for name in ["two", "three"] {
                assert_eq!(connection.read_response("GET").text(), name, "after {first}");
            }
        }
    }
}

#[test]
fn a_request_that_comes_while_one_is_under_way_waits_for_its_turn() {
    let (refused, closing, held) = (Origin::refusing("refused"), Origin::closing("closing"), Origin::holding("held"));
    let gateway = Gateway::before(&[&refused, &closing, &held], SITES);
    let mut connection = gateway.connect();
    connection.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the origin has the request", || held.requests() == 1);
    connection.send("GET /two HTTP/1.1\r\nHost: a\r\n\r\nGET /th");
    // More than is read ahead.
    let cookie = "x".repeat(30_000);
    connection.send(format!("ree HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n"));
    held.release();
    assert_eq!(connection.read_response("GET").echo().path, "/held");
    for name in ["two", "three"] {
        assert_eq!(connection.read_response("GET").text(), name);
    }
}

#[test]
fn a_request_behind_a_body_is_never_taken_for_a_part_of_it() {
    let (refused, closing, held) = (Origin::refusing("refused"), Origin::closing("closing"), Origin::holding("held"));
    let gateway = Gateway::before(&[&refused, &closing, &held], SITES);
    held.release();
    for target in ["/held", "/refused", "/one"] {
        let mut connection = gateway.connect();
        connection.send(format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"));
        connection.send("GET /two HTTP/1.1\r\nHost: a\r\n\r\n");
        let first = connection.read_response("POST");
        if target == "/held" {
            assert_eq!(first.echo().body, "hello");
        }
        // It is answered, or the connection ends: the client may then ask again.
        if let Ok(second) = connection.try_read_response("GET") {
            assert_eq!(second.text(), "two", "{target}");
        }
    }
}

#[test]
fn a_request_that_breaks_into_another_ends_the_connection() {
    let (refused, closing, held) = (Origin::refusing("refused"), Origin::closing("closing"), Origin::holding("held"));
    let gateway = Gateway::before(&[&refused, &closing, &held], SITES);
    let mut connection = gateway.connect();
    connection.send("POST /held HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    eventually("the origin has the request", || held.requests() == 1);
    connection.send("GET /two HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = connection.read_response("POST");
    assert_eq!((response.status, response.header("connection")), (400, Some("close")));
    connection.expect_close();
}
