//! Kinds with a life of their own: signing requests, pods' subresources, namespaces.

use serde_json::json;

use crate::harness::{PODS, Server, pod};

#[tokio::test]
async fn a_signing_request_knows_who_asked() {
    let server = Server::start().await;
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, request);
    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let body = json!({"metadata": {"name": "c"}, "spec": {"request": encoded, "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"], "username": "somebody-else"}}).to_string();
    let made = server.call("POST", path, &[("impersonate-user", "jane"), ("impersonate-group", "system:masters"), ("content-type", "application/json")], body).await.expect(201).json();
    assert_eq!((&made["spec"]["username"], &made["spec"]["groups"]), (&json!("jane"), &json!(["system:masters", "system:authenticated"])));
    let approve = json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "x"}]}});
    let approved = server.patch(&format!("{path}/c/approval"), "merge-patch+json", approve).await.expect(200).json();
    assert!(approved["status"]["conditions"][0]["lastUpdateTime"].is_string());
    // Approved is for ever, and never beside Denied.
    let deny = json!({"status": {"conditions": [{"type": "Denied", "status": "True", "reason": "x"}]}});
    server.patch(&format!("{path}/c/approval"), "merge-patch+json", deny).await.expect(422);
}

#[tokio::test]
async fn ephemeral_containers_are_added_and_stay() {
    let server = Server::start().await;
    server.service_account("default").await;
    server.post(PODS, pod("p")).await.expect(201);
    let path = format!("{PODS}/p/ephemeralcontainers");
    let add = |image: &str| json!({"spec": {"ephemeralContainers": [{"name": "debug", "image": image}]}});
    let made = server.patch(&path, "strategic-merge-patch+json", add("busybox")).await.expect(200).json();
    assert_eq!(made["spec"]["ephemeralContainers"][0]["terminationMessagePolicy"], "File");
    server.patch(&path, "strategic-merge-patch+json", add("other")).await.expect(422);
    let resized = server.patch(&format!("{PODS}/p/resize"), "strategic-merge-patch+json", json!({"spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "1"}}}]}})).await;
    assert!(matches!(resized.code, 200 | 422), "a resize is judged: {}", resized.message());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ranges_of_services_are_an_object_that_is_ready() {
    let server = Server::start().await;
    let cidr = server.get("/apis/networking.k8s.io/v1/servicecidrs/kubernetes/status").await.expect(200).json();
    assert_eq!(cidr["spec"]["cidrs"], json!(["10.96.0.0/12"]));
    assert_eq!(cidr["status"]["conditions"][0]["type"], "Ready");
}
