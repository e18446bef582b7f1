//! JSON patch (RFC 6902), `application/json-patch+json`, as upstream's library (evanphx/json-patch v4) applies it.
//!
//! Clients count on where that differs from the RFC, and the crates follow the RFC, so this is our own: a key that an object lacks is null (`test` finds it so, kube-rs' finalizers
//! ask exactly that; `replace` sets it, `copy` copies it), indices below zero count from the end, what stands before a path's first slash is not looked at, and nothing can be added
//! in place of the whole document.

use serde_json::{Map, Value};

use crate::PatchError;

/// Upstream's limit.
const MOST_OPERATIONS: usize = 10_000;
/// What `copy` may add in all (`JSONPatchMaxCopyBytes`): a document copied into itself doubles each time.
const MOST_COPIED_BYTES: usize = 3 << 20;

/// Applies all operations or none.
pub fn json(doc: &mut Value, ops: &Value) -> Result<(), PatchError> {
    let Value::Array(list) = ops else {
        return Err(PatchError::Decode(format!("json: cannot unmarshal {} into Go value of type jsonpatch.Patch", kind(ops))));
    };
    if list.len() > MOST_OPERATIONS {
        return Err(PatchError::TooManyOperations { most: MOST_OPERATIONS, got: list.len() });
    }
    if let Some(other) = list.iter().find(|operation| !matches!(operation, Value::Object(_) | Value::Null)) {
        return Err(PatchError::Decode(format!("json: cannot unmarshal {} into Go value of type jsonpatch.Operation", kind(other))));
    }
    let mut patched = doc.clone();
    let (empty, mut copied) = (Map::new(), 0);
    for operation in list {
        apply(&mut patched, operation.as_object().unwrap_or(&empty), &mut copied).map_err(PatchError::Operation)?;
    }
    *doc = patched;
    Ok(())
}

fn apply(doc: &mut Value, operation: &Map<String, Value>, copied: &mut usize) -> Result<(), String> {
    let field = |name: &str| operation.get(name).and_then(Value::as_str);
    let op = field("op").unwrap_or("unknown");
    let path = || field("path").ok_or_else(|| format!("{op} operation failed to decode path: missing value"));
    let from = || field("from").ok_or_else(|| format!("{op} operation failed to decode from: missing value"));
    let value = || operation.get("value").cloned().unwrap_or_default();
    match op {
        "add" => Place::find(doc, op, path()?)?.add(value()),
        "remove" => Place::find(doc, op, path()?)?.remove().map(drop),
        "replace" if path()?.is_empty() => match value() {
            whole @ (Value::Object(_) | Value::Array(_)) => {
                *doc = whole;
                Ok(())
            }
            _ => Err("replace operation value must be object or array".to_owned()),
        },
        "replace" => Place::find(doc, op, path()?)?.replace(value()),
        "move" => {
            let moved = Place::find(doc, op, from()?)?.remove()?;
            Place::find(doc, op, path()?)?.add(moved)
        }
        "copy" => {
            let copy = Place::find(doc, op, from()?)?.get()?;
            let place = Place::find(doc, op, path()?)?;
            *copied += if copy.is_null() { 0 } else { copy.to_string().len() };
            if *copied > MOST_COPIED_BYTES {
                return Err(format!("Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit {MOST_COPIED_BYTES}"));
            }
            place.add(copy)
        }
        "test" => {
            let path = path()?;
            let found = if path.is_empty() { doc.clone() } else { Place::find(doc, op, path)?.get()? };
            // Without a value nothing but null is found.
            if found == value() { Ok(()) } else { Err(format!("testing value {path} failed: test failed")) }
        }
        other => Err(format!("Unexpected kind: {other}")),
    }
}

/// Where a path's last segment points: into something that is there.
struct Place<'a> {
    parent: &'a mut Value,
    key: String,
}

impl<'a> Place<'a> {
    fn find(doc: &'a mut Value, op: &str, path: &str) -> Result<Self, String> {
        let missing = || format!("{op} operation does not apply: doc is missing path: {path:?}: missing value");
        let (_, below) = path.split_once('/').ok_or_else(missing)?;
        let (parents, key) = below.rsplit_once('/').map_or(("", below), |(parents, key)| (parents, key));
        let mut parent = doc;
        if below.contains('/') {
            for segment in parents.split('/') {
                let key = unescaped(segment);
                parent = match parent {
                    Value::Object(map) => map.get_mut(&key),
                    Value::Array(list) => index(&key, list.len()).ok().and_then(|at| list.get_mut(at)),
                    _ => None,
                }
                .ok_or_else(missing)?;
            }
        }
        if !matches!(parent, Value::Object(_) | Value::Array(_)) {
            return Err(missing());
        }
        Ok(Self { parent, key: unescaped(key) })
    }

    /// What is there; null where an object has nothing.
    fn get(&self) -> Result<Value, String> {
        match &*self.parent {
            Value::Array(list) => Ok(list[within(&self.key, list.len())?].clone()),
            parent => Ok(parent.get(&self.key).cloned().unwrap_or_default()),
        }
    }

    fn add(self, value: Value) -> Result<(), String> {
        match self.parent {
            Value::Array(list) if self.key == "-" => list.push(value),
            Value::Array(list) => {
                let at = within(&self.key, list.len() + 1)?;
                list.insert(at, value);
            }
            parent => parent[self.key.as_str()] = value,
        }
        Ok(())
    }

    fn replace(self, value: Value) -> Result<(), String> {
        match self.parent {
            Value::Array(list) => {
                let at = within(&self.key, list.len())?;
                list[at] = value;
            }
            parent => parent[self.key.as_str()] = value,
        }
        Ok(())
    }

    fn remove(self) -> Result<Value, String> {
        match self.parent {
            Value::Array(list) => {
                let at = within(&self.key, list.len())?;
                Ok(list.remove(at))
            }
            Value::Object(map) => map.remove(&self.key).ok_or_else(|| format!("Unable to remove nonexistent key: {}: missing value", self.key)),
            _ => Err("missing value".to_owned()),
        }
    }
}

/// An index as Go's `Atoi` reads it; below zero it counts from the end.
fn index(key: &str, length: usize) -> Result<usize, String> {
    let number: i64 = key.parse().map_err(|_| format!("value was not a proper array index: '{key}'"))?;
    let at = if number < 0 { number + length as i64 } else { number };
    usize::try_from(at).map_err(|_| format!("Unable to access invalid index: {number}: invalid index referenced"))
}

/// The same, of something that is there.
fn within(key: &str, length: usize) -> Result<usize, String> {
    Some(index(key, length)?).filter(|at| *at < length).ok_or_else(|| format!("Unable to access invalid index: {key}: invalid index referenced"))
}

fn unescaped(segment: &str) -> String {
    segment.replace("~1", "/").replace("~0", "~")
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Object(_) => "object",
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        _ => "null",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json as value;

    use super::*;

    #[test]
    fn applies_all_or_nothing() {
        for (ops, wanted) in [
            (value!([{"op": "add", "path": "/metadata/labels/a~1b", "value": "x"}]), Some(value!({"metadata": {"labels": {"a": "1", "a/b": "x"}}}))),
            (value!([{"op": "replace", "path": "/metadata/labels/a", "value": "2"}]), Some(value!({"metadata": {"labels": {"a": "2"}}}))),
            (value!([{"op": "test", "path": "/metadata/labels/a", "value": "1"}, {"op": "remove", "path": "/metadata/labels/a"}]), Some(value!({"metadata": {"labels": {}}}))),
            (value!([{"op": "remove", "path": "/metadata/labels/a"}, {"op": "test", "path": "/metadata", "value": 1}]), None),
            (value!([{"op": "remove", "path": "/nothing"}]), None),
            // The move takes before it cannot put.
            (value!([{"op": "move", "from": "/metadata", "path": "/kind/x"}]), None),
            // Each pair more than doubles the document.
            (value!((0..60).map(|number| value!({"op": "copy", "from": "", "path": if number % 2 == 0 { "/a" } else { "/b" }})).collect::<Vec<_>>()), None),
        ] {
            let before = value!({"metadata": {"labels": {"a": "1"}}});
            let mut doc = before.clone();
            let result = json(&mut doc, &ops);
            match wanted {
                Some(wanted) => assert_eq!(doc, wanted),
                None => {
                    assert_eq!(result.unwrap_err().status().message, "the server rejected our request due to an error in our request");
                    assert_eq!(doc, before);
                }
            }
        }
    }

    #[test]
    fn differs_from_the_rfc_where_upstream_does() {
        let before = || value!({"m": {"a": 1}, "l": [1, 2], "n": null});
        for (op, wanted) in [
            (value!({"op": "test", "path": "/m/finalizers", "value": null}), Some(before())),
            (value!({"op": "test", "path": "/n"}), Some(before())),
            (value!({"op": "test", "path": "/m/a", "value": null}), None),
            (value!({"op": "test", "path": "/m/a"}), None),
            (value!({"op": "test", "path": "/none/a", "value": null}), None),
            (value!({"op": "replace", "path": "/m/b", "value": 2}), Some(value!({"m": {"a": 1, "b": 2}, "l": [1, 2], "n": null}))),
            (value!({"op": "replace", "path": "/n/b", "value": 2}), None),
            (value!({"op": "replace", "path": "", "value": {"x": 1}}), Some(value!({"x": 1}))),
            (value!({"op": "replace", "path": "", "value": 1}), None),
            (value!({"op": "replace", "path": "/l/-1", "value": 9}), Some(value!({"m": {"a": 1}, "l": [1, 9], "n": null}))),
            (value!({"op": "replace", "path": "/l/2", "value": 9}), None),
            (value!({"op": "remove", "path": "/l/-2"}), Some(value!({"m": {"a": 1}, "l": [2], "n": null}))),
            (value!({"op": "remove", "path": "/l/-3"}), None),
            (value!({"op": "add", "path": "/l/-1", "value": 3}), Some(value!({"m": {"a": 1}, "l": [1, 2, 3], "n": null}))),
            (value!({"op": "add", "path": "/l/-", "value": 3}), Some(value!({"m": {"a": 1}, "l": [1, 2, 3], "n": null}))),
            (value!({"op": "add", "path": "/l/3", "value": 3}), None),
            (value!({"op": "add", "path": "/l/x", "value": 3}), None),
            (value!({"op": "add", "path": "/m/b"}), Some(value!({"m": {"a": 1, "b": null}, "l": [1, 2], "n": null}))),
            (value!({"op": "add", "path": "", "value": {}}), None),
            (value!({"op": "add", "path": "ignored/m/b", "value": 2}), Some(value!({"m": {"a": 1, "b": 2}, "l": [1, 2], "n": null}))),
            (value!({"op": "add", "path": "m", "value": 2}), None),
            (value!({"op": "add", "path": "/m/~01~1", "value": 2}), Some(value!({"m": {"a": 1, "~1/": 2}, "l": [1, 2], "n": null}))),
            (value!({"op": "copy", "from": "/m/none", "path": "/m/b"}), Some(value!({"m": {"a": 1, "b": null}, "l": [1, 2], "n": null}))),
            (value!({"op": "copy", "from": "/l/0", "path": "/l/0"}), Some(value!({"m": {"a": 1}, "l": [1, 1, 2], "n": null}))),
            (value!({"op": "move", "from": "/m/a", "path": "/l/1"}), Some(value!({"m": {}, "l": [1, 1, 2], "n": null}))),
            (value!({"op": "move", "from": "/m/none", "path": "/l/1"}), None),
            (value!({"op": "grow", "path": "/m"}), None),
            (value!({"op": "remove"}), None),
            (value!(null), None),
        ] {
            let mut doc = before();
            match (json(&mut doc, &value!([op])), wanted) {
                (Ok(()), Some(wanted)) => assert_eq!(doc, wanted, "{op}"),
                (Err(error), None) => assert_eq!((error.status().code, doc), (422, before()), "{op}"),
                (outcome, wanted) => panic!("{op}: {outcome:?}, wanted {wanted:?}"),
            }
        }
    }

    #[test]
    fn says_what_it_cannot_decode() {
        let error = json(&mut value!({}), &value!({"a": 1})).unwrap_err();
        assert_eq!(error.status().code, 400);
        assert_eq!(error.to_string(), "error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch");
        let many = Value::Array(vec![value!({}); MOST_OPERATIONS + 1]);
        assert_eq!(json(&mut value!({}), &many).unwrap_err().status().code, 413);
    }
}
