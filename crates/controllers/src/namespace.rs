//! Runs [`plan::namespace`]: tells everything in a namespace that is being deleted to go, and looks what is left.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::Status;
use api::resource::Verb;
use client::{BoxFuture, Client, DeleteOptions, ListOptions, ObjectKey, Propagation, Queue};
use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use plan::Plan;
use plan::namespace::{Left, View};
use plan::replicaset::Failure;

use crate::garbage::collection;
use crate::informers::{Informers, itself};
use crate::kinds::Kinds;
use crate::runner::Controller;

/// Kinds emptied at the same time.
const WIDTH: usize = 16;

pub struct Namespaces {
    pub informers: Arc<Informers>,
    pub client: Client,
    pub kinds: Arc<Kinds>,
    pub queue: Queue<ObjectKey>,
}

impl Namespaces {
    pub fn keys(&self) -> Queue<ObjectKey> {
        itself(&self.informers.namespaces, &self.queue);
        self.queue.clone()
    }

    /// Tells all objects of a kind to go; what is left of them.
    async fn empty(&self, row: &api::Resource, namespace: &str) -> Result<Option<Left>, Status> {
        let target = collection(row, Some(namespace));
        let transport = self.client.transport();
        let list = transport.list(&target, &ListOptions::default()).await?;
        if list.items.is_empty() {
            return Ok(None);
        }
        let going = list.items.iter().all(|object| object.meta().deletion_timestamp.is_some());
        if !going {
            let options = DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
            transport.delete_collection(&target, &options, &ListOptions::default()).await?;
        }
        let items = transport.list(&target, &ListOptions::default()).await?.items;
        if items.is_empty() {
            return Ok(None);
        }
        let mut finalizers: BTreeMap<String, usize> = BTreeMap::new();
        for finalizer in items.iter().flat_map(|object| &object.meta().finalizers) {
            *finalizers.entry(finalizer.clone()).or_default() += 1;
        }
        Ok(Some(Left { resource: row.qualified(), count: items.len(), finalizers: finalizers.into_iter().collect() }))
    }

    async fn load(&self, name: &str) -> Option<View> {
        let namespace = self.informers.namespaces.cache().get("", name)?;
        let (mut left, mut errors) = (Vec::new(), Vec::new());
        if plan::meta::deleting(namespace.as_ref()) {
            // Events too, which the garbage collector does not look at.
            let (pods, others): (Vec<_>, Vec<_>) = self.kinds.all().into_iter().filter(|row| row.namespaced() && row.allows(Verb::DeleteCollection)).partition(|row| row.group.is_empty() && row.plural == "pods");
            for row in &pods {
                match self.empty(row, name).await {
                    Ok(some) => left.extend(some),
                    Err(status) => errors.push(format!("failed to delete pods for namespace: {name}, err: {status}")),
                }
            }
            // Nothing that a pod may still need goes before the last pod has gone (KEP 5080).
            if !left.is_empty() || !errors.is_empty() {
                return Some(View { namespace, left, errors });
            }
            let work: Vec<BoxFuture<'_, Result<Option<Left>, Status>>> =
                others.iter().map(|row| Box::pin(self.empty(row, name)) as BoxFuture<'_, _>).collect();
            let mut results = stream::iter(work).buffered(WIDTH);
            while let Some(result) = results.next().await {
                match result {
                    Ok(some) => left.extend(some),
                    Err(status) => errors.push(status.to_string()),
                }
            }
        }
        Some(View { namespace, left, errors })
    }
}

impl Controller for Namespaces {
    type Key = ObjectKey;
    const NAME: &'static str = "namespace-controller";
    const QUEUE: &'static str = "namespace";

    fn plan<'a>(&'a self, key: &'a ObjectKey, now: Timestamp, _last: Option<Failure>) -> BoxFuture<'a, Result<Plan, Status>> {
        Box::pin(async move {
            let Some(view) = self.load(&key.name).await else { return Ok(Plan::default()) };
            let mut plan = plan::namespace::plan(&view, now);
            if !view.errors.is_empty() {
                plan.look_again(RETRY);
            }
            Ok(plan)
        })
    }
}

/// After an error while deleting; otherwise the objects' own going is what is waited for.
const RETRY: std::time::Duration = std::time::Duration::from_secs(1);
