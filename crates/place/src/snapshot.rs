//! All nodes as of now, with the pods on them. The scheduler keeps one and changes it event by event.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::k8s::api::core::v1::Node;

use crate::node::{NodeChange, NodeInfo};
use crate::pod::PodInfo;
use crate::volumes::Storage;

#[derive(Debug, Default)]
pub struct Snapshot {
    nodes: Vec<NodeInfo>,
    by_name: HashMap<Arc<str>, usize>,
    /// Where each pod is counted.
    places: HashMap<String, Arc<str>>,
    /// Pods whose node is not known yet.
    strays: HashMap<Arc<str>, Vec<Arc<PodInfo>>>,
    /// Pods that others were told to make room for, and where.
    nominations: HashMap<String, Arc<str>>,
    nominated: HashMap<Arc<str>, Vec<Arc<PodInfo>>>,
    /// Pods on all nodes with terms that keep others away, and with terms of any kind about others.
    repelling: usize,
    attached: usize,
    /// Labels of the namespaces, for terms that select them.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    pub storage: Storage,
    /// Where the next search starts, so that equal nodes take turns.
    pub(crate) turn: usize,
}

impl Snapshot {
    pub fn nodes(&self) -> &[NodeInfo] {
        &self.nodes
    }

    /// Pods that have a place.
    pub fn pods(&self) -> usize {
        self.places.len()
    }

    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.by_name.get(name).map(|index| &self.nodes[*index])
    }

    pub(crate) fn repelling(&self) -> usize {
        self.repelling
    }

    pub(crate) fn attached(&self) -> usize {
        self.attached
    }

    pub fn set_node(&mut self, node: &Node) -> NodeChange {
        let name: Arc<str> = node.metadata.name.as_deref().unwrap_or_default().into();
        if let Some(index) = self.by_name.get(&name) {
            return self.nodes[*index].refresh(node);
        }
        let mut info = NodeInfo::default();
        let change = info.refresh(node);
        let index = self.nodes.len();
        self.by_name.insert(name.clone(), index);
        self.nodes.push(info);
        for pod in self.strays.remove(&name).unwrap_or_default() {
            self.change(index, |node| node.add(pod));
        }
        change
    }

    pub fn remove_node(&mut self, name: &str) {
        let Some(index) = self.by_name.remove(name) else { return };
        let gone = self.nodes.swap_remove(index);
        self.repelling -= gone.with_anti_affinity;
        self.attached -= gone.with_affinity;
        if !gone.pods.is_empty() {
            self.strays.insert(gone.name, gone.pods.into_values().collect());
        }
        if let Some(moved) = self.nodes.get(index) {
            self.by_name.insert(moved.name.clone(), index);
        }
    }

    fn change(&mut self, index: usize, with: impl FnOnce(&mut NodeInfo)) {
        let node = &mut self.nodes[index];
        let (repelling, attached) = (self.repelling - node.with_anti_affinity, self.attached - node.with_affinity);
        with(node);
        (self.repelling, self.attached) = (repelling + node.with_anti_affinity, attached + node.with_affinity);
    }

    /// The pod is on `pod.node_name`.
    pub fn set_pod(&mut self, pod: Arc<PodInfo>) {
        let place = pod.node_name.as_str().into();
        self.put(pod, place);
    }

    /// The pod is about to be on `place`. It has no further claim to where it was nominated.
    pub fn put(&mut self, pod: Arc<PodInfo>, place: Arc<str>) {
        self.remove_pod(&pod.uid);
        self.withdraw(&pod.uid);
        self.places.insert(pod.uid.clone(), place.clone());
        match self.by_name.get(&place) {
            Some(index) => self.change(*index, |node| node.add(pod)),
            None => self.strays.entry(place).or_default().push(pod),
        }
    }

    pub fn remove_pod(&mut self, uid: &str) {
        let Some(place) = self.places.remove(uid) else { return };
        match self.by_name.get(&place) {
            Some(index) => self.change(*index, |node| node.remove(uid)),
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

    /// The pod waits for room on the node: others of its priority or below do not take it.
    pub fn nominate(&mut self, pod: Arc<PodInfo>, place: Arc<str>) {
        self.withdraw(&pod.uid);
        self.nominations.insert(pod.uid.clone(), place.clone());
        self.nominated.entry(place).or_default().push(pod);
    }

    /// Whether it had been nominated.
    pub fn withdraw(&mut self, uid: &str) -> bool {
        let Some(place) = self.nominations.remove(uid) else { return false };
        if let Some(list) = self.nominated.get_mut(&place) {
            list.retain(|pod| pod.uid != uid);
            if list.is_empty() {
                self.nominated.remove(&place);
            }
        }
        true
    }

    /// Where the pod is nominated.
    pub fn nomination(&self, uid: &str) -> Option<&Arc<str>> {
        self.nominations.get(uid)
    }

    /// Who waits for room on the node.
    pub fn nominated(&self, place: &str) -> &[Arc<PodInfo>] {
        self.nominated.get(place).map_or(&[], Vec::as_slice)
    }
}
