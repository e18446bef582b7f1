//! Runs [`plan::node`]: life and death of nodes, eviction, pod garbage, address ranges.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use api::k8s::api::coordination::v1::Lease;
use api::k8s::api::core::v1::{Node, Pod};
use api::{Clock, Object, Status};
use client::{BoxFuture, Client, ObjectKey, Queue};
use jiff::Timestamp;
use parking_lot::Mutex;
use plan::node::ipam::Cidr;
use plan::node::{eviction, ipam, is_ready, lifecycle, pod_gc};
use plan::replicaset::Failure;
use plan::{At, Plan, meta};

use crate::apply::target;
use crate::informers::{Informers, NODE};
use crate::runner::Controller;

/// When a node was last heard of, by our own clock: clocks of nodes may be wrong.
#[derive(Default, Clone)]
struct Heard {
    /// What the last sign of life said; another text is another sign.
    lease: Option<Timestamp>,
    status: Option<Timestamp>,
    at: Option<Timestamp>,
    known_since: Option<Timestamp>,
}

pub struct NodeLifecycle {
    informers: Arc<Informers>,
    heard: Arc<Mutex<HashMap<String, Heard>>>,
    /// The names of nodes that are ready.
    ready: Arc<Mutex<HashSet<String>>>,
    clock: Arc<dyn Clock>,
}

fn typed<T: api::Typed>(object: &Option<Arc<Object>>) -> Option<Arc<T>> {
    object.as_ref().and_then(|object| object.typed().ok())
}

fn heartbeat(node: &Node) -> Option<Timestamp> {
    plan::node::condition(node, "Ready")?.last_heartbeat_time.as_ref().map(|time| time.0)
}

impl NodeLifecycle {
    pub fn new(informers: Arc<Informers>, clock: Arc<dyn Clock>) -> Self {
        Self { informers, heard: Arc::default(), ready: Arc::default(), clock }
    }

    pub fn keys(&self) -> Queue<ObjectKey> {
        let queue: Queue<ObjectKey> = Queue::new();
        let (heard, clock) = (self.heard.clone(), self.clock.clone());
        // Remembered only; nothing is to be planned for a node that lives. The silence is noticed by the time set for it.
        self.informers.leases.on_change(move |change| {
            let renewed = typed::<Lease>(&change.new).and_then(|lease| lease.spec.as_ref()?.renew_time.as_ref().map(|time| time.0));
            let mut heard = heard.lock();
            if let Some(entry) = heard.get_mut(&*change.key.name)
                && renewed.is_some()
                && entry.lease != renewed
            {
                (entry.lease, entry.at) = (renewed, Some(clock.now()));
            } else if renewed.is_some() && !heard.contains_key(&*change.key.name) {
                heard.insert(change.key.name.to_string(), Heard { lease: renewed, at: Some(clock.now()), ..Heard::default() });
            }
        });
        let (heard, ready, clock, nodes, all) = (self.heard.clone(), self.ready.clone(), self.clock.clone(), queue.clone(), self.informers.nodes.cache().clone());
        self.informers.nodes.on_change(move |change| {
            let new = typed::<Node>(&change.new);
            match &new {
                None => drop(heard.lock().remove(&*change.key.name)),
                Some(new) => {
                    let mut heard = heard.lock();
                    let entry = heard.entry(change.key.name.to_string()).or_default();
                    if entry.status != heartbeat(new) {
                        (entry.status, entry.at) = (heartbeat(new), Some(clock.now()));
                    }
                }
            }
            let (before, after) = {
                let mut ready = ready.lock();
                let before = ready.len();
                if new.as_deref().is_some_and(is_ready) { ready.insert(change.key.name.to_string()) } else { ready.remove(&*change.key.name) };
                (before, ready.len())
            };
            nodes.add(change.key.clone());
            // Whether a node is evicted depends on whether any other is ready: with two that are, on none of them.
            if before != after && before.min(after) <= 1 {
                all.keys().into_iter().for_each(|key| nodes.add(key));
            }
        });
        let pods = queue.clone();
        self.informers.pods.on_change(move |change| {
            let node =
                |object: &Option<Arc<Object>>| typed::<Pod>(object).map(|pod| plan::pods::node(&pod).to_owned()).filter(|node| !node.is_empty());
            // A pod that came to a node: it may be a node that is down.
            if let Some(node) = node(&change.new).filter(|new| node(&change.old).as_ref() != Some(new)) {
                pods.add(ObjectKey::new("", &node));
            }
        });
        queue
    }

    fn load(&self, key: &ObjectKey, now: Timestamp) -> Option<lifecycle::View> {
        let nodes = self.informers.nodes.cache();
        let node = nodes.get("", &key.name)?;
        let (seen, known_since, is_new) = {
            let mut heard = self.heard.lock();
            let entry = heard.entry(key.name.to_string()).or_default();
            let is_new = entry.known_since.is_none();
            (entry.at, *entry.known_since.get_or_insert(now), is_new)
        };
        let others_ready = {
            let ready = self.ready.lock();
            ready.len() > usize::from(ready.contains(&*key.name))
        };
        let pods = if is_ready(&node) && seen.is_some_and(|seen| meta::plus_seconds(seen, lifecycle::GRACE_SECONDS) > now) {
            Vec::new()
        } else {
            self.informers.pods.cache().list_by(NODE, &key.name)
        };
        Some(lifecycle::View { node, seen, known_since, is_new, others_ready, pods })
    }
}

impl Controller for NodeLifecycle {
    type Key = ObjectKey;
    const NAME: &'static str = "node-controller";
    const QUEUE: &'static str = "node_lifecycle_controller";

    fn plan<'a>(&'a self, key: &'a ObjectKey, now: Timestamp, _last: Option<Failure>) -> BoxFuture<'a, Result<Plan, Status>> {
        let plan = self.load(key, now).map(|view| lifecycle::plan(&view, now)).unwrap_or_default();
        Box::pin(async move { Ok(plan) })
    }
}

/// Eviction by taints, by node.
pub struct TaintEviction(pub Arc<Informers>);

impl TaintEviction {
    pub fn keys(&self) -> Queue<ObjectKey> {
        let queue: Queue<ObjectKey> = Queue::new();
        let nodes = queue.clone();
        self.0.nodes.on_change(move |change| {
            let taints = |object| typed::<Node>(object).and_then(|node| node.spec.as_ref()?.taints.clone());
            if taints(&change.new) != taints(&change.old) {
                nodes.add(change.key.clone());
            }
        });
        let pods = queue.clone();
        self.0.pods.on_change(move |change| {
            let what = |object| {
                typed::<Pod>(object).map(|pod| (plan::pods::node(&pod).to_owned(), pod.spec.as_ref().and_then(|spec| spec.tolerations.clone())))
            };
            if let Some(new) = what(&change.new).filter(|new| !new.0.is_empty() && what(&change.old).as_ref() != Some(new)) {
                pods.add(ObjectKey::new("", &new.0));
            }
        });
        queue
    }
}

impl Controller for TaintEviction {
    type Key = ObjectKey;
    const NAME: &'static str = "taint-eviction-controller";
    const QUEUE: &'static str = "noexec_taint_node";

    fn plan<'a>(&'a self, key: &'a ObjectKey, now: Timestamp, _last: Option<Failure>) -> BoxFuture<'a, Result<Plan, Status>> {
        let node =
            self.0.nodes.cache().get("", &key.name).filter(|node| plan::node_fit::taints(node).iter().any(|taint| taint.effect == "NoExecute"));
        let plan =
            node.map(|node| eviction::plan(&eviction::View { node, pods: self.0.pods.cache().list_by(NODE, &key.name) }, now)).unwrap_or_default();
        Box::pin(async move { Ok(plan) })
    }
}

/// The key under which a controller works on everything at once.
pub const ALL: &str = "all";

/// Address ranges of nodes: one key, as no two nodes may get the same.
pub struct NodeIpam {
    pub informers: Arc<Informers>,
    pub cluster: Vec<Cidr>,
}

impl NodeIpam {
    pub fn keys(&self) -> Queue<ObjectKey> {
        let queue: Queue<ObjectKey> = Queue::new();
        let nodes = queue.clone();
        self.informers.nodes.on_change(move |change| {
            if change.old.is_none() || change.new.is_none() {
                nodes.add(ObjectKey::new("", ALL));
            }
        });
        queue
    }
}

impl Controller for NodeIpam {
    type Key = ObjectKey;
    const NAME: &'static str = "cidrAllocator";
    const QUEUE: &'static str = "cidrallocator_node";

    fn plan<'a>(&'a self, _key: &'a ObjectKey, _now: Timestamp, _last: Option<Failure>) -> BoxFuture<'a, Result<Plan, Status>> {
        let plan = ipam::plan(&ipam::View { nodes: self.informers.nodes.cache().list(), cluster: self.cluster.clone() });
        Box::pin(async move { Ok(plan) })
    }
}

/// Pod garbage: by node that is gone, and `all` for the rest.
pub struct PodGarbage {
    pub informers: Arc<Informers>,
    pub client: Client,
}

impl PodGarbage {
    pub fn keys(&self) -> Queue<ObjectKey> {
        let queue: Queue<ObjectKey> = Queue::new();
        let quarantine = Duration::from_secs(pod_gc::QUARANTINE_SECONDS.unsigned_abs());
        let nodes = queue.clone();
        self.informers.nodes.on_change(move |change| {
            if change.new.is_none() {
                nodes.add_after(change.key.clone(), quarantine);
            }
        });
        let (pods, nodes) = (queue.clone(), self.informers.nodes.cache().clone());
        self.informers.pods.on_change(move |change| {
            let Some(pod) = typed::<Pod>(&change.new) else { return };
            let node = plan::pods::node(&pod);
            if node.is_empty() {
                if meta::deleting(pod.as_ref()) {
                    pods.add(ObjectKey::new("", ALL));
                }
            } else if !nodes.contains("", node) {
                pods.add_after(ObjectKey::new("", node), quarantine);
            } else if plan::pods::finished(&pod) && !typed::<Pod>(&change.old).is_some_and(|old| plan::pods::finished(&old)) {
                pods.add_after(ObjectKey::new("", ALL), quarantine);
            }
        });
        queue
    }
}

impl Controller for PodGarbage {
    type Key = ObjectKey;
    const NAME: &'static str = "pod-garbage-collector";
    const QUEUE: &'static str = "orphaned_pods_nodes";

    fn plan<'a>(&'a self, key: &'a ObjectKey, now: Timestamp, _last: Option<Failure>) -> BoxFuture<'a, Result<Plan, Status>> {
        Box::pin(async move {
            let pods = self.informers.pods.cache();
            if &*key.name == ALL && !self.informers.nodes.cache().contains("", ALL) {
                return Ok(pod_gc::leftovers(&pods.list()));
            }
            let orphans = pods.list_by(NODE, &key.name);
            if orphans.is_empty() || self.informers.nodes.cache().contains("", &key.name) {
                return Ok(Plan::default());
            }
            // The cache may be late: the server knows.
            match self.client.transport().get(&target(&At::of::<Node>(None, &key.name), None)).await {
                Ok(_) => Ok(Plan::default()),
                Err(status) if status.is_not_found() => Ok(pod_gc::orphans(&orphans, now)),
                Err(status) => Err(status),
            }
        })
    }
}
