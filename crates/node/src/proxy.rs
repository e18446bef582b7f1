//! The service proxy: keeps the node's Service maps as the API's Services and EndpointSlices say, as kube-proxy does
//! (<https://kubernetes.io/docs/reference/networking/virtual-ips/>).
//!
//! Each event is programmed at once, in one transaction with whatever else came meanwhile; nothing is resynced. Until the lists are known
//! the tables of a former process go on working.

mod health;
mod measured;
mod ports;
mod topology;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::dns::METRICS_PORT;
use ::network::{Dataplane, DataplaneConfig, DataplaneError, Endpoint, Protocol, ServiceChange, ServicePort, ServicePortName};
use api::k8s::api::core::v1::Node;
use api::Clock as _;
use api::world::SystemClock;
use client::{Change, Client, Informer, Recorder};
use parking_lot::Mutex;

use self::health::{HealthChecks, ProxyHealth, Wanted};
use self::measured::Measured;
use self::ports::Here;
pub use self::ports::protocol;
use crate::services::{Changed, ServiceKey, Services};

/// The pause after the kernel refused a change; what came meanwhile goes with the next try.
const RETRY: Duration = Duration::from_secs(1);
const DNS_PORT: u16 = 53;
/// Where the cluster's name server has its Service.
const DNS_SERVICE: (&str, &str) = ("kube-system", "kube-dns");
const ZONE: &str = "topology.kubernetes.io/zone";
const COMPONENT: &str = "kube-proxy";

#[derive(Debug, Clone, Default)]
pub struct ProxyConfig {
    /// This node: endpoints on it count as local.
    pub node_name: String,
    /// Service ports that are so on this node whatever the API says of their Services, see [`local_dns`].
    pub fixed: BTreeMap<ServicePortName, ServicePort>,
}

/// The cluster's DNS Service, answered by this node's own name server.
pub fn local_dns(cluster_ips: &[IpAddr], servers: &[SocketAddr]) -> BTreeMap<ServicePortName, ServicePort> {
    let port = |name: &str, protocol, number, at: &dyn Fn(&SocketAddr) -> u16| {
        let (namespace, service) = DNS_SERVICE;
        let name = ServicePortName { namespace: namespace.into(), name: service.into(), port: name.into() };
        // Not a pod of this node that might ask itself, so not `local`.
        let endpoints = servers.iter().map(|s| Endpoint { address: s.ip(), port: at(s), local: false }).collect();
        (name, ServicePort { protocol, port: number, cluster_ips: cluster_ips.to_vec(), endpoints, ..ServicePort::default() })
    };
    BTreeMap::from([
        port("dns", Protocol::Udp, DNS_PORT, &SocketAddr::port),
        port("dns-tcp", Protocol::Tcp, DNS_PORT, &SocketAddr::port),
        port("metrics", Protocol::Tcp, METRICS_PORT, &|_| METRICS_PORT),
    ])
}

/// Keeps what is known of this node; all Services are looked at again when it is elsewhere or has other addresses.
fn follow_node(nodes: &Informer<Node>, here: &Arc<Mutex<Here>>, health: &Arc<ProxyHealth>, services: &Services, changed: &Arc<Changed>) {
    let (here, health, services, changed) = (here.clone(), health.clone(), services.clone(), Arc::downgrade(changed));
    let node_name = here.lock().node_name.clone();
    nodes.on_change(move |change: &Change| {
        if *change.key.name != *node_name {
            return;
        }
        let node = change.new.as_ref().and_then(|object| object.typed::<Node>().ok());
        health.set_node(node.as_deref());
        let Some(node) = node else { return };
        let zone = node.metadata.labels.as_ref().and_then(|labels| labels.get(ZONE)).cloned().unwrap_or_default();
        let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten()).filter(|address| address.type_ == "InternalIP");
        let now = Here { node_name: node_name.clone(), zone, addresses: addresses.filter_map(|address| address.address.parse().ok()).collect() };
        if std::mem::replace(&mut *here.lock(), now.clone()) != now
            && let Some(changed) = changed.upgrade()
        {
            services.keys().into_iter().for_each(|key| changed.add(key));
        }
    });
}

/// Follows the API until it is dropped; the tables stay as they are then.
pub async fn run(client: Client, services: Services, nodes: Informer<Node>, tables: DataplaneConfig, config: ProxyConfig) {
    // Knows of nothing, so the first change writes all tables anew.
    let mut dataplane = loop {
        match Dataplane::open(tables.clone()) {
            Ok(dataplane) => break dataplane,
            Err(error) => retry(error).await,
        }
    };
    let clock = Arc::new(SystemClock);
    let health = Arc::new(ProxyHealth::new(clock.clone(), dataplane.families()));
    let mut checks = HealthChecks::new(&config.node_name, health.clone(), Recorder::start(&client, COMPONENT, &config.node_name, clock));
    let measured = Arc::new(Measured::new(dataplane.families(), SystemClock.now()));
    let mut doors = tokio::task::JoinSet::new();
    doors.spawn(health::serve_healthz(health.clone(), measured.clone()));
    doors.spawn(health::serve_metrics(health.clone(), measured.clone()));
    let here = Arc::new(Mutex::new(Here { node_name: config.node_name.clone(), ..Here::default() }));
    let changed = services.changes();
    measured.follow(&changed);
    follow_node(&nodes, &here, &health, &services, &changed);
    services.synced().await;
    nodes.synced().await;
    let mut keys = BTreeSet::new();
    // What is fixed goes in with the first change, which is made even when the API has no Service.
    let mut fixed = Some(config.fixed.clone());
    loop {
        // Wait only when there is nothing to do, nor to do again.
        keys.append(&mut if keys.is_empty() && fixed.is_none() { changed.next().await } else { changed.take() });
        health.queued();
        measured.queued();
        let seen = changed.seen();
        let mut changes: Vec<ServiceChange> = fixed.iter().flatten().map(|(name, port)| (name.clone(), Some(port.clone()))).collect();
        let mut asked: Vec<(ServiceKey, Wanted)> = Vec::new();
        let mut triggers = Vec::new();
        let seen_from = here.lock().clone();
        for key in keys.iter().filter(|key| !is_fixed(&config, key)) {
            let found = services.get(key);
            triggers.append(&mut measured.triggers(key, found.as_ref().map(|(_, slices)| &**slices)));
            let wanted = found.as_ref().map(|(service, slices)| ports::service_ports(service, slices, &seen_from)).unwrap_or_default();
            changes.extend(difference(&dataplane, key, wanted));
            let check = found.and_then(|(service, slices)| ports::health_check(&service, &slices, &seen_from).map(|(port, endpoints)| (service, port, endpoints)));
            asked.push((key.clone(), check));
        }
        let count = changes.len();
        let begun = Instant::now();
        let result;
        (dataplane, result) = match tokio::task::spawn_blocking(move || {
            let result = dataplane.apply(changes);
            (dataplane, result)
        })
        .await
        {
            Ok(done) => done,
            // Whoever runs this begins anew: what was programmed halfway is not known.
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(error) => return tracing::error!(%error, "the service proxy ended"),
        };
        match result {
            Ok(()) => {
                tracing::debug!(services = keys.len(), ports = count, "programmed services");
                health.updated();
                measured.synced(begun.elapsed(), seen, &triggers, SystemClock.now());
                keys.clear();
                fixed = None;
                // Only now would traffic that a load balancer sends arrive.
                checks.set(asked).await;
            }
            Err(error) => {
                measured.failed();
                retry(error).await;
            }
        }
    }
}

async fn retry(error: DataplaneError) {
    tracing::error!(%error, "services are not programmed, trying again");
    tokio::time::sleep(RETRY).await;
}

fn is_fixed(config: &ProxyConfig, (namespace, name): &ServiceKey) -> bool {
    config.fixed.keys().any(|fixed| fixed.namespace == *namespace && fixed.name == *name)
}

/// The wanted ports, and the end of those that are programmed but not wanted.
fn difference(dataplane: &Dataplane, (namespace, name): &ServiceKey, wanted: BTreeMap<ServicePortName, ServicePort>) -> Vec<ServiceChange> {
    let first = ServicePortName { namespace: namespace.clone(), name: name.clone(), port: String::new() };
    let programmed = dataplane.programmed().range(first..).map(|(port, _)| port).take_while(|port| port.namespace == *namespace && port.name == *name);
    let gone: Vec<ServiceChange> = programmed.filter(|port| !wanted.contains_key(port)).map(|port| (port.clone(), None)).collect();
    gone.into_iter().chain(wanted.into_iter().map(|(name, port)| (name, Some(port)))).collect()
}
