//! Watches: cursors into runs of shared events, woken only when their own prefix changed.
//!
//! All watchers of one prefix share one group: the run of its events that some of them may still need. A write finds the
//! groups of its key by the lengths of the prefixes in use, appends one `Arc`, and the group's sleepers are woken once a
//! batch. There is no queue per watcher: one that falls behind the history is told `Expired`; one whose prefix is quiet never is.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::sleepers::{Sleeper, Sleepers};
use crate::state::State;
use crate::types::{Bell, Compacted, Event, Place, Revision, Ring, Watch, WatchItem};

/// Events a watcher takes out of its group at a time.
const TAKEN_EVENTS: usize = 64;
/// No more once they have so many bytes: who takes them and then stalls keeps them when the history has long forgotten them.
const TAKEN_BYTES: usize = 128 * 1024;
/// Where a group's numbering starts, so that older events can still be put in front.
const FIRST_NUMBER: u64 = 1 << 63;

/// Numbers the runs of all stores of the process.
static RUNS: AtomicU64 = AtomicU64::new(0);

struct Group {
    prefix: Arc<str>,
    number: u64,
    run: RwLock<Run>,
    /// The number of the event that will come next: a thousand watchers who look whether there is something new need not pass the lock one by one.
    end: AtomicU64,
    /// Already among those to be woken after this batch.
    touched: AtomicBool,
    sleepers: Sleepers,
}

struct Run {
    /// Every event of the prefix after `complete_from` and up to what is published.
    events: VecDeque<Arc<Event>>,
    /// The number of the first of `events`.
    first: u64,
    complete_from: Revision,
}

#[derive(Default)]
pub struct Groups {
    by_prefix: HashMap<Arc<str>, (Arc<Group>, usize)>,
    /// How many groups have a prefix of that length.
    lengths: BTreeMap<usize, usize>,
}

impl Groups {
    fn of<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a Arc<Group>> {
        self.lengths.range(..=key.len()).filter_map(move |(length, _)| self.by_prefix.get(key.get(..*length)?)).map(|(group, _)| group)
    }
}

pub struct Hub {
    groups: Mutex<Groups>,
    /// Every event up to here is in the groups.
    published: AtomicU64,
    /// The oldest revision a watch may start from, for messages.
    oldest: AtomicU64,
    closed: AtomicBool,
}

impl Hub {
    pub fn new(revision: Revision, oldest: Revision) -> Self {
        Self { groups: Mutex::default(), published: AtomicU64::new(revision), oldest: AtomicU64::new(oldest), closed: AtomicBool::new(false) }
    }

    /// Held from before a batch becomes visible until `publish`: a watch that starts in between would miss or repeat it.
    pub fn lock(&self) -> MutexGuard<'_, Groups> {
        self.groups.lock()
    }

    /// Hands the batch to the groups. What it returns must be woken when the lock is released.
    /// Those of `archived` take the place of what the groups have of the same revisions.
    pub fn publish(&self, groups: &mut MutexGuard<'_, Groups>, events: &[Arc<Event>], archived: &[Arc<Event>], trimmed: &[Arc<Event>], oldest: Revision) -> Wake {
        self.oldest.store(oldest, Ordering::Release);
        let mut wake: Vec<Arc<Group>> = Vec::new();
        if !groups.by_prefix.is_empty() {
            for event in events {
                for group in groups.of(&event.key) {
                    let mut run = group.run.write();
                    run.events.push_back(Arc::clone(event));
                    group.end.store(run.end(), Ordering::Release);
                    drop(run);
                    if !group.touched.swap(true, Ordering::Relaxed) {
                        wake.push(Arc::clone(group));
                    }
                }
            }
            for event in archived {
                for group in groups.of(&event.key) {
                    group.run.write().replace(event);
                }
            }
            for event in trimmed {
                for group in groups.of(&event.key) {
                    group.run.write().forget(event.revision);
                }
            }
        }
        if let Some(last) = events.last() {
            self.published.store(last.revision, Ordering::Release);
        }
        Wake(wake)
    }

    /// Everything up to `revision` is in the groups: nothing of ours changed.
    pub fn advance(&self, revision: Revision) {
        self.published.fetch_max(revision, Ordering::AcqRel);
    }

    /// The state was replaced by one of `revision`: every watch has missed something.
    pub fn expire(&self, groups: &mut MutexGuard<'_, Groups>, revision: Revision) -> Wake {
        self.oldest.store(revision, Ordering::Release);
        for (group, _) in groups.by_prefix.values() {
            let mut run = group.run.write();
            run.first += run.events.len() as u64 + 1;
            run.events.clear();
            run.complete_from = revision;
            group.end.store(run.end(), Ordering::Release);
        }
        self.published.store(revision, Ordering::Release);
        Wake(groups.by_prefix.values().map(|(group, _)| Arc::clone(group)).collect())
    }

    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        for (group, _) in self.groups.lock().by_prefix.values() {
            group.sleepers.wake();
        }
    }

    /// The caller has the state under its read lock, taken after `groups`.
    pub fn watch(self: &Arc<Self>, mut groups: MutexGuard<'_, Groups>, state: &State, prefix: &str, from: Revision) -> Result<Cursor, Compacted> {
        if from < state.oldest() {
            return Err(Compacted { asked: from, oldest: state.oldest() });
        }
        let group = match groups.by_prefix.get_mut(prefix) {
            Some((group, watchers)) => {
                *watchers += 1;
                Arc::clone(group)
            }
            None => {
                let prefix: Arc<str> = prefix.into();
                let run = Run { events: VecDeque::new(), first: FIRST_NUMBER, complete_from: state.revision() };
                let group = Arc::new(Group {
                    prefix: Arc::clone(&prefix),
                    number: RUNS.fetch_add(1, Ordering::Relaxed),
                    run: RwLock::new(run),
                    end: AtomicU64::new(FIRST_NUMBER),
                    touched: AtomicBool::new(false),
                    sleepers: Sleepers::default(),
                });
                *groups.lengths.entry(prefix.len()).or_default() += 1;
                groups.by_prefix.insert(prefix, (Arc::clone(&group), 1));
                group
            }
        };
        let mut run = group.run.write();
        if from < run.complete_from {
            let until = run.complete_from;
            for event in state.events(from).take_while(|event| event.revision <= until).collect::<Vec<_>>().into_iter().rev() {
                if event.key.starts_with(prefix) {
                    run.events.push_front(Arc::clone(event));
                    run.first -= 1;
                }
            }
            run.complete_from = from;
        }
        let next = run.first + run.events.partition_point(|event| event.revision <= from) as u64;
        drop(run);
        drop(groups);
        Ok(Cursor { hub: Arc::clone(self), group, sleeper: None, next, from, position: from, taken: VecDeque::new(), expired: false })
    }
}

/// The groups a batch touched.
#[must_use]
pub struct Wake(Vec<Arc<Group>>);

impl Wake {
    pub fn up(self) {
        for group in self.0 {
            group.touched.store(false, Ordering::Relaxed);
            group.sleepers.wake();
        }
    }
}

impl Run {
    fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    fn replace(&mut self, event: &Arc<Event>) {
        let mut index = self.events.partition_point(|other| other.revision < event.revision);
        while let Some(other) = self.events.get(index).filter(|other| other.revision == event.revision) {
            if other.key == event.key {
                self.events[index] = Arc::clone(event);
                return;
            }
            index += 1;
        }
    }

    fn forget(&mut self, revision: Revision) {
        while self.events.front().is_some_and(|event| event.revision <= revision) {
            self.events.pop_front();
            self.first += 1;
            self.complete_from = self.complete_from.max(revision);
        }
    }
}

/// One watch.
pub struct Cursor {
    hub: Arc<Hub>,
    group: Arc<Group>,
    /// From its first sleep on.
    sleeper: Option<Sleeper>,
    /// The number, in the group, of the next event to take.
    next: u64,
    /// Where the watch began.
    from: Revision,
    /// The revision of the last event handed out, or where the watch began.
    position: Revision,
    /// At most `TAKEN_EVENTS`, and no further one beyond `TAKEN_BYTES`.
    taken: VecDeque<Arc<Event>>,
    expired: bool,
}

impl Cursor {
    fn hand_out(&mut self) -> Option<WatchItem> {
        let event = self.taken.pop_front()?;
        self.position = event.revision;
        Some(WatchItem::Event(event))
    }
}

impl Watch for Cursor {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<WatchItem>> {
        if let Some(item) = self.hand_out() {
            return Poll::Ready(Some(item));
        }
        // Falling asleep comes before looking, so that an event in between is not missed; who finds one comes again anyway.
        self.sleeper.get_or_insert_with(|| self.group.sleepers.join()).sleep(cx.waker());
        match self.try_next() {
            None if !self.expired && !self.is_closed() => Poll::Pending,
            item => Poll::Ready(item),
        }
    }

    fn try_next(&mut self) -> Option<WatchItem> {
        loop {
            if let Some(item) = self.hand_out() {
                return Some(item);
            }
            if self.expired || self.next == self.group.end.load(Ordering::Acquire) {
                return None;
            }
            let run = self.group.run.read();
            let Some(index) = self.next.checked_sub(run.first) else {
                self.expired = true;
                return Some(WatchItem::Expired(Compacted { asked: self.position, oldest: self.hub.oldest.load(Ordering::Acquire) }));
            };
            let index = usize::try_from(index).unwrap_or(usize::MAX).min(run.events.len());
            let end = run.events.len().min(index + TAKEN_EVENTS);
            if index == end {
                return None;
            }
            let mut bytes = 0;
            for event in run.events.range(index..end) {
                self.next += 1;
                // A watch may have begun at a revision that was still to come.
                if event.revision > self.from {
                    bytes += event.object.bytes().len();
                    self.taken.push_back(Arc::clone(event));
                }
                if bytes >= TAKEN_BYTES {
                    break;
                }
            }
        }
    }

    fn place(&self) -> Place {
        // Those taken are the last before `next`: only older ones are left out, at a watch's beginning.
        let there = !self.taken.is_empty() || (!self.expired && self.next != self.group.end.load(Ordering::Acquire));
        Place { run: self.group.number, next: self.next - self.taken.len() as u64, there }
    }

    fn bell(&self) -> Bell {
        Box::new(Chime { sleeper: self.group.sleepers.join(), group: Arc::clone(&self.group) })
    }

    fn hush(&mut self) {
        if let Some(sleeper) = self.sleeper.take() {
            self.group.sleepers.leave(&sleeper);
        }
    }

    fn is_closed(&self) -> bool {
        self.hub.closed.load(Ordering::Acquire)
    }

    fn pass(&mut self, revision: Revision) {
        if self.taken.pop_front().is_none() {
            self.next += 1;
        }
        self.position = revision;
    }

    fn delivered(&self) -> Revision {
        if let Some(waiting) = self.taken.front() {
            return (waiting.revision - 1).max(self.from);
        }
        // Read first: what is published by then is in the run by now.
        let published = self.hub.published.load(Ordering::Acquire);
        let run = self.group.run.read();
        match self.next.checked_sub(run.first) {
            Some(index) => match usize::try_from(index).ok().and_then(|index| run.events.get(index)) {
                Some(waiting) => (waiting.revision - 1).max(self.from),
                None => published.max(self.position),
            },
            None => self.position,
        }
    }
}

/// A group's bell.
struct Chime {
    group: Arc<Group>,
    sleeper: Sleeper,
}

impl Ring for Chime {
    fn listen(&self, waker: &Waker) {
        self.sleeper.sleep(waker);
    }
}

impl Drop for Chime {
    fn drop(&mut self) {
        self.group.sleepers.leave(&self.sleeper);
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.hush();
        let mut groups = self.hub.groups.lock();
        let groups = &mut *groups;
        let Some((_, watchers)) = groups.by_prefix.get_mut(&self.group.prefix) else { return };
        *watchers -= 1;
        if *watchers == 0 {
            groups.by_prefix.remove(&self.group.prefix);
            if let Some(count) = groups.lengths.get_mut(&self.group.prefix.len()) {
                *count -= 1;
                if *count == 0 {
                    groups.lengths.remove(&self.group.prefix.len());
                }
            }
        }
    }
}
