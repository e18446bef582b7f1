//! Whether a schema is structural: what is wrong with it, in upstream's words and sorted as there.
//!
//! Mirrors apiserver/schema/validation.go and complete.go. CustomResourceDefinitions are refused with these, and those that were stored long ago carry them in their
//! NonStructuralSchema condition.

use serde_json::{Map, Value};

use super::keywords::{flag, set, text};
use crate::status::Cause;
use crate::validation::{Errors, Path};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

pub fn violations(path: &Path, schema: &Value) -> Vec<Cause> {
    let mut errors = Errors::new();
    invariants(&mut errors, path, schema, Level::Root);
    complete(&mut errors, schema, Some(schema), path, path);
    let mut causes = errors.into_causes();
    causes.sort_by_cached_key(|cause| format!("{}: {}", cause.field, cause.message));
    causes
}

fn map<'a>(schema: &'a Value, name: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    schema.get(name).and_then(Value::as_object).into_iter().flatten()
}

fn items<'a>(schema: &'a Value, name: &str) -> &'a [Value] {
    schema.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn inner<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    schema.get(name).filter(|inner| inner.is_object())
}

/// `anyOf: [{type: integer}, {type: string}]`
fn int_or_string_pattern(any_of: &[Value]) -> bool {
    let is = |schema: &Value, kind: &str| schema.as_object().is_some_and(|map| map.len() == 1) && text(schema, "type") == kind;
    matches!(any_of, [first, second] if is(first, "integer") && is(second, "string"))
}

fn invariants(errors: &mut Errors, path: &Path, schema: &Value, level: Level) {
    const EMBEDDED: &str = "x-kubernetes-embedded-resource";
    const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
    let kind = text(schema, "type");
    let (embedded, preserve, int_or_string) = (flag(schema, EMBEDDED), flag(schema, PRESERVE), flag(schema, "x-kubernetes-int-or-string"));
    if kind == "array" && inner(schema, "items").is_none() {
        errors.required(&path.child("items"), "must be specified");
    }
    if let Some(items) = inner(schema, "items") {
        invariants(errors, &path.child("items"), items, Level::Item);
    }
    let properties = path.child("properties");
    for (name, property) in map(schema, "properties") {
        invariants(errors, &properties.key(name), property, Level::Field);
    }
    if set(schema, "additionalProperties") {
        let at = path.child("additionalProperties");
        if level == Level::Root {
            errors.forbidden(&at, "must not be used at the root");
        }
        if let Some(additional) = inner(schema, "additionalProperties") {
            invariants(errors, &at, additional, Level::Field);
        }
    }
    if int_or_string && preserve {
        errors.invalid(&path.child(PRESERVE), &true, "must be false if x-kubernetes-int-or-string is true");
    }
    if int_or_string && embedded {
        errors.invalid(&path.child(EMBEDDED), &true, "must be false if x-kubernetes-int-or-string is true");
    }
    let skip_any = int_or_string_pattern(items(schema, "anyOf"));
    let skip_first_all = items(schema, "allOf").first().is_some_and(|first| int_or_string_pattern(items(first, "anyOf")));
    values(errors, path, schema, skip_any, skip_first_all);
    if embedded && kind != "object" {
        let at = path.child("type");
        let why = "must be object if x-kubernetes-embedded-resource is true";
        if kind.is_empty() { errors.required(&at, why) } else { errors.invalid(&at, kind, why) }
    } else if kind.is_empty() && !int_or_string && !preserve {
        let why = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        errors.required(&path.child("type"), why);
    }
    if embedded && set(schema, "additionalProperties") {
        errors.forbidden(&path.child("additionalProperties"), "must not be used if x-kubernetes-embedded-resource is set");
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        errors.invalid(&path.child("type"), kind, "must be object at the root");
    }
    let meta = level == Level::Root || embedded;
    for name in ["kind", "apiVersion"] {
        if let Some(property) = schema.get("properties").and_then(|properties| properties.get(name)).filter(|property| meta && text(property, "type") != "string") {
            errors.invalid(&properties.key(name).child("type"), text(property, "type"), "must be string");
        }
    }
    if let Some(metadata) = schema.get("properties").and_then(|properties| properties.get("metadata")) {
        let at = properties.key("metadata");
        if meta && text(metadata, "type") != "object" {
            errors.invalid(&at.child("type"), text(metadata, "type"), "must be object");
        }
        if level == Level::Root && !only_names(metadata) {
            errors.forbidden(&at, "must not specify anything other than name and generateName, but metadata is implicitly specified");
        }
    }
    if embedded && !preserve && map(schema, "properties").next().is_none() {
        errors.required(&properties, "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields");
    }
}

/// At the root, `metadata` may restrict names and nothing else; texts do not count.
fn only_names(metadata: &Value) -> bool {
    let names = map(metadata, "properties").all(|(name, _)| matches!(name.as_str(), "name" | "generateName"));
    names && metadata.as_object().is_none_or(|map| map.keys().all(|key| matches!(key.as_str(), "type" | "properties" | "default")))
}

fn values(errors: &mut Errors, path: &Path, schema: &Value, skip_any: bool, skip_first_all: bool) {
    if !skip_any {
        let at = path.child("anyOf");
        for (index, inner) in items(schema, "anyOf").iter().enumerate() {
            nested(errors, &at.index(index), inner, false);
        }
    }
    let at = path.child("allOf");
    for (index, inner) in items(schema, "allOf").iter().enumerate() {
        nested(errors, &at.index(index), inner, skip_first_all && index == 0);
    }
    let at = path.child("oneOf");
    for (index, inner) in items(schema, "oneOf").iter().enumerate() {
        nested(errors, &at.index(index), inner, false);
    }
    if let Some(not) = inner(schema, "not") {
        nested(errors, &path.child("not"), not, false);
    }
    let pattern = text(schema, "pattern");
    if let Some(error) = Some(pattern).filter(|pattern| !pattern.is_empty()).and_then(|pattern| crate::regexp::compile(pattern).err()) {
        errors.invalid(&path.child("pattern"), pattern, &format!("must be a valid regular expression, but isn't: {error}"));
    }
}

fn nested(errors: &mut Errors, path: &Path, schema: &Value, skip_any: bool) {
    values(errors, path, schema, skip_any, false);
    if let Some(items) = inner(schema, "items") {
        nested(errors, &path.child("items"), items, false);
    }
    let properties = path.child("properties");
    for (name, property) in map(schema, "properties") {
        nested(errors, &properties.key(name), property, false);
    }
    let nothing = |name: &str| match schema.get(name) {
        None | Some(Value::Null | Value::Bool(false)) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(_) => false,
    };
    for (name, why) in [
        ("type", "must be empty to be structural"),
        ("additionalProperties", "must be undefined to be structural"),
        ("default", "must be undefined to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("nullable", "must be false to be structural"),
        ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
        ("x-kubernetes-embedded-resource", "must be false to be structural"),
        ("x-kubernetes-int-or-string", "must be false to be structural"),
        ("x-kubernetes-list-map-keys", "must be empty to be structural"),
        ("x-kubernetes-list-type", "must be undefined to be structural"),
        ("x-kubernetes-map-type", "must be undefined to be structural"),
        ("x-kubernetes-validations", "must be empty to be structural"),
    ] {
        if !nothing(name) {
            errors.forbidden(&path.child(name), why);
        }
    }
    if schema.get("properties").is_some_and(|properties| properties.get("metadata").is_some()) {
        errors.forbidden(&properties.key("metadata"), "must not be specified in a nested context");
    }
}

/// Every value validation has a structural counterpart.
fn complete(errors: &mut Errors, values: &Value, schema: Option<&Value>, schema_path: &Path, path: &Path) {
    let Some(schema) = schema else {
        errors.required(schema_path, &format!("because it is defined in {path}"));
        return;
    };
    if let Some(not) = inner(values, "not") {
        complete_nested(errors, not, Some(schema), schema_path, &path.child("not"));
    }
    for name in ["allOf", "anyOf", "oneOf"] {
        let at = path.child(name);
        for (index, inner) in items(values, name).iter().enumerate() {
            complete_nested(errors, inner, Some(schema), schema_path, &at.index(index));
        }
    }
}

fn complete_nested(errors: &mut Errors, values: &Value, schema: Option<&Value>, schema_path: &Path, path: &Path) {
    let Some(schema) = schema else {
        errors.required(schema_path, &format!("because it is defined in {path}"));
        return;
    };
    complete(errors, values, Some(schema), schema_path, path);
    if let Some(items) = inner(values, "items") {
        complete_nested(errors, items, inner(schema, "items"), &schema_path.child("items"), &path.child("items"));
    }
    let (schema_at, at) = (schema_path.child("properties"), path.child("properties"));
    let known: Option<&Map<String, Value>> = schema.get("properties").and_then(Value::as_object);
    for (name, property) in map(values, "properties") {
        match known.and_then(|known| known.get(name)) {
            None => errors.required(&schema_at.key(name), &format!("because it is defined in {}", at.key(name))),
            Some(known) => complete_nested(errors, property, Some(known), &schema_at.key(name), &at.key(name)),
        }
    }
}
