//! The loop around every controller: take a key, load its view, plan, apply, come again.
//!
//! A key is in work once at a time. What fails comes again after the key's back-off; a panic costs that key that one try.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;

use api::Status;
use client::{BoxFuture, Item, Queue, Recorder};
use jiff::Timestamp;
use parking_lot::Mutex;
use plan::Plan;
use plan::replicaset::Failure;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::apply::apply;
use crate::context::Context;

/// Keys of one controller in work at the same time, at most.
const WORKERS: usize = 16;

/// What distinguishes one controller from another.
pub trait Controller: Send + Sync + 'static {
    type Key: Clone + Eq + std::hash::Hash + Display + Send + Sync + 'static;
    /// As upstream calls it in events: `deployment-controller`.
    const NAME: &'static str;
    /// As upstream calls its queue in metrics: `deployment`.
    const QUEUE: &'static str;
    /// Loads the view of a key and plans. `last` is why the last try failed.
    fn plan<'a>(&'a self, key: &'a Self::Key, now: Timestamp, last: Option<Failure>) -> BoxFuture<'a, Result<Plan, Status>>;
}

struct Loop<C: Controller> {
    controller: C,
    context: Arc<Context>,
    recorder: Recorder,
    failures: Mutex<HashMap<C::Key, Failure>>,
}

/// Works until it is dropped.
pub async fn work<C: Controller>(controller: C, queue: Queue<C::Key>, context: Arc<Context>) {
    queue.measure(C::QUEUE, &context.measured);
    let recorder = Recorder::start(&context.client, C::NAME, "", context.clock.clone());
    let shared = Arc::new(Loop { controller, context, recorder, failures: Mutex::new(HashMap::new()) });
    let permits = Arc::new(Semaphore::new(WORKERS));
    let mut tasks = JoinSet::new();
    while let Some(item) = queue.next().await {
        while let Some(ended) = tasks.try_join_next() {
            log_panic(C::NAME, ended);
        }
        let Ok(permit) = permits.clone().acquire_owned().await else { break };
        let shared = shared.clone();
        tasks.spawn(async move {
            // Should the work panic, the attempt counts as failed when it is dropped.
            let mut attempt = Attempt { item, ended: false };
            shared.one(&attempt.item).await;
            attempt.ended = true;
            drop(permit);
        });
    }
}

fn log_panic(name: &'static str, ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(controller = name, %error, "panic in the work on a key");
    }
}

struct Attempt<K: Clone + Eq + std::hash::Hash + Send + Sync + 'static> {
    item: Item<K>,
    ended: bool,
}

impl<K: Clone + Eq + std::hash::Hash + Send + Sync + 'static> Drop for Attempt<K> {
    fn drop(&mut self) {
        if !self.ended {
            self.item.retry();
        }
    }
}

impl<C: Controller> Loop<C> {
    async fn one(&self, item: &Item<C::Key>) {
        let key = item.key();
        let last = self.failures.lock().get(key).cloned();
        let plan = match self.controller.plan(key, self.context.clock.now(), last).await {
            Ok(plan) => plan,
            Err(status) => {
                tracing::debug!(controller = C::NAME, %key, error = %status, "cannot load");
                return item.retry();
            }
        };
        if !plan.ops.is_empty() {
            tracing::debug!(controller = C::NAME, %key, %plan, "planned");
        }
        let requeue_after = plan.requeue_after;
        match apply(&self.context, &self.recorder, plan.ops).await {
            Ok(()) => {
                let had_failed = self.failures.lock().remove(key).is_some();
                item.forget();
                if had_failed {
                    // The condition that told of the failure has to go.
                    item.retry_after(std::time::Duration::ZERO);
                } else if let Some(delay) = requeue_after {
                    item.retry_after(delay);
                }
            }
            Err(error) => {
                // A stale cache is nothing to talk about, nor is an object that has just gone.
                if error.status.is_conflict() || error.status.is_not_found() {
                    tracing::debug!(controller = C::NAME, %key, %error, "trying again");
                } else {
                    tracing::warn!(controller = C::NAME, %key, %error, "trying again");
                }
                match error.failure {
                    Some(failure) => drop(self.failures.lock().insert(key.clone(), failure)),
                    None => drop(self.failures.lock().remove(key)),
                }
                item.retry();
            }
        }
    }
}
