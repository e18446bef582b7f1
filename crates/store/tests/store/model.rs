//! Any run of operations against a list of everything that ever happened.

use std::collections::BTreeMap;

use proptest::prelude::*;
use store::{CommitError, Config, Embedded, EventKind, Limits, Precondition, Revision, Store, Watch, WatchItem, Write};

use crate::support::{object, served, text, wait};

const KEYS: [&str; 6] = ["a/1", "a/2", "a/2/x", "b/1", "b/10", "c"];
const PREFIXES: [&str; 5] = ["", "a/", "a/2", "b/1", "d"];
const HISTORY: u64 = 12;

#[derive(Debug, Clone, Copy)]
enum Expect {
    Absent,
    Present,
    Any,
    Current,
    Stale,
}

#[derive(Debug, Clone)]
enum Op {
    /// Queued together, so that later ones are decided over earlier ones which are not durable yet.
    Commit(Vec<(usize, Expect, bool)>),
    Compact(u64),
    List {
        prefix: usize,
        ago: u64,
        after: Option<usize>,
        limit: usize,
    },
    Watch {
        prefix: usize,
        ago: u64,
    },
    Drain,
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let expect =
        prop_oneof![Just(Expect::Absent), Just(Expect::Present), Just(Expect::Any), Just(Expect::Any), Just(Expect::Current), Just(Expect::Stale)];
    let write = (0..KEYS.len(), expect, prop::bool::weighted(0.7));
    prop_oneof![
        6 => prop::collection::vec(write, 1..8).prop_map(Op::Commit),
        1 => (0..8u64).prop_map(Op::Compact),
        4 => (0..PREFIXES.len(), 0..16u64, prop::option::of(0..KEYS.len()), 0..4usize)
            .prop_map(|(prefix, ago, after, limit)| Op::List { prefix, ago, after, limit }),
        2 => (0..PREFIXES.len(), 0..16u64).prop_map(|(prefix, ago)| Op::Watch { prefix, ago }),
        3 => Just(Op::Drain),
        1 => Just(Op::Reopen),
    ]
}

/// Everything that ever happened: the event at index i has revision i + 2.
#[derive(Default)]
struct Model {
    events: Vec<(&'static str, Option<String>)>,
    compacted: Revision,
}

impl Model {
    fn revision(&self) -> Revision {
        self.events.len() as u64 + 1
    }

    fn oldest(&self) -> Revision {
        self.compacted.max(self.revision().saturating_sub(HISTORY)).max(1)
    }

    fn at(&self, revision: Revision) -> BTreeMap<&'static str, (Revision, String)> {
        let mut state = BTreeMap::new();
        for (index, (key, data)) in self.events.iter().enumerate().take(revision as usize - 1) {
            match data {
                Some(data) => state.insert(*key, (index as u64 + 2, data.clone())),
                None => state.remove(key),
            };
        }
        state
    }

    fn now(&self) -> BTreeMap<&'static str, (Revision, String)> {
        self.at(self.revision())
    }
}

struct Run {
    store: Option<Embedded>,
    config: Config,
    model: Model,
    watches: Vec<(Box<dyn Watch>, &'static str, Revision)>,
    written: u32,
}

impl Run {
    fn store(&self) -> &Embedded {
        self.store.as_ref().unwrap()
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Commit(writes) => self.commit(writes),
            Op::Compact(ago) => {
                let revision = self.model.revision().saturating_sub(*ago);
                wait(self.store().compact(revision)).unwrap();
                self.model.compacted = self.model.compacted.max(revision);
            }
            Op::List { prefix, ago, after, limit } => self.list(PREFIXES[*prefix], *ago, after.map(|key| KEYS[key]), *limit),
            Op::Watch { prefix, ago } => {
                let from = self.model.revision().saturating_sub(*ago);
                match self.store().watch(PREFIXES[*prefix], from) {
                    Ok(watch) => {
                        assert!(from >= self.model.oldest());
                        self.watches.push((watch, PREFIXES[*prefix], from));
                    }
                    Err(compacted) => assert_eq!((compacted.asked, compacted.oldest), (from, self.model.oldest())),
                }
            }
            Op::Drain => self.drain(),
            Op::Reopen if self.config.dir.as_os_str().is_empty() => {}
            Op::Reopen => {
                self.watches.clear();
                self.store = None;
                self.store = Some(Embedded::open(self.config.clone()).unwrap());
                // What is before a snapshot cannot be had any more.
                assert!(self.store().oldest() >= self.model.oldest());
                self.model.compacted = self.store().oldest();
            }
        }
        assert_eq!((self.store().revision(), self.store().oldest()), (self.model.revision(), self.model.oldest()));
        for (key, (revision, data)) in self.model.now() {
            assert_eq!(text(&self.store().get(key).unwrap()), served(key, &data, revision));
        }
    }

    fn commit(&mut self, writes: &[(usize, Expect, bool)]) {
        let mut expected = Vec::new();
        let mut waiting = Vec::new();
        for (key, expect, is_put) in writes {
            let key = KEYS[*key];
            let current = self.model.now().get(key).map(|(revision, _)| *revision);
            let (precondition, holds) = match expect {
                Expect::Absent => (Precondition::Absent, current.is_none()),
                Expect::Present => (Precondition::Present, current.is_some()),
                Expect::Any => (Precondition::Any, true),
                Expect::Current => (Precondition::Revision(current.unwrap_or(1)), current.is_some()),
                Expect::Stale => (Precondition::Revision(1), false),
            };
            self.written += 1;
            let data = is_put.then(|| self.written.to_string());
            let write = Write { key: key.into(), precondition, object: data.as_ref().map(|data| object(key, data)) };
            waiting.push(self.store.as_ref().unwrap().commit(write));
            if holds && (*is_put || current.is_some()) {
                let last = data.clone().or_else(|| self.model.now().get(key).map(|(_, data)| data.clone())).unwrap();
                self.model.events.push((key, data));
                expected.push(Ok(served(key, &last, self.model.revision())));
            } else {
                expected.push(Err(current));
            }
        }
        for (commit, expected) in waiting.into_iter().zip(expected) {
            match (wait(commit), expected) {
                (Ok(object), Ok(expected)) => assert_eq!(text(&object), expected),
                (Err(CommitError::Precondition { current }), Err(expected)) => assert_eq!(current.map(|object| object.resource_version()), expected),
                (found, expected) => panic!("{found:?} instead of {expected:?}"),
            }
        }
    }

    fn list(&self, prefix: &str, ago: u64, after: Option<&str>, limit: usize) {
        let at = self.model.revision().saturating_sub(ago);
        let page = match self.store().list(prefix, (ago > 0).then_some(at), after, limit) {
            Ok(page) => page,
            Err(compacted) => {
                assert!(at < self.model.oldest());
                assert_eq!((compacted.asked, compacted.oldest), (at, self.model.oldest()));
                return;
            }
        };
        let all: Vec<_> = self
            .model
            .at(at)
            .into_iter()
            .filter(|(key, _)| key.starts_with(prefix) && after.is_none_or(|after| *key > after))
            .map(|(key, (revision, data))| (key.to_string(), served(key, &data, revision)))
            .collect();
        let most = if limit == 0 { all.len() } else { limit.min(all.len()) };
        let found: Vec<_> = page.items.iter().map(|(key, object)| (key.to_string(), text(object).to_string())).collect();
        assert_eq!(found, all[..most]);
        assert_eq!((page.revision, page.more, page.remaining), (at, most < all.len(), (all.len() - most) as u64));
        if ago == 0 && after.is_none() {
            assert_eq!(self.store().count(prefix), all.len());
        }
    }

    fn drain(&mut self) {
        let (model, mut kept) = (&self.model, Vec::new());
        for (mut watch, prefix, from) in std::mem::take(&mut self.watches) {
            let due =
                |after: Revision| (after.max(1) + 1..=model.revision()).find(|revision| model.events[*revision as usize - 2].0.starts_with(prefix));
            let mut position = from;
            let expired = loop {
                match (watch.try_next(), due(position)) {
                    (Some(WatchItem::Event(event)), Some(revision)) => {
                        let (key, data) = &model.events[revision as usize - 2];
                        let before = model.at(revision - 1).remove(key);
                        let kind = match (&before, data) {
                            (_, None) => EventKind::Deleted,
                            (None, _) => EventKind::Created,
                            (Some(_), _) => EventKind::Updated,
                        };
                        let shown = data.clone().or_else(|| before.as_ref().map(|(_, data)| data.clone())).unwrap();
                        assert_eq!((event.revision, event.kind, &*event.key), (revision, kind, *key));
                        assert_eq!(text(&event.object), served(key, &shown, revision));
                        assert_eq!(event.previous.as_ref().map(|object| object.resource_version()), before.map(|(revision, _)| revision));
                        position = revision;
                        assert!(watch.delivered() >= position && watch.delivered() < due(position).unwrap_or(Revision::MAX));
                    }
                    (Some(WatchItem::Expired(_)), Some(revision)) => {
                        assert!(revision <= model.oldest());
                        break true;
                    }
                    (None, None) => break false,
                    (found, due) => panic!("{found:?} instead of {due:?}"),
                }
            };
            if !expired {
                assert_eq!(watch.delivered(), model.revision());
                kept.push((watch, prefix, position));
            }
        }
        self.watches = kept;
    }
}

fn run(config: Config, ops: &[Op]) {
    let limits =
        Limits { history_events: HISTORY as usize, first_segment_bytes: 2048, segment_bytes: 4096, snapshot_log_bytes: 8192, ..Limits::default() };
    let config = Config { limits, ..config };
    let store = Some(Embedded::open(config.clone()).unwrap());
    let mut run = Run { store, config, model: Model::default(), watches: Vec::new(), written: 0 };
    for op in ops {
        run.step(op);
    }
    run.drain();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_disk_engine_does_as_the_model(ops in prop::collection::vec(op(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        run(Config::new(dir.path()), &ops);
    }

    #[test]
    fn the_memory_engine_does_as_the_model(ops in prop::collection::vec(op(), 1..60)) {
        run(Config::memory(), &ops);
    }
}
