//! The disk tier: a hit that lies in the page cache, a miss, and storing.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use edgeway::cache::disk::{Config, Disk, FoundBody};
use edgeway::cache::{Id, Kind, Record, Terms, Tick};
use http::HeaderMap;

fn id(number: u32) -> Id {
    Id::of(&number.to_le_bytes())
}

async fn store(disk: &Arc<Disk>, id: Id, length: usize) {
    let fields = HeaderMap::new();
    let record = Record::new(Tick::now(), Terms::default(), (200, Kind::Whole), "http://a/", &[], &fields);
    let mut writer = disk.create(id, Some(length as u64)).await.expect("there is room");
    writer.append(Bytes::from(vec![7; length])).await.expect("there is room");
    writer.commit(&record.expect("it is small")).await.expect("it can be renamed");
}

fn disk(criterion: &mut Criterion) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let root = tempfile::tempdir().expect("a directory");
    let config = Config { path: root.path().into(), size: 256 << 20, inline: Config::INLINE };
    let disk = Disk::open(config).expect("it is ours");
    runtime.block_on(async {
        for number in 0..1_000 {
            store(&disk, id(number), 1_024).await;
        }
        store(&disk, id(1_000), 100 << 10).await;
    });
    let mut group = criterion.benchmark_group("cache_disk");
    group.bench_function("hit of 1 KiB", |bencher| bencher.iter(|| black_box(disk.get_now(&id(500)))));
    group.bench_function("hit of 100 KiB, read", |bencher| {
        bencher.iter(|| match disk.get_now(&id(1_000)).flatten().map(|found| found.body) {
            Some(FoundBody::File(blob)) => black_box(blob.read_now(0, 100 << 10).is_some()),
            _ => false,
        });
    });
    group.bench_function("miss, a file looked for", |bencher| bencher.iter(|| black_box(disk.get_now(&id(5_000)))));
    for (name, length) in [("store 1 KiB", 1 << 10), ("store 100 KiB", 100 << 10)] {
        group.bench_function(name, |bencher| bencher.iter(|| runtime.block_on(store(&disk, id(2_000), length))));
    }
    group.finish();
}

criterion_group!(benches, disk);
criterion_main!(benches);
