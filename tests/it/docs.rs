//! The generated pages are current (`BLESS=1 cargo test --test it docs` writes them), and the written ones hold no
//! document that the program refuses and no link that leads nowhere.

use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

use crate::harness::edgeway;

/// The pages that people write, with their text.
fn pages() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found: Vec<PathBuf> = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "STYLE.md"]
        .map(|name| root.join(name))
        .into();
    found.extend(fs::read_dir(root.join("docs/guide")).unwrap().map(|entry| entry.unwrap().path()));
    found.sort();
    found.into_iter().map(|path| (path.clone(), fs::read_to_string(&path).unwrap())).collect()
}

fn assert_current(page: &str, wanted: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    if std::env::var_os("BLESS").is_some_and(|value| value == "1") {
        fs::write(&path, wanted).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    let differs = found.lines().zip(wanted.lines()).position(|(found, wanted)| found != wanted);
    assert!(found == wanted, "{page} is stale from line {:?} on; `make docs` writes it", differs.map(|line| line + 1));
}

#[test]
fn docs_of_the_configuration_are_current() {
    assert_current("docs/configuration.md", &edgeway::config::Config::reference());
}

#[test]
fn docs_of_the_metrics_are_current() {
    let about =
        "What `/metrics` on the admin listener tells; [observing.md](guide/observing.md) says which to watch first.";
    assert_current("docs/metrics.md", &format!("# Metrics\n\n{about}\n\n{}", edgeway::observe::metrics::markdown()));
}

#[test]
fn every_whole_document_in_the_docs_passes_the_check() {
    let block = Regex::new(r"(?s)```yaml\n(.*?)```").unwrap();
    let mut checked = 0;
    for (path, text) in pages() {
        for found in block.captures_iter(&text).map(|found| found[1].to_owned()) {
            if !(found.contains("\nsites:") && found.starts_with("listeners:")) {
                continue;
            }
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("edgeway.yaml"), &found).unwrap();
            let output = edgeway(dir.path(), &["check", "edgeway.yaml"], &[]);
            let sound = output.code == Some(0) && !output.all().contains("warning:");
            assert!(sound, "{}: {}\n{found}", path.display(), output.all());
            checked += 1;
        }
    }
    assert!(checked >= 4, "only {checked} documents");
}

#[test]
fn every_link_in_the_docs_leads_somewhere() {
    let link = Regex::new(r"\]\(([^)#:]+)(?:#[^)]*)?\)").unwrap();
    for (path, text) in pages() {
        for found in link.captures_iter(&text) {
            let target = path.parent().unwrap().join(&found[1]);
            assert!(target.exists(), "{}: {}", path.display(), &found[1]);
        }
    }
}

#[test]
fn the_full_example_holds_every_key_of_the_schema() {
    let full = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/full.yaml")).unwrap();
    let schema = edgeway::config::Config::schema();
    let mut keys = Vec::new();
    collect_keys(&schema, &mut keys);
    assert!(keys.len() > 50, "{keys:?}");
    // A policy without options is written by its name alone.
    let written = |key: &str| Regex::new(&format!(r"\b{key}\b")).unwrap().is_match(&full);
    let missing: Vec<_> = keys.iter().filter(|key| !written(key)).collect();
    assert!(missing.is_empty(), "conf/full.yaml lacks {missing:?}");
}

fn collect_keys(schema: &serde_json::Value, keys: &mut Vec<String>) {
    match schema {
        serde_json::Value::Object(members) => {
            if let Some(properties) = members.get("properties").and_then(|properties| properties.as_object()) {
                keys.extend(properties.keys().cloned());
            }
            members.values().for_each(|member| collect_keys(member, keys));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| collect_keys(item, keys)),
        _ => {}
    }
}

#[test]
fn docs_of_templates_name_every_field() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guide/headers-and-forwarding.md");
    let guide = fs::read_to_string(path).unwrap();
    for (name, about) in edgeway::template::FIELD_DOCS {
        assert!(guide.contains(&format!("`{name}`")), "the guide does not name `{name}`: {about}");
    }
}
