//! Eviction by taints: a pod leaves a node with a NoExecute taint which it does not tolerate, or when its time of grace is over.
//!
//! Watches: nodes and their pods. Writes: the pod condition DisruptionTarget, pod deletes. Mirrors `pkg/controller/tainteviction`.

use std::sync::Arc;

use api::k8s::api::core::v1::{Node, Pod, Taint};
use jiff::Timestamp;
use serde_json::json;

use crate::meta::{deleting, name, namespace, plus_seconds, reference, time, uid, until};
use crate::node_fit::{taints, tolerates};
use crate::op::{At, Op, PatchKind, Plan};
use crate::pods;

pub struct View {
    pub node: Arc<Node>,
    pub pods: Vec<Arc<Pod>>,
}

pub fn plan(view: &View, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let taints: Vec<&Taint> = taints(view.node.as_ref()).iter().filter(|taint| taint.effect == "NoExecute").collect();
    if taints.is_empty() {
        return plan;
    }
    for pod in view.pods.iter().filter(|pod| !deleting(pod.as_ref()) && !pods::finished(pod)) {
        let Some(at) = leaves_at(pod, &taints, now) else { continue };
        match until(at, now) {
            Some(left) => plan.look_again(left),
            None => evict(pod, now, &mut plan),
        }
    }
    plan
}

/// When the pod has to go; none if it may stay for ever.
fn leaves_at(pod: &Pod, taints: &[&Taint], now: Timestamp) -> Option<Timestamp> {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or(&[]);
    let mut at: Option<Timestamp> = None;
    for taint in taints {
        let tolerating = || tolerations.iter().filter(|toleration| tolerates(toleration, taint));
        if tolerating().next().is_none() {
            return Some(now);
        }
        // Of several tolerations the shortest counts.
        if let Some(seconds) = tolerating().filter_map(|toleration| toleration.toleration_seconds).min() {
            let since = taint.time_added.as_ref().map_or(now, |time| time.0);
            let end = plus_seconds(since, seconds.max(0));
            at = Some(at.map_or(end, |known| known.min(end)));
        }
    }
    at
}

fn evict(pod: &Pod, now: Timestamp, plan: &mut Plan) {
    plan.push(Op::normal(&reference(pod), "TaintManagerEviction", format!("Marking for deletion Pod {}/{}", namespace(pod), name(pod))));
    let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager", "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": crate::op::value(&time(now))});
    plan.push(Op::Patch {
        at: At::object(pod),
        subresource: Some("status"),
        kind: PatchKind::Strategic,
        patch: json!({"metadata": {"uid": uid(pod)}, "status": {"conditions": [condition]}}),
    });
    plan.push(Op::delete(pod));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_when() {
        let node = Arc::new(serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": {"taints": [
            {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "timeAdded": "2026-11-22T11:58:00Z"}, {"key": "x", "effect": "NoSchedule"},
        ]}})).unwrap());
        let pod = |name: &str, tolerations: serde_json::Value| -> Arc<Pod> {
            Arc::new(
                serde_json::from_value(
                    json!({"metadata": {"name": name, "namespace": "ns"}, "spec": {"containers": [], "tolerations": tolerations}}),
                )
                .unwrap(),
            )
        };
        let tolerates = |seconds: Option<i64>| json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}]);
        let view = View {
            node,
            pods: vec![
                pod("none", json!([])),
                pod("for-ever", tolerates(None)),
                pod("five-minutes", tolerates(Some(300))),
                pod("one-minute", tolerates(Some(60))),
            ],
        };
        let plan = plan(&view, "2026-11-22T12:00:00Z".parse().unwrap());
        let deleted: Vec<&str> = plan
            .ops
            .iter()
            .filter_map(|op| match op {
                Op::Delete { at, .. } => Some(at.name.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(deleted, ["none", "one-minute"]);
        assert_eq!(plan.requeue_after.unwrap().as_secs(), 180);
    }
}
