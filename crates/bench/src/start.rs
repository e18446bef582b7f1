//! The start of a cluster: a fresh `coracle up` of this very program in a temporary folder, from its process's start to each of what a user waits for.
//!
//! It uses this host's network, as any cluster does: run it where none runs, or in a network namespace. What it made is removed.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use api::k8s::api::core::v1::{Node, Pod};
use http::Method;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::cluster::{Cluster, PATIENCE, send, target};
use crate::measure::{Figure, Stopwatch};
use crate::{BenchError, Options};

/// The log line that says that the API server listens.
const LISTENS: &str = "the API server is ready";

fn program(action: &'static str) -> impl FnOnce(std::io::Error) -> BenchError {
    move |error| BenchError::Program { action, error }
}

async fn coracle(words: &[&'static str], more: &[&str], data: &Path) -> Result<(), BenchError> {
    let exe = std::env::current_exe().map_err(program("find this program"))?;
    let done = Command::new(exe).args(words).args(more).arg("--data-dir").arg(data).stdout(Stdio::null()).status().await.map_err(program("run this program"))?;
    if done.success() { Ok(()) } else { Err(BenchError::Failed(words[0])) }
}

pub async fn run(options: &Options) -> Result<Vec<Figure>, BenchError> {
    let archive = options.image_archive.as_deref().and_then(Path::to_str).ok_or(BenchError::Needs("start", "--image-archive"))?;
    let data = std::env::temp_dir().join(format!("coracle-start-{}", std::process::id()));
    coracle(&["image", "import"], &[archive], &data).await?;
    let measured = measure(options, &data).await;
    let removed = coracle(&["reset"], &[], &data).await;
    let figures = measured?;
    removed?;
    Ok(figures)
}

async fn measure(options: &Options, data: &Path) -> Result<Vec<Figure>, BenchError> {
    let exe = std::env::current_exe().map_err(program("find this program"))?;
    let start = Instant::now();
    let mut up = Command::new(exe)
        .args(["up", "--secure-port", &options.start_port.to_string(), "--data-dir"])
        .arg(data)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(program("start this program"))?;
    let waited = tokio::time::timeout(PATIENCE, moments(&mut up, start, options, data)).await;
    // Asked to stop in good order: its containers' shims outlive it otherwise until the reset.
    let stopped = coracle(&["down"], &[], data).await;
    let moments = waited.map_err(|_| BenchError::Late("coracle up".into()))??;
    stopped?;
    let figure = |(what, took): (&str, Duration)| Figure { seconds: took.as_secs_f64(), ..Stopwatch::start(&[]).figure(what, crate::FIRST, 1, 0, vec![took]) };
    Ok(moments.into_iter().map(figure).collect())
}

async fn moments(up: &mut Child, start: Instant, options: &Options, data: &Path) -> Result<Vec<(&'static str, Duration)>, BenchError> {
    let mut lines = BufReader::new(up.stderr.take().ok_or(BenchError::Failed("up"))?).lines();
    let mut said = String::new();
    while !said.contains(LISTENS) {
        // Its last words say why it ended.
        said = lines.next_line().await.map_err(program("read this program's log"))?.ok_or(BenchError::Up(said))?;
    }
    // The rest is read so that the program never waits for us.
    let rest = tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    let config = data.join("admin.conf");
    let client = client::HttpClient::new(&client::kubeconfig::Config::load(Some(&config))?, "coracle-bench")?;
    if !send(&client, Method::GET, "/readyz", "", bytes::Bytes::new()).await {
        return Err(BenchError::Failed("up: /readyz"));
    }
    let mut moments = vec![("start to readyz", start.elapsed())];
    let cluster = Cluster::open(crate::FIRST, Some(&config), 1, Vec::new()).await?;
    let ready = |node: &Node| node.status.iter().flat_map(|status| status.conditions.iter().flatten()).any(|condition| condition.type_ == "Ready" && condition.status == "True");
    cluster.until(&target("", "nodes", None, None), "", |object, _| object.typed::<Node>().is_ok_and(|node| ready(&node))).await?;
    moments.push(("start to node Ready", start.elapsed()));
    let ask = "until nslookup kubernetes.default.svc.cluster.local; do :; done";
    let pods = target("", "pods", Some(&cluster.namespace), None);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "asks"}, "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "asks", "image": options.image, "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", ask]}]}});
    cluster.create(&pods, pod).await?;
    let over = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Succeeded");
    cluster.until(&pods, "metadata.name=asks", |object, _| object.typed::<Pod>().is_ok_and(|pod| over(&pod))).await?;
    moments.push(("start to DNS answered in a pod", start.elapsed()));
    cluster.close().await?;
    rest.abort();
    Ok(moments)
}
