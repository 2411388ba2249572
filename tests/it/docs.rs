//! The generated pages are current. `BLESS=1 cargo test --test it docs` writes them.

use std::fs;
use std::path::Path;

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
    assert_current("docs/metrics.md", &edgeway::observe::metrics::markdown());
}
