//! Where everything of a cluster lies. All of it is below one folder, but for what must be elsewhere (`/run`, `/var/log/pods`).

use std::path::{Path, PathBuf};

#[derive(Debug, Clone)]
pub struct Paths {
    pub data: PathBuf,
}

impl Paths {
    /// The kernel's mount table knows only absolute paths without `..` and links: so must whoever compares with it, and two spellings of one
    /// folder are one cluster. What does not exist yet is added as it is spelt.
    pub fn new(data: &Path) -> Self {
        let absolute = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
        let mut rest = Vec::new();
        let mut existing = absolute.as_path();
        loop {
            if let Ok(mut real) = std::fs::canonicalize(existing) {
                real.extend(rest.iter().rev());
                return Self { data: real };
            }
            let (Some(name), Some(parent)) = (existing.components().next_back(), existing.parent()) else { break };
            rest.push(name.as_os_str().to_owned());
            existing = parent;
        }
        Self { data: absolute }
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

    /// The image of this program itself.
    pub fn own_image(&self) -> PathBuf {
        self.data.join("own-image")
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

    /// There when `kubeadm` made what runs here.
    pub fn kubeadm_mark(&self) -> PathBuf {
        self.data.join("kubeadm.json")
    }

    pub fn pod_logs(&self) -> PathBuf {
        PathBuf::from("/var/log/pods")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_folder_has_one_name() {
        let folder = std::env::temp_dir().canonicalize().unwrap().join(format!("coracle-paths-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("a")).unwrap();
        std::os::unix::fs::symlink(folder.join("a"), folder.join("link")).unwrap();
        for (spelt, name) in [("a", "a"), ("link", "a"), ("a/../a/new", "a/new"), ("link/new/er", "a/new/er"), ("new", "new")] {
            assert_eq!(Paths::new(&folder.join(spelt)).data, folder.join(name), "{spelt}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
