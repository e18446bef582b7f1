//! PodDisruptionBudget: how many of the pods it covers may be evicted right now.
//!
//! Watches: PodDisruptionBudgets, pods. Writes: the budget's status. Never: touches a pod. Mirrors `pkg/controller/disruption`; the eviction
//! subresource of the API server is the other half, it counts `disruptionsAllowed` down and notes the pod in `disruptedPods`.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::k8s::api::core::v1::Pod;
use api::k8s::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use api::k8s::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use api::k8s::apimachinery::pkg::util::intstr::IntOrString;
use jiff::Timestamp;

use crate::deployment::scaled;
use crate::meta::{controller_of, deleting, generation, name, plus_seconds, reference, time, until};
use crate::op::{Op, Plan};
use crate::pods;

/// A pod that was let go counts as gone this long; if it is still there then, it was not meant.
const DELETION_SECONDS: i64 = 120;

pub struct View {
    pub budget: Arc<PodDisruptionBudget>,
    /// Those its selector covers.
    pub pods: Vec<Arc<Pod>>,
    /// By the uid of a pod's managing owner.
    pub scales: BTreeMap<String, Scale>,
}

/// What a pod's owner wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scale {
    /// The uid of who really wants it: a ReplicaSet stands for its Deployment, however many of them there are during a rollout.
    pub root: String,
    pub replicas: i32,
}

struct Count {
    expected: i32,
    desired: i32,
    unmanaged: bool,
}

pub fn plan(view: &View, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let budget = view.budget.as_ref();
    if deleting(budget) {
        return plan;
    }
    let old = budget.status.clone().unwrap_or_default();
    let count = match count(view) {
        Ok(count) => count,
        Err(why) => {
            let mut status = PodDisruptionBudgetStatus { disruptions_allowed: Some(0), ..old.clone() };
            set_condition(&mut status, "False", "SyncFailed", &why, now);
            if status != old {
                plan.push(Op::warning(&reference(budget), "CalculateExpectedPodCountFailed", format!("Failed to calculate the number of expected pods: {why}")));
                write(budget, status, &mut plan);
            }
            return plan;
        }
    };
    let disrupted = disrupted(view, &old, now, &mut plan);
    let healthy = view.pods.iter().filter(|pod| !deleting(pod.as_ref()) && !disrupted.contains_key(name(pod.as_ref())) && pods::ready(pod)).count() as i32;
    let spare = (healthy - count.desired).max(0);
    let allowed = if count.expected > 0 { spare } else { 0 };
    let mut status = PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(count.desired),
        expected_pods: Some(count.expected),
        disruptions_allowed: Some(allowed),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        observed_generation: Some(generation(budget)),
        conditions: old.conditions.clone(),
    };
    let (state, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    set_condition(&mut status, state, reason, "", now);
    if status != old {
        if view.pods.is_empty() {
            plan.push(Op::normal(&reference(budget), "NoPods", "No matching pods found".to_owned()));
        }
        if count.unmanaged {
            plan.push(Op::warning(&reference(budget), "UnmanagedPods", "Pods selected by this PodDisruptionBudget were found to be unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value.".to_owned()));
        }
        write(budget, status, &mut plan);
    }
    plan
}

fn write(budget: &PodDisruptionBudget, status: PodDisruptionBudgetStatus, plan: &mut Plan) {
    plan.push(Op::status(&PodDisruptionBudget { status: Some(status), ..budget.clone() }));
}

/// How many pods there should be, and how many of them healthy.
fn count(view: &View) -> Result<Count, String> {
    let spec = view.budget.spec.clone().unwrap_or_default();
    let present = view.pods.len() as i32;
    if let Some(most) = &spec.max_unavailable {
        let (expected, unmanaged) = scale(view)?;
        return Ok(Count { expected, desired: (expected - scaled(most, expected, true)).max(0), unmanaged });
    }
    match &spec.min_available {
        Some(IntOrString::Int(least)) => Ok(Count { expected: present, desired: *least, unmanaged: false }),
        Some(least) => {
            let (expected, unmanaged) = scale(view)?;
            Ok(Count { expected, desired: scaled(least, expected, true), unmanaged })
        }
        None => Ok(Count { expected: 0, desired: 0, unmanaged: false }),
    }
}

/// What all owners of the pods want together, and whether some pods have none.
fn scale(view: &View) -> Result<(i32, bool), String> {
    let (mut roots, mut unmanaged) = (BTreeMap::new(), false);
    for pod in &view.pods {
        match controller_of(pod.as_ref()) {
            None => unmanaged = true,
            Some(owner) => {
                let scale = view.scales.get(&owner.uid).ok_or_else(|| format!("found no controllers for pod {:?}", name(pod.as_ref())))?;
                roots.insert(&scale.root, scale.replicas);
            }
        }
    }
    Ok((roots.into_values().sum(), unmanaged))
}

/// Pods that were let go and are not gone yet; the rest is forgotten.
fn disrupted(view: &View, old: &PodDisruptionBudgetStatus, now: Timestamp, plan: &mut Plan) -> BTreeMap<String, Time> {
    let mut kept = BTreeMap::new();
    let noted = old.disrupted_pods.clone().unwrap_or_default();
    for pod in view.pods.iter().filter(|pod| !deleting(pod.as_ref())) {
        let Some(since) = noted.get(name(pod.as_ref())) else { continue };
        match until(plus_seconds(since.0, DELETION_SECONDS), now) {
            Some(left) => {
                plan.look_again(left);
                kept.insert(name(pod.as_ref()).to_owned(), since.clone());
            }
            None => {
                let key = format!("{}/{}", crate::meta::namespace(view.budget.as_ref()), name(view.budget.as_ref()));
                plan.push(Op::warning(&reference(pod.as_ref()), "NotDeleted", format!("Pod was expected by PDB {key} to be deleted but it wasn't")));
            }
        }
    }
    kept
}

fn set_condition(status: &mut PodDisruptionBudgetStatus, state: &str, reason: &str, message: &str, now: Timestamp) {
    const KIND: &str = "DisruptionAllowed";
    let conditions = status.conditions.get_or_insert_default();
    let since = conditions.iter().find(|known| known.type_ == KIND && known.status == state).map_or_else(|| time(now), |known| known.last_transition_time.clone());
    let condition = Condition {
        type_: KIND.to_owned(),
        status: state.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: status.observed_generation,
        last_transition_time: since,
    };
    match conditions.iter_mut().find(|known| known.type_ == KIND) {
        Some(known) => *known = condition,
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NOW: &str = "2026-11-22T12:00:00Z";

    fn pod(name: &str, ready: bool, owner: Option<&str>) -> Arc<Pod> {
        let owners: Vec<Value> = owner.iter().map(|uid| json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": uid, "uid": uid, "controller": true})).collect();
        let state = if ready { "True" } else { "False" };
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name, "namespace": "ns", "ownerReferences": owners}, "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": state}]}})).unwrap())
    }

    fn view(spec: Value, pods: Vec<Arc<Pod>>, disrupted: Value) -> View {
        let budget = json!({"metadata": {"name": "b", "namespace": "ns", "uid": "B", "generation": 3}, "spec": spec, "status": {"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0, "disruptedPods": disrupted}});
        View { budget: Arc::new(serde_json::from_value(budget).unwrap()), pods, scales: ["set", "newer"].map(|set| (set.to_owned(), Scale { root: "deployment".to_owned(), replicas: 10 })).into() }
    }

    /// `healthy/desired of expected, allowed: reason`.
    fn outcome(view: &View) -> String {
        let plan = plan(view, NOW.parse().unwrap());
        let Some(Op::Replace { object, subresource: Some("status"), .. }) = plan.ops.last() else { return "nothing".to_owned() };
        let at = |pointer: &str| object.pointer(&format!("/status/{pointer}")).cloned().unwrap_or_default();
        format!("{}/{} of {}, {}: {}", at("currentHealthy"), at("desiredHealthy"), at("expectedPods"), at("disruptionsAllowed"), at("conditions/0/reason").as_str().unwrap_or(""))
    }

    #[test]
    fn what_may_be_disrupted() {
        let none = || json!({});
        let two = || vec![pod("a", true, None), pod("b", true, None), pod("c", false, None)];
        let managed = || (0..10).map(|number| pod(&format!("p{number}"), number < 9, Some(if number < 5 { "set" } else { "newer" }))).collect::<Vec<_>>();
        let cases = [
            (view(json!({"minAvailable": 1}), two(), none()), "2/1 of 3, 1: SufficientPods"),
            (view(json!({"minAvailable": 2}), two(), none()), "2/2 of 3, 0: InsufficientPods"),
            (view(json!({"minAvailable": 0}), Vec::new(), none()), "0/0 of 0, 0: InsufficientPods"),
            (view(json!({"minAvailable": "90%"}), managed(), none()), "9/9 of 10, 0: InsufficientPods"),
            (view(json!({"maxUnavailable": 3}), managed(), none()), "9/7 of 10, 2: SufficientPods"),
            (view(json!({"maxUnavailable": 1}), vec![pod("x", true, Some("unknown"))], none()), "0/0 of 0, 0: SyncFailed"),
            (view(json!({"minAvailable": 1}), two(), json!({"a": "2026-11-22T11:59:00Z", "gone": "2026-11-22T11:59:00Z"})), "1/1 of 3, 0: InsufficientPods"),
            (view(json!({"minAvailable": 1}), two(), json!({"a": "2026-11-22T11:50:00Z"})), "2/1 of 3, 1: SufficientPods"),
        ];
        for (index, (view, want)) in cases.iter().enumerate() {
            assert_eq!(outcome(view), *want, "case {index}");
        }
    }

    #[test]
    fn a_status_that_is_true_is_not_written_again() {
        let mut view = view(json!({"minAvailable": 1}), vec![pod("a", true, None)], json!({}));
        let plan = plan(&view, NOW.parse().unwrap());
        let Some(Op::Replace { object, .. }) = plan.ops.last() else { panic!("no status was written") };
        view.budget = Arc::new(serde_json::from_value(object.clone()).unwrap());
        assert_eq!(outcome(&view), "nothing");
    }
}
