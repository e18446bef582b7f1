//! From what was measured to what is short: pure. Thresholds with their graces, conditions that stay for a while, and reclaim that goes a little further than needed.
//!
//! Mirrors the first half of upstream's `eviction_manager.go` `synchronize`, and its helpers.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::thresholds::{Signal, Threshold};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observation {
    pub available: i64,
    pub capacity: i64,
}

pub type Observations = BTreeMap<Signal, Observation>;

/// What is remembered from look to look.
#[derive(Debug, Default)]
pub struct Pressures {
    /// Since when a threshold has been crossed.
    since: Vec<(Threshold, Timestamp)>,
    /// Crossed and out of grace at the last look: they hold until a little more than needed is there.
    held: Vec<Threshold>,
    /// When a condition was last seen.
    seen: BTreeMap<&'static str, Timestamp>,
}

#[derive(Debug, PartialEq)]
pub struct Judgement {
    /// Of the node, by name: `DiskPressure`.
    pub conditions: Vec<&'static str>,
    /// Something has to be done about these, memory first.
    pub starved: Vec<Threshold>,
}

/// Those that are crossed; `reclaim`: or of which the least to reclaim is not reached.
pub fn crossed(thresholds: &[Threshold], observations: &Observations, reclaim: bool) -> Vec<Threshold> {
    let is_crossed = |threshold: &&Threshold| {
        let Some(observed) = observations.get(&threshold.signal) else { return false };
        let more = threshold.minimum_reclaim.filter(|_| reclaim).map_or(0, |least| least.of(observed.capacity));
        threshold.value.of(observed.capacity).saturating_add(more) > observed.available
    };
    thresholds.iter().filter(is_crossed).copied().collect()
}

impl Pressures {
    pub fn judge(&mut self, thresholds: &[Threshold], transition: SignedDuration, observations: &Observations, now: Timestamp) -> Judgement {
        let mut met = crossed(thresholds, observations, false);
        for held in crossed(&self.held, observations, true) {
            if !met.contains(&held) {
                met.push(held);
            }
        }
        let since = |threshold: &Threshold| self.since.iter().find(|(known, _)| known == threshold).map_or(now, |(_, since)| *since);
        self.since = met.iter().map(|threshold| (*threshold, since(threshold))).collect();
        for threshold in &met {
            self.seen.insert(threshold.signal.condition(), now);
        }
        self.seen.retain(|_, seen| now.duration_since(*seen) < transition || *seen == now);
        let mut starved: Vec<Threshold> = self.since.iter().filter(|(threshold, since)| now.duration_since(*since) >= threshold.grace).map(|(threshold, _)| *threshold).collect();
        self.held.clone_from(&starved);
        starved.sort_by_key(|threshold| !threshold.signal.is_memory());
        Judgement { conditions: self.seen.keys().copied().collect(), starved }
    }
}

#[cfg(test)]
mod tests {
    use super::super::thresholds::Amount;
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn threshold(signal: Signal, units: i64, grace: i64, reclaim: Option<i64>) -> Threshold {
        Threshold { signal, value: Amount::Units(units), grace: SignedDuration::from_secs(grace), minimum_reclaim: reclaim.map(Amount::Units) }
    }

    #[test]
    fn from_look_to_look() {
        let thresholds = [threshold(Signal::NodefsAvailable, 10, 0, Some(5)), threshold(Signal::MemoryAvailable, 20, 60, None), threshold(Signal::PidAvailable, 1, 0, None)];
        let mut pressures = Pressures::default();
        // second, free disk, free memory → conditions, what is starved
        let table: [(i64, i64, i64, &[&str], &[Signal]); 8] = [
            (0, 50, 50, &[], &[]),
            (10, 9, 50, &["DiskPressure"], &[Signal::NodefsAvailable]),
            // More than the threshold, but not as much as is to be reclaimed.
            (20, 14, 50, &["DiskPressure"], &[Signal::NodefsAvailable]),
            (30, 15, 50, &["DiskPressure"], &[]),
            // Gone for a while, and still said: nodes are not to flap.
            (40, 50, 10, &["DiskPressure", "MemoryPressure"], &[]),
            (99, 50, 10, &["DiskPressure", "MemoryPressure"], &[]),
            (100, 9, 10, &["DiskPressure", "MemoryPressure"], &[Signal::MemoryAvailable, Signal::NodefsAvailable]),
            (500, 50, 50, &[], &[]),
        ];
        for (second, disk, memory, conditions, starved) in table {
            let observations = Observations::from([(Signal::NodefsAvailable, Observation { available: disk, capacity: 100 }), (Signal::MemoryAvailable, Observation { available: memory, capacity: 100 })]);
            let judged = pressures.judge(&thresholds, SignedDuration::from_secs(300), &observations, at(second));
            assert_eq!((judged.conditions.as_slice(), judged.starved.iter().map(|t| t.signal).collect::<Vec<_>>()), (conditions, starved.to_vec()), "at {second}");
        }
    }
}
