//! The node's seam to whatever runs containers: the operations and types of CRI v1 (`runtime.v1.RuntimeService`), in Rust's words.
//!
//! The embedded runtime implements it in process; a gRPC client of containerd or CRI-O can implement the same trait.
//! Names and meanings follow <https://github.com/kubernetes/cri-api> v1. Times are nanoseconds since the epoch, as there.

use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;

use serde::{Deserialize, Serialize};

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
pub type Result<T, E = RuntimeError> = std::result::Result<T, E>;

/// Why a runtime operation failed. `Display` is what ends up in events and container statuses.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RuntimeError {
    #[error("{what} {id:?} not found")]
    NotFound { what: &'static str, id: String },
    /// The container could not be started: bad command, missing working directory, … (reason `RunContainerError`/`StartError`).
    #[error("{0}")]
    Start(String),
    #[error("{0}")]
    InvalidArgument(String),
    #[error("{operation}: {message}")]
    Failed { operation: &'static str, message: String },
    #[error("command timed out after {0} s")]
    Timeout(u64),
}

/// Identity of a pod as the kubelet gave it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodSandboxMetadata {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub attempt: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum NamespaceMode {
    /// One namespace for the pod.
    #[default]
    Pod,
    /// One namespace per container (PID only).
    Container,
    /// The node's.
    Node,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct NamespaceOptions {
    pub network: NamespaceMode,
    /// `Container` unless shareProcessNamespace or hostPID.
    pub pid: NamespaceMode,
    pub ipc: NamespaceMode,
    pub uts_host: bool,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DnsConfig {
    pub servers: Vec<IpAddr>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PortMapping {
    pub protocol: Protocol,
    pub container_port: u16,
    pub host_port: u16,
    pub host_ip: Option<IpAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PodSandboxConfig {
    pub metadata: PodSandboxMetadata,
    pub hostname: String,
    /// `/var/log/pods/<namespace>_<name>_<uid>`.
    pub log_directory: PathBuf,
    /// Contents of /etc/resolv.conf; `None` leaves the image's file alone.
    pub dns: Option<DnsConfig>,
    pub port_mappings: Vec<PortMapping>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// Cgroup of the pod relative to the hierarchy root, e.g. `kubepods/burstable/pod<uid>`. The runtime makes it and removes it.
    pub cgroup_parent: String,
    /// Pod-level limits set on `cgroup_parent`.
    pub resources: LinuxResources,
    pub namespaces: NamespaceOptions,
    pub sysctls: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxState {
    Ready,
    NotReady,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PodSandboxStatus {
    pub id: String,
    pub metadata: PodSandboxMetadata,
    pub state: SandboxState,
    pub created_at: i64,
    /// The first is the primary; empty on the host network.
    pub ips: Vec<IpAddr>,
    /// For probes and port-forward from the node; `None` on the host network.
    pub network_namespace: Option<PathBuf>,
    pub namespaces: NamespaceOptions,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LinuxResources {
    pub cpu_shares: Option<u64>,
    pub cpu_quota_us: Option<i64>,
    pub cpu_period_us: Option<u64>,
    pub memory_limit_bytes: Option<i64>,
    pub pids_limit: Option<i64>,
    pub cpuset_cpus: Option<String>,
    pub oom_score_adj: Option<i32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum MountPropagation {
    #[default]
    Private,
    HostToContainer,
    Bidirectional,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Mount {
    pub container_path: String,
    /// A file or a directory.
    pub host_path: PathBuf,
    /// A part of that directory, as the node has resolved it: no link, nothing outside. Looked up again when it is mounted, as those who may write in the
    /// directory may have put a link there since (CVE-2021-25741): then it is refused. Empty: the whole.
    #[serde(default)]
    pub sub_path: PathBuf,
    pub readonly: bool,
    pub propagation: MountPropagation,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Device {
    pub container_path: String,
    pub host_path: String,
    pub permissions: String,
}

/// Who the process runs as. The node has resolved `runAsUser` and the image's `USER` as far as numbers; names are looked up in the container's /etc/passwd.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct User {
    pub uid: Option<i64>,
    pub gid: Option<i64>,
    /// `USER` of the image when it is no number: `name`, `name:group`, `uid:gid` and mixtures are all accepted.
    pub username: Option<String>,
    pub supplemental_groups: Vec<i64>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Capabilities {
    /// `NET_ADMIN` style, `ALL` allowed.
    pub add: Vec<String>,
    pub drop: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub enum SeccompProfile {
    #[default]
    Unconfined,
    RuntimeDefault,
    Localhost(PathBuf),
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SecurityContext {
    pub privileged: bool,
    pub user: User,
    pub readonly_rootfs: bool,
    pub no_new_privs: bool,
    pub capabilities: Capabilities,
    pub seccomp: SeccompProfile,
    /// `None` means the default masked and read-only paths.
    pub unmasked_proc: bool,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ContainerMetadata {
    pub name: String,
    pub attempt: u32,
}

/// A root made of unpacked layers: overlay `lowerdir`s, topmost layer first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RootFs {
    pub layers: Vec<PathBuf>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ContainerConfig {
    pub metadata: ContainerMetadata,
    /// What the user wrote, and the image's digest (`sha256:…`).
    pub image: String,
    pub image_id: String,
    pub rootfs: RootFs,
    /// Entrypoint and arguments, already merged from image and pod and expanded. Never empty.
    pub args: Vec<String>,
    pub working_dir: String,
    pub env: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    pub devices: Vec<Device>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// Relative to the sandbox's log directory: `<container>/<restart>.log`.
    pub log_path: PathBuf,
    pub stdin: bool,
    pub stdin_once: bool,
    pub tty: bool,
    pub resources: LinuxResources,
    pub security: SecurityContext,
    /// Signal name of the image's STOPSIGNAL; SIGTERM when empty.
    pub stop_signal: String,
    /// The container of the same sandbox whose processes it sees, as it is in their PID namespace (CRI's `NamespaceMode::TARGET` with `target_id`).
    #[serde(default)]
    pub pid_of: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    Created,
    Running,
    Exited,
    Unknown,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerStatus {
    pub id: String,
    pub sandbox_id: String,
    pub metadata: ContainerMetadata,
    pub state: ContainerState,
    pub created_at: i64,
    pub started_at: i64,
    pub finished_at: i64,
    pub exit_code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, `ContainerStatusUnknown`.
    pub reason: String,
    pub message: String,
    pub image: String,
    pub image_id: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// Absolute.
    pub log_path: PathBuf,
    /// The first process, in the node's PID namespace; 0 when not running.
    pub pid: i32,
    pub resources: LinuxResources,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ContainerStats {
    pub id: String,
    pub cpu_usage_core_ns: u64,
    pub memory_usage_bytes: u64,
    pub memory_working_set_bytes: u64,
    pub memory_rss_bytes: u64,
    pub rootfs_used_bytes: u64,
    pub rootfs_used_inodes: u64,
    pub pids: u64,
}

/// All that a cgroup tells of those in it: what cAdvisor shows of a container, a pod or a class of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CgroupUse {
    pub cpu_ns: u64,
    pub cpu_user_ns: u64,
    pub cpu_system_ns: u64,
    /// Of its quota: how many there were, in how many it had to wait, and for how long.
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled_ns: u64,
    pub memory_bytes: u64,
    pub memory_working_set_bytes: u64,
    pub memory_rss_bytes: u64,
    pub memory_cache_bytes: u64,
    pub memory_swap_bytes: u64,
    pub memory_mapped_bytes: u64,
    /// The most it ever had.
    pub memory_most_bytes: u64,
    /// How often its limit was reached.
    pub memory_refusals: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    pub oom_kills: u64,
    pub processes: u64,
    pub devices: Vec<DeviceUse>,
}

/// What was read from and written to a block device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceUse {
    /// `8:0`
    pub device: String,
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub reads: u64,
    pub writes: u64,
}

#[derive(Debug, Clone, Default)]
pub struct ExecSyncResult {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub exit_code: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    pub width: u16,
    pub height: u16,
}

/// The ends of a streaming session, as non-blocking file descriptors (pipes, or one pty master for all of them).
/// Closing `stdin` is end of file. With a tty `stdout` carries everything and `stderr` is `None`.
pub struct Streams {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
    /// Set when the session has a terminal: pass it the new sizes.
    pub resize: Option<Box<dyn Fn(TerminalSize) + Send + Sync>>,
    /// Resolves with the exit code when the process ends (exec), or when the container ends (attach).
    pub exit: BoxFuture<'static, Result<i32>>,
}

#[derive(Debug, Clone, Default)]
pub struct StreamOptions {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// Something happened to a container or sandbox: the node relists that pod. Containers are told of by the shim the moment they change, nothing polls.
#[derive(Debug, Clone)]
pub struct ContainerEvent {
    pub sandbox_id: String,
    pub pod_uid: String,
    pub container_id: Option<String>,
    pub kind: ContainerEventKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerEventKind {
    Created,
    Started,
    Stopped,
    Deleted,
}

/// CRI v1's RuntimeService. Every operation is idempotent where CRI says so (stop and remove of what is gone succeed).
pub trait Runtime: Send + Sync + 'static {
    /// Name and version for `nodeInfo.containerRuntimeVersion`: `coracle://0.1.0`.
    fn version(&self) -> String;

    fn run_pod_sandbox(&self, config: PodSandboxConfig) -> BoxFuture<'_, Result<String>>;
    /// Kills what still runs, gives the network back. Idempotent.
    fn stop_pod_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;
    fn remove_pod_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;
    /// The limits of the pod's own cgroup, around those of its containers.
    fn update_pod_sandbox_resources<'a>(&'a self, id: &'a str, resources: LinuxResources) -> BoxFuture<'a, Result<()>>;
    fn pod_sandbox_status<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<PodSandboxStatus>>;
    fn list_pod_sandboxes(&self) -> BoxFuture<'_, Result<Vec<PodSandboxStatus>>>;

    fn create_container<'a>(&'a self, sandbox_id: &'a str, config: ContainerConfig) -> BoxFuture<'a, Result<String>>;
    /// Returns once the process has been executed (or says why it could not be).
    fn start_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;
    /// Stop signal, then SIGKILL after `timeout_seconds`. Returns when it has ended.
    fn stop_container<'a>(&'a self, id: &'a str, timeout_seconds: i64) -> BoxFuture<'a, Result<()>>;
    fn remove_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;
    fn container_status<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<ContainerStatus>>;
    /// Of one sandbox, or all.
    fn list_containers<'a>(&'a self, sandbox_id: Option<&'a str>) -> BoxFuture<'a, Result<Vec<ContainerStatus>>>;
    fn update_container_resources<'a>(&'a self, id: &'a str, resources: LinuxResources) -> BoxFuture<'a, Result<()>>;
    /// Starts a new log file at the same path after the old one was renamed.
    fn reopen_container_log<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;
    fn container_stats<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<ContainerStats>>;

    fn exec_sync<'a>(&'a self, id: &'a str, command: Vec<String>, timeout_seconds: u64) -> BoxFuture<'a, Result<ExecSyncResult>>;
    fn exec<'a>(&'a self, id: &'a str, command: Vec<String>, options: StreamOptions) -> BoxFuture<'a, Result<Streams>>;
    fn attach<'a>(&'a self, id: &'a str, options: StreamOptions) -> BoxFuture<'a, Result<Streams>>;
    /// A TCP connection to `127.0.0.1:port` (or ::1) inside the sandbox's network namespace.
    fn port_forward<'a>(&'a self, sandbox_id: &'a str, port: u16) -> BoxFuture<'a, Result<std::net::TcpStream>>;

    /// What those in a cgroup use; a container's is named by its id below its pod's. Reads some small files of the kernel's.
    fn used_by(&self, cgroup: &str) -> Option<CgroupUse> {
        let _ = cgroup;
        None
    }

    /// Unpacked layers that containers stand on, whatever became of their images' names.
    fn used_layers(&self) -> HashSet<PathBuf> {
        HashSet::new()
    }

    /// All events from now on. A receiver that lags is told so and relists.
    fn events(&self) -> tokio::sync::broadcast::Receiver<ContainerEvent>;
}

/// What gives a sandbox its place in the pod network (CNI ADD and DEL in Rust's words).
pub trait PodNetwork: Send + Sync + 'static {
    /// The namespace exists and has only `lo`, down. Returns the pod's addresses, primary first.
    fn attach<'a>(&'a self, sandbox_id: &'a str, namespace: &'a std::path::Path, config: &'a PodSandboxConfig) -> BoxFuture<'a, std::result::Result<Vec<IpAddr>, String>>;
    fn detach<'a>(&'a self, sandbox_id: &'a str, config: &'a PodSandboxConfig) -> BoxFuture<'a, std::result::Result<(), String>>;
}
