//! What the memory tier costs: a look-up among 1,000 and among 1,000,000 objects, storing where another has to go, comparing
//! a record with many purges; and how much memory an object takes beside its own bytes.

#![expect(clippy::print_stdout, reason = "criterion has no word for bytes")]

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use edgeway::cache::{Body, Id, Kind, Memory, Object, Purges, Record, Terms, Tick, What};
use http::HeaderMap;

/// The program's own allocator, for what an object takes depends on it.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// About 1 KiB, of many lengths, for an allocator has but a few.
fn body(number: u64) -> usize {
    896 + (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize
}

fn url(number: u64) -> String {
    format!("https://www.example.com/assets/{}/{number}.js", number % 97)
}

fn record(number: u64) -> Record {
    let mut fields = HeaderMap::new();
    for (name, value) in [
        ("content-type", "text/javascript"),
        ("content-length", "1024"),
        ("cache-control", "public, max-age=3600"),
        ("etag", "\"5f3c-1234567\""),
        ("date", "Tue, 24 Nov 2026 17:33:51 GMT"),
    ] {
        fields.insert(name, value.parse().expect("a value"));
    }
    let tags = [number % 1_000, number];
    Record::new(Tick::now(), Terms::default(), (200, Kind::Whole), &url(number), &tags, &fields)
        .expect("a small record")
}

fn id(number: u64) -> Id {
    Id::of(&number.to_le_bytes())
}

fn object(number: u64) -> Arc<Object> {
    Arc::new(Object::new(id(number), record(number), Body::Whole(Bytes::from(vec![0; body(number)]))))
}

fn filled(count: u64) -> Memory {
    let memory = Memory::new(16 << 30);
    for number in 0..count {
        let object = object(number);
        memory.insert(object.clone());
        // As after a first hit, for what shares bytes takes some for counting.
        drop((object.record.headers(), object.body()));
    }
    assert_eq!(memory.len() as u64, count);
    memory
}

fn resident() -> usize {
    let told = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    told.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a number") * 4096
}

fn lookups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("memory");
    for count in [1_000, 1_000_000] {
        let before = resident();
        let memory = filled(count);
        if count > 100_000 {
            let own = (0..count).map(|number| (body(number) + record(number).weight()) as u64).sum::<u64>() / count;
            let each = (resident() - before) as f64 / count as f64;
            let said = memory.bytes() as f64 / count as f64;
            println!(
                "an object takes {each:.0} bytes, {:.0} beside its own; its weight says {said:.0}",
                each - own as f64
            );
        }
        let ids: Vec<Id> = (0..count).map(id).collect();
        let mut random = fastrand::Rng::with_seed(7);
        // As requests come: most for a few objects.
        let few = count.min(1_000) as usize;
        group.bench_function(BenchmarkId::new("get, nine of ten from a thousand", count), |bencher| {
            bencher.iter(|| {
                let among = if random.u8(..10) < 9 { few } else { ids.len() };
                black_box(memory.get(&ids[random.usize(..among)]).is_some())
            });
        });
        group.bench_function(BenchmarkId::new("get, each as likely", count), |bencher| {
            bencher.iter(|| black_box(memory.get(&ids[random.usize(..ids.len())]).is_some()));
        });
        group.bench_function(BenchmarkId::new("get, not there", count), |bencher| {
            let absent: Vec<Id> = (0..1_000).map(|number| id(number + 10_000_000)).collect();
            bencher.iter(|| black_box(memory.get(&absent[random.usize(..absent.len())]).is_none()));
        });
        let mut next = count;
        memory.resize(memory.bytes());
        group.bench_function(BenchmarkId::new("insert, another goes", count), |bencher| {
            bencher.iter_batched(
                || {
                    next += 1;
                    object(next)
                },
                |object| memory.insert(object),
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn purges(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("purges");
    for count in [0, 1, 1_000, 60_000] {
        let (purges, record) = (Purges::in_memory(), record(7));
        for number in 0..count {
            let other = url(number + 1_000_000);
            for what in [
                What::Url(other.clone()),
                What::Prefix(other),
                What::Host(format!("{number}.example.com")),
                What::Tag(number.to_string()),
            ] {
                purges.add(what, false).expect("no log");
            }
        }
        group.bench_function(BenchmarkId::new("judge, of each kind", count), |bencher| {
            bencher.iter(|| black_box(purges.judge(black_box(&record))));
        });
        group.bench_function(BenchmarkId::new("add", count), |bencher| {
            bencher.iter_batched(
                || What::Url(url(5)),
                |what| purges.add(what, true).is_ok(),
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, lookups, purges);
criterion_main!(benches);
