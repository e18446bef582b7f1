//! `backoffLimitPerIndex`: each index of an Indexed Job fails by itself, and the Job when too many have.
//!
//! How often an index has failed is written on its pods: each new one takes over the count of the one before, which is held by its finalizer until then.
//! Mirrors `indexed_job_utils.go` and `backoff_utils.go` (KEP-3850).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::k8s::api::core::v1::Pod;

use super::policy::Outcome;
use super::tracking::Counted;
use super::{BACKOFF, BACKOFF_LIMIT, FINALIZER, Work, finish_time, indexes};
use crate::meta::{annotation, created, deleting, has_finalizer, plus_seconds, until};
use crate::pods;

const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
const IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// What people have made of the annotation is no number: then it has not failed yet.
fn number(pod: &Pod, key: &str) -> i32 {
    annotation(pod, key).and_then(|text| text.parse().ok()).filter(|number| *number >= 0).unwrap_or(0)
}

fn all_failures(pod: &Pod) -> i32 {
    number(pod, FAILURES).saturating_add(number(pod, IGNORED_FAILURES))
}

impl Work<'_> {
    pub(super) fn limit_per_index(&self) -> Option<i32> {
        self.spec.backoff_limit_per_index.filter(|_| self.indexed)
    }

    /// Notes which indexes are given up, and finds the failed pods that are to be held.
    pub(super) fn track_indexes(&mut self, succeeded: &BTreeSet<i32>, ended: bool) -> (BTreeSet<i32>, BTreeMap<i32, Arc<Pod>>) {
        let Some(limit) = self.limit_per_index() else { return Default::default() };
        let completions = self.spec.completions.unwrap_or(0);
        let mut given_up = indexes::parse(self.status.failed_indexes.as_deref().unwrap_or(""), completions);
        let of = |pod: &Pod| indexes::of(pod).filter(|index| *index < completions);
        let failed: Vec<(i32, &Arc<Pod>)> =
            self.pods.iter().filter(|pod| has_finalizer(pod.as_ref(), FINALIZER) && self.failed(pod)).filter_map(|pod| Some((of(pod)?, pod))).collect();
        given_up.extend(failed.iter().filter(|(_, pod)| self.fails_index(pod, limit)).map(|(index, _)| *index));
        let mut kept: BTreeMap<i32, Arc<Pod>> = BTreeMap::new();
        if !ended && !deleting(self.job) {
            let busy: BTreeSet<i32> = self.pods.iter().filter(|pod| pods::active(pod) || pods::phase(pod) == "Succeeded").filter_map(|pod| of(pod)).collect();
            for (index, pod) in failed {
                if given_up.contains(&index) || succeeded.contains(&index) || busy.contains(&index) {
                    continue;
                }
                let rank = |pod: &Pod| (all_failures(pod), finish_time(pod).unwrap_or_else(|| created(pod)));
                if kept.get(&index).is_none_or(|known| rank(known) <= rank(pod)) {
                    kept.insert(index, pod.clone());
                }
            }
        }
        self.status.failed_indexes = Some(indexes::print(&given_up));
        (given_up, kept)
    }

    fn fails_index(&self, pod: &Pod, limit: i32) -> bool {
        match self.policy(pod) {
            Outcome::FailIndex => true,
            Outcome::Ignore => false,
            Outcome::Count | Outcome::Fail(_) => number(pod, FAILURES) >= limit,
        }
    }

    /// Why failed indexes end the Job, if they do.
    pub(super) fn failed_by_indexes(&self, counted: &Counted) -> Option<(&'static str, &'static str)> {
        let failed = super::count(counted.failed_indexes.iter());
        if self.spec.max_failed_indexes.is_some_and(|most| failed > most) {
            return Some(("MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes"));
        }
        let all = failed + super::count(counted.indexes.iter()) >= self.spec.completions.unwrap_or(0);
        (failed > 0 && all).then_some(("FailedIndexes", "Job has failed indexes"))
    }

    /// How long the index has to wait after the failure of this pod.
    pub(super) fn wait_of_index(&self, before: &Pod) -> Option<Duration> {
        let exponent = u32::try_from(all_failures(before)).unwrap_or(u32::MAX).min(16);
        let delay = BACKOFF.saturating_mul(1 << exponent).min(BACKOFF_LIMIT);
        let ended = finish_time(before).unwrap_or_else(|| created(before));
        until(plus_seconds(ended, i64::try_from(delay.as_secs()).unwrap_or(i64::MAX)), self.now)
    }

    /// What a new pod of an index says of those before it.
    pub(super) fn failures_of_index(&self, before: Option<&Arc<Pod>>) -> Vec<(String, String)> {
        if self.limit_per_index().is_none() {
            return Vec::new();
        }
        let (mut counted, mut ignored) = (0, 0);
        if let Some(before) = before {
            (counted, ignored) = (number(before, FAILURES), number(before, IGNORED_FAILURES));
            match self.policy(before) {
                Outcome::Ignore => ignored += 1,
                _ => counted += 1,
            }
        }
        let mut found = vec![(FAILURES.to_owned(), counted.to_string())];
        if ignored > 0 {
            found.push((IGNORED_FAILURES.to_owned(), ignored.to_string()));
        }
        found
    }
}
