//! Counting ended pods exactly once, over crashes and stale caches.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use api::k8s::api::core::v1::Pod;

use super::{FINALIZER, Work, indexes, release};
use crate::meta::{deleting, has_finalizer, non_zero, uid};
use crate::pods;

/// What has ended, the uncounted included.
pub(super) struct Counted {
    pub succeeded: i32,
    pub failed: i32,
    pub indexes: BTreeSet<i32>,
    /// With `backoffLimitPerIndex`: those given up.
    pub failed_indexes: BTreeSet<i32>,
    /// With `backoffLimitPerIndex`, by index: the last failed pod, held until the next one has taken over how often the index has failed.
    pub kept: BTreeMap<i32, Arc<Pod>>,
    /// A pod whose failure ends the Job by its failure policy.
    pub fatal: Option<String>,
}

impl Work<'_> {
    pub(super) fn uncounted(&self) -> usize {
        let uncounted = self.status.uncounted_terminated_pods.as_ref();
        uncounted.map_or(0, |lists| lists.succeeded.as_ref().map_or(0, Vec::len) + lists.failed.as_ref().map_or(0, Vec::len))
    }

    /// One step: counts what was released, notes what has ended, releases what is noted.
    pub(super) fn track(&mut self) -> Counted {
        let held: HashMap<&str, bool> = self.pods.iter().map(|pod| (uid(pod.as_ref()), has_finalizer(pod.as_ref(), FINALIZER))).collect();
        let mut lists = self.status.uncounted_terminated_pods.clone().unwrap_or_default();
        let completions = self.spec.completions.unwrap_or(0);
        let mut done = indexes::parse(self.status.completed_indexes.as_deref().unwrap_or(""), completions);
        let (mut succeeded, mut failed) = (self.status.succeeded.unwrap_or(0), self.status.failed.unwrap_or(0));
        // Without its finalizer it will not be seen again: it counts.
        let settle = |list: &mut Option<Vec<String>>, counter: &mut i32| {
            let list = list.get_or_insert_default();
            let before = list.len();
            list.retain(|uid| held.get(uid.as_str()).copied().unwrap_or(false));
            *counter += i32::try_from(before - list.len()).unwrap_or(0);
        };
        // Successes of an Indexed Job are counted by their indexes.
        let mut by_index = 0;
        settle(&mut lists.succeeded, if self.indexed { &mut by_index } else { &mut succeeded });
        settle(&mut lists.failed, &mut failed);

        let (mut fatal, mut released) = (None, Vec::new());
        let ended = self.finished() || self.standing_verdict().is_some();
        let (failed_indexes, kept) = self.track_indexes(&done, ended);
        for pod in self.pods.iter().filter(|pod| has_finalizer(pod.as_ref(), FINALIZER)) {
            let id = uid(pod.as_ref()).to_owned();
            let noted = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| list.contains(&id));
            if noted(&lists.succeeded) || noted(&lists.failed) {
                released.push(pod.clone());
            } else if pods::phase(pod) == "Succeeded" {
                match indexes::of(pod) {
                    // A second pod of the same index, or one beyond the number wanted, does not count.
                    Some(index) if self.indexed && (index >= completions || !done.insert(index)) => {}
                    None if self.indexed => {}
                    _ => lists.succeeded.get_or_insert_default().push(id),
                }
                released.push(pod.clone());
            } else if indexes::of(pod).and_then(|index| kept.get(&index)).is_some_and(|kept| uid(kept.as_ref()) == id) {
                if let super::policy::Outcome::Fail(message) = self.policy(pod) {
                    fatal.get_or_insert(message);
                }
            } else if self.failed(pod) {
                let verdict = self.policy(pod);
                if let super::policy::Outcome::Fail(message) = &verdict {
                    fatal.get_or_insert(message.clone());
                }
                if !matches!(verdict, super::policy::Outcome::Ignore) && (!ended || pods::finished(pod)) {
                    lists.failed.get_or_insert_default().push(id);
                }
                released.push(pod.clone());
            } else if ended && deleting(pod.as_ref()) {
                released.push(pod.clone());
            }
        }
        if self.indexed {
            succeeded = i32::try_from(done.len()).unwrap_or(i32::MAX);
            self.status.completed_indexes = Some(indexes::print(&done)).filter(|text| !text.is_empty());
        }
        let listed = |list: &Option<Vec<String>>| list.as_ref().map_or(0, |list| i32::try_from(list.len()).unwrap_or(i32::MAX));
        let counted = Counted {
            succeeded: if self.indexed { succeeded } else { succeeded + listed(&lists.succeeded) },
            failed: failed + listed(&lists.failed) + i32::try_from(kept.len()).unwrap_or(i32::MAX),
            indexes: done,
            failed_indexes,
            kept,
            fatal,
        };
        for list in [&mut lists.succeeded, &mut lists.failed] {
            *list = list.take().filter(|list| !list.is_empty());
        }
        self.status.succeeded = non_zero(succeeded);
        self.status.failed = non_zero(failed);
        self.status.uncounted_terminated_pods = Some(lists);
        self.after.extend(released.iter().map(|pod| release(pod)));
        counted
    }
}
