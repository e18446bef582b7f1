//! What every cluster has from its first second: namespaces, priority classes, roles, the `kubernetes` Service.
//!
//! Each object is created only when it is missing; what people changed stays changed.

use std::sync::Arc;

use ::api::Status;
use client::WriteOptions;
use serde_json::{Value, json};

use crate::api::{Api, Context};
use crate::authentication::User;
use crate::decode;

pub async fn run(api: &Arc<Api>) -> Result<(), Status> {
    let _ = WriteOptions::default();
    for namespace in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        ensure(api, None, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})).await?;
    }
    for (name, value, description) in [
        ("system-node-critical", 2_000_001_000, "Used for system critical pods that must not be moved from their current node."),
        ("system-cluster-critical", 2_000_000_000, "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary."),
    ] {
        ensure(api, None, json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value, "description": description})).await?;
    }
    for object in roles() {
        let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str).map(str::to_owned);
        ensure(api, namespace.as_deref(), object).await?;
    }
    kubernetes_service(api).await
}

async fn ensure(api: &Arc<Api>, namespace: Option<&str>, object: Value) -> Result<(), Status> {
    let version = object["apiVersion"].as_str().unwrap_or_default();
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let kind = object["kind"].as_str().unwrap_or_default();
    let row = api.serving.rows().all().iter().find(|row| row.group == group && row.version == version && row.kind == kind).cloned().ok_or_else(|| Status::internal(format!("no row for {kind}")))?;
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    if api.store.get(&row.key(namespace, name)).is_some() {
        return Ok(());
    }
    let cx = Context { field_manager: "kube-apiserver".into(), ..Context::of(Arc::new(User::component("system:apiserver"))) };
    let value = decode::shape(&row, object, &[], &cx)?;
    match api.create(&row, namespace, value, &cx).await {
        Err(status) if status.is_already_exists() => Ok(()),
        done => done.map(drop),
    }
}

/// The Service clients in pods find the API server by, and its endpoint.
async fn kubernetes_service(api: &Arc<Api>) -> Result<(), Status> {
    let Some(address) = api.allocations.first() else { return Ok(()) };
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {"type": "ClusterIP", "clusterIP": address.to_string(), "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": api.config.secure_port}]}});
    ensure(api, Some("default"), service).await?;
    let host = api.config.advertise_address.to_string();
    let family = if api.config.advertise_address.is_ipv4() { "IPv4" } else { "IPv6" };
    let port = json!({"name": "https", "port": api.config.secure_port, "protocol": "TCP"});
    let endpoints = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": host}], "ports": [port]}]});
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": family, "endpoints": [{"addresses": [host], "conditions": {"ready": true}}], "ports": [port]});
    for (object, plural, group) in [(endpoints, "endpoints", ""), (slice, "endpointslices", "discovery.k8s.io")] {
        ensure(api, Some("default"), object.clone()).await?;
        // The machine's address may have changed since the last start.
        let row = api.serving.rows().find(group, "v1", plural).ok_or_else(|| Status::internal("no row"))?;
        let cx = Context::of(Arc::new(User::component("system:apiserver")));
        api.change(&row, Some("default"), "kubernetes", crate::registry::Part::Main, &cx, |old| {
            let mut new = old.clone();
            for field in ["subsets", "endpoints", "ports", "addressType"] {
                if let Some(value) = object.get(field) {
                    new[field] = value.clone();
                }
            }
            if let Some(meta) = new["metadata"].as_object_mut() {
                meta.remove("resourceVersion");
            }
            Ok(new)
        })
        .await?;
    }
    Ok(())
}

fn role(name: &str, rules: Value) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}, "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}}, "rules": rules})
}

fn binding(name: &str, role: &str, subjects: &[(&str, &str)]) -> Value {
    let subjects: Vec<Value> = subjects.iter().map(|(kind, name)| json!({"kind": kind, "name": name, "apiGroup": "rbac.authorization.k8s.io"})).collect();
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}, "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}, "subjects": subjects})
}

/// The default roles that users and tools count on; the rest of upstream's set comes with the authorisation issue.
fn roles() -> Vec<Value> {
    let read = json!(["get", "list", "watch"]);
    let write = json!(["create", "delete", "deletecollection", "patch", "update"]);
    let core = json!(["configmaps", "endpoints", "persistentvolumeclaims", "persistentvolumeclaims/status", "pods", "pods/log", "pods/status", "replicationcontrollers", "replicationcontrollers/scale", "replicationcontrollers/status", "resourcequotas", "resourcequotas/status", "limitranges", "serviceaccounts", "services", "services/status", "events", "bindings", "namespaces", "namespaces/status"]);
    let apps = json!(["controllerrevisions", "daemonsets", "daemonsets/status", "deployments", "deployments/scale", "deployments/status", "replicasets", "replicasets/scale", "replicasets/status", "statefulsets", "statefulsets/scale", "statefulsets/status"]);
    let others = json!([
        {"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers", "horizontalpodautoscalers/status"], "verbs": read},
        {"apiGroups": ["batch"], "resources": ["cronjobs", "cronjobs/status", "jobs", "jobs/status"], "verbs": read},
        {"apiGroups": ["policy"], "resources": ["poddisruptionbudgets", "poddisruptionbudgets/status"], "verbs": read},
        {"apiGroups": ["networking.k8s.io"], "resources": ["ingresses", "ingresses/status", "networkpolicies"], "verbs": read},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read}
    ]);
    let mut view = vec![json!({"apiGroups": [""], "resources": core, "verbs": read}), json!({"apiGroups": ["apps"], "resources": apps, "verbs": read})];
    view.extend(others.as_array().cloned().unwrap_or_default());
    let mut edit = view.clone();
    edit.extend([
        json!({"apiGroups": [""], "resources": ["pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets", "services/proxy"], "verbs": read}),
        json!({"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["impersonate"]}),
        json!({"apiGroups": [""], "resources": ["pods", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "configmaps", "events", "persistentvolumeclaims", "replicationcontrollers", "replicationcontrollers/scale", "secrets", "serviceaccounts", "services", "services/proxy"], "verbs": write}),
        json!({"apiGroups": [""], "resources": ["pods/eviction", "serviceaccounts/token"], "verbs": ["create"]}),
        json!({"apiGroups": ["apps"], "resources": ["daemonsets", "deployments", "deployments/rollback", "deployments/scale", "replicasets", "replicasets/scale", "statefulsets", "statefulsets/scale"], "verbs": write}),
        json!({"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": write}),
        json!({"apiGroups": ["batch"], "resources": ["cronjobs", "jobs"], "verbs": write}),
        json!({"apiGroups": ["policy"], "resources": ["poddisruptionbudgets"], "verbs": write}),
        json!({"apiGroups": ["networking.k8s.io"], "resources": ["ingresses", "networkpolicies"], "verbs": write}),
        json!({"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]}),
    ]);
    let mut admin = edit.clone();
    admin.extend([
        json!({"apiGroups": ["authorization.k8s.io"], "resources": ["localsubjectaccessreviews"], "verbs": ["create"]}),
        json!({"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["rolebindings", "roles"], "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]}),
    ]);
    vec![
        role("cluster-admin", json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}, {"nonResourceURLs": ["*"], "verbs": ["*"]}])),
        role("view", json!(view)),
        role("edit", json!(edit)),
        role("admin", json!(admin)),
        role("system:discovery", json!([{"nonResourceURLs": ["/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version", "/version/"], "verbs": ["get"]}])),
        role("system:public-info-viewer", json!([{"nonResourceURLs": ["/healthz", "/livez", "/readyz", "/version", "/version/"], "verbs": ["get"]}])),
        role(
            "system:basic-user",
            json!([{"apiGroups": ["authorization.k8s.io"], "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"], "verbs": ["create"]}, {"apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"], "verbs": ["create"]}]),
        ),
        role("system:service-account-issuer-discovery", json!([{"nonResourceURLs": ["/.well-known/openid-configuration", "/.well-known/openid-configuration/", "/openid/v1/jwks", "/openid/v1/jwks/"], "verbs": ["get"]}])),
        role("system:monitoring", json!([{"nonResourceURLs": ["/healthz", "/healthz/*", "/livez", "/livez/*", "/metrics", "/metrics/slis", "/readyz", "/readyz/*"], "verbs": ["get"]}])),
        binding("cluster-admin", "cluster-admin", &[("Group", "system:masters")]),
        binding("system:discovery", "system:discovery", &[("Group", "system:authenticated")]),
        binding("system:basic-user", "system:basic-user", &[("Group", "system:authenticated")]),
        binding("system:public-info-viewer", "system:public-info-viewer", &[("Group", "system:authenticated"), ("Group", "system:unauthenticated")]),
        binding("system:service-account-issuer-discovery", "system:service-account-issuer-discovery", &[("Group", "system:serviceaccounts")]),
        binding("system:monitoring", "system:monitoring", &[("Group", "system:monitoring")]),
    ]
}
