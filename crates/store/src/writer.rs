//! The one writer: takes everything that waits, decides it in order, makes it durable with one fsync, then makes it visible.
//!
//! A write is visible to reads and watches only when it is durable, so what is seen was acknowledged or is about to be. Within a batch
//! a later write's precondition sees the earlier ones through an overlay; when the batch fails, all that rested on it fails too.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use api::Object;
use parking_lot::{Condvar, Mutex, RwLock};
use tokio::sync::oneshot;

use crate::config::{Faults, Limits};
use crate::frame::BatchBuilder;
use crate::log::Log;
use crate::recover;
use crate::sealing::Sealing;
use crate::snapshot::{self, SnapshotHead, snapshot_name};
use crate::splice;
use crate::state::{Change, State};
use crate::types::{CommitError, Compacted, Event, Precondition, Revision, Watch, Write};
use crate::watch::{Hub, Wake};

pub type Outcome = Result<Arc<Object>, CommitError>;

pub enum Request {
    Write(Write, oneshot::Sender<Outcome>),
    Compact(Revision, oneshot::Sender<Result<(), CommitError>>),
    /// A snapshot, which seals everything anew, and an end of the log before it.
    Reseal(oneshot::Sender<Result<(), CommitError>>),
}

/// What readers, watchers and the writer share.
pub struct Shared {
    pub state: RwLock<State>,
    pub hub: Arc<Hub>,
    pub revision: AtomicU64,
    pub limits: Limits,
    pub sealing: Sealing,
}

impl Shared {
    pub fn new(mut state: State, limits: Limits, sealing: Sealing) -> Self {
        // What was read from the disk is no news to anyone.
        state.archive(&[]);
        Self {
            hub: Arc::new(Hub::new(state.revision(), state.oldest())),
            revision: AtomicU64::new(state.revision()),
            state: RwLock::new(state),
            limits,
            sealing,
        }
    }

    /// Makes durable changes visible, first to reads, then to watches.
    pub fn publish(&self, changes: Vec<Change>, compact: Option<Revision>) -> Wake {
        let mut groups = self.hub.lock();
        let mut events: Vec<Arc<Event>> = Vec::with_capacity(changes.len());
        let (mut trimmed, archived, oldest);
        {
            let mut state = self.state.write();
            events.extend(changes.into_iter().map(|change| state.apply(change)));
            archived = state.archive(&events);
            trimmed = state.trim(&self.limits, compact);
            oldest = state.oldest();
            self.revision.store(state.revision(), Ordering::Release);
        }
        let wake = self.hub.publish(&mut groups, &events, &archived.events, &trimmed, oldest);
        drop(groups);
        // The last holders of old objects, mostly: freed here, with no lock held.
        trimmed.clear();
        drop(archived);
        wake
    }

    /// Nothing of ours has changed up to `revision`.
    pub fn advance(&self, revision: Revision) {
        self.state.write().advance(revision);
        self.revision.fetch_max(revision, Ordering::AcqRel);
        self.hub.advance(revision);
    }

    /// Another state altogether: every watch has missed something, and is told so.
    pub fn replace(&self, state: State) {
        let mut groups = self.hub.lock();
        let (old, revision) = {
            let mut current = self.state.write();
            let old = current.replace(state);
            self.revision.store(current.revision(), Ordering::Release);
            (old, current.revision())
        };
        let wake = self.hub.expire(&mut groups, revision);
        drop(groups);
        drop(old);
        wake.up();
    }

    pub fn watch(&self, prefix: &str, from: Revision) -> Result<Box<dyn Watch>, Compacted> {
        let groups = self.hub.lock();
        let state = self.state.read();
        Ok(Box::new(self.hub.watch(groups, &state, prefix, from)?))
    }
}

/// The writes of a batch so far.
#[derive(Default)]
pub struct Pending {
    overlay: HashMap<Arc<str>, Option<Arc<Object>>>,
    pub changes: Vec<Change>,
    pub compact: Option<Revision>,
}

/// Why a write is not part of the batch, and whether that may be told at once.
pub struct Refused {
    pub error: CommitError,
    /// It rests on a write of this batch that is not durable yet.
    pub rests_on_batch: bool,
}

impl Pending {
    /// Decides one write as if all before it had happened.
    pub fn accept(&mut self, shared: &Shared, write: &Write, log: &mut BatchBuilder) -> Result<Arc<Object>, Refused> {
        let refuse = |error| Refused { error, rests_on_batch: false };
        if let Some(object) = &write.object
            && object.len() > shared.limits.object_bytes
        {
            return Err(refuse(CommitError::TooLarge { size: object.len(), limit: shared.limits.object_bytes }));
        }
        let state = shared.state.read();
        let revision = state.revision() + self.changes.len() as u64 + 1;
        let known = state.entry(&write.key);
        let (current, rests_on_batch) = match self.overlay.get(&*write.key) {
            Some(pending) => (pending.clone(), true),
            None => (known.map(|(_, object)| Arc::clone(object)), false),
        };
        let key: Arc<str> = known.map_or_else(|| write.key.as_str().into(), |(key, _)| Arc::clone(key));
        drop(state);
        let holds = match write.precondition {
            Precondition::Absent => current.is_none(),
            Precondition::Present => current.is_some(),
            Precondition::Revision(revision) => current.as_ref().is_some_and(|current| current.resource_version() == revision),
            Precondition::Any => true,
        };
        // There is nothing to delete: no revision is spent, as in etcd.
        if !holds || (write.object.is_none() && current.is_none()) {
            return Err(Refused { error: CommitError::Precondition { current }, rests_on_batch });
        }
        let bytes = match (&write.object, &current) {
            (Some(object), _) => splice::insert(object, revision),
            (None, Some(current)) => splice::replace(current.bytes(), revision),
            (None, None) => None,
        };
        let Some(bytes) = bytes else {
            return Err(refuse(CommitError::Unavailable("the object has no metadata".into())));
        };
        let object = Arc::new(Object::new(bytes, revision));
        match &write.object {
            Some(value) => {
                let stored = shared.sealing.seal(&key, value).map_err(|error| refuse(CommitError::Unavailable(format!("the object cannot be sealed: {error}"))))?;
                log.put(&key, &stored);
                self.overlay.insert(Arc::clone(&key), Some(Arc::clone(&object)));
                self.changes.push(Change::Put(key, Arc::clone(&object)));
            }
            None => {
                log.delete(&key);
                self.overlay.insert(Arc::clone(&key), None);
                self.changes.push(Change::Delete(key, Arc::clone(&object)));
            }
        }
        Ok(object)
    }

    /// No further than the writes before it in the batch.
    pub fn compact(&mut self, shared: &Shared, revision: Revision, log: &mut BatchBuilder) {
        let state = shared.state.read();
        let revision = revision.min(state.revision() + self.changes.len() as u64);
        if revision > state.oldest().max(self.compact.unwrap_or(0)) {
            log.compact(revision);
            self.compact = Some(revision);
        }
    }
}

pub fn unavailable(error: &io::Error) -> CommitError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => CommitError::Full(error.to_string()),
        _ => CommitError::Unavailable(format!("the disk failed ({error}); reads go on")),
    }
}

#[derive(Default)]
struct Waiting {
    requests: VecDeque<Request>,
    closed: bool,
}

/// What waits for the writer.
#[derive(Default)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    some: Condvar,
}

impl Queue {
    pub fn push(&self, request: Request, limit: usize) -> Result<(), CommitError> {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err(CommitError::Unavailable("the store is closed".into()));
        }
        if waiting.requests.len() >= limit {
            return Err(CommitError::Unavailable(format!("{limit} writes wait for the disk already")));
        }
        waiting.requests.push_back(request);
        // A writer that is busy looks again by itself.
        if waiting.requests.len() == 1 {
            self.some.notify_one();
        }
        Ok(())
    }

    pub fn close(&self) {
        self.waiting.lock().closed = true;
        self.some.notify_one();
    }

    /// Everything that waits; `None` when closed and empty.
    fn take(&self) -> Option<VecDeque<Request>> {
        let mut waiting = self.waiting.lock();
        loop {
            if !waiting.requests.is_empty() {
                return Some(std::mem::take(&mut waiting.requests));
            }
            if waiting.closed {
                return None;
            }
            self.some.wait(&mut waiting);
        }
    }
}

/// Ends the queue whichever way the writer ends, so that nobody waits for it in vain.
struct Ending(Arc<Queue>);

impl Drop for Ending {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting.lock();
        waiting.closed = true;
        waiting.requests.clear();
    }
}

pub struct Writer {
    pub shared: Arc<Shared>,
    pub queue: Arc<Queue>,
    pub log: Log,
    pub dir: PathBuf,
    pub faults: Option<Arc<dyn Faults>>,
    snapshot: Option<JoinHandle<()>>,
    /// Who waits for everything to be sealed anew.
    resealing: Vec<oneshot::Sender<Result<(), CommitError>>>,
    snapshot_runs: Arc<AtomicBool>,
}

impl Writer {
    pub fn new(shared: Arc<Shared>, queue: Arc<Queue>, log: Log, dir: PathBuf, faults: Option<Arc<dyn Faults>>) -> Self {
        Self { shared, queue, log, dir, faults, snapshot: None, resealing: Vec::new(), snapshot_runs: Arc::default() }
    }

    pub fn run(mut self) {
        let _ending = Ending(Arc::clone(&self.queue));
        let mut batch = BatchBuilder::new();
        while let Some(mut requests) = self.queue.take() {
            while !requests.is_empty() {
                self.batch(&mut requests, &mut batch);
                self.snapshot_if_due();
            }
        }
        if let Some(snapshot) = self.snapshot.take() {
            let _ = snapshot.join();
        }
    }

    fn batch(&mut self, requests: &mut VecDeque<Request>, log: &mut BatchBuilder) {
        let limits = &self.shared.limits;
        log.clear();
        let first = self.shared.revision.load(Ordering::Acquire) + 1;
        let mut pending = Pending::default();
        let mut writes = Vec::new();
        let mut compactions = Vec::new();
        while log.len() < limits.batch_bytes && log.records() < limits.batch_writes {
            match requests.pop_front() {
                Some(Request::Write(write, answer)) => match pending.accept(&self.shared, &write, log) {
                    Ok(object) => writes.push((answer, Ok(object))),
                    Err(Refused { error, rests_on_batch: true }) => writes.push((answer, Err(error))),
                    Err(Refused { error, .. }) => {
                        let _ = answer.send(Err(error));
                    }
                },
                Some(Request::Compact(revision, answer)) => {
                    pending.compact(&self.shared, revision, log);
                    compactions.push(answer);
                }
                Some(Request::Reseal(answer)) => self.resealing.push(answer),
                None => break,
            }
        }
        if !log.is_empty()
            && let Err(error) = self.log.append(log, first)
        {
            tracing::warn!(%error, dir = %self.dir.display(), "the store cannot write");
            let error = unavailable(&error);
            writes.into_iter().for_each(|(answer, _)| drop(answer.send(Err(error.clone()))));
            compactions.into_iter().for_each(|answer| drop(answer.send(Err(error.clone()))));
            return;
        }
        let Pending { changes, compact, .. } = pending;
        let wake = self.shared.publish(changes, compact);
        writes.into_iter().for_each(|(answer, outcome)| drop(answer.send(outcome)));
        compactions.into_iter().for_each(|answer| drop(answer.send(Ok(()))));
        wake.up();
    }

    /// A snapshot when the log has outgrown both its limit and the state; the segments before it go when it is complete.
    fn snapshot_if_due(&mut self) {
        let asked = std::mem::take(&mut self.resealing);
        if asked.is_empty() && (self.log.grown < self.shared.limits.snapshot_log_bytes || self.snapshot_runs.load(Ordering::Acquire)) {
            return;
        }
        if let Some(running) = self.snapshot.take().filter(|_| !asked.is_empty()) {
            // It may have sealed as it was done before.
            let _ = running.join();
        }
        let (revision, objects) = {
            let state = self.shared.state.read();
            if asked.is_empty() && self.log.grown < state.object_bytes() {
                return;
            }
            (state.revision(), state.all())
        };
        self.log.grown = 0;
        let boundary = match self.log.boundary(revision) {
            Ok(boundary) => boundary,
            Err(error) => {
                tracing::warn!(%error, "no log segment for a snapshot; it is tried again when the log has grown further");
                asked.into_iter().for_each(|answer| drop(answer.send(Err(unavailable(&error)))));
                return;
            }
        };
        let head = SnapshotHead { revision, boundary };
        let (dir, faults, runs, sealing) = (self.dir.clone(), self.faults.clone(), Arc::clone(&self.snapshot_runs), self.shared.sealing.clone());
        runs.store(true, Ordering::Release);
        let thread = std::thread::Builder::new().name("store-snapshot".into()).spawn(move || {
            let done = match snapshot::write(&dir.join(snapshot_name(revision)), head, &objects, &sealing, &faults) {
                Ok(()) => recover::remove_before(&dir, &head).map_err(|error| {
                    tracing::warn!(%error, "files that a snapshot stands for stay until the next one");
                    CommitError::Unavailable(error.to_string())
                }),
                Err(error) => {
                    tracing::warn!(%error, "no snapshot was written; it is tried again when the log has grown further");
                    Err(unavailable(&error))
                }
            };
            asked.into_iter().for_each(|answer| drop(answer.send(done.clone())));
            runs.store(false, Ordering::Release);
        });
        match thread {
            Ok(thread) => self.snapshot = Some(thread),
            Err(error) => {
                self.snapshot_runs.store(false, Ordering::Release);
                tracing::warn!(%error, "no thread for a snapshot");
            }
        }
    }
}
