//! Carries a preemption out: victims are told why and deleted, lesser pods lose their claim to the node.
//!
//! Mirrors kube-scheduler's preemption executor: the condition `DisruptionTarget`, a delete with the pod's own grace, the event `Preempted`.

use std::sync::Arc;

use api::k8s::api::core::v1::Pod;
use api::world::rfc3339;
use api::{Clock, Status};
use client::{Client, DeleteOptions, EventType, PatchKind, Preconditions, Recorder, reference};
use futures_util::future::join_all;
use place::{DEFAULT_SCHEDULER, PREEMPTED};
use serde_json::json;

const TARGET: &str = "DisruptionTarget";

pub struct Eviction {
    pub client: Client,
    pub recorder: Recorder,
    pub clock: Arc<dyn Clock>,
    pub preemptor_uid: String,
    pub node: Arc<str>,
    /// Those that are not on their way out already.
    pub victims: Vec<Arc<Pod>>,
    /// Pods of lower priority that were nominated for the node.
    pub displaced: Vec<Arc<Pod>>,
}

fn parts(pod: &Pod) -> (&str, &str) {
    (pod.metadata.namespace.as_deref().unwrap_or_default(), pod.metadata.name.as_deref().unwrap_or_default())
}

/// Somebody was faster: nothing is left to do.
fn unless_gone(outcome: Result<(), Status>) -> Result<(), Status> {
    outcome.or_else(|status| if status.is_not_found() { Ok(()) } else { Err(status) })
}

impl Eviction {
    /// Whether every victim knows.
    pub async fn carry_out(&self) -> bool {
        for status in join_all(self.displaced.iter().map(|pod| self.withdraw(pod))).await.into_iter().filter_map(Result::err) {
            // They find out when they do not fit.
            tracing::warn!(%status, node = %self.node, "cannot clear nominatedNodeName");
        }
        let mut all = true;
        for (victim, outcome) in self.victims.iter().zip(join_all(self.victims.iter().map(|victim| self.evict(victim))).await) {
            if let Err(status) = outcome {
                all = false;
                tracing::warn!(%status, pod = %parts(victim).1, "cannot preempt");
            }
        }
        all
    }

    async fn withdraw(&self, pod: &Pod) -> Result<(), Status> {
        let (namespace, name) = parts(pod);
        let patch = json!({"status": {"nominatedNodeName": null}});
        unless_gone(self.client.of::<Pod>(Some(namespace)).patch_status(name, PatchKind::Strategic, patch).await.map(drop))
    }

    async fn evict(&self, victim: &Arc<Pod>) -> Result<(), Status> {
        let (namespace, name) = parts(victim);
        let pods = self.client.of::<Pod>(Some(namespace));
        let message = format!("{DEFAULT_SCHEDULER}: preempting to accommodate a higher priority pod");
        let known = victim.status.iter().flat_map(|status| status.conditions.iter().flatten()).find(|condition| condition.type_ == TARGET && condition.status == "True");
        if known.is_none_or(|known| known.reason.as_deref() != Some(PREEMPTED) || known.message.as_deref() != Some(&message)) {
            let mut condition = json!({"type": TARGET, "status": "True", "reason": PREEMPTED, "message": message, "observedGeneration": victim.metadata.generation});
            if known.is_none() {
                condition["lastTransitionTime"] = json!(rfc3339(self.clock.now()));
            }
            match pods.patch_status(name, PatchKind::Strategic, json!({"status": {"conditions": [condition]}})).await {
                Ok(_) => {}
                Err(status) if status.is_not_found() => return Ok(()),
                Err(status) => return Err(status),
            }
        }
        let preconditions = Preconditions { uid: victim.metadata.uid.clone(), ..Preconditions::default() };
        match pods.delete(name, &DeleteOptions { preconditions, ..DeleteOptions::default() }).await {
            Ok(()) => {}
            Err(status) if status.is_not_found() => return Ok(()),
            Err(status) => return Err(status),
        }
        self.recorder.record(&reference(&**victim), EventType::Normal, "Preempted", format!("Preempted by pod {} on node {}", self.preemptor_uid, self.node));
        Ok(())
    }
}
