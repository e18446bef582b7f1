//! What the main process knows of a sandbox and of a container.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::link::Link;
use crate::cri::{ContainerConfig, ContainerState, LinuxResources, NamespaceMode, PodSandboxConfig, PodSandboxStatus, SandboxState};
use crate::layout::{Layout, Run, SandboxStatusFile, pod_cgroup};

pub struct Sandbox {
    pub id: String,
    pub created_at: i64,
    pub config: PodSandboxConfig,
    pub status: Mutex<SandboxStatusFile>,
    /// `None` when there is no shim any more.
    pub link: Mutex<Option<Arc<Link>>>,
    pub shim_pid: AtomicI32,
    /// We asked the shim to end, so its end is no accident.
    pub stopping: AtomicBool,
    /// True once the shim has ended.
    pub ended: watch::Sender<bool>,
    /// Stop and remove take their turns.
    pub turn: tokio::sync::Mutex<()>,
}

impl Sandbox {
    pub fn new(id: String, created_at: i64, config: PodSandboxConfig, status: SandboxStatusFile) -> Self {
        Self {
            id,
            created_at,
            config,
            status: Mutex::new(status),
            link: Mutex::new(None),
            shim_pid: AtomicI32::new(0),
            stopping: AtomicBool::new(false),
            ended: watch::Sender::new(false),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    pub fn cgroup(&self) -> String {
        pod_cgroup(&self.config, &self.id)
    }

    pub fn status(&self, layout: &Layout) -> PodSandboxStatus {
        let status = self.status.lock();
        PodSandboxStatus {
            id: self.id.clone(),
            metadata: self.config.metadata.clone(),
            state: if status.ready { SandboxState::Ready } else { SandboxState::NotReady },
            created_at: self.created_at,
            ips: status.ips.clone(),
            network_namespace: (self.config.namespaces.network != NamespaceMode::Node).then(|| layout.netns(&self.id)),
            namespaces: self.config.namespaces.clone(),
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
        }
    }

    pub fn shim_pid(&self) -> i32 {
        self.shim_pid.load(Ordering::Relaxed)
    }
}

pub struct Container {
    pub id: String,
    pub sandbox_id: String,
    pub created_at: i64,
    pub config: ContainerConfig,
    /// As last limited.
    pub resources: Mutex<LinuxResources>,
    /// What the shim last said.
    pub run: watch::Sender<Run>,
    /// A start has been asked for: it happens once.
    pub start_asked: AtomicBool,
}

impl Container {
    pub fn new(id: String, sandbox_id: String, created_at: i64, config: ContainerConfig, run: Run) -> Self {
        let resources = Mutex::new(config.resources.clone());
        let start_asked = AtomicBool::new(run.state != ContainerState::Created);
        Self { id, sandbox_id, created_at, config, resources, run: watch::Sender::new(run), start_asked }
    }

    pub fn state(&self) -> ContainerState {
        self.run.borrow().state
    }

    /// Returns when it has ended.
    pub async fn ended(&self) -> Run {
        let mut run = self.run.subscribe();
        match run.wait_for(|run| run.state == ContainerState::Exited).await {
            Ok(run) => run.clone(),
            Err(_) => self.run.borrow().clone(),
        }
    }
}
