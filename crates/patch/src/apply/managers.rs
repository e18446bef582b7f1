//! `metadata.managedFields`: reading, writing and changing who owns what. Mirrors apimachinery's `managedfields` package.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::set::Set;
use super::typed::Comparison;
use super::{Conflict, Writer};

/// As upstream: the oldest updaters beyond this are lumped together.
const MOST_UPDATERS: usize = 10;
const OLD_UPDATERS: &str = "ancient-changes";
const FIELDS_TYPE: &str = "FieldsV1";

/// Never owned: who an object is, and what the server writes.
const STRIPPED: &[&[&str]] = &[
    &["f:apiVersion"],
    &["f:kind"],
    &["f:metadata"],
    &["f:metadata", "f:name"],
    &["f:metadata", "f:namespace"],
    &["f:metadata", "f:creationTimestamp"],
    &["f:metadata", "f:selfLink"],
    &["f:metadata", "f:uid"],
    &["f:metadata", "f:clusterName"],
    &["f:metadata", "f:generation"],
    &["f:metadata", "f:managedFields"],
    &["f:metadata", "f:resourceVersion"],
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

/// What makes two writes the same manager's. An applier is the same in every version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity {
    manager: String,
    operation: Operation,
    api_version: String,
    subresource: String,
}

impl Identity {
    pub fn new(writer: &Writer<'_>, operation: Operation) -> Self {
        let api_version = if operation == Operation::Update { writer.api_version.to_owned() } else { String::new() };
        Self { manager: writer.manager.to_owned(), operation, api_version, subresource: writer.subresource.to_owned() }
    }

    fn display(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

#[derive(Debug, Clone)]
pub(super) struct Owned {
    pub set: Set,
    api_version: String,
    pub time: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Managers(BTreeMap<Identity, Owned>);

impl Managers {
    pub fn of(object: &Value) -> Self {
        object.pointer("/metadata/managedFields").and_then(Value::as_array).map(|entries| Self::decode(entries)).unwrap_or_default()
    }

    fn decode(entries: &[Value]) -> Self {
        let mut managers = BTreeMap::new();
        for entry in entries {
            let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
            let operation = match text("operation").as_str() {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                // Not one of ours to understand: as upstream, then nothing is managed.
                _ => return Self::default(),
            };
            let api_version = text("apiVersion");
            let identity = Identity {
                manager: text("manager"),
                operation,
                api_version: if operation == Operation::Update { api_version.clone() } else { String::new() },
                subresource: text("subresource"),
            };
            let set = entry.get("fieldsV1").map(Set::from_json).unwrap_or_default();
            let time = entry.get("time").and_then(Value::as_str).map(str::to_owned);
            managers.insert(identity, Owned { set, api_version, time });
        }
        Self(managers)
    }

    /// What an update is to start from: what the request itself says, if it may and does (an empty list, or one empty entry, forgets all managers), else what is stored.
    pub fn requested(old: Option<&Value>, new: &Value, may: bool) -> Self {
        if may && let Some(Value::Array(entries)) = new.pointer("/metadata/managedFields") {
            let blank = |entry: &Value| entry.as_object().is_none_or(Map::is_empty);
            if entries.iter().all(blank) && entries.len() <= 1 {
                return Self::default();
            }
            let given = Self::decode(entries);
            if !given.is_empty() {
                return given;
            }
        }
        old.map(Self::of).unwrap_or_default()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn take(&mut self, identity: &Identity) -> Option<Owned> {
        self.0.remove(identity)
    }

    pub fn put(&mut self, identity: Identity, api_version: &str, set: Set, time: Option<String>) {
        self.0.insert(identity, Owned { set, api_version: api_version.to_owned(), time });
    }

    pub fn time(&mut self, identity: &Identity, time: String) {
        if let Some(owned) = self.0.get_mut(identity) {
            owned.time = Some(time);
        }
    }

    /// Everything that is owned in one version of the kind.
    pub fn union(&self, api_version: &str) -> Set {
        self.0.values().filter(|owned| owned.api_version == api_version).fold(Set::default(), |all, owned| all.union(&owned.set))
    }

    pub fn conflicts(&self, changed: &Comparison, me: &Identity, api_version: &str) -> Vec<Conflict> {
        let touched = changed.modified.union(&changed.added);
        let others = self.0.iter().filter(|(identity, owned)| *identity != me && owned.api_version == api_version);
        others
            .flat_map(|(identity, owned)| {
                let manager = identity.display();
                owned.set.intersection(&touched).paths().into_iter().map(move |path| Conflict { manager: manager.clone(), path })
            })
            .collect()
    }

    pub fn take_from_others(&mut self, changed: &Comparison, me: &Identity, api_version: &str) {
        let touched = changed.modified.union(&changed.added).union(&changed.removed);
        for (_, owned) in self.0.iter_mut().filter(|(identity, owned)| *identity != me && owned.api_version == api_version) {
            owned.set = owned.set.difference(&touched);
        }
        self.0.retain(|_, owned| !owned.set.is_empty());
    }

    pub fn take_from_everyone(&mut self, changed: &Comparison, api_version: &str) {
        let touched = changed.modified.union(&changed.added).union(&changed.removed);
        for owned in self.0.values_mut().filter(|owned| owned.api_version == api_version) {
            owned.set = owned.set.difference(&touched);
        }
        self.0.retain(|_, owned| !owned.set.is_empty());
    }

    pub fn gain(&mut self, identity: Identity, api_version: &str, gained: Set, now: &str) {
        let mut gained = gained;
        strip(&mut gained);
        if gained.is_empty() {
            return;
        }
        let set = self.0.get(&identity).map_or_else(|| gained.clone(), |known| known.set.union(&gained));
        self.put(identity, api_version, set, Some(now.to_owned()));
    }

    /// Lumps the oldest updaters together.
    pub fn cap(&mut self) {
        let mut updaters: Vec<Identity> = self.0.keys().filter(|identity| identity.operation == Operation::Update).cloned().collect();
        if updaters.len() <= MOST_UPDATERS {
            return;
        }
        updaters.sort_by(|a, b| (&self.0[a].time, a).cmp(&(&self.0[b].time, b)));
        let mut count = updaters.len();
        let mut first: BTreeMap<String, Identity> = BTreeMap::new();
        for identity in updaters {
            if count <= MOST_UPDATERS {
                break;
            }
            let Some(owned) = self.0.get(&identity).cloned() else { continue };
            let Some(earlier) = first.get(&owned.api_version) else {
                first.insert(owned.api_version, identity);
                continue;
            };
            let bucket =
                Identity { manager: OLD_UPDATERS.into(), operation: Operation::Update, api_version: owned.api_version.clone(), subresource: String::new() };
            let known = self.0.remove(earlier).or_else(|| self.0.remove(&bucket));
            self.0.remove(&identity);
            let set = known.map_or_else(|| owned.set.clone(), |known| known.set.union(&owned.set));
            first.insert(owned.api_version.clone(), bucket.clone());
            self.0.insert(bucket, Owned { set, ..owned });
            count -= 1;
        }
    }

    /// Sets `metadata.managedFields`.
    pub fn write(mut self, object: &mut Value) {
        for owned in self.0.values_mut() {
            strip(&mut owned.set);
        }
        let mut entries: Vec<(Identity, Owned)> = self.0.into_iter().filter(|(_, owned)| !owned.set.is_empty()).collect();
        entries.sort_by(|(a, x), (b, y)| {
            (a.operation, &x.time, &a.manager, &x.api_version, &a.subresource).cmp(&(b.operation, &y.time, &b.manager, &y.api_version, &b.subresource))
        });
        let entries: Vec<Value> = entries
            .into_iter()
            .map(|(identity, owned)| {
                let operation = if identity.operation == Operation::Apply { "Apply" } else { "Update" };
                let mut entry = json!({
                    "manager": identity.manager, "operation": operation, "apiVersion": owned.api_version, "fieldsType": FIELDS_TYPE, "fieldsV1": owned.set.to_json(),
                });
                if let Some(time) = owned.time {
                    entry["time"] = time.into();
                }
                if !identity.subresource.is_empty() {
                    entry["subresource"] = identity.subresource.into();
                }
                entry
            })
            .collect();
        let Value::Object(map) = object else { return };
        let metadata = map.entry("metadata").or_insert_with(|| json!({}));
        if entries.is_empty() {
            remove(object);
        } else if let Value::Object(metadata) = metadata {
            metadata.insert("managedFields".to_owned(), Value::Array(entries));
        }
    }
}

fn strip(set: &mut Set) {
    for path in STRIPPED {
        set.remove_path(path);
    }
}

/// Takes the managed fields off an object.
pub(super) fn remove(object: &mut Value) {
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.remove("managedFields");
    }
}
