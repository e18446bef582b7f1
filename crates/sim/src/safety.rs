//! What must hold at every moment.
//!
//! Always: a pod keeps the node it was bound to; no two pods that run have one address. Where no answer was lost: a ReplicaSet never has more pods than it was
//! ever told to have. Where nothing failed: rolling updates keep within maxSurge and maxUnavailable.

use std::collections::{BTreeMap, HashMap};

use api::Object;
use api::k8s::api::apps::v1::{Deployment, ReplicaSet};
use api::k8s::api::core::v1::Pod;
use api::k8s::apimachinery::pkg::util::intstr::IntOrString;
use store::{Event, EventKind};

use crate::history::State;

/// Which of the conditional promises hold in this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promises {
    /// No answer to a write was lost.
    pub exact_counts: bool,
    /// No pod was taken away by anything but its controller.
    pub rolling_bounds: bool,
}

/// Pods of one Deployment: how many there may be, and how many must be available.
struct Bounds {
    at_most: i32,
    at_least: i32,
    replicas: i32,
    generation: Option<i64>,
    /// All of its pods are there and ready, and no more.
    arrived: bool,
}

#[derive(Default)]
pub struct Safety {
    /// Node by uid of the pod.
    bound: HashMap<String, String>,
    /// Pod by address.
    addresses: HashMap<String, String>,
    /// The most a ReplicaSet was told to have, by uid.
    told: HashMap<String, i32>,
    /// By uid.
    deployments: BTreeMap<String, Bounds>,
}

fn is_terminating(object: &Object) -> bool {
    object.meta().deletion_timestamp.is_some()
}

pub fn owner(object: &Object) -> Option<&str> {
    object.meta().owner_references.iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str())
}

pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("")
}

pub fn is_ready(pod: &Pod) -> bool {
    pod.status.iter().flat_map(|status| status.conditions.iter().flatten()).any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// A number of pods, or a share of them, rounded as the field wants it.
fn amount(of: Option<&IntOrString>, replicas: i32, up: bool) -> i32 {
    match of {
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(text)) => {
            let percent: i32 = text.trim_end_matches('%').parse().unwrap_or(0);
            (replicas * percent + if up { 99 } else { 0 }) / 100
        }
        None => 0,
    }
}

/// Replicas, and the most and fewest pods of a Deployment as it is written.
fn limits(deployment: &Deployment) -> Option<(i32, i32, i32)> {
    let spec = deployment.spec.as_ref()?;
    let replicas = spec.replicas.unwrap_or(1);
    let rolling = spec.strategy.as_ref()?.rolling_update.as_ref()?;
    let surge = amount(rolling.max_surge.as_ref(), replicas, true);
    let mut unavailable = amount(rolling.max_unavailable.as_ref(), replicas, false);
    if surge == 0 && unavailable == 0 {
        unavailable = 1;
    }
    Some((replicas, replicas + surge, (replicas - unavailable).max(0)))
}

impl Safety {
    /// `state` has the event already.
    pub fn judge(&mut self, event: &Event, state: &State, promises: Promises, wrong: &mut Vec<String>) {
        match event.object.kind() {
            "Pod" => {
                self.pod(event, wrong);
                if promises.exact_counts && event.kind == EventKind::Created {
                    self.count(event, state, wrong);
                }
                if promises.rolling_bounds {
                    self.rolling(&event.object, state, wrong);
                }
            }
            "ReplicaSet" => {
                let replicas = event.object.typed::<ReplicaSet>().ok().and_then(|set| set.spec.as_ref()?.replicas).unwrap_or(0);
                let told = self.told.entry(event.object.meta().uid.clone()).or_insert(0);
                *told = replicas.max(*told);
                if promises.rolling_bounds {
                    self.rolling(&event.object, state, wrong);
                }
            }
            "Deployment" => self.deployment(event),
            // All that is in it goes, in no particular order.
            "Namespace" if is_terminating(&event.object) => {
                let inside = state.of_kind("Deployment").filter(|deployment| deployment.meta().namespace.as_ref() == Some(&event.object.meta().name));
                inside.for_each(|deployment| drop(self.deployments.remove(&deployment.meta().uid)));
            }
            _ => {}
        }
    }

    fn pod(&mut self, event: &Event, wrong: &mut Vec<String>) {
        let Ok(pod) = event.object.typed::<Pod>() else { return wrong.push(format!("{:?} does not decode", event.object)) };
        let uid = &event.object.meta().uid;
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("");
        match self.bound.get(uid) {
            Some(known) if known != node => wrong.push(format!("{:?} moved from {known} to {node:?}", event.object)),
            None if !node.is_empty() => drop(self.bound.insert(uid.clone(), node.to_owned())),
            _ => {}
        }
        let host_network = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
        let Some(address) = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).filter(|_| !host_network) else { return };
        let over = event.kind == EventKind::Deleted || finished(&pod);
        match self.addresses.get(&address) {
            Some(known) if known != uid && !over => wrong.push(format!("{:?} has the address {address} of another pod", event.object)),
            Some(known) if known == uid && over => drop(self.addresses.remove(&address)),
            None if !over => drop(self.addresses.insert(address, uid.clone())),
            _ => {}
        }
    }

    fn count(&self, event: &Event, state: &State, wrong: &mut Vec<String>) {
        let Some(owner_uid) = owner(&event.object) else { return };
        let Some(told) = self.told.get(owner_uid) else { return };
        let pods = state.of_kind("Pod").filter(|pod| owner(pod) == Some(owner_uid) && !is_terminating(pod) && pod.typed::<Pod>().is_ok_and(|pod| !finished(&pod))).count();
        if pods as i32 > *told {
            wrong.push(format!("with {:?} its ReplicaSet has {pods} pods and was never told more than {told}", event.object));
        }
    }

    fn deployment(&mut self, event: &Event) {
        let uid = &event.object.meta().uid;
        let limits = event.object.typed::<Deployment>().ok().and_then(|deployment| limits(&deployment));
        match limits.filter(|_| event.kind != EventKind::Deleted && !is_terminating(&event.object)) {
            Some((replicas, at_most, at_least)) => {
                let generation = event.object.meta().generation;
                // A new one has no pods yet; a changed one is on the way from its old bounds to its new ones.
                let before = self.deployments.entry(uid.clone()).or_insert(Bounds { at_most, at_least: 0, replicas, generation, arrived: false });
                // Made smaller in the middle of a rollout, it takes from old and new pods in proportion, ready or not: upstream promises nothing here.
                let promised = if replicas < before.replicas && !before.arrived { 0 } else { at_least };
                *before = Bounds { at_most: before.at_most.max(at_most), at_least: before.at_least.min(promised), replicas, generation, arrived: before.arrived && before.generation == generation };
            }
            None => drop(self.deployments.remove(uid)),
        }
    }

    fn rolling(&mut self, event: &Object, state: &State, wrong: &mut Vec<String>) {
        // As upstream's own tests count: the pods that ReplicaSets are told to have, but the ready ones that are there. One set's creation may overtake
        // another's deletion.
        let mut sets: HashMap<&str, &str> = HashMap::new();
        let mut asked: HashMap<&str, i32> = HashMap::new();
        for object in state.of_kind("ReplicaSet") {
            if let (Some(deployment), Ok(set)) = (owner(object), object.typed::<ReplicaSet>()) {
                sets.insert(&object.meta().uid, deployment);
                *asked.entry(deployment).or_default() += set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
            }
        }
        let mut pods: HashMap<&str, (i32, i32)> = HashMap::new();
        for object in state.of_kind("Pod").filter(|pod| !is_terminating(pod)) {
            if let Some(deployment) = owner(object).and_then(|set| sets.get(set))
                && let Ok(pod) = object.typed::<Pod>()
            {
                let (all, ready) = pods.entry(deployment).or_default();
                *all += 1;
                *ready += i32::from(is_ready(&pod));
            }
        }
        for object in state.of_kind("Deployment") {
            let uid = object.meta().uid.as_str();
            let Some(bounds) = self.deployments.get_mut(uid) else { continue };
            let (all, ready) = pods.get(uid).copied().unwrap_or_default();
            let asked = asked.get(uid).copied().unwrap_or_default();
            if asked > bounds.at_most {
                wrong.push(format!("{object:?} asks for {asked} pods, at most {} are allowed; after {event:?}", bounds.at_most));
            }
            if ready < bounds.at_least {
                wrong.push(format!("{object:?} has {ready} ready pods, at least {} are promised; after {event:?}", bounds.at_least));
            }
            // Arrived: from here on the bounds are those of its present size.
            if all == bounds.replicas
                && asked == all
                && ready == all
                && let Ok(deployment) = object.typed::<Deployment>()
                && let Some((replicas, at_most, at_least)) = limits(&deployment)
            {
                *bounds = Bounds { at_most, at_least, replicas, generation: bounds.generation, arrived: true };
            }
        }
    }
}
