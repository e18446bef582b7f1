//! Values seen through the schema: which fields they set, how two differ, how they merge, and what is left when fields are taken out.
//!
//! Mirrors structured-merge-diff's `typed` package. Structs and maps are owned field by field, `set` and `map` lists item by item; everything else, and whatever the schema does not
//! know, is owned as a whole.

pub(super) mod fit;
mod list;

use std::collections::HashSet;

use api::schema::{Field, FieldType, ListType, TypeInfo};
use api::structural::{Additional, Schema, Type};
use serde_json::{Map, Value};

use super::element;
use crate::error::go_value;
use super::set::Set;

/// Where the facts of a kind come from.
#[derive(Clone, Copy, Default)]
pub enum Facts<'a> {
    /// Nothing is known.
    #[default]
    None,
    /// A built-in type.
    Type(&'static TypeInfo),
    /// The structural schema of a custom kind.
    Custom(&'a Schema),
}

impl From<Option<&'static TypeInfo>> for Facts<'_> {
    fn from(ty: Option<&'static TypeInfo>) -> Self {
        ty.map_or(Self::None, Self::Type)
    }
}

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// How a value is owned.
#[derive(Clone, Copy)]
pub(super) enum Node<'a> {
    /// A scalar, or something that is owned as a whole.
    Leaf,
    Struct(&'static TypeInfo),
    /// Keys are data.
    Map(&'static FieldType),
    /// Items are told apart by these keys.
    Keyed(&'static FieldType, &'static [&'static str]),
    /// Items are their own keys.
    Set,
    /// An object by a structural schema; `true`: a whole resource, with metadata.
    Custom(&'a Schema, bool),
    /// A list by a structural schema, whose items are told apart by keys.
    CustomKeyed(&'a Schema),
    /// No schema: objects are maps, lists are leaves.
    Unknown,
}

/// What one object has that another has not.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub added: Set,
    pub modified: Set,
    pub removed: Set,
}

impl Comparison {
    /// Leaves out some top-level fields.
    pub fn without(mut self, fields: &[&str]) -> Self {
        for set in [&mut self.added, &mut self.modified, &mut self.removed] {
            super::exclude(set, fields);
        }
        self
    }
}

impl<'a> Node<'a> {
    pub fn root(facts: Facts<'a>) -> Self {
        match facts {
            Facts::None => Node::Unknown,
            Facts::Type(ty) => Node::Struct(ty),
            Facts::Custom(schema) => Node::Custom(schema, true),
        }
    }

    fn custom(schema: &'a Schema) -> Self {
        match schema.kind {
            _ if schema.int_or_string => Node::Leaf,
            Some(Type::Array) => match schema.list_type {
                Some(ListType::Map) => Node::CustomKeyed(schema),
                Some(ListType::Set) => Node::Set,
                _ => Node::Leaf,
            },
            Some(Type::Object) if schema.atomic => Node::Leaf,
            Some(Type::Object) if schema.embedded_resource || !schema.properties.is_empty() || schema.additional.is_some() => Node::Custom(schema, schema.embedded_resource),
            Some(Type::Object) | None => Node::Unknown,
            Some(_) => Node::Leaf,
        }
    }

    /// The field of an object by a structural schema.
    fn custom_entry(schema: &'a Schema, resource: bool, name: &str) -> Option<Self> {
        if resource {
            match name {
                "apiVersion" | "kind" => return Some(Node::Leaf),
                "metadata" => return Some(api::schema::of(OBJECT_META).map_or(Node::Unknown, Node::Struct)),
                _ => {}
            }
        }
        match (schema.property(name), &schema.additional) {
            (Some(property), _) => Some(Node::custom(property)),
            (None, Some(Additional::Schema(inner))) => Some(Node::custom(inner)),
            (None, Some(Additional::Allowed(_))) => Some(Node::Unknown),
            (None, None) => schema.preserve_unknown_fields.then_some(Node::Unknown),
        }
    }

    fn of(ty: &'static FieldType, field: Option<&'static Field>) -> Self {
        let whole = field.is_some_and(|field| field.atomic);
        match ty {
            FieldType::Type(reference) if !reference.info().atomic && !whole => Node::Struct(reference.info()),
            FieldType::Map(value) if !whole => Node::Map(value),
            FieldType::List(item) => match field {
                Some(field) if field.list_type == Some(ListType::Map) => Node::Keyed(item, &field.map_keys),
                Some(field) if field.list_type == Some(ListType::Set) => Node::Set,
                _ => Node::Leaf,
            },
            _ => Node::Leaf,
        }
    }

    /// The node of a field or map entry, None when the schema does not know it.
    fn entry(self, name: &str) -> Option<Node<'a>> {
        match self {
            Node::Custom(schema, resource) => Node::custom_entry(schema, resource, name),
            Node::Struct(ty) => ty.field(name).map(|field| Node::of(&field.ty, Some(field))),
            Node::Map(value) => Some(Node::of(value, None)),
            Node::Unknown => Some(Node::Unknown),
            _ => Some(Node::Leaf),
        }
    }

    fn item(self) -> Node<'a> {
        match self {
            Node::CustomKeyed(schema) => schema.items.as_deref().map_or(Node::Unknown, Node::custom),
            Node::Keyed(item, _) => Node::of(item, None),
            _ => Node::Leaf,
        }
    }

    /// The value's fields, when it is to be walked field by field.
    fn map(self, value: Option<&Value>) -> Option<&Map<String, Value>> {
        match self {
            Node::Struct(_) | Node::Map(_) | Node::Unknown | Node::Custom(..) => value.and_then(Value::as_object),
            _ => None,
        }
    }

    fn list(self, value: Option<&Value>) -> Option<&Vec<Value>> {
        match self {
            Node::Keyed(..) | Node::Set | Node::CustomKeyed(_) => value.and_then(Value::as_array),
            _ => None,
        }
    }

    fn declares(self, name: &str) -> bool {
        match self {
            Node::Struct(ty) => ty.field(name).is_some(),
            Node::Custom(schema, resource) => schema.property(name).is_some() || (resource && matches!(name, "apiVersion" | "kind" | "metadata")),
            _ => false,
        }
    }

    /// Err says what does not fit, with the path in front.
    pub fn validate(self, value: &Value) -> Result<(), String> {
        match (self, value) {
            (_, Value::Null) | (Node::Leaf, _) => Ok(()),
            (Node::Struct(_) | Node::Map(_) | Node::Unknown | Node::Custom(..), Value::Object(map)) => {
                for (name, inner) in map {
                    let node = self.entry(name).ok_or_else(|| format!(".{name}: field not declared in schema"))?;
                    node.validate(inner).map_err(|cause| prefixed(&format!(".{name}"), &cause))?;
                }
                Ok(())
            }
            (Node::Unknown, _) => Ok(()),
            (Node::Keyed(..) | Node::Set | Node::CustomKeyed(_), Value::Array(items)) => {
                let elements = self.elements(items)?;
                let mut seen = HashSet::with_capacity(elements.len());
                for (element, item) in elements.iter().zip(items) {
                    if !seen.insert(element) {
                        return Err(format!(": duplicate entries for key {}", element::display(element)));
                    }
                    self.item().validate(item).map_err(|cause| prefixed(&element::display(element), &cause))?;
                }
                Ok(())
            }
            (Node::Struct(_) | Node::Map(_) | Node::Custom(..), other) => Err(format!(": expected map, got &{{{}}}", go_value(other))),
            (Node::Keyed(..) | Node::Set | Node::CustomKeyed(_), other) => Err(format!(": expected list, got &{{{}}}", go_value(other))),
        }
    }

    /// What a configuration sets.
    pub fn field_set(self, value: &Value) -> Result<Set, String> {
        let mut set = Set::default();
        if let Some(map) = self.map(Some(value)) {
            for (name, inner) in map {
                let element = element::field(name);
                let node = self.entry(name).unwrap_or(Node::Unknown);
                let whole = node.is_leaf(inner);
                let empty = inner.is_null() || inner.as_object().is_some_and(Map::is_empty);
                if whole || empty || !self.declares(name) {
                    set.insert(element.clone());
                }
                if !whole {
                    set.graft(element, node.field_set(inner)?);
                }
            }
        } else if let Some(items) = self.list(Some(value)) {
            for (element, inner) in self.elements(items)?.into_iter().zip(items) {
                set.insert(element.clone());
                set.graft(element, self.item().field_set(inner)?);
            }
        }
        Ok(set)
    }

    fn is_leaf(self, value: &Value) -> bool {
        match self {
            Node::Leaf => true,
            Node::Unknown => !value.is_object(),
            Node::Struct(_) | Node::Map(_) | Node::Custom(..) => !value.is_object() && !value.is_null(),
            Node::Keyed(..) | Node::Set | Node::CustomKeyed(_) => !value.is_array() && !value.is_null(),
        }
    }

    pub fn compare(self, before: &Value, after: &Value) -> Result<Comparison, String> {
        let mut found = Comparison::default();
        self.compare_into(Some(before), Some(after), &mut found)?;
        Ok(found)
    }

    /// `found` takes what is below this node; the caller notes the node itself. True: it is a leaf and differs.
    fn compare_into(self, before: Option<&Value>, after: Option<&Value>, found: &mut Comparison) -> Result<bool, String> {
        let (left, right) = (self.map(before), self.map(after));
        if left.is_some_and(|map| !map.is_empty()) || right.is_some_and(|map| !map.is_empty()) {
            let blank = Map::new();
            let (left, right) = (left.unwrap_or(&blank), right.unwrap_or(&blank));
            for name in left.keys().chain(right.keys().filter(|name| !left.contains_key(*name))) {
                let node = self.entry(name).unwrap_or(Node::Unknown);
                node.compare_entry(|| element::field(name), left.get(name), right.get(name), found)?;
            }
            return Ok(false);
        }
        let (left, right) = (self.list(before), self.list(after));
        if left.is_some_and(|list| !list.is_empty()) || right.is_some_and(|list| !list.is_empty()) {
            let (left, right) = (left.map_or(&[][..], Vec::as_slice), right.map_or(&[][..], Vec::as_slice));
            self.compare_lists(left, right, found)?;
            return Ok(false);
        }
        Ok(before != after)
    }

    fn compare_entry(self, element: impl FnOnce() -> String, before: Option<&Value>, after: Option<&Value>, found: &mut Comparison) -> Result<(), String> {
        // Most of an object stays as it is, and seeing that costs less than naming it.
        if before == after {
            return Ok(());
        }
        let mut below = Comparison::default();
        let differs = self.compare_into(before, after, &mut below)?;
        let element = element();
        match (before, after) {
            (None, Some(_)) => found.added.insert(element.clone()),
            (Some(_), None) => found.removed.insert(element.clone()),
            _ if differs => found.modified.insert(element.clone()),
            _ => {}
        }
        for (set, below) in [(&mut found.added, below.added), (&mut found.modified, below.modified), (&mut found.removed, below.removed)] {
            if !below.is_empty() {
                set.graft(element.clone(), below);
            }
        }
        Ok(())
    }

    /// `right` wins where both say something.
    pub fn merge(self, left: Option<&Value>, right: Option<&Value>) -> Result<Option<Value>, String> {
        let (a, b) = (self.map(left), self.map(right));
        if a.is_some_and(|map| !map.is_empty()) || b.is_some_and(|map| !map.is_empty()) {
            let blank = Map::new();
            let (a, b) = (a.unwrap_or(&blank), b.unwrap_or(&blank));
            let mut merged = Map::new();
            for name in a.keys().chain(b.keys().filter(|name| !a.contains_key(*name))) {
                let node = self.entry(name).unwrap_or(Node::Unknown);
                if let Some(value) = node.merge(a.get(name), b.get(name))? {
                    merged.insert(name.clone(), value);
                }
            }
            return Ok(Some(Value::Object(merged)));
        }
        let (a, b) = (self.list(left), self.list(right));
        if a.is_some_and(|list| !list.is_empty()) || b.is_some_and(|list| !list.is_empty()) {
            let merged = self.merge_lists(a.map_or(&[][..], Vec::as_slice), b.map_or(&[][..], Vec::as_slice))?;
            return Ok(Some(Value::Array(merged)));
        }
        Ok(right.or(left).cloned())
    }

    /// The value without the set's members. What becomes empty by that stays, empty (structured-merge-diff since 6.3).
    pub fn remove(self, value: &Value, gone: &Set) -> Value {
        if let Some(map) = self.map(Some(value)) {
            let kept = map.iter().filter_map(|(name, inner)| {
                let element = element::field(name);
                if gone.has(&element) {
                    return None;
                }
                let inner = match gone.below(&element) {
                    Some(below) => self.entry(name).unwrap_or(Node::Unknown).remove(inner, below),
                    None => inner.clone(),
                };
                Some((name.clone(), inner))
            });
            return Value::Object(kept.collect());
        }
        if let Some(items) = self.list(Some(value))
            && let Ok(elements) = self.elements(items)
        {
            let kept = elements.iter().zip(items).filter_map(|(element, inner)| {
                if gone.has(element) {
                    return None;
                }
                match gone.below(element) {
                    Some(below) => Some(self.item().remove(inner, below)),
                    None => Some(inner.clone()),
                }
            });
            return Value::Array(kept.collect());
        }
        value.clone()
    }

    /// A set with the structs on the way to its members as members, too (but not map entries and list items).
    pub fn with_named_fields(self, set: &Set) -> Set {
        let mut all = Set::default();
        for member in set.members() {
            all.insert(member.clone());
        }
        for (element, below) in set.children() {
            let name = element::field_name(element);
            if name.is_some_and(|name| self.declares(name)) {
                all.insert(element.clone());
            }
            let node = match name {
                Some(name) => self.entry(name).unwrap_or(Node::Unknown),
                None => self.item(),
            };
            all.graft(element.clone(), node.with_named_fields(below));
        }
        all
    }
}

/// `.a` before `: cause` or `.b: cause`.
fn prefixed(place: &str, cause: &str) -> String {
    format!("{place}{cause}")
}
