//! The disk tier against a model, under crashes, faults and a second process.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use http::HeaderMap;
use proptest::prelude::*;
use tokio::runtime::{Builder, Runtime};

use super::files::Call;
use super::upkeep::Upkeep;
use super::*;
use crate::cache::record::{Kind, Terms};
use bytes::Bytes;

const INLINE: usize = 8 << 10;

fn open(root: &Path, size: u64, boot: u64) -> Arc<Disk> {
    Disk::open_at(Config { path: root.into(), size, inline: INLINE }, boot).unwrap()
}

/// Opens it and has the scan behind it.
fn scanned(root: &Path, size: u64, boot: u64) -> Arc<Disk> {
    let disk = open(root, size, boot);
    rescan(&disk);
    disk
}

fn rescan(disk: &Disk) {
    recover::load_order(&disk.store);
    (0..=u8::MAX).for_each(|directory| recover::scan(&disk.store, directory));
    recover::finish(&disk.store, disk.store.home.others());
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).max_blocking_threads(2).enable_all().build().unwrap()
}

fn id(number: u8) -> Id {
    Id::of(&[number])
}

fn record(asked: Tick) -> Record {
    Record::new(asked, Terms::default(), (200, Kind::Whole), "http://a/b", &[], &HeaderMap::new()).unwrap()
}

fn body(seed: u8, length: usize) -> Bytes {
    (0..length).map(|at| seed ^ (at % 251) as u8).collect()
}

async fn fill(disk: &Arc<Disk>, id: Id, asked: Tick, body: &Bytes) -> io::Result<Writer> {
    let mut writer = disk.create(id, Some(body.len() as u64).filter(|_| asked.0.is_multiple_of(2))).await?;
    for piece in 0..body.len().div_ceil(7_000) {
        writer.append(body.slice(piece * 7_000..body.len().min((piece + 1) * 7_000))).await?;
    }
    Ok(writer)
}

async fn store(disk: &Arc<Disk>, id: Id, body: &Bytes) -> io::Result<Tick> {
    let asked = Tick::now();
    fill(disk, id, asked, body).await?.commit(&record(asked)).await?;
    Ok(asked)
}

async fn read(found: &FoundBody) -> io::Result<Vec<u8>> {
    let mut whole = Vec::new();
    match found {
        FoundBody::Inline(body) => whole.extend_from_slice(body),
        FoundBody::File(blob) => {
            while (whole.len() as u64) < blob.len() {
                whole.extend_from_slice(&blob.read(whole.len() as u64, 50_000).await?);
            }
        }
    }
    Ok(whole)
}

async fn get(disk: &Arc<Disk>, id: Id) -> Option<(Tick, Vec<u8>)> {
    let found = disk.get(&id).await?;
    Some((found.record.asked, read(&found.body).await.unwrap()))
}

fn files_below(root: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// Bytes of objects and fills, in blocks.
fn on_disk(root: &Path) -> u64 {
    let ours = |path: &Path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        !["VERSION", "order", "usage", "lock"].contains(&name)
    };
    let files = files_below(root).into_iter().filter(|path| ours(path));
    // A fill that was given up may go meanwhile.
    files.map(|path| fs::metadata(path).map_or(0, |facts| format::blocks(facts.len()) * format::BLOCK)).sum()
}

#[test]
fn what_was_stored_is_found_also_after_a_restart() {
    let root = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let bodies = [0, 1, INLINE, INLINE + 1, 400_000].map(|length| body(length as u8, length));
        let disk = scanned(root.path(), 8 << 20, 1);
        for (number, body) in bodies.iter().enumerate() {
            store(&disk, id(number as u8), body).await.unwrap();
        }
        disk.stop().await;
        assert!(store(&disk, id(9), &bodies[1]).await.is_err(), "nothing is admitted after the stop");
        assert_eq!(disk.bytes(), on_disk(root.path()));
        let bytes = disk.bytes();
        drop(disk);
        for boot in [1, 2] {
            let disk = open(root.path(), 8 << 20, boot);
            for (number, body) in bodies.iter().enumerate() {
                assert!(disk.peek(&id(number as u8)));
                assert_eq!(get(&disk, id(number as u8)).await.unwrap().1, *body);
                if let Some(now) = disk.get_now(&id(number as u8)) {
                    assert_eq!(read(&now.unwrap().body).await.unwrap(), *body);
                }
            }
            rescan(&disk);
            assert_eq!((disk.len(), disk.bytes()), (5, bytes), "boot {boot}");
            assert_eq!(disk.list("http://a", 3).await.len(), 3);
            assert!(!disk.peek(&id(99)) && disk.get_now(&id(99)).unwrap().is_none());
        }
    });
}

#[test]
fn readers_follow_a_fill_and_a_dropped_one_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let body = body(3, 500_000);
    runtime.block_on(async {
        let disk = scanned(root.path(), 8 << 20, 1);
        let writer = fill(&disk, id(1), Tick(1), &body).await.unwrap();
        let blob = writer.blob();
        assert_eq!(read(&FoundBody::File(Arc::clone(&blob))).await.unwrap(), body);
        assert!(disk.get(&id(1)).await.is_none());
        drop(writer);
        assert_eq!(read(&FoundBody::File(blob)).await.unwrap(), body);
    });
    // Waits for the work that the drop has begun.
    drop(runtime);
    assert_eq!(on_disk(root.path()), 0);
}

#[test]
fn a_record_is_replaced_and_its_body_stays() {
    let root = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let disk = scanned(root.path(), 8 << 20, 1);
        for (number, length) in [(1, 10), (2, 100_000)] {
            let body = body(number, length);
            let asked = store(&disk, id(number), &body).await.unwrap();
            let later = Tick::now();
            assert!(!disk.update(&id(number), Tick(1), &record(later)).await, "another one");
            assert!(disk.update(&id(number), asked, &record(later)).await);
            assert_eq!(get(&disk, id(number)).await, Some((later, body.to_vec())));
            assert!(!disk.remove(&id(number), Some(asked)).await && disk.remove(&id(number), Some(later)).await);
            assert!(disk.get(&id(number)).await.is_none());
        }
        assert_eq!((disk.bytes(), on_disk(root.path())), (0, 0));
    });
}

#[test]
fn an_older_fill_does_not_replace_a_newer_one() {
    let root = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let disk = scanned(root.path(), 8 << 20, 1);
        let early = Tick::now();
        let slow = fill(&disk, id(1), early, &body(1, 50_000)).await.unwrap();
        let asked = store(&disk, id(1), &body(2, 60_000)).await.unwrap();
        let blob = slow.commit(&record(early)).await.unwrap().unwrap();
        assert_eq!(read(&FoundBody::File(blob)).await.unwrap(), body(1, 50_000));
        assert_eq!(get(&disk, id(1)).await, Some((asked, body(2, 60_000).to_vec())));
        assert_eq!(disk.bytes(), on_disk(root.path()));
    });
}

#[test]
fn faults_are_errors_of_a_fill_and_misses_and_leave_nothing() {
    for (call, code) in [
        (Call::Create, libc::EMFILE),
        (Call::Create, libc::EROFS),
        (Call::Write, libc::ENOSPC),
        (Call::Write, libc::EIO),
        (Call::Rename, libc::EIO),
    ] {
        let root = tempfile::tempdir().unwrap();
        runtime().block_on(async {
            let disk = scanned(root.path(), 8 << 20, 1);
            let kept = store(&disk, id(1), &body(1, 100_000)).await.unwrap();
            let before = (disk.bytes(), on_disk(root.path()));
            *disk.store.files.failing.lock().unwrap() = Some((call, code));
            for length in [10, 100_000, 400_000] {
                let error = store(&disk, id(1), &body(2, length)).await.unwrap_err();
                assert_eq!(error.raw_os_error(), Some(code), "{call:?}");
            }
            assert!(disk.stats().write_errors.get() >= 3);
            *disk.store.files.failing.lock().unwrap() = None;
            // Another task may still be dropping the last fill.
            while disk.bytes() != before.0 {
                tokio::task::yield_now().await;
            }
            assert_eq!(on_disk(root.path()), before.1, "{call:?}");
            assert_eq!(get(&disk, id(1)).await, Some((kept, body(1, 100_000).to_vec())));
        });
    }
}

#[test]
fn what_cannot_be_read_is_a_miss_and_dropped_unless_we_are_short_of_descriptors() {
    for (code, stays) in [(libc::EMFILE, true), (libc::EIO, false)] {
        let root = tempfile::tempdir().unwrap();
        runtime().block_on(async {
            let disk = scanned(root.path(), 8 << 20, 1);
            store(&disk, id(1), &body(1, 10)).await.unwrap();
            *disk.store.files.failing.lock().unwrap() = Some((Call::Open, code));
            assert!(disk.get(&id(1)).await.is_none());
            *disk.store.files.failing.lock().unwrap() = None;
            assert_eq!(disk.get(&id(1)).await.is_some(), stays, "{code}");
            assert!(disk.stats().read_errors.get() > 0);
        });
    }
}

#[test]
fn what_is_evicted_makes_room_and_what_is_too_large_is_refused() {
    let root = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let size = 1 << 20;
        let disk = scanned(root.path(), size, 1);
        for number in 0..100 {
            store(&disk, id(number), &body(number, usize::from(number) * 700)).await.unwrap();
            assert!(disk.bytes() <= size && disk.bytes() == on_disk(root.path()));
        }
        assert!(disk.stats().evictions.get() > 0);
        let objects = disk.len();
        let refused = disk.create(id(200), Some(2 << 20)).await.unwrap_err();
        assert_eq!((refused.kind(), disk.len()), (io::ErrorKind::StorageFull, objects), "it evicts nothing");
        let refused = fill(&disk, id(200), Tick(1), &body(1, 2 << 20)).await.unwrap_err();
        assert_eq!((refused.kind(), disk.stats().refused.get()), (io::ErrorKind::StorageFull, 2));
        disk.resize(size / 4);
        disk.store.trim();
        // The fill that was refused may still be being dropped.
        while disk.bytes() > size / 4 {
            tokio::task::yield_now().await;
        }
        assert!(on_disk(root.path()) <= size / 4);
    });
}

#[test]
fn a_directory_deleted_while_running_is_made_again() {
    let root = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let root = root.path().join("cache");
        let disk = scanned(&root, 8 << 20, 1);
        store(&disk, id(1), &body(1, 100_000)).await.unwrap();
        fs::remove_dir_all(&root).unwrap();
        assert!(disk.get(&id(1)).await.is_none() && disk.is_empty());
        assert!(store(&disk, id(1), &body(1, 100_000)).await.is_err());
        assert!(Upkeep::default().look_after(&disk.store));
        store(&disk, id(1), &body(1, 100_000)).await.unwrap();
        assert_eq!(get(&disk, id(1)).await.unwrap().1, body(1, 100_000));
    });
}

#[test]
fn two_at_once_find_what_the_other_stored_and_keep_the_limit_together() {
    let root = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let size = 1 << 20;
        let disks = [scanned(root.path(), size, 1), scanned(root.path(), size, 1)];
        let mut keepers = [Upkeep::default(), Upkeep::default()];
        for (keeper, disk) in keepers.iter_mut().zip(&disks) {
            keeper.look_after(&disk.store);
        }
        for number in 0..200u8 {
            let (own, other) = (&disks[usize::from(number % 2)], &disks[usize::from(1 - number % 2)]);
            // Half of them replace one of the other's.
            let id = id(number / 4);
            let body = body(number, usize::from(number) * 300);
            if let Ok(asked) = store(own, id, &body).await {
                assert_eq!(get(other, id).await, Some((asked, body.to_vec())), "{number}");
            }
            assert!(on_disk(root.path()) <= size, "{number}");
        }
        let [a, b] = disks;
        drop(b);
        assert!(keepers[0].look_after(&a.store), "alone again: all is counted");
        rescan(&a);
        assert_eq!(a.bytes(), on_disk(root.path()));
    });
}

#[derive(Clone, Debug)]
enum Step {
    Store {
        id: u8,
        length: usize,
    },
    Abort {
        id: u8,
        length: usize,
    },
    Get {
        id: u8,
    },
    Update {
        id: u8,
    },
    Remove {
        id: u8,
    },
    Evict,
    Reopen,
    /// The process dies in the midst of this fill.
    Kill {
        id: u8,
        length: usize,
    },
    /// The power fails: files are cut, changed or full of zeros.
    PowerCut {
        which: usize,
        how: u8,
        at: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let length = prop_oneof![0usize..300, 8_000usize..9_000, 9_000usize..300_000];
    let step = prop_oneof![
        6 => (0u8..6, length.clone()).prop_map(|(id, length)| Step::Store { id, length }),
        1 => (0u8..6, length.clone()).prop_map(|(id, length)| Step::Abort { id, length }),
        6 => (0u8..6).prop_map(|id| Step::Get { id }),
        2 => (0u8..6).prop_map(|id| Step::Update { id }),
        2 => (0u8..6).prop_map(|id| Step::Remove { id }),
        1 => Just(Step::Evict),
        1 => Just(Step::Reopen),
        1 => (0u8..6, length).prop_map(|(id, length)| Step::Kill { id, length }),
        1 => (any::<usize>(), 0u8..3, any::<usize>()).prop_map(|(which, how, at)| Step::PowerCut { which, how, at }),
    ];
    proptest::collection::vec(step, 1..40)
}

/// What the last run left, and a fill that was given up just now, may leave no room.
fn fits<T>(stored: io::Result<T>) -> Option<T> {
    stored.map_err(|error| assert_eq!(error.kind(), io::ErrorKind::StorageFull)).ok()
}

struct Run {
    root: tempfile::TempDir,
    disk: Option<Arc<Disk>>,
    boot: u64,
    /// What was committed last and not removed since.
    model: HashMap<u8, (Tick, Bytes)>,
}

const LIMIT: u64 = 512 << 10;

impl Run {
    fn disk(&self) -> &Arc<Disk> {
        self.disk.as_ref().unwrap()
    }

    fn again(&mut self, crash: bool) {
        let disk = self.disk.take().unwrap();
        disk.store.home.abandoned.store(crash, Relaxed);
        drop(disk);
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Store { id: number, length } => {
                let body = body(number.wrapping_add(length as u8), length);
                if let Some(asked) = fits(store(self.disk(), id(number), &body).await) {
                    self.model.insert(number, (asked, body));
                }
            }
            Step::Abort { id: number, length } => {
                fits(fill(self.disk(), id(number), Tick::now(), &body(99, length)).await);
            }
            Step::Get { id: number } => {
                if let Some((asked, read)) = get(self.disk(), id(number)).await {
                    let (known, body) = self.model.get(&number).expect("what was removed is not found");
                    assert!(asked == *known && read == *body, "{number} is what was stored last");
                }
            }
            Step::Update { id: number } => {
                let Some((asked, body)) = self.model.get(&number).cloned() else { return };
                let later = Tick::now();
                if self.disk().update(&id(number), asked, &record(later)).await {
                    self.model.insert(number, (later, body));
                }
            }
            Step::Remove { id: number } => {
                self.disk().remove(&id(number), None).await;
                self.model.remove(&number);
            }
            Step::Evict => {
                self.disk().resize(LIMIT / 2);
                self.disk().store.trim();
                self.disk().resize(LIMIT);
            }
            Step::Reopen => {
                self.disk().stop().await;
                self.again(false);
            }
            Step::Kill { id: number, length } => {
                let writer = fits(fill(self.disk(), id(number), Tick::now(), &body(99, length)).await);
                let left = self.disk().store.home.path("00000000000000ff");
                fs::write(left, b"half").unwrap();
                drop(writer);
                self.again(true);
            }
            Step::PowerCut { which, how, at } => {
                self.again(true);
                self.boot += 1;
                damage(self.root.path(), which, how, at);
            }
        }
        if self.disk.is_none() {
            self.disk = Some(open(self.root.path(), LIMIT, self.boot));
        }
    }
}

fn damage(root: &Path, which: usize, how: u8, at: usize) {
    let mut files = files_below(root);
    files.sort();
    let Some(path) = files.get(which % files.len().max(1)).filter(|path| !path.ends_with("VERSION")) else { return };
    let mut bytes = fs::read(path).unwrap();
    if bytes.is_empty() {
        return;
    }
    let at = at % bytes.len();
    match how {
        0 => bytes.truncate(at),
        1 => bytes[at] ^= 0x10,
        _ => bytes[at..].fill(0),
    }
    fs::write(path, bytes).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_only_what_was_stored_last_is_found(steps in steps()) {
        let runtime = runtime();
        runtime.block_on(async {
            let root = tempfile::tempdir().unwrap();
            let disk = Some(scanned(root.path(), LIMIT, 1));
            let mut run = Run { root, disk, boot: 1, model: HashMap::new() };
            for step in steps {
                let scan = run.model.len().is_multiple_of(2);
                run.step(step).await;
                if scan {
                    rescan(run.disk());
                    assert!(on_disk(run.root.path()) <= LIMIT);
                }
            }
            for id in 0..6 {
                run.step(Step::Get { id }).await;
            }
        });
    }
}
