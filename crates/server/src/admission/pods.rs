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

fn is_mirror(pod: &Value) -> bool {
    pod.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_some()
}

/// The names of the secrets that a pod uses otherwise than by volumes: with what says so, per container.
fn secret_references(pod: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (list, word) in [("initContainers", "init container"), ("containers", "container"), ("ephemeralContainers", "ephemeral container")] {
        for container in pod["spec"].get(list).and_then(Value::as_array).into_iter().flatten() {
            let name = text(container, "/name");
            for variable in container.get("env").and_then(Value::as_array).into_iter().flatten() {
                let secret = text(variable, "/valueFrom/secretKeyRef/name");
                if !secret.is_empty() {
                    let why = format!("{word} {name} with envVar {} referencing secret.secretName={secret:?}", text(variable, "/name"));
                    found.push((secret.to_owned(), why));
                }
            }
            for source in container.get("envFrom").and_then(Value::as_array).into_iter().flatten() {
                let secret = text(source, "/secretRef/name");
                if !secret.is_empty() {
                    found.push((secret.to_owned(), format!("{word} {name} with envFrom referencing secret.secretName={secret:?}")));
                }
            }
        }
    }
    found
}

/// The other half of the ServiceAccount plugin: mirror pods use no account and no secrets; an account that says so lets pods use its own secrets only.
pub fn check_service_account(api: &Api, namespace: &str, pod: &Value) -> Result<(), Status> {
    let refused = |why: &str| Err(Status::forbidden("", "pods", shown_name(pod), why));
    let volumes = || pod.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten();
    if is_mirror(pod) {
        if !text(pod, "/spec/serviceAccountName").is_empty() {
            return refused("a mirror pod may not reference service accounts");
        }
        if volumes().any(|volume| volume.get("secret").is_some()) || !secret_references(pod).is_empty() {
            return refused("a mirror pod may not reference secrets");
        }
        let projects_token = |volume: &Value| volume.pointer("/projected/sources").and_then(Value::as_array).into_iter().flatten().any(|source| source.get("serviceAccountToken").is_some());
        if volumes().any(projects_token) {
            return refused("a mirror pod may not use ServiceAccountToken volume projections");
        }
        return Ok(());
    }
    let name = text(pod, "/spec/serviceAccountName");
    let Some(account) = api.store.get(&format!("/registry/serviceaccounts/{namespace}/{name}")) else { return Ok(()) };
    let account = account.value().map_err(Status::internal)?;
    let enforced = matches!(text(&account, "/metadata/annotations/kubernetes.io~1enforce-mountable-secrets"), "1" | "t" | "T" | "TRUE" | "true" | "True");
    if !enforced {
        return Ok(());
    }
    let known = |list: &str, secret: &str| account.get(list).and_then(Value::as_array).into_iter().flatten().any(|known| text(known, "/name") == secret);
    for secret in volumes().filter_map(|volume| volume.pointer("/secret/secretName").and_then(Value::as_str)) {
        if !known("secrets", secret) {
            return refused(&format!("volume with secret.secretName=\"{secret}\" is not allowed because service account {name} does not reference that secret"));
        }
    }
    for (secret, what) in secret_references(pod) {
        if !known("secrets", &secret) {
            return refused(&format!("{what} is not allowed because service account {name} does not reference that secret"));
        }
    }
    for secret in pod.pointer("/spec/imagePullSecrets").and_then(Value::as_array).into_iter().flatten().map(|secret| text(secret, "/name")) {
        if !known("imagePullSecrets", secret) {
            return refused(&format!("imagePullSecret[{secret}] is not allowed because service account {name} does not reference that imagePullSecret"));
        }
    }
    Ok(())
}

/// The ServiceAccount plugin: `default` unless named, its image pull secrets, and its token mounted into every container.
pub fn service_account(api: &Api, namespace: &str, pod: &mut Value) -> Result<(), Status> {
    if is_mirror(pod) {
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
        // Should there be several, the lowest.
        page.items.iter().filter_map(|(_, object)| object.value().ok()).filter(is_default).min_by_key(|class| class.get("value").and_then(Value::as_i64))
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
    let given = text(pod, "/spec/preemptionPolicy");
    if !given.is_empty() && given != policy {
        return Err(Status::forbidden("", "pods", shown_name(pod), &format!("the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name")));
    }
    pod["spec"]["preemptionPolicy"] = policy.into();
    Ok(())
}

fn is_default(class: &Value) -> bool {
    class.get("globalDefault").and_then(Value::as_bool) == Some(true)
}

/// An update that says nothing of the priority changes nothing of it.
pub fn keep_priority(new: &mut Value, old: &Value) {
    for field in ["priority", "preemptionPolicy"] {
        let known = old.pointer(&format!("/spec/{field}")).filter(|known| !known.is_null());
        if let Some(known) = known
            && new["spec"].get(field).is_none_or(Value::is_null)
        {
            new["spec"][field] = known.clone();
        }
    }
}

/// At most one class is everybody's.
pub fn one_default_priority(api: &Api, class: &Value) -> Result<(), Status> {
    if !is_default(class) {
        return Ok(());
    }
    let name = text(class, "/metadata/name");
    let page = api.store.list("/registry/priorityclasses/", None, None, 0).map_err(Status::internal)?;
    match page.items.iter().filter_map(|(_, object)| object.value().ok()).find(|other| is_default(other) && text(other, "/metadata/name") != name) {
        Some(other) => Err(Status::forbidden("scheduling.k8s.io", "priorityclasses", name, &format!("PriorityClass {} is already marked as default. Only one default can exist", text(&other, "/metadata/name")))),
        None => Ok(()),
    }
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
