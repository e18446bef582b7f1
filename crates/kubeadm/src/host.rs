//! What kubeadm has others do: start things on this machine, and take them away again.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use api::Clock;
use api::world::SystemClock;

/// Where kubeadm's files are, as upstream's.
pub const KUBERNETES_FOLDER: &str = "/etc/kubernetes";
/// Where the agent's own files are, as upstream's.
pub const KUBELET_FOLDER: &str = "/var/lib/kubelet";

/// An etcd that the cluster's control planes share, by kubeadm's words for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExternalEtcd {
    pub endpoints: Vec<String>,
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
}

/// What an etcd says of itself.
#[derive(Debug, Clone)]
pub struct EtcdFacts {
    pub version: String,
    /// It holds a cluster's objects.
    pub in_use: bool,
}

/// Flags of one of upstream's programs, without dashes, with their values.
pub type Args = Vec<(String, String)>;

/// `extraArgs` of the control plane's parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ControlPlaneArgs {
    pub api_server: Args,
    pub controller_manager: Args,
    pub scheduler: Args,
}

/// One of upstream's programs, for which there may be flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    ApiServer,
    ControllerManager,
    Scheduler,
    /// The agent in the control plane's process.
    OwnKubelet,
    /// The agent alone.
    Kubelet,
}

/// What a flag of upstream's comes to here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// It does what it does there.
    Honoured,
    /// It is about something that there is not, or that is so anyhow.
    Nothing,
    /// It would change what the cluster does, and cannot be had.
    Missing,
}

#[derive(Debug, Clone)]
pub struct ControlPlane {
    pub data_dir: PathBuf,
    pub pki_dir: PathBuf,
    pub node_name: String,
    pub advertise_address: IpAddr,
    pub secure_port: u16,
    pub pod_network_cidr: String,
    pub service_cidr: String,
    /// What the names of Services and pods end in.
    pub dns_domain: String,
    /// Further names and addresses of the API server's certificate.
    pub extra_names: Vec<String>,
    /// No pod network: somebody else brings one.
    pub no_network: bool,
    /// Services are another proxy's to program.
    pub no_proxy: bool,
    /// Where the objects are; none: in the data folder, on this machine alone.
    pub etcd: Option<ExternalEtcd>,
    /// Further flags, as `extraArgs` has them.
    pub args: ControlPlaneArgs,
    pub kubelet_args: Args,
}

#[derive(Debug, Clone)]
pub struct Agent {
    pub data_dir: PathBuf,
    pub kubeconfig: PathBuf,
    pub config: PathBuf,
    pub node_name: String,
    pub node_ip: Option<IpAddr>,
    pub pod_network_cidr: String,
    pub service_cidr: String,
    pub no_network: bool,
    pub no_proxy: bool,
    pub kubelet_args: Args,
}

/// The machine. Errors are texts for the user.
pub trait Host {
    /// Like `v1.36.2`.
    fn version(&self) -> &str;
    /// The image that this program is, with its tag: nodes have it without fetching.
    fn own_image(&self) -> String;
    /// Its clock, by which it judges certificates.
    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(SystemClock)
    }
    /// What a flag of upstream's comes to.
    fn meaning(&self, component: Component, flag: &str, value: &str) -> Meaning;
    /// By which others reach this machine, of that family if it has one.
    fn address(&self, ipv4: bool) -> Option<IpAddr>;
    /// Asks an etcd whether it is there, and whose.
    fn ask_etcd(&self, etcd: &ExternalEtcd) -> Result<EtcdFacts, String>;
    /// Returns when it answers; it goes on in the background.
    fn start_control_plane(&self, what: &ControlPlane) -> Result<(), String>;
    /// Returns when it has registered its node; it goes on in the background.
    fn start_agent(&self, what: &Agent) -> Result<(), String>;
    /// Stops what runs with that folder, and starts it again as what it was made, by this program.
    fn restart(&self, data_dir: &std::path::Path) -> Result<(), String>;
    /// Stops what runs with that folder and takes away all it made, the folder too.
    fn remove(&self, data_dir: &std::path::Path) -> Result<(), String>;
    /// The same, but for what was in the folder `before`; none: it was not there.
    fn undo(&self, data_dir: &std::path::Path, before: Option<&[std::ffi::OsString]>) -> Result<(), String>;
    /// Whether something runs with that folder.
    fn runs(&self, data_dir: &std::path::Path) -> bool;
}
