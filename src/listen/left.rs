//! Whether a client whose request waits is still there.

use std::time::Duration;

use pingora::protocols::http::ServerSession;

use super::stream::EdgeStream;

/// How often to look where bytes that nobody may read yet hide the end behind them.
const LOOK: Duration = Duration::from_millis(100);

/// Waits until the client of this request has gone. Nothing of its body is read, nor of what it sends after that; may be
/// given up at any time.
pub async fn client_left(session: &mut ServerSession) {
    if let Some(closed) = session.watch_h2_stream_close() {
        // Whatever the reason.
        let _ = closed.await;
        return;
    }
    if session.is_body_done() {
        // Reads on, but the stream keeps further requests to itself: this ends only with the connection.
        let _ = session.read_body_or_idle(true).await;
        return;
    }
    let stream = session.as_http1().and_then(|http1| (**http1.stream()).as_any().downcast_ref::<EdgeStream>());
    let Some(stream) = stream else { return std::future::pending().await };
    while !stream.has_ended().await {
        tokio::time::sleep(LOOK).await;
    }
}
