//! Volumes of pods and the sources of persistent volumes, as one table of what each shows.

use api::kinds::json::{child, flag, list, map, text};
use api::quantity::Quantity;
use serde_json::{Value, json};

use super::writer::{Writer, has, integer, joined, line, shown, shown_or};

/// A label, the field it shows, and what a missing field shows.
type Shown = (&'static str, &'static str, &'static str);

/// The field of a volume, its heading, its lines.
const SOURCES: [(&str, &str, &[Shown]); 29] = [
    ("hostPath", "HostPath (bare host directory volume)", &[("Path:", "path", ""), ("HostPathType:", "type", "<none>")]),
    ("gcePersistentDisk", "GCEPersistentDisk (a Persistent Disk resource in Google Compute Engine)", &[("PDName:", "pdName", ""), FS_TYPE, ("Partition:", "partition", "0"), READ_ONLY]),
    ("awsElasticBlockStore", "AWSElasticBlockStore (a Persistent Disk resource in AWS)", &[("VolumeID:", "volumeID", ""), FS_TYPE, ("Partition:", "partition", "0"), READ_ONLY]),
    ("gitRepo", "GitRepo (a volume that is pulled from git when the pod is created)", &[("Repository:", "repository", ""), ("Revision:", "revision", "")]),
    ("secret", "Secret (a volume populated by a Secret)", &[("SecretName:", "secretName", ""), OPTIONAL]),
    ("configMap", "ConfigMap (a volume populated by a ConfigMap)", &[("Name:", "name", ""), OPTIONAL]),
    ("nfs", "NFS (an NFS mount that lasts the lifetime of a pod)", &[("Server:", "server", ""), ("Path:", "path", ""), READ_ONLY]),
    (
        "iscsi",
        "ISCSI (an ISCSI Disk resource that is attached to a kubelet's host machine and then exposed to the pod)",
        &[
            ("TargetPortal:", "targetPortal", ""), ("IQN:", "iqn", ""), ("Lun:", "lun", "0"), ("ISCSIInterface", "iscsiInterface", ""), FS_TYPE, READ_ONLY, ("Portals:", "portals", "[]"),
            ("DiscoveryCHAPAuth:", "chapAuthDiscovery", "false"), ("SessionCHAPAuth:", "chapAuthSession", "false"), SECRET_REF, ("InitiatorName:", "initiatorName", "<none>"),
        ],
    ),
    ("glusterfs", "Glusterfs (a Glusterfs mount on the host that shares a pod's lifetime)", &[("EndpointsName:", "endpoints", ""), ("Path:", "path", ""), READ_ONLY]),
    (
        "persistentVolumeClaim",
        "PersistentVolumeClaim (a reference to a PersistentVolumeClaim in the same namespace)",
        &[("ClaimName:", "claimName", ""), READ_ONLY],
    ),
    (
        "rbd",
        "RBD (a Rados Block Device mount on the host that shares a pod's lifetime)",
        &[
            ("CephMonitors:", "monitors", "[]"), ("RBDImage:", "image", ""), FS_TYPE, ("RBDPool:", "pool", ""), ("RadosUser:", "user", ""), ("Keyring:", "keyring", ""), SECRET_REF,
            READ_ONLY,
        ],
    ),
    ("quobyte", "Quobyte (a Quobyte mount on the host that shares a pod's lifetime)", &[("Registry:", "registry", ""), ("Volume:", "volume", ""), READ_ONLY]),
    (
        "azureDisk",
        "AzureDisk (an Azure Data Disk mount on the host and bind mount to the pod)",
        &[("DiskName:", "diskName", ""), ("DiskURI:", "diskURI", ""), ("Kind: ", "kind", ""), FS_TYPE, ("CachingMode:", "cachingMode", ""), READ_ONLY],
    ),
    ("vsphereVolume", "vSphereVolume (a Persistent Disk resource in vSphere)", &[("VolumePath:", "volumePath", ""), FS_TYPE, ("StoragePolicyName:", "storagePolicyName", "")]),
    ("cinder", "Cinder (a Persistent Disk resource in OpenStack)", &[("VolumeID:", "volumeID", ""), FS_TYPE, READ_ONLY, SECRET_REF]),
    ("photonPersistentDisk", "PhotonPersistentDisk (a Persistent Disk resource in photon platform)", &[("PdID:", "pdID", ""), FS_TYPE]),
    ("portworxVolume", "PortworxVolume (a Portworx Volume resource)", &[("VolumeID:", "volumeID", "")]),
    (
        "scaleIO",
        "ScaleIO (a persistent volume backed by a block device in ScaleIO)",
        &[
            ("Gateway:", "gateway", ""), ("System:", "system", ""), ("Protection Domain:", "protectionDomain", ""), ("Storage Pool:", "storagePool", ""), ("Storage Mode:", "storageMode", ""),
            ("VolumeName:", "volumeName", ""), FS_TYPE, READ_ONLY,
        ],
    ),
    ("local", "LocalVolume (a persistent volume backed by local storage on a node)", &[("Path:", "path", "")]),
    (
        "cephfs",
        "CephFS (a CephFS mount on the host that shares a pod's lifetime)",
        &[("Monitors:", "monitors", "[]"), ("Path:", "path", ""), ("User:", "user", ""), ("SecretFile:", "secretFile", ""), SECRET_REF, READ_ONLY],
    ),
    ("storageos", "StorageOS (a StorageOS Persistent Disk resource)", &[("VolumeName:", "volumeName", ""), ("VolumeNamespace:", "volumeNamespace", ""), FS_TYPE, READ_ONLY]),
    ("azureFile", "AzureFile (an Azure File Service mount on the host and bind mount to the pod)", &[("SecretName:", "secretName", ""), ("ShareName:", "shareName", ""), READ_ONLY]),
    (
        "flexVolume",
        "FlexVolume (a generic volume resource that is provisioned/attached using an exec based plugin)",
        &[("Driver:", "driver", ""), FS_TYPE, SECRET_REF, READ_ONLY, ("Options:", "options", "map[]")],
    ),
    ("flocker", "Flocker (a Flocker volume mounted by the Flocker agent)", &[("DatasetName:", "datasetName", ""), ("DatasetUUID:", "datasetUUID", "")]),
    ("image", "Image (a container image or OCI artifact)", &[("Reference:", "reference", ""), ("PullPolicy:", "pullPolicy", "")]),
    // The rest need more than a table.
    ("emptyDir", "EmptyDir (a temporary directory that shares a pod's lifetime)", &[("Medium:", "medium", "")]),
    ("fc", "FC (a Fibre Channel disk)", &[]),
    ("csi", "CSI (a Container Storage Interface (CSI) volume source)", &[("Driver:", "driver", ""), FS_TYPE]),
    ("downwardAPI", "DownwardAPI (a volume populated by information about the pod)", &[]),
];
const FS_TYPE: Shown = ("FSType:", "fsType", "");
const READ_ONLY: Shown = ("ReadOnly:", "readOnly", "false");
const OPTIONAL: Shown = ("Optional:", "optional", "false");
const SECRET_REF: Shown = ("SecretRef:", "secretRef", "nil");

pub fn volumes(pod: &Value, indent: &str, w: &mut Writer) {
    let volumes = list(pod, "spec.volumes");
    if volumes.is_empty() {
        line!(w, 0, "{indent}Volumes:\t<none>");
        return;
    }
    line!(w, 0, "{indent}Volumes:");
    for volume in volumes {
        line!(w, 1, "{}{}:", if indent.is_empty() { "" } else { " " }, text(volume, "name"));
        source(volume, w);
    }
}

/// The source of a volume, or of a persistent volume given its `spec`.
pub fn source(volume: &Value, w: &mut Writer) {
    if let Some(projected) = child(volume, "projected") {
        return projection(projected, w);
    }
    if let Some(ephemeral) = child(volume, "ephemeral") {
        return ephemeral_claim(ephemeral, w);
    }
    let found = SOURCES.iter().find_map(|(field, title, lines)| child(volume, field).map(|source| (*field, source, *title, *lines)));
    let Some((field, source, title, lines)) = found else {
        line!(w, 1, "<unknown>");
        return;
    };
    line!(w, 2, "Type:\t{title}");
    for (label, field, otherwise) in lines {
        line!(w, 2, "{label}\t{}", shown_or(source, field, otherwise));
    }
    match field {
        "emptyDir" => {
            let limit = child(source, "sizeLimit").and_then(|limit| Quantity::from_json(limit).ok()).filter(|limit| limit.sign() > 0);
            line!(w, 2, "SizeLimit:\t{}", limit.map_or_else(|| "<unset>".to_owned(), |limit| limit.to_string()));
        }
        "fc" => {
            line!(w, 2, "TargetWWNs:\t{}", joined(source, "targetWWNs", ", "));
            line!(w, 2, "LUN:\t{}", shown_or(source, "lun", "<none>"));
            line!(w, 2, "FSType:\t{}", text(source, "fsType"));
            line!(w, 2, "ReadOnly:\t{}", flag(source, "readOnly"));
        }
        "csi" => {
            if has(source, "volumeHandle") {
                line!(w, 2, "VolumeHandle:\t{}", text(source, "volumeHandle"));
            }
            line!(w, 2, "ReadOnly:\t{}", flag(source, "readOnly"));
            w.nested += 2;
            w.pairs("", "VolumeAttributes", map(source, "volumeAttributes"));
            w.nested -= 2;
        }
        "downwardAPI" => {
            line!(w, 2, "Items:");
            for item in list(source, "items") {
                for field in ["fieldRef.fieldPath", "resourceFieldRef.resource"] {
                    if has(item, field) {
                        line!(w, 3, "{} -> {}", text(item, field), text(item, "path"));
                    }
                }
            }
        }
        _ => {}
    }
}

fn projection(projected: &Value, w: &mut Writer) {
    line!(w, 2, "Type:\tProjected (a volume that contains injected data from multiple sources)");
    for source in list(projected, "sources") {
        if let Some(secret) = child(source, "secret") {
            line!(w, 2, "SecretName:\t{}", text(secret, "name"));
            line!(w, 2, "Optional:\t{}", flag(secret, "optional"));
        } else if has(source, "downwardAPI") {
            line!(w, 2, "DownwardAPI:\ttrue");
        } else if let Some(map) = child(source, "configMap") {
            line!(w, 2, "ConfigMapName:\t{}", text(map, "name"));
            line!(w, 2, "Optional:\t{}", flag(map, "optional"));
        } else if let Some(token) = child(source, "serviceAccountToken") {
            line!(w, 2, "TokenExpirationSeconds:\t{}", integer(token, "expirationSeconds"));
        }
    }
}

fn ephemeral_claim(ephemeral: &Value, w: &mut Writer) {
    line!(w, 2, "Type:\tEphemeralVolume (an inline specification for a volume that gets created and deleted with the pod)");
    if let Some(template) = child(ephemeral, "volumeClaimTemplate") {
        let claim = json!({"metadata": template.get("metadata"), "spec": template.get("spec")});
        w.nested += 2;
        super::storage::claim(&claim, false, w);
        w.nested -= 2;
    }
}

pub fn tolerations(pod: &Value, indent: &str, w: &mut Writer) {
    let mut tolerations: Vec<&Value> = list(pod, "spec.tolerations").iter().collect();
    tolerations.sort_by_key(|toleration| text(toleration, "key"));
    let lines = tolerations.into_iter().map(|toleration| {
        let (key, value, effect) = (text(toleration, "key"), text(toleration, "value"), text(toleration, "effect"));
        let mut line = key.to_owned();
        if !value.is_empty() {
            line.push_str(&format!("={value}"));
        }
        if !effect.is_empty() {
            line.push_str(&format!(":{effect}"));
        }
        if text(toleration, "operator") == "Exists" && value.is_empty() {
            line.push_str(if line.is_empty() { "op=Exists" } else { " op=Exists" });
        }
        if let Some(seconds) = child(toleration, "tolerationSeconds") {
            line.push_str(&format!(" for {}s", shown(seconds)));
        }
        line
    });
    w.each("", &format!("{indent}Tolerations"), lines);
}

pub fn topology_spread(pod: &Value, indent: &str, w: &mut Writer) {
    let mut constraints: Vec<&Value> = list(pod, "spec.topologySpreadConstraints").iter().collect();
    if constraints.is_empty() {
        return;
    }
    constraints.sort_by_key(|constraint| text(constraint, "topologyKey"));
    let lines = constraints.into_iter().map(|constraint| {
        let selector = if has(constraint, "labelSelector") { format!(" for selector {}", super::writer::format_selector(constraint, "labelSelector")) } else { String::new() };
        format!("{}:{} when max skew {} is exceeded{selector}", text(constraint, "topologyKey"), text(constraint, "whenUnsatisfiable"), integer(constraint, "maxSkew"))
    });
    w.each(indent, "Topology Spread Constraints", lines);
}
