//! LimitRanger: a namespace's default requests and limits for containers, and its bounds.
//!
//! https://kubernetes.io/docs/concepts/policy/limit-range/

use ::api::Status;
use ::api::quantity::Quantity;
use serde_json::{Value, json};

use super::shown_name;
use crate::api::Api;
use crate::registry::text;

pub fn apply(api: &Api, namespace: &str, pod: &mut Value) -> Result<(), Status> {
    let page = api.store.list(&format!("/registry/limitranges/{namespace}/"), None, None, 0).map_err(Status::internal)?;
    for (_, object) in page.items {
        let range = object.value().map_err(Status::internal)?;
        for item in range.pointer("/spec/limits").and_then(Value::as_array).into_iter().flatten().filter(|item| text(item, "/type") == "Container") {
            for list in ["containers", "initContainers"] {
                for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                    fill(container, item);
                }
            }
            check(pod, item)?;
        }
    }
    Ok(())
}

fn fill(container: &mut Value, item: &Value) {
    for (defaults, target) in [("default", "limits"), ("defaultRequest", "requests")] {
        for (resource, amount) in item.get(defaults).and_then(Value::as_object).into_iter().flatten() {
            if container.pointer(&format!("/resources/{target}")).and_then(|list| list.get(resource)).is_some() {
                continue;
            }
            if target == "requests" && container.pointer("/resources/limits").and_then(|list| list.get(resource)).is_some() && item.get("default").and_then(|list| list.get(resource)).is_none() {
                // A limit given without a request is its own request.
                continue;
            }
            if !container["resources"].is_object() {
                container["resources"] = json!({});
            }
            container["resources"][target][resource.as_str()] = amount.clone();
        }
    }
}

fn check(pod: &Value, item: &Value) -> Result<(), Status> {
    let mut complaints = Vec::new();
    let amount = |value: Option<&Value>| value.and_then(Value::as_str).and_then(|text| text.parse::<Quantity>().ok());
    for container in pod.pointer("/spec/containers").and_then(Value::as_array).into_iter().flatten() {
        for (bound, least) in [("min", true), ("max", false)] {
            for (resource, wanted) in item.get(bound).and_then(Value::as_object).into_iter().flatten() {
                let Some(edge) = amount(Some(wanted)) else { continue };
                let field = if least { "requests" } else { "limits" };
                let word = if least { "minimum" } else { "maximum" };
                let given = container.pointer(&format!("/resources/{field}")).and_then(|list| list.get(resource));
                let shown = wanted.as_str().unwrap_or_default();
                match amount(given) {
                    None => complaints.push(format!("{word} {resource} usage per Container is {shown}.  No {} is specified", if least { "request" } else { "limit" })),
                    Some(have) if (least && have < edge) || (!least && have > edge) => {
                        complaints.push(format!("{word} {resource} usage per Container is {shown}, but {} is {}", if least { "request" } else { "limit" }, given.and_then(Value::as_str).unwrap_or_default()));
                    }
                    Some(_) => {}
                }
            }
        }
    }
    match complaints.as_slice() {
        [] => Ok(()),
        [one] => Err(Status::forbidden("", "pods", shown_name(pod), one)),
        many => Err(Status::forbidden("", "pods", shown_name(pod), &format!("[{}]", many.join(", ")))),
    }
}
