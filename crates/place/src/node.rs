//! What placing needs to know of a node: what it is, and what is on it already, kept up to date pod by pod.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::k8s::api::core::v1::{Node, Taint};

use crate::amount::Amounts;
use crate::pod::PodInfo;

#[derive(Debug, Clone, Default)]
pub struct NodeInfo {
    pub name: Arc<str>,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Amounts,
    pub requested: Amounts,
    pub assumed: Amounts,
    pub pods: HashMap<String, Arc<PodInfo>>,
    /// How many of them have terms that keep other pods away; most nodes have none, and then nobody looks.
    pub with_anti_affinity: usize,
    /// And how many have terms of any kind about other pods.
    pub with_affinity: usize,
}

/// What of a node changed that can matter to pods that wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeChange {
    pub added: bool,
    pub allocatable: bool,
    pub labels: bool,
    /// Also whether it takes pods at all.
    pub taints: bool,
}

impl NodeInfo {
    /// The node object has changed; what runs on it has not.
    pub fn refresh(&mut self, node: &Node) -> NodeChange {
        let spec = node.spec.as_ref();
        let labels = node.metadata.labels.clone().unwrap_or_default();
        let taints = spec.and_then(|spec| spec.taints.clone()).unwrap_or_default();
        let unschedulable = spec.and_then(|spec| spec.unschedulable).unwrap_or(false);
        let allocatable = Amounts::of(node.status.as_ref().and_then(|status| status.allocatable.as_ref()));
        let change = NodeChange {
            added: self.name.is_empty(),
            allocatable: allocatable != self.allocatable,
            labels: labels != self.labels,
            taints: taints != self.taints || unschedulable != self.unschedulable,
        };
        if change.added {
            self.name = node.metadata.name.as_deref().unwrap_or_default().into();
        }
        (self.labels, self.taints, self.unschedulable, self.allocatable) = (labels, taints, unschedulable, allocatable);
        change
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }

    pub fn add(&mut self, pod: Arc<PodInfo>) {
        if self.pods.contains_key(&pod.uid) {
            self.remove(&pod.uid.clone());
        }
        self.requested.add(&pod.request);
        self.assumed.add(&pod.assumed);
        self.with_anti_affinity += usize::from(!pod.anti_affinity.is_empty());
        self.with_affinity += usize::from(pod.has_affinity());
        self.pods.insert(pod.uid.clone(), pod);
    }

    pub fn remove(&mut self, uid: &str) {
        if let Some(pod) = self.pods.remove(uid) {
            self.requested.subtract(&pod.request);
            self.assumed.subtract(&pod.assumed);
            self.with_anti_affinity -= usize::from(!pod.anti_affinity.is_empty());
            self.with_affinity -= usize::from(pod.has_affinity());
        }
    }
}
