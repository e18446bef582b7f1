//! From the wire to the JSON value, by the tags in the schema facts.
//!
//! A field that is no pointer in Go is sent even when it is empty, and JSON leaves it out. Tags that nobody knows are passed over, as upstream does.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{MAGIC, MAX_DEPTH, ProtobufError, schema_of_schemas, split_version, type_of};
use crate::schema::{Field, FieldType, TypeInfo};
use crate::world::{rfc3339, rfc3339_micro};

type Result<T> = std::result::Result<T, ProtobufError>;

/// An object in the envelope, with `apiVersion` and `kind` as the envelope says.
pub fn decode(bytes: &[u8]) -> Result<Value> {
    decode_as(bytes, "", "")
}

/// The same; what the envelope leaves out is taken from here, as upstream's decoder does (`copyKindDefaults`).
pub fn decode_as(bytes: &[u8], default_version: &str, default_kind: &str) -> Result<Value> {
    if bytes.is_empty() {
        return Err(ProtobufError::Empty);
    }
    let body = bytes.strip_prefix(MAGIC).ok_or(ProtobufError::NoMagic)?;
    if body.is_empty() {
        return Err(ProtobufError::EmptyBody);
    }
    let (mut api_version, mut kind, mut raw): (String, String, &[u8]) = (String::new(), String::new(), &[]);
    let mut reader = Reader(body);
    while let Some((tag, part)) = reader.next()? {
        match (tag, part) {
            (1, Part::Bytes(meta)) => {
                let mut reader = Reader(meta);
                while let Some((tag, part)) = reader.next()? {
                    match (tag, part) {
                        (1, Part::Bytes(text)) => api_version = text_of(text)?,
                        (2, Part::Bytes(text)) => kind = text_of(text)?,
                        _ => {}
                    }
                }
            }
            (2, Part::Bytes(message)) => raw = message,
            _ => {}
        }
    }
    if kind.is_empty() {
        kind = default_kind.to_owned();
    }
    if api_version.is_empty() {
        api_version = default_version.to_owned();
    }
    let (group, version) = split_version(&api_version);
    let info = type_of(group, version, &kind).ok_or_else(|| ProtobufError::UnknownKind { api_version: api_version.clone(), kind: kind.clone() })?;
    let mut object = message(info, raw, &[], 0)?;
    object.insert("apiVersion".into(), api_version.into());
    object.insert("kind".into(), kind.into());
    Ok(Value::Object(object))
}

enum Part<'a> {
    Varint(u64),
    Fixed(u64),
    Bytes(&'a [u8]),
}

impl Part<'_> {
    fn wire_type(&self) -> u8 {
        match self {
            Part::Varint(_) => 0,
            Part::Fixed(_) => 1,
            Part::Bytes(_) => 2,
        }
    }
}

/// Reads field after field of one message.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(ProtobufError::Truncated)?;
            self.0 = rest;
            if shift < 64 {
                value |= u64::from(byte & 0x7f) << shift;
            }
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ProtobufError::Invalid("integer overflow"))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8]> {
        let length = usize::try_from(length).map_err(|_| ProtobufError::Truncated)?;
        let (taken, rest) = self.0.split_at_checked(length).ok_or(ProtobufError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn next(&mut self) -> Result<Option<(u64, Part<'a>)>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let part = match key & 7 {
            0 => Part::Varint(self.varint()?),
            1 => Part::Fixed(little_endian(self.take(8)?)),
            2 => {
                let length = self.varint()?;
                Part::Bytes(self.take(length)?)
            }
            5 => Part::Fixed(little_endian(self.take(4)?)),
            _ => return Err(ProtobufError::Invalid("illegal wireType")),
        };
        if key >> 3 == 0 {
            return Err(ProtobufError::Invalid("illegal tag 0"));
        }
        Ok(Some((key >> 3, part)))
    }
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn text_of(bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| ProtobufError::Invalid("string field contains invalid UTF-8"))
}

/// One message of type `info`. `inside` are the tags of the embedded messages we are in: their fields belong to the same JSON object.
fn message(info: &'static TypeInfo, bytes: &[u8], inside: &[u8], depth: usize) -> Result<Map<String, Value>> {
    if depth > MAX_DEPTH {
        return Err(ProtobufError::Invalid("messages are nested too deeply"));
    }
    let mut object = Map::new();
    let mut reader = Reader(bytes);
    while let Some((tag, part)) = reader.next()? {
        let at = |field: &&Field| field.proto_tag.starts_with(inside) && field.proto_tag.get(inside.len()).is_some_and(|own| u64::from(*own) == tag);
        // A tag nobody knows comes from a newer client: it is dropped, as upstream drops it.
        let Some(field) = info.fields.iter().find(at) else { continue };
        if field.proto_tag.len() > inside.len() + 1 {
            let Part::Bytes(embedded) = part else { return Err(ProtobufError::WireType(part.wire_type(), field.name)) };
            object.extend(message(info, embedded, &field.proto_tag[..=inside.len()], depth + 1)?);
            continue;
        }
        add(&mut object, field, part, depth)?;
    }
    Ok(object)
}

fn add(object: &mut Map<String, Value>, field: &'static Field, part: Part<'_>, depth: usize) -> Result<()> {
    match &field.ty {
        FieldType::List(item) if !field.wrapped => {
            let slot = object.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = slot {
                list.push(value(item, part, field.name, depth)?.unwrap_or(Value::Null));
            }
        }
        FieldType::Map(item) => {
            let Part::Bytes(entry) = part else { return Err(ProtobufError::WireType(part.wire_type(), field.name)) };
            let (mut key, mut held) = (String::new(), None);
            let mut reader = Reader(entry);
            while let Some((tag, part)) = reader.next()? {
                match (tag, part) {
                    (1, Part::Bytes(text)) => key = text_of(text)?,
                    (2, part) => held = value(item, part, field.name, depth)?,
                    _ => {}
                }
            }
            let slot = object.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(map) = slot {
                map.insert(key, held.unwrap_or_else(|| empty(item)));
            }
        }
        single => {
            if let Some(value) = value(single, part, field.name, depth)? {
                // Go's JSON leaves out zeros that are neither pointers nor always written.
                if field.pointer || field.always || !is_zero(&value) {
                    object.insert(field.name.into(), value);
                }
            }
        }
    }
    Ok(())
}

/// What an absent map value stands for.
fn empty(ty: &FieldType) -> Value {
    match ty {
        FieldType::Bool => false.into(),
        FieldType::Int32 | FieldType::Int64 | FieldType::Double => 0.into(),
        FieldType::List(_) => Value::Array(Vec::new()),
        FieldType::Type(_) | FieldType::Map(_) | FieldType::Object => Value::Object(Map::new()),
        FieldType::Quantity => "0".into(),
        FieldType::Time | FieldType::MicroTime | FieldType::Any => Value::Null,
        _ => "".into(),
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(value) => value.as_f64() == Some(0.0),
        Value::String(value) => value.is_empty(),
        Value::Array(_) | Value::Object(_) => false,
    }
}

/// `None`: a zero time, which JSON writes as nothing.
fn value(ty: &FieldType, part: Part<'_>, name: &'static str, depth: usize) -> Result<Option<Value>> {
    let wrong = |part: &Part<'_>| ProtobufError::WireType(part.wire_type(), name);
    Ok(Some(match (ty, part) {
        (FieldType::Bool, Part::Varint(number)) => (number != 0).into(),
        (FieldType::Int32, Part::Varint(number)) => (number as i32).into(),
        (FieldType::Int64, Part::Varint(number)) => (number as i64).into(),
        (FieldType::Double, Part::Fixed(bits)) => f64::from_bits(bits).into(),
        (FieldType::String, Part::Bytes(text)) => text_of(text)?.into(),
        (FieldType::Bytes, Part::Bytes(bytes)) => STANDARD.encode(bytes).into(),
        (FieldType::Quantity, Part::Bytes(bytes)) => first_text(bytes)?.unwrap_or_else(|| "0".into()).into(),
        (FieldType::Time, Part::Bytes(bytes)) => return Ok(time(bytes)?.map(|at| rfc3339(at).into())),
        (FieldType::MicroTime, Part::Bytes(bytes)) => return Ok(time(bytes)?.map(|at| rfc3339_micro(at).into())),
        (FieldType::IntOrString, Part::Bytes(bytes)) => int_or_string(bytes)?,
        (FieldType::Any | FieldType::Object, Part::Bytes(bytes)) => raw_json(bytes)?,
        (FieldType::Type(reference), Part::Bytes(bytes)) => Value::Object(message(reference.info(), bytes, &[], depth + 1)?),
        // A list as a map's value is a message of its own, `ExtraValue { repeated string items = 1; }`.
        (FieldType::List(item), Part::Bytes(bytes)) => {
            let mut list = Vec::new();
            let mut reader = Reader(bytes);
            while let Some((_, part)) = reader.next()? {
                list.push(value(item, part, name, depth + 1)?.unwrap_or(Value::Null));
            }
            Value::Array(list)
        }
        (FieldType::SchemaOrBool | FieldType::SchemaOrArray | FieldType::SchemaOrStrings, Part::Bytes(bytes)) => schema_or(ty, bytes, depth)?,
        (_, part) => return Err(wrong(&part)),
    }))
}

fn first_text(bytes: &[u8]) -> Result<Option<String>> {
    let mut reader = Reader(bytes);
    while let Some((tag, part)) = reader.next()? {
        if let (1, Part::Bytes(text)) = (tag, part) {
            return text_of(text).map(Some);
        }
    }
    Ok(None)
}

fn time(bytes: &[u8]) -> Result<Option<Timestamp>> {
    let (mut seconds, mut nanos, mut any) = (0i64, 0i32, false);
    let mut reader = Reader(bytes);
    while let Some((tag, part)) = reader.next()? {
        any = true;
        match (tag, part) {
            (1, Part::Varint(number)) => seconds = number as i64,
            (2, Part::Varint(number)) => nanos = number as i32,
            _ => {}
        }
    }
    // Go's zero time lies before the epoch and is sent as nothing or as year 1.
    if !any || seconds == -62_135_596_800 {
        return Ok(None);
    }
    Timestamp::new(seconds, nanos).map(Some).map_err(|_| ProtobufError::Invalid("a time is out of range"))
}

fn int_or_string(bytes: &[u8]) -> Result<Value> {
    let (mut is_text, mut number, mut text) = (false, 0i32, String::new());
    let mut reader = Reader(bytes);
    while let Some((tag, part)) = reader.next()? {
        match (tag, part) {
            (1, Part::Varint(kind)) => is_text = kind == 1,
            (2, Part::Varint(value)) => number = value as i32,
            (3, Part::Bytes(value)) => text = text_of(value)?,
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}

fn raw_json(bytes: &[u8]) -> Result<Value> {
    let mut reader = Reader(bytes);
    while let Some((tag, part)) = reader.next()? {
        if let (1, Part::Bytes(raw)) = (tag, part) {
            return serde_json::from_slice(raw).map_err(|_| ProtobufError::Invalid("a raw field holds no JSON"));
        }
    }
    Ok(Value::Null)
}

/// `JSONSchemaPropsOrBool { allows = 1; schema = 2 }`, `…OrArray { schema = 1; jSONSchemas = 2 }`, `…OrStringArray { schema = 1; property = 2 }`.
fn schema_or(ty: &FieldType, bytes: &[u8], depth: usize) -> Result<Value> {
    let info = schema_of_schemas()?;
    let (mut list, mut allows, mut one) = (Vec::new(), false, None);
    let mut reader = Reader(bytes);
    while let Some((tag, part)) = reader.next()? {
        match (ty, tag, part) {
            (FieldType::SchemaOrBool, 1, Part::Varint(number)) => allows = number != 0,
            (FieldType::SchemaOrBool, 2, Part::Bytes(bytes)) | (_, 1, Part::Bytes(bytes)) => one = Some(Value::Object(message(info, bytes, &[], depth + 1)?)),
            (FieldType::SchemaOrArray, 2, Part::Bytes(bytes)) => list.push(Value::Object(message(info, bytes, &[], depth + 1)?)),
            (FieldType::SchemaOrStrings, 2, Part::Bytes(bytes)) => list.push(text_of(bytes)?.into()),
            _ => {}
        }
    }
    Ok(match one {
        Some(schema) => schema,
        None if *ty == FieldType::SchemaOrBool => allows.into(),
        None => list.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A length-delimited field.
    fn field(tag: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![tag << 3 | 2, bytes.len() as u8];
        out.extend_from_slice(bytes);
        out
    }

    fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &meta), field(2, raw), field(3, b""), field(4, b"")].concat()
    }

    #[test]
    fn a_config_map() {
        let meta = [field(1, b"a"), field(2, b""), field(8, b""), field(11, &[field(1, b"l"), field(2, b"v")].concat())].concat();
        let raw = [field(1, &meta), field(2, &[field(1, b"k"), field(2, b"w")].concat()), field(3, &[field(1, b"b"), field(2, b"\x01\x02")].concat())].concat();
        let want = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": {"l": "v"}}, "data": {"k": "w"}, "binaryData": {"b": "AQI="}});
        assert_eq!(decode(&envelope("v1", "ConfigMap", &raw)).unwrap(), want);
    }

    #[test]
    fn broken_input_is_told_and_never_read_past_its_end() {
        assert_eq!(decode(b"{}"), Err(ProtobufError::NoMagic));
        let good = envelope("v1", "ConfigMap", &field(1, &field(1, b"name")));
        for cut in MAGIC.len() + 1..good.len() {
            // Whatever comes of it, it comes without a panic.
            let _ = decode(&good[..cut]);
        }
        assert!(matches!(decode(&envelope("v1", "Nothing", b"")), Err(ProtobufError::UnknownKind { .. })));
    }
}
