//! What every cluster has from its first second: namespaces, priority classes, roles, the `kubernetes` Service.
//!
//! Each object is created only when it is missing; what people changed stays changed, but default roles and bindings get back what they lack (`reconciliation.rs`).

use std::net::IpAddr;
use std::sync::Arc;

use ::api::Status;
use client::DeleteOptions;
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use crate::aggregator;
use crate::api::{Api, Context};
use crate::authentication::User;
use crate::reconciliation::{Step, reconcile};
use crate::registry::{Part, text};
use crate::special::{addresses, node_ports};
use crate::{cluster_trust, decode, default_roles, peers};

pub async fn run(api: &Arc<Api>) -> Result<(), Status> {
    for namespace in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        ensure(api, None, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})).await?;
    }
    for (name, value, description) in [
        ("system-node-critical", 2_000_001_000, "Used for system critical pods that must not be moved from their current node."),
        ("system-cluster-critical", 2_000_000_000, "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary."),
    ] {
        ensure(api, None, json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value, "description": description})).await?;
    }
    // All at once: the store makes one batch of them.
    try_join_all(default_roles::all().into_iter().map(|object| async move {
        let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str).map(str::to_owned);
        ensure_role(api, namespace.as_deref(), object).await
    }))
    .await?;
    try_join_all(aggregator::built_in().into_iter().map(|object| ensure(api, None, object))).await?;
    cluster_trust::publish(api).await?;
    service_cidr(api).await?;
    addresses::complete(api).await?;
    node_ports::complete(api).await?;
    kubernetes_service(api).await
}

/// A default role or binding: created, or brought up to what this version expects of it.
async fn ensure_role(api: &Arc<Api>, namespace: Option<&str>, expected: Value) -> Result<(), Status> {
    let rows = api.serving.rows();
    let kind = text(&expected, "/kind");
    let row = rows.all().iter().find(|row| row.group == "rbac.authorization.k8s.io" && row.kind == kind).ok_or_else(|| Status::internal(format!("no row for {kind}")))?;
    let name = text(&expected, "/metadata/name").to_owned();
    let Some(stored) = api.store.get(&row.key(namespace, &name)) else { return ensure(api, namespace, expected).await };
    let cx = Context { field_manager: "kube-apiserver".into(), exempt: true, ..Context::of(Arc::new(User::component("system:apiserver"))) };
    match reconcile(&stored.value().map_err(Status::internal)?, &expected) {
        Step::Nothing => Ok(()),
        Step::Update(wanted) => {
            tracing::info!(kind, name, "a default role or binding lacked something and was updated");
            api.update(row, namespace, &name, Part::Main, wanted, &cx).await.map(drop)
        }
        Step::Recreate => {
            tracing::info!(kind, name, "a default binding named another role and was made again");
            api.delete(row, namespace, &name, &DeleteOptions::default(), &cx).await?;
            ensure(api, namespace, expected).await
        }
    }
}

/// The ranges of Services as an object: `kubernetes`, ready from the start.
pub async fn service_cidr(api: &Api) -> Result<(), Status> {
    let row = api.serving.rows().find("networking.k8s.io", "v1", "servicecidrs").ok_or_else(|| Status::internal("no row"))?;
    let cidrs: Vec<String> = api.config.service_cidrs.iter().map(|(base, prefix)| format!("{base}/{prefix}")).collect();
    ensure(api, None, json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"}, "spec": {"cidrs": cidrs}})).await?;
    let cx = Context { field_manager: "kubernetes-service-cidr-controller".into(), exempt: true, ..Context::of(Arc::new(User::component("system:apiserver"))) };
    if let [first, _] = cidrs.as_slice() {
        // From one family to two.
        api.change(&row, None, "kubernetes", Part::Main, &cx, |old| {
            let mut new = old.clone();
            if old.pointer("/spec/cidrs") == Some(&json!([first])) {
                crate::registry::metadata(&mut new).remove("resourceVersion");
                new["spec"]["cidrs"] = json!(cidrs);
            }
            Ok(new)
        })
        .await?;
    }
    api.change(&row, None, "kubernetes", crate::registry::Part::Status, &cx, |old| {
        let mut new = old.clone();
        crate::registry::metadata(&mut new).remove("resourceVersion");
        let judged = old.pointer("/status/conditions").and_then(Value::as_array).is_some_and(|list| list.iter().any(|condition| condition["type"] == "Ready"));
        // Another configuration than it was made for says nothing of it.
        if !judged && old.pointer("/spec/cidrs") == Some(&json!(cidrs)) {
            let condition = json!({"type": "Ready", "status": "True", "reason": "", "message": "Kubernetes default Service CIDR is ready", "lastTransitionTime": api.now()});
            crate::special::pods::set_condition(&mut new, condition);
        }
        Ok(new)
    })
    .await
    .map(drop)
}

pub async fn ensure(api: &Api, namespace: Option<&str>, object: Value) -> Result<(), Status> {
    let version = object["apiVersion"].as_str().unwrap_or_default();
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let kind = object["kind"].as_str().unwrap_or_default();
    let row = api.serving.rows().all().iter().find(|row| row.group == group && row.version == version && row.kind == kind).cloned().ok_or_else(|| Status::internal(format!("no row for {kind}")))?;
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    if api.store.get(&row.key(namespace, name)).is_some() {
        return Ok(());
    }
    let cx = Context { field_manager: "kube-apiserver".into(), exempt: true, ..Context::of(Arc::new(User::component("system:apiserver"))) };
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
    endpoints(api, &peers::all(api)).await
}

/// Where the API servers are.
pub async fn endpoints(api: &Arc<Api>, servers: &[IpAddr]) -> Result<(), Status> {
    if api.config.advertise_address.is_loopback() {
        // No pod could reach it there, and an endpoint may not say so: the machine has no network yet.
        return Ok(());
    }
    let addresses: Vec<Value> = servers.iter().map(|address| json!({"ip": address.to_string()})).collect();
    let ready: Vec<Value> = servers.iter().map(|address| json!({"addresses": [address.to_string()], "conditions": {"ready": true}})).collect();
    let family = if api.config.advertise_address.is_ipv4() { "IPv4" } else { "IPv6" };
    let port = json!({"name": "https", "port": api.config.secure_port, "protocol": "TCP"});
    let endpoints = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": addresses, "ports": [port]}]});
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": family, "endpoints": ready, "ports": [port]});
    for (object, plural, group) in [(endpoints, "endpoints", ""), (slice, "endpointslices", "discovery.k8s.io")] {
        ensure(api, Some("default"), object.clone()).await?;
        // The machine's address may have changed since the last start.
        let row = api.serving.rows().find(group, "v1", plural).ok_or_else(|| Status::internal("no row"))?;
        let cx = Context { exempt: true, ..Context::of(Arc::new(User::component("system:apiserver"))) };
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
