//! What a schema inside a CustomResourceDefinition may say, beyond being structural: list types and their keys, defaults, forbidden words of OpenAPI.
//!
//! Mirrors `ValidateCustomResourceDefinitionOpenAPISchema` and defaulting.ValidateDefaults. The expressions of `x-kubernetes-validations` are compiled elsewhere; here
//! only their surroundings are judged.

use std::collections::BTreeSet;

use serde_json::Value;

use super::keywords::{flag, set, text};
use super::{Schema, Type, check, metadata, prune};
use crate::validation::{Errors, Path};

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// What holds below the node at hand.
#[derive(Clone, Copy, Default)]
struct Around<'a> {
    /// Why there may be no default.
    no_default: Option<&'a str>,
    inside_meta: bool,
}

/// Judges a version's whole schema.
pub fn rules(errors: &mut Errors, path: &Path, schema: &Value) {
    node(errors, path, schema, true, Around::default());
}

fn empty(schema: &Value, name: &str) -> bool {
    match schema.get(name) {
        None | Some(Value::Null) => true,
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::String(text)) => text.is_empty(),
        Some(_) => false,
    }
}

fn node(errors: &mut Errors, path: &Path, schema: &Value, root: bool, around: Around<'_>) {
    words(errors, path, schema, around);
    if flag(schema, "uniqueItems") {
        errors.forbidden(&path.child("uniqueItems"), "uniqueItems cannot be set to true since the runtime complexity becomes quadratic");
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    if set(schema, "additionalProperties") {
        let at = path.child("additionalProperties");
        if properties.is_some_and(|properties| !properties.is_empty()) && schema["additionalProperties"] != Value::Bool(true) {
            errors.forbidden(&at, "additionalProperties and properties are mutual exclusive");
        }
        let below = if around.inside_meta { Around { no_default: Some("inside additionalProperties applying to object metadata"), ..around } } else { around };
        if schema["additionalProperties"].is_object() {
            node(errors, &at, &schema["additionalProperties"], false, below);
        }
    }
    let at = path.child("properties");
    for (name, property) in properties.into_iter().flatten() {
        let meta = (root || flag(schema, "x-kubernetes-embedded-resource")) && matches!(name.as_str(), "metadata" | "kind" | "apiVersion");
        let reason = format!("in top-level {name}");
        let below = Around { inside_meta: around.inside_meta || meta, no_default: if meta && root { Some(&reason) } else { around.no_default } };
        node(errors, &at.key(name), property, false, below);
    }
    if set(schema, "not") {
        node(errors, &path.child("not"), &schema["not"], false, around);
    }
    for name in ["allOf", "oneOf", "anyOf"] {
        let at = path.child(name);
        for (index, inner) in schema.get(name).and_then(Value::as_array).into_iter().flatten().enumerate() {
            node(errors, &at.index(index), inner, false, around);
        }
    }
    if schema.get("items").is_some_and(Value::is_object) {
        node(errors, &path.child("items"), &schema["items"], false, around);
    }
    if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        errors.invalid(&path.child("x-kubernetes-preserve-unknown-fields"), &false, "must be true or undefined");
    }
    topology(errors, path, schema);
    for (index, rule) in schema.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten().enumerate() {
        rule_words(errors, &path.child("x-kubernetes-validations").index(index), schema, rule);
    }
}

/// The words of OpenAPI that are not for use.
fn words(errors: &mut Errors, path: &Path, schema: &Value, around: Around<'_>) {
    let kind = text(schema, "type");
    if !kind.is_empty() && !TYPES.contains(&kind) {
        errors.not_supported(&path.child("type"), kind, &TYPES);
    }
    if set(schema, "default")
        && let Some(reason) = around.no_default
    {
        errors.forbidden(&path.child("default"), &format!("must not be set {reason}"));
    }
    for name in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        if !empty(schema, name) {
            errors.forbidden(&path.child(name), &format!("{name} is not supported"));
        }
    }
    if kind == "null" {
        errors.forbidden(&path.child("type"), "type cannot be set to null, use nullable as an alternative");
    }
    if schema.get("items").is_some_and(Value::is_array) {
        errors.forbidden(&path.child("items"), "items must be a schema object and not an array");
    }
    if around.inside_meta && flag(schema, "x-kubernetes-embedded-resource") {
        errors.forbidden(&path.child("x-kubernetes-embedded-resource"), "must not be used inside of resource meta");
    }
}

/// `x-kubernetes-list-type`, `x-kubernetes-list-map-keys`, `x-kubernetes-map-type`
fn topology(errors: &mut Errors, path: &Path, schema: &Value) {
    const LIST: &str = "x-kubernetes-list-type";
    const MAP: &str = "x-kubernetes-map-type";
    const KEYS: &str = "x-kubernetes-list-map-keys";
    let kind = text(schema, "type");
    let (list, map) = (text(schema, LIST), text(schema, MAP));
    let keys: Vec<&str> = schema.get(KEYS).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let items = schema.get("items").filter(|items| items.is_object());
    let mut only = |wanted: &str, name: &str| {
        let why = format!("must be {wanted} if {name} is specified");
        if kind.is_empty() { errors.required(&path.child("type"), &why) } else { errors.invalid(&path.child("type"), kind, &why) }
    };
    if set(schema, MAP) && kind != "object" {
        only("object", MAP);
    }
    if set(schema, LIST) && kind != "array" {
        only("array", LIST);
    }
    if set(schema, MAP) && !matches!(map, "atomic" | "granular") {
        errors.not_supported(&path.child(MAP), map, &["atomic", "granular"]);
    }
    let at = path.child("items");
    if kind == "array"
        && list == "set"
        && let Some(items) = items
    {
        const WHY: &str = "must be atomic as item of a list with x-kubernetes-list-type=set";
        let shown = schema.get("items").and_then(|items| items.get(LIST)).cloned().unwrap_or(Value::Null);
        match text(items, "type") {
            "array" if set(items, LIST) && text(items, LIST) != "atomic" => errors.invalid(&at.child(LIST), &shown, WHY),
            "object" if text(items, MAP) != "atomic" => errors.invalid(&at.child(MAP), &shown, WHY),
            _ => {}
        }
    }
    if set(schema, LIST) && !matches!(list, "atomic" | "set" | "map") {
        errors.not_supported(&path.child(LIST), list, &["atomic", "set", "map"]);
    }
    if !keys.is_empty() && list != "map" {
        const WHY: &str = "must be map if x-kubernetes-list-map-keys is non-empty";
        if set(schema, LIST) { errors.invalid(&path.child(LIST), list, WHY) } else { errors.required(&path.child(LIST), WHY) }
    }
    let properties = items.and_then(|items| items.get("properties"));
    if list == "map" {
        if keys.is_empty() {
            errors.required(&path.child(KEYS), "must not be empty if x-kubernetes-list-type is map");
        }
        match items {
            None => errors.required(&at, "must have a schema if x-kubernetes-list-type is map"),
            Some(items) if text(items, "type") != "object" => errors.invalid(&at.child("type"), text(items, "type"), "must be object if parent array's x-kubernetes-list-type is map"),
            Some(items) => {
                let shown = Value::from(keys.clone());
                let mut seen = BTreeSet::new();
                for key in &keys {
                    match properties.and_then(|properties| properties.get(*key)) {
                        Some(property) if matches!(text(property, "type"), "array" | "object") => {
                            errors.invalid(&at.child("properties").key(key).child("type"), text(items, "type"), "must be a scalar type if parent array's x-kubernetes-list-type is map");
                        }
                        Some(_) => {}
                        None => errors.invalid(&path.child(KEYS), &shown, "entries must all be names of item properties"),
                    }
                    if !seen.insert(*key) {
                        errors.invalid(&path.child(KEYS), &shown, "must not contain duplicate entries");
                    }
                }
            }
        }
    }
    let Some(items) = items.filter(|_| matches!(list, "set" | "map")) else { return };
    if flag(items, "nullable") {
        errors.forbidden(&at.child("nullable"), &format!("cannot be nullable when x-kubernetes-list-type is {list}"));
    }
    if list == "map" {
        let required: Vec<&str> = items.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        for key in keys {
            let Some(property) = properties.and_then(|properties| properties.get(key)) else { continue };
            let place = at.child("properties");
            let place = place.key(key);
            if !required.contains(&key) && !set(property, "default") {
                errors.required(&place.child("default"), "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property");
            }
            if flag(property, "nullable") {
                errors.forbidden(&place.child("nullable"), "this property is in x-kubernetes-list-map-keys, so it cannot be nullable");
            }
        }
    }
}

fn rule_words(errors: &mut Errors, path: &Path, schema: &Value, rule: &Value) {
    let breaks = |text: &str| text.contains(['\n', '\r']);
    let (expression, message) = (text(rule, "rule").trim(), text(rule, "message"));
    if expression.is_empty() {
        errors.required(&path.child("rule"), "rule is not specified");
    } else if !message.is_empty() && message.trim().is_empty() {
        errors.invalid(&path.child("message"), message, "must be non-empty if specified");
    } else if breaks(message.trim()) {
        errors.invalid(&path.child("message"), message, "must not contain line breaks");
    } else if breaks(expression) && message.trim().is_empty() {
        errors.required(&path.child("message"), "message must be specified if rule contains line breaks");
    }
    let message_expression = text(rule, "messageExpression");
    if !message_expression.is_empty() && message_expression.trim().is_empty() {
        errors.required(&path.child("messageExpression"), "messageExpression must be non-empty if specified");
    }
    if set(rule, "reason") && !REASONS.contains(&text(rule, "reason")) {
        errors.not_supported(&path.child("reason"), text(rule, "reason"), &REASONS);
    }
    let field = text(rule, "fieldPath");
    if !field.is_empty() {
        if field.trim().is_empty() {
            errors.invalid(&path.child("fieldPath"), field, "must be non-empty if specified");
        }
        if breaks(field) {
            errors.invalid(&path.child("fieldPath"), field, "must not contain line breaks");
        }
        if field_path(field, &Schema::parse(schema), Brackets::Allowed).is_err() {
            errors.invalid(&path.child("fieldPath"), field, "must be a valid path");
        }
    }
}

/// Whether `['name']` may stand in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Brackets {
    Allowed,
    Refused,
}

/// The next token of a path: `.`, `[`, `]`, a text in single quotes, or what stands between these.
fn token<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let bytes = rest.as_bytes();
    let first = *bytes.first()?;
    let end = match first {
        b'\'' => (1..bytes.len()).find(|at| bytes[*at] == b'\'' && bytes[at - 1] != b'\\').map_or(bytes.len(), |at| at + 1),
        b'.' | b'[' | b']' => 1,
        _ => rest.find(['.', '[', ']']).unwrap_or(bytes.len()),
    };
    let (token, after) = rest.split_at(end);
    *rest = after;
    Some(token)
}

/// Go's escapes of a text in single quotes, as far as upstream reads them.
fn unescaped(quoted: &str) -> Result<String, String> {
    let mut text = String::with_capacity(quoted.len());
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            text.push(c);
            continue;
        }
        text.push(match chars.next() {
            Some('a') => '\x07',
            Some('b') => '\x08',
            Some('f') => '\x0c',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('v') => '\x0b',
            Some(c @ ('\'' | '"' | '\\')) => c,
            _ => return Err("invalid string literal: invalid syntax".to_owned()),
        });
    }
    Ok(text)
}

/// The schema a path like `.spec.x` or `.spec['a.b']` leads to, and the path's names; Err says what is wrong with it (cel.ValidFieldPath).
pub fn field_path<'a>(path: &str, schema: &'a Schema, brackets: Brackets) -> Result<(Vec<String>, &'a Schema), String> {
    let end = || "unexpected end of JSON path".to_owned();
    let mut rest = path;
    let (mut names, mut at) = (Vec::new(), schema);
    while let Some(start) = token(&mut rest) {
        let name = match start {
            "[" if brackets == Brackets::Refused => return Err("array notation is not allowed".to_owned()),
            "[" => {
                let quoted = token(&mut rest).ok_or_else(end)?;
                let inner = quoted.strip_prefix('\'').and_then(|inner| inner.strip_suffix('\''));
                unescaped(inner.ok_or_else(|| format!("expected single quoted string but got {quoted}"))?)?
            }
            "." => token(&mut rest).ok_or_else(end)?.to_owned(),
            other => return Err(format!("expected [ or . but got: {other}")),
        };
        at = at.field(&name).ok_or("does not refer to a valid field")?;
        names.push(name);
        if start == "[" {
            match token(&mut rest) {
                Some("]") => {}
                Some(other) => return Err(format!("expected ] but got {other}")),
                None => return Err(end()),
            }
        }
    }
    Ok((names, at))
}

/// Defaults are themselves valid and pruned.
pub fn defaults(errors: &mut Errors, path: &Path, schema: &Schema) {
    default_of(errors, path, schema, false, true);
}

fn default_of(errors: &mut Errors, path: &Path, schema: &Schema, inside_meta: bool, root: bool) {
    if let Some(default) = &schema.default {
        let at = path.child("default");
        let mut pruned = default.clone();
        if !inside_meta && !prune::value(&mut pruned, schema).is_empty() {
            errors.invalid(&at, default, "must not have unknown fields");
        }
        let before = errors.len();
        metadata::check(errors, &at, default, schema);
        if errors.len() == before {
            check::check(errors, &at.to_string(), default, None, schema);
        }
    }
    if let Some(items) = &schema.items {
        default_of(errors, &path.child("items"), items, inside_meta, false);
    }
    let properties = path.child("properties");
    for (name, property) in &schema.properties {
        let meta = (root || schema.embedded_resource) && matches!(&**name, "metadata" | "apiVersion" | "kind");
        default_of(errors, &properties.key(name), property, inside_meta || meta, false);
    }
}

/// Whether objects can be selected by a field of this schema.
pub fn selectable(schema: &Schema) -> bool {
    matches!(schema.kind, Some(Type::String | Type::Boolean | Type::Integer))
}
