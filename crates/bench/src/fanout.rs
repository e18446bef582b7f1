//! Watch fan-out: many watchers of one collection, and writers that go on, each, when all of them have seen its last write.
//!
//! With one writer this is how long a write takes until everybody has seen it; with several, how many events a second get through.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::HttpClient;
use client::remote::Lines;
use futures_util::future::{BoxFuture, try_join_all};
use http::Method;
use memchr::memmem::Finder;
use serde_json::json;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinSet;

use crate::BenchError;
use crate::cluster::{Cluster, PATIENCE, send};
use crate::measure::{Figure, Stopwatch};

const WRITES: usize = 300;
/// The second figure's writers, each with a connection of its own, if there are so many.
pub const WRITERS: usize = 16;
/// How much of a watch's last line an error shows.
const SHOWN_BYTES: usize = 500;

struct Shared {
    /// What the names of the written objects begin with, as it stands in their JSON.
    needle: Finder<'static>,
    /// When each write was answered.
    answered: Vec<OnceLock<Instant>>,
    seen: Vec<AtomicUsize>,
    watchers: usize,
    ready: AtomicUsize,
    begin: Notify,
    /// Each writer's: everybody has seen its last write.
    told: Vec<Notify>,
    failed: AtomicUsize,
}

/// The number in the object's name.
fn number(line: &[u8], needle: &Finder<'_>) -> Option<usize> {
    let at = needle.find(line)? + needle.needle().len();
    let digits = line[at..].split(|byte| *byte == b'"').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The watchers of one connection.
struct Party {
    shared: Arc<Shared>,
    watchers: usize,
    /// How many of them have seen each write.
    seen: Vec<AtomicUsize>,
}

impl Party {
    /// One of them has seen it. The others are told when all have: so they do not wait for each other's counting.
    fn sees(&self, number: usize) {
        if self.seen[number].fetch_add(1, Ordering::Relaxed) + 1 < self.watchers {
            return;
        }
        if self.shared.seen[number].fetch_add(self.watchers, Ordering::AcqRel) + self.watchers == self.shared.watchers {
            self.shared.told[number % self.shared.told.len()].notify_one();
        }
    }
}

type Latencies = Result<Vec<Duration>, String>;

/// Latencies of all events of one watcher. A watch that ends before it has seen all of them is an error, with its last line: it would be waited for in vain.
async fn watch(client: HttpClient, path: String, party: Arc<Party>) -> Latencies {
    let shared = &*party.shared;
    let mut latencies = Vec::with_capacity(WRITES);
    let response = client.request(Method::GET, &path, &[], Bytes::new()).await.map_err(|error| error.to_string())?;
    let status = response.status;
    let mut lines = Lines::new(response);
    shared.ready.fetch_add(1, Ordering::AcqRel);
    shared.begin.notify_one();
    let mut last = Bytes::new();
    while latencies.len() < WRITES {
        let line = match lines.next().await {
            Some(Ok(line)) => line,
            Some(Err(error)) => return Err(error.to_string()),
            None => return Err(format!("it was closed with status {status}, after {}", String::from_utf8_lossy(&last[..last.len().min(SHOWN_BYTES)]))),
        };
        let now = Instant::now();
        let Some(number) = number(&line, &shared.needle).filter(|number| *number < WRITES) else {
            last = line;
            continue;
        };
        // An event may come before the answer to the write.
        latencies.push(shared.answered[number].get().map_or(Duration::ZERO, |at| now.saturating_duration_since(*at)));
        party.sees(number);
    }
    Ok(latencies)
}

/// All watches of a connection in turn, whenever one of them goes on: an event comes for all of them at once, so knowing which ones would cost more than asking.
async fn all(mut watches: Vec<BoxFuture<'static, Latencies>>) -> Latencies {
    let mut latencies = Vec::new();
    poll_fn(|cx| {
        let mut at = 0;
        while let Some(watch) = watches.get_mut(at) {
            match watch.as_mut().poll(cx) {
                Poll::Pending => at += 1,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(all)) => {
                    latencies.extend(all);
                    drop(watches.swap_remove(at));
                }
            }
        }
        if watches.is_empty() { Poll::Ready(Ok(std::mem::take(&mut latencies))) } else { Poll::Pending }
    })
    .await
}

/// A share of the connections on a thread of its own, with their watchers and writers: what is measured is the server, so whoever looks on is as cheap as can be, and neither waits
/// for locks nor goes from one processor to another. Ends, too, when nobody waits for it any more.
fn at_work(share: Vec<BoxFuture<'static, Latencies>>, mut given_up: watch::Receiver<()>) -> oneshot::Receiver<Latencies> {
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || {
        let done = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string()).and_then(|runtime| {
            runtime.block_on(async {
                let mut tasks = JoinSet::new();
                share.into_iter().for_each(|party| drop(tasks.spawn(party)));
                let working = async {
                    let mut latencies = Vec::new();
                    while let Some(done) = tasks.join_next().await {
                        latencies.extend(done.map_err(|error| error.to_string()).flatten()?);
                    }
                    Ok(latencies)
                };
                tokio::select! {
                    done = working => done,
                    _ = given_up.changed() => Err("nobody waits for it".to_owned()),
                }
            })
        });
        let _ = tell.send(done);
    });
    told
}

/// One writer's events, from when all watch until each of its writes has been seen by all.
async fn write(client: HttpClient, collection: String, shared: Arc<Shared>, writer: usize, mut go: watch::Receiver<bool>) -> Latencies {
    let writers = shared.told.len();
    // Its connection is there before the time runs.
    send(&client, Method::GET, "/version", "application/json", Bytes::new()).await;
    shared.ready.fetch_add(1, Ordering::AcqRel);
    shared.begin.notify_one();
    go.wait_for(|go| *go).await.map_err(|error| error.to_string())?;
    for number in (writer..WRITES).step_by(writers) {
        let body = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": format!("fan-{writers}-{number}")}}).to_string();
        if !send(&client, Method::POST, &collection, "application/json", body.into()).await {
            shared.failed.fetch_add(1, Ordering::Relaxed);
        }
        let _ = shared.answered[number].set(Instant::now());
        while shared.seen[number].load(Ordering::Acquire) < shared.watchers {
            shared.told[writer].notified().await;
        }
    }
    Ok(Vec::new())
}

pub async fn run(cluster: &Cluster, watchers: usize, writers: usize) -> Result<Figure, BenchError> {
    let collection = format!("/api/v1/namespaces/{}/secrets", cluster.namespace);
    let writers = writers.min(cluster.clients.len());
    let shared = Arc::new(Shared {
        needle: Finder::new(&format!(r#""name":"fan-{writers}-"#)).into_owned(),
        answered: (0..WRITES).map(|_| OnceLock::new()).collect(),
        seen: (0..WRITES).map(|_| AtomicUsize::new(0)).collect(),
        watchers,
        ready: AtomicUsize::new(0),
        begin: Notify::new(),
        told: (0..writers).map(|_| Notify::new()).collect(),
        failed: AtomicUsize::new(0),
    });
    let connections = cluster.clients.len().min(watchers);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(connections.max(1));
    let mut shares: Vec<Vec<BoxFuture<'static, Latencies>>> = (0..threads).map(|_| Vec::new()).collect();
    for index in 0..connections {
        let client = cluster.another()?;
        let count = watchers / connections + usize::from(index < watchers % connections);
        // From whatever the server has: nothing is there yet. To begin with "the newest", a stock API server asks etcd first, and in vain if that is older than 3.4.25.
        let path = format!("{collection}?watch=true&resourceVersion=0");
        let party = Arc::new(Party { shared: shared.clone(), watchers: count, seen: (0..WRITES).map(|_| AtomicUsize::new(0)).collect() });
        let watches = (0..count).map(|_| Box::pin(watch(client.clone(), path.clone(), party.clone())) as BoxFuture<'static, Latencies>).collect();
        shares[index % threads].push(Box::pin(all(watches)));
    }
    let (all_watch, go) = watch::channel(false);
    for writer in 0..writers {
        shares[writer % threads].push(Box::pin(write(cluster.another()?, collection.clone(), shared.clone(), writer, go.clone())));
    }
    let (_waited_for, given_up) = watch::channel(());
    let told: Vec<oneshot::Receiver<Latencies>> = shares.into_iter().map(|share| at_work(share, given_up.clone())).collect();
    let ready = async {
        while shared.ready.load(Ordering::Acquire) < watchers + writers {
            shared.begin.notified().await;
        }
        let stopwatch = Stopwatch::start(&cluster.pids);
        all_watch.send_replace(true);
        Ok(stopwatch)
    };
    let ended = async {
        let told = told.into_iter().map(async |told| told.await.map_err(|error| error.to_string()).flatten().map_err(|error| BenchError::Watch(format!("{error} (cluster: {})", cluster.name))));
        Ok::<_, BenchError>(try_join_all(told).await?.concat())
    };
    let name = if writers == 1 { format!("watch events, {watchers} watchers") } else { format!("watch, {watchers} watchers, {writers} writers") };
    let work = async {
        let (stopwatch, latencies) = tokio::try_join!(ready, ended)?;
        Ok::<_, BenchError>(stopwatch.figure(name, &cluster.name, watchers * WRITES, shared.failed.load(Ordering::Relaxed), latencies))
    };
    let figure = tokio::time::timeout(PATIENCE, work).await.map_err(|_| BenchError::Late(collection.clone()))??;
    send(&cluster.clients[0], Method::DELETE, &collection, "application/json", Bytes::new()).await;
    Ok(figure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_number() {
        let number = |line: &[u8]| super::number(line, &Finder::new(r#""name":"fan-1-"#));
        assert_eq!(number(br#"{"type":"ADDED","object":{"metadata":{"name":"fan-1-17","x":1}}}"#), Some(17));
        assert_eq!(number(br#"{"type":"ADDED","object":{"metadata":{"name":"fan-16-17","x":1}}}"#), None);
        assert_eq!(number(br#"{"metadata":{"name":"default-token"}}"#), None);
    }
}
