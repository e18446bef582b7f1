//! Who has to go, and in what words: pure. Pods above their requests first, then by priority, then by how far above.
//!
//! Mirrors upstream's ranking functions, `evictionMessage` and the limits of local storage (`eviction/helpers.go`, `eviction_manager.go`).

use std::cmp::Reverse;
use std::collections::BTreeMap;

use api::k8s::api::core::v1::{Container, Pod, ResourceRequirements};
use api::quantity::Quantity;

use super::pressure::Observation;
use super::thresholds::{Signal, Threshold, shown};
use crate::pod;
use crate::shutdown::{CRITICAL_PRIORITY, priority};
use crate::static_pods::is_of_file;

/// What something takes of a disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Disk {
    pub bytes: i64,
    pub inodes: i64,
}

impl std::ops::Add for Disk {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { bytes: self.bytes.saturating_add(other.bytes), inodes: self.inodes.saturating_add(other.inodes) }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerUse {
    pub name: String,
    pub memory: i64,
    pub pids: i64,
    pub rootfs: Disk,
    pub logs: Disk,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodUse {
    pub containers: Vec<ContainerUse>,
    /// emptyDir volumes by name.
    pub volumes: BTreeMap<String, Disk>,
}

impl PodUse {
    fn memory(&self) -> i64 {
        self.containers.iter().map(|c| c.memory).fold(0, i64::saturating_add)
    }

    fn pids(&self) -> i64 {
        self.containers.iter().map(|c| c.pids).fold(0, i64::saturating_add)
    }

    /// What counts against the node's disk: all but volumes in memory.
    pub fn disk(&self, pod: &Pod) -> Disk {
        let of_containers = self.containers.iter().map(|c| c.rootfs + c.logs);
        let of_volumes = empty_dirs(pod).filter(|(_, in_memory, _)| !in_memory).filter_map(|(name, ..)| self.volumes.get(name).copied());
        of_containers.chain(of_volumes).fold(Disk::default(), std::ops::Add::add)
    }
}

/// Name, whether it is in memory, size limit.
fn empty_dirs(pod: &Pod) -> impl Iterator<Item = (&str, bool, Option<Quantity>)> {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).filter_map(|volume| {
        let source = volume.empty_dir.as_ref()?;
        let limit = source.size_limit.as_ref().and_then(|limit| Quantity::parse(&limit.0).ok());
        Some((volume.name.as_str(), source.medium.as_deref().is_some_and(|medium| medium != ""), limit))
    })
}

fn quantity(resources: Option<&ResourceRequirements>, limits: bool, name: &str) -> Option<Quantity> {
    let resources = resources?;
    let list = if limits { resources.limits.as_ref() } else { resources.requests.as_ref() };
    list?.get(name).and_then(|quantity| Quantity::parse(&quantity.0).ok())
}

/// Of all that runs at the same time, or the largest of what runs before.
fn of_pod(pod: &Pod, limits: bool, name: &str) -> Option<Quantity> {
    let of = |container: &Container| quantity(container.resources.as_ref(), limits, name);
    let sidecars = pod::init_containers(pod).iter().filter(|c| pod::is_sidecar(c));
    let lasting = pod::containers(pod).iter().chain(sidecars).filter_map(of).reduce(|a, b| a.plus(&b));
    let before = pod::init_containers(pod).iter().filter(|c| !pod::is_sidecar(c)).filter_map(of).max();
    lasting.max(before)
}

fn requested(pod: &Pod, name: &str) -> i64 {
    of_pod(pod, false, name).map_or(0, |quantity| quantity.value())
}

pub struct Candidate<T> {
    pub pod: std::sync::Arc<Pod>,
    /// `None`: it could not be measured.
    pub used: Option<PodUse>,
    pub what: T,
}

/// The first has to go first.
pub fn rank<T>(signal: Signal, candidates: &mut [Candidate<T>]) {
    let resource = signal.resource();
    if resource == "pids" {
        candidates.sort_by_key(|c| (priority(&c.pod), Reverse(c.used.as_ref().map_or(i64::MAX, PodUse::pids))));
        return;
    }
    let used = |c: &Candidate<T>| {
        c.used.as_ref().map(|used| match resource {
            "memory" => used.memory(),
            "inodes" => used.disk(&c.pod).inodes,
            _ => used.disk(&c.pod).bytes,
        })
    };
    candidates.sort_by_key(|c| {
        let request = requested(&c.pod, resource);
        // Upstream sets inodes against the request of bytes here; nothing is requested of inodes.
        let above = used(c).map_or(i64::MAX, |used| used.saturating_sub(request));
        (c.used.is_some(), above <= 0, priority(&c.pod), Reverse(above))
    });
}

/// Never evicted: static pods, and what the cluster cannot do without.
pub fn is_critical(pod: &Pod) -> bool {
    is_of_file(pod) || priority(pod) >= CRITICAL_PRIORITY
}

/// Of the pod's status and event.
pub fn message<T>(resource: &str, candidate: &Candidate<T>, met: Option<(&Threshold, Observation)>) -> String {
    let mut text = format!("The node was low on resource: {resource}. ");
    if let Some((threshold, observed)) = met {
        text += &format!("Threshold quantity: {}, available: {}. ", shown(resource, threshold.value.of(observed.capacity)), shown(resource, observed.available));
    }
    let Some(used) = &candidate.used else { return text };
    for container in &used.containers {
        let used = match resource {
            "memory" => container.memory,
            "ephemeral-storage" => (container.rootfs + container.logs).bytes,
            _ => continue,
        };
        let Some((_, definition)) = pod::container(&candidate.pod, &container.name) else { continue };
        let request = quantity(definition.resources.as_ref(), false, resource).unwrap_or(Quantity::ZERO);
        if used > request.value() {
            text += &format!("Container {} was using {}, request is {request}, has larger consumption of {resource}. ", container.name, shown(resource, used));
        }
    }
    text
}

/// Whether there is anything to be above of.
pub fn has_limits(pod: &Pod) -> bool {
    empty_dirs(pod).any(|(_, _, limit)| limit.is_some()) || of_pod(pod, true, "ephemeral-storage").is_some()
}

/// Why the pod has to go though the node is well: it takes more of the disk than it may.
pub fn over_limits(pod: &Pod, used: &PodUse) -> Option<String> {
    for (name, _, limit) in empty_dirs(pod) {
        if let (Some(limit), Some(used)) = (limit.filter(|limit| limit.sign() > 0), used.volumes.get(name))
            && used.bytes > limit.value()
        {
            return Some(format!("Usage of EmptyDir volume {name:?} exceeds the limit {:?}. ", limit.to_string()));
        }
    }
    if let Some(limit) = of_pod(pod, true, "ephemeral-storage").filter(|limit| used.disk(pod).bytes > limit.value()) {
        return Some(format!("Pod ephemeral local storage usage exceeds the total limit of containers {limit}. "));
    }
    for container in pod::containers(pod) {
        let limit = quantity(container.resources.as_ref(), true, "ephemeral-storage").filter(|limit| !limit.is_zero());
        let used = used.containers.iter().find(|used| used.name == container.name).map(|used| (used.rootfs + used.logs).bytes);
        if let (Some(limit), Some(used)) = (limit, used)
            && used > limit.value()
        {
            return Some(format!("Container {} exceeded its local ephemeral storage limit {:?}. ", container.name, limit.to_string()));
        }
    }
    None
}

/// Whether a pod may come while the node says these conditions; the words if not.
pub fn refusal(pod: &Pod, conditions: &[&str]) -> Option<String> {
    if conditions.is_empty() || is_critical(pod) {
        return None;
    }
    if conditions == ["MemoryPressure"] && (pod::qos_class(pod) != "BestEffort" || tolerates_memory_pressure(pod)) {
        return None;
    }
    Some(format!("The node had condition: [{}]. ", conditions.join(" ")))
}

fn tolerates_memory_pressure(pod: &Pod) -> bool {
    pod.spec.iter().flat_map(|spec| spec.tolerations.iter().flatten()).any(|toleration| {
        let (key, exists) = (toleration.key.as_deref().unwrap_or_default(), toleration.operator.as_deref() == Some("Exists"));
        let effect = toleration.effect.as_deref().unwrap_or_default();
        (effect.is_empty() || effect == "NoSchedule")
            && ((key.is_empty() && exists) || (key == "node.kubernetes.io/memory-pressure" && (exists || toleration.value.as_deref().unwrap_or_default().is_empty())))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::SignedDuration;
    use serde_json::{Value, json};

    use super::super::thresholds::Amount;
    use super::*;

    fn pod(spec: Value) -> Pod {
        pod::from_json(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec}))
    }

    fn candidate(name: &'static str, priority: i32, request: &str, used: Option<PodUse>) -> Candidate<&'static str> {
        Candidate { pod: Arc::new(pod(json!({"priority": priority, "containers": [{"name": "c", "resources": {"requests": {"memory": request, "ephemeral-storage": request}}}]}))), used, what: name }
    }

    fn uses(memory: i64, rootfs: i64, logs: i64) -> PodUse {
        let disk = |bytes| Disk { bytes, inodes: bytes / 10 };
        PodUse { containers: vec![ContainerUse { name: "c".into(), memory, pids: memory / 10, rootfs: disk(rootfs), logs: disk(logs) }], ..PodUse::default() }
    }

    #[test]
    fn who_goes_first() {
        let order = |signal| {
            let mut all = [
                candidate("within", 0, "1000", Some(uses(900, 100, 100))),
                candidate("above", 0, "100", Some(uses(200, 300, 300))),
                candidate("far above", 0, "100", Some(uses(500, 150, 0))),
                candidate("important", 100, "0", Some(uses(5000, 5000, 0))),
                candidate("unknown", 0, "0", None),
            ];
            rank(signal, &mut all);
            all.map(|c| c.what)
        };
        assert_eq!(order(Signal::MemoryAvailable), ["unknown", "far above", "above", "important", "within"]);
        assert_eq!(order(Signal::NodefsAvailable), ["unknown", "above", "far above", "important", "within"]);
        assert_eq!(order(Signal::PidAvailable), ["unknown", "within", "far above", "above", "important"]);
    }

    #[test]
    fn words() {
        let threshold = Threshold { signal: Signal::NodefsAvailable, value: Amount::Share(0.1), grace: SignedDuration::ZERO, minimum_reclaim: None };
        let text = message("ephemeral-storage", &candidate("x", 0, "1Ki", Some(uses(0, 1 << 20, 1 << 20))), Some((&threshold, Observation { available: 4 << 10, capacity: 100 << 20 })));
        assert_eq!(text, "The node was low on resource: ephemeral-storage. Threshold quantity: 10Mi, available: 4Ki. Container c was using 2Mi, request is 1Ki, has larger consumption of ephemeral-storage. ");
        assert_eq!(message("memory", &candidate("x", 0, "1Mi", Some(uses(1, 0, 0))), None), "The node was low on resource: memory. ");
    }

    #[test]
    fn limits_of_local_storage() {
        let limited = pod(json!({"containers": [{"name": "c", "resources": {"limits": {"ephemeral-storage": "1Mi"}}}, {"name": "d", "resources": {"limits": {"ephemeral-storage": "3Mi"}}}],
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}, {"name": "m", "emptyDir": {"medium": "Memory"}}]}));
        assert!(has_limits(&limited) && !has_limits(&pod(json!({"containers": [{"name": "c"}], "volumes": [{"name": "v", "emptyDir": {}}]}))));
        let volume = |bytes: i64| PodUse { volumes: BTreeMap::from([("v".to_owned(), Disk { bytes, inodes: 1 })]), ..uses(0, 0, 0) };
        for (used, message) in [
            (volume(1 << 20), None),
            (volume((1 << 20) + 1), Some("Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ")),
            (uses(0, 1 << 20, 1), Some("Container c exceeded its local ephemeral storage limit \"1Mi\". ")),
            (uses(0, 5 << 20, 0), Some("Pod ephemeral local storage usage exceeds the total limit of containers 4Mi. ")),
        ] {
            assert_eq!(over_limits(&limited, &used).as_deref(), message);
        }
    }

    #[test]
    fn who_may_come() {
        let best_effort = pod(json!({"containers": [{"name": "c"}]}));
        let burstable = pod(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1m"}}}]}));
        let tolerant = pod(json!({"containers": [{"name": "c"}], "tolerations": [{"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule"}]}));
        let critical = pod(json!({"priority": 2_000_000_000, "containers": [{"name": "c"}]}));
        for (pod, memory, disk) in [(best_effort, false, false), (burstable, true, false), (tolerant, true, false), (critical, true, true)] {
            assert_eq!((refusal(&pod, &["MemoryPressure"]).is_none(), refusal(&pod, &["DiskPressure"]).is_none(), refusal(&pod, &[]).is_none()), (memory, disk, true), "{pod:?}");
        }
        assert_eq!(refusal(&pod(json!({})), &["DiskPressure", "MemoryPressure"]).unwrap(), "The node had condition: [DiskPressure MemoryPressure]. ");
    }
}
