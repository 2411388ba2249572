//! Where two things meet: a response on its way and what becomes of it, of its URL, or of those who wait for it.

use super::{Stage, ask, begin, date, is_hit, open_connections, told};
use crate::harness::{Answer, Connection, Request, eventually, get, names};

const MINUTE: &str = "max-age=60";

#[test]
fn what_was_not_stored_once_is_when_it_can_be() {
    let stage = Stage::new("true");
    stage.answers("/", [Answer::cached("no-store", "1"), Answer::cached(MINUTE, "2"), Answer::cached(MINUTE, "3")]);
    let bodies: Vec<_> = (0..4).map(|_| stage.get("/").text()).collect();
    assert_eq!(bodies, ["1", "2", "2", "2"]);
}

#[test]
fn what_turns_out_too_large_is_sent_to_its_end() {
    let stage = Stage::new("{ max_object: 1KiB }");
    let body: Vec<u8> = (0..3 << 20).map(|at: u32| at as u8).collect();
    stage.answers("/", [Answer::cached(MINUTE, body.clone()).chunked()]);
    for _ in 0..2 {
        assert!(stage.get("/").body == body);
        assert!(stage.h2(&get("/")).body == body);
    }
}

#[test]
fn what_a_change_overtakes_is_not_stored_though_nobody_could_join_it() {
    for fields in [&[("Authorization", "x")][..], &[]] {
        let stage = Stage::new(if fields.is_empty() { "{ collapse: 0s }" } else { "true" });
        stage.script("/", |seen, number| match (&*seen.method, number) {
            ("POST", _) => Answer::ok("done"),
            (_, 1) => Answer::cached("public, max-age=60", "old.......").half_held(),
            _ => Answer::cached("public, max-age=60", "new"),
        });
        let mut old = stage.gateway.connect();
        old.send(ask("/", fields).bytes());
        let mut old = old.into_wire();
        assert!(old.head().unwrap().unwrap().line.contains(" 200 "));
        assert_eq!(old.exactly(5).unwrap(), b"old..");
        assert_eq!(stage.request(&Request::new("POST", "/")).text(), "done");
        stage.origin.release();
        old.exactly(5).unwrap();
        assert_eq!(stage.get("/").text(), "new", "{fields:?}");
    }
}

#[test]
fn what_is_not_stored_is_asked_for_with_the_conditions_of_its_client() {
    let stage = Stage::new("true");
    stage.script("/", |seen, _| match seen.headers.get("if-none-match") {
        Some(_) => Answer::new(304, "").field("ETag", "\"a\""),
        None => Answer::cached("private", "body").field("ETag", "\"a\""),
    });
    assert_eq!(stage.get("/").status, 200);
    assert_eq!(stage.request(&ask("/", &[("If-None-Match", "\"a\"")])).status, 304);
    assert!(stage.origin.last().headers.get("if-none-match").is_some());
}
