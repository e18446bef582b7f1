//! Nodes, namespaces, leases, events, component statuses.

use jiff::Timestamp;
use serde_json::Value;

use super::format::{NONE, UNKNOWN, name, or};
use super::{Printer, age, since};
use crate::kinds::json::{child, flag, list, map, number, text};

const NODES: Printer = Printer { columns: "Name|Status|Roles|Age|Version|Internal-IP*|External-IP*|OS-Image*|Kernel-Version*|Container-Runtime*", cells: node };

const NAMESPACES: Printer = Printer { columns: "Name|Status|Age", cells: |object, now| vec![name(object), text(object, "status.phase").into(), age(object, now).into()] };

const LEASES: Printer = Printer { columns: "Name|Holder|Age", cells: |object, now| vec![name(object), text(object, "spec.holderIdentity").into(), age(object, now).into()] };

const LEASE_CANDIDATES: Printer = Printer {
    columns: "Name|LeaseName|BinaryVersion|EmulationVersion|Age",
    cells: |object, now| vec![name(object), text(object, "spec.leaseName").into(), text(object, "spec.binaryVersion").into(), text(object, "spec.emulationVersion").into(), age(object, now).into()],
};

const EVENTS: Printer = Printer { columns: "Last Seen|Type|Reason|Object|Subobject*|Source*|Message|First Seen*|Count*|Name*", cells: event };

const COMPONENT_STATUSES: Printer = Printer {
    columns: "Name|Status|Message|Error",
    cells: |object, _| {
        let healthy = list(object, "conditions").iter().find(|condition| text(condition, "type") == "Healthy");
        let status = healthy.map_or("Unknown", |condition| if text(condition, "status") == "True" { "Healthy" } else { "Unhealthy" });
        let of = |path: &str| Value::from(healthy.map_or("", |condition| text(condition, path)));
        vec![name(object), status.into(), of("message"), of("error")]
    },
};

pub fn printer(group: &str, plural: &str) -> Option<&'static Printer> {
    Some(match (group, plural) {
        ("", "nodes") => &NODES,
        ("", "namespaces") => &NAMESPACES,
        ("coordination.k8s.io", "leases") => &LEASES,
        ("coordination.k8s.io", "leasecandidates") => &LEASE_CANDIDATES,
        ("" | "events.k8s.io", "events") => &EVENTS,
        ("", "componentstatuses") => &COMPONENT_STATUSES,
        _ => return None,
    })
}

fn node(node: &Value, now: Timestamp) -> Vec<Value> {
    let ready = list(node, "status.conditions").iter().rev().find(|condition| text(condition, "type") == "Ready");
    let mut status = ready.map_or("Unknown", |condition| if text(condition, "status") == "True" { "Ready" } else { "NotReady" }).to_owned();
    if flag(node, "spec.unschedulable") {
        status.push_str(",SchedulingDisabled");
    }
    let mut roles: Vec<&str> = Vec::new();
    for (key, value) in map(node, "metadata.labels").into_iter().flatten() {
        if let Some(role) = key.strip_prefix("node-role.kubernetes.io/") {
            roles.push(role);
        } else if key == "kubernetes.io/role" {
            roles.push(value.as_str().unwrap_or_default());
        }
    }
    roles.retain(|role| !role.is_empty());
    roles.sort_unstable();
    roles.dedup();
    let address = |kind: &str| list(node, "status.addresses").iter().find(|address| text(address, "type") == kind).map_or(NONE, |address| text(address, "address"));
    let info = |field: &str| child(node, "status.nodeInfo").map_or("", |info| text(info, field));
    let architecture = info("architecture");
    let mut kernel = or(info("kernelVersion"), UNKNOWN).to_owned();
    if !architecture.is_empty() {
        kernel = format!("{kernel} ({architecture})");
    }
    vec![
        name(node),
        status.into(),
        or(&roles.join(","), NONE).into(),
        age(node, now).into(),
        info("kubeletVersion").into(),
        address("InternalIP").into(),
        address("ExternalIP").into(),
        or(info("osImage"), UNKNOWN).into(),
        kernel.into(),
        or(info("containerRuntimeVersion"), UNKNOWN).into(),
    ]
}

/// Reads `v1` and `events.k8s.io/v1`, which name the same fields differently.
fn event(event: &Value, now: Timestamp) -> Vec<Value> {
    let either = |a: &str, b: &str| or(text(event, a), text(event, b)).to_owned();
    let ago = |at: &str| since(at, now);
    let event_time = text(event, "eventTime");
    let first = match either("firstTimestamp", "deprecatedFirstTimestamp") {
        at if at.is_empty() => ago(event_time),
        at => ago(&at),
    };
    let mut last = match either("lastTimestamp", "deprecatedLastTimestamp") {
        at if at.is_empty() => first.clone(),
        at => ago(&at),
    };
    let mut count = number(event, "count").or_else(|| number(event, "deprecatedCount")).unwrap_or(0).max(1);
    if let Some(series) = child(event, "series") {
        last = ago(text(series, "lastObservedTime"));
        count = number(series, "count").unwrap_or(0);
    }
    let kind = either("involvedObject.kind", "regarding.kind").to_lowercase();
    let target = match either("involvedObject.name", "regarding.name") {
        name if name.is_empty() => kind,
        name => format!("{kind}/{name}"),
    };
    let component = either("source.component", "deprecatedSource.component");
    let component = or(&component, or(text(event, "reportingComponent"), text(event, "reportingController"))).to_owned();
    let host = either("source.host", "deprecatedSource.host");
    let source = match or(&host, text(event, "reportingInstance")) {
        "" => component,
        host => format!("{component}, {host}"),
    };
    vec![
        last.into(),
        text(event, "type").into(),
        text(event, "reason").into(),
        target.into(),
        either("involvedObject.fieldPath", "regarding.fieldPath").into(),
        source.into(),
        either("message", "note").trim().into(),
        first.into(),
        count.into(),
        name(event),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::tests::line;
    use serde_json::json;

    #[test]
    fn nodes() {
        let node = json!({
            "metadata": {"name": "node1", "labels": {"node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "x"}}, "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "10.0.0.2"}],
                "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "Debian", "kernelVersion": "6.1", "architecture": "amd64", "containerRuntimeVersion": "coracle://0.1.0"}}});
        assert_eq!(line("", "v1", "nodes", node), "node1|Ready,SchedulingDisabled|control-plane,x|5m|v1.36.0|10.0.0.2|<none>|Debian|6.1 (amd64)|coracle://0.1.0");
        assert_eq!(line("", "v1", "nodes", json!({})), "x|Unknown|<none>|5m||<none>|<none>|<unknown>|<unknown>|<unknown>");
        assert_eq!(line("", "v1", "namespaces", json!({"status": {"phase": "Active"}})), "x|Active|5m");
    }

    #[test]
    fn events() {
        let cases = [
            (
                "",
                json!({"type": "Normal", "reason": "Pulled", "involvedObject": {"kind": "Pod", "name": "web", "fieldPath": "spec.containers{a}"}, "message": "done\n",
                    "firstTimestamp": "2026-01-01T00:50:00Z", "lastTimestamp": "2026-01-01T00:59:00Z", "count": 2, "source": {"component": "kubelet", "host": "node1"}}),
                "60s|Normal|Pulled|pod/web|spec.containers{a}|kubelet, node1|done|10m|2|x",
            ),
            (
                "events.k8s.io",
                json!({"type": "Warning", "reason": "R", "regarding": {"kind": "Node", "name": "n"}, "note": "m", "eventTime": "2026-01-01T00:59:30.123456Z", "reportingController": "c"}),
                "29s|Warning|R|node/n||c|m|29s|1|x",
            ),
        ];
        for (group, object, expected) in cases {
            assert_eq!(line(group, "v1", "events", object), expected);
        }
    }
}
