//! What is measured of CEL: how long expressions take to be compiled and to be evaluated, of the whole process, as apiserver/pkg/cel/metrics has it.
//!
//! Expressions are evaluated in many places that know nothing of the server they are part of; the language itself (`cel`) has no clock.

use std::sync::LazyLock;
use std::time::Instant;

use basics::histogram::{DEFAULT, Histogram, head};

static COMPILATION: LazyLock<Histogram> = LazyLock::new(|| Histogram::new(DEFAULT));
static EVALUATION: LazyLock<Histogram> = LazyLock::new(|| Histogram::new(DEFAULT));

fn timed<T>(histogram: &Histogram, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = work();
    histogram.observe(begun.elapsed().as_secs_f64());
    done
}

pub fn compiled<T>(work: impl FnOnce() -> T) -> T {
    timed(&COMPILATION, work)
}

pub fn evaluated<T>(work: impl FnOnce() -> T) -> T {
    timed(&EVALUATION, work)
}

pub fn text(out: &mut String) {
    for (name, help, histogram) in [
        ("apiserver_cel_compilation_duration_seconds", "[BETA] CEL compilation time in seconds.", &COMPILATION),
        ("apiserver_cel_evaluation_duration_seconds", "[BETA] CEL evaluation time in seconds.", &EVALUATION),
    ] {
        head(out, name, "histogram", help);
        histogram.lines(out, name, "");
    }
}
