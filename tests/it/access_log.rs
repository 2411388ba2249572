//! One line a request, in the form and at the place that the operator chose.

use std::fs;

use serde_json::Value;

use crate::harness::names::log;
use crate::harness::{Gateway, Origin, Request, eventually, get};

#[test]
fn a_request_is_a_line_of_json_by_default() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(
        &[&origin],
        r#"
runtime: { trusted_proxies: [127.0.0.1] }
upstreams: { api: ["@a"] }
sites:
  - routes:
      - { name: front, match: "/*", proxy: api }
"#,
    );
    let request = Request::new("POST", "/x/../logged?token=1")
        .host("shop.test")
        .header("X-Forwarded-For", "203.0.113.7")
        .header("X-Request-Id", "id-1")
        .body("12345");
    let sent = gateway.request(&request).body.len();
    let line = gateway.log_line(log::REQUEST_ID, "id-1");
    for (field, value) in [
        (log::METHOD, "POST"),
        (log::HOST, "shop.test"),
        (log::PATH, "/x/../logged?token=1"),
        (log::CLIENT, "203.0.113.7"),
        (log::ROUTE, "front"),
        (log::UPSTREAM, "api"),
        (log::BACKEND, origin.address()),
    ] {
        assert_eq!(line[field], value, "{field}: {line}");
    }
    assert_eq!((line[log::STATUS].as_u64(), line[log::SENT].as_u64()), (Some(200), Some(sent as u64)), "{line}");
    assert!(line[log::DURATION].is_number(), "{line}");
}

#[test]
fn a_failure_says_why() {
    let origin = Origin::refusing("refusing");
    let gateway = Gateway::before(&[&origin], "log: { access: json }\nsites:\n  - proxy: \"@refusing\"\n");
    gateway.get("/");
    let line = gateway.log_line(log::STATUS, 502);
    assert!(line[log::FAILURE].as_str().is_some_and(|failure| failure.contains("refused")), "{line}");
}

#[test]
fn what_the_client_wrote_cannot_forge_a_line() {
    let gateway = Gateway::start("log: { access: json }\nsites:\n  - respond: hello\n");
    gateway.request(&get("/a%0a%22x").header("User-Agent", "\"}\t{\"status\":999"));
    let line = gateway.log_line(log::STATUS, 200);
    assert_eq!(line[log::METHOD], "GET");
    assert!(gateway.stdout_lines().iter().all(|line| line.starts_with('{') && line.ends_with('}')));
}

#[test]
fn requests_refused_before_routing_are_logged_too() {
    let gateway = Gateway::start("log: { access: json }\nsites:\n  - { hosts: [a.test], respond: hello }\n");
    gateway.request(&get("/nowhere").host("b.test"));
    assert_eq!(gateway.log_line(log::STATUS, 404)[log::HOST], "b.test");
    let mut connection = gateway.connect();
    connection.send("nonsense\r\n\r\n");
    connection.expect_close();
    assert_eq!(gateway.log_line(log::STATUS, 400)[log::FAILURE], "malformed");
}

#[test]
fn a_failure_is_told_by_one_of_our_words_and_only_when_nothing_mended_it() {
    let broken = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    let (good, down, broken) = (Origin::named("good"), Origin::refusing("down"), Origin::answering("broken", broken));
    let gateway = Gateway::before(
        &[&good, &down, &broken],
        r#"
log: { access: json }
upstreams: { api: ["@down", "@good"] }
sites:
  - routes: [{ match: "/*", proxy: api }, { match: /down, proxy: "@down" }, { match: /broken, proxy: "@broken" }]
"#,
    );
    for path in ["/1", "/2", "/down"] {
        gateway.get(path);
    }
    let _ = gateway.connect().try_request(&get("/broken"));
    let mut connection = gateway.connect();
    connection.send("POST /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nno chunk at all\r\n");
    connection.expect_close();
    for (path, failure) in [
        ("/1", Value::Null),
        ("/2", Value::Null),
        ("/down", "connect_refused".into()),
        ("/broken", "invalid_response".into()),
        ("/chunks", "invalid_request".into()),
    ] {
        assert_eq!(gateway.log_line(log::PATH, path)[log::FAILURE], failure, "{path}");
    }
}

#[test]
fn the_combined_format_is_the_well_known_one() {
    let gateway = Gateway::start("log: { access: [{ to: stdout, format: combined }] }\nsites:\n  - respond: hello\n");
    gateway.request(&get("/x?y=1").header("Referer", "http://r.test/").header("User-Agent", "a \"b\""));
    eventually("there is a line", || !gateway.stdout_lines().is_empty());
    let line = gateway.stdout_lines().remove(0);
    let shape = r#"^127\.0\.0\.1 - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "GET /x\?y=1 HTTP/1\.1" 200 5 "http://r\.test/" "a (\\"|\\x22)b(\\"|\\x22)"$"#;
    assert!(regex::Regex::new(shape).unwrap().is_match(&line), "{line}");
}

#[test]
fn a_template_says_what_it_should_and_several_places_get_it() {
    let gateway = Gateway::start(
        r#"
log:
  access:
    - { to: stdout, format: json }
    - { to: "@dir/access.log", format: "${client.ip} ${request.method} ${request.path} ${response.status} ${response.size}" }
sites:
  - respond: hello
"#,
    );
    gateway.get("/x?y=1");
    let file = gateway.dir().join("access.log");
    eventually("there is a line", || fs::read_to_string(&file).is_ok_and(|text| text == "127.0.0.1 GET /x 200 5\n"));
    gateway.log_line(log::PATH, "/x?y=1");
}

#[test]
fn the_file_is_opened_again_on_sigusr1() {
    let gateway = Gateway::start(
        r#"
log: { access: [{ to: "@dir/access.log", format: "${request.path}" }] }
sites:
  - respond: hello
"#,
    );
    let (file, moved) = (gateway.dir().join("access.log"), gateway.dir().join("access.log.1"));
    gateway.get("/before");
    eventually("there is a line", || fs::read_to_string(&file).is_ok_and(|text| text == "/before\n"));
    fs::rename(&file, &moved).unwrap();
    gateway.signal("USR1");
    eventually("a new file is there", || file.exists());
    gateway.get("/after");
    eventually("the line is in the new file", || fs::read_to_string(&file).is_ok_and(|text| text == "/after\n"));
    assert_eq!(fs::read_to_string(&moved).unwrap(), "/before\n");
}

#[test]
fn a_file_is_appended_to() {
    let gateway = Gateway::with_files(
        &[],
        &[("access.log", "an older line\n")],
        "log: { access: [{ to: \"@dir/access.log\", format: \"${request.path}\" }] }\nsites:\n  - respond: hello\n",
    );
    gateway.get("/new");
    let file = gateway.dir().join("access.log");
    eventually("the line is there", || fs::read_to_string(&file).is_ok_and(|text| text == "an older line\n/new\n"));
}

#[test]
fn it_may_be_switched_off() {
    let mut gateway = Gateway::start("log: { access: none }\nsites:\n  - respond: hello\n");
    gateway.get("/");
    gateway.signal("TERM");
    assert!(gateway.wait_exit(crate::harness::DEADLINE).is_some());
    assert!(gateway.stdout_lines().is_empty(), "{:?}", gateway.stdout_lines());
}

#[test]
fn every_line_is_written_before_the_end() {
    let mut gateway = Gateway::start("log: { access: json }\nsites:\n  - respond: hello\n");
    let mut connection = gateway.connect();
    for _ in 0..200 {
        connection.request(&get("/"));
    }
    drop(connection);
    gateway.signal("TERM");
    assert!(gateway.wait_exit(crate::harness::DEADLINE).is_some());
    eventually("all lines are there", || gateway.log_lines().len() == 200);
}

#[test]
fn diagnostics_are_quiet_by_default() {
    let gateway = Gateway::start("sites:\n  - respond: hello\n");
    gateway.get("/");
    gateway.connect().send("nonsense\r\n\r\n");
    assert_eq!(gateway.stderr(), "");
}

#[test]
fn rust_log_says_more() {
    let gateway = Gateway::with_env(&[("RUST_LOG", "edgeway=debug")], "sites:\n  - respond: hello\n");
    gateway.get("/");
    eventually("there is something to read", || !gateway.stderr().is_empty());
}
