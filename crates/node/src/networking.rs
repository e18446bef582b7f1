//! The node's built-in networking in one piece: the pod network for the runtime, the name server, and the tasks that follow the API.
//!
//! [`Networking::open`] makes everything that needs no API server; [`Networking::follow`] starts following one. Pods ask the DNS Service's
//! address, which this node answers itself on its own address in the pod range, without leaving the node.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::dns::{BindError, Records, Server, Upstreams};
use ::network::{Dataplane, DataplaneConfig, DataplaneError, IpNet, PodNet, PodNetConfig, PodNetError, PortMapping, Protocol};
use client::Client;
use sandbox::cri::{self, BoxFuture, PodNetwork, PodSandboxConfig};
use tokio::task::JoinSet;

use crate::proxy::{self, ProxyConfig, local_dns};
use crate::services::Services;
use crate::{names, peers};
use crate::policy::Policies;

const DNS_PORT: u16 = 53;

#[derive(Debug, Clone)]
pub struct NetworkingConfig {
    pub node_name: String,
    /// This node's pod ranges, primary family first.
    pub pod_cidrs: Vec<IpNet>,
    /// The whole cluster's.
    pub cluster_cidrs: Vec<IpNet>,
    pub service_cidrs: Vec<IpNet>,
    /// Of the Service `kube-system/kube-dns`.
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    /// Names of the rest of the world are asked of the name servers in this file.
    pub resolv_conf: PathBuf,
    pub state_dir: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum NetworkingError {
    #[error(transparent)]
    PodNet(#[from] PodNetError),
    #[error(transparent)]
    Dataplane(#[from] DataplaneError),
    #[error(transparent)]
    Policy(#[from] ::network::PolicyError),
    #[error(transparent)]
    Dns(#[from] BindError),
    #[error("the task setting up the network ended: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Ends with its tasks when dropped; pods keep their network and Services their maps.
pub struct Networking {
    config: NetworkingConfig,
    pods: Arc<PodNet>,
    records: Arc<Records>,
    policies: Policies,
    server: Server,
    tasks: JoinSet<()>,
}

impl Networking {
    pub fn open(config: NetworkingConfig) -> BoxFuture<'static, Result<Self, NetworkingError>> {
        Box::pin(Self::opened(config))
    }

    async fn opened(config: NetworkingConfig) -> Result<Self, NetworkingError> {
        let mut pods = PodNetConfig::new(config.pod_cidrs.clone(), config.state_dir.clone());
        pods.cluster_cidrs = config.cluster_cidrs.clone();
        pods.service_cidrs = config.service_cidrs.clone();
        let pods = Arc::new(tokio::task::spawn_blocking(move || PodNet::open(pods)).await??);
        let policies = Policies::open(&config.node_name, &config.pod_cidrs)?;
        let records = Arc::new(Records::new(&config.cluster_domain));
        records.set_servers(config.cluster_dns.clone());
        // Neither of these may be asked what we do not know: they are us.
        let own = [pods.gateways(), config.cluster_dns.clone()].concat();
        let upstreams = Upstreams::resolv_conf(&config.resolv_conf, own);
        let server = listen(&pods.gateways(), &records, &upstreams).await?;
        Ok(Self { config, pods, records, policies, server, tasks: JoinSet::new() })
    }

    /// What the embedded runtime gives its sandboxes their network by.
    pub fn pod_network(&self) -> Arc<dyn PodNetwork> {
        Arc::new(BuiltIn(self.pods.clone(), self.policies.clone()))
    }

    /// Where the name server listens.
    pub fn dns_addresses(&self) -> &[SocketAddr] {
        self.server.addresses()
    }

    /// Which sandbox has which address.
    pub fn pods(&self) -> &Arc<PodNet> {
        &self.pods
    }

    /// Gives back what is held for sandboxes that no longer run: they ended while nobody looked (the machine restarted, say).
    /// Call it before the first new pod.
    pub async fn retain(&self, sandboxes: &[cri::PodSandboxStatus]) -> Result<(), NetworkingError> {
        let alive: HashSet<String> = sandboxes.iter().filter(|s| s.state == cri::SandboxState::Ready).map(|s| s.id.clone()).collect();
        let pods = self.pods.clone();
        Ok(tokio::task::spawn_blocking(move || pods.retain(|id| alive.contains(id))).await??)
    }

    /// Starts following the API's Services, in maps and in names, and its Nodes, in routes to their pods.
    pub fn follow(&mut self, client: &Client) -> Result<(), NetworkingError> {
        let services = Services::watch(client);
        let config = DataplaneConfig { cluster_cidrs: self.config.cluster_cidrs.clone(), service_cidrs: self.config.service_cidrs.clone() };
        let dataplane = Dataplane::open(config)?;
        let fixed = local_dns(&self.config.cluster_dns, self.server.addresses());
        let config = ProxyConfig { node_name: self.config.node_name.clone(), fixed };
        self.tasks.spawn(proxy::run(services.clone(), dataplane, config));
        self.tasks.spawn(names::run(services, self.records.clone()));
        self.tasks.spawn(self.policies.clone().run(client.clone()));
        self.tasks.spawn(peers::run(client.clone(), self.config.node_name.clone(), self.pods.clone()));
        Ok(())
    }

    /// Leaves no link, route, table, setting or file of a network with this configuration; blocks for some milliseconds. For when nothing runs.
    pub fn reset(config: &NetworkingConfig) -> Result<(), NetworkingError> {
        Dataplane::open(DataplaneConfig { cluster_cidrs: Vec::new(), service_cidrs: Vec::new() })?.reset()?;
        Policies::reset()?;
        PodNet::open(PodNetConfig::new(config.pod_cidrs.clone(), config.state_dir.clone()))?.reset()?;
        Ok(())
    }
}

/// On port 53 if it is free. It need not be: pods are led to whichever it is.
async fn listen(addresses: &[IpAddr], records: &Arc<Records>, upstreams: &Upstreams) -> Result<Server, BindError> {
    let on = |port| addresses.iter().map(|a| SocketAddr::from((*a, port))).collect::<Vec<_>>();
    match Server::bind(&on(DNS_PORT), records.clone(), upstreams.clone()).await {
        Err(error) if error.source.kind() == std::io::ErrorKind::AddrInUse => {
            tracing::info!(%error, "the DNS port is taken, using another");
            Server::bind(&on(0), records.clone(), upstreams.clone()).await
        }
        other => other,
    }
}

/// [`PodNet`] as the runtime wants it, and the policies of each pod before anything runs in it.
struct BuiltIn(Arc<PodNet>, Policies);

impl BuiltIn {
    async fn run<T: Send + 'static>(&self, work: impl FnOnce(&PodNet) -> Result<T, PodNetError> + Send + 'static) -> Result<T, String> {
        let pods = self.0.clone();
        match tokio::task::spawn_blocking(move || work(&pods)).await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn port_mapping(port: &cri::PortMapping) -> PortMapping {
    let protocol = match port.protocol {
        cri::Protocol::Tcp => Protocol::Tcp,
        cri::Protocol::Udp => Protocol::Udp,
        cri::Protocol::Sctp => Protocol::Sctp,
    };
    PortMapping { protocol, container_port: port.container_port, host_port: port.host_port, host_ip: port.host_ip }
}

impl PodNetwork for BuiltIn {
    fn attach<'a>(&'a self, sandbox_id: &'a str, namespace: &'a Path, config: &'a PodSandboxConfig) -> BoxFuture<'a, Result<Vec<IpAddr>, String>> {
        let (id, namespace) = (sandbox_id.to_owned(), namespace.to_owned());
        let ports: Vec<PortMapping> = config.port_mappings.iter().map(port_mapping).collect();
        Box::pin(async move {
            let addresses = self.run(move |pods| pods.attach(&id, &namespace, &ports)).await?;
            self.1.attach(sandbox_id, config, &addresses).await?;
            Ok(addresses)
        })
    }

    fn detach<'a>(&'a self, sandbox_id: &'a str, _: &'a PodSandboxConfig) -> BoxFuture<'a, Result<(), String>> {
        let id = sandbox_id.to_owned();
        Box::pin(async move {
            self.run(move |pods| pods.detach(&id)).await?;
            self.1.detach(sandbox_id).await;
            Ok(())
        })
    }
}
