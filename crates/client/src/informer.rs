//! An informer: keeps a [`Cache`] of one kind equal to the API server's and tells of every change, as `client-go`'s shared informers.
//!
//! Lists once, then watches from the list's resourceVersion with bookmarks; a watch that ends goes on where it stopped; `410 Gone` lists again, and what
//! happened meanwhile is told as differences; any other error is retried after a growing, jittered pause. Nothing is polled and nothing is resynced.
//!
//! ```text
//! let pods = Informer::<Pod>::of(&client, None)            // all namespaces
//!     .fields("spec.nodeName=node1")                       // optional selectors
//!     .index("node", |pod| vec![…])                        // optional indexes
//!     .index_owners()
//!     .on_change({ let queue = queue.clone(); move |change| queue.add(change.key.clone()) })
//!     .start();                                            // spawns the task; it ends when the last clone is dropped
//! pods.synced().await;
//! let pod: Option<Arc<Pod>> = pods.cache().get("default", "web");
//! ```
//! For kinds without a type: `Informer::untyped(&client, target)`.

use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::k8s::Resource as ResourceConsts;
use api::{Object, Status};
use futures_util::{FutureExt, StreamExt};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::cache::{Cache, Change, IndexFn, OWNERS, Untyped};
use crate::changes::Changes;
use crate::transport::{ListOptions, Target, WatchEvent, WatchOptions};
use crate::typed::Client;

/// The pause after the first error; each further error in a row doubles it.
pub const BACKOFF_BASE: Duration = Duration::from_millis(100);
/// The longest pause between two tries to reach the server (upstream's reflector: 30 s).
pub const BACKOFF_LIMIT: Duration = Duration::from_secs(30);
/// From then on a pause ends when the server has answered anybody; not before, as it may answer some and not others.
pub const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
/// A watch that says nothing and ends sooner counts as an error.
pub const SHORTEST_WATCH: Duration = Duration::from_secs(1);

/// Chance, passed in: each call gives a number from 0 (inclusive) to 1 (exclusive).
pub type Jitter = Arc<dyn Fn() -> f64 + Send + Sync>;

/// A repeatable source: the same seed gives the same numbers.
pub fn seeded_jitter(seed: u64) -> Jitter {
    let state = AtomicU64::new(seed);
    Arc::new(move || {
        // SplitMix64.
        let mut z = state.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed).wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    })
}

type Handler = Box<dyn Fn(&Change) + Send + Sync>;

/// What an informer is to do; `start` sets it going.
pub struct Builder<T> {
    client: Client,
    target: Target,
    label_selector: String,
    field_selector: String,
    indexes: Vec<(&'static str, IndexFn)>,
    handlers: Vec<Handler>,
    jitter: Option<Jitter>,
    kind: PhantomData<fn() -> T>,
}

impl<T: 'static> Builder<T> {
    fn new(client: &Client, target: Target) -> Self {
        Self {
            client: client.clone(),
            target,
            label_selector: String::new(),
            field_selector: String::new(),
            indexes: Vec::new(),
            handlers: Vec::new(),
            jitter: None,
            kind: PhantomData,
        }
    }

    /// Only objects that match this label selector.
    pub fn labels(mut self, selector: &str) -> Self {
        self.label_selector = selector.to_owned();
        self
    }

    /// Only objects that match this field selector.
    pub fn fields(mut self, selector: &str) -> Self {
        self.field_selector = selector.to_owned();
        self
    }

    /// `cache.objects_by(name, value)` finds the objects for which `function` gives `value`.
    pub fn index(mut self, name: &'static str, function: impl Fn(&Object) -> Vec<String> + Send + Sync + 'static) -> Self {
        self.indexes.push((name, Arc::new(function)));
        self
    }

    /// `cache.objects_by(label, value)` finds the objects with that label.
    pub fn index_label(self, label: &'static str) -> Self {
        self.index(label, move |object| object.meta().labels.get(label).cloned().into_iter().collect())
    }

    /// `cache.owned_by(uid)` finds the objects with that owner.
    pub fn index_owners(self) -> Self {
        self.index(OWNERS, |object| object.meta().owner_references.iter().map(|owner| owner.uid.clone()).collect())
    }

    /// Called for every change, in order, after the cache has it. Must be quick and must not wait: it is for adding to a [`crate::Queue`].
    pub fn on_change(mut self, handler: impl Fn(&Change) + Send + Sync + 'static) -> Self {
        self.handlers.push(Box::new(handler));
        self
    }

    /// The source of chance for pauses after errors; without it they are repeatable.
    pub fn jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = Some(jitter);
        self
    }

    /// Spawns the informer's task on the current runtime.
    pub fn start(self) -> Informer<T> {
        let cache: Cache<Untyped> = Cache::new(self.indexes);
        let (progress, _) = watch::channel(Progress::default());
        let shared = Arc::new(Shared { cache, handlers: Mutex::new(self.handlers), progress, target: self.target });
        let jitter = self
            .jitter
            .unwrap_or_else(|| seeded_jitter(shared.target.path().bytes().fold(7, |seed, byte| (seed * 31 + u64::from(byte)) & 0xFFFF_FFFF)));
        let task =
            Task { client: self.client, shared: shared.clone(), label_selector: self.label_selector, field_selector: self.field_selector, jitter };
        let handle = task.spawn();
        Informer { cache: shared.cache.of(), shared, task: Arc::new(EndTask(handle)) }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Progress {
    synced: bool,
    revision: u64,
}

/// What does not depend on the type of the objects, and so is the same code for all.
struct Shared {
    cache: Cache<Untyped>,
    /// Held while a change goes into the cache and is told, so that a new subscriber misses nothing and gets nothing twice.
    handlers: Mutex<Vec<Handler>>,
    progress: watch::Sender<Progress>,
    target: Target,
}

struct EndTask(AbortHandle);

impl Drop for EndTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// See the module head. Cheap to clone; all clones are one informer, which ends with the last of them.
pub struct Informer<T> {
    shared: Arc<Shared>,
    cache: Cache<T>,
    task: Arc<EndTask>,
}

impl<T> Clone for Informer<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), cache: self.cache.clone(), task: self.task.clone() }
    }
}

impl<T: ResourceConsts + 'static> Informer<T> {
    /// Objects of kind `T` in `namespace`; with `None` those of all namespaces, or of a cluster-wide kind.
    pub fn of(client: &Client, namespace: Option<&str>) -> Builder<T> {
        Builder::new(
            client,
            Target {
                group: T::GROUP.to_owned(),
                version: T::VERSION.to_owned(),
                plural: T::URL_PATH_SEGMENT.to_owned(),
                namespace: namespace.map(str::to_owned),
                ..Target::default()
            },
        )
    }
}

impl Informer<Untyped> {
    /// Objects of any kind, for those who want metadata or JSON only.
    pub fn untyped(client: &Client, target: Target) -> Builder<Untyped> {
        Builder::new(client, Target { name: None, subresource: None, ..target })
    }
}

impl<T: 'static> Informer<T> {
    pub fn cache(&self) -> &Cache<T> {
        &self.cache
    }

    pub fn target(&self) -> &Target {
        &self.shared.target
    }

    /// The cache holds a complete list.
    pub fn has_synced(&self) -> bool {
        self.shared.progress.borrow().synced
    }

    /// Waits for the first complete list.
    pub async fn synced(&self) {
        self.wait_for(|progress| progress.synced).await;
    }

    /// Waits until everything up to `revision` (a resourceVersion of this kind, as one gets from a write) is in the cache.
    pub async fn reached(&self, revision: u64) {
        self.wait_for(|progress| progress.revision >= revision).await;
    }

    /// Waits until the cache is as `done` wants it; asked again after each change.
    pub async fn until(&self, mut done: impl FnMut(&Cache<T>) -> bool) {
        self.wait_for(|_| done(&self.cache)).await;
    }

    async fn wait_for(&self, mut done: impl FnMut(&Progress) -> bool) {
        let mut progress = self.shared.progress.subscribe();
        // The sender lives in `shared`, which this call borrows: the wait can only end by the condition.
        let _ = progress.wait_for(|progress| done(progress)).await;
    }

    /// Changes from now on, after all present objects as creations. What is not taken yet is held once per object.
    pub fn subscribe(&self) -> Changes {
        let changes = Changes::new();
        let inbox = changes.inbox();
        let mut handlers = self.shared.handlers.lock();
        for object in self.shared.cache.objects() {
            inbox.push(&Change { key: crate::cache::ObjectKey::of(&object), old: None, new: Some(object) });
        }
        handlers.push(Box::new(move |change| inbox.push(change)));
        changes
    }

    /// Like [`Builder::on_change`] on a running informer: present objects come first, as creations. The handler must not call `subscribe` or `on_change`.
    pub fn on_change(&self, handler: impl Fn(&Change) + Send + Sync + 'static) {
        let mut handlers = self.shared.handlers.lock();
        for object in self.shared.cache.objects() {
            handler(&Change { key: crate::cache::ObjectKey::of(&object), old: None, new: Some(object) });
        }
        handlers.push(Box::new(handler));
    }
}

struct Task {
    client: Client,
    shared: Arc<Shared>,
    label_selector: String,
    field_selector: String,
    jitter: Jitter,
}

impl Task {
    fn spawn(self) -> AbortHandle {
        tokio::spawn(self.run()).abort_handle()
    }

    async fn run(self) {
        let mut failures = 0u32;
        // None: list first.
        let mut from: Option<String> = None;
        loop {
            let returns = self.client.transport().returns();
            let pass = async {
                match &from {
                    None => self.list().await.map(|revision| from = Some(revision)),
                    Some(_) => self.watch(&mut from, &mut failures).await,
                }
            };
            // A panic costs one pass: what it kept from the cache is in the next list.
            let outcome = AssertUnwindSafe(pass).catch_unwind().await.unwrap_or_else(|_| {
                tracing::error!(path = self.shared.target.path(), "a panic in an informer: listing again");
                from = None;
                Err(Status::internal("the informer panicked"))
            });
            let Err(status) = outcome else { continue };
            if status.is_expired() {
                tracing::debug!(path = self.shared.target.path(), "the watch is too old, listing again");
                from = None;
                // A server that answers "expired" to everything must not be hammered.
                if failures == 0 {
                    failures = 1;
                    continue;
                }
            }
            let pause = self.pause(&status, failures);
            tracing::debug!(path = self.shared.target.path(), error = %status, ?pause, "cannot list or watch, trying again");
            failures = failures.saturating_add(1);
            rest(pause, returns).await;
        }
    }

    /// 50 to 100 % of the doubled base; the server's own wish if it is longer.
    fn pause(&self, status: &Status, failures: u32) -> Duration {
        let full = BACKOFF_BASE.saturating_mul(1u32.checked_shl(failures).unwrap_or(u32::MAX)).min(BACKOFF_LIMIT);
        let asked = Duration::from_secs(status.details.retry_after_seconds.unwrap_or(0).into());
        full.mul_f64(0.5 + (self.jitter)().clamp(0.0, 1.0) / 2.0).max(asked)
    }

    async fn list(&self) -> Result<String, Status> {
        let options =
            ListOptions { label_selector: self.label_selector.clone(), field_selector: self.field_selector.clone(), ..ListOptions::default() };
        let list = self.client.transport().list(&self.shared.target, &options).await?;
        let revision = list.resource_version.parse().unwrap_or(0);
        self.tell(|cache| cache.replace(list.items, revision), true);
        Ok(list.resource_version)
    }

    /// Returns when the watch ended in good order.
    async fn watch(&self, from: &mut Option<String>, failures: &mut u32) -> Result<(), Status> {
        let options = WatchOptions {
            label_selector: self.label_selector.clone(),
            field_selector: self.field_selector.clone(),
            resource_version: from.clone().unwrap_or_default(),
            allow_bookmarks: true,
            ..WatchOptions::default()
        };
        let mut stream = self.client.transport().watch(&self.shared.target, &options).await?;
        let started = Instant::now();
        let mut heard = false;
        while let Some(event) = stream.next().await {
            let event = event?;
            (heard, *failures) = (true, 0);
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    *from = Some(object.resource_version().to_string());
                    self.tell(|cache| cache.put(object).into_iter().collect(), false);
                }
                WatchEvent::Deleted(object) => {
                    *from = Some(object.resource_version().to_string());
                    self.tell(|cache| cache.remove(&object).into_iter().collect(), false);
                }
                WatchEvent::Bookmark { resource_version, .. } => {
                    let revision = resource_version.parse().unwrap_or(0);
                    *from = Some(resource_version);
                    self.tell(
                        |cache| {
                            cache.advance(revision);
                            Vec::new()
                        },
                        false,
                    );
                }
            }
        }
        if heard || started.elapsed() >= SHORTEST_WATCH {
            *failures = 0;
            return Ok(());
        }
        Err(Status::unavailable("the watch ended before it said anything"))
    }

    /// Changes the cache, tells the handlers, then those who wait.
    fn tell(&self, change: impl FnOnce(&Cache<Untyped>) -> Vec<Change>, synced: bool) {
        let handlers = self.shared.handlers.lock();
        for change in change(&self.shared.cache) {
            for handler in handlers.iter() {
                // A panic costs one handler one change.
                if std::panic::catch_unwind(AssertUnwindSafe(|| handler(&change))).is_err() {
                    tracing::error!(path = self.shared.target.path(), key = %change.key, "a handler of changes panicked");
                }
            }
        }
        drop(handlers);
        let revision = self.shared.cache.revision();
        self.shared.progress.send_modify(|progress| {
            progress.synced |= synced;
            progress.revision = revision;
        });
    }
}

/// Until the pause is over, or the server is back.
async fn rest(pause: Duration, returns: Option<watch::Receiver<u64>>) {
    let shortest = pause.min(SHORTEST_PAUSE);
    tokio::time::sleep(shortest).await;
    let rest = tokio::time::sleep(pause - shortest);
    match returns {
        Some(mut returns) => tokio::select! {
            () = rest => {}
            Ok(()) = returns.changed() => {}
        },
        None => rest.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pause_ends_when_the_server_is_back_but_not_at_once() {
        let (came_back, returns) = watch::channel(0);
        let took = |pause: u64, returns: Option<watch::Receiver<u64>>| async move {
            let begun = Instant::now();
            rest(Duration::from_secs(pause), returns).await;
            begun.elapsed().as_secs()
        };
        assert_eq!(took(30, None).await, 30);
        assert_eq!(took(30, Some(returns.clone())).await, 30);
        came_back.send_modify(|times| *times += 1);
        assert_eq!(took(30, Some(returns.clone())).await, 1);
        let later = async {
            tokio::time::sleep(Duration::from_secs(7)).await;
            came_back.send_modify(|times| *times += 1);
        };
        let mut returns = returns;
        returns.mark_unchanged();
        assert_eq!(tokio::join!(took(30, Some(returns.clone())), later).0, 7);
        drop(came_back);
        returns.mark_unchanged();
        assert_eq!(took(30, Some(returns)).await, 30);
    }

    #[test]
    fn jitter_is_repeatable_and_in_range() {
        let (one, two) = (seeded_jitter(1), seeded_jitter(1));
        for _ in 0..1000 {
            let value = one();
            assert_eq!(value, two());
            assert!((0.0..1.0).contains(&value));
        }
    }
}
