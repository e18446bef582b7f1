//! Warnings about pod specs that are valid but hardly meant: mirrors k8s.io/kubernetes/pkg/api/pod/warnings.go.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::json::{child, entry, list, map, number, text};
use crate::quantity::Quantity;
use crate::validation::go_quote;

const OLD_NODE_LABELS: [(&str, &str); 5] = [
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    ("failure-domain.beta.kubernetes.io/region", "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead"),
    ("failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"),
    ("beta.kubernetes.io/instance-type", "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"),
];
const OLD_ANNOTATIONS: [(&str, &str); 3] = [
    ("scheduler.alpha.kubernetes.io/critical-pod", "non-functional in v1.16+; use the \"priorityClassName\" field instead"),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
];
pub const OLD_VOLUMES: [(&str, &str); 9] = [
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// `holder` is a Pod or a template; `path` is that of its spec: `spec`, `spec.template.spec`.
pub fn pod_spec(path: &str, holder: &Value, warnings: &mut Vec<String>) {
    let Some(spec) = child(holder, "spec") else { return };
    let above = path.strip_suffix("spec").unwrap_or_default();
    for key in map(spec, "nodeSelector").into_iter().flatten().map(|(key, _)| key) {
        if let Some((_, message)) = OLD_NODE_LABELS.iter().find(|(old, _)| old == key) {
            warnings.push(format!("{path}.nodeSelector[{key}]: {message}"));
        }
    }
    for (index, constraint) in list(spec, "topologySpreadConstraints").iter().enumerate() {
        if child(constraint, "labelSelector").is_none() {
            warnings.push(format!("{path}.topologySpreadConstraints[{index}].labelSelector: a null labelSelector results in matching no pod"));
        }
    }
    for (key, message) in OLD_ANNOTATIONS {
        if entry(holder, "metadata.annotations", key).is_some() {
            warnings.push(format!("{above}metadata.annotations[{key}]: {message}"));
        }
    }
    for (index, volume) in list(spec, "volumes").iter().enumerate() {
        for (source, message) in OLD_VOLUMES.iter().filter(|(source, _)| child(volume, source).is_some()) {
            warnings.push(format!("{path}.volumes[{index}].{source}: {message}"));
        }
    }
    repeated(path, spec, "hostAliases", "ip", warnings);
    repeated(path, spec, "imagePullSecrets", "name", warnings);
    for (index, secret) in list(spec, "imagePullSecrets").iter().enumerate() {
        if text(secret, "name").is_empty() {
            warnings.push(format!("{path}.imagePullSecrets[{index}].name: invalid empty name \"\""));
        }
    }
    for lists in ["initContainers", "containers"] {
        for (index, container) in list(spec, lists).iter().enumerate() {
            fractions_and_hidden_variables(&format!("{path}.{lists}[{index}]"), container, warnings);
        }
    }
    ports(path, spec, warnings);
    if number(spec, "terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0) {
        warnings.push(format!("{path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"));
    }
}

fn repeated(path: &str, spec: &Value, list_name: &str, field: &str, warnings: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for (index, item) in list(spec, list_name).iter().enumerate() {
        let value = text(item, field);
        if !seen.insert(value) {
            warnings.push(format!("{path}.{list_name}[{index}].{field}: duplicate {field} {}", go_quote(value)));
        }
    }
}

fn fractions_and_hidden_variables(path: &str, container: &Value, warnings: &mut Vec<String>) {
    for kind in ["limits", "requests"] {
        for name in ["memory", "ephemeral-storage"] {
            let value = child(container, "resources").and_then(|resources| map(resources, kind)).and_then(|list| list.get(name)).and_then(|value| Quantity::from_json(value).ok());
            if let Some(value) = value.filter(|value| !value.is_integer()) {
                warnings.push(format!("{path}.resources.{kind}[{name}]: fractional byte value \"{value}\" is invalid, must be an integer"));
            }
        }
    }
    let mut seen = BTreeSet::new();
    for (index, variable) in list(container, "env").iter().enumerate() {
        let (name, value) = (text(variable, "name"), text(variable, "value"));
        let reference = format!("$({name})");
        let extends = child(variable, "valueFrom").is_none() && value != reference && value.contains(&reference);
        if !seen.insert(name) && !extends {
            warnings.push(format!("{path}.env[{index}]: hides previous definition of {}, which may be dropped when using apply", go_quote(name)));
        }
    }
}

fn ports(path: &str, spec: &Value, warnings: &mut Vec<String>) {
    let mut by_port: BTreeMap<(i64, &str), Vec<(String, &Value)>> = BTreeMap::new();
    let mut by_name: BTreeMap<&str, String> = BTreeMap::new();
    let mut name_warnings = Vec::new();
    for lists in ["initContainers", "containers"] {
        for (index, container) in list(spec, lists).iter().enumerate() {
            for (at, port) in list(container, "ports").iter().enumerate() {
                let here = format!("{path}.{lists}[{index}].ports[{at}]");
                let host = |port: &Value| (text(port, "hostIP").to_owned(), number(port, "hostPort").unwrap_or(0));
                let others = by_port.entry((number(port, "containerPort").unwrap_or(0), text(port, "protocol"))).or_default();
                for (there, other) in others.iter() {
                    let ((ip, host_port), (other_ip, other_port)) = (host(port), host(other));
                    if (&ip, host_port) == (&other_ip, other_port) {
                        warnings.push(format!("{here}: duplicate port definition with {there}"));
                    } else if host_port == 0 || other_port == 0 {
                        warnings.push(format!("{here}: overlapping port definition with {there}"));
                    } else if host_port == other_port && ip.is_empty() != other_ip.is_empty() {
                        warnings.push(format!("{here}: dangerously ambiguous port definition with {there}"));
                    }
                }
                others.push((here.clone(), port));
                let name = text(port, "name");
                if name.is_empty() {
                    continue;
                }
                match by_name.get(name) {
                    Some(there) => {
                        name_warnings.push(format!("{here}: duplicate port name {} with {there}, services and probes that select ports by name will use {there}", go_quote(name)));
                    }
                    None => {
                        by_name.insert(name, here);
                    }
                }
            }
        }
    }
    warnings.append(&mut name_warnings);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn warnings_of_a_careless_pod() {
        let pod = json!({"spec": {"nodeSelector": {"beta.kubernetes.io/os": "linux"}, "terminationGracePeriodSeconds": -5, "containers": [
            {"name": "a", "ports": [{"containerPort": 80, "protocol": "TCP", "name": "x"}, {"containerPort": 80, "protocol": "TCP", "name": "x"}],
             "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}, {"name": "A", "value": "x$(A)"}], "resources": {"limits": {"memory": "100m"}}}]}});
        let mut warnings = Vec::new();
        pod_spec("spec", &pod, &mut warnings);
        assert_eq!(
            warnings,
            [
                "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
                "spec.containers[0].resources.limits[memory]: fractional byte value \"100m\" is invalid, must be an integer",
                "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply",
                "spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]",
                "spec.containers[0].ports[1]: duplicate port name \"x\" with spec.containers[0].ports[0], services and probes that select ports by name will use spec.containers[0].ports[0]",
                "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
            ]
        );
    }
}
