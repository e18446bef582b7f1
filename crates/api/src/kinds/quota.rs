//! ResourceQuotas and LimitRanges.

use std::collections::BTreeSet;

use serde_json::Value;

use super::resources::{container_resource_name, is_standard, resource_name, resource_quantity};
use super::json::{child, default, empty, list, map, strings, text};
use super::policy::{BUILT_IN, CHANGE, Policy};
use crate::names;
use crate::quantity::Quantity;
use crate::validation::{Errors, Path, same};

const EXISTS_ONLY: &str = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
const SCOPES: [&str; 7] = ["BestEffort", "CrossNamespacePodAffinity", "NotBestEffort", "NotTerminating", "PriorityClass", "Terminating", "VolumeAttributesClass"];

/// The resources of a quota that a scope says nothing about (`IsResourceQuotaScopeValidForResource`).
fn out_of_scope<'a>(object: &'a Value, scope: &'a str) -> impl Iterator<Item = &'a String> {
    const OF_PODS: [&str; 6] = ["cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];
    const OTHERS: [&str; 12] = [
        "ephemeral-storage", "requests.storage", "requests.ephemeral-storage", "limits.ephemeral-storage", "resourcequotas", "services", "replicationcontrollers", "secrets", "persistentvolumeclaims",
        "configmaps", "services.nodeports", "services.loadbalancers",
    ];
    let known = |name: &str| name == "pods" || OF_PODS.contains(&name) || OTHERS.contains(&name) || name.starts_with("hugepages-") || name.starts_with("requests.hugepages-");
    let covers = move |name: &str| match scope {
        "Terminating" | "NotTerminating" | "NotBestEffort" | "PriorityClass" | "CrossNamespacePodAffinity" => name == "pods" || OF_PODS.contains(&name),
        "BestEffort" => name == "pods",
        "VolumeAttributesClass" => matches!(name, "persistentvolumeclaims" | "requests.storage"),
        _ => true,
    };
    child(object, "spec.hard").and_then(Value::as_object).into_iter().flat_map(|hard| hard.keys()).filter(move |name| known(name) && !covers(name))
}

pub static RESOURCE_QUOTA: Policy = Policy {
    metadata_again: CHANGE,
    status: true,
    defaults: |object| {
        default(object, "spec", empty());
        default(object, "status", empty());
    },
    check: |errors, object| {
        resources(errors, object, "spec.hard");
        let path = Path::Root("spec.scopes");
        for scope in strings(object, "spec.scopes") {
            if !SCOPES.contains(&scope) {
                errors.invalid(&path, child(object, "spec.scopes").unwrap_or(&Value::Null), "unsupported scope");
            }
            for _ in out_of_scope(object, scope) {
                errors.invalid(&path, child(object, "spec.scopes").unwrap_or(&Value::Null), "unsupported scope applied to resource");
            }
        }
        let expressions = Path::Root("spec.scopeSelector.matchExpressions");
        for expression in list(object, "spec.scopeSelector.matchExpressions") {
            let scope = text(expression, "scopeName");
            if !SCOPES.contains(&scope) {
                errors.invalid(&expressions.child("scopeName"), scope, "unsupported scope");
            }
            for _ in out_of_scope(object, scope) {
                errors.invalid(&expressions, child(object, "spec.scopeSelector").unwrap_or(&Value::Null), "unsupported scope applied to resource");
            }
            let operator = text(expression, "operator");
            if matches!(scope, "BestEffort" | "NotBestEffort" | "Terminating" | "NotTerminating" | "CrossNamespacePodAffinity") && operator != "Exists" {
                errors.invalid(&expressions.child("operator"), operator, EXISTS_ONLY);
            }
            match (text(expression, "operator"), list(expression, "values").is_empty()) {
                ("In" | "NotIn", true) => errors.required(&expressions.child("values"), "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"),
                ("Exists" | "DoesNotExist", false) => errors.invalid(
                    &expressions.child("values"),
                    child(expression, "values").unwrap_or(&Value::Null),
                    "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
                ),
                ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => {}
                (other, _) => errors.invalid(&expressions.child("operator"), other, "not a valid selector operator"),
            }
        }
    },
    check_update: |errors, new, old| {
        if !same(child(new, "spec.scopes"), child(old, "spec.scopes")) {
            errors.invalid(&Path::Root("spec.scopes"), child(new, "spec.scopes").unwrap_or(&Value::Null), crate::validation::IMMUTABLE);
        }
    },
    check_status: |errors, new, _| {
        for name in ["status.hard", "status.used"] {
            resources(errors, new, name);
        }
    },
    ..BUILT_IN
};

fn resources(errors: &mut Errors, object: &Value, at: &str) {
    let path = Path::Root(at);
    for (name, value) in map(object, at).into_iter().flatten() {
        let path = path.key(name);
        // Counts of any kind may be limited: `count/deployments.apps`.
        if !name.starts_with("count/") {
            resource_name(errors, &path, name);
            if !name.contains('/') && !is_standard(name) {
                errors.invalid(&path, name, "must be a standard resource for quota");
            }
        }
        resource_quantity(errors, &path, name, value);
    }
}

/// What may not be greater than what: the field blamed, the lower and the higher, the value shown, and their words.
const ORDER: [(&str, &str, &str, &str, &str, &str); 6] = [
    ("min", "min", "max", "min", "min value", "max value"),
    ("defaultRequest", "min", "defaultRequest", "defaultRequest", "min value", "default request value"),
    ("defaultRequest", "defaultRequest", "max", "defaultRequest", "default request value", "max value"),
    ("defaultRequest", "defaultRequest", "default", "defaultRequest", "default request value", "default limit value"),
    ("default", "min", "default", "min", "min value", "default value"),
    ("default", "default", "max", "max", "default value", "max value"),
];

/// `ValidateLimitRange`.
pub fn check_limit_range(errors: &mut Errors, object: &Value) {
    let limits = Path::Root("spec.limits");
    let mut types = BTreeSet::new();
    for (index, limit) in list(object, "spec.limits").iter().enumerate() {
        let path = limits.index(index);
        let kind = text(limit, "type");
        let wrong = names::qualified_name(kind);
        if !wrong.is_empty() {
            errors.invalid_each(&path.child("type"), kind, wrong);
        } else if !matches!(kind, "Pod" | "Container" | "PersistentVolumeClaim") && !kind.contains('/') {
            errors.invalid(&path.child("type"), kind, "must be a standard limit type or fully qualified");
        }
        if !types.insert(kind) {
            errors.duplicate(&path.child("type"), kind);
        }
        let mut keys = BTreeSet::new();
        // What a limit on pods may not have is not looked into.
        for name in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"].into_iter().filter(|name| kind != "Pod" || !name.starts_with("default")) {
            let list_path = path.child(name);
            for (resource, _) in map(limit, name).into_iter().flatten() {
                if matches!(kind, "Pod" | "Container") {
                    container_resource_name(errors, &list_path.key(resource), resource);
                } else {
                    resource_name(errors, &list_path.key(resource), resource);
                }
                keys.insert(resource.as_str());
            }
        }
        if kind == "Pod" {
            for name in ["default", "defaultRequest"] {
                if map(limit, name).is_some_and(|values| !values.is_empty()) {
                    errors.forbidden(&path.child(name), "may not be specified when `type` is 'Pod'");
                }
            }
        }
        if kind == "PersistentVolumeClaim" && !["min", "max"].iter().any(|name| map(limit, name).is_some_and(|values| values.contains_key("storage"))) {
            errors.required(&path, "either minimum or maximum storage value is required, but neither was provided");
        }
        for key in keys {
            let of = |name: &str| map(limit, name).and_then(|values| values.get(key)).and_then(|value| Quantity::from_json(value).ok());
            for (at, low, high, shown, low_words, high_words) in ORDER {
                let (Some(low_value), Some(high_value)) = (of(low), of(high)) else { continue };
                if low_value > high_value {
                    let list_path = path.child(at);
                    let shown = of(shown).unwrap_or_default().to_string();
                    errors.invalid(&list_path.key(key), shown.as_str(), &format!("{low_words} {low_value} is greater than {high_words} {high_value}"));
                }
            }
            let ratio = of("maxLimitRequestRatio");
            if let Some(ratio) = ratio
                && ratio < Quantity::new(1, ratio.format())
            {
                let list_path = path.child("maxLimitRequestRatio");
                errors.invalid(&list_path.key(key), ratio.to_string().as_str(), &format!("ratio {ratio} is less than 1"));
            }
            if let (Some(ratio), Some(min), Some(max)) = (of("maxLimitRequestRatio"), of("min"), of("max")) {
                let limit = max.as_f64() / min.as_f64();
                if ratio.as_f64() > limit {
                    let list_path = path.child("maxLimitRequestRatio");
                    errors.invalid(&list_path.key(key), ratio.to_string().as_str(), &format!("ratio {ratio} is greater than max/min = {limit:.6}"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{create, lines};

    #[test]
    fn limit_ranges() {
        let object = json!({"metadata": {"name": "l"}, "spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "2"}}]}});
        let (made, causes) = create("", "limitranges", object);
        assert_eq!(made["spec"]["limits"][0]["default"], json!({"cpu": "1"}));
        assert_eq!(
            lines(&causes),
            [
                "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
                "spec.limits[0].defaultRequest[cpu]: Invalid value: \"1\": min value 2 is greater than default request value 1",
                "spec.limits[0].default[cpu]: Invalid value: \"2\": min value 2 is greater than default value 1",
            ]
        );
    }

    #[test]
    fn quotas() {
        let object = json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1.5", "foo": "1", "count/deployments.apps": "2", "requests.cpu": "-1"}, "scopes": ["Foo"]}});
        assert_eq!(
            lines(&create("", "resourcequotas", object).1),
            [
                "spec.hard[foo]: Invalid value: \"foo\": must be a standard resource type or fully qualified",
                "spec.hard[foo]: Invalid value: \"foo\": must be a standard resource for quota",
                "spec.hard[pods]: Invalid value: \"1500m\": must be an integer",
                "spec.hard[requests.cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
                "spec.scopes: Invalid value: [\"Foo\"]: unsupported scope",
            ]
        );
    }
}
