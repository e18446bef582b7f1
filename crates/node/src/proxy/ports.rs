//! A Service and its slices as the ports that the dataplane programs. Pure.
//!
//! Mirrors pkg/proxy/serviceport.go and endpointslicecache.go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ::network::{Endpoint, IpNet, Protocol, ServicePort, ServicePortName};
use api::k8s::api::core::v1::{self as core, Service};
use api::k8s::api::discovery::v1::{self as discovery, EndpointSlice};

use super::topology::{Candidate, choose};
use crate::services::{is_headless, is_ready};

const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";

/// This node, as far as it decides where traffic goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Here {
    /// Endpoints on it count as local.
    pub node_name: String,
    /// Empty when its node has no such label.
    pub zone: String,
    /// Internal ones.
    pub addresses: Vec<IpAddr>,
}

/// The ports of a Service with their endpoints. Empty for what is not proxied: headless, ExternalName, or left to another proxy.
pub fn service_ports(service: &Service, slices: &[impl AsRef<EndpointSlice>], here: &Here) -> BTreeMap<ServicePortName, ServicePort> {
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
    let load_balancer_ips: Vec<IpAddr> = ingress.into_iter().flatten().filter(|i| i.ip_mode.as_deref() != Some("Proxy")).filter_map(|i| i.ip.as_ref()?.parse().ok()).collect();
    let is_local = |policy: &Option<String>| policy.as_deref() == Some("Local");
    let base = ServicePort {
        cluster_ips,
        external_ips: parse(&spec.external_ips),
        source_ranges: source_ranges(spec, &load_balancer_ips, here),
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
        let mut wanted = ServicePort {
            protocol: protocol(port.protocol.as_deref()),
            port: number,
            node_port: port.node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0),
            ..base.clone()
        };
        let chosen = choose(&candidates(slices, &name, here), &here.node_name, &here.zone);
        wanted.endpoints = chosen.cluster;
        if wanted.uses_local_endpoints() {
            wanted.local_endpoints = chosen.local;
        }
        if wanted.protocol == Protocol::Udp {
            wanted.draining = chosen.draining;
        }
        let namespace = metadata.namespace.clone().unwrap_or_default();
        ports.insert(ServicePortName { namespace, name: metadata.name.clone().unwrap_or_default(), port: name }, wanted);
    }
    ports
}

/// Who may come to the load balancer's addresses; of a family that is not spoken of, or of which all are named, everybody.
fn source_ranges(spec: &core::ServiceSpec, load_balancer_ips: &[IpAddr], here: &Here) -> Vec<IpNet> {
    let all: Vec<IpNet> = spec.load_balancer_source_ranges.iter().flatten().filter_map(|text| text.trim().parse().ok()).collect();
    let is_open = |ipv4: bool| all.iter().any(|net| net.is_ipv4() == ipv4 && net.prefix() == 0);
    let mut ranges: Vec<IpNet> = all.iter().copied().filter(|net| !is_open(net.is_ipv4())).collect();
    // This node's own packets to the load balancer's address may have that address as their source, when it is on this node.
    let own = load_balancer_ips.iter().filter(|ip| ranges.iter().any(|net| net.is_ipv4() == ip.is_ipv4() && here.addresses.iter().any(|address| net.contains(*address))));
    let own: Vec<IpNet> = own.filter_map(|ip| IpNet::new(*ip, if ip.is_ipv4() { 32 } else { 128 })).collect();
    ranges.extend(own);
    ranges
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

/// The endpoints of a port, each address once. Of two that claim the same one the living counts: an ending pod's address may have been given on.
fn candidates(slices: &[impl AsRef<EndpointSlice>], port: &str, here: &Here) -> Vec<Candidate> {
    let mut candidates = BTreeMap::new();
    for slice in slices.iter().map(AsRef::as_ref) {
        let number = slice.ports.iter().flatten().find(|p| p.name.as_deref().unwrap_or_default() == port).and_then(|p| u16::try_from(p.port?).ok());
        let Some(number) = number else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            let Some(candidate) = candidate(endpoint, number, here) else { continue };
            let key = (candidate.endpoint.address, number);
            if !candidate.terminating || !candidates.contains_key(&key) {
                candidates.insert(key, candidate);
            }
        }
    }
    candidates.into_values().collect()
}

fn candidate(endpoint: &discovery::Endpoint, port: u16, here: &Here) -> Option<Candidate> {
    // Of the addresses of one endpoint any is as good; upstream takes the first.
    let address = endpoint.addresses.first()?.parse().ok()?;
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let hints = endpoint.hints.as_ref();
    Some(Candidate {
        endpoint: Endpoint { address, port, local: !here.node_name.is_empty() && endpoint.node_name.as_ref() == Some(&here.node_name) },
        ready: is_ready(endpoint),
        serving: conditions.serving.unwrap_or(true),
        terminating: conditions.terminating.unwrap_or(false),
        zones: hints.and_then(|hints| hints.for_zones.as_ref()).into_iter().flatten().map(|zone| zone.name.clone()).collect(),
        nodes: hints.and_then(|hints| hints.for_nodes.as_ref()).into_iter().flatten().map(|node| node.name.clone()).collect(),
    })
}

/// The port on which a load balancer asks whether this node has endpoints of the Service, and how many it has that are ready.
pub fn health_check(service: &Service, slices: &[impl AsRef<EndpointSlice>], here: &Here) -> Option<(u16, usize)> {
    let spec = service.spec.as_ref()?;
    let asks = spec.type_.as_deref() == Some("LoadBalancer") && spec.external_traffic_policy.as_deref() == Some("Local");
    let port = spec.health_check_node_port.filter(|_| asks).and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0)?;
    let mut ready: [BTreeSet<IpAddr>; 2] = Default::default();
    for port in spec.ports.iter().flatten() {
        for candidate in candidates(slices, port.name.as_deref().unwrap_or_default(), here).into_iter().filter(|c| c.ready && c.endpoint.local) {
            ready[usize::from(candidate.endpoint.address.is_ipv6())].insert(candidate.endpoint.address);
        }
    }
    // A pod with an address of each family is one endpoint.
    Some((port, ready.iter().map(BTreeSet::len).max().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn here() -> Here {
        Here { node_name: "node1".into(), zone: "a".into(), addresses: vec!["192.0.2.1".parse().expect("address")] }
    }

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
        service_ports(service, slices, &here()).iter().map(line).collect()
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
        let of = |spec| service_ports(&service(spec), &[] as &[Arc<EndpointSlice>], &here()).into_values().next().expect("one port");
        let port = of(json!({"clusterIP": "10.96.0.7", "ports": [{"port": 80}], "sessionAffinity": "ClientIP", "externalTrafficPolicy": "Local"}));
        assert_eq!((port.session_affinity, port.external_local, port.internal_local), (Some(10_800), true, false));
        let config = json!({"clientIP": {"timeoutSeconds": 10}});
        let port = of(json!({"clusterIP": "10.96.0.7", "ports": [{"port": 53, "protocol": "UDP"}], "sessionAffinity": "ClientIP", "sessionAffinityConfig": config}));
        assert_eq!((port.session_affinity, port.protocol), (Some(10), Protocol::Udp));
    }

    #[test]
    fn load_balancers() {
        let status = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.5", "ipMode": "VIP"}, {"ip": "203.0.113.6", "ipMode": "Proxy"}, {"hostname": "lb.example"}, {"ip": "2001:db8::5"}]}});
        let of = |ranges: Value| {
            let spec = json!({"type": "LoadBalancer", "clusterIP": "10.96.0.7", "ports": [{"port": 80}], "loadBalancerSourceRanges": ranges});
            let mut service = service(spec);
            service.status = serde_json::from_value(status.clone()).expect("status");
            let port = service_ports(&service, &[] as &[Arc<EndpointSlice>], &here()).into_values().next().expect("one port");
            let text = |list: Vec<String>| list.join(" ");
            (text(port.load_balancer_ips.iter().map(ToString::to_string).collect()), text(port.source_ranges.iter().map(ToString::to_string).collect()))
        };
        let vips = "203.0.113.5 2001:db8::5".to_owned();
        assert_eq!(of(json!([" 198.51.100.0/24", "10.0.0.0/8 "])), (vips.clone(), "198.51.100.0/24 10.0.0.0/8".into()));
        assert_eq!(of(json!(["192.0.2.0/24"])).1, "192.0.2.0/24 203.0.113.5/32", "this node is in it");
        assert_eq!(of(json!(["0.0.0.0/0", "10.0.0.0/8", "2001:db8:7::/48"])).1, "2001:db8:7::/48", "everybody of one family");
        assert_eq!(of(json!(null)), (vips, String::new()));
    }

    #[test]
    fn what_stays_here_and_what_may_finish() {
        let local = json!({"type": "NodePort", "clusterIP": "10.96.0.7", "externalTrafficPolicy": "Local", "ports": [{"name": "http", "port": 80, "nodePort": 30001, "protocol": "UDP"}]});
        let slices = [slice(json!([
            endpoint("10.244.0.2", json!({"ready": true})),
            {"addresses": ["10.244.1.2"], "nodeName": "node2"},
            endpoint("10.244.0.4", json!({"ready": false, "serving": true, "terminating": true})),
        ]))];
        let show = |endpoints: &[::network::Endpoint]| endpoints.iter().map(|e| e.address.to_string()).collect::<Vec<_>>().join(" ");
        let port = service_ports(&service(local), &slices, &here()).into_values().next().expect("one port");
        assert_eq!((show(&port.endpoints), show(&port.local_endpoints), show(&port.draining)), ("10.244.0.2 10.244.1.2".into(), "10.244.0.2".into(), "10.244.0.4".into()));
    }

    #[test]
    fn an_address_that_was_given_on() {
        let ending = endpoint("10.244.0.2", json!({"ready": false, "serving": false, "terminating": true}));
        let alive = endpoint("10.244.0.2", json!({"ready": true}));
        let web = service(json!({"clusterIP": "10.96.0.7", "ports": [{"name": "http", "port": 80}]}));
        for order in [json!([alive, ending]), json!([ending, alive])] {
            assert!(show(&web, &[slice(order)])[0].ends_with("-> 10.244.0.2:8080 local"));
        }
    }

    #[test]
    fn health_checks() {
        let slices = [slice(json!([endpoint("10.244.0.2", json!({"ready": true})), endpoint("10.244.0.3", json!({"ready": false})), {"addresses": ["10.244.1.2"], "nodeName": "node2"}]))];
        let of = |policy: &str, kind: &str| {
            let spec = json!({"type": kind, "externalTrafficPolicy": policy, "healthCheckNodePort": 31000, "ports": [{"name": "http", "port": 80}, {"name": "other", "port": 81}]});
            health_check(&service(spec), &slices, &here())
        };
        assert_eq!(of("Local", "LoadBalancer"), Some((31000, 1)));
        assert_eq!(of("Cluster", "LoadBalancer"), None);
        assert_eq!(of("Local", "NodePort"), None);
    }
}
