//! One figure: so many operations, how long each took as its client saw it, how long all of them, and what they cost the measured processes.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::process;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Figure {
    pub what: String,
    pub cluster: String,
    pub count: usize,
    pub failed: usize,
    pub seconds: f64,
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    /// CPU milliseconds of the processes given with `--pid`, for each operation.
    pub cpu_ms_each: Option<f64>,
    /// What the processes cost while nothing happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<Idle>,
    /// Of several rounds, whose medians the other fields are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<Spread>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spread {
    pub rounds: usize,
    /// Half of the rates lie between these.
    pub low: f64,
    pub high: f64,
    pub beside: Vec<Beside>,
}

/// How many times as fast as another.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Beside {
    pub cluster: String,
    /// The median of the ratios in each round.
    pub ratio: f64,
    /// That median's interval, in 19 of 20 cases.
    pub low: f64,
    pub high: f64,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Idle {
    pub pss_mib: f64,
    /// Of one core.
    pub cpu_percent: f64,
}

/// Runs from its making to `figure`.
pub struct Stopwatch<'a> {
    pids: &'a [u32],
    cpu: f64,
    pub start: Instant,
}

impl<'a> Stopwatch<'a> {
    pub fn start(pids: &'a [u32]) -> Self {
        Self { pids, cpu: process::cpu_seconds(pids), start: Instant::now() }
    }

    /// `latencies` may be of fewer or more things than `count`: of each event that an operation causes, for example.
    pub fn figure(self, what: impl Into<String>, cluster: &str, count: usize, failed: usize, mut latencies: Vec<Duration>) -> Figure {
        let seconds = self.start.elapsed().as_secs_f64();
        let cpu = process::cpu_seconds(self.pids) - self.cpu;
        latencies.sort_unstable();
        let at = |share: f64| latencies.get(((latencies.len() as f64 * share) as usize).min(latencies.len().saturating_sub(1))).map_or(0.0, |time| time.as_secs_f64() * 1e3);
        Figure {
            what: what.into(),
            cluster: cluster.to_owned(),
            count,
            failed,
            seconds,
            per_second: count as f64 / seconds,
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            max_ms: at(1.0),
            cpu_ms_each: (!self.pids.is_empty()).then(|| cpu * 1e3 / count.max(1) as f64),
            idle: None,
            spread: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let figure = Stopwatch::start(&[]).figure("x", "a", 100, 0, (1..=100).rev().map(Duration::from_millis).collect());
        assert_eq!((figure.p50_ms, figure.p99_ms, figure.max_ms), (51.0, 100.0, 100.0));
        assert_eq!(Stopwatch::start(&[]).figure("x", "a", 0, 0, Vec::new()).p99_ms, 0.0);
    }
}
