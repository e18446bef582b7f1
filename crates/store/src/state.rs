//! The key space in memory: what is there now, and the recent events that lead back from it.
//!
//! The newest events share their objects with all who read them, and what was decoded of them; older ones keep an archive's copies,
//! which are bytes only. So the history costs what its bytes cost, however much was decoded when they were new.
//!
//! Only the one writer changes it, in revision order, when a batch is durable; readers hold the lock for a look-up or one pass over a range.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use api::Object;

use crate::config::Limits;
use crate::types::{Compacted, Event, EventKind, Page, Revision};

/// etcd's first write is revision 2: an empty store stands at 1.
pub const FIRST_REVISION: Revision = 1;
/// What an event costs beside the objects it keeps alive: itself, and its places in the history and in the runs of watches.
const EVENT_BYTES: usize = 160;
/// What an archived object costs beside its bytes.
const ARCHIVED_BYTES: usize = 128;
/// Events that still share what was decoded of their objects: watches are rarely further behind, and those that are decode for themselves.
const WARM_EVENTS: u64 = 256;

pub struct State {
    objects: BTreeMap<Arc<str>, Arc<Object>>,
    /// In order. The embedded engine's has no gaps and one event a revision; an etcd has both gaps and revisions of many events.
    history: VecDeque<Arc<Event>>,
    history_bytes: usize,
    revision: Revision,
    oldest: Revision,
    /// Events up to here are archived, but for objects that are still there.
    archived: Revision,
    object_bytes: u64,
}

/// What archiving did.
#[derive(Default)]
pub struct Archived {
    /// In place of the events of the same revisions.
    pub events: Vec<Arc<Event>>,
    /// Those, to be dropped when no lock is held: the last holders of decoded values, mostly.
    pub replaced: Vec<Arc<Event>>,
}

/// A change that is accepted: what the key becomes.
pub enum Change {
    Put(Arc<str>, Arc<Object>),
    /// The object is the last one with the delete's revision.
    Delete(Arc<str>, Arc<Object>),
}

impl State {
    pub fn new(revision: Revision) -> Self {
        Self { objects: BTreeMap::new(), history: VecDeque::new(), history_bytes: 0, revision, oldest: revision, archived: revision, object_bytes: 0 }
    }

    /// An object of a snapshot: it has no history.
    pub fn load(&mut self, key: Arc<str>, object: Arc<Object>) {
        self.object_bytes += (key.len() + object.bytes().len()) as u64;
        self.objects.insert(key, object);
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn oldest(&self) -> Revision {
        self.oldest
    }

    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Keys and values, roughly what a snapshot of them takes.
    pub fn object_bytes(&self) -> u64 {
        self.object_bytes
    }

    pub fn get(&self, key: &str) -> Option<&Arc<Object>> {
        self.objects.get(key)
    }

    /// The key as it is shared already, if it is there.
    pub fn entry(&self, key: &str) -> Option<(&Arc<str>, &Arc<Object>)> {
        self.objects.get_key_value(key)
    }

    /// Everything, for a snapshot.
    pub fn all(&self) -> Vec<(Arc<str>, Arc<Object>)> {
        self.objects.iter().map(|(key, object)| (Arc::clone(key), Arc::clone(object))).collect()
    }

    /// Makes the change visible, at its object's revision, and returns the event it is.
    pub fn apply(&mut self, change: Change) -> Arc<Event> {
        let (Change::Put(_, changed) | Change::Delete(_, changed)) = &change;
        let revision = changed.resource_version();
        self.revision = revision;
        let (kind, key, object, previous) = match change {
            Change::Put(key, object) => {
                self.object_bytes += (key.len() + object.bytes().len()) as u64;
                let previous = self.objects.insert(Arc::clone(&key), Arc::clone(&object));
                (if previous.is_some() { EventKind::Updated } else { EventKind::Created }, key, object, previous)
            }
            Change::Delete(key, object) => {
                let previous = self.objects.remove(&key);
                (EventKind::Deleted, key, object, previous)
            }
        };
        if let Some(previous) = &previous {
            self.object_bytes -= (key.len() + previous.bytes().len()) as u64;
        }
        let event = Arc::new(Event { revision, kind, key, object, previous });
        self.history_bytes += cost(&event);
        self.history.push_back(Arc::clone(&event));
        event
    }

    /// Archives what has left the newest events, and what the `fresh` ones have replaced of older ones.
    pub fn archive(&mut self, fresh: &[Arc<Event>]) -> Archived {
        let mut done = Archived::default();
        for event in fresh {
            if let Some(previous) = &event.previous
                && previous.resource_version() <= self.archived
                && let Some(index) = self.index(previous.resource_version(), &event.key)
            {
                self.archive_at(index, &mut done);
            }
        }
        let mut index = self.after(self.archived);
        while let Some(revision) = self.history.get(index).map(|event| event.revision).filter(|revision| revision + WARM_EVENTS <= self.revision) {
            self.archived = revision;
            self.archive_at(index, &mut done);
            index += 1;
        }
        done
    }

    /// Where the events after `revision` start.
    fn after(&self, revision: Revision) -> usize {
        let beyond = |index: usize| self.history.get(index).is_none_or(|event| event.revision > revision);
        // Without gaps, and with one event a revision, it is there.
        match usize::try_from(revision.saturating_sub(self.oldest)) {
            Ok(0) if beyond(0) => 0,
            Ok(guess) if guess > 0 && self.history.get(guess - 1).is_some_and(|event| event.revision <= revision) && beyond(guess) => guess,
            _ => self.history.partition_point(|event| event.revision <= revision),
        }
    }

    /// The event of that revision and key.
    fn index(&self, revision: Revision, key: &str) -> Option<usize> {
        let first = self.after(revision.checked_sub(1)?);
        self.history.range(first..).take_while(|event| event.revision == revision).position(|event| *event.key == *key).map(|at| first + at)
    }

    fn archive_at(&mut self, index: usize, done: &mut Archived) {
        let event = &self.history[index];
        let present = self.objects.get(&event.key).is_some_and(|object| Arc::ptr_eq(object, &event.object));
        let copy = |object: &Arc<Object>| if object.is_archived() { Arc::clone(object) } else { Arc::new(object.archived()) };
        let object = if present { Arc::clone(&event.object) } else { copy(&event.object) };
        // The event that made what this one replaced has its copy already, unless the history has forgotten it.
        let previous = event.previous.as_ref().map(|previous| {
            let made = self.index(previous.resource_version(), &event.key).map(|index| &self.history[index].object);
            made.filter(|made| made.is_archived() && made.resource_version() == previous.resource_version()).cloned().unwrap_or_else(|| copy(previous))
        });
        let event = Arc::new(Event { object, previous, key: Arc::clone(&event.key), ..**event });
        done.events.push(Arc::clone(&event));
        done.replaced.push(std::mem::replace(&mut self.history[index], event));
    }

    /// Nothing of ours changed up to `revision`: others count on the same counter.
    pub fn advance(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision);
    }

    /// Another state altogether, with no way back to this one: what happened in between is not known. The caller drops what it returns when the lock is released.
    pub fn replace(&mut self, mut state: State) -> State {
        state.revision = state.revision.max(self.revision);
        (state.oldest, state.archived) = (state.revision, state.revision);
        std::mem::replace(self, state)
    }

    /// Takes out what exceeds the limits, or lies at or before `through`. The caller drops it when the lock is released.
    pub fn trim(&mut self, limits: &Limits, through: Option<Revision>) -> Vec<Arc<Event>> {
        let mut gone = Vec::new();
        while let Some(first) = self.history.front() {
            let asked = through.is_some_and(|through| first.revision <= through);
            if !asked && self.history.len() <= limits.history_events && self.history_bytes <= limits.history_bytes {
                break;
            }
            self.history_bytes -= cost(first);
            self.oldest = first.revision;
            gone.extend(self.history.pop_front());
        }
        if let Some(through) = through {
            // Of revisions that were someone else's there was nothing to take out.
            self.oldest = self.oldest.max(through.min(self.revision));
        }
        gone
    }

    /// The events after `from` (exclusive), up to now.
    pub fn events(&self, from: Revision) -> impl DoubleEndedIterator<Item = &Arc<Event>> {
        self.history.range(self.after(from)..)
    }

    fn range<'a>(&'a self, prefix: &'a str, start_after: Option<&'a str>) -> impl Iterator<Item = (&'a Arc<str>, &'a Arc<Object>)> {
        let from = match start_after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        self.objects.range::<str, _>((from, Bound::Unbounded)).take_while(move |(key, _)| key.starts_with(prefix))
    }

    pub fn count(&self, prefix: &str) -> usize {
        self.range(prefix, None).count()
    }

    pub fn count_at_most(&self, prefix: &str, most: usize) -> usize {
        self.range(prefix, None).take(most).count()
    }

    pub fn list(&self, prefix: &str, at: Option<Revision>, start_after: Option<&str>, limit: usize) -> Result<Page, Compacted> {
        if let Some(asked) = at
            && asked < self.oldest
        {
            return Err(Compacted { asked, oldest: self.oldest });
        }
        let at = at.unwrap_or(self.revision).min(self.revision);
        let now = self.range(prefix, start_after);
        if at == self.revision {
            return Ok(page(now, at, limit));
        }
        // What the keys that changed since were at that revision: what the first change after it replaced.
        let mut then: BTreeMap<&Arc<str>, Option<&Arc<Object>>> = BTreeMap::new();
        for event in self.events(at) {
            if event.key.starts_with(prefix) && start_after.is_none_or(|after| *event.key > *after) {
                then.entry(&event.key).or_insert(event.previous.as_ref());
            }
        }
        Ok(page(Undone { now: now.peekable(), then: then.into_iter().peekable() }, at, limit))
    }
}

fn cost(event: &Event) -> usize {
    let kept = event.previous.as_ref().map_or(0, |object| ARCHIVED_BYTES + object.bytes().len());
    let tombstone = if event.kind == EventKind::Deleted { ARCHIVED_BYTES + event.object.bytes().len() } else { 0 };
    EVENT_BYTES + event.key.len() + kept + tombstone
}

fn page<'a>(mut items: impl Iterator<Item = (&'a Arc<str>, &'a Arc<Object>)>, revision: Revision, limit: usize) -> Page {
    let most = if limit == 0 { usize::MAX } else { limit };
    let taken = items.by_ref().take(most).map(|(key, object)| (Arc::clone(key), object.readable())).collect();
    let remaining = items.count() as u64;
    Page { items: taken, revision, more: remaining > 0, remaining }
}

/// Two ordered runs of keys merged; where both have a key, what it was then wins.
struct Undone<A: Iterator, B: Iterator> {
    now: std::iter::Peekable<A>,
    then: std::iter::Peekable<B>,
}

impl<'a, A, B> Iterator for Undone<A, B>
where
    A: Iterator<Item = (&'a Arc<str>, &'a Arc<Object>)>,
    B: Iterator<Item = (&'a Arc<str>, Option<&'a Arc<Object>>)>,
{
    type Item = (&'a Arc<str>, &'a Arc<Object>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match (self.now.peek(), self.then.peek()) {
                (Some((now, _)), Some((then, _))) if now < then => return self.now.next(),
                (Some((now, _)), Some((then, _))) if now == then => {
                    self.now.next();
                }
                (_, Some(_)) => {
                    if let Some((key, Some(object))) = self.then.next() {
                        return Some((key, object));
                    }
                }
                (_, None) => return self.now.next(),
            }
        }
    }
}
