//! What placing needs to know of a pod, taken out of it once.

use api::k8s::api::core::v1::{Container, Pod, Toleration, TopologySpreadConstraint};
use api::k8s::apimachinery::pkg::apis::meta::v1::LabelSelector as LabelSelectorType;
use api::selector::LabelSelector;

use crate::affinity::{NodeTerms, PodTerm, Weighted};
use crate::amount::{ASSUMED_CPU_MILLI, ASSUMED_MEMORY_BYTES, Amounts};

pub const DEFAULT_SCHEDULER: &str = "default-scheduler";

/// A port of the node that a pod takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    pub address: String,
    pub protocol: String,
    pub port: i32,
}

impl HostPort {
    pub fn conflicts(&self, other: &Self) -> bool {
        let any = |address: &str| address.is_empty() || address == "0.0.0.0";
        self.port == other.port && self.protocol == other.protocol && (any(&self.address) || any(&other.address) || self.address == other.address)
    }
}

#[derive(Debug, Clone, Default)]
pub struct Constraint {
    pub max_skew: i64,
    pub topology_key: String,
    pub hard: bool,
    pub selector: LabelSelector,
}

#[derive(Debug, Clone, Default)]
pub struct PodInfo {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub labels: std::collections::BTreeMap<String, String>,
    /// The controller that owns it: pods of one owner are spread.
    pub owner_uid: String,
    pub priority: i32,
    pub node_name: String,
    pub request: Amounts,
    /// As `request`, with assumed amounts for containers that ask for nothing.
    pub assumed: Amounts,
    pub node_selector: std::collections::BTreeMap<String, String>,
    pub required_nodes: Option<NodeTerms>,
    pub preferred_nodes: Vec<Weighted<NodeTerms>>,
    pub affinity: Vec<PodTerm>,
    pub anti_affinity: Vec<PodTerm>,
    pub preferred_affinity: Vec<Weighted<PodTerm>>,
    pub preferred_anti_affinity: Vec<Weighted<PodTerm>>,
    pub constraints: Vec<Constraint>,
    pub tolerations: Vec<Toleration>,
    pub host_ports: Vec<HostPort>,
}

fn requests(container: &Container) -> Amounts {
    Amounts::of(container.resources.as_ref().and_then(|resources| resources.requests.as_ref()))
}

fn assumed(request: &Amounts) -> Amounts {
    let mut assumed = request.clone();
    if assumed.cpu_milli == 0 {
        assumed.cpu_milli = ASSUMED_CPU_MILLI;
    }
    if assumed.memory_bytes == 0 {
        assumed.memory_bytes = ASSUMED_MEMORY_BYTES;
    }
    assumed
}

/// Containers run together, init containers one after another beside the sidecars started before them (KEP-753).
fn total(containers: &[Container], init: &[Container], amounts: impl Fn(&Container) -> Amounts) -> Amounts {
    let mut sum = Amounts::default();
    containers.iter().for_each(|container| sum.add(&amounts(container)));
    let (mut sidecars, mut peak) = (Amounts::default(), Amounts::default());
    for container in init {
        let own = amounts(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&own);
            peak.raise(&sidecars);
        } else {
            let mut with = sidecars.clone();
            with.add(&own);
            peak.raise(&with);
        }
    }
    sum.add(&sidecars);
    sum.raise(&peak);
    sum
}

pub(crate) fn selector(selector: Option<&LabelSelectorType>) -> LabelSelector {
    let Some(selector) = selector else { return LabelSelector::nothing() };
    serde_json::to_value(selector).ok().and_then(|value| LabelSelector::from_json(&value).ok()).unwrap_or_else(LabelSelector::nothing)
}

impl PodInfo {
    pub fn of(pod: &Pod) -> Self {
        let meta = &pod.metadata;
        let mut info = Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            labels: meta.labels.clone().unwrap_or_default(),
            owner_uid: meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.clone()).unwrap_or_default(),
            ..Self::default()
        };
        let Some(spec) = &pod.spec else { return info };
        let init = spec.init_containers.clone().unwrap_or_default();
        info.request = total(&spec.containers, &init, requests);
        info.assumed = total(&spec.containers, &init, |container| assumed(&requests(container)));
        if let Some(overhead) = &spec.overhead {
            let overhead = Amounts::of(Some(overhead));
            info.request.add(&overhead);
            info.assumed.add(&overhead);
        }
        info.priority = spec.priority.unwrap_or(0);
        info.node_name = spec.node_name.clone().unwrap_or_default();
        info.node_selector = spec.node_selector.clone().unwrap_or_default();
        info.tolerations = spec.tolerations.clone().unwrap_or_default();
        info.host_ports = host_ports(spec.containers.iter().chain(&init), spec.host_network == Some(true));
        if let Some(affinity) = &spec.affinity {
            if let Some(nodes) = &affinity.node_affinity {
                info.required_nodes = nodes.required_during_scheduling_ignored_during_execution.as_ref().map(NodeTerms::of);
                info.preferred_nodes = nodes.preferred_during_scheduling_ignored_during_execution.iter().flatten().map(|term| Weighted { weight: i64::from(term.weight), term: NodeTerms::single(&term.preference) }).collect();
            }
            let term = |term| PodTerm::of(term, &info.namespace, &info.labels);
            if let Some(pods) = &affinity.pod_affinity {
                info.affinity = pods.required_during_scheduling_ignored_during_execution.iter().flatten().map(term).collect();
                info.preferred_affinity = pods.preferred_during_scheduling_ignored_during_execution.iter().flatten().map(|each| Weighted { weight: i64::from(each.weight), term: term(&each.pod_affinity_term) }).collect();
            }
            if let Some(pods) = &affinity.pod_anti_affinity {
                info.anti_affinity = pods.required_during_scheduling_ignored_during_execution.iter().flatten().map(term).collect();
                info.preferred_anti_affinity = pods.preferred_during_scheduling_ignored_during_execution.iter().flatten().map(|each| Weighted { weight: i64::from(each.weight), term: term(&each.pod_affinity_term) }).collect();
            }
        }
        info.constraints = spec.topology_spread_constraints.iter().flatten().map(|each| constraint(each, &info.labels)).collect();
        info
    }
}

fn constraint(each: &TopologySpreadConstraint, labels: &std::collections::BTreeMap<String, String>) -> Constraint {
    let mut wanted = each.label_selector.clone().unwrap_or_default();
    for key in each.match_label_keys.iter().flatten() {
        if let Some(value) = labels.get(key) {
            wanted.match_labels.get_or_insert_default().insert(key.clone(), value.clone());
        }
    }
    Constraint { max_skew: i64::from(each.max_skew), topology_key: each.topology_key.clone(), hard: each.when_unsatisfiable != "ScheduleAnyway", selector: selector(Some(&wanted)) }
}

fn host_ports<'a>(containers: impl Iterator<Item = &'a Container>, host_network: bool) -> Vec<HostPort> {
    let mut ports = Vec::new();
    for port in containers.flat_map(|container| container.ports.iter().flatten()) {
        let number = port.host_port.unwrap_or(if host_network { port.container_port } else { 0 });
        if number > 0 {
            ports.push(HostPort { address: port.host_ip.clone().unwrap_or_default(), protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()), port: number });
        }
    }
    ports
}
