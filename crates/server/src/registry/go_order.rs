//! A patched object as messages show it: what the patch did not touch stands in the order in which Go writes the type's fields, what it went through in that of the alphabet.
//!
//! That is how evanphx/json-patch leaves a document: objects on the way to a change become maps, all else stays the text that the encoder made of the stored object.

use ::api::schema::{self, FieldType, TypeInfo};
use client::PatchKind;
use serde_json::{Map, Value};

/// `patched` as text; of custom kinds (no `schema`) every object is a map.
pub fn text(schema: &str, kind: PatchKind, patch: &Value, patched: &Value) -> String {
    let touched = if kind == PatchKind::Json { ways(patch) } else { patch.clone() };
    let mut out = String::new();
    match schema::of(schema) {
        Some(info) => write(&mut out, patched, Shape::Struct(info), Some(&touched)),
        None => out = patched.to_string(),
    }
    // As Go's encoder writes what HTML could trip over.
    out.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// Where the operations of a JSON patch lead, as a tree.
fn ways(patch: &Value) -> Value {
    let mut tree = Value::Object(Map::new());
    let operations = patch.as_array().into_iter().flatten();
    for pointer in operations.flat_map(|operation| ["path", "from"].map(|key| operation.get(key).and_then(Value::as_str))).flatten() {
        let mut at = &mut tree;
        let steps: Vec<String> = pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
        for (depth, step) in steps.iter().enumerate() {
            let Some(map) = at.as_object_mut() else { break };
            let slot = map.entry(step.clone()).or_insert(Value::Null);
            if depth + 1 < steps.len() && !slot.is_object() {
                *slot = Value::Object(Map::new());
            }
            at = slot;
        }
    }
    tree
}

#[derive(Clone, Copy)]
enum Shape {
    Struct(&'static TypeInfo),
    Field(&'static FieldType),
    Any,
}

impl Shape {
    fn info(self) -> Option<&'static TypeInfo> {
        match self {
            Shape::Struct(info) => Some(info),
            Shape::Field(ty) => ty.info(),
            Shape::Any => None,
        }
    }

    fn of(self, name: &str) -> Self {
        match self {
            Shape::Field(FieldType::Map(item)) => Shape::Field(item),
            _ => self.info().and_then(|info| info.field(name)).map_or(Shape::Any, |field| Shape::Field(&field.ty)),
        }
    }

    fn item(self) -> Self {
        match self {
            Shape::Field(FieldType::List(item)) => Shape::Field(item),
            _ => Shape::Any,
        }
    }
}

fn write(out: &mut String, value: &Value, shape: Shape, touched: Option<&Value>) {
    // What the patch put there is as the patch has it.
    let through = touched.and_then(Value::as_object);
    match value {
        _ if touched.is_some() && through.is_none() => out.push_str(&value.to_string()),
        Value::Object(map) => {
            let mut names: Vec<&String> = map.keys().collect();
            if let (None, Some(info)) = (through, shape.info()) {
                names.sort_by_key(|name| place(info, name));
            }
            out.push('{');
            for (index, name) in names.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write(out, &map[name], shape.of(name), through.and_then(|through| through.get(name)));
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(out, item, shape.item(), through.and_then(|through| through.get(&index.to_string())));
            }
            out.push(']');
        }
        plain => out.push_str(&plain.to_string()),
    }
}

/// Where Go has a field: kind and version first, then by tag, which goes by the order of the struct.
fn place(info: &'static TypeInfo, name: &str) -> (usize, &'static [u8]) {
    match (name, info.kind, info.field(name)) {
        ("kind", true, _) => (0, &[]),
        ("apiVersion", true, _) => (1, &[]),
        (_, _, Some(field)) => (2, &field.proto_tag[..]),
        (_, _, None) => (3, &[]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_touched_is_sorted() {
        let old = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "<"}, "metadata": {"creationTimestamp": null, "name": "n", "namespace": "s", "uid": "u"}});
        let whole = r#"{"name":"n","namespace":"s","uid":"u","creationTimestamp":null}"#;
        let sorted = r#"{"creationTimestamp":null,"name":"n","namespace":"s","uid":"u"}"#;
        for (kind, patch, metadata) in [
            (PatchKind::Merge, json!({"data": {"b": null}}), whole),
            (PatchKind::Merge, json!({"metadata": {"uid": "u"}}), sorted),
            (PatchKind::Json, json!([{"op": "remove", "path": "/data/b"}]), whole),
            (PatchKind::Json, json!([{"op": "test", "path": "/metadata/uid", "value": "u"}]), sorted),
        ] {
            let shown = text("io.k8s.api.core.v1.ConfigMap", kind, &patch, &old);
            assert_eq!(shown, format!(r#"{{"apiVersion":"v1","data":{{"a":"\u003c"}},"kind":"ConfigMap","metadata":{metadata}}}"#), "{patch}");
        }
    }
}
