//! The client everyone in the process holds, and its typed view of one kind.

use std::marker::PhantomData;
use std::sync::Arc;

use api::k8s::Resource as ResourceConsts;
use api::{Object, Status};
use serde::Serialize;
use serde_json::Value;

use crate::measured::Measured;
use crate::measuring::Measuring;
use crate::transport::{Body, DeleteOptions, EventStream, ListOptions, ObjectList, PatchKind, Target, Transport, WatchOptions, WriteOptions};

/// A handle on an API server. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
    field_manager: Arc<str>,
}

impl Client {
    /// `field_manager` is recorded with every write: the component's name, as `kube-scheduler`.
    pub fn new(transport: Arc<dyn Transport>, field_manager: &str) -> Self {
        Self { transport, field_manager: field_manager.into() }
    }

    /// The same connection under another component's name.
    pub fn named(&self, field_manager: &str) -> Self {
        Self { transport: self.transport.clone(), field_manager: field_manager.into() }
    }

    /// The same under a component's name, with what it asks counted.
    pub fn measured(&self, field_manager: &str, measured: &Arc<Measured>) -> Self {
        Self { transport: Arc::new(Measuring::new(self.transport.clone(), measured.clone())), field_manager: field_manager.into() }
    }

    pub fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    /// The name recorded with every write.
    pub fn field_manager(&self) -> &str {
        &self.field_manager
    }

    /// Objects of kind `T` in `namespace` (or of all namespaces, or of a cluster-wide kind, with `None`).
    pub fn of<T: ResourceConsts>(&self, namespace: Option<&str>) -> Typed<T> {
        Typed {
            client: self.clone(),
            target: Target {
                group: T::GROUP.to_owned(),
                version: T::VERSION.to_owned(),
                plural: T::URL_PATH_SEGMENT.to_owned(),
                namespace: namespace.map(str::to_owned),
                name: None,
                subresource: None,
            },
            kind: PhantomData,
        }
    }

    fn write_options(&self) -> WriteOptions {
        WriteOptions { field_manager: self.field_manager.to_string(), ..WriteOptions::default() }
    }
}

/// One kind in one namespace.
pub struct Typed<T> {
    client: Client,
    target: Target,
    kind: PhantomData<fn() -> T>,
}

fn body<B: Serialize>(body: &B) -> Result<Body, Status> {
    serde_json::to_value(body).map(Body::Value).map_err(|error| Status::bad_request(error.to_string()))
}

fn value<T: api::Typed>(object: &T) -> Result<Body, Status> {
    object.to_value().map(Body::Value).map_err(|error| Status::bad_request(error.to_string()))
}

fn decode<T: api::Typed>(object: &Object) -> Result<Arc<T>, Status> {
    object.typed::<T>().map_err(Status::internal)
}

impl<T: ResourceConsts + api::Typed> Typed<T> {
    fn at(&self, name: &str, subresource: Option<&str>) -> Target {
        Target { name: Some(name.to_owned()), subresource: subresource.map(str::to_owned), ..self.target.clone() }
    }

    pub async fn get(&self, name: &str) -> Result<Arc<T>, Status> {
        decode(&*self.client.transport.get(&self.at(name, None)).await?)
    }

    pub async fn list(&self, options: &ListOptions) -> Result<ObjectList, Status> {
        self.client.transport.list(&self.target, options).await
    }

    pub async fn watch(&self, options: &WatchOptions) -> Result<EventStream, Status> {
        self.client.transport.watch(&self.target, options).await
    }

    pub async fn create(&self, object: &T) -> Result<Arc<T>, Status> {
        decode(&*self.client.transport.create(&self.target, value(object)?, &self.client.write_options()).await?)
    }

    pub async fn update(&self, name: &str, object: &T) -> Result<Arc<T>, Status> {
        decode(&*self.client.transport.update(&self.at(name, None), value(object)?, &self.client.write_options()).await?)
    }

    /// Replaces the status; the object's resourceVersion guards against overwriting a newer one.
    pub async fn update_status(&self, name: &str, object: &T) -> Result<Arc<T>, Status> {
        decode(&*self.client.transport.update(&self.at(name, Some("status")), value(object)?, &self.client.write_options()).await?)
    }

    pub async fn patch(&self, name: &str, kind: PatchKind, patch: Value) -> Result<Arc<T>, Status> {
        decode(&*self.client.transport.patch(&self.at(name, None), kind, Body::Value(patch), &self.client.write_options()).await?)
    }

    /// `resize`, `ephemeralcontainers` and their like.
    pub async fn patch_subresource(&self, name: &str, subresource: &str, kind: PatchKind, patch: Value) -> Result<Arc<T>, Status> {
        decode(&*self.client.transport.patch(&self.at(name, Some(subresource)), kind, Body::Value(patch), &self.client.write_options()).await?)
    }

    pub async fn patch_status(&self, name: &str, kind: PatchKind, patch: Value) -> Result<Arc<T>, Status> {
        decode(&*self.client.transport.patch(&self.at(name, Some("status")), kind, Body::Value(patch), &self.client.write_options()).await?)
    }

    /// POST to a subresource: `binding`, `eviction`, `token`.
    pub async fn create_subresource<B: Serialize>(&self, name: &str, subresource: &str, object: &B) -> Result<Arc<Object>, Status> {
        self.client.transport.create(&self.at(name, Some(subresource)), body(object)?, &self.client.write_options()).await
    }

    pub async fn delete(&self, name: &str, options: &DeleteOptions) -> Result<(), Status> {
        self.client.transport.delete(&self.at(name, None), options).await.map(drop)
    }
}
