//! `Lifetimes`: how long responses are fresh by their status and media type, as the operator says.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};

use super::media;
use crate::cache::config::TtlConfig;
use crate::cache::rules::freshness::{Basis, Lifetime, Ttl, is_heuristically_cacheable};
use crate::diag::Scope;
use crate::units::{HumanDuration, StatusRange};

/// What the operator says of lifetimes.
#[derive(Clone, Debug, Default)]
pub(super) struct Lifetimes {
    default: Option<Duration>,
    /// The narrowest first.
    statuses: Box<[(StatusRange, Duration)]>,
    /// Whole types before `type/*`, in lower case.
    types: Box<[(Box<str>, Duration)]>,
    force: bool,
    min: Duration,
    max: Option<Duration>,
}

impl Lifetimes {
    /// Compiles it; reports what is wrong with it at `at`.
    pub(super) fn build(config: &TtlConfig, at: &Scope<'_>) -> Option<Self> {
        let (types_at, mut sound) = (at.key("types"), true);
        let mut note = |length: HumanDuration, at: &Scope<'_>| {
            if length.0.subsec_nanos() > 0 {
                at.error_hint(
                    format!("`{length}` is not whole seconds"),
                    "caches count in seconds: write at least `1s`",
                );
                sound = false;
            } else if config.max.is_some_and(|max| length > max) {
                at.error_hint(format!("`{length}` is more than `max`"), "no response is fresh for longer than `max`");
                sound = false;
            }
        };
        config.default.iter().for_each(|length| note(*length, &at.key("default")));
        config.min.iter().for_each(|length| note(*length, &at.key("min")));
        config.max.iter().for_each(|length| note(*length, &at.key("max")));
        for (status, length) in &config.statuses {
            note(*length, &at.key(&status.to_string()));
        }
        for (name, length) in &config.types {
            let place = types_at.key(name);
            if !media::is_pattern(name) {
                let mend = "write one as in `text/css`, or all of a kind, as in `image/*`".to_owned();
                place.error_key(format!("`{name}` is no media type"), Some(mend));
            }
            note(*length, &place);
        }
        if config.force && config.is_silent() {
            at.key("force").error_hint(
                "no lifetime is given that could be forced",
                "add `default`, a status or `types`, as in `{ default: 1h, force: true }`",
            );
            sound = false;
        }
        let mut statuses: Vec<_> = config.statuses.iter().map(|(range, length)| (*range, length.0)).collect();
        statuses.sort_by_key(|(range, _)| (range.width(), range.last()));
        if let Some(twice) = statuses.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let mend = "remove one of the two".to_owned();
            at.key(&twice[0].0.to_string()).error_key(format!("`{}` is there twice", twice[0].0), Some(mend));
        }
        let mut types: Vec<_> =
            config.types.iter().map(|(name, length)| (name.to_ascii_lowercase().into_boxed_str(), length.0)).collect();
        types.sort_by_key(|(name, _)| name.ends_with("/*"));
        sound.then(|| Self {
            default: config.default.map(|length| length.0),
            statuses: statuses.into(),
            types: types.into(),
            force: config.force,
            min: config.min.unwrap_or_default().0,
            max: config.max.map(|length| length.0),
        })
    }

    /// What counts for this response.
    pub(super) fn of(&self, status: StatusCode, headers: &HeaderMap) -> Ttl {
        let length = self.length(status, headers);
        if self.force { Ttl { force: length, default: None } } else { Ttl { force: None, default: length } }
    }

    fn length(&self, status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
        if let Some((_, length)) = self.statuses.iter().find(|(range, _)| range.contains(status)) {
            return Some(*length);
        }
        if !is_heuristically_cacheable(status) {
            return None;
        }
        if !self.types.is_empty()
            && let Some(kind) = headers.get(CONTENT_TYPE).map(|value| media::essence(value.as_bytes()))
            && let Some((_, length)) = self.types.iter().find(|(pattern, _)| media::matches(pattern, kind))
        {
            return Some(*length);
        }
        self.default
    }

    /// Keeps a lifetime within the bounds; of what says nothing, nothing is made.
    pub(super) fn bound(&self, lifetime: &mut Lifetime) {
        if lifetime.basis != Basis::Nothing {
            lifetime.length = lifetime.length.max(self.min).min(self.max.unwrap_or(Duration::MAX));
        }
    }
}
