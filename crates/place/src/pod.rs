//! What placing needs to know of a pod, taken out of it once.

use std::collections::{BTreeMap, BTreeSet};

use api::k8s::api::core::v1::{Container, Pod, PodStatus, Toleration};

use crate::affinity::{NodeTerms, PodTerm, Weighted};
use crate::amount::{ASSUMED_CPU_MILLI, ASSUMED_MEMORY_BYTES, Amounts};
use crate::constraint::Constraint;
use crate::node::NodeInfo;
use crate::volumes::ClaimName;

/// The reason of the condition `DisruptionTarget` on victims.
pub const PREEMPTED: &str = "PreemptionByScheduler";
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
pub struct PodInfo {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub labels: BTreeMap<String, String>,
    /// The controller that owns it: pods of one owner are spread.
    pub owner_uid: String,
    pub priority: i32,
    /// `preemptionPolicy: Never`.
    pub never_preempts: bool,
    /// On its way out, and whether the scheduler sent it there.
    pub deleting: bool,
    pub preempted: bool,
    /// Since when the node has it, in microseconds; `i64::MAX` for a pod that has not started.
    pub started: i64,
    pub node_name: String,
    pub request: Amounts,
    /// As `request`, with assumed amounts for containers that ask for nothing.
    pub assumed: Amounts,
    pub node_selector: BTreeMap<String, String>,
    pub required_nodes: Option<NodeTerms>,
    /// The only nodes that `required_nodes` leaves, by name.
    pub only_nodes: Option<BTreeSet<String>>,
    pub preferred_nodes: Vec<Weighted<NodeTerms>>,
    pub affinity: Vec<PodTerm>,
    pub anti_affinity: Vec<PodTerm>,
    pub preferred_affinity: Vec<Weighted<PodTerm>>,
    pub preferred_anti_affinity: Vec<Weighted<PodTerm>>,
    pub constraints: Vec<Constraint>,
    /// What counts when it has no constraints.
    pub default_constraints: Vec<Constraint>,
    pub tolerations: Vec<Toleration>,
    pub host_ports: Vec<HostPort>,
    pub claims: Vec<ClaimName>,
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

/// Whether the scheduler told the pod to go, to make room for another.
fn preempted(status: &PodStatus) -> bool {
    let disruption = status.conditions.iter().flatten().find(|condition| condition.type_ == "DisruptionTarget");
    disruption.is_some_and(|condition| condition.status == "True" && condition.reason.as_deref() == Some(PREEMPTED))
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
            deleting: meta.deletion_timestamp.is_some(),
            started: pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map_or(i64::MAX, |time| time.0.as_microsecond()),
            ..Self::default()
        };
        info.preempted = info.deleting && pod.status.as_ref().is_some_and(preempted);
        let Some(spec) = &pod.spec else { return info };
        let init = spec.init_containers.clone().unwrap_or_default();
        info.request = total(&spec.containers, &init, requests);
        info.assumed = total(&spec.containers, &init, |container| assumed(&requests(container)));
        if let Some(overhead) = &spec.overhead {
            let overhead = Amounts::of(Some(overhead));
            info.request.add(&overhead);
            info.assumed.add(&overhead);
        }
        info.claims = ClaimName::all(pod);
        info.priority = spec.priority.unwrap_or(0);
        info.never_preempts = spec.preemption_policy.as_deref() == Some("Never");
        info.node_name = spec.node_name.clone().unwrap_or_default();
        info.node_selector = spec.node_selector.clone().unwrap_or_default();
        info.tolerations = spec.tolerations.clone().unwrap_or_default();
        info.host_ports = host_ports(spec.containers.iter().chain(&init), spec.host_network == Some(true));
        if let Some(affinity) = &spec.affinity {
            if let Some(nodes) = &affinity.node_affinity {
                info.required_nodes = nodes.required_during_scheduling_ignored_during_execution.as_ref().map(NodeTerms::of);
                info.only_nodes = info.required_nodes.as_ref().and_then(NodeTerms::names);
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
        info.constraints = spec.topology_spread_constraints.iter().flatten().map(|each| Constraint::of(each, &info.labels)).collect();
        if info.constraints.is_empty() && !info.owner_uid.is_empty() {
            info.default_constraints = Constraint::defaults(&info.owner_uid);
        }
        info
    }

    /// Whether it says anything about other pods.
    pub fn has_affinity(&self) -> bool {
        !(self.affinity.is_empty() && self.anti_affinity.is_empty() && self.preferred_affinity.is_empty() && self.preferred_anti_affinity.is_empty())
    }

    /// Whether its nodeSelector and required node affinity take the node.
    pub fn selects(&self, node: &NodeInfo) -> bool {
        self.node_selector.iter().all(|(key, value)| node.label(key) == Some(value)) && self.required_nodes.as_ref().is_none_or(|terms| terms.hold(node))
    }
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
