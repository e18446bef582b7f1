//! Runs [`plan::cronjob`].

use std::sync::Arc;

use api::Status;
use api::k8s::api::batch::v1::{CronJob, Job};
use client::{BoxFuture, ObjectKey, Queue};
use jiff::Timestamp;
use plan::Plan;
use plan::cronjob::View;
use plan::meta;
use plan::replicaset::Failure;

use crate::informers::{CONTROLLER, Informers, itself, owner};
use crate::runner::Controller;

pub struct CronJobs(pub Arc<Informers>);

impl CronJobs {
    pub fn keys(&self) -> Queue<ObjectKey> {
        let queue = Queue::new();
        itself(&self.0.cron_jobs, &queue);
        owner::<CronJob, Job>(&self.0.jobs, &queue, |_| Vec::new());
        queue
    }
}

impl Controller for CronJobs {
    type Key = ObjectKey;
    const NAME: &'static str = "cronjob-controller";
    const QUEUE: &'static str = "cronjob";

    fn plan<'a>(&'a self, key: &'a ObjectKey, now: Timestamp, _last: Option<Failure>) -> BoxFuture<'a, Result<Plan, Status>> {
        let cron_job = self.0.cron_jobs.cache().get(&key.namespace, &key.name);
        let view = cron_job.map(|cron_job| View { jobs: self.0.jobs.cache().list_by(CONTROLLER, meta::uid(cron_job.as_ref())), cron_job });
        let plan = view.map(|view| plan::cronjob::plan(&view, now)).unwrap_or_default();
        Box::pin(async move { Ok(plan) })
    }
}
