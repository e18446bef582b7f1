//! This machine as a node: pod network, container runtime, images, and the agent over them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use api::Clock;
use basics::files;
use client::Client;
use image::{Registry, RegistryOptions, Store};
use network::IpNet;
use node::Node;
use node::configuration::Settings;
use node::networking::{AppliedConfig, Networking, NetworkingConfig};
use sandbox::Embedded;
use sandbox::cri::Runtime;

use crate::cli::Cidrs;
use crate::images::LocalImages;
use crate::paths::Paths;

/// Length of the part of the pod network that one node has.
const NODE_PREFIX_V4: u8 = 24;
const NODE_PREFIX_V6: u8 = 64;

#[derive(Clone)]
pub struct MachineConfig {
    pub node_name: String,
    /// One of each family that the cluster has, primary first.
    pub addresses: Vec<IpAddr>,
    pub service_cidrs: Cidrs,
    pub pod_network_cidrs: Cidrs,
    /// This node's part of them.
    pub pod_cidrs: Vec<(IpAddr, u8)>,
    /// One of each family, primary first.
    pub cluster_dns: Vec<IpAddr>,
    pub version: String,
    /// No network of our own: whichever is applied.
    pub applied: bool,
    /// Services are this process's to program, not another proxy's.
    pub service_proxy: bool,
    /// Of the node, beside its own.
    pub labels: BTreeMap<String, String>,
    /// The KubeletConfiguration.
    pub settings: Settings,
}

/// Ends its tasks when dropped; containers run on.
pub struct Machine {
    pub node: Arc<Node>,
    _networking: Networking,
}

fn net((address, prefix): (IpAddr, u8)) -> Result<IpNet> {
    IpNet::new(address, prefix).with_context(|| format!("{address}/{prefix} is no network"))
}

/// The first node's part of the pod network.
pub fn node_ranges(cidrs: &Cidrs) -> Vec<(IpAddr, u8)> {
    cidrs.all().iter().map(|(address, prefix)| (*address, (*prefix).max(if address.is_ipv4() { NODE_PREFIX_V4 } else { NODE_PREFIX_V6 }))).collect()
}

pub fn networking_config(config: &MachineConfig, paths: &Paths) -> Result<NetworkingConfig> {
    Ok(NetworkingConfig {
        node_name: config.node_name.clone(),
        pod_cidrs: config.pod_cidrs.iter().map(|range| net(*range)).collect::<Result<_>>()?,
        cluster_cidrs: config.pod_network_cidrs.all().iter().map(|range| net(*range)).collect::<Result<_>>()?,
        service_cidrs: config.service_cidrs.all().iter().map(|range| net(*range)).collect::<Result<_>>()?,
        cluster_dns: config.cluster_dns.clone(),
        cluster_domain: config.settings.cluster_domain.clone(),
        service_proxy: config.service_proxy,
        node_addresses: config.addresses.clone(),
        resolv_conf: "/etc/resolv.conf".into(),
        state_dir: paths.network(),
        applied: config.applied.then(AppliedConfig::default),
    })
}

/// What the runtime needs; `reset` needs the same.
pub fn runtime_config(paths: &Paths, network: Arc<dyn sandbox::cri::PodNetwork>) -> Result<sandbox::Config> {
    Ok(sandbox::Config { root_dir: paths.containers(), state_dir: paths.run(), shim_exe: std::env::current_exe().context("cannot find this program")?, network })
}

impl Machine {
    /// `client` follows Services, `agent` is the node's own and may do what nodes may.
    pub async fn start(config: MachineConfig, paths: &Paths, client: &Client, agent: Client, clock: Arc<dyn Clock>) -> Result<Self> {
        let mut networking = Networking::open(networking_config(&config, paths)?).await.context("cannot set up the pod network")?;
        let runtime = Embedded::open(runtime_config(paths, networking.pod_network())?).context("cannot open the container runtime")?;
        let sandboxes = runtime.list_pod_sandboxes().await.context("cannot list what already runs")?;
        networking.retain(&sandboxes).await.context("cannot give back addresses")?;
        match networking.pods() {
            Some(pods) => tracing::info!(target: "network", addresses = ?pods.gateways(), "the pod network is up"),
            None => tracing::info!(target: "network", "pods wait until a pod network is applied, or its plugins give them one"),
        }
        tracing::info!(target: "dns", addresses = ?networking.dns_addresses(), domain = config.settings.cluster_domain, "names are answered");
        let store = Arc::new(Store::open(paths.images()).context("cannot open the image store")?);
        let registry = Registry::new(RegistryOptions::default()).context("cannot set up registries")?;
        networking.follow(client).context("cannot program Services")?;
        // The pods' volumes, Secrets among them.
        files::private_folder(&paths.kubelet()).with_context(|| format!("cannot make {}", paths.kubelet().display()))?;
        let primary = config.addresses.first().copied().context("this machine has no address")?;
        let mut wanted = node::Config::new(&config.node_name, primary, &config.version, paths.kubelet());
        wanted.node_ips = config.addresses.clone();
        wanted.log_dir = paths.pod_logs();
        // As kubeadm has it: one name server, of the primary family.
        wanted.cluster_dns = match config.settings.cluster_dns.as_slice() {
            [] => config.cluster_dns.iter().take(1).copied().collect(),
            told => told.to_vec(),
        };
        wanted.pod_cidrs = config.pod_cidrs.iter().map(|(base, prefix)| format!("{base}/{prefix}")).collect();
        wanted.labels = config.labels;
        let readiness = networking.readiness();
        wanted.not_ready = readiness.as_ref().and_then(|readiness| readiness.borrow().clone());
        wanted.image_dir = Some(paths.images());
        wanted.follow(config.settings);
        let node = Node::start(wanted, agent, Arc::new(runtime), Arc::new(LocalImages::new(store, registry, paths.own_image())), clock);
        if let Some(readiness) = readiness {
            node.follow_readiness(readiness);
        }
        Ok(Self { node, _networking: networking })
    }
}
