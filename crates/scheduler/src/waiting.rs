//! Pods that wait for a node: those to try now, in order of priority, and those that nothing has changed for since they failed.
//!
//! As kube-scheduler's queue, with its hints: an event moves only pods that were refused by a plugin whose mind it can change. No timer moves any.
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/scheduling-framework/#queue>

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use place::{NodeChange, PodInfo, Plugin};
use tokio::time::Instant;

use crate::measured::Measured;

/// Room has become free: a pod has left, or is leaving.
pub const LEFT: &[Plugin] = &[Plugin::Ports, Plugin::Resources, Plugin::Volumes, Plugin::Spread, Plugin::PodAffinity];
/// A pod was placed, or has other labels: others may want to be near it.
pub const CAME: &[Plugin] = &[Plugin::Spread, Plugin::PodAffinity];
/// A namespace has other labels.
pub const NAMESPACE: &[Plugin] = &[Plugin::PodAffinity];

/// A claim, a volume or a class changed.
pub const STORAGE: &[Plugin] = &[Plugin::Volumes];

/// Whose mind a changed node can change.
pub fn by_node(change: NodeChange) -> BTreeSet<Plugin> {
    let mut plugins = BTreeSet::new();
    if change.allocatable {
        plugins.extend([Plugin::Resources, Plugin::Volumes]);
    }
    if change.labels {
        plugins.extend([Plugin::NodeAffinity, Plugin::Volumes, Plugin::Spread, Plugin::PodAffinity]);
    }
    if change.taints {
        plugins.extend([Plugin::Unschedulable, Plugin::Taints, Plugin::Spread]);
    }
    plugins
}

/// Pods with an older place in the queue come first among equal priorities.
type Rank = (i64, u64);

struct Parked {
    pod: Arc<PodInfo>,
    plugins: BTreeSet<Plugin>,
    /// Its victims are being told to go: it is not tried before all of them know.
    held: bool,
    woken: bool,
}

/// What is remembered of a pod for as long as it waits.
struct Known {
    rank: Rank,
    attempts: u32,
    first: Option<Instant>,
}

#[derive(Default)]
pub struct Waiting {
    ready: BTreeMap<Rank, Arc<PodInfo>>,
    /// Failed; tried again when the cluster changes.
    parked: BTreeMap<Rank, Parked>,
    /// Who of them was refused by whom.
    refused: BTreeMap<Plugin, BTreeSet<Rank>>,
    known: HashMap<String, Known>,
    /// Pods that are not to be tried yet.
    gated: HashSet<String>,
    counter: u64,
}

impl Waiting {
    /// A new pod, or a new version of one that waits: it keeps its place. Whether it is new.
    pub fn add(&mut self, pod: Arc<PodInfo>) -> bool {
        let priority = -i64::from(pod.priority);
        let known = self.take(&pod.uid);
        let new = known.is_none();
        let rank = known.as_ref().map(|known| known.rank).filter(|rank| rank.0 == priority).unwrap_or_else(|| {
            self.counter += 1;
            (priority, self.counter)
        });
        let (attempts, first) = known.map_or((0, None), |known| (known.attempts, known.first));
        self.known.insert(pod.uid.clone(), Known { rank, attempts, first });
        self.ready.insert(rank, pod);
        new
    }

    pub fn remove(&mut self, uid: &str) {
        self.take(uid);
    }

    /// How often it was tried, and since when; it does not wait any more.
    pub fn done(&mut self, uid: &str) -> Option<(u32, Instant)> {
        self.take(uid).and_then(|known| known.first.map(|first| (known.attempts, first)))
    }

    fn take(&mut self, uid: &str) -> Option<Known> {
        self.gated.remove(uid);
        let known = self.known.remove(uid)?;
        self.ready.remove(&known.rank);
        self.unpark(known.rank);
        Some(known)
    }

    /// A pod that is not to be tried yet, if it was not known as one.
    pub fn gate(&mut self, uid: &str) -> bool {
        self.remove(uid);
        self.gated.insert(uid.to_owned())
    }

    pub fn tell(&self, measured: &Measured) {
        measured.waiting(self.ready.len(), self.parked.len(), self.gated.len(), |plugin| self.refused.get(&plugin).map_or(0, BTreeSet::len));
    }

    fn unpark(&mut self, rank: Rank) -> Option<Parked> {
        let parked = self.parked.remove(&rank)?;
        for plugin in &parked.plugins {
            if let Some(set) = self.refused.get_mut(plugin) {
                set.remove(&rank);
            }
        }
        Some(parked)
    }

    /// The next pod to try. It is parked or removed by what comes of it.
    pub fn next(&mut self) -> Option<Arc<PodInfo>> {
        let (_, pod) = self.ready.pop_first()?;
        if let Some(known) = self.known.get_mut(&pod.uid) {
            known.attempts += 1;
            known.first.get_or_insert_with(Instant::now);
        }
        Some(pod)
    }

    /// No node would do, said `plugins`: wait for a change. With `held` also for `release`.
    pub fn park(&mut self, pod: Arc<PodInfo>, plugins: BTreeSet<Plugin>, held: bool) {
        if let Some(Known { rank, .. }) = self.known.get(&pod.uid) {
            for plugin in &plugins {
                self.refused.entry(*plugin).or_default().insert(*rank);
            }
            self.parked.insert(*rank, Parked { pod, plugins, held, woken: false });
        }
    }

    /// What the pod was held for is done; `again` tries it whatever happened meanwhile. Whether it is tried.
    pub fn release(&mut self, uid: &str, again: bool) -> bool {
        let Some(rank) = self.known.get(uid).map(|known| known.rank) else { return false };
        let Some(parked) = self.parked.get_mut(&rank) else { return false };
        parked.held = false;
        (parked.woken || again) && self.move_up(rank)
    }

    fn move_up(&mut self, rank: Rank) -> bool {
        match self.parked.get_mut(&rank) {
            Some(parked) if parked.held => {
                parked.woken = true;
                false
            }
            Some(_) => self.unpark(rank).is_some_and(|parked| self.ready.insert(rank, parked.pod).is_none()),
            None => false,
        }
    }

    /// Something happened that one of `plugins` may see otherwise now. How many are tried again.
    pub fn wake<'a>(&mut self, plugins: impl IntoIterator<Item = &'a Plugin>) -> usize {
        let ranks: BTreeSet<Rank> = plugins.into_iter().filter_map(|plugin| self.refused.get(plugin)).flatten().copied().collect();
        ranks.into_iter().filter(|rank| self.move_up(*rank)).count()
    }

    /// There is a node more.
    pub fn wake_all(&mut self) -> usize {
        let ranks: Vec<Rank> = self.parked.keys().copied().collect();
        ranks.into_iter().filter(|rank| self.move_up(*rank)).count()
    }

    pub fn knows(&self, uid: &str) -> bool {
        self.known.contains_key(uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, priority: i32) -> Arc<PodInfo> {
        Arc::new(PodInfo { uid: uid.into(), priority, ..PodInfo::default() })
    }

    fn order(waiting: &mut Waiting) -> Vec<String> {
        std::iter::from_fn(|| waiting.next()).map(|pod| pod.uid.clone()).collect()
    }

    #[test]
    fn higher_priorities_and_older_pods_first() {
        let mut waiting = Waiting::default();
        for (uid, priority) in [("a", 0), ("b", 10), ("c", 0)] {
            waiting.add(pod(uid, priority));
        }
        let first = waiting.next().unwrap();
        assert_eq!(first.uid, "b");
        waiting.park(first, BTreeSet::from([Plugin::Resources]), false);
        // A new version does not lose its place.
        waiting.add(pod("a", 0));
        assert_eq!(waiting.next().unwrap().uid, "a");
        waiting.wake(LEFT);
        assert_eq!(waiting.next().unwrap().uid, "b");
        waiting.remove("c");
        assert!(waiting.next().is_none());
    }

    #[test]
    fn events_move_only_those_they_concern() {
        let mut waiting = Waiting::default();
        for (uid, plugin) in [("cpu", Plugin::Resources), ("near", Plugin::PodAffinity), ("taint", Plugin::Taints), ("held", Plugin::Resources)] {
            waiting.add(pod(uid, 0));
            let next = waiting.next().unwrap();
            waiting.park(next, BTreeSet::from([plugin]), uid == "held");
        }
        waiting.wake(CAME);
        assert_eq!(order(&mut waiting), ["near"]);
        waiting.wake(&by_node(NodeChange { taints: true, ..NodeChange::default() }));
        assert_eq!(order(&mut waiting), ["taint"]);
        waiting.wake(LEFT);
        assert_eq!(order(&mut waiting), ["cpu"]);
        // What happened while it was held counts afterwards.
        waiting.release("held", false);
        assert_eq!(order(&mut waiting), ["held"]);
        waiting.wake_all();
        assert!(order(&mut waiting).is_empty());
    }
}
