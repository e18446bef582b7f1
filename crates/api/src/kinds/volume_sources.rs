//! Validation of the sources that volumes of pods and PersistentVolumes have in common: storage systems by name. Mirrors the `validate…VolumeSource` functions of
//! k8s.io/kubernetes/pkg/apis/core/validation; where a PersistentVolume is judged otherwise, `Owner` says so.

use serde_json::Value;

use super::json::{child, flag, list, map, number, text};
use super::volume::path_without_backsteps;
use crate::names;
use crate::validation::{Errors, Path};

const LUN: &str = "must be between 0 and 255, inclusive";
const PARTITION: &str = "must be between 1 and 255, inclusive";
const PORTAL_NAME_MAX: usize = 64;
const TENANT_MAX: usize = 64;
const DRIVER_MAX: usize = 63;
const BLOB_DISK: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
const MANAGED_DISK: &str = "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";

/// Whose source it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Owner<'a> {
    Pod,
    /// A PersistentVolume of this name.
    Volume(&'a str),
}

/// What each source cannot do without, in the order upstream asks.
const REQUIRED: [(&str, &[&str]); 17] = [
    ("gitRepo", &["repository"]),
    ("gcePersistentDisk", &["pdName"]),
    ("awsElasticBlockStore", &["volumeID"]),
    ("secret", &["secretName"]),
    ("configMap", &["name"]),
    ("persistentVolumeClaim", &["claimName"]),
    ("nfs", &["server", "path"]),
    ("iscsi", &["targetPortal"]),
    ("glusterfs", &["endpoints", "path"]),
    ("cinder", &["volumeID"]),
    ("flexVolume", &["driver"]),
    ("azureFile", &["secretName", "shareName"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("vsphereVolume", &["volumePath"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
];

/// The path upstream tells of what is wrong inside a source: one of them by another name than the field's.
pub fn field_name(source: &str) -> &str {
    if source == "gcePersistentDisk" { "persistentDisk" } else { source }
}

pub fn required(errors: &mut Errors, path: &Path, value: &Value, fields: &[&str]) {
    for field in fields.iter().filter(|field| text(value, field).is_empty()) {
        errors.required(&path.child(field), "");
    }
}

/// `ValidateCSIDriverName`: in any case of its letters.
pub fn driver_name(errors: &mut Errors, path: &Path, driver: &str) {
    if driver.is_empty() {
        return errors.required(path, "");
    }
    if driver.len() > DRIVER_MAX {
        errors.too_long(path, DRIVER_MAX);
    }
    errors.invalid_each(path, driver, names::dns_subdomain(&driver.to_lowercase()));
}

/// The source `name` of the volume at `parent`.
pub fn check(errors: &mut Errors, parent: &Path, name: &str, source: &Value, owner: Owner) {
    let path = parent.child(field_name(name));
    for (_, fields) in REQUIRED.iter().filter(|(kind, _)| *kind == name) {
        required(errors, &path, source, fields);
    }
    match name {
        "nfs" => {
            if !text(source, "path").starts_with('/') {
                errors.invalid(&path.child("path"), text(source, "path"), "must be an absolute path");
            }
        }
        "gcePersistentDisk" | "awsElasticBlockStore" => {
            if let Some(partition) = number(source, "partition").filter(|partition| !(0..=255).contains(partition)) {
                errors.invalid(&path.child("partition"), &partition, PARTITION);
            }
        }
        "iscsi" => iscsi(errors, &path, source, owner),
        "fc" => fibre_channel(errors, &path, source),
        "flocker" => flocker(errors, &path, source),
        "quobyte" => quobyte(errors, &path, source),
        "glusterfs" => glusterfs(errors, &path, source, owner),
        "rbd" | "cephfs" => {
            if list(source, "monitors").is_empty() {
                errors.required(&path.child("monitors"), "");
            }
            if name == "rbd" {
                required(errors, &path, source, &["image"]);
            }
        }
        "cinder" => secret(errors, &path.child("secretRef"), child(source, "secretRef"), owner),
        "flexVolume" => {
            for key in map(source, "options").into_iter().flat_map(|options| options.keys()) {
                let normalized = format!(".{}", key.split('/').next().filter(|_| key.contains('/')).unwrap_or(key).to_lowercase());
                if normalized.ends_with(".kubernetes.io") || normalized.ends_with(".k8s.io") {
                    errors.invalid(&path.child("options").key(key), key, "kubernetes.io and k8s.io namespaces are reserved");
                }
            }
        }
        "azureFile" => {
            if owner != Owner::Pod && child(source, "secretNamespace").and_then(Value::as_str) == Some("") {
                errors.required(&path.child("secretNamespace"), "");
            }
        }
        "azureDisk" => azure_disk(errors, &path, source),
        "storageos" => {
            match text(source, "volumeName") {
                "" => errors.required(&path.child("volumeName"), ""),
                volume => errors.name(&path.child("volumeName"), volume, names::dns_label),
            }
            let namespace = text(source, "volumeNamespace");
            if !namespace.is_empty() {
                errors.name(&path.child("volumeNamespace"), namespace, names::dns_label);
            }
            secret(errors, &path.child("secretRef"), child(source, "secretRef"), owner);
        }
        "local" => match text(source, "path") {
            "" => errors.required(&path.child("path"), ""),
            target => path_without_backsteps(errors, &path.child("path"), target),
        },
        "csi" => csi(errors, &path, source, owner),
        _ => {}
    }
}

/// A pod's secret is in its namespace, a PersistentVolume's says where it is.
fn secret(errors: &mut Errors, path: &Path, reference: Option<&Value>, owner: Owner) {
    if let Some(reference) = reference {
        required(errors, path, reference, if owner == Owner::Pod { &["name"] } else { &["name", "namespace"] });
    }
}

fn iscsi(errors: &mut Errors, path: &Path, source: &Value, owner: Owner) {
    let initiator = child(source, "initiatorName").and_then(Value::as_str);
    let portal = text(source, "targetPortal");
    if let Owner::Volume(name) = owner
        && initiator.is_some()
        && name.len() + 1 + portal.len() > PORTAL_NAME_MAX
    {
        errors.invalid(&path.child("targetportal"), portal, "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.");
    }
    match text(source, "iqn") {
        "" => errors.required(&path.child("iqn"), ""),
        name => iscsi_name(errors, &path.child("iqn"), name, owner),
    }
    if let Some(lun) = number(source, "lun").filter(|lun| !(0..=255).contains(lun)) {
        errors.invalid(&path.child("lun"), &lun, LUN);
    }
    let secret = child(source, "secretRef");
    if (flag(source, "chapAuthDiscovery") || flag(source, "chapAuthSession")) && secret.is_none() {
        errors.required(&path.child("secretRef"), "");
    }
    if let (Some(secret), Owner::Volume(_)) = (secret, owner) {
        required(errors, &path.child("secretRef"), secret, &["name"]);
    }
    if let Some(initiator) = initiator {
        iscsi_name(errors, &path.child("initiatorname"), initiator, owner);
    }
}

fn iscsi_name(errors: &mut Errors, path: &Path, name: &str, owner: Owner) {
    let alphanumerics = |rest: &str, count: usize| rest.chars().count() == count + 1 && rest.chars().skip(1).all(|ch| ch.is_ascii_alphanumeric());
    let fine = match name.get(..3) {
        Some("iqn") => qualified(&name[3..]),
        Some("eui") => alphanumerics(&name[3..], 16),
        Some("naa") => alphanumerics(&name[3..], 32),
        _ if owner == Owner::Pod => return errors.invalid(path, name, "must be valid format starting with iqn, eui, or naa"),
        _ => false,
    };
    if !fine {
        errors.invalid(path, name, "must be valid format");
    }
}

/// What follows `iqn`: a year, a month, a naming authority, and what it calls the target.
fn qualified(rest: &str) -> bool {
    let Some((date, rest)) = rest.strip_prefix('.').and_then(|rest| rest.split_once('.')) else { return false };
    let digits = |part: &str, count: usize| part.len() == count && part.bytes().all(|byte| byte.is_ascii_digit());
    let Some((authority, target)) = rest.split_once(':') else { return false };
    date.split_once('-').is_some_and(|(year, month)| digits(year, 4) && digits(month, 2))
        && !authority.is_empty()
        && authority.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
        && !target.is_empty()
        && !target.contains([',', ';', '*', '&', '$', '|', ' ', '\t', '\n', '\r', '\u{c}'])
}

fn fibre_channel(errors: &mut Errors, path: &Path, source: &Value) {
    let (names, identifiers) = (list(source, "targetWWNs"), list(source, "wwids"));
    let field = path.child("targetWWNs");
    if names.is_empty() && identifiers.is_empty() {
        errors.required(&field, "must specify either targetWWNs or wwids, but not both");
    }
    if names.is_empty() {
        return;
    }
    if !identifiers.is_empty() {
        errors.invalid(&field, &Value::from(names), "targetWWNs and wwids can not be specified simultaneously");
    }
    match number(source, "lun") {
        None => errors.required(&path.child("lun"), "lun is required if targetWWNs is specified"),
        Some(lun) if !(0..=255).contains(&lun) => errors.invalid(&path.child("lun"), &lun, LUN),
        Some(_) => {}
    }
}

fn flocker(errors: &mut Errors, path: &Path, source: &Value) {
    let name = text(source, "datasetName");
    match (name.is_empty(), text(source, "datasetUUID").is_empty()) {
        (true, true) => errors.required(path, "one of datasetName and datasetUUID is required"),
        (false, false) => errors.invalid(path, "resource", "datasetName and datasetUUID can not be specified simultaneously"),
        _ => {}
    }
    if name.contains('/') {
        errors.invalid(&path.child("datasetName"), name, "must not contain '/'");
    }
}

fn quobyte(errors: &mut Errors, path: &Path, source: &Value) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let registry = text(source, "registry");
    if registry.is_empty() {
        errors.required(&path.child("registry"), PAIRS);
    } else if text(source, "tenant").len() > TENANT_MAX {
        errors.required(&path.child("tenant"), "must be a UUID and may not exceed a length of 64 characters");
    } else {
        for _ in registry.split(',').filter(|pair| !is_host_and_port(pair)) {
            errors.invalid(&path.child("registry"), registry, PAIRS);
        }
    }
    required(errors, path, source, &["volume"]);
}

/// Go's `net.SplitHostPort` takes it.
fn is_host_and_port(pair: &str) -> bool {
    let Some((host, port)) = pair.rsplit_once(':') else { return false };
    match host.strip_prefix('[') {
        Some(inside) => inside.strip_suffix(']').is_some_and(|inside| !inside.contains(['[', ']'])) && !port.contains(['[', ']']),
        None => !host.contains([':', '[', ']']) && !port.contains(['[', ']']),
    }
}

fn glusterfs(errors: &mut Errors, path: &Path, source: &Value, owner: Owner) {
    if owner == Owner::Pod {
        return;
    }
    let path = path.child("endpointsNamespace");
    match child(source, "endpointsNamespace").and_then(Value::as_str) {
        None => {}
        Some("") => errors.invalid(&path, "", "if the endpointnamespace is set, it must be a valid namespace name"),
        Some(namespace) => errors.name(&path, namespace, names::dns_label),
    }
}

fn azure_disk(errors: &mut Errors, path: &Path, source: &Value) {
    let uri = text(source, "diskURI");
    for (field, supported) in [("cachingMode", ["None", "ReadOnly", "ReadWrite"]), ("kind", ["Dedicated", "Managed", "Shared"])] {
        if let Some(value) = child(source, field).and_then(Value::as_str).filter(|value| !supported.contains(value)) {
            errors.not_supported(&path.child(field), value, &supported);
        }
    }
    let path = path.child("diskURI");
    match child(source, "kind").and_then(Value::as_str) {
        Some("Managed") if !uri.starts_with("/subscriptions/") => errors.not_supported(&path, uri, &[MANAGED_DISK]),
        Some(kind) if kind != "Managed" && !uri.starts_with("https://") => errors.not_supported(&path, uri, &[BLOB_DISK]),
        _ => {}
    }
}

fn csi(errors: &mut Errors, path: &Path, source: &Value, owner: Owner) {
    driver_name(errors, &path.child("driver"), text(source, "driver"));
    if owner == Owner::Pod {
        if let Some(secret) = child(source, "nodePublishSecretRef") {
            match text(secret, "name") {
                "" => errors.required(&path.child("nodePublishSecretRef.name"), ""),
                name => errors.name(&path.child("name"), name, names::dns_subdomain),
            }
        }
        return;
    }
    required(errors, path, source, &["volumeHandle"]);
    for name in ["controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"] {
        let Some(secret) = child(source, name) else { continue };
        let path = path.child(name);
        match text(secret, "name") {
            "" => errors.required(&path.child("name"), ""),
            name => errors.name(&path.child("name"), name, names::dns_subdomain),
        }
        match text(secret, "namespace") {
            "" => errors.required(&path.child("namespace"), ""),
            namespace => errors.name(&path.child("namespace"), namespace, names::dns_label),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::{create, lines};

    fn of_pod(source: &str, value: Value) -> Vec<String> {
        let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": [{"name": "c", "image": "i"}], "volumes": [{"name": "v", source: value}]}});
        lines(&create("", "pods", pod).1)
    }

    fn of_volume(source: &str, value: Value) -> Vec<String> {
        let volume = json!({"metadata": {"name": "p"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], source: value}});
        lines(&create("", "persistentvolumes", volume).1)
    }

    #[test]
    fn sources_of_pods() {
        for (source, value, expected) in [
            ("iscsi", json!({"targetPortal": "p", "iqn": "x", "lun": 0}), "spec.volumes[0].iscsi.iqn: Invalid value: \"x\": must be valid format starting with iqn, eui, or naa"),
            ("iscsi", json!({"targetPortal": "p", "iqn": "iqn.2001-04.com.example", "lun": 0}), "spec.volumes[0].iscsi.iqn: Invalid value: \"iqn.2001-04.com.example\": must be valid format"),
            ("iscsi", json!({"targetPortal": "p", "iqn": "iqn.2001-04.com.example:s", "lun": 256}), "spec.volumes[0].iscsi.lun: Invalid value: 256: must be between 0 and 255, inclusive"),
            ("fc", json!({}), "spec.volumes[0].fc.targetWWNs: Required value: must specify either targetWWNs or wwids, but not both"),
            ("fc", json!({"targetWWNs": ["a"]}), "spec.volumes[0].fc.lun: Required value: lun is required if targetWWNs is specified"),
            ("flocker", json!({}), "spec.volumes[0].flocker: Required value: one of datasetName and datasetUUID is required"),
            ("quobyte", json!({"registry": "x", "volume": "v"}), "spec.volumes[0].quobyte.registry: Invalid value: \"x\": must be a host:port pair or multiple pairs separated by commas"),
            ("azureDisk", json!({"diskName": "d", "diskURI": "u", "kind": "Managed"}), "spec.volumes[0].azureDisk.diskURI: Unsupported value: \"u\": supported values: \"/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}\""),
            ("gcePersistentDisk", json!({}), "spec.volumes[0].persistentDisk.pdName: Required value"),
            ("gcePersistentDisk", json!({"pdName": "p", "partition": 300}), "spec.volumes[0].persistentDisk.partition: Invalid value: 300: must be between 1 and 255, inclusive"),
            ("flexVolume", json!({"driver": "a/b", "options": {"x.k8s.io/y": "z"}}), "spec.volumes[0].flexVolume.options[x.k8s.io/y]: Invalid value: \"x.k8s.io/y\": kubernetes.io and k8s.io namespaces are reserved"),
        ] {
            assert_eq!(of_pod(source, value), [expected]);
        }
    }

    #[test]
    fn sources_of_persistent_volumes() {
        for (source, value, expected) in [
            ("csi", json!({"driver": "D.X", "volumeHandle": "h"}), vec![]),
            ("csi", json!({"driver": "d.x", "volumeHandle": "h", "nodeExpandSecretRef": {"name": "s"}}), vec!["spec.csi.nodeExpandSecretRef.namespace: Required value"]),
            ("iscsi", json!({"targetPortal": "p", "iqn": "x", "lun": 0}), vec!["spec.iscsi.iqn: Invalid value: \"x\": must be valid format"]),
            ("nfs", json!({"server": "s", "path": "x"}), vec!["spec.nfs.path: Invalid value: \"x\": must be an absolute path"]),
            ("glusterfs", json!({"endpoints": "e", "path": "p", "endpointsNamespace": ""}), vec!["spec.glusterfs.endpointsNamespace: Invalid value: \"\": if the endpointnamespace is set, it must be a valid namespace name"]),
            ("hostPath", json!({"path": "/x", "type": "Other"}), vec!["spec.hostPath.type: Unsupported value: \"Other\": supported values: \"\", \"BlockDevice\", \"CharDevice\", \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\""]),
        ] {
            assert_eq!(of_volume(source, value), expected);
        }
    }
}
