//! A custom kind's schema as OpenAPI publishes it: v3 nearly as it was written, v2 without what v2 cannot say.
//!
//! Mirrors apiextensions' controller/openapi/builder and openapi/v2/conversion.go: what would make kubectl refuse good objects is left out.

use serde_json::{Map, Value, json};

use super::Style;
use crate::structural::violations::violations;
use crate::validation::Path;

/// The fields every object has, as the document describes them.
pub(super) struct Meta {
    pub api_version: Value,
    pub kind: Value,
    pub metadata: Value,
}

const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
const EMBEDDED: &str = "x-kubernetes-embedded-resource";
const INT_OR_STRING: &str = "x-kubernetes-int-or-string";

fn flag(map: &Map<String, Value>, name: &str) -> bool {
    map.get(name) == Some(&Value::Bool(true))
}

/// The schema of a kind; one without a (structural) schema says no more than that it is an object.
pub(super) fn published(style: Style, schema: Option<Value>, meta: &Meta) -> Value {
    let structural = schema.filter(|schema| violations(&Path::Root(""), schema).is_empty());
    let Some(Value::Object(root)) = structural else { return json!({"type": "object"}) };
    if style == Style::V2 && flag(&root, PRESERVE) {
        return json!({"type": "object"});
    }
    let mut root = node(style, root, meta);
    add_meta(&mut root, meta);
    Value::Object(root)
}

fn add_meta(map: &mut Map<String, Value>, meta: &Meta) {
    let slot = map.entry("properties").or_insert_with(|| json!({}));
    for (name, value) in [("apiVersion", &meta.api_version), ("kind", &meta.kind), ("metadata", &meta.metadata)] {
        slot[name] = value.clone();
    }
}

fn node(style: Style, mut map: Map<String, Value>, meta: &Meta) -> Map<String, Value> {
    if style == Style::V2 { restrict(&mut map) } else { unfold(&mut map) }
    let below = |value: Value| match value {
        Value::Object(inner) => Value::Object(node(style, inner, meta)),
        other => other,
    };
    if let Some(Value::Object(properties)) = map.remove("properties") {
        let properties: Map<String, Value> = properties.into_iter().map(|(name, inner)| (name, below(inner))).collect();
        map.insert("properties".to_owned(), Value::Object(properties));
    }
    for name in ["items", "additionalProperties"] {
        if let Some(inner) = map.remove(name) {
            map.insert(name.to_owned(), below(inner));
        }
    }
    if flag(&map, EMBEDDED) && !(style == Style::V2 && flag(&map, PRESERVE)) {
        add_meta(&mut map, meta);
        let required = map.entry("required").or_insert_with(|| json!([]));
        if let Some(list) = required.as_array_mut() {
            for name in ["kind", "apiVersion"] {
                if !list.iter().any(|known| known == name) {
                    list.push(name.into());
                }
            }
        }
    }
    map
}

/// What an integer or a string is, for those who do not know the extension.
fn unfold(map: &mut Map<String, Value>) {
    if !flag(map, INT_OR_STRING) {
        return;
    }
    let either = json!([{"type": "integer"}, {"type": "string"}]);
    let said = map.get("anyOf") == Some(&either) || map.get("allOf").and_then(|all| all.get(0)).is_some_and(|first| first.get("anyOf") == Some(&either));
    if said {
        return;
    }
    if !map.contains_key("anyOf") {
        map.insert("anyOf".to_owned(), either);
    } else if let Some(all) = map.entry("allOf").or_insert_with(|| json!([])).as_array_mut() {
        all.insert(0, json!({"anyOf": either}));
    }
}

/// For v2.
fn restrict(map: &mut Map<String, Value>) {
    for name in ["allOf", "oneOf", "anyOf", "not"] {
        map.remove(name);
    }
    let kind = |map: &Map<String, Value>| map.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let nullable = |value: &Value| value.get("nullable") == Some(&Value::Bool(true));
    if flag(map, "nullable") {
        for name in ["type", "nullable", "items", "properties"] {
            map.remove(name);
        }
    }
    if flag(map, PRESERVE) {
        map.remove("items");
        map.remove("properties");
    }
    if (kind(map) == "array" && !map.contains_key("items")) || (kind(map) == "object" && flag(map, PRESERVE)) {
        map.remove("type");
    }
    // What may be null may be left out as far as kubectl is concerned.
    let loose: Vec<String> = map.get("properties").and_then(Value::as_object).into_iter().flatten().filter(|(_, inner)| nullable(inner)).map(|(name, _)| name.clone()).collect();
    if let Some(required) = map.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| !loose.iter().any(|loose| name == loose));
    }
    let none_left = map.get("required").and_then(Value::as_array).is_some_and(Vec::is_empty);
    if none_left || map.get("additionalProperties").is_some_and(nullable) {
        map.remove("required");
    }
}
