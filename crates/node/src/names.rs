//! Keeps the name server's records as the API's Services and EndpointSlices say, event by event.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ::dns::{HeadlessEndpoint, Port, Protocol, Records, ServiceRecords};
use api::k8s::api::core::v1::Service;
use api::k8s::api::discovery::v1::EndpointSlice;

use crate::services::{ServiceKey, Services, is_headless, is_ready};

/// Follows the API until it is dropped. `known` becomes true when all names that there are at first have been set.
pub async fn run(services: Services, records: Arc<Records>, known: Arc<AtomicBool>) {
    let changed = services.changes();
    services.synced().await;
    // What is there already: no Service at all is no change either.
    set_all(&services, &records, changed.take());
    known.store(true, Ordering::Relaxed);
    loop {
        set_all(&services, &records, changed.next().await);
    }
}

/// A panic costs the Service it is about, no other.
fn set_all(services: &Services, records: &Records, keys: BTreeSet<ServiceKey>) {
    for key in keys {
        if std::panic::catch_unwind(AssertUnwindSafe(|| set(services, records, &key))).is_err() {
            tracing::error!(namespace = key.0, service = key.1, "a panic: the names of this Service stay as they were");
        }
    }
}

fn set(services: &Services, records: &Records, key: &ServiceKey) {
    let (namespace, name) = key;
    match services.get(key).and_then(|(service, slices)| service_records(&service, &slices)) {
        Some(wanted) => records.set_service(namespace, name, wanted),
        None => records.remove_service(namespace, name),
    }
}

fn protocol(name: Option<&str>) -> Protocol {
    match name {
        Some("UDP") => Protocol::Udp,
        Some("SCTP") => Protocol::Sctp,
        _ => Protocol::Tcp,
    }
}

/// What a Service's names lead to; `None` while it has nothing to lead to.
pub fn service_records(service: &Service, slices: &[impl AsRef<EndpointSlice>]) -> Option<ServiceRecords> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return Some(ServiceRecords::ExternalName { name: spec.external_name.clone()? });
    }
    if is_headless(service) {
        return Some(ServiceRecords::Headless { endpoints: headless(slices) });
    }
    let mut addresses: Vec<IpAddr> = spec.cluster_ips.iter().flatten().filter_map(|t| t.parse().ok()).collect();
    if addresses.is_empty() {
        addresses.push(spec.cluster_ip.as_deref()?.parse().ok()?);
    }
    let ports = spec.ports.iter().flatten().filter_map(|p| {
        Some(Port { name: p.name.clone().unwrap_or_default(), protocol: protocol(p.protocol.as_deref()), port: u16::try_from(p.port).ok()? })
    });
    Some(ServiceRecords::ClusterIp { addresses, ports: ports.collect() })
}

/// The ready endpoints, each once.
fn headless(slices: &[impl AsRef<EndpointSlice>]) -> Vec<HeadlessEndpoint> {
    let mut endpoints = BTreeSet::new();
    for slice in slices.iter().map(AsRef::as_ref) {
        let ports = slice.ports.iter().flatten().filter_map(|p| {
            Some(Port { name: p.name.clone().unwrap_or_default(), protocol: protocol(p.protocol.as_deref()), port: u16::try_from(p.port?).ok()? })
        });
        let ports: Vec<Port> = ports.collect();
        for endpoint in slice.endpoints.iter().flatten().filter(|e| is_ready(e)) {
            let hostname = endpoint.hostname.clone().filter(|h| !h.is_empty());
            let addresses = endpoint.addresses.iter().filter_map(|a| a.parse().ok());
            endpoints.extend(addresses.map(|address| HeadlessEndpoint { address, hostname: hostname.clone(), ports: ports.clone() }));
        }
    }
    endpoints.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(spec: Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec})).expect("service")
    }

    fn slice(endpoints: Value) -> Arc<EndpointSlice> {
        let ports = json!([{"name": "peer", "port": 7000}]);
        Arc::new(serde_json::from_value(json!({"addressType": "IPv4", "metadata": {}, "ports": ports, "endpoints": endpoints})).expect("slice"))
    }

    #[test]
    fn services_as_records() {
        let none: &[Arc<EndpointSlice>] = &[];
        let ip = |text: &str| text.parse::<IpAddr>().expect(text);
        let port = |name: &str, protocol, port| Port { name: name.into(), protocol, port };
        let web = service(json!({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00::7"], "ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]}));
        let ports = vec![port("http", Protocol::Tcp, 80), port("dns", Protocol::Udp, 53)];
        assert_eq!(service_records(&web, none), Some(ServiceRecords::ClusterIp { addresses: vec![ip("10.96.0.7"), ip("fd00::7")], ports }));
        let elsewhere = service(json!({"type": "ExternalName", "externalName": "example.com"}));
        assert_eq!(service_records(&elsewhere, none), Some(ServiceRecords::ExternalName { name: "example.com".into() }));
        assert_eq!(service_records(&service(json!({})), none), None, "no address yet");

        let db = service(json!({"clusterIP": "None"}));
        assert_eq!(service_records(&db, none), Some(ServiceRecords::Headless { endpoints: vec![] }));
        let endpoints = slice(json!([
            {"addresses": ["10.244.0.2"], "hostname": "db-0", "conditions": {"ready": true}},
            {"addresses": ["10.244.0.3"], "conditions": {"ready": false}},
            {"addresses": ["10.244.0.4"]},
        ]));
        let of = |address: &str, hostname: Option<&str>| HeadlessEndpoint { address: ip(address), hostname: hostname.map(str::to_owned), ports: vec![port("peer", Protocol::Tcp, 7000)] };
        let expected = vec![of("10.244.0.2", Some("db-0")), of("10.244.0.4", None)];
        assert_eq!(service_records(&db, &[endpoints.clone(), endpoints]), Some(ServiceRecords::Headless { endpoints: expected }));
    }
}
