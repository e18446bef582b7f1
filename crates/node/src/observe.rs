//! Looks at what the runtime has of a pod, and removes what is left of one that is gone.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use api::k8s::api::core::v1::{ContainerUser, LinuxContainerUser};
use sandbox::cri::{ContainerState, ContainerStatus, RuntimeError};

use crate::container::{ANNOTATION_MESSAGE_FILE, ANNOTATION_MESSAGE_POLICY};
use crate::cx::Cx;
use crate::log_line::{Printer, Wanted};
use crate::node::Node;
use crate::pod;
use crate::view::PodRuntime;

/// Upstream's limits of a termination message.
const MESSAGE_MAX: u64 = 4096;
const MESSAGE_FROM_LOG_MAX: u64 = 2048;
const MESSAGE_FROM_LOG_LINES: usize = 80;
/// Dead containers kept per name, for `--previous`.
const DEAD_KEPT: usize = 1;

/// Lists the pod's sandboxes and containers anew.
pub async fn refresh(cx: &Cx) {
    let runtime = &cx.node.runtime;
    let ids = cx.shared.lock().sandbox_ids.clone();
    let mut sandboxes = Vec::new();
    let mut containers = Vec::new();
    for id in &ids {
        match runtime.pod_sandbox_status(id).await {
            Ok(status) => {
                match runtime.list_containers(Some(id)).await {
                    Ok(list) => containers.extend(list),
                    Err(error) => tracing::warn!(sandbox = id, %error, "cannot list containers"),
                }
                sandboxes.push(status);
            }
            Err(RuntimeError::NotFound { .. }) => cx.shared.lock().sandbox_ids.retain(|known| known != id),
            Err(error) => tracing::warn!(sandbox = id, %error, "cannot look at the sandbox"),
        }
    }
    let view = PodRuntime::new(sandboxes, containers);
    for id in remember(cx, view) {
        if let Err(error) = runtime.remove_container(&id).await {
            tracing::debug!(container = id, %error, "cannot collect a dead container");
        }
        cx.shared.lock().runtime.containers.retain(|c| c.id != id);
    }
}

/// Keeps what was seen; returns the dead containers that are one too many.
fn remember(cx: &Cx, view: PodRuntime) -> Vec<String> {
    let mut memory = cx.shared.lock();
    for status in &view.containers {
        match status.state {
            ContainerState::Exited if !memory.messages.contains_key(&status.id) => {
                memory.messages.insert(status.id.clone(), termination_message(status));
                memory.users.remove(&status.id);
                // It ended by itself or was killed: a next instance has its own event.
                memory.killed.remove(&status.id);
            }
            ContainerState::Running if status.pid > 0 && !memory.users.contains_key(&status.id) => {
                if let Some(user) = user_of(status.pid) {
                    memory.users.insert(status.id.clone(), user);
                }
            }
            _ => {}
        }
    }
    let known: std::collections::HashSet<&str> = view.containers.iter().map(|c| c.id.as_str()).collect();
    memory.messages.retain(|id, _| known.contains(id.as_str()));
    memory.users.retain(|id, _| known.contains(id.as_str()));
    memory.probes.by_container_id.retain(|id, _| known.contains(id.as_str()));
    memory.runtime = view;
    surplus(&memory.runtime)
}

/// Dead containers beyond the newest instance and those kept for `--previous`.
fn surplus(view: &PodRuntime) -> Vec<String> {
    let mut seen: std::collections::HashMap<&str, usize> = std::collections::HashMap::new();
    let mut out = Vec::new();
    for status in &view.containers {
        let count = seen.entry(status.metadata.name.as_str()).or_default();
        *count += 1;
        if *count > 1 + DEAD_KEPT && status.state != ContainerState::Running {
            out.push(status.id.clone());
        }
    }
    out
}

fn tail(path: &Path, bytes: u64) -> Option<String> {
    let mut file = fs::File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes))).ok()?;
    let mut text = Vec::new();
    file.take(bytes).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

fn termination_message(status: &ContainerStatus) -> String {
    let from_file = status.annotations.get(ANNOTATION_MESSAGE_FILE).and_then(|path| tail(Path::new(path), MESSAGE_MAX)).unwrap_or_default();
    if !from_file.is_empty() {
        return from_file;
    }
    let fallback = status.annotations.get(ANNOTATION_MESSAGE_POLICY).is_some_and(|p| p == "FallbackToLogsOnError");
    if fallback && status.exit_code != 0 {
        // Each log line has a head of some 40 bytes; twice the size is more than enough to read.
        let text = tail(&status.log_path, 4 * MESSAGE_FROM_LOG_MAX).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(MESSAGE_FROM_LOG_LINES);
        let mut printer = Printer::new(Wanted::default());
        let mut bytes = Vec::new();
        for line in &lines[from..] {
            printer.print(line.as_bytes(), &mut bytes);
        }
        let mut joined = String::from_utf8_lossy(&bytes).into_owned();
        let excess = joined.len().saturating_sub(MESSAGE_FROM_LOG_MAX as usize);
        let cut = (excess..joined.len()).find(|at| joined.is_char_boundary(*at)).unwrap_or(joined.len());
        joined.drain(..cut);
        return joined;
    }
    status.message.clone()
}

/// From `/proc/<pid>/status`.
fn user_of(pid: i32) -> Option<ContainerUser> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let numbers = |name: &str| -> Vec<i64> {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(|rest| rest.split_whitespace().filter_map(|n| n.parse().ok()).collect())
            .unwrap_or_default()
    };
    let groups = numbers("Groups");
    Some(ContainerUser {
        linux: Some(LinuxContainerUser {
            uid: *numbers("Uid").first()?,
            gid: *numbers("Gid").first()?,
            supplemental_groups: (!groups.is_empty()).then_some(groups),
        }),
    })
}

/// After a restart of this process: what the API last said of probes still holds for the containers that run on.
pub async fn adopt_probe_results(cx: &Cx) {
    refresh(cx).await;
    let status = cx.pod.status.clone().unwrap_or_default();
    let mut memory = cx.shared.lock();
    let scheme = cx.node.container_id_scheme();
    for old in status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten()) {
        let Some(id) = old.container_id.as_deref().and_then(|id| id.strip_prefix(scheme)) else { continue };
        if memory.runtime.by_id(id).is_some_and(|c| c.state == ContainerState::Running) {
            let verdicts = memory.probes.by_container_id.entry(id.to_owned()).or_default();
            if old.started == Some(true) {
                verdicts.startup = Some(true);
            }
            if old.ready {
                verdicts.readiness = Some(true);
            }
        }
    }
}

/// Everything the runtime and the disk have of a pod that is gone from the API.
pub async fn remove_pod(cx: &Cx) {
    let ids = cx.shared.lock().sandbox_ids.clone();
    for id in ids {
        remove_sandbox(&cx.node, &id).await;
    }
    remove_files(&cx.node, pod::namespace(&cx.pod), pod::name(&cx.pod), pod::uid(&cx.pod)).await;
}

pub async fn remove_sandbox(node: &Arc<Node>, id: &str) {
    if let Err(error) = node.runtime.stop_pod_sandbox(id).await {
        tracing::warn!(sandbox = id, %error, "cannot stop the sandbox");
    }
    if let Err(error) = node.runtime.remove_pod_sandbox(id).await {
        tracing::warn!(sandbox = id, %error, "cannot remove the sandbox");
    }
}

pub async fn remove_files(node: &Arc<Node>, namespace: &str, name: &str, uid: &str) {
    if uid.is_empty() || uid.contains('/') {
        return;
    }
    node.volumes.tear_down(uid, node.config.pod_dir(uid)).await;
    let folders = [node.config.log_dir.join(pod::log_folder(namespace, name, uid)), node.config.pod_dir(uid)];
    for folder in folders {
        match fs::remove_dir_all(&folder) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(folder = %folder.display(), %error, "cannot remove the folder"),
        }
    }
}

/// What lies here of pods.
pub struct Files {
    uids: Vec<String>,
    /// `<namespace>_<name>_<uid>`; anything else is not ours.
    logs: Vec<String>,
}

/// Folders of pods that were deleted while this process was away: all but those of `known` UIDs. Looked for before any other pod can come, whose folders would not be known.
pub fn orphaned_files(node: &Node, known: &std::collections::HashSet<String>) -> Files {
    let names = |folder: &Path| -> Vec<String> { fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect() };
    let mut files = Files { uids: names(&node.config.root_dir.join("pods")), logs: names(&node.config.log_dir) };
    files.uids.retain(|uid| !known.contains(uid));
    files.logs.retain(|folder| matches!(folder.split('_').collect::<Vec<_>>()[..], [_, _, uid] if !known.contains(uid)));
    files
}

pub async fn remove_orphaned_files(node: &Arc<Node>, files: Files) {
    for uid in files.uids {
        remove_files(node, "", "", &uid).await;
    }
    for folder in files.logs {
        if let Err(error) = fs::remove_dir_all(node.config.log_dir.join(&folder)) {
            tracing::warn!(folder, %error, "cannot remove the log folder");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync_tests::container;

    #[test]
    fn keeps_one_dead_instance_per_name() {
        let view = PodRuntime::new(vec![], vec![container("c", 0, 0, Some(1)), container("c", 1, 0, Some(1)), container("c", 2, 0, Some(1)), container("d", 0, 0, Some(0))]);
        assert_eq!(surplus(&view), ["c0"]);
    }

    #[test]
    fn messages_fall_back_to_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("0.log");
        fs::write(&log, "2026-01-01T00:00:00.000000000Z stdout F one\n2026-01-01T00:00:00.000000000Z stderr P two words\n").unwrap();
        let mut status = container("c", 0, 0, Some(1));
        status.log_path = log;
        assert_eq!(termination_message(&status), "");
        status.annotations.insert(ANNOTATION_MESSAGE_POLICY.into(), "FallbackToLogsOnError".into());
        assert_eq!(termination_message(&status), "one\ntwo words", "its last line had no end");
        let file = folder.path().join("message");
        fs::write(&file, "said").unwrap();
        status.annotations.insert(ANNOTATION_MESSAGE_FILE.into(), file.to_string_lossy().into_owned());
        assert_eq!(termination_message(&status), "said");
    }
}
