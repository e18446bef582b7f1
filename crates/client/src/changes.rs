//! The changes an informer tells one subscriber: a queue that holds each object once, so it is never longer than there are objects.
//!
//! A subscriber that is slow gets several changes of an object as one, from the oldest state it has not seen to the newest.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::cache::{Change, ObjectKey};

#[derive(Default)]
struct State {
    order: VecDeque<ObjectKey>,
    pending: HashMap<ObjectKey, Change>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Notify,
}

/// The receiving end: see the module head. One taker at a time.
pub struct Changes(Arc<Shared>);

pub(crate) struct Inbox(Weak<Shared>);

impl Inbox {
    /// To no effect once the subscriber is gone.
    pub(crate) fn push(&self, change: &Change) {
        let Some(shared) = self.0.upgrade() else { return };
        let mut state = shared.state.lock();
        match state.pending.get_mut(&change.key) {
            Some(pending) => pending.new = change.new.clone(),
            None => {
                state.order.push_back(change.key.clone());
                state.pending.insert(change.key.clone(), change.clone());
            }
        }
        drop(state);
        shared.wake.notify_one();
    }
}

impl Changes {
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    pub(crate) fn inbox(&self) -> Inbox {
        Inbox(Arc::downgrade(&self.0))
    }

    /// The next change, without waiting. An object that came and went unseen is not mentioned.
    pub fn try_next(&mut self) -> Option<Change> {
        let mut state = self.0.state.lock();
        loop {
            let key = state.order.pop_front()?;
            if let Some(change) = state.pending.remove(&key).filter(|change| change.old.is_some() || change.new.is_some()) {
                return Some(change);
            }
        }
    }

    /// The next change, once there is one. Cancel-safe.
    pub async fn next(&mut self) -> Change {
        loop {
            if let Some(change) = self.try_next() {
                return change;
            }
            self.0.wake.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Object;

    fn object(revision: u64) -> Option<Arc<Object>> {
        Some(Arc::new(Object::new(format!(r#"{{"metadata":{{"name":"a","resourceVersion":"{revision}"}}}}"#).into(), revision)))
    }

    #[tokio::test]
    async fn several_changes_of_an_object_become_one() {
        let mut changes = Changes::new();
        let inbox = changes.inbox();
        let key = |name| ObjectKey::new("", name);
        inbox.push(&Change { key: key("a"), old: object(1), new: object(2) });
        inbox.push(&Change { key: key("b"), old: None, new: object(3) });
        inbox.push(&Change { key: key("a"), old: object(2), new: object(4) });
        inbox.push(&Change { key: key("b"), old: object(3), new: None });
        let change = changes.next().await;
        assert_eq!((change.old.unwrap().resource_version(), change.new.unwrap().resource_version()), (1, 4));
        assert!(changes.try_next().is_none(), "b came and went");
    }
}
