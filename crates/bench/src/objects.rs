//! Plain objects: ConfigMaps of 1 KiB created, read, changed and deleted by many clients at once, and lists of all of them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use http::Method;
use serde_json::json;

use crate::BenchError;
use crate::cluster::{Cluster, send};
use crate::measure::{Figure, Stopwatch};

const VALUE_BYTES: usize = 1024;
const LISTS: usize = 20;
const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";

struct Step {
    what: &'static str,
    method: Method,
    on_object: bool,
    content_type: &'static str,
    body: fn(usize) -> Bytes,
}

fn config_map(number: usize, fill: char) -> Bytes {
    let value: String = std::iter::repeat_n(fill, VALUE_BYTES).collect();
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("cm-{number}")}, "data": {"value": value}}).to_string().into()
}

/// Each of `count` objects once, by all clients; latencies and how many failed.
async fn each(cluster: &Cluster, step: &Step, count: usize) -> (Vec<Duration>, usize) {
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let collection = format!("/api/v1/namespaces/{}/configmaps", cluster.namespace);
    let one = async |client: &client::HttpClient| {
        let mut latencies = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return latencies;
            }
            let path = if step.on_object { format!("{collection}/cm-{number}") } else { collection.clone() };
            let body = (step.body)(number);
            let start = Instant::now();
            if !send(client, step.method.clone(), &path, step.content_type, body).await {
                failed.fetch_add(1, Ordering::Relaxed);
            }
            latencies.push(start.elapsed());
        }
    };
    let latencies = join_all(cluster.clients.iter().map(one)).await.concat();
    (latencies, failed.into_inner())
}

pub async fn run(cluster: &Cluster, count: usize) -> Result<Vec<Figure>, BenchError> {
    let steps = [
        Step { what: "create", method: Method::POST, on_object: false, content_type: JSON, body: |number| config_map(number, 'a') },
        Step { what: "get", method: Method::GET, on_object: true, content_type: JSON, body: |_| Bytes::new() },
        Step { what: "update", method: Method::PUT, on_object: true, content_type: JSON, body: |number| config_map(number, 'b') },
        Step { what: "patch", method: Method::PATCH, on_object: true, content_type: MERGE, body: |_| Bytes::from_static(br#"{"data":{"more":"x"}}"#) },
    ];
    let mut figures = Vec::new();
    for step in &steps {
        let watch = Stopwatch::start(&cluster.pids);
        let (latencies, failed) = each(cluster, step, count).await;
        figures.push(watch.figure(step.what, &cluster.name, count, failed, latencies));
    }
    figures.push(list(cluster, count).await);
    let delete = Step { what: "delete", method: Method::DELETE, on_object: true, content_type: JSON, body: |_| Bytes::new() };
    let watch = Stopwatch::start(&cluster.pids);
    let (latencies, failed) = each(cluster, &delete, count).await;
    figures.push(watch.figure(delete.what, &cluster.name, count, failed, latencies));
    Ok(figures)
}

/// One after the other, by one client.
async fn list(cluster: &Cluster, count: usize) -> Figure {
    let path = format!("/api/v1/namespaces/{}/configmaps", cluster.namespace);
    let watch = Stopwatch::start(&cluster.pids);
    let (mut latencies, mut failed) = (Vec::new(), 0);
    for _ in 0..LISTS {
        let start = Instant::now();
        failed += usize::from(!send(&cluster.clients[0], Method::GET, &path, JSON, Bytes::new()).await);
        latencies.push(start.elapsed());
    }
    watch.figure(format!("list of {count}"), &cluster.name, LISTS, failed, latencies)
}
