//! EndpointSlice: the endpoints of a Service in slices of at most a hundred, one address family and one set of ports each.
//!
//! Watches: the Service, pods its selector matches, whether their nodes are there and their zones, its slices. Writes: its slices (create, replace, delete).
//! Never: touches slices others manage. Changes as few slices as it can. Mirrors `pkg/controller/endpointslice`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::k8s::api::core::v1::{Pod, Service};
use api::k8s::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use api::k8s::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use api::world::rfc3339;

use super::hints::{self, Wanted};
use super::{
    HEADLESS, LAST_CHANGE, address, eligible, families, has_selector, headless, hostname, ports, publishes_not_ready, target, target_port, trigger,
};
use crate::meta::{Labels, controller_reference, deleting, label, name, namespace, reference};
use crate::op::{Announce, Op, Plan};
use crate::pods;

/// Endpoints in one slice, at most.
pub const SLICE_LIMIT: usize = 100;
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub const MANAGER: &str = "endpointslice-controller.k8s.io";

pub struct View {
    pub service: Arc<Service>,
    /// Pods its selector matches.
    pub pods: Vec<Arc<Pod>>,
    /// Its slices that carry our `managed-by` label.
    pub slices: Vec<Arc<EndpointSlice>>,
    /// The nodes there are, and their zones.
    pub nodes: HashMap<String, Option<String>>,
    /// Which part of the CPUs each zone has, see [`hints::shares`]; asked only of Services with `topology-mode: Auto`.
    pub shares: Option<BTreeMap<String, f64>>,
}

/// The slices that belong to a Service and are ours.
pub fn ours(slice: &EndpointSlice) -> bool {
    label(slice, MANAGED_BY) == Some(MANAGER)
}

pub fn plan(view: &View) -> Plan {
    let mut plan = Plan::default();
    let service = view.service.as_ref();
    if deleting(service) {
        return plan;
    }
    if !has_selector(service) {
        // Slices of a Service without selector are for others to write; ours from before go.
        view.slices.iter().for_each(|slice| plan.push(Op::delete(slice.as_ref())));
        return plan;
    }
    let families = families(service);
    for slice in view.slices.iter().filter(|slice| !families.contains(&slice.address_type)) {
        plan.push(Op::delete(slice.as_ref()));
    }
    for family in &families {
        let slices: Vec<&Arc<EndpointSlice>> =
            view.slices.iter().filter(|slice| slice.address_type == *family && !deleting(slice.as_ref())).collect();
        reconcile(view, family, &slices, &mut plan);
    }
    plan
}

/// Endpoints that share their ports.
struct Group {
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
}

fn groups(view: &View, family: &str) -> Vec<Group> {
    let service = view.service.as_ref();
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for pod in view.pods.iter().filter(|pod| eligible(pod, true) && is_somewhere(view, pod)) {
        let Some(ip) = address(pod, family) else { continue };
        let ports: Vec<EndpointPort> = ports(service)
            .iter()
            .filter_map(|port| {
                Some(EndpointPort {
                    name: Some(port.name.clone().unwrap_or_default()),
                    port: Some(target_port(pod, port)?),
                    protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                    app_protocol: port.app_protocol.clone(),
                })
            })
            .collect();
        let key = port_key(&ports);
        groups.entry(key).or_insert_with(|| Group { ports, endpoints: Vec::new() }).endpoints.push(endpoint(view, pod, ip));
    }
    groups.into_values().collect()
}

fn port_key(ports: &[EndpointPort]) -> String {
    let mut parts: Vec<String> = ports.iter().map(|port| crate::op::value(port).to_string()).collect();
    parts.sort();
    parts.join(",")
}

/// A pod of a node that is gone answers nobody, though nobody has removed it yet. Who wants all that is not ready gets that one too.
fn is_somewhere(view: &View, pod: &Pod) -> bool {
    publishes_not_ready(&view.service) || view.nodes.contains_key(pods::node(pod))
}

fn endpoint(view: &View, pod: &Pod, ip: &str) -> Endpoint {
    let service = view.service.as_ref();
    let (serving, terminating) = (pods::ready(pod), deleting(pod));
    let node = Some(pods::node(pod)).filter(|node| !node.is_empty());
    let mut endpoint = Endpoint {
        addresses: vec![ip.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(publishes_not_ready(service) || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(pod, service),
        node_name: node.map(str::to_owned),
        target_ref: Some(target(pod)),
        zone: node.and_then(|node| view.nodes.get(node).cloned().flatten()),
        ..Endpoint::default()
    };
    endpoint.hints = hints::close(&endpoint, hints::wanted(service));
    endpoint
}

/// The hints that endpoints have only together, and an event when they begin or cannot be.
fn topology(view: &View, family: &str, slices: &[&Arc<EndpointSlice>], groups: &mut [Group], plan: &mut Plan) {
    let service = view.service.as_ref();
    let old = || slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
    if hints::wanted(service) != Wanted::Auto {
        return;
    }
    let before: HashMap<&str, &str> = old().filter_map(|endpoint| Some((identity(endpoint), hints::hinted_zone(endpoint)?))).collect();
    let mut endpoints: Vec<&mut Endpoint> = groups.iter_mut().flat_map(|group| &mut group.endpoints).collect();
    match hints::auto(&mut endpoints, view.shares.as_ref(), |endpoint| before.get(identity(endpoint)).map(|zone| (*zone).to_owned())) {
        Ok(()) if !before.is_empty() => {}
        Ok(()) => plan.push(Op::normal(&reference(service), "TopologyAwareHintsEnabled", format!("{}, addressType: {family}", hints::ENABLED))),
        Err(why) => plan.push(Op::warning(&reference(service), "TopologyAwareHintsDisabled", format!("{why}, addressType: {family}"))),
    }
}

/// The pod an endpoint stands for.
fn identity(endpoint: &Endpoint) -> &str {
    endpoint.target_ref.as_ref().and_then(|target| target.uid.as_deref()).unwrap_or("")
}

fn reconcile(view: &View, family: &str, slices: &[&Arc<EndpointSlice>], plan: &mut Plan) {
    let (mut left, mut writes): (Vec<&Arc<EndpointSlice>>, Vec<Op>) = (slices.to_vec(), Vec::new());
    let mut groups = groups(view, family);
    topology(view, family, slices, &mut groups, plan);
    let mut creations = Vec::new();
    let mut kept_any = false;
    for group in groups {
        let key = port_key(&group.ports);
        let (same, others): (Vec<_>, Vec<_>) = left.into_iter().partition(|slice| port_key(slice.ports.as_deref().unwrap_or(&[])) == key);
        left = others;
        let mut wanted: BTreeMap<String, Endpoint> = group.endpoints.into_iter().map(|endpoint| (identity(&endpoint).to_owned(), endpoint)).collect();
        // First what is in the right place already.
        let mut next: Vec<(&Arc<EndpointSlice>, Vec<Endpoint>)> = Vec::new();
        for slice in same {
            let have = slice.endpoints.as_deref().unwrap_or(&[]);
            let kept: Vec<Endpoint> = have.iter().filter_map(|endpoint| wanted.remove(identity(endpoint))).collect();
            next.push((slice, kept));
        }
        // Then the new ones: into slices that change anyway, then into the fullest that has room.
        let mut rest: Vec<Endpoint> = wanted.into_values().collect();
        next.sort_by_key(|(slice, kept)| (same_endpoints(slice, kept), std::cmp::Reverse(kept.len())));
        for (_, kept) in &mut next {
            let room = SLICE_LIMIT.saturating_sub(kept.len()).min(rest.len());
            kept.extend(rest.drain(..room));
        }
        for (slice, endpoints) in next {
            if endpoints.is_empty() {
                left.push(slice);
                continue;
            }
            kept_any = true;
            push_update(view, slice, endpoints, Some(group.ports.clone()), &mut writes);
        }
        while !rest.is_empty() {
            let endpoints: Vec<Endpoint> = rest.drain(..rest.len().min(SLICE_LIMIT)).collect();
            creations.push((endpoints, Some(group.ports.clone())));
        }
    }
    if !kept_any && creations.is_empty() {
        // An empty one stays, so that all see that there is nothing.
        creations.push((Vec::new(), None));
    }
    for (endpoints, ports) in creations {
        match left.pop() {
            Some(slice) => push_update(view, slice, endpoints, ports, &mut writes),
            None => writes.push(create(view, family, endpoints, ports)),
        }
    }
    plan.ops.extend(left.into_iter().map(|slice| Op::delete(slice.as_ref())));
    plan.ops.append(&mut writes);
}

fn same_endpoints(slice: &EndpointSlice, endpoints: &[Endpoint]) -> bool {
    slice.endpoints.as_deref().unwrap_or(&[]) == endpoints
}

fn labels(service: &Service) -> Labels {
    let mut labels: Labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    labels.insert(SERVICE_NAME.to_owned(), name(service).to_owned());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels
}

fn changed_at(view: &View) -> Labels {
    Labels::from([(LAST_CHANGE.to_owned(), rfc3339(trigger(&view.service, &view.pods)))])
}

fn push_update(view: &View, slice: &Arc<EndpointSlice>, endpoints: Vec<Endpoint>, ports: Option<Vec<EndpointPort>>, writes: &mut Vec<Op>) {
    let labels = labels(&view.service);
    let same_ports = port_key(slice.ports.as_deref().unwrap_or(&[])) == port_key(ports.as_deref().unwrap_or(&[]));
    if same_endpoints(slice, &endpoints) && same_ports && slice.metadata.labels.as_ref() == Some(&labels) {
        return;
    }
    let mut new = slice.as_ref().clone();
    new.metadata.labels = Some(labels);
    new.metadata.annotations.get_or_insert_default().extend(changed_at(view));
    new.endpoints = Some(endpoints);
    new.ports = ports;
    writes.push(Op::replace(&new));
}

fn create(view: &View, family: &str, endpoints: Vec<Endpoint>, ports: Option<Vec<EndpointPort>>) -> Op {
    let service = view.service.as_ref();
    let slice = EndpointSlice {
        address_type: family.to_owned(),
        endpoints: Some(endpoints),
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", name(service))),
            namespace: Some(namespace(service).to_owned()),
            labels: Some(labels(service)),
            annotations: Some(changed_at(view)),
            owner_references: Some(vec![controller_reference(service)]),
            ..ObjectMeta::default()
        },
        ports,
    };
    let failed =
        Some(("FailedToUpdateEndpointSlices", format!("Error updating Endpoint Slices for Service {}/{}: ", namespace(service), name(service))));
    Op::create(&slice).announced(Announce { about: reference(service), done: None, failed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(spec: Value) -> Arc<Service> {
        let mut object = json!({"metadata": {"name": "web", "namespace": "ns", "uid": "V"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}});
        for (key, value) in spec.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        Arc::new(serde_json::from_value(object).unwrap())
    }

    /// A ready pod number `n`; `flags`: u not ready, d going, f failed.
    fn pod(n: usize, flags: &str) -> Arc<Pod> {
        let object = json!({
            "metadata": {"name": format!("p{n}"), "namespace": "ns", "uid": format!("{n:03}"), "deletionTimestamp": if flags.contains('d') { json!("2026-11-22T12:00:00Z") } else { Value::Null }},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 9000 + n / 200}]}]},
            "status": {
                "phase": if flags.contains('f') { "Failed" } else { "Running" },
                "podIPs": [{"ip": format!("10.0.0.{n}")}, {"ip": format!("fd00::{n}")}],
                "conditions": [{"type": "Ready", "status": if flags.contains('u') { "False" } else { "True" }}],
            },
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    /// Plans, applies, and shows the slices there are then.
    fn apply(service: Arc<Service>, pods: Vec<Arc<Pod>>, slices: Vec<Arc<EndpointSlice>>) -> (Vec<Arc<EndpointSlice>>, usize) {
        let view = View { service, pods, slices: slices.clone(), nodes: HashMap::from([("n1".into(), Some("z".into()))]), shares: None };
        let plan = plan(&view);
        let mut next: BTreeMap<String, Arc<EndpointSlice>> = slices.into_iter().map(|slice| (name(slice.as_ref()).to_owned(), slice)).collect();
        for op in &plan.ops {
            match op {
                Op::Create { object, .. } => {
                    let mut slice: EndpointSlice = serde_json::from_value(object.clone()).unwrap();
                    let new = format!("s{}", next.len());
                    slice.metadata.name = Some(new.clone());
                    next.insert(new, Arc::new(slice));
                }
                Op::Replace { at, object, .. } => drop(next.insert(at.name.clone(), Arc::new(serde_json::from_value(object.clone()).unwrap()))),
                Op::Delete { at, .. } => drop(next.remove(&at.name)),
                other => panic!("{other}"),
            }
        }
        (next.into_values().collect(), plan.ops.len())
    }

    fn show(slice: &EndpointSlice) -> String {
        let ports: Vec<String> = slice.ports.iter().flatten().map(|port| port.port.unwrap().to_string()).collect();
        let endpoints: Vec<String> = slice
            .endpoints
            .iter()
            .flatten()
            .map(|endpoint| {
                let conditions = endpoint.conditions.as_ref().unwrap();
                let flag = |value: Option<bool>, letter| if value == Some(true) { letter } else { "" };
                format!(
                    "{} {}{}{}",
                    endpoint.addresses[0],
                    flag(conditions.ready, "r"),
                    flag(conditions.serving, "s"),
                    flag(conditions.terminating, "t")
                )
            })
            .collect();
        format!("{} [{}] {}", slice.address_type, ports.join(" "), endpoints.join(", "))
    }

    #[test]
    fn what_is_in_a_slice() {
        let (slices, _) =
            apply(service(json!({"ipFamilies": ["IPv4", "IPv6"]})), vec![pod(1, ""), pod(2, "u"), pod(3, "d"), pod(4, "f")], Vec::new());
        let shown: Vec<String> = slices.iter().map(|slice| show(slice)).collect();
        assert_eq!(shown, ["IPv4 [8080] 10.0.0.1 rs, 10.0.0.2 , 10.0.0.3 st", "IPv6 [8080] fd00::1 rs, fd00::2 , fd00::3 st"]);
        let json = crate::op::value(slices[0].as_ref());
        assert_eq!(json["metadata"]["generateName"], "web-");
        assert_eq!(json["metadata"]["ownerReferences"][0]["kind"], "Service");
        assert_eq!(
            json["metadata"]["labels"],
            json!({"kubernetes.io/service-name": "web", "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"})
        );
        assert_eq!(json["endpoints"][0]["zone"], "z");
        assert_eq!(json["endpoints"][0]["targetRef"]["name"], "p1");
        assert!(json["endpoints"][0].get("hints").is_none());
        assert_eq!(json["ports"][0], json!({"name": "", "port": 8080, "protocol": "TCP"}));
    }

    #[test]
    fn pods_of_nodes_that_are_gone() {
        for (spec, expected) in [(json!({}), "IPv4 [] "), (json!({"publishNotReadyAddresses": true}), "IPv4 [8080] 10.0.0.1 rs")] {
            let view = View { service: service(spec), pods: vec![pod(1, "")], slices: Vec::new(), nodes: HashMap::from([("n2".into(), None)]), shares: None };
            let plan = plan(&view);
            let Some(Op::Create { object, .. }) = plan.ops.last() else { panic!("{plan}") };
            assert_eq!(show(&serde_json::from_value(object.clone()).unwrap()), expected);
        }
    }

    #[test]
    fn hints_come_and_go() {
        let hints = |slices: &[Arc<EndpointSlice>]| crate::op::value(slices[0].as_ref())["endpoints"][0].get("hints").cloned();
        let pods = || vec![pod(1, "")];
        let (slices, _) = apply(service(json!({"trafficDistribution": "PreferSameNode"})), pods(), Vec::new());
        assert_eq!(hints(&slices), Some(json!({"forZones": [{"name": "z"}], "forNodes": [{"name": "n1"}]})));
        let (slices, ops) = apply(service(json!({"trafficDistribution": "PreferClose"})), pods(), slices);
        assert_eq!((hints(&slices), ops), (Some(json!({"forZones": [{"name": "z"}]})), 1));
        let (slices, ops) = apply(service(json!({})), pods(), slices);
        assert_eq!((hints(&slices), ops), (None, 1));
    }

    #[test]
    fn zones_share_by_their_nodes() {
        let mut object = crate::op::value(service(json!({})).as_ref());
        object["metadata"]["annotations"] = json!({"service.kubernetes.io/topology-mode": "Auto"});
        let service: Arc<Service> = Arc::new(serde_json::from_value(object).unwrap());
        let nodes = HashMap::from([("n1".into(), Some("a".into()))]);
        let view = |shares| View { service: service.clone(), pods: vec![pod(1, ""), pod(2, "")], slices: Vec::new(), nodes: nodes.clone(), shares };
        let shown = plan(&view(None)).to_string();
        assert!(shown.contains("allocatable CPU or zone not specified on one or more nodes, addressType: IPv4"), "{shown}");
        let plan = plan(&view(Some(BTreeMap::from([("a".into(), 0.5), ("b".into(), 0.5)]))));
        assert!(plan.to_string().contains("Topology Aware Hints has been enabled, addressType: IPv4"), "{plan}");
        let Some(Op::Create { object, .. }) = plan.ops.last() else { panic!("{plan}") };
        let zones: Vec<&Value> = object["endpoints"].as_array().unwrap().iter().map(|endpoint| &endpoint["hints"]["forZones"][0]["name"]).collect();
        assert_eq!(zones, ["b", "a"]);
    }

    #[test]
    fn few_writes() {
        let pods = |range: std::ops::Range<usize>| range.map(|n| pod(n, "")).collect::<Vec<_>>();
        let (slices, writes) = apply(service(json!({})), pods(0..150), Vec::new());
        assert_eq!((slices.iter().map(|slice| slice.endpoints.as_ref().unwrap().len()).collect::<Vec<_>>(), writes), (vec![100, 50], 2));
        let (slices, writes) = apply(service(json!({})), pods(0..150), slices);
        assert_eq!(writes, 0, "nothing changed");
        let (slices, writes) = apply(service(json!({})), pods(1..151), slices);
        assert_eq!(writes, 1, "one goes and one comes in the same slice");
        let (slices, writes) = apply(service(json!({})), Vec::new(), slices);
        assert_eq!((slices.len(), writes), (1, 2));
        assert_eq!(show(&slices[0]), "IPv4 [] ");
        assert_eq!(apply(service(json!({})), Vec::new(), slices).1, 0);
    }

    #[test]
    fn named_ports_differ_by_pod() {
        let (slices, _) = apply(service(json!({"ports": [{"port": 80, "targetPort": "http"}]})), vec![pod(1, ""), pod(200, "")], Vec::new());
        assert_eq!(slices.iter().map(|slice| show(slice)).collect::<Vec<_>>(), ["IPv4 [9000] 10.0.0.1 rs", "IPv4 [9001] 10.0.0.200 rs"]);
    }

    #[test]
    fn without_a_selector_nothing_is_ours() {
        let (slices, _) = apply(service(json!({})), vec![pod(1, "")], Vec::new());
        assert!(apply(service(json!({"selector": null})), vec![pod(1, "")], slices).0.is_empty());
    }
}
