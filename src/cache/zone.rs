//! `Zone`: a place where responses are stored: a tier in memory, one on disk, and what is on its way.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use http::header::HeaderName;
use tokio::runtime::Handle;
use tokio::sync::Mutex;

use super::config::ZoneConfig;
use super::disk::{self, Disk};
use super::fills::Fills;
use super::memory::Memory;
use super::passes::Passes;
use super::purges::{Purges, Verdict};
use super::rules::vary;
use super::{Body, Id, Kind, Object, Record, Tick};
use crate::diag::Scope;
use crate::keep::Keep;
use crate::observe::ZoneStats;

/// How often a zone looks for purges of another process, and counts what it holds.
const ROUND: Duration = Duration::from_secs(1);

/// Bodies of at most so many bytes lie in the file of their record.
const INLINE: usize = 32 << 10;

/// A place where responses are stored.
#[derive(Debug)]
pub struct Zone {
    name: Box<str>,
    /// The tier in memory.
    pub memory: Memory,
    disk: OnceLock<Arc<Disk>>,
    purges: Purges,
    /// What is on its way.
    pub fills: Fills,
    /// What is not stored, by what was seen of it.
    pub passes: Passes,
    /// What is counted.
    pub stats: Arc<ZoneStats>,
    /// How many bytes of memory fills hold.
    pub(super) filling: AtomicU64,
    /// Held while a mark of slices is looked for and made.
    pub(super) slicing: Mutex<()>,
    started: AtomicBool,
}

/// What a look-up came to.
#[derive(Debug)]
pub enum Looked {
    /// A stored response.
    Found(Arc<Object>),
    /// Nothing under this id.
    Nothing(Id),
    /// Others for the same URL, but none for these request fields; this would be its id.
    OtherVariants(Id),
}

impl Zone {
    /// Compiles a zone; reports what is wrong with it at `at`. It holds nothing, and touches no disk, before it is started.
    pub fn build(name: &str, config: &ZoneConfig, keep: &Keep, at: &Scope<'_>) -> Option<Arc<Self>> {
        config.check(at);
        if let Some(disk) = &config.disk
            && let Err(error) = usable(&disk.path)
        {
            let fault = format!("`{}` cannot be used: {error}", disk.path.display());
            let hint = "write a folder that the gateway may write to, or whose parent it may";
            at.key("disk").key("path").error_hint(fault, hint);
        }
        let path = config.disk.as_ref().map_or_else(|| Path::new(""), |disk| &disk.path);
        let stats = keep.get_or(name, ZoneStats::default);
        // With another folder it is another zone, which knows nothing of what lies in the first.
        let key = format!("{name}\n{}", path.display());
        Some(keep.get_or(&key, || Self::new(name, config.memory.0, stats)))
    }

    /// A zone of so many bytes of memory.
    pub fn new(name: &str, memory: u64, stats: Arc<ZoneStats>) -> Self {
        Self {
            name: name.into(),
            memory: Memory::new(memory),
            disk: OnceLock::new(),
            purges: Purges::in_memory(),
            fills: Fills::default(),
            passes: Passes::default(),
            stats,
            filling: AtomicU64::new(0),
            slicing: Mutex::const_new(()),
            started: AtomicBool::new(false),
        }
    }

    /// Gives the zone the sizes of this document, and begins its upkeep. Without its disk, if that cannot be used, it goes
    /// on in memory.
    pub fn start(self: &Arc<Self>, config: &ZoneConfig, background: &Handle) {
        if self.memory.limit() != config.memory.0 {
            self.memory.resize(config.memory.0);
        }
        if let Some(config) = &config.disk {
            match self.disk() {
                Some(disk) => disk.resize(config.size.0),
                None => self.open(config.path.clone(), config.size.0, background),
            }
        }
        if !self.started.swap(true, Relaxed) {
            background.spawn(Self::keep_up(Arc::downgrade(self)));
        }
    }

    fn open(&self, path: std::path::PathBuf, size: u64, background: &Handle) {
        let log = path.join("purges.log");
        let config = disk::Config { path, size, inline: INLINE };
        let opened = Disk::open(config).and_then(|disk| self.purges.attach(&log).map(|()| disk));
        match opened {
            Ok(disk) => {
                disk.start(background);
                // It is set here only, by one document after the other.
                let _ = self.disk.set(disk);
            }
            Err(error) => {
                tracing::error!(zone = &*self.name, path = %log.display(), %error, "the disk of the cache cannot be used");
            }
        }
    }

    async fn keep_up(zone: Weak<Self>) {
        loop {
            tokio::time::sleep(ROUND).await;
            let Some(zone) = zone.upgrade() else { return };
            // It waits for the disk.
            let _ = tokio::task::spawn_blocking(move || {
                zone.purges().reread();
                zone.count();
            })
            .await;
        }
    }

    /// Sets the gauges of what it holds.
    pub fn count(&self) {
        let memory = &self.memory;
        self.stats.memory.set(memory.bytes(), memory.limit(), memory.len(), memory.evictions());
        if let Some(disk) = self.disk() {
            self.stats.disk.set(disk.bytes(), disk.limit(), disk.len(), disk.evictions());
        }
    }

    /// Before the process ends: what the next one needs to go on is saved.
    pub async fn stop(&self) {
        if let Some(disk) = self.disk() {
            disk.stop().await;
        }
    }

    /// Its name in the document.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tier on disk, if there is one that can be used.
    pub fn disk(&self) -> Option<&Arc<Disk>> {
        self.disk.get()
    }

    /// What operators made obsolete.
    pub const fn purges(&self) -> &Purges {
        &self.purges
    }

    /// The largest body that can be stored, in bytes.
    pub fn most(&self) -> u64 {
        if self.disk().is_some() { u64::MAX } else { self.most_in_memory() }
    }

    /// The largest body that the tier in memory takes, in bytes.
    pub fn most_in_memory(&self) -> u64 {
        self.memory.max_object()
    }

    /// How many bytes of memory all fills may hold.
    pub(super) fn most_filling(&self) -> u64 {
        (self.memory.limit() / 2).max(8 << 20)
    }

    /// What is stored for a request with these fields under this id.
    pub async fn look_up(&self, id: Id, request: &HeaderMap) -> Looked {
        let Some(found) = self.find(id).await else { return Looked::Nothing(id) };
        let Some(names) = found.variants() else { return Looked::Found(found) };
        let variant = variant(id, &found.record, names, request);
        match self.find(variant).await {
            Some(found) => Looked::Found(found),
            None => Looked::OtherVariants(variant),
        }
    }

    /// What lies under this id and is not purged.
    pub async fn find(&self, id: Id) -> Option<Arc<Object>> {
        let began = Instant::now();
        let found = self.find_within(id).await;
        self.stats.lookup.observe(began.elapsed());
        found
    }

    async fn find_within(&self, id: Id) -> Option<Arc<Object>> {
        if let Some(object) = self.memory.get(&id) {
            if self.is_valid(&object) {
                return Some(object);
            }
            self.memory.remove_if(&id, object.record.asked);
        }
        let disk = self.disk().filter(|disk| disk.peek(&id))?;
        // Boxed: a hit in memory, which is far more common, is spared its size.
        Box::pin(self.find_on(disk, id)).await
    }

    async fn find_on(&self, disk: &Arc<Disk>, id: Id) -> Option<Arc<Object>> {
        let found = match disk.get_now(&id) {
            Some(found) => found?,
            None => disk.get(&id).await?,
        };
        let object = Arc::new(Object::found(id, found));
        if !self.is_valid(&object) {
            disk.remove(&id, Some(object.record.asked)).await;
            return None;
        }
        if (object.is_whole() || object.variants().is_some()) && object.weight() <= self.most_in_memory() {
            self.remember(Arc::clone(&object));
            if !disk.peek(&id) {
                // It was removed while it was read.
                self.memory.remove_if(&id, object.record.asked);
                return None;
            }
        }
        Some(object)
    }

    /// Whether no purge has made it void. One that made it stale leaves its mark.
    pub fn is_valid(&self, object: &Object) -> bool {
        let sequence = self.purges().sequence();
        if object.is_compared(sequence) {
            return true;
        }
        let verdict = self.purges().judge(&object.record);
        if verdict == Verdict::Gone {
            return false;
        }
        object.note_compared(sequence, verdict == Verdict::Stale);
        true
    }

    /// Keeps an object in memory.
    pub fn remember(&self, object: Arc<Object>) {
        // What ends late does not replace what was asked for after it.
        if self.memory.get(&object.id).is_none_or(|known| known.record.asked <= object.record.asked) {
            self.memory.insert(object);
        }
    }

    /// Stores a whole response.
    pub async fn put(&self, id: Id, record: Record, body: Bytes) {
        if let Some(disk) = self.disk()
            && let Ok(mut writer) = disk.create(id, Some(body.len() as u64)).await
            && writer.append(body.clone()).await.is_ok()
        {
            // In memory it is all the same.
            let _ = writer.commit(&record).await;
        }
        self.remember_whole(id, record, body);
        self.stats.stored.inc();
    }

    /// Keeps a whole response in memory.
    pub fn remember_whole(&self, id: Id, record: Record, body: Bytes) {
        self.remember(Arc::new(Object::new(id, record, Body::Whole(body))));
    }

    /// Replaces the record of an object after its origin confirmed it.
    pub async fn renew(&self, old: &Object, record: Record) -> Arc<Object> {
        let renewed = Arc::new(Object::new(old.id, record, old.body()));
        if renewed.is_whole() {
            self.memory.insert(Arc::clone(&renewed));
        }
        if let Some(disk) = self.disk() {
            disk.update(&old.id, old.record.asked, &renewed.record).await;
        }
        renewed
    }

    /// Removes what lies under this id, and keeps what is on its way there from being stored.
    pub async fn remove(&self, id: &Id) {
        self.fills.make_void(*id);
        if let Some(disk) = self.disk() {
            disk.remove(id, None).await;
        }
        // Last: see `find_within`.
        self.memory.remove(id);
    }

    /// Removes this object, and nothing that took its place.
    pub async fn forget(&self, object: &Object) {
        self.memory.remove_if(&object.id, object.record.asked);
        if let Some(disk) = self.disk() {
            disk.remove(&object.id, Some(object.record.asked)).await;
        }
    }

    /// Under which id a response is stored that tells its requests apart by these fields: makes the record that says so
    /// where it is not there yet.
    pub async fn place(&self, id: Id, url: &str, names: &[HeaderName], request: &HeaderMap, asked: Tick) -> Option<Id> {
        if names.is_empty() {
            return Some(id);
        }
        if let Some(found) = self.find(id).await
            && found.variants() == Some(names)
        {
            return Some(variant(id, &found.record, names, request));
        }
        let record = variants(url, names, asked)?;
        let place = variant(id, &record, names, request);
        self.mark(id, record, Body::Variants(names.into())).await;
        Some(place)
    }

    /// Stores a record that only leads to others.
    pub(super) async fn mark(&self, id: Id, record: Record, body: Body) {
        if let Some(disk) = self.disk()
            && let Ok(writer) = disk.create(id, Some(0)).await
        {
            // Without it nothing of the URL is found on disk later; it is found in memory now.
            let _ = writer.commit(&record).await;
        }
        self.remember(Arc::new(Object::new(id, record, body)));
    }

    /// Whether something lies under this id, as far as can be told without reading it.
    pub fn has(&self, id: &Id) -> bool {
        self.memory.get(id).is_some() || self.disk().is_some_and(|disk| disk.peek(id))
    }
}

/// Whether a folder can be written to, or made.
fn usable(path: &Path) -> std::io::Result<()> {
    let there = path.ancestors().find(|path| path.as_os_str().is_empty() || path.exists());
    let there = there.filter(|path| !path.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    if !there.is_dir() {
        return Err(std::io::ErrorKind::NotADirectory.into());
    }
    Ok(rustix::fs::access(there, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)?)
}

/// The record that names the fields by which variants are told apart.
fn variants(url: &str, names: &[HeaderName], asked: Tick) -> Option<Record> {
    let mut fields = HeaderMap::new();
    for name in names {
        fields.append(http::header::VARY, name.clone().into());
    }
    Record::new(asked, super::Terms::default(), (0, Kind::Variants), url, &[], &fields).ok()
}

/// The id of the variant for a request with these fields. It depends on when the record was made, so that none is found
/// any more once that was purged or replaced.
pub fn variant(id: Id, record: &Record, names: &[HeaderName], request: &HeaderMap) -> Id {
    let mut key = Vec::with_capacity(96);
    key.extend_from_slice(&record.asked.0.to_le_bytes());
    vary::write_key(names, request, &mut key);
    id.with(&key)
}
