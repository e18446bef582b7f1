//! A Prometheus histogram that many threads fill without a lock, and the text of metrics.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// The sum is kept in billionths.
const SCALE: f64 = 1e9;

/// client_golang's `DefBuckets`.
pub const DEFAULT: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// client_golang's `ExponentialBuckets`: rounded as it rounds.
pub const fn exponential<const COUNT: usize>(first: f64, factor: f64) -> [f64; COUNT] {
    let (mut bounds, mut bound, mut at) = ([0.0; COUNT], first, 0);
    while at < COUNT {
        bounds[at] = bound;
        bound *= factor;
        at += 1;
    }
    bounds
}

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
        let counts: Vec<u64> = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        if counts.iter().any(|count| *count > 0) {
            lines(out, name, labels, self.bounds, &counts, self.sum.load(Ordering::Relaxed) as f64 / SCALE);
        }
    }
}

/// The lines of a histogram; `counts` has one more than `bounds`, each of what lies between two of them.
pub fn lines(out: &mut String, name: &str, labels: &str, bounds: &[f64], counts: &[u64], sum: f64) {
    let comma = if labels.is_empty() { "" } else { "," };
    let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    let mut total = 0;
    for (at, count) in counts.iter().enumerate() {
        total += count;
        let bound = bounds.get(at).map_or_else(|| "+Inf".to_owned(), |bound| shown(*bound));
        let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {total}");
    }
    let _ = writeln!(out, "{name}_sum{braces} {sum}\n{name}_count{braces} {total}");
}

/// As Go writes a number, and so everybody's dashboards: `1e+06`, `2.592e+06`, `604800`, `1e-05`.
pub fn shown(number: f64) -> String {
    let written = format!("{number:e}");
    let Some((digits, exponent)) = written.split_once('e').and_then(|(digits, exponent)| Some((digits, exponent.parse::<i32>().ok()?))) else { return written };
    if (-4..6).contains(&exponent) {
        return number.to_string();
    }
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// `# HELP` and `# TYPE`.
pub fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_go_writes_them() {
        for (number, text) in [(0.0, "0"), (0.005, "0.005"), (0.0001, "0.0001"), (0.00001, "1e-05"), (604_800.0, "604800"), (1e6, "1e+06"), (2_592_000.0, "2.592e+06"), (1e9, "1e+09"), (60.0, "60")] {
            assert_eq!(shown(number), text);
        }
        let bounds = exponential::<10>(10e-9, 10.0).map(shown);
        assert_eq!(bounds, ["1e-08", "1e-07", "1e-06", "9.999999999999999e-06", "9.999999999999999e-05", "0.001", "0.01", "0.1", "1", "10"]);
    }

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
