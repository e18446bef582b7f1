//! A cluster moves into etcd and back, killed on the way both times: everything is there, and no revision goes back.

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use store::{Config, Embedded, MoveError, OpenError, Remote, RemoteConfig, RemoteError, Step, Store, to_embedded, to_etcd};

use crate::etcd_process::Etcd;
use crate::support::{object, wait};

const WAY: &str = "STORE_MIGRATE_WAY";
const DIR: &str = "STORE_MIGRATE_DIR";
const FILES: &str = "STORE_MIGRATE_FILES";
const AT: &str = "STORE_MIGRATE_AT";
const ENDPOINT: &str = "STORE_MIGRATE_ENDPOINT";
const OBJECTS: usize = 450;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Says how far it is, and goes no further than to where it is killed.
fn say(step: Step) {
    let line = format!("\nstep {step:?}\n");
    std::io::stdout().write_all(line.as_bytes()).unwrap();
    if line.contains(&std::env::var(AT).unwrap()) {
        loop {
            std::thread::park();
        }
    }
}

/// The process that is killed: this test binary again. Without its orders there is nothing to do.
#[test]
fn child() {
    let Ok(way) = std::env::var(WAY) else { return };
    let read = |name: &str| std::fs::read(Path::new(&std::env::var(FILES).unwrap()).join(name)).unwrap();
    let tls = etcd::tls(&read("ca.crt"), Some((&read("etcd.crt"), &read("etcd.key")))).unwrap();
    let resolve: etcd::Resolve = std::sync::Arc::new(|host| Box::pin(async move { Ok(vec![host.parse().unwrap()]) }));
    let config = RemoteConfig::kubernetes(etcd::Config { endpoints: vec![std::env::var(ENDPOINT).unwrap()], tls: Some(tls), resolve }, "/registry");
    let dir = std::env::var(DIR).unwrap();
    let dir = Path::new(&dir);
    runtime().block_on(async {
        if way == "out" { to_etcd(dir, &config, false, say).await } else { to_embedded(&config, dir, false, say).await }
    })
    .unwrap();
}

/// Runs a move in a process of its own and kills it at the step `at`.
fn killed(etcd: &Etcd, dir: &Path, way: &str, at: &str) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["migrate::child", "--exact", "--nocapture"])
        .envs([(WAY, way.into()), (AT, at.into()), (DIR, dir.as_os_str().to_owned()), (FILES, etcd.dir.path().as_os_str().to_owned()), (ENDPOINT, etcd.endpoints()[0].clone().into())])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let said = lines.any(|line| line.unwrap().contains(at));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(said, "the move never came to {at:?}");
}

fn contents(store: &dyn Store) -> Vec<(String, String)> {
    let page = store.list("", None, None, 0).unwrap();
    page.items
        .iter()
        .map(|(key, object)| {
            let mut value = object.value().unwrap();
            value["metadata"].as_object_mut().unwrap().remove("resourceVersion");
            (key.to_string(), value.to_string())
        })
        .collect()
}

#[test]
fn there_and_back_with_kills() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("store");
    let etcd = Etcd::start(1);
    let config = RemoteConfig::kubernetes(etcd.config(), "/registry");
    let runtime = runtime();
    let put = |store: &dyn Store, name: &str, data: &str| {
        let write = store::Write { key: format!("/registry/configmaps/default/{name}"), precondition: store::Precondition::Any, object: Some(object(name, data)) };
        runtime.block_on(store.commit(write)).unwrap().resource_version()
    };
    let quiet = |_: Step| {};

    let (before, revision) = {
        let store = Embedded::open(Config::new(&dir)).unwrap();
        for index in 0..OBJECTS {
            put(&store, &format!("c{index:04}"), &"x".repeat(index % 700));
        }
        for index in 0..OBJECTS / 2 {
            put(&store, &format!("c{index:04}"), "changed");
        }
        put(&store, "gone", "1");
        wait(store.commit(store::Write { key: "/registry/configmaps/default/gone".into(), precondition: store::Precondition::Any, object: None })).unwrap();
        // Whoever holds it must stop first.
        let outcome = runtime.block_on(to_etcd(&dir, &config, false, quiet));
        assert!(matches!(outcome, Err(MoveError::Open(OpenError::Locked { .. }))), "{outcome:?}");
        (contents(&store), store.revision())
    };

    killed(&etcd, &dir, "out", "Counting");
    let opened = runtime.block_on(Remote::open(config.clone()));
    assert!(matches!(opened, Err(RemoteError::Unfinished { .. })), "{:?}", opened.err());
    killed(&etcd, &dir, "out", "Copying");
    let moved = runtime.block_on(to_etcd(&dir, &config, false, quiet)).unwrap();
    assert_eq!(moved.objects, OBJECTS as u64);
    assert!(moved.resumed > 0 && moved.revision > revision, "{moved:?}");
    assert!(matches!(Embedded::open(Config::new(&dir)), Err(OpenError::Moved { .. })));
    assert!(matches!(runtime.block_on(to_etcd(&dir, &config, false, quiet)), Err(MoveError::MovedAlready { .. })));

    let later = {
        let store = runtime.block_on(Remote::open(config.clone())).unwrap();
        assert_eq!(contents(&store), before);
        // Clients of before must list anew.
        assert!(store.watch("/registry/", revision).is_err());
        put(&store, "later", "1")
    };
    assert!(later > moved.revision);
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("something"), "").unwrap();
    assert!(matches!(runtime.block_on(to_embedded(&config, other.path(), false, quiet)), Err(MoveError::FolderNotEmpty { .. })));

    killed(&etcd, &dir, "back", "Verifying");
    let back = runtime.block_on(to_embedded(&config, &dir, false, quiet)).unwrap();
    assert_eq!((back.objects, back.revision >= later), (OBJECTS as u64 + 1, true));
    assert!(matches!(runtime.block_on(Remote::open(config.clone())), Err(RemoteError::Moved { .. })));
    {
        let store = Embedded::open(Config::new(&dir)).unwrap();
        assert_eq!(store.count("/registry/configmaps/"), OBJECTS + 1);
        assert_eq!(store.get("/registry/configmaps/default/later").unwrap().resource_version(), later);
        assert!(put(&store, "last", "1") > back.revision);
    }
    // And once more: what etcd has is an old copy.
    let again = runtime.block_on(to_etcd(&dir, &config, false, quiet)).unwrap();
    assert_eq!((again.objects, again.resumed), (OBJECTS as u64 + 2, 0));
    assert_eq!(runtime.block_on(Remote::open(config)).unwrap().count("/registry/"), OBJECTS + 2);
}
