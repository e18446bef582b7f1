//! CustomResourceDefinitions become served kinds, and cease to be.
//!
//! Watches: CustomResourceDefinitions. Writes: their status, and, when one is deleted, its instances. A definition's rows are served before its `Established` condition
//! can be seen, so whoever waits for it may use the kind at once. Mirrors apiextensions-apiserver's naming, establishing, finalizing, nonstructuralschema and
//! apiapproval controllers, in one pass a change.

mod cleanup;
pub mod conversion;
mod naming;
mod rule_costs;
pub mod rules;
mod webhook;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use ::api::{Object, Resource};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;

use crate::api::{Api, Context};
use crate::authentication::User;
use crate::follow::{News, follow};
use crate::registry::{Part, text};
use crate::rows::Change;
use naming::Names;

pub const GROUP: &str = "apiextensions.k8s.io";
pub const PLURAL: &str = "customresourcedefinitions";
const PREFIX: &str = "/registry/apiextensions.k8s.io/customresourcedefinitions/";

/// The definition's own row, of the built-in table.
pub(crate) fn definitions(api: &Api) -> Option<Arc<Resource>> {
    api.serving.rows().find(GROUP, "v1", PLURAL)
}

/// The API server's own writes of definitions.
fn context() -> Context {
    Context { field_manager: "kube-apiserver".into(), ..Context::of(Arc::new(User::component("system:apiserver"))) }
}

/// What is remembered of a definition between its changes.
struct Known {
    group: String,
    plural: String,
    generation: Option<i64>,
    settled: u64,
    accepted: Names,
    wants: Names,
}

fn change_of(object: &Arc<Object>, value: &Value, settled: u64) -> Change {
    Change { group: text(value, "/spec/group").to_owned(), plural: text(value, "/spec/names/plural").to_owned(), rows: ::api::custom::rows(object, value, settled) }
}

/// Serves what was established before this process came: before its first request.
pub fn load(api: &Api) {
    let Ok(page) = api.store.list(PREFIX, None, None, 0) else { return };
    let changes: Vec<Change> = page.items.iter().filter_map(|(_, object)| Some(change_of(object, &object.value().ok()?, object.resource_version()))).collect();
    api.serving.change(&changes);
}

/// A request names a kind nobody serves here: it may have been established by another API server a moment ago.
pub fn look_up(api: &Api, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
    let object = api.store.get(&format!("{PREFIX}{plural}.{group}"))?;
    let change = change_of(&object, &object.value().ok()?, object.resource_version());
    // A version that is not served is no reason to make everything anew.
    let found = change.rows.iter().find(|row| row.version == version && row.plural == plural)?.clone();
    api.serving.change(&[change]);
    Some(found)
}

struct Runner {
    api: Arc<Api>,
    known: BTreeMap<String, Known>,
    /// Definitions whose instances are being deleted right now.
    cleaning: Arc<Mutex<HashSet<String>>>,
}

/// Until `shutdown` becomes true or its sender is gone.
pub async fn run(api: Arc<Api>, shutdown: watch::Receiver<bool>) {
    let mut runner = Runner { api: api.clone(), known: BTreeMap::new(), cleaning: Arc::default() };
    let mut definitions = follow(&api.store, PREFIX, shutdown);
    while let Some(news) = definitions.next().await {
        match news {
            News::Afresh => runner.everything().await,
            // A burst is one change of the index.
            News::Changes(changes) => {
                let mut names: Vec<String> = changes.iter().map(|change| change.object.meta().name.clone()).collect();
                names.sort_unstable();
                names.dedup();
                runner.settle(names).await;
            }
        }
    }
}

impl Runner {
    async fn everything(&mut self) {
        let Ok(page) = self.api.store.list(PREFIX, None, None, 0) else { return };
        let mut names: Vec<String> = page.items.iter().map(|(_, object)| object.meta().name.clone()).collect();
        // What is gone since the last list, too.
        names.extend(self.known.keys().filter(|name| !names.contains(name)).cloned().collect::<Vec<_>>());
        for (_, object) in &page.items {
            if let Ok(value) = object.value() {
                self.note(&value, object.resource_version());
            }
        }
        self.settle(names).await;
    }

    /// Remembers a definition; true when its spec is another than before.
    fn note(&mut self, value: &Value, settled: u64) {
        let (name, generation) = (text(value, "/metadata/name").to_owned(), value.pointer("/metadata/generation").and_then(Value::as_i64));
        let settled = match self.known.get(&name) {
            Some(known) if known.generation == generation => known.settled,
            _ => settled,
        };
        let names = |pointer: &str| value.pointer(pointer).map(Names::of).unwrap_or_default();
        let known = Known {
            group: text(value, "/spec/group").to_owned(),
            plural: text(value, "/spec/names/plural").to_owned(),
            generation,
            settled,
            accepted: names("/status/acceptedNames"),
            wants: names("/spec/names"),
        };
        self.known.insert(name, known);
    }

    /// Brings the named definitions up to date: what they may be called, what is served, what their status says.
    async fn settle(&mut self, mut names: Vec<String>) {
        while !names.is_empty() {
            let mut again = Vec::new();
            let mut changes = Vec::new();
            let mut writes = Vec::new();
            for name in std::mem::take(&mut names) {
                let Some(object) = self.api.store.get(&format!("{PREFIX}{name}")) else {
                    if let Some(gone) = self.known.remove(&name) {
                        again.extend(self.waiting(&gone.group));
                        changes.push(Change { group: gone.group, plural: gone.plural, rows: Vec::new() });
                    }
                    continue;
                };
                let Ok(value) = object.value() else { continue };
                let fresh = self.known.get(&name).is_none_or(|known| known.generation != value.pointer("/metadata/generation").and_then(Value::as_i64));
                self.note(&value, self.api.store.revision());
                let mut new = value.clone();
                let released = self.decide(&name, &mut new);
                if released {
                    again.extend(self.waiting(text(&value, "/spec/group")).into_iter().filter(|other| *other != name));
                }
                let settled = self.known.get(&name).map_or(0, |known| known.settled);
                changes.push(change_of(&object, &new, settled));
                if new != value {
                    writes.push(name.clone());
                }
                if fresh {
                    tracing::debug!(definition = name, "a custom kind is served");
                }
                if value.pointer("/metadata/deletionTimestamp").is_some() {
                    cleanup::start(&self.api, &self.cleaning, name);
                }
            }
            self.api.serving.change(&changes);
            for name in writes {
                self.write(&name).await;
            }
            names = again;
        }
    }

    /// Definitions of a group that still want a name.
    fn waiting(&self, group: &str) -> Vec<String> {
        self.known.iter().filter(|(_, known)| known.group == group && known.accepted != known.wants).map(|(name, _)| name.clone()).collect()
    }

    /// Puts the status as it should be into `value`; true when a name became free.
    fn decide(&mut self, name: &str, value: &mut Value) -> bool {
        let group = text(value, "/spec/group").to_owned();
        let others: Vec<&Names> = self.known.iter().filter(|(other, known)| *other != name && known.group == group).map(|(_, known)| &known.accepted).collect();
        let before = value.pointer("/status/acceptedNames").map(Names::of).unwrap_or_default();
        naming::settle(value, &others, &self.api.now());
        let after = value.pointer("/status/acceptedNames").map(Names::of).unwrap_or_default();
        let released = before != Names::default() && before != after;
        if let Some(known) = self.known.get_mut(name) {
            known.accepted = after;
        }
        released
    }

    async fn write(&mut self, name: &str) {
        let Some(row) = definitions(&self.api) else { return };
        let group = self.known.get(name).map(|known| known.group.clone()).unwrap_or_default();
        let others: Vec<Names> = self.known.iter().filter(|(other, known)| *other != name && known.group == group).map(|(_, known)| known.accepted.clone()).collect();
        let others: Vec<&Names> = others.iter().collect();
        let now = self.api.now();
        let cx = context();
        let changed = self.api.change(&row, None, name, Part::Status, &cx, |old| {
            let mut new = old.clone();
            naming::settle(&mut new, &others, &now);
            if let Some(metadata) = new["metadata"].as_object_mut() {
                metadata.remove("resourceVersion");
            }
            Ok(new)
        });
        if let Err(error) = changed.await
            && !error.is_not_found()
        {
            tracing::warn!(%error, definition = name, "cannot write the status of a CustomResourceDefinition");
        }
    }
}
