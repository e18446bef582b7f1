//! The status of a pod as the API shows it, computed from what the runtime and the probes say: pure.
//!
//! Mirrors upstream's `generateAPIPodStatus`, `convertToAPIContainerStatuses` and `getPhase` (kubelet_pods.go), and the conditions of status/generate.go.

use std::collections::HashMap;

use api::k8s::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, ContainerUser, HostIP, Pod, PodIP, PodStatus, VolumeMountStatus,
};
use jiff::Timestamp;
use sandbox::cri;

use crate::conditions;
use crate::cx::Verdict;
use crate::pod::{self, Sort};
use crate::resize;
use crate::sync::should_start;
use crate::view::{PodRuntime, ProbeResults};

/// Why a container waits: `reason` and `message` of its waiting state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    pub reason: String,
    pub message: String,
}

pub struct View<'a> {
    pub pod: &'a Pod,
    /// The status the API has.
    pub old: &'a PodStatus,
    pub runtime: &'a PodRuntime,
    pub probes: &'a ProbeResults,
    /// By container: why the last attempt to start it came to nothing.
    pub reasons: &'a HashMap<String, Reason>,
    /// By container ID: what was read from its termination message file or logs.
    pub messages: &'a HashMap<String, String>,
    /// By container ID: who its first process runs as.
    pub users: &'a HashMap<String, ContainerUser>,
    /// Primary first.
    pub node_ips: &'a [String],
    /// Why a resize is not done.
    pub pending: Option<&'a resize::Pending>,
    /// `Failed` with reason and message decided by the node (a deadline passed, no room).
    pub verdict: Option<&'a Verdict>,
    /// Nothing of the pod will run any more.
    pub ended: bool,
    pub now: Timestamp,
    pub container_id_scheme: &'a str,
}

pub struct Computed {
    pub status: PodStatus,
    /// The pod will not do anything more: it is to be ended. The API hears of the final phase when it has (`ended`), as upstream.
    pub over: bool,
}

fn is_final(phase: Option<&str>) -> bool {
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// A pod the node did not take fails at once, and nothing is told of its containers. Mirrors the kubelet's `rejectPod`.
fn refused(view: &View) -> Option<PodStatus> {
    let old = view.old;
    let phase_and_reason = match view.verdict.filter(|verdict| verdict.refused) {
        Some(verdict) => ("Failed".to_owned(), Some(verdict.why.reason.clone()), Some(verdict.why.message.clone())),
        // Known from before a restart.
        None if is_final(old.phase.as_deref()) && old.container_statuses.is_none() && view.runtime.containers.is_empty() => (old.phase.clone()?, old.reason.clone(), old.message.clone()),
        None => return None,
    };
    let (phase, reason, message) = phase_and_reason;
    Some(PodStatus {
        phase: Some(phase),
        reason,
        message,
        start_time: old.start_time.clone().or_else(|| Some(pod::time(view.now))),
        qos_class: old.qos_class.clone().or_else(|| Some(pod::qos_class(view.pod).to_owned())),
        observed_generation: view.pod.metadata.generation,
        ..old.clone()
    })
}

pub fn compute(view: &View) -> Computed {
    let old = view.old;
    if let Some(status) = refused(view) {
        return Computed { status, over: true };
    }
    let mut status = PodStatus {
        host_ip: view.node_ips.first().cloned(),
        host_ips: Some(view.node_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
        start_time: old.start_time.clone().or_else(|| Some(pod::time(view.now))),
        qos_class: old.qos_class.clone().or_else(|| Some(pod::qos_class(view.pod).to_owned())),
        observed_generation: view.pod.metadata.generation,
        nominated_node_name: old.nominated_node_name.clone(),
        resize: old.resize.clone(),
        resource_claim_statuses: old.resource_claim_statuses.clone(),
        ..PodStatus::default()
    };
    let waiting = if pod::init_containers(view.pod).is_empty() { "ContainerCreating" } else { "PodInitializing" };
    let each = |containers: &[Container], sort: fn(&Container) -> Sort, old: Option<&Vec<ContainerStatus>>| -> Option<Vec<ContainerStatus>> {
        let list: Vec<_> = containers
            .iter()
            .map(|c| container_status(view, c, sort(c), waiting, old.and_then(|list| list.iter().find(|s| s.name == c.name))))
            .collect();
        (!list.is_empty()).then_some(list)
    };
    let init_sort: fn(&Container) -> Sort = |c| if pod::is_sidecar(c) { Sort::Sidecar } else { Sort::Init };
    status.init_container_statuses = each(pod::init_containers(view.pod), init_sort, old.init_container_statuses.as_ref());
    status.container_statuses = each(pod::containers(view.pod), |_| Sort::Main, old.container_statuses.as_ref());
    let ephemeral: Vec<Container> = pod::ephemeral_containers(view.pod).iter().map(pod::as_container).collect();
    status.ephemeral_container_statuses = each(&ephemeral, |_| Sort::Ephemeral, old.ephemeral_container_statuses.as_ref());

    status.phase = Some(phase(view, &status).to_owned());
    if let Some(verdict) = view.verdict {
        status.phase = Some("Failed".to_owned());
        status.reason = Some(verdict.why.reason.clone());
        status.message = Some(verdict.why.message.clone());
    } else if matches!(old.phase.as_deref(), Some("Succeeded" | "Failed")) {
        // A final phase never changes back.
        status.phase = old.phase.clone();
        status.reason = old.reason.clone();
        status.message = old.message.clone();
    }
    let over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if over && !view.ended && !matches!(old.phase.as_deref(), Some("Succeeded" | "Failed")) {
        let so_far = old.phase.clone().filter(|p| !p.is_empty()).unwrap_or_else(|| "Pending".to_owned());
        status.phase = Some(so_far);
        status.reason = None;
        status.message = None;
    }
    addresses(view, old, &mut status);
    status.conditions = Some(conditions::compute(view, old, &status));
    Computed { status, over }
}

fn addresses(view: &View, old: &PodStatus, status: &mut PodStatus) {
    let ips: Vec<String> = match view.runtime.sandbox() {
        Some(_) if pod::host_network(view.pod) => view.node_ips.to_vec(),
        Some(sandbox) => sandbox.ips.iter().map(ToString::to_string).collect(),
        // Kept while the pod ends: upstream's status keeps the last address known.
        None => old.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect(),
    };
    status.pod_ip = ips.first().cloned();
    status.pod_ips = (!ips.is_empty()).then(|| ips.into_iter().map(|ip| PodIP { ip }).collect());
}

fn running(at: i64) -> ContainerState {
    ContainerState { running: Some(ContainerStateRunning { started_at: Some(pod::time(pod::timestamp(at))) }), ..ContainerState::default() }
}

fn waiting_state(reason: &str, message: &str) -> ContainerState {
    let message = (!message.is_empty()).then(|| message.to_owned());
    ContainerState { waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }), ..ContainerState::default() }
}

fn terminated(view: &View, c: &cri::ContainerStatus) -> ContainerState {
    let message = view.messages.get(&c.id).cloned().unwrap_or_else(|| c.message.clone());
    let at = |nanos: i64| Some(pod::time(pod::timestamp(nanos)));
    let reason = if c.reason.is_empty() { if c.exit_code == 0 { "Completed" } else { "Error" } } else { &c.reason };
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(format!("{}{}", view.container_id_scheme, c.id)),
            exit_code: c.exit_code,
            finished_at: at(c.finished_at),
            started_at: at(c.started_at),
            reason: Some(reason.to_owned()),
            message: (!message.is_empty()).then_some(message),
            signal: None,
        }),
        ..ContainerState::default()
    }
}

/// That state if it is an end, else the empty one.
fn ended(state: Option<&ContainerState>) -> Option<ContainerState> {
    Some(state.filter(|s| s.terminated.is_some()).cloned().unwrap_or_default())
}

/// It ran once and the runtime no longer knows it.
fn lost(old: &ContainerStatus, while_terminating: bool) -> ContainerState {
    let message = if while_terminating {
        "The container could not be located when the pod was terminated"
    } else {
        "The container could not be located when the pod was deleted.  The container used to be Running"
    };
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            reason: Some("ContainerStatusUnknown".to_owned()),
            message: Some(message.to_owned()),
            exit_code: 137,
            container_id: old.container_id.clone(),
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    }
}

fn container_status(view: &View, container: &Container, sort: Sort, waiting: &str, old: Option<&ContainerStatus>) -> ContainerStatus {
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        started: Some(false),
        state: Some(waiting_state(waiting, "")),
        // Never absent in the API.
        last_state: Some(ContainerState::default()),
        volume_mounts: mounts(container),
        ..ContainerStatus::default()
    };
    let reason = view.reasons.get(&container.name);
    let Some(found) = view.runtime.latest(&container.name) else {
        if let Some(old) = old {
            let was_running = old.state.as_ref().is_some_and(|s| s.running.is_some());
            let was_terminated = old.state.as_ref().is_some_and(|s| s.terminated.is_some());
            if was_terminated || (was_running && view.ended) {
                status.restart_count = old.restart_count;
                status.image_id.clone_from(&old.image_id);
                status.container_id.clone_from(&old.container_id);
                status.state = if was_terminated { old.state.clone() } else { Some(lost(old, pod::is_terminating(view.pod))) };
                return status;
            }
            status.restart_count = old.restart_count;
            status.last_state = ended(old.last_state.as_ref());
        }
        if let Some(reason) = reason {
            status.state = Some(waiting_state(&reason.reason, &reason.message));
        } else if let Some(init_done) = init_done_waiting(view, sort) {
            status.state = Some(waiting_state(init_done, ""));
        }
        return status;
    };
    status.container_id = Some(format!("{}{}", view.container_id_scheme, found.id));
    status.image_id.clone_from(&found.image_id);
    status.restart_count = i32::try_from(found.metadata.attempt).unwrap_or(i32::MAX);
    if !found.image.is_empty() {
        status.image.clone_from(&found.image);
    }
    if let Some(previous) = view.runtime.previous(&container.name).filter(|p| p.state == cri::ContainerState::Exited) {
        status.last_state = Some(terminated(view, previous));
    } else if let Some(old) = old.filter(|old| old.container_id != status.container_id) {
        // The one before was collected; what the API remembers of it stays.
        status.last_state = ended(old.state.as_ref());
    } else if let Some(old) = old {
        status.last_state = ended(old.last_state.as_ref());
    }
    match found.state {
        cri::ContainerState::Running => {
            status.state = Some(running(found.started_at));
            let verdicts = view.probes.of(&found.id);
            let started = container.startup_probe.is_none() || verdicts.startup == Some(true);
            status.started = Some(started);
            status.ready = started && (container.readiness_probe.is_none() || verdicts.readiness == Some(true));
            if sort == Sort::Init {
                status.ready = false;
            }
            resources(view, container, sort, found, old, &mut status);
            status.user = view.users.get(&found.id).cloned();
            // Until its postStart hook has run it has not started.
            if reason.is_some_and(|r| r.reason == POST_START) {
                status.started = Some(false);
                status.ready = false;
            }
        }
        cri::ContainerState::Created => {
            status.state = Some(reason.map_or_else(|| waiting_state(waiting, ""), |r| waiting_state(&r.reason, &r.message)));
        }
        cri::ContainerState::Exited | cri::ContainerState::Unknown => {
            let state = terminated(view, found);
            let again = !view.ended && view.verdict.is_none() && should_start(view.pod, container, sort, Some(found));
            match reason {
                Some(reason) if again => {
                    status.last_state = Some(state);
                    status.state = Some(waiting_state(&reason.reason, &reason.message));
                }
                _ => status.state = Some(state),
            }
            status.ready = sort == Sort::Init && found.exit_code == 0;
        }
    }
    status
}

/// The pseudo reason of a container whose postStart hook is running.
pub const POST_START: &str = "PostStartHook";

/// `None` keeps the pod's usual word.
fn init_done_waiting(view: &View, sort: Sort) -> Option<&'static str> {
    (sort == Sort::Main && !pod::init_containers(view.pod).is_empty()).then_some("PodInitializing")
}

fn mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let list: Vec<_> = container
        .volume_mounts
        .iter()
        .flatten()
        .map(|mount| VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only: mount.read_only.filter(|r| *r),
            recursive_read_only: (mount.read_only == Some(true)).then(|| "Disabled".to_owned()),
            ..VolumeMountStatus::default()
        })
        .collect();
    (!list.is_empty()).then_some(list)
}

/// What the container is to have (all the pod asks for, unless that has to wait), and what it has until then.
fn resources(view: &View, container: &Container, sort: Sort, found: &cri::ContainerStatus, old: Option<&ContainerStatus>, status: &mut ContainerStatus) {
    status.allocated_resources = container.resources.as_ref().and_then(|resources| resources.requests.clone());
    status.resources = Some(container.resources.clone().unwrap_or_default());
    let Some(before) = old.filter(|old| old.container_id == status.container_id && old.resources.is_some()) else { return };
    if view.pending.is_some() {
        status.allocated_resources.clone_from(&before.allocated_resources);
    }
    if view.pending.is_some() || resize::difference(view.pod, container, sort, found).any() {
        status.resources.clone_from(&before.resources);
    }
}

/// Upstream's `getPhase`.
fn phase(view: &View, status: &PodStatus) -> &'static str {
    let policy = view.pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref()).unwrap_or("Always");
    let (mut pending_init, mut failed_init) = (0, 0);
    for (container, status) in pod::init_containers(view.pod).iter().zip(status.init_container_statuses.iter().flatten()) {
        let state = status.state.clone().unwrap_or_default();
        let last = status.last_state.as_ref().and_then(|s| s.terminated.as_ref());
        if pod::is_sidecar(container) {
            match (&state.running, &state.terminated, &state.waiting) {
                (Some(_), ..) if status.started != Some(true) => pending_init += 1,
                (Some(_), ..) | (_, Some(_), _) => {}
                (_, _, Some(_)) if last.is_some() => {}
                _ => pending_init += 1,
            }
            continue;
        }
        match (&state.terminated, &state.waiting) {
            (Some(ended), _) if ended.exit_code != 0 => {
                if view.ended || !should_start(view.pod, container, Sort::Init, view.runtime.latest(&container.name)) {
                    failed_init += 1;
                } else {
                    pending_init += 1;
                }
            }
            (Some(_), _) => {}
            (None, Some(_)) if last.is_some_and(|l| l.exit_code == 0) => {}
            _ => pending_init += 1,
        }
    }
    let (mut running, mut waiting, mut stopped, mut succeeded) = (0, 0, 0, 0);
    let mut restarting = false;
    for (container, status) in pod::containers(view.pod).iter().zip(status.container_statuses.iter().flatten()) {
        let state = status.state.clone().unwrap_or_default();
        let last = status.last_state.as_ref().and_then(|s| s.terminated.as_ref());
        match (&state.running, &state.terminated) {
            (Some(_), _) => running += 1,
            (None, Some(ended)) => {
                stopped += 1;
                succeeded += i32::from(ended.exit_code == 0);
                restarting |= !view.ended && view.runtime.latest(&container.name).is_some_and(|c| should_start(view.pod, container, Sort::Main, Some(c)));
            }
            _ if last.is_some() => {
                stopped += 1;
                restarting |= !view.ended;
            }
            _ => waiting += 1,
        }
    }
    let total = pod::containers(view.pod).len() as i32;
    if failed_init > 0 && policy_never_for_init(view) {
        return "Failed";
    }
    if pending_init > 0 && running == 0 && stopped == 0 {
        // What ended before its init containers were through did not succeed.
        return if view.ended { "Failed" } else { "Pending" };
    }
    if waiting > 0 {
        return if view.ended { if succeeded == total { "Succeeded" } else { "Failed" } } else { "Pending" };
    }
    if running > 0 {
        return "Running";
    }
    if stopped > 0 {
        if restarting && !view.ended {
            return "Running";
        }
        if stopped == succeeded && (policy != "Always" || view.ended) {
            return "Succeeded";
        }
        if view.ended || !restarting {
            return if stopped == succeeded { "Succeeded" } else { "Failed" };
        }
        return "Running";
    }
    "Pending"
}

fn policy_never_for_init(view: &View) -> bool {
    view.ended
        || pod::init_containers(view.pod).iter().any(|c| {
            !pod::is_sidecar(c)
                && view.runtime.latest(&c.name).is_some_and(|s| {
                    s.state == cri::ContainerState::Exited && s.exit_code != 0 && !should_start(view.pod, c, Sort::Init, Some(s)) && !pod::is_terminating(view.pod)
                })
        })
}
