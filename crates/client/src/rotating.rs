//! A transport that is exchanged while it is used: for whoever's certificate is renewed while running.
//!
//! Requests from then on take the new one. Streams that were open end, so that whoever reads begins them anew as who they are now: client-go closes all connections.

use std::sync::Arc;

use api::{Object, Status};
use futures_util::StreamExt as _;
use tokio::sync::watch;

use crate::transport::{Body, BoxFuture, DeleteOptions, EventStream, ListOptions, ObjectList, PatchKind, Target, Transport, WatchOptions, WriteOptions};

pub struct Rotating(watch::Sender<Arc<dyn Transport>>);

impl Rotating {
    pub fn new(first: Arc<dyn Transport>) -> Self {
        Self(watch::Sender::new(first))
    }

    pub fn exchange(&self, next: Arc<dyn Transport>) {
        self.0.send_replace(next);
    }

    fn current(&self) -> Arc<dyn Transport> {
        self.0.borrow().clone()
    }
}

impl Transport for Rotating {
    fn host(&self) -> String {
        self.current().host()
    }

    fn get<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<Arc<Object>, Status>> {
        Box::pin(async move { self.current().get(target).await })
    }

    fn list<'a>(&'a self, target: &'a Target, options: &'a ListOptions) -> BoxFuture<'a, Result<ObjectList, Status>> {
        Box::pin(async move { self.current().list(target, options).await })
    }

    fn watch<'a>(&'a self, target: &'a Target, options: &'a WatchOptions) -> BoxFuture<'a, Result<EventStream, Status>> {
        Box::pin(async move {
            let mut exchanged = self.0.subscribe();
            let current = exchanged.borrow_and_update().clone();
            let events = current.watch(target, options).await?;
            let over = async move {
                if exchanged.changed().await.is_err() {
                    // Nobody is left to exchange it.
                    std::future::pending::<()>().await;
                }
            };
            Ok(Box::pin(events.take_until(Box::pin(over))) as EventStream)
        })
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

    fn returns(&self) -> Option<watch::Receiver<u64>> {
        self.current().returns()
    }
}
