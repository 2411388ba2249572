//! `/metrics`, `/healthz`, `/readyz`.

use http::StatusCode;

use super::answer::Answer;
use super::asked::Asked;
use crate::gateway::Gateway;
use crate::observe::metrics::{self, About};

pub(super) fn metrics(gateway: &Gateway, _: &Asked) -> Answer {
    gateway.snapshot().zones.values().for_each(|zone| zone.count());
    let about =
        About { version: env!("CARGO_PKG_VERSION"), pingora: "0.9.1", started_at: gateway.started_at.as_secs_f64() };
    Answer {
        status: StatusCode::OK,
        content_type: metrics::CONTENT_TYPE,
        body: metrics::render(&gateway.stats, &gateway.keep, about).into_bytes(),
        allow: None,
    }
}

pub(super) fn healthz(_: &Gateway, _: &Asked) -> Answer {
    Answer::text(StatusCode::OK, "ok\n".to_owned())
}

pub(super) fn readyz(gateway: &Gateway, _: &Asked) -> Answer {
    if gateway.listeners.is_draining() {
        Answer::text(StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned())
    } else {
        Answer::text(StatusCode::OK, "ready\n".to_owned())
    }
}
