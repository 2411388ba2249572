//! What operators see of the caches and do to them: the admin endpoints, and `edgeway cache`.

use crate::harness::{Gateway, Request, edgeway, get};

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
    let (code, told) = cache(&gateway, &["purge", "--cache", "other", "--prefix", "a.test/b?c&d", "--soft"]);
    assert!(code == Some(0) && told.contains("made stale: prefix a.test/b?c&d (in other)"), "{told}");
    assert_eq!(cache(&gateway, &["purge", "--soft"]).0, Some(2), "nothing is named");
    assert_eq!(cache(&gateway, &["purge", "--cache", "none", "--all"]).0, Some(1));
    gateway.expect_metric("edgeway_cache_purges_total", &[("zone", "other")], 3.0);
}
