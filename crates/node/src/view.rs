//! What the runtime and the probes know of one pod: the input of every decision about it.

use std::collections::HashMap;

use sandbox::cri::{ContainerState, ContainerStatus, PodSandboxStatus, SandboxState};

/// The pod's sandboxes and containers as the runtime listed them, newest first.
#[derive(Debug, Clone, Default)]
pub struct PodRuntime {
    pub sandboxes: Vec<PodSandboxStatus>,
    pub containers: Vec<ContainerStatus>,
}

impl PodRuntime {
    pub fn new(mut sandboxes: Vec<PodSandboxStatus>, mut containers: Vec<ContainerStatus>) -> Self {
        sandboxes.sort_by_key(|s| std::cmp::Reverse((s.metadata.attempt, s.created_at)));
        containers.sort_by_key(|c| std::cmp::Reverse((c.created_at, c.metadata.attempt)));
        Self { sandboxes, containers }
    }

    /// The sandbox that holds the pod now: the newest, if it lives.
    pub fn sandbox(&self) -> Option<&PodSandboxStatus> {
        self.sandboxes.first().filter(|s| s.state == SandboxState::Ready)
    }

    /// The newest container of that name, in whatever sandbox.
    pub fn latest(&self, name: &str) -> Option<&ContainerStatus> {
        self.containers.iter().find(|c| c.metadata.name == name)
    }

    /// The newest container of that name in the living sandbox.
    pub fn current(&self, name: &str) -> Option<&ContainerStatus> {
        let sandbox = self.sandbox()?;
        self.latest(name).filter(|c| c.sandbox_id == sandbox.id)
    }

    /// The one before the newest.
    pub fn previous(&self, name: &str) -> Option<&ContainerStatus> {
        self.containers.iter().filter(|c| c.metadata.name == name).nth(1)
    }

    pub fn by_id(&self, id: &str) -> Option<&ContainerStatus> {
        self.containers.iter().find(|c| c.id == id)
    }

    pub fn running(&self) -> impl Iterator<Item = &ContainerStatus> {
        self.containers.iter().filter(|c| c.state == ContainerState::Running)
    }
}

/// Latest verdicts of a container's probes; `None` before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verdicts {
    pub startup: Option<bool>,
    pub liveness: Option<bool>,
    pub readiness: Option<bool>,
}

/// Verdicts by container ID: a restarted container starts with none.
#[derive(Debug, Clone, Default)]
pub struct ProbeResults {
    pub by_container_id: HashMap<String, Verdicts>,
}

impl ProbeResults {
    pub fn of(&self, container_id: &str) -> Verdicts {
        self.by_container_id.get(container_id).copied().unwrap_or_default()
    }
}
