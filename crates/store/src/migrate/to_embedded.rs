//! From etcd back into the folder: a snapshot of it, made beside and put into place when it is whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use etcd::{Client, Range};
use tokio::time::Instant;

use super::marker::{self, Marker};
use super::{MoveError, Moved, Step};
use crate::log::sync_dir;
use crate::recover;
use crate::remote::{Keys, RemoteConfig, RemoteError, load};
use crate::snapshot::{self, SnapshotHead, snapshot_name};

const PATIENCE: Duration = Duration::from_secs(60);

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

fn beside(dir: &Path, what: &str) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(what);
    name.into()
}

/// In one step where the file system can: were we killed with neither in place, a server would begin an empty cluster there.
fn put_into_place(dir: &Path, incoming: &Path, outgoing: &Path) -> Result<(), MoveError> {
    if dir.exists() {
        if rustix::fs::renameat_with(rustix::fs::CWD, incoming, rustix::fs::CWD, dir, rustix::fs::RenameFlags::EXCHANGE).is_ok() {
            return Ok(());
        }
        fs::rename(dir, outgoing).map_err(MoveError::io("set aside", dir))?;
    }
    fs::rename(incoming, dir).map_err(MoveError::io("put into place", dir))
}

/// `replace`: a cluster that is in the folder goes. One that was moved away goes in any case: it is the older copy.
pub async fn to_embedded(config: &RemoteConfig, dir: &Path, replace: bool, tell: impl Fn(Step)) -> Result<Moved, MoveError> {
    let client = Client::new(config.client.clone())?;
    let keys = Keys::new(&config.root, &config.prefix);
    let marker = marker::read(&client, &keys, soon()).await?;
    if matches!(marker, Some(Marker::Arriving { .. })) {
        return Err(RemoteError::Unfinished { prefix: keys.prefix().to_owned() }.into());
    }
    let old = marker::moved_away(dir);
    let empty = fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none());
    match (&marker, &old) {
        (Some(Marker::Left { revision }), None) if !empty => {
            return Err(RemoteError::Moved { prefix: keys.prefix().to_owned(), revision: *revision }.into());
        }
        (_, None) if !empty && !replace => return Err(MoveError::FolderNotEmpty { dir: dir.into() }),
        _ => {}
    }
    // Whoever serves the old one must have stopped.
    let _lock = if empty { None } else { Some(recover::lock(dir)?) };
    let state = load(&client, &keys, &config.sealing, soon()).await?.state;
    let (revision, objects) = (state.revision(), state.all());
    if let Some((_, there)) = old
        && there > revision
    {
        return Err(MoveError::Backwards { here: revision, there });
    }
    tell(Step::Copying { done: 0, of: objects.len() as u64 });
    let incoming = beside(dir, ".incoming");
    if incoming.exists() {
        fs::remove_dir_all(&incoming).map_err(MoveError::io("remove", &incoming))?;
    }
    recover::make_dir(&incoming)?;
    let path = incoming.join(snapshot_name(revision));
    snapshot::write(&path, SnapshotHead { revision, boundary: 1 }, &objects, &config.sealing, &None).map_err(MoveError::io("write", &path))?;
    tell(Step::Verifying);
    let (_, arrived, _) = snapshot::read(&path, Some(&config.sealing))?;
    let arrived = arrived.all();
    let same = arrived.len() == objects.len() && arrived.iter().zip(&objects).all(|(a, b)| a.0 == b.0 && a.1.bytes() == b.1.bytes());
    if !same {
        return Err(MoveError::Different(format!("{} objects were sent, {} are there", objects.len(), arrived.len())));
    }
    // Etcd's own counter, whoever wrote: ours would have been the only ones.
    let now = client.range(&Range { key: keys.migration(), count_only: true, ..Range::default() }, soon()).await?.header.revision;
    if now != revision {
        return Err(MoveError::Busy);
    }
    if !matches!(marker, Some(Marker::Left { .. })) {
        marker::write(&client, &keys, Some(&Marker::Left { revision }), soon()).await?;
    }
    let outgoing = beside(dir, ".outgoing");
    if outgoing.exists() {
        fs::remove_dir_all(&outgoing).map_err(MoveError::io("remove", &outgoing))?;
    }
    put_into_place(dir, &incoming, &outgoing)?;
    let above = dir.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync_dir(above).map_err(MoveError::io("sync", above))?;
    // What was there before is in one of them.
    for old in [&outgoing, &incoming] {
        if old.exists() {
            fs::remove_dir_all(old).map_err(MoveError::io("remove", old))?;
        }
    }
    Ok(Moved { objects: objects.len() as u64, revision, resumed: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_there_at_any_moment() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, incoming, outgoing) = (folder.path().join("store"), folder.path().join("store.incoming"), folder.path().join("store.outgoing"));
        let make = |path: &Path, text: &str| fs::create_dir(path).and_then(|()| fs::write(path.join("what"), text)).unwrap();
        let what = |path: &Path| fs::read_to_string(path.join("what")).ok();
        make(&incoming, "first");
        put_into_place(&dir, &incoming, &outgoing).unwrap();
        assert_eq!((what(&dir).as_deref(), incoming.exists()), (Some("first"), false));
        make(&incoming, "second");
        put_into_place(&dir, &incoming, &outgoing).unwrap();
        assert_eq!(what(&dir).as_deref(), Some("second"));
        // Exchanged, not set aside first; or, where that cannot be, set aside.
        assert_eq!(what(&incoming).or(what(&outgoing)).as_deref(), Some("first"));
    }
}
