//! No text panics the parser, the checker or the evaluator, and none overflows the stack; every run ends within its budget.

use cel::{Activation, Budget, DeclType, Env, Value};
use proptest::prelude::*;
use serde_json::json;

fn try_out(expression: &str) {
    let schema = json!({"type": "object", "properties": {
        "list": {"type": "array", "items": {"type": "integer"}},
        "text": {"type": "string"},
        "map": {"type": "object", "additionalProperties": {"type": "string"}},
        "either": {"x-kubernetes-int-or-string": true},
        "when": {"type": "string", "format": "date-time"},
    }});
    let decl = DeclType::from_schema(&schema, true).expect("a schema that CEL sees");
    let env = Env::new().variable("self", decl.clone()).variable("a", DeclType::dyn_()).with_patch_types().with_bind();
    match env.compile(expression) {
        Err(errors) => assert!(!errors.to_string().is_empty()),
        Ok(program) => {
            let data = json!({"list": [1, 2, -9223372036854775808i64], "text": "é-1", "map": {"k": "v"}, "either": "50%", "when": "2024-02-29T23:59:59.999Z"});
            let dynamic = json!([1, "x", null, {"b": [true, 1.5]}]);
            let activation = Activation::new().bind("self", Value::typed(&data, &decl)).bind("a", Value::json(&dynamic));
            let mut budget = Budget::new(20_000).with_per_call_limit(20_000);
            if let Ok(value) = program.evaluate(&activation, &mut budget) {
                let _ = value.to_json();
            }
        }
    }
}

/// Pieces that together often make sense.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => prop::sample::select(vec![
            "self", "a", "1", "-1", "0u", "1.5", "'x'", "b'x'", "null", "true", "[]", "{}", "(", ")", "[", "]", "{", "}", ".", ",", "?", ":", "+", "-", "*", "/", "%", "<",
            "==", "!=", "&&", "||", "!", " in ", ".list", ".text", ".map", ".either", ".when", "[0]", "[?0]", ".?b", ".all(x, ", ".exists(x, ", ".map(x, ", ".filter(x, ",
            ".sortBy(x, ", "x", ".size()", ".first()", "has(self.text)", "type(", "int(", "string(", "dyn(", "double(", "duration('1h')", "timestamp(0)", "quantity('1Ki')",
            "ip('::1')", "cidr('::/0')", "url('https://a/b')", "semver('1.2.3')", ".optMap(x, ", "optional.of(", "optional.none()", ".transformMap(k, v, ", "cel.bind(x, ",
            "Object{", "JSONPatch{", ".substring(1)", ".replace('x', 'y')", ".split('')", ".format([", ".matches('", ".join('-')", "9223372036854775807", "lists.range(9)",
            ".flatten()", ".sum()", ".max()", "'%s %d'", ".getHours('+01:00')", "sets.contains(", "format.uuid()", ".validate('x')", "\"\"\"", "r'", "\\", "\n", "//",
        ]).prop_map(str::to_owned),
        1 => "\\PC{0,3}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn on_any_text(text in "\\PC{0,60}") {
        try_out(&text);
    }

    #[test]
    fn on_pieces(pieces in prop::collection::vec(piece(), 1..14)) {
        try_out(&pieces.concat());
    }

    #[test]
    fn on_one_piece_very_often(piece in piece(), count in 1usize..600) {
        try_out(&piece.repeat(count));
    }
}

#[test]
fn on_deep_trees() {
    for (open, inner, close) in [
        ("(", "1", ")"),
        ("[", "1", "]"),
        ("{1: ", "1", "}"),
        ("!", "true", ""),
        ("self.list.all(x, ", "true", ")"),
        ("dyn(", "1", ")"),
        ("1 + ", "1", ""),
        ("", "a", ".b"),
        ("a[", "0", "]"),
        ("true ? 1 : ", "1", ""),
    ] {
        for depth in [10, 100, 240, 260, 1000] {
            try_out(&format!("{}{inner}{}", open.repeat(depth), close.repeat(depth)));
        }
    }
}
