//! Origins whose work the test paces: they hold requests until told, are slow or fail, and know how much they had at once.

use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use super::origin::Seen;
use super::wait::DEADLINE;
use super::wire::{Framing, Stream, Wire};

/// How an origin works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Answers at once.
    Free,
    /// Answers after this long.
    Slow(Duration),
    /// Answers one request for each call of `let_go`.
    Held,
}

/// An origin whose work the test paces. It stops when dropped.
pub(crate) struct Worker {
    name: String,
    address: String,
    state: Arc<State>,
}

struct State {
    told: Mutex<Told>,
    changed: Condvar,
}

/// What the origin is told, and what it tells.
struct Told {
    pace: Pace,
    /// The status of its answers; 0: a reset instead.
    status: u16,
    /// How many held requests may go on.
    go: usize,
    stopped: bool,
    seen: Vec<Seen>,
    requests: Count,
    open: Vec<Stream>,
    most_connections: usize,
}

#[derive(Clone, Copy, Default)]
struct Count {
    now: usize,
    most: usize,
}

impl Count {
    fn inc(&mut self) {
        self.now += 1;
        self.most = self.most.max(self.now);
    }
}

impl Worker {
    pub(crate) fn new(name: &str, pace: Pace) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let told = Told {
            pace,
            status: 200,
            go: 0,
            stopped: false,
            seen: Vec::new(),
            requests: Count::default(),
            open: Vec::new(),
            most_connections: 0,
        };
        let state = Arc::new(State { told: Mutex::new(told), changed: Condvar::new() });
        let (shared, own) = (Arc::clone(&state), name.to_owned());
        thread::spawn(move || {
            while let Ok(stream) = listener.accept().map(|(tcp, _)| Stream::Tcp(tcp)).and_then(Stream::ready) {
                let mut told = shared.told();
                if told.stopped {
                    return;
                }
                // Those that have ended count no longer, even if their threads have not noticed.
                told.open.retain(is_open);
                told.open.extend(stream.try_clone());
                told.most_connections = told.most_connections.max(told.open.len());
                drop(told);
                let (state, name) = (Arc::clone(&shared), own.clone());
                thread::spawn(move || {
                    // Whatever ended it, the connection is gone.
                    let _ = serve(Wire::new(stream), &state, &name);
                });
            }
        });
        Self { name: name.into(), address, state }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A document in which `@NAME` stands for the address of the worker of that name.
    pub(crate) fn fill(yaml: &str, workers: &[&Self]) -> String {
        let mut words: Vec<_> = workers.iter().map(|worker| (format!("@{}", worker.name), worker.address())).collect();
        // The longest first: `@ab` is not `@a` and a `b`.
        words.sort_by_key(|(word, _)| std::cmp::Reverse(word.len()));
        words.iter().fold(yaml.to_owned(), |yaml, (word, address)| yaml.replace(word, address))
    }

    /// As a document names it.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// How it works from now on.
    pub(crate) fn set_pace(&self, pace: Pace) {
        self.state.told().pace = pace;
        self.state.changed.notify_all();
    }

    /// The status of its answers from now on; 0: a reset instead.
    pub(crate) fn set_status(&self, status: u16) {
        self.state.told().status = status;
    }

    /// Lets so many held requests go on.
    pub(crate) fn let_go(&self, count: usize) {
        self.state.told().go += count;
        self.state.changed.notify_all();
    }

    /// What it was asked, in the order of arrival.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.told().seen.clone()
    }

    /// The paths that it was asked for, in the order of arrival.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.path).collect()
    }

    /// The most requests that it had at once.
    pub(crate) fn most_requests(&self) -> usize {
        self.state.told().requests.most
    }

    /// The connections open now, and the most that were at once.
    pub(crate) fn connections(&self) -> (usize, usize) {
        let mut told = self.state.told();
        told.open.retain(is_open);
        (told.open.len(), told.most_connections)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let mut told = self.state.told();
        told.stopped = true;
        told.open.drain(..).for_each(|stream| stream.shut());
        drop(told);
        self.state.changed.notify_all();
        // Wakes the accepting thread, which then sees that it is over.
        drop(TcpStream::connect(&self.address));
    }
}

impl State {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap()
    }

    /// Works on one request; the status of the answer.
    fn work(&self) -> u16 {
        let mut told = self.told();
        told.requests.inc();
        if let Pace::Slow(pause) = told.pace {
            drop(told);
            // The slowness under test.
            thread::sleep(pause);
            told = self.told();
        } else {
            let held = |told: &mut Told| told.pace == Pace::Held && told.go == 0 && !told.stopped;
            told = self.changed.wait_timeout_while(told, DEADLINE * 2, held).unwrap().0;
            told.go = told.go.saturating_sub(1);
        }
        told.requests.now -= 1;
        told.status
    }
}

/// Whether neither side has closed it. Looks, and reads nothing.
fn is_open(stream: &Stream) -> bool {
    let Stream::Tcp(tcp) = stream else { return false };
    let mut look = [MaybeUninit::uninit()];
    let seen = socket2::SockRef::from(tcp).recv_with_flags(&mut look, libc::MSG_PEEK | libc::MSG_DONTWAIT);
    seen.map_or_else(|error| error.kind() == io::ErrorKind::WouldBlock, |count| count > 0)
}

fn peer(stream: &Stream) -> Option<SocketAddr> {
    if let Stream::Tcp(tcp) = stream { tcp.peer_addr().ok() } else { None }
}

fn serve(mut wire: Wire, state: &State, name: &str) -> io::Result<()> {
    // It waits for the next request for as long as the gateway keeps the connection.
    wire.stream.read_within(Duration::from_secs(60))?;
    while let Some(head) = wire.head()? {
        let mut words = head.line.split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let body = wire.body(head.framing(Framing::None))?;
        state.told().seen.push(Seen { method, path, headers: head.headers, body });
        match state.work() {
            0 => {
                // The list of open connections holds the socket, too: a reset needs the last hold.
                let peer = peer(&wire.stream);
                state.told().open.retain(|open| self::peer(open) != peer);
                wire.stream.reset();
                return Ok(());
            }
            status => {
                let length = name.len();
                write!(
                    wire.stream,
                    "HTTP/1.1 {status} As Told\r\nContent-Length: {length}\r\nX-Origin: {name}\r\n\r\n{name}"
                )?;
            }
        }
    }
    Ok(())
}
