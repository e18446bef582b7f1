//! Nodes: conditions, capacity, and what the pods on them ask for.

use api::kinds::json::{child, flag, list, map, text};
use api::quantity::Quantity;
use serde_json::Value;

use super::requests::{Amounts, add, amounts, canonical, of_pod};
use super::writer::{Writer, has, joined, line, or, shown_or};
use super::{Related, events};

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";
/// Resources with lines of their own.
const STANDARD: [&str; 4] = ["cpu", "memory", "ephemeral-storage", "pods"];
const HUGE_PAGES: &str = "hugepages-";

pub fn node(node: &Value, related: &Related, w: &mut Writer) {
    line!(w, 0, "Name:\t{}", text(node, "metadata.name"));
    line!(w, 0, "Roles:\t{}", or(&roles(node).join(","), "<none>"));
    w.labels(node);
    w.annotations(node);
    line!(w, 0, "CreationTimestamp:\t{}", w.time(node, "metadata.creationTimestamp"));
    taints(node, w);
    line!(w, 0, "Unschedulable:\t{}", flag(node, "spec.unschedulable"));
    lease(node, related, w);
    conditions(node, w);
    line!(w, 0, "Addresses:");
    for address in list(node, "status.addresses") {
        line!(w, 1, "{}:\t{}", text(address, "type"), text(address, "address"));
    }
    for (title, field) in [("Capacity", "status.capacity"), ("Allocatable", "status.allocatable")] {
        let Some(amounts) = map(node, field).filter(|amounts| !amounts.is_empty()) else { continue };
        line!(w, 0, "{title}:");
        for (name, amount) in amounts {
            line!(w, 1, "{name}:\t{}", canonical(amount));
        }
    }
    line!(w, 0, "System Info:");
    for (title, field) in [
        ("Machine ID", "machineID"), ("System UUID", "systemUUID"), ("Boot ID", "bootID"), ("Kernel Version", "kernelVersion"), ("OS Image", "osImage"),
        ("Operating System", "operatingSystem"), ("Architecture", "architecture"), ("Container Runtime Version", "containerRuntimeVersion"), ("Kubelet Version", "kubeletVersion"),
    ] {
        line!(w, 1, "{title}:\t{}", text(node, &format!("status.nodeInfo.{field}")));
    }
    for (title, value) in [("PodCIDR", text(node, "spec.podCIDR")), ("PodCIDRs", &joined(node, "spec.podCIDRs", ",")), ("ProviderID", text(node, "spec.providerID"))] {
        if !value.is_empty() {
            line!(w, 0, "{title}:\t{value}");
        }
    }
    match &related.pods {
        Some(pods) => resources(node, pods, w),
        None => line!(w, 0, "Pods:\tnot authorized"),
    }
    events::events(related, w);
}

fn roles(node: &Value) -> Vec<&str> {
    let mut roles: Vec<&str> = Vec::new();
    for (key, value) in map(node, "metadata.labels").into_iter().flatten() {
        let role = key.strip_prefix(ROLE_PREFIX).or_else(|| value.as_str().filter(|_| key == ROLE_LABEL));
        roles.extend(role.filter(|role| !role.is_empty()));
    }
    roles.sort_unstable();
    roles.dedup();
    roles
}

fn taints(node: &Value, w: &mut Writer) {
    let mut taints: Vec<&Value> = list(node, "spec.taints").iter().collect();
    taints.sort_by_key(|taint| format!("{},{}", text(taint, "effect"), text(taint, "key")));
    let lines = taints.into_iter().map(|taint| {
        let (key, value, effect) = (text(taint, "key"), text(taint, "value"), text(taint, "effect"));
        match (value, effect) {
            ("", "") => key.to_owned(),
            ("", effect) => format!("{key}:{effect}"),
            (value, "") => format!("{key}={value}:"),
            (value, effect) => format!("{key}={value}:{effect}"),
        }
    });
    w.each("", "Taints", lines);
}

fn lease(node: &Value, related: &Related, w: &mut Writer) {
    let name = text(node, "metadata.name");
    let Some(lease) = related.leases.iter().find(|lease| text(lease, "metadata.name") == name) else {
        line!(w, 0, "Lease:\tFailed to get lease: leases.coordination.k8s.io {name:?} not found");
        return;
    };
    line!(w, 0, "Lease:");
    line!(w, 1, "HolderIdentity:\t{}", shown_or(lease, "spec.holderIdentity", "<unset>"));
    for (title, field) in [("AcquireTime", "spec.acquireTime"), ("RenewTime", "spec.renewTime")] {
        let time = if has(lease, field) { w.time(lease, field) } else { "<unset>".to_owned() };
        line!(w, 1, "{title}:\t{time}");
    }
}

fn conditions(node: &Value, w: &mut Writer) {
    let conditions = list(node, "status.conditions");
    if conditions.is_empty() {
        return;
    }
    w.write(0, "Conditions:\n  Type\tStatus\tLastHeartbeatTime\tLastTransitionTime\tReason\tMessage\n");
    line!(w, 1, "----\t------\t-----------------\t------------------\t------\t-------");
    for condition in conditions {
        let (heartbeat, transition) = (w.time(condition, "lastHeartbeatTime"), w.time(condition, "lastTransitionTime"));
        line!(w, 1, "{} \t{} \t{heartbeat} \t{transition} \t{} \t{}", text(condition, "type"), text(condition, "status"), text(condition, "reason"), text(condition, "message"));
    }
}

/// The share of the whole, in percent, toward zero as Go converts.
fn percent(part: i64, whole: i64) -> i64 {
    if whole == 0 { 0 } else { (part as f64 / whole as f64 * 100.0) as i64 }
}

/// `100m (5%)`
fn share(amounts: &Amounts, allocatable: &Amounts, name: &str) -> String {
    let of = |amounts: &Amounts| amounts.get(name).copied().unwrap_or_default();
    let unit = |amount: Quantity| if name == "cpu" { amount.milli_value() } else { amount.value() };
    format!("{} ({}%)", of(amounts), percent(unit(of(amounts)), unit(of(allocatable))))
}

fn resources(node: &Value, pods: &[Value], w: &mut Writer) {
    line!(w, 0, "Non-terminated Pods:\t({} in total)", pods.len());
    line!(w, 1, "Namespace\tName\t\tCPU Requests\tCPU Limits\tMemory Requests\tMemory Limits\tAge");
    line!(w, 1, "---------\t----\t\t------------\t----------\t---------------\t-------------\t---");
    let field = if child(node, "status.allocatable").and_then(Value::as_object).is_some_and(|amounts| !amounts.is_empty()) { "status.allocatable" } else { "status.capacity" };
    let allocatable = amounts(node, field);
    let (mut requests, mut limits) = (Amounts::new(), Amounts::new());
    for pod in pods {
        let (request, limit) = (of_pod(pod, "requests"), of_pod(pod, "limits"));
        let age = w.since(pod, "metadata.creationTimestamp");
        line!(
            w, 1, "{}\t{}\t\t{}\t{}\t{}\t{}\t{age}",
            text(pod, "metadata.namespace"), text(pod, "metadata.name"),
            share(&request, &allocatable, "cpu"), share(&limit, &allocatable, "cpu"), share(&request, &allocatable, "memory"), share(&limit, &allocatable, "memory")
        );
        add(&mut requests, &request);
        add(&mut limits, &limit);
    }
    w.write(0, "Allocated resources:\n  (Total limits may be over 100 percent, i.e., overcommitted.)\n");
    line!(w, 1, "Resource\tRequests\tLimits");
    line!(w, 1, "--------\t--------\t------");
    let huge = allocatable.keys().map(String::as_str).filter(|name| name.starts_with(HUGE_PAGES));
    for name in STANDARD[..3].iter().copied().chain(huge) {
        line!(w, 1, "{name}\t{}\t{}", share(&requests, &allocatable, name), share(&limits, &allocatable, name));
    }
    for name in allocatable.keys().filter(|name| !STANDARD.contains(&name.as_str()) && !name.starts_with(HUGE_PAGES)) {
        let of = |amounts: &Amounts| amounts.get(name).copied().unwrap_or_default();
        line!(w, 1, "{name}\t{}\t{}", of(&requests), of(&limits));
    }
}
