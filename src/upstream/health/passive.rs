//! `passive`: backends at which requests fail are left out for a while, as it is written and as it is done.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use super::failures::MOST_IN_A_ROW;
use super::rules::PassiveRules;
use crate::diag::Scope;
use crate::units::{HumanDuration, Percent};
use crate::upstream::clock::micros;

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
        if self.errors == 0 || self.errors > MOST_IN_A_ROW {
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
            at.key("max_eject").warn(
                format!("no server is left out for the {} that `eject` says, only for {}", self.eject, self.max_eject),
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
