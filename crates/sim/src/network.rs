//! The way between a component and the API server, and everything that goes wrong on it: delays, requests that do not arrive, answers that get lost,
//! watches that break or are too old, partitions, and the API server's own end.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use api::{Object, Status};
use client::{Body, BoxFuture, DeleteOptions, EventStream, ListOptions, ObjectList, PatchKind, Target, Transport, WatchEvent, WatchOptions, WriteOptions};
use futures_util::{StreamExt, stream};
use server::{Api, Local};
use tokio::sync::watch;

use crate::ledger::Ledger;
use crate::random::Random;

/// How often something goes wrong: once in so many times, never for 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Odds {
    /// Milliseconds that a request, an answer or an event is on its way, at most.
    pub delay: u64,
    /// A delay of seconds instead.
    pub slow: u32,
    pub request_lost: u32,
    pub answer_lost: u32,
    pub watch_broken: u32,
    pub watch_expired: u32,
}

impl Odds {
    pub const QUICK: Self = Self { delay: 3, slow: 0, request_lost: 0, answer_lost: 0, watch_broken: 0, watch_expired: 0 };
    pub const BAD: Self = Self { delay: 30, slow: 150, request_lost: 40, answer_lost: 40, watch_broken: 120, watch_expired: 300 };
}

/// A switch that can be waited for.
#[derive(Clone)]
pub struct Link(Arc<watch::Sender<bool>>);

impl Default for Link {
    fn default() -> Self {
        Self(Arc::new(watch::channel(true).0))
    }
}

impl Link {
    pub fn set(&self, up: bool) {
        self.0.send_replace(up);
    }

    fn is_up(&self) -> bool {
        *self.0.borrow()
    }

    async fn down(&self) {
        // The sender lives as long as this.
        let _ = self.0.subscribe().wait_for(|up| !up).await;
    }
}

/// The API server that runs now, if one does. Each start is another generation.
#[derive(Clone)]
pub struct Door(Arc<watch::Sender<(u64, Option<Arc<Api>>)>>);

impl Default for Door {
    fn default() -> Self {
        Self(Arc::new(watch::channel((0, None)).0))
    }
}

impl Door {
    pub fn set(&self, api: Option<Arc<Api>>) {
        self.0.send_modify(|(generation, present)| {
            *generation += 1;
            *present = api;
        });
    }

    pub fn is_open(&self) -> bool {
        self.0.borrow().1.is_some()
    }

    fn present(&self) -> Option<(u64, Arc<Api>)> {
        let (generation, api) = &*self.0.borrow();
        Some((*generation, api.clone()?))
    }

    async fn gone(&self, generation: u64) {
        let _ = self.0.subscribe().wait_for(|(present, _)| *present != generation).await;
    }
}

/// The weather for everyone.
pub type Weather = Arc<watch::Sender<Odds>>;

/// One component's transport.
#[derive(Clone)]
pub struct Way {
    pub component: String,
    pub door: Door,
    /// Down in a partition.
    pub link: Link,
    /// Down for ever when this incarnation of the component has crashed.
    pub life: Link,
    pub weather: Weather,
    pub random: Random,
    pub ledger: Arc<Ledger>,
    /// Whether an answer to a write was lost on this way; for checks that hold only when none was.
    pub lossy: Arc<AtomicBool>,
}

fn unreachable(why: &str) -> Status {
    Status::unavailable(format!("simulated: {why}"))
}

impl Way {
    fn odds(&self) -> Odds {
        *self.weather.borrow()
    }

    async fn travel(&self) {
        let odds = self.odds();
        let time = if self.random.once_in(odds.slow) { self.random.millis(1000, 20_000) } else { self.random.millis(0, odds.delay) };
        if !time.is_zero() {
            tokio::time::sleep(time).await;
        }
    }

    async fn cut(&self, generation: u64) {
        tokio::select! {
            biased;
            () = self.life.down() => {}
            () = self.link.down() => {}
            () = self.door.gone(generation) => {}
        }
    }

    fn open(&self) -> Result<(u64, Local), Status> {
        if !self.life.is_up() || !self.link.is_up() {
            return Err(unreachable("no route to host"));
        }
        let (generation, api) = self.door.present().ok_or_else(|| unreachable("connection refused"))?;
        Ok((generation, Local::new(api, &self.component)))
    }

    async fn through<T, F: Future<Output = Result<T, Status>>>(&self, call: impl FnOnce(Local) -> F) -> Result<T, Status> {
        self.travel().await;
        let (generation, local) = self.open()?;
        if self.random.once_in(self.odds().request_lost) {
            return Err(unreachable("connection reset before the request"));
        }
        let lost = |why| {
            // What has crashed itself asks anew when it comes back.
            self.lossy.fetch_or(self.life.is_up(), Ordering::Relaxed);
            Err(unreachable(why))
        };
        let answer = tokio::select! {
            biased;
            () = self.cut(generation) => return lost("connection reset during the request"),
            answer = call(local) => answer,
        };
        tokio::select! {
            biased;
            () = self.cut(generation) => return lost("connection reset before the answer"),
            () = self.travel() => {}
        }
        if self.random.once_in(self.odds().answer_lost) {
            return lost("the answer was lost");
        }
        answer
    }

    async fn write<F: Future<Output = Result<Arc<Object>, Status>>>(&self, call: impl FnOnce(Local) -> F) -> Result<Arc<Object>, Status> {
        let answer = self.through(call).await;
        if let Ok(object) = &answer {
            self.ledger.acknowledged(&self.component, object);
        }
        answer
    }

    /// Events in order, each with a delay; ends as connections end.
    fn events(&self, inner: EventStream, generation: u64) -> EventStream {
        let way = self.clone();
        Box::pin(stream::unfold((Some(inner), 0u64), move |(inner, last)| {
            let way = way.clone();
            async move {
                let mut inner = inner?;
                let next = tokio::select! {
                    biased;
                    () = way.cut(generation) => return way.random.once_in(2).then(|| (Err(unreachable("the watch was cut")), (None, last))),
                    next = inner.next() => next?,
                };
                tokio::select! {
                    biased;
                    () = way.cut(generation) => return None,
                    () = way.travel() => {}
                }
                if way.random.once_in(way.odds().watch_broken) {
                    return way.random.once_in(2).then(|| (Err(unreachable("the watch was reset")), (None, last)));
                }
                if way.random.once_in(way.odds().watch_expired) {
                    return Some((Err(Status::expired("simulated: too old resource version")), (None, last)));
                }
                let revision = next.as_ref().map_or(last, revision_of);
                if revision < last {
                    way.ledger.violation(format!("a watch of {} went back from revision {last} to {revision}", way.component));
                }
                Some((next, (Some(inner), revision)))
            }
        }))
    }
}

fn revision_of(event: &WatchEvent) -> u64 {
    match event {
        WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => object.resource_version(),
        WatchEvent::Bookmark { resource_version, .. } => resource_version.parse().unwrap_or(0),
    }
}

impl Transport for Way {
    fn get<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<Arc<Object>, Status>> {
        Box::pin(self.through(move |local| async move { local.get(target).await }))
    }

    fn list<'a>(&'a self, target: &'a Target, options: &'a ListOptions) -> BoxFuture<'a, Result<ObjectList, Status>> {
        Box::pin(self.through(move |local| async move { local.list(target, options).await }))
    }

    fn watch<'a>(&'a self, target: &'a Target, options: &'a WatchOptions) -> BoxFuture<'a, Result<EventStream, Status>> {
        Box::pin(async move {
            self.travel().await;
            let (generation, local) = self.open()?;
            if self.random.once_in(self.odds().request_lost) {
                return Err(unreachable("connection reset before the watch"));
            }
            if self.random.once_in(self.odds().watch_expired) {
                return Err(Status::expired("simulated: too old resource version"));
            }
            Ok(self.events(local.watch(target, options).await?, generation))
        })
    }

    fn create<'a>(&'a self, target: &'a Target, body: Body, options: &'a WriteOptions) -> BoxFuture<'a, Result<Arc<Object>, Status>> {
        Box::pin(self.write(move |local| async move { local.create(target, body, options).await }))
    }

    fn update<'a>(&'a self, target: &'a Target, body: Body, options: &'a WriteOptions) -> BoxFuture<'a, Result<Arc<Object>, Status>> {
        Box::pin(self.write(move |local| async move { local.update(target, body, options).await }))
    }

    fn patch<'a>(&'a self, target: &'a Target, kind: PatchKind, body: Body, options: &'a WriteOptions) -> BoxFuture<'a, Result<Arc<Object>, Status>> {
        Box::pin(self.write(move |local| async move { local.patch(target, kind, body, options).await }))
    }

    fn delete<'a>(&'a self, target: &'a Target, options: &'a DeleteOptions) -> BoxFuture<'a, Result<Arc<Object>, Status>> {
        Box::pin(self.write(move |local| async move { local.delete(target, options).await }))
    }

    fn delete_collection<'a>(&'a self, target: &'a Target, options: &'a DeleteOptions, list: &'a ListOptions) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(self.through(move |local| async move { local.delete_collection(target, options, list).await }))
    }
}
