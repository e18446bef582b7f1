//! Terms of node affinity and of pod affinity.

use std::collections::{BTreeMap, BTreeSet};

use api::k8s::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm};
use api::k8s::apimachinery::pkg::apis::meta::v1::{LabelSelector as LabelSelectorType, LabelSelectorRequirement};
use api::selector::LabelSelector;

use crate::node::NodeInfo;
use crate::pod::PodInfo;

const NODE_NAME: &str = "metadata.name";

/// None, or one that cannot be read, selects nothing.
pub(crate) fn selector(selector: Option<&LabelSelectorType>) -> LabelSelector {
    let Some(selector) = selector else { return LabelSelector::nothing() };
    serde_json::to_value(selector).ok().and_then(|value| LabelSelector::from_json(&value).ok()).unwrap_or_else(LabelSelector::nothing)
}

#[derive(Debug, Clone)]
pub struct Weighted<T> {
    pub weight: i64,
    pub term: T,
}

/// Any of the terms must hold.
#[derive(Debug, Clone, Default)]
pub struct NodeTerms(Vec<Term>);

#[derive(Debug, Clone, Default)]
struct Term {
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
}

#[derive(Debug, Clone)]
struct Requirement {
    key: String,
    operator: String,
    values: Vec<String>,
}

impl Requirement {
    fn of(requirement: &NodeSelectorRequirement) -> Self {
        Self { key: requirement.key.clone(), operator: requirement.operator.clone(), values: requirement.values.clone().unwrap_or_default() }
    }

    fn holds(&self, value: Option<&str>) -> bool {
        let number = |text: &str| text.parse::<i64>().ok();
        match self.operator.as_str() {
            "In" => value.is_some_and(|value| self.values.iter().any(|wanted| wanted == value)),
            "NotIn" => value.is_none_or(|value| self.values.iter().all(|wanted| wanted != value)),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            "Gt" => value.and_then(number).zip(self.values.first().and_then(|text| number(text))).is_some_and(|(have, bound)| have > bound),
            "Lt" => value.and_then(number).zip(self.values.first().and_then(|text| number(text))).is_some_and(|(have, bound)| have < bound),
            _ => false,
        }
    }
}

impl NodeTerms {
    pub fn of(selector: &NodeSelector) -> Self {
        Self(selector.node_selector_terms.iter().map(term).collect())
    }

    pub fn single(each: &NodeSelectorTerm) -> Self {
        Self(vec![term(each)])
    }

    pub fn hold(&self, node: &NodeInfo) -> bool {
        // A term without requirements matches nothing.
        self.0.iter().filter(|term| !term.labels.is_empty() || !term.fields.is_empty()).any(|term| {
            term.labels.iter().all(|wanted| wanted.holds(node.label(&wanted.key))) && term.fields.iter().all(|wanted| wanted.holds((wanted.key == NODE_NAME).then_some(&*node.name)))
        })
    }

    /// The nodes that are asked for by name, when every term does: no other has to be looked at. Empty when the terms contradict one another.
    pub fn names(&self) -> Option<BTreeSet<String>> {
        if self.0.is_empty() {
            return None;
        }
        let mut all = BTreeSet::new();
        for term in &self.0 {
            let named = term.fields.iter().filter(|wanted| wanted.key == NODE_NAME && wanted.operator == "In").map(|wanted| wanted.values.iter().cloned().collect::<BTreeSet<_>>());
            all.extend(named.reduce(|all, each| all.intersection(&each).cloned().collect())?);
        }
        Some(all)
    }
}

fn term(each: &NodeSelectorTerm) -> Term {
    Term { labels: each.match_expressions.iter().flatten().map(Requirement::of).collect(), fields: each.match_fields.iter().flatten().map(Requirement::of).collect() }
}

/// Pods of some namespaces and labels, near or far within one topology.
#[derive(Debug, Clone, Default)]
pub struct PodTerm {
    pub topology_key: String,
    namespaces: Vec<String>,
    /// Every namespace, by an empty namespaceSelector. Selecting by a namespace's labels is the snapshot's business (`Snapshot::namespaces`).
    pub namespace_selector: Option<LabelSelector>,
    selector: LabelSelector,
}

impl PodTerm {
    pub fn of(each: &PodAffinityTerm, own_namespace: &str, labels: &BTreeMap<String, String>) -> Self {
        let mut namespaces = each.namespaces.clone().unwrap_or_default();
        let namespace_selector = each.namespace_selector.as_ref().map(|wanted| selector(Some(wanted)));
        if namespaces.is_empty() && namespace_selector.is_none() {
            namespaces.push(own_namespace.to_owned());
        }
        let mut wanted = each.label_selector.clone();
        if let Some(wanted) = &mut wanted {
            for key in each.match_label_keys.iter().flatten() {
                if let Some(value) = labels.get(key) {
                    wanted.match_labels.get_or_insert_default().insert(key.clone(), value.clone());
                }
            }
            for key in each.mismatch_label_keys.iter().flatten() {
                if let Some(value) = labels.get(key) {
                    let other = LabelSelectorRequirement { key: key.clone(), operator: "NotIn".to_owned(), values: Some(vec![value.clone()]) };
                    wanted.match_expressions.get_or_insert_default().push(other);
                }
            }
        }
        Self { topology_key: each.topology_key.clone(), namespaces, namespace_selector, selector: selector(wanted.as_ref()) }
    }

    pub fn matches(&self, pod: &PodInfo, namespaces: &BTreeMap<String, BTreeMap<String, String>>) -> bool {
        let named = self.namespaces.iter().any(|name| *name == pod.namespace);
        let selected = || {
            let empty = BTreeMap::new();
            self.namespace_selector.as_ref().is_some_and(|selector| selector.matches(namespaces.get(&pod.namespace).unwrap_or(&empty)))
        };
        (named || selected()) && self.selector.matches(&pod.labels)
    }
}
