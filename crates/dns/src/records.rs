//! The names of a cluster and what they mean: Services and pods after the
//! [DNS-based service discovery specification](https://github.com/kubernetes/dns/blob/master/docs/specification.md), version 1.1.0.
//!
//! Data in, answers out; no Kubernetes types. Readers share a lock that writers hold for the change of one Service.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::RwLock;

use crate::wire::{Answer, CLASS_IN, Code, Name, Question, Section, kind, name_from_text};

/// How long an answer may be kept, positive or negative (as CoreDNS): a name that just came into being is missed for no longer.
pub const TTL_SECONDS: u32 = 5;
const SPECIFICATION: &[u8] = b"1.1.0";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Tcp => b"_tcp",
            Self::Udp => b"_udp",
            Self::Sctp => b"_sctp",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port {
    /// Unnamed ports have no SRV name of their own.
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
}

/// One endpoint of a headless Service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HeadlessEndpoint {
    pub address: IpAddr,
    /// `None`: named by its address, `10-244-0-7`.
    pub hostname: Option<String>,
    pub ports: Vec<Port>,
}

/// What the names of a Service lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceRecords {
    ClusterIp { addresses: Vec<IpAddr>, ports: Vec<Port> },
    Headless { endpoints: Vec<HeadlessEndpoint> },
    /// A name elsewhere.
    ExternalName { name: String },
}

/// The answer to a question.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Written.
    Answered,
    /// Not a name of the cluster.
    Elsewhere,
    /// An alias of this name (wire form) which is not ours; the CNAME is not written yet.
    Alias(Vec<u8>),
}

struct Service {
    records: ServiceRecords,
    /// Wire form of the Service's name.
    name: Vec<u8>,
    /// Of each headless endpoint: label and wire form of its name.
    endpoints: Vec<(Vec<u8>, Vec<u8>)>,
}

type Labels = HashMap<Box<[u8]>, Service>;

#[derive(Default)]
struct Tables {
    namespaces: HashMap<Box<[u8]>, Labels>,
    /// Address to names, each with the Service it comes from: several may share an address.
    reverse: HashMap<IpAddr, Vec<(String, Vec<u8>)>>,
}

/// All names of one cluster domain.
pub struct Records {
    zone: Vec<Vec<u8>>,
    zone_name: Vec<u8>,
    zone_text: String,
    /// Of the DNS Service itself.
    servers: RwLock<Vec<IpAddr>>,
    tables: RwLock<Tables>,
    serial: AtomicU32,
}

impl Records {
    /// `zone` is the cluster domain, `cluster.local`.
    pub fn new(zone: &str) -> Self {
        let zone = zone.trim_matches('.').to_ascii_lowercase();
        Self {
            zone: zone.split('.').map(|l| l.as_bytes().to_vec()).collect(),
            zone_name: name_from_text(&zone).unwrap_or_else(|| vec![0]),
            zone_text: zone,
            servers: RwLock::default(),
            tables: RwLock::default(),
            serial: AtomicU32::new(1),
        }
    }

    /// The addresses of `ns.dns.<zone>`.
    pub fn set_servers(&self, addresses: Vec<IpAddr>) {
        *self.servers.write() = addresses;
    }

    pub fn set_service(&self, namespace: &str, name: &str, records: ServiceRecords) {
        let text = format!("{name}.{namespace}.svc.{}", self.zone_text);
        let Some(wire) = name_from_text(&text) else { return };
        let endpoints = match &records {
            ServiceRecords::Headless { endpoints } => endpoints.iter().map(|e| endpoint_name(e, &text)).collect(),
            _ => Vec::new(),
        };
        let service = Service { records, name: wire, endpoints };
        let owner = format!("{namespace}/{name}");
        let mut tables = self.tables.write();
        tables.forget_reverse(namespace, name, &owner);
        for (address, name) in service.reverse() {
            tables.reverse.entry(address).or_default().push((owner.clone(), name));
        }
        tables.namespaces.entry(namespace.as_bytes().into()).or_default().insert(name.as_bytes().into(), service);
        self.serial.fetch_add(1, Ordering::Relaxed);
    }

    pub fn remove_service(&self, namespace: &str, name: &str) {
        let mut tables = self.tables.write();
        tables.forget_reverse(namespace, name, &format!("{namespace}/{name}"));
        if let Some(services) = tables.namespaces.get_mut(namespace.as_bytes()) {
            services.remove(name.as_bytes());
            if services.is_empty() {
                tables.namespaces.remove(namespace.as_bytes());
            }
        }
        self.serial.fetch_add(1, Ordering::Relaxed);
    }

    /// Answers if the name is one of the cluster's; `answer` has the question already.
    pub fn answer(&self, question: &Question, answer: &mut Answer<'_>) -> Outcome {
        if question.class != CLASS_IN {
            return Outcome::Elsewhere;
        }
        let name = &question.name;
        if !name.ends_with(&self.zone) {
            return self.answer_reverse(question, answer);
        }
        answer.authoritative();
        let rest = name.len() - self.zone.len();
        let label = |i: usize| name.label(rest - 1 - i);
        let mut reply = Reply { answer, kind: question.kind, turn: usize::from(question.id), found: false };
        let known = match rest {
            0 => self.answer_apex(&mut reply),
            1 if label(0) == b"dns-version" => {
                reply.record(kind::TXT, |b| {
                    b.push(SPECIFICATION.len() as u8);
                    b.extend_from_slice(SPECIFICATION);
                });
                true
            }
            1 => matches!(label(0), b"svc" | b"pod" | b"dns"),
            2 if label(0) == b"dns" && label(1) == b"ns" => {
                reply.addresses(self.servers.read().iter().copied());
                true
            }
            2 if label(0) == b"pod" => true,
            3 if label(0) == b"pod" => match dashed(label(2)) {
                Some(address) => {
                    reply.addresses([address].into_iter());
                    true
                }
                None => false,
            },
            _ if label(0) == b"svc" => match self.answer_service(name, rest, &mut reply) {
                Ok(known) => known,
                Err(alias) => return alias,
            },
            _ => false,
        };
        let found = reply.found;
        if !known {
            answer.set_code(Code::NxDomain);
        }
        if !found {
            self.soa(answer, Section::Authority);
        }
        Outcome::Answered
    }

    /// Whether the name exists; `Err` for an ExternalName that leads out of the cluster.
    fn answer_service(&self, name: &Name, rest: usize, reply: &mut Reply<'_, '_>) -> Result<bool, Outcome> {
        let label = |i: usize| name.label(rest - 1 - i);
        let tables = self.tables.read();
        let Some(services) = tables.namespaces.get(label(1)) else { return Ok(false) };
        if rest == 2 {
            return Ok(true);
        }
        let Some(service) = services.get(label(2)) else { return Ok(false) };
        match rest {
            3 => service.answer(reply),
            4 if label(3).starts_with(b"_") => Ok(service.has_protocol(label(3))),
            4 => Ok(service.answer_endpoint(label(3), reply)),
            5 => Ok(service.answer_port(label(3), label(4), reply)),
            _ => Ok(false),
        }
    }

    fn answer_apex(&self, reply: &mut Reply<'_, '_>) -> bool {
        if reply.wants(kind::SOA) {
            reply.found = true;
            self.soa(reply.answer, Section::Answer);
        }
        if reply.wants(kind::NS) {
            let server = self.server_name();
            reply.record(kind::NS, |b| b.extend_from_slice(&server));
            for address in self.servers.read().iter() {
                reply.answer.address(Section::Additional, Some(&server), *address, TTL_SECONDS);
            }
        }
        true
    }

    fn server_name(&self) -> Vec<u8> {
        [b"\x02ns\x03dns", self.zone_name.as_slice()].concat()
    }

    fn soa(&self, answer: &mut Answer<'_>, section: Section) {
        const TIMES: [u32; 4] = [7200, 1800, 86_400, TTL_SECONDS];
        answer.record(section, Some(&self.zone_name), kind::SOA, TTL_SECONDS, |b| {
            b.extend_from_slice(&self.server_name());
            b.extend_from_slice(b"\x0ahostmaster");
            b.extend_from_slice(&self.zone_name);
            b.extend_from_slice(&self.serial.load(Ordering::Relaxed).to_be_bytes());
            b.extend(TIMES.iter().flat_map(|t| t.to_be_bytes()));
        });
    }

    fn answer_reverse(&self, question: &Question, answer: &mut Answer<'_>) -> Outcome {
        let Some(address) = reverse_address(&question.name) else { return Outcome::Elsewhere };
        let tables = self.tables.read();
        let Some(names) = tables.reverse.get(&address).filter(|names| !names.is_empty()) else { return Outcome::Elsewhere };
        answer.authoritative();
        let mut reply = Reply { answer, kind: question.kind, turn: 0, found: false };
        for (_, name) in names {
            reply.record(kind::PTR, |b| b.extend_from_slice(name));
        }
        if !reply.found {
            self.soa(answer, Section::Authority);
        }
        Outcome::Answered
    }
}

impl Tables {
    fn forget_reverse(&mut self, namespace: &str, name: &str, owner: &str) {
        let Some(service) = self.namespaces.get(namespace.as_bytes()).and_then(|s| s.get(name.as_bytes())) else { return };
        for (address, _) in service.reverse() {
            if let Some(names) = self.reverse.get_mut(&address) {
                names.retain(|(o, _)| o != owner);
                if names.is_empty() {
                    self.reverse.remove(&address);
                }
            }
        }
    }
}

/// Label and wire form of an endpoint's own name.
fn endpoint_name(endpoint: &HeadlessEndpoint, service: &str) -> (Vec<u8>, Vec<u8>) {
    let label = match &endpoint.hostname {
        Some(hostname) => hostname.to_ascii_lowercase(),
        None => endpoint.address.to_string().replace(['.', ':'], "-"),
    };
    let wire = name_from_text(&format!("{label}.{service}")).unwrap_or_else(|| vec![0]);
    (label.into_bytes(), wire)
}

/// The address a label like `10-244-0-7` or `fd00--7` spells.
fn dashed(label: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(label).ok()?;
    let v4 = || text.replace('-', ".").parse::<Ipv4Addr>().ok().map(IpAddr::from);
    v4().or_else(|| text.replace('-', ":").parse::<Ipv6Addr>().ok().map(IpAddr::from))
}

/// The address of `7.0.244.10.in-addr.arpa` and its like in `ip6.arpa`.
fn reverse_address(name: &Name) -> Option<IpAddr> {
    if name.label_from_end(0)? != b"arpa" {
        return None;
    }
    let text = |i: usize| std::str::from_utf8(name.label(i)).ok();
    match (name.label_from_end(1)?, name.len()) {
        (b"in-addr", 6) => {
            let mut octets = [0u8; 4];
            for (i, octet) in octets.iter_mut().enumerate() {
                *octet = text(3 - i)?.parse().ok()?;
            }
            Some(octets.into())
        }
        (b"ip6", 34) => {
            let mut bits = 0u128;
            for i in (0..32).rev() {
                let label = text(i).filter(|l| l.len() == 1)?;
                bits = bits << 4 | u128::from(u8::from_str_radix(label, 16).ok()?);
            }
            Some(Ipv6Addr::from_bits(bits).into())
        }
        _ => None,
    }
}

/// An answer together with what is asked for.
struct Reply<'a, 'b> {
    answer: &'a mut Answer<'b>,
    kind: u16,
    /// Where lists begin, so that askers spread over their members.
    turn: usize,
    found: bool,
}

impl Reply<'_, '_> {
    fn wants(&self, kind: u16) -> bool {
        self.kind == kind || self.kind == kind::ANY
    }

    fn record(&mut self, kind: u16, data: impl FnOnce(&mut Vec<u8>)) {
        if self.wants(kind) {
            self.found = true;
            self.answer.record(Section::Answer, None, kind, TTL_SECONDS, data);
        }
    }

    fn addresses(&mut self, addresses: impl Iterator<Item = IpAddr> + Clone) {
        let wanted = |a: &IpAddr| self.wants(if a.is_ipv4() { kind::A } else { kind::AAAA });
        let count = addresses.clone().filter(wanted).count();
        if count == 0 {
            return;
        }
        let start = self.turn % count;
        let (wants_v4, wants_v6) = (self.wants(kind::A), self.wants(kind::AAAA));
        let wanted = addresses.filter(move |a| if a.is_ipv4() { wants_v4 } else { wants_v6 });
        self.found = true;
        for address in wanted.clone().skip(start).chain(wanted.take(start)) {
            self.answer.address(Section::Answer, None, address, TTL_SECONDS);
        }
    }

    fn srv(&mut self, port: u16, weight: u16, target: &[u8]) {
        self.record(kind::SRV, |b| {
            for field in [0, weight, port] {
                b.extend_from_slice(&field.to_be_bytes());
            }
            b.extend_from_slice(target);
        });
    }
}

/// Which of a Service's ports an SRV question names: all, or one.
type PortFilter<'a> = Option<(&'a [u8], &'a [u8])>;

fn port_matches(port: &Port, filter: PortFilter<'_>) -> bool {
    filter.is_none_or(|(protocol, name)| port.protocol.label() == protocol && name.strip_prefix(b"_").is_some_and(|n| n.eq_ignore_ascii_case(port.name.as_bytes())))
}

impl Service {
    fn reverse(&self) -> Vec<(IpAddr, Vec<u8>)> {
        match &self.records {
            ServiceRecords::ClusterIp { addresses, .. } => addresses.iter().map(|a| (*a, self.name.clone())).collect(),
            ServiceRecords::Headless { endpoints } => endpoints.iter().zip(&self.endpoints).map(|(e, (_, name))| (e.address, name.clone())).collect(),
            ServiceRecords::ExternalName { .. } => Vec::new(),
        }
    }

    /// The Service's own name. A headless Service without endpoints has no name (as CoreDNS).
    fn answer(&self, reply: &mut Reply<'_, '_>) -> Result<bool, Outcome> {
        match &self.records {
            ServiceRecords::ClusterIp { addresses, .. } => {
                reply.addresses(addresses.iter().copied());
                self.answer_srv(None, reply);
                Ok(true)
            }
            ServiceRecords::Headless { endpoints } => {
                reply.addresses(endpoints.iter().map(|e| e.address));
                self.answer_srv(None, reply);
                Ok(!endpoints.is_empty())
            }
            ServiceRecords::ExternalName { name } => match name_from_text(name) {
                Some(target) if reply.kind == kind::CNAME => {
                    reply.record(kind::CNAME, |b| b.extend_from_slice(&target));
                    Ok(true)
                }
                Some(target) => Err(Outcome::Alias(target)),
                None => Ok(true),
            },
        }
    }

    fn has_protocol(&self, label: &[u8]) -> bool {
        match &self.records {
            ServiceRecords::ClusterIp { ports, .. } => ports.iter().any(|p| p.protocol.label() == label),
            ServiceRecords::Headless { endpoints } => endpoints.iter().flat_map(|e| &e.ports).any(|p| p.protocol.label() == label),
            ServiceRecords::ExternalName { .. } => false,
        }
    }

    fn answer_endpoint(&self, label: &[u8], reply: &mut Reply<'_, '_>) -> bool {
        let ServiceRecords::Headless { endpoints } = &self.records else { return false };
        let named = || endpoints.iter().zip(&self.endpoints).filter(|(_, (l, _))| l == label).map(|(e, _)| e);
        reply.addresses(named().map(|e| e.address));
        named().next().is_some()
    }

    fn answer_port(&self, protocol: &[u8], port: &[u8], reply: &mut Reply<'_, '_>) -> bool {
        let filter = Some((protocol, port));
        self.answer_srv(filter, reply);
        match &self.records {
            ServiceRecords::ClusterIp { ports, .. } => ports.iter().any(|p| port_matches(p, filter)),
            ServiceRecords::Headless { endpoints } => endpoints.iter().flat_map(|e| &e.ports).any(|p| port_matches(p, filter)),
            ServiceRecords::ExternalName { .. } => false,
        }
    }

    fn answer_srv(&self, filter: PortFilter<'_>, reply: &mut Reply<'_, '_>) {
        // Cheap to leave out where it was not asked for by name.
        if reply.kind != kind::SRV {
            return;
        }
        match &self.records {
            ServiceRecords::ClusterIp { addresses, ports } => {
                for port in ports.iter().filter(|p| port_matches(p, filter)) {
                    reply.srv(port.port, 100, &self.name);
                }
                if reply.found {
                    for address in addresses {
                        reply.answer.address(Section::Additional, Some(&self.name), *address, TTL_SECONDS);
                    }
                }
            }
            ServiceRecords::Headless { endpoints } => {
                let matching = || endpoints.iter().zip(&self.endpoints).map(|(e, (_, name))| (e, name, e.ports.iter().filter(|p| port_matches(p, filter))));
                let count = matching().map(|(_, _, ports)| ports.count()).sum::<usize>().max(1);
                let weight = (100 / count).max(1) as u16;
                for (_, name, ports) in matching() {
                    for port in ports {
                        reply.srv(port.port, weight, name);
                    }
                }
                for (endpoint, name, mut ports) in matching() {
                    if ports.next().is_some() {
                        reply.answer.address(Section::Additional, Some(name), endpoint.address, TTL_SECONDS);
                    }
                }
            }
            ServiceRecords::ExternalName { .. } => {}
        }
    }
}
