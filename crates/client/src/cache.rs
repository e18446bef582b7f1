//! The objects of one kind as an informer last saw them, in memory, with indexes: `client-go`'s store and indexer.
//!
//! Objects are the same `Arc<Object>` the API server hands out in this process; `get` and `list` decode them on first use, once for all holders.
//! Reading never waits for the network and never changes anything.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use api::Object;
use parking_lot::RwLock;

/// Namespace (empty for a cluster-wide kind) and name of an object. Prints as `namespace/name`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl ObjectKey {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    pub fn of(object: &Object) -> Self {
        let meta = object.meta();
        Self::new(meta.namespace.as_deref().unwrap_or(""), &meta.name)
    }

    /// The namespace as a request wants it: none for a cluster-wide kind.
    pub fn scope(&self) -> Option<&str> {
        (!self.namespace.is_empty()).then_some(&self.namespace)
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Marks a cache or informer whose objects are used by their metadata or as JSON only.
#[derive(Debug)]
pub enum Untyped {}

/// The values under which an object is found in an index.
pub type IndexFn = Arc<dyn Fn(&Object) -> Vec<String> + Send + Sync>;

/// What happened to one object: created (`old` is none), changed, or deleted (`new` is none; `old` is the last state known).
/// After a gap in the watch, an object deleted and created again shows as a change to another uid.
#[derive(Debug, Clone)]
pub struct Change {
    pub key: ObjectKey,
    pub old: Option<Arc<Object>>,
    pub new: Option<Arc<Object>>,
}

impl Change {
    /// The newest state known.
    pub fn object(&self) -> Option<&Arc<Object>> {
        self.new.as_ref().or(self.old.as_ref())
    }
}

struct Index {
    name: &'static str,
    function: IndexFn,
    entries: HashMap<String, BTreeSet<ObjectKey>>,
}

impl Index {
    fn remove(&mut self, key: &ObjectKey, object: &Object) {
        for value in (self.function)(object) {
            if let Some(keys) = self.entries.get_mut(&value) {
                keys.remove(key);
                if keys.is_empty() {
                    self.entries.remove(&value);
                }
            }
        }
    }

    fn insert(&mut self, key: &ObjectKey, object: &Object) {
        for value in (self.function)(object) {
            self.entries.entry(value).or_default().insert(key.clone());
        }
    }
}

#[derive(Default)]
struct Content {
    namespaces: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Arc<Object>>>,
    indexes: Vec<Index>,
    count: usize,
    revision: u64,
}

impl Content {
    fn get(&self, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        self.namespaces.get(namespace)?.get(name)
    }

    fn put(&mut self, object: Arc<Object>) -> Option<Change> {
        let mut key = ObjectKey::of(&object);
        if let Some((known, _)) = self.namespaces.get_key_value(&key.namespace) {
            key.namespace = known.clone();
        }
        let old = self.namespaces.entry(key.namespace.clone()).or_default().insert(key.name.clone(), object.clone());
        if let Some(old) = &old {
            if Arc::ptr_eq(old, &object) || (old.resource_version() == object.resource_version() && old.meta().uid == object.meta().uid) {
                return None;
            }
            self.indexes.iter_mut().for_each(|index| index.remove(&key, old));
        } else {
            self.count += 1;
        }
        self.indexes.iter_mut().for_each(|index| index.insert(&key, &object));
        Some(Change { key, old, new: Some(object) })
    }

    fn remove(&mut self, key: &ObjectKey) -> Option<Change> {
        let names = self.namespaces.get_mut(&key.namespace)?;
        let old = names.remove(&key.name)?;
        if names.is_empty() {
            self.namespaces.remove(&key.namespace);
        }
        self.count -= 1;
        self.indexes.iter_mut().for_each(|index| index.remove(key, &old));
        Some(Change { key: key.clone(), old: Some(old), new: None })
    }
}

/// See the module head. Cheap to clone; all clones are one cache.
pub struct Cache<T> {
    content: Arc<RwLock<Content>>,
    kind: PhantomData<fn() -> T>,
}

impl<T> Clone for Cache<T> {
    fn clone(&self) -> Self {
        Self { content: self.content.clone(), kind: PhantomData }
    }
}

impl<T> Cache<T> {
    pub(crate) fn new(indexes: Vec<(&'static str, IndexFn)>) -> Self {
        let indexes = indexes.into_iter().map(|(name, function)| Index { name, function, entries: HashMap::new() }).collect();
        Self { content: Arc::new(RwLock::new(Content { indexes, ..Content::default() })), kind: PhantomData }
    }

    /// The same cache, its objects seen as another type.
    pub(crate) fn of<U>(&self) -> Cache<U> {
        Cache { content: self.content.clone(), kind: PhantomData }
    }

    /// Stores what a watch said; none when that was known already.
    pub(crate) fn put(&self, object: Arc<Object>) -> Option<Change> {
        let mut content = self.content.write();
        content.revision = content.revision.max(object.resource_version());
        content.put(object)
    }

    /// `object` is the last state, with the revision of its deletion.
    pub(crate) fn remove(&self, object: &Object) -> Option<Change> {
        let mut content = self.content.write();
        content.revision = content.revision.max(object.resource_version());
        content.remove(&ObjectKey::of(object))
    }

    /// Replaces everything by a fresh list.
    pub(crate) fn replace(&self, objects: Vec<Arc<Object>>, revision: u64) -> Vec<Change> {
        let mut content = self.content.write();
        let fresh: BTreeSet<ObjectKey> = objects.iter().map(|object| ObjectKey::of(object)).collect();
        let gone: Vec<ObjectKey> = content.keys().filter(|key| !fresh.contains(key)).collect();
        let mut changes: Vec<Change> = gone.iter().filter_map(|key| content.remove(key)).collect();
        changes.extend(objects.into_iter().filter_map(|object| content.put(object)));
        content.revision = content.revision.max(revision);
        changes
    }

    pub(crate) fn advance(&self, revision: u64) {
        let mut content = self.content.write();
        content.revision = content.revision.max(revision);
    }

    /// Everything that happened up to this resourceVersion is in the cache.
    pub fn revision(&self) -> u64 {
        self.content.read().revision
    }

    pub fn len(&self) -> usize {
        self.content.read().count
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `namespace` is empty for a cluster-wide kind.
    pub fn object(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.content.read().get(namespace, name).cloned()
    }

    pub fn contains(&self, namespace: &str, name: &str) -> bool {
        self.content.read().get(namespace, name).is_some()
    }

    /// All, ordered by namespace and name.
    pub fn objects(&self) -> Vec<Arc<Object>> {
        self.content.read().namespaces.values().flat_map(|names| names.values().cloned()).collect()
    }

    pub fn objects_in(&self, namespace: &str) -> Vec<Arc<Object>> {
        self.content.read().namespaces.get(namespace).map(|names| names.values().cloned().collect()).unwrap_or_default()
    }

    pub fn keys(&self) -> Vec<ObjectKey> {
        self.content.read().keys().collect()
    }

    /// The objects under `value` in the index `name`. An index that was not asked for when the informer was built holds nothing.
    pub fn objects_by(&self, name: &str, value: &str) -> Vec<Arc<Object>> {
        let content = self.content.read();
        let Some(keys) = content.indexes.iter().find(|index| index.name == name).and_then(|index| index.entries.get(value)) else {
            return Vec::new();
        };
        keys.iter().filter_map(|key| content.get(&key.namespace, &key.name).cloned()).collect()
    }

    /// The objects that name `uid` among their owners (needs `index_owners`).
    pub fn objects_owned_by(&self, uid: &str) -> Vec<Arc<Object>> {
        self.objects_by(OWNERS, uid)
    }
}

impl Content {
    fn keys(&self) -> impl Iterator<Item = ObjectKey> + '_ {
        self.namespaces.iter().flat_map(|(namespace, names)| names.keys().map(|name| ObjectKey { namespace: namespace.clone(), name: name.clone() }))
    }
}

/// The index of `index_owners`.
pub(crate) const OWNERS: &str = "metadata.ownerReferences.uid";

impl<T: api::Typed> Cache<T> {
    /// `namespace` is empty for a cluster-wide kind.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        typed(&self.object(namespace, name)?)
    }

    /// All, ordered by namespace and name.
    pub fn list(&self) -> Vec<Arc<T>> {
        all(self.objects())
    }

    pub fn list_in(&self, namespace: &str) -> Vec<Arc<T>> {
        all(self.objects_in(namespace))
    }

    /// See `objects_by`.
    pub fn list_by(&self, name: &str, value: &str) -> Vec<Arc<T>> {
        all(self.objects_by(name, value))
    }

    /// See `objects_owned_by`.
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<T>> {
        all(self.objects_owned_by(uid))
    }
}

fn all<T: api::Typed>(objects: Vec<Arc<Object>>) -> Vec<Arc<T>> {
    objects.iter().filter_map(|object| typed(object)).collect()
}

/// The typed value; an object that does not decode is logged and treated as absent.
pub(crate) fn typed<T: api::Typed>(object: &Arc<Object>) -> Option<Arc<T>> {
    object.typed::<T>().inspect_err(|error| tracing::warn!(?object, %error, "an object in the cache does not decode")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::k8s::api::core::v1::ConfigMap;

    fn object(name: &str, owner: &str, revision: u64) -> Arc<Object> {
        let json = serde_json::json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": "ns", "uid": name, "resourceVersion": revision.to_string(),
                "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": owner}]},
        });
        Arc::new(Object::decode(json.to_string().into()).unwrap())
    }

    fn cache() -> Cache<ConfigMap> {
        Cache::new(vec![(OWNERS, Arc::new(|object| object.meta().owner_references.iter().map(|owner| owner.uid.clone()).collect()))])
    }

    fn show(changes: &[Change]) -> Vec<String> {
        let version = |object: &Option<Arc<Object>>| object.as_ref().map_or("-".to_owned(), |object| object.resource_version().to_string());
        changes.iter().map(|change| format!("{} {}>{}", change.key, version(&change.old), version(&change.new))).collect()
    }

    #[test]
    fn a_relist_is_told_as_differences() {
        let cache = cache();
        assert_eq!(
            show(&cache.replace(vec![object("a", "1", 1), object("b", "1", 2), object("c", "1", 3)], 3)),
            ["ns/a ->1", "ns/b ->2", "ns/c ->3"]
        );
        assert_eq!(
            show(&cache.replace(vec![object("a", "1", 1), object("c", "2", 5), object("d", "2", 6)], 9)),
            ["ns/b 2>-", "ns/c 3>5", "ns/d ->6"]
        );
        assert_eq!(cache.revision(), 9);
        assert_eq!(cache.len(), 3);
    }

    #[test]
    fn indexes_follow_the_objects() {
        let cache = cache();
        let names = |uid: &str| cache.owned_by(uid).iter().map(|map| map.metadata.name.clone().unwrap()).collect::<Vec<_>>();
        cache.put(object("a", "1", 1));
        cache.put(object("b", "1", 2));
        assert_eq!(names("1"), ["a", "b"]);
        cache.put(object("a", "2", 3));
        assert_eq!((names("1"), names("2")), (vec!["b".into()], vec!["a".into()]));
        cache.remove(&object("b", "1", 4));
        assert!(names("1").is_empty());
        assert!(cache.put(object("a", "2", 3)).is_none(), "known already");
    }
}
