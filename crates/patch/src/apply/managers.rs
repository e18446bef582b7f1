//! `metadata.managedFields`: reading, writing and changing who owns what. Mirrors apimachinery's `managedfields` package.

use std::borrow::Cow;
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

/// Most writes concern few of an object's managers; the others' fields are carried over as they were stored.
#[derive(Debug, Clone)]
enum Fields {
    Stored(Value),
    Read(Set),
}

#[derive(Debug, Clone)]
pub(super) struct Owned {
    fields: Fields,
    api_version: String,
    pub time: Option<String>,
}

impl Owned {
    pub fn set(&self) -> Cow<'_, Set> {
        match &self.fields {
            Fields::Stored(json) => Cow::Owned(Set::from_json(json)),
            Fields::Read(set) => Cow::Borrowed(set),
        }
    }

    pub fn api_version(&self) -> &str {
        &self.api_version
    }

    fn change(&mut self, with: impl FnOnce(&mut Set)) {
        let mut set = match std::mem::replace(&mut self.fields, Fields::Stored(Value::Null)) {
            Fields::Stored(json) => Set::from_json(&json),
            Fields::Read(set) => set,
        };
        with(&mut set);
        self.fields = Fields::Read(set);
    }

    fn is_empty(&self) -> bool {
        match &self.fields {
            // Managers of nothing are not stored.
            Fields::Stored(json) => json.as_object().is_none_or(Map::is_empty),
            Fields::Read(set) => set.is_empty(),
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Managers(BTreeMap<Identity, Owned>);

impl Managers {
    pub fn of(object: &Value) -> Self {
        fields_of(object).and_then(Value::as_array).map(|entries| Self::decode(entries.iter().map(Cow::Borrowed), read)).unwrap_or_default()
    }

    fn decode<'v>(entries: impl Iterator<Item = Cow<'v, Value>>, fields: fn(Cow<'v, Value>) -> Fields) -> Self {
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
            let time = entry.get("time").and_then(Value::as_str).map(str::to_owned);
            managers.insert(identity, Owned { fields: fields(entry), api_version, time });
        }
        Self(managers)
    }

    /// What an update is to start from, taken off the object: what the request itself says, if it may and does (an empty list, or one empty entry, forgets all
    /// managers), else what is stored.
    pub fn requested(old: Option<&Value>, new: &mut Value, may: bool) -> Self {
        let asked = remove(new);
        let stored = old.and_then(fields_of);
        if asked.is_some()
            && asked.as_ref() == stored
            && let Some(Value::Array(entries)) = asked
        {
            // As it was: nothing of it need be read or copied.
            return Self::decode(entries.into_iter().map(Cow::Owned), stored_fields);
        }
        if may && let Some(Value::Array(entries)) = &asked {
            let blank = |entry: &Value| entry.as_object().is_none_or(Map::is_empty);
            if entries.iter().all(blank) && entries.len() <= 1 {
                return Self::default();
            }
            let given = Self::decode(entries.iter().map(Cow::Borrowed), read);
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
        self.0.insert(identity, Owned { fields: Fields::Read(set), api_version: api_version.to_owned(), time });
    }

    pub fn time(&mut self, identity: &Identity, time: String) {
        if let Some(owned) = self.0.get_mut(identity) {
            owned.time = Some(time);
        }
    }

    /// The versions that somebody owns fields in, each once.
    pub fn versions(&self) -> Vec<String> {
        let mut versions: Vec<String> = Vec::new();
        for owned in self.0.values() {
            if !versions.contains(&owned.api_version) {
                versions.push(owned.api_version.clone());
            }
        }
        versions
    }

    pub fn forget(&mut self, api_version: &str) {
        self.0.retain(|_, owned| owned.api_version != api_version);
    }

    /// Everything that is owned in one version of the kind.
    pub fn union(&self, api_version: &str) -> Set {
        self.0.values().filter(|owned| owned.api_version == api_version).fold(Set::default(), |all, owned| all.union(&owned.set()))
    }

    pub fn conflicts(&self, changed: &Comparison, me: &Identity, api_version: &str) -> Vec<Conflict> {
        let touched = changed.modified.union(&changed.added);
        let others = self.0.iter().filter(|(identity, owned)| *identity != me && owned.api_version == api_version);
        others
            .flat_map(|(identity, owned)| {
                let manager = identity.display();
                owned.set().intersection(&touched).paths().into_iter().map(move |path| Conflict { manager: manager.clone(), path })
            })
            .collect()
    }

    pub fn take_from_others(&mut self, changed: &Comparison, me: &Identity, api_version: &str) {
        for (_, owned) in self.0.iter_mut().filter(|(identity, owned)| *identity != me && owned.api_version == api_version) {
            owned.change(|set| [&changed.modified, &changed.added, &changed.removed].into_iter().for_each(|touched| set.subtract(touched)));
        }
        self.0.retain(|_, owned| !owned.is_empty());
    }

    pub fn take_from_everyone(&mut self, gained: &Set, removed: &Set, api_version: &str) {
        for owned in self.0.values_mut().filter(|owned| owned.api_version == api_version) {
            for touched in [gained, removed] {
                let touches = match &owned.fields {
                    Fields::Stored(json) => touched.touches(json),
                    Fields::Read(_) => true,
                };
                if touches {
                    owned.change(|set| set.subtract(touched));
                }
            }
        }
        self.0.retain(|_, owned| !owned.is_empty());
    }

    pub fn gain(&mut self, identity: Identity, api_version: &str, gained: Set, now: &str) {
        let mut gained = gained;
        strip(&mut gained);
        if gained.is_empty() {
            return;
        }
        if let Some(known) = self.0.get(&identity) {
            gained.absorb(known.set().into_owned());
        }
        self.put(identity, api_version, gained, Some(now.to_owned()));
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
            let set = known.map_or_else(|| owned.set().into_owned(), |known| known.set().union(&owned.set()));
            first.insert(owned.api_version.clone(), bucket.clone());
            self.0.insert(bucket, Owned { fields: Fields::Read(set), ..owned });
            count -= 1;
        }
    }

    /// Sets `metadata.managedFields`.
    pub fn write(mut self, object: &mut Value) {
        for owned in self.0.values_mut() {
            if let Fields::Read(set) = &mut owned.fields {
                strip(set);
            }
        }
        let mut entries: Vec<(Identity, Owned)> = self.0.into_iter().filter(|(_, owned)| !owned.is_empty()).collect();
        entries.sort_by(|(a, x), (b, y)| {
            (a.operation, &x.time, &a.manager, &x.api_version, &a.subresource).cmp(&(b.operation, &y.time, &b.manager, &y.api_version, &b.subresource))
        });
        let entries: Vec<Value> = entries
            .into_iter()
            .map(|(identity, owned)| {
                let operation = if identity.operation == Operation::Apply { "Apply" } else { "Update" };
                let fields = match owned.fields {
                    Fields::Stored(json) => json,
                    Fields::Read(set) => set.to_json(),
                };
                let mut entry = Map::new();
                let mut put = |key: &str, value: Value| drop(entry.insert(key.to_owned(), value));
                put("manager", identity.manager.into());
                put("operation", operation.into());
                put("apiVersion", owned.api_version.into());
                put("fieldsType", FIELDS_TYPE.into());
                put("fieldsV1", fields);
                if let Some(time) = owned.time {
                    put("time", time.into());
                }
                if !identity.subresource.is_empty() {
                    put("subresource", identity.subresource.into());
                }
                Value::Object(entry)
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

fn fields_of(object: &Value) -> Option<&Value> {
    object.get("metadata")?.get("managedFields")
}

fn read(entry: Cow<'_, Value>) -> Fields {
    Fields::Read(entry.get("fieldsV1").map(Set::from_json).unwrap_or_default())
}

fn stored_fields(entry: Cow<'_, Value>) -> Fields {
    Fields::Stored(entry.into_owned().get_mut("fieldsV1").map(Value::take).unwrap_or_default())
}

/// Takes the managed fields off an object.
pub(super) fn remove(object: &mut Value) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove("managedFields")
}
