//! What to do next for a pod that should run: pure and total, `View -> Plan`.
//!
//! Mirrors upstream's `computePodActions` (kuberuntime): first a sandbox, then init containers in order (sidecars stay), then all the others at once;
//! what ended is restarted by the pod's restart policy after its back-off; what its liveness or startup probe condemned is killed.

use api::k8s::api::core::v1::{Container, Pod};
use jiff::Timestamp;
use sandbox::cri::{ContainerState, ContainerStatus};

use crate::backoff::{BackOff, go_duration};
use crate::pod::{self, Sort};
use crate::resize;
use crate::view::{PodRuntime, ProbeResults};

pub struct View<'a> {
    pub pod: &'a Pod,
    pub runtime: &'a PodRuntime,
    pub probes: &'a ProbeResults,
    pub backoff: &'a BackOff,
    /// Not to be tried before: after an error of starting it. By container; `""` is the sandbox.
    pub retry_at: &'a std::collections::HashMap<String, Timestamp>,
    /// What the pod asks for is more than there is: its containers stay as they are.
    pub resize_waits: bool,
    pub now: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Stops what is left of an earlier sandbox.
    StopSandbox { id: String },
    CreateSandbox { attempt: u32 },
    /// `message` is the `Killing` event's.
    Kill { id: String, name: String, message: String, why: KillReason },
    /// `after` is when the last instance ended, for the back-off.
    Start { name: String, attempt: u32, after: Option<Timestamp> },
    /// Gives running containers (ID and name) the resources the pod now asks for.
    Resize { containers: Vec<(String, String)> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillReason {
    Liveness,
    Startup,
    /// Its definition changed (a new image).
    Changed,
    /// Nothing else is left to do in the pod.
    PodDone,
}

/// A container that waits, with its status' words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackedOff {
    pub name: String,
    /// `back-off 10s restarting failed container=c pod=p_n(u)`.
    pub message: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub actions: Vec<Action>,
    pub backed_off: Vec<BackedOff>,
    /// When to look again though nothing happened.
    pub wake_at: Option<Timestamp>,
}

impl Plan {
    /// The containers that are ended only to be started again at once.
    pub fn replaced(&self) -> Vec<String> {
        let changed = |action: &Action| if let Action::Kill { name, why: KillReason::Changed, .. } = action { Some(name.clone()) } else { None };
        self.actions.iter().filter_map(changed).collect()
    }

    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |old| old.min(at)));
    }
}

/// `Always`, `OnFailure` or `Never` for this container.
fn policy<'a>(pod: &'a Pod, container: &'a Container, sort: Sort) -> &'a str {
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always");
    match (sort, container.restart_policy.as_deref()) {
        (Sort::Ephemeral, _) => "Never",
        (Sort::Sidecar, _) => "Always",
        (_, Some(own)) => own,
        // An init container that succeeded is done, whatever the policy.
        (Sort::Init, None) if of_pod == "Always" => "OnFailure",
        (_, None) => of_pod,
    }
}

fn rules_restart(container: &Container, exit_code: i32) -> bool {
    container.restart_policy_rules.iter().flatten().any(|rule| {
        rule.action == "Restart"
            && rule.exit_codes.as_ref().is_some_and(|codes| {
                let listed = codes.values.iter().flatten().any(|value| *value == exit_code);
                match codes.operator.as_str() {
                    "In" => listed,
                    "NotIn" => !listed,
                    _ => false,
                }
            })
    })
}

/// Whether a container in this state is to be started (again).
pub fn should_start(pod: &Pod, container: &Container, sort: Sort, status: Option<&ContainerStatus>) -> bool {
    if pod::is_terminating(pod) {
        return false;
    }
    let Some(status) = status else { return true };
    match status.state {
        ContainerState::Running => false,
        ContainerState::Created | ContainerState::Unknown => true,
        ContainerState::Exited => {
            rules_restart(container, status.exit_code)
                || match policy(pod, container, sort) {
                    "Never" => false,
                    "OnFailure" => status.exit_code != 0,
                    _ => true,
                }
        }
    }
}

pub fn sync(view: &View) -> Plan {
    let mut plan = Plan::default();
    let Some(_) = view.runtime.sandbox() else {
        sandbox_plan(view, &mut plan);
        return plan;
    };
    for ephemeral in pod::ephemeral_containers(view.pod) {
        if view.runtime.latest(&ephemeral.name).is_none() {
            start(view, &mut plan, &pod::as_container(ephemeral), None);
        }
    }
    match init_plan(view, &mut plan) {
        Init::Running => {}
        Init::Failed => kill_rest(view, &mut plan),
        Init::Done => main_plan(view, &mut plan),
    }
    resize_plan(view, &mut plan);
    plan
}

/// Once nothing else is to be done.
fn resize_plan(view: &View, plan: &mut Plan) {
    if !plan.actions.is_empty() || view.resize_waits {
        return;
    }
    let containers: Vec<_> = resize::differing(view.pod, view.runtime).map(|c| (c.id.clone(), c.metadata.name.clone())).collect();
    if containers.is_empty() {
        return;
    }
    match view.retry_at.get(resize::RETRY_KEY).filter(|at| **at > view.now) {
        Some(at) => plan.wake(*at),
        None => plan.actions.push(Action::Resize { containers }),
    }
}

fn sandbox_plan(view: &View, plan: &mut Plan) {
    let newest = view.runtime.sandboxes.first();
    let wanted = pod::containers(view.pod).iter().any(|c| should_start(view.pod, c, Sort::Main, dead(view.runtime.latest(&c.name)).as_ref()));
    let init_failed = newest.is_some()
        && pod::init_containers(view.pod).iter().any(|c| {
            !pod::is_sidecar(c)
                && dead(view.runtime.latest(&c.name)).is_some_and(|s| s.exit_code != 0 && !should_start(view.pod, c, Sort::Init, Some(&s)))
        });
    if !wanted || init_failed {
        return;
    }
    if let Some(at) = view.retry_at.get("").filter(|at| **at > view.now) {
        plan.wake(*at);
        return;
    }
    if let Some(old) = newest {
        plan.actions.push(Action::StopSandbox { id: old.id.clone() });
    }
    plan.actions.push(Action::CreateSandbox { attempt: newest.map_or(0, |s| s.metadata.attempt + 1) });
}

/// A container without its sandbox has ended, whatever it last said.
fn dead(status: Option<&ContainerStatus>) -> Option<ContainerStatus> {
    status.map(|status| match status.state {
        ContainerState::Running => ContainerStatus { state: ContainerState::Exited, exit_code: 137, ..status.clone() },
        _ => status.clone(),
    })
}

enum Init {
    Running,
    Failed,
    Done,
}

fn init_plan(view: &View, plan: &mut Plan) -> Init {
    let init = pod::init_containers(view.pod);
    let initialized = pod::containers(view.pod).iter().any(|c| view.runtime.current(&c.name).is_some());
    for (index, container) in init.iter().enumerate() {
        let sort = if pod::is_sidecar(container) { Sort::Sidecar } else { Sort::Init };
        if initialized && sort == Sort::Init {
            continue;
        }
        let later_began = initialized || init[index + 1..].iter().any(|c| view.runtime.current(&c.name).is_some());
        let status = view.runtime.current(&container.name);
        match (sort, status) {
            (_, Some(status)) if status.state == ContainerState::Running => {
                if sort == Sort::Init {
                    return Init::Running;
                }
                if let Some(kill) = condemned(view, container, sort, status) {
                    end(plan, kill, status);
                }
                let started = container.startup_probe.is_none() || view.probes.of(&status.id).startup == Some(true);
                if !started && !later_began {
                    return Init::Running;
                }
            }
            (Sort::Init, Some(status)) if status.state == ContainerState::Exited && status.exit_code == 0 => {}
            (Sort::Init, Some(status)) if !should_start(view.pod, container, sort, Some(status)) => return Init::Failed,
            (Sort::Init, _) if later_began => {}
            (_, status) => {
                start(view, plan, container, status);
                if !later_began {
                    return Init::Running;
                }
            }
        }
    }
    Init::Done
}

fn main_plan(view: &View, plan: &mut Plan) {
    let mut alive = false;
    for container in pod::containers(view.pod) {
        let status = view.runtime.latest(&container.name);
        match status {
            Some(status) if status.state == ContainerState::Running => {
                if let Some(kill) = condemned(view, container, Sort::Main, status) {
                    alive |= should_start(view.pod, container, Sort::Main, Some(&ContainerStatus { state: ContainerState::Exited, exit_code: 137, ..status.clone() }));
                    alive |= matches!(kill, Action::Kill { why: KillReason::Changed, .. });
                    end(plan, kill, status);
                } else {
                    alive = true;
                }
            }
            status if should_start(view.pod, container, Sort::Main, status) => {
                alive = true;
                start(view, plan, container, status);
            }
            _ => {}
        }
    }
    if !alive {
        kill_rest(view, plan);
    }
}

/// The pod is done: its sidecars and ephemeral containers end too.
fn kill_rest(view: &View, plan: &mut Plan) {
    plan.actions.retain(|action| !matches!(action, Action::Start { .. }));
    let already: Vec<String> = plan.actions.iter().filter_map(|a| if let Action::Kill { id, .. } = a { Some(id.clone()) } else { None }).collect();
    for status in view.runtime.running().filter(|s| !already.contains(&s.id)) {
        plan.actions.push(Action::Kill {
            id: status.id.clone(),
            name: status.metadata.name.clone(),
            message: format!("Stopping container {}", status.metadata.name),
            why: KillReason::PodDone,
        });
    }
}

fn condemned(view: &View, container: &Container, sort: Sort, status: &ContainerStatus) -> Option<Action> {
    let verdicts = view.probes.of(&status.id);
    let resized = resize::difference(view.pod, container, sort, status);
    if !view.resize_waits && resized.any() && resize::wants_restart(container, resized) {
        let message = format!("Container {} resize requires restart", container.name);
        return Some(Action::Kill { id: status.id.clone(), name: container.name.clone(), message, why: KillReason::Changed });
    }
    let (why, text) = if container.image.as_deref().is_some_and(|image| image != status.image) && !status.image.is_empty() {
        (KillReason::Changed, format!("Container {} definition changed", container.name))
    } else if verdicts.liveness == Some(false) {
        (KillReason::Liveness, format!("Container {} failed liveness probe", container.name))
    } else if verdicts.startup == Some(false) {
        (KillReason::Startup, format!("Container {} failed startup probe", container.name))
    } else {
        return None;
    };
    let ended = ContainerStatus { state: ContainerState::Exited, exit_code: 137, ..status.clone() };
    let again = why == KillReason::Changed || should_start(view.pod, container, sort, Some(&ended));
    let message = if again { format!("{text}, will be restarted") } else { text };
    Some(Action::Kill { id: status.id.clone(), name: container.name.clone(), message, why })
}

/// What was changed is replaced in one go, whatever the restart policy and without a back-off; others are looked at again once they have ended.
fn end(plan: &mut Plan, kill: Action, status: &ContainerStatus) {
    let changed = matches!(kill, Action::Kill { why: KillReason::Changed, .. });
    plan.actions.push(kill);
    if changed {
        plan.actions.push(Action::Start { name: status.metadata.name.clone(), attempt: status.metadata.attempt + 1, after: None });
    }
}

fn start(view: &View, plan: &mut Plan, container: &Container, status: Option<&ContainerStatus>) {
    // The newest of any sandbox counts restarts; only the living sandbox's own end delays.
    let newest = view.runtime.latest(&container.name);
    let ended = status.filter(|s| matches!(s.state, ContainerState::Exited | ContainerState::Created)).map(|s| pod::timestamp(s.finished_at.max(s.created_at)));
    if let Some(at) = view.retry_at.get(&container.name).filter(|at| **at > view.now) {
        plan.wake(*at);
        return;
    }
    if let Some(ended) = ended
        && let Some(waiting) = view.backoff.waiting(&container.name, ended, view.now)
    {
        plan.wake(waiting.until);
        plan.backed_off.push(BackedOff {
            name: container.name.clone(),
            message: format!("back-off {} restarting failed container={} pod={}", go_duration(waiting.delay), container.name, pod::full(view.pod)),
        });
        return;
    }
    plan.actions.push(Action::Start { name: container.name.clone(), attempt: newest.map_or(0, |s| s.metadata.attempt + 1), after: ended });
}
