//! What the scheduler measures of its work: `scheduler_*`.
//!
//! Names, labels, bounds and words are those of pkg/scheduler/metrics. Filters and scores are one pure function here (`place`), which has no clock: of the extension points
//! only those around it are timed. There is no queue for backing off (a pod is tried again when something changed), and nothing waits for a permit.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use basics::histogram::{exponential, head};
use basics::metrics::{Counters, Histograms, line};
use place::{DEFAULT_SCHEDULER, Plugin};

const MILLISECONDS: &[f64] = &exponential::<15>(0.001, 2.0);
const OBJECTIVE: &[f64] = &exponential::<20>(0.01, 2.0);
const EXTENSION_POINT: &[f64] = &exponential::<12>(0.0001, 2.0);
const PLUGIN: &[f64] = &exponential::<20>(0.00001, 1.5);
const ATTEMPTS: &[f64] = &exponential::<5>(1.0, 2.0);
const VICTIMS: &[f64] = &exponential::<7>(1.0, 2.0);
/// More attempts than this are not told apart.
const ATTEMPTS_MAX: u32 = 15;
const PENDING: &str = "[STABLE] Number of pending pods, by the queue type. 'active' means number of pods in activeQ; 'backoff' means number of pods in backoffQ; 'unschedulable' means number of pods in unschedulablePods that the scheduler attempted to schedule and failed; 'gated' is the number of unschedulable pods that the scheduler never attempted to schedule because they are gated.";

/// How an attempt ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Scheduled,
    Unschedulable,
    Error,
}

/// Where and how long plugins ran.
#[derive(Clone, Copy)]
pub enum Point {
    Bind,
    PostFilter,
}

/// What waits right now.
#[derive(Default)]
struct Waits {
    active: AtomicU64,
    unschedulable: AtomicU64,
    gated: AtomicU64,
    refused: [AtomicU64; Plugin::ALL.len()],
    nodes: AtomicU64,
    pods: AtomicU64,
    binding: AtomicU64,
}

pub struct Measured {
    attempts: Counters,
    attempt: Histograms,
    algorithm: Histograms,
    objective: Histograms,
    attempts_of_pod: Histograms,
    incoming: Counters,
    points: Histograms,
    plugins: Histograms,
    preemptions: Counters,
    victims: Histograms,
    waits: Waits,
}

impl Default for Measured {
    fn default() -> Self {
        let of_profile: &[&str] = &["profile", "result"];
        let measured = Self {
            attempts: Counters::new("scheduler_schedule_attempts_total", "[STABLE] Number of attempts to schedule pods, by the result. 'unschedulable' means a pod could not be scheduled, while 'error' means an internal scheduler problem.", of_profile),
            attempt: Histograms::new("scheduler_scheduling_attempt_duration_seconds", "[STABLE] Scheduling attempt latency in seconds (scheduling algorithm + binding)", of_profile, MILLISECONDS),
            algorithm: Histograms::new("scheduler_scheduling_algorithm_duration_seconds", "[ALPHA] Scheduling algorithm latency in seconds", &[], MILLISECONDS),
            objective: Histograms::new("scheduler_pod_scheduling_sli_duration_seconds", "[BETA] E2e latency for a pod being scheduled, from the time the pod enters the scheduling queue and might involve multiple scheduling attempts.", &["attempts"], OBJECTIVE),
            attempts_of_pod: Histograms::new("scheduler_pod_scheduling_attempts", "[STABLE] Number of attempts to successfully schedule a pod.", &[], ATTEMPTS),
            incoming: Counters::new("scheduler_queue_incoming_pods_total", "[STABLE] Number of pods added to scheduling queues by event and queue type.", &["event", "queue"]),
            points: Histograms::new("scheduler_framework_extension_point_duration_seconds", "[STABLE] Latency for running all plugins of a specific extension point.", &["extension_point", "profile", "status"], EXTENSION_POINT),
            plugins: Histograms::new("scheduler_plugin_execution_duration_seconds", "[ALPHA] Duration for running a plugin at a specific extension point.", &["extension_point", "plugin", "status"], PLUGIN),
            preemptions: Counters::new("scheduler_preemption_attempts_total", "[STABLE] Total preemption attempts in the cluster till now", &[]),
            victims: Histograms::new("scheduler_preemption_victims", "[STABLE] Number of selected preemption victims", &[], VICTIMS),
            waits: Waits::default(),
        };
        // Those without labels are there from the beginning.
        let _ = (measured.preemptions.of(&[]), measured.victims.of(&[]));
        measured
    }
}

impl Measured {
    /// An attempt has ended, after so long.
    pub(crate) fn attempted(&self, outcome: Outcome, took: Duration) {
        let result = match outcome {
            Outcome::Scheduled => "scheduled",
            Outcome::Unschedulable => "unschedulable",
            Outcome::Error => "error",
        };
        self.attempts.add(&[DEFAULT_SCHEDULER, result], 1);
        self.attempt.observe(&[DEFAULT_SCHEDULER, result], took.as_secs_f64());
    }

    /// It was decided where a pod goes.
    pub(crate) fn decided(&self, took: Duration) {
        self.algorithm.observe(&[], took.as_secs_f64());
    }

    /// A pod has its node, so long after it was first tried.
    pub(crate) fn scheduled(&self, attempts: u32, since_first: Duration) {
        const LABELS: [&str; ATTEMPTS_MAX as usize + 1] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15+"];
        self.objective.observe(&[LABELS[attempts.min(ATTEMPTS_MAX) as usize]], since_first.as_secs_f64());
        self.attempts_of_pod.observe(&[], f64::from(attempts));
    }

    /// So many pods have come into `queue` because of `event`.
    pub(crate) fn queued(&self, queue: &str, event: &str, pods: usize) {
        if pods > 0 {
            self.incoming.add(&[event, queue], pods as u64);
        }
    }

    pub(crate) fn ran(&self, point: Point, status: &str, took: Duration) {
        let (point, plugin) = match point {
            Point::Bind => ("Bind", "DefaultBinder"),
            Point::PostFilter => ("PostFilter", "DefaultPreemption"),
        };
        self.points.observe(&[point, DEFAULT_SCHEDULER, status], took.as_secs_f64());
        self.plugins.observe(&[point, plugin, status], took.as_secs_f64());
    }

    /// Evicting others was thought about; so many would have to go, if it helps.
    pub(crate) fn preempted(&self, victims: Option<usize>) {
        self.preemptions.add(&[], 1);
        if let Some(victims) = victims {
            self.victims.observe(&[], victims as f64);
        }
    }

    /// How many wait, and of whom each plugin refused.
    pub(crate) fn waiting(&self, active: usize, unschedulable: usize, gated: usize, refused: impl Fn(Plugin) -> usize) {
        let set = |cell: &AtomicU64, count: usize| cell.store(count as u64, Ordering::Relaxed);
        set(&self.waits.active, active);
        set(&self.waits.unschedulable, unschedulable);
        set(&self.waits.gated, gated);
        Plugin::ALL.iter().zip(&self.waits.refused).for_each(|(plugin, cell)| set(cell, refused(*plugin)));
    }

    /// What is known of, and how many bindings are under way.
    pub(crate) fn knows(&self, nodes: usize, pods: usize, bindings: usize) {
        self.waits.nodes.store(nodes as u64, Ordering::Relaxed);
        self.waits.pods.store(pods as u64, Ordering::Relaxed);
        self.waits.binding.store(bindings as u64, Ordering::Relaxed);
    }

    pub fn text(&self, out: &mut String) {
        let get = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        head(out, "scheduler_cache_size", "gauge", "[ALPHA] Number of nodes, pods, and assumed (bound) pods in the scheduler cache.");
        line(out, "scheduler_cache_size", "type=\"nodes\"", get(&self.waits.nodes));
        line(out, "scheduler_cache_size", "type=\"pods\"", get(&self.waits.pods));
        self.points.text(out);
        head(out, "scheduler_goroutines", "gauge", "[BETA] Number of running goroutines split by the work they do such as binding.");
        line(out, "scheduler_goroutines", "operation=\"binding\"", get(&self.waits.binding));
        head(out, "scheduler_pending_pods", "gauge", PENDING);
        for (queue, count) in [("active", get(&self.waits.active)), ("backoff", 0), ("gated", get(&self.waits.gated)), ("unschedulable", get(&self.waits.unschedulable))] {
            line(out, "scheduler_pending_pods", &format!("queue=\"{queue}\""), count);
        }
        self.plugins.text(out);
        self.attempts_of_pod.text(out);
        self.objective.text(out);
        self.preemptions.text(out);
        self.victims.text(out);
        self.incoming.text(out);
        self.attempts.text(out);
        self.algorithm.text(out);
        self.attempt.text(out);
        head(out, "scheduler_unschedulable_pods", "gauge", "[BETA] The number of unschedulable pods broken down by plugin name. A pod will increment the gauge for all plugins that caused it to not schedule and so this metric have meaning only when broken down by plugin.");
        for (plugin, count) in Plugin::ALL.iter().zip(&self.waits.refused) {
            line(out, "scheduler_unschedulable_pods", &format!("plugin=\"{}\",profile=\"{DEFAULT_SCHEDULER}\"", plugin.name()), get(count));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told() {
        let measured = Measured::default();
        measured.attempted(Outcome::Unschedulable, Duration::from_millis(3));
        measured.scheduled(17, Duration::from_secs(2));
        measured.queued("active", "NodeAdd", 0);
        measured.queued("active", "UnschedulablePodAdd", 2);
        measured.ran(Point::Bind, "Success", Duration::from_millis(1));
        measured.preempted(Some(3));
        measured.waiting(1, 2, 3, |plugin| if plugin == Plugin::Taints { 2 } else { 0 });
        let mut out = String::new();
        measured.text(&mut out);
        for line in [
            "# TYPE scheduler_schedule_attempts_total counter",
            r#"scheduler_schedule_attempts_total{profile="default-scheduler",result="unschedulable"} 1"#,
            r#"scheduler_scheduling_attempt_duration_seconds_bucket{profile="default-scheduler",result="unschedulable",le="0.004"} 1"#,
            r#"scheduler_pod_scheduling_sli_duration_seconds_bucket{attempts="15+",le="2.56"} 1"#,
            r#"scheduler_pod_scheduling_attempts_bucket{le="16"} 0"#,
            r#"scheduler_queue_incoming_pods_total{event="UnschedulablePodAdd",queue="active"} 2"#,
            r#"scheduler_framework_extension_point_duration_seconds_count{extension_point="Bind",profile="default-scheduler",status="Success"} 1"#,
            r#"scheduler_plugin_execution_duration_seconds_count{extension_point="Bind",plugin="DefaultBinder",status="Success"} 1"#,
            "scheduler_preemption_attempts_total 1",
            r#"scheduler_preemption_victims_bucket{le="2"} 0"#,
            r#"scheduler_preemption_victims_bucket{le="4"} 1"#,
            r#"scheduler_pending_pods{queue="gated"} 3"#,
            r#"scheduler_pending_pods{queue="backoff"} 0"#,
            r#"scheduler_unschedulable_pods{plugin="TaintToleration",profile="default-scheduler"} 2"#,
        ] {
            assert!(out.lines().any(|written| written == line), "{line}\nnot in\n{out}");
        }
        assert!(!out.contains("NodeAdd"), "nothing came because of it");
    }
}
