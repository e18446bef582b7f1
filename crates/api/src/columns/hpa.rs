//! HorizontalPodAutoscalers, of `autoscaling/v2` and `v1`.

use jiff::Timestamp;
use serde_json::Value;

use super::format::{NONE, UNKNOWN, UNSET, count, name, quantity};
use super::{Printer, age};
use crate::kinds::json::{child, list, number, text};

const AUTOSCALERS: Printer = Printer { columns: "Name|Reference|Targets|MinPods|MaxPods|Replicas|Age", cells };

pub fn printer(group: &str, plural: &str) -> Option<&'static Printer> {
    ((group, plural) == ("autoscaling", "horizontalpodautoscalers")).then_some(&AUTOSCALERS)
}

fn cells(hpa: &Value, now: Timestamp) -> Vec<Value> {
    let reference = format!("{}/{}", text(hpa, "spec.scaleTargetRef.kind"), text(hpa, "spec.scaleTargetRef.name"));
    let minimum = number(hpa, "spec.minReplicas").map_or(UNSET.to_owned(), |minimum| minimum.to_string());
    vec![name(hpa), reference.into(), targets(hpa).into(), minimum.into(), count(hpa, "spec.maxReplicas"), count(hpa, "status.currentReplicas"), age(hpa, now).into()]
}

fn percent(value: Option<i64>, otherwise: &str) -> String {
    value.map_or(otherwise.to_owned(), |value| format!("{value}%"))
}

fn targets(hpa: &Value) -> String {
    const MAX: usize = 2;
    if let Some(target) = number(hpa, "spec.targetCPUUtilizationPercentage") {
        return format!("cpu: {}/{target}%", percent(number(hpa, "status.currentCPUUtilizationPercentage"), UNKNOWN));
    }
    let (specs, statuses) = (list(hpa, "spec.metrics"), list(hpa, "status.currentMetrics"));
    if specs.is_empty() {
        return NONE.to_owned();
    }
    let all: Vec<String> = specs.iter().enumerate().map(|(index, spec)| target(spec, statuses.get(index))).collect();
    let shown = all.iter().take(MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    if all.len() > MAX { format!("{shown} + {} more...", all.len() - MAX) } else { shown }
}

fn target(spec: &Value, status: Option<&Value>) -> String {
    let (field, per_resource) = match text(spec, "type") {
        "External" => ("external", false),
        "Pods" => ("pods", false),
        "Object" => ("object", false),
        "Resource" => ("resource", true),
        "ContainerResource" => ("containerResource", true),
        _ => return "<unknown type>".to_owned(),
    };
    let none = Value::Null;
    let source = child(spec, field).unwrap_or(&none);
    let current = status.and_then(|status| child(status, field)).and_then(|status| child(status, "current"));
    let current_quantity = |name: &str| current.map_or(UNKNOWN.to_owned(), |current| quantity(child(current, name)));
    let average = child(source, "target.averageValue");
    let resource = text(source, "name");
    match (per_resource, average) {
        (true, Some(average)) => format!("{resource}: {}/{}", current_quantity("averageValue"), quantity(Some(average))),
        (true, None) => {
            let have = percent(current.and_then(|current| number(current, "averageUtilization")), UNKNOWN);
            format!("{resource}: {have}/{}", percent(number(source, "target.averageUtilization"), "<auto>"))
        }
        (false, _) if field == "pods" => format!("{}/{}", current_quantity("averageValue"), quantity(average)),
        (false, Some(average)) => {
            let have = current.and_then(|current| child(current, "averageValue")).map_or(UNKNOWN.to_owned(), |value| quantity(Some(value)));
            format!("{have}/{} (avg)", quantity(Some(average)))
        }
        (false, None) => format!("{}/{}", current_quantity("value"), quantity(child(source, "target.value"))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::line;
    use serde_json::json;

    #[test]
    fn autoscalers() {
        let hpa = json!({"spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "minReplicas": 1, "maxReplicas": 10, "metrics": [
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}},
            {"type": "Pods", "pods": {"target": {"averageValue": "1k"}}}, {"type": "Odd"}]},
            "status": {"currentReplicas": 2, "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 42}}}]}});
        assert_eq!(line("autoscaling", "v2", "horizontalpodautoscalers", hpa), "x|Deployment/web|cpu: 42%/80%, <unknown>/1k + 1 more...|1|10|2|5m");
        assert_eq!(line("autoscaling", "v1", "horizontalpodautoscalers", json!({"spec": {"targetCPUUtilizationPercentage": 50}})), "x|/|cpu: <unknown>/50%|<unset>|0|0|5m");
    }
}
