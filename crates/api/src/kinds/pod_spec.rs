//! Validation of a pod spec, in pods and in templates. Mirrors ValidatePodSpec and ValidatePodTemplateSpec.

use std::collections::BTreeSet;

use serde_json::Value;

use super::affinity::{affinity, tolerations, topology_spread};
use super::container::{self, Pod};
use super::windows;
use super::json::{child, entry, flag, list, map, number, strings, text};
use super::probe;
use super::resources::{container_resource_name, pod_resource_name, resource_quantity, resource_requirements};
use super::security::{app_armor, id, seccomp};
use super::volume::volumes;
use crate::names;
use crate::quantity::Quantity;
use crate::internal::Internal;
use crate::validation::{Errors, Path};

const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_CHARS_MAX: usize = 2048;
const RESTART_RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const INT32_MAX: i64 = i32::MAX as i64;

/// `ValidatePodTemplateSpec`.
pub fn template(errors: &mut Errors, path: &Path, template: &Value) {
    errors.labels(&path.child("labels"), child(template, "metadata.labels"));
    errors.annotations(&path.child("annotations"), child(template, "metadata.annotations"));
    annotations(errors, &path.child("annotations"), template);
    pod_spec(errors, &path.child("spec"), template, false);
    if !list(template, "spec.ephemeralContainers").is_empty() {
        errors.forbidden(&path.child("spec.ephemeralContainers"), "ephemeral containers not allowed in pod template");
    }
}

/// `ValidatePodSpecificAnnotations`. `holder` has `metadata` and `spec`.
pub fn annotations(errors: &mut Errors, path: &Path, holder: &Value) {
    const MIRROR: &str = "kubernetes.io/config.mirror";
    const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
    if let Some(value) = entry(holder, "metadata.annotations", MIRROR)
        && text(holder, "spec.nodeName").is_empty()
    {
        errors.invalid(&path.key(MIRROR), value, "must set spec.nodeName if mirror pod annotation is set");
    }
    if let Some(value) = entry(holder, "metadata.annotations", DELETION_COST)
        && value.parse::<i32>().is_err()
    {
        errors.invalid(&path.key(DELETION_COST), value, "must be a 32bit integer");
    }
}

/// `holder` is a Pod or a PodTemplateSpec: its `spec` is judged.
pub fn pod_spec(errors: &mut Errors, path: &Path, holder: &Value, is_pod: bool) {
    let none = Value::Null;
    let spec = child(holder, "spec").unwrap_or(&none);
    if number(spec, "terminationGracePeriodSeconds").is_none() {
        errors.required(&path.child("terminationGracePeriodSeconds"), "");
    }
    let pod_name = if is_pod { text(holder, "metadata.name") } else { "" };
    let pod = Pod {
        volumes: volumes(errors, &path.child("volumes"), list(spec, "volumes"), pod_name),
        claims: list(spec, "resourceClaims").iter().map(|claim| text(claim, "name")).filter(|name| !name.is_empty()).collect(),
        grace_seconds: number(spec, "terminationGracePeriodSeconds"),
        host_users: child(spec, "hostUsers").and_then(Value::as_bool).unwrap_or(true),
        restart_policy: text(spec, "restartPolicy"),
        os: child(spec, "os").map(|os| text(os, "name")),
    };
    resource_claims(errors, &path.child("resourceClaims"), list(spec, "resourceClaims"));
    containers(errors, &path.child("containers"), spec, &pod);
    init_containers(errors, &path.child("initContainers"), spec, &pod);
    ephemeral_containers(errors, &path.child("ephemeralContainers"), spec, &pod);
    if let Some(resources) = child(spec, "resources") {
        pod_resources(errors, &path.child("resources"), spec, resources);
    }
    host_network_ports(errors, &path.child("containers"), spec, is_pod);
    match pod.restart_policy {
        "Always" | "OnFailure" | "Never" => {}
        "" => errors.required(&path.child("restartPolicy"), ""),
        other => errors.not_supported(&path.child("restartPolicy"), other, &["Always", "OnFailure", "Never"]),
    }
    match text(spec, "dnsPolicy") {
        "ClusterFirstWithHostNet" | "ClusterFirst" | "Default" | "None" => {}
        "" => errors.required(&path.child("dnsPolicy"), ""),
        other => errors.not_supported(&path.child("dnsPolicy"), other, &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]),
    }
    errors.labels(&path.child("nodeSelector"), child(spec, "nodeSelector"));
    pod_security_context(errors, &path.child("securityContext"), spec);
    if let Some(value) = child(spec, "affinity") {
        affinity(errors, &path.child("affinity"), value);
    }
    dns_config(errors, &path.child("dnsConfig"), spec);
    let gates = path.child("readinessGates");
    for (index, gate) in list(spec, "readinessGates").iter().enumerate() {
        errors.name(&gates.index(index).child("conditionType"), text(gate, "conditionType"), names::qualified_name);
    }
    let gates = path.child("schedulingGates");
    let mut seen = BTreeSet::new();
    for (index, gate) in list(spec, "schedulingGates").iter().enumerate() {
        let name = text(gate, "name");
        errors.name(&gates.index(index), name, names::qualified_name);
        if !seen.insert(name) {
            errors.duplicate(&gates.index(index), name);
        }
    }
    topology_spread(errors, &path.child("topologySpreadConstraints"), list(spec, "topologySpreadConstraints"));
    windows::host_processes(errors, path, spec);
    if !pod.host_users {
        for (field, shown) in [("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
            if flag(spec, field) {
                errors.forbidden(&path.child(shown), "when `hostUsers` is false");
            }
        }
        if flag(spec, "hostNetwork") {
            errors.forbidden(&path.child("hostNetwork"), "when `hostUsers` is false");
        }
    }
    hostname_override(errors, path, spec);
    scalars(errors, path, spec);
    file_references(errors, path, spec);
    windows::of_the_other_system(errors, path, spec);
}

fn scalars(errors: &mut Errors, path: &Path, spec: &Value) {
    let named = |errors: &mut Errors, name: &str, rule: fn(&str) -> Vec<String>| {
        let value = text(spec, name);
        if !value.is_empty() {
            errors.name(&path.child(name), value, rule);
        }
    };
    named(errors, "serviceAccountName", names::dns_subdomain);
    named(errors, "nodeName", names::dns_subdomain);
    if let Some(seconds) = number(spec, "activeDeadlineSeconds").filter(|seconds| !(1..=INT32_MAX).contains(seconds)) {
        errors.invalid(&path.child("activeDeadlineSeconds"), &seconds, "must be between 1 and 2147483647, inclusive");
    }
    named(errors, "hostname", names::dns_label);
    named(errors, "subdomain", names::dns_label);
    tolerations(errors, &path.child("tolerations"), list(spec, "tolerations"));
    let aliases = path.child("hostAliases");
    for (index, alias) in list(spec, "hostAliases").iter().enumerate() {
        let path = aliases.index(index);
        ip(errors, &path.child("ip"), text(alias, "ip"));
        let hostnames = path.child("hostnames");
        for (at, hostname) in strings(alias, "hostnames").enumerate() {
            errors.name(&hostnames.index(at), hostname, names::dns_subdomain);
        }
    }
    named(errors, "priorityClassName", names::dns_subdomain);
    named(errors, "runtimeClassName", names::dns_subdomain);
    if let Some(policy) = child(spec, "preemptionPolicy").and_then(Value::as_str) {
        match policy {
            "PreemptLowerPriority" | "Never" => {}
            "" => errors.required(&path.child("preemptionPolicy"), ""),
            other => errors.not_supported(&path.child("preemptionPolicy"), other, &["PreemptLowerPriority", "Never"]),
        }
    }
    let overhead = path.child("overhead");
    for (name, value) in map(spec, "overhead").into_iter().flatten() {
        container_resource_name(errors, &overhead.child("limits").key(name), name);
        resource_quantity(errors, &overhead.child("limits").key(name), name, value);
    }
    match child(spec, "os").map(|os| text(os, "name")) {
        Some("") => errors.required(&path.child("os.name"), ""),
        Some("linux" | "windows") | None => {}
        Some(other) => errors.not_supported(&path.child("os"), other, &["linux", "windows"]),
    }
}

/// An address a legacy field accepts.
pub fn ip(errors: &mut Errors, path: &Path, value: &str) {
    errors.name(path, value, names::ip);
}

fn containers(errors: &mut Errors, path: &Path, spec: &Value, pod: &Pod) {
    let containers = list(spec, "containers");
    if containers.is_empty() {
        return errors.required(path, "");
    }
    let mut seen = BTreeSet::new();
    for (index, container) in containers.iter().enumerate() {
        let path = path.index(index);
        container::common(errors, &path, container, pod);
        let name = text(container, "name");
        if !seen.insert(name) {
            errors.duplicate(&path.child("name"), name);
        }
        probe::hooks_and_probes(errors, &path, container, pod);
        restart_rules(errors, &path, container);
    }
    container::host_port_conflicts(errors, path, containers);
}

fn restart_rules(errors: &mut Errors, path: &Path, container: &Value) {
    const POLICIES: [&str; 3] = ["Always", "Never", "OnFailure"];
    const ACTIONS: [&str; 2] = ["Restart", "RestartAllContainers"];
    let rules = list(container, "restartPolicyRules");
    match child(container, "restartPolicy").and_then(Value::as_str) {
        None if rules.is_empty() => return,
        None => errors.required(&path.child("restartPolicy"), "must specify restartPolicy when restart rules are used"),
        Some(policy) if !POLICIES.contains(&policy) => errors.not_supported(&path.child("restartPolicy"), policy, &POLICIES),
        Some(_) => {}
    }
    let path = path.child("restartPolicyRules");
    if rules.len() > RESTART_RULES_MAX {
        errors.too_many(&path, rules.len(), RESTART_RULES_MAX);
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = path.index(index);
        let action = text(rule, "action");
        if !ACTIONS.contains(&action) {
            errors.not_supported(&path.child("action"), action, &ACTIONS);
        }
        let Some(codes) = child(rule, "exitCodes") else {
            errors.required(&path.child("exitCodes"), "must be specified");
            continue;
        };
        let operator = text(codes, "operator");
        if !matches!(operator, "In" | "NotIn") {
            errors.not_supported(&path.child("exitCodes.operator"), operator, &["In", "NotIn"]);
        }
        let values = list(codes, "values").len();
        if values > EXIT_CODES_MAX {
            errors.too_many(&path.child("exitCodes.values"), values, EXIT_CODES_MAX);
        }
    }
}

fn init_containers(errors: &mut Errors, path: &Path, spec: &Value, pod: &Pod) {
    let mut seen: BTreeSet<&str> = list(spec, "containers").iter().map(|container| text(container, "name")).collect();
    for (index, container) in list(spec, "initContainers").iter().enumerate() {
        let item = path.index(index);
        container::common(errors, &item, container, pod);
        restart_rules(errors, &item, container);
        let name = text(container, "name");
        if seen.contains(name) {
            errors.duplicate(&item.child("name"), name);
        } else if !name.is_empty() {
            seen.insert(name);
        }
        container::host_port_conflicts(errors, path, std::slice::from_ref(container));
        if text(container, "restartPolicy") == "Always" {
            probe::hooks_and_probes(errors, &item, container, pod);
        } else {
            probe::forbid(errors, &item, container);
            let policies = item.child("resizePolicy");
            for (at, policy) in list(container, "resizePolicy").iter().enumerate() {
                if text(policy, "restartPolicy") == "RestartContainer" {
                    errors.invalid(&policies.index(at).child("restartPolicy"), "RestartContainer", "must not be set to 'RestartContainer' for non-sidecar initContainers");
                }
            }
        }
    }
}

fn ephemeral_containers(errors: &mut Errors, path: &Path, spec: &Value, pod: &Pod) {
    const ALLOWED: [&str; 16] = [
        "name", "image", "command", "args", "workingDir", "envFrom", "env", "volumeMounts", "volumeDevices", "terminationMessagePath", "terminationMessagePolicy", "imagePullPolicy", "securityContext",
        "stdin", "stdinOnce", "tty",
    ];
    let names = |list_name: &str| list(spec, list_name).iter().map(|container| text(container, "name")).collect::<Vec<_>>();
    let others: BTreeSet<&str> = names("containers").into_iter().chain(names("initContainers")).collect();
    let mut seen = others.clone();
    for (index, container) in list(spec, "ephemeralContainers").iter().enumerate() {
        let path = path.index(index);
        container::common(errors, &path, container, pod);
        let name = text(container, "name");
        if !seen.insert(name) {
            errors.duplicate(&path.child("name"), name);
        }
        let target = text(container, "targetContainerName");
        if !target.is_empty() && !others.contains(target) {
            errors.not_found(&path.child("targetContainerName"), target);
        }
        for (field, value) in container.as_object().into_iter().flatten() {
            if !ALLOWED.contains(&field.as_str()) && field != "targetContainerName" && (!crate::validation::is_empty(Some(value)) || (value.is_object() && field != "resources")) {
                errors.forbidden(&path.child(field), "cannot be set for an Ephemeral Container");
            }
        }
        let mounts = path.child("volumeMounts");
        for (at, mount) in list(container, "volumeMounts").iter().enumerate() {
            for field in ["subPath", "subPathExpr"] {
                if !text(mount, field).is_empty() {
                    errors.forbidden(&mounts.index(at).child(field), "cannot be set for an Ephemeral Container");
                }
            }
        }
    }
}

fn resource_claims(errors: &mut Errors, path: &Path, claims: &[Value]) {
    let mut seen = BTreeSet::new();
    for (index, claim) in claims.iter().enumerate() {
        let path = path.index(index);
        let name = text(claim, "name");
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else if !seen.insert(name) {
            errors.duplicate(&path.child("name"), name);
        } else {
            errors.name(&path.child("name"), name, names::dns_label);
        }
        let (direct, from_template) = (text(claim, "resourceClaimName"), text(claim, "resourceClaimTemplateName"));
        match (direct.is_empty(), from_template.is_empty()) {
            (true, true) => errors.invalid(&path, &Internal("core.v1.PodResourceClaim", Some(claim)), "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"),
            (false, false) => errors.invalid(&path, claim, "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"),
            (false, true) => errors.name(&path.child("resourceClaimName"), direct, names::dns_subdomain),
            (true, false) => errors.name(&path.child("resourceClaimTemplateName"), from_template, names::dns_subdomain),
        }
    }
}

fn pod_resources(errors: &mut Errors, path: &Path, spec: &Value, resources: &Value) {
    if child(resources, "claims").is_some() {
        errors.forbidden(&path.child("claims"), "claims may not be set for Resources at pod-level");
    }
    resource_requirements(errors, path, resources, pod_resource_name, &BTreeSet::new());
    for name in ["cpu", "memory"] {
        let (Some(sum), Some(request)) = (super::qos::container_requests(spec, name), map(resources, "requests").and_then(|requests| requests.get(name))) else { continue };
        let request = Quantity::from_json(request).unwrap_or_default();
        if sum > request {
            errors.invalid(&path.child("requests").key(name), request.to_string().as_str(), &format!("must be greater than or equal to aggregate container requests of {sum}"));
        }
    }
    let containers = path.child("containers");
    for (index, container) in list(spec, "containers").iter().enumerate() {
        for (name, limit) in map(container, "resources.limits").into_iter().flatten() {
            let Some(pod_limit) = map(resources, "limits").and_then(|limits| limits.get(name)) else { continue };
            let (limit, pod_limit) = (Quantity::from_json(limit).unwrap_or_default(), Quantity::from_json(pod_limit).unwrap_or_default());
            if limit > pod_limit {
                errors.invalid(&containers.index(index).key(name).child("limits"), limit.to_string().as_str(), &format!("must be less than or equal to pod limits of {pod_limit}"));
            }
        }
    }
}

fn host_network_ports(errors: &mut Errors, path: &Path, spec: &Value, is_pod: bool) {
    if !flag(spec, "hostNetwork") {
        return;
    }
    for (index, container) in list(spec, "containers").iter().enumerate() {
        let path = path.index(index);
        let path = path.child("ports");
        for (index, port) in list(container, "ports").iter().enumerate() {
            let (host, inside) = (number(port, "hostPort").unwrap_or(0), number(port, "containerPort").unwrap_or(0));
            if (is_pod || host != 0) && host != inside {
                errors.invalid(&path.index(index).child("hostPort"), &host, "must match `containerPort` when `hostNetwork` is true");
            }
        }
    }
}

fn pod_security_context(errors: &mut Errors, path: &Path, spec: &Value) {
    let Some(context) = child(spec, "securityContext") else { return };
    for name in ["fsGroup", "runAsUser", "runAsGroup"] {
        id(errors, &path.child(name), number(context, name));
    }
    let groups = path.child("supplementalGroups");
    for (index, group) in list(context, "supplementalGroups").iter().enumerate() {
        id(errors, &groups.index(index), group.as_i64());
    }
    if flag(spec, "shareProcessNamespace") && flag(spec, "hostPID") {
        errors.invalid(&path.child("shareProcessNamespace"), &true, "ShareProcessNamespace and HostPID cannot both be enabled");
    }
    sysctls(errors, &path.child("sysctls"), spec, list(context, "sysctls"));
    let one_of = |errors: &mut Errors, name: &str, allowed: &[&str]| {
        if let Some(value) = child(context, name).and_then(Value::as_str).filter(|value| !allowed.contains(value)) {
            errors.not_supported(&path.child(name), value, allowed);
        }
    };
    one_of(errors, "fsGroupChangePolicy", &["Always", "OnRootMismatch"]);
    seccomp(errors, &path.child("seccompProfile"), child(context, "seccompProfile"));
    windows::options(errors, &path.child("windowsOptions"), child(context, "windowsOptions"));
    app_armor(errors, &path.child("appArmorProfile"), child(context, "appArmorProfile"));
    one_of(errors, "supplementalGroupsPolicy", &["Merge", "Strict"]);
    // The other one needs a gate (SELinuxMount) that is off.
    one_of(errors, "seLinuxChangePolicy", &["Recursive"]);
}

fn sysctls(errors: &mut Errors, path: &Path, spec: &Value, sysctls: &[Value]) {
    const NAME_MAX: usize = 253;
    let mut seen = BTreeSet::new();
    for (index, sysctl) in sysctls.iter().enumerate() {
        let item = path.index(index);
        let path = item.child("name");
        let name = text(sysctl, "name");
        let part = |part: &str| {
            let alnum = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
            alnum(part.as_bytes().first()) && alnum(part.as_bytes().last()) && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_'))
        };
        if name.is_empty() {
            errors.required(&path, "");
        } else if name.len() > NAME_MAX || !name.split(['.', '/']).all(part) {
            errors.invalid(&path, name, "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$");
        } else if !seen.insert(name) {
            errors.duplicate(&path, name);
        }
        let dotted = name.replace('/', ".");
        if flag(spec, "hostNetwork") && dotted.starts_with("net.") {
            errors.invalid(&path, name, "may not be specified when 'hostNetwork' is true");
        }
        if flag(spec, "hostIPC") && ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."].iter().any(|prefix| dotted.starts_with(prefix)) {
            errors.invalid(&path, name, "may not be specified when 'hostIPC' is true");
        }
    }
}

fn dns_config(errors: &mut Errors, path: &Path, spec: &Value) {
    let config = child(spec, "dnsConfig");
    if text(spec, "dnsPolicy") == "None" {
        if config.is_none() {
            return errors.required(path, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        if list(spec, "dnsConfig.nameservers").is_empty() {
            return errors.required(&path.child("nameservers"), "must provide at least one DNS nameserver when `dnsPolicy` is None");
        }
    }
    let Some(config) = config else { return };
    let (servers, searches) = (list(config, "nameservers"), list(config, "searches"));
    let whole = |name: &str| child(config, name).unwrap_or(&Value::Null).clone();
    if servers.len() > NAMESERVERS_MAX {
        errors.invalid(&path.child("nameservers"), &whole("nameservers"), &format!("must not have more than {NAMESERVERS_MAX} nameservers"));
    }
    for (index, server) in strings(config, "nameservers").enumerate() {
        ip(errors, &path.child("nameservers").index(index), server);
    }
    if searches.len() > SEARCHES_MAX {
        errors.invalid(&path.child("searches"), &whole("searches"), &format!("must not have more than {SEARCHES_MAX} search paths"));
    }
    if strings(config, "searches").collect::<Vec<_>>().join(" ").len() > SEARCH_CHARS_MAX {
        errors.invalid(&path.child("searches"), &whole("searches"), &format!("must not have more than {SEARCH_CHARS_MAX} characters (including spaces) in the search list"));
    }
    for (index, search) in strings(config, "searches").enumerate().filter(|(_, search)| *search != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        errors.name(&path.child("searches").index(index), search, names::dns_subdomain_with_underscore);
    }
    for (index, option) in list(config, "options").iter().enumerate() {
        if text(option, "name").is_empty() {
            errors.required(&path.child("options").index(index), "must not be empty");
        }
    }
}

fn hostname_override(errors: &mut Errors, path: &Path, spec: &Value) {
    const HOSTNAME_MAX: usize = 64;
    let Some(hostname) = child(spec, "hostnameOverride").and_then(Value::as_str) else { return };
    let path = path.child("hostnameOverride");
    if flag(spec, "setHostnameAsFQDN") {
        errors.forbidden(&path, "may not be specified when setHostnameAsFQDN is true");
    }
    if flag(spec, "hostNetwork") {
        errors.forbidden(&path, "may not be specified when hostNetwork is true");
    }
    if hostname.len() > HOSTNAME_MAX {
        errors.too_long(&path, HOSTNAME_MAX);
    }
    errors.name(&path, hostname, names::dns_subdomain);
}

fn file_references(errors: &mut Errors, path: &Path, spec: &Value) {
    for list_name in ["initContainers", "containers", "ephemeralContainers"] {
        let containers = path.child(list_name);
        for (index, container) in list(spec, list_name).iter().enumerate() {
            for (at, variable) in list(container, "env").iter().enumerate() {
                let Some(reference) = child(variable, "valueFrom.fileKeyRef") else { continue };
                let name = text(reference, "volumeName");
                let container_path = containers.index(index);
                let env = container_path.child("env");
                let item = env.index(at);
                let path = item.child("valueFrom.fileKeyRef.volumeName");
                match list(spec, "volumes").iter().find(|volume| text(volume, "name") == name) {
                    None => errors.not_found(&path, name),
                    Some(volume) if child(volume, "emptyDir").is_none() => errors.invalid(&path, name, "referenced volume must be of type emptyDir"),
                    Some(_) => {}
                }
            }
        }
    }
}
