//! From text to snapshot: what starting and reloading cost, for one route and for 10,000.

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use edgeway::config::load::Document;
use edgeway::gateway::{Environment, check_document};
use edgeway::keep::Keep;

/// A document with as many sites as asked for, each with a route of its own.
fn document(sites: usize) -> String {
    let mut text = String::from(
        "listeners: [\"127.0.0.1:8080\"]\nupstreams:\n  api: [\"127.0.0.1:3000\", \"127.0.0.1:3001\"]\nsites:\n",
    );
    for site in 0..sites {
        let _ = writeln!(text, "  - {{ hosts: [site{site}.example.com], routes: [{{ match: /api/*, proxy: api }}] }}");
    }
    text
}

fn compile(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compile");
    group.sample_size(10);
    for sites in [1, 100, 10_000] {
        let text = document(sites);
        group.bench_function(format!("{sites} sites"), |bencher| {
            bencher.iter(|| {
                let document = Document::from_text("bench.yaml", &text, &|_| None).expect("a readable document");
                let stats = std::sync::Arc::default();
                let environment = Environment {
                    generation: 1,
                    folder: Path::new(""),
                    keep: &std::sync::Arc::new(Keep::default()),
                    stats: &stats,
                };
                black_box(
                    check_document(document, &environment, false)
                        .map(|checked| checked.files)
                        .expect("a sound document"),
                )
            });
        });
    }
    group.finish();
}

criterion_group!(benches, compile);
criterion_main!(benches);
