//! Mirroring: Endpoints that somebody wrote by hand, for a Service without selector, show as EndpointSlices too.
//!
//! Watches: Endpoints, their Service, the slices made of them. Writes: those slices. Mirrors `pkg/controller/endpointslicemirroring`.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::k8s::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use api::k8s::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use api::k8s::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::slices::{MANAGED_BY, SERVICE_NAME};
use super::{LAST_CHANGE, has_selector};
use crate::meta::{Labels, annotation, controller_reference, deleting, label, name, namespace};
use crate::op::{Op, Plan, value};

pub const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// Addresses of one subset that are mirrored, at most.
pub const LIMIT: usize = 1000;
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

pub struct View {
    pub service: Option<Arc<Service>>,
    pub endpoints: Option<Arc<Endpoints>>,
    /// The slices that mirror it so far.
    pub slices: Vec<Arc<EndpointSlice>>,
}

pub fn ours(slice: &EndpointSlice) -> bool {
    label(slice, MANAGED_BY) == Some(MANAGER)
}

pub fn plan(view: &View) -> Plan {
    let mut plan = Plan::default();
    let wanted = match (&view.service, &view.endpoints) {
        (Some(service), Some(endpoints))
            if !has_selector(service)
                && !deleting(endpoints.as_ref())
                && label(endpoints.as_ref(), SKIP) != Some("true")
                && annotation(endpoints.as_ref(), LEADER).is_none() =>
        {
            wanted(endpoints)
        }
        _ => Vec::new(),
    };
    let mut left: Vec<&Arc<EndpointSlice>> = view.slices.iter().filter(|slice| !deleting(slice.as_ref())).collect();
    let key = |slice: &EndpointSlice| format!("{} {}", slice.address_type, value(&slice.ports));
    for new in wanted {
        let Some(at) = left.iter().position(|slice| key(slice) == key(&new)) else {
            plan.push(Op::create(&new));
            continue;
        };
        let known = left.remove(at);
        if known.endpoints != new.endpoints || known.metadata.labels != new.metadata.labels {
            plan.push(Op::replace(&EndpointSlice {
                metadata: ObjectMeta { labels: new.metadata.labels, annotations: new.metadata.annotations, ..known.metadata.clone() },
                ..new
            }));
        }
    }
    plan.ops.extend(left.into_iter().map(|slice| Op::delete(slice.as_ref())));
    plan
}

/// One slice for each subset and family.
fn wanted(endpoints: &Endpoints) -> Vec<EndpointSlice> {
    let mut labels: Labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), name(endpoints).to_owned());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let annotations: Labels = endpoints
        .metadata
        .annotations
        .iter()
        .flatten()
        .filter(|(key, _)| !matches!(key.as_str(), "kubectl.kubernetes.io/last-applied-configuration" | LAST_CHANGE))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let mut slices = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        for (family, endpoints_of) in by_family(subset) {
            slices.push(EndpointSlice {
                address_type: family.to_owned(),
                endpoints: Some(endpoints_of),
                metadata: ObjectMeta {
                    generate_name: Some(format!("{}-", name(endpoints))),
                    namespace: Some(namespace(endpoints).to_owned()),
                    labels: Some(labels.clone()),
                    annotations: Some(annotations.clone()),
                    owner_references: Some(vec![controller_reference(endpoints)]),
                    ..ObjectMeta::default()
                },
                ports: Some(
                    subset
                        .ports
                        .iter()
                        .flatten()
                        .map(|port| EndpointPort {
                            name: Some(port.name.clone().unwrap_or_default()),
                            port: Some(port.port),
                            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                            app_protocol: port.app_protocol.clone(),
                        })
                        .collect(),
                ),
            });
        }
    }
    slices
}

fn by_family(subset: &EndpointSubset) -> BTreeMap<&'static str, Vec<Endpoint>> {
    let mut families: BTreeMap<&str, Vec<Endpoint>> = BTreeMap::new();
    let all = subset
        .addresses
        .iter()
        .flatten()
        .map(|address| (address, true))
        .chain(subset.not_ready_addresses.iter().flatten().map(|address| (address, false)));
    for (address, ready) in all.take(LIMIT) {
        families.entry(if address.ip.contains(':') { "IPv6" } else { "IPv4" }).or_default().push(endpoint(address, ready));
    }
    families
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn by_subset_and_family() {
        let service = |selector: serde_json::Value| -> Option<Arc<Service>> {
            Some(Arc::new(serde_json::from_value(json!({"metadata": {"name": "db", "namespace": "ns"}, "spec": {"selector": selector}})).unwrap()))
        };
        let endpoints: Arc<Endpoints> = Arc::new(serde_json::from_value(json!({"metadata": {"name": "db", "namespace": "ns", "uid": "E"}, "subsets": [{"addresses": [{"ip": "192.0.2.1"}, {"ip": "2001:db8::1"}], "notReadyAddresses": [{"ip": "192.0.2.2"}], "ports": [{"port": 5432}]}]})).unwrap());
        let mut view = View { service: service(json!(null)), endpoints: Some(endpoints), slices: Vec::new() };
        let first = plan(&view);
        view.slices = first
            .ops
            .iter()
            .map(|op| match op {
                Op::Create { object, .. } => Arc::new(serde_json::from_value(object.clone()).unwrap()),
                other => panic!("{other}"),
            })
            .collect();
        let shown: Vec<String> = view
            .slices
            .iter()
            .map(|slice| {
                format!(
                    "{} {:?}",
                    slice.address_type,
                    slice
                        .endpoints
                        .iter()
                        .flatten()
                        .map(|endpoint| format!("{} {}", endpoint.addresses[0], endpoint.conditions.as_ref().unwrap().ready.unwrap()))
                        .collect::<Vec<_>>()
                )
            })
            .collect();
        assert_eq!(shown, [r#"IPv4 ["192.0.2.1 true", "192.0.2.2 false"]"#, r#"IPv6 ["2001:db8::1 true"]"#]);
        assert!(plan(&view).ops.is_empty(), "nothing changed");
        view.service = service(json!({"a": "b"}));
        assert_eq!(plan(&view).ops.len(), 2, "the Service has pods of its own now");
    }
}
