//! PersistentVolumes and claims, StorageClasses, VolumeAttachments, the CSI kinds.

use serde_json::Value;

use super::format::{NONE, UNSET, name, or, quantity};
use super::{Printer, age};
use crate::kinds::json::{child, entry, flag, list, strings, text};

fn access_modes(object: &Value, path: &str) -> String {
    let has = |mode: &str| strings(object, path).any(|one| one == mode);
    let short = [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    short.into_iter().filter(|(mode, _)| has(mode)).map(|(_, short)| short).collect::<Vec<_>>().join(",")
}

fn class(object: &Value) -> Value {
    entry(object, "metadata.annotations", "volume.beta.kubernetes.io/storage-class").unwrap_or(text(object, "spec.storageClassName")).into()
}

fn phase(object: &Value) -> Value {
    if child(object, "metadata.deletionTimestamp").is_some() { "Terminating".into() } else { text(object, "status.phase").into() }
}

fn or_unset(object: &Value, path: &str) -> Value {
    child(object, path).and_then(Value::as_str).unwrap_or(UNSET).into()
}

const VOLUMES: Printer = Printer {
    columns: "Name|Capacity|Access Modes|Reclaim Policy|Status|Claim|StorageClass|VolumeAttributesClass|Reason|Age|VolumeMode*",
    cells: |object, now| {
        let claim = child(object, "spec.claimRef").map_or(String::new(), |claim| format!("{}/{}", text(claim, "namespace"), text(claim, "name")));
        vec![
            name(object),
            quantity(child(object, "spec.capacity.storage")).into(),
            access_modes(object, "spec.accessModes").into(),
            text(object, "spec.persistentVolumeReclaimPolicy").into(),
            phase(object),
            claim.into(),
            class(object),
            or_unset(object, "spec.volumeAttributesClassName"),
            text(object, "status.reason").into(),
            age(object, now).into(),
            or_unset(object, "spec.volumeMode"),
        ]
    },
};

const CLAIMS: Printer = Printer {
    columns: "Name|Status|Volume|Capacity|Access Modes|StorageClass|VolumeAttributesClass|Age|VolumeMode*",
    cells: |object, now| {
        let volume = text(object, "spec.volumeName");
        let (capacity, modes) = if volume.is_empty() { (String::new(), String::new()) } else { (quantity(child(object, "status.capacity.storage")), access_modes(object, "status.accessModes")) };
        vec![
            name(object),
            phase(object),
            volume.into(),
            capacity.into(),
            modes.into(),
            class(object),
            or_unset(object, "spec.volumeAttributesClassName"),
            age(object, now).into(),
            or_unset(object, "spec.volumeMode"),
        ]
    },
};

const STORAGE_CLASSES: Printer = Printer {
    columns: "Name|Provisioner|ReclaimPolicy|VolumeBindingMode|AllowVolumeExpansion|Age",
    cells: |object, now| {
        let default = ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"].iter().any(|key| entry(object, "metadata.annotations", key) == Some("true"));
        let name = format!("{}{}", text(object, "metadata.name"), if default { " (default)" } else { "" });
        vec![
            name.into(),
            text(object, "provisioner").into(),
            or(text(object, "reclaimPolicy"), "Delete").into(),
            or(text(object, "volumeBindingMode"), "Immediate").into(),
            flag(object, "allowVolumeExpansion").into(),
            age(object, now).into(),
        ]
    },
};

const ATTRIBUTES_CLASSES: Printer = Printer { columns: "Name|DriverName|Age", cells: |object, now| vec![name(object), text(object, "driverName").into(), age(object, now).into()] };

const ATTACHMENTS: Printer = Printer {
    columns: "Name|Attacher|PV|Node|Attached:b|Age",
    cells: |object, now| {
        vec![
            name(object),
            text(object, "spec.attacher").into(),
            text(object, "spec.source.persistentVolumeName").into(),
            text(object, "spec.nodeName").into(),
            flag(object, "status.attached").into(),
            age(object, now).into(),
        ]
    },
};

const CSI_NODES: Printer = Printer { columns: "Name|Drivers:i|Age", cells: |object, now| vec![name(object), list(object, "spec.drivers").len().into(), age(object, now).into()] };

const CSI_DRIVERS: Printer = Printer {
    columns: "Name|AttachRequired:b|PodInfoOnMount:b|StorageCapacity:b|TokenRequests|RequiresRepublish:b|Modes|Age",
    cells: |object, now| {
        let tokens = child(object, "spec.tokenRequests").map_or(UNSET.to_owned(), |_| list(object, "spec.tokenRequests").iter().map(|token| text(token, "audience")).collect::<Vec<_>>().join(","));
        let modes = strings(object, "spec.volumeLifecycleModes").collect::<Vec<_>>().join(",");
        vec![
            name(object),
            child(object, "spec.attachRequired").and_then(Value::as_bool).unwrap_or(true).into(),
            flag(object, "spec.podInfoOnMount").into(),
            flag(object, "spec.storageCapacity").into(),
            tokens.into(),
            flag(object, "spec.requiresRepublish").into(),
            or(&modes, NONE).into(),
            age(object, now).into(),
        ]
    },
};

const CAPACITIES: Printer = Printer {
    columns: "Name|StorageClassName|Capacity",
    cells: |object, _| vec![name(object), text(object, "storageClassName").into(), child(object, "capacity").map_or(UNSET.to_owned(), |capacity| quantity(Some(capacity))).into()],
};

const MIGRATIONS: Printer = Printer {
    columns: "Name|Resource|Status",
    cells: |object, _| {
        let (group, resource) = (text(object, "spec.resource.group"), text(object, "spec.resource.resource"));
        let resource = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
        let condition = list(object, "status.conditions").iter().rfind(|condition| text(condition, "status") == "True" && matches!(text(condition, "type"), "Running" | "Failed" | "Succeeded"));
        vec![name(object), resource.into(), condition.map_or("Unknown", |condition| text(condition, "type")).into()]
    },
};

const STORAGE_VERSIONS: Printer = Printer {
    columns: "Name|CommonEncodingVersion|StorageVersions|Age",
    cells: |object, now| {
        let versions: Vec<String> = list(object, "status.storageVersions").iter().map(|version| format!("{}={}", text(version, "apiServerID"), text(version, "encodingVersion"))).collect();
        vec![name(object), or_unset(object, "status.commonEncodingVersion"), super::format::three(&versions, UNSET).into(), age(object, now).into()]
    },
};

pub fn printer(group: &str, plural: &str) -> Option<&'static Printer> {
    Some(match (group, plural) {
        ("", "persistentvolumes") => &VOLUMES,
        ("", "persistentvolumeclaims") => &CLAIMS,
        ("storage.k8s.io", "storageclasses") => &STORAGE_CLASSES,
        ("storage.k8s.io", "volumeattributesclasses") => &ATTRIBUTES_CLASSES,
        ("storage.k8s.io", "volumeattachments") => &ATTACHMENTS,
        ("storage.k8s.io", "csinodes") => &CSI_NODES,
        ("storage.k8s.io", "csidrivers") => &CSI_DRIVERS,
        ("storage.k8s.io", "csistoragecapacities") => &CAPACITIES,
        ("storagemigration.k8s.io", "storageversionmigrations") => &MIGRATIONS,
        ("internal.apiserver.k8s.io", "storageversions") => &STORAGE_VERSIONS,
        _ => return None,
    })
}


#[cfg(test)]
mod tests {
    use super::super::tests::line;
    use serde_json::json;

    #[test]
    fn volumes() {
        let volume = json!({"spec": {"capacity": {"storage": "1024Mi"}, "accessModes": ["ReadWriteMany", "ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain", "claimRef": {"namespace": "n", "name": "c"}, "storageClassName": "s", "volumeMode": "Filesystem"}, "status": {"phase": "Bound"}});
        assert_eq!(line("", "v1", "persistentvolumes", volume), "x|1Gi|RWO,RWX|Retain|Bound|n/c|s|<unset>||5m|Filesystem");
        assert_eq!(line("", "v1", "persistentvolumeclaims", json!({"status": {"phase": "Pending"}})), "x|Pending|||||<unset>|5m|<unset>");
        let class = json!({"metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "p"});
        assert_eq!(line("storage.k8s.io", "v1", "storageclasses", class), "x (default)|p|Delete|Immediate|false|5m");
    }
}
