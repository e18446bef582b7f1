//! ReplicaSet: keeps `spec.replicas` pods alive; ReplicationController is the same under an older name.
//!
//! Watches: the set and its pods. Writes: pod create, delete and owner references, the set's status. Never: touches a pod it does not manage.
//! Mirrors `pkg/controller/replicaset`, with the order of deletion of `ActivePodsWithRanks`.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use api::k8s::Metadata;
use api::k8s::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use api::k8s::api::core::v1::{Pod, PodTemplateSpec, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus};
use api::k8s::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use jiff::Timestamp;
use serde::Serialize;

use crate::claim::claim;
use crate::meta::{
    annotation, controller_reference, created, deleting, generation, name, namespace, non_zero, reference, selects, selects_map, time, uid, until,
};
use crate::op::{Announce, Op, Plan};
use crate::pods;

/// Pods created or deleted in one plan, at most (upstream's `BurstReplicas`).
pub const BURST: usize = 500;
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// What the two kinds have in common.
pub trait Set: Metadata<Ty = ObjectMeta> + Serialize + Clone {
    /// Whether its status has `terminatingReplicas`.
    const TELLS_TERMINATING: bool;
    fn replicas(&self) -> i32;
    fn min_ready_seconds(&self) -> i32;
    fn template(&self) -> Option<&PodTemplateSpec>;
    fn selects(&self, pod: &Pod) -> bool;
    fn counts(&self) -> Counts;
    fn shows_failure(&self) -> bool;
    /// A copy with this status.
    fn with(&self, counts: &Counts, failure: Option<&Failure>, now: Timestamp) -> Self;
}

/// A status' numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    pub replicas: i32,
    pub fully_labeled: i32,
    pub ready: i32,
    pub available: i32,
    pub terminating: Option<i32>,
    pub observed_generation: i64,
}

/// Why pods could not be created or deleted the last time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// `FailedCreate` or `FailedDelete`.
    pub reason: &'static str,
    pub message: String,
}

pub struct View<S> {
    pub set: Arc<S>,
    /// Pods of the namespace that it manages or that nobody does.
    pub pods: Vec<Arc<Pod>>,
    /// Pods of all sets under the same owner: pods on crowded nodes go first.
    pub related: Vec<Arc<Pod>>,
    pub last_failure: Option<Failure>,
}

pub fn plan<S: Set>(view: &View<S>, now: Timestamp) -> Plan {
    let set = view.set.as_ref();
    let mut plan = Plan::default();
    let owned = claim(set, &view.pods, |pod| set.selects(pod), &mut plan.ops);
    let active: Vec<&Arc<Pod>> = owned.iter().filter(|pod| pods::active(pod)).collect();

    if !deleting(set) {
        let wanted = usize::try_from(set.replicas()).unwrap_or(0);
        if active.len() < wanted {
            create(set, (wanted - active.len()).min(BURST), &mut plan);
        } else if active.len() > wanted {
            delete(set, &active, (active.len() - wanted).min(BURST), &view.related, now, &mut plan);
        }
    }

    let counts = count(set, &owned, &active, now);
    // The first failure stands until it is over: the next try names another pod, and to write that down would wake us at once, for ever.
    if set.counts() != counts || set.shows_failure() != view.last_failure.is_some() {
        plan.push(Op::status(&set.with(&counts, view.last_failure.as_ref(), now)));
    }
    if let Some(next) = active.iter().filter_map(|pod| until(pods::available_at(pod, set.min_ready_seconds())?, now)).min() {
        plan.look_again(next);
    }
    plan
}

fn create<S: Set>(set: &S, count: usize, plan: &mut Plan) {
    let Some(template) = set.template() else { return };
    let pod = pods::from_template(template, namespace(set), name(set), controller_reference(set));
    let announce = Announce {
        about: reference(set),
        done: Some(("SuccessfulCreate", "Created pod: ".to_owned())),
        failed: Some(("FailedCreate", "Error creating: ".to_owned())),
    };
    let op = Op::create(&pod).announced(announce);
    plan.ops.extend(std::iter::repeat_n(op, count));
}

fn delete<S: Set>(set: &S, active: &[&Arc<Pod>], count: usize, related: &[Arc<Pod>], now: Timestamp, plan: &mut Plan) {
    let mut crowd: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| pods::active(pod)) {
        *crowd.entry(pods::node(pod)).or_default() += 1;
    }
    let mut ranked: Vec<(usize, &Arc<Pod>)> = active.iter().map(|pod| (crowd.get(pods::node(pod)).copied().unwrap_or(0), *pod)).collect();
    ranked.sort_by(|one, other| sooner(one, other, now));
    for (_, pod) in ranked.into_iter().take(count) {
        plan.push(Op::delete(pod.as_ref()).announced(Announce {
            about: reference(set),
            done: Some(("SuccessfulDelete", "Deleted pod: ".to_owned())),
            failed: Some(("FailedDelete", "Error deleting: ".to_owned())),
        }));
    }
}

/// Which of two pods is deleted sooner.
fn sooner((crowd_one, one): &(usize, &Arc<Pod>), (crowd_other, other): &(usize, &Arc<Pod>), now: Timestamp) -> Ordering {
    let phase = |pod: &Pod| match pods::phase(pod) {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    };
    let cost = |pod: &Pod| annotation(pod, DELETION_COST).and_then(|text| text.parse::<i32>().ok()).unwrap_or(0);
    // Ages are compared by their order of magnitude, so that among pods of about the same age chance (the uid) decides.
    let age = |at: Timestamp| now.duration_since(at).as_secs().max(0).checked_ilog2().map_or(0, |bits| bits + 1);
    (!pods::node(one).is_empty())
        .cmp(&!pods::node(other).is_empty())
        .then_with(|| phase(one).cmp(&phase(other)))
        .then_with(|| pods::ready(one).cmp(&pods::ready(other)))
        .then_with(|| cost(one).cmp(&cost(other)))
        .then_with(|| crowd_other.cmp(crowd_one))
        .then_with(|| match (pods::ready_since(one), pods::ready_since(other)) {
            (Some(one), Some(other)) => age(one).cmp(&age(other)),
            _ => Ordering::Equal,
        })
        .then_with(|| pods::restarts(other).cmp(&pods::restarts(one)))
        .then_with(|| age(created(one.as_ref())).cmp(&age(created(other.as_ref()))))
        .then_with(|| uid(one.as_ref()).cmp(uid(other.as_ref())))
}

fn count<S: Set>(set: &S, owned: &[Arc<Pod>], active: &[&Arc<Pod>], now: Timestamp) -> Counts {
    let wanted_labels = set.template().and_then(|template| template.metadata.as_ref()?.labels.as_ref());
    let number = |test: &dyn Fn(&Pod) -> bool| i32::try_from(active.iter().filter(|pod| test(pod)).count()).unwrap_or(i32::MAX);
    Counts {
        replicas: number(&|_| true),
        fully_labeled: number(&|pod| wanted_labels.is_none_or(|labels| selects_map(labels, pod.metadata.labels.as_ref()))),
        ready: number(&|pod| pods::ready(pod)),
        available: number(&|pod| pods::available(pod, set.min_ready_seconds(), now)),
        terminating: S::TELLS_TERMINATING.then(|| i32::try_from(owned.iter().filter(|pod| pods::terminating(pod)).count()).unwrap_or(i32::MAX)),
        observed_generation: generation(set),
    }
}

impl Set for ReplicaSet {
    const TELLS_TERMINATING: bool = true;

    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn selects(&self, pod: &Pod) -> bool {
        self.spec.as_ref().is_some_and(|spec| selects(&spec.selector, pod.metadata.labels.as_ref()))
    }

    fn counts(&self) -> Counts {
        let status = self.status.clone().unwrap_or_default();
        Counts {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            terminating: status.terminating_replicas,
            observed_generation: status.observed_generation.unwrap_or(-1),
        }
    }

    fn shows_failure(&self) -> bool {
        self.status.iter().flat_map(|status| status.conditions.iter().flatten()).any(|condition| condition.type_ == "ReplicaFailure")
    }

    fn with(&self, counts: &Counts, failure: Option<&Failure>, now: Timestamp) -> Self {
        let mut conditions = self.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        if failure.is_none() {
            conditions.retain(|condition| condition.type_ != "ReplicaFailure");
        }
        if let Some(failure) = failure.filter(|_| !self.shows_failure()) {
            conditions.push(ReplicaSetCondition {
                type_: "ReplicaFailure".into(),
                status: "True".into(),
                reason: Some(failure.reason.into()),
                message: Some(failure.message.clone()),
                last_transition_time: Some(time(now)),
            });
        }
        Self {
            status: Some(ReplicaSetStatus {
                replicas: counts.replicas,
                fully_labeled_replicas: non_zero(counts.fully_labeled),
                ready_replicas: non_zero(counts.ready),
                available_replicas: non_zero(counts.available),
                terminating_replicas: counts.terminating,
                observed_generation: Some(counts.observed_generation),
                conditions: (!conditions.is_empty()).then_some(conditions),
            }),
            ..self.clone()
        }
    }
}

impl Set for ReplicationController {
    const TELLS_TERMINATING: bool = false;

    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn selects(&self, pod: &Pod) -> bool {
        let selector = self.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        selector.is_some_and(|selector| !selector.is_empty() && selects_map(selector, pod.metadata.labels.as_ref()))
    }

    fn counts(&self) -> Counts {
        let status = self.status.clone().unwrap_or_default();
        Counts {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            terminating: None,
            observed_generation: status.observed_generation.unwrap_or(-1),
        }
    }

    fn shows_failure(&self) -> bool {
        self.status.iter().flat_map(|status| status.conditions.iter().flatten()).any(|condition| condition.type_ == "ReplicaFailure")
    }

    fn with(&self, counts: &Counts, failure: Option<&Failure>, now: Timestamp) -> Self {
        let mut conditions = self.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        if failure.is_none() {
            conditions.retain(|condition| condition.type_ != "ReplicaFailure");
        }
        if let Some(failure) = failure.filter(|_| !self.shows_failure()) {
            conditions.push(ReplicationControllerCondition {
                type_: "ReplicaFailure".into(),
                status: "True".into(),
                reason: Some(failure.reason.into()),
                message: Some(failure.message.clone()),
                last_transition_time: Some(time(now)),
            });
        }
        Self {
            status: Some(ReplicationControllerStatus {
                replicas: counts.replicas,
                fully_labeled_replicas: non_zero(counts.fully_labeled),
                ready_replicas: non_zero(counts.ready),
                available_replicas: non_zero(counts.available),
                observed_generation: Some(counts.observed_generation),
                conditions: (!conditions.is_empty()).then_some(conditions),
            }),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NOW: &str = "2026-11-22T12:00:00Z";

    fn set(replicas: i32) -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "ns", "uid": "S", "generation": 2},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}}},
        }))
        .unwrap()
    }

    /// `name phase node flags`, flags: r ready, o orphan, d deleting, x of another owner, - no matching label.
    fn pod(line: &str) -> Arc<Pod> {
        let [name, phase, node, flags] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let has = |flag| flags.contains(flag);
        let owner =
            json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": if has('x') { "X" } else { "S" }, "controller": true}]);
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {
                    "name": name, "namespace": "ns", "uid": name, "creationTimestamp": "2026-11-22T11:00:00Z",
                    "labels": {"app": if has('-') { "other" } else { "web" }},
                    "ownerReferences": if has('o') { Value::Null } else { owner },
                    "deletionTimestamp": if has('d') { json!(NOW) } else { Value::Null },
                },
                "spec": {"nodeName": if node == "." { Value::Null } else { json!(node) }, "containers": []},
                "status": {"phase": phase, "conditions": [{"type": "Ready", "status": if has('r') { "True" } else { "False" }, "lastTransitionTime": "2026-11-22T11:59:55Z"}]},
            }))
            .unwrap(),
        )
    }

    fn lines(set: ReplicaSet, pods: &[&str]) -> Vec<String> {
        let pods: Vec<_> = pods.iter().map(|line| pod(line)).collect();
        let view = View { set: Arc::new(set), related: pods.clone(), pods, last_failure: None };
        plan(&view, NOW.parse().unwrap()).to_string().lines().map(str::to_owned).collect()
    }

    #[test]
    fn keeps_the_number() {
        let created = "create Pod ns/web-* (SuccessfulCreate: Created pod: …)";
        let cases: [(i32, &[&str], &[&str]); 7] = [
            (2, &[], &[created, created, r#"status ReplicaSet ns/web {"observedGeneration":2,"replicas":0,"terminatingReplicas":0}"#]),
            // A failed one is replaced; one that is going is counted apart.
            (
                2,
                &["a Running n1 r", "b Failed n1 .", "c Running n1 d"],
                &[
                    created,
                    r#"status ReplicaSet ns/web {"availableReplicas":1,"fullyLabeledReplicas":1,"observedGeneration":2,"readyReplicas":1,"replicas":1,"terminatingReplicas":1}"#,
                ],
            ),
            // Not assigned before assigned, not ready before ready.
            (
                1,
                &["a Running n1 r", "b Pending . .", "c Running n1 ."],
                &[
                    "delete Pod ns/b (SuccessfulDelete: Deleted pod: …)",
                    "delete Pod ns/c (SuccessfulDelete: Deleted pod: …)",
                    r#"status ReplicaSet ns/web {"availableReplicas":1,"fullyLabeledReplicas":3,"observedGeneration":2,"readyReplicas":1,"replicas":3,"terminatingReplicas":0}"#,
                ],
            ),
            // The crowded node first.
            (
                2,
                &["a Running n1 r", "b Running n2 r", "c Running n2 r"],
                &[
                    "delete Pod ns/b (SuccessfulDelete: Deleted pod: …)",
                    r#"status ReplicaSet ns/web {"availableReplicas":3,"fullyLabeledReplicas":3,"observedGeneration":2,"readyReplicas":3,"replicas":3,"terminatingReplicas":0}"#,
                ],
            ),
            // Somebody else's.
            (0, &["a Running n1 rx"], &[r#"status ReplicaSet ns/web {"observedGeneration":2,"replicas":0,"terminatingReplicas":0}"#]),
            // Adopted.
            (
                1,
                &["a Running n1 ro"],
                &[
                    "confirm ReplicaSet ns/web",
                    r#"patch Pod ns/a {"metadata":{"ownerReferences":[{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"ReplicaSet","name":"web","uid":"S"}]}}"#,
                    r#"status ReplicaSet ns/web {"availableReplicas":1,"fullyLabeledReplicas":1,"observedGeneration":2,"readyReplicas":1,"replicas":1,"terminatingReplicas":0}"#,
                ],
            ),
            // Let go, and replaced.
            (
                1,
                &["a Running n1 r-"],
                &[
                    r#"patch Pod ns/a {"metadata":{"ownerReferences":null}}"#,
                    created,
                    r#"status ReplicaSet ns/web {"observedGeneration":2,"replicas":0,"terminatingReplicas":0}"#,
                ],
            ),
        ];
        for (wanted, pods, expected) in cases {
            assert_eq!(lines(set(wanted), pods), expected, "{pods:?}");
        }
    }

    #[test]
    fn is_quiet_when_all_is_well() {
        let mut quiet = set(1);
        quiet.status = Some(ReplicaSetStatus {
            replicas: 1,
            ready_replicas: Some(1),
            available_replicas: Some(1),
            fully_labeled_replicas: Some(1),
            terminating_replicas: Some(0),
            observed_generation: Some(2),
            conditions: None,
        });
        assert!(lines(quiet.clone(), &["a Running n1 r"]).is_empty());
        quiet.spec.as_mut().unwrap().min_ready_seconds = Some(30);
        assert_eq!(lines(quiet, &["a Running n1 r"])[1..], ["again in 25s"]);
    }

    #[test]
    fn a_failure_shows_as_a_condition_and_is_told_once() {
        let view = |set: ReplicaSet, message: Option<&str>| View {
            set: Arc::new(set),
            pods: Vec::new(),
            related: Vec::new(),
            last_failure: message.map(|message| Failure { reason: "FailedCreate", message: message.into() }),
        };
        let told = plan(&view(set(0), Some("pods \"web-a\" is forbidden")), NOW.parse().unwrap()).to_string();
        assert!(told.contains(r#""reason":"FailedCreate","status":"True","type":"ReplicaFailure""#));
        let failed = set(0).with(&count(&set(0), &[], &[], NOW.parse().unwrap()), view(set(0), Some("pods \"web-a\" is forbidden")).last_failure.as_ref(), NOW.parse().unwrap());
        assert_eq!(plan(&view(failed.clone(), Some("pods \"web-b\" is forbidden")), NOW.parse().unwrap()).to_string(), "");
        assert!(!plan(&view(failed, None), NOW.parse().unwrap()).to_string().contains("ReplicaFailure"));
    }
}
