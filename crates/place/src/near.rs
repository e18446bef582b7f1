//! Inter-pod affinity: where the pods are that a pod wants near or far, and those that want it near or far. Counted once a pod, asked once a node.
//!
//! Mirrors kube-scheduler's InterPodAffinity; a required affinity counts the pods that match all of its terms.

use std::collections::{BTreeMap, HashMap};

use crate::affinity::PodTerm;
use crate::filter::{Plugin, Reason};
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

/// What a required affinity of a pod already placed counts for the score (`HardPodAffinityWeight`).
const REQUIRED_WEIGHT: i64 = 1;

/// Pods by the value of a term's topology.
type Places<'a> = HashMap<&'a str, i64>;

/// What the pods already placed mean for the terms of one pod that must hold.
#[derive(Clone)]
pub struct Neighbours<'a> {
    pod: &'a PodInfo,
    namespaces: &'a BTreeMap<String, BTreeMap<String, String>>,
    /// One for each term.
    near: Vec<Places<'a>>,
    far: Vec<Places<'a>>,
    /// By topology key and value: pods there that keep this one away.
    repelled: HashMap<(&'a str, &'a str), i64>,
}

impl<'a> Neighbours<'a> {
    pub fn of(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Self {
        let mut neighbours =
            Self { pod, namespaces: &snapshot.namespaces, near: vec![Places::new(); pod.affinity.len()], far: vec![Places::new(); pod.anti_affinity.len()], repelled: HashMap::new() };
        let own = !pod.affinity.is_empty() || !pod.anti_affinity.is_empty();
        // Most clusters have no such pods, and then nobody looks.
        if own || snapshot.repelling() > 0 {
            for node in snapshot.nodes().iter().filter(|node| own || node.with_anti_affinity > 0) {
                for other in node.pods.values() {
                    neighbours.shift(other, node, 1);
                }
            }
        }
        neighbours
    }

    /// As if `other` came to `node` (`by` = 1) or left it (-1).
    pub fn shift(&mut self, other: &'a PodInfo, node: &'a NodeInfo, by: i64) {
        let (pod, namespaces) = (self.pod, self.namespaces);
        for term in other.anti_affinity.iter().filter(|term| term.matches(pod, namespaces)) {
            if let Some(value) = node.label(&term.topology_key) {
                *self.repelled.entry((&term.topology_key, value)).or_default() += by;
            }
        }
        if !pod.affinity.is_empty() && pod.affinity.iter().all(|term| term.matches(other, namespaces)) {
            for (term, places) in pod.affinity.iter().zip(&mut self.near) {
                if let Some(value) = node.label(&term.topology_key) {
                    *places.entry(value).or_default() += by;
                }
            }
        }
        for (term, places) in pod.anti_affinity.iter().zip(&mut self.far).filter(|(term, _)| term.matches(other, namespaces)) {
            if let Some(value) = node.label(&term.topology_key) {
                *places.entry(value).or_default() += by;
            }
        }
    }

    pub fn filter(&self, node: &NodeInfo) -> Result<(), Reason> {
        let there = |term: &PodTerm, places: &Places<'_>| node.label(&term.topology_key).is_some_and(|value| places.get(value).is_some_and(|count| *count > 0));
        if !self.has_company(node, there) {
            return Err(Reason::ever(Plugin::PodAffinity, "node(s) didn't match pod affinity rules"));
        }
        if self.pod.anti_affinity.iter().zip(&self.far).any(|(term, places)| there(term, places)) {
            return Err(Reason::until_others_leave(Plugin::PodAffinity, "node(s) didn't match pod anti-affinity rules"));
        }
        if self.repelled.iter().any(|((key, value), count)| *count > 0 && node.label(key) == Some(value)) {
            return Err(Reason::until_others_leave(Plugin::PodAffinity, "node(s) didn't satisfy existing pods anti-affinity rules"));
        }
        Ok(())
    }

    fn has_company(&self, node: &NodeInfo, there: impl Fn(&PodTerm, &Places<'_>) -> bool) -> bool {
        let terms = &self.pod.affinity;
        if terms.iter().any(|term| node.label(&term.topology_key).is_none()) {
            return false;
        }
        if terms.iter().zip(&self.near).all(|(term, places)| there(term, places)) {
            return true;
        }
        // The first of a group may found it: nobody is anywhere yet, and it matches itself.
        self.near.iter().all(|places| places.values().all(|count| *count <= 0)) && terms.iter().all(|term| term.matches(self.pod, self.namespaces))
    }
}

/// The sum of the weights for each candidate, of the preferences of the pod and of those already placed about it. `None` when nobody has any.
pub fn preferences(pod: &PodInfo, candidates: &[&NodeInfo], snapshot: &Snapshot) -> Option<Vec<i64>> {
    let own = !pod.preferred_affinity.is_empty() || !pod.preferred_anti_affinity.is_empty();
    if !own && snapshot.attached() == 0 {
        return None;
    }
    let namespaces = &snapshot.namespaces;
    let mut weights: HashMap<(&str, &str), i64> = HashMap::new();
    for node in snapshot.nodes().iter().filter(|node| own || node.with_affinity > 0) {
        let mut add = |term: &'_ PodTerm, weight: i64| {
            if let Some((key, value)) = node.labels.get_key_value(&term.topology_key) {
                *weights.entry((key, value)).or_default() += weight;
            }
        };
        for other in node.pods.values() {
            for (sign, mine, theirs) in [(1, &pod.preferred_affinity, &other.preferred_affinity), (-1, &pod.preferred_anti_affinity, &other.preferred_anti_affinity)] {
                mine.iter().filter(|each| each.term.matches(other, namespaces)).for_each(|each| add(&each.term, sign * each.weight));
                theirs.iter().filter(|each| each.term.matches(pod, namespaces)).for_each(|each| add(&each.term, sign * each.weight));
            }
            other.affinity.iter().filter(|term| term.matches(pod, namespaces)).for_each(|term| add(term, REQUIRED_WEIGHT));
        }
    }
    if weights.is_empty() {
        return None;
    }
    Some(candidates.iter().map(|node| weights.iter().filter(|((key, value), _)| node.label(key) == Some(value)).map(|(_, weight)| weight).sum()).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{node, on, pod, snapshot};

    fn term(app: &str, key: &str) -> Value {
        json!({"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key})
    }

    fn required(kind: &str, terms: Value) -> PodInfo {
        pod("new", "100m", json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}))
    }

    fn labelled(name: &str, app: &str) -> PodInfo {
        PodInfo { labels: BTreeMap::from([("app".to_owned(), app.to_owned())]), ..pod(name, "100m", json!({})) }
    }

    fn zones() -> Snapshot {
        let zone = |name: &str, zone: &str| node(name, "8", json!({"metadata": {"labels": {"zone": zone}}}));
        snapshot(&[zone("a1", "a"), zone("a2", "a"), zone("b1", "b")])
    }

    fn fitting(pod: &PodInfo, snapshot: &Snapshot) -> Vec<String> {
        let neighbours = Neighbours::of(pod, snapshot);
        snapshot.nodes().iter().filter(|node| neighbours.filter(node).is_ok()).map(|node| node.name.to_string()).collect()
    }

    #[test]
    fn all_terms_must_hold_for_one_pod() {
        let mut zones = zones();
        // Nobody is there, and it matches itself: it may be the first, anywhere that has the label.
        assert_eq!(fitting(&required("podAffinity", json!([term("web", "zone")])), &zones), ["a1", "a2", "b1"]);
        assert!(fitting(&required("podAffinity", json!([term("db", "zone")])), &zones).is_empty());
        assert!(fitting(&required("podAffinity", json!([term("web", "rack")])), &zones).is_empty());
        on(&mut zones, "a1", labelled("web-1", "web"));
        assert_eq!(fitting(&required("podAffinity", json!([term("web", "zone")])), &zones), ["a1", "a2"]);
        assert_eq!(fitting(&required("podAffinity", json!([term("web", "zone"), term("web", "kubernetes.io/hostname")])), &zones), ["a1"]);
        // A pod of each term is near, but none that both select.
        on(&mut zones, "a1", labelled("db-1", "db"));
        assert!(fitting(&required("podAffinity", json!([term("web", "zone"), term("db", "zone")])), &zones).is_empty());
    }

    #[test]
    fn both_sides_keep_away() {
        let mut zones = zones();
        on(&mut zones, "a1", labelled("db-1", "db"));
        assert_eq!(fitting(&required("podAntiAffinity", json!([term("db", "zone")])), &zones), ["b1"]);
        on(&mut zones, "b1", PodInfo { labels: BTreeMap::new(), ..required("podAntiAffinity", json!([term("web", "kubernetes.io/hostname")])) });
        assert_eq!(fitting(&labelled("x", "web"), &zones), ["a1", "a2"]);
        assert_eq!(fitting(&labelled("x", "db"), &zones), ["a1", "a2", "b1"]);
        zones.remove_pod("new");
        assert_eq!(zones.repelling(), 0);
        // Only of this revision: `matchLabelKeys` and their opposite.
        let mut other = term("web", "zone");
        other["mismatchLabelKeys"] = json!(["app"]);
        on(&mut zones, "a1", labelled("web-1", "web"));
        assert_eq!(fitting(&required("podAntiAffinity", json!([other])), &zones), ["a1", "a2", "b1"]);
    }

    #[test]
    fn preferences_add_up_on_both_sides() {
        let mut zones = zones();
        let prefer = |kind: &str, weight: i64, app: &str| pod("new", "100m", json!({"affinity": {kind: {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": weight, "podAffinityTerm": term(app, "zone")}]}}}));
        let all = |pod: &PodInfo, zones: &Snapshot| preferences(pod, &zones.nodes().iter().collect::<Vec<_>>(), zones);
        assert_eq!(all(&labelled("x", "web"), &zones), None);
        on(&mut zones, "a1", labelled("db-1", "db"));
        on(&mut zones, "a2", labelled("db-2", "db"));
        assert_eq!(all(&prefer("podAffinity", 10, "db"), &zones), Some(vec![20, 20, 0]));
        assert_eq!(all(&prefer("podAntiAffinity", 10, "db"), &zones), Some(vec![-20, -20, 0]));
        on(&mut zones, "b1", PodInfo { uid: "theirs".into(), labels: BTreeMap::new(), ..prefer("podAffinity", 7, "web") });
        on(&mut zones, "b1", PodInfo { uid: "must".into(), labels: BTreeMap::new(), ..required("podAffinity", json!([term("web", "zone")])) });
        assert_eq!(all(&labelled("x", "web"), &zones), Some(vec![0, 0, 7 + REQUIRED_WEIGHT]));
    }
}
