//! In-place resize: what the cgroups of running containers should be, when the pod's spec says other than they are (KEP-1287).
//!
//! Pure, but for [`carry_out`]. Mirrors upstream's `computePodResizeAction` and allocation manager: what fits the node is done at once, what never
//! will is `Infeasible`. Taking a limit away is not a resize upstream either.

use api::k8s::api::core::v1::{Container, Pod, PodCondition};
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

/// Resource, what the pod asks for, what the node has: cpu in thousandths, memory in bytes, as upstream counts them.
pub fn shortage(pod: &Pod, allocatable: &quantity::List) -> Option<(&'static str, i64, i64)> {
    let stays = pod::containers(pod).iter().chain(pod::init_containers(pod).iter().filter(|c| pod::is_sidecar(c)));
    [("cpu", 1), ("memory", 1000)].into_iter().find_map(|(name, unit)| {
        let request = |c: &Container| {
            let resources = c.resources.as_ref()?;
            quantity::milli_of(resources.requests.as_ref(), name).or_else(|| quantity::milli_of(resources.limits.as_ref(), name))
        };
        let asked = stays.clone().filter_map(request).fold(0i64, i64::saturating_add);
        let capacity = quantity::milli_of(Some(allocatable), name)?;
        (asked > capacity).then_some((name, asked / unit, capacity / unit))
    })
}

/// Why the pod can never have on this node what it asks for.
pub fn infeasible(pod: &Pod, allocatable: &quantity::List) -> Option<String> {
    shortage(pod, allocatable).map(|(name, asked, capacity)| format!("Node didn't have enough capacity: {name}, requested: {asked}, capacity: {capacity}"))
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

/// The condition that tells of a resize that cannot be.
pub fn pending(pod: &Pod, why: &str, old: Option<&PodCondition>, now: Timestamp) -> PodCondition {
    PodCondition { reason: Some("Infeasible".to_owned()), message: Some(why.to_owned()), ..condition(pod, PENDING, old, now) }
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
    fn too_much_for_the_node() {
        let allocatable: quantity::List = serde_json::from_value(json!({"cpu": "2", "memory": "1Gi"})).unwrap();
        assert_eq!(infeasible(&pod(json!({"requests": {"cpu": "2"}}), json!([])), &allocatable), None);
        assert_eq!(infeasible(&pod(json!({"requests": {"cpu": "3"}}), json!([])), &allocatable).as_deref(), Some("Node didn't have enough capacity: cpu, requested: 3000, capacity: 2000"));
    }
}
