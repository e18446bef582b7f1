//! Requests by what they ask for: how many, how long they took, how large their answers were, and the long ones that run.
//!
//! Names, labels and bounds are those of apiserver/pkg/endpoints/metrics. A series is found by one hash of its labels; counting takes no lock that others wait for.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Instant;

use http::Method;
use http::request::Parts;
use http_body::Body as _;
use parking_lot::{Mutex, RwLock};

use super::answer::Answer;
use super::held;
use crate::authorization::Attributes;
use crate::flow_control::Kind;
use crate::histogram::{Histogram, head};
use crate::path::{Query, Route};

/// Names of resources come from clients: what comes after so many series is counted as one.
const SERIES_MAX: usize = 4000;
const SECONDS: &[f64] =
    &[0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];
const BYTES: &[f64] = &[1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
/// USER_HZ, which Linux does not change.
const TICKS: f64 = 100.0;
/// Paths that are told apart among those that are no resource.
const PATHS: [&str; 12] = ["/api", "/apis", "/healthz", "/livez", "/readyz", "/metrics", "/version", "/openapi/v2", "/openapi/v3", "/openid/v1/jwks", "/.well-known/openid-configuration", "/"];

struct Series {
    /// `verb="GET",group="",…`, without what only one metric has.
    labels: Box<str>,
    /// As `labels`, with `dry_run`.
    with_dry_run: Box<str>,
    codes: Mutex<Vec<(u16, u64)>>,
    seconds: Histogram,
    bytes: Histogram,
    running: AtomicI64,
}

pub struct Requests {
    series: RwLock<HashMap<Box<str>, Arc<Series>>>,
    lost: AtomicU64,
    started: std::time::SystemTime,
}

impl Default for Requests {
    fn default() -> Self {
        Self { series: RwLock::default(), lost: AtomicU64::new(0), started: std::time::SystemTime::now() }
    }
}

/// One request; a long one counts as running until this is dropped, and is counted then.
pub struct Counted {
    series: Arc<Series>,
    begun: Instant,
    kind: Kind,
    code: u16,
}

impl Requests {
    /// None when there are too many kinds of requests already.
    pub(super) fn begin(&self, parts: &Parts, found: &Route, asked: &Attributes, query: &Query, kind: Kind) -> Option<Counted> {
        let verb = verb(parts, found, asked);
        let scope = match found {
            Route::Other => "",
            Route::Resource(_) if !asked.name.is_empty() || asked.verb == "create" => "resource",
            Route::Resource(_) if !asked.namespace.is_empty() => "namespace",
            Route::Resource(_) => "cluster",
        };
        let (subresource, component) = match found {
            Route::Resource(_) => (asked.subresource.as_str(), "apiserver"),
            Route::Other => (PATHS.into_iter().find(|path| *path == asked.path || asked.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('/') && path.len() > 1)).unwrap_or(""), ""),
        };
        let dry_run = if query.get("dryRun").is_some_and(|value| !value.is_empty()) { "All" } else { "" };
        let key = [verb, &asked.group, &asked.version, &asked.resource, subresource, scope, dry_run].join("\0");
        let known = self.series.read().get(&*key).cloned();
        let series = match known {
            Some(series) => series,
            None => {
                let mut all = self.series.write();
                if all.len() >= SERIES_MAX {
                    self.lost.fetch_add(1, Ordering::Relaxed);
                    return None;
                }
                all.entry(key.into_boxed_str()).or_insert_with(|| Arc::new(Series::new(verb, asked, subresource, scope, component, dry_run))).clone()
            }
        };
        if kind != Kind::Ordinary {
            series.running.fetch_add(1, Ordering::Relaxed);
        }
        Some(Counted { series, begun: Instant::now(), kind, code: 0 })
    }

    pub fn text(&self, out: &mut String) {
        let mut all: Vec<Arc<Series>> = self.series.read().values().cloned().collect();
        all.sort_by(|a, b| a.with_dry_run.cmp(&b.with_dry_run));
        head(out, "apiserver_request_total", "counter", "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.");
        for series in &all {
            for (code, count) in series.codes.lock().iter() {
                let _ = writeln!(out, "apiserver_request_total{{{},code=\"{code}\"}} {count}", series.with_dry_run);
            }
        }
        head(out, "apiserver_request_duration_seconds", "histogram", "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.");
        all.iter().for_each(|series| series.seconds.lines(out, "apiserver_request_duration_seconds", &series.with_dry_run));
        head(out, "apiserver_response_sizes", "histogram", "Response size distribution in bytes for each group, version, verb, resource, subresource, scope and component.");
        // Without `dry_run`: those of dry runs would stand there twice.
        all.iter().filter(|series| series.with_dry_run.ends_with("dry_run=\"\"")).for_each(|series| series.bytes.lines(out, "apiserver_response_sizes", &series.labels));
        head(out, "apiserver_longrunning_requests", "gauge", "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.");
        for series in &all {
            let running = series.running.load(Ordering::Relaxed);
            if running > 0 {
                let _ = writeln!(out, "apiserver_longrunning_requests{{{}}} {running}", series.labels);
            }
        }
        process(out, self.started);
    }
}

impl Series {
    fn new(verb: &str, asked: &Attributes, subresource: &str, scope: &str, component: &str, dry_run: &str) -> Self {
        let escape = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let labels = format!(
            "verb=\"{}\",group=\"{}\",version=\"{}\",resource=\"{}\",subresource=\"{}\",scope=\"{scope}\",component=\"{component}\"",
            escape(verb),
            escape(&asked.group),
            escape(&asked.version),
            escape(&asked.resource),
            escape(subresource)
        );
        let with_dry_run = format!("{labels},dry_run=\"{dry_run}\"");
        Self { labels: labels.into(), with_dry_run: with_dry_run.into(), codes: Mutex::default(), seconds: Histogram::new(SECONDS), bytes: Histogram::new(BYTES), running: AtomicI64::new(0) }
    }

    fn count(&self, code: u16) {
        let mut codes = self.codes.lock();
        match codes.iter_mut().find(|(known, _)| *known == code) {
            Some((_, count)) => *count += 1,
            None => codes.push((code, 1)),
        }
    }
}

impl Counted {
    /// The answer has been made; that of a long request is followed to its end.
    pub(super) fn answered(mut self, answer: Answer) -> Answer {
        self.code = answer.status().as_u16();
        if self.kind != Kind::Ordinary {
            return held::until_sent(answer, self);
        }
        if let Some(size) = answer.body().size_hint().exact() {
            self.series.bytes.observe(size as f64);
        }
        answer
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        // One whose client went away before there was an answer has no code; upstream counts it as 0 as well.
        self.series.count(self.code);
        if self.kind == Kind::Ordinary {
            self.series.seconds.observe(self.begun.elapsed().as_secs_f64());
        } else {
            self.series.running.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// As upstream's `CleanVerb`.
fn verb<'a>(parts: &'a Parts, found: &Route, asked: &Attributes) -> &'a str {
    if matches!(found, Route::Resource(_)) {
        match (asked.verb.as_str(), asked.subresource.as_str()) {
            (_, "attach" | "exec" | "portforward" | "proxy") => return "CONNECT",
            ("list", _) => return "LIST",
            ("watch", _) => return "WATCH",
            ("deletecollection", _) => return "DELETECOLLECTION",
            ("patch", _) if parts.headers.get(http::header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/apply-patch")) => return "APPLY",
            _ => {}
        }
    }
    match parts.method {
        Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::PATCH | Method::DELETE | Method::OPTIONS => parts.method.as_str(),
        _ => "other",
    }
}

/// What Prometheus' clients tell of every process, as far as the kernel says it.
fn process(out: &mut String, started: std::time::SystemTime) {
    let since = started.duration_since(std::time::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    let mut gauge = |name: &str, kind: &str, help: &str, value: f64| {
        head(out, name, kind, help);
        let _ = writeln!(out, "{name} {value}");
    };
    gauge("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.", since);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kibibytes = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse::<f64>().ok());
    for (field, name, help) in [
        ("VmRSS:", "process_resident_memory_bytes", "Resident memory size in bytes."),
        ("VmSize:", "process_virtual_memory_bytes", "Virtual memory size in bytes."),
    ] {
        if let Some(value) = kibibytes(field) {
            gauge(name, "gauge", help, value * 1024.0);
        }
    }
    // The twelfth and the thirteenth field after the name in brackets: ticks, of which a second has a hundred.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks: Vec<f64> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse().ok()).collect();
    if ticks.len() == 2 {
        gauge("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.", ticks.iter().sum::<f64>() / TICKS);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        gauge("process_open_fds", "gauge", "Number of open file descriptors.", open.count() as f64);
    }
}
