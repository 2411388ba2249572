//! What is stored, of what, and what of it (RFC 9111 3).

use super::{Stage, ask, is_hit, told};
use crate::harness::{Answer, Request, get};

#[test]
fn what_needed_authorization_is_stored_only_when_told() {
    let stage = Stage::new("true");
    for (control, wanted) in [
        ("max-age=60", false),
        ("max-age=60, public", true),
        ("max-age=60, must-revalidate", true),
        ("s-maxage=60", true),
    ] {
        let path = format!("/auth/{}", control.len());
        stage.numbered(&path, &[("Cache-Control", control)]);
        let request = ask(&path, &[("Authorization", "Basic eDp5")]);
        stage.request(&request);
        assert_eq!(is_hit(&stage.request(&request)), wanted, "{control}");
        assert_eq!(is_hit(&stage.get(&path)), wanted, "{control}: for others");
    }
}

#[test]
fn a_cookie_keeps_a_response_out_unless_somebody_wants_it_in() {
    for (option, control, stored, cookie) in [
        ("refuse", "max-age=60", false, true),
        ("refuse", "max-age=60, public", true, true),
        ("refuse", "s-maxage=60", true, true),
        ("refuse", "max-age=60, no-cache=\"set-cookie\"", true, false),
        ("strip", "max-age=60", true, false),
        ("store", "max-age=60", true, true),
    ] {
        let stage = Stage::new(&format!("{{ set_cookie: {option} }}"));
        stage.numbered("/", &[("Cache-Control", control), ("Set-Cookie", "a=b"), ("Set-Cookie", "c=d")]);
        let first = stage.get("/");
        if option != "strip" {
            assert_eq!(first.headers.all("set-cookie"), ["a=b", "c=d"], "{option} {control}");
        }
        let second = stage.get("/");
        assert_eq!(is_hit(&second), stored, "{option} {control}: {}", told(&second));
        assert_eq!(second.header("set-cookie").is_some(), cookie, "{option} {control}");
    }
}

#[test]
fn fields_named_private_or_no_cache_are_not_reused() {
    let stage = Stage::new("true");
    stage.numbered(
        "/",
        &[("Cache-Control", "max-age=60, private=\"x-user\", no-cache=\"x-once\""), ("X-User", "me"), ("X-Once", "1")],
    );
    let first = stage.get("/");
    assert_eq!((first.header("x-user"), first.header("x-once")), (Some("me"), Some("1")));
    let second = stage.get("/");
    assert!(is_hit(&second), "{}", told(&second));
    assert_eq!((second.header("x-user"), second.header("x-once")), (None, None));
}

#[test]
fn fields_of_one_connection_are_neither_stored_nor_forwarded() {
    let stage = Stage::new("true");
    let fields = [
        ("Cache-Control", "max-age=60"),
        ("Connection", "X-Hop, Keep-Alive"),
        ("X-Hop", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Authenticate", "Basic"),
        ("Upgrade", "h2c"),
        ("X-End", "1"),
    ];
    stage.numbered("/", &fields);
    for response in [stage.get("/"), stage.get("/"), stage.h2(&get("/"))] {
        for name in ["x-hop", "keep-alive", "proxy-authenticate", "upgrade"] {
            assert_eq!(response.header(name), None, "{name}: {}", told(&response));
        }
        assert_eq!(response.header("x-end"), Some("1"));
    }
    assert_eq!(stage.asked("/"), 1);
}

#[test]
fn what_varies_is_stored_for_each_kind_of_request() {
    let stage = Stage::new("true");
    let vary = |path: &str, lines: &[&str]| {
        let mut fields = vec![("Cache-Control", "max-age=60")];
        fields.extend(lines.iter().map(|line| ("Vary", *line)));
        stage.numbered(path, &fields);
    };
    for (number, (lines, first, second, wanted)) in [
        (&["X-A"][..], &[("X-A", "1")][..], &[("X-A", "1")][..], true),
        (&["X-A"], &[("X-A", "1")], &[("X-A", "2")], false),
        (&["X-A"], &[("X-A", "1")], &[], false),
        (&["X-A"], &[], &[("X-A", "")], false),
        (&["X-A"], &[], &[], true),
        (&["X-A"], &[], &[("X-B", "1")], true),
        (&["X-A", "X-B"], &[("X-A", "1"), ("X-B", "1")], &[("X-A", "1"), ("X-B", "2")], false),
        (&["X-A, X-B"], &[("X-A", "1"), ("X-B", "1")], &[("X-B", "1"), ("X-A", "1")], true),
        (&["x-a"], &[("X-A", "1, 2")], &[("X-A", "1"), ("X-A", "2")], true),
        (&["X-A"], &[("X-A", "1,2")], &[("X-A", "1 ,  2")], true),
        (&["X-A"], &[("X-A", "1, 2")], &[("X-A", "2, 1")], false),
        (&["*"], &[], &[], false),
        (&["X-A", "*"], &[], &[], false),
        (&["X-A, *"], &[], &[], false),
        (&["Accept-Encoding"], &[("Accept-Encoding", "gzip, br")], &[("Accept-Encoding", "BR,gzip")], true),
        (&["Accept-Encoding"], &[("Accept-Encoding", "gzip, br;q=0.5")], &[("Accept-Encoding", "br;q=0.5,gzip")], true),
        (&["Accept-Encoding"], &[("Accept-Encoding", "gzip")], &[("Accept-Encoding", "br")], false),
        (&["Accept-Language"], &[("Accept-Language", "de, en;q=0.8")], &[("Accept-Language", "en;q=0.8, de")], true),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/vary/{number}");
        vary(&path, lines);
        stage.request(&ask(&path, first));
        let again = stage.request(&ask(&path, second));
        assert_eq!(is_hit(&again), wanted, "{lines:?} {first:?} {second:?}: {}", told(&again));
        // The first kind is still there.
        if !lines.concat().contains('*') {
            assert_eq!(stage.request(&ask(&path, first)).text(), "1", "{lines:?} {first:?}");
        }
    }
}

#[test]
fn a_vary_that_is_ignored_does_not_count() {
    let stage = Stage::new("{ ignore: { vary: [X-A] } }");
    stage.numbered("/", &[("Cache-Control", "max-age=60"), ("Vary", "X-A")]);
    stage.request(&ask("/", &[("X-A", "1")]));
    assert!(is_hit(&stage.request(&ask("/", &[("X-A", "2")]))));
}

#[test]
fn head_is_answered_from_what_a_get_stored() {
    let stage = Stage::new("true");
    stage.answers("/", [Answer::cached("max-age=60", "x".repeat(5_000)).field("X-A", "1")]);
    stage.get("/");
    let head = Request::new("HEAD", "/");
    for response in [stage.request(&head), stage.h2(&head)] {
        assert!(is_hit(&response), "{}", told(&response));
        let length = response.header("content-length");
        assert_eq!((response.status, length, response.header("x-a")), (200, Some("5000"), Some("1")));
        assert!(response.body.is_empty());
    }
    assert_eq!(stage.asked("/"), 1);
    // And what a HEAD got is no body for a GET.
    stage.answers("/head", [Answer::cached("max-age=60", "body")]);
    assert_eq!(stage.request(&Request::new("HEAD", "/head")).status, 200);
    assert_eq!(stage.get("/head").text(), "body");
}

#[test]
fn other_methods_go_to_the_origin() {
    let stage = Stage::new("true");
    stage.numbered("/", &[("Cache-Control", "max-age=60")]);
    for method in ["POST", "PUT", "OPTIONS", "DELETE", "PATCH"] {
        let before = stage.asked("/");
        stage.request(&Request::new(method, "/").body("x"));
        stage.request(&Request::new(method, "/").body("x"));
        assert_eq!(stage.asked("/"), before + 2, "{method}");
    }
    assert!(!is_hit(&stage.get("/")));
}

#[test]
fn the_answer_to_a_post_at_its_own_url_is_stored_for_gets() {
    let stage = Stage::new("true");
    for (path, location, control, wanted) in [
        ("/post/own", "/post/own", "max-age=60", true),
        ("/post/other", "/elsewhere", "max-age=60", false),
        ("/post/untold", "/post/untold", "public", false),
    ] {
        stage.answers(
            path,
            [
                Answer::cached(control, "posted").field("Content-Location", location),
                Answer::cached("max-age=60", "got"),
            ],
        );
        assert_eq!(stage.request(&Request::new("POST", path).body("x")).text(), "posted");
        assert_eq!(stage.get(path).text(), if wanted { "posted" } else { "got" }, "{path}");
    }
}

#[test]
fn conditions_keep_requests_away_from_the_cache() {
    let stage = Stage::new(
        "{ bypass: [{ header: { X-Preview: { present: true } } }, { cookie: { session: { present: true } } }], \
         no_store: [{ query: { once: \"1\" } }] }",
    );
    stage.numbered("/", &[("Cache-Control", "max-age=60")]);
    assert_eq!(stage.get("/").text(), "1");
    for fields in [&[("X-Preview", "1")][..], &[("Cookie", "a=b; session=1")]] {
        let before = stage.asked("/");
        let response = stage.request(&ask("/", fields));
        assert_eq!(response.text(), (before + 1).to_string());
        assert!(told(&response).contains("fwd=bypass"), "{}", told(&response));
    }
    assert_eq!(stage.get("/").text(), "1", "a bypass stores nothing");
    let before = stage.asked("/");
    stage.get("/?once=1");
    stage.get("/?once=1");
    assert_eq!(stage.asked("/"), before + 2);
}

#[test]
fn what_is_rarely_asked_for_or_too_large_is_not_stored() {
    let rare = Stage::new("{ min_uses: 3 }");
    rare.numbered("/", &[("Cache-Control", "max-age=60")]);
    let bodies: Vec<_> = (0..5).map(|_| rare.get("/").text()).collect();
    assert_eq!(bodies, ["1", "2", "3", "3", "3"]);
    let small = Stage::new("{ max_object: 1KiB }");
    let body = "x".repeat(100_000);
    small.answers("/told", [Answer::cached("max-age=60", body.clone())]);
    small.answers("/untold", [Answer::cached("max-age=60", body.clone()).chunked()]);
    small.answers("/fits", [Answer::cached("max-age=60", "y").chunked()]);
    for (path, wanted, asked) in [("/told", &*body, 2), ("/untold", &*body, 2), ("/fits", "y", 1)] {
        for _ in 0..2 {
            assert!(small.get(path).text() == wanted, "{path}");
        }
        assert_eq!(small.asked(path), asked, "{path}");
    }
}

#[test]
fn what_is_asked_for_as_a_file_and_is_a_page_is_not_stored_when_told_so() {
    let stage = Stage::new("{ match_type: true }");
    for (path, kind, wanted) in [
        ("/account/x.css", "text/html", false),
        ("/app.css", "text/css", true),
        ("/logo.png", "image/png", true),
        ("/logo2.png", "text/html; charset=utf-8", false),
        ("/page", "text/html", true),
    ] {
        stage.numbered(path, &[("Cache-Control", "max-age=60"), ("Content-Type", kind)]);
        stage.get(path);
        assert_eq!(is_hit(&stage.get(path)), wanted, "{path} {kind}");
    }
}

#[test]
fn a_get_with_a_body_is_neither_answered_from_the_cache_nor_stored() {
    let stage = Stage::new("true");
    stage.numbered("/", &[("Cache-Control", "max-age=60")]);
    stage.request(&get("/").body("fat"));
    assert_eq!(stage.get("/").text(), "2");
    assert_eq!(stage.get("/").text(), "2");
    assert_eq!(stage.request(&get("/").body("fat")).text(), "3");
}
