//! `x-kubernetes-validations`: the expressions of a definition, and what they say of its objects.
//!
//! Nothing is let pass unjudged: as long as expressions are not evaluated, a definition that has any is refused.

use ::api::validation::{Errors, Path};
use ::api::{Cause, Custom};
use serde_json::Value;

/// What is wrong with the expressions of a definition.
pub fn definition(new: &Value, _old: Option<&Value>) -> Vec<Cause> {
    let mut errors = Errors::new();
    let path = Path::Root("spec.versions");
    for (index, version) in new.pointer("/spec/versions").and_then(Value::as_array).into_iter().flatten().enumerate() {
        if let Some(schema) = version.pointer("/schema/openAPIV3Schema") {
            refuse(&mut errors, &path.index(index).child("schema.openAPIV3Schema"), schema);
        }
    }
    errors.into_causes()
}

fn refuse(errors: &mut Errors, path: &Path, schema: &Value) {
    if schema.get("x-kubernetes-validations").and_then(Value::as_array).is_some_and(|rules| !rules.is_empty()) {
        errors.forbidden(&path.child("x-kubernetes-validations"), "validation rules are not supported by this server yet");
    }
    let properties = path.child("properties");
    for (name, inner) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        refuse(errors, &properties.key(name), inner);
    }
    for name in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get(name).filter(|inner| inner.is_object()) {
            refuse(errors, &path.child(name), inner);
        }
    }
}

/// What the rules say of an object. Objects of definitions with rules do not exist yet.
pub fn object(_custom: &Custom, _new: &Value, _old: Option<&Value>, _found: &[Cause]) -> Vec<Cause> {
    Vec::new()
}
