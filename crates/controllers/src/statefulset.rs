//! Runs [`plan::statefulset`].

use std::sync::Arc;

use api::Status;
use api::k8s::api::apps::v1::{ControllerRevision, StatefulSet};
use api::k8s::api::core::v1::Pod;
use client::{BoxFuture, ObjectKey, Queue};
use jiff::Timestamp;
use plan::Plan;
use plan::meta;
use plan::replicaset::Failure;
use plan::statefulset::View;

use crate::informers::{CONTROLLER, Informers, itself, orphans, owner};
use crate::runner::Controller;

pub struct StatefulSets(pub Arc<Informers>);

impl StatefulSets {
    pub fn keys(&self) -> Queue<ObjectKey> {
        let queue = Queue::new();
        itself(&self.0.stateful_sets, &queue);
        let sets = self.0.stateful_sets.cache().clone();
        owner::<StatefulSet, Pod>(&self.0.pods, &queue, move |object| {
            let namespace = object.meta().namespace.as_deref().unwrap_or("");
            let sets = sets.list_in(namespace);
            let sets = sets.iter().filter(|set| set.spec.as_ref().is_some_and(|spec| meta::selects(&spec.selector, Some(&object.meta().labels))));
            sets.map(|set| ObjectKey::new(namespace, meta::name(set.as_ref()))).collect()
        });
        owner::<StatefulSet, ControllerRevision>(&self.0.controller_revisions, &queue, |_| Vec::new());
        queue
    }

    fn load(&self, key: &ObjectKey) -> Option<View> {
        let set = self.0.stateful_sets.cache().get(&key.namespace, &key.name)?;
        let uid = meta::uid(set.as_ref());
        let mut revisions = self.0.controller_revisions.cache().list_by(CONTROLLER, uid);
        revisions.extend(self.0.controller_revisions.cache().list_by(CONTROLLER, &orphans(&key.namespace)));
        let claims = self.0.claims.cache().objects_in(&key.namespace).iter().map(|claim| claim.meta().name.clone()).collect();
        Some(View { pods: self.0.pods_for(&key.namespace, uid), revisions, claims, set })
    }
}

impl Controller for StatefulSets {
    type Key = ObjectKey;
    const NAME: &'static str = "statefulset-controller";
    const QUEUE: &'static str = "statefulset";

    fn plan<'a>(&'a self, key: &'a ObjectKey, now: Timestamp, _last: Option<Failure>) -> BoxFuture<'a, Result<Plan, Status>> {
        let plan = self.load(key).map(|view| plan::statefulset::plan(&view, now)).unwrap_or_default();
        Box::pin(async move { Ok(plan) })
    }
}
