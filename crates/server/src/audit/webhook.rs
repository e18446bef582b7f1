//! Audit events for a webhook: EventLists of `audit.k8s.io/v1`, each event at once or many together.
//!
//! Mirrors apiserver/plugin/pkg/audit/{webhook,buffered} and the `--audit-webhook-…` flags: in batches (the default) an event waits in a buffer, and is dropped and counted
//! when that is full; blocking, the request waits for the webhook; blocking-strict, it is refused when the webhook does not take its arrival.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::metrics::AuditMetrics;
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
    pub buffer_size: usize,
    pub max_batch_size: usize,
    pub max_batch_wait: Duration,
    /// None: as many batches a second as come.
    pub throttle_qps: Option<f64>,
    pub throttle_burst: u32,
}

pub struct Webhook {
    options: WebhookOptions,
    outbound: OnceLock<Arc<Outbound>>,
    queue: mpsc::Sender<Value>,
    waiting: Mutex<Option<mpsc::Receiver<Value>>>,
    metrics: Arc<AuditMetrics>,
}

/// Whether an event has arrived: known later.
pub type Delivery = oneshot::Receiver<bool>;

impl Webhook {
    pub fn new(options: WebhookOptions, metrics: Arc<AuditMetrics>) -> Arc<Self> {
        let (queue, waiting) = mpsc::channel(options.buffer_size.max(1));
        Arc::new(Self { options, outbound: OnceLock::new(), queue, waiting: Mutex::new(Some(waiting)), metrics })
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
            if self.queue.try_send(event).is_err() {
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
    pub async fn run(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        let Some(mut waiting) = self.waiting.lock().take() else { return };
        let turns = Arc::new(Semaphore::new(BATCHES_AT_A_TIME));
        let mut throttle = self.options.throttle_qps.map(|qps| Bucket::new(qps, self.options.throttle_burst));
        loop {
            let (batch, more) = self.batch(&mut waiting, &mut shutdown).await;
            if !batch.is_empty() {
                if let Some(throttle) = &mut throttle
                    && more
                {
                    throttle.turn().await;
                }
                let Ok(turn) = turns.clone().acquire_owned().await else { return };
                let webhook = self.clone();
                let sending = async move {
                    webhook.deliver(batch).await;
                    drop(turn);
                };
                if more {
                    tokio::spawn(sending);
                } else {
                    sending.await;
                }
            }
            if !more {
                return;
            }
        }
    }

    /// The next events; false: they are the last ones.
    async fn batch(&self, waiting: &mut mpsc::Receiver<Value>, shutdown: &mut watch::Receiver<bool>) -> (Vec<Value>, bool) {
        let mut batch = Vec::new();
        let mut until: Option<Instant> = None;
        loop {
            let timer = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = waiting.recv() => match event {
                    Some(event) => {
                        batch.push(event);
                        until = until.or_else(|| Some(Instant::now() + self.options.max_batch_wait));
                        if batch.len() >= self.options.max_batch_size {
                            return (batch, true);
                        }
                    }
                    None => return (batch, false),
                },
                () = timer => return (batch, true),
                _ = shutdown.wait_for(|stop| *stop) => {
                    while let Ok(event) = waiting.try_recv() {
                        batch.push(event);
                    }
                    return (batch, false);
                }
            }
        }
    }

    /// Tries until it is taken, or for as long as upstream does.
    async fn deliver(&self, events: Vec<Value>) -> bool {
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

/// So many turns a second, and a few at once.
struct Bucket {
    every: Duration,
    burst: u32,
    /// When the bucket would be full again.
    full: Instant,
}

impl Bucket {
    fn new(qps: f64, burst: u32) -> Self {
        Self { every: Duration::from_secs_f64(1.0 / qps.max(0.001)), burst: burst.max(1), full: Instant::now() }
    }

    async fn turn(&mut self) {
        let now = Instant::now();
        self.full = self.full.max(now) + self.every;
        let room = self.every * self.burst;
        if self.full > now + room {
            tokio::time::sleep_until(self.full - room).await;
        }
    }
}
