//! Objects to bytes: at rest once, and lists, tables and watch events spliced of what rests.

use std::sync::Arc;

use ::api::protobuf::{self, ProtobufError};
use ::api::{Object, Resource, schema};
use bytes::{BufMut, Bytes, BytesMut};
use serde_json::Value;

/// The stored form of an object: `apiVersion`, `kind` and `metadata` first, no resourceVersion (the store splices it in).
pub fn at_rest(value: &Value) -> Bytes {
    let mut out = Vec::with_capacity(1024);
    let empty = serde_json::Map::new();
    let map = value.as_object().unwrap_or(&empty);
    out.push(b'{');
    let field = |out: &mut Vec<u8>, key: &str, value: &Value| {
        if out.len() > 1 {
            out.push(b',');
        }
        write(out, &key);
        out.push(b':');
        write(out, value);
    };
    for key in ["apiVersion", "kind"] {
        if let Some(value) = map.get(key) {
            field(&mut out, key, value);
        }
    }
    metadata(&mut out, map.get("metadata"));
    for (key, value) in map {
        if !matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
            field(&mut out, key, value);
        }
    }
    out.push(b'}');
    out.into()
}

/// Last of the three fields of the head; something always stands before it.
fn metadata(out: &mut Vec<u8>, metadata: Option<&Value>) {
    out.extend_from_slice(if out.len() > 1 { b",\"metadata\":{" } else { b"\"metadata\":{" });
    let mut first = true;
    for (key, value) in metadata.and_then(Value::as_object).into_iter().flatten().filter(|(key, _)| !matches!(key.as_str(), "resourceVersion" | "selfLink")) {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        write(out, key);
        out.push(b':');
        write(out, value);
    }
    out.push(b'}');
}

/// A value as it is; serialising a value into memory cannot fail.
pub fn write<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    let _ = serde_json::to_writer(out, value);
}

/// The object as it would be served at `resource_version`, without the store: for dry runs.
pub fn unsaved(value: &Value, resource_version: Option<u64>) -> Arc<Object> {
    let mut value = value.clone();
    if let (Some(version), Some(metadata)) = (resource_version, value.get_mut("metadata").and_then(Value::as_object_mut)) {
        metadata.insert("resourceVersion".into(), version.to_string().into());
    }
    let mut out = Vec::new();
    write(&mut out, &value);
    Arc::new(Object::new(out.into(), resource_version.unwrap_or(0)))
}

/// The bytes of a list item: typed lists leave `apiVersion` and `kind` of their items out.
fn item_bytes<'a>(row: &Resource, object: &'a Object) -> (&'static [u8], &'a [u8]) {
    let bytes: &[u8] = object.bytes();
    if row.schema.is_empty() {
        return (b"", bytes);
    }
    // What is at rest starts with exactly these two fields, see `at_rest`.
    match memchr_metadata(bytes) {
        Some(at) => (b"{", &bytes[at..]),
        None => (b"", bytes),
    }
}

fn memchr_metadata(bytes: &[u8]) -> Option<usize> {
    const NEEDLE: &[u8] = b"\"metadata\":";
    bytes.get(..bytes.len().min(256))?.windows(NEEDLE.len()).position(|window| window == NEEDLE)
}

/// A list, spliced of what rests, in pieces.
pub struct List {
    row: Arc<Resource>,
    head: Bytes,
    items: Vec<Arc<Object>>,
    /// Pieces given so far end before this item.
    next: usize,
    /// Bytes to come.
    left: usize,
}

const TAIL: &[u8] = b"]}\n";

impl List {
    pub fn new(row: Arc<Resource>, items: Vec<Arc<Object>>, revision: u64, continue_token: &str, remaining: Option<u64>) -> Self {
        let mut head = format!("{{\"kind\":{},\"apiVersion\":{},\"metadata\":{{\"resourceVersion\":\"{revision}\"", quoted(&row.list_kind), quoted(&row.api_version()));
        if !continue_token.is_empty() {
            head.push_str(&format!(",\"continue\":{}", quoted(continue_token)));
        }
        if let Some(remaining) = remaining {
            head.push_str(&format!(",\"remainingItemCount\":{remaining}"));
        }
        head.push_str("},\"items\":[");
        let bytes = items.iter().map(|item| item_bytes(&row, item)).map(|(prefix, rest)| prefix.len() + rest.len()).sum::<usize>();
        let left = head.len() + bytes + items.len().saturating_sub(1) + TAIL.len();
        Self { row, head: head.into(), items, next: 0, left }
    }

    /// Of all pieces to come together.
    pub fn left(&self) -> usize {
        self.left
    }

    /// At least `size` bytes while there are so many; empty at the end.
    pub fn piece(&mut self, size: usize) -> Bytes {
        if self.left == 0 {
            return Bytes::new();
        }
        let mut out = BytesMut::with_capacity(self.left.min(size + size / 4));
        // Once: it is empty then.
        out.put_slice(&std::mem::take(&mut self.head));
        while let Some(object) = self.items.get(self.next) {
            if out.len() >= size {
                self.left -= out.len();
                return out.freeze();
            }
            if self.next > 0 {
                out.put_u8(b',');
            }
            let (prefix, rest) = item_bytes(&self.row, object);
            out.put_slice(prefix);
            out.put_slice(rest);
            self.next += 1;
        }
        self.left = 0;
        out.put_slice(TAIL);
        out.freeze()
    }
}

/// An object in protobuf's envelope. What subresources answer with may be of another kind than the row's.
pub fn protobuf(row: &Resource, bytes: &[u8]) -> Result<Bytes, ProtobufError> {
    match schema::of(&row.schema) {
        Some(info) if rests_as(row, bytes) => protobuf::message(info, &row.api_version(), &row.kind, bytes),
        _ => protobuf::encode(bytes),
    }
}

/// Whether the bytes begin as [`at_rest`] has them begin for the row.
fn rests_as(row: &Resource, bytes: &[u8]) -> bool {
    let group = if row.group.is_empty() { "" } else { "/" };
    let parts = ["{\"apiVersion\":\"", &row.group, group, &row.version, "\",\"kind\":\"", &row.kind, "\""];
    parts.iter().try_fold(bytes, |rest, part| rest.strip_prefix(part.as_bytes())).is_some()
}

/// A list in protobuf: straight from what rests.
pub fn protobuf_list(row: &Resource, items: &[Arc<Object>], head: &protobuf::ListHead<'_>) -> Result<Bytes, ProtobufError> {
    let Some(info) = schema::of(&row.schema) else {
        return Err(ProtobufError::UnknownKind { api_version: row.api_version(), kind: row.list_kind.to_string() });
    };
    let size = items.iter().map(|item| item.bytes().len()).sum();
    protobuf::list(info, head, items.iter().map(|item| &item.bytes()[..]), size)
}

/// JSON for people: as Go's `json.MarshalIndent` with two blanks. The text is taken as it is, it is known to be JSON.
pub fn indented(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() * 2);
    let (mut depth, mut in_text, mut escaped) = (0usize, false, false);
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.extend(std::iter::repeat_n(b' ', depth * 2));
    };
    for (at, byte) in json.iter().copied().enumerate() {
        if in_text {
            out.push(byte);
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_text = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' => {}
            b'"' => {
                in_text = true;
                out.push(byte);
            }
            b'{' | b'[' => {
                out.push(byte);
                let next = json[at + 1..].iter().find(|byte| !byte.is_ascii_whitespace());
                if !matches!(next, Some(b'}' | b']')) {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            b'}' | b']' => {
                if !matches!(out.last(), Some(b'{' | b'[')) {
                    depth = depth.saturating_sub(1);
                    line(&mut out, depth);
                }
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            _ => out.push(byte),
        }
    }
    out
}

pub fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// One line of a watch stream.
pub fn event(kind: &str, object: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(object.len() + 32);
    out.put_slice(b"{\"type\":\"");
    out.put_slice(kind.as_bytes());
    out.put_slice(b"\",\"object\":");
    out.put_slice(object);
    out.put_slice(b"}\n");
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_list_is_as_long_as_its_pieces() {
        let row = ::api::table::table().find("", "v1", "configmaps").unwrap();
        let item = |name: &str| Arc::new(Object::new(Bytes::from(format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}}}}"#)), 7));
        for (names, size) in [(&[][..], 1), (&["a"][..], 1), (&["a", "b", "c"][..], 1), (&["a", "b", "c"][..], 120), (&["a", "b", "c"][..], 10_000)] {
            let mut list = List::new(Arc::new(row.clone()), names.iter().map(|name| item(name)).collect(), 9, "", Some(2));
            let length = list.left();
            let mut whole = Vec::new();
            loop {
                let piece = list.piece(size);
                if piece.is_empty() {
                    break;
                }
                whole.extend_from_slice(&piece);
            }
            assert_eq!(whole.len(), length);
            let value: Value = serde_json::from_slice(&whole).unwrap();
            assert_eq!(value["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect::<Vec<_>>(), names);
            assert_eq!(value["metadata"], json!({"resourceVersion": "9", "remainingItemCount": 2}));
        }
    }

    #[test]
    fn people_get_lines() {
        let json = json!({"a": [], "b": {}, "c": [1, {"d": "x{,\"y"}], "e": null});
        let want = "{\n  \"a\": [],\n  \"b\": {},\n  \"c\": [\n    1,\n    {\n      \"d\": \"x{,\\\"y\"\n    }\n  ],\n  \"e\": null\n}";
        assert_eq!(String::from_utf8(indented(json.to_string().as_bytes())).unwrap(), want);
        assert_eq!(indented(want.as_bytes()), want.as_bytes());
    }

    #[test]
    fn rest_form_has_a_fixed_head_and_no_version() {
        let value = json!({"data": {"a": "1"}, "kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "x", "resourceVersion": "5"}});
        assert_eq!(at_rest(&value), Bytes::from_static(br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"data":{"a":"1"}}"#));
    }
}
