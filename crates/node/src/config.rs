//! What a node is told when it starts.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::configuration::Settings;

/// Port of the kubelet's API.
pub const KUBELET_PORT: u16 = 10250;
/// Pods a node takes, as upstream's default.
pub const MAX_PODS: u32 = 110;

/// Upstream's `evictionMonitoringPeriod`.
const EVICTION_PERIOD: Duration = Duration::from_secs(10);

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
    /// The KubeletConfiguration.
    pub settings: Settings,
    /// The folder of images; the node's own when there is none.
    pub image_dir: Option<PathBuf>,
    /// How often is looked whether memory and disk are short: they tell nobody.
    pub eviction_period: Duration,
    /// The socket of the bus on which logind is to be found.
    pub system_bus: PathBuf,
    /// Where logind looks for more configuration.
    pub logind_conf_dir: PathBuf,
}

/// As `DBUS_SYSTEM_BUS_ADDRESS` says, or where it usually is.
pub(crate) fn system_bus() -> PathBuf {
    let said = std::env::var("DBUS_SYSTEM_BUS_ADDRESS").ok();
    let path = said.as_deref().and_then(|address| address.strip_prefix("unix:path=")).and_then(|rest| rest.split([',', ';']).next());
    path.unwrap_or("/run/dbus/system_bus_socket").into()
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
            settings: Settings::default(),
            image_dir: None,
            eviction_period: EVICTION_PERIOD,
            system_bus: system_bus(),
            logind_conf_dir: crate::shutdown::logind::CONF_DIR.into(),
        }
    }

    /// As the KubeletConfiguration has it.
    pub fn follow(&mut self, settings: Settings) {
        self.cluster_domain.clone_from(&settings.cluster_domain);
        self.port = settings.port;
        self.static_pod_path.clone_from(&settings.static_pod_path);
        self.resolv_conf.clone_from(&settings.resolv_conf);
        if let Some(folder) = &settings.pod_logs_dir {
            self.log_dir.clone_from(folder);
        }
        let cpus = std::thread::available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX));
        self.max_pods = match settings.pods_per_core {
            0 => settings.max_pods,
            per_core => settings.max_pods.min(per_core.saturating_mul(cpus)),
        };
        self.settings = settings;
    }

    pub fn hostname(&self) -> &str {
        if self.hostname.is_empty() { &self.node_name } else { &self.hostname }
    }

    /// Where images lie, as far as free space goes.
    pub fn images_dir(&self) -> PathBuf {
        self.image_dir.clone().unwrap_or_else(|| self.root_dir.clone())
    }

    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root_dir.join("pods").join(uid)
    }
}
