//! Whether the expressions of a definition may be used: they compile, cost within limits whatever the object, and speak of the past only where there is one.
//!
//! Mirrors `ValidateCustomResourceDefinitionOpenAPISchema`'s second half and cel_validation.go.

use ::api::Cause;
use ::api::schema::ListType;
use ::api::structural::{Additional, Schema, Type};
use ::api::validation::{Errors, Path, Raw, same};
use cel::limits::{STATIC_ESTIMATED_COST_LIMIT, STATIC_ESTIMATED_CRD_COST_LIMIT};
use serde_json::{Value, json};

use super::rules::{Judge, Node, Ready};

/// How many of the dearest rules are named when all together are too dear.
const DEAREST: usize = 4;

/// What is wrong with the expressions of a definition; schemas that are as they were are not judged again.
pub fn definition(new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut errors = Errors::new();
    let versions = |definition: &Value| definition.pointer("/spec/versions").and_then(Value::as_array).cloned().unwrap_or_default();
    let (new, old) = (versions(new), old.map(versions).unwrap_or_default());
    let schema = |version: &Value| version.pointer("/schema/openAPIV3Schema").cloned();
    let unchanged = |version: &Value| old.iter().any(|known| known["name"] == version["name"] && same(schema(known).as_ref(), schema(version).as_ref()));
    let common = new.iter().all(|version| same(version.get("schema"), new[0].get("schema")));
    let path = Path::Root("spec.versions");
    for (index, version) in new.iter().enumerate().filter(|(_, version)| !unchanged(version)) {
        let Some(json) = schema(version) else { continue };
        let one = path.index(index);
        let one = one.child("schema.openAPIV3Schema");
        // What all versions have in common is told once, as upstream's internal form has it.
        let at = if common { Path::Root("spec.validation.openAPIV3Schema") } else { one };
        whole(&mut errors, &at, &json);
        if common {
            break;
        }
    }
    errors.into_causes()
}

#[derive(Default)]
struct Total {
    cost: u64,
    dearest: Vec<(u64, String)>,
}

impl Total {
    fn add(&mut self, path: String, cost: u64) {
        self.cost = self.cost.saturating_add(cost);
        if cost >= STATIC_ESTIMATED_CRD_COST_LIMIT / 100 {
            self.dearest.push((cost, path));
            self.dearest.sort_by(|(a, _), (b, _)| b.cmp(a));
            self.dearest.truncate(DEAREST);
        }
    }
}

fn factor(what: &str, cost: u64, limit: u64) -> String {
    let times = cost as f64 / limit as f64;
    let shown = match times {
        times if times > 100.0 => "more than 100x".to_owned(),
        times if times < 1.5 => format!("{times:.6}x"),
        times => format!("{times:.1}x"),
    };
    format!("{what} exceeds budget by factor of {shown} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)")
}

fn whole(errors: &mut Errors, path: &Path, json: &Value) {
    let schema = Schema::parse(json);
    if !schema.any(&mut |schema| !schema.rules.is_empty()) {
        return;
    }
    let mut total = Total::default();
    walk(errors, &mut total, path, &schema, json, true, Some(1), None);
    if total.cost > STATIC_ESTIMATED_CRD_COST_LIMIT {
        for (_, place) in &total.dearest {
            errors.forbidden(&Path::Root(place), "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema");
        }
        errors.forbidden(path, &factor("x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema", total.cost, STATIC_ESTIMATED_CRD_COST_LIMIT));
    }
    if errors.is_empty() {
        defaults(errors, path, &schema, json, true);
    }
}

/// How often what is below a node can occur in it; None: without limit.
fn most_elements(schema: &Schema) -> Option<u64> {
    let limit = |limit: Option<i64>| limit.map(|limit| u64::try_from(limit).unwrap_or(0));
    match schema.kind {
        Some(Type::Object) if schema.additional.is_some() => limit(schema.checks.as_ref().and_then(|checks| checks.max_properties)),
        Some(Type::Array) => limit(schema.checks.as_ref().and_then(|checks| checks.max_items)),
        _ => Some(1),
    }
}

#[expect(clippy::too_many_arguments, reason = "one step of a walk")]
fn walk(errors: &mut Errors, total: &mut Total, path: &Path, schema: &Schema, json: &Value, root: bool, times: Option<u64>, uncorrelated: Option<&str>) {
    if !schema.rules.is_empty() {
        // Only this node's own rules: those below are met on the way.
        let own = Schema { properties: Box::default(), items: None, additional: None, ..schema.clone() };
        if let Some(node) = Node::of(&own, json, root) {
            let at = path.child("x-kubernetes-validations");
            let times = times.or_else(|| node.decl.as_ref().map(|decl| decl.max_cardinality())).unwrap_or(u64::MAX);
            for (index, ready) in node.rules.iter().enumerate() {
                rule(errors, total, &at.index(index), ready, times, uncorrelated);
            }
        }
    }
    let below = times.zip(most_elements(schema)).map(|(times, most)| times.saturating_mul(most));
    let inner = |name: &str| json.get(name).unwrap_or(&Value::Null);
    let properties = path.child("properties");
    for (name, property) in &schema.properties {
        if let Some(json) = inner("properties").get(&**name) {
            walk(errors, total, &properties.key(name), property, json, property.embedded_resource, below, uncorrelated);
        }
    }
    if let Some(items) = &schema.items {
        let here = path.to_string();
        let uncorrelated = uncorrelated.or((schema.list_type != Some(ListType::Map)).then_some(here.as_str()));
        walk(errors, total, &path.child("items"), items, inner("items"), items.embedded_resource, below, uncorrelated);
    }
    if let Some(Additional::Schema(additional)) = &schema.additional {
        walk(errors, total, &path.child("additionalProperties"), additional, inner("additionalProperties"), additional.embedded_resource, below, uncorrelated);
    }
}

/// As Go writes strings into JSON: what HTML could mistake is escaped.
fn shown_text(text: &str) -> String {
    json!(text).to_string().replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e")
}

fn rule(errors: &mut Errors, total: &mut Total, path: &Path, ready: &Ready, times: u64, uncorrelated: Option<&str>) {
    let rule = &ready.rule;
    let reason = if rule.reason.is_empty() { Value::Null } else { Value::from(&*rule.reason) };
    // The rule as upstream's internal type prints.
    let shown = format!(
        "{{\"Rule\":{},\"Message\":{},\"MessageExpression\":{},\"Reason\":{reason},\"FieldPath\":{},\"OptionalOldSelf\":{}}}",
        shown_text(&rule.rule),
        shown_text(&rule.message),
        shown_text(&rule.message_expression),
        shown_text(&rule.field_path),
        json!(rule.optional_old_self)
    );
    let at = path.child("rule");
    match &ready.program {
        // That there is none is said elsewhere.
        Err(_) if rule.rule.trim().is_empty() => {}
        Err(why) => errors.invalid(&at, &Raw(&shown), why),
        Ok(program) => {
            let cost = program.cost_estimate().max.saturating_mul(times);
            if cost > STATIC_ESTIMATED_COST_LIMIT {
                errors.forbidden(&at, &factor("estimated rule cost", cost, STATIC_ESTIMATED_COST_LIMIT));
            }
            total.add(at.to_string(), cost);
        }
    }
    let at = path.child("messageExpression");
    match &ready.message {
        Some(Err(_)) if rule.message_expression.trim().is_empty() => {}
        Some(Err(why)) => errors.invalid(&at, &Raw(&shown), why),
        Some(Ok(program)) => {
            let cost = program.cost_estimate().max;
            if cost > STATIC_ESTIMATED_COST_LIMIT {
                errors.forbidden(&at, &factor("estimated messageExpression cost", cost, STATIC_ESTIMATED_COST_LIMIT));
            }
            total.add(at.to_string(), cost);
        }
        None => {}
    }
    if ready.uses_old {
        if let Some(place) = uncorrelated {
            errors.invalid(&path.child("rule"), &*rule.rule, &format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {place}"));
        }
    } else if let Some(given) = rule.optional_old_self {
        errors.invalid(&path.child("optionalOldSelf"), &given, "may not be set if oldSelf is not used in rule");
    }
}

/// Defaults obey the rules of their place, as new values and as unchanged ones.
fn defaults(errors: &mut Errors, path: &Path, schema: &Schema, json: &Value, root: bool) {
    if let Some(default) = &schema.default
        && let Some(node) = Node::of(schema, json, root)
    {
        for old in [Some(default), None] {
            let mut judge = Judge::new();
            // An unchanged value would be let pass: transition rules alone are asked with a past.
            judge.judge(&node, &path.child("default"), default, old);
            if !judge.errors.is_empty() {
                errors.extend(judge.errors.into_causes());
                break;
            }
        }
    }
    let inner = |name: &str| json.get(name).unwrap_or(&Value::Null);
    let properties = path.child("properties");
    for (name, property) in &schema.properties {
        if let Some(json) = inner("properties").get(&**name) {
            defaults(errors, &properties.key(name), property, json, property.embedded_resource);
        }
    }
    if let Some(items) = &schema.items {
        defaults(errors, &path.child("items"), items, inner("items"), items.embedded_resource);
    }
}
