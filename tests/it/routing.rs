//! Which request goes where: hosts, paths, predicates, precedence, and paths that cannot be walked around.

use crate::harness::{Gateway, Origin, Request, get};

#[test]
fn each_kind_of_path_matches_what_it_says() {
    let gateway = Gateway::start(
        r#"
sites:
  - routes:
      - { match: /a/b, respond: "exact" }
      - { match: "/a/*", respond: "below a" }
      - { match: "/adm*", respond: "begins with adm" }
      - { match: "/users/{id}", respond: "user ${id}" }
      - { match: "/users/{id}/*rest", respond: "user ${id}, rest ${rest}" }
      - { match: { path_regex: '^/blog/(?<slug>[a-z0-9-]+)$' }, respond: "blog ${slug}" }
      - { match: [/one, /two], respond: "either" }
"#,
    );
    for (path, said) in [
        ("/a/b", "exact"),
        ("/a/b?query=does-not-matter", "exact"),
        ("/a", "below a"),
        ("/a/", "below a"),
        ("/a/b/c", "below a"),
        ("/adm", "begins with adm"),
        ("/admin/x", "begins with adm"),
        ("/users/7", "user 7"),
        ("/users/7/x/y", "user 7, rest x/y"),
        ("/blog/hello-1", "blog hello-1"),
        ("/one", "either"),
        ("/two", "either"),
    ] {
        let response = gateway.get(path);
        assert_eq!((response.status, &*response.text()), (200, said), "{path}");
    }
    for path in ["/", "/ab", "/A/b", "/blog/Hello", "/blog/x/y", "/one/", "/three"] {
        assert_eq!(gateway.get(path).status, 404, "{path}");
    }
}

#[test]
fn the_most_exact_path_wins_whatever_the_order_in_the_file() {
    let routes = [
        r#"{ match: "/*", respond: "all" }"#,
        r#"{ match: "/shop/*", respond: "below" }"#,
        r#"{ match: "/shop/{id}", respond: "parameter" }"#,
        r#"{ match: "/shop/it*", respond: "partial" }"#,
        r#"{ match: "/shop/item*", respond: "longer partial" }"#,
        r#"{ match: { path_regex: '^/shop/reg' }, respond: "regex" }"#,
        r#"{ match: { path_regex: '^/shop/regex' }, respond: "longer regex" }"#,
        r#"{ match: /shop/regex-no, respond: "exact" }"#,
    ];
    let document = |routes: &mut dyn Iterator<Item = &&str>| {
        routes.fold("sites:\n  - routes:\n".to_owned(), |text, route| text + "      - " + route + "\n")
    };
    let forward = Gateway::start(&document(&mut routes.iter()));
    let backward = Gateway::start(&document(&mut routes.iter().rev()));
    for (path, said) in [
        ("/other", "all"),
        ("/shop", "below"),
        ("/shop/a/b", "below"),
        ("/shop/7", "parameter"),
        ("/shop/it", "partial"),
        ("/shop/items", "longer partial"),
        ("/shop/reg-7", "regex"),
        ("/shop/regex-7", "longer regex"),
        ("/shop/regex-no", "exact"),
    ] {
        assert_eq!(forward.get(path).text(), said, "{path}");
        assert_eq!(backward.get(path).text(), said, "{path}, routes in reverse");
    }
}

#[test]
fn priority_overrides_precedence() {
    let gateway = Gateway::start(
        r#"
sites:
  - routes:
      - { match: /a, respond: "exact" }
      - { match: "/*", respond: "all", priority: 10 }
"#,
    );
    assert_eq!(gateway.get("/a").text(), "all");
}

#[test]
fn each_predicate_matches_what_it_says() {
    let gateway = Gateway::start(
        r#"
sites:
  - routes:
      - { match: { path: /method, method: [PUT, PATCH] }, respond: "yes" }
      - { match: { path: /equals, header: { X-Kind: a } }, respond: "yes" }
      - { match: { path: /also, header: { X-Kind: { equals: a } } }, respond: "yes" }
      - { match: { path: /prefix, header: { X-Kind: { prefix: ab } } }, respond: "yes" }
      - { match: { path: /regex, header: { X-Kind: { regex: '^\d+$' } } }, respond: "yes" }
      - { match: { path: /present, header: { X-Kind: { present: true } } }, respond: "yes" }
      - { match: { path: /absent, header: { X-Kind: { present: false } } }, respond: "yes" }
      - { match: { path: /query, query: { v: { prefix: "1" } } }, respond: "yes" }
      - { match: { path: /cookie, cookie: { beta: "on" } }, respond: "yes" }
      - { match: { path: /any, any: [{ method: PUT }, { header: { X-Kind: a } }] }, respond: "yes" }
      - { match: { path: /not, not: { header: { X-Kind: a } } }, respond: "yes" }
      - { match: { path: /both, method: GET, query: { v: "1" } }, respond: "yes" }
"#,
    );
    let put = |path: &str| Request::new("PUT", path);
    for (request, matches) in [
        (put("/method"), true),
        (Request::new("PATCH", "/method"), true),
        (get("/method"), false),
        (get("/equals").header("x-kind", "a"), true),
        (get("/equals").header("x-kind", "ab"), false),
        (get("/equals"), false),
        (get("/also").header("X-Kind", "a"), true),
        (get("/also").header("X-Kind", "b"), false),
        (get("/prefix").header("X-Kind", "abc"), true),
        (get("/prefix").header("X-Kind", "a"), false),
        (get("/regex").header("X-Kind", "123"), true),
        (get("/regex").header("X-Kind", "12x"), false),
        (get("/present").header("X-Kind", "anything"), true),
        (get("/present"), false),
        (get("/absent"), true),
        (get("/absent").header("X-Kind", "a"), false),
        (get("/query?v=12&w"), true),
        (get("/query?w&v=2"), false),
        (get("/query"), false),
        (get("/cookie").header("Cookie", "a=1; beta=on"), true),
        (get("/cookie").header("Cookie", "alphabeta=on"), false),
        (get("/cookie"), false),
        (put("/any"), true),
        (get("/any").header("X-Kind", "a"), true),
        (get("/any"), false),
        (get("/not"), true),
        (get("/not").header("X-Kind", "a"), false),
        (get("/both?v=1"), true),
        (get("/both?v=2"), false),
        (put("/both?v=1"), false),
    ] {
        let status = if matches { 200 } else { 404 };
        assert_eq!(gateway.request(&request).status, status, "{request:?}");
    }
}

#[test]
fn more_predicates_win_and_a_worse_path_is_tried_when_they_all_fail() {
    let gateway = Gateway::start(
        r#"
sites:
  - routes:
      - { match: "/*", respond: "all" }
      - { match: /a, respond: "plain" }
      - { match: { path: /a, header: { X-A: "1" } }, respond: "one" }
      - { match: { path: /a, header: { X-A: "1", X-B: "1" } }, respond: "two" }
      - { match: { path: /b, method: PUT }, respond: "put" }
"#,
    );
    for (request, said) in [
        (get("/a"), "plain"),
        (get("/a").header("X-A", "1"), "one"),
        (get("/a").header("X-A", "1").header("X-B", "1"), "two"),
        (Request::new("PUT", "/b"), "put"),
        (get("/b"), "all"),
    ] {
        assert_eq!(gateway.request(&request).text(), said, "{request:?}");
    }
}

const HOSTS: &str = r#"
sites:
  - { respond: "default" }
  - { hosts: ["*.example.com"], respond: "wildcard" }
  - { hosts: ["*.b.example.com"], respond: "longer wildcard" }
  - hosts: [a.example.com, other.test]
    routes:
      - { match: /x, respond: "exact host" }
  - hosts: [a.example.com]
    routes:
      - { match: /y, respond: "its other site" }
"#;

#[test]
fn the_most_exact_host_wins() {
    let gateway = Gateway::start(HOSTS);
    for (host, path, said) in [
        ("a.example.com", "/x", "exact host"),
        ("A.Example.COM:8080", "/x", "exact host"),
        ("a.example.com.", "/x", "exact host"),
        ("other.test", "/x", "exact host"),
        ("a.example.com", "/y", "its other site"),
        ("z.example.com", "/x", "wildcard"),
        ("deep.below.example.com", "/x", "wildcard"),
        ("q.b.example.com", "/x", "longer wildcard"),
        ("example.com", "/x", "default"),
        ("unknown.test", "/x", "default"),
        ("127.0.0.1", "/x", "default"),
    ] {
        assert_eq!(gateway.request(&get(path).host(host)).text(), said, "{host}{path}");
    }
}

#[test]
fn a_request_never_falls_through_to_a_less_exact_host() {
    let gateway = Gateway::start(HOSTS);
    assert_eq!(gateway.request(&get("/z").host("a.example.com")).status, 404);
    assert_eq!(gateway.request(&get("/y").host("other.test")).status, 404);
}

#[test]
fn a_host_that_no_site_has_is_not_found() {
    let gateway = Gateway::start("sites:\n  - { hosts: [a.test], respond: here }\n");
    assert_eq!(gateway.request(&get("/").host("a.test")).status, 200);
    assert_eq!(gateway.request(&get("/").host("b.test")).status, 404);
}

#[test]
fn no_spelling_of_a_path_walks_around_a_rule() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(
        &[&origin],
        r#"
sites:
  - routes:
      - { match: "/static/*", proxy: "@a" }
      - { match: "/admin/*", respond: { status: 403, body: "no" } }
"#,
    );
    for path in [
        "/admin/x",
        "/static/../admin/x",
        "/static/%2e%2e/admin/x",
        "/static/%2E./admin/x",
        "/static/./../admin/x",
        "/static/a/../../admin/x",
        "//admin/x",
        "/static//..//..//admin/x",
        "/%61dmin/x",
        "/%61%64min",
        "/../../admin/x",
        "/static/../../../admin",
    ] {
        assert_eq!(gateway.get(path).status, 403, "{path}");
    }
    assert_eq!(origin.requests(), 0);
}

#[test]
fn what_was_matched_is_what_is_forwarded() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(
        &[&origin],
        r#"
sites:
  - routes:
      - { match: "/*", proxy: "@a" }
      - { match: "/raw/*", proxy: "@a", raw_path: true }
"#,
    );
    for (sent, forwarded) in [
        ("/a/b?x=%2e./..//y", "/a/b?x=%2e./..//y"),
        ("/a/../b", "/b"),
        ("/a/./b/", "/a/b/"),
        ("/a//b", "/a/b"),
        ("/%41%7e", "/A~"),
        ("/a%2fb%2F..%2fc", "/a%2Fb%2F..%2Fc"),
        ("/%e4%f6", "/%E4%F6"),
        ("/..", "/"),
        ("/raw/%61//b/./c?q", "/raw/%61//b/./c?q"),
    ] {
        assert_eq!(gateway.get(sent).echo().path, forwarded, "{sent}");
    }
}

#[test]
fn an_encoded_slash_is_not_a_slash() {
    let gateway = Gateway::start(
        r#"
sites:
  - routes:
      - { match: "/files/{name}", respond: "one file" }
      - { match: "/files/*", respond: "a path" }
"#,
    );
    assert_eq!(gateway.get("/files/a%2Fb").text(), "one file");
    assert_eq!(gateway.get("/files/a/b").text(), "a path");
}

#[test]
fn a_url_as_the_target_is_made_a_path_and_what_is_neither_is_refused() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(
        &[&origin],
        r#"
sites:
  - routes:
      - { match: "/*", proxy: "@a" }
      - { match: "/raw/*", raw_path: true, proxy: "@a" }
      - { match: "/admin/*", respond: { status: 403 } }
"#,
    );
    for (target, path) in [
        ("http://a.test/x?y=1", "/x?y=1"),
        ("HTTP://a.test", "/"),
        ("http://a.test?y", "/?y"),
        ("http://a.test/raw/%61", "/raw/%61"),
    ] {
        assert_eq!(gateway.request(&get(target).host("a.test")).echo().path, path, "{target}");
    }
    let options = Request::new("OPTIONS", "*").host("a.test");
    assert_eq!(gateway.request(&options).echo().path, "*");
    let seen = origin.requests();
    for (target, status) in [
        ("http://a.test/x/../admin/y", 403),
        ("x", 400),
        ("x/../admin/y", 400),
        ("a.test:80", 400),
        ("?y", 400),
        ("*", 400),
        ("ftp://a.test/x", 400),
        ("http://b.test/x", 400),
    ] {
        assert_eq!(gateway.request(&get(target).host("a.test")).status, status, "{target}");
    }
    assert_eq!(origin.requests(), seen);
}

#[test]
fn a_backend_gets_a_host_even_from_a_client_without() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(&[&origin], "sites:\n  - proxy: \"@a\"\n");
    let mut connection = gateway.connect();
    connection.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(connection.read_response("GET").echo().headers.all("host"), [origin.address()]);
}
