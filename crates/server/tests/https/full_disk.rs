//! A full disk, as clients meet it: writes are refused and say why, reads and watches go on, and with room again so do writes, without a restart.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::json;
use store::{Embedded, Limits};

use crate::harness::Server;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

struct Disk(PathBuf);

impl Disk {
    fn new(path: &Path, size: &std::ffi::CStr) -> Self {
        std::fs::create_dir_all(path).unwrap();
        mount("tmpfs", path, "tmpfs", MountFlags::empty(), Some(size)).expect("mounting a tmpfs needs root");
        Self(path.into())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_writes_only_and_only_while_it_is_full() {
    let outside = tempfile::tempdir().unwrap();
    let disk = Disk::new(&outside.path().join("disk"), c"size=2m");
    let filler = disk.0.join("filler");
    std::fs::write(&filler, vec![1; 512 * 1024]).unwrap();
    let limits = Limits { first_segment_bytes: 64 * 1024, segment_bytes: 64 * 1024, ..Limits::default() };
    let store = Embedded::open(store::Config { limits, ..store::Config::new(disk.0.join("store")) }).unwrap();
    let server = Server::start_over(Arc::new(store), |_| {}).await;
    let map = |name: &str| json!({"metadata": {"name": name}, "data": {"a": "x".repeat(10_000)}});
    let mut made = 0;
    let refused = loop {
        let reply = server.post(CONFIG_MAPS, map(&format!("m-{made}"))).await;
        if reply.code != 201 {
            break reply.expect(500);
        }
        made += 1;
        assert!(made < 1000, "the disk never gets full");
    };
    assert!(made > 10, "{made}");
    assert_eq!(refused.reason(), "InternalError");
    assert!(refused.message().contains("no space: the disk of the cluster's data is full"), "{}", refused.message());
    // Whatever is refused has changed nothing, and everything is still read.
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=true&fieldSelector=metadata.name%3Dm-0")).await;
    assert_eq!(watch.next().await.unwrap()["type"], "ADDED");
    for _ in 0..3 {
        server.patch(&format!("{CONFIG_MAPS}/m-0"), "merge-patch+json", json!({"data": {"b": "y".repeat(70_000)}})).await.expect(500);
    }
    let listed = server.get(&format!("{CONFIG_MAPS}?fieldSelector=metadata.name%21%3Dkube-root-ca.crt")).await.expect(200).json();
    assert_eq!(listed["items"].as_array().unwrap().len(), made);
    assert!(server.get(&format!("{CONFIG_MAPS}/m-0")).await.expect(200).json()["data"].get("b").is_none());
    server.get("/readyz").await.expect(200);

    std::fs::remove_file(&filler).unwrap();
    server.post(CONFIG_MAPS, map("room")).await.expect(201);
    server.patch(&format!("{CONFIG_MAPS}/m-0"), "merge-patch+json", json!({"data": {"b": "y"}})).await.expect(200);
    let event = watch.next().await.unwrap();
    assert_eq!((&event["type"], &event["object"]["data"]["b"]), (&json!("MODIFIED"), &json!("y")));
}
