//! Forgets tracked UDP flows that lead to an endpoint which is gone (ctnetlink).
//!
//! A UDP client that keeps its port would otherwise go on being sent to the dead endpoint for as long as it keeps trying; TCP notices
//! by itself. Mirrors kube-proxy's `pkg/proxy/conntrack`.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use crate::netlink::{Attributes, Reply, Request, Result, Socket};
use crate::nft::Family;
use crate::route::address_of;
use crate::service::{Frontend, Protocol};

const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ZONE: u16 = 18;
const IP: u16 = 1;
const PROTO: u16 = 2;

/// The endpoints a UDP frontend may lead to now; flows to any other are forgotten.
pub type Allowed = HashMap<Frontend, HashSet<(IpAddr, u16)>>;

struct Tuple {
    source: (IpAddr, u16),
    destination: (IpAddr, u16),
    protocol: u8,
}

fn tuple(attributes: Attributes<'_>) -> Option<Tuple> {
    let ip = attributes.nested(IP);
    let proto = attributes.nested(PROTO);
    // Source is 1 (IPv4) or 3 (IPv6), destination the one after.
    let address = |v4: u16, v6: u16| address_of(ip.get(v4).or_else(|| ip.get(v6))?);
    let port = |kind: u16| Some(u16::from_be_bytes(proto.get(kind)?.try_into().ok()?));
    Some(Tuple {
        source: (address(1, 3)?, port(2)?),
        destination: (address(2, 4)?, port(3)?),
        protocol: *proto.get(1)?.first()?,
    })
}

fn is_stale(reply: &Reply, allowed: &Allowed) -> bool {
    let attributes = reply.attributes(4);
    let (Some(original), Some(answer)) = (tuple(attributes.nested(TUPLE_ORIGINAL)), tuple(attributes.nested(TUPLE_REPLY))) else {
        return false;
    };
    if original.protocol != Protocol::Udp.number() {
        return false;
    }
    let (address, port) = original.destination;
    let protocol = Protocol::Udp;
    let by_address = allowed.get(&Frontend::Address { address, protocol, port });
    let by_port = || allowed.get(&Frontend::NodePort { family: Family::of(address), protocol, port });
    by_address.or_else(by_port).is_some_and(|endpoints| !endpoints.contains(&answer.source))
}

/// Returns how many flows were forgotten.
pub fn forget_stale(socket: &mut Socket, family: Family, allowed: &Allowed) -> Result<usize> {
    let fixed = [if family == Family::Ipv4 { libc::AF_INET } else { libc::AF_INET6 } as u8, 0, 0, 0];
    let mut dump = Request::new();
    dump.message(SUBSYSTEM << 8 | GET, libc::NLM_F_DUMP, &fixed, |_| {});
    let flows = socket.request("list tracked flows", &dump)?;
    let mut request = Request::new();
    let mut count = 0;
    for flow in flows.iter().filter(|flow| is_stale(flow, allowed)) {
        let attributes = flow.attributes(4);
        count += 1;
        request.message(SUBSYSTEM << 8 | DELETE, libc::NLM_F_ACK, &fixed, |m| {
            m.nest(TUPLE_ORIGINAL, |m| {
                m.raw(attributes.get(TUPLE_ORIGINAL).unwrap_or(&[]));
            });
            if let Some(zone) = attributes.get(ZONE) {
                m.bytes(ZONE, zone);
            }
        });
    }
    if count > 0 {
        // A flow may have ended by itself meanwhile.
        let errors = socket.request_all("forget tracked flows", &request, &mut Vec::new())?;
        if let Some(error) = errors.into_iter().find(|e| e.errno() != libc::ENOENT) {
            return Err(error);
        }
    }
    Ok(count)
}
