//! A PersistentVolumeClaim: bound to the best volume there is, and kept while a pod uses it.
//!
//! Watches: claims, volumes, pods, StorageClasses. Writes: the claim and its status, the chosen volume's `claimRef` and phase. Never: provisions a volume;
//! takes a volume from another claim.

use std::sync::Arc;

use api::k8s::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use api::k8s::api::storage::v1::StorageClass;
use serde_json::{Map, Value, json};

use super::matching::{best, claim_class, phase, refers, unfit};
use super::{BIND_COMPLETED, BOUND_BY_CONTROLLER, CLAIM_PROTECTION, YES, finalizers, status};
use crate::meta::{annotation, controlled_by, deleting, name, namespace, reference, uid};
use crate::op::{Op, Plan, value};
use crate::pods;

const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const PROVISIONER: [&str; 2] = ["volume.beta.kubernetes.io/storage-provisioner", "volume.kubernetes.io/storage-provisioner"];
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

pub struct View {
    pub claim: Arc<PersistentVolumeClaim>,
    /// All there are.
    pub volumes: Vec<Arc<PersistentVolume>>,
    /// The one it names, if it is there.
    pub class: Option<Arc<StorageClass>>,
    /// Those in its namespace.
    pub pods: Vec<Arc<Pod>>,
    /// Where its first consumer is, or where the scheduler said it will be.
    pub node: Option<Arc<Node>>,
}

/// The node on which the claim is needed first: the scheduler's word, or where a pod that uses it was put.
pub fn first_node(claim: &PersistentVolumeClaim, pods: &[Arc<Pod>]) -> Option<String> {
    let placed = || pods.iter().find(|pod| uses(pod, claim)).map(|pod| pods::node(pod).to_owned());
    annotation(claim, SELECTED_NODE).map(str::to_owned).or_else(placed)
}

/// Whether a pod that has a node and has not ended uses the claim.
pub fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    if pods::node(pod).is_empty() || pods::finished(pod) {
        return false;
    }
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).any(|volume| {
        volume.persistent_volume_claim.as_ref().is_some_and(|source| source.claim_name == name(claim))
            || volume.ephemeral.is_some() && name(claim) == format!("{}-{}", name(pod), volume.name) && controlled_by(claim, uid(pod))
    })
}

pub fn plan(view: &View) -> Plan {
    let mut plan = Plan::default();
    let claim = view.claim.as_ref();
    if deleting(claim) {
        if !view.pods.iter().any(|pod| uses(pod, claim)) {
            finalizers(claim, CLAIM_PROTECTION, false).into_iter().for_each(|op| plan.push(op));
        }
        return plan;
    }
    if let Some(op) = finalizers(claim, CLAIM_PROTECTION, true) {
        // The rest follows when this has been written.
        plan.push(op);
        return plan;
    }
    let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or("");
    let volume = view.volumes.iter().find(|volume| name(volume.as_ref()) == named);
    match (annotation(claim, BIND_COMPLETED).is_some(), named, volume) {
        (true, _, Some(volume)) if refers(volume, claim) || volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_none()) => bind(claim, volume, &mut plan),
        (true, _, Some(_)) => lost(claim, "ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly", &mut plan),
        (true, _, None) => lost(claim, "ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!", &mut plan),
        (false, "", _) => unbound(view, &mut plan),
        (false, _, Some(volume)) if volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_none()) || refers(volume, claim) => match unfit(volume, claim) {
            Some(why) => {
                plan.push(Op::warning(&reference(claim), "VolumeMismatch", format!("Cannot bind to requested volume {named:?}: {why}")));
                pending(claim, &mut plan);
            }
            None => bind(claim, volume, &mut plan),
        },
        // Not there yet, or another claim has it.
        (false, _, Some(volume)) => {
            plan.push(Op::warning(&reference(claim), "FailedBinding", format!("volume {:?} already bound to a different claim.", name(volume.as_ref()))));
            pending(claim, &mut plan);
        }
        (false, _, None) => pending(claim, &mut plan),
    }
    plan
}

fn unbound(view: &View, plan: &mut Plan) {
    let claim = view.claim.as_ref();
    let waits = view.class.as_ref().is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
    let node = view.node.as_deref().filter(|_| waits);
    let selected = node.is_some() || annotation(claim, SELECTED_NODE).is_some();
    if let Some(volume) = best(claim, &view.volumes, waits && !selected, node) {
        return bind(claim, volume, plan);
    }
    match &view.class {
        Some(_) if waits && !selected => {
            plan.push(Op::normal(&reference(claim), "WaitForFirstConsumer", "waiting for first consumer to be created before binding".to_owned()));
        }
        Some(class) if class.provisioner != NO_PROVISIONER => {
            if let Some(node) = node.filter(|_| annotation(claim, SELECTED_NODE).is_none()) {
                // Provisioners from outside wait for this word.
                plan.push(Op::merge(claim, json!({"metadata": {"annotations": {SELECTED_NODE: name(node)}}})));
                return;
            }
            let unmarked = PROVISIONER.iter().any(|key| annotation(claim, key) != Some(&class.provisioner));
            if unmarked {
                let marks: Map<String, Value> = PROVISIONER.iter().map(|key| ((*key).to_owned(), json!(class.provisioner))).collect();
                plan.push(Op::merge(claim, json!({"metadata": {"annotations": marks}})));
            }
            plan.push(Op::normal(
                &reference(claim),
                "ExternalProvisioning",
                format!("Waiting for a volume to be created either by the external provisioner '{}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered.", class.provisioner),
            ));
        }
        Some(_) => plan.push(Op::normal(&reference(claim), "FailedBinding", "no volume plugin matched name: kubernetes.io/no-provisioner".to_owned())),
        None if !claim_class(claim).is_empty() => {
            plan.push(Op::warning(&reference(claim), "ProvisioningFailed", format!("storageclass.storage.k8s.io {:?} not found", claim_class(claim))));
        }
        None => plan.push(Op::normal(&reference(claim), "FailedBinding", "no persistent volumes available for this claim and no storage class is set".to_owned())),
    }
    pending(claim, plan);
}

fn pending(claim: &PersistentVolumeClaim, plan: &mut Plan) {
    if claim.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Pending") {
        plan.push(status(claim, json!({"phase": "Pending"})));
    }
}

fn lost(claim: &PersistentVolumeClaim, reason: &str, message: &str, plan: &mut Plan) {
    if claim.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Lost") {
        plan.push(status(claim, json!({"phase": "Lost"})));
        plan.push(Op::warning(&reference(claim), reason, message.to_owned()));
    }
}

/// Both ends of the binding, then both phases; whatever of it is true already is left alone.
fn bind(claim: &PersistentVolumeClaim, volume: &PersistentVolume, plan: &mut Plan) {
    let bound_to = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    if bound_to.and_then(|known| known.uid.as_deref()) != Some(uid(claim)) {
        let mut patch = json!({"spec": {"claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": namespace(claim), "name": name(claim), "uid": uid(claim), "resourceVersion": claim.metadata.resource_version}}});
        if bound_to.is_none() {
            patch["metadata"]["annotations"][BOUND_BY_CONTROLLER] = YES.into();
        }
        plan.push(Op::merge(volume, patch));
    }
    if phase(volume) != "Bound" {
        plan.push(status(volume, json!({"phase": "Bound"})));
    }
    let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or("");
    if named.is_empty() || annotation(claim, BIND_COMPLETED).is_none() {
        let mut patch = json!({"metadata": {"annotations": {BIND_COMPLETED: YES}}});
        if named.is_empty() {
            patch["metadata"]["annotations"][BOUND_BY_CONTROLLER] = YES.into();
            patch["spec"]["volumeName"] = name(volume).into();
        }
        plan.push(Op::merge(claim, patch));
    }
    let known = claim.status.clone().unwrap_or_default();
    let offer = volume.spec.as_ref();
    let (modes, capacity) = (offer.and_then(|spec| spec.access_modes.clone()), offer.and_then(|spec| spec.capacity.clone()));
    // Once bound, the capacity is the resizer's.
    let bound = known.phase.as_deref() == Some("Bound");
    if !bound || known.access_modes != modes || known.capacity.is_none() {
        plan.push(status(claim, json!({"phase": "Bound", "accessModes": value(&modes), "capacity": if bound { value(&known.capacity.or(capacity)) } else { value(&capacity) }})));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(more: Value) -> Arc<PersistentVolumeClaim> {
        let mut object = json!({"metadata": {"name": "c", "namespace": "ns", "uid": "C", "finalizers": [CLAIM_PROTECTION]}, "spec": {"storageClassName": "manual", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}, "status": {"phase": "Pending"}});
        merge(&mut object, more);
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn merge(into: &mut Value, more: Value) {
        match (into, more) {
            (Value::Object(into), Value::Object(more)) => more.into_iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value)),
            (into, more) => *into = more,
        }
    }

    fn volume(name: &str, size: &str, more: Value) -> Arc<PersistentVolume> {
        let mut object = json!({"metadata": {"name": name, "uid": name}, "spec": {"storageClassName": "manual", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": size}}, "status": {"phase": "Available"}});
        merge(&mut object, more);
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn outcome(claim: Arc<PersistentVolumeClaim>, volumes: Vec<Arc<PersistentVolume>>, class: Value, pods: Vec<Value>) -> String {
        let class = (!class.is_null()).then(|| Arc::new(serde_json::from_value(class).unwrap()));
        let pods: Vec<Arc<Pod>> = pods.into_iter().map(|pod| Arc::new(serde_json::from_value(pod).unwrap())).collect();
        let node = first_node(&claim, &pods).map(|node| Arc::new(serde_json::from_value(json!({"metadata": {"name": node, "labels": {"name": node}}})).unwrap()));
        let plan = plan(&View { claim, volumes, class, pods, node });
        plan.ops
            .iter()
            .map(|op| match op {
                Op::Patch { at, subresource, patch, .. } => format!("{}{} {}", at.name, subresource.map(|part| format!("/{part}")).unwrap_or_default(), patch.get("status").or(patch.get("spec")).unwrap_or(&patch["metadata"])),
                Op::Event { reason, .. } => reason.clone(),
                other => other.to_string(),
            })
            .collect::<Vec<_>>()
            .join("; ")
    }

    #[test]
    fn claims_are_bound() {
        let bound = |name: &str, size: &str| {
            format!(
                r#"{name} {{"claimRef":{{"apiVersion":"v1","kind":"PersistentVolumeClaim","name":"c","namespace":"ns","resourceVersion":null,"uid":"C"}}}}; {name}/status {{"phase":"Bound"}}; c {{"volumeName":"{name}"}}; c/status {{"accessModes":["ReadWriteOnce"],"capacity":{{"storage":"{size}"}},"phase":"Bound"}}"#
            )
        };
        let none = || Value::Null;
        let waiting = || json!({"metadata": {"name": "manual"}, "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"});
        let aside = || volume("aside", "9Gi", json!({"spec": {"claimRef": {"namespace": "ns", "name": "c"}}}));
        assert_eq!(outcome(claim(json!({})), vec![volume("big", "5Gi", none_map()), volume("fit", "2Gi", none_map()), volume("small", "1Mi", none_map())], none(), vec![]), bound("fit", "2Gi"));
        assert_eq!(outcome(claim(json!({})), vec![volume("fit", "2Gi", none_map()), aside()], waiting(), vec![]), bound("aside", "9Gi"));
        assert_eq!(outcome(claim(json!({})), vec![volume("fit", "2Gi", none_map())], waiting(), vec![]), "WaitForFirstConsumer");
        let consumer = || json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n2", "containers": [], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}});
        let local = |name: &str, node: &str| volume(name, "2Gi", json!({"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "name", "operator": "In", "values": [node]}]}]}}}}));
        assert_eq!(outcome(claim(json!({})), vec![local("one", "n1"), local("two", "n2")], waiting(), vec![consumer()]), bound("two", "2Gi"));
        let mut outside = waiting();
        outside["provisioner"] = "example.com/p".into();
        assert_eq!(outcome(claim(json!({})), vec![], outside, vec![consumer()]), r#"c {"annotations":{"volume.kubernetes.io/selected-node":"n2"},"uid":"C"}"#);
        assert_eq!(outcome(claim(json!({})), vec![volume("taken", "2Gi", json!({"spec": {"claimRef": {"name": "x"}}}))], none(), vec![]), "ProvisioningFailed");
        assert_eq!(outcome(claim(json!({"spec": {"storageClassName": ""}})), vec![], none(), vec![]), "FailedBinding");
        let done = claim(json!({"metadata": {"annotations": {BIND_COMPLETED: "yes"}}, "spec": {"volumeName": "v"}, "status": {"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}}}));
        assert_eq!(outcome(done.clone(), vec![volume("v", "1Gi", json!({"spec": {"claimRef": {"namespace": "ns", "name": "c", "uid": "C"}}, "status": {"phase": "Bound"}}))], none(), vec![]), "");
        assert_eq!(outcome(done, vec![], none(), vec![]), r#"c/status {"phase":"Lost"}; ClaimLost"#);
    }

    fn none_map() -> Value {
        json!({})
    }

    #[test]
    fn claims_in_use_stay() {
        let going = || claim(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
        let pod = |node: &str, phase: &str| json!({"metadata": {"name": "p"}, "spec": {"nodeName": node, "containers": [], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}, "status": {"phase": phase}});
        assert_eq!(outcome(going(), vec![], Value::Null, vec![pod("n", "Running")]), "");
        for pods in [vec![], vec![pod("", "Pending")], vec![pod("n", "Succeeded")]] {
            assert_eq!(outcome(going(), vec![], Value::Null, pods), r#"c {"finalizers":null,"uid":"C"}"#);
        }
    }
}
