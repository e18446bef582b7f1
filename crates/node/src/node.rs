//! The node itself: starts everything, hands pods to their workers and the runtime's events to the pods they are about.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use api::Clock;
use basics::tasks::for_ever;
use api::k8s::api::core::v1::{ObjectReference, Pod, PodStatus, Service};
use client::{Client, Informer, Recorder};
use jiff::Timestamp;
use parking_lot::Mutex;
use sandbox::cri::{DnsConfig, Runtime};
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::AbortHandle;

use crate::config::Config;
use crate::eviction::pressure::Pressures;
use crate::images::Images;
use crate::machine::{self, Machine};
use crate::measured::Measured;
use crate::measuring::Measuring;
use crate::objects::Objects;
use crate::shutdown::logind;
use crate::static_pods::{StaticPods, is_of_file};
use crate::status::Reason;
use crate::volumes::Volumes;
use crate::worker::{Desired, Handle, Worker};
use crate::pull::Pulls;
use crate::{dns, eviction, image_gc, lease, mirror_pods, observe, pod, quantity, register, resize, rotate, shutdown};

pub struct Node {
    pub config: Config,
    pub(crate) client: Client,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) images: Arc<dyn Images>,
    pub(crate) events: Recorder,
    pub(crate) machine: Machine,
    pub(crate) allocatable: quantity::List,
    pub(crate) services: Informer<Service>,
    pub(crate) objects: Objects,
    pub(crate) volumes: Volumes,
    pub(crate) status_changed: Notify,
    /// Why the node takes no pods; `None` when it does.
    pub(crate) not_ready: Mutex<Option<String>>,
    pub(crate) uid: Mutex<String>,
    addresses: Mutex<Vec<IpAddr>>,
    /// Pods which show what runs here by other means, by namespace and name.
    mirrors: Mutex<HashMap<(String, String), Arc<Pod>>>,
    /// What the folder of static pods says.
    statics: Mutex<Vec<Arc<Pod>>>,
    /// Static pods or their mirrors changed.
    pub(crate) mirrors_stale: Notify,
    /// A static pod's place became free.
    static_ended: Notify,
    clock: Arc<dyn Clock>,
    container_id_scheme: String,
    pods: Mutex<HashMap<String, Handle>>,
    /// Some pod's resize waits for room.
    deferred: AtomicBool,
    tasks: Mutex<Vec<AbortHandle>>,
    /// The machine goes: pods end, and none come.
    pub(crate) shutting_down: AtomicBool,
    /// And the API knows.
    pub(crate) shutdown_told: AtomicBool,
    /// Some pod has ended, or the API knows it.
    pub(crate) progress: watch::Sender<()>,
    /// What is short, and the conditions that say so.
    pub(crate) eviction: Mutex<(Pressures, Vec<&'static str>)>,
    pub(crate) image_records: Mutex<image_gc::Records>,
    /// Held while an image is looked for, and while an unused one is removed.
    pub(crate) image_turn: tokio::sync::Mutex<()>,
    /// The lease is kept.
    leased: AtomicBool,
    pub(crate) pulls: Pulls,
    pub(crate) measured: Arc<Measured>,
}

/// On pods that mirror what is not run by the API's will.
pub(crate) const MIRROR: &str = "kubernetes.io/config.mirror";

fn is_mirror(pod: &Pod) -> bool {
    pod.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(MIRROR))
}

/// Never without a folder.
async fn static_changed(files: &Option<StaticPods>) {
    match files {
        // Who cannot be asked any more tells nothing more.
        Some(files) if files.changed().await.is_ok() => {}
        _ => std::future::pending().await,
    }
}

impl Node {
    /// Registers the node and runs the pods bound to it, until [`Node::shutdown`]. Returns at once.
    pub fn start(config: Config, client: Client, runtime: Arc<dyn Runtime>, images: Arc<dyn Images>, clock: Arc<dyn Clock>) -> Arc<Self> {
        let measured = Arc::<Measured>::default();
        let client = client.measured("kubelet", &measured.client);
        let runtime: Arc<dyn Runtime> = Arc::new(Measuring::new(runtime, measured.clone()));
        let machine = Machine::read();
        let disk = machine::disk(&config.root_dir).0;
        let allocatable = serde_json::from_value(register::allocatable(&machine, disk, &config)).unwrap_or_default();
        let version = runtime.version();
        let scheme = version.split_once("://").map_or("coracle", |(scheme, _)| scheme);
        let node = Arc::new(Self {
            events: Recorder::start(&client, "kubelet", &config.node_name, clock.clone()),
            services: Informer::<Service>::of(&client, None).start(),
            objects: Objects::new(client.clone()),
            volumes: Volumes::new(),
            container_id_scheme: format!("{scheme}://"),
            status_changed: Notify::new(),
            not_ready: Mutex::new(config.not_ready.clone()),
            uid: Mutex::default(),
            addresses: Mutex::new(config.node_ips.clone()),
            mirrors: Mutex::default(),
            statics: Mutex::default(),
            mirrors_stale: Notify::new(),
            static_ended: Notify::new(),
            pods: Mutex::default(),
            deferred: AtomicBool::new(false),
            tasks: Mutex::default(),
            shutting_down: AtomicBool::new(false),
            shutdown_told: AtomicBool::new(false),
            progress: watch::Sender::new(()),
            eviction: Mutex::default(),
            image_records: Mutex::default(),
            image_turn: tokio::sync::Mutex::default(),
            leased: AtomicBool::new(false),
            pulls: Pulls::new(&config.settings),
            measured,
            config,
            client,
            runtime,
            images,
            machine,
            allocatable,
            clock,
        });
        node.events.normal(&node.reference(), "Starting", "Starting kubelet.");
        node.keep("pods of the node", Self::run_pods);
        node.keep("status of the node", Self::run_status);
        node.keep("eviction", eviction::keep);
        node.keep("container logs", rotate::keep);
        node.keep("mirror pods", mirror_pods::keep);
        node.keep("image collection", image_gc::keep);
        if !node.config.settings.shutdown.is_empty() {
            node.keep("logind", logind::follow);
        }
        node
    }

    /// Stops looking after pods. They run on; the next start adopts them.
    pub fn shutdown(&self) {
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        self.pods.lock().clear();
    }

    /// Why the node cannot take pods (no pod network yet), or `None` when it can. Written to the Ready condition at once.
    pub fn set_not_ready(&self, why: Option<String>) {
        let ready = why.is_none();
        *self.not_ready.lock() = why;
        self.status_changed.notify_one();
        if ready {
            // Those that wait for the network need wait no longer.
            for handle in self.pods.lock().values() {
                handle.shared.lock().retry_at.remove("");
                handle.shared.wake.notify_one();
            }
        }
    }

    /// As `readiness` has it, until the node is shut down. Returns at once.
    pub fn follow_readiness(self: &Arc<Self>, readiness: watch::Receiver<Option<String>>) {
        self.keep("readiness of the network", move |node| {
            let mut readiness = readiness.clone();
            async move {
                loop {
                    let why = readiness.borrow_and_update().clone();
                    if *node.not_ready.lock() != why {
                        node.set_not_ready(why);
                    }
                    if readiness.changed().await.is_err() {
                        return;
                    }
                }
            }
        });
    }

    /// The machine's addresses, primary first.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.addresses.lock().clone()
    }

    /// The primary address as text; empty without one.
    pub(crate) fn node_ip(&self) -> String {
        self.addresses.lock().first().map(ToString::to_string).unwrap_or_default()
    }

    /// The machine's addresses changed: told to the API at once, for the node and for its pods.
    pub fn set_addresses(&self, addresses: Vec<IpAddr>) {
        if std::mem::replace(&mut *self.addresses.lock(), addresses.clone()) != addresses {
            self.status_changed.notify_one();
            self.pods.lock().values().for_each(|handle| handle.shared.wake.notify_one());
        }
    }

    /// Runs it for as long as the node; anew should it panic.
    fn keep<F>(self: &Arc<Self>, name: &'static str, keep: impl Fn(Arc<Self>) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let node = self.clone();
        self.own(tokio::spawn(for_ever(name, move || keep(node.clone()))));
    }

    /// Ends the task with the node.
    pub(crate) fn own(&self, task: tokio::task::JoinHandle<()>) {
        self.tasks.lock().push(task.abort_handle());
    }

    pub(crate) fn mirror(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.mirrors.lock().get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    pub(crate) fn static_pods(&self) -> Vec<Arc<Pod>> {
        self.statics.lock().clone()
    }

    /// What the API shows of static pods, past ones too.
    pub(crate) fn mirrors_of_files(&self) -> Vec<Arc<Pod>> {
        self.mirrors.lock().values().filter(|pod| is_of_file(pod)).cloned().collect()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// `coracle://`.
    pub(crate) fn container_id_scheme(&self) -> &str {
        &self.container_id_scheme
    }

    pub(crate) fn host_dns(&self) -> DnsConfig {
        dns::parse_resolv_conf(&std::fs::read_to_string(&self.config.resolv_conf).unwrap_or_default())
    }

    /// The node as the subject of an event.
    pub(crate) fn reference(&self) -> ObjectReference {
        ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(self.config.node_name.clone()),
            // Upstream's nodes are known to events by their names.
            uid: Some(self.config.node_name.clone()),
            ..ObjectReference::default()
        }
    }

    pub(crate) fn has(&self, uid: &str) -> bool {
        self.pods.lock().contains_key(uid)
    }

    /// Why the node takes no pod that does not run yet, whatever it asks for.
    pub(crate) fn refusal(&self, pod: &Pod) -> Option<Reason> {
        let goes = self.is_shutting_down().then(|| Reason { reason: shutdown::REJECTED_REASON.to_owned(), message: shutdown::REJECTED_MESSAGE.to_owned() });
        goes.or_else(|| self.pressure_refusal(pod))
    }

    pub(crate) fn forget(&self, uid: &str) {
        let mut pods = self.pods.lock();
        pods.remove(uid);
        self.progress.send_replace(());
        self.static_ended.notify_one();
        self.room_changed(&pods);
    }

    /// What is kept for the pods but this one.
    pub(crate) fn kept_for_others(&self, uid: &str) -> resize::Asked {
        let pods = self.pods.lock();
        let others = pods.iter().filter(|(other, handle)| *other != uid && !handle.shared.lock().ended);
        let kept = others.map(|(_, handle)| {
            let pod = handle.desired.borrow().pod.clone();
            resize::kept(&pod, pod.status.as_ref().unwrap_or(&PodStatus::default()))
        });
        kept.fold(resize::Asked::default(), |sum, one| [sum[0].saturating_add(one[0]), sum[1].saturating_add(one[1])])
    }

    pub(crate) fn resizes_wait(&self) {
        self.deferred.store(true, Ordering::Relaxed);
    }

    /// Those whose resize waits look again (and say so if it still does).
    fn room_changed(&self, pods: &HashMap<String, Handle>) {
        if self.deferred.swap(false, Ordering::Relaxed) {
            pods.values().for_each(|handle| handle.shared.wake.notify_one());
        }
    }

    /// The pod of that name (the living one, should an earlier one still be ending) and what is remembered of it.
    pub(crate) fn find(self: &Arc<Self>, namespace: &str, name: &str, uid: Option<&str>) -> Option<crate::cx::Cx> {
        let pods = self.pods.lock();
        let mut found: Vec<_> = pods
            .values()
            .map(|handle| (handle.desired.borrow().clone(), handle.shared.clone()))
            .filter(|(desired, _)| {
                let meta = &desired.pod.metadata;
                meta.namespace.as_deref() == Some(namespace) && meta.name.as_deref() == Some(name) && uid.is_none_or(|uid| meta.uid.as_deref() == Some(uid))
            })
            .collect();
        found.sort_by_key(|(desired, _)| desired.gone);
        found.into_iter().next().map(|(desired, shared)| crate::cx::Cx { node: self.clone(), shared, pod: desired.pod })
    }

    pub(crate) fn all(self: &Arc<Self>) -> Vec<crate::cx::Cx> {
        let pods = self.pods.lock();
        pods.values().map(|handle| crate::cx::Cx { node: self.clone(), shared: handle.shared.clone(), pod: handle.desired.borrow().pod.clone() }).collect()
    }

    async fn run_status(self: Arc<Self>) {
        self.look_around();
        let written = register::register(&self).await;
        self.mirrors_stale.notify_one();
        if !self.leased.swap(true, Ordering::Relaxed) {
            self.keep("lease", lease::keep);
        }
        register::keep(self.clone(), written).await;
    }

    async fn run_pods(self: Arc<Self>) {
        // From before the first look: what happens in between is not missed.
        let mut events = self.runtime.events();
        let mut adopted = self.adoptable().await;
        // Should this have begun before and panicked: those that have a worker are looked after.
        adopted.retain(|uid, _| !self.has(uid));
        self.pods.lock().values().for_each(|handle| handle.shared.wake.notify_one());
        let fields = format!("spec.nodeName={}", self.config.node_name);
        let informer = Informer::<Pod>::of(&self.client, None).fields(&fields).start();
        let mut files = self.open_static_pods();
        // Static pods wait for nobody.
        self.sync_static(&mut files, &mut adopted);
        loop {
            tokio::select! {
                () = informer.synced() => break,
                event = events.recv() => if !self.happened(event) {
                    return;
                },
                () = static_changed(&files) => self.sync_static(&mut files, &mut adopted),
                () = self.static_ended.notified() => self.sync_static(&mut files, &mut adopted),
            }
        }
        let mut changes = informer.subscribe();
        while let Some(change) = changes.try_next() {
            self.apply(&change, &mut adopted);
        }
        // Mirror pods too: their logs are somebody's.
        let mut known: HashSet<String> = informer.cache().objects().iter().map(|pod| pod.meta().uid.clone()).collect();
        self.end_all_but(&known);
        known.extend(self.static_pods().iter().filter_map(|pod| pod.metadata.uid.clone()));
        known.extend(self.pods.lock().keys().cloned());
        let left = observe::orphaned_files(&self, &known);
        self.remove_orphans(std::mem::take(&mut adopted), left);
        // What the API shows of files that are gone, too.
        self.mirrors_stale.notify_one();
        loop {
            tokio::select! {
                change = changes.next() => self.apply(&change, &mut adopted),
                event = events.recv() => if !self.happened(event) {
                    return;
                },
                () = static_changed(&files) => self.sync_static(&mut files, &mut adopted),
                () = self.static_ended.notified() => self.sync_static(&mut files, &mut adopted),
            }
        }
    }

    /// What the API has no more, though nobody was told: all that is known here is from before a new beginning.
    fn end_all_but(&self, known: &HashSet<String>) {
        for (uid, handle) in self.pods.lock().iter() {
            let desired = handle.desired.borrow().clone();
            if !known.contains(uid) && !desired.gone && !is_of_file(&desired.pod) {
                handle.desired.send_modify(|desired| desired.gone = true);
            }
        }
        self.mirrors.lock().retain(|_, mirror| known.contains(pod::uid(mirror)));
    }

    /// The runtime tells of a container; false when it tells of nothing any more.
    fn happened(&self, event: Result<sandbox::cri::ContainerEvent, broadcast::error::RecvError>) -> bool {
        match event {
            Ok(event) => {
                if let Some(handle) = self.pods.lock().get(&event.pod_uid) {
                    handle.shared.wake.notify_one();
                }
            }
            Err(broadcast::error::RecvError::Lagged(_)) => self.pods.lock().values().for_each(|handle| handle.shared.wake.notify_one()),
            Err(broadcast::error::RecvError::Closed) => return false,
        }
        true
    }

    fn open_static_pods(&self) -> Option<StaticPods> {
        let folder = self.config.static_pod_path.as_ref()?;
        match StaticPods::open(folder, &self.config.node_name) {
            Ok(files) => Some(files),
            Err(error) => {
                tracing::error!(folder = %folder.display(), %error, "static pods cannot be followed");
                None
            }
        }
    }

    /// Starts what the folder says and ends what it says no more; a changed pod when the one before it has ended.
    fn sync_static(self: &Arc<Self>, files: &mut Option<StaticPods>, adopted: &mut HashMap<String, Vec<sandbox::cri::PodSandboxStatus>>) {
        let Some(files) = files else { return };
        let wanted = files.read(self.now());
        if *self.statics.lock() != wanted {
            self.statics.lock().clone_from(&wanted);
            self.mirrors_stale.notify_one();
        }
        let mut pods = self.pods.lock();
        for (uid, handle) in pods.iter() {
            let known = handle.desired.borrow().clone();
            if is_of_file(&known.pod) && !known.gone && !wanted.iter().any(|pod| pod::uid(pod) == uid) {
                handle.desired.send_modify(|desired| desired.gone = true);
            }
        }
        for pod in wanted {
            let same = |other: &Pod| is_of_file(other) && pod::name(other) == pod::name(&pod) && pod::namespace(other) == pod::namespace(&pod);
            if pods.values().any(|handle| same(&handle.desired.borrow().pod)) {
                continue;
            }
            let sandboxes = adopted.remove(pod::uid(&pod)).unwrap_or_default().into_iter().map(|s| s.id).collect();
            pods.insert(pod::uid(&pod).to_owned(), Worker::spawn(self, pod, sandboxes));
        }
        self.room_changed(&pods);
    }

    /// The runtime's sandboxes by pod, newest last.
    async fn adoptable(&self) -> HashMap<String, Vec<sandbox::cri::PodSandboxStatus>> {
        let mut sandboxes = match self.runtime.list_pod_sandboxes().await {
            Ok(list) => list,
            Err(error) => {
                tracing::error!(%error, "cannot list what already runs");
                Vec::new()
            }
        };
        sandboxes.sort_by_key(|s| (s.metadata.attempt, s.created_at));
        let mut by_pod: HashMap<String, Vec<_>> = HashMap::new();
        for sandbox in sandboxes {
            by_pod.entry(sandbox.metadata.uid.clone()).or_default().push(sandbox);
        }
        by_pod
    }

    fn apply(self: &Arc<Self>, change: &client::Change, adopted: &mut HashMap<String, Vec<sandbox::cri::PodSandboxStatus>>) {
        let typed = |object: &Option<Arc<api::Object>>| object.as_ref().and_then(|o| o.typed::<Pod>().ok());
        let (old, new) = (typed(&change.old), typed(&change.new));
        if let Some(pod) = new.as_ref().or(old.as_ref()).filter(|pod| is_mirror(pod)) {
            // Shows what runs here by other means; the API holds no wish about it.
            let key = (pod::namespace(pod).to_owned(), pod::name(pod).to_owned());
            let mut mirrors = self.mirrors.lock();
            match &new {
                Some(pod) => drop(mirrors.insert(key.clone(), pod.clone())),
                None => drop(mirrors.remove(&key)),
            }
            drop(mirrors);
            if is_of_file(pod) {
                self.mirrors_stale.notify_one();
                // A new one has to be told how the pod is.
                let pods = self.pods.lock();
                let shown = pods.values().filter(|handle| (pod::namespace(&handle.desired.borrow().pod), pod::name(&handle.desired.borrow().pod)) == (&*key.0, &*key.1));
                shown.for_each(|handle| handle.shared.wake.notify_one());
            }
            return;
        }
        let uid = |pod: &Option<Arc<Pod>>| pod.as_ref().and_then(|p| p.metadata.uid.clone()).unwrap_or_default();
        let mut pods = self.pods.lock();
        if let Some(old) = &old
            && uid(&new) != uid(&Some(old.clone()))
            && let Some(handle) = pods.get(&uid(&Some(old.clone())))
        {
            handle.desired.send_modify(|desired| {
                desired.gone = true;
                desired.pod = old.clone();
            });
        }
        let Some(pod) = new else { return };
        let key = pod.metadata.uid.clone().unwrap_or_default();
        match pods.get(&key) {
            Some(handle) => drop(handle.desired.send_replace(Desired { pod, gone: false })),
            None => {
                let sandboxes = adopted.remove(&key).unwrap_or_default().into_iter().map(|s| s.id).collect();
                pods.insert(key, Worker::spawn(self, pod, sandboxes));
            }
        }
        self.room_changed(&pods);
    }

    /// What runs or lies here of pods the API no longer has.
    fn remove_orphans(self: &Arc<Self>, orphans: HashMap<String, Vec<sandbox::cri::PodSandboxStatus>>, files: observe::Files) {
        let node = self.clone();
        tokio::spawn(async move {
            for (uid, sandboxes) in orphans {
                for sandbox in &sandboxes {
                    observe::remove_sandbox(&node, &sandbox.id).await;
                }
                if let Some(last) = sandboxes.last() {
                    observe::remove_files(&node, &last.metadata.namespace, &last.metadata.name, &uid).await;
                }
            }
            observe::remove_orphaned_files(&node, files).await;
        });
    }
}
