//! The sandbox of a pod as the runtime is asked for it. Mirrors kuberuntime_sandbox.go.

use std::collections::BTreeMap;

use api::k8s::api::core::v1::Pod;
use sandbox::cri::{LinuxResources, NamespaceMode, NamespaceOptions, PodSandboxConfig, PodSandboxMetadata, PortMapping, Protocol};

use crate::cx::Cx;
use crate::{dns, pod, resources};

pub const LABEL_POD_NAME: &str = "io.kubernetes.pod.name";
pub const LABEL_POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const LABEL_POD_UID: &str = "io.kubernetes.pod.uid";

pub fn labels(pod: &Pod) -> BTreeMap<String, String> {
    let mut labels = pod.metadata.labels.clone().unwrap_or_default();
    labels.insert(LABEL_POD_NAME.into(), pod::name(pod).to_owned());
    labels.insert(LABEL_POD_NAMESPACE.into(), pod::namespace(pod).to_owned());
    labels.insert(LABEL_POD_UID.into(), pod::uid(pod).to_owned());
    labels
}

pub fn namespaces(pod: &Pod) -> NamespaceOptions {
    let spec = pod::spec(pod);
    let mode = |host: Option<bool>, other: NamespaceMode| if host == Some(true) { NamespaceMode::Node } else { other };
    let pid = if spec.share_process_namespace == Some(true) { NamespaceMode::Pod } else { NamespaceMode::Container };
    NamespaceOptions {
        network: mode(spec.host_network, NamespaceMode::Pod),
        pid: mode(spec.host_pid, pid),
        ipc: mode(spec.host_ipc, NamespaceMode::Pod),
        uts_host: spec.host_network == Some(true),
    }
}

fn port_mappings(pod: &Pod) -> Vec<PortMapping> {
    if pod::host_network(pod) {
        return Vec::new();
    }
    let sidecars = pod::init_containers(pod).iter().filter(|c| pod::is_sidecar(c));
    sidecars
        .chain(pod::containers(pod))
        .flat_map(|c| c.ports.iter().flatten())
        .filter_map(|port| {
            Some(PortMapping {
                protocol: match port.protocol.as_deref() {
                    Some("UDP") => Protocol::Udp,
                    Some("SCTP") => Protocol::Sctp,
                    _ => Protocol::Tcp,
                },
                container_port: u16::try_from(port.container_port).ok()?,
                host_port: port.host_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0)?,
                host_ip: port.host_ip.as_deref().and_then(|ip| ip.parse().ok()),
            })
        })
        .collect()
}

pub fn of(cx: &Cx, attempt: u32) -> PodSandboxConfig {
    let pod = &*cx.pod;
    let config = &cx.node.config;
    let spec = pod::spec(pod);
    let sysctls = spec.security_context.iter().flat_map(|c| c.sysctls.iter().flatten()).map(|s| (s.name.clone(), s.value.clone())).collect();
    PodSandboxConfig {
        metadata: PodSandboxMetadata { name: pod::name(pod).to_owned(), namespace: pod::namespace(pod).to_owned(), uid: pod::uid(pod).to_owned(), attempt },
        hostname: dns::uts_hostname(pod, &config.cluster_domain, config.hostname()),
        log_directory: config.log_dir.join(pod::log_folder(pod::namespace(pod), pod::name(pod), pod::uid(pod))),
        dns: Some(dns::of_pod(pod, &config.cluster_dns, &config.cluster_domain, &cx.node.host_dns())),
        port_mappings: port_mappings(pod),
        labels: labels(pod),
        annotations: pod.metadata.annotations.clone().unwrap_or_default(),
        cgroup_parent: resources::cgroup_parent(pod),
        resources: LinuxResources { pids_limit: config.settings.pod_pids_limit, ..resources::of_pod(pod) },
        namespaces: namespaces(pod),
        sysctls,
    }
}
