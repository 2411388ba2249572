//! `Listeners`: the listening sockets of a process, and how a new document changes them while it runs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::Instant;

use super::bind::{ListenSocket, explain};
use super::limits::{Gate, Limits, Refusals};
use super::{Address, Config, Settings};
use crate::observe::ProcessStats;

/// How long a removed listener's workers may take to let go of it.
const LEAVING_TIME: Duration = Duration::from_millis(500);

/// The listening sockets, shared by all [`Acceptor`](super::Acceptor)s. Each of them sees a change at once.
pub struct Listeners {
    pub(super) gate: Arc<Gate>,
    set: watch::Sender<Arc<[Arc<Listener>]>>,
    /// Held while the set is changed: the listeners that were removed, until the workers have let go of them.
    leaving: Mutex<Vec<Weak<Listener>>>,
    next_id: AtomicU64,
    /// Whether [`Listeners::drain`] was called.
    drained: watch::Sender<bool>,
}

/// One listening socket.
pub(super) struct Listener {
    pub(super) id: u64,
    pub(super) address: Address,
    pub(super) socket: ListenSocket,
    pub(super) local_port: u16,
    pub(super) settings: ArcSwap<Settings>,
    /// Says that it shall stop: no further connections, and an end to those that there are.
    pub(super) stop: watch::Sender<bool>,
}

/// An address at which one cannot listen: the positions of its listener and of the address in there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindFault {
    /// The position in the list of listeners.
    pub listener: usize,
    /// The position in the listener's addresses.
    pub address: usize,
    /// What is wrong, naming the address.
    pub message: String,
}

/// A change of listeners that can no longer fail. Dropped without [`Listeners::commit`], nothing has changed.
pub struct Prepared {
    entries: Vec<Entry>,
}

struct Entry {
    listener: Arc<Listener>,
    settings: Arc<Settings>,
    fresh: bool,
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // Not committed: the files of new Unix sockets go with them.
        self.entries.iter().filter(|entry| entry.fresh).for_each(|entry| entry.listener.socket.remove_file());
    }
}

impl Listeners {
    /// No listener yet.
    pub fn new(limits: Limits, stats: Arc<ProcessStats>) -> Arc<Self> {
        Arc::new(Self {
            gate: Gate::new(limits, stats),
            set: watch::Sender::new(Arc::default()),
            leaving: Mutex::default(),
            next_id: AtomicU64::new(0),
            drained: watch::Sender::new(false),
        })
    }

    /// Has `refusals` hear of each request that is refused before the application sees it. Once, at the start.
    pub fn on_refusal(&self, refusals: Refusals) {
        let _ = self.gate.refusals.set(refusals);
    }

    /// Puts other limits in force, for new connections and new requests.
    pub fn set_limits(&self, limits: Limits) {
        self.gate.limits.store(Arc::new(limits));
    }

    /// Opens the sockets that are not open yet. All or nothing: with a fault, none stays open. May block for a moment,
    /// so do not call it on a worker's thread.
    pub fn prepare(&self, wanted: &[Config]) -> Result<Prepared, Vec<BindFault>> {
        let mut present: Vec<_> = self.set.borrow().iter().cloned().map(Some).collect();
        let mut prepared = Prepared { entries: Vec::new() };
        let mut faults = Vec::new();
        for (listener, config) in wanted.iter().enumerate() {
            let settings = Arc::new(Settings::from(config));
            for (position, address) in config.address.iter().enumerate() {
                let kept = present.iter_mut().find(|slot| slot.as_ref().is_some_and(|had| had.address == *address));
                if let Some(kept) = kept.and_then(Option::take) {
                    prepared.entries.push(Entry { listener: kept, settings: Arc::clone(&settings), fresh: false });
                    continue;
                }
                match self.open_patiently(address, &settings) {
                    Ok(entry) => prepared.entries.push(entry),
                    Err(fault) => {
                        // Two documents' addresses may clash: the old one is still open then.
                        let ours = present.iter().flatten().find(|had| had.bound().overlaps(address));
                        let message = match ours {
                            Some(had) if fault.kind() == std::io::ErrorKind::AddrInUse => format!(
                                "cannot listen at `{address}`: `{}` is still in use; remove it in a reload of its own",
                                had.address
                            ),
                            _ => explain(address, &fault),
                        };
                        faults.push(BindFault { listener, address: position, message });
                    }
                }
            }
        }
        if faults.is_empty() { Ok(prepared) } else { Err(faults) }
    }

    /// A listener that was removed a moment ago may still be in the hands of a worker that is just letting go.
    fn open_patiently(&self, address: &Address, settings: &Arc<Settings>) -> std::io::Result<Entry> {
        let give_up = std::time::Instant::now() + LEAVING_TIME;
        loop {
            // Asked first: between a failure and a later answer it could let go.
            let leaving = self.is_leaving(address) && std::time::Instant::now() < give_up;
            match self.open(address, settings) {
                Err(fault) if leaving && fault.kind() == std::io::ErrorKind::AddrInUse => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                done => return done,
            }
        }
    }

    fn is_leaving(&self, address: &Address) -> bool {
        let leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        leaving.iter().filter_map(Weak::upgrade).any(|listener| listener.bound().overlaps(address))
    }

    fn open(&self, address: &Address, settings: &Arc<Settings>) -> std::io::Result<Entry> {
        let socket = ListenSocket::open(address)?;
        let listener = Listener {
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            address: address.clone(),
            local_port: socket.local().map_or(0, |local| local.port()),
            socket,
            settings: ArcSwap::new(Arc::clone(settings)),
            stop: watch::Sender::new(false),
        };
        Ok(Entry { listener: Arc::new(listener), settings: Arc::clone(settings), fresh: true })
    }

    /// Puts a prepared change in force. What is new is accepted from at once. What has gone stops accepting; its
    /// connections finish the request they are at. What stays keeps its socket and its connections, and new
    /// connections get the new options.
    pub fn commit(&self, mut prepared: Prepared) {
        let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        leaving.retain(|gone| gone.strong_count() > 0);
        let entries = std::mem::take(&mut prepared.entries);
        for entry in &entries {
            entry.listener.settings.store(Arc::clone(&entry.settings));
        }
        let set: Arc<[_]> = entries.into_iter().map(|entry| entry.listener).collect();
        if *self.drained.borrow() {
            return set.iter().for_each(|listener| listener.end());
        }
        let before = self.set.send_replace(Arc::clone(&set));
        for gone in before.iter().filter(|had| !set.iter().any(|has| has.id == had.id)) {
            gone.end();
            leaving.push(Arc::downgrade(gone));
        }
    }

    /// Prepares and commits.
    pub fn reconcile(&self, wanted: &[Config]) -> Result<(), Vec<BindFault>> {
        self.prepare(wanted).map(|prepared| self.commit(prepared))
    }

    /// Stops accepting, for good. Idle connections close at once; others after the request they are at, HTTP/2 after
    /// its streams.
    pub fn drain(&self) {
        let _changing = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        self.drained.send_replace(true);
        for listener in self.set.send_replace(Arc::default()).iter() {
            listener.end();
        }
    }

    /// Whether [`Listeners::drain`] was called.
    pub fn is_draining(&self) -> bool {
        *self.drained.borrow()
    }

    /// The connections open now, also those whose listener has gone.
    pub fn open_connections(&self) -> usize {
        self.gate.open()
    }

    /// Returns as soon as no connection is left, or after `patience`: how many are left.
    pub async fn drained(&self, patience: Duration) -> usize {
        let deadline = Instant::now() + patience;
        loop {
            let empty = self.gate.empty.notified();
            if self.gate.open() == 0 || tokio::time::timeout_at(deadline, empty).await.is_err() {
                return self.gate.open();
            }
        }
    }

    /// The addresses listened at: as written, and what the socket is bound to (differs for port 0).
    pub fn bound(&self) -> Vec<(Address, Option<std::net::SocketAddr>)> {
        self.set.borrow().iter().map(|listener| (listener.address.clone(), listener.socket.local())).collect()
    }

    pub(super) fn watch(&self) -> watch::Receiver<Arc<[Arc<Listener>]>> {
        self.set.subscribe()
    }

    pub(super) fn watch_drain(&self) -> watch::Receiver<bool> {
        self.drained.subscribe()
    }
}

impl Listener {
    /// Its address with the true port.
    fn bound(&self) -> Address {
        self.address.with_port(self.local_port)
    }

    fn end(&self) {
        self.stop.send_replace(true);
        self.socket.remove_file();
    }
}
