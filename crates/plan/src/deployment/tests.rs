//! Given a Deployment and its ReplicaSets, the lines of the plan.

use super::*;

const NOW: &str = "2026-11-22T12:00:00Z";

struct Case {
    view: View,
}

/// `wanted` replicas of image `v2`, with `spec` on top.
fn case(wanted: i32, spec: Value, status: Value) -> Case {
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "ns", "uid": "D", "generation": 1, "resourceVersion": "9"},
        "spec": {"replicas": wanted, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10, "selector": {"matchLabels": {"app": "web"}}, "template": pod_template("v2")},
        "status": status,
    });
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    Case {
        view: View {
            deployment: Arc::new(serde_json::from_value(object).unwrap()),
            replica_sets: Vec::new(),
            by_name: Box::new(|_| None),
            pods: Vec::new(),
        },
    }
}

fn pod_template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

impl Case {
    /// A ReplicaSet `name` of `image` with a size, so many of them there and available; `desired` is the Deployment's size it was scaled for.
    fn set(mut self, name: &str, image: &str, revision: i32, (replicas, available): (i32, i32), desired: i32) -> Self {
        let second = self.view.replica_sets.len();
        let object = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {
                "name": name, "namespace": "ns", "uid": name, "resourceVersion": "1", "labels": {"app": "web"},
                "creationTimestamp": format!("2026-11-22T11:00:{second:02}Z"),
                "annotations": {REVISION: revision.to_string(), DESIRED_REPLICAS: desired.to_string(), MAX_REPLICAS: (desired + (desired + 3) / 4).to_string()},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "D", "controller": true}],
            },
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": pod_template(image)},
            "status": {"replicas": replicas, "readyReplicas": available, "availableReplicas": available},
        });
        self.view.replica_sets.push(Arc::new(serde_json::from_value(object).unwrap()));
        self
    }

    /// The plan; of its status line only the revision, if it sets one.
    #[track_caller]
    fn expect(self, expected: &[&str]) {
        let lines: Vec<String> = plan(&self.view, NOW.parse().unwrap())
            .ops
            .iter()
            .filter_map(|op| match op {
                Op::Patch { subresource: Some("status"), patch, .. } => {
                    Some(format!("revision {}", patch.pointer("/metadata/annotations")?[REVISION].as_str()?))
                }
                other => Some(other.to_string()),
            })
            .collect();
        assert_eq!(lines, expected);
    }

    fn lines(&self) -> Vec<String> {
        plan(&self.view, NOW.parse().unwrap()).to_string().lines().map(str::to_owned).collect()
    }
}

#[test]
fn the_first_replica_set() {
    case(3, json!({}), Value::Null).expect(&[
        "create ReplicaSet ns/web-756f99f4f8 replicas=3",
        "event Normal ScalingReplicaSet: Scaled up replica set web-756f99f4f8 from 0 to 3",
        "revision 1",
    ]);
}

#[test]
fn a_rolling_update_step_by_step() {
    // 10 wanted, a quarter each: 3 more (rounded up), 2 fewer (rounded down).
    let case = |old: (i32, i32), new: (i32, i32)| case(10, json!({}), json!({})).set("web-old", "v1", 1, old, 10).set("web-new", "v2", 2, new, 10);
    let revision = "revision 2";
    case((10, 10), (3, 0)).expect(&[
        r#"patch ReplicaSet ns/web-old {"spec":{"replicas":8}}"#,
        "event Normal ScalingReplicaSet: Scaled down replica set web-old from 10 to 8",
        revision,
    ]);
    case((8, 8), (3, 0)).expect(&[
        r#"patch ReplicaSet ns/web-new {"spec":{"replicas":5}}"#,
        "event Normal ScalingReplicaSet: Scaled up replica set web-new from 3 to 5",
        revision,
    ]);
    case((8, 8), (5, 0)).expect(&[revision]);
    case((8, 8), (5, 5)).expect(&[
        r#"patch ReplicaSet ns/web-old {"spec":{"replicas":3}}"#,
        "event Normal ScalingReplicaSet: Scaled down replica set web-old from 8 to 3",
        revision,
    ]);
    case((3, 3), (5, 5)).expect(&[
        r#"patch ReplicaSet ns/web-new {"spec":{"replicas":10}}"#,
        "event Normal ScalingReplicaSet: Scaled up replica set web-new from 5 to 10",
        revision,
    ]);
    case((0, 0), (10, 10)).expect(&[revision]);
}

#[test]
fn a_bad_rollout_stops_where_the_lesson_says() {
    // 8 of the old stay, 5 of the new hang: 13 in all.
    let view = case(10, json!({}), json!({})).set("web-old", "v1", 1, (8, 8), 10).set("web-new", "v2", 2, (5, 0), 10);
    view.expect(&["revision 2"]);
}

#[test]
fn unhealthy_old_pods_go_first() {
    case(10, json!({}), json!({})).set("web-a", "v0", 1, (2, 0), 10).set("web-b", "v1", 2, (8, 8), 10).set("web-new", "v2", 3, (3, 0), 10).expect(&[
        r#"patch ReplicaSet ns/web-a {"spec":{"replicas":0}}"#,
        "event Normal ScalingReplicaSet: Scaled down replica set web-a from 2 to 0",
        "revision 3",
    ]);
}

#[test]
fn pods_on_their_way_out_are_not_counted_on() {
    // The old set has been told to have 3, and its status still tells of 4: 6 must stay of the 7 that do.
    case(8, json!({}), json!({})).set("web-old", "v1", 1, (3, 4), 8).set("web-new", "v2", 2, (7, 4), 8).expect(&[
        r#"patch ReplicaSet ns/web-old {"spec":{"replicas":2}}"#,
        "event Normal ScalingReplicaSet: Scaled down replica set web-old from 3 to 2",
        "revision 2",
    ]);
}

#[test]
fn scaled_in_the_middle_of_a_rollout() {
    // Sets 8 and 5, made for 10 (13 at most), now for 20 (25 at most).
    case(20, json!({}), json!({})).set("web-old", "v1", 1, (8, 8), 10).set("web-new", "v2", 2, (5, 0), 10).expect(&[
        r#"patch ReplicaSet ns/web-old {"metadata":{"annotations":{"deployment.kubernetes.io/desired-replicas":"20","deployment.kubernetes.io/max-replicas":"25"}},"spec":{"replicas":15}}"#,
        r#"patch ReplicaSet ns/web-new {"metadata":{"annotations":{"deployment.kubernetes.io/desired-replicas":"20","deployment.kubernetes.io/max-replicas":"25"}},"spec":{"replicas":10}}"#,
        "event Normal ScalingReplicaSet: Scaled up replica set web-old from 8 to 15",
        "event Normal ScalingReplicaSet: Scaled up replica set web-new from 5 to 10",
        "revision 2",
    ]);
}

#[test]
fn rolling_back_takes_the_old_set_with_a_new_number() {
    // The template is v2 again, whose set had revision 1.
    case(2, json!({}), json!({})).set("web-v2", "v2", 1, (0, 0), 2).set("web-v3", "v3", 2, (2, 2), 2).expect(&[
        r#"patch ReplicaSet ns/web-v2 {"metadata":{"annotations":{"deployment.kubernetes.io/revision":"3","deployment.kubernetes.io/revision-history":"1"}},"spec":{"replicas":1}}"#,
        "event Normal ScalingReplicaSet: Scaled up replica set web-v2 from 0 to 1",
        "revision 3",
    ]);
}

#[test]
fn recreate_waits_until_all_old_pods_are_gone() {
    let recreate = || case(2, json!({"strategy": {"type": "Recreate"}}), json!({}));
    recreate().set("web-old", "v1", 1, (2, 2), 2).expect(&[
        r#"patch ReplicaSet ns/web-old {"metadata":{"annotations":{"deployment.kubernetes.io/max-replicas":"2"}},"spec":{"replicas":0}}"#,
        "event Normal ScalingReplicaSet: Scaled down replica set web-old from 2 to 0",
    ]);
    let mut waiting = recreate().set("web-old", "v1", 1, (0, 0), 2);
    let pod = json!({
        "metadata": {"name": "p", "deletionTimestamp": NOW, "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-old", "uid": "web-old", "controller": true}]},
        "status": {"phase": "Running"},
    });
    waiting.view.pods.push(Arc::new(serde_json::from_value(pod).unwrap()));
    waiting.expect(&[]);
    recreate().set("web-old", "v1", 1, (0, 0), 2).expect(&[
        "create ReplicaSet ns/web-756f99f4f8 replicas=2",
        "event Normal ScalingReplicaSet: Scaled up replica set web-756f99f4f8 from 0 to 2",
        "revision 2",
    ]);
}

#[test]
fn paused_it_scales_but_does_not_roll_out() {
    case(4, json!({"paused": true}), json!({})).set("web-old", "v1", 1, (2, 2), 2).expect(&[
        r#"patch ReplicaSet ns/web-old {"metadata":{"annotations":{"deployment.kubernetes.io/desired-replicas":"4","deployment.kubernetes.io/max-replicas":"5"}},"spec":{"replicas":4}}"#,
        "event Normal ScalingReplicaSet: Scaled up replica set web-old from 2 to 4",
    ]);
}

#[test]
fn history_is_cut() {
    let done = json!({"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1});
    let mut case = case(1, json!({"revisionHistoryLimit": 1}), done);
    for (name, image, revision) in [("web-1", "a", 1), ("web-2", "b", 2), ("web-3", "c", 3)] {
        case = case.set(name, image, revision, (0, 0), 1);
    }
    case.set("web-4", "v2", 4, (1, 1), 1).expect(&["delete ReplicaSet ns/web-1", "delete ReplicaSet ns/web-2", "revision 4"]);
}

#[test]
fn the_name_is_taken() {
    let mut taken = case(1, json!({}), json!({}));
    taken.view.by_name = Box::new(|name| Some(Arc::new(serde_json::from_value(json!({"metadata": {"name": name, "uid": "other"}})).unwrap())));
    let lines = taken.lines().join("\n");
    assert!(lines.contains(r#""collisionCount":1"#), "{lines}");
    assert!(!lines.contains("create"), "{lines}");
}

#[test]
fn conditions() {
    let condition = |case: Case, kind: &str| {
        let plan = plan(&case.view, NOW.parse().unwrap());
        let status = plan.ops.iter().find_map(|op| match op {
            Op::Patch { subresource: Some("status"), patch, .. } => patch.get("status").cloned(),
            _ => None,
        });
        let conditions = status.unwrap_or_else(|| crate::op::value(&case.view.deployment.status))["conditions"].clone();
        let found = conditions.as_array().into_iter().flatten().find(|condition| condition["type"] == kind).cloned().unwrap_or_default();
        format!("{} {}: {}", found["status"], found["reason"], found["message"]).replace('"', "")
    };
    let since = |reason: &str, at: &str| json!({"observedGeneration": 1, "conditions": [{"type": "Progressing", "status": "True", "reason": reason, "lastUpdateTime": at, "lastTransitionTime": at}]});
    let cases = [
        (case(1, json!({}), json!({})), PROGRESSING, r"True NewReplicaSetCreated: Created new replica set \web-756f99f4f8\"),
        (case(1, json!({}), json!({})), "Available", "False MinimumReplicasUnavailable: Deployment does not have minimum availability."),
        (
            case(1, json!({}), json!({})).set("web-1", "v2", 1, (1, 1), 1),
            PROGRESSING,
            r"True NewReplicaSetAvailable: ReplicaSet \web-1\ has successfully progressed.",
        ),
        (
            case(1, json!({}), json!({})).set("web-1", "v2", 1, (1, 1), 1),
            "Available",
            "True MinimumReplicasAvailable: Deployment has minimum availability.",
        ),
        (
            case(2, json!({}), since("NewReplicaSetCreated", "2026-11-22T11:59:00Z")).set("web-1", "v2", 1, (2, 1), 2),
            PROGRESSING,
            r"True ReplicaSetUpdated: ReplicaSet \web-1\ is progressing.",
        ),
        (
            case(2, json!({}), since("ReplicaSetUpdated", "2026-11-22T11:00:00Z")).set("web-1", "v2", 1, (2, 0), 2),
            PROGRESSING,
            r"True ReplicaSetUpdated: ReplicaSet \web-1\ is progressing.",
        ),
        (case(1, json!({"paused": true}), json!({})), PROGRESSING, "Unknown DeploymentPaused: Deployment is paused"),
    ];
    for (case, kind, expected) in cases {
        assert_eq!(condition(case, kind), expected);
    }
    // Nothing moved for longer than the deadline.
    let stuck = |at: &str| {
        let mut status = since("ReplicaSetUpdated", at);
        for (key, value) in [("replicas", 2), ("updatedReplicas", 2), ("unavailableReplicas", 2)] {
            status[key] = json!(value);
        }
        case(2, json!({}), status).set("web-1", "v2", 1, (2, 0), 2)
    };
    assert_eq!(
        condition(stuck("2026-11-22T11:00:00Z"), PROGRESSING),
        r"False ProgressDeadlineExceeded: ReplicaSet \web-1\ has timed out progressing."
    );
    assert!(stuck("2026-11-22T11:59:00Z").lines().contains(&"again in 541s".to_owned()));
}

use super::conditions::PROGRESSING;
