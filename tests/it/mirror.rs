//! Mirroring: copies of requests go to another upstream, and nothing of that shows to the client.

use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Gateway, H2, Origin, Pace, Request, WebSocket, Worker, eventually, get, names};

const ROUTE: (&str, &str) = ("route", "all");

fn yaml(mirror: &str) -> String {
    format!(
        r#"
upstreams: {{ api: ["@api"], canary: ["@canary"] }}
sites:
  - routes:
      - {{ name: all, match: "/*", proxy: api, mirror: {mirror} }}
"#
    )
}

fn start(api: &Worker, canary: &Worker, mirror: &str) -> Gateway {
    Gateway::start(&Worker::fill(&yaml(mirror), &[api, canary]))
}

fn free() -> (Worker, Worker) {
    (Worker::new("api", Pace::Free), Worker::new("canary", Pace::Free))
}

fn results(gateway: &Gateway, result: &str, count: usize) {
    gateway.expect_metric(names::MIRRORED, &[ROUTE, ("result", result)], count as f64);
}

#[test]
fn a_copy_is_the_request_that_the_backend_gets() {
    let (api, canary) = free();
    let gateway = start(&api, &canary, "canary");
    let requests = [
        get("/a/../b?x=1").header("X-A", "1"),
        Request::new("POST", "/post").body("a body"),
        Request::new("POST", "/empty").body(""),
        Request::new("PUT", "/expecting").header("Expect", "100-continue").body("x".repeat(60_000)),
        Request::new("HEAD", "/head"),
    ];
    let mut connection = gateway.connect();
    for request in &requests {
        assert_eq!(connection.request(request).header("x-origin"), Some("api"));
        eventually("the copy arrives", || canary.seen().len() == api.seen().len());
    }
    for (original, copy) in api.seen().into_iter().zip(canary.seen()) {
        assert_eq!((&copy.method, &copy.path, &copy.body), (&original.method, &original.path, &original.body));
        for name in ["host", "x-a", "x-forwarded-for", "x-request-id", "content-length"] {
            assert_eq!(copy.headers.get(name), original.headers.get(name), "{name} of {}", copy.path);
        }
        assert_eq!(copy.headers.get("expect"), None);
    }
    results(&gateway, "answered", requests.len());
    let backend = [("upstream", "canary"), ("backend", canary.address()), ("class", "2xx")];
    gateway.expect_metric(names::UPSTREAM_REQUESTS, &backend, requests.len() as f64);
}

#[test]
fn a_body_in_chunks_is_copied_whole() {
    let (api, canary) = free();
    let gateway = start(&api, &canary, "canary");
    let mut connection = gateway.connect();
    connection.send("POST /chunks HTTP/1.1\r\nHost: edgeway.test\r\nTransfer-Encoding: chunked\r\n\r\n");
    for piece in ["5\r\nfirst\r\n", "7\r\n second\r\n", "0\r\n\r\n"] {
        connection.send(piece);
    }
    assert_eq!(connection.read_response("POST").status, 200);
    eventually("the copy arrives", || canary.seen().len() == 1);
    assert_eq!(canary.seen()[0].body, b"first second");
    assert_eq!(api.seen()[0].body, b"first second");
}

#[test]
fn requests_by_http2_are_copied() {
    let (api, canary) = free();
    let gateway = start(&api, &canary, "canary");
    let mut client = H2::open(&gateway.address());
    let requests = [get("/get"), Request::new("POST", "/post").body("x".repeat(20_000))];
    for response in client.requests(&requests) {
        assert_eq!(response.status, 200);
    }
    eventually("the copies arrive", || canary.seen().len() == 2);
    let mut lengths: Vec<_> = canary.seen().iter().map(|seen| (seen.path.clone(), seen.body.len())).collect();
    lengths.sort();
    assert_eq!(lengths, [("/get".to_owned(), 0), ("/post".to_owned(), 20_000)]);
}

#[test]
fn what_is_too_large_goes_to_its_own_upstream_alone_and_whole() {
    let (api, canary) = free();
    let gateway = start(&api, &canary, "{ to: canary, body: 1KiB }");
    let mut connection = gateway.connect();
    let told = Request::new("POST", "/told").body("x".repeat(200_000));
    assert_eq!(connection.request(&told).status, 200);
    connection.send("POST /untold HTTP/1.1\r\nHost: edgeway.test\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..4 {
        connection.send(format!("1f4\r\n{}\r\n", "x".repeat(500)));
    }
    connection.send("0\r\n\r\n");
    assert_eq!(connection.read_response("POST").status, 200);
    assert_eq!(connection.request(&Request::new("POST", "/just").body("x".repeat(1024))).status, 200);
    let lengths: Vec<_> = api.seen().iter().map(|seen| seen.body.len()).collect();
    assert_eq!(lengths, [200_000, 2_000, 1024]);
    results(&gateway, "too_large", 2);
    results(&gateway, "answered", 1);
    assert_eq!(canary.paths(), ["/just"]);
}

#[test]
fn a_share_of_the_requests_is_copied() {
    let (api, canary) = free();
    let gateway = start(&api, &canary, "{ to: canary, share: 50%, max: 400 }");
    let mut connection = gateway.connect();
    for _ in 0..400 {
        assert_eq!(connection.request(&get("/")).status, 200);
    }
    eventually("the copies arrive", || {
        let told = gateway.metrics().sum(names::MIRRORED, &[ROUTE, ("result", "answered")]);
        told == Some(canary.seen().len() as f64) && canary.seen().len() > 130
    });
    assert!(canary.seen().len() < 270, "{}", canary.seen().len());
}

#[test]
fn a_mirror_that_is_down_hangs_breaks_off_or_fails_changes_nothing() {
    let api = Worker::new("api", Pace::Free);
    for mirror in [
        Origin::refusing("canary"),
        Origin::full("canary"),
        Origin::silent("canary"),
        Origin::resetting("canary"),
        Origin::closing("canary"),
        Origin::answering("canary", "no HTTP\r\n\r\n"),
        Origin::trickling("canary", Duration::from_millis(50)),
        Origin::trickling_head("canary", Duration::from_millis(50)),
    ] {
        let yaml = Worker::fill(&yaml("{ to: canary, timeout: 300ms }"), &[&api]);
        let gateway = Gateway::before(&[&mirror], &yaml);
        let mut connection = gateway.connect();
        let before = api.seen().len();
        let began = Instant::now();
        for number in 0..10 {
            let body = format!("body {number}");
            let response = connection.request(&Request::new("POST", "/").body(body.clone()));
            assert_eq!((response.status, response.text()), (200, "api".to_owned()));
            assert_eq!(api.seen()[before + number].body, body.into_bytes());
        }
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        results(&gateway, "failed", 10);
    }
}

#[test]
fn a_large_answer_of_a_mirror_is_cut_off() {
    let (api, mirror) = (Worker::new("api", Pace::Free), Origin::sending("canary", 50 << 20));
    let gateway = Gateway::before(&[&mirror], &Worker::fill(&yaml("canary"), &[&api]));
    for _ in 0..3 {
        assert_eq!(gateway.get("/").text(), "api");
    }
    results(&gateway, "answered", 3);
    assert_eq!(mirror.connections(), 3);
}

#[test]
fn no_more_copies_are_under_way_than_may_be() {
    let (api, canary) = (Worker::new("api", Pace::Free), Worker::new("canary", Pace::Held));
    let gateway = start(&api, &canary, "{ to: canary, max: 3, timeout: 60s }");
    for _ in 0..10 {
        assert_eq!(gateway.get("/").status, 200);
    }
    results(&gateway, "dropped", 7);
    eventually("three arrive", || canary.seen().len() == 3);
    canary.set_pace(Pace::Free);
    results(&gateway, "answered", 3);
    assert_eq!(gateway.get("/").status, 200);
    results(&gateway, "answered", 4);
    assert_eq!(canary.most_requests(), 3);
}

#[test]
fn a_client_that_leaves_midway_makes_no_copy() {
    let (api, canary) = free();
    let gateway = start(&api, &canary, "canary");
    let mut leaving = gateway.connect();
    leaving.send("POST /half HTTP/1.1\r\nHost: edgeway.test\r\nContent-Length: 100\r\n\r\nhalf of it");
    eventually("it is under way", || api.connections().1 == 1);
    drop(leaving);
    assert_eq!(gateway.get("/whole").status, 200);
    results(&gateway, "answered", 1);
    assert_eq!(canary.paths(), ["/whole"]);
}

#[test]
fn a_request_that_is_tried_again_is_copied_once() {
    let (api, canary, dying) =
        (Worker::new("api", Pace::Free), Worker::new("canary", Pace::Free), Worker::new("dying", Pace::Free));
    dying.set_status(0);
    let yaml = Worker::fill(
        &yaml("canary").replace("api: [\"@api\"]", "api: [\"@dying\", \"@api\"]"),
        &[&api, &canary, &dying],
    );
    let gateway = Gateway::start(&yaml);
    for number in 1..=6 {
        let response = gateway.request(&Request::new("PUT", &format!("/{number}")).body("once"));
        assert_eq!(response.header("x-origin"), Some("api"));
        eventually("the copy arrives", || canary.seen().len() == number);
    }
    assert!(!dying.seen().is_empty());
    assert!(canary.seen().iter().all(|seen| seen.body == b"once"));
    results(&gateway, "answered", 6);
}

#[test]
fn an_upgrade_is_not_copied() {
    let (origin, canary) = (Origin::websocket("api"), Worker::new("canary", Pace::Free));
    let gateway = Gateway::before(&[&origin], &Worker::fill(&yaml("canary"), &[&canary]));
    let mut socket = WebSocket::open(&gateway.address(), "/");
    socket.send("hello");
    assert_eq!(socket.receive().unwrap(), "hello");
    socket.close();
    assert_eq!(canary.seen().len(), 0);
}

#[test]
fn a_mirror_names_its_own_host_where_it_is_told_to() {
    let (api, canary) = free();
    let yaml = yaml("canary").replace("canary: [\"@canary\"]", "canary: { servers: [\"@canary\"], host: canary.test }");
    let gateway = Gateway::start(&Worker::fill(&yaml, &[&api, &canary]));
    assert_eq!(gateway.get("/").status, 200);
    eventually("the copy arrives", || canary.seen().len() == 1);
    assert_eq!(canary.seen()[0].headers.all("host"), ["canary.test"]);
    assert_eq!(api.seen()[0].headers.all("host"), ["edgeway.test"]);
}

#[test]
fn originals_are_as_fast_while_the_mirror_hangs() {
    let api = Worker::new("api", Pace::Free);
    let canary = Worker::new("canary", Pace::Held);
    let gateway = start(&api, &canary, "{ to: canary, max: 1000, timeout: 60s }");
    thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                let mut connection = gateway.connect();
                for _ in 0..20 {
                    let began = Instant::now();
                    assert_eq!(connection.request(&get("/")).status, 200);
                    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
                }
            });
        }
    });
    assert_eq!(api.seen().len(), 200);
    canary.set_pace(Pace::Free);
    results(&gateway, "answered", 200);
}
