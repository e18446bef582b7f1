//! `kill -9` at any moment: every write that was acknowledged is there afterwards, and nothing else than what was written.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;

use store::{Embedded, Precondition, Store, Write};

use crate::support::{object, small, text};

const DIR: &str = "STORE_CRASH_DIR";
const WRITERS: usize = 8;
const ROUNDS: u64 = 20;

/// The process that is killed: this test binary again, told by the environment where to write. Without it there is nothing to do.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let store = Arc::new(Embedded::open(small(dir.as_ref())).expect("a crash leaves a store that opens"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let start = store.revision();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = Arc::clone(&store);
            runtime.spawn(async move {
                for round in 0u64.. {
                    let key = format!("w{writer}/{}", round % 17);
                    let data = format!("{start}-{round}-{}", "x".repeat((round % 13 * 150) as usize));
                    let object = (round % 5 != 4).then(|| object(&key, &data));
                    let what = if object.is_some() { data.as_str() } else { "gone" };
                    if let Ok(done) = store.commit(Write { key: key.clone(), precondition: Precondition::Any, object: object.clone() }).await {
                        // One write call a line: a killed process has said it or not.
                        let line = format!("\nack {key} {} {what}\n", done.resource_version());
                        std::io::stdout().write_all(line.as_bytes()).unwrap();
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        runtime.block_on(writer).unwrap();
    }
}

#[test]
fn acknowledged_writes_survive_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: HashMap<String, (u64, String)> = HashMap::new();
    let mut total = 0;
    let mut highest = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["crash::child", "--exact", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        // The moment is set by the count of acknowledgements, different each round, and the rest by the scheduler.
        let kill_after = 1 + round * round * 7 % 900;
        let mut seen = 0;
        for line in lines.lines() {
            let line = line.unwrap();
            let mut words = line.split(' ');
            if words.next() != Some("ack") {
                continue;
            }
            let (Some(key), Some(revision), Some(what), None) = (words.next(), words.next(), words.next(), words.next()) else { continue };
            let revision: u64 = revision.parse().unwrap();
            let last = acknowledged.entry(key.into()).or_default();
            if revision > last.0 {
                *last = (revision, what.into());
            }
            highest = highest.max(revision);
            total += 1;
            seen += 1;
            if seen == kill_after {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(seen >= kill_after, "the child ended by itself in round {round}");

        let store = Embedded::open(small(dir.path())).unwrap();
        assert!(store.revision() >= highest);
        for (key, (revision, what)) in &acknowledged {
            match store.get(key) {
                Some(found) if found.resource_version() == *revision => assert!(text(&found).contains(&format!(r#""v":"{what}""#)), "{key}"),
                Some(found) => assert!(found.resource_version() > *revision, "{key} went back from {revision} to {}", found.resource_version()),
                None if what == "gone" => {}
                // A later delete may have become durable without being acknowledged: then the history shows it, or it is in a snapshot.
                None => {
                    let in_flight = store.revision() > *revision;
                    let mut shown = store.oldest() > *revision;
                    if let Ok(mut watch) = store.watch(key, *revision) {
                        shown |= watch.try_next().is_some();
                    }
                    assert!(in_flight && shown, "{key} was acknowledged at {revision} and is gone");
                }
            }
        }
        drop(store);
    }
    assert!(total > ROUNDS * 50, "{total} writes in all");
}
