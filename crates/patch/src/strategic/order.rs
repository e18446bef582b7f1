//! The order of a merged list: what the patch names in the patch's order, what only the server has in the server's, interleaved by the server's.

use std::collections::HashMap;

use serde_json::Value;

use super::{DIRECTIVE, SET_ORDER};
use crate::PatchError;
use crate::error::go_value;

/// What tells items apart: the merge key's value, or the item itself in lists of plain values.
fn identity<'a>(item: &'a Value, key: Option<&str>) -> Result<&'a Value, PatchError> {
    let Some(key) = key else { return Ok(item) };
    let Value::Object(map) = item else { return Err(PatchError::wrong_type("map[string]interface {}", item)) };
    map.get(key).ok_or_else(|| PatchError::no_merge_key(map, key))
}

/// Where each item stands first. By hash: lists are as long as a request may be.
fn places<'a>(items: &'a [Value], key: Option<&str>) -> Result<HashMap<&'a Value, usize>, PatchError> {
    let mut places = HashMap::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        places.entry(identity(item, key)?).or_insert(at);
    }
    Ok(places)
}

/// `wanted` is the order the patch asks for, `live` the list as it was.
pub(super) fn arrange(merged: Vec<Value>, wanted: &[Value], live: &[Value], key: Option<&str>) -> Result<Vec<Value>, PatchError> {
    let (wanted, live) = (places(wanted, key)?, places(live, key)?);
    let place = |list: &HashMap<&Value, usize>, item: &Value| -> Result<Option<usize>, PatchError> { Ok(list.get(identity(item, key)?).copied()) };
    let (mut patched, mut server_only) = (Vec::new(), Vec::new());
    for item in merged {
        match place(&wanted, &item)? {
            Some(at) => patched.push((at, item)),
            None => server_only.push((place(&live, &item)?.unwrap_or(usize::MAX), item)),
        }
    }
    patched.sort_by_key(|(at, _)| *at);
    server_only.sort_by_key(|(at, _)| *at);

    let mut result = Vec::with_capacity(patched.len() + server_only.len());
    let mut left = server_only.into_iter().peekable();
    for (_, item) in patched {
        if let Some(here) = place(&live, &item)? {
            while let Some((_, before)) = left.next_if(|(at, _)| *at < here) {
                result.push(before);
            }
        }
        result.push(item);
    }
    result.extend(left.map(|(_, item)| item));
    Ok(result)
}

/// The patch's items must stand in the order that `$setElementOrder` names, and must be named there.
pub(super) fn validate(patch: &[Value], order: &[Value], key: Option<&str>) -> Result<(), PatchError> {
    if order.is_empty() {
        return Ok(());
    }
    let mut places = order.iter();
    for item in patch.iter().filter(|item| item.get(DIRECTIVE).is_none()) {
        let wanted = identity(item, key)?;
        let mut found = false;
        for candidate in places.by_ref() {
            if identity(candidate, key)? == wanted {
                found = true;
                break;
            }
        }
        if !found {
            let print = |list: &[Value]| go_value(&Value::Array(list.to_vec()));
            let directive = SET_ORDER.trim_end_matches('/');
            return Err(PatchError::Other(format!("The order in patch list:\n{}\n doesn't match {directive} list:\n{}\n", print(patch), print(order))));
        }
    }
    Ok(())
}
