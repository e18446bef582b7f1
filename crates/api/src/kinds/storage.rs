//! PersistentVolumes, StorageClasses, VolumeAttachments and the CSI kinds. Mirrors pkg/apis/storage.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::affinity::node_selector;
use super::json::{child, child_mut, default, list, map, number, set, strings, text, default_unset};
use super::persistent_volume_claim::access_modes;
use super::policy::{BUILT_IN, CHANGE, Policy, WHOLE};
use super::resources::resource_quantity;
use super::volume_sources::{self, Owner};
use super::{diff, workload};
use crate::names;
use crate::quantity::Quantity;
use crate::internal::{self, Internal, Pointer};
use crate::validation::{Errors, IMMUTABLE, MetadataAgain, Path, same};

/// The sources, as a type.
const SOURCE: &str = "core.v1.PersistentVolumeSource";
/// What a PersistentVolume's spec may hold besides its one source.
const NOT_SOURCES: [&str; 9] = [
    "capacity", "accessModes", "claimRef", "persistentVolumeReclaimPolicy", "storageClassName", "mountOptions", "volumeMode", "nodeAffinity", "volumeAttributesClassName",
];
/// The sources of a PersistentVolume, in the order upstream looks at them.
const SOURCES: [&str; 22] = [
    "hostPath", "gcePersistentDisk", "awsElasticBlockStore", "glusterfs", "flocker", "nfs", "rbd", "quobyte", "cephfs", "iscsi", "cinder", "fc", "flexVolume", "azureFile", "vsphereVolume",
    "photonPersistentDisk", "portworxVolume", "azureDisk", "scaleIO", "local", "storageos", "csi",
];
const ALLOCATABLE_SECONDS_MIN: i64 = 10;
const PARAMETERS_MAX: usize = 512;
const PARAMETERS_SIZE_MAX: usize = 256 * 1024;
const NODE_ID_MAX: usize = 256;
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;

fn sources(object: &Value) -> Map<String, Value> {
    let mut spec = map(object, "spec").cloned().unwrap_or_default();
    spec.retain(|name, value| !NOT_SOURCES.contains(&name.as_str()) && !value.is_null());
    spec
}

pub static PERSISTENT_VOLUME: Policy = Policy {
    metadata_again: [MetadataAgain::WholeTwice, MetadataAgain::Change],
    status: true,
    defaults: |object| {
        if let Some(spec) = child_mut(object, "spec") {
            default(spec, "persistentVolumeReclaimPolicy", "Retain");
            default_unset(spec, "volumeMode", "Filesystem");
            super::pod_defaults::storage_systems(spec);
            if let Some(host_path) = child_mut(spec, "hostPath")
                && child(host_path, "type").is_none()
            {
                set(host_path, "type", "");
            }
        }
        if let Some(status) = workload::nested(object, "status") {
            default(status, "phase", "Pending");
        }
    },
    on_create: |object, cx| set(object, "status", json!({"phase": "Pending", "lastPhaseTransitionTime": crate::world::rfc3339(cx.now)})),
    on_status: |new, old, cx| {
        const SINCE: &str = "lastPhaseTransitionTime";
        let moved = text(new, "status.phase") != text(old, "status.phase");
        let before = child(old, "status").and_then(|status| child(status, SINCE)).cloned();
        let Some(status) = child_mut(new, "status") else { return };
        match (moved, child(status, SINCE).cloned(), before) {
            (false, None, Some(before)) => set(status, SINCE, before),
            (true, None, _) => set(status, SINCE, crate::world::rfc3339(cx.now)),
            (true, now, before) if now == before => set(status, SINCE, crate::world::rfc3339(cx.now)),
            _ => {}
        }
    },
    warnings: |object, warnings| {
        let spec = child(object, "spec").unwrap_or(&Value::Null);
        // Of flocker and quobyte upstream says nothing here.
        for (name, why) in super::pod_warnings::OLD_VOLUMES.iter().filter(|(name, _)| !matches!(*name, "flocker" | "quobyte") && child(spec, name).is_some()) {
            warnings.push(format!("spec.{}: {why}", if *name == "storageos" { "storageOS" } else { name }));
        }
    },
    check: check_volume,
    check_update: |errors, new, old| {
        // Twice, as upstream.
        check_volume(errors, new);
        let (mut now, before) = (Value::Object(sources(new)), Value::Object(sources(old)));
        // A secret for expansion may still be added.
        if child(&before, "csi").is_some_and(|csi| child(csi, "controllerExpandSecretRef").is_none())
            && let Some(csi) = child_mut(&mut now, "csi")
        {
            super::json::take(csi, "controllerExpandSecretRef");
        }
        if !internal::same(SOURCE, Some(&now), Some(&before)) {
            let diff = diff::unified(&Internal(SOURCE, Some(&before)).lines(true), &Internal(SOURCE, Some(&now)).lines(false));
            errors.forbidden(&Path::Root("spec.persistentvolumesource"), &format!("spec.persistentvolumesource is immutable after creation\n{diff}"));
        }
        let mode = |object: &Value| child(object, "spec.volumeMode").cloned();
        if mode(new) != mode(old) {
            errors.invalid(&Path::Root("volumeMode"), &mode(new).unwrap_or(Value::Null), IMMUTABLE);
        }
        // What was bound to nodes stays so; beta labels may get their final names.
        if let Some(before) = child(old, "spec.nodeAffinity")
            && !same(child(new, "spec.nodeAffinity"), Some(before))
            && !only_labels_renamed(child(new, "spec.nodeAffinity"), before)
        {
            let shown = Pointer("core.v1.VolumeNodeAffinity", child(new, "spec.nodeAffinity"));
            errors.invalid(&Path::Root("nodeAffinity"), &shown, &format!("{}, except for updating from beta label to GA", IMMUTABLE));
        }
    },
    ..BUILT_IN
};

/// Whether the new affinity is the old one with labels of the beta under their final names.
fn only_labels_renamed(new: Option<&Value>, old: &Value) -> bool {
    const NAMES: [(&str, &str); 5] = [
        ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
        ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
        ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
        ("beta.kubernetes.io/os", "kubernetes.io/os"),
        ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ];
    let mut renamed = old.clone();
    let terms = |value: &Value| list(value, "required.nodeSelectorTerms").to_vec();
    for (term, now) in super::json::list_mut(&mut renamed, "required.nodeSelectorTerms").iter_mut().zip(new.map(terms).unwrap_or_default()) {
        for (requirement, now) in super::json::list_mut(term, "matchExpressions").iter_mut().zip(list(&now, "matchExpressions")) {
            let key = text(requirement, "key").to_owned();
            if NAMES.iter().any(|(beta, ga)| *beta == key && *ga == text(now, "key")) {
                set(requirement, "key", text(now, "key"));
            }
        }
    }
    same(new, Some(&renamed))
}

fn check_volume(errors: &mut Errors, object: &Value) {
    let path = Path::Root("spec");
    let none = Value::Null;
    let spec = child(object, "spec").unwrap_or(&none);
    access_modes(errors, &path.child("accessModes"), spec, "");
    let capacity = map(spec, "capacity").cloned().unwrap_or_default();
    if capacity.is_empty() {
        errors.required(&path.child("capacity"), "");
    }
    if !capacity.contains_key("storage") || capacity.len() > 1 {
        errors.not_supported(&path.child("capacity"), &Value::Object(capacity.clone()), &["storage"]);
    }
    let capacity_path = path.child("capacity");
    for (name, value) in &capacity {
        if Quantity::from_json(value).is_ok_and(|quantity| quantity.sign() <= 0) {
            errors.invalid(&capacity_path.key(name), Quantity::from_json(value).unwrap_or_default().to_string().as_str(), "must be greater than zero");
        } else {
            resource_quantity(errors, &capacity_path.key(name), name, value);
        }
    }
    let policy = text(spec, "persistentVolumeReclaimPolicy");
    if !matches!(policy, "" | "Delete" | "Recycle" | "Retain") {
        errors.not_supported(&path.child("persistentVolumeReclaimPolicy"), policy, &["Delete", "Recycle", "Retain"]);
    }
    if let Some(selector) = child(spec, "nodeAffinity") {
        match child(selector, "required") {
            Some(required) => node_selector(errors, &path.child("nodeAffinity.required"), required),
            None => errors.required(&path.child("nodeAffinity.required"), "must specify required node constraints"),
        }
    }
    let mut found = false;
    for name in SOURCES {
        let Some(source) = child(spec, name) else { continue };
        // As upstream: a flexVolume is never one too many.
        if found && name != "flexVolume" {
            errors.forbidden(&path.child(if name == "cephfs" { "cephFS" } else { name }), "may not specify more than 1 volume type");
            continue;
        }
        found = true;
        match name {
            "hostPath" => super::volume::host_path(errors, &path.child(name), source),
            _ => volume_sources::check(errors, &path, name, source, Owner::Volume(text(object, "metadata.name"))),
        }
        if name == "local" && child(spec, "nodeAffinity.required").is_none() {
            errors.required(&path.child("nodeAffinity"), "Local volume requires node affinity");
        }
    }
    if !found {
        errors.required(&path, "must specify a volume type");
    }
    if policy == "Recycle" && child(spec, "hostPath").is_some() && text(spec, "hostPath.path").starts_with('/') && text(spec, "hostPath.path").trim_matches('/').is_empty() {
        errors.forbidden(&path.child("persistentVolumeReclaimPolicy"), "may not be 'recycle' for a hostPath mount of '/'");
    }
    let class = text(spec, "storageClassName");
    if !class.is_empty() {
        errors.name(&path.child("storageClassName"), class, names::dns_subdomain);
    }
    let mode = text(spec, "volumeMode");
    if child(spec, "volumeMode").is_some() && !matches!(mode, "Block" | "Filesystem") {
        errors.not_supported(&path.child("volumeMode"), mode, &["Block", "Filesystem"]);
    }
    if let Some(class) = child(spec, "volumeAttributesClassName").and_then(Value::as_str) {
        match class {
            "" => errors.required(&path.child("volumeAttributesClassName"), "an empty string is disallowed"),
            class => errors.name(&path.child("volumeAttributesClassName"), class, names::dns_subdomain),
        }
        if child(spec, "csi").is_none() {
            errors.required(&path.child("csi"), "has to be specified when using volumeAttributesClassName");
        }
    }
}

fn provisioner(errors: &mut Errors, path: &Path, value: &str) {
    if value.is_empty() {
        errors.required(path, "");
    } else {
        errors.name(path, &value.to_lowercase(), names::qualified_name);
    }
}

fn parameters(errors: &mut Errors, object: &Value, may_be_empty: bool) {
    let path = Path::Root("parameters");
    let empty = Map::new();
    let parameters = map(object, "parameters").unwrap_or(&empty);
    if parameters.len() > PARAMETERS_MAX {
        return errors.too_long(&path, PARAMETERS_MAX);
    }
    let mut size = 0;
    for (key, value) in parameters {
        if key.is_empty() {
            errors.invalid(&path, key, "field can not be empty.");
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > PARAMETERS_SIZE_MAX {
        errors.too_long(&path, PARAMETERS_SIZE_MAX);
    }
    if parameters.is_empty() && !may_be_empty {
        errors.required(&path, "must contain at least one key/value pair");
    }
}

pub static STORAGE_CLASS: Policy = Policy {
    defaults: |object| {
        default_unset(object, "reclaimPolicy", "Delete");
        default_unset(object, "volumeBindingMode", "Immediate");
    },
    check: |errors, object| {
        provisioner(errors, &Path::Root("provisioner"), text(object, "provisioner"));
        parameters(errors, object, true);
        let one_of = |errors: &mut Errors, name: &'static str, allowed: &[&str]| {
            let value = text(object, name);
            if !allowed.contains(&value) {
                errors.not_supported(&Path::Root(name), value, allowed);
            }
        };
        if !text(object, "reclaimPolicy").is_empty() {
            one_of(errors, "reclaimPolicy", &["Delete", "Retain"]);
        }
        one_of(errors, "volumeBindingMode", &["Immediate", "WaitForFirstConsumer"]);
        allowed_topologies(errors, list(object, "allowedTopologies"));
    },
    check_update: |errors, new, old| {
        for name in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
            internal::immutable(errors, &Path::Root(""), "storage.v1.StorageClass", name, Some(new), Some(old));
        }
    },
    ..BUILT_IN
};

/// `validateAllowedTopologies`: keys and values each once in a term, and no term twice.
fn allowed_topologies(errors: &mut Errors, terms: &[Value]) {
    let path = Path::Root("allowedTopologies");
    // As upstream, which begins with as many empty ones as there are terms.
    let mut known: Vec<BTreeMap<&str, BTreeSet<&str>>> = vec![BTreeMap::new(); terms.len()];
    for (index, term) in terms.iter().enumerate() {
        let path = path.index(index);
        let expressions = path.child("matchLabelExpressions");
        let mut keys: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (at, requirement) in list(term, "matchLabelExpressions").iter().enumerate() {
            let path = expressions.index(at);
            let key = text(requirement, "key");
            let values_path = path.child("values");
            let mut values = BTreeSet::new();
            if list(requirement, "values").is_empty() {
                errors.required(&values_path, "");
            }
            for (at, value) in strings(requirement, "values").enumerate() {
                if !values.insert(value) {
                    errors.duplicate(&values_path.index(at), value);
                }
            }
            errors.name(&path.child("key"), key, names::qualified_name);
            if keys.insert(key, values).is_some() {
                errors.duplicate(&path.child("key"), key);
            }
        }
        for _ in known.iter().filter(|one| **one == keys) {
            errors.duplicate(&expressions, "");
        }
        known.push(keys);
    }
}

fn check_attributes_class(errors: &mut Errors, object: &Value) {
    provisioner(errors, &Path::Root("driverName"), text(object, "driverName"));
    parameters(errors, object, false);
}

pub static ATTRIBUTES_CLASS: Policy = Policy {
    check_create: check_attributes_class,
    check_update: |errors, new, old| {
        for name in ["driverName", "parameters"] {
            if !same(new.get(name), old.get(name)) {
                errors.forbidden(&Path::Root(name), &format!("updates to {name} are forbidden."));
            }
        }
        // What stays is told first, then what is.
        check_attributes_class(errors, new);
    },
    ..BUILT_IN
};

pub static VOLUME_ATTACHMENT: Policy = Policy {
    metadata_again: WHOLE,
    status: true,
    status_keeps_metadata: true,
    unconditional_update: false,
    on_create: |object, _| set(object, "status", json!({"attached": false})),
    check_status: |errors, new, _| {
        for name in ["attachError", "detachError"] {
            if let Some(code) = child(new, "status").and_then(|status| child(status, name)).and_then(|error| number(error, "errorCode")).filter(|code| *code < 0) {
                errors.invalid(&Path::Root("status").child(name).child("errorCode"), &code, "must be between 0 and 2147483647, inclusive");
            }
        }
    },
    check: |errors, object| {
        let path = Path::Root("spec");
        driver_name(errors, &path.child("attacher"), text(object, "spec.attacher"));
        let (by_name, inline) = (text(object, "spec.source.persistentVolumeName"), child(object, "spec.source.inlineVolumeSpec"));
        match (by_name.is_empty(), inline.is_some()) {
            (true, false) => errors.required(&path.child("source"), "must specify exactly one of inlineVolumeSpec and persistentVolumeName"),
            (false, true) => errors.forbidden(&path.child("source"), "must specify exactly one of inlineVolumeSpec and persistentVolumeName"),
            (false, false) => errors.name(&path.child("source").child("persistentVolumeName"), by_name, names::dns_subdomain),
            (true, true) => {}
        }
        errors.name(&path.child("nodeName"), text(object, "spec.nodeName"), names::dns_subdomain);
    },
    check_update: |errors, new, old| internal::immutable(errors, &Path::Root(""), "storage.v1.VolumeAttachment", "spec", Some(new), Some(old)),
    ..BUILT_IN
};

pub static CSI_NODE: Policy = Policy {
    metadata_again: WHOLE,
    unconditional_update: false,
    check: |errors, object| {
        let path = Path::Root("spec.drivers");
        let mut seen = BTreeSet::new();
        for (index, driver) in list(object, "spec.drivers").iter().enumerate() {
            let path = path.index(index);
            let (name, node) = (text(driver, "name"), text(driver, "nodeID"));
            driver_name(errors, &path.child("name"), name);
            if node.is_empty() {
                errors.required(&path.child("nodeID"), "");
            } else if node.len() > NODE_ID_MAX {
                errors.invalid(&path.child("nodeID"), node, &format!("must be {NODE_ID_MAX} characters or less"));
            }
            errors.not_negative(&path.child("allocatable.count"), number(driver, "allocatable.count"));
            if !seen.insert(name) {
                errors.duplicate(&path.child("name"), name);
            }
            let mut keys = BTreeSet::new();
            for key in strings(driver, "topologyKeys") {
                if key.is_empty() {
                    errors.required(&path, key);
                }
                if !keys.insert(key) {
                    errors.duplicate(&path, key);
                }
                errors.name(&path, key, names::qualified_name);
            }
        }
    },
    check_update: |errors, new, old| {
        let fixed = |driver: &Value| {
            let mut driver = driver.as_object().cloned().unwrap_or_default();
            driver.remove("allocatable");
            Value::Object(driver)
        };
        const DRIVER: &str = "storage.v1.CSINodeDriver";
        for before in list(old, "spec.drivers").iter().map(fixed) {
            for driver in list(new, "spec.drivers").iter().filter(|driver| text(&before, "name") == text(driver, "name")).map(fixed) {
                if !internal::same(DRIVER, Some(&driver), Some(&before)) {
                    errors.invalid(&Path::Root("spec.drivers"), &Internal(DRIVER, Some(&driver)), IMMUTABLE);
                }
            }
        }
    },
    ..BUILT_IN
};

fn driver_name(errors: &mut Errors, path: &Path, name: &str) {
    const NAME_MAX: usize = 63;
    if name.is_empty() {
        return errors.required(path, "");
    }
    if name.len() > NAME_MAX {
        errors.too_long(path, NAME_MAX);
    }
    errors.invalid_each(path, name, names::dns_subdomain(&name.to_lowercase()));
}

/// Of a feature (VolumeLimitScaling) that is off in 1.36.
fn without_scaling(object: &mut Value) {
    if let Some(spec) = child_mut(object, "spec") {
        super::json::take(spec, "preventPodSchedulingIfMissing");
    }
}

pub static CSI_DRIVER: Policy = Policy {
    metadata_again: CHANGE,
    unconditional_update: false,
    defaults: |object| {
        let Some(spec) = workload::nested(object, "spec") else { return };
        for (name, value) in [("attachRequired", true), ("podInfoOnMount", false), ("storageCapacity", false), ("requiresRepublish", false), ("seLinuxMount", false)] {
            default(spec, name, value);
        }
        default_unset(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        if list(spec, "volumeLifecycleModes").is_empty() {
            set(spec, "volumeLifecycleModes", vec!["Persistent"]);
        }
    },
    on_create: |object, _| without_scaling(object),
    on_update: |new, old, _| {
        if child(old, "spec.preventPodSchedulingIfMissing").is_none() {
            without_scaling(new);
        }
        // Counted from the first change on.
        if !internal::same("storage.v1.CSIDriverSpec", new.get("spec"), old.get("spec")) {
            super::json::set_generation(new, number(old, "metadata.generation").unwrap_or(0) + 1);
        }
    },
    check: |errors, object| {
        let path = Path::Root("spec");
        let policy = text(object, "spec.fsGroupPolicy");
        if !matches!(policy, "File" | "None" | "ReadWriteOnceWithFSType") {
            errors.not_supported(&path.child("fsGroupPolicy"), policy, &["File", "None", "ReadWriteOnceWithFSType"]);
        }
        for mode in strings(object, "spec.volumeLifecycleModes").filter(|mode| !matches!(*mode, "Persistent" | "Ephemeral")) {
            errors.not_supported(&path.child("volumeLifecycleModes"), mode, &["Persistent", "Ephemeral"]);
        }
        if let Some(seconds) = child(object, "spec").and_then(|spec| number(spec, "nodeAllocatableUpdatePeriodSeconds")).filter(|seconds| *seconds < ALLOCATABLE_SECONDS_MIN) {
            errors.invalid(&path.child("nodeAllocatableUpdatePeriodSeconds"), &seconds, "must be greater than or equal to 10 seconds");
        }
        let tokens = path.child("tokenRequests");
        let mut audiences = BTreeSet::new();
        for (index, token) in list(object, "spec.tokenRequests").iter().enumerate() {
            let path = tokens.index(index);
            if !audiences.insert(text(token, "audience")) {
                errors.duplicate(&path.child("audience"), text(token, "audience"));
            }
            match number(token, "expirationSeconds") {
                Some(seconds) if seconds < TOKEN_SECONDS_MIN => errors.invalid(&path.child("expirationSeconds"), &seconds, "may not specify a duration less than 10 minutes"),
                Some(seconds) if seconds > TOKEN_SECONDS_MAX => errors.invalid(&path.child("expirationSeconds"), &seconds, "may not specify a duration larger than 2^32 seconds"),
                _ => {}
            }
        }
    },
    check_update: |errors, new, old| {
        errors.immutable(&Path::Root("spec.attachedRequired"), child(new, "spec.attachRequired"), child(old, "spec.attachRequired"));
        errors.immutable(&Path::Root("spec.volumeLifecycleModes"), child(new, "spec.volumeLifecycleModes"), child(old, "spec.volumeLifecycleModes"));
    },
    ..BUILT_IN
};

pub static STORAGE_CAPACITY: Policy = Policy {
    unconditional_update: false,
    check: |errors, object| {
        errors.label_selector(&Path::Root("nodeTopology"), child(object, "nodeTopology"));
        errors.name(&Path::Root("storageClassName"), text(object, "storageClassName"), names::dns_subdomain);
        if let Some(capacity) = child(object, "capacity").and_then(|capacity| Quantity::from_json(capacity).ok()).filter(Quantity::is_negative) {
            errors.invalid(&Path::Root("capacity"), capacity.to_string().as_str(), "must be greater than or equal to 0");
        }
    },
    check_update: |errors, new, old| {
        for name in ["nodeTopology", "storageClassName"] {
            internal::immutable(errors, &Path::Root(""), "storage.v1.CSIStorageCapacity", name, Some(new), Some(old));
        }
    },
    ..BUILT_IN
};

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{create, lines, update};

    /// As the real validation answered these.
    #[test]
    fn topologies_and_what_stays() {
        let class = json!({"metadata": {"name": "s"}, "provisioner": "a.b/c", "volumeBindingMode": "", "allowedTopologies": [{"matchLabelExpressions": [{"key": "k", "values": ["v", "v"]}, {"key": "k"}]}]});
        assert_eq!(
            lines(&create("storage.k8s.io", "storageclasses", class).1),
            [
                "volumeBindingMode: Unsupported value: \"\": supported values: \"Immediate\", \"WaitForFirstConsumer\"",
                "allowedTopologies[0].matchLabelExpressions[0].values[1]: Duplicate value: \"v\"",
                "allowedTopologies[0].matchLabelExpressions[1].values: Required value",
                "allowedTopologies[0].matchLabelExpressions[1].key: Duplicate value: \"k\"",
            ]
        );
        let affinity = |key: &str| json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": key, "operator": "In", "values": ["a"]}]}]}});
        let volume = json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}, "nodeAffinity": affinity("beta.kubernetes.io/os")}});
        let (old, causes) = create("", "persistentvolumes", volume);
        assert!(causes.is_empty(), "{causes:?}");
        for (key, fine) in [("beta.kubernetes.io/os", true), ("kubernetes.io/os", true), ("other", false)] {
            let mut new = old.clone();
            new["spec"]["nodeAffinity"] = affinity(key);
            let found = lines(&update("", "persistentvolumes", new, &old).1);
            assert_eq!(found.is_empty(), fine, "{found:?}");
            assert!(fine || found[0].ends_with("field is immutable, except for updating from beta label to GA"), "{found:?}");
        }
        let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "dataSource": {"apiGroup": "x.io", "kind": "Thing", "name": "t"}}});
        let (made, causes) = create("", "persistentvolumeclaims", claim);
        assert!(causes.is_empty() && made["spec"].get("dataSource").is_none() && made["spec"].get("dataSourceRef").is_none(), "{made} {causes:?}");
    }

    #[test]
    fn volumes_and_claims() {
        let volume = json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}});
        let (made, causes) = create("", "persistentvolumes", volume);
        assert!(causes.is_empty(), "{causes:?}");
        assert_eq!((&made["spec"]["persistentVolumeReclaimPolicy"], &made["status"]["phase"]), (&json!("Retain"), &json!("Pending")));
        let mut moved = made.clone();
        moved["spec"]["hostPath"]["path"] = "/y".into();
        assert!(lines(&update("", "persistentvolumes", moved, &made).1)[0].starts_with("spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation\n@@"));
        assert_eq!(
            lines(&create("", "persistentvolumes", json!({"metadata": {"name": "v"}, "spec": {}})).1),
            [
                "spec.accessModes: Required value",
                "spec.capacity: Required value",
                "spec.capacity: Unsupported value: {}: supported values: \"storage\"",
                "spec: Required value: must specify a volume type",
            ]
        );
        assert_eq!(
            lines(&create("", "persistentvolumeclaims", json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["Foo"]}})).1),
            [
                "spec.accessModes: Unsupported value: \"Foo\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
                "spec.resources[storage]: Required value",
            ]
        );
    }
}
