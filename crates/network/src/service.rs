//! A Service port as the map elements that make it work. Pure.
//!
//! A Service has no chain or rule of its own: a frontend is one element whose verdict names a chain shared by all frontends with as
//! many endpoints (`pick-3`), and that chain takes endpoint 0, 1 or 2 of the frontend from one big map. So a change of one
//! Service is a change of its own elements and of nothing else, and a packet costs the same however many Services there are.
//! Only session affinity, which must remember clients, gives a Service port chains and sets of its own.
//! Semantics mirror kube-proxy (KEP-3866): <https://kubernetes.io/docs/reference/networking/virtual-ips/>.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

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
    pub endpoints: Vec<Endpoint>,
    /// Seconds a client stays with its endpoint (sessionAffinity ClientIP).
    pub session_affinity: Option<u32>,
    /// externalTrafficPolicy Local: what comes from outside stays on this node and keeps its source address.
    pub external_local: bool,
    /// internalTrafficPolicy Local.
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

/// How a frontend treats what arrives there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Entry {
    /// From inside the cluster: the source is kept.
    Cluster,
    /// From anywhere to an external address: the source becomes the node's, so that the answer comes back through it.
    External,
    /// From anywhere, endpoints of this node only: the source is kept.
    ExternalLocal,
    NodePort,
    NodePortLocal,
}

/// Where a frontend's verdict leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Chain {
    /// Shared by all frontends of the same kind and number of endpoints.
    Pick { entry: Entry, endpoints: u32 },
    /// With session affinity each Service port has chains of its own, and a set of clients per endpoint.
    Sticky { entry: Entry, service: u64 },
}

impl Entry {
    pub const fn is_node_port(self) -> bool {
        matches!(self, Self::NodePort | Self::NodePortLocal)
    }

    const fn prefix(self) -> &'static str {
        match self {
            Self::Cluster => "",
            Self::External => "external-",
            Self::ExternalLocal => "external-local-",
            Self::NodePort => "nodeport-",
            Self::NodePortLocal => "nodeport-local-",
        }
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pick { entry, endpoints } => write!(f, "{}pick-{endpoints}", entry.prefix()),
            Self::Sticky { entry, service } => write!(f, "{}sticky-{service:016x}", entry.prefix()),
        }
    }
}

/// FNV-1a: short names for links, chains and sets that are the same after a restart.
pub fn short_hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Set {
    Services,
    Endpoints,
    NodePorts,
    NodePortEndpoints,
    EmptyServices,
    EmptyNodePorts,
}

impl Set {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Endpoints => "endpoints",
            Self::NodePorts => "nodeports",
            Self::NodePortEndpoints => "nodeport-endpoints",
            Self::EmptyServices => "empty-services",
            Self::EmptyNodePorts => "empty-nodeports",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Nothing,
    Endpoint(Vec<u8>),
    Goto(Chain),
}

pub type Elements = Vec<((Set, Vec<u8>), Value)>;

impl ServicePort {
    /// Every frontend of one family, with how it treats what arrives.
    pub fn frontends(&self, family: Family) -> Vec<(Frontend, Entry)> {
        let (protocol, port) = (self.protocol, self.port);
        let external = if self.external_local { Entry::ExternalLocal } else { Entry::External };
        let address = |entry| move |address: &IpAddr| (Frontend::Address { address: *address, protocol, port }, entry);
        let mut frontends: Vec<_> = self.cluster_ips.iter().map(address(Entry::Cluster)).collect();
        frontends.extend(self.external_ips.iter().chain(&self.load_balancer_ips).map(address(external)));
        // A node port is there in the families the Service has.
        if let Some(port) = self.node_port
            && self.cluster_ips.iter().any(|a| Family::of(*a) == family)
        {
            let entry = if self.external_local { Entry::NodePortLocal } else { Entry::NodePort };
            frontends.push((Frontend::NodePort { family, protocol, port }, entry));
        }
        frontends.retain(|(f, _)| f.family() == family);
        frontends
    }

    pub fn endpoints(&self, family: Family, entry: Entry) -> Vec<Endpoint> {
        let local_only = match entry {
            Entry::Cluster => self.internal_local,
            Entry::ExternalLocal | Entry::NodePortLocal => true,
            Entry::External | Entry::NodePort => false,
        };
        self.endpoints.iter().filter(|e| Family::of(e.address) == family && (e.local || !local_only)).copied().collect()
    }

    /// The elements of one family, for the frontends this port owns.
    pub fn elements(&self, name: &ServicePortName, family: Family, owns: impl Fn(&Frontend) -> bool) -> Elements {
        let mut elements = Vec::new();
        for (frontend, entry) in self.frontends(family) {
            if !owns(&frontend) {
                continue;
            }
            let endpoints = self.endpoints(family, entry);
            let key = frontend.key();
            let node_port = entry.is_node_port();
            if endpoints.is_empty() {
                let set = if node_port { Set::EmptyNodePorts } else { Set::EmptyServices };
                elements.push(((set, key), Value::Nothing));
                continue;
            }
            if self.session_affinity.is_some() {
                let set = if node_port { Set::NodePorts } else { Set::Services };
                elements.push(((set, key), Value::Goto(Chain::Sticky { entry, service: name.hash() })));
                continue;
            }
            let (services, targets) = if node_port { (Set::NodePorts, Set::NodePortEndpoints) } else { (Set::Services, Set::Endpoints) };
            for (i, endpoint) in endpoints.iter().enumerate() {
                let mut key = key.clone();
                key.extend((i as u32).to_ne_bytes());
                let mut value = octets(endpoint.address);
                value.extend(endpoint.port.to_be_bytes());
                value.extend([0, 0]);
                elements.push(((targets, key), Value::Endpoint(value)));
            }
            let chain = Chain::Pick { entry, endpoints: endpoints.len() as u32 };
            elements.push(((services, key), Value::Goto(chain)));
        }
        elements
    }

    /// The chains of its own that session affinity needs, with the endpoints each leads to.
    pub fn sticky_chains(&self, name: &ServicePortName, family: Family) -> BTreeMap<Chain, Vec<Endpoint>> {
        if self.session_affinity.is_none() {
            return BTreeMap::new();
        }
        let service = name.hash();
        let chains = self.frontends(family).into_iter().map(|(_, entry)| (Chain::Sticky { entry, service }, self.endpoints(family, entry)));
        chains.filter(|(_, endpoints)| !endpoints.is_empty()).collect()
    }

    /// Orders the endpoints so that those programmed already keep their place, and one that left is replaced by the last:
    /// then a change of one endpoint changes one or two elements, not all that follow it.
    pub fn keep_places(&mut self, programmed: &[Endpoint]) {
        let wanted: BTreeSet<Endpoint> = self.endpoints.iter().copied().collect();
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
        self.endpoints = placed.into_iter().flatten().chain(fresh).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    fn endpoint(text: &str, local: bool) -> Endpoint {
        Endpoint { address: ip(text), port: 8080, local }
    }

    fn summary(port: &ServicePort, family: Family) -> Vec<String> {
        let show = |((set, key), value): ((Set, Vec<u8>), Value)| match value {
            Value::Nothing => format!("{} {}", set.name(), key.len()),
            Value::Endpoint(v) => format!("{} {} -> {}", set.name(), key.len(), v.len()),
            Value::Goto(chain) => format!("{} {} -> {chain}", set.name(), key.len()),
        };
        port.elements(&ServicePortName::default(), family, |_| true).into_iter().map(show).collect()
    }

    #[test]
    fn elements_by_kind_of_service() {
        let base = ServicePort { port: 80, cluster_ips: vec![ip("10.96.0.9"), ip("fd00::9")], ..Default::default() };
        let with = |change: fn(&mut ServicePort)| {
            let mut port = base.clone();
            change(&mut port);
            port
        };
        let cases: [(&str, ServicePort, Family, &[&str]); 7] = [
            ("no endpoints", base.clone(), Family::Ipv4, &["empty-services 12"]),
            ("one", with(|p| p.endpoints = vec![endpoint("10.244.0.2", true)]), Family::Ipv4, &["endpoints 16 -> 8", "services 12 -> pick-1"]),
            ("other family is empty", with(|p| p.endpoints = vec![endpoint("10.244.0.2", true)]), Family::Ipv6, &["empty-services 24"]),
            ("IPv6", with(|p| p.endpoints = vec![endpoint("fd00:1::2", true)]), Family::Ipv6, &["endpoints 28 -> 20", "services 24 -> pick-1"]),
            (
                "node port and affinity",
                with(|p| {
                    p.endpoints = vec![endpoint("10.244.0.2", true)];
                    p.node_port = Some(30001);
                    p.session_affinity = Some(10);
                }),
                Family::Ipv4,
                &["services 12 -> sticky-af63a24c860189fe", "nodeports 8 -> nodeport-sticky-af63a24c860189fe"],
            ),
            (
                "local policies",
                with(|p| {
                    p.endpoints = vec![endpoint("10.244.1.2", false)];
                    p.node_port = Some(30001);
                    p.external_local = true;
                }),
                Family::Ipv4,
                &["endpoints 16 -> 8", "services 12 -> pick-1", "empty-nodeports 8"],
            ),
            (
                "external",
                with(|p| {
                    p.endpoints = vec![endpoint("10.244.1.2", false)];
                    p.cluster_ips.clear();
                    p.load_balancer_ips = vec![ip("192.0.2.9")];
                }),
                Family::Ipv4,
                &["endpoints 16 -> 8", "services 12 -> external-pick-1"],
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
            let mut port = ServicePort { endpoints: wanted, ..Default::default() };
            port.keep_places(&before);
            assert_eq!(port.endpoints, after);
        }
    }
}
