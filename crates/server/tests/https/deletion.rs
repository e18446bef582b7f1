//! DELETE: grace, finalizers, propagation, preconditions, collections, namespaces.

use serde_json::{Value, json};

use crate::harness::{CONFIG_MAPS, PODS, Server, config_map, pod};

#[tokio::test]
async fn a_bound_pod_gets_its_grace_and_a_shorter_one_when_asked() {
    let server = Server::start().await;
    server.service_account("default").await;
    server.post(PODS, pod("p")).await.expect(201);
    server.post(&format!("{PODS}/p/binding"), json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}})).await.expect(201);
    let path = format!("{PODS}/p");
    let going = server.delete(&path).await.expect(200).json();
    assert_eq!((&going["kind"], &going["metadata"]["deletionGracePeriodSeconds"]), (&json!("Pod"), &json!(30)));
    assert_eq!(server.delete(&format!("{path}?gracePeriodSeconds=60")).await.expect(200).json()["metadata"]["deletionGracePeriodSeconds"], 30, "grace only shrinks");
    let sooner = server.delete(&format!("{path}?gracePeriodSeconds=20")).await.expect(200).json();
    assert_eq!(sooner["metadata"]["deletionGracePeriodSeconds"], 20);
    let time = |object: &Value| object["metadata"]["deletionTimestamp"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert_eq!(time(&going).duration_since(time(&sooner)).as_secs(), 10, "counted from the first delete");
    assert_eq!((&going["metadata"]["generation"], &sooner["metadata"]["generation"]), (&json!(2), &json!(2)), "it was told to go once");
    server.delete(&format!("{path}?gracePeriodSeconds=0")).await.expect(200);
    server.get(&path).await.expect(404);
    // A pod nobody runs has nothing to end gracefully.
    server.post(PODS, pod("q")).await.expect(201);
    server.delete(&format!("{PODS}/q")).await.expect(200);
    server.get(&format!("{PODS}/q")).await.expect(404);
}

#[tokio::test]
async fn finalizers_hold_an_object_and_propagation_becomes_one() {
    let server = Server::start().await;
    let held = |name: &str, finalizers: Value| json!({"metadata": {"name": name, "finalizers": finalizers}});
    server.post(CONFIG_MAPS, held("a", json!(["x.io/y"]))).await.expect(201);
    let path = format!("{CONFIG_MAPS}/a");
    let going = server.delete(&path).await.expect(200).json();
    assert!(going["metadata"]["deletionTimestamp"].is_string());
    let refused = server.patch(&path, "merge-patch+json", json!({"metadata": {"finalizers": ["x.io/y", "x.io/z"]}})).await.expect(422).json();
    assert_eq!(refused["message"], r#"ConfigMap "a" is invalid: metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{"x.io/z"}"#);
    // Once by what holds for every update, and once by the kind.
    assert_eq!(refused["details"]["causes"].as_array().unwrap().len(), 2);
    server.patch(&path, "merge-patch+json", json!({"metadata": {"finalizers": null}})).await.expect(200);
    server.get(&path).await.expect(404);
    for (policy, finalizer) in [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")] {
        server.post(CONFIG_MAPS, config_map("b")).await.expect(201);
        let path = format!("{CONFIG_MAPS}/b");
        let going = server.delete(&format!("{path}?propagationPolicy={policy}")).await.expect(200).json();
        assert_eq!(going["metadata"]["finalizers"], json!([finalizer]));
        server.patch(&path, "merge-patch+json", json!({"metadata": {"finalizers": []}})).await.expect(200);
        server.get(&path).await.expect(404);
    }
}

#[tokio::test]
async fn preconditions_and_collections() {
    let server = Server::start().await;
    for (name, label) in [("a", "x"), ("b", "x"), ("c", "y")] {
        server.post(CONFIG_MAPS, json!({"metadata": {"name": name, "labels": {"l": label}}})).await.expect(201);
    }
    let uid = server.get(&format!("{CONFIG_MAPS}/c")).await.expect(200).json()["metadata"]["uid"].clone();
    let with = |uid: Value| json!({"preconditions": {"uid": uid}}).to_string();
    server.call("DELETE", &format!("{CONFIG_MAPS}/c"), &[], with(json!("other"))).await.expect(409);
    let list = server.delete(&format!("{CONFIG_MAPS}?labelSelector=l%3Dx")).await.expect(200).json();
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    assert_eq!(server.get(CONFIG_MAPS).await.expect(200).json()["items"].as_array().unwrap().len(), 1);
    let done = server.call("DELETE", &format!("{CONFIG_MAPS}/c"), &[], with(uid.clone())).await.expect(200).json();
    assert_eq!((&done["status"], &done["details"]["uid"]), (&json!("Success"), &uid));
}

#[tokio::test]
async fn a_namespace_ends_when_it_is_finalized() {
    let server = Server::start().await;
    server.post("/api/v1/namespaces", json!({"metadata": {"name": "n"}})).await.expect(201);
    let going = server.delete("/api/v1/namespaces/n").await.expect(200).json();
    assert_eq!((&going["status"]["phase"], going["metadata"]["deletionTimestamp"].is_string()), (&json!("Terminating"), true));
    let refused = server.post("/api/v1/namespaces/n/configmaps", config_map("late")).await.expect(403).json();
    assert_eq!(refused["message"], r#"configmaps "late" is forbidden: unable to create new content in namespace n because it is being terminated"#);
    let mut finalized = going;
    finalized["spec"]["finalizers"] = json!([]);
    server.put("/api/v1/namespaces/n/finalize", finalized).await.expect(200);
    server.get("/api/v1/namespaces/n").await.expect(404);
    let immortal = server.delete("/api/v1/namespaces/kube-system").await.expect(403);
    assert_eq!(immortal.message(), r#"namespaces "kube-system" is forbidden: this namespace may not be deleted"#);
}
