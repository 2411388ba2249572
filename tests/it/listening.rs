//! Where it listens: IPv4, IPv6, Unix sockets, several at once.

use crate::harness::{Connection, Gateway, get};

#[test]
fn several_listeners_serve_the_same_sites() {
    let gateway = Gateway::start(
        "listeners: [\"@listen\", { address: [\"@second\", \"@third\"] }]\nsites:\n  - respond: hello\n",
    );
    for word in ["@listen", "@second", "@third"] {
        assert_eq!(Connection::open(&gateway.word(word)).request(&get("/")).text(), "hello", "{word}");
    }
}

#[test]
fn it_listens_by_ipv6() {
    let gateway = Gateway::start("listeners: [\"@listen\", \"[::1]:@port\"]\nsites:\n  - respond: \"${client.ip}\"\n");
    let address = format!("[::1]:{}", gateway.word("@port"));
    assert_eq!(Connection::open(&address).request(&get("/")).text(), "::1");
    assert_eq!(gateway.get("/").text(), "127.0.0.1");
}

#[test]
fn a_port_alone_listens_everywhere() {
    let gateway = Gateway::start("listeners: [\":@port\"]\nsites:\n  - respond: \"${client.ip}\"\n");
    assert_eq!(gateway.get("/").text(), "127.0.0.1", "not an IPv4 address in IPv6's clothes");
    let address = format!("[::1]:{}", gateway.word("@port"));
    assert_eq!(Connection::open(&address).request(&get("/")).text(), "::1");
}

#[test]
fn it_listens_at_a_unix_socket() {
    let mut gateway =
        Gateway::start("listeners: [\"@listen\", \"unix:@dir/edge.sock\"]\nsites:\n  - respond: \"${client.ip}\"\n");
    let path = gateway.dir().join("edge.sock");
    let response = Connection::open(&format!("unix:{}", path.display())).request(&get("/"));
    assert_eq!(response.text(), "127.0.0.1");
    gateway.signal("TERM");
    assert!(gateway.wait_exit(crate::harness::DEADLINE).is_some());
    assert!(!path.exists(), "the socket's file is left behind");
}

#[test]
fn a_socket_file_left_by_a_crash_is_no_hindrance() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let address = format!("unix:{}", path.display());
    let gateway = Gateway::start(&format!("listeners: [\"@listen\", \"{address}\"]\nsites:\n  - respond: hello\n"));
    assert_eq!(Connection::open(&address).request(&get("/")).text(), "hello");
    drop(gateway);
}
