//! Strategic merge patch: lists merge by key, and directives say what a plain document cannot.
//!
//! Mirrors apimachinery's `strategicpatch`: `$patch` (replace, delete, merge), `$retainKeys`, `$setElementOrder/<list>`, `$deleteFromPrimitiveList/<list>`.
//! Which list merges by which key is in the schema facts (`patch_strategy`, `patch_merge_key`).

mod diff;
mod meta;
mod order;

use std::collections::{HashMap, HashSet};

use api::go::json_word;
use api::schema::TypeInfo;
use serde_json::{Map, Value};

use crate::PatchError;
use crate::error::{go_kind, go_map, go_value};
use meta::{Meta, Strategy};
pub use diff::{three_way, two_way};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

/// How a patch is merged: into a document, or into another patch (where directives and nulls must survive).
#[derive(Clone, Copy)]
struct Mode {
    into_document: bool,
}

/// Applies `patch` to `doc`. Without schema facts objects merge and lists are replaced. On error `doc` is as it was.
pub fn strategic(doc: &mut Value, patch: &Value, schema: Option<&'static TypeInfo>) -> Result<(), PatchError> {
    let Value::Object(patch) = patch else { return Err(PatchError::NotAnObject(json_word(patch))) };
    let Value::Object(current) = &*doc else { return Err(PatchError::NotAnObject(json_word(doc))) };
    let mut merged = current.clone();
    merge_map(&mut merged, patch.clone(), Meta::of(schema), Mode { into_document: true })?;
    *doc = Value::Object(merged);
    Ok(())
}

fn merge_map(original: &mut Map<String, Value>, mut patch: Map<String, Value>, meta: Meta, mode: Mode) -> Result<(), PatchError> {
    if let Some(directive) = patch.get(DIRECTIVE) {
        match directive.as_str() {
            Some("replace") => {
                patch.remove(DIRECTIVE);
                *original = patch;
            }
            Some("delete") => original.clear(),
            _ => return Err(PatchError::UnknownDirective { directive: go_value(directive), item: go_map(&patch) }),
        }
        return Ok(());
    }
    retain_keys(original, &mut patch, mode)?;
    merge_ordered_lists(original, &mut patch, meta, mode)?;
    for (key, value) in patch {
        merge_field(original, key, value, meta, mode)?;
    }
    Ok(())
}

fn merge_field(original: &mut Map<String, Value>, key: String, mut patch: Value, meta: Meta, mode: Mode) -> Result<(), PatchError> {
    let mut key = key;
    let deletion = key.starts_with(DELETE_FROM_LIST.trim_end_matches('/'));
    if deletion {
        if !mode.into_document {
            original.insert(key, patch);
            return Ok(());
        }
        key = key.strip_prefix(DELETE_FROM_LIST).ok_or(PatchError::PrimitiveList)?.to_owned();
    }
    if patch.is_null() {
        original.remove(&key);
        if mode.into_document {
            return Ok(());
        }
    }
    let same_kind = original.get(&key).map(|current| go_kind(current) == go_kind(&patch));
    if same_kind != Some(true) {
        if deletion {
            return Ok(());
        }
        if mode.into_document {
            drop_nulls(&mut patch);
        }
        set(original, key, patch);
        return Ok(());
    }
    match (original.get_mut(&key), patch) {
        (Some(Value::Object(current)), Value::Object(patch)) => {
            let (inner, strategy) = meta.object(&key)?;
            if strategy.replace {
                *current = patch;
                Ok(())
            } else {
                merge_map(current, patch, inner, mode)
            }
        }
        (Some(Value::Array(current)), Value::Array(patch)) => {
            let (inner, strategy) = meta.list(&key)?;
            if strategy.merge || deletion {
                *current = merge_list(std::mem::take(current), patch, inner, &strategy, deletion, mode)?;
            } else {
                *current = patch;
            }
            Ok(())
        }
        (_, patch) => {
            set(original, key, patch);
            Ok(())
        }
    }
}

/// Sets a value with the directives in it carried out (there is nothing to delete or to replace).
fn set(original: &mut Map<String, Value>, key: String, mut value: Value) {
    if drop_directives(&mut value) {
        original.insert(key, value);
    } else {
        original.remove(&key);
    }
}

/// False when the value itself is a directive and goes away.
fn drop_directives(value: &mut Value) -> bool {
    match value {
        Value::Object(map) => {
            if map.contains_key(DIRECTIVE) {
                return false;
            }
            map.retain(|_, inner| drop_directives(inner));
        }
        Value::Array(items) => items.retain_mut(drop_directives),
        _ => {}
    }
    true
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => map.retain(|_, inner| {
            drop_nulls(inner);
            !inner.is_null()
        }),
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// `$retainKeys`: whatever is not named goes; what the patch sets must be named.
fn retain_keys(original: &mut Map<String, Value>, patch: &mut Map<String, Value>, mode: Mode) -> Result<(), PatchError> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    if !mode.into_document {
        match original.get(RETAIN_KEYS) {
            Some(known) if *known != keys => {
                return Err(PatchError::Other(format!(
                    "{} and {} are not deep equal: this may happen when calculating the 3-way diff patch",
                    go_value(known),
                    go_value(&keys)
                )));
            }
            _ => {
                original.insert(RETAIN_KEYS.to_owned(), keys);
            }
        }
        return Ok(());
    }
    let Value::Array(keys) = keys else { return Err(PatchError::RetainKeys) };
    let named = |key: &str| keys.iter().any(|named| named == key);
    for (key, value) in patch.iter() {
        if !value.is_null() && !key.starts_with(DELETE_FROM_LIST) && !key.starts_with(SET_ORDER) && !named(key) {
            return Err(PatchError::RetainKeys);
        }
    }
    original.retain(|key, _| named(key));
    Ok(())
}

/// Lists with a `$setElementOrder`: merged here, so that the order can be laid over the result; the directive and the list leave the patch.
fn merge_ordered_lists(original: &mut Map<String, Value>, patch: &mut Map<String, Value>, meta: Meta, mode: Mode) -> Result<(), PatchError> {
    let directives: Vec<String> = patch.keys().filter(|key| key.starts_with(SET_ORDER.trim_end_matches('/'))).cloned().collect();
    for directive in directives {
        let Some(order) = patch.remove(&directive) else { continue };
        if !mode.into_document {
            match original.get(&directive) {
                Some(known) if *known != order => return Err(PatchError::SetElementOrder),
                _ => {
                    original.insert(directive.clone(), order.clone());
                }
            }
        }
        let Value::Array(order) = order else { return Err(PatchError::wrong_type("[]interface {}", &order)) };
        let key = directive.strip_prefix(SET_ORDER).ok_or(PatchError::SetElementOrder)?.to_owned();
        let list = |value: Option<&Value>| match value {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items.clone())),
            Some(other) => Err(PatchError::wrong_type("[]interface {}", other)),
        };
        let (live, wanted) = (list(original.get(&key))?, list(patch.get(&key))?);
        let (inner, strategy) = meta.list(&key)?;
        order::validate(wanted.as_deref().unwrap_or(&[]), &order, strategy.key())?;
        let merged = match (&live, &wanted) {
            (None, None) => continue,
            (Some(live), None) => live.clone(),
            (None, Some(wanted)) => {
                let mut wanted = Value::Array(wanted.clone());
                drop_directives(&mut wanted);
                wanted.as_array().cloned().unwrap_or_default()
            }
            (Some(live), Some(wanted)) if strategy.merge => merge_list(live.clone(), wanted.clone(), inner, &strategy, false, mode)?,
            (Some(_), Some(wanted)) => wanted.clone(),
        };
        let live = live.unwrap_or_default();
        element_kind(&[&live, wanted.as_deref().unwrap_or(&[])])?;
        let sorted = order::arrange(merged, &order, &live, strategy.key())?;
        original.insert(key.clone(), Value::Array(sorted));
        patch.remove(&key);
    }
    Ok(())
}

fn merge_list(original: Vec<Value>, patch: Vec<Value>, meta: Meta, strategy: &Strategy, deletion: bool, mode: Mode) -> Result<Vec<Value>, PatchError> {
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    let of_maps = element_kind(&[&original, &patch])? == go_kind(&Value::Object(Map::new()));
    if !of_maps {
        if mode.into_document && deletion {
            let gone: HashSet<&Value> = patch.iter().collect();
            return Ok(original.into_iter().filter(|item| !gone.contains(item)).collect());
        }
        let mut seen = HashSet::with_capacity(original.len() + patch.len());
        let merged = original.iter().chain(&patch).filter(|item| seen.insert(*item)).cloned().collect();
        return order::arrange(merged, &patch, &original, None);
    }
    let Some(key) = strategy.key() else {
        return Err(PatchError::Other(format!("cannot merge lists without merge key for {}", meta.name())));
    };
    let (mut merged, patch) = special_elements(original, patch, key)?;
    let live = merged.clone();
    let mut places: HashMap<&Value, usize> = HashMap::with_capacity(live.len() + patch.len());
    for (at, item) in live.iter().enumerate() {
        if let Some(value) = item.get(key) {
            places.entry(value).or_insert(at);
        }
    }
    for item in &patch {
        let Value::Object(item) = item else { return Err(PatchError::wrong_type("map[string]interface {}", item)) };
        let wanted = item.get(key).ok_or_else(|| PatchError::no_merge_key(item, key))?;
        match places.get(wanted).and_then(|at| merged.get_mut(*at)) {
            Some(Value::Object(current)) => merge_map(current, item.clone(), meta, mode)?,
            Some(other) => return Err(PatchError::wrong_type("map[string]interface {}", other)),
            None => {
                places.insert(wanted, merged.len());
                merged.push(Value::Object(item.clone()));
            }
        }
    }
    order::arrange(merged, &patch, &live, Some(key))
}

/// Carries out `$patch: delete` and `$patch: replace` among a list's items; gives the list and the plain items left to merge.
fn special_elements(mut original: Vec<Value>, patch: Vec<Value>, key: &str) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut plain = Vec::with_capacity(patch.len());
    let mut replace = false;
    let mut gone = HashSet::new();
    for item in patch {
        let Value::Object(map) = &item else { return Err(PatchError::wrong_type("map[string]interface {}", &item)) };
        match map.get(DIRECTIVE) {
            None => plain.push(item),
            Some(Value::String(directive)) if directive == "delete" => {
                let wanted = map.get(key).ok_or_else(|| PatchError::no_merge_key(map, key))?;
                gone.insert(wanted.clone());
            }
            Some(Value::String(directive)) if directive == "replace" => replace = true,
            Some(Value::String(directive)) if directive == "merge" => {
                return Err(PatchError::Other("merging lists cannot yet be specified in the patch".into()));
            }
            Some(other) => return Err(PatchError::UnknownDirective { directive: go_value(other), item: go_map(map) }),
        }
    }
    if !gone.is_empty() {
        original.retain(|candidate| candidate.get(key).is_none_or(|value| !gone.contains(value)));
    }
    if replace { Ok((plain, Vec::new())) } else { Ok((original, plain)) }
}

/// The one kind all items have.
fn element_kind(lists: &[&[Value]]) -> Result<&'static str, PatchError> {
    let mut kind = None;
    for item in lists.iter().flat_map(|list| list.iter()) {
        if item.is_array() {
            return Err(PatchError::ListOfLists);
        }
        let this = go_kind(item);
        if *kind.get_or_insert(this) != this {
            let lists: Vec<String> = lists.iter().map(|list| format!("[{}]", list.iter().map(go_value).collect::<Vec<_>>().join(" "))).collect();
            return Err(PatchError::Other(format!("list element types are not identical: [{}]", lists.join(" "))));
        }
    }
    kind.ok_or_else(|| PatchError::Other("no elements in any of the given slices".into()))
}

#[cfg(test)]
mod tests;
