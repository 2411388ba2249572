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
use super::value::from_value;
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

    /// The document as a `T`; `None` with at least one error more in `issues`.
    pub fn deserialize<T: DeserializeOwned>(&self, issues: &Issues) -> Option<T> {
        match from_value(&self.value) {
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
            // Other keys have been told by `parse`.
            let Value::String(name) = &key else { continue };
            let name = name.clone();
            match (self.value.get_mut(&key), value) {
                (None, value) => {
                    self.document.origins.insert(name.clone(), Origin::of(source, &value, &name));
                    self.value.insert(key, value);
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
            if known.contains_key(&key) {
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

fn key_text(key: &Value) -> String {
    match key {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        _ => String::new(),
    }
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
