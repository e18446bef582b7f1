//! A Service port as the map elements that make it work. Pure.
//!
//! A Service has no chain or rule of its own: a frontend is one element whose verdict names a chain shared by all frontends with as
//! many endpoints (`pick-3`), and that chain takes endpoint 0, 1 or 2 of the frontend from one big map. So a change of one
//! Service is a change of its own elements and of nothing else, and a packet costs the same however many Services there are.
//! Only session affinity, which must remember clients, and source ranges give a Service port chains and sets of its own.
//! Semantics mirror kube-proxy (KEP-3866): <https://kubernetes.io/docs/reference/networking/virtual-ips/>.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::net::IpAddr;

use crate::chain::{By, Chain, Keeps, Sticks};
use crate::cidr::IpNet;
use crate::nft::Family;
use crate::route::octets;

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ServicePortName {
    pub namespace: String,
    pub name: String,
    /// Empty for the only port of a Service.
    pub port: String,
}

impl ServicePortName {
    pub fn hash(&self) -> u64 {
        short_hash(self.to_string().as_bytes())
    }
}

impl fmt::Display for ServicePortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)?;
        if self.port.is_empty() { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize)]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => libc::IPPROTO_TCP as u8,
            Self::Udp => libc::IPPROTO_UDP as u8,
            Self::Sctp => libc::IPPROTO_SCTP as u8,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    pub address: IpAddr,
    pub port: u16,
    /// On this node.
    pub local: bool,
}

/// What a Service port should be. Addresses of both families may be mixed anywhere; each family is programmed by itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServicePort {
    pub protocol: Protocol,
    pub port: u16,
    pub cluster_ips: Vec<IpAddr>,
    pub node_port: Option<u16>,
    pub external_ips: Vec<IpAddr>,
    pub load_balancer_ips: Vec<IpAddr>,
    /// Who may come to the load balancer's addresses; without any of a family, everybody of that family.
    pub source_ranges: Vec<IpNet>,
    /// For traffic that may go anywhere. Empty only if there is no endpoint in the whole cluster.
    pub endpoints: Vec<Endpoint>,
    /// For traffic that must stay on this node.
    pub local_endpoints: Vec<Endpoint>,
    /// Flows that are at these may stay, though no new one goes there: they still serve.
    pub draining: Vec<Endpoint>,
    /// Seconds a client stays with its endpoint (sessionAffinity ClientIP).
    pub session_affinity: Option<u32>,
    /// externalTrafficPolicy Local: what comes from outside goes to `local_endpoints` and keeps its source address.
    pub external_local: bool,
    /// internalTrafficPolicy Local: what comes to the cluster IPs goes to `local_endpoints`.
    pub internal_local: bool,
}

/// `None` removes it.
pub type ServiceChange = (ServicePortName, Option<ServicePort>);

/// Where traffic for a Service port arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Frontend {
    Address { address: IpAddr, protocol: Protocol, port: u16 },
    NodePort { family: Family, protocol: Protocol, port: u16 },
}

impl Frontend {
    pub fn family(&self) -> Family {
        match self {
            Self::Address { address, .. } => Family::of(*address),
            Self::NodePort { family, .. } => *family,
        }
    }

    const fn by(&self) -> By {
        match self {
            Self::Address { .. } => By::Address,
            Self::NodePort { .. } => By::NodePort,
        }
    }

    /// The key of the frontend in its map.
    pub fn key(&self) -> Vec<u8> {
        let (mut key, protocol, port) = match self {
            Self::Address { address, protocol, port } => (octets(*address), protocol, port),
            Self::NodePort { protocol, port, .. } => (Vec::new(), protocol, port),
        };
        key.extend([protocol.number(), 0, 0, 0]);
        key.extend(port.to_be_bytes());
        key.extend([0, 0]);
        key
    }
}

/// FNV-1a: short names for links, chains and sets that are the same after a restart.
pub fn short_hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// Which way into the Service a frontend is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// A cluster IP.
    Internal,
    /// An external IP or a node port.
    External,
    /// An address of the load balancer, which alone has source ranges.
    LoadBalancer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Set {
    Services,
    Endpoints,
    NodePorts,
    NodePortEndpoints,
    /// What no endpoint of `services` took.
    EmptyServices,
    EmptyNodePorts,
    Firewall,
}

impl Set {
    pub const ALL: [Self; 7] =
        [Self::Services, Self::Endpoints, Self::NodePorts, Self::NodePortEndpoints, Self::EmptyServices, Self::EmptyNodePorts, Self::Firewall];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Endpoints => "endpoints",
            Self::NodePorts => "nodeports",
            Self::NodePortEndpoints => "nodeport-endpoints",
            Self::EmptyServices => "empty-services",
            Self::EmptyNodePorts => "empty-nodeports",
            Self::Firewall => "firewall",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Endpoint(Vec<u8>),
    Goto(Chain),
}

pub type Elements = Vec<((Set, Vec<u8>), Value)>;

/// Endpoints for traffic that stays here are under numbers from this one on, beside those for traffic that may go anywhere.
pub const LOCAL_FROM: u32 = 1 << 31;

fn of_family(endpoints: &[Endpoint], family: Family) -> Vec<Endpoint> {
    endpoints.iter().filter(|e| Family::of(e.address) == family).copied().collect()
}

/// Appends the endpoints of one frontend.
fn number(elements: &mut Elements, frontend: &Frontend, first: u32, endpoints: &[Endpoint]) {
    let map = match frontend.by() {
        By::Address => Set::Endpoints,
        By::NodePort => Set::NodePortEndpoints,
    };
    for (number, endpoint) in (first..).zip(endpoints) {
        let mut key = frontend.key();
        key.extend(number.to_ne_bytes());
        let mut value = octets(endpoint.address);
        value.extend(endpoint.port.to_be_bytes());
        value.extend([0, 0]);
        elements.push(((map, key), Value::Endpoint(value)));
    }
}

impl ServicePort {
    /// Every frontend of one family.
    pub fn frontends(&self, family: Family) -> Vec<(Frontend, Entry)> {
        let (protocol, port) = (self.protocol, self.port);
        let address = |entry| move |address: &IpAddr| (Frontend::Address { address: *address, protocol, port }, entry);
        let mut frontends: Vec<_> = self.cluster_ips.iter().map(address(Entry::Internal)).collect();
        frontends.extend(self.external_ips.iter().map(address(Entry::External)));
        frontends.extend(self.load_balancer_ips.iter().map(address(Entry::LoadBalancer)));
        // A node port is there in the families the Service has.
        if let Some(port) = self.node_port
            && self.cluster_ips.iter().any(|a| Family::of(*a) == family)
        {
            frontends.push((Frontend::NodePort { family, protocol, port }, Entry::External));
        }
        frontends.retain(|(f, _)| f.family() == family);
        frontends
    }

    fn is_externally_accessible(&self) -> bool {
        self.node_port.is_some() || !self.external_ips.is_empty() || !self.load_balancer_ips.is_empty()
    }

    /// Whether some traffic may go to any endpoint. Also with `externalTrafficPolicy: Local`, when it comes from inside.
    pub fn uses_cluster_endpoints(&self) -> bool {
        !self.internal_local || self.is_externally_accessible()
    }

    pub fn uses_local_endpoints(&self) -> bool {
        self.internal_local || (self.external_local && self.is_externally_accessible())
    }

    /// Where traffic may go from this node.
    pub fn reachable(&self) -> BTreeSet<Endpoint> {
        let cluster = self.endpoints.iter().filter(|_| self.uses_cluster_endpoints());
        cluster.chain(self.local_endpoints.iter().filter(|_| self.uses_local_endpoints())).copied().collect()
    }

    /// Where a flow may be: a tracked one to anywhere else is forgotten.
    pub fn may_flow_to(&self, family: Family) -> HashSet<(IpAddr, u16)> {
        let all = self.endpoints.iter().chain(&self.local_endpoints).chain(&self.draining);
        all.filter(|e| Family::of(e.address) == family).map(|e| (e.address, e.port)).collect()
    }

    /// The elements of one family, for the frontends this port owns.
    pub fn elements(&self, name: &ServicePortName, family: Family, owns: impl Fn(&Frontend) -> bool) -> Elements {
        let mut elements = Vec::new();
        let (cluster, local) = (of_family(&self.endpoints, family), of_family(&self.local_endpoints, family));
        for (frontend, entry) in self.frontends(family).into_iter().filter(|(frontend, _)| owns(frontend)) {
            let (services, empty) = match frontend.by() {
                By::Address => (Set::Services, Set::EmptyServices),
                By::NodePort => (Set::NodePorts, Set::EmptyNodePorts),
            };
            let is_internal = entry == Entry::Internal;
            let must_stay = if is_internal { self.internal_local } else { self.external_local };
            if cluster.is_empty() && local.is_empty() {
                elements.push(((empty, frontend.key()), Value::Goto(Chain::Refuse)));
            } else if must_stay && local.is_empty() {
                elements.push(((empty, frontend.key()), Value::Goto(Chain::Discard)));
            }
            let to = if is_internal && must_stay { &local } else { &cluster };
            if !to.is_empty() {
                let chain = self.chain(name, &frontend, is_internal, to.len() as u32, local.len() as u32);
                if !chain.is_own() {
                    number(&mut elements, &frontend, 0, to);
                    number(&mut elements, &frontend, LOCAL_FROM, if must_stay && !is_internal { &local } else { &[] });
                }
                elements.push(((services, frontend.key()), Value::Goto(chain)));
            }
            if entry == Entry::LoadBalancer && self.source_ranges.iter().any(|net| Family::of(net.address()) == family) {
                elements.push(((Set::Firewall, frontend.key()), Value::Goto(Chain::Firewall { service: name.hash() })));
            }
        }
        elements
    }

    fn chain(&self, name: &ServicePortName, frontend: &Frontend, is_internal: bool, endpoints: u32, local: u32) -> Chain {
        if self.session_affinity.is_some() {
            let kind = match (is_internal, self.internal_local, self.external_local) {
                (true, false, _) => Sticks::Cluster,
                (true, true, _) => Sticks::ClusterLocal,
                (false, _, false) => Sticks::External,
                (false, _, true) => Sticks::ExternalLocal,
            };
            return Chain::Sticky { kind, service: name.hash() };
        }
        let by = frontend.by();
        match (is_internal, self.external_local) {
            (true, _) => Chain::Pick { by, keeps: Keeps::Pods, endpoints },
            (false, false) => Chain::Pick { by, keeps: Keeps::Nobody, endpoints },
            (false, true) => Chain::Local { by, endpoints, local },
        }
    }

    /// The chains of its own that session affinity needs, with the endpoints each leads to.
    pub fn sticky_chains(&self, name: &ServicePortName, family: Family) -> BTreeMap<Sticks, Vec<Endpoint>> {
        let mut chains = BTreeMap::new();
        if self.session_affinity.is_none() {
            return chains;
        }
        let (cluster, local) = (of_family(&self.endpoints, family), of_family(&self.local_endpoints, family));
        for ((_, key), value) in self.elements(name, family, |_| true) {
            let (_, Value::Goto(Chain::Sticky { kind, .. })) = (key, value) else { continue };
            chains.insert(kind, if matches!(kind, Sticks::ClusterLocal | Sticks::ExternalLocal) { local.clone() } else { cluster.clone() });
        }
        // Pods and the node itself go on from there.
        if chains.contains_key(&Sticks::ExternalLocal) {
            chains.insert(Sticks::Cluster, cluster);
        }
        chains
    }

    /// Orders the endpoints so that those programmed already keep their place, and one that left is replaced by the last:
    /// then a change of one endpoint changes one or two elements, not all that follow it.
    pub fn keep_places(&mut self, programmed: Option<&Self>) {
        self.endpoints = in_their_places(&self.endpoints, programmed.map_or(&[], |port| &port.endpoints));
        self.local_endpoints = in_their_places(&self.local_endpoints, programmed.map_or(&[], |port| &port.local_endpoints));
    }
}

fn in_their_places(wanted: &[Endpoint], programmed: &[Endpoint]) -> Vec<Endpoint> {
    let wanted: BTreeSet<Endpoint> = wanted.iter().copied().collect();
    let mut placed: Vec<Option<Endpoint>> = programmed.iter().map(|e| wanted.contains(e).then_some(*e)).collect();
    let known: BTreeSet<Endpoint> = programmed.iter().copied().collect();
    let mut fresh = wanted.into_iter().filter(|e| !known.contains(e));
    let mut i = 0;
    while i < placed.len() {
        if placed[i].is_none() {
            match fresh.next() {
                Some(endpoint) => placed[i] = Some(endpoint),
                None => {
                    placed.swap_remove(i);
                    continue;
                }
            }
        }
        i += 1;
    }
    placed.into_iter().flatten().chain(fresh).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ranges;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    fn endpoint(text: &str, local: bool) -> Endpoint {
        Endpoint { address: ip(text), port: 8080, local }
    }

    fn summary(port: &ServicePort, family: Family) -> Vec<String> {
        let show = |((set, key), value): ((Set, Vec<u8>), Value)| match value {
            Value::Endpoint(v) => format!("{} {} -> {}", set.name(), key.len(), v.len()),
            Value::Goto(chain) => format!("{} {} -> {chain}", set.name(), key.len()),
        };
        port.elements(&ServicePortName::default(), family, |_| true).into_iter().map(show).collect()
    }

    #[test]
    fn elements_by_kind_of_service() {
        let base = ServicePort { port: 80, cluster_ips: vec![ip("10.96.0.9"), ip("fd00::9")], ..Default::default() };
        let with = |change: &dyn Fn(&mut ServicePort)| {
            let mut port = base.clone();
            change(&mut port);
            port
        };
        let here = endpoint("10.244.0.2", true);
        let there = endpoint("10.244.1.2", false);
        let both = |p: &mut ServicePort, local: &[Endpoint]| {
            p.endpoints = vec![endpoint("10.244.0.2", true), endpoint("10.244.1.2", false)];
            p.local_endpoints = local.to_vec();
            p.node_port = Some(30001);
        };
        let cases: [(&str, ServicePort, Family, &[&str]); 12] = [
            ("no endpoints", base.clone(), Family::Ipv4, &["empty-services 12 -> refuse"]),
            ("one", with(&|p| p.endpoints = vec![here]), Family::Ipv4, &["endpoints 16 -> 8", "services 12 -> pick-1"]),
            ("other family is empty", with(&|p| p.endpoints = vec![here]), Family::Ipv6, &["empty-services 24 -> refuse"]),
            ("IPv6", with(&|p| p.endpoints = vec![endpoint("fd00:1::2", true)]), Family::Ipv6, &["endpoints 28 -> 20", "services 24 -> pick-1"]),
            (
                "node port and affinity",
                with(&|p| {
                    p.endpoints = vec![here];
                    p.node_port = Some(30001);
                    p.session_affinity = Some(10);
                }),
                Family::Ipv4,
                &["services 12 -> sticky-af63a24c860189fe", "nodeports 8 -> external-sticky-af63a24c860189fe"],
            ),
            (
                "external traffic stays",
                with(&|p| {
                    both(p, &[here]);
                    p.external_local = true;
                }),
                Family::Ipv4,
                &[
                    "endpoints 16 -> 8",
                    "endpoints 16 -> 8",
                    "services 12 -> pick-2",
                    "nodeport-endpoints 12 -> 8",
                    "nodeport-endpoints 12 -> 8",
                    "nodeport-endpoints 12 -> 8",
                    "nodeports 8 -> nodeport-local-1-of-2",
                ],
            ),
            (
                "external traffic would stay, but there is nobody here: from inside it is served all the same",
                with(&|p| {
                    p.endpoints = vec![there];
                    p.load_balancer_ips = vec![ip("192.0.2.9")];
                    p.external_local = true;
                }),
                Family::Ipv4,
                &["endpoints 16 -> 8", "services 12 -> pick-1", "empty-services 12 -> discard", "endpoints 16 -> 8", "services 12 -> external-local-0-of-1"],
            ),
            (
                "internal traffic stays",
                with(&|p| {
                    both(p, &[here]);
                    p.internal_local = true;
                }),
                Family::Ipv4,
                &[
                    "endpoints 16 -> 8",
                    "services 12 -> pick-1",
                    "nodeport-endpoints 12 -> 8",
                    "nodeport-endpoints 12 -> 8",
                    "nodeports 8 -> nodeport-pick-2",
                ],
            ),
            (
                "internal traffic would stay, but there is nobody here",
                with(&|p| {
                    p.endpoints = vec![there];
                    p.internal_local = true;
                }),
                Family::Ipv4,
                &["empty-services 12 -> discard"],
            ),
            (
                "external",
                with(&|p| {
                    p.endpoints = vec![there];
                    p.cluster_ips.clear();
                    p.external_ips = vec![ip("192.0.2.9")];
                    p.source_ranges = vec![ranges::host(ip("192.0.2.7"))];
                }),
                Family::Ipv4,
                &["endpoints 16 -> 8", "services 12 -> external-pick-1"],
            ),
            (
                "source ranges are of the load balancer",
                with(&|p| {
                    p.endpoints = vec![there];
                    p.cluster_ips.clear();
                    p.load_balancer_ips = vec![ip("192.0.2.9")];
                    p.source_ranges = vec![ranges::host(ip("192.0.2.7"))];
                }),
                Family::Ipv4,
                &["endpoints 16 -> 8", "services 12 -> external-pick-1", "firewall 12 -> firewall-af63a24c860189fe"],
            ),
            (
                "affinity and staying",
                with(&|p| {
                    both(p, &[here]);
                    p.external_local = true;
                    p.internal_local = true;
                    p.session_affinity = Some(10);
                }),
                Family::Ipv4,
                &["services 12 -> local-sticky-af63a24c860189fe", "nodeports 8 -> external-local-sticky-af63a24c860189fe"],
            ),
        ];
        for (what, port, family, expected) in cases {
            assert_eq!(summary(&port, family), expected, "{what}");
        }
    }

    #[test]
    fn endpoints_keep_their_places() {
        let [a, b, c, d] = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"].map(|t| endpoint(t, true));
        for (before, wanted, after) in [
            (vec![], vec![b, a], vec![a, b]),
            (vec![a, b, c], vec![b, c], vec![c, b]),
            (vec![a, b, c], vec![d, c, b], vec![d, b, c]),
            (vec![c, a], vec![a, b, c, d], vec![c, a, b, d]),
            (vec![a, b], vec![], vec![]),
            (vec![a], vec![a, a], vec![a]),
        ] {
            let of = |endpoints: &[Endpoint]| ServicePort { endpoints: endpoints.to_vec(), local_endpoints: endpoints.to_vec(), ..Default::default() };
            let mut port = of(&wanted);
            port.keep_places(Some(&of(&before)));
            assert_eq!((port.endpoints, port.local_endpoints), (after.clone(), after));
        }
    }
}
