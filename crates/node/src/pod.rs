//! Small facts about pods that everyone in the node needs: names, containers of every sort, classes of service.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use api::k8s::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};
use api::k8s::apimachinery::pkg::apis::meta::v1::Time;
use jiff::Timestamp;

use crate::quantity;

/// Seconds a pod gets to end when it does not say.
pub const DEFAULT_GRACE_SECONDS: i64 = 30;

/// The sort of a container, which decides when it runs and where its status goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sort {
    Init,
    /// An init container with `restartPolicy: Always`.
    Sidecar,
    Main,
    Ephemeral,
}

pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

/// `web_default(0c5f…)`: how upstream names a pod in messages.
pub fn full(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

/// The folder of a pod's logs below `/var/log/pods`.
pub fn log_folder(namespace: &str, name: &str, uid: &str) -> String {
    format!("{namespace}_{name}_{uid}")
}

/// Where the log of a container's n-th start lies.
pub fn log_file(log_dir: &Path, pod: &Pod, container: &str, attempt: i32) -> PathBuf {
    log_dir.join(log_folder(namespace(pod), name(pod), uid(pod))).join(container).join(format!("{attempt}.log"))
}

pub fn spec(pod: &Pod) -> Cow<'_, PodSpec> {
    match &pod.spec {
        Some(spec) => Cow::Borrowed(spec),
        None => Cow::Owned(PodSpec::default()),
    }
}

pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

pub fn host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true))
}

pub fn init_containers(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default()
}

pub fn containers(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default()
}

pub fn ephemeral_containers(pod: &Pod) -> &[EphemeralContainer] {
    pod.spec.as_ref().and_then(|spec| spec.ephemeral_containers.as_deref()).unwrap_or_default()
}

/// An ephemeral container has all fields of a container, and one more.
pub fn as_container(ephemeral: &EphemeralContainer) -> Container {
    serde_json::to_value(ephemeral)
        .and_then(serde_json::from_value)
        .unwrap_or_else(|_| Container { name: ephemeral.name.clone(), image: ephemeral.image.clone(), ..Container::default() })
}

/// The container of that name, of whatever sort.
pub fn container<'a>(pod: &'a Pod, name: &str) -> Option<(Sort, Cow<'a, Container>)> {
    if let Some(found) = init_containers(pod).iter().find(|c| c.name == name) {
        return Some((if is_sidecar(found) { Sort::Sidecar } else { Sort::Init }, Cow::Borrowed(found)));
    }
    if let Some(found) = containers(pod).iter().find(|c| c.name == name) {
        return Some((Sort::Main, Cow::Borrowed(found)));
    }
    ephemeral_containers(pod).iter().find(|c| c.name == name).map(|found| (Sort::Ephemeral, Cow::Owned(as_container(found))))
}

/// The container whose processes an ephemeral container is to see.
pub fn target_of<'a>(pod: &'a Pod, container: &str) -> Option<&'a str> {
    let ephemeral = ephemeral_containers(pod).iter().find(|ephemeral| ephemeral.name == container)?;
    ephemeral.target_container_name.as_deref().filter(|name| !name.is_empty())
}

/// `spec.containers{web}`: the field path of events about a container.
pub fn field_path(pod: &Pod, container: &str) -> String {
    let (list, name) = match self::container(pod, container) {
        Some((Sort::Init | Sort::Sidecar, _)) => ("initContainers", container),
        Some((Sort::Ephemeral, _)) => ("ephemeralContainers", container),
        _ => ("containers", container),
    };
    format!("spec.{list}{{{name}}}")
}

pub fn grace_seconds(pod: &Pod) -> i64 {
    pod.metadata
        .deletion_grace_period_seconds
        .or_else(|| pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds))
        .unwrap_or(DEFAULT_GRACE_SECONDS)
}

pub fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

pub fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// `Guaranteed`, `Burstable` or `BestEffort`, as upstream's `ComputePodQOS`.
pub fn qos_class(pod: &Pod) -> &'static str {
    const COUNTED: [&str; 2] = ["cpu", "memory"];
    let mut any = false;
    let mut guaranteed = true;
    let pod_level = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let each: Vec<_> = match pod_level {
        Some(resources) => vec![Some(resources)],
        None => init_containers(pod).iter().chain(containers(pod)).map(|c| c.resources.as_ref()).collect(),
    };
    for resources in each {
        for name in COUNTED {
            let limit = resources.and_then(|r| quantity::milli_of(r.limits.as_ref(), name)).unwrap_or(0);
            let request = resources.and_then(|r| quantity::milli_of(r.requests.as_ref(), name)).unwrap_or(limit);
            any |= limit != 0 || request != 0;
            guaranteed &= limit != 0 && request == limit;
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// `metav1.Time` has whole seconds.
pub fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// A runtime's nanoseconds since the epoch.
pub fn timestamp(nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
pub(crate) fn from_json(value: serde_json::Value) -> Pod {
    serde_json::from_value(value).expect("a pod")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn with(resources: serde_json::Value) -> Pod {
        from_json(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"containers": [{"name": "c", "resources": resources}]}}))
    }

    #[test]
    fn classes_of_service() {
        assert_eq!(qos_class(&with(json!({}))), "BestEffort");
        assert_eq!(qos_class(&with(json!({"requests": {"cpu": "1"}}))), "Burstable");
        assert_eq!(qos_class(&with(json!({"limits": {"cpu": "1", "memory": "1Gi"}}))), "Guaranteed");
        assert_eq!(qos_class(&with(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}))), "Burstable");
    }

    #[test]
    fn names() {
        let pod = from_json(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {
            "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}], "containers": [{"name": "c"}],
            "ephemeralContainers": [{"name": "e", "image": "x", "targetContainerName": "c"}]}}));
        assert_eq!(full(&pod), "p_n(u)");
        assert_eq!(field_path(&pod, "s"), "spec.initContainers{s}");
        assert_eq!(field_path(&pod, "e"), "spec.ephemeralContainers{e}");
        assert_eq!(container(&pod, "s").unwrap().0, Sort::Sidecar);
        assert_eq!(container(&pod, "e").unwrap().1.image.as_deref(), Some("x"));
        assert!(container(&pod, "z").is_none());
        assert_eq!((target_of(&pod, "e"), target_of(&pod, "c")), (Some("c"), None));
    }
}
