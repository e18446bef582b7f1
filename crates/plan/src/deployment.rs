//! Deployment: one ReplicaSet a revision of the pod template, and the way from one to the next.
//!
//! Watches: the Deployment, its ReplicaSets and, for `Recreate`, their pods. Writes: ReplicaSet create, patch and delete, the Deployment's status and revision.
//! Never: touches a pod. Mirrors `pkg/controller/deployment`, with its reasons and messages.

mod conditions;
mod revision;
mod rollout;
mod scale;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use api::k8s::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStatus, ReplicaSet};
use api::k8s::api::core::v1::{ObjectReference, Pod};
use api::k8s::apimachinery::pkg::util::intstr::IntOrString;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::claim::claim;
use crate::meta::{Labels, annotation, created, deleting, generation, name, reference, selects, selects_all, uid};
use crate::op::{At, Op, PatchKind, Plan};
use crate::template;

pub const REVISION: &str = "deployment.kubernetes.io/revision";
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

/// Finds a ReplicaSet of the namespace.
pub type ByName = Box<dyn Fn(&str) -> Option<Arc<ReplicaSet>> + Send>;

pub struct View {
    pub deployment: Arc<Deployment>,
    /// ReplicaSets of the namespace that it manages or that nobody does.
    pub replica_sets: Vec<Arc<ReplicaSet>>,
    /// A ReplicaSet that has the name of the one to be created, whoever manages it.
    pub by_name: ByName,
    /// Pods of its ReplicaSets.
    pub pods: Vec<Arc<Pod>>,
}

pub fn plan(view: &View, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let deployment = view.deployment.as_ref();
    let Some(spec) = deployment.spec.as_ref() else { return plan };
    if selects_all(&spec.selector) {
        plan.push(Op::warning(
            &reference(deployment),
            "SelectingAll",
            "This deployment is selecting all pods. A non-empty selector is required.".to_owned(),
        ));
        return plan;
    }
    let sets = claim(deployment, &view.replica_sets, |set| selects(&spec.selector, set.metadata.labels.as_ref()), &mut plan.ops);
    let mut work = Work::new(view, spec, sets, now, plan);
    if deleting(deployment) {
        work.sync_status();
    } else {
        work.conditions_of_pause();
        if spec.paused == Some(true) || work.is_scaling() {
            work.sync_scale();
        } else if work.recreates() {
            work.roll_recreate();
        } else {
            work.roll();
        }
    }
    work.finish()
}

/// One ReplicaSet while the plan is made: what it is, and what it is going to be.
#[derive(Clone)]
struct Set {
    set: Arc<ReplicaSet>,
    replicas: i32,
    annotations: Labels,
    min_ready_seconds: i32,
}

impl Set {
    fn new(set: Arc<ReplicaSet>) -> Self {
        let spec = set.spec.as_ref();
        Self {
            replicas: spec.and_then(|spec| spec.replicas).unwrap_or(1),
            annotations: set.metadata.annotations.clone().unwrap_or_default(),
            min_ready_seconds: spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0),
            set,
        }
    }

    fn status(&self) -> api::k8s::api::apps::v1::ReplicaSetStatus {
        self.set.status.clone().unwrap_or_default()
    }

    fn available(&self) -> i32 {
        self.set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
    }

    /// Those of them it is still asked to have. The status may tell of more for a moment; they are on their way out, and counting on them would take away
    /// as many too many: here upstream falls below what is promised.
    fn staying(&self) -> i32 {
        self.available().min(self.replicas)
    }

    fn actual(&self) -> i32 {
        self.set.status.as_ref().map_or(0, |status| status.replicas)
    }

    fn number(&self, key: &str) -> Option<i32> {
        self.annotations.get(key)?.parse().ok()
    }

    fn revision(&self) -> i64 {
        self.annotations.get(REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    fn is_new(&self) -> bool {
        self.set.metadata.uid.is_none()
    }

    /// What has to be written, if anything.
    fn patch(&self) -> Option<Value> {
        let was = Set::new(self.set.clone());
        let mut patch = json!({});
        let changed: serde_json::Map<String, Value> = self
            .annotations
            .iter()
            .filter(|(key, value)| was.annotations.get(*key) != Some(*value))
            .map(|(key, value)| (key.clone(), json!(value)))
            .collect();
        if !changed.is_empty() {
            patch["metadata"]["annotations"] = Value::Object(changed);
        }
        if self.replicas != was.replicas {
            patch["spec"]["replicas"] = json!(self.replicas);
        }
        if self.min_ready_seconds != was.min_ready_seconds {
            patch["spec"]["minReadySeconds"] = json!(self.min_ready_seconds);
        }
        (patch != json!({})).then_some(patch)
    }
}

/// The plan in the making.
struct Work<'a> {
    view: &'a View,
    deployment: &'a Deployment,
    spec: &'a DeploymentSpec,
    about: ObjectReference,
    now: Timestamp,
    plan: Plan,
    /// All but the new one, oldest first.
    old: Vec<Set>,
    /// The set of the present template, if there is one.
    new: Option<Set>,
    /// Created in this plan: after everything else is known.
    creates: bool,
    status: DeploymentStatus,
    /// Annotations of the Deployment to set.
    revision: Option<String>,
    events: Vec<Op>,
}

impl<'a> Work<'a> {
    fn new(view: &'a View, spec: &'a DeploymentSpec, mut sets: Vec<Arc<ReplicaSet>>, now: Timestamp, plan: Plan) -> Self {
        sets.sort_by(|one, other| created(one.as_ref()).cmp(&created(other.as_ref())).then_with(|| name(one.as_ref()).cmp(name(other.as_ref()))));
        let new = sets
            .iter()
            .position(|set| set.spec.as_ref().and_then(|spec| spec.template.as_ref()).is_some_and(|have| template::same(have, &spec.template)));
        let new = new.map(|index| Set::new(sets.remove(index)));
        Self {
            view,
            deployment: &view.deployment,
            spec,
            about: reference(view.deployment.as_ref()),
            now,
            plan,
            old: sets.into_iter().map(Set::new).collect(),
            new,
            creates: false,
            status: view.deployment.status.clone().unwrap_or_default(),
            revision: None,
            events: Vec::new(),
        }
    }

    fn replicas(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }

    fn recreates(&self) -> bool {
        self.spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
    }

    /// All sets as they are going to be.
    fn all(&self) -> impl Iterator<Item = &Set> {
        self.old.iter().chain(&self.new)
    }

    fn total(&self) -> i32 {
        self.all().map(|set| set.replicas).sum()
    }

    /// Surge and unavailability in pods; never both zero.
    fn fence_posts(&self) -> (i32, i32) {
        if self.recreates() || self.replicas() == 0 {
            return (0, 0);
        }
        let rolling = self.spec.strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let quarter = IntOrString::String("25%".to_owned());
        let surge = scaled(rolling.and_then(|rolling| rolling.max_surge.as_ref()).unwrap_or(&quarter), self.replicas(), true);
        let unavailable = scaled(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()).unwrap_or(&quarter), self.replicas(), false);
        if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable.min(self.replicas())) }
    }

    fn max_surge(&self) -> i32 {
        self.fence_posts().0
    }

    fn max_unavailable(&self) -> i32 {
        self.fence_posts().1
    }

    fn finish(mut self) -> Plan {
        for set in self.old.iter().chain(&self.new).filter(|set| !set.is_new()) {
            if let Some(patch) = set.patch() {
                self.plan.push(Op::merge(set.set.as_ref(), patch));
            }
        }
        if self.creates
            && let Some(set) = &self.new
        {
            self.plan.push(revision::creation(set));
        }
        self.plan.ops.append(&mut self.events);
        // Both through `/status` and without a resourceVersion: the annotation must not count as a change of the Deployment (its generation stays), as upstream.
        let mut patch = json!({});
        if let Some(revision) = &self.revision {
            patch["metadata"]["annotations"] = json!({REVISION: revision});
        }
        if self.status != self.deployment.status.clone().unwrap_or_default() {
            let mut status = crate::op::value(&self.status);
            // What a merge would leave standing.
            for key in crate::op::value(&self.deployment.status).as_object().into_iter().flatten().map(|(key, _)| key.clone()) {
                if status.get(&key).is_none() {
                    status[key] = Value::Null;
                }
            }
            patch["status"] = status;
        }
        if patch != json!({}) {
            patch["metadata"]["uid"] = json!(uid(self.deployment));
            self.plan.push(Op::Patch { at: At::object(self.deployment), subresource: Some("status"), kind: PatchKind::Merge, patch });
        }
        self.plan
    }

    fn observed(&self) -> Option<i64> {
        Some(generation(self.deployment))
    }
}

/// An absolute number or a share of `total`, rounded up or down.
pub(crate) fn scaled(value: &IntOrString, total: i32, up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => (*number).max(0),
        IntOrString::String(text) => {
            let percent: i64 = text.strip_suffix('%').and_then(|digits| digits.parse().ok()).unwrap_or(0);
            let product = percent.max(0) * i64::from(total);
            i32::try_from(if up { (product + 99) / 100 } else { product / 100 }).unwrap_or(i32::MAX)
        }
    }
}

/// The Deployment's revision, as `kubectl rollout history` shows it.
pub fn revision_of(deployment: &Deployment) -> Option<&str> {
    annotation(deployment, REVISION)
}
