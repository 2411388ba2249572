//! `/cache`: what is stored, and purging it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use http::StatusCode;
use serde_json::{Value, json};

use super::answer::{Answer, Later};
use super::asked::Asked;
use crate::cache::disk::{Disk, Listed};
use crate::cache::{Id, Kind, Object, Record, Verdict, What, Zone};
use crate::gateway::Gateway;
use crate::observe::{Counter, TierStats};

/// So many objects are listed where `limit` does not say otherwise.
const LISTED: usize = 100;
/// And so many at most.
const MOST_LISTED: usize = 100_000;

/// All zones, with their numbers.
pub(super) fn zones(gateway: &Gateway, _: &Asked) -> Answer {
    let snapshot = gateway.snapshot();
    let zones: Vec<_> = snapshot.zones.values().map(|zone| about_zone(zone)).collect();
    Answer::json(&json!({ "zones": zones }))
}

/// The objects of a zone.
pub(super) fn list<'a>(gateway: &'a Gateway, asked: &'a Asked) -> Later<'a> {
    Box::pin(async move {
        let zone = match zone(gateway, asked) {
            Ok(zone) => zone,
            Err(answer) => return answer,
        };
        match asked.value("limit").map_or(Ok(LISTED), str::parse) {
            Ok(limit) => {
                let prefix = asked.value("prefix").unwrap_or_default();
                Answer::json(&objects(&zone, prefix, limit.min(MOST_LISTED)).await)
            }
            Err(_) => Answer::text(StatusCode::BAD_REQUEST, "`limit` is a number\n".to_owned()),
        }
    })
}

/// All of an object.
pub(super) fn inspect<'a>(gateway: &'a Gateway, asked: &'a Asked) -> Later<'a> {
    Box::pin(async move {
        let zone = match zone(gateway, asked) {
            Ok(zone) => zone,
            Err(answer) => return answer,
        };
        let found = find(&zone, asked.part(1)).await;
        if found.is_empty() {
            return Answer::text(StatusCode::NOT_FOUND, format!("{} holds no {}\n", zone.name(), asked.part(1)));
        }
        let found: Vec<_> = found.iter().map(|stored| all_of(&zone, stored)).collect();
        Answer::json(&json!({ "objects": found }))
    })
}

/// Purges in one zone.
pub(super) fn purge(gateway: &Gateway, asked: &Asked) -> Answer {
    zone(gateway, asked).map_or_else(|answer| answer, |zone| purge_in(&[&zone], asked))
}

/// Purges in all zones.
pub(super) fn purge_all(gateway: &Gateway, asked: &Asked) -> Answer {
    let snapshot = gateway.snapshot();
    let zones: Vec<&Zone> = snapshot.zones.values().map(|zone| &**zone).collect();
    purge_in(&zones, asked)
}

fn zone(gateway: &Gateway, asked: &Asked) -> Result<Arc<Zone>, Answer> {
    let name = asked.part(0);
    let found = gateway.snapshot().zones.get(name).cloned();
    found.ok_or_else(|| Answer::text(StatusCode::NOT_FOUND, format!("no cache is named {name}\n")))
}

fn purge_in(zones: &[&Zone], asked: &Asked) -> Answer {
    let soft = asked.value("soft").is_some_and(|value| value != "0" && value != "false");
    let mut whats = Vec::new();
    for (name, value) in asked.query.iter().filter(|(name, _)| name != "soft") {
        match What::new(name, value) {
            Some(what) if what == What::All || !value.is_empty() => whats.push(what),
            Some(_) => return Answer::text(StatusCode::BAD_REQUEST, format!("`{name}` is empty\n")),
            None => return Answer::text(StatusCode::BAD_REQUEST, format!("`{name}` is nothing that can be purged\n")),
        }
    }
    if whats.is_empty() {
        let how = "say what: `url`, `prefix`, `host` or `tag` with a value, or `all`; `soft` makes stale\n";
        return Answer::text(StatusCode::BAD_REQUEST, how.to_owned());
    }
    let mut faults = Vec::new();
    for zone in zones {
        for what in &whats {
            match zone.purges().add(what.clone(), soft) {
                Ok(_) => zone.stats.purges.inc(),
                Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
                    return Answer::text(StatusCode::BAD_REQUEST, format!("`{}`: {error}\n", what.kind()));
                }
                Err(error) => {
                    zone.stats.purges.inc();
                    faults.push(format!("{}: {error}", zone.name()));
                }
            }
        }
    }
    let purged: Vec<_> = whats.iter().map(|what| json!({ "kind": what.kind(), "text": what.text() })).collect();
    let zones: Vec<_> = zones.iter().map(|zone| zone.name()).collect();
    let mut answer = json!({ "zones": zones, "purged": purged, "soft": soft });
    if faults.is_empty() {
        return Answer::json(&answer);
    }
    faults.dedup();
    answer["error"] = format!("it holds, but could not be logged, and is tried again: {}", faults.join("; ")).into();
    Answer { status: StatusCode::INTERNAL_SERVER_ERROR, ..Answer::json(&answer) }
}

fn about_zone(zone: &Zone) -> Value {
    zone.count();
    let stats = &zone.stats;
    let answers = &stats.answers;
    let sum = |counters: &[&Counter]| counters.iter().map(|counter| counter.get()).sum::<u64>();
    let from_cache = sum(&[&answers.hit, &answers.stale, &answers.revalidated, &answers.collapsed]);
    let all = from_cache + answers.miss.get();
    json!({
        "name": zone.name(),
        "memory": about_tier(&stats.memory),
        "disk": about_tier(&stats.disk),
        "responses": {
            "hit": answers.hit.get(),
            "miss": answers.miss.get(),
            "stale": answers.stale.get(),
            "revalidated": answers.revalidated.get(),
            "bypass": answers.bypass.get(),
            "collapsed": answers.collapsed.get(),
        },
        "hit_ratio": (all > 0).then(|| from_cache as f64 / all as f64),
        "stored": stats.stored.get(),
        "uncacheable": stats.uncacheable.get(),
        "fill_errors": stats.fill_errors.get(),
        "purges": stats.purges.get(),
    })
}

/// `null`: there is no such tier.
fn about_tier(tier: &TierStats) -> Value {
    match tier.limit.get() {
        0 => Value::Null,
        limit => json!({
            "bytes": tier.bytes.get(),
            "limit": limit,
            "objects": tier.objects.get(),
            "evictions": tier.evictions.get(),
        }),
    }
}

/// An object, wherever it lies.
struct Stored {
    id: Id,
    record: Record,
    tier: &'static str,
    /// The length of its body, if that is known here.
    size: Option<u64>,
    /// What it takes of its tier.
    bytes: u64,
}

impl Stored {
    fn in_memory(object: &Object) -> Self {
        let Object { id, record, .. } = object;
        Self { id: *id, record: record.clone(), tier: "memory", size: object.len(), bytes: object.weight() }
    }

    fn on_disk(Listed { id, record, bytes }: Listed) -> Self {
        Self { id, record, tier: "disk", size: None, bytes }
    }
}

/// The objects of a zone whose URLs begin so, with a scheme or without, in the order of URLs. One that lies in both tiers is
/// listed as in memory.
async fn objects(zone: &Zone, prefix: &str, limit: usize) -> Value {
    let mut found = Vec::new();
    let mut more = false;
    zone.memory.for_each(|object| {
        if begins_with(object.record.url(), prefix) {
            if found.len() < limit {
                found.push(Stored::in_memory(object));
            } else {
                more = true;
            }
        }
    });
    if let Some(disk) = zone.disk() {
        let known: HashSet<Id> = found.iter().map(|stored| stored.id).collect();
        let mut rest = on_disk(disk, prefix, limit + 1).await;
        rest.retain(|listed| !known.contains(&listed.id));
        more |= found.len() + rest.len() > limit;
        found.extend(rest.into_iter().map(Stored::on_disk));
        found.truncate(limit);
    }
    found.sort_by(|a, b| a.record.url().cmp(b.record.url()).then(a.id.cmp(&b.id)));
    let now = SystemTime::now();
    let rows: Vec<_> = found.iter().map(|stored| row(zone, stored, now)).collect();
    json!({ "objects": rows, "more": more })
}

/// What the disk holds whose URLs begin so; without a scheme, with either.
async fn on_disk(disk: &Arc<Disk>, prefix: &str, limit: usize) -> Vec<Listed> {
    if prefix.is_empty() || prefix.contains("://") {
        return disk.list(prefix, limit).await;
    }
    let bare = prefix.strip_prefix("//").unwrap_or(prefix);
    let mut found = disk.list(&format!("https://{bare}"), limit).await;
    found.extend(disk.list(&format!("http://{bare}"), limit).await);
    found
}

/// Whether a URL begins with a text, which may leave out the scheme, and the `//` with it.
fn begins_with(url: &str, prefix: &str) -> bool {
    let bare = url.find("://").map_or("", |at| &url[at + 3..]);
    url.starts_with(prefix) || bare.starts_with(prefix.strip_prefix("//").unwrap_or(prefix))
}

fn row(zone: &Zone, stored: &Stored, now: SystemTime) -> Value {
    let Stored { id, record, tier, size, bytes } = stored;
    let age = record.terms().age(now).as_secs();
    json!({
        "id": id.to_string(),
        "url": record.url(),
        "status": record.status,
        "kind": kind(record.kind()),
        "state": state(zone, record, age),
        "age": age,
        "ttl": i64::from(record.terms().lifetime) - age.cast_signed(),
        "size": size,
        "bytes": bytes,
        "tier": tier,
    })
}

fn all_of(zone: &Zone, stored: &Stored) -> Value {
    let (terms, asked) = (stored.record.terms(), stored.record.asked);
    let fields: Vec<_> = stored
        .record
        .fields()
        .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
        .collect();
    let tags: Vec<_> = stored.record.tags().map(|tag| format!("{tag:016x}")).collect();
    let seconds =
        |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    let mut all = row(zone, stored, SystemTime::now());
    all["asked"] = seconds(asked.time()).into();
    all["received"] = seconds(terms.received()).into();
    all["initial_age"] = (terms.initial_age as f64 / 1e3).into();
    all["lifetime"] = terms.lifetime.into();
    all["stale_while_revalidate"] = terms.stale_while_revalidate.into();
    all["stale_if_error"] = terms.stale_if_error.into();
    all["never_stale"] = (terms.never_stale || terms.stale_as_said).into();
    all["always_ask"] = terms.always_ask.into();
    match stored.record.kind() {
        Kind::Part(start, total) => all["part"] = json!({ "start": start, "total": total }),
        Kind::Sliced(size, total) => all["slices"] = json!({ "size": size, "total": total }),
        Kind::Whole | Kind::Variants => {}
    }
    all["tags"] = tags.into();
    all["fields"] = fields.into();
    all
}

const fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Whole => "whole",
        Kind::Part(..) => "part",
        Kind::Variants => "variants",
        Kind::Sliced(..) => "slices",
    }
}

fn state(zone: &Zone, record: &Record, age: u64) -> &'static str {
    match zone.purges().judge(record) {
        Verdict::Gone => "purged",
        Verdict::Stale => "softly purged",
        Verdict::Valid if age < record.terms().lifetime.into() => "fresh",
        Verdict::Valid => "stale",
    }
}

/// What lies under an id or under a URL: all its variants.
async fn find(zone: &Zone, key: &str) -> Vec<Stored> {
    if let Ok(id) = key.parse::<Id>() {
        if let Some(object) = zone.memory.get(&id) {
            return vec![Stored::in_memory(&object)];
        }
        let Some(disk) = zone.disk() else { return Vec::new() };
        return disk
            .get(&id)
            .await
            .map(|found| Stored { tier: "disk", ..Stored::in_memory(&Object::found(id, found)) })
            .into_iter()
            .collect();
    }
    let is_it = |url: &str| url.len() <= key.len() + "https://".len() && url.ends_with(key) && begins_with(url, key);
    let mut found = Vec::new();
    zone.memory.for_each(|object| {
        if is_it(object.record.url()) {
            found.push(Stored::in_memory(object));
        }
    });
    if let Some(disk) = zone.disk() {
        let listed = on_disk(disk, key, MOST_LISTED).await;
        let rest: Vec<_> = listed
            .into_iter()
            .filter(|listed| is_it(listed.record.url()) && found.iter().all(|known| known.id != listed.id))
            .collect();
        found.extend(rest.into_iter().map(Stored::on_disk));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Body, Terms, Tick};
    use std::time::Duration;

    fn zone() -> Zone {
        let zone = Zone::new("main", 1 << 20, Arc::default());
        for (name, lifetime) in [("/a", 60), ("/a/b", 0), ("/c?d", 60)] {
            let url = format!("https://example.com{name}");
            let terms = Terms {
                received: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64,
                initial_age: 10_000,
                lifetime,
                stale_if_error: Some(5),
                ..Terms::default()
            };
            let mut fields = http::HeaderMap::new();
            fields.insert("etag", "\"1\"".parse().unwrap());
            let record = Record::new(Tick::now(), terms, (200, Kind::Whole), &url, &[7], &fields).unwrap();
            zone.memory.insert(Arc::new(Object::new(Id::of(name.as_bytes()), record, Body::Whole("12345".into()))));
        }
        zone
    }

    fn urls(listed: &Value) -> Vec<&str> {
        listed["objects"].as_array().unwrap().iter().map(|object| object["url"].as_str().unwrap()).collect()
    }

    #[tokio::test]
    async fn objects_are_listed_by_the_beginning_of_their_url() {
        let zone = zone();
        let [a, b, c] = ["https://example.com/a", "https://example.com/a/b", "https://example.com/c?d"];
        for (prefix, limit, listed, more) in [
            ("", 10, &[a, b, c][..], false),
            ("https://example.com/a", 10, &[a, b], false),
            ("example.com/a/", 10, &[b], false),
            ("//example.com/c", 10, &[c], false),
            ("http://", 10, &[], false),
            ("/a", 10, &[], false),
            ("", 3, &[a, b, c], false),
            ("example.com/c", 0, &[], true),
        ] {
            let told = objects(&zone, prefix, limit).await;
            assert_eq!((urls(&told), told["more"] == true), (listed.to_vec(), more), "{prefix} {limit}");
        }
        let rows = objects(&zone, "", 10).await;
        let row = &rows["objects"][0];
        assert_eq!((&row["status"], &row["size"], &row["tier"]), (&200.into(), &5.into(), &"memory".into()));
        assert_eq!((&row["state"], &rows["objects"][1]["state"]), (&"fresh".into(), &"stale".into()));
    }

    #[tokio::test]
    async fn an_object_is_found_by_its_id_and_by_its_url() {
        let zone = zone();
        let id = Id::of(b"/a").to_string();
        for (key, count) in [
            (&*id, 1),
            ("https://example.com/a", 1),
            ("//example.com/a", 1),
            ("example.com/a", 1),
            ("http://example.com/a", 0),
            ("example.com/", 0),
            ("com/a", 0),
            ("/a", 0),
        ] {
            assert_eq!(find(&zone, key).await.len(), count, "{key}");
        }
        let all = all_of(&zone, &find(&zone, &id).await[0]);
        assert_eq!(all["fields"], json!([["etag", "\"1\""]]));
        assert_eq!((&all["tags"], &all["stale_if_error"]), (&json!(["0000000000000007"]), &5.into()));
        assert!(all["received"].as_f64().unwrap() > Duration::from_secs(1_700_000_000).as_secs_f64());
    }

    #[tokio::test]
    async fn a_purge_says_what_it_purged_and_a_wrong_one_purges_nothing() {
        for (query, status, states) in [
            ("url=https%3A%2F%2Fexample.com%2Fa", 200, ["purged", "stale", "fresh"]),
            ("prefix=example.com/a&soft", 200, ["softly purged", "softly purged", "fresh"]),
            ("host=example.com&soft=0", 200, ["purged"; 3]),
            ("tag=no&tag=other", 200, ["fresh", "stale", "fresh"]),
            ("all", 200, ["purged"; 3]),
            ("all&soft=1", 200, ["softly purged"; 3]),
            ("", 400, ["fresh", "stale", "fresh"]),
            ("soft", 400, ["fresh", "stale", "fresh"]),
            ("all&path=/a", 400, ["fresh", "stale", "fresh"]),
            ("all&tag=", 400, ["fresh", "stale", "fresh"]),
        ] {
            let zone = zone();
            let answer = purge_in(&[&zone], &Asked::new(vec!["main".to_owned()], Some(query)).unwrap());
            assert_eq!(answer.status, status, "{query}");
            let told = objects(&zone, "", 10).await;
            let found: Vec<_> = told["objects"].as_array().unwrap().iter().map(|object| &object["state"]).collect();
            assert_eq!(found, states, "{query}");
        }
    }

    #[test]
    fn a_zone_tells_how_often_it_answered() {
        let zone = zone();
        assert_eq!(about_zone(&zone)["hit_ratio"], Value::Null);
        zone.stats.answers.hit.add(3);
        zone.stats.answers.miss.inc();
        let told = about_zone(&zone);
        assert_eq!((&told["hit_ratio"], &told["memory"]["objects"]), (&0.75.into(), &3.into()));
        assert_eq!(told["disk"], Value::Null);
    }
}
