//! From an OpenAPI schema to types and values: what CEL sees of an object, under which names, and how its lists compare and add.

mod common;

use cel::{Activation, Budget, DeclType, Env, Value};
use common::of_schema;
use serde_json::{Value as Json, json};

fn verdict(schema: &Json, data: &Json, rule: &str) -> Result<bool, String> {
    let (env, decl) = of_schema(schema);
    let program = env.compile(rule).map_err(|errors| errors.issues[0].message.clone())?;
    let activation = Activation::new().bind("self", Value::typed(data, &decl)).bind("oldSelf", Value::typed(data, &decl));
    let value = program.evaluate(&activation, &mut Budget::new(10_000_000)).map_err(|error| error.to_string())?;
    value.as_bool().ok_or_else(|| "no bool".to_owned())
}

fn all_hold(schema: &Json, data: &Json, rules: &[&str]) {
    for rule in rules {
        assert_eq!(verdict(schema, data, rule), Ok(true), "{rule}");
    }
}

fn all_fail(schema: &Json, data: &Json, rules: &[(&str, &str)]) {
    for (rule, message) in rules {
        let error = verdict(schema, data, rule).expect_err(rule);
        assert!(error.contains(message), "{rule}: {error}");
    }
}

#[test]
fn scalars_by_type_and_format() {
    let schema = json!({"type": "object", "properties": {
        "int": {"type": "integer"}, "number": {"type": "number"}, "text": {"type": "string"}, "flag": {"type": "boolean"},
        "bytes": {"type": "string", "format": "byte"}, "when": {"type": "string", "format": "date-time"}, "day": {"type": "string", "format": "date"},
        "long": {"type": "string", "format": "duration"}, "either": {"x-kubernetes-int-or-string": true}, "either2": {"x-kubernetes-int-or-string": true},
        "maybe": {"type": "integer", "nullable": true},
    }});
    let data = json!({"int": 5, "number": 1, "text": "a", "flag": true, "bytes": "QUI=", "when": "2011-08-18T19:03:37.01+01:00", "day": "1997-07-16", "long": "1h2m3s4ms",
        "either": 5, "either2": "50%", "maybe": null});
    all_hold(
        &schema,
        &data,
        &[
            "type(self.int) == int && type(self.number) == double && self.number == 1.0",
            "self.bytes == b'AB' && size(self.bytes) == 2",
            "self.when == timestamp('2011-08-18T18:03:37.010Z') && self.when.getHours() == 18 && string(self.when) == '2011-08-18T19:03:37.01+01:00'",
            "self.day == timestamp('1997-07-16T00:00:00Z') && self.day.getDate() == 16",
            "self.long == duration('1h2m3s4ms') && self.long.getMinutes() == 62",
            "type(self.either) == int && type(self.either2) == string",
            "type(self.either) == int ? self.either < 10 : self.either == '5'",
            "!has(self.maybe)",
        ],
    );
    all_fail(
        &schema,
        &data,
        &[
            ("self.int == 1.0", "found no matching overload for '_==_' applied to '(int, double)'"),
            ("self.maybe == 1", "no such key: maybe"),
            ("self.unknown == 1", "undefined field 'unknown'"),
            ("self.either2 < 5", "no such overload"),
        ],
    );
    all_fail(
        &schema,
        &json!({"int": "x", "when": "yesterday", "bytes": "!", "long": "long", "text": null}),
        &[
            ("self.int == 1", "invalid data, expected int"),
            ("self.when == self.when", "Invalid date-time formatted string yesterday"),
            ("self.when != oldSelf.when", "Invalid date-time formatted string yesterday"),
            ("self.bytes == b''", "Invalid byte formatted string"),
            ("self.long == duration('1s')", "Invalid duration long"),
        ],
    );
}

#[test]
fn names_are_escaped() {
    let schema = json!({"type": "object", "properties": {
        "namespace": {"type": "string"}, "a-b": {"type": "integer"}, "a.b/c": {"type": "integer"}, "x__y": {"type": "integer"}, "in": {"type": "integer"}, "@odd": {"type": "integer"},
    }});
    let data = json!({"namespace": "n", "a-b": 1, "a.b/c": 2, "x__y": 3, "in": 4, "@odd": 5});
    all_hold(
        &schema,
        &data,
        &[
            "self.__namespace__ == 'n' && self.namespace == 'n' && has(self.namespace)",
            "self.a__dash__b == 1 && self.a__dot__b__slash__c == 2 && self.x__underscores__y == 3 && self.__in__ == 4",
        ],
    );
    assert!(verdict(&schema, &data, "self.odd == 5").is_err());
}

#[test]
fn lists_by_kind() {
    let item = json!({"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "string"}}});
    let schema = json!({"type": "object", "properties": {
        "atomic": {"type": "array", "items": {"type": "string"}}, "other": {"type": "array", "items": {"type": "string"}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}, "set2": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": item},
        "map2": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": item},
    }});
    let data = json!({
        "atomic": ["a", "b"], "other": ["b", "a"], "set": ["a", "b"], "set2": ["b", "a"],
        "map": [{"k": "a", "v": "1"}, {"k": "b", "v": "2"}], "map2": [{"k": "b", "v": "2"}, {"k": "a", "v": "1"}],
    });
    all_hold(
        &schema,
        &data,
        &[
            "self.atomic != self.other && self.atomic + self.other == ['a', 'b', 'b', 'a']",
            "self.set == self.set2 && self.set == ['b', 'a'] && self.set + ['c', 'a'] == ['a', 'b', 'c'] && size(self.set + self.set2) == 2",
            "self.map.exists(e, e.k == 'b' && e.v == '2') && self.map[1].v == '2' && size(self.map) == 2",
            "oldSelf.map == self.map && self == oldSelf",
        ],
    );
    // Two fields are two types, even if they look the same.
    assert!(verdict(&schema, &data, "self.map == self.map2").unwrap_err().contains("found no matching overload for '_==_'"));
}

#[test]
fn maps_objects_and_what_is_hidden() {
    let schema = json!({"type": "object", "properties": {
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "nested": {"type": "object", "properties": {"a": {"type": "integer"}, "deep": {"type": "object", "properties": {"b": {"type": "integer"}}}}},
        "anything": {"x-kubernetes-preserve-unknown-fields": true},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }});
    let data = json!({"labels": {"app": "web", "x/y": "z"}, "nested": {"a": 1, "extra": [1]}, "anything": 5, "free": {"x": 1}});
    all_hold(
        &schema,
        &data,
        &[
            "self.labels.app == 'web' && self.labels['x/y'] == 'z' && 'app' in self.labels && self.labels.all(k, k != '') && size(self.labels) == 2",
            "has(self.nested) && has(self.nested.a) && !has(self.nested.deep) && self.nested == oldSelf.nested",
            "self.labels == {'x/y': 'z', 'app': 'web'} && self.free == oldSelf.free",
            "self.?nested.?deep.?b.orValue(7) == 7",
        ],
    );
    all_fail(
        &schema,
        &data,
        &[
            ("self.anything == 5", "undefined field 'anything'"),
            ("self.free.x == 1", "undefined field 'x'"),
            ("self.nested.deep.b == 1", "no such key: deep"),
            ("self.labels.nothing == ''", "no such key: nothing"),
        ],
    );
}

#[test]
fn resources_have_their_metadata() {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "template": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"a": {"type": "string"}}}}}}});
    let decl = DeclType::from_schema(&schema, true).unwrap();
    let env = Env::new().variable("self", decl.clone());
    let data = json!({"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "n", "labels": {}}, "spec": {"template": {"kind": "Pod", "metadata": {"name": "p"}}}});
    for (rule, wanted) in [
        ("self.kind == 'Thing' && self.apiVersion == 'v1' && self.metadata.name == 'n'", true),
        ("self.spec.template.kind == 'Pod' && self.spec.template.metadata.name == 'p' && !has(self.metadata.generateName)", true),
    ] {
        let program = env.compile(rule).unwrap();
        let activation = Activation::new().bind("self", Value::typed(&data, &decl));
        assert_eq!(program.evaluate(&activation, &mut Budget::new(1000)).unwrap().as_bool(), Some(wanted), "{rule}");
    }
    assert_eq!(env.compile("self.metadata.labels == {}").unwrap_err().issues[0].message, "undefined field 'labels'");
}

#[test]
fn old_self_may_be_optional() {
    let decl = DeclType::from_schema(&json!({"type": "integer"}), false).unwrap();
    let old = DeclType::optional(decl.clone());
    let env = Env::new().variable("self", decl.clone()).variable("oldSelf", old.clone());
    let program = env.compile("self >= 10 || (oldSelf.hasValue() && oldSelf.value() <= self)").unwrap();
    let (three, five) = (json!(3), json!(5));
    for (before, now, wanted) in [(None, &five, false), (Some(&three), &five, true), (Some(&five), &three, false)] {
        let before = Value::optional(before.map(|before| Value::typed(before, &decl)));
        let activation = Activation::new().bind("self", Value::typed(now, &decl)).bind("oldSelf", before);
        assert_eq!(program.evaluate(&activation, &mut Budget::new(1000)).unwrap().as_bool(), Some(wanted));
    }
    assert_eq!(
        env.compile("oldSelf == self").unwrap_err().issues[0].message,
        "found no matching overload for '_==_' applied to '(optional_type(int), int)'"
    );
}

#[test]
fn sizes_come_from_the_schema() {
    let object = json!({"type": "object", "required": ["required"], "properties": {"required": {"type": "string"}, "optional": {"type": "string"}}});
    for (schema, max_elements, min_size) in [
        (json!({"type": "array", "items": {"type": "number"}}), 1_572_863, 2),
        (json!({"type": "array", "maxItems": 10, "items": {"type": "number"}}), 10, 2),
        (json!({"type": "array", "items": object}), 3_145_726 / 17, 2),
        (json!({"type": "object", "additionalProperties": {"type": "boolean"}}), 314_572, 2),
        (json!({"type": "string"}), 3_145_726, 2),
        (json!({"type": "string", "maxLength": 5}), 20, 2),
        (json!({"type": "string", "enum": ["a", "abc"]}), 3, 2),
        (json!({"type": "string", "format": "byte", "maxLength": 5}), 5, 2),
        (json!({"type": "string", "format": "date-time"}), 32, 21),
        (json!({"type": "integer"}), 0, 1),
        (object.clone(), 0, 16),
    ] {
        let decl = DeclType::from_schema(&schema, false).unwrap();
        assert_eq!((decl.max_elements(), decl.min_serialized_size()), (Some(max_elements), min_size), "{schema}");
    }
    assert_eq!(DeclType::from_schema(&json!({"type": "boolean"}), false).unwrap().max_cardinality(), 629_145);
    assert!(DeclType::from_schema(&json!({"type": "array"}), false).is_none());
    assert!(DeclType::from_schema(&json!({"x-kubernetes-preserve-unknown-fields": true}), false).is_none());
}
