//! Node lifecycle: a node whose agent is silent is Unknown, and taints tell the scheduler and the eviction.
//!
//! Watches: nodes and their leases. Writes: the node's conditions and taints, Ready of its pods.
//! Never: taints NoExecute while no node at all is ready: then it is more likely us who are cut off (upstream's "full disruption").
//! Mirrors `pkg/controller/nodelifecycle`.

use std::sync::Arc;

use api::k8s::api::core::v1::{Node, NodeCondition, Pod, PodCondition, Taint};
use jiff::Timestamp;
use serde_json::json;

use super::{NOT_READY, UNREACHABLE, condition, is_ready, state};
use crate::meta::{deleting, name, plus_seconds, reference, time, until};
use crate::op::{At, Op, PatchKind, Plan, value};
use crate::pods;

/// Silence after which a node is Unknown.
pub const GRACE_SECONDS: i64 = 50;
/// The same for a node that never said anything.
pub const STARTUP_GRACE_SECONDS: i64 = 60;

pub struct View {
    pub node: Arc<Node>,
    /// When we last saw a sign of life (lease or status), by our own clock; none if never.
    pub seen: Option<Timestamp>,
    /// When we first saw the node.
    pub known_since: Timestamp,
    /// The first look at this node since we run.
    pub is_new: bool,
    /// Whether another node is ready, by its conditions.
    pub others_ready: bool,
    pub pods: Vec<Arc<Pod>>,
}

pub fn plan(view: &View, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let node = view.node.as_ref();
    if deleting(node) {
        return plan;
    }
    let about = reference(node);
    if view.is_new {
        // By itself: a write that fails, as one does when the range of addresses is assigned at the same time, would take it along, and it is said once.
        plan.push(Op::normal(&about, "RegisteredNode", format!("Node {0} event: Registered Node {0} in Controller", name(node))));
        plan.look_again(std::time::Duration::ZERO);
        return plan;
    }
    let silent_at = match view.seen {
        Some(seen) => plus_seconds(seen, GRACE_SECONDS),
        None => plus_seconds(view.known_since, STARTUP_GRACE_SECONDS),
    };
    let mut ready = state(node, "Ready").to_owned();
    match until(silent_at, now) {
        Some(left) => plan.look_again(left),
        None => {
            if let Some(conditions) = silenced(view, now) {
                plan.push(Op::Patch {
                    at: At::object(node),
                    subresource: Some("status"),
                    kind: PatchKind::Merge,
                    patch: json!({"status": {"conditions": value(&conditions)}}),
                });
            }
            ready = "Unknown".to_owned();
        }
    }
    if ready != "True" {
        mark_pods(view, now, &mut plan);
        if is_ready(node) {
            plan.push(Op::normal(&about, "NodeNotReady", format!("Node {} status is now: NodeNotReady", name(node))));
        }
    }
    taint(view, &ready, now, &mut plan);
    plan
}

/// The node's conditions when its agent has fallen silent; none when they say so already.
fn silenced(view: &View, now: Timestamp) -> Option<Vec<NodeCondition>> {
    let node = view.node.as_ref();
    let mut conditions = node.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let mut changed = false;
    for kind in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
        let (reason, message) = match condition(node, kind) {
            None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
        };
        match conditions.iter_mut().find(|condition| condition.type_ == kind) {
            Some(known) if known.status == "Unknown" => {}
            Some(known) => {
                (known.status, known.reason, known.message) = ("Unknown".to_owned(), Some(reason.to_owned()), Some(message.to_owned()));
                known.last_transition_time = Some(time(now));
                changed = true;
            }
            None => {
                conditions.push(NodeCondition {
                    type_: kind.to_owned(),
                    status: "Unknown".to_owned(),
                    reason: Some(reason.to_owned()),
                    message: Some(message.to_owned()),
                    last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                    last_transition_time: Some(time(now)),
                });
                changed = true;
            }
        }
    }
    changed.then_some(conditions)
}

/// Pods of a node that is not ready are not ready: Services must not send to them.
fn mark_pods(view: &View, now: Timestamp, plan: &mut Plan) {
    for pod in view.pods.iter().filter(|pod| pods::ready(pod) && !pods::finished(pod)) {
        let mut conditions: Vec<PodCondition> = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        for condition in conditions.iter_mut().filter(|condition| condition.type_ == "Ready") {
            condition.status = "False".to_owned();
            condition.last_transition_time = Some(time(now));
        }
        plan.push(Op::Patch {
            at: At::object(pod.as_ref()),
            subresource: Some("status"),
            kind: PatchKind::Merge,
            patch: json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": value(&conditions)}}),
        });
        plan.push(Op::warning(&reference(pod.as_ref()), "NodeNotReady", "Node is not ready".to_owned()));
    }
}

/// The taints that are ours to set and to remove, with what the conditions ask for.
fn taint(view: &View, ready: &str, now: Timestamp, plan: &mut Plan) {
    let node = view.node.as_ref();
    let pressure = |kind: &str| state(node, kind) == "True";
    let unschedulable = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
    let evicts = view.others_ready;
    let wanted = [
        (NOT_READY, "NoSchedule", ready == "False"),
        (UNREACHABLE, "NoSchedule", ready == "Unknown"),
        (NOT_READY, "NoExecute", ready == "False" && evicts),
        (UNREACHABLE, "NoExecute", ready == "Unknown" && evicts),
        ("node.kubernetes.io/memory-pressure", "NoSchedule", pressure("MemoryPressure")),
        ("node.kubernetes.io/disk-pressure", "NoSchedule", pressure("DiskPressure")),
        ("node.kubernetes.io/pid-pressure", "NoSchedule", pressure("PIDPressure")),
        ("node.kubernetes.io/network-unavailable", "NoSchedule", pressure("NetworkUnavailable")),
        ("node.kubernetes.io/unschedulable", "NoSchedule", unschedulable),
    ];
    let have = crate::node_fit::taints(node);
    let mut taints: Vec<Taint> = have
        .iter()
        .filter(|taint| wanted.iter().all(|(key, effect, wanted)| *wanted || taint.key != *key || taint.effect != *effect))
        .cloned()
        .collect();
    for (key, effect, _) in wanted.iter().filter(|(_, _, wanted)| *wanted) {
        if !taints.iter().any(|taint| taint.key == *key && taint.effect == *effect) {
            taints.push(Taint { key: (*key).to_owned(), effect: (*effect).to_owned(), time_added: Some(time(now)), value: None });
        }
    }
    if taints.as_slice() != have {
        // Guarded by the resourceVersion of the taints read, and so first: what comes before in this plan changes the status only.
        let patch = json!({"spec": {"taints": if taints.is_empty() { serde_json::Value::Null } else { value(&taints) }}});
        plan.ops.insert(0, Op::merge(node, patch));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-11-22T12:00:00Z";

    fn view(ready: &str, silence: i64, taints: &str) -> View {
        let conditions: Vec<_> = [("Ready", ready), ("MemoryPressure", "False"), ("DiskPressure", "False"), ("PIDPressure", "False")]
            .iter()
            .map(|(kind, status)| json!({"type": kind, "status": status}))
            .collect();
        let taints: Vec<_> = taints
            .split(' ')
            .filter(|word| !word.is_empty())
            .map(|word| {
                let (key, effect) = word.split_once(':').unwrap();
                json!({"key": key, "effect": effect})
            })
            .collect();
        let now: Timestamp = NOW.parse().unwrap();
        View {
            node: Arc::new(
                serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": {"taints": taints}, "status": {"conditions": conditions}})).unwrap(),
            ),
            seen: Some(plus_seconds(now, -silence)),
            known_since: now,
            is_new: false,
            others_ready: true,
            pods: Vec::new(),
        }
    }

    fn lines(view: &View) -> Vec<String> {
        plan(view, NOW.parse().unwrap()).to_string().lines().map(str::to_owned).collect()
    }

    #[test]
    fn conditions_and_taints() {
        let taints = |line: &str| line.contains(r#""effect":"NoExecute""#) && line.contains(r#""effect":"NoSchedule""#);
        assert_eq!(lines(&view("True", 10, "")), ["again in 40s"]);
        // Just come up.
        assert_eq!(
            lines(&view("True", 10, "node.kubernetes.io/not-ready:NoSchedule node.kubernetes.io/not-ready:NoExecute mine:NoSchedule")),
            [r#"patch Node n {"spec":{"taints":[{"effect":"NoSchedule","key":"mine"}]}}"#, "again in 40s"]
        );
        let down = lines(&view("False", 10, ""));
        assert!(taints(&down[0]) && down[0].contains(NOT_READY), "{down:?}");
        let silent = lines(&view("True", 50, ""));
        assert!(taints(&silent[0]) && silent[0].contains(UNREACHABLE), "{silent:?}");
        assert_eq!(silent[1].matches(r#""status":"Unknown""#).count(), 4, "{silent:?}");
        assert_eq!(silent[2], "event Normal NodeNotReady: Node n status is now: NodeNotReady");
    }

    #[test]
    fn nobody_is_evicted_when_all_are_silent() {
        let mut view = view("True", 50, "");
        view.others_ready = false;
        assert!(!lines(&view)[0].contains("NoExecute"));
    }

    #[test]
    fn its_pods_are_not_ready_either() {
        let mut view = view("Unknown", 60, "node.kubernetes.io/unreachable:NoSchedule node.kubernetes.io/unreachable:NoExecute");
        view.pods = vec![Arc::new(serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns"}, "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}})).unwrap())];
        let lines = lines(&view);
        assert!(lines[1].starts_with("patch Pod ns/p/status") && lines[1].contains(r#""status":"False","type":"Ready""#), "{lines:?}");
        assert_eq!(lines[2..], ["event Warning NodeNotReady: Node is not ready"]);
    }
}
