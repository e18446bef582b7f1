//! Disks that fail and disks that are full: the write fails and says why, nothing is half written, reads go on, and so do writes when the disk does.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use store::{CommitError, Config, Embedded, Fault, Precondition, Store, Write};

use crate::support::{Armed, object, put, served, small, text, wait};

fn refused(outcome: Result<Arc<api::Object>, CommitError>) -> String {
    match outcome {
        Err(error @ (CommitError::Unavailable(_) | CommitError::Full(_))) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

fn check(store: &Embedded) {
    assert_eq!(store.revision(), 3);
    assert_eq!(text(&store.get("a/1").unwrap()), served("a/1", "1", 2));
    assert_eq!(text(&store.get("a/2").unwrap()), served("a/2", "2", 3));
    assert_eq!(store.count(""), 2);
}

#[test]
fn a_failed_write_or_fsync_leaves_nothing_and_the_next_one_works() {
    let full = || io::Error::from_raw_os_error(28);
    let broken = || io::Error::from_raw_os_error(5);
    let table: &[(&str, Vec<Fault>, u32, u32, u32)] = &[
        ("full", vec![Fault::Fail(full())], 0, 0, 1),
        ("torn", vec![Fault::Torn(700, full())], 0, 0, 1),
        ("torn, and cannot be erased", vec![Fault::Torn(700, broken())], 1, 0, 1),
        ("fsync", vec![], 1, 0, 1),
        ("fsync, and cannot be erased", vec![], 2, 0, 1),
        ("fsync, and no new segment twice", vec![], 2, 2, 3),
    ];
    for (name, write, sync, new_segment, refusals) in table {
        let dir = tempfile::tempdir().unwrap();
        let armed = Arc::new(Armed::default());
        let store = Embedded::open(Config { faults: Some(armed.clone()), ..small(dir.path()) }).unwrap();
        let mut watch = store.watch("", 1).unwrap();
        put(&store, "a/1", "1").unwrap();
        armed.write.lock().extend(write.iter().map(|fault| match fault {
            Fault::Fail(error) => Fault::Fail(io::Error::from_raw_os_error(error.raw_os_error().unwrap())),
            Fault::Torn(length, error) => Fault::Torn(*length, io::Error::from_raw_os_error(error.raw_os_error().unwrap())),
        }));
        *armed.sync.lock() = *sync;
        *armed.new_segment.lock() = *new_segment;
        for _ in 0..*refusals {
            let message = refused(put(&store, "a/2", &"lost".repeat(1000)));
            assert!(message.contains("the disk") && message.contains("reads go on"), "{name}: {message}");
            assert_eq!((store.revision(), store.get("a/2").is_none()), (2, true), "{name}");
        }
        put(&store, "a/2", "2").unwrap();
        check(&store);
        let seen: Vec<_> = std::iter::from_fn(|| watch.try_next()).collect();
        assert_eq!(seen.len(), 2, "{name}");
        drop(store);
        let store = Embedded::open(small(dir.path())).unwrap_or_else(|error| panic!("{name}: {error}"));
        check(&store);
        assert_eq!(store.report().torn, None, "{name}");
    }
}

#[test]
fn what_rested_on_a_failed_write_fails_with_it() {
    let store_faults = Arc::new(Armed::default());
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(Config { faults: Some(store_faults.clone()), ..small(dir.path()) }).unwrap();
    store_faults.write.lock().push(Fault::Fail(io::Error::from_raw_os_error(5)));
    let write = |precondition, data: &str| store.commit(Write { key: "a/1".into(), precondition, object: Some(object("a/1", data)) });
    let (first, second) = (write(Precondition::Absent, "1"), write(Precondition::Absent, "2"));
    refused(wait(first));
    // In the same batch it failed too; in the next one the key is absent still. Never "it exists": it does not.
    match wait(second) {
        Ok(object) => assert_eq!(object.resource_version(), 2),
        Err(CommitError::Unavailable(_) | CommitError::Full(_)) => assert_eq!(store.revision(), 1),
        other => panic!("{other:?}"),
    }
}

struct Mounted(PathBuf);

impl Mounted {
    fn tmpfs(path: &Path, size: &str) -> Self {
        fs::create_dir_all(path).unwrap();
        let options = std::ffi::CString::new(format!("size={size}")).unwrap();
        mount("tmpfs", path, "tmpfs", MountFlags::empty(), Some(options.as_c_str())).expect("mounting a tmpfs needs root");
        Self(path.into())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[test]
fn a_full_disk_stops_writes_only_and_only_while_it_is_full() {
    let outside = tempfile::tempdir().unwrap();
    let mounted = Mounted::tmpfs(&outside.path().join("disk"), "512k");
    let dir = mounted.0.join("store");
    let filler = mounted.0.join("filler");
    fs::write(&filler, vec![1; 128 * 1024]).unwrap();
    let store = Embedded::open(small(&dir)).unwrap();
    let mut written = 0;
    let message = loop {
        match put(&store, &format!("a/{written}"), &"x".repeat(3000)) {
            Ok(_) => written += 1,
            Err(error @ CommitError::Full(_)) => break error.to_string(),
            Err(other) => panic!("{other}"),
        }
        assert!(written < 1000);
    };
    assert!(message.contains("the disk is full"), "{message}");
    assert!(written > 20, "{written}");
    for _ in 0..5 {
        refused(put(&store, "a/0", &"y".repeat(3000)));
    }
    assert_eq!(store.count("a/"), written);
    assert!(text(&store.get("a/0").unwrap()).contains("xxx"));
    drop(store);
    // A restart does not need room.
    let store = Embedded::open(small(&dir)).unwrap();
    // It may have made a little: half a snapshot for which there was none.
    let found = (0..1000).find(|_| matches!(put(&store, "a/0", &"y".repeat(3000)), Err(CommitError::Full(_)))).expect("full again");
    let revision = written as u64 + 1 + found;
    assert_eq!((store.count("a/"), store.revision()), (written, revision));

    fs::remove_file(&filler).unwrap();
    put(&store, "a/0", "room again").unwrap();
    drop(store);
    let store = Embedded::open(small(&dir)).unwrap();
    assert_eq!((store.count("a/"), store.revision()), (written, revision + 1));
    assert!(text(&store.get("a/0").unwrap()).contains("room again"));
}
