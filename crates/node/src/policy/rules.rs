//! A NetworkPolicy as what it means: whom it isolates, and which peers it lets through by which ports. Pure.
//!
//! Semantics: <https://kubernetes.io/docs/concepts/services-networking/network-policies/>. The API server validates policies; what is not
//! understood all the same lets nobody through.

use std::cmp::Ordering;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ::network::{IpNet, Protocol};
use api::k8s::api::networking::v1::{IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use api::k8s::apimachinery::pkg::apis::meta::v1 as meta;
use api::k8s::apimachinery::pkg::util::intstr::IntOrString;
use api::selector::LabelSelector;

/// A label selector; the same text is the same selector.
#[derive(Debug, Clone)]
pub struct Selector {
    text: Arc<str>,
    selector: LabelSelector,
}

impl Selector {
    /// None when it is malformed.
    fn new(selector: &meta::LabelSelector) -> Option<Self> {
        let selector = LabelSelector::from_json(&serde_json::to_value(selector).ok()?).ok()?;
        Some(Self { text: selector.to_string().into(), selector })
    }

    fn everything() -> Self {
        Self { text: "".into(), selector: LabelSelector::everything() }
    }

    pub fn matches(&self, labels: &super::Labels) -> bool {
        self.selector.matches(labels)
    }
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Selector {}

impl PartialOrd for Selector {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Selector {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

/// Where pods are looked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    Namespace(Arc<str>),
    Namespaces(Selector),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    Pods { scope: Scope, pods: Selector },
    /// All blocks of a rule, their exceptions taken out; sorted, none touches another.
    Blocks(Vec<(IpAddr, IpAddr)>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Port {
    All(Protocol),
    Range(Protocol, u16, u16),
    Named(Protocol, Arc<str>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// `None` is everybody.
    pub peers: Option<Vec<Peer>>,
    /// `None` is every port and protocol.
    pub ports: Option<Vec<Port>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub pods: Selector,
    /// `None`: it says nothing about this direction.
    pub ingress: Option<Vec<Rule>>,
    pub egress: Option<Vec<Rule>>,
}

impl Policy {
    /// None when it is malformed.
    pub fn new(policy: &NetworkPolicy) -> Option<Self> {
        let spec = policy.spec.as_ref()?;
        let namespace: Arc<str> = policy.metadata.namespace.as_deref().unwrap_or_default().into();
        let pods = spec.pod_selector.as_ref().map_or_else(|| Some(Selector::everything()), Selector::new)?;
        let types = spec.policy_types.as_deref().unwrap_or_default();
        // As the API server defaults it.
        let has = |name: &str, default: bool| if types.is_empty() { default } else { types.iter().any(|t| t == name) };
        let ingress = spec.ingress.iter().flatten().map(|r| rule(&namespace, r.from.as_deref(), r.ports.as_deref())).collect();
        let egress: Vec<Rule> = spec.egress.iter().flatten().map(|r| rule(&namespace, r.to.as_deref(), r.ports.as_deref())).collect();
        Some(Self { pods, ingress: has("Ingress", true).then_some(ingress), egress: has("Egress", !egress.is_empty()).then_some(egress) })
    }
}

fn rule(namespace: &Arc<str>, peers: Option<&[NetworkPolicyPeer]>, ports: Option<&[NetworkPolicyPort]>) -> Rule {
    let peers = peers.filter(|peers| !peers.is_empty()).map(|peers| {
        let mut wanted: Vec<Peer> = peers.iter().filter_map(|peer| pods_peer(namespace, peer)).collect();
        let blocks = ranges(peers.iter().filter_map(|peer| peer.ip_block.as_ref()));
        if !blocks.is_empty() {
            wanted.push(Peer::Blocks(blocks));
        }
        wanted
    });
    Rule { peers, ports: ports.filter(|ports| !ports.is_empty()).map(|ports| ports.iter().filter_map(port).collect()) }
}

fn pods_peer(namespace: &Arc<str>, peer: &NetworkPolicyPeer) -> Option<Peer> {
    if peer.ip_block.is_some() || (peer.pod_selector.is_none() && peer.namespace_selector.is_none()) {
        return None;
    }
    let scope = match &peer.namespace_selector {
        Some(selector) => Scope::Namespaces(Selector::new(selector)?),
        None => Scope::Namespace(namespace.clone()),
    };
    Some(Peer::Pods { scope, pods: peer.pod_selector.as_ref().map_or_else(|| Some(Selector::everything()), Selector::new)? })
}

pub fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("" | "TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}

fn port(port: &NetworkPolicyPort) -> Option<Port> {
    let protocol = protocol(port.protocol.as_deref())?;
    Some(match &port.port {
        None => Port::All(protocol),
        Some(IntOrString::String(name)) => Port::Named(protocol, name.as_str().into()),
        Some(IntOrString::Int(first)) => {
            let first = u16::try_from(*first).ok()?;
            Port::Range(protocol, first, port.end_port.map_or(Some(first), |last| u16::try_from(last).ok())?)
        }
    })
}

/// The family first, so that ranges of both can be sorted together.
type Bound = (bool, u128);

fn bound(address: IpAddr) -> Bound {
    match address {
        IpAddr::V4(a) => (false, a.to_bits().into()),
        IpAddr::V6(a) => (true, a.to_bits()),
    }
}

fn address((v6, bits): Bound) -> IpAddr {
    if v6 { Ipv6Addr::from_bits(bits).into() } else { Ipv4Addr::from_bits(bits as u32).into() }
}

fn range(cidr: &str) -> Option<(Bound, Bound)> {
    let net: IpNet = cidr.parse().ok()?;
    let (v6, first) = bound(net.address());
    let host_bits = u32::from(if v6 { 128 } else { 32 } - net.prefix());
    let hosts = if host_bits == 0 { 0 } else { u128::MAX >> (128 - host_bits) };
    Some(((v6, first), (v6, first | hosts)))
}

/// What the blocks cover together.
fn ranges<'a>(blocks: impl Iterator<Item = &'a IPBlock>) -> Vec<(IpAddr, IpAddr)> {
    let mut all: Vec<(Bound, Bound)> = Vec::new();
    for block in blocks {
        let Some((mut first, last)) = range(&block.cidr) else { continue };
        let excepts: Option<Vec<_>> = block.except.iter().flatten().map(|text| range(text)).collect();
        // An exception that is not understood excepts everything.
        let Some(mut excepts) = excepts else { continue };
        excepts.sort_unstable();
        let mut open = true;
        for (start, end) in excepts {
            // Inside another exception, or (the API server refuses that) outside of the block.
            if start < first || start > last {
                continue;
            }
            if start > first {
                all.push((first, (start.0, start.1 - 1)));
            }
            if end >= last {
                open = false;
                break;
            }
            first = first.max((end.0, end.1 + 1));
        }
        if open {
            all.push((first, last));
        }
    }
    all.sort_unstable();
    let mut merged: Vec<(Bound, Bound)> = Vec::new();
    for (first, last) in all {
        match merged.last_mut() {
            Some((_, end)) if end.0 == first.0 && first.1 <= end.1.saturating_add(1) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged.into_iter().map(|(first, last)| (address(first), address(last))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn blocks_without_their_exceptions() {
        let of = |blocks: serde_json::Value| {
            let blocks: Vec<IPBlock> = serde_json::from_value(blocks).expect("blocks");
            ranges(blocks.iter()).iter().map(|(a, b)| format!("{a}-{b}")).collect::<Vec<_>>().join(" ")
        };
        for (blocks, expected) in [
            (json!([{"cidr": "10.0.0.0/24"}]), "10.0.0.0-10.0.0.255"),
            (json!([{"cidr": "10.0.0.0/24", "except": ["10.0.0.0/25"]}]), "10.0.0.128-10.0.0.255"),
            (json!([{"cidr": "10.0.0.0/24", "except": ["10.0.0.128/25"]}]), "10.0.0.0-10.0.0.127"),
            (json!([{"cidr": "10.0.0.0/24", "except": ["10.0.0.9/32", "10.0.0.7/32", "10.0.0.8/32"]}]), "10.0.0.0-10.0.0.6 10.0.0.10-10.0.0.255"),
            (json!([{"cidr": "10.0.0.0/24", "except": ["10.0.0.64/26", "10.0.0.65/32"]}]), "10.0.0.0-10.0.0.63 10.0.0.128-10.0.0.255"),
            (json!([{"cidr": "10.0.0.0/25"}, {"cidr": "10.0.0.128/25"}]), "10.0.0.0-10.0.0.255"),
            (json!([{"cidr": "10.0.0.0/24", "except": ["10.0.0.1/32"]}, {"cidr": "10.0.0.1/32"}]), "10.0.0.0-10.0.0.255"),
            (json!([{"cidr": "0.0.0.0/0"}, {"cidr": "::/0", "except": ["fe80::/10"]}]), "0.0.0.0-255.255.255.255 ::-fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff fec0::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            (json!([{"cidr": "nonsense"}, {"cidr": "10.0.0.0/24", "except": ["nonsense"]}]), ""),
        ] {
            assert_eq!(of(blocks.clone()), expected, "{blocks}");
        }
    }

    #[test]
    fn directions_a_policy_speaks_of() {
        for (spec, expected) in [
            (json!({"podSelector": {}}), (Some(0), None)),
            (json!({"podSelector": {}, "egress": [{}]}), (Some(0), Some(1))),
            (json!({"podSelector": {}, "policyTypes": ["Egress"]}), (None, Some(0))),
            (json!({"podSelector": {}, "policyTypes": ["Ingress"], "egress": [{}]}), (Some(0), None)),
            (json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [{}, {}]}), (Some(2), Some(0))),
        ] {
            let policy: NetworkPolicy = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "x"}, "spec": spec})).expect("policy");
            let policy = Policy::new(&policy).expect("understood");
            assert_eq!((policy.ingress.map(|r| r.len()), policy.egress.map(|r| r.len())), expected, "{spec}");
        }
    }
}
