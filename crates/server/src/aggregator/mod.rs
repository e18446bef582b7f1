//! The aggregation layer: APIServices that name a Service are answered by that Service's server, under this API server's door.
//!
//! `local.rs` shows what is served here as APIServices too, `availability.rs` asks the others whether they are there (and keeps what they say they serve), `onward.rs` passes
//! requests on, `documents.rs` puts their discovery and OpenAPI beside ours. Mirrors k8s.io/kube-aggregator. Who has no such APIService pays an atomic load a request.

mod availability;
mod documents;
mod local;
mod onward;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::api::Resource;
use arc_swap::{ArcSwap, ArcSwapOption};
use base64::Engine;
use client::kubeconfig::Config;
use parking_lot::Mutex;
use serde_json::Value;
use store::Store;
use tokio::sync::watch;

use crate::api::Api;
use pki::Identity;
use crate::registry::text;

pub use documents::{aggregated, group, group_list, v2, v3_index};
pub use local::built_in;
pub use onward::{path_owner, relay};

const GROUP: &str = "apiregistration.k8s.io";
const PREFIX: &str = "/registry/apiregistration.k8s.io/apiservices/";

/// Who the API server is to the servers behind it, and by which authority they know it.
#[derive(Clone)]
pub struct FrontProxy {
    pub authority_pem: String,
    pub identity: Identity,
}

/// An APIService that names a Service.
pub struct Remote {
    pub name: String,
    pub group: String,
    pub version: String,
    pub group_priority: i64,
    pub version_priority: i64,
    pub service_namespace: String,
    pub service: String,
    pub port: u16,
    pub available: bool,
    tls: Result<Arc<rustls::ClientConfig>, String>,
}

impl Remote {
    fn of(object: &Value, identity: Option<&Identity>) -> Option<Self> {
        let service = object.pointer("/spec/service").filter(|service| service.is_object())?;
        let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
        let bundle = base64::engine::general_purpose::STANDARD.decode(text(object, "/spec/caBundle")).ok().filter(|bundle| !bundle.is_empty());
        let config = Config {
            insecure: object.pointer("/spec/insecureSkipTLSVerify").and_then(Value::as_bool).unwrap_or(false),
            certificate_authority: bundle,
            client_identity: identity.map(|identity| (identity.certificate_pem.clone().into_bytes(), identity.key_pem.clone().into_bytes())),
            ..Config::default()
        };
        let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
        Some(Self {
            name: text(object, "/metadata/name").to_owned(),
            group: text(object, "/spec/group").to_owned(),
            version: text(object, "/spec/version").to_owned(),
            group_priority: number("/spec/groupPriorityMinimum"),
            version_priority: number("/spec/versionPriority"),
            service_namespace: text(service, "/namespace").to_owned(),
            service: text(service, "/name").to_owned(),
            port: service.get("port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok()).unwrap_or(443),
            available: conditions.into_iter().flatten().any(|condition| text(condition, "/type") == "Available" && text(condition, "/status") == "True"),
            tls: client::tls::client_config(&config, &[b"http/1.1"]).map(Arc::new),
        })
    }

    /// The name its certificate has to bear.
    fn host(&self) -> String {
        format!("{}.{}.svc", self.service, self.service_namespace)
    }

    /// `/apis/<group>/<version>`
    fn path(&self) -> String {
        if self.group.is_empty() { format!("/api/{}", self.version) } else { format!("/apis/{}/{}", self.group, self.version) }
    }
}

#[derive(Default)]
struct Index {
    generation: u64,
    remotes: Vec<Arc<Remote>>,
}

/// What a server behind has said of itself.
#[derive(Default, Clone)]
struct Said {
    /// `APIResourceList`
    resources: Value,
    openapi_v2: Option<Arc<Value>>,
    openapi_v3: Option<Value>,
}

pub struct Aggregator {
    generation: AtomicU64,
    index: ArcSwap<Index>,
    /// Who we are to them since the certificate was renewed.
    renewed: ArcSwapOption<Identity>,
    /// By APIService.
    said: Mutex<HashMap<String, Said>>,
}

impl Default for Aggregator {
    fn default() -> Self {
        Self { generation: AtomicU64::new(1), index: ArcSwap::default(), renewed: ArcSwapOption::empty(), said: Mutex::default() }
    }
}

impl Aggregator {
    /// A write of `row` has happened.
    pub fn note(&self, row: &Resource) {
        if row.group == GROUP {
            self.changed();
        }
    }

    fn changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    fn index(&self, store: &dyn Store, front: Option<&FrontProxy>) -> Arc<Index> {
        // Read before the list: what is written meanwhile makes a newer generation.
        let generation = self.generation.load(Ordering::Acquire);
        let known = self.index.load_full();
        if known.generation == generation {
            return known;
        }
        let objects = store.list(PREFIX, None, None, 0).map(|page| page.items).unwrap_or_default();
        let renewed = self.renewed.load_full();
        let identity = front.map(|front| renewed.as_deref().unwrap_or(&front.identity));
        let remotes = objects.iter().filter_map(|(_, object)| Remote::of(&object.value().ok()?, identity).map(Arc::new)).collect();
        let fresh = Arc::new(Index { generation, remotes });
        self.index.store(fresh.clone());
        fresh
    }
}

impl Api {
    /// The servers behind are shown this identity from now on.
    pub fn exchange_front_proxy(&self, identity: Identity) {
        self.aggregator.renewed.store(Some(Arc::new(identity)));
        self.aggregator.changed();
    }
}

fn remotes(api: &Api) -> Arc<Index> {
    api.aggregator.index(&*api.store, api.config.front_proxy.as_ref())
}

/// Each APIService, and whether what it names is there: what is served here is.
pub fn availability(api: &Api) -> Vec<(String, bool)> {
    let remotes = remotes(api);
    let objects = api.store.list(PREFIX, None, None, 0).map(|page| page.items).unwrap_or_default();
    let name = |key: &str| key.rsplit('/').next().unwrap_or_default().to_owned();
    objects.iter().map(|(key, _)| name(key)).map(|name| (remotes.remotes.iter().find(|remote| remote.name == name).is_none_or(|remote| remote.available), name)).map(|(available, name)| (name, available)).collect()
}

/// Who serves a group's version, if not we.
pub fn remote(api: &Api, group: &str, version: &str) -> Option<Arc<Remote>> {
    remotes(api).remotes.iter().find(|remote| remote.group == group && remote.version == version).cloned()
}

/// Until `shutdown` becomes true or its sender is gone.
pub async fn run(api: Arc<Api>, shutdown: watch::Receiver<bool>) {
    tokio::join!(local::run(&api, shutdown.clone()), availability::run(&api, shutdown.clone()));
}
