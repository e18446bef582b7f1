//! `/metrics/cadvisor`: what containers and pods use, as the kernel counts it, by the names and labels of the kubelet's embedded cAdvisor.
//!
//! A container's series carry its container, image and name; a pod's carry none of these, and what the pod sent and received; the machine's are those of `/`. What the
//! kernel does not tell here is not shown. <https://github.com/google/cadvisor/blob/master/docs/storage/prometheus.md>

use std::fs;
use std::sync::Arc;

use basics::histogram::head;
use basics::metrics::{line, shown, single};
use sandbox::cri::{CgroupUse, ContainerState, ContainerStatus};

use crate::machine;
use crate::node::Node;
use crate::stats::{node_cpu_ns, node_memory};
use crate::{pod, resources};

const NANOSECONDS: f64 = 1e9;
/// Columns of `/proc/<pid>/net/dev`, received first.
const RECEIVED: usize = 0;
const SENT: usize = 8;
/// Within them: bytes, packets, errors, dropped.
const COUNTED: [&str; 4] = ["bytes", "packets", "errors", "packets_dropped"];

struct Group {
    /// `container="c",id="/kubepods/…",…`
    labels: String,
    used: CgroupUse,
    /// What it was given, of a container.
    container: Option<ContainerStatus>,
}

struct Link {
    labels: String,
    received: [u64; COUNTED.len()],
    sent: [u64; COUNTED.len()],
}

fn labels(container: &str, id: &str, image: &str, name: &str, namespace: &str, pod: &str) -> String {
    shown([("container", container), ("id", id), ("image", image), ("name", name), ("namespace", namespace), ("pod", pod)])
}

/// The links of the network namespace that a process is in, but for the loopback.
fn links(pid: i32, id: &str, namespace: &str, pod: &str) -> Vec<Link> {
    let text = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    let link = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().map(|number| number.parse().unwrap_or(0)).collect();
        let from = |first: usize| -> Option<[u64; COUNTED.len()]> { numbers.get(first..first + COUNTED.len())?.try_into().ok() };
        let labels = shown([("container", ""), ("id", id), ("image", ""), ("interface", name.trim()), ("name", ""), ("namespace", namespace), ("pod", pod)]);
        (name.trim() != "lo").then_some(Link { labels, received: from(RECEIVED)?, sent: from(SENT)? })
    };
    text.lines().filter_map(link).collect()
}

/// Reads many small files: not for a thread that others wait for.
fn read(node: &Node, pods: &[Seen]) -> (Vec<Group>, Vec<Link>) {
    let (mut groups, mut all_links) = (Vec::new(), Vec::new());
    for Seen { namespace, pod, cgroup, containers, own_network } in pods {
        let id = format!("/{cgroup}");
        if let Some(used) = node.runtime.used_by(cgroup) {
            groups.push(Group { labels: labels("", &id, "", "", namespace, pod), used, container: None });
        }
        for container in containers {
            if let Some(used) = node.runtime.used_by(&format!("{cgroup}/{}", container.id)) {
                let labels = labels(&container.metadata.name, &format!("{id}/{}", container.id), &container.image, &container.id, namespace, pod);
                groups.push(Group { labels, used, container: Some(container.clone()) });
            }
        }
        // All containers of a pod share its network; on the machine's own nothing is the pod's.
        if let Some(container) = containers.iter().find(|container| container.pid > 0).filter(|_| *own_network) {
            all_links.extend(links(container.pid, &id, namespace, pod));
        }
    }
    (groups, all_links)
}

struct Seen {
    namespace: String,
    pod: String,
    cgroup: String,
    containers: Vec<ContainerStatus>,
    own_network: bool,
}

pub async fn metrics(node: &Arc<Node>) -> String {
    let seen: Vec<Seen> = node
        .all()
        .into_iter()
        .map(|cx| {
            let containers = cx.shared.lock().runtime.containers.iter().filter(|container| container.state == ContainerState::Running).cloned().collect();
            Seen { namespace: pod::namespace(&cx.pod).to_owned(), pod: pod::name(&cx.pod).to_owned(), cgroup: resources::cgroup_parent(&cx.pod), containers, own_network: !pod::host_network(&cx.pod) }
        })
        .collect();
    let reader = node.clone();
    let (groups, links) = tokio::task::spawn_blocking(move || read(&reader, &seen)).await.unwrap_or_default();
    let mut out = String::new();
    single(&mut out, "machine_cpu_cores", "gauge", "Number of logical CPU cores.", node.machine.cpus);
    single(&mut out, "machine_memory_bytes", "gauge", "Amount of memory installed on the machine.", node.machine.memory_bytes);
    single(&mut out, "machine_swap_bytes", "gauge", "Amount of swap memory available on the machine.", node.machine.swap_bytes);
    write(&mut out, &groups, &links, Some(&Whole { cpu_ns: node_cpu_ns(), memory_bytes: node_memory(node), available: machine::space(&node.config.root_dir).available }));
    out
}

/// The machine's own.
struct Whole {
    cpu_ns: u64,
    memory_bytes: u64,
    available: u64,
}

fn write(out: &mut String, groups: &[Group], links: &[Link], whole: Option<&Whole>) {
    let root = labels("", "/", "", "", "", "");
    let seconds = |nanoseconds: u64| nanoseconds as f64 / NANOSECONDS;
    let mut each = |name: &str, kind: &str, help: &str, of_machine: Option<f64>, value: &dyn Fn(&Group) -> Option<f64>| {
        head(out, name, kind, help);
        let more = if name == "container_cpu_usage_seconds_total" { ",cpu=\"total\"" } else { "" };
        if let Some(value) = of_machine {
            line(out, name, &format!("{root}{more}"), value);
        }
        for group in groups {
            if let Some(value) = value(group) {
                line(out, name, &format!("{}{more}", group.labels), value);
            }
        }
    };
    let always = |value: u64| Some(value as f64);
    // Without a quota there are no periods.
    let limited = |group: &Group, value: f64| (group.used.periods > 0).then_some(value);
    each("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in seconds.", whole.map(|whole| seconds(whole.cpu_ns)), &|group| Some(seconds(group.used.cpu_ns)));
    each("container_cpu_user_seconds_total", "counter", "Cumulative user cpu time consumed in seconds.", None, &|group| Some(seconds(group.used.cpu_user_ns)));
    each("container_cpu_system_seconds_total", "counter", "Cumulative system cpu time consumed in seconds.", None, &|group| Some(seconds(group.used.cpu_system_ns)));
    each("container_cpu_cfs_periods_total", "counter", "Number of elapsed enforcement period intervals.", None, &|group| limited(group, group.used.periods as f64));
    each("container_cpu_cfs_throttled_periods_total", "counter", "Number of throttled period intervals.", None, &|group| limited(group, group.used.throttled_periods as f64));
    each("container_cpu_cfs_throttled_seconds_total", "counter", "Total time duration the container has been throttled.", None, &|group| limited(group, seconds(group.used.throttled_ns)));
    each("container_memory_usage_bytes", "gauge", "Current memory usage in bytes, including all memory regardless of when it was accessed", whole.map(|whole| whole.memory_bytes as f64), &|group| always(group.used.memory_bytes));
    each("container_memory_working_set_bytes", "gauge", "Current working set in bytes.", whole.map(|whole| whole.memory_bytes as f64), &|group| always(group.used.memory_working_set_bytes));
    each("container_memory_rss", "gauge", "Size of RSS in bytes.", None, &|group| always(group.used.memory_rss_bytes));
    each("container_memory_cache", "gauge", "Number of bytes of page cache memory.", None, &|group| always(group.used.memory_cache_bytes));
    each("container_memory_swap", "gauge", "Container swap usage in bytes.", None, &|group| always(group.used.memory_swap_bytes));
    each("container_memory_mapped_file", "gauge", "Size of memory mapped files in bytes.", None, &|group| always(group.used.memory_mapped_bytes));
    each("container_memory_max_usage_bytes", "gauge", "Maximum memory usage recorded in bytes", None, &|group| always(group.used.memory_most_bytes));
    each("container_memory_failcnt", "counter", "Number of memory usage hits limits", None, &|group| always(group.used.memory_refusals));
    each("container_oom_events_total", "counter", "Count of out of memory events observed for the container", None, &|group| always(group.used.oom_kills));
    each("container_processes", "gauge", "Number of processes running inside the container.", None, &|group| always(group.used.processes));
    each("container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds.", None, &|group| group.container.as_ref().map(|container| container.started_at as f64 / NANOSECONDS));
    each("container_spec_cpu_shares", "gauge", "CPU share of the container.", None, &|group| group.container.as_ref()?.resources.cpu_shares.map(|shares| shares as f64));
    each("container_spec_cpu_quota", "gauge", "CPU quota of the container.", None, &|group| group.container.as_ref()?.resources.cpu_quota_us.filter(|quota| *quota > 0).map(|quota| quota as f64));
    each("container_spec_cpu_period", "gauge", "CPU period of the container.", None, &|group| group.container.as_ref()?.resources.cpu_period_us.map(|period| period as f64));
    each("container_spec_memory_limit_bytes", "gauge", "Memory limit for the container.", None, &|group| group.container.as_ref().map(|container| container.resources.memory_limit_bytes.map_or(0.0, |limit| limit as f64)));
    if let Some(whole) = whole {
        head(out, "container_fs_free_bytes", "gauge", "Number of bytes that can be used by the container on this filesystem.");
        line(out, "container_fs_free_bytes", &root, whole.available);
    }
    let name = "container_memory_failures_total";
    head(out, name, "counter", "Cumulative count of memory allocation failures.");
    for group in groups {
        line(out, name, &format!("{},failure_type=\"pgfault\",scope=\"hierarchy\"", group.labels), group.used.page_faults);
        line(out, name, &format!("{},failure_type=\"pgmajfault\",scope=\"hierarchy\"", group.labels), group.used.major_page_faults);
    }
    let devices: [(&str, &str, fn(&sandbox::cri::DeviceUse) -> u64); 4] = [
        ("container_fs_reads_bytes_total", "Cumulative count of bytes read", |device| device.read_bytes),
        ("container_fs_reads_total", "Cumulative count of reads completed", |device| device.reads),
        ("container_fs_writes_bytes_total", "Cumulative count of bytes written", |device| device.written_bytes),
        ("container_fs_writes_total", "Cumulative count of writes completed", |device| device.writes),
    ];
    for (name, help, value) in devices {
        head(out, name, "counter", help);
        for group in groups {
            group.used.devices.iter().for_each(|device| line(out, name, &format!("{},device=\"{}\"", group.labels, device.device), value(device)));
        }
    }
    for (at, counted) in COUNTED.iter().enumerate() {
        let what = counted.replace('_', " ");
        for (direction, words, values) in [("receive", "received", (|link: &Link| &link.received) as fn(&Link) -> &[u64; COUNTED.len()]), ("transmit", "transmitted", |link| &link.sent)] {
            let name = format!("container_network_{direction}_{counted}_total");
            head(out, &name, "counter", &format!("Cumulative count of {what} {words}"));
            links.iter().for_each(|link| line(out, &name, &link.labels, values(link)[at]));
        }
    }
    single(out, "container_scrape_error", "gauge", "1 if there was an error while getting container metrics, 0 otherwise", 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_pods_and_links() {
        let used = CgroupUse { cpu_ns: 1_500_000_000, memory_working_set_bytes: 77, ..CgroupUse::default() };
        let quota = CgroupUse { periods: 10, throttled_periods: 3, ..used.clone() };
        let of = |container: &str, used: &CgroupUse| Group { labels: labels(container, "/kubepods/podu", "", "", "default", "web"), used: used.clone(), container: None };
        let link = Link { labels: shown([("interface", "eth0")]), received: [10, 1, 0, 2], sent: [20, 2, 0, 0] };
        let mut out = String::new();
        write(&mut out, &[of("", &used), of("c", &quota)], &[link], None);
        for line in [
            r#"container_cpu_usage_seconds_total{container="c",id="/kubepods/podu",image="",name="",namespace="default",pod="web",cpu="total"} 1.5"#,
            r#"container_memory_working_set_bytes{container="",id="/kubepods/podu",image="",name="",namespace="default",pod="web"} 77"#,
            r#"container_cpu_cfs_throttled_periods_total{container="c",id="/kubepods/podu",image="",name="",namespace="default",pod="web"} 3"#,
            r#"container_network_receive_packets_dropped_total{interface="eth0"} 2"#,
            r#"container_network_transmit_bytes_total{interface="eth0"} 20"#,
        ] {
            assert!(out.lines().any(|written| written == line), "{line}\nnot in\n{out}");
        }
        assert_eq!(out.matches("container_cpu_cfs_periods_total{").count(), 1, "one has no quota");
    }

    #[test]
    fn links_of_a_process() {
        // Our own, in whatever namespace this test is.
        assert!(links(std::process::id() as i32, "/x", "n", "p").iter().all(|link| !link.labels.contains("interface=\"lo\"")));
    }
}
