//! JSON merge patch (RFC 7386), `application/merge-patch+json`, and the making of such patches for kinds without schema facts (CRDs).
//!
//! Mirrors apimachinery's `jsonmergepatch`.

use serde_json::{Map, Value};

use crate::PatchError;

pub fn merge(doc: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *doc = patch.clone();
        return;
    };
    if !doc.is_object() {
        *doc = Value::Object(Map::new());
    }
    let Value::Object(doc) = doc else { return };
    for (key, value) in patch {
        if value.is_null() {
            doc.remove(key);
        } else {
            merge(doc.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// The merge patch that turns `original` into `modified`.
pub fn merge_diff(original: &Value, modified: &Value) -> Value {
    match (original, modified) {
        (Value::Object(original), Value::Object(modified)) => Value::Object(diff(original, modified)),
        _ => modified.clone(),
    }
}

fn diff(original: &Map<String, Value>, modified: &Map<String, Value>) -> Map<String, Value> {
    let mut patch = Map::new();
    for (key, value) in modified {
        match (original.get(key), value) {
            (Some(before), after) if before == after => {}
            (Some(Value::Object(before)), Value::Object(after)) => {
                let inner = diff(before, after);
                if !inner.is_empty() {
                    patch.insert(key.clone(), Value::Object(inner));
                }
            }
            _ => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    for key in original.keys().filter(|key| !modified.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    patch
}

/// For `kubectl apply` on kinds without schema: additions and changes from `current` to `modified`, deletions from `original` to `modified`.
pub fn three_way_merge(original: &Value, modified: &Value, current: &Value) -> Result<Value, PatchError> {
    let mut changes = merge_diff(current, modified);
    keep(&mut changes, false);
    let mut deletions = merge_diff(original, modified);
    keep(&mut deletions, true);
    // Not `merge`: the nulls of the deletions must survive.
    overlay(&mut deletions, changes);
    Ok(deletions)
}

/// Keeps only nulls, or only the rest.
fn keep(patch: &mut Value, nulls: bool) {
    let Value::Object(map) = patch else { return };
    map.retain(|_, value| match value {
        Value::Null => nulls,
        Value::Object(inner) if nulls || !inner.is_empty() => {
            keep(value, nulls);
            value.as_object().is_some_and(|inner| !inner.is_empty())
        }
        _ => !nulls,
    });
}

fn overlay(below: &mut Value, above: Value) {
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => {
            for (key, value) in above {
                match below.get_mut(&key) {
                    Some(inner) => overlay(inner, value),
                    None => {
                        below.insert(key, value);
                    }
                }
            }
        }
        (below, above) => *below = above,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merges_as_the_rfc_says() {
        for (doc, patch, wanted) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
            (json!([1]), json!({"a": 1}), json!({"a": 1})),
        ] {
            let mut doc = doc;
            merge(&mut doc, &patch);
            assert_eq!(doc, wanted);
        }
    }

    #[test]
    fn a_diff_leads_there() {
        let (from, to) = (json!({"a": 1, "b": {"c": 1, "d": [1]}, "e": {}}), json!({"b": {"c": 2, "d": [2]}, "e": {}, "f": {"g": 1}}));
        let patch = merge_diff(&from, &to);
        assert_eq!(patch, json!({"a": null, "b": {"c": 2, "d": [2]}, "f": {"g": 1}}));
        let mut doc = from;
        merge(&mut doc, &patch);
        assert_eq!(doc, to);
    }

    #[test]
    fn three_ways_keep_what_others_wrote() {
        let (original, modified) = (json!({"a": 1, "gone": {"x": 1, "y": 1}}), json!({"a": 2, "gone": {"y": 1}}));
        let current = json!({"a": 1, "gone": {"x": 1, "y": 1, "theirs": 1}, "theirs": 1});
        let patch = three_way_merge(&original, &modified, &current).unwrap();
        assert_eq!(patch, json!({"a": 2, "gone": {"x": null}}));
    }
}
