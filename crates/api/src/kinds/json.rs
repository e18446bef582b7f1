//! Small readers and writers over `serde_json::Value`, shared by the kinds and the columns. A missing or mistyped field reads as Go's zero value.

use serde_json::{Map, Value};

/// The field at a dotted path; `None` if any part is missing or null.
pub fn child<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    let mut at = value;
    for name in path.split('.') {
        at = at.get(name)?;
    }
    if at.is_null() { None } else { Some(at) }
}

pub fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    child(value, path).and_then(Value::as_str).unwrap_or_default()
}

pub fn number(value: &Value, path: &str) -> Option<i64> {
    child(value, path).and_then(Value::as_i64)
}

pub fn flag(value: &Value, path: &str) -> bool {
    child(value, path).and_then(Value::as_bool).unwrap_or(false)
}

pub fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    child(value, path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

pub fn map<'a>(value: &'a Value, path: &str) -> Option<&'a Map<String, Value>> {
    child(value, path).and_then(Value::as_object)
}

/// The strings of a list.
pub fn strings<'a>(value: &'a Value, path: &str) -> impl Iterator<Item = &'a str> {
    list(value, path).iter().filter_map(Value::as_str)
}

/// An entry of a map whose keys may hold dots (labels, annotations).
pub fn entry<'a>(value: &'a Value, path: &str, key: &str) -> Option<&'a str> {
    map(value, path)?.get(key)?.as_str()
}

pub fn child_mut<'a>(value: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    let mut at = value;
    for name in path.split('.') {
        at = at.get_mut(name)?;
    }
    if at.is_null() { None } else { Some(at) }
}

pub fn list_mut<'a>(value: &'a mut Value, path: &str) -> &'a mut [Value] {
    child_mut(value, path).and_then(Value::as_array_mut).map(Vec::as_mut_slice).unwrap_or_default()
}

pub fn map_mut<'a>(value: &'a mut Value, path: &str) -> Option<&'a mut Map<String, Value>> {
    child_mut(value, path).and_then(Value::as_object_mut)
}

/// The object at a path, made on the way if missing. `None` only if something else than an object is in the way.
pub fn ensure<'a>(value: &'a mut Value, path: &str) -> Option<&'a mut Map<String, Value>> {
    let mut at = value;
    for name in path.split('.') {
        let slot = at.as_object_mut()?.entry(name).or_insert(Value::Null);
        if slot.is_null() {
            *slot = Value::Object(Map::new());
        }
        at = slot;
    }
    at.as_object_mut()
}

/// Sets a field of an object unless it is there: missing, null and the empty string count as not there.
pub fn default(object: &mut Value, name: &str, value: impl Into<Value>) {
    if let Some(map) = object.as_object_mut() {
        let there = match map.get(name) {
            None | Some(Value::Null) => false,
            Some(Value::String(text)) => !text.is_empty(),
            Some(_) => true,
        };
        if !there {
            map.insert(name.to_owned(), value.into());
        }
    }
}

/// As [`default`], for what is a pointer upstream: the empty string is there, and for validation to judge.
pub fn default_unset(object: &mut Value, name: &str, value: impl Into<Value>) {
    if child(object, name).is_none() {
        set(object, name, value);
    }
}

/// As [`default`], for numbers that are not pointers upstream: zero counts as not there.
pub fn default_number(object: &mut Value, name: &str, value: i64) {
    if number(object, name).unwrap_or(0) == 0 {
        set(object, name, value);
    }
}

pub fn set(object: &mut Value, name: &str, value: impl Into<Value>) {
    if let Some(map) = object.as_object_mut() {
        map.insert(name.to_owned(), value.into());
    }
}

pub fn take(object: &mut Value, name: &str) -> Option<Value> {
    object.as_object_mut()?.remove(name)
}

pub fn empty() -> Value {
    Value::Object(Map::new())
}

pub fn set_generation(object: &mut Value, generation: i64) {
    if let Some(meta) = ensure(object, "metadata") {
        meta.insert("generation".to_owned(), generation.into());
    }
}
