//! What purges hold for, and that they outlive a process.

use std::fs;
use std::path::Path;

use http::HeaderMap;
use proptest::prelude::*;

use super::marks::Marks;
use super::what::without_scheme;
use super::*;
use crate::cache::{Kind, Terms};

fn record_at(asked: Tick, url: &str, tags: &[&str]) -> Record {
    let tags: Vec<u64> = tags.iter().map(|tag| Purges::tag_hash(tag.as_bytes())).collect();
    Record::new(asked, Terms::default(), (200, Kind::Whole), url, &tags, &HeaderMap::new()).unwrap()
}

fn record(url: &str, tags: &[&str]) -> Record {
    record_at(Tick::now(), url, tags)
}

fn url(text: &str) -> What {
    What::Url(text.to_owned())
}

fn prefix(text: &str) -> What {
    What::Prefix(text.to_owned())
}

fn host(text: &str) -> What {
    What::Host(text.to_owned())
}

fn tag(text: &str) -> What {
    What::Tag(text.to_owned())
}

#[test]
fn a_purge_holds_for_what_it_names_and_for_nothing_else() {
    let about = "https://example.com:8443/a/b.css?v=1";
    for (what, holds) in [
        (url("https://example.com:8443/a/b.css?v=1"), true),
        (url("HTTPS://Example.com:8443/a/b.css?v=1#top"), true),
        (url("//example.com:8443/a/b.css?v=1"), true),
        (url("example.com:8443/a/b.css?v=1"), true),
        (url("http://example.com:8443/a/b.css?v=1"), false),
        (url("https://example.com:8443/a/b.css"), false),
        (url("https://example.com:8443/a/B.css?v=1"), false),
        (url("https://example.com/a/b.css?v=1"), false),
        (prefix("https://example.com:8443/a/"), true),
        (prefix("//Example.com:8443/a"), true),
        (prefix("example.com:8443/a/b.css?v"), true),
        (prefix("example.com"), true),
        (prefix(about), true),
        (prefix("https://"), true),
        (prefix("http://"), false),
        (prefix("example.com:8443/A/"), false),
        (prefix("example.com:8443/a/b.css?v=10"), false),
        (prefix("/a/"), false),
        (prefix("a/b.css"), false),
        (host("example.com"), true),
        (host("EXAMPLE.com:8443"), true),
        (host("example.com:443"), false),
        (host("com"), false),
        (host("www.example.com"), false),
        (tag("one"), true),
        (tag("two words"), true),
        (tag("One"), false),
        (tag("three"), false),
        (What::All, true),
    ] {
        let purges = Purges::in_memory();
        let before = record(about, &["one", "two words"]);
        purges.add(what.clone(), false).unwrap();
        assert_eq!(purges.judge(&before), if holds { Verdict::Gone } else { Verdict::Valid }, "{what}");
        let after = record(about, &["one", "two words"]);
        assert_eq!(purges.judge(&after), Verdict::Valid, "{what}, of what was asked for later");
    }
}

#[test]
fn a_host_is_found_without_its_port_and_a_url_without_a_path_has_the_root() {
    for (what, about) in [
        (host("[::1]"), "http://[::1]:80/"),
        (host("[::1]"), "http://[::1]/"),
        (url("http://a"), "http://a/"),
        (url("a"), "http://a/"),
        (url("//a?b=/"), "https://a/?b=/"),
        (prefix("https://a/?u=http://b"), "https://a/?u=http://b/c"),
        (prefix("a/é"), "http://a/éè"),
    ] {
        let (purges, record) = (Purges::in_memory(), record(about, &[]));
        purges.add(what.clone(), false).unwrap();
        assert_eq!(purges.judge(&record), Verdict::Gone, "{what}");
    }
}

#[test]
fn a_soft_purge_makes_stale_and_a_hard_one_wins() {
    let (purges, record) = (Purges::in_memory(), record("http://a/b", &["t"]));
    assert_eq!((purges.sequence(), purges.judge(&record)), (0, Verdict::Valid));
    purges.add(url("http://a/b"), true).unwrap();
    assert_eq!((purges.sequence(), purges.judge(&record)), (1, Verdict::Stale));
    purges.add(host("a"), false).unwrap();
    assert_eq!((purges.sequence(), purges.judge(&record)), (2, Verdict::Gone));
    purges.add(What::All, true).unwrap();
    assert_eq!(purges.judge(&record), Verdict::Gone);
}

#[test]
fn what_names_nothing_or_is_too_long_is_refused_and_does_not_hold() {
    let (purges, record) = (Purges::in_memory(), record("http://a/b", &[]));
    for what in [url(""), prefix(""), prefix("//"), host(""), tag(""), prefix(&"a".repeat(MAX_TEXT + 1))] {
        assert_eq!(purges.add(what, false).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!((purges.judge(&record), purges.sequence()), (Verdict::Valid, 0));
    }
}

/// The plain meaning: each purge is compared with each record.
fn plainly(purges: &[Purge], record: &Record, tags: &[&str]) -> Verdict {
    let about = record.url();
    let no_scheme = &about[about.find("//").unwrap()..];
    let authority = no_scheme[2..].split('/').next().unwrap();
    let holds = |purge: &&Purge| {
        record.asked < purge.at
            && match &purge.what {
                What::Url(text) => text == about || text == no_scheme,
                What::Prefix(text) => about.starts_with(text) || no_scheme.starts_with(text),
                What::Host(text) => {
                    text == authority || authority.rsplit_once(':').is_some_and(|(host, _)| host == text)
                }
                What::Tag(text) => tags.contains(&text.as_str()),
                What::All => true,
            }
    };
    let found: Vec<_> = purges.iter().filter(holds).collect();
    match found.iter().any(|purge| !purge.soft) {
        true => Verdict::Gone,
        false if found.is_empty() => Verdict::Valid,
        false => Verdict::Stale,
    }
}

const TAGS: [&str; 3] = ["x", "y", "z"];

fn any_url() -> impl Strategy<Value = String> {
    ("https?://(a|ab)(:1)?", "(/[abé]{0,2}){1,3}").prop_map(|(origin, path)| origin + &path)
}

fn any_purge() -> impl Strategy<Value = (What, bool)> {
    let what = prop_oneof![
        4 => any_url().prop_map(What::Url),
        2 => any_url().prop_map(|url| What::Url(without_scheme(&url).unwrap().to_owned())),
        4 => (any_url(), any::<prop::sample::Index>(), any::<bool>()).prop_map(|(url, cut, no_scheme)| {
            let text = if no_scheme { without_scheme(&url).unwrap() } else { &url };
            let chars = text.chars().count();
            What::Prefix(text.chars().take(9 + cut.index(chars)).collect())
        }),
        2 => "(a|ab)(:1)?".prop_map(What::Host),
        2 => prop::sample::select(&TAGS).prop_map(tag),
        1 => Just(What::All),
    ];
    (what, any::<bool>())
}

proptest! {
    #[test]
    fn they_say_what_comparing_each_with_each_says(
        steps in prop::collection::vec((any_url(), prop::sample::subsequence(&TAGS, 0..3), any_purge()), 1..40),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let purges = Purges::open(&folder.path().join("purges.log")).unwrap();
        let (mut records, mut noted) = (Vec::new(), Vec::new());
        for (url, tags, (what, soft)) in steps {
            records.push((record(&url, &tags), tags));
            noted.push(purges.add(what, soft).unwrap());
        }
        let again = Purges::open(&folder.path().join("purges.log")).unwrap();
        let mut few = Marks::default();
        let rewritten = { noted.iter().for_each(|purge| { few.add(purge); }); few.all() };
        for (record, tags) in &records {
            let verdict = plainly(&noted, record, tags);
            prop_assert_eq!(purges.judge(record), verdict, "{}", record.url());
            prop_assert_eq!(again.judge(record), verdict, "after a restart: {}", record.url());
            let mut marks = Marks::default();
            rewritten.iter().for_each(|purge| { marks.add(purge); });
            prop_assert_eq!(marks.judge(record.asked, record.url(), record.tags()), verdict, "rewritten: {}", record.url());
        }
    }
}

#[test]
fn when_there_are_too_many_the_older_half_holds_for_everything() {
    let mut marks = Marks::default();
    let purges: Vec<_> =
        (1..=65_537_u64).map(|at| Purge { what: tag(&at.to_string()), soft: at % 2 == 0, at: Tick(at * 10) }).collect();
    purges[..65_536].iter().for_each(|purge| assert!(marks.add(purge)));
    let judge = |marks: &Marks, asked: u64| marks.judge(Tick(asked), "http://a/", std::iter::empty());
    assert_eq!(judge(&marks, 1), Verdict::Valid);
    marks.add(&purges[65_536]);
    assert!(marks.all().len() < 40_000);
    assert_eq!([1, 400_000].map(|asked| judge(&marks, asked)), [Verdict::Gone, Verdict::Valid]);
    for purge in &purges {
        let tags = || std::iter::once(Purges::tag_hash(purge.what.text().unwrap().as_bytes()));
        assert_ne!(marks.judge(Tick(purge.at.0 - 1), "http://a/", tags()), Verdict::Valid, "{}", purge.what);
    }
    let mut long = Marks::default();
    for at in 1..=2_100 {
        long.add(&Purge { what: prefix(&format!("//{at:08000}")), soft: false, at: Tick(at) });
    }
    assert!(long.all().len() < 2_000, "texts are bounded as well");
}

fn open(folder: &tempfile::TempDir) -> Purges {
    Purges::open(&log_of(folder.path())).unwrap()
}

fn log_of(folder: &Path) -> std::path::PathBuf {
    folder.join("purges.log")
}

#[test]
fn purges_hold_after_a_restart_and_for_the_other_process() {
    let folder = tempfile::tempdir().unwrap();
    let [old, new] = [open(&folder), open(&folder)];
    let record = record("http://a/b", &["t\nu\\n"]);
    old.add(tag("t\nu\\n"), true).unwrap();
    assert_eq!(new.judge(&record), Verdict::Valid);
    new.reread();
    assert_eq!((new.judge(&record), new.sequence()), (Verdict::Stale, 1));
    new.reread();
    assert_eq!(new.sequence(), 1, "what is known changes nothing");
    new.add(url("http://a/b"), false).unwrap();
    old.reread();
    assert_eq!(old.judge(&record), Verdict::Gone);
    drop((old, new));
    assert_eq!(open(&folder).judge(&record), Verdict::Gone);
}

#[test]
fn a_line_that_was_cut_off_or_changed_is_passed_over_and_spoils_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let before = record("http://a/b", &[]);
    open(&folder).add(host("b"), false).unwrap();
    let whole = fs::read_to_string(log_of(folder.path())).unwrap();
    for end in 1..whole.len() {
        fs::write(log_of(folder.path()), &whole[..end]).unwrap();
        let purges = open(&folder);
        purges.add(host("a"), false).unwrap();
        assert_eq!(open(&folder).judge(&before), Verdict::Gone, "{end}");
    }
    fs::write(log_of(folder.path()), whole.replace("host b", "host a")).unwrap();
    assert_eq!(open(&folder).judge(&before), Verdict::Valid);
    fs::write(log_of(folder.path()), [0xff, b'\n', b'\n', b' ', b'\n']).unwrap();
    assert_eq!(open(&folder).sequence(), 0);
}

#[test]
fn a_long_log_is_written_anew_while_another_process_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let [one, other] = [open(&folder), open(&folder)];
    let records = ["a", "b", "c"].map(|name| record(&format!("http://{name}/"), &[]));
    other.add(host("a"), false).unwrap();
    for _ in 0..8_000 {
        one.add(url("http://example.com/again/and/again"), false).unwrap();
    }
    let length = || fs::metadata(log_of(folder.path())).unwrap().len();
    assert!(length() > 300_000);
    one.reread();
    assert!(length() < 1_000, "{}", length());
    other.add(host("b"), false).unwrap();
    one.reread();
    one.add(host("c"), true).unwrap();
    other.reread();
    for purges in [one, other, open(&folder)] {
        let verdicts = [0, 1, 2].map(|record: usize| purges.judge(&records[record]));
        assert_eq!(verdicts, [Verdict::Gone, Verdict::Gone, Verdict::Stale]);
    }
}

#[test]
fn what_could_not_be_logged_holds_and_is_logged_later() {
    let folder = tempfile::tempdir().unwrap();
    let before = record("http://a/b", &[]);
    std::os::unix::fs::symlink("/dev/full", log_of(folder.path())).unwrap();
    let purges = open(&folder);
    assert!(purges.add(What::All, false).is_err());
    assert_eq!((purges.judge(&before), purges.sequence()), (Verdict::Gone, 1));
    purges.reread();
    assert_eq!(open(&folder).judge(&before), Verdict::Gone, "put in place of what cannot be written");
    fs::remove_file(log_of(folder.path())).unwrap();
    purges.reread();
    purges.reread();
    assert_eq!(open(&folder).judge(&before), Verdict::Gone, "somebody took it away");
}

#[test]
fn processes_that_purge_and_rewrite_at_once_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let about = record("http://a/b", &[]);
    let names = |worker: usize| (0..3_000).map(move |n| format!("a/{worker}/{n}/with/a/path/that/makes/the/log/long"));
    std::thread::scope(|scope| {
        for worker in 0..3 {
            let folder = &folder;
            scope.spawn(move || {
                let purges = open(folder);
                for (n, name) in names(worker).enumerate() {
                    purges.add(url(&name), false).unwrap();
                    if n % 300 == 0 {
                        purges.reread();
                    }
                }
            });
        }
    });
    let purges = open(&folder);
    for name in (0..3).flat_map(names) {
        assert_eq!(purges.judge(&record_at(about.asked, &format!("http://{name}"), &[])), Verdict::Gone, "{name}");
    }
}

#[test]
fn what_was_noted_before_there_is_a_log_is_logged() {
    let folder = tempfile::tempdir().unwrap();
    let (first, before) = (open(&folder), record("http://a/1", &[]));
    first.add(What::Url("http://a/2".to_owned()), false).unwrap();
    let purges = Purges::in_memory();
    purges.add(What::Url("http://a/1".to_owned()), false).unwrap();
    purges.attach(&folder.path().join("no folder/purges.log")).unwrap_err();
    purges.add(What::Tag("a".to_owned()), true).unwrap();
    purges.attach(&folder.path().join("purges.log")).unwrap();
    for purges in [purges, open(&folder)] {
        assert_eq!(purges.judge(&before), Verdict::Gone);
        assert!(purges.lock().is_some());
    }
    first.reread();
    assert_eq!(first.judge(&before), Verdict::Gone);
}
