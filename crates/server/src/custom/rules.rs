//! `x-kubernetes-validations`: the expressions of a definition, and what they say of its objects.
//!
//! Mirrors apiserver/schema/cel (validation.go, compilation.go) and apis/apiextensions/validation's cost limits. Expressions are compiled when the first object of a
//! version is judged and kept with the version. Whatever cannot be compiled or evaluated refuses the object: nothing is let pass unjudged.

use std::any::Any;
use std::sync::Arc;

use ::api::schema::ListType;
use ::api::structural::definition::{Brackets, field_path};
use ::api::structural::{Additional, Rule, Schema};
use ::api::validation::{Errors, Path, Raw};
use ::api::{Cause, Custom};
use cel::limits::{MAX_MESSAGE_EXPRESSION_BYTES, PER_CALL_LIMIT, RUNTIME_COST_BUDGET};
use cel::{Activation, Budget, DeclType, Env, EvalError, Program, Type};
use crate::expressions_measured;
use serde_json::Value;

pub use super::rule_costs::definition;

/// One rule, ready to be asked.
pub(super) struct Ready {
    pub rule: Rule,
    /// Err: why it cannot be asked.
    pub program: Result<Program, String>,
    pub message: Option<Result<Program, String>>,
    pub uses_old: bool,
    /// The field it speaks of, below the node: `spec.x`.
    field: String,
}

/// A place in the schema with rules at it or below.
pub(super) struct Node {
    pub rules: Vec<Ready>,
    pub decl: Option<DeclType>,
    kind: &'static str,
    properties: Vec<(Box<str>, Node)>,
    items: Option<Box<Node>>,
    additional: Option<Box<Node>>,
    map_keys: Option<Box<[Box<str>]>>,
}

impl Node {
    /// None where there are no rules. `json` is what `schema` was parsed of.
    pub fn of(schema: &Schema, json: &Value, root: bool) -> Option<Self> {
        let below = |name: &str| json.get(name).unwrap_or(&Value::Null);
        let properties: Vec<(Box<str>, Node)> =
            schema.properties.iter().filter_map(|(name, inner)| Some((name.clone(), Self::of(inner, below("properties").get(&**name)?, inner.embedded_resource)?))).collect();
        let items = schema.items.as_ref().and_then(|inner| Self::of(inner, below("items"), inner.embedded_resource)).map(Box::new);
        let additional = match &schema.additional {
            Some(Additional::Schema(inner)) => Self::of(inner, below("additionalProperties"), inner.embedded_resource).map(Box::new),
            _ => None,
        };
        if schema.rules.is_empty() && properties.is_empty() && items.is_none() && additional.is_none() {
            return None;
        }
        let decl = if schema.rules.is_empty() { None } else { DeclType::from_schema(json, root || schema.embedded_resource) };
        let rules = schema.rules.iter().map(|rule| Ready::of(rule, schema, decl.as_ref())).collect();
        let map_keys = (schema.list_type == Some(ListType::Map)).then(|| schema.map_keys.clone());
        Some(Self { rules, decl, kind: schema.kind.map_or("", |kind| kind.as_str()), properties, items, additional, map_keys })
    }
}

/// Compiles one expression; Err in upstream's words.
fn compile(env: &Env, expression: &str, wanted: &Type, words: (&str, &str)) -> Result<Program, String> {
    let program = expressions_measured::compiled(|| env.compile(expression)).map_err(|error| format!("{}compilation failed: {error}", words.0))?;
    if program.output_type() == wanted { Ok(program) } else { Err(words.1.to_owned()) }
}

impl Ready {
    fn of(rule: &Rule, schema: &Schema, decl: Option<&DeclType>) -> Self {
        let Some(decl) = decl else {
            let program = Err("rule compiler initialization error: failed to convert to declType for CEL validation rules".to_owned());
            return Self { rule: rule.clone(), program, message: None, uses_old: false, field: String::new() };
        };
        let old = if rule.optional_old_self == Some(true) { DeclType::optional(decl.clone()) } else { decl.clone() };
        let env = Env::new().variable("self", decl.clone()).variable("oldSelf", old);
        let program = compile(&env, &rule.rule, &Type::Bool, ("", "cel expression must evaluate to a bool"));
        let message =
            (!rule.message_expression.is_empty()).then(|| compile(&env, &rule.message_expression, &Type::String, ("messageExpression ", "messageExpression must evaluate to a string")));
        let uses_old = program.as_ref().is_ok_and(|program| program.references("oldSelf"));
        Self { rule: rule.clone(), program, message, uses_old, field: field(&rule.field_path, schema) }
    }

    /// How the rule is named where it failed to be judged.
    fn shown(&self) -> &str {
        if self.rule.message.is_empty() { self.rule.rule.trim() } else { self.rule.message.trim() }
    }
}

/// `.spec['a']` as a field path below the node: `spec.a`, keys of maps in brackets.
fn field(path: &str, schema: &Schema) -> String {
    let Ok((names, _)) = field_path(path, schema, Brackets::Allowed) else { return String::new() };
    let mut text = String::new();
    let mut at = Some(schema);
    for name in names {
        let declared = at.is_some_and(|schema| schema.property(&name).is_some());
        if declared && !text.is_empty() {
            text.push('.');
        }
        text.push_str(&if declared { name.clone() } else { format!("[{name}]") });
        at = at.and_then(|schema| schema.field(&name));
    }
    text
}

/// A value, the one it replaces, and what is known of the way here.
#[derive(Clone, Copy)]
struct Place<'a> {
    value: &'a Value,
    old: Option<&'a Value>,
    /// The nearest place above that has an old value.
    above: Option<(&'a Value, &'a Value)>,
}

impl<'a> Place<'a> {
    fn below(&self, value: &'a Value, old: Option<&'a Value>) -> Self {
        Self { value, old: self.old.and(old), above: self.old.map(|old| (self.value, old)).or(self.above) }
    }

    /// Unchanged: faults of it are not held against the object.
    fn is_as_before(&self) -> bool {
        match (self.old, self.above) {
            (Some(old), _) => old == self.value,
            (None, Some((now, before))) => now == before,
            (None, None) => false,
        }
    }
}

/// The budget is used up, or a call was too dear: no more rules are asked.
struct Stop;

pub(super) struct Judge {
    pub errors: Errors,
    budget: Budget,
}

impl Judge {
    pub fn new() -> Self {
        Self { errors: Errors::new(), budget: Budget::new(RUNTIME_COST_BUDGET).with_per_call_limit(PER_CALL_LIMIT) }
    }

    /// A whole value, by a whole tree of rules.
    pub fn judge(&mut self, node: &Node, path: &Path, value: &Value, old: Option<&Value>) {
        // Stopped or not, what was found is in `errors`.
        let _ = self.node(node, path, Place { value, old, above: None });
    }

    fn node(&mut self, node: &Node, path: &Path, place: Place<'_>) -> Result<(), Stop> {
        if place.value.is_null() {
            return Ok(());
        }
        for ready in &node.rules {
            self.rule(node, ready, path, place)?;
        }
        match place.value {
            Value::Object(map) => {
                for (name, inner) in map {
                    let old = place.old.and_then(|old| old.get(name));
                    if let Some((_, property)) = node.properties.iter().find(|(known, _)| **known == **name) {
                        self.node(property, &path.child(name), place.below(inner, old))?;
                    } else if let Some(additional) = &node.additional {
                        self.node(additional, &path.key(name), place.below(inner, old))?;
                    }
                }
            }
            Value::Array(items) => {
                let Some(inner) = &node.items else { return Ok(()) };
                for (index, item) in items.iter().enumerate() {
                    let old = node.map_keys.as_deref().and_then(|keys| place.old?.as_array()?.iter().find(|other| keys.iter().all(|key| other.get(&**key) == item.get(&**key))));
                    self.node(inner, &path.index(index), place.below(item, old))?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn rule(&mut self, node: &Node, ready: &Ready, path: &Path, place: Place<'_>) -> Result<(), Stop> {
        // A path without any element prints so.
        let here = if path.to_string().is_empty() { Path::Root("<nil>") } else { *path };
        let (program, decl) = match (&ready.program, &node.decl) {
            (Ok(program), Some(decl)) => (program, decl),
            (Err(why), _) => {
                self.errors.invalid(&here, node.kind, &format!("rule compile error: {why}"));
                return Ok(());
            }
            (Ok(_), None) => return Ok(()),
        };
        let optional = ready.rule.optional_old_self == Some(true);
        if ready.uses_old && place.old.is_none() && !optional {
            return Ok(());
        }
        let old = place.old.map(|old| cel::Value::typed(old, decl));
        let mut activation = Activation::new().bind("self", cel::Value::typed(place.value, decl));
        activation = match (optional, old) {
            (true, old) => activation.bind("oldSelf", cel::Value::optional(old)),
            (false, Some(old)) => activation.bind("oldSelf", old),
            (false, None) => activation,
        };
        let verdict = match expressions_measured::evaluated(|| program.evaluate(&activation, &mut self.budget)) {
            Ok(value) => value.as_bool(),
            Err(EvalError::OutOfBudget) => {
                self.errors.invalid(&here, node.kind, "validation failed due to running out of cost budget, no further validation rules will be run");
                return Err(Stop);
            }
            Err(error @ EvalError::CallLimit) => {
                self.errors.invalid(&here, node.kind, &format!("'{error}': no further validation rules will be run due to call cost exceeds limit for rule: {}", ready.shown()));
                return Err(Stop);
            }
            Err(error) => {
                let why = error.to_string();
                let text = if why.starts_with("no such overload") {
                    format!("'{why}': call arguments did not match a supported operator, function or macro signature for rule: {}", ready.shown())
                } else {
                    format!("{why} evaluating rule: {}", ready.shown())
                };
                self.errors.invalid(&here, node.kind, &text);
                return Ok(());
            }
        };
        if verdict == Some(true) || (!ready.uses_old && place.is_as_before()) {
            return Ok(());
        }
        let spoken = self.message(node, ready, &activation, &here)?;
        let detail = spoken.unwrap_or_else(|| if ready.rule.message.is_empty() { format!("failed rule: {}", ready.shown()) } else { ready.rule.message.trim().to_owned() });
        let child = path.child(&ready.field);
        let at = if ready.field.is_empty() { here } else { child };
        let whole = matches!(node.kind, "object" | "array");
        match &*ready.rule.reason {
            "FieldValueForbidden" => self.errors.forbidden(&at, &detail),
            "FieldValueRequired" => self.errors.required(&at, &detail),
            "FieldValueDuplicate" if whole => self.errors.duplicate_omitting(&at),
            "FieldValueDuplicate" => self.errors.duplicate(&at, place.value),
            _ if whole => self.errors.push_omitting(&at, &detail),
            _ => self.errors.invalid(&at, place.value, &detail),
        }
        Ok(())
    }

    /// What `messageExpression` says; None when it has nothing usable to say.
    fn message<'a>(&mut self, node: &Node, ready: &'a Ready, activation: &'a Activation<'a>, here: &Path) -> Result<Option<String>, Stop> {
        let Some(Ok(program)) = &ready.message else { return Ok(None) };
        let spoken = match expressions_measured::evaluated(|| program.evaluate(activation, &mut self.budget)) {
            Ok(value) => value.as_str().map(|text| text.trim().to_owned()),
            Err(EvalError::OutOfBudget) => {
                self.errors.invalid(here, node.kind, "messageExpression evaluation failed due to running out of cost budget, no further validation rules will be run");
                return Err(Stop);
            }
            Err(EvalError::CallLimit) => {
                let text = format!("no further validation rules will be run due to call cost exceeds limit for messageExpression: {:?}", ready.rule.message_expression);
                self.errors.invalid(here, node.kind, &text);
                return Err(Stop);
            }
            Err(_) => None,
        };
        Ok(spoken.filter(|text| !text.is_empty() && !text.contains('\n') && text.len() <= MAX_MESSAGE_EXPRESSION_BYTES))
    }
}

/// Faults that leave an object in no state to be judged by expressions.
const BLOCKING: [&str; 5] = ["FieldValueNotSupported", "FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany", "FieldValueTypeInvalid"];

/// What the rules say of an object. `found` are its other faults.
pub fn object(custom: &Custom, new: &Value, old: Option<&Value>, found: &[Cause]) -> Vec<Cause> {
    let Some(node) = compiled(custom) else { return Vec::new() };
    if found.iter().any(|cause| BLOCKING.contains(&cause.reason.as_str())) {
        let mut errors = Errors::new();
        errors.invalid(&Path::Root("<nil>"), &Raw("null"), "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation");
        return errors.into_causes();
    }
    let Some(node) = &node.0 else { return Vec::new() };
    let mut judge = Judge::new();
    judge.judge(node, &Path::Root(""), new, old);
    judge.errors.into_causes()
}

/// What is kept with a version.
struct Compiled(Option<Node>);

/// None: the version has no rules.
fn compiled(custom: &Custom) -> Option<Arc<Compiled>> {
    if !custom.schema().any(&mut |schema| !schema.rules.is_empty()) {
        return None;
    }
    let made = custom.made.get_or_init(|| {
        let node = custom.json_schema().and_then(|json| Node::of(custom.schema(), &json, true));
        Arc::new(Compiled(node)) as Arc<dyn Any + Send + Sync>
    });
    made.clone().downcast::<Compiled>().ok()
}
