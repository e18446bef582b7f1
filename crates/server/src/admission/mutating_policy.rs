//! MutatingAdmissionPolicies at work: objects changed by what expressions say, as an apply configuration or as a JSON patch.
//!
//! Mirrors k8s.io/apiserver/pkg/admission/plugin/policy/mutating.

use ::api::{Cause, Resource, Status};
use ::patch::apply::Writer;
use cel::{Budget, Env};
use serde_json::Value;

use super::asked::Asked;
use super::dispatch::{Rounds, settled};
use super::expressions::{Expression, Input, Verdict};
use super::forms;
use super::policy::{Policy, namespace_object};
use crate::api::Api;
use crate::registry::{facts, text};

/// Who applies; nobody hears of it.
const MANAGER: &str = "mutating-admission-policy";

pub type MutatingPolicy = Policy<Mutations>;

pub struct Mutations {
    list: Vec<Mutation>,
    /// `reinvocationPolicy: IfNeeded`
    reinvocable: bool,
}

enum Mutation {
    Apply(Expression),
    Patch(Expression),
}

pub fn compile(policy: &Value, env: &Env, _plain: &Env) -> Mutations {
    let mutation = |mutation: &Value| match text(mutation, "/patchType") {
        "JSONPatch" => Mutation::Patch(Expression::compile(env, text(mutation, "/jsonPatch/expression"), &["list(JSONPatch)"])),
        _ => Mutation::Apply(Expression::compile(env, text(mutation, "/applyConfiguration/expression"), &["Object"])),
    };
    let list = policy.pointer("/spec/mutations").and_then(Value::as_array).into_iter().flatten().map(mutation).collect();
    Mutations { list, reinvocable: text(policy, "/spec/reinvocationPolicy") == "IfNeeded" }
}

/// Changes `object` as the policies say.
pub async fn mutate(api: &Api, policies: &[MutatingPolicy], asked: &Asked<'_>, mut object: Option<&mut Value>, old: Option<&Value>, rounds: &mut Rounds) -> Result<(), Status> {
    rounds.begin(object.as_deref());
    let mut denials = Vec::new();
    let mut at = 0;
    for policy in policies {
        let target = match policy.selection.target(api, asked, object.as_deref(), old) {
            Ok(Some(target)) => target,
            Ok(None) => continue,
            Err(status) => {
                if !policy.lenient {
                    denials.push(format!("policy {:?} denied request: failed to configure policy: {}", policy.name, status.message));
                }
                continue;
            }
        };
        let target = target.row(asked);
        for binding in &policy.bindings {
            at += 1;
            let denied = |why: &str| format!("policy '{}' with binding '{}' denied request: {why}", policy.name, binding.name);
            let params = match policy.bound(api, asked, binding, object.as_deref(), old).await {
                Ok(None) => continue,
                Ok(Some(params)) => params,
                Err(why) => {
                    if !policy.lenient {
                        denials.push(denied(&format!("failed to configure binding: {why}")));
                    }
                    continue;
                }
            };
            if rounds.skips(at) {
                continue;
            }
            let Some(present) = object.as_deref_mut() else { continue };
            let namespace = namespace_object(api, asked)?;
            let request = asked.request(target);
            let old = forms::of(api, asked, target, old).await?;
            let before = present.clone();
            for params in &params {
                for index in 0..policy.body.list.len() {
                    let shown = forms::shown(api, asked, target, present).await?;
                    let outcome = {
                        let mut input = Input::new(api, asked, &request, Some(&shown), old.as_ref());
                        input.params = params.as_ref();
                        match policy.conditions.judge(&input) {
                            Verdict::Unwanted => break,
                            Verdict::Failed(why) => Err(why),
                            Verdict::Wanted => {
                                input.namespace = namespace.as_ref();
                                policy.changed(target, &shown, &input, index)
                            }
                        }
                    };
                    match outcome {
                        Ok(Some(changed)) => *present = settled(api, asked, target, changed).await?,
                        Ok(None) => {}
                        Err(_) if policy.lenient => {}
                        Err(why) => denials.push(denied(&why)),
                    }
                }
            }
            if *present != before {
                rounds.changed();
            }
            if policy.body.reinvocable {
                rounds.invoked(at);
            }
        }
    }
    rounds.end(object.as_deref());
    let Some(first) = denials.first() else { return Ok(()) };
    let name = object.as_deref().map_or(&*asked.name, super::shown_name);
    let mut status = Status::forbidden(&asked.row.group, &asked.row.plural, name, first);
    status.message = first.clone();
    status.reason = ::api::Reason::Invalid;
    status.details.causes.extend(denials.into_iter().map(|message| Cause { message, ..Cause::default() }));
    Err(status)
}

impl MutatingPolicy {
    /// What one mutation makes of the object; None: nothing.
    fn changed(&self, target: &Resource, shown: &Value, input: &Input<'_>, index: usize) -> Result<Option<Value>, String> {
        let mut activation = input.activation();
        for (name, variable) in &self.variables {
            if let Ok(program) = &variable.program {
                activation.set_lazy(name, program);
            }
        }
        let mut budget = Budget::new(cel::limits::RUNTIME_COST_BUDGET);
        match &self.body.list[index] {
            Mutation::Apply(expression) => {
                let value = expression.evaluate(&activation, &mut budget).map_err(|failure| failure.to_string())?;
                let config = value.to_json().map_err(|error| format!("type mismatch: {error}"))?;
                merged(target, shown, config).map(Some).map_err(|why| format!("error applying patch: {why}"))
            }
            Mutation::Patch(expression) => {
                let value = expression.evaluate(&activation, &mut budget).map_err(|failure| failure.to_string())?;
                let patch = value.to_json().map_err(|error| format!("type mismatch: {error}"))?;
                let mut changed = shown.clone();
                match ::patch::json(&mut changed, &patch) {
                    Ok(()) => Ok(Some(changed)),
                    // A test that does not hold: the patch is not for this object.
                    Err(_) if fails_a_test(shown, &patch) => Ok(None),
                    Err(error) => Err(format!("JSON Patch: {error}")),
                }
            }
        }
    }
}

/// Whether a patch without its tests could be applied.
fn fails_a_test(shown: &Value, patch: &Value) -> bool {
    let Some(operations) = patch.as_array() else { return false };
    let rest: Vec<Value> = operations.iter().filter(|operation| text(operation, "/op") != "test").cloned().collect();
    rest.len() < operations.len() && ::patch::json(&mut shown.clone(), &Value::Array(rest)).is_ok()
}

/// The object with the configuration merged into it by its type. Who owns what stays as it was.
fn merged(target: &Resource, shown: &Value, mut config: Value) -> Result<Value, String> {
    let owners = shown.pointer("/metadata/managedFields").cloned();
    config["apiVersion"] = target.api_version().into();
    config["kind"] = target.kind.to_string().into();
    let api_version = target.api_version();
    let writer = Writer { manager: MANAGER, api_version: &api_version, subresource: "", now: "1970-01-01T00:00:00Z", reset: &[], versions: None };
    let mut merged = ::patch::apply::apply(Some(shown), &config, facts(target), &writer, true).map_err(|error| error.status().message)?;
    if let Some(metadata) = merged.get_mut("metadata").and_then(Value::as_object_mut) {
        match owners {
            Some(owners) => metadata.insert("managedFields".into(), owners),
            None => metadata.remove("managedFields"),
        };
    }
    Ok(merged)
}
