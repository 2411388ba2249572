//! Stub.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::{Id, Record, Tick};

/// Stub.
#[derive(Clone, Debug)]
pub struct Config {
    pub path: PathBuf,
    pub size: u64,
    pub inline: usize,
}

/// Stub.
#[derive(Debug)]
pub struct Disk;

/// Stub.
#[derive(Debug)]
pub struct Found {
    pub record: Record,
    pub body: FoundBody,
}

/// Stub.
#[derive(Debug)]
pub enum FoundBody {
    Inline(Bytes),
    File(Arc<Blob>),
}

/// Stub.
#[derive(Debug)]
pub struct Blob;

/// Stub.
#[derive(Debug)]
pub struct Listed {
    pub id: Id,
    pub record: Record,
    pub bytes: u64,
}

/// Stub.
#[derive(Debug)]
pub struct Writer;

impl Disk {
    pub fn open(_: Config) -> io::Result<Arc<Self>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    pub fn start(self: &Arc<Self>, _: &tokio::runtime::Handle) {}
    pub async fn stop(&self) {}
    pub fn peek(&self, _: &Id) -> bool {
        false
    }
    pub fn get_now(self: &Arc<Self>, _: &Id) -> Option<Option<Found>> {
        None
    }
    pub async fn get(self: &Arc<Self>, _: &Id) -> Option<Found> {
        None
    }
    pub async fn create(self: &Arc<Self>, _: Id, _: Option<u64>) -> io::Result<Writer> {
        Err(io::ErrorKind::Unsupported.into())
    }
    pub async fn update(self: &Arc<Self>, _: &Id, _: Tick, _: &Record) -> bool {
        false
    }
    pub async fn remove(self: &Arc<Self>, _: &Id, _: Option<Tick>) -> bool {
        false
    }
    pub async fn list(self: &Arc<Self>, _: &str, _: usize) -> Vec<Listed> {
        Vec::new()
    }
    pub fn limit(&self) -> u64 {
        0
    }
    pub fn evictions(&self) -> u64 {
        0
    }
    pub fn bytes(&self) -> u64 {
        0
    }
    pub fn len(&self) -> usize {
        0
    }
    pub fn resize(&self, _: u64) {}
}

impl Writer {
    pub async fn append(&mut self, _: Bytes) -> io::Result<()> {
        Ok(())
    }
    pub fn blob(&self) -> Arc<Blob> {
        Arc::new(Blob)
    }
    pub async fn commit(self, _: &Record) -> io::Result<Option<Arc<Blob>>> {
        Ok(None)
    }
}

impl Blob {
    pub fn len(&self) -> u64 {
        0
    }
    pub fn read_now(&self, _: u64, _: usize) -> Option<io::Result<Bytes>> {
        None
    }
    pub async fn read(&self, _: u64, _: usize) -> io::Result<Bytes> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
