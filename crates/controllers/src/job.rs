//! Runs [`plan::job`]: Jobs, and pods that a Job held when it let go of them (upstream's orphan queue).

use std::sync::Arc;

use api::Status;
use api::k8s::api::batch::v1::Job;
use api::k8s::api::core::v1::Pod;
use client::{BoxFuture, ObjectKey, Queue};
use jiff::Timestamp;
use plan::Plan;
use plan::job::View;
use plan::meta;
use plan::replicaset::Failure;

use crate::informers::{Informers, itself, owner};
use crate::runner::Controller;

pub struct Jobs(pub Arc<Informers>);

impl Jobs {
    pub fn keys(&self) -> Queue<ObjectKey> {
        let queue = Queue::new();
        itself(&self.0.jobs, &queue);
        let jobs = self.0.jobs.cache().clone();
        owner::<Job, Pod>(&self.0.pods, &queue, move |object| {
            let namespace = object.meta().namespace.as_deref().unwrap_or("");
            let Ok(pod) = object.typed::<Pod>() else { return Vec::new() };
            let jobs = jobs.list_in(namespace);
            jobs.iter().filter(|job| plan::job::wants(job, &pod)).map(|job| ObjectKey::new(namespace, meta::name(job.as_ref()))).collect()
        });
        queue
    }
}

impl Controller for Jobs {
    type Key = ObjectKey;
    const NAME: &'static str = "job-controller";
    const QUEUE: &'static str = "job";

    fn plan<'a>(&'a self, key: &'a ObjectKey, now: Timestamp, _last: Option<Failure>) -> BoxFuture<'a, Result<Plan, Status>> {
        let job = self.0.jobs.cache().get(&key.namespace, &key.name);
        let uid = job.as_ref().map(|job| meta::uid(job.as_ref()).to_owned());
        // Pods of a Job of this name that is no more.
        let mut left = self.0.pods.cache().list_in(&key.namespace);
        left.retain(|pod| {
            plan::job::job_of(pod) == Some(&*key.name) && meta::controller_of(pod.as_ref()).map(|owner| owner.uid.as_str()) != uid.as_deref()
        });
        let mut plan = plan::job::after(&left);
        if let Some(job) = job {
            let pods = self.0.pods_for(&key.namespace, uid.as_deref().unwrap_or(""));
            let more = plan::job::plan(&View { job, pods }, now);
            plan.ops.extend(more.ops);
            plan.requeue_after = more.requeue_after;
        }
        Box::pin(async move { Ok(plan) })
    }
}

/// Whoever deletes a Job and leaves its pods, or takes their labels away, leaves the finalizer on them: without this one they could never go.
pub struct JobOrphans(pub Arc<Informers>);

impl JobOrphans {
    pub fn keys(&self) -> Queue<ObjectKey> {
        let queue = Queue::new();
        let pods = queue.clone();
        self.0.pods.on_change(move |change| {
            if change.new.as_ref().and_then(|object| object.typed::<Pod>().ok()).is_some_and(|pod| plan::job::is_orphan(&pod)) {
                pods.add(change.key.clone());
            }
        });
        let (jobs, pods) = (queue.clone(), self.0.pods.cache().clone());
        self.0.jobs.on_change(move |change| {
            // It would have taken them.
            if change.new.is_none() {
                let orphans = pods.list_in(&change.key.namespace).into_iter().filter(|pod| plan::job::is_orphan(pod));
                orphans.for_each(|pod| jobs.add(ObjectKey::new(&change.key.namespace, meta::name(pod.as_ref()))));
            }
        });
        queue
    }
}

impl Controller for JobOrphans {
    type Key = ObjectKey;
    const NAME: &'static str = "job-orphans";
    const QUEUE: &'static str = "job_orphan_pod";

    fn plan<'a>(&'a self, key: &'a ObjectKey, _now: Timestamp, _last: Option<Failure>) -> BoxFuture<'a, Result<Plan, Status>> {
        let pod = self.0.pods.cache().get(&key.namespace, &key.name);
        let plan = pod.map(|pod| plan::job::orphan(&pod, &self.0.jobs.cache().list_in(&key.namespace))).unwrap_or_default();
        Box::pin(async move { Ok(plan) })
    }
}
