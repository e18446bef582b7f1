//! Quotas and runtime classes: what admission counts, fills in and refuses.

use serde_json::{Value, json};

use crate::harness::{CONFIG_MAPS, PODS, SERVICES, Server, config_map, pod};

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";

/// A quota as its controller leaves it: bounds and use known.
async fn quota(server: &Server, name: &str, spec: Value, used: Value) {
    server.post(QUOTAS, json!({"metadata": {"name": name}, "spec": spec})).await.expect(201);
    server.patch(&format!("{QUOTAS}/{name}/status"), "merge-patch+json", json!({"status": {"hard": spec["hard"], "used": used}})).await.expect(200);
}

async fn used(server: &Server, name: &str) -> Value {
    server.get(&format!("{QUOTAS}/{name}")).await.expect(200).json()["status"]["used"].take()
}

#[tokio::test]
async fn writes_are_counted_and_what_is_too_much_is_refused() {
    let server = Server::start().await;
    quota(&server, "q", json!({"hard": {"configmaps": "2", "services.nodeports": "1", "services": "2"}}), json!({"configmaps": "0", "services.nodeports": "0", "services": "0"})).await;
    let dry = server.call("POST", &format!("{CONFIG_MAPS}?dryRun=All"), &[("content-type", "application/json")], config_map("a").to_string()).await;
    assert_eq!((dry.code, &used(&server, "q").await["configmaps"]), (201, &json!("0")));
    server.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    server.post(CONFIG_MAPS, config_map("a")).await.expect(409);
    assert_eq!(used(&server, "q").await["configmaps"], "1", "a write that fails is not counted");
    server.post(CONFIG_MAPS, config_map("b")).await.expect(201);
    let refused = server.post(CONFIG_MAPS, config_map("c")).await.expect(403);
    assert_eq!(refused.message(), r#"configmaps "c" is forbidden: exceeded quota: q, requested: configmaps=1, used: configmaps=2, limited: configmaps=2"#);

    let service = |name: &str, kind: &str| json!({"metadata": {"name": name}, "spec": {"type": kind, "ports": [{"port": 80}]}});
    server.post(SERVICES, service("n", "NodePort")).await.expect(201);
    server.post(SERVICES, service("c", "ClusterIP")).await.expect(201);
    // An update counts what it uses more than before.
    let refused = server.patch(&format!("{SERVICES}/c"), "merge-patch+json", json!({"spec": {"type": "NodePort"}})).await.expect(403);
    assert!(refused.message().ends_with("exceeded quota: q, requested: services.nodeports=1, used: services.nodeports=1, limited: services.nodeports=1"), "{}", refused.message());
    server.patch(&format!("{SERVICES}/c"), "merge-patch+json", json!({"metadata": {"labels": {"a": "b"}}})).await.expect(200);
    assert_eq!(used(&server, "q").await, json!({"configmaps": "2", "services": "2", "services.nodeports": "1"}));
}

#[tokio::test]
async fn a_pod_says_what_it_needs_where_that_is_bounded() {
    let server = Server::start().await;
    server.service_account("default").await;
    server.post(QUOTAS, json!({"metadata": {"name": "new"}, "spec": {"hard": {"pods": "1"}}})).await.expect(201);
    server.post(PODS, pod("early")).await.expect(201);
    quota(&server, "q", json!({"hard": {"requests.cpu": "1", "pods": "5"}, "scopes": ["NotTerminating"]}), json!({"requests.cpu": "400m"})).await;
    let with = |name: &str, cpu: &str| {
        let mut pod = pod(name);
        pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": cpu}});
        pod
    };
    assert_eq!(server.post(PODS, pod("p")).await.expect(403).message(), r#"pods "p" is forbidden: failed quota: q: must specify requests.cpu for: c"#);
    assert_eq!(server.post(PODS, with("p", "1")).await.expect(403).message(), r#"pods "p" is forbidden: status unknown for quota: q, resources: pods,requests.cpu"#);
    server.patch(&format!("{QUOTAS}/q/status"), "merge-patch+json", json!({"status": {"used": {"pods": "1"}}})).await.expect(200);
    assert_eq!(server.post(PODS, with("p", "700m")).await.expect(403).message(), r#"pods "p" is forbidden: exceeded quota: q, requested: requests.cpu=700m, used: requests.cpu=400m, limited: requests.cpu=1"#);
    server.post(PODS, with("p", "600m")).await.expect(201);
    assert_eq!(used(&server, "q").await, json!({"pods": "2", "requests.cpu": "1"}));
    let mut ending = with("e", "5");
    ending["spec"]["activeDeadlineSeconds"] = 9.into();
    server.post(PODS, ending).await.expect(201);
}

#[tokio::test]
async fn a_runtime_class_must_exist_and_brings_its_overhead_and_nodes() {
    let server = Server::start().await;
    server.service_account("default").await;
    let with = |name: &str, class: &str| {
        let mut pod = pod(name);
        pod["spec"]["runtimeClassName"] = class.into();
        pod
    };
    assert_eq!(server.post(PODS, with("p", "none")).await.expect(403).message(), r#"pods "p" is forbidden: pod rejected: RuntimeClass "none" not found"#);
    let class = json!({"metadata": {"name": "r"}, "handler": "h", "overhead": {"podFixed": {"cpu": "10m"}}, "scheduling": {"nodeSelector": {"a": "b"}, "tolerations": [{"key": "k", "operator": "Exists"}]}});
    server.post("/apis/node.k8s.io/v1/runtimeclasses", class).await.expect(201);
    let made = server.post(PODS, with("p", "r")).await.expect(201).json();
    assert_eq!((&made["spec"]["overhead"], &made["spec"]["nodeSelector"]), (&json!({"cpu": "10m"}), &json!({"a": "b"})));
    assert!(made["spec"]["tolerations"].as_array().unwrap().iter().any(|toleration| toleration["key"] == "k"));
    let mut other = with("q", "r");
    other["spec"]["nodeSelector"] = json!({"a": "c"});
    assert!(server.post(PODS, other).await.expect(403).message().contains("conflict: runtimeClass.scheduling.nodeSelector[a] = b; pod.spec.nodeSelector[a] = c"));
    // Tolerations that every pod has come back when an update leaves them out.
    let mut update = server.get(&format!("{PODS}/p")).await.json();
    update["spec"]["tolerations"] = json!([{"key": "k", "operator": "Exists"}, {"key": "new", "operator": "Exists", "effect": "NoSchedule"}]);
    let updated = server.put(&format!("{PODS}/p"), update).await.expect(200).json();
    assert_eq!((updated["spec"]["tolerations"].as_array().unwrap().len(), &updated["metadata"]["generation"]), (4, &json!(2)));
}
