//! What outlives what: the node's end, a shim's, a pod's.

use std::time::{Duration, Instant};

use api::k8s::api::core::v1::Pod;
use serde_json::json;

use super::sh;
use crate::world::{PANICS, PATIENCE, World, ready, restarts};

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

async fn removed(world: &World, sandbox: &str) {
    let folder = world.dir.join("root/sandboxes").join(sandbox);
    let begun = Instant::now();
    while folder.exists() {
        assert!(begun.elapsed() < PATIENCE, "{folder:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A pod that is deleted while its sandbox is being made takes that along: nobody else knows of it.
pub async fn deleted_too_early(world: &mut World) {
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    *world.network.slow.lock() = Some(("early".to_owned(), gate.clone()));
    let mut waiting = world.network.waiting.subscribe();
    world.create("early", json!({"terminationGracePeriodSeconds": 0, "containers": [sh("sleep 1000")]})).await;
    let sandbox = tokio::time::timeout(PATIENCE, waiting.wait_for(Option::is_some)).await.expect("in time").expect("a network").clone().unwrap();
    assert!(world.dir.join("root/sandboxes").join(&sandbox).exists());
    world.delete("early", 0).await;
    world.gone("early").await;
    // Another pod's whole life: by then the agent has heard of it.
    world.create("other", json!({"terminationGracePeriodSeconds": 0, "containers": [sh("sleep 1000")]})).await;
    world.until("other", "ready", ready).await;
    gate.add_permits(1);
    removed(world, &sandbox).await;
    *world.network.slow.lock() = None;
    world.delete("other", 0).await;
    world.gone("other").await;
}

/// A panic amid a pod's start costs it a moment.
pub async fn panic_at_start(world: &mut World) {
    PANICS.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut container = sh("sleep 1000");
    container["image"] = json!("panics");
    world.create("panic", json!({"terminationGracePeriodSeconds": 0, "containers": [container]})).await;
    world.until("panic", "ready", ready).await;
    assert!(!PANICS.load(std::sync::atomic::Ordering::Relaxed));
    world.delete("panic", 0).await;
    world.gone("panic").await;
}

/// What holds a pod's network does not let go of it: the pod has not ended, and nothing of it stays for good.
pub async fn cannot_be_stopped(world: &mut World) {
    world.create("stuck", json!({"terminationGracePeriodSeconds": 1, "containers": [sh("sleep 1000")]})).await;
    let pod = world.until("stuck", "ready", ready).await;
    let sandboxes = || -> Vec<String> { std::fs::read_dir(world.dir.join("root/sandboxes")).unwrap().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect() };
    let of_pod = |id: &String| std::fs::read_to_string(world.dir.join("root/sandboxes").join(id).join("config.json")).is_ok_and(|text| text.contains(pod.metadata.uid.as_deref().unwrap()));
    let sandbox = sandboxes().into_iter().find(of_pod).expect("its sandbox");
    *world.network.stuck.lock() = ("stuck".to_owned(), 4);
    world.delete("stuck", 1).await;
    world.gone("stuck").await;
    assert_eq!(world.network.stuck.lock().1, 0, "the API was told too early");
    removed(world, &sandbox).await;
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
