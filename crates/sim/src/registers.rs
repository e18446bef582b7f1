//! The scenario `registers`: many clients at the same few objects while the API server, its disk and the ways to it fail; what they were told must be linearizable.

use std::sync::Arc;
use std::time::Duration;

use client::Transport;
use futures_util::future::join_all;
use linear::clients::Load;
use linear::{History, Recorder};
use store::Store;
use tokio::time::Instant;

use crate::network::Odds;
use crate::random::Random;
use crate::scenario::{Failure, Plan, Report};
use crate::world::World;

const CLIENTS: usize = 6;
const OBJECTS: usize = 3;
/// Of each client, for each step of the plan.
const REQUESTS_PER_STEP: usize = 5;

async fn trouble(world: &mut World, random: &Random) {
    loop {
        tokio::time::sleep(random.millis(5, 150)).await;
        match random.below(5) {
            0 => world.stop_api(),
            1 => {
                world.stop_api();
                world.start_api().await;
            }
            2 => world.fail_writes_once_in(random.between(2, 20) as u32),
            3 => drop(world.weather.send_replace(Odds::BAD)),
            _ => {
                world.stop_api();
                world.fail_writes_once_in(random.between(2, 8) as u32);
                world.weather.send_replace(Odds::BAD);
                world.start_api().await;
            }
        }
        tokio::time::sleep(random.millis(5, 300)).await;
        if !random.once_in(4) {
            world.heal().await;
        }
    }
}

/// What the clients were told, under trouble. Each speaks through what `through` makes of its way.
async fn history(plan: Plan, world: &mut World, random: &Random, through: impl Fn(Arc<dyn Transport>) -> Arc<dyn Transport>) -> Result<History, Vec<String>> {
    let recorder = Recorder::default();
    let draws = random.fork("clients");
    let load = Load { namespace: "default".into(), objects: OBJECTS, requests: plan.steps * REQUESTS_PER_STEP, below: Box::new(move |limit| draws.below(limit)) };
    let clients: Vec<_> = (0..CLIENTS).map(|number| world.client(&format!("client{number}"))).collect();
    let ways: Vec<_> = clients.iter().map(|client| through(client.transport().clone())).collect();
    let work = join_all(ways.iter().enumerate().map(|(number, way)| linear::clients::run(number, way.as_ref(), &load, &recorder)));
    let chance = random.fork("trouble");
    let outcomes = tokio::select! {
        biased;
        outcomes = work => outcomes,
        () = trouble(world, &chance) => Vec::new(),
    };
    let (history, mut wrong) = recorder.take();
    wrong.extend(outcomes.into_iter().filter_map(Result::err).map(|status| status.to_string()));
    if wrong.is_empty() { Ok(history) } else { Err(wrong) }
}

pub async fn run(plan: Plan) -> Result<Report, Failure> {
    let start = Instant::now();
    let random = Random::new(plan.seed);
    let failed = |complaints: Vec<String>| Failure { complaints, steps: Vec::new(), at: start.elapsed() };
    let mut world = World::start(random.fork("world"), 1).await.map_err(|error| failed(vec![error.to_string()]))?;
    let history = history(plan, &mut world, &random, |way| way).await.map_err(failed)?;
    history.check().map_err(|violation| failed(vec![violation.to_string()]))?;
    Ok(Report { revision: world.store.revision(), virtual_time: start.elapsed(), settled_after: Duration::ZERO })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use api::{Object, Status};
    use client::{Body, BoxFuture, DeleteOptions, EventStream, ListOptions, ObjectList, PatchKind, Target, WatchOptions, WriteOptions};
    use parking_lot::Mutex;

    use super::*;
    use crate::scenario::Scenario;

    /// A cache that is never told of what others write: the planted fault.
    struct Stale {
        inner: Arc<dyn Transport>,
        seen: Mutex<HashMap<String, Arc<Object>>>,
    }

    impl Transport for Stale {
        fn get<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<Arc<Object>, Status>> {
            Box::pin(async move {
                let known = self.seen.lock().remove(&target.path());
                if let Some(object) = known {
                    return Ok(object);
                }
                let object = self.inner.get(target).await?;
                self.seen.lock().insert(target.path(), object.clone());
                Ok(object)
            })
        }

        fn list<'a>(&'a self, target: &'a Target, options: &'a ListOptions) -> BoxFuture<'a, Result<ObjectList, Status>> {
            self.inner.list(target, options)
        }

        fn watch<'a>(&'a self, target: &'a Target, options: &'a WatchOptions) -> BoxFuture<'a, Result<EventStream, Status>> {
            self.inner.watch(target, options)
        }

        fn create<'a>(&'a self, target: &'a Target, body: Body, options: &'a WriteOptions) -> BoxFuture<'a, Result<Arc<Object>, Status>> {
            self.inner.create(target, body, options)
        }

        fn update<'a>(&'a self, target: &'a Target, body: Body, options: &'a WriteOptions) -> BoxFuture<'a, Result<Arc<Object>, Status>> {
            self.inner.update(target, body, options)
        }

        fn patch<'a>(&'a self, target: &'a Target, kind: PatchKind, body: Body, options: &'a WriteOptions) -> BoxFuture<'a, Result<Arc<Object>, Status>> {
            self.inner.patch(target, kind, body, options)
        }

        fn delete<'a>(&'a self, target: &'a Target, options: &'a DeleteOptions) -> BoxFuture<'a, Result<Arc<Object>, Status>> {
            self.inner.delete(target, options)
        }

        fn delete_collection<'a>(&'a self, target: &'a Target, options: &'a DeleteOptions, list: &'a ListOptions) -> BoxFuture<'a, Result<(), Status>> {
            self.inner.delete_collection(target, options, list)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_planted_stale_cache_is_found() {
        let random = Random::new(1);
        let mut world = World::start(random.fork("world"), 1).await.expect("a world");
        let plan = Plan { seed: 1, scenario: Scenario::Registers, nodes: 1, steps: 20 };
        let history = history(plan, &mut world, &random, |inner| Arc::new(Stale { inner, seen: Mutex::default() })).await.expect("answers");
        let told = history.check().expect_err("stale reads").to_string();
        assert!(told.contains("is not linearizable") && told.contains("get -> version"), "{told}");
    }
}
