//! Links over rtnetlink (`Documentation/netlink/specs/rt-link.yaml`): make, find, list, raise, remove.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::netlink::{Reply, Request, Result, Socket};

/// Longest link name, without the terminating NUL.
pub const NAME_BYTES_MAX: usize = libc::IFNAMSIZ - 1;

const VETH_INFO_PEER: u16 = 1;
const CREATE: i32 = libc::NLM_F_CREATE | libc::NLM_F_EXCL | libc::NLM_F_ACK;

pub type Mac = [u8; 6];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub flags: u32,
    pub mac: Option<Mac>,
    pub mtu: u32,
}

impl Link {
    pub fn is_up(&self) -> bool {
        self.flags & libc::IFF_UP as u32 != 0
    }

    /// Neighbours on it have hardware addresses that can be asked for.
    pub fn has_neighbours(&self) -> bool {
        self.flags & (libc::IFF_NOARP | libc::IFF_POINTOPOINT) as u32 == 0
    }

    pub fn is_loopback(&self) -> bool {
        self.flags & libc::IFF_LOOPBACK as u32 != 0
    }
}

/// A veth pair of which one end is born in another network namespace, and still down there. Nothing is moved or renamed afterwards.
pub struct VethPair<'a> {
    pub name: &'a str,
    pub mac: Mac,
    pub mtu: u32,
    pub peer_name: &'a str,
    pub peer_mac: Mac,
    pub peer_namespace: BorrowedFd<'a>,
}

/// `struct ifinfomsg`.
pub(crate) fn info(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&change.to_ne_bytes());
    bytes
}

pub(crate) const UP: u32 = libc::IFF_UP as u32;

/// A link that only carries addresses and routes. A bridge without ports serves where the kernel has no `dummy`.
pub fn create_holder(socket: &mut Socket, name: &str, mtu: u32) -> Result<()> {
    let mut last = None;
    for kind in ["dummy", "bridge"] {
        let mut request = Request::new();
        request.message(libc::RTM_NEWLINK, CREATE, &info(0, UP, UP), |m| {
            m.text(libc::IFLA_IFNAME, name).u32(libc::IFLA_MTU, mtu);
            m.nest(libc::IFLA_LINKINFO, |m| {
                m.text(libc::IFLA_INFO_KIND, kind);
            });
        });
        match socket.request(&format!("create {kind} {name}"), &request) {
            Ok(_) => return Ok(()),
            Err(error) if error.errno() == libc::EEXIST => return Ok(()),
            Err(error) => last = Some(error),
        }
    }
    last.map_or(Ok(()), Err)
}

pub fn create_veth(socket: &mut Socket, pair: &VethPair<'_>) -> Result<()> {
    let mut request = Request::new();
    request.message(libc::RTM_NEWLINK, CREATE, &info(0, UP, UP), |m| {
        m.text(libc::IFLA_IFNAME, pair.name).u32(libc::IFLA_MTU, pair.mtu).bytes(libc::IFLA_ADDRESS, &pair.mac);
        m.nest(libc::IFLA_LINKINFO, |m| {
            m.text(libc::IFLA_INFO_KIND, "veth");
            m.nest(libc::IFLA_INFO_DATA, |m| {
                m.nest(VETH_INFO_PEER, |m| {
                    m.raw(&info(0, 0, 0));
                    m.text(libc::IFLA_IFNAME, pair.peer_name).u32(libc::IFLA_MTU, pair.mtu).bytes(libc::IFLA_ADDRESS, &pair.peer_mac);
                    m.u32(libc::IFLA_NET_NS_FD, pair.peer_namespace.as_raw_fd() as u32);
                });
            });
        });
    });
    socket.request(&format!("create veth {}", pair.name), &request).map(drop)
}

/// A VXLAN tunnel with many ends (`man 8 ip-link`), born up. It learns nothing and floods nothing: its ends are entered by hand.
pub struct Vxlan<'a> {
    pub name: &'a str,
    pub mac: Mac,
    pub mtu: u32,
    pub id: u32,
    pub port: u16,
    /// The family it runs over.
    pub ipv4: bool,
}

pub fn create_vxlan(socket: &mut Socket, tunnel: &Vxlan<'_>) -> Result<()> {
    const ID: u16 = 1;
    const LEARNING: u16 = 7;
    const PORT: u16 = 15;
    const LOCAL6: u16 = 17;
    let mut request = Request::new();
    request.message(libc::RTM_NEWLINK, CREATE, &info(0, UP, UP), |m| {
        m.text(libc::IFLA_IFNAME, tunnel.name).u32(libc::IFLA_MTU, tunnel.mtu).bytes(libc::IFLA_ADDRESS, &tunnel.mac);
        m.nest(libc::IFLA_LINKINFO, |m| {
            m.text(libc::IFLA_INFO_KIND, "vxlan");
            m.nest(libc::IFLA_INFO_DATA, |m| {
                m.u32(ID, tunnel.id).u8(LEARNING, 0).bytes(PORT, &tunnel.port.to_be_bytes());
                if !tunnel.ipv4 {
                    // Any of our addresses; that it is of this family is what counts.
                    m.bytes(LOCAL6, &[0; 16]);
                }
            });
        });
    });
    socket.request(&format!("create vxlan {}", tunnel.name), &request).map(drop)
}

pub fn set_mtu(socket: &mut Socket, index: u32, mtu: u32) -> Result<()> {
    let mut request = Request::new();
    request.message(libc::RTM_NEWLINK, libc::NLM_F_ACK, &info(index, 0, 0), |m| {
        m.u32(libc::IFLA_MTU, mtu);
    });
    socket.request("set MTU of link", &request).map(drop)
}

pub fn set_up(socket: &mut Socket, index: u32) -> Result<()> {
    let mut request = Request::new();
    request.message(libc::RTM_NEWLINK, libc::NLM_F_ACK, &info(index, UP, UP), |_| {});
    socket.request("set link up", &request).map(drop)
}

/// Removing what is not there is no error.
pub fn delete(socket: &mut Socket, name: &str) -> Result<()> {
    let mut request = Request::new();
    request.message(libc::RTM_DELLINK, libc::NLM_F_ACK, &info(0, 0, 0), |m| {
        m.text(libc::IFLA_IFNAME, name);
    });
    match socket.request(&format!("delete link {name}"), &request) {
        Err(error) if error.errno() == libc::ENODEV => Ok(()),
        other => other.map(drop),
    }
}

pub fn find(socket: &mut Socket, name: &str) -> Result<Option<Link>> {
    let mut request = Request::new();
    request.message(libc::RTM_GETLINK, 0, &info(0, 0, 0), |m| {
        m.text(libc::IFLA_IFNAME, name);
    });
    match socket.request(&format!("find link {name}"), &request) {
        Err(error) if error.errno() == libc::ENODEV => Ok(None),
        other => Ok(other?.iter().find_map(parse)),
    }
}

pub fn list(socket: &mut Socket) -> Result<Vec<Link>> {
    let mut request = Request::new();
    request.message(libc::RTM_GETLINK, libc::NLM_F_DUMP, &info(0, 0, 0), |_| {});
    Ok(socket.request("list links", &request)?.iter().filter_map(parse).collect())
}

fn parse(reply: &Reply) -> Option<Link> {
    if reply.kind != libc::RTM_NEWLINK {
        return None;
    }
    let fixed = reply.fixed(16);
    let attributes = reply.attributes(16);
    Some(Link {
        index: u32::from_ne_bytes(fixed.get(4..8)?.try_into().ok()?),
        flags: u32::from_ne_bytes(fixed.get(8..12)?.try_into().ok()?),
        name: attributes.text(libc::IFLA_IFNAME)?.to_owned(),
        mtu: attributes.u32(libc::IFLA_MTU).unwrap_or(0),
        mac: attributes.get(libc::IFLA_ADDRESS).and_then(|mac| mac.try_into().ok()),
    })
}
