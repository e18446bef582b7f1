//! What a pod's claims say about where it can run.
//!
//! Mirrors kube-scheduler's VolumeRestrictions (ReadWriteOncePod), VolumeBinding (claims that are bound, or must be before) and VolumeZone. Claims that wait for
//! their first consumer do not decide here: the volume controller binds them when the pod has a node.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use api::k8s::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use api::k8s::api::storage::v1::StorageClass;

use crate::affinity::NodeTerms;
use crate::filter::{Plugin, Reason};
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// Labels of a volume that say where it is, and what a node calls the same today.
const ZONES: [(&str, &str); 4] = [
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("topology.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("topology.kubernetes.io/region", "topology.kubernetes.io/region"),
];
/// Between several zones in one label.
const ZONE_SEPARATOR: &str = "__";

/// A claim that a pod names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimName {
    pub name: String,
    /// It is made for the pod (`ephemeral`), and carries its name.
    pub ephemeral: bool,
}

impl ClaimName {
    pub fn all(pod: &Pod) -> Vec<Self> {
        let name = |volume: &api::k8s::api::core::v1::Volume| {
            let named = volume.persistent_volume_claim.as_ref().map(|source| Self { name: source.claim_name.clone(), ephemeral: false });
            let made = || volume.ephemeral.as_ref().map(|_| Self { name: format!("{}-{}", pod.metadata.name.as_deref().unwrap_or_default(), volume.name), ephemeral: true });
            named.or_else(made)
        };
        pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).filter_map(name).collect()
    }
}

#[derive(Debug)]
struct Claim {
    deleting: bool,
    lost: bool,
    bound: bool,
    volume: String,
    class: String,
    one_pod: bool,
}

#[derive(Debug)]
struct Volume {
    affinity: Option<NodeTerms>,
    zones: Vec<(&'static str, &'static str, BTreeSet<String>)>,
}

/// Claims, volumes and classes as of now.
#[derive(Debug, Default)]
pub struct Storage {
    claims: HashMap<(String, String), Claim>,
    volumes: HashMap<String, Volume>,
    /// Whether claims of the class wait for their first consumer.
    classes: HashMap<String, bool>,
}

impl Storage {
    pub fn set_claim(&mut self, claim: &PersistentVolumeClaim) {
        let meta = &claim.metadata;
        let spec = claim.spec.as_ref();
        let annotation = |key: &str| meta.annotations.as_ref().and_then(|all| all.get(key));
        let volume = spec.and_then(|spec| spec.volume_name.clone()).unwrap_or_default();
        let known = Claim {
            deleting: meta.deletion_timestamp.is_some(),
            lost: claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Lost"),
            bound: !volume.is_empty() && annotation(BIND_COMPLETED).is_some(),
            volume,
            class: annotation(BETA_CLASS).or(spec.and_then(|spec| spec.storage_class_name.as_ref())).cloned().unwrap_or_default(),
            one_pod: spec.and_then(|spec| spec.access_modes.as_ref()).is_some_and(|modes| modes.iter().any(|mode| mode == "ReadWriteOncePod")),
        };
        self.claims.insert((meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default()), known);
    }

    pub fn remove_claim(&mut self, namespace: &str, name: &str) {
        self.claims.remove(&(namespace.to_owned(), name.to_owned()));
    }

    pub fn set_volume(&mut self, volume: &PersistentVolume) {
        let none = BTreeMap::new();
        let labels = volume.metadata.labels.as_ref().unwrap_or(&none);
        let zones = ZONES.iter().filter_map(|(key, today)| Some((*key, *today, labels.get(*key)?.split(ZONE_SEPARATOR).map(str::to_owned).collect()))).collect();
        let required = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref()).and_then(|affinity| affinity.required.as_ref());
        self.volumes.insert(volume.metadata.name.clone().unwrap_or_default(), Volume { affinity: required.map(NodeTerms::of), zones });
    }

    pub fn remove_volume(&mut self, name: &str) {
        self.volumes.remove(name);
    }

    pub fn set_class(&mut self, class: &StorageClass) {
        self.classes.insert(class.metadata.name.clone().unwrap_or_default(), class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
    }

    pub fn remove_class(&mut self, name: &str) {
        self.classes.remove(name);
    }

    fn claim(&self, namespace: &str, name: &str) -> Option<&Claim> {
        self.claims.get(&(namespace.to_owned(), name.to_owned()))
    }
}

/// What one pod's claims ask of a node.
#[derive(Default)]
pub struct Needs<'a> {
    /// `None`: the claim is bound to a volume that is not there.
    volumes: Vec<Option<&'a Volume>>,
    /// Claims that only one pod may use, and how many other pods do.
    alone: Vec<(&'a str, usize)>,
}

fn users(node: &NodeInfo, pod: &PodInfo, claim: &str) -> usize {
    node.pods.values().filter(|other| other.uid != pod.uid && other.namespace == pod.namespace && other.claims.iter().any(|used| used.name == claim)).count()
}

impl<'a> Needs<'a> {
    /// Err: no node will do, for this reason.
    pub fn of(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Result<Self, Reason> {
        let mut needs = Self::default();
        let mut unbound = false;
        for ClaimName { name, ephemeral } in &pod.claims {
            let refuse = |text: String| Err(Reason::ever(Plugin::Volumes, text));
            let Some(claim) = snapshot.storage.claim(&pod.namespace, name) else {
                return refuse(match ephemeral {
                    true => format!("waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}"),
                    false => format!("persistentvolumeclaim {name:?} not found"),
                });
            };
            if claim.lost {
                return refuse(format!("persistentvolumeclaim {name:?} bound to non-existent persistentvolume {:?}", claim.volume));
            }
            if claim.deleting {
                return refuse(format!("persistentvolumeclaim {name:?} is being deleted"));
            }
            if claim.one_pod {
                needs.alone.push((name, snapshot.nodes().iter().map(|node| users(node, pod, name)).sum()));
            }
            if claim.bound {
                needs.volumes.push(snapshot.storage.volumes.get(&claim.volume));
            } else if !claim.volume.is_empty() || !snapshot.storage.classes.get(&claim.class).copied().unwrap_or(false) {
                unbound = true;
            }
        }
        match unbound {
            true => Err(Reason::ever(Plugin::Volumes, "pod has unbound immediate PersistentVolumeClaims")),
            false => Ok(needs),
        }
    }

    /// `node` is what is there, `state` what would be.
    pub fn filter(&self, pod: &PodInfo, node: &NodeInfo, state: &NodeInfo) -> Result<(), Vec<Reason>> {
        for (claim, all) in &self.alone {
            if all + users(state, pod, claim) > users(node, pod, claim) {
                let text = "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod";
                return Err(vec![Reason::until_others_leave(Plugin::Volumes, text)]);
            }
        }
        let mut reasons = Vec::new();
        if self.volumes.iter().flatten().any(|volume| volume.affinity.as_ref().is_some_and(|terms| !terms.hold(state))) {
            reasons.push(Reason::ever(Plugin::Volumes, "node(s) didn't match PersistentVolume's node affinity"));
        }
        if self.volumes.iter().any(Option::is_none) {
            reasons.push(Reason::ever(Plugin::Volumes, "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"));
        }
        if !reasons.is_empty() {
            return Err(reasons);
        }
        // A node that says nothing about zones takes volumes of any.
        if ZONES.iter().any(|(key, _)| state.label(key).is_some()) {
            let mut zones = self.volumes.iter().flatten().flat_map(|volume| &volume.zones);
            if zones.any(|(key, today, values)| !state.label(key).or_else(|| state.label(today)).is_some_and(|value| values.contains(value))) {
                return Err(vec![Reason::ever(Plugin::Volumes, "node(s) had no available volume zone")]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::decide::{Placement, place};
    use crate::testing::{node, on, pod, snapshot};

    fn claim(snapshot: &mut Snapshot, name: &str, volume: Option<&str>, extra: Value) {
        let mut claim = json!({"metadata": {"name": name, "namespace": "default", "annotations": {}}, "spec": {"storageClassName": "fast"}});
        if let Some(volume) = volume {
            claim["spec"]["volumeName"] = json!(volume);
            claim["metadata"]["annotations"][BIND_COMPLETED] = json!("yes");
        }
        for (key, value) in extra.as_object().unwrap() {
            *claim.pointer_mut(key.rsplit_once('/').unwrap().0).unwrap().as_object_mut().unwrap().entry(key.rsplit_once('/').unwrap().1).or_insert(Value::Null) = value.clone();
        }
        snapshot.storage.set_claim(&serde_json::from_value(claim).unwrap());
    }

    fn volume(snapshot: &mut Snapshot, name: &str, labels: Value, host: Option<&str>) {
        let affinity = host.map(|host| json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [host]}]}]}}));
        snapshot.storage.set_volume(&serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "spec": {"nodeAffinity": affinity}})).unwrap());
    }

    fn using(name: &str, claim: &str) -> PodInfo {
        pod(name, "1", json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]}))
    }

    /// The node, or the first half of what is said.
    fn said(snapshot: &mut Snapshot, pod: &PodInfo) -> String {
        match place(snapshot, pod) {
            Placement::Node(name) => name.to_string(),
            Placement::Nowhere(refusal) => refusal.message(None),
        }
    }

    #[test]
    fn claims_say_why_they_are_not_ready() {
        let mut one = snapshot(&[node("n1", "8", json!({}))]);
        assert_eq!(said(&mut one, &using("a", "x")), "0/1 nodes are available: persistentvolumeclaim \"x\" not found.");
        let own = pod("a", "1", json!({"volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]}));
        assert_eq!(said(&mut one, &own), "0/1 nodes are available: waiting for ephemeral volume controller to create the persistentvolumeclaim \"a-v\".");
        claim(&mut one, "x", None, json!({}));
        assert_eq!(said(&mut one, &using("a", "x")), "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.");
        // Claims of a class that waits are bound when the pod has a node.
        one.storage.set_class(&serde_json::from_value(json!({"metadata": {"name": "fast"}, "provisioner": "p", "volumeBindingMode": "WaitForFirstConsumer"})).unwrap());
        assert_eq!(said(&mut one, &using("a", "x")), "n1");
        one.storage.remove_class("fast");
        claim(&mut one, "x", Some("v"), json!({}));
        assert_eq!(said(&mut one, &using("a", "x")), "0/1 nodes are available: 1 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s).");
        volume(&mut one, "v", json!({}), None);
        assert_eq!(said(&mut one, &using("a", "x")), "n1");
        claim(&mut one, "x", Some("v"), json!({"/metadata/deletionTimestamp": "2026-01-01T00:00:00Z"}));
        assert_eq!(said(&mut one, &using("a", "x")), "0/1 nodes are available: persistentvolumeclaim \"x\" is being deleted.");
        one.storage.remove_claim("default", "x");
        assert!(one.storage.claims.is_empty());
    }

    #[test]
    fn volumes_are_where_they_are() {
        let zone = |name: &str, zone: &str| node(name, "8", json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}}));
        let mut two = snapshot(&[zone("n1", "a"), zone("n2", "b")]);
        claim(&mut two, "x", Some("v"), json!({}));
        volume(&mut two, "v", json!({}), Some("n2"));
        assert_eq!(said(&mut two, &using("p", "x")), "n2");
        volume(&mut two, "v", json!({}), Some("n3"));
        assert_eq!(said(&mut two, &using("p", "x")), "0/2 nodes are available: 2 node(s) didn't match PersistentVolume's node affinity.");
        volume(&mut two, "v", json!({"failure-domain.beta.kubernetes.io/zone": "b__c"}), None);
        assert_eq!(said(&mut two, &using("p", "x")), "n2");
        volume(&mut two, "v", json!({"topology.kubernetes.io/zone": "d"}), None);
        assert_eq!(said(&mut two, &using("p", "x")), "0/2 nodes are available: 2 node(s) had no available volume zone.");
    }

    #[test]
    fn what_one_pod_may_use_is_used_by_one() {
        let mut two = snapshot(&[node("n1", "8", json!({})), node("n2", "8", json!({}))]);
        claim(&mut two, "x", Some("v"), json!({"/spec/accessModes": ["ReadWriteOncePod"]}));
        volume(&mut two, "v", json!({}), None);
        on(&mut two, "n1", using("first", "x"));
        let second = using("second", "x");
        let text = "0/2 nodes are available: 2 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod.";
        assert_eq!(said(&mut two, &second), text);
        let Placement::Nowhere(refusal) = place(&mut two, &PodInfo { priority: 9, ..second.clone() }) else { panic!("there is room") };
        let crate::Preemption::Victims { node, .. } = crate::preempt(&two, &PodInfo { priority: 9, ..second }, &refusal, &[]) else { panic!("no victims") };
        assert_eq!(&*node, "n1");
    }
}
