//! Updates and patches: conflicts, subresources, managers, warnings.

use serde_json::{Value, json};

use crate::harness::{CONFIG_MAPS, PODS, SERVICES, Server, config_map, pod};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn deployment(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}}})
}

#[tokio::test]
async fn patches_at_once_never_conflict() {
    const WRITERS: usize = 4;
    let server = std::sync::Arc::new(Server::start().await);
    server.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let server = server.clone();
            tokio::spawn(async move {
                for step in 0..5 {
                    server.patch(&format!("{CONFIG_MAPS}/a"), "merge-patch+json", json!({"data": {format!("w{writer}-{step}"): "x"}})).await.expect(200);
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let data = server.get(&format!("{CONFIG_MAPS}/a")).await.expect(200).json()["data"].as_object().unwrap().len();
    assert_eq!(data, WRITERS * 5 + 1, "no patch is lost");
    // A patch that names a version is held to it.
    let stale = server.patch(&format!("{CONFIG_MAPS}/a"), "merge-patch+json", json!({"metadata": {"resourceVersion": "1"}})).await.expect(409);
    assert_eq!(stale.reason(), "Conflict");
}

#[tokio::test]
async fn every_kind_of_patch_reaches_every_part() {
    let server = Server::start().await;
    server.post(DEPLOYMENTS, deployment("d")).await.expect(201);
    for (kind, patch, replicas) in [
        ("merge-patch+json", json!({"spec": {"replicas": 2}}), 2),
        ("json-patch+json", json!([{"op": "replace", "path": "/spec/replicas", "value": 3}]), 3),
        ("strategic-merge-patch+json", json!({"spec": {"replicas": 4}}), 4),
    ] {
        let scale = server.patch(&format!("{DEPLOYMENTS}/d/scale"), kind, patch).await.expect(200).json();
        assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(replicas)), "{kind}");
        let status = server.patch(&format!("{DEPLOYMENTS}/d/status"), kind, if kind == "json-patch+json" { json!([{"op": "add", "path": "/status/replicas", "value": replicas}]) } else { json!({"status": {"replicas": replicas}, "spec": {"replicas": 99}}) }).await.expect(200).json();
        assert_eq!((&status["status"]["replicas"], &status["spec"]["replicas"]), (&json!(replicas), &json!(replicas)), "a status write leaves the spec alone");
        server.patch(&format!("{DEPLOYMENTS}/d"), "cbor", json!({})).await.expect(415);
    }
    let negative = server.patch(&format!("{DEPLOYMENTS}/d/scale"), "merge-patch+json", json!({"spec": {"replicas": -1}})).await.expect(422);
    assert!(negative.message().contains("spec.replicas: Invalid value: -1: must be greater than or equal to 0"));
}

/// What admission and the strategy fill in is not the writer's: who comes later may say something else of it.
#[tokio::test]
async fn nobody_owns_what_the_cluster_filled_in() {
    let server = Server::start().await;
    server.service_account("default").await;
    let owned = |object: &Value| object["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let service = server.post(SERVICES, json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}})).await.expect(201).json();
    assert!(service["spec"]["clusterIP"].is_string());
    assert_eq!(owned(&service), ["f:internalTrafficPolicy", "f:ports", "f:sessionAffinity", "f:type"]);
    let made = server.post(PODS, pod("p")).await.expect(201).json();
    assert!(made["spec"]["tolerations"].is_array());
    let owned = owned(&made);
    assert!(owned.contains(&"f:containers".to_owned()) && !owned.contains(&"f:tolerations".to_owned()) && !owned.contains(&"f:serviceAccountName".to_owned()), "{owned:?}");
}

/// What is no Scale, or another object's, scales nothing: least of all to zero.
#[tokio::test]
async fn a_scale_is_taken_as_what_it_is() {
    let server = Server::start().await;
    let made = server.post(DEPLOYMENTS, deployment("d")).await.expect(201).json();
    let scale = format!("{DEPLOYMENTS}/d/scale");
    let body = |metadata: Value, spec: Value| json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata, "spec": spec});
    for (wrong, code) in [
        (body(json!({"name": "d"}), json!({"replicas": "3"})), 400),
        (body(json!({"name": "d"}), json!({"replicas": 3.7})), 400),
        (body(json!({"name": "other"}), json!({"replicas": 3})), 400),
        (body(json!({"name": "d", "namespace": "other"}), json!({"replicas": 3})), 400),
        (body(json!({"name": "d", "uid": "another"}), json!({"replicas": 3})), 409),
        (json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 3}}), 400),
    ] {
        server.put(&scale, wrong.clone()).await.expect(code);
    }
    server.put(&format!("{scale}?fieldValidation=Strict"), body(json!({"name": "d"}), json!({"replicas": 3, "relpicas": 4}))).await.expect(400);
    server.patch(&scale, "merge-patch+json", json!({"spec": {"replicas": "3"}})).await.expect(422);
    assert_eq!(server.get(&scale).await.expect(200).json()["spec"], made["spec"].as_object().map(|spec| json!({"replicas": spec["replicas"]})).unwrap());
    server.put(&scale, body(json!({"name": "d", "uid": made["metadata"]["uid"]}), json!({"replicas": 3}))).await.expect(200);
}

#[tokio::test]
async fn a_scale_that_is_applied_owns_the_number() {
    let server = Server::start().await;
    server.post(DEPLOYMENTS, deployment("d")).await.expect(201);
    let scale = format!("{DEPLOYMENTS}/d/scale");
    let config = |replicas: u32| json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"}, "spec": {"replicas": replicas}});
    let apply = async |manager: &str, replicas: u32| server.patch(&format!("{scale}?fieldManager={manager}"), "apply-patch+yaml", config(replicas)).await;
    server.patch(&format!("{scale}?fieldManager=one&force=true"), "apply-patch+yaml", config(4)).await.expect(200);
    let refused = apply("two", 5).await.expect(409);
    assert_eq!(refused.message(), "Apply failed with 1 conflict: conflict with \"one\" with subresource \"scale\": .spec.replicas");
    apply("two", 4).await.expect(200);
    server.patch(&format!("{scale}?fieldManager=two&force=true"), "apply-patch+yaml", config(6)).await.expect(200);
    let owners = server.get(&format!("{DEPLOYMENTS}/d")).await.expect(200).json()["metadata"]["managedFields"].clone();
    let owning: Vec<(&str, &str, &str)> = owners.as_array().unwrap().iter().filter(|entry| entry.pointer("/fieldsV1/f:spec/f:replicas").is_some()).map(|entry| (entry["manager"].as_str().unwrap(), entry["operation"].as_str().unwrap(), entry["subresource"].as_str().unwrap())).collect();
    assert_eq!(owning, [("two", "Apply", "scale")]);
    server.patch(&format!("{scale}?fieldManager=three"), "merge-patch+json", json!({"spec": {"replicas": 7}})).await.expect(200);
    assert_eq!(apply("two", 5).await.expect(409).message(), "Apply failed with 1 conflict: conflict with \"three\" with subresource \"scale\" using autoscaling/v1: .spec.replicas");
    server.patch(&format!("{scale}?fieldManager=two"), "apply-patch+yaml", json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}})).await.expect(400);
}

#[tokio::test]
async fn some_kinds_are_created_by_put_and_some_want_a_version() {
    let server = Server::start().await;
    let lease = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l";
    server.put(lease, json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "me"}})).await.expect(201);
    let refused = server.put(lease, json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "you"}})).await.expect(422);
    assert_eq!(refused.message(), r#"leases.coordination.k8s.io "l" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update"#);
    server.put(&format!("{CONFIG_MAPS}/none"), config_map("none")).await.expect(404);
    server.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    server.put(&format!("{CONFIG_MAPS}/a"), config_map("a")).await.expect(200);
}

#[tokio::test]
async fn appliers_conflict_until_one_insists() {
    let server = Server::start().await;
    let apply = |manager: &str, value: &str, force: bool| {
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": value}}).to_string();
        (format!("{CONFIG_MAPS}/a?fieldManager={manager}&force={force}"), body)
    };
    let send = async |(path, body): (String, String)| server.call("PATCH", &path, &[("content-type", "application/apply-patch+yaml")], body).await;
    send(apply("one", "1", false)).await.expect(201);
    let conflict = send(apply("two", "2", false)).await.expect(409).json();
    assert_eq!(conflict["message"], r#"Apply failed with 1 conflict: conflict with "one": .data.k"#);
    assert_eq!(conflict["details"]["causes"][0]["reason"], "FieldManagerConflict");
    let object = send(apply("two", "2", true)).await.expect(200).json();
    assert_eq!(object["data"]["k"], "2");
    let managers: Vec<&str> = object["metadata"]["managedFields"].as_array().unwrap().iter().map(|entry| entry["manager"].as_str().unwrap()).collect();
    assert_eq!(managers, ["two"]);
}

#[tokio::test]
async fn warnings_come_with_what_they_are_about() {
    let server = Server::start().await;
    server.service_account("default").await;
    let deprecated = r#"299 - "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice""#;
    assert_eq!(server.get("/api/v1/namespaces/default/endpoints").await.expect(200).warnings(), [deprecated]);
    assert_eq!(server.post(CONFIG_MAPS, json!({"metadata": {"name": "a"}, "foo": 1})).await.expect(201).warnings(), [r#"299 - "unknown field \"foo\"""#]);
    let mut doubtful = pod("p");
    doubtful["metadata"]["annotations"] = json!({"seccomp.security.alpha.kubernetes.io/pod": "x"});
    doubtful["spec"]["containers"][0]["env"] = json!([{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]);
    assert!(!server.post(PODS, doubtful).await.expect(201).warnings().is_empty());
    assert!(server.patch(&format!("{PODS}/p"), "merge-patch+json", json!({"metadata": {"labels": {"x": "y"}}})).await.expect(200).warnings().is_empty());
}

#[tokio::test]
async fn what_is_applied_is_all_in_the_schema_and_said_once() {
    let server = Server::start().await;
    let apply = async |validation: &str, body: &str| {
        let path = format!("{CONFIG_MAPS}/a?fieldManager=m&fieldValidation={validation}");
        server.call("PATCH", &path, &[("content-type", "application/apply-patch+yaml")], body.to_owned()).await
    };
    let head = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n";
    let refused = apply("Ignore", &format!("{head}unknown: x\n")).await.expect(500);
    assert_eq!(refused.message(), "failed to create typed patch object (/a; /v1, Kind=ConfigMap): .unknown: field not declared in schema");
    let twice = format!("{head}data:\n  k: one\n  k: two\n");
    let refused = apply("Strict", &twice).await.expect(400);
    assert_eq!(refused.message(), "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  line 7: key \"k\" already set in map");
    let warned = apply("Warn", &twice).await.expect(201);
    assert_eq!((warned.warnings().len(), &warned.json()["data"]["k"]), (1, &serde_json::json!("two")));
}

/// A manager that wrote another version of the kind keeps and loses its fields in that version's terms.
#[tokio::test]
async fn versions_share_their_managers() {
    const V1: &str = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
    const V2: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers/h";
    let server = Server::start().await;
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let old = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"}, "spec": {"scaleTargetRef": target, "maxReplicas": 3, "targetCPUUtilizationPercentage": 50}});
    let apply = |manager: &str, force: bool, base: &str| format!("{base}?fieldManager={manager}&force={force}");
    let made = server.patch(&apply("one", false, &format!("{V1}/h")), "apply-patch+yaml", old.clone()).await.expect(201).json();
    assert_eq!((&made["apiVersion"], &made["spec"]["targetCPUUtilizationPercentage"]), (&json!("autoscaling/v1"), &json!(50)));
    let seen = server.get(V2).await.expect(200).json();
    assert_eq!(seen["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 50);
    let metric = json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}}]);
    let new = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"}, "spec": {"metrics": metric}});
    let refused = server.patch(&apply("two", false, V2), "apply-patch+yaml", new.clone()).await.expect(409);
    assert_eq!(refused.message(), "Apply failed with 1 conflict: conflict with \"one\": .spec.targetCPUUtilizationPercentage");
    server.patch(&apply("two", true, V2), "apply-patch+yaml", new).await.expect(200);
    let now = server.get(&format!("{V1}/h")).await.expect(200).json();
    assert_eq!(now["spec"]["targetCPUUtilizationPercentage"], 60);
    let owned = |manager: &str| now["metadata"]["managedFields"].as_array().unwrap().iter().find(|entry| entry["manager"] == manager).unwrap().clone();
    assert_eq!((&owned("one")["apiVersion"], owned("one")["fieldsV1"]["f:spec"].get("f:targetCPUUtilizationPercentage")), (&json!("autoscaling/v1"), None));
    assert_eq!((&owned("two")["apiVersion"], &owned("two")["fieldsV1"]["f:spec"]), (&json!("autoscaling/v2"), &json!({"f:metrics": {}})));
    // Who does not apply owns what he wrote, in the form he wrote it in.
    let mut change = now.clone();
    change["spec"]["targetCPUUtilizationPercentage"] = 70.into();
    let changed = server.call("PUT", &format!("{V1}/h?fieldManager=three"), &[("content-type", "application/json")], change.to_string()).await.expect(200).json();
    let owners: Vec<&str> = changed["metadata"]["managedFields"].as_array().unwrap().iter().map(|entry| entry["manager"].as_str().unwrap()).collect();
    assert_eq!(owners, ["one", "three"]);
}

#[tokio::test]
async fn jobs_leave_their_pods_unless_told_otherwise() {
    let server = Server::start().await;
    let jobs = "/apis/batch/v1/namespaces/default/jobs";
    let job = |name: &str| json!({"metadata": {"name": name}, "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
    for name in ["kept", "gone"] {
        server.post(jobs, job(name)).await.expect(201);
    }
    let going = server.call("DELETE", &format!("{jobs}/kept"), &[], "").await.expect(200);
    assert_eq!(going.json()["metadata"]["finalizers"], json!(["orphan"]));
    assert!(going.warnings()[0].contains("child pods are preserved by default when jobs are deleted"), "{:?}", going.warnings());
    let gone = server.call("DELETE", &format!("{jobs}/gone?propagationPolicy=Background"), &[], "").await.expect(200);
    assert!(gone.json()["status"] == "Success" && gone.warnings().is_empty(), "{:?}", gone.warnings());
}
