//! The downward API: what `fieldRef` and `resourceFieldRef` give, in variables and in files.
//!
//! Mirrors upstream's fieldpath and resource helpers.

use std::fmt::Write;

use api::k8s::api::core::v1::{Container, Pod, ResourceFieldSelector};
use api::k8s::apimachinery::pkg::api::resource::Quantity;

use crate::pod;
use crate::quantity;

/// What the node adds to what the pod says of itself.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub host_ip: String,
    pub pod_ips: Vec<String>,
    /// `status.allocatable` of the node, for limits that are not set.
    pub allocatable: quantity::List,
}

/// `key="value"` lines, sorted.
fn map_lines<'a>(map: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    let mut out = String::new();
    for (key, value) in map {
        if !out.is_empty() {
            out.push('\n');
        }
        let _ = write!(out, "{key}={value:?}");
    }
    out
}

/// `metadata.labels['x']` → (`metadata.labels`, `x`).
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

pub fn field(pod: &Pod, facts: &Facts, path: &str) -> Result<String, String> {
    let spec = pod::spec(pod);
    let meta = &pod.metadata;
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => meta.labels.as_ref(),
            "metadata.annotations" => meta.annotations.as_ref(),
            _ => return Err(format!("unsupported fieldPath: {path}")),
        };
        return Ok(map.and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => pod::name(pod).to_owned(),
        "metadata.namespace" => pod::namespace(pod).to_owned(),
        "metadata.uid" => pod::uid(pod).to_owned(),
        "metadata.labels" => map_lines(meta.labels.iter().flatten()),
        "metadata.annotations" => map_lines(meta.annotations.iter().flatten()),
        "spec.nodeName" => spec.node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => spec.service_account_name.clone().unwrap_or_default(),
        "spec.restartPolicy" => spec.restart_policy.clone().unwrap_or_default(),
        "status.hostIP" | "status.hostIPs" => facts.host_ip.clone(),
        "status.podIP" => facts.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => facts.pod_ips.join(","),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

pub fn resource(pod: &Pod, facts: &Facts, selector: &ResourceFieldSelector, own: Option<&Container>) -> Result<String, String> {
    let named = selector.container_name.as_deref().filter(|name| !name.is_empty());
    let other = named.and_then(|name| pod::container(pod, name)).map(|(_, c)| c);
    let container = match (named, &other) {
        (Some(name), None) => return Err(format!("container {name} not found")),
        (Some(_), Some(found)) => found.as_ref(),
        (None, _) => own.ok_or_else(|| "container not found".to_owned())?,
    };
    let divisor = selector.divisor.clone().filter(|d| quantity::value(d).is_some_and(|v| v > 0)).unwrap_or_else(|| Quantity("1".into()));
    let resources = container.resources.clone().unwrap_or_default();
    let (list, name) = selector.resource.split_once('.').ok_or_else(|| format!("unsupported container resource : {}", selector.resource))?;
    let found = match list {
        "limits" => resources.limits.as_ref().and_then(|l| l.get(name)).or_else(|| facts.allocatable.get(name)),
        "requests" => resources.requests.as_ref().and_then(|l| l.get(name)),
        _ => return Err(format!("unsupported container resource : {}", selector.resource)),
    };
    let zero = Quantity("0".into());
    quantity::divided(found.unwrap_or(&zero), &divisor).map(|v| v.to_string()).ok_or_else(|| format!("cannot divide {}", selector.resource))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_and_resources() {
        let pod = pod::from_json(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"a": "1", "b": "x\"y"}, "annotations": {"k": "v"}},
            "spec": {"nodeName": "node1", "containers": [{"name": "c", "resources": {"limits": {"cpu": "250m", "memory": "64Mi"}}}]}}));
        let facts = Facts { host_ip: "10.0.0.1".into(), pod_ips: vec!["10.244.0.2".into(), "fd00::2".into()], allocatable: [("cpu".to_owned(), Quantity("2".into()))].into() };
        for (path, expected) in [
            ("metadata.name", "p"),
            ("metadata.labels", "a=\"1\"\nb=\"x\\\"y\""),
            ("metadata.labels['a']", "1"),
            ("metadata.annotations['none']", ""),
            ("status.podIPs", "10.244.0.2,fd00::2"),
            ("status.hostIP", "10.0.0.1"),
        ] {
            assert_eq!(field(&pod, &facts, path).as_deref(), Ok(expected), "{path}");
        }
        assert!(field(&pod, &facts, "spec.x").is_err());
        let of = |resource: &str, divisor: Option<&str>| {
            let selector = ResourceFieldSelector { resource: resource.into(), divisor: divisor.map(|d| Quantity(d.into())), container_name: Some("c".into()) };
            super::resource(&pod, &facts, &selector, None)
        };
        assert_eq!(of("limits.cpu", None).as_deref(), Ok("1"));
        assert_eq!(of("limits.cpu", Some("1m")).as_deref(), Ok("250"));
        assert_eq!(of("limits.memory", Some("1Mi")).as_deref(), Ok("64"));
        assert_eq!(of("requests.memory", None).as_deref(), Ok("0"));
    }
}
