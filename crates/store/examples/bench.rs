//! The store's speeds on this machine: durable writes, reads, lists, watch fan-out, memory.
//!
//! `cargo run --release -p store --example bench [-- DIR]`; DIR (default: a temporary directory) decides which disk is measured.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use store::{Config, Embedded, Precondition, Store, WatchItem, Write};

fn config_map(name: usize) -> Bytes {
    let data = "x".repeat(900);
    format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"cm-{name:06}","namespace":"default"}},"data":{{"v":"{data}"}}}}"#).into()
}

fn key(name: usize) -> String {
    format!("configmaps/default/cm-{name:06}")
}

fn write(name: usize) -> Write {
    Write { key: key(name), precondition: Precondition::Any, object: Some(config_map(name)) }
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

async fn durable_writes(store: &Arc<Embedded>, writers: usize, span: Duration) {
    let next = Arc::new(AtomicUsize::new(0));
    let begin = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|_| {
            let (store, next) = (Arc::clone(store), Arc::clone(&next));
            tokio::spawn(async move {
                let mut took = Vec::new();
                while begin.elapsed() < span {
                    let write = write(next.fetch_add(1, Ordering::Relaxed) % 100_000);
                    let start = Instant::now();
                    store.commit(write).await.expect("the disk takes writes");
                    took.push(start.elapsed());
                }
                took
            })
        })
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await.expect("no writer panics"));
    }
    took.sort_unstable();
    let per_second = took.len() as f64 / begin.elapsed().as_secs_f64();
    println!("writers {writers:4}: {per_second:9.0} durable writes/s   p50 {:?}   p99 {:?}", percentile(&took, 50), percentile(&took, 99));
}

/// Every event is awaited by every watcher before the next ones are written: `ahead` at a time.
async fn fan_out(watchers: usize, ahead: usize, events: usize) {
    let store = Embedded::open(Config::memory()).expect("memory opens");
    let delivered = Arc::new(AtomicUsize::new(0));
    let all = Arc::new(tokio::sync::Notify::new());
    let begin = Instant::now();
    let tasks: Vec<_> = (0..watchers)
        .map(|_| {
            let mut watch = store.watch("configmaps/", store.revision()).expect("now is not compacted");
            let (delivered, all) = (Arc::clone(&delivered), Arc::clone(&all));
            tokio::spawn(async move {
                let mut waits = Vec::with_capacity(events);
                let mut seen = 0;
                while seen < events {
                    match watch.next().await {
                        Some(WatchItem::Event(event)) => {
                            waits.push((event.revision, begin.elapsed()));
                            seen += 1;
                            if delivered.fetch_add(1, Ordering::AcqRel) + 1 >= watchers * ahead && seen % ahead == 0 {
                                all.notify_one();
                            }
                        }
                        other => panic!("{other:?}"),
                    }
                }
                waits
            })
        })
        .collect();
    let mut written = Vec::with_capacity(events);
    for round in 0..events / ahead {
        for index in 0..ahead {
            store.commit(write(round * ahead + index)).await.expect("memory takes writes");
            written.push(begin.elapsed());
        }
        while delivered.load(Ordering::Acquire) < watchers * ahead {
            all.notified().await;
        }
        delivered.store(0, Ordering::Release);
    }
    let span = begin.elapsed();
    let mut waits = Vec::new();
    for task in tasks {
        for (revision, at) in task.await.expect("no watcher panics") {
            waits.push(at.saturating_sub(written[revision as usize - 2]));
        }
    }
    waits.sort_unstable();
    println!(
        "watchers {watchers:4}, {ahead:3} events at a time: {:9.0} deliveries/s   p50 {:?}   p99 {:?}",
        (watchers * events) as f64 / span.as_secs_f64(),
        percentile(&waits, 50),
        percentile(&waits, 99)
    );
}

fn reads(store: &Embedded) {
    let begin = Instant::now();
    let rounds = 500_000;
    for index in 0..rounds {
        assert!(store.get(&key(index * 7919 % 10_000)).is_some());
    }
    println!("get: {:9.0}/s on one thread", f64::from(rounds as u32) / begin.elapsed().as_secs_f64());
    let mut took: Vec<_> = (0..50)
        .map(|_| {
            let start = Instant::now();
            assert_eq!(store.list("configmaps/", None, None, 10_000).expect("now is not compacted").items.len(), 10_000);
            start.elapsed()
        })
        .collect();
    took.sort_unstable();
    println!("list of 10,000 out of {}: p50 {:?}   p99 {:?}", store.count(""), percentile(&took, 50), percentile(&took, 99));
}

fn main() {
    let dir = std::env::args_os().nth(1).map_or_else(|| std::env::temp_dir().join(format!("store-bench-{}", std::process::id())), PathBuf::from);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");

    let before = resident_bytes();
    let store = Arc::new(Embedded::open(Config::new(&dir)).expect("the directory opens"));
    let mut content = 0;
    let begin = Instant::now();
    runtime.block_on(async {
        for chunk in 0..100 {
            let waiting: Vec<_> = (0..1000)
                .map(|index| {
                    let write = write(chunk * 1000 + index);
                    content += write.object.as_ref().map_or(0, Bytes::len);
                    store.commit(write)
                })
                .collect();
            for commit in waiting {
                commit.await.expect("the disk takes writes");
            }
        }
    });
    let cost = resident_bytes().saturating_sub(before);
    println!(
        "100,000 objects of {} bytes in {:?}: {:.2} times their size in memory, history of {} events included",
        content / 100_000,
        begin.elapsed(),
        cost as f64 / content as f64,
        store.revision() - store.oldest()
    );
    reads(&store);
    for writers in [1, 16, 64] {
        runtime.block_on(durable_writes(&store, writers, Duration::from_secs(3)));
    }
    drop(store);
    let begin = Instant::now();
    let store = Embedded::open(Config::new(&dir)).expect("the directory opens again");
    println!("opened again in {:?}: {:?}", begin.elapsed(), store.report());
    drop(store);
    if let Err(error) = std::fs::remove_dir_all(&dir) {
        eprintln!("cannot remove {}: {error}", dir.display());
    }
    for watchers in [100, 1000] {
        runtime.block_on(fan_out(watchers, 1, 200_000 / watchers));
        runtime.block_on(fan_out(watchers, 100, 1_000_000 / watchers));
    }
}
