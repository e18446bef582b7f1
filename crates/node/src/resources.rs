//! Requests and limits as cgroup values, and the cgroups pods live in.
//!
//! Mirrors upstream's kuberuntime (`calculateLinuxResources`), cm (`ResourceConfigForPod`, QoS cgroup tree) and qos policy (`oom_score_adj`).

use api::k8s::api::core::v1::{Container, Pod, ResourceRequirements};
use sandbox::cri::LinuxResources;

use crate::pod::{self, Sort};
use crate::quantity;

const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 262_144;
const SHARES_PER_CPU: i64 = 1024;
const MILLI_PER_CPU: i64 = 1000;
pub const QUOTA_PERIOD_US: u64 = 100_000;
const MIN_QUOTA_US: i64 = 1000;

const GUARANTEED_OOM_SCORE: i32 = -997;
const BEST_EFFORT_OOM_SCORE: i32 = 1000;
/// `system-node-critical`.
const CRITICAL_PRIORITY: i32 = 2_000_001_000;

pub fn shares(milli_cpu: i64) -> u64 {
    if milli_cpu <= 0 {
        return MIN_SHARES;
    }
    u64::try_from(milli_cpu.saturating_mul(SHARES_PER_CPU) / MILLI_PER_CPU).unwrap_or(MIN_SHARES).clamp(MIN_SHARES, MAX_SHARES)
}

/// `None`: unlimited.
pub fn quota(milli_cpu: i64) -> Option<i64> {
    (milli_cpu > 0).then(|| (milli_cpu.saturating_mul(QUOTA_PERIOD_US as i64) / MILLI_PER_CPU).max(MIN_QUOTA_US))
}

/// `kubepods[/burstable|/besteffort]/pod<uid>`.
pub fn cgroup_parent(pod: &Pod) -> String {
    let uid = pod::uid(pod);
    match pod::qos_class(pod) {
        "Guaranteed" => format!("kubepods/pod{uid}"),
        "Burstable" => format!("kubepods/burstable/pod{uid}"),
        _ => format!("kubepods/besteffort/pod{uid}"),
    }
}

fn limits(resources: Option<&ResourceRequirements>) -> Amounts {
    let of = |name: &str| {
        let limit = resources.and_then(|r| quantity::milli_of(r.limits.as_ref(), name));
        let request = resources.and_then(|r| quantity::milli_of(r.requests.as_ref(), name)).or(limit);
        (request.unwrap_or(0), limit)
    };
    let (cpu_request, cpu_limit) = of("cpu");
    let bytes = |milli: i64| milli / MILLI_PER_CPU;
    let (memory_request, memory_limit) = of("memory");
    Amounts { cpu_request, cpu_limit, memory_request: bytes(memory_request), memory_limit: memory_limit.map(bytes) }
}

#[derive(Default, Clone, Copy)]
struct Amounts {
    cpu_request: i64,
    cpu_limit: Option<i64>,
    memory_request: i64,
    memory_limit: Option<i64>,
}

/// The limits of the pod's own cgroup: the sum of its containers, or the largest of its init containers.
pub fn of_pod(pod: &Pod) -> LinuxResources {
    let of = |c: &Container| limits(c.resources.as_ref());
    let add = |a: Amounts, b: Amounts| Amounts {
        cpu_request: a.cpu_request + b.cpu_request,
        cpu_limit: a.cpu_limit.zip(b.cpu_limit).map(|(x, y)| x + y),
        memory_request: a.memory_request + b.memory_request,
        memory_limit: a.memory_limit.zip(b.memory_limit).map(|(x, y)| x + y),
    };
    let max = |a: Amounts, b: Amounts| Amounts {
        cpu_request: a.cpu_request.max(b.cpu_request),
        cpu_limit: a.cpu_limit.zip(b.cpu_limit).map(|(x, y)| x.max(y)),
        memory_request: a.memory_request.max(b.memory_request),
        memory_limit: a.memory_limit.zip(b.memory_limit).map(|(x, y)| x.max(y)),
    };
    let none = Amounts { cpu_limit: Some(0), memory_limit: Some(0), ..Amounts::default() };
    let mut total = pod::containers(pod).iter().map(of).fold(none, add);
    let mut sidecars = none;
    for container in pod::init_containers(pod) {
        if pod::is_sidecar(container) {
            sidecars = add(sidecars, of(container));
            total = add(total, of(container));
        } else {
            total = max(total, add(sidecars, of(container)));
        }
    }
    if let Some(own) = pod.spec.as_ref().and_then(|s| s.resources.as_ref()) {
        total = limits(Some(own));
    }
    let cpu_quota_us = total.cpu_limit.and_then(quota);
    LinuxResources {
        cpu_shares: Some(shares(total.cpu_request)),
        cpu_quota_us,
        cpu_period_us: cpu_quota_us.map(|_| QUOTA_PERIOD_US),
        memory_limit_bytes: total.memory_limit.filter(|l| *l > 0),
        ..LinuxResources::default()
    }
}

/// `node_memory` is the machine's capacity in bytes.
pub fn of_container(pod: &Pod, container: &Container, sort: Sort, node_memory: i64) -> LinuxResources {
    let amounts = limits(container.resources.as_ref());
    let cpu_quota_us = amounts.cpu_limit.and_then(quota);
    LinuxResources {
        cpu_shares: Some(shares(amounts.cpu_request)),
        cpu_quota_us,
        cpu_period_us: cpu_quota_us.map(|_| QUOTA_PERIOD_US),
        memory_limit_bytes: amounts.memory_limit.filter(|l| *l > 0),
        oom_score_adj: Some(oom_score(pod, sort, amounts.memory_request, node_memory)),
        ..LinuxResources::default()
    }
}

fn oom_score(pod: &Pod, sort: Sort, memory_request: i64, node_memory: i64) -> i32 {
    if pod::spec(pod).priority.is_some_and(|p| p >= CRITICAL_PRIORITY) {
        return GUARANTEED_OOM_SCORE;
    }
    match pod::qos_class(pod) {
        "Guaranteed" => GUARANTEED_OOM_SCORE,
        "BestEffort" => BEST_EFFORT_OOM_SCORE,
        _ => {
            let request = if sort == Sort::Sidecar {
                // A sidecar is never killed before the main containers it serves.
                let least = pod::containers(pod).iter().map(|c| limits(c.resources.as_ref()).memory_request).min().unwrap_or(0);
                memory_request.max(least)
            } else {
                memory_request
            };
            let share = 1000i128 * i128::from(request) / i128::from(node_memory.max(1));
            (1000 - i32::try_from(share).unwrap_or(1000)).clamp(1000 + GUARANTEED_OOM_SCORE, BEST_EFFORT_OOM_SCORE - 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(containers: serde_json::Value) -> Pod {
        pod::from_json(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"containers": containers}}))
    }

    #[test]
    fn numbers() {
        assert_eq!([shares(0), shares(1), shares(100), shares(1000)], [2, 2, 102, 1024]);
        assert_eq!([quota(0), quota(5), quota(500), quota(1500)], [None, Some(1000), Some(50_000), Some(150_000)]);
    }

    #[test]
    fn pods_and_containers() {
        let p = pod(json!([{"name": "c", "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "100m", "memory": "32Mi"}}}]));
        assert_eq!(cgroup_parent(&p), "kubepods/burstable/podu");
        let of = of_container(&p, &pod::containers(&p)[0], Sort::Main, 1 << 30);
        assert_eq!((of.cpu_shares, of.cpu_quota_us, of.memory_limit_bytes, of.oom_score_adj), (Some(102), Some(50_000), Some(64 << 20), Some(969)));
        assert_eq!(of_pod(&p).memory_limit_bytes, Some(64 << 20));
        let p = pod(json!([{"name": "c", "resources": {"limits": {"cpu": "1", "memory": "64Mi"}}}, {"name": "d"}]));
        assert_eq!((of_pod(&p).memory_limit_bytes, of_pod(&p).cpu_quota_us, of_pod(&p).cpu_shares), (None, None, Some(1024)));
        let p = pod(json!([{"name": "c"}]));
        assert_eq!(cgroup_parent(&p), "kubepods/besteffort/podu");
        assert_eq!(of_container(&p, &pod::containers(&p)[0], Sort::Main, 1 << 30).oom_score_adj, Some(1000));
    }
}
