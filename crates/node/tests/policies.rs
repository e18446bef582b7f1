//! Network policies from the API to the packet: upstream's truth tables (test/e2e/network/netpol) with real pods in network namespaces. Needs root.
//!
//! Nothing waits for a time: a round asks every pod by every pod at once, those first who are expected to hear nothing, and it is over when
//! all have answered who are expected to. Rounds go on until one is as expected.

#[path = "host/mod.rs"]
mod host;

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use api::k8s::api::core::v1::{Namespace, Pod, ServiceAccount};
use client::{Body, Client, DeleteOptions, PatchKind, Target, WriteOptions};
use node::networking::{Networking, NetworkingConfig};
use sandbox::cri::PodSandboxConfig;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);
/// How long one round waits for an answer that is expected; then comes the next round.
const ROUND: Duration = Duration::from_millis(250);
const PORTS: [u16; 2] = [80, 81];

/// Of both families.
fn config(dir: &std::path::Path) -> NetworkingConfig {
    let ranges = |texts: [&str; 2]| texts.iter().map(|t| t.parse().expect("range")).collect::<Vec<_>>();
    NetworkingConfig {
        pod_cidrs: ranges(["10.244.0.0/24", "fd00:10:244::/64"]),
        cluster_cidrs: ranges(["10.244.0.0/16", "fd00:10:244::/56"]),
        service_cidrs: ranges(["10.96.0.0/12", "fd00:10:96::/112"]),
        ..host::config(dir)
    }
}

struct TestPod {
    name: &'static str,
    namespace: File,
    addresses: Vec<IpAddr>,
    /// By port and family: what answers.
    servers: Vec<(u16, bool, UdpSocket)>,
}

fn parts(name: &str) -> (&str, &str) {
    name.split_once('/').expect("namespace/name")
}

impl TestPod {
    async fn start(networking: &Networking, client: &Client, name: &'static str) -> Self {
        let (namespace_name, pod) = parts(name);
        let mut sandbox = PodSandboxConfig::default();
        let object = json!({"metadata": {"name": pod, "labels": {"pod": pod}}, "spec": {"nodeName": "node1", "terminationGracePeriodSeconds": 0, "containers": [
            {"name": "c", "image": "x", "ports": [{"name": "serve-80", "containerPort": 80, "protocol": "UDP"}, {"name": "serve-81", "containerPort": 81, "protocol": "UDP"}]}]}});
        let pods = client.of::<Pod>(Some(namespace_name));
        let made = pods.create(&serde_json::from_value(object).expect("pod")).await.expect("create pod");
        sandbox.metadata.name = pod.to_owned();
        sandbox.metadata.namespace = namespace_name.to_owned();
        sandbox.metadata.uid = made.metadata.uid.clone().expect("uid");
        sandbox.labels = BTreeMap::from([("pod".to_owned(), pod.to_owned())]);
        let namespace = network::netns::create().expect("namespace");
        let path = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
        let addresses = networking.pod_network().attach(name, path.as_ref(), &sandbox).await.expect("attach");
        let ips: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        pods.patch_status(pod, PatchKind::Merge, json!({"status": {"phase": "Running", "podIP": addresses[0], "podIPs": ips}})).await.expect("status");
        let servers = addresses.iter().flat_map(|a| PORTS.map(|port| (port, a.is_ipv4(), bind(&namespace, (*a, port).into())))).collect();
        Self { name, namespace, addresses, servers }
    }

    fn address(&self, v4: bool) -> IpAddr {
        *self.addresses.iter().find(|a| a.is_ipv4() == v4).expect("address")
    }
}

fn bind(namespace: &File, address: SocketAddr) -> UdpSocket {
    network::netns::run_in(namespace, || {
        let socket = UdpSocket::bind(address).expect("bind");
        socket.set_nonblocking(true).expect("non-blocking");
        socket
    })
    .expect("enter")
}

struct PolicyApi(Client, &'static str);

impl PolicyApi {
    fn target(&self) -> Target {
        Target { group: "networking.k8s.io".into(), version: "v1".into(), plural: "networkpolicies".into(), namespace: Some(self.1.into()), ..Target::default() }
    }

    async fn create(&self, object: Value) {
        self.0.transport().create(&self.target(), Body::Value(object), &WriteOptions::default()).await.expect("create policy");
    }

    async fn delete(&self, name: &str) {
        self.0.transport().delete(&Target { name: Some(name.into()), ..self.target() }, &DeleteOptions::default()).await.expect("delete policy");
    }
}

/// Who reaches whom, in one family, by one port; asked anew until it is as `expected` says.
async fn reach(what: &str, pods: &[TestPod], port: u16, expected: impl Fn(&str, &str) -> bool + Sync) {
    for v4 in [true, false] {
        let start = Instant::now();
        loop {
            let wrong = round(pods, port, v4, &expected).await;
            if wrong.is_empty() {
                break;
            }
            assert!(start.elapsed() < PATIENCE, "{what}, port {port}, {}: {wrong:?}", if v4 { "IPv4" } else { "IPv6" });
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

async fn round(pods: &[TestPod], port: u16, v4: bool, expected: &(impl Fn(&str, &str) -> bool + Sync)) -> Vec<String> {
    let pairs = || pods.iter().flat_map(|from| pods.iter().map(move |to| (from, to))).filter(|(from, to)| from.name != to.name);
    let server = |pod: &'_ TestPod| pod.servers.iter().position(|(p, family, _)| *p == port && *family == v4).expect("server");
    // What a former round left.
    let mut buffer = [0; 64];
    for pod in pods {
        while pod.servers[server(pod)].2.recv_from(&mut buffer).is_ok() {}
    }
    let mut asked: Vec<(bool, &TestPod, &TestPod)> = pairs().map(|(from, to)| (expected(from.name, to.name), from, to)).collect();
    asked.sort_by_key(|(allowed, ..)| *allowed);
    let clients: BTreeMap<&str, UdpSocket> = pods.iter().map(|pod| (pod.name, bind(&pod.namespace, (pod.address(v4), 0).into()))).collect();
    for (_, from, to) in &asked {
        let _ = clients[from.name].send_to(from.name.as_bytes(), (to.address(v4), port));
    }
    let mut heard = std::collections::BTreeSet::new();
    let start = Instant::now();
    let wanted = asked.iter().filter(|(allowed, ..)| *allowed).count();
    loop {
        for to in pods {
            while let Ok((length, client)) = to.servers[server(to)].2.recv_from(&mut buffer) {
                let from = String::from_utf8_lossy(&buffer[..length]).into_owned();
                // The answer must come back too.
                let _ = to.servers[server(to)].2.send_to(to.name.as_bytes(), client);
                heard.insert((from, to.name.to_owned(), false));
            }
        }
        for from in pods {
            while let Ok((length, _)) = clients[from.name].recv_from(&mut buffer) {
                heard.insert((from.name.to_owned(), String::from_utf8_lossy(&buffer[..length]).into_owned(), true));
            }
        }
        let answered = asked.iter().filter(|(allowed, from, to)| *allowed && heard.contains(&(from.name.to_owned(), to.name.to_owned(), true))).count();
        if answered == wanted || start.elapsed() > ROUND {
            break;
        }
        tokio::task::yield_now().await;
    }
    let both = |from: &str, to: &str, answered| heard.contains(&(from.to_owned(), to.to_owned(), answered));
    asked.iter().filter(|(allowed, from, to)| if *allowed { !both(from.name, to.name, true) } else { both(from.name, to.name, false) }).map(|(allowed, from, to)| format!("{} -> {} not {allowed}", from.name, to.name)).collect()
}

async fn scenario() {
    let dir = tempfile::tempdir().expect("tempdir");
    let client = host::api_server("system:test").await;
    for name in ["x", "y", "z"] {
        let object = json!({"metadata": {"name": name, "labels": {"ns": name}}});
        client.of::<Namespace>(None).create(&serde_json::from_value(object).expect("namespace")).await.expect("create namespace");
        let account = json!({"metadata": {"name": "default"}});
        client.of::<ServiceAccount>(Some(name)).create(&serde_json::from_value(account).expect("account")).await.expect("create account");
    }
    let mut networking = Networking::open(config(dir.path())).await.expect("open");
    networking.follow(&client).expect("follow");
    let mut pods = Vec::new();
    for name in ["x/a", "x/b", "x/c", "y/a", "y/b", "z/a", "z/b"] {
        pods.push(TestPod::start(&networking, &client, name).await);
    }
    let address = |name: &str| pods.iter().find(|p| p.name == name).map(|p| p.addresses.clone()).expect("pod");
    let block = |ip: &IpAddr, wide: u8| format!("{ip}/{wide}");
    let policies = PolicyApi(client.clone(), "x");
    let a = json!({"matchLabels": {"pod": "a"}});
    let pod = |name: &str| json!({"podSelector": {"matchLabels": {"pod": name}}});
    let ns = |name: &str| json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}});
    let not_x = json!({"namespaceSelector": {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["x"]}]}});
    let both = |mut ns: Value, pod: Value| {
        ns["podSelector"] = pod["podSelector"].clone();
        ns
    };
    let from = |peers: Value| json!({"podSelector": a, "policyTypes": ["Ingress"], "ingress": [{"from": peers}]});
    let udp = |port: Value| json!([{"protocol": "UDP", "port": port}]);
    let on = |peers: Value, ports: Value| json!({"podSelector": a, "ingress": [{"from": peers, "ports": ports}]});
    let out = |peers: Value, ports: Value| json!({"podSelector": a, "policyTypes": ["Egress"], "egress": [{"to": peers, "ports": ports}]});
    let (z4, z6) = (address("z/a")[0], address("z/a")[1]);
    let z_blocks = json!([{"ipBlock": {"cidr": block(&z4, 32)}}, {"ipBlock": {"cidr": block(&z6, 128)}}]);
    let all_but_z = json!([{"ipBlock": {"cidr": "0.0.0.0/0", "except": [block(&z4, 32)]}}, {"ipBlock": {"cidr": "::/0", "except": [block(&z6, 128)]}}]);
    let in_x = |name: &str| name.starts_with("x/");
    type Expected = Box<dyn Fn(&str, &str) -> bool + Send + Sync>;
    let to_a = |allowed: &'static [&'static str]| -> Expected { Box::new(move |from, to| to != "x/a" || allowed.contains(&from)) };
    let from_a = |allowed: &'static [&'static str]| -> Expected { Box::new(move |from, to| from != "x/a" || allowed.contains(&to)) };
    let everything = || -> Expected { Box::new(|_, _| true) };
    let nothing = to_a(&[]);
    let cases: Vec<(&str, Vec<Value>, u16, Expected)> = vec![
        ("default-deny-ingress", vec![json!({"podSelector": {}})], 80, Box::new(move |_, to| !in_x(to))),
        ("default-deny-all", vec![json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})], 80, Box::new(move |from, to| !in_x(to) && !in_x(from))),
        ("default-deny-egress", vec![json!({"podSelector": {}, "policyTypes": ["Egress"]})], 80, Box::new(move |from, _| !in_x(from))),
        ("pod selector", vec![from(json!([pod("b")]))], 80, to_a(&["x/b"])),
        ("deny all, allow one target", vec![json!({"podSelector": {}}), from(json!([{"podSelector": {}, "namespaceSelector": {}}]))], 80, Box::new(move |_, to| !in_x(to) || to == "x/a")),
        ("all namespaces", vec![from(json!([{"namespaceSelector": {}}]))], 80, everything()),
        ("a namespace", vec![from(json!([ns("y")]))], 80, to_a(&["y/a", "y/b"])),
        ("match expressions", vec![from(json!([{"podSelector": {"matchExpressions": [{"key": "pod", "operator": "In", "values": ["b"]}]}}]))], 80, to_a(&["x/b"])),
        ("pod or namespace", vec![from(json!([not_x, pod("b")]))], 80, Box::new(|from, to| to != "x/a" || from != "x/c")),
        ("pod and namespace", vec![from(json!([both(not_x.clone(), pod("b"))]))], 80, to_a(&["y/b", "z/b"])),
        ("a pod of another namespace", vec![from(json!([both(ns("y"), pod("a"))]))], 80, to_a(&["y/a"])),
        ("ports, allowed", vec![on(json!([ns("y")]), udp(json!(81)))], 81, to_a(&["y/a", "y/b"])),
        ("ports, other", vec![on(json!([ns("y")]), udp(json!(81)))], 80, nothing),
        ("stacked", vec![on(json!([ns("y")]), udp(json!(80))), on(json!([ns("z")]), udp(json!(81)))], 81, to_a(&["z/a", "z/b"])),
        ("allow all", vec![json!({"podSelector": {}, "ingress": [{}]})], 81, everything()),
        ("named port", vec![on(json!([]), udp(json!("serve-81")))], 81, everything()),
        ("named port, other", vec![on(json!([]), udp(json!("serve-81")))], 80, to_a(&[])),
        ("named port, egress", vec![out(json!([]), udp(json!("serve-80")))], 80, everything()),
        ("named port, egress, other", vec![out(json!([]), udp(json!("serve-80")))], 81, from_a(&[])),
        ("port range", vec![on(json!([pod("b")]), json!([{"protocol": "UDP", "port": 81, "endPort": 90}]))], 81, to_a(&["x/b"])),
        ("port range, outside", vec![on(json!([pod("b")]), json!([{"protocol": "UDP", "port": 81, "endPort": 90}]))], 80, to_a(&[])),
        ("another protocol", vec![on(json!([]), json!([{"protocol": "TCP", "port": 80}, {"protocol": "SCTP"}]))], 80, to_a(&[])),
        ("any port of a protocol", vec![on(json!([]), json!([{"protocol": "UDP"}]))], 81, everything()),
        ("egress by pod and namespace", vec![out(json!([both(ns("y"), pod("a"))]), json!([]))], 80, from_a(&["y/a"])),
        ("egress to a block", vec![out(z_blocks.clone(), json!([]))], 80, from_a(&["z/a"])),
        ("egress but a block", vec![out(all_but_z.clone(), json!([]))], 80, Box::new(|from, to| from != "x/a" || to != "z/a")),
        ("a block and its exception, elsewhere allowed", vec![out(all_but_z, json!([])), out(z_blocks.clone(), json!([]))], 80, everything()),
        ("ingress from a block", vec![from(z_blocks)], 80, to_a(&["z/a"])),
        ("allow all takes precedence", vec![json!({"podSelector": {}}), json!({"podSelector": {}, "ingress": [{}]})], 80, everything()),
        ("egress denied though ingress is allowed", vec![json!({"podSelector": a, "policyTypes": ["Egress"]}), json!({"podSelector": {}, "ingress": [{}]})], 80, from_a(&[])),
        ("both directions", vec![json!({"podSelector": a, "policyTypes": ["Ingress", "Egress"], "ingress": [{"from": [pod("b")]}], "egress": [{"to": [ns("y")]}]})], 80,
            Box::new(|from, to| (to != "x/a" || from == "x/b") && (from != "x/a" || to.starts_with("y/")))),
    ];
    for (what, specs, port, expected) in &cases {
        for (index, spec) in specs.iter().enumerate() {
            let object = json!({"metadata": {"name": format!("p{index}")}, "spec": spec});
            policies.create(object).await;
        }
        reach(what, &pods, *port, expected).await;
        for index in 0..specs.len() {
            policies.delete(&format!("p{index}")).await;
        }
    }
    reach("policies are deleted", &pods, 80, |_, _| true).await;

    // Changes of what a policy selects by.
    let object = json!({"metadata": {"name": "labels"}, "spec": from(json!([{"namespaceSelector": {"matchLabels": {"team": "red"}}, "podSelector": {"matchLabels": {"tier": "web"}}}]))});
    policies.create(object).await;
    reach("nobody has the labels", &pods, 80, to_a(&[])).await;
    client.of::<Namespace>(None).patch("y", PatchKind::Merge, json!({"metadata": {"labels": {"team": "red"}}})).await.expect("label");
    client.of::<Pod>(Some("y")).patch("b", PatchKind::Merge, json!({"metadata": {"labels": {"tier": "web"}}})).await.expect("label");
    reach("a namespace and a pod are labelled", &pods, 80, to_a(&["y/b"])).await;
    client.of::<Pod>(Some("x")).patch("a", PatchKind::Merge, json!({"metadata": {"labels": {"pod": "free"}}})).await.expect("label");
    reach("the target has another label", &pods, 80, |_, _| true).await;
    client.of::<Pod>(Some("x")).patch("a", PatchKind::Merge, json!({"metadata": {"labels": {"pod": "a"}}})).await.expect("label");
    reach("and has it again", &pods, 80, to_a(&["y/b"])).await;
    // A new pod is isolated when attach returns; the first packet tells.
    let object = json!({"metadata": {"name": "deny"}, "spec": {"podSelector": {"matchLabels": {"pod": "late"}}}});
    policies.create(object).await;
    PolicyApi(client.clone(), "y").create(json!({"metadata": {"name": "seen"}, "spec": {"podSelector": {}}})).await;
    reach("the policy is known", &pods, 80, |from, to| !to.starts_with("y/") && to_a(&["y/b"])(from, to)).await;
    pods.push(TestPod::start(&networking, &client, "x/late").await);
    let wrong = round(&pods, 80, true, &|from, to: &str| to != "x/late" && !to.starts_with("y/") && to_a(&["y/b"])(from, to)).await;
    assert!(wrong.iter().all(|line| !line.contains("-> x/late")), "{wrong:?}");

    // A restart of the node's process goes on where it was.
    drop(networking);
    let mut networking = Networking::open(config(dir.path())).await.expect("open again");
    networking.follow(&client).expect("follow");
    reach("after a restart", &pods, 80, |from, to| to != "x/late" && !to.starts_with("y/") && to_a(&["y/b"])(from, to)).await;
    drop(networking);
    Networking::reset(&config(dir.path())).expect("reset");
    let rules = std::process::Command::new("nft").args(["list", "ruleset"]).output().expect("nft");
    assert!(!String::from_utf8_lossy(&rules.stdout).contains("coracle-policy"));
}

#[test]
fn truth_tables() {
    host::in_a_namespace(scenario());
}
