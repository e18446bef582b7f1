//! Metrics with labels: counters, gauges and histograms by the values of their labels, as Prometheus reads them.
//!
//! Names, help and labels are upstream's. A family that has seen more series than [`SERIES_MAX`] takes no new ones: labels come from clients.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::histogram::{Histogram, head};

/// Series of one family.
const SERIES_MAX: usize = 2000;

/// What a family is called and labelled.
pub struct Name {
    pub name: &'static str,
    pub help: &'static str,
    pub labels: &'static [&'static str],
}

type Series<T> = Mutex<BTreeMap<Box<[Box<str>]>, T>>;

impl Name {
    fn labels(&self, values: &[Box<str>]) -> String {
        let escape = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        self.labels.iter().zip(values).map(|(label, value)| format!("{label}=\"{}\"", escape(value))).collect::<Vec<_>>().join(",")
    }
}

fn with<T>(series: &Series<T>, values: &[&str], new: impl FnOnce() -> T, change: impl FnOnce(&mut T)) {
    let key: Box<[Box<str>]> = values.iter().map(|value| (*value).into()).collect();
    let mut series = series.lock();
    if let Some(known) = series.get_mut(&key) {
        return change(known);
    }
    if series.len() < SERIES_MAX {
        change(series.entry(key).or_insert_with(new));
    }
}

fn lines<T: std::fmt::Display>(out: &mut String, name: &Name, kind: &str, series: &Series<T>) {
    let series = series.lock();
    if series.is_empty() {
        return;
    }
    head(out, name.name, kind, name.help);
    for (values, value) in series.iter() {
        let labels = name.labels(values);
        let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
        let _ = writeln!(out, "{}{labels} {value}", name.name);
    }
}

pub struct Counters {
    name: Name,
    series: Series<u64>,
}

impl Counters {
    pub const fn new(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self { name: Name { name, help, labels }, series: Mutex::new(BTreeMap::new()) }
    }

    pub fn add(&self, values: &[&str], count: u64) {
        with(&self.series, values, || 0, |known| *known += count);
    }

    pub fn text(&self, out: &mut String) {
        lines(out, &self.name, "counter", &self.series);
    }
}

pub struct Gauges {
    name: Name,
    series: Series<f64>,
}

impl Gauges {
    pub const fn new(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self { name: Name { name, help, labels }, series: Mutex::new(BTreeMap::new()) }
    }

    pub fn set(&self, values: &[&str], value: f64) {
        with(&self.series, values, || 0.0, |known| *known = value);
    }

    /// This moment, in seconds.
    pub fn now(&self, values: &[&str]) {
        self.set(values, SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()));
    }

    /// The only series there is from now on.
    pub fn only(&self, values: &[&str], value: f64) {
        self.series.lock().clear();
        self.set(values, value);
    }

    pub fn text(&self, out: &mut String) {
        lines(out, &self.name, "gauge", &self.series);
    }
}

pub struct Histograms {
    name: Name,
    bounds: &'static [f64],
    series: Series<Histogram>,
}

impl Histograms {
    pub const fn new(name: &'static str, help: &'static str, labels: &'static [&'static str], bounds: &'static [f64]) -> Self {
        Self { name: Name { name, help, labels }, bounds, series: Mutex::new(BTreeMap::new()) }
    }

    pub fn observe(&self, values: &[&str], value: f64) {
        with(&self.series, values, || Histogram::new(self.bounds), |known| known.observe(value));
    }

    pub fn text(&self, out: &mut String) {
        let series = self.series.lock();
        if series.is_empty() {
            return;
        }
        head(out, self.name.name, "histogram", self.name.help);
        for (values, histogram) in series.iter() {
            histogram.lines(out, self.name.name, &self.name.labels(values));
        }
    }
}

/// `sha256:…`, as upstream shows what is not to be told.
pub fn hash(text: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    if text.is_empty() {
        return String::new();
    }
    let mut shown = "sha256:".to_owned();
    for byte in Sha256::digest(text) {
        let _ = write!(shown, "{byte:02x}");
    }
    shown
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
        assert_eq!(hash(b"a"), "sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb");
        (0..SERIES_MAX + 10).for_each(|at| counters.add(&[&at.to_string(), ""], 1));
        assert_eq!(counters.series.lock().len(), SERIES_MAX);
    }
}
