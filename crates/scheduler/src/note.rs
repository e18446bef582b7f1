//! What the scheduler writes into the status of a pod that has no node: why, and which node it is to get.

use api::k8s::api::core::v1::Pod;
use serde_json::{Value, json};

/// The patch of the status, unless it says so already.
pub fn patch(pod: &Pod, message: &str, nomination: Option<&str>, now: &str) -> Option<Value> {
    let status = pod.status.as_ref();
    let nominated = status.and_then(|status| status.nominated_node_name.as_deref()).unwrap_or_default();
    let mut patch = json!({});
    if nomination.unwrap_or_default() != nominated {
        patch["nominatedNodeName"] = json!(nomination);
    }
    let known = status.iter().flat_map(|status| status.conditions.iter().flatten()).find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    if known.is_none_or(|known| known.message.as_deref() != Some(message) || known.reason.as_deref() != Some("Unschedulable")) {
        let mut condition = json!({
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message, "lastProbeTime": null, "observedGeneration": pod.metadata.generation,
        });
        if known.is_none() {
            condition["lastTransitionTime"] = json!(now);
        }
        patch["conditions"] = json!([condition]);
    }
    (patch != json!({})).then(|| json!({"status": patch}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_is_written() {
        let pod = |status: Value| serde_json::from_value::<Pod>(json!({"metadata": {"name": "a", "generation": 1}, "status": status})).unwrap();
        let fresh = patch(&pod(json!({})), "no", Some("n1"), "now").unwrap();
        assert_eq!(fresh["status"]["nominatedNodeName"], "n1");
        assert_eq!(fresh["status"]["conditions"][0]["lastTransitionTime"], "now");
        let told = json!({"nominatedNodeName": "n1", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no"}]});
        assert_eq!(patch(&pod(told.clone()), "no", Some("n1"), "now"), None);
        assert_eq!(patch(&pod(told.clone()), "no", None, "now"), Some(json!({"status": {"nominatedNodeName": null}})));
        assert_eq!(patch(&pod(told), "other", Some("n1"), "now").unwrap()["status"]["conditions"][0].get("lastTransitionTime"), None);
        assert_eq!(patch(&pod(json!({})), "no", None, "now").unwrap()["status"].get("nominatedNodeName"), None);
    }
}
