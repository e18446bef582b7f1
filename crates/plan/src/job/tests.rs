//! Given a Job and its pods, the lines of the plan; and whole lives.

use super::*;
use serde_json::Value;

const NOW: &str = "2026-11-22T12:00:00Z";

fn job(spec: Value, status: Value) -> Arc<Job> {
    let mut object = json!({
        "metadata": {"name": "j", "namespace": "ns", "uid": "J"},
        "spec": {"parallelism": 1, "completions": 1, "backoffLimit": 6, "selector": {"matchLabels": {"job": "j"}}, "template": {"metadata": {"labels": {"job": "j"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}},
        "status": status,
    });
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    Arc::new(serde_json::from_value(object).unwrap())
}

/// `name phase flags [index [failures]]`, flags: t has the finalizer, d going, x exit code 42.
fn pod(line: &str) -> Arc<Pod> {
    let words: Vec<&str> = line.split(' ').collect();
    let has = |flag| words[2].contains(flag);
    let ended = json!([{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": if has('x') { 42 } else { 1 }, "finishedAt": "2026-11-22T11:59:58Z"}}}]);
    Arc::new(serde_json::from_value(json!({
        "metadata": {
            "name": words[0], "namespace": "ns", "uid": words[0], "labels": {"job": "j"}, "annotations": words.get(3).map(|index| json!({INDEX: index, "batch.kubernetes.io/job-index-failure-count": words.get(4).unwrap_or(&"0")})),
            "finalizers": if has('t') { json!([FINALIZER]) } else { Value::Null }, "deletionTimestamp": if has('d') { json!(NOW) } else { Value::Null },
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "J", "controller": true}],
        },
        "status": {"phase": words[1], "containerStatuses": if matches!(words[1], "Failed" | "Succeeded") { ended } else { Value::Null }},
    })).unwrap())
}

/// The plan; its status without times.
fn lines(job: &Arc<Job>, pods: &[&str]) -> Vec<String> {
    let plan = plan(&View { job: job.clone(), pods: pods.iter().map(|line| pod(line)).collect() }, NOW.parse().unwrap());
    let mut lines: Vec<String> = plan
        .ops
        .iter()
        .map(|op| match op {
            Op::Replace { object, .. } => show(&object["status"]),
            Op::Patch { at, kind: PatchKind::Strategic, .. } => format!("release {}", at.name),
            Op::Create { .. } => op.to_string().split(" (").next().unwrap().to_owned(),
            Op::Delete { .. } => op.to_string().split(" (").next().unwrap().to_owned(),
            other => other.to_string(),
        })
        .collect();
    lines.extend(plan.requeue_after.map(|delay| format!("again in {}s", delay.as_secs())));
    lines
}

fn show(status: &Value) -> String {
    let mut parts = Vec::new();
    for key in ["active", "succeeded", "failed", "terminating", "completedIndexes", "failedIndexes"] {
        if let Some(value) = status.get(key).filter(|value| **value != json!(0)) {
            parts.push(format!("{key}={}", value.as_str().map_or(value.to_string(), str::to_owned)));
        }
    }
    for (key, list) in status["uncountedTerminatedPods"].as_object().into_iter().flatten() {
        parts.push(format!("uncounted {key} {}", list.as_array().unwrap().iter().map(|uid| uid.as_str().unwrap()).collect::<Vec<_>>().join(",")));
    }
    for condition in status["conditions"].as_array().into_iter().flatten() {
        parts.push(format!(
            "{}={} {}",
            condition["type"].as_str().unwrap(),
            condition["status"].as_str().unwrap(),
            condition["reason"].as_str().unwrap()
        ));
    }
    format!("status {}", parts.join(" | "))
}

fn started() -> Value {
    json!({"startTime": "2026-11-22T11:59:00Z"})
}

/// What it manages is held by the finalizer, and nothing else is.
#[test]
fn the_finalizer_comes_and_goes_with_the_job() {
    let at = |change: &dyn Fn(&mut Pod)| {
        let mut one = pod("a Running t");
        change(Arc::make_mut(&mut one));
        let plan = plan(&View { job: job(json!({}), started()), pods: vec![one] }, NOW.parse().unwrap());
        let metadata = plan.ops.iter().find_map(|op| match op {
            Op::Patch { at, kind: PatchKind::Merge, patch, .. } if at.name == "a" => Some(patch["metadata"].clone()),
            _ => None,
        });
        metadata.map(|metadata| (metadata["ownerReferences"].as_array().map_or(0, Vec::len), metadata.get("finalizers").cloned()))
    };
    assert_eq!(at(&|_| ()), None);
    // Its labels are taken away: it is let go.
    assert_eq!(at(&|pod| pod.metadata.labels = None), Some((0, Some(Value::Null))));
    let other = |pod: &mut Pod| pod.metadata.finalizers = Some(vec!["other".into(), FINALIZER.into()]);
    assert_eq!(
        at(&|pod| {
            other(pod);
            pod.metadata.labels = None;
        }),
        Some((0, Some(json!(["other"]))))
    );
    // Its owner is taken away: it is taken over again.
    assert_eq!(at(&|pod| pod.metadata.owner_references = None), Some((1, None)));
    let lost = |pod: &mut Pod| (pod.metadata.owner_references, pod.metadata.finalizers) = (None, None);
    assert_eq!(at(&|pod| lost(pod)), Some((1, Some(json!([FINALIZER])))));
    // Both: nobody's.
    let mut nobodys = pod("a Running t");
    assert!(!is_orphan(&nobodys));
    Arc::make_mut(&mut nobodys).metadata.owner_references = None;
    assert!(is_orphan(&nobodys));
    assert_eq!(after(&[nobodys.clone()]).ops.len(), 1);
    // A Job that wants it takes it, unless one of the two is going.
    let (alive, mut going) = (job(json!({}), started()), job(json!({}), started()));
    Arc::make_mut(&mut going).metadata.deletion_timestamp = Some(time(NOW.parse().unwrap()));
    let released = |pod: &Arc<Pod>, jobs: &[Arc<Job>]| orphan(pod, jobs).ops.len();
    assert_eq!([released(&nobodys, &[]), released(&nobodys, &[alive.clone()]), released(&nobodys, &[going])], [1, 0, 1]);
    Arc::make_mut(&mut nobodys).metadata.deletion_timestamp = Some(time(NOW.parse().unwrap()));
    assert_eq!(released(&nobodys, &[alive.clone()]), 1);
    assert_eq!(released(&pod("a Running t"), &[]), 0);
}

#[test]
fn a_whole_life() {
    let start = job(json!({}), Value::Null);
    assert_eq!(lines(&start, &[]), ["status active=1", "create Pod ns/j-*"]);
    let running = job(json!({}), json!({"startTime": NOW, "active": 1, "ready": 0, "terminating": 0, "uncountedTerminatedPods": {}}));
    assert!(lines(&running, &["a Running t"]).is_empty());
    // Ended: noted first, then released, and decided already.
    assert_eq!(lines(&running, &["a Succeeded t"]), ["status uncounted succeeded a | SuccessCriteriaMet=True CompletionsReached", "release a"]);
    let noted = job(
        json!({}),
        json!({"startTime": NOW, "uncountedTerminatedPods": {"succeeded": ["a"]}, "conditions": [{"type": "SuccessCriteriaMet", "status": "True", "reason": "CompletionsReached"}]}),
    );
    assert_eq!(
        lines(&noted, &["a Succeeded ."]),
        [
            "status succeeded=1 | SuccessCriteriaMet=True CompletionsReached | Complete=True CompletionsReached",
            "event Normal Completed: Job completed"
        ]
    );
    // The pod may be gone altogether by then.
    assert_eq!(lines(&noted, &[])[0], "status succeeded=1 | SuccessCriteriaMet=True CompletionsReached | Complete=True CompletionsReached");
}

#[test]
fn as_many_as_wanted() {
    let cases: [(Value, &[&str], &[&str]); 5] = [
        (json!({"parallelism": 3, "completions": 5}), &[], &["status active=3", "create Pod ns/j-*", "create Pod ns/j-*", "create Pod ns/j-*"]),
        (json!({"parallelism": 1, "completions": 5}), &["a Running t", "b Running t"], &["status active=1", "delete Pod ns/a"]),
        // Without a number, the first success lets the others end.
        (
            json!({"parallelism": 2, "completions": null}),
            &["a Succeeded t", "b Running t"],
            &["status active=1 | uncounted succeeded a", "release a"],
        ),
        (
            json!({"parallelism": 2, "completions": null}),
            &["a Succeeded t", "b Succeeded t"],
            &["status uncounted succeeded a,b | SuccessCriteriaMet=True CompletionsReached", "release a", "release b"],
        ),
        (
            json!({"suspend": true}),
            &["a Running t"],
            &["status Suspended=True JobSuspended", "event Normal Suspended: Job suspended", "delete Pod ns/a"],
        ),
    ];
    for (spec, pods, expected) in cases {
        assert_eq!(lines(&job(spec.clone(), started()), pods), expected, "{spec}");
    }
}

#[test]
fn failures_wait_then_end_it() {
    // One failure two seconds ago: eight more of ten.
    assert_eq!(lines(&job(json!({}), started()), &["a Failed t"]), ["status uncounted failed a", "release a", "again in 8s"]);
    assert_eq!(lines(&job(json!({}), started()), &["a Failed .", "b Failed ."])[1..], ["again in 18s"]);
    let limit = job(json!({"backoffLimit": 0}), started());
    assert_eq!(lines(&limit, &["a Failed t"]), ["status uncounted failed a | FailureTarget=True BackoffLimitExceeded", "release a"]);
    let noted = job(
        json!({"backoffLimit": 0}),
        json!({"startTime": NOW, "uncountedTerminatedPods": {"failed": ["a"]}, "conditions": [{"type": "FailureTarget", "status": "True", "reason": "BackoffLimitExceeded", "message": "m"}]}),
    );
    assert_eq!(
        lines(&noted, &["a Failed ."]),
        ["status failed=1 | FailureTarget=True BackoffLimitExceeded | Failed=True BackoffLimitExceeded", "event Warning BackoffLimitExceeded: m"]
    );
    let late = job(json!({"activeDeadlineSeconds": 30}), started());
    assert_eq!(lines(&late, &["a Running t"]), ["status FailureTarget=True DeadlineExceeded", "delete Pod ns/a"]);
    let in_time = job(json!({"activeDeadlineSeconds": 90}), started());
    assert_eq!(lines(&in_time, &["a Running t"]), ["status active=1", "again in 30s"]);
}

#[test]
fn indexed() {
    let spec = json!({"parallelism": 3, "completions": 4, "completionMode": "Indexed"});
    let lines = lines(&job(spec, started()), &["a Succeeded t 0", "b Running t 2"]);
    assert_eq!(
        lines,
        ["status active=3 | succeeded=1 | completedIndexes=0 | uncounted succeeded a", "release a", "create Pod ns/j-1-*", "create Pod ns/j-3-*"]
    );
}

#[test]
fn failure_policy() {
    let policy = |action: &str| json!({"podFailurePolicy": {"rules": [{"action": action, "onExitCodes": {"operator": "In", "values": [42]}}]}});
    assert_eq!(lines(&job(policy("FailJob"), started()), &["a Failed tx"])[0], "status uncounted failed a | FailureTarget=True PodFailurePolicy");
    assert_eq!(lines(&job(policy("Ignore"), started()), &["a Failed tx"]), ["status ", "release a", "again in 8s"]);
    assert_eq!(lines(&job(policy("FailJob"), started()), &["a Failed t"])[0], "status uncounted failed a");
}

#[test]
fn removed_after_its_time() {
    let done = json!({"startTime": NOW, "uncountedTerminatedPods": {}, "conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": "2026-11-22T11:59:50Z"}]});
    assert_eq!(lines(&job(json!({"ttlSecondsAfterFinished": 5}), done.clone()), &[]), ["delete Job ns/j Foreground"]);
    assert_eq!(lines(&job(json!({"ttlSecondsAfterFinished": 60}), done), &[]), ["again in 50s"]);
}

#[test]
fn indexes_fail_by_themselves() {
    let spec = |limit: i32, more: Value| {
        let mut spec = json!({"parallelism": 2, "completions": 2, "completionMode": "Indexed", "backoffLimit": i32::MAX, "backoffLimitPerIndex": limit});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        job(spec, started())
    };
    // Held until the next one has the count; ten seconds after it has failed.
    assert_eq!(lines(&spec(1, json!({})), &["a Failed t 0", "b Running t 1"]), ["status active=1 | failedIndexes=", "again in 8s"]);
    assert_eq!(
        lines(&spec(1, json!({})), &["a Failed t 0", "c Running t 0 1", "b Running t 1"]),
        ["status active=2 | failedIndexes= | uncounted failed a", "release a"]
    );
    // Given up: the other goes on.
    let up = ["status active=1 | failedIndexes=0 | uncounted failed a", "release a"];
    assert_eq!(lines(&spec(0, json!({})), &["a Failed t 0", "b Running t 1"]), up);
    let rules = json!({"podFailurePolicy": {"rules": [{"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [42]}}]}});
    assert_eq!(lines(&spec(5, rules), &["a Failed tx 0", "b Running t 1"]), up);
    assert_eq!(
        lines(&spec(0, json!({})), &["a Failed t 0", "b Succeeded t 1"])[0],
        "status succeeded=1 | completedIndexes=1 | failedIndexes=0 | uncounted failed a | uncounted succeeded b | FailureTarget=True FailedIndexes"
    );
    assert_eq!(
        lines(&spec(0, json!({"maxFailedIndexes": 0})), &["a Failed t 0", "b Running t 1"]),
        ["status failedIndexes=0 | uncounted failed a | FailureTarget=True MaxFailedIndexesExceeded", "release a", "delete Pod ns/b"]
    );
    // Decided while one is held: it is counted before the end.
    let decided = job(
        json!({"parallelism": 2, "completions": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 1}),
        json!({"startTime": NOW, "conditions": [{"type": "FailureTarget", "status": "True", "reason": "DeadlineExceeded", "message": "m"}]}),
    );
    assert_eq!(lines(&decided, &["a Failed t 0"])[0], "status failedIndexes= | uncounted failed a | FailureTarget=True DeadlineExceeded");
}

#[test]
fn the_count_is_handed_on() {
    let job = job(json!({"parallelism": 1, "completions": 1, "completionMode": "Indexed", "backoffLimit": i32::MAX, "backoffLimitPerIndex": 9}), started());
    let late = "2026-11-22T12:01:00Z".parse().unwrap();
    let plan = plan(&View { job, pods: vec![pod("a Failed t 0 1")] }, late);
    let created = plan.ops.iter().find_map(|op| if let Op::Create { object, .. } = op { Some(object) } else { None }).unwrap();
    assert_eq!(created["metadata"]["annotations"]["batch.kubernetes.io/job-index-failure-count"], "2");
}

#[test]
fn enough_is_enough() {
    let policy = |rule: Value| job(json!({"parallelism": 2, "completions": 5, "completionMode": "Indexed", "successPolicy": {"rules": [rule]}}), started());
    let met = "status succeeded=1 | completedIndexes=0 | uncounted succeeded a | SuccessCriteriaMet=True SuccessPolicy";
    for (rule, first) in [
        (json!({"succeededIndexes": "0"}), met),
        (json!({"succeededCount": 1}), met),
        (json!({"succeededIndexes": "0-3", "succeededCount": 1}), met),
        (json!({"succeededIndexes": "0,1"}), "status active=2 | succeeded=1 | completedIndexes=0 | uncounted succeeded a"),
    ] {
        assert_eq!(lines(&policy(rule.clone()), &["a Succeeded t 0", "b Running t 1"])[0], first, "{rule}");
    }
}
