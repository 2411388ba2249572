//! Waiting for the sake of a client, as long as it is there.

use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};

/// Waits for `what`, unless the client leaves before.
pub(super) async fn unless_gone<T>(session: &mut Session, what: impl Future<Output = T>) -> Result<T> {
    tokio::select! {
        biased;
        done = what => Ok(done),
        left = session.as_downstream_mut().read_body_or_idle(true) => Err(match left {
            Ok(_) => Error::new(ErrorType::ConnectionClosed).into_down(),
            Err(error) => error.into_down(),
        }),
    }
}
