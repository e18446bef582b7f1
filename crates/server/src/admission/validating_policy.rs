//! ValidatingAdmissionPolicies at work: expressions that an object must satisfy, and what bindings make of one that does not.
//!
//! Mirrors k8s.io/apiserver/pkg/admission/plugin/policy/validating, word for word where clients see it.

use std::collections::BTreeMap;

use ::api::{Cause, Reason, Status};
use cel::{Budget, Env, Value as Cel};
use serde_json::{Value, json};

use super::asked::Asked;
use super::expressions::{Expression, Failure, Input, Verdict};
use super::forms;
use super::policy::{Policy, namespace_object};
use crate::api::Api;
use crate::registry::text;

/// No more of an audit annotation is kept.
const ANNOTATION_BYTES_MAX: usize = 10 * 1024;

pub type ValidatingPolicy = Policy<Checks>;

pub struct Checks {
    validations: Vec<Validation>,
    /// Key and value.
    annotations: Vec<(String, Expression)>,
}

struct Validation {
    expression: Expression,
    message: String,
    message_expression: Option<Expression>,
    reason: Reason,
}

fn reason(name: &str) -> Reason {
    match name {
        "Unauthorized" => Reason::Unauthorized,
        "Forbidden" => Reason::Forbidden,
        "RequestEntityTooLarge" => Reason::RequestEntityTooLarge,
        _ => Reason::Invalid,
    }
}

fn code(reason: &Reason) -> u16 {
    match reason {
        Reason::Unauthorized => 401,
        Reason::Forbidden => 403,
        Reason::RequestEntityTooLarge => 413,
        _ => 422,
    }
}

pub fn compile(policy: &Value, env: &Env, plain: &Env) -> Checks {
    let list = |pointer: &str| policy.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
    let validation = |validation: &Value| Validation {
        expression: Expression::compile(env, text(validation, "/expression"), &["bool"]),
        message: text(validation, "/message").trim().to_owned(),
        message_expression: Some(text(validation, "/messageExpression")).filter(|text| !text.is_empty()).map(|text| Expression::compile(plain, text, &["string"])),
        reason: reason(text(validation, "/reason")),
    };
    let annotation = |annotation: &Value| (text(annotation, "/key").to_owned(), Expression::compile(env, text(annotation, "/valueExpression"), &["string", "null_type"]));
    Checks { validations: list("/spec/validations").map(validation).collect(), annotations: list("/spec/auditAnnotations").map(annotation).collect() }
}

struct Denial {
    /// `ValidatingAdmissionPolicy 'p' with binding 'b' denied request: …`
    message: String,
    reason: Reason,
}

/// One validation that did not hold.
struct Fault {
    index: usize,
    message: String,
    reason: Reason,
}

pub async fn validate(api: &Api, policies: &[ValidatingPolicy], asked: &Asked<'_>, object: Option<&Value>, old: Option<&Value>) -> Result<(), Status> {
    let mut denials = Vec::new();
    for policy in policies {
        let denied = |denials: &mut Vec<Denial>, binding: Option<&str>, reason: Reason, why: String| {
            let by = binding.map(|binding| format!(" with binding '{binding}'")).unwrap_or_default();
            denials.push(Denial { message: format!("ValidatingAdmissionPolicy '{}'{by} denied request: {why}", policy.name), reason });
        };
        let target = match policy.selection.target(api, asked, object, old) {
            Ok(Some(target)) => target,
            Ok(None) => continue,
            Err(status) => {
                if !policy.lenient {
                    denied(&mut denials, None, Reason::Invalid, format!("failed to configure policy: {}", status.message));
                }
                continue;
            }
        };
        let target = target.row(asked);
        let mut shown = None;
        let mut annotations: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for binding in &policy.bindings {
            let name = Some(&*binding.name);
            let params = match policy.bound(api, asked, binding, object, old).await {
                Ok(None) => continue,
                Ok(Some(params)) => params,
                Err(why) => {
                    if !policy.lenient {
                        denied(&mut denials, name, Reason::Invalid, format!("failed to configure binding: {why}"));
                    }
                    continue;
                }
            };
            if params.is_empty() {
                continue;
            }
            if shown.is_none() {
                shown = Some((forms::of(api, asked, target, object).await?, forms::of(api, asked, target, old).await?, namespace_object(api, asked)?));
            }
            let Some((object, old, namespace)) = &shown else { continue };
            let request = asked.request(target);
            for params in &params {
                let mut input = Input::new(api, asked, &request, object.as_ref(), old.as_ref());
                input.params = params.as_ref();
                let faults = match policy.conditions.judge(&input) {
                    Verdict::Unwanted => continue,
                    Verdict::Failed(message) => vec![Fault { index: 0, message, reason: Reason::Invalid }],
                    Verdict::Wanted => {
                        input.namespace = namespace.as_ref();
                        let faults = policy.faults(&input);
                        for (key, value) in policy.annotations(&input) {
                            match value {
                                Ok(value) => {
                                    let known = annotations.entry(key).or_default();
                                    if !known.contains(&value) {
                                        known.push(value);
                                    }
                                }
                                // Whatever the binding's actions are.
                                Err(why) => denied(&mut denials, name, Reason::Invalid, why),
                            }
                        }
                        faults
                    }
                };
                for fault in faults {
                    for action in &binding.actions {
                        match action.as_str() {
                            "Deny" => denied(&mut denials, name, fault.reason.clone(), fault.message.clone()),
                            "Warn" => asked.cx.warn(format!("Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}", policy.name, binding.name, fault.message)),
                            _ => {
                                let failure = json!([{"message": fault.message, "policy": policy.name, "binding": binding.name, "expressionIndex": fault.index, "validationActions": binding.actions}]);
                                asked.cx.annotate("validation.policy.admission.k8s.io/validation_failure", &failure.to_string());
                            }
                        }
                    }
                }
            }
        }
        for (key, values) in annotations {
            asked.cx.annotate(&format!("{}/{key}", policy.name), &values.join(", "));
        }
    }
    let Some(first) = denials.into_iter().next() else { return Ok(()) };
    let name = object.or(old).map_or(&*asked.name, super::shown_name);
    let mut status = Status::forbidden(&asked.row.group, &asked.row.plural, name, &first.message);
    status.code = code(&first.reason);
    status.reason = first.reason.clone();
    status.details.causes.push(Cause { message: first.message, ..Cause::default() });
    Err(status)
}

impl ValidatingPolicy {
    fn faults(&self, input: &Input<'_>) -> Vec<Fault> {
        let mut activation = input.activation();
        for (name, variable) in &self.variables {
            if let Ok(program) = &variable.program {
                activation.set_lazy(name, program);
            }
        }
        let mut budget = Budget::new(cel::limits::RUNTIME_COST_BUDGET);
        let mut faults = Vec::new();
        for (index, validation) in self.body.validations.iter().enumerate() {
            let fault = match validation.expression.evaluate(&activation, &mut budget) {
                Ok(Cel::Bool(true)) => continue,
                Ok(_) => {
                    let said = validation.message_expression.as_ref().and_then(|expression| said(expression.evaluate(&activation, &mut budget)));
                    let message = said.or_else(|| Some(validation.message.clone()).filter(|message| !message.is_empty()));
                    Fault { index, message: message.unwrap_or_else(|| format!("failed expression: {}", validation.expression.text.trim())), reason: validation.reason.clone() }
                }
                Err(failure) if self.lenient => {
                    if matches!(failure, Failure::OutOfBudget) {
                        return Vec::new();
                    }
                    continue;
                }
                Err(Failure::OutOfBudget) => return vec![Fault { index: 0, message: Failure::OutOfBudget.to_string(), reason: Reason::Invalid }],
                Err(failure) => Fault { index, message: failure.to_string(), reason: Reason::Invalid },
            };
            faults.push(fault);
        }
        faults
    }

    /// Audit annotations: what is to be noted, or why that cannot be told.
    fn annotations(&self, input: &Input<'_>) -> Vec<(String, Result<String, String>)> {
        let mut activation = input.activation();
        for (name, variable) in &self.variables {
            if let Ok(program) = &variable.program {
                activation.set_lazy(name, program);
            }
        }
        let mut budget = Budget::new(cel::limits::RUNTIME_COST_BUDGET);
        let mut found = Vec::new();
        for (key, expression) in &self.body.annotations {
            match expression.evaluate(&activation, &mut budget) {
                Ok(Cel::Null) => {}
                Ok(value) => match value.as_str().map(str::trim) {
                    Some("") => {}
                    Some(text) => found.push((key.clone(), Ok(cut(text).to_owned()))),
                    None => {
                        let why = format!("valueExpression '{}' resulted in unsupported return type: {}. Return type must be either string or null.", expression.text, value.type_of());
                        found.push((key.clone(), Err(why)));
                    }
                },
                Err(_) if self.lenient => {}
                Err(failure) => found.push((key.clone(), Err(failure.to_string()))),
            }
        }
        found
    }
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(ANNOTATION_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// What a messageExpression says, if it can be shown: one line that is not too long.
fn said(value: Result<Cel<'_>, Failure>) -> Option<String> {
    let message = value.ok()?.as_str()?.trim().to_owned();
    (!message.is_empty() && message.len() <= cel::limits::MAX_MESSAGE_EXPRESSION_BYTES && !message.contains('\n')).then_some(message)
}
