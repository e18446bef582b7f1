//! Inter-pod affinity and topology spread: what depends on pods of other nodes too. Computed once a pod, asked once a node.

use std::collections::{BTreeMap, HashMap};

use crate::affinity::PodTerm;
use crate::filter::Reason;
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

/// What the pods already placed mean for one pod.
pub struct Around<'a> {
    pod: &'a PodInfo,
    /// Topology (key, value) where a pod with an anti-affinity against this one lives.
    repelled: Vec<(String, String)>,
    /// For each required affinity: where its pods live; `None` when the pod may found the group itself.
    near: Vec<(&'a PodTerm, Option<Vec<String>>)>,
    far: Vec<(&'a PodTerm, Vec<String>)>,
    /// For each constraint: pods a domain, and the smallest.
    domains: Vec<(BTreeMap<String, i64>, i64)>,
    /// Pods of the same owner a node, for the soft spread.
    siblings: HashMap<String, i64>,
}

fn topology<'a>(node: &'a NodeInfo, key: &str) -> Option<&'a str> {
    node.labels.get(key).map(String::as_str)
}

impl<'a> Around<'a> {
    pub fn of(pod: &'a PodInfo, snapshot: &Snapshot) -> Self {
        let places = |term: &PodTerm| -> Vec<String> {
            let mut found: Vec<String> = Vec::new();
            for node in snapshot.nodes() {
                let Some(value) = topology(node, &term.topology_key) else { continue };
                if !found.iter().any(|known| known == value) && node.pods.values().any(|other| term.matches(other, &snapshot.namespaces)) {
                    found.push(value.to_owned());
                }
            }
            found
        };
        let mut repelled = Vec::new();
        for node in snapshot.nodes().iter().filter(|node| node.with_anti_affinity > 0) {
            for term in node.pods.values().flat_map(|other| &other.anti_affinity).filter(|term| term.matches(pod, &snapshot.namespaces)) {
                if let Some(value) = topology(node, &term.topology_key) {
                    repelled.push((term.topology_key.clone(), value.to_owned()));
                }
            }
        }
        let near = pod
            .affinity
            .iter()
            .map(|term| {
                let found = places(term);
                let founder = found.is_empty() && term.matches(pod, &snapshot.namespaces);
                (term, (!founder).then_some(found))
            })
            .collect();
        let far = pod.anti_affinity.iter().map(|term| (term, places(term))).collect();
        let domains = pod
            .constraints
            .iter()
            .map(|constraint| {
                let mut counts: BTreeMap<String, i64> = BTreeMap::new();
                for node in snapshot.nodes() {
                    let Some(value) = topology(node, &constraint.topology_key) else { continue };
                    // Nodes the pod may not go to do not count (nodeAffinityPolicy: Honor).
                    let eligible = pod.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value)) && pod.required_nodes.as_ref().is_none_or(|terms| terms.hold(node));
                    if eligible {
                        *counts.entry(value.to_owned()).or_default() += node.pods.values().filter(|other| other.namespace == pod.namespace && constraint.selector.matches(&other.labels)).count() as i64;
                    }
                }
                let least = counts.values().copied().min().unwrap_or(0);
                (counts, least)
            })
            .collect();
        let mut siblings = HashMap::new();
        if !pod.owner_uid.is_empty() {
            for node in snapshot.nodes() {
                let count = node.pods.values().filter(|other| other.owner_uid == pod.owner_uid).count() as i64;
                if count > 0 {
                    siblings.insert(node.name.to_string(), count);
                }
            }
        }
        Self { pod, repelled, near, far, domains, siblings }
    }

    pub fn filter(&self, node: &NodeInfo) -> Result<(), Reason> {
        for (index, constraint) in self.pod.constraints.iter().enumerate().filter(|(_, constraint)| constraint.hard) {
            let Some(value) = topology(node, &constraint.topology_key) else {
                return Err(Reason { text: "node(s) didn't match pod topology spread constraints (missing required label)".into(), resolvable: false });
            };
            let (counts, least) = &self.domains[index];
            let own = i64::from(constraint.selector.matches(&self.pod.labels));
            if counts.get(value).copied().unwrap_or(0) + own - least > constraint.max_skew {
                return Err(Reason::until_others_leave("node(s) didn't match pod topology spread constraints"));
            }
        }
        for (term, places) in &self.near {
            let Some(value) = topology(node, &term.topology_key) else {
                return Err(Reason { text: "node(s) didn't match pod affinity rules".into(), resolvable: false });
            };
            if places.as_ref().is_some_and(|places| !places.iter().any(|known| known == value)) {
                return Err(Reason { text: "node(s) didn't match pod affinity rules".into(), resolvable: false });
            }
        }
        for (term, places) in &self.far {
            if topology(node, &term.topology_key).is_some_and(|value| places.iter().any(|known| known == value)) {
                return Err(Reason::until_others_leave("node(s) didn't match pod anti-affinity rules"));
            }
        }
        if self.repelled.iter().any(|(key, value)| topology(node, key) == Some(value)) {
            return Err(Reason::until_others_leave("node(s) didn't satisfy existing pods anti-affinity rules"));
        }
        Ok(())
    }

    /// Preferred affinities: the sum of the weights that speak for this node, less those against.
    pub fn preference(&self, node: &NodeInfo, namespaces: &BTreeMap<String, BTreeMap<String, String>>, snapshot: &Snapshot) -> i64 {
        let mut sum = 0;
        for (sign, list) in [(1, &self.pod.preferred_affinity), (-1, &self.pod.preferred_anti_affinity)] {
            for each in list {
                let Some(value) = topology(node, &each.term.topology_key) else { continue };
                let there = snapshot.nodes().iter().filter(|other| topology(other, &each.term.topology_key) == Some(value)).any(|other| other.pods.values().any(|pod| each.term.matches(pod, namespaces)));
                if there {
                    sum += sign * each.weight;
                }
            }
        }
        sum
    }

    /// How crowded the node is with pods like this one; the fewer the better.
    pub fn crowd(&self, node: &NodeInfo) -> i64 {
        let mut crowd = self.siblings.get(&*node.name).copied().unwrap_or(0);
        for (index, constraint) in self.pod.constraints.iter().enumerate().filter(|(_, constraint)| !constraint.hard) {
            let count = topology(node, &constraint.topology_key).and_then(|value| self.domains[index].0.get(value)).copied().unwrap_or(0);
            crowd += count;
        }
        crowd
    }
}
