//! Parts: asked for of what is stored, stored themselves, and fetched in slices (RFC 9110 14, RFC 9111 3.3, 3.4).

use super::{Stage, ask, date, is_hit, told};
use crate::harness::{Answer, Response, Seen};

fn letters(count: usize) -> Vec<u8> {
    (0..count).map(|at| b'a' + (at % 26) as u8).collect()
}

/// An origin's answer that heeds one range.
fn heeding(seen: &Seen, whole: &[u8]) -> Answer {
    let fields = [("Cache-Control", "max-age=100"), ("ETag", "\"a\"")];
    let range = seen.headers.get("range").and_then(|text| text.strip_prefix("bytes=")?.split_once('-'));
    let Some((first, last)) = range else { return Answer::ok(whole).fields(&fields) };
    let length = whole.len();
    let (first, end) = match first.parse::<usize>() {
        Ok(first) => (first, last.parse().map_or(length, |last: usize| (last + 1).min(length))),
        Err(_) => (length - last.parse::<usize>().unwrap(), length),
    };
    if first >= length {
        return Answer::new(416, "").field("Content-Range", &format!("bytes */{length}"));
    }
    let at = format!("bytes {first}-{}/{length}", end - 1);
    Answer::new(206, &whole[first..end]).fields(&fields).field("Content-Range", &at)
}

#[track_caller]
fn expect_part(response: &Response, whole: &[u8], first: usize, last: usize, hit: bool) {
    let (status, at) = (response.status, response.header("content-range"));
    assert_eq!((status, at), (206, Some(&*format!("bytes {first}-{last}/{}", whole.len()))), "{}", told(response));
    assert!(response.body == whole[first..=last], "{} bytes: {}", response.body.len(), told(response));
    assert_eq!(is_hit(response), hit, "{}", told(response));
}

#[test]
fn ranges_of_what_is_stored_are_sent_from_it() {
    let stage = Stage::new("true");
    let whole = letters(1_000);
    stage.answers("/", [Answer::cached("max-age=100", whole.clone()).field("ETag", "\"a\"")]);
    stage.get("/");
    for (range, first, last) in [
        ("bytes=0-9", 0, 9),
        ("bytes=5-5", 5, 5),
        ("bytes=990-", 990, 999),
        ("bytes=-10", 990, 999),
        ("bytes=-5000", 0, 999),
        ("bytes=990-2000", 990, 999),
    ] {
        expect_part(&stage.request(&ask("/", &[("Range", range)])), &whole, first, last, true);
        expect_part(&stage.h2(&ask("/", &[("Range", range)])), &whole, first, last, true);
    }
    for (range, status) in [
        ("bytes=1000-", 416),
        ("bytes=-0", 416),
        ("bytes=9-1", 200),
        ("lines=1-2", 200),
        ("bytes=a-b", 200),
        ("bytes=0-999,0-999", 200),
    ] {
        let response = stage.request(&ask("/", &[("Range", range)]));
        assert_eq!(response.status, status, "{range}");
        match status {
            416 => assert_eq!(response.header("content-range"), Some("bytes */1000"), "{range}"),
            _ => assert!(response.body == whole, "{range}"),
        }
    }
    assert_eq!(stage.asked("/"), 1);
}

#[test]
fn many_ranges_are_sent_as_parts_and_far_too_many_as_the_whole() {
    let stage = Stage::new("true");
    let whole = letters(1_000);
    stage.answers("/", [Answer::cached("max-age=100", whole.clone()).field("Content-Type", "text/plain")]);
    stage.get("/");
    let response = stage.request(&ask("/", &[("Range", "bytes=0-1, 10-12,-2")]));
    assert_eq!(response.status, 206);
    let kind = response.header("content-type").unwrap();
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap_or_else(|| panic!("{kind}"));
    let boundary = boundary.trim_matches('"');
    let text = response.text();
    assert_eq!(text.matches(&format!("--{boundary}\r\n")).count(), 3, "{text}");
    assert!(text.trim_end().ends_with(&format!("--{boundary}--")), "{text}");
    for (range, body) in [("0-1", "ab"), ("10-12", "klm"), ("998-999", "kl")] {
        let at = text.to_lowercase().find(&format!("content-range: bytes {range}/1000\r\n"));
        let rest = &text[at.unwrap_or_else(|| panic!("{range}: {text}"))..];
        assert_eq!(rest.split("\r\n\r\n").nth(1).and_then(|body| body.split("\r\n").next()), Some(body), "{range}");
    }
    let bomb = (0..400).map(|at| format!("{at}-{at}")).collect::<Vec<_>>().join(",");
    let response = stage.request(&ask("/", &[("Range", &format!("bytes={bomb}"))]));
    assert_eq!(response.status, 200);
    assert!(response.body == whole);
}

#[test]
fn if_range_wants_the_same_representation_for_certain() {
    let stage = Stage::new("true");
    let whole = letters(100);
    let (changed, sent) = (date(-1_000), date(-10));
    let stored = |path: &str, tag: &str| {
        let answer = Answer::cached("max-age=100", whole.clone()).field("ETag", tag);
        stage.answers(path, [answer.field("Last-Modified", &changed).field("Date", &sent)]);
        stage.get(path);
    };
    stored("/strong", "\"a\"");
    stored("/weak", "W/\"a\"");
    for (path, condition, status) in [
        ("/strong", "\"a\"", 206),
        ("/strong", "\"b\"", 200),
        ("/strong", "W/\"a\"", 200),
        ("/weak", "W/\"a\"", 200),
        ("/weak", "\"a\"", 200),
        ("/strong", &*changed, 206),
        ("/strong", &*sent, 200),
    ] {
        let response = stage.request(&ask(path, &[("Range", "bytes=0-9"), ("If-Range", condition)]));
        assert_eq!((response.status, is_hit(&response)), (status, true), "{path} {condition}: {}", told(&response));
    }
}

#[test]
fn a_part_is_stored_and_used_for_ranges_inside_it() {
    let stage = Stage::new("true");
    let whole = letters(1_000);
    let body = whole.clone();
    stage.script("/", move |seen, _| heeding(seen, &body));
    expect_part(&stage.request(&ask("/", &[("Range", "bytes=100-199")])), &whole, 100, 199, false);
    // Whether it fetched the whole or the part: what lies inside is there.
    expect_part(&stage.request(&ask("/", &[("Range", "bytes=100-199")])), &whole, 100, 199, true);
    expect_part(&stage.h2(&ask("/", &[("Range", "bytes=150-159")])), &whole, 150, 159, true);
    assert_eq!(stage.asked("/"), 1);
    // And what does not is never answered from it wrongly.
    let outside = stage.request(&ask("/", &[("Range", "bytes=150-249")]));
    assert!(outside.status == 206 && outside.body == whole[150..250], "{}", told(&outside));
    let all = stage.get("/");
    assert!(all.status == 200 && all.body == whole, "{} {}", all.status, told(&all));
}

#[test]
fn the_begin_of_a_response_is_completed_by_the_rest_of_it() {
    let whole = letters(300_000);
    for (changed, asked) in [(false, 2), (true, 3)] {
        let stage = Stage::new("true");
        let body = whole.clone();
        stage.script("/", move |seen, _| {
            let resumes = seen.headers.get("if-range").is_some();
            match heeding(seen, &body) {
                // The origin has another one by now, and does not heed the condition.
                _ if resumes && changed => Answer::new(206, &body[100_000..])
                    .fields(&[("Content-Range", "bytes 100000-299999/300000"), ("ETag", "\"b\"")]),
                answer => answer,
            }
        });
        stage.request(&ask("/", &[("Range", "bytes=0-99999")]));
        let response = stage.get("/");
        assert!(response.status == 200 && response.body == whole, "{}", told(&response));
        assert_eq!(stage.asked("/"), asked);
        let seen = stage.origin.seen();
        assert_eq!(seen[1].headers.get("range"), Some("bytes=100000-"));
        assert_eq!(seen[1].headers.get("if-range"), Some("\"a\""));
        assert!(is_hit(&stage.get("/")) && stage.get("/").body == whole);
    }
}

#[test]
fn parts_of_two_representations_are_never_mixed() {
    let stage = Stage::new("true");
    let (old, new) = (vec![b'o'; 100], vec![b'n'; 100]);
    stage.script("/", move |seen, number| {
        let (body, tag) = if number == 1 { (&old, "\"old\"") } else { (&new, "\"new\"") };
        match seen.headers.get("range") {
            Some(_) if number == 1 => Answer::new(206, &body[..50]).fields(&[
                ("Content-Range", "bytes 0-49/100"),
                ("ETag", tag),
                ("Cache-Control", "max-age=100"),
            ]),
            _ => Answer::cached("max-age=100", body.clone()).field("ETag", tag),
        }
    });
    stage.request(&ask("/", &[("Range", "bytes=0-49")]));
    let whole = stage.get("/").text();
    assert!(whole == "n".repeat(100) || whole == "o".repeat(100), "{whole}");
}

#[test]
fn slices_are_fetched_once_and_only_where_they_are_wanted() {
    let stage = Stage::new("{ slice: 64KiB }");
    let whole = letters(200 << 10);
    let body = whole.clone();
    stage.script("/", move |seen, _| heeding(seen, &body));
    expect_part(&stage.request(&ask("/", &[("Range", "bytes=70000-70009")])), &whole, 70_000, 70_009, false);
    let seen = stage.seen("/");
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].headers.get("range"), Some("bytes=65536-131071"));
    expect_part(&stage.request(&ask("/", &[("Range", "bytes=80000-90000")])), &whole, 80_000, 90_000, true);
    assert_eq!(stage.asked("/"), 1);
    let all = stage.get("/");
    assert!(all.status == 200 && all.body == whole, "{} {}: {}", all.status, all.body.len(), told(&all));
    let asked = stage.asked("/");
    assert!(asked <= 5, "{asked}");
    let again = stage.h2(&ask("/", &[]));
    assert!(again.body == whole);
    expect_part(&stage.request(&ask("/", &[("Range", "bytes=1000-199999")])), &whole, 1_000, 199_999, true);
    assert_eq!(stage.asked("/"), asked);
}

#[test]
fn an_origin_that_knows_no_ranges_can_be_asked_in_slices() {
    let stage = Stage::new("{ slice: 64KiB }");
    let whole = letters(150 << 10);
    stage.answers("/", [Answer::cached("max-age=100", whole.clone())]);
    for _ in 0..2 {
        assert!(stage.get("/").body == whole);
    }
    let part = stage.request(&ask("/", &[("Range", "bytes=10-19")]));
    assert!(part.body == whole[10..20] || part.body == whole, "{}", part.body.len());
}
