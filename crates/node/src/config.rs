//! What a node is told when it starts.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// Port of the kubelet's API.
pub const KUBELET_PORT: u16 = 10250;
/// Pods a node takes, as upstream's default.
pub const MAX_PODS: u32 = 110;

#[derive(Debug, Clone)]
pub struct Config {
    pub node_name: String,
    /// `hostname` label and address; the node's name when empty.
    pub hostname: String,
    /// At the start, primary first; [`crate::Node::set_addresses`] tells of others.
    pub node_ips: Vec<IpAddr>,
    /// `v1.36.2`.
    pub version: String,
    /// Like `/var/lib/kubelet`: volumes and per-pod files.
    pub root_dir: PathBuf,
    /// Like `/var/log/pods`.
    pub log_dir: PathBuf,
    pub cluster_dns: Vec<IpAddr>,
    /// `cluster.local`.
    pub cluster_domain: String,
    /// Written to `spec.podCIDR` when the node registers itself and nobody else allocates.
    pub pod_cidrs: Vec<String>,
    pub labels: BTreeMap<String, String>,
    pub port: u16,
    pub max_pods: u32,
    /// The folder of static pods; none: there are none.
    pub static_pod_path: Option<PathBuf>,
    /// The host's resolver configuration, for `dnsPolicy: Default` and the search path.
    pub resolv_conf: PathBuf,
    /// Why the node takes no pods at first; [`crate::Node::set_not_ready`] tells of changes.
    pub not_ready: Option<String>,
}

impl Config {
    /// Upstream's defaults for a node of that name and address.
    pub fn new(node_name: &str, node_ip: IpAddr, version: &str, root_dir: impl Into<PathBuf>) -> Self {
        Self {
            node_name: node_name.to_owned(),
            hostname: String::new(),
            node_ips: vec![node_ip],
            version: version.to_owned(),
            root_dir: root_dir.into(),
            log_dir: "/var/log/pods".into(),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            pod_cidrs: Vec::new(),
            labels: BTreeMap::new(),
            port: KUBELET_PORT,
            max_pods: MAX_PODS,
            static_pod_path: None,
            resolv_conf: "/etc/resolv.conf".into(),
            not_ready: None,
        }
    }

    pub fn hostname(&self) -> &str {
        if self.hostname.is_empty() { &self.node_name } else { &self.hostname }
    }

    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root_dir.join("pods").join(uid)
    }
}
