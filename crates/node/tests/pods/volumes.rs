//! What pods are shown: images, folders, maps, secrets.

use api::k8s::api::core::v1::ConfigMap;
use client::PatchKind;
use serde_json::json;

use super::{logged, sh};
use crate::world::{World, phase, ready, state};

pub async fn image_volume(world: &mut World) {
    let mut container = sh("ls -d /img/bin/busybox /part/busybox; touch /img/x 2>/dev/null || echo readonly");
    container["volumeMounts"] = json!([{"name": "img", "mountPath": "/img"}, {"name": "img", "mountPath": "/part", "subPath": "bin"}]);
    world.create("img", json!({"restartPolicy": "Never", "containers": [container], "volumes": [{"name": "img", "image": {"reference": "busybox", "pullPolicy": "IfNotPresent"}}]})).await;
    let pod = world.until("img", "over", |pod| matches!(phase(pod), "Succeeded" | "Failed")).await;
    assert_eq!(world.log(&pod, "c", 0), "/img/bin/busybox\n/part/busybox\nreadonly\n");
    world.delete("img", 0).await;
    world.gone("img").await;
    assert!(world.dir.join("image/bin/busybox").exists(), "taking down the volume leaves the image");
}

pub async fn init_and_volumes(world: &mut World) {
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

pub async fn secrets(world: &mut World) {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "default"}, "data": {"key": "aHVzaA=="}});
    world.client.of::<api::k8s::api::core::v1::Secret>(Some("default")).create(&serde_json::from_value(secret).unwrap()).await.expect("secret");
    let mut container = sh("cat /s/key; echo; id -u; stat -L -c '%a %g' /s/key; mount | grep -c ' /s type tmpfs'; stat -c %g /data; touch /data/x && echo wrote; touch /s/x 2>/dev/null || echo readonly");
    container["volumeMounts"] = json!([{"name": "s", "mountPath": "/s"}, {"name": "data", "mountPath": "/data"}]);
    let spec = json!({"restartPolicy": "Never", "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000}, "containers": [container],
        "volumes": [{"name": "s", "secret": {"secretName": "s", "defaultMode": 256}}, {"name": "data", "emptyDir": {}}]});
    world.create("secret", spec).await;
    let pod = world.until("secret", "over", |pod| matches!(phase(pod), "Succeeded" | "Failed")).await;
    let text = world.log(&pod, "c", 0);
    assert!(text.starts_with("hush\n1000\n440 2000\n1\n2000\nwrote\n") && text.ends_with("readonly\n"), "{text}");
    world.delete("secret", 0).await;
    world.gone("secret").await;
}
