//! What a lab is: `lab.json`, written once by `up`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use network::IpNet;
use serde::{Deserialize, Serialize};

use crate::error::{LabError, Result, io};
use crate::layout::Layout;
use crate::mirror;

/// The first node's address in the segment, as in the classrooms of old: 192.168.0.11, …12, …13.
const FIRST_ADDRESS: u64 = 11;
/// The segment's other family; its last part counts as the IPv4 addresses do.
const SEGMENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd6c, 0x6162, 0, 0, 0, 0, 0, 0);
pub const PREFIX_V6: u8 = 64;
/// More than a laptop wants; the segment has room.
pub const NODES_MAX: usize = 50;
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

impl NodeRecord {
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
        Ok(Self { gateway: v4(1)?, prefix: subnet.prefix(), nodes: (1..=nodes).map(node).collect::<Result<_>>()?, classic })
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
        std::fs::write(layout.record(), bytes).map_err(io(format!("write {}", layout.record().display())))
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
            text.push_str(&format!("{} {}\n", node.address, node.name));
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
