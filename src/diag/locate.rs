//! From a path in the document to the bytes it is written with: a second walk of the text, made only to tell a fault.
//!
//! `serde_yaml` has long forgotten where a value stood. An [`Outline`] knows that and nothing else. Where it does not
//! find the whole path (a short form has no key for what it stands for), it answers with the nearest holder.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use saphyr_parser::{Event, Parser, Span};

use super::issue::{Path, Place, Step};

/// Where something is written: a range of bytes within one line of the text. May be empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    /// The first byte.
    pub start: usize,
    /// The byte behind the last.
    pub end: usize,
}

/// A key that a mapping has twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Twice {
    /// The key.
    pub key: String,
    /// The mapping that has it.
    pub path: Path,
    /// Where it stands first.
    pub first: Spot,
    /// Where it stands again.
    pub again: Spot,
}

/// The shape of a text: what stands where.
pub struct Outline<'t> {
    text: &'t str,
    nodes: Vec<Node>,
    root: Option<usize>,
    /// Anchor to node. An alias names the anchor, which is always written before it.
    anchors: HashMap<usize, usize>,
    repeated: usize,
    cut: bool,
}

struct Node {
    start: usize,
    end: usize,
    kind: Kind,
    /// How many nodes this one stands for when its aliases are written out.
    weight: usize,
}

enum Kind {
    Scalar(Box<str>),
    List(Vec<usize>),
    /// Keys and values in turn, as the parser tells them.
    Map(Vec<usize>),
    Alias(usize),
}

/// How many merge keys (`<<`) may lie behind one another; a mapping can be merged into itself.
const MERGE_DEPTH: usize = 16;

impl<'t> Outline<'t> {
    /// Walks the text. A text that breaks off or has a fault gives the outline of what comes before.
    pub fn of(text: &'t str) -> Self {
        let mut outline =
            Self { text, nodes: Vec::new(), root: None, anchors: HashMap::new(), repeated: 0, cut: false };
        // A fault is told even if the parser, which is not ours, should trip over its document.
        let _ = catch_unwind(AssertUnwindSafe(|| outline.walk()));
        outline
    }

    fn walk(&mut self) {
        let mut offsets = Offsets::of(self.text);
        let mut open: Vec<usize> = Vec::new();
        for event in Parser::new_from_str(self.text) {
            let Ok((event, span)) = event else {
                self.cut = true;
                break;
            };
            let (anchor, kind) = match event {
                Event::Scalar(text, _, anchor, _) => (anchor, Kind::Scalar(text.into())),
                Event::SequenceStart(anchor, _) => (anchor, Kind::List(Vec::new())),
                Event::MappingStart(anchor, _) => (anchor, Kind::Map(Vec::new())),
                Event::Alias(anchor) => (0, Kind::Alias(anchor)),
                Event::SequenceEnd | Event::MappingEnd => {
                    self.close(&mut open, offsets.byte(span.end.index()));
                    continue;
                }
                Event::DocumentEnd => break,
                _ => continue,
            };
            let node = self.add(kind, span, &mut offsets);
            match open.last() {
                Some(&holder) => self.put(holder, node),
                None => self.root = Some(node),
            }
            if anchor > 0 {
                self.anchors.insert(anchor, node);
            }
            if matches!(self.nodes[node].kind, Kind::List(_) | Kind::Map(_)) {
                open.push(node);
            }
        }
        // A text that breaks off: its open blocks reach to its end.
        while !open.is_empty() {
            self.close(&mut open, self.text.len());
        }
    }

    fn add(&mut self, kind: Kind, span: Span, offsets: &mut Offsets<'_>) -> usize {
        let start = offsets.byte(span.start.index());
        let end = offsets.byte(span.end.index()).max(start);
        let weight = match &kind {
            Kind::Alias(anchor) => {
                let weight = self.anchors.get(anchor).map_or(1, |&node| self.nodes[node].weight);
                self.repeated = self.repeated.saturating_add(weight);
                weight
            }
            _ => 1,
        };
        self.nodes.push(Node { start, end, kind, weight });
        self.nodes.len() - 1
    }

    fn put(&mut self, holder: usize, node: usize) {
        if let Kind::List(items) | Kind::Map(items) = &mut self.nodes[holder].kind {
            items.push(node);
        }
    }

    fn close(&mut self, open: &mut Vec<usize>, end: usize) {
        let Some(node) = open.pop() else { return };
        if let Kind::List(items) | Kind::Map(items) = &self.nodes[node].kind {
            let weight = items.iter().fold(1_usize, |sum, &item| sum.saturating_add(self.nodes[item].weight));
            self.nodes[node].weight = weight;
        }
        self.nodes[node].end = end.max(self.nodes[node].start);
    }

    /// How many values the text's aliases stand for when they are written out.
    pub fn repeated(&self) -> usize {
        self.repeated
    }

    /// Whether the text has a fault, or lies deeper in itself than can be walked, so that the outline ends before it.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// Where the entry at a path stands, or else its nearest holder that is found.
    pub fn find(&self, path: &Path, place: Place) -> Spot {
        let Some(root) = self.root else { return Spot::default() };
        let (mut key, mut node) = (None, root);
        for (position, step) in path.0.iter().enumerate() {
            let Some((next_key, next)) = self.child(node, step) else { break };
            (key, node) = (next_key, next);
            if let (Place::Key, Some(key)) = (place, key)
                && position + 1 == path.0.len()
            {
                return self.spot(key);
            }
        }
        self.value_spot(key, node)
    }

    /// The text of the scalar at a path, as written.
    pub fn scalar(&self, path: &Path) -> Option<&str> {
        let mut node = self.root?;
        for step in &path.0 {
            node = self.child(node, step)?.1;
        }
        match &self.nodes[self.resolved(node)].kind {
            Kind::Scalar(text) => Some(text),
            _ => None,
        }
    }

    /// All keys that are written twice in one mapping.
    pub fn twice(&self) -> Vec<Twice> {
        let mut found = Vec::new();
        let mut open: Vec<(usize, Path)> = self.root.map(|root| (root, Path::default())).into_iter().collect();
        while let Some((node, path)) = open.pop() {
            match &self.nodes[node].kind {
                Kind::List(items) => {
                    open.extend(items.iter().enumerate().map(|(index, &item)| (item, path.clone().index(index))));
                }
                Kind::Map(items) => {
                    let mut seen: HashMap<&str, usize> = HashMap::new();
                    for (key, value) in pairs(items) {
                        let Kind::Scalar(text) = &self.nodes[key].kind else { continue };
                        if let Some(&first) = seen.get(&**text) {
                            let (first, again) = (self.spot(first), self.spot(key));
                            found.push(Twice { key: text.to_string(), path: path.clone(), first, again });
                        }
                        seen.entry(text).or_insert(key);
                        open.push((value, path.clone().key(text.clone())));
                    }
                }
                Kind::Scalar(_) | Kind::Alias(_) => {}
            }
        }
        found
    }

    fn resolved(&self, node: usize) -> usize {
        match self.nodes[node].kind {
            Kind::Alias(anchor) => self.anchors.get(&anchor).copied().unwrap_or(node),
            _ => node,
        }
    }

    /// The key (in a mapping) and the value that one step leads to.
    fn child(&self, node: usize, step: &Step) -> Option<(Option<usize>, usize)> {
        match (&self.nodes[self.resolved(node)].kind, step) {
            (Kind::List(items), Step::Index(index)) => items.get(*index).map(|&item| (None, item)),
            (Kind::Map(_), Step::Key(name)) => {
                self.entry(node, name, MERGE_DEPTH).map(|(key, value)| (Some(key), value))
            }
            _ => None,
        }
    }

    fn entry(&self, node: usize, name: &str, merges: usize) -> Option<(usize, usize)> {
        match &self.nodes[self.resolved(node)].kind {
            Kind::Map(items) => {
                let key_is = |key: usize, wanted: &str| matches!(&self.nodes[self.resolved(key)].kind, Kind::Scalar(text) if **text == *wanted);
                let own = pairs(items).find(|&(key, _)| key_is(key, name));
                let merged = || pairs(items).find(|&(key, _)| key_is(key, "<<"));
                own.or_else(|| self.entry(merged()?.1, name, merges.checked_sub(1)?))
            }
            Kind::List(items) => items.iter().find_map(|&item| self.entry(item, name, merges.checked_sub(1)?)),
            Kind::Scalar(_) | Kind::Alias(_) => None,
        }
    }

    /// A value is shown where it stands; a block below its key, or nothing at all, by the key.
    fn value_spot(&self, key: Option<usize>, node: usize) -> Spot {
        let Node { start, end, kind, .. } = &self.nodes[node];
        let in_flow = self.text[*start..].starts_with(['[', '{']);
        let block = matches!(kind, Kind::List(_) | Kind::Map(_)) && !in_flow;
        match key {
            Some(key) if block || end == start => self.spot(key),
            _ if block => self.clip(*start, start + 1),
            _ => self.clip(*start, *end),
        }
    }

    fn spot(&self, node: usize) -> Spot {
        self.clip(self.nodes[node].start, self.nodes[node].end)
    }

    /// Cuts a range at the end of its first line.
    fn clip(&self, start: usize, end: usize) -> Spot {
        let rest = &self.text[start..];
        let line = rest.split(['\n', '\r']).next().unwrap_or_default();
        let end = closing_quote(line).map_or(end, |close| start + close + 1);
        let end = self.text.floor_char_boundary(end.min(start + line.len()));
        Spot { start, end: start + self.text[start..end.max(start)].trim_end().len() }
    }
}

/// Where a quoted text closes within its line. The parser's own end lies behind a remark that follows.
fn closing_quote(line: &str) -> Option<usize> {
    let quote = line.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let mut rest = line.char_indices().skip(1).peekable();
    while let Some((at, c)) = rest.next() {
        let escaped = match quote {
            '"' => c == '\\',
            _ => c == quote && rest.peek().is_some_and(|(_, next)| *next == quote),
        };
        if escaped {
            rest.next();
        } else if c == quote {
            return Some(at);
        }
    }
    None
}

fn pairs(items: &[usize]) -> impl Iterator<Item = (usize, usize)> {
    items.chunks_exact(2).map(|pair| (pair[0], pair[1]))
}

/// Turns the parser's count of characters into bytes. Questions come nearly in order, so it remembers the last answer.
struct Offsets<'t> {
    text: &'t str,
    character: usize,
    byte: usize,
}

impl<'t> Offsets<'t> {
    fn of(text: &'t str) -> Self {
        Self { text, character: 0, byte: 0 }
    }

    fn byte(&mut self, character: usize) -> usize {
        while self.character > character {
            self.byte = self.text.floor_char_boundary(self.byte.saturating_sub(1));
            self.character -= 1;
        }
        let mut rest = self.text[self.byte..].chars();
        while self.character < character {
            let Some(next) = rest.next() else { break };
            self.byte += next.len_utf8();
            self.character += 1;
        }
        self.byte
    }
}

/// Where the lines of a text begin. Lines end as YAML has it: with `\n`, `\r\n` or `\r`.
pub struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    /// Counts the lines.
    pub fn of(text: &'t str) -> Self {
        let bytes = text.as_bytes();
        let breaks = (0..bytes.len()).filter(|&at| match bytes[at] {
            b'\n' => true,
            b'\r' => bytes.get(at + 1) != Some(&b'\n'),
            _ => false,
        });
        Self { text, starts: std::iter::once(0).chain(breaks.map(|at| at + 1)).collect() }
    }

    /// Line and column of a byte, both from 1; columns count characters.
    pub fn position(&self, byte: usize) -> (usize, usize) {
        let byte = self.text.floor_char_boundary(byte);
        let line = self.starts.partition_point(|&start| start <= byte).max(1);
        (line, self.text[self.starts[line - 1]..byte].chars().count() + 1)
    }

    /// The byte at which a line begins, counted from 1.
    pub fn start(&self, line: usize) -> usize {
        line.checked_sub(1).and_then(|index| self.starts.get(index)).copied().unwrap_or(self.text.len())
    }

    /// The text of a line, counted from 1, without its end.
    pub fn line(&self, line: usize) -> &'t str {
        self.text[self.start(line)..].split(['\n', '\r']).next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DOCUMENT: &str = r#"# a comment
listeners: [":80", { address: ':81', http2: true }]
"upstreams":
  api: &api
    servers:
      - 10.0.0.1:80
      - address: 10.0.0.2:80
  canary:
    <<: *api
    host: "ün\"ï"   # a remark
  again: *api
empty:
sites:
- proxy: api
  text: |
    two
    lines
  'odd key': {a: 1,
     b: [x,
         yy]}
"#;

    fn path(text: &str) -> Path {
        text.split('/').filter(|step| !step.is_empty()).fold(Path::default(), |path, step| match step.parse() {
            Ok(index) => path.index(index),
            Err(_) => path.key(step),
        })
    }

    fn shown(text: &str, wanted: &str, place: Place) -> (usize, usize, String) {
        let spot = Outline::of(text).find(&path(wanted), place);
        let (line, column) = Lines::of(text).position(spot.start);
        (line, column, text[spot.start..spot.end].to_owned())
    }

    #[test]
    fn a_path_leads_to_its_value() {
        for (wanted, line, column, text) in [
            ("listeners/0", 2, 13, "\":80\""),
            ("listeners/1", 2, 20, "{ address: ':81', http2: true }"),
            ("listeners/1/address", 2, 31, "':81'"),
            ("listeners/1/http2", 2, 45, "true"),
            ("upstreams/api/servers/0", 6, 9, "10.0.0.1:80"),
            ("upstreams/api/servers/1/address", 7, 18, "10.0.0.2:80"),
            ("upstreams/canary/host", 10, 11, "\"ün\\\"ï\""),
            ("sites/0/proxy", 14, 10, "api"),
            ("sites/0/odd key/a", 18, 18, "1"),
            ("sites/0/odd key/b/1", 20, 10, "yy"),
        ] {
            assert_eq!(shown(DOCUMENT, wanted, Place::Value), (line, column, text.to_owned()), "{wanted}");
        }
    }

    #[test]
    fn a_block_and_an_empty_value_are_shown_by_their_key() {
        for (wanted, line, column, text) in [
            ("upstreams", 3, 1, "\"upstreams\""),
            ("upstreams/api", 4, 3, "api"),
            ("empty", 12, 1, "empty"),
            ("sites/0", 14, 3, "p"),
            ("", 2, 1, "l"),
        ] {
            assert_eq!(shown(DOCUMENT, wanted, Place::Value), (line, column, text.to_owned()), "{wanted}");
        }
    }

    #[test]
    fn a_key_is_shown_itself() {
        assert_eq!(shown(DOCUMENT, "listeners/1/http2", Place::Key), (2, 38, "http2".to_owned()));
        assert_eq!(shown(DOCUMENT, "sites/0/odd key", Place::Key), (18, 3, "'odd key'".to_owned()));
    }

    #[test]
    fn aliases_and_merges_lead_to_where_the_value_is_written() {
        assert_eq!(shown(DOCUMENT, "upstreams/again", Place::Value), (11, 10, "*api".to_owned()));
        assert_eq!(shown(DOCUMENT, "upstreams/again/servers/0", Place::Value).0, 6);
        assert_eq!(shown(DOCUMENT, "upstreams/canary/servers/0", Place::Value).0, 6);
        // A mapping merged into itself ends.
        assert_eq!(shown("a: &a\n  <<: *a\n  b: 1\n", "a/c/d", Place::Value), (1, 1, "a".to_owned()));
    }

    #[test]
    fn what_is_not_found_is_shown_by_its_nearest_holder() {
        assert_eq!(shown(DOCUMENT, "sites/0/proxy/servers/0", Place::Value), (14, 10, "api".to_owned()));
        assert_eq!(shown(DOCUMENT, "sites/7/x", Place::Key), (13, 1, "sites".to_owned()));
        assert_eq!(shown("", "a/b", Place::Value), (1, 1, String::new()));
        assert_eq!(shown("a: [1, 2", "a/1", Place::Value), (1, 8, "2".to_owned()));
    }

    #[test]
    fn a_key_that_stands_twice_is_found() {
        let text = "a: 1\nb: [{ c: 1, c: 2 }]\n\"a\": 2\n";
        let mut twice = Outline::of(text).twice();
        twice.sort_by_key(|twice| twice.again);
        let told: Vec<_> = twice.iter().map(|t| (t.key.as_str(), t.path.to_string(), t.first, t.again)).collect();
        let spot = |start, end| Spot { start, end };
        let root = String::new();
        let expected = [("c", "b[0]".to_owned(), spot(11, 12), spot(17, 18)), ("a", root, spot(0, 1), spot(25, 28))];
        assert_eq!(told, expected);
    }

    #[test]
    fn what_aliases_stand_for_is_counted() {
        assert_eq!(Outline::of("a: [1, 2]\nb: 3\n").repeated(), 0);
        assert_eq!(Outline::of("a: &a [1, 2]\nb: [*a, *a]\n").repeated(), 6);
        let bomb: String = (1..40).fold("a0: &a0 [x, x]\n".to_owned(), |text, n| {
            text + &format!("a{n}: &a{n} [*a{m}, *a{m}, *a{m}]\n", m = n - 1)
        });
        assert!(Outline::of(&bomb).repeated() > 1_000_000_000);
    }

    #[test]
    fn lines_end_as_yaml_has_it() {
        let text = "a\nb\r\nc\rdé!";
        let lines = Lines::of(text);
        for (byte, line, column) in [(0, 1, 1), (1, 1, 2), (2, 2, 1), (5, 3, 1), (7, 4, 1), (10, 4, 3), (99, 4, 4)] {
            assert_eq!(lines.position(byte), (line, column), "{byte}");
        }
        assert_eq!((1..=5).map(|n| lines.line(n)).collect::<Vec<_>>(), ["a", "b", "c", "dé!", ""]);
    }

    #[test]
    fn deep_nesting_does_not_overflow() {
        for text in ["[".repeat(20_000), "- ".repeat(20_000), "{a: ".repeat(20_000), "a:\n".repeat(20_000)] {
            let outline = Outline::of(&text);
            let spot = outline.find(&path("0/0/0/a/a"), Place::Key);
            assert!(spot.end <= text.len());
        }
    }

    proptest! {
        #[test]
        fn a_spot_lies_inside_any_text(
            text in "([a-c]{1,2}|: |, |- |\\[|\\]|\\{|\\}|\n|\n  |\"|'|&a |\\*a|<<|#|\\||>|\r|\t|é|漢|!x |---|\\?|%){0,40}",
            steps in prop::collection::vec(prop_oneof![
                (0_usize..3).prop_map(Step::Index), "[a-c]{1,2}".prop_map(|key| Step::Key(key.into())),
            ], 0..5),
        ) {
            let outline = Outline::of(&text);
            for place in [Place::Key, Place::Value] {
                let spot = outline.find(&Path(steps.clone()), place);
                prop_assert!(spot.start <= spot.end && spot.end <= text.len());
                prop_assert!(!text[spot.start..spot.end].contains('\n'));
                let (line, column) = Lines::of(&text).position(spot.start);
                prop_assert!(line >= 1 && column >= 1);
            }
            let _ = outline.twice();
        }
    }
}
