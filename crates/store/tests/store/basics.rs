//! The contract, case by case, on the disk engine, the memory engine and a real etcd alike.

use std::time::Duration;

use store::{CommitError, Compacted, Config, Embedded, EventKind, Limits, OpenError, Precondition, Remote, RemoteConfig, Store, WatchItem, Write};

use crate::etcd_process::Etcd;
use crate::support::{delete, object, put, served, text, wait};

/// On every engine; etcd's own counter starts at 1 as well, so each case has an etcd of its own.
fn both(test: impl Fn(Box<dyn Store>)) {
    let dir = tempfile::tempdir().unwrap();
    test(Box::new(Embedded::open(Config::new(dir.path())).unwrap()));
    test(Box::new(Embedded::open(Config::memory()).unwrap()));
    let etcd = Etcd::start(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let config = RemoteConfig { root: String::new(), ..RemoteConfig::kubernetes(etcd.config(), "/registry") };
    test(Box::new(runtime.block_on(Remote::open(config)).unwrap()));
}

#[test]
fn counts_revisions_as_etcd_does() {
    both(|store| {
        assert_eq!((store.revision(), store.oldest()), (1, 1));
        let first = put(&*store, "pods/a", "1").unwrap();
        assert_eq!(text(&first), served("pods/a", "1", 2));
        assert_eq!(first.resource_version(), 2);
        assert_eq!(put(&*store, "pods/a", "2").unwrap().resource_version(), 3);
        let gone = delete(&*store, "pods/a").unwrap();
        assert_eq!(text(&gone), served("pods/a", "2", 4));
        assert!(store.get("pods/a").is_none());
        assert_eq!(wait(store.barrier()).unwrap(), 4);
    });
}

#[test]
fn preconditions() {
    both(|store| {
        let commit = |precondition, object| wait(store.commit(Write { key: "k/a".into(), precondition, object }));
        let some = || Some(object("a", "x"));
        let refused = |outcome| match outcome {
            Err(CommitError::Precondition { current }) => current.map(|object: std::sync::Arc<api::Object>| object.resource_version()),
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(commit(Precondition::Present, some())), None);
        assert_eq!(refused(commit(Precondition::Revision(1), some())), None);
        assert_eq!(refused(commit(Precondition::Any, None)), None);
        commit(Precondition::Absent, some()).unwrap();
        assert_eq!(refused(commit(Precondition::Absent, some())), Some(2));
        assert_eq!(refused(commit(Precondition::Revision(1), None)), Some(2));
        commit(Precondition::Revision(2), some()).unwrap();
        commit(Precondition::Present, some()).unwrap();
        commit(Precondition::Revision(4), None).unwrap();
        assert_eq!(store.revision(), 5);
    });
}

#[test]
fn refuses_what_is_too_large_or_not_an_object() {
    both(|store| {
        let large = object("a", &"x".repeat(store::MAX_OBJECT_BYTES));
        let size = large.len();
        let outcome = wait(store.commit(Write { key: "k/a".into(), precondition: Precondition::Any, object: Some(large) }));
        assert!(matches!(outcome, Err(CommitError::TooLarge { size: found, limit: store::MAX_OBJECT_BYTES }) if found == size));
        let outcome = wait(store.commit(Write { key: "k/a".into(), precondition: Precondition::Any, object: Some("{}".into()) }));
        assert!(matches!(outcome, Err(CommitError::Unavailable(_))));
        assert_eq!(store.revision(), 1);
    });
}

#[test]
fn pages_and_the_past() {
    both(|store| {
        for key in ["b/1", "a/3", "a/1", "a/2", "a"] {
            put(&*store, key, "old").unwrap();
        }
        let keys = |at, after, limit| {
            let page = store.list("a/", at, after, limit).unwrap();
            (page.items.iter().map(|(key, _)| key.to_string()).collect::<Vec<_>>(), page.more, page.remaining)
        };
        assert_eq!(keys(None, None, 0), (vec!["a/1".into(), "a/2".into(), "a/3".into()], false, 0));
        assert_eq!(keys(None, None, 2), (vec!["a/1".into(), "a/2".into()], true, 1));
        delete(&*store, "a/3").unwrap();
        put(&*store, "a/2", "new").unwrap();
        put(&*store, "a/4", "new").unwrap();
        assert_eq!(keys(Some(6), Some("a/2"), 2), (vec!["a/3".into()], false, 0));
        assert_eq!(keys(Some(4), None, 0), (vec!["a/1".into(), "a/3".into()], false, 0));
        assert_eq!(text(&store.list("a/2", Some(6), None, 0).unwrap().items[0].1), served("a/2", "old", 5));
        assert_eq!((store.count("a/"), store.count(""), store.count("c")), (3, 5, 0));

        wait(store.compact(6)).unwrap();
        assert_eq!(store.oldest(), 6);
        assert_eq!(keys(Some(6), None, 0).0.len(), 3);
        assert_eq!(store.list("a/", Some(5), None, 0).unwrap_err(), Compacted { asked: 5, oldest: 6 });
        assert_eq!(store.watch("a/", 5).err(), Some(Compacted { asked: 5, oldest: 6 }));
        wait(store.compact(3)).unwrap();
        assert_eq!(store.oldest(), 6);
        let now = store.revision();
        wait(store.compact(1000)).unwrap();
        assert!(store.oldest() >= now);
    });
}

#[test]
fn watches_from_the_past_and_on() {
    both(|store| {
        put(&*store, "a/1", "1").unwrap();
        put(&*store, "b/1", "1").unwrap();
        put(&*store, "a/1", "2").unwrap();
        let mut watch = store.watch("a/", 2).unwrap();
        let mut all = store.watch("", 1).unwrap();
        let mut ahead = store.watch("a/", 5).unwrap();
        assert_eq!(watch.delivered(), 3);
        delete(&*store, "a/1").unwrap();
        put(&*store, "b/2", "1").unwrap();
        let event = |item| match item {
            Some(WatchItem::Event(event)) => (event.revision, event.kind, event.previous.as_ref().map(|object| object.resource_version())),
            other => panic!("{other:?}"),
        };
        assert_eq!(event(wait(watch.next())), (4, EventKind::Updated, Some(2)));
        assert_eq!(watch.delivered(), 4);
        assert_eq!(event(watch.try_next()), (5, EventKind::Deleted, Some(4)));
        assert!(watch.try_next().is_none());
        assert_eq!(watch.delivered(), 6);
        for revision in 2..=6 {
            assert_eq!(event(all.try_next()).0, revision);
        }
        assert!(ahead.try_next().is_none());
        put(&*store, "a/2", "1").unwrap();
        assert_eq!(event(ahead.try_next()).0, 7);
        drop(store);
        assert_eq!(event(wait(watch.next())).0, 7);
        assert!(wait(watch.next()).is_none());
    });
}

#[test]
fn a_sleeping_watch_is_woken() {
    let dir = tempfile::tempdir().unwrap();
    let store = std::sync::Arc::new(Embedded::open(Config::new(dir.path())).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let mut watch = store.watch("a/", 1).unwrap();
    let waiting = runtime.spawn(async move { watch.next().await });
    put(&*store, "b/1", "1").unwrap();
    put(&*store, "a/1", "1").unwrap();
    let item = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), waiting).await }).unwrap().unwrap();
    assert!(matches!(item, Some(WatchItem::Event(event)) if event.revision == 3));
}

#[test]
fn only_a_watch_that_missed_something_expires() {
    let limits = Limits { history_events: 10, ..Limits::default() };
    let store = Embedded::open(Config { limits, ..Config::memory() }).unwrap();
    let mut slow = store.watch("busy/", 1).unwrap();
    let mut quiet = store.watch("quiet/", 1).unwrap();
    for index in 0..30 {
        put(&store, &format!("busy/{index}"), "1").unwrap();
    }
    assert_eq!(store.oldest(), 21);
    assert!(matches!(slow.try_next(), Some(WatchItem::Expired(Compacted { asked: 1, oldest: 21 }))));
    assert!(wait(slow.next()).is_none());
    assert!(quiet.try_next().is_none());
    assert_eq!(quiet.delivered(), 31);
    put(&store, "quiet/1", "1").unwrap();
    assert!(matches!(quiet.try_next(), Some(WatchItem::Event(_))));
}

#[test]
fn the_history_keeps_bytes_only() {
    let store = Embedded::open(Config::memory()).unwrap();
    let mut watch = store.watch("a/", 1).unwrap();
    let decoded = |object: &std::sync::Arc<api::Object>| {
        assert!(!object.meta().name.is_empty());
        std::sync::Arc::downgrade(object)
    };
    let mut objects = Vec::new();
    for index in 0..1000 {
        put(&store, &format!("a/{}", index % 10), "1").unwrap();
        objects.push(decoded(&store.get(&format!("a/{}", index % 10)).unwrap()));
    }
    // What is there now, and what the newest events share.
    let alive = objects.iter().filter(|object| object.strong_count() > 0).count();
    assert!((10..300).contains(&alive), "{alive}");
    // The past is as it was, for watches and lists alike; reading it keeps nothing either.
    let past = store.list("a/", Some(501), None, 0).unwrap();
    assert_eq!(past.items.iter().map(|(_, object)| object.resource_version()).collect::<Vec<_>>(), (492..=501).collect::<Vec<_>>());
    assert!(past.items.iter().all(|(_, object)| !object.is_archived()));
    let mut late = store.watch("a/", 600).unwrap();
    for revision in 2..=1001 {
        let Some(WatchItem::Event(event)) = watch.try_next() else { panic!("no event {revision}") };
        assert_eq!((event.revision, event.object.resource_version()), (revision, revision));
        assert_eq!(event.previous.as_ref().map(|previous| previous.resource_version()), revision.checked_sub(10).filter(|revision| *revision > 1));
        assert_eq!(event.object.is_archived(), revision <= 1001 - 256);
        assert!(!event.object.readable().meta().name.is_empty());
        assert!(revision > 1001 - 256 || !event.object.is_decoded());
    }
    assert!(matches!(late.try_next(), Some(WatchItem::Event(event)) if event.revision == 601 && event.object.is_archived()));
    // An object that outlived its event's youth, and then is replaced.
    put(&store, "b/1", "1").unwrap();
    let old = decoded(&store.get("b/1").unwrap());
    for _ in 0..600 {
        put(&store, "a/1", "1").unwrap();
    }
    assert_eq!(old.strong_count(), 2, "the state's, and its event's");
    delete(&store, "b/1").unwrap();
    for _ in 0..300 {
        put(&store, "a/1", "1").unwrap();
    }
    assert_eq!(old.strong_count(), 0);
}

#[test]
fn history_is_bounded_by_bytes() {
    let limits = Limits { history_bytes: 100_000, ..Limits::default() };
    let store = Embedded::open(Config { limits, ..Config::memory() }).unwrap();
    for _ in 0..50 {
        put(&store, "a/1", &"x".repeat(10_000)).unwrap();
    }
    let kept = store.revision() - store.oldest();
    assert!((5..10).contains(&kept), "{kept}");
}

#[test]
fn reopens_with_everything() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(Config::new(dir.path())).unwrap();
    for index in 0..20 {
        put(&store, &format!("a/{index}"), "1").unwrap();
    }
    delete(&store, "a/7").unwrap();
    wait(store.compact(9)).unwrap();
    let before = store.list("", None, None, 0).unwrap();
    assert!(
        matches!(Embedded::open(Config::new(dir.path())), Err(OpenError::Locked { holder, .. }) if holder == format!("process {}", std::process::id()))
    );
    drop(store);
    let store = Embedded::open(Config::new(dir.path())).unwrap();
    let after = store.list("", None, None, 0).unwrap();
    assert_eq!(before.revision, after.revision);
    assert_eq!(store.oldest(), 9);
    assert_eq!(store.report().torn, None);
    let flat = |page: &store::Page| page.items.iter().map(|(key, object)| (key.clone(), object.bytes().clone())).collect::<Vec<_>>();
    assert_eq!(flat(&before), flat(&after));
    assert_eq!(put(&store, "a/7", "2").unwrap().resource_version(), 23);
}

#[test]
fn a_snapshot_is_restored_into_an_empty_directory() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = other.path().join("backup");
    let store = Embedded::open(Config::new(dir.path())).unwrap();
    put(&store, "a/1", "1").unwrap();
    put(&store, "a/2", "1").unwrap();
    assert_eq!(wait(store.snapshot(&file)).unwrap(), 3);
    put(&store, "a/3", "1").unwrap();
    assert!(matches!(Embedded::restore(&file, dir.path()), Err(OpenError::NotEmpty { .. })));
    let target = other.path().join("restored");
    assert_eq!(Embedded::restore(&file, &target).unwrap(), 3);
    for _ in 0..2 {
        let restored = Embedded::open(Config::new(&target)).unwrap();
        assert_eq!(restored.count("a/"), 2);
        assert_eq!(restored.report().snapshot, Some(3));
    }
    let restored = Embedded::open(Config::new(&target)).unwrap();
    assert_eq!(put(&restored, "a/9", "1").unwrap().resource_version(), 4);
}

/// Secrets are in it.
#[test]
fn only_its_owner_reads_it() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (dir, snapshot) = (folder.path().join("store"), folder.path().join("snapshot"));
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    // As older versions made it.
    std::fs::create_dir(&dir).unwrap();
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    let store = Embedded::open(Config::new(&dir)).unwrap();
    put(&store, "secrets/a", "1").unwrap();
    wait(store.snapshot(&snapshot)).unwrap();
    assert_eq!((mode(&dir), mode(&snapshot)), (0o700, 0o600));
    for entry in std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.file_name().unwrap() != "lock") {
        assert_eq!(mode(&entry), 0o600, "{}", entry.display());
    }
}
