//! Persistent volumes and claims, storage classes, CSI nodes, volume attributes classes.

use api::kinds::json::{child, entry, list, text};
use serde_json::Value;

use super::requests::canonical;
use super::volumes::source;
use super::writer::{Writer, capital_or_unset, format_labels, has, integer, joined, line, shown_or, storage_class as class_name};
use super::{Related, events};

fn access_modes(object: &Value, path: &str) -> String {
    let modes = list(object, path);
    let short = [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    short.iter().filter(|(mode, _)| modes.iter().any(|given| given == mode)).map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

fn quantity(object: &Value, path: &str) -> String {
    child(object, path).map_or_else(|| "0".to_owned(), canonical)
}

pub fn persistent_volume(object: &Value, related: &Related, w: &mut Writer) {
    w.cluster_head(object);
    line!(w, 0, "Finalizers:\t{}", shown_or(object, "metadata.finalizers", "[]"));
    line!(w, 0, "StorageClass:\t{}", class_name(object));
    line!(w, 0, "Status:\t{}", w.terminating(object).unwrap_or_else(|| text(object, "status.phase").to_owned()));
    let claim = child(object, "spec.claimRef").map(|claim| format!("{}/{}", text(claim, "namespace"), text(claim, "name"))).unwrap_or_default();
    line!(w, 0, "Claim:\t{claim}");
    line!(w, 0, "Reclaim Policy:\t{}", text(object, "spec.persistentVolumeReclaimPolicy"));
    line!(w, 0, "Access Modes:\t{}", access_modes(object, "spec.accessModes"));
    if has(object, "spec.volumeMode") {
        line!(w, 0, "VolumeMode:\t{}", text(object, "spec.volumeMode"));
    }
    line!(w, 0, "Capacity:\t{}", quantity(object, "spec.capacity.storage"));
    match child(object, "spec.nodeAffinity.required") {
        None => line!(w, 0, "Node Affinity:\t<none>"),
        Some(required) => {
            line!(w, 0, "Node Affinity:\t");
            let terms = list(required, "nodeSelectorTerms");
            line!(w, 1, "Required Terms:\t{}", if terms.is_empty() { "<none>" } else { "" });
            for (at, term) in terms.iter().enumerate() {
                requirements(list(term, "matchExpressions"), 2, at, w);
            }
        }
    }
    line!(w, 0, "Message:\t{}", text(object, "status.message"));
    line!(w, 0, "Source:");
    source(child(object, "spec").unwrap_or(&Value::Null), w);
    events::events(related, w);
}

/// `Term 0: key in [a, b]`; no operator reads as `in`.
fn requirements(expressions: &[Value], level: usize, term: usize, w: &mut Writer) {
    w.write(level, &format!("Term {term}:\t"));
    if expressions.is_empty() {
        w.write(0, "<none>\n");
    }
    for (at, expression) in expressions.iter().enumerate() {
        if at > 0 {
            w.write(level, "\t");
        }
        let operator = match text(expression, "operator") {
            "" => "in".to_owned(),
            operator => operator.to_lowercase(),
        };
        let values = if list(expression, "values").is_empty() { String::new() } else { format!(" [{}]", joined(expression, "values", ", ")) };
        line!(w, 0, "{} {operator}{values}", text(expression, "key"));
    }
}

pub fn persistent_volume_claim(object: &Value, related: &Related, w: &mut Writer) {
    claim(object, true, w);
    let name = text(object, "metadata.name");
    let owners = list(object, "metadata.ownerReferences");
    let mut users: Vec<&str> = Vec::new();
    for pod in related.pods.as_deref().unwrap_or_default() {
        let mounts = list(pod, "spec.volumes").iter().filter(|volume| text(volume, "persistentVolumeClaim.claimName") == name).count();
        let owns = owners.iter().any(|owner| text(owner, "kind") == "Pod" && text(owner, "uid") == text(pod, "metadata.uid"));
        users.extend(std::iter::repeat_n(text(pod, "metadata.name"), mounts.max(usize::from(owns))));
    }
    users.sort_unstable();
    w.each("", "Used By", users.into_iter().map(str::to_owned));
    let conditions = list(object, "status.conditions");
    if !conditions.is_empty() {
        line!(w, 0, "Conditions:");
        line!(w, 1, "Type\tStatus\tLastProbeTime\tLastTransitionTime\tReason\tMessage");
        line!(w, 1, "----\t------\t-----------------\t------------------\t------\t-------");
    }
    for condition in conditions {
        let (probe, transition) = (w.time(condition, "lastProbeTime"), w.time(condition, "lastTransitionTime"));
        line!(w, 1, "{} \t{} \t{probe} \t{transition} \t{} \t{}", text(condition, "type"), text(condition, "status"), text(condition, "reason"), text(condition, "message"));
    }
    events::events(related, w);
}

/// `whole` is false for the template of a claim, which has neither name nor status.
pub fn claim(object: &Value, whole: bool, w: &mut Writer) {
    if whole {
        line!(w, 0, "Name:\t{}", text(object, "metadata.name"));
        line!(w, 0, "Namespace:\t{}", text(object, "metadata.namespace"));
    }
    line!(w, 0, "StorageClass:\t{}", class_name(object));
    if whole {
        line!(w, 0, "Status:\t{}", w.terminating(object).unwrap_or_else(|| text(object, "status.phase").to_owned()));
    }
    let volume = text(object, "spec.volumeName");
    line!(w, 0, "Volume:\t{volume}");
    w.labels(object);
    w.annotations(object);
    if whole {
        line!(w, 0, "Finalizers:\t{}", shown_or(object, "metadata.finalizers", "[]"));
    }
    let bound = !volume.is_empty();
    line!(w, 0, "Capacity:\t{}", if bound { quantity(object, "status.capacity.storage") } else { String::new() });
    line!(w, 0, "Access Modes:\t{}", if bound { access_modes(object, "status.accessModes") } else { String::new() });
    if has(object, "spec.volumeMode") {
        line!(w, 0, "VolumeMode:\t{}", text(object, "spec.volumeMode"));
    }
    if let Some(data) = child(object, "spec.dataSource") {
        line!(w, 0, "DataSource:");
        if has(data, "apiGroup") {
            line!(w, 1, "APIGroup:\t{}", text(data, "apiGroup"));
        }
        line!(w, 1, "Kind:\t{}", text(data, "kind"));
        line!(w, 1, "Name:\t{}", text(data, "name"));
    }
}

pub fn storage_class(object: &Value, related: &Related, w: &mut Writer) {
    let default = |key| entry(object, "metadata.annotations", key) == Some("true");
    let is_default = default("storageclass.kubernetes.io/is-default-class") || default("storageclass.beta.kubernetes.io/is-default-class");
    line!(w, 0, "Name:\t{}", text(object, "metadata.name"));
    line!(w, 0, "IsDefaultClass:\t{}", if is_default { "Yes" } else { "No" });
    line!(w, 0, "Annotations:\t{}", format_labels(object, "metadata.annotations"));
    line!(w, 0, "Provisioner:\t{}", text(object, "provisioner"));
    line!(w, 0, "Parameters:\t{}", format_labels(object, "parameters"));
    line!(w, 0, "AllowVolumeExpansion:\t{}", capital_or_unset(object, "allowVolumeExpansion"));
    let options = list(object, "mountOptions");
    line!(w, 0, "MountOptions:{}", if options.is_empty() { "\t<none>" } else { "" });
    for option in options.iter().filter_map(Value::as_str) {
        line!(w, 1, "{option}");
    }
    for (label, field) in [("ReclaimPolicy", "reclaimPolicy"), ("VolumeBindingMode", "volumeBindingMode")] {
        if has(object, field) {
            line!(w, 0, "{label}:\t{}", text(object, field));
        }
    }
    if has(object, "allowedTopologies") {
        let terms = list(object, "allowedTopologies");
        line!(w, 0, "AllowedTopologies:\t{}", if terms.is_empty() { "<none>" } else { "" });
        for (at, term) in terms.iter().enumerate() {
            requirements(list(term, "matchLabelExpressions"), 1, at, w);
        }
    }
    events::events(related, w);
}

pub fn volume_attributes_class(object: &Value, related: &Related, w: &mut Writer) {
    line!(w, 0, "Name:\t{}", text(object, "metadata.name"));
    line!(w, 0, "Annotations:\t{}", format_labels(object, "metadata.annotations"));
    line!(w, 0, "DriverName:\t{}", text(object, "driverName"));
    line!(w, 0, "Parameters:\t{}", format_labels(object, "parameters"));
    events::events(related, w);
}

pub fn csi_node(object: &Value, related: &Related, w: &mut Writer) {
    w.cluster_head(object);
    line!(w, 0, "CreationTimestamp:\t{}", w.time(object, "metadata.creationTimestamp"));
    line!(w, 0, "Spec:");
    if has(object, "spec.drivers") {
        line!(w, 1, "Drivers:");
    }
    for driver in list(object, "spec.drivers") {
        line!(w, 2, "{}:", text(driver, "name"));
        line!(w, 3, "Node ID:\t{}", text(driver, "nodeID"));
        if has(driver, "allocatable.count") {
            line!(w, 3, "Allocatables:");
            line!(w, 4, "Count:\t{}", integer(driver, "allocatable.count"));
        }
        if has(driver, "topologyKeys") {
            line!(w, 3, "Topology Keys:\t{}", shown_or(driver, "topologyKeys", "[]"));
        }
    }
    events::events(related, w);
}
