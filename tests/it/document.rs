//! How a document is put together: `${ENV}`, includes, and forms long and short.

use crate::harness::{Gateway, Origin, edgeway, get};

#[test]
fn the_environment_fills_values() {
    let gateway = Gateway::with_env(
        &[("GREETING", "hello"), ("STATUS", "201"), ("EMPTY", "")],
        r#"
sites:
  - routes:
      - { match: /text, respond: "${GREETING}, ${NAME:-you}" }
      - { match: /number, respond: { status: "${STATUS}", body: "made" } }
      - { match: /default, respond: { status: "${OTHER_STATUS:-202}", body: "${EMPTY:-nothing}" } }
      - { match: /set, respond: "[${EMPTY}]" }
"#,
    );
    for (path, status, text) in
        [("/text", 200, "hello, you"), ("/number", 201, "made"), ("/default", 202, "nothing"), ("/set", 200, "[]")]
    {
        let response = gateway.get(path);
        assert_eq!((response.status, &*response.text()), (status, text), "{path}");
    }
}

#[test]
fn a_value_from_the_environment_cannot_add_keys() {
    let gateway = Gateway::with_env(&[("TEXT", "a\"\nadmin: false #")], "sites:\n  - respond: \"${TEXT}\"\n");
    assert_eq!(gateway.get("/").text(), "a\"\nadmin: false #");
}

#[test]
fn includes_are_joined() {
    let origin = Origin::named("a");
    let gateway = Gateway::with_files(
        &[&origin],
        &[
            ("sites/a.yaml", "sites:\n  - { hosts: [a.test], proxy: api }\n"),
            ("sites/b.yaml", "sites:\n  - { hosts: [b.test], respond: \"b\" }\ninclude: [\"more/*.yaml\"]\n"),
            ("sites/more/c.yaml", "sites:\n  - { hosts: [c.test], respond: \"c\" }\n"),
            ("upstreams.yaml", "upstreams: { api: [\"@a\"] }\n"),
        ],
        "include: [\"sites/*.yaml\", upstreams.yaml]\nsites:\n  - respond: \"main\"\n",
    );
    assert_eq!(gateway.request(&get("/").host("a.test")).echo().origin, "a");
    for (host, text) in [("b.test", "b"), ("c.test", "c"), ("d.test", "main")] {
        assert_eq!(gateway.request(&get("/").host(host)).text(), text, "{host}");
    }
}

#[test]
fn a_fault_in_an_include_names_that_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("edgeway.yaml"), "include: [part.yaml]\n").unwrap();
    std::fs::write(dir.path().join("part.yaml"), "sites:\n  - respnd: x\n").unwrap();
    let output = edgeway(dir.path(), &["check", "edgeway.yaml"], &[]);
    assert_eq!(output.code, Some(1));
    assert!(output.all().contains("part.yaml:2:"), "{output:?}");
}

#[test]
fn an_include_that_includes_itself_is_told() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("edgeway.yaml"), "include: [edgeway.yaml]\nsites:\n  - respond: x\n").unwrap();
    let output = edgeway(dir.path(), &["check", "edgeway.yaml"], &[]);
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.all().contains("include"), "{output:?}");
}
