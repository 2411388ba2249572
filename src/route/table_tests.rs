//! The routing rules, one by one, and against a plain list that is searched in order.

use super::*;
use crate::route::normalize::normalize;
use proptest::prelude::*;

/// A route as the tests write it: the host (empty: the default), the match in YAML, the priority. Its name is its text.
type Written<'a> = (&'a str, &'a str, i32);

fn build(written: &[Written<'_>]) -> (Table<usize>, Vec<crate::diag::Issue>) {
    let issues = Issues::default();
    let root = issues.root();
    let mut builder = TableBuilder::new();
    for (index, (host, matching, priority)) in written.iter().enumerate() {
        let hosts: Vec<String> = host.split_whitespace().map(str::to_owned).collect();
        let hosts = HostPattern::parse_all(&hosts, &root);
        let matching: Match = serde_yaml::from_str(matching).unwrap_or_else(|fault| panic!("{matching}: {fault}"));
        let routes = root.key("routes");
        builder.add(&hosts, &matching, *priority, &format!("r{index}"), index, &routes.index(index));
    }
    let table = builder.build(&issues);
    (table, issues.into_vec())
}

fn table(written: &[Written<'_>]) -> Table<usize> {
    let (table, issues) = build(written);
    assert!(issues.is_empty(), "{issues:?}");
    table
}

fn request(method: &str, host: &str, target: &str) -> (RequestHeader, Exchange) {
    let head = RequestHeader::build(method, target.as_bytes(), None).expect("a request");
    let mut exchange = Exchange::new();
    exchange.host = host.into();
    exchange.normal_path = normalize(head.uri.path());
    (head, exchange)
}

/// The number of the route taken, and the pieces captured.
fn find(table: &Table<usize>, method: &str, host: &str, target: &str) -> Option<(usize, Vec<String>)> {
    let (head, mut exchange) = request(method, host, target);
    let route = *table.find(&head, &mut exchange)?;
    let pieces = (0..exchange.captures.len()).map(|at| exchange.capture(&head, at).unwrap_or("?").to_owned());
    Some((route, pieces.collect()))
}

fn route(table: &Table<usize>, method: &str, host: &str, target: &str) -> Option<usize> {
    find(table, method, host, target).map(|(route, _)| route)
}

#[test]
fn hosts_never_fall_through() {
    let table = table(&[
        ("example.com", "/a", 0),
        ("*.example.com", "/b", 0),
        ("*.deep.example.com", "/c", 0),
        ("", "/*", 0),
        ("example.com x.deep.example.com", "/d", 0),
    ]);
    for (host, path, taken) in [
        ("example.com", "/a", Some(0)),
        ("example.com", "/b", None),
        ("example.com", "/d", Some(4)),
        ("www.example.com", "/b", Some(1)),
        ("www.example.com", "/a", None),
        ("a.b.example.com", "/b", Some(1)),
        ("deep.example.com", "/b", Some(1)),
        ("y.deep.example.com", "/c", Some(2)),
        ("y.deep.example.com", "/b", None),
        ("x.deep.example.com", "/d", Some(4)),
        ("x.deep.example.com", "/c", None),
        ("example.org", "/a", Some(3)),
        ("", "/a", Some(3)),
        ("", "*", Some(3)),
    ] {
        assert_eq!(route(&table, "GET", host, path), taken, "{host}{path}");
    }
}

#[test]
fn the_most_exact_path_wins() {
    let table = table(&[
        ("", "/*", 0),
        ("", "/a/*", 0),
        ("", "/a/b", 0),
        ("", "/a/{id}", 0),
        ("", "/adm*", 0),
        ("", "/admin*", 0),
        ("", "{ path_regex: '^/a/b(?<more>.+)$' }", 0),
        ("", "{ path_regex: '^/a/bb' }", 0),
        ("", "/users/{id}/*rest", 0),
        ("", "/{any}/edit", 0),
        ("", "/%66ix/../%66ixed", 0),
    ]);
    for (path, taken, pieces) in [
        ("/", 0, vec![]),
        ("/a", 1, vec![]),
        ("/a/", 1, vec![]),
        ("/ab", 0, vec![]),
        ("/a/b", 2, vec![]),
        ("/a/c", 3, vec!["c"]),
        ("/a/c/d", 1, vec![]),
        ("/a/bbc", 6, vec!["bc"]),
        ("/adm", 4, vec![]),
        ("/admi/n", 4, vec![]),
        ("/administrator/edit", 5, vec![]),
        ("/users/5/x/y", 8, vec!["5", "x/y"]),
        ("/users/5", 8, vec!["5", ""]),
        ("/users/edit", 8, vec!["edit", ""]),
        ("/other/edit", 9, vec!["other"]),
        ("/a/edit", 3, vec!["edit"]),
        ("/fixed", 10, vec![]),
        ("/x/../%61/./b", 2, vec![]),
        ("//users//5", 8, vec!["5", ""]),
        ("/users/%2e%2e/a/b", 2, vec![]),
        ("/a%2Fb", 0, vec![]),
        ("/users/a%2fb", 8, vec!["a%2Fb", ""]),
        ("/../../a/b", 2, vec![]),
    ] {
        let wanted = (taken, pieces.into_iter().map(str::to_owned).collect());
        assert_eq!(find(&table, "GET", "x", path), Some(wanted), "{path}");
    }
}

#[test]
fn when_predicates_fail_the_next_best_path_is_tried() {
    let table = table(&[
        ("", "{ path: /a/b, method: POST }", 0),
        ("", "{ path_regex: '^/a/(?<x>.)$', method: PUT }", 0),
        ("", "{ path: '/a/{id}', method: PATCH }", 0),
        ("", "{ path: '/a/*rest', query: { v: '1' } }", 0),
        ("", "{ path: '/a/*all', query: { v: '1' }, method: GET }", 0),
        ("", "{ method: GET }", 0),
        ("", "{ path: '/z', query: { v: '1' } }", -1),
        ("", "{ path: '/*', method: DELETE }", 7),
    ]);
    for (method, target, wanted) in [
        ("POST", "/a/b", Some((0, vec![]))),
        ("PUT", "/a/b", Some((1, vec!["b"]))),
        ("PATCH", "/a/b", Some((2, vec!["b"]))),
        ("HEAD", "/a/b?v=1", Some((3, vec!["b"]))),
        ("GET", "/a/b?v=1", Some((4, vec!["b"]))),
        ("GET", "/a/b", Some((5, vec![]))),
        ("HEAD", "/a/b", None),
        ("GET", "/z?v=1", Some((5, vec![]))),
        ("PUT", "/z?v=1", Some((6, vec![]))),
        ("DELETE", "/a/b?v=1", Some((7, vec![]))),
    ] {
        let wanted = wanted.map(|(taken, pieces)| (taken, pieces.into_iter().map(str::to_owned).collect()));
        assert_eq!(find(&table, method, "x", target), wanted, "{method} {target}");
    }
}

#[test]
fn captures_of_an_earlier_request_are_forgotten() {
    let table = table(&[("a", "/{x}", 0)]);
    let (head, mut exchange) = request("GET", "a", "/1");
    assert!(table.find(&head, &mut exchange).is_some());
    assert_eq!(exchange.captures.len(), 1);
    exchange.host = "b".into();
    assert!(table.find(&head, &mut exchange).is_none());
    assert!(exchange.captures.is_empty());
}

#[test]
fn faults_are_told_at_the_later_route() {
    for (written, place, told) in [
        (vec![("a", "/x", 0), ("a", "/%78", 0)], "routes[1]", "`/x` of `a` goes to `r0` (routes[0]) already"),
        (vec![("a b", "/x/{i}", 0), ("b c", "['/y/{j}', '/x/{j}']", 0)], "routes[1]", "of `b` goes to `r0`"),
        (vec![("", "{}", 0), ("", "/*", 0)], "routes[1]", "`/*` of the default site goes to `r0`"),
        (
            vec![("", "{ method: [GET, PUT] }", 0), ("", "{ method: [PUT, GET] }", 0)],
            "routes[1]",
            "under the same conditions goes to `r0`",
        ),
        (
            vec![("", "{ path_regex: ^/a }", 0), ("", "{ path_regex: ^/a }", 0)],
            "routes[1]",
            "`^/a` of the default site goes to",
        ),
        (vec![("", "[/a, /%61]", 0)], "routes[0]", "`/a` is written twice"),
        (vec![("", "['/a/{id}', '/b/{name}']", 0)], "routes[0].match", "captures `id`, but `/b/{name}` `name`"),
        (vec![("", "['/a/{id}', '/b']", 0)], "routes[0].match", "but `/b` nothing"),
        (vec![("", "/a/**", 0)], "routes[0].match.path", "has a `**`"),
        (vec![("", "{ path: [/a, b] }", 0)], "routes[0].match.path[1]", "does not begin with `/`"),
        (vec![("", "{ path_regex: '(' }", 0)], "routes[0].match.path_regex", "unclosed group"),
        // Routes that never match.
        (vec![("", "/a/*", 1), ("", "/a/b", 0)], "routes[1]", "can never match: `r0` (routes[0])"),
        (vec![("", "/a/b", 0), ("", "{}", 9)], "routes[0]", "can never match: `r1` (routes[1])"),
        (vec![("", "/a/*", 1), ("", "[/a, '/a/{x}/*y']", 0)], "routes[1].match", "captures nothing"),
        (vec![("", "/a/*", 1), ("", "'/a/{x}/*y'", 0)], "routes[1]", "can never match"),
        (vec![("", "/a/*", 1), ("", "/a/b*", 0)], "routes[1]", "can never match"),
        (vec![("", "/a*", 1), ("", "/ab/*", 0)], "routes[1]", "can never match"),
        (vec![("", "/a/*", 1), ("", "{ path_regex: '^/a/b+$' }", 0)], "routes[1]", "can never match"),
        (vec![("", "{ path_regex: ^/a }", 0), ("", "/a/*", 0)], "routes[1]", "can never match"),
        (vec![("", "{ path_regex: '.*' }", 0), ("", "{ method: GET }", 0)], "routes[1]", "can never match"),
        (
            vec![("", "{ path: /a, method: GET }", 1), ("", "{ path: /a, method: GET, query: { b: c } }", 0)],
            "routes[1]",
            "can never match",
        ),
    ] {
        let (_, issues) = build(&written);
        assert!(!issues.is_empty(), "{written:?}");
        let first = &issues[0];
        assert_eq!(first.path.to_string(), place, "{written:?}: {issues:?}");
        assert!(first.message.contains(told), "{written:?}: {issues:?}");
    }
}

#[test]
fn one_fault_is_told_once() {
    for written in [
        // What is wrong with the one must not make it look like the other.
        vec![("a", "/x", 0), ("a", "{ path: /x, method: get }", 0)],
        vec![("", "{}", 0), ("", "{ header: { a: { regex: '(' } } }", 0)],
        vec![("", "/x", 0), ("a:80", "/x", 0)],
        vec![("", "/*", 0), ("", "x", 0)],
        vec![("", "{}", 0), ("", "{ not: { path: x } }", 0)],
        vec![("a b", "[/x, /y]", 0), ("c", "/z", 0), ("a b", "/x", 0)],
    ] {
        let (_, issues) = build(&written);
        assert_eq!(issues.len(), 1, "{written:?}: {issues:?}");
    }
}

#[test]
fn what_can_match_is_not_complained_about() {
    for written in [
        vec![("a", "/x", 0), ("b", "/x", 0)],
        vec![("a", "/x", 0), ("a", "{ path: /x, method: GET }", 0)],
        vec![("a", "/x/{a}", 0), ("a", "{ path: '/x/{b}', method: GET }", 0)],
        vec![("", "/a/*", 1), ("", "/a*", 0)],
        vec![("", "/a/*", 1), ("", "/{x}/b", 0)],
        vec![("", "/a/{x}", 1), ("", "/a/*", 0)],
        vec![("", "/a/{x}/*", 1), ("", "/a/*", 0)],
        vec![("", "/a", 1), ("", "/a/{x}/*", 2), ("", "/a/*", 0)],
        vec![("", "{ path: /a/*, method: GET }", 1), ("", "/a/b", 0)],
        vec![("", "{ path: /a, method: GET }", 1), ("", "{ path: /a, query: { b: c } }", 0)],
        vec![("", "{ path_regex: ^/a }", 0), ("", "/a", 0)],
        vec![("", "{ path_regex: ^/ab }", 0), ("", "/a/*", 0)],
        vec![("", "{ path_regex: '^/a[^b]' }", 0), ("", "/ac*", 0)],
        vec![("", "/a/*", 1), ("", "[/a/b, /c]", 0)],
        vec![("a", "/a/*", 1), ("a b", "/a/b", 0)],
        vec![("", "/a/*", 1), ("", "{ path_regex: '/a/b' }", 0)],
    ] {
        let (_, issues) = build(&written);
        assert!(issues.is_empty(), "{written:?}: {issues:?}");
    }
}

#[test]
fn an_explanation_names_every_route_of_the_host() {
    let table = table(&[
        ("*.example.com", "/*", 0),
        ("*.example.com", "{ path: /a/*, header: { x-beta: { present: true } } }", 0),
        ("*.example.com", "{ path: /a/*, method: [GET, HEAD] }", 0),
        ("*.example.com", "/b", 5),
        ("", "/*", 0),
    ]);
    let (head, exchange) = request("GET", "www.example.com", "/a/b");
    let told = table.explain(&head, &exchange);
    assert_eq!(
        told.host,
        "no site has the host `www.example.com`; `*.example.com` is the longest wildcard that takes it"
    );
    let lines: Vec<String> =
        told.routes.iter().map(|verdict| format!("{} {}: {}", verdict.route, verdict.path, verdict.outcome)).collect();
    assert_eq!(
        lines,
        [
            "r3 /b: the path differs",
            "r1 /a/*: header `x-beta` is absent",
            "r2 /a/*: taken",
            "r0 /*: matches, but a more exact route was taken",
        ]
    );
}

#[test]
fn names_of_captures_are_known_beforehand() {
    for (matching, names) in [
        ("/a", vec![]),
        ("{}", vec![]),
        ("/users/{id}/*rest", vec!["id", "rest"]),
        (r"{ path_regex: '^/(?<year>\d+)/(x)/(?<slug>.*)$' }", vec!["year", "slug"]),
        ("/{", vec![]),
    ] {
        let matching: Match = serde_yaml::from_str(&quoted(matching)).expect(matching);
        let found = capture_names(&matching);
        assert_eq!(found.iter().map(|name| &**name).collect::<Vec<_>>(), names);
    }
}

// A plain list, searched in the order that the rules give: what the table must agree with.

const HOSTS: [&str; 5] = ["a.x", "b.a.x", "*.x", "*.a.x", ""];
const MATCHES: [&str; 22] = [
    "/*",
    "/",
    "/a",
    "/a/",
    "/a/*",
    "/a/b",
    "/a/{p}",
    "/a/{p}/b",
    "/{p}/b",
    "/{p}/{q}/*",
    "/{p}/*r",
    "/a*",
    "/ab*",
    "/a/b*",
    "{ path_regex: '^/a/(?<p>b+)' }",
    "{ path_regex: 'b$' }",
    "{ path: /a/*, method: GET }",
    "{ path: '/{p}/b', method: GET }",
    "{ path: '/{p}/b', query: { v: '1' } }",
    "{ method: [GET, PUT], query: { v: '1' } }",
    "{ path: [/a, /b/*], not: { method: GET } }",
    "{ any: [/a/b, { query: { v: '1' } }] }",
];

fn host_rank(pattern: &str, host: &str) -> Option<usize> {
    match pattern.strip_prefix("*.") {
        Some(suffix) => host.ends_with(&format!(".{suffix}")).then(|| 1000 - suffix.len()),
        None if pattern.is_empty() => Some(5000),
        None => (pattern == host).then_some(0),
    }
}

/// How exact a path is, for the order: the kind, then its segments.
type PathRank = (u8, Vec<(u8, usize, String)>);

fn path_rank(path: &str) -> PathRank {
    if !path.contains(['{', '*']) {
        return (0, vec![]);
    }
    let rank = |segment: &str| match segment {
        _ if segment.starts_with('{') => (2, 0, String::new()),
        _ if segment.starts_with('*') => (3, 0, String::new()),
        _ if segment.ends_with('*') => (1, 1000 - segment.len(), String::new()),
        _ => (0, 0, segment.to_owned()),
    };
    (2, path.split('/').skip(1).map(rank).collect())
}

fn path_regex(pattern: &str) -> String {
    let body = pattern.split('/').skip(1).fold("^".to_owned(), |body, segment| match segment {
        _ if segment.starts_with('{') => body + "/[^/]+",
        _ if segment.starts_with('*') => body + "(/.*)?",
        _ if segment.ends_with('*') => body + "/" + segment.trim_end_matches('*') + ".*",
        _ => body + "/" + segment,
    });
    body + "$"
}

/// One route for each of its paths, in words: the host, the order, and what must hold.
struct Listed {
    host: &'static str,
    order: (i32, PathRank, usize, String),
    path: regex::Regex,
    predicate: Predicate,
    route: usize,
}

fn listed_in_order(routes: &[(usize, usize, i32)]) -> Vec<Listed> {
    let mut list = Vec::new();
    for (route, (host, matching, priority)) in routes.iter().enumerate() {
        let matching: Match = serde_yaml::from_str(&quoted(MATCHES[*matching])).expect("a match");
        let issues = Issues::default();
        let predicate = Predicate::build(&matching, &issues.root()).expect("a predicate");
        let mut paths: Vec<_> = matching.path.iter().map(|text| (path_rank(text), path_regex(text))).collect();
        paths.extend(
            matching.path_regex.iter().map(|text| ((1, vec![(0, 1000 - text.len(), text.clone())]), text.clone())),
        );
        if paths.is_empty() {
            paths.push((path_rank("/*"), path_regex("/*")));
        }
        for (rank, text) in paths {
            let order = (-priority, rank, usize::MAX - predicate.count(), predicate.canonical());
            let path = regex::Regex::new(&text).expect("a regex");
            list.push(Listed { host: HOSTS[*host], order, path, predicate: predicate.clone(), route });
        }
    }
    list.sort_by(|a, b| a.order.cmp(&b.order));
    list
}

fn reference(list: &[Listed], method: &str, host: &str, target: &str) -> Option<usize> {
    let best = list.iter().filter_map(|listed| host_rank(listed.host, host)).min()?;
    let (head, exchange) = request(method, host, target);
    let found = list.iter().find(|listed| {
        host_rank(listed.host, host) == Some(best)
            && listed.path.is_match(exchange.path(&head))
            && listed.predicate.matches(&head, &exchange)
    });
    found.map(|listed| listed.route)
}

fn quoted(matching: &str) -> String {
    if matching.starts_with('/') { format!("'{matching}'") } else { matching.to_owned() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn the_table_agrees_with_the_rules_in_any_order(
        routes in prop::collection::btree_set((0..HOSTS.len(), 0..MATCHES.len(), -1..2_i32), 1..24),
        seed in any::<u64>(),
    ) {
        let mut routes: Vec<(usize, usize, i32)> = routes.into_iter().collect();
        fastrand::Rng::with_seed(seed).shuffle(&mut routes);
        let texts: Vec<String> = routes.iter().map(|(_, m, _)| quoted(MATCHES[*m])).collect();
        let written: Vec<Written<'_>> = routes.iter().zip(&texts).map(|((h, _, p), text)| (HOSTS[*h], &**text, *p)).collect();
        let (table, issues) = build(&written);
        prop_assert!(issues.iter().all(|issue| issue.severity == crate::diag::Severity::Warning), "{issues:?}");
        let list = listed_in_order(&routes);
        let never: Vec<String> = issues.iter().map(|issue| issue.path.to_string()).collect();
        for host in ["a.x", "b.a.x", "c.x", "c.a.x", "x", "d.b.a.x"] {
            for target in ["/", "/a", "/a/", "/a/b", "/a/bb", "/ab/b", "/a/c/b", "/c/b", "/b/a/c", "/a/b?v=1", "/q?v=1"] {
                for method in ["GET", "PUT"] {
                    let wanted = reference(&list, method, host, target);
                    let found = route(&table, method, host, target);
                    prop_assert_eq!(found, wanted, "{} {}{} {:?}", method, host, target, written);
                    let (head, exchange) = request(method, host, target);
                    let told = table.explain(&head, &exchange).routes;
                    let taken = told.into_iter().find(|verdict| verdict.outcome == Outcome::Taken).map(|verdict| verdict.route);
                    prop_assert_eq!(&taken, &found.map(|route| format!("r{route}")));
                    if let Some(found) = found {
                        prop_assert!(!never.contains(&format!("routes[{found}]")), "{} matches {}{}", found, host, target);
                    }
                }
            }
        }
    }

    #[test]
    fn no_request_panics(host in ".{0,12}", path in "/[ -~]{0,40}") {
        let table = table(&[("*.x", "/{a}/*b", 0), ("", "/a*", 0), ("", "{ path_regex: '(?<n>.)', query: { a: b } }", 0)]);
        if let Ok(head) = RequestHeader::build("GET", path.as_bytes(), None) {
            let mut exchange = Exchange::new();
            exchange.host = host;
            exchange.normal_path = normalize(head.uri.path());
            table.find(&head, &mut exchange);
            table.explain(&head, &exchange);
        }
    }
}
