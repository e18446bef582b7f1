//! What every step of a pod's life works with: the node, the pod as last seen, and what is remembered about it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use api::k8s::api::core::v1::{ContainerUser, ObjectReference, Pod, PodStatus};
use client::reference;
use jiff::{SignedDuration, Timestamp};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::backoff::BackOff;
use crate::node::Node;
use crate::pod;
use crate::status::Reason;
use crate::view::{PodRuntime, ProbeResults};

const FIRST_RETRY: SignedDuration = SignedDuration::from_millis(500);
const LAST_RETRY: SignedDuration = SignedDuration::from_secs(10);
const MAX_DOUBLINGS: u32 = 8;

/// The node decided that the pod has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub why: Reason,
    /// It gets no longer to end.
    pub grace_seconds: Option<i64>,
    /// It would have run on, were it not for the node: condition DisruptionTarget.
    pub disrupts: bool,
    /// It was never taken: nothing is told of its containers.
    pub refused: bool,
}

impl From<Reason> for Verdict {
    fn from(why: Reason) -> Self {
        Self { why, grace_seconds: None, disrupts: false, refused: false }
    }
}

/// What is remembered about one pod, all of it lost and found again with the process.
#[derive(Default)]
pub struct Memory {
    /// The pod's sandboxes, as made or adopted.
    pub sandbox_ids: Vec<String>,
    pub runtime: PodRuntime,
    pub probes: ProbeResults,
    pub backoff: BackOff,
    pub reasons: HashMap<String, Reason>,
    pub retry_at: HashMap<String, Timestamp>,
    /// Failures in a row, by what is tried again.
    pub failures: HashMap<&'static str, u32>,
    pub pull_errors: HashMap<String, String>,
    /// Termination messages by container ID.
    pub messages: HashMap<String, String>,
    pub users: HashMap<String, ContainerUser>,
    /// Containers whose `Killing` event was written.
    pub killed: HashSet<String>,
    /// Crashes (container and attempt) whose `BackOff` event was written.
    pub backed_off: HashSet<(String, u32)>,
    /// Ended by the work under way only to be started again at once: of what is in between the API is not told.
    pub replacing: Vec<String>,
    pub verdict: Option<Verdict>,
    /// It has done all it ever will: it is to be ended.
    pub over: bool,
    /// Nothing of the pod will run any more.
    pub ended: bool,
    /// And the API knows.
    pub told: bool,
    pub status: PodStatus,
    /// Folders of the persistent volumes that it has, by the names of their claims.
    pub claims: BTreeMap<String, PathBuf>,
}

#[derive(Default)]
pub struct Shared {
    memory: Mutex<Memory>,
    pub wake: Notify,
    /// The pod's labels or annotations changed.
    pub updated: Notify,
    /// Some probe's verdict changed.
    pub probed: Notify,
    /// Held while a sandbox is being made, which goes on when the work that wanted it is given up.
    pub making: Arc<tokio::sync::Mutex<()>>,
}

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock()
    }
}

#[derive(Clone)]
pub struct Cx {
    pub node: Arc<Node>,
    pub shared: Arc<Shared>,
    pub pod: Arc<Pod>,
}

impl Cx {
    /// The pod, or one of its containers, as the subject of an event.
    pub fn about(&self, container: Option<&str>) -> ObjectReference {
        let mut about = reference(&*self.pod);
        about.field_path = container.map(|name| pod::field_path(&self.pod, name));
        about
    }

    /// The pod has to go; its worker sees to it. What was decided before holds, but for a shorter grace.
    pub fn condemn(&self, verdict: Verdict) {
        {
            let mut memory = self.shared.lock();
            match &mut memory.verdict {
                Some(before) => before.grace_seconds = verdict.grace_seconds.into_iter().chain(before.grace_seconds).min(),
                none => *none = Some(verdict),
            }
        }
        self.shared.wake.notify_one();
    }

    /// How long the pod may take to end.
    pub fn grace_seconds(&self) -> i64 {
        let own = pod::grace_seconds(&self.pod);
        self.shared.lock().verdict.as_ref().and_then(|verdict| verdict.grace_seconds).map_or(own, |grace| grace.min(own))
    }

    pub fn later(&self, seconds: i64) -> Option<Timestamp> {
        self.node.now().checked_add(SignedDuration::from_secs(seconds)).ok()
    }

    /// When to try `what` again after it failed: half a second, doubling to ten seconds.
    pub fn after_failure(&self, what: &'static str) -> Option<Timestamp> {
        let mut memory = self.shared.lock();
        let count = memory.failures.entry(what).or_default();
        let delay = FIRST_RETRY.saturating_mul(1i32.checked_shl(*count).unwrap_or(i32::MAX)).min(LAST_RETRY);
        *count = (*count + 1).min(MAX_DOUBLINGS);
        self.node.now().checked_add(delay).ok()
    }

    pub fn succeeded(&self, what: &'static str) {
        self.shared.lock().failures.remove(what);
    }

    /// The pod's addresses as far as they are known.
    pub fn pod_ips(&self) -> Vec<String> {
        if pod::host_network(&self.pod) {
            return self.node.addresses().iter().map(ToString::to_string).collect();
        }
        let memory = self.shared.lock();
        memory.runtime.sandbox().map(|s| s.ips.iter().map(ToString::to_string).collect()).unwrap_or_default()
    }
}
