//! While a response is on its way from the origin: who follows it, who waits, and what becomes of it when somebody leaves.

use super::{Stage, is_hit, told};
use crate::harness::{Answer, Connection, H2, Response, Wire, eventually, get, names};

const MINUTE: &str = "max-age=60";

/// Begins a request and reads its head and so much of its body.
#[track_caller]
fn begin(stage: &Stage, path: &str, count: usize) -> (Wire, Vec<u8>) {
    let mut connection = stage.gateway.connect();
    connection.send(get(path).bytes());
    let mut wire = connection.into_wire();
    let head = wire.head().unwrap().expect("a head");
    assert!(head.line.contains(" 200 "), "{}", head.line);
    let body = wire.exactly(count).unwrap();
    (wire, body)
}

fn open_connections(stage: &Stage) -> Option<f64> {
    stage.gateway.metrics().sum(names::OPEN_CONNECTIONS, &[])
}

#[test]
fn many_at_once_are_one_request_to_the_origin() {
    let stage = Stage::new("true");
    stage.script("/", |_, number| Answer::cached(MINUTE, format!("body {number}")).held());
    let responses: Vec<Response> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..20).map(|_| scope.spawn(|| stage.get("/"))).collect();
        eventually("all are there", || open_connections(&stage) >= Some(20.0) && stage.asked("/") > 0);
        stage.origin.release();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert!(responses.iter().all(|response| response.text() == "body 1"));
    let words: Vec<_> = responses.iter().map(told).collect();
    let leaders = words.iter().filter(|word| word.contains("stored") && !word.contains("collapsed")).count();
    assert_eq!((stage.asked("/"), leaders), (1, 1), "{words:#?}");
    assert!(words.iter().any(|word| word.contains("fwd=uri-miss") && word.contains("collapsed")), "{words:#?}");
}

#[test]
fn streams_of_one_connection_are_one_request_too() {
    let stage = Stage::new("true");
    stage.script("/", |_, number| Answer::cached(MINUTE, number.to_string()).held());
    let responses = std::thread::scope(|scope| {
        scope.spawn(|| {
            eventually("it is asked", || stage.asked("/") > 0);
            stage.origin.release();
        });
        H2::open(&stage.gateway.address()).requests(&vec![get("/"); 20])
    });
    assert!(responses.iter().all(|response| response.text() == "1"));
    assert_eq!(stage.asked("/"), 1);
}

#[test]
fn waiting_for_another_is_bounded() {
    let stage = Stage::new("{ collapse: 50ms }");
    stage.script("/", |_, number| match number {
        1 => Answer::cached(MINUTE, "slow").held(),
        _ => Answer::cached(MINUTE, "quick"),
    });
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| stage.get("/").text());
        eventually("the first is asked", || stage.asked("/") == 1);
        assert_eq!(stage.get("/").text(), "quick");
        stage.origin.release();
        let text = slow.join().unwrap();
        assert!(text == "slow" || text == "quick", "{text}");
    });
    let alone = Stage::new("{ collapse: 0s }");
    alone.script("/", |_, number| Answer::cached(MINUTE, number.to_string()).held());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| assert_eq!(alone.get("/").status, 200));
        }
        eventually("each asks for itself", || alone.asked("/") == 3);
        alone.origin.release();
    });
}

#[test]
fn whoever_waited_for_what_is_not_stored_gets_its_own() {
    let stage = Stage::new("true");
    stage.script("/", |_, number| Answer::cached("no-store", format!("for {number}")).held());
    let mut bodies: Vec<String> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..5).map(|_| scope.spawn(|| stage.get("/").text())).collect();
        eventually("all are there", || open_connections(&stage) >= Some(5.0) && stage.asked("/") > 0);
        stage.origin.release();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    bodies.sort_unstable();
    bodies.dedup();
    assert_eq!(bodies.len(), 5, "{bodies:?}");
}

#[test]
fn readers_follow_a_response_on_its_way() {
    let stage = Stage::new("true");
    let body: String = ('a'..='z').cycle().take(200_000).collect();
    stage.answers("/", [Answer::cached(MINUTE, body.clone()).half_held()]);
    stage.answers("/chunked", [Answer::cached(MINUTE, "first second").half_held()]);
    let mut readers: Vec<_> = (0..3).map(|_| begin(&stage, "/", 100_000)).collect();
    assert_eq!(stage.asked("/"), 1);
    stage.origin.release();
    for (wire, first) in &mut readers {
        let rest = wire.exactly(100_000).unwrap();
        assert!([&first[..], &rest[..]].concat() == body.as_bytes());
    }
    assert!(is_hit(&stage.get("/")));
    assert_eq!(stage.asked("/"), 1);
}

#[test]
fn a_slow_client_does_not_slow_the_others() {
    let stage = Stage::new("true");
    let body: Vec<u8> = (0..7 << 20).map(|at: u32| at as u8).collect();
    stage.answers("/", [Answer::cached(MINUTE, body.clone())]);
    // It takes the head and no more, and with it whatever the system holds for it.
    let (slow, _) = begin(&stage, "/", 1);
    assert!(stage.get("/").body == body);
    assert!(stage.h2(&get("/")).body == body);
    assert_eq!(stage.asked("/"), 1);
    let mut slow = slow;
    assert!(slow.exactly(body.len() - 1).unwrap() == body[1..]);
}

#[test]
fn a_client_that_leaves_does_not_end_the_fill() {
    let stage = Stage::new("true");
    let body: String = ('a'..='z').cycle().take(200_000).collect();
    stage.answers("/", [Answer::cached(MINUTE, &*body).half_held()]);
    let (leaving, first) = begin(&stage, "/", 100_000);
    assert!(first == body.as_bytes()[..100_000]);
    drop(leaving);
    stage.origin.release();
    assert!(stage.get("/").text() == body);
    assert_eq!(stage.asked("/"), 1);
}

#[test]
fn what_breaks_off_is_seen_broken_and_not_stored() {
    let stage = Stage::new("true");
    let body = "x".repeat(10_000);
    let broken = [Answer::cached(MINUTE, &*body).broken(), Answer::cached(MINUTE, &*body).chunked().broken()];
    for (path, answer) in ["/told", "/chunked"].into_iter().zip(broken) {
        stage.answers(path, [answer.clone(), answer, Answer::cached(MINUTE, "whole")]);
        let response = stage.gateway.connect().try_request(&get(path));
        assert!(response.is_err(), "{path}: {response:?}");
        let response = H2::open(&stage.gateway.address()).try_requests(&[get(path)]);
        assert!(response.is_err(), "{path} by HTTP/2");
        assert_eq!(stage.get(path).text(), "whole", "{path}");
        assert!(is_hit(&stage.get(path)), "{path}");
    }
}

#[test]
fn interim_responses_are_forwarded_and_never_stored() {
    let stage = Stage::new("true");
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nCache-Control: max-age=600\r\n\r\n";
    stage.answers("/", [Answer::cached(MINUTE, "final").after(hints)]);
    let raw = |connection: &mut Connection| {
        connection.send(get("/").header("Connection", "close").bytes());
        String::from_utf8(connection.until_closed().expect("it closes")).unwrap()
    };
    let first = raw(&mut stage.gateway.connect());
    assert!(first.starts_with("HTTP/1.1 103 ") && first.contains("</a.css>"), "{first}");
    assert!(first.contains("HTTP/1.1 200 ") && first.ends_with("final"), "{first}");
    let second = raw(&mut stage.gateway.connect());
    assert!(second.starts_with("HTTP/1.1 200 ") && second.contains("edgeway; hit"), "{second}");
    assert!(!second.to_lowercase().contains("link:"), "{second}");
    assert_eq!(stage.h2(&get("/")).text(), "final");
    assert_eq!(stage.asked("/"), 1);
}

#[test]
fn a_body_that_ends_in_chunks_is_stored_whole() {
    let stage = Stage::new("true");
    let body = "x".repeat(300_000);
    stage.answers("/", [Answer::cached(MINUTE, &*body).chunked()]);
    stage.answers("/empty", [Answer::cached(MINUTE, "")]);
    for _ in 0..2 {
        assert!(stage.get("/").text() == body);
        assert!(stage.h2(&get("/")).text() == body);
        assert_eq!(stage.get("/empty").text(), "");
    }
    assert_eq!((stage.asked("/"), stage.asked("/empty")), (1, 1));
}
