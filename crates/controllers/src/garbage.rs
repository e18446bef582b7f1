//! Runs [`plan::garbage`]: a graph of who owns what, kept by metadata-only informers over every kind, and the keys (uids) it says to look at.

mod graph;

use std::collections::HashMap;
use std::sync::Arc;

use api::resource::Verb;
use api::{OwnerReference, Resource, Status};
use client::{BoxFuture, Client, Informer, ObjectKey, Queue, Target, Untyped};
use futures_util::future::join_all;
use jiff::Timestamp;
use parking_lot::Mutex;
use plan::garbage::{Dependent, Owner, View};
use plan::replicaset::Failure;
use plan::{At, Plan};

use crate::apply::target;
use crate::kinds::{self, Kind, KindName, Kinds};
use crate::runner::Controller;
use graph::{Graph, Node};

pub fn collection(row: &Resource, namespace: Option<&str>) -> Target {
    Target {
        group: row.group.to_string(),
        version: row.version.to_string(),
        plural: row.plural.to_string(),
        namespace: namespace.map(str::to_owned),
        ..Target::default()
    }
}

/// Everything there is, by its metadata.
pub struct Everything {
    graph: Arc<Mutex<Graph>>,
    informers: Arc<Mutex<HashMap<KindName, Informer<Untyped>>>>,
    kinds: Arc<Kinds>,
    queue: Queue<String>,
}

impl Everything {
    /// `deleted` hears of every object that is gone.
    pub fn watch(client: &Client, kinds: Arc<Kinds>, deleted: impl Fn(&ObjectKey) + Send + Sync + 'static) -> Self {
        let (graph, queue, deleted) = (Arc::new(Mutex::new(Graph::default())), Queue::new(), Arc::new(deleted));
        let informers: Arc<Mutex<HashMap<KindName, Informer<Untyped>>>> = Arc::default();
        let start = {
            let (client, graph, queue) = (client.clone(), graph.clone(), queue.clone());
            move |row: &Arc<Resource>| {
                let (graph, queue, deleted, row) = (graph.clone(), queue.clone(), deleted.clone(), row.clone());
                Informer::untyped(&client, collection(&row, None))
                    .on_change(move |change| {
                        graph.lock().change(&row, change).into_iter().for_each(|uid| queue.add(uid));
                        if change.new.is_none() {
                            deleted(&change.key);
                        }
                    })
                    .start()
            }
        };
        kinds.on_change({
            let (informers, graph) = (informers.clone(), graph.clone());
            move |change| match change {
                // Events expire by themselves and own nothing.
                Kind::Served(row) if row.allows(Verb::Watch) && row.plural != "events" => {
                    informers.lock().insert(kinds::name(row), start(row));
                }
                Kind::Served(_) => {}
                Kind::Gone(row) => {
                    if informers.lock().remove(&kinds::name(row)).is_some() {
                        graph.lock().forget(&row.group, &row.plural);
                    }
                }
            }
        });
        Self { graph, informers, kinds, queue }
    }

    pub async fn synced(&self) {
        self.kinds.synced().await;
        let informers: Vec<Informer<Untyped>> = self.informers.lock().values().cloned().collect();
        join_all(informers.iter().map(Informer::synced)).await;
    }

    pub fn keys(&self) -> Queue<String> {
        self.queue.clone()
    }
}

pub struct GarbageCollector {
    pub everything: Arc<Everything>,
    pub client: Client,
}

fn at(node: &Node) -> At {
    let key = node.key();
    At {
        group: node.row.group.to_string(),
        version: node.row.version.to_string(),
        plural: node.row.plural.to_string(),
        kind: node.row.kind.to_string(),
        namespace: key.scope().map(str::to_owned),
        name: key.name.to_string(),
    }
}

impl GarbageCollector {
    /// What became of an owner; the server is asked before it is called absent.
    async fn owner(&self, reference: &OwnerReference, namespace: Option<&str>) -> Result<Owner, Status> {
        if let Some(owner) = self.everything.graph.lock().get(&reference.uid) {
            return Ok(if graph::waits(&owner.object) { Owner::Waiting } else { Owner::Present });
        }
        let (group, version) = reference.api_version.split_once('/').unwrap_or(("", &reference.api_version));
        let Some(row) = self.everything.kinds.find(group, version, &reference.kind) else {
            // Of a kind we do not know nothing can be said.
            return Ok(Owner::Present);
        };
        let namespace = if row.namespaced() { namespace } else { None };
        if row.namespaced() && namespace.is_none() {
            // An object of the whole cluster cannot have an owner in a namespace: the reference means nothing.
            return Ok(Owner::Present);
        }
        let target = Target { name: Some(reference.name.clone()), ..collection(&row, namespace) };
        match self.client.transport().get(&target).await {
            Ok(object) if object.meta().uid == reference.uid => Ok(if graph::waits(&object) { Owner::Waiting } else { Owner::Present }),
            Ok(_) => Ok(Owner::Absent),
            Err(status) if status.is_not_found() => Ok(Owner::Absent),
            Err(status) => Err(status),
        }
    }

    async fn load(&self, uid: &str) -> Result<Option<View>, Status> {
        let Some((node, dependents)) = self.everything.graph.lock().with_dependents(uid) else { return Ok(None) };
        let at = at(&node);
        let mut owners = Vec::new();
        for reference in &node.object.meta().owner_references {
            owners.push((reference.clone(), self.owner(reference, at.namespace.as_deref()).await?));
        }
        let mut object = node.object.clone();
        if owners.iter().any(|(_, owner)| *owner == Owner::Absent) {
            // It is about to go: on the newest grounds.
            object = match self.client.transport().get(&target(&at, None)).await {
                Ok(object) if object.meta().uid == uid && object.meta().owner_references == node.object.meta().owner_references => object,
                Ok(_) => return Ok(None),
                Err(status) if status.is_not_found() => return Ok(None),
                Err(status) => return Err(status),
            };
        }
        let dependents = dependents
            .iter()
            .map(|node| {
                let meta = node.object.meta();
                Dependent {
                    at: self::at(node),
                    uid: meta.uid.clone(),
                    resource_version: meta.resource_version.clone(),
                    owners: meta.owner_references.clone(),
                    waiting: graph::waits(&node.object),
                }
            })
            .collect();
        Ok(Some(View { at, object, owners, dependents }))
    }
}

impl Controller for GarbageCollector {
    type Key = String;
    const NAME: &'static str = "garbage-collector-controller";
    const QUEUE: &'static str = "garbage_collector_attempt_to_delete";

    fn plan<'a>(&'a self, key: &'a String, _now: Timestamp, _last: Option<Failure>) -> BoxFuture<'a, Result<Plan, Status>> {
        Box::pin(async move { Ok(self.load(key).await?.map(|view| plan::garbage::plan(&view)).unwrap_or_default()) })
    }
}
