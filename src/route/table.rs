//! `Table`: the route of a request: by host, then priority, then path, then predicates; the most exact wins.
//!
//! The order in the document never matters. Hosts with the same routes share one site, so that memory grows with what is
//! written, and a look-up costs the same for one route and for ten thousand.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;

use ahash::AHashMap;
use pingora::http::RequestHeader;

use super::entry::{Brief, Leaf, Level, Route};
use super::host::{HostPattern, Hosts};
use super::overlap::Overlaps;
use super::path::Pattern;
use super::path_tree::PathTreeBuilder;
use super::predicate::{Match, Predicate};
use crate::diag::{Issues, Path, Scope};
use crate::exchange::{Captures, Exchange};

/// All routes of a document, each with what the caller wants back for it.
#[derive(Debug)]
pub struct Table<T> {
    hosts: Hosts,
    sites: Box<[Site]>,
    routes: Box<[Route]>,
    briefs: Box<[Brief<T>]>,
}

/// The routes of some hosts.
#[derive(Debug)]
struct Site {
    /// The highest priority first.
    levels: Box<[Level]>,
    routes: Box<[u32]>,
}

/// The names of the pieces that the paths of a match capture, in the order of [`Exchange::captures`].
pub fn capture_names(matching: &Match) -> Vec<Box<str>> {
    // What is wrong with the paths is reported when the route is added.
    let unheard = Issues::default();
    let patterns = matching.patterns(&unheard.root()).unwrap_or_default();
    patterns.first().map(|pattern| pattern.names().to_vec()).unwrap_or_default()
}

/// Collects routes for a [`Table`].
#[derive(Debug)]
pub struct TableBuilder<T> {
    routes: Vec<Route>,
    briefs: Vec<Brief<T>>,
    places: Vec<Path>,
    hosts: AHashMap<HostPattern, Vec<u32>>,
}

impl<T> Default for TableBuilder<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> TableBuilder<T> {
    /// A table without routes.
    pub fn new() -> Self {
        Self { routes: Vec::new(), briefs: Vec::new(), places: Vec::new(), hosts: AHashMap::new() }
    }

    /// Adds a route of these hosts, with `at` as its place. What is wrong with its match is reported, and the route left
    /// out, so that it does not seem to overlap with others.
    pub fn add(
        &mut self,
        hosts: &[HostPattern],
        matching: &Match,
        priority: i32,
        name: &str,
        payload: T,
        at: &Scope<'_>,
    ) {
        let place = at.key("match");
        let (patterns, predicate) = (matching.patterns(&place), Predicate::build(matching, &place));
        let (Some(patterns), Some(predicate)) = (patterns, predicate) else { return };
        if let Some((first, others)) = patterns.split_first() {
            for other in others.iter().filter(|other| other.names() != first.names()) {
                place.error_hint(
                    format!("`{first}` captures {}, but `{other}` {}", listed(first), listed(other)),
                    "give all paths of a route the same captures in the same order, or make two routes of it",
                );
            }
        }
        let route = self.routes.len() as u32;
        let names = patterns.first().map_or(0, |pattern| u16::try_from(pattern.names().len()).unwrap_or(u16::MAX));
        self.briefs.push(Brief { payload, names, unconditional: predicate.count() == 0 });
        self.routes.push(Route { name: name.into(), priority, patterns: patterns.into(), predicate });
        self.places.push(at.path());
        for host in hosts {
            let routes = match self.hosts.get_mut(host) {
                Some(routes) => routes,
                None => self.hosts.entry(host.clone()).or_default(),
            };
            if routes.last() != Some(&route) {
                routes.push(route);
            }
        }
    }

    /// The table of all routes so far. Reports routes that match the same requests, and routes that never match.
    pub fn build(self, issues: &Issues) -> Table<T> {
        let mut by_host: Vec<(HostPattern, Vec<u32>)> = self.hosts.into_iter().collect();
        by_host.sort();
        let mut overlaps = Overlaps::new(&self.routes);
        let mut hosts = Hosts::default();
        let mut sites = Vec::new();
        let mut known: AHashMap<Vec<u32>, u32> = AHashMap::new();
        for (pattern, routes) in by_host {
            let site = *known.entry(routes).or_insert_with_key(|routes| {
                sites.push(Site::build(routes, &self.routes, &pattern, &mut overlaps));
                sites.len() as u32 - 1
            });
            hosts.insert(&pattern, site);
        }
        overlaps.report(&self.places, issues);
        Table { hosts, sites: sites.into(), routes: self.routes.into(), briefs: self.briefs.into() }
    }
}

fn listed(pattern: &Pattern) -> String {
    match pattern.names() {
        [] => "nothing".to_owned(),
        names => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
    }
}

/// The routes of one priority while they are collected.
#[derive(Default)]
struct Draft<'a> {
    tree: PathTreeBuilder,
    leaves: Vec<Leaf>,
    patterns: Vec<&'a Pattern>,
}

impl Site {
    fn build<'a>(chosen: &[u32], routes: &'a [Route], host: &HostPattern, overlaps: &mut Overlaps<'a>) -> Self {
        let mut drafts: BTreeMap<Reverse<i32>, Draft<'a>> = BTreeMap::new();
        for &index in chosen {
            let route = &routes[index as usize];
            let draft = drafts.entry(Reverse(route.priority)).or_default();
            for pattern in &route.patterns {
                let leaf = draft.tree.leaf(pattern) as usize;
                if leaf == draft.leaves.len() {
                    draft.leaves.push(Leaf::new());
                    draft.patterns.push(pattern);
                }
                draft.leaves[leaf].push(index);
            }
        }
        let precedence = |a: &u32, b: &u32| routes[*a as usize].predicate.precedence(&routes[*b as usize].predicate);
        let finish = |mut draft: Draft<'a>| {
            draft.leaves.iter_mut().for_each(|leaf| leaf.sort_by(precedence));
            (Level { tree: draft.tree.build(), leaves: draft.leaves.into() }, draft.patterns)
        };
        let (levels, patterns): (Vec<Level>, Vec<Vec<&Pattern>>) = drafts.into_values().map(finish).unzip();
        overlaps.look(&levels, &patterns, host);
        Self { levels: levels.into(), routes: chosen.into() }
    }
}

impl<T> Table<T> {
    /// The route of a request, by the exchange's host and normalised path, and the pieces of the path that it captures.
    pub fn find(&self, head: &RequestHeader, exchange: &mut Exchange) -> Option<&T> {
        let mut captures = Captures::new();
        let found = self.search(head, exchange, &mut captures);
        exchange.captures = captures;
        found.map(|route| &self.briefs[route as usize].payload)
    }

    fn search(&self, head: &RequestHeader, exchange: &Exchange, captures: &mut Captures) -> Option<u32> {
        let site = &self.sites[self.hosts.find(&exchange.host)? as usize];
        let path = exchange.path(head);
        let mut chosen = None;
        for level in &site.levels {
            let found = level.tree.find(path, captures, &mut |leaf| {
                let mut routes = level.leaves[leaf as usize].iter().copied();
                chosen = routes.find(|&route| {
                    self.briefs[route as usize].unconditional
                        || self.routes[route as usize].predicate.matches(head, exchange)
                });
                chosen.is_some()
            });
            if found {
                break;
            }
        }
        // A rest without a name is a piece too, the last; a route without a match captures nothing.
        captures.truncate(chosen.map_or(0, |route| self.briefs[route as usize].names.into()));
        chosen
    }

    /// What [`Self::find`] looks at for a request, and why it takes the one route and not the others.
    pub fn explain(&self, head: &RequestHeader, exchange: &Exchange) -> Explanation {
        let chosen = self.hosts.chosen(&exchange.host);
        let host = explain_host(&exchange.host, chosen.as_ref());
        let Some(site) = self.hosts.find(&exchange.host).map(|site| &self.sites[site as usize]) else {
            return Explanation { host, routes: Vec::new() };
        };
        let mut tried: Vec<(&Route, &Pattern)> = site
            .routes
            .iter()
            .map(|route| &self.routes[*route as usize])
            .flat_map(|route| route.patterns.iter().map(move |pattern| (route, pattern)))
            .collect();
        tried.sort_by(|(a, above), (b, below)| {
            let by_path = b.priority.cmp(&a.priority).then_with(|| above.precedence(below));
            by_path.then_with(|| a.predicate.precedence(&b.predicate))
        });
        let mut taken = false;
        let verdict = |(route, pattern): (&Route, &Pattern)| {
            let outcome = if !pattern.matches(exchange.path(head)) {
                Outcome::OtherPath
            } else if let Some(why) = route.predicate.explain(head, exchange) {
                Outcome::Failed(why)
            } else if taken {
                Outcome::Later
            } else {
                taken = true;
                Outcome::Taken
            };
            Verdict { route: route.name.to_string(), path: pattern.to_string(), priority: route.priority, outcome }
        };
        Explanation { host, routes: tried.into_iter().map(verdict).collect() }
    }
}

fn explain_host(host: &str, chosen: Option<&HostPattern>) -> String {
    match chosen {
        Some(HostPattern::Exact(_)) => {
            format!("`{host}` is the host of a site; wildcards and the default are not looked at")
        }
        Some(pattern @ HostPattern::Below(_)) => {
            format!("no site has the host `{host}`; `{pattern}` is the longest wildcard that takes it")
        }
        Some(HostPattern::Default) => {
            format!("no site has the host `{host}` or a wildcard that takes it; the default site does")
        }
        None => format!("no site has the host `{host}` or a wildcard that takes it, and there is no default site"),
    }
}

/// How a request finds its route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Why the routes of this host were looked at and no others, in a sentence.
    pub host: String,
    /// The routes of the host in the order of precedence, once for each of their paths.
    pub routes: Vec<Verdict>,
}

/// Why a route is taken for a request, or why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The name of the route.
    pub route: String,
    /// The path or expression of the route that is meant, in normal form.
    pub path: String,
    /// The priority of the route.
    pub priority: i32,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The request goes there.
    Taken,
    /// Its path is another.
    OtherPath,
    /// This condition does not hold.
    Failed(String),
    /// It matches, but one that comes earlier does too.
    Later,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Taken => "taken",
            Self::OtherPath => "the path differs",
            Self::Failed(why) => why,
            Self::Later => "matches, but a more exact route was taken",
        })
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
