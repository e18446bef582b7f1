//! Evictions: what a PodDisruptionBudget allows, and what it says when it does not.

use serde_json::{Value, json};

use crate::harness::{PODS, Reply, Server, pod};

const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";

async fn running(server: &Server, name: &str, ready: bool) {
    // With a finalizer, so that what became of it can be seen.
    let mut object = pod(name);
    object["metadata"]["finalizers"] = json!(["example.com/stay"]);
    server.post(PODS, object).await.expect(201);
    let state = if ready { "True" } else { "False" };
    server.patch(&format!("{PODS}/{name}/status"), "merge-patch+json", json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": state}]}})).await.expect(200);
}

async fn evict(server: &Server, name: &str) -> Reply {
    server.post(&format!("{PODS}/{name}/eviction"), json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": "default"}})).await
}

async fn budget(server: &Server, status: Value) {
    server.patch(&format!("{BUDGETS}/b/status"), "merge-patch+json", json!({"status": status})).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_is_asked_and_counted_down() {
    let server = Server::start().await;
    server.service_account("default").await;
    for name in ["a", "b", "sick"] {
        running(&server, name, name != "sick").await;
    }
    server.post(BUDGETS, json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {}}})).await.expect(201);
    let refused = evict(&server, "a").await.expect(429);
    assert_eq!(refused.json()["details"]["causes"][0]["message"], "The disruption budget b is still being processed by the server.");
    assert_eq!(refused.header("retry-after"), "10");

    budget(&server, json!({"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 3})).await;
    assert_eq!(server.call("POST", &format!("{PODS}/a/eviction?dryRun=All"), &[("content-type", "application/json")], json!({"metadata": {"name": "a"}}).to_string()).await.code, 201);
    assert_eq!(server.get(&format!("{BUDGETS}/b")).await.json()["status"]["disruptionsAllowed"], 1, "a dry run takes nothing");
    evict(&server, "a").await.expect(201);
    let status = server.get(&format!("{BUDGETS}/b")).await.json()["status"].take();
    assert_eq!(status["disruptionsAllowed"], 0);
    assert!(status["disruptedPods"]["a"].is_string());
    assert_eq!(status["conditions"][0]["reason"], "InsufficientPods");
    let gone = server.get(&format!("{PODS}/a")).await.json();
    assert!(gone["metadata"]["deletionTimestamp"].is_string());
    let target = gone["status"]["conditions"].as_array().unwrap().iter().find(|condition| condition["type"] == "DisruptionTarget").unwrap();
    assert_eq!((target["status"].as_str(), target["reason"].as_str()), (Some("True"), Some("EvictionByEvictionAPI")));

    budget(&server, json!({"currentHealthy": 1})).await;
    let refused = evict(&server, "b").await.expect(429);
    assert_eq!(refused.message(), "Cannot evict pod as it would violate the pod's disruption budget.");
    assert_eq!(refused.json()["details"]["causes"][0], json!({"reason": "DisruptionBudget", "message": "The disruption budget b needs 1 healthy pods and has 1 currently"}));
    // There are as many healthy ones as are wanted: one that is not is no loss.
    evict(&server, "sick").await.expect(201);

    server.post(BUDGETS, json!({"metadata": {"name": "second"}, "spec": {"minAvailable": 1, "selector": {}}})).await.expect(201);
    assert!(evict(&server, "b").await.expect(500).message().starts_with("This pod has more than one PodDisruptionBudget"));
}
