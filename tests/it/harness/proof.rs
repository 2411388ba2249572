//! The harness itself: its origins and clients understand one another, and what fails is told well.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::gateway::{Launch, Metrics};
use super::{Connection, H2, Origin, Request, WebSocket, get};

#[test]
fn a_client_and_an_origin_understand_one_another() {
    let origin = Origin::named("a");
    let mut connection = Connection::open(origin.address());
    for body in ["one", "two"] {
        let request = Request::new("POST", "/x?y=1").header("X-A", "1").header("X-A", "2").body(body);
        let echo = connection.request(&request).echo();
        assert_eq!((&*echo.origin, &*echo.method, &*echo.path, &*echo.body), ("a", "POST", "/x?y=1", body));
        assert_eq!(echo.headers.all("x-a"), ["1", "2"]);
    }
    assert_eq!((origin.requests(), origin.connections()), (2, 1));
    assert_eq!(origin.last().body, b"two");
}

#[test]
fn requests_sent_together_are_answered_in_order() {
    let origin = Origin::named("a");
    let mut connection = Connection::open(origin.address());
    connection.send([get("/1").bytes(), Request::new("HEAD", "/2").bytes(), get("/3").bytes()].concat());
    assert_eq!(connection.read_response("GET").echo().path, "/1");
    assert!(connection.read_response("HEAD").body.is_empty());
    assert_eq!(connection.read_response("GET").echo().path, "/3");
}

#[test]
fn a_body_ends_by_its_chunks_or_by_the_close() {
    for (raw, body) in [
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\n", "abcde"),
        ("HTTP/1.1 200 OK\r\n\r\nto the end", "to the end"),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "hi"),
    ] {
        let origin = Origin::answering("raw", raw);
        assert_eq!(Connection::open(origin.address()).request(&get("/")).text(), body, "{raw}");
    }
    let cut = Origin::answering("raw", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi");
    assert!(Connection::open(cut.address()).try_request(&get("/")).is_err());
}

#[test]
fn origins_misbehave_as_they_promise() {
    let refusing = Origin::refusing("refusing");
    assert!(Connection::try_open(refusing.address()).is_err());
    for origin in [Origin::closing("closing"), Origin::resetting("resetting")] {
        assert!(Connection::open(origin.address()).try_request(&get("/")).is_err(), "{}", origin.name());
    }
    let trickling = Origin::trickling("trickling", Duration::from_millis(20));
    let mut connection = Connection::open(trickling.address());
    connection.send(get("/").bytes());
    assert!(connection.read_some().unwrap() > 0);
    let holding = Origin::holding("holding");
    let mut connection = Connection::open(holding.address());
    connection.send(get("/late").bytes());
    super::eventually("the request is there", || holding.requests() == 1);
    holding.release();
    assert_eq!(connection.read_response("GET").echo().path, "/late");
    assert_eq!(Connection::open(Origin::sending("big", 300_000).address()).request(&get("/")).body.len(), 300_000);
}

#[test]
fn a_full_origin_neither_accepts_nor_refuses() {
    let full = Origin::full("full");
    let address = full.address().parse().unwrap();
    let error = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
}

#[test]
fn an_origin_stops_with_its_connections() {
    let origin = Origin::named("a");
    let address = origin.address().to_owned();
    let mut connection = Connection::open(&address);
    connection.request(&get("/"));
    drop(origin);
    connection.expect_close();
    super::eventually("nobody listens any more", || Connection::try_open(&address).is_err());
}

#[test]
fn a_unix_socket_serves_like_a_port() {
    let dir = tempfile::tempdir().unwrap();
    let origin = Origin::at_unix_socket("u", &dir.path().join("o.sock"));
    assert_eq!(Connection::open(origin.address()).request(&get("/")).echo().origin, "u");
}

#[test]
fn a_websocket_echoes() {
    let origin = Origin::websocket("ws");
    let mut socket = WebSocket::open(origin.address(), "/chat");
    for message in ["hi".to_owned(), "x".repeat(200), "y".repeat(70_000)] {
        socket.send(&message);
        assert_eq!(socket.receive().unwrap(), message);
    }
    socket.close();
}

/// Answers every stream with the method, the path and the body that came.
fn http2_origin() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (tcp, _) = listener.accept().unwrap();
            tcp.set_nonblocking(true).unwrap();
            let mut connection = h2::server::handshake(tokio::net::TcpStream::from_std(tcp).unwrap()).await.unwrap();
            for _ in 0..3 {
                let (request, mut respond) = connection.accept().await.unwrap().unwrap();
                tokio::spawn(async move {
                    let (head, mut body) = request.into_parts();
                    let mut said = format!("{} {} ", head.method, head.uri.path()).into_bytes();
                    while let Some(Ok(chunk)) = body.data().await {
                        said.extend_from_slice(&chunk);
                    }
                    let mut send = respond.send_response(http::Response::new(()), false).unwrap();
                    send.send_data(said.into(), true).unwrap();
                });
            }
            connection.graceful_shutdown();
            while connection.accept().await.is_some() {}
        });
    });
    address
}

#[test]
fn an_http2_client_sends_several_requests_at_once_and_sees_the_end() {
    let mut client = H2::open(&http2_origin());
    let responses = client.requests(&[get("/1"), Request::new("POST", "/2").body("two")]);
    assert_eq!(responses.iter().map(super::client::Response::text).collect::<Vec<_>>(), ["GET /1 ", "POST /2 two"]);
    assert_eq!(client.request(&get("/3")).text(), "GET /3 ");
    client.expect_close();
}

#[test]
fn a_program_that_is_no_gateway_is_told_so() {
    let fault = Launch { program: Path::new("/bin/false"), ..Launch::default() }.start("sites: []\n").err().unwrap();
    assert!(fault.contains("/bin/false ended (exit status: 1) before it was ready"), "{fault}");
    assert!(fault.contains("sites: []"), "{fault}");

    let fault = Launch { program: Path::new("/no/such"), ..Launch::default() }.start("").err().unwrap();
    assert!(fault.contains("cannot start /no/such"), "{fault}");

    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("idle");
    // Written by a child: a file that this process holds open for writing cannot be run while another thread forks.
    let write = "printf '#!/bin/sh\necho waiting for nothing >&2\nexec sleep 30\n' >\"$1\" && chmod +x \"$1\"";
    assert!(Command::new("sh").args(["-c", write, "sh"]).arg(&script).status().unwrap().success());
    let begun = Instant::now();
    let limit = Duration::from_millis(400);
    let fault = Launch { program: &script, ready_within: limit, ..Launch::default() }.start("").err().unwrap();
    assert!(fault.contains("was not ready within 400ms") && fault.contains("waiting for nothing"), "{fault}");
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[test]
fn samples_are_added_up_by_their_labels() {
    let metrics = Metrics::parse("# HELP a b\na{x=\"1\",y=\"p q\"} 2\na{x=\"2\",y=\"p q\"} 3\nb 1.5\n");
    assert_eq!(metrics.sum("a", &[("y", "p q")]), Some(5.0));
    assert_eq!(metrics.sum("a", &[("x", "2")]), Some(3.0));
    assert_eq!(metrics.sum("b", &[]), Some(1.5));
    assert_eq!(metrics.sum("a", &[("x", "3")]), None);
}
