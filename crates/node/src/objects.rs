//! The config maps, secrets and claims pods refer to: fetched when a container needs them, watched while a volume shows them.
//!
//! As upstream's watching managers: only objects that pods of this node refer to are watched, each once, however many pods use it.

use std::collections::HashMap;
use std::sync::Arc;

use api::k8s::Resource as ResourceConsts;
use api::k8s::api::core::v1::{ConfigMap, Secret};
use client::{Client, Informer};
use parking_lot::Mutex;

type Watched<T> = Mutex<HashMap<(String, String), std::sync::Weak<Informer<T>>>>;

pub struct Objects {
    client: Client,
    config_maps: Watched<ConfigMap>,
    secrets: Watched<Secret>,
}

impl Objects {
    pub fn new(client: Client) -> Self {
        Self { client, config_maps: Mutex::default(), secrets: Mutex::default() }
    }

    /// `None` when it does not exist; other errors are the server's words.
    pub async fn get<T: ResourceConsts + api::Typed>(&self, namespace: Option<&str>, name: &str) -> Result<Option<Arc<T>>, String> {
        match self.client.of::<T>(namespace).get(name).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    pub async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<Arc<ConfigMap>>, String> {
        self.get(Some(namespace), name).await
    }

    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Arc<Secret>>, String> {
        self.get(Some(namespace), name).await
    }

    /// Watches it until the last holder lets go.
    pub fn watch_config_map(&self, namespace: &str, name: &str) -> Arc<Informer<ConfigMap>> {
        watch(&self.client, &self.config_maps, namespace, name)
    }

    pub fn watch_secret(&self, namespace: &str, name: &str) -> Arc<Informer<Secret>> {
        watch(&self.client, &self.secrets, namespace, name)
    }
}

fn watch<T: ResourceConsts + Send + Sync + 'static>(client: &Client, watched: &Watched<T>, namespace: &str, name: &str) -> Arc<Informer<T>> {
    let mut watched = watched.lock();
    let key = (namespace.to_owned(), name.to_owned());
    if let Some(informer) = watched.get(&key).and_then(std::sync::Weak::upgrade) {
        return informer;
    }
    watched.retain(|_, informer| informer.strong_count() > 0);
    let informer = Arc::new(Informer::<T>::of(client, Some(namespace)).fields(&format!("metadata.name={name}")).start());
    watched.insert(key, Arc::downgrade(&informer));
    informer
}
