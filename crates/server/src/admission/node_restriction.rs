//! NodeRestriction: what a node's agent writes is of its own node and its pods, and gains it nothing.
//!
//! Mirrors plugin/pkg/admission/noderestriction, messages word for word. Which requests get here at all is the node authorizer's to say (`authorization/node.rs`).
//! https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction

use std::collections::BTreeSet;

use ::api::Status;
use base64::Engine as _;
use serde_json::Value;

use super::{Asked, Operation, certificates, shown_name};
use crate::api::Api;
use crate::authorization::Attributes;
use crate::authorization::node::{LEASES_NAMESPACE, identity};
use crate::references;
use crate::registry::text;

const MIRROR: &str = "kubernetes.io/config.mirror";
const RESTRICTED: &str = "node-restriction.kubernetes.io";
/// What agents may say of their nodes within Kubernetes' own names, and the domains of which they may say anything.
const AGENT_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];
const AGENT_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

/// Passes whoever is no node. `object` is the new one, `old` the stored one.
pub fn check(api: &Api, asked: &Asked<'_>, object: Option<&Value>, old: Option<&Value>) -> Result<(), Status> {
    let Some(node) = identity(&asked.cx.user).filter(|_| api.config.plugins.on("NodeRestriction")) else { return Ok(()) };
    let forbid = |why: String| {
        let name = if asked.name.is_empty() { object.map_or("", shown_name) } else { &asked.name };
        Status::forbidden(&asked.row.group, &asked.row.plural, name, &why)
    };
    if node.is_empty() {
        return Err(forbid(format!("could not determine node from user {:?}", asked.cx.user.name)));
    }
    let none = Value::Null;
    let plugin = Plugin { api, asked, node, object: object.unwrap_or(&none), old: old.unwrap_or(&none) };
    let judged = match (&*asked.row.group, &*asked.row.plural) {
        ("", "pods") => match asked.subresource {
            "" => plugin.pod()?,
            "status" => plugin.pod_status(),
            "eviction" => plugin.eviction()?,
            other => Err(format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed")),
        },
        ("", "nodes") => plugin.node(),
        ("", "persistentvolumeclaims") if asked.subresource == "status" => plugin.claim_status(),
        ("", "persistentvolumeclaims") => Err("may only update PVC status".to_owned()),
        ("", "serviceaccounts") if asked.operation == Operation::Create && asked.subresource == "token" => plugin.token()?,
        ("coordination.k8s.io", "leases") if asked.namespace != LEASES_NAMESPACE => Err(format!("can only access leases in the {LEASES_NAMESPACE:?} system namespace")),
        ("coordination.k8s.io", "leases") => plugin.own_name("can only access node lease with the same name as the requesting node"),
        ("storage.k8s.io", "csinodes") => plugin.own_name("can only access CSINode with the same name as the requesting node"),
        ("resource.k8s.io", "resourceslices") => plugin.slice(),
        ("certificates.k8s.io", "certificatesigningrequests") if asked.operation == Operation::Create => plugin.signing_request(),
        ("certificates.k8s.io", "podcertificaterequests") => plugin.pod_certificate_request()?,
        _ => Ok(()),
    };
    judged.map_err(forbid)
}

/// What is forbidden, in words; what does not exist or does not fit is told by a status of its own.
type Judged = Result<(), String>;

struct Plugin<'a> {
    api: &'a Api,
    asked: &'a Asked<'a>,
    node: &'a str,
    object: &'a Value,
    old: &'a Value,
}

impl Plugin<'_> {
    fn stored(&self, key: &str, group: &str, plural: &str, name: &str) -> Result<Value, Status> {
        self.api.store.get(key).ok_or_else(|| Status::not_found(group, plural, name))?.value().map_err(Status::internal).map(|value| Value::clone(&value))
    }

    fn stored_pod(&self, name: &str) -> Result<Value, Status> {
        self.stored(&format!("/registry/pods/{}/{name}", self.asked.namespace), "", "pods", name)
    }

    fn stored_node(&self) -> Result<Value, Status> {
        self.stored(&format!("/registry/minions/{}", self.node), "", "nodes", self.node)
    }

    fn pod(&self) -> Result<Judged, Status> {
        let node = self.node;
        match self.asked.operation {
            Operation::Create => self.mirror_pod(),
            Operation::Delete if text(self.old, "/spec/nodeName") != node => Ok(Err(format!("node {node:?} can only delete pods with spec.nodeName set to itself"))),
            Operation::Delete => Ok(Ok(())),
            other => Ok(Err(format!("unexpected operation {:?}, node {node:?} can only create and delete mirror pods", other.as_str()))),
        }
    }

    /// Shows what the node runs by itself, belongs to it, and refers to nothing that the node would come to see by it.
    fn mirror_pod(&self) -> Result<Judged, Status> {
        let (pod, node) = (self.object, self.node);
        let refuse = |why: String| Ok(Err(why));
        if pod.pointer("/metadata/annotations").and_then(|annotations| annotations.get(MIRROR)).is_none() {
            return refuse(format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"));
        }
        if text(pod, "/spec/nodeName") != node {
            return refuse(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
        }
        let owners: Vec<&Value> = references::list(pod, "/metadata/ownerReferences").collect();
        let owner = match owners.as_slice() {
            [] => return refuse(format!("node {node:?} can only create pods with an owner reference set to itself")),
            [owner] => *owner,
            _ => return refuse(format!("node {node:?} can only create pods with a single owner reference set to itself")),
        };
        if text(owner, "/apiVersion") != "v1" || text(owner, "/kind") != "Node" || text(owner, "/name") != node {
            return refuse(format!("node {node:?} can only create pods with an owner reference set to itself"));
        }
        if owner.get("controller") != Some(&Value::Bool(true)) {
            return refuse(format!("node {node:?} can only create pods with a controller owner reference set to itself"));
        }
        if owner.get("blockOwnerDeletion") == Some(&Value::Bool(true)) {
            return refuse(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
        }
        let stored = self.stored_node()?;
        let (given, known) = (text(owner, "/uid"), text(&stored, "/metadata/uid"));
        if given != known {
            return refuse(format!("node {node} UID mismatch: expected {given} got {known}"));
        }
        Ok(match references::any(pod) {
            Some(what) => Err(format!("node {node:?} can not create pods that reference {what}")),
            None => Ok(()),
        })
    }

    fn pod_status(&self) -> Judged {
        let (old, new, node) = (self.old, self.object, self.node);
        if self.asked.operation != Operation::Update {
            return Err(format!("unexpected operation {:?}", self.asked.operation.as_str()));
        }
        if text(old, "/spec/nodeName") != node {
            return Err(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"));
        }
        if labels(old) != labels(new) {
            return Err(format!("node {node:?} cannot update labels through pod status"));
        }
        let claims = |pod: &Value| references::list(pod, "/status/resourceClaimStatuses").map(|status| (text(status, "/name").to_owned(), status.get("resourceClaimName").cloned())).collect::<Vec<_>>();
        if claims(old) != claims(new) {
            return Err(format!("node {node:?} cannot update resource claim statues"));
        }
        if !same(old, new, "/status/extendedResourceClaimStatus") {
            return Err(format!("node {node:?} cannot update extended resource claim status"));
        }
        Ok(())
    }

    fn eviction(&self) -> Result<Judged, Status> {
        if self.asked.operation != Operation::Create {
            return Ok(Err(format!("unexpected operation {}", self.asked.operation.as_str())));
        }
        let name = if self.asked.name.is_empty() { text(self.object, "/metadata/name") } else { &self.asked.name };
        if name.is_empty() {
            return Ok(Err("could not determine pod from request data".to_owned()));
        }
        let own = text(&self.stored_pod(name)?, "/spec/nodeName") == self.node;
        Ok(if own { Ok(()) } else { Err(format!("node {} can only evict pods with spec.nodeName set to itself", self.node)) })
    }

    fn claim_status(&self) -> Judged {
        if self.asked.operation != Operation::Update {
            return Err(format!("unexpected operation {:?}", self.asked.operation.as_str()));
        }
        let rest = |claim: &Value| {
            let mut claim = claim.clone();
            if let Some(meta) = claim.get_mut("metadata").and_then(Value::as_object_mut) {
                meta.remove("resourceVersion");
                meta.remove("managedFields");
            }
            if let Some(status) = claim.get_mut("status").and_then(Value::as_object_mut) {
                for field in ["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"] {
                    status.remove(field);
                }
            }
            claim
        };
        if rest(self.old) == rest(self.object) { Ok(()) } else { Err(format!("node {:?} is not allowed to update fields other than status.quantity and status.conditions", self.node)) }
    }

    fn node(&self) -> Judged {
        let (node, old, new) = (self.node, self.old, self.object);
        let name = if self.asked.name.is_empty() { text(new, "/metadata/name") } else { &self.asked.name };
        if name != node {
            return Err(format!("node {node:?} is not allowed to modify node {name:?}"));
        }
        let source = |node: &Value| node.pointer("/spec/configSource").filter(|source| !source.is_null()).cloned();
        let joined = |labels: BTreeSet<&str>| labels.into_iter().collect::<Vec<_>>().join(", ");
        match self.asked.operation {
            Operation::Create => {
                if source(new).is_some() {
                    return Err(format!("node {node:?} is not allowed to create pods with a non-nil configSource"));
                }
                let forbidden = forbidden_labels(new, &Value::Null);
                if !forbidden.is_empty() {
                    return Err(format!("node {node:?} is not allowed to set the following labels: {}", joined(forbidden)));
                }
            }
            Operation::Update => {
                if source(new).is_some() && source(new) != source(old) {
                    return Err(format!("node {node:?} is not allowed to update configSource to a new non-nil configSource"));
                }
                if !same(old, new, "/spec/taints") {
                    return Err(format!("node {node:?} is not allowed to modify taints"));
                }
                if !same(old, new, "/metadata/ownerReferences") {
                    return Err(format!("node {node:?} is not allowed to modify ownerReferences"));
                }
                let forbidden = forbidden_labels(new, old);
                if !forbidden.is_empty() {
                    return Err(format!("is not allowed to modify labels: {}", joined(forbidden)));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A token of a pod that runs here, for an audience that the pod's volumes name.
    fn token(&self) -> Result<Judged, Status> {
        let Some(reference) = self.object.pointer("/spec/boundObjectRef").filter(|reference| reference.is_object()) else {
            return Ok(Err("node requested token not bound to a pod".to_owned()));
        };
        let (name, uid) = (text(reference, "/name"), text(reference, "/uid"));
        if text(reference, "/apiVersion") != "v1" || text(reference, "/kind") != "Pod" || name.is_empty() {
            return Ok(Err("node requested token not bound to a pod".to_owned()));
        }
        if uid.is_empty() {
            return Ok(Err("node requested token with a pod binding without a uid".to_owned()));
        }
        let pod = self.stored_pod(name)?;
        if uid != text(&pod, "/metadata/uid") {
            return Ok(Err(format!("the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated")));
        }
        if text(&pod, "/spec/nodeName") != self.node {
            return Ok(Err("node requested token bound to a pod scheduled on a different node".to_owned()));
        }
        Ok(self.audience(&pod))
    }

    fn audience(&self, pod: &Value) -> Judged {
        let audiences: Vec<&str> = references::list(self.object, "/spec/audiences").filter_map(Value::as_str).collect();
        let audience = match audiences.as_slice() {
            [] => "",
            [one] => one,
            _ => return Err("node may only request 0 or 1 audiences".to_owned()),
        };
        let mut faults = Vec::new();
        for volume in references::volumes(pod) {
            if references::list(volume, "/projected/sources").filter_map(|source| source.get("serviceAccountToken")).any(|source| text(source, "/audience") == audience) {
                return Ok(());
            }
            match self.driver(pod, volume) {
                Ok(None) => {}
                Ok(Some(driver)) => match self.stored(&format!("/registry/csidrivers/{driver}"), "storage.k8s.io", "csidriver", &driver) {
                    Ok(driver) if references::list(&driver, "/spec/tokenRequests").any(|request| text(request, "/audience") == audience) => return Ok(()),
                    Ok(_) => {}
                    Err(status) => faults.push(status.message),
                },
                Err(status) => faults.push(status.message),
            }
        }
        match faults.as_slice() {
            [] => {}
            [one] => return Err(format!("error validating audience {audience:?}: {one}")),
            more => return Err(format!("error validating audience {audience:?}: [{}]", more.join(", "))),
        }
        let user = &self.asked.cx.user;
        let attributes = Attributes {
            verb: "request-serviceaccounts-token-audience".into(),
            version: "v1".into(),
            resource: audience.into(),
            namespace: self.asked.namespace.clone(),
            name: self.asked.name.clone(),
            ..Attributes::default()
        };
        if self.api.authorizer.allows(&*self.api.store, user, &attributes) {
            return Ok(());
        }
        Err(format!("audience {audience:?} not found in pod spec volume, {} is not authorized to request tokens for this audience", user.name))
    }

    /// The CSI driver behind a volume.
    fn driver(&self, pod: &Value, volume: &Value) -> Result<Option<String>, Status> {
        let name = match references::claim(pod, volume) {
            Some(claim) => {
                let claim = self.stored(&format!("/registry/persistentvolumeclaims/{}/{claim}", self.asked.namespace), "", "persistentvolumeclaim", &claim)?;
                let volume = text(&claim, "/spec/volumeName");
                let volume = self.stored(&format!("/registry/persistentvolumes/{volume}"), "", "persistentvolume", volume)?;
                text(&volume, "/spec/csi/driver").to_owned()
            }
            None => text(volume, "/csi/driver").to_owned(),
        };
        Ok(Some(name).filter(|name| !name.is_empty()))
    }

    fn own_name(&self, why: &str) -> Judged {
        let name = if self.asked.operation == Operation::Create { text(self.object, "/metadata/name") } else { &self.asked.name };
        if name == self.node { Ok(()) } else { Err(why.to_owned()) }
    }

    fn slice(&self) -> Judged {
        let (slice, verb) = match self.asked.operation {
            Operation::Create => (self.object, "create"),
            Operation::Delete => (self.old, "delete"),
            _ => return Ok(()),
        };
        if text(slice, "/spec/nodeName") == self.node { Ok(()) } else { Err(format!("can only {verb} ResourceSlice with the same NodeName as the requesting node")) }
    }

    fn signing_request(&self) -> Judged {
        if !matches!(text(self.object, "/spec/signerName"), "kubernetes.io/kubelet-serving" | "kubernetes.io/kube-apiserver-client-kubelet") {
            return Ok(());
        }
        let pem = base64::engine::general_purpose::STANDARD.decode(text(self.object, "/spec/request")).map_err(|error| format!("unable to parse csr: {error}"))?;
        let common_name = certificates::common_name(&pem).map_err(|why| format!("unable to parse csr: {why}"))?;
        if common_name == self.asked.cx.user.name { Ok(()) } else { Err(format!("can only create a node CSR with CN=system:node:{}", self.node)) }
    }

    fn pod_certificate_request(&self) -> Result<Judged, Status> {
        let (spec, node) = (&self.object["spec"], self.node);
        if self.asked.operation != Operation::Create {
            return Ok(Err(format!("unexpected operation {}", self.asked.operation.as_str())));
        }
        if !self.asked.subresource.is_empty() {
            return Ok(Err(format!("unexpected subresource {}", self.asked.subresource)));
        }
        let given = text(spec, "/nodeName");
        if given != node {
            return Ok(Err(format!("PodCertificateRequest.Spec.NodeName={given:?}, which is not the requesting node {node:?}")));
        }
        let pod_name = text(spec, "/podName");
        let full = format!("{}/{pod_name}", self.asked.namespace);
        let (given, known) = (text(spec, "/nodeUID"), text(&self.stored_node()?, "/metadata/uid").to_owned());
        if given != known {
            return Err(Status::internal(format!("PodCertificateRequest for pod {full:?} names node UID {given:?}, inconsistent with the running node ({known:?})")));
        }
        let pod = self.stored_pod(pod_name)?;
        let (given, known) = (text(spec, "/podUID"), text(&pod, "/metadata/uid"));
        if given != known {
            return Err(Status::internal(format!("PodCertificateRequest for pod {full:?} contains pod UID ({given:?}) which differs from running pod {known:?}")));
        }
        if text(&pod, "/spec/nodeName") != node {
            return Ok(Err(format!("pod {full:?} is not running on node {node:?} named in the PodCertificateRequest")));
        }
        if pod.pointer("/metadata/annotations").and_then(|annotations| annotations.get(MIRROR)).is_some() {
            return Ok(Err(format!("pod {full:?} is a mirror pod")));
        }
        let (given, known) = (text(spec, "/serviceAccountName"), text(&pod, "/spec/serviceAccountName"));
        if given != known {
            return Ok(Err(format!("PodCertificateRequest for pod {full:?} contains serviceAccountName ({given:?}) that differs from running pod ({known:?})")));
        }
        let account = self.stored(&format!("/registry/serviceaccounts/{}/{known}", self.asked.namespace), "", "serviceaccounts", known)?;
        let (given, known) = (text(spec, "/serviceAccountUID"), text(&account, "/metadata/uid"));
        if given != known {
            return Err(Status::internal(format!("PodCertificateRequest for pod {full:?} names service account UID {given:?}, which differs from the running service account ({known:?})")));
        }
        Ok(Ok(()))
    }
}

/// Equal, where nothing, null and an empty list are the same.
fn same(old: &Value, new: &Value, pointer: &str) -> bool {
    let plain = |value: &Value| value.pointer(pointer).filter(|value| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty())).cloned();
    plain(old) == plain(new)
}

fn labels(object: &Value) -> Vec<(&str, &str)> {
    object.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten().map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default())).collect()
}

fn within(key: &str, domain: &str) -> bool {
    let own = key.split_once('/').map_or("", |(own, _)| own);
    own == domain || own.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

/// The labels that differ and are not the node's to set.
fn forbidden_labels<'a>(new: &'a Value, old: &'a Value) -> BTreeSet<&'a str> {
    let (new, old) = (labels(new), labels(old));
    let changed = new.iter().filter(|label| !old.contains(label)).chain(old.iter().filter(|label| !new.contains(label))).map(|(key, _)| *key);
    changed
        .filter(|key| {
            let kubernetes = within(key, "kubernetes.io") || within(key, "k8s.io");
            let agents = AGENT_LABELS.contains(key) || AGENT_DOMAINS.iter().any(|domain| within(key, domain));
            within(key, RESTRICTED) || (kubernetes && !agents)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn labels_that_are_not_the_nodes() {
        let node = |labels: Value| json!({"metadata": {"labels": labels}});
        let old = node(json!({"kubernetes.io/hostname": "a", "node-role.kubernetes.io/x": "", "free": "1"}));
        let cases = [
            (json!({"kubernetes.io/hostname": "b", "node-role.kubernetes.io/x": "", "free": "2", "example.com/y": ""}), ""),
            (json!({"kubernetes.io/hostname": "a", "free": "1"}), "node-role.kubernetes.io/x"),
            (json!({"kubernetes.io/hostname": "a", "node-role.kubernetes.io/x": "", "node-restriction.kubernetes.io/z": "", "a.node-restriction.kubernetes.io/z": "", "x.k8s.io/y": ""}), "a.node-restriction.kubernetes.io/z x.k8s.io/y node-restriction.kubernetes.io/z free"),
            (json!({"kubernetes.io/hostname": "a", "node-role.kubernetes.io/x": "", "free": "1", "node.kubernetes.io/z": "", "a.kubelet.kubernetes.io/z": ""}), ""),
        ];
        for (labels, want) in cases {
            let new = node(labels);
            let mut want: BTreeSet<&str> = want.split(' ').filter(|word| !word.is_empty()).collect();
            want.remove("free");
            assert_eq!(forbidden_labels(&new, &old), want);
        }
    }
}
