//! The embedded engine: the key space in memory, with a log and snapshots in one directory.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::future::ready;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use api::Object;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::config::{Config, Durability, Fault, Faults};
use crate::error::{OpenError, OpenReport};
use crate::frame::BatchBuilder;
use crate::migrate;
use crate::recover;
use crate::sealing::Sealing;
use crate::snapshot::{self, SnapshotHead, snapshot_name};
use crate::state::{FIRST_REVISION, State};
use crate::types::{BoxFuture, CommitError, Compacted, Page, Revision, Store, Watch, Write};
use crate::writer::{Outcome, Pending, Queue, Request, Shared, Writer, unavailable};

/// See the module head. Dropping it writes what still waits and closes its watches.
pub struct Embedded {
    shared: Arc<Shared>,
    engine: Engine,
    report: OpenReport,
}

enum Engine {
    Disk {
        dir: PathBuf,
        queue: Arc<Queue>,
        writer: Option<JoinHandle<()>>,
        _lock: recover::Lock,
    },
    Memory {
        /// Only for its records' rules; nothing is written of it.
        batch: Mutex<BatchBuilder>,
        faults: Option<Arc<dyn Faults>>,
    },
}

impl Embedded {
    pub fn open(config: Config) -> Result<Self, OpenError> {
        if config.durability == Durability::Disk
            && let Some((to, revision)) = migrate::moved_away(&config.dir)
        {
            return Err(OpenError::Moved { dir: config.dir, to, revision });
        }
        Self::open_anyway(config)
    }

    /// Also one that was moved away.
    pub(crate) fn open_anyway(config: Config) -> Result<Self, OpenError> {
        if config.durability == Durability::Memory {
            let shared = Arc::new(Shared::new(State::new(FIRST_REVISION), config.limits, config.sealing));
            let engine = Engine::Memory { batch: Mutex::new(BatchBuilder::new()), faults: config.faults };
            return Ok(Self { shared, engine, report: OpenReport { revision: FIRST_REVISION, ..OpenReport::default() } });
        }
        let opened = recover::open(&config)?;
        let shared = Arc::new(Shared::new(opened.state, config.limits, config.sealing));
        let queue = Arc::new(Queue::default());
        let writer = Writer::new(Arc::clone(&shared), Arc::clone(&queue), opened.log, config.dir.clone(), config.faults);
        let writer = std::thread::Builder::new()
            .name("store-log".into())
            .spawn(move || writer.run())
            .map_err(OpenError::io("start the writer of", &config.dir))?;
        if opened.stale {
            // The key was another one when it was written: from here on it lies under today's. Nobody waits for it.
            tracing::info!("something is stored under an old key, or open: everything is sealed anew");
            let _ = queue.push(Request::Reseal(oneshot::channel().0), usize::MAX);
        }
        Ok(Self { shared, engine: Engine::Disk { dir: config.dir, queue, writer: Some(writer), _lock: opened.lock }, report: opened.report })
    }

    /// Makes `dir` a store with the state of a snapshot file. It must be empty or not there; open it afterwards.
    pub fn restore(file: &Path, dir: &Path) -> Result<Revision, OpenError> {
        let (head, state, _) = snapshot::read(file, None)?;
        recover::make_dir(dir)?;
        let mut entries = fs::read_dir(dir).map_err(OpenError::io("list", dir))?;
        if entries.next().is_some() {
            return Err(OpenError::NotEmpty { dir: dir.into() });
        }
        let _lock = recover::lock(dir)?;
        let path = dir.join(snapshot_name(head.revision));
        let head = SnapshotHead { boundary: 1, ..head };
        snapshot::write(&path, head, &state.all(), &Sealing::default(), &None).map_err(OpenError::io("write", &path))?;
        Ok(head.revision)
    }

    /// What opening found.
    pub fn report(&self) -> &OpenReport {
        &self.report
    }

    fn request<T: Send + 'static>(
        &self,
        queue: &Queue,
        make: impl FnOnce(oneshot::Sender<Result<T, CommitError>>) -> Request,
    ) -> BoxFuture<'_, Result<T, CommitError>> {
        let (answer, answered) = oneshot::channel();
        if let Err(error) = queue.push(make(answer), self.shared.limits.queued_writes) {
            return Box::pin(ready(Err(error)));
        }
        Box::pin(async move { answered.await.unwrap_or_else(|_| Err(CommitError::Unavailable("the store is closed".into()))) })
    }

    fn commit_in_memory(&self, batch: &Mutex<BatchBuilder>, faults: &Option<Arc<dyn Faults>>, write: &Write) -> Outcome {
        let mut batch = batch.lock();
        batch.clear();
        let mut pending = Pending::default();
        let object = pending.accept(&self.shared, write, &mut batch).map_err(|refused| refused.error)?;
        if let Some(Fault::Fail(error) | Fault::Torn(_, error)) = faults.as_ref().and_then(|faults| faults.write(batch.len())) {
            return Err(unavailable(&error));
        }
        let wake = self.shared.publish(pending.changes, None);
        drop(batch);
        wake.up();
        Ok(object)
    }
}

/// In which the kernel counts what a file takes.
const BLOCK_BYTES: u64 = 512;

impl Store for Embedded {
    fn revision(&self) -> Revision {
        self.shared.revision.load(Ordering::Acquire)
    }

    fn oldest(&self) -> Revision {
        self.shared.state.read().oldest()
    }

    fn barrier(&self) -> BoxFuture<'_, Result<Revision, CommitError>> {
        // A write is acknowledged after it is visible.
        Box::pin(ready(Ok(self.revision())))
    }

    fn get(&self, key: &str) -> Option<Arc<Object>> {
        self.shared.state.read().get(key).cloned()
    }

    fn list(&self, prefix: &str, at: Option<Revision>, start_after: Option<&str>, limit: usize) -> Result<Page, Compacted> {
        self.shared.state.read().list(prefix, at, start_after, limit)
    }

    fn count(&self, prefix: &str) -> usize {
        self.shared.state.read().count(prefix)
    }

    fn count_at_most(&self, prefix: &str, most: usize) -> usize {
        self.shared.state.read().count_at_most(prefix, most)
    }

    /// The write is on its way when this returns, whether or not the future is waited for.
    fn commit(&self, write: Write) -> BoxFuture<'_, Outcome> {
        match &self.engine {
            Engine::Disk { queue, .. } => self.request(queue, |answer| Request::Write(write, answer)),
            Engine::Memory { batch, faults } => Box::pin(ready(self.commit_in_memory(batch, faults, &write))),
        }
    }

    fn watch(&self, prefix: &str, from: Revision) -> Result<Box<dyn Watch>, Compacted> {
        self.shared.watch(prefix, from)
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), CommitError>> {
        match &self.engine {
            Engine::Disk { queue, .. } => self.request(queue, |answer| Request::Compact(revision, answer)),
            Engine::Memory { batch, .. } => {
                let mut batch = batch.lock();
                batch.clear();
                let mut pending = Pending::default();
                pending.compact(&self.shared, revision, &mut batch);
                self.shared.publish(Vec::new(), pending.compact).up();
                Box::pin(ready(Ok(())))
            }
        }
    }

    fn reseal(&self) -> BoxFuture<'_, Result<(), CommitError>> {
        match &self.engine {
            Engine::Disk { queue, .. } => self.request(queue, Request::Reseal),
            Engine::Memory { .. } => Box::pin(ready(Ok(()))),
        }
    }

    fn size_bytes(&self) -> Option<u64> {
        let Engine::Disk { dir, .. } = &self.engine else { return None };
        let files = fs::read_dir(dir).ok()?.flatten().filter_map(|entry| entry.metadata().ok()).filter(fs::Metadata::is_file);
        Some(files.map(|file| file.blocks() * BLOCK_BYTES).sum())
    }

    fn snapshot<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, Result<Revision, CommitError>> {
        let (revision, objects) = {
            let state = self.shared.state.read();
            (state.revision(), state.all())
        };
        let (path, sealing) = (path.to_owned(), self.shared.sealing.clone());
        let write = move || {
            snapshot::write(&path, SnapshotHead { revision, boundary: 1 }, &objects, &sealing, &None)
                .map(|()| revision)
                .map_err(|error| CommitError::Unavailable(format!("cannot write {}: {error}", path.display())))
        };
        if matches!(self.engine, Engine::Memory { .. }) {
            return Box::pin(ready(write()));
        }
        let (answer, answered) = oneshot::channel();
        let thread = std::thread::Builder::new().name("store-backup".into()).spawn(move || drop(answer.send(write())));
        Box::pin(async move {
            match thread {
                Ok(_) => answered.await.unwrap_or_else(|_| Err(CommitError::Unavailable("the snapshot was not finished".into()))),
                Err(error) => Err(unavailable(&error)),
            }
        })
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        if let Engine::Disk { queue, writer, .. } = &mut self.engine {
            queue.close();
            if let Some(writer) = writer.take() {
                let _ = writer.join();
            }
        }
        self.shared.hub.close();
    }
}
