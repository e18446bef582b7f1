//! Ephemeral volumes: a pod's own claims, made from the templates in its spec and gone with it.
//!
//! Watches: pods, claims. Writes: creates claims that the pod owns. Never: takes a claim of that name which is not the pod's. Mirrors `pkg/controller/volume/ephemeral`.

use std::sync::Arc;

use api::k8s::api::core::v1::{PersistentVolumeClaim, Pod};
use api::k8s::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::meta::{controlled_by, controller_reference, deleting, name, namespace, reference, uid};
use crate::op::{Op, Plan};
use crate::pods;

pub struct View {
    pub pod: Arc<Pod>,
    /// Those in its namespace that have the names its claims would have.
    pub claims: Vec<Arc<PersistentVolumeClaim>>,
}

/// The names of the claims that a pod makes of its volumes.
pub fn claim_names(pod: &Pod) -> Vec<String> {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).filter(|volume| volume.ephemeral.is_some()).map(|volume| format!("{}-{}", name(pod), volume.name)).collect()
}

pub fn plan(view: &View) -> Plan {
    let mut plan = Plan::default();
    let pod = view.pod.as_ref();
    if deleting(pod) || pods::finished(pod) {
        return plan;
    }
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        let Some(template) = volume.ephemeral.as_ref().and_then(|source| source.volume_claim_template.as_ref()) else { continue };
        let wanted = format!("{}-{}", name(pod), volume.name);
        match view.claims.iter().find(|claim| name(claim.as_ref()) == wanted) {
            Some(known) if controlled_by(known.as_ref(), uid(pod)) => {}
            Some(_) => plan.push(Op::warning(&reference(pod), "FailedBinding", format!("ephemeral volume {}: PVC {}/{wanted} was not created for pod {}/{} (pod is not owner)", volume.name, namespace(pod), namespace(pod), name(pod)))),
            None => {
                let meta = template.metadata.clone().unwrap_or_default();
                plan.push(Op::create(&PersistentVolumeClaim {
                    metadata: ObjectMeta {
                        name: Some(wanted),
                        namespace: pod.metadata.namespace.clone(),
                        labels: meta.labels,
                        annotations: meta.annotations,
                        owner_references: Some(vec![controller_reference(pod)]),
                        ..ObjectMeta::default()
                    },
                    spec: Some(template.spec.clone()),
                    status: None,
                }));
            }
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn pods_make_their_claims() {
        let pod = |phase: &str| json!({"metadata": {"name": "p", "namespace": "ns", "uid": "P"}, "spec": {"containers": [], "volumes": [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {"storageClassName": "s"}}}}]}, "status": {"phase": phase}});
        let outcome = |pod: Value, claims: Vec<Value>| {
            let view = View { pod: Arc::new(serde_json::from_value(pod).unwrap()), claims: claims.into_iter().map(|claim| Arc::new(serde_json::from_value(claim).unwrap())).collect() };
            plan(&view).ops.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        let claim = |owner: &str| json!({"metadata": {"name": "p-scratch", "namespace": "ns", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": owner, "controller": true}]}});
        assert!(outcome(pod("Pending"), vec![]).starts_with("create PersistentVolumeClaim ns/p-scratch"));
        assert_eq!(outcome(pod("Pending"), vec![claim("P")]), "");
        assert_eq!(outcome(pod("Succeeded"), vec![]), "");
        assert!(outcome(pod("Pending"), vec![claim("other")]).contains("pod is not owner"));
    }
}
