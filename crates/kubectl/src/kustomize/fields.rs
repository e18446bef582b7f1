//! Fields by paths in which lists are not named: `spec/template/spec/containers/image`.
//!
//! Mirrors kustomize's FieldSpec and its filter.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::id::{Gvk, Id};
use crate::error::{Error, Result, fail};

/// Which field of which kinds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct FieldSpec {
    #[serde(flatten)]
    pub gvk: Gvk,
    pub path: String,
    /// Shall it be made where it is not?
    pub create: bool,
}

impl FieldSpec {
    pub fn of(kind: &str, path: &str) -> Self {
        Self { gvk: Gvk { kind: kind.into(), ..Gvk::default() }, path: path.into(), create: false }
    }

    /// Adds `more` to `list`, leaving out what it already has.
    pub fn merge(list: &mut Vec<FieldSpec>, more: &[FieldSpec]) -> Result<()> {
        for one in more {
            match list.iter().find(|known| known.gvk.selected(&one.gvk) && known.path == one.path) {
                Some(known) if known.create != one.create => return fail("conflicting fieldspecs"),
                Some(_) => {}
                None => list.push(one.clone()),
            }
        }
        Ok(())
    }
}

/// What a field is made as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Make {
    Nothing,
    Text,
    Object,
}

impl Make {
    fn value(self) -> Value {
        if self == Make::Text { Value::String(String::new()) } else { Value::Object(Map::new()) }
    }
}

/// Calls `set` on each field that `spec` means in `object`, whose kind is `gvk`.
pub fn visit(object: &mut Value, id: &Id, spec: &FieldSpec, make: Make, set: &mut dyn FnMut(&mut Value) -> Result<()>) -> Result<()> {
    if !id.gvk.selected(&spec.gvk) {
        return Ok(());
    }
    let path = split(&spec.path, '/');
    walk(object, &path, if spec.create { make } else { Make::Nothing }, set).map_err(|error| Error::Message(format!("considering field '{}' of object {id}: {error}", spec.path)))
}

fn walk(value: &mut Value, path: &[String], make: Make, set: &mut dyn FnMut(&mut Value) -> Result<()>) -> Result<()> {
    let Some((first, rest)) = path.split_first() else { return set(value) };
    match value {
        Value::Null => Ok(()),
        Value::Array(items) => items.iter_mut().try_for_each(|item| walk(item, path, make, set)),
        Value::Object(map) => {
            let (name, list) = match first.strip_suffix("[]") {
                Some(name) => (name, true),
                None => (first.as_str(), false),
            };
            if name.is_empty() {
                return fail("cannot set or create an empty field name");
            }
            let made = || if rest.is_empty() { make.value() } else { Value::Object(Map::new()) };
            let creates = make != Make::Nothing && !list;
            let field = match map.get_mut(name) {
                Some(field) => field,
                None if creates => map.entry(name.to_owned()).or_insert_with(made),
                None => return Ok(()),
            };
            if field.is_null() {
                if creates {
                    *field = made();
                } else if list {
                    *field = Value::Array(Vec::new());
                }
            }
            walk(field, rest, make, set)
        }
        _ => fail("expected sequence or mapping node"),
    }
}

/// A path's parts; a backslash keeps a separator.
pub fn split(path: &str, separator: char) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    let path = path.strip_prefix(separator).unwrap_or(path);
    for part in path.split(separator) {
        match parts.last_mut().filter(|last| last.ends_with('\\')) {
            Some(last) => {
                last.pop();
                last.push(separator);
                last.push_str(part);
            }
            None => parts.push(part.to_owned()),
        }
    }
    parts
}

/// Sets a text, which only takes the place of another.
pub fn set_text(field: &mut Value, text: &str) -> Result<()> {
    scalar(field)?;
    *field = text.into();
    Ok(())
}

/// Refuses lists and objects.
pub fn scalar(field: &Value) -> Result<()> {
    match field {
        Value::Object(_) => fail(wrong("ScalarNode", field)),
        Value::Array(_) => fail(wrong("ScalarNode", field)),
        _ => Ok(()),
    }
}

pub fn wrong(expected: &str, found: &Value) -> String {
    format!("wrong node kind: expected {expected} but got {}: node contents:\n{}", node_kind(found), crate::yaml::emit(found))
}

pub fn node_kind(value: &Value) -> &'static str {
    match value {
        Value::Object(_) => "MappingNode",
        Value::Array(_) => "SequenceNode",
        _ => "ScalarNode",
    }
}

/// A plain value as YAML has it, without quotes.
pub use api::jsonpath::shown as plain;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lists_are_walked_through() {
        let id = Id { gvk: Gvk::of("apps/v1", "Deployment"), name: "x".into(), namespace: String::new() };
        let run = |mut object: Value, path: &str, make: Make| {
            let spec = FieldSpec { create: make != Make::Nothing, path: path.into(), ..FieldSpec::default() };
            visit(&mut object, &id, &spec, make, &mut |field| set_text(field, "new")).map(|()| object).map_err(|error| error.to_string())
        };
        assert_eq!(run(json!({"a": [{"b": "x"}, {"b": "y"}, {}]}), "a/b", Make::Nothing), Ok(json!({"a": [{"b": "new"}, {"b": "new"}, {}]})));
        assert_eq!(run(json!({}), "a/b", Make::Text), Ok(json!({"a": {"b": "new"}})));
        assert_eq!(run(json!({"a": null}), "a/b", Make::Text), Ok(json!({"a": {"b": "new"}})));
        assert_eq!(run(json!({}), "a/b", Make::Nothing), Ok(json!({})));
        assert!(run(json!({"a": "x"}), "a/b", Make::Nothing).unwrap_err().ends_with("expected sequence or mapping node"));
        assert_eq!(split("metadata/annotations/a.io\\/b", '/'), ["metadata", "annotations", "a.io/b"]);
    }
}
