//! Origins whose health the test decides: how they answer their checks and all else, and whether they listen at all.

use std::convert::Infallible;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;

use super::gateway::Gateway;
use super::origin::reserved_port;
use super::wait::{DEADLINE, await_some};
use super::wire::{Framing, Stream, Wire};

/// How an origin answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// With this status, and its name as the body.
    Status(u16),
    /// With 200 and this body.
    Body(&'static str),
    /// With 200 and one byte of body each so often, without end.
    Trickle(Duration),
    /// With nothing, until its mood changes.
    Silent,
    /// With a reset.
    Reset,
}

/// Starts a gateway whose document may name these origins: `"@NAME"` stands for an address.
pub(crate) fn gateway_before(patients: &[&Patient], yaml: &str) -> Gateway {
    Gateway::start(&filled(yaml, patients))
}

/// A document with the addresses of these origins put in.
pub(crate) fn filled(yaml: &str, patients: &[&Patient]) -> String {
    patients.iter().fold(yaml.to_owned(), |yaml, patient| {
        yaml.replace(&format!("@{}\"", patient.name()), &format!("{}\"", patient.address()))
    })
}

/// An origin whose health the test decides. It stops when dropped.
pub(crate) struct Patient {
    name: String,
    address: SocketAddr,
    /// The thread that accepts; `None`: it does not listen.
    accepting: Mutex<Option<JoinHandle<()>>>,
    state: Arc<State>,
}

struct State {
    name: String,
    stopped: AtomicBool,
    moods: Mutex<Moods>,
    changed: Condvar,
    checks: AtomicUsize,
    requests: AtomicUsize,
    open: Mutex<Vec<Stream>>,
}

struct Moods {
    check: Mood,
    request: Mood,
}

impl Patient {
    /// Answers checks, which ask for `/healthz`, and all else with 200 and its name.
    pub(crate) fn named(name: &str) -> Self {
        // A port that no client is given, or it might be taken while this origin does not listen.
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, reserved_port()));
        let state = State {
            name: name.to_owned(),
            stopped: AtomicBool::new(false),
            moods: Mutex::new(Moods { check: Mood::Status(200), request: Mood::Status(200) }),
            changed: Condvar::new(),
            checks: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            open: Mutex::default(),
        };
        let patient = Self { name: name.to_owned(), address, accepting: Mutex::default(), state: Arc::new(state) };
        patient.start();
        patient
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// As a document names it.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// How it answers checks from now on.
    pub(crate) fn check(&self, mood: Mood) {
        self.state.moods.lock().unwrap().check = mood;
        self.state.changed.notify_all();
    }

    /// How it answers all else from now on.
    pub(crate) fn request(&self, mood: Mood) {
        self.state.moods.lock().unwrap().request = mood;
        self.state.changed.notify_all();
    }

    /// How many checks it has read.
    pub(crate) fn checks(&self) -> usize {
        self.state.checks.load(SeqCst)
    }

    /// How many other requests it has read.
    pub(crate) fn requests(&self) -> usize {
        self.state.requests.load(SeqCst)
    }

    /// Closes all connections and listens no more, until it is started again.
    pub(crate) fn stop(&self) {
        let Some(accepting) = self.accepting.lock().unwrap().take() else { return };
        self.state.stopped.store(true, SeqCst);
        // Wakes the accepting thread, which then sees that it is over.
        drop(TcpStream::connect(self.address));
        accepting.join().expect("it ends");
        self.state.open.lock().unwrap().drain(..).for_each(|stream| stream.shut());
    }

    /// Listens again, at the same port.
    pub(crate) fn start(&self) {
        // For a moment the port may be that of a connection which another test has opened.
        let listener = await_some("its own port is free", || TcpListener::bind(self.address).ok());
        let state = Arc::clone(&self.state);
        state.stopped.store(false, SeqCst);
        let accept = move || {
            while let Ok(stream) = listener.accept().map(|(tcp, _)| Stream::Tcp(tcp)).and_then(Stream::ready) {
                if state.stopped.load(SeqCst) {
                    return;
                }
                if let Ok(again) = stream.try_clone() {
                    state.open.lock().unwrap().push(again);
                }
                let state = Arc::clone(&state);
                thread::spawn(move || serve(Wire::new(stream), &state));
            }
        };
        *self.accepting.lock().unwrap() = Some(thread::spawn(accept));
    }
}

impl Drop for Patient {
    fn drop(&mut self) {
        self.check(Mood::Reset);
        self.request(Mood::Reset);
        self.stop();
    }
}

fn serve(mut wire: Wire, state: &State) {
    while let Ok(Some(head)) = wire.head() {
        if wire.body(head.framing(Framing::None)).is_err() {
            return;
        }
        let is_check = head.line.split(' ').nth(1).is_some_and(|path| path.starts_with("/healthz"));
        let (count, mood) = if is_check { (&state.checks, check as _) } else { (&state.requests, request as _) };
        count.fetch_add(1, SeqCst);
        if answer(&mut wire, state, mood).is_err() {
            break;
        }
    }
    wire.stream.shut();
}

fn check(moods: &Moods) -> &Mood {
    &moods.check
}

fn request(moods: &Moods) -> &Mood {
    &moods.request
}

fn answer(wire: &mut Wire, state: &State, mood: fn(&Moods) -> &Mood) -> io::Result<()> {
    let moods = state.moods.lock().unwrap();
    let silent = |moods: &mut Moods| *mood(moods) == Mood::Silent;
    let (moods, _) = state.changed.wait_timeout_while(moods, DEADLINE, silent).unwrap();
    let mood_now = mood(&moods).clone();
    drop(moods);
    let whole = |wire: &mut Wire, status: u16, body: &str| {
        let length = body.len();
        write!(wire.stream, "HTTP/1.1 {status} As Told\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    match mood_now {
        Mood::Status(status) => whole(wire, status, &state.name),
        Mood::Body(body) => whole(wire, 200, body),
        Mood::Trickle(every) => {
            wire.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")?;
            while *mood(&state.moods.lock().unwrap()) == mood_now {
                wire.stream.write_all(b".")?;
                // The slowness under test.
                thread::sleep(every);
            }
            Err(io::Error::other("it trickles no more"))
        }
        Mood::Reset | Mood::Silent => {
            socket2::SockRef::from(tcp(&wire.stream)?).set_linger(Some(Duration::ZERO))?;
            state.open.lock().unwrap().retain(|open| !is_same(open, &wire.stream));
            Err(io::Error::other("reset"))
        }
    }
}

fn tcp(stream: &Stream) -> io::Result<&std::net::TcpStream> {
    match stream {
        Stream::Tcp(tcp) => Ok(tcp),
        Stream::Unix(_) => Err(io::Error::other("no TCP")),
    }
}

fn is_same(one: &Stream, other: &Stream) -> bool {
    let peer = |stream: &Stream| tcp(stream).ok().and_then(|tcp| tcp.peer_addr().ok());
    peer(one) == peer(other)
}

/// A server that speaks the gRPC health protocol over plaintext HTTP/2. It stops when dropped.
pub(crate) struct GrpcPatient {
    address: SocketAddr,
    state: Arc<GrpcState>,
    _runtime: tokio::runtime::Runtime,
}

struct GrpcState {
    /// A `ServingStatus`; negative: a `grpc-status` without a message.
    says: AtomicI32,
    /// The question last asked, with its path before it.
    asked: Mutex<(String, Vec<u8>)>,
    /// How many connections it has had, and how many of them are open.
    connections: AtomicUsize,
    open: AtomicUsize,
}

impl GrpcPatient {
    /// Answers checks with SERVING, and all other requests with 200 over HTTP/1.1 never.
    pub(crate) fn serving() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let listener = runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(GrpcState {
            says: AtomicI32::new(1),
            asked: Mutex::default(),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
        });
        let shared = Arc::clone(&state);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                state.connections.fetch_add(1, SeqCst);
                state.open.fetch_add(1, SeqCst);
                tokio::spawn(async move {
                    // Its error is the end of the connection, as is its end without one.
                    let _ = grpc_serve(&state, stream).await;
                    state.open.fetch_sub(1, SeqCst);
                });
            }
            Ok::<_, Infallible>(())
        });
        Self { address, state, _runtime: runtime }
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// What it says from now on: a `ServingStatus`, or, negative, a `grpc-status` without a message.
    pub(crate) fn says(&self, status: i32) {
        self.state.says.store(status, SeqCst);
    }

    /// How many connections it has had, and how many of them are open.
    pub(crate) fn connections(&self) -> (usize, usize) {
        (self.state.connections.load(SeqCst), self.state.open.load(SeqCst))
    }

    /// The path and the message that it was asked last.
    pub(crate) fn asked(&self) -> (String, Vec<u8>) {
        self.state.asked.lock().unwrap().clone()
    }
}

async fn grpc_serve(state: &Arc<GrpcState>, stream: tokio::net::TcpStream) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(request) = connection.accept().await {
        let (request, respond) = request?;
        tokio::spawn(grpc_answer(Arc::clone(state), request, respond));
    }
    Ok(())
}

async fn grpc_answer(
    state: Arc<GrpcState>,
    mut request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let mut message = Vec::new();
    while let Some(piece) = request.body_mut().data().await {
        message.extend_from_slice(&piece?);
    }
    *state.asked.lock().unwrap() = (request.uri().path().to_owned(), message);
    let head = http::Response::builder().header("content-type", "application/grpc");
    match state.says.load(SeqCst) {
        fault if fault < 0 => {
            let head = head.header("grpc-status", (-fault).to_string()).body(()).expect("a head");
            respond.send_response(head, true)?;
        }
        status => {
            let mut send = respond.send_response(head.body(()).expect("a head"), false)?;
            send.send_data(vec![0, 0, 0, 0, 2, 8, status as u8].into(), false)?;
            let done = (http::HeaderName::from_static("grpc-status"), http::HeaderValue::from_static("0"));
            send.send_trailers([done].into_iter().collect())?;
        }
    }
    Ok(())
}
