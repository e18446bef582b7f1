//! Pod garbage: pods bound to nodes that are gone, pods that were deleted before they had a node, ended pods beyond a number.
//!
//! Watches: pods and nodes. Writes: pod status (Failed) and deletes without grace. Mirrors `pkg/controller/podgc`.

use std::sync::Arc;

use api::k8s::api::core::v1::Pod;
use jiff::Timestamp;
use serde_json::json;

use crate::meta::{created, deleting, time, uid};
use crate::op::{At, Op, PatchKind, Plan};
use crate::pods;

/// A node that has been gone for so long does not come back.
pub const QUARANTINE_SECONDS: i64 = 40;
/// Ended pods kept, at most.
pub const TERMINATED: usize = 12_500;

/// Of pods on a node that has been gone for the quarantine.
pub fn orphans(pods: &[Arc<Pod>], now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    for pod in pods {
        if !pods::finished(pod) {
            let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC", "message": "PodGC: node no longer exists", "lastTransitionTime": crate::op::value(&time(now))});
            plan.push(Op::Patch {
                at: At::object(pod.as_ref()),
                subresource: Some("status"),
                kind: PatchKind::Strategic,
                patch: json!({"metadata": {"uid": uid(pod.as_ref())}, "status": {"phase": "Failed", "conditions": [condition]}}),
            });
        }
        plan.push(at_once(pod));
    }
    plan
}

/// Of all pods: those that nobody will ever run, and the oldest ended ones beyond `TERMINATED`.
pub fn leftovers(pods: &[Arc<Pod>]) -> Plan {
    let mut plan = Plan::default();
    for pod in pods.iter().filter(|pod| deleting(pod.as_ref()) && pods::node(pod).is_empty()) {
        plan.push(at_once(pod));
    }
    let mut ended: Vec<&Arc<Pod>> = pods.iter().filter(|pod| pods::finished(pod) && !deleting(pod.as_ref())).collect();
    if ended.len() > TERMINATED {
        ended.sort_by_key(|pod| created(pod.as_ref()));
        let beyond = ended.len() - TERMINATED;
        plan.ops.extend(ended.into_iter().take(beyond).map(at_once));
    }
    plan
}

fn at_once(pod: &Arc<Pod>) -> Op {
    let mut op = Op::delete(pod.as_ref());
    if let Op::Delete { grace_period_seconds, .. } = &mut op {
        *grace_period_seconds = Some(0);
    }
    op
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes() {
        let pod = |name: &str, node: &str, phase: &str, going: bool| -> Arc<Pod> {
            Arc::new(serde_json::from_value(json!({"metadata": {"name": name, "namespace": "ns", "deletionTimestamp": if going { json!("2026-11-22T12:00:00Z") } else { json!(null) }}, "spec": {"nodeName": node, "containers": []}, "status": {"phase": phase}})).unwrap())
        };
        let text =
            orphans(&[pod("a", "n", "Running", false), pod("b", "n", "Succeeded", false)], "2026-11-22T12:00:00Z".parse().unwrap()).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("patch Pod ns/a/status") && lines[0].contains(r#""phase":"Failed""#), "{text}");
        assert_eq!(lines[1..], ["delete Pod ns/a grace=0", "delete Pod ns/b grace=0"]);
        assert_eq!(
            leftovers(&[pod("a", "", "Pending", true), pod("b", "", "Pending", false), pod("c", "n", "Running", true)]).to_string(),
            "delete Pod ns/a grace=0\n"
        );
    }
}
