//! What Kubernetes' clients measure of themselves: what was asked of the API server (`rest_client_*`), and the work queues (`workqueue_*`).
//!
//! Names, labels, bounds and words are those of component-base's metrics/prometheus/restclient and workqueue; what is counted is what client-go counts. A component has
//! one of these, as a process of upstream's has.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use api::Status;
use basics::histogram::{Histogram, exponential, head};
use basics::metrics::{Counters, Histograms, line, shown};
use parking_lot::Mutex;

const REQUEST: &[f64] = &[0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];
const QUEUE: &[f64] = &exponential::<10>(10e-9, 10.0);
/// How requests are answered that went well.
const OK: &str = "200";
const CREATED: &str = "201";

/// What is counted of a queue, or of all with its name.
pub(crate) struct QueueMeasured {
    pub adds: AtomicU64,
    pub retries: AtomicU64,
    pub waited: Histogram,
    pub worked: Histogram,
}

/// A queue as it is right now.
#[derive(Default, Clone, Copy)]
pub(crate) struct QueueState {
    pub depth: usize,
    /// All that is in work has been so for so long, and that which has been longest.
    pub unfinished: Duration,
    pub longest: Duration,
}

pub(crate) trait Looked: Send + Sync {
    fn look(&self) -> QueueState;
}

struct Named {
    measured: Arc<QueueMeasured>,
    /// Those that there are; a component that starts again has others.
    queues: Vec<Weak<dyn Looked>>,
}

pub struct Measured {
    requests: Counters,
    durations: Histograms,
    queues: Mutex<BTreeMap<&'static str, Named>>,
}

impl Default for Measured {
    fn default() -> Self {
        Self {
            requests: Counters::new("rest_client_requests_total", "[ALPHA] Number of HTTP requests, partitioned by status code, method, and host.", &["code", "host", "method"]),
            durations: Histograms::new("rest_client_request_duration_seconds", "[ALPHA] Request latency in seconds. Broken down by verb, and host.", &["host", "verb"], REQUEST),
            queues: Mutex::default(),
        }
    }
}

impl Measured {
    /// A request was answered, or (`None` of a time) a watch has begun.
    pub(crate) fn asked<T>(&self, host: &str, method: &str, outcome: &Result<T, Status>, took: Option<Duration>) {
        match outcome {
            Ok(_) => self.requests.add(&[if method == "POST" { CREATED } else { OK }, host, method], 1),
            Err(status) => self.requests.add(&[&status.code.to_string(), host, method], 1),
        }
        if let Some(took) = took {
            self.durations.observe(&[host, method], took.as_secs_f64());
        }
    }

    /// A queue is there from now on.
    pub(crate) fn queue(&self, name: &'static str, queue: Weak<dyn Looked>) -> Arc<QueueMeasured> {
        let mut queues = self.queues.lock();
        let named = queues.entry(name).or_insert_with(|| Named {
            measured: Arc::new(QueueMeasured { adds: AtomicU64::new(0), retries: AtomicU64::new(0), waited: Histogram::new(QUEUE), worked: Histogram::new(QUEUE) }),
            queues: Vec::new(),
        });
        named.queues.retain(|queue| queue.strong_count() > 0);
        named.queues.push(queue);
        named.measured.clone()
    }

    pub fn text(&self, out: &mut String) {
        self.durations.text(out);
        self.requests.text(out);
        let all: Vec<(String, Arc<QueueMeasured>, QueueState)> = self.queues.lock().iter().map(|(name, named)| (shown([("name", *name)]), named.measured.clone(), named.state())).collect();
        if all.is_empty() {
            return;
        }
        let mut each = |name: &str, kind: &str, help: &str, value: &dyn Fn(&QueueMeasured, &QueueState) -> f64| {
            head(out, name, kind, help);
            all.iter().for_each(|(labels, measured, state)| line(out, name, labels, value(measured, state)));
        };
        each("workqueue_adds_total", "counter", "[BETA] Total number of adds handled by workqueue", &|measured, _| measured.adds.load(Ordering::Relaxed) as f64);
        each("workqueue_depth", "gauge", "[BETA] Current depth of workqueue", &|_, state| state.depth as f64);
        each("workqueue_longest_running_processor_seconds", "gauge", "[BETA] How many seconds has the longest running processor for workqueue been running.", &|_, state| state.longest.as_secs_f64());
        each("workqueue_retries_total", "counter", "[BETA] Total number of retries handled by workqueue", &|measured, _| measured.retries.load(Ordering::Relaxed) as f64);
        each("workqueue_unfinished_work_seconds", "gauge", "[BETA] How many seconds of work has done that is in progress and hasn't been observed by work_duration. Large values indicate stuck threads. One can deduce the number of stuck threads by observing the rate at which this increases.", &|_, state| state.unfinished.as_secs_f64());
        let mut each = |name: &str, help: &str, value: fn(&QueueMeasured) -> &Histogram| {
            head(out, name, "histogram", help);
            all.iter().for_each(|(labels, measured, _)| value(measured).lines(out, name, labels));
        };
        each("workqueue_queue_duration_seconds", "[BETA] How long in seconds an item stays in workqueue before being requested.", |measured| &measured.waited);
        each("workqueue_work_duration_seconds", "[BETA] How long in seconds processing an item from workqueue takes.", |measured| &measured.worked);
    }
}

impl Named {
    fn state(&self) -> QueueState {
        self.queues.iter().filter_map(Weak::upgrade).map(|queue| queue.look()).fold(QueueState::default(), |all, one| QueueState {
            depth: all.depth + one.depth,
            unfinished: all.unfinished + one.unfinished,
            longest: all.longest.max(one.longest),
        })
    }
}
