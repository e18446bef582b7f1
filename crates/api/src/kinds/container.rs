//! Validation of containers: names, ports, environment, mounts, resources, security context.
//! Mirrors validateContainerCommon and below in k8s.io/kubernetes/pkg/apis/core/validation.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::json::{child, flag, list, number, text};
use super::resources::{container_resource_name, resource_requirements};
use super::security::security_context;
use super::volume::{descending_path, path_without_backsteps};
use crate::names;
use crate::quantity::Quantity;
use crate::validation::{Errors, Path};

pub const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const LABEL_FIELDS: [&str; 2] = ["metadata.annotations", "metadata.labels"];
const ENV_FIELDS: [&str; 9] = [
    "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
];
/// What the downward API knows beyond what an environment variable may ask for.
const KNOWN_FIELDS: [&str; 5] = ["metadata.annotations", "metadata.labels", "spec.restartPolicy", "spec.schedulerName", "status.phase"];
const RESOURCE_FIELDS: [&str; 6] = ["limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory"];

/// What a container is judged against: the rest of its pod.
pub struct Pod<'a> {
    /// Valid volumes by name.
    pub volumes: BTreeMap<&'a str, &'a Value>,
    pub claims: BTreeSet<&'a str>,
    pub grace_seconds: Option<i64>,
    pub host_users: bool,
    pub restart_policy: &'a str,
    pub os: Option<&'a str>,
}

/// `ValidatePortNumOrName` on an int-or-string.
pub fn port_number_or_name(errors: &mut Errors, path: &Path, port: Option<&Value>) {
    match port {
        Some(Value::String(name)) => errors.name(path, name, names::port_name),
        port => {
            let port = port.and_then(Value::as_i64).unwrap_or(0);
            errors.invalid_each(path, &port, names::port_number(port));
        }
    }
}

/// Everything but lifecycle and probes, which depend on the sort of container.
pub fn common(errors: &mut Errors, path: &Path, container: &Value, pod: &Pod) {
    let name = text(container, "name");
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    } else {
        errors.name(&path.child("name"), name, names::dns_label);
    }
    if text(container, "image").is_empty() {
        errors.required(&path.child("image"), "");
    }
    match text(container, "terminationMessagePolicy") {
        "File" | "FallbackToLogsOnError" => {}
        "" => errors.required(&path.child("terminationMessagePolicy"), ""),
        other => errors.not_supported(&path.child("terminationMessagePolicy"), other, &["File", "FallbackToLogsOnError"]),
    }
    ports(errors, &path.child("ports"), list(container, "ports"));
    environment(errors, &path.child("env"), list(container, "env"));
    environment_from(errors, &path.child("envFrom"), list(container, "envFrom"));
    mounts(errors, &path.child("volumeMounts"), container, pod);
    devices(errors, &path.child("volumeDevices"), container, pod);
    match text(container, "imagePullPolicy") {
        "Always" | "IfNotPresent" | "Never" => {}
        "" => errors.required(&path.child("imagePullPolicy"), ""),
        other => errors.not_supported(&path.child("imagePullPolicy"), other, &["Always", "IfNotPresent", "Never"]),
    }
    if let Some(resources) = child(container, "resources") {
        resource_requirements(errors, &path.child("resources"), resources, container_resource_name, &pod.claims);
    }
    resize_policy(errors, &path.child("resizePolicy"), list(container, "resizePolicy"), pod.restart_policy);
    if let Some(context) = child(container, "securityContext") {
        security_context(errors, &path.child("securityContext"), context, pod.host_users);
    }
}

fn ports(errors: &mut Errors, path: &Path, ports: &[Value]) {
    let mut names_seen = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = text(port, "name");
        if !name.is_empty() {
            let wrong = names::port_name(name);
            if !wrong.is_empty() {
                errors.invalid_each(&path.child("name"), name, wrong);
            } else if !names_seen.insert(name) {
                errors.duplicate(&path.child("name"), name);
            }
        }
        match number(port, "containerPort").unwrap_or(0) {
            0 => errors.required(&path.child("containerPort"), ""),
            value => errors.invalid_each(&path.child("containerPort"), &value, names::port_number(value)),
        }
        match number(port, "hostPort").unwrap_or(0) {
            0 => {}
            value => errors.invalid_each(&path.child("hostPort"), &value, names::port_number(value)),
        }
        protocol(errors, &path.child("protocol"), text(port, "protocol"));
    }
}

pub fn protocol(errors: &mut Errors, path: &Path, protocol: &str) {
    if protocol.is_empty() {
        errors.required(path, "");
    } else if !PROTOCOLS.contains(&protocol) {
        errors.not_supported(path, protocol, &PROTOCOLS);
    }
}

/// `a/b/80` twice on the host is a conflict.
pub fn host_port_conflicts(errors: &mut Errors, path: &Path, containers: &[Value]) {
    let mut seen = BTreeSet::new();
    for (index, container) in containers.iter().enumerate() {
        let path = path.index(index);
        let path = path.child("ports");
        for (index, port) in list(container, "ports").iter().enumerate() {
            let host_port = number(port, "hostPort").unwrap_or(0);
            let key = format!("{}/{}/{host_port}", text(port, "protocol"), text(port, "hostIP"));
            if host_port != 0 && seen.contains(&key) {
                errors.duplicate(&path.index(index).child("hostPort"), &key);
            } else if host_port != 0 {
                seen.insert(key);
            }
        }
    }
}

fn environment(errors: &mut Errors, path: &Path, variables: &[Value]) {
    for (index, variable) in variables.iter().enumerate() {
        let path = path.index(index);
        let name = text(variable, "name");
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            errors.name(&path.child("name"), name, names::env_name);
        }
        let Some(source) = child(variable, "valueFrom") else { continue };
        let path = path.child("valueFrom");
        let mut sources = 0;
        if let Some(reference) = child(source, "fieldRef") {
            sources += 1;
            field_reference(errors, &path.child("fieldRef"), reference, &ENV_FIELDS);
        }
        if let Some(reference) = child(source, "resourceFieldRef") {
            sources += 1;
            resource_reference(errors, &path.child("resourceFieldRef"), reference, false);
        }
        for name in ["configMapKeyRef", "secretKeyRef"] {
            if let Some(reference) = child(source, name) {
                sources += 1;
                let path = path.child(name);
                errors.name(&path.child("name"), text(reference, "name"), names::dns_subdomain);
                match text(reference, "key") {
                    "" => errors.required(&path.child("key"), ""),
                    key => errors.name(&path.child("key"), key, names::config_map_key),
                }
            }
        }
        if let Some(reference) = child(source, "fileKeyRef") {
            sources += 1;
            file_reference(errors, &path.child("fileKeyRef"), reference);
        }
        if sources == 0 {
            errors.invalid(&path, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`");
        } else if !text(variable, "value").is_empty() {
            errors.invalid(&path, "", "may not be specified when `value` is not empty");
        } else if sources > 1 {
            errors.invalid(&path, "", "may not have more than one field specified at a time");
        }
    }
}

fn file_reference(errors: &mut Errors, path: &Path, reference: &Value) {
    match text(reference, "key") {
        "" => errors.required(&path.child("key"), ""),
        key => errors.name(&path.child("key"), key, names::env_name),
    }
    match text(reference, "volumeName") {
        "" => errors.required(&path.child("volumeName"), ""),
        name => errors.name(&path.child("volumeName"), name, names::dns_label),
    }
    match text(reference, "path") {
        "" => errors.required(&path.child("path"), ""),
        file => path_without_backsteps(errors, &path.child("path"), file),
    }
}

/// `validateObjectFieldSelector`.
pub fn field_reference(errors: &mut Errors, path: &Path, reference: &Value, allowed: &[&str]) {
    let (version, field) = (text(reference, "apiVersion"), text(reference, "fieldPath"));
    if version.is_empty() {
        return errors.required(&path.child("apiVersion"), "");
    }
    if field.is_empty() {
        return errors.required(&path.child("fieldPath"), "");
    }
    let mut unconvertible = |why: String| errors.invalid(&path.child("fieldPath"), field, &format!("error converting fieldPath: {why}"));
    if version != "v1" {
        return unconvertible(format!("unsupported pod version: {version}"));
    }
    if let Some((base, subscript)) = field.strip_suffix("']").and_then(|rest| rest.split_once("['")) {
        return match base {
            "metadata.annotations" => errors.invalid_each(path, &subscript.to_lowercase(), names::qualified_name(&subscript.to_lowercase())),
            "metadata.labels" => errors.name(path, subscript, names::qualified_name),
            _ => unconvertible(format!("field label does not support subscript: {field}")),
        };
    }
    let field_name = if field == "spec.host" { "spec.nodeName" } else { field };
    if !ENV_FIELDS.contains(&field_name) && !KNOWN_FIELDS.contains(&field_name) {
        unconvertible(format!("field label not supported: {field}"));
    } else if !allowed.contains(&field_name) {
        errors.not_supported(&path.child("fieldPath"), field_name, allowed);
    }
}

/// What a downward API volume may show.
pub const VOLUME_FIELDS: [&str; 5] = [LABEL_FIELDS[0], LABEL_FIELDS[1], "metadata.name", "metadata.namespace", "metadata.uid"];

/// `validateContainerResourceFieldSelector`.
pub fn resource_reference(errors: &mut Errors, path: &Path, reference: &Value, in_volume: bool) {
    let resource = text(reference, "resource");
    let huge = resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-");
    if in_volume && text(reference, "containerName").is_empty() {
        errors.required(&path.child("containerName"), "");
    } else if resource.is_empty() {
        errors.required(&path.child("resource"), "");
    } else if !RESOURCE_FIELDS.contains(&resource) && !huge {
        errors.not_supported(&path.child("resource"), resource, &RESOURCE_FIELDS);
    }
    let Some(divisor) = child(reference, "divisor").and_then(|divisor| Quantity::from_json(divisor).ok()).filter(|divisor| !divisor.is_zero()) else { return };
    let printed = divisor.to_string();
    let path = path.child("divisor");
    let sizes = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let mut of_sizes = |what: &str| {
        if !sizes.contains(&printed.as_str()) {
            errors.invalid(&path, resource, &format!("only divisor's values {} are supported with the {what} resource", sizes.join(", ")));
        }
    };
    match resource {
        "limits.cpu" | "requests.cpu" if !matches!(printed.as_str(), "1m" | "1") => errors.invalid(&path, resource, "only divisor's values 1m and 1 are supported with the cpu resource"),
        "limits.memory" | "requests.memory" => of_sizes("memory"),
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => of_sizes("local ephemeral storage"),
        _ if huge => of_sizes("hugepages"),
        _ => {}
    }
}

fn environment_from(errors: &mut Errors, path: &Path, sources: &[Value]) {
    for (index, source) in sources.iter().enumerate() {
        let item = path.index(index);
        let prefix = text(source, "prefix");
        if !prefix.is_empty() {
            errors.name(&item.child("prefix"), prefix, names::env_name);
        }
        let mut count = 0;
        for kind in ["configMapRef", "secretRef"] {
            if let Some(reference) = child(source, kind) {
                count += 1;
                let path = item.child(kind);
                match text(reference, "name") {
                    "" => errors.required(&path.child("name"), ""),
                    name => errors.invalid_each(&path.child("name"), name, names::NameRule::DnsSubdomain.check(name, true)),
                }
            }
        }
        match count {
            0 => errors.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => errors.invalid(path, "", "may not have more than one field specified at a time"),
        }
    }
}

fn mounts(errors: &mut Errors, list_path: &Path, container: &Value, pod: &Pod) {
    let devices = list(container, "volumeDevices");
    let mut seen = BTreeSet::new();
    for (index, mount) in list(container, "volumeMounts").iter().enumerate() {
        let path = list_path.index(index);
        let (name, mount_path) = (text(mount, "name"), text(mount, "mountPath"));
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        }
        if !pod.volumes.contains_key(name) {
            errors.not_found(&path.child("name"), name);
        }
        if mount_path.is_empty() {
            errors.required(&path.child("mountPath"), "");
        }
        if !seen.insert(mount_path) {
            errors.invalid(&path.child("mountPath"), mount_path, "must be unique");
        }
        if devices.iter().any(|device| text(device, "name") == name) {
            errors.invalid(&path.child("name"), name, "must not already exist in volumeDevices");
        }
        if devices.iter().any(|device| text(device, "devicePath") == mount_path) {
            errors.invalid(&path.child("mountPath"), mount_path, "must not already exist as a path in volumeDevices");
        }
        let (sub_path, expression) = (text(mount, "subPath"), text(mount, "subPathExpr"));
        if !sub_path.is_empty() {
            descending_path(errors, &list_path.child("subPath"), sub_path);
        }
        if !expression.is_empty() {
            if !sub_path.is_empty() {
                errors.invalid(&path.child("subPathExpr"), expression, "subPathExpr and subPath are mutually exclusive");
            }
            descending_path(errors, &list_path.child("subPathExpr"), expression);
        }
        propagation(errors, list_path, mount, container);
    }
}

fn propagation(errors: &mut Errors, list_path: &Path, mount: &Value, container: &Value) {
    const MODES: [&str; 3] = ["Bidirectional", "HostToContainer", "None"];
    let path = list_path.child("mountPropagation");
    let propagation = text(mount, "mountPropagation");
    if child(mount, "mountPropagation").is_some() {
        if !MODES.contains(&propagation) {
            errors.not_supported(&path, propagation, &MODES);
        }
        if propagation == "Bidirectional" && !flag(container, "securityContext.privileged") {
            errors.forbidden(&path, "Bidirectional mount propagation is available only to privileged containers");
        }
    }
    let path = list_path.child("recursiveReadOnly");
    match text(mount, "recursiveReadOnly") {
        "" if child(mount, "recursiveReadOnly").is_none() => {}
        "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if !flag(mount, "readOnly") {
                errors.forbidden(&path, "may only be specified when readOnly is true");
            }
            if !matches!(propagation, "" | "None") {
                errors.forbidden(&path, "may only be specified when mountPropagation is None or not specified");
            }
        }
        other => errors.not_supported(&path, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

fn devices(errors: &mut Errors, path: &Path, container: &Value, pod: &Pod) {
    let mounts = list(container, "volumeMounts");
    let (mut names_seen, mut paths_seen) = (BTreeSet::new(), BTreeSet::new());
    for (index, device) in list(container, "volumeDevices").iter().enumerate() {
        let path = path.index(index);
        let (name, device_path) = (text(device, "name"), text(device, "devicePath"));
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else if !names_seen.insert(name) {
            errors.invalid(&path.child("name"), name, "must be unique");
        }
        match pod.volumes.get(name) {
            None => errors.not_found(&path.child("name"), name),
            Some(volume) if child(volume, "persistentVolumeClaim").is_none() && child(volume, "ephemeral").is_none() => {
                errors.invalid(&path.child("name"), name, "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode");
            }
            Some(_) => {}
        }
        if device_path.is_empty() {
            errors.required(&path.child("devicePath"), "");
        }
        if paths_seen.contains(device_path) {
            errors.invalid(&path.child("devicePath"), device_path, "must be unique");
        }
        if device_path.split('/').any(|part| part == "..") {
            errors.invalid(&path.child("devicePath"), device_path, "can not contain backsteps ('..')");
        } else {
            paths_seen.insert(device_path);
        }
        if mounts.iter().any(|mount| text(mount, "name") == name) {
            errors.invalid(&path.child("name"), name, "must not already exist in volumeMounts");
        }
        if mounts.iter().any(|mount| text(mount, "mountPath") == device_path) {
            errors.invalid(&path.child("devicePath"), device_path, "must not already exist as a path in volumeMounts");
        }
    }
}

fn resize_policy(errors: &mut Errors, path: &Path, policies: &[Value], restart_policy: &str) {
    let mut seen = BTreeSet::new();
    for (index, policy) in policies.iter().enumerate() {
        let (resource, restart) = (text(policy, "resourceName"), text(policy, "restartPolicy"));
        if !seen.insert(resource) {
            errors.duplicate(&path.index(index), resource);
        }
        match resource {
            "cpu" | "memory" => {}
            "" => errors.required(path, ""),
            other => errors.not_supported(path, other, &["cpu", "memory"]),
        }
        match restart {
            "NotRequired" | "RestartContainer" => {}
            "" => errors.required(path, ""),
            other => errors.not_supported(path, other, &["NotRequired", "RestartContainer"]),
        }
        if restart_policy == "Never" && restart != "NotRequired" {
            errors.invalid(path, restart, "must be 'NotRequired' when pod `restartPolicy` is 'Never'");
        }
    }
}
