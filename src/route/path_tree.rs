//! The path patterns of one host, ready to be searched: the cost grows with the path, not with the patterns.
//!
//! Candidates come lazily, the most exact first, until one is accepted. Each node of the tree is visited at most once
//! a search, as only one way leads to it, so that no path makes backtracking explode.

use std::sync::Arc;

use ahash::AHashMap;
use memchr::memchr;

use super::path::{PathRegex, Pattern, Segment};
use crate::exchange::Captures;

/// No node, or no leaf.
const NONE: u32 = u32::MAX;

/// Path patterns by their leaves: numbers that the builder gives, one for each set of paths.
#[derive(Debug)]
pub struct PathTree {
    exact: AHashMap<Box<str>, u32>,
    regexes: Box<[(Arc<PathRegex>, u32)]>,
    nodes: Box<[Node]>,
}

#[derive(Debug)]
struct Node {
    literals: Literals,
    partials: Option<Box<Partials>>,
    param: u32,
    /// The leaf of the pattern that ends here.
    end: u32,
    /// The leaf of the pattern that takes whatever comes.
    rest: u32,
}

/// The children by the text of their segment. Most nodes have one, and a map would cost more than all else.
#[derive(Debug)]
enum Literals {
    None,
    One(Box<str>, u32),
    Many(Box<AHashMap<Box<str>, u32>>),
}

/// The leaves by the beginning of their segment.
#[derive(Debug, Default)]
struct Partials {
    leaves: AHashMap<Box<str>, u32>,
    /// The lengths that occur, the longest first.
    lengths: Vec<usize>,
}

/// Collects patterns for a [`PathTree`].
#[derive(Default)]
pub struct PathTreeBuilder {
    exact: AHashMap<Box<str>, u32>,
    regexes: Vec<(Arc<PathRegex>, u32)>,
    regex_leaves: AHashMap<Box<str>, u32>,
    nodes: Vec<Node>,
    leaves: u32,
}

impl PathTreeBuilder {
    /// The leaf of `pattern`: the same for all patterns that match the same paths by the same shape. New ones count up
    /// from 0.
    pub fn leaf(&mut self, pattern: &Pattern) -> u32 {
        let next = self.leaves;
        let leaf = match pattern {
            Pattern::Exact(text) => *self.exact.entry(text.clone()).or_insert(next),
            Pattern::Regex(regex) => *self.regex_leaves.entry(regex.text().into()).or_insert_with(|| {
                self.regexes.push((regex.clone(), next));
                next
            }),
            Pattern::Segments(pattern) => self.insert(&pattern.segments, next),
        };
        self.leaves = self.leaves.max(leaf + 1);
        leaf
    }

    /// The tree of all patterns so far.
    pub fn build(mut self) -> PathTree {
        let regex = |regex: &Arc<PathRegex>| Pattern::Regex(regex.clone());
        self.regexes.sort_by(|(a, _), (b, _)| regex(a).precedence(&regex(b)));
        let mut exact = self.exact;
        exact.shrink_to_fit();
        PathTree { exact, regexes: self.regexes.into(), nodes: self.nodes.into() }
    }

    fn insert(&mut self, segments: &[Segment], new: u32) -> u32 {
        if self.nodes.is_empty() {
            self.nodes.push(Node::new());
        }
        let mut at = 0;
        for segment in segments {
            let fresh = self.nodes.len() as u32;
            let node = &mut self.nodes[at];
            let child = match segment {
                Segment::Literal(text) => node.literals.get_or_insert(text, fresh),
                Segment::Param => *or_insert(&mut node.param, fresh),
                Segment::Partial(prefix) => return node.partials.get_or_insert_default().get_or_insert(prefix, new),
                Segment::Rest => return *or_insert(&mut node.rest, new),
            };
            if child == fresh {
                self.nodes.push(Node::new());
            }
            at = child as usize;
        }
        *or_insert(&mut self.nodes[at].end, new)
    }
}

fn or_insert(slot: &mut u32, new: u32) -> &mut u32 {
    if *slot == NONE {
        *slot = new;
    }
    slot
}

impl Node {
    const fn new() -> Self {
        Self { literals: Literals::None, partials: None, param: NONE, end: NONE, rest: NONE }
    }
}

impl Literals {
    fn get(&self, text: &str) -> Option<u32> {
        match self {
            Self::None => None,
            Self::One(only, child) => (**only == *text).then_some(*child),
            Self::Many(children) => children.get(text).copied(),
        }
    }

    fn get_or_insert(&mut self, text: &str, new: u32) -> u32 {
        if let Some(child) = self.get(text) {
            return child;
        }
        *self = match std::mem::replace(self, Self::None) {
            Self::None => Self::One(text.into(), new),
            Self::One(only, child) => Self::Many(Box::new(AHashMap::from_iter([(only, child), (text.into(), new)]))),
            Self::Many(mut children) => {
                children.insert(text.into(), new);
                Self::Many(children)
            }
        };
        new
    }
}

impl Partials {
    fn get_or_insert(&mut self, prefix: &str, new: u32) -> u32 {
        if let Some(leaf) = self.leaves.get(prefix) {
            return *leaf;
        }
        self.leaves.insert(prefix.into(), new);
        if let Err(place) = self.lengths.binary_search_by(|length| prefix.len().cmp(length)) {
            self.lengths.insert(place, prefix.len());
        }
        new
    }
}

impl PathTree {
    /// Shows `accept` the leaf of every pattern that matches `path` (in normal form), in the order of precedence, until
    /// it answers true: then that is the answer, and `captures` has the pieces that the pattern takes (one more than it
    /// has names when its rest has no name).
    pub fn find(&self, path: &str, captures: &mut Captures, accept: &mut impl FnMut(u32) -> bool) -> bool {
        captures.clear();
        if self.exact.get(path).is_some_and(|leaf| accept(*leaf)) {
            return true;
        }
        for (regex, leaf) in &*self.regexes {
            if regex.find(path, captures) && accept(*leaf) {
                return true;
            }
            captures.clear();
        }
        if self.nodes.is_empty() {
            return false;
        }
        if path.starts_with('/') {
            return self.walk(&self.nodes[0], path, 1, captures, accept);
        }
        // `*`, as in `OPTIONS *`, has no segments.
        self.take(self.nodes[0].rest, (path.len(), path.len()), captures, accept)
    }

    /// Looks below `node`, where the segment that begins at `start` comes next; beyond the end, none does.
    fn walk(
        &self,
        node: &Node,
        path: &str,
        start: usize,
        captures: &mut Captures,
        accept: &mut impl FnMut(u32) -> bool,
    ) -> bool {
        let Some(left) = path.get(start..) else {
            return (node.end != NONE && accept(node.end))
                || self.take(node.rest, (path.len(), path.len()), captures, accept);
        };
        let end = memchr(b'/', left.as_bytes()).map_or(path.len(), |slash| start + slash);
        let segment = &path[start..end];
        if let Some(child) = node.literals.get(segment)
            && self.walk(&self.nodes[child as usize], path, end + 1, captures, accept)
        {
            return true;
        }
        if let Some(partials) = &node.partials {
            for length in &partials.lengths {
                let leaf = segment.get(..*length).and_then(|prefix| partials.leaves.get(prefix));
                if leaf.is_some_and(|leaf| accept(*leaf)) {
                    return true;
                }
            }
        }
        if node.param != NONE && !segment.is_empty() {
            captures.push((start as u32, end as u32));
            if self.walk(&self.nodes[node.param as usize], path, end + 1, captures, accept) {
                return true;
            }
            captures.pop();
        }
        self.take(node.rest, (start, path.len()), captures, accept)
    }

    /// Offers a leaf that takes the piece of the path.
    fn take(
        &self,
        leaf: u32,
        (begin, end): (usize, usize),
        captures: &mut Captures,
        accept: &mut impl FnMut(u32) -> bool,
    ) -> bool {
        if leaf == NONE {
            return false;
        }
        captures.push((begin as u32, end as u32));
        if accept(leaf) {
            return true;
        }
        captures.pop();
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Issues;
    use crate::route::normalize::normalize;
    use proptest::prelude::*;

    fn pattern(text: &str) -> Pattern {
        let issues = Issues::default();
        let scope = issues.root();
        let parsed = match text.strip_prefix('~') {
            Some(regex) => Pattern::parse_regex(regex, &scope),
            None => Pattern::parse(text, &scope),
        };
        parsed.unwrap_or_else(|| panic!("{text}: {issues:?}"))
    }

    fn tree(texts: &[&str]) -> PathTree {
        let mut builder = PathTreeBuilder::default();
        for (index, text) in texts.iter().enumerate() {
            assert_eq!(builder.leaf(&pattern(text)), index as u32, "{text} is new");
        }
        builder.build()
    }

    /// All that the tree offers for a path, in its order.
    fn offers(tree: &PathTree, path: &str) -> Vec<u32> {
        let mut seen = Vec::new();
        let found = tree.find(path, &mut Captures::new(), &mut |leaf| {
            seen.push(leaf);
            false
        });
        assert!(!found);
        seen
    }

    fn pieces<'a>(tree: &PathTree, path: &'a str) -> Option<Vec<&'a str>> {
        let mut captures = Captures::new();
        let found = tree.find(path, &mut captures, &mut |_| true);
        found.then(|| captures.iter().map(|(begin, end)| &path[*begin as usize..*end as usize]).collect())
    }

    #[test]
    fn the_most_exact_path_is_offered_first() {
        let texts = ["/a/b", "~^/a/.", "/a/b*", "/a/{x}", "/a/*", "/{x}/b", "/{x}/*", "/*"];
        let tree = tree(&texts);
        for (path, wanted) in [
            ("/a/b", vec![0, 1, 2, 3, 4, 5, 6, 7]),
            ("/a/bb", vec![1, 2, 3, 4, 6, 7]),
            ("/a/b/c", vec![1, 2, 4, 6, 7]),
            ("/a/c", vec![1, 3, 4, 6, 7]),
            ("/a", vec![4, 6, 7]),
            ("/a/", vec![4, 6, 7]),
            ("/c/b", vec![5, 6, 7]),
            ("/", vec![7]),
            ("*", vec![7]),
        ] {
            assert_eq!(offers(&tree, path), wanted, "{path}");
        }
    }

    #[test]
    fn captures_are_the_pieces_that_the_pattern_names() {
        for (text, path, wanted) in [
            ("/users/{id}", "/users/5", vec!["5"]),
            ("/users/{id}/*rest", "/users/5/a/b", vec!["5", "a/b"]),
            ("/users/{id}/*rest", "/users/5/", vec!["5", ""]),
            ("/users/{id}/*rest", "/users/5", vec!["5", ""]),
            ("/*rest", "/a/b", vec!["a/b"]),
            ("/*rest", "/", vec![""]),
            ("/*rest", "*", vec![""]),
            ("/{a}/{b}/{c}/{d}/{e}", "/1/2/3/4/5", vec!["1", "2", "3", "4", "5"]),
            (r"~^/(?<year>\d+)/(x)(?<slug>.*)$", "/2024/xyz", vec!["2024", "yz"]),
            (r"~^/(?:(?<a>\d+)|(?<b>[a-z]+))$", "/xyz", vec!["", "xyz"]),
            ("/a/b", "/a/b", vec![]),
        ] {
            assert_eq!(pieces(&tree(&[text]), path), Some(wanted), "{text} {path}");
        }
        assert_eq!(pieces(&tree(&["/{a}/x", "/{a}/{b}/y"]), "/1/x/y"), Some(vec!["1", "x"]));
    }

    #[test]
    fn a_hostile_path_costs_no_more_than_the_tree_has_nodes() {
        // At each level a literal and a parameter, and none of the ways leads to an end.
        let texts: Vec<String> = (0..10)
            .flat_map(|bits: u32| (0..1024_u32).filter(move |mask| mask >> bits & 1 == 1))
            .map(|mask| {
                (0..10).map(|bit| if mask >> bit & 1 == 1 { "/a".into() } else { format!("/{{p{bit}}}") }).collect()
            })
            .collect();
        let mut builder = PathTreeBuilder::default();
        for text in &texts {
            builder.leaf(&pattern(&format!("{text}/{{end}}")));
        }
        let tree = builder.build();
        let started = std::time::Instant::now();
        for path in ["/a".repeat(10), "/a".repeat(30_000), "/".repeat(60_000), "/%2F".repeat(20_000)] {
            assert!(offers(&tree, &path).is_empty());
        }
        assert!(offers(&tree, &"/a".repeat(11)).len() > 1000);
        assert!(started.elapsed().as_secs() < 2, "{:?}", started.elapsed());
    }

    fn any_pattern() -> impl Strategy<Value = String> {
        let segment = prop::sample::select(vec!["a", "b", "ab", "{}", "{}", ""]);
        let tail = prop::sample::select(vec!["", "", "/*", "/a*", "/ab*", "/*rest"]);
        let text = (prop::collection::vec(segment, 1..4), tail).prop_map(|(segments, tail)| {
            let mut text = String::new();
            for (index, segment) in segments.iter().enumerate() {
                text.push('/');
                if *segment == "{}" { text.push_str(&format!("{{p{index}}}")) } else { text.push_str(segment) }
            }
            text + tail
        });
        let regex = prop::sample::select(vec!["~^/a", "~b$", "~^/(?<x>a|b)/", "~^/ab"]).prop_map(str::to_owned);
        prop_oneof![6 => text, 1 => regex]
    }

    proptest! {
        #[test]
        fn the_tree_agrees_with_trying_each(
            texts in prop::collection::vec(any_pattern(), 1..20),
            path in "(/(a|b|ab|abc|)){1,4}",
        ) {
            let path = normalize(&path).unwrap_or(path);
            let mut builder = PathTreeBuilder::default();
            let mut all: Vec<(Pattern, u32)> = texts.iter().map(|text| pattern(text)).map(|p| { let leaf = builder.leaf(&p); (p, leaf) }).collect();
            all.sort_by(|(a, _), (b, _)| a.precedence(b));
            all.dedup_by_key(|(_, leaf)| *leaf);
            let wanted: Vec<u32> = all.iter().filter(|(p, _)| p.matches(&path)).map(|(_, leaf)| *leaf).collect();
            prop_assert_eq!(offers(&builder.build(), &path), wanted);
        }
    }
}
