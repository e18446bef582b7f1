//! Other API servers on the same store: what they change behind our back is followed, and all of us are the endpoints of `kubernetes`.
//!
//! Nothing of it runs over a store of our own. Mirrors controlplane/reconcilers/lease.go: each server keeps a key that ends by itself.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use store::{Precondition, WatchItem, Write};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::api::Api;
use crate::bootstrap;
use crate::follow::follow;

const GRANTS: [&str; 4] = ["/registry/roles/", "/registry/clusterroles/", "/registry/rolebindings/", "/registry/clusterrolebindings/"];
const PRESENT: &str = "/registry/masterleases/";
/// The key lives for 15 s.
const PRESENT_PERIOD: Duration = Duration::from_secs(10);

/// What is granted to whom was perhaps changed by another server. Until `shutdown` becomes true or its sender is gone.
pub async fn follow_grants(api: Arc<Api>, shutdown: watch::Receiver<bool>) {
    if api.store.is_shared() {
        futures_util::future::join_all(GRANTS.iter().map(|prefix| follow_some(&api, prefix, shutdown.clone()))).await;
    }
}

async fn follow_some(api: &Api, prefix: &'static str, shutdown: watch::Receiver<bool>) {
    let mut news = follow(&api.store, prefix, shutdown);
    while news.next().await.is_some() {
        api.authorizer.changed();
    }
}

fn key(address: IpAddr) -> String {
    format!("{PRESENT}{address}")
}

/// Says that we are there, and makes endpoints of all who do, until `shutdown` becomes true or its sender is gone: then it says that we are not.
pub async fn present(api: Arc<Api>, mut shutdown: watch::Receiver<bool>) {
    let address = api.config.advertise_address;
    if !api.store.is_shared() || address.is_loopback() {
        return;
    }
    let object = format!(r#"{{"apiVersion":"v1","kind":"Endpoints","metadata":{{"name":"{address}"}},"subsets":[{{"addresses":[{{"ip":"{address}"}}]}}]}}"#);
    let mut ticks = interval(PRESENT_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let Ok(mut events) = api.store.watch(PRESENT, api.store.revision()) else { continue };
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let write = Write { key: key(address), precondition: Precondition::Any, object: Some(object.clone().into()) };
                    if let Err(error) = api.store.commit(write).await {
                        tracing::warn!(%error, "cannot say that this API server is there");
                        continue;
                    }
                }
                item = events.next() => match item {
                    // Those who say it again change nothing.
                    Some(WatchItem::Event(event)) if event.kind == store::EventKind::Updated => continue,
                    Some(WatchItem::Event(_)) => {}
                    Some(WatchItem::Progress(_)) => continue,
                    Some(WatchItem::Expired(_)) => break,
                    None => return,
                },
                () = async { drop(shutdown.wait_for(|stop| *stop).await) } => {
                    let _ = api.store.commit(Write { key: key(address), precondition: Precondition::Any, object: None }).await;
                    return;
                }
            }
            if let Err(error) = bootstrap::endpoints(&api, &all(&api)).await {
                tracing::warn!(%error, "the endpoints of the API servers could not be written");
            }
        }
    }
}

/// The addresses of the API servers that are there, and our own.
pub fn all(api: &Api) -> Vec<IpAddr> {
    let own = api.config.advertise_address;
    let mut found = vec![own];
    if api.store.is_shared() {
        let page = api.store.list(PRESENT, None, None, 0).map(|page| page.items).unwrap_or_default();
        found.extend(page.iter().filter_map(|(key, _)| key.strip_prefix(PRESENT)?.parse::<IpAddr>().ok()).filter(|address| address.is_ipv4() == own.is_ipv4()));
    }
    found.sort_unstable();
    found.dedup();
    found
}
