//! The examples in conf/ are good documents, and what their comments promise is what a request meets.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{Connection, Gateway, Mood, Origin, Patient, Request, Response, edgeway, eventually, get};

fn conf() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conf")
}

/// Starts an example: the addresses on the left, all of which it must hold, are replaced by those on the right.
#[track_caller]
fn start(example: &str, origins: &[&Origin], addresses: &[(&str, &str)]) -> Gateway {
    let mut document = fs::read_to_string(conf().join(example)).unwrap();
    for (written, instead) in addresses {
        assert!(document.contains(written), "{example} holds no `{written}`");
        document = document.replace(written, instead);
    }
    let page = fs::read_to_string(conf().join("errors/503.html")).unwrap();
    Gateway::with_files(origins, &[("errors/503.html", &page)], &document)
}

const LISTEN: (&str, &str) = ("127.0.0.1:8080", "@listen");
/// A client of its own, told apart from the machines of a chain, which have 127.0.0.1.
const CLIENT: &str = "127.0.0.5";

#[track_caller]
fn ask_from(client: &str, gateway: &Gateway, request: &Request) -> Response {
    Connection::open_from(client, &gateway.address()).request(request)
}

/// Every whole document: the files of conf/ itself, and the `main.yaml` of its folders, whose other files are parts.
fn examples() -> Vec<PathBuf> {
    let conf = conf();
    let entries = |dir: &Path| -> Vec<PathBuf> {
        fs::read_dir(dir).expect("there is a conf/").map(|entry| entry.unwrap().path()).collect()
    };
    let mut found = Vec::new();
    for path in entries(&conf) {
        if path.is_dir() {
            found.extend(Some(path.join("main.yaml")).filter(|main| main.exists()));
        } else if path.extension().is_some_and(|kind| kind == "yaml") {
            found.push(path);
        }
    }
    assert!(!found.is_empty(), "no example in {}", conf.display());
    found.sort();
    found
}

#[test]
fn every_example_passes_the_check() {
    let mut faults = Vec::new();
    for path in examples() {
        let name = path.file_name().unwrap().to_str().unwrap();
        let output = edgeway(path.parent().unwrap(), &["check", name], &[]);
        if output.code != Some(0) || output.all().contains("warning:") {
            faults.push(format!("{} ({:?}):\n{}", path.display(), output.code, output.all()));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn caching_says_what_it_stores_by_what() {
    let document = fs::read_to_string(conf().join("caching.yaml")).unwrap();
    let explain = |url: &str, more: &[&str]| {
        let output = Gateway::command(&document, &[&["explain", "edgeway.yaml", "GET", url], more].concat());
        assert_eq!(output.code, Some(0), "{output:?}");
        output.stdout
    };
    for (url, more, told) in [
        (
            "http://a.test/assets/app.css?v=1&utm_source=x",
            &[][..],
            "cache     assets, as http://a.test/assets/app.css?v=1\n",
        ),
        ("http://a.test/video/1.mp4", &[], "cache     video, as http://a.test/video/1.mp4\n"),
        ("http://a.test/api/prices", &["-H", "Cookie: currency=eur"], "cookie currency"),
        ("http://a.test/api/prices", &["-H", "Authorization: Bearer x"], "cache     bypass"),
        ("http://a.test/shop/basket", &[], "filters   none\nrewrite   none\n"),
        ("http://a.test/", &[], "cache     assets, as http://a.test/\n"),
    ] {
        let said = explain(url, more);
        assert!(said.contains(told), "{url} {more:?}: {said}");
    }
}

#[test]
fn every_example_says_what_it_shows() {
    for path in examples() {
        assert!(fs::read_to_string(&path).unwrap().starts_with("# "), "{} opens with no comment", path.display());
    }
}

#[test]
fn the_demo_does_what_it_says() {
    let (one, two, three) = (Origin::named("one"), Origin::named("two"), Origin::named("three"));
    let (down, dead) = (Origin::refusing("down"), Origin::refusing("dead"));
    let gateway = start(
        "demo.yaml",
        &[&one, &two, &three, &down, &dead],
        &[
            ("${LISTEN:-127.0.0.1:8080}", "@listen"),
            ("${ADMIN:-127.0.0.1:9900}", "@admin"),
            ("${ORIGIN_ONE:-127.0.0.1:9101}", "@one"),
            ("${ORIGIN_TWO:-127.0.0.1:9102}", "@two"),
            ("${ORIGIN_THREE:-127.0.0.1:9103}", "@three"),
            ("127.0.0.1:9198", "@down"),
            ("127.0.0.1:9199", "@dead"),
        ],
    );
    let shop: Vec<String> = (0..4).map(|_| gateway.get("/shop/hello").echo().origin).collect();
    assert_eq!(shop.iter().filter(|origin| *origin == "one").count(), 3, "{shop:?}");
    assert_eq!(gateway.get("/shop/hello").echo().path, "/hello");
    let beta = get("/canary/x").header("X-Beta", "1");
    (0..5).for_each(|_| assert_eq!(gateway.request(&beta).echo().origin, "three"));
    let user = gateway.request(&get("/users/42/orders").header("Cookie", "a=b")).echo();
    assert_eq!((&*user.path, user.header("X-User-Id"), user.header("Cookie")), ("/v2/orders", Some("42"), None));
    let blog = gateway.get("/blog/some-post");
    assert_eq!((blog.status, blog.header("Location")), (308, Some("https://blog.example.com/some-post")));
    assert!(gateway.get("/whoami").text().starts_with("you are 127.0.0.1, and this is request "));
    assert_eq!(gateway.get("/internal/x").status, 403);
    assert_eq!(gateway.request(&get("/internal/x").header("X-Forwarded-For", "10.1.2.3")).status, 200);
    assert_eq!(gateway.get("/down").status, 502);
    assert_eq!(gateway.log_line("path", "/down")["tries"], 2);
    let nowhere = gateway.get("/nowhere");
    assert_eq!((nowhere.status, &*nowhere.text()), (404, "Nothing lives here. Try /shop/hello\n"));
    assert_eq!(gateway.request(&get("/").host("static.localhost")).text(), "<h1>another site</h1>\n");
}

#[test]
fn policies_choose_as_they_say() {
    let origins = ["one", "two", "three"].map(Origin::named);
    let addresses = [LISTEN, ("127.0.0.1:9101", "@one"), ("127.0.0.1:9102", "@two"), ("127.0.0.1:9103", "@three")];
    let gateway = start("policies.yaml", &origins.each_ref(), &addresses);
    let all = |requests: &dyn Fn(usize) -> Request| -> BTreeSet<String> {
        (0..30).map(|number| gateway.request(&requests(number)).echo().origin).collect()
    };
    let turns: Vec<_> = (0..6).map(|_| gateway.get("/turns/").echo().origin).collect();
    assert_eq!(turns.iter().filter(|origin| *origin == "one").count(), 4, "{turns:?}");
    for path in ["/reports/", "/fleet/", "/tiles/"] {
        assert_eq!(all(&|_| get(path)).len(), 3, "{path}");
    }
    assert!(!all(&|_| get("/regions/")).is_empty());
    assert_eq!(all(&|number| get(&format!("/assets/{number}.js"))).len(), 3);
    assert_eq!(all(&|number| get(&format!("/users/{number}?user=7"))).len(), 1);
    assert_eq!(all(&|number| get(&format!("/users/?user={number}"))).len(), 3);
    assert_eq!(all(&|_| get("/games/")).len(), 1);
}

#[test]
fn failover_goes_where_it_says() {
    let [near, busy, far, backup] = ["near", "busy", "far", "backup"].map(Patient::named);
    busy.request(Mood::Status(503));
    let patients = [&near, &busy, &far, &backup];
    let addresses = patients.map(Patient::address);
    let [a, b, c, d] = addresses.each_ref().map(String::as_str);
    let words = [LISTEN, ("127.0.0.1:9101", a), ("127.0.0.1:9102", b), ("127.0.0.1:9103", c), ("127.0.0.1:9104", d)];
    let gateway = start("failover.yaml", &[], &words);
    let expect = |name: &str| assert!((0..4).all(|_| gateway.get("/").text() == name), "not all from {name}");
    expect("near");
    assert!(busy.requests() > 0);
    let order = || gateway.request(&Request::new("POST", "/orders/1").body("one")).status;
    assert_eq!([order(), order()].iter().filter(|status| **status == 503).count(), 1, "busy has its turn");
    near.stop();
    expect("far");
    far.stop();
    busy.stop();
    expect("backup");
}

#[test]
fn sticky_keeps_clients_as_it_says() {
    let origins = ["one", "two"].map(Origin::named);
    let addresses = [LISTEN, ("127.0.0.1:9101", "@one"), ("127.0.0.1:9102", "@two")];
    let gateway = start("sticky.yaml", &origins.each_ref(), &addresses);
    for (path, drained) in [("/shop/", false), ("/forum/", true)] {
        for _ in 0..5 {
            let first = gateway.get(path);
            let field = first.header("set-cookie").unwrap();
            let cookie = field.split(';').next().unwrap();
            assert_eq!((cookie.starts_with("shop_server="), field.contains("Max-Age=28800")), (!drained, !drained));
            let again = gateway.request(&get(path).header("Cookie", cookie));
            assert_eq!(again.header("set-cookie"), None);
            assert_eq!(again.echo().origin, first.echo().origin);
            assert!(!drained || first.echo().origin == "one");
        }
    }
}

#[test]
fn health_leaves_out_whom_it_says() {
    let [one, two, backup] = ["one", "two", "backup"].map(Patient::named);
    let [a, b, c] = [&one, &two, &backup].map(|patient| patient.address());
    one.check(Mood::Body("ok"));
    two.check(Mood::Body("no"));
    backup.check(Mood::Body("ok"));
    let addresses = [
        LISTEN,
        ("127.0.0.1:9900", "@admin"),
        ("127.0.0.1:9101", &*a),
        ("127.0.0.1:9102", &*b),
        ("127.0.0.1:9103", &*c),
    ];
    let gateway = start("health.yaml", &[], &addresses);
    eventually("the first success brings a server in", || gateway.get("/api/").text() == "one");
    for _ in 0..6 {
        assert_eq!(gateway.get("/api/").text(), "one", "the answer to the check of two has another body");
    }
    one.request(Mood::Status(503));
    // Two further servers are tried for a request; the only one that is left is a backup.
    let answers: Vec<_> = (0..4).map(|_| gateway.get("/api/").status).collect();
    eventually("three in a row leave it out", || gateway.get("/api/").text() == "backup");
    assert!(answers.len() == 4 && two.requests() == 0, "{answers:?}");
    let path = format!("/upstreams/api/backends/{c}/drain");
    assert_eq!(gateway.admin_request(&Request::new("POST", &path)).status, 200);
    assert_eq!(gateway.get("/api/").status, 503);
}

#[test]
fn limits_refuse_and_mirror_what_they_say() {
    let (shop, next) = (Origin::named("shop"), Origin::named("next"));
    let reports = Origin::answering("reports", "HTTP/1.1 503 Out\r\nContent-Length: 3\r\nX-Origin: reports\r\n\r\nout");
    let addresses = [
        LISTEN,
        // One origin will do for the two servers.
        ("      - \"127.0.0.1:9101\"\n", ""),
        ("127.0.0.1:9102", "@shop"),
        ("127.0.0.1:9103", "@reports"),
        ("127.0.0.1:9104", "@shop"),
        ("127.0.0.1:9105", "@next"),
    ];
    let gateway = start("limits.yaml", &[&shop, &reports, &next], &addresses);
    for _ in 0..20 {
        assert_eq!(gateway.get("/reports/x").header("x-origin"), Some("reports"));
    }
    let refused = gateway.get("/reports/x");
    assert_eq!((refused.status, refused.header("x-origin"), refused.header("retry-after")), (503, None, Some("5")));
    assert_eq!(gateway.get("/search").echo().origin, "shop");
    for number in 1..=5 {
        assert_eq!(gateway.get("/cart/x").echo().origin, "shop");
        eventually("the copy arrives", || next.requests() == number);
    }
}

#[test]
fn discovery_finds_the_servers_that_it_says() {
    let (one, two, api, spare) =
        (Origin::named("one"), Origin::named("two"), Origin::named("api"), Origin::named("spare"));
    let read = |name: &str| fs::read_to_string(conf().join(name)).unwrap();
    let list = read("discovery/shop.yaml").replace("127.0.0.1:9101", "@one").replace("127.0.0.1:9102", "@two");
    let port = api.address().rsplit_once(':').unwrap().1;
    let document = read("discovery.yaml").replace("9103", port).replace("127.0.0.1:9104", "@spare");
    let document = document.replace(LISTEN.0, LISTEN.1);
    let gateway = Gateway::with_files(&[&one, &two, &spare], &[("discovery/shop.yaml", &list)], &document);
    let mut connection = gateway.connect();
    (0..12).for_each(|_| drop(connection.request(&get("/shop/x"))));
    assert_eq!((one.requests() + two.requests(), gateway.get("/").echo().origin.as_str()), (12, "api"));
    assert!(one.requests() > two.requests() && spare.requests() == 0);
    fs::write(gateway.dir().join("discovery/shop.yaml"), format!("[\"{}\"]", two.address())).unwrap();
    eventually("the new list is in force", || {
        let before = one.requests();
        (0..12).for_each(|_| assert_eq!(gateway.get("/shop/x").status, 200));
        one.requests() == before
    });
}

#[test]
fn routing_takes_the_routes_that_it_says() {
    let (web, api, next) = (Origin::named("web"), Origin::named("api"), Origin::named("next"));
    let addresses = [LISTEN, ("127.0.0.1:9101", "@web"), ("127.0.0.1:9102", "@api"), ("127.0.0.1:9103", "@next")];
    let gateway = start("routing.yaml", &[&web, &api, &next], &addresses);
    let cases = [
        ("GET", "/", "", "home"),
        ("GET", "/static", "", "static"),
        ("GET", "/static/a/b", "", "static"),
        ("GET", "/statics", "", "rest"),
        ("GET", "/administration", "", "admin"),
        ("GET", "/users/7/files/a/b", "", "user-files"),
        ("GET", "/users/me", "", "me"),
        ("GET", "/users/7", "", "user"),
        ("GET", "/2024/05", "", "archive"),
        ("GET", "/rss", "", "feeds"),
        ("POST", "/api/w", "Content-Type: application/json; charset=utf-8", "api-write"),
        ("GET", "/api/r", "", "api-read"),
        ("POST", "/api/o", "Content-Type: text/plain", "api-other"),
        ("GET", "/preview/a?token=0123456789abcdef", "Cookie: a=b; beta=true", "preview"),
        ("GET", "/preview/b?token=short", "Cookie: beta=true", "rest"),
        ("GET", "/search?q=x", "", "search"),
        ("GET", "/search?q=bot", "User-Agent: GreatBot/1", "rest"),
        ("GET", "/search?n=1", "X-Search: ", "search"),
        ("GET", "/drill", "X-Maintenance: drill", "maintenance"),
    ];
    for (method, target, field, route) in cases {
        let mut request = Request::new(method, target).host("shop.example.com");
        if let Some((name, value)) = field.split_once(": ") {
            request = request.header(name, value);
        }
        gateway.request(&request);
        assert_eq!(gateway.log_line("path", target)["route"], *route, "{method} {target}");
    }
    assert_eq!(gateway.request(&get("/x").host("a.b.example.com")).echo().origin, "web");
    assert_eq!(gateway.request(&get("/x").host("example.com")).status, 421);
    let files = gateway.request(&get("/users/7/files/a/b").host("shop.example.com")).echo();
    assert_eq!((files.header("X-User"), files.header("X-File")), (Some("7"), Some("a/b")));
}

#[test]
fn rewriting_shows_servers_the_paths_that_it_says() {
    let app = Origin::named("app");
    let gateway = start("rewriting.yaml", &[&app], &[LISTEN, ("127.0.0.1:9101", "@app")]);
    for (sent, seen) in [
        ("/api/orders/7?a=1", "/orders/7?a=1"),
        ("/v1/orders", "/v2/orders"),
        ("/item/42/x", "/items/42/x"),
        ("/go/there", "/lookup/there"),
        ("/raw/a%2Db", "/raw/a%2Db"),
        ("/x/./b//%41", "/x/b/A"),
    ] {
        assert_eq!(gateway.get(sent).echo().path, seen, "{sent}");
    }
}

#[test]
fn headers_change_as_they_say() {
    let app = Origin::named("app");
    let gateway = start("headers.yaml", &[&app], &[LISTEN, ("127.0.0.1:9101", "@app")]);
    let request = get("/accounts/7?page=3").header("Cookie", "session=s1").header("X-Internal-User", "root");
    let response = gateway.request(&request);
    let echo = response.echo();
    for (name, value) in [
        ("X-Account", Some("7")),
        ("X-Session", Some("s1")),
        ("X-Page", Some("3")),
        ("X-Client", Some("127.0.0.1")),
        ("X-Internal-User", None),
    ] {
        assert_eq!(echo.header(name), value, "{name}");
    }
    for (name, value) in [
        ("X-Content-Type-Options", Some("nosniff")),
        ("Vary", Some("Cookie")),
        ("Server", None),
        ("X-Powered-By", None),
    ] {
        assert_eq!(response.header(name), value, "{name}");
    }
    assert_eq!(response.header("X-Request-Id"), echo.header("X-Request-Id"));
    let rest = gateway.get("/other");
    assert_eq!((rest.header("X-Template"), rest.echo().header("X-Checked")), (Some("${not replaced}"), Some("true")));
}

#[test]
fn errors_have_the_pages_that_they_say() {
    let (api, web) = (Origin::refusing("api"), Origin::refusing("web"));
    let addresses = [LISTEN, ("127.0.0.1:9101", "@api"), ("127.0.0.1:9102", "@web")];
    let gateway = start("errors.yaml", &[&api, &web], &addresses);
    for (path, status, kind, holds) in [
        ("/nowhere", 404, "text/html", "not here"),
        ("/web/x", 502, "text/html", "our fault"),
        ("/api/x", 502, "text/html", "our fault"),
        ("/closed/x", 503, "text/html; charset=utf-8", "Back soon"),
        ("/private/x", 403, "text/plain", "no\n"),
        ("/api/private/x", 403, "application/json", "{\"error\":true}"),
    ] {
        let response = gateway.get(path);
        assert_eq!((response.status, response.header("Content-Type")), (status, Some(kind)), "{path}");
        assert!(response.text().contains(holds), "{path}: {}", response.text());
    }
}

#[test]
fn in_the_chain_before_a_load_balancer_apps_learn_the_true_client() {
    let (one, two, off) = (Origin::named("one"), Origin::named("two"), Origin::refusing("off"));
    let balancer = Gateway::before(
        &[&one, &two],
        "runtime: { trusted_proxies: [127.0.0.1] }\nsites:\n  - { hosts: [shop.example.com], proxy: [\"@one\", \"@two\"] }\n",
    );
    let balancer_at = balancer.address();
    // Of the two load balancers of the example one is down.
    let addresses = [("0.0.0.0:8080", "@listen"), ("10.0.0.10:80", &*balancer_at), ("10.0.0.11:80", "@off")];
    let edge = start("chain-edge-lb-apps.yaml", &[&off], &addresses);
    let claims = |path: &str| get(path).host("shop.example.com").header("X-Forwarded-For", "198.51.100.7");
    for number in 0..4 {
        let path = format!("/cart/{number}");
        let echo = ask_from(CLIENT, &edge, &claims(&path)).echo();
        assert_eq!(echo.header("X-Forwarded-For"), Some("127.0.0.5, 127.0.0.1"), "{echo:?}");
        assert_eq!(echo.header("Host"), Some("shop.example.com"));
        assert!(echo.header("Forwarded").is_some_and(|value| value.starts_with("for=127.0.0.5;")), "{echo:?}");
        let at_the_edge = edge.log_line("path", &*path);
        let at_the_balancer = balancer.log_line("path", &*path);
        assert_eq!((&at_the_edge["client"], &at_the_balancer["client"]), (&CLIENT.into(), &CLIENT.into()));
        assert_eq!(at_the_edge["id"], at_the_balancer["id"], "one id all the way");
    }
    assert_eq!((one.requests(), two.requests()), (2, 2));
    assert_eq!(ask_from(CLIENT, &edge, &claims("/ops/x")).status, 404, "a claimed address opens nothing");
    assert_eq!(ask_from(CLIENT, &edge, &get("/").host("other.example.com")).status, 421);
}

#[test]
fn in_the_chain_behind_a_load_balancer_apps_and_log_know_the_true_client() {
    let (one, two, three) = (Origin::named("one"), Origin::named("two"), Origin::named("three"));
    let addresses = [
        ("0.0.0.0:8080", "@listen"),
        ("admin: 127.0.0.1:9900", "admin: \"@admin\""),
        ("10.0.0.0/16, 10.1.0.0/16", "127.0.0.1"),
        ("10.0.2.10:3000", "\"@one\""),
        ("10.0.2.11:3000", "\"@two\""),
        ("10.0.2.12:3000", "\"@three\""),
    ];
    let edge = start("chain-cloud-lb-edge-apps.yaml", &[&one, &two, &three], &addresses);
    // As load balancers in clouds do, it appends the client's address to whatever the client wrote, and has ended TLS.
    let cloud = Gateway::start(&format!(
        "runtime: {{ trusted_proxies: [127.0.0.0/8] }}
sites:
  - routes:
      - {{ match: /plain/*, headers: {{ request: {{ set: {{ X-Forwarded-Proto: http }} }} }}, proxy: \"{0}\" }}
      - {{ match: /*, headers: {{ request: {{ set: {{ X-Forwarded-Proto: https }} }} }}, proxy: \"{0}\" }}
",
        edge.address()
    ));
    let claims = |path: &str| get(path).host("app.example.com").header("X-Forwarded-For", "198.51.100.7");
    for number in 0..3 {
        let path = format!("/cart/{number}");
        let echo = ask_from(CLIENT, &cloud, &claims(&path)).echo();
        assert_eq!(echo.header("X-Client"), Some(CLIENT), "{echo:?}");
        assert_eq!(echo.header("X-Forwarded-For"), Some("198.51.100.7, 127.0.0.5, 127.0.0.1"), "{echo:?}");
        assert_eq!(echo.header("X-Forwarded-Proto"), Some("https"), "{echo:?}");
        let line = edge.log_line("path", &*path);
        assert_eq!((&line["client"], &line["scheme"]), (&CLIENT.into(), &"https".into()));
    }
    assert_eq!([&one, &two, &three].map(Origin::requests), [1, 1, 1]);
    let plain = ask_from(CLIENT, &cloud, &claims("/plain/x"));
    assert_eq!((plain.status, plain.header("Location")), (308, Some("https://app.example.com/plain/x")));
    assert_eq!(edge.get("/healthz").text(), "ok\n");
    // Whoever comes past the load balancer is not believed.
    let direct = ask_from(CLIENT, &edge, &claims("/direct")).echo();
    assert_eq!(direct.header("X-Client"), Some(CLIENT), "{direct:?}");
}

#[test]
fn static_responses_need_no_server() {
    let gateway = start("static-responses.yaml", &[], &[LISTEN]);
    for (host, path, status, location) in [
        ("www.example.com", "/ping", 204, None),
        ("www.example.com", "/robots.txt", 200, None),
        ("www.example.com", "/posts/a?b=c", 308, Some("https://blog.example.com/a")),
        ("www.example.com", "/account/x?y=z", 308, Some("https://www.example.com/account/x?y=z")),
        ("www.example.com", "/old/x?y=z", 301, Some("/new")),
        ("www.example.com", "/legacy/x", 410, None),
        ("example.com", "/any?x=1", 301, Some("http://www.example.com/any?x=1")),
    ] {
        let response = gateway.request(&get(path).host(host));
        assert_eq!((response.status, response.header("Location")), (status, location), "{host}{path}");
    }
    let contact = gateway.request(&get("/.well-known/security.txt").host("www.example.com"));
    assert_eq!(
        (contact.header("Content-Type"), contact.header("Cache-Control")),
        (Some("text/plain"), Some("max-age=86400"))
    );
    assert!(contact.text().starts_with("Contact: "), "{contact:?}");
}

#[test]
fn filters_run_in_order_and_the_first_that_answers_ends_it() {
    let app = Origin::named("app");
    // A proxy before us may say who the client is, so that one machine can be many clients.
    let trust = ("listeners:", "runtime: { trusted_proxies: [127.0.0.1] }\nlisteners:");
    let gateway = start("filters.yaml", &[&app], &[trust, LISTEN, ("127.0.0.1:9101", "@app")]);
    for (client, path, status) in [
        ("203.0.113.9", "/any", 403),
        ("2001:db8:bad::1", "/any", 403),
        ("198.51.100.9", "/any", 200),
        ("198.51.100.9", "/office/x", 404),
        ("198.51.100.7", "/office/x", 200),
        ("10.1.1.1", "/office/x", 200),
        ("10.9.1.1", "/office/x", 404),
    ] {
        let response = gateway.request(&get(path).header("X-Forwarded-For", client));
        assert_eq!(response.status, status, "{client} {path}");
        if status == 200 && path.starts_with("/office") {
            assert_eq!(response.header("Cache-Control"), Some("private"));
            assert_eq!(response.echo().header("X-Office"), Some("true"));
        }
    }
    assert_eq!(app.requests(), 3);
}

#[test]
fn forwarded_believes_only_whom_it_lists() {
    let app = Origin::named("app");
    let trust = ("trusted_proxies: [10.0.0.0/8, ", "trusted_proxies: [127.0.0.1, 10.0.0.0/8, ");
    let gateway = start("forwarded.yaml", &[&app], &[trust, LISTEN, ("127.0.0.1:9101", "@app")]);
    // From the right: 10.1.2.3 is a proxy, 198.51.100.7 is the client, and what stands before that is only a claim.
    let office = get("/office/x").header("X-Forwarded-For", "192.0.2.1, 198.51.100.7, 10.1.2.3");
    let echo = gateway.request(&office).echo();
    assert_eq!(echo.header("X-Forwarded-For"), Some("192.0.2.1, 198.51.100.7, 10.1.2.3, 127.0.0.1"));
    assert!(echo.header("Forwarded").is_some() && echo.header("Via") == Some("1.1 edgeway"), "{echo:?}");
    assert_eq!(ask_from(CLIENT, &gateway, &office).status, 403, "a stranger cannot claim to be in the office");
    let stranger = ask_from(CLIENT, &gateway, &get("/x").header("X-Forwarded-For", "198.51.100.7")).echo();
    assert_eq!(stranger.header("X-Forwarded-For"), Some(CLIENT));
}
