//! What a cluster costs when nothing happens: pods bound to simulated nodes, which keep up their leases as upstream's do, and then quiet.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::Clock;
use api::k8s::api::core::v1::Pod;
use api::world::SystemClock;
use client::{DeleteOptions, ListOptions, Transport};
use futures_util::StreamExt;
use http::Method;
use node::hollow;
use serde_json::json;

use crate::BenchError;
use crate::cluster::{Cluster, send, target};
use crate::measure::{Figure, Idle};
use crate::{process, schedule};

const PODS_A_NODE: usize = 10;
/// How long the processes are looked at.
const LOOK: Duration = Duration::from_secs(20);
/// Quiet is this long at less than `QUIET_SHARE` of a core.
const QUIET: Duration = Duration::from_secs(3);
const QUIET_SHARE: f64 = 0.05;
/// Processes that have not become quiet by then are measured as they are.
const SETTLE: Duration = Duration::from_secs(60);

pub async fn run(cluster: &Cluster, pods: usize) -> Result<Figure, BenchError> {
    if cluster.pids.is_empty() {
        return Err(BenchError::Needs("bound", "--pid"));
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let options = hollow::Options::new((0..pods.div_ceil(PODS_A_NODE)).map(|number| format!("hollow-{number}")).collect());
    hollow::register(&cluster.client(), &*clock, &options).await;
    let fleet = tokio::spawn(hollow::play(cluster.client(), clock, options));
    let measured = measure(cluster, pods).await;
    let all = target("", "pods", Some(&cluster.namespace), None);
    let gone = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    let ended = match cluster.transport.delete_collection(&all, &gone, &ListOptions::default()).await {
        Ok(()) => cluster.empty(&all).await,
        Err(status) => Err(BenchError::refused("delete", &all, status)),
    };
    fleet.abort();
    schedule::remove(cluster).await;
    ended?;
    measured
}

async fn measure(cluster: &Cluster, pods: usize) -> Result<Figure, BenchError> {
    let collection = target("", "pods", Some(&cluster.namespace), None);
    let path = collection.path();
    let from = cluster.transport.list(&collection, &ListOptions::default()).await.map_err(|status| BenchError::refused("list", &collection, status))?.resource_version;
    let start = Instant::now();
    let creates = futures_util::stream::iter(0..pods).map(|number| {
        let client = &cluster.clients[number % cluster.clients.len()];
        let container = json!({"name": "app", "image": "hollow", "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}}});
        let body = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("bound-{number}"), "labels": {"app": "bound"}},
            "spec": {"nodeSelector": {"type": "hollow"}, "containers": [container]}});
        send(client, Method::POST, &path, "application/json", body.to_string().into())
    });
    let create = creates.buffer_unordered(cluster.clients.len()).fold(0, async |failed, good| failed + usize::from(!good));
    let mut running = std::collections::HashSet::new();
    let seen = cluster.watch_until(&collection, "", &from, |object, _| {
        let runs = object.typed::<Pod>().is_ok_and(|pod| pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running")));
        if runs {
            running.insert(object.meta().uid.clone());
        }
        running.len() == pods
    });
    let (failed, seen) = tokio::join!(create, seen);
    seen?;
    let bound = start.elapsed();
    quiet(&cluster.pids).await;
    let cpu = process::cpu_seconds(&cluster.pids);
    tokio::time::sleep(LOOK).await;
    let idle = Idle { pss_mib: process::pss_kib(&cluster.pids) as f64 / 1024.0, cpu_percent: (process::cpu_seconds(&cluster.pids) - cpu) / LOOK.as_secs_f64() * 100.0 };
    let figure = crate::measure::Stopwatch::start(&[]).figure(format!("{pods} pods bound and running"), &cluster.name, pods, failed, Vec::new());
    Ok(Figure { seconds: LOOK.as_secs_f64(), per_second: pods as f64 / bound.as_secs_f64(), idle: Some(idle), ..figure })
}

/// Waits until the processes do nothing any more.
async fn quiet(pids: &[u32]) {
    let until = Instant::now() + SETTLE;
    loop {
        let cpu = process::cpu_seconds(pids);
        tokio::time::sleep(QUIET).await;
        if (process::cpu_seconds(pids) - cpu) / QUIET.as_secs_f64() < QUIET_SHARE || Instant::now() >= until {
            return;
        }
    }
}
