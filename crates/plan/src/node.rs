//! Nodes: are they alive, what taints say so, which pods leave them, and the address ranges of their pods.

pub mod eviction;
pub mod ipam;
pub mod lifecycle;
pub mod pod_gc;

use api::k8s::api::core::v1::{Node, NodeCondition};

pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

pub fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

/// `True`, `False` or `Unknown`.
pub fn state<'a>(node: &'a Node, kind: &str) -> &'a str {
    condition(node, kind).map_or("Unknown", |condition| condition.status.as_str())
}

pub fn is_ready(node: &Node) -> bool {
    state(node, "Ready") == "True"
}
