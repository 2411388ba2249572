//! `Fault`: what a type of the document says when a value does not fit it.
//!
//! serde asks for sentences in several places; all of them are worded here, in the style of the report.

use std::fmt::Display;

use serde::de::{Error, Expected, Unexpected};

use crate::diag::{Issue, Path, Place, Severity, Step, suggest};

/// One value that does not fit. The path is collected while unwinding, so a value that fits costs nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The steps from the value at fault up to the root.
    steps: Vec<Step>,
    place: Place,
    message: String,
    hint: Option<String>,
}

impl Fault {
    /// A fault of the value at hand.
    pub(super) fn new(message: impl Into<String>, hint: Option<String>) -> Self {
        Self { steps: Vec::new(), place: Place::Value, message: message.into(), hint }
    }

    /// The same, seen from the holder of the value.
    pub(super) fn within(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// A fault of a key itself, seen from the mapping that has it.
    pub(super) fn of_key(mut self, key: &str) -> Self {
        self.place = Place::Key;
        self.within(Step::Key(key.into()))
    }

    /// The fault with its whole path, once it has reached the root.
    pub(super) fn into_issue(mut self) -> Issue {
        self.steps.reverse();
        let Self { steps, place, message, hint } = self;
        Issue { path: Path(steps), place, severity: Severity::Error, message, hint }
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl Error for Fault {
    /// A type's own sentence. What follows its first `; ` tells how to mend it, and becomes the hint.
    fn custom<T: Display>(message: T) -> Self {
        let message = message.to_string();
        match message.split_once("; ") {
            Some((message, hint)) => Self::new(message, Some(hint.to_owned())),
            None => Self::new(message, None),
        }
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        let listed = || Some(format!("known keys here: {}", listed(known))).filter(|_| !known.is_empty());
        Self::new(
            format!("unknown key `{}`", short(field)),
            suggest::did_you_mean(field, known.iter().copied()).or_else(listed),
        )
    }

    fn unknown_variant(variant: &str, known: &'static [&'static str]) -> Self {
        let listed = || Some(format!("known here: {}", listed(known))).filter(|_| !known.is_empty());
        Self::new(
            format!("`{}` is unknown here", short(variant)),
            suggest::did_you_mean(variant, known.iter().copied()).or_else(listed),
        )
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(format!("the key `{field}` is missing"), Some(format!("add `{field}: …`")))
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new(format!("the key `{field}` is given twice"), Some("keep one of them".to_owned())).of_key(field)
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let wanted = wanted(expected);
        match found {
            Unexpected::Unit | Unexpected::Option => {
                Self::new("the value is empty", Some(format!("write {wanted}, or leave the key out")))
            }
            _ => Self::new(format!("expected {wanted}, found {}", told(found)), form(&wanted)),
        }
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("expected {}, found {}", wanted(expected), told(found)), None)
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        let items = if length == 1 { "item" } else { "items" };
        Self::new(format!("expected {}, found {length} {items}", wanted(expected)), None)
    }
}

/// The entries known to be wrong, as a tree of steps.
#[derive(Default)]
pub(super) struct Passed {
    pub(super) here: bool,
    below: Vec<(Step, Self)>,
}

impl Passed {
    pub(super) fn at(&self, step: &Step) -> Option<&Self> {
        self.below.iter().find(|(known, _)| known == step).map(|(_, passed)| passed)
    }

    pub(super) fn any_within(&self, path: &Path) -> bool {
        path.0.iter().try_fold(self, |passed, step| passed.at(step)).is_some_and(|p| p.here || !p.below.is_empty())
    }

    /// Adds an entry; false when that changes nothing, as with the root.
    pub(super) fn add(&mut self, path: &Path) -> bool {
        let mut passed = self;
        for step in &path.0 {
            let position = passed.below.iter().position(|(known, _)| known == step);
            let position = position.unwrap_or_else(|| {
                passed.below.push((step.clone(), Self::default()));
                passed.below.len() - 1
            });
            passed = &mut passed.below[position].1;
        }
        !path.0.is_empty() && !std::mem::replace(&mut passed.here, true)
    }
}

/// Names for a sentence: `a`, `b`, `c`.
pub(super) fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// What was found, in words.
fn told(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => format!("`{value}`"),
        Unexpected::Unsigned(value) => format!("the number `{value}`"),
        Unexpected::Signed(value) => format!("the number `{value}`"),
        Unexpected::Float(value) => format!("the number `{value}`"),
        Unexpected::Str(text) => format!("the text `{}`", short(text)),
        Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a mapping".to_owned(),
        other => other.to_string(),
    }
}

/// What was asked for, in words: serde's own types name themselves in Rust's.
fn wanted(expected: &dyn Expected) -> String {
    let rust = expected.to_string();
    let (least, number) = rust.strip_prefix("a nonzero ").map_or((0, &*rust), |number| (1, number));
    match number {
        "a boolean" => "`true` or `false`".to_owned(),
        "a string" | "a character" => "text".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a mapping".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "u8" => format!("a whole number from {least} to {}", u8::MAX),
        "u16" => format!("a whole number from {least} to {}", u16::MAX),
        "u32" => format!("a whole number from {least} to {}", u32::MAX),
        "u64" | "usize" | "u128" => format!("a whole number from {least}"),
        "i8" | "i16" | "i32" | "i64" | "isize" | "i128" => "a whole number".to_owned(),
        _ if rust.starts_with("struct ") => "a mapping".to_owned(),
        _ if rust.starts_with("tuple ") => "a list".to_owned(),
        _ => rust,
    }
}

/// How that is written.
fn form(wanted: &str) -> Option<String> {
    match wanted {
        "a list" => Some("write `[…]`, or each item on its own line behind `- `".to_owned()),
        "a mapping" => Some("write `{ key: value }`, or each `key: value` on its own line".to_owned()),
        _ => None,
    }
}

/// A value as a message quotes it: a long one by its beginning.
pub(super) fn short(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
