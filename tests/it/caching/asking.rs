//! What requests ask of the cache: directives (RFC 9111 5.2.1) and conditions (RFC 9110 13).

use super::{STALE, Stage, ask, date, is_hit, told};
use crate::harness::get;

#[test]
fn requests_say_what_they_accept() {
    let stage = Stage::new("true");
    let fresh = [("Cache-Control", "max-age=100"), ("Age", "50")];
    for (number, (stored, wish, status, hit)) in [
        (&fresh[..], ("Cache-Control", "no-cache"), 200, false),
        (&fresh, ("Pragma", "no-cache"), 200, false),
        (&fresh, ("Cache-Control", "max-age=10"), 200, false),
        (&fresh, ("Cache-Control", "max-age=90"), 200, true),
        (&fresh, ("Cache-Control", "min-fresh=20"), 200, true),
        (&fresh, ("Cache-Control", "min-fresh=80"), 200, false),
        (&fresh, ("Cache-Control", "only-if-cached"), 200, true),
        (&fresh, ("Cache-Control", "only-if-cached, no-cache"), 504, false),
        (STALE, ("Cache-Control", "max-stale"), 200, true),
        (STALE, ("Cache-Control", "max-stale=60"), 200, true),
        (STALE, ("Cache-Control", "max-stale=5"), 200, false),
        (STALE, ("Cache-Control", "only-if-cached"), 504, false),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/wish/{number}");
        stage.numbered(&path, stored);
        stage.get(&path);
        let request = ask(&path, &[wish]);
        let response = stage.request(&request);
        assert_eq!((response.status, is_hit(&response)), (status, hit), "{stored:?} {wish:?}: {}", told(&response));
    }
    stage.numbered("/nothing", &fresh);
    assert_eq!(stage.request(&ask("/nothing", &[("Cache-Control", "only-if-cached")])).status, 504);
    assert_eq!(stage.h2(&ask("/nothing", &[("Cache-Control", "only-if-cached")])).status, 504);
    assert_eq!(stage.asked("/nothing"), 0);
    stage.numbered("/no-store", &fresh);
    stage.request(&ask("/no-store", &[("Cache-Control", "no-store")]));
    assert!(!is_hit(&stage.get("/no-store")));
    stage.numbered("/must", &[("Cache-Control", "max-age=1, must-revalidate"), ("Age", "9"), ("ETag", "\"a\"")]);
    stage.get("/must");
    assert!(!is_hit(&stage.request(&ask("/must", &[("Cache-Control", "max-stale")]))));
}

#[test]
fn operators_may_ignore_what_requests_ask_for() {
    let stage = Stage::new("{ ignore: { request: true } }");
    stage.numbered("/", &[("Cache-Control", "max-age=100")]);
    stage.request(&ask("/", &[("Cache-Control", "no-store")]));
    for wish in ["no-cache", "max-age=0", "no-store", "min-fresh=1000"] {
        assert!(is_hit(&stage.request(&ask("/", &[("Cache-Control", wish)]))), "{wish}");
    }
    assert!(is_hit(&stage.request(&ask("/", &[("Pragma", "no-cache")]))));
}

#[test]
fn conditions_are_answered_from_the_cache() {
    let stage = Stage::new("true");
    let (changed, before, after) = (date(-1_000), date(-2_000), date(-500));
    let fields = [
        ("Cache-Control", "max-age=100"),
        ("ETag", "\"a\""),
        ("Last-Modified", &*changed),
        ("Content-Type", "text/plain"),
        ("X-A", "1"),
    ];
    stage.numbered("/", &fields);
    stage.get("/");
    for (fields, status) in [
        (&[("If-None-Match", "\"a\"")][..], 304),
        (&[("If-None-Match", "W/\"a\"")], 304),
        (&[("If-None-Match", "\"b\", \"a\"")], 304),
        (&[("If-None-Match", "\"b\""), ("If-None-Match", "\"a\"")], 304),
        (&[("If-None-Match", "*")], 304),
        (&[("If-None-Match", "\"b\"")], 200),
        (&[("If-None-Match", "\"b\""), ("If-Modified-Since", &*after)], 200),
        (&[("If-Modified-Since", &*changed)], 304),
        (&[("If-Modified-Since", &*after)], 304),
        (&[("If-Modified-Since", &*before)], 200),
        (&[("If-Modified-Since", "yesterday")], 200),
    ] {
        for response in [stage.request(&ask("/", fields)), stage.h2(&ask("/", fields))] {
            assert_eq!(response.status, status, "{fields:?}: {}", told(&response));
            assert!(is_hit(&response), "{fields:?}: {}", told(&response));
            assert_eq!(response.body.is_empty(), status == 304, "{fields:?}");
            assert_eq!(response.header("etag"), Some("\"a\""), "{fields:?}");
            assert_eq!(response.header("content-type").is_some(), status == 200, "{fields:?}");
            assert!(response.header("age").is_some(), "{fields:?}");
        }
    }
    assert_eq!(stage.asked("/"), 1);
}

#[test]
fn a_conditional_request_that_misses_stores_the_whole() {
    let stage = Stage::new("true");
    let fields = [("Cache-Control", "max-age=100"), ("ETag", "\"a\"")];
    stage.script("/", move |seen, _| {
        let has_it = seen.headers.get("if-none-match") == Some("\"a\"");
        let (status, body) = if has_it { (304, "") } else { (200, "whole") };
        crate::harness::Answer::new(status, body).fields(&fields)
    });
    let response = stage.request(&ask("/", &[("If-None-Match", "\"a\"")]));
    assert_eq!((response.status, response.text()), (304, String::new()));
    assert_eq!(stage.request(&get("/")).text(), "whole");
}
