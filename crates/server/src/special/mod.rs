//! The kinds to which Kubernetes itself gives a special life: what happens around their writes, and their subresources.
//!
//! Everything here is called from the generic registry at named moments; a kind without special needs passes through untouched.

pub mod addresses;
pub mod allocation;
mod autoscalers;
pub mod components;
pub mod convert;
pub mod eviction;
pub mod families;
pub mod node_ports;
pub mod pods;
pub mod reviews;
pub mod scale;
pub mod service_account_tokens;
pub mod services;

use std::sync::Arc;

use ::api::{Cause, Object, Resource, Status, kinds};
use serde_json::Value;
use store::{BoxFuture, CommitError};

use crate::api::{Api, Context};

type Later = Box<dyn FnOnce() + Send>;

/// Something taken for a write: given back unless the write succeeds, and what the write gives up is given back only once it has.
#[must_use]
pub struct Reserved {
    undo: Option<Later>,
    done: Option<BoxFuture<'static, ()>>,
    under_way: bool,
}

impl Reserved {
    pub fn none() -> Self {
        Self { undo: None, done: None, under_way: false }
    }

    pub fn new(undo: impl FnOnce() + Send + 'static, done: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { undo: Some(Box::new(undo)), done: Some(Box::pin(done)), under_way: false }
    }

    /// From here on the write may happen even if nobody stays to hear of it: what was taken is given back only after [`Self::failed`].
    pub fn commits(&mut self) {
        self.under_way = true;
    }

    /// The write has failed; whether it was perhaps carried out all the same, the error says.
    pub fn failed(&mut self, error: &CommitError) {
        self.under_way = matches!(error, CommitError::Unknown(_));
    }

    /// The write was another one after all.
    pub fn unused(&mut self) {
        self.under_way = false;
    }

    /// The write has succeeded.
    pub async fn keep(&mut self) {
        self.undo = None;
        if let Some(done) = self.done.take() {
            done.await;
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(undo) = self.undo.take().filter(|_| !self.under_way) {
            undo();
        }
    }
}

fn is(row: &Resource, group: &str, plural: &str) -> bool {
    row.group == group && row.plural == plural
}

pub async fn before_create(api: &Api, row: &Resource, value: &mut Value, cx: &Context) -> Result<Reserved, Status> {
    if is(row, "", "services") {
        return services::before_create(api, row, value, cx).await;
    }
    if row.group == "resource.k8s.io" {
        admin_access(api, row, value)?;
    }
    Ok(Reserved::none())
}

pub async fn before_update(api: &Api, row: &Resource, new: &mut Value, old: &Value, cx: &Context) -> Result<Reserved, Status> {
    if is(row, "", "services") {
        return services::before_update(api, row, new, old, cx).await;
    }
    Ok(Reserved::none())
}

/// Devices are given for administration only in namespaces that say so (`AuthorizedForAdmin`).
fn admin_access(api: &Api, row: &Resource, value: &Value) -> Result<(), Status> {
    const LABEL: &str = "resource.kubernetes.io/admin-access";
    let spec = match &*row.plural {
        "resourceclaims" => "/spec",
        "resourceclaimtemplates" => "/spec/spec",
        _ => return Ok(()),
    };
    let requests = value.pointer(&format!("{spec}/devices/requests")).and_then(Value::as_array);
    let Some(index) = requests.and_then(|all| all.iter().position(|request| request.pointer("/exactly/adminAccess").and_then(Value::as_bool) == Some(true))) else { return Ok(()) };
    let namespace = api.store.get(&format!("/registry/namespaces/{}", crate::registry::text(value, "/metadata/namespace")));
    if namespace.is_some_and(|namespace| namespace.meta().labels.get(LABEL).is_some_and(|value| value == "true")) {
        return Ok(());
    }
    let field = format!("{}.devices.requests[{index}].exactly.adminAccess", spec.trim_start_matches('/').replace('/', "."));
    let message = format!("Forbidden: admin access to devices requires the `{LABEL}: true` label on the containing namespace");
    let cause = Cause { reason: "FieldValueForbidden".into(), message, field };
    Err(Status::invalid(&row.group, &row.kind, crate::registry::text(value, "/metadata/name"), vec![cause]))
}

/// Namespaces that cannot be deleted.
const IMMORTAL_NAMESPACES: [&str; 3] = ["default", "kube-system", "kube-public"];

pub fn before_delete(_api: &Api, row: &Resource, old: &Value) -> Result<(), Status> {
    let name = crate::registry::text(old, "/metadata/name");
    if is(row, "", "namespaces") && IMMORTAL_NAMESPACES.contains(&name) {
        return Err(Status::forbidden("", "namespaces", name, "this namespace may not be deleted"));
    }
    Ok(())
}

/// What only the server can judge: the expressions of definitions, and what they say of objects. `found` are the faults known so far.
pub fn judge(row: &Resource, new: &Value, old: Option<&Value>, found: &[Cause]) -> Vec<Cause> {
    if is(row, "apiextensions.k8s.io", "customresourcedefinitions") {
        return crate::custom::rules::definition(new, old);
    }
    if is(row, "events.k8s.io", "events") {
        return kinds::cluster::new_event(new, old);
    }
    match &row.custom {
        Some(custom) => crate::custom::rules::object(custom, new, old, found),
        None => crate::admission::expression_faults(row, new, old),
    }
}

/// What a deletion changes before it is carried out.
pub fn prepare_delete(api: &Api, row: &Resource, new: &mut Value) {
    if is(row, "apiextensions.k8s.io", "customresourcedefinitions") && crate::registry::text(new, "/metadata/deletionTimestamp").is_empty() {
        kinds::custom_resource_definition::prepare_delete(new, &api.now());
    }
}

pub fn after_write(api: &Api, row: &Resource, _object: &Arc<Object>) {
    api.authorizer.note(row);
    api.admission.note(row);
    api.aggregator.note(row);
}

pub async fn after_delete(api: &Api, row: &Resource, object: &Arc<Object>) {
    api.authorizer.note(row);
    api.admission.note(row);
    api.aggregator.note(row);
    if is(row, "", "services") {
        services::after_delete(api, object).await;
    }
    if is(row, "networking.k8s.io", "servicecidrs") && object.meta().name == addresses::DEFAULT_RANGE {
        // There is always one: https://kubernetes.io/docs/concepts/services-networking/service-cidrs/
        if let Err(error) = again(api).await {
            tracing::warn!(%error, "the default ServiceCIDR could not be made again");
        }
    }
}

fn again(api: &Api) -> store::BoxFuture<'_, Result<(), Status>> {
    Box::pin(crate::bootstrap::service_cidr(api))
}

/// Pods are warned about when they are created and never again.
pub fn warns_on_update(row: &Resource) -> bool {
    !is(row, "", "pods")
}

/// See `registry/delete.rs`.
pub fn orphans_by_default(row: &Resource) -> bool {
    is(row, "batch", "jobs") || is(row, "", "replicationcontrollers")
}

/// What is said to those who delete without saying what becomes of dependents.
pub fn delete_warning(row: &Resource) -> Option<&'static str> {
    const JOBS: &str = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning";
    is(row, "batch", "jobs").then_some(JOBS)
}

/// APIs upstream has announced the end of, for whoever asks anything of them: `prerelease-lifecycle-gen`'s words.
pub fn deprecation(row: &Resource) -> Option<&str> {
    if let Some(custom) = &row.custom {
        return custom.deprecation.as_deref();
    }
    match (&*row.group, &*row.plural) {
        ("", "endpoints") => Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
        ("", "componentstatuses") => Some("v1 ComponentStatus is deprecated in v1.19+"),
        _ => None,
    }
}

/// The rules of subresources that replace one part of an object by PUT or PATCH.
pub fn settle_subresource(api: &Api, row: &Resource, subresource: &str, new: &mut Value, old: &Value, cx: &Context) -> Result<Vec<Cause>, Status> {
    match (&*row.group, &*row.plural, subresource) {
        ("", "namespaces", "finalize") => {
            let finalizers = new.pointer("/spec/finalizers").cloned();
            let meta = new.get("metadata").cloned();
            *new = old.clone();
            if let (Some(meta), Some(slot)) = (meta, new.get_mut("metadata")) {
                *slot = meta;
            }
            if let Some(spec) = new.get_mut("spec").and_then(Value::as_object_mut) {
                match finalizers {
                    Some(list) => spec.insert("finalizers".into(), list),
                    None => spec.remove("finalizers"),
                };
            }
            Ok(kinds::cluster::validate_finalize(new))
        }
        // `bind` and `scale` made the whole object themselves.
        (_, _, "binding") => Ok(Vec::new()),
        ("", "pods", "ephemeralcontainers") => {
            kinds::pod::prepare_ephemeral_containers(new, old);
            Ok(kinds::pod::validate_ephemeral_containers(new, old))
        }
        ("", "pods", "resize") => {
            kinds::pod_resize::prepare(new, old);
            Ok(kinds::pod_resize::validate(new, old))
        }
        ("certificates.k8s.io", "certificatesigningrequests", "approval") => {
            kinds::certificates::prepare_approval(new, old, &api.strategy_context(row, cx));
            Ok(kinds::certificates::validate_approval(new, old))
        }
        _ => Err(Status::no_route()),
    }
}
