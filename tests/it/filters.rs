//! The filters of a site and of a route, in the order of the document.

use crate::harness::{Connection, Gateway, Origin, get};

#[test]
fn ip_rules_let_in_and_keep_out() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(
        &[&origin],
        r#"
sites:
  - filters:
      - ip_rules: { allow: [127.0.0.0/24], deny: [127.0.0.9], status: 404 }
    proxy: "@a"
"#,
    );
    for (client, status) in [("127.0.0.1", 200), ("127.0.0.9", 404), ("127.0.1.1", 404)] {
        let response = Connection::open_from(client, &gateway.address()).request(&get("/"));
        assert_eq!(response.status, status, "{client}");
    }
    assert_eq!(origin.requests(), 1);
}

#[test]
fn a_list_of_denials_alone_lets_all_others_in() {
    let gateway = Gateway::start("sites:\n  - filters: [{ ip_rules: { deny: [127.0.0.2] } }]\n    respond: hello\n");
    for (client, status) in [("127.0.0.1", 200), ("127.0.0.2", 403)] {
        let response = Connection::open_from(client, &gateway.address()).request(&get("/"));
        assert_eq!(response.status, status, "{client}");
    }
}

#[test]
fn filters_judge_the_true_client() {
    let gateway = Gateway::start(
        r#"
runtime: { trusted_proxies: [127.0.0.1] }
sites:
  - filters: [{ ip_rules: { allow: [203.0.113.0/24] } }]
    respond: hello
"#,
    );
    let from = |client: &str| get("/").header("X-Forwarded-For", client);
    assert_eq!(gateway.request(&from("203.0.113.7")).status, 200);
    assert_eq!(gateway.request(&from("203.0.114.7")).status, 403);
    assert_eq!(gateway.request(&get("/")).status, 403);
    let stranger = Connection::open_from("127.0.0.2", &gateway.address()).request(&from("203.0.113.7"));
    assert_eq!(stranger.status, 403, "a stranger cannot lie its way in");
}

#[test]
fn the_filters_of_a_site_come_before_those_of_its_routes() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(
        &[&origin],
        r#"
sites:
  - filters: [{ headers: { request: { set: { X-Who: site }, add: { X-Trail: site } } } }]
    routes:
      - match: "/*"
        filters:
          - headers: { request: { set: { X-Who: first }, add: { X-Trail: first } } }
          - headers: { request: { set: { X-Who: second }, add: { X-Trail: second } } }
        proxy: "@a"
      - match: /plain
        proxy: "@a"
"#,
    );
    let echo = gateway.get("/").echo();
    assert_eq!(echo.headers.all("x-who"), ["second"]);
    assert_eq!(echo.headers.all("x-trail"), ["site", "first", "second"]);
    assert_eq!(gateway.get("/plain").echo().headers.all("x-trail"), ["site"]);
}

#[test]
fn the_headers_filter_changes_responses_too() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(
        &[&origin],
        r#"
sites:
  - filters: [{ headers: { response: { set: { X-Seen: "${response.status}" }, remove: [X-Origin] } } }]
    proxy: "@a"
"#,
    );
    let response = gateway.get("/");
    assert_eq!((response.header("x-seen"), response.header("x-origin")), (Some("200"), None));
}
