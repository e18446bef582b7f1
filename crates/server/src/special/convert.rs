//! Kinds that are served in more than one form: to the stored one and back.
//!
//! Most kinds are stored as they are served and pass through at no cost. HorizontalPodAutoscalers are stored as autoscaling/v2,
//! events.k8s.io Events as core/v1 Events.

use std::sync::Arc;

use ::api::{Object, Resource, Status};
use bytes::Bytes;
use serde_json::{Map, Value};

fn is_event(row: &Resource) -> bool {
    row.group == "events.k8s.io" && row.plural == "events"
}

fn is_old_autoscaler(row: &Resource) -> bool {
    row.group == "autoscaling" && row.version == "v1" && row.plural == "horizontalpodautoscalers"
}

/// Whether the row's objects are stored in another form than they are served in.
pub fn converts(row: &Resource) -> bool {
    is_event(row) || is_old_autoscaler(row)
}

pub fn to_storage(row: &Resource, value: &mut Value) -> Result<(), Status> {
    let Some(map) = value.as_object_mut() else { return Ok(()) };
    if is_event(row) {
        map.insert("apiVersion".into(), "v1".into());
        for (new, old) in EVENT_FIELDS {
            rename(map, new, old);
        }
        if let Some(controller) = map.remove("reportingController") {
            map.insert("reportingComponent".into(), controller);
        }
    } else if is_old_autoscaler(row) {
        map.insert("apiVersion".into(), "autoscaling/v2".into());
        autoscaler_to_v2(map);
    }
    Ok(())
}

pub fn from_storage(row: &Resource, object: Arc<Object>) -> Result<Arc<Object>, Status> {
    if !is_event(row) && !is_old_autoscaler(row) {
        return Ok(object);
    }
    let mut value = object.value().map_err(Status::internal)?;
    if let Some(map) = value.as_object_mut() {
        map.insert("apiVersion".into(), row.api_version().into());
        if is_event(row) {
            for (new, old) in EVENT_FIELDS {
                rename(map, old, new);
            }
            if let Some(component) = map.remove("reportingComponent") {
                map.insert("reportingController".into(), component);
            }
        } else {
            autoscaler_to_v1(map);
        }
    }
    let mut out = Vec::new();
    crate::encode::write(&mut out, &value);
    Ok(Arc::new(Object::new(Bytes::from(out), object.resource_version())))
}

/// events.k8s.io name, core name.
const EVENT_FIELDS: [(&str, &str); 6] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

fn rename(map: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = map.remove(from) {
        map.insert(to.into(), value);
    }
}

fn autoscaler_to_v2(map: &mut Map<String, Value>) {
    if let Some(spec) = map.get_mut("spec").and_then(Value::as_object_mut)
        && let Some(percent) = spec.remove("targetCPUUtilizationPercentage")
    {
        spec.insert("metrics".into(), serde_json::json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}}]));
    }
    if let Some(status) = map.get_mut("status").and_then(Value::as_object_mut)
        && let Some(percent) = status.remove("currentCPUUtilizationPercentage")
    {
        status.insert("currentMetrics".into(), serde_json::json!([{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": percent}}}]));
    }
}

fn autoscaler_to_v1(map: &mut Map<String, Value>) {
    let cpu = |list: Option<Value>, side: &str| -> Option<Value> {
        list?.as_array()?.iter().find(|metric| metric.pointer("/resource/name").and_then(Value::as_str) == Some("cpu"))?.pointer(&format!("/resource/{side}/averageUtilization")).cloned()
    };
    if let Some(spec) = map.get_mut("spec").and_then(Value::as_object_mut) {
        spec.remove("behavior");
        if let Some(percent) = cpu(spec.remove("metrics"), "target") {
            spec.insert("targetCPUUtilizationPercentage".into(), percent);
        }
    }
    if let Some(status) = map.get_mut("status").and_then(Value::as_object_mut) {
        status.remove("conditions");
        if let Some(percent) = cpu(status.remove("currentMetrics"), "current") {
            status.insert("currentCPUUtilizationPercentage".into(), percent);
        }
    }
}
