//! A pod's place in the network: an address, a link to the node, and a way out.
//!
//! Every pod has a veth pair of its own and a host route (/32, /128); there is no bridge. All traffic of a pod, to its neighbour too,
//! is routed by the node and so passes the Service maps in both directions: no `br_netfilter`, and a pod that reaches itself through
//! a Service is plain routing (`docs/adr/0001-pod-links.md`). Neighbours are entered by hand: no ARP, no first-packet delay.
//!
//! Promises: everything survives a restart of Coracle, and `detach` may be repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::cidr::IpNet;
use crate::host::host_addresses;
use crate::hostport::{HostPorts, PortMapping};
use crate::ipam::{AllocateError, Ipam};
use crate::link::{self, Mac, VethPair};
use crate::neighbour;
use crate::netlink::{NetlinkError, Request, Socket};
use crate::netns;
use crate::peering;
use crate::peers::{Peer, Wanted};
use crate::ranges::host;
use crate::route::{self, Via};
use crate::service::short_hash;
use crate::sysctl::{self, Sysctls};

const POD_LINK: &str = "eth0";
/// The same for every pod link's end at the node: these links have two ends and share nothing.
const NODE_MAC: Mac = [0xee; 6];
const MTU_DEFAULT: u32 = 1500;
/// Hexadecimal digits of a sandbox id's hash in a link's name.
const HASH_DIGITS: usize = 11;

#[derive(Debug, Clone)]
pub struct PodNetConfig {
    /// The link that holds the node's addresses in the pod ranges, e.g. `coracle0`.
    pub link: String,
    /// Pod links are named by this (at most four letters) and a hash.
    pub link_prefix: String,
    /// This node's pod ranges, primary family first.
    pub pod_cidrs: Vec<IpNet>,
    /// The whole cluster's, as far as they are known beforehand (the ranges of [`PodNet::set_peers`] count too): what leaves them gets the
    /// node's address.
    pub cluster_cidrs: Vec<IpNet>,
    /// Routed to `link`, so that the node reaches Services without any other route.
    pub service_cidrs: Vec<IpNet>,
    /// Allocations and what must be put back at `reset`.
    pub state_dir: PathBuf,
    /// `None`: as the link with the default route.
    pub mtu: Option<u32>,
}

impl PodNetConfig {
    pub fn new(pod_cidrs: Vec<IpNet>, state_dir: PathBuf) -> Self {
        Self {
            link: "coracle0".into(),
            link_prefix: "cor".into(),
            cluster_cidrs: pod_cidrs.clone(),
            pod_cidrs,
            service_cidrs: Vec::new(),
            state_dir,
            mtu: None,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PodNetError {
    #[error(transparent)]
    Allocate(#[from] AllocateError),
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("link {0} is gone")]
    LinkGone(String),
}

type Result<T, E = PodNetError> = std::result::Result<T, E>;

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> PodNetError {
    move |source| PodNetError::Io { what: what.into(), source }
}

/// The pod network of this node. Calls block, for a few milliseconds at most.
pub struct PodNet {
    config: PodNetConfig,
    /// Of the way out; links of pods carry less while some peer is reached through a tunnel.
    mtu: u32,
    state: Mutex<State>,
}

struct State {
    route: Socket,
    tunnel_mtu: Option<u32>,
    ipam: Ipam,
    host_ports: HostPorts,
    sysctls: Sysctls,
}

impl PodNet {
    /// Makes the node's side of the network, or takes over what is there.
    pub fn open(config: PodNetConfig) -> Result<Self> {
        fs::create_dir_all(&config.state_dir).map_err(io_error("create state folder"))?;
        let mut socket = Socket::open(libc::NETLINK_ROUTE)?;
        let mut sysctls = Sysctls::open(config.state_dir.join("sysctls.json"));
        let mtu = match config.mtu {
            Some(mtu) => mtu,
            None => host_addresses(&[&config.link, &config.link_prefix])?.mtu.unwrap_or(MTU_DEFAULT),
        };
        forward(&mut sysctls, config.pod_cidrs.iter().any(|net| !net.is_ipv4())).map_err(io_error("enable forwarding"))?;
        link::create_holder(&mut socket, &config.link, mtu)?;
        let holder = link::find(&mut socket, &config.link)?.ok_or_else(|| PodNetError::LinkGone(config.link.clone()))?;
        let mut request = Request::new();
        for net in &config.pod_cidrs {
            route::add_address(&mut request, holder.index, net.gateway());
            // An address no pod has must not leave by the default route.
            route::add_route(&mut request, *net, Via::Unreachable);
        }
        for net in &config.service_cidrs {
            let source = config.pod_cidrs.iter().find(|pods| pods.is_ipv4() == net.is_ipv4()).map(|pods| pods.gateway());
            if source.is_some() {
                route::add_route(&mut request, *net, Via::Link { index: holder.index, source });
            }
        }
        socket.request("set up the pod network", &request)?;
        let ipam = Ipam::open(&config.state_dir.join("ips"), &config.pod_cidrs)?;
        let host_ports = HostPorts::open(&config.state_dir.join("hostports"), &config.pod_cidrs, &config.cluster_cidrs)?;
        let state = Mutex::new(State { route: socket, tunnel_mtu: None, ipam, host_ports, sysctls });
        Ok(Self { config, mtu, state })
    }

    /// The node's own addresses in the pod ranges: what pods call it by, and what may be listened on before any other network is up.
    pub fn gateways(&self) -> Vec<IpAddr> {
        self.config.pod_cidrs.iter().map(|net| net.gateway()).collect()
    }

    /// What the link of a new pod carries. Where an older pod's carries more than a tunnel does, the node tells its sender (path MTU).
    pub fn mtu(&self) -> u32 {
        effective_mtu(self.mtu, self.state.lock().tunnel_mtu)
    }

    /// Leads to the pods of these nodes and of no others, each by the way there is now; repeat it when links or routes changed. Returns what
    /// was found to be wanted.
    pub fn set_peers(&self, peers: &[Peer]) -> Result<Wanted> {
        let mut state = self.state.lock();
        let own_links = [self.config.link.as_str(), &self.config.link_prefix];
        let wanted = peering::set(&mut state.route, &self.config.pod_cidrs, &own_links, peers)?;
        state.tunnel_mtu = wanted.tunnel_mtu();
        let inside = self.config.cluster_cidrs.iter().chain(&wanted.inside).copied().collect();
        state.host_ports.set_inside(inside)?;
        Ok(wanted)
    }

    /// Gives the namespace `eth0`, addresses and routes, and raises `lo`. Returns the addresses, primary first. Repeating it makes the
    /// link anew with the same addresses.
    pub fn attach(&self, sandbox_id: &str, namespace: &Path, ports: &[PortMapping]) -> Result<Vec<IpAddr>> {
        let file = File::open(namespace).map_err(io_error(format!("open {}", namespace.display())))?;
        let mut state = self.state.lock();
        let addresses = state.ipam.allocate(sandbox_id)?;
        let attached = self.connect(&mut state, sandbox_id, &file, &addresses).and_then(|()| Ok(state.host_ports.add(sandbox_id, &addresses, ports)?));
        if let Err(error) = attached {
            // Nothing half done stays; the first error is the one to tell.
            drop(state);
            if let Err(undo) = self.detach(sandbox_id) {
                tracing::warn!(sandbox_id, error = %undo, "undo a failed attach");
            }
            return Err(error);
        }
        Ok(addresses)
    }

    fn connect(&self, state: &mut State, sandbox_id: &str, file: &File, addresses: &[IpAddr]) -> Result<()> {
        let name = self.link_name(sandbox_id);
        let pair = VethPair {
            name: &name,
            mac: NODE_MAC,
            mtu: effective_mtu(self.mtu, state.tunnel_mtu),
            peer_name: POD_LINK,
            peer_mac: pod_mac(addresses),
            peer_namespace: file.as_fd(),
        };
        match link::create_veth(&mut state.route, &pair) {
            Err(error) if error.errno() == libc::EEXIST => {
                link::delete(&mut state.route, &name)?;
                link::create_veth(&mut state.route, &pair)?;
            }
            other => other?,
        }
        let index = link::find(&mut state.route, &name)?.ok_or_else(|| PodNetError::LinkGone(name.clone()))?.index;
        for (key, value) in [("route_localnet", "1"), ("send_redirects", "0"), ("rp_filter", "0")] {
            sysctl::write(&format!("net/ipv4/conf/{name}/{key}"), value).map_err(io_error(format!("set {key} of {name}")))?;
        }
        let gateways: Vec<IpAddr> = self.gateways();
        netns::run_in(file, || furnish(addresses, &gateways)).map_err(io_error("enter network namespace"))??;
        let mut request = Request::new();
        for address in addresses {
            let source = gateways.iter().find(|g| g.is_ipv4() == address.is_ipv4()).copied();
            route::add_route(&mut request, host(*address), Via::Link { index, source });
            neighbour::add(&mut request, index, *address, pod_mac(addresses));
        }
        state.route.request("route to the pod", &request)?;
        Ok(())
    }

    /// Takes it all back. Of what is not there nothing is said.
    pub fn detach(&self, sandbox_id: &str) -> Result<()> {
        let mut state = self.state.lock();
        state.host_ports.remove(sandbox_id)?;
        // The link before the address: nobody gets an address that still leads elsewhere.
        link::delete(&mut state.route, &self.link_name(sandbox_id))?;
        state.ipam.release(sandbox_id)?;
        Ok(())
    }

    /// Detaches every sandbox that `keep` does not want: what ended while nobody looked (the machine restarted, say).
    pub fn retain(&self, keep: impl Fn(&str) -> bool) -> Result<()> {
        let gone: BTreeSet<String> = self.addresses().into_values().filter(|sandbox_id| !keep(sandbox_id)).collect();
        gone.iter().try_for_each(|sandbox_id| self.detach(sandbox_id))
    }

    /// Who has which address.
    pub fn addresses(&self) -> BTreeMap<IpAddr, String> {
        self.state.lock().ipam.owners().clone()
    }

    /// Leaves the node as `open` found it: links, routes, tables, settings and files.
    pub fn reset(self) -> Result<()> {
        let mut state = self.state.into_inner();
        let prefix = &self.config.link_prefix;
        let is_pod_link = |name: &str| {
            name.strip_prefix(prefix.as_str()).is_some_and(|hash| hash.len() == HASH_DIGITS && hash.bytes().all(|b| b.is_ascii_hexdigit()))
        };
        for link in link::list(&mut state.route)? {
            if link.name == self.config.link || is_pod_link(&link.name) {
                link::delete(&mut state.route, &link.name)?;
            }
        }
        peering::reset(&mut state.route)?;
        route::delete_ours(&mut state.route)?;
        state.host_ports.reset()?;
        state.sysctls.restore().map_err(io_error("put settings back"))?;
        match fs::remove_dir_all(&self.config.state_dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove state folder")(error)),
            _ => Ok(()),
        }
    }

    /// The same for the same sandbox, so that a restart finds it again.
    fn link_name(&self, sandbox_id: &str) -> String {
        let hash = short_hash(sandbox_id.as_bytes());
        let mut name = format!("{}{:016x}", self.config.link_prefix, hash);
        name.truncate((self.config.link_prefix.len() + HASH_DIGITS).min(link::NAME_BYTES_MAX));
        name
    }
}

fn effective_mtu(link: u32, tunnel: Option<u32>) -> u32 {
    tunnel.map_or(link, |tunnel| tunnel.min(link))
}

/// Locally administered, and derived from the address: the same pod address never shows two hardware addresses.
fn pod_mac(addresses: &[IpAddr]) -> Mac {
    let mut mac = [0x0a, 0x58, 0, 0, 0, 0];
    if let Some(address) = addresses.first() {
        let octets = route::octets(*address);
        mac[2..].copy_from_slice(&octets[octets.len() - 4..]);
    }
    mac
}

/// The pod's side, run inside its namespace.
fn furnish(addresses: &[IpAddr], gateways: &[IpAddr]) -> Result<()> {
    let mut socket = Socket::open(libc::NETLINK_ROUTE)?;
    let eth0 = link::find(&mut socket, POD_LINK)?.ok_or_else(|| PodNetError::LinkGone(POD_LINK.into()))?;
    if addresses.iter().any(|a| !a.is_ipv4()) {
        // All there is to know is told below: no waiting for duplicates, no asking for routers.
        for (key, value) in [("accept_dad", "0"), ("accept_ra", "0")] {
            sysctl::write(&format!("net/ipv6/conf/{POD_LINK}/{key}"), value).map_err(io_error(format!("set {key} of {POD_LINK}")))?;
        }
    }
    if let Some(lo) = link::find(&mut socket, "lo")? {
        link::set_up(&mut socket, lo.index)?;
    }
    link::set_up(&mut socket, eth0.index)?;
    let index = eth0.index;
    let mut request = Request::new();
    for address in addresses {
        route::add_address(&mut request, index, *address);
        let Some(gateway) = gateways.iter().find(|g| g.is_ipv4() == address.is_ipv4()) else { continue };
        neighbour::add(&mut request, index, *gateway, NODE_MAC);
        route::add_route(&mut request, host(*gateway), Via::Link { index, source: None });
        let all = if address.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        route::add_route(&mut request, IpNet::new(all, 0).unwrap_or(host(all)), Via::Gateway { index, gateway: *gateway, source: None });
    }
    socket.request("give the pod its addresses", &request)?;
    Ok(())
}

/// Makes the node a router, without losing what it learnt from others.
fn forward(sysctls: &mut Sysctls, ipv6: bool) -> io::Result<()> {
    sysctls.set("net/ipv4/ip_forward", "1")?;
    if !ipv6 {
        return Ok(());
    }
    // A router ignores router advertisements, and with them its own default route, unless told otherwise (2).
    for entry in fs::read_dir("/proc/sys/net/ipv6/conf")? {
        let key = format!("net/ipv6/conf/{}/accept_ra", entry?.file_name().to_string_lossy());
        if fs::read_to_string(Path::new("/proc/sys").join(&key)).is_ok_and(|value| value.trim() == "1") {
            sysctls.set(&key, "2")?;
        }
    }
    sysctls.set("net/ipv6/conf/all/forwarding", "1")
}
