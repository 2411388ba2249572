//! A list of servers as text, YAML or JSON: what `servers` of an upstream holds, in a file or in an answer of its own.
//!
//! It is taken as a whole or not at all. A list that is empty is taken for a fault: whatever writes it has lost its view
//! of the servers more likely than all of them have gone.

use std::fmt;

use serde::Deserialize;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserializer, SeqAccess, Visitor};

use crate::diag::locate::{Lines, Outline};
use crate::diag::{Issue, Issues};
use crate::upstream::server::{self, Server};

/// A longer text is surely no list of servers: 4 MiB are about 100,000 of them.
pub const LARGEST: usize = 4 << 20;

/// The servers of a list, at least one; or what is wrong, with its line. JSON is YAML, too.
pub fn parse(text: &str) -> Result<Vec<Server>, String> {
    let List(servers) = serde_yaml::from_str(text).map_err(|fault| unreadable(&fault))?;
    let faults = faults(&servers);
    let Some(first) = faults.first() else { return Ok(servers) };
    let spot = Outline::of(text).find(&first.path, first.place);
    let (line, _) = Lines::of(text).position(spot.start);
    Err(format!("line {line}: {}", sentence(first, faults.len())))
}

/// Whether an upstream could have these servers; else what is wrong with them.
pub fn check(servers: &[Server]) -> Result<(), String> {
    let faults = faults(servers);
    faults.first().map_or(Ok(()), |first| Err(sentence(first, faults.len())))
}

fn faults(servers: &[Server]) -> Vec<Issue> {
    let issues = Issues::default();
    if servers.is_empty() {
        issues.root().error_hint("the list has no servers", "list at least one");
    }
    server::addresses(servers, false, &issues.root());
    issues.into_vec()
}

/// The first fault as a clause, and how many there are beside it.
fn sentence(first: &Issue, faults: usize) -> String {
    let hint = first.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
    let more = if faults > 1 { format!(" (and {} more)", faults - 1) } else { String::new() };
    format!("{}{hint}{more}", first.message)
}

fn unreadable(fault: &serde_yaml::Error) -> String {
    let said = fault.to_string();
    let said = said.split(" at line ").next().unwrap_or_default();
    let said = name_server(said).unwrap_or_else(|| said.to_owned());
    match fault.location() {
        Some(place) => format!("line {}: {said}", place.line()),
        None => said,
    }
}

/// `.[1].weight: invalid` as `server 2: weight: invalid`: a list may well stand in one line.
fn name_server(said: &str) -> Option<String> {
    let (index, rest) = said.strip_prefix(".[").or_else(|| said.strip_prefix('['))?.split_once(']')?;
    let rest = rest.trim_start_matches(['.', ':', ' ']);
    Some(format!("server {}: {rest}", index.parse::<usize>().ok()? + 1))
}

struct List(Vec<Server>);

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Servers;
        impl<'de> Visitor<'de> for Servers {
            type Value = List;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of servers, as in `[10.0.0.1:8080]`")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<List, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(items)).map(List)
            }
        }
        deserializer.deserialize_any(Servers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_yaml_or_json_in_the_forms_of_servers() {
        for text in [
            "- 10.0.0.1:80\n- { address: app.internal:80, weight: 3 }\n",
            "# by hand\n[10.0.0.1:80, {address: 'app.internal:80', weight: 3}]",
            r#"["10.0.0.1:80", {"address": "app.internal:80", "weight": 3}]"#,
            "[\n\t\"10.0.0.1:80\",\r\n\t{\"address\":\"app.internal:80\",\"weight\":3}\r\n]\r\n",
        ] {
            let servers = parse(text).unwrap();
            let told: Vec<_> = servers.iter().map(|s| (s.settings.address.as_str(), s.settings.weight)).collect();
            assert_eq!(told, [("10.0.0.1:80", 1), ("app.internal:80", 3)], "{text}");
        }
        assert_eq!(parse(r#"["unix:\/run\/a.sock"]"#).unwrap()[0].settings.address, "unix:/run/a.sock");
    }

    #[test]
    fn a_list_with_one_fault_is_refused_as_a_whole_and_names_the_line() {
        for (text, fault) in [
            ("", "a list of servers"),
            ("# nothing\n", "a list of servers"),
            ("[]", "the list has no servers"),
            ("servers: [10.0.0.1:80]", "line 1: invalid type: map, expected a list of servers"),
            ("10.0.0.1:80", "a list of servers"),
            ("- 10.0.0.1:80\n- app\n", "line 2: `app` has no port; write the port too, as in `app:80`"),
            ("- 10.0.0.1:80\n- address: 10.0.0.2\n  weight: 2\n", "line 2: `10.0.0.2` has no port"),
            ("- 10.0.0.1:80\n\n- 10.0.0.1:80\n", "line 3: `10.0.0.1:80` is here twice"),
            ("- 10.0.0.1:80\n- { address: 10.0.0.2:80, weigth: 2 }\n", "line 2: server 2: unknown field `weigth`"),
            ("- { address: 10.0.0.1:80, weight: -1 }\n", "line 1: server 1: weight: invalid"),
            ("- { address: 10.0.0.1:80, weight: 0 }\n", "line 1: a weight of 0 everywhere"),
            (
                "- a:0\n- b\n- c:1\n",
                "line 1: port 0 in `a:0` can never be connected to; write the port of the server (and 1 more)",
            ),
            ("- 10.0.0.1:80\n- 10.0.0", "line 2: `10.0.0` has no port"),
            ("[10.0.0.1:80, 10.0.0.2", "expected ',' or ']'"),
            ("- 10.0.0.1:80\n- \"10.0.", "line"),
        ] {
            let told = parse(text).unwrap_err();
            assert!(told.contains(fault), "{text:?}: {told}");
        }
    }
}
