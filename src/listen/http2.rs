//! An HTTP/2 connection: Pingora's loop, and beside it a watchdog with the deadlines that it lacks.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::H2Options;
use pingora::server::ShutdownWatch;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::connection::Connection;
use super::limits::Gate;
use super::stream::EdgeStream;

/// After GOAWAY a client without a stream has this long to leave by itself.
const FAREWELL: Duration = Duration::from_secs(5);

/// Serves a connection whose preface was seen, until it ends.
pub(super) async fn serve<P>(app: Arc<P>, stream: Box<EdgeStream>, connection: &Arc<Connection>, gate: &Gate)
where
    P: HttpServerApp + Send + Sync + 'static,
{
    // Pingora's loop sends GOAWAY when this says so.
    let (goaway, told) = watch::channel(false);
    let most = gate.limits.load().requests_per_connection;
    let streams = Arc::new(Streams { app, connection: Arc::clone(connection), most });
    tokio::select! {
        _ = ServerApp::process_new(&streams, stream, &told) => {}
        () = watch_over(connection, gate, &goaway) => {}
    }
}

/// Says when the connection shall end; returns when it has to.
async fn watch_over(connection: &Connection, gate: &Gate, goaway: &watch::Sender<bool>) {
    let settings = &connection.settings;
    let mut closing = connection.closing.clone();
    let stats = &gate.stats.connections;
    let first = connection.accepted + settings.head;
    let mut check = first;
    loop {
        tokio::select! {
            // An error means that the speaker is gone, which says the same.
            _ = closing.changed() => break,
            () = connection.spent.notified() => break,
            () = sleep_until(check) => {}
        }
        if connection.streams() == 0 {
            debug!(peer = ?connection.peer, "closed: HTTP/2 without a request");
            return stats.head_timeout.inc();
        }
        let now = Instant::now();
        // While a stream is under way the connection is not idle: look again no sooner than it can be.
        check = connection.idle_since().unwrap_or(now) + settings.idle;
        if check <= now {
            stats.idle_timeout.inc();
            break;
        }
    }
    goaway.send_replace(true);
    // The client may finish its streams; a client that is gone, or stays without one, is not waited for.
    let said = Instant::now();
    let mut check = said + FAREWELL;
    loop {
        sleep_until(check).await;
        let now = Instant::now();
        match connection.idle_since().map(|since| since.max(said) + FAREWELL) {
            Some(end) if end <= now => return,
            Some(end) => check = end,
            None => check = now + FAREWELL,
        }
    }
}

/// The application, with each stream of one connection counted.
struct Streams<P> {
    app: Arc<P>,
    connection: Arc<Connection>,
    most: u32,
}

#[async_trait]
impl<P> HttpServerApp for Streams<P>
where
    P: HttpServerApp + Send + Sync + 'static,
{
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let (count, _under_way) = self.connection.begin_stream();
        if count >= self.most {
            self.connection.spent.notify_one();
        }
        session.set_write_timeout(Some(self.connection.settings.write));
        session.set_total_drain_timeout(Some(self.connection.settings.body));
        self.app.process_new_http(session, shutdown).await
    }

    fn h2_options(&self) -> Option<H2Options> {
        self.app.h2_options()
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        self.app.server_options()
    }
}
