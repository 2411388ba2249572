//! `Gateway`: one document compiled to one immutable snapshot behind one atomic pointer.
//!
//! [`Gateway::apply`] is the one door for a new document, whoever brings it: all of it is taken, or nothing.

mod compile;
mod diff;
mod files;
pub mod snapshot;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use tokio::runtime::Handle;

use crate::config::Config;
use crate::config::load::{Broken, Document};
use crate::config::process::{Admin, Runtime};
use crate::diag::{Issues, Scope};
use crate::keep::Keep;
use crate::listen::{self, LimitsConfig, Listeners};
use crate::observe::{Diagnostics, ProcessStats};

pub use compile::{Compiled, Environment};
pub use files::Files;
use snapshot::Snapshot;

/// A document that was found to be sound, and what it compiles to.
pub struct Checked {
    /// The document as types.
    pub config: Config,
    /// What it compiles to.
    pub compiled: Compiled,
    /// Warnings, as text; empty when there are none.
    pub warnings: String,
    /// The document as it was read, for reports.
    pub document: Document,
    /// All files it was read from.
    pub files: Files,
}

/// Reads and compiles a document without putting it in force. The error is the report of its faults.
pub fn check(path: &Path, colour: bool) -> Result<Checked, String> {
    let document = Document::read(path).map_err(|broken| broken.report(colour))?;
    let stats = Arc::default();
    let environment = Environment { generation: 1, folder: folder(path), keep: &Arc::default(), stats: &stats };
    check_document(document, &environment, colour)
}

/// Compiles a document that was read already.
pub fn check_document(mut document: Document, environment: &Environment<'_>, colour: bool) -> Result<Checked, String> {
    let files = Files::look(document.files());
    let issues = Issues::default();
    let Some(config) = document.deserialize::<Config>(&issues) else {
        return Err(document.report(issues.into_vec(), colour));
    };
    let compiled = compile::compile(&config, environment, &issues);
    let failed = issues.has_errors();
    let faults = issues.into_vec();
    let report = if faults.is_empty() { String::new() } else { document.report(faults, colour) };
    if failed {
        return Err(report);
    }
    Ok(Checked { config, compiled, warnings: report, document, files })
}

/// Where relative paths in a document begin: its folder.
pub fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or_else(|| Path::new(""))
}

/// What applying a document came to.
#[derive(Debug)]
pub struct Applied {
    /// Which document of this process it is.
    pub generation: u64,
    /// Warnings of the document, as text.
    pub warnings: String,
    /// What waits for a restart, in words.
    pub waiting: Vec<String>,
}

/// What is in force, beside the snapshot.
struct Current {
    runtime: Runtime,
    files: Files,
    generation: u64,
}

/// The running gateway, shared by all that serves.
pub struct Gateway {
    snapshot: ArcSwap<Snapshot>,
    diagnostics: Diagnostics,
    current: Mutex<Current>,
    background: Handle,
    /// What outlives a reload.
    pub keep: Arc<Keep>,
    /// What is counted of the whole process.
    pub stats: Arc<ProcessStats>,
    /// The sockets by which clients come in.
    pub listeners: Arc<Listeners>,
    /// The sockets by which operators look in.
    pub admin_listeners: Arc<Listeners>,
    /// When the process began to serve: the time since 1970.
    pub started_at: Duration,
}

impl Gateway {
    /// Binds the sockets of a sound document and makes it the one in force; what goes on beside the requests goes on on the
    /// runtime `background`. The error is a report.
    pub fn start(
        checked: Checked,
        keep: Arc<Keep>,
        stats: Arc<ProcessStats>,
        background: Handle,
        colour: bool,
    ) -> Result<Arc<Self>, String> {
        let Checked { config, compiled, document, files, .. } = checked;
        let diagnostics = Diagnostics::start(&compiled.level);
        let listeners = Listeners::new(compiled.limits, Arc::clone(&stats));
        // Operators' own connections count apart, and stand under no limit that clients could use up.
        let admin_listeners = Listeners::new(LimitsConfig::default().into(), Arc::default());
        let sockets = prepare(&listeners, &admin_listeners, &config, &document, colour)?;
        listeners.commit(sockets.clients);
        admin_listeners.commit(sockets.admin);
        compiled.snapshot.start(&background);
        tidy_up();
        stats.reloaded_at.set(unix_now().as_secs().cast_signed());
        let gateway = Arc::new(Self {
            snapshot: ArcSwap::from_pointee(compiled.snapshot),
            diagnostics,
            current: Mutex::new(Current { runtime: config.runtime, files, generation: 1 }),
            keep,
            stats,
            background,
            listeners,
            admin_listeners,
            started_at: unix_now(),
        });
        let logging = Arc::downgrade(&gateway);
        gateway.listeners.on_refusal(Box::new(move |client, status, reason| {
            let Some(gateway) = logging.upgrade() else { return };
            let client = client.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
            gateway.snapshot().access_log.record_refused(client, status, reason);
        }));
        Ok(gateway)
    }

    /// What is in force now. A request asks once, and keeps what it got.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Where work goes on that no client waits for.
    pub fn background(&self) -> &Handle {
        &self.background
    }

    /// The files of the document that was read last, in force or refused, as they were then.
    pub fn files(&self) -> Files {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).files.clone()
    }

    /// How often those files are looked at; zero: never.
    pub fn watch_interval(&self) -> Duration {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).runtime.watch.0
    }

    /// Puts a new document in force: all of it, or nothing. The error is the report of its faults. Blocks (files, DNS).
    pub fn apply(&self, path: &Path) -> Result<Applied, String> {
        let applied = self.try_apply(path);
        match &applied {
            Ok(_) => {
                self.stats.reloads.inc();
                self.stats.reloaded_at.set(unix_now().as_secs().cast_signed());
            }
            Err(_) => self.stats.reload_failures.inc(),
        }
        applied
    }

    fn try_apply(&self, path: &Path) -> Result<Applied, String> {
        // One document at a time; requests do not come by here.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let document = Document::read(path);
        // Of a refused document too: it is not to be read again before one of its files has changed.
        current.files = Files::look(document.as_ref().map_or_else(Broken::files, Document::files));
        let document = document.map_err(|broken| broken.report(false))?;
        let generation = current.generation + 1;
        let environment = Environment { generation, folder: folder(path), keep: &self.keep, stats: &self.stats };
        let checked = check_document(document, &environment, false)?;
        let sockets = prepare(&self.listeners, &self.admin_listeners, &checked.config, &checked.document, false)?;
        // From here on nothing can fail. New sockets are bound, old ones close after the routes have changed.
        let Compiled { snapshot, limits, level } = checked.compiled;
        snapshot.start(&self.background);
        tidy_up();
        self.diagnostics.set_level(&level);
        self.listeners.set_limits(limits);
        self.snapshot.swap(Arc::new(snapshot)).stop();
        self.listeners.commit(sockets.clients);
        self.admin_listeners.commit(sockets.admin);
        let waiting = diff::needs_restart(&current.runtime, &checked.config.runtime);
        current.runtime = checked.config.runtime;
        current.generation = generation;
        Ok(Applied { generation, warnings: checked.warnings, waiting })
    }
}

/// Sockets that are bound, but not yet accepted from.
struct Sockets {
    clients: listen::Prepared,
    admin: listen::Prepared,
}

/// Binds what a document asks for and is not bound yet: all of it, or nothing. The error is a report.
fn prepare(
    listeners: &Listeners,
    admin_listeners: &Listeners,
    config: &Config,
    document: &Document,
    colour: bool,
) -> Result<Sockets, String> {
    let issues = Issues::default();
    let root = issues.root();
    let clients = listeners.prepare(&config.listeners).map_err(|faults| {
        let at = root.key("listeners");
        for fault in faults {
            let place = at.index(fault.listener);
            let many = config.listeners.get(fault.listener).is_some_and(|listener| listener.address.len() > 1);
            let (address, item);
            let place = match many {
                true => {
                    address = place.key("address");
                    item = address.index(fault.address);
                    &item
                }
                false => &place,
            };
            place.error_hint(fault.message, "see who listens there with `ss -ltnp`, or choose another address");
        }
    });
    let admin = prepare_admin(admin_listeners, config, &root.key("admin"));
    match (clients, admin) {
        (Ok(clients), Some(admin)) => Ok(Sockets { clients, admin }),
        _ => Err(document.report(issues.into_vec(), colour)),
    }
}

/// The admin sockets. When the default address is taken and nobody asked for it, the gateway runs without.
fn prepare_admin(listeners: &Listeners, config: &Config, at: &Scope<'_>) -> Option<listen::Prepared> {
    let (address, written) = match &config.admin {
        Admin::Nowhere => return listeners.prepare(&[]).ok(),
        Admin::At(admin) => (admin.listen.clone(), true),
        Admin::Unwritten => (Admin::DEFAULT.parse().ok()?, false),
    };
    let faults = match listeners.prepare(&[listen::Config::at(address)]) {
        Ok(prepared) => return Some(prepared),
        Err(faults) => faults,
    };
    for fault in faults {
        let hint = "choose another address, or write `admin: false`";
        if written {
            at.error_hint(fault.message, hint);
        } else {
            tracing::warn!("no admin endpoint: {}; {hint}", fault.message);
        }
    }
    if written { None } else { listeners.prepare(&[]).ok() }
}

/// Gives back what compiling a large document took. The allocator returns free memory to the system a second after it
/// was freed, but looks for such memory only now and then, as when a thread ends.
fn tidy_up() {
    let wait_and_end = || std::thread::sleep(Duration::from_millis(1500));
    // Without a thread to spare there is only more memory in use for a while.
    drop(std::thread::Builder::new().name("tidy".to_owned()).spawn(wait_and_end));
}

fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
