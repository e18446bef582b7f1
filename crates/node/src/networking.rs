//! The node's built-in networking in one piece: the pod network for the runtime, the name server, and the tasks that follow the API.
//!
//! [`Networking::open`] makes everything that needs no API server; [`Networking::follow`] starts following one. Pods ask the DNS Service's
//! address, which this node answers itself on its own address in the pod range, without leaving the node.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ::dns::{BindError, METRICS_PORT, Pages, Records, Server, Upstreams};
use ::network::{Dataplane, DataplaneConfig, DataplaneError, IpNet, PodNet, PodNetConfig, PodNetError, holder};
use api::k8s::api::core::v1::Node;
use basics::tasks::for_ever;
use client::{Client, Informer};
use sandbox::cri::{self, BoxFuture, PodNetwork};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use crate::applied::{AppliedConfig, BUILT_IN_CONFIGURATION, BUILT_IN_FILE};
use crate::applied::{self, Applied};
use crate::built_in::BuiltIn;
use crate::{corefile, names};
use crate::policy::Policies;
use crate::proxy::{self, ProxyConfig, local_dns};
use crate::services::Services;

const DNS_PORT: u16 = 53;
/// Where the name server listens while the pod network is another's: on addresses no other machine knows, as node-local caches do.
const DNS_LINK: &str = "coracle-dns";
const DNS_ADDRESSES: [IpAddr; 2] = [IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 20, 10)), IpAddr::V6(std::net::Ipv6Addr::new(0xfd63, 0x6f72, 0x6163, 0x6c65, 0, 0, 0, 0xa))];

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
    /// Whether Services are programmed here; another proxy may do that. The name server then also listens on `node_addresses`, where that proxy leads who asks
    /// the DNS Service.
    pub service_proxy: bool,
    pub node_addresses: Vec<IpAddr>,
    /// Names of the rest of the world are asked of the name servers in this file.
    pub resolv_conf: PathBuf,
    pub state_dir: PathBuf,
    /// Instead of the built-in network, whichever is applied.
    pub applied: Option<AppliedConfig>,
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
    #[error(transparent)]
    Cni(#[from] ::cni::CniError),
    #[error("set up the name server's addresses: {0}")]
    Holder(#[from] ::network::NetlinkError),
    #[error("{0}")]
    Io(std::io::Error),
    #[error("the task setting up the network ended: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Ends with its tasks when dropped; pods keep their network and Services their maps.
pub struct Networking {
    config: NetworkingConfig,
    pods: Pods,
    records: Arc<Records>,
    server: Server,
    upstreams: Upstreams,
    tasks: JoinSet<()>,
}

enum Pods {
    BuiltIn(BuiltIn),
    Applied(Arc<Applied>),
}

impl Networking {
    pub fn open(config: NetworkingConfig) -> BoxFuture<'static, Result<Self, NetworkingError>> {
        Box::pin(Self::opened(config))
    }

    async fn opened(config: NetworkingConfig) -> Result<Self, NetworkingError> {
        let (pods, listen_on) = match &config.applied {
            None => {
                let built_in = BuiltIn::open(&config).await?;
                let gateways = built_in.pods().gateways();
                (Pods::BuiltIn(built_in), gateways)
            }
            Some(applied) => {
                let families: HashSet<bool> = config.cluster_dns.iter().map(IpAddr::is_ipv4).collect();
                let own: Vec<IpAddr> = DNS_ADDRESSES.into_iter().filter(|address| families.contains(&address.is_ipv4())).collect();
                holder::hold(DNS_LINK, &own)?;
                (Pods::Applied(Applied::open(&config, applied).await?), own)
            }
        };
        let records = Arc::new(Records::new(&config.cluster_domain));
        records.set_servers(config.cluster_dns.clone());
        // Neither of these may be asked what we do not know: they are us.
        let own = [listen_on.clone(), config.cluster_dns.clone()].concat();
        let upstreams = Upstreams::resolv_conf(&config.resolv_conf, own);
        let elsewhere = if config.service_proxy { &[][..] } else { &config.node_addresses };
        let server = listen(&listen_on, elsewhere, &records, &upstreams).await?;
        Ok(Self { config, pods, records, server, upstreams, tasks: JoinSet::new() })
    }

    /// What the embedded runtime gives its sandboxes their network by.
    pub fn pod_network(&self) -> Arc<dyn PodNetwork> {
        match &self.pods {
            Pods::BuiltIn(built_in) => Arc::new(built_in.clone()),
            Pods::Applied(applied) => applied.clone(),
        }
    }

    /// Why the node can take no pods, as it changes; `None` if the network is there from the start.
    pub fn readiness(&self) -> Option<watch::Receiver<Option<String>>> {
        match &self.pods {
            Pods::BuiltIn(_) => None,
            Pods::Applied(applied) => Some(applied.readiness()),
        }
    }

    /// Where the name server listens.
    pub fn dns_addresses(&self) -> &[SocketAddr] {
        self.server.addresses()
    }

    /// Which sandbox has which address, if the built-in network is in use.
    pub fn pods(&self) -> Option<Arc<PodNet>> {
        match &self.pods {
            Pods::BuiltIn(built_in) => Some(built_in.pods().clone()),
            Pods::Applied(applied) => applied.built_in().map(|built_in| built_in.pods().clone()),
        }
    }

    /// Gives back what is held for sandboxes that no longer run: they ended while nobody looked (the machine restarted, say).
    /// Call it before the first new pod.
    pub async fn retain(&self, sandboxes: &[cri::PodSandboxStatus]) -> Result<(), NetworkingError> {
        let alive: HashSet<String> = sandboxes.iter().filter(|s| s.state == cri::SandboxState::Ready).map(|s| s.id.clone()).collect();
        match &self.pods {
            Pods::BuiltIn(built_in) => built_in.retain(alive).await,
            Pods::Applied(applied) => applied.retain(alive).await,
        }
    }

    /// Starts following the API's Services, in maps and in names, and its Nodes, in routes to their pods.
    pub fn follow(&mut self, client: &Client) -> Result<(), NetworkingError> {
        let services = Services::watch(client);
        // Own pods are pods, also when this node's range is outside of what is said to be the cluster's.
        let cluster_cidrs = [self.config.cluster_cidrs.as_slice(), self.config.pod_cidrs.as_slice()].concat();
        let config = DataplaneConfig { cluster_cidrs: outermost(cluster_cidrs), service_cidrs: self.config.service_cidrs.clone() };
        let mut dataplane = Dataplane::open(config.clone())?;
        if self.config.service_proxy {
            let own = Informer::<Node>::of(client, None).fields(&format!("metadata.name={}", self.config.node_name)).start();
            let fixed = local_dns(&self.config.cluster_dns, self.server.addresses());
            let proxy = ProxyConfig { node_name: self.config.node_name.clone(), fixed };
            let (client, services) = (client.clone(), services.clone());
            self.keep("service proxy", move || proxy::run(client.clone(), services.clone(), own.clone(), config.clone(), proxy.clone()));
        } else {
            // Of a time when it was this node's to do.
            dataplane.reset()?;
        }
        let known = Arc::new(AtomicBool::new(false));
        let pages = Arc::new(Pages {
            metrics: Box::new(self.server.metrics_text()),
            ready: Box::new({
                let known = known.clone();
                move || known.load(Ordering::Relaxed)
            }),
        });
        let records = self.records.clone();
        self.keep("names of Services", move || names::run(services.clone(), records.clone(), known.clone()));
        let (whom, upstreams, routes) = (client.clone(), self.upstreams.clone(), Arc::new(self.server.routes()));
        self.keep("Corefile", move || {
            let routes = routes.clone();
            corefile::run(whom.clone(), upstreams.clone(), move |table| routes(table))
        });
        self.keep("metrics of the name server", move || serve_pages(pages.clone()));
        match &self.pods {
            Pods::BuiltIn(built_in) => built_in.follow(client, &mut self.tasks),
            Pods::Applied(applied) => drop(self.tasks.spawn(applied.clone().run(client.clone()))),
        }
        Ok(())
    }

    /// Runs it until this is dropped; anew should it panic.
    fn keep<F>(&mut self, name: &'static str, begin: impl Fn() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(for_ever(name, begin));
    }

    /// Leaves no link, route, table, setting or file of a network with this configuration; blocks for some milliseconds. For when nothing runs.
    pub fn reset(config: &NetworkingConfig) -> Result<(), NetworkingError> {
        Dataplane::open(DataplaneConfig { cluster_cidrs: Vec::new(), service_cidrs: Vec::new() })?.reset()?;
        Policies::reset()?;
        if let Some(applied) = &config.applied {
            applied::reset(config, applied)?;
        }
        holder::release(DNS_LINK)?;
        PodNet::open(PodNetConfig::new(config.pod_cidrs.clone(), config.state_dir.clone()))?.reset()?;
        Ok(())
    }
}

/// Metrics, health and readiness of the name server, on every address of the node.
async fn serve_pages(pages: Arc<Pages>) {
    match ::dns::listen(METRICS_PORT).await {
        Ok(listener) => ::dns::serve(listener, pages).await,
        Err(error) => tracing::warn!(%error, port = METRICS_PORT, "the name server's metrics are not served"),
    }
}

/// The ranges that are in no other: each is one more comparison for a packet.
fn outermost(mut nets: Vec<IpNet>) -> Vec<IpNet> {
    nets.sort();
    let mut kept: Vec<IpNet> = Vec::new();
    for net in nets {
        if !kept.iter().any(|other| other.contains(net.address())) {
            kept.push(net);
        }
    }
    kept
}

/// On port 53 if it is free. On `addresses` it need not be: pods are led to whichever it is. `elsewhere` is where others expect it.
async fn listen(addresses: &[IpAddr], elsewhere: &[IpAddr], records: &Arc<Records>, upstreams: &Upstreams) -> Result<Server, BindError> {
    let on = |addresses: &[IpAddr], port| addresses.iter().map(|a| SocketAddr::from((*a, port))).collect::<Vec<_>>();
    let everywhere = [addresses, elsewhere].concat();
    match Server::bind(&on(&everywhere, DNS_PORT), records.clone(), upstreams.clone()).await {
        Err(error) if error.source.kind() == std::io::ErrorKind::AddrInUse => {
            match elsewhere {
                [] => tracing::info!(%error, "the DNS port is taken, using another"),
                _ => tracing::warn!(%error, "the DNS port is taken: this node does not answer for the DNS Service"),
            }
            Server::bind(&on(addresses, 0), records.clone(), upstreams.clone()).await
        }
        other => other,
    }
}
