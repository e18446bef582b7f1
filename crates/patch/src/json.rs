//! JSON patch (RFC 6902), `application/json-patch+json`.

use serde_json::Value;

use crate::PatchError;

/// Upstream's limit.
const MOST_OPERATIONS: usize = 10_000;
/// What `copy` may add in all (`JSONPatchMaxCopyBytes`): a document copied into itself doubles each time.
const MOST_COPIED_BYTES: usize = 3 << 20;

/// Applies all operations or none.
pub fn json(doc: &mut Value, ops: &Value) -> Result<(), PatchError> {
    if let Value::Array(list) = ops
        && list.len() > MOST_OPERATIONS
    {
        return Err(PatchError::TooManyOperations { most: MOST_OPERATIONS, got: list.len() });
    }
    if !ops.is_array() {
        return Err(PatchError::Decode(format!("json: cannot unmarshal {} into Go value of type jsonpatch.Patch", kind(ops))));
    }
    let patch: json_patch::Patch = serde_json::from_value(ops.clone()).map_err(|error| PatchError::Decode(error.to_string()))?;
    // On a copy: the library's own way back from the middle of a patch panics when an operation has half happened.
    let mut patched = doc.clone();
    let mut copied = 0;
    for operation in patch.iter() {
        if let json_patch::PatchOperation::Copy(copy) = operation {
            copied += patched.pointer(copy.from.as_str()).map_or(0, |value| value.to_string().len());
            if copied > MOST_COPIED_BYTES {
                return Err(PatchError::Operation(format!("Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit {MOST_COPIED_BYTES}")));
            }
        }
        json_patch::patch_unsafe(&mut patched, std::slice::from_ref(operation)).map_err(|error| PatchError::Operation(error.to_string()))?;
    }
    *doc = patched;
    Ok(())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Object(_) => "object",
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
    fn says_what_it_cannot_decode() {
        let error = json(&mut value!({}), &value!({"a": 1})).unwrap_err();
        assert_eq!(error.status().code, 400);
        assert_eq!(error.to_string(), "error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch");
        let many = Value::Array(vec![value!({}); MOST_OPERATIONS + 1]);
        assert_eq!(json(&mut value!({}), &many).unwrap_err().status().code, 413);
    }
}
