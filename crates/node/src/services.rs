//! Services and their EndpointSlices as this node sees them: what the service proxy ([`crate::proxy`]) and the name server
//! ([`crate::names`]) both follow. Watches: Service, EndpointSlice. Writes: nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use api::k8s::api::core::v1::Service;
use api::k8s::api::discovery::v1::{Endpoint, EndpointSlice};
use client::{Change, Client, Informer};
use parking_lot::Mutex;
use tokio::sync::Notify;

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const BY_SERVICE: &str = "service";

/// Namespace and name.
pub type ServiceKey = (String, String);

/// Cheap to clone; the informers end with the last clone.
#[derive(Clone)]
pub struct Services {
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
}

impl Services {
    /// Spawns the informers on the current runtime.
    pub fn watch(client: &Client) -> Self {
        let services = Informer::<Service>::of(client, None).start();
        let slices = Informer::<EndpointSlice>::of(client, None).index(BY_SERVICE, |slice| service_of(slice).map(index_value).into_iter().collect()).start();
        Self { services, slices }
    }

    pub async fn synced(&self) {
        self.services.synced().await;
        self.slices.synced().await;
    }

    /// The Services that change from now on, and first all there are.
    pub fn changes(&self) -> Arc<Changed> {
        let changed = Arc::new(Changed::default());
        let mark = Arc::downgrade(&changed);
        self.services.on_change(move |change: &Change| {
            if let Some(changed) = mark.upgrade() {
                changed.services.fetch_add(1, Ordering::Relaxed);
                changed.add((change.key.namespace.to_string(), change.key.name.to_string()));
            }
        });
        let mark = Arc::downgrade(&changed);
        self.slices.on_change(move |change: &Change| {
            if let Some(changed) = mark.upgrade() {
                changed.slices.fetch_add(1, Ordering::Relaxed);
                // The label may have moved from one Service to another.
                for slice in change.old.iter().chain(&change.new) {
                    service_of(slice).into_iter().for_each(|key| changed.add(key));
                }
            }
        });
        changed
    }

    /// All there are.
    pub fn keys(&self) -> Vec<ServiceKey> {
        self.services.cache().keys().into_iter().map(|key| (key.namespace.to_string(), key.name.to_string())).collect()
    }

    pub fn get(&self, key: &ServiceKey) -> Option<(Arc<Service>, Vec<Arc<EndpointSlice>>)> {
        let service = self.services.cache().get(&key.0, &key.1)?;
        Some((service, self.slices.cache().list_by(BY_SERVICE, &index_value(key.clone()))))
    }
}

fn index_value((namespace, name): ServiceKey) -> String {
    format!("{namespace}/{name}")
}

fn service_of(slice: &api::Object) -> Option<ServiceKey> {
    let meta = slice.meta();
    Some((meta.namespace.as_deref().unwrap_or_default().to_owned(), meta.labels.get(SERVICE_NAME)?.to_string()))
}

/// Services that changed and were not looked at yet, each once, so there are never more of them than Services.
#[derive(Default)]
pub struct Changed {
    keys: Mutex<BTreeSet<ServiceKey>>,
    wake: Notify,
    services: AtomicU64,
    slices: AtomicU64,
}

/// Changes so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    pub services: u64,
    pub slices: u64,
}

impl Changed {
    pub fn add(&self, key: ServiceKey) {
        self.keys.lock().insert(key);
        self.wake.notify_one();
    }

    pub fn seen(&self) -> Seen {
        Seen { services: self.services.load(Ordering::Relaxed), slices: self.slices.load(Ordering::Relaxed) }
    }

    /// All that changed, without waiting.
    pub fn take(&self) -> BTreeSet<ServiceKey> {
        std::mem::take(&mut *self.keys.lock())
    }

    /// All that changed, once there is something. Cancel-safe.
    pub async fn next(&self) -> BTreeSet<ServiceKey> {
        loop {
            let keys = self.take();
            if !keys.is_empty() {
                return keys;
            }
            self.wake.notified().await;
        }
    }
}

/// Unset means ready (`publishNotReadyAddresses` is in the condition already).
pub fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true)
}

/// Ending, but still able to answer: better than nobody.
pub fn is_serving_while_terminating(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().is_some_and(|c| c.terminating == Some(true) && c.serving.or(c.ready).unwrap_or(true))
}

/// `None` as in the API: a headless Service.
pub fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
}
