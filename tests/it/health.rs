//! Health: who is found to be unwell, by checks and by requests, who gets no requests then, and who comes back when.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::gateway_before as start;
use crate::harness::{
    Gateway, GrpcPatient, Mood, Origin, Patient, Request, await_some, eventually, filled, get, names,
};

/// What `/upstreams` tells of an upstream.
fn upstream(gateway: &Gateway, name: &str) -> Value {
    let all = gateway.admin("/upstreams").json();
    let found = all["upstreams"].as_array().unwrap().iter().find(|upstream| upstream["name"] == name);
    found.unwrap_or_else(|| panic!("no upstream `{name}` in {all:#}")).clone()
}

/// What it tells of a backend of `api`.
fn backend(gateway: &Gateway, address: &str) -> Value {
    let upstream = upstream(gateway, "api");
    let found = upstream["backends"].as_array().unwrap().iter().find(|backend| backend["address"] == address);
    found.unwrap_or_else(|| panic!("no backend {address} in {upstream:#}")).clone()
}

#[track_caller]
fn expect_state(gateway: &Gateway, address: &str, state: &str) -> Value {
    await_some(&format!("{address} is {state}"), || {
        Some(backend(gateway, address)).filter(|backend| backend["state"] == state)
    })
}

/// Who answers so many requests.
fn answers(gateway: &Gateway, count: usize) -> Vec<String> {
    (0..count).map(|_| gateway.get("/")).map(|response| response.text()).collect()
}

/// Fails unless the view of who may be picked has followed the state: it does so in a moment.
#[track_caller]
fn expect_all_from(gateway: &Gateway, name: &str) {
    eventually(&format!("all requests go to {name}"), || answers(gateway, 8).iter().all(|from| from == name));
}

#[track_caller]
fn expect_both(gateway: &Gateway, names: [&str; 2]) {
    eventually(&format!("{names:?} share the requests"), || {
        let from = answers(gateway, 8);
        names.iter().all(|name| from.iter().any(|answer| answer == name))
    });
}

#[test]
fn a_failing_check_takes_a_server_out_and_a_good_one_brings_it_back() {
    let (a, b) = (Patient::named("a"), Patient::named("b"));
    let gateway = start(
        &[&a, &b],
        r#"
upstreams:
  api:
    servers: ["@a", "@b"]
    health: { active: { http: /healthz, every: 50ms, timeout: 5s, rise: 2, fall: 2 } }
log: { level: info }
sites:
  - proxy: api
"#,
    );
    expect_both(&gateway, ["a", "b"]);
    b.check(Mood::Status(503));
    let told = expect_state(&gateway, &b.address(), "down");
    assert_eq!(told["check"]["fault"], "the answer has status 503", "{told:#}");
    assert!(told["check"]["in_a_row"].as_u64() >= Some(2), "{told:#}");
    let before = b.requests();
    // The state counts at once, whatever is left to be made anew.
    assert!(answers(&gateway, 20).iter().all(|from| from == "a"));
    assert_eq!(b.requests(), before);
    b.check(Mood::Status(200));
    let began = Instant::now();
    expect_state(&gateway, &b.address(), "up");
    assert!(began.elapsed() < Duration::from_millis(50 * 2) + Duration::from_secs(1), "{:?}", began.elapsed());
    expect_both(&gateway, ["a", "b"]);
    let said = gateway.stderr();
    for word in ["a backend is down", "a backend is up", "the answer has status 503"] {
        assert_eq!(said.matches(word).count(), 1, "{word}: {said}");
    }
}

#[test]
fn a_server_that_does_not_listen_is_found_by_a_connection() {
    let (a, b) = (Patient::named("a"), Patient::named("b"));
    let gateway = start(
        &[&a, &b],
        r#"
upstreams:
  api:
    servers: ["@a", "@b"]
    health: { active: { tcp: true, every: 50ms, timeout: 5s }, passive: false }
sites:
  - proxy: api
"#,
    );
    b.stop();
    let told = expect_state(&gateway, &b.address(), "down");
    assert_eq!(told["check"]["fault"], "connection refused", "{told:#}");
    expect_all_from(&gateway, "a");
    b.start();
    expect_state(&gateway, &b.address(), "up");
    expect_both(&gateway, ["a", "b"]);
}

#[test]
fn a_server_is_asked_by_the_grpc_health_protocol() {
    let server = GrpcPatient::serving();
    let gateway = Gateway::start(&format!(
        r#"
upstreams:
  api:
    servers: ["{}"]
    health: {{ active: {{ grpc: shop.Cart, every: 50ms, timeout: 5s, fall: 1, rise: 1 }} }}
sites:
  - proxy: api
"#,
        server.address()
    ));
    eventually("it is asked", || !server.asked().0.is_empty());
    let (path, message) = server.asked();
    assert_eq!(path, "/grpc.health.v1.Health/Check");
    assert_eq!(message, b"\0\0\0\0\x0b\x0a\x09shop.Cart");
    expect_state(&gateway, &server.address(), "up");
    let mut most = 0;
    eventually("each check makes a connection of its own", || {
        let (all, open) = server.connections();
        most = most.max(open);
        all >= 10
    });
    assert!(most < 5, "{most} connections of past checks are open");
    for (says, fault) in [(2, "the service says NOT_SERVING"), (-12, "the answer has grpc-status 12")] {
        server.says(says);
        let told = expect_state(&gateway, &server.address(), "down");
        assert_eq!(told["check"]["fault"], fault, "{told:#}");
        server.says(1);
        expect_state(&gateway, &server.address(), "up");
    }
}

#[test]
fn another_port_speaks_for_the_server() {
    let (a, checked) = (Patient::named("a"), Patient::named("checked"));
    let gateway = start(
        &[&a],
        &format!(
            r#"
upstreams:
  api:
    servers: ["@a"]
    health: {{ active: {{ http: /healthz, every: 50ms, timeout: 5s, port: {} }} }}
sites:
  - proxy: api
"#,
            checked.port()
        ),
    );
    eventually("the other port is asked", || checked.checks() > 0);
    checked.check(Mood::Status(500));
    expect_state(&gateway, &a.address(), "down");
    assert_eq!(gateway.get("/").status, 503);
    assert_eq!((a.checks(), a.requests()), (0, 0));
    gateway.log_line("failure", "no_healthy_backend");
}

#[test]
fn the_status_and_the_body_of_a_check_must_be_as_expected() {
    let a = Patient::named("a");
    let gateway = start(
        &[&a],
        r#"
upstreams:
  api:
    servers: ["@a"]
    health:
      active: { http: { path: /healthz, status: [200, 3xx], body: '^ready' }, every: 50ms, timeout: 5s, rise: 1, fall: 1 }
sites:
  - proxy: api
"#,
    );
    for (mood, state, fault) in [
        (Mood::Body("not ready"), "down", json!("`^ready` is not found in the body")),
        (Mood::Body("ready and willing"), "up", Value::Null),
        (Mood::Status(404), "down", json!("the answer has status 404")),
    ] {
        a.check(mood.clone());
        let told = await_some(&format!("{mood:?} makes it {state}"), || {
            Some(backend(&gateway, &a.address()))
                .filter(|told| told["state"] == state && told["check"]["fault"] == fault)
        });
        assert!(told["check"]["age_ms"].is_u64(), "{told:#}");
    }
}

#[test]
fn a_check_that_trickles_or_hangs_is_cut() {
    let (a, b) = (Patient::named("a"), Patient::named("b"));
    a.check(Mood::Trickle(Duration::from_millis(5)));
    b.check(Mood::Silent);
    let gateway = start(
        &[&a, &b],
        r#"
upstreams:
  api:
    servers: ["@a", "@b"]
    health: { active: { http: /healthz, every: 100ms, timeout: 100ms, fall: 2 } }
sites:
  - proxy: api
"#,
    );
    for patient in [&a, &b] {
        let told = expect_state(&gateway, &patient.address(), "down");
        assert_eq!(told["check"]["fault"], "no whole response within 100ms", "{told:#}");
    }
}

#[test]
fn a_server_may_have_to_prove_itself_first() {
    let a = Patient::named("a");
    a.check(Mood::Silent);
    let gateway = start(
        &[&a],
        r#"
upstreams:
  api:
    servers: ["@a"]
    health: { active: { http: /healthz, every: 1h, timeout: 1m, start: checking } }
sites:
  - proxy: api
"#,
    );
    expect_state(&gateway, &a.address(), "checking");
    assert_eq!(gateway.get("/").status, 503);
    a.check(Mood::Status(200));
    expect_state(&gateway, &a.address(), "up");
    expect_all_from(&gateway, "a");
}

#[test]
fn health_outlives_a_reload_but_not_the_checks_themselves() {
    let (a, b) = (Patient::named("a"), Patient::named("b"));
    let document = |health: &str| {
        let yaml = r#"
upstreams: { api: { servers: ["@a", "@b"], health: HEALTH } }
sites:
  - proxy: api
"#;
        filled(yaml, &[&a, &b]).replace("HEALTH", health)
    };
    let gateway = Gateway::start(&document("{ active: { http: /healthz, every: 50ms, timeout: 5s }, passive: false }"));
    b.check(Mood::Status(500));
    expect_state(&gateway, &b.address(), "down");
    // No check comes soon, and it is not asked whether the server is well.
    gateway.reload(&document("{ active: { http: /healthz, every: 1h }, passive: false }"));
    assert_eq!(backend(&gateway, &b.address())["state"], "down");
    expect_all_from(&gateway, "a");
    gateway.reload(&document("{ passive: false }"));
    expect_state(&gateway, &b.address(), "up");
    expect_both(&gateway, ["a", "b"]);
}

/// An upstream of `a`, with a backup `b`, and these settings of passive health.
fn with_backup(a: &Patient, b: &Patient, passive: &str) -> Gateway {
    let yaml = r#"
upstreams:
  api:
    servers: ["@a", { address: "@b", backup: true }]
    health: { passive: PASSIVE }
    retry: { attempts: 0 }
sites:
  - proxy: api
log: { access: [{ to: stdout, format: json }] }
"#;
    start(&[a, b], &yaml.replace("PASSIVE", passive))
}

#[test]
fn failures_in_a_row_eject_a_server_for_a_while() {
    let (a, b) = (Patient::named("a"), Patient::named("b"));
    let gateway = with_backup(&a, &b, "{ errors: 3, eject: 300ms }");
    a.request(Mood::Reset);
    for times in 1..=3 {
        assert_eq!(backend(&gateway, &a.address())["state"], "up", "a failure counts once, not twice");
        assert_eq!(gateway.get("/").status, 502, "{times}");
    }
    let told = backend(&gateway, &a.address());
    assert_eq!(told["state"], "ejected");
    assert!(told["ejected_for_ms"].as_u64() <= Some(300), "{told:#}");
    let before = a.requests();
    assert!(answers(&gateway, 5).iter().all(|from| from == "b"));
    assert_eq!(a.requests(), before);
    a.request(Mood::Status(200));
    expect_state(&gateway, &a.address(), "up");
    expect_all_from(&gateway, "a");
    let labels = [("upstream", "api"), ("backend", &*a.address())];
    gateway.expect_metric(names::EJECTIONS, &labels, 1.0);
}

#[test]
fn what_counts_as_a_failure_can_be_set() {
    for (count, mood, ejects) in [
        ("gateway", Mood::Status(500), false),
        ("gateway", Mood::Status(404), false),
        ("gateway", Mood::Status(503), true),
        ("5xx", Mood::Status(500), true),
        ("5xx", Mood::Status(404), false),
    ] {
        let (a, b) = (Patient::named("a"), Patient::named("b"));
        let gateway = with_backup(&a, &b, &format!("{{ errors: 2, eject: 1h, max_eject: 1h, count: {count} }}"));
        a.request(mood.clone());
        answers(&gateway, 3);
        let expected = if ejects { "ejected" } else { "up" };
        assert_eq!(backend(&gateway, &a.address())["state"], expected, "{count} {mood:?}");
    }
}

#[test]
fn a_success_begins_the_count_anew_but_not_the_share() {
    let (a, b) = (Patient::named("a"), Patient::named("b"));
    let gateway =
        with_backup(&a, &b, "{ errors: 3, within: 1m, eject: 1h, max_eject: 1h, error_rate: 50%, min_requests: 10 }");
    for round in 0..5 {
        assert_eq!(backend(&gateway, &a.address())["state"], "up", "round {round}");
        for status in [200, 503] {
            a.request(Mood::Status(status));
            assert_eq!(gateway.get("/").status, status);
            // What went well is learned when all of it is over.
            gateway.expect_metric(names::ACTIVE, &[("backend", &*a.address())], 0.0);
        }
    }
    assert_eq!(backend(&gateway, &a.address())["state"], "ejected", "5 of 10 failed");
}

#[test]
fn each_ejection_is_longer_than_the_one_before() {
    let (a, b) = (Patient::named("a"), Patient::named("b"));
    let gateway = with_backup(&a, &b, "{ errors: 1, eject: 500ms }");
    a.request(Mood::Status(503));
    for step in 0..3 {
        expect_all_from_or_fail_over(&gateway);
        let told = backend(&gateway, &a.address());
        let left = told["ejected_for_ms"].as_u64().unwrap_or_else(|| panic!("{told:#}"));
        let length = 500 << step;
        assert!(left <= length && left > length / 2, "{left} of {length}: {told:#}");
        if step < 2 {
            expect_state(&gateway, &a.address(), "up");
        }
    }
}

/// Asks until the server is ejected: it fails each time.
fn expect_all_from_or_fail_over(gateway: &Gateway) {
    eventually("a request fails, and so ejects", || gateway.get("/").status == 503);
}

#[test]
fn a_response_that_breaks_off_is_a_failure_though_it_began_well() {
    let (half, b) =
        (Origin::answering("half", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), Origin::named("b"));
    let gateway = Gateway::before(
        &[&half, &b],
        r#"
upstreams:
  api:
    servers: ["@half", { address: "@b", backup: true }]
    health: { passive: { errors: 3, eject: 1h, max_eject: 1h } }
sites:
  - proxy: api
"#,
    );
    for _ in 0..3 {
        assert_eq!(backend(&gateway, half.address())["state"], "up");
        assert!(gateway.connect().try_request(&get("/")).is_err());
    }
    expect_state(&gateway, half.address(), "ejected");
}

#[test]
fn only_a_share_of_the_servers_is_ejected() {
    let patients = ["a", "b", "c"].map(Patient::named);
    let all: Vec<_> = patients.iter().collect();
    let gateway = start(
        &all,
        r#"
upstreams:
  api:
    servers: ["@a", "@b", "@c"]
    health: { passive: { errors: 1, eject: 1h, max_eject: 1h, max_ejected: 34% } }
    retry: { attempts: 0 }
sites:
  - proxy: api
"#,
    );
    patients.iter().for_each(|patient| patient.request(Mood::Status(503)));
    answers(&gateway, 12);
    let states = upstream(&gateway, "api");
    let ejected = states["backends"].as_array().unwrap().iter().filter(|backend| backend["state"] == "ejected").count();
    assert_eq!(ejected, 1, "{states:#}");
    gateway.expect_metric(names::EJECTIONS, &[("upstream", "api")], 1.0);
}

#[test]
fn the_only_server_is_never_ejected_and_none_is_without_passive_health() {
    let a = Patient::named("a");
    let gateway = start(&[&a], "sites:\n  - proxy: \"@a\"\n");
    a.request(Mood::Status(503));
    for _ in 0..12 {
        assert_eq!((gateway.get("/").status, gateway.get("/").text()), (503, "a".to_owned()));
    }
    let b = Patient::named("b");
    let gateway = with_backup(&a, &b, "false");
    for _ in 0..12 {
        assert_eq!(gateway.get("/").text(), "a");
    }
}

#[test]
fn checks_end_an_ejection_early() {
    let (a, b) = (Patient::named("a"), Patient::named("b"));
    let gateway = start(
        &[&a, &b],
        r#"
upstreams:
  api:
    servers: ["@a", { address: "@b", backup: true }]
    health: { active: { http: /healthz, every: 200ms, timeout: 5s }, passive: { errors: 1, eject: 1h, max_eject: 1h } }
    retry: { attempts: 0 }
sites:
  - proxy: api
"#,
    );
    a.request(Mood::Status(503));
    assert_eq!(gateway.get("/").status, 503);
    assert_eq!(backend(&gateway, &a.address())["state"], "ejected");
    a.request(Mood::Status(200));
    expect_state(&gateway, &a.address(), "up");
    expect_all_from(&gateway, "a");
}

#[test]
fn a_client_that_goes_away_says_nothing_of_the_server() {
    let (a, b) = (Patient::named("a"), Patient::named("b"));
    let gateway = with_backup(&a, &b, "{ errors: 1, eject: 1h, max_eject: 1h }");
    a.request(Mood::Silent);
    for round in 0..3 {
        let before = a.requests();
        let mut client = gateway.connect();
        client.send(get("/").bytes());
        eventually("the server has the request", || a.requests() > before);
        drop(client);
        eventually("it is over", || gateway.log_lines().len() > round);
    }
    assert_eq!(backend(&gateway, &a.address())["state"], "up");
    a.request(Mood::Status(200));
    assert_eq!(gateway.get("/").text(), "a");
}

#[test]
fn a_client_that_is_slow_says_nothing_of_the_server() {
    let (a, b) = (Patient::named("a"), Patient::named("b"));
    let yaml = r#"
upstreams:
  api:
    servers: ["@a", { address: "@b", backup: true }]
    health: { passive: { errors: 1, eject: 1h, max_eject: 1h } }
    timeouts: { total: 300ms }
    retry: { attempts: 0 }
sites:
  - proxy: api
"#;
    let gateway = start(&[&a, &b], yaml);
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: edgeway.test\r\nContent-Length: 100000\r\n\r\n");
    client.trickle(&[b'x'; 1000], Duration::from_millis(20));
    let line = await_some("the request is given up", || gateway.log_lines().pop());
    assert_eq!((&line["backend"], &line["failure"]), (&json!(a.address()), &json!("read_timeout")), "{line}");
    assert_eq!(backend(&gateway, &a.address())["state"], "up");
}

#[test]
fn a_client_that_falls_silent_says_nothing_of_the_server_that_waits_for_it() {
    let (a, b) = (Patient::named("a"), Patient::named("b"));
    let yaml = r#"
upstreams:
  api:
    servers: ["@a", { address: "@b", backup: true }]
    health: { passive: { errors: 1, eject: 1h, max_eject: 1h } }
    limits: { circuit: { min_requests: 1 } }
    retry: { per_try: 200ms }
sites:
  - proxy: api
"#;
    let gateway = start(&[&a, &b], yaml);
    let put = "PUT / HTTP/1.1\r\nHost: edgeway.test\r\nContent-Length: 10\r\n";
    let mut client = gateway.connect();
    client.send(format!("{put}\r\nhalf "));
    let line = await_some("the request is given up", || gateway.log_lines().pop());
    assert_eq!((&line["status"], &line["tries"]), (&json!(504), &json!(1)), "{line}");
    assert_eq!((gateway.get("/").text(), &backend(&gateway, &a.address())["state"]), ("a".to_owned(), &json!("up")));

    // This one waits for the server, to hear whether its body is wanted.
    a.request(Mood::Silent);
    let mut client = gateway.connect();
    client.send(format!("{put}Expect: 100-continue\r\n\r\n"));
    expect_state(&gateway, &a.address(), "ejected");
}

#[test]
fn in_a_panic_health_is_ignored() {
    let patients = ["a", "b", "c"].map(Patient::named);
    let all: Vec<_> = patients.iter().collect();
    let gateway = start(
        &all,
        r#"
upstreams:
  api:
    servers: ["@a", "@b", "@c"]
    health: { active: { http: /healthz, every: 50ms, timeout: 5s, fall: 1, rise: 1 }, panic: 50% }
sites:
  - proxy: api
"#,
    );
    patients[1].check(Mood::Status(500));
    expect_state(&gateway, &patients[1].address(), "down");
    assert!(answers(&gateway, 9).iter().all(|from| from != "b"), "two of three are well");
    patients[2].check(Mood::Status(500));
    expect_state(&gateway, &patients[2].address(), "down");
    eventually("all three get requests", || {
        let from = answers(&gateway, 9);
        ["a", "b", "c"].iter().all(|name| from.iter().any(|answer| answer == name))
    });
    assert_eq!(upstream(&gateway, "api")["panics"], true);
    patients[1].check(Mood::Status(200));
    expect_state(&gateway, &patients[1].address(), "up");
    eventually("the panic is over", || upstream(&gateway, "api")["panics"] == false);
    assert!(answers(&gateway, 9).iter().all(|from| from != "c"));
}

fn drain(gateway: &Gateway, address: &str, verb: &str) -> u16 {
    gateway.admin_request(&Request::new("POST", &format!("/upstreams/api/backends/{address}/{verb}"))).status
}

#[test]
fn an_operator_drains_a_server_without_breaking_a_request_off() {
    let (a, b) = (Patient::named("a"), Patient::named("b"));
    let document = filled(
        r#"
upstreams: { api: { servers: ["@a", "@b"] } }
sites:
  - proxy: api
"#,
        &[&a, &b],
    );
    let gateway = Gateway::start(&document);
    b.request(Mood::Silent);
    let address = gateway.address();
    let held = thread::spawn(move || {
        let mut client = crate::harness::Connection::open(&address);
        // One of two goes to each.
        [client.request(&get("/")).text(), client.request(&get("/")).text()]
    });
    eventually("a request is under way at b", || b.requests() == 1);
    assert_eq!(drain(&gateway, &b.address(), "drain"), 200);
    let told = backend(&gateway, &b.address());
    assert_eq!((&told["state"], &told["in_flight"]), (&json!("draining"), &json!(1)), "{told:#}");
    assert!(answers(&gateway, 8).iter().all(|from| from == "a"));
    gateway.reload(&document);
    assert_eq!(backend(&gateway, &b.address())["state"], "draining", "a reload does not end it");
    assert!(answers(&gateway, 8).iter().all(|from| from == "a"));
    b.request(Mood::Status(200));
    let mut answered = held.join().expect("both were answered");
    answered.sort();
    assert_eq!(answered, ["a", "b"]);
    assert_eq!(b.requests(), 1);
    assert_eq!(drain(&gateway, &b.address(), "undrain"), 200);
    assert_eq!(backend(&gateway, &b.address())["state"], "up");
    expect_both(&gateway, ["a", "b"]);
}

#[test]
fn only_what_is_there_can_be_drained() {
    let a = Patient::named("a");
    let gateway = start(&[&a], "upstreams: { api: [\"@a\"] }\nsites:\n  - proxy: api\n");
    let path = |rest: &str| format!("/upstreams/{rest}");
    let own = a.address();
    for (method, rest, status) in [
        ("POST", format!("api/backends/{own}/drain"), 200),
        ("POST", format!("api/backends/{}/undrain", own.replace(':', "%3A")), 200),
        ("POST", format!("api/backends/{own}/stop"), 404),
        ("POST", "api/backends/127.0.0.1:1/drain".to_owned(), 404),
        ("POST", format!("other/backends/{own}/drain"), 404),
        ("POST", "api/backends/%zz/drain".to_owned(), 404),
        ("POST", "api/backends".to_owned(), 404),
        ("GET", format!("api/backends/{own}/drain"), 405),
        ("HEAD", format!("api/backends/{own}/undrain"), 405),
    ] {
        let response = gateway.admin_request(&Request::new(method, &path(&rest)));
        assert_eq!(response.status, status, "{method} {rest}");
        if status == 405 {
            assert_eq!(response.header("allow"), Some("POST"), "{method} {rest}");
        }
    }
    let response = gateway.admin_request(&Request::new("POST", "/upstreams"));
    assert_eq!((response.status, response.header("allow")), (405, Some("GET, HEAD")));
}

#[test]
fn what_is_known_of_health_is_counted() {
    let (a, b) = (Patient::named("a"), Patient::named("b"));
    b.check(Mood::Status(500));
    let gateway = start(
        &[&a, &b],
        r#"
upstreams:
  api:
    servers: [{ address: "@a", weight: 3 }, "@b"]
    health: { active: { http: /healthz, every: 50ms, timeout: 5s } }
sites:
  - proxy: api
"#,
    );
    expect_state(&gateway, &b.address(), "down");
    let of = |patient: &Patient, label: (&'static str, &'static str)| {
        let address = patient.address();
        move |gateway: &Gateway, name: &str, value: f64| {
            gateway.expect_metric(name, &[("upstream", "api"), ("backend", &*address), label], value);
        }
    };
    let any = ("upstream", "api");
    of(&a, any)(&gateway, names::BACKEND_UP, 1.0);
    of(&b, any)(&gateway, names::BACKEND_UP, 0.0);
    of(&a, ("state", "up"))(&gateway, names::BACKEND_STATE, 1.0);
    of(&b, ("state", "up"))(&gateway, names::BACKEND_STATE, 0.0);
    of(&b, ("state", "down"))(&gateway, names::BACKEND_STATE, 1.0);
    of(&b, any)(&gateway, names::EJECTIONS, 0.0);
    let metrics = gateway.metrics();
    let checks = |patient: &Patient, result| {
        metrics.sum(names::HEALTH_CHECKS, &[("backend", &*patient.address()), ("result", result)])
    };
    assert!(checks(&a, "passed") >= Some(1.0) && checks(&a, "failed") == Some(0.0));
    assert!(checks(&b, "failed") >= Some(3.0) && checks(&b, "passed") == Some(0.0));
    let told = upstream(&gateway, "api");
    assert_eq!(told["policy"], "round_robin", "{told:#}");
    let told = backend(&gateway, &a.address());
    for (key, value) in [("weight", json!(3)), ("tier", json!(0)), ("zone", Value::Null), ("in_flight", json!(0))] {
        assert_eq!(told[key], value, "{key}: {told:#}");
    }
}
