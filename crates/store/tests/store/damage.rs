//! Cut and flipped at every byte: what was acknowledged is served as it was, or the store says where it is damaged.

use std::fs;
use std::path::{Path, PathBuf};

use store::{Config, Embedded, OpenError, Store};

use crate::support::{delete, put, small, wait};

type Flat = Vec<(String, Vec<u8>)>;

fn flat(store: &Embedded) -> Flat {
    store.list("", None, None, 0).unwrap().items.iter().map(|(key, object)| (key.to_string(), object.bytes().to_vec())).collect()
}

fn files(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix));
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir(to).unwrap();
    for path in files(from, "") {
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// A store of one segment, and what it held at each revision.
fn one_segment(dir: &Path) -> Vec<Flat> {
    let store = Embedded::open(small(dir)).unwrap();
    let mut states = vec![Vec::new(), flat(&store)];
    for (key, data) in [("a/1", "x".repeat(700)), ("a/2", "short".into()), ("a/1", "y".repeat(1100))] {
        put(&store, key, &data).unwrap();
        states.push(flat(&store));
    }
    delete(&store, "a/2").unwrap();
    states.push(flat(&store));
    states
}

#[test]
fn every_torn_tail_leaves_the_state_of_some_revision() {
    let (dir, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let states = one_segment(dir.path());
    let path = files(dir.path(), "log-").pop().unwrap();
    let bytes = fs::read(&path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let target = work.path().join("store");
    let mut torn = 0;
    // Every single byte is cut in frame.rs's own test; here it is whole files.
    for cut in (512..used).step_by(3).chain([used]) {
        copy(dir.path(), &target);
        let name = target.join(path.file_name().unwrap());
        // Now short, now zeroed: both are what a crash leaves.
        let mut cut_bytes = bytes[..cut].to_vec();
        if cut % 2 == 0 {
            cut_bytes.resize(bytes.len(), 0);
        }
        fs::write(&name, &cut_bytes).unwrap();
        let store = Embedded::open(small(&target)).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        assert_eq!(flat(&store), states[store.revision() as usize], "cut at {cut}");
        if cut == used {
            assert_eq!(store.revision() as usize, states.len() - 1);
        }
        if let Some(tail) = &store.report().torn {
            torn += 1;
            assert_eq!(tail.path, name);
        }
        let revision = store.revision();
        put(&store, "a/3", "after").unwrap();
        let after = flat(&store);
        drop(store);
        let store = Embedded::open(small(&target)).unwrap();
        assert_eq!((store.revision(), flat(&store), &store.report().torn), (revision + 1, after, &None));
    }
    assert!(torn > used / 6, "{torn}");
}

#[test]
fn every_flipped_bit_of_the_log_is_reported_or_harmless() {
    let (dir, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let states = one_segment(dir.path());
    let path = files(dir.path(), "log-").pop().unwrap();
    let bytes = fs::read(&path).unwrap();
    let target = work.path().join("store");
    let mut reported = 0;
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for at in (0..used).chain((used..bytes.len()).step_by(61)) {
        copy(dir.path(), &target);
        let name = target.join(path.file_name().unwrap());
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        fs::write(&name, &flipped).unwrap();
        match Embedded::open(small(&target)) {
            Ok(store) => assert_eq!(&flat(&store), states.last().unwrap(), "byte {at}"),
            Err(OpenError::Corrupt { path, offset, .. }) => {
                assert_eq!(path, name);
                assert!(offset <= at as u64, "{offset} for byte {at}");
                reported += 1;
            }
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
    assert!(reported > 1900, "{reported}");
}

#[test]
fn a_batch_that_is_lost_before_others_is_reported() {
    let (dir, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    one_segment(dir.path());
    let path = files(dir.path(), "log-").pop().unwrap();
    let bytes = fs::read(&path).unwrap();
    let target = work.path().join("store");
    // The second batch begins after the segment's head and the 700 and more bytes of the first.
    for lost in [512..1024, 512..1536, 1536..2048] {
        copy(dir.path(), &target);
        let name = target.join(path.file_name().unwrap());
        let mut damaged = bytes.clone();
        damaged[lost.clone()].fill(0);
        fs::write(&name, &damaged).unwrap();
        match Embedded::open(small(&target)) {
            Err(OpenError::Corrupt { path, offset, .. }) => assert_eq!((path, offset), (name, lost.start as u64)),
            other => panic!("{:?}", other.map(|store| store.report().clone())),
        }
    }
}

#[test]
fn every_damage_to_a_snapshot_is_reported() {
    let (dir, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = dir.path().join("backup");
    let store = Embedded::open(Config::memory()).unwrap();
    for index in 0..5 {
        put(&store, &format!("a/{index}"), &"x".repeat(100)).unwrap();
    }
    wait(store.snapshot(&file)).unwrap();
    let bytes = fs::read(&file).unwrap();
    let damaged = work.path().join("damaged");
    let target = work.path().join("store");
    let refused = |content: &[u8]| {
        fs::write(&damaged, content).unwrap();
        match Embedded::restore(&damaged, &target) {
            Err(OpenError::Corrupt { path, .. }) => assert_eq!(path, damaged),
            other => panic!("{other:?}"),
        }
        assert!(!target.exists());
    };
    for at in 0..bytes.len() {
        refused(&bytes[..at]);
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        refused(&flipped);
    }
    refused(&[&bytes[..], b"\0"].concat());
    Embedded::restore(&file, &target).unwrap();
    assert_eq!(flat(&Embedded::open(Config::new(&target)).unwrap()), flat(&store));
}

#[test]
fn files_that_are_gone_or_damaged_behind_the_end_are_reported() {
    let (dir, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // Until there is a snapshot with at least three segments after it. Closing waits for a snapshot that is being written.
    let mut whole = Vec::new();
    for life in 0.. {
        assert!(life < 1000);
        let store = Embedded::open(small(dir.path())).unwrap();
        for index in 0..7 {
            put(&store, &format!("a/{index}"), &"x".repeat(2000 + life)).unwrap();
        }
        whole.clone_from(&flat(&store));
        drop(store);
        if !files(dir.path(), "snapshot-").is_empty() && files(dir.path(), "log-").len() >= 3 {
            break;
        }
    }
    let target = work.path().join("store");
    copy(dir.path(), &target);
    assert_eq!(flat(&Embedded::open(small(&target)).unwrap()), whole);

    let logs = files(dir.path(), "log-");
    for gone in [&logs[0], &logs[1], &files(dir.path(), "snapshot-")[0]] {
        copy(dir.path(), &target);
        fs::remove_file(target.join(gone.file_name().unwrap())).unwrap();
        assert!(matches!(Embedded::open(small(&target)), Err(OpenError::Missing { .. })), "without {}", gone.display());
    }
    for (path, at) in [(&logs[0], 700), (&logs[1], 700), (&files(dir.path(), "snapshot-")[0], 3000)] {
        copy(dir.path(), &target);
        let name = target.join(path.file_name().unwrap());
        let mut bytes = fs::read(&name).unwrap();
        bytes[at] ^= 4;
        fs::write(&name, &bytes).unwrap();
        assert!(matches!(Embedded::open(small(&target)), Err(OpenError::Corrupt { path, .. }) if path == name), "{}", name.display());
        // A piece of the middle that was never written is damage as well: later batches are there.
        bytes[512..].fill(0);
        fs::write(&name, &bytes).unwrap();
        assert!(matches!(Embedded::open(small(&target)), Err(OpenError::Corrupt { path, .. }) if path == name), "{}", name.display());
    }
}
