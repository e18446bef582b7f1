//! Ends containers: the preStop hook, then the stop signal, then SIGKILL when the grace period is over. Mirrors kuberuntime's `killContainer`.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::cx::Cx;
use crate::hooks;
use crate::pod::{self, Sort};
use crate::sync::KillReason;

/// What a container is left with at least when its hook used up its grace, so that a needless SIGKILL is avoided. Upstream lengthens every
/// shorter grace to this; here one that was asked for is kept: 1 is one second, and 0 is SIGKILL, as the API's description has it.
const MINIMUM_GRACE_SECONDS: i64 = 2;

/// Between attempts to stop a sandbox; doubled after each.
const STOP_RETRY: Duration = Duration::from_millis(100);
const STOP_RETRY_MAX: Duration = Duration::from_secs(10);

fn grace(cx: &Cx, name: &str, why: KillReason) -> i64 {
    let of_pod = pod::grace_seconds(&cx.pod);
    if pod::is_terminating(&cx.pod) {
        return of_pod;
    }
    let container = pod::container(&cx.pod, name).map(|(_, c)| c);
    let probe = container.as_ref().and_then(|c| match why {
        KillReason::Liveness => c.liveness_probe.as_ref(),
        KillReason::Startup => c.startup_probe.as_ref(),
        KillReason::Changed | KillReason::PodDone => None,
    });
    probe.and_then(|p| p.termination_grace_period_seconds).unwrap_or(of_pod)
}

/// One container of a pod that goes on. Says whether it has ended.
pub async fn one(cx: &Cx, id: &str, name: &str, message: &str, why: KillReason) -> bool {
    let seconds = grace(cx, name, why);
    stop(cx, id, name, message, seconds).await
}

async fn stop(cx: &Cx, id: &str, name: &str, message: &str, grace_seconds: i64) -> bool {
    if cx.shared.lock().killed.insert(id.to_owned()) {
        cx.node.events.normal(&cx.about(Some(name)), "Killing", message);
    }
    let deadline = Instant::now() + Duration::from_secs(u64::try_from(grace_seconds).unwrap_or(0));
    let container = pod::container(&cx.pod, name).map(|(_, c)| c.into_owned());
    let mut left = grace_seconds;
    if grace_seconds > 0
        && let Some(container) = &container
        && let Some(handler) = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref())
    {
        match tokio::time::timeout_at(deadline, hooks::run(cx, id, container, handler)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => cx.node.events.warning(&cx.about(Some(name)), "FailedPreStopHook", "PreStopHook failed"),
            Err(_) => tracing::debug!(container = name, "preStop hook not completed in grace period"),
        }
        left = (deadline.saturating_duration_since(Instant::now()).as_secs_f64().ceil() as i64).max(MINIMUM_GRACE_SECONDS);
    }
    let stopped = cx.node.runtime.stop_container(id, left).await;
    if let Err(error) = &stopped {
        tracing::warn!(pod = pod::full(&cx.pod), container = name, %error, "cannot stop the container");
    }
    stopped.is_ok()
}

/// Everything that runs, main containers at once, then sidecars in reverse order; then the sandboxes.
pub async fn all(cx: Cx) {
    let grace_seconds = cx.grace_seconds();
    let deadline = Instant::now() + Duration::from_secs(u64::try_from(grace_seconds).unwrap_or(0));
    let running: Vec<(String, String)> = cx.shared.lock().runtime.running().map(|c| (c.id.clone(), c.metadata.name.clone())).collect();
    let sort = |name: &str| pod::container(&cx.pod, name).map(|(sort, _)| sort);
    let (sidecars, others): (Vec<_>, Vec<_>) = running.into_iter().partition(|(_, name)| sort(name) == Some(Sort::Sidecar));
    join_all(others.iter().map(|(id, name)| {
        let cx = &cx;
        async move { stop(cx, id, name, &format!("Stopping container {name}"), grace_seconds).await; }
    }))
    .await;
    let order: Vec<&str> = pod::init_containers(&cx.pod).iter().rev().map(|c| c.name.as_str()).collect();
    for wanted in order {
        for (id, name) in sidecars.iter().filter(|(_, name)| name == wanted) {
            // The others may have used all of it up.
            let left = (deadline.saturating_duration_since(Instant::now()).as_secs_f64().ceil() as i64).max(MINIMUM_GRACE_SECONDS.min(grace_seconds));
            stop(&cx, id, name, &format!("Stopping container {name}"), left).await;
        }
    }
    // One that is being made is ended, too.
    drop(cx.shared.making.lock().await);
    let sandboxes = cx.shared.lock().sandbox_ids.clone();
    for id in sandboxes {
        let mut pause = STOP_RETRY;
        // Until it is done, as upstream: the API is not to be told that a pod has ended which holds its network or processes.
        while let Err(error) = cx.node.runtime.stop_pod_sandbox(&id).await {
            tracing::warn!(pod = pod::full(&cx.pod), %error, "cannot stop the sandbox");
            cx.node.events.warning(&cx.about(None), "FailedKillPod", format!("error killing pod: {error}"));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(STOP_RETRY_MAX);
        }
    }
}
