//! What admission does to a new pod: its service account, its priority, its tolerations of a failing node.

use ::api::Status;
use serde_json::{Value, json};

use super::shown_name;
use crate::api::Api;
use crate::registry::text;

const TOKEN_MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How long the projected token lives before it must be renewed; upstream adds seven seconds to tell it from a user's hour.
const TOKEN_SECONDS: i64 = 3607;
const TOLERATION_SECONDS: i64 = 300;
const SYSTEM_CRITICAL: [(&str, i64); 2] = [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

/// The ServiceAccount plugin: `default` unless named, its image pull secrets, and its token mounted into every container.
pub fn service_account(api: &Api, namespace: &str, pod: &mut Value) -> Result<(), Status> {
    let mirror = pod.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_some();
    if mirror {
        return Ok(());
    }
    let named = text(pod, "/spec/serviceAccountName").to_owned();
    let name = if named.is_empty() { "default".to_owned() } else { named };
    pod["spec"]["serviceAccountName"] = name.as_str().into();
    pod["spec"]["serviceAccount"] = name.as_str().into();
    let account = match api.store.get(&format!("/registry/serviceaccounts/{namespace}/{name}")) {
        Some(account) => account.value().map_err(Status::internal)?,
        None => {
            let pod_name = shown_name(pod).to_owned();
            return Err(Status::forbidden("", "pods", &pod_name, &format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found")));
        }
    };
    if pod.pointer("/spec/imagePullSecrets").and_then(Value::as_array).is_none_or(Vec::is_empty)
        && let Some(secrets) = account.get("imagePullSecrets").filter(|list| list.as_array().is_some_and(|list| !list.is_empty()))
    {
        pod["spec"]["imagePullSecrets"] = secrets.clone();
    }
    let mounts = pod.pointer("/spec/automountServiceAccountToken").and_then(Value::as_bool).or_else(|| account.get("automountServiceAccountToken").and_then(Value::as_bool)).unwrap_or(true);
    if mounts {
        mount_token(api, pod);
    }
    Ok(())
}

fn mount_token(api: &Api, pod: &mut Value) {
    let existing = pod.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten().map(|volume| text(volume, "/name").to_owned()).find(|name| name.starts_with("kube-api-access-"));
    let volume = existing.clone().unwrap_or_else(|| format!("kube-api-access-{}", api.suffix()));
    let mut used = false;
    for list in ["initContainers", "containers"] {
        for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let taken = container.get("volumeMounts").and_then(Value::as_array).into_iter().flatten().any(|mount| text(mount, "/mountPath") == TOKEN_MOUNT);
            if taken {
                continue;
            }
            used = true;
            let mount = json!({"name": volume, "mountPath": TOKEN_MOUNT, "readOnly": true});
            match container.get_mut("volumeMounts").and_then(Value::as_array_mut) {
                Some(mounts) => mounts.push(mount),
                None => container["volumeMounts"] = json!([mount]),
            }
        }
    }
    if !used || existing.is_some() {
        return;
    }
    let volume = json!({"name": volume, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}});
    match pod["spec"].get_mut("volumes").and_then(Value::as_array_mut) {
        Some(volumes) => volumes.push(volume),
        None => pod["spec"]["volumes"] = json!([volume]),
    }
}

/// The Priority plugin: from the class's name to its number.
pub fn priority(api: &Api, pod: &mut Value) -> Result<(), Status> {
    let name = text(pod, "/spec/priorityClassName").to_owned();
    let class = if name.is_empty() {
        let page = api.store.list("/registry/priorityclasses/", None, None, 0).map_err(Status::internal)?;
        page.items.iter().filter_map(|(_, object)| object.value().ok()).find(|class| class.get("globalDefault").and_then(Value::as_bool) == Some(true))
    } else if let Some((_, value)) = SYSTEM_CRITICAL.iter().find(|(known, _)| *known == name) {
        Some(json!({"metadata": {"name": name}, "value": value}))
    } else {
        let pod_name = shown_name(pod).to_owned();
        let found = api.store.get(&format!("/registry/priorityclasses/{name}")).ok_or_else(|| Status::forbidden("", "pods", &pod_name, &format!("no PriorityClass with name {name} was found")))?;
        Some(found.value().map_err(Status::internal)?)
    };
    let value = class.as_ref().and_then(|class| class.get("value")).and_then(Value::as_i64).unwrap_or(0);
    if let Some(given) = pod.pointer("/spec/priority").and_then(Value::as_i64)
        && given != value
    {
        let pod_name = shown_name(pod).to_owned();
        return Err(Status::forbidden("", "pods", &pod_name, &format!("the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name")));
    }
    if let Some(class) = &class {
        pod["spec"]["priorityClassName"] = text(class, "/metadata/name").into();
    }
    pod["spec"]["priority"] = value.into();
    let policy = class.as_ref().map(|class| text(class, "/preemptionPolicy")).filter(|policy| !policy.is_empty()).unwrap_or("PreemptLowerPriority").to_owned();
    pod["spec"]["preemptionPolicy"] = policy.into();
    Ok(())
}

/// DefaultTolerationSeconds: five minutes on a node that is not ready or not reachable.
pub fn default_tolerations(pod: &mut Value) {
    if !pod["spec"].get("tolerations").is_some_and(Value::is_array) {
        pod["spec"]["tolerations"] = json!([]);
    }
    let Some(list) = pod["spec"]["tolerations"].as_array_mut() else { return };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let covered = list.iter().any(|toleration| {
            let (known, effect) = (text(toleration, "/key"), text(toleration, "/effect"));
            (known == key || known.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        });
        if !covered {
            list.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECONDS}));
        }
    }
}
