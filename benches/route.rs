//! The route table: a look-up must cost the same for one route and for ten thousand, and a clean path must cost nothing.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use edgeway::diag::Issues;
use edgeway::exchange::Exchange;
use edgeway::route::host::{HostPattern, normalize_host};
use edgeway::route::normalize::normalize;
use edgeway::route::predicate::Match;
use edgeway::route::table::{Table, TableBuilder};
use edgeway::units::OneOrMany;
use pingora::http::RequestHeader;

const SIZES: [usize; 3] = [1, 100, 10_000];

/// A table of routes by host and path.
fn table(routes: impl Iterator<Item = (String, String)>) -> Table<u32> {
    let issues = Issues::default();
    let root = issues.root();
    let mut builder = TableBuilder::new();
    for (index, (host, path)) in routes.enumerate() {
        let hosts: Vec<HostPattern> = HostPattern::parse(&host, &root).into_iter().collect();
        let matching = Match { path: OneOrMany(vec![path]), ..Match::default() };
        builder.add(&hosts, &matching, 0, "route", index as u32, &root);
    }
    let table = builder.build(&issues);
    assert!(!issues.has_errors(), "{issues:?}");
    table
}

fn by_host(routes: usize) -> Table<u32> {
    table((0..routes).map(|index| (format!("site-{index}.example.com"), "/*".to_owned())))
}

fn by_wildcard(routes: usize) -> Table<u32> {
    table((0..routes).map(|index| (format!("*.site-{index}.example.com"), "/*".to_owned())))
}

fn by_path(routes: usize) -> Table<u32> {
    table((0..routes).map(|index| ("example.com".to_owned(), format!("/api/v1/service-{index}/list"))))
}

fn by_prefix(routes: usize) -> Table<u32> {
    table((0..routes).map(|index| ("example.com".to_owned(), format!("/api/v1/service-{index}/*"))))
}

fn by_param(routes: usize) -> Table<u32> {
    table((0..routes).map(|index| ("example.com".to_owned(), format!("/api/{{version}}/service-{index}/{{id}}"))))
}

/// A way to make a table of so many routes, and a request for the one with this number.
type Case = (&'static str, fn(usize) -> Table<u32>, fn(usize) -> (String, String));

fn cases() -> [Case; 5] {
    [
        ("host", by_host, |index| (format!("site-{index}.example.com"), "/some/path".to_owned())),
        ("wildcard", by_wildcard, |index| (format!("www.site-{index}.example.com"), "/some/path".to_owned())),
        ("path", by_path, |index| ("example.com".to_owned(), format!("/api/v1/service-{index}/list"))),
        ("prefix", by_prefix, |index| ("example.com".to_owned(), format!("/api/v1/service-{index}/a/b"))),
        ("params", by_param, |index| ("example.com".to_owned(), format!("/api/v1/service-{index}/42"))),
    ]
}

fn find(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("find");
    for (name, make, ask) in cases() {
        for routes in SIZES {
            let table = make(routes);
            let (host, path) = ask(routes / 2);
            let head = RequestHeader::build("GET", path.as_bytes(), None).expect("a request");
            let mut exchange = Exchange::new();
            exchange.host = host;
            assert_eq!(table.find(&head, &mut exchange), Some(&(routes as u32 / 2)));
            group.bench_function(BenchmarkId::new(name, routes), |bencher| {
                bencher.iter(|| table.find(black_box(&head), &mut exchange).copied());
            });
        }
    }
    group.finish();
}

fn build(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("build 10,000");
    for (name, make, _) in cases() {
        group.sample_size(10).bench_function(name, |bencher| bencher.iter(|| make(10_000)));
    }
    group.finish();
}

fn normal_forms(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("normalize");
    for (name, path) in [
        ("clean", "/api/v1/users/12345/orders/67890"),
        ("clean with escapes", "/api/v1/users/caf%C3%A9/a%2Fb"),
        ("dirty", "/api//v1/./users/%7E12345/../67890"),
    ] {
        group.bench_function(name, |bencher| bencher.iter(|| normalize(black_box(path))));
    }
    for (name, host) in
        [("host", "www.example.com"), ("host with port", "www.example.com:8443"), ("HOST", "WWW.example.com")]
    {
        group.bench_function(name, |bencher| bencher.iter(|| normalize_host(black_box(host)).is_some()));
    }
    group.finish();
}

criterion_group!(benches, find, build, normal_forms);
criterion_main!(benches);
