//! The real program under bad treatment: killed in the middle of the work of clients that do not wait for one another, asked things nobody should ask,
//! and watched by those who never read.

mod running;

use std::sync::Arc;
use std::time::{Duration, Instant};

use client::kubeconfig::Config;
use client::{HttpClient, HttpTransport};
use http::Method;
use linear::Recorder;
use linear::clients::Load;
use running::{Server, below, free_port, linearizable};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const CLIENTS: usize = 8;
const OBJECTS: usize = 3;
const REQUESTS: usize = 120;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn linearizable_across_kill_and_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, port) = (folder.path().join("data"), free_port());
    let server = Server::start(&data, port, &[]);
    let config = Config::load(Some(&data.join("admin.conf"))).expect("the kubeconfig");
    let recorder = Arc::new(Recorder::default());
    let load = Arc::new(Load { namespace: "default".into(), objects: OBJECTS, requests: REQUESTS, below: below() });
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        let transport = HttpTransport::new(HttpClient::new(&config, "linear").expect("a client"));
        let (load, recorder) = (load.clone(), recorder.clone());
        clients.spawn(async move { linear::clients::run(number, &transport, &load, &recorder).await });
    }
    let all = CLIENTS * REQUESTS;
    let mut server = Some(server);
    for part in [all / 3, all / 2] {
        recorder.reaches(part).await;
        drop(server.take());
        let data = data.clone();
        server = Some(tokio::task::spawn_blocking(move || Server::start(&data, port, &[])).await.expect("it starts again"));
    }
    linearizable(clients, &recorder, all).await;
}

/// Longer runs: `cargo xtask fuzz api --seconds 600`.
const FUZZED_FOR: Duration = Duration::from_secs(4);
const SEED: u64 = 1;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_asked_is_answered() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let mut server = Server::start(&data, free_port(), &[]);
    let config = Config::load(Some(&data.join("admin.conf"))).expect("the kubeconfig");
    let report = fuzz::api::run(&config, SEED, Instant::now() + FUZZED_FOR).await.expect("a run");
    assert!(report.findings.is_empty() && server.lives(), "{report}");
    println!("{report}");
}

/// More of them: `WATCHERS=9900 SILENT=100 cargo test -p coracle --test reliability -- watchers --nocapture`.
const READERS: usize = 980;
const NEVER_READ: usize = 20;
/// Each client's streams share one connection, which takes a thousand.
const READERS_PER_CLIENT: usize = 490;
const LARGE_BYTES: usize = 1_000_000;
/// More than the history holds, and what the kernel holds for those who do not read.
const LARGE_WRITES: usize = 84;
/// The history's own limit, and for each who never reads what is on its way to them; and what an allocator keeps.
const GROWTH_MAX_KIB: u64 = (64 + 128) << 10;
const GROWTH_MAX_KIB_EACH: u64 = 5 << 10;
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn count(variable: &str, usual: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn pss_kib(pid: u32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the process lives");
    rollup.lines().find_map(|line| line.strip_prefix("Pss:")?.split_whitespace().next()?.parse().ok()).expect("a number")
}

async fn write(client: &HttpClient, method: Method, path: &str, name: &str, text: &str) {
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"text": text}}).to_string();
    let response = client.request(method, path, &[("content-type", "application/json")], body).await.expect("an answer");
    assert!(matches!(response.status, 200 | 201), "{}", response.status);
    response.bytes().await.expect("its body");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_who_never_read_cost_little_and_are_told_410() {
    let (many, never) = (count("WATCHERS", READERS), count("SILENT", NEVER_READ));
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let server = Server::start(&data, free_port(), &[]);
    let config = Config::load(Some(&data.join("admin.conf"))).expect("the kubeconfig");
    let connect = || HttpClient::new(&config, "watchers").expect("a client");
    let client = connect();
    let large = "x".repeat(LARGE_BYTES);
    write(&client, Method::POST, CONFIG_MAPS, "large", &large).await;
    let mut readers = tokio::task::JoinSet::new();
    let clients: Vec<HttpClient> = (0..many.div_ceil(READERS_PER_CLIENT)).map(|_| connect()).collect();
    for number in 0..many {
        let client = clients[number / READERS_PER_CLIENT].clone();
        let mut response = client.request(Method::GET, &format!("{CONFIG_MAPS}?watch=true&fieldSelector=metadata.name%3Dlast"), &[], "").await.expect("a watch");
        assert_eq!(response.status, 200);
        readers.spawn(async move {
            let event = response.chunk().await.expect("an event").expect("a whole one");
            assert!(event.starts_with(br#"{"type":"ADDED""#), "{event:?}");
        });
    }
    let mut silent = Vec::new();
    for _ in 0..never {
        let mut stream = connect().raw().await.expect("a connection");
        stream.write_all(format!("GET {CONFIG_MAPS}?watch=true HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await.expect("sent");
        stream.flush().await.expect("sent");
        silent.push(stream);
    }
    let before = pss_kib(server.id());
    for number in 0..LARGE_WRITES {
        write(&client, Method::PUT, &format!("{CONFIG_MAPS}/large"), "large", &format!("{number}{large}")).await;
    }
    let grown = pss_kib(server.id()).saturating_sub(before);
    println!("{many} who read and {never} who do not: {} MiB, and {} MiB more after {LARGE_WRITES} MB of events", before / 1024, grown / 1024);
    assert!(grown < GROWTH_MAX_KIB + GROWTH_MAX_KIB_EACH * never as u64, "{grown} KiB more than {before} KiB");
    // The others did not suffer.
    write(&client, Method::POST, CONFIG_MAPS, "last", "x").await;
    while let Some(read) = readers.join_next().await {
        read.expect("the event came");
    }
    // Whoever reads after all is told that it is too late.
    let mut stream = silent.pop().expect("one of them");
    let (mut tail, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    let late = loop {
        let length = stream.read(&mut buffer).await.expect("the stream goes on");
        tail.extend_from_slice(&buffer[..length]);
        let text = String::from_utf8_lossy(&tail);
        if let Some(error) = text.find(r#""type":"ERROR""#).map(|at| &text[at..]).filter(|error| error.contains('\n')) {
            break error.contains(r#""code":410"#);
        }
        assert!(length > 0, "the stream ended without a word");
        // A word may lie across two pieces.
        tail.drain(..tail.len().saturating_sub(1 << 12));
    };
    assert!(late, "{}", String::from_utf8_lossy(&tail));
}
