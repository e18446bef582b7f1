//! RuntimeClass: a pod that names one gets its overhead and its nodes, and needs it to exist.
//!
//! https://kubernetes.io/docs/concepts/containers/runtime-class/

use ::api::Status;
use ::api::usage;
use serde_json::{Value, json};

use super::shown_name;
use crate::api::Api;
use crate::registry::text;

const NO_OVERHEAD: &str = "Pod Overhead set without corresponding RuntimeClass defined Overhead";

pub fn apply(api: &Api, pod: &mut Value) -> Result<(), Status> {
    let class = text(pod, "/spec/runtimeClassName").to_owned();
    let refuse = |pod: &Value, why: &str| Err(Status::forbidden("", "pods", shown_name(pod), &format!("pod rejected: {why}")));
    if class.is_empty() {
        return if usage::amounts(pod, "spec.overhead").is_empty() { Ok(()) } else { refuse(pod, NO_OVERHEAD) };
    }
    let Some(found) = api.store.get(&format!("/registry/runtimeclasses/{class}")) else { return refuse(pod, &format!("RuntimeClass {class:?} not found")) };
    let class = found.value().map_err(Status::internal)?;
    if let Some(overhead) = class.pointer("/overhead/podFixed").filter(|overhead| overhead.is_object()) {
        let given = usage::amounts(pod, "spec.overhead");
        if !given.is_empty() && given != usage::amounts(&class, "overhead.podFixed") {
            return refuse(pod, "Pod's Overhead doesn't match RuntimeClass's defined Overhead");
        }
        pod["spec"]["overhead"] = overhead.clone();
    } else if !usage::amounts(pod, "spec.overhead").is_empty() {
        return refuse(pod, NO_OVERHEAD);
    }
    for (label, value) in class.pointer("/scheduling/nodeSelector").and_then(Value::as_object).into_iter().flatten() {
        if let Some(known) = pod.pointer("/spec/nodeSelector").and_then(|selector| selector.get(label)).filter(|known| *known != value) {
            let shown = |value: &Value| value.as_str().unwrap_or("").to_owned();
            let why = format!("conflict: runtimeClass.scheduling.nodeSelector[{label}] = {}; pod.spec.nodeSelector[{label}] = {}", shown(value), shown(known));
            return Err(Status::forbidden("", "pods", shown_name(pod), &why));
        }
        if !pod["spec"]["nodeSelector"].is_object() {
            pod["spec"]["nodeSelector"] = json!({});
        }
        pod["spec"]["nodeSelector"][label] = value.clone();
    }
    for toleration in class.pointer("/scheduling/tolerations").and_then(Value::as_array).into_iter().flatten() {
        if !pod["spec"]["tolerations"].is_array() {
            pod["spec"]["tolerations"] = json!([]);
        }
        if let Some(list) = pod["spec"]["tolerations"].as_array_mut()
            && !list.contains(toleration)
        {
            list.push(toleration.clone());
        }
    }
    Ok(())
}
