//! Audit events for a webhook: EventLists of `audit.k8s.io/v1`, each event at once or many together.
//!
//! Mirrors apiserver/plugin/pkg/audit/{webhook,buffered} and the `--audit-webhook-…` flags: in batches (the default) an event waits in a buffer, and is dropped and counted
//! when that is full; blocking, the request waits for the webhook; blocking-strict, it is refused when the webhook does not take its arrival.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};

use super::batches::{BatchOptions, Batches};
use super::metrics::AuditMetrics;
use super::truncation::{self, Truncation};
use crate::outbound::{Hook, Outbound};

/// How long one attempt may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);
/// Upstream's DefaultRetryBackoffWithInitialDelay.
const ATTEMPTS: u32 = 5;
const FACTOR: f64 = 1.5;
/// Batches under way at a time: further ones wait, and the buffer fills behind them.
const BATCHES_AT_A_TIME: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Batch,
    Blocking,
    BlockingStrict,
}

impl Mode {
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "batch" => Some(Self::Batch),
            "blocking" => Some(Self::Blocking),
            "blocking-strict" => Some(Self::BlockingStrict),
            _ => None,
        }
    }
}

/// `--audit-webhook-…`
#[derive(Debug, Clone)]
pub struct WebhookOptions {
    pub hook: Hook,
    pub mode: Mode,
    pub initial_backoff: Duration,
    pub batch: BatchOptions,
    pub truncation: Option<Truncation>,
}

pub struct Webhook {
    options: WebhookOptions,
    outbound: OnceLock<Arc<Outbound>>,
    batches: Batches,
    metrics: Arc<AuditMetrics>,
}

/// Whether an event has arrived: known later.
pub type Delivery = oneshot::Receiver<bool>;

impl Webhook {
    pub fn new(options: WebhookOptions, metrics: Arc<AuditMetrics>) -> Arc<Self> {
        let batches = Batches::new(options.batch.clone());
        Arc::new(Self { options, outbound: OnceLock::new(), batches, metrics })
    }

    pub fn is_strict(&self) -> bool {
        self.options.mode == Mode::BlockingStrict
    }

    /// Only now it can be called.
    pub fn attach(&self, outbound: Arc<Outbound>) {
        // Whoever came first stays.
        let _ = self.outbound.set(outbound);
    }

    /// Takes an event; `Some`: the request is to wait for this.
    pub fn take(self: &Arc<Self>, event: Value) -> Option<Delivery> {
        if self.options.mode == Mode::Batch {
            if !self.batches.take(event) {
                self.metrics.dropped("webhook", 1, "audit buffer queue blocked");
            }
            return None;
        }
        let (told, delivery) = oneshot::channel();
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            self.metrics.dropped("webhook", 1, "no runtime is left");
            return None;
        };
        let webhook = self.clone();
        runtime.spawn(async move {
            // Nobody may be waiting any more: the end of a stream is told by who is gone.
            let _ = told.send(webhook.deliver(vec![event]).await);
        });
        Some(delivery)
    }

    /// Sends what comes in batches, until `shutdown`; then what is left.
    pub async fn run(self: Arc<Self>, shutdown: watch::Receiver<bool>) {
        let hand_on = |batch| {
            let webhook = self.clone();
            async move {
                webhook.deliver(batch).await;
            }
        };
        self.batches.run(BATCHES_AT_A_TIME, shutdown, hand_on).await;
    }

    /// False: something is lost.
    async fn deliver(&self, events: Vec<Value>) -> bool {
        let Some(truncation) = self.options.truncation else { return self.send(events).await };
        let count = events.len();
        let fitting: Vec<Value> = events.into_iter().filter_map(|event| truncation.fit(event)).collect();
        let lost = (count - fitting.len()) as u64;
        if lost > 0 {
            self.metrics.dropped(truncation::PLUGIN, lost, truncation::TOO_LARGE);
        }
        let mut all = lost == 0;
        for batch in truncation.batches(fitting) {
            all &= self.send(batch).await;
        }
        all
    }

    /// Tries until it is taken, or for as long as upstream does.
    async fn send(&self, events: Vec<Value>) -> bool {
        let count = events.len() as u64;
        let list = json!({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": events});
        let Some(outbound) = self.outbound.get() else {
            self.metrics.dropped("webhook", count, "the webhook cannot be called yet");
            return false;
        };
        let mut pause = self.options.initial_backoff;
        let mut last = String::new();
        for attempt in 1..=ATTEMPTS {
            match outbound.post(&self.options.hook, &list, ATTEMPT_TIMEOUT).await {
                Ok(reply) if (200..300).contains(&reply.status) => return true,
                // Whatever it is, it may be better later: events are not to be lost.
                Ok(reply) => last = format!("the webhook answered {}", reply.status),
                Err(error) => last = error.to_string(),
            }
            if attempt < ATTEMPTS {
                tokio::time::sleep(pause).await;
                pause = pause.mul_f64(FACTOR);
            }
        }
        self.metrics.dropped("webhook", count, &last);
        false
    }
}
