//! Declared types with sizes: what a variable holds, how large it can get, and how JSON becomes values of it. Upstream: `DeclType` and
//! `SchemaDeclType` in apiserver's `cel` packages.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::escape::escape;
use crate::limits::MAX_REQUEST_SIZE_BYTES;
use crate::types::{Fields, ObjectField, ObjectType, Type};

/// A string of JSON is at least `""`, a list `[]`, an object `{}`.
const MIN_STRING_SIZE: u64 = 2;
const MIN_BOOL_SIZE: u64 = 4;
const MIN_NUMBER_SIZE: u64 = 1;
const MIN_DURATION_SIZE: u64 = 3;
const DATE_SIZE: u64 = 12;
const MIN_DATETIME_SIZE: u64 = 21;
const MAX_DURATION_SIZE: u64 = 32;
const MAX_DATETIME_SIZE: u64 = 32;
/// A code point has up to four bytes.
const BYTES_PER_CHARACTER: u64 = 4;
/// The root type of a schema; fields of it are `selfType.field`.
const ROOT_NAME: &str = "selfType";
/// A schema nested deeper is not shown to CEL below this.
const SCHEMA_DEPTH_LIMIT: u32 = 100;

#[derive(Clone, Debug)]
pub struct DeclType(Arc<Decl>);

#[derive(Debug)]
struct Decl {
    ty: Type,
    max_elements: u64,
    min_serialized_size: u64,
    shape: Shape,
    nullable: bool,
}

#[derive(Debug)]
pub(crate) enum Shape {
    Scalar,
    /// A string that holds a date without a time.
    Date,
    IntOrString,
    List {
        element: DeclType,
        kind: ListKind,
    },
    Map {
        key: DeclType,
        value: DeclType,
    },
    Object(Arc<ObjectType>),
    Optional(DeclType),
}

/// `x-kubernetes-list-type`: what equality and `+` mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ListKind {
    Atomic,
    Set,
    /// By these fields, by their names in JSON.
    Map(Vec<String>),
}

impl DeclType {
    fn make(ty: Type, max_elements: u64, min_serialized_size: u64, shape: Shape) -> Self {
        Self(Arc::new(Decl { ty, max_elements, min_serialized_size, shape, nullable: false }))
    }

    pub fn dyn_() -> Self {
        Self::make(Type::Dyn, u64::MAX, 1, Shape::Scalar)
    }

    pub fn null() -> Self {
        Self::make(Type::Null, 0, 4, Shape::Scalar)
    }

    pub fn bool() -> Self {
        Self::make(Type::Bool, 0, MIN_BOOL_SIZE, Shape::Scalar)
    }

    pub fn int() -> Self {
        Self::make(Type::Int, 0, MIN_NUMBER_SIZE, Shape::Scalar)
    }

    pub fn uint() -> Self {
        Self::make(Type::Uint, 0, MIN_NUMBER_SIZE, Shape::Scalar)
    }

    pub fn double() -> Self {
        Self::make(Type::Double, 0, MIN_NUMBER_SIZE, Shape::Scalar)
    }

    pub fn string() -> Self {
        Self::make(Type::String, u64::MAX, MIN_STRING_SIZE, Shape::Scalar)
    }

    pub fn bytes() -> Self {
        Self::make(Type::Bytes, u64::MAX, MIN_STRING_SIZE, Shape::Scalar)
    }

    pub fn timestamp() -> Self {
        Self::make(Type::Timestamp, 0, DATE_SIZE, Shape::Scalar)
    }

    pub fn duration() -> Self {
        Self::make(Type::Duration, 0, MIN_DURATION_SIZE, Shape::Scalar)
    }

    /// Any type; nothing is known of its size.
    pub fn of(ty: Type) -> Self {
        match &ty {
            Type::Dyn => Self::dyn_(),
            Type::Null => Self::null(),
            Type::Bool => Self::bool(),
            Type::Int => Self::int(),
            Type::Uint => Self::uint(),
            Type::Double => Self::double(),
            Type::String => Self::string(),
            Type::Bytes => Self::bytes(),
            Type::Timestamp => Self::timestamp(),
            Type::Duration => Self::duration(),
            Type::List(element) => Self::list(Self::of((**element).clone()), None),
            Type::Map(key, value) => Self::map(Self::of((**key).clone()), Self::of((**value).clone()), None),
            Type::Optional(inner) => Self::optional(Self::of((**inner).clone())),
            Type::Object(object) => {
                let object = object.clone();
                Self::make(ty, 0, 2, Shape::Object(object))
            }
            _ => Self::make(ty, 0, 1, Shape::Scalar),
        }
    }

    pub fn list(element: DeclType, max_items: Option<u64>) -> Self {
        Self::list_of_kind(element, max_items.unwrap_or(u64::MAX), ListKind::Atomic)
    }

    fn list_of_kind(element: DeclType, max_items: u64, kind: ListKind) -> Self {
        Self::make(Type::list(element.ty().clone()), max_items, 2, Shape::List { element, kind })
    }

    pub fn map(key: DeclType, value: DeclType, max_properties: Option<u64>) -> Self {
        let ty = Type::map(key.ty().clone(), value.ty().clone());
        Self::make(ty, max_properties.unwrap_or(u64::MAX), 2, Shape::Map { key, value })
    }

    /// Fields by the names CEL sees; in JSON they are what these unescape to.
    pub fn object<N: Into<String>>(name: &str, fields: impl IntoIterator<Item = (N, DeclType)>) -> Self {
        let fields = fields
            .into_iter()
            .map(|(field, decl)| {
                let field = field.into();
                let json_name = crate::escape::unescape(&field).unwrap_or_else(|| field.clone());
                (field, ObjectField { json_name, decl })
            })
            .collect();
        Self::object_of(name, fields, 2)
    }

    fn object_of(name: &str, fields: BTreeMap<String, ObjectField>, min_serialized_size: u64) -> Self {
        let object = Arc::new(ObjectType { name: name.to_owned(), fields: Fields::Declared(fields) });
        Self::make(Type::Object(object.clone()), 0, min_serialized_size, Shape::Object(object))
    }

    pub fn optional(inner: DeclType) -> Self {
        Self::make(Type::optional(inner.ty().clone()), 0, inner.min_serialized_size(), Shape::Optional(inner))
    }

    pub fn with_max_elements(self, max_elements: u64) -> Self {
        self.changed(|decl| decl.max_elements = max_elements)
    }

    fn nullable(self) -> Self {
        self.changed(|decl| decl.nullable = true)
    }

    fn changed(self, change: impl FnOnce(&mut Decl)) -> Self {
        let shape = match self.shape() {
            Shape::Scalar => Shape::Scalar,
            Shape::Date => Shape::Date,
            Shape::IntOrString => Shape::IntOrString,
            Shape::List { element, kind } => Shape::List { element: element.clone(), kind: kind.clone() },
            Shape::Map { key, value } => Shape::Map { key: key.clone(), value: value.clone() },
            Shape::Object(object) => Shape::Object(object.clone()),
            Shape::Optional(inner) => Shape::Optional(inner.clone()),
        };
        let mut decl = Decl {
            ty: self.ty().clone(),
            max_elements: self.0.max_elements,
            min_serialized_size: self.0.min_serialized_size,
            shape,
            nullable: self.0.nullable,
        };
        change(&mut decl);
        Self(Arc::new(decl))
    }

    pub fn ty(&self) -> &Type {
        &self.0.ty
    }

    pub fn min_serialized_size(&self) -> u64 {
        self.0.min_serialized_size
    }

    /// `None`: unlimited.
    pub fn max_elements(&self) -> Option<u64> {
        (self.0.max_elements != u64::MAX).then_some(self.0.max_elements)
    }

    /// How often data of this type can occur in the largest request.
    pub fn max_cardinality(&self) -> u64 {
        MAX_REQUEST_SIZE_BYTES / (self.0.min_serialized_size + 1)
    }

    pub(crate) fn shape(&self) -> &Shape {
        &self.0.shape
    }

    pub(crate) fn is_nullable(&self) -> bool {
        self.0.nullable
    }

    /// A field of an object, an element of a list (`@items`), a map's values and keys (`@values`, `@keys`).
    pub(crate) fn step(&self, name: &str) -> Option<&DeclType> {
        match (name, self.shape()) {
            ("@items" | "@values", Shape::List { element, .. }) => Some(element),
            ("@items" | "@values", Shape::Map { value, .. }) => Some(value),
            ("@keys", Shape::Map { key, .. }) => Some(key),
            (_, Shape::Object(object)) => object.field(name).map(|field| &field.decl),
            _ => None,
        }
    }

    /// The upper bound that the estimator works with.
    pub(crate) fn size_limit(&self) -> u64 {
        self.0.max_elements
    }

    // ---- from a schema -----------------------------------------------------------------------------------------

    /// From a structural (OpenAPI v3) schema. `None`: CEL does not see data of this schema. `is_resource_root`: of a custom resource or
    /// an embedded one, so that `apiVersion`, `kind`, `metadata.name` and `metadata.generateName` are there.
    pub fn from_schema(schema: &Json, is_resource_root: bool) -> Option<DeclType> {
        from_schema(schema, is_resource_root, ROOT_NAME, 0)
    }
}

fn flag(schema: &Json, name: &str) -> bool {
    schema.get(name).and_then(Json::as_bool).unwrap_or(false)
}

/// A limit of a schema; negative ones count as zero. Whole numbers may be written as floats.
fn limit(schema: &Json, name: &str) -> Option<u64> {
    let value = schema.get(name)?;
    value.as_u64().or_else(|| value.as_f64().map(|value| if value > 0.0 { value as u64 } else { 0 }))
}

fn from_schema(schema: &Json, is_resource_root: bool, name: &str, depth: u32) -> Option<DeclType> {
    if depth > SCHEMA_DEPTH_LIMIT {
        return None;
    }
    let decl = exposed(schema, is_resource_root, name, depth)?;
    Some(if flag(schema, "nullable") { decl.nullable() } else { decl })
}

fn exposed(schema: &Json, is_resource_root: bool, name: &str, depth: u32) -> Option<DeclType> {
    if flag(schema, "x-kubernetes-int-or-string") {
        let longest = limit(schema, "maxLength").map_or(MAX_REQUEST_SIZE_BYTES - 2, |length| length.saturating_mul(BYTES_PER_CHARACTER));
        return Some(DeclType::make(Type::Dyn, longest, 1, Shape::IntOrString));
    }
    match schema.get("type").and_then(Json::as_str).unwrap_or_default() {
        "array" => list_from_schema(schema, name, depth),
        "object" => object_from_schema(schema, is_resource_root, name, depth),
        "string" => Some(string_from_schema(schema)),
        "boolean" => Some(DeclType::bool()),
        "number" => Some(DeclType::double()),
        "integer" => Some(DeclType::int()),
        _ => None,
    }
}

fn list_from_schema(schema: &Json, name: &str, depth: u32) -> Option<DeclType> {
    let items = schema.get("items")?;
    let element = from_schema(items, flag(items, "x-kubernetes-embedded-resource"), &format!("{name}.@idx"), depth + 1)?;
    let max_items = limit(schema, "maxItems").unwrap_or((MAX_REQUEST_SIZE_BYTES - 2) / (element.min_serialized_size() + 1));
    let kind = match schema.get("x-kubernetes-list-type").and_then(Json::as_str) {
        Some("set") => ListKind::Set,
        Some("map") => {
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Json::as_array);
            ListKind::Map(keys.into_iter().flatten().filter_map(Json::as_str).map(str::to_owned).collect())
        }
        _ => ListKind::Atomic,
    };
    Some(DeclType::list_of_kind(element, max_items, kind))
}

fn object_from_schema(schema: &Json, is_resource_root: bool, name: &str, depth: u32) -> Option<DeclType> {
    let embedded = |schema: &Json| flag(schema, "x-kubernetes-embedded-resource");
    if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
        let value = from_schema(values, embedded(values), &format!("{name}.@elem"), depth + 1)?;
        // `"":` and a comma beside the value.
        let max_properties = limit(schema, "maxProperties").unwrap_or((MAX_REQUEST_SIZE_BYTES - 2) / (value.min_serialized_size() + 6));
        return Some(DeclType::map(DeclType::string().with_max_elements(0), value, Some(max_properties)));
    }
    let empty = serde_json::Map::new();
    let properties = schema.get("properties").and_then(Json::as_object).unwrap_or(&empty);
    let required: Vec<&str> = schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).collect();
    let mut fields = BTreeMap::new();
    let mut min_size = 2;
    for (json_name, property) in properties {
        let Some(decl) = from_schema(property, embedded(property), &format!("{name}.{json_name}"), depth + 1) else { continue };
        // Defaults are filled in by the server: the request need not hold them.
        if required.contains(&json_name.as_str()) && property.get("default").is_none() {
            min_size += json_name.len() as u64 + decl.min_serialized_size() + 4;
        }
        if let Some(field) = escape(json_name) {
            fields.insert(field, ObjectField { json_name: json_name.clone(), decl });
        }
    }
    if is_resource_root {
        add_type_and_object_meta(&mut fields, name);
    }
    Some(DeclType::object_of(name, fields, min_size))
}

/// Every resource has these, whether its schema names them or not.
fn add_type_and_object_meta(fields: &mut BTreeMap<String, ObjectField>, name: &str) {
    let string = || DeclType::string().with_max_elements(MAX_REQUEST_SIZE_BYTES - 2);
    let field = |name: &str, decl| (name.to_owned(), ObjectField { json_name: name.to_owned(), decl });
    let is_string = |fields: &BTreeMap<String, ObjectField>, name: &str| fields.get(name).is_some_and(|field| *field.decl.ty() == Type::String);
    let complete = is_string(fields, "kind")
        && is_string(fields, "apiVersion")
        && fields.get("metadata").is_some_and(|metadata| match metadata.decl.ty() {
            Type::Object(object) => match &object.fields {
                Fields::Declared(fields) => is_string(fields, "name") && is_string(fields, "generateName"),
                Fields::Open => false,
            },
            _ => false,
        });
    if complete {
        return;
    }
    let metadata = DeclType::object_of(&format!("{name}.metadata"), [field("name", string()), field("generateName", string())].into(), 2);
    fields.extend([field("kind", string()), field("apiVersion", string()), field("metadata", metadata)]);
}

fn string_from_schema(schema: &Json) -> DeclType {
    let max_length = limit(schema, "maxLength");
    match schema.get("format").and_then(Json::as_str) {
        Some("byte") => return DeclType::bytes().with_max_elements(max_length.unwrap_or(MAX_REQUEST_SIZE_BYTES - 2)),
        Some("duration") => return DeclType::make(Type::Duration, MAX_DURATION_SIZE, MIN_DURATION_SIZE, Shape::Scalar),
        Some("date") => return DeclType::make(Type::Timestamp, DATE_SIZE, DATE_SIZE, Shape::Date),
        Some("date-time") => return DeclType::make(Type::Timestamp, MAX_DATETIME_SIZE, MIN_DATETIME_SIZE, Shape::Scalar),
        _ => {}
    }
    let longest = match (max_length, schema.get("enum").and_then(Json::as_array)) {
        (Some(length), _) => length.saturating_mul(BYTES_PER_CHARACTER),
        (None, Some(values)) if !values.is_empty() => values.iter().filter_map(Json::as_str).map(str::len).max().unwrap_or(0) as u64,
        _ => MAX_REQUEST_SIZE_BYTES - 2,
    };
    DeclType::string().with_max_elements(longest)
}
