//! What a lab is: `lab.json`, written once by `up`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use basics::files;
use network::IpNet;
use serde::{Deserialize, Serialize};

use crate::error::{LabError, Result, io};
use crate::layout::Layout;
use crate::mirror;
use crate::start::BRIDGE;

/// The first node's address in the segment, as in the classrooms of old: 192.168.0.11, …12, …13.
const FIRST_ADDRESS: u64 = 11;
/// The segment's other family; its last part counts as the IPv4 addresses do.
const SEGMENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd6c, 0x6162, 0, 0, 0, 0, 0, 0);
pub const PREFIX_V6: u8 = 64;
/// More than a laptop wants; the segment has room.
pub const NODES_MAX: usize = 50;
/// A link's name has 15 letters, and a slow cable's is the node's with `-out` after it.
const NAME_BYTES_MAX: usize = 11;
/// A segment needs room for the nodes.
const PREFIX_MAX: u8 = 24;
/// What the clusters inside use, unless told otherwise: addresses of pods and of Services.
const USED_INSIDE: [(&str, &str); 2] =
    [("10.244.0.0/16", "the cluster's pods have 10.244.0.0/16"), ("10.96.0.0/12", "the cluster's Services have 10.96.0.0/12")];

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    pub gateway: Ipv4Addr,
    pub prefix: u8,
    pub nodes: Vec<NodeRecord>,
    /// Whether shells have the workshop's kubectl of 2018.
    pub classic: bool,
    /// No cluster was made: machines that are added do not join one by themselves.
    #[serde(default)]
    pub bare: bool,
    /// The cluster was made without a pod network.
    #[serde(default)]
    pub no_network: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    pub name: String,
    pub address: Ipv4Addr,
}

/// The n-th address of the segment: fd6c:6162::1 is the gateway.
pub fn ipv6(number: u16) -> Ipv6Addr {
    Ipv6Addr::from_bits(SEGMENT_V6.to_bits() | u128::from(number))
}

/// A host name, short enough for the names of links to be made from it, and none that is a link's already.
fn check_name(name: &str) -> Result<()> {
    let good = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    let well = !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.chars().all(good) && !name.starts_with('-') && !name.ends_with('-');
    match well && name != BRIDGE && !name.ends_with("-in") && !name.ends_with("-out") {
        true => Ok(()),
        false => Err(LabError::Invalid(format!("{name:?} can be no node's name\nhint: want at most {NAME_BYTES_MAX} small letters, digits and dashes, as node7 or spare"))),
    }
}

impl NodeRecord {
    pub fn hosts_line(&self) -> String {
        format!("{} {}\n", self.address, self.name)
    }

    /// Ends as the IPv4 address does: 192.168.0.11 is fd6c:6162::11 as well.
    pub fn ipv6(&self) -> Ipv6Addr {
        // Digits as they are read, not as they count.
        let last = self.address.octets()[3];
        ipv6(u16::from_str_radix(&last.to_string(), 16).unwrap_or(u16::from(last)))
    }
}

impl Record {
    pub fn plan(nodes: usize, subnet: IpNet, classic: bool) -> Result<Self> {
        if nodes == 0 || nodes > NODES_MAX {
            return Err(LabError::Invalid(format!("a lab has 1 to {NODES_MAX} nodes, not {nodes}")));
        }
        let v4 = |offset| match subnet.nth(offset) {
            Some(IpAddr::V4(address)) => Ok(address),
            _ => Err(LabError::Invalid(format!("--subnet {subnet} is no range of IPv4 addresses with room for a lab"))),
        };
        if subnet.prefix() > PREFIX_MAX {
            return Err(LabError::Invalid(format!("--subnet {subnet} is too small: a lab needs a /{PREFIX_MAX} or larger")));
        }
        for (range, by) in USED_INSIDE {
            if range.parse::<IpNet>().is_ok_and(|range| range.overlaps(subnet)) {
                return Err(LabError::Taken { subnet: subnet.to_string(), by: by.to_owned() });
            }
        }
        let node = |number: usize| Ok(NodeRecord { name: format!("node{number}"), address: v4(FIRST_ADDRESS + number as u64 - 1)? });
        Ok(Self { gateway: v4(1)?, prefix: subnet.prefix(), nodes: (1..=nodes).map(node).collect::<Result<_>>()?, classic, bare: false, no_network: false })
    }

    /// One more: with the first address, and unless it has one, the first number that is free.
    pub fn next(&self, name: Option<&str>) -> Result<NodeRecord> {
        if let Some(name) = name {
            check_name(name)?;
        }
        let taken = |name: &str| self.nodes.iter().any(|node| node.name == name);
        if let Some(name) = name.filter(|name| taken(name)) {
            return Err(LabError::Invalid(format!("there is a node {name:?} already\nhint: `coracle lab status` shows them; without a name, the next number is taken")));
        }
        let base = u32::from(self.gateway) - 1 + FIRST_ADDRESS as u32;
        let free = (0..NODES_MAX as u32).find(|number| !self.nodes.iter().any(|node| u32::from(node.address) == base + number));
        let Some(number) = free else { return Err(LabError::Invalid(format!("a lab has at most {NODES_MAX} nodes"))) };
        let name = match name {
            Some(name) => name.to_owned(),
            None => (number + 1..).map(|number| format!("node{number}")).find(|name| !taken(name)).unwrap_or_default(),
        };
        Ok(NodeRecord { name, address: Ipv4Addr::from(base + number) })
    }

    pub fn read(layout: &Layout) -> Result<Option<Self>> {
        match std::fs::read(layout.record()) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| LabError::Io { what: format!("read {}", layout.record().display()), source: error.into() }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io(format!("read {}", layout.record().display()))(error)),
        }
    }

    pub fn must_read(layout: &Layout) -> Result<Self> {
        Self::read(layout)?.ok_or_else(|| LabError::None { folder: layout.folder.clone() })
    }

    pub fn write(&self, layout: &Layout) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(self).map_err(|error| LabError::Io { what: "write lab.json".into(), source: error.into() })?;
        files::replace_durably(&layout.record(), &bytes, files::READABLE).map_err(io(format!("write {}", layout.record().display())))
    }

    pub fn node(&self, name: &str) -> Result<&NodeRecord> {
        self.nodes.iter().find(|node| node.name == name).ok_or_else(|| {
            let known: Vec<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
            LabError::UnknownNode { name: name.to_owned(), known: known.join(", ") }
        })
    }

    /// `/etc/hosts` of every node. The first name of an address is what `hostname -i` is asked with: each has one address only.
    pub fn hosts(&self) -> String {
        let mut text = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n".to_owned();
        text.push_str(&format!("{} {}\n", self.gateway, mirror::NAMES.join(" ")));
        for node in &self.nodes {
            text.push_str(&node.hosts_line());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(nodes: usize, subnet: &str) -> Result<Record> {
        Record::plan(nodes, subnet.parse().unwrap(), false)
    }

    #[test]
    fn nodes_have_names_and_addresses() {
        let record = plan(2, "192.168.0.0/24").unwrap();
        assert_eq!(record.gateway, Ipv4Addr::new(192, 168, 0, 1));
        let of = |name: &str, last| NodeRecord { name: name.into(), address: Ipv4Addr::new(192, 168, 0, last) };
        assert_eq!(record.nodes, [of("node1", 11), of("node2", 12)]);
        assert!(record.hosts().ends_with("192.168.0.11 node1\n192.168.0.12 node2\n"));
        assert_eq!(record.nodes[0].ipv6().to_string(), "fd6c:6162::11");
        assert_eq!(record.node("node2").unwrap().address, Ipv4Addr::new(192, 168, 0, 12));
        assert_eq!(record.node("node3").unwrap_err().to_string(), "there is no node \"node3\" in this lab\nhint: it has node1, node2");
    }

    #[test]
    fn nodes_come_and_go() {
        let mut record = plan(2, "192.168.0.0/24").unwrap();
        let mut next = |name: Option<&str>| {
            let node = record.next(name)?;
            record.nodes.push(node.clone());
            Ok::<_, LabError>((node.name, node.address.octets()[3]))
        };
        assert_eq!(next(None).unwrap(), ("node3".into(), 13));
        assert_eq!(next(Some("spare")).unwrap(), ("spare".into(), 14));
        assert_eq!(next(None).unwrap(), ("node5".into(), 15));
        for (name, says) in [("node2", "there is a node \"node2\" already"), ("lab0", "no node's name"), ("Node", "no node's name"), ("a-very-long-name", "at most 11"), ("a-in", "no node's"), ("", "no node's")] {
            let error = next(Some(name)).unwrap_err().to_string();
            assert!(error.contains(says), "{name}: {error}");
        }
        record.nodes.retain(|node| node.name != "node2");
        assert_eq!(record.next(None).unwrap(), NodeRecord { name: "node2".into(), address: Ipv4Addr::new(192, 168, 0, 12) });
        record.nodes = (1..=50).map(|number| NodeRecord { name: format!("node{number}"), address: Ipv4Addr::new(192, 168, 0, 10 + number) }).collect();
        assert!(record.next(None).unwrap_err().to_string().contains("at most 50"));
    }

    #[test]
    fn what_cannot_be_is_said() {
        for (nodes, subnet, says) in [
            (0, "192.168.0.0/24", "a lab has 1 to 50 nodes, not 0"),
            (51, "192.168.0.0/24", "a lab has 1 to 50 nodes, not 51"),
            (2, "192.168.0.0/30", "too small"),
            (2, "fd00::/64", "too small"),
            (2, "fd00::/16", "no range of IPv4 addresses"),
            (2, "10.244.7.0/24", "taken: the cluster's pods"),
            (2, "10.0.0.0/8", "taken: the cluster's pods"),
            (2, "10.100.0.0/24", "taken: the cluster's Services"),
        ] {
            let error = plan(nodes, subnet).unwrap_err().to_string();
            assert!(error.contains(says), "{nodes} {subnet}: {error}");
        }
    }
}
