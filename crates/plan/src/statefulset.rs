//! StatefulSet: pods with a number, a name and storage of their own, one after the other.
//!
//! Watches: the set, its pods, their claims, its ControllerRevisions. Writes: claims and pods (create), pods (delete), revisions, the status.
//! Never: deletes a claim. Mirrors `pkg/controller/statefulset`. Not yet: `persistentVolumeClaimRetentionPolicy: Delete`, `maxUnavailable`.

mod pod;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use api::k8s::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec, StatefulSetStatus};
use api::k8s::api::core::v1::{ObjectReference, Pod, PodTemplateSpec};
use jiff::Timestamp;

use crate::claim::claim;
use crate::meta::{deleting, generation, label, name, namespace, non_zero, reference, selects, selects_all, until};
use crate::op::{Announce, Op, Plan};
use crate::pods;
use crate::revisions::{self, HASH};

pub struct View {
    pub set: Arc<StatefulSet>,
    /// Pods of the namespace that it manages or that nobody does.
    pub pods: Vec<Arc<Pod>>,
    pub revisions: Vec<Arc<ControllerRevision>>,
    /// Names of all claims of the namespace.
    pub claims: HashSet<String>,
}

struct Work<'a> {
    view: &'a View,
    set: &'a StatefulSet,
    spec: &'a StatefulSetSpec,
    about: ObjectReference,
    now: Timestamp,
    start: i32,
    current: String,
    update: String,
    /// What pods of the current revision are made of.
    current_template: PodTemplateSpec,
    /// By ordinal.
    replicas: BTreeMap<i32, Option<Arc<Pod>>>,
    /// Pods beyond the number wanted, the highest first.
    condemned: Vec<Arc<Pod>>,
    created: Vec<String>,
    plan: Plan,
}

pub fn plan(view: &View, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let set = view.set.as_ref();
    let Some(spec) = set.spec.as_ref() else { return plan };
    if selects_all(&spec.selector) {
        plan.push(Op::warning(
            &reference(set),
            "SelectingAll",
            "This statefulset is selecting all pods. A non-empty selector is required.".to_owned(),
        ));
        return plan;
    }
    // Only what is named like its pods can be its pod.
    let owned = claim(
        set,
        &view.pods,
        |candidate| selects(&spec.selector, candidate.metadata.labels.as_ref()) && pod::ordinal(name(set), name(candidate)).is_some(),
        &mut plan.ops,
    );
    let known = claim(set, &view.revisions, |revision| selects(&spec.selector, revision.metadata.labels.as_ref()), &mut plan.ops);
    let status = set.status.clone().unwrap_or_default();
    let labels = spec.template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
    let update = if deleting(set) {
        status.update_revision.clone().unwrap_or_default()
    } else {
        revisions::current(set, &spec.template, labels, status.collision_count, &known, &mut plan.ops).name
    };
    let current = status
        .current_revision
        .clone()
        .filter(|revision| known.iter().any(|known| name(known.as_ref()) == revision))
        .unwrap_or_else(|| update.clone());
    let current_template = known
        .iter()
        .find(|known| name(known.as_ref()) == current)
        .and_then(|revision| pod::template_of(revision))
        .unwrap_or_else(|| spec.template.clone());

    let start = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
    let mut replicas: BTreeMap<i32, Option<Arc<Pod>>> =
        (start..start.saturating_add(spec.replicas.unwrap_or(1))).map(|ordinal| (ordinal, None)).collect();
    let mut condemned: Vec<(i32, Arc<Pod>)> = Vec::new();
    for owned in owned {
        let Some(ordinal) = pod::ordinal(name(set), name(owned.as_ref())) else { continue };
        match replicas.get_mut(&ordinal) {
            Some(slot) => *slot = Some(owned),
            None => condemned.push((ordinal, owned)),
        }
    }
    condemned.sort_by_key(|(ordinal, _)| std::cmp::Reverse(*ordinal));
    let condemned = condemned.into_iter().map(|(_, pod)| pod).collect();
    let mut work = Work {
        view,
        set,
        spec,
        about: reference(set),
        now,
        start,
        current,
        update,
        current_template,
        replicas,
        condemned,
        created: Vec::new(),
        plan,
    };
    if !deleting(set) {
        work.act();
        let live: HashSet<String> =
            work.pods().filter_map(|pod| label(pod.as_ref(), HASH).map(str::to_owned)).chain([work.current.clone(), work.update.clone()]).collect();
        let spare: Vec<Arc<ControllerRevision>> = known.iter().filter(|revision| !live.contains(name(revision.as_ref()))).cloned().collect();
        revisions::clean_up(&spare, &HashSet::new(), spec.revision_history_limit.unwrap_or(10), &mut work.plan.ops);
    }
    work.status(status);
    work.plan
}

impl Work<'_> {
    fn pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.replicas.values().flatten().chain(&self.condemned)
    }

    fn ordered(&self) -> bool {
        self.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    fn partition(&self) -> Option<i32> {
        self.spec.update_strategy.as_ref()?.rolling_update.as_ref()?.partition
    }

    fn on_delete(&self) -> bool {
        self.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete")
    }

    fn running(&self, pod: &Pod) -> bool {
        pods::phase(pod) == "Running" && pods::ready(pod)
    }

    fn healthy(&mut self, pod: &Pod) -> bool {
        let min_ready = self.spec.min_ready_seconds.unwrap_or(0);
        if let Some(left) = pods::available_at(pod, min_ready).and_then(|at| until(at, self.now)) {
            self.plan.look_again(left);
        }
        self.running(pod) && !deleting(pod) && pods::available(pod, min_ready, self.now)
    }

    fn act(&mut self) {
        if !self.fill() || !self.shrink() || self.on_delete() {
            return;
        }
        self.roll();
    }

    /// Creates what is missing, in order; whether one may go on.
    fn fill(&mut self) -> bool {
        let mut go_on = true;
        for (ordinal, pod) in self.replicas.clone() {
            let Some(pod) = pod else {
                self.create(ordinal);
                if self.ordered() {
                    return false;
                }
                continue;
            };
            let (state, reason) = match pods::phase(&pod) {
                "Failed" => ("failed", "RecreatingFailedPod"),
                "Succeeded" => ("terminated", "RecreatingTerminatedPod"),
                _ => ("", ""),
            };
            if !state.is_empty() {
                if !deleting(pod.as_ref()) {
                    let message = format!("StatefulSet {}/{} is recreating {state} Pod {}", namespace(self.set), name(self.set), name(pod.as_ref()));
                    self.plan.push(Op::warning(&self.about, reason, message));
                    self.delete(&pod);
                }
                if self.ordered() {
                    return false;
                }
                go_on = false;
                continue;
            }
            self.claims(ordinal);
            if self.ordered() && !self.healthy(&pod) {
                return false;
            }
        }
        go_on
    }

    fn shrink(&mut self) -> bool {
        // The lowest one: a higher one waits for it, so nothing goes while all are unwell.
        let sick = self.replicas.values().flatten().chain(self.condemned.iter().rev()).find(|pod| !self.running(pod) || deleting(pod.as_ref())).map(|pod| name(pod.as_ref()).to_owned());
        for pod in self.condemned.clone() {
            if deleting(pod.as_ref()) {
                if self.ordered() {
                    return false;
                }
                continue;
            }
            // One that is not well may go only if it is the first such.
            if self.ordered() && !self.running(&pod) && sick.as_deref() != Some(name(pod.as_ref())) {
                return false;
            }
            self.delete(&pod);
            if self.ordered() {
                return false;
            }
        }
        true
    }

    /// Replaces pods of older revisions from the highest ordinal down to the partition, one at a time.
    fn roll(&mut self) {
        let lowest = self.start + self.partition().unwrap_or(0);
        let pods: Vec<(i32, Arc<Pod>)> = self.replicas.iter().rev().filter_map(|(ordinal, pod)| Some((*ordinal, pod.clone()?))).collect();
        for (_, pod) in pods.into_iter().filter(|(ordinal, _)| *ordinal >= lowest) {
            if label(pod.as_ref(), HASH) != Some(&self.update) && !deleting(pod.as_ref()) {
                return self.delete(&pod);
            }
            if !self.healthy(&pod) {
                return;
            }
        }
    }

    fn create(&mut self, ordinal: i32) {
        self.claims(ordinal);
        let is_current = !self.on_delete()
            && match self.partition() {
                Some(partition) => ordinal < self.start + partition,
                None => ordinal < self.start + self.set.status.as_ref().and_then(|status| status.current_replicas).unwrap_or(0),
            };
        let (template, revision) =
            if is_current { (self.current_template.clone(), self.current.clone()) } else { (self.spec.template.clone(), self.update.clone()) };
        let pod = pod::build(self.set, self.spec, &template, ordinal, &revision);
        let pod_name = name(&pod).to_owned();
        self.created.push(revision);
        self.plan.push(Op::create(&pod).announced(Announce {
            about: self.about.clone(),
            done: Some(("SuccessfulCreate", format!("create Pod {pod_name} in StatefulSet {} successful", name(self.set)))),
            failed: Some(("FailedCreate", format!("create Pod {pod_name} in StatefulSet {} failed error: ", name(self.set)))),
        }));
    }

    fn claims(&mut self, ordinal: i32) {
        for claim in pod::claims(self.set, self.spec, ordinal) {
            if self.view.claims.contains(name(&claim)) {
                continue;
            }
            let mut op = Op::create(&claim);
            if let Op::Create { or_exists, .. } = &mut op {
                *or_exists = true;
            }
            self.plan.push(op);
        }
    }

    fn delete(&mut self, pod: &Pod) {
        self.plan.push(Op::delete(pod).announced(Announce {
            about: self.about.clone(),
            done: Some(("SuccessfulDelete", format!("delete Pod {} in StatefulSet {} successful", name(pod), name(self.set)))),
            failed: Some(("FailedDelete", format!("delete Pod {} in StatefulSet {} failed error: ", name(pod), name(self.set)))),
        }));
    }

    fn status(&mut self, known: StatefulSetStatus) {
        let min_ready = self.spec.min_ready_seconds.unwrap_or(0);
        let all: Vec<&Arc<Pod>> = self.pods().collect();
        let count = |test: &dyn Fn(&Pod) -> bool| i32::try_from(all.iter().filter(|pod| test(pod)).count()).unwrap_or(i32::MAX);
        let of = |revision: &str| {
            count(&|pod| !deleting(pod) && label(pod, HASH) == Some(revision))
                + i32::try_from(self.created.iter().filter(|one| *one == revision).count()).unwrap_or(0)
        };
        let mut status = StatefulSetStatus {
            observed_generation: Some(generation(self.set)),
            replicas: count(&|_| true) + i32::try_from(self.created.len()).unwrap_or(0),
            ready_replicas: non_zero(count(&|pod| self.running(pod))),
            available_replicas: Some(count(&|pod| self.running(pod) && pods::available(pod, min_ready, self.now))),
            current_replicas: non_zero(of(&self.current)),
            updated_replicas: non_zero(of(&self.update)),
            current_revision: Some(self.current.clone()),
            update_revision: Some(self.update.clone()),
            collision_count: known.collision_count.or(Some(0)),
            conditions: known.conditions.clone(),
        };
        let complete = status.updated_replicas.unwrap_or(0) == status.replicas && status.ready_replicas.unwrap_or(0) == status.replicas;
        if !self.on_delete() && complete && self.condemned.is_empty() {
            status.current_revision = status.update_revision.clone();
            status.current_replicas = status.updated_replicas;
        }
        if status != known {
            self.plan.push(Op::status(&StatefulSet { status: Some(status), ..self.set.clone() }));
        }
    }
}
