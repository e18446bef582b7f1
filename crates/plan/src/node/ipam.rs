//! Node IPAM: every node gets a range for its pods from each of the cluster's ranges.
//!
//! Watches: nodes. Writes: `spec.podCIDR` and `spec.podCIDRs` of nodes that have none. Never: changes one that is set.
//! Mirrors `pkg/controller/nodeipam` (range allocator).

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use api::k8s::api::core::v1::Node;
use serde_json::json;

use crate::meta::{deleting, name, reference};
use crate::op::{Op, Plan};

/// The size of a node's range, in bits of its mask.
pub const NODE_MASK_V4: u8 = 24;
pub const NODE_MASK_V6: u8 = 64;

/// A range of addresses, as `10.244.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    first: u128,
    bits: u8,
    v6: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a CIDR: {0:?}")]
pub struct BadCidr(String);

impl std::str::FromStr for Cidr {
    type Err = BadCidr;

    fn from_str(text: &str) -> Result<Self, BadCidr> {
        let bad = || BadCidr(text.to_owned());
        let (address, bits) = text.split_once('/').ok_or_else(bad)?;
        let bits: u8 = bits.parse().map_err(|_| bad())?;
        let (first, v6) = match address.parse().map_err(|_| bad())? {
            IpAddr::V4(address) => (u128::from(u32::from(address)), false),
            IpAddr::V6(address) => (u128::from(address), true),
        };
        let cidr = Self { first, bits, v6 };
        if bits > cidr.width() {
            return Err(bad());
        }
        Ok(Self { first: first & !cidr.rest(), ..cidr })
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.v6 {
            write!(f, "{}/{}", Ipv6Addr::from(self.first), self.bits)
        } else {
            write!(f, "{}/{}", Ipv4Addr::from(u32::try_from(self.first).unwrap_or(0)), self.bits)
        }
    }
}

impl Cidr {
    fn width(self) -> u8 {
        if self.v6 { 128 } else { 32 }
    }

    /// The bits that vary within it.
    fn rest(self) -> u128 {
        1u128.checked_shl(u32::from(self.width() - self.bits)).map_or(u128::MAX, |size| size - 1)
    }

    pub fn is_v6(self) -> bool {
        self.v6
    }

    /// Whether the whole of `other` lies in it.
    pub fn contains(self, other: Self) -> bool {
        self.v6 == other.v6 && self.bits <= other.bits && self.first == other.first & !self.rest()
    }

    /// Whether a Service can have the address from this range: inside, and neither the network's own nor its broadcast address.
    pub fn offers(self, address: IpAddr) -> bool {
        let (number, v6) = match address {
            IpAddr::V4(address) => (u128::from(u32::from(address)), false),
            IpAddr::V6(address) => (u128::from(address), true),
        };
        let offset = number & self.rest();
        self.v6 == v6 && self.first == number & !self.rest() && offset != 0 && (v6 || offset != self.rest())
    }

    pub fn overlaps(self, other: Self) -> bool {
        let rest = self.rest() | other.rest();
        self.v6 == other.v6 && self.first & !rest == other.first & !rest
    }

    /// The range number `index` of those with `bits`; none beyond the end.
    fn part(self, bits: u8, index: u128) -> Option<Self> {
        let bits = bits.max(self.bits);
        let size = 1u128.checked_shl(u32::from(self.width() - bits))?;
        let offset = index.checked_mul(size).filter(|offset| *offset <= self.rest())?;
        Some(Self { first: self.first + offset, bits, v6: self.v6 })
    }
}

pub struct View {
    pub nodes: Vec<Arc<Node>>,
    /// The pod network, at most one a family.
    pub cluster: Vec<Cidr>,
}

pub fn plan(view: &View) -> Plan {
    let mut plan = Plan::default();
    let mut taken: HashSet<Cidr> = view.nodes.iter().flat_map(|node| ranges(node)).filter_map(|text| text.parse().ok()).collect();
    for node in view.nodes.iter().filter(|node| !deleting(node.as_ref()) && ranges(node).is_empty()) {
        let found: Option<Vec<Cidr>> = view.cluster.iter().map(|cluster| free(*cluster, &taken)).collect();
        match found {
            Some(found) if !found.is_empty() => {
                taken.extend(&found);
                let found: Vec<String> = found.iter().map(Cidr::to_string).collect();
                plan.push(Op::merge(node.as_ref(), json!({"spec": {"podCIDR": found[0], "podCIDRs": found}})));
            }
            Some(_) => {}
            None => plan.push(Op::normal(
                &reference(node.as_ref()),
                "CIDRNotAvailable",
                format!("Node {} status is now: CIDRNotAvailable", name(node.as_ref())),
            )),
        }
    }
    plan
}

fn ranges(node: &Node) -> Vec<&str> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let listed: Vec<&str> = spec.pod_cidrs.iter().flatten().map(String::as_str).collect();
    if listed.is_empty() { spec.pod_cidr.as_deref().filter(|text| !text.is_empty()).into_iter().collect() } else { listed }
}

fn free(cluster: Cidr, taken: &HashSet<Cidr>) -> Option<Cidr> {
    let bits = if cluster.v6 { NODE_MASK_V6 } else { NODE_MASK_V4 };
    // There are no more taken ones than nodes: so many tries at most.
    (0..).map_while(|index| cluster.part(bits, index)).find(|part| !taken.contains(part) && !taken.iter().any(|one| one.overlaps(*part)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, ranges: &[&str]) -> Arc<Node> {
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"podCIDRs": ranges}})).unwrap())
    }

    fn lines(cluster: &[&str], nodes: Vec<Arc<Node>>) -> String {
        plan(&View { nodes, cluster: cluster.iter().map(|text| text.parse().unwrap()).collect() }).to_string()
    }

    #[test]
    fn each_node_gets_its_own() {
        let cluster = ["10.244.0.0/16", "fd00:10:244::/56"];
        assert_eq!(
            lines(&cluster, vec![node("a", &["10.244.0.0/24", "fd00:10:244::/64"]), node("b", &[]), node("c", &[])]),
            "patch Node b {\"spec\":{\"podCIDR\":\"10.244.1.0/24\",\"podCIDRs\":[\"10.244.1.0/24\",\"fd00:10:244:1::/64\"]}}\n\
             patch Node c {\"spec\":{\"podCIDR\":\"10.244.2.0/24\",\"podCIDRs\":[\"10.244.2.0/24\",\"fd00:10:244:2::/64\"]}}\n"
        );
        assert_eq!(
            lines(&["10.1.0.0/24"], vec![node("a", &["10.1.0.0/24"]), node("b", &[])]),
            "event Normal CIDRNotAvailable: Node b status is now: CIDRNotAvailable\n"
        );
        assert_eq!(lines(&[], vec![node("a", &[])]), "");
        // A smaller cluster range than a node's is given whole; others' ranges of other sizes are kept clear of.
        assert!(lines(&["10.1.0.0/23"], vec![node("a", &["10.1.0.128/25"]), node("b", &[])]).contains("10.1.1.0/24"));
        assert!("10.1.0.0/33".parse::<Cidr>().is_err() && "x/1".parse::<Cidr>().is_err());
    }
}
