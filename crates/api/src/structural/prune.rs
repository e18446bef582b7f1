//! Pruning: fields that the schema does not know are taken out. Mirrors apiserver/schema/pruning.

use serde_json::Value;

use super::{Additional, Schema};

const META_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Takes unknown fields out of a whole object; their paths, sorted: `spec.list[0].x`. `apiVersion`, `kind` and `metadata` stay.
pub fn resource(object: &mut Value, schema: &Schema) -> Vec<String> {
    let mut walk = Walk { path: String::new(), unknown: Vec::new() };
    walk.value(object, Some(schema), true);
    walk.unknown.sort();
    walk.unknown
}

/// The same for a part of an object.
pub fn value(value: &mut Value, schema: &Schema) -> Vec<String> {
    let mut walk = Walk { path: String::new(), unknown: Vec::new() };
    walk.value(value, Some(schema), schema.embedded_resource);
    walk.unknown.sort();
    walk.unknown
}

struct Walk {
    path: String,
    unknown: Vec<String>,
}

impl Walk {
    fn below(&mut self, place: std::fmt::Arguments<'_>, go: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        std::fmt::Write::write_fmt(&mut self.path, place).ok();
        go(self);
        self.path.truncate(length);
    }

    fn key(&mut self, name: &str, go: impl FnOnce(&mut Self)) {
        if self.path.is_empty() { self.below(format_args!("{name}"), go) } else { self.below(format_args!(".{name}"), go) }
    }

    fn value(&mut self, value: &mut Value, schema: Option<&Schema>, embedded: bool) {
        if let Some(schema) = schema.filter(|schema| schema.preserve_unknown_fields) {
            return self.preserved(value, schema, embedded);
        }
        match value {
            Value::Object(map) => {
                let mut gone = Vec::new();
                for (name, inner) in map.iter_mut() {
                    if embedded && META_FIELDS.contains(&name.as_str()) {
                        continue;
                    }
                    let known = schema.and_then(|schema| schema.property(name));
                    match (known, schema.and_then(|schema| schema.additional.as_ref())) {
                        (Some(schema), _) => self.key(name, |walk| walk.value(inner, Some(schema), schema.embedded_resource)),
                        (None, Some(Additional::Schema(schema))) => self.key(name, |walk| walk.value(inner, Some(schema), schema.embedded_resource)),
                        (None, Some(Additional::Allowed(_))) => self.key(name, |walk| walk.value(inner, None, false)),
                        (None, None) => gone.push(name.clone()),
                    }
                }
                for name in gone {
                    map.remove(&name);
                    self.key(&name, |walk| walk.unknown.push(walk.path.clone()));
                }
            }
            Value::Array(items) => {
                let schema = schema.and_then(|schema| schema.items.as_deref());
                for (index, inner) in items.iter_mut().enumerate() {
                    self.below(format_args!("[{index}]"), |walk| walk.value(inner, schema, schema.is_some_and(|schema| schema.embedded_resource)));
                }
            }
            _ => {}
        }
    }

    /// Unknown fields stay here; below what is specified, pruning goes on.
    fn preserved(&mut self, value: &mut Value, schema: &Schema, embedded: bool) {
        match value {
            Value::Object(map) => {
                for (name, inner) in map.iter_mut() {
                    if embedded && META_FIELDS.contains(&name.as_str()) {
                        continue;
                    }
                    match (schema.property(name), &schema.additional) {
                        (Some(schema), _) => self.key(name, |walk| walk.value(inner, Some(schema), schema.embedded_resource)),
                        (None, Some(Additional::Schema(schema))) => self.key(name, |walk| walk.value(inner, Some(schema), schema.embedded_resource)),
                        (None, Some(Additional::Allowed(_))) => self.key(name, |walk| walk.value(inner, None, false)),
                        (None, None) => {}
                    }
                }
            }
            Value::Array(items) => {
                if let Some(schema) = schema.items.as_deref() {
                    for (index, inner) in items.iter_mut().enumerate() {
                        self.below(format_args!("[{index}]"), |walk| walk.preserved(inner, schema, schema.embedded_resource));
                    }
                }
            }
            _ => {}
        }
    }
}
