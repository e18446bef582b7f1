//! The schema facts: which fields a built-in type has, of what type, how lists merge, which protobuf tag each has.
//!
//! The facts are in `schema/schema.txt`, written by `cargo xtask gen`, and `schema/beside.txt`, the few types that no library has; they are parsed on first use (about half a MiB in memory). [`check`] uses them to hold a JSON
//! value against a type as upstream's decoder does; `patch` and `openapi` read them.

mod check;
mod duplicates;
mod equal;
mod order;
mod parse;
mod time;

use std::sync::LazyLock;

pub use check::{TypeMismatch, UnknownField, check};
pub use duplicates::{duplicate_fields, fields_in_order};
pub use order::{Step, Wire};

/// What a field holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldType {
    String,
    Bool,
    Int32,
    Int64,
    Double,
    /// Base64 text.
    Bytes,
    Quantity,
    IntOrString,
    /// RFC 3339 in whole seconds.
    Time,
    /// RFC 3339 with six decimals.
    MicroTime,
    /// Any JSON: `JSON`.
    Any,
    /// Any JSON object, in practice: `RawExtension`, `FieldsV1`.
    Object,
    /// `JSONSchemaPropsOrBool`
    SchemaOrBool,
    /// `JSONSchemaPropsOrArray`
    SchemaOrArray,
    /// `JSONSchemaPropsOrStringArray`
    SchemaOrStrings,
    Type(TypeRef),
    List(Box<FieldType>),
    /// With string keys.
    Map(Box<FieldType>),
}

impl FieldType {
    /// The type of its items or values, when it is a list or a map.
    pub fn item(&self) -> Option<&FieldType> {
        match self {
            FieldType::List(item) | FieldType::Map(item) => Some(item),
            _ => None,
        }
    }

    /// The struct it is.
    pub fn info(&self) -> Option<&'static TypeInfo> {
        match self {
            FieldType::Type(reference) => Some(reference.info()),
            _ => None,
        }
    }
}

/// A type by its place in the table; types refer to one another and to themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TypeRef(u16);

impl TypeRef {
    pub fn info(self) -> &'static TypeInfo {
        &SCHEMA.types[usize::from(self.0)]
    }
}

/// Who owns what of a list (server-side apply).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ListType {
    /// One owner for the whole list; also what is meant when upstream says nothing.
    #[default]
    Atomic,
    /// Each item is owned, and is its own key.
    Set,
    /// Each item is owned; [`Field::map_keys`] tell items apart.
    Map,
}

/// How strategic merge patch treats a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PatchStrategy {
    pub merge: bool,
    pub retain_keys: bool,
    /// An object is put in the other's place instead of being merged into it.
    pub replace: bool,
}

/// One field of one type.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// As in JSON.
    pub name: &'static str,
    pub ty: FieldType,
    pub required: bool,
    /// A pointer in Go: a zero that was written is kept.
    pub pointer: bool,
    /// Encoded even when zero.
    pub always: bool,
    /// None where upstream says nothing (then [`ListType::Atomic`] holds).
    pub list_type: Option<ListType>,
    pub map_keys: Box<[&'static str]>,
    /// A map or struct with one owner for the whole.
    pub atomic: bool,
    pub patch_strategy: PatchStrategy,
    pub patch_merge_key: Option<&'static str>,
    /// The protobuf tag; several for a field of messages that JSON leaves out (Go embeds them): outermost first. Empty when unknown.
    pub proto_tag: Box<[u8]>,
    /// A list that is a message of its own on the wire: `Verbs`.
    pub wrapped: bool,
    /// As JSON text.
    pub default: Option<&'static str>,
    /// Go's name of its type where it is not the plain one: `v1.RestartPolicy`.
    pub go: Option<&'static str>,
    /// The values it (or each of its items) can have; empty when it is no enumeration.
    pub choices: Box<[Box<str>]>,
}

/// One built-in type.
#[derive(Debug, PartialEq)]
pub struct TypeInfo {
    /// As in OpenAPI: `io.k8s.api.core.v1.Pod`.
    pub name: Box<str>,
    /// By name.
    pub fields: Box<[Field]>,
    /// One owner for the whole (`x-kubernetes-map-type: atomic`).
    pub atomic: bool,
    /// Has `apiVersion` and `kind` of its own.
    pub kind: bool,
    /// The order of its fields on the wire.
    pub wire: Wire,
    /// Fields that Go encodes even when nobody wrote them.
    fill: Box<[u16]>,
}

impl TypeInfo {
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.place(name).map(|at| &self.fields[at])
    }

    /// Where a field stands in [`Self::fields`].
    pub fn place(&self, name: &str) -> Option<usize> {
        self.fields.binary_search_by(|field| field.name.cmp(name)).ok()
    }

    /// What Go encodes of an object in which nothing is set: structs that are no pointers, and plain values, lists (as null) that are always written.
    pub fn empty(&self) -> serde_json::Value {
        check::empty(self)
    }

    /// As Go prints the type: `v1.Pod`.
    pub fn go_name(&self) -> &str {
        let kind = self.name.rfind('.').unwrap_or(0);
        let version = self.name[..kind].rfind('.').map_or(0, |at| at + 1);
        &self.name[version..]
    }

    /// `Pod`
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }
}

struct Schema {
    /// By name.
    types: Vec<TypeInfo>,
}

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| Schema { types: parse::parse(FACTS) });

const FACTS: &str = concat!(include_str!("schema/schema.txt"), include_str!("schema/beside.txt"));

/// A type by its name in OpenAPI: `io.k8s.api.core.v1.Pod`.
pub fn of(name: &str) -> Option<&'static TypeInfo> {
    let schema: &'static Schema = &SCHEMA;
    schema.types.binary_search_by(|ty| (*ty.name).cmp(name)).ok().map(|at| &schema.types[at])
}

/// The type of an object that says what it is: `apps/v1`, `Deployment`.
pub fn of_kind(api_version: &str, kind: &str) -> Option<&'static TypeInfo> {
    let (group, version) = api_version.split_once('/').unwrap_or(("core", api_version));
    of(&format!("io.k8s.api.{}.{version}.{kind}", group.split('.').next().unwrap_or(group)))
}

/// All types, by name.
pub fn types() -> &'static [TypeInfo] {
    &SCHEMA.types
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::table;

    #[test]
    fn every_row_has_its_type() {
        for row in table().rows() {
            let ty = of(&row.schema).unwrap_or_else(|| panic!("{} is unknown", row.schema));
            assert!(ty.kind, "{}", row.schema);
        }
    }

    #[test]
    fn knows_how_ports_merge() {
        let ports = of("io.k8s.api.core.v1.ServiceSpec").unwrap().field("ports").unwrap();
        assert_eq!(ports.list_type, Some(ListType::Map));
        assert_eq!(*ports.map_keys, ["port", "protocol"]);
        assert_eq!(ports.patch_merge_key, Some("port"));
        assert!(ports.patch_strategy.merge && !ports.patch_strategy.retain_keys);
        let port = ports.ty.item().and_then(FieldType::info).unwrap();
        assert_eq!(port.field("protocol").unwrap().default, Some("\"TCP\""));
        assert_eq!(of("io.k8s.api.core.v1.Volume").unwrap().field("emptyDir").unwrap().proto_tag[..], [2, 2]);
        assert!(of("io.k8s.api.core.v1.PodSpec").unwrap().field("volumes").unwrap().patch_strategy.retain_keys);
    }

    #[test]
    fn tags_are_complete() {
        // A protobuf transcoder stands on them; only what is no protobuf at all may lack one.
        const NO_PROTOBUF: &[&str] = &["io.k8s.apimachinery.pkg.version.Info"];
        for ty in types() {
            for field in ty.fields.iter().filter(|field| !matches!(field.name, "apiVersion" | "kind")) {
                assert!(!field.proto_tag.is_empty() || NO_PROTOBUF.contains(&&*ty.name), "{}.{}", ty.name, field.name);
            }
        }
    }
}
