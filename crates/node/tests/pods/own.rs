//! What the node says of itself, and pods that stand for what is not the API's: mirrors and the folder's.

use std::time::{Duration, Instant};

use api::k8s::api::coordination::v1::Lease;
use api::k8s::api::core::v1::{Node, Pod};
use client::{Informer, PatchKind};
use serde_json::json;

use super::sh;
use crate::world::{PATIENCE, World, ready};

pub async fn registers(world: &mut World) {
    let nodes = Informer::<Node>::of(&world.client, None).start();
    // The next report is due long after our patience is over.
    tokio::time::timeout(PATIENCE, nodes.until(|cache| cache.get("", "node1").is_some_and(|n| is_ready(&n)))).await.expect("ready");
    let node = nodes.cache().get("", "node1").unwrap();
    assert_eq!(node.metadata.labels.as_ref().unwrap()["kubernetes.io/hostname"], "node1");
    assert_eq!(node.status.as_ref().unwrap().node_info.as_ref().unwrap().kubelet_version, "v1.36.2");
    let leases = Informer::<Lease>::of(&world.client, Some("kube-node-lease")).start();
    tokio::time::timeout(PATIENCE, leases.until(|cache| cache.contains("kube-node-lease", "node1"))).await.expect("lease");
}

fn is_ready(node: &Node) -> bool {
    node.status.iter().flat_map(|s| s.conditions.iter().flatten()).any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Given up by the node life-cycle controller while it could not be heard, it says at once that it is well.
pub async fn speaks_up(world: &mut World) {
    let nodes = Informer::<Node>::of(&world.client, None).start();
    nodes.synced().await;
    // The status is patched as the controller does it, then waited for; which of the two changes an informer shows first does not matter.
    let patch = json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown", "message": "Kubelet stopped posting node status."}]}});
    let given_up = world.client.of::<Node>(None).patch_status("node1", PatchKind::Strategic, patch).await.expect("patch");
    assert!(!is_ready(&given_up));
    let version = |node: &Node| node.metadata.resource_version.as_deref().and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
    let well = nodes.until(|cache| cache.get("", "node1").is_some_and(|node| is_ready(&node) && version(&node) > version(&given_up)));
    tokio::time::timeout(PATIENCE, well).await.expect("Ready long before the next report is due");
}

/// Another address of the machine is the node's, and its pods'.
pub async fn moves(world: &mut World) {
    world.create("moved", json!({"terminationGracePeriodSeconds": 0, "hostNetwork": true, "containers": [sh("sleep 1000")]})).await;
    world.until("moved", "ready", ready).await;
    let addresses = |address: [u8; 4]| network::HostAddresses { ipv4: Some(address.into()), ..network::HostAddresses::default() };
    let (sender, receiver) = tokio::sync::watch::channel(addresses([127, 0, 0, 1]));
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    world.node.follow_addresses(receiver, move |address| told.send(address).expect("listening"));
    let nodes = Informer::<Node>::of(&world.client, None).start();
    let internal = |node: &Node, ip: &str| node.status.iter().flat_map(|s| s.addresses.iter().flatten()).filter(|a| a.type_ == "InternalIP").map(|a| a.address.as_str()).eq([ip]);
    for address in [[127, 0, 0, 2], [127, 0, 0, 1]] {
        let text = std::net::Ipv4Addr::from(address).to_string();
        sender.send_replace(addresses(address));
        assert_eq!(heard.recv().await, Some(address.into()));
        tokio::time::timeout(PATIENCE, nodes.until(|cache| cache.get("", "node1").is_some_and(|node| internal(&node, &text)))).await.expect("the node's new address");
        world.until("moved", "elsewhere", |pod| pod.status.as_ref().is_some_and(|s| s.host_ip.as_ref() == Some(&text) && s.pod_ip.as_ref() == Some(&text))).await;
    }
    world.delete("moved", 0).await;
    world.gone("moved").await;
}

/// A mirror pod's log is what the part of this process writes that it stands for.
pub async fn mirrors(world: &mut World) {
    let pod = json!({"metadata": {"name": "part-node1", "namespace": "default", "annotations": {"kubernetes.io/config.mirror": "x"}},
        "spec": {"nodeName": "node1", "containers": [{"name": "part", "image": "none"}]}});
    let pod = world.client.of::<Pod>(Some("default")).create(&serde_json::from_value(pod).unwrap()).await.expect("create");
    let status = json!({"status": {"phase": "Running", "containerStatuses": [{"name": "part", "image": "none", "imageID": "", "ready": true, "restartCount": 1}]}});
    world.client.of::<Pod>(Some("default")).patch_status("part-node1", PatchKind::Merge, status).await.expect("status");
    let path = |attempt| node::pod::log_file(&world.dir.join("logs"), &pod, "part", attempt);
    std::fs::create_dir_all(path(0).parent().unwrap()).unwrap();
    let line = |text: &str| format!("{:.9} stderr F {text}\n", jiff::Timestamp::now());
    std::fs::write(path(0), line("before")).unwrap();
    std::fs::write(path(1), line("one") + &line("two")).unwrap();
    // The node hears of the status a moment later.
    let begun = Instant::now();
    while world.get("/containerLogs/default/part-node1/part").await != (200, "one\ntwo\n".to_owned()) {
        assert!(begun.elapsed() < PATIENCE);
        tokio::task::yield_now().await;
    }
    assert_eq!(world.get("/containerLogs/default/part-node1/part?tailLines=1&sinceSeconds=60").await.1, "two\n");
    assert_eq!(world.get("/containerLogs/default/part-node1/part?previous=true").await.1, "before\n");
    assert_eq!(world.get("/containerLogs/default/part-node1/none").await.0, 404);
    // Following shows what comes, and ends only with its reader.
    let mut lines = world.stream("/containerLogs/default/part-node1/part?follow=true&tailLines=1").await;
    let mut next = async || String::from_utf8(tokio::time::timeout(PATIENCE, lines.recv()).await.expect("in time").expect("a line").to_vec()).unwrap();
    assert_eq!(next().await, "two\n");
    std::io::Write::write_all(&mut std::fs::File::options().append(true).open(path(1)).unwrap(), line("three").as_bytes()).unwrap();
    assert_eq!(next().await, "three\n");
    world.delete("part-node1", 0).await;
    world.gone("part-node1").await;
    std::fs::remove_dir_all(path(0).parent().unwrap().parent().unwrap()).unwrap();
}

/// A file in the folder is a pod here, whatever the API says of its mirror; another file is another pod; and a restart finds what runs.
pub async fn static_pods(world: &mut World) {
    let folder = world.dir.join("manifests");
    let file = folder.join("web.yaml");
    let write = |word: &str| {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [sh(&format!("echo {word}; sleep 1000"))]}});
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(&file, pod.to_string()).expect("a file");
    };
    let annotation = |pod: &Pod, name: &str| pod.metadata.annotations.as_ref().and_then(|all| all.get(&format!("kubernetes.io/config.{name}")).cloned()).unwrap_or_default();
    let container = |pod: &Pod| pod.status.as_ref().and_then(|status| status.container_statuses.as_ref()?.first()?.container_id.clone());
    write("one");
    let first = world.until("web-node1", "ready", ready).await;
    assert_eq!((annotation(&first, "source"), annotation(&first, "hash").len()), ("file".to_owned(), 32));
    assert!(annotation(&first, "mirror") == annotation(&first, "hash") && !annotation(&first, "seen").is_empty());
    let owner = &first.metadata.owner_references.as_ref().expect("an owner")[0];
    assert_eq!((owner.kind.as_str(), owner.name.as_str(), owner.controller), ("Node", "node1", Some(true)));
    let logs = async |world: &World, expected: &str| {
        let begun = Instant::now();
        while world.get("/containerLogs/default/web-node1/c").await != (200, expected.to_owned()) {
            assert!(begun.elapsed() < PATIENCE, "{:?}", world.get("/containerLogs/default/web-node1/c").await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    logs(world, "one\n").await;

    // Its mirror comes back, of the same container.
    for grace in [0, 30] {
        let before = world.pods.cache().get("default", "web-node1").expect("a mirror");
        world.delete("web-node1", grace).await;
        let again = world.until("web-node1", "another mirror that is ready", |pod| pod.metadata.uid != before.metadata.uid && ready(pod)).await;
        assert_eq!(container(&again), container(&first));
    }
    world.restart_node();
    write("one");
    let adopted = world.until("web-node1", "ready", ready).await;
    assert_eq!(container(&adopted), container(&first));

    write("two");
    let second = world.until("web-node1", "another pod", |pod| annotation(pod, "hash") != annotation(&first, "hash") && ready(pod)).await;
    assert_ne!(container(&second), container(&first));
    logs(world, "two\n").await;
    // Half a file is no news.
    std::fs::write(&file, "apiVersion: v1\nkind: P").expect("a file");
    write("two");
    let same = world.until("web-node1", "ready", ready).await;
    assert_eq!(container(&same), container(&second));
    // Away and back, it is the same pod by its UID: what was before takes nothing away from what is.
    for _ in 0..2 {
        let before = world.pods.cache().get("default", "web-node1").expect("a mirror");
        std::fs::remove_file(&file).expect("removed");
        world.until_gone_or("web-node1", |pod| pod.metadata.uid != before.metadata.uid).await;
        write("two");
        let again = world.until("web-node1", "another container", |pod| container(pod) != container(&before) && pod.metadata.uid != before.metadata.uid && ready(pod)).await;
        logs(world, "two\n").await;
        assert!(world.dir.join("kubelet/pods").join(annotation(&again, "hash")).exists());
    }
    std::fs::remove_file(&file).expect("removed");
    world.gone("web-node1").await;
}
