//! `Issue`: one fault with its path in the document; `Scope`: the place where a feature reports its faults.

use std::cell::RefCell;
use std::fmt;

/// One step of a path into the document.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// The value under this key of a mapping.
    Key(Box<str>),
    /// The item at this position of a list, from 0.
    Index(usize),
}

/// Where in the document: `sites[0].routes[2].match.path`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Path(pub Vec<Step>);

impl Path {
    /// This path, one key further down.
    #[must_use]
    pub fn key(mut self, key: impl Into<Box<str>>) -> Self {
        self.0.push(Step::Key(key.into()));
        self
    }

    /// This path, one list position further down.
    #[must_use]
    pub fn index(mut self, index: usize) -> Self {
        self.0.push(Step::Index(index));
        self
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |key: &str| {
            !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'/'))
        };
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) if !plain(key) => write!(f, "[{key:?}]")?,
                Step::Key(key) if position == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
            }
        }
        Ok(())
    }
}

/// How bad a fault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The document cannot be used.
    Error,
    /// The document works, but surely not as meant.
    Warning,
}

/// Which part of the entry at a path is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The key itself, as when it is unknown.
    Key,
    /// The value.
    Value,
}

/// One fault: where, what, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// The entry at fault.
    pub path: Path,
    /// Whether the path's last key or its value is at fault.
    pub place: Place,
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong: lowercase, no full stop, values in backticks.
    pub message: String,
    /// A sentence that the operator can act on.
    pub hint: Option<String>,
}

/// All faults found in one document, in the order of finding.
#[derive(Debug, Default)]
pub struct Issues(RefCell<Vec<Issue>>);

impl Issues {
    /// The place of the whole document.
    pub fn root(&self) -> Scope<'_> {
        Scope { sink: self, parent: None, step: None }
    }

    /// Adds a fault that was found with its path at hand.
    pub fn push(&self, issue: Issue) {
        self.0.borrow_mut().push(issue);
    }

    /// Whether there is any error (warnings do not count).
    pub fn has_errors(&self) -> bool {
        self.0.borrow().iter().any(|issue| issue.severity == Severity::Error)
    }

    /// How many errors there are (warnings do not count).
    pub fn errors(&self) -> usize {
        self.0.borrow().iter().filter(|issue| issue.severity == Severity::Error).count()
    }

    /// The faults, in the order of finding.
    pub fn into_vec(self) -> Vec<Issue> {
        self.0.into_inner()
    }
}

#[derive(Clone, Copy)]
enum ScopeStep<'a> {
    Key(&'a str),
    Index(usize),
}

/// The place of one block of the document, for reporting what is wrong with it. Costs nothing until a fault is reported.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    sink: &'a Issues,
    parent: Option<&'a Self>,
    step: Option<ScopeStep<'a>>,
}

impl<'a> Scope<'a> {
    /// The place of the value under `key`.
    pub fn key<'b>(&'b self, key: &'b str) -> Scope<'b> {
        Scope { sink: self.sink, parent: Some(self), step: Some(ScopeStep::Key(key)) }
    }

    /// The place of the list item at `index`.
    pub fn index<'b>(&'b self, index: usize) -> Scope<'b> {
        Scope { sink: self.sink, parent: Some(self), step: Some(ScopeStep::Index(index)) }
    }

    /// Reports an error here.
    pub fn error(&self, message: impl Into<String>) {
        self.report(Severity::Error, Place::Value, message.into(), None);
    }

    /// Reports an error here, with a hint how to mend it.
    pub fn error_hint(&self, message: impl Into<String>, hint: impl Into<String>) {
        self.report(Severity::Error, Place::Value, message.into(), Some(hint.into()));
    }

    /// Reports an error of the key itself (its name, not its value), with a hint how to mend it.
    pub fn error_key(&self, message: impl Into<String>, hint: Option<String>) {
        self.report(Severity::Error, Place::Key, message.into(), hint);
    }

    /// Reports a warning here, with a hint.
    pub fn warn(&self, message: impl Into<String>, hint: impl Into<String>) {
        self.report(Severity::Warning, Place::Value, message.into(), Some(hint.into()));
    }

    /// Whether any error has been reported so far, here or elsewhere.
    pub fn has_errors(&self) -> bool {
        self.sink.has_errors()
    }

    /// This place as a path, for keeping: a scope itself lives only during `build`.
    pub fn path(&self) -> Path {
        let mut steps = Vec::new();
        let mut here = Some(self);
        while let Some(scope) = here {
            match scope.step {
                Some(ScopeStep::Key(key)) => steps.push(Step::Key(key.into())),
                Some(ScopeStep::Index(index)) => steps.push(Step::Index(index)),
                None => {}
            }
            here = scope.parent;
        }
        steps.reverse();
        Path(steps)
    }

    fn report(&self, severity: Severity, place: Place, message: String, hint: Option<String>) {
        self.sink.push(Issue { path: self.path(), place, severity, message, hint });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_carries_the_path_of_its_scope() {
        let issues = Issues::default();
        let root = issues.root();
        root.key("sites").index(2).key("headers").key("X-A.b").error("no");
        root.key("upstreams").key("api").warn("hm", "do");
        assert_eq!(issues.errors(), 1);
        let paths: Vec<_> = issues.into_vec().iter().map(|issue| issue.path.to_string()).collect();
        assert_eq!(paths, ["sites[2].headers[\"X-A.b\"]", "upstreams.api"]);
    }
}
