//! Expressions are compiled when a policy or a webhook's configuration is written: what does not compile is refused, unless it was there before.
//!
//! Mirrors pkg/apis/admissionregistration/validation: fields and words.

use ::api::validation::{Errors, Path};
use ::api::{Cause, Resource};
use cel::Env;
use serde_json::Value;

use super::expressions::{Has, compile, environment};
use super::index::GROUP;
use super::policy::with_variables;
use crate::registry::text;

pub fn expressions(row: &Resource, new: &Value, old: Option<&Value>) -> Vec<Cause> {
    if row.group != GROUP {
        return Vec::new();
    }
    let mut faults = Faults { errors: Errors::new(), new, old };
    match &*row.plural {
        "mutatingwebhookconfigurations" | "validatingwebhookconfigurations" => {
            let env = environment(Has { params: false, authorizer: true });
            for index in 0..faults.count("/webhooks") {
                faults.list(&env, &format!("/webhooks/{index}/matchConditions"), "expression", &["bool"]);
            }
        }
        "validatingadmissionpolicies" | "mutatingadmissionpolicies" => policy(&mut faults, row.plural == "mutatingadmissionpolicies"),
        _ => {}
    }
    faults.errors.into_causes()
}

fn policy(faults: &mut Faults<'_>, mutating: bool) {
    let params = faults.new.pointer("/spec/paramKind").is_some_and(Value::is_object);
    let widen = |env: Env| if mutating { env.with_patch_types() } else { env };
    let all = environment(Has { params, authorizer: true });
    faults.list(&all, "/spec/matchConditions", "expression", &["bool"]);
    let mut env = widen(all);
    env.declare_set("variables");
    // One after the other: each may use those before it.
    let count = faults.count("/spec/variables");
    for index in 0..count {
        let upto: Vec<Value> = faults.new.pointer("/spec/variables").and_then(Value::as_array).map(|list| list[..index].to_vec()).unwrap_or_default();
        let (env, _) = with_variables(env.clone(), &serde_json::json!({"spec": {"variables": upto}}));
        faults.one(&env, &format!("/spec/variables/{index}/expression"), &[]);
    }
    let (env, _) = with_variables(env, faults.new);
    let (plain, _) = with_variables(widen(environment(Has { params, authorizer: false })), faults.new);
    faults.list(&env, "/spec/validations", "expression", &["bool"]);
    faults.list(&plain, "/spec/validations", "messageExpression", &["string"]);
    faults.list(&plain, "/spec/auditAnnotations", "valueExpression", &["string", "null_type", "dyn"]);
    for index in 0..faults.count("/spec/mutations") {
        faults.one(&env, &format!("/spec/mutations/{index}/applyConfiguration/expression"), &["Object"]);
        faults.one(&env, &format!("/spec/mutations/{index}/jsonPatch/expression"), &["list(JSONPatch)"]);
    }
}

struct Faults<'a> {
    errors: Errors,
    new: &'a Value,
    old: Option<&'a Value>,
}

impl Faults<'_> {
    fn count(&self, pointer: &str) -> usize {
        self.new.pointer(pointer).and_then(Value::as_array).map_or(0, Vec::len)
    }

    fn list(&mut self, env: &Env, pointer: &str, field: &str, wanted: &[&str]) {
        for index in 0..self.count(pointer) {
            self.one(env, &format!("{pointer}/{index}/{field}"), wanted);
        }
    }

    fn one(&mut self, env: &Env, pointer: &str, wanted: &[&str]) {
        let expression = text(self.new, pointer);
        if expression.trim().is_empty() || self.old.is_some_and(|old| text(old, pointer) == expression) {
            return;
        }
        if let Err(why) = compile(env, expression, wanted) {
            let field = shown(pointer);
            self.errors.invalid(&Path::Root(&field), expression, &why);
        }
    }
}

/// `/spec/validations/0/expression` as `spec.validations[0].expression`.
pub fn shown(pointer: &str) -> String {
    let mut field = String::new();
    for part in pointer.split('/').skip(1) {
        match part.parse::<usize>() {
            Ok(index) => field.push_str(&format!("[{index}]")),
            Err(_) if field.is_empty() => field.push_str(part),
            Err(_) => {
                field.push('.');
                field.push_str(part);
            }
        }
    }
    field
}
