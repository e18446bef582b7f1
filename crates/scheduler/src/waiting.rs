//! Pods that wait for a node: those to try now, in order of priority, and those that nothing has changed for since they failed.
//!
//! As kube-scheduler's queue: https://kubernetes.io/docs/concepts/scheduling-eviction/scheduling-framework/#queue

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use place::PodInfo;

/// Pods with an older place in the queue come first among equal priorities.
type Rank = (i64, u64);

#[derive(Default)]
pub struct Waiting {
    ready: BTreeMap<Rank, Arc<PodInfo>>,
    /// Failed; tried again when the cluster changes.
    parked: HashMap<String, (Rank, Arc<PodInfo>)>,
    ranks: HashMap<String, Rank>,
    counter: u64,
}

impl Waiting {
    /// A new pod, or a new version of one that waits.
    pub fn add(&mut self, pod: Arc<PodInfo>) {
        self.remove(&pod.uid);
        self.counter += 1;
        let rank = (-i64::from(pod.priority), self.counter);
        self.ranks.insert(pod.uid.clone(), rank);
        self.ready.insert(rank, pod);
    }

    pub fn remove(&mut self, uid: &str) {
        if let Some(rank) = self.ranks.remove(uid) {
            self.ready.remove(&rank);
            self.parked.remove(uid);
        }
    }

    /// The next pod to try. It is parked or removed by what comes of it.
    pub fn next(&mut self) -> Option<Arc<PodInfo>> {
        self.ready.pop_first().map(|(_, pod)| pod)
    }

    /// No node would do: wait for a change.
    pub fn park(&mut self, pod: Arc<PodInfo>) {
        if let Some(rank) = self.ranks.get(&pod.uid) {
            self.parked.insert(pod.uid.clone(), (*rank, pod));
        }
    }

    /// Something changed that could make room.
    pub fn wake(&mut self) {
        for (_, (rank, pod)) in self.parked.drain() {
            self.ready.insert(rank, pod);
        }
    }

    pub fn knows(&self, uid: &str) -> bool {
        self.ranks.contains_key(uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, priority: i32) -> Arc<PodInfo> {
        Arc::new(PodInfo { uid: uid.into(), priority, ..PodInfo::default() })
    }

    #[test]
    fn higher_priorities_and_older_pods_first() {
        let mut waiting = Waiting::default();
        for (uid, priority) in [("a", 0), ("b", 10), ("c", 0)] {
            waiting.add(pod(uid, priority));
        }
        let first = waiting.next().unwrap();
        assert_eq!(first.uid, "b");
        waiting.park(first);
        assert_eq!(waiting.next().unwrap().uid, "a");
        waiting.wake();
        assert_eq!(waiting.next().unwrap().uid, "b");
        waiting.remove("c");
        assert!(waiting.next().is_none());
    }
}
