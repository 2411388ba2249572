//! `cache` of a site or a route: the block with its zone and its conditions, compiled.

use std::sync::Arc;

use pingora::http::RequestHeader;

use super::context::Context;
use super::predicate::{Match, Predicate};
use crate::cache::config::{CacheConfig, Settings};
use crate::cache::key::Around;
use crate::cache::policy::Parts;
use crate::cache::rules::directives::Wishes;
use crate::cache::rules::status::Forward;
use crate::cache::{Caching, Zone};
use crate::diag::{Issues, Scope, suggest};
use crate::exchange::Exchange;
use crate::observe::RouteCacheStats;

/// `cache`: `true`, `false`, the name of a zone, or a mapping.
pub type Config = CacheConfig<Match>;

/// How a route caches, and which requests it leaves alone.
pub struct Cached {
    /// How it caches.
    pub caching: Caching,
    bypass: Box<[Predicate]>,
    no_store: Box<[Predicate]>,
}

impl Cached {
    /// Whether the cache has to do with this request at all, and then what it wishes; else why not.
    pub fn admits(&self, head: &RequestHeader, exchange: &Exchange) -> Result<Wishes, Forward> {
        let wishes = self.caching.admits(head)?;
        if self.bypass.iter().any(|condition| condition.matches(head, exchange)) {
            return Err(Forward::Bypass);
        }
        Ok(wishes)
    }

    /// Whether the response to this request may be stored, as far as the request matters.
    pub fn may_store(&self, head: &RequestHeader, exchange: &Exchange) -> bool {
        !self.no_store.iter().any(|condition| condition.matches(head, exchange))
    }
}

/// The route that a block is for.
pub(super) struct Of<'a> {
    /// The key of its counters.
    pub(super) key: &'a str,
    /// The names that its path gives.
    pub(super) captures: &'a [Box<str>],
    pub(super) matches: &'a Match,
    pub(super) raw_path: bool,
    /// Whether its requests go to an upstream.
    pub(super) is_forwarded: bool,
}

/// What a route does: its own block, else that of its site.
pub(super) fn build(
    own: Option<&Config>,
    site: Option<&Config>,
    of: &Of<'_>,
    context: &mut Context<'_>,
    at: &Scope<'_>,
) -> Option<Arc<Cached>> {
    let Some(own) = own else {
        // Whatever is wrong with it has been told of the site.
        let issues = Issues::default();
        return compile(site?, of, context, &issues.root()).map(Arc::new);
    };
    let cached = compile(own, of, context, &at.key("cache"));
    if own.is_on() && !of.is_forwarded {
        at.key("cache").warn("nothing is forwarded on this route", "only answers of an upstream are cached; remove it");
    }
    cached.map(Arc::new)
}

/// Reports what is wrong with the block of a site; `None` where its routes can do nothing with it.
pub(super) fn check_site(config: &Config, context: &mut Context<'_>, at: &Scope<'_>) -> Option<Config> {
    let matches = Match::default();
    let of = Of { key: "", captures: &[], matches: &matches, raw_path: false, is_forwarded: true };
    compile(config, &of, context, at).map(|_| config.clone())
}

fn compile(config: &Config, of: &Of<'_>, context: &mut Context<'_>, at: &Scope<'_>) -> Option<Cached> {
    let settings = config.settings.as_ref()?;
    let zone = config.at_zone(at, |at| find_zone(settings, context, at));
    let conditions = |matches: &[Match], at: &Scope<'_>| -> Option<Box<[Predicate]>> {
        let built = matches.iter().enumerate().map(|(index, one)| Predicate::nested(one, &at.index(index)));
        // All are built before a missing one is missed, so that all faults are told.
        built.collect::<Vec<_>>().into_iter().collect()
    };
    let bypass = conditions(&settings.bypass, &at.key("bypass"));
    let no_store = conditions(&settings.no_store, &at.key("no_store"));
    // Others of the same paths go another way: what one of the two stores is not for the other's clients.
    let apart = of.matches.is_by_more_than_path_and_method().then_some(of.key);
    let around = Around { captures: of.captures, raw_path: of.raw_path, apart };
    let stats = context.keep.get_or(of.key, RouteCacheStats::default);
    // Without a zone the block is still compiled, for what else is wrong with it.
    let Some(zone) = zone else {
        Caching::check(settings, around, at);
        return None;
    };
    let caching = Caching::build(settings, Parts { zone, around, stats }, at);
    Some(Cached { caching: caching?, bypass: bypass?, no_store: no_store? })
}

fn find_zone(settings: &Settings<Match>, context: &mut Context<'_>, at: &Scope<'_>) -> Option<Arc<Zone>> {
    let zones = context.zones;
    let names = || zones.keys().map(String::as_str);
    let (name, zone) = match &settings.zone {
        Some(name) => {
            let Some(zone) = zones.get(name) else {
                let hint = suggest::did_you_mean(name, names())
                    .unwrap_or_else(|| format!("name it under `caches`, as in `caches: {{ {name}: 512MiB }}`"));
                at.error_hint(format!("no cache is named `{name}`"), hint);
                return None;
            };
            (name, zone)
        }
        None if zones.len() > 1 => {
            let all = names().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            let hint = format!("name it, as in `cache: {}`", names().next().unwrap_or_default());
            at.error_hint(format!("which cache? There are several: {all}"), hint);
            return None;
        }
        None => zones.iter().next()?,
    };
    context.used_zones.insert(name.clone());
    zone.clone()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;

    use super::*;
    use crate::cache::config::ZoneConfig;
    use crate::keep::Keep;

    fn built(zones: &[&str], yaml: &str) -> (Option<Arc<Cached>>, Vec<(String, String)>) {
        let (issues, keep) = (Issues::default(), Keep::default());
        let zone = |name: &&str| ((*name).to_owned(), Zone::build(name, &ZoneConfig::default(), &keep, &issues.root()));
        let zones = zones.iter().map(zone).collect();
        let mut context = Context {
            upstreams: &BTreeMap::new(),
            in_place: &mut |_, _, _| None,
            used: BTreeSet::new(),
            zones: &zones,
            used_zones: BTreeSet::new(),
            keep: &keep,
            folder: Path::new(""),
        };
        let (own, matches): (Config, _) = (serde_yaml::from_str(yaml).unwrap(), Match::default());
        let of = Of { key: "site\nroute", captures: &[], matches: &matches, raw_path: false, is_forwarded: true };
        let cached = build(Some(&own), None, &of, &mut context, &issues.root());
        (cached, issues.into_vec().into_iter().map(|issue| (issue.path.to_string(), issue.message)).collect())
    }

    #[test]
    fn a_zone_is_found_by_its_name_or_because_it_is_alone() {
        for (zones, yaml, zone) in [
            (&["main"][..], "true", Some("main")),
            (&["main"], "main", Some("main")),
            (&["main", "video"], "video", Some("video")),
            (&["main", "video"], "{ zone: main, ttl: 1s }", Some("main")),
            (&["main", "video"], "false", None),
        ] {
            let (cached, told) = built(zones, yaml);
            assert_eq!(told, [], "{yaml}");
            assert_eq!(cached.as_ref().map(|cached| cached.caching.zone.name()), zone, "{yaml}");
        }
    }

    #[test]
    fn a_fault_is_told_at_its_place() {
        for (zones, yaml, path, message) in [
            (&["main"][..], "mian", "cache", "no cache is named `mian`"),
            (&["main"], "{ zone: mian }", "cache.zone", "no cache is named `mian`"),
            (&["main", "video"], "true", "cache", "which cache? There are several: `main`, `video`"),
            (&["main", "video"], "{ ttl: 1s }", "cache.zone", "which cache?"),
            (&["main"], "{ bypass: [{ header: { a b: x } }] }", "cache.bypass[0].header[\"a b\"]", "no header name"),
            (&["main"], "{ no_store: [{}] }", "cache.no_store[0]", "an empty match"),
        ] {
            let told = built(zones, yaml).1;
            assert_eq!(told.len(), 1, "{yaml}: {told:?}");
            assert_eq!(told[0].0, path, "{yaml}");
            assert!(told[0].1.contains(message), "{yaml}: {told:?}");
        }
    }

    #[test]
    fn conditions_leave_requests_alone() {
        let yaml =
            "{ bypass: [/private/*, { cookie: { session: { present: true } } }], no_store: [{ query: { q: x } }] }";
        let cached = built(&["main"], yaml).0.unwrap();
        for (path, cookie, admitted, stored) in [
            ("/a", "a=b", true, true),
            ("/a", "session=1", false, true),
            ("/private/a", "a=b", false, true),
            ("/a?q=x", "a=b", true, false),
        ] {
            let mut head = RequestHeader::build("GET", path.as_bytes(), None).unwrap();
            head.insert_header("cookie", cookie).unwrap();
            let exchange = Exchange::new();
            let admits = cached.admits(&head, &exchange);
            assert_eq!(admits.as_ref().err(), (!admitted).then_some(&Forward::Bypass), "{path} {cookie}");
            assert_eq!(cached.may_store(&head, &exchange), stored, "{path} {cookie}");
        }
    }
}
