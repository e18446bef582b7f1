//! Metrics with labels: counters, gauges and histograms by the values of their labels, in Prometheus' text format.
//!
//! A series that exists is found without a lock that others wait for and without memory being taken: by a hash of its labels in a map that is replaced whole when a
//! series is added. A family that has as many series as it may takes no new ones: labels often come from clients.
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::{BuildHasher, RandomState};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::histogram::{Histogram, head};

/// Series of one family, when it does not say.
const SERIES_MAX: usize = 2000;
/// What a scrape is answered with.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The value of a series, with its labels.
pub struct Series<T> {
    labels: Box<[Box<str>]>,
    value: T,
}

impl<T> Deref for Series<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Series<T> {
    pub fn label(&self, at: usize) -> &str {
        &self.labels[at]
    }

    fn is(&self, values: &[&str]) -> bool {
        self.labels.iter().map(|label| &**label).eq(values.iter().copied())
    }
}

type ByHash<T> = HashMap<u64, Vec<Arc<Series<T>>>>;

/// Values of one kind by labels.
pub struct Family<T> {
    labels: &'static [&'static str],
    most: usize,
    hasher: RandomState,
    known: ArcSwap<ByHash<T>>,
    adding: Mutex<()>,
}

impl<T> Family<T> {
    pub fn new(labels: &'static [&'static str]) -> Self {
        Self::at_most(labels, SERIES_MAX)
    }

    pub fn at_most(labels: &'static [&'static str], most: usize) -> Self {
        Self { labels, most, hasher: RandomState::new(), known: ArcSwap::default(), adding: Mutex::new(()) }
    }

    /// The series with these labels, made if it is new; `None` when there are too many.
    pub fn series(&self, values: &[&str], new: impl FnOnce() -> T) -> Option<Arc<Series<T>>> {
        let hash = self.hasher.hash_one(values);
        let find = |known: &ByHash<T>| known.get(&hash)?.iter().find(|series| series.is(values)).cloned();
        if let Some(series) = find(&self.known.load()) {
            return Some(series);
        }
        let _one = self.adding.lock();
        let known = self.known.load_full();
        if let Some(series) = find(&known) {
            return Some(series);
        }
        if known.values().map(Vec::len).sum::<usize>() >= self.most {
            return None;
        }
        let series = Arc::new(Series { labels: values.iter().map(|value| (*value).into()).collect(), value: new() });
        let mut more = (*known).clone();
        more.entry(hash).or_default().push(series.clone());
        self.known.store(Arc::new(more));
        Some(series)
    }

    /// All of them, in the order of their labels.
    pub fn all(&self) -> Vec<Arc<Series<T>>> {
        let mut all: Vec<Arc<Series<T>>> = self.known.load().values().flatten().cloned().collect();
        all.sort_by(|a, b| a.labels.cmp(&b.labels));
        all
    }

    /// Forgets those that are not wanted any more.
    pub fn retain(&self, wanted: impl Fn(&Series<T>) -> bool) {
        let _one = self.adding.lock();
        let mut kept = (*self.known.load_full()).clone();
        kept.values_mut().for_each(|all| all.retain(|series| wanted(series)));
        self.known.store(Arc::new(kept));
    }

    /// `a="1",b="2"`
    pub fn shown(&self, series: &Series<T>) -> String {
        shown(self.labels.iter().copied().zip(series.labels.iter().map(|value| &**value)))
    }
}

/// `a="1",b="2"`
pub fn shown<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::new();
    for (label, value) in labels {
        let comma = if out.is_empty() { "" } else { "," };
        let _ = write!(out, "{comma}{label}=\"");
        for letter in value.chars() {
            match letter {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                other => out.push(other),
            }
        }
        out.push('"');
    }
    out
}

/// One line.
pub fn line(out: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ = if labels.is_empty() { writeln!(out, "{name} {value}") } else { writeln!(out, "{name}{{{labels}}} {value}") };
}

/// A metric of one value that is known when it is asked for.
pub fn single(out: &mut String, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
    head(out, name, kind, help);
    line(out, name, "", value);
}

/// `/metrics/slis` of a component that is well for as long as it answers.
pub fn indicators() -> String {
    let mut out = String::new();
    head(&mut out, "kubernetes_healthcheck", "gauge", "[STABLE] This metric records the result of a single healthcheck.");
    for kind in ["healthz", "livez", "readyz"] {
        line(&mut out, "kubernetes_healthcheck", &format!("name=\"ping\",type=\"{kind}\""), 1);
    }
    out
}

/// What a family is called.
struct Name {
    name: &'static str,
    help: &'static str,
}

fn lines<T>(out: &mut String, name: &Name, kind: &str, family: &Family<T>, value: impl Fn(&T) -> f64) {
    let all = family.all();
    if all.is_empty() {
        return;
    }
    head(out, name.name, kind, name.help);
    all.iter().for_each(|series| line(out, name.name, &family.shown(series), value(series)));
}

pub struct Counters {
    name: Name,
    family: Family<AtomicU64>,
}

impl Counters {
    pub fn new(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self { name: Name { name, help }, family: Family::new(labels) }
    }

    pub fn add(&self, values: &[&str], count: u64) {
        if let Some(series) = self.of(values) {
            series.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Forgets series by the label at one place.
    pub fn retain(&self, at: usize, wanted: impl Fn(&str) -> bool) {
        self.family.retain(|series| wanted(series.label(at)));
    }

    /// For who counts often.
    pub fn of(&self, values: &[&str]) -> Option<Arc<Series<AtomicU64>>> {
        self.family.series(values, || AtomicU64::new(0))
    }

    pub fn text(&self, out: &mut String) {
        lines(out, &self.name, "counter", &self.family, |count| count.load(Ordering::Relaxed) as f64);
    }
}

/// Values that go up and down, in bits of an f64.
pub struct Gauges {
    name: Name,
    family: Family<AtomicU64>,
}

impl Gauges {
    pub fn new(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self { name: Name { name, help }, family: Family::new(labels) }
    }

    pub fn set(&self, values: &[&str], value: f64) {
        if let Some(series) = self.family.series(values, || AtomicU64::new(0)) {
            series.store(value.to_bits(), Ordering::Relaxed);
        }
    }

    /// This moment, in seconds.
    pub fn now(&self, values: &[&str]) {
        self.set(values, SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()));
    }

    /// The only series there is from now on.
    pub fn only(&self, values: &[&str], value: f64) {
        self.family.retain(|_| false);
        self.set(values, value);
    }

    pub fn text(&self, out: &mut String) {
        lines(out, &self.name, "gauge", &self.family, |bits| f64::from_bits(bits.load(Ordering::Relaxed)));
    }
}

/// How many there are right now.
pub struct Levels {
    name: Name,
    family: Family<AtomicI64>,
}

/// One more, until it is dropped.
pub struct Held(Option<Arc<Series<AtomicI64>>>);

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(series) = &self.0 {
            series.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Levels {
    pub fn new(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self { name: Name { name, help }, family: Family::new(labels) }
    }

    pub fn hold(&self, values: &[&str]) -> Held {
        let series = self.family.series(values, || AtomicI64::new(0));
        if let Some(series) = &series {
            series.fetch_add(1, Ordering::Relaxed);
        }
        Held(series)
    }

    pub fn text(&self, out: &mut String) {
        lines(out, &self.name, "gauge", &self.family, |count| count.load(Ordering::Relaxed) as f64);
    }
}

pub struct Histograms {
    name: Name,
    bounds: &'static [f64],
    family: Family<Histogram>,
}

impl Histograms {
    pub fn new(name: &'static str, help: &'static str, labels: &'static [&'static str], bounds: &'static [f64]) -> Self {
        Self { name: Name { name, help }, bounds, family: Family::new(labels) }
    }

    pub fn observe(&self, values: &[&str], value: f64) {
        if let Some(series) = self.of(values) {
            series.observe(value);
        }
    }

    /// For who observes often.
    pub fn of(&self, values: &[&str]) -> Option<Arc<Series<Histogram>>> {
        self.family.series(values, || Histogram::new(self.bounds))
    }

    pub fn text(&self, out: &mut String) {
        let all = self.family.all();
        if all.is_empty() {
            return;
        }
        head(out, self.name.name, "histogram", self.name.help);
        all.iter().for_each(|series| series.lines(out, self.name.name, &self.family.shown(series)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_by_labels() {
        let counters = Counters::new("hits_total", "Hits.", &["a", "b"]);
        counters.add(&["1", "x\"y"], 1);
        counters.add(&["1", "x\"y"], 2);
        let gauges = Gauges::new("now", "Now.", &[]);
        gauges.set(&[], 1.5);
        let mut text = String::new();
        counters.text(&mut text);
        gauges.text(&mut text);
        Histograms::new("never", "Never.", &["a"], &[1.0]).text(&mut text);
        assert_eq!(text, "# HELP hits_total Hits.\n# TYPE hits_total counter\nhits_total{a=\"1\",b=\"x\\\"y\"} 3\n# HELP now Now.\n# TYPE now gauge\nnow 1.5\n");
        (0..SERIES_MAX + 10).for_each(|at| counters.add(&[&at.to_string(), ""], 1));
        assert_eq!(counters.family.all().len(), SERIES_MAX);
    }

    #[test]
    fn what_is_held_goes_down_again_and_what_is_alone_stays_alone() {
        let levels = Levels::new("busy", "Busy.", &["who"]);
        let first = levels.hold(&["a"]);
        let second = levels.hold(&["a"]);
        drop(first);
        let mut text = String::new();
        levels.text(&mut text);
        assert!(text.ends_with("busy{who=\"a\"} 1\n"), "{text}");
        drop(second);
        let gauges = Gauges::new("which", "Which.", &["one"]);
        gauges.only(&["a"], 1.0);
        gauges.only(&["b"], 1.0);
        let mut text = String::new();
        gauges.text(&mut text);
        assert!(text.ends_with("gauge\nwhich{one=\"b\"} 1\n"), "{text}");
    }

    #[test]
    fn threads_that_meet_at_a_new_series_share_it() {
        let counters = Counters::new("hits_total", "Hits.", &["a"]);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|at| counters.add(&[["x", "y", "z"][at % 3]], 1)));
            }
        });
        let all = counters.family.all();
        assert_eq!(all.iter().map(|series| series.load(Ordering::Relaxed)).collect::<Vec<_>>(), [1336, 1332, 1332]);
    }
}
