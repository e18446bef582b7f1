//! Runs [`plan::quota`]: counts anew what a quota bounds when the quota is new, its bounds change, or something goes that it counts.
//!
//! Counted is what the server says, not what the caches show: a cache that lags would take back what admission has just given.

use std::sync::Arc;

use api::Typed as _;
use api::k8s::api::core::v1::{Pod, ResourceQuota};
use api::usage::{self, Amounts};
use api::{Object, Status};
use client::{BoxFuture, Change, Client, ListOptions, ObjectKey, Queue};
use jiff::Timestamp;
use plan::Plan;
use plan::quota::View;
use plan::replicaset::Failure;

use crate::garbage::collection;
use crate::informers::Informers;
use crate::kinds::Kinds;
use crate::runner::Controller;

pub struct Quotas {
    pub informers: Arc<Informers>,
    pub client: Client,
    pub kinds: Arc<Kinds>,
    pub queue: Queue<ObjectKey>,
}

/// All quotas of a namespace have something to count.
pub fn recount(informers: &Informers, queue: &Queue<ObjectKey>, namespace: &str) {
    for quota in informers.quotas.cache().list_in(namespace) {
        queue.add(ObjectKey::new(namespace, plan::meta::name(quota.as_ref())));
    }
}

fn hard(object: &Arc<Object>) -> Option<ResourceQuota> {
    object.typed::<ResourceQuota>().ok().map(|quota| (*quota).clone())
}

impl Quotas {
    pub fn keys(&self) -> Queue<ObjectKey> {
        let queue = self.queue.clone();
        self.informers.quotas.on_change(move |change: &Change| {
            // Status changes are admission's and ours.
            let bounds = |object: &Option<Arc<Object>>| object.as_ref().and_then(hard).and_then(|quota| quota.spec).and_then(|spec| spec.hard);
            if change.new.is_some() && (change.old.is_none() || bounds(&change.old) != bounds(&change.new)) {
                queue.add(change.key.clone());
            }
        });
        // What an object uses can shrink without its going; that it is gone `run` tells.
        let (queue, informers) = (self.queue.clone(), self.informers.clone());
        self.informers.pods.on_change(move |change| {
            let finished = |object: &Option<Arc<Object>>| object.as_ref().and_then(|object| object.typed::<Pod>().ok()).is_some_and(|pod| plan::pods::finished(&pod));
            if change.old.is_some() && finished(&change.new) && !finished(&change.old) {
                recount(&informers, &queue, &change.key.namespace);
            }
        });
        let shrunk = || {
            let (queue, informers) = (self.queue.clone(), self.informers.clone());
            move |change: &Change| {
                if change.old.is_some() && change.new.is_some() {
                    recount(&informers, &queue, &change.key.namespace);
                }
            }
        };
        self.informers.services.on_change(shrunk());
        self.informers.claims.on_change(shrunk());
        self.queue.clone()
    }

    async fn load(&self, key: &ObjectKey, now: Timestamp) -> Result<Option<View>, Status> {
        let Some(quota) = self.informers.quotas.cache().get(&key.namespace, &key.name) else { return Ok(None) };
        let value = quota.to_value().map_err(Status::internal)?;
        let bounds = usage::amounts(&value, "spec.hard");
        let mut used = Amounts::new();
        for row in self.kinds.all().iter().filter(|row| row.namespaced()) {
            let names: Vec<&String> = bounds.keys().filter(|name| usage::tracks(row, name)).collect();
            if names.is_empty() {
                continue;
            }
            let list = self.client.transport().list(&collection(row, Some(&key.namespace)), &ListOptions::default()).await?;
            for name in names {
                used.entry(name.clone()).or_default();
            }
            for object in &list.items {
                let object = object.value().map_err(Status::internal)?;
                if !usage::in_scope(&value, row, &object) {
                    continue;
                }
                for (name, amount) in usage::of(row, &object, now) {
                    if let Some(sum) = used.get_mut(&name) {
                        *sum = sum.plus(&amount);
                    }
                }
            }
        }
        Ok(Some(View { quota, used }))
    }
}

impl Controller for Quotas {
    type Key = ObjectKey;
    const NAME: &'static str = "resourcequota-controller";
    const QUEUE: &'static str = "resourcequota_primary";

    fn plan<'a>(&'a self, key: &'a ObjectKey, now: Timestamp, _last: Option<Failure>) -> BoxFuture<'a, Result<Plan, Status>> {
        Box::pin(async move { Ok(self.load(key, now).await?.map(|view| plan::quota::plan(&view)).unwrap_or_default()) })
    }
}
