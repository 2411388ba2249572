//! From a file to a [`Document`]: reads it and what it includes, fills in `${ENV}`, and tells every fault with its place.
//!
//! All commands, and a reload, go the same way:
//!
//! ```text
//! let document = Document::read(path)?;                   // or `Broken`, which has a report too
//! let issues = Issues::default();
//! let config = document.deserialize::<Config>(&issues);   // and then `compile(&config, &issues)`
//! println!("{}", document.report(issues.into_vec(), colour));
//! ```
//!
//! Paths in issues speak of the whole, merged document; the report turns them into the file and the path within it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path as FilePath, PathBuf};

use serde::de::DeserializeOwned;
use serde_yaml::{Mapping, Value};

pub use super::parse::Env;
use super::parse::{Told, error, parse};
use super::value::{from_value, scalar_text};
use crate::diag::locate::{Lines, Outline, Spot};
use crate::diag::report::{Finding, Source, report};
use crate::diag::{Issue, Issues, Path, Place, Step};

/// A larger file is surely not a document.
const LARGEST: u64 = 64 << 20;
/// How deep files may include one another.
const DEEPEST: usize = 16;
/// Blocks that speak of the process: one file has them whole.
const WHOLE: [&str; 3] = ["runtime", "admin", "log"];

/// A document that could be read: YAML, not yet checked for what it says.
#[derive(Clone, Debug, Default)]
pub struct Document {
    value: Value,
    sources: Vec<Source>,
    files: Vec<PathBuf>,
    /// Where each top-level key comes from.
    origins: HashMap<String, Origin>,
}

/// Where the value of a top-level key comes from: numbers of sources.
#[derive(Clone, Debug)]
enum Origin {
    /// All of it from one file.
    Whole(usize),
    /// A list: each part's source, and the position of its first item.
    List(Vec<(usize, usize)>),
    /// A mapping: the first source, and each key's.
    Map(usize, HashMap<String, usize>),
}

/// A document that could not be read, and why. Its text is the report.
#[derive(Clone, Debug)]
pub struct Broken {
    sources: Vec<Source>,
    files: Vec<PathBuf>,
    findings: Vec<Finding>,
}

impl Broken {
    /// All faults as text, as [`Document::report`] gives it.
    pub fn report(&self, colour: bool) -> String {
        report(&self.sources, &self.findings, colour)
    }

    /// The files to watch for a better document, as [`Document::files`].
    pub fn files(&self) -> Vec<PathBuf> {
        self.files.clone()
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.report(false))
    }
}

impl std::error::Error for Broken {}

impl Document {
    /// Reads a file and what it includes, with the variables of the process's environment.
    pub fn read(path: &FilePath) -> Result<Self, Broken> {
        Self::read_with(path, &|name| std::env::var(name).ok())
    }

    /// The same with other variables.
    pub fn read_with(path: &FilePath, env: Env<'_>) -> Result<Self, Broken> {
        let mut loader = Loader::new(env);
        loader.file(path, None);
        loader.finish()
    }

    /// Takes a text for the file `name`. What it includes is looked for in the working directory.
    pub fn from_text(name: &str, text: &str, env: Env<'_>) -> Result<Self, Broken> {
        let mut loader = Loader::new(env);
        loader.text(name, text, FilePath::new(""));
        loader.finish()
    }

    /// The document as a `T`; `None` with at least one error more in `issues`. Once: the values are let go, since those
    /// of a large document take much room; what reports need stays.
    pub fn deserialize<T: DeserializeOwned>(&mut self, issues: &Issues) -> Option<T> {
        match from_value(&std::mem::take(&mut self.value)) {
            Ok(built) => Some(built),
            Err(faults) => {
                faults.into_iter().for_each(|fault| issues.push(fault));
                None
            }
        }
    }

    /// Issues as text: each with its file, line and column. The last line counts them; no line feed at its end.
    pub fn report(&self, issues: Vec<Issue>, colour: bool) -> String {
        let findings = issues.into_iter().map(|issue| {
            let (source, path) = self.origin(&issue.path);
            Finding { source, spot: None, issue: Issue { path, ..issue } }
        });
        report(&self.sources, &findings.collect::<Vec<_>>(), colour)
    }

    /// What makes the document, for a watcher: the files read, and the folders in which `include` patterns look for more.
    pub fn files(&self) -> Vec<PathBuf> {
        self.files.clone()
    }

    /// The source that a path of the merged document comes from, and the path within it.
    fn origin(&self, path: &Path) -> (usize, Path) {
        let mut within = path.clone();
        let origin = match path.0.first() {
            Some(Step::Key(key)) => self.origins.get(&**key),
            _ => None,
        };
        let source = match (origin, within.0.get_mut(1)) {
            (None, _) => 0,
            (Some(Origin::Whole(source)), _) => *source,
            (Some(Origin::List(parts)), Some(Step::Index(index))) => {
                let part = parts.iter().rev().find(|(_, first)| first <= index);
                let (source, first) = part.copied().unwrap_or_default();
                *index -= first;
                source
            }
            (Some(Origin::List(parts)), _) => parts.first().map_or(0, |(source, _)| *source),
            (Some(Origin::Map(first, keys)), Some(Step::Key(key))) => keys.get(&**key).copied().unwrap_or(*first),
            (Some(Origin::Map(first, _)), _) => *first,
        };
        (source, within)
    }
}

/// The `include` entry that named a file: its source and its path there.
type From<'a> = Option<(usize, &'a Path)>;

struct Loader<'e> {
    env: Env<'e>,
    document: Document,
    /// The document's value as it grows.
    value: Mapping,
    findings: Vec<Finding>,
    /// The files being read now, each including the next.
    open: Vec<PathBuf>,
    /// All files read so far.
    done: HashSet<PathBuf>,
}

impl<'e> Loader<'e> {
    fn new(env: Env<'e>) -> Self {
        Self {
            env,
            document: Document::default(),
            value: Mapping::new(),
            findings: Vec::new(),
            open: Vec::new(),
            done: HashSet::new(),
        }
    }

    fn finish(self) -> Result<Document, Broken> {
        let Self { document, value, findings, .. } = self;
        let Document { sources, files, .. } = document;
        match findings.is_empty() {
            true => Ok(Document { value: Value::Mapping(value), sources, files, ..document }),
            false => Err(Broken { sources, files, findings }),
        }
    }

    fn tell(&mut self, source: usize, told: Told) {
        let (spot, issue) = told;
        self.findings.push(Finding { source, spot, issue });
    }

    /// A fault of a whole file: told where it is included, or else by its name alone.
    fn tell_file(&mut self, path: &FilePath, from: From<'_>, issue: Issue) {
        let (source, at) = match from {
            Some((source, at)) => (source, at.clone()),
            None => (self.source(&path.display().to_string(), ""), Path::default()),
        };
        self.tell(source, (None, Issue { path: at, ..issue }));
    }

    fn source(&mut self, name: &str, text: &str) -> usize {
        self.document.sources.push(Source { name: name.to_owned(), text: text.to_owned() });
        self.document.sources.len() - 1
    }

    fn file(&mut self, path: &FilePath, from: From<'_>) {
        let name = path.display().to_string();
        self.document.files.push(path.to_owned());
        let bytes = match read(path) {
            Ok(bytes) => bytes,
            Err(fault) => {
                let (message, hint) = unreadable(&name, &fault);
                return self.tell_file(path, from, error(message, hint));
            }
        };
        // A file that cannot be named in full is only less well known.
        let full = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        self.done.insert(full.clone());
        self.open.push(full);
        let folder = path.parent().unwrap_or_else(|| FilePath::new(""));
        match String::from_utf8(bytes) {
            Ok(text) => self.text(&name, &text, folder),
            Err(fault) => {
                let start = fault.utf8_error().valid_up_to();
                let source = self.source(&name, &String::from_utf8_lossy(fault.as_bytes()));
                let issue = error("the file is not UTF-8 from here on", "save it as UTF-8");
                self.tell(source, (Some(Spot { start, end: start }), issue));
            }
        }
        self.open.pop();
    }

    fn text(&mut self, name: &str, text: &str, folder: &FilePath) {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let source = self.source(name, text);
        let (value, told) = parse(text, self.env);
        let sound = told.is_empty();
        told.into_iter().for_each(|told| self.tell(source, told));
        match value {
            Value::Mapping(mut top) => {
                let include = top.shift_remove("include");
                self.join(source, top);
                if let Some(include) = include {
                    self.include(source, &include, folder);
                }
            }
            // A file of remarks is fine among others, but makes no document.
            Value::Null if !sound || source > 0 => {}
            Value::Null => {
                let hint = "a small one is `{ listeners: [\":8080\"], sites: [{ proxy: \"127.0.0.1:3000\" }] }`";
                self.tell(source, (None, error("the document is empty", hint)));
            }
            _ => {
                let hint = "begin with a key, as in `listeners: [\":8080\"]`";
                self.tell(source, (None, error("a document is a mapping of keys to values", hint)));
            }
        }
    }

    fn include(&mut self, source: usize, include: &Value, folder: &FilePath) {
        let at = Path::default().key("include");
        let patterns: Vec<(Path, &Value)> = match include {
            Value::Sequence(items) => items.iter().enumerate().map(|(i, item)| (at.clone().index(i), item)).collect(),
            _ => vec![(at, include)],
        };
        for (at, pattern) in patterns {
            match pattern.as_str() {
                Some(pattern) if !pattern.is_empty() => self.pattern(source, &at, pattern, folder),
                _ => {
                    let hint = "write a file or a pattern, as in `include: [\"sites/*.yaml\"]`";
                    self.tell(source, (None, Issue { path: at, ..error("`include` takes names of files", hint) }));
                }
            }
        }
    }

    /// Reads the files of one `include` entry, in the order of their names.
    fn pattern(&mut self, source: usize, at: &Path, pattern: &str, folder: &FilePath) {
        let from = Some((source, at));
        if self.open.len() > DEEPEST {
            let message = format!("files include one another more than {DEEPEST} deep");
            return self.tell_file(folder, from, error(message, "include them from one file"));
        }
        let Some(fixed) = pattern.find(['*', '?', '[']) else {
            return self.named(&folder.join(pattern), from);
        };
        let searched = folder.join(pattern[..fixed].rsplit_once('/').map_or("", |(searched, _)| searched));
        self.document.files.push(if searched.as_os_str().is_empty() { PathBuf::from(".") } else { searched });
        let base = glob::Pattern::escape(&folder.to_string_lossy());
        let whole = FilePath::new(&base).join(pattern);
        // An editor's hidden copy is no part of the document.
        let options = glob::MatchOptions { require_literal_leading_dot: true, ..glob::MatchOptions::new() };
        let found = match glob::glob_with(&whole.to_string_lossy(), options) {
            Ok(found) => found,
            Err(fault) => {
                let issue = error(format!("`{pattern}` is no pattern: {}", fault.msg), "`*` and `?` stand for letters");
                return self.tell_file(folder, from, issue);
            }
        };
        let (mut files, mut faults) = (Vec::new(), Vec::new());
        for file in found {
            match file {
                Ok(file) if !file.is_dir() => files.push(file),
                Ok(_) => {}
                Err(fault) => faults.push(unreadable(&fault.path().display().to_string(), fault.error())),
            }
        }
        faults.into_iter().for_each(|(message, hint)| self.tell_file(folder, from, error(message, hint)));
        files.sort();
        for file in files {
            // A pattern may well match the file that it stands in, or what another has read.
            if !file.canonicalize().is_ok_and(|full| self.done.contains(&full)) {
                self.file(&file, from);
            }
        }
    }

    /// Reads a file that is named in full.
    fn named(&mut self, path: &FilePath, from: From<'_>) {
        let full = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let name = path.display();
        if self.open.contains(&full) {
            let hint = "take out one of the `include` that lead from the file to itself";
            self.tell_file(path, from, error(format!("`{name}` includes itself"), hint));
        } else if self.done.contains(&full) {
            self.tell_file(path, from, error(format!("`{name}` is included already"), "include it once"));
        } else {
            self.file(path, from);
        }
    }

    /// Adds the blocks of one file to the document.
    fn join(&mut self, source: usize, top: Mapping) {
        for (key, value) in top {
            let name = key_text(&key);
            match (self.value.get_mut(&*name), value) {
                (None, value) => {
                    self.document.origins.insert(name.clone(), Origin::of(source, &value, &name));
                    self.value.insert(Value::String(name), value);
                }
                (Some(Value::Sequence(known)), Value::Sequence(more)) => {
                    if let Some(Origin::List(parts)) = self.document.origins.get_mut(&name) {
                        parts.push((source, known.len()));
                    }
                    known.extend(more);
                }
                (Some(Value::Mapping(_)), Value::Mapping(more)) if !WHOLE.contains(&&*name) => {
                    self.join_keys(source, &name, more);
                }
                _ => self.tell_twice(source, Path::default().key(name)),
            }
        }
    }

    fn join_keys(&mut self, source: usize, name: &str, more: Mapping) {
        for (key, value) in more {
            let Some(Value::Mapping(known)) = self.value.get_mut(name) else { return };
            let text = key_text(&key);
            if known.contains_key(&*text) || known.contains_key(&key) {
                self.tell_twice(source, Path::default().key(name).key(text));
                continue;
            }
            known.insert(key, value);
            if let Some(Origin::Map(_, keys)) = self.document.origins.get_mut(name) {
                keys.insert(text, source);
            }
        }
    }

    /// An entry of this source stands in another already.
    fn tell_twice(&mut self, source: usize, path: Path) {
        let (first, _) = self.document.origin(&path);
        let known = &self.document.sources[first];
        let spot = Outline::of(&known.text).find(&path, Place::Key);
        let (line, _) = Lines::of(&known.text).position(spot.start);
        let hint = format!("keep one of them; the other is in {}:{line}", known.name);
        let issue = Issue { place: Place::Key, ..error(format!("`{path}` is written in two files"), hint) };
        self.tell(source, (None, Issue { path, ..issue }));
    }
}

impl Origin {
    fn of(source: usize, value: &Value, name: &str) -> Self {
        match value {
            Value::Sequence(_) => Self::List(vec![(source, 0)]),
            Value::Mapping(known) if !WHOLE.contains(&name) => {
                Self::Map(source, known.keys().map(|key| (key_text(key), source)).collect())
            }
            _ => Self::Whole(source),
        }
    }
}

/// The text of a key. Only a document that is broken has one without.
fn key_text(key: &Value) -> String {
    scalar_text(key).unwrap_or_default().into_owned()
}

fn read(path: &FilePath) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

/// Why a file cannot be read, and what to do.
fn unreadable(name: &str, fault: &io::Error) -> (String, &'static str) {
    match fault.kind() {
        io::ErrorKind::NotFound => (format!("there is no file `{name}`"), "check the name and the working directory"),
        io::ErrorKind::PermissionDenied => {
            (format!("`{name}` may not be read by this user"), "check the owner and mode of the file and its folders")
        }
        io::ErrorKind::IsADirectory => (format!("`{name}` is a folder"), "name a file; in `include`, `folder/*.yaml`"),
        io::ErrorKind::FileTooLarge => (format!("`{name}` is larger than 64 MiB"), "check the name of the file"),
        _ => (format!("`{name}` cannot be read: {fault}"), "check the file and its disk"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;
    use crate::config::sample::{Balance, DOCUMENT, Filter, Sample};

    fn no_env(_: &str) -> Option<String> {
        None
    }

    /// Files in a folder of their own. The first is the document.
    fn folder(files: &[(&str, &str)]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    /// The report on these files, with the folder's own name left out.
    fn told(files: &[(&str, &str)]) -> String {
        let folder = folder(files);
        let issues = Issues::default();
        let report = match Document::read_with(&folder.path().join(files[0].0), &no_env) {
            Ok(mut document) => {
                document.deserialize::<Sample>(&issues);
                document.report(issues.into_vec(), false)
            }
            Err(broken) => broken.report(false),
        };
        report.replace(&format!("{}/", folder.path().display()), "")
    }

    fn read(files: &[(&str, &str)]) -> Sample {
        let folder = folder(files);
        let mut document = Document::read_with(&folder.path().join(files[0].0), &no_env).unwrap();
        document.deserialize(&Issues::default()).unwrap()
    }

    /// The report's first fault of a text: message, place, hint.
    fn first(text: &str) -> [String; 3] {
        let report = told(&[("a.yaml", text)]);
        let line = |start: &str| report.lines().find_map(|line| line.trim().strip_prefix(start)).unwrap_or_default();
        [line("error: "), line("--> a.yaml"), line("hint: ")].map(str::to_owned)
    }

    #[test]
    fn a_document_is_read_whole() {
        let mut document = Document::from_text("a.yaml", DOCUMENT, &no_env).unwrap();
        let sample: Sample = document.deserialize(&Issues::default()).unwrap();
        assert_eq!((sample.runtime.threads, sample.runtime.drain), (Some(4), crate::units::HumanDuration::secs(90)));
        assert_eq!(sample.upstreams["canary"].0.servers, ["10.0.0.1:80", "10.0.0.2:80"]);
        assert_eq!(sample.upstreams["canary"].0.balance, Balance::LeastRequests);
        assert_eq!(sample.upstreams["text"].0.servers, ["localhost:80"]);
        let site = &sample.sites[0];
        assert_eq!((site.hosts.len(), &*site.proxy.as_ref().unwrap().0.servers[0]), (2, "10.0.0.1:80"));
        assert!(matches!(&site.filters[0], Filter::IpRules(rules) if rules.deny.len() == 2 && rules.allow.len() == 1));
        let respond = sample.sites[1].respond.as_ref().unwrap();
        assert_eq!((respond.status, &*respond.body), (200, "42"));
    }

    #[test]
    fn a_report_shows_each_fault_where_it_is_written() {
        let text =
            "\u{feff}runtime:\n  treads: 4\nsites:\n  - filters:\n      - ip_rules: { allow: [10.0.0.0/8, all] }\n";
        let expected = "\
error: unknown key `treads`
 --> a.yaml:2:3 (runtime.treads)
  |
2 |   treads: 4
  |   ^^^^^^
hint: did you mean `threads`?

error: `all` is no network
 --> a.yaml:5:40 (sites[0].filters[0].ip_rules.allow[1])
  |
5 |       - ip_rules: { allow: [10.0.0.0/8, all] }
  |                                         ^^^
hint: write an address or a prefix, as in `10.0.0.0/8`

2 errors";
        assert_eq!(told(&[("a.yaml", text)]), expected.replace("5:40", "5:41"));
    }

    #[test]
    fn a_fault_of_the_yaml_itself_is_told_with_its_line() {
        for (text, message, place, hint) in [
            ("", "the document is empty", "", "a small one is"),
            ("# only a remark\n", "the document is empty", ":1:1", "a small one is"),
            ("- a\n", "a document is a mapping of keys to values", ":1:1", "begin with a key"),
            (
                "a: 1\nb: 2\na: 3\n",
                "the key `a` is written twice",
                ":3:1 (a)",
                "keep one of them; the first is in line 1",
            ),
            (
                "a: [1, 2\nb: 3\n",
                "this is not valid YAML: did not find expected `,` or `]`",
                ":2:2",
                "look for a missing comma, or a bracket left open since line 1",
            ),
            ("a: 1\n\tb: 2\n", "a tab cannot be used here", ":2:1", "indent with spaces"),
            (
                "hosts: [*.example.com]\n",
                "`*` at the beginning of a text means an alias",
                ":1:10",
                "put the text in quotes",
            ),
            ("a: *nowhere\n", "no anchor has the name", ":1:4", "put the text in quotes"),
            ("a: 1\nb: \"x\nc: 2\n", "the text in quotes does not end", ":2:1", "add the closing quote"),
            ("a: \u{1}\n", "a control character cannot be used here", ":1:4", "take it out"),
            ("404: 1\n", "unknown key `404`", ":1:1 (404)", "known keys here"),
            ("404: 1\n\"404\": 2\n", "the key `404` is written twice", "", "keep one of them"),
            ("a: |\nx\n", "this is not valid YAML: could not find expected `:`", ":2:2", "check the indentation"),
            ("a: @x\n", "a text cannot begin with this character", ":1:4", "put the text in quotes"),
            ("é: x\na: b: c\n", "there is no room for a `:` here", ":2:5", "check the indentation"),
            ("a: 123456789012345678901234567890\n", "the number is too large", ":1:4", "put it in quotes"),
            ("a: 1\n---\nb: 2\n", "the text holds more than one YAML document", ":2:1", "keep one"),
            ("a: !secret x\n", "the YAML tag `!secret` has no meaning here", ":1:4 (a)", "write the value without it"),
            ("a: { [x]: 1 }\n", "a key must be text here", ":1:4 (a)", "write `key: value`"),
            ("a: { <<: 1 }\n", "only a mapping can be merged", ":1:10 (a[\"<<\"])", "name the anchor"),
            ("a: &a [*a]\n", "lists or mappings lie too deep in one another", ":1:4", "look for"),
        ] {
            let [a, b, c] = first(text);
            assert!(a.starts_with(message) && b.starts_with(place) && c.starts_with(hint), "{text}: {a} {b} {c}");
        }
        // As quickly as any other: the parser alone would take seconds for these.
        for deep in ["[".repeat(20_000), "{a: ".repeat(20_000), format!("a: {}", "[{x: ".repeat(20_000))] {
            assert_eq!(first(&deep)[0], "lists or mappings lie too deep in one another");
        }
        assert!(first(&format!("a: {}{}", "[".repeat(500), "]".repeat(500)))[0].contains("too deep"));
        let deep = first(&format!("a: {}{}", "[".repeat(90), "]".repeat(90)));
        assert!(deep[0].contains("unknown key"), "{deep:?}");
        // Brackets in quotes are no depth.
        assert_eq!(first(&format!("listeners: [{}]\n", "'[', ".repeat(2000)))[0], "");
    }

    #[test]
    fn a_text_of_aliases_upon_aliases_is_refused() {
        let long = "x, ".repeat(3000);
        let many = "*a, ".repeat(3000);
        assert!(first(&format!("a: &a [{long}]\nb: [{many}]\n"))[0].contains("a million"));
        let bomb = (1..30).fold("a0: &a0 [x, x]\n".to_owned(), |text, n| {
            text + &format!("a{n}: &a{n} [*a{m}, *a{m}, *a{m}]\n", m = n - 1)
        });
        assert!(first(&bomb)[0].contains("a million"));
    }

    #[test]
    fn variables_are_filled_in_values_only() {
        let env = |name: &str| match name {
            "PORT" => Some("8080".to_owned()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${PORT}".to_owned()),
            _ => None,
        };
        for (text, filled) in [
            (":${PORT}", ":8080"),
            ("${PORT}${PORT}", "80808080"),
            ("${NONE:-80}", "80"),
            ("${NONE:-}", ""),
            ("${EMPTY:-80}", "80"),
            ("a${EMPTY}b", "ab"),
            ("${NESTED}", "${PORT}"),
            ("$${PORT}", "$${PORT}"),
            ("${client.ip} ${port} ${Port} ${} ${PORT", "${client.ip} ${port} ${Port} ${} ${PORT"),
            ("${9A} ${P-X:-a}", "${9A} ${P-X:-a}"),
        ] {
            let mut document = Document::from_text("a.yaml", &format!("listeners: '{text}'"), &env).unwrap();
            let sample: Sample = document.deserialize(&Issues::default()).unwrap();
            assert_eq!(sample.listeners[0], filled, "{text}");
        }
        let text = "runtime: { threads: '${PORT}', work_stealing: \"${NONE:-true}\" }\nupstreams: { '${PORT}': [a:1] }";
        let sample: Sample = Document::from_text("a", text, &env).unwrap().deserialize(&Issues::default()).unwrap();
        assert_eq!((sample.runtime.threads, sample.runtime.work_stealing), (Some(8080), true));
        assert!(sample.upstreams.contains_key("${PORT}"));
    }

    #[test]
    fn all_variables_that_are_not_set_are_told() {
        let report = told(&[("a.yaml", "listeners: ['${A}', 'x${B}']\nsites:\n  - proxy: ${C}\n")]);
        for told in [
            "`A` is not set",
            "`B` is not set",
            "`C` is not set",
            "a.yaml:3:12 (sites[0].proxy)",
            "`${A:-…}`",
            "3 errors",
        ] {
            assert!(report.contains(told), "{report}");
        }
    }

    #[test]
    fn a_number_keeps_the_form_it_is_written_in_when_text_is_asked_for() {
        let sample =
            read(&[("a.yaml", "sites: [filters: [headers: { V: 1.10, E: 1e3, B: 0.10000000000000000000001, I: 7 }]]")]);
        let Filter::Headers(headers) = &sample.sites[0].filters[0] else { panic!("{sample:?}") };
        let written: Vec<_> = headers.values().map(String::as_str).collect();
        assert_eq!(written, ["0.10000000000000000000001", "1e3", "7", "1.10"]);
    }

    #[test]
    fn included_files_are_joined() {
        let files = [
            (
                "main.yaml",
                "include: [sites/*.yaml, more.yaml]\nlisteners: [a]\nupstreams: { x: [x:1] }\nsites:\n  - hosts: main\n",
            ),
            ("sites/b.yaml", "sites: [{ hosts: b }]"),
            ("sites/a.yaml", "sites: [{ hosts: a }]\nupstreams: { a: [a:1] }\ninclude: deep/*.yaml"),
            ("sites/deep/d.yaml", "listeners: [d]\nsites: [{ hosts: d }]"),
            ("sites/.#a.yaml", "nonsense: ["),
            ("sites/none.yaml", "# nothing yet\n"),
            ("more.yaml", "runtime: { threads: 2 }\ninclude: none/*.yaml"),
        ];
        let sample = read(&files);
        let hosts: Vec<&str> = sample.sites.iter().map(|site| &*site.hosts[0]).collect();
        assert_eq!(hosts, ["main", "a", "d", "b"]);
        assert_eq!(*sample.listeners, ["a", "d"]);
        assert_eq!(sample.upstreams.keys().collect::<Vec<_>>(), ["a", "x"]);
        assert_eq!(sample.runtime.threads, Some(2));
        let folder = folder(&files);
        let document = Document::read_with(&folder.path().join("main.yaml"), &no_env).unwrap();
        let names = ["main.yaml", "sites", "sites/a.yaml", "sites/deep", "sites/deep/d.yaml", "sites/b.yaml"];
        let names = names.iter().chain(&["sites/none.yaml", "more.yaml", "none"]);
        assert_eq!(document.files(), names.map(|name| folder.path().join(name)).collect::<Vec<_>>());
    }

    #[test]
    fn a_fault_in_an_included_file_is_told_there() {
        let report = told(&[
            ("main.yaml", "include: sites/*.yaml\nsites: [{ hosts: [] }, { proxy: 7 }]\n"),
            ("sites/a.yaml", "sites: [{}]\nupstreams:\n  a: host\n"),
            ("sites/b.yaml", "sites:\n  - {}\n  - prxy: x\nsite: 1\n"),
        ]);
        for place in [
            "main.yaml:2:33 (sites[1].proxy)",
            "sites/a.yaml:3:6 (upstreams.a)",
            "sites/b.yaml:3:5 (sites[1].prxy)",
            "sites/b.yaml:4:1 (site)",
            "4 errors",
        ] {
            assert!(report.contains(place), "{place}: {report}");
        }
    }

    #[test]
    fn what_stands_in_two_files_is_a_fault() {
        let report = told(&[
            ("main.yaml", "include: b.yaml\nupstreams:\n  x: [x:1]\nruntime: { threads: 1 }\nlisteners: ':80'\n"),
            ("b.yaml", "upstreams: { y: [y:1], x: [x:2] }\nruntime: {}\nlisteners: [':81']\n"),
        ]);
        for told in [
            "`upstreams.x` is written in two files\n --> b.yaml:1:24 (upstreams.x)",
            "hint: keep one of them; the other is in main.yaml:3",
            "`runtime` is written in two files\n --> b.yaml:2:1",
            "`listeners` is written in two files\n --> b.yaml:3:1",
            "3 errors",
        ] {
            assert!(report.contains(told), "{told}: {report}");
        }
    }

    #[test]
    fn files_that_include_one_another_end() {
        for (files, told_as) in [
            (vec![("a.yaml", "include: a.yaml")], "`a.yaml` includes itself\n --> a.yaml:1:10 (include)"),
            (
                vec![("a.yaml", "include: [b.yaml]"), ("b.yaml", "include: a.yaml")],
                "`a.yaml` includes itself\n --> b.yaml:1:10",
            ),
            (
                vec![("a.yaml", "include: [b.yaml, b.yaml]"), ("b.yaml", "")],
                "`b.yaml` is included already\n --> a.yaml:1:19 (include[1])",
            ),
            (vec![("a.yaml", "include: b.yaml")], "there is no file `b.yaml`\n --> a.yaml:1:10 (include)"),
            (vec![("a.yaml", "include: b"), ("b/x", "")], "`b` is a folder\n --> a.yaml:1:10 (include)"),
            (vec![("a.yaml", "include: { x: 1 }")], "`include` takes names of files\n --> a.yaml:1:10"),
            (vec![("a.yaml", "include: 'x/***'")], "`x/***` is no pattern"),
        ] {
            let report = told(&files);
            assert!(report.contains(told_as), "{told_as}: {report}");
        }
        // A pattern that matches its own file means the others.
        assert_eq!(
            told(&[("a.yaml", "include: '*.yaml'\nlisteners: [a]"), ("b.yaml", "include: '*.yaml'\nlisteners: [b]")]),
            ""
        );
        let chain: Vec<(String, String)> =
            (0..20).map(|n| (format!("{n}.yaml"), format!("include: {}.yaml", n + 1))).collect();
        let chain: Vec<(&str, &str)> = chain.iter().map(|(name, text)| (&**name, &**text)).collect();
        assert!(told(&chain).contains("files include one another more than 16 deep"));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_told() {
        let missing = Document::read_with(FilePath::new("/nowhere/x.yaml"), &no_env).unwrap_err();
        let told = "error: there is no file `/nowhere/x.yaml`\n --> /nowhere/x.yaml\nhint: check the name and the working directory\n\n1 error";
        assert_eq!((missing.to_string(), missing.files()), (told.to_owned(), vec![PathBuf::from("/nowhere/x.yaml")]));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        fs::write(&path, b"a: 1\nb: \xff\n").unwrap();
        let broken = Document::read_with(&path, &no_env).unwrap_err().to_string();
        assert!(broken.contains("not UTF-8 from here on") && broken.contains("a.yaml:2:4\n"), "{broken}");
        let large = File::create(&path).unwrap();
        large.set_len(LARGEST + 1).unwrap();
        assert!(Document::read_with(&path, &no_env).unwrap_err().to_string().contains("larger than 64 MiB"));
    }

    /// Reads a text through to its report; the report is empty only when the text is a document.
    fn through(text: &str) -> bool {
        let issues = Issues::default();
        match Document::from_text("a.yaml", text, &no_env) {
            Err(broken) => !broken.report(true).is_empty(),
            Ok(mut document) => {
                let built = document.deserialize::<Sample>(&issues).is_some();
                built == document.report(issues.into_vec(), false).is_empty()
            }
        }
    }

    proptest! {
        #[test]
        fn a_text_like_yaml_is_a_document_or_has_a_report(
            text in "(runtime|threads|sites|upstreams|[a-c]|: |, |- |\\[|\\]|\\{|\\}|\n|\n  |\"|'|&a |\\*a|<<: |#|\\||>|\r|\t|é|漢|!x |---|\\?|%|\\$\\{A\\}|1\\.5|0x1f|~){0,50}",
        ) {
            prop_assert!(through(&text));
        }

        #[test]
        fn any_text_is_a_document_or_has_a_report(text in any::<String>()) {
            prop_assert!(through(&text));
        }

        #[test]
        fn a_document_with_slips_is_a_document_or_has_a_report(
            slips in prop::collection::vec((0..DOCUMENT.len(), 0_usize..12, "[\\[\\]{}:,\\-#&*!|>'\"%@`\n\t a0é]{0,3}"), 1..6),
        ) {
            let mut text = DOCUMENT.to_owned();
            for (at, length, new) in slips {
                let start = text.floor_char_boundary(at.min(text.len()));
                let end = text.ceil_char_boundary((start + length).min(text.len()));
                text.replace_range(start..end, &new);
            }
            prop_assert!(through(&text));
        }
    }
}
