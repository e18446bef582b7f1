//! The contract of a store, which every engine keeps: the embedded one, and etcd.
//!
//! Revisions, history and compaction behave as etcd's v3 API: one counter for the whole key space, one step a write, never back.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use api::Object;
use bytes::Bytes;

/// A point in the history of the whole key space; an object's `resourceVersion` is the revision of its last write.
pub type Revision = u64;

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What must hold of the key at the moment of the write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// The key does not exist.
    Absent,
    /// The key's last write was this revision.
    Revision(Revision),
    /// The key exists, at whatever revision.
    Present,
    Any,
}

/// One write of one key. `object` is the JSON without `metadata.resourceVersion` (the engine splices it in), starting
/// `{"apiVersion":…,"kind":…,"metadata":{` ; `None` deletes.
#[derive(Debug, Clone)]
pub struct Write {
    pub key: String,
    pub precondition: Precondition,
    pub object: Option<Bytes>,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// The precondition did not hold; `current` is what is there.
    #[error("precondition failed")]
    Precondition { current: Option<Arc<Object>> },
    /// Nothing was written: the disk is full. Reads go on, and writes again when there is room.
    #[error("the disk is full ({0}); make room, reads go on")]
    Full(String),
    /// Nothing was written: the disk failed, or too much waits for it. Reads go on.
    #[error("the store cannot write: {0}")]
    Unavailable(String),
    #[error("the object is too large: {size} bytes, at most {limit}")]
    TooLarge { size: usize, limit: usize },
    /// The write's fate is not known (only with a remote engine).
    #[error("the outcome of the write is unknown: {0}")]
    Unknown(String),
}

/// The revision asked for lies before `oldest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("revision {asked} has been compacted, the oldest is {oldest}")]
pub struct Compacted {
    pub asked: Revision,
    pub oldest: Revision,
}

/// One page of a list, all as of `revision`.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// In key order.
    pub items: Vec<(Arc<str>, Arc<Object>)>,
    pub revision: Revision,
    /// Whether keys follow the last of `items`.
    pub more: bool,
    /// How many keys of the prefix follow the last of `items`.
    pub remaining: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    Created,
    Updated,
    Deleted,
}

/// One write, as watchers see it. Shared by all of them.
#[derive(Debug, Clone)]
pub struct Event {
    pub revision: Revision,
    pub kind: EventKind,
    pub key: Arc<str>,
    /// The new object; for a delete, the last one with its resourceVersion set to the delete's revision.
    pub object: Arc<Object>,
    /// What it replaced or deleted (as it was).
    pub previous: Option<Arc<Object>>,
}

#[derive(Debug, Clone)]
pub enum WatchItem {
    Event(Arc<Event>),
    /// Everything up to this revision has been delivered (sent when asked for by `Watch::progress`).
    Progress(Revision),
    /// The watcher was too slow, or its revision was compacted: it must list again.
    Expired(Compacted),
}

/// Where a watcher is in the run of events that it shares with all others of its prefix: what one of them made of an event can serve the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// No other run in this process ever has the same.
    pub run: u64,
    /// The number of the event that comes next.
    pub next: u64,
    /// Whether that is there already.
    pub there: bool,
}

/// Rings when something comes to a run of events, or when the store closes.
pub trait Ring: Send {
    /// From now on `waker` is woken, once: what came before did not wake it.
    fn listen(&self, waker: &Waker);
}

pub type Bell = Box<dyn Ring>;

/// A running watch: a bounded queue fed by the store. Dropping it ends it.
pub trait Watch: Send {
    /// The next item; `None` when the store closes.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<WatchItem>>;
    /// The next item; `None` when the store closes. Cancel-safe.
    fn next(&mut self) -> BoxFuture<'_, Option<WatchItem>> {
        Box::pin(std::future::poll_fn(|cx| self.poll_next(cx)))
    }
    /// Without waiting.
    fn try_next(&mut self) -> Option<WatchItem>;
    fn place(&self) -> Place;
    /// One for all who look together when something comes to this run: whoever relies on it looks with `try_next`, and after `hush` sleeps by itself no more.
    fn bell(&self) -> Bell;
    /// Leaves waking to a bell.
    fn hush(&mut self);
    /// Nothing comes any more.
    fn is_closed(&self) -> bool;
    /// In place of `try_next`, by who has that event already and knows its revision.
    fn pass(&mut self, revision: Revision);
    /// Everything committed up to here was delivered through `next`/`try_next` already (for bookmarks).
    fn delivered(&self) -> Revision;
}

/// The key space.
pub trait Store: Send + Sync + 'static {
    /// The newest revision that reads can see.
    fn revision(&self) -> Revision;
    /// The oldest revision that can still be listed or watched from.
    fn oldest(&self) -> Revision;
    /// A revision at least as new as everything acknowledged by anyone before the call, once reads can see it. At once for the embedded engine.
    fn barrier(&self) -> BoxFuture<'_, Result<Revision, CommitError>>;

    /// Whether others write to it as well, so that what is read may be behind what they were told: see `barrier`.
    fn is_shared(&self) -> bool {
        false
    }

    fn get(&self, key: &str) -> Option<Arc<Object>>;
    /// Keys that start with `prefix`, as of `at` (or now), after `start_after` if given, at most `limit` (0: all).
    fn list(&self, prefix: &str, at: Option<Revision>, start_after: Option<&str>, limit: usize) -> Result<Page, Compacted>;
    /// How many keys start with `prefix`, now.
    fn count(&self, prefix: &str) -> usize;
    /// The same, but no more than `most` are looked at.
    fn count_at_most(&self, prefix: &str, most: usize) -> usize;

    /// Durable when it resolves: a group-committed fsync has returned. For a delete the result is the last object (with the delete's revision).
    fn commit(&self, write: Write) -> BoxFuture<'_, Result<Arc<Object>, CommitError>>;

    /// Every event of `prefix` after `from` (exclusive), in order, without gaps.
    fn watch(&self, prefix: &str, from: Revision) -> Result<Box<dyn Watch>, Compacted>;

    /// Forget the history before `revision`; current objects stay.
    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), CommitError>>;
    /// What was sealed otherwise than it would be today is sealed anew, where the engine can do so without writing to the key space.
    fn reseal(&self) -> BoxFuture<'_, Result<(), CommitError>> {
        Box::pin(std::future::ready(Ok(())))
    }
    /// What the engine takes of this machine's disk; `None` for one that is elsewhere, or on none.
    fn size_bytes(&self) -> Option<u64> {
        None
    }
    /// A complete, consistent copy of the state, streamed to a file; sealed as the store itself is.
    fn snapshot<'a>(&'a self, path: &'a std::path::Path) -> BoxFuture<'a, Result<Revision, CommitError>>;
}
