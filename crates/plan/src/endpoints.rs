//! Which pods stand behind a Service: EndpointSlices, and the older Endpoints.

pub mod hints;
pub mod legacy;
pub mod mirror;
pub mod slices;

use std::sync::Arc;

use api::k8s::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use api::k8s::apimachinery::pkg::util::intstr::IntOrString;
use jiff::Timestamp;

use crate::meta::{created, deleting, name, namespace, uid};
use crate::pods;

pub const LAST_CHANGE: &str = "endpoints.kubernetes.io/last-change-trigger-time";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// Whether pods are looked up for it: it has a selector and is not a mere name.
pub fn has_selector(service: &Service) -> bool {
    service
        .spec
        .as_ref()
        .is_some_and(|spec| spec.selector.as_ref().is_some_and(|selector| !selector.is_empty()) && spec.type_.as_deref() != Some("ExternalName"))
}

fn headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

fn ports(service: &Service) -> &[ServicePort] {
    service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or(&[])
}

fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false)
}

fn families(service: &Service) -> Vec<String> {
    service.spec.as_ref().and_then(|spec| spec.ip_families.clone()).filter(|families| !families.is_empty()).unwrap_or_else(|| vec!["IPv4".to_owned()])
}

/// All addresses of a pod.
fn addresses(pod: &Pod) -> Vec<&str> {
    let Some(status) = &pod.status else { return Vec::new() };
    let listed: Vec<&str> = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).filter(|ip| !ip.is_empty()).collect();
    if listed.is_empty() { status.pod_ip.as_deref().filter(|ip| !ip.is_empty()).into_iter().collect() } else { listed }
}

/// A pod's address of one family.
fn address<'a>(pod: &'a Pod, family: &str) -> Option<&'a str> {
    addresses(pod).into_iter().find(|ip| ip.contains(':') == (family == "IPv6"))
}

/// The port of this pod that a Service's port leads to; none when the pod has no port of that name.
fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    match port.target_port.as_ref() {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(wanted)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars = spec.init_containers.iter().flatten().filter(|container| container.restart_policy.as_deref() == Some("Always"));
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let found = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
            let mut found = found.filter(|have| have.name.as_deref() == Some(wanted) && have.protocol.as_deref().unwrap_or("TCP") == protocol);
            found.next().map(|have| have.container_port)
        }
    }
}

/// The pod's own name under a headless Service.
fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let (hostname, subdomain) = (spec.hostname.as_deref().filter(|name| !name.is_empty())?, spec.subdomain.as_deref()?);
    (subdomain == name(service) && namespace(pod) == namespace(service)).then(|| hostname.to_owned())
}

fn target(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: Some(namespace(pod).to_owned()),
        name: Some(name(pod).to_owned()),
        uid: Some(uid(pod).to_owned()),
        ..ObjectReference::default()
    }
}

fn eligible(pod: &Pod, with_terminating: bool) -> bool {
    !pods::finished(pod) && !addresses(pod).is_empty() && (with_terminating || !deleting(pod))
}

/// When what is written now began: the newest change of a pod's readiness, or the Service's own creation.
fn trigger(service: &Service, pods: &[Arc<Pod>]) -> Timestamp {
    let changes = pods.iter().filter_map(|pod| pods::condition(pod, "Ready")?.last_transition_time.as_ref().map(|time| time.0));
    changes.chain([created(service)]).max().unwrap_or(Timestamp::UNIX_EPOCH)
}
