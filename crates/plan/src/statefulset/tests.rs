//! Given a StatefulSet and its pods, the lines of the plan.

use super::*;
use serde_json::{Value, json};

const NOW: &str = "2026-11-22T12:00:00Z";

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "s"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

fn revision(hash: &str, number: i64) -> Arc<ControllerRevision> {
    let owner = json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "s", "uid": "S", "controller": true}]);
    // As it is written; the old one holds another template.
    let mut data = serde_json::to_value(serde_json::from_value::<api::k8s::api::core::v1::PodTemplateSpec>(template()).unwrap()).unwrap();
    data["$patch"] = if hash == "old" { Value::Null } else { json!("replace") };
    Arc::new(serde_json::from_value(json!({"metadata": {"name": format!("s-{hash}"), "namespace": "ns", "labels": {"app": "s", HASH: hash}, "ownerReferences": owner}, "revision": number, "data": {"spec": {"template": data}}})).unwrap())
}

fn hash() -> String {
    crate::template::hash(&serde_json::from_value(template()).unwrap(), None)
}

/// `name flags`, flags: r running and ready, f failed, d going, o of the old revision.
fn pod(line: &str) -> Arc<Pod> {
    let (name, flags) = line.split_once(' ').unwrap();
    let has = |flag| flags.contains(flag);
    Arc::new(serde_json::from_value(json!({
        "metadata": {
            "name": name, "namespace": "ns", "uid": name, "labels": {"app": "s", HASH: if has('o') { "s-old".to_owned() } else { format!("s-{}", hash()) }},
            "deletionTimestamp": if has('d') { json!(NOW) } else { Value::Null },
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "s", "uid": "S", "controller": true}],
        },
        "status": {"phase": if has('f') { "Failed" } else if has('r') { "Running" } else { "Pending" }, "conditions": [{"type": "Ready", "status": if has('r') { "True" } else { "False" }}]},
    })).unwrap())
}

fn lines(spec: Value, pods: &[&str]) -> Vec<String> {
    let mut set = json!({
        "metadata": {"name": "s", "namespace": "ns", "uid": "S", "generation": 1},
        "spec": {"replicas": 3, "serviceName": "svc", "selector": {"matchLabels": {"app": "s"}}, "template": template()},
        "status": {"replicas": 0, "currentRevision": "s-old"},
    });
    for (key, value) in spec.as_object().unwrap() {
        set["spec"][key] = value.clone();
    }
    let view = View {
        set: Arc::new(serde_json::from_value(set).unwrap()),
        pods: pods.iter().map(|line| pod(line)).collect(),
        revisions: vec![revision("old", 1), revision(&hash(), 2)],
        claims: HashSet::new(),
    };
    plan(&view, NOW.parse().unwrap())
        .ops
        .iter()
        .map(|op| match op {
            Op::Create { at, object, .. } if at.kind == "Pod" => {
                format!("create {} of {}", at.name, if object["metadata"]["labels"][HASH] == "s-old" { "old" } else { "new" })
            }
            Op::Delete { at, .. } => format!("delete {}", at.name),
            Op::Replace { object, .. } => {
                let status = &object["status"];
                let number = |key: &str| status[key].as_i64().unwrap_or(0);
                format!(
                    "replicas {} ready {} current {} updated {}{}",
                    number("replicas"),
                    number("readyReplicas"),
                    number("currentReplicas"),
                    number("updatedReplicas"),
                    if status["currentRevision"] == "s-old" { "" } else { " done" }
                )
            }
            other => other.to_string(),
        })
        .collect()
}

#[test]
fn one_after_the_other() {
    let cases: [(Value, &[&str], &[&str]); 9] = [
        (json!({}), &[], &["create s-0 of new", "replicas 1 ready 0 current 0 updated 1"]),
        (json!({}), &["s-0 ."], &["replicas 1 ready 0 current 0 updated 1"]),
        (json!({}), &["s-0 r"], &["create s-1 of new", "replicas 2 ready 1 current 0 updated 2"]),
        (json!({}), &["s-0 r", "s-1 r", "s-2 r"], &["replicas 3 ready 3 current 3 updated 3 done"]),
        (
            json!({"podManagementPolicy": "Parallel"}),
            &["s-1 ."],
            &["create s-0 of new", "create s-2 of new", "replicas 3 ready 0 current 0 updated 3"],
        ),
        // The highest goes first, and only when all is well.
        (json!({"replicas": 1}), &["s-0 r", "s-1 r", "s-2 r"], &["delete s-2", "replicas 3 ready 3 current 0 updated 3"]),
        (json!({"replicas": 1}), &["s-0 .", "s-1 r", "s-2 r"], &["replicas 3 ready 2 current 0 updated 3"]),
        (json!({"replicas": 0}), &["s-0 .", "s-1 .", "s-2 ."], &["replicas 3 ready 0 current 0 updated 3"]),
        (json!({"replicas": 0}), &["s-0 r", "s-1 r", "s-2 ."], &["delete s-2", "replicas 3 ready 2 current 0 updated 3"]),
    ];
    for (spec, pods, expected) in cases {
        assert_eq!(lines(spec.clone(), pods), expected, "{spec} {pods:?}");
    }
    assert_eq!(lines(json!({}), &["s-0 f"])[..2], ["event Warning RecreatingFailedPod: StatefulSet ns/s is recreating failed Pod s-0", "delete s-0"]);
}

#[test]
fn a_rolling_update_from_the_top() {
    let first = |spec: Value, pods: &[&str]| lines(spec, pods)[0].clone();
    assert_eq!(first(json!({}), &["s-0 ro", "s-1 ro", "s-2 ro"]), "delete s-2");
    assert_eq!(first(json!({}), &["s-0 ro", "s-1 ro", "s-2 rod"]), "replicas 3 ready 3 current 2 updated 0");
    assert_eq!(first(json!({}), &["s-0 ro", "s-1 ro", "s-2 r"]), "delete s-1");
    let partition = json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}});
    assert_eq!(first(partition.clone(), &["s-0 ro", "s-1 ro", "s-2 r"]), "replicas 3 ready 3 current 2 updated 1");
    assert_eq!(first(partition, &["s-0 ro", "s-2 r"]), "create s-1 of old");
    assert_eq!(first(json!({"updateStrategy": {"type": "OnDelete"}}), &["s-0 ro", "s-1 ro", "s-2 ro"]), "replicas 3 ready 3 current 3 updated 0");
}

#[test]
fn storage_of_its_own() {
    let spec = json!({"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]});
    assert_eq!(
        lines(spec, &["s-0 r"])[..3],
        ["create PersistentVolumeClaim ns/data-s-0", "create PersistentVolumeClaim ns/data-s-1", "create s-1 of new"]
    );
    let set: StatefulSet = serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "ns"}, "spec": {"serviceName": "svc", "selector": {}, "template": template(), "volumeClaimTemplates": [{"metadata": {"name": "data"}}]}})).unwrap();
    let spec = set.spec.as_ref().unwrap();
    let pod = crate::op::value(&pod::build(&set, spec, &spec.template, 4, "s-x"));
    assert_eq!(
        pod["metadata"]["labels"],
        json!({"app": "s", "apps.kubernetes.io/pod-index": "4", "controller-revision-hash": "s-x", "statefulset.kubernetes.io/pod-name": "s-4"})
    );
    assert_eq!((&pod["spec"]["hostname"], &pod["spec"]["subdomain"]), (&json!("s-4"), &json!("svc")));
    assert_eq!(pod["spec"]["volumes"][0], json!({"name": "data", "persistentVolumeClaim": {"claimName": "data-s-4"}}));
    assert_eq!((pod::ordinal("s", "s-03"), pod::ordinal("s", "s-3"), pod::ordinal("s", "t-3")), (None, Some(3), None));
}
