//! Origins: the servers behind the gateway, well-behaved and not.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::json;
use socket2::{Domain, Socket, Type};

use super::scripted::Answer;
use super::wait::DEADLINE;
use super::websocket::{CLOSE, accept_key, read_frame, write_frame};
use super::wire::{Framing, Headers, Stream, Wire};

/// A port for a gateway to bind: free a moment ago, given out once by this process, and outside of the range from which
/// the system takes ports for clients, so that no connection can snatch it meanwhile.
pub(crate) fn reserved_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        // Several test processes on one machine begin at different places.
        let start = (std::process::id() % 120) as u16 * 100;
        let port = 20_000 + (start + NEXT.fetch_add(1, Relaxed)) % 12_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// A request as an origin read it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Headers,
    pub(crate) body: Vec<u8>,
}

/// A server behind the gateway. It stops when dropped.
pub(crate) struct Origin {
    name: String,
    address: String,
    state: Arc<State>,
    /// Holds the port of an origin that does not listen, or the fillers of one that is full.
    _held: Vec<Socket>,
}

#[derive(Default)]
struct State {
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    open: Mutex<Vec<Stream>>,
    stopped: AtomicBool,
    released: Mutex<bool>,
    release: Condvar,
}

impl State {
    /// Whether the origin was told to go on within the deadline.
    fn wait_for_release(&self) {
        let released = self.released.lock().unwrap();
        drop(self.release.wait_timeout_while(released, DEADLINE, |released| !*released).unwrap());
    }
}

/// What becomes of a connection after a request was answered.
enum Then {
    Keep,
    Close,
}

impl Origin {
    /// Answers 200 and tells, as JSON, its name and the request: see `Response::echo`.
    pub(crate) fn named(name: &str) -> Self {
        let own = name.to_owned();
        Self::per_request(name, move |wire, seen, _| echo(&own, wire, seen))
    }

    /// The same, behind a Unix socket.
    pub(crate) fn at_unix_socket(name: &str, path: &Path) -> Self {
        let own = name.to_owned();
        let listener = UnixListener::bind(path).expect("a Unix socket");
        let accept = move || Ok(Stream::Unix(listener.accept()?.0));
        Self::accepting(name, format!("unix:{}", path.display()), accept, serve(move |w, s, _| echo(&own, w, s)))
    }

    /// The same, at this address.
    pub(crate) fn at(name: &str, address: &str) -> Self {
        let own = name.to_owned();
        let listener = TcpListener::bind(address).expect("the address is free");
        let accept = move || Ok(Stream::Tcp(listener.accept()?.0));
        Self::accepting(name, address.to_owned(), accept, serve(move |w, s, _| echo(&own, w, s)))
    }

    /// Answers with the text that it holds at the moment and an `ETag` of it, or 304 to those who have it; at this
    /// address.
    pub(crate) fn registry(name: &str, address: &str, text: &Arc<Mutex<String>>) -> Self {
        let text = Arc::clone(text);
        let listener = TcpListener::bind(address).expect("the address is free");
        let accept = move || Ok(Stream::Tcp(listener.accept()?.0));
        let answer = move |wire: &mut Wire, seen: &Seen, _: &State| {
            let text = text.lock().unwrap().clone();
            let tag = format!("\"{:x}\"", text.bytes().fold(7_u64, |sum, byte| sum.wrapping_mul(31) + u64::from(byte)));
            let head = match seen.headers.get("if-none-match") == Some(&*tag) {
                true => {
                    return write!(wire.stream, "HTTP/1.1 304 Not Modified\r\nETag: {tag}\r\n\r\n")
                        .map(|()| Then::Keep);
                }
                false => format!("HTTP/1.1 200 OK\r\nETag: {tag}\r\nContent-Length: {}\r\n\r\n", text.len()),
            };
            wire.stream.write_all((head + &text).as_bytes()).map(|()| Then::Keep)
        };
        Self::accepting(name, address.to_owned(), accept, serve(answer))
    }

    /// Reads requests and answers each with exactly these bytes, then closes.
    pub(crate) fn answering(name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::per_request(name, move |wire, _, _| wire.stream.write_all(&bytes).map(|()| Then::Close))
    }

    /// Answers each request with this status and its own name as the body, and keeps the connection.
    pub(crate) fn refusing_with(name: &str, status: u16) -> Self {
        Self::in_turn(name, &[status])
    }

    /// The same with one status after the other; the last one stays.
    pub(crate) fn in_turn(name: &str, statuses: &[u16]) -> Self {
        let (own, statuses) = (name.to_owned(), statuses.to_vec());
        Self::per_request(name, move |wire, _, state| {
            let number = state.seen.lock().unwrap().len();
            let status = statuses[(number - 1).min(statuses.len() - 1)];
            let length = own.len();
            write!(wire.stream, "HTTP/1.1 {status} Status\r\nContent-Length: {length}\r\nX-Origin: {own}\r\n\r\n{own}")
                .map(|()| Then::Keep)
        })
    }

    /// Answers each request with what `script` says, which gets the request and its number, from 1 on.
    pub(crate) fn scripted(name: &str, script: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static) -> Self {
        let number = AtomicUsize::new(0);
        Self::per_request(name, move |wire, seen, state| {
            let answer = script(seen, number.fetch_add(1, Relaxed) + 1);
            let keeps = answer.send(wire, &seen.method, || state.wait_for_release())?;
            Ok(if keeps { Then::Keep } else { Then::Close })
        })
    }

    /// Answers each request with a body of this many bytes.
    pub(crate) fn sending(name: &str, size: usize) -> Self {
        Self::per_request(name, move |wire, _, _| {
            write!(wire.stream, "HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n")?;
            let piece = vec![b'x'; 64 * 1024];
            let mut left = size;
            while left > 0 {
                let count = left.min(piece.len());
                wire.stream.write_all(&piece[..count])?;
                left -= count;
            }
            Ok(Then::Keep)
        })
    }

    /// Answers like a named one, but only after `release`.
    pub(crate) fn holding(name: &str) -> Self {
        let own = name.to_owned();
        Self::per_request(name, move |wire, seen, state| {
            state.wait_for_release();
            echo(&own, wire, seen)
        })
    }

    /// Sends the head and the first half of a body, and the other half only after `release`.
    pub(crate) fn holding_half(name: &str) -> Self {
        Self::per_request(name, |wire, _, state| {
            wire.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nfirst ")?;
            state.wait_for_release();
            wire.stream.write_all(b"second").map(|()| Then::Keep)
        })
    }

    /// Accepts and says nothing.
    pub(crate) fn silent(name: &str) -> Self {
        Self::per_connection(name, |mut wire, state| {
            while let Ok(true) = wire.more() {}
            state.wait_for_release();
        })
    }

    /// Sends a head, then one byte of body each `every`, without end.
    pub(crate) fn trickling(name: &str, every: Duration) -> Self {
        Self::per_request(name, move |wire, _, state| {
            wire.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")?;
            while !state.stopped.load(Relaxed) {
                wire.stream.write_all(b".")?;
                // The slowness under test.
                thread::sleep(every);
            }
            Ok(Then::Close)
        })
    }

    /// Sends one byte of a head each `every`, without end.
    pub(crate) fn trickling_head(name: &str, every: Duration) -> Self {
        Self::per_request(name, move |wire, _, state| {
            wire.stream.write_all(b"HTTP/1.1 200 OK\r\nX-Long: ")?;
            while !state.stopped.load(Relaxed) {
                wire.stream.write_all(b"x")?;
                // The slowness under test.
                thread::sleep(every);
            }
            Ok(Then::Close)
        })
    }

    /// Sends one 102 each `every`, without end.
    pub(crate) fn stalling(name: &str, every: Duration) -> Self {
        Self::per_request(name, move |wire, _, state| {
            while !state.stopped.load(Relaxed) {
                wire.stream.write_all(b"HTTP/1.1 102 Processing\r\n\r\n")?;
                // The slowness under test.
                thread::sleep(every);
            }
            Ok(Then::Close)
        })
    }

    /// Accepts, and closes at once.
    pub(crate) fn closing(name: &str) -> Self {
        Self::per_connection(name, |wire, _| wire.stream.shut())
    }

    /// Reads the request, and resets the connection before the first byte of a response.
    pub(crate) fn resetting(name: &str) -> Self {
        Self::per_connection(name, |mut wire, state| {
            let read = wire.head();
            // The list of open connections holds the socket, too: a reset needs the last hold.
            state.open.lock().unwrap().clear();
            if read.is_ok() {
                wire.stream.reset();
            }
        })
    }

    /// Answers the first request of each connection after `release` as if it kept the connection, and resets it at the second.
    pub(crate) fn forgetting(name: &str) -> Self {
        Self::per_connection(name, |mut wire, state| {
            let mut serve = || {
                wire.head()?;
                state.wait_for_release();
                wire.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
                wire.head()
            };
            let read = serve();
            state.open.lock().unwrap().clear();
            if let Ok(Some(_)) = read {
                wire.stream.reset();
            }
        })
    }

    /// Nobody listens here: connecting is refused, and nobody else can take the port meanwhile.
    pub(crate) fn refusing(name: &str) -> Self {
        let (socket, address) = bound();
        Self { name: name.into(), address, state: Arc::default(), _held: vec![socket] }
    }

    /// The queue of connections is full: connecting neither succeeds nor fails.
    pub(crate) fn full(name: &str) -> Self {
        let (socket, address) = bound();
        socket.listen(0).expect("it listens");
        let target: SocketAddr = address.parse().expect("an address");
        let mut held = vec![socket];
        for _ in 0..4 {
            let filler = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            filler.set_nonblocking(true).expect("a non-blocking socket");
            // "In progress" is all that is wanted.
            let _ = filler.connect(&target.into());
            held.push(filler);
        }
        Self { name: name.into(), address, state: Arc::default(), _held: held }
    }

    /// Upgrades to a WebSocket and sends every message back.
    pub(crate) fn websocket(name: &str) -> Self {
        Self::per_request(name, |wire, seen, _| {
            let Some(key) = seen.headers.get("sec-websocket-key") else {
                wire.stream.write_all(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n")?;
                return Ok(Then::Keep);
            };
            write!(
                wire.stream,
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {}\r\n\r\n",
                accept_key(key)
            )?;
            loop {
                let (opcode, payload) = read_frame(wire)?;
                write_frame(wire, opcode, false, &payload)?;
                if opcode == CLOSE {
                    return Ok(Then::Close);
                }
            }
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// As a document names it: `127.0.0.1:1234` or `unix:/path`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// How many requests it has read.
    pub(crate) fn requests(&self) -> usize {
        self.state.seen.lock().unwrap().len()
    }

    /// All requests that it has read.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// The last request that it has read.
    pub(crate) fn last(&self) -> Seen {
        self.state.seen.lock().unwrap().last().cloned().expect("a request has come")
    }

    /// How many connections it has accepted.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Relaxed)
    }

    /// Lets a holding origin go on.
    pub(crate) fn release(&self) {
        *self.state.released.lock().unwrap() = true;
        self.state.release.notify_all();
    }

    fn per_request(
        name: &str,
        answer: impl Fn(&mut Wire, &Seen, &State) -> io::Result<Then> + Send + Sync + 'static,
    ) -> Self {
        Self::per_connection(name, serve(answer))
    }

    fn per_connection(name: &str, handle: impl Fn(Wire, &State) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        Self::accepting(name, address, move || Ok(Stream::Tcp(listener.accept()?.0)), handle)
    }

    fn accepting(
        name: &str,
        address: String,
        accept: impl Fn() -> io::Result<Stream> + Send + 'static,
        handle: impl Fn(Wire, &State) + Send + Sync + 'static,
    ) -> Self {
        let state = Arc::<State>::default();
        let (shared, handle) = (Arc::clone(&state), Arc::new(handle));
        thread::spawn(move || {
            while let Ok(stream) = accept().and_then(Stream::ready) {
                if shared.stopped.load(Relaxed) {
                    return;
                }
                shared.connections.fetch_add(1, Relaxed);
                if let Ok(again) = stream.try_clone() {
                    shared.open.lock().unwrap().push(again);
                }
                let (state, handle) = (Arc::clone(&shared), Arc::clone(&handle));
                thread::spawn(move || handle(Wire::new(stream), &state));
            }
        });
        Self { name: name.into(), address, state, _held: Vec::new() }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.state.stopped.store(true, Relaxed);
        self.release();
        self.state.open.lock().unwrap().drain(..).for_each(|stream| stream.shut());
        if self._held.is_empty() {
            // Wakes the accepting thread, which then sees that it is over.
            drop(Stream::connect(&self.address));
        }
    }
}

fn bound() -> (Socket, String) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
    let address = socket.local_addr().expect("an address").as_socket().expect("an IP address").to_string();
    (socket, address)
}

/// Serves one connection, request by request.
fn serve(
    answer: impl Fn(&mut Wire, &Seen, &State) -> io::Result<Then> + Send + Sync + 'static,
) -> impl Fn(Wire, &State) + Send + Sync + 'static {
    move |mut wire, state| {
        while let Ok(Some(seen)) = read_request(&mut wire) {
            state.seen.lock().unwrap().push(seen.clone());
            match answer(&mut wire, &seen, state) {
                Ok(Then::Keep) => {}
                // The list of open connections holds the socket, too: say the end aloud.
                Ok(Then::Close) | Err(_) => return wire.stream.shut(),
            }
        }
        wire.stream.shut();
    }
}

fn read_request(wire: &mut Wire) -> io::Result<Option<Seen>> {
    let Some(head) = wire.head()? else { return Ok(None) };
    let mut words = head.line.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let body = wire.body(head.framing(Framing::None))?;
    Ok(Some(Seen { method, path, headers: head.headers, body }))
}

fn echo(name: &str, wire: &mut Wire, seen: &Seen) -> io::Result<Then> {
    let body = json!({
        "origin": name,
        "method": seen.method,
        "path": seen.path,
        "headers": seen.headers.0,
        "body": String::from_utf8_lossy(&seen.body),
    })
    .to_string();
    write!(
        wire.stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nServer: origin-{name}/1.0\r\n\
         X-Powered-By: threads\r\nX-Origin: {name}\r\n\r\n",
        body.len()
    )?;
    if seen.method != "HEAD" {
        wire.stream.write_all(body.as_bytes())?;
    }
    Ok(Then::Keep)
}
