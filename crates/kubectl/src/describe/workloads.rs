//! Deployments, ReplicaSets, ReplicationControllers, DaemonSets, StatefulSets.

use api::kinds::json::{child, flag, list, map, text};
use serde_json::Value;

use super::pod::template;
use super::requests::canonical;
use super::writer::{Writer, controller, format_labels, format_selector, has, integer, line, or, selector, shown_or, storage_class};
use super::{Related, events};

const POD_HASH: &str = "pod-template-hash";

fn controlled(object: &Value, by: &Value) -> bool {
    list(object, "metadata.ownerReferences").iter().any(|owner| flag(owner, "controller") && text(owner, "uid") == text(by, "metadata.uid"))
}

/// `1 Running / 0 Waiting / 0 Succeeded / 0 Failed`
fn pods_status(object: &Value, related: &Related) -> String {
    let pods = related.pods.as_deref().unwrap_or_default();
    let count = |phase: &str| pods.iter().filter(|pod| controlled(pod, object) && text(pod, "status.phase") == phase).count();
    format!("{} Running / {} Waiting / {} Succeeded / {} Failed", count("Running"), count("Pending"), count("Succeeded"), count("Failed"))
}

fn conditions(object: &Value, w: &mut Writer) {
    let conditions = list(object, "status.conditions");
    if conditions.is_empty() {
        return;
    }
    w.write(0, "Conditions:\n  Type\tStatus\tReason\n");
    line!(w, 1, "----\t------\t------");
    for condition in conditions {
        line!(w, 1, "{} \t{}\t{}", text(condition, "type"), text(condition, "status"), text(condition, "reason"));
    }
}

pub fn deployment(object: &Value, related: &Related, w: &mut Writer) {
    line!(w, 0, "Name:\t{}", text(object, "metadata.name"));
    line!(w, 0, "Namespace:\t{}", text(object, "metadata.namespace"));
    line!(w, 0, "CreationTimestamp:\t{}", w.time(object, "metadata.creationTimestamp"));
    w.labels(object);
    w.annotations(object);
    line!(w, 0, "Selector:\t{}", selector(object, "spec.selector"));
    line!(
        w, 0, "Replicas:\t{} desired | {} updated | {} total | {} available | {} unavailable",
        integer(object, "spec.replicas"), integer(object, "status.updatedReplicas"), integer(object, "status.replicas"), integer(object, "status.availableReplicas"), integer(object, "status.unavailableReplicas")
    );
    line!(w, 0, "StrategyType:\t{}", text(object, "spec.strategy.type"));
    line!(w, 0, "MinReadySeconds:\t{}", integer(object, "spec.minReadySeconds"));
    if let Some(rolling) = child(object, "spec.strategy.rollingUpdate") {
        line!(w, 0, "RollingUpdateStrategy:\t{} max unavailable, {} max surge", shown_or(rolling, "maxUnavailable", "<nil>"), shown_or(rolling, "maxSurge", "<nil>"));
    }
    template(object, "spec.template", w);
    conditions(object, w);
    let mut sets: Vec<&Value> = related.replica_sets.iter().filter(|set| controlled(set, object)).collect();
    if !sets.is_empty() {
        sets.sort_by_key(|set| (text(set, "metadata.creationTimestamp"), text(set, "metadata.name")));
        let newest = sets.iter().position(|set| same_template(set, object));
        let told = |sets: &[&Value]| {
            let words: Vec<String> = sets
                .iter()
                .map(|set| format!("{} ({}/{} replicas created)", text(set, "metadata.name"), integer(set, "status.replicas"), integer(set, "spec.replicas")))
                .collect();
            or(&words.join(", "), "<none>").to_owned()
        };
        let new: Vec<&Value> = newest.map(|at| sets.remove(at)).into_iter().collect();
        line!(w, 0, "OldReplicaSets:\t{}", told(&sets));
        line!(w, 0, "NewReplicaSet:\t{}", told(&new));
    }
    events::events(related, w);
}

/// Equal but for the label the controller adds.
fn same_template(set: &Value, deployment: &Value) -> bool {
    let bare = |object: &Value| {
        let mut template = child(object, "spec.template").cloned().unwrap_or_default();
        if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
            labels.remove(POD_HASH);
        }
        template
    };
    bare(set) == bare(deployment)
}

pub fn replica_set(object: &Value, related: &Related, w: &mut Writer) {
    line!(w, 0, "Name:\t{}", text(object, "metadata.name"));
    line!(w, 0, "Namespace:\t{}", text(object, "metadata.namespace"));
    line!(w, 0, "Selector:\t{}", format_selector(object, "spec.selector"));
    replicated(object, related, w);
}

pub fn replication_controller(object: &Value, related: &Related, w: &mut Writer) {
    line!(w, 0, "Name:\t{}", text(object, "metadata.name"));
    line!(w, 0, "Namespace:\t{}", text(object, "metadata.namespace"));
    line!(w, 0, "Selector:\t{}", format_labels(object, "spec.selector"));
    replicated(object, related, w);
}

fn replicated(object: &Value, related: &Related, w: &mut Writer) {
    w.labels(object);
    w.annotations(object);
    if let Some(owner) = controller(object) {
        line!(w, 0, "Controlled By:\t{owner}");
    }
    line!(w, 0, "Replicas:\t{} current / {} desired", integer(object, "status.replicas"), integer(object, "spec.replicas"));
    line!(w, 0, "Pods Status:\t{}", pods_status(object, related));
    template(object, "spec.template", w);
    conditions(object, w);
    events::events(related, w);
}

pub fn daemon_set(object: &Value, related: &Related, w: &mut Writer) {
    line!(w, 0, "Name:\t{}", text(object, "metadata.name"));
    line!(w, 0, "Namespace:\t{}", text(object, "metadata.namespace"));
    line!(w, 0, "Selector:\t{}", selector(object, "spec.selector"));
    line!(w, 0, "Node-Selector:\t{}", format_labels(object, "spec.template.spec.nodeSelector"));
    w.labels(object);
    w.annotations(object);
    for (label, field) in [
        ("Desired Number of Nodes Scheduled", "desiredNumberScheduled"),
        ("Current Number of Nodes Scheduled", "currentNumberScheduled"),
        ("Number of Nodes Scheduled with Up-to-date Pods", "updatedNumberScheduled"),
        ("Number of Nodes Scheduled with Available Pods", "numberAvailable"),
        ("Number of Nodes Misscheduled", "numberMisscheduled"),
    ] {
        line!(w, 0, "{label}: {}", integer(object, &format!("status.{field}")));
    }
    line!(w, 0, "Pods Status:\t{}", pods_status(object, related));
    template(object, "spec.template", w);
    events::events(related, w);
}

pub fn stateful_set(object: &Value, related: &Related, w: &mut Writer) {
    line!(w, 0, "Name:\t{}", text(object, "metadata.name"));
    line!(w, 0, "Namespace:\t{}", text(object, "metadata.namespace"));
    line!(w, 0, "CreationTimestamp:\t{}", w.time(object, "metadata.creationTimestamp"));
    line!(w, 0, "Selector:\t{}", selector(object, "spec.selector"));
    w.labels(object);
    w.annotations(object);
    line!(w, 0, "Replicas:\t{} desired | {} total", integer(object, "spec.replicas"), integer(object, "status.replicas"));
    line!(w, 0, "Update Strategy:\t{}", text(object, "spec.updateStrategy.type"));
    if let Some(rolling) = child(object, "spec.updateStrategy.rollingUpdate").filter(|rolling| has(rolling, "partition")) {
        line!(w, 1, "Partition:\t{}", integer(rolling, "partition"));
        if has(rolling, "maxUnavailable") {
            line!(w, 1, "MaxUnavailable:\t{}", shown_or(rolling, "maxUnavailable", ""));
        }
    }
    line!(w, 0, "Pods Status:\t{}", pods_status(object, related));
    template(object, "spec.template", w);
    claims(list(object, "spec.volumeClaimTemplates"), w);
    events::events(related, w);
}

fn claims(templates: &[Value], w: &mut Writer) {
    line!(w, 0, "Volume Claims:{}", if templates.is_empty() { "\t<none>" } else { "" });
    for claim in templates {
        line!(w, 1, "Name:\t{}", text(claim, "metadata.name"));
        line!(w, 1, "StorageClass:\t{}", storage_class(claim));
        w.pairs("  ", "Labels", map(claim, "metadata.labels"));
        w.pairs("  ", "Annotations", map(claim, "metadata.annotations"));
        line!(w, 1, "Capacity:\t{}", child(claim, "spec.resources.requests.storage").map_or_else(|| "<default>".to_owned(), canonical));
        line!(w, 1, "Access Modes:\t{}", shown_or(claim, "spec.accessModes", "[]"));
    }
}
