//! Types as OpenAPI schemas.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::descriptions::Descriptions;
use super::around::{API_GROUP, API_GROUPS, API_RESOURCES, API_VERSIONS};
use super::{Style, custom, further};
use crate::resource::{Resource, Verb};
use crate::schema::{self, Field, FieldType, ListType, TypeInfo};
use crate::table::table;

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";
pub(super) const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
/// A type with the fields that every kind has, for their descriptions.
const LIKE: &str = "io.k8s.api.core.v1.ConfigMap";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
pub(super) const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
pub(super) const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
pub(super) const WATCH_EVENT: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent";
const RAW_EXTENSION: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";
const MANAGED_FIELDS_ENTRY: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ManagedFieldsEntry";
const FIELDS_V1: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1";
const JSON: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON";
const SCHEMA_OR_BOOL: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool";
const SCHEMA_OR_ARRAY: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray";
const SCHEMA_OR_STRINGS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray";
pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

/// The schemas of one document: what was asked for, and everything that refers to.
pub(super) struct Schemas<'a> {
    style: Style,
    descriptions: &'a Descriptions,
    found: Map<String, Value>,
    wanted: BTreeSet<String>,
    /// The groups and versions of the kinds in it.
    of: BTreeSet<(String, String)>,
}

/// `com.example.v1.CronTab` for a kind of `example.com/v1`.
pub(super) fn custom_name(row: &Resource) -> String {
    let mut parts: Vec<&str> = row.group.split('.').collect();
    parts.reverse();
    format!("{}.{}.{}", parts.join("."), row.version, row.kind)
}

pub(super) fn reference(style: Style, name: &str) -> Value {
    let place = if style == Style::V2 { "#/definitions/" } else { "#/components/schemas/" };
    json!({"$ref": format!("{place}{name}")})
}

/// A schema's group, version and kind.
pub(super) fn group_version_kind(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "kind": kind, "version": version})
}

impl<'a> Schemas<'a> {
    pub fn new(style: Style, descriptions: &'a Descriptions) -> Self {
        Self { style, descriptions, found: Map::new(), wanted: BTreeSet::new(), of: BTreeSet::new() }
    }

    /// A type that is not any row's.
    pub fn want(&mut self, name: &str) {
        if !name.is_empty() {
            self.wanted.insert(name.to_owned());
        }
    }

    /// What a row's operations take and answer beside its objects.
    fn operations(&mut self, row: &Resource) {
        self.of.insert((row.group.to_string(), row.version.to_string()));
        let verbs = || row.verbs.iter().chain(row.subresources.iter().flat_map(|sub| sub.verbs.iter().filter(|_| subresource(&sub.group, &sub.version, &sub.kind).is_some() || sub.kind == row.kind)));
        for verb in verbs() {
            match verb {
                Verb::Watch if row.custom.is_none() => self.want(WATCH_EVENT),
                Verb::Delete | Verb::DeleteCollection => [DELETE_OPTIONS, STATUS].into_iter().for_each(|name| self.want(name)),
                Verb::Patch => self.want(PATCH),
                _ => {}
            }
        }
    }

    pub fn add_row(&mut self, row: &Resource) {
        self.wanted.insert(row.schema.to_string());
        self.operations(row);
        for sub in row.subresources.iter().filter(|sub| sub.kind != row.kind) {
            if let Some(name) = self::subresource(&sub.group, &sub.version, &sub.kind) {
                self.wanted.insert(name.clone());
                self.settle(&name);
                self.mark(&name, &sub.group, &sub.version, &sub.kind);
            }
        }
        self.settle(&row.schema);
        self.mark(&row.schema, &row.group, &row.version, &row.kind);
        if row.allows(crate::Verb::List) {
            self.add_list(row, &row.schema);
        }
    }

    pub fn add_custom(&mut self, row: &Resource, kind: &crate::Custom, name: &str) {
        self.operations(row);
        self.wanted.insert(OBJECT_META.to_owned());
        let described = self.descriptions.of_fields(LIKE);
        let text = |field: &str, mut value: Value| {
            if let Some(text) = described.get(field) {
                value["description"] = text.clone().into();
            }
            value
        };
        let metadata = self.field_schema_named(OBJECT_META);
        let meta = custom::Meta {
            api_version: text("apiVersion", json!({"type": "string"})),
            kind: text("kind", json!({"type": "string"})),
            metadata: self.wrapped(text("metadata", metadata)),
        };
        let mut value = custom::published(self.style, kind.json_schema(), &meta);
        let selectable: Vec<Value> = row.selectable_fields.iter().map(|field| json!({"fieldPath": field})).collect();
        if !selectable.is_empty() {
            value["x-kubernetes-selectable-fields"] = selectable.into();
        }
        self.found.insert(name.to_owned(), value);
        self.mark(name, &row.group, &row.version, &row.kind);
        for sub in row.subresources.iter().filter(|sub| sub.kind != row.kind) {
            if let Some(name) = self::subresource(&sub.group, &sub.version, &sub.kind) {
                self.settle(&name);
                self.mark(&name, &sub.group, &sub.version, &sub.kind);
            }
        }
        self.add_list(row, name);
    }

    fn add_list(&mut self, row: &Resource, item: &str) {
        let name = format!("{}{}", item.strip_suffix(&*row.kind).unwrap_or(item), row.list_kind);
        let described = self.descriptions.of_fields(if row.custom.is_some() { LIKE } else { item });
        let text = |field: &str| {
            let mut value = json!({"type": "string"});
            if let Some(text) = described.get(field) {
                value["description"] = text.clone().into();
            }
            value
        };
        let value = json!({
            "description": format!("{} is a list of {}", row.list_kind, row.kind),
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": text("apiVersion"),
                "kind": text("kind"),
                "items": {"type": "array", "items": self.field_schema_named(item)},
                "metadata": self.list_meta(),
            },
        });
        self.wanted.insert(LIST_META.to_owned());
        self.found.insert(name.clone(), value);
        self.mark(&name, &row.group, &row.version, &row.list_kind);
    }

    fn list_meta(&mut self) -> Value {
        let mut value = self.field_schema_named(LIST_META);
        if self.style == Style::V3 {
            value["default"] = json!({});
        }
        self.wrapped(value)
    }

    fn mark(&mut self, name: &str, group: &str, version: &str, kind: &str) {
        let Some(schema) = self.found.get_mut(name) else { return };
        let kinds = group_version_kind(group, version, kind);
        match schema.get_mut("x-kubernetes-group-version-kind").and_then(Value::as_array_mut) {
            Some(known) if known.contains(&kinds) => {}
            Some(known) => known.push(kinds),
            None => schema["x-kubernetes-group-version-kind"] = json!([kinds]),
        }
    }

    /// Everything reachable, by name.
    pub fn finish(mut self) -> Map<String, Value> {
        while let Some(name) = self.wanted.pop_first() {
            self.settle(&name);
        }
        for name in [STATUS, API_VERSIONS, API_GROUP, API_GROUPS, API_RESOURCES] {
            self.mark(name, "", "v1", name.rsplit('.').next().unwrap_or_default());
        }
        // Every group version has these two for its own.
        let of = std::mem::take(&mut self.of);
        for (name, kind) in [(WATCH_EVENT, "WatchEvent"), (DELETE_OPTIONS, "DeleteOptions")] {
            self.mark(name, "", "v1", kind);
            of.iter().for_each(|(group, version)| self.mark(name, group, version, kind));
        }
        self.found
    }

    fn settle(&mut self, name: &str) {
        if self.found.contains_key(name) {
            return;
        }
        let mut value = match schema::of(name) {
            Some(ty) => self.object(ty),
            None => self.leaf(name),
        };
        if let Some(text) = self.descriptions.of_type(name) {
            value["description"] = match text.split_once("\n\n").filter(|_| name == WATCH_EVENT) {
                // The library has a field's words behind those of the type.
                Some((of_type, of_object)) => {
                    let mut object = value["properties"]["object"].take();
                    object["description"] = of_object.trim_end().into();
                    value["properties"]["object"] = self.wrapped(object);
                    of_type.into()
                }
                None => text.into(),
            };
        }
        self.found.insert(name.to_owned(), value);
        if let Some(row) = schema::of(name).filter(|ty| ty.kind).and_then(|_| table().rows().iter().find(|row| *row.schema == *name)) {
            self.mark(name, &row.group, &row.version, &row.kind);
        }
    }

    fn leaf(&self, name: &str) -> Value {
        match (name, self.style) {
            (QUANTITY, Style::V2) => json!({"type": "string"}),
            (QUANTITY, Style::V3) => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
            (INT_OR_STRING, Style::V2) => json!({"type": "string", "format": "int-or-string"}),
            (INT_OR_STRING, Style::V3) => json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}),
            // Anything goes: a schema without a type.
            (JSON | SCHEMA_OR_BOOL | SCHEMA_OR_ARRAY | SCHEMA_OR_STRINGS, _) => json!({}),
            (TIME | MICRO_TIME, _) => json!({"type": "string", "format": "date-time"}),
            _ => json!({"type": "object"}),
        }
    }

    fn object(&mut self, ty: &'static TypeInfo) -> Value {
        let described = self.descriptions.of_fields(&ty.name);
        let mut properties = Map::new();
        let mut required: Vec<&Field> = Vec::new();
        for field in &ty.fields {
            let mut value = self.field(ty, field);
            if let Some(text) = described.get(field.name) {
                value["description"] = text.clone().into();
                further::choices(&mut value);
            }
            properties.insert(field.name.to_owned(), self.wrapped(value));
            if field.required || further::required(&ty.name, field.name) {
                required.push(field);
            }
        }
        let mut value = json!({"type": "object"});
        if !properties.is_empty() {
            value["properties"] = Value::Object(properties);
        }
        if !required.is_empty() {
            required.sort_by_key(|field| further::place(&ty.name, field));
            value["required"] = required.into_iter().map(|field| Value::from(field.name)).collect();
        }
        if ty.atomic {
            value["x-kubernetes-map-type"] = "atomic".into();
        }
        if let Some(unions) = further::unions(&ty.name) {
            value["x-kubernetes-unions"] = unions;
        }
        value
    }

    fn field(&mut self, ty: &TypeInfo, field: &'static Field) -> Value {
        let mut value = match &field.ty {
            FieldType::Object if &*ty.name == MANAGED_FIELDS_ENTRY => self.field_schema_named(FIELDS_V1),
            known => self.field_schema(known),
        };
        if let Some(default) = self.default_of(ty, field) {
            value["default"] = default;
        }
        if !field.choices.is_empty() {
            let choices: Value = field.choices.iter().map(|choice| Value::from(&**choice)).collect();
            let place = ["items", "additionalProperties"].into_iter().find(|place| value.get(place).is_some());
            match place {
                Some(place) => value[place]["enum"] = choices,
                None => value["enum"] = choices,
            }
        }
        if let Some(list_type) = field.list_type {
            value["x-kubernetes-list-type"] = match list_type {
                ListType::Atomic => "atomic",
                ListType::Set => "set",
                ListType::Map => "map",
            }
            .into();
        }
        if !field.map_keys.is_empty() {
            value["x-kubernetes-list-map-keys"] = field.map_keys.iter().copied().map(Value::from).collect();
        }
        if field.atomic {
            value["x-kubernetes-map-type"] = "atomic".into();
        } else if further::granular(&ty.name, field.name) {
            value["x-kubernetes-map-type"] = "granular".into();
        }
        if let Some(key) = field.patch_merge_key {
            value["x-kubernetes-patch-merge-key"] = key.into();
        }
        let strategy: Vec<&str> =
            [(field.patch_strategy.merge, "merge"), (field.patch_strategy.retain_keys, "retainKeys"), (field.patch_strategy.replace, "replace")].into_iter().filter(|(set, _)| *set).map(|(_, name)| name).collect();
        if !strategy.is_empty() {
            value["x-kubernetes-patch-strategy"] = strategy.join(",").into();
        }
        value
    }

    /// What is there when nobody wrote it. v2 cannot say it.
    fn default_of(&self, ty: &TypeInfo, field: &Field) -> Option<Value> {
        if self.style == Style::V2 {
            return None;
        }
        if let Some(default) = further::default(&ty.name, field.name) {
            return Some(default.into());
        }
        if let Some(default) = field.default.and_then(|text| serde_json::from_str(text).ok()) {
            return Some(default);
        }
        if field.pointer {
            return None;
        }
        // What Go always writes begins as its zero.
        match field.ty {
            FieldType::Type(_) => Some(json!({})),
            FieldType::String if field.always => Some("".into()),
            FieldType::Bool if field.always => Some(false.into()),
            FieldType::Int32 | FieldType::Int64 | FieldType::Double if field.always => Some(0.into()),
            _ => None,
        }
    }

    fn field_schema(&mut self, ty: &FieldType) -> Value {
        match ty {
            FieldType::String => json!({"type": "string"}),
            FieldType::Bool => json!({"type": "boolean"}),
            FieldType::Int32 => json!({"type": "integer", "format": "int32"}),
            FieldType::Int64 => json!({"type": "integer", "format": "int64"}),
            FieldType::Double => json!({"type": "number", "format": "double"}),
            FieldType::Bytes => json!({"type": "string", "format": "byte"}),
            FieldType::Object => self.field_schema_named(RAW_EXTENSION),
            FieldType::Any => self.field_schema_named(JSON),
            FieldType::SchemaOrBool => self.field_schema_named(SCHEMA_OR_BOOL),
            FieldType::SchemaOrArray => self.field_schema_named(SCHEMA_OR_ARRAY),
            FieldType::SchemaOrStrings => self.field_schema_named(SCHEMA_OR_STRINGS),
            FieldType::Quantity => self.field_schema_named(QUANTITY),
            FieldType::IntOrString => self.field_schema_named(INT_OR_STRING),
            FieldType::Time => self.field_schema_named(TIME),
            FieldType::MicroTime => self.field_schema_named(MICRO_TIME),
            FieldType::Type(reference) => self.field_schema_named(&reference.info().name),
            FieldType::List(item) => json!({"type": "array", "items": self.field_schema(item)}),
            FieldType::Map(item) => json!({"type": "object", "additionalProperties": self.field_schema(item)}),
        }
    }

    fn field_schema_named(&mut self, name: &str) -> Value {
        if !self.found.contains_key(name) {
            self.wanted.insert(name.to_owned());
        }
        reference(self.style, name)
    }

    /// In v3 a reference cannot have siblings: one that has any is wrapped.
    fn wrapped(&self, mut value: Value) -> Value {
        if self.style == Style::V3
            && let Some(map) = value.as_object_mut().filter(|map| map.len() > 1)
            && let Some(reference) = map.remove("$ref")
        {
            map.insert("allOf".to_owned(), json!([{"$ref": reference}]));
        }
        value
    }
}

/// The schema of what a subresource takes, where it is a type of its own (the options of `exec` and the like are query parameters).
pub(super) fn subresource(group: &str, version: &str, kind: &str) -> Option<String> {
    let package = match group {
        "" => "core",
        "authentication.k8s.io" => "authentication",
        other => other,
    };
    let name = format!("io.k8s.api.{package}.{version}.{kind}");
    schema::of(&name).map(|_| name)
}
