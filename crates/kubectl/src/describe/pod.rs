//! Pods, and the templates of pods.

use api::kinds::json::{child, list, map, text};
use serde_json::Value;

use super::containers::{containers, resources};
use super::volumes::{tolerations, topology_spread, volumes};
use super::writer::{Writer, controller, has, integer, line};
use super::{Related, events, requests};

pub fn pod(pod: &Value, related: &Related, w: &mut Writer) {
    line!(w, 0, "Name:\t{}", text(pod, "metadata.name"));
    line!(w, 0, "Namespace:\t{}", text(pod, "metadata.namespace"));
    if has(pod, "spec.priority") {
        line!(w, 0, "Priority:\t{}", integer(pod, "spec.priority"));
    }
    given(pod, &[("Priority Class Name", "spec.priorityClassName"), ("Runtime Class Name", "spec.runtimeClassName"), ("Service Account", "spec.serviceAccountName")], w);
    match text(pod, "spec.nodeName") {
        "" => line!(w, 0, "Node:\t<none>"),
        node => line!(w, 0, "Node:\t{node}/{}", text(pod, "status.hostIP")),
    }
    if has(pod, "status.startTime") {
        line!(w, 0, "Start Time:\t{}", w.time(pod, "status.startTime"));
    }
    w.labels(pod);
    w.annotations(pod);
    let phase = text(pod, "status.phase");
    match w.terminating(pod) {
        Some(words) if !["Failed", "Succeeded"].contains(&phase) => {
            line!(w, 0, "Status:\t{words}");
            line!(w, 0, "Termination Grace Period:\t{}s", integer(pod, "metadata.deletionGracePeriodSeconds"));
        }
        _ => line!(w, 0, "Status:\t{phase}"),
    }
    given(pod, &[("Reason", "status.reason"), ("Message", "status.message"), ("SeccompProfile", "spec.securityContext.seccompProfile.type")], w);
    if text(pod, "spec.securityContext.seccompProfile.type") == "Localhost" {
        line!(w, 0, "LocalhostProfile:\t{}", text(pod, "spec.securityContext.seccompProfile.localhostProfile"));
    }
    line!(w, 0, "IP:\t{}", text(pod, "status.podIP"));
    let addresses = list(pod, "status.podIPs");
    line!(w, 0, "IPs:{}", if addresses.is_empty() { "\t<none>" } else { "" });
    for address in addresses {
        line!(w, 1, "IP:\t{}", text(address, "ip"));
    }
    if let Some(owner) = controller(pod) {
        line!(w, 0, "Controlled By:\t{owner}");
    }
    given(pod, &[("NominatedNodeName", "status.nominatedNodeName")], w);
    if has(pod, "spec.resources") {
        line!(w, 0, "Resources:");
        resources(pod, "spec.resources", 1, w);
    }
    for (title, field, status, always) in [
        ("Init Containers", "spec.initContainers", "status.initContainerStatuses", false),
        ("Containers", "spec.containers", "status.containerStatuses", true),
        ("Ephemeral Containers", "spec.ephemeralContainers", "status.ephemeralContainerStatuses", false),
    ] {
        let found = list(pod, field);
        if always || !found.is_empty() {
            containers(title, found, list(pod, status), Some(pod), "", w);
        }
    }
    conditions(pod, w);
    volumes(pod, "", w);
    line!(w, 0, "QoS Class:\t{}", requests::qos_class(pod));
    w.pairs("", "Node-Selectors", map(pod, "spec.nodeSelector"));
    tolerations(pod, "", w);
    topology_spread(pod, "", w);
    scheduling_group(pod, "", w);
    events::events(related, w);
}

/// Lines for what is there.
fn given(pod: &Value, lines: &[(&str, &str)], w: &mut Writer) {
    for (label, path) in lines {
        let value = text(pod, path);
        if !value.is_empty() {
            line!(w, 0, "{label}:\t{value}");
        }
    }
}

fn conditions(pod: &Value, w: &mut Writer) {
    let conditions = list(pod, "status.conditions");
    let gates = list(pod, "spec.readinessGates");
    if !gates.is_empty() {
        w.write(0, "Readiness Gates:\n  Type\tStatus\n");
    }
    for gate in gates {
        let kind = text(gate, "conditionType");
        let status = conditions.iter().find(|condition| text(condition, "type") == kind).map_or("<none>", |condition| text(condition, "status"));
        line!(w, 1, "{kind} \t{status} ");
    }
    if !conditions.is_empty() {
        w.write(0, "Conditions:\n  Type\tStatus\n");
    }
    for condition in conditions {
        line!(w, 1, "{} \t{} ", text(condition, "type"), text(condition, "status"));
    }
}

/// The template at a path of a workload.
pub fn template(object: &Value, path: &str, w: &mut Writer) {
    line!(w, 0, "Pod Template:");
    let Some(template) = child(object, path) else {
        w.write(1, "<unset>");
        return;
    };
    w.pairs("", "  Labels", map(template, "metadata.labels"));
    if let Some(annotations) = map(template, "metadata.annotations").filter(|annotations| !annotations.is_empty()) {
        w.annotations_as("  Annotations", Some(annotations));
    }
    let account = text(template, "spec.serviceAccountName");
    if !account.is_empty() {
        line!(w, 1, "Service Account:\t{account}");
    }
    let init = list(template, "spec.initContainers");
    if !init.is_empty() {
        containers("Init Containers", init, &[], None, "  ", w);
    }
    containers("Containers", list(template, "spec.containers"), &[], None, "  ", w);
    volumes(template, "  ", w);
    topology_spread(template, "  ", w);
    let class = text(template, "spec.priorityClassName");
    if !class.is_empty() {
        line!(w, 1, "Priority Class Name:\t{class}");
    }
    w.pairs("", "  Node-Selectors", map(template, "spec.nodeSelector"));
    tolerations(template, "  ", w);
    scheduling_group(template, "  ", w);
}

fn scheduling_group(pod: &Value, indent: &str, w: &mut Writer) {
    if has(pod, "spec.schedulingGroup") {
        line!(w, 0, "{indent}SchedulingGroup:");
        line!(w, 1, "PodGroupName:\t{}", text(pod, "spec.schedulingGroup.podGroupName"));
    }
}
