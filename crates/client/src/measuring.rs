//! A transport that measures: each request of a component is counted by its method and by how it was answered, and timed.
//!
//! As client-go's metrics have it, a watch counts when it begins, and has no duration.

use std::sync::Arc;
use std::time::Instant;

use api::{Object, Status};
use tokio::sync::watch;

use crate::measured::Measured;
use crate::transport::{Body, BoxFuture, DeleteOptions, EventStream, ListOptions, ObjectList, PatchKind, Target, Transport, WatchOptions, WriteOptions};

pub struct Measuring {
    transport: Arc<dyn Transport>,
    measured: Arc<Measured>,
    host: String,
}

impl Measuring {
    pub fn new(transport: Arc<dyn Transport>, measured: Arc<Measured>) -> Self {
        Self { host: transport.host(), transport, measured }
    }

    async fn timed<T>(&self, method: &'static str, asking: BoxFuture<'_, Result<T, Status>>) -> Result<T, Status> {
        let begun = Instant::now();
        let outcome = asking.await;
        self.measured.asked(&self.host, method, &outcome, Some(begun.elapsed()));
        outcome
    }
}

impl Transport for Measuring {
    fn host(&self) -> String {
        self.host.clone()
    }

    fn get<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<Arc<Object>, Status>> {
        Box::pin(self.timed("GET", self.transport.get(target)))
    }

    fn list<'a>(&'a self, target: &'a Target, options: &'a ListOptions) -> BoxFuture<'a, Result<ObjectList, Status>> {
        Box::pin(self.timed("GET", self.transport.list(target, options)))
    }

    fn watch<'a>(&'a self, target: &'a Target, options: &'a WatchOptions) -> BoxFuture<'a, Result<EventStream, Status>> {
        Box::pin(async move {
            let outcome = self.transport.watch(target, options).await;
            self.measured.asked(&self.host, "GET", &outcome, None);
            outcome
        })
    }

    fn create<'a>(&'a self, target: &'a Target, body: Body, options: &'a WriteOptions) -> BoxFuture<'a, Result<Arc<Object>, Status>> {
        Box::pin(self.timed("POST", self.transport.create(target, body, options)))
    }

    fn update<'a>(&'a self, target: &'a Target, body: Body, options: &'a WriteOptions) -> BoxFuture<'a, Result<Arc<Object>, Status>> {
        Box::pin(self.timed("PUT", self.transport.update(target, body, options)))
    }

    fn patch<'a>(&'a self, target: &'a Target, kind: PatchKind, body: Body, options: &'a WriteOptions) -> BoxFuture<'a, Result<Arc<Object>, Status>> {
        Box::pin(self.timed("PATCH", self.transport.patch(target, kind, body, options)))
    }

    fn delete<'a>(&'a self, target: &'a Target, options: &'a DeleteOptions) -> BoxFuture<'a, Result<Arc<Object>, Status>> {
        Box::pin(self.timed("DELETE", self.transport.delete(target, options)))
    }

    fn delete_collection<'a>(&'a self, target: &'a Target, options: &'a DeleteOptions, list: &'a ListOptions) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(self.timed("DELETE", self.transport.delete_collection(target, options, list)))
    }

    fn returns(&self) -> Option<watch::Receiver<u64>> {
        self.transport.returns()
    }
}
