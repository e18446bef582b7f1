//! Structural schemas as tables: what is a violation, what is pruned, defaulted and refused.

use serde_json::{Value, json};

use super::*;
use crate::validation::{Errors, Path};

fn judge(schema: Value, value: Value, old: Option<Value>) -> Vec<String> {
    let mut errors = Errors::new();
    check::check(&mut errors, "", &value, old.as_ref(), &Schema::parse(&schema));
    errors.into_causes().into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
}

fn object(properties: Value) -> Value {
    json!({"type": "object", "properties": properties})
}

#[test]
fn values_are_judged_in_upstreams_words() {
    for (schema, value, wanted) in [
        (json!({"type": "string"}), json!(1), vec!["x: Invalid value: \"integer\": x in body must be of type string: \"integer\""]),
        (json!({"type": "integer"}), json!(1.0), vec![]),
        (json!({"type": "integer", "format": "int32"}), json!(1.0), vec![]),
        (json!({"type": "integer", "format": "int32"}), json!(2147483648u32), vec!["x: Invalid value: 2147483648: x in body must be of type integer with format int32"]),
        (json!({"type": "integer"}), json!(null), vec!["x: Invalid value: \"null\": x in body must be of type integer: \"null\""]),
        (json!({"type": "integer", "nullable": true}), json!(null), vec![]),
        (json!({"type": "integer", "minimum": 1, "maximum": 10}), json!(11), vec!["x: Invalid value: 11: x in body should be less than or equal to 10"]),
        (json!({"type": "number", "minimum": 0.5, "exclusiveMinimum": true}), json!(0.5), vec!["x: Invalid value: 0.5: x in body should be greater than 0.5"]),
        (json!({"type": "integer", "multipleOf": 2}), json!(3), vec!["x: Invalid value: 3: x in body should be a multiple of 2"]),
        (json!({"type": "string", "pattern": "^a+$"}), json!("b"), vec!["x: Invalid value: \"b\": x in body should match '^a+$'"]),
        (json!({"type": "string", "maxLength": 2}), json!("äöü"), vec!["x: Too long: may not be more than 2 bytes"]),
        (json!({"type": "string", "minLength": 1}), json!(""), vec!["x: Invalid value: \"\": x in body should be at least 1 chars long"]),
        (json!({"type": "string", "enum": ["a", "b"]}), json!("c"), vec!["x: Unsupported value: \"c\": supported values: \"a\", \"b\""]),
        (json!({"type": "string", "format": "date-time"}), json!("soon"), vec!["x: Invalid value: \"soon\": x in body must be of type date-time: \"soon\""]),
        (json!({"type": "array", "items": {"type": "string"}, "maxItems": 1}), json!(["a", 2]), vec!["x[1]: Invalid value: \"integer\": x[1] in body must be of type string: \"integer\"", "x: Too many: 2: must have at most 1 item"]),
        (json!({"type": "array", "minItems": 1, "items": {"type": "string"}}), json!([]), vec!["x: Invalid value: 0: x in body should have at least 1 items"]),
        (json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}}), json!({}), vec!["x.a: Required value"]),
        (json!({"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 1}), json!({"a": "1", "b": 2}), vec!["x: Too many: 2: must have at most 1 item", "x.a: Invalid value: \"string\": x.a in body must be of type integer: \"string\""]),
        (json!({"x-kubernetes-int-or-string": true}), json!(true), vec!["x: Invalid value: \"boolean\": x in body must be of type integer,string: \"boolean\""]),
        (json!({"type": "integer", "not": {"enum": [3]}}), json!(3), vec!["<nil>: Invalid value: \"\": \"x\" must not validate the schema (not)"]),
        (json!({"type": "integer", "oneOf": [{"minimum": 5}, {"minimum": 3}]}), json!(6), vec!["<nil>: Invalid value: \"\": \"x\" must validate one and only one schema (oneOf). Found 2 valid alternatives"]),
        (json!({"type": "integer", "anyOf": [{"minimum": 5}, {"maximum": 1}]}), json!(3), vec![
            "<nil>: Invalid value: \"\": \"x\" must validate at least one schema (anyOf)",
            "x: Invalid value: 3: x in body should be greater than or equal to 5",
        ]),
        (json!({"type": "integer", "allOf": [{"minimum": 5}, {"maximum": 9}]}), json!(3), vec![
            "x: Invalid value: 3: x in body should be greater than or equal to 5",
            "<nil>: Invalid value: \"\": \"x\" must validate all the schemas (allOf)",
        ]),
    ] {
        assert_eq!(judge(object(json!({"x": schema})), json!({"x": value}), None), wanted, "{schema}");
    }
    assert_eq!(judge(json!({"type": "object", "required": ["spec"]}), json!({}), None), ["spec: Required value"]);
}

#[test]
fn what_was_wrong_and_is_unchanged_passes() {
    let schema = object(json!({"a": {"type": "string", "maxLength": 1}, "l": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {
        "type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer", "minimum": 5}}}}, "s": {"type": "array", "items": {"type": "integer", "minimum": 5}}}));
    let old = json!({"a": "long", "l": [{"k": "x", "v": 1}, {"k": "y", "v": 2}], "s": [1]});
    assert!(judge(schema.clone(), json!({"a": "long", "l": [{"k": "y", "v": 2}], "s": [1]}), Some(old.clone())).is_empty());
    assert_eq!(
        judge(schema, json!({"a": "other", "l": [{"k": "y", "v": 3}], "s": [1, 9]}), Some(old)),
        ["a: Too long: may not be more than 1 byte", "l[0].v: Invalid value: 3: l[0].v in body should be greater than or equal to 5", "s[0]: Invalid value: 1: s[0] in body should be greater than or equal to 5"]
    );
}

#[test]
fn unknown_fields_are_pruned() {
    let schema = Schema::parse(&object(json!({
        "spec": object(json!({"a": {"type": "string"}, "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"strict": object(json!({"b": {"type": "string"}}))}},
            "list": {"type": "array", "items": object(json!({"c": {"type": "string"}}))}, "map": {"type": "object", "additionalProperties": object(json!({"d": {"type": "string"}}))},
            "open": {"type": "object", "additionalProperties": true},
            "embedded": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": object(json!({}))}}}))
    })));
    let mut value = json!({"apiVersion": "a/v1", "kind": "K", "metadata": {"name": "n"}, "other": 1, "spec": {"a": "", "x": 1, "free": {"any": {"thing": 1}, "strict": {"b": "", "z": 1}},
        "list": [{"c": ""}, {"c": "", "y": 1}], "map": {"k": {"d": "", "w": 1}}, "open": {"k": {"gone": 1}}, "embedded": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"v": 1}, "u": 1}}});
    assert_eq!(
        prune::resource(&mut value, &schema),
        ["other", "spec.embedded.spec.v", "spec.embedded.u", "spec.free.strict.z", "spec.list[1].y", "spec.map.k.w", "spec.open.k.gone", "spec.x"].into_iter().collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    );
    assert_eq!(value["spec"]["free"], json!({"any": {"thing": 1}, "strict": {"b": ""}}));
    assert_eq!(value["spec"]["embedded"]["metadata"], json!({"name": "p"}));
}

#[test]
fn defaults_fill_in_and_nulls_go() {
    let schema = Schema::parse(&object(json!({
        "a": {"type": "integer", "default": 1}, "b": {"type": "integer"}, "c": {"type": "integer", "nullable": true, "default": 3},
        "d": {"type": "object", "default": {}, "properties": {"e": {"type": "string", "default": "x"}}},
        "f": {"type": "object", "properties": {"g": {"type": "string", "default": "y"}}},
        "l": {"type": "array", "items": object(json!({"p": {"type": "string", "default": "TCP"}}))}
    })));
    let mut value = json!({"a": null, "b": null, "c": null, "l": [{}]});
    defaults::apply(&mut value, &schema);
    assert_eq!(value, json!({"a": 1, "c": null, "d": {"e": "x"}, "l": [{"p": "TCP"}]}));
}

#[test]
fn sets_and_maps_hold_each_item_once() {
    let schema = Schema::parse(&object(json!({
        "s": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "m": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": object(json!({"k": {"type": "string"}}))}
    })));
    let mut errors = Errors::new();
    lists::check(&mut errors, &Path::Root(""), &json!({"s": ["a", "b", "a", "a"], "m": [{"k": "x"}, {"k": "x", "z": 1}]}), &schema);
    let lines: Vec<String> = errors.into_causes().into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
    assert_eq!(lines, ["m[1]: Duplicate value: {\"k\":\"x\"}", "s[2]: Duplicate value: \"a\""]);
}

#[test]
fn metadata_is_coerced() {
    let schema = Schema::parse(&object(json!({"template": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}})));
    let mut value = json!({"metadata": {"name": "a", "unknown": 1}, "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "b", "foo": 1}}});
    assert_eq!(metadata::coerce(&mut value, &schema).unwrap(), ["metadata.unknown", "template.metadata.foo"]);
    assert_eq!(value["template"]["metadata"], json!({"name": "b"}));
    let mut wrong = json!({"metadata": {"labels": 1}});
    assert!(metadata::coerce(&mut wrong, &schema).unwrap_err().message.starts_with("json: cannot unmarshal number"));
    let mut errors = Errors::new();
    metadata::check(&mut errors, &Path::Root(""), &json!({"template": {"kind": "Pod"}}), &schema);
    assert_eq!(errors.into_causes()[0].field, "template.apiVersion");
}

#[test]
fn field_paths() {
    let schema = Schema::parse(&object(json!({"spec": object(json!({"a": {"type": "string"}, "b.c": {"type": "integer"}}))})));
    assert_eq!(definition::field_path(".spec.a", &schema, definition::Brackets::Allowed).unwrap().0, ["spec", "a"]);
    assert_eq!(definition::field_path(".spec['b.c']", &schema, definition::Brackets::Allowed).unwrap().0, ["spec", "b.c"]);
    assert_eq!(definition::field_path(".spec.z", &schema, definition::Brackets::Allowed).unwrap_err(), "does not refer to a valid field");
    assert!(definition::field_path("spec", &schema, definition::Brackets::Allowed).is_err());
}
