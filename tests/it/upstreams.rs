//! Backends: whose turn it is, what happens when one is down, and what passes unchanged.

use crate::harness::{Gateway, H2, Origin, Request, eventually, get, names};

#[test]
fn weights_share_the_requests_smoothly() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let gateway = Gateway::before(
        &[&a, &b],
        r#"
runtime: { threads: 1 }
upstreams:
  api: { servers: [{ address: "@a", weight: 3 }, "@b"], balance: round_robin }
sites:
  - proxy: api
"#,
    );
    let mut connection = gateway.connect();
    let order: String = (0..16).map(|_| connection.request(&get("/")).echo().origin).collect();
    assert_eq!((a.requests(), b.requests()), (12, 4), "{order}");
    assert!(!order.contains("bb") && !order.contains("aaaa"), "not smooth: {order}");
}

#[test]
fn a_weight_of_zero_gets_nothing() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let gateway = Gateway::before(
        &[&a, &b],
        r#"
upstreams: { api: { servers: ["@a", { address: "@b", weight: 0 }] } }
sites:
  - proxy: api
"#,
    );
    for _ in 0..4 {
        assert_eq!(gateway.get("/").echo().origin, "a");
    }
    assert_eq!(b.connections(), 0);
}

#[test]
fn a_request_goes_to_a_live_backend_while_another_is_down() {
    let (live, down) = (Origin::named("live"), Origin::refusing("down"));
    let gateway = Gateway::before(
        &[&live, &down],
        r#"
upstreams: { api: ["@down", "@live"] }
sites:
  - proxy: api
"#,
    );
    for _ in 0..10 {
        assert_eq!(gateway.get("/").echo().origin, "live");
    }
    let body = Request::new("POST", "/").body("sent once");
    for _ in 0..2 {
        assert_eq!(gateway.request(&body).echo().body, "sent once");
    }
    let failed = [("upstream", "api"), ("backend", down.address())];
    let metrics = gateway.metrics();
    assert!(metrics.sum(names::CONNECT_ERRORS, &failed) >= Some(1.0), "{}", metrics.list(names::CONNECT_ERRORS));
    assert!(metrics.sum(names::RETRIES, &failed) >= Some(1.0), "{}", metrics.list(names::RETRIES));
}

#[test]
fn only_so_many_backends_are_tried() {
    let (live, one, two) = (Origin::named("live"), Origin::refusing("one"), Origin::refusing("two"));
    let gateway = Gateway::before(
        &[&live, &one, &two],
        r#"
runtime: { threads: 1 }
upstreams:
  none: { servers: ["@one", { address: "@live", backup: true }], retry: { attempts: 0 } }
  enough: { servers: ["@one", "@two", "@live"], retry: { attempts: 2 } }
sites:
  - routes:
      - { match: /none, proxy: none }
      - { match: /enough, proxy: enough }
      - { match: /route, proxy: enough, retry: { attempts: 0 } }
"#,
    );
    assert_eq!(gateway.get("/none").status, 502);
    for _ in 0..6 {
        assert_eq!(gateway.get("/enough").status, 200);
    }
    let without: Vec<_> = (0..3).map(|_| gateway.get("/route").status).collect();
    assert!(without.contains(&502), "a route overrides its upstream: {without:?}");
}

#[test]
fn no_live_backend_is_a_bad_gateway() {
    let down = Origin::refusing("down");
    let gateway = Gateway::before(&[&down], "sites:\n  - proxy: \"@down\"\n");
    assert_eq!(gateway.get("/").status, 502);
}

#[test]
fn a_backend_that_breaks_off_is_a_bad_gateway() {
    let origins = [
        Origin::closing("closing"),
        Origin::resetting("resetting"),
        Origin::answering("garbage", "this is not HTTP\r\n\r\n"),
        Origin::answering("halfhead", "HTTP/1.1 200 OK\r\nContent-Le"),
    ];
    for origin in &origins {
        let gateway = Gateway::before(&[origin], &format!("sites:\n  - proxy: \"@{}\"\n", origin.name()));
        assert_eq!(gateway.get("/").status, 502, "{}", origin.name());
    }
}

#[test]
fn a_body_that_breaks_off_is_not_passed_off_as_whole() {
    let origin = Origin::answering("half", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    let gateway = Gateway::before(&[&origin], "sites:\n  - proxy: \"@half\"\n");
    assert!(gateway.connect().try_request(&get("/")).is_err());
    assert_eq!(gateway.admin("/readyz").status, 200);
}

#[test]
fn the_host_is_kept_or_the_backends_or_a_text() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(
        &[&origin],
        r#"
upstreams:
  keep: { servers: ["@a"], host: keep }
  backend: { servers: ["@a"], host: backend }
  text: { servers: ["@a"], host: inner.test }
sites:
  - routes:
      - { match: /default, proxy: "@a" }
      - { match: /keep, proxy: keep }
      - { match: /backend, proxy: backend }
      - { match: /text, proxy: text }
"#,
    );
    for (path, host) in [
        ("/default", "edgeway.test"),
        ("/keep", "edgeway.test"),
        ("/backend", origin.address()),
        ("/text", "inner.test"),
    ] {
        assert_eq!(gateway.get(path).echo().headers.all("host"), [host], "{path}");
    }
}

#[test]
fn connections_to_a_backend_are_used_again() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(&[&origin], "runtime: { threads: 1 }\nsites:\n  - proxy: \"@a\"\n");
    for _ in 0..10 {
        assert_eq!(gateway.get("/").status, 200);
    }
    assert!(origin.connections() <= 2, "{} connections for 10 requests", origin.connections());
}

#[test]
fn an_idle_connection_to_a_backend_is_closed() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(
        &[&origin],
        r#"
runtime: { threads: 1 }
upstreams: { api: { servers: ["@a"], keepalive: { idle: 100ms } } }
sites:
  - proxy: api
"#,
    );
    gateway.get("/");
    eventually("a later request needs a connection of its own", || {
        std::thread::sleep(std::time::Duration::from_millis(150));
        gateway.get("/");
        origin.connections() >= 2
    });
}

#[test]
fn a_unix_socket_is_a_backend_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let origin = Origin::at_unix_socket("u", &dir.path().join("app.sock"));
    let gateway = Gateway::before(&[&origin], "sites:\n  - proxy: \"@u\"\n");
    assert_eq!(gateway.get("/x").echo().origin, "u");
    assert_eq!(gateway.get("/y").echo().path, "/y");
}

#[test]
fn a_backend_may_be_a_name() {
    let origin = Origin::named("a");
    let port = origin.address().rsplit_once(':').unwrap().1;
    let gateway = Gateway::start(&format!("sites:\n  - proxy: \"localhost:{port}\"\n"));
    assert_eq!(gateway.get("/").echo().origin, "a");
}

#[test]
fn every_form_of_a_response_passes() {
    for (raw, status, body) in [
        ("HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
        ("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n", 304, ""),
        ("HTTP/1.1 418 Teapot\r\nContent-Length: 5\r\n\r\nshort", 418, "short"),
        ("HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\ntrue", 500, "true"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 200, "abc"),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end", 200, "until the end"),
        ("HTTP/1.0 200 OK\r\n\r\nold", 200, "old"),
    ] {
        let origin = Origin::answering("raw", raw);
        let gateway = Gateway::before(&[&origin], "sites:\n  - proxy: \"@raw\"\n");
        let response = gateway.get("/");
        assert_eq!((response.status, &*response.text()), (status, body), "{raw}");
    }
}

#[test]
fn what_concerns_the_connection_to_a_backend_goes_no_further() {
    let origin = Origin::answering(
        "hop",
        "HTTP/1.1 200 OK\r\nConnection: close, X-Hop, Content-Length\r\nX-Hop: 1\r\nKeep-Alive: timeout=5, max=100\r\n\
         Proxy-Connection: close\r\nContent-Length: 2\r\nX-End: 1\r\n\r\nok",
    );
    let gateway = Gateway::before(&[&origin], "sites:\n  - proxy: \"@hop\"\n");
    let mut connection = gateway.connect();
    // HTTP/2 breaks the stream off for any of them: such a backend could not be reached by it at all.
    for response in [connection.request(&get("/")), H2::open(&gateway.address()).request(&get("/"))] {
        assert_eq!((response.status, &*response.text(), response.header("x-end")), (200, "ok", Some("1")));
        for name in ["x-hop", "keep-alive", "proxy-connection"] {
            assert_eq!(response.header(name), None, "{name}");
        }
        assert_ne!(response.header("connection"), Some("close"));
    }
}

#[test]
fn an_upgrade_that_nobody_asked_for_is_a_bad_gateway() {
    let origin = Origin::answering(
        "eager",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    );
    let gateway = Gateway::before(&[&origin], "sites:\n  - proxy: \"@eager\"\n");
    assert_eq!(gateway.get("/").status, 502);
    assert_eq!(H2::open(&gateway.address()).request(&get("/")).status, 502);
}

#[test]
fn an_early_hint_passes_and_does_not_stand_for_the_response() {
    let hint = "HTTP/1.1 103 Early Hints\r\nServer: secret\r\nLink: </a>\r\n\r\n";
    let good = Origin::answering("good", format!("{hint}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
    let dying = Origin::answering("dying", hint);
    let gateway = Gateway::before(
        &[&good, &dying],
        "sites:\n  - routes: [{ match: /good, proxy: \"@good\" }, { match: /dying, proxy: \"@dying\" }]\n",
    );
    for (path, status) in [("/good", 200), ("/dying", 502)] {
        let mut connection = gateway.connect();
        connection.send(get(path).header("Connection", "close").bytes());
        let (_, said) = connection.expect_close();
        let (first, last) = said.split_once("\r\n\r\n").unwrap();
        assert!(first.starts_with("HTTP/1.1 103 ") && !first.contains("secret"), "{path}: {said}");
        assert!(last.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {said}");
        gateway.log_line("status", status);

        // HTTP/1.0 knows no such thing, and would take it for the response.
        let mut connection = gateway.connect();
        connection.send(format!("GET {path} HTTP/1.0\r\nHost: a\r\n\r\n"));
        let (_, said) = connection.expect_close();
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {said}");
    }
}

#[test]
fn a_large_body_passes_whole() {
    let origin = Origin::sending("big", 10 << 20);
    let gateway = Gateway::before(&[&origin], "sites:\n  - proxy: \"@big\"\n");
    let mut connection = gateway.connect();
    for _ in 0..2 {
        assert_eq!(connection.request(&get("/")).body.len(), 10 << 20);
    }
}

#[test]
fn the_length_of_a_message_is_told_once() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(&[&origin], "sites:\n  - proxy: \"@a\"\n");
    for lengths in ["Content-Length: 2\r\nContent-Length: 2", "Content-Length: 2, 2"] {
        let mut connection = gateway.connect();
        connection.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{lengths}\r\n\r\nab"));
        let echo = connection.read_response("POST").echo();
        assert_eq!((echo.headers.all("content-length"), &*echo.body), (vec!["2"], "ab"), "{lengths}");
    }
    for (raw, framing_fields) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab", "content-length: 2"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nab", "content-length: 2"),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab", "content-length: 2"),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nab", ""),
        ("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ""),
    ] {
        let origin = Origin::answering("raw", raw);
        let gateway = Gateway::before(&[&origin], "sites:\n  - proxy: \"@raw\"\n");
        let mut connection = gateway.connect();
        connection.send(get("/").header("Connection", "close").bytes());
        let (_, said) = connection.expect_close();
        assert!(said.starts_with("HTTP/1.1 "), "{said}");
        let framing = |line: &&str| line.starts_with("content-length") || line.starts_with("transfer-encoding");
        let said = said.to_ascii_lowercase();
        let told: Vec<&str> = said.lines().filter(framing).collect();
        assert_eq!(told.join(" and "), framing_fields, "{raw}");
    }
}

#[test]
fn a_body_in_a_coding_that_nobody_undoes_is_refused() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(&[&origin], "sites:\n  - proxy: \"@a\"\n");
    let mut connection = gateway.connect();
    connection.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n");
    assert_eq!(connection.read_response("POST").status, 501);
    assert_eq!(origin.requests(), 0);
}

#[test]
fn a_smuggled_request_does_not_reach_a_backend() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(&[&origin], "sites:\n  - proxy: \"@a\"\n");
    for framing in [
        "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
        "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "Content-Length: -1\r\n\r\n",
    ] {
        let mut connection = gateway.connect();
        connection.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}"));
        // However it answers, the connection ends and nothing more than one request came of it.
        let (_, said) = connection.expect_close();
        assert!(said.matches("HTTP/1.1 200").count() <= 1, "{framing:?}: {said}");
        assert!(origin.requests() == 0 || origin.last().path == "/", "{framing:?} smuggled a request");
    }
}
