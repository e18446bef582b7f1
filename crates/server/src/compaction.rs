//! The history is forgotten after five minutes: watches and continue tokens live at least that long, memory is bounded.
//!
//! Mirrors storage/etcd3/compact.go: each interval, what was the newest revision one interval ago is compacted.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::api::Api;

const COMPACT_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// Until `shutdown` becomes true or its sender is gone.
pub async fn run(api: Arc<Api>, mut shutdown: watch::Receiver<bool>) {
    let mut ticks = interval(COMPACT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = shutdown.wait_for(|stop| *stop) => return,
        }
        if let Some(revision) = before.replace(api.store.revision())
            && let Err(error) = api.store.compact(revision).await
        {
            tracing::warn!(%error, revision, "cannot compact the store's history");
        }
    }
}
