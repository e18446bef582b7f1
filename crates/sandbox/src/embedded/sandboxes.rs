//! Pod sandboxes: a shim with the pod's namespaces, and its place in the network.

use std::fmt::Write;
use std::fs::File;
use std::io;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::link::follow;
use super::records::Sandbox;
use super::{Inner, failed};
use crate::cri::{ContainerEventKind, DnsConfig, NamespaceMode, PodSandboxConfig, Result, RuntimeError};
use crate::layout::{SandboxFile, SandboxStatusFile, socket_name, write_json};
use crate::protocol::{self, Request};
use crate::sys;

/// A shim says hello within milliseconds, or something is badly wrong.
const GREETING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a shim gets to kill everything before it is killed itself.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

impl Inner {
    pub async fn run_pod_sandbox(self: &Arc<Self>, config: PodSandboxConfig) -> Result<String> {
        let id = sys::random_id().map_err(failed("run pod sandbox"))?;
        let sandbox = Arc::new(Sandbox::new(id.clone(), sys::now_ns(), config, SandboxStatusFile::default()));
        match self.bring_up(&sandbox).await {
            Ok(()) => {
                self.emit(&sandbox, None, ContainerEventKind::Started);
                Ok(id)
            }
            Err(error) => {
                // Known to `remove` from the start, so that one path cleans up.
                if let Err(error) = self.remove_pod_sandbox(&id).await {
                    tracing::warn!(sandbox = id, %error, "cannot clean up after a sandbox that failed");
                }
                Err(error)
            }
        }
    }

    async fn bring_up(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<()> {
        let operation = "run pod sandbox";
        self.sandboxes.lock().insert(sandbox.id.clone(), sandbox.clone());
        let (inner, starting) = (self.clone(), sandbox.clone());
        tokio::task::spawn_blocking(move || inner.spawn_shim(&starting))
            .await
            .map_err(|error| failed(operation)(io::Error::other(error)))?
            .map_err(failed(operation))?;
        let link = self.connect(sandbox).map_err(failed(operation))?;
        let greeting = match tokio::time::timeout(GREETING_TIMEOUT, link.greeting()).await {
            Ok(greeting) => greeting,
            Err(_) => Err(io::Error::other("the shim does not answer")),
        };
        let (pid, _) = greeting.map_err(|error| {
            // Nobody follows this connection, so nobody may wait for its end.
            sandbox.link.lock().take();
            failed(operation)(error)
        })?;
        sandbox.shim_pid.store(pid, Ordering::Relaxed);
        tokio::spawn(follow(self.clone(), sandbox.clone(), link));
        let mut ips = Vec::new();
        if sandbox.config.namespaces.network != NamespaceMode::Node {
            let namespace = self.layout.netns(&sandbox.id);
            ips = self.network.attach(&sandbox.id, &namespace, &sandbox.config).await.map_err(|message| {
                // The words kubelet users know from containerd.
                RuntimeError::Failed { operation: "failed to setup network for sandbox", message }
            })?;
        }
        let status = SandboxStatusFile { ready: true, ips };
        write_json(&self.layout.sandbox_status(&sandbox.id), &status).map_err(failed(operation))?;
        *sandbox.status.lock() = status;
        Ok(())
    }

    /// Writes what the shim reads and starts it. It has left us for good when this returns. Blocking.
    fn spawn_shim(&self, sandbox: &Sandbox) -> io::Result<()> {
        let (layout, id, config) = (&self.layout, &sandbox.id, &sandbox.config);
        self.remember_cgroup_parent(&sandbox.cgroup())?;
        std::fs::create_dir(layout.sandbox(id))?;
        write_json(&layout.sandbox_config(id), &SandboxFile { created_at: sandbox.created_at, config: config.clone() })?;
        let hostname = if config.hostname.is_empty() { std::fs::read_to_string("/proc/sys/kernel/hostname")? } else { format!("{}\n", config.hostname) };
        std::fs::write(layout.hostname(id), hostname)?;
        if let Some(dns) = &config.dns {
            std::fs::write(layout.resolv_conf(id), resolv_conf(dns))?;
        }
        let listener = protocol::listen(&layout.socket_dir(), &socket_name(id))?;
        let status = Command::new(&self.shim_exe)
            .arg("shim")
            .arg("--root")
            .arg(&layout.root_dir)
            .arg("--state")
            .arg(&layout.state_dir)
            .args(["--id", id])
            .env_clear()
            .stdin(Stdio::from(listener))
            .stdout(Stdio::null())
            .stderr(File::create(layout.sandbox(id).join("shim.log"))?)
            .status()
            .map_err(|error| io::Error::new(error.kind(), format!("start shim {}: {error}", self.shim_exe.display())))?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("shim: {status}"))) }
    }

    fn remember_cgroup_parent(&self, cgroup: &str) -> io::Result<()> {
        let Some((parent, _)) = cgroup.rsplit_once('/') else { return Ok(()) };
        let mut known = self.cgroup_parents.lock();
        if known.insert(parent.to_owned()) {
            use io::Write;
            let mut file = File::options().create(true).append(true).open(self.layout.cgroup_parents())?;
            file.write_all(format!("{parent}\n").as_bytes())?;
        }
        Ok(())
    }

    pub async fn stop_pod_sandbox(self: &Arc<Self>, id: &str) -> Result<()> {
        let Ok(sandbox) = self.sandbox(id) else { return Ok(()) };
        let _turn = sandbox.turn.lock().await;
        self.stop(&sandbox).await
    }

    /// Kills all containers, gives the network back, ends the shim.
    async fn stop(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<()> {
        sandbox.stopping.store(true, Ordering::Relaxed);
        let link = sandbox.link.lock().clone();
        if link.is_some() {
            // Dying containers may take their time: tell all of them before waiting for any.
            let containers = self.containers_of(&sandbox.id);
            futures_join(containers.iter().map(|container| self.kill_container(container))).await;
        }
        if sandbox.config.namespaces.network != NamespaceMode::Node {
            self.network
                .detach(&sandbox.id, &sandbox.config)
                .await
                .map_err(|message| RuntimeError::Failed { operation: "failed to destroy network for sandbox", message })?;
        }
        if let Some(link) = link {
            let mut ended = sandbox.ended.subscribe();
            // A refusal means that it has ended already; waiting tells.
            let _ = link.ask("stop pod sandbox", Request::Shutdown, &[]).await;
            if tokio::time::timeout(SHUTDOWN_TIMEOUT, ended.wait_for(|ended| *ended)).await.is_err() {
                tracing::warn!(sandbox = sandbox.id, "a shim does not end and is killed");
                sys::kill(sandbox.shim_pid(), libc::SIGKILL);
                let _ = ended.wait_for(|ended| *ended).await;
            }
        }
        self.set_not_ready(sandbox);
        Ok(())
    }

    pub async fn remove_pod_sandbox(self: &Arc<Self>, id: &str) -> Result<()> {
        let Ok(sandbox) = self.sandbox(id) else { return Ok(()) };
        let _turn = sandbox.turn.lock().await;
        if self.sandbox(id).is_err() {
            return Ok(());
        }
        self.stop(&sandbox).await?;
        for container in self.containers_of(id) {
            self.remove_container(&container.id).await?;
        }
        let (inner, removed) = (self.clone(), sandbox.clone());
        tokio::task::spawn_blocking(move || inner.erase(&removed))
            .await
            .map_err(|error| failed("remove pod sandbox")(io::Error::other(error)))?
            .map_err(failed("remove pod sandbox"))?;
        self.sandboxes.lock().remove(id);
        self.emit(&sandbox, None, ContainerEventKind::Deleted);
        Ok(())
    }

    fn erase(&self, sandbox: &Sandbox) -> io::Result<()> {
        crate::shim::tear_down(&self.layout, &sandbox.id);
        self.cgroups.kill(&sandbox.cgroup());
        self.cgroups.remove(&sandbox.cgroup())?;
        match std::fs::remove_dir_all(self.layout.sandbox(&sandbox.id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// All at once, in one task.
async fn futures_join<F: Future<Output = ()>>(futures: impl Iterator<Item = F>) {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        futures.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if futures.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

fn resolv_conf(dns: &DnsConfig) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        let _ = writeln!(text, "search {}", dns.searches.join(" "));
    }
    for server in &dns.servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !dns.options.is_empty() {
        let _ = writeln!(text, "options {}", dns.options.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_as_containerd_writes_it() {
        let dns = DnsConfig {
            servers: vec!["10.96.0.10".parse().unwrap(), "fd00::a".parse().unwrap()],
            searches: vec!["default.svc.cluster.local".to_owned(), "svc.cluster.local".to_owned()],
            options: vec!["ndots:5".to_owned()],
        };
        assert_eq!(resolv_conf(&dns), "search default.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\nnameserver fd00::a\noptions ndots:5\n");
        assert_eq!(resolv_conf(&DnsConfig::default()), "");
    }
}
