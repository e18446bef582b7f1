//! PersistentVolumeClaims, and the claims inside other kinds.

use serde_json::{Value, json};

use super::resources::resource_quantity;
use super::json::{child, child_mut, default, map, set, strings, text};
use super::policy::{BUILT_IN, Policy};
use super::{diff, workload};
use crate::names;
use crate::quantity::Quantity;
use crate::internal::{self, Internal};
use crate::validation::{Errors, Path, Raw};

pub const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

pub static PERSISTENT_VOLUME_CLAIM: Policy = Policy {
    status: true,
    defaults: default_claim,
    on_create: |object, _| {
        set(object, "status", json!({"phase": "Pending"}));
        drop_namespaced_source(object);
    },
    on_update: |new, old, _| {
        if child(old, "spec.dataSourceRef").is_none() {
            drop_namespaced_source(new);
        }
    },
    check: |errors, object| {
        let none = Value::Null;
        spec(errors, &Path::Root("spec"), child(object, "spec").unwrap_or(&none));
    },
    check_update,
    check_status,
    ..BUILT_IN
};

/// A source in another namespace needs a gate that is off; only a claim that has one already keeps it.
fn drop_namespaced_source(claim: &mut Value) {
    if let Some(spec) = child_mut(claim, "spec")
        && !text(spec, "dataSourceRef.namespace").is_empty()
    {
        super::json::take(spec, "dataSourceRef");
    }
}

/// Of a claim inside another kind.
pub fn defaults(claim: &mut Value) {
    drop_namespaced_source(claim);
    default_claim(claim);
}

fn default_claim(claim: &mut Value) {
    if let Some(spec) = child_mut(claim, "spec") {
        super::json::default_unset(spec, "volumeMode", "Filesystem");
        // Only what could be cloned from ever since may stand here; others stand in dataSourceRef (EnforceDataSourceBackwardsCompatibility).
        if let Some(source) = child(spec, "dataSource")
            && !matches!((text(source, "apiGroup"), text(source, "kind")), ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot"))
            && child(spec, "dataSourceRef").is_none()
        {
            super::json::take(spec, "dataSource");
        }
        // A data source in either place is shown in both.
        for (from, to) in [("dataSource", "dataSourceRef"), ("dataSourceRef", "dataSource")] {
            if let Some(source) = child(spec, from).cloned()
                && child(spec, to).is_none()
                && text(&source, "namespace").is_empty()
            {
                set(spec, to, source);
            }
        }
    }
    if let Some(status) = workload::nested(claim, "status") {
        default(status, "phase", "Pending");
    }
}

pub fn access_modes(errors: &mut Errors, path: &Path, spec: &Value, required: &str) {
    let modes: Vec<&str> = strings(spec, "accessModes").collect();
    if modes.is_empty() {
        errors.required(path, required);
    }
    for mode in modes.iter().filter(|mode| !ACCESS_MODES.contains(mode)) {
        errors.not_supported(path, *mode, &ACCESS_MODES);
    }
    let only = "ReadWriteOncePod";
    if modes.contains(&only) && modes.iter().any(|mode| *mode != only && ACCESS_MODES.contains(mode)) {
        errors.forbidden(path, "may not use ReadWriteOncePod with other access modes");
    }
}

/// `ValidatePersistentVolumeClaimSpec`.
pub fn spec(errors: &mut Errors, path: &Path, spec: &Value) {
    let modes_missing = strings(spec, "accessModes").next().is_none();
    if modes_missing {
        errors.required(&path.child("accessModes"), "at least 1 access mode is required");
    }
    errors.label_selector(&path.child("selector"), child(spec, "selector"));
    if !modes_missing {
        access_modes(errors, &path.child("accessModes"), spec, "");
    }
    let resources = path.child("resources");
    let storage_path = resources.key("storage");
    match map(spec, "resources.requests").and_then(|requests| requests.get("storage")) {
        None => errors.required(&storage_path, ""),
        Some(value) => {
            let quantity = Quantity::from_json(value).unwrap_or_default();
            if quantity.sign() <= 0 {
                errors.invalid(&storage_path, quantity.to_string().as_str(), "must be greater than zero");
            } else {
                resource_quantity(errors, &storage_path, "storage", value);
            }
        }
    }
    for name in ["storageClassName", "volumeAttributesClassName"] {
        let class = text(spec, name);
        if !class.is_empty() {
            errors.name(&path.child(name), class, names::dns_subdomain);
        }
    }
    let mode = text(spec, "volumeMode");
    if child(spec, "volumeMode").is_some() && !matches!(mode, "Block" | "Filesystem") {
        errors.not_supported(&path.child("volumeMode"), mode, &["Block", "Filesystem"]);
    }
    for name in ["dataSource", "dataSourceRef"] {
        let Some(source) = child(spec, name) else { continue };
        let path = path.child(name);
        for field in ["name", "kind"] {
            if text(source, field).is_empty() {
                errors.required(&path.child(field), "");
            }
        }
        let (group, kind) = (text(source, "apiGroup"), text(source, "kind"));
        if group.is_empty() && kind != "PersistentVolumeClaim" {
            errors.invalid(&path, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup");
        }
        if !group.is_empty() {
            errors.name(&path.child("apiGroup"), group, names::dns_subdomain);
        }
    }
    let namespace = text(spec, "dataSourceRef.namespace");
    if !namespace.is_empty() {
        errors.name(&path.child("dataSourceRef").child("namespace"), namespace, names::dns_label);
    }
    let Some((source, reference)) = child(spec, "dataSource").zip(child(spec, "dataSourceRef")) else { return };
    // Upstream shows a path here, which has nothing to show.
    let shown = Raw("{}");
    if !namespace.is_empty() {
        errors.invalid(path, &shown, "may not be specified when dataSourceRef.namespace is specified");
    } else if !internal::same("core.v1.TypedLocalObjectReference", Some(source), Some(&without_namespace(reference))) {
        // What stands in both places is the same.
        errors.invalid(path, &shown, "must match dataSourceRef");
    }
}

fn without_namespace(reference: &Value) -> Value {
    let mut reference = reference.clone();
    super::json::take(&mut reference, "namespace");
    reference
}

const RESIZES: [&str; 5] = ["ControllerResizeInProgress", "ControllerResizeInfeasible", "NodeResizeInProgress", "NodeResizeInfeasible", "NodeResizePending"];

fn check_status(errors: &mut Errors, new: &Value, _: &Value) {
    let path = Path::Root("status");
    let capacity = path.child("capacity");
    for (name, value) in map(new, "status.capacity").into_iter().flatten() {
        basic_resource(errors, &capacity.key(name), value);
    }
    let statuses = path.child("allocatedResourceStatuses");
    for (name, value) in map(new, "status.allocatedResourceStatuses").into_iter().flatten() {
        resource_key(errors, &statuses, name);
        if !value.as_str().is_some_and(|value| RESIZES.contains(&value)) {
            errors.not_supported(&statuses, name, &RESIZES);
        }
    }
    let allocated = path.child("allocatedResources");
    for (name, value) in map(new, "status.allocatedResources").into_iter().flatten() {
        let before = errors.len();
        resource_key(errors, &allocated, name);
        if errors.len() > before {
            continue;
        }
        basic_resource(errors, &allocated.key(name), value);
        if errors.len() == before {
            resource_quantity(errors, &allocated.key(name), "storage", value);
        }
    }
}

fn basic_resource(errors: &mut Errors, path: &Path, value: &Value) {
    if let Some(quantity) = Quantity::from_json(value).ok().filter(Quantity::is_negative) {
        errors.invalid(path, &quantity.value(), "must be a valid resource quantity");
    }
}

/// `storage`, or a name with a domain that is not the API's own.
fn resource_key(errors: &mut Errors, path: &Path, name: &str) {
    let wrong = names::qualified_name(name);
    if !wrong.is_empty() {
        return errors.invalid_each(path, name, wrong);
    }
    if name != "storage" && (!name.contains('/') || name.contains("kubernetes.io/")) {
        errors.not_supported(path, name, &["storage"]);
    }
}

fn check_update(errors: &mut Errors, new: &Value, old: &Value) {
    let none = Value::Null;
    let (mut changed, mut before) = (child(new, "spec").unwrap_or(&none).clone(), child(old, "spec").unwrap_or(&none).clone());
    let put = |to: &mut Value, name: &str, from: &Value| {
        if let Some(map) = to.as_object_mut() {
            match from.get(name) {
                Some(value) => map.insert(name.to_owned(), value.clone()),
                None => map.remove(name),
            };
        }
    };
    if text(old, "spec.volumeName").is_empty() {
        let now = changed.clone();
        put(&mut before, "volumeName", &now);
    }
    if child(old, "spec.storageClassName").is_none() {
        let then = before.clone();
        put(&mut changed, "storageClassName", &then);
    }
    let storage = |object: &Value, path: &str| Quantity::from_json(map(object, path).and_then(|list| list.get("storage")).unwrap_or(&Value::Null)).unwrap_or_default();
    if text(new, "status.phase") == "Bound" {
        let then = before.clone();
        put(&mut changed, "volumeAttributesClassName", &then);
        if let (Some(requests), Some(size)) = (child_mut(&mut changed, "resources.requests"), map(old, "spec.resources.requests").and_then(|list| list.get("storage"))) {
            set(requests, "storage", size.clone());
        }
    }
    const SPEC: &str = "core.v1.PersistentVolumeClaimSpec";
    if !internal::same(SPEC, Some(&changed), Some(&before)) {
        let diff = diff::unified(&Internal(SPEC, Some(&before)).lines(true), &Internal(SPEC, Some(&changed)).lines(false));
        errors.forbidden(&Path::Root("spec"), &format!("spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n{diff}"));
    }
    let (new_size, old_size) = (storage(new, "spec.resources.requests"), storage(old, "spec.resources.requests"));
    if new_size < old_size && new_size <= storage(old, "status.capacity") {
        errors.forbidden(&Path::Root("spec.resources.requests.storage"), "field can not be less than status.capacity");
    }
    errors.immutable(&Path::Root("volumeMode"), child(new, "spec.volumeMode"), child(old, "spec.volumeMode"));
    // The class of a volume that has one cannot be taken away.
    if child(old, "status.currentVolumeAttributesClassName").is_some() {
        let to = match child(new, "spec.volumeAttributesClassName").and_then(Value::as_str) {
            None => "nil",
            Some("") => "empty string",
            Some(_) => return,
        };
        errors.forbidden(&Path::Root("spec.volumeAttributesClassName"), &format!("update to {to} is forbidden when status.currentVolumeAttributesClassName is not nil"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{create, lines, update};
    use crate::strategy::Strategy;

    /// As the real server answered these.
    #[test]
    fn the_spec_stays() {
        let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "volumeName": "v", "storageClassName": "sc"}});
        let (made, causes) = create("", "persistentvolumeclaims", claim);
        assert!(causes.is_empty(), "{causes:?}");
        let mut selecting = made.clone();
        selecting["spec"]["selector"] = json!({});
        let told = "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n\
            @@ -2,7 +2,7 @@\n  \"AccessModes\": [\n   \"ReadWriteOnce\"\n  ],\n- \"Selector\": null,\n+ \"Selector\": {},\n  \"Resources\": {\n   \"Limits\": null,\n   \"Requests\": {\n";
        assert_eq!(lines(&update("", "persistentvolumeclaims", selecting, &made).1), [told]);
        let mut sourced = made.clone();
        sourced["spec"]["dataSource"] = json!({"kind": "PersistentVolumeClaim", "name": "x"});
        sourced["spec"]["dataSourceRef"] = json!({"apiGroup": "", "kind": "PersistentVolumeClaim", "name": "x"});
        assert_eq!(lines(&create("", "persistentvolumeclaims", sourced).1), ["spec: Invalid value: {}: must match dataSourceRef"]);
    }

    #[test]
    fn statuses() {
        for (status, told) in [
            (json!({"allocatedResources": {"storage": "1Gi"}, "allocatedResourceStatuses": {"storage": "NodeResizePending"}}), vec![]),
            (json!({"allocatedResources": {"cpu": "1"}}), vec!["status.allocatedResources: Unsupported value: \"cpu\": supported values: \"storage\""]),
            (
                json!({"allocatedResourceStatuses": {"a.b/c": "x"}}),
                vec!["status.allocatedResourceStatuses: Unsupported value: \"a.b/c\": supported values: \"ControllerResizeInProgress\", \"ControllerResizeInfeasible\", \"NodeResizeInProgress\", \"NodeResizeInfeasible\", \"NodeResizePending\""],
            ),
        ] {
            assert_eq!(lines(&super::PERSISTENT_VOLUME_CLAIM.validate_status(&json!({"status": status}), &json!({}))), told);
        }
    }
}
