//! Nodes among the users: what their agents may read and write, and what not.

use std::sync::Arc;

use client::{Client, ListOptions, Target, Transport};
use serde_json::{Value, json};
use server::Local;

use crate::harness::{PODS, Server};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const NODES: &str = "/api/v1/nodes";

const A: [(&str, &str); 3] = [("impersonate-user", "system:node:a"), ("impersonate-group", "system:nodes"), ("content-type", "application/json")];

fn bound(name: &str, node: &str, secret: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"nodeName": node, "containers": [{"name": "c", "image": "busybox"}], "volumes": [{"name": "s", "secret": {"secretName": secret}}]}})
}

async fn cluster() -> Server {
    let server = Server::start().await;
    server.service_account("default").await;
    for name in ["one", "two"] {
        server.post(SECRETS, json!({"metadata": {"name": name}})).await.expect(201);
    }
    for node in ["a", "b"] {
        server.post(NODES, json!({"metadata": {"name": node}})).await.expect(201);
    }
    server.post(PODS, bound("pa", "a", "one")).await.expect(201);
    server.post(PODS, bound("pb", "b", "two")).await.expect(201);
    server
}

#[tokio::test]
async fn an_agent_reads_what_its_pods_need() {
    let server = cluster().await;
    let get = async |path: &str| server.call("GET", path, &A, "").await;
    get(&format!("{SECRETS}/one")).await.expect(200);
    let refused = get(&format!("{SECRETS}/two")).await.expect(403);
    assert_eq!(refused.message(), r#"secrets "two" is forbidden: User "system:node:a" cannot get resource "secrets" in API group "" in the namespace "default": no relationship found between node 'a' and this object"#);
    assert!(get(SECRETS).await.expect(403).message().ends_with(r#"in the namespace "default": No Object name found"#));
    get(&format!("{SECRETS}?fieldSelector=metadata.name%3Done")).await.expect(200);
    get(&format!("{SECRETS}?fieldSelector=metadata.name%3Dtwo")).await.expect(403);
    get("/api/v1/pods?fieldSelector=spec.nodeName%3Da").await.expect(200);
    get("/api/v1/pods?fieldSelector=spec.nodeName%3Db").await.expect(403);
    get("/api/v1/services").await.expect(200);
    assert!(get(&format!("{NODES}/b")).await.expect(403).message().ends_with("node 'a' cannot read 'b', only its own Node object"));
    // A pod that comes opens the way at once, one that goes closes it.
    server.post(PODS, bound("more", "a", "two")).await.expect(201);
    get(&format!("{SECRETS}/two")).await.expect(200);
    server.delete(&format!("{PODS}/more?gracePeriodSeconds=0")).await.expect(200);
    get(&format!("{SECRETS}/two")).await.expect(403);
    // The binding of the role has no subjects: rights come from the authorizer alone.
    let binding = server.get("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/system:node").await.expect(200).json();
    assert!(binding.get("subjects").is_none());
    let stranger = [("impersonate-user", "system:node:a"), ("impersonate-group", "team")];
    server.call("GET", &format!("{SECRETS}/one"), &stranger, "").await.expect(403);
    let review = json!({"spec": {"namespace": "default"}}).to_string();
    let rules = server.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", &A, review).await.expect(201).json();
    assert_eq!((&rules["status"]["incomplete"], &rules["status"]["evaluationError"]), (&json!(true), &json!("node authorizer does not support user rule resolution")));
}

#[tokio::test]
async fn an_agent_writes_what_is_its_own() {
    let server = cluster().await;
    let refused = async |method: &str, path: &str, body: Value| {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        server.call(method, path, &[A[0], A[1], ("content-type", kind)], body.to_string()).await.expect(403).message()
    };
    let merge = [A[0], A[1], ("content-type", "application/merge-patch+json")];
    let patch = async |path: &str, body: Value| server.call("PATCH", path, &merge, body.to_string()).await;

    patch(&format!("{NODES}/a"), json!({"metadata": {"labels": {"free": "1", "kubernetes.io/hostname": "a"}}})).await.expect(200);
    assert_eq!(
        refused("PATCH", &format!("{NODES}/a"), json!({"metadata": {"labels": {"node-restriction.kubernetes.io/x": "1", "node-role.kubernetes.io/y": ""}}})).await,
        "nodes \"a\" is forbidden: is not allowed to modify labels: node-restriction.kubernetes.io/x, node-role.kubernetes.io/y"
    );
    assert_eq!(refused("PATCH", &format!("{NODES}/a"), json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}})).await, "nodes \"a\" is forbidden: node \"a\" is not allowed to modify taints");
    assert_eq!(refused("PATCH", &format!("{NODES}/b/status"), json!({"status": {"phase": "Running"}})).await, "nodes \"b\" is forbidden: node \"a\" is not allowed to modify node \"b\"");
    assert_eq!(refused("POST", NODES, json!({"metadata": {"name": "c"}})).await, "nodes \"c\" is forbidden: node \"a\" is not allowed to modify node \"c\"");

    patch(&format!("{PODS}/pa/status"), json!({"status": {"phase": "Running"}})).await.expect(200);
    assert_eq!(refused("PATCH", &format!("{PODS}/pb/status"), json!({"status": {"phase": "Running"}})).await, "pods \"pb\" is forbidden: node \"a\" can only update pod status for pods with spec.nodeName set to itself");
    assert_eq!(refused("DELETE", &format!("{PODS}/pb"), Value::Null).await, "pods \"pb\" is forbidden: node \"a\" can only delete pods with spec.nodeName set to itself");
    assert_eq!(refused("POST", PODS, bound("own", "a", "two")).await, "pods \"own\" is forbidden: pod does not have \"kubernetes.io/config.mirror\" annotation, node \"a\" can only create mirror pods");
    assert!(refused("POST", &format!("{PODS}/pb/eviction"), json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "pb"}})).await.ends_with("node a can only evict pods with spec.nodeName set to itself"));

    let uid = server.get(&format!("{NODES}/a")).await.json()["metadata"]["uid"].clone();
    let mirror = |volumes: Value| {
        json!({"metadata": {"name": "static-a", "annotations": {"kubernetes.io/config.mirror": "x"}, "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "a", "uid": uid, "controller": true}]},
            "spec": {"nodeName": "a", "containers": [{"name": "c", "image": "busybox"}], "volumes": volumes}})
    };
    assert_eq!(refused("POST", PODS, mirror(json!([{"name": "v", "configMap": {"name": "x"}}]))).await, "pods \"static-a\" is forbidden: node \"a\" can not create pods that reference configmaps");
    server.call("POST", PODS, &A, mirror(json!([{"name": "v", "hostPath": {"path": "/x"}}])).to_string()).await.expect(201);

    let lease = |name: &str| json!({"metadata": {"name": name}, "spec": {"holderIdentity": "a"}});
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    assert!(refused("POST", leases, lease("b")).await.ends_with("can only access node lease with the same name as the requesting node"));
    server.call("POST", leases, &A, lease("a").to_string()).await.expect(201);
}

#[tokio::test]
async fn tokens_are_for_pods_that_run_there() {
    let server = cluster().await;
    let ask = async |pod: &str, audiences: Value| {
        let uid = server.get(&format!("{PODS}/{pod}")).await.json()["metadata"]["uid"].clone();
        let request = json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {"audiences": audiences, "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": pod, "uid": uid}}});
        server.call("POST", "/api/v1/namespaces/default/serviceaccounts/default/token", &A, request.to_string()).await
    };
    ask("pa", json!([])).await.expect(201);
    assert!(ask("pb", json!([])).await.expect(403).message().ends_with("node requested token bound to a pod scheduled on a different node"));
    assert!(ask("pa", json!(["vault"])).await.expect(403).message().ends_with("audience \"vault\" not found in pod spec volume, system:node:a is not authorized to request tokens for this audience"));
    let unbound = server.call("POST", "/api/v1/namespaces/default/serviceaccounts/default/token", &A, json!({"spec": {}}).to_string()).await.expect(403);
    assert!(unbound.message().ends_with("node requested token not bound to a pod"));
}

#[tokio::test]
async fn an_agent_in_this_process_is_held_to_the_same() {
    let server = cluster().await;
    let local = Local::node(server.api.clone(), "a");
    let secret = |name: &str| Target { version: "v1".into(), plural: "secrets".into(), namespace: Some("default".into()), name: Some(name.into()), ..Target::default() };
    assert!(local.get(&secret("one")).await.is_ok());
    assert!(local.get(&secret("two")).await.unwrap_err().message.contains("no relationship found between node 'a' and this object"));
    let pods = Target { version: "v1".into(), plural: "pods".into(), ..Target::default() };
    let fields = |node: &str| ListOptions { field_selector: format!("spec.nodeName={node}"), ..ListOptions::default() };
    assert!(local.list(&pods, &fields("a")).await.is_ok() && local.list(&pods, &fields("b")).await.is_err());
    drop(Client::new(Arc::new(local), "kubelet"));
}
