//! Pods and pod templates. The STATUS word mirrors upstream's `printPod`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::format::{NONE, containers, labels, name, or};
use super::{Printer, age, since};
use crate::kinds::json::{child, flag, list, map, number, text};

const PODS: Printer = Printer { columns: "Name|Ready|Status|Restarts|Age|IP*|Node*|Nominated Node*|Readiness Gates*", cells: pod };
const TEMPLATES: Printer = Printer {
    columns: "Name|Containers|Images|Pod Labels",
    cells: |object, _| {
        let [names, images] = containers(object, "template.spec.containers");
        vec![name(object), names, images, labels(map(object, "template.metadata.labels")).into()]
    },
};

pub fn printer(group: &str, plural: &str) -> Option<&'static Printer> {
    match (group, plural) {
        ("", "pods") => Some(&PODS),
        ("", "podtemplates") => Some(&TEMPLATES),
        _ => None,
    }
}

/// A row of a finished pod says so, for clients that hide those.
pub fn row_conditions(pod: &Value) -> Option<Value> {
    let message = match text(pod, "status.phase") {
        "Succeeded" => "The pod has completed successfully.",
        "Failed" => "The pod failed.",
        _ => return None,
    };
    Some(json!([{"type": "Completed", "status": "True", "reason": text(pod, "status.phase"), "message": message}]))
}

fn has_condition(pod: &Value, kind: &str) -> bool {
    list(pod, "status.conditions").iter().find(|condition| text(condition, "type") == kind).is_some_and(|condition| text(condition, "status") == "True")
}

/// `Error`, `Signal:9`, `ExitCode:2`.
fn terminated_word(terminated: &Value) -> String {
    match (text(terminated, "reason"), number(terminated, "signal").unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{}", number(terminated, "exitCode").unwrap_or(0)),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

/// Restarts so far, and when the last one was.
#[derive(Default, Clone)]
struct Restarts<'a> {
    count: i64,
    last: &'a str,
}

impl<'a> Restarts<'a> {
    fn add(&mut self, status: &'a Value) {
        self.count += number(status, "restartCount").unwrap_or(0);
        // RFC 3339 in UTC with whole seconds sorts as text.
        self.last = self.last.max(text(status, "lastState.terminated.finishedAt"));
    }
}

struct Summary<'a> {
    word: String,
    ready: usize,
    total: usize,
    restarts: Restarts<'a>,
}

fn summary(pod: &Value) -> Summary<'_> {
    let init_containers = list(pod, "spec.initContainers");
    let is_sidecar = |name: &str| init_containers.iter().any(|container| text(container, "name") == name && text(container, "restartPolicy") == "Always");
    let mut word = or(text(pod, "status.reason"), text(pod, "status.phase")).to_owned();
    if list(pod, "status.conditions").iter().any(|condition| text(condition, "type") == "PodScheduled" && text(condition, "reason") == "SchedulingGated") {
        word = "SchedulingGated".to_owned();
    }
    let total = list(pod, "spec.containers").len() + init_containers.iter().filter(|container| text(container, "restartPolicy") == "Always").count();
    let mut ready = 0;
    let (mut restarts, mut sidecar_restarts) = (Restarts::default(), Restarts::default());
    let mut initializing = false;
    for (index, status) in list(pod, "status.initContainerStatuses").iter().enumerate() {
        restarts.add(status);
        let sidecar = is_sidecar(text(status, "name"));
        if sidecar {
            sidecar_restarts.add(status);
        }
        let terminated = child(status, "state.terminated");
        if terminated.is_some_and(|terminated| number(terminated, "exitCode").unwrap_or(0) == 0) {
            continue;
        }
        if sidecar && flag(status, "started") {
            ready += usize::from(flag(status, "ready"));
            continue;
        }
        word = match (terminated, text(status, "state.waiting.reason")) {
            (Some(terminated), _) => format!("Init:{}", terminated_word(terminated)),
            (None, "" | "PodInitializing") => format!("Init:{index}/{}", init_containers.len()),
            (None, reason) => format!("Init:{reason}"),
        };
        initializing = true;
        break;
    }
    if !initializing || has_condition(pod, "Initialized") {
        restarts = sidecar_restarts;
        let mut running = false;
        let mut error = String::new();
        for status in list(pod, "status.containerStatuses").iter().rev() {
            restarts.add(status);
            let waiting = text(status, "state.waiting.reason");
            if !waiting.is_empty() {
                word = waiting.to_owned();
            } else if let Some(terminated) = child(status, "state.terminated") {
                word = terminated_word(terminated);
                if number(terminated, "exitCode").unwrap_or(0) != 0 {
                    error.clone_from(&word);
                }
            } else if flag(status, "ready") && child(status, "state.running").is_some() {
                running = true;
                ready += 1;
            }
        }
        if word == "Completed" {
            if running && has_condition(pod, "Ready") {
                word = "Running".to_owned();
            } else if !error.is_empty() {
                word = error;
            } else if running {
                word = "NotReady".to_owned();
            }
        }
    }
    if child(pod, "metadata.deletionTimestamp").is_some() {
        if text(pod, "status.reason") == "NodeLost" {
            word = "Unknown".to_owned();
        } else if !matches!(text(pod, "status.phase"), "Succeeded" | "Failed") {
            word = "Terminating".to_owned();
        }
    }
    Summary { word, ready, total, restarts }
}

/// The word under STATUS: `Running`, `CrashLoopBackOff`, `Init:0/1`, `Terminating`, `Completed`, ...
pub fn status_word(pod: &Value) -> String {
    summary(pod).word
}

fn pod(pod: &Value, now: Timestamp) -> Vec<Value> {
    let Summary { word, ready, total, restarts } = summary(pod);
    let restarts = match restarts {
        Restarts { count, last } if count != 0 && !last.is_empty() => format!("{count} ({} ago)", since(last, now)),
        Restarts { count, .. } => count.to_string(),
    };
    let gates = list(pod, "spec.readinessGates");
    let gates = if gates.is_empty() {
        NONE.to_owned()
    } else {
        format!("{}/{}", gates.iter().filter(|gate| has_condition(pod, text(gate, "conditionType"))).count(), gates.len())
    };
    let ip = list(pod, "status.podIPs").first().map_or("", |ip| text(ip, "ip"));
    vec![
        name(pod),
        format!("{ready}/{total}").into(),
        word.into(),
        restarts.into(),
        age(pod, now).into(),
        or(or(ip, text(pod, "status.podIP")), NONE).into(),
        or(text(pod, "spec.nodeName"), NONE).into(),
        or(text(pod, "status.nominatedNodeName"), NONE).into(),
        gates.into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::tests::line;
    use serde_json::json;

    #[test]
    fn pods() {
        let two = json!([{"name": "a"}, {"name": "b"}]);
        let running = json!({"name": "a", "ready": true, "restartCount": 0, "state": {"running": {}}});
        let cases = [
            (json!({"spec": {"containers": two}, "status": {"phase": "Pending"}}), "x|0/2|Pending|0|5m|<none>|<none>|<none>|<none>"),
            (
                json!({"spec": {"containers": [{"name": "a"}], "nodeName": "node1", "readinessGates": [{"conditionType": "g"}]},
                    "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}], "containerStatuses": [running], "conditions": [{"type": "g", "status": "True"}]}}),
                "x|1/1|Running|0|5m|10.0.0.1|node1|<none>|1/1",
            ),
            (
                json!({"spec": {"containers": [{"name": "a"}]}, "status": {"phase": "Running", "containerStatuses": [
                    {"name": "a", "restartCount": 3, "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:58:00Z"}}, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}}),
                "x|0/1|CrashLoopBackOff|3 (2m ago)|5m|<none>|<none>|<none>|<none>",
            ),
            (
                json!({"spec": {"containers": [{"name": "a"}]}, "status": {"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}}),
                "x|0/1|Error|0|5m|<none>|<none>|<none>|<none>",
            ),
            (
                json!({"spec": {"containers": [{"name": "a"}]}, "status": {"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}}),
                "x|0/1|ExitCode:3|0|5m|<none>|<none>|<none>|<none>",
            ),
            (
                json!({"spec": {"containers": two}, "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [
                    {"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}, running]}}),
                "x|1/2|Running|0|5m|<none>|<none>|<none>|<none>",
            ),
            (
                json!({"spec": {"initContainers": [{"name": "i"}, {"name": "j"}], "containers": [{"name": "a"}]}, "status": {"phase": "Pending",
                    "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 0}}}, {"name": "j", "state": {"running": {}}}],
                    "containerStatuses": [{"state": {"waiting": {"reason": "PodInitializing"}}}]}}),
                "x|0/1|Init:1/2|0|5m|<none>|<none>|<none>|<none>",
            ),
            (
                json!({"spec": {"initContainers": [{"name": "i", "restartPolicy": "Always"}], "containers": [{"name": "a"}]}, "status": {"phase": "Running",
                    "initContainerStatuses": [{"name": "i", "started": true, "ready": true, "restartCount": 1, "state": {"running": {}}}], "containerStatuses": [running]}}),
                "x|2/2|Running|1|5m|<none>|<none>|<none>|<none>",
            ),
            (
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:59:00Z"}, "spec": {"containers": [{"name": "a"}]}, "status": {"phase": "Running", "containerStatuses": [running]}}),
                "x|1/1|Terminating|0|5m|<none>|<none>|<none>|<none>",
            ),
            (json!({"status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]}}), "x|0/0|SchedulingGated|0|5m|<none>|<none>|<none>|<none>"),
            (json!({"status": {"phase": "Failed", "reason": "Evicted"}}), "x|0/0|Evicted|0|5m|<none>|<none>|<none>|<none>"),
        ];
        for (pod, expected) in cases {
            assert_eq!(line("", "v1", "pods", pod), expected);
        }
    }
}
