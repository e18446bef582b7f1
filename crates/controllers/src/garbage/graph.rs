//! Who owns what, by uid, and which uids a change makes worth a look.

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use api::{Object, Resource};
use client::{Change, ObjectKey};
use plan::garbage::{FOREGROUND, ORPHAN};

/// An object, found by its uid. There is one for everything in the cluster, so it keeps nothing that its object says already.
#[derive(Clone)]
pub struct Node {
    pub row: Arc<Resource>,
    pub object: Arc<Object>,
}

impl Node {
    pub fn key(&self) -> ObjectKey {
        ObjectKey::of(&self.object)
    }
}

impl Borrow<str> for Node {
    fn borrow(&self) -> &str {
        &self.object.meta().uid
    }
}

impl Hash for Node {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Borrow::<str>::borrow(self).hash(state);
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.object.meta().uid == other.object.meta().uid
    }
}

impl Eq for Node {}

#[derive(Default)]
pub struct Graph {
    nodes: HashSet<Node>,
    /// By owner; also owners that are not (yet) there.
    dependents: HashMap<String, BTreeSet<String>>,
}

/// Being deleted in the foreground.
pub fn waits(object: &Object) -> bool {
    let meta = object.meta();
    meta.deletion_timestamp.is_some() && meta.finalizers.iter().any(|one| one == FOREGROUND)
}

fn lets_go(object: &Object) -> bool {
    let meta = object.meta();
    meta.deletion_timestamp.is_some() && meta.finalizers.iter().any(|one| one == ORPHAN)
}

impl Graph {
    pub fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    pub fn with_dependents(&self, uid: &str) -> Option<(Node, Vec<Node>)> {
        let node = self.nodes.get(uid)?.clone();
        let dependents = self.dependents.get(uid).into_iter().flatten().filter_map(|uid| self.nodes.get(uid.as_str()).cloned()).collect();
        Some((node, dependents))
    }

    /// Takes a change in; the uids to look at.
    pub fn change(&mut self, row: &Arc<Resource>, change: &Change) -> BTreeSet<String> {
        let mut look = BTreeSet::new();
        let replaced = match (&change.old, &change.new) {
            (Some(old), Some(new)) => old.meta().uid != new.meta().uid,
            _ => false,
        };
        if let Some(old) = &change.old
            && (change.new.is_none() || replaced)
        {
            self.remove(old, &mut look);
        }
        if let Some(new) = &change.new {
            self.put(Node { row: row.clone(), object: new.clone() }, change.old.as_ref().filter(|_| !replaced), &mut look);
        }
        look
    }

    /// A kind is not served any more: what is left of it is out of sight.
    pub fn forget(&mut self, group: &str, plural: &str) {
        let gone: Vec<Arc<Object>> = self.nodes.iter().filter(|node| node.row.group == group && node.row.plural == plural).map(|node| node.object.clone()).collect();
        let mut look = BTreeSet::new();
        gone.iter().for_each(|object| self.remove(object, &mut look));
    }

    fn remove(&mut self, object: &Object, look: &mut BTreeSet<String>) {
        let meta = object.meta();
        self.nodes.remove(meta.uid.as_str());
        self.unlink(object);
        look.extend(self.dependents.get(&meta.uid).into_iter().flatten().cloned());
        self.waiting_owners(object, look);
    }

    fn unlink(&mut self, object: &Object) {
        let meta = object.meta();
        for owner in &meta.owner_references {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(&meta.uid);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
    }

    fn waiting_owners(&self, object: &Object, look: &mut BTreeSet<String>) {
        for owner in &object.meta().owner_references {
            if self.nodes.get(owner.uid.as_str()).is_some_and(|owner| waits(&owner.object)) {
                look.insert(owner.uid.clone());
            }
        }
    }

    fn put(&mut self, node: Node, old: Option<&Arc<Object>>, look: &mut BTreeSet<String>) {
        let object = node.object.clone();
        let meta = object.meta();
        let owners_changed = old.is_none_or(|old| old.meta().owner_references != meta.owner_references);
        if let Some(old) = old
            && owners_changed
        {
            self.unlink(old);
            self.waiting_owners(old, look);
        }
        self.nodes.replace(node);
        if owners_changed {
            for owner in &meta.owner_references {
                self.dependents.entry(owner.uid.clone()).or_default().insert(meta.uid.clone());
                // Not there (it may only be later in coming), or on its way out.
                if self.nodes.get(owner.uid.as_str()).is_none_or(|owner| waits(&owner.object)) {
                    look.insert(meta.uid.clone());
                }
            }
        }
        if waits(&object) || lets_go(&object) {
            look.insert(meta.uid.clone());
        }
        if waits(&object) && !old.is_some_and(|old| waits(old)) {
            look.extend(self.dependents.get(&meta.uid).into_iter().flatten().cloned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(uid: &str, owners: &[&str], waiting: bool) -> Arc<Object> {
        let owners: Vec<_> = owners.iter().map(|uid| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": uid, "uid": uid})).collect();
        let mut object = json!({"metadata": {"name": uid, "namespace": "ns", "uid": uid, "ownerReferences": owners}});
        if waiting {
            object["metadata"]["deletionTimestamp"] = json!("2026-11-22T12:00:00Z");
            object["metadata"]["finalizers"] = json!([FOREGROUND]);
        }
        Arc::new(Object::decode(object.to_string().into()).unwrap())
    }

    #[test]
    fn what_is_worth_a_look() {
        let row = Arc::new(api::table::table().find("", "v1", "configmaps").unwrap().clone());
        let mut graph = Graph::default();
        let mut change = |old: Option<Arc<Object>>, new: Option<Arc<Object>>| {
            let key = ObjectKey::of(old.as_ref().or(new.as_ref()).unwrap());
            graph.change(&row, &Change { key, old, new }).into_iter().collect::<Vec<_>>()
        };
        assert_eq!(change(None, Some(object("child", &["owner"], false))), ["child"], "its owner is not there");
        assert!(change(None, Some(object("owner", &[], false))).is_empty());
        assert!(change(None, Some(object("second", &["owner"], false))).is_empty());
        assert_eq!(change(Some(object("owner", &[], false)), Some(object("owner", &[], true))), ["child", "owner", "second"]);
        assert_eq!(change(Some(object("child", &["owner"], false)), None), ["owner"], "one less to wait for");
        assert_eq!(change(Some(object("second", &["owner"], false)), Some(object("second", &[], false))), ["owner"], "let go");
        assert!(change(Some(object("owner", &[], true)), None).is_empty());
    }
}
