//! What is counted of each flow: upstream's `apiserver_flowcontrol_*` metrics.
//!
//! Names, labels and buckets as apiserver/pkg/util/flowcontrol/metrics.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::levels::{Digested, Level, Seats};
use basics::histogram::{Histogram, head};

const LENGTHS: &[f64] = &[0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];
const SECONDS: &[f64] = &[0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
const SEATS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0];
/// Why requests are turned away.
pub const REASONS: [&str; 4] = ["queue-full", "concurrency-limit", "time-out", "cancelled"];

pub struct Counters {
    pub dispatched: AtomicU64,
    rejected: [AtomicU64; REASONS.len()],
    pub waiting: AtomicI64,
    pub waiting_seats: AtomicI64,
    pub executing: AtomicI64,
    pub executing_seats: AtomicI64,
    pub waited: Histogram,
    pub waited_in_vain: Histogram,
    pub executed: Histogram,
    pub watched: Histogram,
    pub lengths: Histogram,
    pub seats: Histogram,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            dispatched: AtomicU64::new(0),
            rejected: Default::default(),
            waiting: AtomicI64::new(0),
            waiting_seats: AtomicI64::new(0),
            executing: AtomicI64::new(0),
            executing_seats: AtomicI64::new(0),
            waited: Histogram::new(SECONDS),
            waited_in_vain: Histogram::new(SECONDS),
            executed: Histogram::new(SECONDS),
            watched: Histogram::new(SECONDS),
            lengths: Histogram::new(LENGTHS),
            seats: Histogram::new(SEATS),
        }
    }
}

impl Counters {
    pub fn reject(&self, reason: &str) {
        if let Some(at) = REASONS.iter().position(|known| *known == reason) {
            self.rejected[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One more, or one less, that runs.
    pub fn run(&self, by: i64, seats: usize) {
        self.executing.fetch_add(by, Ordering::Relaxed);
        self.executing_seats.fetch_add(by * seats as i64, Ordering::Relaxed);
    }

    pub fn wait(&self, by: i64, seats: usize) {
        self.waiting.fetch_add(by, Ordering::Relaxed);
        self.waiting_seats.fetch_add(by * seats as i64, Ordering::Relaxed);
    }
}

type ByName = BTreeMap<(String, String), Arc<Counters>>;

/// The counters of every level and schema there ever was; a kind of object only administrators make.
#[derive(Default)]
pub struct Known(Mutex<ByName>);

impl Known {
    pub fn of(&self, level: &str, schema: &str) -> Arc<Counters> {
        self.0.lock().entry((level.to_owned(), schema.to_owned())).or_default().clone()
    }
}

fn each(out: &mut String, known: &ByName, (name, kind, help): (&str, &str, &str), value: impl Fn(&Counters) -> i64) {
    let name = format!("apiserver_flowcontrol_{name}");
    head(out, &name, kind, help);
    for ((level, schema), counters) in known {
        let _ = writeln!(out, "{name}{{flow_schema=\"{schema}\",priority_level=\"{level}\"}} {}", value(counters));
    }
}

fn histogram<'a>(out: &mut String, known: &'a ByName, name: &str, help: &str, select: impl Fn(&'a Counters) -> Vec<(&'static str, &'a Histogram)>) {
    let name = format!("apiserver_flowcontrol_{name}");
    head(out, &name, "histogram", help);
    for ((level, schema), counters) in known {
        for (extra, histogram) in select(counters) {
            histogram.lines(out, &name, &format!("{extra}flow_schema=\"{schema}\",priority_level=\"{level}\""));
        }
    }
}

fn of_levels(out: &mut String, digested: &Digested, (name, kind, help): (&str, &str, &str), value: impl Fn(&Level, &Seats) -> f64) {
    let name = format!("apiserver_flowcontrol_{name}");
    head(out, &name, kind, help);
    for level in digested.levels.values() {
        let seats = *level.state.seats.lock();
        let _ = writeln!(out, "{name}{{priority_level=\"{}\"}} {}", level.name, value(level, &seats));
    }
}

pub fn text(known: &Known, digested: &Digested) -> String {
    let known = known.0.lock();
    let mut out = String::new();
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as i64;
    each(&mut out, &known, ("dispatched_requests_total", "counter", "[BETA] Number of requests executed by API Priority and Fairness subsystem"), |counters| load(&counters.dispatched));
    head(&mut out, "apiserver_flowcontrol_rejected_requests_total", "counter", "[BETA] Number of requests rejected by API Priority and Fairness subsystem");
    for ((level, schema), counters) in &*known {
        for (reason, count) in REASONS.iter().zip(&counters.rejected) {
            let count = load(count);
            if count > 0 {
                let _ = writeln!(out, "apiserver_flowcontrol_rejected_requests_total{{flow_schema=\"{schema}\",priority_level=\"{level}\",reason=\"{reason}\"}} {count}");
            }
        }
    }
    let gauge = |counter: &AtomicI64| counter.load(Ordering::Relaxed);
    each(&mut out, &known, ("current_inqueue_requests", "gauge", "[BETA] Number of requests currently pending in queues of the API Priority and Fairness subsystem"), |counters| gauge(&counters.waiting));
    each(&mut out, &known, ("current_inqueue_seats", "gauge", "[ALPHA] Number of seats currently pending in queues of the API Priority and Fairness subsystem"), |counters| gauge(&counters.waiting_seats));
    each(&mut out, &known, ("current_executing_requests", "gauge", "[BETA] Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage in the API Priority and Fairness subsystem"), |counters| gauge(&counters.executing));
    each(&mut out, &known, ("current_executing_seats", "gauge", "[BETA] Concurrency (number of seats) occupied by the currently executing (initial stage for a WATCH, any stage otherwise) requests in the API Priority and Fairness subsystem"), |counters| {
        gauge(&counters.executing_seats)
    });
    // As above, by its old name.
    each(&mut out, &known, ("request_concurrency_in_use", "gauge", "[ALPHA] Concurrency (number of seats) occupied by the currently executing (initial stage for a WATCH, any stage otherwise) requests in the API Priority and Fairness subsystem"), |counters| {
        gauge(&counters.executing_seats)
    });
    histogram(&mut out, &known, "request_wait_duration_seconds", "[BETA] Length of time a request spent waiting in its queue", |counters| vec![("execute=\"false\",", &counters.waited_in_vain), ("execute=\"true\",", &counters.waited)]);
    histogram(&mut out, &known, "request_execution_seconds", "[ALPHA] Duration of initial stage (for a WATCH) or any (for a non-WATCH) stage of request execution in the API Priority and Fairness subsystem", |counters| {
        vec![("type=\"regular\",", &counters.executed), ("type=\"watch\",", &counters.watched)]
    });
    histogram(&mut out, &known, "request_queue_length_after_enqueue", "[ALPHA] Length of queue in the API Priority and Fairness subsystem, as seen by each request after it is enqueued", |counters| vec![("", &counters.lengths)]);
    histogram(&mut out, &known, "work_estimated_seats", "[ALPHA] Number of estimated seats (maximum of initial and final seats) associated with requests in API Priority and Fairness", |counters| vec![("", &counters.seats)]);
    drop(known);
    of_levels(&mut out, digested, ("nominal_limit_seats", "gauge", "[BETA] Nominal number of execution seats configured for each priority level"), |level, _| level.bounds.nominal as f64);
    of_levels(&mut out, digested, ("request_concurrency_limit", "gauge", "[ALPHA] Nominal number of execution seats configured for each priority level"), |level, _| level.bounds.nominal as f64);
    of_levels(&mut out, digested, ("lower_limit_seats", "gauge", "[ALPHA] Configured lower bound on number of execution seats available to each priority level"), |level, _| level.bounds.lower as f64);
    of_levels(&mut out, digested, ("upper_limit_seats", "gauge", "[ALPHA] Configured upper bound on number of execution seats available to each priority level"), |level, _| level.bounds.upper as f64);
    of_levels(&mut out, digested, ("current_limit_seats", "gauge", "[ALPHA] current derived number of execution seats available to each priority level"), |_, seats| seats.current as f64);
    of_levels(&mut out, digested, ("demand_seats_high_watermark", "gauge", "[ALPHA] High watermark, over last adjustment period, of demand_seats"), |_, seats| seats.demand.high);
    of_levels(&mut out, digested, ("demand_seats_average", "gauge", "[ALPHA] Time-weighted average, over last adjustment period, of demand_seats"), |_, seats| seats.demand.average);
    of_levels(&mut out, digested, ("demand_seats_stdev", "gauge", "[ALPHA] Time-weighted standard deviation, over last adjustment period, of demand_seats"), |_, seats| seats.demand.deviation);
    of_levels(&mut out, digested, ("demand_seats_smoothed", "gauge", "[ALPHA] Smoothed seat demands"), |_, seats| seats.demand.smoothed);
    of_levels(&mut out, digested, ("target_seats", "gauge", "[ALPHA] Seat allocation targets"), |_, seats| seats.target);
    of_levels(&mut out, digested, ("current_r", "gauge", "[ALPHA] R(time of last change)"), |level, _| level.state.queues.lock().progress());
    of_levels(&mut out, digested, ("request_dispatch_no_accommodation_total", "counter", "[ALPHA] Number of times a dispatch attempt resulted in a non accommodation due to lack of available seats"), |level, _| {
        level.state.queues.lock().unaccommodated as f64
    });
    head(&mut out, "apiserver_flowcontrol_seat_fair_frac", "gauge", "[ALPHA] Fair fraction of server's concurrency to allocate to each priority level that can use it");
    let _ = writeln!(out, "apiserver_flowcontrol_seat_fair_frac {}", digested.fair_fraction);
    out
}
