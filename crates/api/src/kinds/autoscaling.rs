//! HorizontalPodAutoscalers of `autoscaling/v2` and `v1`.

use serde_json::{Value, json};

use super::json::{child, child_mut, default, list, number, set, text};
use super::policy::{BUILT_IN, CHANGE, Policy};
use crate::names;
use crate::quantity::Quantity;
use crate::validation::{Errors, Path};

const METRIC_TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
const WINDOW_SECONDS_MAX: i64 = 3600;
const PERIOD_SECONDS_MAX: i64 = 1800;
const DEFAULT_UTILISATION: i64 = 80;

pub static AUTOSCALER: Policy = Policy {
    metadata_again: CHANGE,
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
    check_create: |errors, new| check(errors, new, None),
    check_update: |errors, new, old| check(errors, new, Some(old)),
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

/// How much is asked of the `apiVersion` of a reference.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ApiVersion {
    Any,
    Valid,
    WithGroup,
}

fn check_api_version(version: &str, asked: ApiVersion) -> Result<(), String> {
    let group = match version.split('/').collect::<Vec<_>>().as_slice() {
        _ if asked == ApiVersion::Any => return Ok(()),
        [_] => "",
        [group, _] => *group,
        _ => return Err(format!("unexpected GroupVersion string: {version}")),
    };
    if asked == ApiVersion::WithGroup && group.is_empty() { Err("apiVersion must specify API group".to_owned()) } else { Ok(()) }
}

fn reference(errors: &mut Errors, path: &Path, target: Option<&Value>, asked: ApiVersion) {
    let field = |name: &str| target.map_or("", |target| text(target, name));
    for name in ["kind", "name"] {
        match field(name) {
            "" => errors.required(&path.child(name), ""),
            value => errors.name(&path.child(name), value, names::path_segment),
        }
    }
    if let Err(why) = check_api_version(field("apiVersion"), asked) {
        errors.invalid(&path.child("apiVersion"), field("apiVersion"), &why);
    }
}

fn check(errors: &mut Errors, object: &Value, old: Option<&Value>) {
    let path = Path::Root("spec");
    let none = Value::Null;
    let spec = child(object, "spec").unwrap_or(&none);
    let (minimum, maximum) = (number(spec, "minReplicas"), number(spec, "maxReplicas").unwrap_or(0));
    // Nobody makes one that scales to zero (HPAScaleToZero), but one that does may stay.
    let least = i64::from(old.and_then(|old| number(old, "spec.minReplicas")) != Some(0));
    if let Some(minimum) = minimum.filter(|minimum| *minimum < least) {
        errors.invalid(&path.child("minReplicas"), &minimum, &format!("must be greater than or equal to {least}"));
    }
    if maximum == 0 {
        errors.required(&path.child("maxReplicas"), "must be set and greater than 0");
    } else if maximum < 0 {
        errors.invalid(&path.child("maxReplicas"), &maximum, "must be greater than or equal to 1");
    }
    if minimum.is_some_and(|minimum| maximum < minimum) {
        errors.invalid(&path.child("maxReplicas"), &maximum, "must be greater than or equal to `minReplicas`");
    }
    let target = child(spec, "scaleTargetRef");
    let known = |name: &str| old.is_some_and(|old| child(old, "spec.scaleTargetRef").map_or("", |old| text(old, name)) == target.map_or("", |target| text(target, name)));
    let asked = match target.map_or("", |target| text(target, "kind")) {
        _ if known("apiVersion") && known("kind") => ApiVersion::Any,
        "ReplicationController" => ApiVersion::Valid,
        _ => ApiVersion::WithGroup,
    };
    reference(errors, &path.child("scaleTargetRef"), target, asked);
    let broken = |metric: &Value| text(metric, "type") == "Object" && check_api_version(text(metric, "object.describedObject.apiVersion"), ApiVersion::Valid).is_err();
    let described = if old.is_some_and(|old| list(old, "spec.metrics").iter().any(broken)) { ApiVersion::Any } else { ApiVersion::Valid };
    let metrics = path.child("metrics");
    for (index, metric) in list(spec, "metrics").iter().enumerate() {
        check_metric(errors, &metrics.index(index), metric, described);
    }
    if minimum == Some(0) && !list(spec, "metrics").iter().any(|metric| matches!(text(metric, "type"), "Object" | "External")) {
        errors.forbidden(&metrics, "must specify at least one Object or External metric to support scaling to zero replicas");
    }
    let behaviour = path.child("behavior");
    for name in ["scaleUp", "scaleDown"] {
        if let Some(rules) = child(spec, "behavior").and_then(|behaviour| child(behaviour, name)) {
            check_rules(errors, &behaviour.child(name), rules);
        }
    }
}

/// The sources a metric may have, in the order in which upstream looks at them: only the first that is given is judged.
const SOURCES: [&str; 5] = ["object", "external", "pods", "resource", "containerResource"];

fn check_metric(errors: &mut Errors, path: &Path, metric: &Value, described: ApiVersion) {
    let kind = text(metric, "type");
    if kind.is_empty() {
        errors.required(&path.child("type"), "must specify a metric source type");
    }
    if !METRIC_TYPES.contains(&kind) {
        errors.not_supported(&path.child("type"), kind, &METRIC_TYPES);
    }
    let mut present: Vec<&str> = SOURCES.into_iter().filter(|name| child(metric, name).is_some()).collect();
    if let Some(name) = present.first()
        && let Some(source) = child(metric, name)
    {
        check_source(errors, &path.child(name), name, source, described);
    }
    let expected = match kind {
        "ContainerResource" => "containerResource",
        "External" => "external",
        "Object" => "object",
        "Pods" => "pods",
        "Resource" => "resource",
        _ => {
            errors.not_supported(&path.child("type"), kind, &METRIC_TYPES);
            ""
        }
    };
    if !expected.is_empty() && !present.contains(&expected) {
        errors.required(&path.child(expected), "must populate information for the given metric source");
    }
    if present.len() != 1 {
        present.retain(|name| *name != expected);
        for name in present {
            errors.forbidden(&path.child(name), "must populate the given metric source only");
        }
    }
}

fn check_source(errors: &mut Errors, path: &Path, name: &str, source: &Value, described: ApiVersion) {
    let target = path.child("target");
    let has = |field: &str| child(source, "target").is_some_and(|target| child(target, field).is_some());
    if name == "object" {
        reference(errors, &path.child("describedObject"), child(source, "describedObject"), described);
    }
    match (name, text(source, "name")) {
        ("resource" | "containerResource", "") => errors.required(&path.child("name"), "must specify a resource name"),
        ("containerResource", resource) => super::resources::container_resource_name(errors, &path.child("name"), resource),
        ("resource", _) => {}
        _ => match text(source, "metric.name") {
            "" => errors.required(&path.child("metric.name"), "must specify a metric name"),
            metric => errors.name(&path.child("metric.name"), metric, names::path_segment),
        },
    }
    if name == "containerResource" {
        match text(source, "container") {
            "" => errors.required(&path.child("container"), "must specify a container"),
            container => errors.name(&path.child("container"), container, names::dns_label),
        }
    }
    check_target(errors, &target, child(source, "target").unwrap_or(&Value::Null));
    match name {
        "object" if !has("value") && !has("averageValue") => errors.required(&target.child("averageValue"), "must set either a target value or averageValue"),
        "external" if !has("value") && !has("averageValue") => errors.required(&target.child("averageValue"), "must set either a target value for metric or a per-pod target"),
        "external" if has("value") && has("averageValue") => errors.forbidden(&target.child("value"), "may not set both a target value for metric and a per-pod target"),
        "pods" if !has("averageValue") => errors.required(&target.child("averageValue"), "must specify a positive target averageValue"),
        "resource" | "containerResource" if !has("averageUtilization") && !has("averageValue") => {
            errors.required(&target.child("averageUtilization"), "must set either a target raw value or a target utilization");
        }
        "resource" | "containerResource" if has("averageUtilization") && has("averageValue") => {
            errors.forbidden(&target.child("averageValue"), "may not set both a target raw value and a target utilization");
        }
        _ => {}
    }
}

fn check_target(errors: &mut Errors, path: &Path, target: &Value) {
    match text(target, "type") {
        "Utilization" | "Value" | "AverageValue" => {}
        kind => {
            if kind.is_empty() {
                errors.required(&path.child("type"), "must specify a metric target type");
            }
            errors.invalid(&path.child("type"), kind, "must be either Utilization, Value, or AverageValue");
        }
    }
    for name in ["value", "averageValue"] {
        if let Some(quantity) = child(target, name).and_then(|value| Quantity::from_json(value).ok()).filter(|quantity| quantity.sign() != 1) {
            errors.invalid(&path.child(name), quantity.to_string().as_str(), "must be positive");
        }
    }
    if let Some(utilisation) = number(target, "averageUtilization").filter(|utilisation| *utilisation < 1) {
        errors.invalid(&path.child("averageUtilization"), &utilisation, "must be greater than 0");
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
    if child(rules, "selectPolicy").is_some() && !matches!(select, "Disabled" | "Max" | "Min") {
        errors.not_supported(&path.child("selectPolicy"), select, &["Disabled", "Max", "Min"]);
    }
    let (tolerance, tolerance_path) = (child(rules, "tolerance"), path.child("tolerance"));
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
    if let Some(tolerance) = tolerance.and_then(|value| Quantity::from_json(value).ok()).filter(Quantity::is_negative) {
        errors.invalid(&tolerance_path, tolerance.to_string().as_str(), "must be greater than or equal to 0");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{create, lines};

    #[test]
    fn autoscalers() {
        let (made, causes) = create("autoscaling", "horizontalpodautoscalers", json!({"apiVersion": "autoscaling/v2", "metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "behavior": {"scaleDown": {"selectPolicy": "Min"}}, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}}));
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
                "spec.scaleTargetRef.apiVersion: Invalid value: \"\": apiVersion must specify API group",
            ]
        );
    }

    #[test]
    fn metrics() {
        const AT: &str = "spec.metrics[0]";
        for (metric, wanted) in [
            (json!({"type": "External", "external": {"metric": {"name": "q"}, "target": {"type": "Value", "value": "3"}}}), vec![]),
            (json!({"type": "External", "external": {"metric": {"name": "a/b"}, "target": {"type": "Value", "value": "0", "averageValue": "1"}}}), vec![
                ".external.metric.name: Invalid value: \"a/b\": may not contain '/'",
                ".external.target.value: Invalid value: \"0\": must be positive",
                ".external.target.value: Forbidden: may not set both a target value for metric and a per-pod target",
            ]),
            (json!({"type": "Pods", "pods": {"metric": {"name": "q"}, "target": {"type": "x"}}}), vec![
                ".pods.target.type: Invalid value: \"x\": must be either Utilization, Value, or AverageValue",
                ".pods.target.averageValue: Required value: must specify a positive target averageValue",
            ]),
            (json!({"type": "Object", "object": {"describedObject": {"apiVersion": "a/b/c", "kind": "K", "name": "n"}, "metric": {"name": "q"}, "target": {"type": "Value", "value": "1"}}}), vec![
                ".object.describedObject.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c",
            ]),
            (json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 1, "averageValue": "1"}}, "pods": {}}), vec![
                ".pods.metric.name: Required value: must specify a metric name",
                ".pods.target.type: Required value: must specify a metric target type",
                ".pods.target.type: Invalid value: \"\": must be either Utilization, Value, or AverageValue",
                ".pods.target.averageValue: Required value: must specify a positive target averageValue",
                ".pods: Forbidden: must populate the given metric source only",
            ]),
        ] {
            let object = json!({"apiVersion": "autoscaling/v2", "metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "metrics": [metric], "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}});
            let wanted: Vec<String> = wanted.iter().map(|line| format!("{AT}{line}")).collect();
            assert_eq!(lines(&create("autoscaling", "horizontalpodautoscalers", object).1), wanted);
        }
    }
}
