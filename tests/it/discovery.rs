//! Discovery: servers come and go while requests run, and whatever fails or is wrong changes nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::harness::{Connection, Gateway, NameServer, Origin, eventually, get, names, reserved_port};

/// Sends requests all the time while `act` runs, and fails when one of them fails. `act` may wait until so many more
/// requests have been answered.
#[track_caller]
fn under_load(gateway: &Gateway, act: impl FnOnce(&dyn Fn(usize))) {
    let (over, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let faults: Vec<String> = thread::scope(|scope| {
        let kept = || {
            let mut connection = gateway.connect();
            while !over.load(Relaxed) {
                let response = connection.try_request(&get("/")).map_err(|error| error.to_string())?;
                if response.status != 200 {
                    return Err(format!("{response:?}"));
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
        let more = |count: usize| {
            let before = done.load(Relaxed);
            eventually("requests go on", || {
                done.load(Relaxed) >= before + count || clients.iter().any(thread::ScopedJoinHandle::is_finished)
            });
        };
        // Let the clients end before a panic of `act` goes on.
        let acted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| act(&more)));
        over.store(true, Relaxed);
        let faults = clients.into_iter().filter_map(|client| client.join().unwrap().err()).collect();
        acted.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        faults
    });
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(done.load(Relaxed) > 0);
}

/// Writes beside and renames.
fn replace(file: &Path, text: &str) {
    let beside = file.with_extension("new");
    fs::write(&beside, text).and_then(|()| fs::rename(&beside, file)).unwrap();
}

/// Who answers now, within the next requests.
fn who(gateway: &Gateway) -> BTreeSet<String> {
    (0..12).map(|_| gateway.get("/").echo().origin).collect()
}

#[track_caller]
fn answered_by(gateway: &Gateway, origins: &[&str]) {
    let expected: BTreeSet<String> = origins.iter().map(|&origin| origin.to_owned()).collect();
    let mut seen = BTreeSet::new();
    eventually(&format!("{origins:?} answer, and nobody else"), || {
        seen = who(gateway);
        seen == expected
    });
}

#[track_caller]
fn says(gateway: &Gateway, text: &str) {
    eventually(&format!("it says: {text}"), || gateway.stderr().contains(text));
}

const API: (&str, &str) = ("upstream", "api");

#[test]
fn dns_changes_its_answer_under_load_and_no_request_fails() {
    let port = reserved_port();
    let origin = |name, ip: &str| Origin::at(name, &format!("{ip}:{port}"));
    let (a, b, c) = (origin("a", "127.0.0.2"), origin("b", "127.0.0.3"), origin("c", "127.0.0.4"));
    let dns = NameServer::start();
    dns.has("app.internal", &["127.0.0.2", "127.0.0.3"]);
    let gateway = Gateway::start(&format!(
        "upstreams:
  api: {{ discover: {{ dns: {{ name: app.internal, port: {port}, resolver: '{}', min_ttl: 100ms }} }} }}
sites:
  - proxy: api
",
        dns.address()
    ));
    assert_eq!(gateway.metrics().sum(names::BACKENDS, &[API]), Some(2.0));
    let results = |result| gateway.metrics().sum(names::DISCOVERY_UPDATES, &[API, ("result", result)]).unwrap();
    under_load(&gateway, |more| {
        eventually("the same answer changes nothing", || results("unchanged") >= 1.0);
        dns.has("app.internal", &["127.0.0.3", "127.0.0.4"]);
        eventually("the new server has requests", || c.requests() > 0);
        let left = a.requests();
        more(50);
        // What was under way when it left may still be counted.
        assert!(a.requests() <= left + 3, "{left}, then {}", a.requests());
        dns.fails("app.internal");
        says(&gateway, "`app.internal` cannot be resolved");
        more(50);
        dns.has("app.internal", &["127.0.0.4"]);
        eventually("one server is left", || gateway.metrics().sum(names::BACKENDS, &[API]) == Some(1.0));
        more(50);
    });
    assert!(a.requests() > 0 && b.requests() > 0);
    // What stays keeps what was counted of it.
    let counted = gateway.metrics().sum(names::UPSTREAM_REQUESTS, &[API, ("backend", c.address())]);
    assert_eq!(counted, Some(c.requests() as f64));
    assert!(results("updated") == 2.0 && results("failed") >= 1.0);
    assert!(gateway.metrics().sum(names::DISCOVERY_GOOD_AT, &[API]).unwrap() > 1e9);
    assert_eq!(gateway.stderr().matches("cannot be resolved").count(), 1, "{}", gateway.stderr());
}

#[test]
fn a_service_tells_ports_weights_and_priorities() {
    let (a, b, spare) = (Origin::named("a"), Origin::named("b"), Origin::named("spare"));
    let port = |origin: &Origin| origin.address().rsplit_once(':').unwrap().1.parse().unwrap();
    let dns = NameServer::start();
    for name in ["a.internal", "b.internal"] {
        dns.has(name, &["127.0.0.1"]);
    }
    dns.serves(
        "_http._tcp.app.internal",
        &[(10, 3, port(&a), "a.internal."), (10, 1, port(&b), "b.internal."), (20, 9, port(&spare), "a.internal.")],
    );
    let gateway = Gateway::start(&format!(
        "runtime: {{ threads: 1 }}
upstreams:
  api: {{ discover: {{ srv: {{ name: _http._tcp.app.internal, resolver: '{}', min_ttl: 100ms }} }} }}
sites:
  - proxy: api
",
        dns.address()
    ));
    let mut connection = gateway.connect();
    (0..16).for_each(|_| drop(connection.request(&get("/"))));
    assert_eq!((a.requests(), b.requests(), spare.requests()), (12, 4, 0));
    dns.serves("_http._tcp.app.internal", &[(10, 1, port(&b), "b.internal.")]);
    answered_by(&gateway, &["b"]);
}

const FILE: &str = "
log: { level: 'warn,edgeway::discover=info' }
upstreams:
  api: { discover: { file: { path: servers.yaml, every: 100ms } } }
sites:
  - proxy: api
";

#[test]
fn a_file_changes_under_load_and_a_bad_one_changes_nothing() {
    let (a, b, c) = (Origin::named("a"), Origin::named("b"), Origin::named("c"));
    let gateway = Gateway::with_files(&[&a, &b, &c], &[("servers.yaml", "[\"@a\", \"@b\"]\n")], FILE);
    let file = gateway.dir().join("servers.yaml");
    answered_by(&gateway, &["a", "b"]);
    under_load(&gateway, |more| {
        replace(&file, &format!("[\"{}\", \"{}\"]", b.address(), c.address()));
        eventually("the new server has requests", || c.requests() > 0);
        more(50);
        replace(&file, &format!("- {}\n- nonsense\n", a.address()));
        says(&gateway, "line 2: `nonsense` has no port");
        more(50);
        fs::remove_file(&file).unwrap();
        says(&gateway, "there is no file");
        more(50);
        // Half a list, written in place, and then the rest.
        let whole = format!("- {}\n- {}\n", a.address(), b.address());
        fs::write(&file, &whole[..whole.len() / 2]).unwrap();
        fs::write(&file, &whole).unwrap();
        let before = a.requests();
        eventually("the first server is back", || a.requests() > before);
        more(50);
    });
    answered_by(&gateway, &["a", "b"]);
    let results = |result| gateway.metrics().sum(names::DISCOVERY_UPDATES, &[API, ("result", result)]).unwrap();
    assert!(results("refused") >= 1.0 && results("failed") >= 1.0 && results("updated") >= 2.0);
    says(&gateway, "is known again");
    // What never left has its counters, what left for good has not.
    let counted =
        |origin: &Origin| gateway.metrics().sum(names::UPSTREAM_REQUESTS, &[API, ("backend", origin.address())]);
    assert_eq!((counted(&b), counted(&c)), (Some(b.requests() as f64), None));
}

#[test]
fn an_endpoint_goes_down_and_comes_back() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let at = format!("127.0.0.1:{}", reserved_port());
    let list = Arc::new(Mutex::new(format!("[\"{}\"]", a.address())));
    let registry = Origin::registry("registry", &at, &list);
    let gateway = Gateway::start(&format!(
        "upstreams:
  api:
    discover:
      http: {{ url: 'http://{at}/servers', every: 100ms, timeout: 2s, headers: {{ X-Gateway: edge }} }}
sites:
  - proxy: api
"
    ));
    answered_by(&gateway, &["a"]);
    under_load(&gateway, |more| {
        eventually("the endpoint is asked by tag", || registry.last().headers.get("if-none-match").is_some());
        assert_eq!(registry.last().headers.get("x-gateway"), Some("edge"));
        drop(registry);
        says(&gateway, "what was known before, if anything, stays in use");
        more(50);
        *list.lock().unwrap() = format!("[\"{}\", \"{}\"]", a.address(), b.address());
        let back = Origin::registry("registry", &at, &list);
        eventually("the new server has requests", || b.requests() > 0);
        more(50);
        *list.lock().unwrap() = "[\"http://nonsense\"]".to_owned();
        says(&gateway, "line 1: `http://nonsense` is a URL");
        more(50);
        *list.lock().unwrap() = format!("[\"{}\"]", b.address());
        eventually("one server is left", || gateway.metrics().sum(names::BACKENDS, &[API]) == Some(1.0));
        drop(back);
        more(50);
    });
    answered_by(&gateway, &["b"]);
}

#[test]
fn a_source_that_is_not_there_at_the_start_is_a_warning_until_it_is() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(&[&origin], FILE);
    let said = gateway.stderr();
    assert!(said.contains("warning: ") && said.contains("(upstreams.api.discover.file)"), "{said}");
    assert!(said.contains("there is no file"), "{said}");
    assert_eq!(gateway.get("/").status, 503);
    gateway.log_line("failure", "no_backend");
    replace(&gateway.dir().join("servers.yaml"), &format!("[\"{}\"]", origin.address()));
    eventually("the server is found", || gateway.get("/").status == 200);
}

#[test]
fn a_reload_while_the_source_is_down_keeps_the_servers() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let document = |retry: u32| {
        format!(
            "upstreams:
  api:
    discover: {{ file: {{ path: servers.yaml, every: 100ms }} }}
    servers: [\"@b\"]
    retry: {{ attempts: {retry} }}
sites:
  - proxy: api
"
        )
    };
    let gateway = Gateway::with_files(&[&a, &b], &[("servers.yaml", "[\"@a\"]")], &document(1));
    answered_by(&gateway, &["a", "b"]);
    fs::remove_file(gateway.dir().join("servers.yaml")).unwrap();
    gateway.reload(&document(2));
    says(&gateway, "the servers known before stay in use");
    answered_by(&gateway, &["a", "b"]);
    replace(&gateway.dir().join("servers.yaml"), &format!("[\"{}\"]", b.address()));
    answered_by(&gateway, &["b"]);
}

#[test]
fn servers_of_a_list_keep_their_settings() {
    let (a, b, spare) = (Origin::named("a"), Origin::named("b"), Origin::named("spare"));
    let list = r#"
- { address: "@a", weight: 3 }
- "@b"
- { address: "@spare", backup: true }
"#;
    let document = format!("runtime: {{ threads: 1 }}{FILE}");
    let gateway = Gateway::with_files(&[&a, &b, &spare], &[("servers.yaml", list)], &document);
    let mut connection = gateway.connect();
    (0..16).for_each(|_| drop(connection.request(&get("/"))));
    assert_eq!((a.requests(), b.requests(), spare.requests()), (12, 4, 0));
    let only_b = format!("- {{ address: {}, drain: true }}\n- {}\n", a.address(), b.address());
    replace(&gateway.dir().join("servers.yaml"), &only_b);
    answered_by(&gateway, &["b"]);
}
