//! The node runs short of disk, or a pod takes more of it than it may.

use std::time::Duration;

use api::k8s::api::core::v1::{Node, Pod};
use client::Informer;
use serde_json::json;

use crate::cases::sh;
use crate::world::{PATIENCE, World, phase, ready, settings};

/// Reason, message, and whether it says that the node is to blame.
fn verdict(pod: &Pod) -> (String, String, bool) {
    let status = pod.status.clone().unwrap_or_default();
    let disrupted = status.conditions.iter().flatten().any(|c| c.type_ == "DisruptionTarget" && c.reason.as_deref() == Some("TerminationByKubelet"));
    (status.reason.unwrap_or_default(), status.message.unwrap_or_default(), disrupted)
}

pub async fn over_limits(world: &mut World) {
    world.restart_node_with(|config| config.eviction_period = Duration::from_millis(200));
    let mut hoards = sh("busybox dd if=/dev/zero of=/v/file bs=1M count=3; sleep 1000");
    hoards["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
    world.create("hoards", json!({"containers": [hoards], "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}]})).await;
    let mut writes = sh("busybox dd if=/dev/zero of=/file bs=1M count=3; sleep 1000");
    writes["resources"] = json!({"limits": {"ephemeral-storage": "1Mi"}});
    world.create("writes", json!({"containers": [writes]})).await;
    let mut behaves = sh("sleep 1000");
    behaves["resources"] = json!({"limits": {"ephemeral-storage": "1Mi"}});
    world.create("behaves", json!({"terminationGracePeriodSeconds": 0, "containers": [behaves]})).await;
    for (name, message) in [("hoards", "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". "), ("writes", "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ")] {
        let pod = world.until(name, "evicted", |pod| phase(pod) == "Failed").await;
        assert_eq!(verdict(&pod), ("Evicted".to_owned(), message.to_owned(), false));
        world.event(name, &format!("Evicted: {message}")).await;
        world.delete(name, 0).await;
        world.gone(name).await;
    }
    world.until("behaves", "ready", ready).await;
    world.delete("behaves", 0).await;
    world.gone("behaves").await;
    world.restart_node();
}

/// Whatever the disk has is too little: pods go, but for those the cluster needs, and none come.
pub async fn short_of_disk(world: &mut World) {
    world.create("poor", json!({"terminationGracePeriodSeconds": 0, "containers": [sh("sleep 1000")]})).await;
    world.create("vip", json!({"terminationGracePeriodSeconds": 0, "priorityClassName": "system-node-critical", "containers": [sh("sleep 1000")]})).await;
    for name in ["poor", "vip"] {
        world.until(name, "ready", ready).await;
    }
    world.restart_node_with(|config| {
        config.eviction_period = Duration::from_millis(200);
        config.settings = settings(json!({"evictionHard": {"nodefs.available": "1000Ti"}, "imageGCHighThresholdPercent": 100, "evictionPressureTransitionPeriod": "1s"}));
    });
    let nodes = Informer::<Node>::of(&world.client, None).start();
    let pressed = |wanted: &'static str| {
        let nodes = &nodes;
        async move {
            let condition = |node: &Node| node.status.iter().flat_map(|s| s.conditions.iter().flatten()).any(|c| c.type_ == "DiskPressure" && c.status == wanted);
            tokio::time::timeout(PATIENCE, nodes.until(|cache| cache.get("", "node1").is_some_and(|node| condition(&node)))).await.unwrap_or_else(|_| panic!("DiskPressure is not {wanted}"));
        }
    };
    pressed("True").await;
    let poor = world.until("poor", "evicted", |pod| phase(pod) == "Failed").await;
    let (reason, message, disrupted) = verdict(&poor);
    assert!(reason == "Evicted" && disrupted && message.starts_with("The node was low on resource: ephemeral-storage. Threshold quantity: 1000Ti, available: "), "{message}");
    world.create("late", json!({"containers": [sh("true")]})).await;
    let late = world.until("late", "rejected", |pod| phase(pod) == "Failed").await;
    assert_eq!(verdict(&late), ("Evicted".to_owned(), "Pod was rejected: The node had condition: [DiskPressure]. ".to_owned(), false));
    world.event("node1", "EvictionThresholdMet: Attempting to reclaim ephemeral-storage").await;
    world.restart_node();
    pressed("False").await;
    let vip = world.until("vip", "ready", ready).await;
    assert_eq!(verdict(&vip), (String::new(), String::new(), false));
    for name in ["poor", "late", "vip"] {
        world.delete(name, 0).await;
        world.gone(name).await;
    }
}
