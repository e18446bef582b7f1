//! PersistentVolumeClaims, and the claims inside other kinds.

use serde_json::{Value, json};

use super::resources::resource_quantity;
use super::json::{child, child_mut, default, map, set, strings, text};
use super::policy::{BUILT_IN, Policy};
use super::{diff, workload};
use crate::names;
use crate::quantity::Quantity;
use crate::validation::{Errors, Path, same};

pub const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

pub static PERSISTENT_VOLUME_CLAIM: Policy = Policy {
    status: true,
    defaults,
    on_create: |object, _| set(object, "status", json!({"phase": "Pending"})),
    check: |errors, object| {
        let none = Value::Null;
        spec(errors, &Path::Root("spec"), child(object, "spec").unwrap_or(&none));
    },
    check_update,
    ..BUILT_IN
};

pub fn defaults(claim: &mut Value) {
    if let Some(spec) = child_mut(claim, "spec") {
        super::json::default_unset(spec, "volumeMode", "Filesystem");
        // A source in another namespace needs a gate that is off.
        if child(spec, "dataSourceRef.namespace").and_then(Value::as_str).is_some_and(|namespace| !namespace.is_empty()) {
            super::json::take(spec, "dataSourceRef");
        }
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
    // What stands in both places is the same.
    if let (Some(source), Some(reference)) = (child(spec, "dataSource"), child(spec, "dataSourceRef"))
        && ["apiGroup", "kind", "name"].iter().any(|field| text(source, field) != text(reference, field))
    {
        errors.invalid(path, source, "must match dataSourceRef");
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
    if !same(Some(&changed), Some(&before)) {
        errors.forbidden(
            &Path::Root("spec"),
            &format!("spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n{}", diff::unified(&before, &changed)),
        );
    }
    let (new_size, old_size) = (storage(new, "spec.resources.requests"), storage(old, "spec.resources.requests"));
    if new_size < old_size && new_size <= storage(old, "status.capacity") {
        errors.forbidden(&Path::Root("spec.resources.requests.storage"), "field can not be less than status.capacity");
    }
    errors.immutable(&Path::Root("volumeMode"), child(new, "spec.volumeMode"), child(old, "spec.volumeMode"));
}
