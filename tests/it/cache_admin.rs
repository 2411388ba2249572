//! What operators see of the caches and do to them: the admin endpoints, and `edgeway cache`.

use std::path::Path;

use serde_json::Value;

use crate::harness::{Answer, DEADLINE, Gateway, Origin, Request, Seen, edgeway, get};

fn gateway() -> Gateway {
    Gateway::start(
        r#"
caches: { main: 8MiB, other: 16MiB }
sites:
  - routes:
      - { match: /main, cache: main, proxy: 127.0.0.1:9 }
      - { match: /other, cache: other, proxy: 127.0.0.1:9 }
"#,
    )
}

fn cache(gateway: &Gateway, arguments: &[&str]) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    let admin = gateway.word("@admin");
    let output = edgeway(dir.path(), &[&["cache", "--admin", &admin], arguments].concat(), &[]);
    (output.code, output.all())
}

#[test]
fn the_caches_are_told_with_their_sizes() {
    let gateway = gateway();
    let told = gateway.admin("/cache").text();
    for part in ["\"main\"", "\"other\"", "8388608", "16777216"] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert!(gateway.admin("/cache/main").text().contains("\"objects\": []"));
    assert_eq!(gateway.admin("/cache/main?limit=x").status, 400);
    for path in ["/cache/none", "/cache/main/http%3A%2F%2Fa%2F", "/cache/main/x/y"] {
        assert_eq!(gateway.admin(path).status, 404, "{path}");
    }
    let (code, told) = cache(&gateway, &["stat"]);
    assert!(code == Some(0) && told.contains("8.0 MiB"), "{told}");
    assert_eq!(cache(&gateway, &["ls", "--cache", "main"]).0, Some(0));
    assert_eq!(cache(&gateway, &["ls", "--cache", "none"]).0, Some(1));
    assert_eq!(cache(&gateway, &["inspect", "http://a/"]).0, Some(1));
}

#[test]
fn a_purge_is_told_and_counted_and_no_browser_may() {
    let gateway = gateway();
    let post = |target: &str| Request::new("POST", target);
    for (request, status) in [
        (post("/cache/main/purge?url=http%3A%2F%2Fa%2F"), 200),
        (post("/cache/purge?tag=a&tag=b&soft"), 200),
        (post("/cache/none/purge?all"), 404),
        (post("/cache/main/purge"), 400),
        (post("/cache/main/purge?path=/"), 400),
        (post("/cache/main/purge?url=%4"), 400),
        (post("/cache/main/purge?all").header("Origin", "http://a"), 403),
        (post("/cache/main"), 405),
        (get("/cache/purge?all"), 404),
    ] {
        assert_eq!(gateway.admin_request(&request).status, status, "{}", request.target());
    }
    gateway.expect_metric("edgeway_cache_purges_total", &[("zone", "main")], 3.0);
    gateway.expect_metric("edgeway_cache_limit_bytes", &[("zone", "other"), ("tier", "memory")], 16_777_216.0);
    let dir = tempfile::tempdir().unwrap();
    let short = edgeway(dir.path(), &["purge", "--admin", &gateway.word("@admin"), "--cache", "main", "--all"], &[]);
    assert!(short.code == Some(0) && short.all().contains("main"), "{short:?}");
    gateway.expect_metric("edgeway_cache_purges_total", &[("zone", "main")], 4.0);
    let (code, told) = cache(&gateway, &["purge", "--cache", "other", "--prefix", "a.test/b?c&d", "--soft"]);
    assert!(code == Some(0) && told.contains("made stale: prefix a.test/b?c&d (in other)"), "{told}");
    assert_eq!(cache(&gateway, &["purge", "--soft"]).0, Some(2), "nothing is named");
    assert_eq!(cache(&gateway, &["purge", "--cache", "none", "--all"]).0, Some(1));
    gateway.expect_metric("edgeway_cache_purges_total", &[("zone", "other")], 3.0);
}

/// An origin whose responses have a tag for the first part of their path; `/varied/…` has variants.
fn origin() -> Origin {
    Origin::scripted("o", |seen: &Seen, _| {
        let tag = seen.path.split('/').nth(1).unwrap_or_default();
        let answer = Answer::cached("max-age=600, stale-if-error=30", seen.path.clone()).field("ETag", "\"a\"");
        let answer = answer.fields(&[("Cache-Tag", tag), ("Content-Type", "text/plain")]);
        if tag == "varied" { answer.field("Vary", "Accept-Language") } else { answer }
    })
}

fn stored(origin: &Origin, disk: Option<&Path>) -> Gateway {
    let disk = disk.map_or_else(String::new, |path| format!(", disk: {{ path: \"{}\", size: 1GiB }}", path.display()));
    Gateway::before(
        &[origin],
        &format!(
            "caches: {{ main: {{ memory: 8MiB{disk} }} }}\n\
             sites: [{{ routes: [{{ match: \"/*\", cache: main, proxy: \"@o\" }}] }}]\n"
        ),
    )
}

const PATHS: [&str; 4] = ["/shop/a", "/shop/b?c=d", "/blog/a", "/varied/a"];

#[track_caller]
fn fill(gateway: &Gateway) {
    for path in PATHS {
        for _ in 0..2 {
            assert_eq!(gateway.get(path).text(), path);
        }
    }
}

#[track_caller]
fn told(gateway: &Gateway, arguments: &[&str]) -> Value {
    let (code, text) = cache(gateway, &[arguments, &["--json"]].concat());
    assert_eq!(code, Some(0), "{arguments:?}: {text}");
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}"))
}

/// The URLs that `ls` names, without scheme and host, and the state of each; variants count, what tells them apart does not.
#[track_caller]
fn listed(gateway: &Gateway, prefix: &str) -> Vec<(String, String)> {
    let rows = told(gateway, &["ls", prefix]);
    let responses = rows.as_array().unwrap().iter().filter(|row| row["kind"] != "variants");
    let word = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    responses.map(|row| (word(row, "url").replace("http://edgeway.test", ""), word(row, "state"))).collect()
}

/// Which of the paths a state holds for, in the order of [`PATHS`].
#[track_caller]
fn with_state(gateway: &Gateway, state: &str) -> [bool; 4] {
    let rows = listed(gateway, "");
    PATHS.map(|path| rows.contains(&(path.to_owned(), state.to_owned())))
}

#[test]
fn what_is_stored_is_listed_and_told_in_full_in_memory_and_on_disk() {
    let (origin, dir) = (origin(), tempfile::tempdir().unwrap());
    let mut gateway = stored(&origin, Some(dir.path()));
    fill(&gateway);
    for tier in ["memory", "disk"] {
        assert_eq!(with_state(&gateway, "fresh"), [true; 4], "{tier}");
        assert_eq!(listed(&gateway, "edgeway.test/shop/").len(), 2);
        assert_eq!(listed(&gateway, "http://edgeway.test/blog").len(), 1);
        let (_, table) = cache(&gateway, &["ls", "edgeway.test/blog"]);
        assert!(table.contains(tier) && table.contains("http://edgeway.test/blog/a"), "{table}");
        let rows = told(&gateway, &["inspect", "edgeway.test/shop/b?c=d"]);
        let row = &rows[0];
        assert_eq!((&row["status"], &row["kind"], &row["tier"]), (&200.into(), &"whole".into(), &tier.into()));
        assert_eq!((&row["lifetime"], &row["stale_if_error"]), (&600.into(), &30.into()));
        assert_eq!(row["tags"].as_array().unwrap().len(), 1, "{row}");
        assert!(row["fields"].to_string().contains("text/plain"), "{row}");
        let id = row["id"].as_str().unwrap();
        assert_eq!(told(&gateway, &["inspect", id])[0]["url"], row["url"]);
        assert_eq!(told(&gateway, &["inspect", "edgeway.test/varied/a"]).as_array().unwrap().len(), 2);
        let (code, about) = cache(&gateway, &["inspect", id]);
        assert!(code == Some(0) && about.contains("fresh for another"), "{about}");
        let zone = &told(&gateway, &["stat"])[0];
        // Four responses, and the record that tells variants apart.
        assert_eq!(zone[tier]["objects"], 5, "{zone}");
        if tier == "memory" {
            assert_eq!((&zone["responses"]["hit"], &zone["hit_ratio"]), (&4.into(), &0.5.into()));
            gateway.signal("TERM");
            assert_eq!(gateway.wait_exit(DEADLINE).and_then(|status| status.code()), Some(0));
            gateway = stored(&origin, Some(dir.path()));
            let gateway = &gateway;
            crate::harness::eventually("the disk was looked through", || {
                told(gateway, &["stat"])[0]["disk"]["objects"] == 5
            });
        }
    }
    assert_eq!(origin.requests(), 4);
}

#[test]
fn each_kind_of_purge_holds_for_what_it_names_hard_and_soft_in_both_tiers() {
    let origin = origin();
    for on_disk in [false, true] {
        for (kind, value, holds) in [
            ("url", "http://edgeway.test/shop/b?c=d", [false, true, false, false]),
            ("url", "edgeway.test/varied/a", [false, false, false, true]),
            ("prefix", "edgeway.test/shop/", [true, true, false, false]),
            ("host", "edgeway.test", [true; 4]),
            ("tag", "blog", [false, false, true, false]),
            ("all", "", [true; 4]),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let gateway = stored(&origin, on_disk.then(|| dir.path()));
            fill(&gateway);
            let option = format!("--{kind}");
            let words: Vec<&str> = ["purge", &option, value].into_iter().filter(|word| !word.is_empty()).collect();
            let (code, text) = cache(&gateway, &[&words[..], &["--soft"]].concat());
            assert!(code == Some(0) && text.contains("made stale"), "{text}");
            assert_eq!(with_state(&gateway, "softly purged"), holds, "{kind} {value}");
            let escaped = value.replace('?', "%3F").replace('=', "%3D");
            let purge = Request::new("POST", &format!("/cache/main/purge?{kind}={escaped}"));
            assert_eq!(gateway.admin_request(&purge).status, 200, "{kind}");
            assert_eq!(with_state(&gateway, "purged"), holds, "{kind} {value}");
            let before = origin.requests();
            let is_hit = |path| gateway.get(path).headers.all("cache-status").join(",").contains("edgeway; hit");
            assert_eq!(PATHS.map(is_hit), holds.map(|holds| !holds), "{kind} {value}, on disk: {on_disk}");
            assert_eq!(origin.requests() - before, holds.iter().filter(|holds| **holds).count());
            assert_eq!(with_state(&gateway, "fresh"), [true; 4], "{kind} {value}: stored anew");
        }
    }
}
