//! A cluster under load: its clients, each with a connection of its own, and a namespace that is removed afterwards.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::{Object, Status};
use bytes::Bytes;
use client::kubeconfig::Config;
use client::{Body, Client, DeleteOptions, HttpClient, HttpTransport, ListOptions, Target, Transport, WatchEvent, WatchOptions, WriteOptions};
use futures_util::StreamExt;
use http::Method;
use serde_json::{Value, json};

use crate::BenchError;

/// Nothing that is waited for takes longer, or it never comes.
pub const PATIENCE: Duration = Duration::from_secs(600);

const USER_AGENT: &str = "coracle-bench";

pub struct Cluster {
    pub name: String,
    /// One connection each.
    pub clients: Vec<HttpClient>,
    pub transport: Arc<HttpTransport>,
    pub namespace: String,
    pub pids: Vec<u32>,
    config: Config,
}

pub fn target(group: &str, plural: &str, namespace: Option<&str>, name: Option<&str>) -> Target {
    Target { group: group.into(), version: "v1".into(), plural: plural.into(), namespace: namespace.map(str::to_owned), name: name.map(str::to_owned), subresource: None }
}

impl Cluster {
    pub async fn open(name: &str, kubeconfig: Option<&Path>, clients: usize, pids: Vec<u32>) -> Result<Self, BenchError> {
        let config = Config::load(kubeconfig)?;
        let connect = || HttpClient::new(&config, USER_AGENT);
        let clients = (0..clients.max(1)).map(|_| connect()).collect::<Result<Vec<_>, _>>()?;
        let cluster = Self { name: name.to_owned(), clients, transport: Arc::new(HttpTransport::new(connect()?)), namespace: format!("bench-{}", std::process::id()), pids, config };
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": cluster.namespace}});
        cluster.create(&target("", "namespaces", None, None), namespace).await?;
        cluster.until(&target("", "serviceaccounts", Some(&cluster.namespace), None), "metadata.name=default", |_, gone| !gone).await?;
        Ok(cluster)
    }

    pub fn client(&self) -> Client {
        Client::new(self.transport.clone(), USER_AGENT)
    }

    /// One more connection, of whoever asks on it first.
    pub fn another(&self) -> Result<HttpClient, BenchError> {
        Ok(HttpClient::new(&self.config, USER_AGENT)?)
    }

    pub async fn create(&self, target: &Target, object: Value) -> Result<Arc<Object>, BenchError> {
        self.transport.create(target, Body::Value(object), &WriteOptions::default()).await.map_err(|status| BenchError::refused("create", target, status))
    }

    pub async fn delete(&self, target: &Target, options: &DeleteOptions) -> Result<(), BenchError> {
        match self.transport.delete(target, options).await {
            Err(status) if !status.is_not_found() => Err(BenchError::refused("delete", target, status)),
            _ => Ok(()),
        }
    }

    /// Watches a collection from its present state on until `done` says so of an object; its second argument tells that the object was deleted.
    pub async fn until(&self, target: &Target, fields: &str, mut done: impl FnMut(&Object, bool) -> bool) -> Result<(), BenchError> {
        let listed = self.transport.list(target, &ListOptions { field_selector: fields.to_owned(), ..ListOptions::default() }).await.map_err(|status| BenchError::refused("list", target, status))?;
        if listed.items.iter().any(|object| done(object, false)) {
            return Ok(());
        }
        self.watch_until(target, fields, &listed.resource_version, done).await
    }

    pub async fn watch_until(&self, target: &Target, fields: &str, from: &str, mut done: impl FnMut(&Object, bool) -> bool) -> Result<(), BenchError> {
        let options = WatchOptions { field_selector: fields.to_owned(), resource_version: from.to_owned(), ..WatchOptions::default() };
        let refused = |status: Status| BenchError::refused("watch", target, status);
        let watching = async {
            let mut events = self.transport.watch(target, &options).await.map_err(refused)?;
            while let Some(event) = events.next().await {
                let over = match event.map_err(refused)? {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) => done(&object, false),
                    WatchEvent::Deleted(object) => done(&object, true),
                    WatchEvent::Bookmark { .. } => false,
                };
                if over {
                    return Ok(());
                }
            }
            Err(BenchError::Ended(target.path()))
        };
        tokio::time::timeout(PATIENCE, watching).await.unwrap_or_else(|_| Err(BenchError::Late(target.path())))
    }

    /// Waits until the collection is empty.
    pub async fn empty(&self, target: &Target) -> Result<(), BenchError> {
        let listed = self.transport.list(target, &ListOptions::default()).await.map_err(|status| BenchError::refused("list", target, status))?;
        let mut left = listed.items.len() as i64;
        if left == 0 {
            return Ok(());
        }
        let mut seen: std::collections::HashSet<String> = listed.items.iter().map(|object| object.meta().uid.clone()).collect();
        self.watch_until(target, "", &listed.resource_version, |object, gone| {
            if gone {
                left -= 1;
            } else if seen.insert(object.meta().uid.clone()) {
                left += 1;
            }
            left == 0
        })
        .await
    }

    /// Removes what was made.
    pub async fn close(&self) -> Result<(), BenchError> {
        let namespaces = target("", "namespaces", None, None);
        let fields = format!("metadata.name={}", self.namespace);
        let present = self.transport.list(&namespaces, &ListOptions { field_selector: fields.clone(), ..ListOptions::default() }).await.map_err(|status| BenchError::refused("list", &namespaces, status))?;
        if present.items.is_empty() {
            return Ok(());
        }
        self.delete(&target("", "namespaces", None, Some(&self.namespace)), &DeleteOptions::default()).await?;
        self.watch_until(&namespaces, &fields, &present.resource_version, |_, gone| gone).await
    }
}

/// One request of a client; whether it succeeded.
pub async fn send(client: &HttpClient, method: Method, path: &str, content_type: &str, body: Bytes) -> bool {
    let headers: &[(&str, &str)] = if body.is_empty() { &[] } else { &[("content-type", content_type)] };
    match client.request(method, path, headers, body).await {
        Ok(mut response) => {
            let mut good = (200..300).contains(&response.status);
            while let Some(chunk) = response.chunk().await {
                good &= chunk.is_ok();
            }
            good
        }
        Err(_) => false,
    }
}
