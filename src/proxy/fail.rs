//! When a phase failed: try another backend, or which error page.

use std::time::Instant;

use http::StatusCode;
use pingora::http::ResponseHeader;
use pingora::proxy::{FailToProxy, Session};
use pingora::{Error, ErrorSource, ErrorType};

use super::Ctx;
use super::{forward, respond};
use crate::reply::Reply;
use crate::upstream::retry;

/// A connection to a backend could not be made: another one may take the request.
pub(super) fn connect(ctx: &mut Ctx, mut error: Box<Error>) -> Box<Error> {
    ctx.exchange.failure = Some(retry::failure_word(&error));
    tracing::debug!(request = ctx.exchange.id.as_str(), backend = ctx.backend(), %error, "cannot connect");
    if let Some(attempt) = &ctx.attempt {
        ctx.tried.insert(attempt.backend);
    }
    let again = retry::is_failed_connect(&error) && may_retry(ctx);
    if let (Some(upstream), Some(attempt)) = (&ctx.upstream, &mut ctx.attempt) {
        let stats = upstream.backends()[attempt.backend].stats();
        stats.connect_errors.inc();
        if again {
            stats.retries.inc();
        }
        attempt.lease = None;
    }
    error.set_retry(again);
    error
}

/// The exchange with a backend broke. Only what is known to have died unseen is tried again: a kept connection that the
/// backend had closed meanwhile, for a method that may be repeated (RFC 9110 9.2.2) and a body that is still at hand.
pub(super) fn exchange(session: &Session, ctx: &mut Ctx, mut error: Box<Error>, reused: bool) -> Box<Error> {
    ctx.exchange.failure = Some(retry::failure_word(&error));
    tracing::debug!(request = ctx.exchange.id.as_str(), backend = ctx.backend(), %error, "exchange failed");
    let repeatable = session.req_header().method.is_idempotent() && !session.as_ref().retry_buffer_truncated();
    if repeatable {
        error.retry.decide_reuse(reused);
    } else {
        error.set_retry(false);
    }
    if error.retry()
        && let (Some(upstream), Some(attempt)) = (&ctx.upstream, &mut ctx.attempt)
    {
        upstream.backends()[attempt.backend].stats().retries.inc();
        // The backend itself may be well: it is not among the tried ones, and may be asked again by a new connection.
        attempt.lease = None;
    }
    error
}

fn may_retry(ctx: &Ctx) -> bool {
    let Some(upstream) = &ctx.upstream else { return false };
    let retry = ctx.route().and_then(|route| route.retry).unwrap_or_else(|| upstream.retry());
    let remaining = ctx.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    retry.allows(ctx.exchange.tries, remaining) && ctx.tried.len() < upstream.backends().len()
}

/// The request has failed for good: tells the client, if it still can be told.
pub(super) async fn answer(session: &mut Session, error: &Error, ctx: &mut Ctx) -> FailToProxy {
    let overdue = *error.esource() == ErrorSource::Downstream && forward::in_time(ctx).is_err();
    ctx.exchange.failure = Some(if overdue { "read_timeout" } else { retry::failure_word(error) });
    let Some(status) = status(error).or_else(|| overdue.then_some(StatusCode::GATEWAY_TIMEOUT)) else {
        return FailToProxy { error_code: 0, can_reuse_downstream: false };
    };
    let begun = |head: &ResponseHeader| !head.status.is_informational() || head.status.as_u16() == 101;
    if !session.response_written().is_some_and(begun) {
        // After a fault of the client's, what it sends next may be a part of this request still.
        let goes_on = *error.esource() != ErrorSource::Downstream && may_go_on(session, ctx);
        let reply = if goes_on { Reply::error(status) } else { Reply::error(status).closing() };
        let written = match respond::write(session, ctx, reply).await {
            Ok(()) => session.finish_body().await,
            Err(error) => Err(error),
        };
        match (written, &ctx.connection) {
            (Ok(()), Some(connection)) if goes_on => connection.survive(),
            (Ok(()), _) => {}
            (Err(error), _) => tracing::debug!(%error, "the client left before the error page"),
        }
    }
    FailToProxy { error_code: status.as_u16(), can_reuse_downstream: false }
}

/// Whether the client's connection can take a further request after the error page: nothing of this one is unread.
fn may_go_on(session: &mut Session, ctx: &Ctx) -> bool {
    let closing = ctx.connection.as_ref().is_none_or(|connection| connection.is_closing());
    let kept = session.as_http1().is_some_and(|http1| http1.will_keepalive());
    kept && !closing && session.is_body_empty()
}

/// The status that tells of this error; `None`: nobody is there to be told.
fn status(error: &Error) -> Option<StatusCode> {
    let status = match (error.etype(), error.esource()) {
        (ErrorType::HTTPStatus(code), _) => StatusCode::from_u16(*code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        (
            ErrorType::ConnectTimedout
            | ErrorType::TLSHandshakeTimedout
            | ErrorType::ReadTimedout
            | ErrorType::WriteTimedout,
            ErrorSource::Upstream,
        ) => StatusCode::GATEWAY_TIMEOUT,
        (_, ErrorSource::Upstream) => StatusCode::BAD_GATEWAY,
        (ErrorType::ReadTimedout, ErrorSource::Downstream) => StatusCode::REQUEST_TIMEOUT,
        (
            ErrorType::WriteError | ErrorType::WriteTimedout | ErrorType::ReadError | ErrorType::ConnectionClosed,
            ErrorSource::Downstream,
        ) => return None,
        (_, ErrorSource::Downstream) => StatusCode::BAD_REQUEST,
        (_, ErrorSource::Internal | ErrorSource::Unset) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_its_status() {
        for (kind, source, expected) in [
            (ErrorType::ConnectRefused, ErrorSource::Upstream, Some(502)),
            (ErrorType::ConnectTimedout, ErrorSource::Upstream, Some(504)),
            (ErrorType::ReadTimedout, ErrorSource::Upstream, Some(504)),
            (ErrorType::InvalidHTTPHeader, ErrorSource::Upstream, Some(502)),
            (ErrorType::ReadTimedout, ErrorSource::Downstream, Some(408)),
            (ErrorType::ConnectionClosed, ErrorSource::Downstream, None),
            (ErrorType::InvalidHTTPHeader, ErrorSource::Downstream, Some(400)),
            (ErrorType::HTTPStatus(503), ErrorSource::Unset, Some(503)),
            (ErrorType::InternalError, ErrorSource::Internal, Some(500)),
        ] {
            let mut error = Error::new(kind.clone());
            error.esource = source;
            assert_eq!(status(&error).map(|status| status.as_u16()), expected, "{kind:?}");
        }
    }
}
