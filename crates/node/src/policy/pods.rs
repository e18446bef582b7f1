//! What network policies need to know of a pod: labels, addresses, named ports, and whether it runs here. A few hundred bytes each.

use std::net::IpAddr;
use std::sync::Arc;

use ::network::Protocol;
use serde::Deserialize;

use super::{Labels, rules};

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    pub uid: String,
    pub labels: Labels,
    pub addresses: Vec<IpAddr>,
    pub ports: Vec<(Arc<str>, Protocol, u16)>,
    /// On this node, which so has to enforce its policies.
    pub local: bool,
}

#[derive(Deserialize)]
struct Seen {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    labels: Option<Labels>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
    host_network: Option<bool>,
    containers: Vec<Container>,
    init_containers: Option<Vec<Container>>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Container {
    restart_policy: Option<String>,
    ports: Option<Vec<ContainerPort>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerPort {
    name: Option<String>,
    container_port: i64,
    protocol: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<PodIp>>,
}

#[derive(Deserialize)]
struct PodIp {
    #[serde(default)]
    ip: String,
}

/// Nothing for pods that policies do not concern: on their node's network, or over.
pub fn facts(object: &api::Object, node_name: &str) -> Option<Facts> {
    let seen: Seen = serde_json::from_slice(object.bytes()).inspect_err(|error| tracing::warn!(?object, %error, "a pod cannot be read, policies do not see it")).ok()?;
    if seen.spec.host_network == Some(true) || matches!(seen.status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let mut addresses: Vec<IpAddr> = seen.status.pod_ips.iter().flatten().filter_map(|p| p.ip.parse().ok()).collect();
    if addresses.is_empty() {
        addresses.extend(seen.status.pod_ip.and_then(|ip| ip.parse::<IpAddr>().ok()));
    }
    let sidecars = seen.spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = sidecars.chain(&seen.spec.containers).flat_map(|c| c.ports.iter().flatten());
    let ports = ports.filter_map(|port| {
        let name = port.name.as_deref().filter(|name| !name.is_empty())?;
        Some((name.into(), rules::protocol(port.protocol.as_deref())?, u16::try_from(port.container_port).ok()?))
    });
    Some(Facts { uid: seen.metadata.uid, labels: seen.metadata.labels.unwrap_or_default(), addresses, ports: ports.collect(), local: seen.spec.node_name.as_deref() == Some(node_name) })
}
