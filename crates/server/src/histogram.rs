//! A Prometheus histogram that many threads fill without a lock, and the text of metrics.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// The sum is kept in billionths.
const SCALE: f64 = 1e9;

pub struct Histogram {
    bounds: &'static [f64],
    /// One more than bounds: what lies above them all.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    pub fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(), sum: AtomicU64::new(0) }
    }

    pub fn observe(&self, value: f64) {
        let at = self.bounds.iter().position(|bound| value <= *bound).unwrap_or(self.bounds.len());
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add((value * SCALE) as u64, Ordering::Relaxed);
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Its lines, when it has seen anything.
    pub fn lines(&self, out: &mut String, name: &str, labels: &str) {
        if self.count() == 0 {
            return;
        }
        let comma = if labels.is_empty() { "" } else { "," };
        let mut total = 0;
        for (at, count) in self.counts.iter().enumerate() {
            total += count.load(Ordering::Relaxed);
            let bound = self.bounds.get(at).map_or_else(|| "+Inf".to_owned(), f64::to_string);
            let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {total}");
        }
        let _ = writeln!(out, "{name}_sum{{{labels}}} {}\n{name}_count{{{labels}}} {total}", self.sum.load(Ordering::Relaxed) as f64 / SCALE);
    }
}

/// `# HELP` and `# TYPE`.
pub fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_cumulative() {
        let histogram = Histogram::new(&[0.0, 0.5, 1.0]);
        let mut text = String::new();
        histogram.lines(&mut text, "wait", "a=\"b\"");
        assert_eq!(text, "");
        [0.0, 0.25, 0.5, 2.0].into_iter().for_each(|value| histogram.observe(value));
        histogram.lines(&mut text, "wait", "a=\"b\"");
        assert_eq!(
            text,
            "wait_bucket{a=\"b\",le=\"0\"} 1\nwait_bucket{a=\"b\",le=\"0.5\"} 3\nwait_bucket{a=\"b\",le=\"1\"} 3\nwait_bucket{a=\"b\",le=\"+Inf\"} 4\nwait_sum{a=\"b\"} 2.75\nwait_count{a=\"b\"} 4\n"
        );
    }
}
