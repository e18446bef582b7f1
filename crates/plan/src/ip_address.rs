//! IPAddresses: every ClusterIP has one, and each that the API server made has a Service.
//!
//! Watches: Services, IPAddresses, ServiceCIDRs. Writes: IPAddresses that are missing, wrong or leaked. Never: touches an IPAddress of another manager, nor a young
//! one whose Service may still be on its way. Mirrors `pkg/registry/core/service/ipallocator/controller` (repairip.go), which upstream runs in the API server.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::k8s::api::core::v1::Service;
use api::k8s::api::networking::v1::{IPAddress, IPAddressSpec, ParentReference, ServiceCIDR};
use api::k8s::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use jiff::Timestamp;

use crate::meta::{created, label, name, namespace, plus_seconds, reference, until};
use crate::op::{Op, Plan};
use crate::service_cidr::ranges;

pub const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
pub const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
/// The API server, where it gives addresses to Services.
pub const MANAGER: &str = "ipallocator.k8s.io";
/// The write of a Service ends within this time, one way or the other (upstream's request timeout).
const WRITE_SECONDS: i64 = 60;
/// A young IPAddress that its Service does not show is perhaps about to be taken back.
const SETTLE_SECONDS: i64 = 5;

/// Of a Service: what is known of its addresses.
pub struct ServiceView {
    pub service: Arc<Service>,
    /// The IPAddresses of its ClusterIPs that exist, each with the Service it refers to if that is another one that exists.
    pub addresses: Vec<(Arc<IPAddress>, Option<Arc<Service>>)>,
    pub cidrs: Vec<Arc<ServiceCIDR>>,
}

/// Of an IPAddress: the Service it refers to.
pub struct AddressView {
    pub address: Arc<IPAddress>,
    pub service: Option<Arc<Service>>,
}

pub fn managed(address: &IPAddress) -> bool {
    label(address, MANAGED_BY) == Some(MANAGER)
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// The ClusterIPs of a Service, as far as they are addresses.
pub fn cluster_ips(service: &Service) -> Vec<IpAddr> {
    let Some(spec) = &service.spec else { return Vec::new() };
    if spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    spec.cluster_ips.iter().flatten().filter_map(|text| text.parse().ok()).collect()
}

/// The namespace and name of the Service it refers to.
pub fn service_of(address: &IPAddress) -> Option<(&str, &str)> {
    let parent = &address.spec.parent_ref;
    let service = parent.group.as_deref().unwrap_or("").is_empty() && parent.resource == "services";
    service.then_some((parent.namespace.as_deref().unwrap_or(""), parent.name.as_str()))
}

fn wanted(address: IpAddr, service: &Service) -> IPAddress {
    let labels = [(FAMILY, family(address)), (MANAGED_BY, MANAGER)].map(|(key, value)| (key.to_owned(), value.to_owned()));
    let parent_ref = ParentReference { group: Some(String::new()), resource: "services".to_owned(), namespace: Some(namespace(service).to_owned()), name: name(service).to_owned() };
    IPAddress { metadata: ObjectMeta { name: Some(address.to_string()), labels: Some(labels.into()), ..ObjectMeta::default() }, spec: IPAddressSpec { parent_ref } }
}

/// Every ClusterIP of the Service has its IPAddress.
pub fn plan_service(view: &ServiceView) -> Plan {
    let mut plan = Plan::default();
    let service = view.service.as_ref();
    let about = reference(service);
    let (own_namespace, own_name) = (namespace(service), name(service));
    for ip in cluster_ips(service) {
        let family = family(ip);
        if !view.cidrs.iter().any(|cidr| ranges(cidr).any(|range| range.offers(ip))) {
            plan.push(Op::warning(&about, "ClusterIPOutOfRange", format!("Cluster IP [{family}]: {ip} is not within any configured Service CIDR; please recreate service")));
            continue;
        }
        let Some((found, other)) = view.addresses.iter().find(|(address, _)| name(address.as_ref()).parse() == Ok(ip)) else {
            plan.push(Op::warning(&about, "ClusterIPNotAllocated", format!("Cluster IP [{family}]: {ip} is not allocated; repairing")));
            plan.push(Op::create(&wanted(ip, service)));
            continue;
        };
        let right = service_of(found) == Some((own_namespace, own_name));
        if let Some(other) = other.as_ref().filter(|_| !right) {
            if cluster_ips(other).contains(&ip) {
                plan.push(Op::warning(&about, "ClusterIPAlreadyAllocated", format!("Cluster IP [{family}]:{ip} was assigned to multiple services; please recreate service")));
            }
            continue;
        }
        if !right {
            plan.push(Op::warning(&about, "ClusterIPNotAllocated", format!("the ClusterIP [{family}]: {ip} for Service {own_namespace}/{own_name} has a wrong reference; repairing")));
        }
        if !right || !managed(found) || label(found.as_ref(), FAMILY) != Some(family) {
            plan.push(Op::delete(found.as_ref()));
            plan.push(Op::create(&wanted(ip, service)));
        }
    }
    plan
}

/// An IPAddress whose Service is gone, or has let it go, goes too.
pub fn plan_address(view: &AddressView, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let address = view.address.as_ref();
    if !managed(address) {
        return plan;
    }
    let own = name(address);
    let mut remove = |reason: &str, message: String| {
        plan.push(Op::warning(&reference(address), reason, message));
        plan.push(Op::delete(address));
    };
    let Some((service_namespace, service_name)) = service_of(address) else {
        remove("IPAddressNotAllocated", format!("IPAddress {own} appears to have been modified, not referencing a Service: cleaning up"));
        return plan;
    };
    let young = |seconds: i64| until(plus_seconds(created(address), seconds), now);
    let Some(service) = &view.service else {
        match young(WRITE_SECONDS) {
            Some(left) => plan.look_again(left),
            None => remove("IPAddressNotAllocated", format!("IPAddress: {own} for Service {service_namespace}/{service_name} appears to have leaked: cleaning up")),
        }
        return plan;
    };
    let listed = service.spec.iter().flat_map(|spec| &spec.cluster_ips).flatten().any(|ip| ip == own);
    if listed {
        return plan;
    }
    // A Service of the type ExternalName that is becoming another gets its address before it says so.
    let outside = service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("ExternalName");
    let left: Option<Duration> = if outside { young(WRITE_SECONDS) } else { young(SETTLE_SECONDS) };
    match left {
        Some(left) => plan.look_again(left),
        None => remove("IPAddressWrongReference", format!("IPAddress: {own} for Service {service_namespace}/{service_name} has a wrong reference; cleaning up")),
    }
    plan
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: &str = "2026-11-22T12:00:00Z";

    fn service(name: &str, ips: Value) -> Arc<Service> {
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name, "namespace": "n"}, "spec": {"clusterIPs": ips}})).unwrap())
    }

    fn address(name: &str, service: &str, manager: &str, created: &str) -> Arc<IPAddress> {
        let labels = json!({MANAGED_BY: manager, FAMILY: "IPv4"});
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name, "labels": labels, "creationTimestamp": created}, "spec": {"parentRef": {"resource": "services", "namespace": "n", "name": service}}})).unwrap())
    }

    fn of_service(service: Arc<Service>, addresses: Vec<(Arc<IPAddress>, Option<Arc<Service>>)>) -> String {
        let cidr = Arc::new(serde_json::from_value(json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/12"]}})).unwrap());
        plan_service(&ServiceView { service, addresses, cidrs: vec![cidr] }).to_string()
    }

    #[test]
    fn every_cluster_ip_has_its_address() {
        let old = "2026-11-22T11:00:00Z";
        let own = || service("s", json!(["10.96.0.9"]));
        let again = "delete IPAddress 10.96.0.9\ncreate IPAddress 10.96.0.9\n";
        for (service, addresses, want) in [
            (own(), vec![(address("10.96.0.9", "s", MANAGER, old), None)], String::new()),
            (own(), vec![], "event Warning ClusterIPNotAllocated: Cluster IP [IPv4]: 10.96.0.9 is not allocated; repairing\ncreate IPAddress 10.96.0.9\n".to_owned()),
            (own(), vec![(address("10.96.0.9", "s", "me", old), None)], again.to_owned()),
            (own(), vec![(address("10.96.0.9", "gone", MANAGER, old), None)], format!("event Warning ClusterIPNotAllocated: the ClusterIP [IPv4]: 10.96.0.9 for Service n/s has a wrong reference; repairing\n{again}")),
            (
                own(),
                vec![(address("10.96.0.9", "t", MANAGER, old), Some(self::service("t", json!(["10.96.0.9"]))))],
                "event Warning ClusterIPAlreadyAllocated: Cluster IP [IPv4]:10.96.0.9 was assigned to multiple services; please recreate service\n".to_owned(),
            ),
            (
                self::service("s", json!(["10.1.0.9"])),
                vec![],
                "event Warning ClusterIPOutOfRange: Cluster IP [IPv4]: 10.1.0.9 is not within any configured Service CIDR; please recreate service\n".to_owned(),
            ),
            (self::service("s", json!(["None"])), vec![], String::new()),
        ] {
            assert_eq!(of_service(service, addresses), want);
        }
    }

    #[test]
    fn what_has_leaked_goes() {
        let (old, young) = ("2026-11-22T11:00:00Z", "2026-11-22T11:59:58Z");
        let gone = "event Warning IPAddressNotAllocated: IPAddress: 10.96.0.9 for Service n/s appears to have leaked: cleaning up\ndelete IPAddress 10.96.0.9\n";
        let wrong = "event Warning IPAddressWrongReference: IPAddress: 10.96.0.9 for Service n/s has a wrong reference; cleaning up\ndelete IPAddress 10.96.0.9\n";
        for (manager, created, service, want) in [
            (MANAGER, old, Some(service("s", json!(["10.96.0.9"]))), ""),
            (MANAGER, old, None, gone),
            (MANAGER, young, None, "again in 58s\n"),
            (MANAGER, old, Some(service("s", json!(["10.96.0.8"]))), wrong),
            (MANAGER, young, Some(service("s", json!(["10.96.0.8"]))), "again in 3s\n"),
            ("me", old, None, ""),
        ] {
            let view = AddressView { address: address("10.96.0.9", "s", manager, created), service };
            assert_eq!(plan_address(&view, NOW.parse().unwrap()).to_string(), want);
        }
    }
}
