//! From the API to the packet: the API server in process, this node's networking in a network namespace of its own. Needs root.

#[path = "host/mod.rs"]
mod host;

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use api::k8s::api::core::v1::{ConfigMap, Service};
use api::k8s::api::discovery::v1::EndpointSlice;
use client::{DeleteOptions, PatchKind};
use host::{api_server, config, in_a_namespace, ip};
use node::networking::Networking;
use sandbox::cri::PodSandboxConfig;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(10);

/// A pod that answers each TCP connection on port 8080 with its name.
async fn pod(networking: &Networking, name: &'static str) -> (File, IpAddr) {
    let namespace = network::netns::create().expect("namespace");
    let path = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
    let addresses = networking.pod_network().attach(name, path.as_ref(), &PodSandboxConfig::default()).await.expect("attach");
    let listener = network::netns::run_in(&namespace, || TcpListener::bind("0.0.0.0:8080").expect("listen")).expect("enter");
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.write_all(name.as_bytes());
        }
    });
    (namespace, addresses[0])
}

fn ask(to: SocketAddr) -> Result<String, ErrorKind> {
    let mut text = String::new();
    TcpStream::connect_timeout(&to, Duration::from_secs(2)).and_then(|mut s| s.read_to_string(&mut text)).map_err(|e| e.kind())?;
    Ok(text)
}

/// The address a name has, asked as a pod asks.
fn resolve(name: &str) -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("timeout");
    socket.connect("10.96.0.10:53").expect("connect");
    let mut message = vec![1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    socket.send(&message).ok()?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).ok()?;
    let found = answer[7] > 0;
    found.then(|| <[u8; 4]>::try_from(&answer[message.len() + 12..length.min(message.len() + 16)]).ok().map(IpAddr::from)).flatten()
}

/// How long until it is so. Asked again and again: what is awaited is in the kernel, which tells nobody.
async fn until(what: &str, mut done: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "not in time: {what}");
        tokio::task::yield_now().await;
    }
    start.elapsed()
}

fn slice(endpoints: &[IpAddr]) -> Value {
    let endpoints: Vec<Value> = endpoints.iter().map(|a| json!({"addresses": [a], "conditions": {"ready": true}, "nodeName": "node1"})).collect();
    json!({
        "metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
    })
}

async fn scenario() {
    let dir = tempfile::tempdir().expect("tempdir");
    let client = api_server("system:kube-proxy").await;
    let mut networking = Networking::open(config(dir.path())).await.expect("open");
    networking.follow(&client).expect("follow");
    let ((client_pod, _), (_a, a), (_b, b)) = (pod(&networking, "client").await, pod(&networking, "a").await, pod(&networking, "b").await);
    let from_pod = |to: SocketAddr| network::netns::run_in(&client_pod, || ask(to)).expect("enter");
    let name = |name: &str| network::netns::run_in(&client_pod, || resolve(name)).expect("enter");

    until("the name server answers pods", || name("ns.dns.cluster.local") == Some(ip("10.96.0.10"))).await;
    assert_eq!(name("web.default.svc.cluster.local"), None);

    // The Service, without endpoints yet.
    let spec = json!({"type": "NodePort", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080, "nodePort": 30001}]});
    let service = serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": spec})).expect("service");
    let service = client.of::<Service>(Some("default")).create(&service).await.expect("create");
    let vip = ip(service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()).expect("a cluster IP"));
    let took = until("its name", || name("web.default.svc.cluster.local") == Some(vip)).await;
    println!("service to name: {took:?}");
    until("refusal", || from_pod((vip, 80).into()) == Err(ErrorKind::ConnectionRefused)).await;

    let slices = client.of::<EndpointSlice>(Some("default"));
    slices.create(&serde_json::from_value(slice(&[a])).expect("slice")).await.expect("create");
    let took = until("a answers", || from_pod((vip, 80).into()).as_deref() == Ok("a")).await;
    println!("endpoint slice to packet: {took:?}");
    assert_eq!(ask((ip("127.0.0.1"), 30001).into()).as_deref(), Ok("a"), "node port on localhost");

    slices.patch("web-1", PatchKind::Merge, json!({"endpoints": slice(&[b])["endpoints"]})).await.expect("patch");
    until("b answers", || from_pod((vip, 80).into()).as_deref() == Ok("b")).await;
    client.of::<Service>(Some("default")).delete("web", &DeleteOptions::default()).await.expect("delete");
    until("the name is gone", || name("web.default.svc.cluster.local").is_none()).await;
    until("the node port is gone", || ask((ip("127.0.0.1"), 30001).into()).is_err()).await;

    // A Corefile, as whoever customizes CoreDNS writes it: its hosts at once, a mistake changes nothing, and without it all is as before.
    let maps = client.of::<ConfigMap>(Some("kube-system"));
    let corefile = |text: &str| json!({"metadata": {"name": "coredns"}, "data": {"Corefile": text}});
    maps.create(&serde_json::from_value(corefile(". {\n hosts {\n  192.0.2.77 printer.example\n }\n}")).expect("map")).await.expect("create");
    until("a name of the Corefile", || name("printer.example") == Some(ip("192.0.2.77"))).await;
    maps.patch("coredns", PatchKind::Merge, corefile(". {\n hosts {\n  nonsense printer.example\n }\n}")).await.expect("patch");
    maps.patch("coredns", PatchKind::Merge, corefile(". {\n hosts {\n  192.0.2.78 printer.example\n }\n}")).await.expect("patch");
    until("another address", || name("printer.example") == Some(ip("192.0.2.78"))).await;
    maps.delete("coredns", &DeleteOptions::default()).await.expect("delete");
    until("the name is nobody's", || name("printer.example").is_none()).await;
    let metrics = SocketAddr::from((ip("10.96.0.10"), 9153));
    let scrape = || {
        let mut text = String::new();
        TcpStream::connect(metrics).and_then(|mut stream| stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").and_then(|()| stream.read_to_string(&mut text))).map(|_| text).unwrap_or_default()
    };
    until("metrics by the Service", || scrape().contains("coredns_dns_requests_total{")).await;

    // A restart: the name server is elsewhere, and pods find it.
    drop(networking);
    let mut networking = Networking::open(config(dir.path())).await.expect("open again");
    networking.follow(&client).expect("follow");
    until("the name server answers again", || name("ns.dns.cluster.local") == Some(ip("10.96.0.10"))).await;
    drop(networking);
    Networking::reset(&config(dir.path())).expect("reset");
    assert!(!dir.path().join("network").exists());
}

/// The machine restarted: the files are there, the kernel knows nothing, and no pod runs any more.
async fn restarted() {
    let dir = tempfile::tempdir().expect("tempdir");
    let owners = |networking: &Networking| networking.pods().expect("built in").addresses().into_values().collect::<Vec<_>>();
    let sandbox = |id: &str, state: &str| -> sandbox::cri::PodSandboxStatus {
        let value = json!({"id": id, "metadata": {"name": id, "namespace": "default", "uid": id, "attempt": 0}, "state": state, "created_at": 0, "ips": [], "network_namespace": null,
            "namespaces": sandbox::cri::NamespaceOptions::default(), "labels": {}, "annotations": {}});
        serde_json::from_value(value).expect("status")
    };
    let networking = Networking::open(config(dir.path())).await.expect("open");
    for name in ["alive", "dead", "unknown"] {
        pod(&networking, name).await;
    }
    drop(networking);
    let networking = Networking::open(config(dir.path())).await.expect("open again");
    assert_eq!(owners(&networking), ["alive", "dead", "unknown"]);
    networking.retain(&[sandbox("alive", "Ready"), sandbox("dead", "NotReady")]).await.expect("retain");
    assert_eq!(owners(&networking), ["alive"]);
    networking.retain(&[]).await.expect("retain nothing");
    assert!(owners(&networking).is_empty());
    drop(networking);
    Networking::reset(&config(dir.path())).expect("reset");
}

#[test]
fn allocations_of_the_dead_are_given_back() {
    in_a_namespace(restarted());
}

#[test]
fn services_from_the_api_reach_packets_and_names() {
    in_a_namespace(scenario());
}
