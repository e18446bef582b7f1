//! Scores: which of the possible nodes is best, 0 to 100 a plugin, with upstream's default weights.

use crate::filter::tolerates;
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;
use crate::{near, spread};

pub(crate) const MAX: i64 = 100;
const WEIGHT_FIT: i64 = 1;
const WEIGHT_BALANCE: i64 = 1;
const WEIGHT_NODE_AFFINITY: i64 = 2;
const WEIGHT_POD_AFFINITY: i64 = 2;
const WEIGHT_SPREAD: i64 = 2;
const WEIGHT_TAINTS: i64 = 3;

/// NodeResourcesFit with LeastAllocated: the emptier the better.
fn least_allocated(pod: &PodInfo, node: &NodeInfo) -> i64 {
    let free = |have: i64, used: i64| if have <= 0 || used > have { 0 } else { (have - used) * MAX / have };
    let cpu = free(node.allocatable.cpu_milli, node.assumed.cpu_milli + pod.assumed.cpu_milli);
    let memory = free(node.allocatable.memory_bytes, node.assumed.memory_bytes + pod.assumed.memory_bytes);
    (cpu + memory) / 2
}

/// NodeResourcesBalancedAllocation: CPU and memory used in like parts.
fn balanced(pod: &PodInfo, node: &NodeInfo) -> i64 {
    let part = |have: i64, used: i64| if have <= 0 { 1.0 } else { (used as f64 / have as f64).min(1.0) };
    let cpu = part(node.allocatable.cpu_milli, node.requested.cpu_milli + pod.request.cpu_milli);
    let memory = part(node.allocatable.memory_bytes, node.requested.memory_bytes + pod.request.memory_bytes);
    let deviation = ((cpu - memory) / 2.0).abs();
    ((1.0 - deviation) * MAX as f64) as i64
}

/// Scales so that the largest becomes 100; with `reverse` the smallest does.
fn normalise(raw: &[i64], reverse: bool) -> Vec<i64> {
    let (low, high) = (raw.iter().copied().min().unwrap_or(0), raw.iter().copied().max().unwrap_or(0));
    if high == low {
        return vec![if reverse { MAX } else { 0 }; raw.len()];
    }
    raw.iter().map(|value| if reverse { (high - value) * MAX / (high - low) } else { (value - low) * MAX / (high - low) }).collect()
}

/// The total of each candidate.
pub fn totals(pod: &PodInfo, candidates: &[&NodeInfo], snapshot: &Snapshot) -> Vec<i64> {
    let mut totals: Vec<i64> = candidates.iter().map(|node| WEIGHT_FIT * least_allocated(pod, node) + WEIGHT_BALANCE * balanced(pod, node)).collect();
    let mut add = |weight: i64, reverse: bool, raw: Vec<i64>| {
        for (total, score) in totals.iter_mut().zip(normalise(&raw, reverse)) {
            *total += weight * score;
        }
    };
    if !pod.preferred_nodes.is_empty() {
        add(WEIGHT_NODE_AFFINITY, false, candidates.iter().map(|node| pod.preferred_nodes.iter().filter(|each| each.term.hold(node)).map(|each| each.weight).sum()).collect());
    }
    if candidates.iter().any(|node| node.taints.iter().any(|taint| taint.effect == "PreferNoSchedule")) {
        let intolerable = |node: &&NodeInfo| node.taints.iter().filter(|taint| taint.effect == "PreferNoSchedule" && !pod.tolerations.iter().any(|toleration| tolerates(toleration, taint))).count() as i64;
        add(WEIGHT_TAINTS, true, candidates.iter().map(intolerable).collect());
    }
    if let Some(weights) = near::preferences(pod, candidates, snapshot) {
        add(WEIGHT_POD_AFFINITY, false, weights);
    }
    if let Some(scores) = spread::scores(pod, candidates, snapshot) {
        for (total, score) in totals.iter_mut().zip(scores) {
            *total += WEIGHT_SPREAD * score;
        }
    }
    totals
}
