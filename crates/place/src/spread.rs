//! Topology spread: how evenly the pods a constraint selects are spread over domains. Counted once a pod, asked once a node.
//!
//! Mirrors kube-scheduler's PodTopologySpread: <https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/>

use std::collections::HashMap;

use crate::constraint::{Constraint, HOSTNAME};
use crate::filter::{Plugin, Reason, untolerated};
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

/// Pods a domain, for one `DoNotSchedule` constraint.
#[derive(Clone)]
struct Domains<'a> {
    constraint: &'a Constraint,
    counts: HashMap<&'a str, i64>,
    least: i64,
}

impl Domains<'_> {
    fn find_least(&mut self) {
        self.least = self.counts.values().copied().min().unwrap_or(0);
    }

    /// Too few domains count as one that is empty.
    fn least(&self) -> i64 {
        if (self.counts.len() as i64) < self.constraint.min_domains { 0 } else { self.least }
    }
}

/// What the pods already placed mean for the constraints of one pod that must hold.
#[derive(Clone)]
pub struct Spread<'a> {
    pod: &'a PodInfo,
    domains: Vec<Domains<'a>>,
}

/// Whether the pods on a node count at all (nodeAffinityPolicy, nodeTaintsPolicy).
fn included(constraint: &Constraint, pod: &PodInfo, node: &NodeInfo) -> bool {
    (!constraint.honor_affinity || pod.selects(node)) && (!constraint.honor_taints || !untolerated(pod, node))
}

fn has_all<'c>(node: &NodeInfo, mut constraints: impl Iterator<Item = &'c Constraint>) -> bool {
    constraints.all(|constraint| node.label(&constraint.topology_key).is_some())
}

fn count(constraint: &Constraint, pod: &PodInfo, node: &NodeInfo) -> i64 {
    node.pods.values().filter(|other| constraint.counts(pod, other)).count() as i64
}

impl<'a> Spread<'a> {
    pub fn of(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Self {
        let mut domains: Vec<Domains<'a>> = pod.constraints.iter().filter(|constraint| constraint.hard).map(|constraint| Domains { constraint, counts: HashMap::new(), least: 0 }).collect();
        if !domains.is_empty() {
            for node in snapshot.nodes() {
                if !has_all(node, domains.iter().map(|domain| domain.constraint)) {
                    continue;
                }
                for domain in domains.iter_mut().filter(|domain| included(domain.constraint, pod, node)) {
                    let value = node.label(&domain.constraint.topology_key).unwrap_or_default();
                    *domain.counts.entry(value).or_default() += count(domain.constraint, pod, node);
                }
            }
            domains.iter_mut().for_each(Domains::find_least);
        }
        Self { pod, domains }
    }

    /// As if `other` came to `node` (`by` = 1) or left it (-1).
    pub fn shift(&mut self, other: &PodInfo, node: &'a NodeInfo, by: i64) {
        if self.domains.is_empty() || !has_all(node, self.domains.iter().map(|domain| domain.constraint)) {
            return;
        }
        for domain in self.domains.iter_mut().filter(|domain| domain.constraint.counts(self.pod, other) && included(domain.constraint, self.pod, node)) {
            let value = node.label(&domain.constraint.topology_key).unwrap_or_default();
            *domain.counts.entry(value).or_default() += by;
            domain.find_least();
        }
    }

    pub fn filter(&self, node: &NodeInfo) -> Result<(), Reason> {
        for domain in &self.domains {
            let Some(value) = node.label(&domain.constraint.topology_key) else {
                return Err(Reason::ever(Plugin::Spread, "node(s) didn't match pod topology spread constraints (missing required label)"));
            };
            let own = i64::from(domain.constraint.selects(self.pod));
            if domain.counts.get(value).copied().unwrap_or(0) + own - domain.least() > domain.constraint.max_skew {
                return Err(Reason::until_others_leave(Plugin::Spread, "node(s) didn't match pod topology spread constraints"));
            }
        }
        Ok(())
    }
}

/// 0 to 100 for each candidate, by the constraints that should hold (`ScheduleAnyway`), or by upstream's default ones. `None` when there are none.
pub fn scores(pod: &PodInfo, candidates: &[&NodeInfo], snapshot: &Snapshot) -> Option<Vec<i64>> {
    let own: Vec<&Constraint> = pod.constraints.iter().filter(|constraint| !constraint.hard).collect();
    // Default constraints do not ask nodes for all of their labels: a cluster without zones still spreads over its nodes.
    let defaults = pod.constraints.is_empty();
    let constraints: Vec<&Constraint> = if defaults { pod.default_constraints.iter().collect() } else { own };
    if constraints.is_empty() {
        return None;
    }
    let ignored: Vec<bool> = candidates.iter().map(|node| !defaults && !has_all(node, constraints.iter().copied())).collect();
    let mut raw = vec![0f64; candidates.len()];
    for constraint in constraints.iter().copied() {
        let by_host = constraint.topology_key == HOSTNAME;
        let mut counts: HashMap<&str, i64> = HashMap::new();
        let mut size = 0;
        for (node, _) in candidates.iter().zip(&ignored).filter(|(_, ignored)| !**ignored) {
            size += 1;
            // A node without the label is a domain of its own for the weight, and counts nothing below.
            counts.entry(node.label(&constraint.topology_key).unwrap_or_default()).or_default();
        }
        if !by_host {
            size = counts.len();
            // Nothing to tell apart (no zones at all, or one): every node gets the same, so nobody need count.
            if size > 1 {
                for node in snapshot.nodes().iter().filter(|node| included(constraint, pod, node) && (defaults || has_all(node, constraints.iter().copied()))) {
                    if let Some(slot) = counts.get_mut(node.label(&constraint.topology_key).unwrap_or_default()) {
                        *slot += count(constraint, pod, node);
                    }
                }
            }
        }
        // Many domains weigh more: each of them holds fewer pods.
        let weight = ((size + 2) as f64).ln();
        for ((node, raw), _) in candidates.iter().zip(&mut raw).zip(&ignored).filter(|(_, ignored)| !**ignored) {
            let Some(value) = node.label(&constraint.topology_key) else { continue };
            let there = if by_host { count(constraint, pod, node) } else { counts.get(value).copied().unwrap_or(0) };
            *raw += there as f64 * weight + (constraint.max_skew - 1) as f64;
        }
    }
    let raw: Vec<i64> = raw.into_iter().map(|value| value.round() as i64).collect();
    let counted = || raw.iter().zip(&ignored).filter(|(_, ignored)| !**ignored).map(|(value, _)| *value);
    let (low, high) = (counted().min().unwrap_or(0), counted().max().unwrap_or(0));
    let score = |(value, ignored): (&i64, &bool)| match (ignored, high) {
        (true, _) => 0,
        (_, 0) => crate::score::MAX,
        _ => crate::score::MAX * (high + low - value) / high,
    };
    Some(raw.iter().zip(&ignored).map(score).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;
    use crate::decide::{Placement, place};
    use crate::testing::{node, on, pod, snapshot};

    fn constrained(constraint: Value, spec: Value) -> PodInfo {
        let mut constraint = constraint;
        for (key, value) in [("maxSkew", json!(1)), ("topologyKey", json!("zone")), ("whenUnsatisfiable", json!("DoNotSchedule")), ("labelSelector", json!({"matchLabels": {"app": "web"}}))] {
            let map = constraint.as_object_mut().unwrap();
            map.entry(key).or_insert(value);
        }
        let mut spec = spec;
        spec["topologySpreadConstraints"] = json!([constraint]);
        pod("new", "100m", spec)
    }

    /// Three nodes in two zones; the one of zone b may be kept for others.
    fn zones() -> Snapshot {
        let zone = |name: &str, zone: &str, extra: Value| node(name, "8", json!({"metadata": {"labels": {"zone": zone, "disk": name}}, "spec": extra}));
        snapshot(&[zone("a1", "a", json!({})), zone("a2", "a", json!({})), zone("b1", "b", json!({"taints": [{"key": "k", "effect": "NoSchedule"}]}))])
    }

    #[test]
    fn the_least_full_domain_counts_by_the_policies() {
        let tolerant = json!({"tolerations": [{"operator": "Exists"}]});
        // What the constraint and the pod say, pods in zones a and b, and whether a node of zone a will do.
        let cases = [
            (json!({}), tolerant.clone(), (1, 1), true),
            (json!({}), tolerant.clone(), (1, 0), false),
            (json!({"maxSkew": 2}), tolerant.clone(), (1, 0), true),
            // Nobody can go to b, but it counts unless taints are honored.
            (json!({}), json!({}), (1, 0), false),
            (json!({"nodeTaintsPolicy": "Honor"}), json!({}), (1, 0), true),
            // Nodes that the pod does not select do not count, unless it says so.
            (json!({}), json!({"nodeSelector": {"zone": "a"}}), (1, 0), true),
            (json!({"nodeAffinityPolicy": "Ignore"}), json!({"nodeSelector": {"zone": "a"}}), (1, 0), false),
            // Too few domains: the smallest counts as empty.
            (json!({"minDomains": 3}), tolerant.clone(), (1, 1), false),
            (json!({"minDomains": 2}), tolerant.clone(), (1, 1), true),
            // An empty selector counts nobody, as upstream.
            (json!({"labelSelector": {}}), tolerant, (5, 0), true),
        ];
        for (index, (constraint, spec, (in_a, in_b), want)) in cases.into_iter().enumerate() {
            let mut zones = zones();
            (0..in_a).for_each(|number| on(&mut zones, "a1", pod(&format!("a{number}"), "100m", json!({}))));
            (0..in_b).for_each(|number| on(&mut zones, "b1", pod(&format!("b{number}"), "100m", json!({}))));
            let new = constrained(constraint, spec);
            let spread = Spread::of(&new, &zones);
            assert_eq!(spread.filter(zones.node("a2").unwrap()).is_ok(), want, "case {index}");
        }
    }

    #[test]
    fn who_leaves_and_who_is_of_another_revision_does_not_count() {
        let mut zones = zones();
        on(&mut zones, "a1", PodInfo { deleting: true, ..pod("leaving", "100m", json!({})) });
        let tolerant = json!({"tolerations": [{"operator": "Exists"}]});
        let new = constrained(json!({}), tolerant.clone());
        assert!(Spread::of(&new, &zones).filter(zones.node("a1").unwrap()).is_ok());
        on(&mut zones, "a1", pod("old", "100m", json!({})));
        let revised = |value: Value| {
            let spec = json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}, "matchLabelKeys": ["rev"]}]});
            let pod = json!({"metadata": {"name": "new", "namespace": "default", "uid": "new", "labels": value}, "spec": spec});
            PodInfo::of(&serde_json::from_value(json!({"metadata": pod["metadata"], "spec": {"containers": [], "topologySpreadConstraints": spec["topologySpreadConstraints"]}})).unwrap())
        };
        let (with, without) = (revised(json!({"app": "web", "rev": "2"})), revised(json!({"app": "web"})));
        assert!(Spread::of(&with, &zones).filter(zones.node("a2").unwrap()).is_ok());
        assert!(Spread::of(&without, &zones).filter(zones.node("a2").unwrap()).is_err());
        // A node without the label is out for good.
        let bare = snapshot(&[node("n", "1", json!({}))]);
        let reason = Spread::of(&new, &bare).filter(&bare.nodes()[0]).unwrap_err();
        assert_eq!((&*reason.text, reason.resolvable), ("node(s) didn't match pod topology spread constraints (missing required label)", false));
    }

    #[test]
    fn what_should_hold_decides_among_equals() {
        let mut zones = zones();
        on(&mut zones, "a1", pod("a", "100m", json!({})));
        let soft = constrained(json!({"whenUnsatisfiable": "ScheduleAnyway"}), json!({"tolerations": [{"operator": "Exists"}]}));
        assert_eq!(place(&mut zones, &soft), Placement::Node("b1".into()));
        let scores = scores(&soft, &zones.nodes().iter().collect::<Vec<_>>(), &zones).unwrap();
        assert!(scores[2] == 100 && scores[0] == scores[1] && scores[0] < 100, "{scores:?}");
        // Pods of one owner spread over nodes first, and over zones where there are some.
        let mut owned = pod("new", "100m", json!({}));
        owned.labels = BTreeMap::new();
        owned.owner_uid = "rs".to_owned();
        owned.default_constraints = Constraint::defaults("rs");
        on(&mut zones, "a1", PodInfo { uid: "sibling".into(), ..owned.clone() });
        assert_eq!(place(&mut zones, &owned), Placement::Node("a2".into()));
    }
}
