//! What the mirror has in place of the pod networks which the workshop applies.
//!
//! The objects have the names, kinds and labels that the lesson shows, and no rights. What the DaemonSet's pods run is Coracle: they ask their nodes for the built-in
//! pod network, which starts it in a cluster made with `--network=none` and changes nothing in any other. Each object says so in an annotation.

use serde_json::{Value, json};

/// Where the pods see the node's folder of CNI configurations.
const FOLDER_INSIDE: &str = "/host/etc/cni/net.d";
const NOTE: &str = "From the lab's mirror. In place of what is not here, Coracle's built-in pod network does this work. The pods switch it on where it is not on already; no rights are given.";

fn metadata(name: &str, namespaced: bool) -> Value {
    let mut metadata = json!({"name": name, "labels": {"name": name}, "annotations": {"coracle.dev/note": NOTE}});
    if namespaced {
        metadata["namespace"] = "kube-system".into();
    }
    metadata
}

fn account(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(name, true)})
}

fn role(kind: &str, name: &str) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": metadata(name, kind == "Role"), "rules": []})
}

fn binding(kind: &str, name: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": format!("{kind}Binding"), "metadata": metadata(name, kind == "Role"),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "kube-system"}]
    })
}

fn daemon_set(name: &str, labels: &Value) -> Value {
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": metadata(name, true),
        "spec": {
            "minReadySeconds": 5,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "hostNetwork": true,
                    "serviceAccountName": name,
                    "automountServiceAccountToken": false,
                    "priorityClassName": "system-node-critical",
                    "tolerations": [{"operator": "Exists"}],
                    // The same as `coracle network manifest` has.
                    "containers": [{
                        "name": name, "image": "coracle.dev/coracle", "imagePullPolicy": "IfNotPresent", "args": ["network", "install", "--to", FOLDER_INSIDE],
                        "resources": {"requests": {"cpu": "1m", "memory": "8Mi"}}, "volumeMounts": [{"name": "configurations", "mountPath": FOLDER_INSIDE}]
                    }],
                    "volumes": [{"name": "configurations", "hostPath": {"path": "/etc/cni/net.d", "type": "DirectoryOrCreate"}}]
                }
            }
        }
    });
    object["metadata"]["labels"] = labels.clone();
    object
}

fn list(items: &[Value]) -> String {
    format!("# {NOTE}\n{:#}\n", json!({"apiVersion": "v1", "kind": "List", "items": items}))
}

/// The six objects of weave-net.
pub fn weave() -> String {
    let name = "weave-net";
    list(&[
        account(name),
        role("ClusterRole", name),
        binding("ClusterRole", name),
        role("Role", name),
        binding("Role", name),
        daemon_set(name, &json!({"name": name})),
    ])
}

/// kube-router, as Play with Kubernetes came to tell its learners to apply.
pub fn kube_router() -> String {
    let name = "kube-router";
    let labels = json!({"k8s-app": name, "tier": "node"});
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata("kube-router-cfg", true), "data": {}});
    list(&[config, daemon_set(name, &labels), account(name), role("ClusterRole", name), binding("ClusterRole", name)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<String> {
        let list: Value = serde_json::from_str(text.split_once('\n').unwrap().1).unwrap();
        list["items"].as_array().unwrap().iter().map(|item| format!("{}/{}", item["kind"].as_str().unwrap(), item["metadata"]["name"].as_str().unwrap())).collect()
    }

    #[test]
    fn six_objects_as_the_lesson_shows() {
        assert_eq!(
            kinds(&weave()),
            ["ServiceAccount/weave-net", "ClusterRole/weave-net", "ClusterRoleBinding/weave-net", "Role/weave-net", "RoleBinding/weave-net", "DaemonSet/weave-net"]
        );
        assert_eq!(kinds(&kube_router()).len(), 5);
        assert!(weave().starts_with("# From the lab's mirror."));
    }
}
