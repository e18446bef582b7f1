//! Whether a configuration has the shape of its built-in type, in structured-merge-diff's words: all that is wrong with it, each with its path.
//!
//! Mirrors the `typed` package's validation. Times, quantities and what is a number or a string count as any scalar there; whether they can be read is seen later, when the
//! object is made of what was merged.

use std::collections::HashSet;

use api::go::type_of;
use api::schema::{Field, FieldType, TypeInfo};
use serde_json::{Map, Value};

use super::{Node, element};
use crate::error::go_value;

/// What is wrong with an object of a type.
pub(in crate::apply) fn object(info: &'static TypeInfo, value: &Value) -> Result<(), String> {
    let mut errors = fields(Some(info), None, value);
    match errors.len() {
        0 => Ok(()),
        // As the caller of one error has it.
        1 => Err(errors.swap_remove(0)),
        _ => Err(format!("errors:\n  {}", errors.join("\n  "))),
    }
}

fn wanted(what: &str, got: impl std::fmt::Display) -> Vec<String> {
    vec![format!(": expected {what}, got {got}")]
}

fn under(place: &str, errors: Vec<String>) -> impl Iterator<Item = String> {
    errors.into_iter().map(move |error| format!("{place}{error}"))
}

/// Of a struct, or of a map whose values are of one type.
fn fields(info: Option<&'static TypeInfo>, values: Option<&'static FieldType>, value: &Value) -> Vec<String> {
    let map = match value {
        Value::Null => return Vec::new(),
        Value::Object(map) => map,
        other => return wanted("map", shown(other)),
    };
    let mut errors = Vec::new();
    for (name, inner) in map {
        let wrong = match (info.map(|info| info.field(name)), values) {
            (Some(Some(field)), _) => field_value(&field.ty, Some(field), inner),
            (None, Some(ty)) => field_value(ty, None, inner),
            (None, None) => Vec::new(),
            (Some(None), _) => {
                // Nothing more is looked at beside it.
                errors.push(format!(".{name}: field not declared in schema"));
                return errors;
            }
        };
        if !wrong.is_empty() {
            errors.extend(under(&format!(".{name}"), wrong));
        }
    }
    errors
}

fn field_value(ty: &'static FieldType, field: Option<&'static Field>, value: &Value) -> Vec<String> {
    if value.is_null() {
        return Vec::new();
    }
    match ty {
        FieldType::String | FieldType::Bytes if !value.is_string() => wanted("string", format_args!("&value.valueUnstructured{{Value:{}}}", literal(value))),
        FieldType::Bool if !value.is_boolean() => wanted("boolean", shown(value)),
        FieldType::Int32 | FieldType::Int64 | FieldType::Double if !value.is_number() => wanted("numeric (int or float)", type_of(value)),
        FieldType::Quantity | FieldType::IntOrString | FieldType::Time | FieldType::MicroTime if value.is_object() || value.is_array() => wanted("any scalar", shown(value)),
        FieldType::Object => fields(None, None, value),
        FieldType::Type(reference) => fields(Some(reference.info()), None, value),
        FieldType::Map(values) => fields(None, Some(values), value),
        FieldType::List(item) => items(ty, field, item, value),
        _ => Vec::new(),
    }
}

fn items(ty: &'static FieldType, field: Option<&'static Field>, item: &'static FieldType, value: &Value) -> Vec<String> {
    let Value::Array(list) = value else { return wanted("list", shown(value)) };
    let node = Node::of(ty, field);
    let named = matches!(node, Node::Keyed(..) | Node::Set);
    let (mut errors, mut seen) = (Vec::new(), HashSet::new());
    for (index, inner) in list.iter().enumerate() {
        let mut place = None;
        if named {
            match node.element(inner) {
                Ok(element) => {
                    let shown = element::display(&element);
                    if !seen.insert(element) {
                        errors.push(format!(": duplicate entries for key {shown}"));
                    }
                    place = Some(shown);
                }
                Err(why) => {
                    errors.push(format!(": element {index}: {why}"));
                    return errors;
                }
            }
        }
        let wrong = field_value(item, None, inner);
        if !wrong.is_empty() {
            errors.extend(under(&place.unwrap_or_else(|| format!("[{index}]")), wrong));
        }
    }
    errors
}

/// `%v` of smd's value.
fn shown(value: &Value) -> String {
    format!("&{{{}}}", go_value(value))
}

/// `%#v` of what was read.
fn literal(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".into(),
        Value::Array(items) => format!("[]interface {{}}{{{}}}", items.iter().map(literal).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => format!("map[string]interface {{}}{{{}}}", entries(map)),
        other => other.to_string(),
    }
}

fn entries(map: &Map<String, Value>) -> String {
    map.iter().map(|(key, value)| format!("{key:?}:{}", literal(value))).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_has_not_its_types_shape() {
        for (kind, config, said) in [
            ("Deployment", json!({"spec": {"replicas": 1, "template": null}}), ""),
            ("Deployment", json!({"spec": {"replicas": "x"}}), ".spec.replicas: expected numeric (int or float), got string"),
            ("Deployment", json!({"metadata": {"name": 5}}), ".metadata.name: expected string, got &value.valueUnstructured{Value:5}"),
            ("Deployment", json!({"metadata": {"labels": {"a": {"b": "c"}}}}), ".metadata.labels.a: expected string, got &value.valueUnstructured{Value:map[string]interface {}{\"b\":\"c\"}}"),
            ("Deployment", json!({"spec": {"paused": "true", "replicas": []}}), "errors:\n  .spec.paused: expected boolean, got &{true}\n  .spec.replicas: expected numeric (int or float), got []interface {}"),
            ("Deployment", json!({"spec": {"template": {"spec": {"containers": {}}}}}), ".spec.template.spec.containers: expected list, got &{map[]}"),
            ("Deployment", json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "command": "x"}]}}}}), ".spec.template.spec.containers[name=\"c\"].command: expected list, got &{x}"),
            ("Deployment", json!({"spec": {"template": {"spec": {"containers": [{"name": "c"}, {"name": "c"}]}}}}), ".spec.template.spec.containers: duplicate entries for key [name=\"c\"]"),
            ("Deployment", json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": {}}}}}), ".spec.strategy.rollingUpdate.maxSurge: expected any scalar, got &{map[]}"),
            ("Deployment", json!({"spec": {"bogus": 1}}), ".spec.bogus: field not declared in schema"),
        ] {
            let info = api::schema::of_kind("apps/v1", kind).unwrap();
            assert_eq!(object(info, &config).err().unwrap_or_default(), said);
        }
    }
}
