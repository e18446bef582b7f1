//! What Deployments, ReplicaSets, DaemonSets, StatefulSets and ReplicationControllers have in common: selector, template, replica counts.

use serde_json::Value;

use super::json::{child, child_mut, default, ensure, list, map, number, text};
use super::{pod_defaults, pod_spec, pod_warnings};
use crate::names;
use crate::selector::LabelSelector;
use crate::internal::Internal;
use crate::validation::{Errors, IMMUTABLE, Path, ShownSelector, same};

pub fn default_template(object: &mut Value, path: &str) {
    if let Some(template) = child_mut(object, path) {
        pod_defaults::template(template);
    }
}

/// Fields of the spec that are numbers with a default.
pub fn default_numbers(object: &mut Value, numbers: &[(&str, i64)]) {
    let Some(spec) = child_mut(object, "spec") else { return };
    for (name, value) in numbers {
        default(spec, name, *value);
    }
}

/// Makes the nested object and hands it over as a value.
pub fn nested<'a>(object: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    ensure(object, path)?;
    child_mut(object, path)
}

pub fn spec_not_negative(errors: &mut Errors, object: &Value, names: &[&str]) {
    let path = Path::Root("spec");
    for name in names {
        errors.not_negative(&path.child(name), child(object, "spec").and_then(|spec| number(spec, name)));
    }
}

/// `kind` as in "empty selector is invalid for deployment".
pub fn selector(errors: &mut Errors, object: &Value, kind: &str, required: bool) {
    let path = Path::Root("spec.selector");
    match child(object, "spec.selector") {
        None if required => errors.required(&path, ""),
        None => {}
        Some(selector) => {
            errors.label_selector(&path, Some(selector));
            if map(selector, "matchLabels").is_none_or(serde_json::Map::is_empty) && list(selector, "matchExpressions").is_empty() {
                errors.invalid(&path, &ShownSelector(selector), &format!("empty selector is invalid for {kind}"));
            }
        }
    }
}

pub fn selector_immutable(errors: &mut Errors, new: &Value, old: &Value) {
    let (new, old) = (child(new, "spec.selector"), child(old, "spec.selector"));
    if !same(new, old) {
        errors.invalid(&Path::Root("spec.selector"), &ShownSelector(new.unwrap_or(&Value::Null)), IMMUTABLE);
    }
}

const UNSELECTED: &str = "`selector` does not match template `labels`";

/// The template's labels must be selected.
pub fn selector_matches_template(errors: &mut Errors, object: &Value, selector: &LabelSelector) {
    let none = Value::Null;
    let labels = child(object, "spec.template.metadata.labels").unwrap_or(&none);
    if !selector.matches(labels) {
        errors.invalid(&Path::Root("spec.template.metadata.labels"), labels, UNSELECTED);
    }
}

/// The template itself, whose pods have to be restarted for ever. `kind` as in "activeDeadlineSeconds in ReplicaSet is not Supported".
pub fn template(errors: &mut Errors, object: &Value, kind: &str) {
    let none = Value::Null;
    let template = child(object, "spec.template").unwrap_or(&none);
    pod_spec::template(errors, &Path::Root("spec.template"), template);
    running_template(errors, template, kind);
}

/// Of names that become those of pods.
pub fn name_warnings(object: &Value, warnings: &mut Vec<String>) {
    let wrong = names::dns_label(text(object, "metadata.name"));
    if !wrong.is_empty() {
        warnings.push(format!("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [{}]", wrong.join(" ")));
    }
}

pub fn template_warnings(object: &Value, warnings: &mut Vec<String>) {
    if let Some(template) = child(object, "spec.template") {
        pod_warnings::pod_spec("spec.template.spec", template, warnings);
    }
}

pub fn running_template(errors: &mut Errors, template: &Value, kind: &str) {
    let path = Path::Root("spec.template.spec");
    let policy = text(template, "spec.restartPolicy");
    if policy != "Always" {
        errors.not_supported(&path.child("restartPolicy"), policy, &["Always"]);
    }
    if child(template, "spec.activeDeadlineSeconds").is_some() {
        errors.forbidden(&path.child("activeDeadlineSeconds"), &format!("activeDeadlineSeconds in {kind} is not Supported"));
    }
}

/// The selector of the spec, if it can be read; an error is noted otherwise. None at all selects nothing, so not the template either.
pub fn parsed_selector(errors: &mut Errors, object: &Value, detail: &str) -> Option<LabelSelector> {
    let Some(selector) = child(object, "spec.selector") else {
        let labels = child(object, "spec.template.metadata.labels").cloned().unwrap_or(Value::Null);
        errors.invalid(&Path::Root("spec.template.metadata.labels"), &labels, UNSELECTED);
        return None;
    };
    match LabelSelector::from_json(selector) {
        Ok(parsed) => Some(parsed),
        Err(_) => {
            errors.invalid(&Path::Root("spec.selector"), &ShownSelector(selector), detail);
            None
        }
    }
}

fn percent(value: &Value) -> Option<i64> {
    let text = value.as_str()?;
    let digits = text.strip_suffix('%')?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// What it counts for when compared with zero.
pub fn amount(value: Option<&Value>) -> i64 {
    value.map_or(0, |value| percent(value).or_else(|| value.as_i64()).unwrap_or_else(|| value.as_str().and_then(|text| text.parse().ok()).unwrap_or(0)))
}

/// A number that is not negative, or a percentage.
pub fn int_or_percent(errors: &mut Errors, path: &Path, value: Option<&Value>) {
    match value {
        Some(value @ Value::String(_)) if percent(value).is_none() => {
            errors.invalid(path, value, &names::regex_error("a valid percent string must be a numeric string followed by an ending '%'", "[0-9]+%", &["1%", "93%"]));
        }
        Some(Value::Number(number)) => errors.not_negative(path, number.as_i64()),
        _ => {}
    }
}

pub fn at_most_all(errors: &mut Errors, path: &Path, value: Option<&Value>) {
    if let Some(value) = value.filter(|value| percent(value).is_some_and(|percent| percent > 100)) {
        errors.invalid(path, value, "must not be greater than 100%");
    }
}

/// Counts of a status: none negative, those in `within_replicas` at most `status.replicas`.
pub fn status_counts(errors: &mut Errors, object: &Value, counts: &[&str], within_replicas: &[&str], ready: &str) {
    let path = Path::Root("status");
    let none = Value::Null;
    let status = child(object, "status").unwrap_or(&none);
    for name in counts {
        errors.not_negative(&path.child(name), number(status, name));
    }
    let of = |name: &str| number(status, name).unwrap_or(0);
    for name in within_replicas.iter().filter(|name| of(name) > of("replicas")) {
        errors.invalid(&path.child(name), &of(name), "cannot be greater than status.replicas");
    }
    if within_replicas.contains(&"availableReplicas") && of("availableReplicas") > of("readyReplicas") {
        errors.invalid(&path.child("availableReplicas"), &of("availableReplicas"), &format!("cannot be greater than {ready}"));
    }
}

pub fn collisions_only_grow(errors: &mut Errors, new: &Value, old: &Value) {
    let of = |object: &Value| number(object, "status.collisionCount").unwrap_or(0);
    if of(new) < of(old) {
        errors.invalid(&Path::Root("status.collisionCount"), &of(new), "cannot be decremented");
    }
}

/// A strategy with an unknown type, of the type of that name.
pub fn unknown_strategy(errors: &mut Errors, path: &Path, name: &str, strategy: &Value, supported: &[&str]) {
    errors.not_supported(path, &Internal(name, Some(strategy)), supported);
}
