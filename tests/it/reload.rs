//! A new document: all or nothing, and no request notices.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;

use crate::harness::{Connection, Gateway, Origin, eventually, get, names};

fn answering(text: &str) -> String {
    format!("sites:\n  - respond: {text}\n")
}

#[test]
fn no_request_fails_while_documents_change() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let to = |origin: &str| format!("upstreams: {{ api: [\"@{origin}\"] }}\nsites:\n  - proxy: api\n");
    let gateway = Gateway::before(&[&a, &b], &to("a"));
    let (over, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let faults: Vec<String> = thread::scope(|scope| {
        let kept = || {
            let mut connection = gateway.connect();
            while !over.load(Relaxed) {
                let response = connection.try_request(&get("/")).map_err(|error| error.to_string())?;
                if response.status != 200 {
                    return Err(format!("{response:?}"));
                }
                if response.header("connection") == Some("close") {
                    connection = gateway.connect();
                }
                done.fetch_add(1, Relaxed);
            }
            Ok(())
        };
        let fresh = || {
            while !over.load(Relaxed) {
                let response = Connection::try_open(&gateway.address()).and_then(|mut c| c.try_request(&get("/")));
                match response {
                    Ok(response) if response.status == 200 => done.fetch_add(1, Relaxed),
                    other => return Err(format!("{other:?}")),
                };
            }
            Ok(())
        };
        let clients = [scope.spawn(kept), scope.spawn(kept), scope.spawn(fresh)];
        for round in 0..10 {
            let before = done.load(Relaxed);
            gateway.reload(&to(if round % 2 == 0 { "b" } else { "a" }));
            eventually("requests go on after the reload", || {
                done.load(Relaxed) >= before + 20 || clients.iter().any(thread::ScopedJoinHandle::is_finished)
            });
        }
        over.store(true, Relaxed);
        clients.into_iter().filter_map(|client| client.join().unwrap().err()).collect()
    });
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(a.requests() > 0 && b.requests() > 0, "{} and {}", a.requests(), b.requests());
}

#[test]
fn a_bad_document_changes_nothing() {
    let gateway = Gateway::start(&answering("old"));
    let mut connection = gateway.connect();
    assert_eq!(connection.request(&get("/")).text(), "old");
    for bad in ["sites:\n  - respnd: new\n", "sites: [\n", "sites:\n  - proxy: nowhere\n"] {
        assert!(!gateway.try_reload(bad), "{bad}");
        assert_eq!(gateway.get("/").text(), "old", "{bad}");
        assert_eq!(connection.request(&get("/")).text(), "old", "{bad}");
    }
    eventually("the fault is told", || gateway.stderr().contains("did you mean `respond`?"));
    assert_eq!(gateway.metrics().sum(names::RELOADS, names::REFUSED), Some(3.0));
    gateway.reload(&answering("new"));
    assert_eq!(connection.request(&get("/")).text(), "new");
    assert_eq!(gateway.metrics().sum(names::RELOADS, names::RELOADED), Some(1.0));
}

#[test]
fn listeners_come_and_go_while_others_go_on() {
    let with = |addresses: &str| format!("listeners: [{addresses}]\nsites:\n  - respond: hello\n");
    let gateway = Gateway::start(&with("\"@listen\", \"@second\""));
    let (second, third) = (gateway.word("@second"), gateway.word("@third"));
    let mut kept = gateway.connect();
    kept.request(&get("/"));
    assert_eq!(Connection::open(&second).request(&get("/")).text(), "hello");
    assert!(Connection::try_open(&third).is_err());

    gateway.reload(&with("\"@listen\", \"@third\""));
    assert_eq!(kept.request(&get("/")).text(), "hello", "a connection on a listener that stays goes on");
    eventually("the new listener serves", || Connection::try_open(&third).is_ok());
    assert_eq!(Connection::open(&third).request(&get("/")).text(), "hello");
    eventually("the old listener is gone", || Connection::try_open(&second).is_err());
}

#[test]
fn a_listener_that_cannot_be_bound_refuses_the_document() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = Gateway::start(&answering("old"));
    let bad = format!("listeners: [\"@listen\", \"{}\"]\n{}", taken.local_addr().unwrap(), answering("new"));
    assert!(!gateway.try_reload(&bad));
    assert_eq!(gateway.get("/").text(), "old");
}

#[test]
fn a_request_ends_under_the_document_it_began_under() {
    let holding = Origin::holding("holding");
    let document = |value: &str| {
        format!("sites:\n  - headers: {{ response: {{ set: {{ X-Document: {value} }} }} }}\n    proxy: \"@holding\"\n")
    };
    let gateway = Gateway::before(&[&holding], &document("old"));
    let mut connection = gateway.connect();
    connection.send(get("/").bytes());
    eventually("the origin has the request", || holding.requests() == 1);
    gateway.reload(&document("new"));
    holding.release();
    assert_eq!(connection.read_response("GET").header("x-document"), Some("old"));
    assert_eq!(connection.request(&get("/")).header("x-document"), Some("new"));
}

#[test]
fn counts_outlive_a_reload() {
    let origin = Origin::named("a");
    let document = |name: &str| {
        format!(
            "upstreams: {{ api: [\"@a\"] }}\nsites:\n  - routes:\n      - {{ name: front, match: /a, proxy: api }}\n      \
             - {{ name: {name}, match: /b, proxy: api }}\n"
        )
    };
    let gateway = Gateway::before(&[&origin], &document("one"));
    gateway.get("/a");
    gateway.get("/a");
    gateway.expect_metric(names::REQUESTS, &[("route", "front")], 2.0);
    gateway.reload(&document("two"));
    gateway.get("/a");
    gateway.expect_metric(names::REQUESTS, &[("route", "front")], 3.0);
    gateway.expect_metric(names::UPSTREAM_REQUESTS, &[("upstream", "api")], 3.0);
}

#[test]
fn a_changed_file_is_noticed_when_wanted() {
    let watching = |text: &str| format!("runtime: {{ watch: 100ms }}\n{}", answering(text));
    let gateway = Gateway::start(&watching("old"));
    gateway.rewrite(&watching("new"));
    eventually("the new document is in force", || gateway.get("/").text() == "new");
    gateway.rewrite("sites: [");
    gateway.expect_metric(names::RELOADS, names::REFUSED, 1.0);
    assert_eq!(gateway.get("/").text(), "new");
}

#[test]
fn a_changed_include_is_noticed_too() {
    let gateway = Gateway::with_files(
        &[],
        &[("sites/a.yaml", "sites:\n  - respond: old\n")],
        "runtime: { watch: 100ms }\ninclude: [\"sites/*.yaml\"]\n",
    );
    assert_eq!(gateway.get("/").text(), "old");
    std::fs::write(gateway.dir().join("sites/a.yaml"), "sites:\n  - respond: something new\n").unwrap();
    eventually("the new document is in force", || gateway.get("/").text() == "something new");
}

#[test]
fn what_needs_a_restart_is_said() {
    let gateway = Gateway::start(&format!("runtime: {{ threads: 1 }}\n{}", answering("old")));
    gateway.reload(&format!("runtime: {{ threads: 2 }}\n{}", answering("new")));
    assert_eq!(gateway.get("/").text(), "new");
    eventually("it is said", || gateway.stderr().contains("threads"));
}

#[test]
fn many_reloads_at_once_end_in_the_last_document() {
    let gateway = Gateway::start(&answering("first"));
    for number in 0..20 {
        gateway.rewrite(&answering(&format!("number-{number}")));
        gateway.signal("HUP");
    }
    eventually("the last document is in force", || gateway.get("/").text() == "number-19");
}

#[test]
fn a_bad_document_is_refused_once_until_it_changes() {
    let watching = |rest: &str| format!("runtime: {{ watch: 50ms }}\n{rest}");
    let gateway = Gateway::with_files(
        &[],
        &[("sites/a.yaml", "sites:\n  - { hosts: [a.test], respond: a }\n")],
        &watching("include: [\"sites/*.yaml\"]\nsites:\n  - respond: old\n"),
    );
    let refused = |times: usize| {
        let said = gateway.stderr().matches("the old one stays in force").count();
        assert!(said <= times, "{}", gateway.stderr());
        said == times
    };
    for (round, bad) in ["sites: [{ respnd: new }]\n", "sites: [\n", "sites: [{ proxy: nowhere }]\n"].iter().enumerate()
    {
        gateway.rewrite(&watching(bad));
        eventually("it is refused", || refused(round + 1));
        // Many looks later.
        std::thread::sleep(std::time::Duration::from_millis(400));
        assert!(refused(round + 1));
    }
    assert_eq!(gateway.get("/").text(), "old");
    gateway.rewrite(&watching("sites:\n  - respond: new\n"));
    eventually("the good one is taken", || gateway.get("/").text() == "new");
}
