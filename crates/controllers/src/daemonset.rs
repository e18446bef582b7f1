//! Runs [`plan::daemonset`].

use std::sync::Arc;

use api::k8s::api::apps::v1::{ControllerRevision, DaemonSet};
use api::k8s::api::core::v1::{Node, Pod};
use api::{Object, Status};
use client::{BoxFuture, ObjectKey, Queue};
use jiff::Timestamp;
use plan::Plan;
use plan::daemonset::View;
use plan::meta;
use plan::replicaset::Failure;

use crate::informers::{CONTROLLER, Informers, itself, orphans, owner};
use crate::runner::Controller;

pub struct DaemonSets(pub Arc<Informers>);

impl DaemonSets {
    pub fn keys(&self) -> Queue<ObjectKey> {
        let queue = Queue::new();
        itself(&self.0.daemon_sets, &queue);
        let selecting = |object: &Arc<Object>, sets: &client::Cache<DaemonSet>| -> Vec<ObjectKey> {
            let namespace = object.meta().namespace.as_deref().unwrap_or("");
            let sets = sets.list_in(namespace);
            let sets = sets.iter().filter(|set| set.spec.as_ref().is_some_and(|spec| meta::selects(&spec.selector, Some(&object.meta().labels))));
            sets.map(|set| ObjectKey::new(namespace, meta::name(set.as_ref()))).collect()
        };
        let sets = self.0.daemon_sets.cache().clone();
        owner::<DaemonSet, Pod>(&self.0.pods, &queue, move |object| selecting(object, &sets));
        let sets = self.0.daemon_sets.cache().clone();
        owner::<DaemonSet, ControllerRevision>(&self.0.controller_revisions, &queue, move |object| selecting(object, &sets));
        let (sets, nodes) = (self.0.daemon_sets.cache().clone(), queue.clone());
        self.0.nodes.on_change(move |change| {
            // A heartbeat changes nothing for us: names, labels and taints do.
            let what = |object: &Option<Arc<Object>>| {
                let object = object.as_ref()?;
                let node = object.typed::<Node>().ok()?;
                Some((object.meta().uid.clone(), object.meta().labels.clone(), node.spec.as_ref().and_then(|spec| spec.taints.clone())))
            };
            if what(&change.old) != what(&change.new) {
                sets.keys().into_iter().for_each(|key| nodes.add(key));
            }
        });
        queue
    }

    fn load(&self, key: &ObjectKey) -> Option<View> {
        let set = self.0.daemon_sets.cache().get(&key.namespace, &key.name)?;
        let uid = meta::uid(set.as_ref());
        let mut revisions = self.0.controller_revisions.cache().list_by(CONTROLLER, uid);
        revisions.extend(self.0.controller_revisions.cache().list_by(CONTROLLER, &orphans(&key.namespace)));
        Some(View { pods: self.0.pods_for(&key.namespace, uid), revisions, nodes: self.0.nodes.cache().list(), set })
    }
}

impl Controller for DaemonSets {
    type Key = ObjectKey;
    const NAME: &'static str = "daemonset-controller";
    const QUEUE: &'static str = "daemonset";

    fn plan<'a>(&'a self, key: &'a ObjectKey, now: Timestamp, _last: Option<Failure>) -> BoxFuture<'a, Result<Plan, Status>> {
        let plan = self.load(key).map(|view| plan::daemonset::plan(&view, now)).unwrap_or_default();
        Box::pin(async move { Ok(plan) })
    }
}
