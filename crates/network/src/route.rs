//! Addresses, routes and neighbours over rtnetlink (`rt-addr`, `rt-route` and `rt-neigh` of `Documentation/netlink/specs`).

use std::net::IpAddr;

use crate::cidr::IpNet;
use crate::netlink::{Reply, Request, Result, Socket};

/// Marks our routes (`ip route show proto 67`), so that a clean-up knows them.
pub const PROTOCOL: u8 = 67;
/// Marks those that lead to other nodes, so that what is no longer wanted is known after a restart.
pub const PEER_PROTOCOL: u8 = 68;

const REPLACE: i32 = libc::NLM_F_CREATE | libc::NLM_F_REPLACE | libc::NLM_F_ACK;
const IFA_FLAGS: u16 = 8;
const RTNH_F_ONLINK: u32 = 4;

pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

pub fn address_of(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(octets).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(octets).ok()?)),
        _ => None,
    }
}

pub fn family(ipv4: bool) -> u8 {
    (if ipv4 { libc::AF_INET } else { libc::AF_INET6 }) as u8
}

fn host_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Gives a link an address, of a single host. Duplicate address detection is off: we own the range, and a pod cannot wait for it.
pub fn add_address(request: &mut Request, index: u32, address: IpAddr) {
    let mut fixed = [family(address.is_ipv4()), host_prefix(address), 0, libc::RT_SCOPE_UNIVERSE, 0, 0, 0, 0];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    request.message(libc::RTM_NEWADDR, REPLACE, &fixed, |m| {
        m.bytes(libc::IFA_LOCAL, &octets(address)).bytes(libc::IFA_ADDRESS, &octets(address));
        m.u32(IFA_FLAGS, libc::IFA_F_NODAD | libc::IFA_F_PERMANENT);
    });
}

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// Straight onto the link.
    Link { index: u32, source: Option<IpAddr> },
    /// To a neighbour on the link, which need not be in any of the link's ranges.
    Gateway { index: u32, gateway: IpAddr, source: Option<IpAddr> },
    /// Refused at once with an ICMP error.
    Unreachable,
}

/// A route in the main table.
pub fn add_route(request: &mut Request, destination: IpNet, via: Via) {
    add_route_to(request, libc::RT_TABLE_MAIN, PROTOCOL, destination, via);
}

/// `struct rtmsg` and attributes of one route.
pub fn add_route_to(request: &mut Request, table: u8, protocol: u8, destination: IpNet, via: Via) {
    let scope = match via {
        Via::Link { .. } if destination.is_ipv4() => libc::RT_SCOPE_LINK,
        _ => libc::RT_SCOPE_UNIVERSE,
    };
    let kind = if via == Via::Unreachable { libc::RTN_UNREACHABLE } else { libc::RTN_UNICAST };
    let mut fixed = [0u8; 12];
    fixed[0] = family(destination.is_ipv4());
    fixed[1] = destination.prefix();
    fixed[4] = table;
    fixed[5] = protocol;
    fixed[6] = scope;
    fixed[7] = kind;
    if matches!(via, Via::Gateway { .. }) {
        fixed[8..12].copy_from_slice(&(RTNH_F_ONLINK).to_ne_bytes());
    }
    request.message(libc::RTM_NEWROUTE, REPLACE, &fixed, |m| {
        if destination.prefix() > 0 {
            m.bytes(libc::RTA_DST, &octets(destination.address()));
        }
        match via {
            Via::Link { index, source } => {
                m.u32(libc::RTA_OIF, index);
                if let Some(source) = source {
                    m.bytes(libc::RTA_PREFSRC, &octets(source));
                }
            }
            Via::Gateway { index, gateway, source } => {
                m.u32(libc::RTA_OIF, index).bytes(libc::RTA_GATEWAY, &octets(gateway));
                if let Some(source) = source {
                    m.bytes(libc::RTA_PREFSRC, &octets(source));
                }
            }
            Via::Unreachable => {}
        }
    });
}

/// A route the kernel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    pub table: u8,
    pub protocol: u8,
    pub destination: IpNet,
    pub index: Option<u32>,
    pub gateway: Option<IpAddr>,
}

fn parse_route(reply: &Reply) -> Option<(Route, [u8; 12])> {
    let fixed = <[u8; 12]>::try_from(reply.fixed(12)).ok()?;
    let attributes = reply.attributes(12);
    let any: &[u8] = if i32::from(fixed[0]) == libc::AF_INET { &[0; 4] } else { &[0; 16] };
    let destination = IpNet::new(address_of(attributes.get(libc::RTA_DST).unwrap_or(any))?, fixed[1])?;
    let gateway = attributes.get(libc::RTA_GATEWAY).and_then(address_of);
    Some((Route { table: fixed[4], protocol: fixed[5], destination, index: attributes.u32(libc::RTA_OIF), gateway }, fixed))
}

fn dump(socket: &mut Socket, ipv4: bool) -> Result<Vec<Reply>> {
    let mut dump = Request::new();
    let mut fixed = [0u8; 12];
    fixed[0] = family(ipv4);
    dump.message(libc::RTM_GETROUTE, libc::NLM_F_DUMP, &fixed, |_| {});
    match socket.request("list routes", &dump) {
        // A kernel without IPv6.
        Err(error) if error.errno() == libc::EOPNOTSUPP => Ok(Vec::new()),
        other => Ok(other?.into_iter().filter(|reply| reply.kind == libc::RTM_NEWROUTE).collect()),
    }
}

/// The routes of both families that carry this mark.
pub fn list(socket: &mut Socket, protocol: u8) -> Result<Vec<Route>> {
    let mut routes = Vec::new();
    for ipv4 in [true, false] {
        routes.extend(dump(socket, ipv4)?.iter().filter_map(parse_route).map(|(route, _)| route).filter(|route| route.protocol == protocol));
    }
    Ok(routes)
}

/// Removing what is not there is refused with ESRCH.
pub fn delete_route(request: &mut Request, route: &Route) {
    let mut fixed = [0u8; 12];
    fixed[0] = family(route.destination.is_ipv4());
    fixed[1] = route.destination.prefix();
    fixed[4] = route.table;
    fixed[5] = route.protocol;
    fixed[6] = libc::RT_SCOPE_NOWHERE;
    request.message(libc::RTM_DELROUTE, libc::NLM_F_ACK, &fixed, |m| {
        m.bytes(libc::RTA_DST, &octets(route.destination.address()));
        if let Some(index) = route.index {
            m.u32(libc::RTA_OIF, index);
        }
    });
}

/// Removes every route that carries a mark of ours; those on links vanish with the link, the unreachable ones do not.
pub fn delete_ours(socket: &mut Socket) -> Result<()> {
    for ipv4 in [true, false] {
        let mut request = Request::new();
        for route in dump(socket, ipv4)? {
            let Some((_, mut fixed)) = parse_route(&route).filter(|(route, _)| matches!(route.protocol, PROTOCOL | PEER_PROTOCOL)) else { continue };
            fixed[8..12].fill(0);
            request.message(libc::RTM_DELROUTE, libc::NLM_F_ACK, &fixed, |m| {
                for (kind, value) in route.attributes(12) {
                    if matches!(kind, libc::RTA_DST | libc::RTA_OIF | libc::RTA_PRIORITY | libc::RTA_TABLE) {
                        m.bytes(kind, value);
                    }
                }
            });
        }
        if !request.is_empty() {
            socket.request_all("delete routes", &request, &mut Vec::new())?;
        }
    }
    Ok(())
}

/// An address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkAddress {
    pub index: u32,
    pub address: IpAddr,
    /// Reachable from beyond the link.
    pub global: bool,
}

pub fn list_addresses(socket: &mut Socket) -> Result<Vec<LinkAddress>> {
    let mut request = Request::new();
    request.message(libc::RTM_GETADDR, libc::NLM_F_DUMP, &[0; 8], |_| {});
    let parse = |reply: &Reply| {
        let fixed = reply.fixed(8);
        let attributes = reply.attributes(8);
        let address = attributes.get(libc::IFA_LOCAL).or_else(|| attributes.get(libc::IFA_ADDRESS))?;
        Some(LinkAddress {
            index: u32::from_ne_bytes(fixed.get(4..8)?.try_into().ok()?),
            address: address_of(address)?,
            global: *fixed.get(3)? == libc::RT_SCOPE_UNIVERSE,
        })
    };
    Ok(socket.request("list addresses", &request)?.iter().filter_map(parse).collect())
}

/// What the kernel would do with a packet to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    pub source: Option<IpAddr>,
    pub index: u32,
    /// Whoever it would be handed to, if not to the address itself.
    pub gateway: Option<IpAddr>,
    /// To this host itself.
    pub local: bool,
}

/// `None` when there is no route.
pub fn way_to(socket: &mut Socket, destination: IpAddr) -> Result<Option<Way>> {
    const VIA: u16 = 18;
    let mut fixed = [0u8; 12];
    fixed[0] = family(destination.is_ipv4());
    fixed[1] = host_prefix(destination);
    let mut request = Request::new();
    request.message(libc::RTM_GETROUTE, 0, &fixed, |m| {
        m.bytes(libc::RTA_DST, &octets(destination));
    });
    match socket.request("look up route", &request) {
        Ok(replies) => Ok(replies.iter().find_map(|reply| {
            let attributes = reply.attributes(12);
            // A gateway of the other family comes after that family's number.
            let gateway = attributes.get(libc::RTA_GATEWAY).or_else(|| attributes.get(VIA)?.get(2..));
            Some(Way {
                source: attributes.get(libc::RTA_PREFSRC).and_then(address_of),
                index: attributes.u32(libc::RTA_OIF)?,
                gateway: gateway.and_then(address_of),
                local: *reply.fixed(12).get(7)? != libc::RTN_UNICAST,
            })
        })),
        Err(error) if matches!(error.errno(), libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EOPNOTSUPP | libc::EACCES | libc::EINVAL) => Ok(None),
        Err(error) => Err(error),
    }
}
