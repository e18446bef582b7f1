//! Pods: binding to a node.

use std::sync::Arc;

use ::api::{Object, Reason, Resource, Status};
use serde_json::{Value, json};

use crate::api::{Api, Context};
use crate::registry::{Part, same_object, text};

impl Api {
    /// POST pods/binding: the one way a pod gets its node.
    pub async fn bind(&self, row: &Resource, namespace: &str, name: &str, binding: &Value, cx: &Context) -> Result<Arc<Object>, Status> {
        let node = text(binding, "/target/name").to_owned();
        let kind = text(binding, "/target/kind");
        let mut wrong = Vec::new();
        if !kind.is_empty() && kind != "Node" {
            wrong.push(format!("target.kind: Unsupported value: {kind:?}: supported values: \"Node\", \"<empty>\""));
        }
        if node.is_empty() {
            wrong.push("target.name: Required value".to_owned());
        }
        // Upstream does not make a Status of these.
        match wrong.as_slice() {
            [] => {}
            [one] => return Err(Status::failure(500, Reason::Unknown, one)),
            many => return Err(Status::failure(500, Reason::Unknown, format!("[{}]", many.join(", ")))),
        }
        let now = self.now();
        self.change(row, Some(namespace), name, Part::Other("binding"), cx, |old| {
            same_object(row, name, binding, old)?;
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
