//! The conditions of a pod that the node owns: PodReadyToStartContainers, Initialized, ContainersReady, Ready, PodScheduled.
//!
//! Mirrors upstream's status/generate.go. Conditions of others (readiness gates, DisruptionTarget, …) are kept as they are.

use api::k8s::api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus};

use crate::pod;
use crate::resize;
use crate::status::View;

const OWNED: [&str; 7] = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled", resize::PENDING, resize::IN_PROGRESS];

/// Of the node only when it ends the pod itself.
const DISRUPTION_TARGET: &str = "DisruptionTarget";

struct Verdict {
    status: bool,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn yes() -> Self {
        Self { status: true, reason: "", message: String::new() }
    }

    fn no(reason: &'static str, message: String) -> Self {
        Self { status: false, reason, message }
    }
}

pub fn compute(view: &View, old: &PodStatus, status: &PodStatus) -> Vec<PodCondition> {
    let phase = status.phase.as_deref().unwrap_or_default();
    let sandbox_ready = view.runtime.sandbox().is_some_and(|sandbox| pod::host_network(view.pod) || !sandbox.ips.is_empty());
    let containers_ready = containers_ready(view.pod, status, phase);
    let ready = ready(view.pod, old, &containers_ready);
    let made = [
        ("PodReadyToStartContainers", if sandbox_ready { Verdict::yes() } else { Verdict::no("", String::new()) }),
        ("Initialized", initialized(view.pod, status, phase)),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", Verdict::yes()),
    ];
    let mut conditions: Vec<PodCondition> = made.into_iter().map(|(name, verdict)| condition(view, old, name, verdict)).collect();
    let before = |name: &str| old.conditions.iter().flatten().find(|c| c.type_ == name);
    conditions.extend(view.pending.map(|why| resize::waits(view.pod, why, before(resize::PENDING), view.now)));
    if view.pending.is_none() && resize::under_way(view.pod, view.runtime) {
        conditions.push(resize::in_progress(view.pod, before(resize::IN_PROGRESS), view.now));
    }
    let disrupted = view.verdict.filter(|verdict| verdict.disrupts && view.ended && phase == "Failed");
    if let Some(verdict) = disrupted {
        // As upstream: with the final phase, not before.
        conditions.push(condition(view, old, DISRUPTION_TARGET, Verdict { status: true, reason: "TerminationByKubelet", message: verdict.why.message.clone() }));
    }
    conditions.extend(old.conditions.iter().flatten().filter(|c| disrupted.is_none() || c.type_ != DISRUPTION_TARGET).filter(|c| !OWNED.contains(&c.type_.as_str())).cloned());
    conditions
}

fn condition(view: &View, old: &PodStatus, name: &str, verdict: Verdict) -> PodCondition {
    let status = if verdict.status { "True" } else { "False" };
    let before = old.conditions.iter().flatten().find(|c| c.type_ == name);
    let same = before.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
    PodCondition {
        type_: name.to_owned(),
        status: status.to_owned(),
        reason: (!verdict.reason.is_empty()).then(|| verdict.reason.to_owned()),
        message: (!verdict.message.is_empty()).then_some(verdict.message),
        last_transition_time: same.or_else(|| Some(pod::time(view.now))),
        last_probe_time: None,
        observed_generation: view.pod.metadata.generation,
    }
}

/// `[a b]`, as Go prints a slice.
fn listed(names: &[&str]) -> String {
    format!("[{}]", names.join(" "))
}

fn initialized(pod: &Pod, status: &PodStatus, phase: &str) -> Verdict {
    if phase == "Succeeded" {
        return Verdict { status: true, reason: "PodCompleted", message: String::new() };
    }
    let has_started = status.container_statuses.iter().flatten().any(|s| {
        s.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some()) || s.last_state.as_ref().is_some_and(|l| l.terminated.is_some())
    });
    let mut incomplete = Vec::new();
    for container in pod::init_containers(pod) {
        let found = status.init_container_statuses.iter().flatten().find(|s| s.name == container.name);
        let done = found.is_some_and(|s| if pod::is_sidecar(container) { s.started == Some(true) } else { s.ready });
        if !done && !(has_started && !pod::is_sidecar(container)) && !(has_started && pod::is_sidecar(container)) {
            incomplete.push(container.name.as_str());
        }
    }
    if incomplete.is_empty() { Verdict::yes() } else { Verdict::no("ContainersNotInitialized", format!("containers with incomplete status: {}", listed(&incomplete))) }
}

fn containers_ready(pod: &Pod, status: &PodStatus, phase: &str) -> Verdict {
    match phase {
        "Succeeded" => return Verdict::no("PodCompleted", String::new()),
        "Failed" => return Verdict::no("PodFailed", String::new()),
        _ => {}
    }
    let mut unknown = Vec::new();
    let mut unready = Vec::new();
    let sidecars = pod::init_containers(pod).iter().filter(|c| pod::is_sidecar(c)).map(|c| (c, &status.init_container_statuses));
    for (container, list) in sidecars.chain(pod::containers(pod).iter().map(|c| (c, &status.container_statuses))) {
        match list.iter().flatten().find(|s: &&ContainerStatus| s.name == container.name) {
            None => unknown.push(container.name.as_str()),
            Some(found) if !found.ready => unready.push(container.name.as_str()),
            Some(_) => {}
        }
    }
    let mut parts = Vec::new();
    if !unknown.is_empty() {
        parts.push(format!("containers with unknown status: {}", listed(&unknown)));
    }
    if !unready.is_empty() {
        parts.push(format!("containers with unready status: {}", listed(&unready)));
    }
    if parts.is_empty() { Verdict::yes() } else { Verdict::no("ContainersNotReady", parts.join(", ")) }
}

fn ready(pod: &Pod, old: &PodStatus, containers_ready: &Verdict) -> Verdict {
    if !containers_ready.status {
        return Verdict { status: false, reason: containers_ready.reason, message: containers_ready.message.clone() };
    }
    let mut messages = Vec::new();
    for gate in pod.spec.iter().flat_map(|s| s.readiness_gates.iter().flatten()) {
        match old.conditions.iter().flatten().find(|c| c.type_ == gate.condition_type) {
            None => messages.push(format!("corresponding condition of pod readiness gate \"{}\" does not exist.", gate.condition_type)),
            Some(c) if c.status != "True" => messages.push(format!("the status of pod readiness gate \"{}\" is not \"True\", but {}", gate.condition_type, c.status)),
            Some(_) => {}
        }
    }
    if messages.is_empty() { Verdict::yes() } else { Verdict::no("ReadinessGatesNotReady", messages.join(", ")) }
}
