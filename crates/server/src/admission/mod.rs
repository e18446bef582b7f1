//! Admission: what every write passes between decoding and validation, in upstream's order.
//!
//! What is built in comes first, then whoever else is to be asked: policies (`policy.rs`) and webhooks (`dispatch.rs`), found in an index that follows the store (`index.rs`).
//!
//! What is built in, in upstream's order: `built_in.rs`; ResourceQuota (`quota`) around the write.
//! https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/

mod asked;
mod built_in;
mod certificates;
mod connect;
mod default_class;
mod dispatch;
mod event_rate_limit;
mod expressions;
mod faults;
mod forms;
mod index;
mod limit_ranger;
mod pod_security;
mod mutating_policy;
mod node_restriction;
mod optional;
mod plugins;
mod pods;
mod policy;
pub mod quota;
mod review;
mod rules;
mod storage;
mod runtime_class;
mod type_checking;
mod validating_policy;
mod webhook;

pub use asked::{Asked, Operation};
pub use connect::connect;
pub use event_rate_limit::{AdmissionConfigError, EventRateLimit};
pub use faults::expressions as expression_faults;
pub use index::{Follower, run};
pub use node_restriction::check as restrict_node;
pub use plugins::{Plugins, PluginsError};

use std::time::Instant;

use ::api::{Resource, Status};
use client::DeleteOptions;
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

/// Configurations of admission are no business of the admission they configure.
const EXEMPT: [&str; 6] = [
    "ValidatingWebhookConfiguration",
    "MutatingWebhookConfiguration",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
];

fn exempt(row: &Resource, cx: &Context) -> bool {
    cx.exempt || (row.group == index::GROUP && EXEMPT.contains(&&*row.kind))
}

/// Whether anyone outside is to be asked about writes of such a row at all.
pub fn asks(api: &Api, row: &Resource, cx: &Context) -> bool {
    !exempt(row, cx) && !api.admission.index(&*api.store).is_idle()
}

/// Asks whoever changes objects. When something was changed, what is built in and who wants to see the outcome get a second round.
async fn mutate(api: &Api, asked: &Asked<'_>, mut object: Option<&mut Value>, old: Option<&Value>, built_in: &(dyn Fn(&mut Value) -> Result<(), Status> + Sync)) -> Result<(), Status> {
    let index = api.admission.index(&*api.store);
    let (mut policies, mut webhooks) = (dispatch::Rounds::default(), dispatch::Rounds::default());
    let (by_policies, by_webhooks) = (api.config.plugins.on("MutatingAdmissionPolicy"), api.config.plugins.on("MutatingAdmissionWebhook"));
    if by_policies {
        mutating_policy::mutate(api, &index.mutating_policies, asked, object.as_deref_mut(), old, &mut policies).await?;
    }
    if by_webhooks {
        dispatch::mutate(api, &index, asked, object.as_deref_mut(), old, &mut webhooks).await?;
    }
    if policies.wanted || webhooks.wanted {
        policies.second();
        webhooks.second();
        if let Some(object) = object.as_deref_mut() {
            built_in(object)?;
        }
        if by_policies {
            mutating_policy::mutate(api, &index.mutating_policies, asked, object.as_deref_mut(), old, &mut policies).await?;
        }
        if by_webhooks {
            dispatch::mutate(api, &index, asked, object, old, &mut webhooks).await?;
        }
    }
    Ok(())
}

async fn validate(api: &Api, asked: &Asked<'_>, object: Option<&Value>, old: Option<&Value>) -> Result<(), Status> {
    let index = api.admission.index(&*api.store);
    if api.config.plugins.on("ValidatingAdmissionPolicy") {
        validating_policy::validate(api, &index.validating_policies, asked, object, old).await?;
    }
    if api.config.plugins.on("ValidatingAdmissionWebhook") { dispatch::validate(api, &index, asked, object, old).await } else { Ok(()) }
}

/// Both phases for an object that is stored nowhere: what a subresource or a review is asked with.
pub async fn admit(api: &Api, asked: &Asked<'_>, object: &mut Value, old: Option<&Value>) -> Result<(), Status> {
    if !asks(api, asked.row, asked.cx) {
        return Ok(());
    }
    Box::pin(mutate(api, asked, Some(object), old, &|_| Ok(()))).await?;
    Box::pin(validate(api, asked, Some(object), old)).await
}

pub async fn mutate_create(api: &Api, row: &Resource, namespace: Option<&str>, value: &mut Value, cx: &Context) -> Result<(), Status> {
    let begun = Instant::now();
    let outcome = async {
        let built_in = |value: &mut Value| built_in::mutate_create(api, row, namespace, value);
        built_in(value)?;
        let name = text(value, "/metadata/name").to_owned();
        let asked = Asked::new(Operation::Create, row, "", namespace, &name, cx);
        restrict_node(api, &asked, Some(value), None)?;
        if !asks(api, row, cx) {
            return Ok(());
        }
        Box::pin(mutate(api, &asked, Some(value), None, &built_in)).await
    };
    let outcome = outcome.await;
    api.measured.step("admit", "CREATE", outcome.is_err(), begun.elapsed());
    outcome
}

/// `part` is the subresource; empty for the object itself.
pub async fn mutate_update(api: &Api, row: &Resource, part: &str, namespace: Option<&str>, new: &mut Value, old: &Value, cx: &Context) -> Result<(), Status> {
    let begun = Instant::now();
    let outcome = async {
        let built_in = |new: &mut Value| {
            built_in::mutate_update(api, row, part, new, old);
            Ok(())
        };
        built_in(new)?;
        let asked = Asked::new(Operation::Update, row, part, namespace, text(old, "/metadata/name"), cx);
        restrict_node(api, &asked, Some(new), Some(old))?;
        if !asks(api, row, cx) {
            return Ok(());
        }
        Box::pin(mutate(api, &asked, Some(new), Some(old), &built_in)).await
    };
    let outcome = outcome.await;
    api.measured.step("admit", "UPDATE", outcome.is_err(), begun.elapsed());
    outcome
}

pub async fn validate_create(api: &Api, row: &Resource, namespace: Option<&str>, value: &Value, cx: &Context) -> Result<(), Status> {
    let begun = Instant::now();
    let outcome = async {
        built_in::validate_create(api, row, namespace, value, cx)?;
        escalation::check(api, row, namespace, value, None, cx)?;
        if !asks(api, row, cx) {
            return Ok(());
        }
        let asked = Asked::new(Operation::Create, row, "", namespace, text(value, "/metadata/name"), cx);
        Box::pin(validate(api, &asked, Some(value), None)).await
    };
    let outcome = outcome.await;
    api.measured.step("validate", "CREATE", outcome.is_err(), begun.elapsed());
    outcome
}

pub async fn validate_update(api: &Api, row: &Resource, part: &str, namespace: Option<&str>, new: &Value, old: &Value, cx: &Context) -> Result<(), Status> {
    let begun = Instant::now();
    let outcome = async {
        built_in::validate_update(api, row, part, namespace, new, old, cx)?;
        escalation::check(api, row, namespace, new, Some(old), cx)?;
        if !asks(api, row, cx) {
            return Ok(());
        }
        let asked = Asked::new(Operation::Update, row, part, namespace, text(old, "/metadata/name"), cx);
        Box::pin(validate(api, &asked, Some(new), Some(old))).await
    };
    let outcome = outcome.await;
    api.measured.step("validate", "UPDATE", outcome.is_err(), begun.elapsed());
    outcome
}

/// Both phases: there is nothing to change, but mutating webhooks are asked too.
pub async fn validate_delete(api: &Api, row: &Resource, namespace: Option<&str>, name: &str, old: &Value, options: &DeleteOptions, cx: &Context) -> Result<(), Status> {
    if !asks(api, row, cx) {
        return Ok(());
    }
    let mut asked = Asked::new(Operation::Delete, row, "", namespace, name, cx);
    asked.options = asked::delete_options(options, cx);
    Box::pin(mutate(api, &asked, None, Some(old), &|_| Ok(()))).await?;
    Box::pin(validate(api, &asked, None, Some(old))).await
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
