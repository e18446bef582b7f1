//! Admission webhooks, asked over real TLS.

use base64::Engine;
use serde_json::{Value, json};

use crate::custom::{definition, establish};
use crate::harness::{CONFIG_MAPS, PODS, Server, config_map, pod};
use crate::listener::Listener;

const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";

fn said(review: &Value, response: Value) -> Value {
    let mut response = response;
    response["uid"] = review["request"]["uid"].clone();
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

fn patch(ops: Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": base64::engine::general_purpose::STANDARD.encode(ops.to_string())})
}

fn hook(name: &str, client: Value, resources: &[&str], more: Value) -> Value {
    let mut hook = json!({
        "name": format!("{name}.example.com"), "clientConfig": client, "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": resources}]
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        hook[key] = value.clone();
    }
    hook
}

fn configuration(kind: &str, name: &str, hooks: Vec<Value>) -> Value {
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "webhooks": hooks})
}

async fn validating(server: &Server, hooks: Vec<Value>) {
    server.post(VALIDATING, configuration("ValidatingWebhookConfiguration", "v", hooks)).await.expect(201);
}

async fn mutating(server: &Server, hooks: Vec<Value>) {
    server.post(MUTATING, configuration("MutatingWebhookConfiguration", "m", hooks)).await.expect(201);
}

#[tokio::test]
async fn refusals_of_every_verb() {
    let server = Server::start().await;
    let listener = Listener::start(|_, review| {
        let request = &review["request"];
        let object = if request["operation"] == "DELETE" { &request["oldObject"] } else { &request["object"] };
        let wrong = object["data"]["k"] == "forbidden" || object["data"]["k"] == "kept" && request["operation"] == "DELETE";
        Some(said(review, if wrong { json!({"allowed": false, "status": {"reason": "Forbidden", "code": 403, "message": "the k is wrong"}}) } else { json!({"allowed": true, "warnings": ["mind the k"]}) }))
    })
    .await;
    validating(&server, vec![hook("deny", listener.client("/v"), &["configmaps"], json!({}))]).await;
    let mut wrong = config_map("a");
    wrong["data"]["k"] = "forbidden".into();
    let reply = server.post(CONFIG_MAPS, wrong.clone()).await.expect(403);
    assert_eq!(reply.message(), r#"admission webhook "deny.example.com" denied the request: the k is wrong"#);
    let reply = server.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    assert_eq!(reply.warnings(), [r#"299 - "mind the k""#]);
    server.put(&format!("{CONFIG_MAPS}/a"), wrong).await.expect(403);
    let reply = server.patch(&format!("{CONFIG_MAPS}/a"), "merge-patch+json", json!({"data": {"k": "forbidden"}})).await.expect(403);
    assert_eq!(reply.reason(), "Forbidden");
    server.patch(&format!("{CONFIG_MAPS}/a"), "merge-patch+json", json!({"data": {"k": "kept"}})).await.expect(200);
    server.delete(&format!("{CONFIG_MAPS}/a")).await.expect(403);
    server.delete(CONFIG_MAPS).await.expect(403);
    server.patch(&format!("{CONFIG_MAPS}/a"), "merge-patch+json", json!({"data": {"k": "v"}})).await.expect(200);
    server.delete(&format!("{CONFIG_MAPS}/a")).await.expect(200);
    let requests = listener.requests();
    let first = &requests[0];
    assert_eq!(first["kind"], json!({"group": "", "version": "v1", "kind": "ConfigMap"}));
    assert_eq!(first["resource"], json!({"group": "", "version": "v1", "resource": "configmaps"}));
    assert_eq!((&first["name"], &first["namespace"], &first["operation"], &first["dryRun"], &first["oldObject"]), (&json!("a"), &json!("default"), &json!("CREATE"), &json!(false), &Value::Null));
    assert_eq!((&first["userInfo"]["username"], &first["options"]["kind"], &first["object"]["kind"]), (&json!("kubernetes-admin"), &json!("CreateOptions"), &json!("ConfigMap")));
    let last = requests.last().unwrap();
    assert_eq!((&last["operation"], &last["object"], &last["oldObject"]["metadata"]["name"], &last["options"]["kind"]), (&json!("DELETE"), &Value::Null, &json!("a"), &json!("DeleteOptions")));
    // One after the other: one connection.
    assert_eq!(listener.connections(), 1);
    let metrics = String::from_utf8(server.get("/metrics").await.body.to_vec()).unwrap();
    for line in [
        r#"apiserver_admission_webhook_rejection_count{name="deny.example.com",type="validating",operation="CREATE",error_type="no_error",rejection_code="403"} 1"#,
        r#"apiserver_admission_webhook_request_total{name="deny.example.com",type="validating",operation="CREATE",code="200",rejected="false"} 1"#,
        r#"apiserver_admission_webhook_admission_duration_seconds_count{name="deny.example.com",type="validating",operation="CREATE",rejected="true"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
}

#[tokio::test]
async fn changes_are_made_in_order_and_seen_again() {
    let server = Server::start().await;
    let listener = Listener::start(|path, review| {
        let data = &review["request"]["object"]["data"];
        let set = |key: &str| patch(json!([{"op": "add", "path": format!("/data/{key}"), "value": "yes"}]));
        Some(said(
            review,
            match path {
                "/first" if data["second"] == "yes" && data["third"].is_null() => set("third"),
                "/first" if data["first"].is_null() => set("first"),
                "/second" if data["first"] == "yes" && data["second"].is_null() => set("second"),
                _ => json!({"allowed": true}),
            },
        ))
    })
    .await;
    let again = json!({"reinvocationPolicy": "IfNeeded"});
    mutating(&server, vec![hook("first", listener.client("/first"), &["configmaps"], again.clone()), hook("second", listener.client("/second"), &["configmaps"], json!({}))]).await;
    let made = server.post(CONFIG_MAPS, config_map("a")).await.expect(201).json();
    assert_eq!(made["data"], json!({"k": "v", "first": "yes", "second": "yes", "third": "yes"}));
    let paths: Vec<String> = listener.asked.lock().iter().map(|(path, _)| path.clone()).collect();
    assert_eq!(paths, ["/first", "/second", "/first"]);
    // A dry run changes its answer too, and nothing else.
    let dry = server.post(&format!("{CONFIG_MAPS}?dryRun=All"), config_map("b")).await.expect(201).json();
    assert_eq!(dry["data"]["third"], "yes");
    assert_eq!(listener.requests().last().unwrap()["dryRun"], true);
    server.get(&format!("{CONFIG_MAPS}/b")).await.expect(404);
}

#[tokio::test]
async fn changed_pods_get_their_defaults() {
    let server = Server::start().await;
    server.service_account("default").await;
    let listener = Listener::start(|_, review| Some(said(review, patch(json!([{"op": "add", "path": "/spec/initContainers", "value": [{"name": "added", "image": "i"}]}]))))).await;
    let mut pods = hook("pods", listener.client("/"), &["pods"], json!({}));
    pods["rules"][0]["operations"] = json!(["CREATE"]);
    mutating(&server, vec![pods]).await;
    let made = server.post(PODS, pod("p")).await.expect(201).json();
    assert_eq!((&made["spec"]["initContainers"][0]["terminationMessagePolicy"], &made["spec"]["initContainers"][0]["volumeMounts"][0]["readOnly"]), (&json!("File"), &json!(true)));
}

#[tokio::test]
async fn who_is_asked_about_what() {
    let server = Server::start().await;
    let listener = Listener::start(|_, review| Some(said(review, json!({"allowed": false})))).await;
    let selected = json!({"namespaceSelector": {"matchLabels": {"hooked": "yes"}}, "objectSelector": {"matchExpressions": [{"key": "skip", "operator": "DoesNotExist"}]}});
    validating(&server, vec![hook("all", listener.client("/"), &["*/*"], selected)]).await;
    server.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    server.patch("/api/v1/namespaces/kube-public", "merge-patch+json", json!({"metadata": {"labels": {"hooked": "yes"}}})).await.expect(400);
    let other = "/api/v1/namespaces/hooked/configmaps";
    let reply = server.post("/api/v1/namespaces", json!({"metadata": {"name": "hooked", "labels": {"hooked": "yes", "skip": "1"}}})).await.expect(201).json();
    assert_eq!(reply["metadata"]["name"], "hooked");
    let reply = server.post(other, config_map("a")).await.expect(400);
    assert_eq!(reply.message(), r#"admission webhook "all.example.com" denied the request without explanation"#);
    let mut skipped = config_map("a");
    skipped["metadata"]["labels"] = json!({"skip": "1"});
    server.post(other, skipped).await.expect(201);
    // Nobody can lock the door on the configurations themselves.
    server.delete(&format!("{VALIDATING}/v")).await.expect(200);
    server.post(other, config_map("b")).await.expect(201);
}

#[tokio::test]
async fn failures_and_their_policies() {
    let server = Server::start().await;
    let listener = Listener::start(|path, review| match path {
        "/slow" => None,
        "/uid" => Some(json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {"uid": "x", "allowed": true}})),
        _ => Some(said(review, json!({"allowed": true}))),
    })
    .await;
    let strange = Listener::start(|_, _| None).await;
    let (one, slow) = (json!({"failurePolicy": "Ignore"}), format!("https://127.0.0.1:{}/slow", listener.port));
    let mut untrusted = listener.client("/");
    untrusted["caBundle"] = strange.bundle.clone().into();
    for (what, client, more, want) in [
        ("slow", listener.client("/slow"), json!({"timeoutSeconds": 1}), format!(r#"failed to call webhook: Post "{slow}?timeout=1s": context deadline exceeded"#)),
        ("uid", listener.client("/uid"), json!({}), String::new()),
        ("tls", untrusted, json!({}), format!(r#"failed to call webhook: Post "https://127.0.0.1:{}/?timeout=10s": tls: failed to verify certificate: x509: certificate signed by unknown authority"#, listener.port)),
        ("gone", json!({"service": {"namespace": "default", "name": "hook", "path": "/x"}}), json!({}), r#"failed to call webhook: Post "https://hook.default.svc:443/x?timeout=10s": service "hook" not found"#.to_owned()),
    ] {
        validating(&server, vec![hook(what, client.clone(), &["configmaps"], more.clone())]).await;
        let reply = server.post(CONFIG_MAPS, config_map(what)).await.expect(500);
        let frame = format!(r#"Internal error occurred: failed calling webhook "{what}.example.com": "#);
        let message = reply.message();
        let why = message.strip_prefix(&frame).unwrap_or_else(|| panic!("{message}"));
        if !want.is_empty() {
            assert_eq!(why, want);
        } else {
            assert!(why.starts_with("received invalid webhook response: expected response.uid="), "{why}");
        }
        server.delete(&format!("{VALIDATING}/v")).await.expect(200);
        let mut lenient = hook(what, client, &["configmaps"], more);
        lenient["failurePolicy"] = one["failurePolicy"].clone();
        validating(&server, vec![lenient]).await;
        server.post(CONFIG_MAPS, config_map(what)).await.expect(201);
        server.delete(&format!("{VALIDATING}/v")).await.expect(200);
    }
}

#[tokio::test]
async fn side_effects_forbid_dry_runs() {
    let server = Server::start().await;
    let listener = Listener::start(|_, review| Some(said(review, json!({"allowed": true})))).await;
    // What validation forbids today may be stored from before.
    let old = configuration("ValidatingWebhookConfiguration", "v", vec![hook("some", listener.client("/"), &["configmaps"], json!({"sideEffects": "Some"}))]);
    let key = "/registry/validatingwebhookconfigurations/v".to_owned();
    server.store.commit(store::Write { key, precondition: store::Precondition::Absent, object: Some(old.to_string().into()) }).await.unwrap();
    server.post(VALIDATING, configuration("ValidatingWebhookConfiguration", "w", vec![])).await.expect(201);
    let reply = server.post(&format!("{CONFIG_MAPS}?dryRun=All"), config_map("a")).await.expect(400);
    assert_eq!(reply.message(), r#"admission webhook "some.example.com" does not support dry run"#);
    server.post(CONFIG_MAPS, config_map("a")).await.expect(201);
}

#[tokio::test]
async fn services_are_reached_at_their_endpoints() {
    let server = Server::start().await;
    let listener = Listener::start(|_, review| Some(said(review, json!({"allowed": false, "status": {"message": "by service"}})))).await;
    server.post(crate::harness::SERVICES, json!({"metadata": {"name": "hook"}, "spec": {"ports": [{"name": "https", "port": 8443}]}})).await.expect(201);
    // A loopback address is none an endpoint may have: what the store holds is believed.
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "hook-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "hook"}},
        "addressType": "IPv4", "endpoints": [{"addresses": ["127.0.0.1"]}], "ports": [{"name": "https", "port": listener.port}]});
    server.store.commit(store::Write { key: "/registry/endpointslices/default/hook-1".into(), precondition: store::Precondition::Absent, object: Some(slice.to_string().into()) }).await.unwrap();
    let client = json!({"service": {"namespace": "default", "name": "hook", "path": "/x", "port": 8443}, "caBundle": listener.bundle});
    validating(&server, vec![hook("svc", client, &["configmaps"], json!({}))]).await;
    assert!(server.post(CONFIG_MAPS, config_map("a")).await.expect(400).message().ends_with("denied the request: by service"));
}

#[tokio::test]
async fn subresources_and_connections() {
    let server = Server::start().await;
    server.service_account("default").await;
    let listener = Listener::start(|_, review| {
        let refused = review["request"]["operation"] == "CONNECT" || review["request"]["object"]["spec"]["replicas"] == 7;
        Some(said(review, if refused { json!({"allowed": false, "status": {"message": "not this"}}) } else { json!({"allowed": true}) }))
    })
    .await;
    server.post(PODS, pod("p")).await.expect(201);
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let template = json!({"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    server.post(deployments, json!({"metadata": {"name": "d"}, "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "d"}}, "template": template}})).await.expect(201);
    validating(&server, vec![hook("subs", listener.client("/"), &["pods/exec", "pods/attach", "pods/eviction", "pods/status", "deployments/scale"], json!({}))]).await;
    let reply = server.post(&format!("{PODS}/p/attach?container=c&stdin=true"), json!({})).await.expect(400);
    assert!(reply.message().ends_with("denied the request: not this"), "{}", reply.message());
    let reply = server.put(&format!("{deployments}/d/scale"), json!({"metadata": {"name": "d"}, "spec": {"replicas": 7}})).await.expect(400);
    assert!(reply.message().ends_with("denied the request: not this"));
    server.patch(&format!("{deployments}/d/scale"), "merge-patch+json", json!({"spec": {"replicas": 2}})).await.expect(200);
    server.patch(&format!("{PODS}/p/status"), "merge-patch+json", json!({"status": {"message": "m"}})).await.expect(200);
    server.post(&format!("{PODS}/p/eviction"), json!({"metadata": {"name": "p"}})).await.expect(201);
    let seen: Vec<String> = listener.requests().iter().map(|request| format!("{} {} {}", request["operation"].as_str().unwrap(), request["subResource"].as_str().unwrap(), request["kind"]["kind"].as_str().unwrap())).collect();
    assert_eq!(seen, ["CONNECT attach PodAttachOptions", "UPDATE scale Scale", "UPDATE scale Scale", "UPDATE status Pod", "CREATE eviction Eviction"]);
    assert_eq!(listener.requests()[0]["object"], json!({"apiVersion": "v1", "kind": "PodAttachOptions", "container": "c", "stdin": true}));
}

#[tokio::test]
async fn custom_kinds_are_pruned_after_a_change_and_known_by_other_versions() {
    let server = Server::start().await;
    let mut wanted = definition();
    let mut second = wanted["spec"]["versions"][0].clone();
    second["name"] = "v2".into();
    second["storage"] = false.into();
    wanted["spec"]["versions"] = json!([wanted["spec"]["versions"][0], second]);
    establish(&server, wanted).await;
    let listener = Listener::start(|_, review| Some(said(review, patch(json!([{"op": "add", "path": "/spec/unknown", "value": 1}, {"op": "add", "path": "/spec/replicas", "value": 3}]))))).await;
    let mut only = hook("v2", listener.client("/"), &["crontabs"], json!({}));
    only["rules"][0]["apiVersions"] = json!(["v2"]);
    mutating(&server, vec![only]).await;
    let object = json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": "a"}, "spec": {"cronSpec": "* * * * *"}});
    let made = server.post("/apis/stable.example.com/v1/namespaces/default/crontabs", object).await.expect(201).json();
    assert_eq!((&made["apiVersion"], &made["spec"]), (&json!("stable.example.com/v1"), &json!({"cronSpec": "* * * * *", "image": "busybox", "replicas": 3})));
    let request = &listener.requests()[0];
    assert_eq!((&request["kind"]["version"], &request["requestKind"]["version"], &request["object"]["apiVersion"]), (&json!("v2"), &json!("v1"), &json!("stable.example.com/v2")));
}
