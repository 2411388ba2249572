//! Purging, by the method and by the admin listener, hard and soft.

use super::{Stage, is_hit, told};
use crate::harness::{Request, Response, get};

const PURGE: &str = "{ purge: { from: [127.0.0.1] } }";
const TAGGED: &[(&str, &str)] =
    &[("Cache-Control", "max-age=60"), ("Cache-Tag", "shop, red"), ("Surrogate-Key", "a b"), ("ETag", "\"a\"")];

#[track_caller]
fn purge(stage: &Stage, what: &str) -> Response {
    let response = stage.gateway.admin_request(&Request::new("POST", &format!("/cache/default/purge?{what}")));
    assert_eq!(response.status, 200, "{what}: {}", response.text());
    response
}

#[test]
fn the_method_purges_this_url_for_those_who_may() {
    let stage = Stage::new(PURGE);
    stage.numbered("/a", TAGGED);
    stage.numbered("/b", TAGGED);
    for path in ["/a", "/a?x", "/b"] {
        stage.get(path);
    }
    assert_eq!(stage.request(&Request::new("PURGE", "/a")).status, 200);
    let hits = ["/a?x", "/b", "/a"].map(|path| is_hit(&stage.get(path)));
    assert_eq!(hits, [true, true, false]);
    assert_eq!(stage.h2(&Request::new("PURGE", "/b")).status, 200);
    assert!(!is_hit(&stage.get("/b")));
    // The origin never hears of it.
    assert!(stage.origin.seen().iter().all(|seen| seen.method == "GET"));
}

#[test]
fn nobody_may_purge_by_default_and_others_never() {
    for settings in ["true", "{ purge: { from: [10.0.0.0/8] } }"] {
        let stage = Stage::new(settings);
        stage.numbered("/a", TAGGED);
        stage.get("/a");
        let status = stage.request(&Request::new("PURGE", "/a")).status;
        assert!(matches!(status, 403 | 405), "{settings}: {status}");
        assert!(is_hit(&stage.get("/a")), "{settings}");
    }
}

#[test]
fn the_method_purges_by_tag() {
    let stage = Stage::new(PURGE);
    stage.numbered("/a", TAGGED);
    stage.numbered("/b", &[("Cache-Control", "max-age=60"), ("Cache-Tag", "other")]);
    for field in ["Cache-Tag", "Surrogate-Key"] {
        stage.get("/a");
        stage.get("/b");
        let tag = if field == "Cache-Tag" { "red" } else { "b" };
        assert_eq!(stage.request(&Request::new("PURGE", "/").header(field, tag)).status, 200);
        let hits = ["/a", "/b"].map(|path| is_hit(&stage.get(path)));
        assert_eq!(hits, [false, true], "{field}");
    }
}

#[test]
fn a_soft_purge_makes_stale() {
    let stage = Stage::new("{ purge: { from: [127.0.0.1] }, stale_while_revalidate: 1h }");
    stage.numbered("/a", TAGGED);
    stage.get("/a");
    let request = Request::new("PURGE", "/a").header("X-Soft-Purge", "1");
    assert_eq!(stage.request(&request).status, 200);
    let stale = stage.get("/a");
    assert_eq!(stale.text(), "1", "{}", told(&stale));
    crate::harness::eventually("it is fetched anew", || stage.get("/a").text() == "2");
    purge(&stage, "all&soft");
    assert_eq!(stage.get("/a").text(), "2");
    crate::harness::eventually("it is fetched anew", || stage.get("/a").text() == "3");
}

#[test]
fn the_admin_listener_purges_by_url_prefix_host_tag_and_all() {
    let stage = Stage::new("true");
    let paths = ["/shop/a", "/shop/b", "/blog/a"];
    for path in paths {
        let tag = if path == "/shop/b" { "blue" } else { "red" };
        stage.numbered(path, &[("Cache-Control", "max-age=60"), ("Cache-Tag", tag)]);
    }
    for (what, left) in [
        ("url=http://edgeway.test/shop/a", [false, true, true]),
        ("url=http%3A%2F%2Fedgeway.test%2Fshop%2Fa", [false, true, true]),
        ("prefix=http://edgeway.test/shop/", [false, false, true]),
        ("prefix=http://edgeway.test/nothing/", [true, true, true]),
        ("host=edgeway.test", [false, false, false]),
        ("host=other.test", [true, true, true]),
        ("tag=red", [false, true, false]),
        ("tag=blue", [true, false, true]),
        ("all", [false, false, false]),
    ] {
        for path in paths {
            stage.get(path);
        }
        purge(&stage, what);
        assert_eq!(paths.map(|path| is_hit(&stage.get(path))), left, "{what}");
    }
    let bad = stage.gateway.admin_request(&Request::new("POST", "/cache/default/purge"));
    assert_eq!(bad.status, 400);
    assert_eq!(stage.gateway.admin_request(&Request::new("POST", "/cache/nothing/purge?all")).status, 404);
}

#[test]
fn all_variants_and_parts_go_with_their_url() {
    let stage = Stage::new("true");
    stage.numbered("/", &[("Cache-Control", "max-age=60"), ("Vary", "X-A")]);
    let kinds = ["1", "2"].map(|kind| get("/").header("X-A", kind));
    for kind in &kinds {
        stage.request(kind);
    }
    purge(&stage, "url=http://edgeway.test/");
    assert_eq!(kinds.each_ref().map(|kind| is_hit(&stage.request(kind))), [false, false]);
}

#[test]
fn what_was_on_its_way_when_it_was_purged_is_not_used_later() {
    let stage = Stage::new("true");
    stage.script("/", |_, number| {
        let answer = crate::harness::Answer::cached("max-age=60", number.to_string());
        if number == 1 { answer.held() } else { answer }
    });
    std::thread::scope(|scope| {
        let first = scope.spawn(|| stage.get("/").text());
        crate::harness::eventually("it is asked", || stage.asked("/") == 1);
        purge(&stage, "all");
        stage.origin.release();
        assert_eq!(first.join().unwrap(), "1");
    });
    assert_eq!(stage.get("/").text(), "2");
}

#[test]
fn tags_are_for_the_gateway_unless_they_are_to_be_kept() {
    for (settings, kept) in [("true", false), ("{ tags: { keep: true } }", true)] {
        let stage = Stage::new(settings);
        stage.numbered("/", TAGGED);
        for response in [stage.get("/"), stage.get("/")] {
            assert_eq!(response.header("cache-tag").is_some(), kept, "{settings}: {}", told(&response));
            assert_eq!(response.header("surrogate-key").is_some(), kept, "{settings}: {}", told(&response));
        }
    }
}

#[test]
fn operators_see_what_is_stored() {
    let stage = Stage::new("true");
    stage.numbered("/seen", TAGGED);
    stage.get("/seen");
    stage.get("/seen");
    let zones = stage.gateway.admin("/cache").text();
    assert!(zones.contains("\"default\""), "{zones}");
    let list = stage.gateway.admin("/cache/default?limit=10").text();
    assert!(list.contains("http://edgeway.test/seen"), "{list}");
}
