//! Values made from the schema facts go to the wire and come back the same, for every row and every kind that is spoken beside them.

use serde_json::{Map, Value, json};

use super::*;
use crate::schema::{FieldType, TypeInfo};

/// Kinds without a row.
const BESIDE: &[(&str, &str)] = &[
    ("v1", "Status"),
    ("v1", "APIGroup"),
    ("v1", "APIGroupList"),
    ("v1", "APIResourceList"),
    ("v1", "APIVersions"),
    ("v1", "DeleteOptions"),
    ("meta.k8s.io/v1", "PartialObjectMetadata"),
    ("meta.k8s.io/v1", "PartialObjectMetadataList"),
    ("apidiscovery.k8s.io/v2", "APIGroupDiscoveryList"),
    ("autoscaling/v1", "Scale"),
    ("policy/v1", "Eviction"),
    ("authentication.k8s.io/v1", "TokenRequest"),
];

/// Types refer to themselves: so deep they are filled.
const DEPTH: usize = 12;

struct Maker {
    counter: i64,
    /// The types that are being filled, each at most twice.
    open: Vec<&'static str>,
}

impl Maker {
    /// Every field of `info` set to something that is not zero.
    fn object(&mut self, info: &'static TypeInfo) -> Map<String, Value> {
        self.open.push(&info.name);
        let mut map = Map::new();
        for field in &info.fields {
            if field.proto_tag.is_empty() {
                continue;
            }
            if let Some(value) = self.value(&field.ty, field.name) {
                map.insert(field.name.to_owned(), value);
            }
        }
        self.open.pop();
        map
    }

    fn number(&mut self) -> i64 {
        self.counter += 1;
        self.counter * if self.counter % 3 == 0 { -1 } else { 1 }
    }

    fn value(&mut self, ty: &'static FieldType, name: &str) -> Option<Value> {
        Some(match ty {
            FieldType::String => format!("{name} {} \u{e9}\n\"", self.number()).into(),
            FieldType::Bool => true.into(),
            FieldType::Int32 => self.number().into(),
            FieldType::Int64 => (self.number() * 1_000_000_007).into(),
            FieldType::Double => 1.5.into(),
            FieldType::Bytes => "AQL/".into(),
            FieldType::Quantity => "1500m".into(),
            FieldType::IntOrString if self.number() % 2 == 0 => "25%".into(),
            FieldType::IntOrString => self.number().into(),
            FieldType::Time => "2026-11-22T01:02:03Z".into(),
            FieldType::MicroTime => "1969-12-31T23:59:58.000456Z".into(),
            FieldType::Any => json!([1, "two", {"three": null}]),
            FieldType::Object => json!({"apiVersion": "example.com/v1", "kind": "Thing", "spec": {"a": [1.5, true]}}),
            FieldType::SchemaOrBool => false.into(),
            FieldType::SchemaOrArray => json!([{"type": "string"}, {"minimum": 2.5}]),
            FieldType::SchemaOrStrings => json!(["a", "b"]),
            FieldType::Type(reference) => {
                let info = reference.info();
                if self.open.len() > DEPTH || self.open.iter().filter(|name| **name == &*info.name).count() > 1 {
                    return None;
                }
                Value::Object(self.object(info))
            }
            FieldType::List(item) => {
                let items: Vec<Value> = (0..2).filter_map(|_| self.value(item, name)).collect();
                if items.is_empty() {
                    return None;
                }
                items.into()
            }
            FieldType::Map(item) => {
                let entries: Map<String, Value> = ["b", "a", "c"].into_iter().filter_map(|key| Some((key.to_owned(), self.value(item, name)?))).collect();
                if entries.is_empty() {
                    return None;
                }
                Value::Object(entries)
            }
        })
    }
}

fn kinds() -> Vec<(String, String, &'static TypeInfo)> {
    let rows = table().rows().iter().map(|row| (row.api_version(), row.kind.to_string()));
    let beside = BESIDE.iter().map(|(version, kind)| ((*version).to_owned(), (*kind).to_owned()));
    rows.chain(beside)
        .map(|(version, kind)| {
            let (group, plain) = split_version(&version);
            let info = type_of(group, plain, &kind).unwrap_or_else(|| panic!("{version} {kind} has no type"));
            (version, kind, info)
        })
        .collect()
}

#[test]
fn full_values_come_back_the_same() {
    for (api_version, kind, info) in kinds() {
        let mut map = Maker { counter: 0, open: Vec::new() }.object(info);
        map.insert("apiVersion".into(), api_version.clone().into());
        map.insert("kind".into(), kind.clone().into());
        let value = Value::Object(map);
        let wire = encode(value.to_string().as_bytes()).unwrap_or_else(|error| panic!("{kind}: {error}"));
        let back = decode(&wire).unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert_eq!(back, value, "{api_version} {kind}");
        assert_eq!(encode(back.to_string().as_bytes()).unwrap(), wire, "{kind}: twice the same bytes");
    }
}

#[test]
fn empty_values_come_back_as_go_fills_them() {
    for (api_version, kind, info) in kinds() {
        let mut value = json!({"apiVersion": api_version, "kind": kind});
        crate::schema::check(&info.name, &kind, "v1", &mut value).unwrap();
        let wire = encode(value.to_string().as_bytes()).unwrap();
        // Without anything written, the same zeros go to the wire.
        assert_eq!(encode(json!({"apiVersion": api_version, "kind": kind}).to_string().as_bytes()).unwrap(), wire, "{kind}");
        let mut back = decode(&wire).unwrap();
        crate::schema::check(&info.name, &kind, "v1", &mut back).unwrap();
        assert_eq!(back, value, "{api_version} {kind}");
    }
}

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

/// `ObjectMeta` as Go writes it: texts that are no pointers are there though empty, and so are the creation's time and the generation.
fn meta(name: &str, after: &[u8]) -> Vec<u8> {
    [field(1, name.as_bytes()), field(2, b""), field(3, b""), field(4, b""), field(5, b""), field(6, b""), vec![7 << 3, 0], field(8, b""), after.to_vec()].concat()
}

#[test]
fn written_as_go_writes_it() {
    let labels = [field(11, &[field(1, b"a"), field(2, b"1")].concat()), field(11, &[field(1, b"b"), field(2, b"")].concat())].concat();
    let cases: [(Value, Vec<u8>); 4] = [
        (
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "labels": {"b": "", "a": "1"}}, "data": {"k": "v"}, "binaryData": {"z": "/w=="}}),
            envelope("v1", "ConfigMap", &[field(1, &meta("x", &labels)), field(2, &[field(1, b"k"), field(2, b"v")].concat()), field(3, &[field(1, b"z"), field(2, b"\xff")].concat())].concat()),
        ),
        // A pointer's zero is written, a missing pointer not; a map's value may be a message.
        (json!({"apiVersion": "v1", "kind": "ConfigMap", "immutable": false}), envelope("v1", "ConfigMap", &[field(1, &meta("", b"")), vec![4 << 3, 0]].concat())),
        (
            json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"creationTimestamp": null}, "spec": {"replicas": -1}, "status": {"replicas": 300}}),
            envelope(
                "autoscaling/v1",
                "Scale",
                &[field(1, &meta("", b"")), field(2, &[8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]), field(3, &[&[8, 0xac, 2][..], &field(2, b"")].concat())].concat(),
            ),
        ),
        (
            json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": [{"name": "pods", "singularName": "", "namespaced": true, "kind": "Pod", "verbs": ["get"]}]}),
            envelope(
                "",
                "APIResourceList",
                &[
                    field(1, b"v1"),
                    field(2, &[field(1, b"pods"), vec![2 << 3, 1], field(3, b"Pod"), field(4, &field(1, b"get")), field(6, b""), field(8, b""), field(9, b""), field(10, b"")].concat()),
                ]
                .concat(),
            ),
        ),
    ];
    for (json, want) in cases {
        // Whatever order the text has, the wire has its own.
        assert_eq!(encode(json.to_string().as_bytes()).unwrap(), want, "{json}");
    }
    let unsorted = br#"{"data":{"b":"2","a":"1"},"kind":"ConfigMap","apiVersion":"v1"}"#;
    let sorted = br#"{"apiVersion":"v1","kind":"ConfigMap","data":{"a":"1","b":"2"}}"#;
    assert_eq!(encode(unsorted).unwrap(), encode(sorted).unwrap());
}

#[test]
fn lists_have_items_without_envelopes() {
    let info = type_of("", "v1", "ConfigMap").unwrap();
    let head = ListHead { api_version: "v1", kind: "ConfigMapList", resource_version: "7", continue_token: "c", remaining: Some(2) };
    let item = br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"}}"#;
    let raw = [field(1, &[field(1, b""), field(2, b"7"), field(3, b"c"), vec![4 << 3, 2]].concat()), field(2, &field(1, &meta("x", b"")))].concat();
    assert_eq!(list(info, &head, [&item[..]], 0).unwrap(), envelope("v1", "ConfigMapList", &raw));
}

#[test]
fn events_are_framed_by_length() {
    let object = encode(br#"{"apiVersion":"v1","kind":"Status","status":"Success"}"#).unwrap();
    let frame = event_frame("ADDED", &object);
    let body = [field(1, b"ADDED"), field(2, &field(1, &object))].concat();
    assert_eq!(frame[..4], (body.len() as u32).to_be_bytes());
    assert_eq!(frame[4..], body[..]);
}

#[test]
fn what_does_not_fit_is_told() {
    let refused = |json: &str| encode(json.as_bytes()).unwrap_err();
    assert!(matches!(refused(r#"{"apiVersion":"example.com/v1","kind":"Thing"}"#), ProtobufError::UnknownKind { .. }));
    assert!(matches!(refused(r#"{"apiVersion":"v1","kind":"ConfigMap","data":[]}"#), ProtobufError::Json(_)));
    assert!(matches!(refused(r#"{"apiVersion":"v1","kind":"ConfigMap","data":{"a":"#), ProtobufError::Json(_)));
    assert!(matches!(refused("7"), ProtobufError::Json(_)));
}

/// Marsaglia's xorshift: the same inputs in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }

    /// A few bytes changed, taken out, put in or repeated.
    fn mutate(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(out.len());
            match self.below(5) {
                0 if !out.is_empty() => out[at] ^= 1 << self.below(8),
                1 if !out.is_empty() => out[at] = self.below(256) as u8,
                2 => out.truncate(at),
                3 => out.splice(at..at, [0xff; 9]).for_each(drop),
                _ => {
                    let end = (at + self.below(64)).min(out.len());
                    out.extend_from_within(at..end);
                }
            }
        }
        out
    }
}

/// Whatever comes in, something comes out: no panic, no read past the end; and what was read can be written.
#[test]
fn broken_messages_never_panic() {
    const ROUNDS: usize = 40;
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    for (api_version, kind, info) in kinds() {
        let mut map = Maker { counter: 0, open: Vec::new() }.object(info);
        map.insert("apiVersion".into(), api_version.into());
        map.insert("kind".into(), kind.into());
        let json = Value::Object(map).to_string();
        let wire = encode(json.as_bytes()).unwrap();
        // Large kinds are mutated where it matters, at their ends, less often.
        for _ in 0..ROUNDS.min(1 + 400_000 / wire.len()) {
            if let Ok(value) = decode(&chance.mutate(&wire)) {
                let _ = encode(value.to_string().as_bytes());
            }
            let _ = encode(&chance.mutate(json.as_bytes()));
        }
    }
    for _ in 0..2_000 {
        let length = chance.below(64);
        let noise: Vec<u8> = MAGIC.iter().copied().chain((0..length).map(|_| chance.below(256) as u8)).collect();
        let _ = decode(&noise);
    }
}

/// Depth is limited, and lengths are those of what is there: nothing is set aside for what a message claims.
#[test]
fn depth_and_lengths_are_bounded() {
    let props = |inner: &[u8]| {
        // JSONSchemaProps.not = 26
        let mut out = vec![0xd2, 0x01];
        wire::varint(&mut out, inner.len() as u64);
        out.extend_from_slice(inner);
        out
    };
    let nested = (0..MAX_DEPTH * 4).fold(Vec::new(), |inner, _| props(&inner));
    let mut around = Vec::new();
    // CustomResourceDefinition.spec.versions[].schema.openAPIV3Schema
    for (at, tag) in [1u32, 4, 7, 2].into_iter().enumerate() {
        let inner = if at == 0 { nested.clone() } else { std::mem::take(&mut around) };
        wire::bytes(&mut around, tag, &inner);
    }
    let mut bytes = MAGIC.to_vec();
    let mut meta = field(1, b"apiextensions.k8s.io/v1");
    meta.extend(field(2, b"CustomResourceDefinition"));
    wire::bytes(&mut bytes, 1, &meta);
    wire::bytes(&mut bytes, 2, &around);
    assert_eq!(decode(&bytes), Err(ProtobufError::Invalid("messages are nested too deeply")));
    let claims = [MAGIC, &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]].concat();
    assert_eq!(decode(&claims), Err(ProtobufError::Truncated));
    let deep = format!(r#"{{"apiVersion":"v1","kind":"Status","details":{}"#, r#"{"a":"#.repeat(100_000));
    assert!(matches!(encode(deep.as_bytes()), Err(ProtobufError::Json(_))));
}
