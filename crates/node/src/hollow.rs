//! Hollow nodes: agents that register, send heartbeats and report their pods as running, but start nothing. For simulations and load tests.
//!
//! They speak the API as the real agent does, so they work under any Kubernetes. One [`run`] plays one node or a fleet with a single watch, as upstream's
//! kubemark and kwok (<https://kwok.sigs.k8s.io/>). Dropping it is the death of its nodes; running it again is their return: it takes over the pods it finds.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use api::Typed as _;
use api::k8s::api::coordination::v1::Lease;
use api::k8s::api::core::v1::{Node, Pod};
use api::world::{rfc3339, rfc3339_micro};
use api::{Clock, Status};
use client::{BoxFuture, Client, DeleteOptions, Informer, ObjectKey, PatchKind, Preconditions, Queue};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::lease;

/// A pod with this annotation ends with success that many seconds after it started.
pub const RUNS_FOR: &str = "hollow.coracle.dev/runs-for";
/// Requests of one fleet under way at once.
const WIDTH: usize = 64;
/// Addresses a node has for pods: one /24.
const ADDRESSES: u32 = 254;
/// First pause after a failed request of registration or heartbeat; doubles to [`RETRY_MAX`].
const RETRY: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(7);

#[derive(Debug, Clone)]
pub struct Options {
    pub nodes: Vec<String>,
    /// The first node's pods have addresses of the /24 at this one, the second's of the next, and so on.
    pub first_address: Ipv4Addr,
    pub pods_per_node: u32,
    /// From the binding of a pod to its containers running.
    pub start: Duration,
    /// From the deletion of a pod to its end; its grace period if that is shorter.
    pub stop: Duration,
    /// Between heartbeats.
    pub renew: Duration,
}

impl Options {
    pub fn new(nodes: Vec<String>) -> Self {
        let instant = Duration::ZERO;
        Self { nodes, first_address: Ipv4Addr::new(10, 128, 0, 0), pods_per_node: 110, start: instant, stop: instant, renew: lease::RENEW_PERIOD }
    }
}

/// A pod of ours, from the moment it was seen.
struct Held {
    uid: String,
    node: usize,
    address: Ipv4Addr,
    since: Instant,
    stopping: Option<Instant>,
}

#[derive(Default)]
struct State {
    held: HashMap<ObjectKey, Held>,
    /// Addresses in use, by node.
    used: HashMap<usize, BTreeSet<u32>>,
}

impl State {
    fn release(&mut self, key: &ObjectKey) {
        if let Some(held) = self.held.remove(key)
            && let Some(used) = self.used.get_mut(&held.node)
        {
            used.remove(&held.address.into());
        }
    }
}

struct Fleet {
    client: Client,
    clock: Arc<dyn Clock>,
    options: Options,
    numbers: HashMap<String, usize>,
    state: Mutex<State>,
}

/// Registers the nodes and plays them until it is dropped.
pub fn run(client: Client, clock: Arc<dyn Clock>, options: Options) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        register(&client, &*clock, &options).await;
        play(client, clock, options).await;
    })
}

/// Creates the nodes, or makes those that exist Ready again; comes back when all are.
pub fn register<'a>(client: &'a Client, clock: &'a dyn Clock, options: &'a Options) -> BoxFuture<'a, ()> {
    Box::pin(registered(client, clock, options))
}

async fn registered(client: &Client, clock: &dyn Clock, options: &Options) {
    let permits = Semaphore::new(WIDTH);
    let one = async |number: usize, name: &String| {
        // Closed never.
        let _permit = permits.acquire().await;
        let mut pause = RETRY;
        while let Err(error) = register_one(client, clock, options, number, name).await {
            tracing::debug!(%error, node = %name, "cannot register a hollow node yet");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    };
    futures_util::future::join_all(options.nodes.iter().enumerate().map(|(number, name)| one(number, name))).await;
}

async fn register_one(client: &Client, clock: &dyn Clock, options: &Options, number: usize, name: &str) -> Result<(), Status> {
    let object = json!({
        "metadata": {"name": name, "labels": {
            "kubernetes.io/arch": crate::machine::architecture(), "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "type": "hollow"}},
        "spec": {"podCIDR": format!("{}/24", network(options, number)), "podCIDRs": [format!("{}/24", network(options, number))]},
        "status": status(clock, options, number, name),
    });
    let node = Node::from_value(&object).map_err(Status::internal)?;
    match client.of::<Node>(None).create(&node).await {
        Err(error) if error.is_already_exists() => post(client, clock, options, number, name).await,
        done => done.map(drop),
    }
}

async fn post(client: &Client, clock: &dyn Clock, options: &Options, number: usize, name: &str) -> Result<(), Status> {
    client.of::<Node>(None).patch_status(name, PatchKind::Strategic, json!({"status": status(clock, options, number, name)})).await.map(drop)
}

fn network(options: &Options, number: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(options.first_address).wrapping_add((number as u32) << 8))
}

/// Where the node itself is said to be: the last address of its network.
fn host(options: &Options, number: usize) -> String {
    Ipv4Addr::from(u32::from(network(options, number)) | 255).to_string()
}

fn status(clock: &dyn Clock, options: &Options, number: usize, name: &str) -> Value {
    let now = rfc3339(clock.now());
    let condition = |kind: &str, status: &str, reason: &str, message: &str| json!({"type": kind, "status": status, "reason": reason, "message": message, "lastHeartbeatTime": now, "lastTransitionTime": now});
    let resources = json!({"cpu": "64", "memory": "256Gi", "ephemeral-storage": "1Ti", "pods": options.pods_per_node.to_string()});
    json!({
        "addresses": [{"type": "InternalIP", "address": host(options, number)}, {"type": "Hostname", "address": name}],
        "capacity": resources, "allocatable": resources,
        "conditions": [
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
        ],
        "nodeInfo": {"architecture": crate::machine::architecture(), "bootID": "", "containerRuntimeVersion": "hollow://1", "kernelVersion": "", "kubeProxyVersion": "",
            "kubeletVersion": "v1.36.2-hollow", "machineID": name, "operatingSystem": "linux", "osImage": "", "systemUUID": name},
    })
}

/// Heartbeats and pods of nodes that are registered.
pub fn play(client: Client, clock: Arc<dyn Clock>, options: Options) -> BoxFuture<'static, ()> {
    Box::pin(played(client, clock, options))
}

async fn played(client: Client, clock: Arc<dyn Clock>, options: Options) {
    let numbers: HashMap<String, usize> = options.nodes.iter().enumerate().map(|(number, name)| (name.clone(), number)).collect();
    let pods_queue: Queue<ObjectKey> = Queue::new();
    let nodes_queue: Queue<usize> = Queue::new();
    let (mut pods, mut nodes) = (Informer::<Pod>::of(&client, None), Informer::<Node>::of(&client, None));
    if let [only] = options.nodes.as_slice() {
        pods = pods.fields(&format!("spec.nodeName={only}"));
        nodes = nodes.fields(&format!("metadata.name={only}"));
    }
    let pods = pods.on_change({ let queue = pods_queue.clone(); move |change| queue.add(change.key.clone()) }).start();
    let _nodes = nodes
        .on_change({
            let (queue, numbers) = (nodes_queue.clone(), numbers.clone());
            move |change| {
                // Someone who missed our heartbeats said that we are not ready.
                let ready = |node: &Node| node.status.iter().flat_map(|status| status.conditions.iter().flatten()).any(|condition| condition.type_ == "Ready" && condition.status == "True");
                if let (Some(number), Some(object)) = (numbers.get(&*change.key.name), &change.new)
                    && object.typed::<Node>().is_ok_and(|node| !ready(&node))
                {
                    queue.add(*number);
                }
            }
        })
        .start();
    let fleet = Arc::new(Fleet { client, clock, options, numbers, state: Mutex::default() });
    let mut tasks = JoinSet::new();
    for number in 0..fleet.options.nodes.len() {
        tasks.spawn(heartbeat(fleet.clone(), number));
    }
    tasks.spawn({
        let fleet = fleet.clone();
        async move {
            while let Some(item) = nodes_queue.next().await {
                let number = *item.key();
                match post(&fleet.client, &*fleet.clock, &fleet.options, number, &fleet.options.nodes[number]).await {
                    Err(error) if !error.is_not_found() => item.retry(),
                    _ => item.forget(),
                }
            }
        }
    });
    pods.synced().await;
    fleet.adopt(&pods);
    let permits = Arc::new(Semaphore::new(WIDTH));
    while let Some(item) = pods_queue.next().await {
        while tasks.try_join_next().is_some() {}
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let (fleet, pods) = (fleet.clone(), pods.clone());
        tasks.spawn(async move {
            match fleet.sync(&pods, item.key()).await {
                Ok(None) => item.forget(),
                Ok(Some(later)) => item.retry_after(later),
                Err(error) => {
                    tracing::debug!(%error, pod = %item.key(), "a hollow node tries again");
                    item.retry();
                }
            }
            drop(permit);
        });
    }
}

async fn heartbeat(fleet: Arc<Fleet>, number: usize) {
    let name = &fleet.options.nodes[number];
    let leases = fleet.client.of::<Lease>(Some(lease::NAMESPACE));
    let mut pause = RETRY;
    loop {
        let spec = json!({"holderIdentity": name, "leaseDurationSeconds": lease::DURATION_SECONDS, "renewTime": rfc3339_micro(fleet.clock.now())});
        let renewed = match leases.patch(name, PatchKind::Merge, json!({"spec": spec})).await {
            Err(error) if error.is_not_found() => match Lease::from_value(&json!({"metadata": {"name": name, "namespace": lease::NAMESPACE}, "spec": spec})) {
                Ok(lease) => leases.create(&lease).await.map(drop),
                Err(error) => Err(Status::internal(error)),
            },
            done => done.map(drop),
        };
        if renewed.is_ok() {
            pause = RETRY;
            tokio::time::sleep(fleet.options.renew).await;
        } else {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("")
}

fn ready(pod: &Pod) -> bool {
    pod.status.iter().flat_map(|status| status.conditions.iter().flatten()).any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn bound_to(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

impl Fleet {
    /// Addresses of pods that run already are taken before any is given.
    fn adopt(&self, pods: &Informer<Pod>) {
        let mut state = self.state.lock();
        for pod in pods.cache().list() {
            let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).and_then(|text| text.parse::<Ipv4Addr>().ok());
            if let (Some(address), Some(node)) = (address, bound_to(&pod).and_then(|name| self.numbers.get(name)))
                && !matches!(phase(&pod), "Succeeded" | "Failed")
            {
                let key = ObjectKey::new(pod.metadata.namespace.as_deref().unwrap_or(""), pod.metadata.name.as_deref().unwrap_or(""));
                state.used.entry(*node).or_default().insert(address.into());
                state.held.insert(key, Held { uid: pod.metadata.uid.clone().unwrap_or_default(), node: *node, address, since: Instant::now(), stopping: None });
            }
        }
    }

    fn hold(&self, key: &ObjectKey, uid: &str, node: usize) -> Option<(Ipv4Addr, Instant)> {
        let mut state = self.state.lock();
        if state.held.get(key).is_some_and(|held| held.uid != uid) {
            state.release(key);
        }
        if let Some(held) = state.held.get(key) {
            return Some((held.address, held.since));
        }
        let first = u32::from(network(&self.options, node)) + 1;
        let used = state.used.entry(node).or_default();
        let address = (first..first + ADDRESSES).find(|address| !used.contains(address))?;
        used.insert(address);
        let (address, since) = (Ipv4Addr::from(address), Instant::now());
        state.held.insert(key.clone(), Held { uid: uid.to_owned(), node, address, since, stopping: None });
        Some((address, since))
    }

    /// Brings one pod a step on; when to look again.
    async fn sync(&self, pods: &Informer<Pod>, key: &ObjectKey) -> Result<Option<Duration>, Status> {
        let ours = pods.cache().get(&key.namespace, &key.name).and_then(|pod| Some((*self.numbers.get(bound_to(&pod)?)?, pod)));
        let Some((node, pod)) = ours else {
            self.state.lock().release(key);
            return Ok(None);
        };
        let uid = pod.metadata.uid.as_deref().unwrap_or("");
        if pod.metadata.deletion_timestamp.is_some() {
            return self.stop(key, &pod, uid).await;
        }
        if matches!(phase(&pod), "Succeeded" | "Failed") {
            self.state.lock().release(key);
            return Ok(None);
        }
        let Some((address, since)) = self.hold(key, uid, node) else {
            return Err(Status::internal(format!("node {} has no address left", self.options.nodes[node])));
        };
        let running = phase(&pod) == "Running";
        if !running {
            if let Some(later) = (since + self.options.start).checked_duration_since(Instant::now()).filter(|later| !later.is_zero()) {
                return Ok(Some(later));
            }
            self.report(key, &pod, self.running(&pod, address, node)).await?;
            return Ok(None);
        }
        // Another spec was asked for: it is as good as done.
        let observed = pod.status.as_ref().and_then(|status| status.observed_generation);
        if observed != pod.metadata.generation {
            self.report(key, &pod, json!({"containerStatuses": self.containers(&pod, true, &json!({"running": {"startedAt": rfc3339(self.clock.now())}}))})).await?;
        }
        // Whoever thought this node dead may have said that its pods are not ready.
        if !ready(&pod) {
            self.report(key, &pod, json!({"conditions": self.conditions(true, None)})).await?;
        }
        let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map_or_else(|| self.clock.now().as_second(), |time| time.0.as_second());
        if let Some(seconds) = pod.metadata.annotations.as_ref().and_then(|notes| notes.get(RUNS_FOR)).and_then(|text| text.parse::<i64>().ok()) {
            let left = started + seconds - self.clock.now().as_second();
            if left > 0 {
                return Ok(Some(Duration::from_secs(left as u64)));
            }
            self.report(key, &pod, self.succeeded(&pod, started)).await?;
        }
        Ok(None)
    }

    async fn stop(&self, key: &ObjectKey, pod: &Pod, uid: &str) -> Result<Option<Duration>, Status> {
        let grace = Duration::from_secs(pod.metadata.deletion_grace_period_seconds.unwrap_or(0).max(0) as u64);
        let now = Instant::now();
        let began = self.state.lock().held.get_mut(key).map_or(now, |held| *held.stopping.get_or_insert(now));
        // A pod that never ran, or whose node knows nothing of it, has nothing to stop.
        let known = self.state.lock().held.contains_key(key);
        if let Some(later) = (began + self.options.stop.min(grace)).checked_duration_since(now).filter(|later| known && !later.is_zero()) {
            return Ok(Some(later));
        }
        let options = DeleteOptions { grace_period_seconds: Some(0), preconditions: Preconditions { uid: Some(uid.to_owned()), resource_version: None }, ..DeleteOptions::default() };
        match self.client.of::<Pod>(Some(&key.namespace)).delete(&key.name, &options).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(None),
        }
    }

    async fn report(&self, key: &ObjectKey, pod: &Pod, status: Value) -> Result<(), Status> {
        let mut patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": status});
        patch["status"]["observedGeneration"] = pod.metadata.generation.into();
        match self.client.of::<Pod>(Some(&key.namespace)).patch_status(&key.name, PatchKind::Strategic, patch).await {
            // Gone, or another one of the name: an event will tell.
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            done => done.map(drop),
        }
    }

    fn conditions(&self, ready: bool, reason: Option<&str>) -> Value {
        let now = rfc3339(self.clock.now());
        let condition = |kind: &str, holds: bool| {
            let mut condition = json!({"type": kind, "status": if holds { "True" } else { "False" }, "lastTransitionTime": now});
            if let Some(reason) = reason.filter(|_| !holds) {
                condition["reason"] = json!(reason);
            }
            condition
        };
        json!([condition("PodReadyToStartContainers", ready), condition("Initialized", true), condition("Ready", ready), condition("ContainersReady", ready)])
    }

    fn containers(&self, pod: &Pod, ready: bool, state: &Value) -> Value {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        containers
            .map(|container| json!({"name": container.name, "image": container.image, "imageID": "", "containerID": "hollow://1", "ready": ready, "started": ready, "restartCount": 0, "state": state}))
            .collect()
    }

    fn running(&self, pod: &Pod, address: Ipv4Addr, node: usize) -> Value {
        let now = rfc3339(self.clock.now());
        let host = host(&self.options, node);
        let address = if pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true)) { host.clone() } else { address.to_string() };
        json!({
            "phase": "Running", "startTime": now, "hostIP": host, "hostIPs": [{"ip": host}], "podIP": address, "podIPs": [{"ip": address}],
            "conditions": self.conditions(true, None), "containerStatuses": self.containers(pod, true, &json!({"running": {"startedAt": now}})),
        })
    }

    fn succeeded(&self, pod: &Pod, started: i64) -> Value {
        let started = jiff::Timestamp::from_second(started).map(rfc3339).unwrap_or_default();
        let ended = json!({"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": started, "finishedAt": rfc3339(self.clock.now())}});
        json!({"phase": "Succeeded", "conditions": self.conditions(false, Some("PodCompleted")), "containerStatuses": self.containers(pod, false, &ended)})
    }
}
