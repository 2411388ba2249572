//! Header fields: set, added, removed, both ways; and those that must not pass.

use crate::harness::{Gateway, Origin, Request, get};

#[test]
fn request_fields_are_set_added_and_removed() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(
        &[&origin],
        r#"
sites:
  - headers: { request: { set: { X-Site: "yes" } } }
    routes:
      - match: "/users/{id}"
        headers:
          request:
            set: { X-Id: "${id}", X-Client: "${client.ip}", X-Request: "${request.method} ${request.path}", X-Over: new }
            add: { X-More: second }
            remove: [X-Secret]
        proxy: "@a"
"#,
    );
    let request = get("/users/7?q=1").header("X-Over", "old").header("X-More", "first").header("X-Secret", "s");
    let echo = gateway.request(&request).echo();
    for (name, values) in [
        ("x-site", &["yes"][..]),
        ("x-id", &["7"]),
        ("x-client", &["127.0.0.1"]),
        ("x-request", &["GET /users/7"]),
        ("x-over", &["new"]),
        ("x-more", &["first", "second"]),
        ("x-secret", &[]),
    ] {
        assert_eq!(echo.headers.all(name), values, "{name}");
    }
}

#[test]
fn response_fields_are_set_added_and_removed() {
    let origin = Origin::answering(
        "raw",
        "HTTP/1.1 200 OK\r\nX-Over: old\r\nX-More: first\r\nX-Secret: s\r\nContent-Length: 2\r\n\r\nhi",
    );
    let gateway = Gateway::before(
        &[&origin],
        r#"
sites:
  - headers: { response: { set: { Strict-Transport-Security: max-age=1 } } }
    routes:
      - match: "/*"
        headers:
          response:
            set: { X-Over: "new ${response.status}", X-Backend: "${upstream.address}" }
            add: { X-More: second }
            remove: [X-Secret]
        proxy: "@raw"
      - { match: /own, respond: "ours" }
"#,
    );
    let response = gateway.get("/");
    for (name, values) in [
        ("strict-transport-security", &["max-age=1"][..]),
        ("x-over", &["new 200"]),
        ("x-backend", &[origin.address()]),
        ("x-more", &["first", "second"]),
        ("x-secret", &[]),
    ] {
        assert_eq!(response.headers.all(name), values, "{name}");
    }
    assert_eq!(response.text(), "hi");
    let own = gateway.get("/own");
    assert_eq!(own.header("strict-transport-security"), Some("max-age=1"), "an answer of our own gets them, too");
}

#[test]
fn templates_speak_of_cookies_query_and_fields() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(
        &[&origin],
        r#"
sites:
  - headers:
      request:
        set:
          X-Cookie: "${request.cookies.beta}"
          X-Query: "${request.query.page}"
          X-Agent: "[${request.headers.user-agent}]"
          X-Literal: "$${client.ip}"
          X-Route: "${route.name}"
    routes:
      - { name: front, match: "/*", proxy: "@a" }
"#,
    );
    let request = get("/?page=2").header("Cookie", "a=1; beta=yes").header("User-Agent", "test");
    let echo = gateway.request(&request).echo();
    for (name, value) in [
        ("x-cookie", "yes"),
        ("x-query", "2"),
        ("x-agent", "[test]"),
        ("x-literal", "${client.ip}"),
        ("x-route", "front"),
    ] {
        assert_eq!(echo.header(name), Some(value), "{name}");
    }
}

#[test]
fn fields_of_one_hop_do_not_travel_on() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(&[&origin], "sites:\n  - proxy: \"@a\"\n");
    let request = get("/")
        .header("Connection", "keep-alive, X-Mine")
        .header("X-Mine", "1")
        .header("Keep-Alive", "timeout=5")
        .header("TE", "gzip")
        .header("Proxy-Connection", "keep-alive")
        .header("X-Other", "stays");
    let echo = gateway.request(&request).echo();
    for name in ["x-mine", "keep-alive", "te", "proxy-connection"] {
        assert_eq!(echo.header(name), None, "{name}");
    }
    assert_eq!(echo.header("x-other"), Some("stays"));
}

#[test]
fn the_identity_of_a_backend_is_hidden() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(&[&origin], "sites:\n  - proxy: \"@a\"\n");
    let response = gateway.get("/");
    assert_eq!((response.header("server"), response.header("x-powered-by")), (None, None));
    assert_eq!(response.header("x-origin"), Some("a"));
}

#[test]
fn our_own_server_field_is_set_when_wanted() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(
        &[&origin],
        r#"
runtime: { server_header: edgeway }
sites:
  - routes:
      - { match: "/*", proxy: "@a" }
      - { match: /own, respond: "ours" }
"#,
    );
    for path in ["/", "/own"] {
        assert_eq!(gateway.get(path).headers.all("server"), ["edgeway"], "{path}");
    }
}

#[test]
fn an_upstream_may_show_its_own_identity() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(
        &[&origin],
        r#"
upstreams: { api: { servers: ["@a"], keep_server_headers: true } }
sites:
  - proxy: api
"#,
    );
    let response = gateway.get("/");
    assert_eq!((response.header("server"), response.header("x-powered-by")), (Some("origin-a/1.0"), Some("threads")));
}

#[test]
fn a_head_request_has_no_body() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(&[&origin], "sites:\n  - proxy: \"@a\"\n");
    let mut connection = gateway.connect();
    let response = connection.request(&Request::new("HEAD", "/"));
    assert_eq!((response.status, response.body.len()), (200, 0));
    assert_eq!(connection.request(&get("/next")).echo().path, "/next", "nothing of it is left on the connection");
}

#[test]
fn no_answer_tells_what_the_gateway_is_made_of() {
    let gateway = Gateway::start("sites:\n  - respond: hello\n");
    for (head, status) in [
        ("GET / HTTP/1.1\r\nHost: a", 200),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nA b", 400),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80", 405),
        ("TRACE / HTTP/1.1\r\nHost: a", 405),
    ] {
        let mut connection = gateway.connect();
        connection.send(format!("{head}\r\nConnection: close\r\n\r\n"));
        let (_, said) = connection.expect_close();
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{head}: {said}");
        assert!(!said.to_ascii_lowercase().contains("server:"), "{head}: {said}");
    }
    gateway.log_line("method", "CONNECT");
}
