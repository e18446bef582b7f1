//! What is written down about a move: a key in etcd, a file in the folder.

use std::io::Write;
use std::path::Path;

use etcd::{Client, Operation, Range, Transaction};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::MoveError;
use crate::log::sync_dir;
use crate::remote::{Keys, RemoteError};
use crate::types::Revision;

const FILE: &str = "moved-away";

/// In etcd, as long as it is not a cluster's only home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Marker {
    /// A cluster is on its way into here: of that many objects, at that revision.
    Arriving { revision: Revision, objects: u64 },
    /// The cluster went from here, at this revision.
    Left { revision: Revision },
}

pub async fn read(client: &Client, keys: &Keys, deadline: Instant) -> Result<Option<Marker>, etcd::Error> {
    let found = client.range(&Range { key: keys.migration(), ..Range::default() }, deadline).await?;
    match found.items.first() {
        // One that we cannot read is from someone who knew more: best not touched.
        Some(item) => serde_json::from_slice(&item.value).map(Some).map_err(|_| etcd::Error::Malformed),
        None => Ok(None),
    }
}

/// The same again does no harm, so it is simply tried until it is done.
pub async fn write(client: &Client, keys: &Keys, marker: Option<&Marker>, deadline: Instant) -> Result<(), etcd::Error> {
    let operation = match marker {
        Some(marker) => Operation::Put { key: keys.migration(), value: serde_json::to_vec(marker).map_err(|_| etcd::Error::Malformed)?.into(), lease: 0 },
        None => Operation::Delete { key: keys.migration(), end: Vec::new() },
    };
    repeat(client, &Transaction { success: vec![operation], ..Transaction::default() }, deadline).await.map(drop)
}

/// A transaction that may be carried out twice. Returns etcd's revision after it.
pub async fn repeat(client: &Client, transaction: &Transaction, deadline: Instant) -> Result<Revision, etcd::Error> {
    loop {
        match client.transaction(transaction).await {
            Ok(answer) => return Ok(answer.header.revision),
            Err(error) if error.is_passing() && Instant::now() < deadline => tokio::time::sleep(crate::remote::FIRST_PAUSE).await,
            Err(error) => return Err(error),
        }
    }
}

/// Whether this etcd may be served from.
pub async fn check(client: &Client, keys: &Keys, deadline: Instant) -> Result<(), RemoteError> {
    match read(client, keys, deadline).await? {
        None => Ok(()),
        Some(Marker::Arriving { .. }) => Err(RemoteError::Unfinished { prefix: keys.prefix().to_owned() }),
        Some(Marker::Left { revision }) => Err(RemoteError::Moved { prefix: keys.prefix().to_owned(), revision }),
    }
}

/// Where the cluster of a store's folder went, and at which revision, if it did.
pub fn moved_away(dir: &Path) -> Option<(String, Revision)> {
    let text = std::fs::read_to_string(dir.join(FILE)).ok()?;
    let (revision, to) = text.trim_end().split_once(' ').unwrap_or((text.trim_end(), ""));
    // Whatever it says, it is there.
    Some((to.to_owned(), revision.parse().unwrap_or(0)))
}

/// Durable when it returns.
pub fn leave(dir: &Path, to: &str, revision: Revision) -> Result<(), MoveError> {
    let (path, beside) = (dir.join(FILE), dir.join(format!("{FILE}.tmp")));
    let write = || {
        let mut file = std::fs::File::create(&beside)?;
        writeln!(file, "{revision} {to}")?;
        file.sync_all()?;
        std::fs::rename(&beside, &path)?;
        sync_dir(dir)
    };
    write().map_err(MoveError::io("write", &path))
}
