//! Where everything of a lab lies. All of it is below one folder, and in cgroups of one name.
//!
//! `lab.json`, `lock`, `keeper.json` (the process that holds the wires), `mirror.crt` (whose certificate the mirror has), `hub/images` (what its registries have),
//! `relay-<node>.json` (one that slows a link) and
//! `nodes/<node>/{spec.json,init.json,init.log,root,kubernetes,etc,local}`: what the node is told about itself, its process, its disk, and what it changed of the host's `/etc` and `/usr/local`.

use std::path::{Path, PathBuf};

pub const DEFAULT_FOLDER: &str = "/var/lib/coracle-lab";

#[derive(Debug, Clone)]
pub struct Layout {
    pub folder: PathBuf,
}

impl Layout {
    pub fn new(folder: &Path) -> Self {
        Self { folder: std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned()) }
    }

    pub fn record(&self) -> PathBuf {
        self.folder.join("lab.json")
    }

    /// Held by who changes what the lab is made of.
    pub fn lock(&self) -> PathBuf {
        self.folder.join("lock")
    }

    /// What a command that is told to the user must say to mean this lab.
    pub fn flag(&self) -> String {
        match self.folder.to_str() {
            Some(DEFAULT_FOLDER) => String::new(),
            _ => format!(" --data-dir {}", self.folder.display()),
        }
    }

    pub fn keeper(&self) -> PathBuf {
        self.folder.join("keeper.json")
    }

    /// Whom the nodes trust to be the mirror.
    pub fn authority(&self) -> PathBuf {
        self.folder.join("mirror.crt")
    }

    /// The images of the lab's registries: a store as `coracle image --data-dir …/hub` knows it.
    pub fn images(&self) -> PathBuf {
        self.folder.join("hub/images")
    }

    pub fn relay(&self, node: &str) -> PathBuf {
        self.folder.join(format!("relay-{node}.json"))
    }

    pub fn node(&self, node: &str) -> NodeLayout {
        NodeLayout { folder: self.folder.join("nodes").join(node), cgroup: format!("{}/{node}", self.cgroup()) }
    }

    /// Below the hierarchies' roots. Labs in different folders do not meet.
    pub fn cgroup(&self) -> String {
        let name: String = self.folder.to_string_lossy().chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect();
        format!("coracle-lab{name}")
    }
}

#[derive(Debug, Clone)]
pub struct NodeLayout {
    pub folder: PathBuf,
    /// What the node sees as its hierarchies' root.
    pub cgroup: String,
}

/// Where in its cgroup a node's own processes are: beside the pods', since version 2 wants processes only in leaves.
pub const SYSTEM_CGROUP: &str = "system";

impl NodeLayout {
    pub fn init(&self) -> PathBuf {
        self.folder.join("init.json")
    }

    pub fn spec(&self) -> PathBuf {
        self.folder.join("spec.json")
    }

    /// The node's disk. Plain folders: what makes overlays of its own, as containers do, may do so on it.
    pub fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// `upper` and `work` of the overlay over the host's folder.
    pub fn overlay(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub fn system_cgroup(&self) -> String {
        format!("{}/{SYSTEM_CGROUP}", self.cgroup)
    }
}
