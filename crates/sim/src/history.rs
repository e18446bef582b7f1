//! Every write of the store, in order, folded into the present state; whoever judges gets each event with the state before and after it.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::Object;
use store::{Embedded, Event, EventKind, Store, Watch, WatchItem};

use crate::ledger::Acknowledged;

/// The present objects, by the store's key.
#[derive(Default)]
pub struct State(BTreeMap<Arc<str>, Arc<Object>>);

impl State {
    pub fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.0.values()
    }

    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Arc<Object>> {
        self.0.values().filter(move |object| object.kind() == kind)
    }
}

pub struct History {
    watch: Box<dyn Watch>,
    revision: u64,
    pub state: State,
    /// Uid of the object each revision wrote.
    uids: BTreeMap<u64, String>,
    /// Writes of anything but heartbeats.
    pub writes: u64,
    /// The last of them, for messages.
    pub last_write: String,
}

impl History {
    /// To be called before the first write that counts.
    pub fn follow(store: &Embedded) -> Result<Self, store::Compacted> {
        let revision = store.oldest();
        Ok(Self { watch: store.watch("", revision)?, revision, state: State::default(), uids: BTreeMap::new(), writes: 0, last_write: String::new() })
    }

    /// The next event, already in `state`; what is wrong with it goes to `wrong`.
    pub fn next(&mut self, wrong: &mut Vec<String>) -> Option<Arc<Event>> {
        let event = match self.watch.try_next()? {
            WatchItem::Event(event) => event,
            WatchItem::Progress(_) => return self.next(wrong),
            WatchItem::Expired(compacted) => {
                wrong.push(format!("the history was cut under the checker: {compacted}"));
                return None;
            }
        };
        if event.revision <= self.revision {
            wrong.push(format!("revision {} came after {}", event.revision, self.revision));
        }
        self.revision = event.revision;
        if event.object.resource_version() != event.revision {
            wrong.push(format!("{:?} was written at revision {}", event.object, event.revision));
        }
        let before = match event.kind {
            EventKind::Deleted => self.state.0.remove(&event.key),
            _ => self.state.0.insert(event.key.clone(), event.object.clone()),
        };
        match (event.kind, &before) {
            (EventKind::Created, Some(before)) => wrong.push(format!("{:?} was created over {before:?}", event.object)),
            (EventKind::Updated | EventKind::Deleted, None) => wrong.push(format!("{:?} was changed but not there", event.object)),
            (EventKind::Updated, Some(before)) => unchangeable(before, &event.object, wrong),
            _ => {}
        }
        self.uids.insert(event.revision, event.object.meta().uid.clone());
        if event.object.kind() != "Lease" {
            self.writes += 1;
            self.last_write = format!("{:?} {:?}", event.kind, event.object);
            if event.object.kind() == "Event" {
                self.last_write += &String::from_utf8_lossy(event.object.bytes());
            }
        }
        Some(event)
    }

    /// Acknowledged writes that never happened.
    pub fn lost(&self, acknowledged: &BTreeMap<u64, Acknowledged>) -> Vec<String> {
        acknowledged
            .iter()
            .filter(|(revision, written)| self.uids.get(revision) != Some(&written.uid))
            .map(|(revision, written)| format!("{} was told that {} was written at revision {revision}, but it is not there", written.component, written.object))
            .collect()
    }
}

/// What holds of every object as long as it has the same uid.
fn unchangeable(before: &Object, after: &Object, wrong: &mut Vec<String>) {
    let (old, new) = (before.meta(), after.meta());
    if old.uid != new.uid {
        wrong.push(format!("{after:?} changed its uid"));
    }
    if old.creation_timestamp != new.creation_timestamp {
        wrong.push(format!("{after:?} changed its creation time"));
    }
    if old.deletion_timestamp.is_some() && new.deletion_timestamp.is_none() {
        wrong.push(format!("{after:?} was to be deleted and came back"));
    }
    if old.generation > new.generation {
        wrong.push(format!("the generation of {after:?} went back"));
    }
}
