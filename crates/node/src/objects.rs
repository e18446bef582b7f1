//! The config maps, secrets and claims pods refer to: fetched when a container needs them.

use std::sync::Arc;

use api::k8s::api::core::v1::{ConfigMap, Secret};
use client::Client;

pub struct Objects {
    client: Client,
}

impl Objects {
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// `None` when it does not exist; other errors are the server's words.
    pub async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<Arc<ConfigMap>>, String> {
        match self.client.of::<ConfigMap>(Some(namespace)).get(name).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Arc<Secret>>, String> {
        match self.client.of::<Secret>(Some(namespace)).get(name).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }
}
