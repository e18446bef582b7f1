//! The cases, one after the other in one cluster.

use std::time::{Duration, Instant};

use api::k8s::api::coordination::v1::Lease;
use api::k8s::api::core::v1::{ConfigMap, Node, Pod};
use client::{Informer, PatchKind};
use serde_json::json;

use crate::logind::shuts_down;
use crate::shortage::{over_limits, short_of_disk};
use crate::world::{PATIENCE, World, phase, ready, restarts, state};

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub async fn run(filters: &[String]) -> bool {
            let mut world = World::new().await;
            $(
                if filters.is_empty() || filters.iter().any(|f| stringify!($name).contains(f.as_str())) {
                    let begun = Instant::now();
                    // A panic fails the whole run; which case it was is said before.
                    eprint!("case {} ... ", stringify!($name));
                    $name(&mut world).await;
                    eprintln!("ok ({:?})", begun.elapsed());
                }
            )*
            world.end();
            false
        }
    };
}

cases!(registers, speaks_up, moves, mirrors, static_pods, exact_grace, refused, image_volume, resized, runs_and_ends, env_and_restart, succeeds, init_and_volumes, probes, images, config_errors, logs, exec, forwards, over_spdy, hooks_and_grace, sidecars, deadline, limits, secrets, many, adopted, sandbox_dies, over_limits, short_of_disk, shuts_down, leaves_nothing);

pub fn sh(script: &str) -> serde_json::Value {
    json!({"name": "c", "image": "busybox", "command": ["sh", "-c", script]})
}

/// Until the log of container `c` ends so. Files tell nobody when they grow.
async fn logged(world: &World, pod: &Pod, end: &str) {
    let begun = Instant::now();
    while !world.log(pod, "c", 0).ends_with(end) {
        assert!(begun.elapsed() < PATIENCE, "{}", world.log(pod, "c", 0));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn registers(world: &mut World) {
    let nodes = Informer::<Node>::of(&world.client, None).start();
    let begun = Instant::now();
    tokio::time::timeout(PATIENCE, nodes.until(|cache| cache.get("", "node1").is_some_and(|n| is_ready(&n)))).await.expect("ready");
    // Long before the next report is due, however busy the machine is.
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
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
async fn speaks_up(world: &mut World) {
    let nodes = Informer::<Node>::of(&world.client, None).start();
    nodes.synced().await;
    // The status is patched as the controller does it, then waited for; which of the two changes an informer shows first does not matter.
    let patch = json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown", "message": "Kubelet stopped posting node status."}]}});
    let given_up = world.client.of::<Node>(None).patch_status("node1", PatchKind::Strategic, patch).await.expect("patch");
    assert!(!is_ready(&given_up));
    let version = |node: &Node| node.metadata.resource_version.as_deref().and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
    let well = nodes.until(|cache| cache.get("", "node1").is_some_and(|node| is_ready(&node) && version(&node) > version(&given_up)));
    tokio::time::timeout(Duration::from_secs(8), well).await.expect("Ready long before the next report is due");
}

/// Another address of the machine is the node's, and its pods'.
async fn moves(world: &mut World) {
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
async fn mirrors(world: &mut World) {
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
async fn static_pods(world: &mut World) {
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
    std::fs::remove_file(&file).expect("removed");
    world.gone("web-node1").await;
}

/// Grace is kept to the second: not shortened, not lengthened, and not waited for when the process ends by itself.
async fn exact_grace(world: &mut World) {
    let polite = sh("trap 'exit 0' TERM; echo set; while true; do sleep 0.01; done");
    for (name, container, grace, least) in [("deaf", sh("echo set; sleep 1000"), 1, 1000), ("polite", polite, 25, 0), ("forced", sh("echo set; sleep 1000"), 0, 0)] {
        world.create(name, json!({"containers": [container]})).await;
        let pod = world.until(name, "ready", ready).await;
        logged(world, &pod, "set\n").await;
        let begun = Instant::now();
        world.delete(name, grace).await;
        world.gone(name).await;
        let took = begun.elapsed();
        eprint!("({name} {took:?}) ");
        // Never shorter. How much longer is for the bench to say; a busy machine is slow, but not by the grace that was not waited for.
        assert!(took >= Duration::from_millis(least) && took < Duration::from_secs(20), "{name}: {took:?}");
    }
}

/// A sysctl this node does not allow: it never starts, and says why.
async fn refused(world: &mut World) {
    world.create("unsafe", json!({"containers": [sh("true")], "securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "65536"}]}})).await;
    let pod = world.until("unsafe", "failed", |pod| phase(pod) == "Failed").await;
    let status = pod.status.as_ref().unwrap();
    assert_eq!((status.reason.as_deref(), status.message.as_deref()), (Some("SysctlForbidden"), Some("Pod was rejected: forbidden sysctl: \"kernel.msgmax\" not allowlisted")));
    world.event("unsafe", "SysctlForbidden: forbidden sysctl: \"kernel.msgmax\" not allowlisted").await;
    world.delete("unsafe", 0).await;
    world.gone("unsafe").await;
}

async fn image_volume(world: &mut World) {
    let mut container = sh("ls -d /img/bin/busybox /part/busybox; touch /img/x 2>/dev/null || echo readonly");
    container["volumeMounts"] = json!([{"name": "img", "mountPath": "/img"}, {"name": "img", "mountPath": "/part", "subPath": "bin"}]);
    world.create("img", json!({"restartPolicy": "Never", "containers": [container], "volumes": [{"name": "img", "image": {"reference": "busybox", "pullPolicy": "IfNotPresent"}}]})).await;
    let pod = world.until("img", "over", |pod| matches!(phase(pod), "Succeeded" | "Failed")).await;
    assert_eq!(world.log(&pod, "c", 0), "/img/bin/busybox\n/part/busybox\nreadonly\n");
    world.delete("img", 0).await;
    world.gone("img").await;
    assert!(world.dir.join("image/bin/busybox").exists(), "taking down the volume leaves the image");
}

/// In place, by restart, and not at all.
async fn resized(world: &mut World) {
    let resources = |cpu: &str, memory: &str| json!({"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}});
    let mut container = sh("sleep 1000");
    container["resources"] = resources("100m", "32Mi");
    container["resizePolicy"] = json!([{"resourceName": "cpu", "restartPolicy": "NotRequired"}, {"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
    world.create("size", json!({"terminationGracePeriodSeconds": 0, "containers": [container]})).await;
    let before = world.until("size", "ready", ready).await;
    let uid = before.metadata.uid.clone().unwrap();
    let has = |pod: &Pod| pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0].resources.as_ref().map(|r| serde_json::to_value(r).unwrap());
    let id = |pod: &Pod| pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0].container_id.clone();
    let resize = async |wanted: serde_json::Value| {
        let pods = world.client.of::<Pod>(Some("default"));
        let patch = json!({"spec": {"containers": [{"name": "c", "resources": wanted}]}});
        pods.patch_subresource("size", "resize", PatchKind::Strategic, patch).await.expect("resize");
    };
    let wanted = resources("200m", "32Mi");
    resize(wanted.clone()).await;
    let pod = world.until("size", "resized", |pod| has(pod) == Some(wanted.clone())).await;
    assert_eq!((restarts(&pod), id(&pod)), (0, id(&before)));
    let quota = |id: &str| {
        let own = format!("kubepods/pod{uid}");
        let below = |root: &str, file: &str| std::fs::read_to_string(format!("{root}/{own}{id}/{file}")).ok();
        below("/sys/fs/cgroup/cpu", "cpu.cfs_quota_us").or_else(|| below("/sys/fs/cgroup/cpu,cpuacct", "cpu.cfs_quota_us")).or_else(|| below("/sys/fs/cgroup", "cpu.max")).expect("a cgroup")
    };
    assert!(quota("").starts_with("20000"), "{}", quota(""));
    assert!(quota(&format!("/{}", id(&pod).unwrap().trim_start_matches("coracle://"))).starts_with("20000"));
    let wanted = resources("200m", "48Mi");
    resize(wanted.clone()).await;
    let restarted = |pod: &Pod| {
        // What is ended only to be started again is never shown as ended.
        assert_eq!(state(pod, "c"), "running");
        restarts(pod) == 1 && ready(pod) && has(pod) == Some(wanted.clone())
    };
    let pod = world.until("size", "restarted", restarted).await;
    assert_ne!(id(&pod), id(&before));
    resize(resources("5000", "48Mi")).await;
    let pending = |pod: &Pod| pod.status.iter().flat_map(|s| s.conditions.iter().flatten()).any(|c| c.type_ == "PodResizePending" && c.reason.as_deref() == Some("Infeasible"));
    let pod = world.until("size", "told that it cannot be", pending).await;
    assert_eq!((has(&pod), restarts(&pod)), (Some(wanted.clone()), 1));
    resize(wanted).await;
    world.until("size", "content again", |pod| !pending(pod)).await;
    world.delete("size", 0).await;
    world.gone("size").await;
}

async fn runs_and_ends(world: &mut World) {
    let begun = Instant::now();
    world.create("web", json!({"containers": [sh("echo hello; trap 'exit 0' TERM; while true; do sleep 0.1; done")]})).await;
    let pod = world.until("web", "ready", ready).await;
    eprint!("(running after {:?}) ", begun.elapsed());
    assert_eq!((phase(&pod), state(&pod, "c").as_str(), restarts(&pod)), ("Running", "running", 0));
    let status = pod.status.clone().unwrap();
    assert_eq!((status.pod_ip.as_deref(), status.host_ip.as_deref(), status.qos_class.as_deref()), (Some("10.244.0.7"), Some("127.0.0.1"), Some("BestEffort")));
    assert!(status.container_statuses.unwrap()[0].container_id.as_ref().unwrap().starts_with("coracle://"));
    logged(world, &pod, "hello\n").await;
    for expected in ["Pulled: Container image \"busybox\" already present on machine and can be accessed by the pod", "Created: Container created", "Started: Container started"] {
        world.event("web", expected).await;
    }
    world.delete("web", 5).await;
    world.gone("web").await;
    world.event("web", "Killing: Stopping container c").await;
}

async fn env_and_restart(world: &mut World) {
    world.config_map("cm", json!({"KEY": "value"})).await;
    let mut container = sh("echo $A $KEY $POD $KUBERNETES_SERVICE_HOST $(hostname); exit 3");
    container["env"] = json!([{"name": "A", "value": "a-$(POD)"}, {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]);
    container["envFrom"] = json!([{"configMapRef": {"name": "cm"}}]);
    world.create("crash", json!({"restartPolicy": "OnFailure", "containers": [container]})).await;
    let pod = world.until("crash", "in a crash loop", |pod| state(pod, "c").starts_with("CrashLoopBackOff")).await;
    let expected = format!("CrashLoopBackOff back-off 10s restarting failed container=c pod=crash_default({})", pod.metadata.uid.clone().unwrap());
    assert_eq!((state(&pod, "c"), restarts(&pod), phase(&pod)), (expected, 1, "Running"));
    let last = pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0].last_state.clone().unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (3, Some("Error")));
    assert_eq!(world.log(&pod, "c", 0), "a-$(POD) value crash 10.96.0.1 crash\n");
    world.delete("crash", 0).await;
    world.gone("crash").await;
}

async fn succeeds(world: &mut World) {
    let mut container = sh("echo -n bye > /dev/termination-log");
    container["securityContext"] = json!({"runAsUser": 1000});
    world.create("job", json!({"restartPolicy": "Never", "containers": [container]})).await;
    let pod = world.until("job", "done", |pod| phase(pod) == "Succeeded").await;
    let ended = pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0].state.clone().unwrap().terminated.unwrap();
    assert_eq!((ended.exit_code, ended.reason.as_deref(), ended.message.as_deref()), (0, Some("Completed"), Some("bye")));
    let reasons: Vec<_> = pod.status.as_ref().unwrap().conditions.iter().flatten().map(|c| format!("{}={}", c.type_, c.reason.as_deref().unwrap_or("-"))).collect();
    assert!(reasons.contains(&"Ready=PodCompleted".to_owned()), "{reasons:?}");
    world.delete("job", 0).await;
    world.gone("job").await;
}

async fn init_and_volumes(world: &mut World) {
    world.config_map("shown", json!({"key": "one"})).await;
    let spec = json!({
        "initContainers": [{"name": "first", "image": "busybox", "command": ["sh", "-c", "echo made > /work/file"], "volumeMounts": [{"name": "work", "mountPath": "/work"}]}],
        "containers": [{"name": "c", "image": "busybox",
            "command": ["sh", "-c", "cat /work/file /sub; cat /shown/key; echo; cat /down/labels; echo; ls /proj; cat /etc/hosts > /work/hosts; while ! test \"$(cat /shown/key)\" = two; do sleep 0.05; done; echo changed; sleep 1000"],
            "volumeMounts": [{"name": "work", "mountPath": "/work"}, {"name": "work", "mountPath": "/sub", "subPath": "file"}, {"name": "shown", "mountPath": "/shown"},
                {"name": "down", "mountPath": "/down"}, {"name": "proj", "mountPath": "/proj", "readOnly": true}]}],
        "volumes": [{"name": "work", "emptyDir": {"medium": "Memory"}}, {"name": "shown", "configMap": {"name": "shown"}},
            {"name": "down", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            {"name": "proj", "projected": {"sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}, {"configMap": {"name": "shown"}}]}}],
        "serviceAccountName": "default", "automountServiceAccountToken": false,
        "terminationGracePeriodSeconds": 1,
    });
    world.create("vol", spec).await;
    let pod = world.until("vol", "ready", ready).await;
    assert_eq!(state(&pod, "first"), "Completed 0");
    logged(world, &pod, "token\n").await;
    let patch = json!({"data": {"key": "two"}});
    world.client.of::<ConfigMap>(Some("default")).patch("shown", PatchKind::Merge, patch).await.expect("patch");
    logged(world, &pod, "changed\n").await;
    assert_eq!(world.log(&pod, "c", 0), "made\nmade\none\napp=\"vol\"\nkey\ntoken\nchanged\n");
    world.delete("vol", 1).await;
    world.gone("vol").await;
}

async fn probes(world: &mut World) {
    let mut container = sh("touch /live; sleep 1000");
    container["readinessProbe"] = json!({"exec": {"command": ["test", "-e", "/ready"]}, "periodSeconds": 1});
    container["livenessProbe"] = json!({"exec": {"command": ["sh", "-c", "cat /live"]}, "periodSeconds": 1, "failureThreshold": 20});
    world.create("probed", json!({"terminationGracePeriodSeconds": 1, "containers": [container]})).await;
    let pod = world.until("probed", "running", |pod| state(pod, "c") == "running").await;
    assert!(!ready(&pod));
    channels(world.websocket("/exec/default/probed/c?command=touch&command=/ready&output=1", "v5.channel.k8s.io").await).await;
    world.until("probed", "ready", ready).await;
    let mut container = sh("sleep 1000");
    container["livenessProbe"] = json!({"tcpSocket": {"port": 1, "host": "127.0.0.1"}, "periodSeconds": 1, "failureThreshold": 1});
    world.create("sick", json!({"terminationGracePeriodSeconds": 1, "containers": [container]})).await;
    world.until("sick", "restarted", |pod| restarts(pod) == 1).await;
    world.event("sick", "Unhealthy: Liveness probe failed: dial tcp 127.0.0.1:1: connect: connection refused").await;
    world.event("sick", "Killing: Container c failed liveness probe, will be restarted").await;
    for name in ["probed", "sick"] {
        world.delete(name, 0).await;
        world.gone(name).await;
    }
}

async fn images(world: &mut World) {
    world.create("pull", json!({"containers": [{"name": "c", "image": "no.where/x"}]})).await;
    world.create("bad", json!({"containers": [{"name": "c", "image": "/worker:v0.3"}]})).await;
    // What a state is for two seconds only is asked of the events, which stay.
    for told in ["Failed: Failed to pull image \"no.where/x\": no such registry", "Failed: Error: ErrImagePull"] {
        world.event("pull", told).await;
    }
    let pod = world.until("pull", "backing off", |pod| state(pod, "c") == "ImagePullBackOff Back-off pulling image \"no.where/x\": ErrImagePull: no such registry").await;
    assert_eq!(phase(&pod), "Pending");
    world.until("bad", "refused", |pod| state(pod, "c").starts_with("InvalidImageName Failed to apply default image tag \"/worker:v0.3\": couldn't parse")).await;
    for name in ["pull", "bad"] {
        world.delete(name, 0).await;
        world.gone(name).await;
    }
}

async fn config_errors(world: &mut World) {
    let mut container = sh("true");
    container["env"] = json!([{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "nosuch", "key": "k"}}}]);
    world.create("conf", json!({"containers": [container]})).await;
    world.until("conf", "refused", |pod| state(pod, "c") == "CreateContainerConfigError configmap \"nosuch\" not found").await;
    let container = json!({"name": "c", "image": "busybox", "command": ["/no/such"]});
    world.create("start", json!({"restartPolicy": "Never", "containers": [container]})).await;
    let pod = world.until("start", "failed", |pod| phase(pod) == "Failed").await;
    assert!(state(&pod, "c").starts_with("StartError 12"), "{}", state(&pod, "c"));
    world.event("conf", "Failed: Error: configmap \"nosuch\" not found").await;
    for name in ["conf", "start"] {
        world.delete(name, 0).await;
        world.gone(name).await;
    }
}

async fn logs(world: &mut World) {
    let spec = json!({"terminationGracePeriodSeconds": 1, "restartPolicy": "Never", "containers": [sh("echo one; echo two; echo three; while ! test -e /tmp/go; do sleep 0.05; done; echo four; exit 1")]});
    world.create("logs", spec).await;
    let pod = world.until("logs", "ready", ready).await;
    logged(world, &pod, "three\n").await;
    let path = |query: &str| format!("/containerLogs/default/logs/c?{query}");
    assert_eq!(world.get(&path("")).await, (200, "one\ntwo\nthree\n".to_owned()));
    assert_eq!(world.get(&path("tailLines=1")).await.1, "three\n");
    assert_eq!(world.get(&path("limitBytes=5")).await.1, "one\nt");
    let stamped = world.get(&path("timestamps=true&tailLines=1")).await.1;
    assert!(stamped.ends_with("Z three\n"), "{stamped}");
    let (status, text) = world.get(&path("previous=true")).await;
    assert!(status == 400 && text.contains("previous terminated container \\\"c\\\" in pod \\\"logs\\\" not found"), "{status} {text}");
    // Following ends with the container.
    let path = path("follow=true&tailLines=1");
    let mut lines = world.stream(&path).await;
    let mut next = async || tokio::time::timeout(PATIENCE, lines.recv()).await.expect("in time");
    assert_eq!(next().await.as_deref(), Some(&b"three\n"[..]));
    channels(world.websocket("/exec/default/logs/c?command=touch&command=/tmp/go&output=1", "v5.channel.k8s.io").await).await;
    assert_eq!((next().await.as_deref(), next().await), (Some(&b"four\n"[..]), None));
    world.until("logs", "failed", |pod| phase(pod) == "Failed").await;
    assert_eq!(world.get("/containerLogs/default/logs/c?tailLines=1").await.1, "four\n");
    world.delete("logs", 0).await;
    world.gone("logs").await;
}

/// What came on each channel until the end.
async fn channels(mut socket: tokio_tungstenite::WebSocketStream<tokio::io::DuplexStream>) -> std::collections::BTreeMap<u8, String> {
    let mut out = std::collections::BTreeMap::<u8, String>::new();
    while let Some(Ok(message)) = tokio::time::timeout(PATIENCE, futures_util::StreamExt::next(&mut socket)).await.expect("in time") {
        if let tokio_tungstenite::tungstenite::Message::Binary(bytes) = message {
            out.entry(bytes[0]).or_default().push_str(&String::from_utf8_lossy(&bytes[1..]));
        }
    }
    out
}

async fn exec(world: &mut World) {
    use futures_util::SinkExt;
    use tokio_tungstenite::tungstenite::Message;
    let mut container = sh("echo ready; cat");
    container["stdin"] = json!(true);
    world.create("exec", json!({"terminationGracePeriodSeconds": 1, "restartPolicy": "Never", "containers": [container]})).await;
    world.until("exec", "ready", ready).await;
    let command = "/exec/default/exec/c?command=sh&command=-c&command=";
    let socket = world.websocket(&format!("{command}echo%20out;echo%20err%20%3E%262;exit%205&output=1&error=1"), "v4.channel.k8s.io").await;
    let got = channels(socket).await;
    assert_eq!((got[&1].as_str(), got[&2].as_str()), ("out\n", "err\n"));
    let status: serde_json::Value = serde_json::from_str(&got[&3]).unwrap();
    assert_eq!((status["status"].as_str(), status["reason"].as_str(), status["details"]["causes"][0]["message"].as_str()), (Some("Failure"), Some("NonZeroExitCode"), Some("5")));
    // Standard input, ended by v5's close.
    let mut socket = world.websocket("/exec/default/exec/c?command=cat&input=1&output=1", "v5.channel.k8s.io, v4.channel.k8s.io").await;
    socket.send(Message::Binary(bytes::Bytes::from_static(b"\0hello"))).await.unwrap();
    socket.send(Message::Binary(bytes::Bytes::from_static(&[255, 0]))).await.unwrap();
    let got = channels(socket).await;
    assert_eq!((got[&1].as_str(), got[&3].contains("Success")), ("hello", true));
    // A terminal of the size that was asked for.
    let mut socket = world.websocket(&format!("{command}read%20x;stty%20size&input=1&output=1&tty=1"), "v5.channel.k8s.io").await;
    socket.send(Message::Binary(bytes::Bytes::from_static(b"\x04{\"Width\":91,\"Height\":33}"))).await.unwrap();
    socket.send(Message::Binary(bytes::Bytes::from_static(b"\0go\n"))).await.unwrap();
    let got = channels(socket).await;
    assert!(got[&1].contains("33 91"), "{got:?}");
    // Attach: the container's own input and output.
    let mut socket = world.websocket("/attach/default/exec/c?input=1&output=1", "v5.channel.k8s.io").await;
    socket.send(Message::Binary(bytes::Bytes::from_static(b"\0attached\n"))).await.unwrap();
    let mut heard = String::new();
    while !heard.contains("attached") {
        let message = tokio::time::timeout(PATIENCE, futures_util::StreamExt::next(&mut socket)).await.expect("in time").unwrap().unwrap();
        heard.push_str(&String::from_utf8_lossy(&message.into_data()));
    }
    drop(socket);
    let (status, text) = world.get("/exec/default/exec/none?command=x&output=1").await;
    assert!(status == 500 && text.contains("container not found"), "{status} {text}");
    world.delete("exec", 0).await;
    world.gone("exec").await;
}

async fn forwards(world: &mut World) {
    use futures_util::SinkExt;
    use tokio_tungstenite::tungstenite::Message;
    world.create("fwd", json!({"terminationGracePeriodSeconds": 1, "containers": [sh("while true; do echo served | nc -l -p 8080 127.0.0.1; done")]})).await;
    world.until("fwd", "ready", ready).await;
    let begun = Instant::now();
    loop {
        let mut socket = world.websocket("/portForward/default/fwd?port=8080", "v4.channel.k8s.io").await;
        socket.send(Message::Binary(bytes::Bytes::from_static(b"\0x"))).await.unwrap();
        let got = channels(socket).await;
        // The first bytes of each channel are the port, little-endian.
        assert!(got[&0].starts_with("\u{fffd}\u{1f}") && got[&1].starts_with("\u{fffd}\u{1f}"), "{got:?}");
        if got[&0].ends_with("served\n") {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{got:?}");
    }
    let pods = world.get("/pods").await.1;
    assert!(pods.contains("\"name\":\"fwd\""));
    assert!(world.get("/metrics/resource").await.1.contains("container_memory_working_set_bytes{container=\"c\",namespace=\"default\",pod=\"fwd\"}"));
    assert!(world.get("/stats/summary").await.1.contains("usageCoreNanoSeconds"));
    assert_eq!(world.get("/healthz").await, (200, "ok".to_owned()));
    world.delete("fwd", 0).await;
    world.gone("fwd").await;
}

async fn all(reader: &mut spdy::Reader) -> String {
    let mut all = Vec::new();
    while let Some(data) = tokio::time::timeout(PATIENCE, reader.next()).await.expect("in time") {
        all.extend_from_slice(&data);
    }
    String::from_utf8_lossy(&all).into_owned()
}

async fn open(connection: &spdy::Connection, headers: &[(&str, &str)]) -> (spdy::Reader, spdy::Writer) {
    let headers = headers.iter().fold(spdy::Headers::default(), |headers, (name, value)| headers.with(name, value));
    connection.open(headers).await.expect("a stream").split()
}

/// What kubectl before 1.31, and most programs, speak.
async fn over_spdy(world: &mut World) {
    const V4: &str = "v4.channel.k8s.io";
    let container = sh("while true; do echo served | nc -l -p 8080 127.0.0.1; done");
    world.create("spdy", json!({"terminationGracePeriodSeconds": 1, "containers": [container]})).await;
    world.until("spdy", "ready", ready).await;
    let command = "/exec/default/spdy/c?command=sh&command=-c&command=";
    for (protocols, code, text) in [(&[][..], 400, "header X-Stream-Protocol-Version does not exist"), (&["v9.channel.k8s.io"][..], 403, "unable to negotiate protocol: client supports [v9.channel.k8s.io], server accepts [v4.channel.k8s.io ")] {
        let refused = world.spdy(&format!("{command}true&output=1"), protocols).await.err().expect("a refusal");
        assert!(refused.0 == code && refused.1.contains(text), "{refused:?}");
    }
    // Output, and how it ended.
    let connection = world.spdy(&format!("{command}echo%20out;echo%20err%20%3E%262;exit%205&output=1&error=1"), &[V4, "channel.k8s.io"]).await.expect("upgrade");
    let (mut status, _status) = open(&connection, &[("streamType", "error")]).await;
    let (mut out, _out) = open(&connection, &[("streamType", "stdout")]).await;
    let (mut err, _err) = open(&connection, &[("streamType", "stderr")]).await;
    assert_eq!((all(&mut out).await.as_str(), all(&mut err).await.as_str()), ("out\n", "err\n"));
    let status: serde_json::Value = serde_json::from_str(&all(&mut status).await).unwrap();
    assert_eq!((status["reason"].as_str(), status["details"]["causes"][0]["message"].as_str()), (Some("NonZeroExitCode"), Some("5")));
    tokio::time::timeout(PATIENCE, connection.ended()).await.expect("the node goes too");
    // Input until its end, both ways at once; v2 tells success by silence.
    let connection = world.spdy("/exec/default/spdy/c?command=cat&input=1&output=1", &["v2.channel.k8s.io"]).await.expect("upgrade");
    let (mut status, _status) = open(&connection, &[("streamType", "error")]).await;
    let (_in, input) = open(&connection, &[("streamType", "stdin")]).await;
    let (mut out, _out) = open(&connection, &[("streamType", "stdout")]).await;
    let sent = "0123456789abcdef".repeat(64 * 1024);
    let (got, ()) = tokio::join!(all(&mut out), async {
        input.send(sent.clone().into()).await.expect("taken");
        input.finish().await;
    });
    assert!(got == sent && all(&mut status).await.is_empty());
    // A terminal of the size that was asked for; streams keep no order among each other, so the program waits for it.
    let connection = world.spdy(&format!("{command}until%20stty%20size%20%7C%20grep%20-q%2092;%20do%20sleep%200.01;%20done;%20stty%20size&input=1&output=1&tty=1"), &[V4]).await.expect("upgrade");
    let _status = open(&connection, &[("streamType", "error")]).await;
    let _in = open(&connection, &[("streamType", "stdin")]).await;
    let (mut out, _out) = open(&connection, &[("streamType", "stdout")]).await;
    let (_resize, resize) = open(&connection, &[("streamType", "resize")]).await;
    resize.send(bytes::Bytes::from_static(b"{\"Width\":92,\"Height\":34}\n")).await.expect("taken");
    assert!(all(&mut out).await.contains("34 92"));
    // Ports: bare, and inside of a WebSocket.
    let bare = world.spdy("/portForward/default/spdy", &["portforward.k8s.io"]).await.expect("upgrade");
    let tunnel = spdy::Connection::client(client::websocket::Tunnel::new(world.websocket("/portForward/default/spdy", "SPDY/3.1+portforward.k8s.io").await));
    for connection in [bare, tunnel] {
        let begun = Instant::now();
        for id in 0.. {
            let id = id.to_string();
            let of = |kind| [("streamType", kind), ("port", "8080"), ("requestID", id.as_str())];
            let (mut error, said_nothing) = open(&connection, &of("error")).await;
            said_nothing.finish().await;
            let (mut data, input) = open(&connection, &of("data")).await;
            input.finish().await;
            let (got, failed) = (all(&mut data).await, all(&mut error).await);
            if got == "served\n" {
                break;
            }
            // Between two clients nobody listens.
            assert!(begun.elapsed() < PATIENCE && (got.is_empty() || !failed.is_empty()), "{got:?} {failed:?}");
        }
        let of = |kind| [("streamType", kind), ("port", "81"), ("requestID", "last")];
        let (mut error, _error) = open(&connection, &of("error")).await;
        let (mut data, _data) = open(&connection, &of("data")).await;
        let failed = all(&mut error).await;
        assert!(failed.starts_with("error forwarding port 81 to pod spdy, uid ") && all(&mut data).await.is_empty(), "{failed}");
        let kind = connection.open(spdy::Headers::default().with("streamType", "data")).await;
        assert!(matches!(kind, Err(spdy::OpenError::Refused)));
    }
    world.delete("spdy", 0).await;
    world.gone("spdy").await;
}

async fn hooks_and_grace(world: &mut World) {
    // PID 1 ignores SIGTERM; the preStop hook says goodbye; a second delete shortens the wait.
    let mut container = sh("while ! test -e /tmp/hooked; do sleep 0.02; done; echo hooked; while ! test -e /tmp/bye; do sleep 0.02; done; echo bye; sleep 1000");
    container["lifecycle"] = json!({"postStart": {"exec": {"command": ["touch", "/tmp/hooked"]}}, "preStop": {"exec": {"command": ["touch", "/tmp/bye"]}}});
    world.create("hooks", json!({"containers": [container]})).await;
    let pod = world.until("hooks", "ready", ready).await;
    world.delete("hooks", 30).await;
    let begun = Instant::now();
    logged(world, &pod, "bye\n").await;
    world.until("hooks", "terminating", |pod| pod.metadata.deletion_timestamp.is_some()).await;
    world.delete("hooks", 1).await;
    world.gone("hooks").await;
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    let mut container = sh("sleep 1000");
    container["lifecycle"] = json!({"postStart": {"exec": {"command": ["false"]}}});
    world.create("badhook", json!({"terminationGracePeriodSeconds": 0, "restartPolicy": "Never", "containers": [container]})).await;
    world.until("badhook", "failed", |pod| phase(pod) == "Failed").await;
    world.event("badhook", "FailedPostStartHook: PostStartHook failed").await;
    world.delete("badhook", 0).await;
    world.gone("badhook").await;
}

async fn sidecars(world: &mut World) {
    let spec = json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 25,
        "initContainers": [{"name": "side", "image": "busybox", "restartPolicy": "Always", "command": ["sh", "-c", "trap 'echo last; exit 0' TERM; touch /work/up; while true; do sleep 0.05; done"],
            "startupProbe": {"exec": {"command": ["test", "-e", "/work/up"]}, "periodSeconds": 1}, "volumeMounts": [{"name": "work", "mountPath": "/work"}]}],
        "containers": [{"name": "c", "image": "busybox", "command": ["sh", "-c", "test -e /work/up && echo up"], "volumeMounts": [{"name": "work", "mountPath": "/work"}]}],
        "volumes": [{"name": "work", "emptyDir": {}}]});
    world.create("side", spec).await;
    let pod = world.until("side", "done", |pod| phase(pod) == "Succeeded" && state(pod, "side").starts_with("Completed")).await;
    assert_eq!((world.log(&pod, "c", 0).as_str(), world.log(&pod, "side", 0).as_str()), ("up\n", "last\n"));
    world.delete("side", 0).await;
    world.gone("side").await;
}

async fn deadline(world: &mut World) {
    world.create("late", json!({"activeDeadlineSeconds": 1, "terminationGracePeriodSeconds": 0, "containers": [sh("trap 'exit 0' TERM; while true; do sleep 0.05; done")]})).await;
    let pod = world.until("late", "failed", |pod| phase(pod) == "Failed" && state(pod, "c") != "running").await;
    let status = pod.status.as_ref().unwrap();
    assert_eq!((status.reason.as_deref(), status.message.as_deref()), (Some("DeadlineExceeded"), Some("Pod was active on the node longer than the specified deadline")));
    world.delete("late", 0).await;
    world.gone("late").await;
}

async fn limits(world: &mut World) {
    let mut container = sh("tail /dev/zero");
    container["resources"] = json!({"limits": {"memory": "24Mi", "cpu": "500m"}, "requests": {"cpu": "100m"}});
    world.create("big", json!({"restartPolicy": "Never", "containers": [container]})).await;
    let pod = world.until("big", "failed", |pod| phase(pod) == "Failed").await;
    assert_eq!(state(&pod, "c"), "OOMKilled 137");
    assert_eq!(pod.status.as_ref().unwrap().qos_class.as_deref(), Some("Burstable"));
    world.delete("big", 0).await;
    world.gone("big").await;
}

async fn secrets(world: &mut World) {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "default"}, "data": {"key": "aHVzaA=="}});
    world.client.of::<api::k8s::api::core::v1::Secret>(Some("default")).create(&serde_json::from_value(secret).unwrap()).await.expect("secret");
    let mut container = sh("cat /s/key; echo; id -u; stat -L -c '%a %g' /s/key; mount | grep -c ' /s type tmpfs'; stat -c %g /data; touch /data/x && echo wrote; touch /s/x 2>/dev/null || echo readonly");
    container["volumeMounts"] = json!([{"name": "s", "mountPath": "/s", "readOnly": true}, {"name": "data", "mountPath": "/data"}]);
    let spec = json!({"restartPolicy": "Never", "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000}, "containers": [container],
        "volumes": [{"name": "s", "secret": {"secretName": "s", "defaultMode": 256}}, {"name": "data", "emptyDir": {}}]});
    world.create("secret", spec).await;
    let pod = world.until("secret", "over", |pod| matches!(phase(pod), "Succeeded" | "Failed")).await;
    let text = world.log(&pod, "c", 0);
    assert!(text.starts_with("hush\n1000\n440 2000\n1\n2000\nwrote\n") && text.ends_with("readonly\n"), "{text}");
    world.delete("secret", 0).await;
    world.gone("secret").await;
}

async fn many(world: &mut World) {
    const PODS: usize = 30;
    let begun = Instant::now();
    let names: Vec<String> = (0..PODS).map(|i| format!("many-{i}")).collect();
    for name in &names {
        world.create(name, json!({"terminationGracePeriodSeconds": 1, "containers": [sh("trap 'exit 0' TERM; while true; do sleep 0.2; done")]})).await;
    }
    for name in &names {
        world.until(name, "ready", ready).await;
    }
    eprint!("({PODS} ready after {:?}) ", begun.elapsed());
    for name in &names {
        world.delete(name, 1).await;
    }
    for name in &names {
        world.gone(name).await;
    }
}

/// The pod's shim is killed: a new sandbox, the container again, counted.
async fn sandbox_dies(world: &mut World) {
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
async fn leaves_nothing(world: &mut World) {
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

async fn adopted(world: &mut World) {
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
