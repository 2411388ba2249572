//! Bad documents, and what is said of each: `bad/NAME.yaml` holds a document and, below `# ---`, the exact report.
//!
//! `BLESS=1 cargo test --test it bad` writes the reports; read them before you commit them.

use std::fs;
use std::path::Path;

use crate::harness::edgeway;

const SEPARATOR: &str = "# ---";

/// The document, and the report that is expected of it.
fn split(text: &str) -> (&str, Option<String>) {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if line.trim_end() == SEPARATOR {
            let report = text[at + line.len()..].lines().map(|line| {
                line.strip_prefix("# ").or_else(|| line.strip_prefix('#')).unwrap_or(line).to_owned() + "\n"
            });
            return (&text[..at], Some(report.collect()));
        }
        at += line.len();
    }
    (text, None)
}

fn joined(document: &str, report: &str) -> String {
    let comment = |line: &str| format!("# {line}").trim_end().to_owned() + "\n";
    let gap = if document.is_empty() || document.ends_with('\n') { "" } else { "\n" };
    format!("{document}{gap}{SEPARATOR}\n{}", report.lines().map(comment).collect::<String>())
}

fn without_trailing_space(text: &str) -> String {
    text.trim_end().lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

#[test]
fn every_bad_document_gets_its_report() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/bad");
    let bless = std::env::var_os("BLESS").is_some_and(|value| value == "1");
    let mut names: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.ends_with(".yaml"));
    names.sort();
    assert!(names.len() >= 25, "only {} bad documents", names.len());
    let mut faults = Vec::new();
    for name in &names {
        let text = fs::read_to_string(folder.join(name)).unwrap();
        let (document, expected) = split(&text);
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(name), document).unwrap();
        let output = edgeway(dir.path(), &["check", name], &[]);
        let said = without_trailing_space(&output.all());
        // What is only odd passes the check; a mistake does not.
        let code = if said.lines().any(|line| line.starts_with("error")) { Some(1) } else { Some(0) };
        if output.code != code || said.contains("panicked") || said.trim().is_empty() {
            faults.push(format!("{name} ended with {:?} and said:\n{said}", output.code));
        } else if bless {
            fs::write(folder.join(name), joined(document, &said)).unwrap();
        } else if expected.as_ref().map(|report| without_trailing_space(report)).as_ref() != Some(&said) {
            let expected = expected.unwrap_or_else(|| "(no report yet: BLESS=1 writes it)".into());
            faults.push(format!("{name} is expected to get\n{expected}\nbut gets\n{said}"));
        }
    }
    assert!(faults.is_empty(), "{} of {}:\n\n{}", faults.len(), names.len(), faults.join("\n----\n"));
}

#[test]
fn a_report_survives_being_written_and_read() {
    for (document, report) in
        [("a: 1\n", "error: x\n\n  |\n1 | a: 1\n"), ("", "error: empty\n"), ("a:\n\t- b\n", "error\n")]
    {
        let text = joined(document, report);
        assert_eq!(split(&text), (document, Some(report.to_owned())), "{text}");
    }
    assert_eq!(split("a: 1\n"), ("a: 1\n", None));
}
