//! The webhooks there are, compiled once and again when one was written: a request that no webhook is for pays an atomic load and a few comparisons.
//!
//! Writes of this process are noted at once ([`Follower::note`]); those of other API servers on the same store come as its events ([`run`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::api::Resource;
use arc_swap::ArcSwap;
use serde_json::Value;
use store::{Store, WatchItem};
use tokio::sync::watch;

use super::webhook::Webhook;
use crate::api::Api;

pub const GROUP: &str = "admissionregistration.k8s.io";
const MUTATING: &str = "/registry/mutatingwebhookconfigurations/";
const VALIDATING: &str = "/registry/validatingwebhookconfigurations/";
const FOLLOWED: [&str; 2] = [MUTATING, VALIDATING];

#[derive(Default)]
pub struct Index {
    generation: u64,
    /// By configuration's name, then in its order.
    pub mutating: Vec<Webhook>,
    pub validating: Vec<Webhook>,
}

impl Index {
    /// Nobody outside is asked about anything.
    pub fn is_idle(&self) -> bool {
        self.mutating.is_empty() && self.validating.is_empty()
    }
}

pub struct Follower {
    generation: AtomicU64,
    index: ArcSwap<Index>,
}

impl Default for Follower {
    fn default() -> Self {
        Self { generation: AtomicU64::new(1), index: ArcSwap::default() }
    }
}

impl Follower {
    /// A write of `row` has happened.
    pub fn note(&self, row: &Resource) {
        if row.group == GROUP {
            self.changed();
        }
    }

    fn changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    pub fn index(&self, store: &dyn Store) -> Arc<Index> {
        // Read before the list: what is written meanwhile makes a newer generation.
        let generation = self.generation.load(Ordering::Acquire);
        let known = self.index.load_full();
        if known.generation == generation {
            return known;
        }
        let fresh = Arc::new(Index { generation, mutating: webhooks(store, MUTATING), validating: webhooks(store, VALIDATING) });
        self.index.store(fresh.clone());
        fresh
    }
}

fn webhooks(store: &dyn Store, prefix: &str) -> Vec<Webhook> {
    let configurations: Vec<Value> = store.list(prefix, None, None, 0).map(|page| page.items.iter().filter_map(|(_, object)| object.value().ok()).collect()).unwrap_or_default();
    configurations.iter().flat_map(|configuration| configuration.get("webhooks").and_then(Value::as_array).into_iter().flatten()).map(Webhook::of).collect()
}

/// Until `shutdown` becomes true or its sender is gone.
pub async fn run(api: Arc<Api>, shutdown: watch::Receiver<bool>) {
    futures_util::future::join_all(FOLLOWED.iter().map(|prefix| follow(&api, prefix, shutdown.clone()))).await;
}

async fn follow(api: &Api, prefix: &str, mut shutdown: watch::Receiver<bool>) {
    loop {
        let Ok(mut events) = api.store.watch(prefix, api.store.revision()) else { continue };
        // Whatever came between two watches is read anew.
        api.admission.changed();
        loop {
            let item = tokio::select! {
                item = events.next() => item,
                _ = shutdown.wait_for(|stop| *stop) => return,
            };
            match item {
                None => return,
                Some(WatchItem::Expired(_)) => break,
                Some(WatchItem::Progress(_)) => {}
                Some(WatchItem::Event(_)) => api.admission.changed(),
            }
        }
    }
}
