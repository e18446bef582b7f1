//! Pods that wait for a node: those to try now, in order of priority, and those that nothing has changed for since they failed.
//!
//! As kube-scheduler's queue, with its hints: an event moves only pods that were refused by a plugin whose mind it can change. No timer moves any.
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/scheduling-framework/#queue>

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use place::{NodeChange, PodInfo, Plugin};

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

#[derive(Default)]
pub struct Waiting {
    ready: BTreeMap<Rank, Arc<PodInfo>>,
    /// Failed; tried again when the cluster changes.
    parked: BTreeMap<Rank, Parked>,
    /// Who of them was refused by whom.
    refused: BTreeMap<Plugin, BTreeSet<Rank>>,
    ranks: HashMap<String, Rank>,
    counter: u64,
}

impl Waiting {
    /// A new pod, or a new version of one that waits: it keeps its place.
    pub fn add(&mut self, pod: Arc<PodInfo>) {
        let priority = -i64::from(pod.priority);
        let known = self.ranks.get(&pod.uid).copied().filter(|rank| rank.0 == priority);
        self.remove(&pod.uid);
        let rank = known.unwrap_or_else(|| {
            self.counter += 1;
            (priority, self.counter)
        });
        self.ranks.insert(pod.uid.clone(), rank);
        self.ready.insert(rank, pod);
    }

    pub fn remove(&mut self, uid: &str) {
        if let Some(rank) = self.ranks.remove(uid) {
            self.ready.remove(&rank);
            self.unpark(rank);
        }
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
        self.ready.pop_first().map(|(_, pod)| pod)
    }

    /// No node would do, said `plugins`: wait for a change. With `held` also for `release`.
    pub fn park(&mut self, pod: Arc<PodInfo>, plugins: BTreeSet<Plugin>, held: bool) {
        if let Some(rank) = self.ranks.get(&pod.uid) {
            for plugin in &plugins {
                self.refused.entry(*plugin).or_default().insert(*rank);
            }
            self.parked.insert(*rank, Parked { pod, plugins, held, woken: false });
        }
    }

    /// What the pod was held for is done; `again` tries it whatever happened meanwhile.
    pub fn release(&mut self, uid: &str, again: bool) {
        let Some(rank) = self.ranks.get(uid).copied() else { return };
        if let Some(parked) = self.parked.get_mut(&rank) {
            parked.held = false;
            if parked.woken || again {
                self.move_up(rank);
            }
        }
    }

    fn move_up(&mut self, rank: Rank) {
        match self.parked.get_mut(&rank) {
            Some(parked) if parked.held => parked.woken = true,
            Some(_) => {
                if let Some(parked) = self.unpark(rank) {
                    self.ready.insert(rank, parked.pod);
                }
            }
            None => {}
        }
    }

    /// Something happened that one of `plugins` may see otherwise now.
    pub fn wake<'a>(&mut self, plugins: impl IntoIterator<Item = &'a Plugin>) {
        let ranks: BTreeSet<Rank> = plugins.into_iter().filter_map(|plugin| self.refused.get(plugin)).flatten().copied().collect();
        ranks.into_iter().for_each(|rank| self.move_up(rank));
    }

    /// There is a node more.
    pub fn wake_all(&mut self) {
        let ranks: Vec<Rank> = self.parked.keys().copied().collect();
        ranks.into_iter().for_each(|rank| self.move_up(rank));
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
