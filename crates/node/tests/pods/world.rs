//! A cluster of one node in this process, in its own directories.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::k8s::api::core::v1::{ConfigMap, Event, Pod, ServiceAccount};
use api::world::SystemClock;
use client::{Client, Informer, ListOptions};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use node::{Credentials, ImageError, ImageInfo, Images, Node, RunConfig};
use sandbox::cri::{BoxFuture, PodNetwork, PodSandboxConfig};
use serde_json::{Value, json};

/// No single step of a test may take longer.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Nothing but loopback; it can be told to be slow, and to fail.
#[derive(Default)]
pub struct NoNetwork {
    /// Attaching the pod of that name waits for the semaphore.
    pub slow: Mutex<Option<(String, Arc<Semaphore>)>>,
    /// The sandbox that waits.
    pub waiting: watch::Sender<Option<String>>,
    /// So often the pod of that name cannot be detached.
    pub stuck: Mutex<(String, u32)>,
}

impl PodNetwork for NoNetwork {
    fn attach<'a>(&'a self, id: &'a str, namespace: &'a Path, config: &'a PodSandboxConfig) -> BoxFuture<'a, Result<Vec<IpAddr>, String>> {
        let namespace = namespace.to_owned();
        Box::pin(async move {
            let gate = self.slow.lock().clone().filter(|(name, _)| *name == config.metadata.name);
            if let Some((_, gate)) = gate {
                self.waiting.send_replace(Some(id.to_owned()));
                gate.acquire().await.map_err(|e| e.to_string())?.forget();
            }
            // A thread of its own, for it enters the namespace and never comes back.
            std::thread::spawn(move || loopback_up(&namespace)).join().map_err(|_| "panicked".to_owned())?.map_err(|e| e.to_string())?;
            Ok(vec![IpAddr::from([10, 244, 0, 7])])
        })
    }
    fn detach<'a>(&'a self, _: &'a str, config: &'a PodSandboxConfig) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async {
            let mut stuck = self.stuck.lock();
            if stuck.0 != config.metadata.name || stuck.1 == 0 {
                return Ok(());
            }
            stuck.1 -= 1;
            Err("not now".to_owned())
        })
    }
}

fn loopback_up(namespace: &Path) -> std::io::Result<()> {
    use std::os::fd::AsRawFd;
    nix::sched::setns(std::fs::File::open(namespace)?, nix::sched::CloneFlags::CLONE_NEWNET)?;
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: an all-zero `ifreq` is a valid one; the name fits and is terminated by the zeroes after it; the call only reads it.
    let failed = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[..2].copy_from_slice(&[b'l' as libc::c_char, b'o' as libc::c_char]);
        request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request)
    };
    if failed < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether looking for the image `panics` does.
pub static PANICS: AtomicBool = AtomicBool::new(false);

/// Knows `busybox` only.
struct Busybox(PathBuf);

impl Images for Busybox {
    fn find<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<ImageInfo>, ImageError>> {
        Box::pin(async move {
            if reference == "panics" && PANICS.swap(false, Ordering::Relaxed) {
                panic!("on purpose");
            }
            if reference.starts_with('/') {
                return Err(ImageError::Invalid(format!("couldn't parse image reference {reference:?}: invalid reference format")));
            }
            let config = RunConfig { entrypoint: vec![], cmd: vec!["sh".into()], env: vec!["PATH=/bin".into()], ..RunConfig::default() };
            Ok(matches!(reference, "busybox" | "panics").then(|| ImageInfo { id: "sha256:0123".into(), layers: vec![self.0.clone()], config, ..ImageInfo::default() }))
        })
    }
    fn pull<'a>(&'a self, _: &'a str, _: &'a [Credentials]) -> BoxFuture<'a, Result<ImageInfo, ImageError>> {
        Box::pin(async { Err(ImageError::Failed("no such registry".into())) })
    }
    fn remove<'a>(&'a self, id: &'a str, _: std::collections::HashSet<PathBuf>) -> BoxFuture<'a, Result<(), ImageError>> {
        Box::pin(async move { Err(ImageError::Failed(format!("{id} is not to go"))) })
    }
    fn list(&self) -> BoxFuture<'_, Vec<ImageInfo>> {
        Box::pin(async { vec![] })
    }
}

fn make_image(dir: &Path) {
    for name in ["bin", "etc", "tmp", "root"] {
        std::fs::create_dir_all(dir.join(name)).unwrap();
    }
    std::fs::copy("/bin/busybox", dir.join("bin/busybox")).expect("busybox-static is installed");
    for name in ["sh", "echo", "cat", "sleep", "env", "hostname", "true", "false", "test", "touch", "nc", "httpd", "id", "stty", "rm", "ls", "tail", "stat", "mount", "grep"] {
        std::os::unix::fs::symlink("busybox", dir.join("bin").join(name)).unwrap();
    }
    std::fs::write(dir.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
}

/// A KubeletConfiguration.
pub fn settings(given: Value) -> node::configuration::Settings {
    node::configuration::Settings::read(&given).expect("a valid configuration").0
}

pub struct World {
    pub dir: PathBuf,
    pub client: Client,
    pub pods: Informer<Pod>,
    pub events: Informer<Event>,
    pub node: Arc<Node>,
    pub network: Arc<NoNetwork>,
    runtime: sandbox::Config,
}

impl World {
    pub async fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("coracle-node-{}", std::process::id()));
        make_image(&dir.join("image"));
        let store = Arc::new(store::Embedded::open(store::Config::memory()).expect("store"));
        let key = server::TokenKey::from_pkcs8(&server::TokenKey::generate().expect("key")).expect("key");
        let chance: server::Chance = Arc::new(|buffer| {
            use std::io::Read;
            std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(buffer)).expect("random");
        });
        let mut config = server::Config::new(Arc::new(key), "no CA".into());
        config.advertise_address = IpAddr::from([192, 0, 2, 1]);
        let api = server::Api::open(store, Arc::new(SystemClock), chance, config, Arc::new(server::NodeDialer)).await.expect("api");
        let client = Client::new(Arc::new(server::Local::new(api, "system:node:node1")), "test");
        // What the controllers make in every namespace.
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "default"}});
        client.of::<ServiceAccount>(Some("default")).create(&serde_json::from_value(account).unwrap()).await.expect("service account");
        let network = Arc::new(NoNetwork::default());
        let runtime = sandbox::Config {
            root_dir: dir.join("root"),
            state_dir: dir.join("state"),
            shim_exe: std::env::current_exe().expect("own path"),
            network: network.clone(),
        };
        let pods = Informer::<Pod>::of(&client, None).start();
        pods.synced().await;
        let node = Self::start_node(&dir, &client, &runtime, |_| {});
        let events = Informer::<Event>::of(&client, None).start();
        let world = Self { dir, client, pods, events, node, network, runtime };
        world.config_map("kube-root-ca.crt", json!({"ca.crt": "CA"})).await;
        world
    }

    fn start_node(dir: &Path, client: &Client, runtime: &sandbox::Config, change: impl FnOnce(&mut node::Config)) -> Arc<Node> {
        let mut config = node::Config::new("node1", IpAddr::from([127, 0, 0, 1]), "v1.36.2", dir.join("kubelet"));
        config.log_dir = dir.join("logs");
        config.static_pod_path = Some(dir.join("manifests"));
        config.cluster_dns = vec![IpAddr::from([10, 96, 0, 10])];
        // Of the host's disk and shutdown this test is to know nothing.
        config.system_bus = dir.join("bus");
        config.logind_conf_dir = dir.join("logind.conf.d");
        config.settings = settings(json!({"evictionHard": {"memory.available": "0%"}, "imageGCHighThresholdPercent": 100}));
        change(&mut config);
        let embedded = sandbox::Embedded::open(runtime.clone()).expect("runtime");
        Node::start(config, client.clone(), Arc::new(embedded), Arc::new(Busybox(dir.join("image"))), Arc::new(SystemClock))
    }

    /// As after kill -9: nothing is told to anyone.
    pub fn restart_node(&mut self) {
        self.restart_node_with(|_| {});
    }

    /// The same, with another configuration.
    pub fn restart_node_with(&mut self, change: impl FnOnce(&mut node::Config)) {
        self.node.shutdown();
        self.node = Self::start_node(&self.dir, &self.client, &self.runtime, change);
    }

    pub async fn create(&self, name: &str, spec: Value) -> Arc<Pod> {
        let mut spec = spec;
        spec["nodeName"] = json!("node1");
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "labels": {"app": name}}, "spec": spec});
        self.client.of::<Pod>(Some("default")).create(&serde_json::from_value(pod).unwrap()).await.expect("create")
    }

    pub async fn config_map(&self, name: &str, data: Value) {
        let map: ConfigMap = serde_json::from_value(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": data})).unwrap();
        self.client.of::<ConfigMap>(Some("default")).create(&map).await.expect("config map");
    }

    /// Until the pod satisfies `done`; the pod as it was last otherwise.
    pub async fn until(&self, name: &str, what: &str, mut done: impl FnMut(&Pod) -> bool) -> Arc<Pod> {
        let waited = tokio::time::timeout(PATIENCE, self.pods.until(|cache| cache.get("default", name).is_some_and(|pod| done(&pod)))).await;
        let pod = self.pods.cache().get("default", name);
        match (waited, pod) {
            (Ok(()), Some(pod)) => pod,
            (_, pod) => panic!("{name}: not {what}: {:#?} {}", self.events(name).await, serde_json::to_string_pretty(&pod.and_then(|p| p.status.clone())).unwrap()),
        }
    }

    pub async fn gone(&self, name: &str) {
        tokio::time::timeout(PATIENCE, self.pods.until(|cache| !cache.contains("default", name))).await.unwrap_or_else(|_| panic!("{name} is still there"));
    }

    /// Until it is gone, or the one that is there is `another`.
    pub async fn until_gone_or(&self, name: &str, another: impl Fn(&Pod) -> bool) {
        tokio::time::timeout(PATIENCE, self.pods.until(|cache| cache.get("default", name).is_none_or(|pod| another(&pod)))).await.unwrap_or_else(|_| panic!("{name} is still there"));
    }

    pub async fn delete(&self, name: &str, grace: i64) {
        let options = client::DeleteOptions { grace_period_seconds: Some(grace), ..client::DeleteOptions::default() };
        self.client.of::<Pod>(Some("default")).delete(name, &options).await.expect("delete");
    }

    pub fn log(&self, pod: &Pod, container: &str, attempt: u32) -> String {
        let folder = format!("default_{}_{}", pod.metadata.name.as_deref().unwrap(), pod.metadata.uid.as_deref().unwrap());
        let text = std::fs::read_to_string(self.dir.join("logs").join(folder).join(container).join(format!("{attempt}.log"))).unwrap_or_default();
        text.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned() + "\n").collect()
    }

    /// `Reason: message` of the pod's events so far.
    pub async fn events(&self, name: &str) -> Vec<String> {
        let list = self.client.of::<Event>(Some("default")).list(&ListOptions::default()).await.expect("events");
        let of = |event: Arc<Event>| (event.involved_object.name.as_deref() == Some(name)).then(|| format!("{}: {}", event.reason.clone().unwrap_or_default(), event.message.clone().unwrap_or_default()));
        list.items.iter().filter_map(|o| o.typed::<Event>().ok()).filter_map(of).collect()
    }

    /// Waits for the pod's event: it is written a moment after what it tells of.
    pub async fn event(&self, name: &str, expected: &str) {
        let wait = self.events.until(|cache| {
            cache.list().iter().any(|event| {
                event.involved_object.name.as_deref() == Some(name)
                    && format!("{}: {}", event.reason.as_deref().unwrap_or_default(), event.message.as_deref().unwrap_or_default()) == expected
            })
        });
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            panic!("{name}: no event {expected:?} in {:#?}", self.events(name).await);
        }
    }

    /// A connection to the node's own API, as the API server in this process has it.
    fn dial(&self) -> tokio::io::DuplexStream {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let node = self.node.clone();
        tokio::spawn(node::door::serve_connection(Box::new(theirs), node));
        ours
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        use http_body_util::BodyExt;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(self.dial())).await.expect("handshake");
        tokio::spawn(connection);
        let request = hyper::Request::get(path).header("host", "node1").body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
        let answer = sender.send_request(request).await.expect("answer");
        let status = answer.status().as_u16();
        let body = tokio::time::timeout(PATIENCE, answer.into_body().collect()).await.expect("in time").expect("body").to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    /// The frames of an answer, as they come.
    pub async fn stream(&self, path: &str) -> tokio::sync::mpsc::UnboundedReceiver<bytes::Bytes> {
        use http_body_util::BodyExt;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(self.dial())).await.expect("handshake");
        tokio::spawn(connection);
        let request = hyper::Request::get(path).header("host", "node1").body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
        let mut body = sender.send_request(request).await.expect("answer").into_body();
        let (out, frames) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(frame)) = body.frame().await {
                if frame.into_data().is_ok_and(|data| out.send(data).is_err()) {
                    return;
                }
            }
        });
        frames
    }

    pub async fn websocket(&self, path: &str, protocol: &str) -> tokio_tungstenite::WebSocketStream<tokio::io::DuplexStream> {
        let request = http::Request::get(format!("ws://node1{path}"))
            .header("Host", "node1")
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", tokio_tungstenite::tungstenite::handshake::client::generate_key())
            .header("Sec-WebSocket-Protocol", protocol)
            .body(())
            .unwrap();
        tokio_tungstenite::client_async(request, self.dial()).await.expect("upgrade").0
    }

    /// A connection that speaks SPDY; or code and text of the refusal.
    pub async fn spdy(&self, path: &str, protocols: &[&str]) -> Result<spdy::Connection, (u16, String)> {
        use http_body_util::BodyExt;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(self.dial())).await.expect("handshake");
        tokio::spawn(connection.with_upgrades());
        let request = hyper::Request::post(path).header("host", "node1").header("connection", "Upgrade").header("upgrade", "SPDY/3.1");
        let request = protocols.iter().fold(request, |request, protocol| request.header("x-stream-protocol-version", *protocol));
        let answer = sender.send_request(request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap()).await.expect("answer");
        if answer.status() != http::StatusCode::SWITCHING_PROTOCOLS {
            let code = answer.status().as_u16();
            return Err((code, String::from_utf8_lossy(&answer.into_body().collect().await.expect("body").to_bytes()).into_owned()));
        }
        assert_eq!(answer.headers()["x-stream-protocol-version"], protocols[0]);
        Ok(spdy::Connection::client(hyper_util::rt::TokioIo::new(hyper::upgrade::on(answer).await.expect("upgrade"))))
    }

    pub fn end(self) {
        self.node.shutdown();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.node.shutdown();
        let _ = sandbox::reset(&self.runtime);
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for line in mounts.lines().filter(|l| l.contains(self.dir.to_str().unwrap_or("?"))) {
            if let Some(path) = line.split(' ').nth(1) {
                let _ = nix::mount::umount2(path, nix::mount::MntFlags::MNT_DETACH);
            }
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A container's state in words.
pub fn state(pod: &Pod, container: &str) -> String {
    let status = pod.status.clone().unwrap_or_default();
    let all = status.init_container_statuses.into_iter().flatten().chain(status.container_statuses.into_iter().flatten());
    let Some(found) = all.into_iter().find(|c| c.name == container) else { return "none".into() };
    let state = found.state.unwrap_or_default();
    if state.running.is_some() {
        return "running".into();
    }
    if let Some(t) = state.terminated {
        return format!("{} {}", t.reason.unwrap_or_default(), t.exit_code);
    }
    let waiting = state.waiting.unwrap_or_default();
    format!("{} {}", waiting.reason.unwrap_or_default(), waiting.message.unwrap_or_default()).trim().to_owned()
}

pub fn restarts(pod: &Pod) -> i32 {
    pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten()).map(|c| c.restart_count).sum()
}

pub fn ready(pod: &Pod) -> bool {
    pod.status.iter().flat_map(|s| s.conditions.iter().flatten()).any(|c| c.type_ == "Ready" && c.status == "True")
}

pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}
