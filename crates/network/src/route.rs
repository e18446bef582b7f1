//! Addresses, routes and neighbours over rtnetlink (`rt-addr`, `rt-route` and `rt-neigh` of `Documentation/netlink/specs`).

use std::net::IpAddr;

use crate::cidr::IpNet;
use crate::link::Mac;
use crate::netlink::{Reply, Request, Result, Socket};

/// Marks our routes (`ip route show proto 67`), so that a clean-up knows them.
pub const PROTOCOL: u8 = 67;

const REPLACE: i32 = libc::NLM_F_CREATE | libc::NLM_F_REPLACE | libc::NLM_F_ACK;
const IFA_FLAGS: u16 = 8;
const RTNH_F_ONLINK: u32 = 4;
const NUD_PERMANENT: u16 = 0x80;

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

fn family(ipv4: bool) -> u8 {
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
    Gateway { index: u32, gateway: IpAddr },
    /// Refused at once with an ICMP error.
    Unreachable,
}

/// `struct rtmsg` and attributes of one route in the main table.
pub fn add_route(request: &mut Request, destination: IpNet, via: Via) {
    let scope = match via {
        Via::Link { .. } if destination.is_ipv4() => libc::RT_SCOPE_LINK,
        _ => libc::RT_SCOPE_UNIVERSE,
    };
    let kind = if via == Via::Unreachable { libc::RTN_UNREACHABLE } else { libc::RTN_UNICAST };
    let mut fixed = [0u8; 12];
    fixed[0] = family(destination.is_ipv4());
    fixed[1] = destination.prefix();
    fixed[4] = libc::RT_TABLE_MAIN;
    fixed[5] = PROTOCOL;
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
            Via::Gateway { index, gateway } => {
                m.u32(libc::RTA_OIF, index).bytes(libc::RTA_GATEWAY, &octets(gateway));
            }
            Via::Unreachable => {}
        }
    });
}

/// Removes every route that carries our mark; those on links vanish with the link, the unreachable ones do not.
pub fn delete_ours(socket: &mut Socket) -> Result<()> {
    for ipv4 in [true, false] {
        let mut dump = Request::new();
        let mut fixed = [0u8; 12];
        fixed[0] = family(ipv4);
        dump.message(libc::RTM_GETROUTE, libc::NLM_F_DUMP, &fixed, |_| {});
        let routes = match socket.request("list routes", &dump) {
            Ok(routes) => routes,
            // A kernel without IPv6.
            Err(error) if error.errno() == libc::EOPNOTSUPP => continue,
            Err(error) => return Err(error),
        };
        let mut request = Request::new();
        for route in routes.iter().filter(|r| r.kind == libc::RTM_NEWROUTE && r.fixed(12).get(5) == Some(&PROTOCOL)) {
            let Ok(mut fixed) = <[u8; 12]>::try_from(route.fixed(12)) else { continue };
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

/// A neighbour that never needs asking for.
pub fn add_neighbour(request: &mut Request, index: u32, address: IpAddr, mac: Mac) {
    let mut fixed = [0u8; 12];
    fixed[0] = family(address.is_ipv4());
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
    request.message(libc::RTM_NEWNEIGH, REPLACE, &fixed, |m| {
        m.bytes(libc::NDA_DST, &octets(address)).bytes(libc::NDA_LLADDR, &mac);
    });
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

/// The source address and the link index the kernel would use towards `destination`; `None` when there is no route.
pub fn source_towards(socket: &mut Socket, destination: IpAddr) -> Result<Option<(IpAddr, u32)>> {
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
            Some((address_of(attributes.get(libc::RTA_PREFSRC)?)?, attributes.u32(libc::RTA_OIF)?))
        })),
        Err(error) if matches!(error.errno(), libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EOPNOTSUPP | libc::EACCES) => Ok(None),
        Err(error) => Err(error),
    }
}
