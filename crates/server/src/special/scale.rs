//! The `scale` subresource (autoscaling/v1 Scale) of Deployments, ReplicaSets, StatefulSets, ReplicationControllers and custom kinds that name their fields for it.

use std::sync::Arc;

use ::api::columns::age;
use ::api::selector::LabelSelector;
use ::api::custom::Scale;
use ::api::{Cause, Meta, Object, Resource, Status};
use ::patch::apply::{ApplyError, Writer};
use bytes::Bytes;
use client::PatchKind;
use serde_json::{Value, json};

use crate::admission::{self, Asked, Operation};
use crate::api::{Api, Context};
use crate::decode;
use crate::registry::{Forms, KindVersions, Part, facts, same_object, text, unfit, written};

const API_VERSION: &str = "autoscaling/v1";
const SCHEMA: &str = "io.k8s.api.autoscaling.v1.Scale";

/// Stands for a number that is not there: an update may set it.
const UNSET: i64 = i32::MIN as i64;

/// The Scale of an object.
pub fn view(row: &Resource, object: &Object) -> Result<Arc<Object>, Status> {
    viewed(row, object, |path| Err(Status::internal(format!("the spec replicas field {path:?} does not exist"))))
}

/// The Scale that an update begins with.
fn present(row: &Resource, object: &Object) -> Result<Value, Status> {
    viewed(row, object, |_| Ok(UNSET))?.value().map_err(Status::internal)
}

fn viewed(row: &Resource, object: &Object, missing: impl Fn(&str) -> Result<i64, Status>) -> Result<Arc<Object>, Status> {
    let value = object.value().map_err(Status::internal)?;
    let meta = object.meta();
    if let Some(scale) = row.custom.as_ref().and_then(|custom| custom.facts().scale.as_ref()) {
        let number = |path: &str| Scale::number(&value, path).map_err(Status::internal);
        let selector = scale.selector(&value).map_err(Status::internal)?;
        let wanted = number(&scale.spec_replicas)?.map_or_else(|| missing(&scale.spec_replicas), Ok)?;
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
        "apiVersion": API_VERSION,
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

/// A Scale as it was sent: of its type.
pub fn decoded(value: Value, duplicates: &[String], cx: &Context) -> Result<Value, Status> {
    decode::typed(SCHEMA, API_VERSION, "Scale", value, duplicates, cx)
}

/// What a patch made of a Scale.
pub fn patched(kind: PatchKind, patch: &Value, wanted: Value, cx: &Context) -> Result<Value, Status> {
    let made = wanted.clone();
    decoded(wanted, &[], cx).map_err(|refused| unfit::patched("Scale", SCHEMA, kind, patch, &made, refused))
}

/// What a manager applies to an object when it applies `wanted` to its Scale.
fn applied_to_parent(row: &Resource, config: &Value, wanted: &Value) -> Value {
    let mut parent = json!({"apiVersion": row.api_version(), "kind": row.kind, "metadata": {"name": wanted["metadata"]["name"]}});
    let sent = config.pointer("/spec/replicas").is_some_and(|replicas| !replicas.is_null());
    if let Some(replicas) = wanted.pointer("/spec/replicas").and_then(Value::as_i64).filter(|_| sent) {
        set_replicas(row, &mut parent, replicas);
    }
    parent
}

/// Who owns the number in the object owns it in the Scale, which is what is spoken of.
fn conflict_of_scale(error: ApplyError) -> Status {
    let ApplyError::Conflicts(mut conflicts) = error else { return error.status() };
    for conflict in &mut conflicts {
        if let Some((manager, _)) = conflict.manager.split_once(" using ") {
            conflict.manager = format!("{manager} using {API_VERSION}");
        }
        conflict.path = ".spec.replicas".to_owned();
    }
    ApplyError::Conflicts(conflicts).status()
}

impl Api {
    /// Server-side apply of a Scale: it owns the number in the object.
    pub async fn apply_scale(&self, row: &Resource, namespace: Option<&str>, name: &str, config: &Value, cx: &Context) -> Result<Arc<Object>, Status> {
        if cx.field_manager.is_empty() {
            let cause = Cause { reason: "FieldValueRequired".into(), message: "Required value: is required for apply patch".into(), field: "fieldManager".into() };
            return Err(Status::invalid("meta.k8s.io", "PatchOptions", "", vec![cause]));
        }
        if text(config, "/apiVersion") != API_VERSION || text(config, "/kind") != "Scale" {
            return Err(Status::bad_request(format!("invalid object type: {}", ::patch::apply::go_kind(config))));
        }
        if config.pointer("/metadata/managedFields").is_some_and(|fields| !fields.is_null()) {
            return Err(ApplyError::ManagedFields.status());
        }
        if let Some(info) = ::api::schema::of(SCHEMA) {
            ::patch::apply::fits(info, config).map_err(|error| error.status())?;
        }
        decoded(config.clone(), &[], cx).map_err(|refused| unfit::applied(config, "Scale", refused))?;
        let mut named = config.clone();
        if text(config, "/metadata/name").is_empty() {
            named["metadata"]["name"] = name.into();
        }
        self.check_name(row, namespace, name, &named)?;
        self.rescale(row, namespace, name, cx, Some(config), |present| {
            let mut wanted = present.clone();
            for field in ["/spec/replicas", "/metadata/resourceVersion", "/metadata/uid"] {
                if let Some(value) = config.pointer(field)
                    && let Some(at) = wanted.pointer_mut(field)
                {
                    *at = value.clone();
                }
            }
            decoded(wanted, &[], cx)
        })
        .await
    }

    /// PUT or PATCH: `change` makes the wanted Scale, of its type, of the present one. `applied` is what a manager applies.
    pub async fn rescale(&self, row: &Resource, namespace: Option<&str>, name: &str, cx: &Context, applied: Option<&Value>, change: impl Fn(&Value) -> Result<Value, Status> + Sync) -> Result<Arc<Object>, Status> {
        let admitted = if admission::asks(self, row, cx) { Some(self.admit_scale(row, namespace, name, cx, &change).await?) } else { None };
        let inner = Context { exempt: true, applied: applied.is_some(), ..Context::like(cx) };
        let (now, api_version, forms) = (self.now(), row.api_version(), Forms::default());
        let versions = KindVersions(row, &forms);
        let (subresource, reset) = written(row, Part::Scale);
        let writer = Writer { manager: &cx.field_manager, api_version: &api_version, subresource, now: &now, reset, versions: versions.any() };
        let object = self
            .change_asking(row, namespace, name, Part::Scale, &inner, &forms, |old| {
                let mut bytes = Vec::new();
                crate::encode::write(&mut bytes, old);
                let present = present(row, &Object::decode(bytes.into()).map_err(Status::internal)?)?;
                let wanted = match &admitted {
                    Some(admitted) => admitted.clone(),
                    None => change(&present)?,
                };
                same_object(row, name, &wanted, old)?;
                let replicas = wanted.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
                if replicas == UNSET
                    && let Some(scale) = row.custom.as_ref().and_then(|custom| custom.facts().scale.as_ref())
                {
                    return Err(Status::bad_request(format!("the spec replicas field {:?} cannot be empty", scale.spec_replicas)));
                }
                if replicas < 0 {
                    let cause = Cause { reason: "FieldValueInvalid".into(), message: format!("Invalid value: {replicas}: must be greater than or equal to 0"), field: "spec.replicas".into() };
                    return Err(Status::invalid("autoscaling", "Scale", name, vec![cause]));
                }
                let mut new = match applied {
                    Some(config) => ::patch::apply::apply(Some(old), &applied_to_parent(row, config, &wanted), facts(row), &writer, cx.force).map_err(conflict_of_scale)?,
                    None => {
                        let mut new = old.clone();
                        set_replicas(row, &mut new, replicas);
                        new
                    }
                };
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
        let present = present(row, &object)?;
        let mut wanted = change(&present)?;
        admission::admit(self, &Asked::new(Operation::Update, row, "scale", namespace, name, cx), &mut wanted, Some(&present)).await?;
        Ok(wanted)
    }
}
