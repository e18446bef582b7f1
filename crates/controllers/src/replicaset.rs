//! Runs [`plan::replicaset`], for ReplicaSets and ReplicationControllers.

use std::sync::Arc;

use api::Status;
use api::k8s::Metadata;
use api::k8s::Resource;
use api::k8s::api::apps::v1::ReplicaSet;
use api::k8s::api::core::v1::{Pod, ReplicationController};
use api::k8s::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use client::{BoxFuture, Cache, Informer, ObjectKey, Queue};
use jiff::Timestamp;
use plan::Plan;
use plan::replicaset::{Failure, Set, View};

use crate::informers::{CONTROLLER, Informers, itself, owner};
use crate::runner::Controller;

pub struct ReplicaSets(pub Arc<Informers>);
pub struct ReplicationControllers(pub Arc<Informers>);

fn keys<S>(informer: &Informer<S>, informers: &Informers) -> Queue<ObjectKey>
where
    S: Set + Resource + Metadata<Ty = ObjectMeta> + api::Typed,
{
    let queue = Queue::new();
    itself(informer, &queue);
    let sets = informer.cache().clone();
    owner::<S, Pod>(&informers.pods, &queue, move |object| {
        let Ok(pod) = object.typed::<Pod>() else { return Vec::new() };
        let sets = sets.list_in(plan::meta::namespace(pod.as_ref()));
        sets.iter()
            .filter(|set| set.selects(&pod))
            .map(|set| ObjectKey::new(plan::meta::namespace(set.as_ref()), plan::meta::name(set.as_ref())))
            .collect()
    });
    queue
}

fn load<S>(
    cache: &Cache<S>,
    informers: &Informers,
    key: &ObjectKey,
    related: impl Fn(&S) -> Vec<Arc<Pod>>,
    last_failure: Option<Failure>,
) -> Option<View<S>>
where
    S: Set + api::Typed,
{
    let set = cache.get(&key.namespace, &key.name)?;
    let pods = informers.pods_for(&key.namespace, plan::meta::uid(set.as_ref()));
    Some(View { related: related(&set), pods, set, last_failure })
}

impl ReplicaSets {
    pub fn keys(&self) -> Queue<ObjectKey> {
        keys(&self.0.replica_sets, &self.0)
    }

    /// Pods of all sets of the same Deployment.
    fn related(&self, set: &ReplicaSet) -> Vec<Arc<Pod>> {
        let pods = |uid: &str| self.0.pods.cache().list_by(CONTROLLER, uid);
        match plan::meta::controller_of(set) {
            Some(owner) => {
                self.0.replica_sets.cache().list_by(CONTROLLER, &owner.uid).iter().flat_map(|set| pods(plan::meta::uid(set.as_ref()))).collect()
            }
            None => pods(plan::meta::uid(set)),
        }
    }
}

impl Controller for ReplicaSets {
    type Key = ObjectKey;
    const NAME: &'static str = "replicaset-controller";
    const QUEUE: &'static str = "replicaset";

    fn plan<'a>(&'a self, key: &'a ObjectKey, now: Timestamp, last: Option<Failure>) -> BoxFuture<'a, Result<Plan, Status>> {
        let view = load(self.0.replica_sets.cache(), &self.0, key, |set| self.related(set), last);
        Box::pin(async move { Ok(view.map(|view| plan::replicaset::plan(&view, now)).unwrap_or_default()) })
    }
}

impl ReplicationControllers {
    pub fn keys(&self) -> Queue<ObjectKey> {
        keys(&self.0.replication_controllers, &self.0)
    }
}

impl Controller for ReplicationControllers {
    type Key = ObjectKey;
    const NAME: &'static str = "replication-controller";
    const QUEUE: &'static str = "replicationmanager";

    fn plan<'a>(&'a self, key: &'a ObjectKey, now: Timestamp, last: Option<Failure>) -> BoxFuture<'a, Result<Plan, Status>> {
        let related = |set: &ReplicationController| self.0.pods.cache().list_by(CONTROLLER, plan::meta::uid(set));
        let view = load(self.0.replication_controllers.cache(), &self.0, key, related, last);
        Box::pin(async move { Ok(view.map(|view| plan::replicaset::plan(&view, now)).unwrap_or_default()) })
    }
}
