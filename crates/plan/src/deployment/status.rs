//! The Deployment's status, counted from its ReplicaSets.

use api::k8s::api::apps::v1::DeploymentStatus;

use super::{Work, conditions};
use crate::meta::non_zero;

impl Work<'_> {
    fn counted(&self) -> DeploymentStatus {
        let sum = |count: &dyn Fn(&super::Set) -> i32| self.all().map(count).sum::<i32>();
        let available = sum(&|set| set.available());
        let mut status = DeploymentStatus {
            observed_generation: self.observed(),
            replicas: non_zero(sum(&|set| set.actual())),
            updated_replicas: non_zero(self.new.as_ref().map_or(0, |set| set.actual())),
            ready_replicas: non_zero(sum(&|set| set.status().ready_replicas.unwrap_or(0))),
            available_replicas: non_zero(available),
            unavailable_replicas: non_zero((self.total() - available).max(0)),
            terminating_replicas: self.terminating(),
            collision_count: self.status.collision_count,
            conditions: Some(self.status.conditions.clone().unwrap_or_default()),
        };
        let condition = if available >= self.replicas() - self.max_unavailable() {
            self.condition("Available", true, "MinimumReplicasAvailable", "Deployment has minimum availability.".to_owned())
        } else {
            self.condition("Available", false, "MinimumReplicasUnavailable", "Deployment does not have minimum availability.".to_owned())
        };
        conditions::set(&mut status, condition);
        status
    }

    /// Unknown as long as one ReplicaSet has not said.
    fn terminating(&self) -> Option<i32> {
        self.all().filter(|set| !set.is_new()).map(|set| set.status().terminating_replicas).sum()
    }

    /// The numbers only.
    pub(super) fn sync_status(&mut self) {
        let mut status = self.counted();
        drop_empty(&mut status);
        self.status = status;
    }

    /// The numbers, and how the rollout goes.
    pub(super) fn sync_rollout_status(&mut self) {
        let mut status = self.counted();
        self.conditions_of_progress(&mut status);
        drop_empty(&mut status);
        self.status = status;
    }
}

fn drop_empty(status: &mut DeploymentStatus) {
    if status.conditions.as_ref().is_some_and(Vec::is_empty) {
        status.conditions = None;
    }
}
