//! The runtime inside Coracle: `cri::Runtime` on shims, one per pod.
//!
//! Promises: it holds no state a restart could lose (`open` takes every running shim over again); what a shim says is believed at once, nothing is
//! polled; a container's exit is known here only after its log is complete. File system work of more than a few calls runs off the async threads.

mod adopt;
mod containers;
mod link;
mod records;
mod reset;
mod sandboxes;
mod streams;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use basics::files;
use parking_lot::Mutex;
use tokio::sync::broadcast;

use crate::cgroup::Cgroups;
use crate::cri::{
    BoxFuture, ContainerConfig, ContainerEvent, ContainerEventKind, ContainerStats, ContainerStatus, ExecSyncResult, LinuxResources, PodNetwork, PodSandboxConfig,
    CgroupUse, PodSandboxStatus, Result, Runtime, RuntimeError, StreamOptions, Streams,
};
use crate::layout::Layout;
use records::{Container, Sandbox};

pub use reset::{Report, reset};

/// Events a receiver may be behind before it is told that it lags and must list anew.
const EVENT_BACKLOG: usize = 1024;

#[derive(Clone)]
pub struct Config {
    /// Survives a reboot: configurations, exit codes, writable layers. `/var/lib/coracle/containers`.
    pub root_dir: PathBuf,
    /// Need not: sockets and namespaces. `/run/coracle`.
    pub state_dir: PathBuf,
    /// Our own binary, called as `<exe> shim …`; it must pass the arguments after `shim` to `sandbox::shim::main`.
    pub shim_exe: PathBuf,
    pub network: Arc<dyn PodNetwork>,
}

#[derive(Clone)]
pub struct Embedded {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    layout: Layout,
    shim_exe: PathBuf,
    network: Arc<dyn PodNetwork>,
    cgroups: Cgroups,
    /// What is in the file of cgroup parents.
    cgroup_parents: Mutex<BTreeSet<String>>,
    sandboxes: Mutex<BTreeMap<String, Arc<Sandbox>>>,
    containers: Mutex<BTreeMap<String, Arc<Container>>>,
    events: broadcast::Sender<ContainerEvent>,
}

impl Embedded {
    /// Takes over whatever an earlier process left running. Must be called inside a tokio runtime.
    pub fn open(config: Config) -> Result<Self> {
        let failed = |error: std::io::Error| RuntimeError::Failed { operation: "open the container runtime", message: error.to_string() };
        tokio::runtime::Handle::try_current().map_err(|error| failed(std::io::Error::other(error)))?;
        let layout = Layout::new(&config.root_dir, &config.state_dir).map_err(failed)?;
        // What containers wrote, setuid programs among it, and their environments: nobody but root finds them (CVE-2021-41103).
        files::private_folder(&config.root_dir).map_err(failed)?;
        for dir in [layout.sandboxes(), layout.containers(), layout.socket_dir(), layout.netns_dir(), layout.shm_dir()] {
            std::fs::create_dir_all(dir).map_err(failed)?;
        }
        let cgroup_parents = std::fs::read_to_string(layout.cgroup_parents()).unwrap_or_default().lines().map(str::to_owned).collect();
        let inner = Arc::new(Inner {
            layout,
            shim_exe: config.shim_exe,
            network: config.network,
            cgroups: Cgroups::discover().map_err(failed)?,
            cgroup_parents: Mutex::new(cgroup_parents),
            sandboxes: Mutex::default(),
            containers: Mutex::default(),
            events: broadcast::channel(EVENT_BACKLOG).0,
        });
        adopt::adopt(&inner).map_err(failed)?;
        Ok(Self { inner })
    }
}

impl Inner {
    fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>> {
        self.sandboxes.lock().get(id).cloned().ok_or_else(|| RuntimeError::NotFound { what: "sandbox", id: id.to_owned() })
    }

    fn container(&self, id: &str) -> Result<Arc<Container>> {
        self.containers.lock().get(id).cloned().ok_or_else(|| RuntimeError::NotFound { what: "container", id: id.to_owned() })
    }

    fn containers_of(&self, sandbox_id: &str) -> Vec<Arc<Container>> {
        self.containers.lock().values().filter(|container| container.sandbox_id == sandbox_id).cloned().collect()
    }

    fn emit(&self, sandbox: &Sandbox, container_id: Option<&str>, kind: ContainerEventKind) {
        // Without a receiver nobody wants to know.
        let _ = self.events.send(ContainerEvent {
            sandbox_id: sandbox.id.clone(),
            pod_uid: sandbox.config.metadata.uid.clone(),
            container_id: container_id.map(str::to_owned),
            kind,
        });
    }
}

fn failed(operation: &'static str) -> impl Fn(std::io::Error) -> RuntimeError {
    move |error| RuntimeError::Failed { operation, message: error.to_string() }
}

impl Runtime for Embedded {
    fn version(&self) -> String {
        concat!("coracle://", env!("CARGO_PKG_VERSION")).to_owned()
    }

    fn run_pod_sandbox(&self, config: PodSandboxConfig) -> BoxFuture<'_, Result<String>> {
        Box::pin(self.inner.run_pod_sandbox(config))
    }

    fn stop_pod_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.inner.stop_pod_sandbox(id))
    }

    fn remove_pod_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.inner.remove_pod_sandbox(id))
    }

    fn update_pod_sandbox_resources<'a>(&'a self, id: &'a str, resources: LinuxResources) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let sandbox = self.inner.sandbox(id)?;
            self.inner.cgroups.update(&sandbox.cgroup(), &resources).map_err(failed("update pod sandbox resources"))
        })
    }

    fn pod_sandbox_status<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<PodSandboxStatus>> {
        Box::pin(async move { Ok(self.inner.sandbox(id)?.status(&self.inner.layout)) })
    }

    fn list_pod_sandboxes(&self) -> BoxFuture<'_, Result<Vec<PodSandboxStatus>>> {
        Box::pin(async move { Ok(self.inner.sandboxes.lock().values().map(|sandbox| sandbox.status(&self.inner.layout)).collect()) })
    }

    fn create_container<'a>(&'a self, sandbox_id: &'a str, config: ContainerConfig) -> BoxFuture<'a, Result<String>> {
        Box::pin(self.inner.create_container(sandbox_id, config))
    }

    fn start_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.inner.start_container(id))
    }

    fn stop_container<'a>(&'a self, id: &'a str, timeout_seconds: i64) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.inner.stop_container(id, timeout_seconds))
    }

    fn remove_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.inner.remove_container(id))
    }

    fn container_status<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<ContainerStatus>> {
        Box::pin(async move { self.inner.container_status(&*self.inner.container(id)?) })
    }

    fn list_containers<'a>(&'a self, sandbox_id: Option<&'a str>) -> BoxFuture<'a, Result<Vec<ContainerStatus>>> {
        Box::pin(async move {
            let containers: Vec<Arc<Container>> = match sandbox_id {
                Some(id) => self.inner.containers_of(id),
                None => self.inner.containers.lock().values().cloned().collect(),
            };
            containers.iter().map(|container| self.inner.container_status(container)).collect()
        })
    }

    fn update_container_resources<'a>(&'a self, id: &'a str, resources: LinuxResources) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.inner.update_container_resources(id, resources) })
    }

    fn reopen_container_log<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.inner.reopen_container_log(id))
    }

    fn container_stats<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<ContainerStats>> {
        Box::pin(self.inner.container_stats(id))
    }

    fn exec_sync<'a>(&'a self, id: &'a str, command: Vec<String>, timeout_seconds: u64) -> BoxFuture<'a, Result<ExecSyncResult>> {
        Box::pin(self.inner.exec_sync(id, command, timeout_seconds))
    }

    fn exec<'a>(&'a self, id: &'a str, command: Vec<String>, options: StreamOptions) -> BoxFuture<'a, Result<Streams>> {
        Box::pin(self.inner.exec(id, command, options))
    }

    fn attach<'a>(&'a self, id: &'a str, options: StreamOptions) -> BoxFuture<'a, Result<Streams>> {
        Box::pin(self.inner.attach(id, options))
    }

    fn port_forward<'a>(&'a self, sandbox_id: &'a str, port: u16) -> BoxFuture<'a, Result<std::net::TcpStream>> {
        Box::pin(self.inner.port_forward(sandbox_id, port))
    }

    fn used_by(&self, cgroup: &str) -> Option<CgroupUse> {
        self.inner.cgroups.used(cgroup)
    }

    fn used_layers(&self) -> HashSet<PathBuf> {
        self.inner.containers.lock().values().flat_map(|container| container.config.rootfs.layers.clone()).collect()
    }

    fn events(&self) -> broadcast::Receiver<ContainerEvent> {
        self.inner.events.subscribe()
    }
}
