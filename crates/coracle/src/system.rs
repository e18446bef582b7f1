//! What shows in `kube-system`: the DNS Service, and a mirror pod for each part of the control plane (decision 12 of the design).
//!
//! The parts are tasks of this process. Their pods say so: they carry kubeadm's names and labels and an image that is this binary.

use anyhow::Result;
use api::k8s::api::core::v1::{Pod, Service};
use client::{Client, PatchKind};
use serde_json::{Value, json};

const NAMESPACE: &str = "kube-system";
/// Marks a pod whose containers are tasks of the Coracle process: the node agent leaves it alone.
pub const COMPONENT: &str = "coracle.dev/component";

/// Component, label, port of the thing it stands for.
fn components(node: &str) -> Vec<(String, Value)> {
    let tier = |component: &str| json!({"component": component, "tier": "control-plane"});
    vec![
        (format!("etcd-{node}"), tier("etcd")),
        (format!("kube-apiserver-{node}"), tier("kube-apiserver")),
        (format!("kube-controller-manager-{node}"), tier("kube-controller-manager")),
        (format!("kube-scheduler-{node}"), tier("kube-scheduler")),
        (format!("kube-proxy-{node}"), json!({"k8s-app": "kube-proxy"})),
        (format!("coredns-{node}"), json!({"k8s-app": "kube-dns"})),
    ]
}

/// The `kube-dns` Service at its well-known address.
pub async fn dns_service(client: &Client, address: std::net::IpAddr) -> Result<()> {
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": "kube-dns", "namespace": NAMESPACE, "labels": {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"},
            "annotations": {"prometheus.io/port": "9153", "prometheus.io/scrape": "true"}},
        "spec": {"clusterIP": address.to_string(), "selector": {"k8s-app": "kube-dns"}, "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
            {"name": "metrics", "port": 9153, "protocol": "TCP", "targetPort": 9153}]}
    }))?;
    let services = client.of::<Service>(Some(NAMESPACE));
    // Its address is taken on a second start, which would be told before its name is.
    match services.get("kube-dns").await {
        Err(status) if status.is_not_found() => services.create(&service).await.map(drop).map_err(Into::into),
        found => found.map(drop).map_err(Into::into),
    }
}

/// The mirror pods, Running since `now`.
pub async fn mirror_pods(client: &Client, node: &str, address: std::net::IpAddr, now: &str) -> Result<()> {
    let pods = client.of::<Pod>(Some(NAMESPACE));
    for (name, labels) in components(node) {
        let container = name.trim_end_matches(&format!("-{node}")).to_owned();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels, "annotations": {"kubernetes.io/config.mirror": "coracle", "kubernetes.io/config.source": "coracle", (COMPONENT): container}},
            "spec": {"nodeName": node, "hostNetwork": true, "priorityClassName": "system-node-critical", "restartPolicy": "Always", "enableServiceLinks": false,
                "tolerations": [{"operator": "Exists"}],
                "containers": [{"name": container, "image": "coracle", "imagePullPolicy": "Never", "command": ["coracle", "up"]}]}
        }))?;
        match pods.create(&pod).await {
            Err(status) if !status.is_already_exists() => return Err(status.into()),
            _ => {}
        }
        let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
        let status = json!({"status": {
            "phase": "Running", "startTime": now, "hostIP": address.to_string(), "hostIPs": [{"ip": address.to_string()}], "podIP": address.to_string(), "podIPs": [{"ip": address.to_string()}],
            "conditions": [condition("PodReadyToStartContainers"), condition("Initialized"), condition("Ready"), condition("ContainersReady"), condition("PodScheduled")],
            "containerStatuses": [{"name": container, "image": "coracle", "imageID": "", "containerID": format!("coracle://{}", std::process::id()), "ready": true, "started": true, "restartCount": 0, "state": {"running": {"startedAt": now}}}]
        }});
        pods.patch_status(&name, PatchKind::Merge, status).await?;
    }
    Ok(())
}
