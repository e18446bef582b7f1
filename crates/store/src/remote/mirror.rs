//! The mirror of etcd's keys: read once, then kept by one watch, which moves to another member when its own fails.
//!
//! What was missed is delivered by the watch that follows, from the revision where the last one ended; only if that is compacted by then is
//! everything read anew, and every watch on us told to do the same. Mirrors storage/cacher's reflector.

use std::sync::Arc;

use api::Object;
use etcd::{Error, Event, Range, WatchAnswer};
use tokio::time::{Instant, sleep};

use super::config::{FIRST_PAUSE, LONGEST_PAUSE, PAGE_KEYS, REQUEST_TIMEOUT};
use super::engine::Inner;
use super::keys::Keys;
use super::value::{self, Unreadable};
use crate::sealing::Sealing;
use crate::splice;
use crate::state::{Change, State};
use crate::types::Revision;

/// Everything, as of one revision.
pub struct Loaded {
    pub state: State,
    pub cluster: u64,
}

pub async fn load(client: &etcd::Client, keys: &Keys, sealing: &Sealing, deadline: Instant) -> Result<Loaded, Error> {
    let (first, end) = keys.all();
    'again: loop {
        let mut range = Range { key: first.clone(), end: end.clone(), limit: PAGE_KEYS, ..Range::default() };
        let mut loaded: Option<Loaded> = None;
        loop {
            let page = match client.range(&range, deadline.max(Instant::now() + REQUEST_TIMEOUT)).await {
                Err(error) if error.is_compacted() => continue 'again,
                page => page?,
            };
            let loaded = loaded.get_or_insert_with(|| Loaded { state: State::new(page.header.revision), cluster: page.header.cluster });
            range.revision = loaded.state.revision();
            for item in &page.items {
                let Some(key) = keys.inside(&item.key) else { continue };
                match value::object(&key, item, sealing) {
                    Ok(object) => loaded.state.load(key.into(), object),
                    Err(why @ Unreadable::Sealed(_)) => return Err(Error::Config(format!("{key}: {why}; its key must be among those of --encryption-provider-config"))),
                    Err(why) => tracing::warn!(key, %why, "a value in etcd is no object that we can read; it is left alone"),
                }
            }
            match page.items.last() {
                Some(last) if page.more => range.key = [&last.key[..], &[0]].concat(),
                _ => break,
            }
        }
        if let Some(loaded) = loaded {
            return Ok(loaded);
        }
    }
}

/// Keeps the mirror until it is aborted.
pub async fn follow(inner: Arc<Inner>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let before = inner.shared_revision();
        let ended = watch(&inner).await;
        if inner.shared_revision() > before {
            pause = FIRST_PAUSE;
        }
        match ended {
            Ended::Broken(error) => tracing::info!(%error, "the watch of etcd ended; it goes on at another member"),
            Ended::Compacted => {
                tracing::warn!("what happened in etcd while it was away is compacted: everything is read anew");
                match load(&inner.client, &inner.keys, &inner.shared.sealing, Instant::now() + REQUEST_TIMEOUT).await {
                    Ok(loaded) => replace(&inner, loaded.state),
                    Err(error) => tracing::warn!(%error, "cannot read etcd"),
                }
            }
            Ended::Stranger(cluster) => tracing::error!(expected = inner.cluster, found = cluster, "this is another etcd cluster than the one we started with; nothing of it is served"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

enum Ended {
    Broken(Error),
    Compacted,
    Stranger(u64),
}

async fn watch(inner: &Inner) -> Ended {
    let (first, end) = inner.keys.all();
    let mut watching = match inner.client.watch(&first, &end, inner.shared_revision() + 1).await {
        Ok(watching) => watching,
        Err(error) => return Ended::Broken(error),
    };
    let ended = loop {
        match watching.next().await {
            Ok(answer) if answer.header.cluster != inner.cluster => break Ended::Stranger(answer.header.cluster),
            Ok(WatchAnswer { compact_revision: 1.., .. }) => return Ended::Compacted,
            Ok(answer) if answer.canceled => break Ended::Broken(Error::Broken(format!("{}: {}", watching.origin(), answer.cancel_reason))),
            Ok(answer) if answer.created => {}
            // A sign of life with nothing in it: all that is older has been sent.
            Ok(answer) if answer.events.is_empty() => advance(inner, answer.header.revision),
            Ok(answer) => take(inner, answer.events),
            Err(error) => break Ended::Broken(error),
        }
    };
    inner.client.gave_up(&watching);
    ended
}

/// Events of whole revisions, in their order.
fn take(inner: &Inner, events: Vec<Event>) {
    let Some(last) = events.last().map(|event| event.item.mod_revision) else { return };
    let known = inner.shared_revision();
    let mut changes: Vec<Change> = Vec::with_capacity(events.len());
    {
        let state = inner.shared.state.read();
        // What the key is after the changes before.
        let now = |changes: &[Change], key: &str| {
            let change = changes.iter().rev().find(|(Change::Put(known, _) | Change::Delete(known, _))| **known == *key);
            match change {
                Some(Change::Put(_, object)) => Some(Arc::clone(object)),
                Some(Change::Delete(..)) => None,
                None => state.get(key).map(Arc::clone),
            }
        };
        for event in events.into_iter().filter(|event| event.item.mod_revision > known) {
            let Some(key) = inner.keys.inside(&event.item.key) else { continue };
            let key: Arc<str> = state.entry(&key).map_or_else(|| key.as_str().into(), |(key, _)| Arc::clone(key));
            let revision = event.item.mod_revision;
            let deleted = || now(&changes, &key).and_then(|last| splice::replace(last.bytes(), revision)).map(|bytes| Arc::new(Object::new(bytes, revision)));
            if event.deleted {
                if let Some(object) = deleted() {
                    changes.push(Change::Delete(key, object));
                }
                continue;
            }
            match value::object(&key, &event.item, &inner.shared.sealing) {
                Ok(object) => changes.push(Change::Put(key, object)),
                Err(why) => {
                    tracing::warn!(%key, %why, "a value in etcd is no object that we can read; what was there before is gone");
                    if let Some(object) = deleted() {
                        changes.push(Change::Delete(key, object));
                    }
                }
            }
        }
    }
    if !changes.is_empty() {
        inner.shared.publish(changes, None).up();
    }
    advance(inner, last);
}

fn advance(inner: &Inner, revision: Revision) {
    inner.shared.advance(revision);
    inner.reached.send_if_modified(|reached| {
        let further = revision > *reached;
        *reached = revision.max(*reached);
        further
    });
}

fn replace(inner: &Inner, state: State) {
    let revision = state.revision();
    inner.shared.replace(state);
    advance(inner, revision);
}
