//! HTTP/2 with prior knowledge, to backends that speak HTTP/1.1.

use crate::harness::{Gateway, H2, Origin, Request, get, names};

#[test]
fn a_request_by_http2_reaches_a_backend() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(&[&origin], "sites:\n  - { hosts: [shop.test], proxy: \"@a\" }\n");
    let mut client = H2::open(&gateway.address());
    let request = Request::new("POST", "/x?y=1").host("shop.test").header("x-a", "1").body("a body");
    let response = client.request(&request);
    let echo = response.echo();
    assert_eq!((&*echo.method, &*echo.path, &*echo.body), ("POST", "/x?y=1", "a body"));
    assert_eq!((echo.header("host"), echo.header("x-a")), (Some("shop.test"), Some("1")));
    assert_eq!(echo.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!((response.header("server"), response.header("x-origin")), (None, Some("a")));
    assert_eq!(client.request(&get("/").host("other.test")).status, 404);
}

#[test]
fn streams_do_not_wait_for_one_another() {
    let (slow, fast) = (Origin::holding("slow"), Origin::named("fast"));
    let gateway = Gateway::before(
        &[&slow, &fast],
        r#"
sites:
  - routes:
      - { match: /slow, proxy: "@slow" }
      - { match: "/*", proxy: "@fast" }
"#,
    );
    let mut client = H2::open(&gateway.address());
    let requests: Vec<_> = std::iter::once(get("/slow")).chain((0..20).map(|n| get(&format!("/{n}")))).collect();
    let responses = std::thread::scope(|scope| {
        scope.spawn(|| {
            crate::harness::eventually("the fast ones are answered first", || fast.requests() == 20);
            slow.release();
        });
        client.requests(&requests)
    });
    for (request, response) in requests.iter().zip(&responses) {
        assert_eq!(response.status, 200, "{request:?}");
    }
    gateway.expect_metric(names::ACCEPTED, &[], 1.0);
}

#[test]
fn a_large_body_passes_by_http2() {
    let origin = Origin::sending("big", 5 << 20);
    let gateway = Gateway::before(&[&origin], "sites:\n  - proxy: \"@big\"\n");
    assert_eq!(H2::open(&gateway.address()).request(&get("/")).body.len(), 5 << 20);
}

#[test]
fn our_own_answers_go_by_http2_too() {
    let gateway = Gateway::start(
        r#"
runtime: { server_header: edgeway }
sites:
  - routes:
      - { match: /hello, respond: hello }
      - { match: /away, redirect: { scheme: https } }
"#,
    );
    let mut client = H2::open(&gateway.address());
    let response = client.request(&get("/hello"));
    assert_eq!((&*response.text(), response.header("server")), ("hello", Some("edgeway")));
    assert_eq!(client.request(&get("/away")).header("location"), Some("https://edgeway.test/away"));
    assert_eq!(client.request(&get("/nowhere")).status, 404);
}

#[test]
fn paths_are_normalised_by_http2_too() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(
        &[&origin],
        r#"
sites:
  - routes:
      - { match: "/static/*", proxy: "@a" }
      - { match: "/admin/*", respond: 403 }
"#,
    );
    let mut client = H2::open(&gateway.address());
    assert_eq!(client.request(&get("/static/../admin/x")).status, 403);
    assert_eq!(client.request(&get("/static/%2e%2e/admin/x")).status, 403);
    assert_eq!(client.request(&get("/static//a")).echo().path, "/static/a");
}

#[test]
fn a_listener_may_speak_http1_only() {
    let gateway = Gateway::start("listeners: [{ address: \"@listen\", http2: false }]\nsites:\n  - respond: hello\n");
    assert_eq!(gateway.get("/").text(), "hello");
    assert!(H2::open(&gateway.address()).try_requests(&[get("/")]).is_err());
}

#[test]
fn an_http2_connection_ends_after_so_many_requests() {
    let gateway = Gateway::start("runtime: { limits: { requests_per_connection: 3 } }\nsites:\n  - respond: hello\n");
    let mut client = H2::open(&gateway.address());
    for _ in 0..3 {
        assert_eq!(client.request(&get("/")).text(), "hello");
    }
    client.expect_close();
}

#[test]
fn the_host_of_a_request_is_kept_whatever_becomes_of_its_path() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(
        &[&origin],
        r#"
sites:
  - routes: [{ match: "/new/*", rewrite: { strip_prefix: /new }, proxy: "@a" }, { match: "/*", proxy: "@a" }]
"#,
    );
    for path in ["/x", "/x/../y", "/new/x"] {
        let echo = H2::open(&gateway.address()).request(&get(path).host("shop.test")).echo();
        assert_eq!(echo.headers.all("host"), ["shop.test"], "{path}");
    }
}
