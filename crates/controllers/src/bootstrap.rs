//! Runs [`plan::bootstrap`]: the signer of `cluster-info` and the cleaner of expired tokens. Both look at few objects, which they follow themselves.

use std::collections::HashMap;
use std::sync::Arc;

use api::Status;
use api::k8s::Resource;
use api::k8s::api::core::v1::{ConfigMap, Secret};
use client::{BoxFuture, Client, Informer, ObjectKey, Queue};
use jiff::Timestamp;
use plan::Plan;
use plan::bootstrap::{CLUSTER_INFO, CLUSTER_INFO_NAMESPACE, SECRET_NAMESPACE, SECRET_TYPE, View, clean, sign};
use plan::replicaset::Failure;

use crate::context::{Context, Observed};
use crate::informers::itself;
use crate::runner::Controller;

#[derive(Clone)]
pub struct Tokens {
    secrets: Informer<Secret>,
    cluster_info: Informer<ConfigMap>,
}

impl Tokens {
    pub fn watch(client: &Client) -> Self {
        Self {
            secrets: Informer::<Secret>::of(client, Some(SECRET_NAMESPACE)).fields(&format!("type={SECRET_TYPE}")).start(),
            cluster_info: Informer::<ConfigMap>::of(client, Some(CLUSTER_INFO_NAMESPACE)).fields(&format!("metadata.name={CLUSTER_INFO}")).start(),
        }
    }

    pub async fn synced(&self) {
        self.secrets.synced().await;
        self.cluster_info.synced().await;
    }

    /// As `context`, but with these caches to wait for.
    pub fn context(&self, context: &Context) -> Arc<Context> {
        let key = |group: &str, plural: &str| (group.to_owned(), plural.to_owned());
        let observed: HashMap<(String, String), Arc<dyn Observed>> = HashMap::from([
            (key(Secret::GROUP, Secret::URL_PATH_SEGMENT), Arc::new(self.secrets.clone()) as Arc<dyn Observed>),
            (key(ConfigMap::GROUP, ConfigMap::URL_PATH_SEGMENT), Arc::new(self.cluster_info.clone())),
        ]);
        Arc::new(Context { client: context.client.clone(), clock: context.clock.clone(), measured: context.measured.clone(), observed })
    }
}

pub struct BootstrapSigner(pub Tokens);

impl BootstrapSigner {
    pub fn keys(&self) -> Queue<ObjectKey> {
        let queue: Queue<ObjectKey> = Queue::new();
        itself(&self.0.cluster_info, &queue);
        let all = queue.clone();
        self.0.secrets.on_change(move |_| all.add(ObjectKey::new(CLUSTER_INFO_NAMESPACE, CLUSTER_INFO)));
        queue
    }
}

impl Controller for BootstrapSigner {
    type Key = ObjectKey;
    const NAME: &'static str = "bootstrap-signer-controller";
    const QUEUE: &'static str = "bootstrap_signer_queue";

    fn plan<'a>(&'a self, key: &'a ObjectKey, now: Timestamp, _last: Option<Failure>) -> BoxFuture<'a, Result<Plan, Status>> {
        let view = self.0.cluster_info.cache().get(&key.namespace, &key.name).map(|cluster_info| View { cluster_info, secrets: self.0.secrets.cache().list_in(SECRET_NAMESPACE) });
        let plan = view.map(|view| sign(&view, now)).unwrap_or_default();
        Box::pin(async move { Ok(plan) })
    }
}

pub struct TokenCleaner(pub Tokens);

impl TokenCleaner {
    pub fn keys(&self) -> Queue<ObjectKey> {
        let queue = Queue::new();
        itself(&self.0.secrets, &queue);
        queue
    }
}

impl Controller for TokenCleaner {
    type Key = ObjectKey;
    const NAME: &'static str = "token-cleaner-controller";
    const QUEUE: &'static str = "token_cleaner";

    fn plan<'a>(&'a self, key: &'a ObjectKey, now: Timestamp, _last: Option<Failure>) -> BoxFuture<'a, Result<Plan, Status>> {
        let plan = self.0.secrets.cache().get(&key.namespace, &key.name).map(|secret| clean(&secret, now)).unwrap_or_default();
        Box::pin(async move { Ok(plan) })
    }
}
