//! Large objects in slices: each is fetched once, and only where it is wanted, and two representations are never mixed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::ranges::{expect_part, expect_stored, heeding, letters};
use super::{Stage, ask, date, is_hit, told};
use crate::harness::{Answer, Gateway, H2, Origin, Request, eventually, get};

const SLICE: usize = 64 << 10;
const SLICES: &str = "{ slice: 64KiB, purge: { from: [127.0.0.1] } }";

/// A path with this body, which its origin gives in parts.
fn stage(cache: &str, body: &[u8]) -> Stage {
    let (stage, body) = (Stage::new(cache), body.to_owned());
    stage.script("/", move |seen, _| heeding(seen, &body));
    stage
}

/// The ranges that the origin was asked for.
fn ranges(stage: &Stage) -> Vec<String> {
    stage.seen("/").iter().map(|seen| seen.headers.get("range").unwrap_or("whole").replace("bytes=", "")).collect()
}

/// The range of the slice of this number.
fn slice(index: usize) -> String {
    format!("{}-{}", index * SLICE, (index + 1) * SLICE - 1)
}

/// The number of the slice that is asked for.
fn index(range: Option<&str>) -> Option<usize> {
    let (first, _) = range?.strip_prefix("bytes=")?.split_once('-')?;
    Some(first.parse::<usize>().ok()? / SLICE)
}

/// The head of a whole response whose body breaks off, and what came of that.
#[track_caller]
fn broken_off(stage: &Stage, request: &Request) -> Vec<u8> {
    let mut connection = stage.gateway.connect();
    connection.send(request.bytes());
    let mut wire = connection.into_wire();
    let head = wire.head().unwrap().expect("a head");
    let length: usize = head.headers.get("content-length").expect("a length").parse().unwrap();
    while let Ok(true) = wire.more() {}
    assert!(wire.ahead.len() < length, "{} of {length}", wire.ahead.len());
    wire.ahead
}

#[test]
fn the_whole_is_put_together_from_slices_each_of_which_is_asked_for_once() {
    let whole = letters(2 * SLICE + 1_000);
    let stage = stage(SLICES, &whole);
    let first = stage.get("/");
    assert!(first.status == 200 && first.body == whole, "{}", told(&first));
    assert_eq!(first.header("content-range"), None);
    assert_eq!(first.header("content-length"), Some(&*whole.len().to_string()));
    assert!(told(&first).contains("fwd=uri-miss; fwd-status=206; stored"), "{}", told(&first));
    assert_eq!(ranges(&stage), [slice(0), slice(1), slice(2)]);
    for request in [get("/"), Request::new("HEAD", "/")] {
        let again = stage.request(&request);
        assert!(again.status == 200 && is_hit(&again), "{}", told(&again));
        assert_eq!(again.header("content-length"), Some(&*whole.len().to_string()));
        let again = stage.h2(&request);
        assert!(again.status == 200 && is_hit(&again), "{}", told(&again));
    }
    assert!(stage.h2(&get("/")).body == whole);
    assert_eq!(stage.asked("/"), 3);
}

#[test]
fn only_the_slices_of_a_range_are_asked_for() {
    let whole = letters(4 * SLICE - 10);
    let (total, last) = (whole.len(), whole.len() - 1);
    for (range, first_byte, last_byte, asked) in [
        ("bytes=0-9".to_owned(), 0, 9, vec![0]),
        (format!("bytes={}-{}", SLICE - 1, SLICE), SLICE - 1, SLICE, vec![0, 1]),
        (format!("bytes={}-", 3 * SLICE), 3 * SLICE, last, vec![3]),
        // Slice 0 tells how long it is.
        ("bytes=-5".to_owned(), total - 5, last, vec![0, 3]),
        (format!("bytes={}-{}", SLICE + 5, 3 * SLICE), SLICE + 5, 3 * SLICE, vec![1, 2, 3]),
    ] {
        for h2 in [false, true] {
            let stage = stage(SLICES, &whole);
            let send = |request: &Request| if h2 { stage.h2(request) } else { stage.request(request) };
            let request = ask("/", &[("Range", &range)]);
            expect_part(&send(&request), &whole, first_byte, last_byte, false);
            expect_stored(|| send(&request), &whole, first_byte, last_byte);
            assert_eq!(ranges(&stage), asked.iter().map(|index| slice(*index)).collect::<Vec<_>>(), "{range}");
        }
    }
}

#[test]
fn what_is_there_in_part_says_so() {
    let whole = letters(3 * SLICE);
    let stage = stage(SLICES, &whole);
    stage.request(&ask("/", &[("Range", "bytes=0-9")]));
    let all = stage.get("/");
    assert!(all.body == whole && told(&all).contains("fwd=partial"), "{}", told(&all));
    assert_eq!(ranges(&stage), [slice(0), slice(1), slice(2)]);
}

#[test]
fn several_ranges_are_taken_in_turn() {
    let whole = letters(3 * SLICE);
    let stage = stage(SLICES, &whole);
    let request = ask("/", &[("Range", "bytes=140000-140001, 5-6")]);
    for _ in 0..2 {
        let response = stage.request(&request);
        assert_eq!(response.status, 206, "{}", told(&response));
        let text = response.text();
        for (range, body) in [("140000-140001", &whole[140_000..140_002]), ("5-6", &whole[5..7])] {
            let at = text.to_lowercase().find(&format!("content-range: bytes {range}/{}\r\n\r\n", whole.len()));
            let rest = &text[at.unwrap_or_else(|| panic!("{range}: {text}"))..];
            assert_eq!(rest.split("\r\n").nth(2).map(str::as_bytes), Some(body), "{range}");
        }
    }
    assert_eq!(stage.asked("/"), 2);
}

#[test]
fn conditions_and_ranges_that_cannot_be_had_are_answered_from_a_slice() {
    let whole = letters(2 * SLICE);
    let stage = stage(SLICES, &whole);
    stage.get("/");
    let behind = format!("bytes={}-", whole.len());
    for (fields, status) in [
        (&[("If-None-Match", "\"a\"")][..], 304),
        (&[("If-None-Match", "\"b\"")], 200),
        (&[("If-Match", "\"b\"")], 412),
        (&[("Range", &*behind)], 416),
        (&[("Range", "bytes=70000-70009"), ("If-Range", "\"a\"")], 206),
        (&[("Range", "bytes=70000-70009"), ("If-Range", "\"b\"")], 200),
        (&[("Range", &*behind), ("If-Range", "\"b\"")], 200),
        (&[("Range", "lines=1-2")], 200),
    ] {
        let response = stage.request(&ask("/", fields));
        assert_eq!((response.status, is_hit(&response)), (status, true), "{fields:?}: {}", told(&response));
        match status {
            200 => assert!(response.body == whole, "{fields:?}"),
            206 => assert!(response.body == whole[70_000..70_010], "{fields:?}"),
            _ => assert!(response.body.is_empty(), "{fields:?}"),
        }
        if status == 416 {
            assert_eq!(response.header("content-range"), Some(&*format!("bytes */{}", whole.len())));
        }
    }
    assert_eq!(stage.asked("/"), 2);
}

#[test]
fn a_download_is_resumed() {
    let whole = letters(3 * SLICE + 7);
    let stage = stage(SLICES, &whole);
    let rest = format!("bytes={}-", SLICE + 100);
    // The first to ask has had the begin from somewhere else.
    let request = ask("/", &[("Range", &rest), ("If-Range", "\"a\"")]);
    expect_part(&stage.request(&request), &whole, SLICE + 100, whole.len() - 1, false);
    assert_eq!(ranges(&stage), [slice(1), slice(2), slice(3)]);
    // Another version of it is of no use.
    let all = stage.request(&ask("/", &[("Range", &rest), ("If-Range", "\"old\"")]));
    assert!(all.status == 200 && all.body == whole, "{}", told(&all));
    assert_eq!(stage.asked("/"), 4);
    let behind = ask("/", &[("Range", "bytes=99999999-")]);
    assert_eq!(stage.request(&behind).status, 416);
}

#[test]
fn what_lies_behind_the_end_of_what_is_not_stored_is_told_by_the_origin() {
    let stage = stage(SLICES, &letters(100));
    let response = stage.request(&ask("/", &[("Range", "bytes=70000-")]));
    assert_eq!((response.status, response.header("content-range")), (416, Some("bytes */100")));
}

#[test]
fn small_and_empty_objects_are_stored_as_wholes() {
    for length in [0, 1, 1_000, SLICE - 1, SLICE] {
        let whole = letters(length);
        let stage = stage(SLICES, &whole);
        let responses: Vec<_> = (0..3).map(|_| stage.get("/")).collect();
        assert!(responses.iter().all(|response| response.status == 200 && response.body == whole), "{length}");
        let hits: Vec<_> = responses.iter().map(is_hit).collect();
        assert_eq!(hits, [false, true, true], "{length}");
        assert!(stage.asked("/") <= 2, "{length}: {:?}", ranges(&stage));
    }
}

#[test]
fn a_hundred_clients_fetch_each_slice_once() {
    let whole = letters(5 * SLICE + 1);
    let stage = Stage::new(SLICES);
    let body = whole.clone();
    stage.script("/", move |seen, _| heeding(seen, &body).held());
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..100)
            .map(|number| {
                let (stage, whole) = (&stage, &whole);
                scope.spawn(move || match number % 4 {
                    0 => assert!(stage.h2(&get("/")).body == *whole),
                    1 => {
                        let range = format!("bytes={}-", SLICE / 2);
                        let part = stage.request(&ask("/", &[("Range", &range)]));
                        assert!(part.status == 206 && part.body == whole[SLICE / 2..]);
                    }
                    _ => assert!(stage.get("/").body == *whole),
                })
            })
            .collect();
        eventually("one asks", || stage.asked("/") > 0);
        stage.origin.release();
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
    let mut asked = ranges(&stage);
    asked.sort_unstable_by_key(|range| range.split('-').next().and_then(|first| first.parse::<usize>().ok()));
    assert_eq!(asked, (0..6).map(slice).collect::<Vec<_>>());
}

#[test]
fn slices_of_two_representations_are_never_joined() {
    let stage = Stage::new(SLICES);
    let version = Arc::new(AtomicUsize::new(0));
    let now = Arc::clone(&version);
    let body = |version: usize| vec![b'a' + version as u8; 3 * SLICE];
    stage.script("/", move |seen, _| {
        let version = now.load(Relaxed);
        heeding_as(seen, &body(version), &format!("\"{version}\""), "max-age=100")
    });
    stage.request(&ask("/", &[("Range", "bytes=0-9")]));
    version.store(1, Relaxed);
    // It has begun with the old one, and cannot end.
    let part = broken_off(&stage, &get("/"));
    assert!(part.iter().all(|byte| *byte == b'a'), "a mixture");
    // The next one finds nothing of the old one.
    let all = stage.get("/");
    assert!(all.status == 200 && all.body == body(1), "{}", told(&all));
    version.store(2, Relaxed);
    let mut h2 = H2::open(&stage.gateway.address());
    assert!(h2.request(&get("/")).body == body(1), "what is stored is fresh");
}

/// The same as `heeding`, with another tag and other terms.
fn heeding_as(seen: &crate::harness::Seen, whole: &[u8], tag: &str, control: &str) -> Answer {
    let answer = Answer::new(206, "").fields(&[("ETag", tag), ("Cache-Control", control)]);
    let Some(index) = index(seen.headers.get("range")) else {
        return Answer::ok(whole).fields(&[("ETag", tag), ("Cache-Control", control)]);
    };
    let (first, end) = (index * SLICE, ((index + 1) * SLICE).min(whole.len()));
    let at = format!("bytes {first}-{}/{}", end - 1, whole.len());
    answer.with_body(&whole[first..end]).field("Content-Range", &at)
}

#[test]
fn a_change_that_is_seen_before_the_response_begins_is_no_fault() {
    let stage = Stage::new(SLICES);
    let version = Arc::new(AtomicUsize::new(0));
    let now = Arc::clone(&version);
    stage.script("/", move |seen, _| {
        let version = now.load(Relaxed);
        // It becomes shorter.
        let body = vec![b'a' + version as u8; (4 - version) * SLICE];
        if index(seen.headers.get("range")).is_some_and(|index| index * SLICE >= body.len()) {
            return Answer::new(416, "").field("Content-Range", &format!("bytes */{}", body.len()));
        }
        heeding_as(seen, &body, &format!("\"{version}\""), "max-age=100")
    });
    stage.request(&ask("/", &[("Range", "bytes=0-9")]));
    version.store(1, Relaxed);
    let last = stage.request(&ask("/", &[("Range", "bytes=-3")]));
    assert_eq!((last.status, last.text()), (206, "bbb".into()), "{}", told(&last));
    let all = stage.get("/");
    assert!(all.status == 200 && all.body == vec![b'b'; 3 * SLICE], "{}", told(&all));
}

#[test]
fn a_stale_slice_is_confirmed() {
    let whole = letters(2 * SLICE);
    let stage = Stage::new(SLICES);
    let body = whole.clone();
    stage.script("/", move |seen, _| match seen.headers.get("if-none-match") {
        Some("\"a\"") => Answer::new(304, "").fields(&[("ETag", "\"a\""), ("Cache-Control", "max-age=100")]),
        _ => heeding_as(seen, &body, "\"a\"", "max-age=90").field("Age", "100"),
    });
    for (asked, hit) in [(2, false), (4, false), (4, true)] {
        let all = stage.get("/");
        assert!(all.status == 200 && all.body == whole, "{}", told(&all));
        assert_eq!((stage.asked("/"), is_hit(&all)), (asked, hit), "{}", told(&all));
    }
    assert_eq!(ranges(&stage)[2..], [slice(0), slice(1)]);
}

#[test]
fn purges_and_changes_hold_for_slices() {
    let whole = letters(2 * SLICE);
    for change in ["url", "tag", "prefix", "host", "all", "method", "post"] {
        let stage = Stage::new(SLICES);
        let body = whole.clone();
        stage.script("/", move |seen, _| match &*seen.method {
            "GET" => heeding(seen, &body).field("Cache-Tag", "video"),
            _ => Answer::ok("changed"),
        });
        stage.get("/");
        assert!(is_hit(&stage.get("/")), "{change}");
        let admin = |what: &str| {
            let path = format!("/cache/default/purge?{what}");
            assert_eq!(stage.gateway.admin_request(&Request::new("POST", &path)).status, 200, "{what}");
        };
        match change {
            "url" => admin("url=http://edgeway.test/"),
            "tag" => admin("tag=video"),
            "prefix" => admin("prefix=http://edgeway.test/"),
            "host" => admin("host=edgeway.test"),
            "all" => admin("all"),
            "method" => assert_eq!(stage.request(&Request::new("PURGE", "/")).status, 200),
            _ => assert_eq!(stage.request(&Request::new("POST", "/").body("x")).status, 200),
        }
        let before = stage.asked("/");
        let last = ask("/", &[("Range", "bytes=-10")]);
        let total = whole.len();
        expect_part(&stage.request(&last), &whole, total - 10, total - 1, false);
        assert!(stage.asked("/") > before, "{change}");
        let all = stage.get("/");
        assert!(all.body == whole, "{change}");
        let of_slice = |index| ranges(&stage).iter().filter(|range| **range == slice(index)).count();
        assert_eq!((of_slice(0), of_slice(1)), (2, 2), "{change}");
    }
}

#[test]
fn a_slice_whose_origin_dies_is_not_stored_and_those_before_it_are() {
    let whole = letters(3 * SLICE);
    let stage = Stage::new(SLICES);
    let (body, deaths) = (whole.clone(), AtomicUsize::new(0));
    stage.script("/", move |seen, _| {
        let answer = heeding(seen, &body);
        let dies = index(seen.headers.get("range")) == Some(1) && deaths.fetch_add(1, Relaxed) == 0;
        if dies { answer.broken() } else { answer }
    });
    let part = broken_off(&stage, &get("/"));
    assert!(part == whole[..part.len()] && part.len() >= SLICE, "{}", part.len());
    let all = stage.get("/");
    assert!(all.body == whole, "{}", told(&all));
    let asked = ranges(&stage);
    assert_eq!(asked.iter().filter(|range| **range == slice(0)).count(), 1, "{asked:?}");
    assert_eq!(asked.iter().filter(|range| **range == slice(1)).count(), 2, "{asked:?}");
}

#[test]
fn a_client_that_leaves_has_not_more_fetched_than_it_was_about_to_read() {
    let whole = letters(200 * SLICE);
    let stage = stage(SLICES, &whole);
    let mut connection = stage.gateway.connect();
    connection.send(get("/").bytes());
    let mut wire = connection.into_wire();
    wire.head().unwrap().expect("a head");
    wire.exactly(10).unwrap();
    drop(wire);
    eventually("it is gone", || stage.gateway.metrics().sum(crate::harness::names::OPEN_CONNECTIONS, &[]) == Some(0.0));
    assert!(stage.asked("/") < 200, "{}", stage.asked("/"));
}

#[test]
fn an_origin_without_ranges_is_asked_for_the_whole_once() {
    let whole = letters(3 * SLICE);
    let stage = Stage::new(SLICES);
    stage.answers("/", [Answer::cached("max-age=100", whole.clone()).field("ETag", "\"a\"")]);
    expect_part(&stage.request(&ask("/", &[("Range", "bytes=70000-70009")])), &whole, 70_000, 70_009, false);
    assert!(stage.get("/").body == whole);
    expect_stored(|| stage.request(&ask("/", &[("Range", "bytes=-9")])), &whole, whole.len() - 9, whole.len() - 1);
    assert_eq!(stage.asked("/"), 1);
    let small = Stage::new("{ slice: 64KiB, max_object: 100KiB }");
    small.answers("/", [Answer::cached("max-age=100", whole.clone())]);
    for _ in 0..3 {
        assert!(small.get("/").body == whole, "what is too large passes through");
    }
}

#[test]
fn what_cannot_be_joined_for_certain_is_stored_whole() {
    let whole = letters(3 * SLICE);
    let (old, now) = (date(-1_000), date(0));
    for (fields, in_slices) in [
        (&[("ETag", "W/\"a\"")][..], false),
        (&[], false),
        (&[("Last-Modified", &*old), ("Date", &*now)], true),
        (&[("Last-Modified", &*now), ("Date", &*now)], false),
    ] {
        let stage = Stage::new(SLICES);
        let body = whole.clone();
        let fields: Vec<_> = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        stage.script("/", move |seen, _| {
            let fields = fields.iter().map(|(name, value)| (&**name, &**value)).collect::<Vec<_>>();
            heeding_as(seen, &body, "", "max-age=100").without("ETag").fields(&fields)
        });
        for hit in [false, true, true] {
            let all = stage.get("/");
            assert!(all.body == whole && is_hit(&all) == hit, "{}", told(&all));
        }
        let asked = if in_slices { vec![slice(0), slice(1), slice(2)] } else { vec![slice(0), "whole".into()] };
        assert_eq!(ranges(&stage), asked);
    }
}

#[test]
fn what_may_not_be_stored_passes_with_the_range_of_its_client() {
    let whole = letters(3 * SLICE);
    let stage = Stage::new(SLICES);
    let body = whole.clone();
    stage.script("/", move |seen, _| heeding(seen, &body).without("Cache-Control").field("Cache-Control", "no-store"));
    for _ in 0..2 {
        expect_part(&stage.request(&ask("/", &[("Range", "bytes=70000-140000")])), &whole, 70_000, 140_000, false);
        assert!(stage.get("/").body == whole);
    }
    assert!(stage.asked("/") <= 5, "{:?}", ranges(&stage));
}

#[test]
fn variants_have_slices_of_their_own() {
    let stage = Stage::new(SLICES);
    let body = |language: &str| language.repeat(SLICE).into_bytes();
    stage.script("/", move |seen, _| {
        let language = seen.headers.get("accept-language").unwrap_or("??");
        heeding_as(seen, &body(language), &format!("\"{language}\""), "max-age=100").field("Vary", "Accept-Language")
    });
    for hit in [false, true] {
        for language in ["en", "fr"] {
            let all = stage.request(&ask("/", &[("Accept-Language", language)]));
            assert!(all.body == body(language), "{language}: {}", told(&all));
            assert_eq!(is_hit(&all), hit, "{language}: {}", told(&all));
        }
    }
    assert_eq!(stage.asked("/"), 4);
}

#[test]
fn what_is_asked_for_once_is_not_stored_if_it_takes_two() {
    let whole = letters(3 * SLICE);
    let stage = stage("{ slice: 64KiB, min_uses: 2 }", &whole);
    for hit in [false, false, true] {
        let all = stage.get("/");
        assert!(all.body == whole && is_hit(&all) == hit, "{}", told(&all));
    }
    assert_eq!(ranges(&stage), ["whole".into(), slice(0), slice(1), slice(2)]);
}

#[test]
fn slices_outlive_a_stop() {
    let (whole, dir) = (letters(3 * SLICE + 5), tempfile::tempdir().unwrap());
    let body = whole.clone();
    let origin = Origin::scripted("o", move |seen, _| heeding(seen, &body));
    let yaml = format!(
        "caches: {{ main: {{ memory: 1MiB, disk: {{ path: \"{}\", size: 1GiB }} }} }}\n\
         sites: [{{ routes: [{{ match: \"/*\", cache: {{ zone: main, slice: 64KiB }}, proxy: \"@o\" }}] }}]\n",
        dir.path().display()
    );
    let mut gateway = Gateway::before(&[&origin], &yaml);
    assert!(gateway.get("/").body == whole);
    // Four slices, and what tells of them.
    gateway.expect_metric("edgeway_cache_objects", &[("zone", "main"), ("tier", "disk")], 5.0);
    gateway.signal("TERM");
    assert!(gateway.wait_exit(crate::harness::DEADLINE).is_some());
    let gateway = Gateway::before(&[&origin], &yaml);
    let all = gateway.get("/");
    assert!(is_hit(&all) && all.body == whole, "{}", told(&all));
    assert_eq!(origin.requests(), 4);
}
