//! Making strategic merge patches: from two documents (`kubectl edit`, `label`, …) or three (`kubectl apply`).

use std::cmp::Ordering;
use std::collections::HashSet;

use api::schema::TypeInfo;
use serde_json::{Map, Value};

use super::meta::{Meta, Strategy};
use super::{DELETE_FROM_LIST, DIRECTIVE, Mode, RETAIN_KEYS, SET_ORDER, merge_map, order};
use crate::PatchError;
use crate::error::{go_kind, go_value};

/// What a diff is to say.
#[derive(Clone, Copy)]
struct What {
    order: bool,
    changes: bool,
    deletions: bool,
    retain_keys: bool,
}

/// The patch that makes `modified` out of `original`.
pub fn two_way(original: &Value, modified: &Value, schema: Option<&'static TypeInfo>) -> Result<Value, PatchError> {
    let what = What { order: true, changes: true, deletions: true, retain_keys: false };
    Ok(Value::Object(maps(object(original)?, object(modified)?, Meta::of(schema), what)?))
}

/// `kubectl apply`: what `modified` changes or adds to `current`, and what it no longer has of `original` (the last applied configuration).
/// With `overwrite` off, changes that others made to the same fields are an error.
pub fn three_way(original: &Value, modified: &Value, current: &Value, schema: Option<&'static TypeInfo>, overwrite: bool) -> Result<Value, PatchError> {
    let (original, modified, current) = (object(original)?, object(modified)?, object(current)?);
    let meta = Meta::of(schema);
    let delta = maps(current, modified, meta, What { order: true, changes: true, deletions: false, retain_keys: false })?;
    let mut patch = maps(original, modified, meta, What { order: true, changes: false, deletions: true, retain_keys: false })?;
    merge_map(&mut patch, delta, meta, Mode { into_document: false })?;
    if !overwrite {
        let changed = maps(original, current, meta, What { order: false, changes: true, deletions: true, retain_keys: false })?;
        if conflict(&patch, &changed, meta)? {
            let print = |map: Map<String, Value>| serde_json::to_string_pretty(&map).unwrap_or_default();
            return Err(PatchError::Conflict { patch: print(patch), changed: print(changed) });
        }
    }
    Ok(Value::Object(patch))
}

fn object(value: &Value) -> Result<&Map<String, Value>, PatchError> {
    value.as_object().ok_or(PatchError::NotAnObject(api::go::json_word(value)))
}

fn maps(original: &Map<String, Value>, modified: &Map<String, Value>, meta: Meta, what: What) -> Result<Map<String, Value>, PatchError> {
    let mut patch = Map::new();
    for (key, after) in modified {
        match (original.get(key), after) {
            (Some(before), after) if before == after => {}
            (Some(Value::Object(before)), Value::Object(after)) => {
                let (inner, strategy) = meta.object(key)?;
                if strategy.replace {
                    if what.changes {
                        patch.insert(key.clone(), Value::Object(after.clone()));
                    }
                    continue;
                }
                let found = maps(before, after, inner, What { retain_keys: strategy.retain_keys, ..what })?;
                if !found.is_empty() {
                    patch.insert(key.clone(), Value::Object(found));
                }
            }
            (Some(Value::Array(before)), Value::Array(items)) => {
                let (inner, strategy) = meta.list(key)?;
                if strategy.merge {
                    let found = lists(before, items, inner, &strategy, What { retain_keys: strategy.retain_keys, ..what })?;
                    for (name, list) in [(key.clone(), found.patch), (format!("{DELETE_FROM_LIST}{key}"), found.deletions), (format!("{SET_ORDER}{key}"), found.order)] {
                        if !list.is_empty() {
                            patch.insert(name, Value::Array(list));
                        }
                    }
                } else if what.changes {
                    patch.insert(key.clone(), after.clone());
                }
            }
            _ if what.changes => {
                patch.insert(key.clone(), after.clone());
            }
            _ => {}
        }
    }
    if what.deletions {
        for key in original.keys().filter(|key| !modified.contains_key(*key)) {
            patch.insert(key.clone(), Value::Null);
        }
    }
    if what.retain_keys {
        let mut keys: Vec<Value> = modified.iter().filter(|(_, value)| !value.is_null()).map(|(key, _)| Value::String(key.clone())).collect();
        let cleared = original.iter().any(|(key, value)| !value.is_null() && !modified.contains_key(key));
        if !keys.is_empty() && (!patch.is_empty() || cleared) {
            keys.sort_by(compare);
            patch.insert(RETAIN_KEYS.to_owned(), Value::Array(keys));
        }
    }
    Ok(patch)
}

#[derive(Default)]
struct ListDiff {
    patch: Vec<Value>,
    deletions: Vec<Value>,
    order: Vec<Value>,
}

fn lists(original: &[Value], modified: &[Value], meta: Meta, strategy: &Strategy, what: What) -> Result<ListDiff, PatchError> {
    if original.is_empty() {
        let patch = if what.changes { modified.to_vec() } else { Vec::new() };
        return Ok(ListDiff { patch, ..ListDiff::default() });
    }
    if super::element_kind(&[original, modified])? == go_kind(&Value::Object(Map::new())) {
        lists_of_maps(original, modified, meta, strategy, what)
    } else {
        lists_of_values(original, modified, what)
    }
}

fn lists_of_values(original: &[Value], modified: &[Value], what: What) -> Result<ListDiff, PatchError> {
    let mut found = ListDiff::default();
    let without = |list: &[Value], other: &[Value]| -> Vec<Value> {
        let other: HashSet<&Value> = other.iter().collect();
        list.iter().filter(|item| !other.contains(item)).cloned().collect()
    };
    if what.changes {
        found.patch = order::arrange(without(modified, original), modified, &[], None)?;
    }
    if what.deletions {
        let mut gone = without(original, modified);
        gone.sort_by(compare);
        gone.dedup();
        found.deletions = gone;
    }
    if what.order && ((what.deletions && !found.deletions.is_empty()) || (what.changes && original != modified)) {
        found.order = modified.to_vec();
    }
    Ok(found)
}

fn lists_of_maps(original: &[Value], modified: &[Value], meta: Meta, strategy: &Strategy, what: What) -> Result<ListDiff, PatchError> {
    let key = strategy.key().ok_or_else(|| PatchError::Other(format!("cannot merge lists without merge key for {}", meta.name())))?;
    let item = |value: &'_ Value| -> Result<(Value, Map<String, Value>), PatchError> {
        let Value::Object(map) = value else { return Err(PatchError::wrong_type("map[string]interface {}", value)) };
        let name = map.get(key).ok_or_else(|| PatchError::no_merge_key(map, key))?;
        Ok((name.clone(), map.clone()))
    };
    let before: Vec<_> = original.iter().map(item).collect::<Result<_, _>>()?;
    let after: Vec<_> = modified.iter().map(item).collect::<Result<_, _>>()?;
    let mut found = ListDiff::default();
    for (name, map) in &after {
        match before.iter().find(|(candidate, _)| candidate == name) {
            Some((_, old)) => {
                let mut inner = maps(old, map, meta, what)?;
                if !inner.is_empty() {
                    inner.insert(key.to_owned(), name.clone());
                    found.patch.push(Value::Object(inner));
                }
            }
            None if what.changes => found.patch.push(Value::Object(map.clone())),
            None => {}
        }
    }
    if what.deletions {
        let mut gone: Vec<&Value> = before.iter().map(|(name, _)| name).filter(|name| after.iter().all(|(candidate, _)| candidate != *name)).collect();
        gone.sort_by(|a, b| compare(a, b));
        for name in gone {
            let mut map = Map::new();
            map.insert(key.to_owned(), name.clone());
            map.insert(DIRECTIVE.to_owned(), Value::from("delete"));
            found.patch.push(Value::Object(map));
        }
    }
    let same_order = before.len() == after.len() && before.iter().zip(&after).all(|(a, b)| a.0 == b.0);
    let changed = !found.patch.is_empty();
    if what.order && ((what.changes && (changed || !same_order)) || (what.deletions && changed)) {
        found.order = after.iter().map(|(name, _)| Value::Object(Map::from_iter([(key.to_owned(), name.clone())]))).collect();
    }
    Ok(found)
}

/// Upstream sorts plain values by how they print.
fn compare(a: &Value, b: &Value) -> Ordering {
    go_value(a).cmp(&go_value(b))
}

/// Whether two patches of one document set a field differently.
fn conflict(left: &Map<String, Value>, right: &Map<String, Value>, meta: Meta) -> Result<bool, PatchError> {
    for (key, left) in left.iter().filter(|(key, _)| *key != DIRECTIVE && *key != RETAIN_KEYS) {
        let Some(right) = right.get(key) else { continue };
        let differs = match (left, right) {
            (Value::Object(left), Value::Object(right)) => {
                if left.get(DIRECTIVE) != right.get(DIRECTIVE) {
                    true
                } else {
                    conflict(left, right, meta.object(key)?.0)?
                }
            }
            (Value::Array(left), Value::Array(right)) => {
                let (inner, strategy) = meta.list(key)?;
                match strategy.key() {
                    Some(key) if strategy.merge => list_conflict(left, right, key, inner)?,
                    _ if strategy.merge => false,
                    _ => left != right,
                }
            }
            _ => left != right,
        };
        if differs {
            return Ok(true);
        }
    }
    Ok(false)
}

fn list_conflict(left: &[Value], right: &[Value], key: &str, meta: Meta) -> Result<bool, PatchError> {
    for left in left {
        let Some(right) = right.iter().find(|right| right.get(key) == left.get(key)) else { continue };
        if left.get(DIRECTIVE) != right.get(DIRECTIVE) || conflict(object(left)?, object(right)?, meta)? {
            return Ok(true);
        }
    }
    Ok(false)
}
