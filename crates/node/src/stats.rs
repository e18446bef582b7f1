//! Use of processor and memory: `/stats/summary` and `/metrics/resource`, and `/metrics`, as upstream's kubelet answers metrics-server.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::world::rfc3339;
use basics::histogram::head;
use basics::metrics;
use sandbox::cri::{ContainerState, ContainerStats};
use serde_json::{Value, json};

use crate::eviction::{self, ranking::Disk};
use crate::machine;
use crate::node::Node;
use crate::pod;

struct Used {
    namespace: String,
    pod: String,
    uid: String,
    container: String,
    started_at: i64,
    stats: ContainerStats,
}

async fn used(node: &Arc<Node>) -> Vec<Used> {
    let mut out = Vec::new();
    for cx in node.all() {
        let running: Vec<(String, String, i64)> =
            cx.shared.lock().runtime.containers.iter().filter(|c| c.state == ContainerState::Running).map(|c| (c.id.clone(), c.metadata.name.clone(), c.started_at)).collect();
        for (id, container, started_at) in running {
            if let Ok(stats) = node.runtime.container_stats(&id).await {
                let (namespace, name, uid) = (pod::namespace(&cx.pod).to_owned(), pod::name(&cx.pod).to_owned(), pod::uid(&cx.pod).to_owned());
                out.push(Used { namespace, pod: name, uid, container, started_at, stats });
            }
        }
    }
    out.sort_by(|a, b| (&a.namespace, &a.pod, &a.container).cmp(&(&b.namespace, &b.pod, &b.container)));
    out
}

/// Nanoseconds of all processors since boot.
pub fn node_cpu_ns() -> u64 {
    const TICKS_PER_SECOND: u64 = 100;
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<u64> = text.lines().next().unwrap_or_default().split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal
    let busy: u64 = fields.iter().take(8).enumerate().filter(|(index, _)| !matches!(index, 3 | 4)).map(|(_, v)| v).sum();
    busy * (1_000_000_000 / TICKS_PER_SECOND)
}

pub fn node_memory(node: &Node) -> u64 {
    node.machine.memory_bytes.saturating_sub(machine::memory_available())
}

pub async fn summary(node: &Arc<Node>) -> Value {
    let now = rfc3339(node.now());
    let cpu = |ns: u64| json!({"time": now, "usageCoreNanoSeconds": ns});
    let memory = |s: &ContainerStats| json!({"time": now, "usageBytes": s.memory_usage_bytes, "workingSetBytes": s.memory_working_set_bytes, "rssBytes": s.memory_rss_bytes});
    let mut pods: Vec<Value> = Vec::new();
    for one in used(node).await {
        let container = json!({"name": one.container, "startTime": rfc3339(pod::timestamp(one.started_at)), "cpu": cpu(one.stats.cpu_usage_core_ns), "memory": memory(&one.stats),
            "rootfs": {"time": now, "usedBytes": one.stats.rootfs_used_bytes}});
        match pods.last_mut().filter(|p| p["podRef"]["uid"] == one.uid.as_str()) {
            Some(pod) => {
                if let Some(list) = pod["containers"].as_array_mut() {
                    list.push(container);
                }
            }
            None => pods.push(json!({"podRef": {"name": one.pod, "namespace": one.namespace, "uid": one.uid}, "startTime": rfc3339(pod::timestamp(one.started_at)), "containers": [container]})),
        }
    }
    for cx in node.all() {
        let Some(used) = eviction::measure(&cx).await else { continue };
        let Some(pod) = pods.iter_mut().find(|pod| pod["podRef"]["uid"] == pod::uid(&cx.pod)) else { continue };
        let disk = |disk: Disk| json!({"time": now, "usedBytes": disk.bytes, "inodesUsed": disk.inodes});
        pod["ephemeral-storage"] = disk(used.disk(&cx.pod));
        let volume = |(name, used): (&String, &Disk)| {
            let mut volume = disk(*used);
            volume["name"] = json!(name);
            volume
        };
        pod["volume"] = used.volumes.iter().map(volume).collect();
        for container in pod["containers"].as_array_mut().into_iter().flatten() {
            if let Some(used) = used.containers.iter().find(|used| container["name"] == used.name) {
                container["logs"] = disk(used.logs);
            }
        }
    }
    let of_disk = |path: &Path| {
        let space = machine::space(path);
        json!({"time": now, "availableBytes": space.available, "capacityBytes": space.capacity, "usedBytes": space.capacity.saturating_sub(space.available),
            "inodes": space.inodes, "inodesFree": space.inodes_free, "inodesUsed": space.inodes.saturating_sub(space.inodes_free)})
    };
    let (processes, most) = machine::pids();
    let used = node_memory(node);
    json!({
        "node": {"nodeName": node.config.node_name, "cpu": cpu(node_cpu_ns()),
            "memory": {"time": now, "availableBytes": machine::memory_available(), "usageBytes": used, "workingSetBytes": used},
            "fs": of_disk(&node.config.root_dir), "rlimit": {"time": now, "maxpid": most, "curproc": processes},
            "runtime": {"imageFs": of_disk(&node.config.images_dir()), "containerFs": of_disk(&node.config.root_dir)}},
        "pods": pods,
    })
}

/// What the agent tells of itself: `/metrics`, of upstream's those that count pods and containers.
pub fn own_metrics(node: &Arc<Node>) -> String {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut pods = 0;
    for cx in node.all() {
        let memory = cx.shared.lock();
        pods += u64::from(memory.runtime.sandbox().is_some());
        for container in &memory.runtime.containers {
            let state = match container.state {
                ContainerState::Created => "created",
                ContainerState::Running => "running",
                ContainerState::Exited => "exited",
                ContainerState::Unknown => "unknown",
            };
            *counts.entry(state).or_default() += 1;
        }
    }
    let mut out = String::new();
    basics::version::build_info(&mut out, &node.config.version);
    volumes(node, &mut out);
    let _ = writeln!(out, "# HELP kubelet_node_name [ALPHA] The node's name. The count is always 1.\n# TYPE kubelet_node_name gauge");
    let _ = writeln!(out, "kubelet_node_name{{node={:?}}} 1", node.config.node_name);
    let _ = writeln!(out, "# HELP kubelet_running_containers [ALPHA] Number of containers currently running\n# TYPE kubelet_running_containers gauge");
    for (state, count) in counts {
        let _ = writeln!(out, "kubelet_running_containers{{container_state={state:?}}} {count}");
    }
    let _ = writeln!(out, "# HELP kubelet_running_pods [ALPHA] Number of pods that have a running pod sandbox\n# TYPE kubelet_running_pods gauge\nkubelet_running_pods {pods}");
    let (started, ended) = node.last_shutdown();
    let mut shutdown = |name: &str, what: &str, value: f64| {
        let _ = writeln!(out, "# HELP {name} [ALPHA] Last graceful shutdown {what} time since unix epoch in seconds\n# TYPE {name} gauge\n{name} {value}");
    };
    shutdown("kubelet_graceful_shutdown_start_time_seconds", "start", started);
    shutdown("kubelet_graceful_shutdown_end_time_seconds", "end", ended);
    node.measured.text(&mut out);
    basics::process::text(&mut out);
    out
}

/// The folders of persistent volumes that pods here have: what is on their file systems.
fn volumes(node: &Arc<Node>, out: &mut String) {
    let mut claims: BTreeMap<(String, String), PathBuf> = BTreeMap::new();
    for cx in node.all() {
        let namespace = pod::namespace(&cx.pod);
        claims.extend(cx.shared.lock().claims.iter().map(|(claim, path)| ((namespace.to_owned(), claim.clone()), path.clone())));
    }
    let claims: Vec<(String, machine::Space)> = claims.into_iter().map(|((namespace, claim), path)| (metrics::shown([("namespace", &*namespace), ("persistentvolumeclaim", &*claim)]), machine::space(&path))).collect();
    if claims.is_empty() {
        return;
    }
    let values: [(&str, &str, fn(&machine::Space) -> u64); 6] = [
        ("available_bytes", "Number of available bytes in the volume", |space| space.available),
        ("capacity_bytes", "Capacity in bytes of the volume", |space| space.capacity),
        ("inodes", "Maximum number of inodes in the volume", |space| space.inodes),
        ("inodes_free", "Number of free inodes in the volume", |space| space.inodes_free),
        ("inodes_used", "Number of used inodes in the volume", |space| space.inodes.saturating_sub(space.inodes_free)),
        ("used_bytes", "Number of used bytes in the volume", |space| space.capacity.saturating_sub(space.available)),
    ];
    for (name, help, value) in values {
        let name = format!("kubelet_volume_stats_{name}");
        head(out, &name, "gauge", &format!("[ALPHA] {help}"));
        claims.iter().for_each(|(labels, space)| metrics::line(out, &name, labels, value(space)));
    }
}

/// In the Prometheus text format, with upstream's names.
pub async fn resource_metrics(node: &Arc<Node>) -> String {
    let used = used(node).await;
    let mut out = String::new();
    let seconds = |ns: u64| ns as f64 / 1e9;
    let head = |out: &mut String, name: &str, kind: &str, help: &str| {
        let _ = writeln!(out, "# HELP {name} [STABLE] {help}\n# TYPE {name} {kind}");
    };
    let label = |one: &Used| format!("container={:?},namespace={:?},pod={:?}", one.container, one.namespace, one.pod);
    head(&mut out, "container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the container in core-seconds");
    for one in &used {
        let _ = writeln!(out, "container_cpu_usage_seconds_total{{{}}} {}", label(one), seconds(one.stats.cpu_usage_core_ns));
    }
    head(&mut out, "container_memory_working_set_bytes", "gauge", "Current working set of the container in bytes");
    for one in &used {
        let _ = writeln!(out, "container_memory_working_set_bytes{{{}}} {}", label(one), one.stats.memory_working_set_bytes);
    }
    head(&mut out, "container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds");
    for one in &used {
        let _ = writeln!(out, "container_start_time_seconds{{{}}} {}", label(one), one.started_at as f64 / 1e9);
    }
    head(&mut out, "node_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the node in core-seconds");
    let _ = writeln!(out, "node_cpu_usage_seconds_total {}", seconds(node_cpu_ns()));
    head(&mut out, "node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes");
    let _ = writeln!(out, "node_memory_working_set_bytes {}", node_memory(node));
    let mut pods: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
    for one in &used {
        let sum = pods.entry((one.namespace.clone(), one.pod.clone())).or_default();
        sum.0 += one.stats.cpu_usage_core_ns;
        sum.1 += one.stats.memory_working_set_bytes;
    }
    head(&mut out, "pod_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the pod in core-seconds");
    for ((namespace, name), (cpu, _)) in &pods {
        let _ = writeln!(out, "pod_cpu_usage_seconds_total{{namespace={namespace:?},pod={name:?}}} {}", seconds(*cpu));
    }
    head(&mut out, "pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes");
    for ((namespace, name), (_, memory)) in &pods {
        let _ = writeln!(out, "pod_memory_working_set_bytes{{namespace={namespace:?},pod={name:?}}} {memory}");
    }
    head(&mut out, "resource_scrape_error", "gauge", "1 if there was an error while getting container metrics, 0 otherwise");
    out.push_str("resource_scrape_error 0\n");
    out
}
