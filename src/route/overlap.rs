//! Routes that stand in each other's way: those that match exactly the same requests, and those that can never match.

use ahash::{AHashMap, AHashSet};

use super::entry::{Level, Route};
use super::host::HostPattern;
use super::path::{MAX_SEGMENTS, Pattern, Segment};
use crate::diag::{Issue, Issues, Path, Place, Severity};
use crate::exchange::Captures;

/// Stands for a segment that no pattern names: no path in normal form has this byte.
const ANY: &str = "\0";

/// Collects what overlaps, over all sites.
pub(super) struct Overlaps<'a> {
    routes: &'a [Route],
    same: AHashSet<(u32, u32)>,
    found: Vec<(u32, u32, String)>,
    /// For each route that is covered somewhere: in how many places, and by which route in the last.
    covered: AHashMap<u32, (usize, u32)>,
    /// In how many places each route stands, of those that were looked at.
    places: Vec<usize>,
}

impl<'a> Overlaps<'a> {
    pub(super) fn new(routes: &'a [Route]) -> Self {
        let places = vec![0; routes.len()];
        Self { routes, same: AHashSet::new(), found: Vec::new(), covered: AHashMap::new(), places }
    }

    fn route(&self, index: u32) -> &'a Route {
        &self.routes[index as usize]
    }

    /// Looks at the routes of one site, the first host of which is `host`; `patterns` has those of the leaves.
    pub(super) fn look(&mut self, levels: &[Level], patterns: &[Vec<&Pattern>], host: &HostPattern) {
        for (level, patterns) in levels.iter().zip(patterns) {
            for (leaf, pattern) in level.leaves.iter().zip(patterns) {
                self.duplicates(leaf, pattern, host);
                leaf.iter().for_each(|index| self.places[*index as usize] += 1);
            }
        }
        // What takes more comes later, unless it is an expression or has a higher priority.
        if levels.len() > 1 || patterns.iter().flatten().any(|pattern| takes_all(pattern)) {
            self.shadows(levels, patterns);
        }
    }

    /// Routes of one leaf that have the same predicates stand side by side.
    fn duplicates(&mut self, leaf: &[u32], pattern: &Pattern, host: &HostPattern) {
        for pair in leaf.windows(2) {
            let (earlier, later) = (pair[0].min(pair[1]), pair[0].max(pair[1]));
            let equal = self.route(earlier).predicate.precedence(&self.route(later).predicate).is_eq();
            if !equal || !self.same.insert((earlier, later)) {
                continue;
            }
            let what = match self.route(later).predicate.count() {
                _ if earlier == later => format!("`{pattern}` is written twice"),
                0 => format!("`{pattern}` of {} goes to", named(host)),
                _ => format!("`{pattern}` of {} under the same conditions goes to", named(host)),
            };
            self.found.push((earlier, later, what));
        }
    }

    /// Looks for routes of which every request goes to one that comes earlier.
    fn shadows(&mut self, levels: &[Level], patterns: &[Vec<&Pattern>]) {
        for depth in 0..levels.len() {
            for (leaf, pattern) in levels[depth].leaves.iter().zip(&patterns[depth]) {
                let probes = probes(pattern);
                for &index in leaf {
                    let by = (0..=depth).find_map(|other| {
                        let earlier = |by: &Pattern| match by {
                            Pattern::Regex(_) if !takes_all(by) => false,
                            _ => other < depth || (takes_all(by) && by.precedence(pattern).is_lt()),
                        };
                        self.taker(index, &probes, &levels[other], &patterns[other], earlier)
                    });
                    if let Some(by) = by {
                        let (count, last) = self.covered.entry(index).or_default();
                        (*count, *last) = (*count + 1, by);
                    }
                }
            }
        }
    }

    /// The route of this level that takes all of these paths when route `index` would, by a pattern that comes earlier.
    fn taker(
        &self,
        index: u32,
        probes: &[String],
        level: &Level,
        patterns: &[&Pattern],
        earlier: impl Fn(&Pattern) -> bool,
    ) -> Option<u32> {
        let mut candidates: Option<Vec<(u32, u32)>> = None;
        for probe in probes {
            let mut seen = Vec::new();
            level.tree.find(probe, &mut Captures::new(), &mut |leaf| {
                if earlier(patterns[leaf as usize]) {
                    let others = level.leaves[leaf as usize].iter().filter(|other| **other != index);
                    let covers = |other: &&u32| self.route(**other).predicate.covers(&self.route(index).predicate);
                    seen.extend(others.filter(covers).map(|other| (leaf, *other)));
                }
                false
            });
            seen.retain(|found| candidates.as_ref().is_none_or(|known| known.contains(found)));
            candidates = Some(seen);
        }
        candidates?.first().map(|(_, route)| *route)
    }

    /// Says what was found, each at the route that comes later in the document.
    pub(super) fn report(self, places: &[Path], issues: &Issues) {
        for (earlier, later, what) in &self.found {
            let (message, hint) = if earlier == later {
                (what.clone(), "leave one out")
            } else {
                let other = format!("`{}` ({})", self.route(*earlier).name, places[*earlier as usize]);
                let hint = "make the path or the conditions of one more exact, or give one a higher `priority`";
                (format!("{what} {other} already"), hint)
            };
            push(issues, Severity::Error, &places[*later as usize], message, hint);
        }
        let mut covered: Vec<(&u32, &(usize, u32))> = self.covered.iter().collect();
        covered.sort();
        for (&index, &(count, by)) in covered {
            if count == self.places[index as usize] {
                let other = format!("`{}` ({})", self.route(by).name, places[by as usize]);
                let message =
                    format!("this route can never match: {other} comes earlier and takes all of its requests");
                push(
                    issues,
                    Severity::Warning,
                    &places[index as usize],
                    message,
                    "raise its `priority`, or leave it out",
                );
            }
        }
    }
}

/// Whether an expression matches every path that begins with its prefix, so that its matches are known.
fn takes_all(pattern: &Pattern) -> bool {
    matches!(pattern, Pattern::Regex(regex) if regex.takes_all())
}

fn named(host: &HostPattern) -> String {
    match host {
        HostPattern::Default => "the default site".to_owned(),
        host => format!("`{host}`"),
    }
}

fn push(issues: &Issues, severity: Severity, path: &Path, message: String, hint: &str) {
    let hint = Some(hint.to_owned());
    issues.push(Issue { path: path.clone(), place: Place::Value, severity, message, hint });
}

/// Paths such that a pattern that matches all of them matches whatever `pattern` does.
fn probes(pattern: &Pattern) -> Vec<String> {
    let (mut start, open) = match pattern {
        Pattern::Exact(path) => (path.to_string(), ""),
        Pattern::Regex(regex) if regex.prefix().starts_with('/') => (regex.prefix().to_owned(), ANY),
        Pattern::Regex(_) => ("/".to_owned(), ANY),
        Pattern::Segments(pattern) => {
            let mut start = String::new();
            let mut open = "";
            for segment in &pattern.segments {
                match segment {
                    Segment::Literal(text) => start.extend(["/", text]),
                    Segment::Param => start.extend(["/", ANY]),
                    Segment::Partial(prefix) => {
                        start.extend(["/", prefix]);
                        open = ANY;
                    }
                    Segment::Rest => open = "/",
                }
            }
            (start, open)
        }
    };
    if open.is_empty() {
        return vec![start];
    }
    // Longer than any pattern without a `*` can be.
    let long = format!("{start}{open}{}", format!("/{ANY}").repeat(MAX_SEGMENTS + 1)).replace("//", "/");
    if start.is_empty() {
        start.push('/');
    }
    vec![start, long]
}
