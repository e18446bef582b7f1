//! One task per pod: looks, decides, acts, and writes the status, woken by events only.
//!
//! Wakes come from the informer (the pod changed), the runtime (a container changed), probes, work that ended, and a timer when the plan asked for one
//! (a back-off or a deadline). Mirrors upstream's pod workers: syncing → terminating → terminated.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use api::k8s::api::core::v1::{Pod, PodStatus};
use api::Status;
use basics::tasks::for_ever;
use client::{DeleteOptions, PatchKind, Preconditions};
use jiff::{SignedDuration, Timestamp};
use sandbox::cri::ContainerState;
use tokio::sync::watch;

use crate::cx::{Cx, Shared, Verdict};
use crate::node::Node;
use crate::probes::ProbeSet;
use crate::status::Reason;
use crate::static_pods::is_of_file;
use crate::{admission, kill, launch, mirror_pods, observe, patch, pod, resize, status, sync};

/// The pod as the API has it; `gone` when it was deleted there.
#[derive(Clone)]
pub struct Desired {
    pub pod: Arc<Pod>,
    pub gone: bool,
}

/// What the node holds of a running worker.
pub struct Handle {
    pub desired: watch::Sender<Desired>,
    pub shared: Arc<Shared>,
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;
type Write = Pin<Box<dyn Future<Output = Result<Option<Arc<Pod>>, Status>> + Send>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Nothing,
    Syncing,
    /// With this many seconds of grace.
    Terminating(i64),
    CleaningUp,
}

/// Until a status that could not be written is tried again.
const WRITE_RETRY: Duration = Duration::from_secs(1);

pub struct Worker {
    node: Arc<Node>,
    shared: Arc<Shared>,
    desired: watch::Receiver<Desired>,
    probes: ProbeSet,
    doing: Doing,
    work: Option<Work>,
    write: Option<Write>,
    /// The status the API has, as far as known.
    written: PodStatus,
    /// The resourceVersion that status is from; what the informer says of older ones is no news.
    written_version: u64,
    write_again_at: Option<tokio::time::Instant>,
    /// What was sent last. Should the API keep it in another form, it is not sent again and again.
    sent: Option<serde_json::Value>,
    deleting: bool,
    wake_at: Option<Timestamp>,
    generation: Option<i64>,
    /// Of a static pod: the mirror that `written` is of.
    mirror_uid: String,
    /// What was last told of: ended, and known to be so.
    progress: (bool, bool),
    /// Since when it is known here, while it has not been seen to run.
    starting: Option<std::time::Instant>,
    /// When what is under way was begun, and whether that was to make it.
    begun: (std::time::Instant, &'static str),
}

async fn optional<T>(future: &mut Option<Pin<Box<dyn Future<Output = T> + Send>>>) -> T {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

async fn until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => pending().await,
    }
}

impl Worker {
    pub fn spawn(node: &Arc<Node>, pod: Arc<Pod>, sandbox_ids: Vec<String>) -> Handle {
        let shared = Arc::new(Shared::default());
        {
            let mut memory = shared.lock();
            memory.sandbox_ids = sandbox_ids;
            memory.status = pod.status.clone().unwrap_or_default();
        }
        let (desired, receiver) = watch::channel(Desired { pod, gone: false });
        let (node, known) = (node.clone(), shared.clone());
        // A panic costs the pod a moment, not its care for ever.
        tokio::spawn(for_ever("pod worker", move || Self::new(&node, &known, &receiver).run()));
        Handle { desired, shared }
    }

    fn new(node: &Arc<Node>, shared: &Arc<Shared>, desired: &watch::Receiver<Desired>) -> Self {
        let pod = desired.borrow().pod.clone();
        Self {
            node: node.clone(),
            shared: shared.clone(),
            desired: desired.clone(),
            probes: ProbeSet::default(),
            doing: Doing::Nothing,
            work: None,
            write: None,
            written: pod.status.clone().unwrap_or_default(),
            written_version: version(&pod),
            write_again_at: None,
            sent: None,
            deleting: false,
            wake_at: None,
            generation: pod.metadata.generation,
            mirror_uid: String::new(),
            progress: (false, false),
            starting: pod.status.as_ref().is_none_or(|status| matches!(status.phase.as_deref(), None | Some("Pending"))).then(std::time::Instant::now),
            begun: (std::time::Instant::now(), "sync"),
        }
    }

    fn cx(&self) -> Cx {
        Cx { node: self.node.clone(), shared: self.shared.clone(), pod: self.desired.borrow().pod.clone() }
    }

    async fn run(mut self) {
        let mut cx = self.cx();
        observe::adopt_probe_results(&cx).await;
        self.admit(&cx);
        loop {
            let begun = std::time::Instant::now();
            observe::refresh(&cx).await;
            self.node.measured.relisted(begun.elapsed());
            self.probes.update(&cx);
            self.decide(&cx);
            self.write_status(&cx);
            self.tell_progress();
            if self.doing == Doing::Nothing && self.desired.borrow().gone && self.shared.lock().ended {
                break;
            }
            let wake_at = self.wake_at.map(|at| tokio::time::Instant::now() + duration_until(at, self.node.now()));
            tokio::select! {
                changed = self.desired.changed() => {
                    if changed.is_err() {
                        return; // The node is shutting down; the pod runs on.
                    }
                    let before = std::mem::replace(&mut cx, self.cx());
                    self.pod_changed(&cx, &before.pod);
                }
                () = self.shared.wake.notified() => {}
                () = optional(&mut self.work) => {
                    self.work = None;
                    self.work_ended(&cx);
                }
                result = optional(&mut self.write) => {
                    self.write = None;
                    self.write_ended(&cx, result);
                }
                () = until(wake_at) => self.wake_at = None,
                () = until(self.write_again_at) => self.write_again_at = None,
            }
        }
        // In this order: a static pod whose file came back has the same UID, and would lose its folders to this one.
        observe::remove_pod(&cx).await;
        self.node.forget(pod::uid(&cx.pod));
    }

    /// What does not run yet and may not run here fails at once.
    fn admit(&self, cx: &Cx) {
        let beside = self.beside(cx);
        let mut memory = self.shared.lock();
        if memory.sandbox_ids.is_empty()
            && !pod::is_finished(&cx.pod)
            && !pod::is_terminating(&cx.pod)
            && let Some(refusal) = self.node.refusal(&cx.pod).or_else(|| admission::refusal(&cx.pod, &self.node.allocatable, &self.node.config.settings.allowed_unsafe_sysctls)).or_else(|| admission::port_refusal(&cx.pod, &beside))
        {
            self.node.events.warning(&cx.about(None), &refusal.reason, refusal.message.clone());
            memory.verdict = Some(Verdict { refused: true, ..Reason { message: format!("Pod was rejected: {}", refusal.message), ..refusal }.into() });
        }
    }

    /// The pods that were taken before this one and go on.
    fn beside(&self, cx: &Cx) -> Vec<Arc<Pod>> {
        let age = |pod: &Pod| (pod.metadata.creation_timestamp.as_ref().map(|time| time.0), pod::uid(pod).to_owned());
        let mut others = self.node.all();
        others.retain(|other| pod::uid(&other.pod) != pod::uid(&cx.pod) && !pod::is_finished(&other.pod) && !pod::is_terminating(&other.pod));
        others.retain(|other| {
            let memory = other.shared.lock();
            memory.verdict.is_none() && !memory.ended && (!memory.sandbox_ids.is_empty() || age(&other.pod) < age(&cx.pod))
        });
        others.into_iter().map(|other| other.pod).collect()
    }

    /// Who waits for the pod's end hears of it.
    fn tell_progress(&mut self) {
        let mut memory = self.shared.lock();
        let final_phase = matches!(self.written.phase.as_deref(), Some("Succeeded" | "Failed"));
        memory.told = memory.ended && self.write.is_none() && self.write_again_at.is_none() && final_phase;
        let now = (memory.ended, memory.told);
        drop(memory);
        if std::mem::replace(&mut self.progress, now) != now {
            self.node.progress.send_replace(());
        }
    }

    fn know(&mut self, pod: &Pod) {
        self.written = pod.status.clone().unwrap_or_default();
        self.written_version = version(pod);
    }

    fn pod_changed(&mut self, cx: &Cx, before: &Pod) {
        let (now, then) = (&cx.pod.metadata, &before.metadata);
        if now.labels != then.labels || now.annotations != then.annotations {
            self.shared.updated.notify_waiters();
        }
        if self.generation != cx.pod.metadata.generation {
            // What could not be done with the old definition is tried again with the new one.
            self.generation = cx.pod.metadata.generation;
            self.shared.lock().retry_at.clear();
        }
        if self.write.is_none() && version(&cx.pod) > self.written_version {
            self.know(&cx.pod);
            self.sent = None;
        }
    }

    /// Chooses what to do, if nothing is under way or what is under way no longer makes sense.
    fn decide(&mut self, cx: &Cx) {
        let gone = self.desired.borrow().gone;
        self.check_deadline(cx);
        let finished = {
            let memory = self.shared.lock();
            memory.over || memory.verdict.is_some()
        };
        let ending = gone || pod::is_terminating(&cx.pod) || pod::is_finished(&cx.pod) || finished;
        if ending {
            let grace = cx.grace_seconds();
            match self.doing {
                Doing::Terminating(before) if before <= grace => {}
                Doing::CleaningUp => {}
                _ if self.shared.lock().ended => {}
                _ => {
                    self.work = Some(Box::pin(kill::all(cx.clone())));
                    self.doing = Doing::Terminating(grace);
                }
            }
            return;
        }
        if self.doing != Doing::Nothing {
            return;
        }
        let resize_waits = self.pending_resize(cx).is_some();
        let plan = {
            let memory = self.shared.lock();
            sync::sync(&sync::View {
                pod: &cx.pod,
                runtime: &memory.runtime,
                probes: &memory.probes,
                backoff: &memory.backoff,
                retry_at: &memory.retry_at,
                resize_waits,
                now: self.node.now(),
            })
        };
        self.back_off(cx, &plan);
        self.wake_at = earliest(plan.wake_at, self.deadline(cx));
        if !plan.actions.is_empty() {
            let mut memory = self.shared.lock();
            memory.replacing = plan.replaced();
            self.begun = (std::time::Instant::now(), if memory.sandbox_ids.is_empty() { "create" } else { "sync" });
            drop(memory);
            self.work = Some(Box::pin(launch::carry_out(cx.clone(), plan)));
            self.doing = Doing::Syncing;
        }
    }

    /// Why the pod does not get what it asks for; if for want of room, it is told when another pod changes.
    fn pending_resize(&self, cx: &Cx) -> Option<resize::Pending> {
        let found = resize::pending(&cx.pod, &self.written, &self.node.allocatable, || self.node.kept_for_others(pod::uid(&cx.pod)));
        if matches!(found, Some(resize::Pending::Deferred(_))) {
            self.node.resizes_wait();
        }
        found
    }

    fn back_off(&self, cx: &Cx, plan: &sync::Plan) {
        let mut memory = self.shared.lock();
        for waiting in &plan.backed_off {
            let attempt = memory.runtime.latest(&waiting.name).map_or(0, |c| c.metadata.attempt);
            memory.reasons.insert(waiting.name.clone(), Reason { reason: "CrashLoopBackOff".to_owned(), message: waiting.message.clone() });
            if memory.backed_off.insert((waiting.name.clone(), attempt)) {
                let text = format!("Back-off restarting failed container {} in pod {}", waiting.name, pod::full(&cx.pod));
                self.node.events.warning(&cx.about(Some(&waiting.name)), "BackOff", text);
            }
        }
    }

    fn deadline(&self, cx: &Cx) -> Option<Timestamp> {
        let seconds = cx.pod.spec.as_ref()?.active_deadline_seconds?;
        let started = cx.pod.status.as_ref()?.start_time.as_ref()?.0;
        started.checked_add(SignedDuration::from_secs(seconds)).ok()
    }

    fn check_deadline(&self, cx: &Cx) {
        if self.deadline(cx).is_some_and(|at| at <= self.node.now()) && !pod::is_finished(&cx.pod) {
            let mut memory = self.shared.lock();
            if memory.verdict.is_none() && !memory.ended {
                let message = "Pod was active on the node longer than the specified deadline";
                memory.verdict = Some(Reason { reason: "DeadlineExceeded".to_owned(), message: message.to_owned() }.into());
                self.node.events.normal(&cx.about(None), "DeadlineExceeded", message);
            }
        }
    }

    fn work_ended(&mut self, cx: &Cx) {
        tracing::debug!(pod = pod::full(&cx.pod), doing = ?self.doing, "done");
        match self.doing {
            Doing::Terminating(_) => {
                let node = self.node.clone();
                let uid = pod::uid(&cx.pod).to_owned();
                let pod_dir = node.config.pod_dir(&uid);
                self.probes.stop();
                self.work = Some(Box::pin(async move { node.volumes.tear_down(&uid, pod_dir).await }));
                self.doing = Doing::CleaningUp;
            }
            Doing::CleaningUp => {
                self.shared.lock().ended = true;
                self.doing = Doing::Nothing;
            }
            Doing::Syncing | Doing::Nothing => {
                self.node.measured.synced(self.begun.1, self.begun.0.elapsed());
                self.doing = Doing::Nothing;
            }
        }
    }

    /// A changed container has ended and its next instance does not run yet. Upstream writes no status within a sync either.
    fn in_between(&self) -> bool {
        let memory = self.shared.lock();
        let down = |name: &String| memory.runtime.latest(name).is_some_and(|c| c.state != ContainerState::Running);
        self.doing == Doing::Syncing && memory.replacing.iter().any(down)
    }

    /// Computes the status and sends what differs; once all is over and known, deletes the pod.
    fn write_status(&mut self, cx: &Cx) {
        if self.desired.borrow().gone || self.write.is_some() || self.write_again_at.is_some() || self.in_between() {
            return;
        }
        let node_ips: Vec<String> = self.node.addresses().iter().map(ToString::to_string).collect();
        let pending = self.pending_resize(cx);
        let computed = {
            let mut memory = self.shared.lock();
            let status::Computed { status: computed, over } = status::compute(&status::View {
                pod: &cx.pod,
                old: &self.written,
                runtime: &memory.runtime,
                probes: &memory.probes,
                reasons: &memory.reasons,
                messages: &memory.messages,
                users: &memory.users,
                node_ips: &node_ips,
                pending: pending.as_ref(),
                verdict: memory.verdict.as_ref(),
                ended: memory.ended,
                now: self.node.now(),
                container_id_scheme: self.node.container_id_scheme(),
            });
            memory.status = computed.clone();
            memory.over = over;
            computed
        };
        if let Some(uid) = self.shown_as(cx) {
            self.send(cx, computed, uid);
        }
        let memory = self.shared.lock();
        if memory.over && !memory.ended && self.doing == Doing::Nothing {
            // Seen just now to be over: end it.
            self.shared.wake.notify_one();
        }
    }

    /// What differs, to the pod that the API knows by `uid`.
    fn send(&mut self, cx: &Cx, computed: PodStatus, uid: String) {
        let client = self.node.client.of::<Pod>(Some(pod::namespace(&cx.pod)));
        let name = pod::name(&cx.pod).to_owned();
        if let Some(patch) = patch::between(&self.written, &computed, &uid).filter(|patch| self.sent.as_ref() != Some(patch)) {
            tracing::debug!(pod = name, %patch, "status");
            self.sent = Some(patch.clone());
            self.written = computed;
            self.write = Some(Box::pin(async move { client.patch_status(&name, PatchKind::Strategic, patch).await.map(Some) }));
        } else if self.shared.lock().ended && pod::is_terminating(&cx.pod) && !self.deleting {
            self.deleting = true;
            let options = DeleteOptions {
                grace_period_seconds: Some(0),
                preconditions: Preconditions { uid: Some(uid), resource_version: None },
                ..DeleteOptions::default()
            };
            self.write = Some(Box::pin(async move { client.delete(&name, &options).await.map(|()| None) }));
        }
    }

    /// The UID by which the API has the pod; none while it has no mirror of a static one.
    fn shown_as(&mut self, cx: &Cx) -> Option<String> {
        if !is_of_file(&cx.pod) {
            return Some(pod::uid(&cx.pod).to_owned());
        }
        let mirror = mirror_pods::shown(&self.node, &cx.pod)?;
        let uid = pod::uid(&mirror).to_owned();
        if self.mirror_uid != uid {
            // Another one, which knows nothing yet: what is to be written is looked at once more.
            self.mirror_uid.clone_from(&uid);
            self.know(&mirror);
            self.sent = None;
            self.shared.wake.notify_one();
            return None;
        }
        Some(uid)
    }

    /// How long the start took, once all have started and the API knows.
    fn note_start(&mut self, cx: &Cx) {
        let started = self.written.phase.as_deref() == Some("Running") && self.written.container_statuses.iter().flatten().all(|container| container.started == Some(true));
        if started && let Some(seen) = self.starting.take() {
            let made = cx.pod.metadata.creation_timestamp.as_ref().map_or(self.node.now(), |time| time.0);
            self.node.measured.started(seen.elapsed(), duration_until(self.node.now(), made));
        }
    }

    fn write_ended(&mut self, cx: &Cx, result: Result<Option<Arc<Pod>>, Status>) {
        match result {
            Ok(Some(pod)) => {
                self.know(&pod);
                self.note_start(cx);
            }
            Ok(None) => {}
            // Gone, or another pod of that name: the informer will say so.
            Err(error) if error.is_not_found() || error.is_conflict() => {
                tracing::debug!(pod = pod::full(&cx.pod), %error, "the pod is no longer there");
                self.deleting = false;
                self.write_again_at = Some(tokio::time::Instant::now() + WRITE_RETRY);
                self.sent = None;
                self.know(&cx.pod);
            }
            Err(error) => {
                tracing::warn!(pod = pod::full(&cx.pod), %error, "cannot write the pod's status");
                self.deleting = false;
                self.write_again_at = Some(tokio::time::Instant::now() + WRITE_RETRY);
                self.sent = None;
                self.know(&cx.pod);
            }
        }
    }
}

fn version(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

fn duration_until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO)
}
