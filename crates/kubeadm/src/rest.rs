//! Objects over the API by their names, without types: what kubeadm reads and publishes is small.

use std::sync::Arc;

use api::Status;
use client::kubeconfig::Config;
use client::{Body, Client, HttpClient, HttpTransport, PatchKind, Target, WriteOptions};
use serde_json::Value;

use crate::error::Error;

pub const NAME: &str = "kubeadm";

/// Group, version and plural of a kind that kubeadm has to do with.
pub struct Kind(pub &'static str, pub &'static str, pub &'static str);

pub const CONFIG_MAPS: Kind = Kind("", "v1", "configmaps");
pub const SECRETS: Kind = Kind("", "v1", "secrets");
pub const NODES: Kind = Kind("", "v1", "nodes");
pub const ROLES: Kind = Kind("rbac.authorization.k8s.io", "v1", "roles");
pub const ROLE_BINDINGS: Kind = Kind("rbac.authorization.k8s.io", "v1", "rolebindings");
pub const CLUSTER_ROLES: Kind = Kind("rbac.authorization.k8s.io", "v1", "clusterroles");
pub const CLUSTER_ROLE_BINDINGS: Kind = Kind("rbac.authorization.k8s.io", "v1", "clusterrolebindings");
pub const SIGNING_REQUESTS: Kind = Kind("certificates.k8s.io", "v1", "certificatesigningrequests");

impl Kind {
    pub fn target(&self, namespace: Option<&str>, name: Option<&str>) -> Target {
        Target { group: self.0.into(), version: self.1.into(), plural: self.2.into(), namespace: namespace.map(str::to_owned), name: name.map(str::to_owned), subresource: None }
    }
}

/// A connection; nothing is sent yet.
pub fn connect(config: &Config) -> Result<Client, Error> {
    let http = HttpClient::new(config, NAME).map_err(|error| Error::Invalid(error.to_string()))?;
    Ok(Client::new(Arc::new(HttpTransport::new(http)), NAME))
}

fn options() -> WriteOptions {
    WriteOptions { field_manager: NAME.to_owned(), ..WriteOptions::default() }
}

pub async fn get(client: &Client, kind: &Kind, namespace: Option<&str>, name: &str) -> Result<Option<Value>, Status> {
    match client.transport().get(&kind.target(namespace, Some(name))).await {
        Ok(object) => object.value().map(Some).map_err(Status::internal),
        Err(status) if status.is_not_found() => Ok(None),
        Err(status) => Err(status),
    }
}

pub async fn create(client: &Client, kind: &Kind, object: Value) -> Result<Value, Status> {
    let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str).map(str::to_owned);
    let made = client.transport().create(&kind.target(namespace.as_deref(), None), Body::Value(object), &options()).await?;
    made.value().map_err(Status::internal)
}

/// Makes it, or brings the one there in line; as it is then.
pub async fn put(client: &Client, kind: &Kind, object: Value) -> Result<Value, Status> {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).map(str::to_owned);
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    match create(client, kind, object.clone()).await {
        Err(status) if status.is_already_exists() => {
            let target = kind.target(namespace.as_deref(), name.as_deref());
            client.transport().patch(&target, PatchKind::Merge, Body::Value(object), &options()).await?.value().map_err(Status::internal)
        }
        made => made,
    }
}

pub async fn patch(client: &Client, kind: &Kind, name: &str, patch: Value) -> Result<(), Status> {
    client.transport().patch(&kind.target(None, Some(name)), PatchKind::Strategic, Body::Value(patch), &options()).await.map(drop)
}
