//! The built-in pod network: [`PodNet`] as the runtime wants it, the policies of each pod before anything runs in it, and the ways to other nodes' pods.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use ::network::{PodNet, PodNetConfig, PodNetError, PortMapping, Protocol};
use basics::tasks::for_ever;
use client::Client;
use sandbox::cri::{self, BoxFuture, PodNetwork, PodSandboxConfig};
use tokio::task::JoinSet;

use crate::networking::{NetworkingConfig, NetworkingError};
use crate::peers;
use crate::policy::Policies;

/// Cheap to clone.
#[derive(Clone)]
pub struct BuiltIn {
    node_name: String,
    pods: Arc<PodNet>,
    policies: Policies,
}

impl BuiltIn {
    pub async fn open(config: &NetworkingConfig) -> Result<Self, NetworkingError> {
        let mut pods = PodNetConfig::new(config.pod_cidrs.clone(), config.state_dir.clone());
        pods.cluster_cidrs = config.cluster_cidrs.clone();
        pods.service_cidrs = config.service_cidrs.clone();
        let pods = Arc::new(tokio::task::spawn_blocking(move || PodNet::open(pods)).await??);
        let policies = Policies::open(&config.node_name, &config.pod_cidrs)?;
        Ok(Self { node_name: config.node_name.clone(), pods, policies })
    }

    pub fn pods(&self) -> &Arc<PodNet> {
        &self.pods
    }

    /// Starts following the API's policies and nodes. Pods that are attached from now on wait until the policies are known.
    pub fn follow(&self, client: &Client, tasks: &mut JoinSet<()>) {
        tasks.spawn(self.policies.clone().run(client.clone()));
        let (client, node_name, pods) = (client.clone(), self.node_name.clone(), self.pods.clone());
        tasks.spawn(for_ever("routes to other nodes", move || peers::run(client.clone(), node_name.clone(), pods.clone())));
    }

    /// Before [`BuiltIn::follow`], if that comes later: pods that are attached from now on wait until the policies are known.
    pub fn expect(&self) {
        self.policies.expect();
    }

    /// Gives back what is held for sandboxes that are not alive.
    pub async fn retain(&self, alive: HashSet<String>) -> Result<(), NetworkingError> {
        let pods = self.pods.clone();
        Ok(tokio::task::spawn_blocking(move || pods.retain(|id| alive.contains(id))).await??)
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce(&PodNet) -> Result<T, PodNetError> + Send + 'static) -> Result<T, String> {
        let pods = self.pods.clone();
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
            self.policies.known().await?;
            let addresses = self.run(move |pods| pods.attach(&id, &namespace, &ports)).await?;
            self.policies.attach(sandbox_id, config, &addresses).await?;
            Ok(addresses)
        })
    }

    fn detach<'a>(&'a self, sandbox_id: &'a str, _: &'a PodSandboxConfig) -> BoxFuture<'a, Result<(), String>> {
        let id = sandbox_id.to_owned();
        Box::pin(async move {
            self.run(move |pods| pods.detach(&id)).await?;
            self.policies.detach(sandbox_id).await;
            Ok(())
        })
    }
}
