//! Runs [`plan::deployment`].

use std::sync::Arc;

use api::Status;
use api::k8s::api::apps::v1::{Deployment, ReplicaSet};
use client::{BoxFuture, Change, ObjectKey, Queue};
use jiff::Timestamp;
use plan::Plan;
use plan::deployment::View;
use plan::meta;
use plan::replicaset::Failure;

use crate::informers::{CONTROLLER, Informers, itself, orphans, owner};
use crate::runner::Controller;

pub struct Deployments(pub Arc<Informers>);

impl Deployments {
    pub fn keys(&self) -> Queue<ObjectKey> {
        let queue = Queue::new();
        itself(&self.0.deployments, &queue);
        let deployments = self.0.deployments.cache().clone();
        owner::<Deployment, ReplicaSet>(&self.0.replica_sets, &queue, move |object| {
            let namespace = object.meta().namespace.as_deref().unwrap_or("");
            let matching = deployments.list_in(namespace);
            let matching = matching
                .iter()
                .filter(|deployment| deployment.spec.as_ref().is_some_and(|spec| meta::selects(&spec.selector, Some(&object.meta().labels))));
            matching.map(|deployment| ObjectKey::new(namespace, meta::name(deployment.as_ref()))).collect()
        });
        // `Recreate` waits for pods to go.
        let (sets, deleted) = (self.0.replica_sets.cache().clone(), queue.clone());
        self.0.pods.on_change(move |change| {
            let Change { old: Some(old), new, .. } = change else { return };
            let finished = new.as_ref().and_then(|new| new.typed().ok()).is_some_and(|pod| plan::pods::finished(&pod));
            if new.is_some() && !finished {
                return;
            }
            let namespace = old.meta().namespace.as_deref().unwrap_or("");
            let set =
                old.meta().owner_references.iter().find(|owner| owner.kind == "ReplicaSet").and_then(|owner| sets.object(namespace, &owner.name));
            if let Some(owner) = set.as_ref().and_then(|set| set.meta().owner_references.iter().find(|owner| owner.kind == "Deployment")) {
                deleted.add(ObjectKey::new(namespace, &owner.name));
            }
        });
        queue
    }

    fn load(&self, key: &ObjectKey) -> Option<View> {
        let deployment = self.0.deployments.cache().get(&key.namespace, &key.name)?;
        let sets = self.0.replica_sets.cache();
        let mut replica_sets = sets.list_by(CONTROLLER, meta::uid(deployment.as_ref()));
        replica_sets.extend(sets.list_by(CONTROLLER, &orphans(&key.namespace)));
        let owned = replica_sets.iter().filter(|set| meta::controlled_by(set.as_ref(), meta::uid(deployment.as_ref())));
        let pods = owned.flat_map(|set| self.0.pods.cache().list_by(CONTROLLER, meta::uid(set.as_ref()))).collect();
        let (cache, namespace) = (sets.clone(), key.namespace.clone());
        Some(View { deployment, replica_sets, by_name: Box::new(move |name| cache.get(&namespace, name)), pods })
    }
}

impl Controller for Deployments {
    type Key = ObjectKey;
    const NAME: &'static str = "deployment-controller";
    const QUEUE: &'static str = "deployment";

    fn plan<'a>(&'a self, key: &'a ObjectKey, now: Timestamp, _last: Option<Failure>) -> BoxFuture<'a, Result<Plan, Status>> {
        let plan = self.load(key).map(|view| plan::deployment::plan(&view, now)).unwrap_or_default();
        Box::pin(async move { Ok(plan) })
    }
}
