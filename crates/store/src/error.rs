//! Why a store does not open, in words that say which file, where in it, and what to do.

use std::io;
use std::path::PathBuf;

use crate::types::Revision;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("the store in {} is in use by another process ({holder}): stop that one first, or choose another data directory", dir.display())]
    Locked { dir: PathBuf, holder: String },
    #[error(
        "{} is damaged at byte {offset}: {what}. Acknowledged writes are affected, so nothing of it is served. \
         Put back a copy of the directory, or set this one aside for rescue and start with an empty one",
        path.display()
    )]
    Corrupt { path: PathBuf, offset: u64, what: String },
    #[error("{} is missing: {what}. Put the file back, or a copy of the whole directory", path.display())]
    Missing { path: PathBuf, what: String },
    #[error("{} was written by a newer version (format {found}, this one reads {known}): use that version", path.display())]
    Newer { path: PathBuf, found: u32, known: u32 },
    #[error(
        "{key} cannot be read from {}: {why}\nhint: the key it was sealed with must be among those of --encryption-provider-config; without it nothing is served",
        path.display()
    )]
    Sealed { path: PathBuf, key: String, why: String },
    #[error("the cluster of {} was moved away at revision {revision}, {to}: start with --etcd-servers, or move it back with `coracle store migrate`", dir.display())]
    Moved { dir: PathBuf, to: String, revision: Revision },
    #[error("{} is not empty: a snapshot is restored into an empty directory only", dir.display())]
    NotEmpty { dir: PathBuf },
}

impl OpenError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    pub(crate) fn corrupt(path: impl Into<PathBuf>, offset: u64, what: impl Into<String>) -> Self {
        Self::Corrupt { path: path.into(), offset, what: what.into() }
    }
}

/// Why one record cannot be read, before it is known where it lies.
pub(crate) enum Unreadable {
    Damaged(&'static str),
    Sealed { key: String, why: String },
}

impl Unreadable {
    pub(crate) fn at(self, path: impl Into<PathBuf>, offset: u64) -> OpenError {
        match self {
            Self::Damaged(what) => OpenError::corrupt(path, offset, what),
            Self::Sealed { key, why } => OpenError::Sealed { path: path.into(), key, why },
        }
    }
}

/// A write that was cut short by a crash before it was acknowledged, and is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    pub path: PathBuf,
    pub offset: u64,
}

/// What opening found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenReport {
    pub revision: Revision,
    pub objects: usize,
    /// The revision of the snapshot that was loaded.
    pub snapshot: Option<Revision>,
    /// Writes replayed from the log after it.
    pub replayed: u64,
    pub torn: Option<TornTail>,
}
