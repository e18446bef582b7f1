//! Following a prefix of the store: what the API server's own background work is told by.
//!
//! Who follows starts from the state as it is, hears of every change after it, and is told to look at everything anew when it was too slow: nothing is missed.

use std::sync::Arc;

use store::{Event, Store, Watch, WatchItem};
use tokio::sync::watch;

pub enum News {
    /// The first news, and whenever changes were missed: everything is to be read anew.
    Afresh,
    /// What has happened since the last news, in order, never empty: a burst comes at once.
    Changes(Vec<Arc<Event>>),
}

/// See [`follow`].
pub struct Following {
    store: Arc<dyn Store>,
    prefix: &'static str,
    shutdown: watch::Receiver<bool>,
    events: Option<Box<dyn Watch>>,
}

/// News of what lies under `prefix`, until `shutdown` becomes true or its sender is gone.
pub fn follow(store: &Arc<dyn Store>, prefix: &'static str, shutdown: watch::Receiver<bool>) -> Following {
    Following { store: store.clone(), prefix, shutdown, events: None }
}

impl Following {
    /// `None` when it is over. Cancel-safe.
    pub async fn next(&mut self) -> Option<News> {
        loop {
            let Some(events) = &mut self.events else {
                // A revision that was compacted between the two calls is asked for again.
                self.events = self.store.watch(self.prefix, self.store.revision()).ok();
                if self.events.is_some() {
                    return Some(News::Afresh);
                }
                continue;
            };
            let item = tokio::select! {
                item = events.next() => item,
                _ = self.shutdown.wait_for(|stop| *stop) => return None,
            };
            match item? {
                WatchItem::Expired(_) => self.events = None,
                WatchItem::Progress(_) => {}
                WatchItem::Event(event) => {
                    let mut changes = vec![event];
                    while let Some(item) = events.try_next() {
                        match item {
                            WatchItem::Event(event) => changes.push(event),
                            WatchItem::Progress(_) => {}
                            WatchItem::Expired(_) => {
                                self.events = None;
                                break;
                            }
                        }
                    }
                    return Some(News::Changes(changes));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use store::{Precondition, Write};

    use super::*;

    #[tokio::test]
    async fn the_state_then_every_change_then_the_end() {
        let store: Arc<dyn Store> = Arc::new(store::Embedded::open(store::Config::memory()).unwrap());
        let put = |key: &str| {
            let object = bytes::Bytes::from_static(br#"{"apiVersion":"v1","kind":"A","metadata":{"name":"a"}}"#);
            store.commit(Write { key: key.into(), precondition: Precondition::Any, object: Some(object) })
        };
        put("/a/before").await.unwrap();
        let (stop, stopped) = watch::channel(false);
        let mut following = follow(&store, "/a/", stopped);
        assert!(matches!(following.next().await, Some(News::Afresh)));
        for key in ["/a/1", "/b/1", "/a/2"] {
            put(key).await.unwrap();
        }
        let mut keys = Vec::new();
        while keys.len() < 2 {
            let Some(News::Changes(changes)) = following.next().await else { panic!("changes") };
            keys.extend(changes.iter().map(|change| change.key.to_string()));
        }
        assert_eq!(keys, ["/a/1", "/a/2"]);
        stop.send(true).unwrap();
        assert!(following.next().await.is_none());
    }
}
