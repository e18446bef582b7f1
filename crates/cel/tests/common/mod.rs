//! What the tables share: an expression, with or without a schema, and what becomes of it.
#![allow(dead_code)]

use cel::{Activation, Budget, CompileErrors, DeclType, Env, EvalError, Program};
use serde_json::{Value as Json, json};

/// An environment where `self` and `oldSelf` are of this schema.
pub fn of_schema(schema: &Json) -> (Env, DeclType) {
    let decl = DeclType::from_schema(schema, false).expect("a schema that CEL sees");
    (Env::new().variable("self", decl.clone()).variable("oldSelf", decl.clone()), decl)
}

pub fn compile(expression: &str) -> Result<Program, CompileErrors> {
    Env::new().variable("dynamic", DeclType::dyn_()).compile(expression)
}

/// As JSON. `dynamic` is an untyped variable with a bit of everything.
pub fn evaluate(expression: &str) -> Result<Json, String> {
    let program = compile(expression).map_err(|errors| errors.issues.iter().map(|issue| issue.message.clone()).collect::<Vec<_>>().join("; "))?;
    let dynamic = json!({"int": 5, "big": 18446744073709551615u64, "double": 1.5, "text": "héllo", "list": [1, 2, 3], "map": {"a": 1, "b.c": 2}, "nothing": null, "yes": true});
    let activation = Activation::new().bind("dynamic", cel::Value::json(&dynamic));
    let value = program.evaluate(&activation, &mut Budget::new(cel::limits::RUNTIME_COST_BUDGET)).map_err(|error| error.to_string())?;
    value.to_json().map_err(|error| error.to_string())
}

/// Each must be true.
pub fn all_true(expressions: &[&str]) {
    let wrong: Vec<String> = expressions
        .iter()
        .filter_map(|expression| match evaluate(expression) {
            Ok(Json::Bool(true)) => None,
            other => Some(format!("{expression}: {other:?}")),
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Each must fail, at compile time or when evaluated, with a message that has this in it.
pub fn all_fail(expressions: &[(&str, &str)]) {
    let wrong: Vec<String> = expressions
        .iter()
        .filter_map(|(expression, message)| match evaluate(expression) {
            Err(error) if error.contains(message) => None,
            other => Some(format!("{expression}: {other:?}, wanted {message}")),
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

pub fn is_limit(error: &EvalError) -> bool {
    matches!(error, EvalError::CallLimit | EvalError::OutOfBudget)
}
