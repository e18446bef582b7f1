//! Graceful node shutdown (KEP-2000, by priority KEP-2712): before the machine goes, its pods end, the lesser ones first, each group within its own time.
//!
//! Who says that the machine goes: logind ([`logind`]), or somebody on the machine ([`Node::shut_down_machine`]: SIGPWR and `coracle down --node-shutdown`). Meanwhile the node is not
//! ready and takes no pods. Mirrors upstream's `pkg/kubelet/nodeshutdown`; unlike there, the end of a group is also waited for in the API, so that no status is lost with the power.

pub mod dbus;
pub mod logind;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use api::k8s::api::core::v1::Pod;
use api::world::rfc3339;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::cx::{Cx, Verdict};
use crate::duration;
use crate::node::Node;
use crate::pod;
use crate::status::Reason;

pub const REJECTED_REASON: &str = "NodeShutdown";
pub const REJECTED_MESSAGE: &str = "Pod was rejected as the node is shutting down.";
const TERMINATED_REASON: &str = "Terminated";
const TERMINATED_MESSAGE: &str = "Pod was terminated in response to imminent node shutdown.";
/// In the Ready condition.
pub const NOT_READY: &str = "node is shutting down";
/// `system-cluster-critical`.
pub const CRITICAL_PRIORITY: i32 = 2_000_000_000;
/// What pods get when somebody here asks for a shutdown and no times are configured: upstream's example.
const ASKED_SECONDS: i64 = 30;
const ASKED_CRITICAL_SECONDS: i64 = 10;
/// How long the API may take to hear of the end of pods that ended.
const STATUS_PATIENCE: Duration = Duration::from_secs(3);
/// In the node's folder, as upstream's.
const STATE_FILE: &str = "graceful_node_shutdown_state";

/// Pods from that priority on have so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    pub priority: i32,
    pub grace_seconds: i64,
}

/// The two of upstream's first version: all, of which the last part is for critical pods.
fn two(all: i64, critical: i64) -> Vec<Period> {
    if all == 0 || critical > all || critical < 0 {
        return Vec::new();
    }
    vec![Period { priority: 0, grace_seconds: all - critical }, Period { priority: CRITICAL_PRIORITY, grace_seconds: critical }]
}

/// Of a complete KubeletConfiguration, lowest first; none: no graceful shutdown.
pub fn periods(whole: &Value) -> Vec<Period> {
    let given = whole["shutdownGracePeriodByPodPriority"].as_array().into_iter().flatten();
    let mut all: Vec<Period> = given
        .map(|period| Period {
            priority: period["priority"].as_i64().and_then(|priority| i32::try_from(priority).ok()).unwrap_or_default(),
            grace_seconds: period["shutdownGracePeriodSeconds"].as_i64().unwrap_or_default().max(0),
        })
        .collect();
    if all.is_empty() {
        let seconds = |name: &str| whole[name].as_str().and_then(|text| duration::parse(text).ok()).unwrap_or_default().as_secs();
        all = two(seconds("shutdownGracePeriod"), seconds("shutdownGracePeriodCriticalPods"));
    }
    all.sort_by_key(|period| period.priority);
    all
}

/// Each pod to the highest period that is not above it; those below all go with the lowest.
fn groups<T>(periods: &[Period], pods: Vec<(i32, T)>) -> Vec<(Period, Vec<T>)> {
    let mut groups: Vec<(Period, Vec<T>)> = periods.iter().map(|period| (*period, Vec::new())).collect();
    for (priority, pod) in pods {
        let above = groups.partition_point(|(period, _)| period.priority <= priority);
        if let Some((_, group)) = groups.get_mut(above.saturating_sub(1)) {
            group.push(pod);
        }
    }
    groups
}

pub fn priority(pod: &Pod) -> i32 {
    pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or_default()
}

fn verdict(grace_seconds: i64) -> Verdict {
    let why = Reason { reason: TERMINATED_REASON.to_owned(), message: TERMINATED_MESSAGE.to_owned() };
    Verdict { grace_seconds: Some(grace_seconds), disrupts: true, ..Verdict::from(why) }
}

impl Node {
    pub fn is_shutting_down(&self) -> bool {
        self.shutting_down.load(Ordering::Relaxed)
    }

    /// How long a graceful shutdown may take.
    pub fn shutdown_patience(&self) -> Duration {
        Duration::from_secs(self.asked_periods().iter().map(|period| u64::try_from(period.grace_seconds).unwrap_or(0)).sum())
    }

    fn asked_periods(&self) -> Vec<Period> {
        match self.config.settings.shutdown.as_slice() {
            [] => two(ASKED_SECONDS, ASKED_CRITICAL_SECONDS),
            configured => configured.to_vec(),
        }
    }

    /// Somebody on this machine says that it goes: all pods end, with the configured times, or upstream's usual ones when none are. Returns when they have.
    pub async fn shut_down_machine(self: &Arc<Self>) {
        self.end_pods(&self.asked_periods()).await;
    }

    /// The machine stays after all.
    fn shutdown_cancelled(&self) {
        self.events.normal(&self.reference(), REJECTED_REASON, "Shutdown manager detected shutdown cancellation");
        self.shutting_down.store(false, Ordering::Relaxed);
        self.status_changed.notify_one();
    }

    async fn end_pods(self: &Arc<Self>, periods: &[Period]) {
        self.events.normal(&self.reference(), REJECTED_REASON, "Shutdown manager detected shutdown event");
        tracing::info!("the machine shuts down: its pods end");
        // Before the pods are looked at: who comes later is rejected.
        self.shutdown_told.store(false, Ordering::Relaxed);
        self.shutting_down.store(true, Ordering::Relaxed);
        self.status_changed.notify_one();
        let started = self.now();
        self.remember_shutdown(json!({"startTime": rfc3339(started)}));
        let active = self.all().into_iter().filter(|cx| !pod::is_finished(&cx.pod) && !cx.shared.lock().ended);
        let pods = active.map(|cx| (priority(&cx.pod), cx)).collect();
        for (period, group) in groups(periods, pods) {
            self.end_group(period, group).await;
        }
        let mut progress = self.progress.subscribe();
        let told = async { while !self.shutdown_told.load(Ordering::Relaxed) && progress.changed().await.is_ok() {} };
        let _ = timeout_at(Instant::now() + STATUS_PATIENCE, told).await;
        self.remember_shutdown(json!({"startTime": rfc3339(started), "endTime": rfc3339(self.now())}));
        tracing::info!("the pods have ended");
    }

    async fn end_group(self: &Arc<Self>, period: Period, group: Vec<Cx>) {
        if group.is_empty() {
            return;
        }
        let deadline = Instant::now() + Duration::from_secs(u64::try_from(period.grace_seconds).unwrap_or(0));
        let condemned = group.into_iter().map(|cx| {
            let grace = pod::spec(&cx.pod).termination_grace_period_seconds.map_or(period.grace_seconds, |own| own.min(period.grace_seconds));
            cx.condemn(verdict(grace));
            cx
        });
        let condemned: Vec<Cx> = condemned.collect();
        let all_ended = join_all(condemned.iter().map(|cx| self.until(cx, |cx| cx.shared.lock().ended)));
        if timeout_at(deadline, all_ended).await.is_err() {
            let left: Vec<String> = condemned.iter().filter(|cx| !cx.shared.lock().ended).map(|cx| pod::full(&cx.pod)).collect();
            tracing::warn!(priority = period.priority, seconds = period.grace_seconds, pods = ?left, "pods have not ended in their time");
        }
        let told = join_all(condemned.iter().map(|cx| self.until(cx, |cx| cx.shared.lock().told)));
        let _ = timeout_at(deadline.min(Instant::now() + STATUS_PATIENCE).max(Instant::now() + STATUS_PATIENCE / 3), told).await;
    }

    /// Returns when it is so of the pod, or the pod is no more.
    pub(crate) async fn until(&self, cx: &Cx, so: impl Fn(&Cx) -> bool) {
        let mut progress = self.progress.subscribe();
        while !so(cx) && self.has(pod::uid(&cx.pod)) {
            if progress.changed().await.is_err() {
                return;
            }
        }
    }

    fn state_file(&self) -> PathBuf {
        self.config.root_dir.join(STATE_FILE)
    }

    fn remember_shutdown(&self, state: Value) {
        let written = std::fs::create_dir_all(&self.config.root_dir).and_then(|()| std::fs::write(self.state_file(), state.to_string()));
        if let Err(error) = written {
            tracing::warn!(%error, "cannot write when the node was shut down");
        }
    }

    /// Begin and end of the last graceful shutdown, in seconds since the epoch; zero where there is none.
    pub(crate) fn last_shutdown(&self) -> (f64, f64) {
        let state: Value = std::fs::read(self.state_file()).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let at = |name: &str| state[name].as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok()).map_or(0.0, |at| at.as_millisecond() as f64 / 1e3);
        (at("startTime"), at("endTime"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn period(priority: i32, grace_seconds: i64) -> Period {
        Period { priority, grace_seconds }
    }

    #[test]
    fn times_of_a_configuration() {
        for (whole, expected) in [
            (json!({"shutdownGracePeriod": "0s"}), vec![]),
            (json!({"shutdownGracePeriod": "30s", "shutdownGracePeriodCriticalPods": "10s"}), vec![period(0, 20), period(CRITICAL_PRIORITY, 10)]),
            (json!({"shutdownGracePeriod": "30s", "shutdownGracePeriodCriticalPods": "0s"}), vec![period(0, 30), period(CRITICAL_PRIORITY, 0)]),
            (json!({"shutdownGracePeriodByPodPriority": [{"priority": 100, "shutdownGracePeriodSeconds": 7}, {"priority": 0, "shutdownGracePeriodSeconds": 9}]}), vec![period(0, 9), period(100, 7)]),
        ] {
            assert_eq!(periods(&whole), expected, "{whole}");
        }
    }

    #[test]
    fn by_priority() {
        let periods = [period(-10, 1), period(0, 2), period(100, 3)];
        let pods = vec![(-50, "lower"), (-10, "low"), (-1, "below"), (0, "zero"), (99, "less"), (100, "hundred"), (CRITICAL_PRIORITY, "critical")];
        let names: Vec<Vec<&str>> = groups(&periods, pods).into_iter().map(|(_, names)| names).collect();
        assert_eq!(names, [vec!["lower", "low", "below"], vec!["zero", "less"], vec!["hundred", "critical"]]);
    }
}
