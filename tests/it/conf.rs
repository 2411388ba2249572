//! The examples in conf/ are good documents.

use std::fs;
use std::path::Path;

use crate::harness::edgeway;

#[test]
fn every_example_passes_the_check() {
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let mut checked = 0;
    let mut faults = Vec::new();
    for entry in fs::read_dir(&conf).expect("there is a conf/") {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".yaml") {
            let output = edgeway(&conf, &["check", &name], &[]);
            if output.code != Some(0) || output.all().contains("warning") {
                faults.push(format!("{name} ({:?}):\n{}", output.code, output.all()));
            }
            checked += 1;
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(checked > 0, "no example in {}", conf.display());
}

#[test]
fn every_example_says_what_it_shows() {
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    for entry in fs::read_dir(&conf).expect("there is a conf/") {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|kind| kind == "yaml") {
            assert!(fs::read_to_string(&path).unwrap().starts_with("# "), "{} opens with no comment", path.display());
        }
    }
}
