//! The kinds to which Kubernetes itself gives a special life: what happens around their writes, and their subresources.
//!
//! Everything here is called from the generic registry at named moments; a kind without special needs passes through untouched.

pub mod allocation;
pub mod convert;
pub mod eviction;
pub mod pods;
pub mod reviews;
pub mod scale;
pub mod services;

use std::sync::Arc;

use ::api::{Cause, Object, Resource, Status};
use serde_json::Value;

use crate::api::{Api, Context};

/// Something taken for a write that is given back unless the write succeeded.
#[must_use]
pub struct Reserved(Option<Box<dyn FnOnce() + Send>>);

impl Reserved {
    pub fn none() -> Self {
        Self(None)
    }

    pub fn until_kept(release: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(release)))
    }

    pub fn keep(&mut self) {
        self.0 = None;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(release) = self.0.take() {
            release();
        }
    }
}

fn is(row: &Resource, group: &str, plural: &str) -> bool {
    row.group == group && row.plural == plural
}

pub fn before_create(api: &Api, row: &Resource, value: &mut Value, cx: &Context) -> Result<Reserved, Status> {
    if is(row, "", "services") {
        return services::before_create(api, row, value, cx);
    }
    Ok(Reserved::none())
}

pub fn before_update(api: &Api, row: &Resource, new: &mut Value, old: &Value) -> Result<Reserved, Status> {
    if is(row, "", "services") {
        return services::before_update(api, row, new, old);
    }
    Ok(Reserved::none())
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

pub fn after_write(api: &Api, row: &Resource, _object: &Arc<Object>) {
    api.authorizer.note(row);
}

pub fn after_delete(api: &Api, row: &Resource, object: &Arc<Object>) {
    api.authorizer.note(row);
    if is(row, "", "services") {
        services::after_delete(api, object);
    }
}

/// PUT of an object that does not exist creates it, for the few kinds upstream allows it for (`AllowCreateOnUpdate`).
pub fn creates_on_update(row: &Resource) -> bool {
    matches!(
        (&*row.group, &*row.plural),
        ("", "endpoints" | "events" | "limitranges") | ("coordination.k8s.io", "leases") | ("rbac.authorization.k8s.io", _) | ("events.k8s.io", "events") | ("node.k8s.io", "runtimeclasses")
    )
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
            Ok(Vec::new())
        }
        // `bind` and `scale` made the whole object themselves.
        (_, _, "binding") => Ok(Vec::new()),
        ("", "pods", "ephemeralcontainers") => pods::settle_ephemeral(new, old),
        ("", "pods", "resize") => pods::settle_resize(new, old),
        ("certificates.k8s.io", "certificatesigningrequests", "approval") => {
            let mut kept = old.clone();
            let conditions = new.pointer("/status/conditions").cloned();
            if let (Some(conditions), Some(root)) = (conditions, kept.as_object_mut()) {
                let status = root.entry("status").or_insert_with(|| Value::Object(Default::default()));
                if let Some(status) = status.as_object_mut() {
                    status.insert("conditions".into(), conditions);
                }
            }
            *new = kept;
            Ok(Vec::new())
        }
        _ => {
            let _ = (api, cx);
            Err(Status::no_route())
        }
    }
}
