//! What outlives what: the node's end, a shim's, a pod's.

use std::time::{Duration, Instant};

use api::k8s::api::core::v1::Pod;
use serde_json::json;

use super::sh;
use crate::world::{PATIENCE, World, ready, restarts};

pub async fn adopted(world: &mut World) {
    // Rarely probed: what was known before the restart must hold until the next probe.
    let mut probed = sh("sleep 1000");
    probed["readinessProbe"] = json!({"exec": {"command": ["true"]}, "periodSeconds": 60});
    world.create("keep", json!({"terminationGracePeriodSeconds": 1, "containers": [probed]})).await;
    world.create("orphan", json!({"terminationGracePeriodSeconds": 1, "containers": [sh("sleep 1000")]})).await;
    let before = world.until("keep", "ready", ready).await;
    world.until("orphan", "ready", ready).await;
    world.node.shutdown();
    world.delete("orphan", 0).await;
    world.restart_node();
    world.gone("orphan").await;
    // The adopted node looks after the pod again: it ends it when told to, with the same container as before.
    let id = |pod: &Pod| pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0].container_id.clone();
    let after = world.until("keep", "ready", ready).await;
    assert_eq!((id(&before), restarts(&after)), (id(&after), 0));
    let since = |pod: &Pod| pod.status.iter().flat_map(|s| s.conditions.iter().flatten()).find(|c| c.type_ == "Ready").and_then(|c| c.last_transition_time.clone());
    assert_eq!(since(&before), since(&after), "it was ready all the time");
    world.delete("keep", 1).await;
    world.gone("keep").await;
}

/// The pod's shim is killed: a new sandbox, the container again, counted.
pub async fn sandbox_dies(world: &mut World) {
    world.create("dies", json!({"terminationGracePeriodSeconds": 0, "containers": [sh("sleep 1000")]})).await;
    let before = world.until("dies", "ready", ready).await;
    let own = world.dir.to_string_lossy().into_owned();
    let shims = || -> Vec<i32> {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let ours = processes.filter(|entry| {
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            command.contains(" shim ") && command.contains(&own)
        });
        ours.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok()).collect()
    };
    // Those of pods that are gone follow them; processes tell nobody when they end.
    let begun = Instant::now();
    let shim = loop {
        match shims()[..] {
            [shim] => break shim,
            ref shims => assert!(begun.elapsed() < PATIENCE, "one pod, one shim: {shims:?}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim), nix::sys::signal::Signal::SIGKILL).unwrap();
    let after = world.until("dies", "running again", |pod| ready(pod) && restarts(pod) == 1).await;
    assert_eq!(before.metadata.uid, after.metadata.uid);
    world.event("dies", "SandboxChanged: Pod sandbox changed, it will be killed and re-created.").await;
    world.delete("dies", 0).await;
    world.gone("dies").await;
}

/// Removal follows deletion: folders, logs, mounts.
pub async fn leaves_nothing(world: &mut World) {
    let names = |folder: &str| -> Vec<String> { std::fs::read_dir(world.dir.join(folder)).into_iter().flatten().flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect() };
    let begun = Instant::now();
    loop {
        let left = [names("kubelet/pods"), names("logs")].concat();
        if left.is_empty() {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{left:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let own = world.dir.join("kubelet").to_string_lossy().into_owned();
    assert!(!mounts.contains(&own), "{mounts}");
}
