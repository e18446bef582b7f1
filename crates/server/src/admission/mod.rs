//! Admission: what every write passes between decoding and validation, in upstream's order.
//!
//! Built in so far: NamespaceLifecycle, ServiceAccount, Priority, DefaultTolerationSeconds, TaintNodesByCondition, LimitRanger, RuntimeClass, ResourceQuota (`quota`, around the write).
//! https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/

mod limit_ranger;
mod pods;
pub mod quota;
mod runtime_class;

use ::api::{Resource, Status};
use serde_json::Value;

use crate::api::{Api, Context};
use crate::escalation;
use crate::registry::text;

fn is_pods(row: &Resource) -> bool {
    row.group.is_empty() && row.plural == "pods"
}

/// How a refusal names an object: a name that is yet to be generated is told by its base (upstream's admission.NewForbidden).
fn shown_name(value: &Value) -> &str {
    match text(value, "/metadata/name") {
        "" => text(value, "/metadata/generateName"),
        name => name,
    }
}

pub fn mutate_create(api: &Api, row: &Resource, namespace: Option<&str>, value: &mut Value, _cx: &Context) -> Result<(), Status> {
    if let Some(namespace) = namespace.filter(|_| row.namespaced()) {
        namespace_lifecycle(api, row, namespace, value)?;
    }
    if is_pods(row) {
        let namespace = namespace.unwrap_or("default");
        limit_ranger::apply(api, namespace, value)?;
        pods::service_account(api, namespace, value)?;
        pods::priority(api, value)?;
        pods::default_tolerations(value);
        runtime_class::apply(api, value)?;
    }
    if row.group.is_empty() && row.plural == "nodes" {
        taint_new_node(value);
    }
    Ok(())
}

pub fn mutate_update(_api: &Api, row: &Resource, _namespace: Option<&str>, new: &mut Value, _old: &Value, _cx: &Context) -> Result<(), Status> {
    if is_pods(row) {
        pods::default_tolerations(new);
    }
    Ok(())
}

pub fn validate_create(api: &Api, row: &Resource, namespace: Option<&str>, value: &Value, cx: &Context) -> Result<(), Status> {
    escalation::check(api, row, namespace, value, None, cx)
}

pub fn validate_update(api: &Api, row: &Resource, namespace: Option<&str>, new: &Value, old: &Value, cx: &Context) -> Result<(), Status> {
    escalation::check(api, row, namespace, new, Some(old), cx)
}

pub fn validate_delete(_api: &Api, _row: &Resource, _namespace: Option<&str>, _name: &str, _old: &Value, _cx: &Context) -> Result<(), Status> {
    Ok(())
}

/// Nothing is created in a namespace that does not exist or is on its way out.
fn namespace_lifecycle(api: &Api, row: &Resource, namespace: &str, value: &Value) -> Result<(), Status> {
    let Some(found) = api.store.get(&format!("/registry/namespaces/{namespace}")) else {
        return Err(Status::not_found("", "namespaces", namespace));
    };
    if found.meta().deletion_timestamp.is_some() {
        let name = shown_name(value);
        let mut status = Status::forbidden(&row.group, &row.plural, name, &format!("unable to create new content in namespace {namespace} because it is being terminated"));
        status.details.causes.push(::api::Cause { reason: "NamespaceTerminating".into(), message: format!("namespace {namespace} is being terminated"), field: "metadata.namespace".into() });
        return Err(status);
    }
    Ok(())
}

/// A node is not used before its conditions have been seen (TaintNodesByCondition).
fn taint_new_node(node: &mut Value) {
    const KEY: &str = "node.kubernetes.io/not-ready";
    if !node.get("spec").is_some_and(Value::is_object) {
        node["spec"] = serde_json::json!({});
    }
    let taints = &mut node["spec"]["taints"];
    if !taints.is_array() {
        *taints = serde_json::json!([]);
    }
    if let Some(list) = taints.as_array_mut()
        && !list.iter().any(|taint| text(taint, "/key") == KEY && text(taint, "/effect") == "NoSchedule")
    {
        list.push(serde_json::json!({"key": KEY, "effect": "NoSchedule"}));
    }
}
