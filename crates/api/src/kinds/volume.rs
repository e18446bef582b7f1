//! Validation of the volumes of a pod. Mirrors ValidateVolumes in k8s.io/kubernetes/pkg/apis/core/validation.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::container::{VOLUME_FIELDS, field_reference, resource_reference};
use super::json::{child, list, number, text};
use super::volume_sources::{self, Owner};
use crate::names;
use crate::quantity::Quantity;
use crate::validation::{Errors, Path};

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;

/// Every source, in the order upstream looks at them.
const SOURCES: [&str; 30] = [
    "emptyDir", "hostPath", "gitRepo", "gcePersistentDisk", "awsElasticBlockStore", "secret", "nfs", "iscsi", "glusterfs", "flocker", "persistentVolumeClaim", "rbd", "cinder", "cephfs", "quobyte",
    "downwardAPI", "fc", "flexVolume", "configMap", "azureFile", "vsphereVolume", "photonPersistentDisk", "portworxVolume", "azureDisk", "storageos", "projected", "scaleIO", "csi", "ephemeral", "image",
];

pub fn path_without_backsteps(errors: &mut Errors, path: &Path, target: &str) {
    if target.replace('\\', "/").split('/').any(|part| part == "..") {
        errors.invalid(path, target, "must not contain '..'");
    }
}

/// Relative, and not above where it starts.
pub fn descending_path(errors: &mut Errors, path: &Path, target: &str) {
    if target.starts_with('/') {
        errors.invalid(path, target, "must be a relative path");
    }
    path_without_backsteps(errors, path, target);
}

fn non_reserved_path(errors: &mut Errors, path: &Path, target: &str) {
    descending_path(errors, path, target);
    if target.starts_with("..") && !target.starts_with("../") && target != ".." {
        errors.invalid(path, target, "must not start with '..'");
    }
}

fn mode(errors: &mut Errors, path: &Path, mode: Option<i64>) {
    if let Some(mode) = mode.filter(|mode| !(0..=0o777).contains(mode)) {
        errors.invalid(path, &mode, MODE);
    }
}

/// Those that are fine, by name.
pub fn volumes<'a>(errors: &mut Errors, path: &Path, volumes: &'a [Value], pod_name: &str) -> BTreeMap<&'a str, &'a Value> {
    let mut fine = BTreeMap::new();
    let created: BTreeSet<String> =
        volumes.iter().filter(|volume| !pod_name.is_empty() && child(volume, "ephemeral").is_some()).map(|volume| format!("{pod_name}-{}", text(volume, "name"))).collect();
    for (index, volume) in volumes.iter().enumerate() {
        let path = path.index(index);
        let name = text(volume, "name");
        let before = errors.len();
        source(errors, &path, volume, pod_name);
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            errors.name(&path.child("name"), name, names::dns_label);
        }
        if fine.contains_key(name) {
            errors.duplicate(&path.child("name"), name);
        }
        if errors.len() == before {
            fine.insert(name, volume);
        }
        let claim = text(volume, "persistentVolumeClaim.claimName");
        if created.contains(claim) {
            errors.invalid(&path.child("persistentVolumeClaim.claimName"), claim, "must not reference a PVC that gets created for an ephemeral volume");
        }
    }
    fine
}

fn source(errors: &mut Errors, path: &Path, volume: &Value, pod_name: &str) {
    let mut found = false;
    for name in SOURCES {
        let Some(source) = child(volume, name) else { continue };
        let parent = path;
        let path = path.child(name);
        if found {
            errors.forbidden(&path, "may not specify more than 1 volume type");
            continue;
        }
        found = true;
        volume_sources::check(errors, parent, name, source, Owner::Pod);
        match name {
            "emptyDir" => {
                if child(source, "sizeLimit").and_then(|limit| Quantity::from_json(limit).ok()).is_some_and(|limit| limit.is_negative()) {
                    errors.forbidden(&path.child("sizeLimit"), "SizeLimit field must be a valid resource quantity");
                }
            }
            "hostPath" => host_path(errors, &path, source),
            "gitRepo" => descending_path(errors, &path.child("directory"), text(source, "directory")),
            "secret" | "configMap" => {
                mode(errors, &path.child("defaultMode"), number(source, "defaultMode"));
                keys_to_paths(errors, &path.child("items"), list(source, "items"));
            }
            "downwardAPI" => {
                mode(errors, &path.child("defaultMode"), number(source, "defaultMode"));
                for item in list(source, "items") {
                    downward_file(errors, &path, item);
                }
            }
            "projected" => projected(errors, &path, source),
            "ephemeral" => ephemeral(errors, &path, source, text(volume, "name"), pod_name),
            "image" => {
                // A template may leave it to whoever fills it in.
                if text(source, "reference").is_empty() && !pod_name.is_empty() {
                    errors.required(&path.child("reference"), "");
                }
                match text(source, "pullPolicy") {
                    "Always" | "IfNotPresent" | "Never" => {}
                    "" => errors.required(&path.child("pullPolicy"), ""),
                    other => errors.not_supported(&path.child("pullPolicy"), other, &["Always", "IfNotPresent", "Never"]),
                }
            }
            _ => {}
        }
    }
    if !found {
        errors.required(path, "must specify a volume type");
    }
}

pub fn host_path(errors: &mut Errors, path: &Path, source: &Value) {
    let host_path = text(source, "path");
    if host_path.is_empty() {
        return errors.required(&path.child("path"), "");
    }
    path_without_backsteps(errors, &path.child("path"), host_path);
    const TYPES: [&str; 8] = ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    let kind = text(source, "type");
    if !TYPES.contains(&kind) {
        errors.not_supported(&path.child("type"), kind, &TYPES);
    }
}

fn keys_to_paths(errors: &mut Errors, path: &Path, items: &[Value]) {
    for (index, item) in items.iter().enumerate() {
        let path = path.index(index);
        for name in ["key", "path"] {
            if text(item, name).is_empty() {
                errors.required(&path.child(name), "");
            }
        }
        non_reserved_path(errors, &path.child("path"), text(item, "path"));
        mode(errors, &path.child("mode"), number(item, "mode"));
    }
}

fn downward_file(errors: &mut Errors, path: &Path, item: &Value) {
    if text(item, "path").is_empty() {
        errors.required(&path.child("path"), "");
    }
    non_reserved_path(errors, &path.child("path"), text(item, "path"));
    match (child(item, "fieldRef"), child(item, "resourceFieldRef")) {
        (Some(field), resource) => {
            field_reference(errors, &path.child("fieldRef"), field, &VOLUME_FIELDS);
            if resource.is_some() {
                errors.invalid(path, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously");
            }
        }
        (None, Some(resource)) => resource_reference(errors, &path.child("resourceFieldRef"), resource, true),
        (None, None) => errors.required(path, "one of fieldRef and resourceFieldRef is required"),
    }
    mode(errors, &path.child("mode"), number(item, "mode"));
}

fn projected(errors: &mut Errors, path: &Path, source: &Value) {
    mode(errors, &path.child("defaultMode"), number(source, "defaultMode"));
    let whole = path;
    let sources = path.child("sources");
    for (index, source) in list(source, "sources").iter().enumerate() {
        let item = sources.index(index);
        let mut count = 0;
        for name in ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"] {
            let Some(projection) = child(source, name) else { continue };
            let path = item.child(name);
            count += 1;
            if count > 1 {
                errors.forbidden(&path, "may not specify more than 1 volume type per source");
                continue;
            }
            match name {
                "secret" | "configMap" => {
                    if text(projection, "name").is_empty() {
                        errors.required(&path.child("name"), "");
                    }
                    keys_to_paths(errors, &path.child("items"), list(projection, "items"));
                }
                "downwardAPI" => {
                    for item in list(projection, "items") {
                        downward_file(errors, &path, item);
                    }
                }
                "serviceAccountToken" => token(errors, &path, whole, projection),
                _ => {}
            }
        }
    }
}

/// `whole` is the volume's: where upstream tells of a path that is missing.
fn token(errors: &mut Errors, path: &Path, whole: &Path, projection: &Value) {
    let seconds = number(projection, "expirationSeconds").unwrap_or(TOKEN_SECONDS_MIN);
    if seconds < TOKEN_SECONDS_MIN {
        errors.invalid(&path.child("expirationSeconds"), &seconds, "may not specify a duration less than 10 minutes");
    } else if seconds > TOKEN_SECONDS_MAX {
        errors.invalid(&path.child("expirationSeconds"), &seconds, "may not specify a duration larger than 2^32 seconds");
    }
    match text(projection, "path") {
        "" => errors.required(&whole.child("path"), ""),
        file => non_reserved_path(errors, &whole.child("path"), file),
    }
}

fn ephemeral(errors: &mut Errors, path: &Path, source: &Value, name: &str, pod_name: &str) {
    match child(source, "volumeClaimTemplate.spec") {
        Some(spec) => super::persistent_volume_claim::spec(errors, &path.child("volumeClaimTemplate.spec"), spec),
        None => errors.required(&path.child("volumeClaimTemplate"), ""),
    }
    if !pod_name.is_empty() && !name.is_empty() {
        let claim = format!("{pod_name}-{name}");
        for message in names::dns_subdomain(&claim) {
            errors.invalid(&path.child("name"), name, &format!("PVC name {}: {message}", crate::validation::go_quote(&claim)));
        }
    }
}
