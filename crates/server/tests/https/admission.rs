//! Built-in admission as clients meet it: what is filled in, what is refused, what is warned about.

use serde_json::{Value, json};

use crate::harness::{PODS, Server, pod};

#[tokio::test(flavor = "multi_thread")]
async fn pods_keep_to_their_namespaces_level() {
    let server = Server::start().await;
    server.service_account("default").await;
    server.post(PODS, pod("before")).await.expect(201);
    let label = |level: &str| json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": level}}});
    let refused = server.patch("/api/v1/namespaces/default", "merge-patch+json", label("tight")).await.expect(422);
    assert!(refused.message().contains("must be one of privileged, baseline, restricted"), "{}", refused.message());
    let stricter = server.patch("/api/v1/namespaces/default", "merge-patch+json", label("restricted")).await.expect(200);
    let warnings = stricter.warnings().join("\n");
    assert!(warnings.contains("existing pods in namespace") && warnings.contains("before: allowPrivilegeEscalation != false, unrestricted capabilities, runAsNonRoot != true, seccompProfile"), "{warnings}");
    let refused = server.post(PODS, pod("after")).await.expect(403);
    assert!(refused.message().starts_with("pods \"after\" is forbidden: violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false (container \""), "{}", refused.message());
    // A template is only warned about.
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": pod("x")["spec"]});
    let made = server.post("/apis/apps/v1/namespaces/default/deployments", json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}})).await.expect(201);
    assert!(made.warnings().iter().any(|warning| warning.contains("would violate PodSecurity")), "{:?}", made.warnings());
    // What is there already may be labelled.
    server.patch(&format!("{PODS}/before"), "merge-patch+json", json!({"metadata": {"labels": {"a": "b"}}})).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn defaults_bounds_and_finalizers() {
    let server = Server::start().await;
    server.service_account("default").await;
    let claim = |name: &str, size: &str| json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}});
    const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
    let class = json!({"metadata": {"name": "gold", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "example.com/p"});
    server.post("/apis/storage.k8s.io/v1/storageclasses", class).await.expect(201);
    let made = server.post(CLAIMS, claim("c", "1Gi")).await.expect(201).json();
    assert_eq!(made["spec"]["storageClassName"], "gold");
    assert_eq!(made["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    server.patch(&format!("{CLAIMS}/c/status"), "merge-patch+json", json!({"status": {"phase": "Bound"}})).await.expect(200);
    let grown = server.patch(&format!("{CLAIMS}/c"), "merge-patch+json", json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}})).await;
    assert_eq!(grown.code, 403, "{}", grown.message());

    let limits = json!({"metadata": {"name": "l"}, "spec": {"limits": [
        {"type": "PersistentVolumeClaim", "max": {"storage": "2Gi"}},
        {"type": "Container", "max": {"cpu": "1"}, "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}},
    ]}});
    server.post("/api/v1/namespaces/default/limitranges", limits).await.expect(201);
    let refused = server.post(CLAIMS, claim("big", "3Gi")).await.expect(403);
    assert_eq!(refused.message(), "persistentvolumeclaims \"big\" is forbidden: maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi");
    let made = server.post(PODS, pod("p")).await.expect(201).json();
    assert_eq!(made["spec"]["containers"][0]["resources"], json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "100m"}}));
    let mut greedy = pod("greedy");
    greedy["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "2"}});
    let refused = server.post(PODS, greedy).await.expect(403);
    assert_eq!(refused.message(), "pods \"greedy\" is forbidden: maximum cpu usage per Container is 1, but limit is 2");

    let class = |name: &str| json!({"metadata": {"name": name}, "value": 5, "globalDefault": true});
    const CLASSES: &str = "/apis/scheduling.k8s.io/v1/priorityclasses";
    server.post(CLASSES, class("all")).await.expect(201);
    assert_eq!(server.post(PODS, pod("q")).await.expect(201).json()["spec"]["priority"], 5);
    let refused = server.post(CLASSES, class("more")).await.expect(403);
    assert!(refused.message().ends_with("PriorityClass all is already marked as default. Only one default can exist"), "{}", refused.message());
    let mut missing = pod("m");
    missing["spec"]["runtimeClassName"] = Value::from("nowhere");
    let refused = server.post(PODS, missing).await.expect(403);
    assert_eq!(refused.message(), "pods \"m\" is forbidden: pod rejected: RuntimeClass \"nowhere\" not found");
}
