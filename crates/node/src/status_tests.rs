//! The table of statuses: given what runs, the phase, the container states and the conditions as text.

use std::collections::HashMap;

use api::k8s::api::core::v1::PodStatus;
use jiff::Timestamp;
use sandbox::cri::SandboxState;
use serde_json::json;

use crate::cx::Verdict;
use crate::status::{Computed, Reason, View, compute};
use crate::sync_tests::{container, sandbox};
use crate::view::{PodRuntime, ProbeResults, Verdicts};

fn text(computed: &Computed) -> String {
    let status = &computed.status;
    let mut out = status.phase.clone().unwrap_or_default();
    if computed.over {
        out.push_str(" over");
    }
    for c in status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten()) {
        let state = c.state.clone().unwrap_or_default();
        let word = if state.running.is_some() {
            "running".to_owned()
        } else if let Some(t) = state.terminated {
            format!("{} {}", t.reason.unwrap_or_default(), t.exit_code)
        } else {
            let waiting = state.waiting.unwrap_or_default();
            format!("{} {}", waiting.reason.unwrap_or_default(), waiting.message.unwrap_or_default()).trim().to_owned()
        };
        let last = c.last_state.as_ref().and_then(|s| s.terminated.as_ref()).map(|t| format!(" last {}", t.exit_code)).unwrap_or_default();
        out.push_str(&format!("; {} {word}{last} x{}{}", c.name, c.restart_count, if c.ready { " ready" } else { "" }));
    }
    out
}

#[test]
fn statuses() {
    let one = || json!({"containers": [{"name": "c", "image": "i"}]});
    let never = || json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]});
    let init = || json!({"restartPolicy": "Never", "initContainers": [{"name": "a", "image": "i"}], "containers": [{"name": "c", "image": "i"}]});
    let probed = || json!({"containers": [{"name": "c", "image": "i", "readinessProbe": {}}]});
    let ready = || vec![sandbox(SandboxState::Ready, 0)];
    let pull = || Some(Reason { reason: "ErrImagePull".into(), message: "no".into() });
    let crash = || Some(Reason { reason: "CrashLoopBackOff".into(), message: "back-off".into() });
    let cases = [
        ("new", one(), vec![], vec![], None, false, false, "Pending; c ContainerCreating x0"),
        ("init to come", init(), vec![], vec![], None, false, false, "Pending; a PodInitializing x0; c PodInitializing x0"),
        ("no image", one(), ready(), vec![], pull(), false, false, "Pending; c ErrImagePull no x0"),
        ("runs", one(), ready(), vec![container("c", 0, 0, None)], None, false, false, "Running; c running x0 ready"),
        ("runs, not ready", probed(), ready(), vec![container("c", 0, 0, None)], None, false, false, "Running; c running x0"),
        ("runs, probed", probed(), ready(), vec![container("c", 0, 0, None)], None, true, false, "Running; c running x0 ready"),
        ("just ended", one(), ready(), vec![container("c", 0, 0, Some(1))], None, false, false, "Running; c Error 1 x0"),
        ("crash loop", one(), ready(), vec![container("c", 2, 0, Some(1)), container("c", 1, 0, Some(1))], crash(), false, false, "Running; c CrashLoopBackOff back-off last 1 x2"),
        ("second run", one(), ready(), vec![container("c", 1, 0, None), container("c", 0, 0, Some(3))], None, false, false, "Running; c running last 3 x1 ready"),
        ("done", never(), ready(), vec![container("c", 0, 0, Some(0))], None, false, false, "Pending over; c Completed 0 x0"),
        ("done and ended", never(), ready(), vec![container("c", 0, 0, Some(0))], None, false, true, "Succeeded over; c Completed 0 x0"),
        ("failed", never(), ready(), vec![container("c", 0, 0, Some(2))], None, false, false, "Pending over; c Error 2 x0"),
        ("init runs", init(), ready(), vec![container("a", 0, 0, None)], None, false, false, "Pending; a running x0; c PodInitializing x0"),
        ("init failed", init(), ready(), vec![container("a", 0, 0, Some(1))], None, false, false, "Pending over; a Error 1 x0; c PodInitializing x0"),
        ("init done", init(), ready(), vec![container("a", 0, 0, Some(0))], None, false, false, "Pending; a Completed 0 x0 ready; c PodInitializing x0"),
        ("killed", one(), ready(), vec![container("c", 0, 0, Some(137))], None, false, true, "Failed over; c Error 137 x0"),
    ];
    for (what, spec, sandboxes, containers, reason, readiness, ended, expected) in cases {
        let pod = crate::pod::from_json(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec}));
        let mut probes = ProbeResults::default();
        if readiness {
            probes.by_container_id.insert("c0".into(), Verdicts { readiness: Some(true), ..Verdicts::default() });
        }
        let reasons: HashMap<String, Reason> = reason.into_iter().map(|r| ("c".to_owned(), r)).collect();
        let runtime = PodRuntime::new(sandboxes, containers);
        let status = compute(&View {
            pod: &pod,
            old: &PodStatus::default(),
            runtime: &runtime,
            probes: &probes,
            reasons: &reasons,
            messages: &HashMap::new(),
            users: &HashMap::new(),
            node_ips: &["10.0.0.1".to_owned()],
            pending: None,
            verdict: None,
            ended,
            now: Timestamp::from_second(2_000).unwrap(),
            container_id_scheme: "coracle://",
        });
        assert_eq!(text(&status), expected, "{what}");
    }
}

#[test]
fn a_refused_pod_fails_at_once_and_tells_of_no_container() {
    let pod = crate::pod::from_json(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}));
    let scheduled: PodStatus = serde_json::from_value(json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]})).unwrap();
    let verdict = Verdict { refused: true, ..Reason { reason: "SysctlForbidden".into(), message: "no".into() }.into() };
    let of = |old: &PodStatus, verdict| {
        let status = compute(&View {
            pod: &pod,
            old,
            runtime: &PodRuntime::default(),
            probes: &ProbeResults::default(),
            reasons: &HashMap::new(),
            messages: &HashMap::new(),
            users: &HashMap::new(),
            node_ips: &["10.0.0.1".to_owned()],
            pending: None,
            verdict,
            ended: false,
            now: Timestamp::from_second(2_000).unwrap(),
            container_id_scheme: "coracle://",
        });
        assert_eq!(text(&status), "Failed over");
        status.status
    };
    let failed = of(&scheduled, Some(&verdict));
    assert_eq!((failed.reason.as_deref(), failed.message.as_deref(), failed.conditions.as_ref().map(Vec::len)), (Some("SysctlForbidden"), Some("no"), Some(1)));
    assert_eq!(of(&failed, None), failed, "and stays so after a restart of the agent");
}

#[test]
fn conditions_in_upstreams_words() {
    let pod = crate::pod::from_json(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u", "generation": 1},
        "spec": {"readinessGates": [{"conditionType": "x/y"}], "containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "i"}]}}));
    let of = |containers| {
        let status = compute(&View {
            pod: &pod,
            old: &PodStatus::default(),
            runtime: &PodRuntime::new(vec![sandbox(SandboxState::Ready, 0)], containers),
            probes: &ProbeResults::default(),
            reasons: &HashMap::new(),
            messages: &HashMap::new(),
            users: &HashMap::new(),
            node_ips: &["10.0.0.1".to_owned()],
            pending: None,
            verdict: None,
            ended: false,
            now: Timestamp::from_second(2_000).unwrap(),
            container_id_scheme: "coracle://",
        });
        status.status.conditions.unwrap().iter().map(|c| format!("{}={} {} {}", c.type_, c.status, c.reason.as_deref().unwrap_or("-"), c.message.as_deref().unwrap_or("-"))).collect::<Vec<_>>()
    };
    assert_eq!(
        of(vec![container("d", 0, 0, None)]),
        [
            "PodReadyToStartContainers=True - -",
            "Initialized=True - -",
            "Ready=False ContainersNotReady containers with unready status: [c]",
            "ContainersReady=False ContainersNotReady containers with unready status: [c]",
            "PodScheduled=True - -"
        ]
    );
    assert_eq!(
        of(vec![container("d", 0, 0, None), container("c", 0, 0, None)])[2],
        "Ready=False ReadinessGatesNotReady corresponding condition of pod readiness gate \"x/y\" does not exist."
    );
}
