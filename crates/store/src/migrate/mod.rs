//! Moving a cluster between its data folder and an etcd, with no API server on either.
//!
//! A move can be killed at any moment and run again. What it leaves behind is closed: the side that was left says so and is not served from any more,
//! and so does one into which a move is not finished. Revisions never go back: an etcd is written to until its counter is past the cluster's, and a
//! folder takes over etcd's. Clients list again: the past does not move along.

mod marker;
mod to_embedded;
mod to_etcd;

use std::path::PathBuf;

use crate::error::OpenError;
use crate::remote::RemoteError;
use crate::types::Revision;

pub use marker::{check, moved_away};
pub use to_embedded::to_embedded;
pub use to_etcd::to_etcd;

/// What a move did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    pub objects: u64,
    /// The newest revision where the cluster is now.
    pub revision: Revision,
    /// Of them were there already, from a move that was cut short.
    pub resumed: u64,
}

/// How far it is, for who watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Etcd's counter on its way to the cluster's.
    Counting { at: Revision, to: Revision },
    Copying { done: u64, of: u64 },
    Verifying,
}

#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error("etcd: {0}")]
    Etcd(#[from] etcd::Error),
    #[error("there are {objects} keys in etcd below {prefix} already: a cluster is moved into an empty place only, unless --replace throws away what is there")]
    NotEmpty { prefix: String, objects: u64 },
    #[error("there is a cluster in {} already: a cluster is moved into an empty place only, unless --replace throws it away", dir.display())]
    FolderNotEmpty { dir: PathBuf },
    #[error("the cluster of {} was moved away already, {to}", dir.display())]
    MovedAlready { dir: PathBuf, to: String },
    #[error("there is no cluster in {}", dir.display())]
    Nothing { dir: PathBuf },
    #[error("something writes to this etcd: stop every API server that uses it, then run this again")]
    Busy,
    #[error("what was there before stood at revision {there}, what is moved stands at {here}: revisions would go back")]
    Backwards { here: Revision, there: Revision },
    #[error("what arrived is not what was sent: {0}. Nothing was switched over; run this again")]
    Different(String),
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
}

impl MoveError {
    fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
