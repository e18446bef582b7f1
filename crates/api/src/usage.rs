//! What an object uses of a ResourceQuota: counts, compute resources, storage, ports; and which quotas concern it.
//!
//! Mirrors `pkg/quota/v1/evaluator/core`. Pure: the server asks before a write, the quota controller counts afterwards.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;

use crate::kinds::json::{child, list, map, number, strings, text};
use crate::kinds::qos;
use crate::kinds::resources::is_extended;
use crate::quantity::{Format, Quantity};
use crate::resource::Resource;

/// By resource name: `pods`, `requests.cpu`, `count/deployments.apps`.
pub type Amounts = BTreeMap<String, Quantity>;

const STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";
const DEVICE_CLASS: &str = ".deviceclass.resource.k8s.io/devices";
/// `AllocationResultsMaxSize`: a claim for all devices of a class gets so many at most.
const MAX_DEVICES: i64 = 32;
/// Kinds of the core group whose plural alone is a resource of quotas too.
const COUNTED: [&str; 7] = ["configmaps", "persistentvolumeclaims", "pods", "replicationcontrollers", "resourcequotas", "secrets", "services"];
/// Compute resources with requests and limits; a quota's bare name means the requests.
const COMPUTE: [&str; 3] = ["cpu", "ephemeral-storage", "memory"];
/// Where a quota bounds these, every container must say what it needs.
const DEMANDED: [&str; 6] = ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];
const HUGE: [&str; 2] = ["hugepages-", "requests.hugepages-"];

fn whole(count: usize) -> Quantity {
    Quantity::new(count as i64, Format::DecimalSi)
}

fn is(row: &Resource, plural: &str) -> bool {
    row.group.is_empty() && row.plural == plural
}

/// The amounts under a field: `status.hard`.
pub fn amounts(object: &Value, path: &str) -> Amounts {
    map(object, path).into_iter().flatten().filter_map(|(name, value)| Some((name.clone(), Quantity::from_json(value).ok()?))).collect()
}

/// `cpu=1,memory=2Gi`, as refusals show them.
pub fn shown(amounts: &Amounts) -> String {
    amounts.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(",")
}

/// Whether objects of this kind use such a resource.
pub fn tracks(row: &Resource, name: &str) -> bool {
    if name.strip_prefix("count/").is_some_and(|counted| counted == row.qualified()) || (row.group.is_empty() && row.plural == name && COUNTED.contains(&name)) {
        return true;
    }
    if is(row, "pods") {
        let compute = name.strip_prefix("requests.").or_else(|| name.strip_prefix("limits.")).unwrap_or(name);
        return COMPUTE.contains(&compute) || HUGE.iter().any(|prefix| name.starts_with(prefix)) || name.strip_prefix("requests.").is_some_and(is_extended);
    }
    if is(row, "services") {
        return matches!(name, "services.loadbalancers" | "services.nodeports");
    }
    if row.group == "resource.k8s.io" && row.plural == "resourceclaims" {
        return name.ends_with(DEVICE_CLASS);
    }
    is(row, "persistentvolumeclaims") && (name == "requests.storage" || name.split_once(STORAGE_CLASS).is_some_and(|(_, what)| matches!(what, "requests.storage" | "persistentvolumeclaims")))
}

/// What one object uses.
pub fn of(row: &Resource, object: &Value, now: Timestamp) -> Amounts {
    let mut used = Amounts::from([(format!("count/{}", row.qualified()), whole(1))]);
    if is(row, "pods") {
        if !over(object, now) {
            pod(object, &mut used);
        }
        return used;
    }
    if row.group.is_empty() && COUNTED.contains(&&*row.plural) {
        used.insert(row.plural.to_string(), whole(1));
    }
    if is(row, "services") {
        service(object, &mut used);
    } else if is(row, "persistentvolumeclaims") {
        claim(object, &mut used);
    } else if row.group == "resource.k8s.io" && row.plural == "resourceclaims" {
        devices(object, &mut used);
    }
    used
}

/// Devices by class; of alternatives the worst case of each class.
fn devices(claim: &Value, used: &mut Amounts) {
    let of = |request: &Value| {
        let count = match text(request, "allocationMode") {
            "ExactCount" => number(request, "count").unwrap_or(0),
            "All" => MAX_DEVICES,
            _ => 0,
        };
        (format!("{}{DEVICE_CLASS}", text(request, "deviceClassName")), Quantity::new(count, Format::DecimalSi))
    };
    for request in list(claim, "spec.devices.requests") {
        let choices = list(request, "firstAvailable");
        let mut most = Amounts::new();
        choices.iter().chain(child(request, "exactly").filter(|_| choices.is_empty())).for_each(|choice| raise(&mut most, &Amounts::from([of(choice)])));
        add(used, &most);
    }
}

/// A pod that has ended, or should have, uses nothing but its place.
fn over(pod: &Value, now: Timestamp) -> bool {
    if matches!(text(pod, "status.phase"), "Succeeded" | "Failed") {
        return true;
    }
    let told = text(pod, "metadata.deletionTimestamp").parse::<Timestamp>().ok();
    let grace = number(pod, "metadata.deletionGracePeriodSeconds");
    told.zip(grace).and_then(|(told, grace)| told.checked_add(jiff::SignedDuration::from_secs(grace)).ok()).is_some_and(|end| now > end)
}

fn pod(pod: &Value, used: &mut Amounts) {
    used.insert("pods".into(), whole(1));
    for (name, amount) in charged(pod, "requests") {
        if COMPUTE.contains(&&*name) || name.starts_with(HUGE[0]) {
            used.insert(name.clone(), amount);
            used.insert(format!("requests.{name}"), amount);
        } else if is_extended(&name) {
            used.insert(format!("requests.{name}"), amount);
        }
    }
    for (name, amount) in charged(pod, "limits").into_iter().filter(|(name, _)| COMPUTE.contains(&&**name)) {
        used.insert(format!("limits.{name}"), amount);
    }
}

fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let known = sum.get(name).map_or(*amount, |known| known.plus(amount));
        sum.insert(name.clone(), known);
    }
}

fn raise(peak: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let most = peak.get(name).map_or(*amount, |known| (*known).max(*amount));
        peak.insert(name.clone(), most);
    }
}

/// Requests or limits of a whole pod, by what it says.
pub fn total(pod: &Value, kind: &str) -> Amounts {
    compute(pod, kind, |container, _| amounts(container, &format!("resources.{kind}")))
}

/// The same, with what its containers were given while a resize is under way, and the overhead of running it.
fn charged(pod: &Value, kind: &str) -> Amounts {
    let mut sum = compute(pod, kind, |container, statuses| given(pod, container, statuses, kind));
    for (name, amount) in amounts(pod, "spec.overhead") {
        // Without a limit there is nothing to add to.
        if kind == "requests" || sum.get(&name).is_some_and(|known| !known.is_zero()) {
            let known = sum.get(&name).map_or(amount, |known| known.plus(&amount));
            sum.insert(name, known);
        }
    }
    sum
}

/// What a container asks for or still has, whichever is more.
fn given(pod: &Value, container: &Value, statuses: &str, kind: &str) -> Amounts {
    let path = format!("resources.{kind}");
    let asked = amounts(container, &path);
    let Some(status) = list(pod, statuses).iter().find(|status| text(status, "name") == text(container, "name")).filter(|status| child(status, "resources").is_some()) else { return asked };
    let infeasible = list(pod, "status.conditions").iter().any(|condition| text(condition, "type") == "PodResizePending" && text(condition, "reason") == "Infeasible");
    let mut most = if infeasible { Amounts::new() } else { asked };
    raise(&mut most, &amounts(status, &path));
    if kind == "requests" {
        raise(&mut most, &amounts(status, "allocatedResources"));
    }
    most
}

/// Containers together, or the largest init container beside the sidecars before it; above them what the pod says itself.
fn compute(pod: &Value, kind: &str, of: impl Fn(&Value, &str) -> Amounts) -> Amounts {
    let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
    for container in list(pod, "spec.initContainers") {
        let mut together = sidecars.clone();
        add(&mut together, &of(container, "status.initContainerStatuses"));
        raise(&mut peak, &together);
        if text(container, "restartPolicy") == "Always" {
            sidecars = together;
        }
    }
    let mut sum = sidecars;
    list(pod, "spec.containers").iter().for_each(|container| add(&mut sum, &of(container, "status.containerStatuses")));
    raise(&mut sum, &peak);
    sum.extend(amounts(pod, &format!("spec.resources.{kind}")));
    sum
}

fn service(service: &Value, used: &mut Amounts) {
    let ports = list(service, "spec.ports");
    let balancer = text(service, "spec.type") == "LoadBalancer";
    let node_ports = match (text(service, "spec.type"), child(service, "spec.allocateLoadBalancerNodePorts").and_then(Value::as_bool)) {
        ("LoadBalancer", Some(false)) => ports.iter().filter(|port| number(port, "nodePort").unwrap_or(0) != 0).count(),
        ("LoadBalancer" | "NodePort", _) => ports.len(),
        _ => 0,
    };
    used.insert("services.nodeports".into(), whole(node_ports));
    used.insert("services.loadbalancers".into(), whole(usize::from(balancer)));
}

fn claim(claim: &Value, used: &mut Amounts) {
    let class = map(claim, "metadata.annotations").and_then(|notes| notes.get("volume.beta.kubernetes.io/storage-class")).and_then(Value::as_str).unwrap_or_else(|| text(claim, "spec.storageClassName"));
    let asked = amounts(claim, "spec.resources.requests").remove("storage");
    let granted = amounts(claim, "status.allocatedResources").remove("storage");
    // Whole bytes, rounded up.
    let storage = asked.max(granted).map(|storage| if storage.is_integer() { storage } else { Quantity::new(storage.value(), storage.format()) });
    if !class.is_empty() {
        used.insert(format!("{class}{STORAGE_CLASS}persistentvolumeclaims"), whole(1));
    }
    let Some(storage) = storage else { return };
    used.insert("requests.storage".into(), storage);
    if !class.is_empty() {
        used.insert(format!("{class}{STORAGE_CLASS}requests.storage"), storage);
    }
}

/// Whether the object is in all of the quota's scopes.
pub fn in_scope(quota: &Value, row: &Resource, object: &Value) -> bool {
    let exists = |scope: &str| scoped(row, object, scope, "Exists", &BTreeSet::new());
    strings(quota, "spec.scopes").all(exists)
        && list(quota, "spec.scopeSelector.matchExpressions").iter().all(|term| scoped(row, object, text(term, "scopeName"), text(term, "operator"), &strings(term, "values").collect()))
}

pub fn is_terminating(pod: &Value) -> bool {
    number(pod, "spec.activeDeadlineSeconds").is_some_and(|seconds| seconds >= 0)
}

/// One of the names (empty is none) is as the selector wants it.
fn named(operator: &str, values: &BTreeSet<&str>, names: &[&str]) -> bool {
    let mut names = names.iter().filter(|name| !name.is_empty()).peekable();
    let none = names.peek().is_none();
    match operator {
        "Exists" => !none,
        "DoesNotExist" => none,
        "In" => names.any(|name| values.contains(name)),
        "NotIn" => none || names.any(|name| !values.contains(name)),
        _ => false,
    }
}

fn scoped(row: &Resource, object: &Value, scope: &str, operator: &str, values: &BTreeSet<&str>) -> bool {
    if is(row, "persistentvolumeclaims") && scope == "VolumeAttributesClass" {
        let paths = ["spec.volumeAttributesClassName", "status.currentVolumeAttributesClassName", "status.modifyVolumeStatus.targetVolumeAttributesClassName"];
        return named(operator, values, &paths.map(|path| text(object, path)));
    }
    if !is(row, "pods") {
        return false;
    }
    match scope {
        "Terminating" => is_terminating(object),
        "NotTerminating" => !is_terminating(object),
        "BestEffort" => qos::class(object) == "BestEffort",
        "NotBestEffort" => qos::class(object) != "BestEffort",
        "PriorityClass" => named(operator, values, &[text(object, "spec.priorityClassName")]),
        "CrossNamespacePodAffinity" => ["podAffinity", "podAntiAffinity"].into_iter().any(|side| {
            let terms = |when: &str| list(object, &format!("spec.affinity.{side}.{when}DuringSchedulingIgnoredDuringExecution"));
            let crosses = |term: &Value| !list(term, "namespaces").is_empty() || child(term, "namespaceSelector").is_some();
            terms("required").iter().any(crosses) || terms("preferred").iter().filter_map(|term| child(term, "podAffinityTerm")).any(crosses)
        }),
        _ => false,
    }
}

/// What the pod's containers must say and do not, where a quota bounds these resources.
pub fn missing<'a>(pod: &Value, bounded: impl Iterator<Item = &'a str>) -> Option<String> {
    if map(pod, "spec.resources.requests").is_some() || map(pod, "spec.resources.limits").is_some() {
        return None;
    }
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for name in bounded.filter(|name| DEMANDED.contains(name)) {
        let (kind, resource) = match name.split_once('.') {
            Some((kind, resource)) => (kind, resource),
            None => ("requests", name),
        };
        for container in list(pod, "spec.containers").iter().chain(list(pod, "spec.initContainers")) {
            if map(container, &format!("resources.{kind}")).is_none_or(|given| !given.contains_key(resource)) {
                missing.entry(name).or_default().insert(text(container, "name"));
            }
        }
    }
    let told: Vec<String> = missing.iter().map(|(name, containers)| format!("{name} for: {}", containers.iter().copied().collect::<Vec<_>>().join(","))).collect();
    (!told.is_empty()).then(|| format!("must specify {}", told.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::table;
    use serde_json::json;

    const NOW: &str = "2026-11-22T12:00:00Z";

    fn used(group: &str, version: &str, plural: &str, object: &Value) -> String {
        shown(&of(table().find(group, version, plural).unwrap(), object, NOW.parse().unwrap()))
    }

    fn container(requests: Value, limits: Value) -> Value {
        json!({"name": "c", "resources": {"requests": requests, "limits": limits}})
    }

    #[test]
    fn what_objects_use() {
        let spec = json!({
            "initContainers": [container(json!({"cpu": "2"}), json!({}))],
            "containers": [container(json!({"cpu": "500m", "memory": "1Gi", "example.com/dongle": "3"}), json!({"cpu": "1"})), container(json!({"cpu": "1"}), json!({}))],
            "overhead": {"cpu": "100m"},
        });
        let cases = [
            (used("apps", "v1", "deployments", &json!({})), "count/deployments.apps=1"),
            (used("", "v1", "configmaps", &json!({})), "configmaps=1,count/configmaps=1"),
            (
                used("", "v1", "pods", &json!({"spec": spec})),
                "count/pods=1,cpu=2100m,limits.cpu=1100m,memory=1Gi,pods=1,requests.cpu=2100m,requests.example.com/dongle=3,requests.memory=1Gi",
            ),
            (used("", "v1", "pods", &json!({"spec": spec, "status": {"phase": "Failed"}})), "count/pods=1"),
            (used("", "v1", "pods", &json!({"spec": spec, "metadata": {"deletionTimestamp": "2026-11-22T11:59:00Z", "deletionGracePeriodSeconds": 30}})), "count/pods=1"),
            (
                used("", "v1", "services", &json!({"spec": {"type": "LoadBalancer", "ports": [{"port": 1}, {"port": 2}]}})),
                "count/services=1,services=1,services.loadbalancers=1,services.nodeports=2",
            ),
            (
                used("", "v1", "persistentvolumeclaims", &json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "5Gi"}}}})),
                "count/persistentvolumeclaims=1,gold.storageclass.storage.k8s.io/persistentvolumeclaims=1,gold.storageclass.storage.k8s.io/requests.storage=5Gi,persistentvolumeclaims=1,requests.storage=5Gi",
            ),
        ];
        for (have, want) in cases {
            assert_eq!(have, want);
        }
    }

    #[test]
    fn scopes() {
        let pods = table().find("", "v1", "pods").unwrap();
        let quota = |scope: &str| json!({"spec": {"scopes": [scope]}});
        let by_class = |operator: &str| json!({"spec": {"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": operator, "values": ["high"]}]}}});
        let idle = json!({"spec": {"containers": [{"name": "c"}]}});
        let ending = json!({"spec": {"activeDeadlineSeconds": 5, "priorityClassName": "high", "containers": [container(json!({"cpu": "1"}), json!({}))]}});
        for (quota, idle_in, ending_in) in [
            (quota("BestEffort"), true, false),
            (quota("NotBestEffort"), false, true),
            (quota("Terminating"), false, true),
            (quota("NotTerminating"), true, false),
            (by_class("In"), false, true),
            (by_class("NotIn"), true, false),
        ] {
            assert_eq!((in_scope(&quota, pods, &idle), in_scope(&quota, pods, &ending)), (idle_in, ending_in), "{quota}");
        }
        assert!(!in_scope(&quota("BestEffort"), table().find("", "v1", "secrets").unwrap(), &json!({})), "only pods have scopes");
    }

    #[test]
    fn what_must_be_said() {
        let pod = json!({"spec": {"containers": [container(json!({"cpu": "1"}), json!({})), {"name": "d"}]}});
        assert_eq!(missing(&pod, ["cpu", "limits.memory", "pods"].into_iter()).as_deref(), Some("must specify cpu for: d; limits.memory for: c,d"));
        assert_eq!(missing(&pod, ["pods"].into_iter()), None);
    }

    #[test]
    fn resizes_devices_and_classes() {
        let of = |group: &str, plural: &str, object: serde_json::Value| {
            let row = crate::table::table().rows().iter().find(|row| row.group == group && row.plural == plural).unwrap();
            shown(&super::of(row, &object, Timestamp::UNIX_EPOCH))
        };
        let pod = serde_json::json!({"spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}]}, "status": {"containerStatuses": [{"name": "a", "resources": {"requests": {"cpu": "2"}}}]}});
        assert_eq!(of("", "pods", pod), "count/pods=1,cpu=2,pods=1,requests.cpu=2");
        let claim = serde_json::json!({"spec": {"devices": {"requests": [
            {"exactly": {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 2}},
            {"firstAvailable": [{"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 3}, {"deviceClassName": "tpu", "allocationMode": "All"}]},
        ]}}});
        assert_eq!(of("resource.k8s.io", "resourceclaims", claim), "count/resourceclaims.resource.k8s.io=1,gpu.deviceclass.resource.k8s.io/devices=5,tpu.deviceclass.resource.k8s.io/devices=32");
        for (operator, values, names, holds) in [("NotIn", "a", "", true), ("NotIn", "a", "a", false), ("In", "a", "a", true), ("Exists", "", "a", true), ("DoesNotExist", "", "a", false)] {
            assert_eq!(named(operator, &BTreeSet::from([values]), &[names]), holds, "{operator} {values:?} {names:?}");
        }
    }
}
