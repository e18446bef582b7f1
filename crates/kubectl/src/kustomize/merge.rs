//! Strategic merge as kustomize does it, which is not as the API server does: what a patch brings to a list stands at its head.
//!
//! Mirrors kyaml/yaml/merge2 and its walker. Lists merge by the keys of the schema facts; kinds that have none merge objects and replace lists.

use api::schema::{Field, FieldType, TypeInfo};
use serde_json::{Map, Value};

use super::fields::{node_kind, plain, wrong};
use crate::error::{Result, fail};

const DIRECTIVE: &str = "$patch";

/// What is known of a place in an object.
#[derive(Clone, Copy, Default)]
struct Place {
    root: Option<&'static TypeInfo>,
    ty: Option<&'static FieldType>,
    field: Option<&'static Field>,
}

impl Place {
    fn child(self, key: &str) -> Place {
        let info: Option<&'static TypeInfo> = self.root.or_else(|| self.ty.and_then(FieldType::info));
        if let Some(field) = info.and_then(|info| info.field(key)) {
            return Place { root: None, ty: Some(&field.ty), field: Some(field) };
        }
        match self.ty {
            Some(FieldType::Map(value)) => Place { ty: Some(value), ..Place::default() },
            _ => Place::default(),
        }
    }

    fn item(self) -> Place {
        Place { ty: self.ty.and_then(FieldType::item), ..Place::default() }
    }

    /// The keys by which the list merges; an empty key: by its plain items. None: it is replaced.
    fn keys(self) -> Option<Vec<&'static str>> {
        let field = self.field.filter(|field| field.patch_strategy.merge)?;
        if !field.map_keys.is_empty() {
            return Some(field.map_keys.to_vec());
        }
        Some(vec![field.patch_merge_key.unwrap_or("")])
    }
}

enum Directive {
    Merge,
    Replace,
    Delete,
}

fn directive(value: &str) -> Result<Directive> {
    match value {
        "merge" => Ok(Directive::Merge),
        "replace" => Ok(Directive::Replace),
        "delete" => Ok(Directive::Delete),
        other => fail(format!("unknown patch strategy '{other}'")),
    }
}

/// `dest` with `patch` in it; None when the patch deletes it.
pub fn strategic(dest: Value, patch: &Value) -> Result<Option<Value>> {
    let kind = |value: &Value| value.get("kind").and_then(Value::as_str).unwrap_or("").to_owned();
    let version = dest.get("apiVersion").and_then(Value::as_str).unwrap_or("").to_owned();
    let (group, version) = version.split_once('/').unwrap_or(("", &version));
    let root = api::table::table().find_kind(group, version, &kind(&dest)).and_then(|row| api::schema::of(&row.schema));
    walk(Some(dest), Some(patch.clone()), Place { root, ..Place::default() })
}

fn walk(dest: Option<Value>, patch: Option<Value>, place: Place) -> Result<Option<Value>> {
    if dest.as_ref().is_some_and(Value::is_null) && patch.is_none() {
        // As `creationTimestamp: null` has it. Upstream drops what has no value at all (`labels:`), which is the same here.
        return Ok(dest);
    }
    let Some(first) = dest.as_ref().filter(|value| !value.is_null()).or(patch.as_ref().filter(|value| !value.is_null())) else {
        // Nothing but nulls: the field goes.
        return Ok(None);
    };
    let kind = node_kind(first);
    for value in [&dest, &patch].into_iter().flatten().filter(|value| !value.is_null()) {
        if node_kind(value) != kind {
            return fail(wrong(kind, value));
        }
    }
    match kind {
        "MappingNode" => objects(dest, patch, place),
        "SequenceNode" => match place.keys() {
            Some(keys) => lists(dest, patch, place, &keys),
            None => Ok(patch.or(dest).filter(|value| !value.is_null())),
        },
        _ => Ok(patch.or(dest).filter(|value| !value.is_null())),
    }
}

fn map_of(value: Option<Value>) -> Option<Map<String, Value>> {
    match value {
        Some(Value::Object(map)) => Some(map),
        _ => None,
    }
}

fn objects(dest: Option<Value>, patch: Option<Value>, place: Place) -> Result<Option<Value>> {
    if patch.as_ref().is_some_and(Value::is_null) && dest.as_ref().is_some_and(|dest| !dest.is_null()) {
        return Ok(None);
    }
    let mut patch = map_of(patch);
    let asked = patch.as_mut().and_then(|patch| patch.remove(DIRECTIVE)).map(|word| directive(&plain(&word))).transpose()?;
    let base = match (asked, map_of(dest)) {
        (Some(Directive::Delete), _) => return Ok(None),
        (Some(Directive::Replace), _) | (_, None) => patch.clone().unwrap_or_default(),
        (_, Some(dest)) => dest,
    };
    let mut keys: Vec<String> = base.keys().chain(patch.iter().flat_map(|patch| patch.keys())).cloned().collect();
    keys.sort();
    keys.dedup();
    let mut base = base;
    let mut merged = Map::new();
    for key in keys {
        if let Some(value) = walk(base.remove(&key), patch.as_mut().and_then(|patch| patch.remove(&key)), place.child(&key))? {
            merged.insert(key, value);
        }
    }
    Ok(Some(Value::Object(merged)))
}

/// The directive of a list: an item that says nothing else.
fn list_directive(items: &mut Vec<Value>) -> Result<Directive> {
    let alone = |item: &Value| item.as_object().is_some_and(|map| map.len() == 1 && map.contains_key(DIRECTIVE));
    match items.iter().position(alone) {
        Some(at) => directive(&plain(&items.remove(at)[DIRECTIVE])),
        None => Ok(Directive::Merge),
    }
}

fn list_of(value: Option<Value>) -> Option<Vec<Value>> {
    match value {
        Some(Value::Array(items)) => Some(items),
        _ => None,
    }
}

fn key_values(item: &Value, keys: &[&'static str]) -> Vec<String> {
    keys.iter().map(|key| if key.is_empty() { plain(item) } else { item.get(*key).map(plain).unwrap_or_default() }).collect()
}

/// Of several keys those that are used at all.
fn used(all: &[Vec<String>], values: &[String], keys: &[&'static str]) -> (Vec<&'static str>, Vec<String>) {
    let used: Vec<usize> = (0..keys.len()).filter(|at| all.iter().any(|values| values.get(*at).is_some_and(|value| !value.is_empty()))).collect();
    if used.is_empty() {
        return (keys.to_vec(), values.to_vec());
    }
    (used.iter().map(|at| keys[*at]).collect(), used.iter().map(|at| values[*at].clone()).collect())
}

/// What says less about its keys means the one that says more.
fn complete(all: &mut [Vec<String>]) {
    for i in 0..all.len() {
        for j in 0..all.len() {
            let (a, b) = (&all[i], &all[j]);
            let common = a.iter().zip(b).any(|(a, b)| a == b);
            let conflict = a.iter().zip(b).any(|(a, b)| a != b && !a.is_empty() && !b.is_empty());
            if common && !conflict {
                let whole: Vec<String> = a.iter().zip(b).map(|(a, b)| if a.is_empty() { b.clone() } else { a.clone() }).collect();
                all[i].clone_from(&whole);
                all[j] = whole;
            }
        }
    }
}

fn matches(item: &Value, keys: &[&'static str], values: &[String]) -> bool {
    keys.iter().enumerate().all(|(at, key)| {
        // Fewer values than keys: upstream then goes by those there are.
        let Some(value) = values.get(at) else { return true };
        if key.is_empty() { !item.is_object() && plain(item) == *value } else { item.get(*key).is_some_and(|found| !found.is_null() && plain(found) == *value) }
    })
}

/// Puts `item` in the place of all that match, or at the end; None takes them away.
fn put(list: &mut Vec<Value>, keys: &[&'static str], values: &[String], item: Option<Value>) {
    let mut found = false;
    let old = std::mem::take(list);
    for one in old {
        if one.is_null() || one.as_object().is_some_and(Map::is_empty) {
            continue;
        }
        if matches(&one, keys, values) {
            found = true;
            list.extend(item.clone());
        } else {
            list.push(one);
        }
    }
    if !found {
        list.extend(item);
    }
}

fn lists(dest: Option<Value>, patch: Option<Value>, place: Place, keys: &[&'static str]) -> Result<Option<Value>> {
    if patch.as_ref().is_some_and(Value::is_null) && dest.as_ref().is_some_and(|dest| !dest.is_null()) {
        return Ok(None);
    }
    let mut patch = list_of(patch);
    let mut dest = match (list_of(dest), patch.as_mut()) {
        (None, Some(patch)) => patch.clone(),
        (Some(dest), None) => dest,
        (None, None) => return Ok(None),
        (Some(dest), Some(patch)) => match list_directive(patch)? {
            Directive::Delete => return Ok(None),
            Directive::Replace => patch.clone(),
            Directive::Merge => dest,
        },
    };
    let patch = patch.unwrap_or_default();
    let mut all: Vec<Vec<String>> = Vec::new();
    for item in patch.iter().chain(&dest) {
        let values = key_values(item, keys);
        if !all.contains(&values) {
            all.push(values);
        }
    }
    if keys.len() > 1 {
        complete(&mut all);
    }
    let mut merged: Vec<Value> = Vec::new();
    let mut last_keys = keys.to_vec();
    for values in &all {
        let (keys, values) = used(&all, values, keys);
        last_keys.clone_from(&keys);
        // An item is looked for by the keys it has.
        let (find_keys, find_values) = used(std::slice::from_ref(&values), &values, &keys);
        let at = dest.iter().position(|item| matches(item, &find_keys, &find_values));
        let from = patch.iter().find(|item| matches(item, &find_keys, &find_values)).cloned();
        let replaces = from.as_ref().and_then(|item| item.get(DIRECTIVE)).is_some_and(|word| word == "replace");
        let mut value = walk(at.map(|at| dest[at].clone()), from, place.item())?;
        let empty = value.as_ref().is_none_or(|value| value.is_null() || value.as_object().is_some_and(Map::is_empty));
        if empty {
            put(&mut dest, &keys, &values, None);
            continue;
        }
        if let Some(Value::Object(map)) = &mut value {
            for (key, text) in keys.iter().zip(&values).filter(|(key, text)| !key.is_empty() && !text.is_empty()) {
                if !map.contains_key(*key) {
                    map.insert((*key).to_owned(), text.parse::<i64>().map_or_else(|_| text.clone().into(), Value::from));
                }
            }
        }
        // Merging changes the item where it is; an item that is replaced stays as it was there.
        if let (Some(at), Some(value), false) = (at, &value, replaces) {
            dest[at] = value.clone();
        }
        put(&mut merged, &keys, &values, value);
    }
    for item in dest {
        let values: Vec<String> = if last_keys[0].is_empty() {
            vec![plain(&item)]
        } else {
            last_keys.iter().filter_map(|key| item.get(*key)).filter(|value| !value.is_null()).map(plain).collect()
        };
        if values.len() < last_keys.len() {
            merged.push(item.clone());
        }
        if last_keys.len() > 1 {
            put(&mut merged, &last_keys, &values, None);
        }
        put(&mut merged, &last_keys, &values, Some(item));
    }
    Ok(Some(Value::Array(merged)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "spec": spec})
    }

    #[test]
    fn what_a_patch_brings_stands_first() {
        for (dest, patch, want) in [
            (json!({"a": 1, "b": 2}), json!({"b": null, "c": 3}), json!({"a": 1, "c": 3})),
            (json!({"containers": [{"name": "a", "image": "x"}, {"name": "b"}]}), json!({"containers": [{"name": "b", "image": "y"}]}), json!({"containers": [{"name": "b", "image": "y"}, {"name": "a", "image": "x"}]})),
            (json!({"containers": [{"name": "a"}]}), json!({"containers": [{"name": "n"}]}), json!({"containers": [{"name": "n"}, {"name": "a"}]})),
            (json!({"containers": [{"name": "a"}, {"name": "b"}]}), json!({"containers": [{"name": "a", "$patch": "delete"}]}), json!({"containers": [{"name": "b"}]})),
            (json!({"containers": [{"name": "a"}]}), json!({"containers": [{"name": "c"}, {"$patch": "replace"}]}), json!({"containers": [{"name": "c"}]})),
            (json!({"nodeSelector": {"a": "b"}}), json!({"nodeSelector": {"$patch": "replace", "c": "d"}}), json!({"nodeSelector": {"c": "d"}})),
            (json!({"containers": [{"name": "a", "args": ["x", "y"]}]}), json!({"containers": [{"name": "a", "args": ["z"]}]}), json!({"containers": [{"name": "a", "args": ["z"]}]})),
        ] {
            assert_eq!(strategic(pod(dest), &json!({"spec": patch})).unwrap(), Some(pod(want)));
        }
        assert_eq!(strategic(pod(json!({})), &json!({"$patch": "delete"})).unwrap(), None);
    }
}
