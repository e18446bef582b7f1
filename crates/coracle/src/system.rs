//! What shows in `kube-system`: the DNS Service, and a mirror pod for each part of the control plane (decision 12 of the design).
//!
//! The parts are tasks of this process. Their pods say so: they carry kubeadm's names and labels and an image that is this binary.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use api::Typed as _;
use api::Status;
use api::k8s::api::core::v1::{ConfigMap, Endpoints, Node, Pod, Service};
use api::k8s::api::discovery::v1::EndpointSlice;
use client::{Body, Client, DeleteOptions, Target, WriteOptions, Informer, PatchKind, Preconditions};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::component_logs::ComponentLogs;

const NAMESPACE: &str = "kube-system";
/// Marks a pod whose containers are tasks of the Coracle process: the node agent leaves it alone.
pub const COMPONENT: &str = "coracle.dev/component";

const PROXY: &str = "kube-proxy";

/// Component and labels of the thing it stands for. An etcd of others is no part of this process.
fn components(external_etcd: bool) -> Vec<(&'static str, Value)> {
    let tier = |component: &str| json!({"component": component, "tier": "control-plane"});
    let all = [
        ("etcd", tier("etcd")),
        ("kube-apiserver", tier("kube-apiserver")),
        ("kube-controller-manager", tier("kube-controller-manager")),
        ("kube-scheduler", tier("kube-scheduler")),
        (PROXY, json!({"k8s-app": "kube-proxy"})),
        ("coredns", json!({"k8s-app": "kube-dns"})),
    ];
    all.into_iter().skip(usize::from(external_etcd)).collect()
}

/// What the machine of the control plane runs.
pub const CONTROL_PLANE: &[&str] = &["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", PROXY, "coredns"];
/// What a machine that joined runs of it.
pub const JOINED: &[&str] = &[PROXY];

/// The `kube-dns` Service at its well-known address.
pub async fn dns_service(client: &Client, addresses: &[IpAddr]) -> Result<()> {
    let families: Vec<&str> = addresses.iter().map(|address| if address.is_ipv4() { "IPv4" } else { "IPv6" }).collect();
    let policy = if families.len() > 1 { "PreferDualStack" } else { "SingleStack" };
    let service = Service::from_value(&json!({
        "metadata": {"name": "kube-dns", "namespace": NAMESPACE, "labels": {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"},
            "annotations": {"prometheus.io/port": "9153", "prometheus.io/scrape": "true"}},
        "spec": {"clusterIP": addresses.first(), "clusterIPs": addresses, "ipFamilies": families, "ipFamilyPolicy": policy, "selector": {"k8s-app": "kube-dns"}, "ports": [
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

/// The ConfigMap by which CoreDNS is customized, as kubeadm makes it, and the right of nodes to follow it. What is there already is left as it is.
pub async fn corefile(client: &Client, domain: &str) -> Result<()> {
    let (namespace, name) = (node::corefile::NAMESPACE, node::corefile::NAME);
    let text = node::corefile::DEFAULT_COREFILE.replace(kubeadm::DEFAULT_DNS_DOMAIN, domain);
    let map = json!({"metadata": {"name": name, "namespace": namespace}, "data": {"Corefile": text}});
    made(client.of::<ConfigMap>(Some(namespace)).create(&ConfigMap::from_value(&map)?).await)?;
    let group = "rbac.authorization.k8s.io";
    let metadata = json!({"name": "coracle:corefile", "namespace": namespace});
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [name], "verbs": ["get", "list", "watch"]}]);
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": rules});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata,
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "coracle:corefile"}, "subjects": [{"apiGroup": group, "kind": "Group", "name": "system:nodes"}]});
    for (plural, object) in [("roles", role), ("rolebindings", binding)] {
        let target = Target { group: group.into(), version: "v1".into(), plural: plural.into(), namespace: Some(namespace.into()), ..Target::default() };
        made(client.transport().create(&target, Body::Value(object), &WriteOptions::default()).await)?;
    }
    Ok(())
}

fn made<T>(outcome: Result<T, Status>) -> Result<()> {
    match outcome {
        Err(status) if !status.is_already_exists() => Err(status.into()),
        _ => Ok(()),
    }
}

/// How long the node has to register before the start goes on without.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(10);

/// Labels this machine's node as kubeadm does: nodes may not say of themselves what they are for.
pub async fn mark_control_plane(client: &Client, name: &str) -> Result<()> {
    let informer = Informer::<Node>::of(client, None).fields(&format!("metadata.name={name}")).start();
    let mut changes = informer.subscribe();
    let registered = async {
        while changes.next().await.new.is_none() {}
    };
    if tokio::time::timeout(REGISTER_TIMEOUT, registered).await.is_err() {
        tracing::warn!(node = name, "the node has not registered: it is not marked as the control plane's");
        return Ok(());
    }
    client.of::<Node>(None).patch(name, PatchKind::Merge, json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}})).await.map(drop).map_err(Into::into)
}

/// Until a mirror pod that could not be made is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// This node's mirror pods: of which address, Running since when, and where their things lie.
pub struct MirrorPods {
    pub client: Client,
    pub node: String,
    /// Which of the components: [`CONTROL_PLANE`] or [`JOINED`].
    pub parts: &'static [&'static str],
    /// Whether `kube-proxy` is one of them.
    pub service_proxy: bool,
    pub address: Mutex<IpAddr>,
    pub since: String,
    pub logs: ComponentLogs,
    /// `/var/log/pods`.
    pub log_dir: PathBuf,
    pub external_etcd: bool,
    /// The node's folder of pods: what has a place there is removed by `reset`, its logs as well.
    pub pods_dir: PathBuf,
}

impl MirrorPods {
    fn components(&self) -> impl Iterator<Item = (&'static str, Value)> {
        let (parts, service_proxy) = (self.parts, self.service_proxy);
        components(self.external_etcd).into_iter().filter(move |(name, _)| parts.contains(name) && (service_proxy || *name != PROXY))
    }

    /// All of them, each with its component's log. A later start of the process is a restart of their containers. Returns those which [`MirrorPods::keep`] is
    /// to try again.
    pub async fn show(&self) -> BTreeSet<&'static str> {
        self.show_those(|_| true).await
    }

    async fn show_those(&self, wanted: impl Fn(&'static str) -> bool) -> BTreeSet<&'static str> {
        let mut owed = BTreeSet::new();
        for (component, labels) in self.components().filter(|(name, _)| wanted(name)) {
            if let Err(error) = self.show_one(component, labels).await {
                tracing::warn!(error = %format_args!("{error:#}"), component, "cannot show a mirror pod, trying again");
                owed.insert(component);
            }
        }
        owed
    }

    /// A mirror pod that is deleted comes back at once, as upstream's kubelet has it: what it mirrors still runs.
    pub async fn keep(&self, mut owed: BTreeSet<&'static str>) {
        let informer = Informer::<Pod>::of(&self.client, Some(NAMESPACE)).fields(&format!("spec.nodeName={}", self.node)).start();
        let mut changes = informer.subscribe();
        loop {
            let change = tokio::select! {
                change = changes.next() => change,
                () = tokio::time::sleep(RETRY_PAUSE), if !owed.is_empty() => {
                    owed = self.show_those(|component| owed.contains(component)).await;
                    continue;
                }
            };
            let Some(pod) = change.new.as_ref().or(change.old.as_ref()).and_then(|object| object.typed::<Pod>().ok()) else { continue };
            let Some(component) = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(COMPONENT)) else { continue };
            let Some((component, labels)) = self.components().find(|(name, _)| name == component) else { continue };
            let done = if change.new.is_none() {
                self.show_one(component, labels).await
            } else if node::pod::is_terminating(&pod) {
                let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
                let at_once = DeleteOptions { grace_period_seconds: Some(0), preconditions, ..DeleteOptions::default() };
                self.client.of::<Pod>(Some(NAMESPACE)).delete(node::pod::name(&pod), &at_once).await.map_err(Into::into)
            } else {
                Ok(())
            };
            if let Err(error) = done {
                tracing::warn!(error = %format_args!("{error:#}"), component, "cannot keep a mirror pod");
                if change.new.is_none() {
                    owed.insert(component);
                }
            }
        }
    }

    async fn show_one(&self, component: &'static str, labels: Value) -> Result<()> {
        let pods = self.client.of::<Pod>(Some(NAMESPACE));
        let (node, now) = (&self.node, &self.since);
        let address = *self.address.lock();
        let name = format!("{component}-{node}");
        // It goes with its node, and a node may make no other.
        let owner = match self.client.of::<Node>(None).get(node).await {
            Ok(found) => json!([{"apiVersion": "v1", "kind": "Node", "name": node, "uid": found.metadata.uid, "controller": true}]),
            Err(_) => json!([]),
        };
        let pod = Pod::from_value(&json!({
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels, "ownerReferences": owner, "annotations": {"kubernetes.io/config.mirror": "coracle", "kubernetes.io/config.source": "coracle", (COMPONENT): component}},
            "spec": {"nodeName": node, "hostNetwork": true, "priorityClassName": "system-node-critical", "restartPolicy": "Always", "enableServiceLinks": false,
                "tolerations": [{"operator": "Exists"}],
                "containers": [{"name": component, "image": "coracle", "imagePullPolicy": "Never", "command": ["coracle", if self.parts == JOINED { "kubelet" } else { "up" }]}]}
        }))?;
        let pod = match pods.create(&pod).await {
            Err(status) if status.is_already_exists() => pods.get(&name).await?,
            created => created?,
        };
        let before = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten()).next();
        let attempt = before.map_or(0, |before| before.restart_count + 1);
        std::fs::create_dir_all(self.pods_dir.join(node::pod::uid(&pod)))?;
        let log = |attempt| node::pod::log_file(&self.log_dir, &pod, component, attempt);
        self.logs.open(component, log(attempt)).with_context(|| format!("cannot open the log of {component}"))?;
        // As the node keeps it with containers: the log of the last one before stays.
        let _ = std::fs::remove_file(log(attempt - 2));
        let last = before.map(|before| {
            let started = before.state.as_ref().and_then(|state| state.running.as_ref()).and_then(|running| running.started_at.clone());
            json!({"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown", "containerID": before.container_id, "startedAt": started, "finishedAt": now,
                "message": "The container could not be located when the pod was terminated"}})
        });
        let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
        let mut status = addresses(address);
        status["phase"] = json!("Running");
        status["startTime"] = json!(now);
        status["conditions"] = json!([condition("PodReadyToStartContainers"), condition("Initialized"), condition("Ready"), condition("ContainersReady"), condition("PodScheduled")]);
        status["containerStatuses"] = json!([{"name": component, "image": "coracle", "imageID": "", "containerID": format!("coracle://{}-{attempt}", node::pod::uid(&pod)),
            "ready": true, "started": true, "restartCount": attempt, "state": {"running": {"startedAt": now}}, "lastState": last.unwrap_or(json!({}))}]);
        pods.patch_status(&name, PatchKind::Merge, json!({"status": status})).await?;
        Ok(())
    }
}

fn addresses(address: IpAddr) -> Value {
    let (text, list) = (address.to_string(), json!([{"ip": address.to_string()}]));
    json!({"hostIP": text, "hostIPs": list, "podIP": text, "podIPs": list})
}

/// The machine has another address: so have the mirror pods, and so has the API server, which pods find by `kubernetes.default`.
pub async fn moved(mirrors: &MirrorPods, address: IpAddr, port: u16) -> Result<(), Status> {
    *mirrors.address.lock() = address;
    let client = &mirrors.client;
    let pods = client.of::<Pod>(Some(NAMESPACE));
    for (component, _) in mirrors.components() {
        pods.patch_status(&format!("{component}-{}", mirrors.node), PatchKind::Merge, json!({"status": addresses(address)})).await?;
    }
    let ports = json!([{"name": "https", "port": port, "protocol": "TCP"}]);
    let subsets = json!({"subsets": [{"addresses": [{"ip": address.to_string()}], "ports": ports}]});
    let endpoints = json!({"endpoints": [{"addresses": [address.to_string()], "conditions": {"ready": true}}], "ports": ports});
    client.of::<Endpoints>(Some("default")).patch("kubernetes", PatchKind::Merge, subsets).await?;
    client.of::<EndpointSlice>(Some("default")).patch("kubernetes", PatchKind::Merge, endpoints).await?;
    Ok(())
}
