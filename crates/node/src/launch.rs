//! Carries out a plan: makes the sandbox, starts and kills containers, in order. Thin: what to do was decided in [`crate::sync`].
//!
//! Mirrors upstream's kuberuntime `SyncPod` and `startContainer`: same steps, same events, same reasons.

use api::k8s::api::core::v1::Container;
use jiff::Timestamp;
use sandbox::cri::{ContainerConfig, PodSandboxConfig, RuntimeError};

use crate::container;
use crate::cx::Cx;
use crate::env::{self, Found, Kind};
use crate::fields::Facts;
use crate::images::ImageInfo;
use crate::pod::{self, Sort};
use crate::status::{POST_START, Reason};
use crate::sync::{Action, Plan};
use crate::{hooks, kill, pull, resize, runtime_class, sandbox_config};

/// Until the next try after an error that no back-off counts (upstream's `backOffPeriod`).
pub const ERROR_RETRY_SECONDS: i64 = 10;

pub async fn carry_out(cx: Cx, plan: Plan) {
    for action in plan.actions {
        tracing::debug!(pod = pod::full(&cx.pod), ?action, "next");
        match action {
            Action::StopSandbox { id } => {
                cx.node.events.normal(&cx.about(None), "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.");
                if let Err(error) = cx.node.runtime.stop_pod_sandbox(&id).await {
                    tracing::warn!(pod = pod::full(&cx.pod), %error, "cannot stop the old sandbox");
                }
            }
            Action::CreateSandbox { attempt } => {
                if !create_sandbox(&cx, attempt).await {
                    return;
                }
            }
            Action::Kill { id, name, message, why } => {
                if !kill::one(&cx, &id, &name, &message, why).await {
                    // Not beside what may still be running.
                    return;
                }
            }
            Action::Resize { containers } => resize::carry_out(&cx, &containers).await,
            Action::Start { name, attempt, after } => start(&cx, &name, attempt, after).await,
        }
    }
}

/// The volumes, once per life of this process and pod. Says so in an event when it cannot.
async fn volumes(cx: &Cx) -> bool {
    match cx.node.volumes.ensure(cx).await {
        Ok(()) => {
            cx.succeeded("volumes");
            true
        }
        Err(failures) => {
            for failure in failures {
                cx.node.events.warning(&cx.about(None), "FailedMount", failure);
            }
            if let Some(at) = cx.after_failure("volumes") {
                cx.shared.lock().retry_at.insert(String::new(), at);
            }
            false
        }
    }
}

fn waits_for_network(cx: &Cx) -> bool {
    // Held until it is noted that this pod waits: whoever says that the network is there wakes those that do.
    let not_ready = cx.node.not_ready.lock();
    let Some(why) = &*not_ready else { return false };
    cx.node.events.warning(&cx.about(None), "NetworkNotReady", format!("network is not ready: {why}"));
    if let Some(at) = cx.after_failure("sandbox") {
        cx.shared.lock().retry_at.insert(String::new(), at);
    }
    true
}

/// In a task of its own: broken off halfway, a sandbox would be nobody's and stay for ever. Whoever ends the pod waits for `making`.
async fn make_sandbox(cx: &Cx, config: PodSandboxConfig) -> Result<(), String> {
    let turn = cx.shared.making.clone().lock_owned().await;
    let cx = cx.clone();
    let making = tokio::spawn(async move {
        let id = cx.node.runtime.run_pod_sandbox(config).await.map_err(|error| error.to_string())?;
        let mut memory = cx.shared.lock();
        if !memory.sandbox_ids.contains(&id) {
            memory.sandbox_ids.push(id);
        }
        drop(memory);
        drop(turn);
        Ok(())
    });
    making.await.unwrap_or_else(|error| Err(error.to_string()))
}

async fn create_sandbox(cx: &Cx, attempt: u32) -> bool {
    if !volumes(cx).await {
        return false;
    }
    if !pod::host_network(&cx.pod) && waits_for_network(cx) {
        return false;
    }
    let config = sandbox_config::of(cx, attempt);
    let made = match runtime_class::check(cx).await {
        Ok(()) => make_sandbox(cx, config).await,
        Err(why) => Err(why),
    };
    match made {
        Ok(()) => {
            cx.succeeded("sandbox");
            cx.shared.lock().retry_at.remove("");
            true
        }
        Err(error) => {
            cx.node.events.warning(&cx.about(None), "FailedCreatePodSandBox", format!("Failed to create pod sandbox: {error}"));
            if let Some(at) = cx.after_failure("sandbox") {
                cx.shared.lock().retry_at.insert(String::new(), at);
            }
            false
        }
    }
}

async fn start(cx: &Cx, name: &str, attempt: u32, after: Option<Timestamp>) {
    let Some((sort, container)) = pod::container(&cx.pod, name) else { return };
    if let Some(after) = after {
        let now = cx.node.now();
        cx.shared.lock().backoff.next_up_to(cx.node.config.settings.crash_loop_longest, name, after, now);
    }
    match try_start(cx, &container, sort, attempt).await {
        Ok(()) => {
            let mut memory = cx.shared.lock();
            memory.reasons.remove(name);
            memory.retry_at.remove(name);
        }
        Err(failure) => {
            let mut memory = cx.shared.lock();
            memory.reasons.insert(name.to_owned(), failure.reason);
            if let Some(at) = failure.retry_at {
                memory.retry_at.insert(name.to_owned(), at);
            }
        }
    }
}

fn failed(cx: &Cx, container: &Container, reason: &str, message: String, retry: bool) -> pull::Failure {
    cx.node.events.warning(&cx.about(Some(&container.name)), "Failed", format!("Error: {message}"));
    pull::Failure { reason: Reason { reason: reason.to_owned(), message }, retry_at: if retry { cx.later(ERROR_RETRY_SECONDS) } else { None } }
}

async fn try_start(cx: &Cx, container: &Container, sort: Sort, attempt: u32) -> Result<(), pull::Failure> {
    let sandbox_id = cx.newest_sandbox().await.ok_or_else(|| failed(cx, container, "CreateContainerError", "the pod has no sandbox".to_owned(), true))?;
    let image = pull::ensure(cx, container).await.inspect_err(|failure| {
        cx.node.events.warning(&cx.about(Some(&container.name)), "Failed", format!("Error: {}", failure.reason.reason));
    })?;
    if !volumes(cx).await {
        return Err(pull::Failure {
            reason: Reason { reason: "ContainerCreating".to_owned(), message: String::new() },
            retry_at: cx.after_failure("volumes"),
        });
    }
    let config = configure(cx, container, sort, attempt, &image).await.map_err(|why| failed(cx, container, "CreateContainerConfigError", why, true))?;
    let about = cx.about(Some(&container.name));
    let id = match cx.node.runtime.create_container(&sandbox_id, config).await {
        Ok(id) => id,
        Err(error) => return Err(failed(cx, container, "CreateContainerError", error.to_string(), true)),
    };
    cx.node.events.normal(&about, "Created", "Container created");
    let post_start = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref());
    if post_start.is_some() {
        cx.shared.lock().reasons.insert(container.name.clone(), Reason { reason: POST_START.to_owned(), message: String::new() });
    }
    if let Err(error) = cx.node.runtime.start_container(&id).await {
        let message = match &error {
            RuntimeError::Start(why) => why.clone(),
            other => other.to_string(),
        };
        // The next try is the restart back-off's business: the container counts as ended.
        return Err(failed(cx, container, "RunContainerError", message, false));
    }
    cx.node.events.normal(&about, "Started", "Container started");
    cx.node.measured.container_started(match sort {
        Sort::Init | Sort::Sidecar => "init_container",
        Sort::Ephemeral => "ephemeral_container",
        Sort::Main => "container",
    });
    if let Some(handler) = post_start {
        if let Err(why) = hooks::run(cx, &id, container, handler).await {
            cx.node.events.warning(&about, "FailedPostStartHook", "PostStartHook failed");
            kill::one(cx, &id, &container.name, "FailedPostStartHook", crate::sync::KillReason::Startup).await;
            return Err(pull::Failure { reason: Reason { reason: "PostStartHookError".to_owned(), message: why }, retry_at: None });
        }
    }
    Ok(())
}

async fn configure(cx: &Cx, container: &Container, sort: Sort, attempt: u32, image: &ImageInfo) -> Result<ContainerConfig, String> {
    let facts = Facts { host_ip: cx.node.node_ip(), pod_ips: cx.pod_ips(), allocatable: cx.node.allocatable.clone() };
    let found = fetch(cx, container).await?;
    cx.node.services.synced().await;
    let mut services = cx.node.services.cache().list_in(pod::namespace(&cx.pod));
    if pod::namespace(&cx.pod) != "default" {
        services.extend(cx.node.services.cache().get("default", "kubernetes"));
    }
    let env = env::make(&env::Inputs { pod: &cx.pod, container, facts: &facts, found: &found, services: &services })?;
    let mounts = cx.node.volumes.mounts(cx, container, &env).await?;
    Ok(ContainerConfig { pid_of: target(cx, container)?, ..container::configure(cx, container, sort, attempt, image, env, mounts)? })
}

/// The running container whose processes this one is to see. Mirrors upstream's `getTargetID`.
fn target(cx: &Cx, container: &Container) -> Result<Option<String>, String> {
    let Some(name) = pod::target_of(&cx.pod, &container.name) else { return Ok(None) };
    match cx.shared.lock().runtime.latest(name) {
        Some(found) => Ok(Some(found.id.clone())),
        None => Err(format!("unable to find target container {name}")),
    }
}

async fn fetch(cx: &Cx, container: &Container) -> Result<Found, String> {
    let namespace = pod::namespace(&cx.pod);
    let mut found = Found::default();
    for (kind, name) in env::needs(container) {
        match kind {
            Kind::ConfigMap => {
                if let Some(map) = cx.node.objects.config_map(namespace, &name).await? {
                    found.config_maps.insert(name, map);
                }
            }
            Kind::Secret => {
                if let Some(secret) = cx.node.objects.secret(namespace, &name).await? {
                    found.secrets.insert(name, secret);
                }
            }
        }
    }
    Ok(found)
}

impl Cx {
    /// The living sandbox, known or just made in this round.
    async fn newest_sandbox(&self) -> Option<String> {
        if let Some(id) = self.shared.lock().runtime.sandbox().map(|s| s.id.clone()) {
            return Some(id);
        }
        let id = self.shared.lock().sandbox_ids.last().cloned()?;
        self.node.runtime.pod_sandbox_status(&id).await.ok().filter(|s| s.state == sandbox::cri::SandboxState::Ready).map(|s| s.id)
    }
}
