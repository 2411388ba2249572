//! By what a response is found again, and what can make nobody get another's (cache poisoning).

use super::{Stage, ask, is_hit};
use crate::harness::get;

const MINUTE: &[(&str, &str)] = &[("Cache-Control", "max-age=60")];

#[test]
fn host_path_and_query_tell_responses_apart() {
    let stage = Stage::new("true");
    stage.numbered("/a", MINUTE);
    stage.numbered("/A", MINUTE);
    assert!(!is_hit(&stage.get("/a?x=1")));
    for (request, hit) in [
        (get("/a?x=1"), true),
        (get("/a?x=2"), false),
        (get("/a"), false),
        (get("/A"), false),
        (get("/a?x=1").host("other.test"), false),
        (get("/a?x=1").host("EDGEWAY.test"), true),
        (get("/b/../a?x=1"), true),
    ] {
        let response = stage.request(&request);
        assert_eq!(is_hit(&response), hit, "{request:?}");
    }
    assert!(is_hit(&stage.h2(&get("/a?x=1"))));
}

#[test]
fn the_query_counts_as_far_as_it_is_told_to() {
    for (key, first, second, hit) in [
        ("{ query: none }", "/?a=1", "/?a=2", true),
        ("{ query: [v] }", "/?v=1&x=1", "/?x=2&v=1", true),
        ("{ query: [v] }", "/?v=1", "/?v=2", false),
        ("{ query: { ignore: [utm_*, fbclid] } }", "/?a=1&utm_source=x", "/?a=1&fbclid=9", true),
        ("{ query: { ignore: [utm_*] } }", "/?a=1", "/?a=2", false),
        ("{ sort_query: true }", "/?a=1&b=2", "/?b=2&a=1", true),
        ("{ query: all }", "/?a=1&b=2", "/?b=2&a=1", false),
        ("{ host: false }", "/", "/", true),
    ] {
        let stage = Stage::new(&format!("{{ key: {key} }}"));
        stage.numbered("/", MINUTE);
        stage.get(first);
        assert_eq!(is_hit(&stage.get(second)), hit, "{key}: {first} {second}");
    }
}

#[test]
fn fields_and_cookies_count_when_told_to_and_cannot_be_forged() {
    let stage = Stage::new("{ key: { headers: [X-A, X-B], cookies: [currency] } }");
    stage.numbered("/", MINUTE);
    let kinds: &[&[(&str, &str)]] = &[
        &[],
        &[("X-A", "1")],
        &[("X-B", "1")],
        &[("X-A", "1"), ("X-B", "1")],
        &[("X-A", "1X-B1")],
        &[("X-A", "1, X-B: 1")],
        &[("X-A", "")],
        &[("Cookie", "currency=eur")],
        &[("Cookie", "currency=usd")],
        &[("X-A", "currency=eur")],
    ];
    for (number, fields) in kinds.iter().enumerate() {
        assert_eq!(stage.request(&ask("/", fields)).text(), (number + 1).to_string(), "{fields:?}");
    }
    for (number, fields) in kinds.iter().enumerate() {
        assert_eq!(stage.request(&ask("/", fields)).text(), (number + 1).to_string(), "{fields:?} again");
    }
    assert_eq!(stage.request(&ask("/", &[("Cookie", "other=1; currency=eur")])).text(), "8");
}

#[test]
fn a_path_cannot_pretend_to_be_a_host_or_a_query() {
    let stage = Stage::new("true");
    for path in ["/a", "/a%3Fx", "/a%2Fb", "/a/b", "/edgeway.test/a", "/a%00b", "/a%23b"] {
        stage.numbered(path, MINUTE);
    }
    let mut bodies = Vec::new();
    for target in ["/a", "/a?x", "/a%3Fx", "/a%2Fb", "/a/b", "/edgeway.test/a"] {
        let response = stage.get(target);
        assert!(!is_hit(&response), "{target}: {}", super::told(&response));
        bodies.push(response.status);
    }
    assert!(bodies.iter().all(|status| *status < 500), "{bodies:?}");
}

#[test]
fn what_is_no_part_of_the_key_does_not_reach_the_origin() {
    let stage = Stage::new("true");
    stage.numbered("/", MINUTE);
    let evil = [
        "X-Forwarded-Host",
        "X-Host",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-Forwarded-Server",
        "X-HTTP-Method-Override",
        "X-Forwarded-Scheme",
        "X-Original-Host",
    ];
    let request = evil.iter().fold(get("/"), |request, name| request.header(name, "evil.test"));
    stage.request(&request);
    let seen = stage.origin.last();
    for name in evil {
        assert_ne!(seen.headers.get(name), Some("evil.test"), "{name}");
    }
    let keyed = Stage::new("{ key: { headers: [X-Host] } }");
    keyed.numbered("/", MINUTE);
    keyed.request(&get("/").header("X-Host", "evil.test"));
    assert_eq!(keyed.origin.last().headers.get("x-host"), Some("evil.test"), "a part of the key may pass");
    keyed.request(&get("/"));
    assert_eq!(keyed.asked("/"), 2);
}

#[test]
fn conditions_and_ranges_of_one_client_do_not_shape_what_others_get() {
    let stage = Stage::new("true");
    stage.numbered("/", &[("Cache-Control", "max-age=60"), ("ETag", "\"a\"")]);
    stage.request(&ask("/", &[("If-Match", "\"b\""), ("If-Unmodified-Since", "Thu, 01 Jan 1970 00:00:00 GMT")]));
    let seen = stage.origin.last();
    assert_eq!((seen.headers.get("if-none-match"), seen.headers.get("if-range")), (None, None));
    let response = stage.get("/");
    assert_eq!(response.status, 200, "{}", super::told(&response));
}

#[test]
fn routes_that_share_a_zone_and_a_url_do_not_mix() {
    let stage = Stage::with(
        r#"
caches: { shared: 16MiB }
sites:
  - routes:
      - { match: { path: "/*", header: { X-Beta: "1" } }, cache: shared, rewrite: { path: /beta }, proxy: "@origin" }
      - { match: "/*", cache: shared, proxy: "@origin" }
"#,
    );
    stage.script("/beta", |_, _| crate::harness::Answer::cached("max-age=60", "beta"));
    stage.script("/", |_, _| crate::harness::Answer::cached("max-age=60", "plain"));
    for _ in 0..2 {
        assert_eq!(stage.request(&ask("/", &[("X-Beta", "1")])).text(), "beta");
        assert_eq!(stage.get("/").text(), "plain");
    }
}
