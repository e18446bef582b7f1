//! The log of each part of the control plane, kept as a container's log is: CRI format, in the folder of the part's mirror pod, rotated.
//!
//! So `kubectl logs -n kube-system kube-scheduler-node1` shows what the scheduler really said (decision 12 of the design), with `-f`, `--tail`,
//! `--since` and `-p`. What a part says before its pod has a name is held back, up to [`HELD_LINES`]; a disk that is full loses lines, never more.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use node::rotate;
use parking_lot::Mutex;
use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::registry::LookupSpan;

/// Lines of a part that are kept until its pod is there.
const HELD_LINES: usize = 1000;

/// Which crate's words are whose log, and from which level on: what scheduler and controllers did with each object is worth a line there,
/// though not on the console.
const TARGETS: [(&str, &str, LevelFilter); 11] = [
    ("store", "etcd", LevelFilter::INFO),
    ("server", "kube-apiserver", LevelFilter::INFO),
    ("controllers", "kube-controller-manager", LevelFilter::DEBUG),
    ("plan", "kube-controller-manager", LevelFilter::INFO),
    ("scheduler", "kube-scheduler", LevelFilter::DEBUG),
    ("place", "kube-scheduler", LevelFilter::INFO),
    ("network", "kube-proxy", LevelFilter::INFO),
    ("node::proxy", "kube-proxy", LevelFilter::DEBUG),
    ("node::services", "kube-proxy", LevelFilter::INFO),
    ("dns", "coredns", LevelFilter::INFO),
    ("node::names", "coredns", LevelFilter::INFO),
];

fn component(target: &str) -> Option<&'static str> {
    let is_below = |name: &str| target.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    TARGETS.iter().find(|(name, ..)| is_below(name)).map(|(_, component, _)| *component)
}

enum Sink {
    Held(VecDeque<Vec<u8>>),
    Open { path: PathBuf, file: File, size: u64 },
}

impl Sink {
    fn put(&mut self, entry: &[u8], now: Timestamp) {
        match self {
            Self::Held(lines) => {
                if lines.len() == HELD_LINES {
                    lines.pop_front();
                }
                lines.push_back(entry.to_vec());
            }
            Self::Open { path, file, size } => {
                // Who fails here has nobody to tell: the log is what failed.
                let _ = file.write_all(entry);
                *size += entry.len() as u64;
                if *size >= rotate::MAX_SIZE && rotate::set_aside(path, now).is_ok() {
                    let _ = rotate::prune(path);
                    if let Ok(new) = open(path) {
                        (*file, *size) = (new, 0);
                    }
                }
            }
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).open(path)
}

/// Shared by the log's layer and those who know the pods.
#[derive(Clone, Default)]
pub struct ComponentLogs(Arc<Mutex<HashMap<&'static str, Sink>>>);

impl ComponentLogs {
    /// What belongs to a part of the control plane goes to its log.
    pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> {
        let targets = TARGETS.iter().map(|(target, _, level)| (*target, *level));
        tracing_subscriber::fmt::layer().with_ansi(false).without_time().with_writer(self.clone()).with_filter(Targets::new().with_targets(targets))
    }

    /// From now on the component's words go to this file, those held back first.
    pub fn open(&self, component: &'static str, path: PathBuf) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let file = open(&path)?;
        let mut sink = Sink::Open { size: file.metadata()?.len(), path, file };
        let mut sinks = self.0.lock();
        if let Some(Sink::Held(lines)) = sinks.remove(component) {
            lines.iter().for_each(|line| sink.put(line, Timestamp::now()));
        }
        sinks.insert(component, sink);
        Ok(())
    }
}

/// The writer for one event.
pub struct Entry<'a> {
    logs: &'a ComponentLogs,
    component: Option<&'static str>,
}

impl Write for Entry<'_> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        if let Some(component) = self.component {
            let now = Timestamp::now();
            let mut entries = Vec::with_capacity(text.len() + 64);
            for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                // As upstream's components, which log to stderr.
                write!(entries, "{now:.9} stderr F ")?;
                entries.extend_from_slice(line);
                entries.push(b'\n');
            }
            self.logs.0.lock().entry(component).or_insert_with(|| Sink::Held(VecDeque::new())).put(&entries, now);
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for ComponentLogs {
    type Writer = Entry<'a>;

    fn make_writer(&'a self) -> Entry<'a> {
        Entry { logs: self, component: None }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Entry<'a> {
        Entry { logs: self, component: component(meta.target()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn targets() {
        for (target, expected) in [("scheduler::run", Some("kube-scheduler")), ("server", Some("kube-apiserver")), ("serverless", None), ("node::worker", None), ("node::proxy", Some("kube-proxy"))] {
            assert_eq!(component(target), expected, "{target}");
        }
    }

    #[test]
    fn each_to_its_own_file() {
        let folder = tempfile::tempdir().unwrap();
        let logs = ComponentLogs::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(logs.layer()), || {
            for number in 0..HELD_LINES + 5 {
                tracing::info!(target: "scheduler::run", number, "early");
            }
            tracing::debug!(target: "server", "too fine");
            logs.open("kube-scheduler", folder.path().join("s/0.log")).unwrap();
            logs.open("kube-apiserver", folder.path().join("a/0.log")).unwrap();
            tracing::debug!(target: "scheduler::run", pod = "default/web", "bound");
        });
        let text = std::fs::read_to_string(folder.path().join("s/0.log")).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        // The oldest gave way.
        assert_eq!(lines.len(), HELD_LINES + 1);
        assert!(lines[0].ends_with(" stderr F  INFO scheduler::run: early number=5"), "{}", lines[0]);
        assert!(lines[HELD_LINES].ends_with(" stderr F DEBUG scheduler::run: bound pod=\"default/web\""), "{}", lines[HELD_LINES]);
        assert!(lines[0].split(' ').next().unwrap().parse::<Timestamp>().is_ok());
        assert_eq!(std::fs::read_to_string(folder.path().join("a/0.log")).unwrap(), "");
    }

    #[test]
    fn full_files_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let mut sink = Sink::Open { path: path.clone(), file: open(&path).unwrap(), size: rotate::MAX_SIZE - 1 };
        sink.put(b"last\n", Timestamp::UNIX_EPOCH);
        sink.put(b"first\n", Timestamp::UNIX_EPOCH);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "first\n");
        assert_eq!(std::fs::read_to_string(folder.path().join("0.log.19700101-000000")).unwrap(), "last\n");
    }
}
