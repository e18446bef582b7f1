//! StatefulSets.

use serde_json::{Value, json};

use super::json::{child, child_mut, default, empty, list, list_mut, map, number, set, text};
use super::policy::{BUILT_IN, CHANGE, Generation, Policy};
use super::{persistent_volume_claim, pod_spec, workload};
use crate::names;
use crate::selector::LabelSelector;
use crate::internal::{Internal, same};
use crate::validation::{Errors, Path, ShownSelector};

const CHANGEABLE: [&str; 7] = ["replicas", "template", "updateStrategy", "minReadySeconds", "ordinals", "revisionHistoryLimit", "persistentVolumeClaimRetentionPolicy"];
const COUNTS: [&str; 7] = ["replicas", "readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas", "observedGeneration", "collisionCount"];

pub static STATEFUL_SET: Policy = Policy {
    metadata_again: CHANGE,
    generation: Generation::Spec,
    status: true,
    defaults,
    on_create: |object, _| {
        without_max_unavailable(object);
        if let Some(status) = child_mut(object, "status") {
            default(status, "replicas", 0);
            default(status, "availableReplicas", 0);
        }
    },
    on_update: |new, old, _| {
        if child(old, MAX_UNAVAILABLE).is_none() {
            without_max_unavailable(new);
        }
    },
    check,
    check_create: |errors, object| {
        let service = text(object, "spec.serviceName");
        if !service.is_empty() {
            errors.name(&Path::Root("spec.serviceName"), service, names::dns_label);
        }
        let templates = Path::Root("spec.volumeClaimTemplates");
        for (index, template) in list(object, "spec.volumeClaimTemplates").iter().enumerate() {
            if let Some(spec) = child(template, "spec") {
                persistent_volume_claim::spec(errors, &templates.index(index).child("spec"), spec);
            }
        }
    },
    check_update: |errors, new, old| {
        let fixed = |object: &Value| {
            let mut spec = map(object, "spec").cloned().unwrap_or_default();
            CHANGEABLE.iter().for_each(|name| drop(spec.remove(*name)));
            Value::Object(spec)
        };
        if !same("apps.v1.StatefulSetSpec", Some(&fixed(new)), Some(&fixed(old))) {
            errors.forbidden(
                &Path::Root("spec"),
                "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
            );
        }
    },
    check_status: |errors, new, old| {
        workload::status_counts(errors, new, &COUNTS, &["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"], "status.readyReplicas");
        workload::collisions_only_grow(errors, new, old);
    },
    warnings: |object, warnings| {
        workload::template_warnings(object, warnings);
        if number(object, "spec.revisionHistoryLimit").is_some_and(|limit| limit < 0) {
            warnings.push("spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended".to_owned());
        }
    },
    ..BUILT_IN
};

/// Of a feature (MaxUnavailableStatefulSet) that is off in 1.36: only who has the field already may keep it.
const MAX_UNAVAILABLE: &str = "spec.updateStrategy.rollingUpdate.maxUnavailable";

fn without_max_unavailable(object: &mut Value) {
    if let Some(rolling) = child_mut(object, "spec.updateStrategy.rollingUpdate") {
        super::json::take(rolling, "maxUnavailable");
    }
}

fn defaults(object: &mut Value) {
    workload::default_template(object, "spec.template");
    workload::default_numbers(object, &[("replicas", 1), ("revisionHistoryLimit", 10)]);
    default(object, "status", empty());
    let Some(spec) = child_mut(object, "spec") else { return };
    default(spec, "podManagementPolicy", "OrderedReady");
    if text(spec, "updateStrategy.type").is_empty()
        && let Some(strategy) = workload::nested(spec, "updateStrategy")
    {
        set(strategy, "type", "RollingUpdate");
        default(strategy, "rollingUpdate", empty());
    }
    if text(spec, "updateStrategy.type") == "RollingUpdate"
        && let Some(rolling) = child_mut(spec, "updateStrategy.rollingUpdate")
    {
        default(rolling, "partition", 0);
    }
    if let Some(policy) = workload::nested(spec, "persistentVolumeClaimRetentionPolicy") {
        default(policy, "whenDeleted", "Retain");
        default(policy, "whenScaled", "Retain");
    }
    for template in list_mut(spec, "volumeClaimTemplates") {
        persistent_volume_claim::defaults(template);
        // Whatever a template says that it is.
        set(template, "apiVersion", "v1");
        set(template, "kind", "PersistentVolumeClaim");
    }
}

fn check(errors: &mut Errors, object: &Value) {
    let none = Value::Null;
    let spec = child(object, "spec").unwrap_or(&none);
    let path = Path::Root("spec");
    match text(spec, "podManagementPolicy") {
        "" => errors.required(&path.child("podManagementPolicy"), ""),
        "OrderedReady" | "Parallel" => {}
        other => errors.invalid(&path.child("podManagementPolicy"), other, "must be 'OrderedReady' or 'Parallel'"),
    }
    let strategy_path = path.child("updateStrategy");
    let rolling = child(spec, "updateStrategy.rollingUpdate");
    match (text(spec, "updateStrategy.type"), rolling) {
        ("", _) => errors.required(&strategy_path, ""),
        ("OnDelete", Some(rolling)) => errors.invalid(&strategy_path.child("rollingUpdate"), &Internal("apps.v1.RollingUpdateStatefulSetStrategy", Some(rolling)), "only allowed for updateStrategy 'RollingUpdate'"),
        ("RollingUpdate", Some(rolling)) => {
            let path = strategy_path.child("rollingUpdate");
            errors.not_negative(&path.child("partition"), number(rolling, "partition"));
            if let Some(unavailable) = child(rolling, "maxUnavailable") {
                let path = path.child("maxUnavailable");
                workload::int_or_percent(errors, &path, Some(unavailable));
                if workload::amount(Some(unavailable)) == 0 {
                    errors.invalid(&path, unavailable, "cannot be 0");
                }
                workload::at_most_all(errors, &path, Some(unavailable));
            }
        }
        ("OnDelete" | "RollingUpdate", None) => {}
        _ => errors.invalid(&strategy_path, &Internal("apps.v1.StatefulSetUpdateStrategy", child(spec, "updateStrategy")), "must be 'RollingUpdate' or 'OnDelete'"),
    }
    for name in ["whenDeleted", "whenScaled"] {
        let value = child(spec, "persistentVolumeClaimRetentionPolicy").map_or("Retain", |policy| text(policy, name));
        if !matches!(value, "Retain" | "Delete") {
            errors.not_supported(&path.child("persistentVolumeClaimRetentionPolicy").child(name), value, &["Retain", "Delete"]);
        }
    }
    workload::spec_not_negative(errors, object, &["replicas", "minReadySeconds", "ordinals.start"]);
    let selector_path = path.child("selector");
    match child(spec, "selector") {
        None => errors.required(&selector_path, ""),
        Some(selector) => {
            errors.label_selector(&selector_path, Some(selector));
            if LabelSelector::from_json(selector).is_ok_and(|selector| selector.is_empty()) {
                errors.invalid(&selector_path, &ShownSelector(selector), "empty selector is invalid for statefulset");
            }
        }
    }
    if let Some(selector) = workload::parsed_selector(errors, object, "") {
        workload::selector_matches_template(errors, object, &selector);
    }
    // The claims of the templates count as volumes; hostname and subdomain are the controller's.
    let mut template = child(spec, "template").cloned().unwrap_or(Value::Null);
    if let Some(pod) = child_mut(&mut template, "spec") {
        for name in ["hostname", "subdomain"] {
            super::json::take(pod, name);
        }
        let claims: Vec<Value> =
            list(spec, "volumeClaimTemplates").iter().map(|claim| json!({"name": text(claim, "metadata.name"), "persistentVolumeClaim": {"claimName": text(claim, "metadata.name")}})).collect();
        let others = list(pod, "volumes").iter().filter(|volume| !claims.iter().any(|claim| text(claim, "name") == text(volume, "name"))).cloned().collect::<Vec<_>>();
        set(pod, "volumes", claims.iter().cloned().chain(others).collect::<Vec<_>>());
    }
    pod_spec::template(errors, &path.child("template"), &template);
    workload::running_template(errors, &template, "StatefulSet");
}
