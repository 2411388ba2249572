//! The commands beside `run`.

use serde_json::Value;

use crate::harness::{Connection, Gateway, Running, await_some, edgeway, get, reserved_port};

#[test]
fn check_accepts_a_good_document() {
    let output = Gateway::check("sites:\n  - proxy: 127.0.0.1:3000\n");
    assert_eq!(output.code, Some(0), "{output:?}");
}

#[test]
fn check_tells_every_fault_at_once() {
    let output = Gateway::check(
        r#"
upstreams:
  api: { servers: [127.0.0.1:3000] }
sites:
  - routes:
      - { match: /a, proxy: apo }
      - { match: /b, redirect: "https://${client.ipp}/" }
      - { match: { path_regex: '(' }, respond: x }
"#,
    );
    assert_eq!(output.code, Some(1));
    for told in ["no upstream", "did you mean `api`?", "did you mean `client.ip`?", "path_regex", "edgeway.yaml:"] {
        assert!(output.all().contains(told), "{told} in {output:?}");
    }
    assert!(!output.all().contains('\x1b'), "no colours where there is no terminal: {output:?}");
}

#[test]
fn check_passes_what_is_only_odd_but_says_so() {
    let output = Gateway::check("upstreams: { unused: [127.0.0.1:3000] }\nsites:\n  - respond: x\n");
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.all().contains("warning") && output.all().contains("unused"), "{output:?}");
}

#[test]
fn check_tells_a_missing_file() {
    let dir = tempfile::tempdir().unwrap();
    let output = edgeway(dir.path(), &["check", "nothing.yaml"], &[]);
    assert_ne!(output.code, Some(0));
    assert!(output.stderr.contains("nothing.yaml"), "{output:?}");
}

#[test]
fn a_wrong_use_is_told_with_status_2() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [&["nonsense"][..], &["check", "--nonsense"], &["explain", "edgeway.yaml"]] {
        let output = edgeway(dir.path(), arguments, &[]);
        assert_eq!(output.code, Some(2), "{arguments:?}: {output:?}");
        assert!(output.stderr.contains("Usage"), "{arguments:?}: {output:?}");
    }
}

#[test]
fn help_names_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let output = edgeway(dir.path(), &["--help"], &[]);
    assert_eq!(output.code, Some(0));
    for command in ["run", "check", "explain", "schema", "demo", "health", "cache", "purge", "completions"] {
        assert!(output.stdout.contains(&format!("  {command} ")), "{command} in {}", output.stdout);
        let help = edgeway(dir.path(), &[command, "--help"], &[]);
        assert_eq!(help.code, Some(0), "{command}");
    }
    assert!(edgeway(dir.path(), &["--version"], &[]).stdout.contains(env!("CARGO_PKG_VERSION")));
}

const EXPLAINED: &str = r#"
upstreams: { api: [127.0.0.1:3000] }
sites:
  - hosts: [shop.test]
    filters: [{ ip_rules: { deny: [10.0.0.0/8] } }]
    routes:
      - { name: writes, match: { path: "/api/*", method: [POST] }, proxy: api, rewrite: { strip_prefix: /api } }
      - { name: reads, match: { path: "/api/*", header: { X-Kind: a } }, respond: "x" }
      - { name: rest, match: "/*", respond: 404 }
"#;

#[test]
fn explain_names_the_route_the_rewrite_the_filters_and_the_backend() {
    let output = Gateway::command(EXPLAINED, &["explain", "edgeway.yaml", "POST", "http://shop.test/api/users?x=1"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    for named in ["writes", "/users", "ip_rules", "api", "127.0.0.1:3000"] {
        assert!(output.stdout.contains(named), "{named} in {}", output.stdout);
    }
}

#[test]
fn explain_tells_the_whole_way() {
    let explain = |arguments: &[&str]| {
        let output = Gateway::command(EXPLAINED, &[&["explain", "edgeway.yaml"], arguments].concat());
        assert_eq!(output.code, Some(0), "{output:?}");
        output.stdout
    };
    assert_eq!(
        explain(&["POST", "http://Shop.test:8080/api/./users?x=1", "--client", "192.0.2.1"]),
        "\
POST /api/users (host shop.test)
  the path was sent as /api/./users
route     writes (site shop.test)
filters   ip_rules
rewrite   /users
upstream  api
backend   127.0.0.1:3000

`shop.test` is the host of a site; wildcards and the default are not looked at
its routes, in the order of precedence:
  reads   /api/*  header `x-kind` is absent
  writes  /api/*  taken
  rest    /*      matches, but a more exact route was taken
"
    );
    let refused = explain(&["GET", "http://shop.test/x", "--client", "10.1.2.3"]);
    assert!(
        refused
            .contains("route     rest (site shop.test)\nfilters   ip_rules\nanswer    403 Forbidden (by a filter)\n")
    );
    assert_eq!(
        explain(&["GET", "http://other.test/"]),
        "\
GET / (host other.test)
no route takes it: the answer is 404

no site has the host `other.test` or a wildcard that takes it, and there is no default site
"
    );
}

#[test]
fn explain_needs_a_host() {
    let output = Gateway::command(EXPLAINED, &["explain", "edgeway.yaml", "GET", "/api"]);
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains("400") && output.stderr.contains("-H 'Host: "), "{output:?}");
    let explain = ["explain", "edgeway.yaml", "GET", "/api/x", "-H", "Host: shop.test", "-H", "X-Kind: a"];
    assert!(Gateway::command(EXPLAINED, &explain).stdout.contains("route     reads"));
}

#[test]
fn health_asks_the_admin_listener() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start("sites:\n  - respond: x\n");
    let asked = |address: &str| edgeway(dir.path(), &["health", address], &[]);
    let output = asked(&gateway.word("@admin"));
    assert_eq!((output.code, &*output.stdout), (Some(0), "ready\n"), "{output:?}");
    let nobody = format!("127.0.0.1:{}", reserved_port());
    for (address, told) in [(&*nobody, "does not answer"), ("unix:@none", "does not answer"), ("here", "no address")] {
        let output = asked(address);
        assert_eq!(output.code, Some(1), "{address}: {output:?}");
        assert!(output.stderr.contains(told), "{address}: {output:?}");
    }
    // The address of clients answers otherwise: 404 is not ready.
    let other = Gateway::start("sites:\n  - respond: 404\n");
    assert_eq!(asked(&other.address()).code, Some(1));
}

#[test]
fn help_tells_what_each_argument_is() {
    let dir = tempfile::tempdir().unwrap();
    for (arguments, told) in [
        (&["--help"][..], &["Usage: edgeway <COMMAND>", "reverse proxy", "--version"][..]),
        (&["run", "--help"], &["Usage: edgeway run [FILE]", "SIGHUP", "SIGUSR1", "[default: edgeway.yaml]"]),
        (&["explain", "--help"], &["<FILE> <METHOD> <URL>", "--header <NAME: VALUE>", "--client"]),
        (&["demo", "--help"], &["[default: 127.0.0.1:8080]", "[default: 127.0.0.1:9900]"]),
        (&["health", "--help"], &["[ADDRESS]", "[default: 127.0.0.1:9900]"]),
        (&["completions", "--help"], &["bash", "fish", "zsh"]),
    ] {
        let output = edgeway(dir.path(), arguments, &[]);
        assert_eq!((output.code, &*output.stderr), (Some(0), ""), "{arguments:?}");
        for told in told {
            assert!(output.stdout.contains(told), "{arguments:?}: {told} in {}", output.stdout);
        }
        assert!(!output.stdout.contains('\x1b'), "{arguments:?}: no colours where there is no terminal");
    }
}

#[test]
fn explain_says_why_others_did_not_match() {
    let explain = ["explain", "edgeway.yaml", "GET", "http://shop.test/api/users"];
    let output = Gateway::command(EXPLAINED, &explain);
    assert_eq!(output.code, Some(0), "{output:?}");
    for named in ["rest", "writes", "method", "reads", "X-Kind"] {
        assert!(output.stdout.to_lowercase().contains(&named.to_lowercase()), "{named} in {}", output.stdout);
    }
    let output = Gateway::command(EXPLAINED, &[&explain[..], &["-H", "X-Kind: a"]].concat());
    assert!(output.stdout.contains("reads"), "{}", output.stdout);
}

#[test]
fn explain_knows_what_no_route_is_asked_for() {
    for (arguments, status) in [
        (&["TRACE", "http://shop.test/"][..], "405"),
        (&["CONNECT", "http://shop.test/"], "405"),
        (&["GET", "*", "-H", "Host: shop.test"], "400"),
        (&["GET", "http://shop.test/", "-H", "Host: a b"], "400"),
        (&["POST", "http://shop.test/", "-H", "Transfer-Encoding: gzip, chunked"], "501"),
    ] {
        let output = Gateway::command(EXPLAINED, &[&["explain", "edgeway.yaml"], arguments].concat());
        assert_eq!(output.code, Some(1), "{arguments:?}: {output:?}");
        assert!(output.stderr.contains(&format!("the answer is {status}")), "{arguments:?}: {output:?}");
    }
}

#[test]
fn explain_tells_when_nothing_matches() {
    let output = Gateway::command(EXPLAINED, &["explain", "edgeway.yaml", "GET", "http://other.test/"]);
    assert!(output.all().contains("404") || output.all().contains("no site"), "{output:?}");
}

#[test]
fn schema_is_a_json_schema_of_the_document() {
    let dir = tempfile::tempdir().unwrap();
    let output = edgeway(dir.path(), &["schema"], &[]);
    assert_eq!(output.code, Some(0));
    let schema: Value = serde_json::from_str(&output.stdout).expect("JSON");
    for key in ["runtime", "admin", "log", "listeners", "upstreams", "sites", "include"] {
        let described = &schema["properties"][key]["description"];
        assert!(described.as_str().is_some_and(|text| !text.is_empty()), "{key}: {described}");
    }
    assert_eq!(schema["additionalProperties"], false);
}

#[test]
fn completions_are_for_the_shell_named() {
    let dir = tempfile::tempdir().unwrap();
    for (shell, holds) in [("bash", "complete -F"), ("zsh", "#compdef edgeway"), ("fish", "complete -c edgeway")] {
        let output = edgeway(dir.path(), &["completions", shell], &[]);
        assert_eq!(output.code, Some(0), "{shell}");
        assert!(output.stdout.contains(holds), "{shell}");
    }
}

#[test]
fn a_demo_without_its_ports_says_how_to_choose_others() {
    let dir = tempfile::tempdir().unwrap();
    let taken = Gateway::start("sites:\n  - respond: x\n");
    let admin = format!("127.0.0.1:{}", reserved_port());
    let output = edgeway(dir.path(), &["demo", "--listen", &taken.address(), "--admin", &admin], &[]);
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(
        output.stderr.contains("another process listens there") && output.stderr.contains("`--listen`"),
        "{output:?}"
    );
}

#[test]
fn the_demo_starts_says_what_to_try_and_answers() {
    let (listen, admin) = (format!("127.0.0.1:{}", reserved_port()), format!("127.0.0.1:{}", reserved_port()));
    let demo = Running::start(&["demo", "--listen", &listen, "--admin", &admin]);
    let url = regex::Regex::new(r"http://((?:127\.0\.0\.1|localhost):\d+)").unwrap();
    let address = await_some("it says what to try", || {
        let said = demo.said();
        said.contains("curl").then(|| url.captures(&said).map(|found| found[1].replace("localhost", "127.0.0.1")))?
    });
    let response =
        await_some("it answers", || Connection::try_open(&address).and_then(|mut c| c.try_request(&get("/"))).ok());
    assert_eq!(response.status, 200, "{response:?} {}", demo.said());
    assert_eq!(address, listen);
    for (told, status) in [("/internal/x", 403), ("/down", 502), ("/nowhere", 404), ("/blog/some-post", 308)] {
        let said = demo.said();
        let line = said.lines().find(|line| line.starts_with("  curl -i 127") && line.contains(told));
        let line = line.unwrap_or_else(|| panic!("{told} is not among what to try: {said}"));
        assert!(line.contains(&format!("  {status}")), "{line}");
        assert_eq!(Connection::open(&listen).request(&get(told)).status, status, "{told}");
    }
    assert!(Connection::open(&admin).request(&get("/metrics")).text().contains("edgeway_requests_total"));
    assert_eq!(demo.stop().code(), Some(0));
}
