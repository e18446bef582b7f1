//! The webhooks and policies there are, compiled once and again when one was written: a request that no webhook is for pays an atomic load and a few comparisons.
//!
//! Writes of this process are noted at once ([`Follower::note`]); those of other API servers on the same store come as its events ([`run`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::api::Resource;
use arc_swap::ArcSwap;
use serde_json::Value;
use store::Store;
use tokio::sync::watch;

use super::mutating_policy::{self, MutatingPolicy};
use super::validating_policy::{self, ValidatingPolicy};
use super::webhook::Webhook;
use super::type_checking;
use crate::api::Api;
use crate::follow::follow;

pub const GROUP: &str = "admissionregistration.k8s.io";
const MUTATING: &str = "/registry/mutatingwebhookconfigurations/";
const VALIDATING: &str = "/registry/validatingwebhookconfigurations/";
const MUTATING_POLICIES: &str = "/registry/mutatingadmissionpolicies/";
const MUTATING_BINDINGS: &str = "/registry/mutatingadmissionpolicybindings/";
const VALIDATING_POLICIES: &str = "/registry/validatingadmissionpolicies/";
const VALIDATING_BINDINGS: &str = "/registry/validatingadmissionpolicybindings/";
const FOLLOWED: [&str; 6] = [MUTATING, VALIDATING, MUTATING_POLICIES, MUTATING_BINDINGS, VALIDATING_POLICIES, VALIDATING_BINDINGS];

#[derive(Default)]
pub struct Index {
    generation: u64,
    /// By configuration's name, then in its order.
    pub mutating: Vec<Webhook>,
    pub validating: Vec<Webhook>,
    /// Those with bindings, by name.
    pub mutating_policies: Vec<MutatingPolicy>,
    pub validating_policies: Vec<ValidatingPolicy>,
}

impl Index {
    /// Nobody outside is asked about anything.
    pub fn is_idle(&self) -> bool {
        self.mutating.is_empty() && self.validating.is_empty() && self.mutating_policies.is_empty() && self.validating_policies.is_empty()
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
        let bindings = values(store, MUTATING_BINDINGS);
        let mutating_policies = values(store, MUTATING_POLICIES).iter().filter_map(|policy| MutatingPolicy::of(policy, &bindings, mutating_policy::compile, cel::Env::with_patch_types)).collect();
        let bindings = values(store, VALIDATING_BINDINGS);
        let validating_policies = values(store, VALIDATING_POLICIES).iter().filter_map(|policy| ValidatingPolicy::of(policy, &bindings, validating_policy::compile, |env| env)).collect();
        let fresh = Arc::new(Index { generation, mutating: webhooks(store, MUTATING), validating: webhooks(store, VALIDATING), mutating_policies, validating_policies });
        self.index.store(fresh.clone());
        fresh
    }
}

fn values(store: &dyn Store, prefix: &str) -> Vec<Value> {
    store.list(prefix, None, None, 0).map(|page| page.items.iter().filter_map(|(_, object)| object.value().ok()).collect()).unwrap_or_default()
}

fn webhooks(store: &dyn Store, prefix: &str) -> Vec<Webhook> {
    values(store, prefix).iter().flat_map(|configuration| configuration.get("webhooks").and_then(Value::as_array).into_iter().flatten()).map(Webhook::of).collect()
}

/// Until `shutdown` becomes true or its sender is gone.
pub async fn run(api: Arc<Api>, shutdown: watch::Receiver<bool>) {
    let note = async |prefix: &&'static str| {
        let mut written = follow(&api.store, prefix, shutdown.clone());
        while written.next().await.is_some() {
            api.admission.changed();
        }
    };
    tokio::join!(futures_util::future::join_all(FOLLOWED.iter().map(note)), type_checking::run(&api, shutdown.clone()));
}
