//! WebSocket and other upgrades pass.

use std::time::{Duration, Instant};

use crate::harness::{Gateway, Origin, WebSocket, get};

#[test]
fn a_websocket_echoes_through_the_gateway() {
    let origin = Origin::websocket("ws");
    let gateway = Gateway::before(&[&origin], "sites:\n  - proxy: \"@ws\"\n");
    let mut socket = WebSocket::open(&gateway.address(), "/chat");
    for message in ["hi".to_owned(), "x".repeat(300), "y".repeat(200_000)] {
        socket.send(&message);
        assert_eq!(socket.receive().unwrap(), message);
    }
    socket.close();
    assert_eq!(origin.last().path, "/chat");
}

#[test]
fn messages_do_not_wait_for_one_another() {
    let origin = Origin::websocket("ws");
    let gateway = Gateway::before(&[&origin], "sites:\n  - proxy: \"@ws\"\n");
    let mut socket = WebSocket::open(&gateway.address(), "/");
    let messages: Vec<_> = (0..50).map(|number| format!("message {number}")).collect();
    messages.iter().for_each(|message| socket.send(message));
    for message in &messages {
        assert_eq!(socket.receive().unwrap(), *message);
    }
}

#[test]
fn a_websocket_may_be_silent_for_longer_than_a_response() {
    let origin = Origin::websocket("ws");
    let gateway = Gateway::before(
        &[&origin],
        r#"
upstreams: { chat: { servers: ["@ws"], timeouts: { read: 200ms, write: 200ms, total: 300ms, tunnel: 30s } } }
sites:
  - proxy: chat
"#,
    );
    let mut socket = WebSocket::open(&gateway.address(), "/");
    // The silence under test, longer than what bounds a response.
    std::thread::sleep(Duration::from_millis(800));
    socket.send("still there");
    assert_eq!(socket.receive().unwrap(), "still there");
}

#[test]
fn a_silent_tunnel_is_closed_in_the_end() {
    let origin = Origin::websocket("ws");
    let gateway = Gateway::before(
        &[&origin],
        r#"
upstreams: { chat: { servers: ["@ws"], timeouts: { tunnel: 300ms } } }
sites:
  - proxy: chat
"#,
    );
    let mut socket = WebSocket::open(&gateway.address(), "/");
    let begun = Instant::now();
    assert!(socket.receive().is_err());
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[test]
fn a_refused_upgrade_is_an_ordinary_response() {
    let origin = Origin::websocket("ws");
    let gateway = Gateway::before(&[&origin], "sites:\n  - proxy: \"@ws\"\n");
    let mut connection = gateway.connect();
    let request = get("/").header("Upgrade", "something").header("Connection", "upgrade");
    assert_eq!(connection.request(&request).status, 426);
}

#[test]
fn filters_see_an_upgrade_like_any_request() {
    let origin = Origin::websocket("ws");
    let gateway = Gateway::before(
        &[&origin],
        r#"
sites:
  - filters: [{ ip_rules: { deny: [127.0.0.1] } }]
    proxy: "@ws"
"#,
    );
    let request = get("/").header("Upgrade", "websocket").header("Connection", "Upgrade");
    assert_eq!(gateway.request(&request).status, 403);
    assert_eq!(origin.connections(), 0);
}

#[test]
fn another_protocol_passes_too_but_no_version_of_http() {
    let agreeing = Origin::answering(
        "agreeing",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: imap\r\n\r\n* OK ready\r\n",
    );
    let gateway = Gateway::before(&[&agreeing], "sites:\n  - proxy: \"@agreeing\"\n");
    let mut connection = gateway.connect();
    connection.send(
        "GET /mail HTTP/1.1\r\nHost: a.test\r\nConnection: x-secret, Upgrade\r\nX-Secret: 1\r\nUpgrade: imap\r\n\r\n",
    );
    let (_, said) = connection.expect_close();
    assert!(said.starts_with("HTTP/1.1 101") && said.ends_with("* OK ready\r\n"), "{said}");
    let seen = agreeing.last().headers;
    assert_eq!((seen.all("upgrade"), seen.all("connection")), (vec!["imap"], vec!["Upgrade"]));
    assert!(seen.all("x-secret").is_empty());

    let origin = Origin::named("a");
    let gateway = Gateway::before(&[&origin], "sites:\n  - proxy: \"@a\"\n");
    let response = gateway.request(
        &get("/")
            .header("Connection", "Upgrade, HTTP2-Settings")
            .header("Upgrade", "h2c")
            .header("HTTP2-Settings", "AAMAAABk"),
    );
    assert_eq!(response.status, 200);
    assert!(response.echo().headers.all("upgrade").is_empty());
}
