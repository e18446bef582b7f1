//! Priority and fairness through the real server: the default objects, headers, conditions, queues, and who is turned away.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::harness::{CONFIG_MAPS, Server, Unfinished, config_map};

const SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
const LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";
const BOB: &[(&str, &str)] = &[("impersonate-user", "bob"), ("impersonate-group", "system:authenticated")];

/// The object, once it is as it should be.
async fn once(server: &Server, path: &str, name: &str, is: impl Fn(&Value) -> bool) -> Value {
    let mut events = server.watch(&format!("{path}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&fieldSelector=metadata.name={name}")).await;
    loop {
        let event = events.next().await.expect("the watch goes on");
        if event["type"] != "BOOKMARK" && event["type"] != "DELETED" && is(&event["object"]) {
            return event["object"].clone();
        }
    }
}

fn dangling(object: &Value) -> Option<&Value> {
    object.pointer("/status/conditions")?.as_array()?.iter().find(|condition| condition["type"] == "Dangling")
}

async fn settled(server: &Server, schema: &str) -> Value {
    once(server, SCHEMAS, schema, |object| dangling(object).is_some_and(|condition| condition["status"] == "False")).await
}

#[tokio::test]
async fn the_defaults_are_there_and_stay() {
    let server = Server::start().await;
    for name in ["global-default", "exempt", "catch-all"] {
        let schema = settled(&server, name).await;
        let level = schema["spec"]["priorityLevelConfiguration"]["name"].as_str().unwrap();
        assert_eq!(dangling(&schema).unwrap()["message"], format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?} and it exists"));
        assert_eq!(dangling(&schema).unwrap()["reason"], "Found");
    }
    let uid = server.get(&format!("{SCHEMAS}/catch-all")).await.expect(200).json()["metadata"]["uid"].clone();
    // A mandatory object is put right, and comes back; a suggested one is the administrator's once it says so.
    server.patch(&format!("{LEVELS}/catch-all"), "merge-patch+json", json!({"spec": {"limited": {"nominalConcurrencyShares": 77}}})).await.expect(200);
    once(&server, LEVELS, "catch-all", |object| object["spec"]["limited"]["nominalConcurrencyShares"] == 5).await;
    server.delete(&format!("{SCHEMAS}/catch-all")).await.expect(200);
    once(&server, SCHEMAS, "catch-all", |object| object["metadata"]["uid"] != uid).await;
    let own = json!({"metadata": {"annotations": {"apf.kubernetes.io/autoupdate-spec": "false"}}, "spec": {"limited": {"nominalConcurrencyShares": 21}}});
    server.patch(&format!("{LEVELS}/global-default"), "merge-patch+json", own).await.expect(200);
    server.patch(&format!("{LEVELS}/system"), "merge-patch+json", json!({"spec": {"limited": {"nominalConcurrencyShares": 31}}})).await.expect(200);
    once(&server, LEVELS, "system", |object| object["spec"]["limited"]["nominalConcurrencyShares"] == 30).await;
    assert_eq!(server.get(&format!("{LEVELS}/global-default")).await.json()["spec"]["limited"]["nominalConcurrencyShares"], 21);
    // What is as it should be is not written again, however often it is looked at.
    let versions = async || {
        let mut found = std::collections::BTreeMap::new();
        for path in [SCHEMAS, LEVELS] {
            for object in server.get(path).await.expect(200).json()["items"].as_array().unwrap().iter().filter(|object| object["metadata"]["name"] != "own") {
                found.insert(format!("{path}/{}", object["metadata"]["name"]), object["metadata"]["resourceVersion"].clone());
            }
        }
        found
    };
    for name in server.get(SCHEMAS).await.json()["items"].as_array().unwrap().iter().map(|object| object["metadata"]["name"].as_str().unwrap()) {
        settled(&server, name).await;
    }
    let before = versions().await;
    let own = json!({"metadata": {"name": "own"}, "spec": {"matchingPrecedence": 77, "priorityLevelConfiguration": {"name": "system"}, "rules": []}});
    server.post(SCHEMAS, own).await.expect(201);
    settled(&server, "own").await;
    assert_eq!(versions().await, before);
}

#[tokio::test]
async fn answers_say_by_what_they_were_let_in() {
    let server = Server::start().await;
    settled(&server, "global-default").await;
    let uid = |path: String| {
        let server = &server;
        async move { server.get(&path).await.expect(200).json()["metadata"]["uid"].as_str().unwrap().to_owned() }
    };
    let exempt = server.get(CONFIG_MAPS).await.expect(200);
    assert_eq!(exempt.header("x-kubernetes-pf-flowschema-uid"), uid(format!("{SCHEMAS}/exempt")).await);
    assert_eq!(exempt.header("x-kubernetes-pf-prioritylevel-uid"), uid(format!("{LEVELS}/exempt")).await);
    let schema = json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": "bobs"}, "spec": {"matchingPrecedence": 50, "priorityLevelConfiguration": {"name": "bobs"},
        "rules": [{"subjects": [{"kind": "User", "user": {"name": "bob"}}], "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"]}]}]}});
    server.post(SCHEMAS, schema).await.expect(201);
    let object = once(&server, SCHEMAS, "bobs", |object| dangling(object).is_some()).await;
    assert_eq!((&dangling(&object).unwrap()["status"], &dangling(&object).unwrap()["reason"]), (&json!("True"), &json!("NotFound")));
    assert_eq!(dangling(&object).unwrap()["message"], "This FlowSchema references the PriorityLevelConfiguration object named \"bobs\" but there is no such object");
    // Refused for want of a role, and marked all the same: by the default, as long as the level is missing.
    let refused = server.call("GET", CONFIG_MAPS, BOB, "").await.expect(403);
    assert_eq!(refused.header("x-kubernetes-pf-flowschema-uid"), uid(format!("{SCHEMAS}/global-default")).await);
    let level = json!({"metadata": {"name": "bobs"}, "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 1, "limitResponse": {"type": "Reject"}}}});
    server.post(LEVELS, level).await.expect(201);
    settled(&server, "bobs").await;
    let refused = server.call("GET", CONFIG_MAPS, BOB, "").await.expect(403);
    assert_eq!(refused.header("x-kubernetes-pf-flowschema-uid"), uid(format!("{SCHEMAS}/bobs")).await);
    let metrics = String::from_utf8(server.get("/metrics").await.expect(200).body.to_vec()).unwrap();
    assert!(metrics.contains("apiserver_flowcontrol_dispatched_requests_total{flow_schema=\"bobs\",priority_level=\"bobs\"} 1"), "{metrics}");
    assert!(metrics.contains("apiserver_flowcontrol_nominal_limit_seats{priority_level=\"system\"} 74"), "{metrics}");
}

/// Everything bob does goes through one seat; a level that rejects has nobody wait.
async fn narrow(server: &Server, response: Value) {
    let rule = json!({"subjects": [{"kind": "User", "user": {"name": "bob"}}], "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"]}]});
    // A thousandth of all seats, rounded up.
    let limited = json!({"nominalConcurrencyShares": 1, "lendablePercent": 0, "borrowingLimitPercent": 0, "limitResponse": response});
    server.post(LEVELS, json!({"metadata": {"name": "narrow"}, "spec": {"type": "Limited", "limited": limited}})).await.expect(201);
    let spec = json!({"matchingPrecedence": 50, "priorityLevelConfiguration": {"name": "narrow"}, "distinguisherMethod": {"type": "ByUser"}, "rules": [rule]});
    server.post(SCHEMAS, json!({"metadata": {"name": "narrow"}, "spec": spec})).await.expect(201);
    settled(server, "narrow").await;
    let role = json!({"metadata": {"name": "bob"}, "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]});
    server.post("/apis/rbac.authorization.k8s.io/v1/clusterroles", role).await.expect(201);
    let binding = json!({"metadata": {"name": "bob"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "bob"}, "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "bob"}]});
    server.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await.expect(201);
}

/// A request that has its seat and does not end: its body is still to come.
async fn hold(server: &Server) -> Unfinished {
    server.unfinished("POST", CONFIG_MAPS, BOB, config_map("held").to_string()).await
}

/// Until the metric says so: the server has seen what was sent.
async fn until(server: &Server, line: &str) {
    loop {
        let metrics = String::from_utf8(server.get("/metrics").await.expect(200).body.to_vec()).unwrap();
        if metrics.lines().any(|known| known == line) {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn who_finds_no_seat_is_turned_away_in_upstreams_words() {
    let server = Server::start_with(|config| (config.max_requests_in_flight, config.max_mutating_requests_in_flight) = (1, 1)).await;
    narrow(&server, json!({"type": "Reject"})).await;
    let held = hold(&server).await;
    until(&server, "apiserver_flowcontrol_current_executing_seats{flow_schema=\"narrow\",priority_level=\"narrow\"} 1").await;
    let refused = server.call("GET", CONFIG_MAPS, BOB, "").await.expect(429);
    assert_eq!((&*refused.body, refused.header("retry-after"), refused.header("content-type")), (&b"Too many requests, please try again later.\n"[..], "1", "text/plain; charset=utf-8"));
    assert!(!refused.header("x-kubernetes-pf-flowschema-uid").is_empty() && !refused.header("x-kubernetes-pf-prioritylevel-uid").is_empty());
    server.get(CONFIG_MAPS).await.expect(200);
    until(&server, "apiserver_flowcontrol_rejected_requests_total{flow_schema=\"narrow\",priority_level=\"narrow\",reason=\"concurrency-limit\"} 1").await;
    assert_eq!(held.finish().await, 201);
    server.call("GET", CONFIG_MAPS, BOB, "").await.expect(200);
}

#[tokio::test]
async fn who_waits_gets_the_seat_that_becomes_free_and_who_gives_up_takes_none() {
    let server = Arc::new(Server::start_with(|config| (config.max_requests_in_flight, config.max_mutating_requests_in_flight) = (1, 1)).await);
    narrow(&server, json!({"type": "Queue", "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 1}})).await;
    let held = hold(&server).await;
    let seats = "{flow_schema=\"narrow\",priority_level=\"narrow\"}";
    until(&server, &format!("apiserver_flowcontrol_current_executing_seats{seats} 1")).await;
    let caller = |server: &Arc<Server>| {
        let server = server.clone();
        tokio::spawn(async move { server.call("GET", CONFIG_MAPS, BOB, "").await.code })
    };
    let impatient = caller(&server);
    until(&server, &format!("apiserver_flowcontrol_current_inqueue_requests{seats} 1")).await;
    server.call("GET", CONFIG_MAPS, BOB, "").await.expect(429);
    until(&server, "apiserver_flowcontrol_rejected_requests_total{flow_schema=\"narrow\",priority_level=\"narrow\",reason=\"queue-full\"} 1").await;
    impatient.abort();
    until(&server, &format!("apiserver_flowcontrol_current_inqueue_requests{seats} 0")).await;
    let patient = caller(&server);
    until(&server, &format!("apiserver_flowcontrol_current_inqueue_requests{seats} 1")).await;
    assert_eq!(held.finish().await, 201);
    assert_eq!(patient.await.unwrap(), 200);
    until(&server, &format!("apiserver_flowcontrol_current_executing_requests{seats} 0")).await;
    // A wait is over when a part of the request's time is.
    let held = server.unfinished("POST", CONFIG_MAPS, BOB, config_map("again").to_string()).await;
    until(&server, &format!("apiserver_flowcontrol_current_executing_seats{seats} 1")).await;
    server.call("GET", &format!("{CONFIG_MAPS}?timeout=200ms"), BOB, "").await.expect(429);
    until(&server, "apiserver_flowcontrol_rejected_requests_total{flow_schema=\"narrow\",priority_level=\"narrow\",reason=\"time-out\"} 1").await;
    assert_eq!(held.finish().await, 201);
}

#[tokio::test]
async fn without_fairness_the_two_limits_hold() {
    let server = Server::start_with(|config| (config.priority_and_fairness, config.max_mutating_requests_in_flight) = (false, 1)).await;
    let anonymous: &[(&str, &str)] = &[("anonymous", "yes"), ("content-type", "application/json")];
    let role = json!({"metadata": {"name": "all"}, "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]});
    server.post("/apis/rbac.authorization.k8s.io/v1/clusterroles", role).await.expect(201);
    let binding = json!({"metadata": {"name": "all"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "all"}, "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "bob"}]});
    server.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await.expect(201);
    let held = hold(&server).await;
    until(&server, "apiserver_current_inflight_requests{request_kind=\"mutating\"} 1").await;
    let refused = server.call("POST", CONFIG_MAPS, anonymous, config_map("no").to_string()).await.expect(429);
    assert_eq!(refused.header("retry-after"), "1");
    server.call("GET", CONFIG_MAPS, BOB, "").await.expect(200);
    assert_eq!(held.finish().await, 201);
    server.call("POST", CONFIG_MAPS, anonymous, config_map("no").to_string()).await.expect(403);
}
