#![doc = include_str!("../README.md")]
//!
//! The table of contents of the load generator; the page before is its README.

mod bound;
mod cluster;
mod definitions;
mod dns;
mod fanout;
mod in_pod;
mod linearizability;
mod measure;
mod objects;
mod pod_services;
mod pods;
mod process;
mod report;
mod schedule;
mod services;
mod start;
mod through;
mod turns;

use std::path::PathBuf;

use api::Status;
use client::{BoxFuture, Target};
use clap::{Args, ValueEnum};
use client::http::HttpError;
use client::kubeconfig::ConfigError;
use serde_json::json;

use crate::cluster::Cluster;
pub use crate::measure::Figure;

/// Why a measurement has no result.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Connect(#[from] HttpError),
    #[error("cannot {action} {path}: {status}")]
    Refused { action: &'static str, path: String, status: Status },
    #[error("`coracle up` ended: {0}")]
    Up(String),
    #[error("a watch ended before all was seen: {0}")]
    Watch(String),
    #[error("the watch of {0} ended before what was waited for")]
    Ended(String),
    #[error("nothing came of {0} in ten minutes")]
    Late(String),
    #[error("cannot {action}: {error}")]
    Program { action: &'static str, error: std::io::Error },
    #[error("answers that are no answers: {0}")]
    Strange(String),
    #[error("{0}")]
    NotLinearizable(#[from] linear::Violation),
    #[error("`coracle {0}` failed")]
    Failed(&'static str),
    #[error("--only {0} needs {1}")]
    Needs(&'static str, &'static str),
}

impl BenchError {
    fn refused(action: &'static str, target: &Target, status: Status) -> Self {
        Self::Refused { action, path: target.path(), status }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Names of Services, asked over UDP from this machine (needs to be a node)
    Dns,
    /// ConfigMaps of 1 KiB: create, get, update, patch, list, delete
    Objects,
    /// Watch fan-out
    Watch,
    /// Simulated nodes, and pods scheduled onto them
    Schedule,
    /// Pods one at a time (needs a real node)
    Pods,
    /// A Deployment of many pods (needs a real node)
    Deployment,
    /// Pods bound to simulated nodes, ten each, and what the cluster costs when nothing happens (needs --pid)
    Bound,
    /// CustomResourceDefinitions with an object each, and what they cost in memory
    Definitions,
    /// Whether what many clients at the same objects are told is linearizable, whatever happens to the servers meanwhile; nothing is measured
    Linear,
    /// A fresh `coracle up` of this program in a folder of its own, on this host's network: to readyz, node Ready, DNS in a pod (needs --image-archive; no cluster)
    Start,
    /// Services in network namespaces on this machine: what programming them costs, and what packets through them cost (needs root; no cluster)
    Services,
    /// What packets through Services cost between pods of two nodes, from each of several nodes in turns (needs real nodes of Coracle)
    PodServices,
    /// The server in a pod of pod-services
    #[value(hide = true)]
    Answer,
    /// The client in a pod of pod-services
    #[value(hide = true)]
    Through,
}

impl Part {
    fn is_alone(self) -> bool {
        matches!(self, Self::Start | Self::Services | Self::PodServices | Self::Answer | Self::Through)
    }
}

/// Measures any Kubernetes through its API; removes what it made
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// The cluster to measure; as kubectl finds it when left out
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Another cluster, measured in turns with the first
    #[arg(long, value_name = "FILE")]
    pub against: Option<PathBuf>,
    /// What to measure
    #[arg(long, value_name = "PART", value_enum, value_delimiter = ',', default_values = ["objects", "watch", "schedule"])]
    pub only: Vec<Part>,
    /// Rounds; the median counts (with --only pod-services short turns: take some dozens)
    #[arg(long, default_value_t = 1)]
    pub rounds: usize,
    /// Clients at once, each with its own connection
    #[arg(long, default_value_t = 16)]
    pub clients: usize,
    /// ConfigMaps
    #[arg(long, default_value_t = 10_000)]
    pub objects: usize,
    /// With --only linear: another way into the first cluster (of another API server on the same etcd); may be given again
    #[arg(long, value_name = "FILE")]
    pub through: Vec<PathBuf>,
    /// With --only linear: requests of each client
    #[arg(long, default_value_t = 1000)]
    pub requests: usize,
    /// CustomResourceDefinitions
    #[arg(long, default_value_t = 1000)]
    pub definitions: usize,
    /// Numbers of watchers
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1000])]
    pub watchers: Vec<usize>,
    /// Simulated nodes
    #[arg(long, default_value_t = 1000)]
    pub nodes: usize,
    /// Pods scheduled onto them
    #[arg(long, default_value_t = 5000)]
    pub pods: usize,
    /// Image of real pods; must be there already and have `sleep`
    #[arg(long, default_value = "alpine")]
    pub image: String,
    /// With --only start: an archive with --image, which must have `nslookup`
    #[arg(long, value_name = "FILE")]
    pub image_archive: Option<PathBuf>,
    /// With --only start: the API server's port
    #[arg(long, default_value_t = 16443)]
    pub start_port: u16,
    /// With --only services: numbers of Services
    #[arg(long, value_delimiter = ',', default_values_t = [10, 10_000])]
    pub services: Vec<u32>,
    /// With --only services: a command for the node's namespace, to be measured in turns with ours; it gets the number as $SERVICES
    #[arg(long, value_name = "COMMAND")]
    pub in_node: Option<String>,
    /// With --only pod-services: where the servers are
    #[arg(long, value_name = "NODE")]
    pub server_node: Option<String>,
    /// With --only pod-services: where the clients are; may be given again, and the first one's ratio to the others is told
    #[arg(long, value_name = "NODE", value_delimiter = ',')]
    pub client_node: Vec<String>,
    /// Pods started one at a time
    #[arg(long, default_value_t = 20)]
    pub starts: usize,
    /// Replicas of the Deployment
    #[arg(long, default_value_t = 50)]
    pub replicas: i32,
    /// A process of the first cluster whose CPU time and memory are told; may be given again
    #[arg(long = "pid", value_name = "PID")]
    pub pids: Vec<u32>,
    /// The same for the second cluster
    #[arg(long = "against-pid", value_name = "PID")]
    pub against_pids: Vec<u32>,
    /// With --only dns: the name server; kube-dns' ClusterIP when left out
    #[arg(long, value_name = "IP")]
    pub dns_server: Option<std::net::IpAddr>,
    /// JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

const FIRST: &str = "this";
const SECOND: &str = "other";

/// The command: measures and prints.
pub fn run(options: Options) -> BoxFuture<'static, Result<(), BenchError>> {
    Box::pin(async move {
        println!("{}", report(options).await?.trim_end());
        Ok(())
    })
}

/// Measures, and gives what is to be printed.
pub async fn report(options: Options) -> Result<String, BenchError> {
    // Those that need no cluster, or go about it in their own way.
    let (alone, parts): (Vec<Part>, Vec<Part>) = options.only.iter().partition(|part| part.is_alone());
    if !alone.is_empty() {
        let mut figures = Vec::new();
        for part in &alone {
            // Does its own rounds: what is measured takes longer to make than to measure.
            let rounds = if *part == Part::PodServices { 1 } else { options.rounds.max(1) };
            for _ in 0..rounds {
                figures.extend(match part {
                    Part::Start => start::run(&options).await?,
                    Part::PodServices => pod_services::run(&options).await?,
                    Part::Answer => in_pod::answer().await?,
                    Part::Through => in_pod::through().await?,
                    _ => services::run(&options).await?,
                });
            }
        }
        let figures = crate::report::medians(figures);
        let first = options.client_node.first().map_or(FIRST, String::as_str);
        if parts.is_empty() {
            return Ok(if options.json { json!({"figures": figures}).to_string() } else { crate::report::table(&figures, first) });
        }
        print!("{}", crate::report::table(&figures, first));
    }
    let mut clusters = vec![Cluster::open(FIRST, options.kubeconfig.as_deref(), options.clients, options.pids.clone()).await?];
    if let Some(against) = &options.against {
        clusters.push(Cluster::open(SECOND, Some(against), options.clients, options.against_pids.clone()).await?);
    }
    let measured = measure(&options, &clusters).await;
    let mut closed = Ok(());
    for cluster in &clusters {
        closed = closed.and(cluster.close().await);
    }
    let figures = crate::report::medians(measured?);
    closed?;
    let memory: Vec<(&str, u64)> = clusters.iter().filter(|cluster| !cluster.pids.is_empty()).map(|cluster| (cluster.name.as_str(), process::pss_kib(&cluster.pids))).collect();
    if options.json {
        let memory: serde_json::Map<String, serde_json::Value> = memory.into_iter().map(|(name, kib)| (name.to_owned(), kib.into())).collect();
        return Ok(json!({"figures": figures, "pssKiB": memory}).to_string());
    }
    let mut text = crate::report::table(&figures, FIRST);
    for (name, kib) in memory {
        text.push_str(&format!("memory (PSS) of {name}: {:.1} MiB\n", kib as f64 / 1024.0));
    }
    Ok(text)
}

/// Each part on one cluster and then on the other, so that both have the same weather.
async fn measure(options: &Options, clusters: &[Cluster]) -> Result<Vec<Figure>, BenchError> {
    let mut figures = Vec::new();
    for _ in 0..options.rounds.max(1) {
        for part in &options.only {
            for cluster in clusters {
                match part {
                    Part::Dns => figures.push(dns::run(cluster, options.dns_server).await?),
                    Part::Objects => figures.extend(objects::run(cluster, options.objects).await?),
                    Part::Watch => {
                        for watchers in &options.watchers {
                            for writers in [1, fanout::WRITERS] {
                                figures.push(fanout::run(cluster, *watchers, writers).await?);
                            }
                        }
                    }
                    Part::Schedule => figures.extend(schedule::run(cluster, options.nodes, options.pods).await?),
                    Part::Pods => figures.extend(pods::one_at_a_time(cluster, &options.image, options.starts).await?),
                    Part::Definitions => figures.push(definitions::run(cluster, options.definitions).await?),
                    Part::Linear => figures.push(linearizability::run(cluster, options).await?),
                    Part::Bound => figures.push(bound::run(cluster, options.pods).await?),
                    // Before any cluster was opened.
                    Part::Start | Part::Services | Part::PodServices | Part::Answer | Part::Through => {}
                    Part::Deployment => figures.extend(pods::deployment(cluster, &options.image, options.replicas).await?),
                }
            }
        }
    }
    Ok(figures)
}
