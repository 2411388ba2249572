//! One text to one YAML value, with `${ENV}` filled in and merge keys (`<<`) merged.

use std::cell::OnceCell;
use std::collections::HashSet;

use serde_yaml::{Mapping, Value};

use super::fault::short;
use super::value::scalar_text;
use crate::diag::locate::{Lines, Outline, Spot};
use crate::diag::{Issue, Path, Place, Severity, Step};

/// Tells the value of an environment variable.
pub type Env<'e> = &'e dyn Fn(&str) -> Option<String>;

/// Aliases may stand for so many values. More would be a text of a few lines that fills the memory.
const MOST_REPEATED: usize = 1_000_000;

/// From so many open brackets on, the text is walked beforehand: the parser's time grows with the square of the depth.
const BRACKETS: usize = 1000;

/// A fault and, when its path does not lead there, where it stands.
pub(super) type Told = (Option<Spot>, Issue);

/// The value of a text, and all that is wrong with it. The value is meant for use only when nothing is.
pub(super) fn parse(text: &str, env: Env<'_>) -> (Value, Vec<Told>) {
    if text.contains('&') && Outline::of(text).repeated() > MOST_REPEATED {
        let hint = "write out what is meant, or leave out some of the aliases (`*name`)";
        return (Value::Null, vec![(None, error("the aliases stand for more than a million values", hint))]);
    }
    if open_brackets(text) > BRACKETS && Outline::of(text).is_cut() {
        let (_, message, hint) = TOO_DEEP;
        return (Value::Null, vec![(None, error(message, hint))]);
    }
    let mut value = match serde_yaml::from_str::<Value>(text) {
        Ok(value) => value,
        Err(fault) => return (Value::Null, syntax(text, &fault)),
    };
    let mut settling = Settling { text, outline: OnceCell::new(), env, path: Vec::new(), told: Vec::new() };
    settling.settle(&mut value);
    (value, settling.told)
}

/// How many brackets are open at once, at most, if none of them stands in quotes.
fn open_brackets(text: &str) -> usize {
    let (mut open, mut most) = (0_usize, 0);
    for byte in text.bytes() {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        most = most.max(open);
    }
    most
}

pub(super) fn error(message: impl Into<String>, hint: impl Into<String>) -> Issue {
    Issue {
        path: Path::default(),
        place: Place::Value,
        severity: Severity::Error,
        message: message.into(),
        hint: Some(hint.into()),
    }
}

const TOO_DEEP: (&str, &str, &str) = (
    "recursion limit",
    "lists or mappings lie too deep in one another",
    "look for a bracket too many, or an alias within its own anchor",
);

/// What the parser says of a slip, and what to say instead: a part of its sentence, the message, the hint.
const SLIPS: [(&str, &str, &str); 13] = [
    ("a tab character", "a tab cannot be used here", "indent with spaces"),
    (
        "more than one document",
        "the text holds more than one YAML document",
        "keep one; further files can be read by `include`",
    ),
    TOO_DEEP,
    ("repetition limit", "aliases stand for too much here", "write out what is meant"),
    ("128, expected", "the number is too large", "put it in quotes if it is meant as text"),
    ("control characters are not allowed", "a control character cannot be used here", "take it out"),
    ("while scanning an anchor", "an anchor is a `&` and a name", "put the text in quotes if no anchor is meant"),
    (
        "alphabetic or numeric character",
        "`*` at the beginning of a text means an alias",
        "put the text in quotes, as in `\"*.example.com\"`",
    ),
    ("while scanning an alias", "an alias is a `*` and a name", "put the text in quotes if no alias is meant"),
    ("unknown anchor", "no anchor has the name of this alias", "put the text in quotes if no alias is meant"),
    ("cannot start any token", "a text cannot begin with this character", "put the text in quotes"),
    (
        "mapping values are not allowed",
        "there is no room for a `:` here",
        "check the indentation; a text that contains `: ` needs quotes",
    ),
    ("while scanning a quoted scalar", "the text in quotes does not end", "add the closing quote"),
];

/// Words a fault of the parser, and finds where it is.
fn syntax(text: &str, fault: &serde_yaml::Error) -> Vec<Told> {
    let said = fault.to_string();
    if said.contains("duplicate entry") {
        let told = twice(text);
        if !told.is_empty() {
            return told;
        }
    }
    let ends = text.trim_end().len();
    let start = text.floor_char_boundary(place(text, fault, &said).min(ends));
    let slip = SLIPS.iter().find(|(part, ..)| said.contains(part));
    let tab = text[start..].trim_start_matches([' ', '\n', '\r']).starts_with('\t');
    let issue = match slip {
        Some(("cannot start any token", ..)) if tab => error("a tab cannot be used here", "indent with spaces"),
        Some((_, message, hint)) => error(*message, *hint),
        None => {
            let parser = said.split(" at line ").next().unwrap_or_default().replace('\'', "`");
            let hint = match said.contains("while parsing a flow").then(|| last_line(&said)).flatten() {
                Some(line) => format!("look for a missing comma, or a bracket left open since line {line}"),
                None => "check the indentation, quotes and brackets here and in the line before".to_owned(),
            };
            error(format!("this is not valid YAML: {parser}"), hint)
        }
    };
    vec![(Some(Spot { start, end: start }), issue)]
}

/// The byte that the parser's sentence is about.
fn place(text: &str, fault: &serde_yaml::Error, said: &str) -> usize {
    if said.contains("while scanning a quoted scalar")
        && said.contains("end of stream")
        && let Some(line) = last_line(said)
    {
        // Not the end of the text, where the parser gave up, but the line where the quotes open.
        return Lines::of(text).start(line);
    }
    if said.contains("more than one document") {
        return text.rfind("\n---").map_or(0, |at| at + 1);
    }
    if let Some(position) = said.rsplit_once("at position ").and_then(|(_, position)| position.parse().ok()) {
        return position;
    }
    fault.location().map_or(0, |place| place.index())
}

/// The last line that the parser's sentence names: where what it was reading begins.
fn last_line(said: &str) -> Option<usize> {
    said.rsplit_once("at line ")?.1.split(' ').next()?.parse().ok()
}

/// Keys that stand twice in one mapping.
fn twice(text: &str) -> Vec<Told> {
    let lines = Lines::of(text);
    let told = Outline::of(text).twice().into_iter().map(|twice| {
        let hint = format!("keep one of them; the first is in line {}", lines.position(twice.first.start).0);
        let mut issue = error(format!("the key `{}` is written twice", short(&twice.key)), hint);
        (issue.path, issue.place) = (twice.path.key(twice.key), Place::Key);
        (Some(twice.again), issue)
    });
    told.collect()
}

/// Goes through all values of a text.
struct Settling<'t> {
    text: &'t str,
    outline: OnceCell<Outline<'t>>,
    env: Env<'t>,
    path: Vec<Step>,
    told: Vec<Told>,
}

impl Settling<'_> {
    fn settle(&mut self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Some(filled) = self.fill(text) {
                    *text = filled;
                }
            }
            // `1.10` is a version in one place and a number in another: keep it as it was written.
            Value::Number(number) if number.is_f64() => {
                let outline = self.outline.get_or_init(|| Outline::of(self.text));
                if let Some(written) = outline.scalar(&Path(self.path.clone())) {
                    *value = Value::String(written.to_owned());
                }
            }
            Value::Sequence(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.below(Step::Index(index), item);
                }
            }
            Value::Mapping(mapping) => {
                for (key, item) in mapping.iter_mut() {
                    match scalar_text(key) {
                        Some(key) => self.below(Step::Key((&*key).into()), item),
                        None => self.tell("a key must be text here", "write `key: value`".to_owned()),
                    }
                }
                // To YAML `404` and `"404"` are two keys, to the document they are one.
                let mut seen = HashSet::new();
                let again = mapping.keys().filter_map(scalar_text).find(|key| !seen.insert(key.clone()));
                if let Some(key) = again {
                    self.tell(format!("the key `{}` is written twice", short(&key)), "keep one of them".to_owned());
                }
                self.merge(mapping);
            }
            Value::Tagged(tagged) => {
                let tag = tagged.tag.to_string();
                let hint = "write the value without it; a text that begins with `!` needs quotes".to_owned();
                self.tell(format!("the YAML tag `{}` has no meaning here", short(&tag)), hint);
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn below(&mut self, step: Step, value: &mut Value) {
        self.path.push(step);
        self.settle(value);
        self.path.pop();
    }

    fn tell(&mut self, message: impl Into<String>, hint: String) {
        let issue = Issue { path: Path(self.path.clone()), ..error(message, hint) };
        self.told.push((None, issue));
    }

    /// The text with its `${NAME}` filled in, if there is any.
    fn fill(&mut self, text: &str) -> Option<String> {
        let (mut filled, mut rest, mut changed) = (String::new(), text, false);
        while let Some(at) = rest.find("${") {
            let (before, after) = rest.split_at(at);
            filled.push_str(before);
            match variable(after) {
                // `$${` is a template's way to write `${`.
                Some((name, default, length)) if !before.ends_with('$') => {
                    let set = (self.env)(name).filter(|value| default.is_none() || !value.is_empty());
                    match set.as_deref().or(default) {
                        Some(value) => filled.push_str(value),
                        None => self.tell(
                            format!("the environment variable `{name}` is not set"),
                            format!("set it, or give a default: `${{{name}:-…}}`"),
                        ),
                    }
                    changed = true;
                    rest = &after[length..];
                }
                _ => {
                    filled.push_str("${");
                    rest = &after[2..];
                }
            }
        }
        changed.then(|| filled + rest)
    }

    /// Joins what `<<` names into the mapping. What the mapping says itself wins, then what comes first.
    fn merge(&mut self, mapping: &mut Mapping) {
        let others = match mapping.shift_remove("<<") {
            None => return,
            Some(Value::Sequence(others)) => others,
            Some(other) => vec![other],
        };
        for other in others {
            match other {
                Value::Mapping(other) => {
                    for (key, value) in other {
                        mapping.entry(key).or_insert(value);
                    }
                }
                _ => {
                    self.path.push(Step::Key("<<".into()));
                    self.tell("only a mapping can be merged", "name the anchor of one, as in `<<: *name`".to_owned());
                    self.path.pop();
                }
            }
        }
    }
}

/// Splits `${NAME}` or `${NAME:-default}` off the beginning of a text: the name, the default, the length of all.
/// Names in small letters, as in `${client.ip}`, are for templates.
fn variable(text: &str) -> Option<(&str, Option<&str>, usize)> {
    let inner = text.strip_prefix("${")?;
    let inner = &inner[..inner.find('}')?];
    let (name, default) = inner.split_once(":-").map_or((inner, None), |(name, default)| (name, Some(default)));
    let letters = |b: u8| b.is_ascii_uppercase() || b == b'_';
    let first = name.bytes().next()?;
    (letters(first) && name.bytes().all(|b| letters(b) || b.is_ascii_digit())).then_some((
        name,
        default,
        inner.len() + "${}".len(),
    ))
}
