//! Several API servers on one etcd, as processes: one of them and a member of etcd are killed under load; addresses and ports are given out by two at once; and
//! the cluster moves into the data folder and back, with its Secrets sealed everywhere.

#[path = "../../etcd/testing/mod.rs"]
mod etcd_process;
mod running;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use client::kubeconfig::Config;
use client::{HttpClient, HttpTransport};
use etcd_process::Etcd;
use http::Method;
use linear::Recorder;
use linear::clients::Load;
use running::{CORACLE, Server, below, free_port, linearizable};
use serde_json::{Value, json};

const CLIENTS: usize = 8;
const OBJECTS: usize = 3;
const REQUESTS: usize = 90;
/// Objects that are made one after the other while servers come and go.
const MADE: usize = 120;
const SERVICES: usize = 12;
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const REPLICA_SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-controller-manager";

/// One of the cluster's API servers.
struct Member {
    name: &'static str,
    data: PathBuf,
    port: u16,
    arguments: Vec<String>,
    server: Option<Server>,
}

impl Member {
    fn new(folder: &Path, name: &'static str, mut arguments: Vec<String>) -> Self {
        arguments.push(format!("--node-name={name}"));
        Self { name, data: folder.join(name), port: free_port(), arguments, server: None }
    }

    fn start(&mut self) {
        self.server = Some(Server::start(&self.data, self.port, &self.arguments));
    }

    fn kill(&mut self) {
        self.server = None;
    }

    fn stop(&mut self) {
        self.server.take().expect("it runs").stop();
    }

    fn client(&self) -> HttpClient {
        HttpClient::new(&Config::load(Some(&self.data.join("admin.conf"))).expect("the kubeconfig"), "etcd-test").expect("a client")
    }
}

fn etcd_arguments(etcd: &Etcd) -> Vec<String> {
    let file = |name: &str| etcd.file(name).display().to_string();
    vec![format!("--etcd-servers={}", etcd.endpoints().join(",")), format!("--etcd-cafile={}", file("ca.crt")), format!("--etcd-certfile={}", file("etcd.crt")), format!("--etcd-keyfile={}", file("etcd.key"))]
}

/// Two API servers of one cluster. Both run.
fn two(folder: &Path, arguments: &[String]) -> [Member; 2] {
    let mut first = Member::new(folder, "a", arguments.to_vec());
    first.start();
    let mut second = Member::new(folder, "b", arguments.to_vec());
    std::fs::create_dir_all(second.data.join("pki")).expect("a folder");
    for file in std::fs::read_dir(first.data.join("pki")).expect("the first one's keys") {
        let file = file.expect("a file");
        std::fs::copy(file.path(), second.data.join("pki").join(file.file_name())).expect("a copy");
    }
    second.start();
    [first, second]
}

/// The answer's code and object; `None` without an answer.
async fn ask(client: &HttpClient, method: Method, path: &str, body: &Value) -> Option<(u16, Value)> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let response = client.request(method, path, &[("content-type", "application/json")], body).await.ok()?;
    let status = response.status;
    Some((status, serde_json::from_slice(&response.bytes().await.ok()?).ok()?))
}

async fn get(client: &HttpClient, path: &str) -> Value {
    let (code, value) = ask(client, Method::GET, path, &Value::Null).await.expect("an answer");
    assert_eq!(code, 200, "{path}: {value}");
    value
}

async fn post(client: &HttpClient, path: &str, body: &Value) -> Value {
    let (code, value) = ask(client, Method::POST, path, body).await.expect("an answer");
    assert_eq!(code, 201, "{path}: {value}");
    value
}

/// Follows `path` until an object of it satisfies `seen`; a watch that ends is begun anew.
async fn until(client: &HttpClient, path: &str, seen: impl Fn(&Value) -> bool) {
    loop {
        let Ok(mut events) = client.request(Method::GET, &format!("{path}?watch=true"), &[], "").await else { continue };
        let mut text = Vec::new();
        while let Some(Ok(piece)) = events.chunk().await {
            text.extend_from_slice(&piece);
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line).expect("an event");
                if event["type"] != "DELETED" && seen(&event["object"]) {
                    return;
                }
            }
        }
    }
}

fn names(list: &Value) -> BTreeSet<String> {
    list["items"].as_array().expect("items").iter().map(|item| item["metadata"]["name"].as_str().expect("a name").to_owned()).collect()
}

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}})
}

/// Makes one ConfigMap after the other as the load goes on; which of them were acknowledged.
async fn make(client: HttpClient, prefix: &'static str, load: Arc<Recorder>) -> BTreeSet<String> {
    let mut acknowledged = BTreeSet::new();
    for number in 0..MADE {
        load.reaches(CLIENTS * REQUESTS * number / MADE).await;
        let name = format!("{prefix}{number}");
        if let Some((201, _)) = ask(&client, Method::POST, CONFIG_MAPS, &config_map(&name)).await {
            acknowledged.insert(name);
        }
    }
    acknowledged
}

/// Who runs the controllers.
async fn leader(client: &HttpClient) -> String {
    get(client, LEASE).await["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
}

fn deployment(name: &str) -> Value {
    let labels = json!({"app": name});
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "none"}]}}}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_of_etcd_and_an_api_server_die_under_load() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut etcd = Etcd::start(3);
    let mut arguments = etcd_arguments(&etcd);
    arguments.extend(["--leader-elect-lease-duration=3s", "--leader-elect-renew-deadline=2s", "--leader-elect-retry-period=500ms"].map(str::to_owned));
    let [first, second] = two(folder.path(), &arguments);
    // Controllers work, whoever leads; who does is the one that is killed.
    post(&second.client(), DEPLOYMENTS, &deployment("before")).await;
    until(&second.client(), REPLICA_SETS, |set| set["metadata"]["ownerReferences"][0]["name"] == "before").await;
    let (mut victim, survivor) = if leader(&second.client()).await.starts_with("a_") { (first, second) } else { (second, first) };
    let (through_victim, through_survivor) = (victim.client(), survivor.client());

    let recorder = Arc::new(Recorder::default());
    let load = Arc::new(Load { namespace: "default".into(), objects: OBJECTS, requests: REQUESTS, below: below() });
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        let member = if number % 2 == 0 { &victim } else { &survivor };
        let (transport, load, recorder) = (HttpTransport::new(member.client()), load.clone(), recorder.clone());
        clients.spawn(async move { linear::clients::run(number, &transport, &load, &recorder).await });
    }
    let makers = [tokio::spawn(make(through_victim, "victim", recorder.clone())), tokio::spawn(make(through_survivor.clone(), "survivor", recorder.clone()))];
    let all = CLIENTS * REQUESTS;
    recorder.reaches(all / 4).await;
    etcd.kill(0);
    recorder.reaches(all / 3).await;
    victim.kill();
    // The controllers' work goes on elsewhere.
    post(&through_survivor, DEPLOYMENTS, &deployment("after")).await;
    until(&through_survivor, REPLICA_SETS, |set| set["metadata"]["ownerReferences"][0]["name"] == "after").await;
    assert!(leader(&through_survivor).await.starts_with(&format!("{}_", survivor.name)));
    let (victim, mut etcd) = tokio::task::spawn_blocking(move || {
        victim.start();
        etcd.begin(&[0]);
        (victim, etcd)
    })
    .await
    .expect("both are there again");
    recorder.reaches(all * 2 / 3).await;
    etcd.kill(1);
    let mut acknowledged = BTreeSet::new();
    for maker in makers {
        acknowledged.extend(maker.await.expect("no panic"));
    }
    linearizable(clients, &recorder, all).await;
    // What was acknowledged is there, whomever one asks.
    assert!(acknowledged.len() > MADE / 2, "{}", acknowledged.len());
    for client in [victim.client(), through_survivor] {
        let there = names(&get(&client, CONFIG_MAPS).await);
        assert!(acknowledged.is_subset(&there), "lost: {:?}", acknowledged.difference(&there));
    }
}

const KEYS: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n  - aescbc: {keys: [{name: key1, secret: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=}]}\n";
const SECRET: &str = "nobody-may-read-this";
const SECRET_BASE64: &str = "bm9ib2R5LW1heS1yZWFkLXRoaXM=";

fn service(name: &str, node_port: Option<u16>) -> Value {
    let mut port = json!({"port": 80});
    if let Some(node_port) = node_port {
        port["nodePort"] = node_port.into();
    }
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"type": "NodePort", "ports": [port]}})
}

/// Runs `coracle store migrate`.
fn migrate(member: &Member, to: &str) {
    let moved = Command::new(CORACLE).args(["store", "migrate", "--to", to]).args(member.arguments.iter().filter(|flag| !flag.starts_with("--node-name"))).arg("--data-dir").arg(&member.data).output().expect("coracle runs");
    let (said, complained) = (String::from_utf8_lossy(&moved.stdout), String::from_utf8_lossy(&moved.stderr));
    assert!(moved.status.success() && said.contains("verified"), "{said}{complained}");
}

fn contains(file: &Path, text: &str) -> bool {
    std::fs::read(file).expect("a file").windows(text.len()).any(|window| window == text.as_bytes())
}

/// What the cluster is known by, but for the versions.
async fn state(client: &HttpClient) -> (BTreeSet<String>, Vec<(String, String, u64)>, String) {
    let services = get(client, "/api/v1/namespaces/default/services").await;
    let addresses = services["items"].as_array().expect("items").iter().map(|service| {
        let spec = &service["spec"];
        (service["metadata"]["name"].to_string(), spec["clusterIP"].to_string(), spec["ports"][0]["nodePort"].as_u64().unwrap_or_default())
    });
    let secret = get(client, "/api/v1/namespaces/default/secrets/s").await;
    (names(&get(client, CONFIG_MAPS).await), addresses.collect(), secret["data"]["password"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_give_out_ports_and_all_moves_there_and_back_sealed() {
    let folder = tempfile::tempdir().expect("a folder");
    let etcd = Etcd::start(1);
    let keys = folder.path().join("keys.yaml");
    std::fs::write(&keys, KEYS).expect("written");
    let mut arguments = etcd_arguments(&etcd);
    arguments.push(format!("--encryption-provider-config={}", keys.display()));
    let [mut first, mut second] = two(folder.path(), &arguments);
    let clients = [first.client(), second.client()];

    // Both give out addresses and ports at the same time, and never the same.
    let path = "/api/v1/namespaces/default/services";
    let made = futures_util::future::join_all((0..SERVICES).map(|number| {
        let client = &clients[number % 2];
        async move { post(client, path, &service(&format!("s{number}"), None)).await }
    }))
    .await;
    let ports: BTreeSet<u64> = made.iter().filter_map(|made| made["spec"]["ports"][0]["nodePort"].as_u64()).collect();
    let addresses: BTreeSet<&str> = made.iter().filter_map(|made| made["spec"]["clusterIP"].as_str()).collect();
    assert_eq!((ports.len(), addresses.len()), (SERVICES, SERVICES), "{ports:?} {addresses:?}");
    for wanted in [30001u16, 30002, 30003] {
        let (one, two) = (service(&format!("one{wanted}"), Some(wanted)), service(&format!("two{wanted}"), Some(wanted)));
        let (one, two) = tokio::join!(ask(&clients[0], Method::POST, path, &one), ask(&clients[1], Method::POST, path, &two));
        let mut codes = [one.expect("an answer").0, two.expect("an answer").0];
        codes.sort_unstable();
        assert_eq!(codes, [201, 422], "{wanted}");
    }
    // What one lets go, the other can give out.
    let gone = made[0]["metadata"]["name"].as_str().expect("a name");
    let port = made[0]["spec"]["ports"][0]["nodePort"].as_u64().expect("a port") as u16;
    assert_eq!(ask(&clients[0], Method::DELETE, &format!("{path}/{gone}"), &Value::Null).await.expect("an answer").0, 200);
    post(&clients[1], path, &service("again", Some(port))).await;

    // Sealed where it lies, plain for whoever may read it, through either server.
    post(&clients[0], "/api/v1/namespaces/default/secrets", &json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"password": SECRET_BASE64}})).await;
    post(&clients[0], CONFIG_MAPS, &config_map("c")).await;
    let before = state(&clients[1]).await;
    assert_eq!(before.2, SECRET_BASE64);
    let direct = etcd::Client::new(etcd.config()).expect("a client of etcd");
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    let range = etcd::Range { key: b"/registry/secrets/default/s".to_vec(), ..etcd::Range::default() };
    let stored = direct.range(&range, deadline).await.expect("an answer of etcd").items.pop().expect("the Secret").value;
    assert!(stored.starts_with(b"k8s:enc:aescbc:v1:key1:"), "{stored:?}");

    // Into the data folder, and served from there.
    drop(clients);
    first.stop();
    second.stop();
    migrate(&first, "embedded");
    let etcd_flags = std::mem::replace(&mut first.arguments, arguments[4..].to_vec());
    first.start();
    let client = first.client();
    assert_eq!(state(&client).await, before);
    post(&client, CONFIG_MAPS, &config_map("in-between")).await;
    let taken = ask(&client, Method::POST, path, &service("late", Some(port))).await.expect("an answer");
    assert_eq!(taken.0, 422, "{}", taken.1);
    let store = first.data.join("store");
    for file in std::fs::read_dir(&store).expect("the store") {
        let file = file.expect("a file").path();
        assert!(!contains(&file, SECRET) && !contains(&file, SECRET_BASE64), "{} tells the Secret", file.display());
    }
    first.stop();

    // And back, with what was made meanwhile.
    first.arguments = etcd_flags;
    migrate(&first, "etcd");
    second.start();
    let mut expected = before;
    expected.0.insert("in-between".into());
    assert_eq!(state(&second.client()).await, expected);
}
