//! Many writers across many segments, snapshots, compactions and restarts, after which every object is compared.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use store::{Embedded, EventKind, Precondition, Store, Watch, WatchItem, Write};

use crate::support::{object, small};

const WRITERS: u64 = 8;
const WRITES: u64 = 400;
const LIVES: u64 = 5;

/// What a client keeps by list and watch.
struct Follower {
    watch: Box<dyn Watch>,
    seen: HashMap<String, Bytes>,
    lists: u32,
}

impl Follower {
    fn new(store: &Embedded) -> Self {
        let page = store.list("", None, None, 0).unwrap();
        let seen = page.items.iter().map(|(key, object)| (key.to_string(), object.bytes().clone())).collect();
        Self { watch: store.watch("", page.revision).unwrap(), seen, lists: 1 }
    }

    /// Until it has caught up with the store at `revision`.
    async fn follow(&mut self, store: &Embedded, revision: u64) {
        while self.watch.delivered() < revision {
            match self.watch.next().await {
                Some(WatchItem::Event(event)) if event.kind == EventKind::Deleted => drop(self.seen.remove(&*event.key)),
                Some(WatchItem::Event(event)) => drop(self.seen.insert(event.key.to_string(), event.object.bytes().clone())),
                Some(WatchItem::Expired(_)) => *self = Self { lists: self.lists + 1, ..Self::new(store) },
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn nothing_is_lost_across_compactions_snapshots_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let mut expected: HashMap<String, Bytes> = HashMap::new();
    let mut snapshots = 0;
    for life in 0..LIVES {
        let store = Arc::new(Embedded::open(small(dir.path())).unwrap());
        snapshots += u32::from(store.report().snapshot.is_some());
        let mut follower = Follower::new(&store);
        assert_eq!(follower.seen, expected, "life {life}");
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let store = Arc::clone(&store);
                runtime.spawn(async move {
                    let mut mine: HashMap<String, Option<Bytes>> = HashMap::new();
                    let mut dice = life * WRITERS + writer + 1;
                    for round in 0..WRITES {
                        dice = dice.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                        let key = format!("kind{}/w{writer}-{}", dice >> 33 & 3, dice >> 40 & 15);
                        let known = store.get(&key).map(|object| object.resource_version());
                        let precondition = known.map_or(Precondition::Absent, Precondition::Revision);
                        let is_delete = known.is_some() && dice >> 50 & 3 == 0;
                        let value = (!is_delete).then(|| object(&key, &"x".repeat((dice >> 52 & 1023) as usize)));
                        let done = store.commit(Write { key: key.clone(), precondition, object: value }).await.unwrap();
                        mine.insert(key, (!is_delete).then(|| done.bytes().clone()));
                        if round % 50 == 49 {
                            store.compact(store.revision().saturating_sub(20)).await.unwrap();
                        }
                    }
                    mine
                })
            })
            .collect();
        runtime.block_on(async {
            for writer in writers {
                for (key, value) in writer.await.unwrap() {
                    match value {
                        Some(value) => expected.insert(key, value),
                        None => expected.remove(&key),
                    };
                }
                follower.follow(&store, store.revision()).await;
            }
            follower.follow(&store, store.revision()).await;
        });
        assert_eq!(store.revision(), 1 + (life + 1) * WRITERS * WRITES);
        assert_eq!(follower.seen, expected, "the follower, life {life}");
        let page = store.list("", None, None, 0).unwrap();
        let listed: HashMap<_, _> = page.items.iter().map(|(key, object)| (key.to_string(), object.bytes().clone())).collect();
        assert_eq!(listed, expected, "life {life}");
    }
    assert!(snapshots >= 3, "{snapshots}");
}
