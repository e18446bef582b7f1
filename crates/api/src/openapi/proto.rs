//! The v2 document in protobuf, as gnostic's `OpenAPIv2.proto` lays it out.
//!
//! kubectl reads `/openapi/v2` in this form only. Just the parts of the format that our document uses are written.

use serde_json::{Map, Value};

use crate::protobuf::wire;

/// A protobuf message being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn bytes(&mut self, tag: u32, bytes: &[u8]) {
        wire::bytes(&mut self.0, tag, bytes);
    }

    fn text(&mut self, tag: u32, text: &str) {
        if !text.is_empty() {
            self.bytes(tag, text.as_bytes());
        }
    }

    fn string(&mut self, tag: u32, value: Option<&Value>) {
        if let Some(Value::String(text)) = value {
            self.text(tag, text);
        }
    }

    fn flag(&mut self, tag: u32, value: Option<&Value>) {
        if value == Some(&Value::Bool(true)) {
            wire::key(&mut self.0, tag, wire::VARINT);
            wire::varint(&mut self.0, 1);
        }
    }

    fn strings(&mut self, tag: u32, value: Option<&Value>) {
        for text in value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            self.bytes(tag, text.as_bytes());
        }
    }

    fn message(&mut self, tag: u32, inner: Message) {
        self.bytes(tag, &inner.0);
    }

    /// `NamedAny` for each `x-…`.
    fn extensions(&mut self, tag: u32, map: &Map<String, Value>) {
        for (name, value) in map.iter().filter(|(name, _)| name.starts_with("x-")) {
            self.message(tag, named(name, any(value)));
        }
    }
}

fn named(name: &str, value: Message) -> Message {
    let mut message = Message::default();
    message.text(1, name);
    message.message(2, value);
    message
}

/// Free-form values travel as YAML, of which JSON is a part.
fn any(value: &Value) -> Message {
    let mut message = Message::default();
    message.text(2, &format!("{value}\n"));
    message
}

fn entries(value: Option<&Value>) -> impl Iterator<Item = (&String, &Map<String, Value>)> {
    value.and_then(Value::as_object).into_iter().flatten().filter_map(|(name, value)| Some((name, value.as_object()?)))
}

/// `document` is what [`super::v2`] gave.
pub fn protobuf(document: &Value) -> Vec<u8> {
    let mut message = Message::default();
    message.string(1, document.get("swagger"));
    let mut info = Message::default();
    info.string(1, document["info"].get("title"));
    info.string(2, document["info"].get("version"));
    message.message(2, info);
    let mut paths = Message::default();
    for (name, item) in entries(document.get("paths")) {
        paths.message(2, named(name, path_item(item)));
    }
    message.message(8, paths);
    let mut definitions = Message::default();
    for (name, definition) in entries(document.get("definitions")) {
        definitions.message(1, named(name, schema(definition)));
    }
    message.message(9, definitions);
    message.0
}

fn path_item(item: &Map<String, Value>) -> Message {
    let mut message = Message::default();
    for (tag, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (6, "options"), (7, "head"), (8, "patch")] {
        if let Some(Value::Object(found)) = item.get(method) {
            message.message(tag, operation(found));
        }
    }
    parameters(&mut message, 9, item.get("parameters"));
    message
}

fn operation(map: &Map<String, Value>) -> Message {
    let mut message = Message::default();
    message.strings(1, map.get("tags"));
    message.string(3, map.get("description"));
    message.string(5, map.get("operationId"));
    message.strings(6, map.get("produces"));
    message.strings(7, map.get("consumes"));
    parameters(&mut message, 8, map.get("parameters"));
    let mut responses = Message::default();
    for (code, response) in entries(map.get("responses")) {
        let mut body = Message::default();
        body.string(1, response.get("description"));
        if let Some(Value::Object(found)) = response.get("schema") {
            let mut item = Message::default();
            item.message(1, schema(found));
            body.message(2, item);
        }
        let mut value = Message::default();
        value.message(1, body);
        responses.message(1, named(code, value));
    }
    message.message(9, responses);
    message.extensions(13, map);
    message
}

fn parameters(message: &mut Message, tag: u32, list: Option<&Value>) {
    for map in list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object) {
        let mut parameter = Message::default();
        let place = map.get("in").and_then(Value::as_str).unwrap_or("");
        if place == "body" {
            let mut body = Message::default();
            body.string(2, map.get("name"));
            body.text(3, place);
            body.flag(4, map.get("required"));
            if let Some(Value::Object(found)) = map.get("schema") {
                body.message(5, schema(found));
            }
            parameter.message(1, body);
        } else {
            let (kind, ty, unique) = if place == "path" { (4, 5, 19) } else { (3, 6, 20) };
            let mut plain = Message::default();
            plain.flag(1, map.get("required"));
            plain.text(2, place);
            plain.string(3, map.get("description"));
            plain.string(4, map.get("name"));
            plain.string(ty, map.get("type"));
            plain.flag(unique, map.get("uniqueItems"));
            let mut other = Message::default();
            other.message(kind, plain);
            parameter.message(2, other);
        }
        let mut item = Message::default();
        item.message(1, parameter);
        message.message(tag, item);
    }
}

fn schema(map: &Map<String, Value>) -> Message {
    let mut message = Message::default();
    message.string(1, map.get("$ref"));
    message.string(2, map.get("format"));
    message.string(4, map.get("description"));
    if let Some(default) = map.get("default") {
        message.message(5, any(default));
    }
    message.strings(19, map.get("required"));
    for value in map.get("enum").and_then(Value::as_array).into_iter().flatten() {
        message.message(20, any(value));
    }
    match map.get("additionalProperties") {
        Some(Value::Object(found)) => {
            let mut item = Message::default();
            item.message(1, schema(found));
            message.message(21, item);
        }
        Some(Value::Bool(true)) => {
            let mut item = Message::default();
            item.flag(2, Some(&Value::Bool(true)));
            message.message(21, item);
        }
        _ => {}
    }
    if let Some(Value::String(ty)) = map.get("type") {
        let mut item = Message::default();
        item.text(1, ty);
        message.message(22, item);
    }
    if let Some(Value::Object(found)) = map.get("items") {
        let mut item = Message::default();
        item.message(1, schema(found));
        message.message(23, item);
    }
    if map.contains_key("properties") {
        let mut properties = Message::default();
        for (name, property) in entries(map.get("properties")) {
            properties.message(1, named(name, schema(property)));
        }
        message.message(25, properties);
    }
    message.extensions(31, map);
    message
}
