//! What the network's tests share: an API server in the process, a node's configuration, and a namespace of one's own for what they do to the host.

use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use api::world::SystemClock;
use client::Client;
use node::networking::NetworkingConfig;

/// A scenario holds a whole API server, unoptimised.
const STACK_BYTES: usize = 16 << 20;

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("address {text}"))
}

pub async fn api_server(user: &str) -> Client {
    let store = Arc::new(store::Embedded::open(store::Config::memory()).expect("store"));
    let key = server::TokenKey::from_pkcs8(&server::TokenKey::generate().expect("key")).expect("key");
    let chance: server::Chance = Arc::new(|buffer| File::open("/dev/urandom").and_then(|mut f| f.read_exact(buffer)).expect("random"));
    let mut config = server::Config::new(Arc::new(key), "no CA".into());
    config.advertise_address = ip("192.0.2.1");
    let api = server::Api::open(store, Arc::new(SystemClock), chance, config, Arc::new(server::NodeDialer)).await.expect("api");
    Client::new(Arc::new(server::Local::new(api, user)), "test")
}

/// A node of an IPv4 cluster with the built-in network.
pub fn config(dir: &Path) -> NetworkingConfig {
    let range = |text: &str| text.parse().into_iter().collect();
    let resolv_conf = dir.join("resolv.conf");
    std::fs::write(&resolv_conf, "").expect("write");
    NetworkingConfig {
        node_name: "node1".into(),
        pod_cidrs: range("10.244.0.0/24"),
        cluster_cidrs: range("10.244.0.0/16"),
        service_cidrs: range("10.96.0.0/12"),
        cluster_dns: vec![ip("10.96.0.10")],
        cluster_domain: "cluster.local".into(),
        service_proxy: true,
        node_addresses: Vec::new(),
        resolv_conf,
        state_dir: dir.join("network"),
        applied: None,
    }
}

pub fn in_a_namespace(scenario: impl Future<Output = ()> + Send) {
    // Not on the stack of a thread that only changes its namespace.
    let scenario = Box::pin(scenario);
    let namespace = network::netns::create().expect("namespace");
    network::netns::run_in(&namespace, || {
        let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("iproute2");
        assert!(up.success());
        // Threads are born in the namespace of the one that starts them.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_stack_size(STACK_BYTES).enable_all().build().expect("runtime");
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
            thread.spawn_scoped(scope, || runtime.block_on(scenario)).expect("thread").join()
        })
        .expect("scenario");
    })
    .expect("test");
}
