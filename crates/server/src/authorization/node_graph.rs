//! Which objects a node has to do with: the pods bound to it, and what those refer to.
//!
//! Mirrors plugin/pkg/auth/authorizer/node/graph.go. Upstream walks a graph; the ways in it have at most three steps, so here each object knows its nodes at
//! once, with how many pods of a node refer to it, and only volumes and their secrets are a step away.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use ::api::Object;
use serde_json::Value;

use crate::references;
use crate::registry::text;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Claim,
    ConfigMap,
    Pod,
    PodCertificateRequest,
    ResourceClaim,
    ResourceSlice,
    Secret,
    ServiceAccount,
    Volume,
    VolumeAttachment,
}

/// Namespace (empty for cluster-wide kinds) and name.
type Name = (Box<str>, Box<str>);

struct Bound {
    uid: Box<str>,
    node: Arc<str>,
    refers: Vec<(Kind, Box<str>)>,
    /// What it refers to may still change.
    open: bool,
}

struct Volume {
    claim: Name,
    secrets: Vec<Name>,
}

#[derive(Default)]
pub struct Graph {
    pods: HashMap<Name, Bound>,
    /// Objects of one node each.
    owned: HashMap<(Kind, Name), Arc<str>>,
    /// How many pods of which nodes refer to it.
    nodes: HashMap<(Kind, Name), HashMap<Arc<str>, usize>>,
    volumes: HashMap<Box<str>, Volume>,
    volume_secrets: HashMap<Name, BTreeSet<Box<str>>>,
}

fn name_of(object: &Object) -> Name {
    let meta = object.meta();
    (meta.namespace.as_deref().unwrap_or_default().into(), meta.name.as_str().into())
}

impl Graph {
    pub fn reaches(&self, node: &str, kind: Kind, namespace: &str, name: &str) -> bool {
        let name: Name = (namespace.into(), name.into());
        match kind {
            Kind::Pod => self.pods.get(&name).is_some_and(|pod| &*pod.node == node),
            Kind::PodCertificateRequest | Kind::ResourceSlice | Kind::VolumeAttachment => self.owned.get(&(kind, name)).is_some_and(|owner| &**owner == node),
            Kind::Volume => self.volumes.get(&name.1).is_some_and(|volume| self.refers(node, Kind::Claim, &volume.claim)),
            Kind::Secret => {
                self.refers(node, kind, &name)
                    || self.volume_secrets.get(&name).into_iter().flatten().any(|volume| self.volumes.get(volume).is_some_and(|volume| self.refers(node, Kind::Claim, &volume.claim)))
            }
            _ => self.refers(node, kind, &name),
        }
    }

    fn refers(&self, node: &str, kind: Kind, name: &Name) -> bool {
        self.nodes.get(&(kind, name.clone())).is_some_and(|nodes| nodes.contains_key(node))
    }

    pub fn pod(&mut self, object: &Object) {
        let name = name_of(object);
        // What a bound pod refers to is immutable but for the claims that are made for it.
        if self.pods.get(&name).is_some_and(|known| *known.uid == *object.meta().uid && !known.open) {
            return;
        }
        let Ok(pod) = object.value() else { return };
        self.forget_pod(&name);
        let node = text(&pod, "/spec/nodeName");
        if node.is_empty() {
            return;
        }
        let node: Arc<str> = node.into();
        let mut refers: Vec<(Kind, Box<str>)> = Vec::new();
        // A node must not come by rights by making a pod.
        if !object.meta().annotations.contains_key("kubernetes.io/config.mirror") {
            refers.extend(Some(text(&pod, "/spec/serviceAccountName")).filter(|account| !account.is_empty()).map(|account| (Kind::ServiceAccount, account.into())));
            refers.extend(references::secrets(&pod).into_iter().map(|name| (Kind::Secret, name.into())));
            refers.extend(references::config_maps(&pod).into_iter().map(|name| (Kind::ConfigMap, name.into())));
            refers.extend(references::claims(&pod).into_iter().map(|name| (Kind::Claim, name.into())));
            refers.extend(references::resource_claims(&pod).into_iter().map(|name| (Kind::ResourceClaim, name.into())));
        }
        for (kind, other) in &refers {
            *self.nodes.entry((*kind, (name.0.clone(), other.clone()))).or_default().entry(node.clone()).or_default() += 1;
        }
        let open = references::list(&pod, "/spec/resourceClaims").next().is_some() || pod.pointer("/status/extendedResourceClaimStatus").is_some();
        self.pods.insert(name, Bound { uid: object.meta().uid.as_str().into(), node, refers, open });
    }

    pub fn pod_gone(&mut self, object: &Object) {
        self.forget_pod(&name_of(object));
    }

    fn forget_pod(&mut self, name: &Name) {
        let Some(pod) = self.pods.remove(name) else { return };
        for (kind, other) in pod.refers {
            let key = (kind, (name.0.clone(), other));
            let Some(nodes) = self.nodes.get_mut(&key) else { continue };
            if let Some(count) = nodes.get_mut(&pod.node) {
                *count -= 1;
                if *count == 0 {
                    nodes.remove(&pod.node);
                }
            }
            if nodes.is_empty() {
                self.nodes.remove(&key);
            }
        }
    }

    pub fn volume(&mut self, object: &Object) {
        self.volume_gone(object);
        let Ok(volume) = object.value() else { return };
        let Some(claim) = volume.pointer("/spec/claimRef").filter(|claim| claim.is_object()) else { return };
        let claim: Name = (text(claim, "/namespace").into(), text(claim, "/name").into());
        let name: Box<str> = object.meta().name.as_str().into();
        let secrets: Vec<Name> = references::volume_secrets(&volume).into_iter().map(|(namespace, name)| (namespace.into(), name.into())).collect();
        for secret in &secrets {
            self.volume_secrets.entry(secret.clone()).or_default().insert(name.clone());
        }
        self.volumes.insert(name, Volume { claim, secrets });
    }

    pub fn volume_gone(&mut self, object: &Object) {
        let name = object.meta().name.as_str();
        let Some(volume) = self.volumes.remove(name) else { return };
        for secret in volume.secrets {
            if let Some(volumes) = self.volume_secrets.get_mut(&secret) {
                volumes.remove(name);
                if volumes.is_empty() {
                    self.volume_secrets.remove(&secret);
                }
            }
        }
    }

    /// An object of one node, which a field names.
    pub fn own(&mut self, kind: Kind, object: &Object) {
        let node = object.value().ok().and_then(|value| value.pointer("/spec/nodeName").and_then(Value::as_str).map(Arc::<str>::from)).filter(|node| !node.is_empty());
        match node {
            Some(node) => drop(self.owned.insert((kind, name_of(object)), node)),
            None => self.own_gone(kind, object),
        }
    }

    pub fn own_gone(&mut self, kind: Kind, object: &Object) {
        self.owned.remove(&(kind, name_of(object)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: &Value) -> Object {
        Object::new(value.to_string().into(), 1)
    }

    fn pod(name: &str, node: &str, secret: &str, uid: &str) -> Object {
        object(&json!({"metadata": {"name": name, "namespace": "a", "uid": uid}, "spec": {"nodeName": node, "serviceAccountName": "sa", "volumes": [
            {"secret": {"secretName": secret}}, {"persistentVolumeClaim": {"claimName": "claim"}}]}}))
    }

    #[test]
    fn ways() {
        let mut graph = Graph::default();
        let volume = object(&json!({"metadata": {"name": "pv"}, "spec": {"claimRef": {"namespace": "a", "name": "claim"}, "csi": {"nodePublishSecretRef": {"namespace": "k", "name": "deep"}}}}));
        graph.volume(&volume);
        graph.pod(&pod("waits", "", "s", "0"));
        assert!(!graph.reaches("", Kind::Secret, "a", "s"));
        graph.pod(&pod("p", "n1", "s", "1"));
        graph.pod(&pod("q", "n1", "s", "2"));
        let known = |graph: &Graph, node: &str| {
            [(Kind::Pod, "a", "p"), (Kind::Secret, "a", "s"), (Kind::Secret, "k", "deep"), (Kind::Volume, "", "pv"), (Kind::Claim, "a", "claim"), (Kind::ServiceAccount, "a", "sa"), (Kind::ConfigMap, "a", "s"), (Kind::Secret, "b", "s")]
                .map(|(kind, namespace, name)| graph.reaches(node, kind, namespace, name))
        };
        assert_eq!(known(&graph, "n1"), [true, true, true, true, true, true, false, false]);
        assert_eq!(known(&graph, "n2"), [false; 8]);
        graph.pod_gone(&pod("q", "n1", "s", "2"));
        assert_eq!(known(&graph, "n1"), [true, true, true, true, true, true, false, false]);
        // Another pod of that name, elsewhere.
        graph.pod(&pod("p", "n2", "s", "3"));
        assert_eq!(known(&graph, "n1"), [false; 8]);
        assert_eq!(known(&graph, "n2"), [true, true, true, true, true, true, false, false]);
        graph.volume_gone(&volume);
        assert_eq!(known(&graph, "n2"), [true, true, false, false, true, true, false, false]);
        graph.pod_gone(&pod("p", "n2", "s", "3"));
        assert!(graph.nodes.is_empty() && graph.pods.is_empty() && graph.volume_secrets.is_empty());
    }

    #[test]
    fn what_pods_come_to_refer_to() {
        let mut graph = Graph::default();
        let with = |status: Value| object(&json!({"metadata": {"name": "p", "namespace": "a", "uid": "1"}, "spec": {"nodeName": "n", "resourceClaims": [{"name": "x", "resourceClaimTemplateName": "t"}]}, "status": status}));
        graph.pod(&with(json!({})));
        assert!(!graph.reaches("n", Kind::ResourceClaim, "a", "r"));
        graph.pod(&with(json!({"resourceClaimStatuses": [{"name": "x", "resourceClaimName": "r"}]})));
        assert!(graph.reaches("n", Kind::ResourceClaim, "a", "r"));
        let mirror = object(&json!({"metadata": {"name": "m", "namespace": "a", "annotations": {"kubernetes.io/config.mirror": "x"}}, "spec": {"nodeName": "n", "volumes": [{"secret": {"secretName": "s"}}]}}));
        graph.pod(&mirror);
        assert!(graph.reaches("n", Kind::Pod, "a", "m") && !graph.reaches("n", Kind::Secret, "a", "s"));
        let slice = object(&json!({"metadata": {"name": "slice"}, "spec": {"nodeName": "n"}}));
        graph.own(Kind::ResourceSlice, &slice);
        assert!(graph.reaches("n", Kind::ResourceSlice, "", "slice") && !graph.reaches("o", Kind::ResourceSlice, "", "slice"));
        graph.own_gone(Kind::ResourceSlice, &slice);
        assert!(!graph.reaches("n", Kind::ResourceSlice, "", "slice"));
    }
}
