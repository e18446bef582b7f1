//! How pods live and end: refusals, restarts, resizes, probes, hooks, grace, deadlines and limits.

use std::time::{Duration, Instant};

use api::k8s::api::core::v1::Pod;
use client::PatchKind;
use serde_json::json;

use super::{logged, sh};
use super::streams::channels;
use crate::world::{World, phase, ready, restarts, state};

/// Grace is kept to the second: not shortened, not lengthened, and not waited for when the process ends by itself.
pub async fn exact_grace(world: &mut World) {
    let polite = sh("trap 'exit 0' TERM; echo set; while true; do sleep 0.01; done");
    for (name, container, grace, least) in [("deaf", sh("echo set; sleep 1000"), 1, 1000), ("polite", polite, 250, 0), ("forced", sh("echo set; sleep 1000"), 0, 0)] {
        world.create(name, json!({"containers": [container]})).await;
        let pod = world.until(name, "ready", ready).await;
        logged(world, &pod, "set\n").await;
        let begun = Instant::now();
        world.delete(name, grace).await;
        world.gone(name).await;
        let took = begun.elapsed();
        eprint!("({name} {took:?}) ");
        // Never shorter. How much longer is for the bench to say; a grace that is not to be waited for is longer than our patience.
        assert!(took >= Duration::from_millis(least), "{name}: {took:?}");
    }
}

/// A sysctl this node does not allow: it never starts, and says why.
pub async fn refused(world: &mut World) {
    world.create("unsafe", json!({"containers": [sh("true")], "securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "65536"}]}})).await;
    let pod = world.until("unsafe", "failed", |pod| phase(pod) == "Failed").await;
    let status = pod.status.as_ref().unwrap();
    assert_eq!((status.reason.as_deref(), status.message.as_deref()), (Some("SysctlForbidden"), Some("Pod was rejected: forbidden sysctl: \"kernel.msgmax\" not allowlisted")));
    assert_eq!((&status.container_statuses, status.phase.as_deref()), (&None, Some("Failed")), "kubectl shows the reason, no container's");
    world.event("unsafe", "SysctlForbidden: forbidden sysctl: \"kernel.msgmax\" not allowlisted").await;
    world.delete("unsafe", 0).await;
    world.gone("unsafe").await;
}

/// In place, by restart, and not at all.
pub async fn resized(world: &mut World) {
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

pub async fn runs_and_ends(world: &mut World) {
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

pub async fn env_and_restart(world: &mut World) {
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

pub async fn succeeds(world: &mut World) {
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

pub async fn probes(world: &mut World) {
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

pub async fn images(world: &mut World) {
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

pub async fn config_errors(world: &mut World) {
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

pub async fn hooks_and_grace(world: &mut World) {
    // PID 1 ignores SIGTERM; the preStop hook says goodbye; a second delete shortens the wait.
    let mut container = sh("while ! test -e /tmp/hooked; do sleep 0.02; done; echo hooked; while ! test -e /tmp/bye; do sleep 0.02; done; echo bye; sleep 1000");
    container["lifecycle"] = json!({"postStart": {"exec": {"command": ["touch", "/tmp/hooked"]}}, "preStop": {"exec": {"command": ["touch", "/tmp/bye"]}}});
    world.create("hooks", json!({"containers": [container]})).await;
    let pod = world.until("hooks", "ready", ready).await;
    // Longer than our patience.
    world.delete("hooks", 300).await;
    logged(world, &pod, "bye\n").await;
    world.until("hooks", "terminating", |pod| pod.metadata.deletion_timestamp.is_some()).await;
    world.delete("hooks", 1).await;
    world.gone("hooks").await;
    let mut container = sh("sleep 1000");
    container["lifecycle"] = json!({"postStart": {"exec": {"command": ["false"]}}});
    world.create("badhook", json!({"terminationGracePeriodSeconds": 0, "restartPolicy": "Never", "containers": [container]})).await;
    world.until("badhook", "failed", |pod| phase(pod) == "Failed").await;
    world.event("badhook", "FailedPostStartHook: PostStartHook failed").await;
    world.delete("badhook", 0).await;
    world.gone("badhook").await;
}

pub async fn sidecars(world: &mut World) {
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

pub async fn deadline(world: &mut World) {
    world.create("late", json!({"activeDeadlineSeconds": 1, "terminationGracePeriodSeconds": 0, "containers": [sh("trap 'exit 0' TERM; while true; do sleep 0.05; done")]})).await;
    let pod = world.until("late", "failed", |pod| phase(pod) == "Failed" && state(pod, "c") != "running").await;
    let status = pod.status.as_ref().unwrap();
    assert_eq!((status.reason.as_deref(), status.message.as_deref()), (Some("DeadlineExceeded"), Some("Pod was active on the node longer than the specified deadline")));
    world.delete("late", 0).await;
    world.gone("late").await;
}

pub async fn limits(world: &mut World) {
    let mut container = sh("tail /dev/zero");
    container["resources"] = json!({"limits": {"memory": "24Mi", "cpu": "500m"}, "requests": {"cpu": "100m"}});
    world.create("big", json!({"restartPolicy": "Never", "containers": [container]})).await;
    let pod = world.until("big", "failed", |pod| phase(pod) == "Failed").await;
    assert_eq!(state(&pod, "c"), "OOMKilled 137");
    assert_eq!(pod.status.as_ref().unwrap().qos_class.as_deref(), Some("Burstable"));
    world.delete("big", 0).await;
    world.gone("big").await;
}

pub async fn many(world: &mut World) {
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
