//! Brings the kernel to what [`crate::peers`] wants: reads what is there, and writes only the difference. So it may be called at any time,
//! after a restart or after somebody else's change too, and traffic goes on meanwhile.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::cidr::IpNet;
use crate::link::{self, Link, Vxlan};
use crate::neighbour;
use crate::netlink::{Attributes, NetlinkError, Request, Socket};
use crate::nft::Family;
use crate::peers::{self, Peer, Reach, Tunnel, View, Wanted};
use crate::pod::PodNetError;
use crate::route::{self, PEER_PROTOCOL, Route, Via};
use crate::sysctl;

/// The table of routes that only pods use: to nodes inside of tunnels.
const PODS_TABLE: u8 = 67;
/// Before the main table (32766), after what others put at the front.
const RULE_PRIORITY: u32 = 20_067;
const TUNNELS: [Family; 2] = [Family::Ipv4, Family::Ipv6];

const fn tunnel_name(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "coracle-vx4",
        Family::Ipv6 => "coracle-vx6",
    }
}

/// `own_links` are names, or beginnings of names, of the pod network's own links.
pub fn set(socket: &mut Socket, pod_cidrs: &[IpNet], own_links: &[&str], peers: &[Peer]) -> Result<Wanted, PodNetError> {
    let links = link::list(socket)?;
    let reach = reach(socket, &links, own_links, peers)?;
    let wanted = peers::plan(&View { pod_cidrs, peers, reach: &reach });
    let mut indices = BTreeMap::new();
    for (family, tunnel) in &wanted.tunnels {
        let index = open_tunnel(socket, *family, tunnel, pod_cidrs)?;
        enter_ends(socket, index, tunnel)?;
        indices.insert(*family, index);
    }
    sync_routes(socket, &wanted, &indices, pod_cidrs)?;
    sync_rules(socket, pod_cidrs, wanted.tunnels.values().any(|tunnel| !tunnel.nodes.is_empty()))?;
    for (family, tunnel) in &wanted.tunnels {
        if let Some(index) = indices.get(family) {
            forget_ends(socket, *index, tunnel)?;
        }
    }
    for family in TUNNELS.into_iter().filter(|family| !wanted.tunnels.contains_key(family)) {
        if links.iter().any(|link| link.name == tunnel_name(family)) {
            link::delete(socket, tunnel_name(family))?;
        }
    }
    Ok(wanted)
}

/// Takes back what routes alone do not: tunnels and rules.
pub fn reset(socket: &mut Socket) -> Result<(), NetlinkError> {
    for family in TUNNELS {
        link::delete(socket, tunnel_name(family))?;
    }
    sync_rules(socket, &[], false)
}

fn reach(socket: &mut Socket, links: &[Link], own_links: &[&str], peers: &[Peer]) -> Result<BTreeMap<IpAddr, Reach>, NetlinkError> {
    let mut reach = BTreeMap::new();
    for address in peers.iter().flat_map(|peer| &peer.addresses) {
        let Some(way) = route::way_to(socket, *address)?.filter(|way| !way.local) else { continue };
        let Some(link) = links.iter().find(|link| link.index == way.index) else { continue };
        if link.is_loopback() || own_links.iter().any(|name| link.name.starts_with(name)) {
            continue;
        }
        let found = match way.gateway {
            // On a link of two ends (a tunnel of somebody else's) only what that was told of passes.
            None if link.has_neighbours() => Reach::Link { index: link.index, mtu: link.mtu },
            _ => Reach::Router { mtu: link.mtu },
        };
        reach.insert(*address, found);
    }
    Ok(reach)
}

fn open_tunnel(socket: &mut Socket, family: Family, tunnel: &Tunnel, pod_cidrs: &[IpNet]) -> Result<u32, PodNetError> {
    let name = tunnel_name(family);
    let mac = peers::tunnel_mac(pod_cidrs);
    let mut found = link::find(socket, name)?;
    if found.as_ref().is_some_and(|link| link.mac != Some(mac)) {
        link::delete(socket, name)?;
        found = None;
    }
    if found.is_none() {
        let wanted = Vxlan { name, mac, mtu: tunnel.mtu, id: peers::VXLAN_ID, port: peers::VXLAN_PORT, ipv4: family == Family::Ipv4 };
        link::create_vxlan(socket, &wanted)?;
        // What arrives here comes from pods, and from nodes by addresses that the main table leads elsewhere.
        let key = format!("net/ipv4/conf/{name}/rp_filter");
        sysctl::write(&key, "0").map_err(|source| PodNetError::Io { what: format!("set {key}"), source })?;
        found = link::find(socket, name)?;
    }
    let link = found.ok_or_else(|| PodNetError::LinkGone(name.to_owned()))?;
    if link.mtu != tunnel.mtu {
        link::set_mtu(socket, link.index, tunnel.mtu)?;
    }
    if !link.is_up() {
        link::set_up(socket, link.index)?;
    }
    Ok(link.index)
}

fn enter_ends(socket: &mut Socket, index: u32, tunnel: &Tunnel) -> Result<(), NetlinkError> {
    let (ends, neighbours) = (neighbour::list_ends(socket, index)?, neighbour::list(socket, index)?);
    let mut request = Request::new();
    for (mac, end) in tunnel.ends.iter().filter(|(mac, end)| ends.get(*mac) != Some(end)) {
        neighbour::add_end(&mut request, index, *mac, *end);
    }
    for (address, mac) in tunnel.neighbours.iter().filter(|(address, mac)| neighbours.get(*address) != Some(mac)) {
        neighbour::add(&mut request, index, *address, *mac);
    }
    if request.is_empty() { Ok(()) } else { socket.request("enter the ends of the tunnel", &request).map(drop) }
}

fn forget_ends(socket: &mut Socket, index: u32, tunnel: &Tunnel) -> Result<(), NetlinkError> {
    let mut request = Request::new();
    for (mac, end) in neighbour::list_ends(socket, index)?.into_iter().filter(|(mac, _)| !tunnel.ends.contains_key(mac)) {
        neighbour::delete_end(&mut request, index, mac, end);
    }
    for (address, _) in neighbour::list(socket, index)?.into_iter().filter(|(address, _)| !address.is_multicast() && !tunnel.neighbours.contains_key(address)) {
        neighbour::delete(&mut request, index, address);
    }
    delete(socket, "forget ends of the tunnel", &request)
}

/// Deletions of what may be gone by itself already.
fn delete(socket: &mut Socket, operation: &str, request: &Request) -> Result<(), NetlinkError> {
    if request.is_empty() {
        return Ok(());
    }
    let errors = socket.request_all(operation, request, &mut Vec::new())?;
    errors.into_iter().find(|error| !matches!(error.errno(), libc::ENOENT | libc::ESRCH)).map_or(Ok(()), Err)
}

fn sync_routes(socket: &mut Socket, wanted: &Wanted, indices: &BTreeMap<Family, u32>, pod_cidrs: &[IpNet]) -> Result<(), NetlinkError> {
    let source_for = |net: IpNet| pod_cidrs.iter().find(|own| own.is_ipv4() == net.is_ipv4()).map(|own| own.gateway());
    let main = libc::RT_TABLE_MAIN;
    let mut routes: BTreeMap<(u8, IpNet), (u32, IpAddr, Option<IpAddr>)> = BTreeMap::new();
    for (net, (index, gateway)) in &wanted.direct {
        // The node speaks by the address it has on that link.
        routes.insert((main, *net), (*index, *gateway, None));
    }
    for (family, tunnel) in &wanted.tunnels {
        let Some(index) = indices.get(family) else { continue };
        for (net, gateway) in &tunnel.routes {
            routes.insert((main, *net), (*index, *gateway, source_for(*net)));
        }
        for (net, gateway) in &tunnel.nodes {
            routes.insert((PODS_TABLE, *net), (*index, *gateway, None));
        }
    }
    let have = route::list(socket, PEER_PROTOCOL)?;
    let mut request = Request::new();
    for ((table, net), (index, gateway, source)) in &routes {
        let wanted = Route { table: *table, protocol: PEER_PROTOCOL, destination: *net, index: Some(*index), gateway: Some(*gateway) };
        if !have.contains(&wanted) {
            let via = Via::Gateway { index: *index, gateway: *gateway, source: *source };
            route::add_route_to(&mut request, *table, PEER_PROTOCOL, *net, via);
        }
    }
    if !request.is_empty() {
        socket.request("route to the pods of other nodes", &request)?;
    }
    let mut request = Request::new();
    for route in have.iter().filter(|route| !routes.contains_key(&(route.table, route.destination))) {
        route::delete_route(&mut request, route);
    }
    delete(socket, "remove routes to nodes that are gone", &request)
}

/// `ip rule`: what comes from our pods looks into their table first. One rule for each of our ranges, or none.
fn sync_rules(socket: &mut Socket, pod_cidrs: &[IpNet], wanted: bool) -> Result<(), NetlinkError> {
    const TABLE: u16 = 15;
    const SOURCE: u16 = 2;
    const PRIORITY: u16 = 6;
    const PROTOCOL: u16 = 21;
    const TO_TABLE: u8 = 1;
    let fixed = |net: &IpNet| [route::family(net.is_ipv4()), 0, net.prefix(), 0, PODS_TABLE, 0, 0, TO_TABLE, 0, 0, 0, 0];
    let body = |m: &mut Request, net: &IpNet| {
        m.bytes(SOURCE, &route::octets(net.address())).u32(PRIORITY, RULE_PRIORITY).u32(TABLE, u32::from(PODS_TABLE)).u8(PROTOCOL, PEER_PROTOCOL);
    };
    let mut have: Vec<IpNet> = Vec::new();
    for ipv4 in [true, false] {
        let mut dump = Request::new();
        dump.message(libc::RTM_GETRULE, libc::NLM_F_DUMP, &[route::family(ipv4), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], |_| {});
        let replies = match socket.request("list routing rules", &dump) {
            Err(error) if matches!(error.errno(), libc::EOPNOTSUPP | libc::EAFNOSUPPORT) => continue,
            other => other?,
        };
        have.extend(replies.iter().filter_map(|reply| {
            let attributes: Attributes<'_> = reply.attributes(12);
            attributes.get(PROTOCOL).filter(|protocol| *protocol == [PEER_PROTOCOL])?;
            IpNet::new(route::address_of(attributes.get(SOURCE)?)?, *reply.fixed(12).get(2)?)
        }));
    }
    let nets = if wanted { pod_cidrs } else { &[] };
    let mut request = Request::new();
    for net in nets.iter().filter(|net| !have.contains(net)) {
        request.message(libc::RTM_NEWRULE, libc::NLM_F_CREATE | libc::NLM_F_EXCL | libc::NLM_F_ACK, &fixed(net), |m| body(m, net));
    }
    if !request.is_empty() {
        socket.request("add routing rules for pods", &request)?;
    }
    let mut request = Request::new();
    for net in have.iter().filter(|net| !nets.contains(net)) {
        request.message(libc::RTM_DELRULE, libc::NLM_F_ACK, &fixed(net), |m| body(m, net));
    }
    delete(socket, "delete routing rules for pods", &request)
}
