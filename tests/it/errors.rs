//! What a client sees when something failed.

use crate::harness::{Gateway, Origin, get, names};

const FAILING: &str = r#"
runtime: { trusted_proxies: [127.0.0.1] }
sites:
  - proxy: "@refusing"
"#;

#[test]
fn a_browser_gets_a_page_and_a_program_gets_json() {
    let refusing = Origin::refusing("refusing");
    let gateway = Gateway::before(&[&refusing], FAILING);
    for (accept, kind) in [
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html"),
        ("application/json", "application/json"),
        ("application/json, text/html;q=0.1", "application/json"),
        ("application/vnd.api+json", "application/json"),
    ] {
        let response = gateway.request(&get("/").header("Accept", accept).header("X-Request-Id", "id-1"));
        assert_eq!(response.status, 502, "{accept}");
        assert!(response.header("content-type").is_some_and(|given| given.starts_with(kind)), "{accept}: {response:?}");
        let text = response.text();
        assert!(text.contains("502") && text.contains("id-1"), "status and request id: {text}");
        assert!(!text.contains(refusing.address()) && !text.to_lowercase().contains("pingora"), "internals: {text}");
        if kind == "application/json" {
            assert_eq!(response.json()["status"], 502, "{text}");
            assert_eq!(response.json()["request_id"], "id-1", "{text}");
        }
    }
}

#[test]
fn an_error_without_accept_is_short_and_whole() {
    let refusing = Origin::refusing("refusing");
    let gateway = Gateway::before(&[&refusing], FAILING);
    let mut connection = gateway.connect();
    for _ in 0..2 {
        let response = connection.request(&get("/"));
        assert_eq!(response.status, 502);
        assert!(response.body.len() < 2000, "{}", response.text());
    }
}

#[test]
fn a_page_of_ones_own_stands_for_a_status() {
    let (refusing, silent) = (Origin::refusing("refusing"), Origin::silent("silent"));
    let gateway = Gateway::with_files(
        &[&refusing, &silent],
        &[("errors/502.html", "<h1>back soon</h1>")],
        r#"
upstreams: { slow: { servers: ["@silent"], timeouts: { read: 200ms } } }
sites:
  - errors:
      502: "@dir/errors/502.html"
      4xx: { body: "nothing here", content_type: text/plain }
      default: { body: "sorry" }
    routes:
      - { match: /down, proxy: "@refusing" }
      - { match: /slow, proxy: slow }
      - match: /own
        errors: { 502: { body: '{"own":true}', content_type: application/json } }
        proxy: "@refusing"
"#,
    );
    let response = gateway.get("/down");
    assert_eq!((response.status, &*response.text()), (502, "<h1>back soon</h1>"));
    assert!(response.header("content-type").is_some_and(|kind| kind.starts_with("text/html")), "{response:?}");
    let response = gateway.get("/missing");
    assert_eq!((response.status, &*response.text()), (404, "nothing here"));
    let response = gateway.get("/slow");
    assert_eq!((response.status, &*response.text()), (504, "sorry"));
    let response = gateway.get("/own");
    assert_eq!((response.status, response.json()["own"].as_bool()), (502, Some(true)));
    assert_eq!(response.header("content-type"), Some("application/json"));
}

#[test]
fn what_a_backend_says_itself_is_left_alone() {
    let origin = Origin::answering("raw", "HTTP/1.1 502 Bad\r\nContent-Length: 4\r\n\r\nmine");
    let gateway = Gateway::before(&[&origin], "sites:\n  - errors: { 502: { body: \"ours\" } }\n    proxy: \"@raw\"\n");
    assert_eq!(gateway.get("/").text(), "mine");
}

#[test]
fn a_page_of_our_own_cannot_be_made_to_carry_script() {
    let gateway =
        Gateway::start("runtime: { trusted_proxies: [127.0.0.1] }\nsites:\n  - { hosts: [a.test], respond: hello }\n");
    let request = get("/<script>x</script>").header("Accept", "text/html").header("X-Request-Id", "<script>");
    assert!(!gateway.request(&request).text().contains("<script>"));
}

#[test]
fn a_body_that_is_no_http_is_refused_and_its_line_says_whose_fault() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(&[&origin], "sites:\n  - proxy: \"@a\"\n");
    let mut connection = gateway.connect();
    connection.send("POST /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n");
    assert_eq!(connection.read_response("POST").status, 400);
    assert_eq!(gateway.log_line("path", "/chunks")[names::log::FAILURE], "invalid_request");
}

#[test]
fn a_site_keeps_its_promises_on_its_own_404_too() {
    let gateway = Gateway::start(
        r#"
sites:
  - hosts: [a.test]
    headers: { response: { set: { Strict-Transport-Security: max-age=60 } } }
    routes: [{ match: /here, respond: here }]
"#,
    );
    let response = gateway.request(&get("/missing").host("a.test"));
    assert_eq!((response.status, response.header("strict-transport-security")), (404, Some("max-age=60")));
    assert_eq!(gateway.request(&get("/missing").host("b.test")).header("strict-transport-security"), None);
}

#[test]
fn nobody_is_told_what_reads_the_requests() {
    let gateway = Gateway::start("sites:\n  - respond: hello\n");
    for raw in
        ["hello\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"]
    {
        let mut connection = gateway.connect();
        connection.send(raw);
        let response = connection.read_response("GET");
        assert!([400, 405].contains(&response.status), "{raw:?}: {response:?}");
        assert_eq!(response.header("server"), None, "{raw:?}");
        connection.expect_close();
    }
}
