//! The reference page, from the types of the document and their `///` comments, by way of their JSON schema.
//!
//! One section a block, in the order in which a reader of the document meets them; a block that can stand in several
//! places is told once, where it is met first, and linked from the others.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use serde_json::{Map, Value};

/// The page for a JSON schema, as Markdown. The same schema always gives the same text.
pub fn markdown(schema: &Value) -> String {
    let defs = schema.get("$defs").and_then(Value::as_object);
    let mut page = Page { defs, text: String::new(), anchors: HashMap::new(), taken: HashSet::new(), open: Vec::new() };
    page.block(&Block { path: String::new(), schema });
    page.text
}

struct Page<'s> {
    defs: Option<&'s Map<String, Value>>,
    text: String,
    /// The anchor of each named block that has a section or will have one.
    anchors: HashMap<&'s str, String>,
    taken: HashSet<String>,
    /// The named schemas being put into words now: a form may contain itself.
    open: Vec<&'s str>,
}

/// A block to come: where it is met first, and what it is.
struct Block<'s> {
    path: String,
    schema: &'s Value,
}

impl<'s> Page<'s> {
    fn block(&mut self, block: &Block<'s>) {
        let mut blocks = Vec::new();
        match &*block.path {
            "" => self.line(format_args!("# Configuration")),
            path => self.line(format_args!("## `{path}`")),
        }
        if let Some(about) = text_of(block.schema, "description") {
            self.line(format_args!("{about}"));
        }
        self.keys(&block.path, block.schema, &mut blocks);
        if let Some(kinds) = choices(block.schema) {
            self.kinds(&block.path, kinds, &mut blocks);
        }
        blocks.iter().for_each(|block| self.block(block));
    }

    /// The keys of a mapping.
    fn keys(&mut self, path: &str, schema: &'s Value, blocks: &mut Vec<Block<'s>>) {
        let required = schema.get("required").and_then(Value::as_array);
        for (key, value) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let required = required.is_some_and(|required| required.iter().any(|name| name == key));
            self.key(path, key, value, required, blocks);
        }
    }

    /// The kinds of an enum; or the forms of a block that is written short, or in full as a mapping.
    fn kinds(&mut self, path: &str, kinds: &'s [Value], blocks: &mut Vec<Block<'s>>) {
        let Some(full) = kinds.iter().find(|kind| is_full_form(kind)) else {
            self.line(format_args!("One of:"));
            return kinds.iter().for_each(|kind| self.kind(path, kind, blocks));
        };
        let short: Vec<String> =
            kinds.iter().filter(|kind| !is_full_form(kind)).map(|kind| self.form(kind, path, blocks)).collect();
        self.line(format_args!("In short: {}. In full, a mapping:", any_of(&short)));
        self.keys(path, full, blocks);
    }

    /// One key of a block: its form, default, description and examples.
    fn key(&mut self, path: &str, key: &str, value: &'s Value, required: bool, blocks: &mut Vec<Block<'s>>) {
        let here = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        let form = self.form(value, &here, blocks);
        let named = self.named(value);
        let own = named.map_or(value, |(_, named)| named);
        let default = match value.get("default").and_then(written) {
            _ if required => " Required.".to_owned(),
            Some(default) => format!(" Default: `{default}`."),
            None => String::new(),
        };
        self.item(
            format_args!("`{key}`: {form}.{default}"),
            text_of(value, "description").or_else(|| text_of(own, "description")),
        );
        if !is_block(own) {
            let kinds = choices(own).unwrap_or_default().iter();
            let told =
                kinds.filter_map(|kind| Some((kind.get("const").and_then(written)?, text_of(kind, "description")?)));
            let before = self.text.len();
            for (name, about) in told {
                let _ = writeln!(self.text, "  - `{name}`: {}", indented(about, "    "));
            }
            if self.text.len() > before {
                self.text.push('\n');
            }
        }
        let examples = value.get("examples").or_else(|| own.get("examples").filter(|_| !is_phrase(own)));
        let examples: Vec<_> = examples.and_then(Value::as_array).into_iter().flatten().filter_map(written).collect();
        if !examples.is_empty() {
            let word = if examples.len() == 1 { "Example" } else { "Examples" };
            let _ = writeln!(self.text, "  {word}: `{}`.\n", examples.join("`, `"));
        }
    }

    /// One kind of an enum whose kinds have settings.
    fn kind(&mut self, path: &str, kind: &'s Value, blocks: &mut Vec<Block<'s>>) {
        let about = text_of(kind, "description");
        match kind.get("properties").and_then(Value::as_object) {
            Some(keys) => {
                for (key, value) in keys {
                    let form = self.form(value, &format!("{path}.{key}"), blocks);
                    self.item(format_args!("`{key}`: {form}."), about.or_else(|| text_of(value, "description")));
                }
            }
            None => {
                let form = self.form(kind, path, blocks);
                self.item(format_args!("{form}"), about);
            }
        }
    }

    /// How a value is written, in words. Blocks met on the way are added to `blocks`.
    fn form(&mut self, schema: &'s Value, path: &str, blocks: &mut Vec<Block<'s>>) -> String {
        if let Some((name, named)) = self.named(schema) {
            if is_block(named) {
                return self.link(Some(name), path, named, blocks);
            }
            if self.open.contains(&name) {
                return "the same again".to_owned();
            }
            self.open.push(name);
            let form = self.form(named, path, blocks);
            self.open.pop();
            return form;
        }
        if is_block(schema) {
            return self.link(None, path, schema, blocks);
        }
        if is_phrase(schema) {
            let example = schema.get("examples").and_then(|examples| examples.get(0)).and_then(written);
            let example = example.map(|example| format!(", as in `{example}`")).unwrap_or_default();
            return format!("{}{example}", text_of(schema, "description").unwrap_or_default());
        }
        if let Some(value) = schema.get("const").and_then(written) {
            return format!("`{value}`");
        }
        if let Some(values) = schema.get("enum").and_then(Value::as_array) {
            let values: Vec<String> = values.iter().filter_map(written).map(|value| format!("`{value}`")).collect();
            return any_of(&values);
        }
        if let Some(kinds) = choices(schema) {
            return self.choice(kinds, path, blocks);
        }
        let types: Vec<&str> = match schema.get("type") {
            Some(Value::Array(types)) => {
                types.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect()
            }
            Some(Value::String(name)) => vec![name],
            _ => return "any value".to_owned(),
        };
        let forms: Vec<String> = types.into_iter().map(|name| self.simple(name, schema, path, blocks)).collect();
        any_of(&forms)
    }

    fn choice(&mut self, kinds: &'s [Value], path: &str, blocks: &mut Vec<Block<'s>>) -> String {
        let mut forms: Vec<String> = Vec::new();
        for kind in kinds.iter().filter(|kind| kind.get("type").is_none_or(|name| name != "null")) {
            let items = kind.get("items").filter(|_| kind.get("type").is_some_and(|name| name == "array"));
            let form = match items {
                Some(items) if kinds.contains(items) => "a list of such".to_owned(),
                _ => self.form(kind, path, blocks),
            };
            if !forms.contains(&form) {
                forms.push(form);
            }
        }
        any_of(&forms)
    }

    fn simple(&mut self, name: &str, schema: &'s Value, path: &str, blocks: &mut Vec<Block<'s>>) -> String {
        match name {
            "string" => "text".to_owned(),
            "boolean" => "`true` or `false`".to_owned(),
            "integer" | "number" => number(name, schema),
            "array" => match schema.get("items") {
                None => "a list".to_owned(),
                Some(items) => match &*self.form(items, &format!("{path}[]"), blocks) {
                    "text" => "a list of texts".to_owned(),
                    form if form.starts_with("[a mapping]") || form.starts_with("[one of these]") => {
                        format!("a list, each item {form}")
                    }
                    form => format!("a list, each item: {form}"),
                },
            },
            "object" => {
                let pattern =
                    schema.get("patternProperties").and_then(Value::as_object).and_then(|all| all.values().next());
                match pattern.or_else(|| schema.get("additionalProperties")).filter(|values| values.is_object()) {
                    None => "a mapping".to_owned(),
                    Some(values) => {
                        format!("a mapping of names to {}", self.form(values, &format!("{path}.<name>"), blocks))
                    }
                }
            }
            other => other.to_owned(),
        }
    }

    /// A link to a block's section, which will be written unless it is.
    fn link(&mut self, name: Option<&'s str>, path: &str, schema: &'s Value, blocks: &mut Vec<Block<'s>>) -> String {
        let word = if schema.get("properties").is_some() { "a mapping" } else { "one of these" };
        let known = name.and_then(|name| self.anchors.get(name)).cloned();
        let anchor = known.unwrap_or_else(|| {
            let anchor = self.anchor(path);
            if let Some(name) = name {
                self.anchors.insert(name, anchor.clone());
            }
            blocks.push(Block { path: path.to_owned(), schema });
            anchor
        });
        format!("[{word}](#{anchor})")
    }

    /// The name that the common Markdown pages give a heading.
    fn anchor(&mut self, heading: &str) -> String {
        let plain: String =
            heading.to_lowercase().chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect();
        let again = (1..).map(|n| format!("{plain}-{n}"));
        let anchor = std::iter::once(plain.clone()).chain(again).find(|name| !self.taken.contains(name));
        let anchor = anchor.expect("there is always a further number");
        self.taken.insert(anchor.clone());
        anchor
    }

    /// The schema that a `$ref` names, also when it may be left out.
    fn named(&self, schema: &'s Value) -> Option<(&'s str, &'s Value)> {
        let schema = match choices(schema) {
            Some([some, none]) if none.get("type").is_some_and(|name| name == "null") => some,
            _ => schema,
        };
        let name = text_of(schema, "$ref")?.strip_prefix("#/$defs/")?;
        self.defs?.get(name).map(|named| (name, named))
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail, here and elsewhere.
        let _ = write!(self.text, "{line}\n\n");
    }

    fn item(&mut self, head: std::fmt::Arguments<'_>, about: Option<&str>) {
        self.line(format_args!("- {head}"));
        if let Some(about) = about {
            self.line(format_args!("  {}", indented(about, "  ")));
        }
    }
}

/// Whether a schema gets a section: it has keys, or kinds with keys.
fn is_block(schema: &Value) -> bool {
    let has_keys = |schema: &Value| schema.get("properties").is_some();
    has_keys(schema) || choices(schema).is_some_and(|kinds| kinds.iter().any(has_keys))
}

/// Whether a form is a mapping of several keys, and not the one key that names a kind of an enum.
fn is_full_form(kind: &Value) -> bool {
    kind.get("properties").and_then(Value::as_object).is_some_and(|keys| keys.len() > 1)
}

/// Whether a schema's description says how it is written: `a duration`.
fn is_phrase(schema: &Value) -> bool {
    text_of(schema, "description").is_some_and(|about| about.starts_with("a ") || about.starts_with("an "))
}

fn choices(schema: &Value) -> Option<&[Value]> {
    schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Value::as_array).map(Vec::as_slice)
}

fn text_of<'s>(schema: &'s Value, key: &str) -> Option<&'s str> {
    schema.get(key).and_then(Value::as_str)
}

fn any_of(forms: &[String]) -> String {
    match forms {
        [] => "nothing".to_owned(),
        [form] => form.clone(),
        // A comma more, where a form has some of its own.
        [forms @ .., last] if forms.len() > 1 || [&forms[0], last].iter().any(|form| form.contains(", ")) => {
            format!("{}, or {last}", forms.join(", "))
        }
        [forms @ .., last] => format!("{} or {last}", forms.join(", ")),
    }
}

fn number(name: &str, schema: &Value) -> String {
    let word = if name == "integer" { "a whole number" } else { "a number" };
    let bound = |key| schema.get(key).and_then(written);
    match (bound("minimum"), bound("maximum")) {
        (Some(least), Some(most)) => format!("{word} from {least} to {most}"),
        (Some(least), None) => format!("{word} from {least}"),
        (None, Some(most)) => format!("{word} up to {most}"),
        (None, None) => word.to_owned(),
    }
}

/// A default or an example as one would write it; `None` for what says nothing, or too much for a line.
fn written(value: &Value) -> Option<String> {
    const MOST: usize = 80;
    let text = match value {
        Value::Null => return None,
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => return None,
        Value::Object(keys) if keys.is_empty() => return None,
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        other => flow(other),
    };
    (!text.is_empty() && text.len() <= MOST && !text.contains(['`', '\n'])).then_some(text)
}

/// A value in YAML's flow style.
fn flow(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Object(keys) => {
            let keys = keys.iter().map(|(key, value)| format!("{key}: {}", flow(value)));
            format!("{{ {} }}", keys.collect::<Vec<_>>().join(", "))
        }
        Value::String(text)
            if !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"./_-".contains(&b)) =>
        {
            text.clone()
        }
        other => other.to_string(),
    }
}

fn indented(text: &str, margin: &str) -> String {
    let lines = text.lines().enumerate().map(|(number, line)| match (number, line) {
        (0, line) | (_, line @ "") => line.to_owned(),
        (_, line) => format!("{margin}{line}"),
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::sample::Sample;

    fn page() -> String {
        markdown(schemars::schema_for!(Sample).as_value())
    }

    #[test]
    fn a_key_is_told_with_its_form_default_and_description() {
        for told in [
            "# Configuration\n\nA gateway in one file.\n\n- `",
            "- `runtime`: [a mapping](#runtime).\n\n  Settings of the process.\n\n",
            "- `drain`: a duration, as in `1m 30s`. Default: `30s`.\n\n  How long connections may finish.\n\n",
            "- `threads`: a whole number from 0 to 65535.\n",
            "- `work_stealing`: `true` or `false`. Default: `false`.\n",
            "- `status`: a whole number from 0 to 65535. Required.\n",
            "- `errors`: a mapping of names to text.\n",
            "Example: `10.0.0.0/8`.\n",
        ] {
            assert!(page().contains(told), "{told}: {}", page());
        }
    }

    #[test]
    fn short_forms_and_kinds_are_told_as_choices() {
        for told in [
            "- `allow`: a network or an address, as in `10.0.0.0/8`, or a list of such.\n",
            "- `proxy`: text, a list of such, or [a mapping](#upstreamsname).\n\n  The upstream.\n\n  \
             Examples: `127.0.0.1:3000`, `[\"10.0.0.1:80\", \"10.0.0.2:80\"]`.\n",
            "- `filters`: a list, each item [one of these](#sitesfilters).\n",
            "One of:\n\n- `ip_rules`: [a mapping](#sitesfiltersip_rules).\n\n  Lets clients in, or keeps them out, by address.\n\n- ",
            "- `request_id`\n\n  Gives each request an id.\n",
        ] {
            assert!(page().contains(told), "{told}: {}", page());
        }
    }

    #[test]
    fn the_keys_of_a_full_form_are_told_like_any_others() {
        let page = markdown(&json!({
            "properties": { "listen": { "$ref": "#/$defs/Listener" }, "value": { "$ref": "#/$defs/Value" } },
            "$defs": {
                "Listener": { "anyOf": [
                    { "type": "string" },
                    { "type": "array", "items": { "type": "string" } },
                    {
                        "description": "One listener.",
                        "properties": {
                            "address": { "type": "string", "description": "Where." },
                            "http2": { "type": "boolean", "default": true, "description": "Whether." },
                        },
                        "required": ["address"],
                    },
                ] },
                "Value": { "anyOf": [
                    { "type": "string" },
                    { "properties": { "prefix": { "type": "string", "description": "How it begins." } } },
                ] },
            },
        }));
        for told in [
            "## `listen`\n\nIn short: text or a list of texts. In full, a mapping:\n\n- `address`: text. Required.\n\n  Where.\n\n\
             - `http2`: `true` or `false`. Default: `true`.\n\n  Whether.\n",
            "One of:\n\n- text\n\n- `prefix`: text.\n\n  How it begins.\n",
        ] {
            assert!(page.contains(told), "{told}: {page}");
        }
    }

    #[test]
    fn each_block_has_one_section_and_each_link_leads_to_one() {
        let page = page();
        let mut headings: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("## `")).collect();
        assert_eq!(headings[..2], ["runtime`", "upstreams.<name>`"]);
        let anchors: Vec<String> =
            headings.iter().map(|h| h.replace(|c: char| !c.is_alphanumeric() && c != '_', "")).collect();
        let links: Vec<&str> = page.split("](#").skip(1).filter_map(|rest| rest.split(')').next()).collect();
        assert!(links.len() > anchors.len());
        links.iter().for_each(|link| assert!(anchors.iter().any(|anchor| anchor == link), "{link}"));
        headings.sort_unstable();
        headings.dedup();
        assert_eq!(headings.len(), anchors.len());
    }

    #[test]
    fn any_schema_has_a_page() {
        let again = json!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "$ref": "#/$defs/A" } }] });
        let level = json!({ "oneOf": [
            { "type": "string", "const": "low", "description": "Little.\nVery." },
            { "type": "string", "enum": ["mid", "high"] },
        ] });
        let keys = json!({
            "not": { "$ref": "#/$defs/Match" },
            "again": { "$ref": "#/$defs/A" },
            "level": { "$ref": "#/$defs/Level", "default": "low" },
            "any": true,
            "odd": { "$ref": "#/nowhere" },
            "inline": { "type": "object", "properties": { "x": { "type": "number", "minimum": 0.5 } }, "default": { "x": 1 } },
            "many": { "type": ["integer", "boolean", "null"], "maximum": 9 },
        });
        let page = markdown(&json!({
            "type": "object",
            "properties": { "match": { "$ref": "#/$defs/Match" } },
            "$defs": { "A": again, "Level": level, "Match": { "type": "object", "properties": keys } },
        }));
        for told in [
            "- `not`: [a mapping](#match).",
            "- `again`: text, or a list, each item: the same again.",
            "- `level`: `low` or `mid` or `high`. Default: `low`.\n\n  - `low`: Little.\n    Very.\n\n",
            "- `any`: any value.",
            "- `odd`: any value.",
            "- `inline`: [a mapping](#matchinline). Default: `{ x: 1 }`.",
            "- `x`: a number from 0.5.",
            "- `many`: a whole number up to 9 or `true` or `false`.",
        ] {
            assert!(page.contains(told), "{told}: {page}");
        }
        for odd in [json!(null), json!(true), json!({ "properties": 7 }), json!({ "oneOf": [] })] {
            assert!(markdown(&odd).starts_with("# Configuration"));
        }
    }
}
