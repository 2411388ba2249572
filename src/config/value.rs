//! From YAML values to the document's types: a serde deserializer that knows the place of every fault.
//!
//! It reads a document as people mean it: an enum is `kind: {…}` or, when the kind has no settings, just `kind`; text
//! will do for a number (it may come from `${ENV}`), and a number for text (`body: 42`).
//!
//! serde stops at the first fault. To tell all of them, [`from_value`] starts again, passing over what is known to be
//! wrong, as long as it finds something new.

use std::borrow::Cow;

use serde::de::{
    DeserializeOwned, DeserializeSeed, EnumAccess, Error, MapAccess, SeqAccess, Unexpected, VariantAccess,
};
use serde::de::{Deserializer, Visitor};
use serde_yaml::{Mapping, Number, Value};

use super::fault::{Fault, Passed, listed, short};
use crate::diag::{Issue, Step};

/// How deep lists and mappings may lie in one another. Documents need about ten; the stack has room for a lot more.
const DEEPEST: usize = 64;
/// After this many faults it is better to mend than to read on.
const MOST_FAULTS: usize = 30;

/// The value as a `T`, or all that is wrong with it: at least one fault.
pub fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, Vec<Issue>> {
    let mut passed = Passed::default();
    let mut issues: Vec<Issue> = Vec::new();
    loop {
        let fault = match T::deserialize(Node { value, passed: Some(&passed), depth: 0 }) {
            Ok(built) if issues.is_empty() => return Ok(built),
            Ok(_) => return Err(issues),
            Err(fault) => fault.into_issue(),
        };
        let path = fault.path.clone();
        // A block may well be wrong without the entry that was passed over: that is no fault of the document.
        if !passed.any_within(&path) {
            issues.push(fault);
        }
        if issues.len() >= MOST_FAULTS || !passed.add(&path) {
            return Err(issues);
        }
    }
}

/// One value, ready to become a type.
#[derive(Clone, Copy)]
struct Node<'v> {
    value: &'v Value,
    passed: Option<&'v Passed>,
    depth: usize,
}

/// A scalar key or value as text: `404`, `true`.
pub(super) fn scalar_text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Bool(truth) => Some(Cow::Borrowed(if *truth { "true" } else { "false" })),
        _ => None,
    }
}

impl<'v> Node<'v> {
    fn found(self) -> Unexpected<'v> {
        match self.value {
            Value::Null => Unexpected::Unit,
            Value::Bool(truth) => Unexpected::Bool(*truth),
            Value::Number(number) => {
                let whole =
                    number.as_u64().map(Unexpected::Unsigned).or_else(|| number.as_i64().map(Unexpected::Signed));
                whole.unwrap_or_else(|| Unexpected::Float(number.as_f64().unwrap_or_default()))
            }
            Value::String(text) => Unexpected::Str(text),
            Value::Sequence(_) => Unexpected::Seq,
            Value::Mapping(_) => Unexpected::Map,
            Value::Tagged(_) => Unexpected::Other("a YAML tag"),
        }
    }

    /// The value below an entry of this one; `None` when that entry is to be passed over.
    fn child(self, value: &'v Value, step: &Step) -> Option<Self> {
        let passed = self.passed.and_then(|passed| passed.at(step));
        if passed.is_some_and(|passed| passed.here) {
            return None;
        }
        Some(Self { value, passed, depth: self.depth + 1 })
    }

    fn check_depth(self) -> Result<(), Fault> {
        if self.depth < DEEPEST {
            return Ok(());
        }
        let hint = "a document needs about ten levels; look for a bracket too many, or an alias within its own anchor";
        Err(Fault::new(format!("more than {DEEPEST} levels lie in one another here"), Some(hint.to_owned())))
    }

    fn list<'de, V: Visitor<'de>>(self, items: &'v [Value], visitor: V) -> Result<V::Value, Fault> {
        self.check_depth()?;
        let mut rest = Items { node: self, items, next: 0 };
        let built = visitor.visit_seq(&mut rest)?;
        match rest.take() {
            None => Ok(built),
            Some((index, _)) => {
                Err(Fault::new("the list has more items than are known here", None).within(Step::Index(index)))
            }
        }
    }

    fn mapping<'de, V: Visitor<'de>>(self, mapping: &'v Mapping, visitor: V) -> Result<V::Value, Fault> {
        self.check_depth()?;
        let mut rest = self.entries(mapping);
        let built = visitor.visit_map(&mut rest)?;
        match rest.take()? {
            None => Ok(built),
            Some((key, _)) => Err(one_kind(&key)),
        }
    }

    fn entries(self, mapping: &'v Mapping) -> Entries<'v> {
        Entries { node: self, entries: mapping.iter(), value: None }
    }

    fn number<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::Number(number) => visit_number(number, visitor),
            Value::String(text) => match text.trim().parse::<Number>() {
                Ok(number) => visit_number(&number, visitor),
                Err(_) => Err(Fault::invalid_type(self.found(), &visitor)),
            },
            _ => Err(Fault::invalid_type(self.found(), &visitor)),
        }
    }

    fn text<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match scalar_text(self.value) {
            Some(text) => visitor.visit_str(&text),
            None => Err(Fault::invalid_type(self.found(), &visitor)),
        }
    }
}

/// A mapping that stands for one of several kinds has a key too many.
fn one_kind(key: &str) -> Fault {
    let hint = "keep one of the keys here; in a list, begin a new item for the other";
    Fault::new(format!("only one key can stand here, `{}` is another", short(key)), Some(hint.to_owned())).of_key(key)
}

fn visit_number<'de, V: Visitor<'de>>(number: &Number, visitor: V) -> Result<V::Value, Fault> {
    if let Some(whole) = number.as_u64() {
        visitor.visit_u64(whole)
    } else if let Some(whole) = number.as_i64() {
        visitor.visit_i64(whole)
    } else {
        visitor.visit_f64(number.as_f64().unwrap_or_default())
    }
}

macro_rules! numbers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            self.number(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Node<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(truth) => visitor.visit_bool(*truth),
            Value::Number(number) => visit_number(number, visitor),
            Value::String(text) => visitor.visit_str(text),
            Value::Sequence(items) => self.list(items, visitor),
            Value::Mapping(mapping) => self.mapping(mapping, visitor),
            Value::Tagged(_) => Err(Fault::invalid_type(self.found(), &visitor)),
        }
    }

    numbers! {
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128 deserialize_f32 deserialize_f64
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match (self.value, scalar_text(self.value).as_deref()) {
            (Value::Bool(truth), _) => visitor.visit_bool(*truth),
            (Value::String(_), Some("true")) => visitor.visit_bool(true),
            (Value::String(_), Some("false")) => visitor.visit_bool(false),
            _ => Err(Fault::invalid_type(self.found(), &visitor)),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.text(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.text(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.text(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.text(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            _ => Err(Fault::invalid_type(self.found(), &visitor)),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::Sequence(items) => self.list(items, visitor),
            _ => Err(Fault::invalid_type(self.found(), &visitor)),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::Mapping(mapping) => self.mapping(mapping, visitor),
            _ => Err(Fault::invalid_type(self.found(), &visitor)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let one_of = || format!("one of {}", listed(known));
        if let Some(name) = scalar_text(self.value) {
            return visitor.visit_enum(Kind { name, content: None, known });
        }
        let Value::Mapping(mapping) = self.value else {
            return Err(Fault::invalid_type(self.found(), &&*one_of()));
        };
        self.check_depth()?;
        let mut entries = self.entries(mapping);
        let Some((name, content)) = entries.take()? else {
            return Err(Fault::new("the mapping is empty", Some(format!("write {}", one_of()))));
        };
        if let Some((another, _)) = entries.take()? {
            // Of two keys, the one that is unknown is surely the wrong one.
            let unknown = [&name, &another].into_iter().find(|key| !known.contains(&&***key));
            return Err(match unknown {
                Some(key) => Fault::unknown_field(key, known).of_key(key),
                None => one_kind(&another),
            });
        }
        visitor.visit_enum(Kind { name, content: Some(content), known })
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.text(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.text(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }
}

struct Items<'v> {
    node: Node<'v>,
    items: &'v [Value],
    next: usize,
}

impl<'v> Items<'v> {
    fn take(&mut self) -> Option<(usize, Node<'v>)> {
        loop {
            let index = self.next;
            let item = self.items.get(index)?;
            self.next += 1;
            if let Some(child) = self.node.child(item, &Step::Index(index)) {
                return Some((index, child));
            }
        }
    }
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let Some((index, item)) = self.take() else { return Ok(None) };
        seed.deserialize(item).map(Some).map_err(|fault| fault.within(Step::Index(index)))
    }

    /// At most so many: a list gets the room that it needs, not the next power of two, which counts in large documents.
    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len() - self.next.min(self.items.len()))
    }
}

struct Entries<'v> {
    node: Node<'v>,
    entries: serde_yaml::mapping::Iter<'v>,
    /// The value whose key has been told.
    value: Option<(Cow<'v, str>, Node<'v>)>,
}

impl<'v> Entries<'v> {
    fn take(&mut self) -> Result<Option<(Cow<'v, str>, Node<'v>)>, Fault> {
        for (key, value) in self.entries.by_ref() {
            let Some(key) = scalar_text(key) else {
                return Err(Fault::new("a key must be text here", Some("write `key: value`".to_owned())));
            };
            if let Some(child) = self.node.child(value, &Step::Key((&*key).into())) {
                return Ok(Some((key, child)));
            }
        }
        Ok(None)
    }
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let Some((key, value)) = self.take()? else { return Ok(None) };
        let text = Value::String(key.to_string());
        let told = seed.deserialize(Node { value: &text, passed: None, depth: 0 });
        let told = told.map_err(|fault| fault.of_key(&key))?;
        self.value = Some((key, value));
        Ok(Some(told))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let (key, value) = self.value.take().expect("serde asks for a value only after its key");
        seed.deserialize(value).map_err(|fault| fault.within(Step::Key((&*key).into())))
    }
}

/// One kind of an enum: its name and, when written as a mapping, its settings.
struct Kind<'v> {
    name: Cow<'v, str>,
    content: Option<Node<'v>>,
    known: &'static [&'static str],
}

impl Kind<'_> {
    /// Reads the settings.
    fn content<T>(self, read: impl FnOnce(Node<'_>) -> Result<T, Fault>) -> Result<T, Fault> {
        let Some(content) = self.content else {
            let name = self.name;
            return Err(Fault::new(format!("`{name}` needs settings"), Some(format!("write `{name}: …`"))));
        };
        read(content).map_err(|fault| fault.within(Step::Key((&*self.name).into())))
    }
}

impl<'de> EnumAccess<'de> for Kind<'_> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Fault> {
        let name = Value::String(self.name.to_string());
        let told = match (&self.content, self.known.contains(&&*self.name)) {
            (Some(_), false) => Err(Fault::unknown_field(&self.name, self.known)),
            _ => seed.deserialize(Node { value: &name, passed: None, depth: 0 }),
        };
        match told {
            Ok(told) => Ok((told, self)),
            Err(fault) if self.content.is_some() => Err(fault.of_key(&self.name)),
            Err(fault) => Err(fault),
        }
    }
}

impl<'de> VariantAccess<'de> for Kind<'_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        let name = self.name.clone();
        match self.content.map(|content| content.value) {
            None | Some(Value::Null) => Ok(()),
            Some(Value::Mapping(mapping)) if mapping.is_empty() => Ok(()),
            Some(_) => self.content(|_| {
                Err(Fault::new(format!("`{name}` has no settings"), Some(format!("write just `{name}`"))))
            }),
        }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Fault> {
        self.content(|content| seed.deserialize(content))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.content(|content| content.deserialize_seq(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        self.content(|content| content.deserialize_map(visitor))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::sample::{Balance, Filter, Sample};
    use crate::diag::Place;

    fn read(text: &str) -> Result<Sample, Vec<Issue>> {
        from_value(&serde_yaml::from_str(text).unwrap())
    }

    /// Each fault as `path: message | hint`, a fault of a key with `@` before the path.
    fn faults(text: &str) -> Vec<String> {
        let told = read(text).expect_err(text).into_iter().map(|issue| {
            let at = if issue.place == Place::Key { "@" } else { "" };
            let hint = issue.hint.map(|hint| format!(" | {hint}")).unwrap_or_default();
            format!("{at}{}: {}{hint}", issue.path, issue.message)
        });
        told.collect()
    }

    #[test]
    fn a_document_becomes_its_types() {
        let text = "\
runtime: { threads: 4, work_stealing: true, drain: 1m }
listeners: ':80'
upstreams:
  a: { servers: [x:1], balance: { hash: { key: 7 } } }
  b: { servers: [x:1], balance: least_requests }
  c: { servers: [x:1], balance: { round_robin: } }
  404: [y:2, z:3]
sites:
  - filters: [request_id, { headers: { X-A: 1, X-B: true, X-C: 0.5 } }, { ip_rules: { allow: 10.0.0.0/8 } }]
    errors: { 502: /a, '503': /b }
    proxy: x:1
    respond: ~
";
        let sample = read(text).unwrap();
        assert_eq!(sample.runtime.threads, Some(4));
        assert_eq!(sample.listeners[0], ":80");
        assert_eq!(sample.upstreams["b"].0.balance, Balance::LeastRequests);
        assert_eq!(sample.upstreams["c"].0.balance, Balance::RoundRobin);
        assert!(matches!(&sample.upstreams["a"].0.balance, Balance::Hash(hash) if hash.key == "7"));
        assert_eq!(sample.upstreams["404"].0.servers, ["y:2", "z:3"]);
        let Filter::Headers(headers) = &sample.sites[0].filters[1] else { panic!("{sample:?}") };
        assert_eq!(headers.values().collect::<Vec<_>>(), ["1", "true", "0.5"]);
        assert_eq!(sample.sites[0].errors[&503], "/b");
        assert!(sample.sites[0].respond.is_none());
    }

    #[test]
    fn text_from_the_environment_will_do_for_numbers_and_truths() {
        let sample = read("runtime: { threads: '8', work_stealing: 'true' }").unwrap();
        assert_eq!((sample.runtime.threads, sample.runtime.work_stealing), (Some(8), true));
        assert_eq!(
            faults("runtime: { threads: eight, work_stealing: 'yes' }"),
            [
                "runtime.threads: expected a whole number from 0 to 65535, found the text `eight`",
                "runtime.work_stealing: expected `true` or `false`, found the text `yes`",
            ]
        );
    }

    #[test]
    fn a_fault_keeps_its_place_whatever_form_it_stands_in() {
        for (text, told) in [
            ("listener: [':80']", "@listener: unknown key `listener` | did you mean `listeners`?"),
            ("cache: 1", "@cache: unknown key `cache` | known keys here: `runtime`, `listeners`, `upstreams`, `sites`"),
            (
                "upstreams: { a: { servers: [x], wait: 1 } }",
                "@upstreams.a.wait: unknown key `wait` | known keys here: `servers`, `balance`",
            ),
            (
                "upstreams: { a: { balance: round_robin } }",
                "upstreams.a: the key `servers` is missing | add `servers: …`",
            ),
            ("upstreams: { a: host }", "upstreams.a: `host` has no port | write `host:port`"),
            ("upstreams: { a: [x:1, {}] }", "upstreams.a[1]: expected text, found a mapping"),
            (
                "upstreams: { a: 7 }",
                "upstreams.a: expected an address, a list of addresses, or a mapping with `servers`, found the number `7`",
            ),
            (
                "upstreams: { a: { servers: [], balance: { hash: { kex: 1 } } } }",
                "@upstreams.a.balance.hash.kex: unknown key `kex` | did you mean `key`?",
            ),
            (
                "upstreams: { a: { servers: [], balance: rond_robin } }",
                "upstreams.a.balance: `rond_robin` is unknown here | did you mean `round_robin`?",
            ),
            (
                "upstreams: { a: { servers: [], balance: hash } }",
                "upstreams.a.balance: `hash` needs settings | write `hash: …`",
            ),
            (
                "upstreams: { a: { servers: [], balance: { least_requests: { x: 1 } } } }",
                "upstreams.a.balance.least_requests: `least_requests` has no settings | write just `least_requests`",
            ),
            (
                "sites: [{ filters: [{ ip_rules: { allow: [10.0.0.0/8, 10.0.0.1/8] } }] }]",
                "sites[0].filters[0].ip_rules.allow[1]: `10.0.0.1/8` has bits set to the right of its prefix | the network is `10.0.0.0/8`",
            ),
            (
                "sites: [{ filters: [{ ip_rules: { allow: all } }] }]",
                "sites[0].filters[0].ip_rules.allow: `all` is no network | write an address or a prefix, as in `10.0.0.0/8`",
            ),
            (
                "sites: [{ errors: { 5xx: /a } }]",
                "@sites[0].errors.5xx: expected a whole number from 0 to 65535, found the text `5xx`",
            ),
            (
                "sites: [{ errors: { 99999: /a } }]",
                "@sites[0].errors.99999: expected a whole number from 0 to 65535, found the number `99999`",
            ),
            (
                "runtime: { drain: 5 }",
                "runtime.drain: `5` is no duration | write a number with a unit (ms, s, m, h, d), as in `1m 30s`",
            ),
            ("runtime: { drain: -5 }", "runtime.drain: expected a duration, as in `1m 30s`, found the number `-5`"),
            (
                "sites: {}",
                "sites: expected a list, found a mapping | write `[…]`, or each item on its own line behind `- `",
            ),
            (
                "sites: [a]",
                "sites[0]: expected a mapping, found the text `a` | write `{ key: value }`, or each `key: value` on its own line",
            ),
        ] {
            assert_eq!(faults(text), [told], "{text}");
        }
    }

    #[test]
    fn nothing_where_something_is_meant_is_a_fault() {
        for (text, told) in [
            ("runtime:", "runtime: the value is empty | write a mapping, or leave the key out"),
            ("upstreams:", "upstreams: the value is empty | write a mapping, or leave the key out"),
            ("sites:", "sites: the value is empty | write a list, or leave the key out"),
            (
                "sites: [{ respond: { status: } }]",
                "sites[0].respond.status: the value is empty | write a whole number from 0 to 65535, or leave the key out",
            ),
            (
                "sites: [{ respond: { status: 1, body: } }]",
                "sites[0].respond.body: the value is empty | write text, or leave the key out",
            ),
            (
                "sites: [{ filters: [ip_rules: ] }]",
                "sites[0].filters[0].ip_rules: the value is empty | write a mapping, or leave the key out",
            ),
            (
                "sites: [{ filters: [ ~ ] }]",
                "sites[0].filters[0]: the value is empty | write one of `ip_rules`, `headers`, `request_id`, or leave the key out",
            ),
        ] {
            assert_eq!(faults(text), [told], "{text}");
        }
    }

    #[test]
    fn an_enum_is_one_key() {
        for (filter, told) in [
            ("{}", "sites[0].filters[0]: the mapping is empty | write one of `ip_rules`, `headers`, `request_id`"),
            ("{ ip_rule: {} }", "@sites[0].filters[0].ip_rule: unknown key `ip_rule` | did you mean `ip_rules`?"),
            (
                "{ ip_rules: {}, name: x }",
                "@sites[0].filters[0].name: unknown key `name` | known keys here: `ip_rules`, `headers`, `request_id`",
            ),
            (
                "{ ip_rules: {}, headers: {} }",
                "@sites[0].filters[0].headers: only one key can stand here, `headers` is another | keep one of the keys here; in a list, begin a new item for the other",
            ),
            ("[a]", "sites[0].filters[0]: expected one of `ip_rules`, `headers`, `request_id`, found a list"),
            ("7", "sites[0].filters[0]: `7` is unknown here | known here: `ip_rules`, `headers`, `request_id`"),
        ] {
            assert_eq!(faults(&format!("sites: [{{ filters: [{filter}] }}]")), [told], "{filter}");
        }
    }

    #[test]
    fn all_faults_are_told_at_once_and_none_follows_from_another() {
        let text = "\
runtime: { threads: x, drain: 5, wait: 1 }
upstreams: { a: { servers: 7 }, b: host }
sites:
  - filters: [{ ip_rules: { allow: bad } }, { headers: { X-A: [] } }, { unknown: {} }]
  - respond: { status: x }
other: 1
";
        let paths: Vec<_> = read(text).unwrap_err().iter().map(|issue| issue.path.to_string()).collect();
        let expected = [
            "runtime.threads",
            "runtime.drain",
            "runtime.wait",
            "upstreams.a.servers",
            "upstreams.b",
            "sites[0].filters[0].ip_rules.allow",
            "sites[0].filters[1].headers.X-A",
            "sites[0].filters[2].unknown",
            "sites[1].respond.status",
            "other",
        ];
        assert_eq!(paths, expected);
    }

    #[test]
    fn faults_are_told_up_to_a_bound() {
        let text: String = (0..100).map(|n| format!("key{n}: 1\n")).collect();
        assert_eq!(faults(&text).len(), MOST_FAULTS);
    }

    #[test]
    fn deep_nesting_is_a_fault() {
        // Boxed, it could nest without end.
        #[derive(Debug, serde::Deserialize)]
        struct Nested(#[expect(dead_code, reason = "only read")] Vec<Self>);
        let deep = |levels| (0..levels).fold(Value::Sequence(Vec::new()), |inner, _| Value::Sequence(vec![inner]));
        assert!(from_value::<Nested>(&deep(DEEPEST - 1)).is_ok());
        let told = from_value::<Nested>(&deep(DEEPEST + 9)).unwrap_err();
        assert_eq!(told[0].message, "more than 64 levels lie in one another here");
        assert_eq!(told[0].path.0.len(), DEEPEST);
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let key =
            "runtime|threads|drain|upstreams|servers|balance|hash|key|sites|filters|ip_rules|allow|errors|502|[a-z]";
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "10.0.0.0/8|5s|request_id|[a-z0-9:]{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 40, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((key.prop_map(Value::from), inner), 0..5)
                    .prop_map(|entries| Value::Mapping(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_value_is_a_document_or_has_faults(value in any_value()) {
            if let Err(issues) = from_value::<Sample>(&value) {
                prop_assert!(!issues.is_empty() && issues.len() <= MOST_FAULTS);
            }
        }
    }
}
