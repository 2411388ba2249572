//! The examples in conf/ are good documents.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::edgeway;

/// Every whole document: the files of conf/ itself, and the `main.yaml` of its folders, whose other files are parts.
fn examples() -> Vec<PathBuf> {
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let entries = |dir: &Path| -> Vec<PathBuf> {
        fs::read_dir(dir).expect("there is a conf/").map(|entry| entry.unwrap().path()).collect()
    };
    let mut found = Vec::new();
    for path in entries(&conf) {
        if path.is_dir() {
            found.extend(Some(path.join("main.yaml")).filter(|main| main.exists()));
        } else if path.extension().is_some_and(|kind| kind == "yaml") {
            found.push(path);
        }
    }
    assert!(!found.is_empty(), "no example in {}", conf.display());
    found.sort();
    found
}

#[test]
fn every_example_passes_the_check() {
    let mut faults = Vec::new();
    for path in examples() {
        let name = path.file_name().unwrap().to_str().unwrap();
        let output = edgeway(path.parent().unwrap(), &["check", name], &[]);
        if output.code != Some(0) || output.all().contains("warning:") {
            faults.push(format!("{} ({:?}):\n{}", path.display(), output.code, output.all()));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_example_says_what_it_shows() {
    for path in examples() {
        assert!(fs::read_to_string(&path).unwrap().starts_with("# "), "{} opens with no comment", path.display());
    }
}
