//! A PersistentVolume: its phase, what becomes of it when its claim goes, and that it stays while it is bound.
//!
//! Watches: volumes, claims. Writes: the volume's phase, finalizer, and a `claimRef` that the controller itself had set. Never: deletes what is on it; a volume
//! that its class wants deleted is deleted by whoever provisioned it.

use std::sync::Arc;

use api::k8s::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use serde_json::json;

use super::matching::phase;
use super::{BOUND_BY_CONTROLLER, VOLUME_PROTECTION, finalizers, status};
use crate::meta::{annotation, deleting, name, uid};
use crate::op::{Op, Plan};

pub struct View {
    pub volume: Arc<PersistentVolume>,
    /// The one its `claimRef` names, if it is there.
    pub claim: Option<Arc<PersistentVolumeClaim>>,
}

pub fn plan(view: &View) -> Plan {
    let mut plan = Plan::default();
    let volume = view.volume.as_ref();
    if deleting(volume) && phase(volume) != "Bound" {
        finalizers(volume, VOLUME_PROTECTION, false).into_iter().for_each(|op| plan.push(op));
        return plan;
    }
    if let Some(op) = finalizers(volume, VOLUME_PROTECTION, true).filter(|_| !deleting(volume)) {
        plan.push(op);
        return plan;
    }
    let claimed = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    let wanted = match claimed.map(|known| known.uid.as_deref().unwrap_or("")) {
        None | Some("") => "Available",
        Some(known) => match view.claim.as_ref().filter(|claim| uid(claim.as_ref()) == known) {
            None if phase(volume) == "Failed" => "Failed",
            None => "Released",
            Some(claim) => match claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or("") {
                // The claim's own work goes on from here.
                "" => return plan,
                named if named == name(volume) => "Bound",
                _ => {
                    // The claim has found another one: what we promised is taken back, what people did is theirs.
                    if annotation(volume, BOUND_BY_CONTROLLER).is_some() {
                        plan.push(Op::merge(volume, json!({"metadata": {"annotations": {BOUND_BY_CONTROLLER: null}}, "spec": {"claimRef": null}})));
                    }
                    "Available"
                }
            },
        },
    };
    if phase(volume) != wanted {
        plan.push(status(volume, json!({"phase": wanted})));
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn outcome(volume: Value, claim: Option<Value>) -> String {
        let view = View { volume: Arc::new(serde_json::from_value(volume).unwrap()), claim: claim.map(|claim| Arc::new(serde_json::from_value(claim).unwrap())) };
        plan(&view)
            .ops
            .iter()
            .map(|op| match op {
                Op::Patch { patch, .. } => patch.get("status").and_then(|status| status.get("phase")).and_then(Value::as_str).map_or_else(|| patch.to_string(), str::to_owned),
                other => other.to_string(),
            })
            .collect::<Vec<_>>()
            .join("; ")
    }

    #[test]
    fn phases() {
        let volume = |claim: Value, phase: &str, going: bool| {
            let mut object = json!({"metadata": {"name": "v", "uid": "V", "finalizers": [VOLUME_PROTECTION]}, "spec": {"claimRef": claim}, "status": {"phase": phase}});
            if going {
                object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            }
            object
        };
        let reference = || json!({"namespace": "ns", "name": "c", "uid": "C"});
        let claim = |uid: &str, named: &str| Some(json!({"metadata": {"name": "c", "uid": uid}, "spec": {"volumeName": named}}));
        let cases = [
            (volume(Value::Null, "Pending", false), None, "Available"),
            (volume(json!({"name": "c"}), "Pending", false), None, "Available"),
            (volume(reference(), "Available", false), claim("C", ""), ""),
            (volume(reference(), "Available", false), claim("C", "v"), "Bound"),
            (volume(reference(), "Bound", false), claim("other", "v"), "Released"),
            (volume(reference(), "Bound", false), None, "Released"),
            (volume(reference(), "Bound", true), claim("C", "v"), ""),
            (volume(reference(), "Bound", true), None, "Released"),
            (volume(reference(), "Released", true), None, r#"{"metadata":{"finalizers":null,"uid":"V"}}"#),
        ];
        for (volume, claim, expected) in cases {
            assert_eq!(outcome(volume.clone(), claim.clone()), expected, "{volume} {claim:?}");
        }
    }
}
