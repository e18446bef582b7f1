//! The service proxy: keeps the node's Service maps as the API's Services and EndpointSlices say, as kube-proxy does
//! (<https://kubernetes.io/docs/reference/networking/virtual-ips/>).
//!
//! Each event is programmed at once, in one transaction with whatever else came meanwhile; nothing is resynced. Until both lists are known
//! the tables of a former process go on working.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ::dns::METRICS_PORT;
use ::network::{Dataplane, DataplaneError, Endpoint, Protocol, ServiceChange, ServicePort, ServicePortName};
use api::k8s::api::core::v1::{self as core, Service};
use api::k8s::api::discovery::v1::EndpointSlice;

use crate::services::{ServiceKey, Services, is_headless, is_ready, is_serving_while_terminating};

/// The pause after the kernel refused a change; what came meanwhile goes with the next try.
const RETRY: Duration = Duration::from_secs(1);
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
const DNS_PORT: u16 = 53;
/// Where the cluster's name server has its Service.
const DNS_SERVICE: (&str, &str) = ("kube-system", "kube-dns");

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

/// Follows the API until it is dropped; the tables stay as they are then.
pub async fn run(services: Services, mut dataplane: Dataplane, config: ProxyConfig) {
    let changed = services.changes();
    services.synced().await;
    let mut keys = BTreeSet::new();
    // What is fixed goes in with the first change, which is made even when the API has no Service.
    let mut fixed = Some(config.fixed.clone());
    loop {
        // Wait only when there is nothing to do, nor to do again.
        keys.append(&mut if keys.is_empty() && fixed.is_none() { changed.next().await } else { changed.take() });
        let mut changes: Vec<ServiceChange> = fixed.iter().flatten().map(|(name, port)| (name.clone(), Some(port.clone()))).collect();
        for key in keys.iter().filter(|key| !is_fixed(&config, key)) {
            let wanted = services.get(key).map(|(service, slices)| service_ports(&service, &slices, &config.node_name)).unwrap_or_default();
            changes.extend(difference(&dataplane, key, wanted));
        }
        let count = changes.len();
        let result;
        (dataplane, result) = match tokio::task::spawn_blocking(move || {
            let result = dataplane.apply(changes);
            (dataplane, result)
        })
        .await
        {
            Ok(done) => done,
            Err(error) => return tracing::error!(%error, "the service proxy ended"),
        };
        match result {
            Ok(()) => {
                tracing::debug!(services = keys.len(), ports = count, "programmed services");
                keys.clear();
                fixed = None;
            }
            Err(error) => retry(error).await,
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

/// The ports of a Service with their endpoints. Empty for what is not proxied: headless, ExternalName, or left to another proxy.
pub fn service_ports(service: &Service, slices: &[impl AsRef<EndpointSlice>], node_name: &str) -> BTreeMap<ServicePortName, ServicePort> {
    let metadata = &service.metadata;
    let Some(spec) = &service.spec else { return BTreeMap::new() };
    let is_external_name = spec.type_.as_deref() == Some("ExternalName");
    if is_headless(service) || is_external_name || metadata.labels.as_ref().is_some_and(|l| l.contains_key(PROXY_NAME)) {
        return BTreeMap::new();
    }
    let parse = |texts: &Option<Vec<String>>| -> Vec<IpAddr> { texts.iter().flatten().filter_map(|t| t.parse().ok()).collect() };
    let mut cluster_ips = parse(&spec.cluster_ips);
    if cluster_ips.is_empty() {
        cluster_ips.extend(spec.cluster_ip.as_deref().and_then(|t| t.parse::<IpAddr>().ok()));
    }
    let ingress = service.status.as_ref().and_then(|s| s.load_balancer.as_ref()).and_then(|l| l.ingress.as_ref());
    // With ipMode Proxy the load balancer wants to see the traffic itself.
    let load_balancer_ips: Vec<IpAddr> =
        ingress.into_iter().flatten().filter(|i| i.ip_mode.as_deref() != Some("Proxy")).filter_map(|i| i.ip.as_ref()?.parse().ok()).collect();
    let is_local = |policy: &Option<String>| policy.as_deref() == Some("Local");
    let base = ServicePort {
        cluster_ips,
        external_ips: parse(&spec.external_ips),
        load_balancer_ips: if spec.type_.as_deref() == Some("LoadBalancer") { load_balancer_ips } else { Vec::new() },
        session_affinity: session_affinity(spec),
        external_local: is_local(&spec.external_traffic_policy),
        internal_local: is_local(&spec.internal_traffic_policy),
        ..ServicePort::default()
    };
    let mut ports = BTreeMap::new();
    for port in spec.ports.iter().flatten() {
        let Ok(number) = u16::try_from(port.port) else { continue };
        let name = port.name.clone().unwrap_or_default();
        let wanted = ServicePort {
            protocol: protocol(port.protocol.as_deref()),
            port: number,
            node_port: port.node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0),
            endpoints: endpoints(slices, &name, node_name),
            ..base.clone()
        };
        let namespace = metadata.namespace.clone().unwrap_or_default();
        ports.insert(ServicePortName { namespace, name: metadata.name.clone().unwrap_or_default(), port: name }, wanted);
    }
    ports
}

fn session_affinity(spec: &core::ServiceSpec) -> Option<u32> {
    const DEFAULT_SECONDS: i32 = 10_800;
    (spec.session_affinity.as_deref() == Some("ClientIP")).then_some(())?;
    let seconds = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref()).and_then(|c| c.timeout_seconds);
    u32::try_from(seconds.unwrap_or(DEFAULT_SECONDS)).ok()
}

pub fn protocol(name: Option<&str>) -> Protocol {
    match name {
        Some("UDP") => Protocol::Udp,
        Some("SCTP") => Protocol::Sctp,
        _ => Protocol::Tcp,
    }
}

/// The endpoints of a port: those ready, else those that still serve while they end (KEP-1669).
fn endpoints(slices: &[impl AsRef<EndpointSlice>], port: &str, node_name: &str) -> Vec<Endpoint> {
    let chosen = |accept: fn(&api::k8s::api::discovery::v1::Endpoint) -> bool| -> BTreeSet<Endpoint> {
        let mut endpoints = BTreeSet::new();
        for slice in slices.iter().map(AsRef::as_ref) {
            let number = slice.ports.iter().flatten().find(|p| p.name.as_deref().unwrap_or_default() == port).and_then(|p| u16::try_from(p.port?).ok());
            let Some(number) = number else { continue };
            for endpoint in slice.endpoints.iter().flatten().filter(|e| accept(e)) {
                let local = endpoint.node_name.as_deref() == Some(node_name);
                // Of the addresses of one endpoint any is as good; upstream takes the first.
                let address = endpoint.addresses.first().and_then(|a| a.parse().ok());
                endpoints.extend(address.map(|address| Endpoint { address, port: number, local }));
            }
        }
        endpoints
    };
    let ready = chosen(is_ready);
    let best = if ready.is_empty() { chosen(is_serving_while_terminating) } else { ready };
    best.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn service(spec: Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec})).expect("service")
    }

    fn slice(endpoints: Value) -> Arc<EndpointSlice> {
        let ports = json!([{"name": "http", "port": 8080, "protocol": "TCP"}]);
        Arc::new(serde_json::from_value(json!({"addressType": "IPv4", "metadata": {}, "ports": ports, "endpoints": endpoints})).expect("slice"))
    }

    fn endpoint(address: &str, conditions: Value) -> Value {
        json!({"addresses": [address], "conditions": conditions, "nodeName": "node1"})
    }

    fn show(service: &Service, slices: &[Arc<EndpointSlice>]) -> Vec<String> {
        let line = |(name, port): (&ServicePortName, &ServicePort)| {
            let ips: Vec<String> = port.cluster_ips.iter().chain(&port.external_ips).chain(&port.load_balancer_ips).map(ToString::to_string).collect();
            let to: Vec<String> = port.endpoints.iter().map(|e| format!("{}:{}{}", e.address, e.port, if e.local { " local" } else { "" })).collect();
            format!("{name} {:?} {} node {:?} {} -> {}", port.protocol, port.port, port.node_port, ips.join(","), to.join(","))
        };
        service_ports(service, slices, "node1").iter().map(line).collect()
    }

    #[test]
    fn services_as_ports() {
        let http = json!([{"name": "http", "port": 80, "nodePort": 30001}]);
        let web = service(json!({"type": "NodePort", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00::7"], "ports": http}));
        let ready = slice(json!([endpoint("10.244.0.2", json!({"ready": true})), endpoint("10.244.0.3", json!({"ready": false}))]));
        let ending = slice(json!([
            endpoint("10.244.0.4", json!({"ready": false, "serving": true, "terminating": true})),
            endpoint("10.244.0.5", json!({"ready": false, "serving": false, "terminating": true})),
        ]));
        let head = "default/web:http Tcp 80 node Some(30001) 10.96.0.7,fd00::7 -> ";
        let with = |to: &str| vec![format!("{head}{to}")];
        assert_eq!(show(&web, &[]), with(""));
        assert_eq!(show(&web, &[ready.clone(), ending.clone()]), with("10.244.0.2:8080 local"), "ready ones only");
        assert_eq!(show(&web, &[ending]), with("10.244.0.4:8080 local"), "else who still serves");
        assert_eq!(show(&web, &[ready.clone(), ready]), with("10.244.0.2:8080 local"), "once");
        let elsewhere = slice(json!([{"addresses": ["10.244.1.2"], "nodeName": "node2"}]));
        assert_eq!(show(&web, &[elsewhere]), with("10.244.1.2:8080"), "no conditions means ready");
    }

    #[test]
    fn what_is_not_proxied() {
        let ports = json!([{"port": 80}]);
        assert!(show(&service(json!({"clusterIP": "None", "ports": ports})), &[]).is_empty());
        assert!(show(&service(json!({"type": "ExternalName", "externalName": "example.com"})), &[]).is_empty());
        let mut other = service(json!({"clusterIP": "10.96.0.7", "ports": ports}));
        other.metadata.labels = Some([(PROXY_NAME.to_owned(), "mine".to_owned())].into());
        assert!(show(&other, &[]).is_empty());
    }

    #[test]
    fn policies_and_affinity() {
        let of = |spec| service_ports(&service(spec), &[] as &[Arc<EndpointSlice>], "node1").into_values().next().expect("one port");
        let port = of(json!({"clusterIP": "10.96.0.7", "ports": [{"port": 80}], "sessionAffinity": "ClientIP", "externalTrafficPolicy": "Local"}));
        assert_eq!((port.session_affinity, port.external_local, port.internal_local), (Some(10_800), true, false));
        let config = json!({"clientIP": {"timeoutSeconds": 10}});
        let port = of(json!({"clusterIP": "10.96.0.7", "ports": [{"port": 53, "protocol": "UDP"}], "sessionAffinity": "ClientIP", "sessionAffinityConfig": config}));
        assert_eq!((port.session_affinity, port.protocol), (Some(10), Protocol::Udp));
    }
}
