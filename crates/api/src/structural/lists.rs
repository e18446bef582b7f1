//! Lists that are sets or maps hold each item once. Mirrors apiserver/schema/listtype.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{Additional, Schema};
use crate::schema::ListType;
use crate::validation::{Errors, Path};

pub fn check(errors: &mut Errors, path: &Path, value: &Value, schema: &Schema) {
    match value {
        Value::Object(map) => {
            for (name, inner) in map {
                if let Some(property) = schema.property(name) {
                    check(errors, &path.child(name), inner, property);
                } else if let Some(Additional::Schema(additional)) = &schema.additional {
                    check(errors, &path.key(name), inner, additional);
                }
            }
        }
        Value::Array(items) => {
            match schema.list_type {
                Some(ListType::Set) => {
                    for at in repeated(items.iter().map(Value::to_string)) {
                        errors.duplicate(&path.index(at), &items[at]);
                    }
                }
                Some(ListType::Map) => keyed(errors, path, items, schema),
                _ => {}
            }
            if let Some(schema) = &schema.items {
                for (at, inner) in items.iter().enumerate() {
                    check(errors, &path.index(at), inner, schema);
                }
            }
        }
        _ => {}
    }
}

fn keyed(errors: &mut Errors, path: &Path, items: &[Value], schema: &Schema) {
    if let Some((at, item)) = items.iter().enumerate().find(|(_, item)| !item.is_null() && !item.is_object()) {
        errors.invalid(&path.index(at), item, "must be an object for an array of list-type map");
        return;
    }
    let keys: Vec<Value> = items
        .iter()
        .map(|item| Value::Object(schema.map_keys.iter().filter_map(|key| Some((key.to_string(), item.get(&**key)?.clone()))).collect::<Map<String, Value>>()))
        .collect();
    for at in repeated(keys.iter().map(Value::to_string)) {
        errors.duplicate(&path.index(at), &keys[at]);
    }
}

/// Where the second of several equal ones stands; third and further ones are not told.
fn repeated(items: impl Iterator<Item = String>) -> Vec<usize> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut found = Vec::new();
    for (at, item) in items.enumerate() {
        let times = seen.entry(item).or_default();
        *times += 1;
        if *times == 2 {
            found.push(at);
        }
    }
    found
}
