//! What backends are told about the client, and whom we believe about it.

use crate::harness::{Connection, Gateway, Origin, get};

#[test]
fn a_backend_learns_who_asks() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(&[&origin], "sites:\n  - proxy: \"@a\"\n");
    let echo = gateway.request(&get("/").host("shop.test:8080")).echo();
    let port = gateway.word("@port");
    for (name, value) in [
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "shop.test:8080"),
        ("x-forwarded-port", &*port),
        ("host", "shop.test:8080"),
    ] {
        assert_eq!(echo.headers.all(name), [value], "{name}");
    }
    assert!(echo.header("x-request-id").is_some_and(|id| id.len() == 32), "{echo:?}");
    assert_eq!((echo.header("forwarded"), echo.header("via")), (None, None));
}

#[test]
fn a_stranger_is_not_believed() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(
        &[&origin],
        r#"
runtime: { trusted_proxies: [10.0.0.0/8] }
sites:
  - headers: { request: { set: { X-Client: "${client.ip}" } } }
    proxy: "@a"
"#,
    );
    let request = get("/")
        .header("X-Forwarded-For", "1.2.3.4")
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Host", "evil.test")
        .header("X-Forwarded-Port", "1")
        .header("Forwarded", "for=1.2.3.4")
        .header("X-Request-Id", "forged");
    let echo = gateway.request(&request).echo();
    let port = gateway.word("@port");
    for (name, value) in [
        ("x-client", "127.0.0.1"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "edgeway.test"),
        ("x-forwarded-port", &*port),
    ] {
        assert_eq!(echo.headers.all(name), [value], "{name}");
    }
    assert_ne!(echo.header("x-request-id"), Some("forged"));
    assert!(!echo.headers.all("forwarded").iter().any(|field| field.contains("1.2.3.4")), "{echo:?}");
}

const TRUSTING: &str = r#"
runtime: { trusted_proxies: [127.0.0.0/8, 10.0.0.0/8] }
sites:
  - headers: { request: { set: { X-Client: "${client.ip}", X-Peer: "${client.peer}", X-Scheme: "${request.scheme}" } } }
    proxy: "@a"
"#;

#[test]
fn a_trusted_proxy_is_believed_and_appended_to() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(&[&origin], TRUSTING);
    let request = get("/")
        .header("X-Forwarded-For", "203.0.113.7, 10.1.1.1")
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Host", "shop.test")
        .header("X-Forwarded-Port", "443")
        .header("X-Request-Id", "id-from-the-balancer");
    let echo = gateway.request(&request).echo();
    for (name, value) in [
        ("x-client", "203.0.113.7"),
        ("x-peer", "127.0.0.1"),
        ("x-scheme", "https"),
        ("x-forwarded-for", "203.0.113.7, 10.1.1.1, 127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "shop.test"),
        ("x-forwarded-port", "443"),
        ("x-request-id", "id-from-the-balancer"),
    ] {
        assert_eq!(echo.headers.all(name), [value], "{name}");
    }
}

#[test]
fn the_client_is_the_first_from_the_right_whom_we_do_not_trust() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(&[&origin], TRUSTING);
    for (told, client) in [
        (&["203.0.113.7"][..], "203.0.113.7"),
        (&["1.1.1.1, 203.0.113.7, 10.0.0.1"], "203.0.113.7"),
        (&["1.1.1.1", "203.0.113.7"], "203.0.113.7"),
        (&["1.1.1.1, nonsense, 10.0.0.1"], "10.0.0.1"),
        (&["2001:db8::7"], "2001:db8::7"),
        (&["10.0.0.2, 10.0.0.1"], "10.0.0.2"),
        (&[], "127.0.0.1"),
    ] {
        let request = told.iter().fold(get("/"), |request, field| request.header("X-Forwarded-For", field));
        assert_eq!(gateway.request(&request).echo().header("x-client"), Some(client), "{told:?}");
    }
}

#[test]
fn trust_goes_by_the_address_of_the_peer() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(
        &[&origin],
        r#"
runtime: { trusted_proxies: [127.0.0.2] }
sites:
  - headers: { request: { set: { X-Client: "${client.ip}" } } }
    proxy: "@a"
"#,
    );
    let request = get("/").header("X-Forwarded-For", "203.0.113.7");
    for (peer, client) in [("127.0.0.2", "203.0.113.7"), ("127.0.0.3", "127.0.0.3")] {
        let echo = Connection::open_from(peer, &gateway.address()).request(&request).echo();
        assert_eq!(echo.header("x-client"), Some(client), "{peer}");
    }
}

#[test]
fn a_request_id_that_is_not_plain_is_replaced() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(&[&origin], TRUSTING);
    for id in ["with space", "quo\"te", &*"x".repeat(129)] {
        let seen = gateway.request(&get("/").header("X-Request-Id", id)).echo();
        assert!(seen.header("x-request-id").is_some_and(|new| new.len() == 32), "{id}: {seen:?}");
    }
}

#[test]
fn each_request_has_an_id_of_its_own() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(&[&origin], "sites:\n  - proxy: \"@a\"\n");
    let mut connection = gateway.connect();
    let mut id = || connection.request(&get("/")).echo().header("x-request-id").expect("an id").to_owned();
    assert_ne!(id(), id());
}

#[test]
fn forwarded_and_via_are_written_when_wanted() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(
        &[&origin],
        r#"
runtime: { forwarded: { x_forwarded: false, forwarded: true, via: true } }
sites:
  - proxy: "@a"
"#,
    );
    let echo = gateway.request(&get("/").host("shop.test")).echo();
    for name in ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port"] {
        assert_eq!(echo.header(name), None, "{name}");
    }
    let forwarded = echo.header("forwarded").expect("a Forwarded field").replace('"', "");
    for part in ["for=127.0.0.1", "proto=http", "host=shop.test"] {
        assert!(forwarded.split(';').any(|given| given.trim() == part), "{part} in {forwarded}");
    }
    assert!(echo.header("via").is_some_and(|via| via.starts_with("1.1 ")), "{echo:?}");
}

#[test]
fn what_a_stranger_claims_is_dropped_even_when_we_write_nothing() {
    let origin = Origin::named("a");
    let gateway = Gateway::before(
        &[&origin],
        r#"
runtime: { forwarded: { x_forwarded: false, forwarded: false, via: false } }
sites:
  - proxy: "@a"
"#,
    );
    let echo =
        gateway.request(&get("/").header("X-Forwarded-For", "1.2.3.4").header("Forwarded", "for=1.2.3.4")).echo();
    assert_eq!((echo.header("x-forwarded-for"), echo.header("forwarded")), (None, None));
}

#[test]
fn a_unix_socket_has_neither_address_nor_port_to_tell() {
    let origin = Origin::named("a");
    let gateway =
        Gateway::before(&[&origin], "listeners: [\"@listen\", \"unix:@dir/edge.sock\"]\nsites:\n  - proxy: \"@a\"\n");
    let address = format!("unix:{}", gateway.dir().join("edge.sock").display());
    let echo = Connection::open(&address).request(&get("/")).echo();
    assert_eq!((echo.header("x-forwarded-for"), echo.header("x-forwarded-port")), (None, None));
    assert_eq!(echo.header("x-forwarded-proto"), Some("http"));
    // Whoever may write to the socket is believed.
    let request = get("/").header("X-Forwarded-For", "1.1.1.1").header("X-Forwarded-Port", "443");
    let echo = Connection::open(&address).request(&request).echo();
    assert_eq!((echo.header("x-forwarded-for"), echo.header("x-forwarded-port")), (Some("1.1.1.1"), Some("443")));
}
