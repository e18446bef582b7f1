//! What all controllers hold: the client, the clock, the caches by kind.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::Clock;
use client::{BoxFuture, Client, Informer, Measured};
use plan::At;

/// How long a key waits for the caches to show what it has done, at most. Then it goes on: the server's own checks still hold.
pub const OBSERVE_LIMIT: Duration = Duration::from_secs(30);

/// A cache that one can wait for.
pub trait Observed: Send + Sync {
    /// Everything up to this resourceVersion is in the cache.
    fn reached(&self, revision: u64) -> BoxFuture<'_, ()>;
    /// The object with this uid is gone or on its way.
    fn deleted<'a>(&'a self, at: &'a At, uid: &'a str) -> BoxFuture<'a, ()>;
    fn synced(&self) -> BoxFuture<'_, ()>;
}

impl<T: 'static> Observed for Informer<T> {
    fn reached(&self, revision: u64) -> BoxFuture<'_, ()> {
        Box::pin(Informer::reached(self, revision))
    }

    fn deleted<'a>(&'a self, at: &'a At, uid: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(self.until(move |cache| match cache.object(at.namespace.as_deref().unwrap_or(""), &at.name) {
            Some(object) => object.meta().uid != uid || object.meta().deletion_timestamp.is_some(),
            None => true,
        }))
    }

    fn synced(&self) -> BoxFuture<'_, ()> {
        Box::pin(Informer::synced(self))
    }
}

pub struct Context {
    pub client: Client,
    pub clock: Arc<dyn Clock>,
    pub measured: Arc<Measured>,
    /// By group and plural.
    pub observed: HashMap<(String, String), Arc<dyn Observed>>,
}

impl Context {
    pub fn observed(&self, at: &At) -> Option<&Arc<dyn Observed>> {
        self.observed.get(&(at.group.clone(), at.plural.clone()))
    }
}
