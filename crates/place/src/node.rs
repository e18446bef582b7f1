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
}

impl NodeInfo {
    pub fn of(node: &Node) -> Self {
        let mut info = Self::default();
        info.refresh(node);
        info
    }

    /// The node object has changed; what runs on it has not.
    pub fn refresh(&mut self, node: &Node) {
        self.name = node.metadata.name.as_deref().unwrap_or_default().into();
        self.labels = node.metadata.labels.clone().unwrap_or_default();
        let spec = node.spec.as_ref();
        self.taints = spec.and_then(|spec| spec.taints.clone()).unwrap_or_default();
        self.unschedulable = spec.and_then(|spec| spec.unschedulable).unwrap_or(false);
        self.allocatable = Amounts::of(node.status.as_ref().and_then(|status| status.allocatable.as_ref()));
    }

    pub fn add(&mut self, pod: Arc<PodInfo>) {
        if self.pods.contains_key(&pod.uid) {
            self.remove(&pod.uid.clone());
        }
        self.requested.add(&pod.request);
        self.assumed.add(&pod.assumed);
        self.with_anti_affinity += usize::from(!pod.anti_affinity.is_empty());
        self.pods.insert(pod.uid.clone(), pod);
    }

    pub fn remove(&mut self, uid: &str) {
        if let Some(pod) = self.pods.remove(uid) {
            self.requested.subtract(&pod.request);
            self.assumed.subtract(&pod.assumed);
            self.with_anti_affinity -= usize::from(!pod.anti_affinity.is_empty());
        }
    }
}
