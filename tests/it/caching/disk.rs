//! The disk tier: it outlives its process, however that ends, and its own failure is nobody's.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use super::is_hit;
use crate::harness::{Answer, Connection, DEADLINE, Gateway, Origin, Request, await_some, eventually, get};

fn document(path: &Path) -> String {
    let path = path.display();
    format!(
        "caches: {{ main: {{ memory: 1MiB, disk: {{ path: \"{path}\", size: 1GiB }} }} }}\n\
         sites: [{{ routes: [{{ match: \"/*\", cache: main, proxy: \"@o\" }}] }}]\n"
    )
}

/// The body of a path: of another length and other bytes for each.
fn body(path: &str) -> Vec<u8> {
    let seed = path.bytes().fold(17_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    let length = [100, 5_000, 40_000, 300_000][(seed % 4) as usize] + seed as usize % 97;
    let mut state = seed;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(next).collect()
}

/// An origin with a body of its own for each path.
fn origin() -> Origin {
    Origin::scripted("o", |seen, number| {
        let answer = Answer::cached("max-age=600", body(&seen.path)).field("ETag", "\"a\"");
        if number % 3 == 0 { answer.chunked() } else { answer }
    })
}

#[track_caller]
fn stop(mut gateway: Gateway) {
    gateway.signal("TERM");
    let status = gateway.wait_exit(DEADLINE).expect("it stops");
    assert_eq!(status.code(), Some(0), "{}", gateway.stderr());
}

#[test]
fn what_is_stored_outlives_a_stop() {
    let (origin, dir) = (origin(), tempfile::tempdir().unwrap());
    let paths: Vec<String> = (0..40).map(|number| format!("/{number}")).collect();
    let gateway = Gateway::before(&[&origin], &document(dir.path()));
    let mut connection = gateway.connect();
    for path in &paths {
        assert!(connection.request(&get(path)).body == body(path), "{path}");
    }
    drop(connection);
    stop(gateway);
    let gateway = Gateway::before(&[&origin], &document(dir.path()));
    for path in &paths {
        let response = gateway.get(path);
        assert!(is_hit(&response) && response.body == body(path), "{path}: {}", super::told(&response));
    }
    assert_eq!(origin.requests(), paths.len());
    let part = gateway.request(&get("/7").header("Range", "bytes=10-19"));
    assert!(part.status == 206 && part.body == body("/7")[10..20]);
}

#[test]
fn what_is_too_large_for_memory_is_read_from_disk() {
    let dir = tempfile::tempdir().unwrap();
    let large: Vec<u8> = (0..5_u32 << 20).map(|at| (at / 7) as u8).collect();
    let answer = Answer::cached("max-age=600", large.clone());
    let origin = Origin::scripted("o", move |_, _| answer.clone());
    let gateway = Gateway::before(&[&origin], &document(dir.path()));
    for _ in 0..3 {
        assert!(gateway.get("/").body == large);
    }
    for (first, last) in [(0, 9), (3 << 20, (3 << 20) + 70_000), (large.len() - 5, large.len() - 1)] {
        let part = gateway.request(&get("/").header("Range", &format!("bytes={first}-{last}")));
        assert!(part.status == 206 && part.body == large[first..=last], "{first}");
    }
    assert_eq!(origin.requests(), 1);
}

#[test]
fn purges_and_changes_outlive_a_stop() {
    let (origin, dir) = (origin(), tempfile::tempdir().unwrap());
    let gateway = Gateway::before(&[&origin], &document(dir.path()));
    for path in ["/purged", "/kept", "/changed"] {
        gateway.get(path);
    }
    let purge = Request::new("POST", "/cache/main/purge?url=http://edgeway.test/purged");
    assert_eq!(gateway.admin_request(&purge).status, 200);
    gateway.request(&Request::new("DELETE", "/changed"));
    stop(gateway);
    let gateway = Gateway::before(&[&origin], &document(dir.path()));
    let hits = ["/purged", "/kept", "/changed"].map(|path| is_hit(&gateway.get(path)));
    assert_eq!(hits, [false, true, false]);
}

/// Asks for random paths until told to stop; fails on any whole response with a wrong body.
fn load(address: &str, seed: u64, until: &AtomicBool, done: &AtomicUsize) {
    let mut random = seed;
    'connections: while !until.load(Relaxed) {
        let Ok(mut connection) = Connection::try_open(address) else { continue };
        while !until.load(Relaxed) {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let path = format!("/{}", (random >> 33) % 60);
            let request = get(&path);
            // A killed gateway breaks off; what comes whole must be right.
            let Ok(response) = connection.try_request(&request) else { continue 'connections };
            if response.status == 200 {
                assert!(response.body == body(&path), "{path}: {} {}", response.body.len(), super::told(&response));
                done.fetch_add(1, Relaxed);
            }
        }
    }
}

#[test]
fn however_often_it_is_killed_no_body_is_ever_wrong() {
    let (origin, dir) = (origin(), tempfile::tempdir().unwrap());
    for round in 0..6_u64 {
        let mut gateway = Gateway::before(&[&origin], &document(dir.path()));
        let (address, until, done) = (gateway.address(), AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for client in 0..4 {
                let (address, until, done) = (&address, &until, &done);
                scope.spawn(move || load(address, round * 10 + client, until, done));
            }
            let wanted = 30 + 40 * round as usize;
            eventually("the load runs", || done.load(Relaxed) > wanted);
            gateway.signal("KILL");
            gateway.wait_exit(DEADLINE).expect("it is dead");
            until.store(true, Relaxed);
        });
    }
    let gateway = Gateway::before(&[&origin], &document(dir.path()));
    for number in 0..60 {
        let path = format!("/{number}");
        assert!(gateway.get(&path).body == body(&path), "{path}");
    }
    let before = origin.requests();
    for number in 0..60 {
        assert!(is_hit(&gateway.get(&format!("/{number}"))), "{number}");
    }
    assert_eq!(origin.requests(), before);
}

#[test]
fn two_processes_share_one_directory() {
    let (origin, dir) = (origin(), tempfile::tempdir().unwrap());
    let both = [0, 1].map(|_| Gateway::before(&[&origin], &document(dir.path())));
    let (until, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for (client, gateway) in both.iter().cycle().take(4).enumerate() {
            let (address, until, done) = (gateway.address(), &until, &done);
            scope.spawn(move || load(&address, client as u64, until, done));
        }
        eventually("both have their load", || done.load(Relaxed) > 600);
        until.store(true, Relaxed);
    });
    // A purge at one reaches the other.
    for gateway in &both {
        gateway.get("/shared");
    }
    let purge = Request::new("POST", "/cache/main/purge?url=http://edgeway.test/shared");
    assert_eq!(both[0].admin_request(&purge).status, 200);
    eventually("the other has heard of it", || !is_hit(&both[1].get("/shared")));
    both.into_iter().for_each(stop);
    let before = origin.requests();
    let gateway = Gateway::before(&[&origin], &document(dir.path()));
    for number in 0..60 {
        let path = format!("/{number}");
        assert!(gateway.get(&path).body == body(&path), "{path}");
    }
    assert!(origin.requests() < before + 30, "{} were lost", origin.requests() - before);
}

#[test]
fn a_disk_that_fails_is_no_error_for_anybody() {
    let (origin, dir) = (origin(), tempfile::tempdir().unwrap());
    let path = dir.path().join("cache");
    let gateway = Gateway::before(&[&origin], &document(&path));
    assert!(gateway.get("/before").body == body("/before"));
    await_some("the directory can be removed", || {
        std::fs::remove_dir_all(&path).and_then(|()| std::fs::write(&path, "in the way")).ok()
    });
    for round in 0..2 {
        for number in 0..20 {
            let path = format!("/{number}");
            let response = gateway.get(&path);
            assert!(response.status == 200 && response.body == body(&path), "{round} {path}: {}", response.status);
        }
    }
    assert_eq!(gateway.admin("/readyz").status, 200);
    assert!(gateway.stderr().matches("disk").count() < 10, "it is logged once: {}", gateway.stderr());
}

#[test]
fn a_disk_that_is_full_is_no_error_for_anybody() {
    let (origin, dir) = (origin(), tempfile::tempdir().unwrap());
    let gateway = Gateway::with_small_files(&[&origin], 16, &document(dir.path()));
    for round in 0..2 {
        for number in 0..30 {
            let path = format!("/{number}");
            let response = gateway.get(&path);
            assert!(response.status == 200 && response.body == body(&path), "{round} {path}: {}", response.status);
        }
    }
    assert!(gateway.stderr().lines().count() < 10, "it is logged once: {}", gateway.stderr());
    let small = (0..30).map(|number| format!("/{number}")).find(|path| body(path).len() < 1_000).unwrap();
    assert!(is_hit(&gateway.get(&small)));
    // What could be written is there after a stop, and nothing else.
    stop(gateway);
    let gateway = Gateway::before(&[&origin], &document(dir.path()));
    for number in 0..30 {
        let path = format!("/{number}");
        assert!(gateway.get(&path).body == body(&path), "{path}");
    }
}

#[test]
fn memory_and_disk_keep_their_limits() {
    let (origin, dir) = (origin(), tempfile::tempdir().unwrap());
    let yaml = document(dir.path()).replace("size: 1GiB", "size: 16MiB");
    let gateway = Gateway::before(&[&origin], &yaml);
    let mut connection = gateway.connect();
    for number in 0..300 {
        let path = format!("/limit/{number}");
        assert!(connection.request(&get(&path)).body == body(&path), "{path}");
    }
    for (tier, most) in [("memory", 1 << 20), ("disk", 16 << 20)] {
        eventually(tier, || {
            let taken = gateway.metrics().sum("edgeway_cache_bytes", &[("zone", "main"), ("tier", tier)]);
            taken.is_some_and(|taken| taken > 0.0 && taken <= f64::from(most) * 1.05)
        });
    }
    assert!(gateway.metrics().sum("edgeway_cache_evictions_total", &[("tier", "disk")]) > Some(0.0));
    let on_disk = std::process::Command::new("du").arg("-sk").arg(dir.path()).output().unwrap();
    let kib: u64 = String::from_utf8(on_disk.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    assert!(kib < (16 << 10) * 11 / 10, "{kib} KiB lie there");
}

#[test]
fn what_is_stored_outlives_a_reload() {
    let (origin, dir) = (origin(), tempfile::tempdir().unwrap());
    let yaml = document(dir.path());
    let gateway = Gateway::before(&[&origin], &yaml);
    gateway.get("/0");
    gateway.reload(&(yaml + "log: { level: warn }\n"));
    assert!(is_hit(&gateway.get("/0")));
    assert_eq!(origin.requests(), 1);
}

#[test]
fn a_directory_that_cannot_be_used_is_a_fault_of_the_document() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("file"), "").unwrap();
    let text = document(&place.path().join("file/below")).replace("@o", "127.0.0.1:9");
    std::fs::write(place.path().join("edgeway.yaml"), format!("admin: false\nlisteners: [\"127.0.0.1:0\"]\n{text}"))
        .unwrap();
    for command in ["check", "run"] {
        let output = crate::harness::edgeway(place.path(), &[command, "edgeway.yaml"], &[]);
        assert!(output.code == Some(1) && output.all().contains("below` cannot be used"), "{output:?}");
    }
}
