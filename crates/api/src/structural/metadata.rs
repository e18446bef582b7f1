//! The metadata of custom objects and of resources embedded in them: unknown fields are taken out, wrong types refused, the rest judged as any object's.
//!
//! Mirrors apiserver/schema/objectmeta.

use serde_json::Value;

use super::{Additional, Schema};
use crate::names::{self, NameRule};
use crate::schema;
use crate::validation::{Errors, Path, object_meta_with};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// One metadata that is not what it has to be.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct Malformed {
    pub path: String,
    pub value: Value,
    pub message: String,
}

/// Settles the metadata of the object and of everything embedded; the paths of what was unknown there.
pub fn coerce(object: &mut Value, schema: &Schema) -> Result<Vec<String>, Malformed> {
    let mut unknown = Vec::new();
    walk(object, Some(schema), true, "", &mut unknown)?;
    unknown.sort();
    Ok(unknown)
}

fn walk(value: &mut Value, schema: Option<&Schema>, embedded: bool, path: &str, unknown: &mut Vec<String>) -> Result<(), Malformed> {
    let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    if embedded && let Value::Object(map) = &mut *value {
        for name in ["apiVersion", "kind"] {
            if let Some(other) = map.get(name).filter(|value| !value.is_string()) {
                return Err(Malformed { path: join(name), value: other.clone(), message: "must be a string".to_owned() });
            }
        }
        if let Some(metadata) = map.get_mut("metadata") {
            if metadata.is_null() {
                *metadata = Value::Object(Default::default());
            }
            let given = metadata.clone();
            let found = schema::check(OBJECT_META, "", "", metadata).map_err(|mismatch| Malformed { path: join("metadata"), value: given, message: mismatch.cause })?;
            let place = join("metadata");
            unknown.extend(found.into_iter().map(|field| format!("{place}.{}", field.path)));
        }
    }
    let Some(schema) = schema else { return Ok(()) };
    // Most schemas embed nothing: then there is nothing below to look at.
    if !schema.any(&mut |inner| !std::ptr::eq(inner, schema) && inner.embedded_resource) {
        return Ok(());
    }
    match value {
        Value::Object(map) => {
            for (name, inner) in map.iter_mut() {
                let (schema, path) = match (schema.property(name), &schema.additional) {
                    (Some(property), _) => (property, join(name)),
                    (None, Some(Additional::Schema(additional))) => (&**additional, format!("{path}[{name}]")),
                    _ => continue,
                };
                walk(inner, Some(schema), schema.embedded_resource, &path, unknown)?;
            }
        }
        Value::Array(items) => {
            if let Some(schema) = schema.items.as_deref() {
                for (at, inner) in items.iter_mut().enumerate() {
                    walk(inner, Some(schema), schema.embedded_resource, &format!("{path}[{at}]"), unknown)?;
                }
            }
        }
        _ => {}
    }
    Ok(())
}

/// What is wrong with embedded resources; the object's own metadata is judged elsewhere.
pub fn check(errors: &mut Errors, path: &Path, value: &Value, schema: &Schema) {
    match value {
        Value::Object(map) => {
            if schema.embedded_resource {
                embedded(errors, path, value);
            }
            for (name, inner) in map {
                if let Some(property) = schema.property(name) {
                    check(errors, &path.child(name), inner, property);
                } else if let Some(Additional::Schema(additional)) = &schema.additional {
                    check(errors, &path.key(name), inner, additional);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = &schema.items {
                for (at, inner) in items.iter().enumerate() {
                    check(errors, &path.index(at), inner, schema);
                }
            }
        }
        _ => {}
    }
}

fn embedded(errors: &mut Errors, path: &Path, value: &Value) {
    for name in ["apiVersion", "kind"] {
        let at = path.child(name);
        match value.get(name) {
            None => errors.required(&at, ""),
            Some(Value::String(text)) if text.is_empty() => errors.invalid(&at, text, "must not be empty"),
            Some(Value::String(text)) if name == "kind" => {
                let wrong = names::dns1035_label(&text.to_lowercase());
                if !wrong.is_empty() {
                    errors.invalid(&at, text, &format!("may have mixed case, but should otherwise match: {}", wrong.join(",")));
                }
            }
            Some(Value::String(text)) if text.matches('/').count() > 1 => errors.invalid(&at, text, &format!("unexpected GroupVersion string: {text}")),
            Some(Value::String(_)) => {}
            Some(other) => errors.invalid(&at, other, "must be a string"),
        }
    }
    let Some(metadata) = value.get("metadata") else { return };
    let namespaced = metadata.get("namespace").and_then(Value::as_str).is_some_and(|namespace| !namespace.is_empty());
    let mut judged = serde_json::json!({"metadata": metadata});
    if let Some(map) = judged["metadata"].as_object_mut()
        && map.get("name").and_then(Value::as_str).is_none_or(str::is_empty)
    {
        map.insert("name".into(), "fakename".into());
    }
    for mut cause in object_meta_with(NameRule::PathSegment, namespaced, &judged) {
        cause.field = format!("{path}.{}", cause.field);
        errors.extend(vec![cause]);
    }
}
