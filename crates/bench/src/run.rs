//! Which measurements, against which cluster.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::Status;
use client::http::{HttpClient, HttpError};
use client::kubeconfig::{Config, ConfigError};
use client::remote::HttpTransport;
use client::{Body, DeleteOptions, Target, Transport, WriteOptions};
use serde_json::json;

use crate::measure::Figure;
use crate::objects::Load;
use crate::{cost, pods, schedule};

#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("{what}: {status}")]
    Api { what: &'static str, status: Status },
}

#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// The cluster to measure; by default as kubectl finds it
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// A second cluster: the same run, and the ratios
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Concurrent clients, each with a connection of its own
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// Objects of the API measurements
    #[arg(long, default_value_t = 10_000)]
    objects: usize,
    /// Watchers of the fan-out
    #[arg(long, default_values_t = [100, 1000])]
    watchers: Vec<usize>,
    /// Simulated nodes, and pods for them
    #[arg(long, default_value_t = 100)]
    nodes: usize,
    #[arg(long, default_value_t = 1000)]
    bound_pods: usize,
    /// Real pods started one at a time; the image must be on the node. 0: none, as without a node
    #[arg(long, default_value_t = 0)]
    pods: usize,
    #[arg(long, default_value = "alpine")]
    image: String,
    /// Processes whose CPU and memory are reported with the figures
    #[arg(long = "pid")]
    pids: Vec<i32>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const NAMESPACE: &str = "coracle-bench";

fn failed(what: &'static str) -> impl FnOnce(Status) -> BenchError {
    move |status| BenchError::Api { what, status }
}

fn connect(kubeconfig: Option<&Path>, clients: usize) -> Result<Vec<Arc<dyn Transport>>, BenchError> {
    let config = Config::load(kubeconfig)?;
    (0..clients.max(1)).map(|_| Ok(Arc::new(HttpTransport::new(HttpClient::new(&config, "coracle-bench")?)) as Arc<dyn Transport>)).collect()
}

/// Measures and prints.
pub async fn run(options: Options) -> Result<(), BenchError> {
    let first = one(&options, options.kubeconfig.as_deref(), &options.pids).await?;
    let second = match &options.against {
        Some(path) => Some(one(&options, Some(path), &[]).await?),
        None => None,
    };
    if options.json {
        println!("{}", json!({"figures": first, "against": second, "pss_kib": cost::memory_kib(&options.pids)}));
        return Ok(());
    }
    println!("{}", Figure::HEAD);
    first.iter().for_each(|figure| println!("{}", figure.line()));
    if !options.pids.is_empty() {
        println!("memory (PSS) of the named processes: {:.1} MiB", cost::memory_kib(&options.pids) as f64 / 1024.0);
    }
    if let Some(second) = second {
        println!("\nagainst\n{}", Figure::HEAD);
        second.iter().for_each(|figure| println!("{}", figure.line()));
        println!("\nratios of operations a second");
        for (a, b) in first.iter().zip(&second) {
            println!("{:<42} {:>9.2}x", a.what, a.per_second / b.per_second.max(f64::EPSILON));
        }
    }
    Ok(())
}

async fn one(options: &Options, kubeconfig: Option<&Path>, pids: &[i32]) -> Result<Vec<Figure>, BenchError> {
    let clients = connect(kubeconfig, options.clients)?;
    let namespaces = |name: Option<String>| Target { version: "v1".into(), plural: "namespaces".into(), name, ..Target::default() };
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    clients[0].create(&namespaces(None), Body::Value(body), &WriteOptions::default()).await.map_err(failed("make the namespace (is an earlier run's still there?)"))?;
    let measured = all(options, &clients, pids).await;
    // Whatever came of it, nothing of ours stays.
    let cleaned = clients[0].delete(&namespaces(Some(NAMESPACE.into())), &DeleteOptions::default()).await.map_err(failed("remove the namespace"));
    let figures = measured?;
    cleaned?;
    Ok(figures)
}

async fn all(options: &Options, clients: &[Arc<dyn Transport>], pids: &[i32]) -> Result<Vec<Figure>, BenchError> {
    let load = Load { clients: clients.to_vec(), namespace: NAMESPACE.into(), count: options.objects, pids: pids.to_vec() };
    let mut figures = Vec::new();
    if options.objects > 0 {
        figures.push(load.create().await.map_err(failed("create"))?);
        figures.push(load.get().await.map_err(failed("get"))?);
        figures.push(load.list(10).await.map_err(failed("list"))?);
        figures.push(load.update().await.map_err(failed("update"))?);
        figures.push(load.patch().await.map_err(failed("patch"))?);
        for watchers in &options.watchers {
            figures.push(load.fan_out(*watchers, 50).await.map_err(failed("watch fan-out"))?);
        }
        figures.push(load.delete().await.map_err(failed("delete"))?);
    }
    if options.nodes > 0 {
        let measured = schedule::run(clients, NAMESPACE, options.nodes, options.bound_pods, pids).await;
        schedule::clean(clients).await.map_err(failed("remove the simulated nodes"))?;
        figures.extend(measured.map_err(failed("schedule"))?);
    }
    if options.pods > 0 {
        figures.extend(pods::one_at_a_time(&clients[0], NAMESPACE, &options.image, options.pods).await.map_err(failed("start pods"))?);
        figures.extend(pods::deployment(&clients[0], NAMESPACE, &options.image, 50).await.map_err(failed("run a Deployment"))?);
    }
    Ok(figures)
}
