//! HorizontalPodAutoscalers of `autoscaling/v2` and `v1`.

use serde_json::{Value, json};

use super::json::{child, child_mut, default, list, number, set, text};
use super::policy::{BUILT_IN, Policy};
use crate::names;
use crate::validation::{Errors, Path};

const METRIC_TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
const WINDOW_SECONDS_MAX: i64 = 3600;
const PERIOD_SECONDS_MAX: i64 = 1800;
const DEFAULT_UTILISATION: i64 = 80;

pub static AUTOSCALER: Policy = Policy {
    status: true,
    defaults: |object| {
        let new_form = text(object, "apiVersion") != "autoscaling/v1";
        let Some(spec) = child_mut(object, "spec") else { return };
        default(spec, "minReplicas", 1);
        if !new_form {
            return;
        }
        if list(spec, "metrics").is_empty() {
            set(spec, "metrics", json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": DEFAULT_UTILISATION}}}]));
        }
        if let Some(behaviour) = child_mut(spec, "behavior") {
            rules(behaviour, "scaleUp", json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]}));
            rules(behaviour, "scaleDown", json!({"selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}));
        }
    },
    on_create: |object, _| set(object, "status", json!({"currentReplicas": 0, "desiredReplicas": 0})),
    check,
    check_status: |errors, new, _| {
        let path = Path::Root("status");
        for name in ["currentReplicas", "desiredReplicas"] {
            errors.not_negative(&path.child(name), child(new, "status").and_then(|status| number(status, name)));
        }
    },
    ..BUILT_IN
};

fn rules(behaviour: &mut Value, name: &str, defaults: Value) {
    let mut merged = defaults;
    if let (Some(given), Some(map)) = (child(behaviour, name).and_then(Value::as_object), merged.as_object_mut()) {
        map.extend(given.iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.clone(), value.clone())));
    }
    set(behaviour, name, merged);
}

fn check(errors: &mut Errors, object: &Value) {
    let path = Path::Root("spec");
    let none = Value::Null;
    let spec = child(object, "spec").unwrap_or(&none);
    let (minimum, maximum) = (number(spec, "minReplicas"), number(spec, "maxReplicas").unwrap_or(0));
    if let Some(minimum) = minimum.filter(|minimum| *minimum < 1) {
        errors.invalid(&path.child("minReplicas"), &minimum, "must be greater than or equal to 1");
    }
    if maximum == 0 {
        errors.required(&path.child("maxReplicas"), "must be set and greater than 0");
    } else if maximum < 0 {
        errors.invalid(&path.child("maxReplicas"), &maximum, "must be greater than or equal to 1");
    }
    if minimum.is_some_and(|minimum| maximum < minimum) {
        errors.invalid(&path.child("maxReplicas"), &maximum, "must be greater than or equal to `minReplicas`");
    }
    let target = path.child("scaleTargetRef");
    for name in ["kind", "name"] {
        match child(spec, "scaleTargetRef").map_or("", |target| text(target, name)) {
            "" => errors.required(&target.child(name), ""),
            value => errors.name(&target.child(name), value, names::path_segment),
        }
    }
    if number(spec, "targetCPUUtilizationPercentage").is_some_and(|target| target < 1) {
        errors.invalid(&path.child("targetCPUUtilizationPercentage"), &number(spec, "targetCPUUtilizationPercentage").unwrap_or(0), "must be greater than 0");
    }
    let metrics = path.child("metrics");
    for (index, metric) in list(spec, "metrics").iter().enumerate() {
        check_metric(errors, &metrics.index(index), metric);
    }
    let behaviour = path.child("behavior");
    for name in ["scaleUp", "scaleDown"] {
        if let Some(rules) = child(spec, "behavior").and_then(|behaviour| child(behaviour, name)) {
            check_rules(errors, &behaviour.child(name), rules);
        }
    }
}

fn check_metric(errors: &mut Errors, path: &Path, metric: &Value) {
    let kind = text(metric, "type");
    if kind.is_empty() {
        errors.required(&path.child("type"), "must specify a metric source type");
    }
    if !METRIC_TYPES.contains(&kind) {
        return errors.not_supported(&path.child("type"), kind, &METRIC_TYPES);
    }
    let expected = match kind {
        "ContainerResource" => "containerResource",
        "External" => "external",
        "Object" => "object",
        "Pods" => "pods",
        _ => "resource",
    };
    for name in ["object", "external", "pods", "resource", "containerResource"] {
        match (name == expected, child(metric, name)) {
            (true, None) => errors.required(&path.child(name), "must populate information for the given metric source"),
            (false, Some(_)) => errors.forbidden(&path.child(name), "must populate the given metric source only"),
            _ => {}
        }
    }
    let Some(source) = child(metric, expected) else { return };
    let path = path.child(expected);
    let resource = matches!(expected, "resource" | "containerResource");
    if resource && text(source, "name").is_empty() {
        errors.required(&path.child("name"), "must specify a resource name");
    }
    if expected == "containerResource" && text(source, "container").is_empty() {
        errors.required(&path.child("container"), "must specify a container");
    }
    if !resource && text(source, "metric.name").is_empty() {
        errors.required(&path.child("metric.name"), "must specify a metric name");
    }
    let target = path.child("target");
    match text(source, "target.type") {
        "Utilization" | "Value" | "AverageValue" => {}
        "" => errors.required(&target.child("type"), "must specify a metric target type"),
        other => errors.invalid(&target.child("type"), other, "must be either Utilization, Value, or AverageValue"),
    }
    if let Some(utilisation) = number(source, "target.averageUtilization").filter(|utilisation| *utilisation < 1) {
        errors.invalid(&target.child("averageUtilization"), &utilisation, "must be greater than 0");
    }
}

fn check_rules(errors: &mut Errors, path: &Path, rules: &Value) {
    match number(rules, "stabilizationWindowSeconds") {
        Some(seconds) if seconds < 0 => errors.invalid(&path.child("stabilizationWindowSeconds"), &seconds, "must be greater than or equal to zero"),
        Some(seconds) if seconds > WINDOW_SECONDS_MAX => {
            errors.invalid(&path.child("stabilizationWindowSeconds"), &seconds, &format!("must be less than or equal to {WINDOW_SECONDS_MAX}"));
        }
        _ => {}
    }
    let select = text(rules, "selectPolicy");
    if !matches!(select, "" | "Disabled" | "Max" | "Min") {
        errors.not_supported(&path.child("selectPolicy"), select, &["Disabled", "Max", "Min"]);
    }
    let policies = list(rules, "policies");
    let path = path.child("policies");
    if policies.is_empty() {
        errors.required(&path, "must specify at least one Policy");
    }
    for (index, policy) in policies.iter().enumerate() {
        let path = path.index(index);
        let kind = text(policy, "type");
        if !matches!(kind, "Percent" | "Pods") {
            errors.not_supported(&path.child("type"), kind, &["Percent", "Pods"]);
        }
        for name in ["value", "periodSeconds"] {
            let value = number(policy, name).unwrap_or(0);
            if value <= 0 {
                errors.invalid(&path.child(name), &value, "must be greater than zero");
            }
        }
        let period = number(policy, "periodSeconds").unwrap_or(0);
        if period > PERIOD_SECONDS_MAX {
            errors.invalid(&path.child("periodSeconds"), &period, &format!("must be less than or equal to {PERIOD_SECONDS_MAX}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{create, lines};

    #[test]
    fn autoscalers() {
        let (made, causes) = create("autoscaling", "horizontalpodautoscalers", json!({"apiVersion": "autoscaling/v2", "metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "behavior": {"scaleDown": {"selectPolicy": "Min"}}, "scaleTargetRef": {"kind": "Deployment", "name": "web"}}}));
        assert!(causes.is_empty(), "{causes:?}");
        assert_eq!(made["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
        assert_eq!(made["spec"]["behavior"]["scaleDown"]["selectPolicy"], "Min");
        assert_eq!(made["spec"]["behavior"]["scaleUp"]["policies"][0]["value"], 4);
        let bad = json!({"apiVersion": "autoscaling/v1", "metadata": {"name": "h"}, "spec": {}});
        assert_eq!(
            lines(&create("autoscaling", "horizontalpodautoscalers", bad).1),
            [
                "spec.maxReplicas: Required value: must be set and greater than 0",
                "spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`",
                "spec.scaleTargetRef.kind: Required value",
                "spec.scaleTargetRef.name: Required value",
            ]
        );
    }
}
