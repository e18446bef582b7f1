//! The scheduling loop.
//!
//! One task owns the snapshot and decides; bindings are written concurrently, up to a limit. A pod counts as placed from the moment of the decision
//! (assumed) until its binding is seen or fails.

use std::sync::Arc;

use api::k8s::api::core::v1::{Namespace, Node, Pod};
use api::world::rfc3339;
use api::{Clock, Object};
use client::{BoxFuture, Change, Client, EventType, Informer, PatchKind, Recorder, reference};
use place::{DEFAULT_SCHEDULER, Placement, PodInfo, Snapshot, place};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::waiting::Waiting;

/// Bindings under way at once.
const MAX_BINDINGS: usize = 64;
/// Changes that are taken in together before the next decision.
const MAX_CHANGES_A_TURN: usize = 4096;

enum Input {
    Pod(Change),
    Node(Change),
    Namespace(Change),
}

/// What came of a binding.
struct Bound {
    pod: Arc<PodInfo>,
    typed: Arc<Pod>,
    node: Arc<str>,
    outcome: Result<(), api::Status>,
}

struct Scheduler {
    client: Client,
    recorder: Recorder,
    clock: Arc<dyn Clock>,
    pods: Informer<Pod>,
    snapshot: Snapshot,
    waiting: Waiting,
}

/// Runs until `shutdown` becomes true.
pub fn run(client: Client, clock: Arc<dyn Clock>, shutdown: watch::Receiver<bool>) -> BoxFuture<'static, ()> {
    Box::pin(until(client, clock, shutdown))
}

async fn until(client: Client, clock: Arc<dyn Clock>, mut shutdown: watch::Receiver<bool>) {
    let client = client.named(DEFAULT_SCHEDULER);
    let (sender, mut inputs) = mpsc::unbounded_channel::<Input>();
    let feed = |wrap: fn(Change) -> Input| {
        let sender = sender.clone();
        // The receiver is gone only at the end.
        move |change: &Change| drop(sender.send(wrap(change.clone())))
    };
    let namespaces = Informer::<Namespace>::of(&client, None).on_change(feed(Input::Namespace)).start();
    let nodes = Informer::<Node>::of(&client, None).on_change(feed(Input::Node)).start();
    let pods = Informer::<Pod>::of(&client, None).on_change(feed(Input::Pod)).start();
    tokio::join!(namespaces.synced(), nodes.synced(), pods.synced());
    let recorder = Recorder::start(&client, DEFAULT_SCHEDULER, "", clock.clone());
    let mut scheduler = Scheduler { client, recorder, clock, pods, snapshot: Snapshot::default(), waiting: Waiting::default() };
    let mut bindings: JoinSet<Bound> = JoinSet::new();
    loop {
        let mut taken = 0;
        while taken < MAX_CHANGES_A_TURN
            && let Ok(input) = inputs.try_recv()
        {
            scheduler.take(input);
            taken += 1;
        }
        while let Some(done) = bindings.try_join_next() {
            scheduler.bound(done);
        }
        if bindings.len() < MAX_BINDINGS
            && let Some(pod) = scheduler.waiting.next()
        {
            scheduler.schedule(pod, &mut bindings);
            // Lets a simulation's single thread and other tasks in between long runs of pods.
            tokio::task::consume_budget().await;
            continue;
        }
        tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => return,
            Some(done) = bindings.join_next(), if !bindings.is_empty() => scheduler.bound(done),
            input = inputs.recv() => match input {
                Some(input) => scheduler.take(input),
                None => return,
            },
        }
    }
}

fn finished(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).is_some_and(|phase| phase == "Succeeded" || phase == "Failed")
}

fn is_ours(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.scheduler_name.as_deref().unwrap_or(DEFAULT_SCHEDULER) == DEFAULT_SCHEDULER)
}

fn gated(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()))
}

impl Scheduler {
    fn take(&mut self, input: Input) {
        match input {
            Input::Namespace(change) => match &change.new {
                Some(object) => {
                    self.snapshot.namespaces.insert(object.meta().name.clone(), object.meta().labels.clone());
                }
                None => {
                    self.snapshot.namespaces.remove(&*change.key.name);
                }
            },
            Input::Node(change) => {
                match change.new.as_ref().map(|object| object.typed::<Node>()) {
                    Some(Ok(node)) => self.snapshot.set_node(&node),
                    Some(Err(error)) => tracing::warn!(%error, "a node does not decode"),
                    None => self.snapshot.remove_node(&change.key.name),
                }
                self.waiting.wake();
            }
            Input::Pod(change) => self.take_pod(&change),
        }
    }

    fn take_pod(&mut self, change: &Change) {
        // A pod deleted and made again under its name has another uid: the old one's place is free.
        if let Some(old) = &change.old
            && change.new.as_ref().is_none_or(|new| new.meta().uid != old.meta().uid)
        {
            self.forget(old);
        }
        let Some(object) = &change.new else { return };
        let pod = match object.typed::<Pod>() {
            Ok(pod) => pod,
            Err(error) => return tracing::warn!(%error, "a pod does not decode"),
        };
        let info = Arc::new(PodInfo::of(&pod));
        if finished(&pod) {
            return self.forget(object);
        }
        if !info.node_name.is_empty() {
            self.waiting.remove(&info.uid);
            self.snapshot.set_pod(info);
            return;
        }
        if self.snapshot.holds_pod(&info.uid) {
            // Assumed: its binding is on the way.
            return;
        }
        if !is_ours(&pod) || gated(&pod) || pod.metadata.deletion_timestamp.is_some() {
            return self.waiting.remove(&info.uid);
        }
        // Our own note in its status is no reason to try again.
        let only_status = change.old.as_ref().and_then(|old| old.typed::<Pod>().ok()).is_some_and(|old| old.spec == pod.spec && old.metadata.labels == pod.metadata.labels);
        if !(only_status && self.waiting.knows(&info.uid)) {
            self.waiting.add(info);
        }
    }

    fn forget(&mut self, object: &Object) {
        let uid = &object.meta().uid;
        self.waiting.remove(uid);
        if self.snapshot.holds_pod(uid) {
            self.snapshot.remove_pod(uid);
            self.waiting.wake();
        }
    }

    fn schedule(&mut self, pod: Arc<PodInfo>, bindings: &mut JoinSet<Bound>) {
        let Some(typed) = self.pods.cache().get(&pod.namespace, &pod.name) else {
            // Deleted meanwhile; its event is on the way.
            return self.waiting.remove(&pod.uid);
        };
        match place(&mut self.snapshot, &pod) {
            Placement::Node(node) => {
                let assumed = Arc::new(PodInfo { node_name: node.to_string(), ..(*pod).clone() });
                self.snapshot.set_pod(assumed);
                self.waiting.remove(&pod.uid);
                let client = self.client.clone();
                bindings.spawn(async move {
                    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid}, "target": {"apiVersion": "v1", "kind": "Node", "name": &*node}});
                    let outcome = client.of::<Pod>(Some(&pod.namespace)).create_subresource(&pod.name, "binding", &binding).await.map(drop);
                    Bound { pod, typed, node, outcome }
                });
            }
            Placement::Nowhere(refusal) => {
                let message = refusal.message();
                tracing::debug!(pod = %format_args!("{}/{}", pod.namespace, pod.name), message, "no node fits");
                self.recorder.record(&reference(&*typed), EventType::Warning, "FailedScheduling", message.clone());
                self.note(&typed, message);
                self.waiting.park(pod);
            }
        }
    }

    fn bound(&mut self, done: Result<Bound, tokio::task::JoinError>) {
        let Ok(Bound { pod, typed, node, outcome }) = done else {
            return tracing::error!("a binding panicked");
        };
        match outcome {
            Ok(()) => {
                tracing::debug!(pod = %format_args!("{}/{}", pod.namespace, pod.name), %node, "bound");
                self.recorder.record(&reference(&*typed), EventType::Normal, "Scheduled", format!("Successfully assigned {}/{} to {node}", pod.namespace, pod.name));
            }
            Err(status) => {
                self.snapshot.remove_pod(&pod.uid);
                if status.is_not_found() {
                    return;
                }
                self.recorder.record(&reference(&*typed), EventType::Warning, "FailedScheduling", format!("binding rejected: {status}"));
                // A conflict means that it is bound or going: its event tells. Everything else is tried again.
                if !status.is_conflict() && self.pods.cache().contains(&pod.namespace, &pod.name) {
                    self.waiting.add(pod);
                }
            }
        }
    }

    /// The condition that says why the pod waits.
    fn note(&self, pod: &Arc<Pod>, message: String) {
        let known = pod.status.iter().flat_map(|status| status.conditions.iter().flatten()).any(|condition| condition.type_ == "PodScheduled" && condition.message.as_deref() == Some(&message));
        if known {
            return;
        }
        let now = rfc3339(self.clock.now());
        let generation = pod.metadata.generation;
        let patch = json!({"status": {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message, "lastProbeTime": null, "lastTransitionTime": now, "observedGeneration": generation}]}});
        let (client, pod) = (self.client.clone(), pod.clone());
        tokio::spawn(async move {
            let (namespace, name) = (pod.metadata.namespace.clone().unwrap_or_default(), pod.metadata.name.clone().unwrap_or_default());
            if let Err(status) = client.of::<Pod>(Some(&namespace)).patch_status(&name, PatchKind::Strategic, patch).await
                && !status.is_not_found()
            {
                tracing::warn!(%status, pod = %name, "cannot note why a pod waits");
            }
        });
    }
}
