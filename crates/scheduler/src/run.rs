//! The scheduling loop.
//!
//! One task owns the snapshot and decides; bindings are written concurrently, up to a limit. A pod counts as placed from the moment of the decision
//! (assumed) until its binding is seen or fails.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use api::k8s::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use api::k8s::api::policy::v1::PodDisruptionBudget;
use api::k8s::api::storage::v1::StorageClass;
use api::world::rfc3339;
use api::{Clock, Object, Status, Typed};
use client::{BoxFuture, Change, Client, EventType, Informer, ObjectKey, PatchKind, Recorder, reference};
use futures_util::FutureExt;
use place::{Budget, DEFAULT_SCHEDULER, Placement, Plugin, PodInfo, Preemption, Refusal, Snapshot, Storage, place, preempt};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::evict::Eviction;
use crate::measured::{Measured, Outcome, Point};
use crate::note;
use crate::waiting::{CAME, LEFT, NAMESPACE, STORAGE, Waiting, by_node};

/// Bindings under way at once.
const MAX_BINDINGS: usize = 64;
/// Events longer than this are cut (upstream's `NoteLengthLimit`).
const MAX_EVENT_BYTES: usize = 1024;
/// Changes that are taken in together before the next decision.
const MAX_CHANGES_A_TURN: usize = 4096;

/// What pods are tried again because of, as upstream calls it in metrics.
mod event {
    pub const POD_ADDED: &str = "UnschedulablePodAdd";
    pub const POD_UPDATED: &str = "UnschedulablePodUpdate";
    pub const PLACED_ADDED: &str = "AssignedPodAdd";
    pub const PLACED_UPDATED: &str = "AssignedPodUpdate";
    pub const PLACED_DELETED: &str = "AssignedPodDelete";
    pub const FAILED: &str = "ScheduleAttemptFailure";
    pub const NODE_ADDED: &str = "NodeAdd";
    pub const NODE_UPDATED: &str = "NodeUpdate";
    pub const NODE_DELETED: &str = "NodeDelete";
    pub const NAMESPACE: &str = "NamespaceUpdate";
    pub const CLAIM: &str = "PersistentVolumeClaimUpdate";
    pub const VOLUME: &str = "PersistentVolumeUpdate";
    pub const CLASS: &str = "StorageClassUpdate";
    pub const FORCED: &str = "ForceActivate";
}

enum Input {
    Pod(Change),
    Node(Change),
    Namespace(Change),
    Claim(Change),
    Volume(Change),
    Class(Change),
}

/// What came of a binding.
struct Bound {
    pod: Arc<PodInfo>,
    typed: Arc<Pod>,
    node: Arc<str>,
    outcome: Result<(), api::Status>,
    /// The attempt, and the writing of the binding.
    begun: Instant,
    took: Duration,
    /// How often it was tried, and since when.
    tried: Option<(u32, Instant)>,
}

/// What came of a preemption: whether all victims know.
struct Evicted {
    preemptor_uid: String,
    all: bool,
}

/// What was begun and is not done.
#[derive(Default)]
struct Tasks {
    bindings: JoinSet<Bound>,
    evictions: JoinSet<Evicted>,
}

struct Scheduler {
    client: Client,
    recorder: Recorder,
    clock: Arc<dyn Clock>,
    pods: Informer<Pod>,
    budgets: Informer<PodDisruptionBudget>,
    snapshot: Snapshot,
    waiting: Waiting,
    measured: Arc<Measured>,
}

/// Runs until `shutdown` becomes true.
pub fn run(client: Client, clock: Arc<dyn Clock>, measured: Arc<Measured>, shutdown: watch::Receiver<bool>) -> BoxFuture<'static, ()> {
    Box::pin(until(client, clock, measured, shutdown))
}

async fn until(client: Client, clock: Arc<dyn Clock>, measured: Arc<Measured>, mut shutdown: watch::Receiver<bool>) {
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
    let budgets = Informer::<PodDisruptionBudget>::of(&client, None).start();
    let claims = Informer::<PersistentVolumeClaim>::of(&client, None).on_change(feed(Input::Claim)).start();
    let volumes = Informer::<PersistentVolume>::of(&client, None).on_change(feed(Input::Volume)).start();
    let classes = Informer::<StorageClass>::of(&client, None).on_change(feed(Input::Class)).start();
    tokio::join!(namespaces.synced(), nodes.synced(), pods.synced(), budgets.synced(), claims.synced(), volumes.synced(), classes.synced());
    let recorder = Recorder::start(&client, DEFAULT_SCHEDULER, "", clock.clone());
    let mut scheduler = Scheduler { client, recorder, clock, pods, budgets, snapshot: Snapshot::default(), waiting: Waiting::default(), measured };
    let mut tasks = Tasks::default();
    loop {
        let mut taken = 0;
        while taken < MAX_CHANGES_A_TURN
            && let Ok(input) = inputs.try_recv()
        {
            scheduler.take(input);
            taken += 1;
        }
        while let Some(done) = tasks.bindings.try_join_next() {
            scheduler.bound(done);
        }
        while let Some(done) = tasks.evictions.try_join_next() {
            scheduler.evicted(done);
        }
        scheduler.waiting.tell(&scheduler.measured);
        scheduler.measured.knows(scheduler.snapshot.nodes().len(), scheduler.snapshot.pods(), tasks.bindings.len());
        if tasks.bindings.len() < MAX_BINDINGS
            && let Some(pod) = scheduler.waiting.next()
        {
            scheduler.schedule(pod, &mut tasks);
            // Lets a simulation's single thread and other tasks in between long runs of pods.
            tokio::task::consume_budget().await;
            continue;
        }
        tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => return,
            Some(done) = tasks.bindings.join_next(), if !tasks.bindings.is_empty() => scheduler.bound(done),
            Some(done) = tasks.evictions.join_next(), if !tasks.evictions.is_empty() => scheduler.evicted(done),
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

/// At most `MAX_EVENT_BYTES`, with a mark where something is missing.
fn cut(mut message: String) -> String {
    const MARK: &str = " ...";
    if message.len() > MAX_EVENT_BYTES {
        message.truncate(message.floor_char_boundary(MAX_EVENT_BYTES - MARK.len()));
        message.push_str(MARK);
    }
    message
}

fn nominated(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.nominated_node_name.as_deref()).unwrap_or_default()
}

impl Scheduler {
    fn take(&mut self, input: Input) {
        match input {
            Input::Namespace(change) => {
                match &change.new {
                    Some(object) => self.snapshot.namespaces.insert(object.meta().name.clone(), object.meta().labels.clone()),
                    None => self.snapshot.namespaces.remove(&*change.key.name),
                };
                self.wake(NAMESPACE, event::NAMESPACE);
            }
            Input::Node(change) => match change.new.as_ref().map(|object| object.typed::<Node>()) {
                Some(Ok(node)) => match self.snapshot.set_node(&node) {
                    change if change.added => {
                        let woken = self.waiting.wake_all();
                        self.measured.queued("active", event::NODE_ADDED, woken);
                    }
                    change => self.wake(&by_node(change), event::NODE_UPDATED),
                },
                Some(Err(error)) => tracing::warn!(%error, "a node does not decode"),
                None => {
                    self.snapshot.remove_node(&change.key.name);
                    // A domain less can change what is even.
                    self.wake(CAME, event::NODE_DELETED);
                }
            },
            Input::Pod(change) => self.take_pod(&change),
            Input::Claim(change) => self.take_storage(&change, event::CLAIM, Storage::set_claim, |storage, key| storage.remove_claim(&key.namespace, &key.name)),
            Input::Volume(change) => self.take_storage(&change, event::VOLUME, Storage::set_volume, |storage, key| storage.remove_volume(&key.name)),
            Input::Class(change) => self.take_storage(&change, event::CLASS, Storage::set_class, |storage, key| storage.remove_class(&key.name)),
        }
    }

    fn take_storage<T: Typed>(&mut self, change: &Change, event: &str, set: fn(&mut Storage, &T), remove: fn(&mut Storage, &ObjectKey)) {
        match change.new.as_ref().map(|object| object.typed::<T>()) {
            Some(Ok(typed)) => set(&mut self.snapshot.storage, &typed),
            Some(Err(error)) => return tracing::warn!(%error, "an object of the storage does not decode"),
            None => remove(&mut self.snapshot.storage, &change.key),
        }
        self.wake(STORAGE, event);
    }

    /// Those that one of `plugins` refused are tried again.
    fn wake<'a>(&mut self, plugins: impl IntoIterator<Item = &'a Plugin>, event: &str) {
        let woken = self.waiting.wake(plugins);
        self.measured.queued("active", event, woken);
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
        if finished(&pod) {
            return self.forget(object);
        }
        let old = change.old.as_ref().and_then(|old| old.typed::<Pod>().ok()).filter(|old| old.metadata.uid == pod.metadata.uid);
        let info = Arc::new(PodInfo::of(&pod));
        if !info.node_name.is_empty() {
            self.waiting.remove(&info.uid);
            let known = self.snapshot.holds_pod(&info.uid);
            let leaves = info.deleting && old.as_ref().is_some_and(|old| old.metadata.deletion_timestamp.is_none());
            // Its binding has come to sight, or it was resized.
            let was_there = old.as_ref().is_some_and(|old| old.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()));
            let resized = known && was_there && old.as_ref().is_some_and(|old| old.spec != pod.spec);
            let renamed = old.as_ref().is_some_and(|old| old.metadata.labels != pod.metadata.labels);
            self.snapshot.set_pod(info);
            if leaves || resized {
                self.wake(LEFT, if leaves { event::PLACED_DELETED } else { event::PLACED_UPDATED });
            } else if !known || renamed {
                self.wake(CAME, if known { event::PLACED_UPDATED } else { event::PLACED_ADDED });
            }
            return;
        }
        if self.snapshot.holds_pod(&info.uid) {
            // Assumed: its binding is on the way.
            return;
        }
        if !is_ours(&pod) || gated(&pod) || info.deleting {
            self.withdraw(&info.uid);
            if !is_ours(&pod) || info.deleting {
                self.waiting.remove(&info.uid);
            } else if self.waiting.gate(&info.uid) {
                self.measured.queued("unschedulable", event::POD_ADDED, 1);
            }
            return;
        }
        match (old.as_deref().map_or("", nominated), nominated(&pod)) {
            // What was decided here may not have been written yet.
            ("", "") => {}
            (_, "") => self.withdraw(&info.uid),
            (_, node) => self.snapshot.nominate(info.clone(), node.into()),
        }
        // Our own note in its status is no reason to try again.
        let only_status = old.is_some_and(|old| old.spec == pod.spec && old.metadata.labels == pod.metadata.labels);
        if !(only_status && self.waiting.knows(&info.uid)) {
            let new = self.waiting.add(info);
            self.measured.queued("active", if new { event::POD_ADDED } else { event::POD_UPDATED }, 1);
        }
    }

    fn withdraw(&mut self, uid: &str) {
        if self.snapshot.withdraw(uid) {
            self.wake(LEFT, event::PLACED_DELETED);
        }
    }

    fn forget(&mut self, object: &Object) {
        let uid = &object.meta().uid;
        self.waiting.remove(uid);
        self.withdraw(uid);
        if self.snapshot.holds_pod(uid) {
            self.snapshot.remove_pod(uid);
            self.wake(LEFT, event::PLACED_DELETED);
        }
    }

    /// What the cache holds of a pod, while it is that pod.
    fn typed(&self, pod: &PodInfo) -> Option<Arc<Pod>> {
        self.pods.cache().get(&pod.namespace, &pod.name).filter(|typed| typed.metadata.uid.as_deref() == Some(&pod.uid))
    }

    fn schedule(&mut self, pod: Arc<PodInfo>, tasks: &mut Tasks) {
        let Some(typed) = self.typed(&pod) else {
            // Deleted meanwhile; its event is on the way.
            return self.waiting.remove(&pod.uid);
        };
        let begun = Instant::now();
        let placement = place(&mut self.snapshot, &pod);
        self.measured.decided(begun.elapsed());
        match placement {
            Placement::Node(node) => {
                self.snapshot.put(pod.clone(), node.clone());
                let tried = self.waiting.done(&pod.uid);
                self.wake(CAME, event::PLACED_ADDED);
                let client = self.client.clone();
                tasks.bindings.spawn(async move {
                    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid}, "target": {"apiVersion": "v1", "kind": "Node", "name": &*node}});
                    let writing = Instant::now();
                    // One that panics has failed: else the pod would be held to be on its way for ever.
                    let outcome = AssertUnwindSafe(client.of::<Pod>(Some(&pod.namespace)).create_subresource(&pod.name, "binding", &binding)).catch_unwind().await;
                    let outcome = outcome.unwrap_or_else(|_| Err(Status::internal("the binding panicked"))).map(drop);
                    Bound { pod, typed, node, outcome, begun, took: writing.elapsed(), tried }
                });
            }
            Placement::Nowhere(refusal) => {
                self.make_room(pod, &typed, &refusal, tasks);
                self.measured.attempted(Outcome::Unschedulable, begun.elapsed());
            }
        }
    }

    /// No node would do as it is: evicts others if that helps, says so, and lets the pod wait.
    fn make_room(&mut self, pod: Arc<PodInfo>, typed: &Arc<Pod>, refusal: &Refusal, tasks: &mut Tasks) {
        // Budgets are few, and needed only here.
        let budgets: Vec<Budget> = if refusal.helpful.is_empty() { Vec::new() } else { self.budgets.cache().list().iter().map(|budget| Budget::of(budget)).collect() };
        let mut held = false;
        let begun = Instant::now();
        let preemption = preempt(&self.snapshot, &pod, refusal, &budgets);
        self.measured.ran(Point::PostFilter, if matches!(preemption, Preemption::Victims { .. }) { "Success" } else { "Unschedulable" }, begun.elapsed());
        self.measured.preempted(if let Preemption::Victims { victims, .. } = &preemption { Some(victims.len()) } else { None });
        let (message, nomination) = match preemption {
            Preemption::Victims { node, victims } => {
                let displaced: Vec<Arc<PodInfo>> = self.snapshot.nominated(&node).iter().filter(|other| other.priority < pod.priority).cloned().collect();
                displaced.iter().for_each(|other| self.withdraw(&other.uid));
                self.snapshot.nominate(pod.clone(), node.clone());
                let eviction = Eviction {
                    client: self.client.clone(),
                    recorder: self.recorder.clone(),
                    clock: self.clock.clone(),
                    preemptor_uid: pod.uid.clone(),
                    node: node.clone(),
                    victims: victims.iter().filter(|victim| !victim.deleting).filter_map(|victim| self.typed(victim)).collect(),
                    displaced: displaced.iter().filter_map(|other| self.typed(other)).collect(),
                };
                if !(eviction.victims.is_empty() && eviction.displaced.is_empty()) {
                    held = true;
                    // One that panics has not evicted all.
                    tasks.evictions.spawn(async move { Evicted { all: AssertUnwindSafe(eviction.carry_out()).catch_unwind().await.unwrap_or(false), preemptor_uid: eviction.preemptor_uid } });
                }
                (refusal.message(None), Some(node))
            }
            Preemption::Hopeless(why) => {
                self.withdraw(&pod.uid);
                (refusal.message(Some(&why)), None)
            }
            Preemption::Ineligible(why) => (refusal.message(Some(&why)), self.snapshot.nomination(&pod.uid).cloned()),
        };
        tracing::debug!(pod = %format_args!("{}/{}", pod.namespace, pod.name), message, "no node fits");
        self.recorder.record(&reference(&**typed), EventType::Warning, "FailedScheduling", cut(message.clone()));
        self.note(typed, &message, nomination.as_deref());
        self.waiting.park(pod, refusal.plugins(), held);
        self.measured.queued("unschedulable", event::FAILED, 1);
    }

    fn evicted(&mut self, done: Result<Evicted, tokio::task::JoinError>) {
        match done {
            Ok(Evicted { preemptor_uid, all }) => {
                let tried = self.waiting.release(&preemptor_uid, !all);
                self.measured.queued("active", event::FORCED, usize::from(tried));
            }
            Err(error) => tracing::error!(%error, "an eviction panicked"),
        }
    }

    fn bound(&mut self, done: Result<Bound, tokio::task::JoinError>) {
        let Bound { pod, typed, node, outcome, begun, took, tried } = match done {
            Ok(bound) => bound,
            Err(error) => return tracing::error!(%error, "a binding panicked"),
        };
        self.measured.ran(Point::Bind, if outcome.is_ok() { "Success" } else { "Error" }, took);
        self.measured.attempted(if outcome.is_ok() { Outcome::Scheduled } else { Outcome::Error }, begun.elapsed());
        match outcome {
            Ok(()) => {
                if let Some((attempts, first)) = tried {
                    self.measured.scheduled(attempts, first.elapsed());
                }
                tracing::debug!(pod = %format_args!("{}/{}", pod.namespace, pod.name), %node, "bound");
                self.recorder.record(&reference(&*typed), EventType::Normal, "Scheduled", format!("Successfully assigned {}/{} to {node}", pod.namespace, pod.name));
            }
            Err(status) => {
                self.snapshot.remove_pod(&pod.uid);
                self.wake(LEFT, event::PLACED_DELETED);
                if status.is_not_found() {
                    return;
                }
                self.recorder.record(&reference(&*typed), EventType::Warning, "FailedScheduling", cut(format!("binding rejected: {status}")));
                // A conflict means that it is bound or going: its event tells. Everything else is tried again.
                if !status.is_conflict() && self.typed(&pod).is_some() {
                    self.waiting.add(pod);
                    self.measured.queued("active", event::FAILED, 1);
                }
            }
        }
    }

    /// The condition that says why the pod waits, and where it is to go.
    fn note(&self, pod: &Arc<Pod>, message: &str, nomination: Option<&str>) {
        let Some(patch) = note::patch(pod, message, nomination, &rfc3339(self.clock.now())) else { return };
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

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn long_events_are_cut() {
        assert_eq!(cut("short".to_owned()), "short");
        let long = cut("ä".repeat(600));
        assert!(long.len() <= super::MAX_EVENT_BYTES && long.ends_with("ä ..."));
    }
}
