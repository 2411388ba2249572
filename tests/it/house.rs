//! The house holds: floors, headers, length, no cycles, no `unsafe`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;

/// The floors from the ground up; a module imports only from floors below its own.
const FLOORS: &[&[&str]] = &[
    &["units", "diag", "keep", "reply"],
    &["exchange", "http_client"],
    &["template"],
    &["field", "observe"],
    &["filter", "action", "upstream", "cache", "forwarded"],
    &["route", "listen"],
    &["config"],
    &["gateway"],
    &["proxy", "admin"],
    &["server"],
    &["cli"],
    &["main"],
];

/// Above this many lines before its tests a file surely holds two ideas.
const TOO_LONG: usize = 600;
/// From here on look for the second idea.
const LONG: usize = 400;

struct File {
    /// Below src/, as in `diag/issue.rs`.
    name: String,
    /// As in `["diag", "issue"]`; a `mod.rs` is its folder.
    module: Vec<String>,
    text: String,
    /// What stands before the tests, without comments.
    code: String,
}

impl File {
    fn is_face(&self) -> bool {
        self.name.ends_with("mod.rs")
    }

    /// Whether the whole file is tests, as `tests.rs` and `table_tests.rs` are.
    fn is_tests(&self) -> bool {
        self.name.ends_with("/tests.rs") || self.name.ends_with("_tests.rs")
    }

    fn top(&self) -> &str {
        &self.module[0]
    }

    fn lines_before_tests(&self) -> usize {
        before_tests(&self.text).lines().count()
    }
}

fn before_tests(text: &str) -> &str {
    static TESTS: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\n#\[cfg\(test\)\]\nmod \w+ \{").unwrap());
    TESTS.find(text).map_or(text, |tests| &text[..tests.start()])
}

fn without_comments(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| line.to_owned() + "\n").collect()
}

static FILES: LazyLock<Vec<File>> = LazyLock::new(|| {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    collect(&src, &mut paths);
    paths.sort();
    paths.iter().map(|path| read(&src, path)).collect()
});

fn collect(dir: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            paths.push(path);
        }
    }
}

fn read(src: &Path, path: &Path) -> File {
    let text = fs::read_to_string(path).unwrap();
    let name = path.strip_prefix(src).unwrap().display().to_string();
    let mut module: Vec<String> = name.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if module.len() > 1 && module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    let mut file = File { name, module, text, code: String::new() };
    if !file.is_tests() {
        file.code = without_comments(before_tests(&file.text));
    }
    file
}

/// Every path that begins with `root` (as in `crate::`) or, after braces, each of its branches, by its first two names.
fn paths_after(code: &str, root: &str) -> BTreeSet<Vec<String>> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(root) {
        let stands_alone = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
        if stands_alone {
            expand(&code[at + root.len()..], &[], &mut found);
        }
    }
    found
}

/// Reads one use tree: `a::b`, `a::{b, c::d}`, `{a, b::c}`; tells how many bytes it took.
fn expand(text: &str, before: &[String], found: &mut BTreeSet<Vec<String>>) -> usize {
    let mut path = before.to_vec();
    let mut at = 0;
    loop {
        let rest = &text[at..];
        if rest.starts_with('{') {
            at += 1;
            while at < text.len() && !text[at..].starts_with('}') {
                let taken = expand(&text[at..], &path, found);
                at += taken.max(1);
            }
            return at + 1;
        }
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        if end == 0 {
            break;
        }
        path.push(rest[..end].to_owned());
        at += end;
        if !text[at..].starts_with("::") {
            break;
        }
        at += 2;
    }
    if path.len() > before.len() {
        found.insert(path);
    }
    at
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

#[test]
fn every_module_imports_only_from_floors_below_its_own() {
    let mut faults = Vec::new();
    for file in FILES.iter().filter(|file| file.name != "lib.rs") {
        let Some(own) = floor(file.top()) else {
            faults.push(format!("{}: `{}` is on no floor", file.name, file.top()));
            continue;
        };
        let paths = paths_after(&file.code, if file.name == "main.rs" { "edgeway::" } else { "crate::" });
        for imported in paths.iter().map(|path| &path[0]).filter(|imported| *imported != file.top()) {
            // What is on no floor is no module, but a macro at the root of the crate.
            if floor(imported).is_some_and(|floor| floor >= own) {
                faults.push(format!("{} imports `{imported}`, which does not lie below `{}`", file.name, file.top()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn no_file_of_a_folder_reaches_itself_through_its_siblings() {
    let graph = imports_within_folders(&FILES);
    let cycle = find_cycle(&graph);
    assert!(cycle.is_none(), "a cycle: {}", cycle.unwrap_or_default().join(" -> "));
}

/// Which file needs which, inside each top folder.
///
/// A face that only hands out what its children hold (`pub use`, `pub(crate) use`) does not need them; a child that
/// takes such a name from the face needs the sibling it comes from.
fn imports_within_folders(files: &[File]) -> BTreeMap<String, BTreeSet<String>> {
    let by_module: BTreeMap<&[String], &File> = files.iter().map(|file| (&*file.module, file)).collect();
    let mut graph = BTreeMap::<String, BTreeSet<String>>::new();
    for file in files {
        let needs = graph.entry(file.name.clone()).or_default();
        for path in needed_modules(file) {
            if let Some(target) = resolve(&path, &by_module)
                && target.name != file.name
                && target.top() == file.top()
            {
                needs.insert(target.name.clone());
            }
        }
    }
    graph
}

fn needed_modules(file: &File) -> Vec<Vec<String>> {
    let handed_out = Regex::new(r"(?ms)^\s*pub(\([a-z]+\))? use [^;]*;").unwrap();
    let code = if file.is_face() { handed_out.replace_all(&file.code, "") } else { (&*file.code).into() };
    // `super` of a file is its folder; of a face, the folder above.
    let parent = &file.module[..file.module.len() - 1];
    let own = if file.is_face() { &*file.module } else { parent };
    let mut paths: Vec<Vec<String>> = paths_after(&code, "crate::").into_iter().collect();
    let below = |root: &[String], path: &[String]| [root, path].concat();
    paths
        .extend(paths_after(&code, "super::").iter().filter(|path| path[0] != "super").map(|path| below(parent, path)));
    if let Some(above) = parent.split_last().map(|(_, above)| above) {
        paths.extend(paths_after(&code, "super::super::").iter().map(|path| below(above, path)));
    }
    paths.extend(paths_after(&code, "self::").iter().map(|path| below(own, path)));
    if file.is_face() {
        // Its children, called by their bare names.
        let child = Regex::new(r"(?m)^\s*(?:pub(?:\([a-z]+\))? )?mod ([a-z0-9_]+);").unwrap();
        for name in child.captures_iter(&file.code).map(|found| found[1].to_owned()) {
            for path in paths_after(&code, &format!("{name}::")) {
                paths.push([&*file.module, std::slice::from_ref(&name), &path].concat());
            }
        }
    }
    paths
}

/// The file in which the thing at this path stands.
fn resolve<'a>(path: &[String], by_module: &BTreeMap<&[String], &'a File>) -> Option<&'a File> {
    let depth = (1..=path.len()).rev().find(|depth| by_module.contains_key(&path[..*depth]))?;
    let file = by_module[&path[..depth]];
    let Some(name) = path.get(depth).filter(|_| file.is_face()) else { return Some(file) };
    let handed_out = Regex::new(r"(?ms)^\s*pub(?:\([a-z]+\))? use ([^;]*);").unwrap();
    for found in handed_out.captures_iter(&file.code) {
        let mut paths = BTreeSet::new();
        expand(found[1].trim_start_matches("self::"), &[], &mut paths);
        let from = paths.iter().find(|given| given.last() == Some(name));
        if let Some(from) = from {
            let whole = [&*file.module, &from[..]].concat();
            return resolve(&whole, by_module);
        }
    }
    Some(file)
}

fn find_cycle(graph: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit<'a>(
        node: &'a str,
        graph: &'a BTreeMap<String, BTreeSet<String>>,
        trail: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<String>> {
        if let Some(start) = trail.iter().position(|known| *known == node) {
            return Some(trail[start..].iter().chain([&node]).map(|name| (*name).to_owned()).collect());
        }
        if !done.insert(node) {
            return None;
        }
        trail.push(node);
        let cycle = graph.get(node).and_then(|next| next.iter().find_map(|next| visit(next, graph, trail, done)));
        trail.pop();
        cycle
    }
    let mut done = BTreeSet::new();
    graph.keys().find_map(|node| visit(node, graph, &mut Vec::new(), &mut done))
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    let faults: Vec<_> =
        FILES.iter().filter(|file| !file.text.starts_with("//! ")).map(|file| file.name.as_str()).collect();
    assert!(faults.is_empty(), "without a `//!` header: {faults:?}");
}

#[test]
fn no_file_is_too_long() {
    let sized = |least: usize| FILES.iter().filter(move |file| !file.is_tests() && file.lines_before_tests() > least);
    for file in sized(LONG) {
        eprintln!("{} has {} lines before its tests: is there a second idea?", file.name, file.lines_before_tests());
    }
    let faults: Vec<_> = sized(TOO_LONG).map(|file| format!("{}: {}", file.name, file.lines_before_tests())).collect();
    assert!(faults.is_empty(), "more than {TOO_LONG} lines before the tests: {faults:?}");
}

#[test]
fn nothing_is_unsafe() {
    let word = Regex::new(r"\bunsafe\s*(\{|fn|impl|trait|extern)").unwrap();
    let faults: Vec<_> = FILES.iter().filter(|file| word.is_match(&file.code)).map(|file| file.name.as_str()).collect();
    assert!(faults.is_empty(), "{faults:?}");
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    assert!(manifest.contains("unsafe_code = \"forbid\""));
}

fn file(name: &str, code: &str) -> File {
    let mut file = read_text(name, code);
    file.code = without_comments(before_tests(code));
    file
}

fn read_text(name: &str, text: &str) -> File {
    let mut module: Vec<String> = name.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    File { name: name.into(), module, text: text.into(), code: String::new() }
}

#[test]
fn a_use_is_read_with_all_its_branches() {
    let found = paths_after(
        "use crate::{diag::Scope, units::{self, cidr::Cidr}};\nlet x = crate::keep::Keep::new();",
        "crate::",
    );
    let told: Vec<String> = found.iter().map(|path| path.join("::")).collect();
    assert_eq!(told, ["diag::Scope", "keep::Keep::new", "units::cidr::Cidr", "units::self"]);
    assert!(paths_after("not_crate::a::b", "crate::").is_empty());
}

#[test]
fn a_cycle_is_found_and_a_face_is_none() {
    let face = file("a/mod.rs", "mod one;\nmod two;\npub use one::One;\nfn f() { two::go() }\n");
    let one = file("a/one.rs", "pub struct One;\n");
    let two = file("a/two.rs", "use super::One;\npub fn go() {}\n#[cfg(test)]\nmod tests { use super::super::f; }\n");
    let sound = [face, one, two];
    assert_eq!(find_cycle(&imports_within_folders(&sound)), None);

    let [face, one, _] = sound;
    let up = file("a/two.rs", "use crate::a::f;\npub fn go() {}\n");
    let cycle = find_cycle(&imports_within_folders(&[face, one, up])).unwrap();
    assert_eq!(cycle, ["a/mod.rs", "a/two.rs", "a/mod.rs"]);

    let cycle = find_cycle(&imports_within_folders(&[
        file("b/mod.rs", "mod one;\nmod two;\n"),
        file("b/one.rs", "use super::two::Two;\n"),
        file("b/two.rs", "fn f() { crate::b::one::g() }\n"),
    ]));
    assert_eq!(cycle.unwrap(), ["b/one.rs", "b/two.rs", "b/one.rs"]);
}
