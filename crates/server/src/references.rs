//! What objects of the API a pod or a volume refers to: for the node authorizer's graph, and for pods that may refer to nothing.
//!
//! Mirrors pkg/api/v1/pod/util.go (`VisitPodSecretNames`, `VisitPodConfigmapNames`, `HasAPIObjectReference`) and pkg/api/v1/persistentvolume.

use serde_json::Value;

use crate::registry::text;

pub fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["/spec/initContainers", "/spec/containers", "/spec/ephemeralContainers"].into_iter().flat_map(|pointer| list(pod, pointer))
}

pub fn volumes(pod: &Value) -> impl Iterator<Item = &Value> {
    list(pod, "/spec/volumes")
}

/// Where containers and volumes name secrets of the pod's namespace.
const SECRET_ENV: (&str, &str) = ("/secretRef/name", "/valueFrom/secretKeyRef/name");
const CONFIG_MAP_ENV: (&str, &str) = ("/configMapRef/name", "/valueFrom/configMapKeyRef/name");
const SECRET_VOLUMES: [&str; 10] = [
    "/azureFile/secretName",
    "/cephfs/secretRef/name",
    "/cinder/secretRef/name",
    "/flexVolume/secretRef/name",
    "/rbd/secretRef/name",
    "/secret/secretName",
    "/scaleIO/secretRef/name",
    "/iscsi/secretRef/name",
    "/storageos/secretRef/name",
    "/csi/nodePublishSecretRef/name",
];

fn named<'a>(found: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut names: Vec<&str> = found.filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn of_containers<'a>(pod: &'a Value, (from, env): (&'static str, &'static str)) -> impl Iterator<Item = &'a str> {
    containers(pod).flat_map(move |container| list(container, "/envFrom").map(move |source| text(source, from)).chain(list(container, "/env").map(move |variable| text(variable, env))))
}

/// Each once, sorted.
pub fn secrets(pod: &Value) -> Vec<&str> {
    let pulls = list(pod, "/spec/imagePullSecrets").map(|reference| text(reference, "/name"));
    let direct = volumes(pod).flat_map(|volume| SECRET_VOLUMES.iter().map(move |pointer| text(volume, pointer)));
    let projected = volumes(pod).flat_map(|volume| list(volume, "/projected/sources")).map(|source| text(source, "/secret/name"));
    named(pulls.chain(of_containers(pod, SECRET_ENV)).chain(direct).chain(projected))
}

pub fn config_maps(pod: &Value) -> Vec<&str> {
    let direct = volumes(pod).map(|volume| text(volume, "/configMap/name"));
    let projected = volumes(pod).flat_map(|volume| list(volume, "/projected/sources")).map(|source| text(source, "/configMap/name"));
    named(of_containers(pod, CONFIG_MAP_ENV).chain(direct).chain(projected))
}

/// The claim a volume of a pod means, by name or as its own.
pub fn claim(pod: &Value, volume: &Value) -> Option<String> {
    if let Some(name) = volume.pointer("/persistentVolumeClaim/claimName").and_then(Value::as_str) {
        return Some(name.to_owned());
    }
    volume.get("ephemeral").filter(|source| source.is_object()).map(|_| format!("{}-{}", text(pod, "/metadata/name"), text(volume, "/name")))
}

pub fn claims(pod: &Value) -> Vec<String> {
    volumes(pod).filter_map(|volume| claim(pod, volume)).collect()
}

/// By name, or as they were generated from a template, or for extended resources.
pub fn resource_claims(pod: &Value) -> Vec<&str> {
    let made = |name: &str| list(pod, "/status/resourceClaimStatuses").find(|status| text(status, "/name") == name).map_or("", |status| text(status, "/resourceClaimName"));
    let claims = list(pod, "/spec/resourceClaims").map(|claim| match text(claim, "/resourceClaimName") {
        "" => made(text(claim, "/name")),
        name => name,
    });
    named(claims.chain(std::iter::once(text(pod, "/status/extendedResourceClaimStatus/resourceClaimName"))))
}

/// The secrets of a volume that nodes may see: namespace and name.
pub fn volume_secrets(volume: &Value) -> Vec<(&str, &str)> {
    let claimed = text(volume, "/spec/claimRef/namespace");
    let mut found = Vec::new();
    let azure = text(volume, "/spec/azureFile/secretName");
    if !azure.is_empty() {
        found.push((volume.pointer("/spec/azureFile/secretNamespace").and_then(Value::as_str).filter(|namespace| !namespace.is_empty()).unwrap_or(claimed), azure));
    }
    for source in ["cephfs/secretRef", "flexVolume/secretRef", "rbd/secretRef", "scaleIO/secretRef", "iscsi/secretRef", "cinder/secretRef", "storageos/secretRef", "csi/nodePublishSecretRef", "csi/nodeStageSecretRef", "csi/nodeExpandSecretRef"] {
        let Some(reference) = volume.pointer(&format!("/spec/{source}")).filter(|reference| reference.is_object()) else { continue };
        let namespace = Some(text(reference, "/namespace")).filter(|namespace| !namespace.is_empty()).unwrap_or(claimed);
        found.push((namespace, text(reference, "/name")));
    }
    found.retain(|(_, name)| !name.is_empty());
    found
}

/// Sources of volumes that need no object of the API; `image`, `hostPath` and the like.
const OF_ITSELF: [&str; 22] = [
    "awsElasticBlockStore", "azureDisk", "cephfs", "cinder", "downwardAPI", "emptyDir", "fc", "flexVolume", "flocker", "gcePersistentDisk", "gitRepo", "hostPath", "image", "iscsi", "nfs", "photonPersistentDisk",
    "portworxVolume", "quobyte", "rbd", "scaleIO", "storageos", "vsphereVolume",
];

/// What of the API a pod refers to, if anything, as refusals tell it.
pub fn any(pod: &Value) -> Option<&'static str> {
    if !text(pod, "/spec/serviceAccountName").is_empty() {
        return Some("serviceaccounts");
    }
    if !secrets(pod).is_empty() {
        return Some("secrets");
    }
    if !config_maps(pod).is_empty() {
        return Some("configmaps");
    }
    if list(pod, "/spec/resourceClaims").next().is_some() {
        return Some("resourceclaims");
    }
    volumes(pod).find_map(|volume| {
        let has = |field: &str| volume.get(field).is_some_and(|source| !source.is_null());
        if OF_ITSELF.iter().any(|field| has(field)) {
            return None;
        }
        if has("projected") {
            return list(volume, "/projected/sources").find_map(|source| {
                let has = |field: &str| source.get(field).is_some_and(|source| !source.is_null());
                match () {
                    () if has("serviceAccountToken") => Some("serviceaccounts (via projected volumes)"),
                    () if has("clusterTrustBundle") => Some("clustertrustbundles"),
                    () if has("podCertificate") => Some("podcertificates"),
                    () if has("downwardAPI") => None,
                    () => Some("unknown"),
                }
            });
        }
        match () {
            () if has("csi") => Some("csidrivers (via CSI volumes)"),
            () if has("glusterfs") => Some("endpoints (via glusterFS volumes)"),
            () if has("persistentVolumeClaim") => Some("persistentvolumeclaims"),
            () if has("ephemeral") => Some("persistentvolumeclaims (via ephemeral volumes)"),
            () if has("azureFile") => Some("secrets (via azureFile volumes)"),
            () => Some("unknown"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn everything_a_pod_names() {
        let pod = json!({
            "metadata": {"name": "p"},
            "spec": {
                "imagePullSecrets": [{"name": "pull"}],
                "initContainers": [{"envFrom": [{"secretRef": {"name": "s1"}}, {"configMapRef": {"name": "c1"}}]}],
                "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "s2"}}}, {"valueFrom": {"configMapKeyRef": {"name": "c1"}}}]}],
                "volumes": [
                    {"name": "a", "secret": {"secretName": "s3"}},
                    {"name": "b", "projected": {"sources": [{"secret": {"name": "s4"}}, {"configMap": {"name": "c2"}}]}},
                    {"name": "d", "persistentVolumeClaim": {"claimName": "pvc"}},
                    {"name": "e", "ephemeral": {}},
                ],
                "resourceClaims": [{"name": "x", "resourceClaimName": "r1"}, {"name": "y", "resourceClaimTemplateName": "t"}, {"name": "z", "resourceClaimTemplateName": "t"}],
            },
            "status": {"resourceClaimStatuses": [{"name": "y", "resourceClaimName": "r2"}]},
        });
        assert_eq!(secrets(&pod), ["pull", "s1", "s2", "s3", "s4"]);
        assert_eq!(config_maps(&pod), ["c1", "c2"]);
        assert_eq!(claims(&pod), ["pvc", "p-e"]);
        assert_eq!(resource_claims(&pod), ["r1", "r2"]);
        assert_eq!(any(&pod), Some("secrets"));
        let volume = json!({"spec": {"claimRef": {"namespace": "n"}, "csi": {"nodeStageSecretRef": {"namespace": "k", "name": "s"}, "controllerPublishSecretRef": {"namespace": "k", "name": "no"}}, "azureFile": {"secretName": "az"}}});
        assert_eq!(volume_secrets(&volume), [("n", "az"), ("k", "s")]);
        for (volume, want) in [(json!({"hostPath": {}}), None), (json!({"csi": {}}), Some("csidrivers (via CSI volumes)")), (json!({"projected": {"sources": [{"downwardAPI": {}}, {"serviceAccountToken": {}}]}}), Some("serviceaccounts (via projected volumes)"))] {
            assert_eq!(any(&json!({"spec": {"volumes": [volume]}})), want);
        }
    }
}
