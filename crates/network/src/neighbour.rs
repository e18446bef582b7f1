//! Neighbours over rtnetlink (`rt-neigh` of `Documentation/netlink/specs`): who has which hardware address on a link, and behind which end
//! of a tunnel a hardware address is (`man 8 bridge`, fdb). Those entered here are permanent: nothing has to be asked for.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::link::Mac;
use crate::netlink::{Reply, Request, Result, Socket};
use crate::route::{address_of, family, octets};

const REPLACE: i32 = libc::NLM_F_CREATE | libc::NLM_F_REPLACE | libc::NLM_F_ACK;
const NUD_PERMANENT: u16 = 0x80;
/// The entry is of the link itself, not of a bridge it is a port of.
const NTF_SELF: u8 = 2;

/// `struct ndmsg`.
fn fixed(family: u8, index: u32, flags: u8) -> [u8; 12] {
    let mut fixed = [0u8; 12];
    fixed[0] = family;
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
    fixed[10] = flags;
    fixed
}

pub fn add(request: &mut Request, index: u32, address: IpAddr, mac: Mac) {
    request.message(libc::RTM_NEWNEIGH, REPLACE, &fixed(family(address.is_ipv4()), index, 0), |m| {
        m.bytes(libc::NDA_DST, &octets(address)).bytes(libc::NDA_LLADDR, &mac);
    });
}

pub fn delete(request: &mut Request, index: u32, address: IpAddr) {
    request.message(libc::RTM_DELNEIGH, libc::NLM_F_ACK, &fixed(family(address.is_ipv4()), index, 0), |m| {
        m.bytes(libc::NDA_DST, &octets(address));
    });
}

/// Packets to `mac` leave the tunnel `index` towards `end`.
pub fn add_end(request: &mut Request, index: u32, mac: Mac, end: IpAddr) {
    request.message(libc::RTM_NEWNEIGH, REPLACE, &fixed(libc::AF_BRIDGE as u8, index, NTF_SELF), |m| {
        m.bytes(libc::NDA_DST, &octets(end)).bytes(libc::NDA_LLADDR, &mac);
    });
}

pub fn delete_end(request: &mut Request, index: u32, mac: Mac, end: IpAddr) {
    request.message(libc::RTM_DELNEIGH, libc::NLM_F_ACK, &fixed(libc::AF_BRIDGE as u8, index, NTF_SELF), |m| {
        m.bytes(libc::NDA_DST, &octets(end)).bytes(libc::NDA_LLADDR, &mac);
    });
}

fn dump(socket: &mut Socket, family: u8, index: u32) -> Result<Vec<Reply>> {
    let mut request = Request::new();
    request.message(libc::RTM_GETNEIGH, libc::NLM_F_DUMP, &fixed_for_dump(family), |_| {});
    let replies = socket.request("list neighbours", &request)?;
    let here = |reply: &Reply| {
        let fixed = reply.fixed(12);
        let state = fixed.get(8..10).map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]])).unwrap_or(0);
        reply.kind == libc::RTM_NEWNEIGH && fixed.get(4..8) == Some(&index.to_ne_bytes()[..]) && state & NUD_PERMANENT != 0
    };
    Ok(replies.into_iter().filter(here).collect())
}

fn fixed_for_dump(family: u8) -> [u8; 12] {
    let mut fixed = [0u8; 12];
    fixed[0] = family;
    fixed
}

fn mac_of(reply: &Reply) -> Option<Mac> {
    reply.attributes(12).get(libc::NDA_LLADDR)?.try_into().ok()
}

/// The permanent neighbours on a link, both families.
pub fn list(socket: &mut Socket, index: u32) -> Result<BTreeMap<IpAddr, Mac>> {
    let mut found = BTreeMap::new();
    for number in [libc::AF_INET, libc::AF_INET6] {
        let replies = dump(socket, number as u8, index)?;
        found.extend(replies.iter().filter_map(|reply| Some((address_of(reply.attributes(12).get(libc::NDA_DST)?)?, mac_of(reply)?))));
    }
    Ok(found)
}

/// Where the tunnel sends what is for which hardware address.
pub fn list_ends(socket: &mut Socket, index: u32) -> Result<BTreeMap<Mac, IpAddr>> {
    let replies = dump(socket, libc::AF_BRIDGE as u8, index)?;
    Ok(replies.iter().filter_map(|reply| Some((mac_of(reply)?, address_of(reply.attributes(12).get(libc::NDA_DST)?)?))).collect())
}
