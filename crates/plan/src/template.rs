//! Pod templates: when two are the same, and the hash in names and labels.
//!
//! Upstream hashes Go's dump of the structure, which nobody else can reproduce; ours is FNV-1a over the canonical JSON, written in the same alphabet and
//! of the same length, so names look alike and stay stable.

use api::k8s::api::core::v1::PodTemplateSpec;
use serde_json::Value;

use crate::op::value;

pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// The same but for the hash label, absent and empty being one.
pub fn same(one: &PodTemplateSpec, other: &PodTemplateSpec) -> bool {
    one == other || canonical(one) == canonical(other)
}

/// `pod-template-hash` of a template; `collisions` makes another one of the same.
pub fn hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let mut hash = fnv(0x811c_9dc5, canonical(template).to_string().as_bytes());
    if let Some(collisions) = collisions {
        hash = fnv(hash, &collisions.to_le_bytes());
    }
    api::names::safe_encode(&hash.to_string())
}

/// FNV-1a, 32 bits.
pub fn fnv(start: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(start, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

fn canonical(template: &PodTemplateSpec) -> Value {
    let mut json = value(template);
    if let Some(labels) = json.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(POD_TEMPLATE_HASH);
    }
    pruned(json).unwrap_or(Value::Null)
}

/// Without nulls and empty lists and maps.
pub(crate) fn pruned(json: Value) -> Option<Value> {
    match json {
        Value::Null => None,
        Value::Object(map) => {
            // An empty map can mean something (`emptyDir: {}`): only what becomes empty by leaving out nulls goes, and known optional ones.
            let was_empty = map.is_empty();
            let map: serde_json::Map<_, _> = map
                .into_iter()
                .filter_map(|(key, value)| {
                    let optional = matches!(key.as_str(), "resources" | "securityContext" | "labels" | "annotations" | "metadata" | "nodeSelector");
                    let value = pruned(value)?;
                    (!(optional && value.as_object().is_some_and(serde_json::Map::is_empty))).then_some((key, value))
                })
                .collect();
            (was_empty || !map.is_empty()).then_some(Value::Object(map))
        }
        Value::Array(items) => {
            let items: Vec<Value> = items.into_iter().map(|item| pruned(item).unwrap_or(Value::Null)).collect();
            (!items.is_empty()).then_some(Value::Array(items))
        }
        other => Some(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(json: Value) -> PodTemplateSpec {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn absent_and_empty_are_the_same_but_empty_volumes_count() {
        let plain = template(serde_json::json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}));
        let padded = template(serde_json::json!({
            "metadata": {"labels": {"a": "b", "pod-template-hash": "x"}},
            "spec": {"containers": [{"name": "c", "image": "i", "resources": {}, "env": []}], "securityContext": {}, "tolerations": []},
        }));
        let volume = template(serde_json::json!({
            "metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}], "volumes": [{"name": "v", "emptyDir": {}}]},
        }));
        assert!(same(&plain, &padded));
        assert_eq!(hash(&plain, None), hash(&padded, None));
        assert!(!same(&plain, &volume));
        assert_ne!(hash(&plain, None), hash(&plain, Some(1)));
        assert!(hash(&plain, None).bytes().all(|byte| b"bcdfghjklmnpqrstvwxz2456789".contains(&byte)));
    }
}
