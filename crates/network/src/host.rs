//! The node's own addresses, and word when they change (a suspended laptop, another WLAN): rtnetlink multicast, nothing polls.


use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::sync::watch;

use crate::changes;
use crate::link::{self, Link};
use crate::netlink::{Result, Socket};
use crate::route;

/// What the node is reached by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostAddresses {
    /// The source address towards the default route; without one the first global address.
    pub ipv4: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
    /// Every other global address, pod network excepted.
    pub others: Vec<IpAddr>,
    /// Of the link with the default route; what a pod link may carry.
    pub mtu: Option<u32>,
}

impl HostAddresses {
    /// Primary address first: IPv4 if there is one.
    pub fn primary(&self) -> Option<IpAddr> {
        self.ipv4.map(IpAddr::from).or(self.ipv6.map(IpAddr::from))
    }
}

/// `ignore` are names (or beginnings of names) of links that are no way to the node: the pod network's own.
pub fn host_addresses(ignore: &[&str]) -> Result<HostAddresses> {
    let mut socket = Socket::open(libc::NETLINK_ROUTE)?;
    let links = link::list(&mut socket)?;
    let usable = |link: &&Link| link.is_up() && !link.is_loopback() && !ignore.iter().any(|name| link.name.starts_with(name));
    let usable: Vec<&Link> = links.iter().filter(usable).collect();
    let mut addresses: Vec<_> = route::list_addresses(&mut socket)?;
    addresses.retain(|a| a.global && usable.iter().any(|l| l.index == a.index));

    let mut host = HostAddresses::default();
    // Nothing is sent: any address beyond the node's own links will do, and these are reserved for documentation.
    for beyond in [IpAddr::from(Ipv4Addr::new(198, 51, 100, 1)), IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))] {
        let by_route = route::way_to(&mut socket, beyond)?.and_then(|way| Some((way.source?, way.index)));
        let by_route = by_route.filter(|(_, index)| usable.iter().any(|l| l.index == *index));
        let first = || addresses.iter().find(|a| a.address.is_ipv4() == beyond.is_ipv4()).map(|a| (a.address, a.index));
        let Some((address, index)) = by_route.or_else(first) else { continue };
        match address {
            IpAddr::V4(a) => host.ipv4 = Some(a),
            IpAddr::V6(a) => host.ipv6 = Some(a),
        }
        host.mtu = host.mtu.or_else(|| usable.iter().find(|l| l.index == index).map(|l| l.mtu));
    }
    let chosen = [host.ipv4.map(IpAddr::from), host.ipv6.map(IpAddr::from)];
    host.others = addresses.iter().map(|a| a.address).filter(|a| !chosen.contains(&Some(*a))).collect();
    Ok(host)
}

/// The addresses now, and each time they change. The watching task ends when the last receiver is dropped.
pub fn watch_host_addresses(ignore: Vec<String>) -> Result<watch::Receiver<HostAddresses>> {
    let read = move || host_addresses(&ignore.iter().map(String::as_str).collect::<Vec<_>>());
    // The ear first, then the look: no change is missed between them.
    let socket = Socket::of_changes("watch addresses")?;
    let (sender, receiver) = watch::channel(read()?);
    // What a change says is not needed: the state is read afresh.
    changes::follow(socket, sender, "addresses", |_, _| true, move |sender| match read() {
        Ok(now) => {
            sender.send_if_modified(|before| {
                let changed = *before != now;
                *before = now;
                changed
            });
        }
        Err(error) => tracing::warn!(%error, "read this node's addresses"),
    });
    Ok(receiver)
}
