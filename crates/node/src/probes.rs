//! Startup, liveness and readiness probes: one small task per probe of a running container.
//!
//! Mirrors upstream's prober: initial delay, period, thresholds; liveness and readiness wait for startup; a failed liveness or startup probe is told once
//! and then rests until the container is another one. Verdicts go to the pod's memory and wake its worker.

use std::collections::HashMap;
use std::time::Duration;

use api::k8s::api::core::v1::{Container, Probe};
use jiff::SignedDuration;
use sandbox::cri::ContainerState;
use tokio::task::AbortHandle;

use crate::cx::Cx;
use crate::measured::Probe as Probed;
use crate::probe::{self, Outcome};
use crate::{pod, view::Verdicts};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Liveness => "Liveness",
            Kind::Readiness => "Readiness",
        }
    }

    fn verdict(self, verdicts: &mut Verdicts) -> &mut Option<bool> {
        match self {
            Kind::Startup => &mut verdicts.startup,
            Kind::Liveness => &mut verdicts.liveness,
            Kind::Readiness => &mut verdicts.readiness,
        }
    }
}

struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The probes of one pod that are running.
#[derive(Default)]
pub struct ProbeSet {
    tasks: HashMap<(String, Kind), Task>,
}

impl ProbeSet {
    pub fn stop(&mut self) {
        self.tasks.clear();
    }

    /// Starts what is missing and stops what is no longer wanted.
    pub fn update(&mut self, cx: &Cx) {
        let running: Vec<(String, String, i64)> =
            cx.shared.lock().runtime.containers.iter().filter(|c| c.state == ContainerState::Running).map(|c| (c.id.clone(), c.metadata.name.clone(), c.started_at)).collect();
        let terminating = pod::is_terminating(&cx.pod);
        self.tasks.retain(|(id, kind), _| running.iter().any(|(known, ..)| known == id) && !(terminating && *kind != Kind::Readiness));
        for (id, name, started_at) in running {
            let Some((_, container)) = pod::container(&cx.pod, &name) else { continue };
            let probes = [(Kind::Startup, &container.startup_probe), (Kind::Liveness, &container.liveness_probe), (Kind::Readiness, &container.readiness_probe)];
            for (kind, probe) in probes {
                let Some(probe) = probe else { continue };
                let key = (id.clone(), kind);
                if self.tasks.contains_key(&key) || (terminating && kind != Kind::Readiness) {
                    continue;
                }
                let runner = Runner { cx: cx.clone(), id: id.clone(), kind, probe: probe.clone(), container: container.clone().into_owned(), started_at };
                self.tasks.insert(key, Task(tokio::spawn(runner.run()).abort_handle()));
            }
        }
    }
}

struct Runner {
    cx: Cx,
    id: String,
    kind: Kind,
    probe: Probe,
    container: Container,
    /// Nanoseconds.
    started_at: i64,
}

fn at_least(value: Option<i32>, default: i32) -> u32 {
    u32::try_from(value.filter(|v| *v > 0).unwrap_or(default)).unwrap_or(1)
}

impl Runner {
    async fn run(self) {
        let period = Duration::from_secs(at_least(self.probe.period_seconds, 10).into());
        let failures_needed = at_least(self.probe.failure_threshold, 3);
        let successes_needed = at_least(self.probe.success_threshold, 1);
        self.initial_delay().await;
        let (mut last, mut count) = (None, 0u32);
        loop {
            if self.kind != Kind::Startup && self.container.startup_probe.is_some() {
                self.started().await;
            }
            let began = tokio::time::Instant::now();
            let outcome = probe::run(&self.cx, &self.id, &self.container, &self.probe).await;
            let result = match &outcome {
                Outcome::Success | Outcome::Warning(_) => "successful",
                Outcome::Failure(_) => "failed",
                Outcome::Unknown(_) => "unknown",
            };
            let pod = &self.cx.pod;
            self.cx.node.measured.probed(&Probed { kind: self.kind.word(), result, container: &self.container.name, pod: pod::name(pod), namespace: pod::namespace(pod), pod_uid: pod::uid(pod) });
            if let Outcome::Warning(what) = &outcome {
                let text = format!("{} probe warning: {what}", self.kind.word());
                self.cx.node.events.warning(&self.cx.about(Some(&self.container.name)), "ProbeWarning", text);
            }
            match outcome {
                Outcome::Success | Outcome::Warning(_) => count = if last == Some(true) { count + 1 } else { last = Some(true); 1 },
                Outcome::Failure(why) => {
                    count = if last == Some(false) { count + 1 } else { last = Some(false); 1 };
                    let text = format!("{} probe failed: {why}", self.kind.word());
                    self.cx.node.events.warning(&self.cx.about(Some(&self.container.name)), "Unhealthy", text);
                }
                Outcome::Unknown(why) => {
                    let text = format!("{} probe errored and resulted in unknown state: {why}", self.kind.word());
                    self.cx.node.events.warning(&self.cx.about(Some(&self.container.name)), "Unhealthy", text);
                    tokio::time::sleep_until(began + period).await;
                    continue;
                }
            }
            let needed = if last == Some(true) { successes_needed } else { failures_needed };
            if count >= needed
                && let Some(verdict) = last
            {
                self.tell(verdict);
                let rests = match (self.kind, verdict) {
                    (Kind::Startup, _) | (Kind::Liveness, false) => true,
                    (Kind::Liveness, true) | (Kind::Readiness, _) => false,
                };
                if rests {
                    return std::future::pending().await;
                }
            }
            tokio::time::sleep_until(began + period).await;
        }
    }

    async fn initial_delay(&self) {
        let delay = SignedDuration::from_secs(self.probe.initial_delay_seconds.unwrap_or(0).max(0).into());
        let due = pod::timestamp(self.started_at).checked_add(delay).unwrap_or(self.cx.node.now());
        let left = Duration::try_from(due.duration_since(self.cx.node.now())).unwrap_or_default();
        if !left.is_zero() {
            tokio::time::sleep(left).await;
        }
    }

    /// Until the startup probe has succeeded.
    async fn started(&self) {
        loop {
            let changed = self.cx.shared.probed.notified();
            if self.cx.shared.lock().probes.of(&self.id).startup == Some(true) {
                return;
            }
            changed.await;
        }
    }

    fn tell(&self, verdict: bool) {
        let mut memory = self.cx.shared.lock();
        let slot = self.kind.verdict(memory.probes.by_container_id.entry(self.id.clone()).or_default());
        if slot.replace(verdict) != Some(verdict) {
            drop(memory);
            self.cx.shared.probed.notify_waiters();
            self.cx.shared.wake.notify_one();
        }
    }
}
