//! From the API to the packet: how long after a NetworkPolicy, or a pod's labels, changed the node lets through what it must and nothing else, with 1,000 pods and 100
//! policies. The API server is in this process, the node's networking in a network namespace of its own. As root: `cargo run --release -p node --example convergence`.

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::k8s::api::core::v1::{Pod, ServiceAccount};
use api::world::SystemClock;
use client::{Body, Client, DeleteOptions, PatchKind, Target, WriteOptions};
use node::networking::{Networking, NetworkingConfig};
use sandbox::cri::{PodSandboxConfig, PodSandboxMetadata};
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const PODS: u32 = 1000;
const POLICIES: u32 = 100;
const ROUNDS: usize = 50;
const PORT: u16 = 8080;
/// Between two packets of whoever looks.
const LOOK: Duration = Duration::from_micros(200);
const PATIENCE: Duration = Duration::from_secs(60);

async fn api_server() -> Result<Client> {
    let store = Arc::new(store::Embedded::open(store::Config::memory())?);
    let key = server::TokenKey::from_pkcs8(&server::TokenKey::generate().map_err(|error| format!("{error:?}"))?).map_err(|error| format!("{error:?}"))?;
    let chance: server::Chance = Arc::new(|buffer| drop(File::open("/dev/urandom").and_then(|mut file| file.read_exact(buffer))));
    let config = server::Config::new(Arc::new(key), "no CA".into());
    let api = server::Api::open(store, Arc::new(SystemClock), chance, config, Arc::new(server::NodeDialer)).await?;
    Ok(Client::new(Arc::new(server::Local::new(api, "system:kube-proxy")), "example"))
}

fn policies(name: Option<&str>) -> Target {
    Target { group: "networking.k8s.io".into(), version: "v1".into(), plural: "networkpolicies".into(), namespace: Some("default".into()), name: name.map(str::to_owned), ..Target::default() }
}

async fn create_policy(client: &Client, name: &str, spec: Value) -> Result<()> {
    client.transport().create(&policies(None), Body::Value(json!({"metadata": {"name": name}, "spec": spec})), &WriteOptions::default()).await?;
    Ok(())
}

async fn create_pod(client: &Client, name: &str, app: &str, address: IpAddr) -> Result<()> {
    let object = json!({"metadata": {"name": name, "labels": {"app": app}}, "spec": {"nodeName": "node1", "containers": [{"name": "c", "image": "x"}]}});
    let pods = client.of::<Pod>(Some("default"));
    pods.create(&serde_json::from_value(object)?).await?;
    pods.patch_status(name, PatchKind::Merge, json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}})).await?;
    Ok(())
}

/// A pod with a network.
async fn attach(networking: &Networking, client: &Client, name: &str) -> Result<(File, IpAddr)> {
    let namespace = network::netns::create()?;
    let path = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
    let metadata = PodSandboxMetadata { name: name.to_owned(), namespace: "default".to_owned(), uid: name.to_owned(), attempt: 0 };
    let config = PodSandboxConfig { metadata, labels: [("app".to_owned(), name.to_owned())].into(), ..PodSandboxConfig::default() };
    let addresses = networking.pod_network().attach(name, path.as_ref(), &config).await?;
    create_pod(client, name, name, addresses[0]).await?;
    Ok((namespace, addresses[0]))
}

/// How long until packets arrive, or no longer do.
async fn until(from: &UdpSocket, to: &UdpSocket, at: IpAddr, arrive: bool) -> Result<Duration> {
    let begun = Instant::now();
    let mut buffer = [0; 8];
    loop {
        while to.recv(&mut buffer).is_ok() {}
        let _ = from.send_to(b"x", (at, PORT));
        tokio::time::sleep(LOOK).await;
        // The way is a memory's: what has not arrived by now was stopped.
        if to.recv(&mut buffer).is_ok() == arrive {
            return Ok(begun.elapsed());
        }
        if begun.elapsed() > PATIENCE {
            return Err("it never came to be".into());
        }
    }
}

fn socket(namespace: &File, address: IpAddr, port: u16) -> Result<UdpSocket> {
    let socket = network::netns::run_in(namespace, || UdpSocket::bind((address, port)))??;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

async fn measure() -> Result<()> {
    let folder = std::env::temp_dir().join(format!("convergence-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let client = api_server().await?;
    client.of::<ServiceAccount>(Some("default")).create(&serde_json::from_value(json!({"metadata": {"name": "default"}}))?).await?;
    let config = NetworkingConfig {
        node_name: "node1".into(),
        pod_cidrs: vec!["10.244.0.0/20".parse()?],
        cluster_cidrs: vec!["10.244.0.0/16".parse()?],
        service_cidrs: vec!["10.96.0.0/12".parse()?],
        cluster_dns: vec!["10.96.0.10".parse()?],
        cluster_domain: "cluster.local".into(),
        service_proxy: true,
        node_addresses: Vec::new(),
        resolv_conf: folder.join("resolv.conf"),
        state_dir: folder.join("network"),
        applied: None,
    };
    let mut networking = Networking::open(config.clone()).await?;
    networking.follow(&client)?;
    let ((from, from_at), (to, to_at)) = (attach(&networking, &client, "from").await?, attach(&networking, &client, "to").await?);
    for i in 0..PODS {
        create_pod(&client, &format!("pod-{i}"), &format!("app-{}", i % POLICIES), Ipv4Addr::from_bits(0x0af4_0800 + i).into()).await?;
    }
    let app = |name: String| json!({"matchLabels": {"app": name}});
    for i in 0..POLICIES {
        let peers = json!([{"podSelector": app(format!("app-{}", (i + 1) % POLICIES))}, {"podSelector": app(format!("app-{}", (i + 2) % POLICIES)), "namespaceSelector": {}}]);
        create_policy(&client, &format!("policy-{i}"), json!({"podSelector": app(format!("app-{i}")), "ingress": [{"from": peers, "ports": [{"port": 80}]}]})).await?;
    }
    let (from, to) = (socket(&from, from_at, 0)?, socket(&to, to_at, PORT)?);
    until(&from, &to, to_at, true).await?;
    let mut times: [Vec<Duration>; 4] = Default::default();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        create_policy(&client, "to", json!({"podSelector": app("to".into()), "ingress": [{"from": [{"podSelector": app("friend".into())}]}]})).await?;
        until(&from, &to, to_at, false).await?;
        times[0].push(begun.elapsed());
        let pods = client.of::<Pod>(Some("default"));
        for (slot, label, arrive) in [(1, "friend", true), (2, "from", false)] {
            let begun = Instant::now();
            pods.patch("from", PatchKind::Merge, json!({"metadata": {"labels": {"app": label}}})).await?;
            until(&from, &to, to_at, arrive).await?;
            times[slot].push(begun.elapsed());
        }
        let begun = Instant::now();
        client.transport().delete(&policies(Some("to")), &DeleteOptions::default()).await?;
        until(&from, &to, to_at, true).await?;
        times[3].push(begun.elapsed());
    }
    println!("{PODS} pods and {POLICIES} policies on the node, {ROUNDS} rounds; from the request to the packet:");
    for (what, mut times) in ["a policy is made", "a pod gets the label of those allowed", "it loses it", "the policy is deleted"].iter().zip(times) {
        times.sort_unstable();
        println!("{what}: p50 {:?}, slowest {:?}", times[times.len() / 2], times[times.len() - 1]);
    }
    drop(networking);
    Networking::reset(&config)?;
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

fn main() -> Result<()> {
    let namespace = network::netns::create()?;
    network::netns::run_in(&namespace, || -> Result<()> {
        std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status()?;
        // Threads are born in the namespace of the one that starts them; what the API server does needs room.
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(16 << 20);
            let work = || tokio::runtime::Builder::new_multi_thread().thread_stack_size(16 << 20).enable_all().build()?.block_on(measure());
            thread.spawn_scoped(scope, work)?.join().unwrap_or_else(|_| Err("it panicked".into()))
        })
    })?
}
