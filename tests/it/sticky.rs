//! Sticky sessions: a client stays with the server that it had first, by a cookie that it can neither read nor make.

use crate::harness::{Gateway, H2, Origin, Request, Response, get};

const DOCUMENT: &str = r#"
upstreams: { api: { servers: ["@a", "@b", "@c"], sticky: { cookie: server, secret: "only the gateways know" } } }
sites:
  - proxy: api
"#;

fn origins() -> [Origin; 3] {
    ["a", "b", "c"].map(Origin::named)
}

/// The cookie that a response sets, as a client sends it, and its attributes.
#[track_caller]
fn cookie(response: &Response) -> (String, String) {
    let fields = response.headers.all("set-cookie");
    assert_eq!(fields.len(), 1, "one cookie: {fields:?}");
    let (cookie, attributes) = fields[0].split_once("; ").expect("attributes");
    (cookie.to_owned(), attributes.to_owned())
}

fn with(cookie: &str) -> Request {
    get("/").header("Cookie", cookie)
}

/// The origin that answers a request with this cookie, for which no new one may be set.
#[track_caller]
fn who_keeps(gateway: &Gateway, cookie: &str) -> String {
    let response = gateway.request(&with(cookie));
    assert_eq!(response.header("set-cookie"), None);
    response.echo().origin
}

#[test]
fn a_client_stays_with_its_server_and_others_are_shared_out() {
    let [a, b, c] = &origins();
    let gateway = Gateway::before(&[a, b, c], DOCUMENT);
    let mut begun = Vec::new();
    for _ in 0..3 {
        let first = gateway.get("/");
        let (cookie, attributes) = cookie(&first);
        assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax");
        begun.push((cookie, first.echo().origin));
    }
    begun.sort_by(|one, other| one.1.cmp(&other.1));
    assert_eq!([&*begun[0].1, &*begun[1].1, &*begun[2].1], ["a", "b", "c"]);
    for _ in 0..5 {
        for (cookie, origin) in &begun {
            assert_eq!(who_keeps(&gateway, cookie), *origin);
            assert_eq!(who_keeps(&gateway, &format!("theme=dark; {cookie}; n=1")), *origin);
        }
    }
    // Over HTTP/2 a client may send its cookies in pieces.
    let mut client = H2::open(&gateway.address());
    let response = client.request(&get("/").header("Cookie", "theme=dark").header("Cookie", &begun[1].0));
    assert_eq!((response.header("set-cookie"), &*response.echo().origin), (None, "b"));
}

#[test]
fn a_cookie_that_no_gateway_made_chooses_no_server() {
    let [a, b, c] = &origins();
    let gateway = Gateway::before(&[a, b, c], DOCUMENT);
    let stolen = Gateway::before(&[a, b, c], &DOCUMENT.replace("only the gateways", "others do not"));
    let (other, _) = cookie(&stolen.get("/"));
    let label = format!("server={}", a.address());
    for forged in [&*other, &label, "server=0", "server=", "server=AAAAAAAAAAAAAAAAAAAAAA"] {
        let mut seen: Vec<String> = (0..3)
            .map(|_| {
                let response = gateway.request(&with(forged));
                assert!(cookie(&response).0.len() > "server=".len(), "{forged} is replaced");
                response.echo().origin
            })
            .collect();
        seen.sort();
        assert_eq!(seen, ["a", "b", "c"], "{forged} counts as no cookie");
    }
}

#[test]
fn over_https_the_cookie_is_secure() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(
        &[&origin],
        r#"
runtime: { trusted_proxies: [127.0.0.0/8] }
upstreams:
  api: { servers: ["@a"], sticky: { same_site: strict, max_age: 8h, path: /shop } }
sites:
  - proxy: api
"#,
    );
    for (scheme, secure) in [("http", ""), ("https", "; Secure")] {
        let response = gateway.request(&get("/").header("X-Forwarded-Proto", scheme));
        let (cookie, attributes) = cookie(&response);
        assert!(cookie.starts_with("edgeway_") && !cookie.contains("api"), "{cookie}");
        assert_eq!(attributes, format!("Path=/shop; HttpOnly; SameSite=Strict; Max-Age=28800{secure}"));
    }
}

#[test]
fn a_session_moves_when_its_server_stops_and_then_stays() {
    let [a, b, c] = origins();
    let gateway = Gateway::before(&[&a, &b, &c], DOCUMENT);
    let first = gateway.get("/");
    let (old, _) = cookie(&first);
    let stopped = first.echo().origin;
    let left: Vec<Origin> = [a, b, c].into_iter().filter(|origin| origin.name() != stopped).collect();
    let moved = gateway.request(&with(&old));
    let (new, attributes) = cookie(&moved);
    assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax");
    let now = moved.echo().origin;
    assert!(new != old && left.iter().any(|origin| origin.name() == now), "{now}");
    for _ in 0..5 {
        assert_eq!(who_keeps(&gateway, &new), now);
    }
}

#[test]
fn a_server_that_drains_keeps_its_sessions_and_gets_no_new_ones() {
    let [a, b, c] = &origins();
    let gateway = Gateway::before(&[a, b, c], DOCUMENT);
    let begun: Vec<_> = (0..3).map(|_| gateway.get("/")).map(|got| (cookie(&got).0, got.echo().origin)).collect();
    gateway.reload(&DOCUMENT.replace("\"@a\"", "{ address: \"@a\", drain: true }"));
    for (cookie, origin) in &begun {
        assert_eq!(who_keeps(&gateway, cookie), *origin);
    }
    for _ in 0..6 {
        assert_ne!(gateway.get("/").echo().origin, "a");
    }
}

#[test]
fn sessions_outlive_a_reload_and_gateways_with_one_secret_agree() {
    let [a, b, c] = &origins();
    let random = DOCUMENT.replace("{ cookie: server, secret: \"only the gateways know\" }", "true");
    for (document, agree) in [(DOCUMENT, true), (&random, false)] {
        let gateway = Gateway::before(&[a, b, c], document);
        let begun: Vec<_> = (0..3).map(|_| gateway.get("/")).map(|got| (cookie(&got).0, got.echo().origin)).collect();
        gateway.reload(&document.replace("[\"@a\", \"@b\", \"@c\"]", "[\"@c\", \"@a\", \"@b\"]"));
        for (cookie, origin) in &begun {
            assert_eq!(who_keeps(&gateway, cookie), *origin);
        }
        let other = Gateway::before(&[a, b, c], document);
        for (cookie, origin) in &begun {
            if agree {
                assert_eq!(who_keeps(&other, cookie), *origin);
            } else {
                assert!(other.request(&with(cookie)).header("set-cookie").is_some());
            }
        }
    }
}

#[test]
fn an_error_of_a_server_begins_no_session() {
    let broken = Origin::answering("a", "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n");
    let missing = Origin::answering("b", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    for (origin, begins) in [(&broken, false), (&missing, true)] {
        let name = origin.name();
        let document =
            format!("upstreams: {{ api: {{ servers: [\"@{name}\"], sticky: true }} }}\nsites:\n  - proxy: api\n");
        let gateway = Gateway::before(&[origin], &document);
        assert_eq!(gateway.get("/").header("set-cookie").is_some(), begins, "{name}");
    }
    let gateway = Gateway::before(
        &[&Origin::refusing("a")],
        "upstreams: { api: { servers: [\"@a\"], sticky: true } }\nsites:\n  - proxy: api\n",
    );
    let failed = gateway.get("/");
    assert_eq!((failed.status, failed.header("set-cookie")), (502, None));
}

#[test]
fn explain_tells_whose_session_a_cookie_is() {
    let document = DOCUMENT.replace("@a", "10.0.0.1:80").replace("@b", "10.0.0.2:80").replace("@c", "10.0.0.3:80");
    let explain = |cookie: &str| {
        let field = format!("Cookie: server={cookie}");
        Gateway::command(&document, &["explain", "edgeway.yaml", "GET", "http://x.test/", "-H", &field]).stdout
    };
    let told = explain("unknown");
    assert!(told.contains("(one of 3: its turn, with a weight of 1 in 3)"), "{told}");
    // HMAC-SHA256 of the upstream's and the server's names, as any tool works it out.
    let told = explain("lei5TrP5Hwat6nfYlRNr4A");
    assert!(told.contains("backend   10.0.0.2:80 (the client has its cookie)"), "{told}");
}

#[test]
fn a_client_stays_with_the_branch_of_a_split_that_it_had_first() {
    let (old, new) = (Origin::named("old"), Origin::named("new"));
    let document = |old_share: u32, new_share: u32| {
        format!(
            "upstreams: {{ old: [\"{}\"], new: [\"{}\"] }}\nsites:\n  - split: {{ to: {{ old: {old_share}, new: {new_share} }}, sticky: cookie }}\n",
            old.address(),
            new.address()
        )
    };
    let gateway = Gateway::start(&document(1, 1));
    let first = gateway.get("/");
    let field = first.header("set-cookie").expect("a cookie").to_owned();
    assert!(field.contains("HttpOnly") && field.contains("SameSite=Lax"), "{field}");
    let cookie = field.split(';').next().unwrap().to_owned();
    let again = || gateway.request(&get("/").header("Cookie", &cookie));
    let branch = first.echo().origin;
    for _ in 0..20 {
        let response = again();
        assert_eq!((response.header("set-cookie"), response.echo().origin), (None, branch.clone()));
    }
    let others: Vec<_> = (0..40).map(|_| gateway.get("/").echo().origin).collect();
    assert!(others.contains(&"old".to_owned()) && others.contains(&"new".to_owned()), "each client is drawn");
    // The shares change: who has a branch stays, until it has no share any more.
    let (keeps, ends) =
        if branch == "old" { (document(1, 99), document(0, 1)) } else { (document(99, 1), document(1, 0)) };
    gateway.reload(&keeps);
    assert_eq!(again().echo().origin, branch);
    gateway.reload(&ends);
    let moved = again();
    assert!(moved.header("set-cookie").is_some() && moved.echo().origin != branch);
}
