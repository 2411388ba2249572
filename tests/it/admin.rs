//! The operators' listener: metrics, health, readiness.

use crate::harness::{Connection, Gateway, Origin, Request, get, names};

#[test]
fn it_is_alive_and_ready() {
    let gateway = Gateway::start("sites:\n  - respond: hello\n");
    for path in ["/healthz", "/readyz"] {
        assert_eq!(gateway.admin(path).status, 200, "{path}");
    }
    assert_eq!(gateway.admin("/nothing").status, 404);
    let mut admin = Connection::open(&gateway.word("@admin"));
    assert_eq!(admin.request(&Request::new("POST", "/metrics")).status, 405);
}

#[test]
fn clients_do_not_see_it() {
    let gateway = Gateway::start("sites:\n  - { hosts: [a.test], respond: hello }\n");
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(gateway.get(path).status, 404, "{path}");
    }
}

#[test]
fn requests_are_counted_by_route_upstream_and_backend() {
    let (a, refusing) = (Origin::named("a"), Origin::refusing("refusing"));
    let gateway = Gateway::before(
        &[&a, &refusing],
        r#"
upstreams: { api: ["@a"], gone: ["@refusing"] }
sites:
  - hosts: [shop.test]
    routes:
      - { name: front, match: "/*", proxy: api }
      - { name: broken, match: /broken, proxy: gone }
      - { name: own, match: /own, respond: { status: 404, body: "none" } }
"#,
    );
    let mut connection = gateway.connect();
    for (path, count) in [("/", 3), ("/broken", 1), ("/own", 2)] {
        for _ in 0..count {
            connection.request(&get(path).host("shop.test"));
        }
    }
    connection.request(&Request::new("POST", "/").host("shop.test").body("12345"));
    let front = [("site", "shop.test"), ("route", "front")];
    let backend = [("upstream", "api"), ("backend", a.address())];
    for (name, labels, value) in [
        (names::REQUESTS, &[front[0], front[1], ("class", "2xx")][..], 4.0),
        (names::REQUESTS, &[("route", "broken"), ("class", "5xx")], 1.0),
        (names::REQUESTS, &[("route", "own"), ("class", "4xx")], 2.0),
        (names::DURATION_COUNT, &front, 4.0),
        (names::RECEIVED, &front, 5.0),
        (names::SENT, &[("route", "own")], 8.0),
        (names::UPSTREAM_REQUESTS, &[backend[0], backend[1], ("class", "2xx")], 4.0),
        (names::FIRST_BYTE_COUNT, &backend, 4.0),
        (names::CONNECT_COUNT, &backend, 1.0),
        (names::CONNECT_ERRORS, &[("upstream", "gone"), ("backend", refusing.address())], 1.0),
        (names::RELOADS, names::RELOADED, 0.0),
        (names::RELOADS, names::REFUSED, 0.0),
        (names::BUILD_INFO, &[], 1.0),
        (names::OPEN_CONNECTIONS, &[], 1.0),
        (names::ACCEPTED, &[], 1.0),
    ] {
        gateway.expect_metric(name, labels, value);
    }
}

#[test]
fn what_never_reaches_a_route_is_counted_too() {
    let gateway = Gateway::start(
        r#"
runtime: { limits: { per_client: 2, header_size: 8KiB } }
listeners: [{ address: "@listen", timeouts: { head: 300ms, idle: 300ms } }]
sites:
  - { hosts: [a.test], respond: hello }
"#,
    );
    gateway.get("/nowhere");
    gateway.expect_metric(names::UNROUTED, &[("class", "4xx")], 1.0);
    let address = gateway.address();
    let from_another = |source: &str, bytes: &[u8]| {
        let mut connection = Connection::open_from(source, &address);
        // The gateway may refuse before it has read everything.
        let _ = connection.try_send(bytes);
        connection.expect_close();
    };
    from_another("127.0.0.2", b"nonsense\r\n\r\n");
    gateway.expect_metric(names::REQUESTS_REFUSED, &[("reason", "malformed")], 1.0);
    from_another("127.0.0.3", b"GET / HTTP/1.1\r\nHost:");
    gateway.expect_metric(names::REQUESTS_REFUSED, &[("reason", "head_timeout")], 1.0);
    from_another("127.0.0.4", &get("/").header("X-Large", &"a".repeat(20_000)).bytes());
    gateway.expect_metric(names::REQUESTS_REFUSED, &[("reason", "head_too_large")], 1.0);
    from_another("127.0.0.5", &get("/").host("a.test").bytes());
    gateway.expect_metric(names::IDLE_TIMEOUTS, &[], 1.0);
    let _held = [0, 1].map(|_| Connection::open_from("127.0.0.6", &address));
    from_another("127.0.0.6", b"");
    gateway.expect_metric(names::CONNECTIONS_REFUSED, &[("reason", "client_limit")], 1.0);
}

#[test]
fn metrics_are_in_the_format_of_prometheus() {
    let gateway = Gateway::start("sites:\n  - respond: hello\n");
    let response = gateway.admin("/metrics");
    assert!(response.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{response:?}");
    let text = response.text();
    let typed = |name: &str| text.lines().any(|line| line.starts_with(&format!("# TYPE {name} ")));
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        assert!(typed(name) || family.is_some_and(typed), "`{name}` has no type");
        assert!(name.starts_with("edgeway_") || name.starts_with("process_"), "`{name}` is not ours");
    }
}

#[test]
fn labels_that_need_escaping_do_not_break_the_format() {
    let gateway = Gateway::start("sites:\n  - routes:\n      - { name: 'a\"b\\c', match: \"/*\", respond: hello }\n");
    gateway.get("/");
    let text = gateway.admin("/metrics").text();
    assert!(text.contains(r#"route="a\"b\\c""#), "{text}");
}

#[test]
fn it_may_listen_at_a_unix_socket() {
    let gateway = Gateway::start("admin: \"unix:@dir/admin.sock\"\nsites:\n  - respond: hello\n");
    assert_eq!(gateway.admin("/healthz").status, 200);
}

#[test]
fn it_has_a_long_form() {
    let gateway = Gateway::start("admin: { listen: \"@admin\" }\nsites:\n  - respond: hello\n");
    assert_eq!(gateway.admin("/healthz").status, 200);
}

#[test]
fn it_may_be_switched_off() {
    let gateway = Gateway::start("admin: false\nsites:\n  - respond: hello\n");
    assert_eq!(gateway.get("/").text(), "hello");
    assert!(Connection::try_open(&gateway.word("@admin")).is_err());
}
