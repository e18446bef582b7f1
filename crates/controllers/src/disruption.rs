//! Runs [`plan::disruption`].

use std::collections::BTreeMap;
use std::sync::Arc;

use api::k8s::api::core::v1::Pod;
use api::k8s::api::policy::v1::PodDisruptionBudget;
use api::k8s::apimachinery::pkg::apis::meta::v1::OwnerReference;
use api::Status;
use client::{BoxFuture, Client, ObjectKey, Queue, Target};
use jiff::Timestamp;
use plan::Plan;
use plan::disruption::{Scale, View};
use plan::replicaset::Failure;

use crate::garbage::collection;
use crate::informers::{Informers, itself};
use crate::kinds::Kinds;
use crate::runner::Controller;

pub struct Disruptions {
    pub informers: Arc<Informers>,
    pub client: Client,
    pub kinds: Arc<Kinds>,
}

fn covers(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    budget.spec.as_ref().and_then(|spec| spec.selector.as_ref()).is_some_and(|selector| plan::meta::selects(selector, pod.metadata.labels.as_ref()))
}

impl Disruptions {
    pub fn keys(&self) -> Queue<ObjectKey> {
        let queue = Queue::new();
        itself(&self.informers.budgets, &queue);
        let (budgets, inbox) = (self.informers.budgets.cache().clone(), queue.clone());
        self.informers.pods.on_change(move |change| {
            for pod in [&change.old, &change.new].into_iter().flatten().filter_map(|object| object.typed::<Pod>().ok()) {
                for budget in budgets.list_in(plan::meta::namespace(pod.as_ref())).iter().filter(|budget| covers(budget, &pod)) {
                    inbox.add(ObjectKey::new(plan::meta::namespace(budget.as_ref()), plan::meta::name(budget.as_ref())));
                }
            }
        });
        queue
    }

    /// What an owner of any kind says in its `scale`; `None` for one that has none.
    async fn scale(&self, namespace: &str, owner: &OwnerReference) -> Result<Option<Scale>, Status> {
        let (group, version) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
        let Some(row) = self.kinds.find(group, version, &owner.kind) else { return Ok(None) };
        let target = Target { name: Some(owner.name.clone()), subresource: Some("scale".to_owned()), ..collection(&row, Some(namespace)) };
        match self.client.transport().get(&target).await {
            Ok(scale) => {
                let replicas = scale.value().map_err(Status::internal)?.pointer("/spec/replicas").and_then(|count| count.as_i64()).unwrap_or(0);
                Ok(Some(Scale { root: owner.uid.clone(), replicas: i32::try_from(replicas).unwrap_or(i32::MAX) }))
            }
            Err(status) if status.is_not_found() => Ok(None),
            Err(status) => Err(status),
        }
    }

    async fn load(&self, key: &ObjectKey) -> Result<Option<View>, Status> {
        let Some(budget) = self.informers.budgets.cache().get(&key.namespace, &key.name) else { return Ok(None) };
        let pods: Vec<Arc<Pod>> = self.informers.pods.cache().list_in(&key.namespace).into_iter().filter(|pod| covers(&budget, pod)).collect();
        let mut scales = BTreeMap::new();
        for pod in &pods {
            let Some(owner) = plan::meta::controller_of(pod.as_ref()) else { continue };
            if scales.contains_key(&owner.uid) {
                continue;
            }
            if let Some(scale) = self.wanted(&key.namespace, owner).await? {
                scales.insert(owner.uid.clone(), scale);
            }
        }
        Ok(Some(View { budget, pods, scales }))
    }

    /// ReplicaSets out of the caches, others from their `scale`.
    async fn wanted(&self, namespace: &str, owner: &OwnerReference) -> Result<Option<Scale>, Status> {
        if (owner.api_version.as_str(), owner.kind.as_str()) != ("apps/v1", "ReplicaSet") {
            return self.scale(namespace, owner).await;
        }
        let Some(set) = self.informers.replica_sets.cache().get(namespace, &owner.name) else { return Ok(None) };
        let deployment = plan::meta::controller_of(set.as_ref()).filter(|owner| owner.kind == "Deployment").and_then(|owner| self.informers.deployments.cache().get(namespace, &owner.name));
        Ok(Some(match deployment {
            Some(deployment) => Scale { root: plan::meta::uid(deployment.as_ref()).to_owned(), replicas: deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1) },
            None => Scale { root: owner.uid.clone(), replicas: set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1) },
        }))
    }
}

impl Controller for Disruptions {
    type Key = ObjectKey;
    const NAME: &'static str = "disruption-controller";
    const QUEUE: &'static str = "disruption";

    fn plan<'a>(&'a self, key: &'a ObjectKey, now: Timestamp, _last: Option<Failure>) -> BoxFuture<'a, Result<Plan, Status>> {
        Box::pin(async move { Ok(self.load(key).await?.map(|view| plan::disruption::plan(&view, now)).unwrap_or_default()) })
    }
}
