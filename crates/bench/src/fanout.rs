//! Watch fan-out: many watchers of one collection, and a writer that goes on when all of them have seen its last write.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::HttpClient;
use client::remote::Lines;
use futures_util::future::try_join_all;
use http::Method;
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::BenchError;
use crate::cluster::{Cluster, PATIENCE, send};
use crate::measure::{Figure, Stopwatch};

const WRITES: usize = 100;
/// How much of a watch's last line an error shows.
const SHOWN_BYTES: usize = 500;
const NAME: &[u8] = br#""name":"fan-"#;

struct Shared {
    /// When each write was answered.
    answered: Vec<OnceLock<Instant>>,
    seen: Vec<AtomicUsize>,
    watchers: usize,
    ready: AtomicUsize,
    progress: Notify,
}

/// The number in the object's name.
fn number(line: &[u8]) -> Option<usize> {
    let at = memchr::memmem::find(line, NAME)? + NAME.len();
    let digits = line[at..].split(|byte| *byte == b'"').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Latencies of all events of one watcher. A watch that ends before it has seen all of them is an error, with its last line: it would be waited for in vain.
async fn watch(client: HttpClient, path: String, shared: Arc<Shared>) -> Result<Vec<Duration>, String> {
    let mut latencies = Vec::with_capacity(WRITES);
    let response = client.request(Method::GET, &path, &[], Bytes::new()).await.map_err(|error| error.to_string())?;
    let status = response.status;
    let mut lines = Lines::new(response);
    shared.ready.fetch_add(1, Ordering::AcqRel);
    shared.progress.notify_one();
    let mut last = Bytes::new();
    while latencies.len() < WRITES {
        let line = match lines.next().await {
            Some(Ok(line)) => line,
            Some(Err(error)) => return Err(error.to_string()),
            None => return Err(format!("it was closed with status {status}, after {}", String::from_utf8_lossy(&last[..last.len().min(SHOWN_BYTES)]))),
        };
        let now = Instant::now();
        let Some(number) = number(&line).filter(|number| *number < WRITES) else {
            last = line;
            continue;
        };
        // An event may come before the answer to the write.
        latencies.push(shared.answered[number].get().map_or(Duration::ZERO, |at| now.saturating_duration_since(*at)));
        if shared.seen[number].fetch_add(1, Ordering::AcqRel) + 1 == shared.watchers {
            shared.progress.notify_one();
        }
    }
    Ok(latencies)
}

pub async fn run(cluster: &Cluster, watchers: usize) -> Result<Figure, BenchError> {
    let collection = format!("/api/v1/namespaces/{}/secrets", cluster.namespace);
    let shared = Arc::new(Shared {
        answered: (0..WRITES).map(|_| OnceLock::new()).collect(),
        seen: (0..WRITES).map(|_| AtomicUsize::new(0)).collect(),
        watchers,
        ready: AtomicUsize::new(0),
        progress: Notify::new(),
    });
    // All watchers of a connection in one task: what is measured is the server, so whoever looks on is as cheap as can be.
    let mut tasks = JoinSet::new();
    let connections = cluster.clients.len().min(watchers);
    for (index, client) in cluster.clients.iter().take(connections).enumerate() {
        let count = watchers / connections + usize::from(index < watchers % connections);
        // From whatever the server has: nothing is there yet. To begin with "the newest", a stock API server asks etcd first, and in vain if that is older than 3.4.25.
        let path = format!("{collection}?watch=true&resourceVersion=0");
        tasks.spawn(try_join_all((0..count).map(|_| watch(client.clone(), path.clone(), shared.clone())).collect::<Vec<_>>()));
    }
    let writes = async {
        while shared.ready.load(Ordering::Acquire) < watchers {
            shared.progress.notified().await;
        }
        let stopwatch = Stopwatch::start(&cluster.pids);
        let mut failed = 0;
        for number in 0..WRITES {
            let body = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": format!("fan-{number}")}}).to_string();
            failed += usize::from(!send(&cluster.clients[0], Method::POST, &collection, "application/json", body.into()).await);
            let _ = shared.answered[number].set(Instant::now());
            while shared.seen[number].load(Ordering::Acquire) < watchers {
                shared.progress.notified().await;
            }
        }
        (stopwatch, failed)
    };
    let watches = async {
        let mut latencies = Vec::new();
        while let Some(done) = tasks.join_next().await {
            latencies.extend(done.map_err(|error| error.to_string()).flatten().map_err(BenchError::Watch)?.concat());
        }
        Ok::<_, BenchError>(latencies)
    };
    let work = async {
        let ((stopwatch, failed), latencies) = tokio::try_join!(async { Ok(writes.await) }, watches)?;
        Ok::<_, BenchError>(stopwatch.figure(format!("watch events, {watchers} watchers"), &cluster.name, watchers * WRITES, failed, latencies))
    };
    let figure = tokio::time::timeout(PATIENCE, work).await.map_err(|_| BenchError::Late(collection.clone()))??;
    send(&cluster.clients[0], Method::DELETE, &collection, "application/json", Bytes::new()).await;
    Ok(figure)
}

#[cfg(test)]
mod tests {
    #[test]
    fn finds_the_number() {
        assert_eq!(super::number(br#"{"type":"ADDED","object":{"metadata":{"name":"fan-17","x":1}}}"#), Some(17));
        assert_eq!(super::number(br#"{"metadata":{"name":"default-token"}}"#), None);
    }
}
