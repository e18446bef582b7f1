//! HorizontalPodAutoscalers (v2), PodDisruptionBudgets, PriorityClasses.

use api::kinds::json::{child, flag, list, text};
use serde_json::Value;

use super::requests::canonical;
use super::writer::{Writer, format_labels, format_selector, has, integer, line, or, shown_or};
use super::{Related, events};

const UNKNOWN: &str = "<unknown>";

pub fn horizontal_pod_autoscaler(object: &Value, related: &Related, w: &mut Writer) {
    w.head(object);
    line!(w, 0, "CreationTimestamp:\t{}", w.time(object, "metadata.creationTimestamp"));
    let target = text(object, "spec.scaleTargetRef.kind");
    line!(w, 0, "Reference:\t{target}/{}", text(object, "spec.scaleTargetRef.name"));
    line!(w, 0, "Metrics:\t( current / target )");
    let current = list(object, "status.currentMetrics");
    for (at, given) in list(object, "spec.metrics").iter().enumerate() {
        line!(w, 1, "{}", metric(given, current.get(at).unwrap_or(&Value::Null)));
    }
    line!(w, 0, "Min replicas:\t{}", shown_or(object, "spec.minReplicas", "<unset>"));
    line!(w, 0, "Max replicas:\t{}", integer(object, "spec.maxReplicas"));
    if has(object, "spec.behavior") {
        line!(w, 0, "Behavior:");
        for (direction, field) in [("Scale Up", "spec.behavior.scaleUp"), ("Scale Down", "spec.behavior.scaleDown")] {
            if let Some(rules) = child(object, field) {
                behavior(direction, rules, w);
            }
        }
    }
    line!(w, 0, "{target} pods:\t{} current / {} desired", integer(object, "status.currentReplicas"), integer(object, "status.desiredReplicas"));
    let conditions = list(object, "status.conditions");
    if !conditions.is_empty() {
        line!(w, 0, "Conditions:");
        line!(w, 1, "Type\tStatus\tReason\tMessage");
        line!(w, 1, "----\t------\t------\t-------");
    }
    for condition in conditions {
        line!(w, 1, "{}\t{}\t{}\t{}", text(condition, "type"), text(condition, "status"), text(condition, "reason"), text(condition, "message"));
    }
    events::events(related, w);
}

fn metric(metric: &Value, current: &Value) -> String {
    let kind = text(metric, "type");
    let field = match kind {
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "Pods" => "pods",
        "Object" => "object",
        "External" => "external",
        other => return format!("<unknown metric type {other:?}>"),
    };
    let none = Value::Null;
    let (given, now) = (child(metric, field).unwrap_or(&none), child(current, field));
    let amount = |source: Option<&Value>, path: &str, otherwise: &str| source.and_then(|source| child(source, path)).map_or_else(|| otherwise.to_owned(), canonical);
    // `current / target` of one of the two amounts.
    let pair = |value: &str| {
        let current = if now.is_some() { amount(now, &format!("current.{value}"), if kind == "External" { UNKNOWN } else { "<nil>" }) } else { UNKNOWN.to_owned() };
        format!("{current} / {}", amount(Some(given), &format!("target.{value}"), "<nil>"))
    };
    let name = text(given, "metric.name");
    match kind {
        "External" if has(given, "target.averageValue") => format!("{name:?} (target average value):\t{}", pair("averageValue")),
        "External" => format!("{name:?} (target value):\t{}", pair("value")),
        "Pods" => format!("{name:?} on pods:\t{}", pair("averageValue")),
        "Object" => {
            let (words, value) = if text(given, "target.type") == "AverageValue" { ("target average value", "averageValue") } else { ("target value", "value") };
            format!("\"{name}\" on {}/{} ({words}):\t{}", text(given, "describedObject.kind"), text(given, "describedObject.name"), pair(value))
        }
        _ => {
            let of = if kind == "Resource" { String::new() } else { format!(" of container \"{}\"", text(given, "container")) };
            let head = format!("resource {}{of} on pods", text(given, "name"));
            if has(given, "target.averageValue") {
                return format!("{head}:\t{}", pair("averageValue"));
            }
            let current = now
                .and_then(|now| child(now, "current.averageUtilization").map(|percent| format!("{}% ({})", percent, amount(Some(now), "current.averageValue", "<nil>"))))
                .unwrap_or_else(|| UNKNOWN.to_owned());
            let target = child(given, "target.averageUtilization").map_or_else(|| "<auto>".to_owned(), |percent| format!("{percent}%"));
            format!("{head}  (as a percentage of request):\t{current} / {target}")
        }
    }
}

fn behavior(direction: &str, rules: &Value, w: &mut Writer) {
    line!(w, 1, "{direction}:");
    if has(rules, "stabilizationWindowSeconds") {
        line!(w, 2, "Stabilization Window: {} seconds", integer(rules, "stabilizationWindowSeconds"));
    }
    let policies = list(rules, "policies");
    if !policies.is_empty() {
        line!(w, 2, "Select Policy: {}", or(text(rules, "selectPolicy"), "Max"));
        line!(w, 2, "Policies:");
    }
    for policy in policies {
        line!(w, 3, "- Type: {}\tValue: {}\tPeriod: {} seconds", text(policy, "type"), integer(policy, "value"), integer(policy, "periodSeconds"));
    }
}

pub fn pod_disruption_budget(object: &Value, related: &Related, w: &mut Writer) {
    line!(w, 0, "Name:\t{}", text(object, "metadata.name"));
    line!(w, 0, "Namespace:\t{}", text(object, "metadata.namespace"));
    if has(object, "spec.minAvailable") {
        line!(w, 0, "Min available:\t{}", shown_or(object, "spec.minAvailable", ""));
    } else if has(object, "spec.maxUnavailable") {
        line!(w, 0, "Max unavailable:\t{}", shown_or(object, "spec.maxUnavailable", ""));
    }
    let selector = if has(object, "spec.selector") { format_selector(object, "spec.selector") } else { "<unset>".to_owned() };
    line!(w, 0, "Selector:\t{selector}");
    line!(w, 0, "Status:");
    for (label, field) in [("Allowed disruptions", "disruptionsAllowed"), ("Current", "currentHealthy"), ("Desired", "desiredHealthy"), ("Total", "expectedPods")] {
        line!(w, 2, "{label}:\t{}", integer(object, &format!("status.{field}")));
    }
    events::events(related, w);
}

pub fn priority_class(object: &Value, related: &Related, w: &mut Writer) {
    line!(w, 0, "Name:\t{}", text(object, "metadata.name"));
    line!(w, 0, "Value:\t{}", integer(object, "value"));
    line!(w, 0, "GlobalDefault:\t{}", flag(object, "globalDefault"));
    line!(w, 0, "PreemptionPolicy:\t{}", text(object, "preemptionPolicy"));
    line!(w, 0, "Description:\t{}", text(object, "description"));
    line!(w, 0, "Annotations:\t{}", format_labels(object, "metadata.annotations"));
    events::events(related, w);
}
