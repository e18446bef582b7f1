//! Where everything of a cluster lies. All of it is below one folder, but for what must be elsewhere (`/run`, `/var/log/pods`).

use std::path::{Path, PathBuf};

#[derive(Debug, Clone)]
pub struct Paths {
    pub data: PathBuf,
}

impl Paths {
    pub fn new(data: &Path) -> Self {
        Self { data: data.to_owned() }
    }

    pub fn pki(&self) -> PathBuf {
        self.data.join("pki")
    }

    pub fn store(&self) -> PathBuf {
        self.data.join("store")
    }

    pub fn images(&self) -> PathBuf {
        self.data.join("images")
    }

    pub fn containers(&self) -> PathBuf {
        self.data.join("containers")
    }

    pub fn kubelet(&self) -> PathBuf {
        self.data.join("kubelet")
    }

    pub fn network(&self) -> PathBuf {
        self.data.join("network")
    }

    /// Sockets, namespaces, the process id: gone after a reboot. One folder for each data folder, so that clusters do not meet.
    pub fn run(&self) -> PathBuf {
        if self.data == Path::new("/var/lib/coracle") {
            return PathBuf::from("/run/coracle");
        }
        let name: String = self.data.to_string_lossy().chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect();
        PathBuf::from(format!("/run/coracle{name}"))
    }

    pub fn pid_file(&self) -> PathBuf {
        self.run().join("coracle.pid")
    }

    pub fn log_file(&self) -> PathBuf {
        self.data.join("coracle.log")
    }

    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.data.join("admin.conf")
    }

    pub fn pod_logs(&self) -> PathBuf {
        PathBuf::from("/var/log/pods")
    }
}
