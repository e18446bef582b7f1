//! What only an etcd has: other writers, members that die, leases, compaction by one of many, an outage.

use std::sync::Arc;
use std::time::Duration;

use store::{CommitError, EventKind, Precondition, Remote, RemoteConfig, Store, Watch, WatchItem, Write};

use crate::etcd_process::Etcd;
use crate::support::object;

const WRITERS: usize = 6;
const WRITES: usize = 60;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn config(etcd: &Etcd) -> RemoteConfig {
    RemoteConfig::kubernetes(etcd.config(), "/registry")
}

fn write(key: &str, precondition: Precondition, data: &str) -> Write {
    Write { key: key.into(), precondition, object: Some(object("a", data)) }
}

async fn event(watch: &mut Box<dyn Watch>) -> (u64, EventKind, String) {
    match watch.next().await {
        Some(WatchItem::Event(event)) => (event.revision, event.kind, event.key.to_string()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_servers_see_each_other() {
    let etcd = Etcd::start(1);
    runtime().block_on(async {
        let (a, b) = (Remote::open(config(&etcd)).await.unwrap(), Remote::open(config(&etcd)).await.unwrap());
        let mut seen = b.watch("/registry/", b.revision()).unwrap();
        let first = a.commit(write("/registry/x/1", Precondition::Absent, "1")).await.unwrap().resource_version();
        // A consistent read of the other one has it.
        assert!(b.barrier().await.unwrap() >= first);
        assert_eq!(b.get("/registry/x/1").unwrap().resource_version(), first);
        assert_eq!(event(&mut seen).await, (first, EventKind::Created, "/registry/x/1".into()));
        // Of two that rest on the same revision one wins, and the loser knows what is there.
        let (one, two) = tokio::join!(a.commit(write("/registry/x/1", Precondition::Revision(first), "a")), b.commit(write("/registry/x/1", Precondition::Revision(first), "b")));
        let (won, lost) = if one.is_ok() { (one, two) } else { (two, one) };
        let won = won.unwrap().resource_version();
        assert!(matches!(lost, Err(CommitError::Precondition { current: Some(current) }) if current.resource_version() == won));

        // What upstream wrote is read; what nobody can read is passed over; one revision may be that of several keys.
        let client = etcd::Client::new(etcd.config()).unwrap();
        let put = |key: &str, value: &'static [u8]| etcd::Operation::Put { key: key.into(), value: bytes::Bytes::from_static(value), lease: 0 };
        let protobuf = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x05\x0a\x03\x0a\x01p";
        let success = vec![put("/registry/x/2", protobuf), put("/registry/x/3", br#"{"kind":"A","apiVersion":"v1","metadata":{"name":"c"}}"#), put("/registry/x/4", b"nonsense")];
        let at = client.transaction(&etcd::Transaction { success, ..Default::default() }).await.unwrap().header.revision;
        assert!(a.barrier().await.unwrap() >= at);
        assert_eq!(a.get("/registry/x/2").unwrap().meta().name, "p");
        assert_eq!(a.get("/registry/x/3").unwrap().resource_version(), at);
        assert_eq!(a.count("/registry/x/"), 3);
        assert_eq!(a.list("/registry/x/", Some(at - 1), None, 0).unwrap().items.len(), 1);
        event(&mut seen).await;
        assert_eq!(event(&mut seen).await, (at, EventKind::Created, "/registry/x/2".into()));
        assert_eq!(event(&mut seen).await, (at, EventKind::Created, "/registry/x/3".into()));

        // Someone else's revision is no reason to wait for ever.
        let foreign = client.transaction(&etcd::Transaction { success: vec![put("elsewhere", b"1")], ..Default::default() }).await.unwrap().header.revision;
        assert!(b.barrier().await.unwrap() >= foreign);
        assert!(seen.delivered() >= foreign);

        // One of the two compacts.
        let oldest = a.revision();
        a.compact(oldest).await.unwrap();
        b.compact(oldest).await.unwrap();
        let range = etcd::Range { key: b"/registry/x/1".to_vec(), revision: oldest - 1, ..Default::default() };
        assert!(client.range(&range, tokio::time::Instant::now() + Duration::from_secs(60)).await.unwrap_err().is_compacted());
        assert!(b.oldest() >= oldest);
    });
}

#[test]
fn leases_end() {
    let etcd = Etcd::start(1);
    runtime().block_on(async {
        let store = Remote::open(RemoteConfig { expiring: vec![("/registry/events/".into(), Duration::from_secs(1))], ..config(&etcd) }).await.unwrap();
        store.commit(write("/registry/pods/a", Precondition::Absent, "1")).await.unwrap();
        let mut seen = store.watch("/registry/events/", store.revision()).unwrap();
        let keys = ["/registry/events/a", "/registry/events/b"];
        for key in keys {
            store.commit(write(key, Precondition::Absent, "1")).await.unwrap();
        }
        // On a busy machine the first may be gone before the second has come.
        let mut events = Vec::new();
        while events.len() < 4 {
            events.push(event(&mut seen).await);
        }
        for key in keys {
            let of_key: Vec<_> = events.iter().filter(|event| event.2 == key).map(|event| event.1).collect();
            assert_eq!(of_key, [EventKind::Created, EventKind::Deleted]);
        }
        assert_eq!((store.count("/registry/events/"), store.count("/registry/pods/")), (0, 1));
    });
}

/// A member dies under load, then its place is taken by another that comes back with nothing missing.
#[test]
fn nothing_is_lost_when_a_member_dies() {
    let mut etcd = Etcd::start(3);
    let runtime = runtime();
    // An election may take its time on a busy machine.
    let patient = RemoteConfig { request_timeout: Duration::from_secs(120), ..config(&etcd) };
    let stores: Vec<Arc<Remote>> = (0..2).map(|_| Arc::new(runtime.block_on(Remote::open(patient.clone())).unwrap())).collect();
    let mut seen = stores[1].watch("/registry/", stores[1].revision()).unwrap();
    let (done, mut finished) = tokio::sync::mpsc::unbounded_channel();
    for writer in 0..WRITERS {
        let (store, done) = (stores[writer % 2].clone(), done.clone());
        runtime.spawn(async move {
            let key = format!("/registry/w/{writer}");
            let mut last = None;
            for round in 0..WRITES {
                let precondition = last.map_or(Precondition::Absent, Precondition::Revision);
                // Only one writes this key: whatever its member does, each write succeeds once.
                let revision = match store.commit(write(&key, precondition, &format!("{writer}-{round}"))).await {
                    Ok(object) => object.resource_version(),
                    Err(error) => panic!("{key} {round}: {error}"),
                };
                assert!(last.is_none_or(|last| revision > last));
                last = Some(revision);
                done.send((key.clone(), revision)).unwrap();
            }
        });
    }
    drop(done);
    let mut acknowledged = Vec::new();
    while let Some(one) = runtime.block_on(finished.recv()) {
        acknowledged.push(one);
        if acknowledged.len() == WRITERS * WRITES / 3 {
            // Wherever the clients are, each of the members is the victim once over the two kills.
            etcd.kill(0);
        }
        if acknowledged.len() == WRITERS * WRITES * 2 / 3 {
            etcd.begin(&[0]);
            etcd.kill(1);
        }
    }
    assert_eq!(acknowledged.len(), WRITERS * WRITES);
    // The watch has every acknowledged write, in order and once.
    let mut events = Vec::new();
    runtime.block_on(async {
        while events.len() < acknowledged.len() {
            let (revision, _, key) = event(&mut seen).await;
            events.push((key, revision));
        }
    });
    assert!(events.windows(2).all(|pair| pair[0].1 < pair[1].1));
    acknowledged.sort_by_key(|(_, revision)| *revision);
    assert_eq!(events, acknowledged);
    // And so has whoever reads it anew.
    let fresh = runtime.block_on(Remote::open(config(&etcd))).unwrap();
    assert_eq!(fresh.count("/registry/w/"), WRITERS);
    for writer in 0..WRITERS {
        let object = fresh.get(&format!("/registry/w/{writer}")).unwrap();
        assert!(String::from_utf8_lossy(object.bytes()).contains(&format!("{writer}-{}", WRITES - 1)));
    }
}

#[test]
fn while_etcd_is_away_reads_go_on() {
    let mut etcd = Etcd::start(1);
    runtime().block_on(async {
        let store = Remote::open(RemoteConfig { request_timeout: Duration::from_secs(1), ..config(&etcd) }).await.unwrap();
        let first = store.commit(write("/registry/x/1", Precondition::Absent, "1")).await.unwrap().resource_version();
        let mut seen = store.watch("/registry/", first).unwrap();
        etcd.kill(0);
        let (barrier, commit) = tokio::join!(store.barrier(), store.commit(write("/registry/x/2", Precondition::Absent, "1")));
        assert!(barrier.is_err());
        let error = commit.unwrap_err();
        assert!(matches!(&error, CommitError::Unavailable(_) | CommitError::Unknown(_)), "{error}");
        assert_eq!(store.get("/registry/x/1").unwrap().resource_version(), first);
        etcd.begin(&[0]);
        // It is found again without anyone's help.
        loop {
            match store.commit(write("/registry/x/3", Precondition::Any, "1")).await {
                Ok(_) => break,
                Err(error) => assert!(matches!(error, CommitError::Unavailable(_) | CommitError::Unknown(_)), "{error}"),
            }
        }
        while event(&mut seen).await.2 != "/registry/x/3" {}
    });
}
