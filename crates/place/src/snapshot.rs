//! All nodes as of now, with the pods on them. The scheduler keeps one and changes it event by event.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::k8s::api::core::v1::Node;

use crate::node::NodeInfo;
use crate::pod::PodInfo;

#[derive(Debug, Default)]
pub struct Snapshot {
    nodes: Vec<NodeInfo>,
    by_name: HashMap<Arc<str>, usize>,
    /// Where each pod is counted.
    places: HashMap<String, Arc<str>>,
    /// Pods whose node is not known yet.
    strays: HashMap<Arc<str>, Vec<Arc<PodInfo>>>,
    /// Labels of the namespaces, for terms that select them.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// Where the next search starts, so that equal nodes take turns.
    pub(crate) turn: usize,
}

impl Snapshot {
    pub fn nodes(&self) -> &[NodeInfo] {
        &self.nodes
    }

    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.by_name.get(name).map(|index| &self.nodes[*index])
    }

    pub fn set_node(&mut self, node: &Node) {
        let name: Arc<str> = node.metadata.name.as_deref().unwrap_or_default().into();
        match self.by_name.get(&name) {
            Some(index) => self.nodes[*index].refresh(node),
            None => {
                let mut info = NodeInfo::of(node);
                for pod in self.strays.remove(&name).unwrap_or_default() {
                    info.add(pod);
                }
                self.by_name.insert(name, self.nodes.len());
                self.nodes.push(info);
            }
        }
    }

    pub fn remove_node(&mut self, name: &str) {
        let Some(index) = self.by_name.remove(name) else { return };
        let gone = self.nodes.swap_remove(index);
        if !gone.pods.is_empty() {
            self.strays.insert(gone.name, gone.pods.into_values().collect());
        }
        if let Some(moved) = self.nodes.get(index) {
            self.by_name.insert(moved.name.clone(), index);
        }
    }

    /// The pod is (or is about to be) on `pod.node_name`.
    pub fn set_pod(&mut self, pod: Arc<PodInfo>) {
        self.remove_pod(&pod.uid);
        let place: Arc<str> = pod.node_name.as_str().into();
        self.places.insert(pod.uid.clone(), place.clone());
        match self.by_name.get(&place) {
            Some(index) => self.nodes[*index].add(pod),
            None => self.strays.entry(place).or_default().push(pod),
        }
    }

    pub fn remove_pod(&mut self, uid: &str) {
        let Some(place) = self.places.remove(uid) else { return };
        match self.by_name.get(&place) {
            Some(index) => self.nodes[*index].remove(uid),
            None => {
                if let Some(list) = self.strays.get_mut(&place) {
                    list.retain(|pod| pod.uid != uid);
                    if list.is_empty() {
                        self.strays.remove(&place);
                    }
                }
            }
        }
    }

    pub fn holds_pod(&self, uid: &str) -> bool {
        self.places.contains_key(uid)
    }
}
