//! Every kind that is served: those of the table, and those that CustomResourceDefinitions add and take away.
//!
//! What upstream's garbage collector and namespace controller learn by asking discovery every thirty seconds, told at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::Resource;
use api::k8s::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use api::resource::Verb;
use client::{Client, Informer};
use parking_lot::Mutex;

/// Group and plural.
pub type KindName = (String, String);

pub fn name(row: &Resource) -> KindName {
    (row.group.to_string(), row.plural.to_string())
}

/// Stored kinds can be listed and deleted; the rest are questions that are answered.
const NEEDED: [Verb; 2] = [Verb::List, Verb::Delete];
const CUSTOM_VERBS: &[Verb] = &[Verb::Create, Verb::Delete, Verb::DeleteCollection, Verb::Get, Verb::List, Verb::Patch, Verb::Update, Verb::Watch];

pub enum Kind<'a> {
    Served(&'a Arc<Resource>),
    Gone(&'a Arc<Resource>),
}

type Listener = Box<dyn Fn(Kind<'_>) + Send + Sync>;

#[derive(Default)]
struct State {
    rows: BTreeMap<KindName, Arc<Resource>>,
    listeners: Vec<Listener>,
}

impl State {
    fn set(&mut self, name: KindName, row: Option<Resource>) {
        if self.rows.get(&name).map(|known| &**known) == row.as_ref() {
            return;
        }
        if let Some(old) = self.rows.remove(&name) {
            self.listeners.iter().for_each(|listener| listener(Kind::Gone(&old)));
        }
        if let Some(row) = row.map(Arc::new) {
            self.listeners.iter().for_each(|listener| listener(Kind::Served(&row)));
            self.rows.insert(name, row);
        }
    }
}

pub struct Kinds {
    state: Arc<Mutex<State>>,
    definitions: Informer<CustomResourceDefinition>,
}

impl Kinds {
    pub fn watch(client: &Client) -> Self {
        let mut state = State::default();
        for row in api::table::table().rows().iter().filter(|row| NEEDED.into_iter().all(|verb| row.allows(verb))) {
            // The first version of a kind is the preferred one; events are listed twice, under both their groups, and stored once.
            if row.group != "events.k8s.io" {
                state.rows.entry(name(row)).or_insert_with(|| Arc::new(row.clone()));
            }
        }
        let state = Arc::new(Mutex::new(state));
        let definitions = Informer::<CustomResourceDefinition>::of(client, None)
            .on_change({
                let state = state.clone();
                move |change| {
                    // Read, not kept: what is decoded of a definition is many times its size.
                    if let Some(definition) = change.new.as_ref().or(change.old.as_ref()).and_then(|object| object.value().ok()) {
                        let text = |pointer: &str| definition.pointer(pointer).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
                        let name = (text("/spec/group"), text("/spec/names/plural"));
                        state.lock().set(name, change.new.as_ref().and_then(|object| row(object, &definition)));
                    }
                }
            })
            .start();
        Self { state, definitions }
    }

    pub async fn synced(&self) {
        self.definitions.synced().await;
    }

    /// Every kind served now, then every change; the listener must not call back.
    pub fn on_change(&self, listener: impl Fn(Kind<'_>) + Send + Sync + 'static) {
        let mut state = self.state.lock();
        state.rows.values().for_each(|row| listener(Kind::Served(row)));
        state.listeners.push(Box::new(listener));
    }

    pub fn all(&self) -> Vec<Arc<Resource>> {
        self.state.lock().rows.values().cloned().collect()
    }

    /// The kind as an owner reference names it.
    pub fn find(&self, group: &str, version: &str, kind: &str) -> Option<Arc<Resource>> {
        if let Some(row) = api::table::table().find_kind(group, version, kind) {
            return Some(Arc::new(row.clone()));
        }
        // Another version of a custom kind is the same objects.
        self.state.lock().rows.values().find(|row| row.group == group && row.kind == kind && row.schema.is_empty()).cloned()
    }
}

/// The kind that a definition adds, once its names are accepted: by its storage version, if that is served.
fn row(object: &Arc<api::Object>, definition: &serde_json::Value) -> Option<Resource> {
    let best = api::custom::rows(object, definition, 0).into_iter().max_by_key(|row| row.version == row.storage_version)?;
    // The definition itself is not held on to; and its status changes are no changes of the kind.
    Some(Resource { custom: None, verbs: CUSTOM_VERBS.into(), subresources: Default::default(), ..(*best).clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn definition(established: &str, versions: &[(&str, bool, bool)]) -> serde_json::Value {
        let versions: Vec<_> = versions.iter().map(|(name, served, storage)| json!({"name": name, "served": served, "storage": storage})).collect();
        json!({
            "metadata": {"name": "foos.a.b"},
            "spec": {"group": "a.b", "scope": "Namespaced", "names": {"plural": "foos", "kind": "Foo"}, "versions": versions},
            "status": {"acceptedNames": {"plural": "foos", "kind": "Foo"}, "conditions": [{"type": "Established", "status": established}]}
        })
    }

    #[test]
    fn a_definition_serves_once_established_by_its_best_version() {
        let served = |definition: &serde_json::Value| row(&Arc::new(api::Object::new(definition.to_string().into(), 1)), definition).map(|row| row.version.to_string());
        assert_eq!(served(&definition("False", &[("v1", true, true)])), None);
        assert_eq!(served(&definition("True", &[("v1", true, false), ("v2", true, true)])).as_deref(), Some("v2"));
        assert_eq!(served(&definition("True", &[("v1", true, false), ("v2", false, true)])).as_deref(), Some("v1"));
        assert_eq!(served(&definition("True", &[("v1", false, true)])), None);
    }
}
