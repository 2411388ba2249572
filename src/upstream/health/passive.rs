//! `passive`: backends at which requests fail are left out for a while, as it is written and as it is done.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use super::failures::MOST_IN_A_ROW;
use super::rules::PassiveRules;
use super::state::Change;
use crate::diag::Scope;
use crate::units::{HumanDuration, Percent};
use crate::upstream::backend::Backend;
use crate::upstream::clock::{Micros, micros};
use crate::upstream::outcome::Outcome;

/// When a server at which requests fail is left out: settings, or `false`.
#[derive(Clone, Debug)]
pub struct Passive(Option<PassiveSettings>);

impl Default for Passive {
    fn default() -> Self {
        Self(Some(PassiveSettings::default()))
    }
}

/// When a server at which requests fail is left out for a while.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "PassiveHealth")]
pub struct PassiveSettings {
    /// After how many failures in a row a server is left out. Default: 5.
    pub errors: u32,
    /// In which time these must have come: a failure that comes later than this after the first begins a new count. Also
    /// the window for `error_rate`. Default: `10s`.
    pub within: HumanDuration,
    /// What a failure is. `gateway`: the server cannot be connected to, breaks off, is silent for too long, or answers 502,
    /// 503 or 504; `5xx`: these, and any other status from 500 on. Default: `gateway`.
    pub count: Count,
    /// From which share of failures on a server is left out, too, in a row or not. Default: none.
    pub error_rate: Option<Percent>,
    /// With fewer requests in the window the share says nothing. Default: 20.
    pub min_requests: u32,
    /// How long a server is left out for the first time. Each further time is twice as long, until the server was well for
    /// as long as it had been out. Successful `active` checks end it early. Default: `10s`.
    pub eject: HumanDuration,
    /// The longest time that a server is left out at once. Default: `5m`.
    pub max_eject: HumanDuration,
    /// The share of the upstream's servers that may be left out at the same time: at least one of two or more, never all.
    /// Default: `50%`.
    pub max_ejected: Percent,
}

impl Default for PassiveSettings {
    fn default() -> Self {
        Self {
            errors: 5,
            within: HumanDuration::secs(10),
            count: Count::Gateway,
            error_rate: None,
            min_requests: 20,
            eject: HumanDuration::secs(10),
            max_eject: HumanDuration::secs(300),
            max_ejected: Percent::new(50),
        }
    }
}

/// What a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(rename = "HealthCount")]
pub enum Count {
    /// What a gateway answers 502, 503 or 504 to, and these statuses.
    #[serde(rename = "gateway")]
    Gateway,
    /// These, and any other status from 500 on.
    #[serde(rename = "5xx")]
    All5xx,
}

impl Passive {
    /// The rules; `None`: nothing is ejected. Reports at `at` what is wrong with them.
    pub fn build(&self, at: &Scope<'_>) -> Option<PassiveRules> {
        self.0.as_ref()?.build(at)
    }
}

impl PassiveSettings {
    fn build(&self, at: &Scope<'_>) -> Option<PassiveRules> {
        let mut sound = true;
        let mut error = |key: &str, message: &str, hint: &str| {
            at.key(key).error_hint(message, hint);
            sound = false;
        };
        if self.errors == 0 || self.errors > MOST_ERRORS {
            error("errors", "so many failures in a row cannot be counted", "write a number from 1 to 1000000");
        }
        for (key, span) in [("within", self.within), ("eject", self.eject), ("max_eject", self.max_eject)] {
            if span.0.is_zero() {
                error(key, "a time of 0 ejects nothing", "write a time, as in `10s`, or `passive: false`");
            }
        }
        if self.error_rate.is_some_and(Percent::is_zero) {
            error("error_rate", "0% of failures is what every server has", "write a share, as in `50%`");
        }
        if self.min_requests == 0 {
            error("min_requests", "without a request there is no share of failures", "write 1 or more");
        }
        if self.max_eject < self.eject && !self.max_eject.0.is_zero() {
            // Where it was written: a default is no mistake of anybody's.
            let key = if self.eject == Self::default().eject { "max_eject" } else { "eject" };
            at.key(key).warn(
                format!("no server is left out for {}: `max_eject` ends it after {}", self.eject, self.max_eject),
                "raise `max_eject` or lower `eject`",
            );
        }
        if self.max_ejected.is_zero() {
            at.key("max_ejected").warn("no server is ever left out", "write `passive: false`, or a share, as in `50%`");
        }
        sound.then(|| PassiveRules {
            errors: self.errors,
            within: micros(self.within.0),
            counts_all_5xx: self.count == Count::All5xx,
            error_rate: self.error_rate,
            min_requests: self.min_requests,
            eject: micros(self.eject.0),
            max_eject: micros(self.max_eject.0),
            max_ejected: self.max_ejected,
        })
    }
}

/// More failures in a row than this nobody waits for; and they can be counted.
const MOST_ERRORS: u32 = 1_000_000;
const _: () = assert!(MOST_ERRORS <= MOST_IN_A_ROW);

/// Learns of the requests of one upstream, and ejects.
#[derive(Debug)]
pub struct Ejector {
    rules: PassiveRules,
    /// Held while one is ejected: two at once could be one too many.
    deciding: Mutex<()>,
}

impl Ejector {
    /// Ejects by these rules.
    pub fn new(rules: PassiveRules) -> Self {
        Self { rules, deciding: Mutex::new(()) }
    }

    /// Whether this counts against the backend.
    pub fn is_failure(&self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Status(500..) if self.rules.counts_all_5xx => true,
            _ => outcome.is_gateway_failure(),
        }
    }

    /// A request went well. Costs next to nothing while none fails, unless the share of failures counts.
    #[inline]
    pub fn succeed(&self, backend: &Backend, now: impl FnOnce() -> Micros) {
        // Without a share there is nothing to date.
        let now = if self.rules.error_rate.is_some() { now() } else { 0 };
        backend.state().health.outcome(true, &self.rules, now);
    }

    /// A request failed; among these backends no more than the share that was set are ejected at the same time.
    pub fn fail(&self, backend: &Backend, backends: &[Arc<Backend>], now: Micros) -> Option<Change> {
        let health = &backend.state().health;
        if !health.outcome(false, &self.rules, now) || !takes_share(backend) {
            return None;
        }
        let _deciding = self.deciding.lock().unwrap_or_else(PoisonError::into_inner);
        let sharing = backends.iter().filter(|backend| takes_share(backend));
        let ejected = sharing.clone().filter(|other| other.state().health.ejected_until().is_some()).count();
        if ejected >= self.rules.most_ejected(sharing.count()) {
            return None;
        }
        health.eject(&self.rules, now)
    }
}

/// Whether a backend is one of those that share the requests.
fn takes_share(backend: &Backend) -> bool {
    backend.weight() > 0 && !backend.is_spare()
}

impl<'de> Deserialize<'de> for Passive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms;
        impl<'de> Visitor<'de> for Forms {
            type Value = Passive;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`false`, or a mapping as in `{ errors: 5, eject: 10s }`")
            }
            fn visit_bool<E: Error>(self, on: bool) -> Result<Passive, E> {
                Ok(Passive(on.then(PassiveSettings::default)))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Passive, A::Error> {
                Deserialize::deserialize(MapAccessDeserializer::new(map)).map(|settings| Passive(Some(settings)))
            }
        }
        deserializer.deserialize_any(Forms)
    }
}

impl JsonSchema for Passive {
    fn schema_name() -> Cow<'static, str> {
        "Passive".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let settings = generator.subschema_for::<PassiveSettings>();
        json_schema!({
            "description": "When a server at which requests fail is left out for a while: `false`, never; or a mapping.",
            "anyOf": [{ "type": "boolean" }, settings],
        })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::diag::Issues;
    use crate::keep::Keep;
    use crate::upstream::backend::Seat;
    use crate::upstream::health::state::{Health, Status};
    use crate::upstream::peer::{Keepalive, PeerTemplate, Timeouts};

    fn ejector(yaml: &str) -> Ejector {
        let passive: Passive = serde_yaml::from_str(yaml).unwrap();
        let issues = Issues::default();
        Ejector::new(passive.build(&issues.root()).unwrap())
    }

    /// Backends of these weights; 0: a spare.
    fn backends(weights: &[u32]) -> Vec<Arc<Backend>> {
        let keep = Keep::default();
        let seat = |(index, weight): (usize, &u32)| {
            let label = format!("10.0.0.{index}:80");
            let template = PeerTemplate::tcp(label.parse().unwrap(), Timeouts::default(), Keepalive::default());
            Seat {
                label,
                weight: *weight,
                tier: 0,
                zone: None,
                drains: false,
                spare: *weight == 0,
                authority: HeaderValue::from_static("a"),
                template,
                limits: Default::default(),
            }
        };
        let make = |seat| Arc::new(Backend::new("api", seat, Health::default, None, &keep));
        weights.iter().enumerate().map(seat).map(make).collect()
    }

    fn ejected(backends: &[Arc<Backend>]) -> usize {
        backends.iter().filter(|backend| backend.status() == Status::Ejected).count()
    }

    #[test]
    fn some_are_ejected_and_never_all() {
        for (share, weights, most) in [
            ("50%", &[1][..], 0),
            ("50%", &[1, 1], 1),
            ("50%", &[1, 0, 0, 0], 0),
            ("100%", &[1, 1, 1], 2),
            ("50%", &[1, 1, 1, 1, 1], 2),
            ("50%", &[1, 1, 1, 1, 0, 0], 2),
        ] {
            let ejector = ejector(&format!("{{ errors: 2, max_ejected: {share} }}"));
            let backends = backends(weights);
            for _ in 0..4 {
                for backend in &backends {
                    ejector.fail(backend, &backends, 1);
                }
            }
            assert_eq!(ejected(&backends), most, "{share} of {weights:?}");
        }
    }

    #[test]
    fn who_returns_leaves_its_place_to_another() {
        let ejector = ejector("{ errors: 1 }");
        let backends = backends(&[1, 1]);
        assert!(ejector.fail(&backends[0], &backends, 1).is_some());
        assert!(ejector.fail(&backends[1], &backends, 1).is_none(), "one of two");
        backends[0].state().health.expire(Micros::MAX);
        assert!(ejector.fail(&backends[1], &backends, 2).is_some());
    }

    #[test]
    fn many_threads_eject_no_more_than_the_share() {
        let ejector = ejector("{ errors: 1 }");
        let backends = backends(&[1; 9]);
        std::thread::scope(|scope| {
            for backend in &backends {
                scope.spawn(|| {
                    for _ in 0..100 {
                        ejector.fail(backend, &backends, 1);
                    }
                });
            }
        });
        assert_eq!(ejected(&backends), 4);
    }

    #[test]
    fn what_counts_is_as_written() {
        for (count, outcome, fails) in [
            ("gateway", Outcome::Status(200), false),
            ("gateway", Outcome::Status(500), false),
            ("gateway", Outcome::Status(503), true),
            ("gateway", Outcome::Connect, true),
            ("gateway", Outcome::Reset, true),
            ("gateway", Outcome::Timeout, true),
            ("5xx", Outcome::Status(404), false),
            ("5xx", Outcome::Status(500), true),
            ("5xx", Outcome::Status(503), true),
            ("5xx", Outcome::Connect, true),
        ] {
            assert_eq!(ejector(&format!("{{ count: {count} }}")).is_failure(outcome), fails, "{count} {outcome:?}");
        }
    }

    #[test]
    fn a_success_clears_the_count() {
        let ejector = ejector("{ errors: 2 }");
        let backends = backends(&[1, 1]);
        for _ in 0..5 {
            assert_eq!(ejector.fail(&backends[0], &backends, 1), None);
            ejector.succeed(&backends[0], || unreachable!("there is nothing to date"));
        }
        assert_eq!(ejected(&backends), 0);
    }
}
