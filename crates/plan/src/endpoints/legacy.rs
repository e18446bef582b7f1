//! Endpoints: the older form of EndpointSlice, one object a Service, kept for those who still read it.
//!
//! Watches: the Service, pods its selector matches, its Endpoints. Writes: its Endpoints. Mirrors `pkg/controller/endpoint` and `RepackSubsets`.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::k8s::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use api::k8s::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use api::world::rfc3339;

use super::{
    HEADLESS, LAST_CHANGE, address, eligible, families, has_selector, headless, hostname, ports, publishes_not_ready, target, target_port, trigger,
};
use crate::meta::{Labels, deleting, name, namespace, reference};
use crate::op::{Announce, Op, Plan};
use crate::pods;

/// Addresses in one object, at most; more are cut and `OVER_CAPACITY` says so.
pub const CAPACITY: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";

pub struct View {
    pub service: Arc<Service>,
    /// Pods its selector matches.
    pub pods: Vec<Arc<Pod>>,
    pub endpoints: Option<Arc<Endpoints>>,
}

pub fn plan(view: &View) -> Plan {
    let mut plan = Plan::default();
    let service = view.service.as_ref();
    if !has_selector(service) || deleting(service) {
        return plan;
    }
    let (subsets, cut) = subsets(view);
    let mut labels: Labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    let mut new = view.endpoints.as_deref().cloned().unwrap_or_else(|| Endpoints {
        metadata: ObjectMeta { name: service.metadata.name.clone(), namespace: Some(namespace(service).to_owned()), ..ObjectMeta::default() },
        subsets: None,
    });
    let same = new.subsets.as_deref().unwrap_or(&[]) == subsets && new.metadata.labels.as_ref() == Some(&labels);
    if view.endpoints.is_some() && same {
        return plan;
    }
    new.subsets = (!subsets.is_empty()).then_some(subsets);
    new.metadata.labels = Some(labels);
    let annotations = new.metadata.annotations.get_or_insert_default();
    annotations.insert(LAST_CHANGE.to_owned(), rfc3339(trigger(service, &view.pods)));
    annotations.remove(OVER_CAPACITY);
    if cut {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    }
    if view.endpoints.is_some() {
        plan.push(Op::replace(&new));
    } else {
        let failed = Some(("FailedToCreateEndpoint", format!("Failed to create endpoint for service {}/{}: ", namespace(service), name(service))));
        plan.push(Op::create(&new).announced(Announce { about: reference(service), done: None, failed }));
    }
    plan
}

fn subsets(view: &View) -> (Vec<EndpointSubset>, bool) {
    let service = view.service.as_ref();
    // This kind has one address a pod: of the Service's first family.
    let family = families(service).into_iter().next().unwrap_or_default();
    let mut pods: Vec<&Pod> = view.pods.iter().map(Arc::as_ref).filter(|pod| eligible(pod, publishes_not_ready(service))).collect();
    pods.sort_by_key(|pod| !is_ready(service, pod));
    let cut = pods.len() > CAPACITY;
    pods.truncate(CAPACITY);
    let mut subsets: BTreeMap<Vec<String>, EndpointSubset> = BTreeMap::new();
    for pod in pods {
        let Some(ip) = address(pod, &family) else { continue };
        let mut found: Vec<EndpointPort> = ports(service)
            .iter()
            .filter_map(|port| {
                Some(EndpointPort {
                    name: port.name.clone().filter(|name| !name.is_empty()),
                    port: target_port(pod, port)?,
                    protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                    app_protocol: port.app_protocol.clone(),
                })
            })
            .collect();
        if found.is_empty() && !(ports(service).is_empty() && headless(service)) {
            continue;
        }
        found.sort_by_key(|port| (port.name.clone(), port.port));
        let key = found.iter().map(|port| crate::op::value(port).to_string()).collect();
        let subset =
            subsets.entry(key).or_insert_with(|| EndpointSubset { ports: (!found.is_empty()).then_some(found), ..EndpointSubset::default() });
        let entry = EndpointAddress {
            ip: ip.to_owned(),
            hostname: hostname(pod, service),
            node_name: Some(pods::node(pod).to_owned()).filter(|node| !node.is_empty()),
            target_ref: Some(target(pod)),
        };
        let list = if is_ready(service, pod) { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        list.get_or_insert_default().push(entry);
    }
    let mut subsets: Vec<EndpointSubset> = subsets.into_values().collect();
    for subset in &mut subsets {
        for list in [&mut subset.addresses, &mut subset.not_ready_addresses].into_iter().flatten() {
            list.sort_by(|one, other| one.ip.cmp(&other.ip).then_with(|| uid(one).cmp(uid(other))));
        }
    }
    (subsets, cut)
}

fn uid(address: &EndpointAddress) -> &str {
    address.target_ref.as_ref().and_then(|target| target.uid.as_deref()).unwrap_or("")
}

fn is_ready(service: &Service, pod: &Pod) -> bool {
    publishes_not_ready(service) || pods::ready(pod)
}

/// Those we wrote; others (of a Service without selector, say) are left alone.
pub fn ours(endpoints: &Endpoints) -> bool {
    crate::meta::label(endpoints, MANAGED_BY) == Some(MANAGER)
}

/// The Service is gone, and its Endpoints with it.
pub fn after(endpoints: &Endpoints) -> Plan {
    Plan { ops: vec![Op::delete(endpoints)], requeue_after: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ready_and_not_ready() {
        let pod = |n: u8, ready: &str| -> Arc<Pod> {
            Arc::new(
                serde_json::from_value(json!({
                    "metadata": {"name": format!("p{n}"), "namespace": "ns", "uid": n.to_string()},
                    "spec": {"nodeName": "n1", "containers": []},
                    "status": {"phase": "Running", "podIP": format!("10.0.0.{n}"), "conditions": [{"type": "Ready", "status": ready}]},
                }))
                .unwrap(),
            )
        };
        let service: Arc<Service> = Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": "web", "namespace": "ns", "labels": {"a": "b"}},
                "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
            }))
            .unwrap(),
        );
        let mut view = View { service, pods: vec![pod(2, "True"), pod(1, "True"), pod(3, "False")], endpoints: None };
        let plan = super::plan(&view);
        let Op::Create { object, .. } = &plan.ops[0] else { panic!("{plan}") };
        assert_eq!(object["metadata"]["labels"], json!({"a": "b", "endpoints.kubernetes.io/managed-by": "endpoint-controller"}));
        let subset = &object["subsets"][0];
        let ips = |list: &str| subset[list].as_array().unwrap().iter().map(|address| address["ip"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
        assert_eq!((ips("addresses"), ips("notReadyAddresses")), (vec!["10.0.0.1".to_owned(), "10.0.0.2".into()], vec!["10.0.0.3".into()]));
        assert_eq!(subset["ports"], json!([{"name": "http", "port": 8080, "protocol": "TCP"}]));
        view.endpoints = Some(Arc::new(serde_json::from_value(object.clone()).unwrap()));
        assert_eq!(super::plan(&view).to_string(), "");
    }
}
