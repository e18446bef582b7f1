//! In-place resize: what the cgroups of running containers should be, when the pod's spec says other than they are (KEP-1287).
//!
//! Pure, but for [`carry_out`]. Mirrors upstream's `computePodResizeAction` and allocation manager: what fits beside the other pods is done at once, what
//! does not fit yet is `Deferred` until one of them changes, what never will is `Infeasible`. Taking a limit away is not a resize upstream either.

use api::k8s::api::core::v1::{Container, ContainerStatus as ApiStatus, Pod, PodCondition, PodStatus, ResourceRequirements};
use jiff::Timestamp;
use sandbox::cri::{ContainerStatus, LinuxResources};

use crate::cx::Cx;
use crate::pod::{self, Sort};
use crate::view::PodRuntime;
use crate::{quantity, resources};

pub const PENDING: &str = "PodResizePending";
pub const IN_PROGRESS: &str = "PodResizeInProgress";

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Difference {
    pub cpu: bool,
    pub memory: bool,
}

impl Difference {
    pub fn any(self) -> bool {
        self.cpu || self.memory
    }
}

/// Between what the container should have and what the runtime gave it.
pub fn difference(pod: &Pod, container: &Container, sort: Sort, found: &ContainerStatus) -> Difference {
    if found.resources.cpu_shares.is_none() {
        // A runtime that does not tell.
        return Difference::default();
    }
    let wanted = resources::of_container(pod, container, sort, 0);
    let moved = |wanted: Option<i64>, found: Option<i64>| wanted.is_some() && wanted != found;
    Difference {
        cpu: wanted.cpu_shares != found.resources.cpu_shares || moved(wanted.cpu_quota_us, found.resources.cpu_quota_us),
        memory: moved(wanted.memory_limit_bytes, found.resources.memory_limit_bytes),
    }
}

/// Whether one of the changed resources asks for a restart.
pub fn wants_restart(container: &Container, difference: Difference) -> bool {
    container.resize_policy.iter().flatten().any(|policy| {
        policy.restart_policy == "RestartContainer" && ((policy.resource_name == "cpu" && difference.cpu) || (policy.resource_name == "memory" && difference.memory))
    })
}

/// cpu and memory in thousandths, all containers that stay together.
pub type Asked = [i64; 2];
const COUNTED: [(&str, i64); 2] = [("cpu", 1), ("memory", 1000)];

fn lasting(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod::containers(pod).iter().chain(pod::init_containers(pod).iter().filter(|c| pod::is_sidecar(c)))
}

fn of_container(container: &Container, name: &str) -> i64 {
    let of = |resources: &ResourceRequirements| quantity::milli_of(resources.requests.as_ref(), name).or_else(|| quantity::milli_of(resources.limits.as_ref(), name));
    container.resources.as_ref().and_then(of).unwrap_or(0)
}

fn statuses(status: &PodStatus) -> impl Iterator<Item = &ApiStatus> {
    [&status.init_container_statuses, &status.container_statuses].into_iter().flatten().flatten()
}

fn allocated<'a>(status: &'a PodStatus, container: &Container) -> Option<&'a quantity::List> {
    statuses(status).find(|s| s.name == container.name && s.state.as_ref().is_some_and(|state| state.running.is_some()))?.allocated_resources.as_ref()
}

/// Whether the pod asks for other than it was granted.
pub fn wanted(pod: &Pod, status: &PodStatus) -> bool {
    let differs = |container: &Container, list: &quantity::List| COUNTED.iter().any(|(name, _)| quantity::milli_of(Some(list), name).unwrap_or(0) != of_container(container, name));
    lasting(pod).any(|container| allocated(status, container).is_some_and(|list| differs(container, list)))
}

/// What the node keeps for the pod: what it asks for, or what it was granted while a resize waits.
pub fn kept(pod: &Pod, status: &PodStatus) -> Asked {
    let waits = status.conditions.iter().flatten().any(|c| c.type_ == PENDING);
    COUNTED.map(|(name, _)| {
        let of = |container: &Container| allocated(status, container).filter(|_| waits).map_or_else(|| of_container(container, name), |list| quantity::milli_of(Some(list), name).unwrap_or(0));
        lasting(pod).map(of).fold(0, i64::saturating_add)
    })
}

/// Resource, what the pod asks for, what others use, what the node has: cpu in thousandths, memory in bytes, as upstream counts them.
pub fn shortage(pod: &Pod, used: Asked, allocatable: &quantity::List) -> Option<(&'static str, i64, i64, i64)> {
    COUNTED.into_iter().zip(used).find_map(|((name, unit), used)| {
        let asked = lasting(pod).map(|c| of_container(c, name)).fold(0i64, i64::saturating_add);
        let capacity = quantity::milli_of(Some(allocatable), name)?;
        (asked.saturating_add(used) > capacity).then_some((name, asked / unit, used / unit, capacity / unit))
    })
}

/// Why the pod does not get what it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pending {
    /// Never on this node.
    Infeasible(String),
    /// Until others leave room.
    Deferred(String),
}

/// `used` is what the node keeps for others.
pub fn pending(pod: &Pod, status: &PodStatus, allocatable: &quantity::List, used: impl FnOnce() -> Asked) -> Option<Pending> {
    if let Some((name, asked, _, capacity)) = shortage(pod, Asked::default(), allocatable) {
        return Some(Pending::Infeasible(format!("Node didn't have enough capacity: {name}, requested: {asked}, capacity: {capacity}")));
    }
    if !wanted(pod, status) {
        return None;
    }
    let (name, asked, used, capacity) = shortage(pod, used(), allocatable)?;
    Some(Pending::Deferred(format!("Node didn't have enough resource: {name}, requested: {asked}, used: {used}, capacity: {capacity}")))
}

/// Some container that runs has other than what the pod asks for.
pub fn under_way(pod: &Pod, runtime: &PodRuntime) -> bool {
    differing(pod, runtime).next().is_some()
}

/// The running containers that are to be changed.
pub fn differing<'a>(pod: &'a Pod, runtime: &'a PodRuntime) -> impl Iterator<Item = &'a ContainerStatus> {
    let differs = |c: &&ContainerStatus| pod::container(pod, &c.metadata.name).is_some_and(|(sort, container)| sort != Sort::Ephemeral && difference(pod, &container, sort, c).any());
    runtime.running().filter(differs)
}

fn condition(pod: &Pod, name: &str, old: Option<&PodCondition>, now: Timestamp) -> PodCondition {
    PodCondition {
        type_: name.to_owned(),
        status: "True".to_owned(),
        last_transition_time: old.and_then(|old| old.last_transition_time.clone()).or_else(|| Some(pod::time(now))),
        observed_generation: pod.metadata.generation,
        ..PodCondition::default()
    }
}

/// The condition that tells of a resize that cannot be, never or not yet.
pub fn waits(pod: &Pod, why: &Pending, old: Option<&PodCondition>, now: Timestamp) -> PodCondition {
    let (reason, message) = match why {
        Pending::Infeasible(message) => ("Infeasible", message),
        Pending::Deferred(message) => ("Deferred", message),
    };
    PodCondition { reason: Some(reason.to_owned()), message: Some(message.clone()), ..condition(pod, PENDING, old, now) }
}

/// The condition that tells of one that is not done yet.
pub fn in_progress(pod: &Pod, old: Option<&PodCondition>, now: Timestamp) -> PodCondition {
    condition(pod, IN_PROGRESS, old, now)
}

/// No limit; only the containers' own hold while they are being changed.
fn unlimited() -> LinuxResources {
    LinuxResources { cpu_quota_us: Some(-1), memory_limit_bytes: Some(-1), ..LinuxResources::default() }
}

/// The pod's cgroup gives way, then its containers are changed, then it is closed around them: neither may be narrower than what is in it.
pub async fn carry_out(cx: &Cx, containers: &[(String, String)]) {
    let Some(sandbox) = cx.shared.lock().runtime.sandbox().map(|sandbox| sandbox.id.clone()) else { return };
    let runtime = &cx.node.runtime;
    let memory_bytes = i64::try_from(cx.node.machine.memory_bytes).unwrap_or(i64::MAX);
    let mut failed = runtime.update_pod_sandbox_resources(&sandbox, unlimited()).await.err();
    for (id, name) in containers {
        let Some((sort, container)) = pod::container(&cx.pod, name) else { continue };
        if let Err(error) = runtime.update_container_resources(id, resources::of_container(&cx.pod, &container, sort, memory_bytes)).await {
            failed = Some(error);
        }
    }
    let own = resources::of_pod(&cx.pod);
    let whole = LinuxResources { cpu_quota_us: own.cpu_quota_us.or(Some(-1)), memory_limit_bytes: own.memory_limit_bytes.or(Some(-1)), ..own };
    if let Some(error) = runtime.update_pod_sandbox_resources(&sandbox, whole).await.err().or(failed) {
        cx.node.events.warning(&cx.about(None), "ResizeError", format!("error resizing pod: {error}"));
        if let Some(at) = cx.after_failure("resize") {
            cx.shared.lock().retry_at.insert(RETRY_KEY.to_owned(), at);
        }
    } else {
        cx.succeeded("resize");
        cx.shared.lock().retry_at.remove(RETRY_KEY);
    }
}

/// No container has such a name.
pub const RETRY_KEY: &str = "(resize)";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync_tests::container;
    use serde_json::json;

    fn pod(resources: serde_json::Value, policy: serde_json::Value) -> Pod {
        pod::from_json(json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources": resources, "resizePolicy": policy}]}}))
    }

    #[test]
    fn what_differs() {
        let before = pod(json!({"limits": {"cpu": "100m", "memory": "64Mi"}}), json!([]));
        let mut found = container("c", 0, 0, None);
        let of = |pod: &Pod, found: &ContainerStatus| difference(pod, &pod::containers(pod)[0], Sort::Main, found);
        assert!(!of(&before, &found).any(), "nothing is known");
        found.resources = resources::of_container(&before, &pod::containers(&before)[0], Sort::Main, 1 << 30);
        assert!(!of(&before, &found).any());
        let restart = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
        for (limits, cpu, memory, restarts) in [
            (json!({"cpu": "200m", "memory": "64Mi"}), true, false, false),
            (json!({"cpu": "100m", "memory": "32Mi"}), false, true, true),
            (json!({}), true, false, false),
        ] {
            let after = pod(json!({"limits": limits}), restart.clone());
            let found = of(&after, &found);
            assert_eq!((found, wants_restart(&pod::containers(&after)[0], found)), (Difference { cpu, memory }, restarts), "{limits}");
        }
    }

    #[test]
    fn under_way_until_all_is_as_asked() {
        let before = pod(json!({"requests": {"cpu": "100m"}}), json!([]));
        let mut found = container("c", 0, 0, None);
        found.resources = resources::of_container(&before, &pod::containers(&before)[0], Sort::Main, 1 << 30);
        let runtime = PodRuntime::new(vec![], vec![found]);
        assert!(!under_way(&before, &runtime));
        assert!(under_way(&pod(json!({"requests": {"cpu": "200m"}}), json!([])), &runtime));
    }

    #[test]
    fn too_much() {
        let allocatable: quantity::List = serde_json::from_value(json!({"cpu": "2", "memory": "1Gi"})).unwrap();
        let granted = |cpu: &str| -> PodStatus {
            serde_json::from_value(json!({"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}, "allocatedResources": {"cpu": cpu}}]})).unwrap()
        };
        let of = |cpu: &str, before: &str, used: Asked| pending(&pod(json!({"requests": {"cpu": cpu}}), json!([])), &granted(before), &allocatable, || used);
        assert_eq!(of("2", "1", [0, 0]), None);
        assert_eq!(of("3", "1", [0, 0]), Some(Pending::Infeasible("Node didn't have enough capacity: cpu, requested: 3000, capacity: 2000".into())));
        assert_eq!(of("2", "1", [500, 0]), Some(Pending::Deferred("Node didn't have enough resource: cpu, requested: 2000, used: 500, capacity: 2000".into())));
        assert_eq!(of("1500m", "1", [500, 0]), None);
        assert_eq!(of("1500m", "1.5", [9000, 0]), None, "it has that already");
        let waiting = PodStatus { conditions: Some(vec![condition(&pod(json!({}), json!([])), PENDING, None, Timestamp::UNIX_EPOCH)]), ..granted("1") };
        let spec = pod(json!({"requests": {"cpu": "2"}}), json!([]));
        assert_eq!((kept(&spec, &granted("1")), kept(&spec, &waiting)), ([2000, 0], [1000, 0]));
    }
}
