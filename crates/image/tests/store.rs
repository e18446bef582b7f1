//! The content store: names, archives, damage and sudden death.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use image::{BuildOptions, ChrootRunner, RootView, Store, StoreError, build};

fn make(store: &Store, context: &Path, tag: &str, content: &str) -> image::Image {
    fs::create_dir_all(context).unwrap();
    fs::write(context.join("file"), content).unwrap();
    fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY file /dir/file\nENV A=1\nCMD [\"/x\"]\n").unwrap();
    let options = BuildOptions { context: context.to_owned(), tags: vec![tag.to_owned()], ..BuildOptions::default() };
    build(store, &options, &ChrootRunner, &mut std::io::sink()).unwrap()
}

#[test]
fn names_and_sweep() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store")).unwrap();
    let one = make(&store, &dir.path().join("ctx"), "one:v1", "1");
    store.tag("one:v1", "user/other").unwrap();
    let found = store.resolve("user/other:latest").unwrap().unwrap();
    assert_eq!(found.id, one.id);
    assert_eq!(found.repo_tags, ["docker.io/library/one:v1", "docker.io/user/other:latest"]);
    for text in [one.id.as_str(), one.id.hex(), one.id.short()] {
        assert_eq!(store.resolve(text).unwrap().unwrap().id, one.id, "{text}");
    }
    assert!(store.resolve("one").unwrap().is_none());
    assert!(matches!(store.resolve("/worker:v0.3"), Err(StoreError::Reference(_))));
    let two = make(&store, &dir.path().join("ctx"), "one:v1", "2");
    assert_eq!(store.resolve("one:v1").unwrap().unwrap().id, two.id);
    assert_eq!(store.list().unwrap().len(), 2);
    assert!(store.remove("user/other").unwrap());
    assert!(!store.remove("user/other").unwrap());
    assert_eq!(store.list().unwrap().len(), 1);
    // A layer that a container still uses survives the sweep; then it goes.
    let in_use: HashSet<_> = one.layers.iter().cloned().collect();
    store.gc(&in_use).unwrap();
    assert!(one.layers[0].exists());
    store.gc(&HashSet::new()).unwrap();
    assert!(!one.layers[0].exists() && two.layers[0].exists());
    // Another handle sees the same.
    let other = Store::open(dir.path().join("store")).unwrap();
    assert_eq!(other.resolve("one:v1").unwrap().unwrap().layers, two.layers);
    // A lost layer directory is unpacked again.
    fs::remove_dir_all(&two.layers[0]).unwrap();
    assert!(other.resolve("one:v1").unwrap().unwrap().layers[0].join("dir/file").exists());
}

#[test]
fn a_damaged_image_keeps_no_other_from_being_swept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = Store::open(&path).unwrap();
    let unused = make(&store, &dir.path().join("ctx"), "one:v1", "1");
    let good = make(&store, &dir.path().join("ctx"), "one:v1", "2");
    assert!(store.remove(unused.id.as_str()).unwrap());
    let bad = make(&store, &dir.path().join("ctx"), "bad:v1", "3");
    fs::write(store.blob_path(&bad.manifest), "{").unwrap();
    let store = Store::open(&path).unwrap();
    store.gc(&HashSet::new()).unwrap();
    assert!(!unused.layers[0].exists() && good.layers[0].exists() && !bad.layers[0].exists());
    assert!(store.resolve("bad:v1").unwrap().is_none(), "to be pulled again");
    assert!(!store.has_blob(&bad.manifest), "what is not what its digest says would stand in the way");
    make(&store, &dir.path().join("ctx"), "bad:v1", "3");
    assert!(store.resolve("bad:v1").unwrap().is_some());
}

#[test]
fn a_layer_that_a_power_cut_may_have_damaged_is_unpacked_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = Store::open(&path).unwrap();
    let image = make(&store, &dir.path().join("ctx"), "one:v1", "1");
    let (layer, note) = (&image.layers[0], path.join("unsynced").join(image.layers[0].file_name().unwrap()));
    let file = layer.join("dir/file");
    assert!(note.exists());
    // Of this boot: whatever happened to processes, what was written is there.
    fs::write(&file, "").unwrap();
    Store::open(&path).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "");
    fs::write(&note, "another boot").unwrap();
    let store = Store::open(&path).unwrap();
    assert!(!layer.exists() && !note.exists());
    store.resolve("one:v1").unwrap().unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "1");
    store.settle().unwrap();
    assert!(!note.exists(), "the disk has it");
}

#[test]
fn archives_round_trip() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("a")).unwrap();
    let image = make(&store, &dir.path().join("ctx"), "one:v1", "1");
    let mut archive = Vec::new();
    store.save(&["one:v1"], &mut archive).unwrap();
    let mut twice = Vec::new();
    store.save(&["one:v1"], &mut twice).unwrap();
    assert!(archive == twice, "saving is deterministic");

    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&archive).unwrap();
    let oci = without(&archive, "manifest.json");
    let docker = without(&archive, "index.json");
    for (what, bytes) in [("both", archive.clone()), ("gzip", gzip.finish().unwrap()), ("oci", oci), ("docker", docker)] {
        let target = Store::open(dir.path().join(what)).unwrap();
        let images = target.import(bytes.as_slice(), None).unwrap();
        assert_eq!(images.len(), 1, "{what}");
        let found = target.resolve("one:v1").unwrap().unwrap_or_else(|| panic!("{what}: no such name"));
        assert_eq!((&found.id, &found.config), (&image.id, &image.config), "{what}");
        assert_eq!(RootView::new(found.layers).read(Path::new("dir/file")).unwrap().unwrap(), b"1");
    }
    let renamed = Store::open(dir.path().join("renamed")).unwrap();
    renamed.import(archive.as_slice(), Some("else:2")).unwrap();
    assert!(renamed.resolve("else:2").unwrap().is_some() && renamed.resolve("one:v1").unwrap().is_none());

    for bad in [&b"not a tar"[..], &archive[..archive.len() / 2], b""] {
        let target = Store::open(dir.path().join("bad")).unwrap();
        assert!(target.import(bad, None).is_err());
        assert!(target.list().unwrap().is_empty());
    }
    // One flipped bit in the layer: refused, nothing named.
    let mut flipped = archive.clone();
    let at = flipped.windows(8).position(|w| w == b"dir/file").unwrap() + 700;
    flipped[at] ^= 1;
    let target = Store::open(dir.path().join("flipped")).unwrap();
    assert!(target.import(flipped.as_slice(), None).is_err());
    assert!(target.list().unwrap().is_empty());
}

fn without(archive: &[u8], name: &str) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap() != Path::new(name) {
            let (mut header, path) = (entry.header().clone(), entry.path().unwrap().into_owned());
            out.append_data(&mut header, path, &mut entry).unwrap();
        }
    }
    out.into_inner().unwrap()
}

/// Not a test by itself: the process that `survives_kill` kills.
#[test]
fn victim() {
    let Ok(dir) = std::env::var("CORACLE_TEST_VICTIM") else { return };
    let store = Store::open(format!("{dir}/store")).unwrap();
    for n in 0.. {
        make(&store, &Path::new(&dir).join("ctx"), &format!("img:{}", n % 7), &n.to_string());
        println!("made {n}");
    }
}

#[test]
fn survives_kill() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..8 {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "victim", "--nocapture"])
            .env("CORACLE_TEST_VICTIM", dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(victim.stdout.take().unwrap()));
        // Somewhere in the middle of the work after a few acknowledged images.
        let acknowledged = lines.by_ref().map_while(Result::ok).filter(|l| l.starts_with("made")).take(3 + round).count();
        assert_eq!(acknowledged, 3 + round);
        victim.kill().unwrap();
        victim.wait().unwrap();
        let store = Store::open(dir.path().join("store")).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("store/tmp")).unwrap().count(), 0, "leftovers are cleared");
        let images = store.list().unwrap();
        for n in 0..acknowledged.min(7) {
            let image = store.resolve(&format!("img:{n}")).unwrap().expect("an acknowledged image is there");
            assert!(images.iter().any(|i| i.id == image.id));
            let content = RootView::new(image.layers).read(Path::new("dir/file")).unwrap().unwrap();
            assert_eq!(String::from_utf8(content).unwrap().parse::<usize>().unwrap() % 7, n);
        }
    }
}
