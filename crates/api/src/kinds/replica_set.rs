//! ReplicaSets and ReplicationControllers.

use serde_json::Value;

use super::json::{child, child_mut, default, empty, map, number, set};
use super::policy::{BUILT_IN, CHANGE, Generation, Policy};
use super::workload;
use crate::selector::LabelSelector;
use crate::validation::{Errors, Path};

const COUNTS: [&str; 6] = ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration", "terminatingReplicas"];
const WITHIN: [&str; 3] = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];

fn defaults(object: &mut Value) {
    workload::default_template(object, "spec.template");
    workload::default_numbers(object, &[("replicas", 1)]);
    default(object, "status", empty());
}

pub static REPLICA_SET: Policy = Policy {
    metadata_again: CHANGE,
    generation: Generation::Spec,
    status: true,
    defaults,
    on_create: no_replicas_yet,
    check: |errors, object| {
        workload::spec_not_negative(errors, object, &["replicas", "minReadySeconds"]);
        workload::selector(errors, object, "deployment", true);
        if let Some(selector) = workload::parsed_selector(errors, object, "invalid label selector") {
            workload::selector_matches_template(errors, object, &selector);
        }
        workload::template(errors, object, "ReplicaSet");
    },
    check_update: workload::selector_immutable,
    check_status: |errors, new, _| workload::status_counts(errors, new, &COUNTS, &WITHIN, "readyReplicas"),
    warnings: workload::template_warnings,
    selectable: replicas,
    ..BUILT_IN
};

pub static REPLICATION_CONTROLLER: Policy = Policy {
    metadata_again: CHANGE,
    generation: Generation::Spec,
    status: true,
    defaults: |object| {
        defaults(object);
        // Selector and labels come from the template if left out.
        let Some(labels) = child(object, "spec.template.metadata.labels").cloned() else { return };
        if map(object, "spec.selector").is_none_or(serde_json::Map::is_empty)
            && let Some(spec) = child_mut(object, "spec")
        {
            set(spec, "selector", labels.clone());
        }
        if map(object, "metadata.labels").is_none_or(serde_json::Map::is_empty)
            && let Some(metadata) = child_mut(object, "metadata")
        {
            set(metadata, "labels", labels);
        }
    },
    on_create: no_replicas_yet,
    check: check_replication_controller,
    check_status: |errors, new, _| workload::status_counts(errors, new, &COUNTS, &WITHIN, "readyReplicas"),
    warnings: workload::template_warnings,
    selectable: replicas,
    ..BUILT_IN
};

/// `status.replicas` is always shown, even 0.
fn no_replicas_yet(object: &mut Value, _: &crate::strategy::Context) {
    if let Some(status) = child_mut(object, "status") {
        default(status, "replicas", 0);
    }
}

fn replicas(object: &Value, field: &str) -> Option<String> {
    (field == "status.replicas").then(|| number(object, field).unwrap_or(0).to_string())
}

fn check_replication_controller(errors: &mut Errors, object: &Value) {
    workload::spec_not_negative(errors, object, &["minReadySeconds"]);
    let selector = map(object, "spec.selector").filter(|selector| !selector.is_empty());
    if selector.is_none() {
        errors.required(&Path::Root("spec.selector"), "");
    }
    workload::spec_not_negative(errors, object, &["replicas"]);
    let Some(template) = child(object, "spec.template") else { return errors.required(&Path::Root("spec.template"), "") };
    if let Some(selector) = selector {
        workload::selector_matches_template(errors, object, &LabelSelector::from_map(selector));
    }
    super::pod_spec::template(errors, &Path::Root("spec.template"), template);
    workload::running_template(errors, template, "ReplicationController");
}
