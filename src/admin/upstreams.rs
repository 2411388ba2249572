//! `/upstreams`: the backends, how they are, and whether they are to drain.

use http::StatusCode;
use serde_json::{Value, json};

use super::answer::Answer;
use super::asked::Asked;
use crate::gateway::Gateway;
use crate::upstream::clock::{self, Micros};
use crate::upstream::{Backend, Upstream};

pub(super) fn list(gateway: &Gateway, _: &Asked) -> Answer {
    let snapshot = gateway.snapshot();
    let now = clock::now();
    let upstreams: Vec<_> = snapshot.upstreams.values().map(|upstream| about_upstream(upstream, now)).collect();
    Answer::json(&json!({ "upstreams": upstreams }))
}

fn about_upstream(upstream: &Upstream, now: Micros) -> Value {
    let backends: Vec<_> = upstream.backends().iter().map(|backend| about_backend(upstream, backend, now)).collect();
    json!({
        "name": &**upstream.name(),
        "policy": upstream.policy_name(),
        "panics": upstream.panics(),
        "backends": backends,
    })
}

fn about_backend(upstream: &Upstream, backend: &Backend, now: Micros) -> Value {
    let report = backend.state().health.report();
    let check = report.probe.map(|probe| {
        json!({
            "passed": probe.fault.is_none(),
            "fault": probe.fault,
            "in_a_row": report.in_a_row,
            "age_ms": now.saturating_sub(probe.ended) / 1000,
            "took_ms": probe.ended.saturating_sub(probe.began) / 1000,
        })
    });
    json!({
        "address": &**backend.label(),
        "state": backend.status().word(),
        "weight": backend.weight(),
        "effective_weight": f64::from(backend.weight()) * upstream.share(backend),
        "tier": backend.tier(),
        "zone": backend.zone().map(|zone| &**zone),
        "spare": backend.is_spare(),
        "in_flight": backend.state().inflight(),
        "check": check,
        "ejected_for_ms": report.ejected_until.map(|until| until.saturating_sub(now).div_ceil(1000)),
        "ejections": backend.stats().ejections.get(),
    })
}

pub(super) fn drain(gateway: &Gateway, asked: &Asked) -> Answer {
    set_drain(gateway, asked, true)
}

pub(super) fn undrain(gateway: &Gateway, asked: &Asked) -> Answer {
    set_drain(gateway, asked, false)
}

fn set_drain(gateway: &Gateway, asked: &Asked, drains: bool) -> Answer {
    let (name, address) = (asked.part(0), asked.part(1));
    let snapshot = gateway.snapshot();
    let Some(upstream) = snapshot.upstreams.get(name) else {
        return Answer::text(StatusCode::NOT_FOUND, format!("no upstream is named {name}\n"));
    };
    if !upstream.drain(address, drains) {
        return Answer::text(StatusCode::NOT_FOUND, format!("{name} has no backend {address}\n"));
    }
    let by_document = upstream.backends().iter().any(|known| **known.label() == *address && known.is_draining());
    let state = match (drains, by_document) {
        (true, _) => "drains",
        (false, false) => "no longer drains",
        (false, true) => "still drains, for the document says `drain: true`",
    };
    Answer::text(StatusCode::OK, format!("{address} of {name} {state}\n"))
}
