//! The Deployment's conditions: Available, Progressing, ReplicaFailure, with upstream's reasons and messages.

use api::k8s::api::apps::v1::{DeploymentCondition, DeploymentStatus};

use super::Work;
use crate::meta::{name, plus_seconds, time, until};

pub(super) const PROGRESSING: &str = "Progressing";

/// What upstream takes for "no deadline".
const NO_DEADLINE: i32 = i32::MAX;

impl Work<'_> {
    pub(super) fn deadline(&self) -> Option<i32> {
        self.spec.progress_deadline_seconds.filter(|seconds| *seconds != NO_DEADLINE)
    }

    pub(super) fn condition(&self, kind: &str, status: bool, reason: &str, message: String) -> DeploymentCondition {
        self.condition_of(kind, if status { "True" } else { "False" }, reason, message)
    }

    fn condition_of(&self, kind: &str, status: &str, reason: &str, message: String) -> DeploymentCondition {
        DeploymentCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_update_time: Some(time(self.now)),
            last_transition_time: Some(time(self.now)),
        }
    }

    /// Marks a pause or its end, so that the progress deadline does not run meanwhile.
    pub(super) fn conditions_of_pause(&mut self) {
        if self.deadline().is_none() {
            return;
        }
        let reason = find(&self.status, PROGRESSING).and_then(|condition| condition.reason.clone()).unwrap_or_default();
        if reason == "ProgressDeadlineExceeded" {
            return;
        }
        let paused = self.spec.paused == Some(true);
        if paused && reason != "DeploymentPaused" {
            let condition = self.condition_of(PROGRESSING, "Unknown", "DeploymentPaused", "Deployment is paused".to_owned());
            set(&mut self.status, condition);
        } else if !paused && reason == "DeploymentPaused" {
            let condition = self.condition_of(PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed".to_owned());
            set(&mut self.status, condition);
        }
    }

    /// Everything wanted is there, and nothing else.
    pub(super) fn complete(&self, status: &DeploymentStatus) -> bool {
        let wanted = self.replicas();
        status.updated_replicas.unwrap_or(0) == wanted
            && status.replicas.unwrap_or(0) == wanted
            && status.available_replicas.unwrap_or(0) == wanted
            && status.observed_generation.unwrap_or(0) >= crate::meta::generation(self.deployment)
    }

    fn progressing(&self, new: &DeploymentStatus) -> bool {
        let old = self.deployment.status.clone().unwrap_or_default();
        let updated = |status: &DeploymentStatus| status.updated_replicas.unwrap_or(0);
        let outdated = |status: &DeploymentStatus| status.replicas.unwrap_or(0) - updated(status);
        updated(new) > updated(&old)
            || outdated(new) < outdated(&old)
            || new.ready_replicas.unwrap_or(0) > old.ready_replicas.unwrap_or(0)
            || new.available_replicas.unwrap_or(0) > old.available_replicas.unwrap_or(0)
    }

    fn timed_out(&self, status: &DeploymentStatus) -> bool {
        let Some(condition) = find(status, PROGRESSING) else { return false };
        match condition.reason.as_deref() {
            Some("NewReplicaSetAvailable") => false,
            Some("ProgressDeadlineExceeded") => true,
            _ => self.deadline_at(condition).is_some_and(|at| at < self.now),
        }
    }

    fn deadline_at(&self, condition: &DeploymentCondition) -> Option<jiff::Timestamp> {
        Some(plus_seconds(condition.last_update_time.as_ref()?.0, self.deadline()?.into()))
    }

    /// Sets Progressing in a fresh status, and looks again when the deadline passes.
    pub(super) fn conditions_of_progress(&mut self, status: &mut DeploymentStatus) {
        if self.deadline().is_none() {
            status.conditions.get_or_insert_default().retain(|condition| condition.type_ != PROGRESSING);
        }
        let current = find(status, PROGRESSING).cloned();
        let completed = status.replicas.unwrap_or(0) == status.updated_replicas.unwrap_or(0)
            && current.as_ref().is_some_and(|condition| condition.reason.as_deref() == Some("NewReplicaSetAvailable"));
        if self.deadline().is_some() && !completed {
            let subject = match &self.new {
                Some(new) => format!("ReplicaSet {:?}", name(new.set.as_ref())),
                None => format!("Deployment {:?}", name(self.deployment)),
            };
            if self.complete(status) {
                set(status, self.condition(PROGRESSING, true, "NewReplicaSetAvailable", format!("{subject} has successfully progressed.")));
            } else if self.progressing(status) {
                let mut condition = self.condition(PROGRESSING, true, "ReplicaSetUpdated", format!("{subject} is progressing."));
                if let Some(current) = current {
                    if current.status == "True" {
                        condition.last_transition_time = current.last_transition_time;
                    }
                    // Not `set`: the update time is what shows the progress.
                    status.conditions.get_or_insert_default().retain(|condition| condition.type_ != PROGRESSING);
                }
                status.conditions.get_or_insert_default().push(condition);
            } else if self.timed_out(status) {
                set(status, self.condition(PROGRESSING, false, "ProgressDeadlineExceeded", format!("{subject} has timed out progressing.")));
            }
        }
        let failure = self
            .all()
            .find_map(|set| set.set.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == "ReplicaFailure").cloned());
        match failure {
            Some(failure) => set(
                status,
                self.condition_of("ReplicaFailure", &failure.status, failure.reason.as_deref().unwrap_or(""), failure.message.unwrap_or_default()),
            ),
            None => status.conditions.get_or_insert_default().retain(|condition| condition.type_ != "ReplicaFailure"),
        }
        if let Some(condition) = find(status, PROGRESSING)
            && !self.complete(status)
            && !matches!(condition.reason.as_deref(), Some("ProgressDeadlineExceeded" | "NewReplicaSetAvailable"))
            && let Some(at) = self.deadline_at(condition)
        {
            // A second more: times have whole seconds.
            let left = until(plus_seconds(at, 1), self.now).unwrap_or(std::time::Duration::from_secs(1));
            self.plan.look_again(left);
        }
    }
}

pub(super) fn find<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

/// Sets a condition; one with the same status and reason stays as it is.
pub(super) fn set(status: &mut DeploymentStatus, mut condition: DeploymentCondition) {
    if let Some(known) = find(status, &condition.type_) {
        if known.status == condition.status && known.reason == condition.reason {
            return;
        }
        if known.status == condition.status {
            condition.last_transition_time = known.last_transition_time.clone();
        }
    }
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|known| known.type_ != condition.type_);
    conditions.push(condition);
}
