//! Host ports, and the way of pods to the world: tables `ip coracle-pods` and `ip6 coracle-pods`.
//!
//! They stand beside the Service tables, so that pods have a network whoever does the Services.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use basics::files;
use serde::{Deserialize, Serialize};

use crate::cidr::IpNet;
use crate::netlink::{NetlinkError, Socket};
use crate::nft::{self, Data, Element, Family, Field, Holds, Hook, SetSpec, Transaction};
use crate::pod::PodNetError;
use crate::ranges;
use crate::route::octets;
use crate::rule::{Load, Register, Rule};
use crate::service::Protocol;

const TABLE: &str = "coracle-pods";
const PORTS: &str = "host-ports";
const PORTS_OF_ADDRESS: &str = "host-ports-of-address";
const HAIRPIN: &str = "hairpin";
/// What pods reach without the node standing in for them.
const INSIDE: &str = "inside";
const KEY: Register = Register::word(0);
const FOUND: Register = Register::word(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortMapping {
    pub protocol: Protocol,
    pub container_port: u16,
    pub host_port: u16,
    /// Only there; `None` or an unspecified address is every address of the node.
    pub host_ip: Option<IpAddr>,
}

/// The host ports of one sandbox, as kept on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Owner {
    addresses: Vec<IpAddr>,
    ports: Vec<PortMapping>,
}

impl Owner {
    /// Set, key and data of each element.
    fn elements(&self, family: Family) -> Vec<(&'static str, Vec<u8>, Data)> {
        let Some(address) = self.addresses.iter().find(|a| Family::of(**a) == family) else { return Vec::new() };
        let mut elements = vec![(HAIRPIN, octets(*address).repeat(2), Data::None)];
        for port in &self.ports {
            let on = port.host_ip.filter(|ip| !ip.is_unspecified());
            if on.is_some_and(|on| Family::of(on) != family) {
                continue;
            }
            let mut key = on.map(octets).unwrap_or_default();
            key.extend([port.protocol.number(), 0, 0, 0]);
            key.extend(port.host_port.to_be_bytes());
            key.extend([0, 0]);
            let mut value = octets(*address);
            value.extend(port.container_port.to_be_bytes());
            value.extend([0, 0]);
            elements.push((if on.is_some() { PORTS_OF_ADDRESS } else { PORTS }, key, Data::Value(value)));
        }
        elements
    }
}

pub struct HostPorts {
    dir: PathBuf,
    netfilter: Socket,
    owners: BTreeMap<String, Owner>,
    families: Vec<Family>,
    inside: Vec<IpNet>,
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> PodNetError {
    let what = path.display().to_string();
    move |source| PodNetError::Io { what, source }
}

impl HostPorts {
    /// Makes the tables anew in one transaction per family, with the ports that were there before.
    pub fn open(dir: &Path, pod_cidrs: &[IpNet], cluster_cidrs: &[IpNet]) -> Result<Self, PodNetError> {
        fs::create_dir_all(dir).map_err(io_error(dir))?;
        let mut owners = BTreeMap::new();
        for entry in fs::read_dir(dir).map_err(io_error(dir))? {
            let path = entry.map_err(io_error(dir))?.path();
            let id = path.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
            let read = if files::is_unfinished(&id) { None } else { serde_json::from_slice(&fs::read(&path).map_err(io_error(&path))?).ok() };
            match read {
                Some(owner) => drop(owners.insert(id, owner)),
                // Cut short by a crash before attach returned: nobody has these ports.
                None => fs::remove_file(&path).map_err(io_error(&path))?,
            }
        }
        let families = [Family::Ipv4, Family::Ipv6].into_iter().filter(|f| pod_cidrs.iter().any(|net| Family::of(net.address()) == *f));
        let mut this = Self { dir: dir.to_owned(), netfilter: Socket::open(libc::NETLINK_NETFILTER)?, owners, families: families.collect(), inside: cluster_cidrs.to_vec() };
        for family in this.families.clone() {
            let pods: Vec<IpNet> = pod_cidrs.iter().filter(|n| Family::of(n.address()) == family).copied().collect();
            let mut transaction = Transaction::new(family, TABLE);
            transaction.add_table();
            transaction.delete_table();
            write_table(&mut transaction, family, &pods, cluster_cidrs);
            for (id, owner) in &this.owners {
                add(&mut transaction, &owner.elements(family), id);
            }
            transaction.commit(&mut this.netfilter, "make the pod tables")?;
        }
        Ok(this)
    }

    /// To these pods go by their own addresses.
    pub fn set_inside(&mut self, nets: Vec<IpNet>) -> Result<(), NetlinkError> {
        if nets == self.inside {
            return Ok(());
        }
        for family in &self.families {
            let mut transaction = Transaction::new(*family, TABLE);
            ranges::fill(&mut transaction, *family, INSIDE, &nets);
            transaction.commit(&mut self.netfilter, "name the ranges of the cluster")?;
        }
        self.inside = nets;
        Ok(())
    }

    pub fn add(&mut self, sandbox_id: &str, addresses: &[IpAddr], ports: &[PortMapping]) -> Result<(), PodNetError> {
        self.remove(sandbox_id)?;
        let ports: Vec<PortMapping> = ports.iter().filter(|p| p.host_port != 0).copied().collect();
        if ports.is_empty() {
            return Ok(());
        }
        let owner = Owner { addresses: addresses.to_vec(), ports };
        let path = self.dir.join(sandbox_id);
        let bytes = serde_json::to_vec(&owner).map_err(|e| io_error(&path)(e.into()))?;
        files::replace(&path, &bytes, files::READABLE).map_err(io_error(&path))?;
        for family in &self.families {
            let elements = owner.elements(*family);
            if elements.is_empty() {
                continue;
            }
            let mut transaction = Transaction::new(*family, TABLE);
            add(&mut transaction, &elements, sandbox_id);
            transaction.commit(&mut self.netfilter, "open host ports")?;
        }
        self.owners.insert(sandbox_id.to_owned(), owner);
        Ok(())
    }

    pub fn remove(&mut self, sandbox_id: &str) -> Result<(), PodNetError> {
        let Some(owner) = self.owners.remove(sandbox_id) else { return Ok(()) };
        for family in &self.families {
            for (set, key, _) in owner.elements(*family) {
                // One by one: of an attach that failed half way some were never there.
                let mut transaction = Transaction::new(*family, TABLE);
                transaction.delete_elements(set, [key.as_slice()]);
                match transaction.commit(&mut self.netfilter, "close host ports") {
                    Err(error) if error.errno() != libc::ENOENT => return Err(error.into()),
                    _ => {}
                }
            }
        }
        let path = self.dir.join(sandbox_id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(&path)(error)),
            _ => Ok(()),
        }
    }

    pub fn reset(&mut self) -> Result<(), NetlinkError> {
        for family in [Family::Ipv4, Family::Ipv6] {
            if nft::table_exists(&mut self.netfilter, family, TABLE)? {
                let mut transaction = Transaction::new(family, TABLE);
                transaction.delete_table();
                transaction.commit(&mut self.netfilter, "delete the pod tables")?;
            }
        }
        Ok(())
    }
}

fn add(transaction: &mut Transaction, elements: &[(&'static str, Vec<u8>, Data)], sandbox_id: &str) {
    for (set, key, data) in elements {
        transaction.add_elements(set, [Element { key, data, comment: Some(sandbox_id) }]);
    }
}

fn write_table(transaction: &mut Transaction, family: Family, pod_cidrs: &[IpNet], cluster_cidrs: &[IpNet]) {
    let address = Field::address(family);
    let endpoint = [address, Field::Port];
    transaction.add_table();
    for (name, key, holds) in [
        (PORTS, &[Field::Protocol, Field::Port][..], Holds::Data(&endpoint)),
        (PORTS_OF_ADDRESS, &[address, Field::Protocol, Field::Port], Holds::Data(&endpoint)),
        (HAIRPIN, &[address, address], Holds::Nothing),
    ] {
        transaction.add_set(SetSpec { name, key, holds, dynamic: None });
    }
    ranges::add_set(transaction, family, INSIDE);
    ranges::fill(transaction, family, INSIDE, cluster_cidrs);
    let (source, destination) = (Load::Source(family), Load::Destination(family));
    let loopback = match family {
        Family::Ipv4 => IpNet::new(IpAddr::from([127, 0, 0, 0]), 8),
        Family::Ipv6 => None,
    };
    if let Some(loopback) = loopback {
        // Pod links may carry 127.0.0.1 as a source (route_localnet, for node ports on localhost), but nobody outside may send to it.
        let name = "loopback-guard";
        transaction.add_chain(name, Some(Hook { kind: "filter", number: libc::NF_INET_PRE_ROUTING, priority: -300 }));
        transaction.add_rule(name, Rule::new().in_net(destination, loopback, true).incoming_link_is_not_loopback().drop());
    }
    for (name, number) in [("prerouting", libc::NF_INET_PRE_ROUTING), ("output", libc::NF_INET_LOCAL_OUT)] {
        transaction.add_chain(name, Some(Hook { kind: "nat", number, priority: -100 }));
        let key = [destination, Load::Protocol, Load::DestinationPort];
        // Few flows are to a host port: the route to the destination is looked up for those alone.
        for (map, key) in [(PORTS_OF_ADDRESS, &key[..]), (PORTS, &key[1..])] {
            transaction.add_rule(name, Rule::new().key(KEY, key).map(map, KEY, FOUND).destination_is_local().dnat(family, FOUND));
        }
    }
    let name = "postrouting";
    transaction.add_chain(name, Some(Hook { kind: "nat", number: libc::NF_INET_POST_ROUTING, priority: 100 }));
    transaction.add_rule(name, Rule::new().key(KEY, &[source, destination]).lookup(HAIRPIN, KEY).masquerade());
    let leaving = |net| Rule::new().in_net(source, net, true).outgoing_link_is_not_loopback();
    if let Some(loopback) = loopback {
        transaction.add_rule(name, leaving(loopback).masquerade());
    }
    for net in pod_cidrs {
        transaction.add_rule(name, leaving(*net).load(KEY, destination).not_in(INSIDE, KEY).masquerade());
    }
}
