//! The smallest strategic merge patch that turns one pod status into another: pure.
//!
//! Lists of container statuses are replaced whole (they are atomic), conditions go one by one by type, so that those of others are left alone.

use api::k8s::api::core::v1::PodStatus;
use serde_json::{Map, Value, json};

fn fields(status: &PodStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// `None` when nothing differs.
pub fn between(old: &PodStatus, new: &PodStatus, uid: &str) -> Option<Value> {
    let (old, new) = (fields(old), fields(new));
    let mut status = Map::new();
    for (key, value) in &new {
        if old.get(key) == Some(value) {
            continue;
        }
        let changed = match key.as_str() {
            "conditions" => conditions(old.get(key), value),
            "podIPs" | "hostIPs" if old.get(key).is_some() => {
                let mut list = value.as_array().cloned().unwrap_or_default();
                list.insert(0, json!({"$patch": "replace"}));
                Some(Value::Array(list))
            }
            _ => Some(value.clone()),
        };
        if let Some(changed) = changed {
            status.insert(key.clone(), changed);
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        status.insert(key.clone(), Value::Null);
    }
    // The generation seen is news only together with something else, or when it grew.
    (!status.is_empty()).then(|| json!({"metadata": {"uid": uid}, "status": status}))
}

fn conditions(old: Option<&Value>, new: &Value) -> Option<Value> {
    let old = old.and_then(Value::as_array).cloned().unwrap_or_default();
    let mut changed = Vec::new();
    for condition in new.as_array().into_iter().flatten() {
        let before = old.iter().find(|c| c["type"] == condition["type"]);
        // An explicit null says "no longer", where leaving it out would keep the old one.
        let mut wanted = condition.clone();
        if let (Some(before), Some(map)) = (before, wanted.as_object_mut()) {
            let strip = |value: &Value| {
                let mut value = value.clone();
                if let Some(map) = value.as_object_mut() {
                    map.retain(|_, v| !v.is_null());
                }
                value
            };
            if strip(before) == strip(condition) {
                continue;
            }
            for key in ["reason", "message"] {
                if before.get(key).is_some_and(|v| !v.is_null()) && !map.contains_key(key) {
                    map.insert(key.to_owned(), Value::Null);
                }
            }
        }
        changed.push(wanted);
    }
    let stays = |kind: &Value| new.as_array().into_iter().flatten().any(|c| c["type"] == *kind);
    changed.extend(old.iter().map(|c| &c["type"]).filter(|kind| !stays(kind)).map(|kind| json!({"$patch": "delete", "type": kind})));
    (!changed.is_empty()).then_some(Value::Array(changed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_goes() {
        let of = |value: Value| serde_json::from_value::<PodStatus>(value).unwrap();
        let (a, b) = (json!({"type": "A", "status": "True"}), json!({"type": "B", "status": "True"}));
        let patch = between(&of(json!({"conditions": [a, b]})), &of(json!({"conditions": [a]})), "u").unwrap();
        assert_eq!(patch["status"]["conditions"], json!([{"$patch": "delete", "type": "B"}]));
    }

    fn of(value: Value) -> PodStatus {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_what_differs() {
        let at = "2026-01-01T00:00:00Z";
        let old = of(json!({"phase": "Pending", "hostIP": "1", "reason": "x", "conditions": [{"type": "Ready", "status": "False", "reason": "r", "lastTransitionTime": at}, {"type": "Other", "status": "True"}]}));
        let new = of(json!({"phase": "Running", "hostIP": "1", "podIPs": [{"ip": "2"}], "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": at}, {"type": "Other", "status": "True"}]}));
        assert_eq!(between(&old, &old, "u"), None);
        assert_eq!(
            between(&old, &new, "u").unwrap(),
            json!({"metadata": {"uid": "u"}, "status": {"phase": "Running", "podIPs": [{"ip": "2"}], "reason": null,
                "conditions": [{"type": "Ready", "status": "True", "reason": null, "lastTransitionTime": at}]}})
        );
        assert_eq!(between(&new, &of(json!({"phase": "Running", "hostIP": "1", "podIPs": [{"ip": "3"}],
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": at}, {"type": "Other", "status": "True"}]})), "u").unwrap()["status"],
            json!({"podIPs": [{"$patch": "replace"}, {"ip": "3"}]}));
    }
}
