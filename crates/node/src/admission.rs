//! What this node refuses to run though it is bound to it: pure. Mirrors upstream's kubelet admit handlers (sysctl allowlist,
//! host ports, resources; of these what the pod alone asks for, since pods that are here already came through the scheduler).

use std::sync::Arc;

use api::k8s::api::core::v1::Pod;

use crate::status::Reason;
use crate::{pod, quantity, resize};

/// Namespaced and without effect on others: upstream's `SafeSysctlAllowlist`.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

const OS: &str = "linux";

/// Why the pod may not run here, if so: reason and message of its failed status and of the event.
pub fn refusal(pod: &Pod, allocatable: &quantity::List, unsafe_allowed: &[String]) -> Option<Reason> {
    if let Some((name, asked, used, capacity)) = resize::shortage(pod, resize::Asked::default(), allocatable) {
        return Some(Reason { reason: format!("OutOf{name}"), message: format!("Node didn't have enough resource: {name}, requested: {asked}, used: {used}, capacity: {capacity}") });
    }
    let spec = pod::spec(pod);
    let refused = |reason: &str, message: &str| Some(Reason { reason: reason.to_owned(), message: message.to_owned() });
    let selected = spec.node_selector.as_ref().and_then(|selector| selector.get("kubernetes.io/os"));
    if selected.is_some_and(|os| os != OS) {
        return refused("PodOSSelectorNodeLabelDoesNotMatch", "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label");
    }
    if spec.os.as_ref().is_some_and(|os| os.name != OS) {
        return refused("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS");
    }
    let sysctls = spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten());
    for name in sysctls.map(|sysctl| sysctl.name.replace('/', ".")) {
        let of_host = (spec.host_network == Some(true) && name.starts_with("net.")).then_some("hostnet").or((spec.host_ipc == Some(true) && name.starts_with("kernel.")).then_some("hostipc"));
        let why = match of_host {
            Some(which) => format!("not allowed with host {} enabled", if which == "hostnet" { "net" } else { "ipc" }),
            None if !SAFE_SYSCTLS.contains(&name.as_str()) && !unsafe_allowed.iter().any(|pattern| fits(pattern, &name)) => "not allowlisted".to_owned(),
            None => continue,
        };
        return Some(Reason { reason: "SysctlForbidden".to_owned(), message: format!("forbidden sysctl: {name:?} {why}") });
    }
    None
}

/// `kernel.msg*` and full names, with either separator.
fn fits(pattern: &str, name: &str) -> bool {
    let pattern = pattern.replace('/', ".");
    pattern.strip_suffix('*').map_or(pattern == name, |prefix| name.starts_with(prefix))
}

/// The ports of the machine a pod takes: address (empty: all of them), protocol, number.
fn host_ports(pod: &Pod) -> impl Iterator<Item = (&str, &str, i32)> {
    let of_host = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
    pod.spec.iter().flat_map(|spec| &spec.containers).flat_map(|container| container.ports.iter().flatten()).filter_map(move |port| {
        let number = port.host_port.filter(|number| *number > 0).or(of_host.then_some(port.container_port))?;
        let address = port.host_ip.as_deref().filter(|address| !matches!(*address, "0.0.0.0" | "::")).unwrap_or("");
        Some((address, port.protocol.as_deref().unwrap_or("TCP"), number))
    })
}

/// Why the pod may not run beside those that are here, if so. The scheduler sees to that, but a pod may come without it.
pub fn port_refusal(pod: &Pod, others: &[Arc<Pod>]) -> Option<Reason> {
    let wanted: Vec<_> = host_ports(pod).collect();
    let collide = |(address, protocol, number): (&str, &str, i32)| {
        wanted.iter().any(|wanted| wanted.2 == number && wanted.1 == protocol && (wanted.0 == address || wanted.0.is_empty() || address.is_empty()))
    };
    (!wanted.is_empty() && others.iter().any(|other| host_ports(other).any(collide))).then(|| Reason {
        reason: "NodePorts".to_owned(),
        message: "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn more_than_the_node_has() {
        let pod = pod::from_json(json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "3"}}}]}}));
        let allocatable: quantity::List = serde_json::from_value(json!({"cpu": "2"})).unwrap();
        let refused = refusal(&pod, &allocatable, &[]).unwrap();
        assert_eq!((refused.reason.as_str(), refused.message.as_str()), ("OutOfcpu", "Node didn't have enough resource: cpu, requested: 3000, used: 0, capacity: 2000"));
    }

    #[test]
    fn other_systems() {
        let reason = |spec: serde_json::Value| refusal(&pod::from_json(json!({"spec": spec})), &quantity::List::new(), &["kernel.shm*".to_owned()]).map(|refused| refused.reason);
        assert_eq!(reason(json!({"containers": [], "os": {"name": "linux"}, "nodeSelector": {"kubernetes.io/os": "linux"}})), None);
        assert_eq!(reason(json!({"containers": [], "os": {"name": "windows"}})).as_deref(), Some("PodOSNotSupported"));
        assert_eq!(reason(json!({"containers": [], "nodeSelector": {"kubernetes.io/os": "windows"}})).as_deref(), Some("PodOSSelectorNodeLabelDoesNotMatch"));
    }

    #[test]
    fn ports_that_are_taken() {
        let pod = |address: &str, protocol: &str, port: i32| Arc::new(pod::from_json(json!({"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostIP": address, "protocol": protocol, "hostPort": port}]}]}})));
        let wanted = pod("", "TCP", 8080);
        for (other, refused) in [(pod("", "TCP", 8080), true), (pod("127.0.0.1", "TCP", 8080), true), (pod("", "UDP", 8080), false), (pod("", "TCP", 8081), false), (pod("", "TCP", 0), false)] {
            assert_eq!(port_refusal(&wanted, std::slice::from_ref(&other)).is_some(), refused, "{other:?}");
        }
        assert!(port_refusal(&pod("127.0.0.1", "TCP", 1), &[pod("127.0.0.2", "TCP", 1)]).is_none());
        assert!(port_refusal(&pod("", "TCP", 0), &[wanted]).is_none());
    }

    #[test]
    fn sysctls() {
        let of = |name: &str, host: bool| {
            let pod = pod::from_json(json!({"spec": {"hostNetwork": host, "containers": [], "securityContext": {"sysctls": [{"name": name, "value": "1"}]}}}));
            refusal(&pod, &quantity::List::new(), &["kernel.shm*".to_owned()]).map(|refused| refused.message)
        };
        assert_eq!(of("kernel.shm_rmid_forced", false), None);
        assert_eq!(of("kernel/shm_rmid_forced", false), None);
        assert_eq!(of("kernel.shmmax", false), None, "allowed by configuration");
        assert_eq!(of("kernel.msgmax", false).as_deref(), Some("forbidden sysctl: \"kernel.msgmax\" not allowlisted"));
        assert_eq!(of("net.ipv4.tcp_syncookies", true).as_deref(), Some("forbidden sysctl: \"net.ipv4.tcp_syncookies\" not allowed with host net enabled"));
    }
}
