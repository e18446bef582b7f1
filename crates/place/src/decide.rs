//! The decision: filter, score, choose; or say why not, in the words of upstream's FailedScheduling event.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::filter::{self, Reason};
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::score;
use crate::snapshot::Snapshot;
use crate::spread::Around;

/// At least this many possible nodes are looked for before the best of them is taken (`minFeasibleNodesToFind`).
const MIN_FEASIBLE: usize = 100;
/// And at least this part of a large cluster, in percent.
const MIN_FEASIBLE_PERCENT: usize = 5;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    Node(Arc<str>),
    Nowhere(Refusal),
}

/// Why no node would do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refusal {
    pub nodes: usize,
    pub reasons: BTreeMap<Reason, usize>,
    /// Nodes where evicting others could help, and those where it could not.
    helpful: usize,
    helpless: usize,
}

impl Refusal {
    fn note(&mut self, reasons: Vec<Reason>) {
        if reasons.iter().all(|reason| reason.resolvable) {
            self.helpful += 1;
        } else {
            self.helpless += 1;
        }
        for reason in reasons {
            *self.reasons.entry(reason).or_default() += 1;
        }
    }

    /// `0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: …`
    pub fn message(&self) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let listed = |mut list: Vec<String>| {
            list.sort();
            list.join(", ")
        };
        // A reason may be resolvable on one node and final on another; its text counts once.
        let mut texts: BTreeMap<&str, usize> = BTreeMap::new();
        for (reason, count) in &self.reasons {
            *texts.entry(&reason.text).or_default() += count;
        }
        let reasons = listed(texts.iter().map(|(text, count)| format!("{count} {text}")).collect());
        let mut preemption = Vec::new();
        if self.helpful > 0 {
            preemption.push(format!("{} No preemption victims found for incoming pod", self.helpful));
        }
        if self.helpless > 0 {
            preemption.push(format!("{} Preemption is not helpful for scheduling", self.helpless));
        }
        format!("0/{} nodes are available: {reasons}. no new claims to deallocate, preemption: 0/{} nodes are available: {}.", self.nodes, self.nodes, listed(preemption))
    }
}

/// Where `pod` should run. Equal nodes take turns, by `snapshot`'s own counter: no chance is needed.
pub fn place(snapshot: &mut Snapshot, pod: &PodInfo) -> Placement {
    let count = snapshot.nodes().len();
    let start = if count == 0 { 0 } else { snapshot.turn % count };
    snapshot.turn = snapshot.turn.wrapping_add(1);
    let snapshot = &*snapshot;
    let around = Around::of(pod, snapshot);
    let wanted = MIN_FEASIBLE.max(count * MIN_FEASIBLE_PERCENT / 100);
    let mut refusal = Refusal { nodes: count, ..Refusal::default() };
    let mut candidates: Vec<&NodeInfo> = Vec::new();
    for node in snapshot.nodes()[start..].iter().chain(&snapshot.nodes()[..start]) {
        match filter::node(pod, node).and_then(|()| around.filter(node).map_err(|reason| vec![reason])) {
            Ok(()) => {
                candidates.push(node);
                if candidates.len() >= wanted {
                    break;
                }
            }
            Err(reasons) => refusal.note(reasons),
        }
    }
    match candidates.as_slice() {
        [] => Placement::Nowhere(refusal),
        [only] => Placement::Node(only.name.clone()),
        several => {
            let totals = score::totals(pod, several, &around, snapshot);
            // The first of the best: the turn has already mixed the order.
            let mut best = 0;
            for (index, total) in totals.iter().enumerate() {
                if *total > totals[best] {
                    best = index;
                }
            }
            Placement::Node(several[best].name.clone())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::k8s::api::core::v1::{Node, Pod};
    use serde_json::json;

    fn node(name: &str, cpu: &str, extra: serde_json::Value) -> Node {
        let mut value = json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}, "spec": {}, "status": {"allocatable": {"cpu": cpu, "memory": "4Gi", "pods": "110"}}});
        for (key, part) in extra.as_object().unwrap() {
            value[key] = part.clone();
        }
        serde_json::from_value(value).unwrap()
    }

    fn pod(name: &str, cpu: &str, spec: serde_json::Value) -> PodInfo {
        let mut value = json!({"metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}});
        for (key, part) in spec.as_object().unwrap() {
            value["spec"][key] = part.clone();
        }
        PodInfo::of(&serde_json::from_value::<Pod>(value).unwrap())
    }

    fn snapshot(nodes: &[Node]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        nodes.iter().for_each(|node| snapshot.set_node(node));
        snapshot
    }

    fn said(placement: Placement) -> String {
        match placement {
            Placement::Node(name) => name.to_string(),
            Placement::Nowhere(refusal) => refusal.message(),
        }
    }

    #[test]
    fn refusals_are_told_as_upstream_tells_them() {
        assert_eq!(said(place(&mut snapshot(&[]), &pod("a", "1", json!({})))), "no nodes available to schedule pods");
        let mut small = snapshot(&[node("n1", "1", json!({}))]);
        assert_eq!(
            said(place(&mut small, &pod("a", "2", json!({})))),
            "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        );
        let mut other = pod("b", "600m", json!({}));
        other.node_name = "n1".into();
        small.set_pod(Arc::new(other));
        assert_eq!(
            said(place(&mut small, &pod("a", "500m", json!({})))),
            "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
        );
        let mut tainted = snapshot(&[node("n1", "1", json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}})), node("n2", "1", json!({"spec": {"unschedulable": true}}))]);
        assert_eq!(
            said(place(&mut tainted, &pod("a", "1", json!({})))),
            "0/2 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable. no new claims to deallocate, preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
        );
        assert_eq!(said(place(&mut tainted, &pod("a", "1", json!({"tolerations": [{"operator": "Exists", "key": "k"}]})))), "n1");
    }

    #[test]
    fn selectors_and_affinity_choose() {
        let mut two = snapshot(&[node("n1", "4", json!({})), node("n2", "4", json!({}))]);
        assert_eq!(said(place(&mut two, &pod("a", "1", json!({"nodeSelector": {"kubernetes.io/hostname": "n2"}})))), "n2");
        let field = json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]}}}});
        assert_eq!(said(place(&mut two, &pod("a", "1", field))), "n1");
        let mut first = pod("first", "1", json!({}));
        first.node_name = "n1".into();
        two.set_pod(Arc::new(first));
        let term = json!({"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname"});
        assert_eq!(said(place(&mut two, &pod("a", "1", json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}})))), "n2");
        assert_eq!(said(place(&mut two, &pod("a", "1", json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}})))), "n1");
    }

    #[test]
    fn equal_pods_spread() {
        let mut two = snapshot(&[node("n1", "8", json!({})), node("n2", "8", json!({}))]);
        let mut counts = BTreeMap::new();
        for index in 0..8 {
            let mut next = pod(&format!("p{index}"), "100m", json!({}));
            next.owner_uid = "rs".into();
            let Placement::Node(name) = place(&mut two, &next) else { panic!("no place") };
            *counts.entry(name.to_string()).or_insert(0) += 1;
            next.node_name = name.to_string();
            two.set_pod(Arc::new(next));
        }
        assert_eq!(counts, BTreeMap::from([("n1".to_owned(), 4), ("n2".to_owned(), 4)]));
    }

    #[test]
    fn host_ports_and_removed_pods() {
        let mut one = snapshot(&[node("n1", "8", json!({}))]);
        let ports = json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080}]}]});
        let mut first = pod("first", "1", ports.clone());
        first.node_name = "n1".into();
        one.set_pod(Arc::new(first));
        assert!(matches!(place(&mut one, &pod("a", "1", ports.clone())), Placement::Nowhere(_)));
        one.remove_pod("first");
        assert_eq!(said(place(&mut one, &pod("a", "1", ports))), "n1");
        assert_eq!(one.nodes()[0].requested, crate::Amounts::default());
    }
}
