//! Rotates container logs (at 10 MiB, keeping five files, unless configured otherwise), as upstream's container log manager.
//!
//! A full log is renamed to `<log>.<time>`, the runtime reopens its file, the one before is compressed by nobody: space is bounded by count.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use sandbox::cri::ContainerState;

use crate::duration;
use crate::node::Node;

/// Upstream's defaults of `containerLogMaxSize` and `containerLogMaxFiles`, for logs that are not containers'.
pub const MAX_SIZE: u64 = 10 << 20;
pub const MAX_FILES: usize = 5;
pub async fn keep(node: Arc<Node>) {
    let settings = &node.config.settings;
    loop {
        // Sizes cannot be waited for without reading every write.
        tokio::time::sleep(duration::std(settings.log_monitor_interval)).await;
        for cx in node.all() {
            let logs: Vec<(String, PathBuf)> = cx.shared.lock().runtime.containers.iter().filter(|c| c.state == ContainerState::Running).map(|c| (c.id.clone(), c.log_path.clone())).collect();
            for (id, path) in logs {
                if let Err(error) = look_at(&node, &id, &path).await {
                    tracing::warn!(log = %path.display(), error, "cannot rotate the log");
                }
            }
        }
    }
}

async fn look_at(node: &Node, id: &str, path: &Path) -> Result<(), String> {
    match fs::metadata(path) {
        Ok(found) if found.len() >= node.config.settings.log_max_bytes => rotate(node, id, path).await,
        // Whoever set it aside was killed before the runtime knew: it writes to a file that nobody reads, and nobody would rotate.
        Err(error) if error.kind() == io::ErrorKind::NotFound => node.runtime.reopen_container_log(id).await.map_err(|error| error.to_string()),
        _ => Ok(()),
    }
}

async fn rotate(node: &Node, id: &str, path: &Path) -> Result<(), String> {
    let aside = set_aside(path, node.now()).map_err(|e| e.to_string())?;
    if let Err(error) = node.runtime.reopen_container_log(id).await {
        // Back, or the container's output would go to a file nobody finds.
        fs::rename(&aside, path).map_err(|e| e.to_string())?;
        return Err(error.to_string());
    }
    prune_to(path, node.config.settings.log_max_files).map_err(|e| e.to_string())
}

/// Renames a full log to `<log>.<time>`.
pub fn set_aside(path: &Path, now: Timestamp) -> io::Result<PathBuf> {
    let aside = path.with_file_name(format!("{}.{}", file_name(path), now.strftime("%Y%m%d-%H%M%S")));
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// Removes the oldest of what was set aside, if it is too much.
pub fn prune(path: &Path) -> io::Result<()> {
    prune_to(path, MAX_FILES)
}

/// The living log is one of them.
fn prune_to(path: &Path, files: usize) -> io::Result<()> {
    surplus(path, &file_name(path), files).into_iter().try_for_each(fs::remove_file)
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The oldest rotated files beyond the limit.
fn surplus(path: &Path, name: &str, files: usize) -> Vec<PathBuf> {
    let prefix = format!("{name}.");
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut rotated: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().filter(|e| e.file_name().to_string_lossy().starts_with(&prefix)).map(|e| e.path()).collect();
    rotated.sort();
    let keep = files.saturating_sub(1);
    rotated.truncate(rotated.len().saturating_sub(keep));
    rotated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_five() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["0.log", "0.log.20260101-000001", "0.log.20260101-000002", "0.log.20260101-000003", "0.log.20260101-000004", "0.log.20260101-000005", "1.log"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(surplus(&folder.path().join("0.log"), "0.log", MAX_FILES), [folder.path().join("0.log.20260101-000001")]);
    }
}
