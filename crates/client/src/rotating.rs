//! A transport that is exchanged while it is used: for whoever's certificate is renewed while running.
//!
//! Requests from then on take the new one; streams that were open go on as they were.

use std::sync::Arc;

use api::{Object, Status};
use parking_lot::RwLock;

use crate::transport::{Body, BoxFuture, DeleteOptions, EventStream, ListOptions, ObjectList, PatchKind, Target, Transport, WatchOptions, WriteOptions};

pub struct Rotating(RwLock<Arc<dyn Transport>>);

impl Rotating {
    pub fn new(first: Arc<dyn Transport>) -> Self {
        Self(RwLock::new(first))
    }

    pub fn exchange(&self, next: Arc<dyn Transport>) {
        *self.0.write() = next;
    }

    fn current(&self) -> Arc<dyn Transport> {
        self.0.read().clone()
    }
}

impl Transport for Rotating {
    fn get<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<Arc<Object>, Status>> {
        Box::pin(async move { self.current().get(target).await })
    }

    fn list<'a>(&'a self, target: &'a Target, options: &'a ListOptions) -> BoxFuture<'a, Result<ObjectList, Status>> {
        Box::pin(async move { self.current().list(target, options).await })
    }

    fn watch<'a>(&'a self, target: &'a Target, options: &'a WatchOptions) -> BoxFuture<'a, Result<EventStream, Status>> {
        Box::pin(async move { self.current().watch(target, options).await })
    }

    fn create<'a>(&'a self, target: &'a Target, body: Body, options: &'a WriteOptions) -> BoxFuture<'a, Result<Arc<Object>, Status>> {
        Box::pin(async move { self.current().create(target, body, options).await })
    }

    fn update<'a>(&'a self, target: &'a Target, body: Body, options: &'a WriteOptions) -> BoxFuture<'a, Result<Arc<Object>, Status>> {
        Box::pin(async move { self.current().update(target, body, options).await })
    }

    fn patch<'a>(&'a self, target: &'a Target, kind: PatchKind, body: Body, options: &'a WriteOptions) -> BoxFuture<'a, Result<Arc<Object>, Status>> {
        Box::pin(async move { self.current().patch(target, kind, body, options).await })
    }

    fn delete<'a>(&'a self, target: &'a Target, options: &'a DeleteOptions) -> BoxFuture<'a, Result<Arc<Object>, Status>> {
        Box::pin(async move { self.current().delete(target, options).await })
    }

    fn delete_collection<'a>(&'a self, target: &'a Target, options: &'a DeleteOptions, list: &'a ListOptions) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move { self.current().delete_collection(target, options, list).await })
    }
}
