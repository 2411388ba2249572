//! How old, and how long fresh (RFC 9111 4.2, 5.1; RFC 9213; RFC 5861).

use super::{Stage, ask, date, is_hit, told};
use crate::harness::{Answer, get};

/// Whether a second request is answered without the origin, by HTTP/1.1 and by HTTP/2.
#[track_caller]
fn is_reused(stage: &Stage, path: &str, status: u16, fields: &[(&str, &str)]) -> bool {
    let fields: Vec<(String, String)> = fields.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    stage.script(path, move |_, number| {
        fields.iter().fold(Answer::new(status, number.to_string()), |answer, (n, v)| answer.field(n, v))
    });
    let first = stage.get(path);
    assert!(!is_hit(&first), "{path}: {}", told(&first));
    let (second, third) = (stage.get(path), stage.h2(&get(path)));
    assert_eq!((second.status, third.status), (status, status), "{path}");
    let reused = is_hit(&second);
    assert_eq!(is_hit(&third), reused, "{path}: {} and by HTTP/2 {}", told(&second), told(&third));
    assert_eq!(stage.asked(path), if status == 204 || reused { 1 + 2 * usize::from(!reused) } else { 3 }, "{path}");
    reused
}

#[test]
fn what_the_origin_says_of_time_counts() {
    let stage = Stage::new("true");
    let (ago, soon, past) = (date(-100), date(100), date(-200));
    for (number, (fields, wanted)) in [
        (&[("Cache-Control", "max-age=60")][..], true),
        (&[("Cache-Control", "max-age=60"), ("Age", "30")], true),
        (&[("Cache-Control", "max-age=60"), ("Age", "61")], false),
        (&[("Cache-Control", "max-age=60"), ("Age", "61, 2")], false),
        (&[("Cache-Control", "max-age=60"), ("Age", "99999999999999999999")], false),
        (&[("Cache-Control", "max-age=60"), ("Date", &ago)], false),
        (&[("Cache-Control", "max-age=200"), ("Date", &ago)], true),
        (&[("Cache-Control", "max-age=0, s-maxage=60")], true),
        (&[("Cache-Control", "max-age=60, s-maxage=0")], false),
        (&[("Cache-Control", "MAX-AGE=60")], true),
        (&[("Cache-Control", "max-age=\"60\"")], true),
        (&[("Cache-Control", "max-age=6x")], false),
        (&[("Expires", &soon)], true),
        (&[("Expires", &soon), ("Date", &ago)], true),
        (&[("Expires", &past), ("ETag", "\"a\"")], false),
        (&[("Expires", "0"), ("ETag", "\"a\"")], false),
        (&[("Expires", &past), ("Cache-Control", "max-age=60")], true),
        (&[("Last-Modified", &date(-10_000))], true),
        (&[("Last-Modified", &date(0))], false),
        (&[], false),
        (&[("Cache-Control", "no-store, max-age=60")], false),
        (&[("Cache-Control", "private, max-age=60")], false),
        (&[("Cache-Control", "no-cache, max-age=60"), ("ETag", "\"a\"")], false),
        (&[("Cache-Control", "max-age=60"), ("Pragma", "no-cache")], true),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(is_reused(&stage, &format!("/time/{number}"), 200, fields), wanted, "{fields:?}");
    }
}

#[test]
fn targeted_fields_replace_cache_control() {
    let stage = Stage::new("true");
    let soon = date(100);
    for (number, (fields, wanted)) in [
        (&[("CDN-Cache-Control", "max-age=60"), ("Cache-Control", "no-store")][..], true),
        (&[("CDN-Cache-Control", "no-store"), ("Cache-Control", "max-age=60")], false),
        (&[("CDN-Cache-Control", "max-age=0"), ("Expires", &soon)], false),
        (&[("CDN-Cache-Control", "&broken&"), ("Cache-Control", "max-age=60")], true),
        (&[("CDN-Cache-Control", "max-age=\"60\""), ("Cache-Control", "no-store")], false),
        (&[("Edgeway-Cache-Control", "max-age=60"), ("CDN-Cache-Control", "no-store")], true),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(is_reused(&stage, &format!("/targeted/{number}"), 200, fields), wanted, "{fields:?}");
    }
}

#[test]
fn every_final_status_with_a_time_is_stored_but_for_those_that_must_not() {
    let stage = Stage::new("true");
    let time = &[("Cache-Control", "max-age=60")];
    for (status, wanted) in [
        (200, true),
        (203, true),
        (204, true),
        (299, true),
        (301, true),
        (302, true),
        (307, true),
        (308, true),
        (400, true),
        (404, true),
        (410, true),
        (451, true),
        (500, true),
        (503, true),
        (599, true),
        (428, false),
        (429, false),
        (431, false),
        (511, false),
    ] {
        assert_eq!(is_reused(&stage, &format!("/status/{status}"), status, time), wanted, "{status}");
    }
    // RFC 9110 15.1: some may be guessed, the others not; public lets any be.
    let old = date(-10_000);
    for (status, fields, wanted) in [
        (404, &[("Last-Modified", &*old)][..], true),
        (410, &[("Last-Modified", &old)], true),
        (302, &[("Last-Modified", &old)], false),
        (302, &[("Last-Modified", &old), ("Cache-Control", "public")], true),
    ] {
        let path = format!("/guessed/{status}/{}", fields.len());
        assert_eq!(is_reused(&stage, &path, status, fields), wanted, "{status} {fields:?}");
    }
    // RFC 9111 5.2.2.3.
    let understood = &[("Cache-Control", "no-store, must-understand, max-age=60")];
    assert!(is_reused(&stage, "/understood/200", 200, understood));
    assert!(!is_reused(&stage, "/understood/299", 299, &[("Cache-Control", "must-understand, max-age=60")]));
}

#[test]
fn the_age_that_clients_see_counts_what_it_was_before() {
    let stage = Stage::new("true");
    let ago = date(-50);
    for (path, fields, least) in [
        ("/age/none", &[][..], 0),
        ("/age/age", &[("Age", "30")], 30),
        ("/age/date", &[("Date", &*ago)], 50),
        ("/age/both", &[("Date", &*ago), ("Age", "70")], 70),
        ("/age/list", &[("Age", "30, 90")], 30),
    ] {
        let fields = [fields, &[("Cache-Control", "max-age=1000")]].concat();
        stage.numbered(path, &fields);
        stage.get(path);
        for response in [stage.get(path), stage.h2(&get(path))] {
            let age: u64 = response.header("age").expect("an Age").parse().unwrap();
            assert!((least..least + 10).contains(&age), "{path}: {age}");
            assert_eq!(response.headers.all("age").len(), 1, "{path}");
        }
    }
}

#[test]
fn the_date_is_the_origins() {
    let stage = Stage::new("true");
    let sent = date(-50);
    stage.numbered("/date", &[("Date", &sent), ("Cache-Control", "max-age=1000")]);
    for _ in 0..2 {
        assert_eq!(stage.get("/date").headers.all("date"), [&*sent]);
    }
}

#[test]
fn operators_say_how_long_by_status_and_type() {
    let stage = Stage::new("{ ttl: { default: 1m, 404: 0s, 5xx: 1m, types: { image/*: 0s } } }");
    let never = &[("Cache-Control", "no-store")];
    for (path, status, fields, wanted) in [
        ("/ttl/default", 200, &[][..], true),
        ("/ttl/404", 404, &[], false),
        ("/ttl/500", 500, &[], true),
        ("/ttl/said", 404, &[("Cache-Control", "max-age=60")], true),
        ("/ttl/never", 200, never, false),
        ("/ttl/image", 200, &[("Content-Type", "image/png")], false),
        ("/ttl/text", 200, &[("Content-Type", "text/plain")], true),
    ] {
        assert_eq!(is_reused(&stage, path, status, fields), wanted, "{path}");
    }
    let forced = Stage::new("{ ttl: { default: 1m, force: true } }");
    assert!(is_reused(&forced, "/short", 200, &[("Cache-Control", "max-age=0")]));
    let bounded = Stage::new("{ ttl: { max: 1m } }");
    assert!(!is_reused(&bounded, "/long", 200, &[("Cache-Control", "max-age=6000"), ("Age", "100")]));
}

#[test]
fn what_the_origin_says_can_be_ignored() {
    let stage = Stage::new("{ ttl: 1m, ignore: { cache_control: true, expires: true } }");
    let past = date(-100);
    assert!(is_reused(&stage, "/control", 200, &[("Cache-Control", "max-age=0")]));
    assert!(is_reused(&stage, "/expires", 200, &[("Expires", &past)]));
}

#[test]
fn what_becomes_stale_is_asked_for_again() {
    let stage = Stage::new("true");
    stage.numbered("/soon", &[("Cache-Control", "max-age=1, must-revalidate")]);
    assert_eq!(stage.get("/soon").text(), "1");
    crate::harness::eventually("it is stale", || stage.get("/soon").text() == "2");
}

#[test]
fn cache_status_says_what_happened() {
    let stage = Stage::new("true");
    stage.numbered("/a", &[("Cache-Control", "max-age=60"), ("Vary", "X-Kind")]);
    stage.numbered("/never", &[("Cache-Control", "no-store")]);
    let first = told(&stage.get("/a"));
    assert!(first.starts_with("edgeway; fwd=uri-miss") && first.contains("; stored"), "{first}");
    let hit = told(&stage.get("/a"));
    let ttl: i64 = hit.strip_prefix("edgeway; hit; ttl=").unwrap_or_else(|| panic!("{hit}")).parse().unwrap();
    assert!((50..=60).contains(&ttl), "{hit}");
    let other = told(&stage.request(&ask("/a", &[("X-Kind", "b")])));
    assert!(other.contains("fwd=vary-miss") && other.contains("stored"), "{other}");
    let never = told(&stage.get("/never"));
    assert!(never.contains("fwd=uri-miss") && !never.contains("stored"), "{never}");
    let asked = told(&stage.request(&ask("/a", &[("Cache-Control", "no-cache")])));
    assert!(asked.contains("fwd=request"), "{asked}");
    let posted = told(&stage.request(&crate::harness::Request::new("POST", "/never").body("x")));
    assert!(posted.contains("fwd=method"), "{posted}");
    // Those of caches nearer to the origin come first (RFC 9211 2).
    stage.numbered("/behind", &[("Cache-Control", "max-age=60"), ("Cache-Status", "inner; hit")]);
    let both = told(&stage.get("/behind"));
    assert!(both.starts_with("inner; hit, edgeway; fwd="), "{both}");
    let silent = Stage::new("{ status_header: false }");
    silent.numbered("/a", &[("Cache-Control", "max-age=60")]);
    assert_eq!((told(&silent.get("/a")), silent.get("/a").header("age").is_some()), (String::new(), true));
}

#[test]
fn what_happened_is_counted_by_route_and_zone() {
    let stage = Stage::with(
        "sites: [{ routes: [{ name: shop, match: \"/*\", cache: { bypass: [{ query: { no: \"1\" } }] }, proxy: \"@origin\" }] }]\n",
    );
    stage.numbered("/", &[("Cache-Control", "max-age=60")]);
    for path in ["/", "/", "/", "/?no=1"] {
        stage.get(path);
    }
    for (result, count) in [("miss", 1.0), ("hit", 2.0), ("bypass", 1.0)] {
        let labels = [("route", "shop"), ("result", result)];
        stage.gateway.expect_metric("edgeway_cache_responses_total", &labels, count);
        let labels = [("zone", "default"), ("result", result)];
        stage.gateway.expect_metric("edgeway_cache_zone_responses_total", &labels, count);
    }
    stage.gateway.expect_metric("edgeway_cache_fills_total", &[("result", "stored")], 1.0);
    stage.gateway.expect_metric("edgeway_cache_objects", &[("zone", "default"), ("tier", "memory")], 1.0);
}
