//! HorizontalPodAutoscalers between autoscaling/v2, as they are stored, and v1. What v1 has no fields for travels in its annotations, so that nothing is lost by a
//! client that reads and writes v1.
//!
//! Mirrors pkg/apis/autoscaling/v1/conversion.go, to the order of the fields in the annotations' JSON.

use serde_json::{Map, Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const ANNOTATIONS: [&str; 6] =
    [METRICS, CURRENT_METRICS, CONDITIONS, BEHAVIOR, "autoscaling.alpha.kubernetes.io/scale-down-tolerance", "autoscaling.alpha.kubernetes.io/scale-up-tolerance"];
const DEFAULT_UTILIZATION: i64 = 80;

/// A type's sources: its field, and how each of v1's fields is called in v2; `!`: v1 cannot leave it out and says 0.
type Source = (&'static str, &'static [(&'static str, &'static str)]);

const SPECS: [Source; 5] = [
    ("object", &[("target", "/describedObject"), ("metricName", "/metric/name"), ("targetValue", "!/target/value"), ("selector", "/metric/selector"), ("averageValue", "/target/averageValue")]),
    ("pods", &[("metricName", "/metric/name"), ("targetAverageValue", "!/target/averageValue"), ("selector", "/metric/selector")]),
    ("resource", &[("name", "/name"), ("targetAverageUtilization", "/target/averageUtilization"), ("targetAverageValue", "/target/averageValue")]),
    ("containerResource", &[("name", "/name"), ("targetAverageUtilization", "/target/averageUtilization"), ("targetAverageValue", "/target/averageValue"), ("container", "/container")]),
    ("external", &[("metricName", "/metric/name"), ("metricSelector", "/metric/selector"), ("targetValue", "/target/value"), ("targetAverageValue", "/target/averageValue")]),
];

const STATUSES: [Source; 5] = [
    ("object", &[("target", "/describedObject"), ("metricName", "/metric/name"), ("currentValue", "!/current/value"), ("selector", "/metric/selector"), ("averageValue", "/current/averageValue")]),
    ("pods", &[("metricName", "/metric/name"), ("currentAverageValue", "!/current/averageValue"), ("selector", "/metric/selector")]),
    ("resource", &[("name", "/name"), ("currentAverageUtilization", "/current/averageUtilization"), ("currentAverageValue", "!/current/averageValue")]),
    ("containerResource", &[("name", "/name"), ("currentAverageUtilization", "/current/averageUtilization"), ("currentAverageValue", "!/current/averageValue"), ("container", "/container")]),
    ("external", &[("metricName", "/metric/name"), ("metricSelector", "/metric/selector"), ("currentValue", "!/current/value"), ("currentAverageValue", "/current/averageValue")]),
];

fn cpu(metric: &Value) -> bool {
    metric["type"] == "Resource" && metric.pointer("/resource/name").and_then(Value::as_str) == Some("cpu")
}

fn utilization_of_cpu(percent: &Value) -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}})
}

/// JSON with its fields in this order.
fn ordered<'a>(fields: impl IntoIterator<Item = (&'a str, Option<String>)>) -> String {
    let fields: Vec<String> = fields.into_iter().filter_map(|(name, value)| Some(format!("{}:{}", json!(name), value?))).collect();
    format!("{{{}}}", fields.join(","))
}

fn ordered_list(items: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", items.into_iter().collect::<Vec<_>>().join(","))
}

/// A value in the order of its Go type, where that is not the alphabet's.
fn shown(name: &str, value: &Value) -> String {
    let some = |field: &str| value.get(field).map(Value::to_string);
    match name {
        "target" => ordered([("kind", some("kind")), ("name", some("name")), ("apiVersion", some("apiVersion"))]),
        "selector" | "metricSelector" => ordered([("matchLabels", some("matchLabels")), ("matchExpressions", some("matchExpressions"))]),
        _ => value.to_string(),
    }
}

fn metric_to_v1(metric: &Value, sources: &[Source]) -> String {
    let mut fields = vec![("type", Some(metric["type"].to_string()))];
    for (name, parts) in sources {
        let Some(source) = metric.get(name).filter(|source| source.is_object()) else { continue };
        let parts = parts.iter().map(|(field, place)| {
            let (place, needed) = place.strip_prefix('!').map_or((*place, false), |place| (place, true));
            let value = source.pointer(place).filter(|value| !value.is_null()).map(|value| shown(field, value));
            (*field, value.or(needed.then(|| "\"0\"".to_owned())))
        });
        fields.push((name, Some(ordered(parts))));
    }
    ordered(fields)
}

fn put(object: &mut Value, place: &str, value: Value) {
    let mut at = object;
    for name in place.trim_start_matches('/').split('/') {
        at = &mut at[name];
    }
    *at = value;
}

fn metric_to_v2(metric: &Value, sources: &[Source], spec: bool) -> Value {
    let mut made = json!({"type": metric["type"]});
    for (name, parts) in sources {
        let Some(source) = metric.get(name).filter(|source| source.is_object()) else { continue };
        let mut into = json!({});
        for (field, place) in *parts {
            if let Some(value) = source.get(field).filter(|value| !value.is_null()) {
                put(&mut into, place.trim_start_matches('!'), value.clone());
            }
        }
        if spec {
            let has = |field: &str| source.get(field).is_some_and(|value| !value.is_null());
            let kind = match *name {
                "object" if has("averageValue") => {
                    // v1 cannot leave the value out.
                    if let Some(target) = into["target"].as_object_mut()
                        && target.get("value").and_then(Value::as_str).is_some_and(|value| ::api::quantity::Quantity::parse(value).is_ok_and(|value| value.is_zero()))
                    {
                        target.remove("value");
                    }
                    "AverageValue"
                }
                "external" if !has("targetValue") => "AverageValue",
                "object" | "external" => "Value",
                "resource" | "containerResource" if has("targetAverageUtilization") => "Utilization",
                _ => "AverageValue",
            };
            put(&mut into, "/target/type", kind.into());
        }
        made[*name] = into;
    }
    made
}

const RULES: [(&str, &str); 4] = [("StabilizationWindowSeconds", "stabilizationWindowSeconds"), ("SelectPolicy", "selectPolicy"), ("Policies", "policies"), ("Tolerance", "tolerance")];
const POLICY: [(&str, &str); 3] = [("Type", "type"), ("Value", "value"), ("PeriodSeconds", "periodSeconds")];

/// Upstream writes its internal type here: capitals, and nulls.
fn behavior_to_v1(behavior: &Value) -> String {
    let or_null = |value: Option<&Value>| value.map_or_else(|| "null".to_owned(), Value::to_string);
    let rules = |rules: Option<&Value>| {
        let Some(rules) = rules.filter(|rules| rules.is_object()) else { return "null".to_owned() };
        ordered(RULES.map(|(theirs, ours)| {
            let shown = match (ours, rules.get(ours)) {
                ("policies", Some(Value::Array(policies))) => {
                    ordered_list(policies.iter().map(|policy| ordered(POLICY.map(|(theirs, ours)| (theirs, Some(or_null(policy.get(ours))))))))
                }
                (_, value) => or_null(value),
            };
            (theirs, Some(shown))
        }))
    };
    ordered([("ScaleUp", Some(rules(behavior.get("scaleUp")))), ("ScaleDown", Some(rules(behavior.get("scaleDown"))))])
}

/// Whatever the case of the names, as Go reads them; None: nothing is said.
fn behavior_to_v2(text: &str) -> Option<Value> {
    let given: Value = serde_json::from_str(text).ok()?;
    let field = |object: &Value, name: &str| object.as_object()?.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone()).filter(|value| !value.is_null());
    let mut made = Map::new();
    for side in ["scaleUp", "scaleDown"] {
        let Some(rules) = field(&given, side) else { continue };
        let mut into = Map::new();
        for (theirs, ours) in RULES {
            let Some(value) = field(&rules, theirs) else { continue };
            let value = match value {
                Value::Array(policies) if ours == "policies" => {
                    policies.iter().map(|policy| Value::Object(POLICY.iter().filter_map(|(theirs, ours)| Some(((*ours).to_owned(), field(policy, theirs)?))).collect())).collect()
                }
                value => value,
            };
            into.insert(ours.to_owned(), value);
        }
        made.insert(side.to_owned(), into.into());
    }
    (!made.is_empty()).then(|| made.into())
}

/// Takes the annotations of the round trip off.
fn annotations(map: &mut Map<String, Value>) -> Map<String, Value> {
    let Some(meta) = map.get_mut("metadata").and_then(Value::as_object_mut) else { return Map::new() };
    let Some(given) = meta.get_mut("annotations").and_then(Value::as_object_mut) else { return Map::new() };
    let taken: Map<String, Value> = ANNOTATIONS.iter().filter_map(|name| given.remove_entry(*name)).collect();
    if given.is_empty() {
        meta.remove("annotations");
    }
    taken
}

fn annotate(map: &mut Map<String, Value>, name: &str, text: String) {
    let meta = map.entry("metadata").or_insert_with(|| json!({}));
    if !meta["annotations"].is_object() {
        meta["annotations"] = json!({});
    }
    meta["annotations"][name] = text.into();
}

fn take_list(part: Option<&mut Map<String, Value>>, name: &str) -> Vec<Value> {
    match part.and_then(|part| part.remove(name)) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

pub fn to_v1(map: &mut Map<String, Value>) {
    annotations(map);
    let spec = |map: &mut Map<String, Value>| map.get_mut("spec").and_then(Value::as_object_mut).map(std::mem::take);
    let mut inner = spec(map);
    let metrics = take_list(inner.as_mut(), "metrics");
    let behavior = inner.as_mut().and_then(|spec| spec.remove("behavior"));
    let percent = |metric: &Value, side: &str| metric.pointer(&format!("/resource/{side}/averageUtilization")).filter(|value| !value.is_null()).cloned();
    let plain = |metric: &Value| cpu(metric) && percent(metric, "target").is_some();
    if let Some(mut inner) = inner {
        if let Some(percent) = metrics.iter().find(|metric| plain(metric)).and_then(|metric| percent(metric, "target")) {
            inner.insert("targetCPUUtilizationPercentage".into(), percent);
        }
        map.insert("spec".into(), inner.into());
    }
    let mut status = map.get_mut("status").and_then(Value::as_object_mut);
    let current = take_list(status.as_deref_mut(), "currentMetrics");
    let conditions = take_list(status.as_deref_mut(), "conditions");
    if let Some(status) = status
        && let Some(percent) = current.iter().rev().filter(|metric| cpu(metric)).find_map(|metric| percent(metric, "current"))
    {
        status.insert("currentCPUUtilizationPercentage".into(), percent);
    }
    let others: Vec<String> = metrics.iter().filter(|metric| !plain(metric)).map(|metric| metric_to_v1(metric, &SPECS)).collect();
    if !others.is_empty() {
        annotate(map, METRICS, ordered_list(others));
    }
    if !current.is_empty() {
        annotate(map, CURRENT_METRICS, ordered_list(current.iter().map(|metric| metric_to_v1(metric, &STATUSES))));
    }
    if let Some(behavior) = behavior.filter(|behavior| !behavior.is_null()) {
        annotate(map, BEHAVIOR, behavior_to_v1(&behavior));
    }
    if !conditions.is_empty() {
        let condition = |condition: &Value| {
            let some = |name: &str| condition.get(name).filter(|value| **value != "").map(Value::to_string);
            let time = some("lastTransitionTime").or_else(|| Some("null".to_owned()));
            ordered([("type", some("type")), ("status", some("status")), ("lastTransitionTime", time), ("reason", some("reason")), ("message", some("message"))])
        };
        annotate(map, CONDITIONS, ordered_list(conditions.iter().map(condition)));
    }
}

pub fn to_v2(map: &mut Map<String, Value>) {
    let given = annotations(map);
    let listed = |name: &str| -> Option<Vec<Value>> { serde_json::from_str(given.get(name)?.as_str()?).ok() };
    if let Some(spec) = map.get_mut("spec").and_then(Value::as_object_mut) {
        let mut metrics: Vec<Value> = listed(METRICS).unwrap_or_default().iter().map(|metric| metric_to_v2(metric, &SPECS, true)).collect();
        metrics.extend(spec.remove("targetCPUUtilizationPercentage").filter(|percent| !percent.is_null()).map(|percent| utilization_of_cpu(&percent)));
        if metrics.is_empty() {
            metrics.push(utilization_of_cpu(&DEFAULT_UTILIZATION.into()));
        }
        spec.insert("metrics".into(), metrics.into());
        if let Some(behavior) = given.get(BEHAVIOR).and_then(Value::as_str).and_then(behavior_to_v2) {
            spec.insert("behavior".into(), behavior);
        }
    }
    if let Some(status) = map.get_mut("status").and_then(Value::as_object_mut) {
        let percent = status.remove("currentCPUUtilizationPercentage").filter(|percent| !percent.is_null());
        let plain = percent.map(|percent| vec![json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": percent}}})]);
        let current = listed(CURRENT_METRICS).map(|metrics| metrics.iter().map(|metric| metric_to_v2(metric, &STATUSES, false)).collect()).or(plain);
        for (name, list) in [("currentMetrics", current), ("conditions", listed(CONDITIONS))] {
            if let Some(list) = list {
                status.insert(name.into(), list.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What upstream's conversion puts into the annotations, and that it comes back.
    #[test]
    fn nothing_is_lost_on_the_way_through_v1() {
        let stored = json!({"metadata": {"name": "h", "annotations": {"mine": "x"}}, "spec": {"maxReplicas": 3, "metrics": [
            {"type": "Pods", "pods": {"metric": {"name": "qps", "selector": {"matchLabels": {"a": "b"}}}, "target": {"type": "AverageValue", "averageValue": "10"}}},
            {"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s", "apiVersion": "v1"}, "metric": {"name": "hits"}, "target": {"type": "AverageValue", "averageValue": "2"}}},
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}],
            "behavior": {"scaleDown": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}], "selectPolicy": "Min"}}},
            "status": {"currentReplicas": 1, "desiredReplicas": 2, "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 40, "averageValue": "100m"}}}],
                "conditions": [{"type": "AbleToScale", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z", "reason": "Ready"}]}});
        let mut map = stored.as_object().unwrap().clone();
        to_v1(&mut map);
        assert_eq!((&map["spec"]["targetCPUUtilizationPercentage"], &map["status"]["currentCPUUtilizationPercentage"]), (&json!(50), &json!(40)));
        let notes = &map["metadata"]["annotations"];
        for (name, wanted) in [
            (METRICS, r#"[{"type":"Pods","pods":{"metricName":"qps","targetAverageValue":"10","selector":{"matchLabels":{"a":"b"}}}},{"type":"Object","object":{"target":{"kind":"Service","name":"s","apiVersion":"v1"},"metricName":"hits","targetValue":"0","averageValue":"2"}}]"#),
            (CURRENT_METRICS, r#"[{"type":"Resource","resource":{"name":"cpu","currentAverageUtilization":40,"currentAverageValue":"100m"}}]"#),
            (BEHAVIOR, r#"{"ScaleUp":null,"ScaleDown":{"StabilizationWindowSeconds":null,"SelectPolicy":"Min","Policies":[{"Type":"Pods","Value":1,"PeriodSeconds":60}],"Tolerance":null}}"#),
            (CONDITIONS, r#"[{"type":"AbleToScale","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z","reason":"Ready"}]"#),
        ] {
            assert_eq!(notes[name], wanted);
        }
        to_v2(&mut map);
        assert_eq!(Value::Object(map), stored);
    }

    #[test]
    fn v1_alone_means_eighty_percent() {
        let mut map = json!({"metadata": {"annotations": {METRICS: "not json"}}, "spec": {"maxReplicas": 3}}).as_object().unwrap().clone();
        to_v2(&mut map);
        assert_eq!(Value::Object(map), json!({"metadata": {}, "spec": {"maxReplicas": 3, "metrics": [utilization_of_cpu(&json!(80))]}}));
    }
}
