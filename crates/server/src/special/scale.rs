//! The `scale` subresource (autoscaling/v1 Scale) of Deployments, ReplicaSets, StatefulSets and ReplicationControllers.

use std::sync::Arc;

use ::api::columns::age;
use ::api::selector::LabelSelector;
use ::api::{Cause, Object, Resource, Status};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::api::{Api, Context};
use crate::registry::{Part, text};

/// The Scale of an object.
pub fn view(object: &Object) -> Result<Arc<Object>, Status> {
    let value = object.value().map_err(Status::internal)?;
    let meta = object.meta();
    let selector = match value.pointer("/spec/selector") {
        // ReplicationControllers select by a plain map.
        Some(Value::Object(map)) if !map.contains_key("matchLabels") && !map.contains_key("matchExpressions") => map.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or(""))).collect::<Vec<_>>().join(","),
        Some(selector) => LabelSelector::from_json(selector).map(|selector| selector.to_string()).unwrap_or_default(),
        None => String::new(),
    };
    let scale = json!({
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": {
            "name": meta.name,
            "namespace": meta.namespace,
            "uid": meta.uid,
            "resourceVersion": object.resource_version().to_string(),
            "creationTimestamp": meta.creation_timestamp,
        },
        "spec": {"replicas": value.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0)},
        "status": {"replicas": value.pointer("/status/replicas").and_then(Value::as_i64).unwrap_or(0), "selector": selector},
    });
    let mut out = Vec::new();
    crate::encode::write(&mut out, &scale);
    Ok(Arc::new(Object::new(Bytes::from(out), object.resource_version())))
}

/// The Scale as `kubectl get --subresource=scale` prints it.
pub fn table(scale: &Value, now: jiff::Timestamp) -> Value {
    let column = |name: &str, kind: &str, format: &str, description: &str| json!({"name": name, "type": kind, "format": format, "description": description, "priority": 0});
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": text(scale, "/metadata/resourceVersion")},
        "columnDefinitions": [
            column("Name", "string", "name", "Name of the object, unique within its namespace."),
            column("Desired", "integer", "", "The desired number of instances."),
            column("Available", "integer", "", "The number of instances observed."),
            column("Age", "string", "", "When the object was created."),
        ],
        "rows": [{
            "cells": [scale["metadata"]["name"], scale["spec"]["replicas"], scale["status"]["replicas"], age(scale, now)],
            "object": {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": scale["metadata"]},
        }],
    })
}

impl Api {
    /// PUT or PATCH: `change` makes the wanted Scale of the present one.
    pub async fn rescale(&self, row: &Resource, namespace: Option<&str>, name: &str, cx: &Context, change: impl Fn(&Value) -> Result<Value, Status>) -> Result<Arc<Object>, Status> {
        let object = self
            .change(row, namespace, name, Part::Main, cx, |old| {
                let mut bytes = Vec::new();
                crate::encode::write(&mut bytes, old);
                let present = view(&Object::decode(bytes.into()).map_err(Status::internal)?)?.value().map_err(Status::internal)?;
                let wanted = change(&present)?;
                let replicas = wanted.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
                if replicas < 0 {
                    let cause = Cause { reason: "FieldValueInvalid".into(), message: format!("Invalid value: {replicas}: must be greater than or equal to 0"), field: "spec.replicas".into() };
                    return Err(Status::invalid("autoscaling", "Scale", name, vec![cause]));
                }
                let mut new = old.clone();
                new["spec"]["replicas"] = replicas.into();
                if let Some(meta) = new["metadata"].as_object_mut() {
                    let pinned = text(&wanted, "/metadata/resourceVersion");
                    // A patch of the Scale carries the version it was shown; only a PUT that names one pins it.
                    if pinned.is_empty() || pinned == text(&present, "/metadata/resourceVersion") {
                        meta.remove("resourceVersion");
                    } else {
                        meta.insert("resourceVersion".into(), pinned.into());
                    }
                }
                Ok(new)
            })
            .await?;
        view(&object)
    }
}
