//! Filters: whether a pod can run on a node at all, and the words when it cannot.
//!
//! Texts are kube-scheduler's; users and tools read them in FailedScheduling events.

use std::borrow::Cow;

use api::k8s::api::core::v1::{Taint, Toleration};

use crate::node::NodeInfo;
use crate::pod::PodInfo;

/// Who refuses a node. What happens in the cluster concerns only pods that were refused by those it can change the mind of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Plugin {
    Unschedulable,
    Name,
    Taints,
    NodeAffinity,
    Ports,
    Resources,
    Volumes,
    Spread,
    PodAffinity,
}

impl Plugin {
    pub const ALL: [Self; 9] = [Self::Unschedulable, Self::Name, Self::Taints, Self::NodeAffinity, Self::Ports, Self::Resources, Self::Volumes, Self::Spread, Self::PodAffinity];

    /// As upstream calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unschedulable => "NodeUnschedulable",
            Self::Name => "NodeName",
            Self::Taints => "TaintToleration",
            Self::NodeAffinity => "NodeAffinity",
            Self::Ports => "NodePorts",
            Self::Resources => "NodeResourcesFit",
            Self::Volumes => "VolumeBinding",
            Self::Spread => "PodTopologySpread",
            Self::PodAffinity => "InterPodAffinity",
        }
    }
}

/// Why a node is out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reason {
    pub text: Cow<'static, str>,
    pub plugin: Plugin,
    /// Removing other pods from the node could help.
    pub resolvable: bool,
}

impl Reason {
    pub(crate) fn ever(plugin: Plugin, text: impl Into<Cow<'static, str>>) -> Self {
        Self { text: text.into(), plugin, resolvable: false }
    }

    pub(crate) fn until_others_leave(plugin: Plugin, text: impl Into<Cow<'static, str>>) -> Self {
        Self { text: text.into(), plugin, resolvable: true }
    }
}

/// Whether `toleration` covers `taint` (https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/).
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or("");
    let key = toleration.key.as_deref().unwrap_or("");
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        "Equal" | "" => toleration.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or(""),
        _ => false,
    }
}

fn tolerated(pod: &PodInfo, taint: &Taint) -> bool {
    pod.tolerations.iter().any(|toleration| tolerates(toleration, taint))
}

/// Whether a taint of the node keeps the pod away.
pub(crate) fn untolerated(pod: &PodInfo, node: &NodeInfo) -> bool {
    node.taints.iter().any(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute") && !tolerated(pod, taint))
}

const UNSCHEDULABLE_TAINT: &str = "node.kubernetes.io/unschedulable";

/// Filters that look at the one node only, in upstream's order. The first plugin that refuses speaks; resources may give several reasons.
pub fn node(pod: &PodInfo, node: &NodeInfo) -> Result<(), Vec<Reason>> {
    if node.unschedulable {
        let taint = Taint { key: UNSCHEDULABLE_TAINT.into(), effect: "NoSchedule".into(), ..Taint::default() };
        if !tolerated(pod, &taint) {
            return Err(vec![Reason::ever(Plugin::Unschedulable, "node(s) were unschedulable")]);
        }
    }
    if !pod.node_name.is_empty() && *pod.node_name != *node.name {
        return Err(vec![Reason::ever(Plugin::Name, "node(s) didn't match the requested node name")]);
    }
    if untolerated(pod, node) {
        return Err(vec![Reason::ever(Plugin::Taints, "node(s) had untolerated taint(s)")]);
    }
    if !pod.selects(node) {
        return Err(vec![Reason::ever(Plugin::NodeAffinity, "node(s) didn't match Pod's node affinity/selector")]);
    }
    if !pod.host_ports.is_empty() && node.pods.values().any(|other| other.host_ports.iter().any(|taken| pod.host_ports.iter().any(|wanted| wanted.conflicts(taken)))) {
        return Err(vec![Reason::until_others_leave(Plugin::Ports, "node(s) didn't have free ports for the requested pod ports")]);
    }
    let short = insufficient(pod, node);
    if short.is_empty() { Ok(()) } else { Err(short) }
}

fn insufficient(pod: &PodInfo, node: &NodeInfo) -> Vec<Reason> {
    let mut reasons = Vec::new();
    // Where even an empty node is too small, nobody's leaving helps.
    let mut check = |name: &str, wanted: i64, have: i64, used: i64| {
        if wanted > 0 && wanted > have - used {
            reasons.push(Reason { text: format!("Insufficient {name}").into(), plugin: Plugin::Resources, resolvable: wanted <= have });
        }
    };
    check("cpu", pod.request.cpu_milli, node.allocatable.cpu_milli, node.requested.cpu_milli);
    check("memory", pod.request.memory_bytes, node.allocatable.memory_bytes, node.requested.memory_bytes);
    check("ephemeral-storage", pod.request.ephemeral_bytes, node.allocatable.ephemeral_bytes, node.requested.ephemeral_bytes);
    for (name, wanted) in &pod.request.others {
        check(name, *wanted, node.allocatable.others.get(name).copied().unwrap_or(0), node.requested.others.get(name).copied().unwrap_or(0));
    }
    if node.pods.len() as i64 + 1 > node.allocatable.pods {
        reasons.insert(0, Reason::until_others_leave(Plugin::Resources, "Too many pods"));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerations() {
        let taint = Taint { key: "k".into(), value: Some("v".into()), effect: "NoSchedule".into(), ..Taint::default() };
        let toleration = |key: &str, operator: &str, value: &str, effect: &str| Toleration { key: Some(key.into()), operator: Some(operator.into()), value: Some(value.into()), effect: Some(effect.into()), ..Toleration::default() };
        let cases = [
            (toleration("k", "Equal", "v", "NoSchedule"), true),
            (toleration("k", "", "v", ""), true),
            (toleration("k", "Exists", "", "NoSchedule"), true),
            (toleration("", "Exists", "", ""), true),
            (toleration("k", "Equal", "w", "NoSchedule"), false),
            (toleration("k", "Exists", "", "NoExecute"), false),
            (toleration("j", "Exists", "", "NoSchedule"), false),
        ];
        for (toleration, want) in cases {
            assert_eq!(tolerates(&toleration, &taint), want, "{toleration:?}");
        }
    }
}
