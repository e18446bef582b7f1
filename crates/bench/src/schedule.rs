//! Simulated nodes registered, and pods scheduled onto them. The bench plays the nodes itself through the API.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use api::Clock;
use api::world::SystemClock;
use client::{DeleteOptions, ListOptions, Transport};
use futures_util::future::join_all;
use http::Method;
use node::hollow;
use serde_json::json;
use tokio::sync::Mutex;

use crate::BenchError;
use crate::cluster::{Cluster, send, target};
use crate::measure::{Figure, Stopwatch};

const LABEL: &str = "type=hollow";

pub async fn run(cluster: &Cluster, nodes: usize, pods: usize) -> Result<Vec<Figure>, BenchError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let options = hollow::Options::new((0..nodes).map(|number| format!("hollow-{number}")).collect());
    let watch = Stopwatch::start(&cluster.pids);
    hollow::register(&cluster.client(), &*clock, &options).await;
    let mut figures = vec![watch.figure(format!("register {nodes} nodes"), &cluster.name, nodes, 0, Vec::new())];
    let fleet = tokio::spawn(hollow::play(cluster.client(), clock, options));
    let scheduled = schedule(cluster, pods).await;
    // The nodes' agents must still be there for their pods to end.
    let pods = target("", "pods", Some(&cluster.namespace), None);
    let ended = match cluster.transport.delete_collection(&pods, &DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() }, &ListOptions::default()).await {
        Ok(()) => cluster.empty(&pods).await,
        Err(status) => Err(BenchError::refused("delete", &pods, status)),
    };
    fleet.abort();
    remove(cluster).await;
    ended?;
    figures.extend(scheduled?);
    Ok(figures)
}

async fn schedule(cluster: &Cluster, pods: usize) -> Result<Vec<Figure>, BenchError> {
    let collection = target("", "pods", Some(&cluster.namespace), None);
    let path = collection.path();
    let from = cluster.transport.list(&collection, &ListOptions::default()).await.map_err(|status| BenchError::refused("list", &collection, status))?.resource_version;
    let made: Mutex<HashMap<String, Instant>> = Mutex::default();
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let creates = async |client: &client::HttpClient| {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= pods {
                return;
            }
            let name = format!("pod-{number}");
            let container = json!({"name": "app", "image": "hollow", "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}}});
            let body = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"nodeSelector": {"type": "hollow"}, "containers": [container]}}).to_string();
            made.lock().await.insert(name, Instant::now());
            if !send(client, Method::POST, &path, "application/json", body.into()).await {
                failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let watch = Stopwatch::start(&cluster.pids);
    let create = join_all(cluster.clients.iter().map(creates));
    let mut bound: HashMap<String, Instant> = HashMap::new();
    let mut running = 0;
    let mut all_bound = None;
    let seen = cluster.watch_until(&collection, "", &from, |object, _| {
        let Ok(pod) = object.typed::<api::k8s::api::core::v1::Pod>() else { return false };
        if pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()) && !bound.contains_key(&object.meta().name) {
            bound.insert(object.meta().name.clone(), Instant::now());
            if bound.len() == pods {
                all_bound = Some(Instant::now());
            }
        }
        running += usize::from(pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running")) && pod.metadata.deletion_timestamp.is_none());
        bound.len() == pods && running >= pods
    });
    let (_, seen) = tokio::join!(create, seen);
    seen?;
    let made = made.into_inner();
    let latencies: Vec<Duration> = bound.iter().filter_map(|(name, at)| Some(at.saturating_duration_since(*made.get(name)?))).collect();
    let start = watch.start;
    let mut figure = watch.figure(format!("pods created and running, {pods}"), &cluster.name, pods, failed.into_inner(), latencies);
    let mut figures = Vec::new();
    if let Some(at) = all_bound {
        let seconds = (at - start).as_secs_f64();
        figures.push(Figure { what: format!("pods created and bound, {pods}"), seconds, per_second: pods as f64 / seconds, cpu_ms_each: None, ..figure.clone() });
    }
    (figure.p50_ms, figure.p99_ms, figure.max_ms) = (0.0, 0.0, 0.0);
    figures.push(figure);
    Ok(figures)
}

/// Nodes and their leases; what does not go is left to the cluster's own garbage collection.
pub async fn remove(cluster: &Cluster) {
    let nodes = target("", "nodes", None, None);
    let listed = cluster.transport.list(&nodes, &ListOptions { label_selector: LABEL.into(), ..ListOptions::default() }).await.unwrap_or_default();
    let options = DeleteOptions::default();
    for chunk in listed.items.chunks(64) {
        join_all(chunk.iter().map(async |node| {
            let name = &node.meta().name;
            let lease = target("coordination.k8s.io", "leases", Some("kube-node-lease"), Some(name));
            let _ = cluster.delete(&target("", "nodes", None, Some(name)), &options).await;
            let _ = cluster.delete(&lease, &options).await;
        }))
        .await;
    }
}
