//! Sets of field paths, as `fieldsV1` holds them. Mirrors structured-merge-diff's `fieldpath.Set`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::element;

/// A path belongs to the set through `members` of the node above it; having children does not make it a member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set {
    members: BTreeSet<String>,
    children: BTreeMap<String, Set>,
}

impl Set {
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.values().all(Set::is_empty)
    }

    pub(super) fn insert(&mut self, element: String) {
        self.members.insert(element);
    }

    pub(super) fn graft(&mut self, element: String, below: Set) {
        if !below.is_empty() {
            match self.children.get_mut(&element) {
                Some(known) => known.absorb(below),
                None => {
                    self.children.insert(element, below);
                }
            }
        }
    }

    pub(super) fn has(&self, element: &str) -> bool {
        self.members.contains(element)
    }

    pub(super) fn below(&self, element: &str) -> Option<&Set> {
        self.children.get(element).filter(|set| !set.is_empty())
    }

    pub(super) fn children(&self) -> impl Iterator<Item = (&String, &Set)> {
        self.children.iter()
    }

    pub(super) fn members(&self) -> &BTreeSet<String> {
        &self.members
    }

    pub fn union(&self, other: &Set) -> Set {
        let mut all = self.clone();
        all.absorb(other.clone());
        all
    }

    /// Becomes the union.
    pub(super) fn absorb(&mut self, mut other: Set) {
        self.members.append(&mut other.members);
        for (element, below) in other.children {
            self.graft(element, below);
        }
    }

    /// Becomes the difference.
    pub(super) fn subtract(&mut self, other: &Set) {
        for member in &other.members {
            self.members.remove(member);
        }
        for (element, gone) in &other.children {
            if let Some(below) = self.children.get_mut(element) {
                below.subtract(gone);
                if below.is_empty() {
                    self.children.remove(element);
                }
            }
        }
    }

    /// Whether taking this set out of a `fieldsV1` as we write it could change that; it surely does not when this says no.
    pub(super) fn touches(&self, json: &Value) -> bool {
        let Value::Object(map) = json else { return false };
        !map.is_empty() && (self.members.iter().any(|member| map.contains_key(member)) || self.children.iter().any(|(element, below)| map.get(element).is_some_and(|inner| below.touches(inner))))
    }

    /// Member by member: a parent does not take its children along.
    pub fn difference(&self, other: &Set) -> Set {
        let members = self.members.difference(&other.members).cloned().collect();
        let children = self
            .children
            .iter()
            .map(|(element, below)| (element.clone(), other.children.get(element).map_or_else(|| below.clone(), |gone| below.difference(gone))))
            .filter(|(_, below)| !below.is_empty())
            .collect();
        Set { members, children }
    }

    pub fn intersection(&self, other: &Set) -> Set {
        let members = self.members.intersection(&other.members).cloned().collect();
        let children = self
            .children
            .iter()
            .filter_map(|(element, below)| Some((element.clone(), below.intersection(other.children.get(element)?))))
            .filter(|(_, below)| !below.is_empty())
            .collect();
        Set { members, children }
    }

    /// Takes out an element with everything below it.
    pub(super) fn remove_tree(&mut self, element: &str) {
        self.members.remove(element);
        self.children.remove(element);
    }

    /// Takes out one path of field names, not what is below it.
    pub(super) fn remove_path(&mut self, path: &[&str]) {
        match path {
            [] => {}
            [last] => {
                self.members.remove(*last);
            }
            [first, rest @ ..] => {
                if let Some(below) = self.children.get_mut(*first) {
                    below.remove_path(rest);
                    if below.is_empty() {
                        self.children.remove(*first);
                    }
                }
            }
        }
    }

    /// All paths, printed: `.spec.containers[name="a"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.collect("", &mut found);
        found
    }

    fn collect(&self, prefix: &str, found: &mut Vec<String>) {
        found.extend(self.members.iter().map(|member| format!("{prefix}{}", element::display(member))));
        for (child, below) in &self.children {
            below.collect(&format!("{prefix}{}", element::display(child)), found);
        }
    }

    /// `fieldsV1`
    pub fn to_json(&self) -> Value {
        const SELF: &str = ".";
        let mut map: Map<String, Value> = self.members.iter().map(|member| (member.clone(), Value::Object(Map::new()))).collect();
        for (element, below) in self.children.iter().filter(|(_, below)| !below.is_empty()) {
            let mut inner = below.to_json();
            if self.members.contains(element) {
                inner[SELF] = Value::Object(Map::new());
            }
            map.insert(element.clone(), inner);
        }
        Value::Object(map)
    }

    pub fn from_json(json: &Value) -> Set {
        const SELF: &str = ".";
        let mut set = Set::default();
        for (key, inner) in json.as_object().into_iter().flatten() {
            if key == SELF {
                continue;
            }
            let element = element::canonical(key);
            let below = Set::from_json(inner);
            if below.is_empty() || inner.get(SELF).is_some() {
                set.members.insert(element.clone());
            }
            set.graft(element, below);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(json: Value) -> Set {
        Set::from_json(&json)
    }

    #[test]
    fn json_goes_there_and_back() {
        let json = json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}, "f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}, "f:list": {"v:\"x\"": {}}}});
        let set = set(json.clone());
        assert_eq!(set.to_json(), json);
        assert_eq!(set.paths(), [
            ".metadata.labels",
            ".metadata.labels.a",
            ".spec.list[=\"x\"]",
            ".spec.ports[port=80,protocol=\"TCP\"]",
            ".spec.ports[port=80,protocol=\"TCP\"].port",
        ]);
    }

    #[test]
    fn set_algebra() {
        let a = set(json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}}));
        let b = set(json!({"f:a": {"f:b": {}, "f:d": {}}}));
        assert_eq!(a.union(&b), set(json!({"f:a": {".": {}, "f:b": {}, "f:d": {}}, "f:c": {}})));
        assert_eq!(a.difference(&b), set(json!({"f:a": {}, "f:c": {}})));
        assert_eq!(a.intersection(&b), set(json!({"f:a": {"f:b": {}}})));
        assert!(a.difference(&a).is_empty());
        let mut left = a.clone();
        left.subtract(&b);
        assert_eq!(left, a.difference(&b));
        left.absorb(b.clone());
        assert_eq!(left, a.difference(&b).union(&b));
        assert!(b.touches(&a.to_json()) && a.touches(&b.to_json()));
        assert!(!b.touches(&set(json!({"f:c": {}, "f:a": {"f:x": {}}})).to_json()));
    }
}
