//! Job: runs pods until so many of them have succeeded.
//!
//! Watches: the Job and its pods. Writes: pod create and delete, the finalizer by which ended pods are counted exactly once, the Job's status.
//! Counting: an ended pod goes into `uncountedTerminatedPods` (written), loses its finalizer, and only then moves into the counters.
//! Mirrors `pkg/controller/job` (KEP-2307), with its reasons and messages.

mod conditions;
pub mod indexes;
mod per_index;
mod policy;
mod success;
#[cfg(test)]
mod tests;
mod tracking;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use api::k8s::api::batch::v1::{Job, JobSpec, JobStatus};
use api::k8s::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, ObjectReference, Pod};
use jiff::Timestamp;
use serde_json::json;

use crate::claim::claim_held;
use crate::meta::{
    controller_of, controller_reference, deleting, has_finalizer, name, namespace, plus_seconds, reference, selects, time, uid, until,
};
use crate::op::{Announce, At, Op, PatchKind, Plan, Propagation};
use crate::pods;

pub const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const CONTROLLER: &str = "kubernetes.io/job-controller";

/// Pods created or deleted in one plan, at most.
const BURST: usize = 500;
/// The delay after the first failed pod; each further one doubles it.
const BACKOFF: Duration = Duration::from_secs(10);
const BACKOFF_LIMIT: Duration = Duration::from_secs(600);

pub struct View {
    pub job: Arc<Job>,
    /// Pods of the namespace that it manages or that nobody does.
    pub pods: Vec<Arc<Pod>>,
}

/// Why the Job is going to end.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Verdict {
    complete: bool,
    reason: String,
    message: String,
}

struct Work<'a> {
    job: &'a Job,
    spec: &'a JobSpec,
    about: ObjectReference,
    now: Timestamp,
    pods: Vec<Arc<Pod>>,
    status: JobStatus,
    indexed: bool,
    plan: Plan,
    /// After the status is written: what must not happen before.
    after: Vec<Op>,
}

pub fn plan(view: &View, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let job = view.job.as_ref();
    let Some(spec) = job.spec.as_ref() else { return plan };
    if spec.managed_by.as_deref().is_some_and(|manager| manager != CONTROLLER) {
        return plan;
    }
    let pods =
        claim_held(job, &view.pods, |pod| wants(job, pod), Some(FINALIZER), &mut plan.ops);
    let status = job.status.clone().unwrap_or_default();
    let indexed = spec.completion_mode.as_deref() == Some("Indexed");
    let mut work = Work { job, spec, about: reference(job), now, pods, status, indexed, plan, after: Vec::new() };
    if work.finished() {
        work.clean_up();
    } else {
        work.run();
    }
    let mut plan = work.plan;
    if work.status != job.status.clone().unwrap_or_default() {
        plan.push(Op::status(&Job { status: Some(work.status), ..job.clone() }));
    }
    plan.ops.append(&mut work.after);
    plan
}

/// Whether the pod is one that the Job's selector means.
pub fn wants(job: &Job, pod: &Pod) -> bool {
    let selector = job.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| selects(selector, pod.metadata.labels.as_ref()))
}

/// Held to be counted, and nobody's: so it is not going to be, unless a Job takes it.
pub fn is_orphan(pod: &Pod) -> bool {
    has_finalizer(pod, FINALIZER) && controller_of(pod).is_none()
}

/// A pod whose Job may have let go of it: it is not held any longer, unless one of the namespace's Jobs is going to take it over.
pub fn orphan(pod: &Arc<Pod>, jobs: &[Arc<Job>]) -> Plan {
    let taken = !deleting(pod.as_ref()) && jobs.iter().any(|job| !deleting(job.as_ref()) && wants(job, pod));
    if is_orphan(pod) && !taken { after(std::slice::from_ref(pod)) } else { Plan::default() }
}

/// The Job is gone: its pods need not be counted any more.
pub fn after(pods: &[Arc<Pod>]) -> Plan {
    let ops = pods.iter().filter(|pod| has_finalizer(pod.as_ref(), FINALIZER)).map(|pod| release(pod)).collect();
    Plan { ops, requeue_after: None }
}

fn release(pod: &Pod) -> Op {
    Op::Patch {
        at: At::object(pod),
        subresource: None,
        kind: PatchKind::Strategic,
        patch: json!({"metadata": {"uid": uid(pod), "$deleteFromPrimitiveList/finalizers": [FINALIZER]}}),
    }
}

impl Work<'_> {
    fn parallelism(&self) -> i32 {
        self.spec.parallelism.unwrap_or(1)
    }

    /// Another pod comes only when the one before has ended for good.
    fn replaces_failed_only(&self) -> bool {
        self.spec.pod_failure_policy.is_some() || self.spec.pod_replacement_policy.as_deref() == Some("Failed")
    }

    fn failed(&self, pod: &Pod) -> bool {
        pods::phase(pod) == "Failed" || (pods::phase(pod) != "Succeeded" && deleting(pod) && !self.replaces_failed_only())
    }

    fn active(&self) -> Vec<Arc<Pod>> {
        self.pods.iter().filter(|pod| pods::active(pod)).cloned().collect()
    }

    fn terminating(&self) -> i32 {
        count(self.pods.iter().filter(|pod| pods::terminating(pod)))
    }

    fn run(&mut self) {
        if self.status.start_time.is_none() && self.spec.suspend != Some(true) {
            self.status.start_time = Some(time(self.now));
        }
        let counted = self.track();
        let verdict = self.standing_verdict().or_else(|| self.judge(&counted));
        let active = self.active();
        let mut now_active = count(active.iter());
        if let Some(verdict) = verdict {
            self.delete(&active, active.len());
            now_active = 0;
            self.interim(&verdict);
            // Not before the last pod has ended and is counted.
            if active.is_empty() && self.terminating() == 0 && self.uncounted() == 0 && counted.kept.is_empty() {
                self.end(&verdict);
            }
        } else if self.spec.suspend == Some(true) {
            self.suspend();
            now_active -= self.delete(&active, active.len());
        } else {
            self.resume();
            if !deleting(self.job) {
                now_active += self.manage(&active, &counted);
            }
        }
        self.status.active = crate::meta::non_zero(now_active.max(0));
        self.status.ready = Some(count(active.iter().filter(|pod| pods::ready(pod))));
        self.status.terminating = Some(self.terminating());
        if let (Some(deadline), Some(start)) = (self.spec.active_deadline_seconds, &self.status.start_time)
            && let Some(left) = until(plus_seconds(start.0, deadline), self.now)
        {
            self.plan.look_again(left);
        }
    }

    /// Starts and stops pods; by how much the number of active ones changes.
    fn manage(&mut self, active: &[Arc<Pod>], counted: &tracking::Counted) -> i32 {
        let have = count(active.iter());
        let succeeded = counted.succeeded;
        let want = match self.spec.completions {
            None if succeeded > 0 => have,
            None => self.parallelism(),
            Some(completions) => (completions - succeeded).min(self.parallelism()).max(0),
        };
        if have > want {
            return -self.delete(active, usize::try_from(have - want).unwrap_or(0));
        }
        let missing = want - have - if self.replaces_failed_only() { self.terminating() } else { 0 };
        let missing = usize::try_from(missing).unwrap_or(0).min(BURST);
        if missing == 0 {
            return 0;
        }
        if let Some(left) = self.backoff().filter(|_| self.limit_per_index().is_none()) {
            self.plan.look_again(left);
            return 0;
        }
        if self.indexed {
            let taken: BTreeSet<i32> = self
                .pods
                .iter()
                .filter(|pod| pods::active(pod) || (self.replaces_failed_only() && pods::terminating(pod)))
                .filter_map(|pod| indexes::of(pod))
                .collect();
            let completions = self.spec.completions.unwrap_or(0);
            let pending = |index: &i32| !taken.contains(index) && !counted.indexes.contains(index) && !counted.failed_indexes.contains(index);
            let free: Vec<i32> = (0..completions).filter(pending).take(missing).collect();
            let mut number = 0;
            for index in free {
                let before = counted.kept.get(&index);
                match before.and_then(|before| self.wait_of_index(before)) {
                    Some(left) => self.plan.look_again(left),
                    None => {
                        self.create(Some(index), before);
                        number += 1;
                    }
                }
            }
            number
        } else {
            (0..missing).for_each(|_| self.create(None, None));
            i32::try_from(missing).unwrap_or(i32::MAX)
        }
    }

    /// How long to wait after failed pods. None: not at all.
    fn backoff(&self) -> Option<Duration> {
        let finish = |pod: &Arc<Pod>| finish_time(pod).unwrap_or(self.now);
        let succeeded = self.pods.iter().filter(|pod| pods::phase(pod) == "Succeeded").map(finish).max();
        let failed: Vec<Timestamp> =
            self.pods.iter().filter(|pod| self.failed(pod)).map(finish).filter(|at| succeeded.is_none_or(|last| *at > last)).collect();
        let last = failed.iter().max()?;
        let exponent = u32::try_from(failed.len() - 1).unwrap_or(u32::MAX).min(16);
        let delay = BACKOFF.saturating_mul(1 << exponent).min(BACKOFF_LIMIT);
        until(plus_seconds(*last, i64::try_from(delay.as_secs()).unwrap_or(i64::MAX)), self.now)
    }

    /// `before` is the failed pod of the same index that the new one takes the place of.
    fn create(&mut self, index: Option<i32>, before: Option<&Arc<Pod>>) {
        let mut template = self.spec.template.clone();
        let meta = template.metadata.get_or_insert_default();
        meta.finalizers.get_or_insert_default().push(FINALIZER.to_owned());
        let mut prefix = name(self.job).to_owned();
        if let Some(index) = index {
            let annotations = meta.annotations.get_or_insert_default();
            annotations.insert(INDEX.to_owned(), index.to_string());
            annotations.extend(self.failures_of_index(before));
            meta.labels.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
            prefix = format!("{prefix}-{index}");
            let spec = template.spec.get_or_insert_default();
            spec.hostname = Some(prefix.clone());
            for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
                let env = container.env.get_or_insert_default();
                if env.iter().all(|one| one.name != "JOB_COMPLETION_INDEX") {
                    let field_ref = ObjectFieldSelector { api_version: None, field_path: format!("metadata.labels['{INDEX}']") };
                    env.push(EnvVar {
                        name: "JOB_COMPLETION_INDEX".to_owned(),
                        value: None,
                        value_from: Some(EnvVarSource { field_ref: Some(field_ref), ..EnvVarSource::default() }),
                    });
                }
            }
        }
        let pod = pods::from_template(&template, namespace(self.job), &prefix, controller_reference(self.job));
        self.after.push(Op::create(&pod).announced(Announce {
            about: self.about.clone(),
            done: Some(("SuccessfulCreate", "Created pod: ".to_owned())),
            failed: Some(("FailedCreate", "Error creating: ".to_owned())),
        }));
    }

    /// Deletes so many of the pods, the least advanced first; how many.
    fn delete(&mut self, active: &[Arc<Pod>], number: usize) -> i32 {
        let mut order: Vec<&Arc<Pod>> = active.iter().collect();
        order.sort_by_key(|pod| {
            (!pods::node(pod).is_empty(), pods::phase(pod) == "Running", pods::ready(pod), std::cmp::Reverse(crate::meta::created(pod.as_ref())))
        });
        let going: Vec<&Arc<Pod>> = order.into_iter().take(number.min(BURST)).collect();
        let number = count(going.iter());
        let ops: Vec<Op> = going
            .into_iter()
            .map(|pod| {
                Op::delete(pod.as_ref()).announced(Announce {
                    about: self.about.clone(),
                    done: Some(("SuccessfulDelete", "Deleted pod: ".to_owned())),
                    failed: Some(("FailedDelete", "Error deleting: ".to_owned())),
                })
            })
            .collect();
        self.after.extend(ops);
        number
    }

    /// After its end: what was left to count, and its own removal.
    fn clean_up(&mut self) {
        self.track();
        let Some(ttl) = self.spec.ttl_seconds_after_finished.filter(|_| !deleting(self.job)) else { return };
        let Some(ended) = self.ended_at() else { return };
        match until(plus_seconds(ended, ttl.into()), self.now) {
            Some(left) => self.plan.look_again(left),
            None => self.after.push(Op::Delete {
                at: At::object(self.job),
                uid: uid(self.job).to_owned(),
                propagation: Propagation::Foreground,
                grace_period_seconds: None,
                announce: None,
            }),
        }
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> i32 {
    i32::try_from(items.count()).unwrap_or(i32::MAX)
}

/// When the last container of an ended pod ended.
fn finish_time(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.as_ref()?.container_statuses.as_deref()?;
    let ends = statuses.iter().filter_map(|status| status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref().map(|at| at.0));
    ends.max()
        .or_else(|| pods::condition(pod, "Ready")?.last_transition_time.as_ref().map(|at| at.0))
        .or_else(|| pod.metadata.deletion_timestamp.as_ref().map(|at| at.0))
}

/// The Job a pod belongs to, by name.
pub fn job_of(pod: &Pod) -> Option<&str> {
    controller_of(pod).filter(|owner| owner.kind == "Job").map(|owner| owner.name.as_str())
}
