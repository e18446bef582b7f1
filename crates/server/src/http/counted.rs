//! Requests by what they ask for: how many, how long they took, how large their answers were, how they were broken off, and the long ones that run.
//!
//! Names, labels and bounds are those of apiserver/pkg/endpoints/metrics. A series is found by one hash of its labels; counting takes no lock and no memory.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Instant;

use basics::histogram::{Histogram, head};
use basics::metrics::{Family, Histograms, Series, line, shown, single};
use http::Method;
use http::request::Parts;
use http_body::Body as _;

use super::answer::Answer;
use super::held;
use super::sent_events::SentEvents;
use super::spent::Spent;
use crate::authorization::Attributes;
use crate::flow_control::Kind;
use crate::path::{Query, Route};

/// Names of resources come from clients: what comes after so many series is not counted.
const SERIES_MAX: usize = 4000;
const SECONDS: &[f64] =
    &[0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];
/// Without those below what an objective is ever about.
const OBJECTIVE_SECONDS: &[f64] = &[0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];
const BYTES: &[f64] = &[1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
const BODY_BYTES: &[f64] = &[
    5e4, 1.5e5, 2.5e5, 3.5e5, 4.5e5, 5.5e5, 6.5e5, 7.5e5, 8.5e5, 9.5e5, 1.05e6, 1.15e6, 1.25e6, 1.35e6, 1.45e6, 1.55e6, 1.65e6, 1.75e6, 1.85e6, 1.95e6, 2.05e6, 2.15e6, 2.25e6, 2.35e6, 2.45e6,
    2.55e6, 2.65e6, 2.75e6, 2.85e6, 2.95e6, 3.05e6,
];
/// Paths that are told apart among those that are no resource.
const PATHS: [&str; 12] = ["/api", "/apis", "/healthz", "/livez", "/readyz", "/metrics", "/version", "/openapi/v2", "/openapi/v3", "/openid/v1/jwks", "/.well-known/openid-configuration", "/"];
const LABELS: &[&str] = &["verb", "group", "version", "resource", "subresource", "scope", "component"];
const LABELS_WITH_DRY_RUN: &[&str] = &["verb", "group", "version", "resource", "subresource", "scope", "component", "dry_run"];
/// Places of labels.
const GROUP: usize = 1;
const VERSION: usize = 2;
const RESOURCE: usize = 3;
const SUBRESOURCE: usize = 4;
/// APIs that are served and not to be used any more, by group, version and resource.
const DEPRECATED: [[&str; 3]; 2] = [["", "v1", "componentstatuses"], ["", "v1", "endpoints"]];
/// What is counted of a code: its number in the high bits, so that an empty place is zero.
const COUNT_BITS: u32 = 48;
/// Codes that one kind of request is answered with.
const CODES: usize = 16;

/// How many of each status code, without a lock.
#[derive(Default)]
struct Codes([AtomicU64; CODES]);

impl Codes {
    fn count(&self, code: u16) {
        let mark = u64::from(code) + 1;
        for place in &self.0 {
            let mut now = place.load(Ordering::Relaxed);
            if now == 0 {
                match place.compare_exchange(0, (mark << COUNT_BITS) | 1, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => return,
                    // Another was quicker, maybe with the same.
                    Err(taken) => now = taken,
                }
            }
            if now >> COUNT_BITS == mark {
                place.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().map(|place| place.load(Ordering::Relaxed)).filter(|now| *now != 0).map(|now| ((now >> COUNT_BITS) - 1, now & ((1 << COUNT_BITS) - 1)))
    }
}

/// What is counted of a kind of request, whether it is a dry run or not.
struct Common {
    objective: Histogram,
    bytes: Histogram,
    running: AtomicI64,
    terminated: Codes,
    aborted: AtomicU64,
}

struct One {
    common: Arc<Series<Common>>,
    codes: Codes,
    seconds: Histogram,
}

pub struct Requests {
    common: Family<Common>,
    series: Family<One>,
    bodies: Histograms,
    validations: Histograms,
    lost: AtomicU64,
    pub events: SentEvents,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            common: Family::at_most(LABELS, SERIES_MAX),
            series: Family::at_most(LABELS_WITH_DRY_RUN, SERIES_MAX),
            bodies: Histograms::new("apiserver_request_body_size_bytes", "[ALPHA] Apiserver request body size in bytes broken out by resource and verb.", &["resource", "group", "verb"], BODY_BYTES),
            validations: Histograms::new("field_validation_request_duration_seconds", "[ALPHA] Response latency distribution in seconds for each field validation value", &["field_validation"], OBJECTIVE_SECONDS),
            lost: AtomicU64::new(0),
            events: SentEvents::default(),
        }
    }
}

/// One request; a long one counts as running until this is dropped, and is counted then.
pub struct Counted {
    series: Arc<Series<One>>,
    /// Of a write, by how its fields are looked at.
    validation: Option<Arc<Series<Histogram>>>,
    begun: Instant,
    kind: Kind,
    code: u16,
    /// As upstream's CleanVerb has it, whether its answer's size says anything.
    reads: bool,
    spent: Spent,
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
        let labels = [verb, &asked.group, &asked.version, &asked.resource, subresource, scope, component, dry_run];
        let common = || self.common.series(&labels[..LABELS.len()], Common::new);
        let series = common().and_then(|common| self.series.series(&labels, || One { common, codes: Codes::default(), seconds: Histogram::new(SECONDS) }));
        let Some(series) = series else {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        if kind != Kind::Ordinary {
            series.common.running.fetch_add(1, Ordering::Relaxed);
        } else if matches!(found, Route::Resource(_))
            && let Some(size) = parts.headers.get(http::header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<f64>().ok())
            && matches!(asked.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection")
        {
            self.bodies.observe(&[&asked.resource, &asked.group, &asked.verb], size);
        }
        let validates = kind == Kind::Ordinary && matches!(found, Route::Resource(_)) && matches!(asked.verb.as_str(), "create" | "update" | "patch");
        let validation = if validates {
            let wanted = query.get("fieldValidation").unwrap_or_default();
            self.validations.of(&[["Ignore", "Warn", "Strict"].into_iter().find(|known| *known == wanted).unwrap_or("")])
        } else {
            None
        };
        Some(Counted { series, validation, begun: Instant::now(), kind, code: 0, reads: matches!(verb, "GET" | "LIST"), spent: Spent::default() })
    }

    pub fn text(&self, out: &mut String) {
        let all = self.series.all();
        let labels: Vec<String> = all.iter().map(|series| self.series.shown(series)).collect();
        let name = "apiserver_request_total";
        head(out, name, "counter", "[STABLE] Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.");
        for (series, labels) in all.iter().zip(&labels) {
            series.codes.all().for_each(|(code, count)| line(out, name, &format!("{labels},code=\"{code}\""), count));
        }
        let name = "apiserver_request_duration_seconds";
        head(out, name, "histogram", "[STABLE] Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.");
        all.iter().zip(&labels).for_each(|(series, labels)| series.seconds.lines(out, name, labels));
        let common: Vec<_> = self.common.all().into_iter().map(|series| (self.common.shown(&series), series)).collect();
        // The second is what the first was called once; dashboards still ask for it.
        for name in ["apiserver_request_sli_duration_seconds", "apiserver_request_slo_duration_seconds"] {
            head(out, name, "histogram", "[ALPHA] Response latency distribution (not counting webhook duration and priority & fairness queue wait times) in seconds for each verb, group, version, resource, subresource, scope and component.");
            common.iter().for_each(|(labels, series)| series.objective.lines(out, name, labels));
        }
        let name = "apiserver_response_sizes";
        head(out, name, "histogram", "[STABLE] Response size distribution in bytes for each group, version, verb, resource, subresource, scope and component.");
        common.iter().for_each(|(labels, series)| series.bytes.lines(out, name, labels));
        let name = "apiserver_longrunning_requests";
        head(out, name, "gauge", "[STABLE] Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.");
        for (labels, series) in &common {
            let running = series.running.load(Ordering::Relaxed);
            if running > 0 {
                line(out, name, labels, running);
            }
        }
        let name = "apiserver_request_terminations_total";
        head(out, name, "counter", "[ALPHA] Number of requests which apiserver terminated in self-defense.");
        for (labels, series) in &common {
            series.terminated.all().for_each(|(code, count)| line(out, name, &format!("{labels},code=\"{code}\""), count));
        }
        let name = "apiserver_request_aborts_total";
        head(out, name, "counter", "[ALPHA] Number of requests which apiserver aborted possibly due to a timeout, for each group, version, verb, resource, subresource and scope");
        for (labels, series) in &common {
            let aborted = series.aborted.load(Ordering::Relaxed);
            if aborted > 0 {
                line(out, name, labels, aborted);
            }
        }
        let old: BTreeSet<_> = common.iter().map(|(_, series)| [GROUP, VERSION, RESOURCE, SUBRESOURCE].map(|at| series.label(at))).filter(|[group, version, resource, _]| DEPRECATED.contains(&[*group, *version, *resource])).collect();
        let name = "apiserver_requested_deprecated_apis";
        if !old.is_empty() {
            head(out, name, "gauge", "[STABLE] Gauge of deprecated APIs that have been requested, broken out by API group, version, resource, subresource, and removed_release.");
        }
        for [group, version, resource, subresource] in old {
            line(out, name, &shown([("group", group), ("removed_release", ""), ("resource", resource), ("subresource", subresource), ("version", version)]), 1);
        }
        self.bodies.text(out);
        self.validations.text(out);
        self.events.text(out);
        single(out, "coracle_requests_not_counted_total", "counter", "Requests of a kind that was one too many to be counted by itself.", self.lost.load(Ordering::Relaxed));
    }
}

impl Common {
    fn new() -> Self {
        Self { objective: Histogram::new(OBJECTIVE_SECONDS), bytes: Histogram::new(BYTES), running: AtomicI64::new(0), terminated: Codes::default(), aborted: AtomicU64::new(0) }
    }
}

impl Counted {
    /// The answer has been made; that of a long request is followed to its end.
    pub(super) fn answered(mut self, answer: Answer, spent: Spent) -> Answer {
        self.code = answer.status().as_u16();
        self.spent = spent;
        if spent.terminated {
            self.series.common.terminated.count(self.code);
        }
        if self.kind != Kind::Ordinary {
            return held::until_sent(answer, self);
        }
        if let Some(size) = answer.body().size_hint().exact().filter(|_| self.reads) {
            self.series.common.bytes.observe(size as f64);
        }
        answer
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        // One whose client went away before there was an answer has no code; upstream counts it as 0 as well.
        self.series.codes.count(self.code);
        if self.code == 0 {
            self.series.common.aborted.fetch_add(1, Ordering::Relaxed);
        }
        let took = self.begun.elapsed();
        self.series.seconds.observe(took.as_secs_f64());
        if let Some(validation) = &self.validation {
            validation.observe(took.as_secs_f64());
        }
        if self.kind == Kind::Ordinary {
            self.series.common.objective.observe(took.saturating_sub(self.spent.aside).as_secs_f64());
        } else {
            self.series.common.running.fetch_sub(1, Ordering::Relaxed);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_told_apart_without_a_lock() {
        let codes = Codes::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..3000).for_each(|at| codes.count([0, 200, 404][at % 3])));
            }
        });
        let mut all: Vec<_> = codes.all().collect();
        all.sort_unstable();
        assert_eq!(all, [(0, 4000), (200, 4000), (404, 4000)]);
    }
}
