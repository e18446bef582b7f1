//! The table of decisions: given a pod, what runs and what was probed, the plan as text.

use std::collections::HashMap;

use jiff::Timestamp;
use sandbox::cri::{ContainerMetadata, ContainerState, ContainerStatus, NamespaceOptions, PodSandboxMetadata, PodSandboxStatus, SandboxState};
use serde_json::{Value, json};

use crate::backoff::BackOff;
use crate::sync::{Action, Plan, View, sync};
use crate::view::{PodRuntime, ProbeResults, Verdicts};

const SECOND: i64 = 1_000_000_000;
const T: i64 = 1_000;

pub(crate) fn sandbox(state: SandboxState, attempt: u32) -> PodSandboxStatus {
    PodSandboxStatus {
        id: format!("s{attempt}"),
        metadata: PodSandboxMetadata { name: "p".into(), namespace: "n".into(), uid: "u".into(), attempt },
        state,
        created_at: T * SECOND,
        ips: vec!["10.244.0.9".parse().unwrap()],
        network_namespace: None,
        namespaces: NamespaceOptions::default(),
        labels: Default::default(),
        annotations: Default::default(),
    }
}

/// `running`, or an exit code.
pub(crate) fn container(name: &str, attempt: u32, sandbox: u32, exit: Option<i32>) -> ContainerStatus {
    ContainerStatus {
        id: format!("{name}{attempt}"),
        sandbox_id: format!("s{sandbox}"),
        metadata: ContainerMetadata { name: name.into(), attempt },
        state: if exit.is_some() { ContainerState::Exited } else { ContainerState::Running },
        created_at: (T + i64::from(attempt)) * SECOND,
        started_at: (T + i64::from(attempt)) * SECOND,
        finished_at: if exit.is_some() { (T + 10) * SECOND } else { 0 },
        exit_code: exit.unwrap_or(0),
        reason: match exit {
            None => String::new(),
            Some(0) => "Completed".into(),
            Some(_) => "Error".into(),
        },
        message: String::new(),
        image: "i".into(),
        image_id: "sha256:1".into(),
        labels: Default::default(),
        annotations: Default::default(),
        log_path: "/dev/null".into(),
        pid: 0,
        resources: Default::default(),
    }
}

fn text(plan: &Plan) -> String {
    let mut lines: Vec<String> = plan
        .actions
        .iter()
        .map(|action| match action {
            Action::Resize { containers } => format!("resize {containers:?}"),
            Action::StopSandbox { id } => format!("stop {id}"),
            Action::CreateSandbox { attempt } => format!("sandbox {attempt}"),
            Action::Kill { id, message, .. } => format!("kill {id}: {message}"),
            Action::Start { name, attempt, .. } => format!("start {name} {attempt}"),
        })
        .collect();
    lines.extend(plan.backed_off.iter().map(|b| format!("wait {}: {}", b.name, b.message)));
    if let Some(at) = plan.wake_at {
        lines.push(format!("wake {}", at.as_second() - T));
    }
    lines.join("; ")
}

struct Case {
    what: &'static str,
    spec: Value,
    sandboxes: Vec<PodSandboxStatus>,
    containers: Vec<ContainerStatus>,
    probes: Vec<(&'static str, Verdicts)>,
    /// Restarts already counted for container `c`.
    restarts: usize,
    expected: &'static str,
}

fn case(what: &'static str, spec: Value, sandboxes: Vec<PodSandboxStatus>, containers: Vec<ContainerStatus>, expected: &'static str) -> Case {
    Case { what, spec, sandboxes, containers, probes: vec![], restarts: 0, expected }
}

#[test]
fn decisions() {
    let one = || json!({"containers": [{"name": "c", "image": "i"}]});
    let policy = |policy: &str| json!({"restartPolicy": policy, "containers": [{"name": "c", "image": "i"}]});
    let init = || json!({"initContainers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}], "containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "i"}]});
    let sidecar = || {
        json!({"restartPolicy": "Never", "initContainers": [{"name": "s", "image": "i", "restartPolicy": "Always", "startupProbe": {}}, {"name": "a", "image": "i"}],
               "containers": [{"name": "c", "image": "i"}]})
    };
    let ready = || vec![sandbox(SandboxState::Ready, 0)];
    let gone = || vec![sandbox(SandboxState::NotReady, 0)];
    let mut cases = vec![
        case("nothing yet", one(), vec![], vec![], "sandbox 0"),
        case("sandbox is there", one(), ready(), vec![], "start c 0"),
        case("runs", one(), ready(), vec![container("c", 0, 0, None)], ""),
        case("ended, first restart at once", one(), ready(), vec![container("c", 0, 0, Some(0))], "start c 1"),
        case("ended well, OnFailure", policy("OnFailure"), ready(), vec![container("c", 0, 0, Some(0))], ""),
        case("ended badly, OnFailure", policy("OnFailure"), ready(), vec![container("c", 0, 0, Some(3))], "start c 1"),
        case("ended badly, Never", policy("Never"), ready(), vec![container("c", 0, 0, Some(3))], ""),
        case("sandbox died", one(), gone(), vec![container("c", 0, 0, Some(137))], "stop s0; sandbox 1"),
        case("sandbox died, Never", policy("Never"), gone(), vec![container("c", 0, 0, Some(137))], ""),
        case("new sandbox after one died keeps counting", one(), vec![sandbox(SandboxState::Ready, 1), sandbox(SandboxState::NotReady, 0)], vec![container("c", 0, 0, Some(1))], "start c 1"),
        case("first init", init(), ready(), vec![], "start a 0"),
        case("second init", init(), ready(), vec![container("a", 0, 0, Some(0))], "start b 0"),
        case("init runs", init(), ready(), vec![container("a", 0, 0, None)], ""),
        case("init failed", init(), ready(), vec![container("a", 0, 0, Some(1))], "start a 1"),
        case("all init done", init(), ready(), vec![container("a", 0, 0, Some(0)), container("b", 0, 0, Some(0))], "start c 0; start d 0"),
        case("init containers were collected", init(), ready(), vec![container("c", 0, 0, None), container("d", 0, 0, None)], ""),
        case("sidecar first", sidecar(), ready(), vec![], "start s 0"),
        case("sidecar not yet started up", sidecar(), ready(), vec![container("s", 0, 0, None)], ""),
        case("sidecar ended while main runs", sidecar(), ready(), vec![container("s", 0, 0, Some(1)), container("c", 0, 0, None)], "start s 1"),
        case("main ended: sidecar is stopped", sidecar(), ready(), vec![container("s", 0, 0, None), container("a", 0, 0, Some(0)), container("c", 0, 0, Some(0))], "kill s0: Stopping container s"),
        case(
            "init failed for good",
            sidecar(),
            ready(),
            vec![container("s", 0, 0, None), container("a", 0, 0, Some(1))],
            "kill s0: Stopping container s",
        ),
        case(
            "restart rule by exit code",
            json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "i", "restartPolicy": "Never",
                "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]}]}),
            ready(),
            vec![container("c", 0, 0, Some(42))],
            "start c 1",
        ),
        case("new image", one(), ready(), vec![ContainerStatus { image: "old".into(), ..container("c", 0, 0, None) }], "kill c0: Container c definition changed, will be restarted; start c 1"),
    ];
    cases.push(Case {
        restarts: 1,
        ..case("crash loop", one(), ready(), vec![container("c", 1, 0, Some(1))], "wait c: back-off 10s restarting failed container=c pod=p_n(u); wake 20")
    });
    cases.push(Case {
        restarts: 4,
        ..case("crash loop, later", one(), ready(), vec![container("c", 4, 0, Some(1))], "wait c: back-off 1m20s restarting failed container=c pod=p_n(u); wake 90")
    });
    cases.push(Case {
        probes: vec![("s0", Verdicts { startup: Some(true), ..Verdicts::default() })],
        ..case("sidecar started up", sidecar(), ready(), vec![container("s", 0, 0, None)], "start a 0")
    });
    cases.push(Case {
        probes: vec![("s0", Verdicts { startup: Some(true), ..Verdicts::default() })],
        ..case("init failed for good after sidecar", sidecar(), ready(), vec![container("s", 0, 0, None), container("a", 0, 0, Some(1))], "kill s0: Stopping container s")
    });
    cases.push(Case {
        probes: vec![("c0", Verdicts { liveness: Some(false), ..Verdicts::default() })],
        ..case("liveness", one(), ready(), vec![container("c", 0, 0, None)], "kill c0: Container c failed liveness probe, will be restarted")
    });
    cases.push(Case {
        probes: vec![("c0", Verdicts { liveness: Some(false), ..Verdicts::default() })],
        ..case("liveness, Never", policy("Never"), ready(), vec![container("c", 0, 0, None)], "kill c0: Container c failed liveness probe")
    });
    for case in cases {
        let now = Timestamp::from_second(T + 11).unwrap();
        let pod = crate::pod::from_json(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": case.spec}));
        let runtime = PodRuntime::new(case.sandboxes, case.containers);
        let probes = ProbeResults { by_container_id: case.probes.into_iter().map(|(id, verdicts)| (id.to_owned(), verdicts)).collect() };
        let mut backoff = BackOff::default();
        for _ in 0..case.restarts {
            backoff.next("c", now, now);
        }
        let plan = sync(&View { pod: &pod, runtime: &runtime, probes: &probes, backoff: &backoff, retry_at: &HashMap::new(), resize_waits: false, now });
        assert_eq!(text(&plan), case.expected, "{}", case.what);
    }
}
