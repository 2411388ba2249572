//! When a phase failed: try another backend, or which error page.

use http::StatusCode;
use http::header::{EXPECT, RETRY_AFTER};
use pingora::http::ResponseHeader;
use pingora::proxy::{FailToProxy, Session};
use pingora::{Error, ErrorSource, ErrorType};

use super::Ctx;
use super::caching::run::note;
use super::{again, forward, queue, respond};
use crate::cache::fill::Failure;
use crate::reply::Reply;
use crate::upstream::Outcome;
use crate::upstream::retry::{self, Cause};

/// A connection to a backend could not be made: another one may take the request.
pub(super) fn connect(session: &Session, ctx: &mut Ctx, mut error: Box<Error>) -> Box<Error> {
    ctx.exchange.failure = Some(retry::failure_word(&error));
    tracing::debug!(request = ctx.exchange.id.as_str(), backend = ctx.backend(), %error, "cannot connect");
    if let Some(attempt) = &ctx.attempt {
        attempt.lease.backend().stats().connect_errors.inc();
    }
    // With no socket or port left here, no backend can be connected to, and none is to blame.
    again::fail_try(ctx, (!retry::is_own_fault(&error)).then_some(Outcome::Connect));
    let again = retry::is_failed_connect(&error) && again::try_again(session, ctx, Cause::Connect);
    error.set_retry(again);
    error
}

/// The exchange with a backend broke.
pub(super) fn exchange(session: &mut Session, ctx: &mut Ctx, mut error: Box<Error>, reused: bool) -> Box<Error> {
    if ctx.next.is_some() {
        // Nothing broke: the status asked for another try. See `again::by_status`.
        error.set_retry(true);
        return error;
    }
    ctx.exchange.failure = Some(retry::failure_word(&error));
    tracing::debug!(request = ctx.exchange.id.as_str(), backend = ctx.backend(), %error, "exchange failed");
    let answered = ctx.attempt.as_ref().is_some_and(|attempt| attempt.answered);
    let outcome = outcome(session, ctx, &error, answered);
    let again = if answered {
        // The client has a part of the response.
        again::learn_break(ctx, outcome);
        false
    } else if again::died_unseen(session, &mut error, reused) {
        // A kept connection that the backend had closed meanwhile: it may be well, and be asked again by a new one.
        again::end_try(ctx);
        ctx.kept_was_dead = true;
        again::reserve(session, ctx, Cause::Reset)
    } else if *error.esource() == ErrorSource::Upstream {
        again::fail_try(ctx, outcome);
        // No other backend would get from the client what did not come.
        outcome.is_some() && again::try_again(session, ctx, Cause::of(&error))
    } else {
        false
    };
    error.set_retry(again);
    error
}

/// What this failure says of the backend; `None`: nothing, for the client failed, or may be what took all the time.
fn outcome(session: &mut Session, ctx: &Ctx, error: &Error, answered: bool) -> Option<Outcome> {
    let overdue = forward::in_time(ctx).is_err() && (answered || !session.as_mut().is_body_done());
    let outcome = if Cause::of(error) == Cause::Timeout { Outcome::Timeout } else { Outcome::Reset };
    let says_something = !overdue && !waited_for_client(session, error, answered);
    (*error.esource() == ErrorSource::Upstream && says_something).then_some(outcome)
}

/// Whether the backend was silent only because the client was: it had not sent all of its request, or talks in a tunnel.
fn waited_for_client(session: &mut Session, error: &Error, answered: bool) -> bool {
    // Who asks whether its body is wanted (RFC 9110 10.1.1) waits for the backend until that says so.
    let asks = || session.req_header().headers.contains_key(EXPECT) && session.as_ref().body_bytes_read() == 0;
    *error.etype() == ErrorType::ReadTimedout && (answered || !asks()) && !session.as_mut().is_body_done()
}

/// The request has failed for good: tells the client, if it still can be told.
pub(super) async fn answer(session: &mut Session, error: &Error, ctx: &mut Ctx) -> FailToProxy {
    let overdue = *error.esource() == ErrorSource::Downstream && forward::in_time(ctx).is_err();
    ctx.exchange.failure = Some(if overdue { "read_timeout" } else { retry::failure_word(error) });
    let answered = ctx.attempt.as_ref().is_none_or(|attempt| attempt.answered);
    if *error.esource() == ErrorSource::Upstream && !answered && !waited_for_client(session, error, answered) {
        queue::settle_failure(ctx);
    }
    let Some(status) = status(error).or_else(|| overdue.then_some(StatusCode::GATEWAY_TIMEOUT)) else {
        return FailToProxy { error_code: 0, can_reuse_downstream: false };
    };
    if ctx.errand.is_some() {
        let failure = Failure { status: status.as_u16(), word: ctx.exchange.failure, retry_after: ctx.retry_after };
        note(ctx, |met| met.failure = failure);
        return FailToProxy { error_code: status.as_u16(), can_reuse_downstream: false };
    }
    let begun = |head: &ResponseHeader| !head.status.is_informational() || head.status.as_u16() == 101;
    if !session.response_written().is_some_and(begun) {
        // After a fault of the client's, what it sends next may be a part of this request still.
        let goes_on = *error.esource() != ErrorSource::Downstream && may_go_on(session, ctx);
        let mut reply = if goes_on { Reply::error(status) } else { Reply::error(status).closing() };
        if let Some(seconds) = ctx.retry_after {
            reply = reply.header(RETRY_AFTER, seconds.into());
        }
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
        (ErrorType::HTTPStatus(code) | ErrorType::CustomCode(_, code), _) => {
            StatusCode::from_u16(*code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
        }
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
