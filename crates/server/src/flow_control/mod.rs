//! API priority and fairness: every request that is not exempt takes seats of its priority level, or waits for them in its flow's queues, or is turned away.
//!
//! Mirrors KEP-1040 and k8s.io/apiserver's filters/priority-and-fairness.go. Pure: `classify`, `shuffle`, `queues`, `allocation`, `demand`, `dropped`. `levels` makes seats of
//! configuration, `gate` lets requests in, `estimate` says how wide they are, `maintain` keeps the objects. Components in this process do not come through here: they are part
//! of what is protected. Without load a request costs an atomic load, its schema's rules, and its level's lock twice for a moment; an exempt one, counters only.

mod allocation;
mod classify;
mod counters;
mod defaults;
mod demand;
mod dropped;
mod estimate;
mod gate;
mod levels;
mod maintain;
mod max_in_flight;
mod queues;
mod shuffle;
mod watchers;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use arc_swap::ArcSwap;
use serde_json::Value;
use tokio::sync::Notify;

use crate::api::Config;
use counters::Known;
use levels::Digested;
use max_in_flight::MaxInFlight;

pub use estimate::Request;
pub use gate::Kind;
pub use maintain::run;
pub use watchers::{Watched, Watchers};

/// What the API server's limits are when nobody says: `--max-requests-inflight`, `--max-mutating-requests-inflight`.
pub const MAX_REQUESTS_IN_FLIGHT: usize = 400;
pub const MAX_MUTATING_REQUESTS_IN_FLIGHT: usize = 200;

pub struct FlowControl {
    /// Otherwise only the two limits hold.
    fair: bool,
    seats: usize,
    started: Instant,
    digested: ArcSwap<Digested>,
    known: Known,
    in_flight: MaxInFlight,
    pub watchers: Arc<Watchers>,
    /// Somebody came since the seats were last balanced.
    stirred: AtomicBool,
    stir: Notify,
}

impl FlowControl {
    pub fn new(config: &Config) -> Self {
        let (reading, mutating) = (config.max_requests_in_flight, config.max_mutating_requests_in_flight);
        let new = Self {
            fair: config.priority_and_fairness,
            seats: reading + mutating,
            started: Instant::now(),
            digested: ArcSwap::default(),
            known: Known::default(),
            in_flight: MaxInFlight::new(reading, mutating),
            watchers: Arc::default(),
            stirred: AtomicBool::new(false),
            stir: Notify::new(),
        };
        new.configure(&[], &[]);
        new
    }

    fn now(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    fn configure(&self, levels: &[Value], schemas: &[Value]) {
        let digested = levels::digest(&self.digested.load(), levels, schemas, self.seats, &self.known, self.now());
        self.digested.store(Arc::new(digested));
    }

    /// Prometheus text.
    pub fn metrics(&self) -> String {
        let mut text = self.in_flight.text();
        if self.fair {
            text.push_str(&counters::text(&self.known, &self.digested.load()));
        }
        text
    }
}
