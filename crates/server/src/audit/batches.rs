//! Events that wait to be handed on together: a buffer, and batches of what is in it by number and time, not more of them a second than wanted.
//!
//! Mirrors apiserver/plugin/pkg/audit/buffered, for the log (`--audit-log-mode=batch`) as for the webhook.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;

/// `--audit-log-batch-…`, `--audit-webhook-batch-…`
#[derive(Debug, Clone)]
pub struct BatchOptions {
    /// Events that may wait; further ones are lost.
    pub buffer_size: usize,
    pub max_batch_size: usize,
    /// Zero: nobody waits for others.
    pub max_batch_wait: Duration,
    /// None: as many batches a second as come.
    pub throttle_qps: Option<f64>,
    pub throttle_burst: u32,
}

impl BatchOptions {
    /// Upstream's for the log: one after the other, as they come.
    pub const LOG: Self = Self { buffer_size: 10_000, max_batch_size: 1, max_batch_wait: Duration::ZERO, throttle_qps: None, throttle_burst: 0 };
}

pub struct Batches {
    options: BatchOptions,
    queue: mpsc::Sender<Value>,
    waiting: Mutex<Option<mpsc::Receiver<Value>>>,
}

impl Batches {
    pub fn new(options: BatchOptions) -> Self {
        let (queue, waiting) = mpsc::channel(options.buffer_size.max(1));
        Self { options, queue, waiting: Mutex::new(Some(waiting)) }
    }

    /// False: there is no room.
    pub fn take(&self, event: Value) -> bool {
        self.queue.try_send(event).is_ok()
    }

    /// Hands on what comes, `at_a_time` batches at once, until `shutdown`; then what is left.
    pub async fn run<F>(&self, at_a_time: usize, mut shutdown: watch::Receiver<bool>, hand_on: impl Fn(Vec<Value>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(mut waiting) = self.waiting.lock().take() else { return };
        let turns = Arc::new(Semaphore::new(at_a_time));
        let mut throttle = self.options.throttle_qps.map(|qps| Bucket::new(qps, self.options.throttle_burst));
        loop {
            let (batch, more) = self.batch(&mut waiting, &mut shutdown).await;
            if !batch.is_empty() {
                if let Some(throttle) = &mut throttle
                    && more
                {
                    throttle.turn().await;
                }
                // All turns are free again only when the batches before the last one are done.
                let wanted = if more { 1 } else { at_a_time as u32 };
                let Ok(turn) = turns.clone().acquire_many_owned(wanted).await else { return };
                // A panic costs this batch.
                let handing_on = AssertUnwindSafe(hand_on(batch)).catch_unwind();
                let handing_on = async move {
                    if handing_on.await.is_err() {
                        tracing::error!("a panic cost a batch of audit events");
                    }
                    drop(turn);
                };
                if more && at_a_time > 1 {
                    tokio::spawn(handing_on);
                } else {
                    handing_on.await;
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
