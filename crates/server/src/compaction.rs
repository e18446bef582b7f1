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

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use ::api::world::SystemClock;
    use store::{Precondition, Store, Write};

    use super::*;
    use crate::{Config, NodeDialer, TokenKey};

    #[tokio::test(start_paused = true)]
    async fn five_minutes_of_history_are_kept() {
        let store = Arc::new(store::Embedded::open(store::Config::memory()).unwrap());
        let key = Arc::new(TokenKey::from_pkcs8(&TokenKey::generate().unwrap()).unwrap());
        let mut config = Config::new(key, String::new());
        config.advertise_address = IpAddr::from([192, 0, 2, 1]);
        let api = Api::open(store.clone(), Arc::new(SystemClock), Arc::new(|buffer: &mut [u8]| buffer.fill(7)), config, Arc::new(NodeDialer)).await.unwrap();
        let (_stop, stopped) = watch::channel(false);
        tokio::spawn(run(api, stopped));
        let second = Duration::from_secs(1);
        tokio::time::sleep(second).await;
        let before = store.revision();
        let object = bytes::Bytes::from_static(br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}"#);
        store.commit(Write { key: "/registry/configmaps/default/a".into(), precondition: Precondition::Absent, object: Some(object) }).await.unwrap();
        tokio::time::sleep(COMPACT_INTERVAL - 2 * second).await;
        assert!(store.oldest() < before);
        tokio::time::sleep(2 * second).await;
        assert_eq!(store.oldest(), before, "what is older than an interval is gone, the rest is not");
        tokio::time::sleep(COMPACT_INTERVAL).await;
        assert_eq!(store.oldest(), before + 1);
    }
}
