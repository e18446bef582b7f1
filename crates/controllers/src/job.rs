//! Runs [`plan::job`].

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
            let jobs = jobs.list_in(namespace);
            let jobs = jobs.iter().filter(|job| {
                job.spec.as_ref().and_then(|spec| spec.selector.as_ref()).is_some_and(|selector| meta::selects(selector, Some(&object.meta().labels)))
            });
            jobs.map(|job| ObjectKey::new(namespace, meta::name(job.as_ref()))).collect()
        });
        queue
    }
}

impl Controller for Jobs {
    type Key = ObjectKey;
    const NAME: &'static str = "job-controller";

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
