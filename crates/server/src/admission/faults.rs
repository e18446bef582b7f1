//! Expressions are compiled when a policy or a webhook's configuration is written: what does not compile is refused, unless it was there before.
//!
//! Mirrors pkg/apis/admissionregistration/validation: fields and words.

use ::api::validation::{Errors, Path};
use ::api::{Cause, Resource};
use cel::limits::DEVICE_SELECTOR_COST_LIMIT;
use cel::{Env, INSTANTIATION_FAILED};
use serde_json::Value;

use super::expressions::{Has, compile, environment};
use super::index::GROUP;
use super::policy::with_variables;
use crate::registry::text;

const SELECTOR_MAX: usize = 10 * 1024;

pub fn expressions(row: &Resource, new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut faults = Faults { errors: Errors::new(), new, old };
    if row.group == "resource.k8s.io" {
        devices(&mut faults, &row.plural);
        return faults.errors.into_causes();
    }
    if row.group != GROUP {
        return Vec::new();
    }
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

/// Which devices are meant: a claim cannot change, so what is stored has been judged.
fn devices(faults: &mut Faults<'_>, plural: &str) {
    let env = Env::new().with_bind().variable("device", cel::kubernetes::device_type());
    let spec = match plural {
        "deviceclasses" => return (0..faults.count("/spec/selectors")).for_each(|at| faults.selector(&env, &format!("/spec/selectors/{at}/cel/expression"))),
        "resourceclaims" if faults.old.is_some() => return,
        "resourceclaims" => "/spec/devices/requests",
        "resourceclaimtemplates" => "/spec/spec/devices/requests",
        _ => return,
    };
    for index in 0..faults.count(spec) {
        let request = format!("{spec}/{index}");
        let mut owners = vec![format!("{request}/exactly"), request.clone()];
        owners.extend((0..faults.count(&format!("{request}/firstAvailable"))).map(|at| format!("{request}/firstAvailable/{at}")));
        for owner in owners {
            for at in 0..faults.count(&format!("{owner}/selectors")) {
                faults.selector(&env, &format!("{owner}/selectors/{at}/cel/expression"));
            }
        }
    }
}

fn policy(faults: &mut Faults<'_>, mutating: bool) {
    let params = faults.new.pointer("/spec/paramKind").is_some_and(Value::is_object);
    let widen = |env: Env| if mutating { env.with_patch_types() } else { env };
    let all = environment(Has { params, authorizer: true });
    faults.list(&all, "/spec/matchConditions", "expression", &["bool"]);
    let mut env = widen(all);
    if faults.count("/spec/variables") > 0 {
        env.declare_set("variables");
    }
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
    faults.list(&env, "/spec/auditAnnotations", "valueExpression", &["string", "null_type"]);
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

    /// Of a device: never left out.
    fn selector(&mut self, env: &Env, pointer: &str) {
        let owner = pointer.strip_suffix("/expression").unwrap_or(pointer);
        let expression = text(self.new, pointer);
        if self.new.pointer(owner).is_none_or(Value::is_null) || self.old.is_some_and(|old| text(old, pointer) == expression) {
            return;
        }
        let field = shown(pointer);
        let path = Path::Root(&field);
        if expression.len() > SELECTOR_MAX {
            return self.errors.too_long(&path, SELECTOR_MAX);
        }
        let why = match compile(env, expression, &[]) {
            Ok(program) if program.cost_estimate().max > DEVICE_SELECTOR_COST_LIMIT => return self.errors.forbidden(&path, "too complex, exceeds cost limit"),
            Ok(program) => match program.output_type().to_string() {
                // An attribute may be a bool; only its evaluation tells.
                known if known == "bool" || known == "dyn" => return,
                other => format!("must evaluate to bool or the unknown type, not {}", if other.starts_with("map(") { other.replace("dyn", "google.protobuf.Any") } else { other }),
            },
            Err(why) => why,
        };
        self.refuse(&path, expression, &why);
    }

    fn refuse(&mut self, path: &Path<'_>, expression: &str, why: &str) {
        if why.starts_with(INSTANTIATION_FAILED) {
            self.errors.internal(path, why);
        } else {
            self.errors.invalid(path, expression, why);
        }
    }

    fn one(&mut self, env: &Env, pointer: &str, wanted: &[&str]) {
        let expression = text(self.new, pointer);
        if expression.trim().is_empty() || self.old.is_some_and(|old| text(old, pointer) == expression) {
            return;
        }
        if let Err(why) = compile(env, expression, wanted) {
            let field = shown(pointer);
            self.refuse(&Path::Root(&field), expression, &why);
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
