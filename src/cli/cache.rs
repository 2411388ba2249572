//! `edgeway cache`: what a running gateway has stored, and purging it, through its admin address.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use serde_json::Value;

use super::admin::{ask, escaped};
use super::terminal::print;
use crate::config::process::Admin;

/// What to look at, and where.
#[derive(Args)]
pub(super) struct Request {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    at: Place,
}

/// What to purge, and where.
#[derive(Args)]
pub(super) struct PurgeRequest {
    #[command(flatten)]
    purge: Purge,
    #[command(flatten)]
    at: Place,
}

/// Which gateway is asked, of which cache, and how its answer is shown.
#[derive(Args)]
struct Place {
    /// The admin address of the gateway: an address with a port, or `unix:` and a path
    #[arg(long, global = true, default_value = Admin::DEFAULT)]
    admin: String,
    /// Only this cache; all of them otherwise
    #[arg(long, global = true)]
    cache: Option<String>,
    /// Print JSON, for programs
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// List what is stored
    Ls {
        /// Only what has a URL that begins so, with its scheme or without
        #[arg(default_value = "")]
        prefix: String,
        /// At most so many of each cache
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Tell how much is stored, and how often it was of use
    Stat,
    /// Tell all of a stored response, and of its variants
    Inspect {
        /// Its id, or its URL, with its scheme or without
        key: String,
    },
    /// Declare stored responses void, now and for good
    Purge(Purge),
}

#[derive(Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
struct Purge {
    /// This URL; without its scheme, whatever the scheme; may be repeated, as all of these
    #[arg(long, group = "what")]
    url: Vec<String>,
    /// All URLs that begin so
    #[arg(long, group = "what")]
    prefix: Vec<String>,
    /// All of this host
    #[arg(long, group = "what")]
    host: Vec<String>,
    /// All with this tag
    #[arg(long, group = "what")]
    tag: Vec<String>,
    /// All
    #[arg(long, group = "what")]
    all: bool,
    /// Only make them stale: they are confirmed before they are used again
    #[arg(long)]
    soft: bool,
}

pub(super) fn purge(request: &PurgeRequest) -> Result<(), String> {
    request.purge.run(&request.at)
}

pub(super) fn cache(request: &Request) -> Result<(), String> {
    let Request { command, at } = request;
    match command {
        Command::Ls { prefix, limit } => ls(at, prefix, *limit),
        Command::Stat => {
            let zones = zones(at)?;
            tell(at, &Value::Array(zones), stat)
        }
        Command::Inspect { key } => inspect(at, key),
        Command::Purge(purge) => purge.run(at),
    }
}

fn tell(at: &Place, value: &Value, people: impl FnOnce(&[Value]) -> String) -> Result<(), String> {
    print(&if at.json { format!("{value:#}\n") } else { people(array(value)) })
}

/// What the gateway answers with 200, and what it says otherwise.
fn asked(at: &Place, method: &str, target: &str) -> Result<Value, String> {
    let (status, body) = ask(&at.admin, method, target)?;
    let value: Option<Value> = serde_json::from_str(&body).ok();
    match value {
        Some(value) if status == 200 => Ok(value),
        Some(Value::Object(told)) if told.contains_key("error") => Err(format!("error: {}", text(&told["error"]))),
        _ => Err(format!("error: {} answers with status {status}: {}", at.admin, body.trim_end())),
    }
}

fn zones(at: &Place) -> Result<Vec<Value>, String> {
    let mut all = asked(at, "GET", "/cache")?;
    let Value::Array(mut zones) = all["zones"].take() else { return Err(format!("error: {all} names no caches")) };
    if let Some(only) = &at.cache {
        zones.retain(|zone| zone["name"] == **only);
        if zones.is_empty() {
            return Err(format!("error: no cache is named {only}"));
        }
    }
    Ok(zones)
}

fn ls(at: &Place, prefix: &str, limit: usize) -> Result<(), String> {
    let mut rows = Vec::new();
    let mut more = false;
    for zone in zones(at)? {
        let target = format!("/cache/{}?limit={limit}&prefix={}", escaped(text(&zone["name"])), escaped(prefix));
        let mut listed = asked(at, "GET", &target)?;
        more |= listed["more"] == true;
        if let Value::Array(objects) = listed["objects"].take() {
            rows.extend(objects);
        }
    }
    tell(at, &Value::Array(rows), |rows| {
        let head = ["ID", "STATUS", "STATE", "AGE", "TTL", "SIZE", "TIER", "URL"].map(str::to_owned);
        let row = |object: &Value| {
            [
                text(&object["id"]).to_owned(),
                object["status"].to_string(),
                text(&object["state"]).to_owned(),
                span(object["age"].as_f64().unwrap_or_default()),
                span(object["ttl"].as_f64().unwrap_or_default()),
                object["size"].as_u64().map_or_else(|| "-".to_owned(), size),
                text(&object["tier"]).to_owned(),
                shown(text(&object["url"])),
            ]
        };
        let mut told = table(std::iter::once(head).chain(rows.iter().map(row)).collect());
        if more {
            told += "and more: give a prefix, or a larger --limit\n";
        }
        told
    })
}

fn stat(zones: &[Value]) -> String {
    let head = ["CACHE", "TIER", "BYTES", "OF", "OBJECTS", "EVICTED", "HIT RATIO"].map(str::to_owned);
    let mut rows = vec![head];
    for zone in zones {
        let mut name = text(&zone["name"]).to_owned();
        let mut ratio =
            zone["hit_ratio"].as_f64().map_or_else(|| "-".to_owned(), |ratio| format!("{:.1} %", ratio * 100.0));
        for tier in ["memory", "disk"] {
            let about = &zone[tier];
            if about.is_null() {
                continue;
            }
            let bytes = |key: &str| size(about[key].as_u64().unwrap_or_default());
            let count = |key: &str| about[key].to_string();
            rows.push([
                std::mem::take(&mut name),
                tier.to_owned(),
                bytes("bytes"),
                bytes("limit"),
                count("objects"),
                count("evictions"),
                std::mem::take(&mut ratio),
            ]);
        }
    }
    table(rows)
}

fn inspect(at: &Place, key: &str) -> Result<(), String> {
    let mut found = Vec::new();
    for zone in zones(at)? {
        let target = format!("/cache/{}/{}", escaped(text(&zone["name"])), escaped(key));
        // 404: another cache may have it.
        let (status, body) = ask(&at.admin, "GET", &target)?;
        let objects: Option<Value> = serde_json::from_str(&body).ok().filter(|_| status == 200);
        if let Some(Value::Array(objects)) = objects.map(|mut told| told["objects"].take()) {
            found.extend(objects);
        }
    }
    if found.is_empty() {
        return Err(format!("error: nothing is stored under `{key}`"));
    }
    tell(at, &Value::Array(found), |found| found.iter().map(about).collect::<Vec<_>>().join("\n"))
}

/// All of an object, for people.
fn about(object: &Value) -> String {
    let seconds = |key: &str| object[key].as_f64().unwrap_or_default();
    let grace = |key: &str| object[key].as_f64().map_or_else(|| "not said".to_owned(), span);
    let yes = |key: &str| object[key] == true;
    let ago = |key: &str| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        format!("{} ago", span(now.as_secs_f64() - seconds(key)))
    };
    let ttl = seconds("ttl");
    let state = text(&object["state"]);
    let state = match state {
        "fresh" => format!("fresh for another {}", span(ttl)),
        "stale" => format!("stale for {}", span(-ttl)),
        state => state.to_owned(),
    };
    let mut told = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(told, "{name:<24}{value}");
    };
    line("url", &shown(text(&object["url"])));
    line("id", text(&object["id"]));
    line("state", &state);
    line("status", &object["status"].to_string());
    match text(&object["kind"]) {
        "whole" => {}
        "part" => line("part", &format!("from byte {}, of {}", object["part"]["start"], object["part"]["total"])),
        _ => line("kind", "names the request fields that tell its variants apart"),
    }
    line("body", &object["size"].as_u64().map_or_else(|| "not all there yet".to_owned(), size));
    line("lies in", text(&object["tier"]));
    line("asked for", &ago("asked"));
    line("arrived", &format!("{}, then of the age {}", ago("received"), span(seconds("initial_age"))));
    line("age", &span(seconds("age")));
    line("fresh until the age", &span(seconds("lifetime")));
    line("stale-while-revalidate", &grace("stale_while_revalidate"));
    line("stale-if-error", &grace("stale_if_error"));
    if yes("never_stale") {
        line("when stale", "never served without asking");
    }
    if yes("always_ask") {
        line("no-cache", "never served without asking, fresh or stale");
    }
    for tag in array(&object["tags"]) {
        line("tag", &format!("{} (only its hash is kept)", text(tag)));
    }
    told.push('\n');
    for field in array(&object["fields"]) {
        let _ = writeln!(told, "{}: {}", text(&field[0]), shown(text(&field[1])));
    }
    told
}

impl Purge {
    fn run(&self, at: &Place) -> Result<(), String> {
        let mut query: Vec<String> = Vec::new();
        for (name, values) in [("url", &self.url), ("prefix", &self.prefix), ("host", &self.host), ("tag", &self.tag)] {
            query.extend(values.iter().map(|value| format!("{name}={}", escaped(value))));
        }
        query.extend(self.all.then(|| "all".to_owned()));
        query.extend(self.soft.then(|| "soft".to_owned()));
        let zone = at.cache.as_deref().map(|zone| format!("/{}", escaped(zone))).unwrap_or_default();
        let answer = asked(at, "POST", &format!("/cache{zone}/purge?{}", query.join("&")))?;
        if at.json {
            return print(&format!("{answer:#}\n"));
        }
        let how = if self.soft { "made stale" } else { "purged" };
        let zones: Vec<_> = array(&answer["zones"]).iter().map(text).collect();
        let line = |what: &Value| {
            let named = what["text"].as_str().map(|text| format!(" {}", shown(text))).unwrap_or_default();
            format!("{how}: {}{named} (in {})\n", text(&what["kind"]), zones.join(", "))
        };
        print(&array(&answer["purged"]).iter().map(line).collect::<String>())
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A text of others, that shall not command the terminal.
fn shown(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect()
}

/// Columns as wide as what they hold; the last one ends with its text.
fn table<const COLUMNS: usize>(rows: Vec<[String; COLUMNS]>) -> String {
    let widths: [usize; COLUMNS] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default());
    let mut told = String::new();
    for row in rows {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        told += cells.join("  ").trim_end();
        told.push('\n');
    }
    told
}

/// A span of time with its two largest units: `3h 5m`.
fn span(seconds: f64) -> String {
    let sign = if seconds <= -1.0 { "-" } else { "" };
    let mut rest = Duration::from_secs_f64(seconds.abs().min(1e15)).as_secs();
    let mut parts = Vec::new();
    for (unit, length) in [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)] {
        if rest >= length && parts.len() < 2 {
            parts.push(format!("{}{unit}", rest / length));
            rest %= length;
        } else if !parts.is_empty() {
            break;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { sign.to_owned() + &parts.join(" ") }
}

/// A number of bytes with the largest unit that it has.
fn size(bytes: u64) -> String {
    let units = [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, scale)| bytes >= *scale) {
        Some((unit, scale)) => format!("{:.1} {unit}", bytes as f64 / *scale as f64),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn spans_and_sizes_are_written_for_people() {
        for (seconds, text) in [
            (0.0, "0s"),
            (59.9, "59s"),
            (60.0, "1m"),
            (-90.0, "-1m 30s"),
            (90_000.0, "1d 1h"),
            (86_460.0, "1d"),
            (-0.5, "0s"),
        ] {
            assert_eq!(span(seconds), text, "{seconds}");
        }
        for (bytes, text) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB")] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn what_others_wrote_does_not_command_the_terminal() {
        let told =
            about(&json!({ "url": "http://a/\u{1b}[2J", "state": "fresh", "ttl": 65, "kind": "whole", "size": 3,
            "fields": [["x", "a\u{7}b"]] }));
        assert!(!told.contains(['\u{1b}', '\u{7}']), "{told}");
        assert!(told.contains("fresh for another 1m 5s") && told.contains("\nx: a\u{fffd}b\n"), "{told}");
    }

    #[test]
    fn a_zone_has_a_line_for_each_tier() {
        let told = stat(&[json!({ "name": "main", "hit_ratio": 0.75,
            "memory": { "bytes": 2048, "limit": 1 << 20, "objects": 3, "evictions": 0 }, "disk": null })]);
        let lines: Vec<Vec<&str>> = told.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["main", "memory", "2.0", "KiB", "1.0", "MiB", "3", "0", "75.0", "%"]);
        assert_eq!(lines.len(), 2);
    }
}
