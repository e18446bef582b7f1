//! A segment: a bridge in a network namespace of its own, and ports of it whose other ends are machines in theirs. What a lab is wired with.
//!
//! Promises: all of it lives in the namespaces given and goes with them; a port that is pulled carries nothing, in neither direction, until it is
//! plugged in again.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd;

use crate::link::{self, Link, Mac, UP, VethPair, info};
use crate::netlink::{NetlinkError, Request, Result, Socket};
use crate::netns;
use crate::route::octets;

const MTU: u32 = 1500;

/// The end of a machine's cable.
#[derive(Debug, Clone)]
pub struct Port<'a> {
    /// Of the link at the bridge.
    pub name: &'a str,
    /// Of the link in the machine.
    pub machine_link: &'a str,
    /// At least one; the link's hardware address is made from the first.
    pub addresses: &'a [PortAddress],
}

/// A machine's address of one family.
#[derive(Debug, Clone, Copy)]
pub struct PortAddress {
    pub address: IpAddr,
    pub prefix: u8,
    /// Where the machine's default route leads.
    pub gateway: IpAddr,
}

fn within<T: Send>(namespace: &File, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    netns::run_in(namespace, work).map_err(|error| NetlinkError::io("enter network namespace", error))?
}

fn must_find(socket: &mut Socket, name: &str) -> Result<Link> {
    link::find(socket, name)?.ok_or_else(|| NetlinkError::io(format!("find link {name}"), std::io::Error::from_raw_os_error(libc::ENODEV)))
}

/// An address together with the range that is on the link, as an administrator gives it.
fn add_address(request: &mut Request, index: u32, address: IpAddr, prefix: u8) {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut fixed = [family as u8, prefix, 0, libc::RT_SCOPE_UNIVERSE, 0, 0, 0, 0];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    // Nobody else on the segment can have it: no waiting for duplicates.
    if !address.is_ipv4() {
        fixed[2] = libc::IFA_F_NODAD as u8;
    }
    request.message(libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_REPLACE | libc::NLM_F_ACK, &fixed, |m| {
        m.bytes(libc::IFA_LOCAL, &octets(address)).bytes(libc::IFA_ADDRESS, &octets(address));
    });
}

/// The machine's own way out: not marked as the pod network's, which its reset would take away.
fn add_default_route(request: &mut Request, index: u32, gateway: IpAddr) {
    let mut fixed = [0u8; 12];
    fixed[0] = (if gateway.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }) as u8;
    fixed[4] = libc::RT_TABLE_MAIN;
    fixed[5] = libc::RTPROT_STATIC;
    fixed[6] = libc::RT_SCOPE_UNIVERSE;
    fixed[7] = libc::RTN_UNICAST;
    request.message(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_REPLACE | libc::NLM_F_ACK, &fixed, |m| {
        m.u32(libc::RTA_OIF, index).bytes(libc::RTA_GATEWAY, &octets(gateway));
    });
}

fn raise_loopback(socket: &mut Socket) -> Result<u32> {
    let lo = must_find(socket, "lo")?;
    link::set_up(socket, lo.index)?;
    Ok(lo.index)
}

/// Makes the bridge with its own addresses, and gives the namespace further addresses which it answers at.
pub fn create_bridge(namespace: &File, bridge: &str, addresses: &[(IpAddr, u8)], further: &[IpAddr]) -> Result<()> {
    within(namespace, || {
        let mut socket = Socket::open(libc::NETLINK_ROUTE)?;
        let lo = raise_loopback(&mut socket)?;
        let mut request = Request::new();
        request.message(libc::RTM_NEWLINK, libc::NLM_F_CREATE | libc::NLM_F_EXCL | libc::NLM_F_ACK, &info(0, UP, UP), |m| {
            m.text(libc::IFLA_IFNAME, bridge).u32(libc::IFLA_MTU, MTU);
            m.nest(libc::IFLA_LINKINFO, |m| {
                m.text(libc::IFLA_INFO_KIND, "bridge");
            });
        });
        socket.request(&format!("create bridge {bridge}"), &request)?;
        let index = must_find(&mut socket, bridge)?.index;
        let mut request = Request::new();
        for (address, prefix) in addresses {
            add_address(&mut request, index, *address, *prefix);
        }
        for address in further {
            add_address(&mut request, lo, *address, if address.is_ipv4() { 32 } else { 128 });
        }
        socket.request("give the bridge its address", &request).map(drop)
    })
}

/// Locally administered, from the address.
fn mac(address: IpAddr, first: u8) -> Mac {
    let octets = octets(address);
    let mut mac = [first, 0x42, 0, 0, 0, 0];
    mac[2..].copy_from_slice(&octets[octets.len() - 4..]);
    mac
}

/// Joins the machine in `machine` to the bridge.
pub fn plug_in(namespace: &File, bridge: &str, machine: &File, port: &Port<'_>) -> Result<()> {
    within(namespace, || {
        let mut socket = Socket::open(libc::NETLINK_ROUTE)?;
        let first = port.addresses.first().map_or(IpAddr::from([0, 0, 0, 0]), |first| first.address);
        let pair = VethPair { name: port.name, mac: mac(first, 0x06), mtu: MTU, peer_name: port.machine_link, peer_mac: mac(first, 0x02), peer_namespace: machine.as_fd() };
        // A machine that was switched off a moment ago may have left its end behind: the kernel takes links of dead namespaces away a little later.
        link::delete(&mut socket, port.name)?;
        link::create_veth(&mut socket, &pair)
    })?;
    set_bridge(namespace, port.name, Some(bridge))?;
    within(machine, || {
        let mut socket = Socket::open(libc::NETLINK_ROUTE)?;
        raise_loopback(&mut socket)?;
        let index = must_find(&mut socket, port.machine_link)?.index;
        link::set_up(&mut socket, index)?;
        let mut request = Request::new();
        for PortAddress { address, prefix, gateway } in port.addresses {
            add_address(&mut request, index, *address, *prefix);
            add_default_route(&mut request, index, *gateway);
        }
        socket.request("give the machine its address", &request).map(drop)
    })
}

/// Puts a link on a bridge, or takes it off every bridge.
pub fn set_bridge(namespace: &File, name: &str, bridge: Option<&str>) -> Result<()> {
    within(namespace, || {
        let mut socket = Socket::open(libc::NETLINK_ROUTE)?;
        let master = bridge.map(|bridge| must_find(&mut socket, bridge)).transpose()?.map_or(0, |bridge| bridge.index);
        let index = must_find(&mut socket, name)?.index;
        let mut request = Request::new();
        request.message(libc::RTM_NEWLINK, libc::NLM_F_ACK, &info(index, 0, 0), |m| {
            m.u32(libc::IFLA_MASTER, master);
        });
        socket.request(&format!("set bridge of {name}"), &request).map(drop)
    })
}

/// Pulls a port's cable, or puts it back.
pub fn set_plugged(namespace: &File, name: &str, plugged: bool) -> Result<()> {
    within(namespace, || {
        let mut socket = Socket::open(libc::NETLINK_ROUTE)?;
        let index = must_find(&mut socket, name)?.index;
        let mut request = Request::new();
        request.message(libc::RTM_NEWLINK, libc::NLM_F_ACK, &info(index, if plugged { UP } else { 0 }, UP), |_| {});
        socket.request(&format!("set state of {name}"), &request).map(drop)
    })
}

/// Whether a port's cable is in; `None` when there is no such port.
pub fn is_plugged(namespace: &File, name: &str) -> Result<Option<bool>> {
    within(namespace, || Ok(link::find(&mut Socket::open(libc::NETLINK_ROUTE)?, name)?.map(|link| link.is_up())))
}

/// Takes a port off the bridge and leads it through a pair of links of which the second is on the bridge: what arrives at the first of them, `inner`,
/// comes from the segment, and what is sent there goes to it. Whoever copies between `port` and `inner` is the cable.
pub fn splice(namespace: &File, bridge: &str, port: &str, inner: &str, outer: &str) -> Result<()> {
    set_bridge(namespace, port, None)?;
    within(namespace, || {
        let mut socket = Socket::open(libc::NETLINK_ROUTE)?;
        link::delete(&mut socket, inner)?;
        let pair = VethPair { name: inner, mac: [0x0a, 0x42, 0, 0, 0, 1], mtu: MTU, peer_name: outer, peer_mac: [0x0a, 0x42, 0, 0, 0, 2], peer_namespace: namespace.as_fd() };
        link::create_veth(&mut socket, &pair)?;
        // Only carries: the namespace's own addresses do not answer here.
        for name in [port, inner] {
            crate::sysctl::write(&format!("net/ipv4/conf/{name}/arp_ignore"), "8").map_err(|error| NetlinkError::io(format!("set arp_ignore of {name}"), error))?;
        }
        let index = must_find(&mut socket, outer)?.index;
        link::set_up(&mut socket, index)
    })?;
    set_bridge(namespace, outer, Some(bridge))
}

/// The port directly on the bridge again.
pub fn unsplice(namespace: &File, bridge: &str, port: &str, inner: &str) -> Result<()> {
    within(namespace, || link::delete(&mut Socket::open(libc::NETLINK_ROUTE)?, inner))?;
    set_bridge(namespace, port, Some(bridge))
}

/// The number of a link in this thread's namespace.
pub fn link_index(name: &str) -> Result<u32> {
    Ok(must_find(&mut Socket::open(libc::NETLINK_ROUTE)?, name)?.index)
}
