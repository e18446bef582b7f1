//! Whether a cluster is linearizable: clients at the same few ConfigMaps, through one API server or several, and the verdict about what they were told.
//!
//! It breaks nothing itself: kill members, servers and links while it runs.

use std::sync::Arc;
use std::time::Duration;

use client::kubeconfig::Config;
use client::{HttpClient, HttpTransport};
use futures_util::future::join_all;
use linear::Recorder;
use linear::clients::Load;

use crate::cluster::Cluster;
use crate::measure::{Figure, Stopwatch};
use crate::{BenchError, Options};

/// So few that they are at each other all the time.
const OBJECTS: usize = 6;

fn chance(limit: u64) -> u64 {
    getrandom::u64().unwrap_or_default() % limit.max(1)
}

pub async fn run(cluster: &Cluster, options: &Options) -> Result<Figure, BenchError> {
    let mut ways = cluster.clients.clone();
    for file in &options.through {
        let config = Config::load(Some(file))?;
        for _ in 0..options.clients.max(1) {
            ways.push(HttpClient::new(&config, "coracle-bench")?);
        }
    }
    let (recorder, clients) = (Arc::new(Recorder::default()), ways.len());
    let load = Load { namespace: cluster.namespace.clone(), objects: OBJECTS, requests: options.requests, below: Box::new(chance) };
    let watch = Stopwatch::start(&cluster.pids);
    let ways: Vec<HttpTransport> = ways.into_iter().map(HttpTransport::new).collect();
    let outcomes = join_all(ways.iter().enumerate().map(|(number, way)| linear::clients::run(number, way, &load, &recorder))).await;
    let (history, mut strange) = recorder.take();
    strange.extend(outcomes.into_iter().filter_map(Result::err).map(|status| status.to_string()));
    if !strange.is_empty() {
        return Err(BenchError::Strange(strange.join("\n")));
    }
    let summary = history.check()?;
    let latencies: Vec<Duration> = Vec::new();
    Ok(watch.figure(format!("linearizable answers, {clients} clients"), &cluster.name, summary.answered + summary.lists, summary.unanswered, latencies))
}
