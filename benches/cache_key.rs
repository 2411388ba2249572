//! What the cache adds to a request before anything is looked up, and to a response before it is stored: the key and its id,
//! whether what is stored may answer, and whether a response may be stored.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use criterion::{Criterion, criterion_group, criterion_main};
use edgeway::cache::config::{KeyConfig, Settings, ZoneConfig};
use edgeway::cache::key::{Around, KeyShape};
use edgeway::cache::policy::Parts;
use edgeway::cache::rules::directives::{Directives, Wishes};
use edgeway::cache::rules::freshness::{Grace, Times};
use edgeway::cache::rules::reuse::decide;
use edgeway::cache::rules::storable::Asked;
use edgeway::cache::{Caching, Id, Zone};
use edgeway::diag::Issues;
use edgeway::exchange::{Exchange, Facts};
use edgeway::keep::Keep;
use edgeway::observe::RouteCacheStats;
use http::{HeaderMap, HeaderName, Method, StatusCode};
use pingora::http::RequestHeader;

fn head() -> RequestHeader {
    let target = b"/assets/images/products/42/front.webp?v=8f3a1c&utm_source=mail&page=2";
    let mut head = RequestHeader::build("GET", target, None).expect("it is sound");
    for (name, value) in [
        ("host", "www.example.com"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"),
        ("accept", "image/avif,image/webp,*/*;q=0.8"),
        ("accept-language", "de, en;q=0.5"),
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("cookie", "session=0123456789abcdef; currency=eur; theme=dark"),
    ] {
        head.insert_header(name, value).expect("it is sound");
    }
    head
}

fn key(c: &mut Criterion) {
    let (head, mut exchange) = (head(), Exchange::new());
    exchange.host = "www.example.com".to_owned();
    let facts = Facts { request: &head, exchange: &exchange, response: None, route: "r", upstream: "", backend: "" };
    let mut group = c.benchmark_group("cache_key");
    for (name, yaml) in [
        ("default", "{}"),
        ("chosen", "{ query: [v, page] }"),
        ("ignored_and_sorted", "{ query: { ignore: [utm_*, fbclid] }, sort_query: true }"),
        ("fields_and_cookies", "{ headers: [accept-language], cookies: [currency] }"),
    ] {
        let config: KeyConfig = serde_yaml::from_str(yaml).expect("it is sound");
        let shape = KeyShape::build(&config, Around::default(), &Issues::default().root()).expect("it is sound");
        let mut key = Vec::with_capacity(512);
        group.bench_function(name, |b| {
            b.iter(|| {
                key.clear();
                shape.write(black_box(&facts), &mut key);
                Id::of(&key)
            });
        });
    }
    group.finish();
}

fn rules(c: &mut Criterion) {
    let issues = Issues::default();
    let zone = Zone::build("main", &ZoneConfig::default(), &Keep::default(), &issues.root()).expect("it is sound");
    let settings: Settings<String> =
        serde_yaml::from_str("{ ttl: { default: 1h, 404: 10s, types: { image/*: 1d } }, match_type: true }")
            .expect("it is sound");
    let parts = Parts { zone, around: Around::default(), stats: Arc::new(RouteCacheStats::default()) };
    let caching = Caching::build(&settings, parts, &issues.root()).expect("it is sound");
    let request = head();
    let field = |(name, value): &(&str, &str)| {
        (name.parse::<HeaderName>().expect("it is sound"), value.parse().expect("it is sound"))
    };
    let response: HeaderMap = [
        ("content-type", "image/webp"),
        ("content-length", "48211"),
        ("cache-control", "public, max-age=3600, stale-while-revalidate=60"),
        ("date", "Sun, 06 Nov 2044 08:49:37 GMT"),
        ("last-modified", "Sun, 06 Nov 2014 08:49:37 GMT"),
        ("etag", "\"8f3a1c\""),
        ("vary", "Accept-Encoding"),
        ("surrogate-key", "product-42 images"),
    ]
    .iter()
    .map(field)
    .collect();
    let now = SystemTime::now();
    let times = Times { requested: now, received: now };
    let wishes = Wishes::of_request(&request.headers);
    let asked =
        Asked { method: &Method::GET, headers: &request.headers, wishes: &wishes, is_at_content_location: false };
    let path = "/assets/images/products/42/front.webp";
    c.bench_function("cache_admit", |b| b.iter(|| caching.admits(black_box(&request))));
    c.bench_function("cache_judge", |b| {
        b.iter(|| caching.judge(&asked, path, StatusCode::OK, black_box(&response), &times));
    });
    let directives = Directives::of_response(&response);
    let (age, lifetime) = (Duration::from_secs(5), Duration::from_secs(60));
    c.bench_function("cache_decide", |b| {
        b.iter(|| decide(black_box(age), lifetime, &directives, &wishes, &Grace::default()));
    });
}

criterion_group!(benches, key, rules);
criterion_main!(benches);
