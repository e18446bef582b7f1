//! Where and how an embedded store runs, and every limit it keeps, by name.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::sealing::Sealing;

/// The largest object, as etcd's default request limit (`--max-request-bytes`, 1.5 MiB).
pub const MAX_OBJECT_BYTES: usize = 3 * 512 * 1024;
/// Events kept for watches and lists of the past.
pub const HISTORY_EVENTS: usize = 200_000;
/// Bytes that only the history keeps alive: replaced and deleted objects, and the events themselves.
pub const HISTORY_BYTES: usize = 64 * 1024 * 1024;
/// Writes that may wait for the disk; more are refused rather than queued.
pub const QUEUED_WRITES: usize = 65_536;
/// One batch is one write and one fsync; the limit keeps the first of a batch from waiting for megabytes of the others.
pub const BATCH_BYTES: usize = 4 * 1024 * 1024;
pub const BATCH_WRITES: usize = 4096;
/// The first segment is small so that a new store opens at once; later ones are zeroed in the background.
pub const FIRST_SEGMENT_BYTES: u64 = 1024 * 1024;
pub const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;
/// A snapshot is due when the log since the last one is longer than this and than the state itself.
pub const SNAPSHOT_LOG_BYTES: u64 = 64 * 1024 * 1024;

#[derive(Debug, Clone)]
pub struct Limits {
    pub object_bytes: usize,
    pub history_events: usize,
    pub history_bytes: usize,
    pub queued_writes: usize,
    pub batch_bytes: usize,
    pub batch_writes: usize,
    pub first_segment_bytes: u64,
    pub segment_bytes: u64,
    pub snapshot_log_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            object_bytes: MAX_OBJECT_BYTES,
            history_events: HISTORY_EVENTS,
            history_bytes: HISTORY_BYTES,
            queued_writes: QUEUED_WRITES,
            batch_bytes: BATCH_BYTES,
            batch_writes: BATCH_WRITES,
            first_segment_bytes: FIRST_SEGMENT_BYTES,
            segment_bytes: SEGMENT_BYTES,
            snapshot_log_bytes: SNAPSHOT_LOG_BYTES,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A write is acknowledged after an fsync.
    Disk,
    /// Nothing is written and no thread runs: a commit completes before `commit` returns its future. For the simulation.
    Memory,
}

/// What goes wrong at one step of the disk, by order of a test.
#[derive(Debug)]
pub enum Fault {
    /// The step fails, nothing happens.
    Fail(io::Error),
    /// Only the first bytes reach the disk, then the step fails.
    Torn(usize, io::Error),
}

/// Asked before each step that changes the disk; a test answers with the fault it wants. In memory mode only `write` is asked.
pub trait Faults: Send + Sync {
    fn write(&self, _bytes: usize) -> Option<Fault> {
        None
    }
    fn sync(&self) -> Option<io::Error> {
        None
    }
    fn new_segment(&self) -> Option<io::Error> {
        None
    }
    fn snapshot(&self) -> Option<io::Error> {
        None
    }
}

#[derive(Clone)]
pub struct Config {
    pub dir: PathBuf,
    pub durability: Durability,
    pub limits: Limits,
    pub faults: Option<Arc<dyn Faults>>,
    /// How values lie on the disk.
    pub sealing: Sealing,
}

impl Config {
    /// A durable store in `dir`, which is made when it does not exist.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), durability: Durability::Disk, limits: Limits::default(), faults: None, sealing: Sealing::default() }
    }

    /// A store without a disk and without threads.
    pub fn memory() -> Self {
        Self { dir: PathBuf::new(), durability: Durability::Memory, limits: Limits::default(), faults: None, sealing: Sealing::default() }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("dir", &self.dir).field("durability", &self.durability).field("limits", &self.limits).finish_non_exhaustive()
    }
}
