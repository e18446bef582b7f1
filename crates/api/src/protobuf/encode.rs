//! From JSON text to the wire in one pass: no value tree in between.
//!
//! Fields come in JSON's order and leave in their tags': each is written where it stands, and a message's end puts its fields in order, adds the zeros that Go would write,
//! and moves the whole behind its length.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::wire::{self, BYTES, FIXED64, VARINT};
use super::{MAGIC, ProtobufError, schema_of_schemas, split_version, type_of};
use crate::schema::{Field, FieldType, Step, TypeInfo};

type Result<T> = std::result::Result<T, ProtobufError>;

/// Any object that says its `apiVersion` and `kind`, in the envelope.
pub fn encode(json: &[u8]) -> Result<Bytes> {
    #[derive(Deserialize, Default)]
    #[serde(default, rename_all = "camelCase")]
    struct Head {
        api_version: String,
        kind: String,
    }
    let head: Head = serde_json::from_slice(json).map_err(|error| ProtobufError::Json(error.to_string()))?;
    let (group, version) = split_version(&head.api_version);
    let info = type_of(group, version, &head.kind).ok_or_else(|| ProtobufError::UnknownKind { api_version: head.api_version.clone(), kind: head.kind.clone() })?;
    message(info, &head.api_version, &head.kind, json)
}

/// An object whose type is known, in the envelope.
pub fn message(info: &'static TypeInfo, api_version: &str, kind: &str, json: &[u8]) -> Result<Bytes> {
    let mut writer = Writer::new(envelope_room(api_version, kind), json.len());
    writer.top(info, json, false)?;
    Ok(writer.enveloped(api_version, kind))
}

/// What stands before a list's items.
#[derive(Debug, Clone, Copy, Default)]
pub struct ListHead<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    pub resource_version: &'a str,
    pub continue_token: &'a str,
    pub remaining: Option<u64>,
}

/// A list of objects of one type: items have no envelopes, and no `apiVersion` and `kind`.
pub fn list<'a>(info: &'static TypeInfo, head: &ListHead<'_>, items: impl IntoIterator<Item = &'a [u8]>, size_hint: usize) -> Result<Bytes> {
    let mut writer = Writer::new(envelope_room(head.api_version, head.kind), size_hint);
    wire::key(&mut writer.out, 1, BYTES);
    let start = writer.out.len();
    // `ListMeta`: selfLink = 1, resourceVersion = 2, continue = 3, remainingItemCount = 4.
    for (tag, text) in [(1, ""), (2, head.resource_version), (3, head.continue_token)] {
        wire::bytes(&mut writer.out, tag, text.as_bytes());
    }
    if let Some(remaining) = head.remaining {
        wire::key(&mut writer.out, 4, VARINT);
        wire::varint(&mut writer.out, remaining);
    }
    wire::close(&mut writer.out, start, start);
    for item in items {
        wire::key(&mut writer.out, 2, BYTES);
        writer.top(info, item, true)?;
    }
    Ok(writer.enveloped(head.api_version, head.kind))
}

/// One frame of a watch: its length in four bytes, and a `WatchEvent { type = 1; object = 2 }` whose object is raw: an object in its envelope.
pub fn event_frame(kind: &str, enveloped: &[u8]) -> Bytes {
    let raw = 1 + wire::varint_size(enveloped.len() as u64) + enveloped.len();
    let length = 2 + kind.len() + 1 + wire::varint_size(raw as u64) + raw;
    let mut out = Vec::with_capacity(4 + length);
    out.extend_from_slice(&(length as u32).to_be_bytes());
    wire::bytes(&mut out, 1, kind.as_bytes());
    wire::key(&mut out, 2, BYTES);
    wire::varint(&mut out, raw as u64);
    wire::bytes(&mut out, 1, enveloped);
    out.into()
}

/// The envelope's first part at most: magic, `TypeMeta`, the key and length of the message.
fn envelope_room(api_version: &str, kind: &str) -> usize {
    const LENGTHS_AND_KEYS: usize = 40;
    MAGIC.len() + api_version.len() + kind.len() + LENGTHS_AND_KEYS
}

/// A field that was written: which step of its type, and where it lies.
#[derive(Debug, Clone, Copy)]
struct Span {
    rank: u16,
    start: usize,
    end: usize,
}

/// The bytes written so far and, of every message that is still open, its fields.
struct Writer {
    /// Begins with room for the envelope.
    out: Vec<u8>,
    room: usize,
    spans: Vec<Span>,
    /// Of the embedded messages being closed, their starts.
    opened: Vec<usize>,
}

impl Writer {
    fn new(room: usize, size_hint: usize) -> Self {
        let mut out = Vec::with_capacity(room + size_hint + size_hint / 4 + 64);
        out.resize(room, 0);
        Self { out, room, spans: Vec::with_capacity(32), opened: Vec::new() }
    }

    /// One message from its JSON, with or without its length before it.
    fn top(&mut self, info: &'static TypeInfo, json: &[u8], delimited: bool) -> Result<()> {
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let start = self.out.len();
        (&mut deserializer).deserialize_map(Message { info, writer: self, start, delimited }).and_then(|()| deserializer.end()).map_err(|error| ProtobufError::Json(error.to_string()))
    }

    /// `k8s\0`, then `Unknown { typeMeta = 1 { apiVersion = 1; kind = 2 }; raw = 2; contentEncoding = 3; contentType = 4 }`, right before what is there.
    fn enveloped(mut self, api_version: &str, kind: &str) -> Bytes {
        let mut head = Vec::with_capacity(self.room);
        head.extend_from_slice(MAGIC);
        wire::key(&mut head, 1, BYTES);
        let start = head.len();
        wire::bytes(&mut head, 1, api_version.as_bytes());
        wire::bytes(&mut head, 2, kind.as_bytes());
        wire::close(&mut head, start, start);
        wire::key(&mut head, 2, BYTES);
        wire::varint(&mut head, (self.out.len() - self.room) as u64);
        wire::bytes(&mut self.out, 3, b"");
        wire::bytes(&mut self.out, 4, b"");
        let start = self.room.saturating_sub(head.len());
        self.out[start..self.room].copy_from_slice(&head);
        Bytes::from(self.out).slice(start..)
    }

    /// Ends a message whose fields lie from `start` on, and whose spans from `mark` on: puts them in order. With a length before it unless it is the outermost.
    fn finish(&mut self, info: &'static TypeInfo, mark: usize, start: usize, delimited: bool) {
        let steps = &info.wire.steps;
        self.spans[mark..].sort_unstable_by_key(|span| span.rank);
        let ordered = self.out.len();
        let opened = self.opened.len();
        let mut at = mark;
        for (rank, step) in steps.iter().enumerate() {
            match step {
                Step::Field(place) => match self.spans.get(at) {
                    Some(span) if usize::from(span.rank) == rank => {
                        self.out.extend_from_within(span.start..span.end);
                        at += 1;
                    }
                    _ => absent(&mut self.out, &info.fields[usize::from(*place)]),
                },
                Step::Open(tag) => {
                    wire::key(&mut self.out, u32::from(*tag), BYTES);
                    self.opened.push(self.out.len());
                }
                Step::Close => {
                    if let Some(start) = self.opened.pop() {
                        wire::close(&mut self.out, start, start);
                    }
                }
            }
        }
        self.opened.truncate(opened);
        self.spans.truncate(mark);
        if delimited {
            wire::close(&mut self.out, ordered, start);
        } else {
            let length = self.out.len() - ordered;
            self.out.copy_within(ordered.., start);
            self.out.truncate(start + length);
        }
    }
}

/// What Go writes of a field nobody set: nothing of pointers, lists, maps and bytes; else its zero.
fn absent(out: &mut Vec<u8>, field: &'static Field) {
    if field.pointer {
        return;
    }
    let tag = u32::from(field.proto_tag.last().copied().unwrap_or(0));
    match &field.ty {
        FieldType::List(_) | FieldType::Map(_) | FieldType::Bytes => {}
        ty => zero(out, tag, ty),
    }
}

/// A value's zero under its key.
fn zero(out: &mut Vec<u8>, tag: u32, ty: &FieldType) {
    match ty {
        FieldType::Bool | FieldType::Int32 | FieldType::Int64 => {
            wire::key(out, tag, VARINT);
            out.push(0);
        }
        FieldType::Double => {
            wire::key(out, tag, FIXED64);
            out.extend_from_slice(&[0; 8]);
        }
        FieldType::Quantity => wire::bytes(out, tag, b"\x0a\x010"),
        FieldType::IntOrString => wire::bytes(out, tag, b"\x08\0\x10\0\x1a\0"),
        FieldType::Type(reference) => {
            wire::key(out, tag, BYTES);
            let start = out.len();
            empty(out, reference.info());
            wire::close(out, start, start);
        }
        _ => wire::bytes(out, tag, b""),
    }
}

/// A message in which nothing is set.
fn empty(out: &mut Vec<u8>, info: &'static TypeInfo) {
    let mut opened = Vec::new();
    for step in &info.wire.steps {
        match step {
            Step::Field(place) => absent(out, &info.fields[usize::from(*place)]),
            Step::Open(tag) => {
                wire::key(out, u32::from(*tag), BYTES);
                opened.push(out.len());
            }
            Step::Close => {
                if let Some(start) = opened.pop() {
                    wire::close(out, start, start);
                }
            }
        }
    }
}

/// A JSON object as a message: its length (unless outermost) and its fields go to `start`.
struct Message<'a> {
    info: &'static TypeInfo,
    writer: &'a mut Writer,
    start: usize,
    delimited: bool,
}

impl<'de> Visitor<'de> for Message<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.info.go_name())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<(), A::Error> {
        fields(self.info, self.writer, self.start, self.delimited, map)
    }
}

fn fields<'de, A: MapAccess<'de>>(info: &'static TypeInfo, writer: &mut Writer, start: usize, delimited: bool, mut map: A) -> std::result::Result<(), A::Error> {
    let mark = writer.spans.len();
    let mut from = 0;
    while let Some(place) = map.next_key_seed(Name { info, from })? {
        let Some((place, rank)) = place else {
            map.next_value::<IgnoredAny>()?;
            continue;
        };
        from = place + 1;
        let field = &info.fields[place];
        let start = writer.out.len();
        // Of a field that stands twice, the last counts.
        if let Some(twice) = writer.spans[mark..].iter().position(|span| span.rank == rank) {
            writer.spans.swap_remove(mark + twice);
        }
        map.next_value_seed(Slot { ty: &field.ty, tag: u32::from(field.proto_tag.last().copied().unwrap_or(0)), wrapped: field.wrapped, in_list: false, writer })?;
        let end = writer.out.len();
        if end > start {
            writer.spans.push(Span { rank, start, end });
        }
    }
    writer.finish(info, mark, start, delimited);
    Ok(())
}

/// A field's name: its place among the type's fields and in the order of the wire. None of what is not on the wire.
struct Name {
    info: &'static TypeInfo,
    /// Names mostly come sorted: the next one lies behind the last one.
    from: usize,
}

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Option<(usize, u16)>;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Option<(usize, u16)>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E>(self, name: &str) -> std::result::Result<Self::Value, E> {
        let Self { info, from } = self;
        let ahead = info.fields[from..].iter().position(|field| field.name == name).map(|at| from + at);
        let Some(place) = ahead.or_else(|| info.place(name)) else { return Ok(None) };
        Ok(info.wire.ranks[place].map(|rank| (place, rank)))
    }
}

/// One value under its key: writes nothing for null.
struct Slot<'a> {
    ty: &'static FieldType,
    tag: u32,
    /// A list in a message of its own: `Verbs`.
    wrapped: bool,
    /// A list writes its nulls: as zeros.
    in_list: bool,
    writer: &'a mut Writer,
}

impl<'de> DeserializeSeed<'de> for Slot<'_> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        match self.ty {
            FieldType::Any | FieldType::Object => {
                let raw = <&RawValue>::deserialize(deserializer)?.get();
                let out = &mut self.writer.out;
                if raw == "null" {
                    if self.in_list {
                        zero(out, self.tag, self.ty);
                    }
                } else {
                    wire::key(out, self.tag, BYTES);
                    let length = 1 + wire::varint_size(raw.len() as u64) + raw.len();
                    wire::varint(out, length as u64);
                    wire::bytes(out, 1, raw.as_bytes());
                }
                Ok(())
            }
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl Slot<'_> {
    fn text<E: de::Error>(self, text: &str) -> std::result::Result<(), E> {
        let (tag, out) = (self.tag, &mut self.writer.out);
        match self.ty {
            FieldType::String => wire::bytes(out, tag, text.as_bytes()),
            FieldType::Bytes => {
                wire::key(out, tag, BYTES);
                let start = out.len();
                STANDARD.decode_vec(text, out).map_err(E::custom)?;
                wire::close(out, start, start);
            }
            FieldType::Quantity => {
                wire::key(out, tag, BYTES);
                wire::varint(out, (1 + wire::varint_size(text.len() as u64) + text.len()) as u64);
                wire::bytes(out, 1, text.as_bytes());
            }
            FieldType::Time | FieldType::MicroTime => {
                let at: Timestamp = text.parse().map_err(E::custom)?;
                let micros = if matches!(self.ty, FieldType::MicroTime) { at.as_microsecond() } else { at.as_second() * MICROS };
                wire::key(out, tag, BYTES);
                let start = out.len();
                for (tag, number) in [(1, micros.div_euclid(MICROS)), (2, micros.rem_euclid(MICROS) * NANOS_PER_MICRO)] {
                    wire::key(out, tag, VARINT);
                    wire::varint(out, number as u64);
                }
                wire::close(out, start, start);
            }
            FieldType::IntOrString => int_or_string(out, tag, 1, 0, text),
            _ => return Err(E::invalid_type(de::Unexpected::Str(text), &self)),
        }
        Ok(())
    }

    fn number<E: de::Error>(self, number: i64) -> std::result::Result<(), E> {
        let (tag, out) = (self.tag, &mut self.writer.out);
        match self.ty {
            FieldType::Int32 | FieldType::Int64 => {
                wire::key(out, tag, VARINT);
                wire::varint(out, number as u64);
            }
            FieldType::Double => return self.visit_f64(number as f64),
            FieldType::IntOrString => int_or_string(out, tag, 0, number, ""),
            FieldType::Quantity => return self.text(&number.to_string()),
            _ => return Err(E::invalid_type(de::Unexpected::Signed(number), &self)),
        }
        Ok(())
    }
}

const MICROS: i64 = 1_000_000;
const NANOS_PER_MICRO: i64 = 1_000;

fn int_or_string(out: &mut Vec<u8>, tag: u32, kind: u64, number: i64, text: &str) {
    wire::key(out, tag, BYTES);
    let start = out.len();
    for (tag, number) in [(1, kind), (2, number as u64)] {
        wire::key(out, tag, VARINT);
        wire::varint(out, number);
    }
    wire::bytes(out, 3, text.as_bytes());
    wire::close(out, start, start);
}

impl<'de> Visitor<'de> for Slot<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.ty)
    }

    fn visit_unit<E: de::Error>(self) -> std::result::Result<(), E> {
        if self.in_list {
            zero(&mut self.writer.out, self.tag, self.ty);
        }
        Ok(())
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> std::result::Result<(), E> {
        let (tag, out) = (self.tag, &mut self.writer.out);
        match self.ty {
            FieldType::Bool => {
                wire::key(out, tag, VARINT);
                out.push(u8::from(value));
            }
            FieldType::SchemaOrBool => wire::bytes(out, tag, &[8, u8::from(value)]),
            _ => return Err(E::invalid_type(de::Unexpected::Bool(value), &self)),
        }
        Ok(())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> std::result::Result<(), E> {
        self.number(value)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> std::result::Result<(), E> {
        match i64::try_from(value) {
            Ok(value) => self.number(value),
            Err(_) if matches!(self.ty, FieldType::Double) => self.visit_f64(value as f64),
            Err(_) => Err(E::invalid_value(de::Unexpected::Unsigned(value), &self)),
        }
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> std::result::Result<(), E> {
        match self.ty {
            FieldType::Double => {
                wire::key(&mut self.writer.out, self.tag, FIXED64);
                self.writer.out.extend_from_slice(&value.to_bits().to_le_bytes());
                Ok(())
            }
            // Go reads 1.0 as no integer either; a stored value never is one.
            _ => Err(E::invalid_type(de::Unexpected::Float(value), &self)),
        }
    }

    fn visit_str<E: de::Error>(self, value: &str) -> std::result::Result<(), E> {
        self.text(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<(), A::Error> {
        let writer = self.writer;
        match self.ty {
            FieldType::List(item) if self.wrapped => {
                wire::key(&mut writer.out, self.tag, BYTES);
                let start = writer.out.len();
                while items.next_element_seed(Slot { ty: item, tag: 1, wrapped: false, in_list: true, writer: &mut *writer })?.is_some() {}
                wire::close(&mut writer.out, start, start);
            }
            FieldType::List(item) => while items.next_element_seed(Slot { ty: item, tag: self.tag, wrapped: false, in_list: true, writer: &mut *writer })?.is_some() {},
            FieldType::SchemaOrArray | FieldType::SchemaOrStrings => {
                wire::key(&mut writer.out, self.tag, BYTES);
                let start = writer.out.len();
                let item = if matches!(self.ty, FieldType::SchemaOrArray) { one_schema().map_err(de::Error::custom)? } else { &FieldType::String };
                while items.next_element_seed(Slot { ty: item, tag: 2, wrapped: false, in_list: true, writer: &mut *writer })?.is_some() {}
                wire::close(&mut writer.out, start, start);
            }
            _ => return Err(de::Error::invalid_type(de::Unexpected::Seq, &"no list")),
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        let (tag, writer) = (self.tag, self.writer);
        match self.ty {
            FieldType::Type(reference) => {
                wire::key(&mut writer.out, tag, BYTES);
                let start = writer.out.len();
                fields(reference.info(), writer, start, true, map)
            }
            FieldType::Map(item) => entries(item, tag, writer, &mut map),
            FieldType::SchemaOrBool | FieldType::SchemaOrArray | FieldType::SchemaOrStrings => {
                wire::key(&mut writer.out, tag, BYTES);
                let start = writer.out.len();
                // `JSONSchemaPropsOrBool { allows = 1; schema = 2 }`; the other two have the schema first.
                if matches!(self.ty, FieldType::SchemaOrBool) {
                    writer.out.extend_from_slice(&[8, 1]);
                }
                wire::key(&mut writer.out, if matches!(self.ty, FieldType::SchemaOrBool) { 2 } else { 1 }, BYTES);
                let inner = writer.out.len();
                fields(schema_of_schemas().map_err(de::Error::custom)?, writer, inner, true, map)?;
                wire::close(&mut writer.out, start, start);
                Ok(())
            }
            _ => Err(de::Error::invalid_type(de::Unexpected::Map, &"no object")),
        }
    }
}


/// What a list of schemas holds.
fn one_schema() -> Result<&'static FieldType> {
    schema_of_schemas()?.field("not").map(|field| &field.ty).ok_or(ProtobufError::Invalid("no schema of schemas"))
}

/// A map's entries `{ key = 1; value = 2 }`, by key.
fn entries<'de, A: MapAccess<'de>>(item: &'static FieldType, tag: u32, writer: &mut Writer, map: &mut A) -> std::result::Result<(), A::Error> {
    let first = writer.out.len();
    let mut written: Vec<Entry> = Vec::new();
    let mut sorted = true;
    loop {
        let begin = writer.out.len();
        wire::key(&mut writer.out, tag, BYTES);
        let start = writer.out.len();
        let Some(length) = map.next_key_seed(Key(&mut writer.out))? else {
            writer.out.truncate(begin);
            break;
        };
        map.next_value_seed(Slot { ty: item, tag: 2, wrapped: matches!(item, FieldType::List(_)), in_list: true, writer: &mut *writer })?;
        let size = writer.out.len() - start;
        wire::close(&mut writer.out, start, start);
        let key = start + wire::varint_size(size as u64) + 1 + wire::varint_size(length as u64);
        let entry = Entry { begin, end: writer.out.len(), key, key_end: key + length };
        sorted = sorted && written.last().is_none_or(|last| writer.out[last.key..last.key_end] < writer.out[entry.key..entry.key_end]);
        written.push(entry);
    }
    if !sorted {
        let out = &mut writer.out;
        written.sort_by(|a, b| out[a.key..a.key_end].cmp(&out[b.key..b.key_end]));
        let end = out.len();
        written.iter().for_each(|entry| out.extend_from_within(entry.begin..entry.end));
        out.copy_within(end.., first);
        out.truncate(end);
    }
    Ok(())
}

/// Where an entry of a map lies, and its key.
struct Entry {
    begin: usize,
    end: usize,
    key: usize,
    key_end: usize,
}

/// Writes a key of a map; its length.
struct Key<'a>(&'a mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = usize;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> std::result::Result<usize, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> std::result::Result<usize, E> {
        wire::bytes(self.0, 1, key.as_bytes());
        Ok(key.len())
    }
}
