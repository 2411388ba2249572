//! What is stale: confirmed by a 304, replaced, served for a while nevertheless, made obsolete by a change.

use super::{STALE, Stage, ask, date, is_hit, told};
use crate::harness::{Answer, Request, eventually, get};

#[test]
fn a_304_makes_what_is_stored_fresh_and_brings_its_fields_up_to_date() {
    let stage = Stage::new("true");
    let changed = date(-5_000);
    let first = Answer::ok("body").fields(STALE).fields(&[("X-A", "1"), ("X-Kept", "1"), ("Last-Modified", &changed)]);
    let fresh = Answer::new(304, "")
        .fields(&[("Cache-Control", "max-age=60"), ("ETag", "\"a\""), ("X-A", "2"), ("X-New", "2")])
        .fields(&[("Content-Encoding", "gzip"), ("Connection", "X-Hop"), ("X-Hop", "1")]);
    stage.answers("/", [first, fresh]);
    stage.get("/");
    let confirmed = stage.get("/");
    assert_eq!((confirmed.status, confirmed.text()), (200, "body".to_owned()));
    let status = told(&confirmed);
    assert!(status.contains("fwd=stale") && status.contains("fwd-status=304"), "{status}");
    let seen = stage.seen("/");
    assert_eq!(seen[1].headers.get("if-none-match"), Some("\"a\""));
    assert_eq!(seen[1].headers.get("if-modified-since"), Some(&*changed));
    for response in [confirmed, stage.get("/"), stage.h2(&get("/"))] {
        assert_eq!(response.text(), "body");
        assert_eq!(response.headers.all("x-a"), ["2"]);
        assert_eq!((response.header("x-new"), response.header("x-kept")), (Some("2"), Some("1")));
        assert_eq!((response.header("content-encoding"), response.header("x-hop")), (None, None));
        assert_eq!(response.header("content-length").unwrap_or("4"), "4");
        let age: u64 = response.header("age").unwrap_or("0").parse().unwrap();
        assert!(age < 20, "the age is that of the 304: {age}");
    }
    assert_eq!(stage.asked("/"), 2);
}

#[test]
fn a_client_that_has_the_stored_response_gets_a_304_after_its_confirmation() {
    let stage = Stage::new("true");
    stage.answers("/", [Answer::ok("body").fields(STALE), Answer::new(304, "").field("ETag", "\"a\"")]);
    stage.get("/");
    let response = stage.request(&ask("/", &[("If-None-Match", "\"a\"")]));
    assert_eq!((response.status, response.body.len()), (304, 0));
    let other = stage.request(&ask("/", &[("If-None-Match", "\"b\"")]));
    assert_eq!((other.status, other.text()), (200, "body".to_owned()));
}

#[test]
fn what_has_changed_replaces_what_was_stored() {
    let stage = Stage::new("true");
    stage.answers("/", [Answer::ok("old").fields(STALE), Answer::cached("max-age=60", "new").field("ETag", "\"b\"")]);
    let bodies: Vec<_> = (0..3).map(|_| stage.get("/").text()).collect();
    assert_eq!(bodies, ["old", "new", "new"]);
    assert_eq!(stage.asked("/"), 2);
}

#[test]
fn what_may_no_longer_be_stored_takes_the_old_with_it() {
    let stage = Stage::new("{ stale_if_error: 1h }");
    stage.answers(
        "/",
        [Answer::ok("old").fields(STALE), Answer::cached("no-store", "mine"), Answer::new(503, "broken")],
    );
    let bodies: Vec<_> = (0..3).map(|_| stage.get("/").text()).collect();
    assert_eq!(bodies, ["old", "mine", "broken"]);
}

#[test]
fn a_304_that_names_other_fields_in_its_vary_is_honoured() {
    let stage = Stage::new("true");
    stage.script("/", |seen, number| {
        let body = format!("de {}", seen.headers.get("accept-encoding").unwrap_or_default());
        let both = [("Cache-Control", "max-age=60"), ("ETag", "\"a\""), ("Vary", "Accept-Language, Accept-Encoding")];
        match number {
            1 => Answer::ok(body).fields(STALE).field("Vary", "Accept-Language"),
            _ if seen.headers.get("if-none-match").is_some() => Answer::new(304, "").fields(&both),
            _ => Answer::ok(body).fields(&both),
        }
    });
    let gzip = ask("/", &[("Accept-Language", "de"), ("Accept-Encoding", "gzip")]);
    let brotli = ask("/", &[("Accept-Language", "de"), ("Accept-Encoding", "br")]);
    let bodies = [&gzip, &gzip, &brotli].map(|request| stage.request(request).text());
    assert_eq!(bodies, ["de gzip", "de gzip", "de br"]);
}

#[test]
fn a_change_makes_what_is_stored_of_the_url_obsolete() {
    let stage = Stage::new("true");
    for method in ["POST", "PUT", "DELETE", "PATCH", "FROBNICATE"] {
        for (status, gone) in [(200, true), (204, true), (303, true), (404, false), (500, false)] {
            let path = format!("/{method}/{status}");
            stage.script(&path, move |seen, number| match &*seen.method {
                "GET" => Answer::cached("max-age=60", number.to_string()),
                _ => Answer::new(status, "").field("Cache-Control", "no-store"),
            });
            stage.get(&path);
            stage.request(&Request::new(method, &path).body("x"));
            assert_eq!(is_hit(&stage.get(&path)), !gone, "{method} {status}");
        }
    }
    let path = "/http2";
    stage.numbered(path, &[("Cache-Control", "max-age=60")]);
    stage.get(path);
    stage.h2(&Request::new("POST", path).body("x"));
    assert!(!is_hit(&stage.get(path)));
}

#[test]
fn a_change_makes_what_it_points_to_obsolete_at_the_same_origin_only() {
    let stage = Stage::new("true");
    for (number, (field, target, gone)) in [
        ("Location", "/at/X", true),
        ("Content-Location", "/at/X", true),
        ("Location", "http://edgeway.test/at/X", true),
        ("Location", "../at/X", true),
        ("Location", "http://other.test/at/X", false),
        ("Content-Location", "//other.test/at/X", false),
        ("Location", "https://edgeway.test/at/X", false),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/at/{number}");
        let target = target.replace("/at/X", &path);
        stage.numbered(&path, &[("Cache-Control", "max-age=60")]);
        stage.answers("/change/it", [Answer::new(201, "").field(field, &target)]);
        stage.get(&path);
        stage.request(&Request::new("POST", "/change/it").body("x"));
        assert_eq!(is_hit(&stage.get(&path)), !gone, "{field}: {target}");
    }
}

#[test]
fn a_safe_method_changes_nothing() {
    let stage = Stage::new("true");
    stage.numbered("/", &[("Cache-Control", "max-age=60")]);
    stage.get("/");
    stage.request(&Request::new("OPTIONS", "/"));
    assert!(is_hit(&stage.get("/")));
}

#[test]
fn stale_is_served_at_once_and_refreshed_behind() {
    for (settings, control) in
        [("true", "max-age=90, stale-while-revalidate=60"), ("{ stale_while_revalidate: 60s }", "max-age=90")]
    {
        let stage = Stage::new(settings);
        let first = Answer::cached(control, "old").field("Age", "100");
        stage.answers("/", [first, Answer::cached("max-age=60", "new").held()]);
        stage.get("/");
        for _ in 0..3 {
            let response = stage.get("/");
            assert_eq!(response.text(), "old", "{settings}");
            assert!(told(&response).contains("hit; ttl=-1"), "{}", told(&response));
        }
        eventually("it is refreshed", || stage.asked("/") == 2);
        assert_eq!(stage.h2(&get("/")).text(), "old");
        stage.origin.release();
        eventually("the new one is there", || stage.get("/").text() == "new");
        assert_eq!(stage.asked("/"), 2, "one refresh for all");
    }
}

#[test]
fn behind_the_window_nobody_gets_what_is_stale() {
    let stage = Stage::new("true");
    for (path, control) in [
        ("/late", "max-age=90, stale-while-revalidate=5"),
        ("/must", "max-age=90, stale-while-revalidate=60, must-revalidate"),
    ] {
        stage.numbered(path, &[("Cache-Control", control), ("Age", "100"), ("ETag", "\"a\"")]);
        let bodies = [stage.get(path).text(), stage.get(path).text()];
        assert_eq!(bodies, ["1", "2"], "{control}");
    }
    // What an operator allows does not count for what has an `s-maxage` (RFC 9111 5.2.2.10), what it says itself does.
    let stage = Stage::new("{ stale_while_revalidate: 1h }");
    stage.numbered("/shared", &[("Cache-Control", "s-maxage=90"), ("Age", "100"), ("ETag", "\"a\"")]);
    assert_eq!([stage.get("/shared").text(), stage.get("/shared").text()], ["1", "2"]);
}

#[test]
fn an_error_is_lived_through_as_far_as_response_and_operator_let() {
    for (settings, control, failure, wanted) in [
        ("true", "max-age=90, stale-if-error=60", 503, "old"),
        ("true", "max-age=90, stale-if-error=60", 500, "old"),
        ("true", "max-age=90, stale-if-error=60", 502, "old"),
        ("true", "max-age=90, stale-if-error=60", 504, "old"),
        ("true", "max-age=90, stale-if-error=60", 404, "failed"),
        ("true", "max-age=90, stale-if-error=5", 503, "failed"),
        ("true", "max-age=90", 503, "failed"),
        ("{ stale_if_error: 60s }", "max-age=90", 503, "old"),
        ("{ stale_if_error: 60s }", "max-age=90, must-revalidate", 503, "failed"),
        ("{ stale_if_error: 60s }", "max-age=90, proxy-revalidate", 503, "failed"),
        ("{ stale_if_error: 60s }", "no-cache", 503, "failed"),
    ] {
        let stage = Stage::new(settings);
        let first = Answer::cached(control, "old").fields(&[("Age", "100"), ("ETag", "\"a\"")]);
        stage.answers("/", [first, Answer::new(failure, "failed")]);
        stage.get("/");
        let response = stage.get("/");
        assert_eq!(response.text(), wanted, "{settings} {control} {failure}: {}", told(&response));
        if wanted == "old" {
            assert_eq!(response.status, 200);
            assert!(response.header("age").is_some_and(|age| age.parse::<u64>().unwrap() >= 100));
        }
    }
}

#[test]
fn an_origin_that_is_gone_is_lived_through_unless_the_response_forbids_it() {
    let stage = Stage::new("true");
    for (number, (control, status)) in [
        ("max-age=90", 200),
        ("max-age=90, must-revalidate", 0),
        ("max-age=90, proxy-revalidate", 0),
        ("s-maxage=90", 0),
        ("no-cache", 0),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/{number}");
        let first = Answer::cached(control, "old").fields(&[("Age", "100"), ("ETag", "\"a\"")]);
        stage.answers(&path, [first, Answer::gone()]);
        stage.get(&path);
        for response in [stage.get(&path), stage.h2(&get(&path))] {
            match status {
                200 => assert_eq!((response.status, response.text()), (200, "old".to_owned()), "{control}"),
                _ => assert!(matches!(response.status, 502..=504), "{control}: {}", response.status),
            }
        }
    }
    let never = Stage::new("{ stale_if_disconnected: 0s }");
    never.answers("/", [Answer::ok("old").fields(STALE), Answer::gone()]);
    never.get("/");
    assert!(matches!(never.get("/").status, 502..=504));
}

#[test]
fn an_origin_that_cannot_be_connected_to_is_lived_through() {
    let origin = crate::harness::Origin::scripted("o", |_, _| Answer::ok("old").fields(STALE));
    let yaml = "sites: [{ cache: true, proxy: \"@o\" }]\n";
    let gateway = crate::harness::Gateway::before(&[&origin], yaml);
    gateway.get("/");
    drop(origin);
    eventually("nobody listens there", || {
        let response = gateway.get("/");
        assert_eq!((response.status, response.text()), (200, "old".to_owned()));
        told(&response).contains("hit")
    });
    assert!(matches!(gateway.get("/other").status, 502..=504));
}

#[test]
fn only_one_of_many_asks_whether_what_is_stale_still_holds() {
    let stage = Stage::new("true");
    stage.answers("/", [Answer::ok("old").fields(STALE), Answer::cached("max-age=60", "new").held()]);
    stage.get("/");
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| assert_eq!(stage.get("/").text(), "new"));
        }
        let connections = || stage.gateway.metrics().sum(crate::harness::names::OPEN_CONNECTIONS, &[]);
        eventually("all are there", || stage.asked("/") == 2 && connections() >= Some(10.0));
        std::thread::yield_now();
        stage.origin.release();
    });
    assert_eq!(stage.asked("/"), 2);
}

#[test]
fn refreshing_that_fails_leaves_what_is_stale() {
    let stage = Stage::new("true");
    let first = Answer::cached("max-age=90, stale-while-revalidate=600", "old").field("Age", "100");
    stage.answers("/", [first, Answer::gone(), Answer::gone(), Answer::gone(), Answer::gone(), Answer::new(500, "no")]);
    stage.get("/");
    for asked in 2..5 {
        assert_eq!(stage.get("/").text(), "old");
        eventually("it is tried", || stage.asked("/") >= asked);
    }
}
