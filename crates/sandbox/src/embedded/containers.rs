//! Containers: created here on disk, started and signalled by the shim, removed here.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::link::Link;
use super::records::{Container, Sandbox};
use super::{Inner, failed};
use crate::cri::{ContainerConfig, ContainerEventKind, ContainerState, ContainerStats, ContainerStatus, LinuxResources, Result, RuntimeError};
use crate::layout::{ContainerFile, Run, write_json};
use crate::protocol::Request;
use crate::{sys, usage};

impl Inner {
    pub fn link_of(&self, container: &Container) -> Result<Arc<Link>> {
        self.link(&*self.sandbox(&container.sandbox_id)?)
    }

    pub fn link(&self, sandbox: &Sandbox) -> Result<Arc<Link>> {
        sandbox.link.lock().clone().ok_or_else(|| RuntimeError::Failed { operation: "reach the sandbox", message: format!("sandbox {:?} is not ready", sandbox.id) })
    }

    fn container_cgroup(&self, container: &Container) -> Result<String> {
        Ok(format!("{}/{}", self.sandbox(&container.sandbox_id)?.cgroup(), container.id))
    }

    pub async fn create_container(self: &Arc<Self>, sandbox_id: &str, config: ContainerConfig) -> Result<String> {
        let sandbox = self.sandbox(sandbox_id)?;
        self.link(&sandbox)?;
        if config.args.is_empty() {
            return Err(RuntimeError::InvalidArgument("no command specified".to_owned()));
        }
        if let Some(target) = &config.pid_of {
            self.check_target(sandbox_id, target)?;
        }
        let operation = "create container";
        let id = sys::random_id().map_err(failed(operation))?;
        let created_at = sys::now_ns();
        let file = ContainerFile { sandbox_id: sandbox_id.to_owned(), created_at, config };
        let make = || -> io::Result<()> {
            for dir in [self.layout.container(&id), self.layout.rootfs(&id), self.layout.upper(&id), self.layout.work(&id)] {
                std::fs::create_dir(dir)?;
            }
            // The upper directory becomes `/`, which everyone may enter whatever our umask is.
            std::fs::set_permissions(self.layout.upper(&id), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
            write_json(&self.layout.container_config(&id), &file)
        };
        if let Err(error) = make() {
            let _ = std::fs::remove_dir_all(self.layout.container(&id));
            return Err(failed(operation)(error));
        }
        let container = Arc::new(Container::new(id.clone(), file.sandbox_id, created_at, file.config, Run::default()));
        self.containers.lock().insert(id.clone(), container);
        self.emit(&sandbox, Some(&id), ContainerEventKind::Created);
        Ok(id)
    }

    /// A container can see the processes of one that runs in the same pod. In containerd's words.
    fn check_target(&self, sandbox_id: &str, target: &str) -> Result<()> {
        let invalid = |why: String| Err(RuntimeError::InvalidArgument(format!("invalid target container: {why}")));
        let Ok(container) = self.container(target) else { return invalid(format!("container {target:?} not found")) };
        if container.sandbox_id != sandbox_id {
            return invalid(format!("container {target} (sandbox {}) does not belong to sandbox {sandbox_id}", container.sandbox_id));
        }
        match container.state() {
            ContainerState::Running => Ok(()),
            state => invalid(format!("container {target} is not running - in state CONTAINER_{}", format!("{state:?}").to_uppercase())),
        }
    }

    pub async fn start_container(self: &Arc<Self>, id: &str) -> Result<()> {
        let container = self.container(id)?;
        let link = self.link_of(&container)?;
        if container.start_asked.swap(true, Ordering::AcqRel) {
            return Err(RuntimeError::Failed { operation: "start container", message: format!("container {id:?} is in state {:?}, not created", container.state()) });
        }
        match link.ask("start container", Request::Start { container: id.to_owned() }, &[]).await {
            Ok(_) => Ok(()),
            Err(error) => {
                // The shim has recorded a failed start; where it could not even be asked, that is done here.
                if container.state() == ContainerState::Created {
                    let run = Run {
                        state: ContainerState::Exited,
                        finished_at: sys::now_ns(),
                        exit_code: 128,
                        reason: "StartError".to_owned(),
                        message: error.to_string(),
                        ..Run::default()
                    };
                    if let Err(error) = write_json(&self.layout.run(id), &run) {
                        tracing::warn!(container = id, %error, "cannot record the state of a container");
                    }
                    self.learned(&*self.sandbox(&container.sandbox_id)?, id, run);
                }
                Err(error)
            }
        }
    }

    pub async fn stop_container(self: &Arc<Self>, id: &str, timeout_seconds: i64) -> Result<()> {
        let Ok(container) = self.container(id) else { return Ok(()) };
        if container.state() != ContainerState::Running {
            return Ok(());
        }
        if let Ok(grace) = u64::try_from(timeout_seconds)
            && grace > 0
        {
            let signal = signal_number(&container.config.stop_signal);
            let link = self.link_of(&container)?;
            // When the shim is gone meanwhile, so is the container: the wait tells.
            let _ = link.ask("stop container", Request::Signal { container: id.to_owned(), signal }, &[]).await;
            if tokio::time::timeout(Duration::from_secs(grace), container.ended()).await.is_ok() {
                return Ok(());
            }
        }
        self.kill_container(&container).await;
        Ok(())
    }

    /// SIGKILL, and waits for the end.
    pub async fn kill_container(&self, container: &Container) {
        if container.state() != ContainerState::Running {
            return;
        }
        if let Ok(link) = self.link_of(container) {
            let _ = link.ask("kill container", Request::Signal { container: container.id.clone(), signal: libc::SIGKILL }, &[]).await;
        }
        container.ended().await;
    }

    pub async fn remove_container(self: &Arc<Self>, id: &str) -> Result<()> {
        let Ok(container) = self.container(id) else { return Ok(()) };
        self.kill_container(&container).await;
        let sandbox = self.sandbox(&container.sandbox_id)?;
        let link = sandbox.link.lock().clone();
        if let Some(link) = link {
            let _ = link.ask("remove container", Request::Forget { container: id.to_owned() }, &[]).await;
        }
        let cgroup = self.container_cgroup(&container)?;
        let (inner, directory) = (self.clone(), self.layout.container(id));
        tokio::task::spawn_blocking(move || {
            inner.cgroups.kill(&cgroup);
            // What keeps it busy even so goes with the pod's cgroup at the latest.
            let _ = inner.cgroups.remove(&cgroup);
            match std::fs::remove_dir_all(directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        })
        .await
        .map_err(|error| failed("remove container")(io::Error::other(error)))?
        .map_err(failed("remove container"))?;
        if self.containers.lock().remove(id).is_some() {
            self.emit(&sandbox, Some(id), ContainerEventKind::Deleted);
        }
        Ok(())
    }

    pub fn container_status(&self, container: &Container) -> Result<ContainerStatus> {
        let sandbox = self.sandbox(&container.sandbox_id)?;
        let run = container.run.borrow().clone();
        Ok(ContainerStatus {
            id: container.id.clone(),
            sandbox_id: container.sandbox_id.clone(),
            metadata: container.config.metadata.clone(),
            state: run.state,
            created_at: container.created_at,
            started_at: run.started_at,
            finished_at: run.finished_at,
            exit_code: run.exit_code,
            reason: run.reason,
            message: run.message,
            image: container.config.image.clone(),
            image_id: container.config.image_id.clone(),
            labels: container.config.labels.clone(),
            annotations: container.config.annotations.clone(),
            log_path: sandbox.config.log_directory.join(&container.config.log_path),
            pid: run.pid,
            resources: container.resources.lock().clone(),
        })
    }

    pub fn update_container_resources(&self, id: &str, resources: LinuxResources) -> Result<()> {
        let container = self.container(id)?;
        let operation = "update container resources";
        if container.state() == ContainerState::Running {
            self.cgroups.update(&self.container_cgroup(&container)?, &resources).map_err(failed(operation))?;
        }
        let merged = merge(&container.resources.lock(), resources);
        let mut config = container.config.clone();
        config.resources = merged.clone();
        let file = ContainerFile { sandbox_id: container.sandbox_id.clone(), created_at: container.created_at, config };
        write_json(&self.layout.container_config(id), &file).map_err(failed(operation))?;
        *container.resources.lock() = merged;
        Ok(())
    }

    pub async fn reopen_container_log(&self, id: &str) -> Result<()> {
        let container = self.container(id)?;
        self.link_of(&container)?.ask("reopen container log", Request::ReopenLog { container: id.to_owned() }, &[]).await.map(drop)
    }

    pub async fn container_stats(self: &Arc<Self>, id: &str) -> Result<ContainerStats> {
        let container = self.container(id)?;
        let cgroup = self.container_cgroup(&container)?;
        let (inner, id) = (self.clone(), id.to_owned());
        tokio::task::spawn_blocking(move || {
            let usage = inner.cgroups.usage(&cgroup);
            let rootfs = usage::below(&inner.layout.upper(&id));
            ContainerStats {
                cpu_usage_core_ns: usage.cpu_ns,
                memory_usage_bytes: usage.memory_bytes,
                memory_working_set_bytes: usage.memory_working_set_bytes,
                memory_rss_bytes: usage.memory_rss_bytes,
                rootfs_used_bytes: rootfs.bytes,
                rootfs_used_inodes: rootfs.inodes,
                pids: usage.pids,
                id,
            }
        })
        .await
        .map_err(|error| failed("container stats")(io::Error::other(error)))
    }
}

/// What is given anew over what was.
fn merge(old: &LinuxResources, new: LinuxResources) -> LinuxResources {
    LinuxResources {
        cpu_shares: new.cpu_shares.or(old.cpu_shares),
        cpu_quota_us: new.cpu_quota_us.or(old.cpu_quota_us),
        cpu_period_us: new.cpu_period_us.or(old.cpu_period_us),
        memory_limit_bytes: new.memory_limit_bytes.or(old.memory_limit_bytes),
        pids_limit: new.pids_limit.or(old.pids_limit),
        cpuset_cpus: new.cpuset_cpus.or_else(|| old.cpuset_cpus.clone()),
        oom_score_adj: new.oom_score_adj.or(old.oom_score_adj),
    }
}

/// `SIGQUIT`, `QUIT`, `3`, `RTMIN+3`; what is not understood is SIGTERM, as is nothing.
fn signal_number(name: &str) -> i32 {
    const NAMES: [(&str, i32); 31] = [
        ("HUP", 1), ("INT", 2), ("QUIT", 3), ("ILL", 4), ("TRAP", 5), ("ABRT", 6), ("BUS", 7), ("FPE", 8), ("KILL", 9), ("USR1", 10), ("SEGV", 11), ("USR2", 12),
        ("PIPE", 13), ("ALRM", 14), ("TERM", 15), ("STKFLT", 16), ("CHLD", 17), ("CONT", 18), ("STOP", 19), ("TSTP", 20), ("TTIN", 21), ("TTOU", 22), ("URG", 23),
        ("XCPU", 24), ("XFSZ", 25), ("VTALRM", 26), ("PROF", 27), ("WINCH", 28), ("IO", 29), ("PWR", 30), ("SYS", 31),
    ];
    const FIRST: i32 = 34;
    const LAST: i32 = 64;
    let name = name.trim().to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let relative = |prefix, base| name.strip_prefix(prefix).and_then(|rest| if rest.is_empty() { Some(0) } else { rest.parse::<i32>().ok() }).map(|offset| base + offset);
    let number = name
        .parse()
        .ok()
        .or_else(|| NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number))
        .or_else(|| relative("RTMIN", FIRST))
        .or_else(|| relative("RTMAX", LAST));
    number.filter(|number| (1..=LAST).contains(number)).unwrap_or(libc::SIGTERM)
}

#[cfg(test)]
mod tests {
    use super::signal_number;

    #[test]
    fn signals() {
        for (name, expected) in [("", 15), ("SIGQUIT", 3), ("quit", 3), ("9", 9), ("SIGRTMIN+3", 37), ("RTMAX-1", 63), ("nonsense", 15), ("99", 15)] {
            assert_eq!(signal_number(name), expected, "{name}");
        }
    }
}
