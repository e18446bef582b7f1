//! Defaulting, and nulls where none may be. Mirrors apiserver/schema/defaulting: nulls that are not allowed and have no default are dropped first, then defaults fill in.

use serde_json::Value;

use super::{Additional, Schema};

/// Whether anything in the schema has a default.
pub fn has_defaults(schema: &Schema) -> bool {
    schema.any(&mut |schema| schema.default.is_some())
}

/// Drops the nulls, then fills in.
pub fn apply(value: &mut Value, schema: &Schema) {
    drop_nulls(value, Some(schema));
    fill(value, schema);
}

fn drop_nulls(value: &mut Value, schema: Option<&Schema>) {
    match value {
        Value::Object(map) => map.retain(|name, inner| {
            let schema = schema.and_then(|schema| schema.field(name));
            if inner.is_null() && schema.is_some_and(|schema| !schema.nullable && schema.default.is_none()) {
                return false;
            }
            drop_nulls(inner, schema);
            true
        }),
        Value::Array(items) => {
            let schema = schema.and_then(|schema| schema.items.as_deref());
            items.iter_mut().for_each(|inner| drop_nulls(inner, schema));
        }
        _ => {}
    }
}

fn forbidden_null(value: &Value, schema: &Schema) -> bool {
    value.is_null() && !schema.nullable
}

fn fill(value: &mut Value, schema: &Schema) {
    match value {
        Value::Object(map) => {
            for (name, property) in &schema.properties {
                let Some(default) = &property.default else { continue };
                if map.get(&**name).is_none_or(|inner| forbidden_null(inner, property)) {
                    map.insert(name.to_string(), default.clone());
                }
            }
            for (name, inner) in map.iter_mut() {
                if let Some(property) = schema.property(name) {
                    fill(inner, property);
                } else if let Some(Additional::Schema(additional)) = &schema.additional {
                    if forbidden_null(inner, additional) {
                        *inner = additional.default.clone().unwrap_or(Value::Null);
                    }
                    fill(inner, additional);
                }
            }
        }
        Value::Array(items) => {
            let Some(schema) = schema.items.as_deref() else { return };
            for inner in items {
                if forbidden_null(inner, schema) {
                    *inner = schema.default.clone().unwrap_or(Value::Null);
                }
                fill(inner, schema);
            }
        }
        _ => {}
    }
}
