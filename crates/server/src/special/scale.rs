//! The `scale` subresource (autoscaling/v1 Scale) of Deployments, ReplicaSets, StatefulSets, ReplicationControllers and custom kinds that name their fields for it.

use std::sync::Arc;

use ::api::columns::age;
use ::api::selector::LabelSelector;
use ::api::custom::Scale;
use ::api::{Cause, Meta, Object, Resource, Status};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::admission::{self, Asked, Operation};
use crate::api::{Api, Context};
use crate::registry::{Part, text};

/// The Scale of an object.
pub fn view(row: &Resource, object: &Object) -> Result<Arc<Object>, Status> {
    let value = object.value().map_err(Status::internal)?;
    let meta = object.meta();
    if let Some(scale) = row.custom.as_ref().and_then(|custom| custom.facts().scale.as_ref()) {
        let number = |path: &str| Scale::number(&value, path).map_err(Status::internal);
        let selector = scale.selector(&value).map_err(Status::internal)?;
        let wanted = number(&scale.spec_replicas)?.ok_or_else(|| Status::internal(format!("the spec replicas field {:?} does not exist", scale.spec_replicas)))?;
        return Ok(encoded(meta, object.resource_version(), wanted, number(&scale.status_replicas)?.unwrap_or(0), &selector.unwrap_or_default()));
    }
    let selector = match value.pointer("/spec/selector") {
        // ReplicationControllers select by a plain map.
        Some(Value::Object(map)) if !map.contains_key("matchLabels") && !map.contains_key("matchExpressions") => map.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or(""))).collect::<Vec<_>>().join(","),
        Some(selector) => LabelSelector::from_json(selector).map(|selector| selector.to_string()).unwrap_or_default(),
        None => String::new(),
    };
    let number = |pointer: &str| value.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    Ok(encoded(meta, object.resource_version(), number("/spec/replicas"), number("/status/replicas"), &selector))
}

fn encoded(meta: &Meta, revision: u64, wanted: i64, present: i64, selector: &str) -> Arc<Object> {
    let mut scale = json!({
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": {
            "name": meta.name,
            "uid": meta.uid,
            "resourceVersion": revision.to_string(),
            "creationTimestamp": meta.creation_timestamp,
        },
        "spec": {"replicas": wanted},
        "status": {"replicas": present, "selector": selector},
    });
    if let Some(namespace) = &meta.namespace {
        scale["metadata"]["namespace"] = namespace.as_str().into();
    }
    let mut out = Vec::new();
    crate::encode::write(&mut out, &scale);
    Arc::new(Object::new(Bytes::from(out), revision))
}

/// Writes the wanted number where the kind keeps it.
fn set_replicas(row: &Resource, object: &mut Value, replicas: i64) {
    let path = row.custom.as_ref().and_then(|custom| custom.facts().scale.as_ref()).map_or(".spec.replicas", |scale| scale.spec_replicas.as_str());
    let mut at = object;
    let names: Vec<&str> = path.trim_start_matches('.').split('.').collect();
    for name in names {
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[name];
    }
    *at = replicas.into();
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
    pub async fn rescale(&self, row: &Resource, namespace: Option<&str>, name: &str, cx: &Context, change: impl Fn(&Value) -> Result<Value, Status> + Sync) -> Result<Arc<Object>, Status> {
        let admitted = if admission::asks(self, row, cx) { Some(self.admit_scale(row, namespace, name, cx, &change).await?) } else { None };
        let inner = Context { exempt: true, ..Context::like(cx) };
        let object = self
            .change(row, namespace, name, Part::Main, &inner, |old| {
                let mut bytes = Vec::new();
                crate::encode::write(&mut bytes, old);
                let present = view(row, &Object::decode(bytes.into()).map_err(Status::internal)?)?.value().map_err(Status::internal)?;
                let wanted = match &admitted {
                    Some(admitted) => admitted.clone(),
                    None => change(&present)?,
                };
                let replicas = wanted.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
                if replicas < 0 {
                    let cause = Cause { reason: "FieldValueInvalid".into(), message: format!("Invalid value: {replicas}: must be greater than or equal to 0"), field: "spec.replicas".into() };
                    return Err(Status::invalid("autoscaling", "Scale", name, vec![cause]));
                }
                let mut new = old.clone();
                set_replicas(row, &mut new, replicas);
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
        inner.take_warnings().into_iter().for_each(|warning| cx.warn(warning));
        view(row, &object)
    }

    /// The wanted Scale, as admission lets it pass.
    async fn admit_scale(&self, row: &Resource, namespace: Option<&str>, name: &str, cx: &Context, change: &(impl Fn(&Value) -> Result<Value, Status> + Sync)) -> Result<Value, Status> {
        let object = self.get(row, namespace, name).await?;
        let present = view(row, &object)?.value().map_err(Status::internal)?;
        let mut wanted = change(&present)?;
        admission::admit(self, &Asked::new(Operation::Update, row, "scale", namespace, name, cx), &mut wanted, Some(&present)).await?;
        Ok(wanted)
    }
}
