//! Given nodes and pods, the lines of the plan.

use super::*;
use serde_json::{Value, json};

const NOW: &str = "2026-11-22T12:00:00Z";

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": "i"}], "nodeSelector": {"disk": "ssd"}}})
}

fn hash() -> String {
    crate::template::hash(&serde_json::from_value(template()).unwrap(), None)
}

/// `name flags`, flags: - lacks the label, s tainted NoSchedule, e tainted NoExecute, u not ready (tolerated).
fn node(line: &str) -> Arc<Node> {
    let (name, flags) = line.split_once(' ').unwrap_or((line, ""));
    let mut taints = Vec::new();
    for (flag, taint) in [
        ('s', json!({"key": "a", "effect": "NoSchedule"})),
        ('e', json!({"key": "a", "effect": "NoExecute"})),
        ('u', json!({"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"})),
    ] {
        if flags.contains(flag) {
            taints.push(taint);
        }
    }
    let labels = if flags.contains('-') { json!({}) } else { json!({"disk": "ssd"}) };
    Arc::new(serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "spec": {"taints": taints}})).unwrap())
}

/// `name node flags`, flags: r ready, o old, f failed, d going, p not bound yet.
fn pod(line: &str) -> Arc<Pod> {
    let [name, node, flags] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
    let has = |flag| flags.contains(flag);
    let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]}}});
    Arc::new(serde_json::from_value(json!({
        "metadata": {
            "name": name, "namespace": "ns", "uid": name, "labels": {"app": "d", HASH: if has('o') { "old".to_owned() } else { hash() }},
            "deletionTimestamp": if has('d') { json!(NOW) } else { Value::Null },
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "D", "controller": true}],
        },
        "spec": {"containers": [], "affinity": affinity, "nodeName": if has('p') { Value::Null } else { json!(node) }},
        "status": {"phase": if has('f') { "Failed" } else { "Running" }, "conditions": [{"type": "Ready", "status": if has('r') { "True" } else { "False" }, "lastTransitionTime": "2026-11-22T11:00:00Z"}]},
    })).unwrap())
}

fn view(strategy: Value, nodes: &[&str], pods: &[&str]) -> View {
    let set = json!({
        "metadata": {"name": "d", "namespace": "ns", "uid": "D", "generation": 1},
        "spec": {"selector": {"matchLabels": {"app": "d"}}, "template": template(), "updateStrategy": strategy},
    });
    let owner = json!([{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "D", "controller": true}]);
    let revision = json!({"metadata": {"name": format!("d-{}", hash()), "namespace": "ns", "labels": {"app": "d", HASH: hash()}, "ownerReferences": owner}, "revision": 2});
    View {
        set: Arc::new(serde_json::from_value(set).unwrap()),
        pods: pods.iter().map(|line| pod(line)).collect(),
        revisions: vec![Arc::new(serde_json::from_value(revision).unwrap())],
        nodes: nodes.iter().map(|line| node(line)).collect(),
    }
}

/// Creations by node, deletions by name, and the status in short.
fn lines(view: &View) -> Vec<String> {
    plan(view, NOW.parse().unwrap())
        .ops
        .iter()
        .map(|op| match op {
            Op::Create { at, object, .. } if at.kind == "Pod" => {
                format!("create on {}", target_node(&serde_json::from_value(object.clone()).unwrap()))
            }
            Op::Delete { at, .. } => format!("delete {}", at.name),
            Op::Replace { object, .. } => {
                let status = &object["status"];
                let number = |key: &str| status[key].as_i64().unwrap_or(0);
                format!(
                    "desired {} current {} ready {} updated {} available {} mis {}",
                    number("desiredNumberScheduled"),
                    number("currentNumberScheduled"),
                    number("numberReady"),
                    number("updatedNumberScheduled"),
                    number("numberAvailable"),
                    number("numberMisscheduled")
                )
            }
            other => other.to_string(),
        })
        .collect()
}

#[test]
fn one_on_every_node_that_fits() {
    let view = view(json!({}), &["n1", "n2 -", "n3 s", "n4 e", "n5 u", "n6"], &["a n2 r", "b n3 r", "c n4 r", "e n6 r", "f n6 r", "g n9 p"]);
    assert_eq!(
        lines(&view),
        [
            // The first of two on n6 stays; what waits for a node that is gone goes.
            "create on n1",
            "create on n5",
            "delete a",
            "delete c",
            "delete f",
            "delete g",
            "desired 3 current 1 ready 1 updated 1 available 1 mis 3",
        ]
    );
}

#[test]
fn failed_ones_are_replaced_when_they_are_gone() {
    assert_eq!(
        lines(&view(json!({}), &["n1"], &["a n1 f"])),
        [
            "event Warning FailedDaemonPod: Found failed daemon pod ns/a on node n1, will try to kill it",
            "delete a",
            "desired 1 current 1 ready 0 updated 1 available 0 mis 0"
        ]
    );
    assert_eq!(lines(&view(json!({}), &["n1"], &["a n1 d"]))[0], "desired 1 current 1 ready 0 updated 1 available 0 mis 0");
}

#[test]
fn a_rolling_update() {
    let nodes = ["n1", "n2", "n3"];
    let cases: [(Value, &[&str], &[&str]); 5] = [
        // One at a time.
        (json!({"type": "RollingUpdate"}), &["a n1 ro", "b n2 ro", "c n3 ro"], &["delete a"]),
        (json!({"type": "RollingUpdate"}), &["a n1 od", "b n2 ro", "c n3 ro"], &[]),
        // What is not available anyway goes at once.
        (json!({"type": "RollingUpdate"}), &["a n1 r", "b n2 o", "c n3 ro"], &["delete b"]),
        (json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "50%"}}), &["a n1 ro", "b n2 ro", "c n3 ro"], &["delete a", "delete b"]),
        (json!({"type": "OnDelete"}), &["a n1 ro", "b n2 ro", "c n3 ro"], &[]),
    ];
    for (strategy, pods, expected) in cases {
        let have = lines(&view(strategy.clone(), &nodes, pods));
        assert_eq!(have[..have.len() - 1], *expected, "{strategy} {pods:?}");
    }
}

#[test]
fn a_rolling_update_with_surge() {
    let strategy = || json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    let nodes = ["n1", "n2"];
    let first = |pods: &[&str]| {
        let mut lines = lines(&view(strategy(), &nodes, pods));
        lines.pop();
        lines
    };
    assert_eq!(first(&["a n1 ro", "b n2 ro"]), ["create on n1"]);
    assert!(first(&["a n1 ro", "x n1 .", "b n2 ro"]).is_empty());
    assert_eq!(first(&["a n1 ro", "x n1 r", "b n2 ro"]), ["create on n2", "delete a"]);
}

#[test]
fn the_first_revision_and_going_back() {
    let mut view = view(json!({}), &[], &[]);
    view.revisions.clear();
    assert_eq!(lines(&view)[0], format!("create ControllerRevision ns/d-{}", hash()));
    let owner = json!([{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "D", "controller": true}]);
    let revision = |hash: &str, number: i64| -> Arc<ControllerRevision> {
        Arc::new(serde_json::from_value(json!({"metadata": {"name": format!("d-{hash}"), "namespace": "ns", "labels": {"app": "d", HASH: hash}, "ownerReferences": owner}, "revision": number})).unwrap())
    };
    view.revisions = vec![revision(&hash(), 1), revision("other", 2)];
    assert_eq!(lines(&view)[0], format!(r#"patch ControllerRevision ns/d-{} {{"revision":3}}"#, hash()));
    // One that bears this template's name and hash, but holds another template: known by what it holds.
    let mut foreign = (*revision(&hash(), 1)).clone();
    foreign.data = Some(serde_json::from_value(json!({"spec": {"template": {"$patch": "replace"}}})).unwrap());
    view.revisions = vec![Arc::new(foreign)];
    let made = lines(&view)[0].clone();
    assert!(made.starts_with("create ControllerRevision ns/d-") && made != format!("create ControllerRevision ns/d-{}", hash()), "{made}");
}
