//! Structural schemas: what a CustomResourceDefinition says of its objects, parsed once and then used for everything that is done to them.
//!
//! [`Schema::parse`] reads an `openAPIV3Schema` that has passed [`violations`]; pruning, defaulting, validation, apply and CEL read the [`Schema`].
//! Mirrors k8s.io/apiextensions-apiserver/pkg/apiserver/schema. <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema>

pub mod check;
pub mod defaults;
pub mod definition;
mod formats;
mod keywords;
pub mod lists;
pub mod metadata;
pub mod prune;
pub mod violations;

use std::sync::OnceLock;

use regex::Regex;
use serde_json::Value;

use crate::schema::ListType;

/// `type`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Array,
    Boolean,
    Integer,
    Number,
    Object,
    String,
}

impl Type {
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "array" => Self::Array,
            "boolean" => Self::Boolean,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "object" => Self::Object,
            "string" => Self::String,
            _ => return None,
        })
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Array => "array",
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Object => "object",
            Self::String => "string",
        }
    }
}

/// `additionalProperties`
#[derive(Debug, Clone, PartialEq)]
pub enum Additional {
    Allowed(bool),
    Schema(Box<Schema>),
}

/// One node of a schema; also what stands under `allOf` and its like, where the structural half is empty.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Schema {
    pub kind: Option<Type>,
    pub nullable: bool,
    /// `x-kubernetes-int-or-string`
    pub int_or_string: bool,
    /// `x-kubernetes-preserve-unknown-fields`
    pub preserve_unknown_fields: bool,
    /// `x-kubernetes-embedded-resource`
    pub embedded_resource: bool,
    pub default: Option<Value>,
    /// By name.
    pub properties: Box<[(Box<str>, Schema)]>,
    pub items: Option<Box<Schema>>,
    pub additional: Option<Additional>,
    /// None: atomic.
    pub list_type: Option<ListType>,
    pub map_keys: Box<[Box<str>]>,
    /// `x-kubernetes-map-type: atomic`
    pub atomic: bool,
    pub checks: Option<Box<Checks>>,
    /// `x-kubernetes-validations`
    pub rules: Box<[Rule]>,
}

/// What is asked of a value beyond its shape.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Checks {
    pub format: Box<str>,
    pub maximum: Option<f64>,
    pub exclusive_maximum: bool,
    pub minimum: Option<f64>,
    pub exclusive_minimum: bool,
    pub multiple_of: Option<f64>,
    pub max_length: Option<i64>,
    pub min_length: Option<i64>,
    pub pattern: Option<Pattern>,
    pub max_items: Option<i64>,
    pub min_items: Option<i64>,
    pub unique_items: bool,
    pub max_properties: Option<i64>,
    pub min_properties: Option<i64>,
    pub choices: Box<[Value]>,
    pub required: Box<[Box<str>]>,
    pub all_of: Box<[Schema]>,
    pub any_of: Box<[Schema]>,
    pub one_of: Box<[Schema]>,
    pub not: Option<Box<Schema>>,
}

/// One entry of `x-kubernetes-validations`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    pub rule: Box<str>,
    pub message: Box<str>,
    pub message_expression: Box<str>,
    pub reason: Box<str>,
    pub field_path: Box<str>,
    pub optional_old_self: Option<bool>,
}

/// A regular expression, compiled when it is first needed.
#[derive(Debug, Clone, Default)]
pub struct Pattern {
    text: Box<str>,
    compiled: OnceLock<Result<Regex, String>>,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Pattern {
    pub fn new(text: &str) -> Self {
        Self { text: text.into(), compiled: OnceLock::new() }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Err: not a regular expression Go would take.
    pub fn matches(&self, value: &str) -> Result<bool, &str> {
        match self.compiled.get_or_init(|| crate::regexp::compile(&self.text)) {
            Ok(regex) => Ok(regex.is_match(value)),
            Err(error) => Err(error),
        }
    }
}

fn text<'a>(schema: &'a Value, name: &str) -> &'a str {
    schema.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name).and_then(Value::as_bool).unwrap_or(false)
}

fn strings(schema: &Value, name: &str) -> Box<[Box<str>]> {
    schema.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(Box::from).collect()
}

impl Schema {
    /// What is not there or of no known shape is left out; whether the schema is a good one is [`violations`]' and [`definition`]'s question.
    pub fn parse(json: &Value) -> Self {
        let mut properties: Vec<(Box<str>, Schema)> =
            json.get("properties").and_then(Value::as_object).into_iter().flatten().map(|(name, inner)| (name.as_str().into(), Self::parse(inner))).collect();
        properties.sort_by(|(a, _), (b, _)| a.cmp(b));
        Self {
            kind: Type::parse(text(json, "type")),
            nullable: flag(json, "nullable"),
            int_or_string: flag(json, "x-kubernetes-int-or-string"),
            preserve_unknown_fields: flag(json, "x-kubernetes-preserve-unknown-fields"),
            embedded_resource: flag(json, "x-kubernetes-embedded-resource"),
            default: json.get("default").filter(|value| !value.is_null()).cloned(),
            properties: properties.into(),
            items: json.get("items").filter(|items| items.is_object()).map(|items| Box::new(Self::parse(items))),
            additional: match json.get("additionalProperties") {
                Some(Value::Bool(allowed)) => Some(Additional::Allowed(*allowed)),
                Some(inner @ Value::Object(_)) => Some(Additional::Schema(Box::new(Self::parse(inner)))),
                _ => None,
            },
            list_type: match text(json, "x-kubernetes-list-type") {
                "set" => Some(ListType::Set),
                "map" => Some(ListType::Map),
                "atomic" => Some(ListType::Atomic),
                _ => None,
            },
            map_keys: strings(json, "x-kubernetes-list-map-keys"),
            atomic: text(json, "x-kubernetes-map-type") == "atomic",
            checks: Checks::parse(json).map(Box::new),
            rules: json.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten().map(Rule::parse).collect(),
        }
    }

    pub fn property(&self, name: &str) -> Option<&Schema> {
        self.properties.binary_search_by(|(known, _)| (**known).cmp(name)).ok().map(|at| &self.properties[at].1)
    }

    /// The schema of a field of an object: a property's, or that of additional ones.
    pub fn field(&self, name: &str) -> Option<&Schema> {
        self.property(name).or(match &self.additional {
            Some(Additional::Schema(schema)) => Some(schema),
            _ => None,
        })
    }

    /// Calls `visit` for this node and each below it that a value can be at.
    pub fn any(&self, visit: &mut impl FnMut(&Schema) -> bool) -> bool {
        visit(self)
            || self.properties.iter().any(|(_, inner)| inner.any(visit))
            || self.items.as_ref().is_some_and(|items| items.any(visit))
            || matches!(&self.additional, Some(Additional::Schema(inner)) if inner.any(visit))
    }
}

impl Rule {
    fn parse(json: &Value) -> Self {
        Self {
            rule: text(json, "rule").into(),
            message: text(json, "message").into(),
            message_expression: text(json, "messageExpression").into(),
            reason: text(json, "reason").into(),
            field_path: text(json, "fieldPath").into(),
            optional_old_self: json.get("optionalOldSelf").and_then(Value::as_bool),
        }
    }
}

impl Checks {
    fn parse(json: &Value) -> Option<Self> {
        let number = |name: &str| json.get(name).and_then(Value::as_f64);
        let count = |name: &str| json.get(name).and_then(Value::as_i64);
        let schemas = |name: &str| -> Box<[Schema]> { json.get(name).and_then(Value::as_array).into_iter().flatten().map(Schema::parse).collect() };
        let checks = Self {
            format: text(json, "format").into(),
            maximum: number("maximum"),
            exclusive_maximum: flag(json, "exclusiveMaximum"),
            minimum: number("minimum"),
            exclusive_minimum: flag(json, "exclusiveMinimum"),
            multiple_of: number("multipleOf"),
            max_length: count("maxLength"),
            min_length: count("minLength"),
            pattern: Some(text(json, "pattern")).filter(|pattern| !pattern.is_empty()).map(Pattern::new),
            max_items: count("maxItems"),
            min_items: count("minItems"),
            unique_items: flag(json, "uniqueItems"),
            max_properties: count("maxProperties"),
            min_properties: count("minProperties"),
            choices: json.get("enum").and_then(Value::as_array).cloned().unwrap_or_default().into(),
            required: strings(json, "required"),
            all_of: schemas("allOf"),
            any_of: schemas("anyOf"),
            one_of: schemas("oneOf"),
            not: json.get("not").filter(|not| not.is_object()).map(|not| Box::new(Schema::parse(not))),
        };
        (checks != Self::default()).then_some(checks)
    }
}

#[cfg(test)]
mod tests;
