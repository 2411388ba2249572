//! The process: binds, serves on Pingora's server framework until told to stop, and drains.

mod signals;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pingora::apps::HttpServerOptions;
use pingora::proxy::http_proxy;
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server};

use tokio::runtime::{Builder, Runtime};

use crate::admin::Admin;
use crate::config::Config;
use crate::gateway::{Checked, Gateway};
use crate::keep::Keep;
use crate::listen::Acceptor;
use crate::observe::ProcessStats;
use crate::proxy::Proxy;
use signals::{Heard, Signals};

/// How long the last lines of the access log may take to be written.
const LAST_LINES: Duration = Duration::from_secs(2);

/// What a process is started with.
pub struct Start {
    /// The sound document.
    pub checked: Checked,
    /// Where it came from, for reloading. `None`: it cannot be reloaded.
    pub path: Option<PathBuf>,
    /// What its parts were built with.
    pub keep: Arc<Keep>,
    /// What is counted.
    pub stats: Arc<ProcessStats>,
    /// Whether reports may be coloured.
    pub colour: bool,
}

/// Hears signals, from the moment it is made: none ends a process that is still reading its document. What came
/// meanwhile is acted upon once it serves.
pub struct Ears {
    heard: Heard,
    // Its worker tells the signals on, and does what goes on beside the requests. Dropped after all else, and not within a
    // runtime, which would panic.
    runtime: Runtime,
}

impl Ears {
    /// Begins to listen.
    pub fn open() -> Result<Self, String> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("background").enable_all().build();
        let runtime = runtime.map_err(|error| format!("error: signals cannot be heard: {error}"))?;
        Ok(Self { heard: Heard::begin(&runtime), runtime })
    }
}

/// Serves until told to stop. Returns after SIGTERM (drained) or SIGINT; the error tells why it could not start.
pub fn run(start: Start, ears: Ears, ready: impl FnOnce(&Gateway)) -> Result<(), String> {
    let threads = start.checked.config.runtime.threads.count();
    let work_stealing = start.checked.config.runtime.work_stealing;
    let conf = server_conf(&start.checked.config);
    raise_file_limit();
    let background = ears.runtime.handle().clone();
    let gateway = Gateway::start(start.checked, start.keep, start.stats, background, start.colour)?;
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();

    let mut proxy = http_proxy(&server.configuration, Proxy::new(Arc::clone(&gateway)));
    proxy.h2_options = Some(pingora::protocols::http::v2::server::default_h2_options());
    // We refuse CONNECT by ourselves: Pingora would do it unseen by log and counters, and in its own name.
    let mut options = HttpServerOptions::default();
    options.allow_connect_method_proxying = true;
    proxy.server_options = Some(options);
    let proxy = Arc::new(proxy);
    // One single-threaded service for each thread: a connection stays on the thread that accepted it.
    let (services, threads_each) = if work_stealing { (1, threads) } else { (threads, 1) };
    for number in 0..services {
        let listeners = Arc::clone(&gateway.listeners);
        server.add_service(Acceptor::new(format!("edge-{number}"), threads_each, Arc::clone(&proxy), listeners));
    }
    let admin = Arc::new(Admin::new(Arc::clone(&gateway)));
    server.add_service(Acceptor::new("admin", 1, admin, Arc::clone(&gateway.admin_listeners)));

    for (address, bound) in gateway.listeners.bound() {
        tracing::info!(%address, ?bound, "listening");
    }
    ready(&gateway);
    let watch = Signals::new(ears.heard, Arc::clone(&gateway), start.path);
    server.run(RunArgs { shutdown_signal: Box::new(watch) });
    for zone in gateway.snapshot().zones.values() {
        let stopped = ears.runtime.block_on(async { tokio::time::timeout(LAST_LINES, zone.stop()).await });
        if stopped.is_err() {
            tracing::warn!(zone = zone.name(), "the disk of the cache did not stop in time");
        }
    }
    gateway.snapshot().access_log.flush(LAST_LINES);
    // A look-up of a name that hangs in the system is not waited for.
    ears.runtime.shutdown_background();
    Ok(())
}

fn server_conf(config: &Config) -> ServerConf {
    ServerConf {
        threads: 1,
        work_stealing: config.runtime.work_stealing,
        upstream_keepalive_pool_size: config.runtime.upstream_pool.saturating_mul(config.runtime.threads.count()),
        ..ServerConf::default()
    }
}

/// Allows as many open files as the system lets this process have: each request may need two.
fn raise_file_limit() {
    let raised = rlimit::increase_nofile_limit(u64::MAX);
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}
