//! What the agent measures of its own work: how long pods took to start and to be synced, what probes said. By the names of pkg/kubelet/metrics and pkg/kubelet/prober.

use std::sync::Arc;
use std::time::Duration;

use basics::histogram::{DEFAULT, Histogram, exponential, head};
use basics::metrics::{Counters, Histograms};

const OPERATIONS: &[f64] = &exponential::<14>(0.005, 2.5);
const START: &[f64] = &[
    0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.0, 30.0, 45.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0, 600.0, 900.0, 1200.0, 1800.0, 2700.0, 3600.0,
];
/// The place of `pod_uid` among a probe's labels.
const POD_UID: usize = 5;

pub struct Measured {
    probes: Counters,
    syncs: Histograms,
    relists: Histogram,
    started: Histogram,
    started_in_all: Histogram,
    containers: Counters,
    evictions: Counters,
    operations: Counters,
    operation_errors: Counters,
    operation_seconds: Histograms,
    /// What the agent asks of the API server.
    pub client: Arc<client::Measured>,
}

impl Default for Measured {
    fn default() -> Self {
        Self {
            probes: Counters::new("prober_probe_total", "[BETA] Cumulative number of a liveness, readiness or startup probe for a container by result.", &["probe_type", "result", "container", "pod", "namespace", "pod_uid"]),
            syncs: Histograms::new("kubelet_pod_worker_duration_seconds", "[ALPHA] Duration in seconds to sync a single pod. Broken down by operation type: create, update, or sync", &["operation_type"], DEFAULT),
            relists: Histogram::new(DEFAULT),
            started: Histogram::new(START),
            started_in_all: Histogram::new(START),
            containers: Counters::new("kubelet_started_containers_total", "[ALPHA] Cumulative number of containers started", &["container_type"]),
            evictions: Counters::new("kubelet_evictions", "[ALPHA] Cumulative number of pod evictions by eviction signal", &["eviction_signal"]),
            operations: Counters::new("kubelet_runtime_operations_total", "[ALPHA] Cumulative number of runtime operations by operation type.", &["operation_type"]),
            operation_errors: Counters::new("kubelet_runtime_operations_errors_total", "[ALPHA] Cumulative number of runtime operation errors by operation type.", &["operation_type"]),
            operation_seconds: Histograms::new("kubelet_runtime_operations_duration_seconds", "[ALPHA] Duration in seconds of runtime operations. Broken down by operation type.", &["operation_type"], OPERATIONS),
            client: Arc::default(),
        }
    }
}

/// A probe of a container, and what it said: `successful`, `failed` or `unknown`.
pub struct Probe<'a> {
    pub kind: &'static str,
    pub result: &'static str,
    pub container: &'a str,
    pub pod: &'a str,
    pub namespace: &'a str,
    pub pod_uid: &'a str,
}

impl Measured {
    pub fn probed(&self, probe: &Probe<'_>) {
        self.probes.add(&[probe.kind, probe.result, probe.container, probe.pod, probe.namespace, probe.pod_uid], 1);
    }

    /// A plan was carried out.
    pub fn synced(&self, operation: &str, took: Duration) {
        self.syncs.observe(&[operation], took.as_secs_f64());
    }

    /// The runtime was asked what there is of a pod.
    pub fn relisted(&self, took: Duration) {
        self.relists.observe(took.as_secs_f64());
    }

    /// All of a pod's containers run: so long after it was first seen here, and after it was made.
    pub fn started(&self, since_seen: Duration, since_made: Duration) {
        self.started.observe(since_seen.as_secs_f64());
        self.started_in_all.observe(since_made.as_secs_f64());
    }

    /// `container`, `init_container` or `ephemeral_container`.
    pub fn container_started(&self, kind: &str) {
        self.containers.add(&[kind], 1);
    }

    /// A pod has to go because there is too little of what `signal` tells.
    pub fn evicted(&self, signal: &str) {
        self.evictions.add(&[signal], 1);
    }

    /// The runtime has done something, or could not.
    pub fn operated(&self, operation: &str, good: bool, took: Duration) {
        self.operations.add(&[operation], 1);
        self.operation_seconds.observe(&[operation], took.as_secs_f64());
        if !good {
            self.operation_errors.add(&[operation], 1);
        }
    }

    pub fn text(&self, out: &mut String) {
        self.syncs.text(out);
        for (name, help, histogram) in [
            ("kubelet_pleg_pod_relist_duration_seconds", "[ALPHA] Duration in seconds for relisting a single pod in PLEG.", &self.relists),
            ("kubelet_pod_start_duration_seconds", "[ALPHA] Duration in seconds from kubelet seeing a pod for the first time to the pod starting to run", &self.started),
            ("kubelet_pod_start_total_duration_seconds", "[ALPHA] Duration in seconds to start a pod since creation, including time to pull images and run init containers, measured from pod creation timestamp to when all its containers are reported as started and observed via watch", &self.started_in_all),
        ] {
            head(out, name, "histogram", help);
            histogram.lines(out, name, "");
        }
        self.evictions.text(out);
        self.operation_seconds.text(out);
        self.operation_errors.text(out);
        self.operations.text(out);
        self.containers.text(out);
        self.client.text(out);
    }

    /// `/metrics/probes`: of pods that are still here.
    pub fn probes(&self, is_here: impl Fn(&str) -> bool) -> String {
        let mut out = String::new();
        self.probes.retain(POD_UID, is_here);
        self.probes.text(&mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_runtime_does() {
        let measured = Measured::default();
        measured.operated("run_podsandbox", true, Duration::from_millis(20));
        measured.operated("run_podsandbox", false, Duration::from_millis(2));
        let mut out = String::new();
        measured.text(&mut out);
        for line in [
            r#"kubelet_runtime_operations_total{operation_type="run_podsandbox"} 2"#,
            r#"kubelet_runtime_operations_errors_total{operation_type="run_podsandbox"} 1"#,
            r#"kubelet_runtime_operations_duration_seconds_bucket{operation_type="run_podsandbox",le="0.0125"} 1"#,
        ] {
            assert!(out.lines().any(|written| written == line), "{line}\nnot in\n{out}");
        }
    }

    #[test]
    fn probes_go_with_their_pods() {
        let measured = Measured::default();
        let probe = |result, pod_uid| Probe { kind: "Liveness", result, container: "c", pod: "p", namespace: "n", pod_uid };
        measured.probed(&probe("successful", "u1"));
        measured.probed(&probe("successful", "u1"));
        measured.probed(&probe("failed", "u2"));
        let line = "prober_probe_total{probe_type=\"Liveness\",result=\"successful\",container=\"c\",pod=\"p\",namespace=\"n\",pod_uid=\"u1\"} 2\n";
        let all = measured.probes(|_| true);
        assert!(all.contains(line) && all.contains("u2"), "{all}");
        let left = measured.probes(|uid| uid == "u1");
        assert!(left.contains(line) && !left.contains("u2"), "{left}");
    }
}
