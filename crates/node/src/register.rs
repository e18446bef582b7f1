//! The Node object: what is registered, and the status that is kept true.
//!
//! Mirrors upstream's kubelet_node_status.go and nodestatus/setters.go; words of conditions are upstream's. The heartbeat is the lease ([`crate::lease`]):
//! the status is written when something changed, and every five minutes (`nodeStatusReportFrequency`).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use api::Typed as _;
use api::Status;
use api::k8s::api::core::v1::Node as ApiNode;
use api::quantity::{Format, Quantity};
use api::world::rfc3339;
use client::{Informer, PatchKind};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::configuration::Settings;
use crate::config::Config;
use crate::eviction::thresholds;
use crate::images::ImageInfo;
use crate::machine::{self, Machine};
use crate::node::Node;
use crate::{duration, runtime_class, shutdown};

const MAX_NAMES_PER_IMAGE: usize = 5;
/// First pause after a failed registration; doubles to [`REGISTER_PAUSE_MAX`].
const REGISTER_PAUSE: Duration = Duration::from_millis(100);
const REGISTER_PAUSE_MAX: Duration = Duration::from_secs(7);

pub fn labels(node: &Node) -> Value {
    let architecture = machine::architecture();
    let mut labels = json!({
        "beta.kubernetes.io/arch": architecture,
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": architecture,
        "kubernetes.io/hostname": node.config.hostname(),
        "kubernetes.io/os": "linux",
    });
    for (key, value) in &node.config.labels {
        labels[key.as_str()] = json!(value);
    }
    labels
}

const LOCAL_STORAGE: &str = "ephemeral-storage";

fn capacity(machine: &Machine, disk: u64, max_pods: u32) -> Value {
    let mut list = json!({
        "cpu": machine.cpus.to_string(),
        "memory": format!("{}Ki", machine.memory_bytes >> 10),
        "ephemeral-storage": format!("{}Ki", disk >> 10),
        "pods": max_pods.to_string(),
    });
    for (kib, pages) in &machine.hugepages {
        let name = if kib % (1 << 20) == 0 { format!("hugepages-{}Gi", kib >> 20) } else { format!("hugepages-{}Mi", kib >> 10) };
        let bytes = kib * 1024 * pages;
        list[name] = json!(if bytes == 0 { "0".to_owned() } else { format!("{}Mi", bytes >> 20) });
    }
    list
}

/// What is left for pods: without what is reserved, and what hard eviction thresholds keep free.
pub fn allocatable(machine: &Machine, disk: u64, config: &Config) -> Value {
    let mut list = capacity(machine, disk, config.max_pods);
    let settings = &config.settings;
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    for (name, has, format) in [("memory", signed(machine.memory_bytes), Format::BinarySi), ("ephemeral-storage", signed(disk), Format::DecimalSi)] {
        let reserved = settings.reserved.get(name).map_or(0, |reserved| reserved.value());
        let left = has.saturating_sub(reserved).saturating_sub(thresholds::kept(&settings.thresholds, name, has)).max(0);
        list[name] = json!(Quantity::new(left, format).to_string());
    }
    if let Some(reserved) = settings.reserved.get("cpu") {
        let milli = signed(machine.cpus as u64).saturating_mul(1000).saturating_sub(reserved.milli_value()).max(0);
        list["cpu"] = json!(Quantity::from_milli(milli, Format::DecimalSi).to_string());
    }
    shared_out(list, settings)
}

/// A node that does not keep pods' local storage apart does not tell how much there is.
fn shared_out(mut list: Value, settings: &Settings) -> Value {
    if !settings.local_storage_isolation
        && let Some(list) = list.as_object_mut()
    {
        list.remove(LOCAL_STORAGE);
    }
    list
}

fn images(mut list: Vec<ImageInfo>, most: Option<usize>) -> Value {
    list.sort_by_key(|image| std::cmp::Reverse(image.size));
    list.into_iter()
        .take(most.unwrap_or(usize::MAX))
        .map(|image| {
            let names: Vec<String> = image.repo_digests.into_iter().chain(image.repo_tags).take(MAX_NAMES_PER_IMAGE).collect();
            json!({"names": names, "sizeBytes": image.size})
        })
        .collect()
}

/// `not_ready` is why the node cannot take pods.
fn conditions(pressures: &[&str], not_ready: Option<&str>, old: &[Value], now: Timestamp) -> Value {
    let now = rfc3339(now);
    let pick = |bad: bool, yes: (&'static str, &'static str), no: (&'static str, &'static str)| {
        let (reason, message) = if bad { yes } else { no };
        (if bad { "True" } else { "False" }, reason, message.to_owned())
    };
    let made = [
        (
            "MemoryPressure",
            pick(pressures.contains(&"MemoryPressure"), ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"), ("KubeletHasSufficientMemory", "kubelet has sufficient memory available")),
        ),
        ("DiskPressure", pick(pressures.contains(&"DiskPressure"), ("KubeletHasDiskPressure", "kubelet has disk pressure"), ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"))),
        ("PIDPressure", pick(pressures.contains(&"PIDPressure"), ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"), ("KubeletHasSufficientPID", "kubelet has sufficient PID available"))),
        (
            "Ready",
            match not_ready {
                Some(why) => ("False", "KubeletNotReady", why.to_owned()),
                None => ("True", "KubeletReady", "kubelet is posting ready status".to_owned()),
            },
        ),
    ];
    made.into_iter()
        .map(|(name, (status, reason, message))| {
            let before = old.iter().find(|c| c["type"] == name && c["status"] == status);
            let since = before.and_then(|c| c["lastTransitionTime"].as_str()).unwrap_or(&now);
            json!({"type": name, "status": status, "reason": reason, "message": message, "lastHeartbeatTime": now, "lastTransitionTime": since})
        })
        .collect()
}

/// Why the node takes no pods; several reasons as Go prints several errors.
fn not_ready(node: &Node) -> Option<String> {
    let network = node.not_ready.lock().clone();
    match (network, node.is_shutting_down()) {
        (Some(network), true) => Some(format!("[{network}, {}]", shutdown::NOT_READY)),
        (None, true) => Some(shutdown::NOT_READY.to_owned()),
        (network, false) => network,
    }
}

/// The whole status as it should be; `old` are the conditions written last.
pub async fn status(node: &Node, old: &[Value], now: Timestamp) -> Value {
    let machine = &node.machine;
    let disk = machine::disk(&node.config.root_dir).0;
    let mut addresses: Vec<Value> = node.addresses().iter().map(|ip| json!({"type": "InternalIP", "address": ip.to_string()})).collect();
    addresses.push(json!({"type": "Hostname", "address": node.config.hostname()}));
    let not_ready = not_ready(node);
    json!({
        "addresses": addresses,
        "capacity": shared_out(capacity(machine, disk, node.config.max_pods), &node.config.settings),
        "allocatable": allocatable(machine, disk, &node.config),
        "conditions": conditions(&node.pressures(), not_ready.as_deref(), old, now),
        "daemonEndpoints": {"kubeletEndpoint": {"Port": node.config.port}},
        "images": images(node.images.list().await, node.config.settings.status_max_images),
        "nodeInfo": {
            "architecture": machine::architecture(),
            "bootID": machine.boot_id,
            "containerRuntimeVersion": node.runtime.version(),
            "kernelVersion": machine.kernel_version,
            "kubeProxyVersion": "",
            "kubeletVersion": node.config.version,
            "machineID": machine.machine_id,
            "operatingSystem": "linux",
            "osImage": machine.os_image,
            "systemUUID": machine.system_uuid,
            "swap": {"capacity": machine.swap_bytes},
        },
        "runtimeHandlers": runtime_class::HANDLERS.map(|name| json!({"name": name, "features": {"recursiveReadOnlyMounts": false, "userNamespaces": false}})),
    })
}

/// Creates the node or brings the existing one in line; retries until the server answers. Returns what was written.
pub async fn register(node: &Arc<Node>) -> Value {
    let mut pause = REGISTER_PAUSE;
    loop {
        match try_register(node).await {
            Ok(status) => return status,
            Err(error) => tracing::warn!(%error, "cannot register the node yet"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(REGISTER_PAUSE_MAX);
    }
}

async fn try_register(node: &Arc<Node>) -> Result<Value, Status> {
    let nodes = node.client.of::<ApiNode>(None);
    let name = &node.config.node_name;
    let wanted = status(node, &[], node.now()).await;
    let mut object = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": labels(node), "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}},
        "spec": {},
        "status": wanted,
    });
    if let Some(first) = node.config.pod_cidrs.first() {
        object["spec"] = json!({"podCIDR": first, "podCIDRs": node.config.pod_cidrs});
    }
    let settings = &node.config.settings;
    if !settings.register_with_taints.is_empty() {
        object["spec"]["taints"] = settings.register_with_taints.clone().into();
    }
    if !settings.provider_id.is_empty() {
        object["spec"]["providerID"] = settings.provider_id.clone().into();
    }
    let typed = ApiNode::from_value(&object).map_err(Status::internal)?;
    // Who may not register itself waits until somebody has.
    let registered = if settings.register_node { nodes.create(&typed).await.map(drop) } else { nodes.get(name).await.map(drop) };
    match registered {
        Ok(()) => {}
        Err(error) if error.is_already_exists() => {
            nodes.patch(name, PatchKind::Strategic, json!({"metadata": {"labels": labels(node)}})).await?;
        }
        Err(error) => return Err(error),
    }
    let existing = nodes.get(name).await?;
    *node.uid.lock() = existing.metadata.uid.clone().unwrap_or_default();
    let old: Vec<Value> = existing
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten())
        .filter_map(|c| serde_json::to_value(c).ok())
        .collect();
    let wanted = status(node, &old, node.now()).await;
    write(node, &wanted).await?;
    Ok(wanted)
}

pub async fn write(node: &Node, status: &Value) -> Result<(), Status> {
    let mut status = status.clone();
    if let Some(fields) = status.as_object_mut() {
        // Lists with a merge key would otherwise only grow.
        let addresses = fields.get("addresses").cloned();
        if let Some(Value::Array(mut list)) = addresses {
            list.push(json!({"$patch": "replace"}));
            fields.insert("addresses".into(), Value::Array(list));
        }
        // What a former configuration told would stay.
        for list in ["capacity", "allocatable"] {
            if let Some(list) = fields.get_mut(list).and_then(Value::as_object_mut) {
                list.entry(LOCAL_STORAGE).or_insert(Value::Null);
            }
        }
    }
    node.client.of::<ApiNode>(None).patch_status(&node.config.node_name, PatchKind::Strategic, json!({"status": status})).await.map(drop)
}

/// Whether only heartbeat times differ.
fn same(a: &Value, b: &Value) -> bool {
    let strip = |v: &Value| {
        let mut v = v.clone();
        for condition in v["conditions"].as_array_mut().into_iter().flatten() {
            condition["lastHeartbeatTime"] = Value::Null;
        }
        v
    };
    strip(a) == strip(b)
}

/// Whether the API says something else of the node than was written: a controller gave up on it while it could not be heard, say.
fn contradicts(node: &ApiNode, written: &Value) -> bool {
    let Some(Ok(status)) = node.status.as_ref().map(serde_json::to_value) else { return true };
    let verdict = |list: &Value, kind: &Value| list.as_array().into_iter().flatten().find(|c| c["type"] == *kind).map(|c| c["status"].clone());
    let ours = written["conditions"].as_array().into_iter().flatten();
    let conditions = ours.map(|c| &c["type"]).any(|kind| verdict(&status["conditions"], kind) != verdict(&written["conditions"], kind));
    conditions || status["addresses"] != written["addresses"]
}

/// Keeps the status true: at once when it changed, or when the API has another one than was written (it does, once the server answers again
/// after the node was given up); else every five minutes. What could not be written is tried again with the next renewal of the lease.
pub async fn keep(node: Arc<Node>, mut written: Value) {
    let own = Informer::<ApiNode>::of(&node.client, None).fields(&format!("metadata.name={}", node.config.node_name)).start();
    let mut changes = own.subscribe();
    let mut at = tokio::time::Instant::now();
    let mut owed = false;
    let mut cordoned = None;
    announce(&node, &Value::Null, &written);
    loop {
        tokio::select! {
            () = node.status_changed.notified() => {}
            change = changes.next() => {
                let seen = change.new.as_ref().and_then(|object| object.typed::<ApiNode>().ok());
                if let Some(seen) = &seen {
                    let now = seen.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true));
                    if cordoned.replace(now).is_some_and(|before| before != now) {
                        tell(&node, if now { "NodeNotSchedulable" } else { "NodeSchedulable" });
                    }
                }
                if !seen.is_some_and(|seen| contradicts(&seen, &written)) {
                    continue;
                }
                owed = true;
            }
            // What changed by itself: images, conditions that are over.
            () = tokio::time::sleep(duration::std(node.config.settings.status_update_frequency)) => {}
            () = tokio::time::sleep_until(at + duration::std(node.config.settings.status_report_frequency)) => owed = true,
        }
        let old = written["conditions"].as_array().cloned().unwrap_or_default();
        let wanted = status(&node, &old, node.now()).await;
        if !owed && same(&wanted, &written) {
            continue;
        }
        at = tokio::time::Instant::now();
        match write(&node, &wanted).await {
            Ok(()) => {
                announce(&node, &written, &wanted);
                if says(&wanted, shutdown::NOT_READY) {
                    node.shutdown_told.store(true, Ordering::Relaxed);
                    node.progress.send_replace(());
                }
                written = wanted;
                owed = false;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot write the node's status");
                owed = true;
            }
        }
    }
}

/// Whether the status says so of the node.
fn says(status: &Value, what: &str) -> bool {
    status["conditions"].as_array().into_iter().flatten().any(|c| c["message"].as_str().is_some_and(|message| message.contains(what)))
}

/// Events for conditions that changed.
fn announce(node: &Node, old: &Value, new: &Value) {
    let word = |kind: &str, status: &str| match (kind, status) {
        ("Ready", "True") => "NodeReady",
        ("Ready", _) => "NodeNotReady",
        ("MemoryPressure", "False") => "NodeHasSufficientMemory",
        ("MemoryPressure", _) => "NodeHasInsufficientMemory",
        ("DiskPressure", "False") => "NodeHasNoDiskPressure",
        ("DiskPressure", _) => "NodeHasDiskPressure",
        ("PIDPressure", "False") => "NodeHasSufficientPID",
        _ => "NodeHasInsufficientPID",
    };
    for condition in new["conditions"].as_array().into_iter().flatten() {
        let before = old["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == condition["type"]);
        if before.is_none_or(|b| b["status"] != condition["status"]) {
            let reason = word(condition["type"].as_str().unwrap_or_default(), condition["status"].as_str().unwrap_or_default());
            tell(node, reason);
        }
    }
}

fn tell(node: &Node, reason: &str) {
    node.events.normal(&node.reference(), reason, format!("Node {} status is now: {reason}", node.config.node_name));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_keep_their_transition_times() {
        let at = |s| Timestamp::from_second(s).unwrap();
        let first = conditions(&[], Some("no network"), &[], at(1000));
        assert_eq!(first[3]["reason"], "KubeletNotReady");
        let second = conditions(&["DiskPressure"], None, first.as_array().unwrap(), at(2000));
        assert_eq!(second[0]["lastTransitionTime"], first[0]["lastTransitionTime"]);
        assert_eq!(second[1]["reason"], "KubeletHasDiskPressure");
        assert_ne!(second[3]["lastTransitionTime"], first[3]["lastTransitionTime"]);
        assert!(same(&json!({"conditions": [first[0]]}), &json!({"conditions": [second[0]]})));
    }
}
