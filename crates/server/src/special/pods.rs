//! Pods: binding to a node, ephemeral containers, in-place resize.

use std::sync::Arc;

use ::api::{Cause, Object, Resource, Status};
use serde_json::{Value, json};

use crate::api::{Api, Context};
use crate::registry::{Part, text};

impl Api {
    /// POST pods/binding: the one way a pod gets its node.
    pub async fn bind(&self, row: &Resource, namespace: &str, name: &str, binding: &Value, cx: &Context) -> Result<Arc<Object>, Status> {
        let node = text(binding, "/target/name").to_owned();
        let refuse = |field: &str, reason: &str, message: &str| Status::invalid("", "Binding", name, vec![Cause { reason: reason.into(), message: message.into(), field: field.into() }]);
        if node.is_empty() {
            return Err(refuse("target.name", "FieldValueRequired", "Required value"));
        }
        let kind = text(binding, "/target/kind");
        if !kind.is_empty() && kind != "Node" {
            return Err(refuse("target.kind", "FieldValueNotSupported", &format!("Unsupported value: {kind:?}: supported values: \"Node\", \"<empty>\"")));
        }
        let now = self.now();
        self.change(row, Some(namespace), name, Part::Other("binding"), cx, |old| {
            let uid = text(binding, "/metadata/uid");
            if !uid.is_empty() && uid != text(old, "/metadata/uid") {
                return Err(Status::conflict("", "pods", name, &format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", text(old, "/metadata/uid"))));
            }
            if !text(old, "/metadata/deletionTimestamp").is_empty() {
                return Err(Status::conflict("", "pods/binding", name, &format!("pod {name} is being deleted, cannot be assigned to a host")));
            }
            let bound = text(old, "/spec/nodeName");
            if !bound.is_empty() {
                return Err(Status::conflict("", "pods/binding", name, &format!("pod {name} is already assigned to node {bound:?}")));
            }
            if old.pointer("/spec/schedulingGates").and_then(Value::as_array).is_some_and(|gates| !gates.is_empty()) {
                return Err(Status::conflict("", "pods/binding", name, &format!("pod {name} has non-empty .spec.schedulingGates")));
            }
            let mut new = old.clone();
            new["spec"]["nodeName"] = node.as_str().into();
            for (key, value) in binding.pointer("/metadata/annotations").and_then(Value::as_object).into_iter().flatten() {
                new["metadata"]["annotations"][key.as_str()] = value.clone();
            }
            set_condition(&mut new, json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now}));
            if let Some(meta) = new["metadata"].as_object_mut() {
                meta.remove("resourceVersion");
            }
            Ok(new)
        })
        .await
    }
}

/// Replaces the condition of the same type.
pub fn set_condition(object: &mut Value, condition: Value) {
    if !object.get("status").is_some_and(Value::is_object) {
        object["status"] = json!({});
    }
    let kind = text(&condition, "/type").to_owned();
    let list = &mut object["status"]["conditions"];
    if !list.is_array() {
        *list = json!([]);
    }
    if let Some(list) = list.as_array_mut() {
        match list.iter_mut().find(|known| text(known, "/type") == kind) {
            Some(known) => *known = condition,
            None => list.push(condition),
        }
    }
}

/// `pods/ephemeralcontainers`: containers may only be added.
pub fn settle_ephemeral(new: &mut Value, old: &Value) -> Result<Vec<Cause>, Status> {
    let wanted = new.pointer("/spec/ephemeralContainers").and_then(Value::as_array).cloned().unwrap_or_default();
    let known = old.pointer("/spec/ephemeralContainers").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut causes = Vec::new();
    for container in &known {
        let name = text(container, "/name");
        match wanted.iter().find(|other| text(other, "/name") == name) {
            Some(same) if same == container => {}
            _ => causes.push(Cause { reason: "FieldValueForbidden".into(), message: format!("Forbidden: existing ephemeral containers {name:?} may not be {}", if wanted.iter().any(|other| text(other, "/name") == name) { "changed" } else { "removed" }), field: "spec.ephemeralContainers".into() }),
        }
    }
    let mut kept = old.clone();
    kept["spec"]["ephemeralContainers"] = wanted.into();
    *new = kept;
    for container in new["spec"]["ephemeralContainers"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        container.entry("resources").or_insert_with(|| json!({}));
        container.entry("imagePullPolicy").or_insert_with(|| "IfNotPresent".into());
        container.entry("terminationMessagePath").or_insert_with(|| "/dev/termination-log".into());
        container.entry("terminationMessagePolicy").or_insert_with(|| "File".into());
    }
    Ok(causes)
}

/// `pods/resize`: only the containers' resources change.
pub fn settle_resize(new: &mut Value, old: &Value) -> Result<Vec<Cause>, Status> {
    let mut kept = old.clone();
    let mut changed = false;
    for list in ["containers", "initContainers"] {
        let wanted = new.pointer(&format!("/spec/{list}")).and_then(Value::as_array).cloned().unwrap_or_default();
        for container in kept["spec"][list].as_array_mut().into_iter().flatten() {
            let name = text(container, "/name").to_owned();
            if let Some(same) = wanted.iter().find(|other| text(other, "/name") == name) {
                for field in ["resources", "resizePolicy"] {
                    if let Some(value) = same.get(field)
                        && container.get(field) != Some(value)
                    {
                        container[field] = value.clone();
                        changed = true;
                    }
                }
            }
        }
    }
    if changed && let Some(generation) = kept.pointer("/metadata/generation").and_then(Value::as_i64) {
        kept["metadata"]["generation"] = (generation + 1).into();
    }
    *new = kept;
    Ok(Vec::new())
}
