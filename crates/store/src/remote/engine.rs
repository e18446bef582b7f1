//! `Remote`: the `Store` over an etcd.

use std::future::ready;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use api::Object;
use etcd::Client;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use super::config::{RemoteConfig, RemoteError};
use super::keys::Keys;
use super::leases::Leases;
use super::{barrier, mirror};
use crate::snapshot::{self, SnapshotHead};
use crate::types::{BoxFuture, CommitError, Compacted, Page, Revision, Store, Watch, Write};
use crate::writer::{Outcome, Shared};

/// What the engine's tasks share.
pub struct Inner {
    pub client: Client,
    pub keys: Keys,
    /// The mirror.
    pub shared: Arc<Shared>,
    /// How far the mirror is, for those who wait.
    pub reached: watch::Sender<Revision>,
    pub leases: Leases,
    pub expiring: Vec<(String, Duration)>,
    /// The version of the compaction's key as we know it.
    pub compactions: Mutex<u64>,
    pub cluster: u64,
    pub request_timeout: Duration,
}

impl Inner {
    pub fn shared_revision(&self) -> Revision {
        self.shared.revision.load(Ordering::Acquire)
    }

    /// Waits for the mirror; false when the time is over.
    pub async fn seen(&self, revision: Revision, deadline: Instant) -> bool {
        if self.shared_revision() >= revision {
            return true;
        }
        let mut reached = self.reached.subscribe();
        timeout_at(deadline, reached.wait_for(|reached| *reached >= revision)).await.is_ok()
    }
}

/// See the module head. Dropping it ends its watches; writes that are under way are finished.
pub struct Remote {
    inner: Arc<Inner>,
    barriers: barrier::Queue,
    runtime: Handle,
    tasks: Vec<AbortHandle>,
}

impl Remote {
    /// Reads everything; within a runtime, on which its tasks run.
    pub async fn open(config: RemoteConfig) -> Result<Self, RemoteError> {
        let client = Client::new(config.client)?;
        let keys = Keys::new(&config.root, &config.prefix);
        let deadline = Instant::now() + config.patience;
        crate::migrate::check(&client, &keys, deadline).await?;
        let loaded = mirror::load(&client, &keys, &config.sealing, deadline).await?;
        let reached = watch::Sender::new(loaded.state.revision());
        let inner = Arc::new(Inner {
            client,
            keys,
            shared: Arc::new(Shared::new(loaded.state, config.limits, config.sealing)),
            reached,
            leases: Leases::default(),
            expiring: config.expiring,
            compactions: Mutex::default(),
            cluster: loaded.cluster,
            request_timeout: config.request_timeout,
        });
        let (barriers, queue) = barrier::queue();
        let tasks = vec![tokio::spawn(mirror::follow(inner.clone())).abort_handle(), tokio::spawn(barrier::run(inner.clone(), queue)).abort_handle()];
        Ok(Self { inner, barriers, runtime: Handle::current(), tasks })
    }

    /// On the engine's own runtime, whoever asks: what was begun is finished.
    fn spawn<T: Send + 'static>(&self, work: impl Future<Output = Result<T, CommitError>> + Send + 'static) -> BoxFuture<'_, Result<T, CommitError>> {
        let task = self.runtime.spawn(work);
        Box::pin(async move { task.await.unwrap_or_else(|_| Err(CommitError::Unavailable("the store is closed".into()))) })
    }
}

impl Store for Remote {
    fn revision(&self) -> Revision {
        self.inner.shared_revision()
    }

    fn oldest(&self) -> Revision {
        self.inner.shared.state.read().oldest()
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn barrier(&self) -> BoxFuture<'_, Result<Revision, CommitError>> {
        match self.barriers.enter() {
            Ok(answered) => Box::pin(async move { answered.await.unwrap_or_else(|_| Err(CommitError::Unavailable("the store is closed".into()))) }),
            Err(error) => Box::pin(ready(Err(error))),
        }
    }

    fn get(&self, key: &str) -> Option<Arc<Object>> {
        self.inner.shared.state.read().get(key).cloned()
    }

    fn list(&self, prefix: &str, at: Option<Revision>, start_after: Option<&str>, limit: usize) -> Result<Page, Compacted> {
        self.inner.shared.state.read().list(prefix, at, start_after, limit)
    }

    fn count(&self, prefix: &str) -> usize {
        self.inner.shared.state.read().count(prefix)
    }

    fn count_at_most(&self, prefix: &str, most: usize) -> usize {
        self.inner.shared.state.read().count_at_most(prefix, most)
    }

    /// The write is on its way when this returns, whether or not the future is waited for.
    fn commit(&self, write: Write) -> BoxFuture<'_, Outcome> {
        self.spawn(self.inner.clone().commit(write))
    }

    fn watch(&self, prefix: &str, from: Revision) -> Result<Box<dyn Watch>, Compacted> {
        self.inner.shared.watch(prefix, from)
    }

    /// Of the mirror at once; of etcd if the turn is ours.
    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), CommitError>> {
        let revision = revision.min(self.revision());
        self.inner.shared.publish(Vec::new(), Some(revision)).up();
        let inner = self.inner.clone();
        self.spawn(async move { inner.compact_etcd(revision).await.map(drop) })
    }

    fn snapshot<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, Result<Revision, CommitError>> {
        let (inner, path) = (self.inner.clone(), path.to_owned());
        self.spawn(async move {
            let (revision, objects) = {
                let state = inner.shared.state.read();
                (state.revision(), state.all())
            };
            let name = path.display().to_string();
            let written = tokio::task::spawn_blocking(move || snapshot::write(&path, SnapshotHead { revision, boundary: 1 }, &objects, &inner.shared.sealing, &None)).await;
            match written {
                Ok(Ok(())) => Ok(revision),
                Ok(Err(error)) => Err(CommitError::Unavailable(format!("cannot write {name}: {error}"))),
                Err(_) => Err(CommitError::Unavailable("the snapshot was not finished".into())),
            }
        })
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        self.inner.shared.hub.close();
    }
}
