//! The life of one connection: head, request, head, request, until one side has had enough.

use std::sync::Arc;

use pingora::apps::{HttpPersistentSettings, HttpServerApp};
use pingora::protocols::http::ServerSession;
use tokio::io::AsyncWriteExt;
use tracing::debug;

use super::alarm::Alarm;
use super::closing::Closing;
use super::connection::Connection;
use super::head::{Incoming, Rules, Waiter};
use super::http2;
use super::limits::{Admission, Gate};
use super::request::Request;
use super::stream::EdgeStream;
use super::wire::Wire;

/// Serves a connection until it ends.
pub(super) async fn serve<P>(app: Arc<P>, wire: Wire, connection: Arc<Connection>, admission: Admission)
where
    P: HttpServerApp + Send + Sync + 'static,
{
    let gate = &*admission.gate;
    let settings = &connection.settings;
    let closing = Closing::new(connection.closing.clone());
    let mut waiter = Waiter { alarm: Alarm::default(), closing, idle: &gate.stats.connections.idle };
    let mut stream = Box::new(EdgeStream::new(wire, Arc::clone(&connection)));
    let mut carried = None;
    let mut served: u32 = 0;
    loop {
        let rules = Rules {
            fresh: (served == 0).then_some(connection.accepted),
            head: settings.head,
            idle: settings.idle,
            limit: gate.limits.load().header_size,
            http2: settings.http2,
        };
        let request = match waiter.next(&mut stream, &rules).await {
            Incoming::Request(request) => request,
            Incoming::Http2(preface) => {
                drop(waiter);
                stream.begin_http2(preface.freeze());
                // Boxed, so that HTTP/1 connections need no room for its state.
                return Box::pin(http2::serve(app, stream, &connection, gate)).await;
            }
            refused => return refuse(&refused, &mut stream, &connection, gate).await,
        };
        served = served.saturating_add(1);
        let Some(session) = open_session(stream, &connection, request, carried.take()) else { return };
        let session = limit_requests(session, gate, served);
        let Some((back, persistent)) = one_request(&app, session, &connection, gate).await else { return };
        stream = back;
        stream.end_request();
        carried = persistent;
    }
}

/// A session that finds its head already read.
fn open_session(
    mut stream: Box<EdgeStream>,
    connection: &Connection,
    request: Request,
    carried: Option<HttpPersistentSettings>,
) -> Option<ServerSession> {
    let settings = &connection.settings;
    let head = stream.begin_request(request);
    let mut session = ServerSession::new_http1(stream);
    if let Some(carried) = carried {
        carried.apply_to_session(&mut session);
        if session.pipelining_enabled() {
            // The session may hold the beginning of this request, read with the last one: we cannot see it, and must
            // not guess. `EdgeStream` keeps further requests back by itself.
            debug!(peer = ?connection.peer, "closed: the application enabled Pingora's pipelining");
            return None;
        }
    }
    session.set_read_timeout(Some(settings.body));
    // No write timeout: the stream has one, and a better one, for it lets a slow client take a large piece.
    session.set_total_drain_timeout(Some(settings.body));
    session.set_min_send_rate(settings.min_send_rate);
    // Parsed in place, without a further copy through the stream.
    session.set_pipelined_prefix(head);
    Some(session)
}

/// Tells the session how many requests may still follow.
fn limit_requests(mut session: ServerSession, gate: &Gate, served: u32) -> ServerSession {
    let most = gate.limits.load().requests_per_connection;
    session.set_keepalive_reuses_remaining(Some(most.saturating_sub(served)));
    session
}

/// Serves one request, and gives the stream back if a further one may follow.
async fn one_request<P>(
    app: &Arc<P>,
    session: ServerSession,
    connection: &Arc<Connection>,
    gate: &Gate,
) -> Option<(Box<EdgeStream>, Option<HttpPersistentSettings>)>
where
    P: HttpServerApp + Send + Sync + 'static,
{
    let before = connection.requests();
    let Some(reused) = app.process_new_http(session, &connection.closing).await else {
        if connection.requests() == before {
            gate.stats.connections.malformed.inc();
            gate.refused(connection.peer.ip(), 400, "malformed");
            debug!(peer = ?connection.peer, "refused: the request is malformed");
        }
        let left = connection.take_left()?;
        return Some((Box::new(EdgeStream::resume(left, Arc::clone(connection))), None));
    };
    let (stream, persistent) = reused.consume();
    let stream = stream.into_any().downcast::<EdgeStream>().ok()?;
    Some((stream, persistent))
}

/// Ends a connection that brought no request, and says why where that is of use.
async fn refuse(why: &Incoming, stream: &mut EdgeStream, connection: &Connection, gate: &Gate) {
    let stats = &gate.stats.connections;
    let (status, reason) = match why {
        Incoming::Request(_) | Incoming::Http2(_) | Incoming::Closed | Incoming::Ended => return,
        Incoming::IdleTimeout => return stats.idle_timeout.inc(),
        // Not a word: browsers open connections ahead, and would take a 408 for the answer to their next request.
        Incoming::Silent => return stats.head_timeout.inc(),
        Incoming::HeadTimeout => {
            stats.head_timeout.inc();
            ("408 Request Timeout", "head_timeout")
        }
        Incoming::TooLarge => {
            stats.head_too_large.inc();
            ("431 Request Header Fields Too Large", "head_too_large")
        }
        Incoming::NotHttp => {
            stats.malformed.inc();
            ("400 Bad Request", "malformed")
        }
    };
    gate.refused(connection.peer.ip(), status[..3].parse().unwrap_or_default(), reason);
    debug!(peer = ?connection.peer, status, "refused before a request was read");
    let reply = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.refuse_request();
    if stream.write_all(reply.as_bytes()).await.is_ok() {
        // Whatever came of it, the connection ends here.
        let _ = AsyncWriteExt::shutdown(stream).await;
    }
}
