//! What a route does: proxy, split, redirect, respond, and rewrites before it.

use crate::harness::{Gateway, Origin, Request, get};

#[test]
fn the_shortest_document_proxies() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let gateway = Gateway::before(&[&a, &b], "sites:\n  - proxy: [\"@a\", \"@b\"]\n");
    let origins: Vec<_> = (0..4).map(|_| gateway.get("/").echo().origin).collect();
    assert_eq!((a.requests(), b.requests()), (2, 2), "{origins:?}");
}

#[test]
fn proxy_takes_a_name_an_address_a_list_or_an_upstream_in_place() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let gateway = Gateway::before(
        &[&a, &b],
        r#"
upstreams:
  api: { servers: ["@a"] }
  listed: ["@b"]
sites:
  - routes:
      - { match: /name, proxy: api }
      - { match: /listed, proxy: listed }
      - { match: /address, proxy: "@a" }
      - { match: /list, proxy: ["@b"] }
      - { match: /place, proxy: { servers: [{ address: "@b", weight: 2 }] } }
"#,
    );
    for (path, origin) in [("/name", "a"), ("/listed", "b"), ("/address", "a"), ("/list", "b"), ("/place", "b")] {
        assert_eq!(gateway.get(path).echo().origin, origin, "{path}");
    }
}

#[test]
fn method_path_query_and_body_arrive_as_sent() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(&[&origin], "sites:\n  - proxy: \"@a\"\n");
    let body = "x".repeat(200_000);
    let echo = gateway.request(&Request::new("POST", "/p?a=1&b=%20").body(body.clone())).echo();
    assert_eq!((&*echo.method, &*echo.path), ("POST", "/p?a=1&b=%20"));
    assert!(echo.body == body, "the body differs");

    let mut connection = gateway.connect();
    connection
        .send("POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwiki\r\n5\r\npedia\r\n0\r\n\r\n");
    assert_eq!(connection.read_response("POST").echo().body, "wikipedia");
}

#[test]
fn split_shares_requests_by_weight() {
    let (a, b, c) = (Origin::named("a"), Origin::named("b"), Origin::named("c"));
    let gateway = Gateway::before(
        &[&a, &b, &c],
        r#"
upstreams: { main: ["@a"], canary: ["@b"], never: ["@c"] }
sites:
  - split: { to: { main: 80, canary: 20, never: 0 } }
"#,
    );
    let mut connection = gateway.connect();
    for _ in 0..100 {
        connection.request(&get("/"));
    }
    assert_eq!(a.requests() + b.requests(), 100);
    assert!((5..=40).contains(&b.requests()), "{} of 100 went to the canary", b.requests());
    assert_eq!(c.requests(), 0, "a weight of 0 gets nothing");
}

#[test]
fn redirect_says_where_to() {
    let gateway = Gateway::start(
        r#"
sites:
  - routes:
      - { match: { path_regex: '^/blog/(?<slug>[a-z]+)$' }, redirect: "https://blog.test/${slug}" }
      - { match: /https, redirect: { scheme: https } }
      - { match: /host, redirect: { host: www.test } }
      - { match: /port, redirect: { scheme: https, port: 8443 } }
      - { match: "/old/{id}", redirect: { path: "/new/${id}", status: 308 } }
      - { match: /keep, redirect: { to: "https://x.test/y", keep_query: true } }
      - { match: /drop, redirect: { to: "https://x.test/y", keep_query: false } }
"#,
    );
    for (path, status, location) in [
        ("/blog/hello", None, "https://blog.test/hello"),
        ("/https", None, "https://edgeway.test/https"),
        ("/host", None, "http://www.test/host"),
        ("/port", None, "https://edgeway.test:8443/port"),
        ("/old/7", Some(308), "/new/7"),
        ("/keep?q=1", None, "https://x.test/y?q=1"),
        ("/drop?q=1", None, "https://x.test/y"),
    ] {
        let response = gateway.get(path);
        assert_eq!(response.header("location"), Some(location), "{path}: {response:?}");
        assert!(matches!(response.status, 301 | 302 | 307 | 308), "{path}: {response:?}");
        if let Some(status) = status {
            assert_eq!(response.status, status, "{path}");
        }
    }
}

#[test]
fn a_redirect_cannot_be_split_by_what_the_client_sent() {
    let gateway = Gateway::start(
        r#"
sites:
  - routes:
      - { match: "/go/{to}", redirect: "https://x.test/${to}" }
"#,
    );
    let response = gateway.get("/go/a%0d%0aSet-Cookie:%20x=1");
    assert_eq!(response.header("set-cookie"), None, "{response:?}");
}

#[test]
fn respond_answers_by_itself() {
    let gateway = Gateway::start(
        r#"
sites:
  - routes:
      - { match: /status, respond: 204 }
      - { match: /text, respond: "hello ${client.ip}" }
      - match: /full
        respond: { status: 201, body: '{"you":"${request.method}"}', content_type: application/json, headers: { X-A: "${request.host}" } }
      - { match: /robots.txt, respond: { body: "User-agent: *\n" } }
"#,
    );
    let response = gateway.get("/status");
    assert_eq!((response.status, response.body.len()), (204, 0));
    let response = gateway.get("/text");
    assert_eq!((response.status, &*response.text()), (200, "hello 127.0.0.1"));
    assert!(response.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{response:?}");
    let response = gateway.get("/full");
    assert_eq!((response.status, response.header("x-a")), (201, Some("edgeway.test")));
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.json()["you"], "GET");
    assert_eq!(gateway.get("/robots.txt").text(), "User-agent: *\n");
    let response = gateway.request(&Request::new("HEAD", "/text"));
    assert_eq!((response.status, response.header("content-length")), (200, Some("15")));
}

#[test]
fn an_answer_of_our_own_keeps_the_connection() {
    let gateway = Gateway::start("sites:\n  - respond: hello\n");
    let mut connection = gateway.connect();
    for path in ["/1", "/2"] {
        assert_eq!(connection.request(&get(path)).text(), "hello");
    }
    let post = Request::new("POST", "/3").body("a body that nobody reads");
    assert_eq!(connection.request(&post).text(), "hello");
}

#[test]
fn a_rewrite_changes_the_path_that_the_backend_sees() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(
        &[&origin],
        r#"
sites:
  - routes:
      - { match: "/api/*", rewrite: { strip_prefix: /api }, proxy: "@a" }
      - { match: "/a/*", rewrite: { replace_prefix: { from: /a, to: /b } }, proxy: "@a" }
      - match: "/x/*"
        rewrite: { regex: { pattern: '^/x/(?<id>\d+)$', to: "/y/${id}" } }
        proxy: "@a"
      - { match: "/blog/{slug}", rewrite: { path: "/posts/${slug}.html" }, proxy: "@a" }
"#,
    );
    for (sent, seen) in [
        ("/api/users?x=1", "/users?x=1"),
        ("/api/", "/"),
        ("/api", "/"),
        ("/a/c", "/b/c"),
        ("/a", "/b"),
        ("/x/12", "/y/12"),
        ("/x/none", "/x/none"),
        ("/blog/hello?p=2", "/posts/hello.html?p=2"),
    ] {
        assert_eq!(gateway.get(sent).echo().path, seen, "{sent}");
    }
}
