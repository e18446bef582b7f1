//! The decision: filter, score, choose; or say why not.

use std::sync::Arc;

use crate::filter::{Plugin, Reason};
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::question::Question;
use crate::refusal::Refusal;
use crate::score;
use crate::snapshot::Snapshot;

/// At least this many possible nodes are looked for before the best of them is taken (`minFeasibleNodesToFind`).
const MIN_FEASIBLE: usize = 100;
/// And at least this part of a large cluster, in percent.
const MIN_FEASIBLE_PERCENT: usize = 5;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    Node(Arc<str>),
    Nowhere(Refusal),
}

/// Where `pod` should run. Equal nodes take turns, by `snapshot`'s own counter: no chance is needed.
pub fn place(snapshot: &mut Snapshot, pod: &PodInfo) -> Placement {
    let (placement, looked_at) = search(snapshot, pod);
    snapshot.turn = snapshot.turn.wrapping_add(looked_at);
    placement
}

/// The placement, and how many nodes were looked at for it.
fn search(snapshot: &Snapshot, pod: &PodInfo) -> (Placement, usize) {
    let count = snapshot.nodes().len();
    let mut refusal = Refusal { nodes: count, ..Refusal::default() };
    if pod.only_nodes.as_ref().is_some_and(|names| names.is_empty()) {
        refusal.of_all = Some(Reason::ever(Plugin::NodeAffinity, "pod affinity terms conflict"));
        return (Placement::Nowhere(refusal), 0);
    }
    let question = match Question::of(pod, snapshot) {
        Ok(question) => question,
        Err(reason) => {
            refusal.of_all = Some(reason);
            return (Placement::Nowhere(refusal), 0);
        }
    };
    // Where others were sent away for it it goes before anywhere else.
    if let Some(node) = snapshot.nomination(&pod.uid).and_then(|name| snapshot.node(name))
        && question.fits(node).is_ok()
    {
        return (Placement::Node(node.name.clone()), 1);
    }
    let start = if count == 0 { 0 } else { snapshot.turn % count };
    let nodes: Vec<&NodeInfo> = match &pod.only_nodes {
        Some(names) => names.iter().filter_map(|name| snapshot.node(name)).collect(),
        None => snapshot.nodes()[start..].iter().chain(&snapshot.nodes()[..start]).collect(),
    };
    if nodes.len() < count {
        refusal.reasons.insert(Reason::ever(Plugin::NodeAffinity, "node(s) didn't satisfy plugin(s) [NodeAffinity]"), count - nodes.len());
    }
    let wanted = MIN_FEASIBLE.max(count * MIN_FEASIBLE_PERCENT / 100);
    let mut candidates: Vec<&NodeInfo> = Vec::new();
    let mut looked_at = 0;
    for node in nodes {
        looked_at += 1;
        match question.fits(node) {
            Ok(()) => {
                candidates.push(node);
                if candidates.len() >= wanted {
                    break;
                }
            }
            Err(reasons) => refusal.note(&node.name, reasons),
        }
    }
    let placement = match candidates.as_slice() {
        [] => Placement::Nowhere(refusal),
        [only] => Placement::Node(only.name.clone()),
        several => {
            let totals = score::totals(pod, several, snapshot);
            // The first of the best: the turn has already mixed the order.
            let mut best = 0;
            for (index, total) in totals.iter().enumerate() {
                if *total > totals[best] {
                    best = index;
                }
            }
            Placement::Node(several[best].name.clone())
        }
    };
    (placement, looked_at)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::preempt::{Preemption, preempt};
    use crate::testing::{node, pod, snapshot};

    fn said(snapshot: &mut Snapshot, pod: &PodInfo) -> String {
        match place(snapshot, pod) {
            Placement::Node(name) => name.to_string(),
            Placement::Nowhere(refusal) => match preempt(snapshot, pod, &refusal, &[]) {
                Preemption::Victims { .. } => refusal.message(None),
                Preemption::Hopeless(why) | Preemption::Ineligible(why) => refusal.message(Some(&why)),
            },
        }
    }

    #[test]
    fn refusals_are_told_as_upstream_tells_them() {
        assert_eq!(said(&mut snapshot(&[]), &pod("a", "1", json!({}))), "no nodes available to schedule pods");
        let mut small = snapshot(&[node("n1", "1", json!({}))]);
        assert_eq!(
            said(&mut small, &pod("a", "2", json!({}))),
            "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        );
        let mut other = pod("b", "600m", json!({}));
        other.node_name = "n1".into();
        small.set_pod(Arc::new(other));
        assert_eq!(
            said(&mut small, &pod("a", "500m", json!({}))),
            "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
        );
        let mut tainted = snapshot(&[node("n1", "1", json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}})), node("n2", "1", json!({"spec": {"unschedulable": true}}))]);
        assert_eq!(
            said(&mut tainted, &pod("a", "1", json!({}))),
            "0/2 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable. no new claims to deallocate, preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
        );
        assert_eq!(said(&mut tainted, &pod("a", "1", json!({"tolerations": [{"operator": "Exists", "key": "k"}]}))), "n1");
    }

    #[test]
    fn selectors_and_affinity_choose() {
        let mut two = snapshot(&[node("n1", "4", json!({})), node("n2", "4", json!({}))]);
        assert_eq!(said(&mut two, &pod("a", "1", json!({"nodeSelector": {"kubernetes.io/hostname": "n2"}}))), "n2");
        let field = json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]}}}});
        assert_eq!(said(&mut two, &pod("a", "1", field)), "n1");
        let mut first = pod("first", "1", json!({}));
        first.node_name = "n1".into();
        two.set_pod(Arc::new(first));
        let term = json!({"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname"});
        assert_eq!(said(&mut two, &pod("a", "1", json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}))), "n2");
        assert_eq!(said(&mut two, &pod("a", "1", json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}))), "n1");
    }

    #[test]
    fn nodes_asked_for_by_name_are_the_only_ones_looked_at() {
        let field = |names: &[&str]| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": names}]}]}}}});
        let mut two = snapshot(&[node("n1", "1", json!({})), node("n2", "4", json!({}))]);
        assert_eq!(
            said(&mut two, &pod("a", "2", field(&["n1"]))),
            "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't satisfy plugin(s) [NodeAffinity]. no new claims to deallocate, preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
        );
        let conflict = json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": [
            {"key": "metadata.name", "operator": "In", "values": ["n1"]}, {"key": "metadata.name", "operator": "In", "values": ["n2"]}]}]}}}});
        assert_eq!(
            said(&mut two, &pod("a", "1", conflict)),
            "0/2 nodes are available: pod affinity terms conflict. no new claims to deallocate, preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
        );
    }

    #[test]
    fn equal_pods_spread() {
        let mut two = snapshot(&[node("n1", "8", json!({})), node("n2", "8", json!({}))]);
        let mut counts = BTreeMap::new();
        for index in 0..8 {
            let mut next = pod(&format!("p{index}"), "100m", json!({}));
            next.owner_uid = "rs".into();
            next.default_constraints = crate::constraint::Constraint::defaults("rs");
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
        assert_eq!(said(&mut one, &pod("a", "1", ports)), "n1");
        assert_eq!(one.nodes()[0].requested, crate::Amounts::default());
    }
}
