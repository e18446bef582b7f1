//! Addresses of the node's own that no other machine knows, on a link that only carries them; and a pod's own loopback.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use crate::link;
use crate::netlink::{NetlinkError, Request, Result, Socket};
use crate::netns;
use crate::route;

const MTU: u32 = 1500;

/// Makes the link, or takes over what is there; repeating it changes nothing.
pub fn hold(name: &str, addresses: &[IpAddr]) -> Result<()> {
    let mut socket = Socket::open(libc::NETLINK_ROUTE)?;
    link::create_holder(&mut socket, name, MTU)?;
    let holder = link::find(&mut socket, name)?.ok_or_else(|| NetlinkError::io(format!("find link {name}"), io::Error::from_raw_os_error(libc::ENODEV)))?;
    let mut request = Request::new();
    for address in addresses {
        route::add_address(&mut request, holder.index, *address);
    }
    if request.is_empty() { Ok(()) } else { socket.request("give a link its addresses", &request).map(drop) }
}

/// Of what is not there nothing is said.
pub fn release(name: &str) -> Result<()> {
    link::delete(&mut Socket::open(libc::NETLINK_ROUTE)?, name)
}

/// Raises `lo` in a namespace: network plugins leave that to the runtime.
pub fn raise_loopback(namespace: &Path) -> Result<()> {
    let failed = |error| NetlinkError::io(format!("open {}", namespace.display()), error);
    let file = File::open(namespace).map_err(failed)?;
    netns::run_in(&file, || {
        let mut socket = Socket::open(libc::NETLINK_ROUTE)?;
        match link::find(&mut socket, "lo")? {
            Some(lo) => link::set_up(&mut socket, lo.index),
            None => Ok(()),
        }
    })
    .map_err(|error| NetlinkError::io("enter network namespace", error))?
}
