//! When the node runs short of memory, disk or process numbers: it says so, frees what nobody needs, and if that is not enough ends pods, one at a time. And pods end that take more
//! of the disk than they may.
//!
//! Thin: [`thresholds`], [`pressure`] and [`ranking`] decide. Mirrors upstream's `pkg/kubelet/eviction`.

pub mod pressure;
pub mod ranking;
pub mod thresholds;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::k8s::api::core::v1::Pod;
use jiff::Timestamp;
use sandbox::cri::ContainerState;
use sandbox::usage;
use tokio::time::timeout;

use crate::cx::{Cx, Verdict};
use crate::node::Node;
use crate::status::Reason;
use crate::{image_gc, machine, pod};
use pressure::{Observation, Observations, crossed};
use ranking::{Candidate, ContainerUse, Disk, PodUse};
use thresholds::{Signal, Threshold};

/// Upstream's `podCleanupTimeout`.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(30);
/// Upstream's `immediateEvictionGracePeriodSeconds`.
const IMMEDIATE_GRACE_SECONDS: i64 = 1;
const EVICTED: &str = "Evicted";

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn of_disk(path: &Path, bytes: Signal, inodes: Signal, out: &mut Observations) {
    let space = machine::space(path);
    if space.capacity > 0 {
        out.insert(bytes, Observation { available: signed(space.available), capacity: signed(space.capacity) });
    }
    // Some file systems count none.
    if space.inodes > 0 {
        out.insert(inodes, Observation { available: signed(space.inodes_free), capacity: signed(space.inodes) });
    }
}

/// What the machine has, and has left.
fn observe(node: &Node) -> Observations {
    let mut all = Observations::new();
    let memory = signed(node.machine.memory_bytes);
    if memory > 0 {
        all.insert(Signal::MemoryAvailable, Observation { available: signed(machine::memory_available()), capacity: memory });
    }
    of_disk(&node.config.root_dir, Signal::NodefsAvailable, Signal::NodefsInodesFree, &mut all);
    of_disk(&node.config.root_dir, Signal::ContainerfsAvailable, Signal::ContainerfsInodesFree, &mut all);
    of_disk(&node.config.images_dir(), Signal::ImagefsAvailable, Signal::ImagefsInodesFree, &mut all);
    let (used, limit) = machine::pids();
    all.insert(Signal::PidAvailable, Observation { available: signed(limit.saturating_sub(used)), capacity: signed(limit) });
    all
}

fn disk(found: usage::Usage) -> Disk {
    Disk { bytes: signed(found.bytes), inodes: signed(found.inodes) }
}

/// Name, log and how the runtime has it.
async fn of_containers(cx: &Cx) -> Option<Vec<(PathBuf, ContainerUse)>> {
    let running: Vec<(String, String, PathBuf)> = {
        let memory = cx.shared.lock();
        memory.runtime.containers.iter().filter(|c| c.state == ContainerState::Running).map(|c| (c.id.clone(), c.metadata.name.clone(), c.log_path.clone())).collect()
    };
    let mut out = Vec::new();
    for (id, name, log) in running {
        let stats = cx.node.runtime.container_stats(&id).await.ok()?;
        let rootfs = Disk { bytes: signed(stats.rootfs_used_bytes), inodes: signed(stats.rootfs_used_inodes) };
        out.push((log, ContainerUse { name, memory: signed(stats.memory_working_set_bytes), pids: signed(stats.pids), rootfs, logs: Disk::default() }));
    }
    Some(out)
}

/// What a pod takes of the machine; `None` when it cannot be told.
pub async fn measure(cx: &Cx) -> Option<PodUse> {
    let containers = of_containers(cx).await?;
    let volumes = cx.node.config.pod_dir(pod::uid(&cx.pod)).join("volumes").join("kubernetes.io~empty-dir");
    tokio::task::spawn_blocking(move || {
        let logged = |log: PathBuf, used: ContainerUse| ContainerUse { logs: log.parent().map(usage::below).map(disk).unwrap_or_default(), ..used };
        let containers = containers.into_iter().map(|(log, used)| logged(log, used)).collect();
        let each = std::fs::read_dir(volumes).into_iter().flatten().flatten();
        let volumes = each.map(|volume| (volume.file_name().to_string_lossy().into_owned(), disk(usage::below(&volume.path())))).collect();
        PodUse { containers, volumes }
    })
    .await
    .ok()
}

fn is_active(cx: &Cx) -> bool {
    let memory = cx.shared.lock();
    !pod::is_finished(&cx.pod) && memory.verdict.is_none() && !memory.ended && !memory.over
}

impl Node {
    /// What the node says it is short of.
    pub(crate) fn pressures(&self) -> Vec<&'static str> {
        self.eviction.lock().1.clone()
    }

    fn judge(&self, observations: &Observations, now: Timestamp) -> Vec<Threshold> {
        let settings = &self.config.settings;
        let mut eviction = self.eviction.lock();
        let judged = eviction.0.judge(&settings.thresholds, settings.pressure_transition, observations, now);
        let changed = eviction.1 != judged.conditions;
        eviction.1 = judged.conditions;
        drop(eviction);
        if changed {
            self.status_changed.notify_one();
        }
        judged.starved
    }

    /// Before the node says how it is for the first time.
    pub(crate) fn look_around(&self) {
        self.judge(&observe(self), self.now());
    }

    /// Whether it was: what is critical is not.
    fn evict(&self, cx: &Cx, grace_seconds: i64, message: &str, disrupts: bool) -> bool {
        if ranking::is_critical(&cx.pod) {
            tracing::error!(pod = pod::full(&cx.pod), "cannot evict a critical pod");
            return false;
        }
        tracing::info!(pod = pod::full(&cx.pod), message, "evicting a pod");
        self.events.warning(&cx.about(None), EVICTED, message);
        let why = Reason { reason: EVICTED.to_owned(), message: message.to_owned() };
        cx.condemn(Verdict { grace_seconds: Some(grace_seconds), disrupts, ..Verdict::from(why) });
        true
    }

    /// Pods that take more of the disk than they may.
    async fn evict_those_over_their_limits(self: &Arc<Self>) -> Vec<Cx> {
        let mut evicted = Vec::new();
        for cx in self.all().into_iter().filter(|cx| ranking::has_limits(&cx.pod) && is_active(cx)) {
            if let Some(used) = measure(&cx).await
                && let Some(message) = ranking::over_limits(&cx.pod, &used)
                && self.evict(&cx, IMMEDIATE_GRACE_SECONDS, &message, false)
            {
                evicted.push(cx);
            }
        }
        evicted
    }

    /// Frees what no pod needs; whether that was enough.
    async fn reclaim(self: &Arc<Self>, starved: &Threshold) -> bool {
        if starved.signal.condition() != "DiskPressure" {
            return false;
        }
        image_gc::remove_dead_containers(self).await;
        if let Err(error) = image_gc::remove_unused(self).await {
            tracing::warn!(error, "cannot free all of what images take");
        }
        crossed(&self.config.settings.thresholds, &observe(self), true).is_empty()
    }

    async fn evict_one(self: &Arc<Self>, starved: &[Threshold], observations: &Observations) -> Option<Cx> {
        let first = starved.first()?;
        let mut candidates: Vec<Candidate<Cx>> = Vec::new();
        for cx in self.all().into_iter().filter(is_active) {
            // What has nothing yet frees nothing.
            if cx.shared.lock().runtime.sandbox().is_some() {
                candidates.push(Candidate { pod: cx.pod.clone(), used: measure(&cx).await, what: cx });
            }
        }
        ranking::rank(first.signal, &mut candidates);
        let resource = first.signal.resource();
        let met = starved.iter().find(|threshold| threshold.signal.resource() == resource).and_then(|threshold| Some((threshold, *observations.get(&threshold.signal)?)));
        let longest = self.config.settings.eviction_max_pod_grace_seconds;
        let evicted = candidates.into_iter().find_map(|candidate| {
            let own = pod::spec(&candidate.pod).termination_grace_period_seconds.unwrap_or(longest);
            let grace = if first.is_hard() { IMMEDIATE_GRACE_SECONDS } else { longest.min(own) };
            let message = ranking::message(resource, &candidate, met);
            self.evict(&candidate.what, grace, &message, true).then_some(candidate.what)
        });
        if evicted.is_some() {
            self.measured.evicted(first.signal.name());
        }
        evicted
    }

    /// One look, and what follows from it: the pods that have to go.
    async fn relieve(self: &Arc<Self>) -> Vec<Cx> {
        let observations = observe(self);
        let starved = self.judge(&observations, self.now());
        if self.config.settings.local_storage_isolation {
            let evicted = self.evict_those_over_their_limits().await;
            if !evicted.is_empty() {
                return evicted;
            }
        }
        let Some(first) = starved.first() else { return Vec::new() };
        let resource = first.signal.resource();
        self.events.warning(&self.reference(), "EvictionThresholdMet", format!("Attempting to reclaim {resource}"));
        if self.reclaim(first).await {
            tracing::info!(resource, "reclaimed enough without evicting pods");
            return Vec::new();
        }
        match self.evict_one(&starved, &observations).await {
            Some(evicted) => vec![evicted],
            None => {
                tracing::warn!(resource, "no pod can be evicted");
                Vec::new()
            }
        }
    }

    /// Why a pod may not come now.
    pub(crate) fn pressure_refusal(&self, pod: &Pod) -> Option<Reason> {
        ranking::refusal(pod, &self.pressures()).map(|message| Reason { reason: EVICTED.to_owned(), message })
    }
}

/// Never ends.
pub async fn keep(node: Arc<Node>) {
    if node.config.settings.thresholds.is_empty() && !node.config.settings.local_storage_isolation {
        return;
    }
    loop {
        let evicted = node.relieve().await;
        if evicted.is_empty() {
            tokio::time::sleep(node.config.eviction_period).await;
            continue;
        }
        // What they had may be taken away when they have ended and the API knows; until then another look would find too little, and too much would go.
        for cx in &evicted {
            if timeout(CLEANUP_TIMEOUT, node.until(cx, |cx| cx.shared.lock().told)).await.is_err() {
                tracing::warn!(pod = pod::full(&cx.pod), "an evicted pod has not ended yet");
            }
        }
    }
}
