//! Network policies: keeps what this node lets its pods send and receive as the API's NetworkPolicies say.
//!
//! Watches: NetworkPolicy; and while there is one, Pod and Namespace. Writes: nothing. [`rules`] says what a policy means, [`engine`] what that makes
//! of this node's pods (both pure), `network::PolicyTables` tells the kernel. Every change is programmed at once, with whatever else came
//! meanwhile; nothing is resynced. A new pod is isolated before its first container starts: [`Policies::attach`] is part of giving it its network,
//! and before that it waits until the policies are known ([`Policies::known`]): a pod whose policies nobody knows does not start. Until then the tables of a
//! former process go on working.

pub mod engine;
pub mod pods;
pub mod rules;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::network::{IpNet, PolicyError, PolicyTables};
use api::k8s::api::core::v1::{Namespace, Pod};
use api::k8s::api::networking::v1::NetworkPolicy;
use basics::tasks::for_ever;
use client::{Change, Changes, Client, Informer, ObjectKey};
use parking_lot::Mutex;
use sandbox::cri::PodSandboxConfig;
use tokio::sync::watch;

use crate::sandbox_config::{LABEL_POD_NAME, LABEL_POD_NAMESPACE, LABEL_POD_UID};
use engine::{Engine, Key};
use pods::Facts;

pub type Labels = BTreeMap<String, String>;

/// The pause after the kernel refused a change; what came meanwhile goes with the next try.
const RETRY: Duration = Duration::from_secs(1);

/// How long a new pod waits for the policies to be known before an event says so. Then it is tried again: it never starts without them.
const KNOWN: Duration = Duration::from_secs(10);

/// Cheap to clone.
#[derive(Clone)]
pub struct Policies(Arc<Shared>);

struct Shared {
    node_name: String,
    inner: Mutex<Inner>,
    /// There is an API to wait for.
    following: AtomicBool,
    /// All that the API had at first is programmed.
    ready: watch::Sender<bool>,
}

struct Inner {
    engine: Engine,
    tables: PolicyTables,
}

impl Inner {
    fn program(&mut self) -> Result<(), PolicyError> {
        self.tables.program(&mut self.engine.state)
    }
}

/// One step of following the API.
enum Step {
    Policy(Change),
    Pod(Change),
    Namespace(Change),
    ForgetPods,
    ForgetPolicies,
}

/// What is watched only while there is a policy.
struct World {
    pods: Changes,
    namespaces: Changes,
    _informers: (Informer<Pod>, Informer<Namespace>),
}

impl World {
    async fn watch(client: &Client) -> Self {
        let (pods, namespaces) = (Informer::<Pod>::of(client, None).start(), Informer::<Namespace>::of(client, None).start());
        pods.synced().await;
        namespaces.synced().await;
        Self { pods: pods.subscribe(), namespaces: namespaces.subscribe(), _informers: (pods, namespaces) }
    }

    async fn next(world: &mut Option<Self>) -> Step {
        let Some(world) = world else { return std::future::pending().await };
        tokio::select! {
            change = world.namespaces.next() => Step::Namespace(change),
            change = world.pods.next() => Step::Pod(change),
        }
    }

    fn drain(&mut self, steps: &mut Vec<Step>) {
        steps.extend(std::iter::from_fn(|| self.namespaces.try_next()).map(Step::Namespace));
        steps.extend(std::iter::from_fn(|| self.pods.try_next()).map(Step::Pod));
    }
}

impl Policies {
    pub fn open(node_name: &str, pod_cidrs: &[IpNet]) -> Result<Self, PolicyError> {
        let inner = Inner { engine: Engine::default(), tables: PolicyTables::open(pod_cidrs)? };
        Ok(Self(Arc::new(Shared { node_name: node_name.to_owned(), inner: Mutex::new(inner), following: AtomicBool::new(false), ready: watch::Sender::new(false) })))
    }

    /// Leaves no table.
    pub fn reset() -> Result<(), PolicyError> {
        PolicyTables::open(&[])?.reset()
    }

    /// The API will be followed: pods that are attached from now on wait for what it says.
    pub fn expect(&self) {
        self.0.following.store(true, Ordering::Relaxed);
    }

    /// Follows the API until it is dropped; the tables stay as they are then.
    pub fn run(self, client: Client) -> impl Future<Output = ()> + Send {
        // From now on, not from when the task is first scheduled: a pod attached in between waits.
        self.expect();
        for_ever("network policies", move || self.clone().follow(client.clone()))
    }

    async fn follow(self, client: Client) {
        let policies = Informer::<NetworkPolicy>::of(&client, None).start();
        policies.synced().await;
        let mut changes = policies.subscribe();
        let mut world: Option<World> = None;
        // Should this have begun before and panicked: what went meanwhile was not told.
        let mut steps = vec![Step::ForgetPolicies, Step::ForgetPods];
        loop {
            if policies.cache().is_empty() {
                if world.take().is_some() {
                    steps.push(Step::ForgetPods);
                }
            } else if world.is_none() {
                world = Some(World::watch(&client).await);
            }
            if let Some(world) = &mut world {
                world.drain(&mut steps);
            }
            steps.extend(std::iter::from_fn(|| changes.try_next()).map(Step::Policy));
            while let Err(error) = self.take(std::mem::take(&mut steps)).await {
                tracing::error!(error, "network policies are not programmed, trying again");
                tokio::time::sleep(RETRY).await;
            }
            self.0.ready.send_replace(true);
            steps.push(tokio::select! {
                change = changes.next() => Step::Policy(change),
                step = World::next(&mut world) => step,
            });
        }
    }

    /// Waits until the policies are known; nothing to wait for where no API is followed.
    pub async fn known(&self) -> Result<(), String> {
        self.known_within(KNOWN).await
    }

    async fn known_within(&self, patience: Duration) -> Result<(), String> {
        if !self.0.following.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut progress = self.0.ready.subscribe();
        match tokio::time::timeout(patience, progress.wait_for(|ready| *ready)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(format!("network policies are not known: the API server has not told this node within {} s which there are (it must be allowed to list networkpolicies, pods and namespaces)", patience.as_secs())),
        }
    }

    /// What the sandbox's pod may send and receive is what its policies say, from before this returns. After [`Policies::known`].
    pub async fn attach(&self, sandbox_id: &str, config: &PodSandboxConfig, addresses: &[IpAddr]) -> Result<(), String> {
        let ready = *self.0.ready.borrow();
        let mut labels = config.labels.clone();
        labels.retain(|key, _| ![LABEL_POD_NAME, LABEL_POD_NAMESPACE, LABEL_POD_UID].contains(&key.as_str()));
        let facts = Facts { uid: config.metadata.uid.clone(), labels, addresses: addresses.to_vec(), ports: Vec::new(), local: true };
        let key: Key = (config.metadata.namespace.as_str().into(), config.metadata.name.as_str().into());
        let sandbox_id = sandbox_id.to_owned();
        self.with(move |inner| {
            inner.engine.attach(&sandbox_id, &key, facts);
            // Where no API is followed there is nothing to program.
            if ready { inner.program() } else { Ok(()) }
        })
        .await
    }

    pub async fn detach(&self, sandbox_id: &str) {
        let sandbox_id = sandbox_id.to_owned();
        let detached = self.with(move |inner| {
            inner.engine.detach(&sandbox_id);
            // Before the first look at the API nothing is known that could be programmed.
            Ok(())
        });
        if let Err(error) = detached.await {
            tracing::warn!(error, "forget a pod's network policies");
        }
    }

    async fn take(&self, steps: Vec<Step>) -> Result<(), String> {
        let shared = self.0.clone();
        self.with(move |inner| {
            for step in steps {
                inner.engine.take(step, &shared.node_name);
            }
            inner.program()
        })
        .await
    }

    async fn with(&self, work: impl FnOnce(&mut Inner) -> Result<(), PolicyError> + Send + 'static) -> Result<(), String> {
        let shared = self.0.clone();
        match tokio::task::spawn_blocking(move || work(&mut shared.inner.lock())).await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn key_of(key: &ObjectKey) -> Key {
    (key.namespace.clone(), key.name.clone())
}

impl Engine {
    fn take(&mut self, step: Step, node_name: &str) {
        match step {
            Step::Policy(change) => {
                let policy = change.new.as_ref().and_then(|object| {
                    let policy = serde_json::from_slice::<NetworkPolicy>(object.bytes()).inspect_err(|error| tracing::warn!(?object, %error, "a network policy cannot be read")).ok()?;
                    let understood = rules::Policy::new(&policy);
                    if understood.is_none() {
                        tracing::warn!(?object, "a network policy whose podSelector is malformed isolates nobody");
                    }
                    understood
                });
                self.set_policy(&key_of(&change.key), policy);
            }
            Step::Pod(change) => self.set_pod(&key_of(&change.key), change.new.as_ref().and_then(|object| pods::facts(object, node_name))),
            Step::Namespace(change) => self.set_namespace(&change.key.name, change.new.as_ref().map(|object| object.meta().labels.clone())),
            Step::ForgetPods => self.forget_pods(),
            Step::ForgetPolicies => self.forget_policies(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_starts_before_the_policies_are_known() {
        let policies = Policies::open("node1", &[]).unwrap();
        let soon = Duration::from_millis(1);
        assert_eq!(policies.known_within(soon).await, Ok(()), "there is no API to wait for");
        policies.0.following.store(true, Ordering::Relaxed);
        assert!(policies.known_within(soon).await.unwrap_err().starts_with("network policies are not known: the API server has not told this node"));
        let waiting = tokio::spawn({
            let policies = policies.clone();
            async move { policies.known().await }
        });
        policies.0.ready.send_replace(true);
        assert_eq!(waiting.await.unwrap(), Ok(()));
    }
}
