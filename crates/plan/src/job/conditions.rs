//! The Job's conditions: SuccessCriteriaMet and Complete, FailureTarget and Failed, Suspended.

use api::k8s::api::batch::v1::JobCondition;
use jiff::Timestamp;

use super::{Verdict, Work, tracking::Counted};
use crate::meta::{plus_seconds, time};
use crate::op::Op;
use crate::pods;

impl Work<'_> {
    fn find(&self, kind: &str) -> Option<&JobCondition> {
        self.status.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
    }

    fn is(&self, kind: &str) -> bool {
        self.find(kind).is_some_and(|condition| condition.status == "True")
    }

    pub(super) fn finished(&self) -> bool {
        self.is("Complete") || self.is("Failed")
    }

    pub(super) fn ended_at(&self) -> Option<Timestamp> {
        let condition = self.find("Complete").or_else(|| self.find("Failed")).filter(|condition| condition.status == "True")?;
        condition.last_transition_time.as_ref().map(|at| at.0)
    }

    /// Sets a condition; whether it changes.
    fn set(&mut self, kind: &str, status: bool, reason: &str, message: &str) -> bool {
        let status = if status { "True" } else { "False" };
        if self.find(kind).is_some_and(|known| known.status == status && known.reason.as_deref() == Some(reason)) {
            return false;
        }
        let condition = JobCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_probe_time: Some(time(self.now)),
            last_transition_time: Some(time(self.now)),
        };
        let conditions = self.status.conditions.get_or_insert_default();
        match conditions.iter_mut().find(|known| known.type_ == kind) {
            Some(known) => *known = condition,
            None => conditions.push(condition),
        }
        true
    }

    /// What was decided before.
    pub(super) fn standing_verdict(&self) -> Option<Verdict> {
        let (complete, condition) = match (self.find("SuccessCriteriaMet"), self.find("FailureTarget")) {
            (Some(condition), _) if condition.status == "True" => (true, condition),
            (_, Some(condition)) if condition.status == "True" => (false, condition),
            _ => return None,
        };
        Some(Verdict { complete, reason: condition.reason.clone().unwrap_or_default(), message: condition.message.clone().unwrap_or_default() })
    }

    pub(super) fn judge(&self, counted: &Counted) -> Option<Verdict> {
        let verdict = |complete, reason: &str, message: &str| Some(Verdict { complete, reason: reason.to_owned(), message: message.to_owned() });
        if let Some(message) = &counted.fatal {
            return verdict(false, "PodFailurePolicy", message);
        }
        let limit = self.spec.backoff_limit.unwrap_or(6);
        if counted.failed > limit || self.restarts_exceed(limit) {
            return verdict(false, "BackoffLimitExceeded", "Job has reached the specified backoff limit");
        }
        if let (Some(deadline), Some(start), false) = (self.spec.active_deadline_seconds, &self.status.start_time, self.spec.suspend == Some(true))
            && plus_seconds(start.0, deadline) <= self.now
        {
            return verdict(false, "DeadlineExceeded", "Job was active longer than specified deadline");
        }
        if let Some((reason, message)) = self.failed_by_indexes(counted) {
            return verdict(false, reason, message);
        }
        if let Some(message) = self.success_policy(&counted.indexes) {
            return verdict(true, "SuccessPolicy", &message);
        }
        let complete = match self.spec.completions {
            None => counted.succeeded > 0 && self.active().is_empty(),
            Some(completions) => counted.succeeded >= completions,
        };
        if complete { verdict(true, "CompletionsReached", "Reached expected number of succeeded pods") } else { None }
    }

    /// With `restartPolicy: OnFailure` it is the containers' restarts that count.
    fn restarts_exceed(&self, limit: i32) -> bool {
        if self.spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()) != Some("OnFailure") {
            return false;
        }
        let running = self.pods.iter().filter(|pod| matches!(pods::phase(pod), "Running" | "Pending"));
        let restarts: i32 = running
            .flat_map(|pod| pod.status.iter())
            .flat_map(|status| status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten()))
            .map(|container| container.restart_count)
            .sum();
        if limit == 0 { restarts > 0 } else { restarts >= limit }
    }

    /// It is decided; the pods have not all ended yet.
    pub(super) fn interim(&mut self, verdict: &Verdict) {
        let kind = if verdict.complete { "SuccessCriteriaMet" } else { "FailureTarget" };
        self.set(kind, true, &verdict.reason, &verdict.message);
    }

    pub(super) fn end(&mut self, verdict: &Verdict) {
        if verdict.complete {
            self.set("Complete", true, &verdict.reason, &verdict.message);
            self.status.completion_time = Some(time(self.now));
            self.after.push(Op::normal(&self.about, "Completed", "Job completed".to_owned()));
        } else {
            self.set("Failed", true, &verdict.reason, &verdict.message);
            self.after.push(Op::warning(&self.about, &verdict.reason, verdict.message.clone()));
        }
    }

    pub(super) fn suspend(&mut self) {
        if self.set("Suspended", true, "JobSuspended", "Job suspended") {
            self.after.push(Op::normal(&self.about, "Suspended", "Job suspended".to_owned()));
        }
        self.status.start_time = None;
    }

    pub(super) fn resume(&mut self) {
        if self.is("Suspended") && self.set("Suspended", false, "JobResumed", "Job resumed") {
            self.after.push(Op::normal(&self.about, "Resumed", "Job resumed".to_owned()));
            self.status.start_time = Some(time(self.now));
        }
    }
}
