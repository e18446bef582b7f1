//! The container runtime, measured: each of its operations is counted and timed, by the names of upstream's pkg/kubelet/kuberuntime/instrumented_services.go.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use client::BoxFuture;
use sandbox::cri::{
    CgroupUse, ContainerConfig, ContainerEvent, ContainerStats, ContainerStatus, ExecSyncResult, LinuxResources, PodSandboxConfig, PodSandboxStatus, Result, Runtime, StreamOptions, Streams,
};
use tokio::sync::broadcast;

use crate::measured::Measured;

pub struct Measuring {
    runtime: Arc<dyn Runtime>,
    measured: Arc<Measured>,
}

impl Measuring {
    pub fn new(runtime: Arc<dyn Runtime>, measured: Arc<Measured>) -> Self {
        Self { runtime, measured }
    }

    fn timed<'a, T: Send + 'a>(&'a self, operation: &'static str, work: BoxFuture<'a, Result<T>>) -> BoxFuture<'a, Result<T>> {
        Box::pin(async move {
            let begun = Instant::now();
            let outcome = work.await;
            self.measured.operated(operation, outcome.is_ok(), begun.elapsed());
            outcome
        })
    }
}

impl Runtime for Measuring {
    fn version(&self) -> String {
        self.runtime.version()
    }

    fn run_pod_sandbox(&self, config: PodSandboxConfig) -> BoxFuture<'_, Result<String>> {
        self.timed("run_podsandbox", self.runtime.run_pod_sandbox(config))
    }

    fn stop_pod_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        self.timed("stop_podsandbox", self.runtime.stop_pod_sandbox(id))
    }

    fn remove_pod_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        self.timed("remove_podsandbox", self.runtime.remove_pod_sandbox(id))
    }

    fn update_pod_sandbox_resources<'a>(&'a self, id: &'a str, resources: LinuxResources) -> BoxFuture<'a, Result<()>> {
        self.timed("update_podsandbox_resources", self.runtime.update_pod_sandbox_resources(id, resources))
    }

    fn pod_sandbox_status<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<PodSandboxStatus>> {
        self.timed("podsandbox_status", self.runtime.pod_sandbox_status(id))
    }

    fn list_pod_sandboxes(&self) -> BoxFuture<'_, Result<Vec<PodSandboxStatus>>> {
        self.timed("list_podsandbox", self.runtime.list_pod_sandboxes())
    }

    fn create_container<'a>(&'a self, sandbox_id: &'a str, config: ContainerConfig) -> BoxFuture<'a, Result<String>> {
        self.timed("create_container", self.runtime.create_container(sandbox_id, config))
    }

    fn start_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        self.timed("start_container", self.runtime.start_container(id))
    }

    fn stop_container<'a>(&'a self, id: &'a str, timeout_seconds: i64) -> BoxFuture<'a, Result<()>> {
        self.timed("stop_container", self.runtime.stop_container(id, timeout_seconds))
    }

    fn remove_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        self.timed("remove_container", self.runtime.remove_container(id))
    }

    fn container_status<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<ContainerStatus>> {
        self.timed("container_status", self.runtime.container_status(id))
    }

    fn list_containers<'a>(&'a self, sandbox_id: Option<&'a str>) -> BoxFuture<'a, Result<Vec<ContainerStatus>>> {
        self.timed("list_containers", self.runtime.list_containers(sandbox_id))
    }

    fn update_container_resources<'a>(&'a self, id: &'a str, resources: LinuxResources) -> BoxFuture<'a, Result<()>> {
        self.timed("update_container", self.runtime.update_container_resources(id, resources))
    }

    fn reopen_container_log<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        self.timed("reopen_container_log", self.runtime.reopen_container_log(id))
    }

    fn container_stats<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<ContainerStats>> {
        self.timed("container_stats", self.runtime.container_stats(id))
    }

    fn exec_sync<'a>(&'a self, id: &'a str, command: Vec<String>, timeout_seconds: u64) -> BoxFuture<'a, Result<ExecSyncResult>> {
        self.timed("exec_sync", self.runtime.exec_sync(id, command, timeout_seconds))
    }

    fn exec<'a>(&'a self, id: &'a str, command: Vec<String>, options: StreamOptions) -> BoxFuture<'a, Result<Streams>> {
        self.timed("exec", self.runtime.exec(id, command, options))
    }

    fn attach<'a>(&'a self, id: &'a str, options: StreamOptions) -> BoxFuture<'a, Result<Streams>> {
        self.timed("attach", self.runtime.attach(id, options))
    }

    fn port_forward<'a>(&'a self, sandbox_id: &'a str, port: u16) -> BoxFuture<'a, Result<std::net::TcpStream>> {
        self.timed("port_forward", self.runtime.port_forward(sandbox_id, port))
    }

    fn used_by(&self, cgroup: &str) -> Option<CgroupUse> {
        self.runtime.used_by(cgroup)
    }

    fn used_layers(&self) -> HashSet<PathBuf> {
        self.runtime.used_layers()
    }

    fn events(&self) -> broadcast::Receiver<ContainerEvent> {
        self.runtime.events()
    }
}
