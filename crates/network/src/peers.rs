//! Where the pods of other nodes are: from a view of the nodes to the routes, neighbours and tunnel ends this node should have. Pure.
//!
//! A peer that is on a link with us is reached straight through its own address; any other through a VXLAN tunnel, which exists only while
//! somebody is reached by it (`docs/adr/0013-routes-between-nodes.md`). Nothing of it is agreed upon between nodes: both ends derive the same
//! hardware addresses from the nodes' pod ranges. Nothing is ever flooded: a tunnel knows its ends or drops.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::cidr::IpNet;
use crate::link::Mac;
use crate::nft::Family;
use crate::ranges::host;
use crate::route::octets;
use crate::service::short_hash;

/// The number of the cluster's network inside the tunnels.
pub const VXLAN_ID: u32 = 67;
/// Where tunnels listen: the port that IANA gave to VXLAN.
pub const VXLAN_PORT: u16 = 4789;
/// What a tunnel adds to a packet: outer IP header, UDP 8, VXLAN 8, inner Ethernet 14.
const OVERHEAD_V4: u32 = 20 + 8 + 8 + 14;
const OVERHEAD_V6: u32 = 40 + 8 + 8 + 14;
/// The least an IPv6 link must carry.
const MTU_MIN: u32 = 1280;

/// Another node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Peer {
    pub name: String,
    /// What it is reached by, primary first.
    pub addresses: Vec<IpAddr>,
    /// Of its pods.
    pub pod_cidrs: Vec<IpNet>,
}

/// How the kernel sends to an address of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// On this link, with nobody in between.
    Link { index: u32, mtu: u32 },
    /// By a router, over a link with this MTU.
    Router { mtu: u32 },
}

impl Reach {
    fn mtu(self) -> u32 {
        match self {
            Self::Link { mtu, .. } | Self::Router { mtu } => mtu,
        }
    }
}

pub struct View<'a> {
    /// This node's pod ranges.
    pub pod_cidrs: &'a [IpNet],
    pub peers: &'a [Peer],
    /// Addresses of peers that lead anywhere; neither our own nor those without a route are in it.
    pub reach: &'a BTreeMap<IpAddr, Reach>,
}

/// A tunnel over one family, as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tunnel {
    pub mtu: u32,
    /// Hardware address of a peer's end to the peer's address.
    pub ends: BTreeMap<Mac, IpAddr>,
    /// The peers' own addresses in their pod ranges to the hardware addresses of their ends.
    pub neighbours: BTreeMap<IpAddr, Mac>,
    /// Pod ranges to the neighbour they are behind.
    pub routes: BTreeMap<IpNet, IpAddr>,
    /// Addresses of the peers themselves: our pods go there inside of the tunnel too, so that they are seen by their own addresses.
    pub nodes: BTreeMap<IpNet, IpAddr>,
}

/// All that leads to other nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Pod ranges to the link and the neighbour they are behind.
    pub direct: BTreeMap<IpNet, (u32, IpAddr)>,
    /// By the family of the addresses they run over.
    pub tunnels: BTreeMap<Family, Tunnel>,
    /// What pods reach with their own addresses: pod ranges and nodes.
    pub inside: BTreeSet<IpNet>,
    /// Peers that cannot be reached, with the reason.
    pub left_out: Vec<(String, &'static str)>,
}

impl Wanted {
    /// The largest packet that gets through to every peer; `None` without tunnels.
    pub fn tunnel_mtu(&self) -> Option<u32> {
        self.tunnels.values().map(|tunnel| tunnel.mtu).min()
    }
}

/// Of a node's end of the tunnels: locally administered, derived from its first pod range, which no other node has.
pub fn tunnel_mac(pod_cidrs: &[IpNet]) -> Mac {
    let mut mac = [0x0a, 0x59, 0, 0, 0, 0];
    if let Some(first) = pod_cidrs.first() {
        let bytes = match octets(first.address()) {
            octets if octets.len() == 4 => octets,
            octets => (short_hash(&octets) as u32).to_be_bytes().to_vec(),
        };
        mac[2..].copy_from_slice(&bytes);
    }
    mac
}

pub fn plan(view: &View<'_>) -> Wanted {
    let mut wanted = Wanted::default();
    let mut taken: Vec<IpNet> = view.pod_cidrs.to_vec();
    for peer in view.peers {
        let reached: Vec<(IpAddr, Reach)> = peer.addresses.iter().filter_map(|address| Some((*address, *view.reach.get(address)?))).collect();
        if !peer.pod_cidrs.is_empty() && reached.is_empty() {
            wanted.left_out.push((peer.name.clone(), "no route leads to its addresses"));
            continue;
        }
        if peer.pod_cidrs.iter().any(|net| taken.iter().any(|other| net.overlaps(*other))) {
            wanted.left_out.push((peer.name.clone(), "its pod range is another node's"));
            continue;
        }
        taken.extend(&peer.pod_cidrs);
        place(&mut wanted, peer, &reached);
    }
    wanted
}

fn place(wanted: &mut Wanted, peer: &Peer, reached: &[(IpAddr, Reach)]) {
    let mac = tunnel_mac(&peer.pod_cidrs);
    // Where its tunnel ends, if any of its ranges needs one.
    let end = reached.first().copied();
    let mut tunnelled = Vec::new();
    for net in &peer.pod_cidrs {
        let same_family = |address: &IpAddr| address.is_ipv4() == net.is_ipv4();
        let direct = reached.iter().find_map(|(address, reach)| match reach {
            Reach::Link { index, .. } if same_family(address) => Some((*index, *address)),
            _ => None,
        });
        let Some((end, reach)) = end else { continue };
        wanted.inside.insert(*net);
        match direct {
            Some(hop) => drop(wanted.direct.insert(*net, hop)),
            None => {
                let (family, overhead) = if end.is_ipv4() { (Family::Ipv4, OVERHEAD_V4) } else { (Family::Ipv6, OVERHEAD_V6) };
                let mtu = reach.mtu().saturating_sub(overhead).max(MTU_MIN);
                let tunnel = wanted.tunnels.entry(family).or_insert_with(|| Tunnel { mtu, ..Tunnel::default() });
                tunnel.mtu = tunnel.mtu.min(mtu);
                tunnel.ends.insert(mac, end);
                tunnel.neighbours.insert(net.gateway(), mac);
                tunnel.routes.insert(*net, net.gateway());
                tunnelled.push((family, *net));
            }
        }
    }
    for (address, reach) in reached {
        // What pods send to a node without a tunnel passes only where nobody is in between: a router knows no pod addresses.
        let inside = match reach {
            Reach::Link { .. } => true,
            Reach::Router { .. } => {
                let by = tunnelled.iter().find(|(_, net)| net.is_ipv4() == address.is_ipv4());
                if let Some((family, net)) = by
                    && let Some(tunnel) = wanted.tunnels.get_mut(family)
                {
                    tunnel.nodes.insert(host(*address), net.gateway());
                }
                by.is_some()
            }
        };
        if inside {
            wanted.inside.insert(host(*address));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    fn peer(name: &str, addresses: &[&str], cidrs: &[&str]) -> Peer {
        let addresses = addresses.iter().map(|text| text.parse().expect(text)).collect();
        Peer { name: name.into(), addresses, pod_cidrs: cidrs.iter().map(|text| text.parse().expect(text)).collect() }
    }

    /// 192.0.2.0/24 and 2001:db8:1::/64 are on link 3, 198.51.100.0/24 and 2001:db8:2::/64 behind a router.
    fn show(peers: &[Peer]) -> String {
        let own: Vec<IpNet> = vec!["10.244.0.0/24".parse().expect("net"), "fd00:10:244::/64".parse().expect("net")];
        let reach = peers.iter().flat_map(|peer| &peer.addresses).filter_map(|address| {
            let text = address.to_string();
            let on_link = text.starts_with("192.0.2.") || text.starts_with("2001:db8:1:");
            let routed = text.starts_with("198.51.100.") || text.starts_with("2001:db8:2:");
            let reach = if on_link { Reach::Link { index: 3, mtu: 1500 } } else { Reach::Router { mtu: 1500 } };
            (on_link || routed).then_some((*address, reach))
        });
        let wanted = plan(&View { pod_cidrs: &own, peers, reach: &reach.collect() });
        let mut text = String::new();
        for (net, (index, gateway)) in &wanted.direct {
            writeln!(text, "{net} via {gateway} link {index}").expect("write");
        }
        for (family, tunnel) in &wanted.tunnels {
            writeln!(text, "tunnel {family:?} mtu {}", tunnel.mtu).expect("write");
            let hex = |mac: &Mac| mac.map(|byte| format!("{byte:02x}")).join(":");
            tunnel.ends.iter().for_each(|(mac, end)| writeln!(text, " {} at {end}", hex(mac)).expect("write"));
            tunnel.neighbours.iter().for_each(|(address, mac)| writeln!(text, " {address} is {}", hex(mac)).expect("write"));
            tunnel.routes.iter().for_each(|(net, via)| writeln!(text, " {net} via {via}").expect("write"));
            tunnel.nodes.iter().for_each(|(net, via)| writeln!(text, " pods to {net} via {via}").expect("write"));
        }
        let inside: Vec<String> = wanted.inside.iter().map(ToString::to_string).collect();
        write!(text, "inside {}", inside.join(" ")).expect("write");
        wanted.left_out.iter().for_each(|(name, why)| write!(text, "\n{name}: {why}").expect("write"));
        text
    }

    #[test]
    fn by_link_or_by_tunnel() {
        let cases: [(&str, Vec<Peer>, &str); 8] = [
            ("alone", vec![], "inside "),
            ("on a link", vec![peer("b", &["192.0.2.2"], &["10.244.1.0/24"])], "10.244.1.0/24 via 192.0.2.2 link 3\ninside 10.244.1.0/24 192.0.2.2/32"),
            (
                "behind a router",
                vec![peer("b", &["198.51.100.2"], &["10.244.1.0/24"])],
                "tunnel Ipv4 mtu 1450\n 0a:59:0a:f4:01:00 at 198.51.100.2\n 10.244.1.1 is 0a:59:0a:f4:01:00\n 10.244.1.0/24 via 10.244.1.1\n \
                 pods to 198.51.100.2/32 via 10.244.1.1\ninside 10.244.1.0/24 198.51.100.2/32",
            ),
            (
                "two families on a link",
                vec![peer("b", &["192.0.2.2", "2001:db8:1::2"], &["10.244.1.0/24", "fd00:10:244:1::/64"])],
                "10.244.1.0/24 via 192.0.2.2 link 3\nfd00:10:244:1::/64 via 2001:db8:1::2 link 3\ninside 10.244.1.0/24 192.0.2.2/32 2001:db8:1::2/128 fd00:10:244:1::/64",
            ),
            (
                "pods of two families, a node of one",
                vec![peer("b", &["192.0.2.2"], &["10.244.1.0/24", "fd00:10:244:1::/64"])],
                "10.244.1.0/24 via 192.0.2.2 link 3\ntunnel Ipv4 mtu 1450\n 0a:59:0a:f4:01:00 at 192.0.2.2\n fd00:10:244:1::1 is 0a:59:0a:f4:01:00\n \
                 fd00:10:244:1::/64 via fd00:10:244:1::1\ninside 10.244.1.0/24 192.0.2.2/32 fd00:10:244:1::/64",
            ),
            (
                "IPv6 only, behind a router",
                vec![peer("b", &["2001:db8:2::2"], &["fd00:10:244:1::/64"])],
                "tunnel Ipv6 mtu 1430\n 0a:59:fa:62:82:91 at 2001:db8:2::2\n fd00:10:244:1::1 is 0a:59:fa:62:82:91\n fd00:10:244:1::/64 via fd00:10:244:1::1\n \
                 pods to 2001:db8:2::2/128 via fd00:10:244:1::1\ninside 2001:db8:2::2/128 fd00:10:244:1::/64",
            ),
            (
                "no way, no range, somebody else's range",
                vec![peer("b", &["203.0.113.9"], &["10.244.1.0/24"]), peer("c", &["192.0.2.3"], &[]), peer("d", &["192.0.2.4"], &["10.244.0.128/25"])],
                "inside 192.0.2.3/32\nb: no route leads to its addresses\nd: its pod range is another node's",
            ),
            (
                "the first of two with one range",
                vec![peer("b", &["192.0.2.2"], &["10.244.1.0/24"]), peer("c", &["192.0.2.3"], &["10.244.1.0/24"])],
                "10.244.1.0/24 via 192.0.2.2 link 3\ninside 10.244.1.0/24 192.0.2.2/32\nc: its pod range is another node's",
            ),
        ];
        for (what, peers, expected) in cases {
            assert_eq!(show(&peers), expected, "{what}");
        }
    }

    #[test]
    fn the_smallest_link_decides() {
        let mut reach = BTreeMap::from([("198.51.100.2".parse().expect("ip"), Reach::Router { mtu: 9000 }), ("198.51.100.3".parse().expect("ip"), Reach::Router { mtu: 1400 })]);
        let peers = [peer("b", &["198.51.100.2"], &["10.244.1.0/24"]), peer("c", &["198.51.100.3"], &["10.244.2.0/24"])];
        assert_eq!(plan(&View { pod_cidrs: &[], peers: &peers, reach: &reach }).tunnel_mtu(), Some(1350));
        reach.clear();
        assert_eq!(plan(&View { pod_cidrs: &[], peers: &peers, reach: &reach }).tunnel_mtu(), None);
    }
}
