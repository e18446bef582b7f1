//! What can go wrong with a lab, each with what to do about it.

use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum LabError {
    #[error("a lab makes namespaces, mounts and cgroups and needs root\nhint: sudo coracle lab …")]
    NotRoot,
    #[error("there is already a lab in {}, of {nodes} nodes\nhint: `coracle lab status` shows it, `coracle lab down` takes it away; a second one needs a --data-dir of its own", folder.display())]
    Exists { folder: PathBuf, nodes: usize },
    #[error("{} is there already and is no lab's\nhint: choose another --data-dir", folder.display())]
    NotOurs { folder: PathBuf },
    #[error("there is no lab in {}\nhint: `coracle lab up` makes one", folder.display())]
    None { folder: PathBuf },
    #[error("there is no node {name:?} in this lab\nhint: it has {known}")]
    UnknownNode { name: String, known: String },
    #[error("{name} is switched off\nhint: `coracle lab start {name}` switches it on")]
    Off { name: String },
    #[error("{name} already runs")]
    On { name: String },
    #[error("the addresses {subnet} are taken: {by}\nhint: choose others with --subnet, as --subnet 192.168.77.0/24")]
    Taken { subnet: String, by: String },
    #[error("{0}")]
    Invalid(String),
    #[error("{node} did not start: {message}")]
    Start { node: String, message: String },
    #[error("`{command}` on {node} ended with {code}\nhint: `coracle lab shell {node}` goes and looks; `coracle lab down` takes the lab away")]
    Command { node: String, command: String, code: i32 },
    #[error("cannot {what}: {source}")]
    Io { what: String, source: io::Error },
    #[error(transparent)]
    Network(#[from] network::NetlinkError),
}

pub type Result<T, E = LabError> = std::result::Result<T, E>;

/// For `map_err`.
pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> LabError {
    move |source| LabError::Io { what: what.into(), source }
}

/// As `io`, for nix.
pub fn errno(what: impl Into<String>) -> impl FnOnce(nix::errno::Errno) -> LabError {
    move |source| LabError::Io { what: what.into(), source: source.into() }
}
