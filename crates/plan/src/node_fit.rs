//! Whether a pod may be on a node by its own wish and the node's: node selector, required node affinity, taints. Mirrors `component-helpers/scheduling`.

use api::k8s::api::core::v1::{Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration};

use crate::meta::name;

/// Node selector and required node affinity.
pub fn wants(spec: &PodSpec, node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let selected = spec.node_selector.iter().flatten().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value));
    let required =
        spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref());
    selected && required.is_none_or(|required| required.node_selector_terms.iter().any(|term| matches(term, node)))
}

/// One of the terms of a volume's or a class's selector is the node's.
pub fn selects(selector: &NodeSelector, node: &Node) -> bool {
    selector.node_selector_terms.iter().any(|term| matches(term, node))
}

/// A term without requirements matches nothing.
fn matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let (expressions, fields) = (term.match_expressions.as_deref().unwrap_or(&[]), term.match_fields.as_deref().unwrap_or(&[]));
    !(expressions.is_empty() && fields.is_empty())
        && expressions
            .iter()
            .all(|requirement| holds(requirement, node.metadata.labels.as_ref().and_then(|labels| labels.get(&requirement.key)).map(String::as_str)))
        && fields.iter().all(|requirement| requirement.key == "metadata.name" && holds(requirement, Some(name(node))))
}

fn holds(requirement: &NodeSelectorRequirement, have: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or(&[]);
    let listed = |have: &str| values.iter().any(|value| value == have);
    let compare = || Some((have?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
    match requirement.operator.as_str() {
        "In" => have.is_some_and(listed),
        "NotIn" => !have.is_some_and(listed),
        "Exists" => have.is_some(),
        "DoesNotExist" => have.is_none(),
        "Gt" => compare().is_some_and(|(have, limit)| have > limit),
        "Lt" => compare().is_some_and(|(have, limit)| have < limit),
        _ => false,
    }
}

pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let empty = |text: &Option<String>| text.as_deref().is_none_or(str::is_empty);
    (empty(&toleration.effect) || toleration.effect.as_deref() == Some(&taint.effect))
        && (empty(&toleration.key) || toleration.key.as_deref() == Some(&taint.key))
        && match toleration.operator.as_deref().unwrap_or("") {
            "" | "Equal" => toleration.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or(""),
            "Exists" => true,
            _ => false,
        }
}

/// The first taint of these effects that no toleration answers.
pub fn untolerated<'a>(tolerations: &[Toleration], taints: &'a [Taint], effects: &[&str]) -> Option<&'a Taint> {
    taints
        .iter()
        .filter(|taint| effects.contains(&taint.effect.as_str()))
        .find(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

pub fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or(&[])
}
