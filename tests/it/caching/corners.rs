//! Where two things meet: a response on its way and what becomes of it, of its URL, or of those who wait for it.

use super::{Stage, ask, begin, date, is_hit, open_connections, told};
use crate::harness::{Answer, Connection, H2, Request, eventually, get, names};

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
fn who_wants_the_whole_does_not_follow_a_part() {
    let stage = Stage::new("true");
    stage.script("/", |seen, _| match seen.headers.get("range") {
        Some(_) => Answer::new(206, "0123456789")
            .fields(&[("Cache-Control", MINUTE), ("Content-Range", "bytes 0-9/100"), ("ETag", "\"a\"")])
            .half_held(),
        None => Answer::cached(MINUTE, "x".repeat(100)),
    });
    let mut part = stage.gateway.connect();
    part.send(ask("/", &[("Range", "bytes=0-9")]).bytes());
    let mut part = part.into_wire();
    assert!(part.head().unwrap().unwrap().line.contains(" 206 "));
    let whole = stage.get("/");
    assert_eq!((whole.status, whole.body.len()), (200, 100), "{}", told(&whole));
    stage.origin.release();
    assert_eq!(part.exactly(10).unwrap(), b"0123456789");
}

#[test]
fn a_field_that_does_not_reach_the_origin_chooses_no_variant() {
    let stage = Stage::new("true");
    stage.script("/", |seen, _| {
        let language = seen.headers.get("accept-language").unwrap_or("none").to_owned();
        Answer::cached(MINUTE, language).field("Vary", "Accept-Language")
    });
    stage.request(&ask("/", &[("Accept-Language", "fr"), ("Connection", "keep-alive, accept-language")]));
    assert_eq!(stage.request(&ask("/", &[("Accept-Language", "fr")])).text(), "fr");
    let keyed = Stage::new("{ key: { headers: [X-Tenant] } }");
    keyed.script("/", |seen, _| Answer::cached(MINUTE, seen.headers.get("x-tenant").unwrap_or("none")));
    keyed.request(&ask("/", &[("X-Tenant", "a"), ("Connection", "X-Tenant")]));
    assert_eq!(keyed.request(&ask("/", &[("X-Tenant", "a")])).text(), "a");
}

#[test]
fn nobody_joins_what_was_asked_for_before_a_purge() {
    for soft in ["0", "1"] {
        let stage = Stage::new("{ purge: { from: [127.0.0.1] } }");
        stage.script("/", |_, number| match number {
            1 => Answer::cached(MINUTE, "old.......").half_held(),
            _ => Answer::cached(MINUTE, "new"),
        });
        let (mut old, _) = begin(&stage, "/", 5);
        assert_eq!(stage.request(&Request::new("PURGE", "/").header("Soft", soft)).status, 200);
        assert_eq!(stage.get("/").text(), "new", "soft: {soft}");
        stage.origin.release();
        old.exactly(5).unwrap();
        assert_eq!(stage.get("/").text(), "new", "soft: {soft}");
    }
}

#[test]
fn a_response_without_a_date_gets_that_of_its_arrival() {
    let stage = Stage::new("true");
    stage.numbered("/", &[("Cache-Control", MINUTE)]);
    stage.get("/");
    let stored = stage.gateway.admin("/cache/default/http%3A%2F%2Fedgeway.test%2F").text();
    assert!(stored.contains("\"date\""), "{stored}");
    // One that is confirmed without a date is as old as the confirmation.
    let old = date(-100);
    stage.script("/304", move |seen, _| match seen.headers.get("if-none-match") {
        Some(_) => Answer::new(304, "").field("ETag", "\"a\""),
        None => Answer::cached(MINUTE, "stored").fields(&[("Date", &old), ("ETag", "\"a\"")]),
    });
    let words: Vec<_> = (0..3).map(|_| told(&stage.get("/304"))).collect();
    assert!(words[1].contains("fwd-status=304"), "{words:?}");
    assert!(words[2].contains("edgeway; hit"), "{words:?}");
}

#[test]
fn what_a_304_says_is_private_is_for_nobody_who_waited() {
    let stage = Stage::new("true");
    stage.script("/", |seen, number| match seen.headers.get("if-none-match") {
        Some(_) => Answer::new(304, "").fields(&[("Cache-Control", "private, max-age=60"), ("ETag", "\"a\"")]).held(),
        None if number == 1 => Answer::ok("stored").fields(super::STALE),
        None => Answer::cached("private", number.to_string()).field("ETag", "\"b\""),
    });
    stage.get("/");
    let texts: Vec<String> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..3).map(|_| scope.spawn(|| stage.get("/").text())).collect();
        eventually("all are there", || open_connections(&stage) >= Some(3.0) && stage.asked("/") > 1);
        stage.origin.release();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert_eq!(texts.iter().filter(|text| *text == "stored").count(), 1, "{texts:?}");
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
fn who_waits_gets_only_what_it_would_take_from_the_store() {
    let stage = Stage::new("true");
    stage.script("/", |_, number| match number {
        1 => Answer::cached("max-age=60", "aged......").field("Age", "30").half_held(),
        _ => Answer::cached("max-age=60", number.to_string()),
    });
    for field in ["max-age=10", "min-fresh=50", "no-cache"] {
        stage.script("/x", |_, number| match number {
            1 => Answer::cached("max-age=60", "aged......").field("Age", "30").half_held(),
            _ => Answer::cached("max-age=60", number.to_string()),
        });
        let path = format!("/x?{field}");
        let (mut first, _) = begin(&stage, &path, 5);
        assert_eq!(stage.request(&ask(&path, &[("Cache-Control", field)])).text(), "2", "{field}");
        stage.origin.release();
        first.exactly(5).unwrap();
    }
}

#[test]
fn who_speaks_http_1_0_sees_the_end_of_what_has_no_length() {
    let ask = |stage: &Stage| {
        let mut connection: Connection = stage.gateway.connect();
        connection.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
        String::from_utf8(connection.until_closed().expect("it closes")).unwrap()
    };
    for control in ["no-store", MINUTE] {
        let stage = Stage::new("true");
        stage.answers("/", [Answer::cached(control, "some body").chunked()]);
        let text = ask(&stage);
        assert!(text.ends_with("\r\n\r\nsome body"), "{control}: {text}");
    }
}

#[test]
fn conditions_are_judged_here_though_the_response_is_not_stored() {
    let stage = Stage::new("true");
    stage.numbered("/", &[("Cache-Control", "no-store"), ("ETag", "\"a\"")]);
    for (index, (field, value, status)) in
        [("If-Match", "\"b\"", 412), ("If-Match", "\"a\"", 200), ("If-None-Match", "\"a\"", 304)]
            .into_iter()
            .enumerate()
    {
        assert_eq!(stage.request(&ask(&format!("/?{index}"), &[(field, value)])).status, status, "{field}: {value}");
    }
}

#[test]
fn many_kinds_of_answers_fit_on_one_connection() {
    let stage = Stage::new("true");
    stage.answers("/", [Answer::cached(MINUTE, "0123456789").field("ETag", "\"a\"")]);
    stage.answers("/204", [Answer::new(204, "").field("Cache-Control", MINUTE)]);
    stage.answers("/404", [Answer::new(404, "gone").field("Cache-Control", MINUTE)]);
    stage.answers("/chunked", [Answer::cached(MINUTE, "in chunks").chunked()]);
    stage.answers("/empty", [Answer::cached(MINUTE, "").chunked()]);
    stage.answers("/private", [Answer::cached("private", "mine")]);
    stage.answers("/private/chunked", [Answer::cached("private", "mine").chunked()]);
    stage.answers(
        "/206",
        [Answer::new(206, "0123").fields(&[("Cache-Control", MINUTE), ("Content-Range", "bytes 0-3/9")])],
    );
    stage.answers("/304", [Answer::new(304, "").field("Cache-Control", MINUTE)]);
    stage.answers("/down", [Answer::gone()]);
    for _ in 0..2 {
        let mut connection = stage.gateway.connect();
        for _ in 0..2 {
            for (request, status, body) in [
                (get("/"), 200, "0123456789"),
                (ask("/", &[("If-None-Match", "\"a\"")]), 304, ""),
                (ask("/", &[("If-Match", "\"b\"")]), 412, ""),
                (ask("/", &[("Range", "bytes=2-3")]), 206, "23"),
                (ask("/", &[("Range", "bytes=20-")]), 416, ""),
                (Request::new("HEAD", "/"), 200, ""),
                (get("/204"), 204, ""),
                (Request::new("HEAD", "/204"), 204, ""),
                (get("/404"), 404, "gone"),
                (Request::new("HEAD", "/404"), 404, ""),
                (get("/chunked"), 200, "in chunks"),
                (Request::new("HEAD", "/chunked"), 200, ""),
                (get("/empty"), 200, ""),
                (get("/private"), 200, "mine"),
                (get("/private/chunked"), 200, "mine"),
                (Request::new("HEAD", "/private"), 200, ""),
                (ask("/206", &[("Range", "bytes=0-3")]), 206, "0123"),
                (get("/206"), 206, "0123"),
                (get("/304"), 304, ""),
                (ask("/miss", &[("Cache-Control", "only-if-cached")]), 504, "_"),
                (get("/down"), 502, "_"),
                (Request::new("HEAD", "/down"), 502, ""),
                (Request::new("PURGE", "/"), 405, "_"),
            ] {
                let response = connection.try_request(&request);
                let response = response.unwrap_or_else(|error| panic!("{request:?}: {error}"));
                assert_eq!(response.status, status, "{request:?}");
                assert!(body == "_" || response.text() == body, "{request:?}: {}", response.text());
            }
        }
    }
    assert!(is_hit(&stage.get("/")));
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

#[test]
fn all_spellings_of_a_host_ask_the_origin_for_one() {
    let stage = Stage::new("true");
    stage.script("/", |seen, _| Answer::cached(MINUTE, seen.headers.get("host").unwrap_or_default()));
    let bodies = ["EXAMPLE.test.", "example.test:80", "example.test", "example.test:080", "example.test:81"]
        .map(|host| stage.request(&get("/").host(host)).text());
    assert_eq!(bodies, ["example.test", "example.test", "example.test", "example.test", "example.test:81"]);
    assert_eq!(stage.asked("/"), 2);
}

#[test]
fn what_one_client_may_not_share_leaves_what_others_do() {
    let stage = Stage::new("true");
    for (path, confirms) in [("/new", false), ("/same", true)] {
        stage.script(path, move |seen, number| match seen.headers.get("if-none-match") {
            Some(_) if confirms => Answer::new(304, "").field("ETag", "\"a\""),
            _ => Answer::cached(MINUTE, number.to_string()).field("ETag", "\"a\""),
        });
        stage.get(path);
        for fields in [
            [("Cache-Control", "no-cache"), ("Authorization", "x")],
            [("Cache-Control", "no-cache, no-store"), ("X-A", "x")],
        ] {
            assert_eq!(stage.request(&ask(path, &fields)).status, 200);
            let response = stage.get(path);
            assert!(is_hit(&response) && response.text() == "1", "{path} {fields:?}: {}", told(&response));
        }
    }
}

#[test]
fn nobody_listens_to_a_quiet_origin_for_a_client_that_left() {
    let stage = Stage::new("true");
    stage.answers("/", [Answer::cached("no-store", "0123456789").half_held()]);
    let (leaving, _) = begin(&stage, "/", 5);
    let asking = || stage.gateway.metrics().sum(names::ACTIVE, &[]);
    assert_eq!(asking(), Some(1.0));
    drop(leaving);
    eventually("the origin is left too", || asking() == Some(0.0));
}

#[test]
fn a_process_that_drains_ends_the_connection_after_a_stored_response() {
    let stage = Stage::new("true");
    stage.answers("/", [Answer::cached(MINUTE, "body").held()]);
    let mut connection = stage.gateway.connect();
    connection.send(get("/").bytes());
    eventually("it is asked", || stage.asked("/") == 1);
    stage.gateway.signal("TERM");
    eventually("it drains", || Connection::try_open(&stage.gateway.address()).is_err());
    stage.origin.release();
    let response = connection.read_response("GET");
    assert_eq!((response.text().as_str(), response.header("connection")), ("body", Some("close")));
    connection.expect_close();
}

#[test]
fn tags_are_hidden_of_what_is_not_stored_too() {
    let stage = Stage::new("true");
    stage.answers("/", [Answer::cached("no-store", "").field("Cache-Tag", "a").field("Surrogate-Key", "b")]);
    for request in [get("/"), get("/"), Request::new("POST", "/"), Request::new("HEAD", "/?x")] {
        let response = stage.request(&request);
        assert_eq!((response.header("cache-tag"), response.header("surrogate-key")), (None, None), "{request:?}");
    }
}

#[test]
fn what_is_not_stored_and_breaks_off_is_seen_broken() {
    let stage = Stage::new("true");
    let body = "x".repeat(10_000);
    stage.answers("/told", [Answer::cached("no-store", &*body).broken()]);
    stage.answers("/chunked", [Answer::cached("no-store", &*body).chunked().broken()]);
    for path in ["/told", "/chunked"] {
        for _ in 0..2 {
            let response = stage.gateway.connect().try_request(&get(path));
            assert!(response.is_err(), "{path}: {response:?}");
            let response = H2::open(&stage.gateway.address()).try_requests(&[get(path)]);
            assert!(response.is_err(), "{path} by HTTP/2");
        }
    }
}

#[test]
fn the_body_of_a_purge_is_no_request() {
    let stage = Stage::new("{ purge: { from: [127.0.0.1] } }");
    stage.numbered("/evil", &[]);
    let inner = String::from_utf8(get("/evil").bytes()).unwrap();
    let mut connection = stage.gateway.connect();
    connection.send(Request::new("PURGE", "/").body(inner).bytes());
    assert_eq!(connection.read_response("PURGE").status, 200);
    let next = connection.try_request(&get("/next"));
    assert!(next.is_err() || next.unwrap().status == 404);
    assert_eq!(stage.asked("/evil"), 0);
}
