//! Where everything lies on disk. All host footprint is below two directories (and the cgroups of the pods), so that `reset` can
//! find every trace.
//!
//! `root_dir` survives a reboot: `cgroup-parents`, `sandboxes/<id>/{config.json,status.json,hostname,resolv.conf,shim.log}` and
//! `containers/<id>/{config.json,run.json,rootfs,upper,work}`.
//! `state_dir` need not: `shim/<id>.sock`, `netns/<id>`, `shm/<id>`.

use std::io;
use std::path::{Path, PathBuf};

use basics::files;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cri::{ContainerConfig, ContainerState, PodSandboxConfig};

#[derive(Debug, Clone)]
pub struct Layout {
    pub root_dir: PathBuf,
    pub state_dir: PathBuf,
}

/// `sandboxes/<id>/config.json`: written once, before the shim is started.
#[derive(Debug, Serialize, Deserialize)]
pub struct SandboxFile {
    pub created_at: i64,
    pub config: PodSandboxConfig,
}

/// `sandboxes/<id>/status.json`: what came to be after that.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SandboxStatusFile {
    pub ready: bool,
    pub ips: Vec<std::net::IpAddr>,
}

/// `containers/<id>/config.json`: written once, when the container is created.
#[derive(Debug, Serialize, Deserialize)]
pub struct ContainerFile {
    pub sandbox_id: String,
    pub created_at: i64,
    pub config: ContainerConfig,
}

/// `containers/<id>/run.json`: written by the shim at each change.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    pub state: ContainerState,
    pub pid: i32,
    pub started_at: i64,
    pub finished_at: i64,
    pub exit_code: i32,
    pub reason: String,
    pub message: String,
}

impl Default for Run {
    fn default() -> Self {
        Self { state: ContainerState::Created, pid: 0, started_at: 0, finished_at: 0, exit_code: 0, reason: String::new(), message: String::new() }
    }
}

impl Layout {
    /// Relative directories are taken from where we are now: a shim is elsewhere.
    pub fn new(root_dir: &Path, state_dir: &Path) -> io::Result<Self> {
        Ok(Self { root_dir: std::path::absolute(root_dir)?, state_dir: std::path::absolute(state_dir)? })
    }

    pub fn sandboxes(&self) -> PathBuf {
        self.root_dir.join("sandboxes")
    }
    pub fn sandbox(&self, id: &str) -> PathBuf {
        self.sandboxes().join(id)
    }
    pub fn sandbox_config(&self, id: &str) -> PathBuf {
        self.sandbox(id).join("config.json")
    }
    pub fn sandbox_status(&self, id: &str) -> PathBuf {
        self.sandbox(id).join("status.json")
    }
    pub fn hostname(&self, id: &str) -> PathBuf {
        self.sandbox(id).join("hostname")
    }
    pub fn resolv_conf(&self, id: &str) -> PathBuf {
        self.sandbox(id).join("resolv.conf")
    }
    /// The parents of all pod cgroups there ever were, a line each: they are left standing until `reset`.
    pub fn cgroup_parents(&self) -> PathBuf {
        self.root_dir.join("cgroup-parents")
    }
    pub fn containers(&self) -> PathBuf {
        self.root_dir.join("containers")
    }
    pub fn container(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }
    pub fn container_config(&self, id: &str) -> PathBuf {
        self.container(id).join("config.json")
    }
    pub fn run(&self, id: &str) -> PathBuf {
        self.container(id).join("run.json")
    }
    pub fn rootfs(&self, id: &str) -> PathBuf {
        self.container(id).join("rootfs")
    }
    pub fn upper(&self, id: &str) -> PathBuf {
        self.container(id).join("upper")
    }
    pub fn work(&self, id: &str) -> PathBuf {
        self.container(id).join("work")
    }
    pub fn socket_dir(&self) -> PathBuf {
        self.state_dir.join("shim")
    }
    pub fn socket(&self, id: &str) -> PathBuf {
        self.socket_dir().join(socket_name(id))
    }
    pub fn netns_dir(&self) -> PathBuf {
        self.state_dir.join("netns")
    }
    pub fn netns(&self, id: &str) -> PathBuf {
        self.netns_dir().join(id)
    }
    pub fn shm_dir(&self) -> PathBuf {
        self.state_dir.join("shm")
    }
    pub fn shm(&self, id: &str) -> PathBuf {
        self.shm_dir().join(id)
    }
}

pub fn socket_name(id: &str) -> String {
    format!("{id}.sock")
}

/// The pod's cgroup below the hierarchy root, without leading slash. Pods with no parent named get one under `coracle`.
pub fn pod_cgroup(config: &PodSandboxConfig, id: &str) -> String {
    match config.cgroup_parent.trim_matches('/') {
        "" => format!("coracle/{id}"),
        parent => parent.to_owned(),
    }
}

pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let bytes = std::fs::read(path)?;
    serde_json::from_slice(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display())))
}

/// Whole or not at all, as a reader sees it. Not synced: after a crash of the machine no container runs, and what is missing reads as unknown.
/// Nobody else reads it: a container's environment has secrets in it.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    files::replace(path, &serde_json::to_vec(value)?, files::OWNER_ONLY)
}

/// The names in a directory; none when it is missing.
pub fn names(dir: &Path) -> io::Result<Vec<String>> {
    match std::fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
